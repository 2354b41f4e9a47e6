"""The ping-pong as an instrument: what it measures, what the ledger says of it, how it is printed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from l4lab.emulator.errors import OperatorError, ProfileError
from l4lab.emulator.files.inputs import BUNDLED_PROFILES
from l4lab.emulator.files.profile import Distance, load_profile
from l4lab.kernel.errors import KernelBug
from l4lab.kernel.state import TlbPolicy
from l4lab.tools.bench.pingpong_report import (
    PLACE_TITLES,
    Analysed,
    analyse,
    as_document,
    as_sel4bench,
    run_bench,
    summarise,
)
from l4lab.tools.bench.pingpong_run import (
    MESSAGES,
    Instrument,
    Place,
    Series,
    cores_by_distance,
    cross_core_cycles,
    places_of,
    read_results,
)
from l4lab.tools.ledger.accounts import imbalance
from l4lab.tools.ledger.breakdown import GROUPS, PATH_CAUSES, PathFinder

OPTERON = "opteron-6174"


@pytest.fixture(scope="module")
def series() -> Iterator[Series]:
    """Every place of the paper's machine, a few messages."""
    with Instrument() as instrument:
        yield instrument.measure(
            OPTERON, messages=("0", "8", "63", "sends:0", "mapping:512"), rounds=16, samples=3
        )


@pytest.fixture(scope="module")
def analysed(series: Series) -> tuple[Analysed, ...]:
    return analyse(series)


def by_name(analysed: tuple[Analysed, ...], place: str, message: str = "0") -> Analysed:
    return next(a for a in analysed if (a.measurement.place.name, a.measurement.message) == (place, message))


# --- measuring ----------------------------------------------------------------------------------


def test_places_are_those_that_the_machine_has() -> None:
    assert [place.name for place in places_of(load_profile(OPTERON))] == list(PLACE_TITLES)
    assert [place.cores for place in places_of(load_profile(OPTERON))] == [
        (0, 0),
        (0, 0),
        (0, 1),
        (0, 6),
        (0, 12),
    ]
    assert [place.name for place in places_of(load_profile("haswell-4770"))] == [
        "intra_space",
        "inter_space",
        "same_die",
    ]
    assert [place.name for place in places_of(load_profile("i486-dx50"))] == ["intra_space", "inter_space"]


def test_the_mean_over_all_other_cores(series: Series) -> None:
    """Of 47 others 5 are on the die of core 0 and 6 on the other die of its package."""
    found = {distance: len(cores) for distance, cores in cores_by_distance(series.profile).items()}
    assert found == {Distance.SAME_DIE: 5, Distance.OTHER_DIE: 6, Distance.OTHER_PACKAGE: 36}
    cycles = {name: series.cycles(name) for name in ("same_die", "other_die", "other_package")}
    mean = (5 * cycles["same_die"] + 6 * cycles["other_die"] + 36 * cycles["other_package"]) / 47
    assert cross_core_cycles(series) == mean


def test_farther_and_longer_is_dearer(series: Series) -> None:
    for message in ("0", "8", "63"):
        near_to_far = [series.cycles(place, message) for place in PLACE_TITLES]
        assert near_to_far == sorted(near_to_far)
    for place in PLACE_TITLES:
        assert series.cycles(place, "0") < series.cycles(place, "8") < series.cycles(place, "63")


def test_each_word_costs_the_copy_of_a_word_on_one_core(series: Series) -> None:
    for place in ("intra_space", "inter_space"):
        assert series.cycles(place, "63") - series.cycles(place, "8") == 55


def test_figure_5_is_within_what_the_paper_says(series: Series) -> None:
    summary = summarise(series)
    assert 200 <= summary.intra_space <= 900
    assert 900 <= summary.same_core <= 1100
    assert summary.cross_core == pytest.approx(12_000, rel=0.1)
    assert summary.ratio is not None and 10 <= summary.ratio <= 12


def test_a_machine_with_one_core_has_no_other() -> None:
    with Instrument() as instrument:
        series = instrument.measure("i486-dx50", messages=("0",), rounds=8, samples=1)
        assert cross_core_cycles(series) is None
        assert summarise(series).ratio is None


def test_the_same_cycles_again() -> None:
    places = places_of(load_profile(OPTERON))[1:4]
    with Instrument() as instrument:
        first, second = (instrument.measure(OPTERON, places, ("0",), rounds=8, samples=2) for _ in range(2))
        assert first.measurements == second.measurements
        assert first.run.rows.tobytes() == second.run.rows.tobytes()


def test_a_profile_of_ones_own_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (BUNDLED_PROFILES / "i486-dx50.toml").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(text.replace('name = "i486-dx50"', 'name = "mine"'), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with Instrument() as instrument:
        series = instrument.measure("./mine.toml", messages=("0",), rounds=8, samples=1)
    assert series.profile.name == "mine"
    assert series.cycles("inter_space") == pytest.approx(257, rel=0.05)


def test_mistakes_are_one_line() -> None:
    with Instrument() as instrument:
        with pytest.raises(ProfileError, match='found no profile "nope"'):
            instrument.measure("nope")
        with pytest.raises(
            OperatorError, match="pingpong: root task ended with exit code 2: pingpong: --messages=64"
        ):
            instrument.measure(OPTERON, messages=("64",))
        with pytest.raises(OperatorError, match="pingpong: --messages=0,many"):
            instrument.measure(OPTERON, messages=("0", "many"))


def test_result_lines_are_found_among_others() -> None:
    place = Place("inter_space", True, (0, 3))
    console = (
        "SIGMA0: Hello!\r\n"
        "PINGPONG space=inter cpus=0,3 message=mapping:512 rounds=4 start=100 cycles=800,816\r\n"
        "that was it\n"
    )
    (found,) = read_results(console, [place])
    assert (found.place, found.message, found.messages) == (place, "mapping:512", 16)
    assert (found.start_cycles, found.end_cycles, found.cycles) == (100, 1716, 101)
    assert found.sample_cycles() == [100, 102]


# --- where the cycles go ------------------------------------------------------------------------


def test_every_breakdown_adds_up_to_what_the_guest_measured(analysed: tuple[Analysed, ...]) -> None:
    assert len(analysed) == 25
    for one in analysed:
        assert sum(one.path.values()) == sum(one.measurement.samples)
        assert min(one.path.values()) >= 0
        assert Fraction(sum(one.per_message.values())) == pytest.approx(float(one.measurement.cycles))


def test_every_cause_is_in_one_group() -> None:
    assert sorted(cause for causes in GROUPS.values() for cause in causes) == sorted(PATH_CAUSES)


def test_a_message_on_one_core_costs_the_profile_s_parts(analysed: tuple[Analysed, ...]) -> None:
    kernel = load_profile(OPTERON).kernel_costs()
    for place, spaces in (("intra_space", 1), ("inter_space", 2)):
        parts = by_name(analysed, place, "8").per_message
        assert parts["entry"] == kernel.kernel_entry
        assert parts["exit"] == kernel.kernel_exit
        assert parts["path"] == kernel.syscall_decode + kernel.ipc_path + kernel.ipc_block
        assert parts["copy"] == 8 * kernel.copy_word
        assert parts["switch"] == kernel.thread_switch
        assert parts["space switch"] == (kernel.cr3_load if spaces == 2 else 0)
        assert parts["IPI"] == parts["waiting"] == parts["cache lines"] == 0


@pytest.mark.parametrize(("profile", "refills"), [(OPTERON, 4), ("i486-dx50", 5)])
def test_refills_after_a_switch_of_spaces(profile: str, refills: int) -> None:
    """Code, stack, message registers and a variable; without global pages the system call page as well."""
    place = places_of(load_profile(profile))[1]
    with Instrument() as instrument:
        (one,) = analyse(instrument.measure(profile, [place], ("0",), rounds=16, samples=1))
    cost = load_profile(profile).cpu["tlb_miss"].cycles
    assert one.per_message["TLB refill"] / cost == pytest.approx(refills, abs=0.2)


def test_a_message_to_another_core_travels_and_wakes_it(analysed: tuple[Analysed, ...]) -> None:
    profile = load_profile(OPTERON)
    for distance in Distance:
        one = by_name(analysed, distance.value)

        def per_message(cause: str, one: Analysed = one) -> float:
            return one.path[cause] / one.measurement.messages

        # The stretch begins and ends inside user code, so a little of one message is missing.
        assert per_message("in flight") == pytest.approx(profile.ipi_latency[distance].cycles, rel=0.01)
        # The answer to a message and the next message go with one interrupt, to a core that has halted.
        both_ends = profile.cpu["ipi_send"].cycles + profile.cpu["ipi_receive"].cycles
        both_ends += profile.kernel["list_step"].cycles  # the second of the two requests
        assert per_message("interprocessor interrupt") == pytest.approx(both_ends, rel=0.01)
        assert per_message("leaving the halt") == profile.cpu["halt_exit"].cycles
        assert per_message("cache line transfer") == 10 * profile.cache_line_transfer[distance].cycles


def test_items_to_another_core_take_three_interrupts(analysed: tuple[Analysed, ...]) -> None:
    """The request, the receiver's go-ahead, and the news that it is there."""
    profile = load_profile(OPTERON)
    one = by_name(analysed, "same_die", "mapping:512")
    flight = Fraction(one.path["in flight"], one.measurement.messages)
    assert flight == 3 * profile.ipi_latency[Distance.SAME_DIE].cycles


def test_paths_of_any_stretch_add_up(series: Series) -> None:
    random_ = random.Random("stretches")
    finder = PathFinder(series.run)
    for measurement in series.measurements:
        core = measurement.place.cores[0]
        rows = np.concatenate(list(series.run.row_chunks()))
        mine = rows[
            (rows["core"] == core) & (rows["thread"] > 0) & (rows["start"] >= measurement.start_cycles)
        ]
        mine = mine[mine["entry"] <= measurement.end_cycles]
        for _ in range(20):
            row = mine[random_.randrange(len(mine))]
            end = random_.randint(int(row["start"]), int(row["entry"]))
            start = random_.randint(measurement.start_cycles, end)
            path = finder.critical_path(core, start, end)
            assert sum(path.values()) == end - start
            assert min(path.values()) >= 0


def test_a_ledger_with_a_gap_is_refused(series: Series, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.concatenate(list(series.run.row_chunks()))
    spoilt = np.delete(rows, len(rows) // 2)
    monkeypatch.setattr(type(series.run), "row_chunks", lambda _: iter([spoilt]))
    assert imbalance([spoilt], series.run.cores, series.run.clocks) is not None
    with pytest.raises(KernelBug, match="the books do not balance"):
        analyse(series)


# --- TLB policies -------------------------------------------------------------------------------


def test_what_unmap_does_to_the_tlb_shows_in_the_refills() -> None:
    """The receiver takes a page back from itself: all of its TLB goes, or that page."""
    place = places_of(load_profile(OPTERON))[1]
    refills, flushes = {}, {}
    with Instrument() as instrument:
        for policy in TlbPolicy:
            series = instrument.measure(OPTERON, [place], ("mapping:64",), rounds=16, samples=1, tlb=policy)
            (one,) = analyse(series)
            refills[policy] = one.per_message["TLB refill"]
            flushes[policy] = one.path["TLB flush and shootdown"] / one.measurement.messages
    costs = load_profile(OPTERON).kernel_costs()
    assert flushes[TlbPolicy.FULL] == flushes[TlbPolicy.SWITCH] == costs.cr3_load
    assert flushes[TlbPolicy.PAGE] == costs.invalidate_page
    # Code, stack, message registers and data come back once more after a full flush.
    assert (
        refills[TlbPolicy.FULL] - refills[TlbPolicy.PAGE] > 3 * load_profile(OPTERON).cpu["tlb_miss"].cycles
    )


# --- documents ----------------------------------------------------------------------------------


def test_the_document(series: Series, analysed: tuple[Analysed, ...]) -> None:
    document = json.loads(json.dumps(as_document(series, analysed)))
    assert {"same_core_cycles", "cross_core_cycles", "ratio", "intra_space_cycles"} <= document.keys()
    assert document["ratio"] == pytest.approx(
        document["cross_core_cycles"] / document["same_core_cycles"], abs=0.01
    )
    assert [one["agrees"] for one in document["published_ratios"]] == [True, False]
    assert document["books"]["balanced"] is True
    assert document["configuration"]["machine"]["tlb"] == "full"
    for one in document["measurements"]:
        assert one["breakdown_sum"] == one["cycles"]
        assert sum(one["breakdown"].values()) == pytest.approx(one["cycles"], abs=0.1)
        assert one["min"] <= one["median"] <= one["max"]
        assert one["bytes"] == (4 * int(one["message"]) if one["message"].isdigit() else None)


def test_the_shape_of_sel4bench(series: Series) -> None:
    (benchmark,) = json.loads(json.dumps(as_sel4bench(series)))
    assert benchmark["Benchmark"].startswith("pingpong on opteron-6174")
    keys = {"Min", "Max", "Mean", "Stddev", "Variance", "Mode", "Median", "1st quantile", "3rd quantile"}
    for result in benchmark["Results"]:
        assert keys <= result.keys()
        assert (
            result["Min"]
            <= result["1st quantile"]
            <= result["Median"]
            <= result["3rd quantile"]
            <= result["Max"]
        )
        assert len(result["Raw results"]) == result["Samples"] == 3


def test_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_bench("i486-dx50", as_json=False, sel4bench=False) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "i486-dx50: cycles of one message, one way"
    row = next(line for line in out.splitlines() if line.startswith("two spaces"))
    cells = [int(cell) for cell in row.removeprefix("two spaces").split()]
    assert len(cells) == len(MESSAGES) + 1
    assert cells[0] == pytest.approx(250, rel=0.1)
    total = next(line for line in out.splitlines() if line.startswith("sum"))
    assert int(total.split()[2]) == cells[0]
