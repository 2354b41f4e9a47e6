"""`l4lab demo`: three programs and what they cost; then the main job in small: what a message costs, and
what that does to one pager and to many.

The figures of `l4lab reproduce` have the same runs, larger. What is printed is the same on every host.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from l4lab.emulator.files.manifest import find_image, load_manifest
from l4lab.emulator.files.profile import load_profile
from l4lab.tools.bench.pingpong_run import make_manifest, near_and_far_cycles, places_of
from l4lab.tools.bench.pma_experiment import measuring
from l4lab.tools.bench.pma_image import PmaSetup
from l4lab.tools.common.progress import CampaignProgress
from l4lab.tools.common.report import console, grouped, print_tasks, table
from l4lab.tools.common.say import say
from l4lab.tools.paper.catalogue import DEFAULT_OUT
from l4lab.tools.runs import boot, campaign
from l4lab.tools.runs.campaign import Finished, Job, key_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROFILE: Final = "opteron-6174"
CORES: Final = (1, 6, 12, 24, 48)
DESIGNS: Final = {"single": "one pager on core 0", "percore": "a pager on each core"}
PAGES: Final = 100
_NAME: Final = "demo"
_IMAGE: Final = "hello"
_KEPT: Final = "runs"
_MESSAGES: Final = ("0",)
_ROUNDS: Final = 16
_SAMPLES: Final = 2
_MESSAGE_WEIGHT: Final = 1.0
_MEASURE_MESSAGES: Final = partial(near_and_far_cycles, PROFILE, _MESSAGES, _ROUNDS, _SAMPLES)


def run_demo() -> int:
    """Returns the exit code. Takes seconds, the second time less than three: the runs are kept."""
    code = _boot_programs()
    if code:
        return code
    setups = {(design, cores): _setup(design, cores) for design in DESIGNS for cores in CORES}
    jobs = {where: measuring(setup) for where, setup in setups.items()}
    messages = Job("messages", messages_key(), _MESSAGE_WEIGHT, _MEASURE_MESSAGES)
    finished = campaign.run_all(
        [*jobs.values(), messages], DEFAULT_OUT / _NAME / _KEPT, campaign.host_workers(), CampaignProgress()
    )
    cycles = {where: _cycles(finished[job.key]) for where, job in jobs.items()}
    _print(finished[messages.key].document, cycles)
    _draw(cycles, DEFAULT_OUT / _NAME)
    return 0


def _boot_programs() -> int:
    """Three programs in three address spaces, and what each of them cost; the exit code of the last."""
    result = boot.run(load_manifest(find_image(_IMAGE)), None, boot.write_console)
    print()
    print_tasks(result, sys.stdout)
    print(f"\n{boot.ending(result)}\n", flush=True)
    return boot.exit_code(result)


def _setup(design: str, cores: int) -> PmaSetup:
    return PmaSetup(design=design, cores=cores, pages=PAGES, tasks=1, profile=PROFILE)


def messages_key() -> str:
    """Changes with the program, the profile and what is measured."""
    places = places_of(load_profile(PROFILE))
    manifest = make_manifest(PROFILE, places, _MESSAGES, rounds=_ROUNDS, samples=_SAMPLES)
    return key_of("demo", manifest.resolved())


def _cycles(finished: Finished) -> float:
    """For a page, allocated, touched and freed; the mean of all processes."""
    document = finished.document
    return float((document["alloc_cycles"] + document["free_cycles"]) / document["pages_per_process"])


def _print(messages: dict[str, Any], cycles: dict[tuple[str, int], float]) -> None:
    same, other = messages["same core"], messages["other core"]
    print(
        "Every core runs a process that allocates pages, touches them and frees them. Each first touch is a page"
    )
    print("fault, which the microkernel sends as a message to a pager, a program like any other.\n")
    print(
        f"A message takes {grouped(round(same))} cycles on one core and {grouped(round(other))} to another core.\n"
    )
    rows = table("cores", *(f"cycles a page: {name}" for name in DESIGNS.values()))
    for cores in CORES:
        rows.add_row(str(cores), *(grouped(round(cycles[design, cores])) for design in DESIGNS))
    console().print(rows)
    growth = {design: cycles[design, CORES[-1]] / cycles[design, 1] for design in DESIGNS}
    print(
        f"\nWith {CORES[-1]} cores, one pager takes {growth['single']:.0f} times as long for a page, a pager on each "
        f"core {growth['percore']:.2f} times."
    )
    print("All of it, at full size and beside the published figures: l4lab reproduce all")


def _draw(cycles: dict[tuple[str, int], float], folder: Path) -> None:
    """The table as a figure; without matplotlib there is none, and a line that says so."""
    from l4lab.tools.common import plots

    try:
        with plots.canvas(6.4, 3.8) as figure:
            _draw_on(figure, cycles)
            folder.mkdir(parents=True, exist_ok=True)
            names = plots.save(figure, folder, _NAME)
    except (plots.PlotError, OSError) as problem:
        say(f"no figure: {problem}")
        return
    say(f"as a figure: {', '.join(str(folder / name) for name in names)}")


def _draw_on(figure: Figure, cycles: dict[tuple[str, int], float]) -> None:
    from l4lab.tools.common import plots

    colours = {"single": plots.VERMILION, "percore": plots.GREEN}
    axes = figure.subplots()
    for design, name in DESIGNS.items():
        values = [cycles[design, cores] for cores in CORES]
        axes.plot(CORES, values, marker="o", color=colours[design], label=name)
    axes.set_yscale("log")
    axes.set_xticks(list(CORES))
    plots.plain_numbers(axes)
    axes.set_xlabel("cores, each with one process")
    axes.set_ylabel("cycles for one page")
    axes.set_title("A page allocated, touched and freed")
    axes.legend(loc="center right")
