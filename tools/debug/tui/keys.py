"""What can be done, with which keys: shared by the buttons, the bindings and the page of help."""

from __future__ import annotations

from typing import Final

FORWARD: Final = (
    ("s", "step", "step", "one instruction of the shown core, or the kernel entry instead"),
    ("n", "line", "line", "to another line of the source"),
    ("e", "entry", "entry", "to the next kernel entry of any core"),
    ("i", "ipc", "ipc", "to the next message that goes over"),
    ("f", "fault", "fault", "to the next page fault, before the kernel acts"),
    ("t", "fault_step", "7 steps", "to the end of the next of the fault's seven steps"),
    ("c", "go_on", "cont", "to a breakpoint or the end"),
    ("p", "pause", "pause", "interrupt what is running; Ctrl-C does so, too"),
)
"""Forwards in time: (key, action, label, meaning); so the next two."""
BACKWARD: Final = (
    ("S", "step_back", "step", "one instruction of the shown thread back"),
    ("I", "last_ipc", "ipc", "to the last message before now"),
    ("F", "last_fault", "fault", "to the last page fault before now"),
    ("T", "last_fault_step", "7 steps", "to the end of the fault step before"),
    ("C", "go_back", "cont", "to a breakpoint before now, or the start"),
    ("g", "go_to", "goto", "to a cycle of the shown core, back or forward"),
    ("b", "breakpoint", "break", "set or remove a breakpoint at a function or an address"),
    ("v", "views", "views", "tables of the kernel's objects"),
)
"""Backwards, and what moves nothing."""
OTHERS: Final = (("question_mark", "help", "help", "this page"), ("q", "quit", "quit", "leave"))
LOWER: Final = (
    ("1", "fault", "seven steps of a page fault", "fault"),
    ("2", "console", "console", "console"),
    ("3", "calls", "messages and calls", "calls"),
    ("4", "space", "address space", "address space"),
)
"""The panes that share one place where there is little room: (key, id, title, short title)."""


def shown_key(key: str) -> str:
    """A key as people write it."""
    return "?" if key == "question_mark" else key
