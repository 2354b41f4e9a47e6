"""Instructions that the engine executes wrongly, and what `l4lab fuzz cpu` found: each kind with its siblings.

Values are a processor's; each case names the section of the manual that asks for them.
"""

from __future__ import annotations

import struct

import pytest

from l4lab.kernel.frame import EFLAGS, EIP, ESP
from l4lab.kernel.traps import SYSTEM_CALL as ENDED
from l4lab.kernel.traps import CpuException, PageFault, Trap
from support.guest import CODE, DATA, READ_ONLY, STACK_TOP, SYSTEM_CALL, UNMAPPED, Guest, word

CF, PF, AF, ZF, SF, OF = 1, 4, 0x10, 0x40, 0x80, 0x800
ARITHMETIC = CF | PF | AF | ZF | SF | OF
READ_ONLY_PAGE = DATA + 0x1000
INITIAL = struct.pack("<HHBxHIHHIHHII", 0x37F, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x1F80, 0).ljust(512, b"\0")


def run(code: str, data: bytes = b"", **registers: int) -> tuple[Guest, Trap, list[int]]:
    """`data` lies at DATA + 0x800; the page behind DATA cannot be written, the next is not there."""
    guest = Guest()
    guest.new_page(READ_ONLY_PAGE, READ_ONLY)
    guest.put(guest.data_pfn, data, 0x800)
    trap, frame = guest.run_code(bytes.fromhex(code) + SYSTEM_CALL, **registers)
    return guest, trap, list(frame)


def at(address: int) -> str:
    return word(address).hex()


def single(value: float) -> bytes:
    return struct.pack("<f", value)


# --- flags -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["00d2e002", "00d2e102", "00d2e202", "00d2e302", "00d290"])
@pytest.mark.parametrize("ecx", [1, 2])
def test_counting_down_leaves_the_flags(code: str, ecx: int) -> None:
    """add %dl,%dl and one of loopne, loope, loop, jecxz, nop; SDM vol. 2, LOOPcc: flags affected, none."""
    _, trap, frame = run(code + "b0559090", ecx=ecx, edx=0x81, eflags=0x202)
    assert trap == ENDED
    assert frame[EFLAGS] & ARITHMETIC == CF | OF  # 0x81 + 0x81 = 0x02


@pytest.mark.parametrize("prefix", ["", "f0"])
@pytest.mark.parametrize(
    ("opcode", "value", "result", "flags"),
    [
        ("f61d", 0x80, 0x80, CF | SF | OF),
        ("f61d", 0x01, 0xFF, CF | SF | AF | PF),
        ("66f71d", 0x8000, 0x8000, CF | SF | OF | PF),
        ("f71d", 0, 0, ZF | PF),
        ("f71d", 0xFFFFFFFF, 1, CF | AF),
    ],
)
def test_a_locked_neg_sets_the_flags_of_its_result(
    prefix: str, opcode: str, value: int, result: int, flags: int
) -> None:
    """SDM vol. 2, NEG."""
    guest, trap, frame = run(prefix + opcode + at(DATA + 0x800), word(value))
    assert trap == ENDED
    assert (guest.word(guest.data_pfn, 0x800), frame[EFLAGS] & ARITHMETIC) == (result, flags)


@pytest.mark.parametrize("prefix", ["", "f0"])
@pytest.mark.parametrize("equal", [True, False])
def test_cmpxchg8b_leaves_all_flags_but_zf(prefix: str, equal: bool) -> None:
    """SDM vol. 2, CMPXCHG8B; behind an addition whose flags the engine has not computed yet."""
    data = word(5) + word(6 if equal else 7)
    guest, trap, frame = run(
        "0409" + prefix + "0fc70d" + at(DATA + 0x800), data, eax=0xFC, edx=6, ebx=1, ecx=2
    )
    assert trap == ENDED
    assert frame[EFLAGS] & ARITHMETIC == CF | AF | PF | (ZF if equal else 0)
    assert guest.get(guest.data_pfn, 8, 0x800) == (word(1) + word(2) if equal else data)
    assert frame[0] == 5 and frame[2] == (6 if equal else 7)


@pytest.mark.parametrize(
    "code",
    ["d09f", "d197", "66c19f", "d397", "0f949f", "0f929f", "109f", "fe87", "0fb09f"],
    ids=["rcr", "rcl", "rcr-imm", "rcl-cl", "sete", "setb", "adc", "inc", "cmpxchg"],
)
def test_a_fault_leaves_the_flags(code: str) -> None:
    """SDM vol. 3, 6.5: a fault leaves the state before the instruction."""
    tail = "05" if code.startswith("66c1") else ""
    _, trap, frame = run("38c9" + code + at(0) + tail, eax=0x80, ecx=9, edi=READ_ONLY_PAGE, edx=0)
    assert isinstance(trap, PageFault) and (trap.address, trap.write, trap.present) == (
        READ_ONLY_PAGE,
        True,
        True,
    )
    assert (frame[EIP], frame[EFLAGS] & ARITHMETIC) == (CODE + 2, ZF | PF)


@pytest.mark.parametrize(
    ("code", "value", "carry", "result", "flags"),
    [
        ("d015", 0x80, 0, 0x00, CF | OF),
        ("d01d", 0x01, 1, 0x80, CF | OF),
        ("66d115", 0x4000, 1, 0x8001, OF),
        ("d11d", 0x80000000, 0, 0x40000000, OF),
        ("d315", 0x12345678, 1, 0x12345678, CF),
    ],
)
def test_rotates_of_memory_through_carry(code: str, value: int, carry: int, result: int, flags: int) -> None:
    """SDM vol. 2, RCL/RCR; the last by a count of 32, which is none."""
    guest, _, frame = run(code + at(DATA + 0x800), word(value), ecx=32, eflags=0x202 | carry)
    assert (guest.word(guest.data_pfn, 0x800), frame[EFLAGS] & (CF | OF)) == (result, flags)


# --- memory that is not there --------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["60", "6660", "61", "6661", "c8100000", "c8100003", "66c8100002"])
@pytest.mark.parametrize("esp", [READ_ONLY_PAGE + 8, DATA + 8, UNMAPPED])
def test_several_accesses_to_the_stack_happen_together_or_not(code: str, esp: int) -> None:
    """pusha, popa, enter over the edge of a page; SDM vol. 3, 6.5."""
    if code.endswith("61"):  # reads, upwards
        esp = {READ_ONLY_PAGE + 8: READ_ONLY_PAGE + 0x1000 - 8, DATA + 8: DATA - 8}.get(esp, esp)
    before = bytes(range(256)) * 16
    guest = Guest()
    guest.new_page(READ_ONLY_PAGE, READ_ONLY)
    guest.put(guest.data_pfn, before)
    trap, frame = guest.run_code(code, esp=esp, ebp=DATA + 0x500, esi=7, edi=8)
    assert isinstance(trap, PageFault)
    assert (frame[EIP], frame[ESP], list(frame[5:8])) == (CODE, esp, [DATA + 0x500, 7, 8])
    assert guest.get(guest.data_pfn, 4096) == before


def test_enter_faults_where_a_write_by_the_new_esp_would() -> None:
    """SDM vol. 2, ENTER, protected mode exceptions: #PF."""
    _, trap, frame = run("c8000200", esp=DATA + 0x100)
    assert isinstance(trap, PageFault) and trap.write
    assert (frame[ESP], frame[EIP]) == (DATA + 0x100, CODE)


def test_nested_frames() -> None:
    """SDM vol. 2, ENTER: level 3 copies two frame pointers and pushes the new one."""
    guest, trap, frame = run("c8080003", esp=DATA + 0x900, ebp=DATA + 0x808)
    assert trap == ENDED
    assert (frame[5], frame[ESP]) == (DATA + 0x8FC, DATA + 0x8FC - 12 - 8)
    assert guest.word(guest.data_pfn, 0x8FC) == DATA + 0x808
    assert guest.word(guest.data_pfn, 0x8F0) == DATA + 0x8FC


@pytest.mark.parametrize(("rpl", "faults"), [(3, False), (0, True)])
def test_arpl_writes_only_what_it_changes(rpl: int, faults: bool) -> None:
    """SDM vol. 2, ARPL: of a page that cannot be written, and through CS."""
    for prefix in ("", "2e"):
        guest = Guest()
        pfn = guest.new_page(READ_ONLY_PAGE, READ_ONLY)
        guest.put(pfn, bytes((0x10 | rpl, 0)))
        trap, frame = guest.run_code(bytes.fromhex(prefix + "630d" + at(READ_ONLY_PAGE)) + SYSTEM_CALL, ecx=3)
        if not faults:
            assert trap == ENDED and not frame[EFLAGS] & ZF
        elif prefix:
            assert isinstance(trap, CpuException) and trap.vector == 13
        else:
            assert isinstance(trap, PageFault) and trap.write


def test_clflush_faults_as_a_load() -> None:
    """SDM vol. 2, CLFLUSH; the prefetches do not (PREFETCHh), nor that of a register (APM vol. 3)."""
    _, trap, frame = run("0fae3d" + at(UNMAPPED))
    assert isinstance(trap, PageFault) and not trap.write and frame[EIP] == CODE
    for code in ("0f1805" + at(UNMAPPED), "0f180d" + at(UNMAPPED), "0f18d0", "0f18c1"):
        assert run(code)[1] == ENDED


# --- segments ------------------------------------------------------------------------------------------

# mov %cs,%eax; mov %eax,%es (or %ds)
ES_IS_CODE, DS_IS_CODE = "8cc88ec0", "8cc88ed8"


@pytest.mark.parametrize(
    ("setup", "code"),
    [
        (ES_IS_CODE, "aa"),
        (ES_IS_CODE, "ab"),
        (ES_IS_CODE, "f3ab"),
        (ES_IS_CODE, "a4"),
        (ES_IS_CODE, "f3a5"),
        (DS_IS_CODE, "a2" + at(DATA)),
        (DS_IS_CODE, "a3" + at(DATA)),
        (DS_IS_CODE, "0fab05" + at(DATA)),
        (DS_IS_CODE, "d91d" + at(DATA)),
        (DS_IS_CODE, "0f2905" + at(DATA)),
        (DS_IS_CODE, "f00fc70d" + at(DATA)),
        (DS_IS_CODE, "0f9405" + at(DATA)),
        ("8cc88cc8", "2e" + "a3" + at(DATA)),
        ("8cc88cc8", "2e" + "8f05" + at(DATA)),
        ("8cc88cc8", "2e" + "ff05" + at(DATA)),
    ],
)
def test_no_store_through_a_segment_of_code(setup: str, code: str) -> None:
    """SDM vol. 3, 5.5.1 and 6.15, #GP: string stores, moffs, x87, SSE, locked; through CS and its like."""
    _, trap, frame = run(setup + code, ecx=2, edi=DATA + 0x10, esi=DATA + 0x20, esp=STACK_TOP - 16)
    assert isinstance(trap, CpuException) and (trap.vector, trap.error_code) == (13, 0)
    assert frame[EIP] == CODE + 4


@pytest.mark.parametrize("code", ["ac", "ad", "a6", "ae", "a0" + at(DATA), "f3a7"])
def test_reading_through_a_segment_of_code_is_allowed(code: str) -> None:
    """SDM vol. 3, 5.5.1: a readable one."""
    _, trap, _ = run("8cc88ed88ec0" + code, ecx=2, edi=DATA + 0x10, esi=DATA + 0x20)
    assert trap == ENDED


@pytest.mark.parametrize("code", ["64660ff7c1", "640ff7c1", "640fae3f", "640f2907", "64d91f"])
def test_implicit_operands_and_flushes_need_a_segment(code: str) -> None:
    """SDM vol. 2, MASKMOVDQU, CLFLUSH: #GP of a null one."""
    _, trap, frame = run("8ee0" + code, eax=0, edi=DATA)
    assert isinstance(trap, CpuException) and (trap.vector, frame[EIP]) == (13, CODE + 2)


@pytest.mark.parametrize("code", ["64f3a6", "64f3a5", "f364ac", "2e66f3ab"])
@pytest.mark.parametrize("count", [0, 1])
def test_a_string_instruction_repeated_no_times_touches_no_segment(code: str, count: int) -> None:
    """SDM vol. 2, REP: the count is looked at first. FS is null; stos is of ES, whose override means nothing."""
    _, trap, frame = run("8ee0" + code, eax=0, ecx=count, esi=DATA, edi=DATA)
    faults = count > 0 and "64" in code
    assert (isinstance(trap, CpuException) and trap.vector == 13) if faults else trap == ENDED
    assert frame[EIP] == CODE + 2 if faults else True


# --- x87 -----------------------------------------------------------------------------------------------


def control(value: int) -> str:
    """push $value; fldcw (%esp)"""
    return "68" + at(value) + "d92c24"


@pytest.mark.parametrize(
    "code", ["d9d1", "d9e2", "dae0", "dbe5", "ddf0", "ded8", "dfe1", "d909", "db21", "db31", "dd29"]
)
def test_what_is_no_instruction_is_so_with_an_exception_pending(code: str) -> None:
    """SDM vol. 3, table 6-2: #UD comes before #MF."""
    pending = "dbe3" + control(0x37E) + "d9eed9eedef9"  # 0 / 0
    _, trap, _ = run(pending + code, ecx=DATA)
    assert isinstance(trap, CpuException) and trap.vector == 6
    _, trap, _ = run(pending + "d9e8")
    assert isinstance(trap, CpuException) and trap.vector == 16


def test_a_pending_exception_comes_before_a_null_segment() -> None:
    """SDM vol. 3, table 6-2: #MF before #GP of the operand."""
    _, trap, _ = run("8ee0dbe3" + control(0x37E) + "d9eed9eedef9" + "64d905" + at(DATA), eax=0)
    assert isinstance(trap, CpuException) and trap.vector == 16


@pytest.mark.parametrize(("operation", "exponent"), [("dcc8", 0x1FFF), ("d8c0", 0x1FFF)])
def test_an_unmasked_overflow_of_a_register_has_another_exponent(operation: str, exponent: int) -> None:
    """SDM vol. 1, 8.5.4: divided by 2^24576. 2^16383 doubled, 2^8192 squared."""
    start = 0x3FFF + 8192 if operation == "dcc8" else 0x7FFE
    data = struct.pack("<QH", 1 << 63, start)
    code = "dbe3" + control(0x377) + "db2d" + at(DATA + 0x800) + operation + "dd35" + at(DATA + 0x900)
    guest, _, _ = run(code, data)
    assert guest.get(guest.data_pfn, 10, 0x900 + 28) == struct.pack("<QH", 1 << 63, exponent)


@pytest.mark.parametrize("store", ["d91d", "dd1d"])
def test_an_unmasked_overflow_stores_nothing_and_is_not_inexact(store: str) -> None:
    """SDM vol. 1, 8.5.4: OE alone; and a page fault comes first."""
    data = struct.pack("<QH", (1 << 64) - 1, 0x7000)
    load = "dbe3" + control(0x377) + "db2d" + at(DATA + 0x800)
    guest, trap, frame = run(load + store + at(DATA + 0x900) + "dfe0", data)
    assert (trap, frame[0] & 0x2BF) == (ENDED, 0x88)
    assert guest.get(guest.data_pfn, 8, 0x900) == bytes(8)
    _, trap, _ = run(load + store + at(READ_ONLY_PAGE), data)
    assert isinstance(trap, PageFault) and trap.write


def test_an_unmasked_denormal_keeps_the_operation_from_happening() -> None:
    """SDM vol. 1, 8.5.2: DE without what the result would have raised."""
    data = word(1) + word(0)
    code = "dbe3" + control(0x37D) + "d9eb" + "d805" + at(DATA + 0x800) + "dfe0"
    _, _, frame = run(code, data)
    assert frame[0] & 0xBF == 0x82


def test_fstp_by_its_alias_pops_an_empty_register_without_a_word() -> None:
    """APM vol. 3, table A-15: D9 D8+i, fstpnouflow."""
    _, _, frame = run("dbe3" + "d9da" + "dfe0")
    assert frame[0] & 0x3841 == 0x0800


def test_fxrstor_of_a_pending_exception_is_seen_by_fwait() -> None:
    """SDM vol. 1, 8.7; by fwait, which is one byte, and by fld1."""
    state = bytearray(INITIAL)
    struct.pack_into("<HH", state, 0, 0x37E, 0x0001)
    for code in ("9b", "d9e8"):
        _, trap, frame = run("0fae0d" + at(DATA + 0x800) + code, bytes(state))
        assert isinstance(trap, CpuException) and (trap.vector, frame[EIP]) == (16, CODE + 7)


# --- SSE -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["66f3", "f366", "f3", "66f2", "f266", "f2"])
def test_66_means_nothing_beside_f2_and_f3(prefix: str) -> None:
    """SDM vol. 2, 2.1.2: movss, movsd, addss, addsd, pshufhw, pshuflw, movsldup, movddup, in any order of prefixes."""
    wide = "f2" in prefix
    data = bytes(range(16))
    load = "660f6f05" + at(DATA + 0x800) + "660f6fc8"
    store = "660f7f05" + at(DATA + 0x900)

    def result(code: str) -> bytes:
        guest, trap, _ = run(load + prefix + code + store, data + data[::-1])
        assert trap == ENDED
        return guest.get(guest.data_pfn, 16, 0x900)

    size = 8 if wide else 4
    assert result("0f1005" + at(DATA + 0x811)) == data[::-1][1 : 1 + size] + bytes(16 - size)
    assert result("0f10c1") == data
    shuffled = (
        data[6:8] + data[4:6] + data[2:4] + data[0:2] + data[8:]
        if wide
        else data[:8] + data[14:16] + data[12:14]
    )
    assert result("0f70c11b")[: len(shuffled)] == shuffled
    assert result("0f12c1") == (data[:8] * 2 if wide else data[0:4] * 2 + data[8:12] * 2)


def test_extrq_and_insertq() -> None:
    """APM vol. 4: the low half; a length of 0 is 64."""
    data = (
        bytes.fromhex("efcdab8967452301")
        + bytes(8)
        + bytes.fromhex("1122334455667788")
        + bytes.fromhex("0808")
        + bytes(6)
    )
    load = "660f6f3d" + at(DATA + 0x800) + "660f6f35" + at(DATA + 0x810)  # xmm7, xmm6
    for code, low in (
        ("660f78c71010", 0x89AB),
        ("660f78c70000", 0x0123456789ABCDEF),
        ("f20f78fe0808", 0x0123456789AB11EF),
        ("f20f79fe", 0x0123456789AB11EF),
    ):
        guest, trap, _ = run(load + code + "660f7f3d" + at(DATA + 0x900), data)
        assert trap == ENDED
        assert int.from_bytes(guest.get(guest.data_pfn, 8, 0x900), "little") == low, code


@pytest.mark.parametrize(("mxcsr", "inexact"), [(0x1780, False), (0x1F80, False), (0x9F80, True)])
def test_a_tiny_exact_result_is_inexact_only_if_flushed(mxcsr: int, inexact: bool) -> None:
    """SDM vol. 1, 11.5.2.5, 10.2.3.3: underflow unmasked, masked, and flushed to zero; cvtsd2ss of 2^-140."""
    data = word(mxcsr) + bytes(4) + struct.pack("<d", 2.0**-140)
    code = "0fae15" + at(DATA + 0x800) + "f20f5a05" + at(DATA + 0x808)
    guest = Guest()
    guest.put(guest.data_pfn, data, 0x800)
    frame = guest.thread()
    guest.put(guest.code_pfn, bytes.fromhex(code) + SYSTEM_CALL)
    trap = guest.run(frame)
    unmasked = not mxcsr & 0x800
    assert (isinstance(trap, CpuException) and trap.vector == 19) if unmasked else trap == ENDED
    guest.engine.sync_fpu(frame)
    assert frame[64 + 6] & 0x30 == (0x10 if unmasked else 0x30 if inexact else 0)
