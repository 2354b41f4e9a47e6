"""./l4lab in copies of this checkout: what it says when something is missing, and the whole set-up."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

from support.checkout import ROOT, copy_checkout
from support.handshake import read_some, read_until


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return copy_checkout(tmp_path / "a new clone")


def load_launcher(clone: Path) -> ModuleType:
    """The launcher of `clone` as a module, not run."""
    loader = importlib.machinery.SourceFileLoader("launcher", str(clone / "l4lab"))
    spec = importlib.util.spec_from_loader("launcher", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def launch(
    clone: Path, *arguments: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(clone / "l4lab"), *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


OLD_PYTHON = (
    "import runpy, sys; sys.version_info = (3, 9, 1); sys.version = '3.9.1 (old)'; runpy.run_path({!r}, {}"
)


def test_old_python_without_a_newer_one_gets_one_line(clone: Path, tmp_path: Path) -> None:
    script = OLD_PYTHON.format(str(clone / "l4lab"), "run_name='__main__')")
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert re.fullmatch(r"l4lab: needs Python 3\.11 or newer; python3 is 3\.9\.1, .*\n", done.stderr)
    assert not (clone / ".venv").exists()


def test_old_python_hands_over_to_a_newer_one_on_the_path(clone: Path, tmp_path: Path) -> None:
    """The first candidate cannot even run, like a version manager's stand-in."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python3.13").write_text("#!/bin/sh\nexit 127\n")
    (folder / "python3.12").write_text(
        f'#!/bin/sh\n[ "$1" = -I ] && exec "{sys.executable}" "$@"\necho ran "$@"\n'
    )
    for path in folder.iterdir():
        path.chmod(0o755)
    script = OLD_PYTHON.format(str(clone / "l4lab"), "run_name='__main__')")
    done = subprocess.run(
        [sys.executable, "-c", script, "boot", "a b"],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"ran {clone / 'l4lab'} boot a b\n"


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (
            "Retrying: Failed to establish a new connection: [Errno -2]\nERROR: No matching distribution",
            "cannot download packages: no network, or the package index cannot be reached",
        ),
        (
            "Collecting x\nERROR: No matching distribution found for x==9",
            "No matching distribution found for x==9",
        ),
        (
            "  File 'x'\n      OSError: [Errno 28] No space left\n[end]\nhint: See above",
            "OSError: [Errno 28] No space",
        ),
        ("", "no message"),
    ],
)
def test_failure_of_pip_is_told_in_one_line(log: str, line: str) -> None:
    told = load_launcher(ROOT).explain_pip(log)
    assert line in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("change", "noticed"),
    [
        (lambda root: (root / "userland/program.ld").write_text("/* */"), True),
        (lambda root: (root / "emulator/shim/new.c").write_text(""), True),
        (lambda root: (root / "userland/program.ld").unlink(), True),
        (lambda root: (root / "src/l4lab/_native/vcpu.so").unlink(), True),
        (lambda root: (root / "tools/native/build.py").write_text("#"), True),
        (lambda root: (root / "emulator/errors.py").write_text("#"), False),
        (lambda root: (root / "kernel/units.py").write_text("#"), False),
    ],
)
def test_quick_look_notices_native_changes_only(clone: Path, change: object, noticed: bool) -> None:
    (clone / "src/l4lab/_native").mkdir(exist_ok=True)
    (clone / "src/l4lab/_native/vcpu.so").write_bytes(b"")
    (clone / "build").mkdir()
    launcher = load_launcher(clone)
    state = launcher.native_state(launcher.files_state(launcher.NATIVE_SOURCES))
    (clone / "build/native-stamp").write_bytes(state)
    assert launcher.is_built()
    assert callable(change)
    change(clone)
    assert launcher.is_built() is not noticed


@pytest.mark.slow
def test_without_a_network_set_up_ends_with_one_line(clone: Path) -> None:
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    done = launch(clone, "--version", **nowhere, PIP_EXTRA_INDEX_URL="", PIP_NO_CACHE_DIR="1")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("l4lab: cannot download packages: no network")
    assert "Traceback" not in done.stderr


def test_a_checkout_that_cannot_be_written_is_one_line(clone: Path) -> None:
    (clone / "build").write_text("a file")
    done = launch(clone, "--version")
    assert done.returncode == 2
    assert re.fullmatch(r"l4lab: cannot write to \S.*build, where set-up keeps .*\n", done.stderr)


def test_an_interrupted_step_leaves_nobody_behind(clone: Path, tmp_path: Path) -> None:
    """Whoever resumes the set-up would find files appearing in .venv."""
    held = tmp_path / "held by all that the step has started"
    os.mkfifo(held)
    command = ["sh", "-c", f"(echo begun; exec tail -f /dev/null) > '{held}' & wait"]
    end = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(end, True)

    def press_ctrl_c() -> None:
        assert read_some(end) == b"begun\n"
        os.kill(os.getpid(), signal.SIGINT)

    person = threading.Thread(target=press_ctrl_c)
    person.start()
    with pytest.raises(KeyboardInterrupt):
        load_launcher(clone).Steps(1).run("a step", command, explain=str)
    person.join()
    assert read_some(end) == b""  # nobody has it open any more
    os.close(end)


@pytest.mark.network
def test_a_new_clone_sets_itself_up_once(clone: Path, tmp_path: Path) -> None:
    """Interrupted, resumed by two at once, through a link, from elsewhere, with a space in the path."""
    first = subprocess.Popen([str(clone / "l4lab"), "--version"], stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    read_until(first.stderr, "[2/4]")
    first.send_signal(signal.SIGINT)
    assert "interrupted" in first.communicate()[1]
    assert first.returncode == 130

    link = tmp_path / "link"
    link.symlink_to(clone / "l4lab")
    pair = [
        subprocess.Popen(
            [str(link), "--version"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert outputs[0][0].startswith("l4lab ")
    assert sum("set up in" in errors for _, errors in outputs) == 1

    again = launch(clone, "--version")
    assert (again.stdout, again.stderr) == (outputs[0][0], "")
    assert launch(clone, "no-such-command").returncode == 2

    (clone / "userland/include/l4/extra.h").write_text("\n")
    changed = launch(clone, "--version")
    assert "built vcpu" not in changed.stderr
    assert "built hello" in changed.stderr

    (clone / "requirements.lock").write_text((clone / "requirements.lock").read_text() + "\n")
    assert "requirements or Python changed" in launch(clone, "--version").stderr
    assert launch(clone, "--version").stderr == ""


# --- a checkout that this user may not write to ---------------------------------------------------


def stand_in_of(clone: Path, caches: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the launcher uses instead of `clone`; root may write everywhere, so that is denied here."""
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != clone and real(path, mode))
    monkeypatch.setenv("XDG_CACHE_HOME", str(caches))
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    return Path(load_launcher(clone).CHECKOUT)


def test_a_checkout_that_cannot_be_written_has_a_stand_in(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(clone.rglob("*"))
    stand_in = stand_in_of(clone, tmp_path / "caches", monkeypatch)
    assert stand_in.parent == tmp_path / "caches/l4lab"
    assert (stand_in / "userland").samefile(clone / "userland")
    assert (stand_in / "src/l4lab/tools/native/build.py").samefile(clone / "tools/native/build.py")
    assert not (stand_in / "src/l4lab").is_symlink() and not (stand_in / "src/l4lab/_native").exists()
    assert sorted(clone.rglob("*")) == before


def test_a_stand_in_follows_its_checkout(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is made there stays; links to what has gone do not."""
    stand_in = stand_in_of(clone, tmp_path / "caches", monkeypatch)
    (stand_in / "build").mkdir(exist_ok=True)
    (clone / "new.md").write_text("")
    (clone / "README.md").unlink(missing_ok=True)
    assert stand_in_of(clone, tmp_path / "caches", monkeypatch) == stand_in
    assert (stand_in / "new.md").is_symlink() and (stand_in / "build").is_dir()
    assert not (stand_in / "README.md").is_symlink()


def test_native_code_of_a_stand_in_is_built_there(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = stand_in_of(clone, tmp_path / "caches", monkeypatch)
    script = "import runpy, sys; print(runpy.run_path(sys.argv[1])['CHECKOUT'])"
    for path in (stand_in / "tools/native/build.py", stand_in / "src/l4lab/tools/native/build.py"):
        done = subprocess.run(
            [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"{stand_in}\n"


def test_without_any_place_to_write_there_is_one_line(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "caches").write_text("no folder")
    script = (
        "import os, runpy, sys\n"
        "os.access = lambda *_: False\n"
        "runpy.run_path(sys.argv[1], run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(clone / "l4lab")],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "caches")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert "cannot write to" in done.stderr and done.stderr.count("\n") == 1
