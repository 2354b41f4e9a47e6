"""Thread: control, ex_regs, switch and the rest. Ref: ABI sheet section 11.3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel import dispatch, lifecycle, waiting
from l4lab.kernel.costs import OBJECT
from l4lab.kernel.fiasco import abi, faults
from l4lab.kernel.fiasco.messages import make_tag
from l4lab.kernel.fiasco.protocols.common import BLOCKED, OK, Call, error, object_argument
from l4lab.kernel.fiasco.threadstate import state_of
from l4lab.kernel.frame import EFLAGS, EFLAGS_INTERRUPT, EIP, ESP, GDT_ENTRIES, USER_CYCLES, read_counter
from l4lab.kernel.objects import Irq, Semaphore, Task
from l4lab.kernel.thread import DEAD, DORMANT, NO_CORE, READY, SENDING, TAKING, Thread

if TYPE_CHECKING:
    from l4lab.kernel.capability import KernelObject

_GDT_LIMIT_WORDS = 2 * abi.GDT_USER_ENTRIES


def handle(call: Call, thread: KernelObject) -> int:
    """Dispatch on the low half of MR[0]; the upper half holds flags."""
    assert isinstance(thread, Thread)
    if call.words == 0:
        return error(abi.EMSGTOOSHORT)
    operation = call.word(0) & abi.THREAD_OP_MASK
    if operation == abi.THREAD_CONTROL:
        return _control(call, thread)
    if operation == abi.THREAD_EX_REGS:
        return _ex_regs(call, thread)
    if operation == abi.THREAD_SWITCH:
        return _switch(call, thread)
    if operation == abi.THREAD_STATS:
        return _stats(call, thread)
    if operation == abi.THREAD_REGISTER_DELETE_IRQ:
        return _register_delete_irq(call, thread)
    if operation == abi.THREAD_MODIFY_SENDERS:
        return _modify_senders(call, thread)
    if operation == abi.THREAD_PF_TRAMP_CONTROL:
        return _trampoline(call, thread)
    if operation == abi.THREAD_GDT:
        return _gdt(call, thread)
    if operation in (abi.THREAD_VCPU_RESUME, abi.THREAD_VCPU_CONTROL):
        return error(abi.EINVAL)  # no thread is a vCPU, and no address is a place for its state
    return error(abi.ENOSYS)  # doorbells too: not in this configuration


def _control(call: Call, thread: Thread) -> int:
    if not call.rights & abi.OBJECT_RIGHT_S:
        return error(abi.EPERM)
    if call.words < 6:
        return error(abi.EINVAL)
    flags = call.word(0)
    pager, handler, values, utcb = call.word(1), call.word(2), call.word(4), call.word(5)
    state = state_of(thread)
    old_pager, old_handler = state.pager, state.exception_handler
    if flags & abi.CONTROL_BIND_TASK:
        refusal = _bind(call, thread, utcb)
        if refusal:
            return refusal
    # POINT OF NO RETURN
    if flags & abi.CONTROL_SET_PAGER:
        state.pager = pager >> abi.CAP_SHIFT
    if flags & abi.CONTROL_SET_EXCEPTION_HANDLER:
        state.exception_handler = handler >> abi.CAP_SHIFT
    if flags & abi.CONTROL_ALIEN:
        state.alien = bool(values & abi.CONTROL_ALIEN)
    call.answer_word(1, old_pager << abi.CAP_SHIFT)
    call.answer_word(2, old_handler << abi.CAP_SHIFT)
    return make_tag(0, 3)


def _bind(call: Call, thread: Thread, utcb_address: int) -> int:
    """0, or the answer that refuses; a failing bind changes nothing."""
    task = object_argument(call, Task, abi.OBJECT_RIGHT_S)
    if isinstance(task, int):
        return task
    assert isinstance(task, Task)
    if thread.task is not None or thread.state == DEAD:
        return error(abi.EINVAL)
    return 0 if lifecycle.bind_thread(call.kernel, thread, task, utcb_address) else error(abi.EINVAL)


def _ex_regs(call: Call, thread: Thread) -> int:
    flags = call.word(0)
    if call.words != 3 or flags & abi.EX_REGS_RESERVED:
        return error(abi.EINVAL)
    ip, sp = call.word(1), call.word(2)
    frame = thread.frame
    # A thread that will leave the kernel by way of a triggered exception does so with interrupts off.
    leaves_so = state_of(thread).triggered and thread.pending_exception is not None
    eflags = frame[EFLAGS] & ~EFLAGS_INTERRUPT if leaves_so else frame[EFLAGS]
    old = (eflags, frame[EIP], frame[ESP])
    cancel = bool(flags & abi.EX_REGS_CANCEL)
    message = thread.kernel_message
    in_exception = isinstance(message, faults.FaultMessage) and message.kind == faults.EXCEPTION
    if thread.state != DEAD and thread.task is not None and (cancel or not in_exception):
        # POINT OF NO RETURN
        if ip != abi.EX_REGS_KEEP:
            frame[EIP] = ip
        if sp != abi.EX_REGS_KEEP:
            frame[ESP] = sp
        if thread.state == DORMANT:
            thread.state = READY
            dispatch.wake_without_preempting(call.kernel, thread)
        elif cancel and thread is not call.me:
            _cancel(call, thread)
        if flags & abi.EX_REGS_TRIGGER_EXCEPTION:
            faults.trigger(thread)
    for index, value in enumerate(old):
        call.answer_word(index, value)
    return make_tag(0, 3)


def _cancel(call: Call, thread: Thread) -> None:
    """Abort what the thread waits for; it becomes ready without being switched to."""
    if thread.state in (READY, DORMANT, DEAD, TAKING):
        return
    waiting.cancel(call.kernel, thread)
    dispatch.wake_without_preempting(call.kernel, thread)


def _switch(call: Call, thread: Thread) -> int:
    """Run `thread` now if it could run here; naming oneself, or one that cannot run, is a reschedule."""
    core = call.core
    if thread is not call.me and thread.queued and thread.core == core.number:
        dispatch.unqueue(call.kernel, thread)
        dispatch.switch_donating(call.kernel, core, thread)
    elif thread is call.me or thread.core in (core.number, NO_CORE):
        core.reschedule = True
    return OK


def _stats(call: Call, thread: Thread) -> int:
    time_us = read_counter(thread.frame, USER_CYCLES) // call.kernel.mhz
    call.answer_word(0, time_us & 0xFFFFFFFF)
    call.answer_word(1, time_us >> 32)
    return make_tag(0, 2)


def _register_delete_irq(call: Call, thread: Thread) -> int:
    irq = object_argument(call, (Irq, Semaphore), abi.OBJECT_RIGHT_W)
    if isinstance(irq, int):
        return irq
    assert isinstance(irq, Irq | Semaphore)
    if thread.delete_irq is not None:
        return error(abi.EBUSY)
    # POINT OF NO RETURN
    lifecycle.detach_source(irq)
    thread.delete_irq = irq
    irq.notifies = thread
    return OK


def _modify_senders(call: Call, thread: Thread) -> int:
    """Relabel those who are queued: each by the first group whose mask matches its label."""
    if thread.core != call.core.number:
        return error(abi.EINVAL)
    if call.words < 5:
        return OK
    groups = [tuple(call.word(at + part) for part in range(4)) for at in range(1, call.words - 3, 4)]
    senders = list(thread.senders)
    call.kernel.bill[OBJECT] += len(senders) * len(groups) * call.kernel.costs.list_step
    for sender in senders:
        if isinstance(sender, Thread) and sender.state == SENDING:
            sender.send_label = _relabel(sender.send_label, groups)
        elif isinstance(sender, Irq):
            sender.label = _relabel(sender.label, groups)
    return OK


def _relabel(label: int, groups: list[tuple[int, ...]]) -> int:
    for mask, match, clear, to_set in groups:
        if label & mask == match:
            return label & ~clear | to_set
    return label


def _trampoline(call: Call, thread: Thread) -> int:
    """Page-fault trampolines (section 8). Resume and reflect have no answer: all registers are replaced."""
    kernel = call.kernel
    state = state_of(thread)
    flags = call.word(0) & ~abi.THREAD_OP_MASK
    if call.items:
        return error(abi.EMSGTOOLONG)
    if flags == abi.PF_TRAMP_SETUP:
        return _setup_trampoline(call, thread)
    if flags not in (abi.PF_TRAMP_RESUME, abi.PF_TRAMP_REFLECT, abi.PF_TRAMP_DISABLE, abi.PF_TRAMP_ENABLE):
        return error(abi.ENOSYS)
    if call.words > 1:
        return error(abi.EMSGTOOLONG)
    if flags in (abi.PF_TRAMP_RESUME, abi.PF_TRAMP_REFLECT):
        if thread is not call.me:
            return error(abi.EPERM)
        if state.trampoline is None or state.trampoline_armed:
            return error(abi.EINVAL)
        faults.leave_trampoline(kernel, call.core, thread, reflect=flags == abi.PF_TRAMP_REFLECT)
        return BLOCKED
    if flags == abi.PF_TRAMP_ENABLE:
        if state.trampoline is None:
            return error(abi.EINVAL)
        state.trampoline_armed = True
        return OK
    call.answer_word(0, int(state.trampoline_armed))
    state.trampoline_armed = False
    return make_tag(0, 1)


def _setup_trampoline(call: Call, thread: Thread) -> int:
    if call.words < 2:
        return error(abi.EMSGTOOSHORT)
    if call.words > 2:
        return error(abi.EMSGTOOLONG)
    address = call.word(1)
    task = thread.task
    word = None
    if task is not None and not address & 3:
        word = call.kernel.memory.ku_word(task.space, address, abi.TRAMPOLINE_BYTES)
    if word is None:
        return error(abi.EINVAL)
    # POINT OF NO RETURN
    state = state_of(thread)
    state.trampoline = word
    state.trampoline_armed = True
    return OK


def _gdt(call: Call, thread: Thread) -> int:
    """Read the first user entry's index, or set the thread's own descriptors."""
    if call.words == 1:
        call.answer_word(0, abi.GDT_FIRST_USER_ENTRY)
        return make_tag(0, 1)
    entry = call.word(1)
    # POINT OF NO RETURN: what stands before an unsafe descriptor is written. The last word may be half of one.
    for at in range(2, call.words, 2):
        position = 2 * entry + at - 2
        if position >= _GDT_LIMIT_WORDS:
            break
        low, high = call.word(at), call.word(at + 1)
        if not _is_safe_descriptor(low, high):
            return error(abi.EINVAL)
        thread.frame[GDT_ENTRIES + position] = low
        thread.frame[GDT_ENTRIES + position + 1] = high
    return make_tag((entry << 3) + abi.GDT_FIRST_USER_SELECTOR)


def _is_safe_descriptor(low: int, high: int) -> bool:
    """Null or not present; else a code or data segment of privilege level 3. Ref: Intel SDM vol. 3, 3.4.5."""
    if not low and not high:
        return True
    if not high & 1 << 15:
        return True
    return bool(high & 1 << 12) and high >> 13 & 3 == 3
