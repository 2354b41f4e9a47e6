"""What a run leaves behind: why it stopped, what it printed, what it cost. All of it reproducible."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from l4lab.emulator.machine import Machine


class StopReason(enum.Enum):
    """Why a run ended."""

    ROOT_ENDED = "root task ended"
    ROOT_KILLED = "root task killed"
    ALL_WAIT = "every thread waits for what cannot come"
    MAX_CYCLES = "cycle limit reached"
    HOST_STOP = "interrupted"


@dataclass(frozen=True, slots=True)
class TaskStats:
    """One task's work, all its threads together, those that have ended too."""

    name: str
    page_faults: int
    system_calls: int
    instructions: int
    user_cycles: int
    tlb_misses: int


@dataclass(frozen=True, slots=True)
class CoreStats:
    """One core's clock, in cycles: user + kernel + idle = clock."""

    clock_cycles: int
    user_cycles: int
    kernel_cycles: int
    idle_cycles: int


@dataclass(frozen=True, slots=True)
class RunResult:
    """Everything a caller may want of a run.

    `exit_code`: the guest's, 0 .. 255; only meaningful for ROOT_ENDED. `cycles`: the clock of the
    core that is furthest ahead. `tasks`: in the order of creation. `warnings`: what the kernel
    noticed of guests' mistakes.
    """

    reason: StopReason
    exit_code: int
    cycles: int
    cores: tuple[CoreStats, ...]
    tasks: tuple[TaskStats, ...]
    console: bytes
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: plain values, the console as text."""
        return {
            "reason": self.reason.name.lower(),
            "exit_code": self.exit_code,
            "cycles": self.cycles,
            "cores": [asdict(core) for core in self.cores],
            "tasks": [asdict(task) for task in self.tasks],
            "console": self.console.decode("utf-8", "backslashreplace"),
            "warnings": list(self.warnings),
        }


def collect(machine: Machine, reason: StopReason) -> RunResult:
    """The result of a machine as it stands."""
    kernel = machine.kernel
    tasks = []
    for task in sorted([*kernel.ended_tasks, *kernel.tasks.values()], key=lambda task: task.number):
        totals = task.totals.copy()
        for thread in task.threads:
            totals.add(thread)
        tasks.append(
            TaskStats(
                name=task.name or f"task {task.number}",
                page_faults=totals.page_faults,
                system_calls=totals.system_calls,
                instructions=totals.instructions,
                user_cycles=totals.user_cycles,
                tlb_misses=totals.tlb_misses,
            )
        )
    cores = []
    for core in machine.cores:
        clock = core.clock_cycles
        user = clock - core.kernel_cycles - core.idle_cycles
        cores.append(CoreStats(clock, user, core.kernel_cycles, core.idle_cycles))
    return RunResult(
        reason=reason,
        exit_code=kernel.exit_code,
        cycles=max(core.clock_cycles for core in cores),
        cores=tuple(cores),
        tasks=tuple(tasks),
        console=bytes(machine.output),
        warnings=tuple(kernel.warnings),
    )
