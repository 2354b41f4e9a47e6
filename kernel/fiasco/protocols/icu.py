"""Interrupt controllers: binding IRQ objects to pins. Ref: ABI sheet section 11.7."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel import ipc, lifecycle, waiting
from l4lab.kernel.fiasco import abi
from l4lab.kernel.fiasco.messages import make_tag
from l4lab.kernel.fiasco.protocols.common import NO_REPLY, OK, Call, error, object_argument
from l4lab.kernel.objects import Icu, Irq, Semaphore

if TYPE_CHECKING:
    from l4lab.kernel.capability import KernelObject
    from l4lab.kernel.sched import Core
    from l4lab.kernel.state import Kernel


def handle(call: Call, icu: KernelObject) -> int:
    """Operations on pins; also reached through the objects that are controllers besides."""
    assert isinstance(icu, Icu)
    if call.label != abi.PROTO_IRQ:
        return error(abi.EBADPROTO)
    if call.words == 0:
        return error(abi.EMSGTOOSHORT)
    operation = call.word(0) & abi.IRQ_OP_MASK
    if operation in (abi.ICU_BIND, abi.ICU_UNBIND):
        return _bind(call, icu, binding=operation == abi.ICU_BIND)
    if operation == abi.ICU_INFO:
        for index, value in enumerate((0, icu.pin_count, 0)):
            call.answer_word(index, value)
        return make_tag(0, 3)
    if operation in (abi.ICU_UNMASK, abi.ICU_MASK):
        if call.words >= 2:
            pin = call.word(1)
            (icu.masked.add if operation == abi.ICU_MASK else icu.masked.discard)(min(pin, icu.pin_count))
        return NO_REPLY
    if operation == abi.ICU_SET_MODE:
        if call.words < 3:
            return error(abi.EMSGTOOSHORT)
        return OK if call.word(1) < icu.pin_count else error(abi.EINVAL)
    if operation == abi.ICU_MSI_INFO and call.words < 2:
        return error(abi.EMSGTOOSHORT)
    return error(abi.ENOSYS)  # msi_info too: there are no message-signalled interrupts


def _bind(call: Call, icu: Icu, *, binding: bool) -> int:
    if call.words < 2:
        return error(abi.EMSGTOOSHORT)
    pin = call.word(1)
    irq = object_argument(call, (Irq, Semaphore), abi.OBJECT_RIGHT_W, missing=abi.EMSGTOOSHORT)
    if isinstance(irq, int):
        return irq
    assert isinstance(irq, Irq | Semaphore)
    if pin >= icu.pin_count:
        return error(abi.EINVAL)
    if not binding:
        if icu.pins.get(pin) is irq:
            lifecycle.detach_from_pin(irq)
        return OK
    if icu.pins.get(pin, irq) is not irq:
        return error(abi.EINVAL)
    # POINT OF NO RETURN
    lifecycle.detach_from_pin(irq)
    icu.pins[pin] = irq
    irq.pin = (icu, pin)
    return OK


def fire(kernel: Kernel, core: Core, icu: Icu, pin: int) -> None:
    """A device raised the interrupt of `pin`."""
    target = icu.pins.get(pin)
    if target is None or pin in icu.masked:
        return
    if isinstance(target, Irq):
        ipc.trigger(kernel, core, target)
    else:
        waiting.release(kernel, core, target)
