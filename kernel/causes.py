"""Requests: which page fault or IPC made the kernel and the servers work.

A request begins when a thread that works for nobody faults or sends, and ends when that operation is
over for it. In between its number travels: who receives a message works for the sender's request
until it receives another or has answered. The ledger books every cycle to the request served.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from l4lab.kernel.state import Kernel
    from l4lab.kernel.thread import Thread

FAULT: Final = 0
EXCEPTION: Final = 1
IPC: Final = 2
KIND_NAMES: Final = ("fault", "exception", "ipc")
COLUMNS: Final = ("kind", "thread", "core", "detail", "eip", "start", "end")
_END: Final = COLUMNS.index("end")
_EIP: Final = 8


class RequestLog:
    """All requests of a run: `records` has a row of COLUMNS for each, in the order of their numbers, from 1.

    `detail`: the faulting address, the trap number, or the tag sent. `end`: 0 while it is served.
    """

    __slots__ = ("count", "records")

    def __init__(self) -> None:
        self.records = array("q")
        self.count = 0


def begin(kernel: Kernel, thread: Thread, kind: int, detail: int) -> None:
    """`thread` starts an operation; if it works for nobody, that is a request of its own."""
    log = kernel.request_log
    if log is None or thread.request:
        return
    log.records.extend((kind, thread.number, kernel.here, detail, thread.frame[_EIP], kernel.now_cycles, 0))
    log.count = number = log.count + 1
    thread.request = thread.began = thread.last_request = number


def pass_on(sender: Thread, receiver: Thread) -> None:
    """A message went over. An answer leaves the receiver in its own request; anything else binds it."""
    if not receiver.began:
        receiver.request = receiver.last_request = sender.request


def end(kernel: Kernel, thread: Thread) -> None:
    """The operation of `thread` is over for it; the request too, if it began with it."""
    log = kernel.request_log
    number = thread.began
    if log is not None and number:
        log.records[(number - 1) * len(COLUMNS) + _END] = kernel.now_cycles + sum(kernel.bill)
        thread.request = thread.began = 0
