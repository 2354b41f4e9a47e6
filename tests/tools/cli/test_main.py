"""The command line: what it prints where, and its exit codes."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from l4lab.emulator.errors import ManifestError
from l4lab.kernel.errors import KernelBug
from l4lab.tools.cli.edge import EXIT_CLOSED_PIPE, flushed
from l4lab.tools.cli.main import cli, main
from l4lab.tools.common.versions import programs_digest, versions_with_drawing
from l4lab.tools.native import build

COMMANDS = tuple(cli.commands)


def call(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`l4lab` in a process of its own, as the launcher and the console script start it."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "l4lab.tools.cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def call_main(*arguments: str) -> int:
    """`l4lab` in this process, where a test can replace what a command does."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code


def raiser(error: BaseException) -> Callable[..., None]:
    def fail(*_arguments: object, **_named: object) -> None:
        raise error

    return fail


# --- help and versions ----------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_every_command_and_shows_how_to_start(flag: str) -> None:
    done = call(flag)
    assert done.returncode == 0
    assert done.stderr == ""
    assert re.findall(r"^  (\w+)  ", done.stdout.split("Commands:")[1], re.M) == list(COMMANDS)
    assert "l4lab demo" in done.stdout
    assert {"boot", "demo", "conformance", "bench", "test", "build"} <= set(COMMANDS)


@pytest.mark.parametrize("command", [[name] for name in COMMANDS] + [["bench", "engine"]])
def test_each_command_has_help_of_its_own(command: list[str]) -> None:
    done = call(*command, "-h")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: l4lab {' '.join(command)}")
    assert len(done.stdout.splitlines()) >= 5


def test_without_a_command_help_goes_to_stderr() -> None:
    done = call()
    assert (done.returncode, done.stdout) == (2, "")
    assert "Commands:" in done.stderr


def test_help_and_version_do_not_load_the_machine() -> None:
    script = "import sys\nfrom l4lab.tools.cli.main import main\ntry: main(['--version'])\nexcept SystemExit: pass\n"
    script += "print(sorted({'unicorn', 'capstone', 'elftools', 'rich'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version_tells_all_that_results_depend_on() -> None:
    done = call("--version")
    assert done.returncode == 0
    rows = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert list(rows) == ["l4lab", "unicorn", "python", "compiler", "programs", "matplotlib", "pillow"]
    assert rows == versions_with_drawing()
    assert rows["unicorn"].startswith("2.1.")
    assert rows["compiler"] == f"ziglang {build.ZIGLANG_VERSION}"
    assert re.fullmatch("[0-9a-f]{16}", rows["programs"])


def test_versions_of_what_draws_can_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an installation without the extra `plot`."""

    def find(name: str) -> str:
        if name == "matplotlib":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("l4lab.tools.common.versions.version", find)
    assert versions_with_drawing()["matplotlib"] == "not installed"
    assert versions_with_drawing()["pillow"] == "1.0"


def test_programs_digest_depends_on_names_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("l4lab.tools.common.versions.NATIVE", tmp_path)
    assert programs_digest() == ""
    programs = tmp_path / "programs"
    programs.mkdir()
    seen = set()
    for name, content in (("a", b"1"), ("b", b"1"), ("a", b"2")):
        (programs / name).write_bytes(content)
        seen.add(programs_digest())
    assert len(seen) == 3


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["bot"], "l4lab: No such command 'bot'. Did you mean 'boot'?; see l4lab --help"),
        (["boot"], "l4lab: Missing argument 'IMAGE'; see l4lab boot --help"),
        (["boot", "hello", "--max-cycles", "0"], "l4lab: Invalid value for '--max-cycles': 0 is not in"),
        (["boot", "hello", "--jsn"], "l4lab: No such option '--jsn'"),
        (["trace", "--from", "abc"], "l4lab: --from: found 'abc', expected a number from 0 on\n"),
        (["trace", "--to", "-1"], "l4lab: --to: found '-1', expected a number from 0 on\n"),
        (["trace", "--to", "9" * 5000], f"l4lab: --to: found '{'9' * 40}'..., expected a number from 0 on\n"),
        (["inspect", "--cycle", "abc"], "l4lab: --cycle: found 'abc', expected a number from 0 on\n"),
        (["inspect", "--fault", "0"], "l4lab: --fault: found '0', expected a number from 1 on\n"),
        (["bench", "nothing"], "l4lab: No such command 'nothing'; see l4lab bench --help"),
    ],
)
def test_wrong_arguments_get_one_line_and_exit_code_2(arguments: list[str], line: str) -> None:
    done = call(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(line)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ManifestError("x.toml: boot.sigma0: no such file"), 2, "l4lab: x.toml: boot.sigma0: no such file\n"),
        (
            build.BuildError("hello does not compile", "main.c:1: bad\n"),
            2,
            "main.c:1: bad\nl4lab: hello does",
        ),
        (
            KernelBug("queue empty\nthread 3: RUNNING"),
            70,
            "l4lab: bug in l4lab's kernel: queue empty\nthread 3",
        ),
        (KeyboardInterrupt(), 130, "\nl4lab: interrupted\n"),
    ],
)
def test_each_kind_of_failure_has_its_exit_code(
    error: BaseException,
    code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(build, "build", raiser(error))
    assert call_main("build") == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(told)


def test_error_of_ours_that_nothing_expects_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bug of the tools must not be swallowed as if it were an operator's mistake."""
    monkeypatch.setattr(build, "build", raiser(ZeroDivisionError()))
    assert call_main("build") == 70
    told = capsys.readouterr().err
    assert told.startswith("Traceback") and "ZeroDivisionError" in told
    assert told.endswith("l4lab: bug in l4lab: the lines above say where\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["boot", "hello"],
        ["boot", "hello", "--json"],
        ["trace", "run", "--text"],
        ["profile", "show", "opteron-6174"],
        ["profile", "show", "opteron-6174", "--json"],
    ],
)
def test_reader_that_leaves_early_is_no_error_message(arguments: list[str], tmp_path: Path) -> None:
    """As in `l4lab boot -h | head -1`, with the pipe closed before anything is written.

    Some write through click, some through rich, some by themselves; and what is short is only written at the end.
    """
    if arguments[0] == "trace":
        assert call("boot", "hello", "--out", "run", cwd=tmp_path).returncode == 0
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "l4lab.tools.cli", *arguments],
        cwd=tmp_path,
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write_end)
    assert done.stderr == ""
    assert done.returncode == 141


def test_an_output_that_was_closed_on_the_way_keeps_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that wraps stdout closes it when it goes, if it could not write."""
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    assert flushed(EXIT_CLOSED_PIPE) == EXIT_CLOSED_PIPE


@pytest.mark.parametrize(
    "arguments", [["profile", "show", "opteron-6174", "--json"], ["boot", "hello", "--json"]]
)
def test_output_that_cannot_be_written_gets_one_line(arguments: list[str]) -> None:
    """The device is full, which is noticed early or, if the output is short, at the end."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "l4lab.tools.cli", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (2, "l4lab: cannot write: No space left on device\n")


@pytest.mark.parametrize(
    "arguments", [["boot", "hello"], ["boot", "hello", "--json"], ["profile", "show", "opteron-6174"]]
)
def test_a_closed_stdout_is_told_in_one_line(arguments: list[str]) -> None:
    """As with `l4lab boot hello >&-`."""
    shell = 'exec "$@" >&-'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-P", "-m", "l4lab.tools.cli", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "l4lab: stdout: found it closed, expected it open; to drop the output, redirect it to /dev/null\n"
    )


LARGE = """
[machine]
cores = 1
ram = "3GiB"
profile = "opteron-6174"
[boot]
sigma0 = "sigma0"
roottask = "root --init=rom/hello"
modules = ["hello"]
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce these limits")
@pytest.mark.parametrize(
    ("limit", "value", "arguments", "line"),
    [
        ("RLIMIT_AS", 2 << 30, ["boot", "large.toml"], "found no memory left on this host"),
        ("RLIMIT_AS", 2 << 30, ["boot", "large.toml", "--gdb", "0"], "found no memory left on this host"),
        ("RLIMIT_NOFILE", 7, ["boot", "hello", "--out", "run"], "oo many .*open"),
        ("RLIMIT_FSIZE", 1000, ["boot", "hello", "--out", "run"], "File too large"),
    ],
)
def test_what_the_host_has_too_little_of_is_one_line(
    limit: str, value: int, arguments: list[str], line: str, tmp_path: Path
) -> None:
    """Not our bug, and the operator can do something about it."""
    (tmp_path / "large.toml").write_text(LARGE)
    script = (
        "import os, resource, sys\n"
        f"resource.setrlimit(resource.{limit}, ({value}, {value}))\n"
        "os.execv(sys.executable, [sys.executable, '-P', '-m', 'l4lab.tools.cli', *sys.argv[1:]])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert re.search(line, done.stderr) and done.stderr.count("\n") == 1


# --- commands of a checkout -----------------------------------------------------------------------


@pytest.mark.parametrize("command", ["build", "lint", "test"])
def test_installed_package_has_no_sources_to_build_or_test(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "CHECKOUT", tmp_path)
    assert call_main(command) == 2
    assert capsys.readouterr().err == (
        f"l4lab: {command}: found an installed package, expected a checkout of l4lab with its sources\n"
    )


def test_tests_run_from_anywhere_with_the_arguments_given(tmp_path: Path) -> None:
    done = call(
        "test", "--collect-only", "-q", "tests/tools/cli/test_main.py", "-k", "from_anywhere", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "test_main.py::test_tests_run_from_anywhere_with_the_arguments_given\n" in done.stdout
    assert call("test", "-q", "-k", "no_such_test_at_all", "tests/tools/cli").returncode == 5


def test_lint_runs_all_its_tools_and_fails_with_any_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "userland").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(build, "CHECKOUT", tmp_path)
    ran: list[tuple[str, ...]] = []
    failing: set[str] = set()

    def run(command: list[str], *, cwd: Path, check: bool) -> subprocess.CompletedProcess[bytes]:
        assert (command[:3], cwd, check) == ([sys.executable, "-P", "-m"], tmp_path, False)
        ran.append(tuple(command[3:]))
        return subprocess.CompletedProcess(command, 1 if set(command) & failing else 0)

    monkeypatch.setattr(subprocess, "run", run)
    assert call_main("lint") == 0
    assert [(tool[0], "--check" in tool) for tool in ran] == [
        ("ruff", False),
        ("ruff", True),
        ("mypy", False),
    ]
    ran.clear()
    failing.add("check")
    assert call_main("lint", "--fix") == 1
    assert [(tool[0], "--fix" in tool, "--check" in tool) for tool in ran] == [
        ("ruff", True, False),
        ("ruff", False, False),
        ("mypy", False, False),
    ]


@pytest.mark.slow
def test_build_tells_of_other_bytes_and_records_them_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "checkout"
    for name in ("emulator", "userland"):
        shutil.copytree(build.CHECKOUT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "src/l4lab").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    (root / "userland/HASHES").write_text("")
    monkeypatch.setattr(build, "CHECKOUT", root)

    assert call_main("build") == 0
    told = capsys.readouterr().err
    assert "built hello" in told
    names = ", ".join(program.name for program in build.read_programs(root / "userland"))
    assert f"userland/HASHES has other bytes for {names}" in told
    assert call_main("build", "--wheel") == 2
    assert capsys.readouterr().err.startswith(f"l4lab: userland/HASHES has other bytes for {names}")
    assert call_main("build", "--update-hashes") == 0
    assert f"userland/HASHES: recorded {names}\n" in capsys.readouterr().err
    assert build.read_hashes(root / "userland/HASHES") == build.program_hashes(
        root / "src/l4lab/_native/programs"
    )
    assert call_main("build") == 0
    assert capsys.readouterr().err == "l4lab: everything is up to date\n"
