"""Requests: which page fault or IPC made the kernel and the servers work.

A request begins when a thread that works for nobody faults or sends, and ends when that operation is
over for it. In between its number travels: who receives a message works for the sender's request
until it receives another or has answered. The ledger books every cycle to the request served.

Operations of a thread that already works for a request (a server that calls another, a pager that
faults) belong to that request; they are logged as its own are, so that each can be looked at.
Nothing here but `end` is called without a log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel.drq import (
    AnswerDrq,
    Drq,
    FlushDrq,
    PlaceDrq,
    ReceiveDrq,
    ReleaseDrq,
    SendDrq,
    TransferDrq,
    WakeDrq,
)
from l4lab.kernel.events import (
    BEGINS,
    BOUND,
    END,
    EXTRA_SHIFT,
    IPC,
    IRQ,
    MESSAGE,
    OPEN_ENDED,
    QUEUED,
    SENT,
    SENT_TO_SHIFT,
    SERVED,
    object_kind,
)
from l4lab.kernel.thread import RECEIVE_OPEN, RECEIVING

if TYPE_CHECKING:
    from l4lab.kernel.capability import KernelObject
    from l4lab.kernel.events import EventLog
    from l4lab.kernel.state import Kernel
    from l4lab.kernel.thread import Thread

_EIP = 8
_LONGEST = (1 << 32) - 1  # of what a column of events holds
# Index in events.DRQ_KINDS.
_DRQ_NUMBERS = {
    type(None): 0,
    SendDrq: 1,
    WakeDrq: 2,
    ReceiveDrq: 3,
    PlaceDrq: 4,
    FlushDrq: 5,
    AnswerDrq: 6,
    TransferDrq: 7,
    ReleaseDrq: 8,
}


def begin(kernel: Kernel, log: EventLog, thread: Thread, kind: int, partner: int, detail: int) -> None:
    """`thread` starts an operation of `kind`; if it works for nobody, that is a request of its own.

    `kind`: with extra. `partner`, `detail`: `events.MEANINGS` says of what.
    """
    if not thread.request:
        _begin_request(kernel, log, thread)
    log.entered = None  # messages that follow have records, too, so that the order is known
    log.pending += (
        kernel.now_cycles,
        kernel.here,
        kind,
        thread.number,
        partner,
        thread.request,
        detail,
        thread.frame[_EIP],
    )


def begin_ipc(kernel: Kernel, log: EventLog, thread: Thread, partner: Thread) -> None:
    """`begin` for a send to `partner`. No record if the message is about to go over: see `EventLog`."""
    if (
        partner.state == RECEIVING
        and thread is log.entered
        and kernel.trace is None
        and partner.core == kernel.here
        and (partner.partner is None or partner.partner is thread)
    ):
        if not thread.request:
            _begin_request(kernel, log, thread)
        log.sent_to = BEGINS if thread.receive != RECEIVE_OPEN else BEGINS | OPEN_ENDED
    else:
        begin(kernel, log, thread, ipc_kind(thread), partner.number, thread.send_tag)


def ipc_kind(thread: Thread) -> int:
    """The kind of an IPC record, with extra, for what `thread` is about to do."""
    return IPC if thread.receive != RECEIVE_OPEN else IPC | OPEN_ENDED << EXTRA_SHIFT


def _begin_request(kernel: Kernel, log: EventLog, thread: Thread) -> None:
    log.requests = number = log.requests + 1
    thread.request = thread.began = thread.last_request = number
    if not kernel.served:
        kernel.served = number


def pass_on(kernel: Kernel, log: EventLog, sender: Thread, receiver: Thread, tag: int) -> None:
    """A message goes over. It ends what the receiver has begun, as its answer; anything else binds it."""
    if receiver.began:
        receiver.request = receiver.began = 0
    else:
        receiver.request = receiver.last_request = sender.request
    if sender is log.entered and kernel.trace is None:
        log.entered = None
        log.sent_to |= receiver.number << SENT_TO_SHIFT
        log.sent_tag = tag
        return
    log.pending += (
        kernel.now_cycles,
        kernel.here,
        MESSAGE,
        sender.number,
        receiver.number,
        sender.request,
        tag,
        sender.send_label,
    )


def notified(
    kernel: Kernel, log: EventLog, irq: KernelObject, receiver: Thread, label: int, fired_cycles: int
) -> None:
    """The message of an IRQ that fired at `fired_cycles`.

    As an answer it ends what the receiver has begun; otherwise it stands for nobody.
    """
    log.pending += (
        kernel.now_cycles,
        kernel.here,
        IRQ,
        irq.number,
        receiver.number,
        receiver.request,
        min(kernel.now_cycles - fired_cycles, _LONGEST),
        label,
    )
    if receiver.began:
        receiver.request = receiver.began = 0


def end(kernel: Kernel, thread: Thread, code: int = 0) -> None:
    """The operation of `thread` is over without an answer; the request too, if it began with it.

    `code`: the error it ended with, 0: none.
    """
    log = kernel.events
    if log is not None and thread.began:
        log.pending += (
            kernel.now_cycles,
            kernel.here,
            END,
            thread.number,
            0,
            thread.began,
            code,
            0,
        )
        thread.request = thread.began = 0


# --- waiting and cores --------------------------------------------------------------------------


def queued(kernel: Kernel, log: EventLog, thread: Thread, partner: KernelObject) -> None:
    """`thread` waits to send to `partner`, or to obtain it."""
    log.pending += (
        kernel.now_cycles,
        kernel.here,
        QUEUED | object_kind(partner.kind) << EXTRA_SHIFT,
        thread.number,
        partner.number,
        thread.request,
        0,
        0,
    )


def woken(kernel: Kernel, log: EventLog, kind: int, thread: Thread, partner: int = 0) -> None:
    """What `thread` waited for is there (OBTAINED) or no longer waited for (TIMEOUT)."""
    log.pending += (kernel.now_cycles, kernel.here, kind, thread.number, partner, thread.request, 0, 0)


def bound(kernel: Kernel, log: EventLog, thread: Thread, task: KernelObject) -> None:
    """`thread` belongs to `task` for good."""
    log.homes[thread.number] = task.number
    log.pending += (kernel.now_cycles, kernel.here, BOUND, thread.number, task.number, 0, 0, 0)


def start(kernel: Kernel, log: EventLog) -> None:
    """From now on events go to `log`, which learns what there is already."""
    kernel.events = log
    log.names.update((task.number, task.name) for task in kernel.tasks.values() if task.name)
    for thread in kernel.threads.values():
        if thread.name:
            log.names[thread.number] = thread.name
        if thread.task is not None:
            bound(kernel, log, thread, thread.task)


def thread_of(drq: Drq | None) -> Thread | None:
    """The thread that a DRQ is about; None: none in particular."""
    if isinstance(drq, SendDrq | TransferDrq):
        return drq.sender
    if isinstance(drq, WakeDrq | ReceiveDrq | PlaceDrq | AnswerDrq | ReleaseDrq):
        return drq.thread
    return None


def sent(
    log: EventLog,
    now_cycles: int,
    source: int,
    target: int,
    drq: Drq | None,
    waited_cycles: int,
    travel_cycles: int,
) -> None:
    """Core `source` interrupts core `target`: it waits for the interconnect, and then is on its way."""
    thread = thread_of(drq)
    log.pending += (
        now_cycles,
        source,
        SENT | _DRQ_NUMBERS[type(drq)] << EXTRA_SHIFT,
        thread.number if thread is not None else 0,
        target,
        thread.last_request if thread is not None else 0,
        waited_cycles,
        travel_cycles,
    )


def served(kernel: Kernel, log: EventLog, drq: Drq) -> None:
    """The core that is being served begins with a DRQ: its work is booked to the request of the thread concerned."""
    thread = thread_of(drq)
    kernel.served = thread.last_request if thread is not None else 0
    log.pending += (
        kernel.now_cycles,
        kernel.here,
        SERVED | _DRQ_NUMBERS[type(drq)] << EXTRA_SHIFT,
        thread.number if thread is not None else 0,
        0,
        kernel.served,
        0,
        0,
    )
