"""Builds ELF files byte by byte, sane ones by default, any field spoilt on request.

    ElfBuilder().segment(0x8048000, b"\\x90", flags=5).build()
    ElfBuilder(e_machine=62).segment(...).build()

A keyword of `ElfBuilder` is a field of the ELF header, one of `segment` and `header` a field of that
program header: it replaces what the builder would have computed. Ref: ELF 1.2, figures 1-3, 1-8, 2-1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

PT_NULL, PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE = 0, 1, 2, 3, 4
PF_X, PF_W, PF_R = 1, 2, 4
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION, STT_FILE, STT_TLS = 0, 1, 2, 3, 4, 6
SHN_ABS = 0xFFF1

HEADER_FIELDS = (
    ("e_ident", "16s"),
    ("e_type", "H"),
    ("e_machine", "H"),
    ("e_version", "I"),
    ("e_entry", "I"),
    ("e_phoff", "I"),
    ("e_shoff", "I"),
    ("e_flags", "I"),
    ("e_ehsize", "H"),
    ("e_phentsize", "H"),
    ("e_phnum", "H"),
    ("e_shentsize", "H"),
    ("e_shnum", "H"),
    ("e_shstrndx", "H"),
)
PROGRAM_HEADER_FIELDS = (
    "p_type",
    "p_offset",
    "p_vaddr",
    "p_paddr",
    "p_filesz",
    "p_memsz",
    "p_flags",
    "p_align",
)
SECTION_FIELDS = (
    "sh_name",
    "sh_type",
    "sh_flags",
    "sh_addr",
    "sh_offset",
    "sh_size",
    "sh_link",
    "sh_info",
    "sh_addralign",
    "sh_entsize",
)
IDENT = b"\x7fELF\x01\x01\x01" + bytes(9)
HEADER_BYTES, PROGRAM_HEADER_BYTES, SECTION_BYTES = 52, 32, 40
_HEADER = struct.Struct("<" + "".join(code for _, code in HEADER_FIELDS))


@dataclass
class _Part:
    """A program header and the bytes in the file that belong to it."""

    data: bytes
    fields: dict[str, int]
    overrides: dict[str, int]


@dataclass
class _Symbol:
    name: str
    value: int
    size: int
    info: int
    section: int


class ElfBuilder:
    """Collects segments and symbols; `build` lays them out: header, program headers, data, sections."""

    def __init__(self, **overrides: int | bytes) -> None:
        self.overrides = overrides
        self.parts: list[_Part] = []
        self.symbols: list[_Symbol] = []
        self.section_overrides: dict[int, dict[str, int]] = {}

    def segment(
        self,
        address: int,
        data: bytes = b"",
        *,
        memory: int | None = None,
        flags: int = PF_R,
        **overrides: int,
    ) -> ElfBuilder:
        """Add a PT_LOAD of `data` followed by zeros up to `memory` bytes."""
        fields = {
            "p_type": PT_LOAD,
            "p_vaddr": address,
            "p_paddr": address,
            "p_memsz": len(data) if memory is None else memory,
            "p_flags": flags,
            "p_align": 0x1000,
        }
        self.parts.append(_Part(data, fields, overrides))
        return self

    def header(self, kind: int, data: bytes = b"", **overrides: int) -> ElfBuilder:
        """Add a program header of another type, with its bytes."""
        self.parts.append(_Part(data, {"p_type": kind, "p_memsz": len(data), "p_flags": PF_R}, overrides))
        return self

    def symbol(
        self,
        name: str,
        value: int,
        size: int = 0,
        kind: int = STT_FUNC,
        *,
        binding: int = STB_GLOBAL,
        section: int = 1,
    ) -> ElfBuilder:
        """Add a symbol. Section 1 is the first segment's code; section 2 the second segment's data."""
        self.symbols.append(_Symbol(name, value, size, binding << 4 | kind, section))
        return self

    def section(self, number: int, **overrides: int) -> ElfBuilder:
        """Replace fields of section header `number`: 1, 2 segments, 3 symbols, 4 their names."""
        self.section_overrides[number] = overrides
        return self

    def build(self) -> bytes:
        """The file."""
        table, body, offset = bytearray(), bytearray(), HEADER_BYTES + PROGRAM_HEADER_BYTES * len(self.parts)
        for part in self.parts:
            fields = dict.fromkeys(PROGRAM_HEADER_FIELDS, 0)
            fields |= (
                {"p_offset": offset + len(body), "p_filesz": len(part.data)} | part.fields | part.overrides
            )
            table += struct.pack("<8I", *fields.values())
            body += part.data
        sections = self._sections(offset, body) if self.symbols else b""
        header = self._header(offset + len(body) if sections else 0, len(sections) // SECTION_BYTES)
        return bytes(header + table + body + sections)

    def _header(self, section_offset: int, section_count: int) -> bytes:
        entry = next((p.fields["p_vaddr"] for p in self.parts if p.fields.get("p_flags", 0) & PF_X), 0)
        values: dict[str, int | bytes] = {
            "e_ident": IDENT,
            "e_type": 2,
            "e_machine": 3,
            "e_version": 1,
            "e_entry": entry,
            "e_phoff": HEADER_BYTES,
            "e_shoff": section_offset,
            "e_flags": 0,
            "e_ehsize": HEADER_BYTES,
            "e_phentsize": PROGRAM_HEADER_BYTES,
            "e_phnum": len(self.parts),
            "e_shentsize": SECTION_BYTES,
            "e_shnum": section_count,
            "e_shstrndx": 4 if section_count else 0,
        }
        return _HEADER.pack(*(values | self.overrides).values())

    def _sections(self, offset: int, body: bytearray) -> bytes:
        """Null, one section per segment (two at least), symbols, strings; appends the last two to `body`."""
        strings, rows = bytearray(b"\0"), bytearray(16)
        for symbol in self.symbols:
            rows += struct.pack(
                "<IIIBBH", len(strings), symbol.value, symbol.size, symbol.info, 0, symbol.section
            )
            strings += symbol.name.encode() + b"\0"
        symbols_at = offset + len(body)
        body += rows + strings
        headers: list[dict[str, int]] = [{}]
        for part in (*self.parts, *(None,) * 2)[:2]:
            fields = part.fields if part else {}
            executable = fields.get("p_flags", 0) & PF_X
            headers.append(
                {
                    "sh_type": 1,
                    "sh_flags": 2 | (4 if executable else 1),
                    "sh_addr": fields.get("p_vaddr", 0),
                    "sh_size": fields.get("p_memsz", 0),
                }
            )
        headers.append(
            {"sh_type": 2, "sh_offset": symbols_at, "sh_size": len(rows), "sh_link": 4, "sh_entsize": 16}
        )
        headers.append({"sh_type": 3, "sh_offset": symbols_at + len(rows), "sh_size": len(strings)})
        table = bytearray()
        for number, fields in enumerate(headers):
            complete = dict.fromkeys(SECTION_FIELDS, 0) | fields | self.section_overrides.get(number, {})
            table += struct.pack("<10I", *complete.values())
        return bytes(table)


CODE = b"\x31\xc0\xcd\x30\xeb\xfe"


def sane() -> ElfBuilder:
    """A program like those a linker makes: code at the usual address, data with zeros behind it."""
    return (
        ElfBuilder()
        .segment(0x08048000, CODE * 100, flags=PF_R | PF_X)
        .segment(0x0804A000, b"data" * 10, memory=0x3000, flags=PF_R | PF_W)
    )
