"""The instruction decoder: lengths as the engine and another disassembler have them, classes, properties."""

from __future__ import annotations

import ctypes
import dataclasses
import random
from array import array
from collections.abc import Iterator

import capstone
import pytest
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from l4lab.emulator.costs import CostTable
from l4lab.emulator.vcpu import _names, _shim, shim_path
from l4lab.kernel.frame import EAX, EBP, EBX, ECX, EDI, EFLAGS, EIP, ESI, ESP
from l4lab.kernel.traps import CpuException
from support.guest import CODE, LARGE, READ_WRITE, Guest

# Flags of decode.h.
ES, CS, SS, DS, FS, GS = (1 << i for i in range(6))
REPEAT, ADDRESS16, LOADS_SEGMENT, REFUSED, READ_WRITES = (1 << i for i in range(6, 11))
ENDS_BLOCK, SOFTWARE_INT, PUSHES_FLAGS, POPS_FLAGS = (1 << i for i in range(11, 15))
LOADS_SS, PAUSE, TRUNCATED = (1 << i for i in range(15, 18))


class Insn(ctypes.Structure):
    """`struct insn` of decode.h."""

    _fields_ = [
        ("length", ctypes.c_uint8),
        ("cost_class", ctypes.c_uint8),
        ("loads", ctypes.c_uint8),
        ("stores", ctypes.c_uint8),
        ("locked", ctypes.c_uint8),
        ("refusal", ctypes.c_uint8),
        ("int_vector", ctypes.c_uint8),
        ("operand_bytes", ctypes.c_uint8),
        ("temporaries", ctypes.c_uint8),
        ("ours", ctypes.c_uint8),
        ("writes", ctypes.c_uint8),
        ("flags", ctypes.c_uint32),
        ("requires", ctypes.c_uint32),
    ]


CLASSES = _names(_shim().vcpu_cost_names)
_decode = _shim().decode_insn
_decode.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(Insn)]
_decode.restype = None
_disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)


def decode(code: bytes | str) -> Insn:
    data = bytes.fromhex(code) if isinstance(code, str) else code
    insn = Insn()
    _decode(data, len(data), insn)
    return insn


def disassemble(code: bytes) -> capstone.CsInsn | None:
    return next(_disassembler.disasm(code, 0, 1), None)


# --- lengths: another disassembler ------------------------------------------------------------------

# Mnemonics of what a K10 does not have, is #UD there, or belongs to another vendor: the length of what
# does not execute does not matter.
ELSEWHERE = (
    *("v", "k", "xsave", "xrstor", "montmul", "xsha", "xstore", "xcrypt", "ud1", "ud0", "sha", "andn"),
    *("rdrand", "rdseed", "bnd", "enclv", "getsec", "ptwrite", "clrssbsy", "setssbsy", "rstorssp"),
    *("incssp", "saveprevssp", "rdssp", "wrss", "wruss", "movdir", "enqcmd", "xsusldtrk", "xresldtrk"),
    *("tpause", "umonitor", "umwait", "rdpid", "invpcid", "cldemote", "gf2p8", "crc32", "movbe", "bextr"),
    *("blc", "bls", "t1mskc", "tzmsk", "llwpcb", "slwpcb", "lwp", "extrq", "insertq", "monitor", "mwait"),
)


def is_of_a_k10(insn: capstone.CsInsn) -> bool:
    return not insn.mnemonic.split()[-1].startswith(ELSEWHERE) and not insn.mnemonic.startswith(ELSEWHERE)


def check_length(code: bytes) -> bool:
    """Whether there was something to compare."""
    expected = disassemble(code)
    if expected is None or not is_of_a_k10(expected):
        return False
    assert decode(code).length == expected.size, f"{code.hex()} {expected.mnemonic} {expected.op_str}"
    return True


def opcodes() -> Iterator[bytes]:
    for first in range(256):
        yield bytes([first])
        yield bytes([0x0F, first])
    for third in range(256):
        yield bytes([0x0F, 0x38, third])
        yield bytes([0x0F, 0x3A, third])


@pytest.mark.parametrize("prefix", ["", "66", "67", "f2", "f3", "2e", "6667", "f366"])
def test_lengths_of_every_opcode_with_every_addressing_form(prefix: str) -> None:
    r = random.Random(prefix)
    compared = 0
    for opcode in opcodes():
        for modrm in range(0, 256, 1 if len(prefix) < 2 else 5):
            tail = bytes([modrm]) + r.randbytes(12)
            compared += check_length(bytes.fromhex(prefix) + opcode + tail)
    assert compared > (60_000 if not prefix else 10_000)


@given(st.binary(min_size=16, max_size=16))
@settings(max_examples=500)
def test_lengths_of_random_bytes(code: bytes) -> None:
    check_length(code)


def code_of_the_user_programs() -> Iterator[bytes]:
    """The executable sections of every program that is built, without what follows a section's end."""
    for path in sorted((shim_path().parent / "programs").iterdir()):
        with path.open("rb") as file:
            for section in ELFFile(file).iter_sections():
                if section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR:
                    yield section.data()


def test_lengths_in_the_user_programs() -> None:
    """Real 32-bit code, in a linear sweep."""
    compared = 0
    for code in code_of_the_user_programs():
        at = 0
        while at + 16 < len(code):
            compared += check_length(code[at : at + 16])
            at += decode(code[at : at + 16]).length
    assert compared > 5_000


@given(st.binary(min_size=1, max_size=20), st.integers(1, 20))
def test_any_bytes_give_a_length_within_what_was_given(code: bytes, available: int) -> None:
    given_bytes = code[:available]
    insn = decode(given_bytes)
    assert 1 <= insn.length <= min(15, len(given_bytes))
    longer = decode(given_bytes + bytes(20))
    if not insn.flags & TRUNCATED:
        assert bytes(insn) == bytes(longer)  # what follows an instruction does not matter


def test_more_than_15_bytes_are_no_instruction() -> None:
    assert (decode("66" * 14 + "90").length, decode("66" * 14 + "90").flags & TRUNCATED) == (15, 0)
    assert decode("66" * 15 + "90").flags & TRUNCATED
    assert decode("66" * 14 + "0f90").flags & TRUNCATED
    assert decode("64" * 4 + "c7848800000000" + "00000000").length == 15
    assert decode("64" * 5 + "c7848800000000" + "00000000").flags & TRUNCATED


# --- lengths: the engine ----------------------------------------------------------------------------


class Stepper:
    """Executes single instructions; every address but the code page leads to the same 4 MiB of memory."""

    def __init__(self) -> None:
        self.guest = Guest()
        for index in range(1024):
            if index != CODE >> 22:
                entry = self.guest.space.directory * 1024 + index
                self.guest.ram.words[entry] = 0x0040_0000 | READ_WRITE | LARGE
        self.frame = self.guest.thread()
        self.start = array("I", self.frame)

    def length(self, code: bytes) -> int | None:
        """How far EIP moved; None if the instruction did not complete."""
        frame = self.frame
        frame[:] = self.start
        frame[EFLAGS], frame[EIP] = 0x302, CODE
        frame[EAX], frame[ECX], frame[EBX] = 0x10000, 3, 0x50_0000
        frame[ESP], frame[EBP], frame[ESI], frame[EDI] = 0x60_0800, 0x60_0C00, 0x70_0000, 0x80_0000
        self.guest.put(self.guest.code_pfn, code)
        trap = self.guest.run(frame)
        return frame[EIP] - CODE & 0xFFFF_FFFF if trap == CpuException(1, 0) else None


def test_lengths_are_those_of_the_engine() -> None:
    """Every opcode under every prefix that can be part of one, with some addressing forms."""
    stepper, r = Stepper(), random.Random(7)
    executed = 0
    for prefix in ("", "66", "67", "f2", "f3", "f0", "66f3", "66f2", "f2f3"):
        for opcode in opcodes():
            if len(opcode) == 3 and opcode[2] % 8:
                continue
            for modrm in (r.randrange(0x40), r.randrange(0x40, 0xC0), r.randrange(0xC0, 0x100)):
                code = bytes.fromhex(prefix) + opcode + bytes([modrm]) + r.randbytes(10)
                insn = decode(code)
                if insn.flags & (ENDS_BLOCK | LOADS_SS | REPEAT):  # EIP goes elsewhere, or does not move yet
                    continue
                length = stepper.length(code)
                if length is not None:
                    assert length == insn.length, code.hex()
                    executed += 1
    assert executed > 4000


# --- classes and properties -------------------------------------------------------------------------

# Code, class, loads, stores, flags (of those that are compared), locked.
INSTRUCTIONS = [
    ("90", "alu", 0, 0, 0, 0),
    ("f390", "alu", 0, 0, PAUSE | ENDS_BLOCK, 0),
    ("f2f390", "alu", 0, 0, PAUSE | ENDS_BLOCK, 0),
    ("01c8", "alu", 0, 0, 0, 0),
    ("0103", "alu", 1, 1, DS | READ_WRITES, 0),
    ("0303", "alu", 1, 0, DS, 0),
    ("3903", "alu", 1, 0, DS, 0),
    ("803b05", "alu", 1, 0, DS, 0),
    ("800305", "alu", 1, 1, DS | READ_WRITES, 0),
    ("f00103", "alu", 1, 1, DS | READ_WRITES, 1),
    ("f00fb10b", "alu", 1, 1, DS | READ_WRITES, 1),
    ("f00fba2b05", "alu", 1, 1, DS | READ_WRITES, 1),
    ("f0f71b", "alu", 1, 1, DS | READ_WRITES, 1),
    ("f0ff03", "alu", 1, 1, DS | READ_WRITES, 1),
    ("f00fc70b", "alu", 1, 1, DS | READ_WRITES, 1),
    ("8703", "alu", 1, 1, DS | READ_WRITES, 1),
    ("8d03", "alu", 0, 0, 0, 0),
    ("8b4500", "alu", 1, 0, SS, 0),
    ("8b0424", "alu", 1, 0, SS, 0),
    ("8b042b", "alu", 1, 0, DS, 0),
    ("8b042d00000000", "alu", 1, 0, DS, 0),
    ("8b442d00", "alu", 1, 0, SS, 0),
    ("678b02", "alu", 1, 0, SS | ADDRESS16, 0),
    ("678b07", "alu", 1, 0, DS | ADDRESS16, 0),
    ("648b4500", "alu", 1, 0, FS, 0),
    ("64a100000000", "alu", 1, 0, FS, 0),
    ("a200000000", "alu", 0, 1, DS, 0),
    ("65d7", "alu", 1, 0, GS, 0),
    ("2e8b03", "alu", 1, 0, CS, 0),
    ("50", "alu", 0, 1, 0, 0),
    ("58", "alu", 1, 0, 0, 0),
    ("ff33", "alu", 1, 1, DS, 0),
    ("8f03", "alu", 1, 1, DS, 0),
    ("60", "alu", 0, 8, 0, 0),
    ("61", "alu", 8, 0, 0, 0),
    ("9c", "alu", 0, 1, PUSHES_FLAGS, 0),
    ("9d", "alu", 1, 0, POPS_FLAGS, 0),
    ("f7d8", "alu", 0, 0, 0, 0),
    ("f703" + "00000000", "alu", 1, 0, DS, 0),
    ("f71b", "alu", 1, 1, DS | READ_WRITES, 0),
    ("f723", "mul", 1, 0, DS, 0),
    ("f73b", "div", 1, 0, DS, 0),
    ("0fafc3", "mul", 0, 0, 0, 0),
    ("6bc305", "mul", 0, 0, 0, 0),
    ("d40a", "div", 0, 0, 0, 0),
    ("eb00", "branch", 0, 0, ENDS_BLOCK, 0),
    ("0f8400000000", "branch", 0, 0, ENDS_BLOCK, 0),
    ("e2fe", "branch", 0, 0, ENDS_BLOCK, 0),
    ("ffe0", "branch", 0, 0, ENDS_BLOCK, 0),
    ("ff23", "branch", 1, 0, DS | ENDS_BLOCK, 0),
    ("e800000000", "call", 0, 1, ENDS_BLOCK, 0),
    ("ff13", "call", 1, 1, DS | ENDS_BLOCK, 0),
    ("c3", "call", 1, 0, ENDS_BLOCK, 0),
    ("c20800", "call", 1, 0, ENDS_BLOCK, 0),
    ("a4", "string", 1, 1, ES | DS, 0),
    ("f364a5", "string", 1, 1, ES | FS | REPEAT | ENDS_BLOCK, 0),
    ("f3aa", "string", 0, 1, ES | REPEAT | ENDS_BLOCK, 0),
    ("f2ae", "string", 1, 0, ES | REPEAT | ENDS_BLOCK, 0),
    ("67f3ad", "string", 1, 0, DS | ADDRESS16 | REPEAT | ENDS_BLOCK, 0),
    ("a6", "string", 2, 0, ES | DS, 0),
    ("d9e8", "x87", 0, 0, 0, 0),
    ("d903", "x87", 1, 0, DS, 0),
    ("dd1b", "x87", 0, 1, DS, 0),
    ("def9", "x87_slow", 0, 0, 0, 0),
    ("d833", "x87_slow", 1, 0, DS, 0),
    ("d9fe", "x87_slow", 0, 0, 0, 0),
    ("dd33", "x87_slow", 0, 1, DS, 0),
    ("dd23", "x87_slow", 1, 0, DS, 0),
    ("0f58c1", "sse", 0, 0, 0, 0),
    ("0f2803", "sse", 1, 0, DS, 0),
    ("0f2903", "sse", 0, 1, DS, 0),
    ("f30f7e03", "sse", 1, 0, DS, 0),
    ("660f7e03", "sse", 0, 1, DS, 0),
    ("0f5e03", "sse_slow", 1, 0, DS, 0),
    ("f20f51c1", "sse_slow", 0, 0, 0, 0),
    ("0fae03", "x87_slow", 0, 1, DS, 0),
    ("0faef0", "serial", 0, 0, 0, 0),
    ("8ee0", "segment", 0, 0, LOADS_SEGMENT, 0),
    ("8ed0", "segment", 0, 0, LOADS_SEGMENT | LOADS_SS, 0),
    ("17", "segment", 1, 0, LOADS_SEGMENT | LOADS_SS, 0),
    ("0fa1", "segment", 1, 0, LOADS_SEGMENT, 0),
    ("0fb403", "segment", 1, 0, DS | LOADS_SEGMENT, 0),
    ("8ce0", "alu", 0, 0, 0, 0),
    ("0fa0", "alu", 0, 1, 0, 0),
    ("cf", "segment", 3, 0, LOADS_SEGMENT | POPS_FLAGS | ENDS_BLOCK, 0),
    ("0fa2", "serial", 0, 0, 0, 0),
    ("0f31", "serial", 0, 0, 0, 0),
    ("cd30", "trap", 0, 0, SOFTWARE_INT | ENDS_BLOCK, 0),
    ("cc", "trap", 0, 0, SOFTWARE_INT | ENDS_BLOCK, 0),
    ("ce", "trap", 0, 0, SOFTWARE_INT, 0),  # the engine goes on behind it
    ("ec", "alu", 0, 0, REFUSED, 0),
    ("0f34", "serial", 0, 0, REFUSED | ENDS_BLOCK, 0),
    ("0fc70b", "alu", 1, 1, DS | READ_WRITES, 0),
    ("0fba2305", "alu", 1, 0, DS, 0),
    ("0fba2b05", "alu", 1, 1, DS | READ_WRITES, 0),
    ("0fab03", "alu", 1, 1, DS | READ_WRITES, 0),
    ("0fa303", "alu", 1, 0, DS, 0),
]


@pytest.mark.parametrize(
    ("code", "cost_class", "loads", "stores", "flags", "locked"),
    INSTRUCTIONS,
    ids=[i[0] for i in INSTRUCTIONS],
)
def test_class_accesses_and_properties(
    code: str, cost_class: str, loads: int, stores: int, flags: int, locked: int
) -> None:
    insn = decode(code)
    assert insn.length == len(code) // 2
    assert CLASSES[insn.cost_class] == cost_class
    assert (insn.loads, insn.stores, insn.locked) == (loads, stores, locked)
    assert insn.flags == flags


def test_vectors_of_software_interrupts() -> None:
    assert [decode(code).int_vector for code in ("cd30", "cdff", "cc", "ce")] == [0x30, 0xFF, 3, 4]


def test_the_cost_table_has_each_class_and_nothing_else() -> None:
    assert [field.name for field in dataclasses.fields(CostTable)] == CLASSES


def test_memory_operands_are_where_another_disassembler_sees_them() -> None:
    """Over random instructions: the segment of a ModRM operand."""
    _disassembler.detail = True
    registers = {
        capstone.x86.X86_REG_ES: ES,
        capstone.x86.X86_REG_CS: CS,
        capstone.x86.X86_REG_SS: SS,
        capstone.x86.X86_REG_DS: DS,
        capstone.x86.X86_REG_FS: FS,
        capstone.x86.X86_REG_GS: GS,
    }
    stack_bases = (capstone.x86.X86_REG_EBP, capstone.x86.X86_REG_ESP, capstone.x86.X86_REG_BP)
    r = random.Random(3)
    compared = 0
    for _ in range(20_000):
        prefix = r.choice((b"", b"", b"\x64", b"\x65", b"\x3e", b"\x36", b"\x67"))
        code = prefix + bytes([0x8B, r.randrange(0xC0)]) + r.randbytes(8)
        insn = disassemble(code)
        assert insn is not None
        memory = insn.operands[1].mem
        default = SS if memory.base in stack_bases else DS
        expected = registers[memory.segment] if memory.segment else default
        assert decode(code).flags & 0x3F == expected, f"{code.hex()} {insn.op_str}"
        compared += 1
    _disassembler.detail = False
    assert compared == 20_000


# --- hazards ----------------------------------------------------------------------------------------

_hazardous = _shim().decode_is_hazardous
_hazardous.argtypes = [ctypes.c_char_p]
_hazardous.restype = ctypes.c_int


def hazardous(code: bytes | str, offset: int = 100) -> bool:
    data = bytes.fromhex(code) if isinstance(code, str) else code
    return bool(_hazardous((bytes([0xC3]) * offset + data).ljust(4096, b"\xc3")[:4096]))


@pytest.mark.parametrize("op", ["0fa3", "0fab", "0fb3", "0fbb", "0fba"])
@pytest.mark.parametrize("prefix", ["f0", "66f0", "f066", "f06466", "f0f0", "f3f0"])
def test_locked_bit_tests_of_a_register_are_hazardous(op: str, prefix: str) -> None:
    assert hazardous(prefix + op + "e8" + "05")
    insn = decode(prefix + op + "e8" + "05")
    assert (insn.flags & REFUSED, insn.refusal) == (REFUSED, 2)
    assert not hazardous(prefix + op + "28" + "05")
    assert not hazardous(op + "e8" + "05")


def test_a_locked_bit_test_across_two_pages_makes_one_of_them_hazardous() -> None:
    """Wherever the page ends; a byte like a lock prefix at the end alone is no reason: -16 ends in one too."""
    for insn in ("f00fabe8", "f0660fbae805", "66f00fa3e8"):
        code = bytes.fromhex(insn)
        for split in range(1, len(code)):
            head, tail = code[split:], code[:split]
            assert hazardous(tail, 4096 - split) or hazardous(head, 0) or b"\xf0" not in tail
    for tail in ("f0", "f066", "f001", "f00fb1", "f00fc1"):
        assert not hazardous(tail, 4096 - len(tail) // 2)


@pytest.mark.parametrize(
    ("insn", "most"), [("d9e8", 220), ("d903", 220), ("d40a", 440), ("ce", 440), ("660f70c005", 440)]
)
def test_long_straight_code_that_takes_temporaries_is_hazardous(insn: str, most: int) -> None:
    code = bytes.fromhex(insn)
    assert not hazardous(code * most)
    assert hazardous(code * (most + 1))
    assert not hazardous((code * (most // 2) + b"\xeb\x00") * 2)
    assert hazardous(b"\xb8" + code * (most + 5))  # wherever decoding starts
    # Code that goes on to the next page, or comes from the one before, may have only half of it.
    across = 4096 - len(code) * (most // 2 + 1)
    assert hazardous(code * (most // 2 + 1), across)
    assert not hazardous(code * (most // 2), 4096 - len(code) * (most // 2))
    assert hazardous(code * (most // 2 + 1), 0)


def test_the_user_programs_are_not_hazardous() -> None:
    for code in code_of_the_user_programs():
        for at in range(0, len(code), 4096):
            assert not _hazardous(code[at : at + 4096].ljust(4096, b"\0"))
