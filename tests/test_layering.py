"""Who may import whom: kernel <- emulator <- tools, with Unicorn in one place, and the wings of each.

`ARCHITECTURE.md` opens with the same lists.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src/l4lab"

# Importing package -> packages of ours that it may import. "" is l4lab itself, for notebooks.
ALLOWED = {
    "kernel": {"kernel"},
    "emulator": {"kernel", "emulator"},
    "tools": {"", "kernel", "emulator", "tools"},
    "": {"kernel", "emulator"},
}
# Packages of others. The standard library is open to all but for what has a rule of its own below.
ALLOWED_OTHERS: dict[str, set[str]] = {
    "kernel": set(),
    "emulator": {"unicorn", "capstone", "elftools"},
    "tools": {"capstone", "click", "elftools", "matplotlib", "numpy", "perfetto", "rich", "textual"}
    | {"libcst", "mutmut", "pytest"},  # mutants of the kernel, and the tests that judge them
    "": set(),
}
# The kernel is pure: no files, no host clock, no threads, no chance.
NOT_IN_KERNEL = {
    "os",
    "io",
    "pathlib",
    "time",
    "datetime",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "threading",
}


def modules() -> Iterator[tuple[str, Path]]:
    """(package, file) of every module that is installed."""
    yield "", PACKAGE / "__init__.py"
    for package in ("kernel", "emulator", "tools"):
        for path in sorted((PACKAGE / package).rglob("*.py")):
            yield package, path


def imported(tree: ast.Module, module: str) -> Iterator[tuple[str, int]]:
    """Absolute names of all modules that `tree` imports anywhere, with line numbers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            # `from l4lab import tools` imports a package, `from l4lab.units import PAGE` a name in it.
            yield from (
                (f"{name}.{alias.name}" if name == "l4lab" else name, node.lineno) for alias in node.names
            )
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if called in ("import_module", "__import__") and isinstance(
                argument := node.args[0], ast.Constant
            ):
                yield str(argument.value), node.lineno


def offences(package: str, module: str, source: str) -> list[str]:
    """Each import in `source` that breaks a rule, as `line: name`."""
    found = []
    for name, line in imported(ast.parse(source), module):
        first, _, rest = name.partition(".")
        if first == "l4lab":
            target = rest.partition(".")[0]
            allowed = (target if target in ALLOWED else "") in ALLOWED[package]
        elif first in sys.stdlib_module_names:
            allowed = not (package == "kernel" and first in NOT_IN_KERNEL)
        else:
            allowed = first in ALLOWED_OTHERS[package]
        if not allowed:
            found.append(f"{line}: {name}")
    return found


@pytest.mark.parametrize(
    ("package", "path"), [pytest.param(*pair, id=str(pair[1].relative_to(PACKAGE))) for pair in modules()]
)
def test_module_imports_only_what_its_package_may(package: str, path: Path) -> None:
    module = ".".join(("l4lab", *path.relative_to(PACKAGE).with_suffix("").parts))
    assert offences(package, module, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("package", "source", "offending"),
    [
        ("kernel", "import unicorn", ["1: unicorn"]),
        ("kernel", "from time import monotonic", ["1: time"]),
        ("kernel", "def f():\n    from l4lab.emulator import ram", ["2: l4lab.emulator"]),
        ("kernel", "from ..emulator.ram import Ram", ["1: l4lab.emulator.ram"]),
        ("kernel", "from l4lab import emulator", ["1: l4lab.emulator"]),
        ("kernel", "from l4lab.kernel.units import PAGE_BYTES\nimport dataclasses", []),
        ("emulator", "from l4lab.tools import cli", ["1: l4lab.tools"]),
        ("emulator", "import unicorn.x86_const\nfrom l4lab.kernel import traps", []),
        (
            "emulator",
            "import importlib\nimportlib.import_module('l4lab.tools.cli.main')",
            ["2: l4lab.tools.cli.main"],
        ),
        ("emulator", "import click", ["1: click"]),
        ("tools", "import unicorn", ["1: unicorn"]),
        ("tools", "from l4lab import __version__\nimport rich.table", []),
        ("", "from l4lab.tools.cli.main import main", ["1: l4lab.tools.cli.main"]),
    ],
)
def test_the_walk_sees_every_kind_of_import(package: str, source: str, offending: list[str]) -> None:
    assert offences(package, f"l4lab.{package or 'x'}.module", source) == offending


def test_every_package_is_walked() -> None:
    assert {package for package, _ in modules()} == set(ALLOWED)
    assert sum(package == "kernel" for package, _ in modules()) > 5


# --- inside the kernel --------------------------------------------------------------------------

MEMBERS = ("fiasco",)
"""Folders of `kernel` that know an interface's numbers, each behind `kernel/interface.py`."""
MECHANISMS = sorted((PACKAGE / "kernel").glob("*.py"))


@pytest.mark.parametrize("path", MECHANISMS, ids=lambda path: path.name)
def test_mechanisms_name_no_member_of_the_family(path: Path) -> None:
    """Not for types either: whatever a mechanism needs of an interface, it asks at the door."""
    named = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            named += [f"{node.module}.{alias.name}" for alias in node.names]
    assert [name for name in named if set(name.split(".")) & set(MEMBERS)] == []


_WITHOUT_MEMBERS = """
import importlib, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in REFUSED:
            raise ModuleNotFoundError(name)

REFUSED = {f"l4lab.kernel.{member}" for member in sys.argv[1].split(",")}
sys.meta_path.insert(0, Refuse())
for name in sys.argv[2:]:
    importlib.import_module(f"l4lab.kernel.{name}")
try:
    importlib.import_module(sorted(REFUSED)[0])
except ModuleNotFoundError:
    print(len(sys.argv[2:]))
"""


def test_mechanisms_can_be_imported_without_any_member() -> None:
    names = [path.stem for path in MECHANISMS if path.stem != "__init__"]
    command = [sys.executable, "-c", _WITHOUT_MEMBERS, ",".join(MEMBERS), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == (str(len(names)), "")


# --- wings ------------------------------------------------------------------------------------------

# Wing -> the wings that its modules import; nothing else, and none in vain. "" is what lies at the top of a package.
WINGS: dict[str, dict[str, set[str]]] = {
    "kernel": {
        "": set(),
        "fiasco": {""},
    },
    "emulator": {
        "": {"files"},
        "debug": {"", "files"},
        "files": {""},
        "yardstick": set(),
    },
    "tools": {
        "native": set(),
        "common": {"native"},
        "runs": {"common"},
        "ledger": {"common", "runs"},
        "bench": {"common", "ledger", "runs"},
        "check": {"bench", "common", "runs"},
        "paper": {"bench", "common", "runs"},
        "trace": {"common", "ledger", "runs"},
        "debug": {"common", "native", "runs"},
        "why": {"common", "debug", "ledger", "runs"},
        "cli": {"bench", "check", "common", "debug", "ledger", "native", "paper", "runs", "trace", "why"},
    },
}
MOST_EDGES_OF_TOOLS = 35
# At the top of the emulator, and without a look at its files: so the arrows between the two are no circle.
BELOW_FILES = {"costs", "errors", "interfaces"}


def modules_of(package: str) -> Iterator[tuple[str, Path]]:
    """(wing, file) of every module of `package`."""
    for path in sorted((PACKAGE / package).rglob("*.py")):
        parts = path.relative_to(PACKAGE / package).parts
        yield parts[0] if len(parts) > 1 else "", path


@cache
def own_imports(package: str, path: Path) -> frozenset[str]:
    """Names below `package` of all that `path` imports of it, as `wing.module.name` or `module.name`."""
    module = ".".join(("l4lab", *path.relative_to(PACKAGE).with_suffix("").parts))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {name for name, _ in imported(tree, module)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    prefix = f"l4lab.{package}."
    return frozenset(name.removeprefix(prefix) for name in names if name.startswith(prefix))


def wing_of(package: str, name: str) -> str:
    """Of `wing.module`, or of a module at the top."""
    first = name.partition(".")[0]
    return first if (PACKAGE / package / first).is_dir() else ""


def edges(package: str) -> dict[str, set[str]]:
    """Wing -> the other wings that its modules import, as it is."""
    found: dict[str, set[str]] = {}
    for wing, path in modules_of(package):
        targets = {wing_of(package, name) for name in own_imports(package, path)}
        found.setdefault(wing, set()).update(targets - {wing})
    return found


@pytest.mark.parametrize("package", WINGS)
def test_wings_import_what_the_list_says_and_nothing_less(package: str) -> None:
    found = edges(package)
    if package == "tools":
        assert found.pop("") == set(), "nothing lies at the top of tools/"
    assert found == WINGS[package]


def test_no_two_wings_of_the_tools_need_each_other() -> None:
    tuple(TopologicalSorter(WINGS["tools"]).static_order())  # raises CycleError
    assert sum(map(len, WINGS["tools"].values())) <= MOST_EDGES_OF_TOOLS


def test_the_emulator_names_its_interface_in_one_place() -> None:
    naming = [
        str(path.relative_to(PACKAGE))
        for package, path in modules()
        if package == "emulator" and any(name.startswith("fiasco") for name in own_imports("kernel", path))
    ]
    assert naming == ["emulator/interfaces.py"]


def test_files_of_the_emulator_use_nothing_that_uses_them() -> None:
    for wing, path in modules_of("emulator"):
        names = own_imports("emulator", path)
        at_top = {name.partition(".")[0] for name in names if not wing_of("emulator", name)}
        if wing == "files":
            assert at_top <= BELOW_FILES, path
        if wing == "" and path.stem in BELOW_FILES:
            assert at_top == {name.partition(".")[0] for name in names} <= BELOW_FILES, path


def test_each_common_module_has_several_users() -> None:
    """What one wing alone uses belongs into it."""
    users: dict[str, set[str]] = {
        path.stem: set() for wing, path in modules_of("tools") if wing == "common" and path.stem != "__init__"
    }
    for wing, path in modules_of("tools"):
        for name in own_imports("tools", path):
            first, *rest = name.split(".")
            if first == "common" and rest and wing != "common":
                users[rest[0]].add(wing)
    assert {name: found for name, found in users.items() if len(found) < 2} == {}


@pytest.mark.parametrize(
    "path",
    [path for name in ("kernel", "emulator", "tools") for path in (PACKAGE / name).rglob("__init__.py")],
    ids=lambda path: path.relative_to(PACKAGE).parent.as_posix(),
)
def test_a_wing_says_what_it_is_and_does_nothing(path: Path) -> None:
    (only,) = ast.parse(path.read_text(encoding="utf-8")).body
    assert isinstance(only, ast.Expr) and isinstance(only.value, ast.Constant)
    assert isinstance(only.value.value, str)


def test_few_files_lie_outside_of_wings() -> None:
    assert [path.name for path in (ROOT / "tools").glob("*.py")] == ["__init__.py"]
    assert sum(path.is_file() for path in (ROOT / "emulator").iterdir()) <= 16


# --- the pages that say so --------------------------------------------------------------------------

ARCHITECTURE = ROOT / "ARCHITECTURE.md"
_LINE = re.compile(r"^(?P<indent> *)(?P<name>\w+)/ .*?(?:→ (?P<targets>[\w, ()]+))?$")


def picture() -> dict[str, dict[str, set[str]]]:
    """The lists in the picture at the top of ARCHITECTURE.md: package -> wing -> wings."""
    block = ARCHITECTURE.read_text(encoding="utf-8").split("```")[1]
    found: dict[str, dict[str, set[str]]] = {}
    package = ""
    for line in block.splitlines():
        if (match := _LINE.match(line)) is None:
            continue
        if not match["indent"]:
            package = match["name"]
            continue
        targets = {target for target in (match["targets"] or "").split(", ") if target}
        found.setdefault(package, {})[match["name"]] = targets
    return found


def test_the_page_on_the_architecture_opens_with_these_lists() -> None:
    page = picture()
    assert list(page["tools"]) == list(reversed(WINGS["tools"])), "users stand above what they use"
    for package, wings in WINGS.items():
        expected = {
            wing: {target or "(top)" for target in targets} for wing, targets in wings.items() if wing
        }
        assert page[package] == expected
