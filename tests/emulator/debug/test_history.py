"""Snapshots taken in any order, between others and behind them: each is restored as it was taken."""

from __future__ import annotations

import random
import zlib

import pytest

from l4lab.emulator.debug.debugged import DebuggedMachine, Pause, Position
from l4lab.emulator.debug.history import History
from support.runs import image


def state(machine: DebuggedMachine) -> tuple[int, ...]:
    """RAM in short, clocks, and registers of all threads."""
    frames = [word for thread in machine.kernel.threads.values() for word in thread.frame[:10]]
    clocks = [core.clock_cycles for core in machine.cores]
    return (zlib.crc32(machine.ram.bytes_), *clocks, *frames)


def advance(machine: DebuggedMachine, steps: int) -> None:
    """So many kernel entries and stretches of user code."""
    for _ in range(steps):
        if machine.go_on(seconds=0) is Pause.ENDED:
            return


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_every_snapshot_is_restored_as_it_was_taken(seed: int) -> None:
    """Also those that were put between two others, after going back and passing some that there were."""
    chance = random.Random(seed)
    machine = DebuggedMachine(image("pagefault"))
    history = History(machine)
    found: dict[Position, tuple[int, ...]] = {machine.position: state(machine)}
    for _ in range(40):
        if chance.random() < 0.3:
            snapshot = chance.choice(history.snapshots)
            history.restore(snapshot)
            assert state(machine) == found[snapshot.position]
        advance(machine, chance.randrange(1, 120))
        if machine.ended is not None:
            history.restore(chance.choice(history.snapshots))
            machine.ended = None
        now = state(machine)
        assert found.setdefault(machine.position, now) == now
        history.take()
    for snapshot in chance.sample(history.snapshots, len(history.snapshots)):
        history.restore(snapshot)
        assert state(machine) == found[snapshot.position]
