"""Stopping and going over whole machines in both directions: the run stays the run, to the last cycle."""

from __future__ import annotations

import hashlib
import random
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from l4lab.emulator.debug import history, replaying
from l4lab.emulator.debug.catching import Catch, CatchKind
from l4lab.emulator.debug.debugged import BEFORE_ENTRY, DebuggedMachine, Position
from l4lab.emulator.debug.debugging import Debugger, executed, read_memory
from l4lab.emulator.debug.replaying import Pace, Poll
from l4lab.emulator.debug.stops import (
    Breakpoint,
    Goal,
    GoalKind,
    MemoryEdit,
    RegisterEdit,
    Stop,
    StopKind,
    Watchpoint,
    step,
)
from l4lab.emulator.files.manifest import Manifest, load_manifest
from l4lab.emulator.machine import Machine
from l4lab.emulator.results import StopReason, collect
from l4lab.kernel.frame import EDI, EIP, FPU_CORE, FRAME_WORDS, UTCB_BASE
from l4lab.tools.bench.pma_image import PmaSetup
from support.runs import image

HEAP = 0x2000_0000
OFTEN = Pace(0.0, 0)


@pytest.fixture(scope="module")
def pma(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Four cores with a pager and a client on each."""
    path = tmp_path_factory.mktemp("pma") / "pma.toml"
    path.write_text(PmaSetup(cores=4, pages=5, tasks=2, ram="32MiB").manifest(), encoding="utf-8")
    return load_manifest(path)


def debugger_of(manifest: Manifest) -> Debugger:
    return Debugger(DebuggedMachine(manifest))


def digest(machine: Machine) -> str:
    """Everything that a person could look at: clocks, registers, RAM, console, and the kernel's objects."""
    hashed = hashlib.sha256(str(zlib.crc32(machine.ram.bytes_)).encode())
    hashed.update(machine.output)
    for core in machine.cores:
        hashed.update(f"{core.number} {core.clock_cycles} {core.kernel_cycles} {core.trap!r}".encode())
    for thread in machine.kernel.threads.values():
        if thread.frame[FPU_CORE]:
            machine.engine.sync_fpu(thread.frame)
        hashed.update(bytes(thread.frame)[: FPU_CORE * 4] + bytes(thread.frame)[128 : FRAME_WORDS * 4])
    hashed.update(machine.describe().encode())
    return hashed.hexdigest()


def outcome(machine: Machine, stop: Stop) -> tuple[object, ...]:
    assert stop.kind is StopKind.END and stop.result is not None, (stop.kind, stop.text)
    clocks = tuple(core.clock_cycles for core in machine.cores)
    return clocks, bytes(machine.output), collect(machine, stop.result).as_dict()


@cache
def undebugged(manifest: Manifest) -> tuple[object, ...]:
    machine = Machine(manifest)
    result = machine.run()
    return tuple(core.clock_cycles for core in machine.cores), bytes(machine.output), result.as_dict()


def to_the_end(debugger: Debugger) -> Stop:
    stop = debugger.resume()
    while stop.kind not in (StopKind.END, StopKind.BUG):
        stop = debugger.resume()
    return stop


def thread_number(debugger: Debugger, name: str) -> int:
    return next(t.number for t in debugger.machine.kernel.threads.values() if t.name == name)


def wander(debugger: Debugger, rng: random.Random, turns: int) -> None:
    """Do what debuggers do, at random."""
    machine = debugger.machine
    for _ in range(turns):
        threads = list(machine.kernel.threads.values())
        thread = rng.choice(threads)
        clock = machine.cores[0].clock_cycles
        match rng.randrange(9):
            case 0:
                debugger.go_to_clock(rng.randrange(len(machine.cores)), rng.randrange(2 * clock + 100_000))
            case 1:
                debugger.resume(step(thread.number))
            case 2:
                debugger.step_back(thread.number)
            case 3:
                place = thread.frame[EIP]
                debugger.set_breakpoints([Breakpoint(place), Breakpoint(place + 2, thread.number)])
                debugger.resume(poll=after(rng.randrange(1, 4)))
            case 4:
                debugger.resume(Goal(GoalKind.ENTRY))
            case 5:
                debugger.set_catches([Catch(1, rng.choice(list(CatchKind)))])
                debugger.resume()
            case 6:
                debugger.continue_back()
            case 7:
                task = thread.task.number if thread.task is not None else 1
                debugger.set_watchpoints(
                    [Watchpoint(HEAP + rng.randrange(0x3000), 8, task, True, rng.random() < 0.3)]
                )
                debugger.resume()
            case _:
                debugger.set_breakpoints(())
                debugger.set_catches(())
                debugger.set_watchpoints(())
                debugger.resume(step(thread.number, thread.frame[EIP] & ~0xFF, 0x200), after(2))


def after(asks: int) -> Poll:
    """Interrupts when it has been asked so often."""
    left = asks

    def poll() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    return poll


# --- nothing changes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hello", "pagefault", "clntsrv", "pma"])
def test_a_run_that_nobody_stops_is_the_undebugged_one(name: str) -> None:
    manifest = image(name)
    debugger = debugger_of(manifest)
    assert outcome(debugger.machine, debugger.resume()) == undebugged(manifest)


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        *(("pagefault", seed) for seed in range(6)),
        ("pma", 0),
        *(pytest.param("pma", seed, marks=pytest.mark.slow) for seed in range(1, 6)),
    ],
)
def test_whatever_is_looked_at_the_run_ends_the_same(
    monkeypatch: pytest.MonkeyPatch, pma: Manifest, name: str, seed: int
) -> None:
    manifest = pma if name == "pma" else image(name)
    monkeypatch.setattr(replaying, "POLL_SECONDS", 0.001)
    if seed % 2:
        monkeypatch.setattr(replaying, "FORWARD", OFTEN)
        monkeypatch.setattr(replaying, "REPLAY", OFTEN)
    debugger = debugger_of(manifest)
    wander(debugger, random.Random(seed), 25)
    debugger.set_breakpoints(())
    debugger.set_catches(())
    debugger.set_watchpoints(())
    assert outcome(debugger.machine, to_the_end(debugger)) == undebugged(manifest)


def test_what_is_printed_again_is_shown_once() -> None:
    shown: list[bytes] = []
    machine = DebuggedMachine(image("hello"), console=shown.append)
    debugger = Debugger(machine)
    for _ in range(3):
        debugger.resume()
        debugger.go_to(debugger.history.snapshots[0].position)
    debugger.resume()
    assert b"".join(shown) == machine.output == undebugged(image("hello"))[1]


# --- back to where it was -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("often", [False, True])
def test_every_place_is_found_again_as_it_was(
    monkeypatch: pytest.MonkeyPatch, pma: Manifest, often: bool
) -> None:
    """At instructions, before and after kernel entries, between turns; in any order, with many snapshots or few."""
    monkeypatch.setattr(replaying, "POLL_SECONDS", 0.001)
    if often:
        monkeypatch.setattr(replaying, "FORWARD", OFTEN)
        monkeypatch.setattr(replaying, "REPLAY", OFTEN)
    debugger = debugger_of(pma)
    rng = random.Random(5)
    places: list[tuple[Position, str]] = []
    debugger.set_catches([Catch(1, CatchKind.FAULT), Catch(2, CatchKind.MAP), Catch(3, CatchKind.UNMAP)])
    stop = debugger.resume(poll=after(1))
    while stop.kind is not StopKind.END:
        places.append((debugger.machine.position, digest(debugger.machine)))
        if len(places) == 250:
            break
        running = [
            core.decision.thread for core in debugger.machine.cores if core.decision.thread is not None
        ]
        if running and rng.random() < 0.3:
            stop = debugger.resume(step(rng.choice(running).number))
        elif rng.random() < 0.3:
            stop = debugger.resume(Goal(GoalKind.ENTRY))
        else:
            stop = debugger.resume(poll=after(rng.randrange(3)))
    assert len(places) > 50
    assert len({position.phase for position, _ in places}) == 3
    for position, expected in rng.sample(places, 60):
        debugger.go_to(position)
        assert debugger.machine.position == position
        assert digest(debugger.machine) == expected, position
    debugger.set_catches(())
    assert outcome(debugger.machine, to_the_end(debugger)) == undebugged(pma)


def test_a_moment_between_two_turns_is_a_place_like_any_other(
    monkeypatch: pytest.MonkeyPatch, pma: Manifest
) -> None:
    """Where somebody interrupts there is no snapshot; one can go back there, and change things there."""
    monkeypatch.setattr(replaying, "POLL_SECONDS", 0.001)
    debugger = debugger_of(pma)
    places = []
    for _ in range(5):
        stop = debugger.resume(poll=after(2))
        assert stop.kind is StopKind.INTERRUPTED
        places.append((debugger.machine.position, digest(debugger.machine)))
    debugger.edit(MemoryEdit(0, b"changed by hand"))
    for position, expected in places[::-1]:
        debugger.go_to(position)
        if position != places[-1][0]:
            assert digest(debugger.machine) == expected
    debugger.go_to(places[0][0])
    assert bytes(debugger.machine.ram.bytes_[:15]) != b"changed by hand"
    while debugger.machine.position <= places[-1][0]:
        debugger.resume(poll=after(5))
    assert bytes(debugger.machine.ram.bytes_[:15]) == b"changed by hand"


@pytest.mark.slow
def test_a_thinned_out_history_still_leads_everywhere(monkeypatch: pytest.MonkeyPatch, pma: Manifest) -> None:
    monkeypatch.setattr(replaying, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(replaying, "FORWARD", OFTEN)
    monkeypatch.setattr(history, "BUDGET_BYTES", 6 << 20)
    debugger = debugger_of(pma)
    places = []
    debugger.set_catches([Catch(1, CatchKind.MAP)])
    while debugger.resume().kind is not StopKind.END:
        places.append((debugger.machine.position, digest(debugger.machine)))
    kept = debugger.history.snapshots
    assert sum(snapshot.size_bytes for snapshot in kept) < 2 * (6 << 20)
    assert kept[0].position == Position(0, 0, 0)
    for position, expected in random.Random(1).sample(places, 8):
        debugger.go_to(position)
        assert digest(debugger.machine) == expected


def test_the_way_back_goes_on_though_snapshots_are_dropped_on_it(
    monkeypatch: pytest.MonkeyPatch, pma: Manifest
) -> None:
    debugger = debugger_of(pma)
    debugger.set_catches([Catch(1, CatchKind.CREATE)])
    first = debugger.resume().position
    debugger.set_catches(())
    debugger.resume()
    monkeypatch.setattr(replaying, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(replaying, "REPLAY", OFTEN)
    monkeypatch.setattr(history, "BUDGET_BYTES", 1 << 20)
    debugger.set_catches([Catch(1, CatchKind.CREATE)])
    while (stop := debugger.continue_back()).position != first:
        assert stop.kind is StopKind.CATCHPOINT


def test_steps_back_undo_steps(pma: Manifest) -> None:
    debugger = debugger_of(pma)
    debugger.set_catches([Catch(1, CatchKind.FAULT, task="pma.0")])
    stop = debugger.resume()
    assert stop.thread is not None
    number = stop.thread.number
    debugger.set_catches(())
    states = [digest(debugger.machine)]
    for _ in range(40):
        assert debugger.resume(step(number)).kind is StopKind.STEP
        states.append(digest(debugger.machine))
    for expected in states[-2:0:-1]:
        count = executed(debugger.machine.kernel.threads[number])
        assert debugger.step_back(number).kind is StopKind.STEP
        assert executed(debugger.machine.kernel.threads[number]) == count - 1
        assert digest(debugger.machine) == expected


def test_back_from_the_first_instruction_is_the_start() -> None:
    debugger = debugger_of(image("hello"))
    number = thread_number(debugger, "sigma0")
    debugger.resume(step(number))
    assert debugger.step_back(number).kind in (StopKind.STEP, StopKind.START)
    stop = debugger.step_back(number)
    assert stop.kind is StopKind.START and debugger.machine.position == Position(0, 0, 0)


def test_the_way_back_passes_every_stop_of_the_way_forth() -> None:
    debugger = debugger_of(image("pagefault"))
    debugger.set_catches([Catch(1, CatchKind.FAULT), Catch(2, CatchKind.MAP), Catch(3, CatchKind.CREATE)])
    forth = []
    while (stop := debugger.resume()).kind is not StopKind.END:
        forth.append((stop.position, stop.text))
    back = []
    while (stop := debugger.continue_back()).kind is not StopKind.START:
        back.append((stop.position, stop.text))
    assert back == forth[::-1] and len(back) > 100


def test_an_interrupted_way_back_ends_where_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "POLL_SECONDS", 0.001)
    debugger = debugger_of(image("pma"))
    debugger.resume()
    here, state = debugger.machine.position, digest(debugger.machine)
    stop = debugger.continue_back(after(3))
    assert stop.kind is StopKind.INTERRUPTED
    assert debugger.machine.position == here and digest(debugger.machine) == state


@pytest.mark.parametrize("cycle", [0, 1, 5173, 674_811, 674_812, 900_000])
@pytest.mark.parametrize("core", [0, 1])
def test_a_cycle_is_reached_from_before_and_from_behind(core: int, cycle: int) -> None:
    debugger = debugger_of(image("pagefault"))
    debugger.go_to_clock(core, cycle)
    before, state = debugger.machine.position, digest(debugger.machine)
    assert (
        debugger.machine.cores[core].clock_cycles >= cycle
        or debugger.machine.cores[core].decision.thread is None
    )
    debugger.go_to_clock(0, 1_200_000)
    debugger.go_to_clock(core, cycle)
    assert (debugger.machine.position, digest(debugger.machine)) == (before, state)


# --- what is changed by hand ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_change_belongs_to_its_moment() -> None:
    """Before it, it has not been made; after it, it has, however one gets there."""
    debugger = debugger_of(image("pagefault"))
    debugger.go_to_clock(0, 1_000_000)
    number = thread_number(debugger, "hello.0")
    debugger.edit(RegisterEdit(number, EDI, (0x1234_5678,)))
    debugger.edit(MemoryEdit(0x10, b"changed"))
    changed = debugger.machine.position

    def looked_at() -> tuple[int, bytes]:
        ram = debugger.machine.ram.bytes_
        return debugger.machine.kernel.threads[number].frame[EDI], bytes(ram[0x10:0x17])

    assert looked_at() == (0x1234_5678, b"changed")
    debugger.step_back(number)
    assert looked_at() != (0x1234_5678, b"changed")
    debugger.resume(step(number))
    assert debugger.machine.position == changed
    assert looked_at() == (0x1234_5678, b"changed")
    debugger.go_to_clock(0, 900_000)
    debugger.go_to(changed)
    later = to_the_end(debugger)
    ended = digest(debugger.machine)
    debugger.continue_back()
    assert later.kind is StopKind.END
    to_the_end(debugger)
    assert digest(debugger.machine) == ended


def test_a_change_in_the_past_forgets_what_was_to_come() -> None:
    """The heap's first word is not zero any more when `hello` looks at it, so it counts one page less."""
    debugger = debugger_of(image("pagefault"))
    debugger.resume()
    debugger.set_catches([Catch(1, CatchKind.MAP, task="hello.0", first=HEAP, last=HEAP + 0xFFF)])
    stop = debugger.continue_back()
    while stop.kind is StopKind.CATCHPOINT and stop.happening is not None and stop.happening.first != HEAP:
        stop = debugger.continue_back()
    task = next(task for task in debugger.machine.kernel.tasks.values() if task.name == "hello.0")
    assert read_memory(debugger.machine, task, HEAP, 4) == bytes(4)
    found = task.space.tables.translate(HEAP)
    assert found is not None
    debugger.edit(MemoryEdit(found.physical, b"\x01"))
    debugger.set_catches(())
    to_the_end(debugger)
    assert b"15 of 16 fresh pages" in debugger.machine.output


# --- catching -------------------------------------------------------------------------------------------


def caught(manifest: Manifest, *catches: Catch, most: int = 1000) -> list[Stop]:
    debugger = debugger_of(manifest)
    debugger.set_catches(catches)
    stops = []
    while (stop := debugger.resume()).kind is not StopKind.END and len(stops) < most:
        stops.append(stop)
    return stops


def test_faults_of_one_task_at_one_page() -> None:
    stops = caught(
        image("pagefault"), Catch(1, CatchKind.FAULT, task="hello.1", first=HEAP, last=HEAP + 0xFFF)
    )
    (stop,) = stops
    assert stop.catch is not None and stop.catch.number == 1
    assert stop.text == "hello.1: page fault: read from 0x20000000, not mapped, at 0x8048110"


def test_of_two_catchpoints_the_first_that_fits_is_named() -> None:
    stops = caught(
        image("pagefault"), Catch(7, CatchKind.MAP, task="nobody"), Catch(8, CatchKind.MAP, thread="pager.0")
    )
    assert len(stops) >= 32
    assert {stop.catch.number for stop in stops if stop.catch is not None} == {8}


def test_messages_of_a_protocol() -> None:
    every = caught(image("pagefault"), Catch(1, CatchKind.IPC))
    faults = caught(image("pagefault"), Catch(1, CatchKind.IPC, protocol=-2))
    assert 30 < len(faults) < len(every)
    assert all("page fault" in stop.text for stop in faults)


@pytest.mark.parametrize(
    "kind", [CatchKind.EXCEPTION, CatchKind.CAP, CatchKind.UNMAP, CatchKind.DESTROY, CatchKind.CREATE]
)
def test_the_conformance_suite_has_some_of_each_kind(kind: CatchKind) -> None:
    stops = caught(image("conformance"), Catch(1, kind), most=3)
    assert len(stops) >= 2
    assert all(stop.happening is not None and stop.happening.kind is kind and stop.text for stop in stops)


def test_watchpoints_see_what_the_kernel_writes() -> None:
    """Messages arrive in a UTCB without the receiver doing anything."""
    debugger = debugger_of(image("clntsrv"))
    debugger.set_catches([Catch(1, CatchKind.IPC)])
    stop = debugger.resume()
    for _ in range(30):
        stop = debugger.resume()
    thread = stop.thread
    assert thread is not None and thread.task is not None
    utcb = thread.frame[16] - 0xFC
    debugger.set_catches(())
    debugger.set_watchpoints([Watchpoint(utcb, 8, thread.task.number)])
    texts = [debugger.resume().text for _ in range(6)]
    assert any(text.startswith("the kernel wrote 8 bytes") for text in texts)


def test_watchpoints_set_right_before_a_kernel_entry_see_what_it_writes() -> None:
    """Even if that moment was reached on the way back, when nothing was watched yet."""
    debugger = debugger_of(image("clntsrv"))
    debugger.set_catches([Catch(1, CatchKind.FAULT)])
    for _ in range(4):
        debugger.resume()
    stop = debugger.continue_back()
    assert stop.kind is StopKind.CATCHPOINT and debugger.machine.position.phase == BEFORE_ENTRY
    tasks = list(debugger.machine.kernel.tasks.values())
    utcbs = [
        (task.number, address)
        for task in tasks
        for address in (thread.frame[UTCB_BASE] - 0xFC for thread in task.threads)
        if task.space.tables.translate(address) is not None
    ]
    assert utcbs
    debugger.set_catches(())
    debugger.set_watchpoints(Watchpoint(address, 8, task) for task, address in utcbs)
    stop = debugger.resume()
    assert stop.kind is StopKind.WATCHPOINT


def test_watchpoints_that_cannot_be_are_refused_whole() -> None:
    debugger = debugger_of(image("hello"))
    good = Watchpoint(HEAP, 4, 7)
    debugger.set_watchpoints([good])
    for bad in ([replace(good, size_bytes=65)], [replace(good, address=HEAP + i) for i in range(17)]):
        with pytest.raises(ValueError, match="expected at most 16 of 64 bytes"):
            debugger.set_watchpoints(bad)
        assert debugger.watchpoints == (good,)


def test_a_bug_in_the_kernel_stops_and_time_goes_on_in_front_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One can look at what led to it."""
    from l4lab.kernel.errors import KernelBug
    from l4lab.kernel.fiasco import faults

    debugger = debugger_of(image("pagefault"))
    debugger.set_catches([Catch(1, CatchKind.FAULT, task="hello.1")])
    place = debugger.resume().position

    def planted(*_: object) -> None:
        raise KernelBug("planted")

    monkeypatch.setattr(faults, "page_fault", planted)
    debugger.set_catches(())
    stop = debugger.resume()
    assert stop.kind is StopKind.BUG and "planted" in stop.text
    assert debugger.resume().kind is StopKind.BUG
    monkeypatch.undo()
    debugger.go_to(place)
    assert debugger.machine.position == place
    assert outcome(debugger.machine, to_the_end(debugger)) == undebugged(image("pagefault"))


def test_the_run_ends_where_it_is_told_to(tmp_path: Path) -> None:
    machine = DebuggedMachine(image("pagefault"), limit_cycles=500_000)
    debugger = Debugger(machine)
    stop = debugger.resume()
    assert stop.kind is StopKind.END and stop.result is not None and stop.result is StopReason.MAX_CYCLES
    plain = Machine(image("pagefault"))
    plain.run(500_000)
    assert [core.clock_cycles for core in machine.cores] == [core.clock_cycles for core in plain.cores]
