"""Waiting: how a thread blocks, and how its wait ends other than by a message.

Blocking is data: the thread's state, whom it waits for, its place in a queue, its timeout. Each
function here leaves them in agreement (`invariants.check_threads`). Messages are `ipc`'s business.
Source: ABI sheet sections 4 and 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel import dispatch, requests
from l4lab.kernel.costs import IPC
from l4lab.kernel.errors import KernelBug
from l4lab.kernel.events import OBTAINED, TIMEOUT
from l4lab.kernel.interface import CANCELLED, EXPIRED, NEVER, TIMED_OUT
from l4lab.kernel.objects import Gate, Semaphore
from l4lab.kernel.thread import (
    DEAD,
    DORMANT,
    LATE,
    READY,
    RECEIVE_OPEN,
    RECEIVING,
    REMOTE,
    SENDING,
    TAKING,
    WAITING,
    Thread,
)

if TYPE_CHECKING:
    from l4lab.kernel.capability import KernelObject
    from l4lab.kernel.sched import Core
    from l4lab.kernel.state import Kernel
    from l4lab.kernel.thread import SenderQueue


# --- beginning ----------------------------------------------------------------------------------


def queue_up(kernel: Kernel, me: Thread, partner: Thread) -> None:
    """`partner` does not take the message now: wait in its queue under the send timeout, or give up."""
    deadline_us = kernel.interface.send_deadline_us(kernel, me)
    if deadline_us == EXPIRED:
        kernel.interface.send_failed(kernel, me, TIMED_OUT)
        return
    kernel.interface.send_queued(me)
    _enter(kernel, me, SENDING, partner, partner.senders, deadline_us)


def wait_for_gate(kernel: Kernel, me: Thread, gate: Gate) -> None:
    """No thread is bound to `gate`: wait for one, under the send timeout (ABI sheet section 6)."""
    deadline_us = kernel.interface.send_deadline_us(kernel, me)
    if deadline_us == EXPIRED:
        kernel.interface.send_failed(kernel, me, TIMED_OUT)
    else:
        _enter(kernel, me, SENDING, gate, gate.waiting, deadline_us)


def wait_for_semaphore(kernel: Kernel, me: Thread, semaphore: Semaphore) -> None:
    """The count is zero: wait under the receive timeout."""
    deadline_us = kernel.interface.receive_deadline_us(kernel, me)
    if deadline_us == EXPIRED:
        kernel.interface.down_failed(kernel, me, TIMED_OUT)
    else:
        _enter(kernel, me, WAITING, semaphore, semaphore.waiting, deadline_us)


def _enter(
    kernel: Kernel, me: Thread, state: int, partner: KernelObject, queue: SenderQueue, deadline_us: int
) -> None:
    """Block `me` in a queue, with its priority of now. POINT OF NO RETURN."""
    if kernel.events is not None:
        requests.queued(kernel, kernel.events, me, partner)
    kernel.bill[IPC] += kernel.costs.ipc_block
    me.state = state
    me.partner = partner
    me.queued_priority = me.priority
    queue.add(me, me.priority)
    if deadline_us != NEVER:
        arm(kernel, me, deadline_us)


def wait_to_receive(kernel: Kernel, me: Thread, deadline_us: int) -> None:
    kernel.bill[IPC] += kernel.costs.ipc_block
    if me.receive == RECEIVE_OPEN:
        me.request = 0  # what it worked for has been answered, or is dropped
    me.state = RECEIVING
    me.partner = None if me.receive == RECEIVE_OPEN else me.receive_from
    if deadline_us != NEVER:
        arm(kernel, me, deadline_us)


def arm(kernel: Kernel, thread: Thread, deadline_us: int) -> None:
    """Wake the thread at that time, unless something else ends its wait before."""
    thread.timeout = dispatch.arm(kernel, thread, deadline_us)


# --- ends of waiting ----------------------------------------------------------------------------


def stop_waiting(kernel: Kernel, me: Thread) -> None:
    """Take a blocked thread out of whatever it waits in; its state is the caller's to set."""
    if me.state not in (READY, DORMANT, DEAD):
        kernel.bill[IPC] += kernel.costs.ipc_abort
    dispatch.disarm(kernel, me)
    partner = me.partner
    if me.state == SENDING:
        if isinstance(partner, Gate):
            partner.waiting.remove(me, me.queued_priority)
        elif isinstance(partner, Thread):
            partner.senders.remove(me, me.queued_priority)
    elif me.state == WAITING and isinstance(partner, Semaphore):
        partner.waiting.remove(me, me.queued_priority)
    elif me.state == REMOTE:
        me.operation += 1  # whatever was requested is void
    if me.held_by is not None:
        me.held_by.clear()
    me.partner = None


def time_out(kernel: Kernel, me: Thread) -> None:
    """The timeout of a blocked thread expired: it gets the phase's error and becomes ready."""
    state = me.state
    if kernel.events is not None:
        requests.woken(kernel, kernel.events, TIMEOUT, me)
    stop_waiting(kernel, me)
    me.state = READY
    if state == SENDING:
        kernel.interface.send_failed(kernel, me, TIMED_OUT)
    elif state == WAITING:
        kernel.interface.down_failed(kernel, me, TIMED_OUT)
    else:
        kernel.interface.receive_failed(kernel, me, TIMED_OUT)


def cancel(kernel: Kernel, me: Thread) -> None:
    """Abort the blocked operation of `me` (ex_regs with cancel): error 6 or 7, and ready."""
    state = me.state
    if state in (READY, DORMANT, DEAD, TAKING):
        return
    if state == LATE:
        dispatch.unqueue(kernel, me)
    stop_waiting(kernel, me)
    me.state = READY
    if state == SENDING or (state == REMOTE and not me.sent):
        kernel.interface.send_failed(kernel, me, CANCELLED)
    elif state == WAITING:
        kernel.interface.down_failed(kernel, me, CANCELLED)
    else:
        kernel.interface.receive_failed(kernel, me, CANCELLED)


def finish_late(kernel: Kernel, me: Thread) -> None:
    """A LATE thread is about to run and nobody has sent: now its timeout counts."""
    kernel.bill[IPC] += kernel.costs.ipc_abort
    me.state = READY
    me.partner = None
    kernel.interface.receive_failed(kernel, me, TIMED_OUT)


def release(kernel: Kernel, core: Core, semaphore: Semaphore) -> None:
    """Semaphore up: the first of the highest priority that waits gets it; else it is counted."""
    if not semaphore.waiting:
        semaphore.count += 1
        return
    thread = semaphore.waiting.first()
    if not isinstance(thread, Thread):
        raise KernelBug(f"{thread!r} waits for a semaphore")
    if kernel.events is not None:
        requests.woken(kernel, kernel.events, OBTAINED, thread, semaphore.number)
    stop_waiting(kernel, thread)
    thread.state = READY
    kernel.interface.down_done(thread)
    dispatch.wake(kernel, core, thread)
