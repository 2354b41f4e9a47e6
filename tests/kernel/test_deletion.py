"""What partners see of an object's end: the table of ABI sheet section 7, each row a test; and who pays."""

from __future__ import annotations

import pytest

from l4lab.kernel.fiasco import abi
from l4lab.kernel.objects import Irq, Semaphore, Task
from l4lab.kernel.thread import DEAD, READY, RECEIVING, SENDING, Thread
from l4lab.kernel.traps import PageFault
from support.kernel_world import NOW, World, cap, item, memory_page, object_page, tag

VICTIM, OTHER, GATE, IRQ, SEMAPHORE, TASK = 20, 21, 22, 23, 24, 30
SHORT = 0x0C01 << 16 | 0x0C01


def with_victim() -> tuple[World, Thread, Thread]:
    """A victim and another thread, both in the root task, both in open wait."""
    world = World()
    victim, other = world.new_thread(VICTIM), world.new_thread(OTHER)
    for thread in (victim, other):
        world.call(thread, abi.CAP_INVALID, abi.OP_WAIT)
    return world, victim, other


def make_busy(world: World, thread: Thread) -> None:
    """It has got a message and does not wait any more."""
    world.call(world.root, slot_of(world, thread), abi.OP_SEND, tag(1))
    assert thread.state == READY


def slot_of(world: World, thread: Thread) -> int:
    assert world.root.task is not None
    slots = world.root.task.capability_table.slots
    return cap(next(index for index, found in slots.items() if found.object is thread))


# --- threads ------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [abi.OP_SEND, abi.OP_CALL])
def test_sender_queued_on_a_thread(operation: int) -> None:
    """EAX is the error bit, error 6."""
    world, victim, other = with_victim()
    make_busy(world, victim)
    make_busy(world, other)
    assert world.call(other, cap(VICTIM), operation, tag(5)) is None
    world.delete(VICTIM)
    got = world.answer(other)
    assert (other.state, got.tag, got.error) == (READY, abi.TAG_ERROR, abi.IPC_SEND_CANCELLED)


def test_caller_whose_message_was_received() -> None:
    """It stays blocked until its timeout: error 3, the sent tag with the error bit."""
    world, _, other = with_victim()
    make_busy(world, other)
    world.call(other, cap(VICTIM), abi.OP_CALL, tag(5), timeouts=0x0C01)
    world.delete(VICTIM)
    assert other.state == RECEIVING
    world.run_for(3000)
    got = world.answer(other)
    assert (got.tag, got.error) == (tag(5) | abi.TAG_ERROR, abi.IPC_RECEIVE_TIMEOUT)


def test_closed_receiver_on_a_thread() -> None:
    """The same."""
    world, _, other = with_victim()
    make_busy(world, other)
    world.call(other, cap(VICTIM), abi.OP_RECV, tag(5), timeouts=0x0C01)
    world.delete(VICTIM)
    assert other.state == RECEIVING
    world.run_for(3000)
    assert world.answer(other).error == abi.IPC_RECEIVE_TIMEOUT


def test_gate_stays_bound_to_the_dead_thread() -> None:
    """Every IPC through it fails with error 4, until it is bound again."""
    world, _, other = with_victim()
    world.new_gate(GATE, VICTIM, 0x100)
    world.delete(VICTIM)
    for operation in (abi.OP_SEND, abi.OP_CALL):
        got = world.call(world.root, cap(GATE), operation, tag(5))
        assert got is not None and (got.tag, got.error) == (abi.TAG_ERROR, abi.IPC_NOT_EXISTENT)
    assert world.bind_gate(GATE, OTHER, 0x200).value == 0
    world.call(world.root, cap(GATE), abi.OP_SEND, tag(5))
    assert world.answer(other).label == 0x203


def test_irq_keeps_what_came_for_the_dead() -> None:
    """A delivery that was queued, or triggered afterwards, comes when the IRQ is bound again: one."""
    for triggered_before in (True, False):
        world, victim, other = with_victim()
        make_busy(world, victim)
        world.create(IRQ, abi.PROTO_IRQ_SENDER)
        bind(world, VICTIM)
        if triggered_before:
            trigger(world)
        world.delete(VICTIM)
        trigger(world)
        trigger(world)
        bind(world, OTHER)
        assert (world.answer(other).tag, world.answer(other).label) == (0, 0x77)
        world.call(other, abi.CAP_INVALID, abi.OP_WAIT)
        assert other.state == RECEIVING


def bind(world: World, slot: int) -> None:
    bound = world.object_call(IRQ, abi.PROTO_KOBJECT, abi.ENDPOINT_BIND, 0x77, items=item(slot))
    assert bound.tag == 0


def trigger(world: World) -> None:
    world.call(world.root, cap(IRQ), abi.OP_SEND, tag(abi.PROTO_IRQ, 1), abi.IRQ_TRIGGER)


def test_reply_to_a_dead_caller() -> None:
    """The slot is empty: error 4."""
    world, victim, other = with_victim()
    make_busy(world, victim)
    world.call(victim, cap(OTHER), abi.OP_CALL, tag(5))
    world.delete(VICTIM)
    got = world.call(other, abi.CAP_INVALID, abi.OP_REPLY | abi.OP_SEND, tag(1))
    assert got is not None and got.error == abi.IPC_NOT_EXISTENT


def test_free_marker() -> None:
    """Set to zero when the thread is gone."""
    world, victim, _ = with_victim()
    marker = victim.utcb + abi.UTCB_FREE_MARKER // 4
    world.ram[marker] = 1
    world.delete(VICTIM)
    assert world.ram[marker] == 0


def test_killed_thread_answers_ex_regs_and_does_nothing() -> None:
    """Killed by a fault without pager, but its capability is still there."""
    world, victim, _ = with_victim()
    make_busy(world, victim)
    world.switch_to(victim)
    world.trap(PageFault(0x1000, write=False, fetch=False, present=False))
    assert victim.state == DEAD
    assert world.ex_regs(VICTIM, abi.EX_REGS_CANCEL, 0x5000, 0x6000).value == 0
    assert victim.state == DEAD
    got = world.call(world.root, cap(VICTIM), abi.OP_SEND, tag(1))
    assert got is not None and got.error == abi.IPC_NOT_EXISTENT


def test_thread_that_deletes_itself() -> None:
    """It never returns."""
    world, victim, _ = with_victim()
    make_busy(world, victim)
    page = object_page(VICTIM)
    words = (abi.TASK_UNMAP, abi.UNMAP_SELF | abi.UNMAP_DELETE, page)
    assert world.call(victim, cap(abi.BOOT_CAP_TASK), abi.OP_CALL, tag(abi.PROTO_TASK, 3), *words) is None
    assert victim.state == DEAD and world.running() is not victim


# --- gates --------------------------------------------------------------------------------------


def test_blocked_on_a_gate_without_thread() -> None:
    """Error 4."""
    world, _, other = with_victim()
    make_busy(world, other)
    world.new_gate(GATE)
    assert world.call(other, cap(GATE), abi.OP_CALL, tag(5)) is None
    assert other.state == SENDING
    world.delete(GATE)
    got = world.answer(other)
    assert (other.state, got.tag, got.error) == (READY, abi.TAG_ERROR, abi.IPC_NOT_EXISTENT)


def test_message_through_a_deleted_gate_that_was_queued() -> None:
    """It is delivered, with the label, and can be answered."""
    world, victim, other = with_victim()
    make_busy(world, victim)
    make_busy(world, other)
    world.new_gate(GATE, VICTIM, 0x100)
    world.call(other, cap(GATE), abi.OP_CALL, tag(5))
    world.delete(GATE)
    world.call(victim, abi.CAP_INVALID, abi.OP_WAIT)
    assert (world.answer(victim).tag, world.answer(victim).label) == (tag(5), 0x103)
    world.call(victim, abi.CAP_INVALID, abi.OP_REPLY | abi.OP_SEND, tag(6))
    assert world.answer(other).tag == tag(6)


def test_deletion_irq() -> None:
    """Triggered once for each gate that was bound to the thread when it ended; not for unbound ones."""
    for kind in (abi.PROTO_IRQ_SENDER, abi.PROTO_SEMAPHORE):
        world, _, _ = with_victim()
        world.create(IRQ, kind)
        registered = world.object_call(
            VICTIM, abi.PROTO_THREAD, abi.THREAD_REGISTER_DELETE_IRQ, items=item(IRQ)
        )
        assert registered.tag == 0
        world.new_gate(GATE, VICTIM, 0x100)
        world.new_gate(GATE + 10, VICTIM, 0x200)
        world.new_gate(GATE + 11)
        notifier = world.object(IRQ)
        world.delete(GATE + 11)
        assert signals(notifier) == 0
        world.delete(GATE)
        world.delete(GATE + 10)
        assert signals(notifier) == (2 if kind == abi.PROTO_SEMAPHORE else 1)


def signals(notifier: object) -> int:
    if isinstance(notifier, Semaphore):
        return notifier.count
    assert isinstance(notifier, Irq)
    return int(notifier.pending or notifier.queued)


def test_gate_that_could_not_be_stored_does_not_signal() -> None:
    """Its creation failed: for the thread it never existed."""
    world = World()
    world.create(25, abi.PROTO_FACTORY, 0x20000)
    world.new_task(TASK, factory=25)
    thread = world.new_thread(VICTIM, TASK, utcb=abi.BOOT_UTCB)
    world.create(SEMAPHORE, abi.PROTO_SEMAPHORE)
    world.object_call(VICTIM, abi.PROTO_THREAD, abi.THREAD_REGISTER_DELETE_IRQ, items=item(SEMAPHORE))
    world.give(TASK, abi.BOOT_CAP_FACTORY, 25)
    world.give(TASK, VICTIM, VICTIM)
    world.receive_buffers(thread, 0x50000 << 12 | abi.BUFFER_ITEM | abi.BUFFER_SMALL)
    words = (0, 0, 0x100, *item(VICTIM, 7))
    got = world.call(thread, cap(abi.BOOT_CAP_FACTORY), abi.OP_CALL, tag(abi.PROTO_FACTORY, 3, 1), *words)
    assert got is not None and got.value != 0
    assert signals(world.object(SEMAPHORE)) == 0


# --- IRQ objects, semaphores --------------------------------------------------------------------


def test_closed_receiver_on_an_irq() -> None:
    """It stays blocked until its timeout."""
    world, _, other = with_victim()
    make_busy(world, other)
    world.create(IRQ, abi.PROTO_IRQ_SENDER)
    bind(world, OTHER)
    world.call(other, cap(IRQ), abi.OP_RECV, tag(5), timeouts=0x0C01)
    world.delete(IRQ)
    assert other.state == RECEIVING
    world.run_for(3000)
    assert world.answer(other).error == abi.IPC_RECEIVE_TIMEOUT


def test_pending_delivery_of_a_deleted_irq() -> None:
    """It is dropped."""
    world, _, other = with_victim()
    make_busy(world, other)
    world.create(IRQ, abi.PROTO_IRQ_SENDER)
    bind(world, OTHER)
    trigger(world)
    world.delete(IRQ)
    got = world.call(other, abi.CAP_INVALID, abi.OP_WAIT, timeouts=NOW)
    assert got is not None and got.error == abi.IPC_RECEIVE_TIMEOUT


def test_threads_in_down() -> None:
    """Error 4, EAX exactly the error bit, even if something else was in it."""
    world, _, other = with_victim()
    make_busy(world, other)
    world.create(SEMAPHORE, abi.PROTO_SEMAPHORE)
    sent = tag(abi.PROTO_SEMAPHORE, 1)
    assert world.call(other, cap(SEMAPHORE), abi.OP_CALL, sent, abi.SEMAPHORE_DOWN) is None
    world.delete(SEMAPHORE)
    got = world.answer(other)
    assert (got.tag, got.error) == (abi.TAG_ERROR, abi.IPC_NOT_EXISTENT)


# --- tasks --------------------------------------------------------------------------------------


def task_with_thread() -> tuple[World, Task, Thread]:
    """A task whose thread waits, and has memory that it passed on to the root task."""
    world = World()
    task = world.new_task(TASK)
    thread = world.new_thread(VICTIM, TASK, utcb=abi.BOOT_UTCB)
    world.call(thread, abi.CAP_INVALID, abi.OP_WAIT)
    return world, task, thread


def test_what_was_mapped_on_from_a_task() -> None:
    """Its memory, and everything derived from it elsewhere, is unmapped."""
    world, _, _ = task_with_thread()
    world.give_memory(0x400000)
    own, theirs = item(abi.BOOT_CAP_TASK), item(TASK)
    map_page = (abi.TASK_MAP, 0x500000, memory_page(0x400000))
    world.object_call(TASK, abi.PROTO_TASK, *map_page, items=own)
    back = (abi.TASK_MAP, 0x600000, memory_page(0x500000))
    world.object_call(abi.BOOT_CAP_TASK, abi.PROTO_TASK, *back, items=theirs)
    assert world.root.task is not None and 0x600 in world.root.task.space.pages
    world.delete(TASK)
    assert 0x600 not in world.root.task.space.pages
    assert 0x400 in world.root.task.space.pages


def test_its_capabilities() -> None:
    """Gone; an object that only it counted dies."""
    world, task, _ = task_with_thread()
    world.new_gate(GATE)
    gate = world.object(GATE)
    world.give(TASK, 5, GATE)
    world.unmap(abi.BOOT_CAP_TASK, object_page(GATE, 4))
    assert task.capability_table.slots[5].object is gate
    world.delete(TASK)
    assert gate.alive is False  # type: ignore[attr-defined]


def test_its_threads_die_with_their_last_capability() -> None:
    """Which the task itself held."""
    world, _, thread = task_with_thread()
    world.give(TASK, 5, VICTIM)
    world.unmap(abi.BOOT_CAP_TASK, object_page(VICTIM, 4))
    assert thread.state == RECEIVING
    world.delete(TASK)
    assert thread.state == DEAD


def test_thread_that_outlives_its_task() -> None:
    """A blocked one stays blocked, can be sent to, and is killed when it runs: its pager slot is empty."""
    world, _, thread = task_with_thread()
    world.delete(TASK)
    assert thread.state == RECEIVING
    world.call(world.root, cap(VICTIM), abi.OP_SEND, tag(3, 1), 0x55)
    assert world.answer(thread).tag == tag(3, 1) and world.message(thread, 1) == [0x55]
    world.switch_to(thread)
    world.trap(PageFault(0x1000, write=False, fetch=True, present=False))
    assert thread.state == DEAD


def test_nothing_is_mapped_into_an_ended_task() -> None:
    """A thread of it receives memory and a capability: neither arrives, nothing is charged or lost."""
    world, _, thread = task_with_thread()
    world.give_memory(0x400000)
    world.receive_buffers(
        thread, abi.BUFFER_ITEM, abi.FPAGE_ALL, 0, 5 << 12 | abi.BUFFER_ITEM | abi.BUFFER_SMALL, bdr=3 << 10
    )
    world.delete(TASK)
    items = (0x400000 | abi.ITEM_MAP, memory_page(0x400000), *item(abi.BOOT_CAP_LOG))
    world.call(world.root, cap(VICTIM), abi.OP_SEND, tag(3, 0, 2), *items)
    assert thread.task is not None
    assert not thread.task.space.pages and not thread.task.capability_table.slots


def test_messages_of_threads_that_outlive_their_tasks_do_not_mix() -> None:
    """Each keeps its own UTCB: what one got cannot be sent by another."""
    world, _, _ = task_with_thread()
    world.new_task(TASK + 1)
    other = world.new_thread(OTHER, TASK + 1, utcb=abi.BOOT_UTCB)
    world.call(other, abi.CAP_INVALID, abi.OP_WAIT)
    world.delete(TASK)
    world.delete(TASK + 1)
    world.call(world.root, cap(VICTIM), abi.OP_SEND, tag(1, 2), 0x1111, 0x2222)
    assert world.message(other, 2) == [0, 0]


def test_ended_thread_takes_kernel_user_memory_with_it() -> None:
    """When the last thread of an ended task goes, nothing of the task is left."""
    world = World()
    before = (world.kernel.root_quota.used_bytes, world.kernel.frames.taken_count)
    world.new_task(TASK)
    world.new_thread(VICTIM, TASK, utcb=abi.BOOT_UTCB)
    world.new_thread(OTHER, TASK, utcb=abi.BOOT_UTCB + 512)
    world.delete(TASK)
    world.delete(VICTIM)
    assert world.kernel.frames.taken_count == before[1] + 1  # the page with both UTCBs
    world.delete(OTHER)
    assert (world.kernel.root_quota.used_bytes, world.kernel.frames.taken_count) == before


def test_task_that_deletes_itself() -> None:
    """Its thread's last system call; the thread, held elsewhere, does not run any more."""
    world, _, thread = task_with_thread()
    make_ready(world, thread)
    world.give(TASK, abi.BOOT_CAP_TASK, TASK, 15)
    words = (abi.TASK_UNMAP, abi.UNMAP_SELF | abi.UNMAP_DELETE, object_page(abi.BOOT_CAP_TASK))
    world.call(thread, cap(abi.BOOT_CAP_TASK), abi.OP_CALL, tag(abi.PROTO_TASK, 3), *words)
    assert len(world.kernel.tasks) == 2


def make_ready(world: World, thread: Thread) -> None:
    world.call(world.root, cap(VICTIM), abi.OP_SEND, tag(1))
    assert thread.state == READY


def test_pager_gate_deleted_during_a_fault() -> None:
    """The thread that waits in its fault is not affected; at the next fault the slot is empty: killed."""
    world, _, thread = task_with_thread()
    make_ready(world, thread)
    world.new_thread(OTHER)
    pager = world.object(OTHER)
    assert isinstance(pager, Thread)
    world.call(pager, abi.CAP_INVALID, abi.OP_WAIT)
    world.new_gate(GATE, OTHER, 0x100)
    world.give(TASK, 6, GATE)
    world.control(VICTIM, pager=6)
    world.switch_to(thread)
    world.trap(PageFault(0x1000, write=False, fetch=False, present=False))
    assert world.answer(pager).value == abi.PROTO_PAGE_FAULT
    world.delete(GATE)
    assert thread.state == RECEIVING
    world.call(pager, abi.CAP_INVALID, abi.OP_REPLY | abi.OP_SEND, tag(0))
    assert thread.state == READY
    world.switch_to(thread)
    world.trap(PageFault(0x1000, write=False, fetch=False, present=False))
    assert thread.state == DEAD


# --- factories ----------------------------------------------------------------------------------


def test_deleted_factory_forbids_new_allocations() -> None:
    """By the tasks it made as well; what they have they keep, and it goes back to the parent in the end."""
    world = World()
    before = world.kernel.root_quota.used_bytes
    world.create(25, abi.PROTO_FACTORY, 0x100000)
    world.new_task(TASK, factory=25)
    world.give_memory(0x400000)
    used = world.kernel.root_quota.used_bytes
    world.delete(25)
    assert world.kernel.root_quota.used_bytes == used - 128
    words = (abi.TASK_MAP, 0x400000, memory_page(0x400000))
    got = world.object_call(TASK, abi.PROTO_TASK, *words, items=item(abi.BOOT_CAP_TASK))
    assert (got.tag, got.error) == (abi.TAG_ERROR, abi.IPC_SEND_MAP_FAILED)
    world.delete(TASK)
    assert world.root.task is not None
    assert world.kernel.root_quota.used_bytes - before < 2 * 4096 + 128  # the root task's own page table


def test_deletion_irq_of_a_killed_thread() -> None:
    """A thread that is dead, but still named, can be registered for; its end forgets that."""
    world, victim, _ = with_victim()
    make_busy(world, victim)
    world.switch_to(victim)
    world.trap(PageFault(0x1000, write=False, fetch=False, present=False))
    world.create(IRQ, abi.PROTO_IRQ_SENDER)
    world.object_call(VICTIM, abi.PROTO_THREAD, abi.THREAD_REGISTER_DELETE_IRQ, items=item(IRQ))
    world.delete(VICTIM)
    irq = world.object(IRQ)
    assert isinstance(irq, Irq) and irq.notifies is None


def test_permanent_objects_cannot_be_deleted() -> None:
    """The capability goes, the object stays: others still use it."""
    world = World()
    world.give(abi.BOOT_CAP_TASK, 50, abi.BOOT_CAP_SCHEDULER, 15)
    world.delete(50)
    assert world.root.task is not None and 50 not in world.root.task.capability_table.slots
    got = world.object_call(abi.BOOT_CAP_SCHEDULER, abi.PROTO_SCHEDULER, abi.SCHEDULER_INFO, 0)
    assert got.value == 0


def test_deleting_needs_the_page_to_take_r() -> None:
    """With mask 0xc0000000 but without R in the flexpage nothing is removed."""
    world = World()
    world.create(IRQ, abi.PROTO_IRQ_SENDER)
    mask = abi.UNMAP_SELF | abi.UNMAP_DELETE
    world.unmap(abi.BOOT_CAP_TASK, object_page(IRQ, 0xB), mask=mask)
    assert isinstance(world.object(IRQ), Irq)


def test_warnings_do_not_pile_up() -> None:
    """A guest can cause one with every system call."""
    world = World(check=False)
    for _ in range(3000):
        world.kernel.warn("somebody did something")
    assert len(world.kernel.warnings) == 1001
