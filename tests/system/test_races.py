"""Races between cores, with real programs: `races.c` starts two operations against each other at chosen cycles.

The steps are odd and small against the latency between cores, so that the second operation falls into every
phase of the first. The program itself says whether both sides saw the same outcome.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from l4lab.emulator.files.manifest import load_manifest
from l4lab.emulator.ledger import Ledger
from l4lab.emulator.machine import CoreState, Machine
from l4lab.emulator.results import RunResult, StopReason
from l4lab.kernel import events
from l4lab.kernel.invariants import check_all
from l4lab.kernel.state import FlushTlb, TlbPolicy
from l4lab.tools.runs.rundir import EVENT, kinds_of
from support.books import check_balance
from support.programs import compile_program

CHECK_EVERY_CYCLES = 100_003


@pytest.fixture(scope="module")
def races(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(__file__).with_name("races.c").read_text(encoding="utf-8")
    return compile_program(source, tmp_path_factory.mktemp("races") / "races")


def machine(
    races: Path,
    mode: str,
    step: int,
    rounds: int,
    tlb: TlbPolicy = TlbPolicy.FULL,
    ledger: Ledger | None = None,
) -> Machine:
    manifest = races.with_name(f"{mode}-{tlb.value}.toml")
    manifest.write_text(
        f'[machine]\ncores = 5\nram = "32MiB"\ntlb = "{tlb.value}"\n'
        f'[boot]\nsigma0 = "sigma0"\nroottask = "races {mode} {step} {rounds}"\n',
        encoding="utf-8",
    )
    return Machine(load_manifest(manifest), ledger=ledger)


def run(race: Machine) -> tuple[RunResult, dict[int, int]]:
    """Run to the end, checking all invariants on the way; how often each outcome came."""
    limit = 0
    while True:
        limit += CHECK_EVERY_CYCLES
        result = race.run(limit)
        check_all(race.kernel)
        if result.reason is not StopReason.MAX_CYCLES:
            break
    lines = result.console.decode().splitlines()
    line = next((line for line in lines if line.startswith(("RACE", "panic"))), "nothing printed")
    assert (result.reason, result.exit_code) == (StopReason.ROOT_ENDED, 0), line
    return result, {int(key): int(value) for key, value in (pair.split(":") for pair in line.split()[2:])}


@pytest.mark.parametrize(
    ("mode", "step", "rounds", "outcomes"),
    [
        ("timeout", 100_003, 30, {0, 2}),
        ("cancel", 131, 260, {0, 6, 7}),
        ("cancel-page", 131, 340, {0, 6, 7}),
        ("kill-caller", 131, 260, {0, 6, 7}),
        ("kill-caller-page", 131, 340, {0, 6, 7}),
        ("kill-receiver", 97, 150, {0, 4}),
        ("migrate", 97, 230, {0}),
        ("migrate-page", 97, 340, {0}),
        ("crowd", 59, 150, {0}),
    ],
)
def test_both_sides_agree_on_what_came_first(
    races: Path, mode: str, step: int, rounds: int, outcomes: set[int]
) -> None:
    """A send against its timeout; a call against cancelling, ending or moving one of the two. Outcomes: IPC errors."""
    _, counts = run(machine(races, mode, step, rounds))
    assert set(counts) == outcomes
    assert sum(counts.values()) == rounds


@pytest.mark.parametrize("tlb", TlbPolicy)
@pytest.mark.parametrize(("mode", "step", "rounds"), [("unmap", 83, 250), ("end-task", 211, 90)])
def test_what_was_taken_away_is_not_written_to_any_more(
    races: Path, mode: str, step: int, rounds: int, tlb: TlbPolicy
) -> None:
    """Two cores write all the time; when unmap or the task's end returns, no translation of the page is left."""
    _, counts = run(machine(races, mode, step, rounds, tlb))
    assert counts[1] > rounds  # writers had written, on most occasions both


@pytest.mark.parametrize("tlb", TlbPolicy)
def test_the_race_notices_a_tlb_that_is_not_flushed(
    races: Path, tlb: TlbPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = Machine._flush

    def forgetful(self: Machine, core: CoreState, effect: FlushTlb, now: int) -> None:
        flush(self, core, FlushTlb(effect.cores & 1 << core.number, effect.pages, 0), now)

    monkeypatch.setattr(Machine, "_flush", forgetful)
    result = machine(races, "unmap", 1999, 20, tlb).run()
    assert result.exit_code == 1
    assert b"a page was written to after it had been unmapped" in result.console


def test_requests_that_meet_in_a_queue_come_with_one_interrupt(races: Path) -> None:
    ledger = Ledger()
    run(machine(races, "crowd", 59, 60, ledger=ledger))
    events_ = np.frombuffer(ledger.event_data(), EVENT)
    sent = events_[kinds_of(events_) == events.SENT]
    went_along = sent[sent["b"] == 0]
    assert len(went_along) > 30
    assert len(sent) - len(went_along) > 60


@pytest.mark.parametrize("mode", ["cancel-page", "kill-caller-page", "unmap", "crowd"])
def test_the_books_balance_whatever_happens(races: Path, mode: str) -> None:
    ledger = Ledger()
    race = machine(races, mode, 331, 60, ledger=ledger)
    run(race)
    check_balance(race, ledger)


def test_the_same_race_runs_the_same_way_again(races: Path) -> None:
    first, second = (machine(races, "cancel-page", 331, 60).run() for _ in range(2))
    assert first == second
