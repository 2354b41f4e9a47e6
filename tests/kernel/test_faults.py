"""Page faults, trampolines, exceptions and alien threads: ABI sheet sections 8 and 9."""

from __future__ import annotations

import pytest

from l4lab.kernel import frame as f
from l4lab.kernel.fiasco import abi
from l4lab.kernel.fiasco.interface import SELECTORS
from l4lab.kernel.paging import SUPERPAGE
from l4lab.kernel.thread import DEAD, READY, RECEIVING, SENDING, Thread
from l4lab.kernel.traps import SYSTEM_CALL, CpuException, PageFault
from support.kernel_world import World, cap, item, memory_page, tag

FAULTER, PAGER, HANDLER = 20, 21, 22
PAGER_GATE, HANDLER_GATE = 24, 25
REPLY = abi.OP_REPLY | abi.OP_SEND


class Faults:
    """A thread of the root task with a pager and an exception handler, both in open wait, behind gates."""

    def __init__(self, *, pager: bool = True, handler: bool = True, alien: bool = False) -> None:
        self.world = world = World()
        self.faulter = world.new_thread(FAULTER)
        self.pager, self.handler = world.new_thread(PAGER), world.new_thread(HANDLER)
        world.new_gate(PAGER_GATE, PAGER, 0x100)
        world.new_gate(HANDLER_GATE, HANDLER, 0x200)
        for thread in (self.pager, self.handler):
            world.call(thread, abi.CAP_INVALID, abi.OP_WAIT)
        if pager or handler or alien:
            world.control(
                FAULTER,
                pager=PAGER_GATE if pager else None,
                handler=HANDLER_GATE if handler else None,
                alien=alien,
            )
        frame = self.faulter.frame
        for index in (f.EAX, f.ECX, f.EDX, f.EBX, f.EBP, f.ESI, f.EDI):
            frame[index] = 0x1000 + index
        frame[f.EIP], frame[f.ESP], frame[f.EFLAGS] = 0x8000, 0x9000, 0x246

    def fault(self, address: int = 0x500123, *, write: bool = False, present: bool = False) -> None:
        self.world.switch_to(self.faulter)
        self.world.trap(PageFault(address, write, False, present))

    def exception(self, vector: int = 13, error: int = 0) -> None:
        self.world.switch_to(self.faulter)
        self.world.trap(CpuException(vector, error))

    def answer(self, who: Thread, sent: int, *words: int) -> None:
        self.world.call(who, abi.CAP_INVALID, abi.OP_REPLY_AND_WAIT, sent, *words)


# --- page faults --------------------------------------------------------------------------------


@pytest.mark.parametrize(("write", "present"), [(False, False), (True, False), (False, True), (True, True)])
def test_page_fault_message(write: bool, present: bool) -> None:
    """Label -2, two words: address with flags, EIP; through the gate with its label and rights."""
    faults = Faults()
    faults.fault(0x500123, write=write, present=present)
    world, pager = faults.world, faults.pager
    assert world.running() is pager
    assert (world.answer(pager).tag, world.answer(pager).label) == (tag(-2, 2), 0x103)
    assert world.message(pager, 2) == [0x500120 | present | write << 1, 0x8000]


def test_fault_address_high_limit() -> None:
    """From 0xc0000000 on it is an exception: no pager has anything there."""
    faults = Faults()
    faults.fault(0xC0000000)
    assert faults.world.answer(faults.handler).value == abi.PROTO_EXCEPTION


def test_utcb_of_the_faulting_thread_is_untouched() -> None:
    """Message and buffer registers are what they were, before and after."""
    faults = Faults()
    world = faults.world
    first = faults.faulter.utcb
    for index in range(128):
        if index != abi.UTCB_ADDRESS // 4:
            world.ram[first + index] = 0xA000 + index
    before = world.ram[first : first + 128].tolist()
    world.give_memory(0x500000)
    faults.fault()
    faults.answer(faults.pager, tag(0, 0, 1), 0x500000 | abi.ITEM_MAP, memory_page(0x500000))
    assert world.ram[first : first + 128].tolist() == before
    assert faults.faulter.state == READY


def test_registers_of_the_faulting_thread_are_untouched() -> None:
    """Whatever the pager answers."""
    faults = Faults()
    before = faults.faulter.frame.tolist()[:17]
    faults.fault()
    faults.answer(faults.pager, tag(5, 3), 1, 2, 3)
    assert faults.faulter.frame.tolist()[:17] == before


def test_answer_with_an_item_maps_at_its_send_base() -> None:
    """The receive window is everything: the send base is the address."""
    faults = Faults()
    world = faults.world
    world.give_memory(0x500000)
    faults.fault(0x700000)
    faults.answer(faults.pager, tag(0, 0, 1), 0x700000 | abi.ITEM_MAP, memory_page(0x500000))
    task = faults.faulter.task
    assert task is not None and task.space.pages[0x700].pfn == 0x500


@pytest.mark.parametrize("label", [0, 1, 0x7FFF])
def test_any_answer_but_a_negative_one_means_retry(label: int) -> None:
    """The thread runs again, and would fault again."""
    faults = Faults()
    faults.fault()
    faults.answer(faults.pager, tag(label))
    assert faults.faulter.state == READY and faults.faulter.pending_exception is None


@pytest.mark.parametrize("label", [-1, -12, -0x8000])
def test_negative_answer_refuses(label: int) -> None:
    """An exception with trap 14 follows, when the thread runs again."""
    faults = Faults()
    faults.fault(0x500123, write=True)
    faults.answer(faults.pager, tag(label))
    faults.world.switch_to(faults.pager) if faults.pager.state == READY else None
    world, handler = faults.world, faults.handler
    assert world.answer(handler).value == abi.PROTO_EXCEPTION
    words = world.message(handler, 19)
    assert (words[abi.EXC_TRAPNO], words[abi.EXC_ERR], words[abi.EXC_PFA]) == (14, 6, 0x500123)


def test_refused_without_handler_waits_on_itself() -> None:
    """For ever; ex_regs without cancel does not change that, with cancel it restarts at the new state."""
    faults = Faults(handler=False)
    faults.fault()
    faults.answer(faults.pager, tag(-1))
    world, faulter = faults.world, faults.faulter
    assert faulter.state == SENDING and faulter.partner is faulter
    world.run_for(50_000)
    assert faulter.state == SENDING
    world.ex_regs(FAULTER, 0, 0x5000, 0x6000)
    assert faulter.state == SENDING
    world.ex_regs(FAULTER, abi.EX_REGS_CANCEL, 0x7000, 0x6000)
    assert faulter.state == READY
    assert (faulter.frame[f.EIP], faulter.frame[f.ESP]) == (0x7000, 0x6000)
    assert faulter.pending_exception is None


def test_no_pager() -> None:
    """The slot is empty, or was never set: the thread is killed, with a warning."""
    faults = Faults(pager=False)
    faults.fault()
    assert faults.faulter.state == DEAD and faults.world.kernel.warnings
    faults = Faults()
    faults.world.delete(PAGER_GATE)
    faults.fault()
    assert faults.faulter.state == DEAD


def test_dead_pager() -> None:
    """Send phase error 4: an exception, as if refused."""
    faults = Faults()
    faults.world.delete(PAGER)
    faults.fault()
    assert faults.world.answer(faults.handler).value == abi.PROTO_EXCEPTION


def test_cancelled_in_the_fault() -> None:
    """ex_regs with cancel: no exception; the thread goes on where it was told."""
    for answered in (False, True):
        faults = Faults()
        if not answered:  # the pager is busy: the fault is queued at it
            faults.world.call(faults.world.root, cap(PAGER), abi.OP_SEND, tag(1))
        faults.fault()
        faults.world.ex_regs(FAULTER, abi.EX_REGS_CANCEL, 0x7000)
        assert faults.faulter.state == READY and faults.faulter.kernel_message is None
        assert faults.faulter.frame[f.EIP] == 0x7000 and faults.faulter.pending_exception is None


def test_pager_that_dies_while_the_fault_waits_for_it() -> None:
    """Queued: every error but 4 means retry. Being served: it stays blocked."""
    faults = Faults()
    faults.world.call(faults.world.root, cap(PAGER), abi.OP_SEND, tag(1))
    faults.fault()
    faults.world.delete(PAGER)
    assert faults.faulter.state == READY and faults.faulter.pending_exception is None
    faults = Faults()
    faults.fault()
    faults.world.delete(PAGER)
    assert faults.faulter.state == RECEIVING


def test_fault_of_sigma0_is_resolved_by_the_kernel() -> None:
    """4 MiB one to one, no message."""
    world = World()
    world.call(world.root, cap(abi.BOOT_CAP_PAGER), abi.OP_SEND, tag(1))
    world.switch_to(world.sigma0)
    world.trap(PageFault(0x654321, write=True, fetch=False, present=False))
    assert world.running() is world.sigma0
    task = world.sigma0.task
    assert task is not None
    found = task.space.tables.translate(0x654321)
    assert found is not None and found.entry & SUPERPAGE and found.physical == 0x654321


# --- exceptions ---------------------------------------------------------------------------------


def test_exception_message() -> None:
    """Label -5, 19 words in their order, the FPU flag."""
    faults = Faults()
    faults.exception(13, 0x1234)
    world, handler = faults.world, faults.handler
    assert (world.answer(handler).tag, world.answer(handler).label) == (tag(-5, 19, 0, abi.TAG_FPU), 0x203)
    frame = faults.faulter.frame
    expected = [frame[index] for index in (f.ES, f.DS, f.GS, f.FS, f.EDI, f.ESI, f.EBP)]
    expected += [0, frame[f.EBX], frame[f.EDX], frame[f.ECX], frame[f.EAX], 13, 0x1234]
    expected += [0x8000, SELECTORS.code, 0x246, 0x9000, SELECTORS.data]
    assert world.message(handler, 19) == expected


def test_answer_with_the_state_replaces_the_registers() -> None:
    """CS is kept; EFLAGS: IOPL and NT cleared, IF set."""
    faults = Faults()
    faults.exception()
    words = list(range(0x2000, 0x2013))
    words[abi.EXC_EFLAGS] = 0xFFFFFFFF
    words[abi.EXC_CS] = 0x8
    words[abi.EXC_DS] = 0x12345
    faults.answer(faults.handler, tag(0, 19), *words)
    frame = faults.faulter.frame
    assert [frame[index] for index in (f.EDI, f.ESI, f.EBP, f.EBX, f.EDX, f.ECX, f.EAX)] == [
        0x2004, 0x2005, 0x2006, 0x2008, 0x2009, 0x200A, 0x200B,
    ]  # fmt: skip
    assert (frame[f.EIP], frame[f.ESP], frame[f.CS]) == (0x200E, 0x2011, SELECTORS.code)
    assert frame[f.EFLAGS] & 0x3000 == 0 and frame[f.EFLAGS] & 0x4000 == 0 and frame[f.EFLAGS] & 0x200
    assert frame[f.EFLAGS] & 0x20000 == 0, "virtual 8086 mode"
    assert frame[f.DS] <= 0xFFFF


def test_short_answer_changes_nothing() -> None:
    """Fewer words: the state is unchanged, items are ignored, the thread resumes at the same EIP."""
    faults = Faults()
    before = faults.faulter.frame.tolist()[:17]
    faults.world.give_memory(0x500000)
    faults.exception()
    words = (*range(18), 0x700000 | abi.ITEM_MAP, memory_page(0x500000))
    faults.answer(faults.handler, tag(-7, 18, 1), *words)
    assert faults.faulter.frame.tolist()[:17] == before and faults.faulter.state == READY
    task = faults.faulter.task
    assert task is not None and 0x700 not in task.space.pages


def test_items_of_a_full_answer_are_mapped() -> None:
    """Into the faulting task."""
    faults = Faults()
    faults.world.give_memory(0x500000)
    faults.exception()
    state = faults.world.message(faults.handler, 19)
    faults.answer(faults.handler, tag(0, 19, 1), *state, 0x700000 | abi.ITEM_MAP, memory_page(0x500000))
    task = faults.faulter.task
    assert task is not None and 0x700 in task.space.pages


def test_exception_without_handler_waits_on_itself() -> None:
    """For ever."""
    faults = Faults(handler=False)
    faults.exception()
    assert faults.faulter.state == SENDING and faults.faulter.partner is faults.faulter


def test_exception_to_a_dead_handler_is_retried() -> None:
    """IPC errors of the exception call are ignored: the thread resumes, and faults again."""
    faults = Faults()
    faults.world.delete(HANDLER)
    faults.exception()
    assert faults.faulter.state == READY and faults.world.running() is faults.faulter


def test_triggered_exception() -> None:
    """ex_regs can raise trap 0xff; with cancel at once, without when the thread next runs."""
    faults = Faults()
    world = faults.world
    world.call(faults.faulter, abi.CAP_INVALID, abi.OP_WAIT)
    world.ex_regs(FAULTER, abi.EX_REGS_CANCEL | abi.EX_REGS_TRIGGER_EXCEPTION, 0x7000)
    world.call(world.root, abi.CAP_INVALID, abi.OP_WAIT)
    words = world.message(faults.handler, 19)
    assert (words[abi.EXC_TRAPNO], words[abi.EXC_ERR], words[abi.EXC_EIP]) == (0xFF, 0, 0x7000)


def test_ex_regs_on_a_thread_in_an_exception_call() -> None:
    """No effect without cancel, though the answer's label is 0."""
    faults = Faults()
    faults.exception()
    assert faults.world.ex_regs(FAULTER, 0, 0x7000, 0x7100).value == 0
    assert (faults.faulter.frame[f.EIP], faults.faulter.frame[f.ESP]) == (0x8000, 0x9000)
    faults.world.ex_regs(FAULTER, abi.EX_REGS_CANCEL, 0x7000, 0x7100)
    assert (faults.faulter.frame[f.EIP], faults.faulter.state) == (0x7000, READY)


# --- trampoline ---------------------------------------------------------------------------------

BLOCK = abi.BOOT_UTCB + 0xE00


def with_trampoline() -> tuple[Faults, int]:
    """A faulter that has a trampoline; the index into RAM's words of its block."""
    faults = Faults()
    world = faults.world
    word = (faults.faulter.utcb & ~1023) + (BLOCK & 0xFFF) // 4
    world.ram[word + abi.TRAMPOLINE_HANDLER // 4] = 0x4444
    setup = abi.THREAD_PF_TRAMP_CONTROL | abi.PF_TRAMP_SETUP
    assert world.object_call(FAULTER, abi.PROTO_THREAD, setup, BLOCK).tag == tag(0)
    return faults, word


def tramp(faults: Faults, flags: int) -> int:
    """A trampoline operation by the faulter on itself; EAX afterwards."""
    sent = tag(abi.PROTO_THREAD, 1)
    faults.world.call(faults.faulter, abi.CAP_INVALID, abi.OP_CALL, sent, abi.THREAD_PF_TRAMP_CONTROL | flags)
    return faults.faulter.frame[f.EAX]


def test_fault_with_trampoline_continues_at_the_handler() -> None:
    """EAX is the block's address, EDX the fault word; everything else unchanged; state and MR[0] are saved."""
    faults, word = with_trampoline()
    world, faulter = faults.world, faults.faulter
    world.ram[faulter.utcb] = 0xABCD
    before = faulter.frame.tolist()[:17]
    faults.fault(0x500123, write=True)
    assert world.running() is faulter
    frame = faulter.frame
    assert (frame[f.EIP], frame[f.EAX], frame[f.EDX]) == (0x4444, BLOCK, 0x500122)
    for index in range(17):
        if index not in (f.EIP, f.EAX, f.EDX):
            assert frame[index] == before[index]
    state = world.ram[word + 5 : word + 5 + 19].tolist()
    assert (state[abi.EXC_EIP], state[abi.EXC_EAX], state[abi.EXC_PFA]) == (0x8000, before[f.EAX], 0x500123)
    assert (state[abi.EXC_TRAPNO], state[abi.EXC_ERR]) == (14, 6)
    assert world.ram[word + abi.TRAMPOLINE_SAVED_MR0 // 4] == 0xABCD
    assert world.ram[word + abi.TRAMPOLINE_FLAGS // 4] == abi.TRAMPOLINE_IN_PROGRESS


def test_fault_in_the_handler_goes_to_the_pager() -> None:
    """Disarmed while in progress."""
    faults, _ = with_trampoline()
    faults.fault()
    faults.fault(0x600000)
    assert faults.world.answer(faults.pager).value == abi.PROTO_PAGE_FAULT


def test_resume() -> None:
    """MR[0] and all registers come back, EFLAGS made harmless; armed again."""
    faults, word = with_trampoline()
    world, faulter = faults.world, faults.faulter
    world.ram[faulter.utcb] = 0xABCD
    before = faulter.frame.tolist()[:17]
    faults.fault()
    world.ram[word + 5 + abi.EXC_EFLAGS] = 0xFFFFFFFF
    tramp(faults, abi.PF_TRAMP_RESUME)
    after = faulter.frame.tolist()[:17]
    assert after[: f.EFLAGS] == before[: f.EFLAGS] and after[f.CS :] == before[f.CS :]
    assert after[f.EFLAGS] & 0x7000 == 0 and after[f.EFLAGS] & 0x200
    assert world.ram[faulter.utcb] == 0xABCD
    assert world.ram[word + abi.TRAMPOLINE_FLAGS // 4] == 0
    faults.fault(0x700000)
    assert faulter.frame[f.EIP] == 0x4444


def test_resume_with_a_pending_exception() -> None:
    """Flag bit 1: trap 0xff, with the restored state."""
    faults, word = with_trampoline()
    faults.fault()
    faults.world.ram[word + abi.TRAMPOLINE_FLAGS // 4] |= abi.TRAMPOLINE_EXCEPTION_PENDING
    tramp(faults, abi.PF_TRAMP_RESUME)
    words = faults.world.message(faults.handler, 19)
    assert (words[abi.EXC_TRAPNO], words[abi.EXC_ERR], words[abi.EXC_PFA]) == (0xFF, 0, 0)
    assert words[abi.EXC_EIP] == 0x8000
    assert faults.world.ram[word + abi.TRAMPOLINE_FLAGS // 4] == 0


def test_reflect() -> None:
    """An exception with the saved state; trap 14, error code and address from the block."""
    faults, word = with_trampoline()
    faults.fault(0x500123, write=True)
    faults.world.ram[word + 5 + abi.EXC_PFA] = 0x777
    tramp(faults, abi.PF_TRAMP_REFLECT)
    words = faults.world.message(faults.handler, 19)
    assert (words[abi.EXC_TRAPNO], words[abi.EXC_ERR], words[abi.EXC_PFA]) == (14, 6, 0x777)


def test_trampoline_error_codes() -> None:
    """Section 11.3, in order."""
    faults, _ = with_trampoline()
    world = faults.world
    operation = abi.THREAD_PF_TRAMP_CONTROL

    def code(*words: int, items: tuple[int, ...] = ()) -> int:
        return world.object_call(FAULTER, abi.PROTO_THREAD, *words, items=items).value

    assert code(operation, BLOCK, items=item(1)) == -abi.EMSGTOOLONG
    assert code(operation, BLOCK, 0) == -abi.EMSGTOOLONG
    assert code(operation) == -abi.EMSGTOOSHORT
    for address in (BLOCK + 2, abi.BOOT_UTCB - 4, abi.BOOT_UTCB + 4096 - 0x5C, 0x400000, 0xFFFFFFFC):
        assert code(operation, address) == -abi.EINVAL
    for flags in (abi.PF_TRAMP_RESUME, abi.PF_TRAMP_REFLECT):
        assert code(operation | flags) == -abi.EPERM
        assert code(operation | flags, 0) == -abi.EMSGTOOLONG
        assert tramp(faults, flags) == tag(-abi.EINVAL)  # not in progress
    assert code(operation | 0x50000) == -abi.ENOSYS
    assert code(operation | abi.PF_TRAMP_DISABLE) == 0 and world.message(world.root, 1) == [1]
    assert code(operation | abi.PF_TRAMP_DISABLE) == 0 and world.message(world.root, 1) == [0]
    assert code(operation | abi.PF_TRAMP_ENABLE) == 0
    other = world.object_call(HANDLER, abi.PROTO_THREAD, operation | abi.PF_TRAMP_ENABLE)
    assert other.value == -abi.EINVAL


# --- alien threads ------------------------------------------------------------------------------


def alien_call(faults: Faults) -> None:
    """The alien asks the scheduler for its cores."""
    world, alien = faults.world, faults.faulter
    world.switch_to(alien)
    world.ram[alien.utcb], world.ram[alien.utcb + 1] = abi.SCHEDULER_INFO, 0
    frame = alien.frame
    frame[f.EAX] = tag(abi.PROTO_SCHEDULER, 2)
    frame[f.EDX] = cap(abi.BOOT_CAP_SCHEDULER) | abi.OP_CALL
    frame[f.ECX] = 0
    world.trap(SYSTEM_CALL)


def test_alien_system_call_is_shown_before() -> None:
    """Trap 13, error code 0x30 << 3 | 2, EIP on the instruction; nothing has happened yet."""
    faults = Faults(alien=True)
    alien_call(faults)
    words = faults.world.message(faults.handler, 19)
    assert (words[abi.EXC_TRAPNO], words[abi.EXC_ERR]) == (13, 0x30 << 3 | 2)
    assert words[abi.EXC_EIP] == 0x7FFE
    assert faults.world.message(faults.faulter, 1) == [abi.SCHEDULER_INFO]


def test_alien_call_that_is_let_through() -> None:
    """Label 1: the call is done, and shown again with | 6; then the thread goes on."""
    faults = Faults(alien=True)
    world, alien = faults.world, faults.faulter
    alien_call(faults)
    faults.answer(faults.handler, tag(abi.PROTO_ALLOW_SYSCALL))
    assert world.running() is alien and alien.frame[f.EIP] == 0x7FFE
    alien.frame[f.EIP] = 0x8000  # it executes the instruction again
    world.trap(SYSTEM_CALL)
    words = world.message(faults.handler, 19)
    assert (words[abi.EXC_TRAPNO], words[abi.EXC_ERR], words[abi.EXC_EIP]) == (13, 0x30 << 3 | 6, 0x8000)
    assert words[abi.EXC_EAX] == tag(0, 3)
    faults.answer(faults.handler, tag(0))
    assert world.running() is alien and alien.frame[f.EIP] == 0x8000


def test_alien_call_that_is_not_let_through() -> None:
    """Another label: the thread resumes at the instruction, and is shown again."""
    faults = Faults(alien=True)
    alien_call(faults)
    faults.answer(faults.handler, tag(0))
    assert faults.world.running() is faults.faulter
    alien_call(faults)
    assert faults.world.message(faults.handler, 19)[abi.EXC_ERR] == 0x30 << 3 | 2


def test_alien_call_replaced_by_the_handler() -> None:
    """A full state that stands behind the instruction: the handler has done it itself."""
    faults = Faults(alien=True)
    alien_call(faults)
    state = faults.world.message(faults.handler, 19)
    state[abi.EXC_EIP] += 2
    state[abi.EXC_EAX] = 0x42
    faults.answer(faults.handler, tag(0, 19), *state)
    frame = faults.faulter.frame
    assert (frame[f.EIP], frame[f.EAX]) == (0x8000, 0x42)


# --- I/O ports ----------------------------------------------------------------------------------


def test_port_without_permission() -> None:
    """Trap 13, error code 0."""
    faults = Faults()
    faults.exception(13, 0)
    words = faults.world.message(faults.handler, 19)
    assert (words[abi.EXC_TRAPNO], words[abi.EXC_ERR]) == (13, 0)
