"""`l4lab reproduce NAME`: measure again what a paper shows, draw it, and say how far off we are.

Each figure or table is a module of `tools/paper/figures` whose function `measure` gives an `Outcome`;
`tools/paper/catalogue.py` lists them. A module that needs long runs has a function `jobs` besides, which names them:
those of all figures asked for are done first, side by side, and kept (`tools/runs/campaign.py`). What is common is
here: the results directory, whose bytes depend on nothing but the inputs.

    README.md          the figure, the residuals, and how it was made
    NAME.png, .svg     the figure
    data.json          every number in it, residuals, resolved configuration, versions
    SHA256SUMS         of all other files; `sha256sum --check` reads it

Of `all` there is one for each, and above them a README.md with all of it and the SHA256SUMS of everything. What
--quick gives has a place of its own, unless --out says where; the runs of both are kept side by side.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

from l4lab.emulator.errors import OperatorError
from l4lab.emulator.files.inputs import did_you_mean, printable
from l4lab.tools.common import plots
from l4lab.tools.common.progress import CampaignProgress, Progress
from l4lab.tools.common.report import json_text, print_json
from l4lab.tools.common.versions import versions_with_drawing
from l4lab.tools.paper.catalogue import ALL, DEFAULT_OUT, FIGURES
from l4lab.tools.paper.outcome import Outcome, Step
from l4lab.tools.paper.result_pages import as_overview, as_page, print_made, print_outcome, print_overview

FORMAT: Final = 1
"""Version of data.json; raised when a key goes or changes its meaning."""

PAGE_FILE: Final = "README.md"
_DATA_FILE: Final = "data.json"
_RUNS_FOLDER: Final = "runs"
_QUICK_FOLDER: Final = "quick"
_SUMS_FILE: Final = "SHA256SUMS"

Measure = Callable[[Step], Outcome]


def run_reproduce(
    name: str, *, out: Path | None, as_json: bool, quick: bool = False, workers: int | None = None
) -> int:
    """`l4lab reproduce`. Returns the exit code. `workers`: runs at a time; None: one for each core of the host."""
    names = list(FIGURES) if name == ALL else [name]
    for one in names:
        if one not in FIGURES:
            found = f'reproduce: found no figure "{printable(one)}"{did_you_mean(one, FIGURES)}'
            raise OperatorError(f"{found}, expected one of {', '.join(FIGURES)}, {ALL}")
    base = out if out is not None else DEFAULT_OUT / _QUICK_FOLDER if quick else DEFAULT_OUT
    folders = {one: base / one if out is None or len(names) > 1 else base for one in names}
    _check_before(folders.values())
    kept = (out if out is not None else DEFAULT_OUT) / _RUNS_FOLDER
    measures = _measures(names, kept, quick=quick, workers=workers)
    documents, results = [], []
    option = " --quick" * quick
    for one, folder in folders.items():
        outcome, document = reproduce(one, folder, measures[one], f"l4lab reproduce {one}{option}")
        documents.append(document)
        results.append((one, outcome))
        if len(names) > 1 and not as_json:
            print_made(outcome, folder, 1 + max(len(str(path)) for path in folders.values()))
        elif not as_json:
            print_outcome(one, outcome, folder)
    if len(names) > 1:
        _write_overview(base, results, f"l4lab reproduce {name}{option}")
        if not as_json:
            print_overview(results, base / PAGE_FILE)
    if as_json:
        print_json(documents[0] if len(documents) == 1 else documents)
    return 0


def _check_before(folders: Iterable[Path]) -> None:
    """What would go wrong after minutes of runs goes wrong now."""
    for folder in folders:
        _make_folder(folder)
    with plots.canvas(1, 1):
        pass


def module_of(name: str) -> ModuleType:
    """The code of a figure."""
    return importlib.import_module(f"l4lab.tools.paper.figures.{name}")


def needs_runs(module: ModuleType) -> bool:
    """Whether the figure of that code is made of long runs."""
    return hasattr(module, "jobs")


def _measures(names: Sequence[str], kept: Path, *, quick: bool, workers: int | None) -> dict[str, Measure]:
    """Each figure's function that measures, all long runs being done and in the folder `kept`."""
    modules = {name: module_of(name) for name in names}
    long = [name for name, module in modules.items() if needs_runs(module)]
    measures: dict[str, Measure] = {
        name: module.measure for name, module in modules.items() if name not in long
    }
    if not long:
        return measures
    from l4lab.tools.bench.pma_experiment import FULL, QUICK, Plan, Results
    from l4lab.tools.runs.campaign import host_workers, run_all

    plan = Plan(QUICK if quick else FULL)
    jobs = {job.key: job for name in long for job in modules[name].jobs(plan)}
    finished = run_all(list(jobs.values()), kept, workers or host_workers(), CampaignProgress())
    results = Results(plan, finished)

    def of_results(module: ModuleType) -> Measure:
        """Its runs are done, so there are no steps to tell of."""
        return lambda _: cast(Outcome, module.measure(results))

    return measures | {name: of_results(modules[name]) for name in long}


def reproduce(name: str, folder: Path, measure: Measure, command: str) -> tuple[Outcome, dict[str, Any]]:
    """Measure and draw figure `name` into `folder`; the outcome, and what went into data.json.

    `command`: what was asked for, as a person would type it again.
    """
    _make_folder(folder)
    with Progress(name) as progress:
        outcome = measure(lambda what: progress.tell(f"{name}: {what}"))
        progress.tell(f"{name}: drawing")
        files = outcome.draw(folder, name)
    document = as_document(name, outcome, command)
    _write(folder / _DATA_FILE, json_text(document, sort_keys=True))
    _write(folder / PAGE_FILE, as_page(outcome, files, command))
    _write(folder / _SUMS_FILE, "\n".join([*_sums(folder, [_DATA_FILE, PAGE_FILE, *files]), ""]))
    return outcome, document


def as_document(name: str, outcome: Outcome, command: str) -> dict[str, Any]:
    """What data.json says."""
    return {
        "format": FORMAT,
        "name": name,
        "title": outcome.title,
        "command": command,
        "residuals": [residual.as_dict() for residual in outcome.residuals],
        "data": outcome.data,
        "configurations": list(outcome.configurations),
        "versions": versions_with_drawing(),
    }


# --- files --------------------------------------------------------------------------------------------


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(
            f"--out {printable(folder)}: {error.strerror}, expected a folder to write to"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OperatorError(f"--out {printable(folder)}: not writable, expected a folder to write to")


def _write_overview(base: Path, results: Sequence[tuple[str, Outcome]], command: str) -> None:
    _write(base / PAGE_FILE, as_overview(results, command))
    sums = _sums(base, [PAGE_FILE])
    for name, _ in results:
        below = (base / name / _SUMS_FILE).read_text(encoding="utf-8").splitlines()
        sums += [line.replace("  ", f"  {name}/", 1) for line in below]
    _write(base / _SUMS_FILE, "\n".join([*sums, ""]))


def _sums(folder: Path, names: Sequence[str]) -> list[str]:
    """Lines as `sha256sum` prints them."""
    return [f"{hashlib.sha256((folder / one).read_bytes()).hexdigest()}  {one}" for one in sorted(names)]


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OperatorError(f"cannot write {printable(path)}: {error.strerror}") from None
