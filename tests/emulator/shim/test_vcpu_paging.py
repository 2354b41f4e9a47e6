"""Page tables as user mode sees them: rights, accessed and dirty bits, large pages, faults, the TLB."""

from __future__ import annotations

import itertools
from array import array

import pytest

from l4lab.emulator.costs import CostTable
from l4lab.kernel import traps
from l4lab.kernel.frame import CR3, EAX, EIP, FPU_CORE, FPU_SWITCHES, TLB_MISSES
from l4lab.kernel.traps import PageFault, Trap
from support.guest import (
    ACCESSED,
    CODE,
    DATA,
    DIRTY,
    GLOBAL,
    LARGE,
    PRESENT,
    READ_ONLY,
    READ_WRITE,
    STACK_TOP,
    SYSTEM_CALL,
    UNMAPPED,
    USER,
    WRITABLE,
    AddressSpace,
    Guest,
    as_bytes,
    cycles,
    instructions,
    set_registers,
    tlb_misses,
    word,
)

LOAD = bytes.fromhex("8b03") + SYSTEM_CALL  # mov eax, [ebx]
STORE = bytes.fromhex("8903") + SYSTEM_CALL  # mov [ebx], eax
LARGE_PAGE = 0x0080_0000


def access(guest: Guest, code: bytes, address: int) -> Trap:
    """Runs LOAD or STORE at an address, TLB empty."""
    guest.vcpu.flush_tlb()
    return guest.run_code(code, ebx=address)[0]


def read_fault(address: int, *, present: bool) -> PageFault:
    return PageFault(address, write=False, fetch=False, present=present)


def write_fault(address: int, *, present: bool) -> PageFault:
    return PageFault(address, write=True, fetch=False, present=present)


def fetch_fault(address: int, *, present: bool) -> PageFault:
    return PageFault(address, write=False, fetch=True, present=present)


# --- rights -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pde", "pte"), list(itertools.product(range(8), repeat=2)))
def test_rights_of_both_levels_are_combined(pde: int, pte: int) -> None:
    """All 64 combinations of P, R/W and U/S in the two entries. SDM vol. 3, table 5-3."""
    guest = Guest()
    table, page, address = guest.take_frame(), guest.take_frame(), 0x0140_0123
    guest.ram.words[guest.space.directory_entry(address)] = table << 12 | pde
    guest.ram.words[table * 1024] = page << 12 | pte
    present = bool(pde & pte & PRESENT)
    user = present and bool(pde & pte & USER)
    writable = user and bool(pde & pte & WRITABLE)
    assert access(guest, LOAD, address) == (
        traps.SYSTEM_CALL if user else read_fault(address, present=present)
    )
    assert access(guest, STORE, address) == (
        traps.SYSTEM_CALL if writable else write_fault(address, present=present)
    )
    frame = guest.thread(eip=address)
    trap = guest.run(frame)
    # No execute-disable: what may be read may be executed. The page holds zeros: add [eax], al.
    assert trap == (write_fault(0, present=False) if user else fetch_fault(address, present=present))


@pytest.mark.parametrize("flags", range(8))
def test_rights_of_a_large_page(flags: int) -> None:
    guest = Guest()
    guest.ram.words[guest.space.directory_entry(LARGE_PAGE)] = 0x0040_0000 | LARGE | flags
    present, user = bool(flags & PRESENT), flags & 5 == 5
    address = LARGE_PAGE + 0x0012_3456
    assert access(guest, LOAD, address) == (
        traps.SYSTEM_CALL if user else read_fault(address, present=present)
    )
    writes = traps.SYSTEM_CALL if flags == 7 else write_fault(address, present=present)
    assert access(guest, STORE, address) == writes


def test_a_large_page_maps_all_its_frames() -> None:
    guest = Guest()
    guest.space.map_large(LARGE_PAGE, 0x400)
    for offset in (0, 0x0000_1000, 0x0020_0000, 0x003F_FFFC):
        guest.ram.words[0x0040_0000 + offset >> 2] = offset + 1
        frame = guest.run_code(LOAD, ebx=LARGE_PAGE + offset)[1]
        assert frame[EAX] == offset + 1


def test_large_page_bits_that_reach_beyond_32_bits_are_refused() -> None:
    guest = Guest()
    guest.ram.words[guest.space.directory_entry(LARGE_PAGE)] = 0x0040_0000 | LARGE | READ_WRITE | 1 << 13
    assert access(guest, LOAD, LARGE_PAGE) == read_fault(LARGE_PAGE, present=True)


@pytest.mark.parametrize("pfn", [0x1000, 0x3FFFF, 0x80000, 0xFFFFE, 0xFFFFF])
def test_frames_beyond_ram_are_refused(pfn: int) -> None:
    """16 MiB of RAM; the last frame of the address space is where the shim keeps its own page."""
    guest = Guest()
    guest.space.map(UNMAPPED, pfn)
    assert access(guest, LOAD, UNMAPPED + 4) == read_fault(UNMAPPED + 4, present=True)
    assert access(guest, STORE, UNMAPPED + 4) == write_fault(UNMAPPED + 4, present=True)
    assert guest.run(guest.thread(eip=UNMAPPED)) == fetch_fault(UNMAPPED, present=True)


def test_page_tables_beyond_ram_are_not_present() -> None:
    guest = Guest()
    guest.ram.words[guest.space.directory_entry(0x0140_0000)] = 0xFFFF_F000 | READ_WRITE
    assert access(guest, LOAD, 0x0140_0000) == read_fault(0x0140_0000, present=False)


def test_a_page_directory_beyond_ram_maps_nothing() -> None:
    guest = Guest()
    frame = guest.thread()
    for directory in (0x0100_0000, 0xFFFF_F000):
        frame[CR3] = directory
        assert guest.run(frame) == fetch_fault(CODE, present=False)


def test_rights_added_to_a_page_need_no_flush() -> None:
    guest = Guest()
    guest.space.map(UNMAPPED, guest.take_frame(), READ_ONLY)
    frame = guest.run_code(LOAD + STORE, ebx=UNMAPPED)[1]
    assert guest.run(frame) == write_fault(UNMAPPED, present=True)
    guest.ram.words[guest.space.entry(UNMAPPED)] |= WRITABLE
    assert guest.run(frame) is traps.SYSTEM_CALL


# --- what a fault says ------------------------------------------------------------------------------

# Code, faulting address, write. EBX = UNMAPPED + 0x123, ESI = EDI = UNMAPPED + 0x200, ESP = UNMAPPED + 0x100.
FAULTS = [
    ("8b03", 0x123, False),
    ("8a5305", 0x128, False),
    ("668b8b00010000", 0x223, False),
    ("8903", 0x123, True),
    ("c6430112", 0x124, True),
    ("0103", 0x123, True),  # read first and written then: one access, a write
    ("832b01", 0x123, True),
    ("f713", 0x123, True),
    ("ff0b", 0x123, True),
    ("d123", 0x123, True),
    ("8703", 0x123, True),
    ("0fab03", 0x123, True),
    ("0fba2b03", 0x123, True),
    ("f00fc103", 0x123, True),
    ("0fb10b", 0x123, True),
    ("0fc70b", 0x123, True),
    ("0fa40305", 0x123, True),
    ("3b03", 0x123, False),
    ("8503", 0x123, False),
    ("0fa303", 0x123, False),
    ("f733", 0x123, False),
    ("50", 0xFC, True),
    ("58", 0x100, False),
    ("e800000000", 0xFC, True),
    ("c3", 0x100, False),
    ("ff33", 0x123, False),
    ("8f03", 0x100, False),
    ("a4", 0x200, False),
    ("aa", 0x200, True),
    ("ac", 0x200, False),
    ("f3ab", 0x200, True),
    ("a6", 0x200, False),
    ("d7", 0x123, False),
    ("dd03", 0x123, False),
    ("dd1b", 0x123, True),
    ("0f1003", 0x123, False),
    ("0f1103", 0x123, True),
    ("0fae03", 0x123, True),
    ("a1" + word(UNMAPPED + 0xFFF).hex(), 0xFFF, False),
    ("a3" + word(UNMAPPED - 2).hex(), 0, True),  # runs into the page from the one before
    ("8b05" + word(UNMAPPED - 3).hex(), 0, False),
]


@pytest.mark.parametrize(("code", "offset", "write"), FAULTS, ids=str)
def test_page_fault_address_and_access(code: str, offset: int, write: bool) -> None:
    guest = Guest()
    guest.new_page(UNMAPPED - 0x1000)
    address = UNMAPPED + 0x123
    registers = {"esi": UNMAPPED + 0x200, "edi": UNMAPPED + 0x200, "esp": UNMAPPED + 0x100}
    if "0fae03" in code:
        address = UNMAPPED + 0x120  # FXSAVE wants 16-byte alignment
        offset = 0x120
    trap, frame = guest.run_code("9090" + code + "cd30", ebx=address, ecx=2, **registers)
    assert trap == PageFault(UNMAPPED + offset, write=write, fetch=False, present=False)
    assert (frame[EIP], instructions(frame)) == (CODE + 2, 2)


def test_error_code_as_the_hardware_pushes_it() -> None:
    guest = Guest()
    guest.space.map(UNMAPPED, guest.take_frame(), READ_ONLY)
    read, write = access(guest, LOAD, 0x10), access(guest, STORE, UNMAPPED)
    assert isinstance(read, PageFault) and read.error_code == 4
    assert isinstance(write, PageFault) and write.error_code == 7


def test_an_access_that_runs_over_the_end_of_the_address_space_goes_on_at_zero() -> None:
    guest = Guest()
    last = guest.new_page(0xFFFF_F000)
    guest.put(last, b"\x11\x22", offset=0xFFE)
    assert access(guest, LOAD, 0xFFFF_FFFE) == read_fault(0, present=False)
    first = guest.new_page(0)
    guest.put(first, b"\x33\x44")
    frame = guest.run_code(LOAD, ebx=0xFFFF_FFFE)[1]
    assert frame[EAX] == 0x4433_2211


# --- fetches ----------------------------------------------------------------------------------------


def test_fetch_from_an_unmapped_page() -> None:
    guest = Guest()
    trap, frame = guest.run_code("90 e9" + word(UNMAPPED + 0x10 - CODE - 6).hex())
    assert trap == fetch_fault(UNMAPPED + 0x10, present=False)
    assert (frame[EIP], instructions(frame)) == (UNMAPPED + 0x10, 2)


def test_instructions_before_an_unmapped_page_are_executed_first() -> None:
    """The engine translates past the end of the page and would report the fault at the block's start."""
    guest = Guest()
    guest.put(guest.code_pfn, bytes.fromhex("40 40 c7051000500001000000 40"), offset=0xFF3)
    frame = guest.thread(eip=CODE + 0xFF3)
    assert guest.run(frame) == fetch_fault(CODE + 0x1000, present=False)
    assert (frame[EIP], frame[EAX], instructions(frame)) == (CODE + 0x1000, 3, 4)
    assert guest.word(guest.data_pfn, 0x10) == 1


def test_a_data_fault_before_an_unmapped_page_comes_first() -> None:
    guest = Guest()
    guest.put(guest.code_pfn, bytes.fromhex("40 a110000000 40"), offset=0xFF8)
    frame = guest.thread(eip=CODE + 0xFF8)
    assert guest.run(frame) == read_fault(0x10, present=False)
    assert (frame[EIP], instructions(frame)) == (CODE + 0xFF9, 1)


@pytest.mark.parametrize("first_part", [1, 3, 5])
def test_an_instruction_that_runs_into_an_unmapped_page(first_part: int) -> None:
    guest = Guest()
    code = bytes.fromhex("c7051000500001000000") + SYSTEM_CALL  # mov dword [DATA + 0x10], 1
    start = CODE + 0x1000 - first_part
    guest.put(guest.code_pfn, b"\x40" + code[:first_part], offset=0x1000 - first_part - 1)
    frame = guest.thread(eip=start - 1)
    assert guest.run(frame) == fetch_fault(CODE + 0x1000, present=False)
    assert (frame[EIP], instructions(frame)) == (start, 1)
    second = guest.new_page(CODE + 0x1000, READ_ONLY)
    guest.put(second, code[first_part:])
    assert guest.run(frame) is traps.SYSTEM_CALL
    assert (guest.word(guest.data_pfn, 0x10), instructions(frame)) == (1, 3)


@pytest.mark.parametrize(
    "code", ["d9e8", "0f58c1", "0f20c0", "0f3a00c0", "66660f0b", "f7f1", "c5f877", "0fc7f0"]
)
def test_an_exception_does_not_come_before_the_instruction_is_fetched(code: str) -> None:
    """The engine raises some by the first byte; the first two also in place of a switch of x87 state."""
    guest = Guest()
    data = as_bytes(code)
    for split in range(1, len(data)):
        guest.put(guest.code_pfn, data[:split], 0x1000 - split)
        frame = guest.thread(CODE + 0x1000 - split)
        assert guest.run(frame) == fetch_fault(CODE + 0x1000, present=False)
        assert (frame[EIP], instructions(frame)) == (CODE + 0x1000 - split, 0)
        assert not any(frame[FPU_CORE:TLB_MISSES]) and not frame[FPU_SWITCHES]


def test_second_page_of_a_block_is_unmapped_later() -> None:
    guest = Guest()
    second = guest.new_page(CODE + 0x1000, READ_ONLY)
    guest.put(guest.code_pfn, b"\x40\x40", offset=0xFFE)
    guest.put(second, b"\x40" + SYSTEM_CALL)
    frame = guest.thread(eip=CODE + 0xFFE)
    assert guest.run(frame) is traps.SYSTEM_CALL
    guest.space.unmap(CODE + 0x1000)
    guest.vcpu.invalidate_page(CODE + 0x1000)
    frame[EIP] = CODE + 0xFFE
    assert guest.run(frame) == fetch_fault(CODE + 0x1000, present=False)
    assert (frame[EAX], instructions(frame)) == (5, 6)


def test_second_page_of_a_block_is_replaced() -> None:
    guest = Guest()
    second, other = guest.new_page(CODE + 0x1000, READ_ONLY), guest.take_frame()
    guest.put(guest.code_pfn, b"\x40\x40", offset=0xFFE)
    guest.put(second, b"\x40" + SYSTEM_CALL)
    guest.put(other, b"\x40\x40\x40" + SYSTEM_CALL)
    frame = guest.thread(eip=CODE + 0xFFE)
    guest.run(frame)
    guest.space.map(CODE + 0x1000, other, READ_ONLY)
    guest.vcpu.invalidate_page(CODE + 0x1000)
    frame[EIP] = CODE + 0xFFE
    assert guest.run(frame) is traps.SYSTEM_CALL
    assert (frame[EAX], instructions(frame)) == (3 + 5, 4 + 6)


def test_a_conditional_jump_across_2_gib_wraps() -> None:
    """The engine does not cut the target of a near jcc to 32 bits."""
    guest = Guest()
    far = guest.new_page(0x9000_0000, READ_ONLY)
    guest.put(far, b"\x40" + SYSTEM_CALL)
    guest.put(guest.code_pfn, bytes.fromhex("31c0 0f84") + word(0x9000_0000 - CODE - 8))
    frame = guest.thread()
    assert guest.run(frame) is traps.SYSTEM_CALL
    assert (frame[EIP], frame[EAX], instructions(frame)) == (0x9000_0003, 1, 4)


# --- accessed and dirty -----------------------------------------------------------------------------


def entry_bits(guest: Guest, address: int) -> int:
    return guest.ram.words[guest.space.entry(address)] & (ACCESSED | DIRTY)


def test_a_read_sets_accessed_at_both_levels_and_a_write_dirty_at_the_last() -> None:
    guest = Guest()
    assert entry_bits(guest, DATA) == 0
    access(guest, LOAD, DATA)
    assert entry_bits(guest, DATA) == ACCESSED
    directory = guest.ram.words[guest.space.directory_entry(DATA)]
    assert directory & (ACCESSED | DIRTY) == ACCESSED
    access(guest, STORE, DATA)
    assert entry_bits(guest, DATA) == ACCESSED | DIRTY
    assert entry_bits(guest, CODE) == ACCESSED
    assert guest.ram.words[guest.space.directory_entry(DATA)] & DIRTY == 0


def test_a_write_to_a_page_already_in_the_tlb_sets_dirty() -> None:
    guest = Guest()
    trap, _ = guest.run_code(LOAD[:2] + STORE, ebx=DATA)
    assert trap is traps.SYSTEM_CALL
    assert entry_bits(guest, DATA) == ACCESSED | DIRTY


def test_accessed_and_dirty_of_a_large_page() -> None:
    guest = Guest()
    guest.space.map_large(LARGE_PAGE, 0x400)
    entry = guest.space.directory_entry(LARGE_PAGE)
    access(guest, LOAD, LARGE_PAGE + 0x5000)
    assert guest.ram.words[entry] & (ACCESSED | DIRTY) == ACCESSED
    access(guest, STORE, LARGE_PAGE + 0x9000)
    assert guest.ram.words[entry] & (ACCESSED | DIRTY) == ACCESSED | DIRTY


def test_a_refused_access_marks_nothing() -> None:
    guest = Guest()
    guest.space.map(UNMAPPED, guest.take_frame(), READ_ONLY)
    access(guest, STORE, UNMAPPED)
    assert entry_bits(guest, UNMAPPED) == 0


def test_dirty_is_set_again_after_the_kernel_cleared_it() -> None:
    guest = Guest()
    access(guest, STORE, DATA)
    guest.ram.words[guest.space.entry(DATA)] &= ~DIRTY
    guest.vcpu.invalidate_page(DATA)
    guest.run_code(STORE, ebx=DATA)
    assert entry_bits(guest, DATA) == ACCESSED | DIRTY


# --- the modelled TLB -------------------------------------------------------------------------------


def misses_of(guest: Guest, frame: array[int]) -> int:
    before = tlb_misses(frame)
    assert guest.run(frame) is traps.SYSTEM_CALL
    return tlb_misses(frame) - before


def looping_thread(
    guest: Guest, code: str, space: AddressSpace | None = None, **registers: int
) -> array[int]:
    """`code`, then int 0x30, then from the start again."""
    body = as_bytes(code) + SYSTEM_CALL
    guest.put(guest.code_pfn, body + bytes([0xEB, 0x100 - len(body) - 2]))
    frame = guest.thread(space=space)
    set_registers(frame, **registers)
    return frame


def test_a_page_misses_once_for_code_and_once_for_data() -> None:
    guest = Guest()
    frame = looping_thread(guest, "8b03 8903 8b03", ebx=DATA)
    assert [misses_of(guest, frame) for _ in range(3)] == [2, 0, 0]
    read_own_code = looping_thread(guest, "8b03", ebx=CODE)
    guest.vcpu.flush_tlb()
    assert [misses_of(guest, read_own_code) for _ in range(3)] == [2, 0, 0]


def test_a_first_write_to_a_page_that_was_read_is_no_miss() -> None:
    guest = Guest()
    frame = looping_thread(guest, "8b03", ebx=DATA)
    misses_of(guest, frame)
    assert misses_of(guest, looping_thread(guest, "8903", ebx=DATA)) == 0


def test_flush_and_invalidate_are_seen_as_the_misses_that_follow() -> None:
    guest = Guest()
    frame = looping_thread(guest, "8b03 50 58", ebx=DATA)
    assert misses_of(guest, frame) == 3
    guest.vcpu.flush_tlb()
    assert misses_of(guest, frame) == 3
    guest.vcpu.invalidate_page(DATA + 0x123)
    assert misses_of(guest, frame) == 1
    guest.vcpu.invalidate_page(UNMAPPED)
    assert misses_of(guest, frame) == 0
    guest.vcpu.invalidate_page(CODE)
    guest.vcpu.invalidate_page(STACK_TOP - 4)
    assert misses_of(guest, frame) == 2


def test_loading_another_address_space_flushes_all_but_global_pages() -> None:
    guest = Guest()
    other = AddressSpace(guest)
    for space, address in itertools.product((guest.space, other), (CODE, DATA)):
        space.map(
            address,
            guest.code_pfn if address == CODE else guest.data_pfn,
            READ_WRITE | (GLOBAL * (address == CODE)),
        )
    first = looping_thread(guest, "8b03", ebx=DATA)
    second = looping_thread(guest, "8b03", space=other, ebx=DATA)
    assert [misses_of(guest, f) for f in (first, first, second, second, first)] == [2, 0, 1, 0, 1]
    guest.vcpu.flush_tlb()
    assert misses_of(guest, first) == 1
    guest.vcpu.invalidate_page(CODE)
    assert misses_of(guest, first) == 1


def test_a_large_page_is_one_entry() -> None:
    guest = Guest()
    guest.space.map_large(LARGE_PAGE, 0x400)
    frame = looping_thread(guest, "8b03 8b8300200000 8b8300003000", ebx=LARGE_PAGE)
    assert misses_of(guest, frame) == 2
    guest.vcpu.invalidate_page(LARGE_PAGE + 0x0020_0000)
    assert misses_of(guest, frame) == 1


def test_misses_do_not_depend_on_the_size_of_the_engines_tlb() -> None:
    """2000 pages, read over and over: the engine refills, the model counts each once."""
    guest = Guest(ram_bytes=32 << 20)
    pages, base = 2000, 0x1000_0000
    for page in range(pages):
        guest.new_page(base + page * 0x1000)
    code = "b9" + word(pages).hex() + "bb" + word(base).hex() + "8b03 81c300100000 49 75f5"
    frame = looping_thread(guest, code)
    assert [misses_of(guest, frame) for _ in range(4)] == [pages + 1, 0, 0, 0]


def test_a_refused_access_is_no_miss() -> None:
    guest = Guest()
    guest.run_code(LOAD, ebx=DATA)
    frame = guest.run_code(LOAD, ebx=UNMAPPED)[1]
    assert tlb_misses(frame) == 0


def test_a_miss_costs_what_the_table_says() -> None:
    costs = CostTable.uniform().as_dict() | {"tlb_miss": 30_000}
    guest = Guest(costs=CostTable(**costs))
    frame = looping_thread(guest, "8b03", ebx=DATA)
    misses_of(guest, frame)
    assert cycles(frame) == 2 + 2 * 30
    misses_of(guest, frame)
    assert cycles(frame) == 2 + 2 * 30 + 3


def test_user_code_cannot_see_the_page_with_the_descriptors() -> None:
    """Not by the address the processor reports, nor after loading a segment register has read it."""
    guest = Guest()
    trap, _ = guest.run_code("0f0103 cd30", ebx=DATA)  # sgdt
    assert trap is traps.SYSTEM_CALL
    base = guest.word(guest.data_pfn, 0) >> 16 | (guest.word(guest.data_pfn, 4) & 0xFFFF) << 16
    for address in {base, 0xFFFF_F000, 0xFFFF_F040}:
        trap, _ = guest.run_code("b843000000 8ee0 8b03 cd30", ebx=address)
        assert trap == read_fault(address, present=False)


# --- translations that are out of date --------------------------------------------------------------


def engine_forgets(guest: Guest) -> None:
    """Makes the engine fill its own TLB anew, which may happen any time and must not be seen."""
    guest.engine.set_kernel_written(guest.code_pfn, True)
    guest.run(guest.thread())
    guest.engine.set_kernel_written(guest.code_pfn, False)


def read_word(guest: Guest, frame: array[int]) -> int:
    frame[EIP] = CODE
    assert guest.run(frame) is traps.SYSTEM_CALL
    return frame[EAX]


def test_a_changed_entry_counts_from_its_invalidation() -> None:
    guest = Guest()
    first, second = guest.new_page(UNMAPPED), guest.take_frame()
    guest.put(first, word(1))
    guest.put(second, word(2))
    frame = guest.run_code(LOAD, ebx=UNMAPPED)[1]
    guest.space.map(UNMAPPED, second)
    assert read_word(guest, frame) == 1
    engine_forgets(guest)
    assert read_word(guest, frame) == 1
    guest.vcpu.invalidate_page(UNMAPPED)
    assert read_word(guest, frame) == 2


def test_rights_taken_away_are_lost_with_the_invalidation() -> None:
    guest = Guest()
    guest.new_page(UNMAPPED)
    frame = guest.run_code(STORE, ebx=UNMAPPED, eax=7)[1]
    for entry, fault in ((READ_ONLY, True), (0, False)):
        pte = guest.space.entry(UNMAPPED)
        guest.ram.words[pte] = guest.ram.words[pte] & ~0xFFF | entry if entry else 0
        engine_forgets(guest)
        frame[EIP] = CODE
        assert guest.run(frame) is traps.SYSTEM_CALL
        guest.vcpu.invalidate_page(UNMAPPED)
        frame[EIP] = CODE
        assert guest.run(frame) == write_fault(UNMAPPED, present=fault)
        guest.ram.words[pte] = guest.data_pfn << 12 | READ_WRITE
        frame[EIP] = CODE
        assert guest.run(frame) is traps.SYSTEM_CALL


def test_code_unmapped_runs_until_the_invalidation() -> None:
    guest = Guest()
    frame = guest.run_code("40 40 cd30")[1]
    guest.space.unmap(CODE)
    engine_forgets(guest)
    frame[EIP] = CODE
    assert guest.run(frame) is traps.SYSTEM_CALL
    guest.vcpu.flush_tlb()
    frame[EIP] = CODE
    assert guest.run(frame) == fetch_fault(CODE, present=False)


def test_bits_cleared_without_an_invalidation_stay_clear() -> None:
    guest = Guest()
    frame = guest.run_code(STORE, ebx=DATA)[1]
    for page in (DATA, CODE):
        guest.ram.words[guest.space.entry(page)] &= ~(ACCESSED | DIRTY)
    engine_forgets(guest)
    frame[EIP] = CODE
    guest.run(frame)
    assert [entry_bits(guest, page) for page in (DATA, CODE)] == [0, 0]
    guest.vcpu.invalidate_page(DATA)
    frame[EIP] = CODE
    guest.run(frame)
    assert [entry_bits(guest, page) for page in (DATA, CODE)] == [ACCESSED | DIRTY, 0]


def test_an_access_that_the_translation_does_not_allow_looks_at_the_tables() -> None:
    """The first store to a clean page sees a changed entry, and is no miss."""
    guest = Guest()
    first, second = guest.new_page(UNMAPPED), guest.take_frame()
    frame = guest.run_code(LOAD + STORE, ebx=UNMAPPED)[1]
    misses = tlb_misses(frame)
    guest.space.map(UNMAPPED, second)
    frame[EAX] = 9
    assert guest.run(frame) is traps.SYSTEM_CALL
    assert (guest.word(first), guest.word(second), tlb_misses(frame)) == (0, 9, misses)


def test_a_small_page_replaced_by_a_large_one_and_back() -> None:
    guest = Guest()
    small = guest.new_page(LARGE_PAGE)
    table = guest.ram.words[guest.space.directory_entry(LARGE_PAGE)]
    guest.put(small, word(1))
    guest.put(0x400, word(2))
    frame = guest.run_code(LOAD, ebx=LARGE_PAGE)[1]
    for expected_stale, expected in ((1, 2), (2, 1)):
        if expected == 2:
            guest.space.map_large(LARGE_PAGE, 0x400)
        else:
            guest.ram.words[guest.space.directory_entry(LARGE_PAGE)] = table
        engine_forgets(guest)
        assert read_word(guest, frame) == expected_stale
        guest.vcpu.invalidate_page(LARGE_PAGE)
        assert read_word(guest, frame) == expected


def test_out_of_date_translations_do_not_depend_on_the_size_of_the_engines_tlb() -> None:
    guest = Guest(ram_bytes=32 << 20)
    pages, base = 3000, 0x1000_0000
    for page in range(pages):
        guest.new_page(base + page * 0x1000)
    code = "b9" + word(pages).hex() + "bb" + word(base).hex() + "8b03 81c300100000 49 75f5"
    frame = looping_thread(guest, code)
    misses_of(guest, frame)
    for page in range(pages):
        guest.space.unmap(base + page * 0x1000)
    assert misses_of(guest, frame) == 0
    guest.vcpu.invalidate_page(base + 0x0012_3000)
    assert guest.run(frame) == read_fault(base + 0x0012_3000, present=False)
