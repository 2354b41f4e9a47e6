"""The common case of IPC in one piece does what the ordinary way does, to the last bit."""

from __future__ import annotations

import random

import pytest

from l4lab.emulator.files.manifest import find_image, load_manifest
from l4lab.emulator.ledger import Ledger
from l4lab.emulator.machine import Machine
from l4lab.kernel import requests
from l4lab.kernel.events import EventLog
from l4lab.kernel.fiasco import abi, syscalls
from l4lab.kernel.sched import Core
from l4lab.kernel.state import Kernel
from l4lab.kernel.thread import READY, ReplySlot, Thread
from support.kernel_world import World, tag

IMAGES = ("hello", "clntsrv", "pagefault", "pingpong", "pma", "conformance")
CLIENT_OPERATIONS = (abi.OP_CALL, abi.OP_CALL, abi.OP_CALL, abi.OP_SEND, abi.OP_SEND_AND_WAIT)
SERVER_OPERATIONS = (
    abi.OP_REPLY_AND_WAIT,
    abi.OP_REPLY_AND_WAIT,
    abi.OP_REPLY_AND_WAIT,
    abi.OP_WAIT,
    abi.OP_CALL,
)
SEEDS = range(12)
STEPS = 150
CYCLES = 100_000_000
SELECTORS = (20 << 12, 21 << 12, 3 << 12, 5 << 12 | abi.CAP_EXPLICIT_REPLY_BIT)


@pytest.mark.parametrize("trace", [False, True], ids=["ledger", "trace"])
@pytest.mark.parametrize("image", IMAGES)
def test_systems_run_alike_with_and_without(image: str, trace: bool) -> None:
    """Same output, same cycles on every core, same work of every task; same rows, same events."""
    results, books = [], []
    for allowed in (True, False):
        ledger = Ledger(trace=trace)
        machine = Machine(load_manifest(find_image(image)), ledger=ledger)
        machine.kernel.fast_path = allowed
        results.append(machine.run(CYCLES))
        log = ledger.log
        books.append((ledger.row_data(), ledger.event_data(), log.requests, log.names, log.homes))
    assert results[0] == results[1]
    assert books[0] == books[1]


@pytest.mark.parametrize("log", ["none", "ledger", "trace"])
@pytest.mark.parametrize("seed", SEEDS)
def test_random_conversations_leave_the_same_state(
    seed: int, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random calls, answers and waits of three threads: every register and field agrees at every step."""
    ordinary = taken = 0
    original = syscalls.entered

    def counted(kernel: Kernel, core: Core, me: Thread) -> None:
        nonlocal ordinary
        ordinary += 1
        original(kernel, core, me)

    monkeypatch.setattr(syscalls, "entered", counted)
    choose = random.Random(seed)
    worlds: list[World] = []
    for _ in range(STEPS):
        if not any(thread.state == READY for world in worlds[:1] for thread in _threads(world)):
            worlds = [_conversation(allowed, 1 + seed % 2, log) for allowed in (True, False)]
        position = choose.randrange(3)
        operation = choose.choice(CLIENT_OPERATIONS if position == 0 else SERVER_OPERATIONS)
        selector = choose.choice(SELECTORS)
        message = tag(choose.randrange(5), choose.randrange(4), 0, choose.choice((0, 0, 0, abi.TAG_SCHEDULE)))
        timeouts = choose.choice((0, abi.TIMEOUT_ZERO << 16))
        words = [choose.randrange(1 << 32) for _ in range(3)]
        for world in worlds:
            thread = _threads(world)[position]
            if thread.state == READY:
                _expect_entry(world, thread)
                before = ordinary
                world.call(thread, selector, operation, message, *words, timeouts=timeouts, label=words[0])
                taken += ordinary == before
        assert _state(worlds[0]) == _state(worlds[1])
        assert worlds[0].decisions[0].bill == worlds[1].decisions[0].bill
    assert 0 < taken < STEPS


def _conversation(fast_path: bool, priority: int, log: str) -> World:
    """A client and two servers that wait. `log`: what is logged, "none", "ledger" or "trace"."""
    world = World()
    world.kernel.fast_path = fast_path
    if log != "none":
        requests.start(world.kernel, EventLog())
    if log == "trace":
        world.kernel.trace = world.kernel.events
    for slot in (20, 21):
        world.call(world.new_thread(slot, priority=priority), abi.CAP_INVALID, abi.OP_WAIT)
    return world


def _expect_entry(world: World, thread: Thread) -> None:
    """What whoever keeps a log does before each kernel entry, see `EventLog`."""
    log = world.kernel.events
    if log is not None:
        log.entered = thread
        log.sent_to = 0


def _threads(world: World) -> list[Thread]:
    return [world.root, *list(world.kernel.threads.values())[2:]]


def _owner(world: World, slot: ReplySlot) -> tuple[int, int]:
    """Which slot it is: (number of the thread or task whose it is, index among the task's, -1 for a thread's own)."""
    for thread in _threads(world):
        if thread.reply is slot:
            return thread.number, -1
    slots = [
        (task.number, index)
        for task in world.kernel.tasks.values()
        for index in task.reply_slots
        if task.reply_slots[index] is slot
    ]
    return slots[0]


def _state(world: World) -> list[object]:
    """Everything of the threads that a later step can depend on, by number instead of by identity."""
    core = world.kernel.cores[0]
    state: list[object] = [core.current and core.current.number, core.context and core.context.number]
    state.append([thread.number for thread in core.ready.threads()])
    state.append(world.kernel.served)
    log = world.kernel.events
    if log is not None:
        state += [log.pending, log.requests, log.sent_to, log.sent_tag]
    for thread in _threads(world):
        partner, caller, source = thread.partner, thread.reply.caller, thread.receive_from
        holder, wanted = thread.held_by, thread.reply_slot_wanted
        state += [
            thread.frame.tobytes(),
            world.message(thread, 8),
            thread.state,
            partner and partner.number,
            caller and (caller.number, thread.reply.rights),
            holder and _owner(world, holder),
            wanted and _owner(world, wanted),
            thread.request,
            thread.began,
            thread.last_request,
            thread.receive,
            thread.receive == 1 and source and source.number,
            thread.send_tag,
            thread.send_label,
            thread.send_rights,
            thread.system_calls,
            thread.ipc_count,
            [sender.number for sender in thread.senders],
        ]
    return state
