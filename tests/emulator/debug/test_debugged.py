"""A machine that is left and entered again at every step, wherever that is, makes the run that it makes at once."""

from __future__ import annotations

import gc
import random
import signal
import threading
import weakref
from collections.abc import Callable

import pytest

from l4lab.emulator.debug import debugged
from l4lab.emulator.debug.debugged import Count, DebuggedMachine, Entry, NoControl, Pause, Position
from l4lab.emulator.debug.debugging import Debugger, executed
from l4lab.emulator.debug.debugport import Watch
from l4lab.emulator.debug.stops import Breakpoint, StopKind, step
from l4lab.emulator.files.manifest import Manifest, load_manifest
from l4lab.emulator.machine import Machine
from l4lab.emulator.results import collect
from l4lab.kernel.invariants import check_all
from l4lab.kernel.thread import Thread
from l4lab.tools.bench.pma_image import PmaSetup
from support.runs import image


@pytest.fixture(scope="module")
def pma(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """One pager for the clients on four cores: they wait for each other all the time."""
    path = tmp_path_factory.mktemp("pma") / "pma.toml"
    path.write_text(
        PmaSetup(cores=4, pages=5, tasks=2, ram="32MiB", design="single").manifest(), encoding="utf-8"
    )
    return load_manifest(path)


class PausesAtRandom(NoControl):
    """At every kind of place, with a share of them; inside stretches, too."""

    def __init__(self, seed: int, share: float) -> None:
        self._chance = random.Random(seed)
        self._share = share

    def _pauses(self) -> bool:
        return self._chance.random() < self._share

    def count_for(self, thread: Thread) -> Count | None:
        """Some instructions on."""
        return Count(executed(thread) + self._chance.randrange(1, 2000)) if self._pauses() else None

    def pauses_between(self) -> bool:
        """Perhaps."""
        return self._pauses()

    def pauses_before(self, entry: Entry) -> bool:
        """Perhaps."""
        return self._pauses()

    def pauses_after(self, entry: Entry) -> bool:
        """Perhaps."""
        return self._pauses()


def steps_of(machine: DebuggedMachine, go_on: Callable[[], Pause]) -> list[Position]:
    """Where it has paused until its end."""
    passed = []
    while go_on() is not Pause.ENDED:
        passed.append(machine.position)
    return passed


@pytest.mark.parametrize("name", ["hello", "pagefault", "pma"])
@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_pauses_of_every_kind_change_nothing(pma: Manifest, name: str, share: float) -> None:
    manifest = pma if name == "pma" else image(name)
    machine, control = DebuggedMachine(manifest), PausesAtRandom(1, share)
    machine.port.activate(True)
    machine.halt_steps = 0
    passed = steps_of(machine, lambda: machine.go_on(control))
    assert passed == sorted(passed) and len({position.phase for position in passed}) == 3
    assert machine.ended is not None
    assert collect(machine, machine.ended) == Machine(manifest).run()


def test_every_step_is_one(pma: Manifest) -> None:
    """Without time to run it pauses behind each kernel entry and stretch, and passes none of them by."""
    machine = DebuggedMachine(pma)
    passed = steps_of(machine, lambda: machine.go_on(seconds=0))
    assert [position.steps for position in passed] == list(range(1, machine.steps + 1))
    assert machine.ended is not None
    assert collect(machine, machine.ended) == Machine(pma).run()


def test_what_comes_next_waits_while_it_stands(pma: Manifest) -> None:
    """An interrupt that a core is about to take is still on its way, for whoever looks at the cores."""
    machine = DebuggedMachine(pma)
    waiting = 0
    while machine.go_on(seconds=0) is not Pause.ENDED:
        earliest = min(machine.cores, key=lambda core: core.moment)
        due = bool(earliest.interrupts) and earliest.interrupts[0][0] <= earliest.moment
        waiting += due and earliest.trap is None
    assert waiting > 100


def test_a_stretch_with_watchpoints_is_cut_for_whoever_wants_to_interrupt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They can make it so slow that it does not end for long; the run stays the same."""
    monkeypatch.setattr(debugged, "_SLICE_INSTRUCTIONS", 1000)
    machine = DebuggedMachine(image("pagefault"))
    machine.port.activate(True)
    machine.port.set_watches([Watch(0, 4, write=True, read=False)])
    passed = steps_of(machine, lambda: machine.go_on(seconds=0))
    assert sum(position.phase == 1 for position in passed) > 500
    assert machine.ended is not None
    assert collect(machine, machine.ended) == Machine(image("pagefault")).run()


def test_ctrl_c_waits_for_the_end_of_a_step() -> None:
    """Pressed in the middle of the kernel, which can then go on."""
    debugger = Debugger(DebuggedMachine(image("pagefault")))
    entries = 0

    def press(_entry: Entry, _events: object, _before: bool) -> None:
        nonlocal entries
        entries += 1
        if entries == 100:
            signal.raise_signal(signal.SIGINT)

    debugger.observers.append(press)
    with pytest.raises(KeyboardInterrupt):
        debugger.resume()
    check_all(debugger.machine.kernel)
    assert 100 <= entries < 110
    stop = debugger.resume()
    assert stop.result is not None
    assert collect(debugger.machine, stop.result) == Machine(image("pagefault")).run()


def test_the_last_reference_takes_a_debugged_machine_and_its_debugger_along() -> None:
    """Whatever was done with it, and in the middle of a stretch; nothing waits for it on another thread."""
    gc.collect()
    gc.disable()
    try:
        threads = threading.active_count()
        debugger = Debugger(DebuggedMachine(image("pagefault"), console=bytearray().extend))
        debugger.set_breakpoints([Breakpoint(0x10_0000)])
        stop = debugger.resume()
        assert stop.kind is StopKind.BREAKPOINT and stop.thread is not None
        number = stop.thread.number
        del stop
        debugger.set_breakpoints(())
        debugger.go_to_clock(1, 600_000)
        debugger.step_back(number)
        debugger.resume(step(number))
        debugger.continue_back()
        debugger.resume()
        machine = debugger.machine
        gone = [weakref.ref(machine), weakref.ref(machine.engine), weakref.ref(debugger.history)]
        del machine, debugger
        assert [part() for part in gone] == [None, None, None]
        assert threading.active_count() == threads
    finally:
        gc.enable()
