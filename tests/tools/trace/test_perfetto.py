"""`l4lab trace --perfetto`: what a viewer shows is what the run's rows and events say."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from l4lab.emulator.files.manifest import load_manifest
from l4lab.kernel import events
from l4lab.kernel.costs import CAUSE_NAMES
from l4lab.kernel.traps import CpuException, HostStop, PageFault, SystemCall
from l4lab.tools.ledger.timeline import Operations, Timeline
from l4lab.tools.runs.rundir import Run, kinds_of, open_run
from l4lab.tools.runs.symbols import Symbols
from l4lab.tools.trace.source import Clock, checked, stretches
from l4lab.tools.trace.text import text_lines
from support import random_guest
from support.programs import write_manifest
from support.runs import image, record
from support.traces import Viewer, traced_pagefault, traced_single, viewed

OWN_TRAPS = (SystemCall.number, PageFault.number, CpuException.number)


@pytest.fixture(scope="module", params=[traced_pagefault, traced_single])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with all events."""
    found: Run = request.param(tmp_path_factory.mktemp("run"))
    return found


def check_cores(run: Run, viewer: Viewer) -> set[str]:
    """User code and kernel entries with the cycles, causes and names of the ledger. Returns the entries' names."""
    clock = Clock(run.mhz)
    user, kernel = [], []
    for row in run.rows:
        core, start, entry = f"core {row['core']}", int(row["start"]), int(row["entry"])
        bill = {f"{name} cycles": int(row[name]) for name in CAUSE_NAMES if row[name]}
        if row["thread"]:
            name = run.thread_name(int(row["thread"]))
            user.append((core, name, clock.ns(start), clock.ns(entry), start, entry > start))
        if row["trap"] != HostStop.number:
            end = clock.ns(entry + sum(bill.values()))
            kernel.append((core, clock.ns(entry), end, {"cycle": entry, **bill}))
    shown = [found for found in viewer.slices if found.category == "user"]
    places = {(core, start, name) for core, name, *_, start, long in user if not long}
    assert [
        (found.track, found.name, found.start, found.end, found.arguments["cycle"], True)
        for found in shown
        if not found.arriving or (found.track, found.arguments["cycle"], found.name) not in places
    ] == [found for found in user if found[-1]]
    entries = [found for found in viewer.slices if found.category == "kernel"]
    assert [
        (
            found.track,
            found.start,
            found.end,
            {key: n for key, n in found.arguments.items() if key == "cycle" or key.endswith(" cycles")},
        )
        for found in entries
    ] == kernel
    return {found.name for found in entries}


def expected_arrows(run: Run) -> Counter[tuple[int, int, int, int, str, str]]:
    """From the events alone: sender, receiver, the cycles and cores of both ends."""
    timeline = Timeline(run)
    expected: Counter[tuple[int, int, int, int, str, str]] = Counter()
    used = set()
    for chunk in run.event_chunks():
        for event in chunk[np.isin(kinds_of(chunk), (events.MESSAGE, events.IRQ))]:
            sender, receiver, cycle = int(event["thread"]), int(event["partner"]), int(event["cycle"])
            here = timeline.entry_row(int(event["core"]), cycle)
            following = timeline.next_rows(np.array([receiver]), np.array([here]))[0]
            sent = (cycle, int(event["core"]))  # of an IRQ, or what is sent once more in a thread's name
            if int(event["kind"]) & events.KIND_MASK == events.MESSAGE:
                mine = timeline.rows_of_thread(sender)
                mine = mine[np.isin(timeline.trap[mine], OWN_TRAPS) & (timeline.entry[mine] <= cycle)]
                if len(mine) and mine[-1] not in used:
                    used.add(mine[-1])
                    sent = (int(timeline.entry[mine[-1]]), int(timeline.core[mine[-1]]))
            if following >= 0:  # else it never ran again
                to = (int(timeline.start[following]), int(timeline.core[following]))
                expected[sender, receiver, sent[0], to[0], f"core {sent[1]}", f"core {to[1]}"] += 1
    return expected


def check_arrows(run: Run, viewer: Viewer) -> tuple[int, int]:
    """One for each message: from the sender's kernel entry to the user code with which the receiver goes on.

    Returns how many there are, and how many of them lead to another core.
    """
    begins = [*viewer.slices, *viewer.instants]
    sources = {number: found for found in begins for number in found.leaving}
    assert sum(len(found.leaving) for found in begins) == len(sources)
    arrows = [(sources[number], found) for found in viewer.slices for number in found.arriving]
    found = Counter(
        (
            source.arguments["thread"],
            target.arguments["thread"],
            source.arguments["cycle"],
            target.arguments["cycle"],
            source.track,
            target.track,
        )
        for source, target in arrows
    )
    assert found == expected_arrows(run)
    for source, target in arrows:
        assert target.category == "user"
        assert target.name == run.thread_name(target.arguments["thread"])
        assert source.start == Clock(run.mhz).ns(source.arguments["cycle"]) <= target.start
    return len(arrows), sum(source.track != target.track for source, target in arrows)


def check_operations(run: Run, viewer: Viewer) -> int:
    """Slices of their threads, with the latencies that `why` tells. Returns how many have one.

    But for those of a thread that another core ends when it is about to go on: they end with it.
    """
    clock = Clock(run.mhz)
    operations = Operations(Timeline(run))
    found = {(slice_.track, slice_.name): slice_ for slice_ in viewer.slices}
    destroyed = run.events[kinds_of(run.events) == events.DESTROY]
    ended = dict(zip(destroyed["partner"].tolist(), destroyed["cycle"].tolist(), strict=True))
    counted = 0
    for place in range(len(operations)):
        operation = operations.at(place)
        slice_ = found[run.thread_name(operation.thread), operation.name]
        assert slice_.arguments["cycle"] == operation.cycle
        assert slice_.start == clock.ns(operation.cycle)
        if operation.resumed is not None and operation.resumed <= ended.get(
            operation.thread, operation.resumed
        ):
            counted += 1
            assert slice_.end == clock.ns(operation.resumed)
    assert sum(not slice_.track.startswith("core ") for slice_ in viewer.slices) == len(operations)
    for kind, track in ((events.FAULT, "page faults under way"), (events.IPC, "IPCs under way")):
        values = [value for _, value in viewer.counts.get(track, [])]
        assert len(values) == 2 * operations.count(kind)
        assert not values or min(values) == values[-1] == 0
        assert all(abs(one - other) == 1 for one, other in pairwise(values))
    return counted


def test_cores_show_every_row_of_the_ledger(run: Run) -> None:
    names = check_cores(run, viewed(run))
    assert {"page fault", "ipc", "reply", "interrupt", "system call"} <= names


def test_kernel_entries_tell_the_function_that_they_came_from(run: Run) -> None:
    entries = [found for found in viewed(run).slices if found.category == "kernel"]
    assert all(
        ("function" in found.arguments) == ("thread" in found.arguments)
        for found in entries
        if found.name != "interrupt"
    )
    replies = {found.arguments["function"] for found in entries if found.name == "reply"}
    assert "main" in replies
    assert not any(name.startswith("0x") for name in replies)


def test_every_arrow_connects_sender_and_receiver(run: Run) -> None:
    count, across = check_arrows(run, viewed(run))
    assert count > 50
    assert across > 10


def test_hardly_an_arrow_has_no_other_end(run: Run) -> None:
    """But for what is still under way at the end, and threads that were stopped in sending, or about to."""
    viewer = viewed(run)
    begun = {number for found in [*viewer.slices, *viewer.instants] for number in found.leaving}
    arrived = {number for found in viewer.slices for number in found.arriving}
    assert arrived <= begun
    assert len(begun - arrived) <= len(begun) // 20


def test_operations_are_slices_of_their_threads_with_the_latencies_that_why_tells(run: Run) -> None:
    assert check_operations(run, viewed(run)) > 50


def test_runs_without_trace_show_the_same_arrows(tmp_path: Path) -> None:
    """The ledger's rows have most of the messages then."""
    record(image("pagefault"), tmp_path)
    bare = checked(open_run(tmp_path))
    viewer = viewed(bare)
    assert {"page fault", "ipc", "reply"} <= check_cores(bare, viewer)
    count, across = check_arrows(bare, viewer)
    assert count > 50
    assert across > 10
    assert check_operations(bare, viewer) > 50


@pytest.mark.parametrize("seed", range(8))
def test_runs_of_random_system_calls_are_shown_as_they_were(seed: int, tmp_path: Path) -> None:
    """With threads that end in the middle of things, messages in others' names, and IRQs."""
    (tmp_path / "guest.elf").write_bytes(random_guest.program(seed))
    path = write_manifest(tmp_path / "guest.toml", "guest.elf", cores=1 + seed % 4)
    record(load_manifest(path), tmp_path / "run", max_cycles=1_500_000, trace=True)
    run = checked(open_run(tmp_path / "run"))
    viewer = viewed(run)
    check_cores(run, viewer)
    check_arrows(run, viewer)
    check_operations(run, viewer)
    samples = int((kinds_of(run.events) == events.SAMPLE).sum())
    assert len(list(text_lines(run, Symbols(run), stretches(run)))) == len(run.events) - samples


def test_tracks_have_names_and_places(run: Run) -> None:
    viewer = viewed(run)
    assert [name for name in viewer.tracks.values() if name.startswith("core ")] == [
        f"core {core}" for core in range(run.cores)
    ]
    assert all(viewer.parents[f"core {core}"] == "cores" for core in range(run.cores))
    for thread, task in run.homes.items():
        assert viewer.parents[run.thread_name(thread)] == run.task_name(task)


def test_other_events_are_instants(run: Run) -> None:
    viewer = viewed(run)
    shown = Counter(instant.name for instant in viewer.instants)
    kinds = Counter(kinds_of(run.events).tolist())
    for kind in (events.MAP, events.UNMAP, events.RESOLVED, events.SENT, events.SERVED, events.CREATE):
        assert shown[events.KIND_NAMES[kind]] == kinds[kind] > 0
    assert shown["context switch"] == shown["message"] == 0
