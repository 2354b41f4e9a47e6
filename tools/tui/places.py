"""Places that a person names: functions and addresses of a task's program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.emulator.errors import OperatorError
from l4lab.emulator.inputs import did_you_mean, printable
from l4lab.kernel.inspect import task_name

if TYPE_CHECKING:
    from l4lab.emulator.machine import Machine
    from l4lab.kernel.objects import Task
    from l4lab.tools.programs import Programs


class CommandError(OperatorError):
    """Something that cannot be done here; the text says why."""


def find_place(machine: Machine, programs: Programs, shown: Task | None, text: str) -> tuple[Task, int]:
    """What `FUNCTION` or `0xADDRESS` means in the shown task, `TASK:FUNCTION` in another. Raises CommandError."""
    name, colon, function = text.rpartition(":")
    task = _task_named(machine, name) if colon else shown
    if task is None:
        raise CommandError("no task is shown: expected TASK:FUNCTION or TASK:0xADDRESS")
    if function[:1].isdigit():
        return task, _address(function)
    program = programs.expected_of(machine, task)
    found = program.symbols.address_of(function) if program is not None and function else None
    if program is None or found is None:
        known = [symbol.name for symbol in program.symbols.symbols] if program is not None else []
        raise CommandError(
            f"found no function '{printable(function)}' in {task_name(task)}{did_you_mean(function, known)}"
        )
    return task, found


def _address(text: str) -> int:
    try:
        address = int(text, 0)
    except ValueError:
        address = -1
    if not 0 <= address < 1 << 32:
        raise CommandError(f"found '{printable(text)}', expected an address as in 0x8048110")
    return address


def _task_named(machine: Machine, name: str) -> Task:
    for task in machine.kernel.tasks.values():
        if name in (str(task.number), task.name):
            return task
    known = [task_name(task) for task in machine.kernel.tasks.values()]
    raise CommandError(f"found no task '{printable(name)}'{did_you_mean(name, known)}")
