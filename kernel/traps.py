"""What a core reports when it stops running user code: the kernel's only input.

Values, not callbacks: the machine runs a thread until one of these comes back. The closed set
is `Trap`; `entry.handle_trap` matches it exhaustively.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from l4lab.kernel.drq import Drq


# Vectors of x86 that the kernel treats by themselves. Ref: Intel SDM vol. 3, 6.3.1.
VECTOR_OVERFLOW: Final = 4
VECTOR_GENERAL_PROTECTION: Final = 13
VECTOR_PAGE_FAULT: Final = 14


@dataclass(frozen=True, slots=True)
class SystemCall:
    """`int 0x30` was executed. EIP stands behind the instruction."""

    number: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class PageFault:
    """A translation was refused. EIP stands on the faulting instruction.

    `address`: linear byte address, 0 .. 2**32 - 1.
    `present`: the page was mapped but the access was not allowed (a protection fault).
    """

    number: ClassVar[int] = 1

    address: int
    write: bool
    fetch: bool
    present: bool

    @property
    def error_code(self) -> int:
        """The error code that x86 would push: P, W/R, U/S. Intel SDM vol. 3, 4.7."""
        return self.present | self.write << 1 | 4


@dataclass(frozen=True, slots=True)
class CpuException:
    """Any other exception, with the vector that x86 gives it.

    EIP stands on the instruction for faults, behind it for traps (1 after a step, 3, 4).
    A software interrupt whose gate user code may not use arrives as vector 13 with error code
    `n << 3 | 2`, EIP on the instruction.
    """

    number: ClassVar[int] = 2

    vector: int
    error_code: int


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The core's clock reached the deadline at an instruction boundary; nothing happened."""

    number: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Another core wants this core's attention; `drq` is what for, None: just look.

    `merged`: what else was put into this core's queue while the interrupt was under way, by any core.
    """

    number: ClassVar[int] = 4

    drq: Drq | None
    merged: list[Drq] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class HostStop:
    """The person at the keyboard asked to stop; state is at an instruction boundary."""

    number: ClassVar[int] = 5


TRAP_NAMES: Final = ("system call", "page fault", "exception", "timer", "interrupt", "host stop")
"""By `number`."""

Trap = SystemCall | PageFault | CpuException | DeadlineReached | Interrupt | HostStop

# One object each for the traps that carry nothing: no allocation on the hot path.
SYSTEM_CALL: Final = SystemCall()
DEADLINE_REACHED: Final = DeadlineReached()
INTERRUPT: Final = Interrupt(None)
HOST_STOP: Final = HostStop()
