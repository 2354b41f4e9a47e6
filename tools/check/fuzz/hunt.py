"""Random programs against the kernel: any number of system calls, and not one violation.

`hunt` lives through as many epochs (`epoch.Epoch`) as it takes. Every kernel entry is followed by cheap
checks, every few hundred and every epoch's end by all of `kernel.invariants`. An epoch depends on nothing
but the seed and its number, so a violation is found again by living through that epoch alone, this time
with all checks after each entry where it happened: the report names the first entry that broke something.

Now and then two more systems live through the same, one with the kernel's fast path and one without, and a log: every
kernel entry must leave the same behind in both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from l4lab.kernel.errors import KernelBug
from l4lab.kernel.invariants import transitions_checked
from l4lab.tools.check.fuzz.epoch import CHECK_EVERY, Epoch, Tally
from l4lab.tools.check.fuzz.rig import Logging

CALLS_PER_EPOCH: Final = 4000
TWINS_EVERY: Final = 4
"""Epochs after which there are twins."""
CALLS_PER_TWIN: Final = 3000


@dataclass(frozen=True, slots=True)
class Violation:
    """Where and how the kernel broke a rule. `entry`: the number of the kernel entry in its epoch."""

    seed: int
    epoch: int
    entry: int
    action: str
    error: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The outcome of a run. `seconds`: of the host; everything else is the same for the same arguments."""

    seed: int
    epochs: int
    tally: Tally
    seconds: float
    violation: Violation | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        tally = self.tally
        counts = {name: getattr(tally, name) for name in tally.__slots__ if name != "outcomes"}
        operations: dict[str, dict[str, int]] = {}
        for (operation, outcome), count in sorted(tally.outcomes.items()):
            operations.setdefault(operation, {})[outcome] = count
        violation = None
        if self.violation is not None:
            violation = {name: getattr(self.violation, name) for name in self.violation.__slots__}
        return {
            "seed": self.seed,
            "epochs": self.epochs,
            **counts,
            "seconds": round(self.seconds, 1),
            "operations": operations,
            "violation": violation,
        }


def hunt(calls: int, seed: int, progress: Callable[[int], None] = lambda _: None) -> Summary:
    """Make at least `calls` system calls, or stop at the first violation.

    `progress`: called now and then with the calls made.
    """
    with transitions_checked():
        return _hunt(calls, seed, progress)


def _hunt(calls: int, seed: int, progress: Callable[[int], None]) -> Summary:
    started = time.perf_counter()
    total = Tally()
    number = 0
    violation = None
    while total.calls < calls and violation is None:
        epoch = Epoch(_epoch_seed(seed, number))
        try:
            total.add(epoch.run(min(CALLS_PER_EPOCH, calls - total.calls)))
        except Exception as error:  # whatever it is, the kernel must not raise it
            violation = pinpoint(seed, number, epoch, error)
        if violation is None and number % TWINS_EVERY == 0:
            violation = compare_paths(seed, number)
        number += 1
        progress(total.calls)
    return Summary(seed, number, total, time.perf_counter() - started, violation)


def pinpoint(seed: int, number: int, failed: Epoch, error: Exception) -> Violation:
    """Live through an epoch again, with all checks after each entry where it broke.

    If it does not break again, the report is that of the first time.
    """
    epoch = Epoch(_epoch_seed(seed, number), check_from=failed.rig.entries - 2 * CHECK_EVERY)
    try:
        epoch.run(CALLS_PER_EPOCH)
    except Exception as first:
        failed, error = epoch, first
    text = error.detail if isinstance(error, KernelBug) else f"{type(error).__name__}: {error}"
    return Violation(seed, number, failed.rig.entries, failed.last, text)


def compare_paths(seed: int, number: int) -> Violation | None:
    """Two systems with the same programs, with and without the fast path: the first entry that they leave unlike."""
    log = Logging.TRACE if number // TWINS_EVERY % 2 else Logging.LEDGER
    twins = [Epoch(_epoch_seed(seed, number), log=log, fast_path=fast) for fast in (True, False)]
    failures: list[Exception | None] = []
    for twin in twins:
        try:
            twin.run(CALLS_PER_TWIN)
            failures.append(None)
        except Exception as error:  # programs that see different answers do different things
            failures.append(error)
    for entry, (fast, ordinary) in enumerate(zip(*(twin.rig.trail for twin in twins), strict=False), 1):
        if fast != ordinary:
            action = "fast path against ordinary path"
            return Violation(seed, number, entry, action, "they leave different things")
    for twin, failure in zip(twins, failures, strict=True):
        if failure is not None:
            text = f"{type(failure).__name__}: {failure}"
            return Violation(seed, number, twin.rig.entries, twin.last, text)
    return None


def _epoch_seed(seed: int, number: int) -> str:
    return f"{seed}/{number}"
