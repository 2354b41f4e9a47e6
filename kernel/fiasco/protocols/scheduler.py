"""Scheduler: which cores there are, and which thread runs where. Ref: ABI sheet section 11.4."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel import crosscore, dispatch
from l4lab.kernel.drq import PlaceDrq, post
from l4lab.kernel.fiasco import abi
from l4lab.kernel.fiasco.messages import make_tag
from l4lab.kernel.fiasco.protocols import icu
from l4lab.kernel.fiasco.protocols.common import OK, Call, error, is_too_short, object_argument
from l4lab.kernel.objects import Scheduler
from l4lab.kernel.thread import NO_CORE, Thread

if TYPE_CHECKING:
    from l4lab.kernel.capability import KernelObject


def handle(call: Call, scheduler: KernelObject) -> int:
    """Scheduler operations; label -1 speaks to the scheduler's one interrupt pin."""
    assert isinstance(scheduler, Scheduler)
    if call.label == abi.PROTO_IRQ:
        return icu.handle(call, scheduler)
    if call.label != abi.PROTO_SCHEDULER:
        return error(abi.EBADPROTO)
    if call.words == 0:
        return error(abi.EMSGTOOSHORT)
    operation = call.word(0)
    if operation == abi.SCHEDULER_INFO:
        return _info(call)
    if operation == abi.SCHEDULER_RUN_THREAD:
        return _run_thread(call)
    if operation == abi.SCHEDULER_IDLE_TIME:
        return _idle_time(call)
    return error(abi.ENOSYS)


def cpu_set_contains(granularity_offset: int, bitmap: int, number: int) -> bool:
    """True if core `number` is in the set: two words, a scaled bitmap from an offset."""
    granularity, offset = _granularity_and_offset(granularity_offset)
    if number < offset:
        return False
    bit = number - offset >> granularity
    return bit < 32 and bitmap >> bit & 1 == 1


def _granularity_and_offset(word: int) -> tuple[int, int]:
    """The first word of a CPU set; the offset counts rounded down to the granularity."""
    granularity = min(word >> abi.CPU_SET_GRANULARITY_SHIFT, abi.CPU_SET_GRANULARITY_MAX)
    return granularity, (word & abi.CPU_SET_OFFSET_MASK) >> granularity << granularity


def _info(call: Call) -> int:
    if is_too_short(call, 2):
        return error(abi.EMSGTOOSHORT)
    granularity, offset = _granularity_and_offset(call.word(1))
    if offset >= abi.SCHEDULER_MAX_CPUS:
        return error(abi.ERANGE)
    bitmap = 0
    for core in call.kernel.cores:
        bit = core.number - offset
        if bit >= 0 and bit >> granularity < 32:
            bitmap |= 1 << (bit >> granularity)
    call.answer_word(0, bitmap)
    call.answer_word(1, abi.SCHEDULER_MAX_CPUS)
    call.answer_word(2, abi.SCHEDULER_CLASS_FIXED_PRIORITY)
    return make_tag(0, 3)


def _run_thread(call: Call) -> int:
    if call.words < 5:
        return error(abi.EINVAL)
    thread = object_argument(call, Thread, 0)
    if isinstance(thread, int):
        return thread
    assert isinstance(thread, Thread)
    priority = (call.word(3) ^ 0x80000000) - 0x80000000
    quantum_us = call.word(4)
    if priority < 0:
        length_bytes = quantum_us
        if length_bytes > (call.words - 1) * 4:
            return error(abi.EINVAL)
        if priority != abi.SCHEDULER_PARAM_CLASS_FIXED_PRIORITY:
            return error(abi.ERANGE)
        if length_bytes < abi.SCHEDULER_PARAM_BYTES:
            return error(abi.EINVAL)
        quantum_us, priority = call.word(5), call.word(6)
    if priority <= 0:
        return error(abi.EINVAL)
    # POINT OF NO RETURN
    home = _choose_core(call, thread)
    _apply(call, thread, home, min(priority, abi.PRIORITY_MAX), quantum_us or abi.QUANTUM_DEFAULT_US)
    return OK


def _choose_core(call: Call, thread: Thread) -> int:
    """Keep the current core if it is in the set; else the caller's; else the first present one in it."""
    wanted, bitmap = call.word(1), call.word(2)
    preferred: list[int] = [thread.core, call.core.number, *range(len(call.kernel.cores))]
    for number in preferred:
        if number != NO_CORE and cpu_set_contains(wanted, bitmap, number):
            return number
    return NO_CORE


def _apply(call: Call, thread: Thread, home: int, priority: int, quantum_us: int) -> None:
    """On the thread's own core, or here while it has none."""
    kernel, core = call.kernel, call.core
    quantum_cycles = quantum_us * kernel.mhz
    if thread.core in (core.number, NO_CORE):
        dispatch.place(kernel, core, thread, home, priority, quantum_cycles)
        crosscore.look_for_senders(kernel, core, thread)
    else:
        post(kernel, thread.core, PlaceDrq(thread, home, priority, quantum_cycles))


def _idle_time(call: Call) -> int:
    if is_too_short(call, 3):
        return error(abi.EMSGTOOSHORT)
    for core in call.kernel.cores:
        if cpu_set_contains(call.word(1), call.word(2), core.number):
            idle_us = core.idle_cycles // call.kernel.mhz
            call.answer_word(0, idle_us & 0xFFFFFFFF)
            call.answer_word(1, idle_us >> 32)
            return make_tag(0, 2)
    return error(abi.EINVAL)
