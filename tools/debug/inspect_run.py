"""Back to a moment of a recorded run, by running it again.

A run directory says what was run, with the hashes of all that went in, but nothing of the kernel's objects:
there are too many moments. The same inputs give the same run, so any of them can be had again. What is run
is only taken if its hashes are those of the record, and the end has to come out as it did.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from l4lab.emulator.debug.catching import fault_text
from l4lab.emulator.debug.debugged import DebuggedMachine, Entry
from l4lab.emulator.debug.debugging import Debugger
from l4lab.emulator.debug.stops import StopKind
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
from l4lab.tools.runs.recording import RUN_FILE
from l4lab.tools.runs.session import ending

if TYPE_CHECKING:
    from l4lab.kernel.state import Kernel

_BEYOND_ALL_RUNS: Final = 1 << 50


class InspectError(OperatorError):
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


def reach(source: Source, moment: Moment) -> Found:
    """Run to the moment. Raises InspectError if the run does not come there, KernelBug for ours."""
    if moment.is_end:
        return _to_the_end(source)
    machine = DebuggedMachine(
        source.manifest, limit_cycles=source.max_cycles if source.max_cycles is not None else NEVER
    )
    debugger = Debugger(machine)
    if moment.cycle is not None:
        return Found(source.manifest, machine, _to_cycle(debugger, moment.core, moment.cycle))
    word, number = ("fault", moment.fault) if moment.fault is not None else ("ipc", moment.ipc)
    assert number is not None
    return Found(source.manifest, machine, _to_operation(debugger, word, number))


def _to_the_end(source: Source) -> Found:
    if source.unfinished:
        raise InspectError(
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
            raise InspectError(
                f"{RUN_FILE}: result.{key}: found {was}, but run again it is {is_now}; "
                f"expected a run of this version of l4lab"
            )


def _to_cycle(debugger: Debugger, core: int, cycle: int) -> str:
    machine = debugger.machine
    if core >= len(machine.cores):
        raise InspectError(f"--core: found {core}, expected 0 to {len(machine.cores) - 1}")
    stop = debugger.go_to_clock(core, min(cycle, _BEYOND_ALL_RUNS))
    if stop.kind is StopKind.END:
        clock = machine.cores[core].clock_cycles
        raise InspectError(
            f"--cycle: found {cycle}, expected at most {clock}, where core {core}'s clock ends"
        )
    return f"the first moment at which core {core} is at cycle {grouped(cycle)} or beyond"


def _to_operation(debugger: Debugger, word: str, number: int) -> str:
    counter = _Counter(debugger.machine.kernel, word, number)
    debugger.observers.append(counter.observe)
    stop = debugger.resume()
    if stop.kind is not StopKind.CATCHPOINT:
        raise InspectError(f"--{word}: found {number}, expected 1 to {counter.count}: the run has no more")
    return stop.text


class _Counter:
    """Counts page faults or IPCs as they begin, and stops at one of them."""

    def __init__(self, kernel: Kernel, word: str, number: int) -> None:
        self._kernel = kernel
        self._word = word
        self._number = number
        self.count = 0

    def observe(self, entry: Entry, seen: Sequence[Event], before: bool) -> str | None:
        """A `debugging.Observer`."""
        if self._word == "fault":
            return self._fault(entry) if before else None
        texts = [self._ipc(event) for event in seen if event.kind == events.IPC]
        return next((text for text in texts if text is not None), None)

    def _fault(self, entry: Entry) -> str | None:
        thread = entry.core.decision.thread
        if thread is None or not isinstance(entry.trap, PageFault):
            return None
        self.count += 1
        if self.count != self._number:
            return None
        what = f"{thread_name(thread)}, {fault_text(entry.trap)}, at {thread.frame[EIP]:#x}"
        return f"fault {self.count}, before the kernel acts: {what}"

    def _ipc(self, event: Event) -> str | None:
        self.count += 1
        if self.count != self._number:
            return None
        sender, partner = (self._named(number) for number in (event.thread, event.partner))
        return f"ipc {self.count}, {sender} to {partner}, right after its kernel entry"

    def _named(self, number: int) -> str:
        thread = self._kernel.threads.get(number)
        return thread_name(thread) if thread is not None else f"object {number}"


# --- what to run ----------------------------------------------------------------------------------------


def find_source(word: str, image: str | None) -> Source:
    """What an operator means: the folder of a recorded run, or an image. Raises OperatorError.

    `image`: the manifest of a recorded run, where it cannot be found by its name.
    """
    folder = Path(word)
    if not folder.is_dir():
        if image is not None:
            raise InspectError(f"--image goes with the folder of a run: found '{printable(word)}'")
        return Source(load_manifest(find_image(word)))
    document = _read(folder / RUN_FILE)
    configuration = document.get("configuration")
    if not isinstance(configuration, dict) or not isinstance(configuration.get("manifest"), dict):
        raise InspectError(
            f"{printable(folder / RUN_FILE)}: configuration.manifest: found nothing, "
            f"expected a run that `l4lab boot --out` has written"
        )
    manifest = _manifest_of(folder, configuration, image)
    result = document.get("result")
    return Source(
        manifest,
        configuration.get("max_cycles"),
        result if isinstance(result, dict) else None,
        unfinished=result is None,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise InspectError(
            f"{printable(path)}: {error.strerror}, expected a folder that `l4lab boot --out` has written"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InspectError(f"{printable(path)}: not JSON ({printable(error)})") from None
    if not isinstance(found, dict):
        raise InspectError(f"{printable(path)}: found a {type(found).__name__}, expected a table")
    return found


def _manifest_of(folder: Path, configuration: dict[str, Any], image: str | None) -> Manifest:
    """The manifest that was run. The record has its name and all that it leads to, but not where it lay."""
    name = str(configuration["manifest"].get("name"))
    if image is not None:
        candidates = [find_image(image)]
    elif Path(name).name == name:
        places = (BUNDLED_IMAGES, Path(), folder, folder.absolute().parent)
        candidates = [place / name for place in places if (place / name).is_file()]
    else:
        candidates = []
    problem = InspectError(
        f"{printable(folder / RUN_FILE)}: manifest: found no {printable(name)} among the bundled images, "
        f"here or beside the run, expected --image PATH"
    )
    for index, candidate in enumerate(candidates):
        manifest = load_manifest(candidate)
        different = _difference(_determining(configuration), _determining(manifest.resolved()))
        if different is None:
            return manifest
        key, was, is_now = (printable(part) for part in different)
        if index == 0:
            problem = InspectError(
                f"{printable(folder / RUN_FILE)}: configuration.{key}: found {was}, but "
                f"{printable(candidate)} has {is_now}; expected what was run"
            )
    raise problem


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
