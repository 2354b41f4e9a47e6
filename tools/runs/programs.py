"""The programs of an image, as a debugger needs them: which task runs which, names, source lines, frames.

Nothing in the kernel says which file a task's code came from: that is between a pager and whoever
started the task. It is found out by looking at what is mapped: a task runs the program whose code its
pages hold.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from elftools.common.exceptions import DWARFError, ELFError
from elftools.dwarf.callframe import FDE
from elftools.elf.elffile import ELFFile

from l4lab.emulator.debug.debugging import read_memory
from l4lab.emulator.errors import OperatorError
from l4lab.emulator.files.elf import PF_X, SymbolTable, load_symbols
from l4lab.emulator.files.inputs import printable
from l4lab.emulator.interfaces import INTERFACE
from l4lab.kernel.units import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from elftools.dwarf.compileunit import CompileUnit
    from elftools.dwarf.dwarfinfo import DWARFInfo

    from l4lab.emulator.files.manifest import Manifest
    from l4lab.emulator.machine import Machine
    from l4lab.kernel.objects import Task

_ESP: Final = 4
_EBP: Final = 5
_PASSED_ON_BYTES: Final = 15  # by `l4_debugger_set_name`
_EIP: Final = 8
MAX_FRAMES: Final = 64


@dataclass(frozen=True, slots=True)
class Place:
    """A line of source. `file` as the compiler was given it."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Frame:
    """One function call on a stack. `function`: with offset; the address itself where nothing is known."""

    address: int
    function: str
    place: Place | None


def named_after(task: str, program: str) -> bool:
    """Whether a task of this name was named after the program: before a dot, or by as much as was passed on."""
    given = program.encode("utf-8", "surrogateescape")
    whole, cut = (
        printable(INTERFACE.object_name(given)),
        printable(INTERFACE.object_name(given[:_PASSED_ON_BYTES])),
    )
    return printable(task.partition(".")[0]) == whole or (
        len(given) > _PASSED_ON_BYTES and printable(task) == cut
    )


class Program:
    """One ELF file. What is damaged or missing in it is as if it were not there."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.code: list[tuple[int, bytes]] = []
        """(address, bytes) of the executable segments."""
        with path.open("rb") as stream:
            elf = ELFFile(stream)
            self.is_i386 = elf["e_machine"] == "EM_386"
            self.entry = int(elf["e_entry"])
            for segment in elf.iter_segments("PT_LOAD"):
                if segment["p_flags"] & PF_X:
                    self.code.append((int(segment["p_vaddr"]), segment.data()))

    def __repr__(self) -> str:
        return f"<program {self.name}>"

    def code_on(self, page: int) -> tuple[int, bytes] | None:
        """(address, bytes) of what the file has on the page at that address; None: no code."""
        for start, data in self.code:
            first, last = max(start, page), min(start + len(data), page + PAGE_BYTES)
            if first < last:
                return first, data[first - start : last - start]
        return None

    @cached_property
    def symbols(self) -> SymbolTable:
        """Names of addresses; none if there are none."""
        try:
            return load_symbols(self.path)
        except OperatorError:
            return SymbolTable()

    def function_at(self, address: int) -> str:
        """`name+0x12`, or the address."""
        if address & ~(PAGE_BYTES - 1) == INTERFACE.system_call_page:
            return "<system call>"
        return self.symbols.name_at(address) or f"{address:#x}"

    def place_at(self, address: int) -> Place | None:
        """The source line that the instruction at `address` belongs to."""
        starts, places = self._lines
        index = bisect_right(starts, address) - 1
        return places[index] if index >= 0 else None

    @property
    def line_starts(self) -> list[int]:
        """Addresses at which another source line begins, or code without line, in order."""
        return self._lines[0]

    @cached_property
    def _lines(self) -> tuple[list[int], list[Place | None]]:
        """Addresses at which another line begins, and which; None: code without line."""
        rows: dict[int, Place | None] = {}
        self._with_dwarf(lambda dwarf: _collect_lines(dwarf, rows))
        starts = sorted(rows)
        return starts, [rows[start] for start in starts]

    @cached_property
    def _frame_descriptions(self) -> tuple[list[int], list[tuple[int, int, object]]]:
        """Starts, and (start, end, decoded table) of the call frame information."""
        found: list[tuple[int, int, object]] = []

        def collect(dwarf: DWARFInfo) -> None:
            entries = []
            if dwarf.has_CFI():
                entries += dwarf.CFI_entries()
            if dwarf.has_EH_CFI():
                entries += dwarf.EH_CFI_entries()
            for entry in entries:
                if isinstance(entry, FDE):
                    start, size = entry["initial_location"], entry["address_range"]
                    found.append((start, start + size, entry.get_decoded()))

        self._with_dwarf(collect)
        found.sort(key=lambda item: item[0])
        return [item[0] for item in found], found

    def _with_dwarf(self, use: Callable[[DWARFInfo], None]) -> None:
        try:
            with self.path.open("rb") as stream:
                elf = ELFFile(stream)
                if elf.has_dwarf_info(strict=False):
                    use(elf.get_dwarf_info())
        except (OSError, ELFError, DWARFError, KeyError, ValueError, AssertionError, UnicodeError):
            return

    def caller_of(
        self, eip: int, esp: int, ebp: int, word: Callable[[int], int | None]
    ) -> tuple[int, int, int] | None:
        """(eip, esp, ebp) of the caller, by call frame information; None if there is none for `eip`."""
        starts, descriptions = self._frame_descriptions
        index = bisect_right(starts, eip) - 1
        if index < 0 or eip >= descriptions[index][1]:
            return None
        row = None
        for line in descriptions[index][2].table:  # type: ignore[attr-defined]
            if line["pc"] > eip:
                break
            row = line
        if row is None or row["cfa"].reg not in (_ESP, _EBP):
            return None
        cfa = (esp if row["cfa"].reg == _ESP else ebp) + row["cfa"].offset & 0xFFFFFFFF

        def saved(register: int) -> int | None:
            rule = row.get(register)
            return word(cfa + rule.arg & 0xFFFFFFFF) if rule is not None and rule.type == "OFFSET" else None

        caller = saved(_EIP)
        old_ebp = saved(_EBP)
        return (caller, cfa, ebp if old_ebp is None else old_ebp) if caller is not None else None


def _collect_lines(dwarf: DWARFInfo, rows: dict[int, Place | None]) -> None:
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        if program is None:
            continue
        names = _file_names(program.header)
        first = program.header["version"] < 5
        for entry in program.get_entries():
            state = entry.state
            if state is None or not state.address:
                continue
            if state.end_sequence:
                rows.setdefault(state.address, None)
            else:
                name = names[state.file - first] if 0 <= state.file - first < len(names) else "?"
                if state.line:  # else code that stands for no line: it goes with the one before
                    rows[state.address] = Place(name, state.line)


def _file_names(header: CompileUnit) -> list[str]:
    folders = [folder.decode("utf-8", "replace") for folder in header["include_directory"]]
    names = []
    for entry in header["file_entry"]:
        name = entry.name.decode("utf-8", "replace")
        # Folder 0 is where the compiler ran; before version 5 it is not in the list.
        index = entry.dir_index - (header["version"] < 5)
        if entry.dir_index > 0 and 0 <= index < len(folders) and not name.startswith("/"):
            name = f"{folders[index]}/{name}"
        names.append(name.removeprefix("./"))
    return names


class Programs:
    """The programs of one image."""

    def __init__(self, manifest: Manifest) -> None:
        self.all: list[Program] = []
        self.sigma0: Program | None = None
        self.root: Program | None = None
        for module in (manifest.sigma0, manifest.roottask, *manifest.modules):
            try:
                program = Program(module.path, module.name)
            except (OSError, ELFError, ValueError, AssertionError, KeyError, UnicodeError):
                continue  # a data file
            if program.is_i386 and all(known.path != program.path for known in self.all):
                self.all.append(program)
        by_path = {program.path: program for program in self.all}
        self.sigma0 = by_path.get(manifest.sigma0.path)
        self.root = by_path.get(manifest.roottask.path)
        self._of_task: dict[int, Program] = {}

    def of_task(self, machine: Machine, task: Task | None) -> Program | None:
        """The program whose code the task has mapped; None if it has none of these."""
        if task is None:
            return None
        known = self._of_task.get(task.number)
        if known is None:
            known = self._boot_program(machine, task) or next(
                (program for program in self.all if _holds(machine, task, program)), None
            )
            if known is not None:
                self._of_task[task.number] = known
        return known

    def _boot_program(self, machine: Machine, task: Task) -> Program | None:
        """What sigma0 and the root task run is in the manifest."""
        if task.space is machine.kernel.memory.sigma0:
            return self.sigma0
        return self.root if task is machine.kernel.root_task else None

    def expected_of(self, machine: Machine, task: Task) -> Program | None:
        """As `of_task`; for a task that has not begun to run, what its name or its entry point says."""
        known = self.of_task(machine, task)
        if known is not None:
            return known
        named = [program for program in self.all if named_after(task.name, program.name)]
        entries = {thread.frame[_EIP] for thread in task.threads}
        entered = [program for program in self.all if program.entry in entries]
        for candidates in (named, entered):
            if len(candidates) == 1:
                return candidates[0]
        return None

    def forget(self) -> None:
        """Time has been turned back and may go on differently: numbers may mean other tasks."""
        self._of_task.clear()

    def function_at(self, machine: Machine, task: Task | None, address: int) -> str:
        """The name of an address in a task."""
        program = self.of_task(machine, task)
        return program.function_at(address) if program is not None else f"{address:#x}"

    def backtrace(self, machine: Machine, task: Task, eip: int, esp: int, ebp: int) -> list[Frame]:
        """The calls on a stack, innermost first: by call frame information, else by frame pointers."""
        program = self.of_task(machine, task)

        def word(address: int) -> int | None:
            data = read_memory(machine, task, address, 4)
            return int.from_bytes(data, "little") if len(data) == 4 else None

        frames: list[Frame] = []
        while len(frames) < MAX_FRAMES:
            # A return address may be the first byte of the next function: look at the call before it.
            at = eip - 1 if frames else eip
            name = program.function_at(at) if program is not None else f"{eip:#x}"
            frames.append(Frame(eip, name, program.place_at(at) if program is not None else None))
            caller = program.caller_of(at, esp, ebp, word) if program is not None else None
            if caller is None:
                caller = _by_frame_pointer(eip, esp, ebp, word, program, first=len(frames) == 1)
            if caller is None or caller[0] == 0 or caller[1] <= esp:
                break
            eip, esp, ebp = caller
        return frames


def _by_frame_pointer(
    eip: int, esp: int, ebp: int, word: Callable[[int], int | None], program: Program | None, *, first: bool
) -> tuple[int, int, int] | None:
    """The caller where functions begin with `push ebp; mov ebp, esp`; at the very beginning, before that."""
    offset = 0
    if first and program is not None:
        name = program.function_at(eip)
        offset = int(name.rpartition("+")[2], 16) if "+" in name else 0
        if name.startswith(("0x", "<")) or offset == 0:
            caller = word(esp)  # at the first instruction, or in a stub without frame
            return (caller, esp + 4, ebp) if caller is not None and _is_code(program, caller) else None
        if offset == 1:
            caller, old = word(esp + 4), word(esp)
            return (caller, esp + 8, old) if caller is not None and old is not None else None
    caller, old = word(ebp + 4 & 0xFFFFFFFF), word(ebp)
    return (caller, ebp + 8, old) if caller is not None and old is not None else None


def _is_code(program: Program, address: int) -> bool:
    return any(start <= address < start + len(data) for start, data in program.code)


def _holds(machine: Machine, task: Task, program: Program) -> bool:
    """True if a page of the program's code is mapped, and every such page has the program's bytes."""
    seen = False
    for start, data in program.code:
        for page in range(start // PAGE_BYTES * PAGE_BYTES, start + len(data), PAGE_BYTES):
            if task.space.tables.translate(page) is None:
                continue
            expected = program.code_on(page)
            if expected is None:
                continue
            address, content = expected
            if read_memory(machine, task, address, len(content)) != content:
                return False
            seen = True
    return seen
