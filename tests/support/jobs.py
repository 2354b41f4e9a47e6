"""Work for `tools/runs/campaign.py`, to be done in processes of its own: so it must be importable by name."""

from __future__ import annotations

import importlib
import os
import resource
import signal
import tempfile
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any

from l4lab.emulator.errors import OperatorError
from l4lab.tools.common.progress import Tell
from l4lab.tools.runs import campaign
from support.handshake import leave_word

BEGUN = "begun"
"""A signpost, or a named pipe that two jobs meet at."""


def count(folder: Path, name: str, progress: Tell) -> dict[str, Any]:
    """Leave a mark in `folder` each time this is done."""
    progress(0.5)
    with (folder / name).open("a", encoding="ascii") as marks:
        marks.write("x")
    return {"name": name, "process": os.getpid()}


def fail(folder: Path, name: str, _: Tell) -> dict[str, Any]:
    """An operator's mistake, noticed late."""
    count(folder, name, lambda _: None)
    raise OperatorError("there is no such machine")


def be_interrupted(folder: Path, name: str, _: Tell) -> dict[str, Any]:
    """Ctrl-C in the middle of it."""
    count(folder, name, lambda _: None)
    raise KeyboardInterrupt


def be_interrupted_then(folder: Path, _name: str, _progress: Tell) -> dict[str, Any]:
    """Ctrl-C as soon as `last` has begun."""
    (folder / BEGUN).read_bytes()
    raise KeyboardInterrupt


def last(folder: Path, name: str, _: Tell) -> dict[str, Any]:
    """For ever; whoever stops it finds a mark that it has cleaned up."""
    try:
        leave_word(folder / BEGUN, name)
        while True:
            signal.pause()
    finally:
        (folder / name).write_text("x", encoding="ascii")


def die(_folder: Path, _name: str, _progress: Tell) -> dict[str, Any]:
    """As if killed by the host."""
    os._exit(9)


def edit(folder: Path, name: str, _: Tell) -> dict[str, Any]:
    """Somebody works on the code while this runs."""
    result = count(folder, name, lambda _: None)
    (folder / "kernel").mkdir()
    campaign.PACKAGE_DIR = folder
    return result


def draw(folder: Path, name: str, _: Tell) -> dict[str, Any]:
    """Uses code that its key does not stand for."""
    importlib.import_module("l4lab.tools.paper.result_pages")
    return count(folder, name, lambda _: None)


def report(folder: Path, name: str, progress: Tell) -> dict[str, Any]:
    """Says how far it is when nobody listens any more."""
    count(folder, name, progress)
    leave_word(folder / BEGUN, name)
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    while True:  # its end of the pipe is closed soon after
        progress(0.5)


def fill_disk(folder: Path, name: str, _: Tell) -> dict[str, Any]:
    """Leaves no room for its result."""
    result = count(folder, name, lambda _: None)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
    return result


def fill_temporary(folder: Path, name: str, _: Tell) -> dict[str, Any]:
    """Nor for what it needs while it runs."""
    fill_disk(folder, name, lambda _: None)
    with tempfile.TemporaryFile() as file:
        file.write(b"more than fits")
    return {}
