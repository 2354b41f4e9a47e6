"""What a guest gets from the kernel and from others, and nothing else: memory, x87/SSE state, error codes.

ABI sheet sections 6 (FPU bit, error codes), 7 (kernel-user memory) and 9 (exception state).
"""

from __future__ import annotations

from typing import Final

import pytest

from l4lab.kernel.costs import KernelCosts
from l4lab.kernel.fiasco import abi
from l4lab.kernel.invariants import check_all
from l4lab.kernel.objects import Task
from l4lab.kernel.paging import ACCESSED, DIRTY
from l4lab.kernel.state import CopyFpu
from l4lab.kernel.thread import LATE, READY, SENDING, Thread
from l4lab.kernel.traps import DEADLINE_REACHED, CpuException, PageFault
from l4lab.kernel.units import PAGE_BYTES
from support.kernel_world import World, cap, item, memory_page, object_page, tag

TASK, OTHER_TASK, THREAD, GATE, IRQ = 30, 31, 20, 22, 23
PAGE_WORDS = PAGE_BYTES // 4


def words_of(world: World, task: Task) -> list[int]:
    """All of a task's kernel-user memory."""
    return [
        word
        for area in task.space.ku_areas
        for word in world.ram[area.first_pfn * PAGE_WORDS : (area.first_pfn + area.pages) * PAGE_WORDS]
    ]


# --- fresh memory -------------------------------------------------------------------------------


def test_kernel_user_memory_is_zero_whoever_had_it_before() -> None:
    """What the last task left in its UTCBs is nobody's business."""
    world = World()
    first = world.new_task(TASK)
    area = first.space.ku_areas[0]
    for index in range(area.pages * PAGE_WORDS):
        world.ram[area.first_pfn * PAGE_WORDS + index] = 0xA5A5A5A5
    world.delete(TASK)
    taken = set()
    for slot in range(40, 44):  # one of them gets the same frame again
        task = world.new_task(slot)
        taken.add(task.space.ku_areas[0].first_pfn)
        assert not any(words_of(world, task))
    assert area.first_pfn in taken


def test_kernel_user_memory_added_later_is_zero_too() -> None:
    world = World()
    first = world.new_task(TASK)
    assert world.object_call(TASK, abi.PROTO_TASK, abi.TASK_ADD_KU_MEM, memory_page(0x700000, 13)).value == 0
    for area in first.space.ku_areas:
        for index in range(area.pages * PAGE_WORDS):
            world.ram[area.first_pfn * PAGE_WORDS + index] = 0xA5A5A5A5
    world.delete(TASK)
    second = world.new_task(OTHER_TASK)
    answer = world.object_call(OTHER_TASK, abi.PROTO_TASK, abi.TASK_ADD_KU_MEM, memory_page(0x700000, 13))
    assert answer.value == 0 and len(second.space.ku_areas) == 2
    assert not any(words_of(world, second))


def test_page_tables_are_empty_whatever_their_frames_held() -> None:
    """Else a page of somebody else's would be mapped that no tree knows."""
    world = World()
    kernel = world.kernel
    frames = [kernel.frames.take() for _ in range(8)]
    for pfn in frames:
        assert pfn is not None
        world.ram[pfn * PAGE_WORDS : (pfn + 1) * PAGE_WORDS] = memoryview(b"\xe7" * PAGE_BYTES).cast("I")
    for pfn in frames:
        assert pfn is not None
        kernel.frames.give_back(pfn)
    task = world.new_task(TASK)
    world.give_memory(0x400000)
    world.object_call(TASK, abi.PROTO_TASK, abi.TASK_MAP, 0x400000, memory_page(0x400000), items=own_task())
    assert [vpn for vpn in range(1 << 20) if task.space.tables.translate(vpn << 12) is not None] == sorted(
        [0x400, *(area.vpn + page for area in task.space.ku_areas for page in range(area.pages)),
         abi.SYSTEM_CALL_PAGE >> 12]
    )  # fmt: skip


def own_task() -> tuple[int, int]:
    return abi.ITEM_MAP, object_page(abi.BOOT_CAP_TASK)


# --- x87/SSE state ------------------------------------------------------------------------------


@pytest.mark.parametrize("accepts", [False, True])
@pytest.mark.parametrize("rights", [abi.OBJECT_RIGHTS, abi.OBJECT_RIGHTS & ~abi.OBJECT_RIGHT_S])
@pytest.mark.parametrize("flag", [0, abi.TAG_FPU])
def test_fpu_state_comes_if_sent_with_the_right_and_accepted(accepts: bool, rights: int, flag: int) -> None:
    world = World()
    receiver = world.new_thread(THREAD)
    world.new_gate(GATE, THREAD, 0x100)
    world.give(abi.BOOT_CAP_TASK, 50, GATE, rights)
    world.receive_buffers(receiver, bdr=abi.BDR_ACCEPT_FPU if accepts else 0)
    world.call(receiver, abi.CAP_INVALID, abi.OP_WAIT)
    world.effects.clear()
    world.call(world.root, cap(50), abi.OP_SEND, tag(flags=flag))
    assert world.answer(receiver).tag & ~flag == 0
    copies = [effect for effect in world.effects if isinstance(effect, CopyFpu)]
    wanted = bool(accepts and flag and rights & abi.OBJECT_RIGHT_S)
    assert [(copy.source, copy.target) for copy in copies] == wanted * [(world.root.frame, receiver.frame)]


@pytest.mark.parametrize("flag", [0, abi.TAG_FPU])
@pytest.mark.parametrize("rights", [abi.OBJECT_RIGHTS, abi.OBJECT_RIGHTS & ~abi.OBJECT_RIGHT_S])
def test_fpu_state_of_an_exceptions_answer(flag: int, rights: int) -> None:
    """The handler answers by the reply slot, whose rights are those that the fault's capability had."""
    world = World()
    faulter, handler = world.new_thread(THREAD), world.new_thread(THREAD + 1)
    world.new_gate(GATE, THREAD + 1, 0x200)
    world.give(abi.BOOT_CAP_TASK, 50, GATE, rights)
    world.call(handler, abi.CAP_INVALID, abi.OP_WAIT)
    world.control(THREAD, handler=50)
    world.switch_to(faulter)
    world.trap(CpuException(13, 0))
    world.effects.clear()
    words = world.message(handler, abi.EXCEPTION_WORDS)
    sent = tag(0, abi.EXCEPTION_WORDS, 0, flag)
    world.call(handler, abi.CAP_INVALID, abi.OP_REPLY | abi.OP_SEND, sent, *words)
    copies = [effect for effect in world.effects if isinstance(effect, CopyFpu)]
    wanted = bool(flag and rights & abi.OBJECT_RIGHT_S)
    assert [(copy.source, copy.target) for copy in copies] == wanted * [(handler.frame, faulter.frame)]


# --- half a map ---------------------------------------------------------------------------------


def receiving(world: World, pages_worth: int) -> Thread:
    """A thread of another task whose budget is good for so many mappings more."""
    world.create(21, abi.PROTO_FACTORY, 20 * PAGE_BYTES)
    world.new_task(TASK, factory=21)
    thread = world.new_thread(THREAD, TASK, utcb=abi.BOOT_UTCB)
    for page in range(4):
        world.give_memory(0x400000 + page * PAGE_BYTES)
    task = thread.task
    assert task is not None
    world.object_call(TASK, abi.PROTO_TASK, abi.TASK_MAP, 0x410000, memory_page(0x400000), items=own_task())
    from l4lab.kernel.quota import MAPPING_BYTES

    task.quota.limit_bytes = task.quota.used_bytes + pages_worth * MAPPING_BYTES
    world.receive_buffers(thread, abi.BUFFER_ITEM, abi.FPAGE_ALL)
    world.call(thread, abi.CAP_INVALID, abi.OP_WAIT)
    return thread


@pytest.mark.parametrize("pages_worth", [0, 1, 3, 4])
def test_the_code_of_a_map_that_got_half_way(pages_worth: int) -> None:
    """One page of four or three: both sides get the error, and what was mapped stays (section 6)."""
    world = World()
    thread = receiving(world, pages_worth)
    message = (0x400000 | abi.ITEM_MAP, memory_page(0x400000, 14))
    world.call(world.root, cap(THREAD), abi.OP_SEND, tag(0, 0, 1), *message)
    assert thread.task is not None
    mapped = [page for page in range(0x400, 0x404) if page in thread.task.space.pages]
    assert mapped == list(range(0x400, 0x400 + pages_worth))
    errors = (world.answer(world.root).error, world.answer(thread).error)
    if pages_worth == 4:
        assert errors == (0, 0) and not world.answer(thread).failed
    else:
        assert errors == (abi.IPC_SEND_MAP_FAILED, abi.IPC_RECEIVE_MAP_FAILED)
        assert world.answer(world.root).failed and world.answer(thread).failed


@pytest.mark.parametrize("pages_worth", [0, 2, 4])
def test_task_map_tells_of_half_a_map_likewise(pages_worth: int) -> None:
    world = World()
    receiving(world, pages_worth)
    words = (abi.TASK_MAP, 0x400000, memory_page(0x400000, 14))
    got = world.object_call(TASK, abi.PROTO_TASK, *words, items=own_task())
    assert (got.failed, got.error) == ((False, 0) if pages_worth == 4 else (True, abi.IPC_SEND_MAP_FAILED))


# --- sigma0's own memory ------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [-1, 0, 1, 1023])
def test_sigma0_has_no_page_at_or_above_its_limit(offset: int) -> None:
    """The kernel's share begins there; a fault on it is nobody's to resolve (DECISIONS 13)."""
    world = World()
    memory = world.kernel.memory
    vpn = memory.user_frames + offset
    world.trap(
        PageFault(0x400000, write=True, fetch=False, present=False)
    )  # root's, which sigma0 is to serve
    assert world.running() is world.sigma0
    world.trap(PageFault(vpn << 12, write=True, fetch=False, present=False))
    assert memory.sigma0 is not None
    found = memory.sigma0.tables.translate(vpn << 12)
    assert (found is not None) == (offset < 0)
    assert world.sigma0.exceptions == (offset >= 0)


# --- accessed and dirty -------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [0, ACCESSED, ACCESSED | DIRTY])
@pytest.mark.parametrize("also_self", [False, True])
def test_unmap_tells_what_was_touched(bits: int, also_self: bool) -> None:
    """Section 7: the flags of the page, which keeps its marks while it stays, or of what was derived from it."""
    world = World()
    task = world.new_task(TASK)
    world.give_memory(0x400000)
    world.object_call(TASK, abi.PROTO_TASK, abi.TASK_MAP, 0x400000, memory_page(0x400000), items=own_task())
    assert world.root.task is not None
    for space in (world.root.task.space, task.space):
        space.tables.take_access_bits(0x400, False)
    task.space.tables.add_access_bits(0x400, False, bits)
    page = memory_page(0x400000, 12, 0)
    flags = []
    for itself in (also_self, also_self, True):
        mask = abi.UNMAP_SELF if itself else 0
        world.object_call(abi.BOOT_CAP_TASK, abi.PROTO_TASK, abi.TASK_UNMAP, mask, page)
        flags.append(world.message(world.root, 3)[2] & abi.FPAGE_RIGHTS_MASK)
    read = abi.ACCESS_REFERENCED if bits & ACCESSED else 0
    wanted = read | (abi.ACCESS_DIRTY if bits & DIRTY else 0)
    # Without `self` they have moved to the page itself.
    assert flags == [wanted, wanted if also_self else 0, wanted]


def test_unmap_of_several_pages_tells_of_each() -> None:
    """The flags of a flexpage are those of all its pages together."""
    for touched in (0, 1, 3):
        world = World()
        for page in range(4):
            world.give_memory(0x400000 + page * PAGE_BYTES)
        assert world.root.task is not None
        tables = world.root.task.space.tables
        for page in range(4):
            tables.take_access_bits(0x400 + page, False)
        tables.add_access_bits(0x400 + touched, False, ACCESSED | DIRTY)
        world.unmap(abi.BOOT_CAP_TASK, memory_page(0x400000, 14))
        flags = world.message(world.root, 3)[2] & abi.FPAGE_RIGHTS_MASK
        assert flags == abi.ACCESS_REFERENCED | abi.ACCESS_DIRTY


# --- time ---------------------------------------------------------------------------------------

NO_WAITING: Final = abi.TIMEOUT_ZERO  # for the receive phase; a send phase may wait


def taken_late(world: World) -> Thread:
    """A thread that sends to root and will not wait for an answer; root has taken its message, it has not run yet."""
    sender = world.new_thread(THREAD)
    world.run_thread(abi.BOOT_CAP_THREAD, 5)  # above the sender
    world.call(sender, cap(abi.BOOT_CAP_THREAD), abi.OP_CALL, tag(0x77), timeouts=NO_WAITING)
    got = world.call(world.root, abi.CAP_INVALID, abi.OP_WAIT)
    assert got is not None and got.value == 0x77
    return sender


def test_a_sender_that_will_not_wait_gets_its_timeout() -> None:
    """Its receive phase was over when its message was taken: section 6, "Timeouts"."""
    world = World()
    sender = taken_late(world)
    assert sender.state == LATE
    world.call(world.root, abi.CAP_INVALID, abi.OP_RECV)  # sleeps: the sender runs
    assert world.running() is sender
    answer = world.answer(sender)
    assert (answer.failed, answer.error) == (True, abi.IPC_RECEIVE_TIMEOUT)


def test_a_sender_that_will_not_wait_can_be_cancelled_before_it_runs() -> None:
    """It learns that instead of its timeout, and is ready once, not twice."""
    world = World()
    sender = taken_late(world)
    world.cancel(THREAD)
    check_all(world.kernel)
    world.call(world.root, abi.CAP_INVALID, abi.OP_RECV)  # sleeps: the sender runs
    assert world.running() is sender
    answer = world.answer(sender)
    assert (answer.failed, answer.error) == (True, abi.IPC_RECEIVE_CANCELLED)
    world.call(sender, abi.CAP_INVALID, abi.OP_RECV)
    assert world.running() is None
    check_all(world.kernel)


def test_a_sender_that_will_not_wait_takes_an_interrupt_that_comes_before_it_runs() -> None:
    """Its open wait ends with that, not with the timeout."""
    world = World()
    sender = world.new_thread(THREAD)
    world.create(IRQ, abi.PROTO_IRQ_SENDER)
    world.object_call(IRQ, abi.PROTO_KOBJECT, abi.ENDPOINT_BIND, 0x70, items=item(THREAD))
    world.run_thread(abi.BOOT_CAP_THREAD, 5)  # above the sender
    world.call(sender, cap(abi.BOOT_CAP_THREAD), abi.OP_SEND_AND_WAIT, tag(0x77), timeouts=NO_WAITING)
    world.call(world.root, abi.CAP_INVALID, abi.OP_WAIT)
    assert sender.state == LATE
    world.call(world.root, cap(IRQ), abi.OP_SEND, tag(abi.PROTO_IRQ, 1), abi.IRQ_TRIGGER)
    check_all(world.kernel)
    world.call(world.root, abi.CAP_INVALID, abi.OP_RECV)  # sleeps: the sender runs
    assert world.running() is sender
    answer = world.answer(sender)
    assert (answer.failed, answer.label) == (False, 0x70)


def test_an_operation_without_any_phase_ends_when_its_gate_is_bound() -> None:
    """It has waited for that, and then has nothing to do: error 4, and it runs as what outranks who bound it."""
    world = World()
    world.new_gate(GATE)
    sender = world.new_thread(THREAD)
    assert world.call(sender, cap(GATE), 0, tag(1)) is None
    assert sender.state != READY
    world.bind_gate(GATE, abi.BOOT_CAP_THREAD, 0x40)
    assert world.running() is sender
    answer = world.answer(sender)
    assert (answer.failed, answer.error) == (True, abi.IPC_NOT_EXISTENT)
    check_all(world.kernel)


@pytest.mark.parametrize("other", [False, True])
def test_a_sender_that_will_not_wait_takes_what_comes_before_it_runs(other: bool) -> None:
    """From the one it called; anybody else's message waits."""
    world = World()
    sender = taken_late(world)
    if other:
        third = world.new_thread(THREAD + 1)
        world.call(third, cap(THREAD), abi.OP_SEND, tag(0x99), timeouts=NO_WAITING << 16)
        assert world.answer(third).error == abi.IPC_SEND_TIMEOUT
    else:
        world.call(world.root, cap(THREAD), abi.OP_SEND, tag(0x99))
        world.call(world.root, abi.CAP_INVALID, abi.OP_RECV)
        assert world.running() is sender
        assert (world.answer(sender).value, world.answer(sender).failed) == (0x99, False)


def test_a_sender_in_a_queue_gets_its_timeout() -> None:
    world = World()
    sender = world.new_thread(THREAD)
    wait_us = 4 << abi.TIMEOUT_EXPONENT_SHIFT | 250  # 250 << 4
    world.call(sender, cap(abi.BOOT_CAP_THREAD), abi.OP_SEND, tag(0x77), timeouts=wait_us << 16)
    assert sender.state == SENDING
    world.run_for(6_000)
    world.call(world.root, abi.CAP_INVALID, abi.OP_RECV)
    assert world.running() is sender
    assert (world.answer(sender).failed, world.answer(sender).error) == (True, abi.IPC_SEND_TIMEOUT)


def test_a_timeout_ends_with_its_tick() -> None:
    """Not one later: at a whole number of ticks from a moment on a tick (section 4)."""
    world = World()
    sleeper = world.new_thread(THREAD)
    world.now_cycles = abi.TICK_US * 1000 * 5 - 1
    world.trap(DEADLINE_REACHED)
    deadline_us = 8 * abi.TICK_US
    world.kernel.cores[0].wake_ups.arm(sleeper, deadline_us)
    assert world.kernel.cores[0].wake_ups.pop_expired(deadline_us - 1) is None
    assert world.kernel.cores[0].wake_ups.pop_expired(deadline_us) is sleeper


# --- what was charged ---------------------------------------------------------------------------


def test_a_message_is_charged_for_its_words() -> None:
    """As many as were moved, by both ways of sending."""
    world = World()
    world.kernel.costs = KernelCosts(copy_word=5)
    from l4lab.kernel.costs import COPY

    receiver = world.new_thread(THREAD)
    for count in (0, 1, 7, 63):
        world.call(receiver, abi.CAP_INVALID, abi.OP_WAIT)
        world.call(world.root, cap(THREAD), abi.OP_SEND, tag(0, count), *range(count))
        assert world.decisions[0].bill[COPY] == 5 * count
