"""What a person names at a debugger: threads, tasks, numbers. None: there is none of that name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.emulator.errors import OperatorError
from l4lab.kernel.inspect import thread_name

if TYPE_CHECKING:
    from l4lab.kernel.objects import Task
    from l4lab.kernel.state import Kernel
    from l4lab.kernel.thread import Thread


class DebugError(OperatorError):
    """Something that a person has asked a debugger for and cannot have; the text says why."""


def thread_of(kernel: Kernel, word: str) -> Thread | None:
    """The thread of that number, or of that name, with its task's before it or without."""
    threads = kernel.threads.values()
    return next((t for t in threads if word in (str(t.number), t.name, thread_name(t))), None)


def task_of(kernel: Kernel, word: str) -> Task | None:
    """The task of that number or name."""
    return next((task for task in kernel.tasks.values() if word in (str(task.number), task.name)), None)


def number_of(word: str, limit: int = 1 << 32) -> int | None:
    """A number below `limit`, as in C: decimal, or hexadecimal with 0x."""
    try:
        value = int(word, 0)
    except ValueError:
        return None
    return value if 0 <= value < limit else None
