"""Places that a person names: functions and addresses of a task's program, of a task to come, of all programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from l4lab.emulator.files.inputs import did_you_mean, printable
from l4lab.kernel.inspect import task_name
from l4lab.tools.debug.named import DebugError, number_of, task_of

if TYPE_CHECKING:
    from l4lab.emulator.machine import Machine
    from l4lab.kernel.objects import Task
    from l4lab.tools.runs.programs import Program, Programs


@dataclass(frozen=True, slots=True)
class Wish:
    """A breakpoint whose task need not be there yet. `task`: name of the only one that is meant; "": any.

    `places`: the function's address in each program that has it.
    """

    task: str
    function: str
    places: tuple[tuple[Program, int], ...]

    def __str__(self) -> str:
        return f"{self.task}:{self.function}" if self.task else self.function

    def means(self, machine: Machine, programs: Programs, task: Task, address: int) -> bool:
        """Whether this is one of its places, in a task that it is about."""
        if self.task not in ("", task.name) or all(address != place for _, place in self.places):
            return False
        program = programs.expected_of(machine, task)
        return any(program is known and address == place for known, place in self.places)

    def is_pending(self, machine: Machine, programs: Programs) -> bool:
        """Whether no task that there is can come to it."""
        tasks = machine.kernel.tasks.values()
        return not any(
            self.means(machine, programs, task, place) for task in tasks for _, place in self.places
        )


def find_wish(machine: Machine, programs: Programs, shown: Task | None, text: str) -> Wish | None:
    """What is meant if it is nothing of the tasks there are: of a program's later task, or of all programs.

    None: `find_place` knows it, or why not.
    """
    name, colon, function = text.rpartition(":")
    if function[:1].isdigit() or (colon and task_of(machine.kernel, name) is not None):
        return None
    if not colon and shown is not None:
        own = programs.expected_of(machine, shown)
        if own is not None and own.symbols.address_of(function) is not None:
            return None
    meant = [program for program in programs.all if not colon or name.partition(".")[0] == program.name]
    found = [(program, program.symbols.address_of(function)) for program in meant] if function else []
    places = tuple((program, address) for program, address in found if address is not None)
    if places:
        return Wish(name, function, places)
    if meant and (colon or shown is None):
        known = [symbol.name for program in meant for symbol in program.symbols.symbols]
        where = f"the program of {printable(name)}" if colon else "any program of the image"
        hint = did_you_mean(function, known) or "; inlined functions have no place of their own"
        raise DebugError(f"found no function '{printable(function)}' in {where}{hint}")
    return None


def find_place(machine: Machine, programs: Programs, shown: Task | None, text: str) -> tuple[Task, int]:
    """What `FUNCTION` or `0xADDRESS` means in the shown task, `TASK:FUNCTION` in another. Raises DebugError."""
    name, colon, function = text.rpartition(":")
    task = _task_named(machine, name) if colon else shown
    if task is None:
        raise DebugError("no task is shown: expected TASK:FUNCTION or TASK:0xADDRESS")
    if function[:1].isdigit():
        address = number_of(function)
        if address is None:
            raise DebugError(f"found '{printable(function)}', expected an address as in 0x8048110")
        return task, address
    program = programs.expected_of(machine, task)
    found = program.symbols.address_of(function) if program is not None and function else None
    if program is None or found is None:
        known = [symbol.name for symbol in program.symbols.symbols] if program is not None else []
        raise DebugError(
            f"found no function '{printable(function)}' in {task_name(task)}{did_you_mean(function, known)}"
        )
    return task, found


def _task_named(machine: Machine, name: str) -> Task:
    found = task_of(machine.kernel, name)
    if found is not None:
        return found
    known = [task_name(task) for task in machine.kernel.tasks.values()]
    raise DebugError(f"found no task '{printable(name)}'{did_you_mean(name, known)}")
