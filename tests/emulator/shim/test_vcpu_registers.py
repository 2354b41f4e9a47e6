"""Segments, x87 and SSE state, cpuid: what a thread keeps and what the processor says of itself."""

from __future__ import annotations

import ctypes
import struct
import weakref
from array import array

import pytest

from l4lab.emulator.costs import CostTable
from l4lab.emulator.cpuid import OPTERON_6174, CpuidModel, cpuid_leaves
from l4lab.emulator.ram import Ram
from l4lab.emulator.vcpu import Engine, Vcpu, _shim
from l4lab.kernel import frame as frame_module
from l4lab.kernel import traps
from l4lab.kernel.fiasco.interface import FIASCO
from l4lab.kernel.frame import (
    CR3,
    DS,
    EAX,
    EBX,
    ECX,
    EDX,
    EIP,
    ES,
    FPU_AREA,
    FPU_CORE,
    FPU_SWITCHES,
    FPU_VALID,
    FRAME_WORDS,
    FS,
    GDT_ENTRIES,
    GS,
    SS,
    UTCB_BASE,
    FramePool,
    read_counter,
)
from l4lab.kernel.traps import CpuException
from support.guest import (
    CODE,
    DATA,
    SYSTEM_CALL,
    AddressSpace,
    Guest,
    as_bytes,
    cycles,
    instructions,
    set_registers,
    word,
)

GP = CpuException(13, 0)

# --- the frame --------------------------------------------------------------------------------------


def test_the_shim_and_the_kernel_agree_on_the_frame() -> None:
    """Word indices, in the order of `vcpu_frame_layout`."""
    names = [
        "EAX",
        "EIP",
        "EFLAGS",
        "CS",
        "SS",
        "DS",
        "ES",
        "FS",
        "GS",
        "UTCB_BASE",
        "CR3",
        "GDT_ENTRIES",
        "FPU_CORE",
        "FPU_VALID",
        "INSTRUCTIONS",
        "USER_CYCLES",
        "TLB_MISSES",
        "FPU_SWITCHES",
        "FPU_AREA",
        "FRAME_WORDS",
    ]
    layout = (ctypes.c_uint32 * len(names)).in_dll(_shim(), "vcpu_frame_layout")
    assert dict(zip(names, layout, strict=True)) == {name: getattr(frame_module, name) for name in names}


def test_all_general_registers_go_in_and_out() -> None:
    guest = Guest()
    values = [0x1111_1111 * (i + 1) for i in range(8)]
    guest.put(guest.code_pfn, as_bytes("f7d0 f7d1 f7d2 f7d3 f7d4 f7d5 f7d6 f7d7 cd30"))  # not, each
    frame = guest.thread()
    frame[0:8] = array("I", values)
    assert guest.run(frame) is traps.SYSTEM_CALL
    assert list(frame[0:8]) == [~value & 0xFFFF_FFFF for value in values]


def test_two_threads_do_not_see_each_other() -> None:
    guest = Guest()
    guest.put(guest.code_pfn, as_bytes("40 f8 cd30 41 f9 cd30"))
    a, b = guest.thread(), guest.thread()
    for _ in range(2):
        for frame in (a, b):
            assert guest.run(frame) is traps.SYSTEM_CALL
    assert list(a[0:10]) == list(b[0:10])
    assert a[EAX] == a[ECX] == 1 and a[frame_module.EFLAGS] & 1


# --- segments ---------------------------------------------------------------------------------------


def flat(base: int) -> tuple[int, int]:
    """A writable data descriptor for user mode, 4 GiB."""
    return base << 16 & 0xFFFF_0000 | 0xFFFF, base & 0xFF00_0000 | 0x00CF_F200 | base >> 16 & 0xFF


def set_entry(frame: array[int], index: int, base: int) -> None:
    frame[GDT_ENTRIES + 2 * index], frame[GDT_ENTRIES + 2 * index + 1] = flat(base)


READ_FS = bytes.fromhex("64a100000000")  # mov eax, fs:[0]
READ_GS = bytes.fromhex("65a100000000")


def test_fs_and_gs_of_a_new_thread_start_at_its_utcb_word() -> None:
    guest = Guest()
    guest.put(guest.data_pfn, word(0xCAFE) + word(0xBEEF), 0xFC)
    guest.put(guest.code_pfn, READ_FS + bytes.fromhex("658b1d04000000") + SYSTEM_CALL)
    frame = guest.thread()
    frame[UTCB_BASE] = DATA + 0xFC
    assert guest.run(frame) is traps.SYSTEM_CALL
    assert (frame[EAX], frame[EBX]) == (0xCAFE, 0xBEEF)


def test_segment_bases_follow_the_thread() -> None:
    guest = Guest()
    guest.put(guest.data_pfn, b"".join(word(0x1000 + i) for i in range(64)))
    guest.put(guest.code_pfn, READ_FS + bytes.fromhex("89c3") + READ_GS + SYSTEM_CALL)
    frames = [guest.thread() for _ in range(3)]
    for i, frame in enumerate(frames):
        frame[UTCB_BASE] = DATA + 16 * i
        set_entry(frame, 0, DATA + 16 * i + 4)
        set_entry(frame, 3, DATA + 16 * i + 8)
    frames[1][GS] = 0x4B
    frames[2][GS] = 0x63
    for _ in range(2):
        for i, frame in enumerate(frames):
            frame[EIP] = CODE
            assert guest.run(frame) is traps.SYSTEM_CALL
            assert (frame[EBX], frame[EAX]) == (0x1000 + 4 * i, 0x1000 + 4 * i + i)


def test_a_changed_descriptor_counts_from_the_next_run() -> None:
    guest = Guest()
    guest.put(guest.data_pfn, word(1) + word(2))
    guest.put(guest.code_pfn, READ_GS + SYSTEM_CALL)
    frame = guest.thread()
    frame[GS] = 0x53
    for base, value in ((DATA, 1), (DATA + 4, 2)):
        set_entry(frame, 1, base)
        frame[EIP] = CODE
        assert guest.run(frame) is traps.SYSTEM_CALL
        assert frame[EAX] == value
    frame[UTCB_BASE], frame[GS], frame[EIP] = DATA, 0x43, CODE
    guest.run(frame)
    assert frame[EAX] == 1


def test_user_code_loads_its_own_segments() -> None:
    guest = Guest()
    guest.put(guest.data_pfn, word(1) + word(2))
    code = "b85b000000 8ee8 658b1d00000000 8ed8 8b1500000000 8ec0 cd30"
    guest.put(guest.code_pfn, as_bytes(code))
    frame = guest.thread()
    set_entry(frame, 2, DATA + 4)
    assert guest.run(frame) is traps.SYSTEM_CALL
    assert (frame[EBX], frame[EDX]) == (2, 2)
    assert [frame[i] for i in (DS, ES, FS, GS, SS)] == [0x5B, 0x5B, 0x43, 0x5B, 0x23]
    assert instructions(frame) == 7


def test_segment_loads_and_stores_in_a_loop_are_counted() -> None:
    guest = Guest()
    code = "b964000000 b823000000 8ee8 8cea 0fa8 0fa9 06 07 49 75ee cd30"
    trap, frame = guest.run_code(code)
    assert trap is traps.SYSTEM_CALL
    assert (instructions(frame), cycles(frame), frame[EDX]) == (1 + 100 * 9 + 1, 902, 0x23)


@pytest.mark.parametrize("selector", [0x1B, 0x10, 0x08, 0x4B, 0x6B, 0xFFFF, 0x23 | 4, 0x20, 0x03, 0])
def test_selectors_that_do_not_load_become_null(selector: int) -> None:
    """0x1b and 0x20 load: readable code, and data with a lower RPL."""
    guest = Guest()
    guest.put(guest.code_pfn, SYSTEM_CALL)
    frame = guest.thread()
    frame[FS] = frame[GS] = frame[DS] = frame[ES] = selector
    assert guest.run(frame) is traps.SYSTEM_CALL
    loads = selector in (0x1B, 0x20, 3, 0)
    assert [frame[i] for i in (FS, GS, DS, ES)] == [selector if loads else 0] * 4
    assert frame[SS] == 0x23


def test_a_stack_segment_that_does_not_load_becomes_the_flat_one() -> None:
    guest = Guest()
    guest.put(guest.code_pfn, b"\x50" + SYSTEM_CALL)
    for selector in (0, 0x1B, 0x4B, 0xFFFF):
        frame = guest.thread()
        frame[SS] = selector
        assert guest.run(frame) is traps.SYSTEM_CALL
        assert frame[SS] == 0x23


# Code with EAX = 0 and EBX = DATA; completed instructions before the fault, or None if it does not fault.
NULL_SEGMENTS = [
    ("8ee0 64a100000000", 1),
    ("8ee0 658b03 cd30", None),
    ("8ee0 8b03 cd30", None),
    ("8ee0 648d03 cd30", None),  # an address, no access
    ("8ed8 8b03", 1),
    ("8ed8 a100005000", 1),
    ("8ed8 8b4500 cd30", None),  # EBP: in the stack segment
    ("8ed8 d7", 1),
    ("8ed8 ac", 1),
    ("8ed8 26ac cd30", None),
    ("8ed8 36a4 cd30", None),
    ("8ed8 aa cd30", None),
    ("8ec0 aa", 1),
    ("8ec0 a4", 1),
    ("8ec0 f3ab", 1),
    ("8ec0 f3ad cd30", None),
    ("8ec0 a7", 1),
    ("8ec0 90 90 268b03", 3),
    ("8ee8 40 7400 658903", 3),
    ("8ee8 b823000000 8ee8 658b03 cd30", None),
]


@pytest.mark.parametrize(("code", "completed"), NULL_SEGMENTS)
def test_memory_in_a_null_segment(code: str, completed: int | None) -> None:
    """The engine by itself does not check."""
    guest = Guest()
    registers = dict.fromkeys(("ebx", "esi", "edi", "ebp"), DATA)
    trap, frame = guest.run_code(code, ecx=1, **registers)
    if completed is None:
        assert trap is traps.SYSTEM_CALL
    else:
        assert (trap, instructions(frame)) == (GP, completed)


def test_a_thread_that_starts_with_null_segments() -> None:
    guest = Guest()
    guest.put(guest.code_pfn, READ_GS + SYSTEM_CALL)
    good, bad = guest.thread(), guest.thread()
    good[UTCB_BASE] = bad[UTCB_BASE] = DATA
    bad[GS] = 0
    for _ in range(2):
        good[EIP] = CODE
        assert guest.run(bad) == GP
        assert guest.run(good) is traps.SYSTEM_CALL


# --- x87 and SSE ------------------------------------------------------------------------------------

# fldpi; movd xmm3, eax
# fstp tbyte [ebx]; movdqu [ebx + 16], xmm3; fnstcw [ebx + 40]; stmxcsr [ebx + 44]
LOAD_FPU = bytes.fromhex("d9eb 660f6ed8") + SYSTEM_CALL
SHOW_FPU = bytes.fromhex("db3b f30f7f5b10 d97b28 0fae5b2c") + SYSTEM_CALL
PI = bytes.fromhex("35c26821a2da0fc90040")  # as fldpi rounds it


def fpu_thread(guest: Guest, value: int, slot: int) -> array[int]:
    frame = guest.thread()
    set_registers(frame, eax=value, ebx=DATA + slot * 64)
    return frame


def switches(frame: array[int]) -> int:
    return read_counter(frame, FPU_SWITCHES)


def test_a_new_thread_starts_with_the_initial_state() -> None:
    guest = Guest()
    guest.put(guest.code_pfn, bytes.fromhex("d97b00 dd7b04 0fae5b08 0f114310") + SYSTEM_CALL)
    other = guest.thread()
    set_registers(other, ebx=DATA)
    guest.run(other)
    frame = fpu_thread(guest, 0, 1)
    assert guest.run(frame) is traps.SYSTEM_CALL
    shown = guest.get(guest.data_pfn, 32, 64)
    assert struct.unpack_from("<HxxHxxI", shown) == (0x37F, 0, 0x1F80)
    assert shown[16:32] == bytes(16)
    assert switches(frame) == 1


def test_state_stays_with_the_thread_across_a_switch() -> None:
    guest = Guest()
    guest.put(guest.code_pfn, LOAD_FPU + SHOW_FPU)
    frames = [fpu_thread(guest, 0x100 + i, i) for i in range(3)]
    for _ in range(2):
        for frame in frames:
            assert guest.run(frame) is traps.SYSTEM_CALL
    for i, frame in enumerate(frames):
        shown = guest.get(guest.data_pfn, 48, i * 64)
        assert shown[:10] == PI
        assert shown[16:32] == word(0x100 + i) + bytes(12)
        assert switches(frame) == 2


def test_a_thread_that_does_not_use_it_does_not_switch() -> None:
    guest = Guest()
    guest.put(guest.code_pfn, LOAD_FPU + SHOW_FPU)
    user, other = fpu_thread(guest, 7, 0), guest.thread(CODE + len(LOAD_FPU) - 2)
    guest.run(user)
    for _ in range(3):
        other[EIP] = CODE + len(LOAD_FPU) - 2
        guest.run(other)
    guest.run(user)
    assert (switches(user), switches(other)) == (1, 0)
    assert guest.get(guest.data_pfn, 10) == PI


def test_state_moves_with_the_thread_to_another_core() -> None:
    guest = Guest(cores=3)
    guest.put(guest.code_pfn, LOAD_FPU + SHOW_FPU)
    frame = fpu_thread(guest, 0x77, 0)
    guest.run(frame, core=0)
    assert frame[FPU_CORE] == 1
    guest.run(frame, core=2)
    assert frame[FPU_CORE] == 3
    assert guest.get(guest.data_pfn, 32)[:10] == PI
    assert guest.word(guest.data_pfn, 16) == 0x77
    # Back on the first core, whose registers still hold the state as it was.
    frame[EIP] = CODE
    set_registers(frame, eax=0x88)
    guest.run(frame, core=0)
    guest.run(frame, core=0)
    assert guest.word(guest.data_pfn, 16) == 0x88
    assert switches(frame) == 3


def test_state_survives_an_exception() -> None:
    """Clearing the engine's mark of an exception must not touch the registers."""
    guest = Guest()
    guest.put(guest.code_pfn, LOAD_FPU + b"\xf4" + SHOW_FPU)
    frame = fpu_thread(guest, 0x99, 0)
    guest.run(frame)
    assert guest.run(frame) == GP
    frame[EIP] += 1
    assert guest.run(frame) is traps.SYSTEM_CALL
    assert (guest.get(guest.data_pfn, 10), guest.word(guest.data_pfn, 16), switches(frame)) == (PI, 0x99, 1)


def test_the_saved_area_has_the_layout_of_fxsave() -> None:
    """Compared with what the instruction itself writes."""
    guest = Guest()
    load = bytes.fromhex("d9e8 d9eb d9ee d9c9 0f284300 660f6ef8 d92d") + word(DATA + 0x700)
    guest.put(guest.data_pfn, bytes(range(1, 17)))
    guest.put(guest.data_pfn, b"\x7f\x02", 0x700)
    guest.put(guest.code_pfn, load + SYSTEM_CALL + bytes.fromhex("0fae8300010000") + SYSTEM_CALL)  # fxsave
    frame = fpu_thread(guest, 0xABCD, 0)
    assert guest.run(frame) is traps.SYSTEM_CALL
    guest.engine.sync_fpu(frame)
    saved = memoryview(frame).cast("B")[FPU_AREA * 4 : FPU_AREA * 4 + 512].tobytes()
    assert guest.run(frame) is traps.SYSTEM_CALL
    written = guest.get(guest.data_pfn, 512, 0x100)
    # Not compared: the last instruction's opcode and addresses (bytes 6..23), the reserved rest.
    assert saved[:6] == written[:6]
    assert saved[24:28] == written[24:28]
    assert all(saved[32 + 16 * i : 42 + 16 * i] == written[32 + 16 * i : 42 + 16 * i] for i in range(8))
    assert saved[160:288] == written[160:288]


def test_sync_shows_live_state_and_drop_discards_it() -> None:
    guest = Guest()
    guest.put(guest.code_pfn, LOAD_FPU + SHOW_FPU)
    frame, other = fpu_thread(guest, 0x55, 0), fpu_thread(guest, 0x66, 1)
    guest.run(frame)
    guest.engine.sync_fpu(frame)
    area = memoryview(frame).cast("B")[FPU_AREA * 4 :]
    assert area[32:42].tobytes() == PI
    assert area[160 + 48 : 160 + 52].tobytes() == word(0x55)
    # The kernel gives the state to another thread.
    guest.engine.drop_fpu(other)
    other[FPU_AREA : FPU_AREA + 128] = frame[FPU_AREA : FPU_AREA + 128]
    other[FPU_VALID], other[EIP] = 1, CODE + len(LOAD_FPU)
    guest.run(other)
    assert (guest.get(guest.data_pfn, 10, 64), guest.word(guest.data_pfn, 64 + 16)) == (PI, 0x55)
    # And clears the first one's.
    guest.engine.drop_fpu(frame)
    frame[FPU_VALID] = 0
    guest.run(frame)
    assert guest.word(guest.data_pfn, 16) == 0


def test_state_of_a_frame_given_back_is_not_saved_into_it() -> None:
    guest = Guest()
    guest.put(guest.code_pfn, LOAD_FPU + SHOW_FPU)
    first = fpu_thread(guest, 1, 0)
    guest.run(first)
    guest.pool.give_back(first)
    again = fpu_thread(guest, 2, 1)
    assert again is first
    other = fpu_thread(guest, 3, 2)
    guest.run(other)
    assert not any(again[FPU_AREA:FRAME_WORDS])
    again[EIP] = CODE + len(LOAD_FPU)
    guest.run(again)
    assert guest.word(guest.data_pfn, 64 + 16) == 0


def test_a_frame_whose_state_is_live_is_not_freed_under_the_vcpu() -> None:
    guest = Guest()
    guest.put(guest.code_pfn, LOAD_FPU + SHOW_FPU)
    frame = fpu_thread(guest, 1, 0)
    guest.run(frame)
    kept = weakref.ref(frame)
    del frame
    guest.run(guest.thread(CODE + len(LOAD_FPU) - 2))  # does not touch x87
    assert kept() is not None
    guest.run(fpu_thread(guest, 2, 1))
    assert kept() is None


def test_a_switch_is_charged_and_the_instruction_counted_once() -> None:
    guest = Guest(costs=CostTable(**CostTable.uniform().as_dict() | {"fpu_switch": 200_000}))
    trap, frame = guest.run_code("40 40 d9e8 40 cd30")
    assert trap is traps.SYSTEM_CALL
    assert (instructions(frame), cycles(frame), switches(frame)) == (5, 205, 1)


def test_mmx_uses_the_same_state() -> None:
    guest = Guest()
    guest.put(guest.code_pfn, bytes.fromhex("0f6ec0 cd30 0f7ec1 cd30"))
    frames = [fpu_thread(guest, 0x10 + i, i) for i in range(2)]
    for _ in range(2):
        for frame in frames:
            assert guest.run(frame) is traps.SYSTEM_CALL
    assert [frame[ECX] for frame in frames] == [0x10, 0x11]


# --- cpuid ------------------------------------------------------------------------------------------


def cpuid(guest: Guest, leaf: int, subleaf: int = 0, core: int = 0) -> tuple[int, int, int, int]:
    guest.put(guest.code_pfn, as_bytes("0fa2 cd30"))
    frame = guest.thread()
    set_registers(frame, eax=leaf, ecx=subleaf)
    assert guest.run(frame, core=core) is traps.SYSTEM_CALL
    return frame[EAX], frame[EBX], frame[ECX], frame[EDX]


def text(*words: int) -> bytes:
    return b"".join(map(word, words)).rstrip(b"\0")


def test_cpuid_is_the_profiles_processor() -> None:
    guest = Guest(cores=2)
    top, b, c, d = cpuid(guest, 0)
    assert (top, text(b, d, c)) == (1, b"AuthenticAMD")
    signature = cpuid(guest, 1)[0]
    assert (signature >> 8 & 15) + (signature >> 20 & 0xFF) == 16
    assert (signature >> 4 & 15, signature & 15) == (9, 1)
    brand = b"".join(text(*cpuid(guest, 0x80000002 + i)) for i in range(3))
    assert brand.decode() == OPTERON_6174.brand
    assert [cpuid(guest, 1, core=core)[1] >> 24 for core in (0, 1)] == [0, 1]


@pytest.mark.parametrize("leaf", [2, 7, 0xD, 0x7FFF_FFFF, 0x80000005, 0xFFFF_FFFF, 0x40000000])
def test_cpuid_leaves_that_are_not_there_are_zero(leaf: int) -> None:
    assert cpuid(Guest(), leaf, 1) == (0, 0, 0, 0)


# Bit of leaf 1 EDX, leaf 1 ECX, leaf 0x80000001 EDX or ECX; an instruction that must then work.
FEATURES = [
    (1, 3, 0, "d9e8"),
    (1, 3, 4, "0f31"),
    (1, 3, 8, "0fc70b"),
    (1, 3, 15, "0f42c1"),
    (1, 3, 19, "0fae3b"),
    (1, 3, 23, "0f6ec0 0f77"),
    (1, 3, 24, "0fae03"),
    (1, 3, 25, "0f58c1"),
    (1, 3, 26, "660f58c1"),
    (1, 2, 0, "f20fd0c1"),
    (1, 2, 23, "f30fb8c1"),
    (0x80000001, 3, 27, "0f01f9"),
    (0x80000001, 2, 0, "9f 9e"),
    (0x80000001, 2, 5, "f30fbdc1"),
    (0x80000001, 2, 6, "f20f79c1"),
]
# Not to be promised: sysenter (int 0x30 is the way in), APIC, monitor, AES, XSAVE, AVX, RDRAND, …
ABSENT = [
    *((1, 3, bit) for bit in (6, 7, 9, 11, 12, 16, 18, 27, 28, 30)),
    *((1, 2, bit) for bit in (1, 3, 9, 12, 13, 19, 20, 21, 22, 25, 26, 27, 28, 29, 30, 31)),
    *((0x80000001, 3, bit) for bit in (11, 20, 29, 30, 31)),
    *((0x80000001, 2, bit) for bit in (2, 11, 16)),
]


@pytest.mark.parametrize(("leaf", "register", "bit", "code"), FEATURES)
def test_features_that_cpuid_promises_work(leaf: int, register: int, bit: int, code: str) -> None:
    guest = Guest()
    assert cpuid(guest, leaf)[register] >> bit & 1
    trap, _ = guest.run_code(code + "cd30", ebx=DATA)
    assert trap is traps.SYSTEM_CALL


def test_features_that_are_not_there_are_not_promised() -> None:
    guest = Guest()
    assert [feature for feature in ABSENT if cpuid(guest, feature[0])[feature[1]] >> feature[2] & 1] == []


def test_every_promised_bit_is_one_of_those_tested() -> None:
    """PSE, MSR and PGE are the kernel's: no instruction of user mode goes with them."""
    tested = {(leaf, register, bit) for leaf, register, bit, _ in FEATURES} | {
        (1, 3, 3),
        (1, 3, 5),
        (1, 3, 13),
    }
    guest = Guest()
    edx = cpuid(guest, 1)[3]
    promised = {
        (leaf, register, bit)
        for leaf in (1, 0x80000001)
        for register in (2, 3)
        for bit in range(32)
        if cpuid(guest, leaf)[register] >> bit & 1
        and not (leaf > 1 and register == 3 and bit < 25 and edx >> bit & 1)  # AMD repeats leaf 1
    }
    assert promised == tested


def test_older_processors_promise_less() -> None:
    pentium = CpuidModel("GenuineIntel", 5, 2, 12, "")
    i486 = CpuidModel("GenuineIntel", 4, 1, 0, "")
    haswell = CpuidModel("GenuineIntel", 6, 0x3C, 3, "Intel(R) Core(TM) i7-4770 CPU @ 3.40GHz")
    assert [leaf.leaf for leaf in cpuid_leaves(i486)] == [0, 1]
    assert {leaf.leaf: leaf.edx for leaf in cpuid_leaves(i486)}[1] == 1
    assert {leaf.leaf: leaf.edx for leaf in cpuid_leaves(pentium)}[1] == 0x139
    assert {leaf.leaf: leaf.eax for leaf in cpuid_leaves(haswell)}[1] == 0x306C3
    assert not {leaf.leaf: leaf.ecx for leaf in cpuid_leaves(haswell)}[0x80000001] & 1 << 6  # SSE4A is AMD's


def test_cpuid_of_another_processor() -> None:
    ram = Ram(4 << 20)
    engine = Engine(ram, CostTable.uniform(), CpuidModel("GenuineIntel", 5, 2, 12, ""))
    ram.words[0x1000 >> 2] = 0x2007
    ram.words[0x2000 >> 2] = 0x3007
    ram.bytes_[0x3000:0x3004] = b"\x0f\xa2\xcd\x30"
    frame = FramePool(FIASCO.selectors).take()
    frame[CR3] = 0x1000
    assert Vcpu(engine, 0).run(frame, 100) is traps.SYSTEM_CALL
    assert text(frame[EBX], frame[EDX], frame[ECX]) == b"GenuineIntel"


def test_a_segment_is_not_left_to_the_next_address_space() -> None:
    guest = Guest()
    other = AddressSpace(guest)
    other.map(CODE, guest.code_pfn)
    other.map(DATA, guest.take_frame())
    guest.put(guest.data_pfn, word(5))
    guest.put(guest.code_pfn, READ_FS + SYSTEM_CALL)
    here, there = guest.thread(), guest.thread(space=other)
    here[UTCB_BASE] = there[UTCB_BASE] = DATA
    guest.run(here)
    guest.run(there)
    assert (here[EAX], there[EAX]) == (5, 0)
