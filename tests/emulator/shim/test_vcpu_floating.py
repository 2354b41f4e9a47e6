"""Floating point, alignment and features: what a processor does, bit for bit.

Values were taken from hardware; each case names the section of the manual that asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from l4lab.kernel.traps import CpuException, PageFault, Trap
from support.guest import CODE, DATA, SYSTEM_CALL, Guest, set_registers

OPERANDS = bytes.fromhex(
    "000000000000000000000000000000000000803f0000404000000000000080bf9976967e000080000000003ff9021550"
)
"""From DATA + 0x800 on: 0 (16 bytes), 1.0, 3.0, 0.0, -1.0, 1e38, the least normal, 0.5, 1e10: single format."""


@dataclass(frozen=True)
class Case:
    """`code` runs with `memory` at DATA + 0x800 until it makes a system call or traps.

    `words`: what is then at DATA + 0x880 and so many bytes; all other words up to 0x8BF are zero.
    """

    name: str
    section: str
    asm: str
    code: str
    memory: bytes = OPERANDS
    eax: int = 0
    words: dict[int, str] = field(default_factory=dict)
    trap: int | None = None
    at: int = 0


CASES = (
    Case(
        "x87-flags",
        "SDM 1, 8.5",
        "fninit; flds 0x500810; fdivs 0x500814; fnstsw %ax; and $0x3f,%eax",
        "dbe3d90510085000d83514085000dfe083e03f",
        eax=0x20,
        words={},
    ),
    Case(
        "x87-flags-2",
        "SDM 1, 8.5",
        "fninit; flds 0x500818; fdivs 0x500818; fnstsw %ax; and $0x3f,%eax",
        "dbe3d90518085000d83518085000dfe083e03f",
        eax=0x1,
        words={},
    ),
    Case(
        "x87-unmasked",
        "SDM 1, 8.7",
        "fninit; movw $0x37e,0x500880; fldcw 0x500880; flds 0x500818; fdivs 0x500818; fwait",
        "dbe366c705800850007e03d92d80085000d90518085000d835180850009b",
        trap=16,
        at=29,
    ),
    Case(
        "x87-stack",
        "SDM 1, 8.5.1.1",
        "fninit; fstp %st; fnstsw %ax; and $0x241,%eax",
        "dbe3ddd8dfe02541020000",
        eax=0x41,
        words={},
    ),
    Case(
        "sse-flags",
        "SDM 1, 11.5.2",
        (
            "movss 0x500810,%xmm0; divss 0x500814,%xmm0; stmxcsr 0x500880; mov 0x500880,%eax; "
            "movl $0,0x500880; and $0x3f,%eax"
        ),
        "f30f100510085000f30f5e05140850000fae1d80085000a180085000c705800850000000000083e03f",
        eax=0x20,
        words={},
    ),
    Case(
        "sse-flags-2",
        "SDM 1, 11.5.2",
        (
            "movss 0x500818,%xmm0; divss 0x500818,%xmm0; stmxcsr 0x500880; mov 0x500880,%eax; "
            "movl $0,0x500880; and $0x3f,%eax"
        ),
        "f30f100518085000f30f5e05180850000fae1d80085000a180085000c705800850000000000083e03f",
        eax=0x1,
        words={},
    ),
    Case(
        "sse-ftz",
        "SDM 1, 10.2.3.3",
        (
            "movl $0x9f80,0x500880; ldmxcsr 0x500880; movss 0x500824,%xmm0; mulss 0x500828,%xmm0;"
            " movss %xmm0,0x500884"
        ),
        "c70580085000809f00000fae1580085000f30f100524085000f30f590528085000f30f110584085000",
        eax=0x0,
        words={0x00: "809f0000"},
    ),
    Case(
        "sse-daz-minmax",
        "SDM 1, 10.2.3.4",
        (
            "movl $0x1fc0,0x500880; movl $5,0x500884; ldmxcsr 0x500880; xorps %xmm0,%xmm0; maxss "
            "0x500884,%xmm0; movss %xmm0,0x500888"
        ),
        ("c70580085000c01f0000c70584085000050000000fae15800850000f57c0f30f5f0584085000f30f110588085000"),
        eax=0x0,
        words={0x00: "c01f0000", 0x04: "05000000"},
    ),
    Case(
        "sse-alignment",
        "SDM 1, 11.6.10.1",
        "movaps 0x500818,%xmm0",
        "0f280518085000",
        trap=13,
        at=0,
    ),
    Case(
        "sse-alignment-2",
        "SDM 1, 11.6.10.1",
        "movaps %xmm0,0x500884",
        "0f290584085000",
        trap=13,
        at=0,
    ),
    Case(
        "sse-alignment-3",
        "SDM 1, 11.6.10.1",
        "addps 0x500814,%xmm0",
        "0f580514085000",
        trap=13,
        at=0,
    ),
    Case(
        "mxcsr-reserved",
        "SDM 1, 11.6.6",
        "movl $0x10000,0x500880; ldmxcsr 0x500880",
        "c70580085000000001000fae1580085000",
        trap=13,
        at=10,
    ),
    Case(
        "fcomi-flags",
        "SDM 2, FCOMI",
        (
            "fninit; fld1; fldz; movl $0x80000000,%eax; cmpl $1,%eax; fcomi %st(1),%st; pushf; "
            "pop %eax; and $0x8d5,%eax"
        ),
        "dbe3d9e8d9eeb80000008083f801dbf19c5825d5080000",
        eax=0x1,
        words={},
    ),
    Case(
        "fprem",
        "SDM 2, FPREM",
        (
            "fninit; fldl 0x500818; fldl 0x500810; LBL: fprem; fnstsw %ax; sahf; jp LBL; fstpl "
            "0x500880; xor %eax,%eax"
        ),
        "dbe3dd0518085000dd0510085000d9f8dfe09e7af9dd1d8008500031c0",
        memory=bytes.fromhex("0000000000000000000000000000000000000000000024406666666666660a40"),
        eax=0x0,
        words={0x00: "c0999999", 0x04: "9999b93f"},
    ),
    Case(
        "fsqrt-c2",
        "SDM 2, FSQRT",
        "fninit; fld1; fchs; fsqrt; fnstsw %ax; and $0x400,%eax",
        "dbe3d9e8d9e0d9fadfe02500040000",
        eax=0x0,
        words={},
    ),
    Case(
        "fisttp",
        "SDM 2, FISTTP",
        "fninit; flds 0x50082c; fisttpl 0x500880",
        "dbe3d9052c085000db0d80085000",
        eax=0x0,
        words={0x00: "00000080"},
    ),
    Case(
        "fscale-pc",
        "SDM 1, 8.1.5.2",
        "fninit; movw $0x07f,0x500880; fldz; fldpi; fldcw 0x500880; fscale; fstpt 0x500890",
        "dbe366c705800850007f00d9eed9ebd92d80085000d9fddb3d90085000",
        eax=0x0,
        words={0x00: "7f000000", 0x10: "35c26821", 0x14: "a2da0fc9", 0x18: "00400000"},
    ),
    Case(
        "const-rounding",
        "SDM 2, FLDPI",
        "fninit; movw $0x77f,0x500880; fldcw 0x500880; fldpi; fstpt 0x500890",
        "dbe366c705800850007f07d92d80085000d9ebdb3d90085000",
        eax=0x0,
        words={0x00: "7f070000", 0x10: "34c26821", 0x14: "a2da0fc9", 0x18: "00400000"},
    ),
    Case(
        "fld-snan",
        "SDM 2, FLD",
        "fninit; movl $0x7f800001,0x500880; flds 0x500880; fstpt 0x500890",
        "dbe3c705800850000100807fd90580085000db3d90085000",
        eax=0x0,
        words={0x00: "0100807f", 0x14: "000100c0", 0x18: "ff7f0000"},
    ),
    Case(
        "fbstp",
        "SDM 2, FBSTP",
        "fninit; flds 0x500820; fbstp 0x500880",
        "dbe3d90520085000df3580085000",
        eax=0x0,
        words={0x04: "000000c0", 0x08: "ffff0000"},
    ),
    Case(
        "segment-write",
        "SDM 3, 5.5",
        "movl $1,%cs:0x500880",
        "2ec7058008500001000000",
        trap=13,
        at=0,
    ),
    Case(
        "segment-write-2",
        "SDM 3, 5.5",
        "mov %cs,%ecx; mov %ecx,%ds; movl $1,0x500880",
        "8cc98ed9c7058008500001000000",
        trap=13,
        at=4,
    ),
    Case(
        "test-alias",
        "APM 3, table A-6",
        "mov $0x55aa,%eax; .byte 0xf6,0xc8,0x5a; pushf; pop %eax; and $0x8c5,%eax",
        "b8aa550000f6c85a9c5825c5080000",
        eax=0x4,
        words={},
    ),
    Case(
        "tf-pause",
        "SDM 3, 18.3.1.4",
        "pushf; orl $0x100,(%esp); popf; pause; inc %eax; inc %eax",
        "9c810c24000100009df3904040",
        trap=1,
        at=11,
    ),
    Case(
        "fldenv-reads",
        "SDM 2, FLDENV",
        "fldenv 0x502ff0",
        "d925f02f5000",
        trap=14,
        at=0,
    ),
    Case(
        "rsqrt-denormal",
        "SDM 2, RSQRTSS",
        "movl $0x80000005,0x500884; rsqrtss 0x500884,%xmm0; movss %xmm0,0x500888",
        "c7058408500005000080f30f520584085000f30f110588085000",
        eax=0x0,
        words={0x04: "05000080", 0x08: "000080ff"},
    ),
    Case(
        "emms-top",
        "SDM 1, 9.5.1",
        "fninit; fld1; fld1; emms; fnstsw %ax; and $0x3800,%eax",
        "dbe3d9e8d9e80f77dfe02500380000",
        eax=0x0,
        words={},
    ),
    Case(
        "fstenv-masks",
        "SDM 2, FNSTENV",
        "movw $0x340,0x500880; fninit; fldcw 0x500880; fnstenv 0x500900; fnstcw 0x500884",
        "66c705800850004003dbe3d92d80085000d93500095000d93d84085000",
        eax=0x0,
        words={0x00: "40030000", 0x04: "7f030000"},
    ),
    Case(
        "mmx-exponent",
        "SDM 1, 9.5.2",
        "fninit; mov $1,%eax; movd %eax,%mm0; fxsave 0x500900; movzwl 0x500928,%eax",
        "dbe3b8010000000f6ec00fae05000950000fb70528095000",
        eax=0xFFFF,
        words={},
    ),
)


def vector_of(trap: Trap) -> int | None:
    if isinstance(trap, PageFault):
        return 14
    return trap.vector if isinstance(trap, CpuException) else None


def run(case: Case) -> tuple[Guest, Trap, list[int]]:
    """DATA to DATA + 0x2FFF is mapped; the page behind it is not."""
    guest = Guest()
    for page in (DATA + 0x1000, DATA + 0x2000):
        guest.new_page(page)
    guest.put(guest.data_pfn, case.memory, 0x800)
    guest.put(guest.code_pfn, bytes.fromhex(case.code) + SYSTEM_CALL)
    frame = guest.thread()
    set_registers(frame, esp=0x600F00, ebp=DATA + 0x900, esi=DATA + 0xA00, edi=DATA + 0xB00, eflags=0x202)
    trap = guest.run(frame)
    return guest, trap, list(frame)


def words_after(guest: Guest) -> dict[int, str]:
    words = {offset: guest.get(guest.data_pfn, 4, 0x880 + offset).hex() for offset in range(0, 0x40, 4)}
    return {offset: word for offset, word in words.items() if word != "00000000"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case) -> None:
    guest, trap, frame = run(case)
    assert vector_of(trap) == case.trap, case.section
    if case.trap is not None:
        assert frame[8] == CODE + case.at, case.section
        return
    assert frame[0] == case.eax, case.section
    assert words_after(guest) == case.words, case.section
