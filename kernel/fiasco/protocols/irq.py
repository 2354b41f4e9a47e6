"""IRQ objects and semaphores. Ref: ABI sheet sections 11.5 and 11.6."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel import contention, ipc, lifecycle, waiting
from l4lab.kernel.fiasco import abi
from l4lab.kernel.fiasco.messages import make_tag
from l4lab.kernel.fiasco.protocols.common import BLOCKED, NO_REPLY, OK, Call, error, object_argument
from l4lab.kernel.objects import Irq, Semaphore
from l4lab.kernel.thread import Thread

if TYPE_CHECKING:
    from l4lab.kernel.capability import KernelObject

_DETACH_INACTIVE = 0
_DETACH_PENDING = 1


def handle_irq(call: Call, irq: KernelObject) -> int:
    """Bind, detach, trigger, unmask."""
    assert isinstance(irq, Irq)
    contention.lock(call.kernel, irq)
    if call.label == abi.PROTO_KOBJECT:
        return _bind(call, irq)
    if call.label == abi.PROTO_IRQ_SENDER:
        return _sender(call, irq)
    if call.label == abi.PROTO_IRQ:
        if call.words == 0:
            ipc.trigger(call.kernel, call.core, irq)
            return NO_REPLY
        operation = call.word(0) & abi.IRQ_OP_MASK
        if operation == abi.IRQ_TRIGGER:
            ipc.trigger(call.kernel, call.core, irq)
            return NO_REPLY
        if operation == abi.IRQ_UNMASK:
            return NO_REPLY
        return error(abi.ENOSYS)
    return error(abi.EBADPROTO)


def _bind(call: Call, irq: Irq) -> int:
    if call.words == 0:
        return error(abi.EINVAL)
    operation = call.word(0) & abi.IRQ_OP_MASK
    if operation != abi.ENDPOINT_BIND:
        return dec_refcnt(call, irq) if operation == abi.KOBJECT_DEC_REFCNT else error(abi.ENOSYS)
    if not call.rights & abi.OBJECT_RIGHT_S:
        return error(abi.EPERM)
    label = call.word(1)
    thread = object_argument(call, Thread, abi.OBJECT_RIGHT_S)
    if isinstance(thread, int):
        return thread
    assert isinstance(thread, Thread)
    # POINT OF NO RETURN
    irq.label = label
    if irq.thread is not thread:
        pending = lifecycle.unbind_irq(irq)
        irq.pending = False
        irq.thread = thread
        thread.bound_irqs[irq] = None
        if pending:
            ipc.trigger(call.kernel, call.core, irq)
    return OK


def dec_refcnt(call: Call, obj: KernelObject) -> int:
    """Lower the count of capabilities that keep the object alive; never ends it by itself.

    A negative difference gives back what was deducted, but no more: an object that nobody can name
    would live for ever.
    """
    if call.words < 2:
        return error(abi.EINVAL)
    difference = max((call.word(1) ^ 0x80000000) - 0x80000000, -obj.deducted)
    obj.counted -= difference
    obj.deducted += difference
    call.answer_word(0, obj.counted)
    return make_tag(0, 1)


def _sender(call: Call, irq: Irq) -> int:
    if call.words == 0:
        return error(abi.EINVAL)
    operation = call.word(0) & abi.IRQ_OP_MASK
    if operation != abi.IRQ_SENDER_DETACH:
        return error(abi.ENOSYS)
    if not call.rights & abi.OBJECT_RIGHT_S:
        return error(abi.EPERM)
    if irq.thread is None:
        return error(abi.ENOENT)
    return make_tag(_DETACH_PENDING if lifecycle.unbind_irq(irq) else _DETACH_INACTIVE)


def handle_semaphore(call: Call, semaphore: KernelObject) -> int:
    """Down under the caller's receive timeout; up is a trigger."""
    assert isinstance(semaphore, Semaphore)
    contention.lock(call.kernel, semaphore)
    if call.label == abi.PROTO_IRQ:
        if call.words == 0 or call.word(0) & abi.IRQ_OP_MASK == abi.IRQ_TRIGGER:
            waiting.release(call.kernel, call.core, semaphore)
            return NO_REPLY
        return NO_REPLY if call.word(0) & abi.IRQ_OP_MASK == abi.IRQ_UNMASK else error(abi.ENOSYS)
    if call.label != abi.PROTO_SEMAPHORE:
        return error(abi.EBADPROTO)
    if call.words == 0:
        return error(abi.EINVAL)
    if call.word(0) & abi.IRQ_OP_MASK != abi.SEMAPHORE_DOWN:
        return error(abi.ENOSYS)
    if not call.rights & abi.OBJECT_RIGHT_S:
        return error(abi.EPERM)
    call.kernel.words[call.me.utcb + abi.UTCB_ERROR // 4] = 0
    if semaphore.count:
        semaphore.count -= 1
        return OK
    waiting.wait_for_semaphore(call.kernel, call.me, semaphore)
    return BLOCKED
