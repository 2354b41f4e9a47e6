"""Clocks far from boot: what a guest may ask for is weeks to millennia, and counts in cycles, in 64 bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from l4lab.emulator.debug.debugged import DebuggedMachine
from l4lab.emulator.debug.debugging import Debugger
from l4lab.emulator.debug.stops import StopKind
from l4lab.emulator.files.manifest import Manifest, load_manifest
from l4lab.emulator.ledger import Ledger
from l4lab.emulator.machine import LAST_WAKE_UP_CYCLES, NEVER, Machine
from l4lab.emulator.results import RunResult, StopReason
from l4lab.kernel.fiasco import abi
from support.books import check_balance
from support.programs import compile_program

MHZ = 2200
LONGEST = abi.TIMEOUT_MANTISSA_MASK << 31  # microseconds, of what a relative timeout can say
LONGEST_CODED = 31 << abi.TIMEOUT_EXPONENT_SHIFT | abi.TIMEOUT_MANTISSA_MASK
TICK_CYCLES = abi.TICK_US * MHZ


@pytest.fixture(scope="module")
def sleeper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(__file__).with_name("long_times.c").read_text(encoding="utf-8")
    return compile_program(source, tmp_path_factory.mktemp("long") / "sleeper")


def manifest(sleeper: Path, *arguments: object, cores: int = 1) -> Manifest:
    path = sleeper.with_name("long.toml")
    words = " ".join(map(str, ("sleeper", *arguments)))
    path.write_text(
        f'[machine]\ncores = {cores}\nram = "16MiB"\n[boot]\nsigma0 = "sigma0"\nroottask = "{words}"\n',
        encoding="utf-8",
    )
    return load_manifest(path)


def until(sleeper: Path, microseconds: int) -> Manifest:
    return manifest(sleeper, "until", microseconds >> 32, microseconds & 0xFFFFFFFF)


def slept(result: RunResult) -> tuple[list[int], int]:
    """The processor's clock behind each sleep, and what the work took."""
    *clocks, work = result.console.decode().splitlines()
    halves = [line.split() for line in clocks]
    return [int(high) << 32 | int(low) for high, low in halves], int(work)


def run(of: Manifest) -> RunResult:
    """With a ledger, whose books must balance."""
    ledger = Ledger()
    with Machine(of, ledger=ledger) as machine:
        result = machine.run()
        check_balance(machine, ledger)
    return result


def test_the_longest_timeout_again_and_again(sleeper: Path) -> None:
    """Twice is where a clock of 64 bits in thousandths of a cycle ends; a work after it costs as ever."""
    short, long = (run(manifest(sleeper, coded, 5)) for coded in (1 << 10 | 5, LONGEST_CODED))
    assert (short.reason, long.reason) == (StopReason.ROOT_ENDED,) * 2
    assert (short.exit_code, long.exit_code) == (7, 7)
    clocks, work = slept(long)
    for times, clock in enumerate(clocks, 1):
        assert times * LONGEST * MHZ <= clock < times * (LONGEST * MHZ + 2 * TICK_CYCLES)
    assert work == slept(short)[1]


@pytest.mark.parametrize(
    "microseconds", [1 << 22, 1 << 32, 1 << 42, 1 << 43, 1 << 48, (1 << 61) // MHZ - 1000]
)
def test_until_a_time_far_away(sleeper: Path, microseconds: int) -> None:
    result = run(until(sleeper, microseconds))
    assert (result.reason, result.exit_code) == (StopReason.ROOT_ENDED, 7)
    (clock,), _ = slept(result)
    assert microseconds * MHZ <= clock < microseconds * MHZ + 2 * TICK_CYCLES


@pytest.mark.parametrize(
    "microseconds",
    [
        LAST_WAKE_UP_CYCLES // MHZ + 1,
        NEVER // MHZ - 1,
        NEVER // MHZ,
        NEVER,
        (1 << 63) - 1,
        1 << 63,
        (1 << 64) - 1,
    ],
)
def test_a_time_that_no_clock_shows_never_comes(sleeper: Path, microseconds: int) -> None:
    result = run(until(sleeper, microseconds))
    assert result.reason is StopReason.ALL_WAIT
    assert result.cycles < TICK_CYCLES


def test_several_cores_sleep_and_books_balance(sleeper: Path) -> None:
    one, four = (run(manifest(sleeper, LONGEST_CODED, 3, cores=cores)) for cores in (1, 4))
    assert slept(one) == slept(four)


@pytest.mark.parametrize("limit_us", [1 << 43, 1 << 48])
def test_a_limit_beyond(sleeper: Path, limit_us: int) -> None:
    """A limit stops where it says, and one that is larger than any clock is none."""
    of = until(sleeper, 1 << 43)
    with Machine(of) as machine:
        stopped = machine.run(limit_us * MHZ - 1)
    assert stopped.reason is (StopReason.MAX_CYCLES if limit_us == 1 << 43 else StopReason.ROOT_ENDED)
    with Machine(until(sleeper, 1 << 63)) as machine:
        assert machine.run(1 << 100).reason is StopReason.ALL_WAIT


def test_back_and_forth_over_weeks(sleeper: Path) -> None:
    """A snapshot has the clock with it, and a cycle behind weeks can be gone to."""
    with DebuggedMachine(until(sleeper, 1 << 43)) as machine:
        debugger = Debugger(machine)
        awake = -(-(1 << 43) // abi.TICK_US) * TICK_CYCLES + 3000
        places = []
        for cycle in (awake, 1000, awake + 5000, 1000, awake, NEVER, 1 << 63, 1 << 70):
            stop = debugger.go_to_clock(0, cycle)
            places.append((stop.kind, machine.position, machine.cores[0].vcpu.clock_cycles))
    assert (places[0], places[1]) == (places[4], places[3])
    assert places[5] == places[6] == places[7]
    assert places[5][0] is StopKind.END
    for (kind, _, clock), cycle in ((places[0], awake), (places[2], awake + 5000)):
        assert kind is not StopKind.END
        assert cycle <= clock < cycle + TICK_CYCLES
