"""`l4lab fuzz --program SEED`: a random program on this kernel, whose log another kernel's is compared with.

The program is `userland/random`, a root task. It prints lines that begin with `episode.step`, and nothing in
them depends on time or on where a kernel puts things, so any kernel with the interface that boots it prints
the same. A step's chances depend on seed, episode and step alone: leaving out some does not change what the
others do.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from l4lab.emulator.errors import OperatorError
from l4lab.emulator.results import StopReason
from l4lab.tools.runs.execute import execute, image_with

IMAGE: Final = "random"
_LINE: Final = re.compile(r"(\d+)\.(\d+) .*")
_HEAD: Final = re.compile(r"RANDOM seed (\d+), episodes (\d+) to (\d+)")
_SHOWN_BEFORE: Final = 8


@dataclass(frozen=True, slots=True)
class Log:
    """What the program printed: episode -> its lines, each with the number of its step. The rest is the kernel's."""

    seed: int
    first: int
    episodes: dict[int, list[tuple[int, str]]]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first line in which two logs of an episode differ; "" where one has ended. `before`: what both have."""

    episode: int
    step: int
    theirs: str
    ours: str
    before: list[tuple[int, str]]


def program_log(seed: int, first: int, count: int, steps: Iterable[int] | None = None) -> str:
    """The console of episodes `first` to `first + count - 1` on this kernel; `steps`: only those of each."""
    arguments = f"{IMAGE} --seed={seed} --first={first} --episodes={count}"
    if steps is not None:
        arguments += f" --steps={','.join(map(str, steps))}"
    result = execute(image_with(IMAGE, arguments))
    if result.reason is not StopReason.ROOT_ENDED:
        raise OperatorError(
            f"{IMAGE}: found that it stopped ({result.reason.value}), expected it to end by itself"
        )
    return result.console.decode(errors="replace")


def parse_log(text: str, name: str) -> Log:
    """A console with the program's lines among others. OperatorError, with `name`, if it is none."""
    head = _HEAD.search(text)
    if head is None:
        raise OperatorError(f"{name}: found no line of the random program, expected 'RANDOM seed …'")
    log = Log(int(head[1]), int(head[2]), {})
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found is not None:
            log.episodes.setdefault(int(found[1]), []).append((int(found[2]), line))
    return log


def difference(episode: int, theirs: list[tuple[int, str]], ours: list[tuple[int, str]]) -> Difference | None:
    """The first one of an episode."""
    end = (0, "")
    for index in range(max(len(theirs), len(ours))):
        there = theirs[index] if index < len(theirs) else end
        here = ours[index] if index < len(ours) else end
        if there != here:
            step = here[0] if here[1] else there[0]
            return Difference(episode, step, there[1], here[1], ours[max(index - _SHOWN_BEFORE, 0) : index])
    return None


def needed_steps(seed: int, found: Difference) -> list[int]:
    """The steps without which this kernel would not answer as it does where the two differ.

    One is left out after the other, from the last to the first, and comes back if the line changes. What the other
    kernel does without them is for it to say: the program takes `--steps`.
    """
    kept = list(range(found.step + 1))
    for step in reversed(range(found.step)):
        fewer = [each for each in kept if each != step]
        log = parse_log(program_log(seed, found.episode, 1, fewer), IMAGE)
        if found.ours in (line for _, line in log.episodes[found.episode]):
            kept = fewer
    return kept


# --- for people ---------------------------------------------------------------------------------


def run_program(seed: int, first: int, count: int) -> int:
    """Print the program's log."""
    sys.stdout.write(program_log(seed, first, count))
    return 0


def compare_with(path: Path) -> int:
    """Run the program that wrote `path` elsewhere, and tell how the two differ; the exit code is 1 if they do."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as problem:
        raise OperatorError(
            f"{path}: found {problem.strerror}, expected a log of the random program"
        ) from None
    theirs = parse_log(text, str(path))
    if not theirs.episodes:
        raise OperatorError(f"{path}: found no episode, expected at least one")
    last = max(theirs.episodes)
    ours = parse_log(program_log(theirs.seed, theirs.first, last - theirs.first + 1), IMAGE)
    differences = [
        found
        for episode in range(theirs.first, last + 1)
        if (found := difference(episode, theirs.episodes.get(episode, []), ours.episodes.get(episode, [])))
    ]
    lines = sum(map(len, theirs.episodes.values()))
    click.echo(f"{len(theirs.episodes)} episodes, {lines} lines, {len(differences)} episodes differ")
    if not differences:
        return 0
    found = differences[0]
    click.echo(f"\nepisode {found.episode}, step {found.step}:")
    for _, line in found.before:
        click.echo(f"  {line}")
    click.echo(f"there: {found.theirs or '(ended)'}\nhere:  {found.ours or '(ended)'}")
    if found.ours:
        steps = ",".join(map(str, needed_steps(theirs.seed, found)))
        click.echo(
            f"\nthe same here with: random --seed={theirs.seed} --first={found.episode} --episodes=1 --steps={steps}"
        )
    return 1
