"""Code that changes: what runs is always what is in memory, and the books stay exact."""

from __future__ import annotations

import random
from array import array

import pytest

from l4lab.emulator.vcpu import NO_DEADLINE
from l4lab.kernel import traps
from l4lab.kernel.frame import EAX, ECX, EIP
from l4lab.kernel.traps import DEADLINE_REACHED, CpuException
from support.guest import (
    CODE,
    DATA,
    READ_ONLY,
    SYSTEM_CALL,
    AddressSpace,
    Guest,
    as_bytes,
    cycles,
    instructions,
    set_registers,
    word,
)

ALIAS = 0x0048_0000  # where tests map the code page again, writable


@pytest.fixture
def guest() -> Guest:
    """Its code page is writable."""
    guest = Guest(cores=2)
    guest.space.map(CODE, guest.code_pfn)
    return guest


def store_byte(address: int, value: int) -> str:
    """mov byte [address], value: 7 bytes."""
    return "c605" + word(address).hex() + f"{value:02x}"


# --- code that changes itself -----------------------------------------------------------------------

# Code, EAX at the end, completed instructions.
SELF_MODIFYING = [
    ("the next instruction", store_byte(CODE + 8, 0x42) + "b000 cd30", 0x42, 3),
    ("two instructions on", store_byte(CODE + 9, 0x42) + "90 b000 cd30", 0x42, 4),
    (
        "its own immediate",
        "c705" + word(CODE + 6).hex() + "11223344 a1" + word(CODE + 6).hex() + "cd30",
        0x44332211,
        3,
    ),
    ("its own opcode", "fe05" + word(CODE).hex() + "90 90 cd30", 0, 4),
    (
        "an instruction before it, in a loop",
        "b903000000 b000 fe05" + word(CODE + 6).hex() + "49 75f5 cd30",
        2,
        14,
    ),
    ("the instruction behind the branch", "31c0" + store_byte(CODE + 12, 7) + "eb00 b000 cd30", 7, 5),
    ("twice in one block", store_byte(CODE + 15, 1) + store_byte(CODE + 15, 2) + "b000 cd30", 2, 4),
    # What it has pushed becomes add eax, 0x7b000000, with bytes that are there already.
    ("by push", "bc" + word(CODE + 0x104).hex() + "6805000000 e9" + word(0x100 - 15).hex(), 0x7B00_0000, 5),
    ("data on its page", "ff0580004000 ff0580004000 a180004000 cd30", 2, 4),
    ("by a locked instruction", "b005 f00005" + word(CODE + 10).hex() + "b001 cd30", 6, 4),
    ("by x87", "d9e8 d91d" + word(CODE + 9).hex() + "b800000000 cd30", 0x3F80_0000, 4),
    ("by SSE", "660f6ec3 660f7e05" + word(CODE + 13).hex() + "b800000000 cd30", 0x1234_5678, 4),
    ("by a call", "bc" + word(CODE + 16).hex() + "e801000000 90 b800000000 cd30", CODE + 10, 4),
]


@pytest.mark.parametrize(
    ("code", "eax", "completed"), [s[1:] for s in SELF_MODIFYING], ids=[s[0] for s in SELF_MODIFYING]
)
def test_self_modifying(guest: Guest, code: str, eax: int, completed: int) -> None:
    guest.put(guest.code_pfn, b"\x7b" + SYSTEM_CALL, 0x104)
    trap, frame = guest.run_code(code, ebx=0x1234_5678)
    assert trap is traps.SYSTEM_CALL
    assert frame[EAX] == eax
    assert instructions(frame) == cycles(frame) == completed


def test_a_string_instruction_writes_the_instruction_behind_it(guest: Guest) -> None:
    trap, frame = guest.run_code("b040 b903000000 bf0e004000 f3aa cccccc cd30")  # three times inc eax
    assert trap is traps.SYSTEM_CALL
    assert (frame[EAX], instructions(frame)) == (0x43, 3 + 3 + 3 + 1)


def test_a_string_instruction_overwrites_itself(guest: Guest) -> None:
    """f3 aa becomes f3 90 after its first iteration, which is a pause."""
    trap, frame = guest.run_code("b090 b908000000 bf0d004000 f3aa cd30")
    assert trap is traps.SYSTEM_CALL
    assert (frame[ECX], instructions(frame)) == (7, 3 + 1 + 1 + 1)


def test_a_store_that_runs_from_another_page_into_the_code(guest: Guest) -> None:
    guest.new_page(CODE - 0x1000)
    code = as_bytes("c705" + word(CODE - 2).hex() + "9090f4f4 cd30")
    guest.put(guest.code_pfn, code, 0x100)
    frame = guest.thread(CODE + 0x100)
    assert guest.run(frame) is traps.SYSTEM_CALL
    assert guest.get(guest.code_pfn, 2) == b"\xf4\xf4"
    assert instructions(frame) == 2


def test_an_instruction_on_two_pages_that_writes_to_both(guest: Guest) -> None:
    second = guest.new_page(CODE + 0x1000)
    store = as_bytes("c705" + word(CODE + 0xFFE).hex() + "90909090")  # over its own bytes 3 to 6
    guest.put(guest.code_pfn, store[:5], 0xFFB)
    guest.put(second, store[5:] + as_bytes("40 cd30"))
    frame = guest.thread(CODE + 0xFFB)
    assert guest.run(frame) is traps.SYSTEM_CALL
    assert (frame[EAX], instructions(frame)) == (1, 3)
    assert guest.get(guest.code_pfn, 2, 0xFFE) + guest.get(second, 2) == b"\x90" * 4


def test_a_block_that_reaches_into_the_page_it_writes_to(guest: Guest) -> None:
    """The engine would fetch that page again with every try: the store must get through nevertheless."""
    second = guest.new_page(CODE + 0x1000)
    guest.put(guest.code_pfn, as_bytes("ff05") + word(CODE + 0x1800) + b"\x40" * 10, 0xFF0)
    guest.put(second, b"\x40" * 10 + SYSTEM_CALL)
    frame = guest.thread(CODE + 0xFF0)
    assert guest.run(frame) is traps.SYSTEM_CALL
    assert (guest.word(second, 0x800), frame[EAX], instructions(frame)) == (1, 20, 22)


def test_through_another_mapping_of_the_page(guest: Guest) -> None:
    guest.space.map(CODE, guest.code_pfn, READ_ONLY)
    guest.space.map(ALIAS, guest.code_pfn)
    trap, frame = guest.run_code(store_byte(ALIAS + 8, 0x42) + "b000 cd30")
    assert trap is traps.SYSTEM_CALL
    assert (frame[EAX], instructions(frame)) == (0x42, 3)


def test_through_a_mapping_that_was_written_before_the_code_ran(guest: Guest) -> None:
    """The engine's TLB has a writable entry for the frame by then."""
    guest.space.map(ALIAS, guest.code_pfn)
    writer = guest.new_page(CODE + 0x1000, READ_ONLY)
    guest.put(
        writer,
        as_bytes(store_byte(ALIAS + 1, 5) + "e8")
        + word(CODE - CODE - 0x1000 - 12)
        + as_bytes(store_byte(ALIAS + 1, 6) + "e8")
        + word(-0x1000 - 24)
        + SYSTEM_CALL,
    )
    guest.put(guest.code_pfn, as_bytes("b000 c3"))
    frame = guest.thread(CODE + 0x1000)
    assert guest.run(frame) is traps.SYSTEM_CALL
    assert (frame[EAX], instructions(frame)) == (6, 9)


# --- code that others change ------------------------------------------------------------------------


def counter(guest: Guest, core: int, frame: array[int]) -> int:
    """Runs the code at CODE, `mov al, n; int 0x30`, on a core; n."""
    frame[EIP] = CODE
    assert guest.run(frame, core=core) is traps.SYSTEM_CALL
    return frame[EAX]


def test_another_core_changes_code_that_this_one_has_run(guest: Guest) -> None:
    guest.put(guest.code_pfn, as_bytes("b001 cd30"))
    guest.space.map(ALIAS, guest.code_pfn)
    writer_page = guest.new_page(CODE + 0x1000, READ_ONLY)
    guest.put(writer_page, as_bytes("a2" + word(ALIAS + 1).hex() + "cd30"))
    reader, writer = guest.thread(), guest.thread()
    for value in (1, 7, 8, 9):
        writer[EAX], writer[EIP] = value, CODE + 0x1000
        before = instructions(writer)
        assert guest.run(writer, core=1) is traps.SYSTEM_CALL
        assert instructions(writer) - before == 2
        assert counter(guest, 0, reader) == value
    assert instructions(reader) == 8


def test_both_cores_run_it_and_both_change_it(guest: Guest) -> None:
    code = as_bytes("b000 fe05" + word(ALIAS + 1).hex() + "cd30")
    guest.space.map(ALIAS, guest.code_pfn)
    guest.put(guest.code_pfn, code)
    frames = [guest.thread(), guest.thread()]
    seen = [counter(guest, turn & 1, frames[turn & 1]) for turn in range(10)]
    assert seen == list(range(10))
    assert [instructions(frame) for frame in frames] == [15, 15]


def test_the_other_core_stands_in_the_middle_of_the_changed_block(guest: Guest) -> None:
    guest.put(guest.code_pfn, as_bytes("b905000000 40 49 75fc cd30"))
    guest.space.map(ALIAS, guest.code_pfn)
    frame = guest.thread()
    assert guest.run(frame, 4) is DEADLINE_REACHED
    writer_page = guest.new_page(CODE + 0x1000, READ_ONLY)
    guest.put(writer_page, as_bytes(store_byte(ALIAS + 5, 0x48) + "cd30"))  # inc becomes dec
    guest.run(guest.thread(CODE + 0x1000), core=1)
    assert guest.run(frame) is traps.SYSTEM_CALL
    assert (frame[EAX], instructions(frame)) == (1 - 4 & 0xFFFF_FFFF, 1 + 5 * 3 + 1)


def test_the_host_changes_code(guest: Guest) -> None:
    guest.put(guest.code_pfn, as_bytes("b001 cd30"))
    frames = [guest.thread(), guest.thread()]
    assert [counter(guest, core, frames[core]) for core in (0, 1)] == [1, 1]
    guest.ram.bytes_[(guest.code_pfn << 12) + 1] = 2
    guest.engine.forget_code(guest.code_pfn, 1)
    assert [counter(guest, core, frames[core]) for core in (0, 1)] == [2, 2]


def test_the_host_changes_the_second_page_of_a_block(guest: Guest) -> None:
    second = guest.new_page(CODE + 0x1000)
    guest.put(guest.code_pfn, b"\x40\x40", 0xFFE)
    frame = guest.thread()
    for count in (1, 3):
        guest.put(second, b"\x40" * count + SYSTEM_CALL)
        before = instructions(frame)
        frame[EIP], frame[EAX] = CODE + 0xFFE, 0
        assert guest.run(frame) is traps.SYSTEM_CALL
        assert (frame[EAX], instructions(frame) - before) == (2 + count, 3 + count)


def test_ranges_to_forget_may_reach_beyond_ram(guest: Guest) -> None:
    guest.put(guest.code_pfn, as_bytes("b001 cd30"))
    frame = guest.thread()
    counter(guest, 0, frame)
    guest.engine.forget_code(0, 0xFFFF_FFFF)
    guest.engine.forget_code(0xFFFF_FFFF, 5)
    assert counter(guest, 0, frame) == 1


def test_a_frame_the_kernel_writes_is_read_anew_in_every_run(guest: Guest) -> None:
    guest.engine.set_kernel_written(guest.code_pfn, True)
    frames = [guest.thread(), guest.thread()]
    for value in (3, 4):
        guest.ram.bytes_[guest.code_pfn << 12 : (guest.code_pfn << 12) + 4] = bytes([0xB0, value, 0xCD, 0x30])
        assert [counter(guest, core, frames[core]) for core in (0, 1, 0)] == [value] * 3
    guest.engine.set_kernel_written(guest.code_pfn, False)
    guest.engine.set_kernel_written(0xFFFF_FFFF, True)  # beyond RAM: nothing to do
    assert counter(guest, 0, frames[0]) == 4


def test_one_frame_at_two_addresses_and_two_frames_at_one(guest: Guest) -> None:
    """Translations and block costs belong to frames, not to addresses."""
    other_space = AddressSpace(guest)
    other_code = guest.new_page(CODE, READ_ONLY, other_space)
    guest.put(guest.code_pfn, as_bytes("40 40 cd30"))
    guest.put(other_code, as_bytes("40 cd30"))
    guest.space.map(ALIAS, guest.code_pfn, READ_ONLY)
    here, there, alias = guest.thread(), guest.thread(space=other_space), guest.thread(ALIAS)
    for _ in range(3):
        for frame, start in ((here, CODE), (there, CODE), (alias, ALIAS)):
            frame[EIP] = start
            assert guest.run(frame) is traps.SYSTEM_CALL
    assert [instructions(frame) for frame in (here, there, alias)] == [9, 6, 9]
    assert [frame[EAX] for frame in (here, there, alias)] == [6, 3, 6]


# --- random ------------------------------------------------------------------------------------------


def patcher(r: random.Random) -> bytes:
    """Straight code whose stores hit itself: each adds to the immediate of some `add eax, imm8`."""
    blocks = []
    for _ in range(24):
        target = r.randrange(24)
        store = (
            b"\x80\x05" + word(CODE + target * 12 + 2 + 7) + bytes([r.randrange(1, 4)])
        )  # add byte [...], n
        blocks.append(store + bytes([0x83, 0xC0, r.randrange(5), r.choice((0x90, 0x40, 0x41)), 0x90]))
    return b"".join(blocks) + bytes.fromhex("4b 0f85") + word(-(24 * 12 + 7)) + SYSTEM_CALL


def model(code: bytes, rounds: int) -> int:
    """What EAX is at the end, by interpreting the three kinds of instruction."""
    memory, eax = bytearray(code), 0
    for _ in range(rounds):
        for at in range(0, 24 * 12, 12):
            target = int.from_bytes(memory[at + 2 : at + 6], "little") - CODE
            memory[target] = memory[target] + memory[at + 6] & 0xFF
            eax += int.from_bytes(memory[at + 9 : at + 10], "little", signed=True)
            eax += memory[at + 10] == 0x40
    return eax & 0xFFFF_FFFF


@pytest.mark.parametrize("seed", range(12))
def test_random_code_that_patches_itself(guest: Guest, seed: int) -> None:
    code = patcher(random.Random(seed))
    trap, frame = guest.run_code(code, ebx=3)
    assert trap is traps.SYSTEM_CALL
    assert frame[EAX] == model(code, 3)
    assert instructions(frame) == 3 * (24 * 4 + 2) + 1


def test_random_patches_in_slices_on_two_cores(guest: Guest) -> None:
    code = patcher(random.Random(99))
    guest.put(guest.code_pfn, code)
    frame = guest.thread()
    set_registers(frame, ebx=4)
    trap: traps.Trap = DEADLINE_REACHED
    turn = 0
    while trap is DEADLINE_REACHED:
        vcpu = guest.vcpus[turn & 1]
        trap = guest.run(frame, vcpu.clock_cycles + 1, core=turn & 1)
        turn += 1
    assert frame[EAX] == model(code, 4)
    assert instructions(frame) == 4 * (24 * 4 + 2) + 1


# --- what would kill the engine ---------------------------------------------------------------------


def test_code_next_to_bytes_that_abort_the_engine() -> None:
    """Pages with a locked bit test of a register are stepped; so is what x87 code overruns the translator."""
    guest = Guest()
    guest.put(guest.code_pfn, as_bytes("f00fa3c3"), 0x800)
    trap, frame = guest.run_code("b90a000000 40 49 75fc cd30")
    assert trap is traps.SYSTEM_CALL
    assert (frame[EAX], instructions(frame)) == (10, 32)
    frame = guest.thread(CODE + 0x7FF)
    guest.put(guest.code_pfn, b"\x90", 0x7FF)
    assert guest.run(frame) == CpuException(6, 0)
    assert (frame[EIP], instructions(frame)) == (CODE + 0x800, 1)


@pytest.mark.parametrize("count", [100, 240, 500, 1000])
@pytest.mark.parametrize("insn", ["d9e8", "dcc1", "d903", "d403", "660f70c005"])
def test_straight_x87_code_longer_than_the_engine_bears(insn: str, count: int) -> None:
    guest = Guest()
    data = as_bytes(insn)
    code = (data * count)[: 4096 - len(data) - 2]
    code = code[: len(code) // len(data) * len(data)]
    trap, frame = guest.run_code(code + SYSTEM_CALL, ebx=DATA)
    assert trap is traps.SYSTEM_CALL
    assert instructions(frame) == len(code) // len(data) + 1


def test_x87_code_on_two_pages() -> None:
    guest = Guest()
    second = guest.new_page(CODE + 0x1000, READ_ONLY)
    guest.put(guest.code_pfn, as_bytes("d9e8") * 200, 4096 - 400)
    guest.put(second, as_bytes("d9e8") * 200 + SYSTEM_CALL)
    frame = guest.thread(CODE + 4096 - 400)
    assert guest.run(frame) is traps.SYSTEM_CALL
    assert instructions(frame) == 401


@pytest.mark.parametrize("split", [1, 2, 3, 4])
@pytest.mark.parametrize("known", [False, True])
def test_a_locked_bit_test_on_two_pages_is_refused(split: int, known: bool) -> None:
    """Wherever it is cut, and whether or not the engine has translated the second page before."""
    guest = Guest()
    code = as_bytes("f0660fa3c3")
    second = guest.new_page(CODE + 0x1000, READ_ONLY)
    guest.put(guest.code_pfn, code[:split], 4096 - split)
    guest.put(second, code[split:])
    guest.put(second, SYSTEM_CALL, 0x100)
    if known:
        assert guest.run(guest.thread(CODE + 0x1100)) is traps.SYSTEM_CALL
    frame = guest.thread(CODE + 4096 - split)
    assert guest.run(frame) == CpuException(6, 0)
    assert frame[EIP] == CODE + 4096 - split


def test_a_hazardous_page_keeps_deadlines() -> None:
    guest = Guest()
    guest.put(guest.code_pfn, as_bytes("f00fa3c3"), 0x800)
    guest.put(guest.code_pfn, as_bytes("40 40 ebfc"))
    frame = guest.thread()
    seen = []
    for deadline in (1, 3, 4, 10, NO_DEADLINE // 2000):
        if deadline > 10:
            guest.vcpu.stop()
            assert guest.run(frame, deadline) is traps.HOST_STOP
        else:
            assert guest.run(frame, deadline) is DEADLINE_REACHED
            seen.append(instructions(frame))
    assert seen == [3, 3, 6, 12]
