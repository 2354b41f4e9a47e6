"""Faults and exceptions become messages.

    PageFault ──► sigma0? identity map
              ──► trampoline armed? enter it
              ──► page-fault message to the pager ──► answer: retry, or refused ┐
    CpuException ─────────────────────────────────────────────────────────────┴► exception message
                                                                                  to the handler

A thread with a kernel message in flight is an ordinary sender and receiver; only the words come from
`FaultMessage` instead of its UTCB, and the answer goes to `take_answer` instead of its registers.
Its message and buffer registers are therefore never touched.

Source: ABI sheet sections 8 and 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from l4lab.kernel import capspace, events, ipc, lifecycle, ports, requests, tracing, waiting
from l4lab.kernel.costs import COPY, FAULT, IPC
from l4lab.kernel.fiasco import abi, items, messages
from l4lab.kernel.fiasco.threadstate import NEVER_SET, state_of
from l4lab.kernel.frame import (
    CS,
    DS,
    EAX,
    EBP,
    EBX,
    ECX,
    EDI,
    EDX,
    EFLAGS,
    EFLAGS_USER_MASK,
    EIP,
    ES,
    ESI,
    ESP,
    FS,
    GS,
    SS,
)
from l4lab.kernel.interface import KernelMessage
from l4lab.kernel.objects import Gate
from l4lab.kernel.thread import RECEIVE_CLOSED, SENDING, Thread
from l4lab.kernel.traps import VECTOR_GENERAL_PROTECTION, VECTOR_OVERFLOW, VECTOR_PAGE_FAULT

if TYPE_CHECKING:
    from l4lab.kernel.objects import Task
    from l4lab.kernel.sched import Core
    from l4lab.kernel.state import Kernel
    from l4lab.kernel.traps import CpuException, PageFault

PAGE_FAULT: Final = 0
EXCEPTION: Final = 1
STUCK: Final = 2

_NO_PORT: Final = 7
"""A general protection fault with one of these bits in its error code is none for a refused port."""

_STATE_ORDER: Final = (
    ES,
    DS,
    GS,
    FS,
    EDI,
    ESI,
    EBP,
    None,
    EBX,
    EDX,
    ECX,
    EAX,
    None,
    None,
    EIP,
    CS,
    EFLAGS,
    ESP,
    SS,
)
"""Frame word of each of the 19 words of the exception state; None: pfa, trap number, error code."""
_SEGMENT_INDICES: Final = {ES, DS, GS, FS, SS}
_ALWAYS_SET: Final = 0x202
_TRIGGERED: Final = (abi.TRAP_EX_REGS, 0, 0)


class FaultMessage(KernelMessage):
    """A fault of a thread, for its pager or exception handler.

    `kind`: PAGE_FAULT, EXCEPTION, or STUCK: nothing is sent, the thread waits on itself for good.
    """

    __slots__ = ("kind",)

    def __init__(self, kind: int, words: tuple[int, ...], fault: tuple[int, int, int]) -> None:
        super().__init__(words, fault)
        self.kind = kind

    def take_answer(self, kernel: Kernel, sender: Thread, receiver: Thread) -> bool:
        """The pager or handler of `receiver` answered: `messages.transfer` for such a receiver.

        A refused page fault becomes an exception, raised when the thread next runs. False if an item
        failed: the answerer learns why, and the thread resumes only to fault again.
        """
        tag = sender.send_tag
        count = tag & abi.TAG_WORDS_MASK
        item_count = tag >> abi.TAG_ITEMS_SHIFT & abi.TAG_ITEMS_MASK
        from_kernel = sender.kernel_message is not None
        if self.kind == EXCEPTION and count < abi.EXCEPTION_WORDS:
            item_count = 0  # section 9: state unchanged, items ignored
        if item_count and not from_kernel:
            code = items.transfer(kernel, sender, receiver, count, item_count)
            if code:
                receiver.kernel_message = None
                messages.fail_send(kernel, sender, code)
                return False
        receiver.kernel_message = None
        if kernel.trace is not None and self.kind == PAGE_FAULT:
            refused = messages.label_of(tag) < 0
            tracing.resolved(kernel, kernel.trace, receiver, sender, self.fault[2], refused)
        if tag & abi.TAG_FPU:
            messages.transfer_fpu(kernel, sender, receiver)
        label = messages.label_of(tag)
        if self.kind == EXCEPTION:
            if count >= abi.EXCEPTION_WORDS and not from_kernel:
                load_state(kernel, receiver, sender.utcb)
            state = state_of(receiver)
            if state.alien and label == abi.PROTO_ALLOW_SYSCALL:
                state.alien_pass = True
        elif label < 0:
            set_aside(receiver, self.fault)
        return True

    def failed(self, kernel: Kernel, me: Thread, code: int) -> None:
        """The message did not get through: retry, unless a page fault found nobody to send to."""
        requests.end(kernel, me, code)
        me.kernel_message = None
        if self.kind == PAGE_FAULT and code == abi.IPC_NOT_EXISTENT:
            set_aside(me, self.fault)


# --- page faults --------------------------------------------------------------------------------


def page_fault(kernel: Kernel, core: Core, me: Thread, trap: PageFault) -> None:
    """The running thread's access was refused."""
    me.page_faults += 1
    if kernel.events is not None:
        kind = events.FAULT | (trap.error_code | trap.fetch << 4) << events.EXTRA_SHIFT
        requests.begin(kernel, kernel.events, me, kind, 0, trap.address)
    kernel.bill[FAULT] += kernel.costs.fault_path
    task = me.task
    fault = (VECTOR_PAGE_FAULT, trap.error_code, trap.address)
    if trap.address >= abi.USER_LIMIT:
        exception(kernel, core, me, fault)
        return
    if task is not None and task.space is kernel.memory.sigma0:
        requests.end(kernel, me)
        if not kernel.memory.identity_map_sigma0(trap.address >> 12):
            kernel.warn(f"sigma0 touched {trap.address:#x}, which is not RAM it owns, at {me.frame[EIP]:#x}")
            exception(kernel, core, me, fault)
        return
    if trap.present and task is not None and task.alive and not _has_ram(kernel, task, trap.address):
        exception(kernel, core, me, fault)  # a pager cannot help: nothing answers at that physical address
        return
    word = trap.address & abi.FAULT_ADDRESS_MASK | trap.present | trap.write << 1
    state = state_of(me)
    if state.trampoline is not None and state.trampoline_armed:
        _enter_trampoline(kernel, me, word, fault)
        return
    _send_page_fault(kernel, core, me, FaultMessage(PAGE_FAULT, (word, me.frame[EIP]), fault))


def _has_ram(kernel: Kernel, task: Task, address: int) -> bool:
    """Whether the page that is mapped at `address` has RAM behind it."""
    found = task.space.tables.translate(address)
    return found is None or found.physical >> 12 < kernel.memory.ram_frames


def _send_page_fault(kernel: Kernel, core: Core, me: Thread, message: FaultMessage) -> None:
    """Call the pager; step 4 of section 8."""
    state = state_of(me)
    cap = capspace.lookup(me.task, state.pager) if state.pager != NEVER_SET else None
    if cap is None:
        if kernel.trace is not None:
            tracing.no_pager(kernel, kernel.trace, me, message.fault[2])
        kernel.warn(
            f"{me.name or me!r}: page fault at {message.fault[2]:#x}, EIP {me.frame[EIP]:#x}, "
            "but no pager: killed"
        )
        lifecycle.kill(kernel, me)
        return
    if state.alien:
        exception(kernel, core, me, message.fault)
        return
    call(kernel, core, me, message, cap.object, cap.rights, abi.PROTO_PAGE_FAULT)


def call(
    kernel: Kernel, core: Core, me: Thread, message: FaultMessage, target: object, rights: int, protocol: int
) -> None:
    """Send a kernel message as a call, without timeouts, to a gate or a thread."""
    me.kernel_message = message
    me.send_tag = messages.make_tag(protocol, len(message.words))
    if message.kind == EXCEPTION:
        me.send_tag |= abi.TAG_FPU
    me.send_label = 0
    me.send_rights = rights
    me.receive = RECEIVE_CLOSED
    me.receive_timeout = 0
    me.reply_slot_wanted = None
    me.sends = True
    if isinstance(target, Gate):
        me.send_label = target.label | rights & abi.LABEL_RIGHTS_MASK
        if target.thread is None:
            waiting.wait_for_gate(kernel, me, target)
            return
        me.receive_from = target.thread
        ipc.send_and_receive(kernel, core, me, target.thread, donate=True)
    elif isinstance(target, Thread):
        me.receive_from = target
        ipc.send_and_receive(kernel, core, me, target, donate=True)
    else:
        # A kernel object answers at once, with a negative label: a pager refuses, a handler changes nothing.
        requests.end(kernel, me)
        me.kernel_message = None
        if message.kind == PAGE_FAULT:
            set_aside(me, message.fault)


def exception(kernel: Kernel, core: Core, me: Thread, fault: tuple[int, int, int]) -> None:
    """Call the exception handler with the register state; without one the thread waits on itself."""
    me.exceptions += 1
    if kernel.events is not None:
        requests.begin(kernel, kernel.events, me, events.EXCEPTION, 0, fault[0])
    kernel.bill[FAULT] += kernel.costs.fault_path
    handler = state_of(me).exception_handler
    cap = capspace.lookup(me.task, handler) if handler != NEVER_SET else None
    if cap is None:
        get_stuck(kernel, me, fault)
        return
    message = FaultMessage(EXCEPTION, state_words(me, fault), fault)
    call(kernel, core, me, message, cap.object, cap.rights, abi.PROTO_EXCEPTION)


def get_stuck(kernel: Kernel, me: Thread, fault: tuple[int, int, int]) -> None:
    """Nobody handles it: the thread sends to itself, which never matches (section 8, step 5)."""
    number, error, address = fault
    kernel.warn(
        f"{me.name or me!r}: trap {number}, error {error:#x}, address {address:#x}, "
        f"EIP {me.frame[EIP]:#x}: nobody handles it"
    )
    kernel.bill[IPC] += kernel.costs.ipc_block
    me.kernel_message = FaultMessage(STUCK, (), fault)
    me.state = SENDING
    me.partner = me
    me.queued_priority = me.priority
    me.senders.add(me, me.priority)


# --- exceptions ---------------------------------------------------------------------------------


def cpu_exception(kernel: Kernel, core: Core, me: Thread, trap: CpuException) -> None:
    """Any other exception of the running thread."""
    if trap.vector == VECTOR_OVERFLOW:
        # `into` goes through a gate that user code may not use, as `int 4` would.
        me.frame[EIP] = me.frame[EIP] - 1 & 0xFFFFFFFF
        exception(kernel, core, me, (VECTOR_GENERAL_PROTECTION, VECTOR_OVERFLOW << 3 | 2, 0))
        return
    error_code = trap.error_code
    if trap.vector == VECTOR_GENERAL_PROTECTION and not error_code & _NO_PORT:
        if error_code == 0 and ports.access(kernel, me):
            return
        error_code = 0  # it could have been a port: the real kernel does not look (docs/real-kernel.md, 34)
    exception(kernel, core, me, (trap.vector, error_code, 0))


def set_aside(me: Thread, fault: tuple[int, int, int]) -> None:
    """Have an exception raised when `me` next runs; before one that ex_regs has triggered."""
    me.pending_exception = fault


def trigger(me: Thread) -> None:
    """ex_regs triggers an exception: it comes when `me` would go on in user mode, once however often."""
    state_of(me).triggered = True
    if me.pending_exception is None:
        me.pending_exception = _TRIGGERED


def raise_pending(kernel: Kernel, core: Core, me: Thread) -> None:
    """An exception was set aside until `me` runs: raise it in its own time."""
    fault, state = me.pending_exception, state_of(me)
    if fault is _TRIGGERED:
        state.triggered = False
    me.pending_exception = _TRIGGERED if state.triggered else None
    if fault is not None:
        exception(kernel, core, me, fault)


def state_words(me: Thread, fault: tuple[int, int, int]) -> tuple[int, ...]:
    """The 19 words of the exception state (section 9)."""
    frame = me.frame
    words = [0 if index is None else frame[index] for index in _STATE_ORDER]
    words[abi.EXC_TRAPNO], words[abi.EXC_ERR], words[abi.EXC_PFA] = fault
    return tuple(words)


def load_state(kernel: Kernel, me: Thread, first_word: int) -> None:
    """Replace the registers by the 19 words at `first_word`; CS is kept, EFLAGS made harmless."""
    frame, words = me.frame, kernel.words
    kernel.bill[COPY] += len(_STATE_ORDER) * kernel.costs.copy_word
    for offset, index in enumerate(_STATE_ORDER):
        if index is None or index == CS:
            continue
        word = words[first_word + offset]
        if index == EFLAGS:
            word = word & EFLAGS_USER_MASK | _ALWAYS_SET
        elif index in _SEGMENT_INDICES:
            word &= 0xFFFF
        frame[index] = word


# --- page-fault trampoline ----------------------------------------------------------------------


def _enter_trampoline(kernel: Kernel, me: Thread, word: int, fault: tuple[int, int, int]) -> None:
    """Continue the thread at its own handler (section 8, "Page fault trampoline")."""
    state = state_of(me)
    block = state.trampoline
    assert block is not None
    words, frame = kernel.words, me.frame
    kernel.bill[COPY] += len(_STATE_ORDER) * kernel.costs.copy_word
    requests.end(kernel, me)
    state.trampoline_armed = False
    words[block + abi.TRAMPOLINE_SAVED_MR0 // 4] = words[me.utcb]
    first = block + abi.TRAMPOLINE_STATE // 4
    for offset, value in enumerate(state_words(me, fault)):
        words[first + offset] = value
    words[block + abi.TRAMPOLINE_FLAGS // 4] |= abi.TRAMPOLINE_IN_PROGRESS
    frame[EIP] = words[block + abi.TRAMPOLINE_HANDLER // 4]
    frame[EAX] = _user_address(me, block)
    frame[EDX] = word


def _user_address(me: Thread, block: int) -> int:
    """Where the thread itself sees its trampoline block."""
    task = me.task
    assert task is not None
    for area in task.space.ku_areas:
        first = area.first_pfn << 10
        if first <= block < first + (area.pages << 10):
            return (area.vpn << 12) + ((block - first) << 2)
    return 0


def leave_trampoline(kernel: Kernel, core: Core, me: Thread, reflect: bool) -> None:
    """Resume, or Reflect: restore MR[0] and all registers, re-arm, and perhaps raise an exception.

    The system call does not return, so an alien has no exception behind it.
    """
    own = state_of(me)
    block = own.trampoline
    assert block is not None
    me.pending_exception = _TRIGGERED if own.triggered else None
    words = kernel.words
    flags_at = block + abi.TRAMPOLINE_FLAGS // 4
    state = block + abi.TRAMPOLINE_STATE // 4
    pending = words[flags_at] & abi.TRAMPOLINE_EXCEPTION_PENDING
    words[me.utcb] = words[block + abi.TRAMPOLINE_SAVED_MR0 // 4]
    words[flags_at] &= ~(abi.TRAMPOLINE_IN_PROGRESS | abi.TRAMPOLINE_EXCEPTION_PENDING) & 0xFFFFFFFF
    own.trampoline_armed = True
    load_state(kernel, me, state)
    if reflect:
        error, address = words[state + abi.EXC_ERR], words[state + abi.EXC_PFA]
        exception(kernel, core, me, (VECTOR_PAGE_FAULT, error, address))
    elif pending:
        exception(kernel, core, me, (abi.TRAP_EX_REGS, 0, 0))
