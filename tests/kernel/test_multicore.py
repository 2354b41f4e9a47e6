"""Several cores: what one of them does to threads and memory that another one has in hand."""

from __future__ import annotations

from l4lab.kernel.fiasco import abi
from l4lab.kernel.frame import CR3
from l4lab.kernel.state import FlushTlb
from l4lab.kernel.thread import DEAD, READY, RECEIVING, REMOTE, TAKING, Thread
from l4lab.kernel.traps import DEADLINE_REACHED, SYSTEM_CALL, CpuException, PageFault
from support.kernel_world import World, cap, item, memory_page, object_page, tag

CLIENT, SERVER, OTHER, GATE = 20, 21, 22, 23
CLIENT_TASK, SERVER_TASK = 30, 31


def flushed(world: World, core: int) -> int:
    """How often the whole TLB of `core` has been flushed."""
    return sum(1 for effect in world.effects if isinstance(effect, FlushTlb) and effect.cores >> core & 1)


def on_core_1(world: World, slot: int, **options: int) -> Thread:
    """A thread of the root task on core 1, running there."""
    thread = world.new_thread(slot, core=1, **options)
    world.deliver(1)
    assert world.running(1) is thread
    return thread


def test_space_that_never_ran() -> None:
    """Core 1 goes from A to B and, before B has run, back to A: translations of A must be forgotten.

    Meanwhile nobody told it of what was taken from A, for A was not live there. The processor would have
    flushed when it loaded B; a vCPU that never ran B has not.
    """
    world = World(cores=2, late=True)
    world.new_task(CLIENT_TASK)
    world.new_task(SERVER_TASK)
    world.give_memory(0x400000)
    client = world.new_thread(CLIENT, CLIENT_TASK, utcb=abi.BOOT_UTCB, core=1)
    server = world.new_thread(SERVER, SERVER_TASK, utcb=abi.BOOT_UTCB, core=1)
    world.deliver(1)
    world.give(CLIENT_TASK, 5, SERVER)
    world.call(server, abi.CAP_INVALID, abi.OP_WAIT)
    world.call(client, cap(5), abi.OP_CALL, tag(1))
    assert world.running(1) is server  # it has not run yet
    map_page = (abi.TASK_MAP, 0x400000, memory_page(0x400000))
    world.object_call(CLIENT_TASK, abi.PROTO_TASK, *map_page, items=item(abi.BOOT_CAP_TASK))
    world.unmap(CLIENT_TASK, memory_page(0x400000))
    world.cancel(CLIENT)
    world.run_thread(CLIENT, 5, core=1)
    before = flushed(world, 1)
    world.deliver(1)
    assert world.running(1) is client
    assert flushed(world, 1) > before


def test_thread_killed_by_another_core() -> None:
    """Its core is interrupted; until then it has nothing to run, and what it trapped with is ignored."""
    for trap in (SYSTEM_CALL, PageFault(0, False, False, False), CpuException(13, 0), DEADLINE_REACHED):
        world = World(cores=2, late=True)
        thread = on_core_1(world, OTHER)
        world.delete(OTHER)
        assert thread.state == DEAD and world.interrupts[1]
        assert thread.frame[CR3] == world.kernel.blank_directory_pfn << 12
        world.trap(trap, core=1)
        assert world.running(1) is None
        world.deliver(1)
        assert world.running(1) is None


def test_task_ended_by_another_core() -> None:
    """Its thread, held elsewhere, is left without memory at once: its core is told to forget."""
    world = World(cores=2, late=True)
    world.new_task(CLIENT_TASK)
    thread = world.new_thread(CLIENT, CLIENT_TASK, utcb=abi.BOOT_UTCB, core=1)
    world.deliver(1)
    assert world.running(1) is thread
    before = flushed(world, 1)
    world.delete(CLIENT_TASK)
    assert thread.frame[CR3] == world.kernel.blank_directory_pfn << 12
    assert flushed(world, 1) > before
    world.trap(PageFault(0x1000, False, True, False), core=1)
    assert thread.state == DEAD


def test_unmap_tells_the_cores_where_the_space_is_live() -> None:
    """And no other."""
    world = World(cores=3, late=True)
    world.new_task(CLIENT_TASK)
    world.give_memory(0x400000)
    map_page = (abi.TASK_MAP, 0x400000, memory_page(0x400000))
    world.object_call(CLIENT_TASK, abi.PROTO_TASK, *map_page, items=item(abi.BOOT_CAP_TASK))
    world.new_thread(CLIENT, CLIENT_TASK, utcb=abi.BOOT_UTCB, core=1)
    world.deliver(1)
    before = [flushed(world, core) for core in range(3)]
    world.unmap(CLIENT_TASK, memory_page(0x400000))
    assert flushed(world, 1) == before[1] + 1
    assert flushed(world, 2) == before[2]


def test_message_to_a_thread_of_another_core() -> None:
    """The sender waits until the other core has served the request; the words arrive."""
    world = World(cores=2, late=True)
    thread = on_core_1(world, OTHER)
    world.call(thread, abi.CAP_INVALID, abi.OP_WAIT)
    assert world.call(world.root, cap(OTHER), abi.OP_SEND, tag(3, 2), 11, 22) is None
    assert thread.state == RECEIVING
    world.settle()
    assert thread.state == READY and world.root.state == READY
    assert world.message(thread, 2) == [11, 22]
    assert world.answer(world.root).tag == tag(3, 2)


def test_call_across_cores_and_reply() -> None:
    """The caller is in receive state before the server can answer, whatever order interrupts come in."""
    for order in ((0, 1), (1, 0)):
        world = World(cores=2, late=True)
        server = on_core_1(world, SERVER)
        world.call(server, abi.CAP_INVALID, abi.OP_WAIT)
        world.call(world.root, cap(SERVER), abi.OP_CALL, tag(3))
        world.deliver(1)
        assert world.answer(server).tag == tag(3)
        world.call(server, abi.CAP_INVALID, abi.OP_REPLY_AND_WAIT, tag(4))
        for core in order * 3:
            world.deliver(core)
        assert world.root.state == READY and world.answer(world.root).tag == tag(4)


def test_gate_bound_to_a_thread_of_another_core_passes_on_who_waits_for_that() -> None:
    """Its send phase is a request to that core, as if the gate had been bound before."""
    world = World(cores=2, late=True)
    server = on_core_1(world, SERVER)
    world.call(server, abi.CAP_INVALID, abi.OP_WAIT)
    world.new_gate(GATE)
    client = world.new_thread(CLIENT)
    assert world.call(client, cap(GATE), abi.OP_SEND, tag(3, 1), 11) is None
    world.bind_gate(GATE, SERVER, 0x40)
    assert client.state == REMOTE and server.state == RECEIVING
    world.settle()
    assert (server.state, client.state) == (READY, READY)
    assert (world.message(server, 1), world.answer(client).tag) == ([11], tag(3, 1))


def test_partner_killed_while_the_request_is_under_way() -> None:
    """Error 4 or 6: the sender does not wait for ever."""
    world = World(cores=2, late=True)
    thread = on_core_1(world, OTHER)
    other = world.new_thread(CLIENT)
    world.call(thread, abi.CAP_INVALID, abi.OP_WAIT)
    world.call(other, cap(OTHER), abi.OP_SEND, tag(3))
    world.delete(OTHER)
    world.settle()
    assert other.state == READY
    assert world.answer(other).error in (abi.IPC_NOT_EXISTENT, abi.IPC_SEND_CANCELLED)


def test_sender_cancelled_while_its_request_is_under_way() -> None:
    """The request is void when it arrives: the message is not delivered."""
    world = World(cores=2, late=True)
    thread = on_core_1(world, OTHER)
    sender = world.new_thread(CLIENT)
    world.call(thread, abi.CAP_INVALID, abi.OP_WAIT)
    world.call(sender, cap(OTHER), abi.OP_SEND, tag(3))
    world.cancel(CLIENT)
    assert sender.state == READY and world.answer(sender).error == abi.IPC_SEND_CANCELLED
    world.settle()
    assert thread.state == RECEIVING


def test_sender_killed_while_its_request_is_under_way() -> None:
    """Nothing is delivered, nothing is left of it."""
    world = World(cores=2, late=True)
    thread = on_core_1(world, OTHER)
    sender = world.new_thread(CLIENT)
    world.call(thread, abi.CAP_INVALID, abi.OP_WAIT)
    world.call(sender, cap(OTHER), abi.OP_SEND, tag(3))
    world.delete(CLIENT)
    world.settle()
    assert thread.state == RECEIVING and sender.state == DEAD


def test_receiver_moved_while_the_request_is_under_way() -> None:
    """The request follows it."""
    world = World(cores=3, late=True)
    thread = on_core_1(world, OTHER)
    world.call(thread, abi.CAP_INVALID, abi.OP_WAIT)
    sender = world.new_thread(CLIENT)
    world.run_thread(OTHER, 1, core=2)
    world.call(sender, cap(OTHER), abi.OP_SEND, tag(3))
    world.settle()
    assert thread.core == 2 and thread.state == READY
    assert world.answer(thread).tag == tag(3)


def test_thread_moved_while_it_runs_elsewhere() -> None:
    """It leaves its core when that has been told, and goes on at the new one."""
    world = World(cores=3, late=True)
    thread = on_core_1(world, OTHER)
    world.run_thread(OTHER, 1, core=2)
    assert world.running(1) is thread
    world.settle()
    assert world.running(1) is None and world.running(2) is thread


def test_switch_to_a_thread_of_another_core_does_nothing() -> None:
    """Label 0."""
    world = World(cores=2, late=True)
    thread = on_core_1(world, OTHER)
    assert world.object_call(OTHER, abi.PROTO_THREAD, abi.THREAD_SWITCH).tag == tag(0)
    assert world.running(0) is world.root and world.running(1) is thread


def test_modify_senders_from_another_core() -> None:
    """-22."""
    world = World(cores=2, late=True)
    on_core_1(world, OTHER)
    words = (abi.THREAD_MODIFY_SENDERS, 0, 0, 0, 0)
    assert world.object_call(OTHER, abi.PROTO_THREAD, *words).value == -abi.EINVAL


def test_absent_core_stops_a_thread_and_a_later_run_thread_resumes_it() -> None:
    """Off-line threads do not receive; the message waits for them."""
    world = World(cores=2, late=True)
    thread = on_core_1(world, OTHER)
    world.call(thread, abi.CAP_INVALID, abi.OP_WAIT)
    world.take_off_line(OTHER)
    world.settle()
    sender = world.new_thread(CLIENT)
    assert world.call(sender, cap(OTHER), abi.OP_SEND, tag(3)) is None
    assert thread.state == RECEIVING
    world.run_thread(OTHER, 1, core=1)
    world.settle()
    assert thread.state == READY and world.answer(thread).tag == tag(3)
    assert sender.state == READY


def test_timeout_of_a_moved_thread() -> None:
    """It is over at the new core."""
    world = World(cores=2)
    thread = world.new_thread(OTHER)
    world.call(thread, abi.CAP_INVALID, abi.OP_RECV, tag(9), timeouts=2 << 10 | 750)
    world.run_thread(OTHER, 1, core=1)
    assert thread.state == RECEIVING
    world.run_for(5000, core=1)
    assert thread.state == READY and world.answer(thread).error == abi.IPC_RECEIVE_TIMEOUT


def test_capability_deleted_with_a_wake_up_under_way() -> None:
    """The wake-up finds a dead thread, and does nothing."""
    world = World(cores=2, late=True)
    thread = on_core_1(world, OTHER)
    world.create(40, abi.PROTO_SEMAPHORE)
    world.call(thread, cap(40), abi.OP_CALL, tag(abi.PROTO_SEMAPHORE, 1), abi.SEMAPHORE_DOWN)
    world.call(world.root, cap(40), abi.OP_SEND, tag(abi.PROTO_IRQ, 1), abi.IRQ_TRIGGER)
    assert thread.state == READY and thread.in_flight
    world.unmap(abi.BOOT_CAP_TASK, object_page(OTHER, 4))
    assert thread.state == DEAD
    world.settle()
    assert world.running(1) is None


def test_caller_that_is_off_line_when_its_message_was_sent() -> None:
    """It waits for the answer all the same, and gets it once it has a core again."""
    world = World(cores=2, late=True)
    server = on_core_1(world, SERVER)
    client = world.new_thread(CLIENT)
    world.call(server, abi.CAP_INVALID, abi.OP_WAIT)
    world.call(client, cap(SERVER), abi.OP_CALL, tag(3))
    world.deliver(1)
    world.take_off_line(CLIENT)
    world.settle()
    assert world.answer(server).tag == tag(3)
    assert client.state == RECEIVING
    world.run_thread(CLIENT, 1, core=0)
    world.call(server, abi.CAP_INVALID, abi.OP_REPLY | abi.OP_SEND, tag(4))
    world.settle()
    assert client.state == READY and world.answer(client).tag == tag(4)


def test_receiver_cancelled_while_a_message_with_items_is_on_its_way() -> None:
    """It has taken the message: it gets it, and is not made ready before."""
    world = World(cores=2, late=True)
    receiver = on_core_1(world, OTHER)
    sender = world.new_thread(CLIENT)
    world.receive_buffers(receiver, 50 << 12 | abi.BUFFER_ITEM | abi.BUFFER_SMALL)
    world.call(receiver, abi.CAP_INVALID, abi.OP_WAIT)
    world.call(sender, cap(OTHER), abi.OP_SEND, tag(3, 0, 1), *item(abi.BOOT_CAP_LOG, 7))
    world.deliver(1)
    assert receiver.state == TAKING
    world.cancel(OTHER)
    assert receiver.state == TAKING
    world.settle()
    assert receiver.state == READY and world.answer(receiver).tag == tag(3, 0, 1)
    assert sender.state == READY


def test_sender_cancelled_while_its_message_with_items_is_taken() -> None:
    """The receiver goes back to waiting."""
    world = World(cores=2, late=True)
    receiver = on_core_1(world, OTHER)
    sender = world.new_thread(CLIENT)
    world.receive_buffers(receiver, 50 << 12 | abi.BUFFER_ITEM | abi.BUFFER_SMALL)
    world.call(receiver, abi.CAP_INVALID, abi.OP_WAIT)
    world.call(sender, cap(OTHER), abi.OP_SEND, tag(3, 0, 1), *item(abi.BOOT_CAP_LOG, 7))
    world.deliver(1)
    world.cancel(CLIENT)
    world.settle()
    assert receiver.state == RECEIVING and world.answer(sender).error == abi.IPC_SEND_CANCELLED
    world.call(sender, cap(OTHER), abi.OP_SEND, tag(4))
    world.settle()
    assert world.answer(receiver).tag == tag(4)


def test_either_side_killed_while_a_message_with_items_is_on_its_way() -> None:
    """The other one does not wait for ever for what cannot come."""
    for victim in (CLIENT, OTHER):
        world = World(cores=2, late=True)
        receiver = on_core_1(world, OTHER)
        sender = world.new_thread(CLIENT)
        world.receive_buffers(receiver, 50 << 12 | abi.BUFFER_ITEM | abi.BUFFER_SMALL)
        world.call(receiver, abi.CAP_INVALID, abi.OP_WAIT)
        world.call(sender, cap(OTHER), abi.OP_SEND, tag(3, 0, 1), *item(abi.BOOT_CAP_LOG, 7))
        world.deliver(1)
        world.delete(victim)
        world.settle()
        assert (receiver.state, sender.state) == ((RECEIVING, DEAD) if victim == CLIENT else (DEAD, READY))
