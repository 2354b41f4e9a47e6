"""tools/native/build.py: a small checkout of its own, compiled with the real compiler."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from l4lab.tools.native import build

ROOT = Path(__file__).resolve().parents[3]

LINKER_SCRIPT = """
ENTRY(_start)
PHDRS { text PT_LOAD FLAGS(5); data PT_LOAD FLAGS(6); }
SECTIONS {
    . = LINK_ADDRESS;
    .text : { *(.text .text.*) } :text
    .rodata : { *(.rodata .rodata.*) } :text
    .data ALIGN(4096) : { *(.data .data.*) } :data
    .bss : { *(.bss .bss.*) } :data
    /DISCARD/ : { *(.eh_frame) *(.comment) }
}
"""


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def zig_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zig-cache")


def make_checkout(root: Path, zig_cache: Path) -> Path:
    """A checkout with a shim, a library and one program."""
    write(
        root,
        {
            "emulator/shim/vcpu.c": '#include "answer.h"\n#include <unicorn/unicorn.h>\n'
            "unsigned engine(void) { return UC_API_MAJOR; }\n"
            "int answer(void) { return ANSWER; }\n",
            "emulator/shim/answer.h": "#define ANSWER 42\n",
            "userland/program.ld": LINKER_SCRIPT,
            "userland/include/l4/types.h": "#include <stdint.h>\ntypedef uint32_t word;\n",
            "userland/lib/start.S": ".globl _start\n.text\n_start: call main\n1: jmp 1b\n",
            "userland/lib/unused.c": "int unused(void);\nint unused(void) { return 1; }\n",
            "userland/hello/main.c": "#include <l4/types.h>\nword twice(word x);\nint main(void);\n"
            "__attribute__((noinline)) word twice(word x) { return 2 * x; }\n"
            "int main(void) { return (int)twice(21); }\n",
            "userland/hello/program.toml": "link_address = 0x08048000\n",
        },
    )
    (root / "build/native").mkdir(parents=True)
    (root / "build/native/zig-cache").symlink_to(zig_cache)
    return root


@pytest.fixture
def checkout(tmp_path: Path, zig_cache: Path) -> Path:
    return make_checkout(tmp_path / "a check out", zig_cache)


def program(root: Path, name: str = "hello") -> Path:
    return root / "src/l4lab/_native/programs" / name


def test_program_is_linked_where_its_description_says(checkout: Path) -> None:
    result = build.build(checkout)
    assert list(result.hashes) == ["hello"]
    with program(checkout).open("rb") as file:
        elf = ELFFile(file)  # type: ignore[no-untyped-call]
        assert elf.get_machine_arch() == "x86"
        first = next(segment for segment in elf.iter_segments("PT_LOAD"))
        assert first["p_vaddr"] == 0x08048000
        names = {symbol.name for symbol in elf.get_section_by_name(".symtab").iter_symbols()}
    assert {"_start", "main", "twice"} <= names
    assert "unused" not in names


def test_programs_use_nothing_that_an_i486_lacks(checkout: Path) -> None:
    """SSE and cmov are what compilers reach for first; see -mcpu=i486."""
    write(
        checkout,
        {
            "userland/hello/more.c": "int pick(int a, int b, int c);\ndouble scale(double x);\n"
            "int pick(int a, int b, int c) { return a ? b : c; }\n"
            "double scale(double x) { return x * 2.5; }\n",
            "userland/hello/main.c": "int pick(int, int, int);\ndouble scale(double);\nint main(void);\n"
            "int main(void) { return pick(1, 2, (int)scale(3)); }\n",
        },
    )
    build.build(checkout)
    import capstone

    with program(checkout).open("rb") as file:
        text = ELFFile(file).get_section_by_name(".text")  # type: ignore[no-untyped-call]
        code, address = text.data(), text["sh_addr"]
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
    decoder.detail = True
    modern = {capstone.x86.X86_GRP_SSE1, capstone.x86.X86_GRP_SSE2, capstone.x86.X86_GRP_CMOV}
    instructions = list(decoder.disasm(code, address))
    assert sum(instruction.size for instruction in instructions) == len(code)
    assert any(instruction.mnemonic.startswith("f") for instruction in instructions)
    assert not [instruction for instruction in instructions if modern & set(instruction.groups)]


def test_shim_is_compiled_for_this_host_against_the_engine_that_is_installed(checkout: Path) -> None:
    """In a process of its own: a loaded library cannot be unloaded reliably."""
    build.build(checkout)
    library = checkout / "src/l4lab/_native" / build.Host.detect().shim_name
    script = f"import ctypes; shim = ctypes.CDLL({str(library)!r}); print(shim.answer(), shim.engine())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "42 2\n"


def test_second_build_does_nothing(checkout: Path) -> None:
    assert build.build(checkout).rebuilt == (build.Host.detect().shim_name, "hello")
    assert build.build(checkout).rebuilt == ()
    assert build.build(checkout, force=True).rebuilt == (build.Host.detect().shim_name, "hello")


@pytest.mark.parametrize(
    ("changed", "text", "rebuilt"),
    [
        ("emulator/shim/answer.h", "#define ANSWER 43\n", ("shim",)),
        ("userland/include/l4/types.h", "typedef unsigned word;\n", ("hello",)),
        ("userland/lib/unused.c", "int unused(void);\nint unused(void) { return 2; }\n", ("hello",)),
        ("userland/program.ld", LINKER_SCRIPT + "\n", ("hello",)),
        ("userland/hello/program.toml", "link_address = 0x00100000\n", ("hello",)),
        ("userland/hello/notes.md", "not an input\n", ()),
    ],
)
def test_only_what_a_change_can_influence_is_rebuilt(
    checkout: Path, changed: str, text: str, rebuilt: tuple[str, ...]
) -> None:
    build.build(checkout)
    write(checkout, {changed: text})
    expected = tuple(build.Host.detect().shim_name if name == "shim" else name for name in rebuilt)
    assert build.build(checkout).rebuilt == expected


def test_bytes_do_not_depend_on_the_place_of_checkout_or_compiler(tmp_path: Path, zig_cache: Path) -> None:
    """Two checkouts, two caches, and the compiler's headers reached by another path."""
    first = make_checkout(tmp_path / "one", zig_cache)
    second = make_checkout(tmp_path / "far" / "away" / "another place", tmp_path)
    compiler = tmp_path / "moved"
    compiler.mkdir()
    original = Path(next(iter(importlib.util.find_spec("ziglang").submodule_search_locations or ())))  # type: ignore[union-attr]
    shutil.copytree(original / "lib" / "include", compiler / "lib" / "include")
    for path in (original / "lib").iterdir():
        if path.name != "include":
            (compiler / "lib" / path.name).symlink_to(path)
    shutil.copy2(original / "zig", compiler / "zig")

    result = build.build(first)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_zig_folder", lambda: compiler)
        moved = build.build(second)
    assert moved.hashes == result.hashes
    assert str(tmp_path).encode() not in program(second).read_bytes()


def test_program_that_is_gone_leaves_no_executable(checkout: Path) -> None:
    build.build(checkout)
    write(
        checkout,
        {"userland/hello/program.toml": 'name = "renamed"\nlink_address = 0x100000\n'},
    )
    assert list(build.build(checkout).hashes) == ["renamed"]
    assert not program(checkout).exists()


def test_one_folder_can_give_several_programs_and_share_another(checkout: Path) -> None:
    write(
        checkout,
        {
            "userland/shared/shared.h": "int shared(void);\n",
            "userland/shared/shared.c": '#include "shared.h"\nint shared(void) { return 7; }\n',
            "userland/hello/second.c": '#include "shared.h"\nint main(void);\n'
            "int main(void) { return shared(); }\n",
            "userland/hello/program.toml": """
                [[program]]
                name = "first"
                link_address = 0x100000
                sources = ["main.c"]
                [[program]]
                name = "second"
                link_address = 0x200000
                sources = ["second.c"]
                libs = ["lib", "shared"]
            """,
        },
    )
    assert list(build.build(checkout).hashes) == ["first", "second"]


def test_compiler_error_is_shown_and_hinders_nothing_else(checkout: Path) -> None:
    build.build(checkout)
    before = program(checkout).read_bytes()
    write(checkout, {"userland/hello/main.c": "int main(void) { return x; }\n"})
    write(checkout, {"emulator/shim/answer.h": "#define ANSWER 44\n"})
    with pytest.raises(build.BuildError, match=r"^hello does not compile") as caught:
        build.build(checkout)
    assert build.out_of_date(checkout) == ["hello"]
    assert "hello/main.c:1:25" in caught.value.output
    assert program(checkout).read_bytes() == before
    with pytest.raises(build.BuildError):  # still refused: a failure is not remembered as done
        build.build(checkout)


def test_builds_at_the_same_time_wait_for_each_other(checkout: Path) -> None:
    (checkout / "tools/native").mkdir(parents=True)
    shutil.copy2(ROOT / "tools/native/build.py", checkout / "tools/native")
    command = [sys.executable, str(checkout / "tools/native/build.py")]
    builds = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    told = [process.communicate()[1] for process in builds]
    assert [process.returncode for process in builds] == [0, 0, 0], told
    assert sum("built hello" in lines for lines in told) == 1
    assert build.out_of_date(checkout) == []


def test_wrong_compiler_version_is_refused(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "ZIGLANG_VERSION", "0.0.1")
    with pytest.raises(build.BuildError, match=r"^compiler: found ziglang [\d.]+, expected 0\.0\.1"):
        build.build(checkout)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (
            "link_adress = 0x100000",
            "link_adress: unknown key, expected one of libs, link_address, name, sources",
        ),
        ("name = 'hello'", "link_address: found None, expected a multiple of 0x1000"),
        ("link_address = 0x100001", "link_address: found 1048577, expected a multiple"),
        ("link_address = 0xc0000000", "link_address: found 3221225472, expected a multiple of 0x1000 below"),
        ("link_address = 0x100000\nname = '../x'", r"name: found '../x', expected letters"),
        (
            "link_address = 0x100000\nsources = 'main.c'",
            "sources: found 'main.c', expected a list of strings",
        ),
        ("link_address = 0x100000\nsources = ['gone.c']", r"sources: there is no gone.c in hello/"),
        ("link_address = 0x100000\nlibs = ['gone']", r"no C or assembly files in userland/gone"),
        ("link_address = ", r"Invalid value \(at "),
        ("x = 1\n[[program]]\nlink_address = 0x100000", "program: expected one or more"),
        (
            "[[program]]\nlink_address = 0x1000\n[[program]]\nlink_address = 0x2000",
            "name: there are two programs",
        ),
    ],
)
def test_bad_description_gets_one_line_naming_file_and_key(
    checkout: Path, description: str, message: str
) -> None:
    write(checkout, {"userland/hello/program.toml": description + "\n"})
    with pytest.raises(build.BuildError, match=f"^userland/hello/program.toml: {message}") as caught:
        build.read_programs(checkout / "userland")
    assert "\n" not in str(caught.value)


def test_hashes_are_written_as_sha256sum_reads_them(checkout: Path) -> None:
    result = build.build(checkout)
    path = checkout / "userland/HASHES"
    build.write_hashes(path, result.hashes)
    assert build.read_hashes(path) == result.hashes
    check = shutil.which("sha256sum")
    if check is None:
        pytest.skip("this host has no sha256sum")
    subprocess.run([check, "--check", "--strict", str(path)], cwd=program(checkout).parent, check=True)


def test_differing_names_changed_new_and_missing_programs() -> None:
    recorded = {"changed": "1", "gone": "2", "same": "3"}
    built = {"changed": "x", "new": "2", "same": "3"}
    assert build.differing(recorded, built) == ["changed", "gone", "new"]


def test_one_compiler_version_everywhere() -> None:
    """The constant here, the build requirements, the development extra and the lock file agree."""
    pinned = f"ziglang=={build.ZIGLANG_VERSION}"
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert pinned in project["build-system"]["requires"]
    assert pinned in project["project"]["optional-dependencies"]["dev"]
    assert pinned in (ROOT / "requirements.lock").read_text(encoding="utf-8").split()


def test_every_package_that_set_up_installs_is_pinned_by_hash() -> None:
    """The lock file is what the list of versions becomes, and pip takes nothing that it does not know."""
    wanted = [line for line in _lines("requirements.in") if "==" in line]
    locked = "\n".join(_lines("requirements.lock")).replace(" \\\n", " ").splitlines()
    assert sorted(line.split()[0] for line in locked) == sorted(wanted)
    for line in locked:
        hashes = line.split()[1:]
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes), line
    assert '"--require-hashes"' in (ROOT / "l4lab").read_text(encoding="utf-8")


def _lines(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]
