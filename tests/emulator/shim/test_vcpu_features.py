"""Instructions that cpuid does not promise, exceptions that are not masked, stores across an absent page."""

from __future__ import annotations

import pytest

from l4lab.emulator.costs import CostTable
from l4lab.emulator.cpuid import CpuidModel
from l4lab.emulator.vcpu import Engine, Vcpu
from l4lab.kernel.frame import EAX, EFLAGS, EIP
from l4lab.kernel.traps import SYSTEM_CALL as ENDED
from l4lab.kernel.traps import CpuException, PageFault
from support.guest import CODE, DATA, SYSTEM_CALL, Guest, set_registers, word

PENTIUM = CpuidModel("GenuineIntel", 5, 2, 12, "")
UD, GP, MF, XM = 6, 13, 16, 19


def pentium() -> Guest:
    guest = Guest()
    guest.engine = Engine(guest.ram, CostTable.uniform(), PENTIUM)
    guest.vcpus = [Vcpu(guest.engine, 0)]
    guest.vcpu = guest.vcpus[0]
    return guest


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("cmovz", "0f44c1"),
        ("fcomi", "dbf1"),
        ("fcmovb", "dac1"),
        ("fisttp", "db0b"),
        ("paddb mm", "0ffcc1"),
        ("addps", "0f58c1"),
        ("movaps", "0f28c1"),
        ("addpd", "660f58c1"),
        ("ldmxcsr", "0fae13"),
        ("fxsave", "0fae03"),
        ("sfence", "0faef8"),
        ("popcnt", "f30fb8c1"),
        ("prefetcht0", "0f180b"),
        ("long nop", "0f1f00"),
        ("rdtscp", "0f01f9"),
        ("pshufb", "660f3800c1"),
    ],
)
def test_a_pentium_lacks(name: str, code: str) -> None:
    """SDM vol. 2, CPUID: a feature whose bit is clear is #UD."""
    guest = pentium()
    trap, frame = guest.run_code(bytes.fromhex("90" + code) + SYSTEM_CALL, ebx=DATA)
    assert (trap, frame[EIP]) == (CpuException(UD, 0), CODE + 1), name


@pytest.mark.parametrize("code", ["0fc8", "0fb1d9", "0f31", "d9e8", "0fa2"])
def test_a_pentium_has(code: str) -> None:
    assert pentium().run_code(bytes.fromhex(code) + SYSTEM_CALL)[0] is ENDED


@pytest.mark.parametrize(
    ("value", "result", "zero"), [(0x10, 4, False), (0x80000001, 31, False), (1, 0, False), (0, 0x55, True)]
)
def test_lzcnt_is_bsr_on_a_pentium(value: int, result: int, zero: bool) -> None:
    """APM vol. 3, LZCNT: without the feature, the prefix means nothing."""
    trap, frame = pentium().run_code(bytes.fromhex("f30fbdc1") + SYSTEM_CALL, eax=0x55, ecx=value)
    assert trap is ENDED
    assert (frame[EAX], bool(frame[EFLAGS] & 0x40)) == (result, zero)


@pytest.mark.parametrize(
    ("name", "code", "vector", "at"),
    [
        # SDM vol. 1, 11.5.2: ldmxcsr with one mask clear; 1/0, 0/0, an inexact quotient.
        ("0/0 by divss", f"c703{word(0x1F00).hex()} 0fae13 f30f5ec1", XM, 9),
        ("inexact cvtsi2ss", f"c703{word(0x0F80).hex()} 0fae13 b8ffffff7f f30f2ac0", XM, 14),
        # SDM vol. 1, 8.7: the exception is taken by the next waiting instruction, not by fnstsw.
        ("fdiv by zero, then fld1", "66c703 7b03 d92b d9e8 d9ee def9 dfe0 d9e8", MF, 15),
        ("fdiv by zero, then emms", "66c703 7b03 d92b d9e8 d9ee def9 0f77", MF, 13),
        ("stack fault", "66c703 7e03 d92b ddd8 9b", MF, 9),
        # SDM vol. 1, 11.6.10.1: operands of 16 bytes are aligned, but for the unaligned forms.
        ("paddd", "660ffe4301", GP, 0),
        ("movntps", "0f2b4308", GP, 0),
        ("cvtdq2ps", "0f5b4304", GP, 0),
        ("fxsave", "0fae4308", GP, 0),
        ("movshdup", "f30f164304", GP, 0),
    ],
)
def test_raises(name: str, code: str, vector: int, at: int) -> None:
    trap, frame = Guest().run_code(bytes.fromhex(code) + SYSTEM_CALL, ebx=DATA)
    assert (trap, frame[EIP]) == (CpuException(vector, 0), CODE + at), name


@pytest.mark.parametrize("code", ["0f104301", "0f114301", "f30f6f4301", "f20ff04301", "f30f5a4301", "dd4301"])
def test_unaligned_forms_are_allowed(code: str) -> None:
    assert Guest().run_code(bytes.fromhex(code) + SYSTEM_CALL, ebx=DATA)[0] is ENDED


@pytest.mark.parametrize(
    ("name", "code", "size"),
    [
        ("movups", "0f1103", 16),
        ("movdqu", "f30f7f03", 16),
        ("fstpt", "d9e8 db3b", 10),
        ("fnsave", "d9e8 dd33", 108),
        ("fnstenv", "d933", 28),
        ("fbstp", "d9e8 df33", 10),
    ],
)
@pytest.mark.parametrize("inside", [1, 5])
def test_a_store_across_an_absent_page_changes_nothing(name: str, code: str, size: int, inside: int) -> None:
    """SDM vol. 3, 6.5: a fault leaves the machine as it was before the instruction."""
    guest = Guest()
    trap, frame = guest.run_code(bytes.fromhex(code) + SYSTEM_CALL, ebx=DATA + 0x1000 - inside)
    assert trap == PageFault(DATA + 0x1000, True, False, False), name
    assert guest.get(guest.data_pfn, 0x1000) == bytes(0x1000)
    guest.new_page(DATA + 0x1000)
    assert guest.run(frame) is ENDED


def test_exceptions_are_a_threads_own() -> None:
    """SDM vol. 3, 13.4: flags are switched with the registers."""
    guest = Guest()
    divide = bytes.fromhex("f30f5ec1 d9e8 d9ee def9") + SYSTEM_CALL  # 0/0 and 1/0
    show = bytes.fromhex("0fae1b 8b03 83e03f 8bc8 dfe0 83e03f") + SYSTEM_CALL
    guest.put(guest.code_pfn, divide + show)
    first, second = guest.thread(), guest.thread(CODE + len(divide))
    set_registers(second, ebx=DATA)
    set_registers(first, ebx=DATA)
    assert guest.run(first) is ENDED
    assert guest.run(second) is ENDED
    assert (second[1], second[EAX]) == (0, 0)
    assert guest.run(first) is ENDED
    assert (first[1], first[EAX] & 0x3F) == (1, 4)
