"""Every way user code traps: vector, error code, EIP, and how many instructions had been completed."""

from __future__ import annotations

import pytest

from l4lab.kernel import traps
from l4lab.kernel.frame import CS, EAX, EFLAGS, EIP, ESP, GDT_ENTRIES
from l4lab.kernel.traps import CpuException, PageFault, Trap
from support.guest import CODE, DATA, SYSTEM_CALL, UNMAPPED, Guest, as_bytes, instructions, word

TF = 0x100
NT = 0x4000


def fault(vector: int, error_code: int = 0) -> CpuException:
    return CpuException(vector, error_code)


UD, GP = fault(6), fault(13)

# Name, code, trap, offset of EIP from CODE, completed instructions. EBX = DATA, other registers zero.
CASES: list[tuple[str, str, Trap, int, int]] = [
    ("system call", "90 cd30", traps.SYSTEM_CALL, 3, 2),
    ("div by zero", "90 31c9 f7f1", fault(0), 3, 2),
    ("div overflow", "ba01000000 b101 f7f1", fault(0), 7, 2),
    ("idiv", "31c9 f6f9", fault(0), 2, 1),
    ("aam 0", "d400", fault(0), 0, 0),
    ("icebp", "90 f1", fault(1), 2, 2),
    ("int3", "90 cc", fault(3), 2, 2),
    ("int 3", "90 cd03", fault(3), 3, 2),
    ("into, overflow", "b8ffffff7f 40 ce", fault(4), 7, 3),
    ("into, no overflow", "31c0 ce cd30", traps.SYSTEM_CALL, 5, 3),
    ("int 4", "90 cd04", fault(4), 3, 2),
    ("bound, below", "b8ffffffff 6203", fault(5), 5, 1),
    ("bound, inside", "90 6203 cd30", traps.SYSTEM_CALL, 5, 3),
    ("ud2", "90 0f0b", UD, 1, 1),
    ("ud1", "0fb9c0", UD, 0, 0),
    # What kills the translator, behind instructions that the engine takes no trap behind.
    ("pause, lock btc ecx", "f390 f00fbaf9ff", UD, 2, 1),
    ("mov ss, lock btc ecx", "8cd0 8ed0 f00fbaf9ff", UD, 4, 2),
    ("pop ss, lock btc ecx", "16 17 f00fbaf9ff", UD, 2, 2),
    ("mov ss from memory, lock btc ecx", "8c13 8e13 f00fbaf9ff", UD, 4, 2),
    ("mov ss of nothing, lock btc ecx", "31c0 8ed0 f00fbaf9ff", fault(13), 2, 1),
    ("mov ss of code, lock btc ecx", "b81b000000 8ed0 f00fbaf9ff", CpuException(13, 0x18), 5, 1),
    *(
        (f"lock {code}", "90 f0" + code, UD, 1, 1)
        for code in (
            *(
                "90",
                "40",
                "01c8",
                "0303",
                "3903",
                "833b05",
                "8903",
                "8d03",
                "c12305",
                "0fa30b",
                "0fba2305",
                "0fa4030b",
            ),
            *(
                "eb00",
                "7400",
                "0f8400000000",
                "c3",
                "e800000000",
                "50",
                "58",
                "a4",
                "d903",
                "0f1003",
                "6343",
                "0f31",
            ),
        )
    ),
    ("lock bt of a register", "90 f00fa3c3", UD, 1, 1),
    ("lock btc imm of a register", "f00fbaf905", UD, 0, 0),
    ("mov to cs", "8ecb", UD, 0, 0),
    ("rsm", "0faa", UD, 0, 0),
    ("rdrand", "90 0fc7f0", UD, 1, 1),
    ("rdseed", "0fc7f8", UD, 0, 0),
    ("syscall", "90 0f05", UD, 1, 1),
    ("sysret", "0f07", UD, 0, 0),
    ("monitor", "0f01c8", UD, 0, 0),
    ("mwait", "0f01c9", UD, 0, 0),
    ("vmcall", "0f01c1", UD, 0, 0),
    ("vmrun", "0f01d8", UD, 0, 0),
    ("xgetbv", "0f01d0", UD, 0, 0),
    ("AVX", "c5f877", UD, 0, 0),
    ("XOP", "8fe878c0c000", UD, 0, 0),
    ("SSSE3", "660f3800c1", UD, 0, 0),
    ("crc32", "f20f38f0c0", UD, 0, 0),
    ("not present segment", "b84b000000 8ee0", fault(11, 0x48), 5, 1),
    ("null in ss", "31c0 8ed0", GP, 2, 1),
    ("code in ss", "b81b000000 8ed0", fault(13, 0x18), 5, 1),
    ("selector beyond the GDT", "b853550000 8ee0", fault(13, 0x5550), 5, 1),
    ("system descriptor", "b853000000 8ee0", fault(13, 0x50), 5, 1),
    ("kernel data", "b810000000 8ed8", fault(13, 0x10), 5, 1),
    ("selector in the LDT", "b80f000000 8ec0", fault(13, 0x0C), 5, 1),
    ("lss", "0fb203", GP, 0, 0),
    ("pop fs", "6857550000 0fa1", fault(13, 0x5554), 5, 1),
    ("int 0", "90 cd00", fault(13, 0x02), 1, 1),
    ("int 13", "cd0d", fault(13, 0x6A), 0, 0),
    ("int 14", "90 cd0e", fault(13, 0x72), 1, 1),
    ("int 0x80", "90 cd80", fault(13, 0x402), 1, 1),
    ("int 0x80 with a prefix", "66cd80", fault(13, 0x402), 0, 0),
    ("hlt", "90 f4", GP, 1, 1),
    ("cli", "90 fa", GP, 1, 1),
    ("sti", "fb", GP, 0, 0),
    ("in imm", "90 e460", GP, 1, 1),
    ("in dx", "ed", GP, 0, 0),
    ("out imm", "e780", GP, 0, 0),
    ("out dx", "90 ee", GP, 1, 1),
    ("insb", "6c", GP, 0, 0),
    ("rep outsd", "f36f", GP, 0, 0),
    ("mov from cr0", "0f20c0", GP, 0, 0),
    ("mov to cr3", "90 0f22d8", GP, 1, 1),
    ("mov to dr0", "0f23c0", GP, 0, 0),
    ("clts", "0f06", GP, 0, 0),
    ("lmsw", "0f01f0", GP, 0, 0),
    ("lgdt", "0f0113", GP, 0, 0),
    ("lidt", "0f011b", GP, 0, 0),
    ("lldt", "0f00d0", GP, 0, 0),
    ("ltr", "0f00d8", GP, 0, 0),
    ("invlpg", "0f013b", GP, 0, 0),
    ("invd", "0f08", GP, 0, 0),
    ("wbinvd", "0f09", GP, 0, 0),
    ("rdmsr", "0f32", GP, 0, 0),
    ("wrmsr", "0f30", GP, 0, 0),
    ("rdpmc", "0f33", GP, 0, 0),
    ("sysenter", "90 0f34", UD, 1, 1),
    ("sysexit", "0f35", UD, 0, 0),
    ("16 bytes long", "66" * 15 + "90", GP, 0, 0),
    ("15 bytes long", "66" * 14 + "90 cd30", traps.SYSTEM_CALL, 17, 2),
    ("far jump, flat", "ea0a0040001b00 909090 cd30", traps.SYSTEM_CALL, 12, 2),
    ("far jump, data segment", "ea000040004300", fault(13, 0x40), 0, 0),
    ("far jump, other code segment", "ea000040005b00", fault(13, 0x58), 0, 0),
    ("far call, flat", "9a080040001b00 90 cd30", traps.SYSTEM_CALL, 10, 2),
    ("far return, data segment", "6a23 6800004000 cb", fault(13, 0x20), 7, 2),
    ("far return, other code segment", "6a5b 6800004000 cb", fault(13, 0x58), 7, 2),
    ("iret", "9c 6a1b 680a004000 cf 90 cd30", traps.SYSTEM_CALL, 12, 5),
    ("iret to kernel code", "9c 6a08 6800004000 cf", fault(13, 8), 8, 3),
    ("unmasked x87 exception", "dbe3 683b030000 d92c24 d9e8 d9ee def9 9b 90", fault(16), 16, 6),
]

THREAD_ENTRIES = (
    (0x0000FFFF, 0x00CF7300),  # 0x4b: data, not present
    (0x00000067, 0x00008B00),  # 0x53: a TSS; the shim does not install system descriptors
    (0x0000FFFF, 0x00CFFB00),  # 0x5b: code, 32-bit, flat
    (0x0000FFFF, 0x00CFF300),  # 0x63: data, flat
)


@pytest.fixture(scope="module")
def guest() -> Guest:
    return Guest()


@pytest.mark.parametrize(
    ("code", "trap", "offset", "completed"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_trap(guest: Guest, code: str, trap: Trap, offset: int, completed: int) -> None:
    guest.put(guest.data_pfn, bytes(64))
    guest.put(guest.code_pfn, as_bytes(code))
    frame = guest.thread()
    frame[3] = DATA
    for i, (low, high) in enumerate(THREAD_ENTRIES):
        frame[GDT_ENTRIES + 2 * i], frame[GDT_ENTRIES + 2 * i + 1] = low, high
    for _ in range(2):  # twice: reporting an exception leaves no mark
        frame[EIP] = CODE
        frame[ESP] = 0x0060_1000
        frame[EAX] = 0
        before = instructions(frame)
        assert guest.run(frame) == trap
        assert frame[EIP] - CODE == offset
        assert instructions(frame) - before == completed
        assert frame[CS] == 0x1B
        assert not frame[EFLAGS] & TF


def test_registers_are_those_before_the_faulting_instruction(guest: Guest) -> None:
    trap, frame = guest.run_code(
        "b811111111 b922222222 51 5a a3" + word(UNMAPPED).hex(), ebx=0x33333333, ebp=7
    )
    assert trap == PageFault(UNMAPPED, write=True, fetch=False, present=False)
    assert list(frame[0:8]) == [0x11111111, 0x22222222, 0x22222222, 0x33333333, 0x0060_1000, 7, 0, 0]


def test_a_failed_far_return_takes_nothing_from_the_stack(guest: Guest) -> None:
    trap, frame = guest.run_code("6a23 6800004000 cb")
    assert trap == fault(13, 0x20)
    assert frame[ESP] == 0x0060_1000 - 8


def test_faults_in_a_loop_each_have_their_own_vector(guest: Guest) -> None:
    """The engine by itself reports the second as a double fault and the third not at all."""
    guest.put(guest.code_pfn, as_bytes("f4 f7f1 0f0b 8ee0 f4"))
    frame = guest.thread()
    frame[EAX] = 0x5553
    seen = []
    for size in (1, 2, 2, 2, 1):
        trap = guest.run(frame)
        assert isinstance(trap, CpuException)
        seen.append((trap.vector, trap.error_code))
        frame[EIP] += size
    assert seen == [(13, 0), (0, 0), (6, 0), (13, 0x5550), (13, 0)]


# --- single steps (TF) ------------------------------------------------------------------------------


def step(
    guest: Guest, code: str, *, steps: int, eflags: int = 0x202 | TF, **registers: int
) -> list[tuple[int, int]]:
    """(EIP offset, completed instructions) after each trap 1, up to the system call."""
    guest.put(guest.code_pfn, as_bytes(code) + SYSTEM_CALL)
    frame = guest.thread()
    frame[EFLAGS] = eflags
    for name, value in registers.items():
        frame[["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"].index(name)] = value
    seen = []
    for _ in range(steps):
        assert guest.run(frame) == fault(1)
        seen.append((frame[EIP] - CODE, instructions(frame)))
    assert guest.run(frame) is traps.SYSTEM_CALL
    return seen


def test_tf_traps_behind_each_instruction(guest: Guest) -> None:
    assert step(guest, "90 40 6690", steps=3) == [(1, 1), (2, 2), (4, 3)]


def test_tf_set_by_popf_traps_behind_the_next_instruction(guest: Guest) -> None:
    code = "9c 810c2400010000 9d 90 90"
    assert step(guest, code, steps=2, eflags=0x202) == [(10, 4), (11, 5)]


def test_tf_traps_behind_each_iteration(guest: Guest) -> None:
    seen = step(guest, "f3a4", steps=3, ecx=3, esi=DATA, edi=DATA + 64)
    assert seen == [(0, 1), (0, 2), (2, 3)]


def test_tf_does_not_trap_between_a_load_of_ss_and_the_next_instruction(guest: Guest) -> None:
    assert step(guest, "16 17 90 90", steps=3) == [(1, 1), (3, 3), (4, 4)]


def test_tf_traps_behind_pause(guest: Guest) -> None:
    assert step(guest, "f390 90", steps=2) == [(2, 1), (3, 2)]


def test_tf_with_x87_state_to_switch(guest: Guest) -> None:
    assert step(guest, "d9e8 ddd8", steps=2) == [(2, 1), (4, 2)]


# --- iret: the engine would obey flags that user mode may not set -----------------------------------


@pytest.mark.parametrize(("bit", "kept"), [(1 << 17, False), (3 << 12, False), (1 << 9, True), (TF, True)])
def test_iret_changes_only_flags_of_user_mode(guest: Guest, bit: int, kept: bool) -> None:
    target = CODE + 13
    code = "68" + word(0x202 | bit).hex() + "6a1b 68" + word(target).hex() + "cf 90 cd30"
    trap, frame = guest.run_code(code)
    assert trap == (fault(1) if bit == TF else traps.SYSTEM_CALL)
    assert bool(frame[EFLAGS] & bit) == kept


def test_iret_with_nested_task(guest: Guest) -> None:
    trap, frame = guest.run_code("68" + word(0x202 | NT).hex() + "9d cf")
    assert trap == fault(10)
    assert frame[EIP] == CODE + 6


def test_iret_from_an_unmapped_stack(guest: Guest) -> None:
    trap, frame = guest.run_code("90 cf", esp=UNMAPPED - 4)
    assert trap == PageFault(UNMAPPED - 4, write=False, fetch=False, present=False)
    assert (frame[EIP], frame[ESP], instructions(frame)) == (CODE + 1, UNMAPPED - 4, 1)


def test_eflags_that_a_thread_may_not_have_are_replaced(guest: Guest) -> None:
    _, frame = guest.run_code("cd30", eflags=0xFFFF_FFFF & ~TF)
    assert frame[EFLAGS] & 0x2_3000 == 0  # neither VM nor IOPL
    assert frame[EFLAGS] & 0x202 == 0x202
