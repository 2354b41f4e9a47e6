"""Limits of segments that threads have descriptors of their own for, which the engine does not check.

Intel SDM vol. 3, 5.3 (limit checking: what lies in a segment, expand-down ones too), 3.4.5 (descriptors), 5.4 (data
that may not be written), 6.15 (#SS of the stack segment, #GP of others); vol. 2 for what an instruction accesses.
"""

from __future__ import annotations

from array import array
from dataclasses import replace

import pytest

from l4lab.emulator.costs import CostTable
from l4lab.emulator.cpuid import OPTERON_6174
from l4lab.emulator.vcpu import Engine, Vcpu
from l4lab.kernel import traps
from l4lab.kernel.frame import DS, EAX, EBX, ECX, ES, ESP, FPU_AREA, GDT_ENTRIES, GS, SS
from l4lab.kernel.traps import CpuException, PageFault
from support.guest import (
    CODE,
    DATA,
    STACK_TOP,
    SYSTEM_CALL,
    UNMAPPED,
    Guest,
    as_bytes,
    cycles,
    instructions,
    set_registers,
    word,
)

GP, STACK_FAULT = CpuException(13, 0), CpuException(12, 0)
OWN = 0x4B
"""Selector of the thread's first entry."""
LIMIT = 0xE7F
"""Of the segments here, which begin at DATA: their last offset."""


def descriptor(
    limit: int,
    *,
    pages: bool = False,
    down: bool = False,
    writable: bool = True,
    big: bool = True,
    base: int = DATA,
) -> tuple[int, int]:
    """Data for user mode; `limit` as the descriptor has it."""
    kind = 0xF0 | down << 2 | writable << 1
    high = base & 0xFF00_0000 | pages << 23 | big << 22 | limit & 0xF_0000 | kind << 8 | base >> 16 & 0xFF
    return base << 16 & 0xFFFF_0000 | limit & 0xFFFF, high


def run(
    code: str, entry: tuple[int, int], segments: tuple[int, ...] = (GS,), **registers: int
) -> tuple[object, array[int]]:
    guest = Guest()
    guest.put(guest.code_pfn, as_bytes(code))
    frame = guest.thread()
    frame[GDT_ENTRIES], frame[GDT_ENTRIES + 1] = entry
    for segment in segments:
        frame[segment] = OWN
    set_registers(frame, **registers)
    return guest.run(frame), frame


# An instruction with its operand at GS:EBX, less the prefix of that; the operand's bytes.
OPERANDS = [
    ("8a03", 1),
    ("8903", 4),
    ("668903", 2),
    ("0003", 1),
    ("f00103", 4),
    ("80 3b 00", 1),
    ("81 03 01000000", 4),
    ("62 03", 8),
    ("8c 1b", 2),
    ("c6 03 01", 1),
    ("66 c7 03 0100", 2),
    ("d0 03", 1),
    ("d1 03", 4),
    ("f6 03 01", 1),
    ("f7 1b", 4),
    ("fe 03", 1),
    ("ff 03", 4),
    ("ff 33", 4),
    ("8f 03", 4),
    ("69 03 01000000", 4),
    ("0fb6 03", 1),
    ("0fb7 03", 2),
    ("0f44 03", 4),
    ("0f94 03", 1),
    ("0fba 2b 1f", 4),
    ("0fb1 0b", 4),
    ("0fc7 0b", 8),
    ("0fc3 03", 4),
    ("0fae 3b", 1),
    ("0fae 1b", 4),
    ("d903", 4),
    ("d95b00", 4),
    ("dd03", 8),
    ("df03", 2),
    ("db2b", 10),
    ("df2b", 8),
    ("df23", 10),
    ("df33", 10),
    ("df3b", 8),
    ("d93b", 2),
    ("d933", 28),
    ("66d933", 14),
    ("dd33", 108),
    ("66dd33", 94),
    ("dd3b", 2),
    ("0f6f03", 8),
    ("0f6e03", 4),
    ("0f6003", 4),
    ("0ffc03", 8),
    ("660ffc03", 16),
    ("0f1003", 16),
    ("f30f1003", 4),
    ("f20f1003", 8),
    ("0f2803", 16),
    ("0f5803", 16),
    ("f30f5803", 4),
    ("f20f5a03", 8),
    ("0f5a03", 8),
    ("f30fe603", 8),
    ("660f2e03", 8),
    ("660f7e03", 4),
    ("f30f7e03", 8),
    ("0f1303", 8),
    ("0f2a03", 8),
    ("f20f2a03", 4),
    ("0fc40301", 2),
    ("0fae03", 512),
]


@pytest.mark.parametrize(("code", "size"), OPERANDS)
def test_the_last_bytes_of_a_segment(code: str, size: int) -> None:
    """SDM vol. 3, 5.3: all bytes of an operand must lie within the limit. Aligned, where that is asked for."""
    inside = LIMIT + 1 - size
    code = f"65{code}".replace(" ", "")
    trap, frame = run(code + "cd30", descriptor(LIMIT), ebx=inside, esp=STACK_TOP - 16)
    assert trap is traps.SYSTEM_CALL, "within"
    trap, frame = run(code + "cd30", descriptor(LIMIT - 1), ebx=inside, esp=STACK_TOP - 16)
    assert trap == GP, "one byte of it is beyond"
    assert instructions(frame) == 0


@pytest.mark.parametrize("code", ["658a03", "658903", "650fae03", "65db3b", "65660f6f03"])
def test_beyond_and_at_the_end_of_all(code: str) -> None:
    for offset in (LIMIT + 1, 0x8000_0000, 0xFFFF_FFFF):
        assert run(code + "cd30", descriptor(LIMIT), ebx=offset)[0] == GP


def test_addresses_are_formed_as_the_instruction_does() -> None:
    """SIB, displacement and 16 bits; operands at an absolute address; xlat; a bit far away (SDM vol. 2, 2.1.5, BT)."""
    entry = descriptor(0xFFF)
    for code, allowed in (
        ("658b448b08", True),  # gs:[ebx + 4 ecx + 8]
        ("658b448b09", False),
        ("67658b07", True),  # gs:[bx]
        ("65a1fc0f0000", True),
        ("65a1fd0f0000", False),
        ("65a0ff0f0000", True),
        ("6765a1fc0f", True),
        ("65d7", True),
        ("04ff 65d7", False),
        ("b8ff070000 650fa305 000f0000", True),  # bit 0x7ff: 0xfc bytes behind
        ("b800080000 650fa305 000f0000", False),
        ("b860ffffff 650fa305 10100000", True),  # bit -160: 20 bytes before
        ("b880ffffff 650fa305 10100000", False),
        ("b8f0000000 66650fa305 de0f0000", True),  # word 15
        ("b8f0000000 66650fa305 e10f0000", False),
    ):
        trap, _ = run(code.replace(" ", "") + "cd30", entry, ebx=0xFF0, ecx=1)
        assert trap == (traps.SYSTEM_CALL if allowed else GP), code


@pytest.mark.parametrize(
    ("code", "segments", "done"),
    [
        ("f365a4", (GS,), 4),  # movs: from GS:ESI
        ("f3aa", (ES,), 4),
        ("f365a6", (GS,), 4),
        ("f3ab", (ES,), 1),
        ("f366ab", (ES,), 2),
    ],
)
def test_a_repeated_string_instruction_ends_where_its_segment_does(
    code: str, segments: tuple[int, ...], done: int
) -> None:
    """SDM vol. 2, REP: rounds before the fault have happened, and show in ECX."""
    where = {"esi" if GS in segments else "edi": LIMIT - 3, "edi" if GS in segments else "esi": DATA + 0x100}
    trap, frame = run(code + "cd30", descriptor(LIMIT), segments, ecx=9, **where)
    assert (trap, frame[ECX]) == (GP, 9 - done)


def test_no_round_of_a_string_instruction_accesses_nothing() -> None:
    assert run("f3aacd30", descriptor(LIMIT), (ES,), ecx=0, edi=LIMIT + 1)[0] is traps.SYSTEM_CALL


@pytest.mark.parametrize("pages", [False, True])
def test_the_limit_counts_bytes_or_pages(pages: bool) -> None:
    """SDM vol. 3, 3.4.5: with G, the lowest 12 bits of an offset are not looked at."""
    last = 0xFFF if pages else 0
    assert run("658a03cd30", descriptor(0, pages=pages), ebx=last)[0] is traps.SYSTEM_CALL
    assert run("658a03cd30", descriptor(0, pages=pages), ebx=last + 1)[0] == GP


def test_a_segment_that_expands_down() -> None:
    """SDM vol. 3, 5.3: offsets above the limit, up to FFFFFFFF or, without B, FFFF."""
    for big, top in ((True, 0xFFFF_FFFF), (False, 0xFFFF)):
        entry = descriptor(0x1FF, down=True, big=big, base=DATA)
        for offset, allowed in ((0x200, True), (0x1FF, False), (0, False), (0xFFC, True), (top - 2, False)):
            trap, _ = run("658b03cd30", entry, ebx=offset)
            assert trap == (traps.SYSTEM_CALL if allowed else GP), (big, offset)
    entry = descriptor(0x1FF, down=True, big=False)
    assert run("658a03cd30", entry, ebx=0x1_0000)[0] == GP
    nothing = descriptor(0xF_FFFF, pages=True, down=True)
    assert run("658a03cd30", nothing, ebx=0xFFFF_FFFF)[0] == GP


def test_data_that_may_not_be_written() -> None:
    """SDM vol. 3, 5.4, 3.4.5.1: with a limit or without; a store of any kind."""
    for limit, pages in ((LIMIT, False), (0xF_FFFF, True)):
        entry = descriptor(limit, pages=pages, writable=False)
        assert run("658b03cd30", entry)[0] is traps.SYSTEM_CALL
        for code in ("658903", "65d91b", "65660f7f03", "650fae1b", "65f0830301", "658f03", "650f9403"):
            assert run(code + "cd30", entry, esp=STACK_TOP - 16)[0] == GP, code
        assert run("aa cd30", entry, (ES,))[0] == GP


STACK_BASE = STACK_TOP - 0x1000
"""Where the stack's segment begins, so that its limit is near the stack's top."""


@pytest.mark.parametrize(
    ("code", "esp", "limit", "allowed"),
    [
        ("50", 0x800, 0x7FF, True),  # push: the word below
        ("50", 0x804, 0x7FF, False),
        ("6650", 0x802, 0x801, True),
        ("58", 0x7FC, 0x7FF, True),
        ("58", 0x7FD, 0x7FF, False),
        ("58", 0x800, 0x7FF, False),
        ("9c", 0x804, 0x7FF, False),
        ("e800000000", 0x804, 0x7FF, False),
        ("e800000000", 0x800, 0x7FF, True),
        ("60", 0x800, 0x7FF, True),
        ("60", 0x804, 0x7FF, False),
        ("61", 0x7E0, 0x7FF, True),
        ("61", 0x7E4, 0x7FF, False),
        ("8b4500", 0x700, 0x7FF, False),  # EBP is beyond
        ("8b0424", 0x7FC, 0x7FF, True),
        ("8b0424", 0x7FD, 0x7FF, False),
        ("8f4424fc", 0x7FC, 0x7FF, True),  # pop [esp - 4], formed behind the pop
        ("8f0424", 0x7FC, 0x7FF, False),
        ("c9", 0x700, 0x7FF, False),
        ("c8000000", 0x800, 0x7FF, True),  # enter
        ("c8000002", 0x800, 0x7FF, False),  # copies from below EBP
        ("c8000c00", 0x800, 0x7FF, False),  # makes room beyond the beginning
        ("c3", 0x7FE, 0x7FF, False),
        ("cb", 0x7FC, 0x7FF, False),
        ("cf", 0x7F8, 0x7FF, False),
    ],
)
def test_the_stack_has_a_fault_of_its_own(code: str, esp: int, limit: int, allowed: bool) -> None:
    """SDM vol. 3, 6.15: #SS(0), and nothing has moved."""
    trap, frame = run(code + "cd30", descriptor(limit, base=STACK_BASE), (SS,), esp=esp, ebp=0x900)
    if allowed:
        assert trap is traps.SYSTEM_CALL
    else:
        assert (trap, frame[ESP]) == (STACK_FAULT, esp)


@pytest.mark.parametrize(
    ("code", "ebx", "esp", "trap"),
    [
        # 16 bytes: alignment before the limit; a whole state: its first byte before alignment, the rest behind it.
        ("360f2803", 0x7F8, 0x700, GP),
        ("360f2803", 0x800, 0x700, STACK_FAULT),
        ("360f1003", 0x7F8, 0x700, STACK_FAULT),
        ("360fae03", 0x7F8, 0x700, GP),
        ("360fae03", 0x808, 0x700, STACK_FAULT),
        ("360fae03", 0x7F0, 0x700, STACK_FAULT),
        # pop reads the stack first, push its operand; of GS, which is empty, or of a page that is not there.
        ("658f03", 0, 0x800, STACK_FAULT),
        ("658f03", 0, 0x700, GP),
        ("65ff33", 0, 0x804, GP),
        ("ff33", UNMAPPED, 0x804, PageFault(UNMAPPED, write=False, fetch=False, present=False)),
        ("ff33", DATA, 0x804, STACK_FAULT),
        ("8f03", UNMAPPED, 0x800, STACK_FAULT),
    ],
)
def test_which_of_two_faults_comes_first(code: str, ebx: int, esp: int, trap: traps.Trap) -> None:
    """Seen on an Intel of family 6, model 167; SDM vol. 3, 6.9, leaves it open."""
    guest = Guest()
    guest.put(guest.code_pfn, as_bytes(code))
    frame = guest.thread()
    frame[GDT_ENTRIES], frame[GDT_ENTRIES + 1] = descriptor(0x7FF, base=STACK_BASE)
    frame[SS], frame[GS] = OWN, 0
    set_registers(frame, ebx=ebx, esp=esp)
    assert guest.run(frame) == trap


@pytest.mark.parametrize(
    ("code", "register"),
    [
        ("8ec0 a4", "esi"),
        ("8ec0 f3a5", "esi"),
        ("8ee8 658f00", "esp"),
        ("8ee8 65a6", "edi"),
        ("8ed8 a7", "edi"),
    ],
)
def test_what_is_read_first_may_not_be_there(code: str, register: str) -> None:
    """movs, pop and cmps, before they look at another segment, which is empty."""
    absent = PageFault(UNMAPPED, write=False, fetch=False, present=False)
    where = {"ecx": 1, "esi": DATA, "edi": DATA, "esp": STACK_TOP - 4}
    everything = descriptor(0xF_FFFF, pages=True)
    assert run(code, everything, (), **where)[0] == GP
    assert run(code, everything, (), **where | {register: UNMAPPED})[0] == absent


@pytest.mark.parametrize(("index", "trap"), [(4, CpuException(5, 0)), (6, GP)])
def test_bound_reads_the_upper_bound_only_behind_the_lower(index: int, trap: traps.Trap) -> None:
    guest = Guest()
    guest.put(guest.data_pfn, word(5), LIMIT - 3)
    guest.put(guest.code_pfn, as_bytes("656203"))
    frame = guest.thread()
    frame[GDT_ENTRIES], frame[GDT_ENTRIES + 1] = descriptor(LIMIT)
    frame[GS] = OWN
    set_registers(frame, eax=index, ebx=LIMIT - 3)
    assert guest.run(frame) == trap


@pytest.mark.parametrize("behind", ["cd30", "f00fbaf9ff"])
def test_a_stack_segment_that_is_not_present(behind: str) -> None:
    """SDM vol. 2, MOV: #SS(selector), also where the engine must not see what follows."""
    low, high = descriptor(LIMIT)
    trap, frame = run("8ed0" + behind, (low, high & ~0x8000), (), eax=OWN)
    assert (trap, frame[SS]) == (CpuException(12, OWN & ~7), 0x23)


def test_only_what_is_limited_is_looked_at() -> None:
    """Another segment of the same thread, and another thread with the same selector."""
    guest = Guest()
    guest.put(guest.data_pfn, word(7) + word(8), 0x10)
    guest.put(guest.code_pfn, as_bytes("8b03 658b0d14000000") + SYSTEM_CALL)
    limited, free = guest.thread(), guest.thread()
    limited[GDT_ENTRIES], limited[GDT_ENTRIES + 1] = descriptor(0x16)
    free[GDT_ENTRIES], free[GDT_ENTRIES + 1] = descriptor(0xF_FFFF, pages=True)
    for _ in range(2):
        for frame, trap, read in ((limited, GP, 0), (free, traps.SYSTEM_CALL, 8)):
            frame[GS] = OWN
            set_registers(frame, ebx=DATA + 0x10, eip=CODE)
            assert (guest.run(frame), frame[EAX], frame[ECX]) == (trap, 7, read)


def test_cycles_are_those_of_another_segment() -> None:
    """Being looked at costs the host, not the guest."""
    code = "b914000000 658903 83c304 49 75f7 cd30"
    counts = []
    for entry in (descriptor(0xFFF), descriptor(0xF_FFFF, pages=True)):
        trap, frame = run(code, entry)
        assert trap is traps.SYSTEM_CALL
        counts.append((instructions(frame), cycles(frame), frame[EBX]))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("vendor", ["AuthenticAMD", "GenuineIntel"])
def test_what_is_done_before_the_segment_is_looked_at(vendor: str) -> None:
    """An Intel does not look if an unmasked exception prevents a store; an MMX store has set TOP, maskmovq entered MMX.

    DS and GS are empty. Seen on processors of both vendors, where no manual says it.
    """
    intel = vendor == "GenuineIntel"
    for code, trap, status, tags in (
        ("dbe3 36d92b 65dd1b cd30", traps.SYSTEM_CALL if intel else GP, 0x80C1 if intel else 0, 0),
        ("dbe3 d9f6 650f7f03 cd30", GP, 0 if intel else 0x3800, 0),
        ("dbe3 d9f6 0ff7c1 cd30", GP, 0 if intel else 0x3800, 0xFF if intel else 0),
    ):
        guest = Guest()
        guest.engine = Engine(guest.ram, CostTable.uniform(), replace(OPTERON_6174, vendor=vendor))
        guest.vcpus = [Vcpu(guest.engine, 0)]
        guest.put(guest.data_pfn, word(0x37E))
        guest.put(guest.code_pfn, as_bytes(code))
        frame = guest.thread()
        frame[DS] = frame[GS] = 0
        set_registers(frame, ebx=DATA)
        assert guest.run(frame) == trap, code
        guest.engine.sync_fpu(frame)
        assert frame[FPU_AREA] >> 16 == status, code
        assert frame[FPU_AREA + 1] & 0xFF == tags, code
