"""`l4lab inspect`: the kernel's objects at a moment of a run, as the real kernel's debugger shows them."""

from __future__ import annotations

from typing import Any, Final

from l4lab.tools.common.report import grouped, print_json
from l4lab.tools.debug.inspect_views import KINDS, Looked, views, visible
from l4lab.tools.runs.programs import Programs
from l4lab.tools.runs.replay import Moment, find_source, reach

INSPECT_FORMAT: Final = 1
"""Version of the JSON document; raised when a key goes or changes its meaning."""

DEFAULT_VIEWS: Final = ("cores", "threads", "messages", "ready", "ipis", "memory")


def show_inspect(
    word: str, asked: tuple[str, ...], moment: Moment, *, image: str | None, as_json: bool
) -> int:
    """`l4lab inspect`. Returns the exit code; raises OperatorError and KernelBug."""
    source = find_source(word, image)
    found = reach(source, moment)
    machine = found.machine
    looked = Looked(machine, Programs(found.manifest))
    tables = [(name, view) for name in asked or DEFAULT_VIEWS for view in views(looked, name)]
    clocks = [core.clock_cycles for core in machine.cores]
    if as_json:
        document: dict[str, Any] = {
            "format": INSPECT_FORMAT,
            "manifest": found.manifest.path.name,
            "moment": {"what": found.text, "clocks": clocks, "entries": machine.entries},
            "views": [{"view": name, **view.as_dict()} for name, view in tables],
        }
        print_json(document)
        return 0
    print(f"{found.manifest.path.name}: {found.text}")
    print(f"clocks: {', '.join(grouped(clock) for clock in clocks)}")
    for _, view in tables:
        print()
        print(visible("\n".join(view.lines())))
    return 0


def list_views(*, as_json: bool) -> int:
    """The names of all views. Returns the exit code."""
    if as_json:
        names = [
            {"view": name, "arguments": kind.arguments, "meaning": kind.meaning}
            for name, kind in KINDS.items()
        ]
        print_json({"format": INSPECT_FORMAT, "views": names})
        return 0
    for name, kind in KINDS.items():
        print(f"{name + kind.arguments:<32}{kind.meaning}")
    return 0
