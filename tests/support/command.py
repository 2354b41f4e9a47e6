"""The command line as tests call it: most in their own process, as starting one takes longer than most commands."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Final

from l4lab.tools.cli.main import main

CLI: Final = [sys.executable, "-P", "-m", "l4lab.tools.cli"]
"""For a process of its own: where signals, pipes, a terminal, or what is left behind matter."""


def call(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What `l4lab ARGUMENTS` does, in this process: its exit code, and what it has printed."""
    command = [os.fspath(one) if isinstance(one, os.PathLike) else str(one) for one in arguments]
    out, err = (
        TextIOWrapper(BytesIO(), encoding="utf-8", newline="\n", write_through=True) for _ in range(2)
    )
    code: object = None
    with (
        contextlib.chdir(cwd if cwd is not None else Path()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main(command)
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    printed, told = (stream.detach().getvalue().decode("utf-8") for stream in (out, err))  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(command, code, printed, told)
