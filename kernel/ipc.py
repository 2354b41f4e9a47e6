"""Rendezvous: how two threads meet, and what waits when they do not.

An operation has a send phase and then a receive phase; either may be missing. Sender and receiver
meet when the receiver waits for this sender or for anyone. Who comes first waits: a sender in the
receiver's queue, a receiver in its state. Nothing is buffered.

    start ──┬─ partner receives ── transfer ─┐
            ├─ queue up (SENDING) … taken ───┤
            └─ fail                          ├── receive phase ──┬─ a sender is queued: take it
    start without send phase ────────────────┘                   ├─ wait (RECEIVING)
                                                                 └─ timeout is over

Layouts and error numbers are behind the door (`interface`); this module knows neither.
Source: ABI sheet section 6; its scheduling rules are applied by `dispatch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel import dispatch, requests, waiting
from l4lab.kernel.costs import IPC
from l4lab.kernel.drq import AnswerDrq, ReceiveDrq, SendDrq, TransferDrq, post
from l4lab.kernel.errors import KernelBug
from l4lab.kernel.interface import CANCELLED, EXPIRED, NEVER, NOT_EXISTENT, TIMED_OUT
from l4lab.kernel.objects import Gate, Irq
from l4lab.kernel.thread import (
    DEAD,
    DORMANT,
    LATE,
    NO_CORE,
    READY,
    RECEIVE_CLOSED,
    RECEIVE_NONE,
    RECEIVE_OPEN,
    RECEIVING,
    REMOTE,
    SENDING,
    TAKING,
    Thread,
)

if TYPE_CHECKING:
    from l4lab.kernel.capability import KernelObject
    from l4lab.kernel.sched import Core
    from l4lab.kernel.state import Kernel


# --- the operation ------------------------------------------------------------------------------


def send_and_receive(kernel: Kernel, core: Core, me: Thread, partner: Thread, donate: bool) -> None:
    """Run the operation described in `me` (send_*, receive*): send to `partner`, then receive.

    `donate`: the sender is willing to give its time slice along. On return `me` has its result, or
    waits. Cost: O(1) in threads and queue lengths.
    """
    state = partner.state
    if state == DEAD or state == DORMANT:
        kernel.interface.send_failed(kernel, me, NOT_EXISTENT)
        return
    if partner.core != core.number and partner.core != NO_CORE:
        request_send(kernel, me, partner)
        return
    if partner.held_by is not None and partner.partner is me:
        partner.held_by.clear()  # the answer comes another way than by the reply slot
    if not accepts(partner, me):
        waiting.queue_up(kernel, me, partner)
        return
    if not deliver(kernel, me, partner):
        dispatch.wake(kernel, core, partner)
        return
    if me.receive == RECEIVE_NONE:
        kernel.interface.sent(kernel, me)
        _activate(kernel, core, me, partner, donate and core.context is not me)
        return
    _receive_after_send(kernel, core, me, partner, donate)


def deliver(kernel: Kernel, sender: Thread, receiver: Thread) -> bool:
    """The message of `sender` goes over to `receiver`, which waits for it or takes it, and is READY then.

    The one place where two threads meet: it ends the receiver's wait, moves the message, and if the sender waits
    for an answer of a receiver that took anybody's message, notes it in the receiver's reply slot. Who runs next is
    the caller's choice. False if part of the message could not go over; both have their error codes then, and
    the sender has no receive phase. POINT OF NO RETURN.
    """
    if receiver.state != READY:
        _stop_receiving(kernel, receiver, READY)
    kernel.bill[IPC] += kernel.costs.ipc_path
    if not kernel.interface.transfer(kernel, sender, receiver):
        return False
    if (
        sender.receive == RECEIVE_CLOSED
        and sender.receive_from is receiver
        and receiver.receive == RECEIVE_OPEN
    ):
        (receiver.reply_slot_wanted or receiver.reply).fill(sender, sender.send_rights)
    return True


def _stop_receiving(kernel: Kernel, me: Thread, state: int) -> None:
    """The wait of `me` for a message is over: it takes one now, in `state`."""
    if me.timeout is not None:
        dispatch.disarm(kernel, me)
    if me.state == LATE:
        dispatch.unqueue(kernel, me)
    me.state = state
    me.partner = None


def _receive_after_send(kernel: Kernel, core: Core, me: Thread, partner: Thread, donate: bool) -> None:
    """The receive phase of `me`, whose message `partner` has just got."""
    if me.began and me.receive == RECEIVE_OPEN:
        requests.end(kernel, me)  # what comes next is no answer
    queued = next_sender(me)
    if queued is not None:
        take(kernel, core, me, queued)
        _activate(kernel, core, me, partner, donate=False)
        return
    deadline_us = kernel.interface.receive_deadline_us(kernel, me)
    call = me.receive == RECEIVE_CLOSED
    if deadline_us == EXPIRED:
        me.state = LATE
        me.partner = me.receive_from
        _activate(kernel, core, me, partner, donate=False)
        if core.current is me:
            waiting.finish_late(kernel, me)
        return
    waiting.wait_to_receive(kernel, me, deadline_us)
    _activate(kernel, core, me, partner, donate and (call or core.context is not me))


def request_send(kernel: Kernel, me: Thread, partner: Thread) -> None:
    """`partner` lives on another core: have that core run our send phase (`crosscore`)."""
    me.state = REMOTE
    me.sent = False
    me.partner = partner
    me.operation += 1
    post(kernel, partner.core, SendDrq(me, partner, me.operation))


def receive_only(kernel: Kernel, core: Core, me: Thread) -> None:
    """Run an operation without send phase: take a queued sender, or wait."""
    queued = next_sender(me)
    if queued is not None:
        take(kernel, core, me, queued)
        return
    deadline_us = kernel.interface.receive_deadline_us(kernel, me)
    if deadline_us == EXPIRED:
        kernel.interface.receive_failed(kernel, me, TIMED_OUT)
        return
    waiting.wait_to_receive(kernel, me, deadline_us)
    if me.receive == RECEIVE_CLOSED and me.receive_from is me:
        core.reschedule = True


def accepts(receiver: Thread, sender: KernelObject) -> bool:
    """True if `receiver` waits for a message that `sender` may bring."""
    state = receiver.state
    if (state != RECEIVING and state != LATE) or receiver.core == NO_CORE:
        return False
    wanted = receiver.partner
    return (wanted is None or wanted is sender) and receiver is not sender


def next_sender(me: Thread) -> KernelObject | None:
    """The queued sender that the receive phase of `me` takes; None if there is none."""
    if not me.senders:
        return None
    if me.receive == RECEIVE_OPEN:
        return me.senders.first()
    source = me.receive_from
    if isinstance(source, Thread):
        return source if source.state == SENDING and source.partner is me and source is not me else None
    if isinstance(source, Irq):
        return source if source.queued and source.thread is me else None
    return None


def take(kernel: Kernel, core: Core, me: Thread, sender: KernelObject) -> None:
    """`me`, in its receive phase, takes the message of a queued sender.

    A sender that then receives may find senders of its own; the chain is followed in a loop,
    because its length is the guests' choice.
    """
    chain: list[tuple[Thread, KernelObject]] = [(me, sender)]
    while chain:
        receiver, taken = chain.pop()
        if isinstance(taken, Irq):
            receiver.senders.remove(taken, taken.queued_priority)
            taken.queued = False
            kernel.bill[IPC] += kernel.costs.ipc_path
            kernel.interface.notify(kernel, receiver, taken)
        elif isinstance(taken, Thread):
            following = _take_from_thread(kernel, core, receiver, taken)
            if following is not None:
                chain.append((taken, following))
        else:
            raise KernelBug(f"{taken!r} in a sender queue")
        if receiver is not me:
            dispatch.wake(kernel, core, receiver)


def _take_from_thread(kernel: Kernel, core: Core, receiver: Thread, sender: Thread) -> KernelObject | None:
    """Transfer from a queued thread; returns the sender that *it* can take at once, if any."""
    receiver.senders.remove(sender, sender.queued_priority)
    if sender.timeout is not None:
        dispatch.disarm(kernel, sender)
    sent = deliver(kernel, sender, receiver)
    sender.state = READY
    sender.partner = None
    if not sent:
        dispatch.wake(kernel, core, sender)
        return None
    if sender.receive == RECEIVE_NONE:
        kernel.interface.sent(kernel, sender)
        dispatch.wake(kernel, core, sender)
        return None
    if sender.began and sender.receive == RECEIVE_OPEN:
        requests.end(kernel, sender)
    if sender.core not in (core.number, NO_CORE):
        _receive_at_home(kernel, sender, receiver)
        return None
    following = next_sender(sender)
    if following is not None:
        return following
    deadline_us = kernel.interface.receive_deadline_us(kernel, sender)
    if deadline_us == EXPIRED:
        sender.state = LATE
        sender.partner = sender.receive_from
        dispatch.wake(kernel, core, sender)
    else:
        waiting.wait_to_receive(kernel, sender, deadline_us)
    return None


def _receive_at_home(kernel: Kernel, me: Thread, partner: Thread) -> None:
    """Another core has run the send phase of `me`, with `partner`; its own runs the receive phase."""
    me.state = REMOTE
    me.partner = partner
    me.sent = True
    me.operation += 1
    post(kernel, me.core, AnswerDrq(me, me.operation))


# --- threads that do not run -------------------------------------------------------------------


def gate_bound(kernel: Kernel, core: Core, gate: Gate) -> None:
    """A thread was bound to `gate`: those who waited for that go on with their send phase."""
    while gate.waiting and gate.thread is not None:
        sender = gate.waiting.first()
        if not isinstance(sender, Thread):
            raise KernelBug(f"{sender!r} waits for a gate")
        gate.waiting.remove(sender, sender.queued_priority)
        dispatch.disarm(kernel, sender)
        kernel.bill[IPC] += kernel.costs.list_step
        sender.partner = None
        sender.state = READY
        kernel.interface.address_to(sender, gate)
        if sender.receive == RECEIVE_CLOSED:
            sender.receive_from = gate.thread
        if sender.sends:
            resume_send(kernel, core, sender, gate.thread)
        elif sender.receive == RECEIVE_NONE:
            kernel.interface.send_failed(kernel, sender, NOT_EXISTENT)  # an operation without any phase
            dispatch.wake(kernel, core, sender)
        else:
            resume_receive(kernel, core, sender)


def resume_send(kernel: Kernel, core: Core, sender: Thread, partner: Thread) -> None:
    """Run the send phase of a thread that is not the running one."""
    if partner.state == REMOTE and partner.sent and partner.core == core.number:
        run_receive_phase(kernel, core, partner)  # the answer to it is under way, and must not be overtaken
    state = partner.state
    if state == DEAD or state == DORMANT:
        kernel.interface.send_failed(kernel, sender, NOT_EXISTENT)
        dispatch.wake(kernel, core, sender)
        return
    if partner.core != core.number and partner.core != NO_CORE:
        request_send(kernel, sender, partner)
        return
    if partner.held_by is not None and partner.partner is sender:
        partner.held_by.clear()
    acceptable = accepts(partner, sender)
    deadline_us = NEVER if acceptable else kernel.interface.send_deadline_us(kernel, sender)
    if deadline_us == EXPIRED:
        kernel.interface.send_failed(kernel, sender, TIMED_OUT)
        dispatch.wake(kernel, core, sender)
        return
    if (
        acceptable
        and sender.core not in (core.number, NO_CORE)
        and kernel.interface.tag(sender.send_tag).items
    ):
        _reserve(kernel, partner, sender)
        return
    if not acceptable:
        kernel.bill[IPC] += kernel.costs.ipc_block
        kernel.interface.send_queued(sender)
        if kernel.events is not None:
            requests.queued(kernel, kernel.events, sender, partner)
    sender.state = SENDING
    sender.partner = partner
    sender.queued_priority = sender.priority
    partner.senders.add(sender, sender.priority)
    if acceptable:
        receive_now(kernel, core, partner)
    elif deadline_us != NEVER:
        waiting.arm(kernel, sender, deadline_us)


def _reserve(kernel: Kernel, me: Thread, sender: Thread) -> None:
    """`me` takes a message with items from another core, which moves it: it may have to wait for locks.

    Source: the real kernel's `K/thread-ipc.cpp`, which sends the two more interrupts for the same reason.
    """
    _stop_receiving(kernel, me, TAKING)
    me.partner = sender
    sender.state = REMOTE
    sender.partner = me
    sender.sent = False
    sender.operation += 1
    me.taken_operation = sender.operation
    post(kernel, sender.core, TransferDrq(sender, me, sender.operation))


def transfer_remote(kernel: Kernel, core: Core, me: Thread, partner: Thread) -> None:
    """`partner`, on another core, is TAKING the message of `me`, a thread of this core."""
    me.state = READY
    me.partner = None
    if partner.state != TAKING:
        kernel.interface.send_failed(kernel, me, CANCELLED)  # it was killed
        dispatch.wake(kernel, core, me)
        return
    sent = deliver(kernel, me, partner)
    dispatch.wake(kernel, core, partner)
    if sent and me.receive != RECEIVE_NONE:
        if me.began and me.receive == RECEIVE_OPEN:
            requests.end(kernel, me)
        resume_receive(kernel, core, me)
        return
    if sent:
        kernel.interface.sent(kernel, me)
    dispatch.wake(kernel, core, me)


def run_receive_phase(kernel: Kernel, core: Core, me: Thread) -> None:
    """`me`, a thread of this core, is REMOTE and its message was sent, or TAKING one that will not come."""
    me.state = READY
    me.partner = None
    resume_receive(kernel, core, me)


def resume_receive(kernel: Kernel, core: Core, me: Thread) -> None:
    """Run the receive phase of a thread that is not the running one."""
    queued = next_sender(me)
    if queued is not None:
        take(kernel, core, me, queued)
        dispatch.wake(kernel, core, me)
        return
    deadline_us = kernel.interface.receive_deadline_us(kernel, me)
    if deadline_us == EXPIRED:
        kernel.interface.receive_failed(kernel, me, TIMED_OUT)
        dispatch.wake(kernel, core, me)
    else:
        waiting.wait_to_receive(kernel, me, deadline_us)


def receive_now(kernel: Kernel, core: Core, receiver: Thread) -> None:
    """`receiver` waits and somebody acceptable is queued: let it take the message and wake it."""
    queued = next_sender(receiver)
    if queued is None:
        return
    _stop_receiving(kernel, receiver, READY)
    take(kernel, core, receiver, queued)
    dispatch.wake(kernel, core, receiver)


def trigger(kernel: Kernel, core: Core, irq: Irq) -> None:
    """An IRQ object fires. While one delivery is queued or pending, further ones are lost."""
    thread = irq.thread
    if thread is None or thread.state == DEAD:
        irq.pending = True
        return
    if irq.queued:
        return
    irq.queued = True
    irq.queued_priority = kernel.interface.irq_priority
    irq.fired_cycles = kernel.now_cycles
    thread.senders.add(irq, irq.queued_priority)
    if thread.core != core.number and thread.core != NO_CORE:
        post(kernel, thread.core, ReceiveDrq(thread))
    elif accepts(thread, irq):
        receive_now(kernel, core, thread)


def receive_if_possible(kernel: Kernel, core: Core, thread: Thread) -> None:
    """A thread of this core that waits takes a queued sender it accepts, if there is one."""
    if thread.state not in (RECEIVING, LATE) or thread.core == NO_CORE:
        return
    queued = next_sender(thread)
    if queued is not None and accepts(thread, queued):
        receive_now(kernel, core, thread)


def _activate(kernel: Kernel, core: Core, me: Thread, partner: Thread, donate: bool) -> None:
    """`partner` got its message: run it now on the sender's time, or wake it by the rule."""
    if donate and partner.core == core.number:
        dispatch.switch_donating(kernel, core, partner)
    else:
        dispatch.wake(kernel, core, partner)
