"""When snapshots were taken decides how fast one gets to a place in a run, never which place it is."""

from __future__ import annotations

import random
from functools import cache

import pytest

from l4lab.emulator.debug.catching import Catch, CatchKind
from l4lab.emulator.debug.debugged import DebuggedMachine, Entry, Position
from l4lab.emulator.debug.debugging import Debugger, executed
from l4lab.emulator.debug.stops import Breakpoint, MemoryEdit, Stop, StopKind, Watchpoint, step
from l4lab.kernel.frame import EIP, UTCB_BASE
from support.runs import image

HEAP = 0x2000_0000
CATCHES = [Catch(1, CatchKind.FAULT), Catch(2, CatchKind.MAP), Catch(3, CatchKind.IPC)]
Place = tuple[StopKind, Position, str]


class SnapshotsAtRandom(Debugger):
    """Takes them where chance wants it, on all ways through the run, instead of by the host's clock."""

    def __init__(self, machine: DebuggedMachine, seed: int, share: float) -> None:
        self._chance = random.Random(seed)
        self._share = share
        super().__init__(machine)

    def pauses_after(self, entry: Entry) -> bool:
        """As it is, and perhaps for a snapshot."""
        return super().pauses_after(entry) or self._wants_one()

    def pauses_between(self) -> bool:
        """As it is, and perhaps for a snapshot."""
        return super().pauses_between() or self._wants_one()

    def _wants_one(self) -> bool:
        wanted = self._chance.random() < self._share
        if wanted:
            self._want_snapshot(0)
        return wanted


SNAPSHOTS = [(1, 0.01), (2, 0.05), (3, 0.3)]


def debugger_with(seed: int, share: float) -> Debugger:
    return SnapshotsAtRandom(DebuggedMachine(image("pagefault")), seed, share)


def place(stop: Stop) -> Place:
    return stop.kind, stop.position, stop.text


def stops_forth_and_back(debugger: Debugger) -> tuple[list[Place], list[Place]]:
    """Of all kinds: what catchpoints catch, where sigma0 gets its messages, and what is written to its UTCB."""
    sigma0 = next(thread for thread in debugger.machine.kernel.threads.values() if thread.name == "sigma0")
    assert sigma0.task is not None
    debugger.set_catches([Catch(1, CatchKind.IPC, thread="sigma0")])
    assert debugger.resume().thread is sigma0
    debugger.set_breakpoints([Breakpoint(sigma0.frame[EIP], sigma0.task.number)])
    debugger.go_to(Position(0, 0, 0))
    debugger.set_catches(CATCHES)
    debugger.set_watchpoints([Watchpoint(sigma0.frame[UTCB_BASE] - 0xFC, 8, sigma0.task.number)])
    forth, back = [], []
    while (stop := debugger.resume()).kind is not StopKind.END:
        forth.append(place(stop))
    while (stop := debugger.continue_back()).kind is not StopKind.START:
        back.append(place(stop))
    assert {kind for kind, *_ in back} == {StopKind.CATCHPOINT, StopKind.BREAKPOINT, StopKind.WATCHPOINT}
    return forth, back


@cache
def way_with_few_snapshots() -> tuple[list[Place], list[Place]]:
    return stops_forth_and_back(debugger_with(0, 0.0))


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "share"), SNAPSHOTS)
def test_every_stop_of_the_way_forth_is_one_of_the_way_back(seed: int, share: float) -> None:
    forth, back = stops_forth_and_back(debugger_with(seed, share))
    assert (forth, back) == way_with_few_snapshots()
    passed = {position for _, position, _ in back}  # at a watchpoint it is that of before the access
    assert {position for kind, position, _ in forth if kind is not StopKind.WATCHPOINT} <= passed


def cycles_reached(debugger: Debugger) -> list[Position]:
    chance = random.Random(7)
    places = []
    for _ in range(60):
        debugger.go_to_clock(chance.randrange(2), chance.randrange(1_200_000))
        places.append(debugger.machine.position)
    return places


@pytest.mark.parametrize(("seed", "share"), SNAPSHOTS)
def test_a_cycle_of_a_core_busy_or_idle_is_one_place(seed: int, share: float) -> None:
    assert cycles_reached(debugger_with(seed, share)) == cycles_reached(debugger_with(0, 0.0))


def steps_back_to_the_start(debugger: Debugger) -> list[Place]:
    """From the 30th instruction of the pager, whose first one faults, so that it is tried twice."""
    debugger.tells_new_tasks = True
    stop = debugger.resume()
    assert stop.kind is StopKind.NEW_TASK and stop.thread is not None and stop.text == "pager.0"
    number = stop.thread.number
    debugger.tells_new_tasks = False
    while executed(debugger.machine.kernel.threads[number]) < 30:
        debugger.resume(step(number))
    places = []
    while (stop := debugger.step_back(number)).kind is not StopKind.START:
        places.append(place(stop))
    return places


@pytest.mark.parametrize(("seed", "share"), SNAPSHOTS)
def test_a_step_back_ends_at_one_place(seed: int, share: float) -> None:
    places = steps_back_to_the_start(debugger_with(seed, share))
    assert len(places) == 30
    assert places == steps_back_to_the_start(debugger_with(0, 0.0))


@pytest.mark.parametrize(("seed", "share"), [(0, 0.0), *SNAPSHOTS])
def test_a_step_back_of_a_thread_that_will_end_stays_in_its_life(seed: int, share: float) -> None:
    """Snapshots behind its end do not have it either."""
    debugger = debugger_with(seed, share)
    debugger.set_catches([Catch(1, CatchKind.FAULT, task="hello.0")])
    stop = debugger.resume()
    debugger.set_catches(())
    debugger.resume()
    debugger.go_to(stop.position)
    assert stop.thread is not None
    number = stop.thread.number
    done = executed(debugger.machine.kernel.threads[number])
    for count in range(done - 1, done - 20, -1):
        assert debugger.step_back(number).kind is StopKind.STEP
        assert executed(debugger.machine.kernel.threads[number]) == count


@pytest.mark.parametrize(("seed", "share"), [(0, 0.0), *SNAPSHOTS])
@pytest.mark.parametrize("kind", [CatchKind.FAULT, CatchKind.MAP])
def test_a_change_where_it_stopped_does_not_hide_that_stop(kind: CatchKind, seed: int, share: float) -> None:
    debugger = debugger_with(seed, share)
    debugger.set_catches([Catch(1, kind)])
    stops = []
    while (stop := debugger.resume()).kind is not StopKind.END:
        stops.append(place(stop))
        if len(stops) % 3 == 0:
            debugger.edit(MemoryEdit(0x20, bytes([len(stops)])))
    debugger.go_to(Position(0, 0, 0))
    again = []
    while (stop := debugger.resume()).kind is not StopKind.END:
        again.append(place(stop))
        assert debugger.machine.ram.bytes_[0x20] == len(again) // 3 * 3 & 0xFF
    assert again == stops
