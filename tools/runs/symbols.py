"""What the addresses of a recorded run are called: symbols.json, which a run has beside its ledger.

It makes a run readable where the programs are not at hand, or have been built anew.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Final

from l4lab.emulator.files.inputs import printable
from l4lab.emulator.interfaces import INTERFACE
from l4lab.kernel.units import PAGE_BYTES
from l4lab.tools.runs.programs import named_after
from l4lab.tools.runs.recording import SYMBOLS_FILE, RunError
from l4lab.tools.runs.rundir import Run, read_json

if TYPE_CHECKING:
    from l4lab.emulator.files.manifest import Manifest
    from l4lab.emulator.machine import Machine

SYMBOLS_FORMAT: Final = 1


def described(manifest: Manifest, machine: Machine) -> str:
    """symbols.json of a run that has ended."""
    from l4lab.tools.runs.programs import Programs

    programs = Programs(manifest)
    tasks = {}
    for number, task in sorted(machine.kernel.tasks.items()):
        program = programs.of_task(machine, task)
        if program is not None:
            tasks[str(number)] = program.name
    root = machine.kernel.root_task  # which often has ended
    if root is not None and programs.root is not None:
        tasks[str(root.number)] = programs.root.name
    document = {
        "format": SYMBOLS_FORMAT,
        "programs": {
            program.name: [[symbol.address, symbol.end, symbol.name] for symbol in program.symbols.symbols]
            for program in programs.all
        },
        "tasks": tasks,
    }
    return json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=False) + "\n"


class Symbols:
    """Names of addresses, by task. A run that was killed has none: then addresses stay numbers."""

    def __init__(self, run: Run) -> None:
        """Raises RunError for a file that is not what it should be."""
        self._run = run
        self._path = run.folder / SYMBOLS_FILE
        self._programs: dict[str, tuple[list[int], list[tuple[int, str]]]] = {}
        self._of_task: dict[int, str | None] = {}
        self._known: dict[tuple[int, int], str] = {}
        if self._path.exists():
            self._read(read_json(self._path, "the symbols of a run"))

    def _read(self, document: dict[str, Any]) -> None:
        if document.get("format") != SYMBOLS_FORMAT:
            raise self._error("format", document.get("format"), f"{SYMBOLS_FORMAT}, which this l4lab reads")
        programs, tasks = document.get("programs"), document.get("tasks")
        if not isinstance(programs, dict) or not isinstance(tasks, dict):
            raise self._error("programs, tasks", programs, "two tables")
        for name, symbols in programs.items():
            if not isinstance(symbols, list) or not all(map(_is_symbol, symbols)):
                raise self._error(f"programs.{name}", symbols, "a list of [address, end, name]")
            ordered = sorted(tuple(symbol) for symbol in symbols)
            ends = [(end, printable(symbol)) for _, end, symbol in ordered]
            self._programs[printable(name)] = ([address for address, _, _ in ordered], ends)
        for number, name in tasks.items():
            if not (number.isascii() and number.isdecimal() and len(number) <= 10 and isinstance(name, str)):
                raise self._error(f"tasks.{number}", name, "the name of a program")
            self._of_task[int(number)] = printable(name)

    def _error(self, key: str, found: object, expected: str) -> RunError:
        shown = printable(repr(found))[:60]
        return RunError(f"{printable(self._path)}: {printable(key)}: found {shown}, expected {expected}")

    def function(self, thread: int, address: int) -> str:
        """The function that `address` lies in, of the program that `thread` runs; else the address."""
        task = self._run.homes.get(thread, 0)
        known = self._known.get((task, address))
        if known is None:
            known = self._known[task, address] = self._function(task, address)
        return known

    def _function(self, task: int, address: int) -> str:
        if address & ~(PAGE_BYTES - 1) == INTERFACE.system_call_page:
            return "(system call)"
        starts, symbols = self._programs.get(self._program(task) or "", ([], []))
        index = bisect_right(starts, address) - 1
        if index >= 0 and address < symbols[index][0]:
            return symbols[index][1]
        return f"{address:#x}"

    def _program(self, task: int) -> str | None:
        """What a task runs; of one that has ended, by its name."""
        if task not in self._of_task:
            called = self._run.names.get(task, "")
            self._of_task[task] = next((name for name in self._programs if named_after(called, name)), None)
        return self._of_task[task]


def _is_symbol(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and type(value[0]) is int
        and type(value[1]) is int
        and isinstance(value[2], str)
    )
