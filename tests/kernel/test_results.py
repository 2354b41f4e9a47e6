"""What a system call leaves in the caller's registers and in TCR.error: ABI sheet section 4, "Results in EAX".

Each test is one line of that section's list, or one of the rules in section 1 on dispatch.
"""

from __future__ import annotations

import pytest

from l4lab.kernel.fiasco import abi
from l4lab.kernel.frame import EAX, EDX, ESI
from l4lab.kernel.thread import READY, RECEIVING, SENDING, Thread
from support.kernel_world import NOW, World, cap, item, memory_page, tag

A_MILLISECOND = 0x0C00 | 1 << 0  # 1 << 3 us: over at the next tick
SHORT = A_MILLISECOND << 16 | A_MILLISECOND
ERROR_BIT = abi.TAG_ERROR


def two_threads() -> tuple[World, Thread]:
    """A world with a second thread, in slot 20, that is ready."""
    world = World()
    return world, world.new_thread(20)


# --- send phase ---------------------------------------------------------------------------------


def test_send_timeout_zero() -> None:
    """Nobody waits: EAX is exactly the error bit, the label register is left alone, nothing is received."""
    world, _ = two_threads()
    got = world.call(world.root, cap(20), abi.OP_CALL, tag(7, 3, 0), timeouts=NOW, label=0x123)
    assert got is not None
    assert (got.tag, got.error, got.label) == (ERROR_BIT, abi.IPC_SEND_TIMEOUT, 0x123)


def test_send_timeout_after_waiting() -> None:
    """The same after a timeout that had to run out; the receive phase does not follow."""
    world, _ = two_threads()
    assert world.call(world.root, cap(20), abi.OP_CALL, tag(7, 3), timeouts=SHORT) is None
    assert world.root.state == SENDING
    world.run_for(3000)
    got = world.answer(world.root)
    assert (world.root.state, got.tag, got.error) == (READY, ERROR_BIT, abi.IPC_SEND_TIMEOUT)


def test_empty_slot() -> None:
    """No object: error 4, whatever the operation, and no receive phase even for a plain wait."""
    for operation in (abi.OP_SEND, abi.OP_RECV, abi.OP_CALL, abi.OP_WAIT, abi.OP_SEND_AND_WAIT):
        world, _ = two_threads()
        got = world.call(world.root, cap(99), operation, tag(1, 2))
        assert got is not None, operation
        assert (got.tag, got.error) == (ERROR_BIT, abi.IPC_NOT_EXISTENT)


def test_thread_never_started() -> None:
    """A thread that ex_regs has not started does not exist for IPC."""
    world = World()
    world.create(20, abi.PROTO_THREAD)
    got = world.call(world.root, cap(20), abi.OP_SEND, tag(1))
    assert got is not None and (got.tag, got.error) == (ERROR_BIT, abi.IPC_NOT_EXISTENT)


def test_thread_without_core_only_does_not_receive() -> None:
    """Started, but no core: with a zero timeout error 2, else the sender blocks."""
    world, thread = two_threads()
    world.call(thread, abi.CAP_INVALID, abi.OP_WAIT)
    world.take_off_line(20)
    got = world.call(world.root, cap(20), abi.OP_SEND, tag(1), timeouts=NOW)
    assert got is not None and (got.tag, got.error) == (ERROR_BIT, abi.IPC_SEND_TIMEOUT)
    assert world.call(world.root, cap(20), abi.OP_SEND, tag(1)) is None
    assert world.root.state == SENDING


def test_sending_to_oneself_never_matches() -> None:
    """Error 2 with zero timeout, else it blocks."""
    world = World()
    got = world.call(world.root, abi.CAP_INVALID, abi.OP_CALL, tag(1), timeouts=NOW)
    assert got is not None and (got.tag, got.error) == (ERROR_BIT, abi.IPC_SEND_TIMEOUT)
    assert world.call(world.root, abi.CAP_INVALID, abi.OP_SEND, tag(1)) is None


def test_send_cancelled() -> None:
    """ex_regs with cancel while in the send phase: error 6."""
    world, thread = two_threads()
    assert world.call(thread, cap_of_root(world, thread), abi.OP_SEND, tag(5)) is None
    world.cancel(20)
    got = world.answer(thread)
    assert (thread.state, got.tag, got.error) == (READY, ERROR_BIT, abi.IPC_SEND_CANCELLED)


def cap_of_root(world: World, thread: Thread) -> int:
    """The root thread's capability, which all threads of the root task can use."""
    assert thread.task is world.root.task
    return cap(abi.BOOT_CAP_THREAD)


# --- receive phase ------------------------------------------------------------------------------


def test_receive_timeout_zero_after_send() -> None:
    """A call with receive timeout zero: the message is sent; EAX is the sent tag with the error bit."""
    world, thread = two_threads()
    world.call(thread, abi.CAP_INVALID, abi.OP_WAIT)
    assert world.call(world.root, cap(20), abi.OP_CALL, tag(7, 2), 1, 2, timeouts=abi.TIMEOUT_ZERO) is None
    assert world.running() is thread  # it preempted, being as important
    assert world.answer(thread).tag == tag(7, 2)
    world.call(thread, abi.CAP_INVALID, abi.OP_WAIT)
    got = world.answer(world.root)
    assert (got.tag, got.error) == (tag(7, 2) | ERROR_BIT, abi.IPC_RECEIVE_TIMEOUT)


def test_receive_timeout() -> None:
    """EAX is the tag that was passed in, with the error bit: also for receive-only."""
    world = World()
    assert world.call(world.root, abi.CAP_INVALID, abi.OP_RECV, tag(9, 5), timeouts=SHORT) is None
    world.run_for(3000)
    got = world.answer(world.root)
    assert (got.tag, got.error) == (tag(9, 5) | ERROR_BIT, abi.IPC_RECEIVE_TIMEOUT)


def test_receive_cancelled() -> None:
    """Error 7, the sent tag with the error bit."""
    world, thread = two_threads()
    world.call(thread, abi.CAP_INVALID, abi.OP_WAIT, tag(3, 1))
    world.cancel(20)
    got = world.answer(thread)
    assert (got.tag, got.error) == (tag(3, 1) | ERROR_BIT, abi.IPC_RECEIVE_CANCELLED)


def test_failed_item_leaves_the_senders_tag() -> None:
    """Item without buffer: receiver gets the sender's tag and label, words in place, error 9; the sender 8."""
    world, thread = two_threads()
    world.receive_buffers(thread)
    world.call(thread, abi.CAP_INVALID, abi.OP_WAIT)
    got = world.call(
        world.root, cap(20), abi.OP_SEND, tag(4, 2, 1), 11, 22, *item(abi.BOOT_CAP_LOG), label=0x55
    )
    sender, receiver = world.answer(world.root), world.answer(thread)
    assert got is None or got == sender
    assert (sender.tag, sender.error) == (ERROR_BIT, abi.IPC_SEND_OVERFLOW)
    assert (receiver.tag, receiver.error) == (tag(4, 2, 1) | ERROR_BIT, abi.IPC_RECEIVE_OVERFLOW)
    assert (receiver.label, world.message(thread, 2)) == (0x55, [11, 22])


def test_map_failure_by_quota() -> None:
    """The receiver's task cannot pay for a page table: 0x10 for the sender, 0x11 for the receiver."""
    world = World()
    world.create(21, abi.PROTO_FACTORY, 5 * 4096 + 10000)
    world.new_task(30, factory=21)
    thread = world.new_thread(20, 30, utcb=abi.BOOT_UTCB)
    world.give_memory(0x400000)
    assert thread.task is not None
    thread.task.quota.limit_bytes = thread.task.quota.used_bytes  # all is spent
    world.receive_buffers(thread, abi.BUFFER_ITEM, abi.FPAGE_ALL)
    world.call(thread, abi.CAP_INVALID, abi.OP_WAIT)
    world.call(world.root, cap(20), abi.OP_SEND, tag(0, 0, 1), 0x400000 | abi.ITEM_MAP, memory_page(0x400000))
    sender, receiver = world.answer(world.root), world.answer(thread)
    assert (sender.tag, sender.error) == (ERROR_BIT, abi.IPC_SEND_MAP_FAILED)
    assert (receiver.tag, receiver.error) == (tag(0, 0, 1) | ERROR_BIT, abi.IPC_RECEIVE_MAP_FAILED)


# --- success ------------------------------------------------------------------------------------


def test_send_only_success() -> None:
    """EAX is the sent tag, with the error bit if the caller set that; the receiver's has none. ESI is left alone."""
    world, thread = two_threads()
    world.call(thread, abi.CAP_INVALID, abi.OP_WAIT)
    world.call(world.root, cap(20), abi.OP_SEND, tag(-7, 1) | ERROR_BIT, 5, label=0x77)
    got = world.answer(world.root)
    assert (got.tag, got.label) == (tag(-7, 1) | ERROR_BIT, 0x77)
    assert (world.answer(thread).tag, world.answer(thread).label) == (tag(-7, 1), 0x77)


def test_success_does_not_clear_the_error() -> None:
    """TCR.error is written only on failure."""
    world, thread = two_threads()
    world.call(world.root, cap(99), abi.OP_SEND)
    world.call(thread, abi.CAP_INVALID, abi.OP_WAIT)
    world.call(world.root, cap(20), abi.OP_SEND, tag(1))
    assert world.answer(world.root).error == abi.IPC_NOT_EXISTENT


def test_received_flags_are_those_sent() -> None:
    """Label, words, items and flags arrive as sent."""
    world, thread = two_threads()
    world.call(thread, abi.CAP_INVALID, abi.OP_WAIT)
    sent = tag(-300, 63, 0, abi.TAG_SCHEDULE | abi.TAG_PROPAGATE)
    world.call(world.root, cap(20), abi.OP_SEND, sent, *range(63))
    assert world.answer(thread).tag == sent
    assert world.message(thread, 63) == list(range(63))


def test_irq_message() -> None:
    """An IRQ's delivery is tag 0 and its label; message registers are untouched."""
    world = World()
    world.create(21, abi.PROTO_IRQ_SENDER)
    bound = world.call(
        world.root, cap(21), abi.OP_CALL, tag(abi.PROTO_KOBJECT, 2, 1), abi.ENDPOINT_BIND, 0x4243,
        *item(abi.BOOT_CAP_THREAD),
    )  # fmt: skip
    assert bound is not None and bound.tag == 0
    world.call(world.root, cap(21), abi.OP_SEND, tag(abi.PROTO_IRQ, 1), abi.IRQ_TRIGGER)
    world.ram[world.root.utcb] = 0x999
    got = world.call(world.root, abi.CAP_INVALID, abi.OP_WAIT, tag(5, 5))
    assert got is not None and (got.tag, got.label) == (0, 0x4243)
    assert world.message(world.root, 1) == [0x999]


# --- kernel objects -----------------------------------------------------------------------------


def test_kernel_object_reply() -> None:
    """The reply's tag has words, items and label, no flags; ESI is unchanged; OPEN_WAIT does not wait."""
    for operation in (abi.OP_CALL, abi.OP_SEND_AND_WAIT):
        world = World()
        got = world.call(
            world.root, cap(abi.BOOT_CAP_SCHEDULER), operation,
            tag(abi.PROTO_SCHEDULER, 2, 0, abi.TAG_SCHEDULE), abi.SCHEDULER_INFO, 0, label=0x31,
        )  # fmt: skip
        assert got is not None
        assert (got.tag, got.label) == (tag(0, 3), 0x31)


def test_kernel_object_without_receive_phase() -> None:
    """The operation is done, EAX unchanged; message registers are not answered into."""
    world = World()
    sent = tag(abi.PROTO_SCHEDULER, 2)
    got = world.call(world.root, cap(abi.BOOT_CAP_SCHEDULER), abi.OP_SEND, sent, abi.SCHEDULER_INFO, 0)
    assert got is not None and got.tag == sent
    assert world.message(world.root, 2) == [abi.SCHEDULER_INFO, 0]


def test_task_wrong_label_is_answered_without_receive_phase() -> None:
    """-39 is written to EAX even so."""
    world = World()
    got = world.call(world.root, cap(abi.BOOT_CAP_TASK), abi.OP_SEND, tag(3, 1), 0)
    assert got is not None and got.value == -abi.EBADPROTO


def test_thread_without_words_is_answered_without_receive_phase() -> None:
    """-1001 is written to EAX even so."""
    world = World()
    got = world.call(world.root, abi.CAP_INVALID, abi.OP_SEND, tag(abi.PROTO_THREAD))
    assert got is not None and got.value == -abi.EMSGTOOSHORT


def test_ipc_error_of_an_object_is_answered_without_receive_phase() -> None:
    """An item argument that is no object page: error bit and code, also for send-only."""
    world = World()
    got = world.call(
        world.root, cap(abi.BOOT_CAP_TASK), abi.OP_SEND, tag(abi.PROTO_TASK, 3, 1), abi.TASK_MAP, 0, 0,
        abi.ITEM_MAP, memory_page(0x400000),
    )  # fmt: skip
    assert got is not None
    assert (got.tag, got.error) == (ERROR_BIT, abi.IPC_SEND_OVERFLOW)


@pytest.mark.parametrize(
    "slot", [abi.BOOT_CAP_FACTORY, abi.BOOT_CAP_LOG, abi.BOOT_CAP_SCHEDULER, abi.BOOT_CAP_ICU]
)
def test_closed_receive_on_an_object_that_never_sends_is_sleep(slot: int) -> None:
    """It means the caller itself: the timeout runs out."""
    world = World()
    assert world.call(world.root, cap(slot), abi.OP_RECV, tag(2), timeouts=SHORT) is None
    assert world.root.state == RECEIVING
    world.run_for(3000)
    got = world.answer(world.root)
    assert (got.tag, got.error) == (tag(2) | ERROR_BIT, abi.IPC_RECEIVE_TIMEOUT)


def test_closed_receive_on_a_task_is_refused() -> None:
    """Task looks at label and opcode whatever the flags are."""
    world = World()
    got = world.call(world.root, cap(abi.BOOT_CAP_TASK), abi.OP_RECV, tag(0))
    assert got is not None and got.value == -abi.EBADPROTO


def test_operation_without_reply_as_a_call_never_blocks_for_ever() -> None:
    """Log write, semaphore up, icu unmask as a call go on with a receive phase that times out."""
    world = World()
    world.create(21, abi.PROTO_SEMAPHORE)
    requests = (
        (abi.BOOT_CAP_LOG, tag(abi.PROTO_LOG, 2), (abi.LOG_WRITE, 0)),
        (21, tag(abi.PROTO_IRQ, 1), (abi.IRQ_TRIGGER,)),
        (abi.BOOT_CAP_ICU, tag(abi.PROTO_IRQ, 2), (abi.ICU_UNMASK, 0)),
    )
    for slot, sent, words in requests:
        got = world.call(world.root, cap(slot), abi.OP_CALL, sent, *words, timeouts=abi.TIMEOUT_ZERO)
        assert got is not None and (got.tag, got.error) == (sent | ERROR_BIT, abi.IPC_RECEIVE_TIMEOUT)


def test_thread_protocol_on_a_thread_is_a_kernel_call() -> None:
    """Label -12 with SEND and without REPLY; with REPLY it is a message like any other."""
    world, thread = two_threads()
    got = world.call(world.root, cap(20), abi.OP_CALL, tag(abi.PROTO_THREAD, 1), abi.THREAD_STATS)
    assert got is not None and got.tag == tag(0, 2)
    world.call(thread, abi.CAP_INVALID, abi.OP_WAIT)
    assert world.call(world.root, cap(20), abi.OP_CALL, tag(1)) is None
    world.call(thread, abi.CAP_INVALID, abi.OP_REPLY_AND_WAIT, tag(abi.PROTO_THREAD, 1), 3)
    assert world.answer(world.root).value == abi.PROTO_THREAD


# --- registers ----------------------------------------------------------------------------------


def test_registers_that_are_not_results_are_kept() -> None:
    """EDX and the rest come back as they were (the int path)."""
    world = World()
    frame = world.root.frame
    before = [frame[index] for index in range(16)]
    world.call(world.root, cap(99), abi.OP_SEND, tag(1), label=5)
    after = [frame[index] for index in range(16)]
    changed = {index for index in range(16) if before[index] != after[index]}
    assert changed <= {EAX, EDX, ESI}
    assert frame[EDX] == cap(99) | abi.OP_SEND


def test_special_selectors_mean_the_caller() -> None:
    """Any selector with the invalid or the reply bit names the caller, with W and S, whatever its index."""
    for selector in (abi.CAP_INVALID, 0x800, 0x5800, 0x400, 0x7C00):
        world = World()
        got = world.call(
            world.root,
            selector & ~0x3FF,
            abi.OP_CALL,
            tag(abi.PROTO_THREAD, 6),
            abi.THREAD_CONTROL,
            0,
            0,
            0,
            0,
            0,
        )
        assert got is not None and got.tag == tag(0, 3)


def test_task_capability_of_an_ended_task() -> None:
    """A capability to an object that was destroyed is an empty slot."""
    world = World()
    world.new_task(30)
    world.delete(30)
    got = world.call(world.root, cap(30), abi.OP_CALL, tag(abi.PROTO_TASK, 2), abi.TASK_CAP_INFO, 0)
    assert got is not None and got.error == abi.IPC_NOT_EXISTENT
