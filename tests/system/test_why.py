"""`l4lab why` on whole runs: chains that add up, agree with the guests' own clocks, and tell what happened."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from bisect import bisect_left, bisect_right
from pathlib import Path

import pytest

from l4lab.emulator.debug.debugged import DebuggedMachine
from l4lab.emulator.debug.debugging import Debugger
from l4lab.emulator.debug.stops import Goal, GoalKind
from l4lab.emulator.files.manifest import Manifest, load_manifest
from l4lab.emulator.ledger import Ledger
from l4lab.emulator.machine import CoreState, Machine
from l4lab.kernel import events
from l4lab.kernel.costs import CAUSE_NAMES
from l4lab.kernel.thread import Thread
from l4lab.kernel.traps import PageFault, SystemCall, Trap
from l4lab.tools.bench.pma_image import PmaSetup
from l4lab.tools.common.report import grouped
from l4lab.tools.debug.faults import FRAME, TOUCH
from l4lab.tools.debug.gdb.steps import FaultSteps
from l4lab.tools.ledger.timeline import NOWHERE, OPERATION_KINDS, Operation, Operations, Timeline
from l4lab.tools.runs.programs import Programs
from l4lab.tools.runs.recording import Recording
from l4lab.tools.runs.rundir import Run, open_run
from l4lab.tools.why.allocation import find_allocation, image_of
from l4lab.tools.why.chain import FLIGHT, KERNEL, USER, WAIT, Chain
from l4lab.tools.why.command import Asked, show_why
from l4lab.tools.why.finder import find_chain
from l4lab.tools.why.steps import STEPS, lines, step_sums
from support import random_guest
from support.command import call
from support.programs import compile_program, write_manifest
from support.runs import IMAGES, image, record

CYCLES = 30_000_000
CHAINS = 150


class Recorded:
    """A run, indexed."""

    def __init__(self, folder: Path) -> None:
        self.run: Run = open_run(folder)
        self.timeline = Timeline(self.run)
        self.operations = Operations(self.timeline)

    def chain(self, operation: Operation | None) -> Chain:
        assert operation is not None
        return find_chain(self.timeline, self.operations, operation)

    def every(self, kind: int) -> list[Operation]:
        count = self.operations.count(kind)
        step = max(count // CHAINS, 1)
        found = [self.operations.get(kind, number) for number in range(1, count + 1, step)]
        return [operation for operation in found if operation is not None]


def _parts(chain: Chain) -> list[tuple[int, int, int]]:
    return [(hop.holder, hop.to, hop.cycles) for hop in chain.hops]


@pytest.mark.parametrize("name", ["pagefault", "clntsrv", pytest.param("pma", marks=pytest.mark.slow)])
def test_a_trace_changes_no_answer(name: str, tmp_path: Path) -> None:
    """Every operation has the same number, kind, ends and hops, whether the run was traced or not."""
    told = []
    for trace in (False, True):
        folder = tmp_path / f"traced {trace}"
        record(image(name), folder, max_cycles=CYCLES, trace=trace)
        recorded = Recorded(folder)
        chains = [recorded.chain(operation) for kind in OPERATION_KINDS for operation in recorded.every(kind)]
        told.append(
            [
                (chain.operation.name, chain.operation.cycle, chain.end, chain.by_cause(), _parts(chain))
                for chain in chains
            ]
        )
    assert told[0] == told[1]


@pytest.mark.parametrize("cores", [1, 4, 8])
@pytest.mark.parametrize("name", IMAGES)
def test_every_chain_adds_up(name: str, cores: int, tmp_path: Path) -> None:
    """`find_chain` itself raises if segments do not follow one another or causes do not add up."""
    record(image(name, cores), tmp_path, max_cycles=CYCLES)
    recorded = Recorded(tmp_path)
    followed = 0
    for kind in OPERATION_KINDS:
        for operation in recorded.every(kind):
            chain = recorded.chain(operation)
            followed += 1
            assert chain.hops[0].holder == operation.thread
            assert sum(chain.by_cause().values()) == chain.cycles
            assert sum(line.cycles for line in lines(recorded.run, chain)) == chain.cycles
            if operation.latency_cycles is not None:
                assert chain.cycles == operation.latency_cycles
                assert chain.hops[-1].to in (0, operation.thread)
            if kind == events.FAULT:
                assert sum(step_sums(lines(recorded.run, chain)).values()) == chain.cycles
    assert followed


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 11, 86])
def test_chains_of_random_system_calls_add_up(seed: int, tmp_path: Path) -> None:
    """Threads that are ended, moved, made to raise exceptions, while they wait; 86: on another core, just then."""
    (tmp_path / "guest.elf").write_bytes(random_guest.program(seed))
    path = write_manifest(tmp_path / "guest.toml", "guest.elf", cores=1 + seed % 4)
    path.write_text(path.read_text().replace("16MiB", "32MiB"))
    record(load_manifest(path), tmp_path / "run", max_cycles=2_000_000)
    recorded = Recorded(tmp_path / "run")
    followed = 0
    for place in range(len(recorded.operations)):
        operation = recorded.operations.at(place)
        if operation.row == NOWHERE:
            continue
        chain = recorded.chain(operation)
        followed += 1
        assert sum(line.cycles for line in lines(recorded.run, chain)) == chain.cycles
        assert operation.latency_cycles in (None, chain.cycles)
    assert followed


# --- latencies, told in two other ways ----------------------------------------------------------------

SMALL_PMA = PmaSetup(design="percore", cores=3, pages=8, tasks=2)


class Watched(Machine):
    """Notes, by the vCPUs' own clocks, when threads enter the kernel and when they are let run again."""

    def __init__(self, manifest: Manifest, ledger: Ledger) -> None:
        self.passed: dict[int, list[tuple[int, type[Trap] | None]]] = {}
        super().__init__(manifest, ledger=ledger)

    def _serve(self, core: CoreState, trap: Trap, now: int) -> bool:
        thread = core.decision.thread
        if thread is not None:
            self.passed.setdefault(thread.number, []).append((now, type(trap)))
        return super()._serve(core, trap, now)

    def _run_core(self, core: CoreState, thread: Thread, now: int, horizon: int) -> Trap:
        assert now == core.vcpu.clock_cycles
        self.passed.setdefault(thread.number, []).append((now, None))
        return super()._run_core(core, thread, now, horizon)


def latency_by_clock(machine: Watched, operation: Operation) -> int:
    """From the trap until the same thread is let run again."""
    passed = machine.passed[operation.thread]
    place = bisect_left(passed, operation.cycle, key=lambda item: item[0])
    trap = PageFault if operation.kind == events.FAULT else SystemCall
    entered = next(i for i in range(place, len(passed)) if passed[i] == (operation.cycle, trap))
    return next(cycle for cycle, trap in passed[entered + 1 :] if trap is None) - operation.cycle


class Switches:
    """For each thread, when kernel entries ended that switched to it: from a trace's events and its rows' sums."""

    def __init__(self, run: Run) -> None:
        entered: dict[tuple[int, int], int] = {}
        for row in run.rows:
            bill = sum(int(row[name]) for name in CAUSE_NAMES)
            entered[int(row["core"]), int(row["entry"])] = int(row["entry"]) + bill
        last: dict[tuple[int, int], int] = {}
        for event in run.events:
            if int(event["kind"]) & events.KIND_MASK == events.SWITCH:
                last[int(event["core"]), int(event["cycle"])] = int(event["thread"])
        self._ends: dict[int, list[int]] = {}
        for place, thread in last.items():
            self._ends.setdefault(thread, []).append(entered[place])
        for ends in self._ends.values():
            ends.sort()
        self._entered = entered

    def latency(self, operation: Operation) -> int:
        ends = self._ends.get(operation.thread, [])
        place = bisect_right(ends, operation.cycle)
        if place < len(ends) and ends[place] <= operation.cycle + (operation.latency_cycles or 0):
            return ends[place] - operation.cycle
        return self._entered[operation.core, operation.cycle] - operation.cycle  # it never left the core


@pytest.mark.parametrize(
    ("name", "cores"), [("pagefault", 2), ("hello", 2), ("clntsrv", 2), ("small pma", 3)]
)
def test_every_latency_is_that_of_the_clocks_and_of_the_events(name: str, cores: int, tmp_path: Path) -> None:
    """Every page fault and IPC of a run: the hops add up to what clocks say, and what a trace's switches say."""
    if name == "small pma":
        (tmp_path / "pma.toml").write_text(SMALL_PMA.manifest(), encoding="utf-8")
        manifest = load_manifest(tmp_path / "pma.toml")
    else:
        manifest = image(name, cores)
    with Recording(tmp_path / "run", manifest, "{}", trace=True) as recording:
        assert recording.ledger is not None
        machine = Watched(manifest, recording.ledger)
        recording.watch(machine)
        machine.run()
    recorded = Recorded(tmp_path / "run")
    switches = Switches(recorded.run)
    compared = dict.fromkeys((events.FAULT, events.IPC), 0)
    for place in range(len(recorded.operations)):
        operation = recorded.operations.at(place)
        if operation.kind not in compared or operation.latency_cycles is None:
            continue
        compared[operation.kind] += 1
        told = sum(hop.cycles for hop in recorded.chain(operation).hops)
        assert told == latency_by_clock(machine, operation) == switches.latency(operation), operation.name
    every = [recorded.operations.at(place) for place in range(len(recorded.operations))]
    for kind, count in compared.items():
        assert count == sum(operation.kind == kind and not operation.open_ended for operation in every) - (
            recorded.operations.unfinished(kind)
        )
        assert count > 1
    assert sum(compared.values()) > 10


# --- one pager on another core ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """The memory benchmark with one pager on core 0 for the processes of four cores."""
    folder = tmp_path_factory.mktemp("single")
    (folder / "single.toml").write_text(
        PmaSetup(design="single", cores=4, pages=10, tasks=1).manifest(), encoding="utf-8"
    )
    record(load_manifest(folder / "single.toml"), folder / "run")
    return Recorded(folder / "run")


def faults_of(recorded: Recorded, task: str) -> list[Chain]:
    found = [
        recorded.chain(operation)
        for operation in recorded.every(events.FAULT)
        if recorded.run.thread_name(operation.thread).startswith(task)
    ]
    assert found
    return found


def test_a_fault_served_on_another_core_crosses_twice(single: Recorded) -> None:
    """Client → pager's core → client's core, each way with an interrupt under way and one taken."""
    for chain in faults_of(single, "pma.3"):
        assert [single.run.thread_name(hop.holder).split(" #")[0] for hop in chain.hops] == [
            "pma.3",
            "pager.0",
            "pma.3",
        ]
        request, service, resume = chain.hops
        kinds = [segment.kind for segment in request.segments]
        assert kinds[:3] == [KERNEL, FLIGHT, *kinds[2:3]]
        assert request.segments[0].core == 3
        assert request.segments[-1].core == 0
        assert {segment.core for segment in service.segments if segment.kind == USER} == {0}
        assert FLIGHT in [segment.kind for segment in (*service.segments, *resume.segments)]
        assert resume.segments[-1].core == 3


def test_who_waits_in_the_queue_is_told_for_whom(single: Recorded) -> None:
    """With four clients the pager is busy with others' faults while one waits; that waiting is theirs."""
    queued = [
        segment
        for task in ("pma.1", "pma.2", "pma.3")
        for chain in faults_of(single, task)
        for hop in chain.hops
        for segment in hop.segments
        if segment.kind == WAIT and segment.what.startswith("queued at pager.0")
    ]
    assert queued
    for segment in queued:
        assert sum(segment.meanwhile.values()) == segment.cycles
    told = [words for segment in queued for words in segment.meanwhile]
    assert any(re.fullmatch(r"pager\.0 #\d+ for fault \d+", words) for words in told)
    assert not any("for this" in words and words.startswith("pager") for words in told)


def test_the_seven_steps_pass_in_order(single: Recorded) -> None:
    for task in ("pma.0", "pma.3"):
        for chain in faults_of(single, task):
            steps = [line.step for line in lines(single.run, chain)]
            assert steps == sorted(steps)
            assert set(steps) == set(STEPS) - {TOUCH, FRAME}
            sums = step_sums(lines(single.run, chain))
            assert sums[TOUCH] == sums[FRAME] == 0
            assert all(sums[step] > 0 for step in steps)
    pager = "pager.0"
    ends = (lines(single.run, chain) for chain in faults_of(single, "pma.3"))
    found = next(each for each in ends if each[-1].kind != "wait")  # the pager's core is not its own
    assert found[0].causes.keys() == {"kernel entry", "fault"}
    assert {single.run.thread_name(line.thread).split(" #")[0] for line in found if line.step == 4} == {pager}
    assert "map" in {cause for line in found if line.step == 6 for cause in line.causes}
    assert "kernel exit" in found[-1].causes


def test_the_steps_are_those_that_the_debugger_tells(tmp_path: Path) -> None:
    """Each page fault that the debugger follows: the same seven numbers, from the ledger and a second boot."""
    manifest = image("pagefault")
    told: list[str] = []
    debugger = Debugger(DebuggedMachine(manifest))
    steps = FaultSteps(debugger, Programs(manifest), told.append)
    steps.everybody = True
    steps.follow()
    debugger.resume(Goal(GoalKind.CLOCK, core=0, clock_cycles=3_000_000))
    record(manifest, tmp_path)
    recorded = Recorded(tmp_path)
    again = image_of(recorded.run, None)
    assert again is not None
    faults = {
        (operation.cycle, operation.core): operation
        for operation in recorded.every(events.FAULT)
        if operation.latency_cycles is not None
    }
    compared = [0, 0]
    for text in re.split(r"^cycle ", "\n".join(told), flags=re.M):
        together = re.search(r"^  together (\d+)", text, re.M)
        found = re.match(r"(\d+), core (\d+): page fault", text)
        if together is None or found is None:
            continue
        chain = recorded.chain(faults[int(found[1]), int(found[2])])
        numbers = {int(step): int(n) for step, n in re.findall(r"^  (\d) \w+ +(\d+)  ", text, re.M)}
        assert chain.cycles == sum(numbers.values()) == int(together[1])
        crosses = len({segment.core for hop in chain.hops for segment in hop.segments} - {NOWHERE}) > 1
        if compared[crosses] < 3:
            compared[crosses] += 1
            sums = step_sums(lines(recorded.run, chain, find_allocation(recorded.run, chain, again)))
            assert {step: sums[step] for step in numbers} == numbers, text
    assert compared == [3, 3]


def test_a_fault_that_goes_on_to_another_server(tmp_path: Path) -> None:
    """L4Re's structure: a region map in the program itself, and behind it a server on another core with the frames."""
    path = tmp_path / "l4re.toml"
    path.write_text(PmaSetup(design="l4re", cores=2, pages=10, tasks=1).manifest(), encoding="utf-8")
    manifest = load_manifest(path)
    record(manifest, tmp_path / "run")
    recorded = Recorded(tmp_path / "run")
    chains = [chain for chain in faults_of(recorded, "pma-l4re.1") if len(chain.hops) > 2]
    assert len(chains) >= 10
    chain = chains[-1]
    victim, region_map, server = (hop.holder for hop in chain.hops[:3])
    assert [hop.holder for hop in chain.hops] == [victim, region_map, server, region_map]
    assert recorded.run.thread_name(server).startswith("dataspaces.0 #")
    assert recorded.run.homes[victim] == recorded.run.homes[region_map]
    found = lines(recorded.run, chain)
    assert [line.step for line in found] == sorted(line.step for line in found)
    assert {line.thread for line in found if line.step == FRAME} == {region_map}
    known = lines(recorded.run, chain, find_allocation(recorded.run, chain, manifest))
    first = next(line for line in known if line.step == FRAME)
    assert (first.thread, first.kind) == (server, USER)
    assert sum(line.cycles for line in known) == chain.cycles


def test_work_of_other_requests_is_not_in_a_chain(single: Recorded) -> None:
    """What is on the way is booked to the request itself, or is an entry that brought it along."""
    timeline = single.timeline
    for chain in faults_of(single, "pma.2"):
        for hop in chain.hops:
            for segment in hop.segments:
                if segment.kind == USER:
                    assert timeline.thread[segment.row] == hop.holder
                    assert timeline.request[segment.row] == chain.operation.request


# --- the guest's own clock ----------------------------------------------------------------------------

CLOCKED = """
#include <l4/print.h>
#include <l4/bootinfo.h>

static unsigned cycles(void)
{
    unsigned low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return low;
}

int main(void)
{
    static volatile char pages[16 * 4096];
    for (int i = 0; i < 16; i++) {
        unsigned before = cycles();
        pages[i * 4096 + 5] = 1;
        unsigned after = cycles();
        printf("%p %u\\n", (void *)&pages[i * 4096 + 5], after - before);
    }
    return 0;
}
"""


def test_latencies_agree_with_what_the_guest_measures(tmp_path: Path) -> None:
    """A page fault as long as the time between two `rdtsc` around the touch, but for those instructions."""
    compile_program(CLOCKED, tmp_path / "clocked")
    manifest = load_manifest(write_manifest(tmp_path / "clocked.toml", "clocked"))
    _, result = record(manifest, tmp_path / "run")
    measured = {int(a, 16): int(n) for a, n in re.findall(rb"^(0x[0-9a-f]+) (\d+)$", result.console, re.M)}
    assert len(measured) == 16
    recorded = Recorded(tmp_path / "run")
    faults = {operation.address: operation for operation in recorded.every(events.FAULT)}
    compared = set(measured) & set(faults)
    assert len(compared) >= 8  # superpages may bring neighbours along
    around = [measured[address] - recorded.chain(faults[address]).cycles for address in compared]
    assert min(around) > 0
    assert max(around) < 400  # two rdtsc, a store, and TLB refills after the switch of address spaces
    for address in set(measured) - set(faults):
        assert measured[address] < 400


# --- the command --------------------------------------------------------------------------------------


def why(*arguments: object) -> subprocess.CompletedProcess[str]:
    return call("why", *map(str, arguments))


def test_a_fault_in_words_and_as_json(single: Recorded) -> None:
    folder = single.run.folder
    number = faults_of(single, "pma.3")[0].operation.number
    done = why("fault", number, folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(
        rf"fault {number} of \d+: pma\.3 #\d+ wrote to 0x[0-9a-f]+, at 0x[0-9a-f]+ in main\n", done.stdout
    )
    for step in ("2 fault", "3 message", "4 request", "5 frame", "6 map", "7 resume"):
        assert re.search(rf"^{step} +[\d ]+  +[\d.]+ %  ", done.stdout, re.M)
    document = json.loads(why("fault", number, folder, "--json").stdout)
    assert sum(line["cycles"] for line in document["lines"]) == document["cycles"]
    assert sum(document["causes"].values()) == document["cycles"]
    assert [step["step"] for step in document["steps"]] == [1, 2, 3, 4, 5, 6, 7]
    assert sum(step["cycles"] for step in document["steps"]) == document["cycles"]
    assert sum(hop["cycles"] for hop in document["hops"]) == document["cycles"]
    assert document["operation"]["latency_cycles"] == document["cycles"]
    total = re.search(r"together ([\d ]+)$", done.stdout.strip())
    assert total is not None and int(total[1].replace(" ", "")) == document["cycles"]


def test_a_fault_that_the_kernel_serves_itself(single: Recorded) -> None:
    """Sigma0's first, in fetching its first instruction: nobody is sent a message, so there is no pager to tell of."""
    folder = single.run.folder
    done = why("fault", 1, folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"fault 1 of \d+: sigma0 #\d+ fetched from (0x[0-9a-f]+), at \1 in _start\n", done.stdout)
    found = re.findall(r"^([1-7] \w+|together) +([\d ]+?)  +(?:[\d.]+ %)? +(.*)$", done.stdout, re.M)[-4:]
    assert [(name, words) for name, _, words in found[1:]] == [
        ("2 fault", "the processor enters the kernel, which maps the page itself: no message"),
        ("7 resume", "the kernel goes back to the instruction"),
        ("together", "cycles: the latency"),
    ]
    cycles = [int(number.replace(" ", "")) for _, number, _ in found]
    assert cycles[1] > cycles[2] > cycles[0] == 0
    assert sum(cycles[:-1]) == cycles[-1] == single.chain(single.operations.get(events.FAULT, 1)).cycles
    assert "allocator" not in done.stdout and "pager" not in done.stdout
    document = json.loads(why("fault", 1, folder, "--json").stdout)
    assert [step["step"] for step in document["steps"]] == [1, 2, 7]
    assert sum(step["cycles"] for step in document["steps"]) == document["cycles"]


def test_the_summary_leads_to_the_slowest(single: Recorded) -> None:
    folder = single.run.folder
    done = why(folder)
    assert done.returncode == 0
    assert re.search(rf"^fault: {single.operations.count(events.FAULT)}", done.stdout, re.M)
    hint = re.search(r"^l4lab why (fault \d+) ", done.stdout, re.M)
    assert hint is not None
    document = json.loads(why(folder, "--json").stdout)
    slowest = [operation for operation in document["slowest"] if operation["name"].startswith("fault")]
    assert slowest[0]["name"] == hint[1]
    latencies = [operation["latency_cycles"] for operation in slowest]
    assert latencies == sorted(latencies, reverse=True)
    assert latencies[0] == int(single.operations.latencies[single.operations.kinds == events.FAULT].max())


def test_a_moment_of_every_core(single: Recorded) -> None:
    chain = faults_of(single, "pma.3")[0]
    moment = chain.operation.cycle + 1
    document = json.loads(why("cycle", moment, single.run.folder, "--json").stdout)
    assert [core["core"] for core in document["cores"]] == [0, 1, 2, 3]
    assert document["cores"][3]["request"] == chain.operation.name
    assert document["cores"][3]["state"] == "kernel"
    start = json.loads(why("cycle", 0, single.run.folder, "--json").stdout)["cores"][1]
    assert start["state"] == "idle" and grouped(start["causes"]["idle"]) in start["doing"]
    told = why("cycle", moment, single.run.folder, "--core", 3).stdout
    assert f"core 3: kernel, page fault of pma.3 #{chain.operation.thread}" in told
    assert f"{chain.operation.name} of" in told


def test_the_last_moment(single: Recorded) -> None:
    """Of the core whose books end last; of the others it is said that they have ended."""
    timeline, folder = single.timeline, single.run.folder
    ends = [int(timeline.end[timeline.rows_of_core(core)].max()) for core in range(4)]
    last = why("cycle", max(ends) - 1, folder)
    assert last.returncode == 0
    assert last.stdout.count("not in the books") == sum(end < max(ends) for end in ends)
    beyond = why("cycle", max(ends), folder)
    assert (beyond.returncode, beyond.stdout) == (2, "")
    assert beyond.stderr == (
        f"l4lab: why cycle: found {max(ends)}, expected at most {max(ends) - 1}, the last of the run\n"
    )
    assert why("cycle", ends[2] - 1, folder, "--core", 2).returncode == 0
    beyond = why("cycle", ends[2], folder, "--core", 2)
    assert (beyond.returncode, beyond.stdout) == (2, "")
    assert beyond.stderr == (
        f"l4lab: why cycle: found {ends[2]}, expected at most {ends[2] - 1}, the last of core 2\n"
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["fault", "0"], "why fault 0: the run has .* of them, numbered from 1"),
        (["ipc", "1000000"], "why ipc 1000000: the run has"),
        (["fault", "x"], "why fault: found 'x', expected a number"),
        (["fault", "9" * 18], "why fault 9{18}: the run has .* of them, numbered from 1"),
        (["cycle", "9" * 23], "why cycle: found 9{23}, too large: expected at most 18 digits"),
        (["fault", "9" * 5000], r"why fault: found 9{40}\.\.\., too large: expected at most 18 digits"),
        (
            ["reason", "1"],
            "why: found 'reason 1 .*', expected one of fault, exception, ipc, cycle with a number",
        ),
        (["cycle", "1", "--core", "4"], "why cycle: core 4: the run has 4, numbered from 0"),
    ],
)
def test_a_bad_question_gets_one_line(single: Recorded, arguments: list[str], line: str) -> None:
    done = why(*arguments, single.run.folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(f"l4lab: {line}", done.stderr)
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_without_run_it_is_the_last_that_was_recorded_from_here(tmp_path: Path) -> None:
    def l4lab(*arguments: object) -> subprocess.CompletedProcess[str]:
        return call(*map(str, arguments), cwd=tmp_path)

    nothing = l4lab("why", "fault", 1)
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert nothing.stderr == (
        "l4lab: l4lab-out/last: no run was recorded from here: "
        "expected RUN, or `l4lab boot pma --out run` before\n"
    )
    assert l4lab("boot", "hello", "--out", "one").returncode == 0
    assert l4lab("boot", "hello", "--out", "two", "--no-ledger").returncode == 0  # nothing to ask about
    told = l4lab("why", "fault", 1)
    assert told.returncode == 0
    assert told.stdout == l4lab("why", "fault", 1, "one").stdout
    assert l4lab("boot", "pagefault", "--out", "deep/three", "--json").returncode == 0
    assert l4lab("why").stdout == l4lab("why", "deep/three").stdout != l4lab("why", "one").stdout
    (tmp_path / "deep/three").rename(tmp_path / "elsewhere")
    gone = l4lab("why")
    assert gone.returncode == 2
    assert gone.stderr.startswith("l4lab: l4lab-out/last: the last run has gone")


@pytest.mark.slow
def test_steps_4_and_5_are_told_apart_where_the_image_is_known(tmp_path: Path, single: Recorded) -> None:
    number = faults_of(single, "pma.3")[0].operation.number
    away = shutil.copytree(single.run.folder, tmp_path / "run")
    assert "not told apart" not in why("fault", number, single.run.folder).stdout  # it lies beside the run
    unknown = why("fault", number, away)
    assert "Steps 4 and 5 are not told apart: that takes the image" in unknown.stdout
    manifest = single.run.folder.parent / "single.toml"
    told = why("fault", number, away, "--image", manifest)
    assert "not told apart" not in told.stdout
    frame = re.search(r"^5 frame +(\d+)", told.stdout, re.M)
    assert frame is not None and int(frame[1]) > 0
    other = why("fault", number, away, "--image", "hello")
    assert (other.returncode, other.stdout) == (2, "")
    assert other.stderr.startswith("l4lab: hello: found another machine or other programs")
    skipped = why("fault", number, away, "--image", manifest, "--no-replay")
    assert re.search(r"^5 frame +0 ", skipped.stdout, re.M)


def test_runs_of_the_benchmark_have_all_that_is_needed(tmp_path: Path) -> None:
    """`bench pma --out` leaves its manifest, too; `why` finds it, though a bundled image has the same name."""
    command = ("bench", "pma", "--design", "single", "--cores", "2", "--pages", "5", "--tasks", "1")
    done = call(*command, "--out", "run", "--trace", cwd=tmp_path)
    assert done.returncode == 0
    assert open_run(tmp_path / "run").trace
    told = call("why", "fault", "17", cwd=tmp_path)
    assert told.returncode == 0
    assert "not told apart" not in told.stdout
    found = re.findall(r"^(\d \w+) +([\d ]+?)  ", told.stdout.split("\n\n")[2], re.M)
    assert [name for name, _ in found] == [
        "1 touch", "2 fault", "3 message", "4 request", "5 frame", "6 map", "7 resume"
    ]  # fmt: skip
    together = re.search(r"^together +([\d ]+?)  ", told.stdout, re.M)
    assert together is not None
    assert sum(int(n.replace(" ", "")) for _, n in found) == int(together[1].replace(" ", ""))


def test_a_run_that_does_not_come_again_is_told_as_far_as_it_goes(tmp_path: Path) -> None:
    """As when a price or the kernel has changed since: here the run of one image says it is another's."""
    for name in ("hello", "pagefault"):
        record(image(name), tmp_path / name)
    shutil.copy(tmp_path / "pagefault/run.json", tmp_path / "hello/run.json")
    (tmp_path / "hello/seal.json").unlink()  # it would not be the same run
    recorded = Recorded(tmp_path / "hello")
    last = recorded.operations.count(events.FAULT)
    done = why("fault", last, tmp_path / "hello")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Steps 4 and 5 are not told apart: another l4lab has recorded this run." in done.stdout


def test_what_would_take_long_is_only_done_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record(image("hello"), tmp_path / "run")
    last = str(Recorded(tmp_path / "run").operations.count(events.FAULT))
    monkeypatch.setattr("l4lab.tools.why.allocation.AFFORDABLE_ROWS", 0)
    told = []
    for replay in (None, True, False):
        assert show_why(("fault", last, str(tmp_path / "run")), Asked(replay=replay)) == 0
        told.append(capsys.readouterr().out)
    assert "Steps 4 and 5 are not told apart: that takes booting the image again (--replay)." in told[0]
    assert "not told apart" not in told[1] + told[2]
    not_asked, asked, refused = (re.findall(r"^[1-7] \w+ +[\d ]+?  .*", text, re.M)[-7:] for text in told)
    assert not_asked == refused != asked
