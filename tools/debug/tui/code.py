"""Instructions and source lines around a place in a task's program."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import capstone  # type: ignore[import-untyped]

from l4lab.emulator.debug.debugging import read_memory
from l4lab.emulator.interfaces import INTERFACE
from l4lab.kernel.units import PAGE_BYTES
from l4lab.tools.native.build import CHECKOUT

if TYPE_CHECKING:
    from l4lab.emulator.machine import Machine
    from l4lab.kernel.objects import Task
    from l4lab.tools.runs.programs import Place, Program, Programs

_MAX_INSTRUCTION_BYTES: Final = 15
_MAX_SOURCE_BYTES: Final = 4 << 20
_MAX_LINE_BYTES: Final = 512
_BACK_BYTES: Final = 256


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction. `operands`: with names for what they lead to. `heading`: where a function begins."""

    address: int
    mnemonic: str
    operands: str
    function: str


def disassemble(
    machine: Machine, programs: Programs, task: Task, eip: int, before: int, after: int
) -> list[Instruction]:
    """The instruction at `eip` with up to `before` and `after` around it; none if nothing is mapped there."""
    program = programs.of_task(machine, task)
    start = _start_before(program, eip)
    decoded = _decode(machine, program, task, start, eip + (after + 1) * _MAX_INSTRUCTION_BYTES)
    if all(found.address != eip for found in decoded):  # the start was not one of an instruction
        decoded = _decode(machine, program, task, eip, eip + (after + 1) * _MAX_INSTRUCTION_BYTES)
    here = next((index for index, found in enumerate(decoded) if found.address == eip), None)
    return decoded[max(here - before, 0) : here + after + 1] if here is not None else []


def _start_before(program: Program | None, eip: int) -> int:
    """Where to begin to decode, so that instructions before `eip` come out right: a function's start, or a line's."""
    if program is None or eip // PAGE_BYTES * PAGE_BYTES == INTERFACE.system_call_page:
        return eip
    starts = [symbol.address for symbol in program.symbols.symbols]
    index = bisect_right(starts, eip) - 1
    function = starts[index] if index >= 0 else eip
    if eip - function <= _BACK_BYTES:
        return function
    lines = [start for start in program.line_starts if function <= start <= eip - _BACK_BYTES // 4]
    return lines[-1] if lines else eip


def _decode(machine: Machine, program: Program | None, task: Task, start: int, end: int) -> list[Instruction]:
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
    found = []
    for address, _, mnemonic, operands in decoder.disasm_lite(
        read_memory(machine, task, start, end - start), start
    ):
        function = program.function_at(address) if program is not None else ""
        found.append(Instruction(address, mnemonic, _named(program, mnemonic, operands), function))
    return found


def _named(program: Program | None, mnemonic: str, operands: str) -> str:
    """Where a jump or call leads, by name."""
    if program is None or not mnemonic.startswith(("j", "call", "loop")) or not operands.startswith("0x"):
        return operands
    name = program.function_at(int(operands, 16))
    return name if not name.startswith("0x") else operands


# --- source ---------------------------------------------------------------------------------------------


def line_range(program: Program | None, eip: int) -> tuple[int, int] | None:
    """The addresses around `eip` that belong to the same source line; None: it is not known."""
    place = program.place_at(eip) if program is not None else None
    if program is None or place is None:
        return None
    starts = program.line_starts
    first = last = bisect_right(starts, eip) - 1
    while first > 0 and program.place_at(starts[first - 1]) == place:
        first -= 1
    while last + 1 < len(starts) and program.place_at(starts[last + 1]) == place:
        last += 1
    return starts[first], starts[last + 1] if last + 1 < len(starts) else eip + 1


def source_lines(place: Place, folder: Path, before: int, after: int) -> list[tuple[int, str]]:
    """(number, text) of the lines around a place; none if its file is not here. `folder`: of the manifest."""
    lines = _file(place.file, folder)
    first = max(place.line - 1 - before, 0)
    first = max(min(first, len(lines) - before - after - 1), 0)
    return [
        (first + number, text) for number, text in enumerate(lines[first : first + before + after + 1], 1)
    ]


@lru_cache(maxsize=64)
def _file(name: str, folder: Path) -> tuple[str, ...]:
    """A source file's lines. Looked for where the compiler ran: in a checkout, or beside the manifest."""
    for base in (CHECKOUT / "userland", CHECKOUT, folder):
        path = base / name
        try:
            if path.is_file() and path.stat().st_size <= _MAX_SOURCE_BYTES:
                text = path.read_text(encoding="utf-8", errors="replace")
                return tuple(line.expandtabs(4)[:_MAX_LINE_BYTES] for line in text.splitlines())
        except (OSError, ValueError):
            continue
    return ()
