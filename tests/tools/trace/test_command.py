"""`l4lab trace`: the command, text, the same every time and in bounded memory, and what is no run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO, StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l4lab.emulator.files.manifest import load_manifest
from l4lab.emulator.ledger import BATCH_VALUES, SAMPLE_CYCLES, Ledger
from l4lab.kernel import events
from l4lab.kernel.events import Event
from l4lab.kernel.traps import HostStop
from l4lab.tools.bench.pma_image import PmaSetup
from l4lab.tools.ledger.timeline import Timeline
from l4lab.tools.runs.rundir import EVENT, ROW, Run, kinds_of, open_run
from l4lab.tools.runs.symbols import Symbols
from l4lab.tools.trace.perfetto import write_perfetto
from l4lab.tools.trace.source import Clock, checked, stretches, within
from l4lab.tools.trace.speedscope import write_speedscope
from l4lab.tools.trace.text import Describer, text_lines
from support import random_guest
from support.command import CLI, call
from support.programs import compile_program, write_manifest
from support.runs import image, record
from support.traces import Viewer, profile_of, traced_pagefault, traced_single, viewed

SPARED_CYCLES = 2000
"""What a kernel entry is let off that need not send an interrupt, because there is one under way."""


@pytest.fixture(scope="module", params=[traced_pagefault, traced_single])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with all events."""
    found: Run = request.param(tmp_path_factory.mktemp("run"))
    return found


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One pager, which has a queue."""
    return traced_single(tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module")
def pagefault(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One pager for two cores."""
    return traced_pagefault(tmp_path_factory.mktemp("pagefault"))


# --- text ---------------------------------------------------------------------------------------------


def event(kind: int, **values: int) -> Event:
    given = dict.fromkeys(Event._fields, 0) | {"kind": kind, "thread": 11, "cycle": 7} | values
    return Event(**given)


GOLDEN: list[tuple[Event, str]] = [
    (
        event(events.FAULT, a=0x1000, b=0x8048000, extra=6, number=17),
        "pfa=0x1000 ip=0x8048000 (write, not mapped): fault 17",
    ),
    (
        event(events.FAULT, a=0x1000, b=0x8048000, extra=21, number=2),
        "pfa=0x1000 ip=0x8048000 (fetch, not allowed): fault 2",
    ),
    (event(events.EXCEPTION, a=6, b=0x8048000, number=1), "trap=6 ip=0x8048000: exception 1"),
    (
        event(events.IPC, partner=12, a=0x72003, number=4),
        "to server #12 label=7 words=3 items=0 (send): ipc 4",
    ),
    (
        event(events.IPC, partner=40, extra=2, number=5),
        "to gate #40 label=0 words=0 items=0 (send, open wait): ipc 5",
    ),
    (event(events.MESSAGE, partner=12, b=0x40), "-> server #12 label=0 words=0 items=0 badge=0x40"),
    (event(events.IRQ, thread=30, partner=11, b=5), "irq #30 to client #11 label=0x5"),
    (event(events.END, a=4), "error=0x4"),
    (event(events.QUEUED, partner=12), "at server #12"),
    (event(events.QUEUED, partner=31, extra=4), "at semaphore #31"),
    (
        event(events.SENT, partner=3, extra=1, a=20, b=600),
        "send to core 3 for client #11 waited=20 travels=600",
    ),
    (
        event(events.SENT, partner=3, extra=1, a=90),
        "send to core 3 for client #11, with an interrupt that arrives in 90 cycles",
    ),
    (event(events.SERVED, extra=7), "transfer for client #11"),
    (event(events.TIMEOUT), "client #11"),
    (event(events.OBTAINED, partner=31), "has semaphore #31"),
    (event(events.BOUND, partner=1), "to task client #1"),
    (event(events.SWITCH, partner=12, a=1), "server #12 -> client #11, another address space"),
    (event(events.SWITCH, thread=0, partner=12), "server #12 -> idle"),
    (event(events.RESOLVED, partner=12, a=0x1000), "pfa=0x1000 by server #12: mapped"),
    (event(events.RESOLVED, partner=12, a=0x1000, b=1), "pfa=0x1000 by server #12: refused"),
    (event(events.MAP, partner=1, a=0x4000, b=0x1000, extra=1), "to task client #1 0x4000 -> 0x1000 pages=1"),
    (event(events.UNMAP, partner=1, a=0x1000, b=4, extra=7), "from task client #1 0x1000 pages=4 rights=0x7"),
    (event(events.CREATE, partner=40, a=2), "gate #40 by client #11"),
    (event(events.DESTROY, partner=12), "server #12"),
    (event(events.MIGRATE, partner=1, a=2), "core 1 -> core 2"),
    (event(events.MIGRATE, partner=1, a=(1 << 32) - 1), "core 1 -> off-line"),
    (event(events.SCHEDULE, partner=12, a=3), "server #12 -> client #11 prio=3"),
    (event(events.NO_PAGER, a=0x1000), "pfa=0x1000"),
    (event(events.FLUSH, a=5), "cores=0x5 pages=all"),
    (event(events.FLUSH, a=1, b=1, extra=2), "cores=0x100000001 pages=2"),
    (event(events.MAP_CAPABILITY, partner=1, a=3, b=4, extra=2), "to task client #1 slot=0x3 -> 0x4 count=2"),
    (
        event(events.UNMAP_CAPABILITY, partner=1, a=3, b=2, extra=15),
        "from task client #1 slot=0x3 count=2 rights=0xf",
    ),
    (event(events.ENTER, a=0x8048000, extra=1), "page fault ip=0x8048000"),
    (event(events.ENTER, a=0xEACFF002, b=0x8048010), "system call ip=0x8048010"),
    (event(events.SAMPLE, a=0x8048000, b=300, partner=4), "ip=0x8048000, 300 cycles before"),
    (
        event(events.GATE, partner=40, a=0xFFF50002, b=0x13),
        "through gate #40 label=0x13 task words=2 items=0",
    ),
    (event(events.INVOKE, partner=1, a=0xFFF50002, extra=1), "on task client #1 task words=2 items=0"),
    (event(99), "?"),
]


@pytest.mark.parametrize(("happened", "expected"), GOLDEN)
def test_a_line_for_each_kind(pagefault: Run, tmp_path: Path, happened: Event, expected: str) -> None:
    names = {1: "client", 2: "server"}
    bare = replace(pagefault, folder=tmp_path, names=names, homes={11: 1, 12: 2})
    told = Describer(bare, Symbols(bare))(happened)
    assert told.removeprefix("client #11 ") == expected


def test_golden_lines_cover_every_kind() -> None:
    assert {happened.kind for happened, _ in GOLDEN} == {*range(len(events.KIND_NAMES)), 99}


def test_text_has_a_line_for_each_event_but_samples_in_order(run: Run) -> None:
    lines = list(text_lines(run, Symbols(run), stretches(run)))
    recorded = [
        (int(found["cycle"]), int(found["core"]), events.KIND_NAMES[int(found["kind"]) & events.KIND_MASK])
        for found in run.events
        if int(found["kind"]) & events.KIND_MASK != events.SAMPLE
    ]
    told = [(int(line[:14]), int(line[15:18]), line[20:44].strip()) for line in lines]
    assert sorted(told) == sorted(recorded)
    assert [line for line in told if line[2] != "drq sent"] == [e for e in recorded if e[2] != "drq sent"]
    for line, following in pairwise(told):  # sent when a kernel entry ends, and told before the core's next
        assert line[2] != "drq sent" or line[1] != following[1] or following[0] >= line[0] - SPARED_CYCLES
    first = lines.index(next(line for line in lines if ": fault 1" in line))
    assert lines[first][20:] == (
        "page fault               sigma0 #8 pfa=0x100000 ip=0x100000 _start (fetch, not mapped): fault 1"
    )


def test_tlb_misses_are_told_with_the_kernel_entries_that_follow_them(run: Run) -> None:
    told = sum(
        int(found[1])
        for line in text_lines(run, Symbols(run), stretches(run))
        if (found := re.search(r" cycles with (\d+) TLB misse?s?$", line))
    )
    last = {int(row["thread"]): int(row["tlb misses"]) for row in run.rows if row["thread"]}
    assert told == sum(last.values()) > 500


def test_gates_and_kernel_objects_that_are_invoked_are_in_a_trace(run: Run) -> None:
    kinds = kinds_of(run.events).tolist()
    lines = [line[20:] for line in text_lines(run, Symbols(run), stretches(run))]
    through = [line for line in lines if line.startswith("gate invoke")]
    assert len(through) == kinds.count(events.GATE) > 10
    assert any(
        re.search(r"root #\d+ through gate (\S+ )?#\d+ label=0x[0-9a-f]+ sigma0 words=2", line)
        for line in through
    )
    invoked = [line for line in lines if line.startswith("object invoke")]
    assert len(invoked) == kinds.count(events.INVOKE) > 10
    assert any(re.search(r"root #\d+ on factory (\S+ )?#\d+ factory words=", line) for line in invoked)


def test_every_kernel_entry_of_a_thread_is_in_a_trace(run: Run) -> None:
    """With the place: of a page fault the same as the fault has; of a system call, whoever made it."""
    entered = Counter(
        (int(row["core"]), int(row["entry"]), int(row["thread"]), int(row["trap"]))
        for row in run.rows
        if row["thread"] and row["trap"] != HostStop.number
    )
    found = run.events[kinds_of(run.events) == events.ENTER]
    assert entered == Counter(
        (int(e["core"]), int(e["cycle"]), int(e["thread"]), int(e["kind"]) >> events.EXTRA_SHIFT)
        for e in found
    )
    places = {(int(e["core"]), int(e["cycle"])): int(e["a"]) for e in found}
    for fault in run.events[kinds_of(run.events) == events.FAULT]:
        assert places[int(fault["core"]), int(fault["cycle"])] == int(fault["b"])
    calls = [e for e in found if not int(e["kind"]) >> events.EXTRA_SHIFT]
    assert sum(0x1000 < int(e["b"]) < 0xC0000000 for e in calls) == len(calls) > 50


def test_samples_tell_where_user_code_was(run: Run) -> None:
    """One every SAMPLE_CYCLES of user code, at the first instruction from then on; misses as in the ledger."""
    timeline = Timeline(run)
    samples = run.events[kinds_of(run.events) == events.SAMPLE]
    found: dict[int, list[tuple[int, int]]] = {}
    for sample in samples:
        row = timeline.entry_row(int(sample["core"]), int(sample["cycle"]))
        cycle = int(sample["cycle"]) - int(sample["b"])
        assert timeline.thread[row] == sample["thread"]
        assert timeline.start[row] < cycle <= timeline.entry[row]
        assert cycle % SAMPLE_CYCLES < 500  # one instruction, with what it may cost
        assert int(sample["partner"]) <= run.rows["tlb misses"][row]
        found.setdefault(row, []).append((cycle // SAMPLE_CYCLES, int(sample["partner"])))
    assert sum(map(len, found.values())) > 500
    for row in np.flatnonzero((timeline.thread > 0) & (timeline.trap != HostStop.number)).tolist():
        due = range(
            int(timeline.start[row]) // SAMPLE_CYCLES + 1,
            (int(timeline.entry[row]) - 1) // SAMPLE_CYCLES + 1,
        )
        told = [number for number, _ in found.get(row, [])]
        assert len(told) == len(set(told))
        assert set(told) <= set(due) | {int(timeline.entry[row]) // SAMPLE_CYCLES}
        assert len(set(due) - set(told)) <= len(due) // 10 + 1  # the last may be where the kernel is entered
        misses = [count for _, count in found.get(row, [])]
        assert misses == sorted(misses)


@pytest.mark.parametrize("seed", range(4))
def test_tracing_random_system_calls_changes_no_cycle(seed: int, tmp_path: Path) -> None:
    """Threads that other cores stop while they run, among others."""
    (tmp_path / "guest.elf").write_bytes(random_guest.program(seed))
    manifest = load_manifest(write_manifest(tmp_path / "guest.toml", "guest.elf", cores=4))
    rows = []
    for trace in (False, True):
        record(manifest, tmp_path / str(trace), max_cycles=1_500_000, trace=trace)
        rows.append(open_run(tmp_path / str(trace)).rows)
    for column in ROW.names or ():
        assert column.startswith("sent ") or np.array_equal(rows[0][column], rows[1][column])


def test_tracing_changes_no_cycle(single: Run, tmp_path: Path) -> None:
    record(load_manifest(single.folder.parent / "single.toml"), tmp_path)
    bare = open_run(tmp_path)
    for column in ROW.names or ():
        if not column.startswith("sent "):
            assert np.array_equal(bare.rows[column], single.rows[column])
    assert bare.clocks == single.clocks


def test_only_a_part_of_a_run(single: Run, tmp_path: Path) -> None:
    """Whatever overlaps the time, in each format; arrows from before it are left out."""

    def trace(*arguments: str) -> subprocess.CompletedProcess[str]:
        return call("trace", single.folder, *arguments, cwd=tmp_path)

    first, last = 2_000_000, 2_100_000
    window = ("--from", str(first), "--to", "2_100_000".replace("_", ""))
    done = trace(*window, "--text", "t", "--perfetto", "p", "--speedscope", "s")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    every = trace("--text").stdout.splitlines()
    text = (tmp_path / "t").read_text().splitlines()
    assert text == [line for line in every if first <= int(line[:14]) <= last]
    cycles_told = [int(line[:14]) for line in every]
    assert cycles_told == sorted(cycles_told)
    parts = [
        trace("--text", "-", "--from", str(a), "--to", str(b)).stdout
        for a, b in ((0, first - 1), (last + 1, 1 << 60))
    ]
    assert [*parts[0].splitlines(), *text, *parts[1].splitlines()] == every  # nothing twice, nothing lost
    assert len(text) < len(every) / 5
    clock = Clock(single.mhz)
    viewer = Viewer((tmp_path / "p").read_bytes())
    on_cores = [found for found in viewer.slices if found.track.startswith("core ")]
    assert on_cores
    inside = list(within(stretches(single), first, last))
    assert 0 < len(inside) < len(single.rows) / 5
    assert all(stretch.end >= first and stretch.start <= last for stretch in inside)
    cycles = {cycle for stretch in inside for cycle in (stretch.start, stretch.entry)}
    assert {found.arguments["cycle"] for found in on_cores} <= cycles
    whole = {number for found in viewer.slices for number in found.arriving}
    assert whole <= {n for found in (*viewer.slices, *viewer.instants) for n in found.leaving}
    for profile in json.loads((tmp_path / "s").read_text())["profiles"]:
        assert profile["startValue"] <= clock.ns(first)
        assert profile["endValue"] >= clock.ns(last)
        assert sum(profile["weights"]) == profile["endValue"] - profile["startValue"]
    wrong = trace("--text", "-", "--from", "5", "--to", "4")
    assert (wrong.returncode, wrong.stderr) == (2, "l4lab: --to 4: expected nothing before --from 5\n")


# --- the same every time, and small --------------------------------------------------------------------


def test_the_same_run_gives_the_same_files(tmp_path: Path) -> None:
    results = []
    for seed, name in enumerate(("one", "two")):
        folder = tmp_path / name
        record(image("hello", 2), folder, trace=True)
        done = subprocess.run(
            [
                *CLI, "trace", str(folder), "--perfetto", f"{name}.pftrace", "--speedscope", f"{name}.json",
                "--text", f"{name}.txt",
            ],
            cwd=tmp_path, env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        results.append([(tmp_path / f"{name}.{kind}").read_bytes() for kind in ("pftrace", "json", "txt")])
        results[-1] += [path.read_bytes() for path in sorted(folder.iterdir())]
    assert results[0] == results[1]
    text = call("trace", str(tmp_path / "one"), "--text")
    assert text.stdout.encode() == (tmp_path / "one.txt").read_bytes()


def long_run(folder: Path, rows: int) -> Run:
    """Two threads that call each other on one core, for as long as is wanted."""
    record(image("hello", 1), folder, trace=True)
    table, happened = np.zeros(rows, ROW), np.zeros(4 * rows, EVENT)
    table["entry"] = np.arange(rows) * 1000 + 400
    table["start"][1:] = table["entry"][:-1] + 600
    table["thread"], table["served"] = np.arange(rows) % 2 + 8, np.arange(rows) // 2 + 1
    table["ipc"] = 600
    happened["cycle"] = np.repeat(table["entry"], 4)
    happened["thread"] = np.repeat(table["thread"], 4)
    happened["partner"] = 17 - happened["thread"]
    happened["kind"] = np.tile([events.ENTER, events.IPC, events.MESSAGE, events.SWITCH], rows)
    happened["request"] = np.repeat(table["served"], 4)
    (folder / "ledger.bin").write_bytes(table.tobytes())
    (folder / "events.bin").write_bytes(happened.tobytes())
    header = json.loads((folder / "ledger.json").read_text())
    header["rows"]["count"], header["events"]["count"] = rows, 4 * rows
    header["clocks"] = [int(table["entry"][-1]) + 600]
    (folder / "ledger.json").write_text(json.dumps(header))
    (folder / "seal.json").unlink()
    return checked(open_run(folder))


class Discard(BytesIO):
    """A file that keeps nothing."""

    size = 0

    def write(self, data: Any) -> int:
        self.size += len(data)
        return len(data)


class DiscardText(StringIO):
    """The same for text."""

    def write(self, data: str) -> int:
        return len(data)


def convert_text(run: Run) -> None:
    for _ in text_lines(run, Symbols(run), stretches(run)):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    "convert",
    [
        convert_text,
        lambda run: write_perfetto(run, Symbols(run), stretches(run), Discard()),
        lambda run: write_speedscope(run, Symbols(run), stretches(run), DiscardText()),
    ],
    ids=["text", "perfetto", "speedscope"],
)
def test_memory_does_not_grow_with_the_run(
    convert: Callable[[Run], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("l4lab.tools.runs.rundir.CHUNK_RECORDS", 500)
    peaks = []
    for rows in (4_000, 12_000):
        run = long_run(tmp_path / str(rows), rows)
        tracemalloc.start()
        convert(run)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.1 + 100_000


@pytest.mark.slow
def test_the_process_does_not_grow_with_the_run(tmp_path: Path) -> None:
    """Formats with memory of their own, which `tracemalloc` does not see."""
    peaks = []
    for rows in (1_000, 40_000):
        long_run(tmp_path / str(rows), rows)
        script = (
            "import resource, sys\n"
            "from l4lab.tools.cli.main import main\n"
            "try:\n    main(sys.argv[1:])\n"
            "finally:\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, "trace", str(tmp_path / str(rows)), "--perfetto", "/dev/null"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(int(done.stderr))
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    assert (
        peaks[1] - peaks[0]
    ) * unit_bytes < 60 << 20  # a chunk of rows and events; all of it takes 200 MiB


def test_recording_writes_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has not been written yet is as much in a run four times as long."""
    waiting: list[int] = []
    flush = Ledger.flush

    def watched(ledger: Ledger) -> None:
        waiting.append(len(ledger.log.pending) + len(ledger.rows))
        flush(ledger)

    monkeypatch.setattr(Ledger, "flush", watched)
    most = []
    for tasks in (2, 8):
        waiting.clear()
        text = PmaSetup(design="percore", cores=2, pages=100, tasks=tasks).manifest()
        (tmp_path / "pma.toml").write_text(text, encoding="utf-8")
        record(load_manifest(tmp_path / "pma.toml"), tmp_path / str(tasks), trace=True)
        most.append(max(waiting))
    assert most[1] < most[0] * 1.1


BUSY = """
int main(void)
{
    for (volatile unsigned i = 0; i < 2500000; i++)
        ;
    return 0;
}
"""


def test_a_busy_run_is_recorded_as_it_goes_and_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few kernel entries, with many samples in each stretch between two."""
    waiting: list[int] = []
    flush = Ledger.flush
    monkeypatch.setattr(
        Ledger, "flush", lambda ledger: (waiting.append(len(ledger.log.pending)), flush(ledger))
    )
    compile_program(BUSY, tmp_path / "busy")
    record(load_manifest(write_manifest(tmp_path / "busy.toml", "busy")), tmp_path / "run", trace=True)
    monkeypatch.setattr("l4lab.tools.runs.rundir.CHUNK_RECORDS", 5000)
    run = checked(open_run(tmp_path / "run"))
    samples = int((kinds_of(run.events) == events.SAMPLE).sum())
    assert samples > 10_000
    a_millisecond = run.mhz * 1000 // SAMPLE_CYCLES * len(EVENT.names or ())
    assert max(waiting) < BATCH_VALUES + 2 * a_millisecond
    pieces = [len(piece) for piece in run.event_chunks()]
    assert max(pieces) < 5000 + 2 * a_millisecond // len(EVENT.names or ())
    assert sum(pieces) == len(run.events)
    (profile,), frames = profile_of(run)["profiles"], profile_of(run)["shared"]["frames"]
    by_stack: Counter[str] = Counter()
    for stack, weight in zip(profile["samples"], profile["weights"], strict=True):
        by_stack[" ".join(frames[number]["name"] for number in stack)] += weight
    assert by_stack["root main user"] > 0.9 * profile["endValue"]


# --- bad input ----------------------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    record(image("hello"), tmp_path / "run", trace=True)
    return tmp_path / "run"


def truncate(folder: Path) -> None:
    data = (folder / "ledger.bin").read_bytes()
    (folder / "ledger.bin").write_bytes(data[: len(data) // 2])


def unbalance(folder: Path) -> None:
    data = bytearray((folder / "ledger.bin").read_bytes())
    data[ROW.itemsize * 3] ^= 0xFF
    (folder / "ledger.bin").write_bytes(data)


def empty(folder: Path) -> None:
    for name in ("ledger.bin", "events.bin"):
        (folder / name).write_bytes(b"")
    header = json.loads((folder / "ledger.json").read_text())
    header["rows"]["count"] = header["events"]["count"] = 0
    header["clocks"] = [0] * header["cores"]
    (folder / "ledger.json").write_text(json.dumps(header))


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (shutil.rmtree, "found nothing, expected a folder that"),
        (truncate, "ledger.bin: found "),
        (unbalance, "the books do not balance: core "),
        (empty, "nothing happened in this run"),
        (lambda folder: (folder / "ledger.json").unlink(), "ledger.json: found no such file"),
        (lambda folder: (folder / "events.bin").unlink(), "events.bin: found no such file"),
        (lambda folder: (folder / "symbols.json").write_text("{"), "symbols.json: not JSON"),
        (lambda folder: (folder / "symbols.json").write_text("{}"), "symbols.json: format: found None"),
        (
            lambda folder: (folder / "symbols.json").write_text(
                '{"format":1,"programs":{"a":[[1]]},"tasks":{}}'
            ),
            r"symbols.json: programs.a: found \[\[1\]\], expected",
        ),
        (
            lambda folder: (folder / "symbols.json").write_text(
                '{"format":1,"programs":{},"tasks":{"x":"a"}}'
            ),
            "symbols.json: tasks.x: found 'a', expected the name of a program",
        ),
    ],
)
def test_a_damaged_run_gets_one_line(broken: Path, damage: Callable[[Path], object], line: str) -> None:
    damage(broken)
    (broken / "seal.json").unlink(missing_ok=True)  # without it, the damage itself has to be found
    target = broken.parent / "out.pftrace"
    done = call("trace", str(broken), "--perfetto", str(target))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("l4lab: ")
    assert done.stderr.count("\n") == 1
    assert np.char.find(done.stderr, line.replace("\\", "")) >= 0
    assert not target.exists()


def test_what_cannot_be_written_gets_one_line(broken: Path) -> None:
    def trace(*arguments: str) -> str:
        done = call("trace", str(broken), *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        return done.stderr

    assert "expected --perfetto FILE, --speedscope FILE or --text" in trace()
    assert "cannot write " in trace("--perfetto", str(broken / "no" / "folder"))
    assert "cannot write /dev/full: No space left" in trace("--speedscope", "/dev/full")
    assert Path("/dev/full").exists()


def test_a_reader_that_leaves_is_no_error(single: Run) -> None:
    command = [*CLI, "trace", str(single.folder), "--text"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""


def test_without_perfetto_s_package_it_says_what_to_do(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from l4lab.tools.runs.recording import RunError

    monkeypatch.setitem(sys.modules, "perfetto.protos.perfetto.trace", None)
    found = open_run(broken)
    with pytest.raises(RunError, match=r"pip install 'l4lab\[trace\]'"):
        write_perfetto(found, Symbols(found), stretches(found), BytesIO())


def test_a_run_that_was_interrupted_can_be_shown(tmp_path: Path) -> None:
    """Ended in the middle: user code without a kernel entry, operations that never come back."""
    _, result = record(image("pma"), tmp_path, trace=True, max_cycles=5_000_123)
    assert result.cycles >= 5_000_123
    run = checked(open_run(tmp_path))
    assert sum(1 for _ in stretches(run)) == len(run.rows)
    viewer = viewed(run)
    assert max(found.end for found in viewer.slices) <= Clock(run.mhz).ns(max(run.clocks or ()))
    assert profile_of(run)["profiles"][0]["endValue"] == Clock(run.mhz).ns((run.clocks or (0,))[0])
