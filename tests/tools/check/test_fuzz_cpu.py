"""Random code on our processor and on the host's: a short run, and that a difference would be seen."""

from __future__ import annotations

import dataclasses
import re
import struct
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from l4lab.tools.check.fuzz.cpu import hunt, machines, report
from l4lab.tools.check.fuzz.cpu.builder import AF, CF, DATA, LIMITED, SLOT_BYTES, Case
from l4lab.tools.check.fuzz.cpu.cases import LIMITS, case_of
from l4lab.tools.check.fuzz.cpu.compare import KINDS, differences
from l4lab.tools.check.fuzz.cpu.machines import End, Ours, code_pages
from l4lab.tools.cli.main import cli
from support.command import call


def usable_host() -> machines.HostIdentity | None:
    """The host's processor, if it runs 32-bit programs."""
    try:
        machines.Host().close()
    except machines.NoProcessorError:
        return None
    return machines.host_identity()


HOST = usable_host()
FEATURES = frozenset(("popcnt", "abm", "sse4a", LIMITS))
NUMBERS = machines.Numbers(0x2B, 0x23, 0x63)
"""Selectors of a 64-bit Linux."""
needs_x86 = pytest.mark.skipif(HOST is None, reason=report.SKIPPED)


def ended(case: Case) -> End:
    """How it ends on ours."""
    ours = Ours(NUMBERS)
    try:
        return ours.run([case])[0]
    finally:
        ours.close()


@needs_x86
def test_a_short_run_has_no_finding() -> None:
    summary = hunt.hunt(0, 4000, 7)
    assert summary is not None
    assert (summary.cases, summary.findings) == (4000, ())
    assert {0, 6, 13, 14, 16, 19} <= summary.ends.keys()
    assert summary.kinds.keys() <= KINDS.keys()


@needs_x86
def test_the_report_names_the_processor_and_the_kinds() -> None:
    result = CliRunner().invoke(cli, ["fuzz", "cpu", "--cases", "300"], standalone_mode=False)
    assert result.return_value == 0
    assert HOST is not None and HOST.name in result.output
    assert "undefined flags: SDM vol. 1, appendix A" in result.output and result.output.endswith(
        "no finding\n"
    )


def test_elsewhere_it_is_skipped_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hunt, "host_identity", lambda: None)
    result = CliRunner().invoke(cli, ["fuzz", "cpu"], standalone_mode=False)
    assert (result.return_value, result.output) == (0, f"{report.SKIPPED}\n")


def test_where_no_32_bit_program_runs_it_is_skipped_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A kernel without them says so (ENOEXEC), or lets it end before its first word."""
    identity = machines.HostIdentity("GenuineIntel", "GenuineIntel, none", FEATURES)
    monkeypatch.setattr(hunt, "host_identity", lambda: identity)
    monkeypatch.setattr(machines, "PACKAGE_DIR", tmp_path)
    assert hunt.hunt(0, 1, 1) is None
    program = tmp_path / "_native/programs/processor"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nexit 1\n", encoding="ascii")
    program.chmod(0o755)
    assert hunt.hunt(0, 1, 1) is None


def end_of(vendor: str, code: str, control: int, status: int, st0: str) -> machines.End:
    """`code` on a processor of ours, all x87 registers valid, `st0` in ST0 and, if TOP is 0, ST0 in R0."""
    first = case_of(1, 0, FEATURES)
    state = bytearray(first.fxsave)
    struct.pack_into("<HHB", state, 0, control, status, 0xFF)
    state[32:42] = bytes.fromhex(st0)[::-1]
    ours = Ours(NUMBERS, vendor)
    try:
        [end] = ours.run([dataclasses.replace(first, code=bytes.fromhex(code), fxsave=bytes(state))])
    finally:
        ours.close()
    return end


NAN = "7fffc000000000000001"
DENORMAL = "00004000000000000000"
NOWHERE = "00000040"  # 1 GiB, where nothing is
SYSTEM_CALL_ENDS = 13


@pytest.mark.parametrize("store", ["db15", "db1d", "df1d", "df3d", "df35", "dd0d"])
def test_the_identity_decides_whether_a_prevented_store_faults(store: str) -> None:
    """fist, fistp, fbstp, fisttp of a NaN, invalid unmasked: AMD's look at the page first, Intel's not at all."""
    for vendor, vector in (("AuthenticAMD", 14), ("GenuineIntel", SYSTEM_CALL_ENDS)):
        end = end_of(vendor, store + NOWHERE, 0x37E, 0, NAN)
        assert end.vector == vector
        status = struct.unpack_from("<H", end.fxsave, 2)[0]
        assert status == (0 if vector == 14 else 0x8081)


@pytest.mark.parametrize("store", ["0f7e05", "0f7f05", "0fe705"])
def test_the_identity_decides_whether_an_mmx_store_that_faults_has_moved_top(store: str) -> None:
    for vendor, top in (("AuthenticAMD", 5), ("GenuineIntel", 0)):
        end = end_of(vendor, store + NOWHERE, 0x37F, 5 << 11, NAN)
        assert (end.vector, struct.unpack_from("<H", end.fxsave, 2)[0]) == (14, top << 11)


@pytest.mark.parametrize("vendor", ["AuthenticAMD", "GenuineIntel"])
def test_what_both_vendors_do_beyond_the_manual(vendor: str) -> None:
    """A comparison sets its codes before its unmasked exception, fcomi leaves C1, a denormal is loaded, then told."""
    compared = end_of(vendor, "d8d0", 0x37D, 0, DENORMAL)  # fcom st0, denormal unmasked
    assert struct.unpack_from("<H", compared.fxsave, 2)[0] == 0xC082
    to_flags = end_of(vendor, "dbf0", 0x37E, 0x200, NAN)  # fcomi, invalid unmasked
    assert to_flags.eflags & 0x8D5 == 0x45
    assert struct.unpack_from("<H", to_flags.fxsave, 2)[0] == 0x8281
    code = "c7050000500001000000ddc7d90500005000"  # a denormal; ffree st7; fld of it, denormal unmasked
    loaded = end_of(vendor, code, 0x37D, 0, NAN)
    assert (loaded.vector, struct.unpack_from("<H", loaded.fxsave, 2)[0]) == (
        SYSTEM_CALL_ENDS,
        7 << 11 | 0x8082,
    )


def test_a_case_depends_on_its_seed_and_number_alone() -> None:
    """So it is run again by its number, in whatever company."""
    cases = [case_of(5, number, FEATURES) for number in range(40)]
    assert cases[17] == case_of(5, 17, FEATURES)
    assert cases[17] != case_of(6, 17, FEATURES)
    assert ended(cases[17]) == ended(case_of(5, 17, FEATURES))


def test_some_cases_have_segments_with_limits_if_the_host_has() -> None:
    cases = [case_of(5, number, FEATURES) for number in range(200)]
    assert {name for case in cases for name in case.segments} == {"", *LIMITED}
    assert {name for case in cases for name in case.selectors.values()} > set(LIMITED)
    without = [case_of(5, number, FEATURES - {LIMITS}) for number in range(200)]
    assert {case.segments for case in without} == {("", "")}


def test_every_case_fits_its_slot_and_ends() -> None:
    cases = [case_of(9, number, FEATURES) for number in range(256)]
    pages = code_pages(cases)
    for case in cases:
        offset = case.number % 256 * SLOT_BYTES
        assert pages[offset : offset + len(case.code)] == case.code
        assert b"\xcd\x30" in pages[offset + len(case.code) : offset + SLOT_BYTES]


def test_at_most_ten_kinds_each_with_a_section() -> None:
    assert len(KINDS) <= 10
    assert all(re.match(r"(SDM|APM) vol\. \d", reason) for reason in KINDS.values())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"eflags": CF}, "eflags"),
        ({"general": 1}, "eax"),
        ({"memory": 1}, "memory"),
        ({"fxsave": 4}, "tags"),
        ({"fxsave": 33}, "st0"),
        ({"fxsave": 161}, "xmm0"),
        ({"fxsave": 24}, "mxcsr"),
        ({"vector": 1}, "ends with"),
        ({"eip": 1}, "ends with"),
        ({"error_code": 1}, "error code"),
    ],
)
def test_one_bit_that_differs_is_a_finding(change: dict[str, int], word: str) -> None:
    case = dataclasses.replace(
        case_of(1, 0, FEATURES), code=b"\x90", names=("nop",), undefined=(), tolerance=""
    )
    ours = ended(case)
    host = ours
    for name, where in change.items():
        value = getattr(ours, name)
        if isinstance(value, bytes):
            value = value[:where] + bytes((value[where] ^ 1,)) + value[where + 1 :]
        elif isinstance(value, tuple):
            value = (value[0] ^ 1, *value[1:])
        else:
            value ^= where
        host = dataclasses.replace(host, **{name: value})
    assert differences(case, ours, ours, Counter()) == []
    assert any(word in line for line in differences(case, ours, host, Counter()))


def test_an_undefined_flag_is_passed_over_and_its_neighbour_is_not() -> None:
    """`and` leaves AF undefined (SDM vol. 2, AND)."""
    case = dataclasses.replace(
        case_of(1, 0, FEATURES), code=b"\x21\xc0", names=("and",), undefined=((2, AF),), tolerance=""
    )
    ours, kinds = ended(case), Counter[str]()
    assert differences(case, ours, dataclasses.replace(ours, eflags=ours.eflags ^ AF), kinds) == []
    assert kinds == {"undefined flags": 1}
    assert differences(case, ours, dataclasses.replace(ours, eflags=ours.eflags ^ AF ^ CF), kinds) != []


def test_what_a_saved_state_leaves_open_is_masked_where_it_lies() -> None:
    case = dataclasses.replace(
        case_of(1, 0, FEATURES), memory_masks=((16, 4),), names=("fxsave",), tolerance=""
    )
    ours, kinds = ended(case), Counter[str]()
    inside = ours.memory[:17] + bytes((ours.memory[17] ^ 1,)) + ours.memory[18:]
    beside = ours.memory[:20] + bytes((ours.memory[20] ^ 1,)) + ours.memory[21:]
    assert differences(case, ours, dataclasses.replace(ours, memory=inside), kinds) == []
    assert differences(case, ours, dataclasses.replace(ours, memory=beside), kinds) != []
    assert DATA % 4096 == 0 and kinds["undefined memory"] == 1


def test_options_of_the_other_fuzzer_are_not_taken_without_a_word() -> None:
    result = call("fuzz", "--seed", "5", "cpu", "--cases", "1")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("l4lab: found --seed before `cpu`, expected its options behind it")
