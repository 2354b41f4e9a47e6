"""`l4lab check mutation`: which mutants are still to be judged, what became of the others, and the score."""

from __future__ import annotations

import importlib
import json
import os
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import click
import pytest

from l4lab.emulator.errors import OperatorError
from l4lab.tools.check.mutation.judge import SURVIVED, Judge, Verdict
from l4lab.tools.check.mutation.mutants import Mutant, mutants_of
from l4lab.tools.common.progress import Line
from l4lab.tools.common.report import print_json
from l4lab.tools.common.versions import versions

TESTS: Final = ("tests/kernel", "tests/system/test_random_guests.py", "tests/userland/test_conformance.py")
"""The kernel's own tests, short runs of random programs, the conformance suite."""
EQUIVALENT: Final = Path("tests/equivalent_mutants.toml")
SESSION: Final = Path("build/mutation.jsonl")
FORMAT: Final = 1


def run_mutation(
    checkout: Path,
    *,
    only: Iterable[str],
    limit: int | None,
    again: bool,
    jobs: int,
    session: Path | None,
    as_json: bool,
) -> int:
    """Judge up to `limit` mutants that have no verdict yet (`again`: that survived), and report on all.

    The exit code is 1 if one that is not called equivalent has survived.
    """
    kept = (session or checkout / SESSION).resolve()
    os.chdir(checkout)
    modules = {name: importlib.import_module(f"l4lab.kernel.{name}") for name in only}
    mutants = dict(_all_mutants(modules))
    reasons = read_equivalent(EQUIVALENT)
    verdicts = read_verdicts(kept)
    todo = [
        each
        for each in sorted(mutants, key=lambda mutant: mutant.key)
        if (
            verdicts.get(each.key) == SURVIVED and each.key not in reasons
            if again
            else each.key not in verdicts
        )
    ][:limit]
    _judge(modules, [(each, mutants[each]) for each in todo], verdicts, kept, jobs)
    judged = [Verdict(each, verdicts[each.key]) for each in mutants if each.key in verdicts]
    document = summary(judged, len(mutants), reasons)
    if as_json:
        print_json(document)
    else:
        _print(document)
    return 1 if document["survivors"] else 0


def _all_mutants(modules: dict[str, ModuleType]) -> Iterator[tuple[Mutant, Callable[[], str]]]:
    for module in modules.values():
        yield from mutants_of(module)


def _judge(
    modules: dict[str, ModuleType],
    todo: list[tuple[Mutant, Callable[[], str]]],
    verdicts: dict[str, str],
    kept: Path,
    jobs: int,
) -> None:
    """Have them judged; each verdict is on the disk before the next."""
    if not todo:
        return
    line = Line()
    done = 0
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        file = kept.open("a", encoding="utf-8")
    except OSError as error:
        raise OperatorError(
            f"--session {kept}: {error.strerror}, expected a file to add verdicts to"
        ) from None
    with file:

        def tell(verdict: Verdict) -> None:
            nonlocal done
            done += 1
            verdicts[verdict.mutant.key] = verdict.by
            file.write(json.dumps({"key": verdict.mutant.key, "by": verdict.by}) + "\n")
            file.flush()
            if not verdict.killed:
                line.clear()
                click.echo(f"survived: {verdict.mutant}", err=True)
            line.show(f"mutants, {done} of {len(todo)}", done / len(todo))

        line.show("collecting the tests, and trying them without a mutant")
        judge = Judge(modules, iter(todo), tell, jobs)
        arguments = ("-q", "-s", "-p", "no:cacheprovider", "--hypothesis-profile=judge")
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
            code = pytest.main([*arguments, *TESTS], plugins=[judge])
        line.clear()
    if code == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if judge.flaw:
        raise OperatorError(f"{judge.flaw}: found that it fails without a mutant, expected it to pass")
    if code:
        raise OperatorError(f"{' '.join(TESTS)}: found that pytest ends with {int(code)}, expected tests")


def read_verdicts(path: Path) -> dict[str, str]:
    """Key of a mutant -> the test that found it first, or SURVIVED. A line that was cut short does not count."""
    verdicts = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
                verdicts[str(record["key"])] = str(record["by"])
            except (ValueError, KeyError, TypeError):
                continue
    return verdicts


def read_equivalent(path: Path) -> dict[str, str]:
    """Key of a mutant -> why nothing can tell it from the original."""
    groups = tomllib.loads(path.read_text(encoding="utf-8")).get("group", [])
    return {key: str(group["reason"]) for group in groups for key in group["mutants"]}


def summary(judged: Iterable[Verdict], of: int, reasons: dict[str, str]) -> dict[str, Any]:
    """What is printed. `score`: the share of what is not equivalent that a test found; None before any."""
    judged = list(judged)
    killed = [each for each in judged if each.killed]
    equivalent = [each for each in judged if not each.killed and each.mutant.key in reasons]
    survivors = [each.mutant for each in judged if not each.killed and each.mutant.key not in reasons]
    counted = len(killed) + len(survivors)
    finders = Counter(each.by.partition("::")[0] for each in killed)
    return {
        "format": FORMAT,
        "versions": versions(),
        "mutants": of,
        "judged": len(judged),
        "killed": len(killed),
        "equivalent": len(equivalent),
        "score": round(len(killed) / counted, 4) if counted else None,
        "found_by": dict(sorted(finders.items(), key=lambda item: (-item[1], item[0]))),
        "survivors": [{"key": each.key, "mutant": str(each)} for each in survivors],
    }


def _print(document: dict[str, Any]) -> None:
    for survivor in document["survivors"]:
        click.echo(f"{survivor['key']}  {survivor['mutant']}")
    if document["score"] is None:
        click.echo(f"none of {document['mutants']} mutants has been judged")
        return
    click.echo(
        f"{document['judged']} of {document['mutants']} mutants judged: {document['killed']} killed, "
        f"{len(document['survivors'])} survived, {document['equivalent']} equivalent; "
        f"score {document['score']:.1%} of those that are not"
    )
