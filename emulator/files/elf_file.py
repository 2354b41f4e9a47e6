"""An ELF file whose every read is checked: header, program headers, section headers, bytes.

pyelftools supplies the layouts, once for all files. Only its header, program header, section header and dynamic entry
structures are used, each on a range already known to lie inside the file: its section and segment
objects follow links through the file when they are made, and on a mangled file raise whatever
comes to hand (TypeError, KeyError, AttributeError, …). Used in this way it raises ELFError alone,
and the file itself OSError; tests with thousands of mangled files say so.

Ref: Tool Interface Standard, ELF 1.2, book I; System V ABI, chapter 4 (section counts).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.elf.structs import ELFStructs

from l4lab.emulator.errors import ImageError
from l4lab.emulator.files.inputs import open_regular, printable

MAX_PROGRAM_HEADERS: Final = 256
MAX_SECTION_HEADERS: Final = 0x10000
_HEADER_BYTES: Final = 52
_PROGRAM_HEADER_BYTES: Final = 32
_SECTION_HEADER_BYTES: Final = 40
_TYPE_WORDS: Final = {
    "ET_NONE": "a file without a type",
    "ET_REL": "an object file (ET_REL)",
    "ET_DYN": "a shared object or position-independent program (ET_DYN)",
    "ET_CORE": "a core dump (ET_CORE)",
}

LAYOUTS: Final = ELFStructs(little_endian=True, elfclass=32)
"""The structures of a program that `ElfReader.check_kind` accepts; expensive to make."""
LAYOUTS.create_basic_structs()
LAYOUTS.create_advanced_structs("ET_EXEC", "EM_386", "ELFOSABI_SYSV")

Header = Mapping[str, Any]
"""One structure of the file: field name of the specification -> value."""


class ElfReader:
    """An open ELF file and its header; every read is checked against the file's size."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream, self.size_bytes = open_regular(path, ImageError)
        try:
            self.header = self._parse_header(self.stream)
        except BaseException:
            self.stream.close()
            raise

    def __enter__(self) -> ElfReader:
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

    def program_headers(self) -> Iterator[Header]:
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
            yield self.parse(LAYOUTS.Elf_Phdr, start + number * entry_bytes)

    def section_headers(self) -> Iterator[Header]:
        """Every section header; none if the file has no section header table."""
        start, count = self.header["e_shoff"], self.header["e_shnum"]
        if start == 0:
            return
        entry_bytes = self.header["e_shentsize"]
        if entry_bytes != _SECTION_HEADER_BYTES:
            self.refuse(f"section headers of {entry_bytes} bytes", f"{_SECTION_HEADER_BYTES} bytes")
        if count == 0:  # too many for the field: the first header has the number (ELF gABI, chapter 4)
            self.check_range("the section header table", start, entry_bytes)
            count = self.parse(LAYOUTS.Elf_Shdr, start)["sh_size"]
        if count > MAX_SECTION_HEADERS:
            self.refuse(f"{count} section headers", f"at most {MAX_SECTION_HEADERS}")
        self.check_range("the section header table", start, count * entry_bytes)
        for number in range(count):
            yield self.parse(LAYOUTS.Elf_Shdr, start + number * entry_bytes)

    def parse(self, layout: Any, offset: int) -> Header:
        """The structure at `offset`, all of which lies inside the file."""
        try:
            header: Header = struct_parse(layout, self.stream, offset)
        except (ELFError, OSError) as problem:  # the file shrank since it was opened, or its disk is broken
            self.refuse(f"unreadable data at {offset:#x} ({printable(problem)})", "a complete file")
        return header

    def read(self, what: str, offset: int, size_bytes: int) -> bytes:
        """Bytes of the file that lie inside it."""
        self.check_range(what, offset, size_bytes)
        try:
            self.stream.seek(offset)
            data = self.stream.read(size_bytes)
        except OSError as problem:
            self.refuse(f"unreadable data at {offset:#x} ({printable(problem)})", "a complete file")
        if len(data) != size_bytes:
            self.refuse(f"{what} cut off at offset {offset + len(data):#x}", "a complete file")
        return data

    def check_range(self, what: str, offset: int, size_bytes: int) -> None:
        """Refuse a table or segment that reaches beyond the end of the file. Nothing has its offset anywhere."""
        if size_bytes and offset + size_bytes > self.size_bytes:
            where = f"{what} at file offset {offset:#x} to {offset + size_bytes:#x}"
            self.refuse(f"{where} in a file of {self.size_bytes:#x} bytes", "a file that is not truncated")

    def _parse_header(self, stream: BinaryIO) -> Header:
        try:
            self._check_ident(stream.read(6))
            header: Header = struct_parse(LAYOUTS.Elf_Ehdr, stream, 0)
            return header
        except (ELFError, OSError) as problem:  # the file shrank since it was opened, or its disk is broken
            self.refuse(f"a damaged ELF header ({printable(problem)})", "a static i386 ELF executable")

    def _check_ident(self, ident: bytes) -> None:
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
        if ident[4:6] != b"\x01\x01":
            kind = f"a damaged ELF header (class {ident[4]}, byte order {ident[5]})"
            self.refuse(kind, "a static i386 ELF executable")
