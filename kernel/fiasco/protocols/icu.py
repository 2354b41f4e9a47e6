"""Interrupt controllers: binding IRQ objects to pins. Ref: ABI sheet section 11.7."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from l4lab.kernel import ipc, lifecycle, waiting
from l4lab.kernel.fiasco import abi
from l4lab.kernel.fiasco.messages import make_tag
from l4lab.kernel.fiasco.protocols.common import NO_REPLY, OK, Call, error, is_too_short, object_argument
from l4lab.kernel.objects import Icu, Irq, Semaphore

if TYPE_CHECKING:
    from l4lab.kernel.capability import KernelObject
    from l4lab.kernel.sched import Core
    from l4lab.kernel.state import Kernel


_WORDS: Final = {abi.ICU_INFO: 1, abi.ICU_MSI_INFO: 4, abi.ICU_SET_MODE: 3}
"""How many words an operation that reads no capability needs at least."""


def handle(call: Call, icu: KernelObject) -> int:
    """Operations on pins; also reached through the objects that are controllers besides."""
    assert isinstance(icu, Icu)
    if call.label != abi.PROTO_IRQ:
        return error(abi.EBADPROTO)
    if call.words == 0:
        return error(abi.EMSGTOOSHORT)
    operation = call.word(0)
    if operation == abi.ICU_BIND:
        return _bind(call, icu)
    if operation == abi.ICU_UNBIND:
        return _unbind(call, icu)
    if operation in (abi.ICU_UNMASK, abi.ICU_MASK):
        if call.words >= 2:
            pin = call.word(1)
            (icu.masked.add if operation == abi.ICU_MASK else icu.masked.discard)(min(pin, icu.pin_count))
        return NO_REPLY
    if operation not in _WORDS:
        return error(abi.ENOSYS)
    if is_too_short(call, _WORDS[operation]):
        return error(abi.EMSGTOOSHORT)
    if operation == abi.ICU_INFO:
        for index, value in enumerate((0, icu.pin_count, 0)):
            call.answer_word(index, value)
        return make_tag(0, 3)
    if operation == abi.ICU_SET_MODE:
        return OK if call.word(1) < icu.pin_count else error(abi.EINVAL)
    return error(abi.ENOSYS)  # msi_info: there are no message-signalled interrupts


def _named_irq(call: Call, right: int) -> Irq | Semaphore | int:
    if is_too_short(call, 2) or not call.items:
        return error(abi.EMSGTOOSHORT)
    irq = object_argument(call, (Irq, Semaphore), right)
    assert isinstance(irq, int | Irq | Semaphore)
    return irq


def _bind(call: Call, icu: Icu) -> int:
    """The IRQ leaves what it was attached to before it is known whether the pin takes it."""
    irq = _named_irq(call, abi.OBJECT_RIGHT_W)
    if isinstance(irq, int):
        return irq
    # POINT OF NO RETURN
    lifecycle.detach_source(irq)
    pin = call.word(1)
    if pin >= icu.pin_count or pin in icu.pins:
        return error(abi.EINVAL)
    icu.pins[pin] = irq
    irq.pin = (icu, pin)
    return OK


def _unbind(call: Call, icu: Icu) -> int:
    """Whoever is bound goes; the IRQ that the message names only has to be one."""
    irq = _named_irq(call, 0)
    if isinstance(irq, int):
        return irq
    bound = icu.pins.get(call.word(1))
    if bound is not None:
        # POINT OF NO RETURN
        lifecycle.detach_source(bound)
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
