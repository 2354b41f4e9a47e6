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
_NONE = -1


def _operation(call: Call) -> int:
    """The low half of MR[0]; a message without words triggers, or has no operation: -1."""
    if call.words == 0:
        return abi.IRQ_TRIGGER if call.label == abi.PROTO_IRQ else _NONE
    return call.word(0) & abi.IRQ_OP_MASK


def handle_irq(call: Call, irq: KernelObject) -> int:
    """Bind, detach, trigger, unmask."""
    assert isinstance(irq, Irq)
    contention.lock(call.kernel, irq)
    operation = _operation(call)
    if operation == _NONE:
        return error(abi.EINVAL)
    if call.label == abi.PROTO_KOBJECT:
        return _bind(call, irq) if operation == abi.ENDPOINT_BIND else error(abi.ENOSYS)
    if call.label == abi.PROTO_IRQ_SENDER:
        return _detach(call, irq) if operation == abi.IRQ_SENDER_DETACH else error(abi.ENOSYS)
    if call.label != abi.PROTO_IRQ:
        return error(abi.EBADPROTO)
    if operation == abi.IRQ_TRIGGER:
        ipc.trigger(call.kernel, call.core, irq)
        return NO_REPLY
    return NO_REPLY if operation == abi.IRQ_UNMASK else error(abi.ENOSYS)


def _bind(call: Call, irq: Irq) -> int:
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


def _detach(call: Call, irq: Irq) -> int:
    if not call.rights & abi.OBJECT_RIGHT_S:
        return error(abi.EPERM)
    if irq.thread is None:
        return error(abi.ENOENT)
    return make_tag(_DETACH_PENDING if lifecycle.unbind_irq(irq) else _DETACH_INACTIVE)


def handle_semaphore(call: Call, semaphore: KernelObject) -> int:
    """Down under the caller's receive timeout; up is a trigger."""
    assert isinstance(semaphore, Semaphore)
    contention.lock(call.kernel, semaphore)
    operation = _operation(call)
    if operation == _NONE:
        return error(abi.EINVAL)
    if call.label == abi.PROTO_IRQ:
        if operation == abi.IRQ_TRIGGER:
            waiting.release(call.kernel, call.core, semaphore)
            return NO_REPLY
        return NO_REPLY if operation == abi.IRQ_UNMASK else error(abi.ENOSYS)
    if call.label != abi.PROTO_SEMAPHORE:
        return error(abi.EBADPROTO)
    if operation != abi.SEMAPHORE_DOWN:
        return error(abi.ENOSYS)
    if not call.rights & abi.OBJECT_RIGHT_S:
        return error(abi.EPERM)
    call.kernel.words[call.me.utcb + abi.UTCB_ERROR // 4] = 0
    if semaphore.count:
        semaphore.count -= 1
        return OK
    waiting.wait_for_semaphore(call.kernel, call.me, semaphore)
    return BLOCKED
