"""Work for other cores: a deferred request (DRQ) is sent, an interrupt brings it, the core it concerns does it.

A thread is only touched by its own core while it runs or waits to run. So a message to a thread
elsewhere is not delivered but *requested*: the sender becomes REMOTE, the DRQ travels with an
inter-processor interrupt, the partner's core runs the send phase when it arrives, and an answer
goes back. Waking a thread of another core, and moving one away from it, work the same way.

    send ── SendDrq ──► partner's core: rendezvous, wake the partner
    sender's core ◄── WakeDrq (it has its result) or AnswerDrq (its receive phase follows) ──┘

    a message with items: SendDrq ──►, ◄── TransferDrq, the sender's core moves it, WakeDrq ──►

DRQs that find one waiting in the target's queue come without an interrupt of their own.

A sender whose partner is not ready gets two: one that says so, and another when its message was taken.
Either way its core goes on in the sender's name and then switches back to what it did before.

What may have changed while a DRQ was under way is looked at again when it arrives.
Source: ABI sheet section 15; how the real kernel does it, `K/thread-ipc.cpp` there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from l4lab.kernel import contention, dispatch, ipc, requests, shootdown
from l4lab.kernel.costs import IPI
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
    post,
)
from l4lab.kernel.thread import LATE, NO_CORE, READY, REMOTE, SENDING, TAKING

if TYPE_CHECKING:
    from l4lab.kernel.sched import Core
    from l4lab.kernel.state import Kernel
    from l4lab.kernel.thread import Thread


def serve(kernel: Kernel, core: Core, drq: Drq, merged: list[Drq]) -> None:
    """An interrupt arrived at `core`: everything that is in its queue is done. It is booked to the first."""
    contention.use(kernel, core, contention.DRQ_LINES)
    waits_on = [_serve_one(kernel, core, drq)]
    if merged:
        kernel.bill[IPI] += len(merged) * kernel.costs.list_step
        served = kernel.served
        waits_on += [_serve_one(kernel, core, more) for more in merged]
        kernel.served = served
    for thread in waits_on:
        if thread is not None and thread.state not in (READY, LATE):
            dispatch.visit(kernel, core, thread)


def _serve_one(kernel: Kernel, core: Core, drq: Drq) -> Thread | None:
    """One of them; returns the thread of this core that goes on in the kernel for it, and may wait again."""
    if kernel.events is not None:
        requests.served(kernel, kernel.events, drq)
    if isinstance(drq, AnswerDrq):
        return _serve_answer(kernel, core, drq)
    if isinstance(drq, TransferDrq):
        return _serve_transfer(kernel, core, drq)
    if isinstance(drq, SendDrq):
        _serve_send(kernel, core, drq)
    elif isinstance(drq, WakeDrq):
        _serve_wake(kernel, core, drq)
    elif isinstance(drq, ReceiveDrq):
        _serve_receive(kernel, core, drq)
    elif isinstance(drq, PlaceDrq):
        _serve_place(kernel, core, drq)
    elif isinstance(drq, ReleaseDrq):
        _serve_release(kernel, core, drq)
    elif isinstance(drq, FlushDrq):
        shootdown.serve(kernel, drq)
    else:
        assert_never(drq)
    return None


def _serve_send(kernel: Kernel, core: Core, drq: SendDrq) -> None:
    sender, partner = drq.sender, drq.partner
    if sender.state != REMOTE or sender.operation != drq.operation:
        return
    if partner.core not in (core.number, NO_CORE):  # it was moved meanwhile
        post(kernel, partner.core, drq)
        return
    sender.state = READY
    sender.partner = None
    words = kernel.interface.tag(sender.send_tag).words
    lines = contention.THREAD_LINES + -(-words // contention.WORDS_PER_LINE)
    contention.use(kernel, sender, lines)
    ipc.resume_send(kernel, core, sender, partner)
    if sender.state == SENDING and sender.core not in (core.number, NO_CORE):
        post(kernel, sender.core, AnswerDrq(sender, sender.operation))


def _serve_transfer(kernel: Kernel, core: Core, drq: TransferDrq) -> Thread | None:
    sender, partner = drq.sender, drq.partner
    if sender.state != REMOTE or sender.operation != drq.operation:
        post(kernel, max(partner.core, 0), ReleaseDrq(partner, drq.operation))
        return None
    if sender.core not in (core.number, NO_CORE):  # it was moved meanwhile
        post(kernel, sender.core, drq)
        return None
    contention.use(kernel, partner, contention.THREAD_LINES)
    ipc.transfer_remote(kernel, core, sender, partner)
    return sender


def _serve_answer(kernel: Kernel, core: Core, drq: AnswerDrq) -> Thread | None:
    thread = drq.thread
    if thread.core not in (core.number, NO_CORE):  # it was moved meanwhile
        post(kernel, thread.core, drq)
        return None
    if thread.state == REMOTE and thread.sent and thread.operation == drq.operation:
        ipc.run_receive_phase(kernel, core, thread)
    return thread if thread.core == core.number else None


def _serve_wake(kernel: Kernel, core: Core, drq: WakeDrq) -> None:
    thread = drq.thread
    if not thread.in_flight:
        return
    if thread.core != core.number:
        if thread.core != NO_CORE:
            post(kernel, thread.core, drq)
        else:
            thread.in_flight = False
        return
    thread.in_flight = False
    if thread.state not in (READY, LATE) or thread.queued or thread is core.current:
        return
    if drq.preempt:
        dispatch.wake(kernel, core, thread)
    else:
        dispatch.wake_without_preempting(kernel, thread)


def _serve_receive(kernel: Kernel, core: Core, drq: ReceiveDrq) -> None:
    thread = drq.thread
    if thread.core not in (core.number, NO_CORE):
        post(kernel, thread.core, drq)
        return
    ipc.receive_if_possible(kernel, core, thread)


def _serve_release(kernel: Kernel, core: Core, drq: ReleaseDrq) -> None:
    thread = drq.thread
    if thread.state != TAKING or thread.taken_operation != drq.operation:
        return
    if thread.core not in (core.number, NO_CORE):
        post(kernel, thread.core, drq)
        return
    ipc.run_receive_phase(kernel, core, thread)


def _serve_place(kernel: Kernel, core: Core, drq: PlaceDrq) -> None:
    thread = drq.thread
    if thread.core not in (core.number, NO_CORE):
        post(kernel, thread.core, drq)
        return
    dispatch.place(kernel, core, thread, drq.core, drq.priority, drq.quantum_cycles)
    look_for_senders(kernel, core, thread)


def look_for_senders(kernel: Kernel, core: Core, thread: Thread) -> None:
    """A thread has got its core: if it waits and somebody was queued at it meanwhile, let them meet there."""
    if thread.core == core.number:
        ipc.receive_if_possible(kernel, core, thread)
    elif thread.core != NO_CORE and thread.senders:
        post(kernel, thread.core, ReceiveDrq(thread))
