"""The one system call: invoke a capability. Registers in, an operation on an object out.

    registers ─ decode ─┬─ reply slot ───────────────────────────────► ipc
                        ├─ thread (label not "thread"), gate ────────► ipc
                        └─ any other object: its protocol ─ answer, or a receive phase ► ipc

Ref: ABI sheet sections 1, 5 and 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel import dispatch, ipc, requests, tracing, waiting
from l4lab.kernel.costs import DECODE, OBJECT
from l4lab.kernel.fiasco import abi, faults, messages
from l4lab.kernel.fiasco.protocols import factory, gate, icu, irq, log, scheduler, task, thread
from l4lab.kernel.fiasco.protocols.common import BLOCKED, NO_REPLY, Call, error
from l4lab.kernel.fiasco.threadstate import state_of
from l4lab.kernel.frame import EAX, ECX, EDX, EIP, ESI
from l4lab.kernel.objects import (
    Debugger,
    Factory,
    Gate,
    Icu,
    Irq,
    Log,
    Scheduler,
    Semaphore,
    Task,
)
from l4lab.kernel.thread import (
    DEAD,
    READY,
    RECEIVE_CLOSED,
    RECEIVE_NONE,
    RECEIVE_OPEN,
    ReplySlot,
    Thread,
)
from l4lab.kernel.traps import VECTOR_GENERAL_PROTECTION
from l4lab.kernel.units import PAGE_BYTES

if TYPE_CHECKING:
    from l4lab.kernel.capability import KernelObject
    from l4lab.kernel.fiasco.protocols.common import Handler
    from l4lab.kernel.sched import Core
    from l4lab.kernel.state import Kernel

HANDLERS: dict[type, Handler] = {
    Factory: factory.handle,
    Task: task.handle,
    Thread: thread.handle,
    Scheduler: scheduler.handle,
    Irq: irq.handle_irq,
    Semaphore: irq.handle_semaphore,
    Icu: icu.handle,
    Gate: gate.handle,
    Log: log.handle_log,
    Debugger: log.handle_debugger,
}
_SYSTEM_CALL_BYTES = 2
_REPLY_SLOTS_PER_PAGE = 1024
_OWN_RIGHTS = abi.OBJECT_RIGHT_W | abi.OBJECT_RIGHT_S
_SPECIAL = abi.CAP_INVALID_BIT | abi.CAP_EXPLICIT_REPLY_BIT
_OPERATION = abi.OP_SEND | abi.OP_RECV | abi.OP_OPEN_WAIT | abi.OP_REPLY
_THREAD_LABEL = abi.PROTO_THREAD & 0xFFFF
_KOBJECT_LABEL = abi.PROTO_KOBJECT & 0xFFFF


def entered(kernel: Kernel, core: Core, me: Thread) -> None:
    """Any system call. An alien's is shown to its exception handler before and after (ABI sheet section 1)."""
    state = state_of(me)
    if not state.alien:
        system_call(kernel, core, me)
    elif state.alien_pass:
        state.alien_pass = False
        faults.set_aside(me, (VECTOR_GENERAL_PROTECTION, abi.ALIEN_AFTER, 0))
        system_call(kernel, core, me)
    else:
        me.frame[EIP] = me.frame[EIP] - _SYSTEM_CALL_BYTES & 0xFFFFFFFF
        faults.exception(kernel, core, me, (VECTOR_GENERAL_PROTECTION, abi.ALIEN_BEFORE, 0))


def system_call(kernel: Kernel, core: Core, me: Thread) -> None:
    """Run the operation that the caller's registers describe. On return it has its result, or waits."""
    frame = me.frame
    selector = frame[EDX]
    tag = frame[EAX]
    me.system_calls += 1
    kernel.bill[DECODE] += kernel.costs.syscall_decode
    me.send_tag = tag & ~abi.TAG_ERROR
    me.send_label = frame[ESI]
    me.receive_timeout = frame[ECX] & 0xFFFF
    me.reply_slot_wanted = None
    if selector & abi.OP_REPLY:
        _reply(kernel, core, me, selector)
        return
    if selector & _SPECIAL:
        _to_thread(kernel, core, me, me, _OWN_RIGHTS, selector)
        return
    task_ = me.task
    cap = task_.capability_table.slots.get(selector >> abi.CAP_SHIFT) if task_ is not None else None
    if cap is None:
        messages.fail_send(kernel, me, abi.IPC_NOT_EXISTENT)
        return
    target = cap.object
    if isinstance(target, Gate):
        if (
            cap.extra & abi.OBJECT_RIGHT_SERVER
            and selector & abi.OP_SEND
            and tag >> abi.TAG_LABEL_SHIFT == _KOBJECT_LABEL
        ):
            _invoke(kernel, core, me, target, cap.rights, cap.extra, selector)
        else:
            _to_gate(kernel, core, me, target, cap.rights, selector)
    elif isinstance(target, Thread):
        _to_thread(kernel, core, me, target, cap.rights, selector)
    else:
        _invoke(kernel, core, me, target, cap.rights, cap.extra, selector)


# --- IPC ----------------------------------------------------------------------------------------


def _set_receive(me: Thread, selector: int, source: KernelObject) -> bool:
    """Note the receive phase that the operation asks for; False if the explicit reply slot is refused."""
    if not selector & abi.OP_RECV:
        me.receive = RECEIVE_NONE
    elif selector & abi.OP_OPEN_WAIT:
        me.receive = RECEIVE_OPEN
        me.receive_from = None
        if selector & abi.CAP_EXPLICIT_REPLY_BIT and not selector & abi.CAP_INVALID_BIT:
            me.reply_slot_wanted = _explicit_slot(me, selector >> abi.CAP_SHIFT)
            return me.reply_slot_wanted is not None
    else:
        me.receive = RECEIVE_CLOSED
        me.receive_from = source
    return True


def _explicit_slot(me: Thread, index: int) -> ReplySlot | None:
    """The task's reply slot `index`, made on first use; None if the task cannot pay for its page."""
    task_ = me.task
    if task_ is None or not task_.alive:
        return None
    slot = task_.reply_slots.get(index)
    if slot is None:
        page = index // _REPLY_SLOTS_PER_PAGE
        if page not in task_.reply_pages:
            if not task_.quota.charge(PAGE_BYTES):
                return None
            task_.reply_pages.add(page)
        slot = task_.reply_slots[index] = ReplySlot()
    return slot


def _run(kernel: Kernel, core: Core, me: Thread, partner: Thread, selector: int) -> None:
    """The prepared operation with a thread as partner, as far as its phases were asked for."""
    if not _set_receive(me, selector, partner):
        _refuse_reply_slot(kernel, me)
    elif selector & abi.OP_SEND:
        if kernel.events is not None and not selector & abi.OP_REPLY:
            requests.begin_ipc(kernel, kernel.events, me, partner)
        donate = not me.send_tag & abi.TAG_SCHEDULE
        ipc.send_and_receive(kernel, core, me, partner, donate)
    elif selector & abi.OP_RECV:
        ipc.receive_only(kernel, core, me)
    else:
        messages.fail_send(kernel, me, abi.IPC_NOT_EXISTENT)


def _refuse_reply_slot(kernel: Kernel, me: Thread) -> None:
    kernel.words[me.utcb + messages.ERROR] = abi.IPC_NO_REPLY_SLOT
    me.frame[EAX] = abi.TAG_ERROR


def _reply(kernel: Kernel, core: Core, me: Thread, selector: int) -> None:
    """To whoever the reply slot names; the slot is empty afterwards, whatever happens."""
    slot: ReplySlot | None = me.reply
    if selector & _SPECIAL == abi.CAP_EXPLICIT_REPLY_BIT:
        slot = me.task.reply_slots.get(selector >> abi.CAP_SHIFT) if me.task is not None else None
    caller = slot.caller if slot is not None else None
    if slot is None or caller is None:
        messages.fail_send(kernel, me, abi.IPC_NOT_EXISTENT)
        return
    me.send_rights = slot.rights
    slot.clear()
    _run(kernel, core, me, caller, selector)


def _to_thread(kernel: Kernel, core: Core, me: Thread, target: Thread, rights: int, selector: int) -> None:
    sends = selector & abi.OP_SEND or not selector & _OPERATION  # neither phase counts as an operation, too
    if sends and me.send_tag >> abi.TAG_LABEL_SHIFT == _THREAD_LABEL:
        _invoke(kernel, core, me, target, rights, 0, selector)
        return
    me.send_rights = rights
    _run(kernel, core, me, target, selector)


def _to_gate(kernel: Kernel, core: Core, me: Thread, target: Gate, rights: int, selector: int) -> None:
    me.send_rights = rights
    if kernel.trace is not None and selector & abi.OP_SEND:
        tracing.gate_invoked(kernel, kernel.trace, me, target)
    bound = target.thread
    if bound is None:
        if not _set_receive(me, selector, target):
            _refuse_reply_slot(kernel, me)
            return
        me.sends = bool(selector & abi.OP_SEND)
        if kernel.events is not None and me.sends:
            requests.begin(kernel, kernel.events, me, requests.ipc_kind(me), target.number, me.send_tag)
        waiting.wait_for_gate(kernel, me, target)
        return
    messages.address_to(me, target)
    if bound.state == DEAD and selector & abi.OP_SEND:
        messages.fail_send(kernel, me, abi.IPC_NOT_EXISTENT)
        return
    _run(kernel, core, me, bound, selector)


# --- kernel objects -----------------------------------------------------------------------------


def _invoke(
    kernel: Kernel, core: Core, me: Thread, target: KernelObject, rights: int, extra: int, selector: int
) -> None:
    """Run an object's protocol; an answer comes back at once, else the receive phase follows (section 6)."""
    tag = me.send_tag
    wants_reply = bool(selector & abi.OP_RECV)
    is_task = isinstance(target, Task)
    is_thread = isinstance(target, Thread)  # whoever asked has seen to it that it is an operation
    result = NO_REPLY
    if kernel.trace is not None:
        tracing.object_invoked(kernel, kernel.trace, me, target)
    if selector & abi.OP_SEND or is_task or is_thread:
        kernel.bill[OBJECT] += kernel.costs.object_invoke
        call = Call(kernel, core, me, tag, rights, extra, wants_reply)
        result = HANDLERS[type(target)](call, target)
    if result == BLOCKED:
        return
    always = result != NO_REPLY and (
        result & abi.TAG_ERROR
        or (is_task and result == error(abi.EBADPROTO))
        or (is_thread and result == error(abi.EMSGTOOSHORT) and not call.words)
    )
    if always or (wants_reply and result != NO_REPLY):
        me.frame[EAX] = result
        return
    if wants_reply:
        source = target if isinstance(target, Irq) else me
        if not _set_receive(me, selector, source):
            _refuse_reply_slot(kernel, me)
            return
        ipc.receive_only(kernel, core, me)
        if me.queued and me.state != READY:
            dispatch.unqueue(kernel, me)  # whom the operation woke has taken its place already
