"""A switch that makes the host slow at random places, so that races show at once: L4LAB_STUTTER=SEED.

For whoever looks for a race between processes, threads or tasks of an event loop; another seed, other places. Where
those meet, functions are marked with `stutters`. Only the host's time passes, so results stay what they are.
Without the variable a marked function is the function itself, at no cost.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

VARIABLE: Final = "L4LAB_STUTTER"
LONGEST_SECONDS: Final = 0.25
"""Longer than a screen refresh, and than a busy host leaves a process waiting as a rule."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


def stutters(
    one_in: int = 2,
    *,
    seed: str | None = os.environ.get(VARIABLE),
    sleep: Callable[[float], None] = time.sleep,
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Marks a function: before and after it runs, about one time in `one_in`, the host seems to be elsewhere.

    `seed`: None for a host that is as fast as it can. Each function has random numbers of its own, which start
    anew in each process, by its name.
    """

    def mark(function: Callable[_P, _R]) -> Callable[_P, _R]:
        if seed is None:
            return function
        chance = random.Random(f"{seed} {multiprocessing.current_process().name} {function.__qualname__}")

        def be_elsewhere() -> None:
            if chance.random() * one_in < 1:
                sleep(LONGEST_SECONDS * chance.random() ** 3)  # short ones more often

        @functools.wraps(function)
        def slow(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            be_elsewhere()
            try:
                return function(*args, **kwargs)
            finally:
                be_elsewhere()

        return slow

    return mark
