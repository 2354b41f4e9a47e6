"""The ping-pong as an instrument that measures messages: run `userland/bench/pingpong`, read what it says.

Every other tool that wants to know what a message costs on a profile asks here. A measurement is one
message in one place; the guest takes it with its own cycle counter. With each run goes its ledger, so that
`tools/ledger/breakdown.py` can say what the cycles were spent on.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from l4lab.emulator.errors import OperatorError
from l4lab.emulator.files.inputs import is_path
from l4lab.emulator.files.manifest import Manifest
from l4lab.emulator.files.profile import Distance, Profile, load_profile
from l4lab.emulator.results import StopReason
from l4lab.kernel.errors import KernelBug
from l4lab.kernel.state import TlbPolicy
from l4lab.tools.common.progress import Tell
from l4lab.tools.runs.execute import execute, image_with
from l4lab.tools.runs.recording import Recording
from l4lab.tools.runs.rundir import Run, open_run

PROGRAM: Final = "pingpong"
WORD_COUNTS: Final = (0, 1, 2, 4, 8, 16, 32, 63)
MESSAGES: Final = tuple(str(count) for count in WORD_COUNTS)
BYTES_PER_WORD: Final = 4

_RESULT: Final = re.compile(
    r"PINGPONG space=(intra|inter) cpus=(\d+),(\d+) message=(\S+) rounds=(\d+) start=(\d+) cycles=([\d,]+)"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the two threads are. `cores`: of client and server."""

    name: str
    apart: bool
    cores: tuple[int, int]

    @property
    def crosses(self) -> bool:
        """Whether messages go from one core to another."""
        return self.cores[0] != self.cores[1]

    @property
    def argument(self) -> str:
        """As the program wants it."""
        return f"{'inter' if self.apart else 'intra'}:{self.cores[0]}:{self.cores[1]}"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One message in one place, as the guest saw it.

    `message`: number of words, or what `userland/bench/pingpong/main.c` has besides. `start_cycles`: the
    client's cycle counter before the first of `samples`; each is the cycles of `rounds` messages there
    and back, and they follow one another without gap.
    """

    place: Place
    message: str
    rounds: int
    start_cycles: int
    samples: tuple[int, ...]

    @property
    def end_cycles(self) -> int:
        """The client's cycle counter after the last sample."""
        return self.start_cycles + sum(self.samples)

    @property
    def messages(self) -> int:
        """How many went one way or the other."""
        return 2 * self.rounds * len(self.samples)

    @property
    def cycles(self) -> Fraction:
        """Mean cycles of one message, one way."""
        return Fraction(sum(self.samples), self.messages)

    def sample_cycles(self) -> list[Fraction]:
        """Cycles of one message, one way, in each sample."""
        return [Fraction(sample, 2 * self.rounds) for sample in self.samples]


@dataclass(frozen=True, slots=True)
class Series:
    """All that one run has measured. `run`: its ledger, while the context that made it is open."""

    manifest: Manifest
    profile: Profile
    measurements: tuple[Measurement, ...]
    run: Run

    def cycles(self, place: str, message: str = "0") -> Fraction:
        """Mean cycles of `message` at the place of that name; KeyError if it was not measured."""
        for measurement in self.measurements:
            if (measurement.place.name, measurement.message) == (place, message):
                return measurement.cycles
        raise KeyError(f"{place}, message {message}")


def places_of(profile: Profile) -> tuple[Place, ...]:
    """One place of each kind that the modelled machine has, nearest first."""
    found = [Place("intra_space", False, (0, 0)), Place("inter_space", True, (0, 0))]
    for distance, cores in cores_by_distance(profile).items():
        found.append(Place(distance.value, True, (0, cores[0])))
    return tuple(found)


def cores_by_distance(profile: Profile) -> dict[Distance, list[int]]:
    """For each distance at which core 0 of the modelled machine has others: those others."""
    topology = profile.topology
    count = topology.packages * topology.dies_per_package * topology.cores_per_die
    found: dict[Distance, list[int]] = {}
    for core in range(1, count):
        found.setdefault(topology.distance(0, core), []).append(core)
    return found


def cross_core_cycles(series: Series, message: str = "0") -> Fraction | None:
    """Mean over all other cores of the modelled machine; None if it has just one, or none was measured."""
    by_distance = cores_by_distance(series.profile)
    places = {place.name for place in {measurement.place for measurement in series.measurements}}
    counted = [
        (len(cores), series.cycles(distance.value, message))
        for distance, cores in by_distance.items()
        if distance.value in places
    ]
    if not counted:
        return None
    return sum((count * cycles for count, cycles in counted), Fraction(0)) / sum(
        count for count, _ in counted
    )


def make_manifest(
    profile: str,
    places: Sequence[Place],
    messages: Sequence[str],
    *,
    rounds: int,
    samples: int,
    tlb: TlbPolicy = TlbPolicy.FULL,
) -> Manifest:
    """The bundled image with another command line, and as many cores as that needs."""
    options = f"--messages={','.join(messages)} --samples={samples} --rounds={rounds}"
    return image_with(
        PROGRAM,
        " ".join([PROGRAM, options, *(place.argument for place in places)]),
        cores=1 + max(max(place.cores) for place in places),
        profile=str(Path(profile).absolute()) if is_path(profile) else profile,
        tlb=tlb,
    )


class Instrument:
    """Runs measurements; leaving the context removes what their ledgers took."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._count = 0
        self._folder = Path()

    def __enter__(self) -> Instrument:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="l4lab-")))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(
        self,
        profile: str,
        places: Sequence[Place] | None = None,
        messages: Sequence[str] = MESSAGES,
        *,
        rounds: int = 64,
        samples: int = 8,
        tlb: TlbPolicy = TlbPolicy.FULL,
        progress: Callable[[], None] = lambda: None,
    ) -> Series:
        """Measure `messages` in `places` (all that the profile's machine has).

        `progress` is called after each measurement. Raises OperatorError, Interrupted, and KernelBug if
        messages were lost or damaged.
        """
        described = load_profile(profile)
        wanted = tuple(places_of(described) if places is None else places)
        manifest = make_manifest(profile, wanted, messages, rounds=rounds, samples=samples, tlb=tlb)
        folder = self._folder / str(self._count)
        self._count += 1

        def listen(data: bytes) -> None:
            if _RESULT.match(data.decode("ascii", "replace")):
                progress()

        with Recording(folder, manifest, "{}\n") as recording:
            result = execute(manifest, console=listen, recording=recording)
        console = result.console.decode("ascii", "replace")
        if result.reason is not StopReason.ROOT_ENDED or result.exit_code:
            raise _failure(result.reason, result.exit_code, console)
        found = read_results(console, wanted)
        return Series(manifest, described, found, open_run(folder))


def _failure(reason: StopReason, code: int, console: str) -> Exception:
    last = console.strip().splitlines()[-1:] or ["no output"]
    line = f"{PROGRAM}: {reason.value} with exit code {code}: {last[0]}"
    return OperatorError(line) if code == 2 else KernelBug(line)


def read_results(console: str, places: Sequence[Place]) -> tuple[Measurement, ...]:
    """The result lines among what the guests printed, in their order; `places` gives them their names."""
    by_argument = {place.argument: place for place in places}
    found = []
    for space, client, server, message, rounds, start, cycles in _RESULT.findall(console):
        found.append(
            Measurement(
                place=by_argument[f"{space}:{client}:{server}"],
                message=message,
                rounds=int(rounds),
                start_cycles=int(start),
                samples=tuple(int(sample) for sample in cycles.split(",")),
            )
        )
    return tuple(found)


def near_and_far_cycles(
    profile: str, messages: Sequence[str], rounds: int, samples: int, _: Tell
) -> dict[str, float]:
    """A job of a campaign: one message on one core and to another core, on a profile that has several."""
    with Instrument() as instrument:
        series = instrument.measure(profile, messages=messages, rounds=rounds, samples=samples)
        across = cross_core_cycles(series)
        assert across is not None
        return {"same core": float(series.cycles("inter_space")), "other core": float(across)}
