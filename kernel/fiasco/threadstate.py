"""What this interface keeps of a thread: who serves its faults, whether it is an alien, its trampoline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from l4lab.kernel.fiasco import abi
from l4lab.kernel.interface import InterfaceState

if TYPE_CHECKING:
    from l4lab.kernel.thread import Thread

NEVER_SET: Final = abi.HANDLER_NEVER_SET >> abi.CAP_SHIFT
"""Capability index of a pager or exception handler that nobody has set (ABI sheet section 11.3)."""


class ThreadState(InterfaceState):
    """`pager`, `exception_handler`: capability indices in the thread's own task.

    `alien`: its system calls are shown to its exception handler; `alien_pass`: but not the next. `trampoline`:
    of page faults, index into RAM's words of its block, None without; `trampoline_armed`: it is in use.
    `triggered`: the exception that ex_regs triggers is to come, as the thread's pending one or behind it.
    """

    __slots__ = (
        "alien",
        "alien_pass",
        "exception_handler",
        "pager",
        "trampoline",
        "trampoline_armed",
        "triggered",
    )

    def __init__(self) -> None:
        self.pager = NEVER_SET
        self.exception_handler = NEVER_SET
        self.alien = False
        self.alien_pass = False
        self.trampoline: int | None = None
        self.trampoline_armed = False
        self.triggered = False


def state_of(thread: Thread) -> ThreadState:
    """What this interface keeps of `thread`."""
    state = thread.interface_state
    assert isinstance(state, ThreadState)
    return state
