"""The reply slot: ABI sheet section 5, each of its rules a test."""

from __future__ import annotations

import pytest

from l4lab.kernel.fiasco import abi
from l4lab.kernel.thread import READY, RECEIVING, Thread
from support.kernel_world import NOW, World, cap, item, tag

SERVER, GATE, OTHER = 20, 21, 22
EXPLICIT = 5 << 12 | abi.CAP_EXPLICIT_REPLY_BIT
REPLY = abi.OP_REPLY | abi.OP_SEND


def served() -> tuple[World, Thread]:
    """A server in open wait, reachable as a thread and through a gate."""
    world = World()
    server = world.new_thread(SERVER)
    world.new_gate(GATE, SERVER, 0x100)
    assert world.call(server, abi.CAP_INVALID, abi.OP_WAIT) is None
    return world, server


def holds(server: Thread, caller: Thread | None) -> bool:
    return server.reply.caller is caller


def reply(world: World, server: Thread, label: int = 9) -> int:
    """The server answers with a zero send timeout; the error code, 0 if it got through."""
    world.ram[server.utcb + abi.UTCB_ERROR // 4] = 0
    world.call(server, abi.CAP_INVALID, REPLY, tag(label), timeouts=NOW)
    return world.answer(server).error


# --- filled -------------------------------------------------------------------------------------


@pytest.mark.parametrize("slot", [SERVER, GATE])
def test_call_to_an_open_wait_fills_it(slot: int) -> None:
    """By thread or by gate: the partner is the thread bound at that moment."""
    world, server = served()
    assert world.call(world.root, cap(slot), abi.OP_CALL, tag(1)) is None
    assert holds(server, world.root)
    assert reply(world, server) == 0
    assert world.answer(world.root).tag == tag(9)


@pytest.mark.parametrize("operation", [abi.OP_SEND, abi.OP_SEND_AND_WAIT])
def test_other_sends_leave_it(operation: int) -> None:
    """A plain send, or a send and open wait, does not fill it, and does not empty it."""
    world, server = served()
    other = world.new_thread(OTHER)
    world.call(world.root, cap(SERVER), abi.OP_CALL, tag(1))
    world.call(server, abi.CAP_INVALID, abi.OP_WAIT)
    world.call(other, cap(SERVER), operation, tag(2))
    assert world.answer(server).tag == tag(2)
    assert holds(server, world.root)


def test_call_to_a_closed_wait_leaves_it() -> None:
    """The server waits for just this caller: no slot is filled."""
    world, server = served()
    world.call(world.root, cap(SERVER), abi.OP_SEND, tag(1))
    world.call(server, cap(abi.BOOT_CAP_THREAD), abi.OP_RECV)
    assert world.call(world.root, cap(SERVER), abi.OP_CALL, tag(2)) is None
    assert world.answer(server).tag == tag(2)
    assert holds(server, None)


def test_queued_call_fills_it_when_it_is_taken() -> None:
    """A caller that had to queue is the caller once an open wait takes its message."""
    world, server = served()
    world.call(world.root, cap(SERVER), abi.OP_SEND, tag(1))
    assert world.call(world.root, cap(SERVER), abi.OP_CALL, tag(2)) is None
    assert holds(server, None)
    world.call(server, abi.CAP_INVALID, abi.OP_WAIT)
    assert holds(server, world.root)


def test_failed_transfer_does_not_fill_it() -> None:
    """The message was not transferred: nobody waits for an answer."""
    world, server = served()
    world.receive_buffers(server)
    world.call(world.root, cap(SERVER), abi.OP_CALL, tag(1, 0, 1), *item(abi.BOOT_CAP_LOG))
    assert world.answer(world.root).error == abi.IPC_SEND_OVERFLOW
    assert holds(server, None)


def test_new_caller_overwrites_the_old_one() -> None:
    """Which stays blocked; an answer goes to the new one."""
    world, server = served()
    other = world.new_thread(OTHER)
    world.call(world.root, cap(SERVER), abi.OP_CALL, tag(1))
    world.call(server, abi.CAP_INVALID, abi.OP_WAIT)
    world.call(other, cap(SERVER), abi.OP_CALL, tag(2))
    assert holds(server, other)
    assert reply(world, server) == 0
    assert (other.state, world.root.state) == (READY, RECEIVING)
    assert reply(world, server) == abi.IPC_NOT_EXISTENT


# --- emptied ------------------------------------------------------------------------------------


def test_reply_empties_it_even_if_the_send_fails() -> None:
    """Here because an item has no buffer; a second reply finds nobody."""
    world, server = served()
    world.receive_buffers(world.root)
    world.call(world.root, cap(SERVER), abi.OP_CALL, tag(1))
    world.call(server, abi.CAP_INVALID, REPLY, tag(1, 0, 1), *item(abi.BOOT_CAP_LOG))
    assert world.answer(server).error == abi.IPC_SEND_OVERFLOW
    assert holds(server, None)
    assert reply(world, server) == abi.IPC_NOT_EXISTENT


def test_caller_that_timed_out_leaves_it() -> None:
    """Its receive timeout is over."""
    world, server = served()
    world.call(world.root, cap(SERVER), abi.OP_CALL, tag(1), timeouts=0x0C01)
    assert holds(server, world.root)
    world.run_for(3000)
    assert world.root.state == READY and holds(server, None)
    assert reply(world, server) == abi.IPC_NOT_EXISTENT


def test_caller_with_zero_receive_timeout_leaves_it() -> None:
    """It can take an answer only before it runs again."""
    world, server = served()
    world.call(world.root, cap(SERVER), abi.OP_CALL, tag(1), timeouts=abi.TIMEOUT_ZERO)
    assert holds(server, world.root)
    world.call(server, abi.CAP_INVALID, abi.OP_WAIT)
    assert world.running() is world.root and holds(server, None)


def test_cancelled_caller_leaves_it() -> None:
    """ex_regs with cancel."""
    world, server = served()
    other = world.new_thread(OTHER)
    world.call(other, cap(SERVER), abi.OP_CALL, tag(1))
    world.cancel(OTHER)
    assert holds(server, None)


def test_killed_caller_leaves_it() -> None:
    """Its last capability goes."""
    world, server = served()
    other = world.new_thread(OTHER)
    world.call(other, cap(SERVER), abi.OP_CALL, tag(1))
    world.delete(OTHER)
    assert holds(server, None)
    assert reply(world, server) == abi.IPC_NOT_EXISTENT


def test_answer_by_another_way_empties_it() -> None:
    """The server sends to the waiting caller by its thread capability."""
    world, server = served()
    world.call(world.root, cap(SERVER), abi.OP_CALL, tag(1))
    world.call(server, cap(abi.BOOT_CAP_THREAD), abi.OP_SEND, tag(3))
    assert world.answer(world.root).tag == tag(3)
    assert holds(server, None)


def test_somebody_elses_message_does_not_empty_it() -> None:
    """The caller waits for the server alone; others queue."""
    world, server = served()
    other = world.new_thread(OTHER)
    world.call(world.root, cap(SERVER), abi.OP_CALL, tag(1))
    world.call(other, cap(abi.BOOT_CAP_THREAD), abi.OP_SEND, tag(3))
    assert holds(server, world.root) and world.root.state == RECEIVING


# --- replying -----------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [REPLY, abi.OP_REPLY_AND_RECV, abi.OP_REPLY_AND_WAIT])
def test_empty_slot(operation: int) -> None:
    """EAX is the error bit, error 4, no receive phase."""
    world, server = served()
    world.call(world.root, cap(SERVER), abi.OP_SEND, tag(1))
    got = world.call(server, abi.CAP_INVALID, operation, tag(5, 1))
    assert got is not None and (got.tag, got.error) == (abi.TAG_ERROR, abi.IPC_NOT_EXISTENT)


def test_reply_is_plain_ipc_whatever_the_label() -> None:
    """-12 is a message, not a call of the Thread protocol."""
    world, server = served()
    world.call(world.root, cap(SERVER), abi.OP_CALL, tag(1))
    world.call(server, abi.CAP_INVALID, abi.OP_REPLY_AND_WAIT, tag(-12, 1), 0xFF)
    assert world.answer(world.root).tag == tag(-12, 1)


def test_reply_delivers_the_repliers_label() -> None:
    """ESI of the reply is what the caller finds in ESI."""
    world, server = served()
    world.call(world.root, cap(GATE), abi.OP_CALL, tag(1))
    world.call(server, abi.CAP_INVALID, REPLY, tag(2), label=0xABCD)
    assert world.answer(world.root).label == 0xABCD


@pytest.mark.parametrize(("rights", "special"), [(7, True), (5, False)])
def test_reply_items_are_masked_with_the_callers_rights(rights: int, special: bool) -> None:
    """An object sent in answer to a call through a capability without S comes without S."""
    world, server = served()
    world.give(abi.BOOT_CAP_TASK, 30, GATE, rights)
    world.receive_buffers(world.root, 31 << 12 | abi.BUFFER_ITEM | abi.BUFFER_SMALL)
    world.call(world.root, cap(30), abi.OP_CALL, tag(1))
    world.call(server, abi.CAP_INVALID, REPLY, tag(2, 0, 1), *item(abi.BOOT_CAP_LOG))
    assert world.root.task is not None
    got = world.root.task.capability_table.slots[31]
    assert bool(got.rights & abi.OBJECT_RIGHT_S) == special
    assert got.rights & abi.OBJECT_RIGHT_W


# --- explicit slots -----------------------------------------------------------------------------


def test_explicit_slot() -> None:
    """An open wait that names a slot of the reply table stores the caller there; replies name it again."""
    world, server = served()
    world.call(world.root, cap(SERVER), abi.OP_SEND, tag(1))
    world.call(server, EXPLICIT, abi.OP_WAIT)
    other = world.new_thread(OTHER)
    world.call(world.root, cap(SERVER), abi.OP_CALL, tag(2))
    assert holds(server, None)
    world.call(server, abi.CAP_INVALID, abi.OP_WAIT)
    world.call(other, cap(SERVER), abi.OP_CALL, tag(3))
    assert holds(server, other)
    world.call(server, EXPLICIT, REPLY, tag(7))
    assert world.answer(world.root).tag == tag(7)
    assert reply(world, server) == 0
    assert world.answer(other).tag == tag(9)


def test_only_the_thread_that_was_called_can_answer() -> None:
    """Another thread of the task can use the slot, but the caller waits for the one it called."""
    world, server = served()
    other = world.new_thread(OTHER)
    world.call(world.root, cap(SERVER), abi.OP_SEND, tag(1))
    world.call(server, EXPLICIT, abi.OP_WAIT)
    world.call(world.root, cap(SERVER), abi.OP_CALL, tag(2))
    world.call(other, EXPLICIT, REPLY, tag(7), timeouts=NOW)
    assert world.answer(other).error == abi.IPC_SEND_TIMEOUT
    assert world.root.state == RECEIVING and world.root.held_by is None


def test_explicit_slot_without_quota() -> None:
    """Error 0x13 and nothing else happens: for a wait, a send and wait, and behind an object's operation."""
    world = World()
    world.create(25, abi.PROTO_FACTORY, 0x20000)
    task = world.new_task(30, factory=25)
    thread = world.new_thread(SERVER, 30, utcb=abi.BOOT_UTCB)
    world.new_gate(GATE)
    world.give(30, GATE, GATE)
    world.give(30, abi.BOOT_CAP_LOG, abi.BOOT_CAP_LOG)
    task.quota.limit_bytes = task.quota.used_bytes
    for selector, operation, sent in (
        (EXPLICIT, abi.OP_WAIT, tag(1)),
        (EXPLICIT, abi.OP_SEND_AND_WAIT, tag(1)),
    ):
        got = world.call(thread, selector, operation, sent)
        assert got is not None and (got.tag, got.error) == (abi.TAG_ERROR, abi.IPC_NO_REPLY_SLOT)


def test_explicit_slots_are_paid_back() -> None:
    """What a task paid for its reply table comes back with the task's end."""
    world = World()
    used = world.kernel.root_quota.used_bytes
    world.new_task(30)
    thread = world.new_thread(SERVER, 30, utcb=abi.BOOT_UTCB)
    for index in (0, 5, 1023, 5000):
        world.call(thread, index << 12 | abi.CAP_EXPLICIT_REPLY_BIT, abi.OP_WAIT, timeouts=NOW)
    assert task_pays(thread)
    world.delete(30)
    world.delete(SERVER)
    assert world.kernel.root_quota.used_bytes == used


def task_pays(thread: Thread) -> bool:
    return thread.task is not None and len(thread.task.reply_slots) == 4
