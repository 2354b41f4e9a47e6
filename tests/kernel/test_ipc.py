"""Rendezvous: who meets whom, who waits, and what everybody reads afterwards."""

from __future__ import annotations

from l4lab.kernel.fiasco import abi
from l4lab.kernel.invariants import check_all
from l4lab.kernel.thread import READY, RECEIVING, SENDING
from support.kernel_world import NOW, World, item, memory_page, object_page, tag


def cap(slot: int) -> int:
    return slot << 12


def test_call_to_waiting_server_and_reply() -> None:
    """A call reaches a server in open wait, which answers through the reply slot."""
    world = World()
    server = world.new_thread(20)
    assert world.call(server, abi.CAP_INVALID, abi.OP_WAIT) is None
    assert world.call(world.root, cap(20), abi.OP_CALL, tag(5, 2), 11, 22, label=0x77) is None
    assert world.running() is server
    got = world.answer(server)
    assert (got.tag, got.label) == (tag(5, 2), 0x77)
    assert world.message(server, 2) == [11, 22]
    assert world.call(server, abi.CAP_INVALID, abi.OP_REPLY_AND_WAIT, tag(9, 1), 33, label=0x99) is None
    assert world.running() is world.root
    got = world.answer(world.root)
    assert (got.tag, got.label, world.message(world.root, 1)) == (tag(9, 1), 0x99, [33])


def test_send_to_receiver_waiting_for_another_blocks() -> None:
    """A closed receive takes only the named partner; another sender queues up."""
    world = World()
    server = world.new_thread(20)
    other = world.new_thread(21)
    assert world.call(server, cap(21), 2) is None
    assert world.call(world.root, cap(20), abi.OP_SEND, tag(1)) is None
    assert world.root.state == SENDING and server.state == RECEIVING
    world.call(other, cap(20), abi.OP_SEND, tag(2))
    assert server.state == READY
    assert world.answer(server).tag == tag(2)


def test_one_receive_sets_off_a_chain_of_those_who_wait_for_each_other() -> None:
    """Root takes from a, which then waits and takes from b, which takes from c: each runs with its message."""
    world = World()
    a, b, c = (world.new_thread(slot) for slot in (20, 21, 22))
    for sender, target in ((a, abi.BOOT_CAP_THREAD), (b, 20), (c, 21)):
        assert world.call(sender, cap(target), abi.OP_SEND_AND_WAIT, tag(target, 1), target) is None
        assert sender.state == SENDING
    got = world.call(world.root, abi.CAP_INVALID, abi.OP_WAIT) or world.answer(world.root)
    assert (got.tag, a.state, b.state, c.state) == (tag(abi.BOOT_CAP_THREAD, 1), READY, READY, RECEIVING)
    assert (world.message(a, 1), world.message(b, 1)) == ([20], [21])
    check_all(world.kernel)
    world.call(world.root, abi.CAP_INVALID, abi.OP_RECV)
    ran = []
    while (running := world.running()) is not None:
        ran.append(running)
        world.call(running, abi.CAP_INVALID, abi.OP_RECV)
    assert sorted(ran, key=[a, b].index) == [a, b]


def test_zero_timeout_send_fails_with_send_timeout() -> None:
    """Nobody waits and the timeout is zero: error 2, EAX exactly the error bit."""
    world = World()
    world.new_thread(20)
    got = world.call(world.root, cap(20), abi.OP_SEND, tag(1, 3), timeouts=NOW)
    assert got is not None
    assert (got.tag, got.error) == (abi.TAG_ERROR, abi.IPC_SEND_TIMEOUT)


def test_receive_timeout_returns_the_sent_tag_marked() -> None:
    """A receive that times out returns the tag the caller passed in, with the error bit."""
    world = World()
    assert world.call(world.root, abi.CAP_INVALID, 2, tag(7, 1), timeouts=0x0C01 + 3) is None
    world.run_for(20_000)
    got = world.answer(world.root)
    assert (got.tag, got.error) == (tag(7, 1) | abi.TAG_ERROR, abi.IPC_RECEIVE_TIMEOUT)


def test_empty_slot_is_not_existent() -> None:
    """An empty capability slot: error 4, and no receive phase."""
    world = World()
    got = world.call(world.root, cap(99), abi.OP_CALL)
    assert got is not None
    assert (got.tag, got.error) == (abi.TAG_ERROR, abi.IPC_NOT_EXISTENT)


def test_page_fault_is_served_by_the_pager() -> None:
    """A fault becomes a message to the pager, whose map item resolves it."""
    from l4lab.kernel.traps import PageFault

    world = World()
    world.switch_to(world.root)
    world.trap(PageFault(0x300123, write=True, fetch=False, present=False))
    assert world.running() is world.sigma0
    got = world.answer(world.sigma0)
    assert (got.value, got.label) == (abi.PROTO_PAGE_FAULT, abi.ROOT_SIGMA0_LABEL | 3)
    assert world.message(world.sigma0, 1) == [0x300120 | abi.FAULT_WRITE]
    answer = (0x300000 | abi.ITEM_MAP, memory_page(0x300000))
    assert world.call(world.sigma0, abi.CAP_INVALID, abi.OP_REPLY_AND_WAIT, tag(0, 0, 1), *answer) is None
    assert world.running() is world.root
    task = world.root.task
    assert task is not None and task.space.pages[0x300].pfn == 0x300


def test_gate_delivers_label_and_rights() -> None:
    """Through a gate the receiver sees the gate's label and the W and S rights used."""
    world = World()
    server = world.new_thread(20)
    world.call(server, abi.CAP_INVALID, abi.OP_WAIT)
    world.receive_buffers(world.root, 21 << 12 | abi.BUFFER_ITEM | abi.BUFFER_SMALL)
    made = world.call(
        world.root,
        cap(abi.BOOT_CAP_FACTORY),
        abi.OP_CALL,
        tag(abi.PROTO_FACTORY, 3, 1),
        0,
        0,
        0x1230,
        *item(20),
    )
    assert made is not None and made.value == 0
    world.call(world.root, cap(21), abi.OP_CALL, tag(3, 1), 5)
    assert world.answer(server).label == 0x1230 | 3
    assert object_page(1) & 0xF == 0xF
