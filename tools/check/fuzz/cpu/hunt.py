"""Cases in batches on both processors, and what they do not agree on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from l4lab.tools.check.fuzz.cpu.builder import Case
from l4lab.tools.check.fuzz.cpu.cases import SLOTS, case_of
from l4lab.tools.check.fuzz.cpu.compare import differences
from l4lab.tools.check.fuzz.cpu.machines import Host, NoProcessorError, Ours, host_identity

MAX_FINDINGS: Final = 20
"""After that many the hunt ends: there is enough to look at."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A case that the processors end differently, for what is not one of the named kinds."""

    number: int
    instructions: tuple[str, ...]
    code: str
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """The outcome. `kinds`: how often a named difference was passed over; `ends`: cases by their last exception."""

    processor: str
    seed: int
    cases: int
    kinds: dict[str, int]
    ends: dict[int, int]
    findings: tuple[Finding, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        findings = [{name: getattr(f, name) for name in f.__slots__} for f in self.findings]
        return {
            "processor": self.processor,
            "seed": self.seed,
            "cases": self.cases,
            "kinds": self.kinds,
            "ends": {str(vector): count for vector, count in self.ends.items()},
            "findings": findings,
        }


def hunt(
    first: int, count: int, seed: int, progress: Callable[[int], None] = lambda _: None
) -> Summary | None:
    """Runs cases `first` to `first + count - 1`; None where the host's processor is none to compare with.

    `progress`: called now and then with how many are done.
    """
    identity = host_identity()
    if identity is None:
        return None
    try:
        host = Host()
    except NoProcessorError:
        return None
    ours = Ours(host.numbers, identity.vendor)
    features = identity.features | host.features
    kinds: Counter[str] = Counter()
    ends: Counter[int] = Counter()
    findings: list[Finding] = []
    done = 0
    try:
        while done < count and len(findings) < MAX_FINDINGS:
            numbers = range(first + done, first + min(count, done + SLOTS))
            cases = [case_of(seed, number, features) for number in numbers]
            host.send(cases)
            mine = ours.run(cases)
            for case, a, b in zip(cases, mine, host.receive(len(cases)), strict=True):
                ends[a.vector] += 1
                found = differences(case, a, b, kinds)
                if found:
                    findings.append(_finding(case, found))
            done += len(cases)
            progress(done)
    finally:
        host.close()
        ours.close()
    return Summary(
        identity.name,
        seed,
        done,
        dict(sorted(kinds.items())),
        dict(sorted(ends.items())),
        tuple(findings[:MAX_FINDINGS]),
    )


def _finding(case: Case, found: list[str]) -> Finding:
    return Finding(case.number, case.names, case.code.hex(), tuple(found))
