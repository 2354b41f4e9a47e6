"""The books: instructions, cycles and clock are exact wherever and however a run is left."""

from __future__ import annotations

import dataclasses
import random
from array import array

import pytest
import unicorn
from unicorn import x86_const

from l4lab.emulator.costs import MAX_COST_MILLICYCLES, CostTable
from l4lab.emulator.vcpu import NO_DEADLINE
from l4lab.kernel import traps
from l4lab.kernel.frame import EAX, ECX, EDI, EDX, EIP, ESI
from l4lab.kernel.traps import DEADLINE_REACHED, CpuException, PageFault
from support.guest import (
    CODE,
    DATA,
    READ_ONLY,
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
from support.lockstep import Lockstep, Mode
from support.random_code import READ_ONLY_PAGE, RandomProgram

CLASSES = [field.name for field in dataclasses.fields(CostTable)]


def costs(**millicycles: int) -> CostTable:
    """Everything free but what is named."""
    return CostTable(**dict.fromkeys(CLASSES, 0) | millicycles)


# --- random programs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first_seed", "count", "length", "offset"),
    [
        (0, 300, 40, 0),
        pytest.param(300, 900, 40, 0, marks=pytest.mark.slow),
        (10_000, 300, 40, 4095),  # code runs into a page that is mapped on demand
        (20_000, 300, 40, 4060),
        (30_000, 300, 40, 4000),
        (40_000, 150, 250, 3500),
    ],
)
def test_random_programs_give_the_same_books_in_every_way_of_running_them(
    first_seed: int, count: int, length: int, offset: int
) -> None:
    """At once, by single steps, in slices, and in slices on two cores by turns."""
    lockstep = Lockstep(Guest(cores=2), offset)
    ended = 0
    for seed in range(first_seed, first_seed + count):
        program = RandomProgram(seed, length)
        whole = lockstep.run(program, Mode.WHOLE)
        if whole is None:
            continue
        ended += 1
        for mode in (Mode.STEPPED, Mode.SLICED, Mode.TWO_CORES):
            other = lockstep.run(program, mode)
            assert other is not None, f"seed {seed}, {mode}"
            assert other.traps == whole.traps, f"seed {seed}, {mode}"
            assert other.memory == whole.memory, f"seed {seed}, {mode}"
            assert mode is Mode.TWO_CORES or other.tlb_misses == whole.tlb_misses, f"seed {seed}, {mode}"
    assert ended > count * 0.9


def test_cycles_of_random_programs_are_exact_with_fractional_costs() -> None:
    r = random.Random(1)
    table = CostTable(**{name: r.randrange(50, 3000) for name in CLASSES})
    lockstep = Lockstep(Guest(costs=table), 4000)
    for seed in range(50_000, 50_400):
        program = RandomProgram(seed)
        whole = lockstep.run(program, Mode.WHOLE)
        if whole is not None:
            for mode in (Mode.STEPPED, Mode.SLICED):
                assert lockstep.run(program, mode) == whole, f"seed {seed}, {mode}"


def engine_steps(code: bytes, fill: bytes) -> tuple[int, list[int], bytes]:
    """(instructions, registers, data page) by the engine's own counter, one instruction per start."""
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
    uc.ctl_set_cpu_model(x86_const.UC_CPU_X86_OPTERON_G3)
    uc.reg_write(x86_const.UC_X86_REG_CR4, 0x600)  # SSE
    uc.reg_write(x86_const.UC_X86_REG_FPCW, 0x37F)
    uc.reg_write(x86_const.UC_X86_REG_FPTAG, 0xFFFF)
    for page in (CODE, DATA, DATA + 0x1000, DATA + 0x2000, DATA + 0x3000, STACK_TOP - 0x1000):
        uc.mem_map(page, 0x1000)
    uc.mem_write(CODE, code)
    uc.mem_write(DATA, fill)
    names = ["EAX", "ECX", "EDX", "EBX", "ESP", "EBP", "ESI", "EDI"]
    registers = [getattr(x86_const, f"UC_X86_REG_{name}") for name in names]
    for register, value in zip(
        registers, (0, 0, 0, DATA + 0x800, STACK_TOP, DATA + 0xC00, 0, 0), strict=True
    ):
        uc.reg_write(register, value)
    steps, eip, previous = 0, CODE, 0
    while uc.mem_read(eip, 2) != SYSTEM_CALL:
        # A repeated string instruction is entered once more, to find its count at zero.
        steps += not (eip == previous and uc.reg_read(x86_const.UC_X86_REG_ECX) == 0)
        previous = eip
        uc.emu_start(eip, 0, count=1)
        eip = uc.reg_read(x86_const.UC_X86_REG_EIP)
    return steps, [uc.reg_read(register) for register in registers], bytes(uc.mem_read(DATA, 0x1000))


def test_the_engines_own_single_steps_agree() -> None:
    """The oracle that shares nothing with the shim. Programs that trap are left out."""
    guest = Guest()
    guest.new_page(READ_ONLY_PAGE)
    for page in (DATA + 0x2000, DATA + 0x3000):
        guest.new_page(page)
    fill = b"\x03\0\0\0" * 0x400
    compared = 0
    for seed in range(60_000, 60_800):
        program = RandomProgram(seed, 20)
        if b"\x0f\x31" in program.code or b"\x8e\xe0" in program.code:  # rdtsc; mov fs, which needs a GDT
            continue
        if any(0xD8 <= item[0] <= 0xDF for item in program.asm.items):  # the engine knows no stack faults
            continue
        guest.put(guest.code_pfn, program.code)
        guest.put(guest.data_pfn, fill)
        for page in (READ_ONLY_PAGE, DATA + 0x2000, DATA + 0x3000):
            guest.put(guest.ram.words[guest.space.entry(page)] >> 12, bytes(0x1000))
        frame = guest.thread()
        set_registers(frame, ebx=DATA + 0x800, ebp=DATA + 0xC00)
        trap = guest.run(frame, guest.vcpu.clock_cycles + 500)
        if trap is not traps.SYSTEM_CALL:
            continue
        steps, registers, data = engine_steps(program.code, fill)
        assert instructions(frame) == steps + 1, f"seed {seed}"  # and the system call
        assert list(frame[:8]) == registers, f"seed {seed}"
        assert guest.get(guest.data_pfn, 0x1000) == data, f"seed {seed}"
        compared += 1
    assert compared > 80


# --- string instructions ----------------------------------------------------------------------------

# Code, registers, completed instructions of it alone, ECX afterwards.
STRINGS = [
    ("f3a4", {"ecx": 5}, 5, 0),
    ("f3a4", {"ecx": 1}, 1, 0),
    ("f3a4", {"ecx": 0}, 1, 0),
    ("f3ab", {"ecx": 100}, 100, 0),
    ("f3ad", {"ecx": 7}, 7, 0),
    ("67f3aa", {"ecx": 0x10003}, 3, 0x10000),  # counts in CX
    ("67f3aa", {"ecx": 0x10000}, 1, 0x10000),
    ("f3a6", {"ecx": 9, "esi": DATA, "edi": DATA}, 9, 0),  # equal to the end
    ("f3a6", {"ecx": 9, "esi": DATA, "edi": DATA + 0x104}, 4, 5),  # differs at the fourth
    ("f2ae", {"ecx": 9, "edi": DATA + 0x100, "eax": 0xEE}, 8, 1),  # found at the eighth
    ("f2ae", {"ecx": 3, "edi": DATA + 0x100, "eax": 0xEE}, 3, 0),  # not found
    ("a4", {"ecx": 5}, 1, 5),
]


@pytest.mark.parametrize(("code", "registers", "completed", "ecx"), STRINGS)
@pytest.mark.parametrize("before", ["", "90 90"])
def test_a_string_instruction_counts_once_per_iteration(
    code: str, registers: dict[str, int], completed: int, ecx: int, before: str
) -> None:
    guest = Guest(costs=costs(string=3000, alu=1000, trap=1000))
    guest.put(guest.data_pfn, b"\0\0\0\0\0\0\0\xee", 0x100)
    guest.space.map(0, guest.data_pfn)  # where 16-bit addresses lead
    trap, frame = guest.run_code(before + code + "cd30", **{"esi": DATA, "edi": DATA + 0x400} | registers)
    assert trap is traps.SYSTEM_CALL
    extra = len(as_bytes(before)) + 1
    assert instructions(frame) == completed + extra
    assert cycles(frame) == 3 * completed + extra
    assert frame[ECX] == ecx


def test_two_string_instructions_in_a_row_and_in_a_loop() -> None:
    guest = Guest()
    code = "bf00055000 be00055000 b903000000 f3a4 f3a4 b902000000 f3aa 4b 75f6 cd30"
    trap, frame = guest.run_code(code, ebx=4)
    assert trap is traps.SYSTEM_CALL
    # Three moves; three iterations, then one of a count of zero; four rounds of five instructions.
    assert instructions(frame) == 3 + 3 + 1 + 4 * (1 + 2 + 2) + 1


def test_a_fault_within_a_string_instruction() -> None:
    guest = Guest()
    trap, frame = guest.run_code("90 f3a5 cd30", ecx=10, esi=DATA, edi=DATA + 0x1000 - 12)
    assert trap == PageFault(DATA + 0x1000, write=True, fetch=False, present=False)
    assert (frame[EIP] - CODE, frame[ECX], instructions(frame)) == (1, 7, 4)
    guest.new_page(DATA + 0x1000)
    assert guest.run(frame) is traps.SYSTEM_CALL
    assert (frame[ECX], frame[ESI] - DATA, frame[EDI] - DATA, instructions(frame)) == (0, 40, 0x101C, 12)


@pytest.mark.parametrize("slice_cycles", range(1, 12))
def test_a_deadline_within_a_string_instruction(slice_cycles: int) -> None:
    """Above all the one between the last iteration and the engine noticing that the count is zero."""
    guest = Guest()
    guest.put(guest.code_pfn, as_bytes("90 f3aa 40 cd30"))
    frame = guest.thread()
    set_registers(frame, ecx=5, edi=DATA)
    stops = 0
    while guest.run(frame, guest.vcpu.clock_cycles + slice_cycles) is DEADLINE_REACHED:
        assert (frame[EIP] == CODE + 1) == (0 < frame[ECX] <= 5), "a finished string instruction is behind us"
        stops += 1
    assert (instructions(frame), frame[EAX]) == (8, 1)
    assert (stops > 0) == (slice_cycles <= 6)


# --- deadlines --------------------------------------------------------------------------------------

LOOP = "b9e8030000 40 40 49 75fb cd30"  # 1000 rounds of inc, inc, dec, jnz; each a block


def run_in_slices(guest: Guest, frame: array[int], deadlines: list[int]) -> list[tuple[int, int, int]]:
    seen = []
    for deadline in deadlines:
        trap = guest.run(frame, deadline)
        seen.append((frame[EIP] - CODE, instructions(frame), guest.vcpu.clock_cycles))
        if trap is not DEADLINE_REACHED:
            assert trap is traps.SYSTEM_CALL
            break
    return seen


def test_a_deadline_stops_at_the_first_block_at_or_after_it() -> None:
    guest = Guest()
    guest.put(guest.code_pfn, as_bytes(LOOP))
    frame = guest.thread()
    # The first block has 1 + 4 instructions, each further one 4.
    assert run_in_slices(guest, frame, [1, 5, 6, 9, 10, 13]) == [
        (5, 5, 5),
        (5, 5, 5),
        (5, 9, 9),
        (5, 9, 9),
        (5, 13, 13),
        (5, 13, 13),
    ]
    assert instructions(frame) == 13


def test_a_deadline_in_the_past_runs_nothing() -> None:
    guest = Guest()
    guest.vcpu.clock_cycles = 100
    frame = guest.run_code(LOOP)[1]
    frame[EIP] = CODE
    for deadline in (0, 100, guest.vcpu.clock_cycles):
        assert guest.run(frame, deadline) is DEADLINE_REACHED
    assert (frame[EIP], instructions(frame)) == (CODE, 4002)


def test_where_a_deadline_stops_does_not_depend_on_stops_before_it() -> None:
    """Nor on the reasons of our own to leave the engine: a store into the code page, x87 state to load."""
    code = as_bytes("b964000000 d9e8 ff0510005000 ddd8 ff05f00f4000 40 49 75ec cd30")

    def stops(deadlines: list[int]) -> dict[int, tuple[int, ...]]:
        guest = Guest()
        guest.space.map(CODE, guest.code_pfn)
        guest.put(guest.code_pfn, code)
        frame = guest.thread()
        seen = {}
        for deadline in deadlines:
            assert guest.run(frame, deadline) is DEADLINE_REACHED
            seen[deadline] = (*frame[:10], instructions(frame), guest.vcpu.clock_cycles)
        return seen

    often = stops(list(range(1, 300)))
    seldom = {**stops([40, 200]), **stops([100]), **stops([173, 299])}
    assert seldom == {deadline: often[deadline] for deadline in seldom}


def test_a_far_deadline_is_never() -> None:
    guest = Guest()
    for deadline in (NO_DEADLINE, NO_DEADLINE // 1000, NO_DEADLINE // 1000 + 1, 2**62):
        frame = guest.thread()
        guest.put(guest.code_pfn, as_bytes(LOOP))
        assert guest.run(frame, deadline) is traps.SYSTEM_CALL


# --- costs ------------------------------------------------------------------------------------------

# Code and what it costs: class -> how often.
COSTS: list[tuple[str, dict[str, int]]] = [
    ("40", {"alu": 1}),
    ("8b03", {"alu": 1, "load": 1}),
    ("8903", {"alu": 1, "store": 1}),
    ("0103", {"alu": 1, "load": 1, "store": 1}),
    ("3903", {"alu": 1, "load": 1}),
    ("f00103", {"alu": 1, "load": 1, "store": 1, "locked": 1}),
    ("8703", {"alu": 1, "load": 1, "store": 1, "locked": 1}),
    ("87c8", {"alu": 1}),
    ("8d03", {"alu": 1}),
    ("50", {"alu": 1, "store": 1}),
    ("58", {"alu": 1, "load": 1}),
    ("ff33", {"alu": 1, "load": 1, "store": 1}),
    ("60", {"alu": 1, "store": 8}),
    ("0fafc0", {"mul": 1}),
    ("f72b", {"mul": 1, "load": 1}),
    ("b801000000 99 f7f8", {"alu": 2, "div": 1}),
    ("eb00", {"branch": 1}),
    ("7400", {"branch": 1}),
    ("e800000000", {"call": 1, "store": 1}),
    ("6806004000 c3", {"alu": 1, "store": 1, "call": 1, "load": 1}),
    ("a4", {"string": 1, "load": 1, "store": 1}),
    ("a6", {"string": 1, "load": 2}),
    ("8ec0", {"segment": 1}),
    ("0fa2", {"serial": 1}),
    ("0f31", {"serial": 1}),
    ("d9e8", {"x87": 1, "fpu_switch": 1}),
    ("d9e8 d9fa", {"x87": 1, "x87_slow": 1, "fpu_switch": 1}),
    ("d903", {"x87": 1, "load": 1, "fpu_switch": 1}),
    ("0f58c1", {"sse": 1, "fpu_switch": 1}),
    ("0f5ec1", {"sse_slow": 1, "fpu_switch": 1}),
    ("0f2903", {"sse": 1, "store": 1, "fpu_switch": 1}),
]


@pytest.mark.parametrize(("code", "expected"), COSTS)
@pytest.mark.parametrize("name", CLASSES)
def test_each_class_is_charged_where_it_belongs(code: str, expected: dict[str, int], name: str) -> None:
    guest = Guest(costs=costs(**{name: 1000}))
    guest.put(guest.data_pfn, b"\1\0\0\0" * 16)
    registers = {"eax": 0x23 if code == "8ec0" else 0, "ebx": DATA, "esi": DATA, "edi": DATA}
    trap, frame = guest.run_code(code + "cd30", esp=STACK_TOP - 64, **registers)
    assert trap is traps.SYSTEM_CALL
    if name == "tlb_miss":
        assert cycles(frame) >= 1
    else:
        assert cycles(frame) == expected.get(name, 0) + (name == "trap")


def test_fractions_of_a_cycle_add_up_and_are_kept() -> None:
    guest = Guest(costs=costs(alu=333))
    frame = guest.run_code("40 40 40 cd30")[1]
    assert (cycles(frame), guest.vcpu.clock_cycles) == (0, 0)
    frame = guest.run_code("40 cd30")[1]
    assert (cycles(frame), guest.vcpu.clock_cycles) == (1, 1)
    guest.vcpu.clock_cycles = 1000  # what the kernel adds does not touch the fraction
    for _ in range(2):
        frame = guest.run_code("40 cd30")[1]
    assert guest.vcpu.clock_cycles == 1000
    frame = guest.run_code("40 cd30")[1]
    assert (cycles(frame), guest.vcpu.clock_cycles) == (1, 1001)


def test_user_cycles_add_up_to_the_clock() -> None:
    guest = Guest(costs=CostTable(**{name: 137 + 41 * i for i, name in enumerate(CLASSES)}))
    guest.put(guest.code_pfn, as_bytes("40 cd30 0faf03 50 58 cd30 ebf4"))
    frames = [guest.thread() for _ in range(3)]
    for frame in frames:
        set_registers(frame, ebx=DATA)
    for i in range(100):
        guest.run(frames[i % 3])
    assert sum(map(cycles, frames)) == guest.vcpu.clock_cycles


def test_costs_out_of_range_are_refused() -> None:
    for cost in (-1, MAX_COST_MILLICYCLES + 1):
        with pytest.raises(ValueError, match="cost of div"):
            costs(div=cost)


# --- rdtsc ------------------------------------------------------------------------------------------


def test_rdtsc_is_the_cores_clock_at_that_instruction() -> None:
    guest = Guest()
    guest.vcpu.clock_cycles = 0x1_2345_6789
    trap, frame = guest.run_code("90 40 40 0f31 89c1 89d6 40 0f31 cd30")
    assert trap is traps.SYSTEM_CALL
    assert (frame[ESI], frame[ECX]) == (1, 0x2345_6789 + 3)
    assert (frame[EDX], frame[EAX]) == (1, 0x2345_6789 + 3 + 4)


def test_rdtsc_counts_what_happened_within_its_block() -> None:
    guest = Guest(costs=CostTable(**CostTable.uniform().as_dict() | {"tlb_miss": 50_000, "load": 2000}))
    _, frame = guest.run_code("0f31 89c1 8b03 0f31 29c8 cd30", ebx=DATA)
    assert frame[EAX] == 1 + 1 + 1 + 2 + 50


def test_rdtsc_never_goes_back_and_is_the_same_in_every_run() -> None:
    code = "bf00005000 b900010000 0f31 ab 49 75fa cd30"

    def readings() -> list[int]:
        guest = Guest(costs=CostTable.uniform(7))
        trap, _ = guest.run_code(code)
        assert trap is traps.SYSTEM_CALL
        return [guest.word(guest.data_pfn, 4 * i) for i in range(256)]

    first = readings()
    assert first == sorted(set(first))
    assert readings() == first


def test_rdtscp_also_gives_the_cores_number() -> None:
    guest = Guest(cores=3)
    guest.put(guest.code_pfn, as_bytes("0f01f9 cd30"))
    for core in range(3):
        frame = guest.thread()
        guest.vcpus[core].clock_cycles = 500 + core
        guest.run(frame, core=core)
        assert (frame[EAX], frame[EDX], frame[ECX]) == (500 + core, 0, core)


# --- faults in the middle of a block ----------------------------------------------------------------


@pytest.mark.parametrize("before", range(8))
def test_a_fault_in_the_middle_of_a_block_takes_back_the_rest(before: int) -> None:
    guest = Guest(costs=costs(alu=1000, load=10_000, mul=100_000))
    code = b"\x40" * before + bytes.fromhex("0faf03 8b0d") + word(UNMAPPED) + b"\x40" * 5 + SYSTEM_CALL
    trap, frame = guest.run_code(code, ebx=DATA)
    assert trap == PageFault(UNMAPPED, write=False, fetch=False, present=False)
    assert instructions(frame) == before + 1
    assert cycles(frame) == guest.vcpu.clock_cycles == before + 110


def test_an_exception_in_the_middle_of_a_block_takes_back_the_rest() -> None:
    guest = Guest()
    trap, frame = guest.run_code("40 40 31d2 f7f2 40 40 cd30")
    assert trap == CpuException(0, 0)
    assert instructions(frame) == cycles(frame) == 3


def test_a_block_longer_than_the_engine_translates_at_once() -> None:
    guest = Guest()
    guest.new_page(CODE + 0x1000, READ_ONLY)
    guest.put(guest.code_pfn, b"\x40" * 4096)
    second = guest.ram.words[guest.space.entry(CODE + 0x1000)] >> 12
    guest.put(second, b"\x40" * 1000 + SYSTEM_CALL)
    frame = guest.thread()
    assert guest.run(frame) is traps.SYSTEM_CALL
    assert (instructions(frame), frame[EAX]) == (5097, 5096)
