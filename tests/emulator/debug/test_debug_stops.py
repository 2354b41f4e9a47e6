"""Stopping user code for a debugger: at the right instruction, and without changing anything that is counted."""

from __future__ import annotations

import random
from array import array

import pytest

from l4lab.emulator.debug.debugport import MAX_WATCHPOINTS, DebugPort, Reason, Watch
from l4lab.emulator.vcpu import NO_DEADLINE
from l4lab.kernel.frame import CR3, EAX, ECX, EDI, EIP, ESI, FPU_CORE
from l4lab.kernel.traps import DEADLINE_REACHED, HOST_STOP, SYSTEM_CALL, PageFault, Trap
from support.guest import (
    CODE,
    DATA,
    READ_ONLY,
    STACK_TOP,
    UNMAPPED,
    AddressSpace,
    Guest,
    as_bytes,
    cycles,
    instructions,
    set_registers,
    tlb_misses,
)
from support.lockstep import Lockstep, Mode
from support.random_code import RandomProgram

LOOP = "b90a000000 90 90 49 75fb cd30"  # mov ecx, 10; nop; nop; dec ecx; jnz; int 0x30
NOP = CODE + 5
DEC = CODE + 7


class StoppedGuest(Guest):
    """Stops runs at random places and goes on, until they end by themselves. `ends`: where they did."""

    def __init__(self, *, stops: bool, cores: int = 1) -> None:
        super().__init__(cores=cores)
        self.port = DebugPort(self.engine)
        self.port.activate(stops)
        self.stops = stops
        self.random = random.Random(1)
        self.ends: list[tuple[Trap, int, int]] = []
        self.stop_count = 0

    def run(self, frame: array[int], deadline: int = NO_DEADLINE, core: int = 0) -> Trap:
        while True:
            if self.stops:
                self._arm(frame, core)
            trap = super().run(frame, deadline, core)
            if trap is not HOST_STOP:
                self.ends.append((trap, frame[EIP], self.vcpus[core].clock_cycles))
                return trap
            assert self.port.reason(self.vcpus[core]) is not None
            self.stop_count += 1

    def _arm(self, frame: array[int], core: int) -> None:
        r = self.random
        first, size = (CODE + r.randrange(0x1100), r.randrange(60)) if r.random() < 0.3 else (0, 0)
        count = instructions(frame) + r.randrange(1, 9 if size == 0 else 3)
        self.port.stop_at_count(frame if r.random() < 0.7 else None, count, first, size)
        self.port.stop_at_clock(
            core, self.vcpus[core].clock_cycles + r.randrange(1, 30) if r.random() < 0.5 else None
        )
        self.port.set_breakpoints(
            (CODE + r.randrange(0x1100), r.choice((0, frame[CR3], 0x1234000)))
            for _ in range(r.choice((0, 1, 50)))
        )
        if r.random() < 0.2:
            data = (self.data_pfn << 12) + r.randrange(0xFF0)
            self.port.set_watches([Watch(data, r.randrange(1, 16), True, r.random() < 0.2)])


@pytest.fixture
def guest() -> Guest:
    return Guest()


@pytest.fixture
def port(guest: Guest) -> DebugPort:
    port = DebugPort(guest.engine)
    port.activate(True)
    return port


def start(guest: Guest, code: str, **registers: int) -> array[int]:
    guest.put(guest.code_pfn, as_bytes(code))
    frame = guest.thread()
    set_registers(frame, **registers)
    return frame


def stop(guest: Guest, port: DebugPort, frame: array[int], deadline: int = NO_DEADLINE) -> Reason:
    """Run to a stop of the debugger; why it is one."""
    assert guest.run(frame, deadline) is HOST_STOP
    why = port.reason(guest.vcpu)
    assert why is not None
    return why[0]


# --- nothing changes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(
    ("first_seed", "count", "length", "offset"),
    [(0, 200, 40, 0), (10_000, 100, 40, 4000), (40_000, 30, 250, 3500)],
)
def test_random_programs_run_the_same_with_and_without_stops(
    mode: Mode, first_seed: int, count: int, length: int, offset: int
) -> None:
    """Every trap, register, count, TLB miss, and the place and clock of every deadline."""
    plain, stopped = StoppedGuest(stops=False, cores=2), StoppedGuest(stops=True, cores=2)
    plain_runs, stopped_runs = Lockstep(plain, offset), Lockstep(stopped, offset)
    for seed in range(first_seed, first_seed + count):
        plain.ends.clear()
        stopped.ends.clear()
        program = RandomProgram(seed, length)
        assert plain_runs.run(program, mode) == stopped_runs.run(program, mode), f"seed {seed}"
        assert plain.ends == stopped.ends, f"seed {seed}"
    # A program that steps itself leaves little to stop in between.
    assert stopped.stop_count > (10 if mode is Mode.STEPPED else 5 * count)


def test_a_deadline_is_met_at_the_same_place_though_the_debugger_stopped_in_the_middle_of_a_block(
    guest: Guest, port: DebugPort
) -> None:
    """The block has begun before the deadline, so it goes on; as it would without the stop."""
    frame = start(guest, "90 90 90 90 90 90 ebf8")
    port.stop_at_count(frame, 3)
    assert stop(guest, port, frame, deadline=2) is Reason.COUNT
    assert (frame[EIP], guest.vcpu.clock_cycles) == (CODE + 3, 3)
    port.stop_at_count(None)
    assert guest.run(frame, 2) is DEADLINE_REACHED
    assert (frame[EIP], guest.vcpu.clock_cycles) == (CODE, 7)


def test_guest_memory_does_not_show_breakpoints(guest: Guest, port: DebugPort) -> None:
    frame = start(guest, "a005004000 90 cd30")  # mov al, [CODE + 5]
    port.set_breakpoints([(CODE + 5, 0)])
    assert stop(guest, port, frame) is Reason.BREAKPOINT
    assert frame[EAX] & 0xFF == 0x90
    assert guest.get(guest.code_pfn, 1, 5) == b"\x90"


# --- breakpoints --------------------------------------------------------------------------------------


def test_a_breakpoint_stops_before_its_instruction_every_time(guest: Guest, port: DebugPort) -> None:
    frame = start(guest, LOOP)
    port.set_breakpoints([(DEC, 0)])
    counts = []
    for _ in range(10):
        assert stop(guest, port, frame) is Reason.BREAKPOINT
        assert frame[EIP] == DEC
        counts.append(frame[ECX])
    assert counts == list(range(10, 0, -1))
    assert guest.run(frame) is SYSTEM_CALL
    assert instructions(frame) == 1 + 4 * 10 + 1


def test_a_breakpoint_of_another_address_space_does_not_stop(guest: Guest, port: DebugPort) -> None:
    frame = start(guest, LOOP)
    port.set_breakpoints([(DEC, frame[CR3] + 0x1000)])
    assert guest.run(frame) is SYSTEM_CALL


def test_of_two_spaces_with_the_same_code_the_right_one_stops(guest: Guest, port: DebugPort) -> None:
    other = AddressSpace(guest)
    other.map(CODE, guest.code_pfn, READ_ONLY)
    first = start(guest, LOOP)
    second = guest.thread(space=other)
    port.set_breakpoints([(NOP, second[CR3])])
    assert guest.run(first) is SYSTEM_CALL
    assert stop(guest, port, second) is Reason.BREAKPOINT


def test_two_breakpoints_in_one_block(guest: Guest, port: DebugPort) -> None:
    frame = start(guest, LOOP)
    port.set_breakpoints([(NOP, 0), (DEC, 0)])
    places = []
    for _ in range(4):
        stop(guest, port, frame)
        places.append(frame[EIP])
    assert places == [NOP, DEC, NOP, DEC]


def test_a_faulting_instruction_stops_once_though_it_is_started_twice(guest: Guest, port: DebugPort) -> None:
    frame = start(guest, "a100007000 cd30")  # mov eax, [UNMAPPED]
    port.set_breakpoints([(CODE, 0)])
    assert stop(guest, port, frame) is Reason.BREAKPOINT
    assert guest.run(frame) == PageFault(UNMAPPED, False, False, False)
    guest.new_page(UNMAPPED)
    assert guest.run(frame) is SYSTEM_CALL


@pytest.mark.parametrize("by", ["count", "breakpoint"])
def test_before_an_instruction_whose_page_is_not_there_one_can_stop(
    guest: Guest, port: DebugPort, by: str
) -> None:
    frame = guest.thread(eip=UNMAPPED)
    port.stop_at_count(frame if by == "count" else None, 0)
    port.set_breakpoints([(UNMAPPED, 0)] if by == "breakpoint" else [])
    stop(guest, port, frame)
    assert (frame[EIP], instructions(frame)) == (UNMAPPED, 0)
    port.stop_at_count(None)
    assert guest.run(frame) == PageFault(UNMAPPED, False, True, False)


def test_without_being_active_nothing_stops(guest: Guest, port: DebugPort) -> None:
    port.activate(False)
    frame = start(guest, LOOP)
    port.set_breakpoints([(DEC, 0)])
    port.stop_at_count(frame, 1)
    assert guest.run(frame) is SYSTEM_CALL


def test_removed_breakpoints_are_gone(guest: Guest, port: DebugPort) -> None:
    frame = start(guest, LOOP)
    port.set_breakpoints([(DEC, 0)])
    stop(guest, port, frame)
    port.set_breakpoints([])
    assert guest.run(frame) is SYSTEM_CALL


def test_many_breakpoints(guest: Guest, port: DebugPort) -> None:
    frame = start(guest, LOOP)
    port.set_breakpoints([(0x1000_0000 + i, i << 12) for i in range(5000)] + [(DEC, 0)])
    assert stop(guest, port, frame) is Reason.BREAKPOINT


# --- steps --------------------------------------------------------------------------------------------


def test_single_steps_visit_every_instruction(guest: Guest, port: DebugPort) -> None:
    frame = start(guest, "b902000000 49 75fd f3aa 8d00 cd30", edi=DATA)
    places = []
    while True:
        port.stop_at_count(frame, instructions(frame) + 1)
        if guest.run(frame) is not HOST_STOP:
            break
        assert port.reason(guest.vcpu) == (Reason.COUNT, 0)
        places.append(frame[EIP] - CODE)
    assert places == [5, 6, 5, 6, 8, 10, 12]


def test_a_repeated_string_instruction_is_stepped_by_iteration(guest: Guest, port: DebugPort) -> None:
    frame = start(guest, "f3aa cd30", ecx=3, edi=DATA)
    for left in (2, 1, 0):
        port.stop_at_count(frame, instructions(frame) + 1)
        stop(guest, port, frame)
        assert (frame[ECX], frame[EIP]) == (left, CODE + (2 if left == 0 else 0))


def test_stepping_out_of_a_range_is_one_stop(guest: Guest, port: DebugPort) -> None:
    frame = start(guest, LOOP)
    port.stop_at_count(frame, 1, CODE, 10)
    assert stop(guest, port, frame) is Reason.COUNT
    assert (frame[EIP], instructions(frame)) == (CODE + 10, 41)


def test_any_range_is_left_where_single_steps_leave_it(guest: Guest, port: DebugPort) -> None:
    """A loop with a call in it, that is `mov ecx, 3; L: call F; dec ecx; jnz L; int 0x30; F: nop; ret`."""
    code = "b903000000 e805000000 49 75f8 cd30 90 c3"
    frame = start(guest, code)
    places = [CODE]
    while True:
        port.stop_at_count(frame, instructions(frame) + 1)
        if guest.run(frame) is not HOST_STOP:
            break
        places.append(frame[EIP])
    size = len(as_bytes(code))
    for first in range(CODE, CODE + size):
        for end in range(first + 1, CODE + size + 1):
            left = (n for n, place in enumerate(places) if n > 0 and not first <= place < end)
            expected = next(left, None)
            frame = start(guest, code)
            port.stop_at_count(frame, 1, first, end - first)
            trap = guest.run(frame)
            if expected is None:
                assert trap is SYSTEM_CALL
            else:
                assert (trap, instructions(frame), frame[EIP]) == (HOST_STOP, expected, places[expected])


def test_another_thread_is_not_kept_to_the_range(guest: Guest, port: DebugPort) -> None:
    """It may execute the same code, before and afterwards."""
    frame, other = start(guest, LOOP), guest.thread()
    port.stop_at_count(frame, 1, CODE, 10)
    assert guest.run(other) is SYSTEM_CALL
    assert stop(guest, port, frame) is Reason.COUNT
    other = guest.thread()
    assert guest.run(other) is SYSTEM_CALL
    assert instructions(other) == 42


def test_a_breakpoint_in_the_range_stops(guest: Guest, port: DebugPort) -> None:
    frame = start(guest, LOOP)
    port.stop_at_count(frame, 1, CODE, 10)
    port.set_breakpoints([(DEC, 0)])
    assert stop(guest, port, frame) is Reason.BREAKPOINT
    assert frame[EIP] == DEC


def test_a_count_far_away_is_met_exactly_and_costs_no_look_at_each_block(
    guest: Guest, port: DebugPort
) -> None:
    frame = start(guest, "40 ebfd")
    port.stop_at_count(frame, 3_000_001)
    stop(guest, port, frame)
    assert (instructions(frame), frame[EAX], frame[EIP]) == (3_000_001, 1_500_001, CODE + 1)


def test_a_count_that_was_reached_already_stops_at_once(guest: Guest, port: DebugPort) -> None:
    frame = start(guest, LOOP)
    port.stop_at_count(frame, 0)
    assert stop(guest, port, frame) is Reason.COUNT
    assert instructions(frame) == 0


def test_another_threads_count_does_not_stop(guest: Guest, port: DebugPort) -> None:
    frame, other = start(guest, LOOP), guest.thread()
    port.stop_at_count(other, 1)
    assert guest.run(frame) is SYSTEM_CALL


@pytest.mark.parametrize("clock", [1, 7, 12, 2_000_003])
def test_a_clock_stops_at_the_first_instruction_at_or_after_it(
    guest: Guest, port: DebugPort, clock: int
) -> None:
    frame = start(guest, "90 90 90 90 90 90 ebf8")
    port.stop_at_clock(0, clock)
    assert stop(guest, port, frame) is Reason.CLOCK
    assert guest.vcpu.clock_cycles == clock == cycles(frame)


# --- watchpoints --------------------------------------------------------------------------------------


def watch(guest: Guest, port: DebugPort, offset: int, size: int, *, read: bool = False) -> None:
    port.set_watches([Watch((guest.data_pfn << 12) + offset, size, not read, read)])


def test_a_watchpoint_stops_behind_the_store_that_changes_it(guest: Guest, port: DebugPort) -> None:
    frame = start(guest, "90 c70504005000 07000000 90 90 cd30")  # mov dword [DATA + 4], 7
    watch(guest, port, 4, 4)
    assert stop(guest, port, frame) is Reason.WATCHPOINT
    assert frame[EIP] == CODE + 11
    assert guest.word(guest.data_pfn, 4) == 7
    assert guest.run(frame) is SYSTEM_CALL
    assert instructions(frame) == 5


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("c70504005000 00000000 cd30", "stores what was there"),
        ("c70508005000 07000000 cd30", "stores behind it"),
        ("c60503005000 07 cd30", "stores before it"),
        ("a104005000 cd30", "reads it"),
    ],
)
def test_what_does_not_change_the_bytes_does_not_stop(
    guest: Guest, port: DebugPort, code: str, why: str
) -> None:
    frame = start(guest, code)
    watch(guest, port, 4, 4)
    assert guest.run(frame) is SYSTEM_CALL, why


@pytest.mark.parametrize(
    ("code", "registers"),
    [
        ("a104005000 cd30", {}),  # mov eax, [DATA + 4]
        ("8a0507005000 cd30", {}),  # mov al, [DATA + 7]
        ("a101005000 cd30", {}),  # the last byte of these four
        ("c60504005000 00 cd30", {}),  # a store of what is there
        ("830504005000 00 cd30", {}),  # add dword [DATA + 4], 0
        ("f3a4 cd30", {"ecx": 8, "esi": DATA, "edi": DATA + 0x100}),  # rep movsb
        ("ff3504005000 cd30", {}),  # push dword [DATA + 4]
    ],
)
def test_every_access_to_a_byte_that_is_watched_for_reading_stops(
    guest: Guest, port: DebugPort, code: str, registers: dict[str, int]
) -> None:
    frame = start(guest, code, **registers)
    watch(guest, port, 4, 4, read=True)
    assert stop(guest, port, frame) is Reason.WATCHPOINT
    assert frame[ESI] in (0, DATA + 5)


@pytest.mark.parametrize("code", ["a100005000 cd30", "8a0508005000 cd30", "a104015000 cd30"])
def test_accesses_beside_a_byte_that_is_watched_for_reading_do_not_stop(
    guest: Guest, port: DebugPort, code: str
) -> None:
    frame = start(guest, code)
    watch(guest, port, 4, 4, read=True)
    assert guest.run(frame) is SYSTEM_CALL


@pytest.mark.parametrize("code", ["a1fe5f5000 cd30", "ff35fe5f5000 cd30", "66a1ff5f5000 cd30"])
def test_an_access_that_begins_on_the_page_before_stops(guest: Guest, port: DebugPort, code: str) -> None:
    pfn = guest.take_frame()
    guest.space.map(DATA + 0x6000, pfn)  # the two pages' frames do not follow one another
    guest.new_page(DATA + 0x5000)
    frame = start(guest, code)
    port.set_watches([Watch((pfn << 12), 1, False, True)])
    assert stop(guest, port, frame) is Reason.WATCHPOINT


@pytest.mark.parametrize("code", ["a1fc5f5000 cd30", "a1fa5f5000 a102605000 cd30"])
def test_an_access_that_ends_before_it_or_begins_behind_it_does_not(
    guest: Guest, port: DebugPort, code: str
) -> None:
    pfn = guest.take_frame()
    guest.space.map(DATA + 0x6000, pfn)
    guest.new_page(DATA + 0x5000)
    frame = start(guest, code)
    port.set_watches([Watch((pfn << 12), 1, False, True)])
    assert guest.run(frame) is SYSTEM_CALL


def test_a_store_through_another_mapping_of_the_frame_stops(guest: Guest, port: DebugPort) -> None:
    guest.space.map(UNMAPPED, guest.data_pfn)
    frame = start(guest, "c70504007000 07000000 cd30")
    watch(guest, port, 4, 4)
    assert stop(guest, port, frame) is Reason.WATCHPOINT


def test_a_store_of_another_core_stops_that_one() -> None:
    guest = Guest(cores=2)
    port = DebugPort(guest.engine)
    port.activate(True)
    frame = start(guest, "c70504005000 07000000 cd30")
    watch(guest, port, 4, 4)
    assert guest.run(frame, core=1) is HOST_STOP
    assert port.reason(guest.vcpus[1]) == (Reason.WATCHPOINT, 0)


def test_which_watchpoint_it_was(guest: Guest, port: DebugPort) -> None:
    frame = start(guest, "c70508005000 07000000 cd30")
    base = guest.data_pfn << 12
    port.set_watches([Watch(base, 4, True, False), Watch(base + 8, 2, True, False)])
    assert guest.run(frame) is HOST_STOP
    assert port.reason(guest.vcpu) == (Reason.WATCHPOINT, 1)


def test_a_store_in_a_loop_stops_every_time(guest: Guest, port: DebugPort) -> None:
    frame = start(guest, "b903000000 ff0504005000 49 75f7 cd30")  # 3 times inc dword [DATA + 4]
    watch(guest, port, 4, 4)
    for value in (1, 2, 3):
        assert stop(guest, port, frame) is Reason.WATCHPOINT
        assert guest.word(guest.data_pfn, 4) == value
    assert guest.run(frame) is SYSTEM_CALL
    assert instructions(frame) == 11


def test_watching_changes_no_tlb_miss(guest: Guest, port: DebugPort) -> None:
    code = "a100105000 a300005000 a104105000 a304005000 cd30"
    guest.new_page(DATA + 0x1000)
    frame = start(guest, code)
    guest.run(frame)
    expected = tlb_misses(frame), cycles(frame)
    watched = Guest()
    watched.new_page(DATA + 0x1000)
    port = DebugPort(watched.engine)
    port.activate(True)
    watch(watched, port, 0x100, 4, read=True)
    frame = start(watched, code)
    assert watched.run(frame) is SYSTEM_CALL
    assert (tlb_misses(frame), cycles(frame)) == expected


def test_watchpoints_that_are_too_many_or_cross_frames_are_refused(guest: Guest, port: DebugPort) -> None:
    base = guest.data_pfn << 12
    with pytest.raises(ValueError, match="not possible"):
        port.set_watches([Watch(base + 4 * i, 4, True, False) for i in range(MAX_WATCHPOINTS + 1)])
    with pytest.raises(ValueError, match="not possible"):
        port.set_watches([Watch(base + 0xFFE, 4, True, False)])
    with pytest.raises(ValueError, match="not possible"):
        port.set_watches([Watch(1 << 31, 4, True, False)])


# --- what a vCPU remembers ------------------------------------------------------------------------------


def test_loading_a_state_brings_the_modelled_tlb_back(guest: Guest, port: DebugPort) -> None:
    """What missed since then misses again; what was in it then is in it."""
    guest.new_page(DATA + 0x1000)
    frame = start(guest, "a100005000 cd30 a100105000 cd30")
    guest.run(frame)
    saved, registers = port.save_vcpu(guest.vcpu), bytes(frame)
    runs = []
    for _ in range(2):
        port.load_vcpu(guest.vcpu, saved)
        memoryview(frame).cast("B")[:] = registers
        guest.run(frame)
        runs.append((tlb_misses(frame), cycles(frame), guest.vcpu.clock_cycles))
    assert runs[0] == runs[1]
    guest.vcpu.flush_tlb()
    memoryview(frame).cast("B")[:] = registers
    guest.run(frame)
    assert tlb_misses(frame) > runs[0][0]


def test_loading_a_state_brings_large_and_global_pages_back(guest: Guest, port: DebugPort) -> None:
    guest.space.map_large(0x0080_0000, 0, 7)
    guest.space.map(UNMAPPED, guest.take_frame(), 7 | 0x100)
    frame = start(guest, "a100008000 a100007000 cd30 a100008000 a100007000 cd30")
    guest.run(frame)
    saved, registers = port.save_vcpu(guest.vcpu), bytes(frame)
    misses = tlb_misses(frame)
    for flush in (False, True):
        port.load_vcpu(guest.vcpu, saved)
        memoryview(frame).cast("B")[:] = registers
        if flush:
            guest.vcpu.flush_tlb()
        guest.run(frame)
        # A flush takes the large page and those of code, not the global one.
        assert (tlb_misses(frame) > misses) is flush


def test_loading_a_state_brings_the_owner_of_the_x87_registers_back(guest: Guest, port: DebugPort) -> None:
    frame = start(guest, "d9e8 cd30 d9ee cd30")  # fld1; int; fldz; int
    guest.run(frame)
    assert frame[FPU_CORE] == 1
    guest.engine.sync_fpu(frame)
    saved, registers = port.save_vcpu(guest.vcpu), bytes(frame)
    other = guest.thread()
    guest.run(other)
    memoryview(frame).cast("B")[:] = registers
    port.load_vcpu(guest.vcpu, saved)
    guest.run(frame)
    guest.engine.sync_fpu(frame)
    memoryview(frame).cast("B")[:] = bytes(frame)
    again = bytes(frame)
    memoryview(frame).cast("B")[:] = registers
    port.load_vcpu(guest.vcpu, saved)
    guest.run(frame)
    guest.engine.sync_fpu(frame)
    assert bytes(frame) == again


def test_written_frames_are_told_once(guest: Guest, port: DebugPort) -> None:
    frame = start(guest, "a300005000 cd30 a300005000 cd30 a100005000 cd30")
    guest.run(frame)
    assert port.take_dirty()[guest.data_pfn] == 1
    assert port.take_dirty()[guest.data_pfn] == 0
    guest.run(frame)
    assert port.take_dirty()[guest.data_pfn] == 1


def test_frames_that_were_not_written_are_not_told(guest: Guest, port: DebugPort) -> None:
    frame = start(guest, "a100005000 cd30")
    guest.run(frame)
    dirty = port.take_dirty()
    assert not any(dirty[pfn] for pfn in (guest.data_pfn, guest.code_pfn))


def test_stack_and_registers_are_those_of_the_instruction(guest: Guest, port: DebugPort) -> None:
    frame = start(guest, "6a05 6a06 58 5f cd30")  # push 5; push 6; pop eax; pop edi
    port.set_breakpoints([(CODE + 4, 0)])
    stop(guest, port, frame)
    assert guest.word(guest.stack_pfn, 0x1000 - 8) == 6
    assert frame[4] == STACK_TOP - 8
    guest.run(frame)
    assert (frame[EAX], frame[EDI]) == (6, 5)
