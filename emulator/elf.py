"""Reads i386 programs: what to put where, and which name an address has.

A file is accepted only if it is a statically linked ELF32 executable for the 80386 that a kernel
can load by copying: no interpreter, no relocations, every segment inside user space, no two
segments on one page. Everything else is one ImageError that names the file, what was found and
what was expected. Decisions that the ELF specification leaves to the loader:

* Page 0 is refused, so that a null pointer faults; so is anything at or above `USER_LIMIT`.
* A page belongs to one segment: rights are per page, and a boot descriptor or a mapping covers
  whole pages. Linkers keep to it unless told to pack (`-z max-page-size=1` and the like).
* ia32 has no page that can be written or executed but not read, so W and X imply R.
* PT_DYNAMIC is tolerated as long as it asks for nothing: no libraries, no relocations.
* Zero-filled memory is a number, never bytes; bytes from the file are at most MAX_FILE_BYTES.

pyelftools supplies the layouts. Only its header, program header, section header and dynamic
entry structures are used, each on a range already known to lie inside the file: its section and
segment objects follow links through the file when they are made, and on a mangled file raise
whatever comes to hand (TypeError, KeyError, AttributeError, …).

Ref: Tool Interface Standard, ELF 1.2, book I; System V ABI, Intel386 supplement, chapter 5.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.elf.elffile import ELFFile

from l4lab.emulator.errors import ImageError
from l4lab.emulator.inputs import open_regular, printable
from l4lab.kernel.abi.fiasco import RIGHT_R, RIGHT_W, RIGHT_X, USER_LIMIT
from l4lab.kernel.units import ADDRESS_LIMIT, PAGE_BYTES, page_ceil, page_floor

MAX_PROGRAM_HEADERS: Final = 256
MAX_FILE_BYTES: Final = 256 << 20
"""Most bytes that the segments of one program may bring from the file."""

_HEADER_BYTES: Final = 52
_PROGRAM_HEADER_BYTES: Final = 32
_SECTION_HEADER_BYTES: Final = 40
_SYMBOL_BYTES: Final = 16
_DYNAMIC_ENTRY_BYTES: Final = 8
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
_TYPE_WORDS: Final = {
    "ET_NONE": "a file without a type",
    "ET_REL": "an object file (ET_REL)",
    "ET_DYN": "a shared object or position-independent program (ET_DYN)",
    "ET_CORE": "a core dump (ET_CORE)",
}

_Header = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Segment:
    """One range of memory with the same rights.

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
    with _ElfReader(path) as reader:
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
    with _ElfReader(path) as reader:
        reader.check_kind()
        sections = list(reader.section_headers())
        table = next((header for header in sections if header["sh_type"] == "SHT_SYMTAB"), None)
        return SymbolTable(_read_symbols(reader, table, sections) if table else ())


class _ElfReader:
    """An open ELF file and its header; every read is checked against the file's size."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream, self.size_bytes = open_regular(path, ImageError)
        try:
            self.elf = self._parse_header(self.stream)
        except BaseException:
            self.stream.close()
            raise
        self.header: _Header = self.elf.header

    def __enter__(self) -> _ElfReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stream.close()

    def refuse(self, found: str, expected: str) -> NoReturn:
        """Raise the one line that ends the attempt."""
        raise ImageError(f"{printable(self.path)}: found {found}, expected {expected}")

    def check_kind(self) -> None:
        """Refuse everything but an i386 executable, before anything else of the header is used."""
        if self.header["e_machine"] != "EM_386":
            self.refuse(f"machine {self.header['e_machine']}", "EM_386 (i386)")
        if self.header["e_type"] != "ET_EXEC":
            kind = self.header["e_type"]
            found = _TYPE_WORDS.get(kind, f"ELF file type {kind}")
            self.refuse(found, "a static executable (ET_EXEC; link with -static -no-pie)")
        if self.header["e_version"] != "EV_CURRENT":
            self.refuse(f"ELF version {self.header['e_version']}", "version 1")

    def program_headers(self) -> Iterator[_Header]:
        """Every program header, in the file's order."""
        count, entry_bytes = self.header["e_phnum"], self.header["e_phentsize"]
        if count == 0:
            self.refuse("no program headers", "at least one PT_LOAD segment")
        if count > MAX_PROGRAM_HEADERS:
            self.refuse(f"{count} program headers", f"at most {MAX_PROGRAM_HEADERS}")
        if entry_bytes != _PROGRAM_HEADER_BYTES:
            self.refuse(f"program headers of {entry_bytes} bytes", f"{_PROGRAM_HEADER_BYTES} bytes")
        start = self.header["e_phoff"]
        self.check_range("the program header table", start, count * entry_bytes)
        for number in range(count):
            yield self.parse(self.elf.structs.Elf_Phdr, start + number * entry_bytes)

    def section_headers(self) -> Iterator[_Header]:
        """Every section header; none if the file has no section header table."""
        start, count = self.header["e_shoff"], self.header["e_shnum"]
        if start == 0:
            return
        entry_bytes = self.header["e_shentsize"]
        if entry_bytes != _SECTION_HEADER_BYTES:
            self.refuse(f"section headers of {entry_bytes} bytes", f"{_SECTION_HEADER_BYTES} bytes")
        if count == 0:  # too many for the field: the first header has the number (ELF gABI, chapter 4)
            self.check_range("the section header table", start, entry_bytes)
            count = self.parse(self.elf.structs.Elf_Shdr, start)["sh_size"]
        self.check_range("the section header table", start, count * entry_bytes)
        for number in range(count):
            yield self.parse(self.elf.structs.Elf_Shdr, start + number * entry_bytes)

    def parse(self, layout: Any, offset: int) -> _Header:
        """The structure at `offset`, all of which lies inside the file."""
        try:
            header: _Header = struct_parse(layout, self.stream, offset)
        except ELFError as problem:  # the file shrank since it was opened
            self.refuse(f"unreadable data at offset {offset:#x} ({printable(problem)})", "a complete file")
        return header

    def read(self, what: str, offset: int, size_bytes: int) -> bytes:
        """Bytes of the file that lie inside it."""
        self.check_range(what, offset, size_bytes)
        self.stream.seek(offset)
        data = self.stream.read(size_bytes)
        if len(data) != size_bytes:
            self.refuse(f"{what} cut off at offset {offset + len(data):#x}", "a complete file")
        return data

    def check_range(self, what: str, offset: int, size_bytes: int) -> None:
        """Refuse a table or segment that reaches beyond the end of the file."""
        if offset + size_bytes > self.size_bytes:
            where = f"{what} at {offset:#x} to {offset + size_bytes:#x}"
            self.refuse(f"{where} in a file of {self.size_bytes:#x} bytes", "a file that is not truncated")

    def _parse_header(self, stream: BinaryIO) -> ELFFile:
        ident = stream.read(6)
        if not ident:
            self.refuse("an empty file", "a static i386 ELF executable")
        if ident[:4] != b"\x7fELF":
            self.refuse(f"magic {ident[:4].hex(' ')}", "7f 45 4c 46 (a static i386 ELF executable)")
        if ident[4:5] == b"\x02":
            self.refuse("a 64-bit ELF file", "a 32-bit one (i386)")
        if ident[5:6] == b"\x02":
            self.refuse("a big-endian ELF file", "a little-endian one (i386)")
        if self.size_bytes < _HEADER_BYTES:
            self.refuse(f"{self.size_bytes} bytes", f"a complete ELF header of {_HEADER_BYTES} bytes")
        try:
            return ELFFile(stream)
        except ELFError as problem:  # a class or byte order that is neither of those above
            self.refuse(f"a damaged ELF header ({printable(problem)})", "a static i386 ELF executable")


def _check_static(reader: _ElfReader, number: int, header: _Header) -> None:
    if header["p_type"] == "PT_INTERP":
        reader.refuse(f"a dynamically linked program (PT_INTERP in program header {number})", "a static one")
    if header["p_type"] != "PT_DYNAMIC":
        return
    what = f"the dynamic section (program header {number})"
    start, size_bytes = header["p_offset"], header["p_filesz"]
    reader.check_range(what, start, size_bytes)
    for offset in range(start, start + size_bytes - _DYNAMIC_ENTRY_BYTES + 1, _DYNAMIC_ENTRY_BYTES):
        entry = reader.parse(reader.elf.structs.Elf_Dyn, offset)
        tag = entry["d_tag"]
        if tag == "DT_NULL":
            return
        if tag in _DYNAMIC_WORK and (entry["d_val"] or tag in ("DT_NEEDED", "DT_TEXTREL")):
            reader.refuse(f"a program that needs {_DYNAMIC_WORK[tag]} ({tag})", "a static one")


def _check_segment(reader: _ElfReader, number: int, header: _Header) -> None:
    start, size_bytes, file_bytes = header["p_vaddr"], header["p_memsz"], header["p_filesz"]
    name = f"segment {number} at {start:#x}"
    if file_bytes > size_bytes:
        reader.refuse(
            f"{name} with {file_bytes:#x} bytes in the file for {size_bytes:#x} in memory", "no more"
        )
    end = start + size_bytes
    if end > ADDRESS_LIMIT:
        reader.refuse(f"{name} of {size_bytes:#x} bytes", "an end below 4 GiB")
    if end > USER_LIMIT:
        reader.refuse(f"{name} to {end:#x}", f"user addresses below {USER_LIMIT:#x} (the kernel's space)")
    if start < PAGE_BYTES:
        reader.refuse(f"{name}", f"an address of at least {PAGE_BYTES:#x} (null pointers must fault)")
    if not header["p_flags"] & (RIGHT_R | RIGHT_W | RIGHT_X):
        reader.refuse(f"{name} with no access rights", "at least one of read, write, execute")
    reader.check_range(f"segment {number}", header["p_offset"], file_bytes)


def _check_together(reader: _ElfReader, loadable: list[tuple[int, _Header]]) -> None:
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


def _check_entry(reader: _ElfReader, entry: int, segments: tuple[Segment, ...]) -> None:
    for segment in segments:
        if segment.rights & RIGHT_X and segment.address <= entry < segment.address + len(segment.data):
            return
    reader.refuse(f"entry point {entry:#x}", "an address in the code of an executable segment")


def _read_segment(reader: _ElfReader, header: _Header) -> Segment:
    # PF_R, PF_W and PF_X have the values of the ABI's rights.
    rights = header["p_flags"] & (RIGHT_R | RIGHT_W | RIGHT_X) | RIGHT_R
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


def _read_symbols(reader: _ElfReader, table: _Header, sections: list[_Header]) -> list[Symbol]:
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


def _candidates(raw: bytes, strings: bytes, sections: list[_Header]) -> Iterator[_Candidate]:
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
