"""The memory experiment of 000_1be4d2f6ae8bebbc.txt: which runs its figures need, and what they gave.

The figures themselves are in `tools/paper/figures`. Points are ratios to one core, as in the paper.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from l4lab.tools.bench.pma_image import PmaSetup
from l4lab.tools.bench.pma_ledger import page_cycles, server_core
from l4lab.tools.bench.pma_run import BenchmarkError, PmaResult, run_pma, write_image
from l4lab.tools.common.progress import Tell
from l4lab.tools.common.report import counted
from l4lab.tools.runs.campaign import Finished, Job, key_of
from l4lab.tools.runs.rundir import open_run

_HOST_US_PER_PAGE: Final = {"percore": 90, "single": 180, "l4re": 130}
_HOST_US_PER_CORE: Final = 20_000
_LEDGER_FACTOR: Final = 1.5


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the experiment is.

    `outstanding`: pages of a task, in figure 11; `outstanding_pages`: of all tasks of a process there.
    `ledger_tasks`: of the runs whose ledger is looked at.
    """

    name: str
    cores: tuple[int, ...]
    pages: int
    tasks: int
    outstanding: tuple[int, ...]
    outstanding_cores: tuple[int, ...]
    outstanding_pages: int
    ledger_tasks: int


FULL: Final = Sizes(
    name="full",
    cores=(1, 6, 12, 18, 24, 30, 36, 42, 48),
    pages=100,
    tasks=100,
    outstanding=(50, 100, 200, 500, 1000),
    outstanding_cores=(1, 12, 24, 36, 48),
    outstanding_pages=10_000,
    ledger_tasks=5,
)
"""The paper's own sizes: 10,000 pages for each process, 1 to 48 cores at step 6."""

QUICK: Final = Sizes(
    name="quick",
    cores=(1, 6, 12, 24, 48),
    pages=100,
    tasks=2,
    outstanding=(50, 200, 1000),
    outstanding_cores=(1, 48),
    outstanding_pages=1000,
    ledger_tasks=1,
)


# --- runs ---------------------------------------------------------------------------------------------


def _measure(setup: PmaSetup, tell: Tell) -> dict[str, Any]:
    """One run, without a ledger."""
    return _in_order(run_pma(setup, tell=tell)).as_dict()


def _in_order(result: PmaResult) -> PmaResult:
    """A figure is made of nothing else."""
    if result.problems or not result.books_balance:
        problem = next(iter(result.problems), "the books do not balance")
        raise BenchmarkError(f"a run is not in order: {problem}")
    return result


def _look_into(setup: PmaSetup, tell: Tell) -> dict[str, Any]:
    """One run with a ledger, and where each page's cycles went."""
    with tempfile.TemporaryDirectory(prefix="l4lab-") as folder:
        result = _in_order(run_pma(setup, tell=tell, out=Path(folder) / "run"))
        run = open_run(Path(folder) / "run")
        cycles = page_cycles(run, setup)
        begin, end = min(p.begin for p in result.processes), max(p.end for p in result.processes)
        core = server_core(run, begin, end, setup.pages_per_process * setup.cores)
    page = {name: sums.as_dict() for name, sums in cycles.items()}
    return {**result.as_dict(), "page": page, "server_core": core}


def _weight(setup: PmaSetup) -> float:
    pages = setup.pages_per_process * setup.cores
    return (pages * _HOST_US_PER_PAGE[setup.design] + setup.cores * _HOST_US_PER_CORE) / 1e6


def _title(setup: PmaSetup) -> str:
    return f"{setup.design}, {counted(setup.cores, 'core')}, {setup.pages} pages"


def measuring(setup: PmaSetup) -> Job:
    """The job that measures `setup`."""
    return Job(_title(setup), _key(setup, "measure"), _weight(setup), functools.partial(_measure, setup))


def looking_into(setup: PmaSetup) -> Job:
    """The job that looks into the ledger of `setup`."""
    name = f"{_title(setup)}, with ledger"
    weight = _weight(setup) * _LEDGER_FACTOR
    return Job(name, _key(setup, "look into"), weight, functools.partial(_look_into, setup))


@functools.cache
def _key(setup: PmaSetup, what: str) -> str:
    with tempfile.TemporaryDirectory(prefix="l4lab-") as folder:
        configuration = write_image(setup, Path(folder)).resolved()
    return key_of(what, configuration)


@dataclass(frozen=True, slots=True)
class Plan:
    """What figures are to be made of: sizes, and the profile of the machine."""

    sizes: Sizes
    profile: str = "opteron-6174"

    def scaling(self, design: str, cores: int) -> PmaSetup:
        """A point of figures 4, 9 and 10."""
        return PmaSetup(design, cores, self.sizes.pages, self.sizes.tasks, profile=self.profile)

    def outstanding(self, pages: int, cores: int) -> PmaSetup:
        """A point of figure 11."""
        tasks = max(self.sizes.outstanding_pages // pages, 1)
        return PmaSetup(cores=cores, pages=pages, tasks=tasks, profile=self.profile)

    def ledger(self, design: str, cores: int) -> PmaSetup:
        """A run whose ledger is looked at."""
        return replace(self.scaling(design, cores), tasks=self.sizes.ledger_tasks)

    def polling(self, design: str, cores: int) -> PmaSetup:
        """As `ledger`, with idle cores that do not halt."""
        return replace(self.ledger(design, cores), idle="poll")

    def outstanding_ledger(self, pages: int) -> PmaSetup:
        """A run on one core whose ledger says what the number of outstanding pages changes."""
        tasks = max(self.sizes.outstanding[-1] // pages, 1)
        return PmaSetup(cores=1, pages=pages, tasks=tasks, profile=self.profile)

    def scaling_jobs(self, *designs: str) -> list[Job]:
        """The runs of these designs on every number of cores."""
        return [measuring(self.scaling(design, cores)) for design in designs for cores in self.sizes.cores]

    def outstanding_jobs(self) -> list[Job]:
        """The runs of figure 11."""
        sizes = self.sizes
        return [
            measuring(self.outstanding(pages, cores))
            for pages in sizes.outstanding
            for cores in sizes.outstanding_cores
        ]


# --- results ------------------------------------------------------------------------------------------


class Results:
    """What the runs of a plan have given, by what they were for."""

    def __init__(self, plan: Plan, finished: Mapping[str, Finished]) -> None:
        self.plan = plan
        self._finished = finished

    def of(self, setup: PmaSetup) -> dict[str, Any]:
        """The document of one run of the plan (`PmaResult.as_dict`)."""
        return self._finished[measuring(setup).key].document

    def looked_into(self, setup: PmaSetup) -> dict[str, Any]:
        """The same, and where the cycles of a page went: under `page`, and under `server_core` those of core 0."""
        return self._finished[looking_into(setup).key].document

    def ratios(self, design: str, what: str) -> list[float]:
        """`total_cycles`, `alloc_cycles` or `free_cycles` at each number of cores, over that on one."""
        values = [float(self.of(self.plan.scaling(design, cores))[what]) for cores in self.plan.sizes.cores]
        return [value / values[0] for value in values]

    def per_page(self, design: str, what: str) -> list[float]:
        """The same in cycles, divided by the pages of one process."""
        documents = [self.of(self.plan.scaling(design, cores)) for cores in self.plan.sizes.cores]
        return [float(document[what]) / document["pages_per_process"] for document in documents]

    def polling_ratio(self, design: str, cores: int) -> float:
        """The whole, with idle cores that do not halt, over that on one core, where they do not matter."""
        document = self.of(self.plan.polling(design, cores))
        cycles = float(document["total_cycles"] / document["pages_per_process"])
        return cycles / self.per_page(design, "total_cycles")[0]

    def cycles_per_page(self, pages: int, cores: int) -> float:
        """From start to end, for figure 11."""
        document = self.of(self.plan.outstanding(pages, cores))
        return float(document["total_cycles"] / document["pages_per_process"])
