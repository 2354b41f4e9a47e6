"""The ELF loader: what it accepts, what it refuses, and that nothing else can happen."""

from __future__ import annotations

import errno
import os
import random
import struct
from pathlib import Path
from typing import BinaryIO, NoReturn

import pytest

from l4lab.emulator.errors import ImageError, OperatorError
from l4lab.emulator.files import elf, elf_file
from l4lab.emulator.files.elf import ElfImage, load_elf, load_symbols
from l4lab.emulator.files.inputs import BUNDLED_PROGRAMS, bundled_names, open_regular
from l4lab.kernel.fiasco.abi import RIGHT_R, RIGHT_W, RIGHT_X
from support.elf_builder import (
    CODE,
    HEADER_BYTES,
    HEADER_FIELDS,
    IDENT,
    PF_R,
    PF_W,
    PF_X,
    PROGRAM_HEADER_BYTES,
    PT_DYNAMIC,
    PT_INTERP,
    PT_LOAD,
    PT_NOTE,
    PT_NULL,
    SHN_ABS,
    STB_LOCAL,
    STB_WEAK,
    STT_FILE,
    STT_NOTYPE,
    STT_OBJECT,
    STT_TLS,
    ElfBuilder,
    sane,
)

TEXT, DATA = 0x08048000, 0x0804A000


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return tmp_path / "program"


def load(path: Path, content: bytes | ElfBuilder) -> ElfImage:
    path.write_bytes(content if isinstance(content, bytes) else content.build())
    return load_elf(path)


def refusal(path: Path, content: bytes | ElfBuilder) -> str:
    """The line with which `content` is refused, without the file's name."""
    with pytest.raises(ImageError) as caught:
        load(path, content)
    return checked_line(caught.value, path)


def checked_line(error: ImageError, path: Path) -> str:
    line = str(error)
    assert line.isprintable()
    assert line.startswith(f"{path}: ")
    assert "expected" in line
    return line.removeprefix(f"{path}: ")


def code_at(address: int, **overrides: int) -> ElfBuilder:
    return ElfBuilder().segment(address, CODE, flags=PF_R | PF_X, **overrides)


# --- what is accepted ---------------------------------------------------------------------------


def test_segments_carry_address_size_bytes_and_rights(program: Path) -> None:
    image = load(program, sane())
    text, data = image.segments
    assert (text.address, text.memory_bytes, text.data, text.rights) == (
        TEXT,
        600,
        CODE * 100,
        RIGHT_R | RIGHT_X,
    )
    assert (data.address, data.memory_bytes, data.data, data.rights) == (
        DATA,
        0x3000,
        b"data" * 10,
        RIGHT_R | RIGHT_W,
    )
    assert data.end == DATA + 0x3000
    assert image.entry == TEXT
    assert image.path == program


def test_segments_ascend_by_address_whatever_their_order_in_the_file(program: Path) -> None:
    image = load(program, ElfBuilder(e_entry=TEXT).segment(DATA, b"d").segment(TEXT, CODE, flags=PF_X))
    assert [segment.address for segment in image.segments] == [TEXT, DATA]


def test_write_and_execute_imply_read_as_on_ia32(program: Path) -> None:
    image = load(program, ElfBuilder().segment(TEXT, CODE, flags=PF_X).segment(DATA, b"d", flags=PF_W))
    assert [segment.rights for segment in image.segments] == [RIGHT_R | RIGHT_X, RIGHT_R | RIGHT_W]


def test_processor_specific_flags_are_not_rights(program: Path) -> None:
    assert load(program, code_at(TEXT, p_flags=0xFFF00005)).segments[0].rights == RIGHT_R | RIGHT_X


def test_a_segment_of_nothing_is_skipped(program: Path) -> None:
    assert len(load(program, code_at(TEXT).segment(0, b"")).segments) == 1


def test_a_segment_of_zeros_costs_no_memory(program: Path) -> None:
    """Two and a half GiB of bss are a number."""
    image = load(program, code_at(TEXT).segment(0x10000000, b"", memory=0xA0000000, flags=PF_R | PF_W))
    assert image.segments[1].memory_bytes == 0xA0000000
    assert image.segments[1].data == b""


def test_headers_that_ask_for_nothing_are_ignored(program: Path) -> None:
    odd = sane().header(PT_NOTE, b"x" * 20).header(PT_NULL).header(0x6474E551).header(0x12345678)
    assert len(load(program, odd).segments) == 2


def test_the_highest_user_page_and_the_lowest_are_allowed(program: Path) -> None:
    assert load(program, code_at(0x1000).segment(0xBFFFF000, b"x" * 4096)).segments[1].end == 0xC0000000


def test_neighbouring_pages_are_not_shared(program: Path) -> None:
    image = load(
        program, ElfBuilder().segment(TEXT, CODE, flags=PF_X, memory=0x1000).segment(TEXT + 0x1000, b"d")
    )
    assert len(image.segments) == 2


def test_a_dynamic_section_that_asks_for_nothing_is_tolerated(program: Path) -> None:
    entries = struct.pack("<8I", 18, 0, 5, TEXT, 0, 0, 1, 1)  # DT_RELSZ 0, DT_STRTAB, DT_NULL, then DT_NEEDED
    assert len(load(program, sane().header(PT_DYNAMIC, entries)).segments) == 2


def test_the_last_program_header_may_end_with_the_file(program: Path) -> None:
    content = sane().build()
    moved = content + content[HEADER_BYTES : HEADER_BYTES + 2 * PROGRAM_HEADER_BYTES]
    moved = moved[:28] + struct.pack("<I", len(content)) + moved[32:]
    assert load(program, moved).segments == load(program, content).segments


needs_programs = pytest.mark.skipif(not bundled_names(BUNDLED_PROGRAMS), reason="user programs not built")


@needs_programs
@pytest.mark.parametrize("name", bundled_names(BUNDLED_PROGRAMS))
def test_the_bundled_programs_load_and_have_names(name: str) -> None:
    image = load_elf(BUNDLED_PROGRAMS / name)
    check_image(image, (BUNDLED_PROGRAMS / name).stat().st_size)
    symbols = load_symbols(BUNDLED_PROGRAMS / name)
    entry_name = symbols.name_at(image.entry)
    assert entry_name is not None
    assert symbols.address_of(entry_name) == image.entry
    assert symbols.name_at(image.entry + 1) == f"{entry_name}+0x1"


# --- what is refused: the file ------------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        load_elf(tmp_path / "absent")
    assert "found no such file" in checked_line(caught.value, tmp_path / "absent")


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        load_elf(tmp_path)
    assert checked_line(caught.value, tmp_path) == "found a directory, expected a readable file"


def test_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="found a pipe, expected a readable file"):
        load_elf(tmp_path / "pipe")


def test_unreadable_file(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Faked, because root may read every file."""
    program.write_bytes(sane().build())

    def refuse(*_: object) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError) as caught:
        load_elf(program)
    assert checked_line(caught.value, program) == (
        "found a file without permission to read it, expected a readable file"
    )


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "\udcff"])
def test_a_file_name_cannot_break_the_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError) as caught:
        load_elf(tmp_path / name)
    assert str(caught.value).isprintable()
    (tmp_path / name).write_bytes(b"text")
    with pytest.raises(ImageError, match="magic") as caught:
        load_elf(tmp_path / name)
    assert str(caught.value).isprintable()


def test_an_impossible_file_name() -> None:
    with pytest.raises(ImageError, match="a name that no file can have"):
        load_elf(Path("a\0b"))


@pytest.mark.parametrize("size", range(HEADER_BYTES))
def test_every_truncated_header(program: Path, size: int) -> None:
    refusal(program, sane().build()[:size])


def test_truncations_are_named(program: Path) -> None:
    content = sane().build()
    assert refusal(program, b"") == "found an empty file, expected a static i386 ELF executable"
    assert refusal(program, content[:40]) == "found 40 bytes, expected a complete ELF header of 52 bytes"
    assert "the program header table" in refusal(program, content[:80])
    assert "segment 1 at file offset 0x" in refusal(program, content[:-1])
    assert "not truncated" in refusal(program, content[:-1])


@pytest.mark.skipif(
    not Path("/proc/self/mem").exists(), reason="needs a file that is there but cannot be read"
)
def test_a_file_that_fails_when_it_is_read() -> None:
    with pytest.raises(ImageError) as caught:
        load_elf(Path("/proc/self/mem"))
    assert "Input/output error" in checked_line(caught.value, Path("/proc/self/mem"))


def test_a_file_that_shrinks_while_it_is_read(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = sane().build()
    program.write_bytes(content[:200])

    def open_as_it_was(path: Path, error: type[OperatorError]) -> tuple[BinaryIO, int]:
        return open_regular(path, error)[0], len(content)

    monkeypatch.setattr(elf_file, "open_regular", open_as_it_was)
    with pytest.raises(ImageError) as caught:
        load_elf(program)
    assert "cut off at offset 0xc8" in checked_line(caught.value, program)
    program.write_bytes(content[:70])
    with pytest.raises(ImageError) as caught:
        load_elf(program)
    assert "unreadable data at 0x34" in checked_line(caught.value, program)


# --- what is refused: the header ----------------------------------------------------------------


def ident(index: int, value: int) -> bytes:
    return IDENT[:index] + bytes([value]) + IDENT[index + 1 :]


@pytest.mark.parametrize(
    ("overrides", "found", "expected"),
    [
        ({"e_ident": b"\x7fELG" + IDENT[4:]}, "magic 7f 45 4c 47", "7f 45 4c 46"),
        ({"e_ident": b"#!/bin/sh\nexec\n\n"}, "magic 23 21 2f 62", "7f 45 4c 46"),
        ({"e_ident": ident(4, 2)}, "a 64-bit ELF file", "a 32-bit one"),
        ({"e_ident": ident(4, 0)}, "a damaged ELF header", "a static i386 ELF executable"),
        ({"e_ident": ident(5, 2)}, "a big-endian ELF file", "a little-endian one"),
        ({"e_ident": ident(5, 3)}, "a damaged ELF header", "a static i386 ELF executable"),
        ({"e_machine": 62}, "machine EM_X86_64", "EM_386"),
        ({"e_machine": 0xBEEF}, "machine 48879", "EM_386"),
        ({"e_type": 3}, "(ET_DYN)", "a static executable"),
        ({"e_type": 1}, "(ET_REL)", "a static executable"),
        ({"e_type": 4}, "(ET_CORE)", "a static executable"),
        ({"e_type": 0}, "a file without a type", "a static executable"),
        ({"e_type": 0x1234}, "ELF file type 4660", "a static executable"),
        ({"e_version": 2}, "ELF version 2", "version 1"),
        ({"e_phnum": 0}, "no program headers", "PT_LOAD"),
        ({"e_phnum": 257}, "257 program headers", "at most 256"),
        ({"e_phnum": 0xFFFF}, "65535 program headers", "at most 256"),
        ({"e_phentsize": 31}, "program headers of 31 bytes", "32 bytes"),
        ({"e_phentsize": 56}, "program headers of 56 bytes", "32 bytes"),
        ({"e_phoff": 0xFFFFFFF0}, "the program header table", "not truncated"),
        ({"e_entry": 0}, "entry point 0x0", "executable segment"),
        ({"e_entry": TEXT - 1}, "entry point 0x8047fff", "executable segment"),
        ({"e_entry": TEXT + 600}, "entry point 0x8048258", "executable segment"),
        ({"e_entry": DATA}, "entry point 0x804a000", "executable segment"),
        ({"e_entry": 0xFFFFFFFF}, "entry point 0xffffffff", "executable segment"),
    ],
)
def test_a_spoilt_header_is_refused_by_name(
    program: Path, overrides: dict[str, int | bytes], found: str, expected: str
) -> None:
    spoilt = sane()
    spoilt.overrides = overrides
    before, _, after = refusal(program, spoilt).partition(", expected ")
    assert found in before
    assert expected in after


def test_a_real_64_bit_file_is_named_as_such(program: Path) -> None:
    """Its header is longer and differently laid out; nothing of it may be believed."""
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, TEXT, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    assert refusal(program, header + bytes(56)) == "found a 64-bit ELF file, expected a 32-bit one (i386)"


# --- what is refused: the segments --------------------------------------------------------------


@pytest.mark.parametrize(
    ("builder", "found", "expected"),
    [
        (ElfBuilder().header(PT_NOTE), "no segment with any memory", "PT_LOAD"),
        (ElfBuilder().segment(TEXT, b"", flags=PF_X), "no segment with any memory", "PT_LOAD"),
        (sane().header(PT_INTERP, b"/lib/ld.so\0"), "dynamically linked program (PT_INTERP", "a static one"),
        (
            sane().header(PT_DYNAMIC, struct.pack("<4I", 18, 8, 0, 0)),
            "relocations (DT_RELSZ)",
            "a static one",
        ),
        (sane().header(PT_DYNAMIC, struct.pack("<2I", 8, 12)), "relocations (DT_RELASZ)", "a static one"),
        (sane().header(PT_DYNAMIC, struct.pack("<2I", 2, 8)), "relocations (DT_PLTRELSZ)", "a static one"),
        (sane().header(PT_DYNAMIC, struct.pack("<2I", 22, 0)), "relocations (DT_TEXTREL)", "a static one"),
        (sane().header(PT_DYNAMIC, struct.pack("<2I", 1, 0)), "a shared library (DT_NEEDED)", "a static one"),
        (sane().header(PT_DYNAMIC, p_offset=0x10000, p_filesz=8), "the dynamic section", "not truncated"),
        (sane().header(PT_DYNAMIC, bytes(8 * 4097)), "of 0x8008 bytes", "at most 4096 entries"),
        (code_at(TEXT, p_filesz=7), "0x7 bytes in the file for 0x6 in memory", "no more"),
        (code_at(TEXT, p_offset=0x1000), "segment 0 at file offset 0x1000 to 0x1006", "not truncated"),
        (code_at(TEXT, p_offset=0xFFFFFFFF), "segment 0 at file offset 0xffffffff", "not truncated"),
        (
            code_at(TEXT, p_filesz=0xA0000000, p_memsz=0xA0000000),
            "segment 0 at file offset 0x54 to 0xa0000054",
            "not truncated",
        ),
        (code_at(TEXT, p_memsz=0xF8000000), "of 0xf8000000 bytes", "an end below 4 GiB"),
        (code_at(TEXT, p_memsz=0xC0000000), "to 0xc8048000", "user addresses below 0xc0000000"),
        (code_at(0xC0000000), "segment 0 at 0xc0000000", "user addresses below 0xc0000000"),
        (code_at(0xEACFF000), "segment 0 at 0xeacff000", "user addresses below 0xc0000000"),
        (code_at(0xBFFFFFFF), "to 0xc0000005", "user addresses below 0xc0000000"),
        (code_at(0xFFFFFFFF), "segment 0 at 0xffffffff", "an end below 4 GiB"),
        (code_at(0), "segment 0 at 0x0", "at least 0x1000"),
        (code_at(0xFFF), "segment 0 at 0xfff", "at least 0x1000"),
        (code_at(TEXT, p_flags=0), "no access rights", "read, write, execute"),
        (sane().segment(TEXT + 4, b"x"), "segments 0 and 2 both at 0x8048004", "do not overlap"),
        (sane().segment(TEXT, b"x"), "segments 0 and 2 both at 0x8048000", "do not overlap"),
        (sane().segment(DATA - 1, b"xx"), "segments 2 and 1 both at 0x804a000", "do not overlap"),
        (sane().segment(TEXT + 600, b"x"), "segments 0 and 2 on one page 0x8048000", "pages of their own"),
        (sane().segment(DATA + 0x3000 - 1, b"", memory=0x2000), "segments 1 and 2 both at", "do not overlap"),
    ],
)
def test_a_spoilt_segment_is_refused_by_name(
    program: Path, builder: ElfBuilder, found: str, expected: str
) -> None:
    before, _, after = refusal(program, builder).partition(", expected ")
    assert found in before
    assert expected in after


def test_overlap_is_found_among_many_segments(program: Path) -> None:
    """A long segment that reaches over several others, which do not touch each other."""
    builder = code_at(TEXT)
    for index in range(20):
        builder.segment(0x10000000 + index * 0x10000, b"x")
    assert len(load(program, builder).segments) == 21
    assert "do not overlap" in refusal(program, builder.segment(0x0FFFF000, b"x", memory=0x100000))


def test_an_entry_in_zeros_is_refused(program: Path) -> None:
    bss = ElfBuilder(e_entry=TEXT + 0x100).segment(TEXT, CODE, memory=0x1000, flags=PF_X)
    assert "entry point 0x8048100" in refusal(program, bss)


def test_bytes_from_the_file_are_limited(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One range of the file, loaded under many addresses, must not multiply."""
    monkeypatch.setattr(elf, "MAX_FILE_BYTES", 1000)
    builder = code_at(TEXT)
    for index in range(100):
        builder.segment(0x10000000 + index * 0x1000, b"", memory=52, p_offset=0, p_filesz=52)
    assert "at most 0x3e8" in refusal(program, builder)


# --- symbols ------------------------------------------------------------------------------------


def symbols_of(path: Path, builder: ElfBuilder) -> elf.SymbolTable:
    path.write_bytes(builder.build())
    return load_symbols(path)


def test_a_function_is_named_up_to_its_end(program: Path) -> None:
    table = symbols_of(program, sane().symbol("main", TEXT + 0x10, 0x20).symbol("next", TEXT + 0x40, 4))
    assert table.name_at(TEXT + 0x0F) is None
    assert table.name_at(TEXT + 0x10) == "main"
    assert table.name_at(TEXT + 0x22) == "main+0x12"
    assert table.name_at(TEXT + 0x2F) == "main+0x1f"
    assert table.name_at(TEXT + 0x30) is None
    assert table.name_at(TEXT + 0x40) == "next"
    assert table.name_at(0xFFFFFFFF) is None


def test_an_assembler_label_reaches_to_the_next_symbol_or_the_end_of_its_section(program: Path) -> None:
    table = symbols_of(
        program, sane().symbol("_start", TEXT, 0, STT_NOTYPE).symbol("last", TEXT + 0x80, 0, STT_NOTYPE)
    )
    assert table.name_at(TEXT + 0x7F) == "_start+0x7f"
    assert table.name_at(TEXT + 599) == "last+0x1d7"
    assert table.name_at(TEXT + 600) is None


def test_objects_have_names_and_a_linker_scripts_marks_have_not(program: Path) -> None:
    table = symbols_of(
        program,
        sane()
        .symbol("buffer", DATA, 16, STT_OBJECT, section=2)
        .symbol("_edata", DATA + 16, 0, STT_NOTYPE, section=2)
        .symbol("syscall", 0xEACFF000, 0, STT_NOTYPE, section=SHN_ABS)
        .symbol("file.c", 0, 0, STT_FILE, section=SHN_ABS)
        .symbol("errno", 8, 4, STT_TLS, section=2)
        .symbol("extern", 0, 0, section=0)
        .symbol("", TEXT, 4),
    )
    assert [symbol.name for symbol in table.symbols] == ["buffer"]
    assert table.name_at(DATA + 3) == "buffer+0x3"


def test_of_several_names_the_most_telling_stays(program: Path) -> None:
    table = symbols_of(
        program,
        sane()
        .symbol("label", TEXT, 0, STT_NOTYPE)
        .symbol("b_weak", TEXT, 8, binding=STB_WEAK)
        .symbol("a_local", TEXT, 8, binding=STB_LOCAL)
        .symbol("y_global", TEXT, 8)
        .symbol("x_global", TEXT, 8),
    )
    assert [symbol.name for symbol in table.symbols] == ["x_global"]


def test_addresses_by_name(program: Path) -> None:
    table = symbols_of(
        program,
        sane()
        .symbol("main", TEXT + 8, 8)
        .symbol("twice", TEXT + 0x40, 8, binding=STB_LOCAL)
        .symbol("twice", TEXT + 0x20, 8, binding=STB_LOCAL),
    )
    assert table.address_of("main") == TEXT + 8
    assert table.address_of("twice") == TEXT + 0x20
    assert table.address_of("absent") is None


def test_a_stripped_program_has_no_names(program: Path) -> None:
    table = symbols_of(program, sane())
    assert len(table) == 0
    assert table.name_at(TEXT) is None


@pytest.mark.parametrize(
    ("number", "overrides", "found"),
    [
        (3, {"sh_entsize": 0}, "symbols of 0 bytes"),
        (3, {"sh_size": 0xFFFFFFF0}, "268435455 symbols"),
        (3, {"sh_size": 0x10000}, "the symbol table at"),
        (3, {"sh_link": 0xFFFF}, "symbol names in section 65535"),
        (3, {"sh_link": 1}, "symbol names in section 1"),
        (4, {"sh_size": 0xFFFFFFFF}, "the symbol names at"),
    ],
)
def test_damaged_symbols_are_refused_but_the_program_loads(
    program: Path, number: int, overrides: dict[str, int], found: str
) -> None:
    program.write_bytes(sane().symbol("main", TEXT, 8).section(number, **overrides).build())
    assert len(load_elf(program).segments) == 2
    with pytest.raises(ImageError) as caught:
        load_symbols(program)
    assert found in checked_line(caught.value, program)


def test_a_name_without_an_end_is_cut_off(program: Path) -> None:
    table = symbols_of(program, sane().symbol("f" * 5000, TEXT, 8))
    assert 100 < len(table.symbols[0].name) <= 1024


# --- mutations ----------------------------------------------------------------------------------

MUTANTS = 3000
INTERESTING = (0, 1, 2, 3, 0x1F, 0x20, 0x7F, 0x80, 0xFF, 0xFFF, 0x1000, 0x7FFFFFFF, 0x80000000)
INTERESTING_HIGH = (0xBFFFFFFF, 0xC0000000, 0xEACFF000, 0xFFFFF000, 0xFFFFFFFE, 0xFFFFFFFF)


def field_offsets(content: bytes) -> list[tuple[int, int]]:
    """(offset, size) of every field of the ELF header, the program headers and the section headers."""
    fields, offset = [], 0
    for _, code in HEADER_FIELDS:
        fields.append((offset, struct.calcsize("<" + code)))
        offset += fields[-1][1]
    count, sections = struct.unpack_from("<H", content, 44)[0], struct.unpack_from("<I", content, 32)[0]
    fields += [(HEADER_BYTES + 4 * index, 4) for index in range(count * PROGRAM_HEADER_BYTES // 4)]
    if sections:
        fields += [(at, 4) for at in range(sections, len(content), 4)]
    return fields


def mutate(random_: random.Random, content: bytes) -> bytes:
    """One to four spoilt places: bits, bytes, header fields, cuts, repetitions, splices."""
    spoilt = bytearray(content)
    fields = field_offsets(content)
    for _ in range(random_.randint(1, 4)):
        if len(spoilt) < 2:
            break
        at, other = random_.randrange(len(spoilt)), random_.randrange(len(spoilt))
        match random_.randrange(8):
            case 0:
                spoilt[at] ^= 1 << random_.randrange(8)
            case 1:
                spoilt[at] = random_.randrange(256)
            case 2 | 3 | 4:
                offset, size = random_.choice(fields)
                value = random_.choice(
                    (*INTERESTING, *INTERESTING_HIGH, random_.getrandbits(32), len(spoilt))
                )
                spoilt[offset : offset + size] = value.to_bytes(16, "little")[:size]
            case 5:
                del spoilt[at:]
            case 6:
                del spoilt[min(at, other) : max(at, other)]
            case _:
                spoilt[at:at] = spoilt[other : other + random_.randint(1, 200)]
    return bytes(spoilt)


def check_image(image: ElfImage, file_bytes: int) -> None:
    """Everything that whoever loads the image relies on."""
    assert image.segments
    last_page = 0
    for segment in image.segments:
        assert segment.memory_bytes > 0
        assert len(segment.data) <= segment.memory_bytes
        assert len(segment.data) <= file_bytes
        assert 0x1000 <= segment.address < segment.end <= 0xC0000000
        assert segment.rights in (4, 5, 6, 7)
        assert segment.address >> 12 > last_page
        last_page = segment.end - 1 >> 12
    home = [s for s in image.segments if s.address <= image.entry < s.address + len(s.data)]
    assert len(home) == 1
    assert home[0].rights & RIGHT_X


def originals() -> list[bytes]:
    dynamic = struct.pack("<6I", 18, 0, 5, TEXT, 0, 0)
    full = sane().header(PT_DYNAMIC, dynamic).header(PT_NOTE, b"note" * 5).header(PT_LOAD)
    full.symbol("_start", TEXT, 0, STT_NOTYPE).symbol("main", TEXT + 0x20, 0x40)
    full.symbol("buffer", DATA, 16, STT_OBJECT, section=2).symbol("static", TEXT + 0x80, 4, binding=STB_LOCAL)
    many = code_at(TEXT)
    for index in range(8):
        many.segment(0x10000000 + index * 0x1000, b"x" * index, memory=0x1000, flags=PF_R | PF_W)
    return [sane().build(), full.build(), many.build()]


def test_the_originals_of_the_mutants_load(program: Path) -> None:
    for content in originals():
        check_image(load(program, content), len(content))


def try_mutants(path: Path, sources: list[bytes], mutants: int, seed: str) -> tuple[int, int, int, int]:
    """How many loaded, were refused, had names, were refused names; anything else fails."""
    random_ = random.Random(seed)
    loaded = refused = named = unnamed = 0
    for index in range(mutants):
        content = mutate(random_, sources[index % len(sources)])
        path.write_bytes(content)
        try:
            check_image(load_elf(path), len(content))
            loaded += 1
        except ImageError as error:
            checked_line(error, path)
            refused += 1
        try:
            table = load_symbols(path)
            for address in (0, TEXT, TEXT + 0x30, DATA + 3, 0xFFFFFFFF):
                table.name_at(address)
            named += bool(table)
        except ImageError as error:
            checked_line(error, path)
            unnamed += 1
    return loaded, refused, named, unnamed


@pytest.mark.slow
def test_mutated_files_load_soundly_or_are_refused_in_one_line(program: Path) -> None:
    """Both outcomes must be common, or the mutations are no good."""
    assert min(try_mutants(program, originals(), MUTANTS, "elf mutants")) > MUTANTS // 20


@needs_programs
def test_mutated_bundled_programs_too(program: Path) -> None:
    """What a real linker writes: more sections, more symbols, headers in other places."""
    sources = [(BUNDLED_PROGRAMS / name).read_bytes() for name in bundled_names(BUNDLED_PROGRAMS)[:3]]
    assert min(try_mutants(program, sources, 150, "bundled mutants")) > 10


# --- nothing has its offset anywhere -------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 0x7F, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("flags", [PF_R | PF_W, PF_R])
def test_a_segment_of_zeros_may_have_its_offset_behind_the_file(
    program: Path, offset: int, flags: int
) -> None:
    """Linkers write there where the bytes would have been; also first among the segments."""
    builder = ElfBuilder().segment(0x8000000, b"", flags=flags, memory=0x3000, p_offset=offset)
    zeros, text = load(program, builder.segment(TEXT, CODE, flags=PF_R | PF_X)).segments
    assert (zeros.address, zeros.memory_bytes, zeros.data) == (0x8000000, 0x3000, b"")
    assert text.data == CODE


def test_a_dynamic_section_without_bytes_may_lie_anywhere(program: Path) -> None:
    assert len(load(program, sane().header(PT_DYNAMIC, p_offset=0x10000, p_filesz=0)).segments) == 2
