"""Work for other cores: a request is sent, an interrupt brings it, the core it concerns does it.

A thread is only touched by its own core while it runs or waits to run. So a message to a thread
elsewhere is not delivered but *requested*: the sender becomes REMOTE, the request travels with an
inter-processor interrupt, the partner's core runs the send phase when it arrives, and an answer
goes back. Waking a thread of another core, and moving one away from it, work the same way.

    send ── SendRequest ──► partner's core: rendezvous, wake the partner
    sender's core ◄── WakeRequest (it has its result) or Answer (its receive phase follows) ──┘

    a message with items: SendRequest ──►, ◄── TransferRequest, the sender's core moves it, WakeRequest ──►

Requests that find one waiting in the target's queue come without an interrupt of their own.

A sender whose partner is not ready gets two: one that says so, and another when its message was taken.
Either way its core goes on in the sender's name and then switches back to what it did before.

What may have changed while a request was under way is looked at again when it arrives.
Source: ABI sheet section 15; how the real kernel does it, `K/thread-ipc.cpp` there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel import causes, contention, dispatch, ipc, shootdown
from l4lab.kernel.requests import (
    Answer,
    FlushRequest,
    PlaceRequest,
    ReceiveRequest,
    ReleaseRequest,
    Request,
    SendRequest,
    TransferRequest,
    WakeRequest,
    post,
)
from l4lab.kernel.thread import LATE, NO_CORE, READY, REMOTE, SENDING, TAKING

if TYPE_CHECKING:
    from l4lab.kernel.sched import Core
    from l4lab.kernel.state import Kernel
    from l4lab.kernel.thread import Thread


def serve(kernel: Kernel, core: Core, request: Request, merged: list[Request]) -> None:
    """An interrupt arrived at `core`: everything that is in its queue is done. It is booked to the first."""
    contention.use(kernel, core, contention.REQUEST_LINES)
    waits_on = [_serve_one(kernel, core, request)]
    if merged:
        served = kernel.served
        waits_on += [_serve_one(kernel, core, more) for more in merged]
        kernel.served = served
    for thread in waits_on:
        if thread is not None and thread.state not in (READY, LATE):
            dispatch.visit(kernel, core, thread)


def _serve_one(kernel: Kernel, core: Core, request: Request) -> Thread | None:
    """One request; returns the thread of this core that goes on in the kernel for it, and may wait again."""
    if kernel.events is not None:
        causes.served(kernel, kernel.events, request)
    if isinstance(request, Answer):
        return _serve_answer(kernel, core, request)
    if isinstance(request, TransferRequest):
        return _serve_transfer(kernel, core, request)
    if isinstance(request, SendRequest):
        _serve_send(kernel, core, request)
    elif isinstance(request, WakeRequest):
        _serve_wake(kernel, core, request)
    elif isinstance(request, ReceiveRequest):
        _serve_receive(kernel, core, request)
    elif isinstance(request, PlaceRequest):
        _serve_place(kernel, core, request)
    elif isinstance(request, ReleaseRequest):
        _serve_release(kernel, core, request)
    elif isinstance(request, FlushRequest):
        shootdown.serve(kernel, request)
    return None


def _serve_send(kernel: Kernel, core: Core, request: SendRequest) -> None:
    sender, partner = request.sender, request.partner
    if sender.state != REMOTE or sender.operation != request.operation:
        return
    if partner.core not in (core.number, NO_CORE):  # it was moved meanwhile
        post(kernel, partner.core, request)
        return
    sender.state = READY
    sender.partner = None
    words = kernel.interface.tag(sender.send_tag).words
    lines = contention.THREAD_LINES + -(-words // contention.WORDS_PER_LINE)
    contention.use(kernel, sender, lines)
    ipc.resume_send(kernel, core, sender, partner)
    if sender.state == SENDING and sender.core not in (core.number, NO_CORE):
        post(kernel, sender.core, Answer(sender, sender.operation))


def _serve_transfer(kernel: Kernel, core: Core, request: TransferRequest) -> Thread | None:
    sender, partner = request.sender, request.partner
    if sender.state != REMOTE or sender.operation != request.operation:
        post(kernel, max(partner.core, 0), ReleaseRequest(partner, request.operation))
        return None
    if sender.core not in (core.number, NO_CORE):  # it was moved meanwhile
        post(kernel, sender.core, request)
        return None
    contention.use(kernel, partner, contention.THREAD_LINES)
    ipc.transfer_remote(kernel, core, sender, partner)
    return sender


def _serve_answer(kernel: Kernel, core: Core, request: Answer) -> Thread | None:
    thread = request.thread
    if thread.core not in (core.number, NO_CORE):  # it was moved meanwhile
        post(kernel, thread.core, request)
        return None
    if thread.state == REMOTE and thread.sent and thread.operation == request.operation:
        ipc.run_receive_phase(kernel, core, thread)
    return thread if thread.core == core.number else None


def _serve_wake(kernel: Kernel, core: Core, request: WakeRequest) -> None:
    thread = request.thread
    if not thread.in_flight:
        return
    if thread.core != core.number:
        if thread.core != NO_CORE:
            post(kernel, thread.core, request)
        else:
            thread.in_flight = False
        return
    thread.in_flight = False
    if thread.state not in (READY, LATE) or thread.queued or thread is core.current:
        return
    if request.preempt:
        dispatch.wake(kernel, core, thread)
    else:
        dispatch.wake_without_preempting(kernel, thread)


def _serve_receive(kernel: Kernel, core: Core, request: ReceiveRequest) -> None:
    thread = request.thread
    if thread.core not in (core.number, NO_CORE):
        post(kernel, thread.core, request)
        return
    ipc.receive_if_possible(kernel, core, thread)


def _serve_release(kernel: Kernel, core: Core, request: ReleaseRequest) -> None:
    thread = request.thread
    if thread.state != TAKING or thread.taken_operation != request.operation:
        return
    if thread.core not in (core.number, NO_CORE):
        post(kernel, thread.core, request)
        return
    ipc.run_receive_phase(kernel, core, thread)


def _serve_place(kernel: Kernel, core: Core, request: PlaceRequest) -> None:
    thread = request.thread
    if thread.core not in (core.number, NO_CORE):
        post(kernel, thread.core, request)
        return
    dispatch.place(kernel, core, thread, request.core, request.priority, request.quantum_cycles)
    look_for_senders(kernel, core, thread)


def look_for_senders(kernel: Kernel, core: Core, thread: Thread) -> None:
    """A thread has got its core: if it waits and somebody was queued at it meanwhile, let them meet there."""
    if thread.core == core.number:
        ipc.receive_if_possible(kernel, core, thread)
    elif thread.core != NO_CORE and thread.senders:
        post(kernel, thread.core, ReceiveRequest(thread))
