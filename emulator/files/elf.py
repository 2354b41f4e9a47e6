"""Reads i386 programs: what to put where, and which name an address has.

A file is accepted only if it is a statically linked ELF32 executable for the 80386 that a kernel
can load by copying: no interpreter, no relocations, every segment inside user space, no two
segments on one page. Everything else is one ImageError that names the file, what was found and
what was expected. Decisions that the ELF specification leaves to the loader:

* Page 0 is refused, so that a null pointer faults; so is anything that programs do not own.
* A page belongs to one segment: rights are per page, and a boot descriptor or a mapping covers
  whole pages. Linkers keep to it unless told to pack (`-z max-page-size=1` and the like).
* ia32 has no page that can be written or executed but not read, so W and X imply R.
* PT_DYNAMIC is tolerated as long as it asks for nothing: no libraries, no relocations.
* Zero-filled memory is a number, never bytes; bytes from the file are at most MAX_FILE_BYTES.

Ref: Tool Interface Standard, ELF 1.2, book I; System V ABI, Intel386 supplement, chapter 5.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from l4lab.emulator.files.elf_file import LAYOUTS, ElfReader, Header
from l4lab.emulator.files.inputs import printable
from l4lab.emulator.interfaces import INTERFACE
from l4lab.kernel.units import ADDRESS_LIMIT, PAGE_BYTES, page_ceil, page_floor

PF_X, PF_W, PF_R = 1, 2, 4
"""Of a segment's flags: execute, write, read."""

MAX_FILE_BYTES: Final = 256 << 20
"""Most bytes that the segments of one program may bring from the file."""

_SYMBOL_BYTES: Final = 16
_DYNAMIC_ENTRY_BYTES: Final = 8
_MAX_DYNAMIC_ENTRIES: Final = 4096
_MAX_SYMBOLS: Final = 1 << 20
_MAX_NAME_BYTES: Final = 1024

# Dynamic tags that ask the loader for work; sizes count only if they are not zero.
_DYNAMIC_WORK: Final = {
    "DT_NEEDED": "a shared library",
    "DT_RELSZ": "relocations",
    "DT_RELASZ": "relocations",
    "DT_RELRSZ": "relocations",
    "DT_PLTRELSZ": "relocations",
    "DT_TEXTREL": "relocations",
}


@dataclass(frozen=True, slots=True)
class Segment:
    """One range of memory with the same rights, as PF_R, PF_W and PF_X.

    `data` fills the range from its start; the rest, up to `memory_bytes`, is zero. Neither end
    need lie on a page boundary, but no other segment touches the same pages.
    """

    address: int
    memory_bytes: int
    data: bytes
    rights: int

    @property
    def end(self) -> int:
        """The first byte behind the segment."""
        return self.address + self.memory_bytes


@dataclass(frozen=True, slots=True)
class ElfImage:
    """A program as the kernel or a boot loader needs it. `segments` ascend by address.

    `entry` lies in the bytes that an executable segment brings from the file.
    """

    path: Path
    entry: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Symbol:
    """A function, an object, or a label in code. `end` is its own, or else where the next begins."""

    name: str
    address: int
    end: int


class SymbolTable:
    """The names of a program's addresses; empty if the program was stripped."""

    __slots__ = ("_addresses", "_by_name", "symbols")

    def __init__(self, symbols: Iterable[Symbol] = ()) -> None:
        self.symbols = tuple(sorted(symbols, key=lambda symbol: (symbol.address, symbol.name)))
        self._addresses = [symbol.address for symbol in self.symbols]
        self._by_name = {symbol.name: symbol.address for symbol in reversed(self.symbols)}

    def __len__(self) -> int:
        return len(self.symbols)

    def name_at(self, address: int) -> str | None:
        """`main` at its first byte, `main+0x12` inside it, None outside every symbol."""
        index = bisect_right(self._addresses, address) - 1
        if index < 0 or address >= self.symbols[index].end:
            return None
        symbol = self.symbols[index]
        offset = address - symbol.address
        return f"{symbol.name}+{offset:#x}" if offset else symbol.name

    def address_of(self, name: str) -> int | None:
        """Where `name` begins; the lowest address if several static symbols share it."""
        return self._by_name.get(name)


def load_elf(path: Path) -> ElfImage:
    """The program in `path`. ImageError unless it is a sane static i386 executable."""
    with ElfReader(path) as reader:
        reader.check_kind()
        headers = list(reader.program_headers())
        for number, header in enumerate(headers):
            _check_static(reader, number, header)
        loadable = [(n, h) for n, h in enumerate(headers) if h["p_type"] == "PT_LOAD" and h["p_memsz"]]
        for number, header in loadable:
            _check_segment(reader, number, header)
        _check_together(reader, loadable)
        segments = tuple(sorted((_read_segment(reader, h) for _, h in loadable), key=lambda s: s.address))
        entry = int(reader.header["e_entry"])
        _check_entry(reader, entry, segments)
        return ElfImage(path, entry, segments)


def load_symbols(path: Path) -> SymbolTable:
    """The functions, objects and code labels of an i386 ELF file, static ones included.

    Of several names for one address the most telling stays: functions before objects before
    labels, then global before weak before static, then the first by alphabet.
    Raises ImageError if the file is no i386 ELF file, or its section headers or symbol table are
    damaged. The kernel needs neither, so a caller may choose to go on without names.
    """
    with ElfReader(path) as reader:
        reader.check_kind()
        sections = list(reader.section_headers())
        table = next((header for header in sections if header["sh_type"] == "SHT_SYMTAB"), None)
        return SymbolTable(_read_symbols(reader, table, sections) if table else ())


def _check_static(reader: ElfReader, number: int, header: Header) -> None:
    if header["p_type"] == "PT_INTERP":
        reader.refuse(f"a dynamically linked program (PT_INTERP in program header {number})", "a static one")
    if header["p_type"] != "PT_DYNAMIC":
        return
    what = f"the dynamic section (program header {number})"
    start, size_bytes = header["p_offset"], header["p_filesz"]
    reader.check_range(what, start, size_bytes)
    if size_bytes > _MAX_DYNAMIC_ENTRIES * _DYNAMIC_ENTRY_BYTES:
        reader.refuse(f"{what} of {size_bytes:#x} bytes", f"at most {_MAX_DYNAMIC_ENTRIES} entries")
    for offset in range(start, start + size_bytes - _DYNAMIC_ENTRY_BYTES + 1, _DYNAMIC_ENTRY_BYTES):
        entry = reader.parse(LAYOUTS.Elf_Dyn, offset)
        tag = entry["d_tag"]
        if tag == "DT_NULL":
            return
        if tag in _DYNAMIC_WORK and (entry["d_val"] or tag in ("DT_NEEDED", "DT_TEXTREL")):
            reader.refuse(f"a program that needs {_DYNAMIC_WORK[tag]} ({tag})", "a static one")


def _check_segment(reader: ElfReader, number: int, header: Header) -> None:
    start, size_bytes, file_bytes = header["p_vaddr"], header["p_memsz"], header["p_filesz"]
    name = f"segment {number} at {start:#x}"
    if file_bytes > size_bytes:
        reader.refuse(
            f"{name} with {file_bytes:#x} bytes in the file for {size_bytes:#x} in memory", "no more"
        )
    end = start + size_bytes
    if end > ADDRESS_LIMIT:
        reader.refuse(f"{name} of {size_bytes:#x} bytes", "an end below 4 GiB")
    limit = INTERFACE.user_limit
    if end > limit:
        reader.refuse(f"{name} to {end:#x}", f"user addresses below {limit:#x} (the kernel's space)")
    if start < PAGE_BYTES:
        reader.refuse(f"{name}", f"an address of at least {PAGE_BYTES:#x} (null pointers must fault)")
    if not header["p_flags"] & (PF_R | PF_W | PF_X):
        reader.refuse(f"{name} with no access rights", "at least one of read, write, execute")
    reader.check_range(f"segment {number}", header["p_offset"], file_bytes)


def _check_together(reader: ElfReader, loadable: list[tuple[int, Header]]) -> None:
    if not loadable:
        reader.refuse("no segment with any memory", "at least one PT_LOAD segment")
    file_bytes = sum(header["p_filesz"] for _, header in loadable)
    if file_bytes > MAX_FILE_BYTES:
        reader.refuse(f"segments with {file_bytes:#x} bytes from the file", f"at most {MAX_FILE_BYTES:#x}")
    ascending = sorted(loadable, key=lambda item: (item[1]["p_vaddr"], item[0]))
    for (low_number, low), (high_number, high) in pairwise(ascending):
        low_end = low["p_vaddr"] + low["p_memsz"]
        names = f"segments {low_number} and {high_number}"
        if low_end > high["p_vaddr"]:
            reader.refuse(f"{names} both at {high['p_vaddr']:#x}", "segments that do not overlap")
        if page_ceil(low_end) > page_floor(high["p_vaddr"]):
            page = page_floor(high["p_vaddr"])
            reader.refuse(f"{names} on one page {page:#x}", "pages of their own (-z max-page-size=4096)")


def _check_entry(reader: ElfReader, entry: int, segments: tuple[Segment, ...]) -> None:
    for segment in segments:
        if segment.rights & PF_X and segment.address <= entry < segment.address + len(segment.data):
            return
    reader.refuse(f"entry point {entry:#x}", "an address in the code of an executable segment")


def _read_segment(reader: ElfReader, header: Header) -> Segment:
    rights = header["p_flags"] & (PF_R | PF_W | PF_X) | PF_R
    data = reader.read(f"the segment at {header['p_vaddr']:#x}", header["p_offset"], header["p_filesz"])
    return Segment(header["p_vaddr"], header["p_memsz"], data, rights)


# --- symbols -------------------------------------------------------------------------------------

_SHF_EXECINSTR: Final = 4
_STT_NOTYPE, _STT_OBJECT, _STT_FUNC = 0, 1, 2
_TYPE_RANK: Final = {_STT_FUNC: 0, _STT_OBJECT: 1, _STT_NOTYPE: 2}
_BINDING_RANK: Final = {1: 0, 2: 1, 0: 2}  # global, weak, local


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A symbol before the choice between names of one address and before open ends are closed."""

    address: int
    rank: tuple[int, int, str]
    size_bytes: int
    section_end: int

    @property
    def name(self) -> str:
        return self.rank[2]


def _read_symbols(reader: ElfReader, table: Header, sections: list[Header]) -> list[Symbol]:
    size_bytes, link = table["sh_size"], table["sh_link"]
    if table["sh_entsize"] != _SYMBOL_BYTES:
        reader.refuse(f"symbols of {table['sh_entsize']} bytes", f"{_SYMBOL_BYTES} bytes")
    if size_bytes > _MAX_SYMBOLS * _SYMBOL_BYTES:
        reader.refuse(f"{size_bytes // _SYMBOL_BYTES} symbols", f"at most {_MAX_SYMBOLS}")
    if link >= len(sections) or sections[link]["sh_type"] != "SHT_STRTAB":
        reader.refuse(f"symbol names in section {link}", "a string table")
    strings = reader.read("the symbol names", sections[link]["sh_offset"], sections[link]["sh_size"])
    raw = reader.read("the symbol table", table["sh_offset"], size_bytes // _SYMBOL_BYTES * _SYMBOL_BYTES)
    chosen: dict[int, _Candidate] = {}
    for candidate in _candidates(raw, strings, sections):
        rival = chosen.get(candidate.address)
        if rival is None or candidate.rank < rival.rank:
            chosen[candidate.address] = candidate
    return list(_close_ends(sorted(chosen.values(), key=lambda candidate: candidate.address)))


def _candidates(raw: bytes, strings: bytes, sections: list[Header]) -> Iterator[_Candidate]:
    for name_offset, address, size_bytes, info, _, section in struct.iter_unpack("<IIIBBH", raw):
        kind, binding = info & 0xF, info >> 4
        if kind not in _TYPE_RANK or not 0 < section < len(sections):
            continue
        header = sections[section]
        if kind == _STT_NOTYPE and not header["sh_flags"] & _SHF_EXECINSTR:
            continue
        name = _string_at(strings, name_offset)
        if name:
            rank = (_TYPE_RANK[kind], _BINDING_RANK.get(binding, 3), name)
            yield _Candidate(address, rank, size_bytes, header["sh_addr"] + header["sh_size"])


def _close_ends(ascending: list[_Candidate]) -> Iterator[Symbol]:
    """Assembler labels have no size: they reach to the next symbol or the end of their section."""
    for index, candidate in enumerate(ascending):
        end = candidate.address + candidate.size_bytes
        if not candidate.size_bytes:
            end = candidate.section_end
            if index + 1 < len(ascending):
                end = min(end, ascending[index + 1].address)
        yield Symbol(candidate.name, candidate.address, max(end, candidate.address + 1))


def _string_at(strings: bytes, offset: int) -> str:
    end = strings.find(b"\0", offset, offset + _MAX_NAME_BYTES)
    name = strings[offset : end if end >= 0 else offset + _MAX_NAME_BYTES]
    return printable(name.decode("utf-8", "replace"))
