"""What a page fault or IPC took, as a chain across threads and cores: the shape of the answer.

A chain starts with the thread that faulted or sent; a message hands it to the receiver, an answer hands it
back; who has it is its *holder*. Each hop is cut into segments that follow one another without gap:

    user      the holder's own code
    kernel    a kernel entry on the chain's way: the holder's, or one that serves it on another core
    flight    an interrupt under way between two cores
    wait      anything else, named after what it waited for, with what went on there meanwhile

So the segments add up to the latency exactly, which `check` makes sure of. How chains are found:
`tools/why/finder.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from l4lab.kernel.errors import KernelBug
from l4lab.tools.ledger.timeline import NOWHERE, Operation

USER: Final = "user"
KERNEL: Final = "kernel"
FLIGHT: Final = "flight"
WAIT: Final = "wait"


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a chain. `core` NOWHERE: between two. `thread`: whose code or entry it is; of a wait, the holder.

    `causes`: cycles by cause, which add up to its length. `meanwhile`: of a wait, what went on where it
    waited, cycles by description. `row`: of user code and kernel entries, in the ledger.
    """

    kind: str
    start: int
    end: int
    core: int
    thread: int
    what: str
    causes: dict[str, int]
    meanwhile: dict[str, int] = field(default_factory=dict)
    row: int = NOWHERE

    @property
    def cycles(self) -> int:
        """Its length."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Hop:
    """One holder's part of a chain, up to and including the kernel entry that hands it on.

    `to`: who gets it then; 0: nobody, the operation is over.
    """

    holder: int
    to: int
    segments: tuple[Segment, ...]

    @property
    def cycles(self) -> int:
        """Its length."""
        return sum(segment.cycles for segment in self.segments)


@dataclass(frozen=True, slots=True)
class Chain:
    """The chain of one operation. `end`: when its thread went on; if it never did, when the last was done for it."""

    operation: Operation
    hops: tuple[Hop, ...]
    end: int

    @property
    def cycles(self) -> int:
        """Its length: the latency, if there is one."""
        return self.end - self.operation.cycle

    def by_cause(self) -> dict[str, int]:
        """Cycles by cause, greatest first."""
        sums: dict[str, int] = {}
        for hop in self.hops:
            for segment in hop.segments:
                for cause, cycles in segment.causes.items():
                    sums[cause] = sums.get(cause, 0) + cycles
        return dict(sorted(sums.items(), key=lambda item: -item[1]))


def check(chain: Chain) -> None:
    """KernelBug unless the segments follow one another and add up, and so do the causes of each."""
    at = chain.operation.cycle
    for hop in chain.hops:
        for segment in hop.segments:
            if segment.start != at or sum(segment.causes.values()) != segment.cycles:
                raise KernelBug(f"{chain.operation.name}: the chain breaks at cycle {at}: {segment}")
            at = segment.end
    if at != chain.end:
        raise KernelBug(f"{chain.operation.name}: the chain ends at cycle {at}, not at {chain.end}")
