"""A recorded run, run again up to a moment, and held against what was recorded.

A run directory says what was run, with the hashes of all that went in, but nothing of the kernel's objects:
there are too many moments. The same inputs give the same run, so any of them can be had again. What is run
is only taken if its hashes are those of the record, and the end has to come out as it did.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l4lab.emulator.debug.catching import fault_text
from l4lab.emulator.debug.debugged import DebuggedMachine, Entry
from l4lab.emulator.debug.debugging import Debugger
from l4lab.emulator.debug.stops import Goal, GoalKind, StopKind
from l4lab.emulator.errors import OperatorError
from l4lab.emulator.files.inputs import BUNDLED_IMAGES, printable
from l4lab.emulator.files.manifest import Manifest, find_image, load_manifest
from l4lab.emulator.machine import NEVER, Machine
from l4lab.emulator.results import RunResult, StopReason
from l4lab.kernel import events
from l4lab.kernel.events import Event
from l4lab.kernel.frame import EIP
from l4lab.kernel.inspect import thread_name
from l4lab.kernel.traps import PageFault
from l4lab.tools.common.report import grouped
from l4lab.tools.runs.boot import ending
from l4lab.tools.runs.recording import RUN_FILE
from l4lab.tools.runs.rundir import read_json

if TYPE_CHECKING:
    from l4lab.kernel.state import Kernel


class ReplayError(OperatorError):
    """A run that cannot be had again, or a moment that it does not have."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Which moment of a run; nothing given: its end.

    `cycle`: the first at which `core` is at or beyond it. `fault`, `ipc`: the page fault or IPC of that
    number, counted from 1 as `l4lab why` does; a fault before the kernel acts, an IPC when it has begun.
    """

    cycle: int | None = None
    core: int = 0
    fault: int | None = None
    ipc: int | None = None

    @property
    def is_end(self) -> bool:
        """Whether it is the end of the run."""
        return self.cycle is None and self.fault is None and self.ipc is None


@dataclass(frozen=True, slots=True)
class Found:
    """A machine at the moment that was asked for. `text`: what is going on there."""

    manifest: Manifest
    machine: Machine
    text: str


@dataclass(frozen=True, slots=True)
class Source:
    """What to run. `max_cycles`: where the record stopped. `result`: how it ended, if that is known."""

    manifest: Manifest
    max_cycles: int | None = None
    result: dict[str, Any] | None = None
    unfinished: bool = False


def boot_to_debug(
    manifest: Manifest, max_cycles: int | None = None, console: Callable[[bytes], None] | None = None
) -> Debugger:
    """A machine before its first instruction, under a debugger; it ends at `max_cycles`, if given."""
    limit = NEVER if max_cycles is None else min(max_cycles, NEVER)
    return Debugger(DebuggedMachine(manifest, console=console, limit_cycles=limit))


def replay_to_fault(manifest: Manifest, core: int, since: int, cycle: int, address: int) -> Debugger:
    """A machine at the page fault that was recorded, before the kernel acts. ReplayError if there is none.

    `since`: a cycle of that core from which on there is no kernel entry before it.
    """
    debugger = boot_to_debug(manifest)
    debugger.resume(Goal(GoalKind.CLOCK, core=core, clock_cycles=since))

    def is_it(entry: Entry, _: Sequence[Event], before: bool) -> str | None:
        trap = entry.trap
        same = isinstance(trap, PageFault) and trap.address == address and entry.core.number == core
        return "there" if before and same and entry.now == cycle else None

    debugger.observers.append(is_it)
    stop = debugger.resume(Goal(GoalKind.CLOCK, core=core, clock_cycles=cycle + 1))
    debugger.observers.remove(is_it)
    if stop.kind is not StopKind.CATCHPOINT:
        raise ReplayError(f"{manifest.path.name}: booted again, the image runs another way")
    return debugger


def reach(source: Source, moment: Moment) -> Found:
    """Run to the moment. Raises ReplayError if the run does not come there, KernelBug for ours."""
    if moment.is_end:
        return _to_the_end(source)
    debugger = boot_to_debug(source.manifest, source.max_cycles)
    if moment.cycle is not None:
        text = _to_cycle(debugger, moment.core, moment.cycle)
    elif moment.fault is not None:
        text = _to_operation(debugger, "fault", moment.fault)
    else:
        assert moment.ipc is not None
        text = _to_operation(debugger, "ipc", moment.ipc)
    return Found(source.manifest, debugger.machine, text)


def _to_the_end(source: Source) -> Found:
    if source.unfinished:
        raise ReplayError(
            f"{RUN_FILE}: the run has not ended, so it has no last moment; expected --cycle, --fault or --ipc"
        )
    recorded = source.result
    stopped = recorded is not None and recorded.get("reason") == StopReason.HOST_STOP.name.lower()
    machine = Machine(source.manifest)
    result = machine.run(recorded["cycles"] if recorded is not None and stopped else source.max_cycles)
    if recorded is not None and not stopped:
        _compare(recorded, result)
    return Found(source.manifest, machine, "about where it was interrupted" if stopped else ending(result))


def _compare(recorded: dict[str, Any], result: RunResult) -> None:
    """A run that comes out otherwise was made by another version of l4lab: nothing can be said of it."""
    found = json.loads(json.dumps(result.as_dict()))
    for key, value in found.items():
        if recorded.get(key) != value:
            was, is_now = (printable(json.dumps(v))[:40] for v in (recorded.get(key), value))
            raise ReplayError(
                f"{RUN_FILE}: result.{key}: found {was}, but run again it is {is_now}; "
                f"expected a run of this version of l4lab"
            )


def _to_cycle(debugger: Debugger, core: int, cycle: int) -> str:
    machine = debugger.machine
    if core >= len(machine.cores):
        raise ReplayError(f"--core: found {core}, expected 0 to {len(machine.cores) - 1}")
    stop = debugger.go_to_clock(core, min(cycle, NEVER))
    if stop.kind is StopKind.END:
        clock = machine.cores[core].clock_cycles
        raise ReplayError(f"--cycle: found {cycle}, expected at most {clock}, where core {core}'s clock ends")
    return f"the first moment at which core {core} is at cycle {grouped(cycle)} or beyond"


def _to_operation(debugger: Debugger, word: str, number: int) -> str:
    kernel = debugger.machine.kernel
    count = 0

    def counted(entry: Entry, seen: Sequence[Event], before: bool) -> str | None:
        nonlocal count
        if word == "fault":
            texts = [_fault_text(entry)] if before and isinstance(entry.trap, PageFault) else []
        else:
            texts = [_ipc_text(kernel, event) for event in seen if event.kind == events.IPC]
        for text in filter(None, texts):
            count += 1
            if count == number:
                return f"{word} {count}, {text}"
        return None

    debugger.observers.append(counted)
    stop = debugger.resume()
    if stop.kind is not StopKind.CATCHPOINT:
        raise ReplayError(f"--{word}: found {number}, expected 1 to {count}: the run has no more")
    return stop.text


def _fault_text(entry: Entry) -> str:
    thread = entry.core.decision.thread
    if thread is None or not isinstance(entry.trap, PageFault):
        return ""
    what = f"{thread_name(thread)}, {fault_text(entry.trap)}, at {thread.frame[EIP]:#x}"
    return f"before the kernel acts: {what}"


def _ipc_text(kernel: Kernel, event: Event) -> str:
    ends = [kernel.threads.get(number) or number for number in (event.thread, event.partner)]
    sender, partner = (f"object {end}" if isinstance(end, int) else thread_name(end) for end in ends)
    return f"{sender} to {partner}, right after its kernel entry"


# --- what to run ----------------------------------------------------------------------------------------


def find_source(word: str, image: str | None) -> Source:
    """What an operator means: the folder of a recorded run, or an image. Raises OperatorError.

    `image`: the manifest of a recorded run, where it cannot be found by its name.
    """
    folder = Path(word)
    if not folder.is_dir():
        if image is not None:
            raise ReplayError(f"--image goes with the folder of a run: found '{printable(word)}'")
        return Source(load_manifest(find_image(word)))
    document = read_json(folder / RUN_FILE, "a folder that `l4lab boot --out` has written")
    manifest = booted_from(folder, document, image)
    result = document.get("result")
    return Source(
        manifest,
        document["configuration"].get("max_cycles"),
        result if isinstance(result, dict) else None,
        unfinished=result is None,
    )


def booted_from(folder: Path, document: dict[str, Any], image: str | None) -> Manifest:
    """The manifest that the run in `folder` was booted from. Raises ReplayError if it is not at hand or has changed.

    `document`: the run's record, which has its name and all that it leads to, but not where it lay. `image`: what
    a person says it is; OperatorError if there is no such image.
    """
    record = printable(folder / RUN_FILE)
    configuration = document.get("configuration")
    if not isinstance(configuration, dict) or not isinstance(configuration.get("manifest"), dict):
        raise ReplayError(
            f"{record}: configuration.manifest: found nothing, "
            f"expected a run that `l4lab boot --out` has written"
        )
    name = str(configuration["manifest"].get("name"))
    if image is not None:
        candidates = [find_image(image)]
    else:
        places = (BUNDLED_IMAGES, Path(), folder, folder.absolute().parent) if Path(name).name == name else ()
        candidates = [place / name for place in places if (place / name).is_file()]
    problems = []
    for candidate in candidates:
        try:
            manifest = load_manifest(candidate)
        except OperatorError as error:
            if image is not None:
                raise
            problems.append(str(error))
            continue
        different = _difference(_determining(configuration), _determining(manifest.resolved()))
        if different is None:
            return manifest
        key, was, is_now = (printable(part) for part in different)
        problems.append(
            f"{record}: configuration.{key}: found {was}, but "
            f"{printable(candidate)} has {is_now}; expected what was run"
        )
    missing = (
        f"found no {printable(name)} among the bundled images, here or beside the run, expected --image PATH"
    )
    raise ReplayError(problems[0] if problems else f"{record}: manifest: {missing}")


def _determining(configuration: dict[str, Any]) -> dict[str, Any]:
    """What decides how a run goes: the machine and the programs, with hashes; not the words of the manifest."""
    return {part: json.loads(json.dumps(configuration.get(part))) for part in ("machine", "boot")}


def _difference(then: object, now: object, key: str = "") -> tuple[str, object, object] | None:
    """The first key with different values, and these."""
    if isinstance(then, dict) and isinstance(now, dict):
        for name in sorted({*then, *now}):
            found = _difference(then.get(name), now.get(name), f"{key}.{name}" if key else name)
            if found is not None:
                return found
        return None
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for index, pair in enumerate(zip(then, now, strict=True)):
            found = _difference(*pair, f"{key}[{index}]")
            if found is not None:
                return found
        return None
    return None if then == now else (key, then, now)
