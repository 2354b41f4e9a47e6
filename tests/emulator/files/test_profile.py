"""Cost profiles: where every bundled number comes from, what they add up to, and mistakes in them."""

from __future__ import annotations

import json
import random
import re
from dataclasses import fields
from pathlib import Path

import pytest

from l4lab.emulator.costs import CostTable
from l4lab.emulator.cpuid import OPTERON_6174, cpuid_leaves
from l4lab.emulator.errors import ProfileError
from l4lab.emulator.files.inputs import BUNDLED_PROFILES
from l4lab.emulator.files.profile import (
    CPU_KEYS,
    INSTRUCTION_KEYS,
    KERNEL_KEYS,
    Cost,
    Distance,
    Profile,
    Topology,
    bundled_profiles,
    find_profile,
    load_profile,
)
from l4lab.kernel.costs import KernelCosts

NAMES = ("haswell-4770", "i486-dx50", "opteron-6174", "pentium-160")
SHEET_OR_SEED = re.compile(
    r"calibration sheet, section [0-7]\b"
    r"|000_1be4d2f6ae8bebbc\.txt|001_1b920a6df003b76d\.txt|002_50211d24b7aa1a78\.txt|003_7bcd5b5e8388f371\.txt"
)


@pytest.fixture(scope="module")
def profiles() -> dict[str, Profile]:
    return {name: load_profile(name) for name in NAMES}


def all_costs(profile: Profile) -> dict[str, Cost]:
    """Every number of [cpu] and [kernel] under its full key."""
    costs = {f"cpu.{key}": cost for key, cost in profile.cpu.items()}
    costs |= {f"cpu.ipi_latency.{d.value}": cost for d, cost in profile.ipi_latency.items()}
    costs |= {f"cpu.cache_line_transfer.{d.value}": cost for d, cost in profile.cache_line_transfer.items()}
    return costs | {f"kernel.{key}": cost for key, cost in profile.kernel.items()}


# --- the bundled profiles -----------------------------------------------------------------------


def test_the_bundled_profiles() -> None:
    assert bundled_profiles() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_its_origin(profiles: dict[str, Profile], name: str) -> None:
    """A source is a section of the sheet or a seed document; a fit says to which figure."""
    for key, cost in all_costs(profiles[name]).items():
        assert (cost.source is None) != (cost.fitted_to is None), key
        if cost.source is not None:
            assert SHEET_OR_SEED.match(cost.source), key
        elif cost.fitted_to is not None and not cost.fitted_to.startswith("free parameter: "):
            assert SHEET_OR_SEED.match(cost.fitted_to), key


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_free_but_the_trap_that_kernel_entry_covers(
    profiles: dict[str, Profile], name: str
) -> None:
    assert [key for key, cost in all_costs(profiles[name]).items() if cost.millicycles == 0] == ["cpu.trap"]


@pytest.mark.parametrize("name", NAMES)
def test_farther_is_never_cheaper(profiles: dict[str, Profile], name: str) -> None:
    for costs in (profiles[name].ipi_latency, profiles[name].cache_line_transfer):
        near_to_far = [costs[distance].cycles for distance in Distance]
        assert near_to_far == sorted(near_to_far)


def test_numbers_of_the_seed_documents(profiles: dict[str, Profile]) -> None:
    i486 = profiles["i486-dx50"]
    assert i486.cpu["kernel_entry"].cycles + i486.cpu["kernel_exit"].cycles == 107
    assert i486.cpu["tlb_miss"].cycles == 9
    assert i486.kernel["copy_word"].cycles == 4 * 0.75
    assert all(i486.cpu[key].cycles in (1, 2) for key in ("alu", "branch", "load", "store"))
    assert profiles["opteron-6174"].cpu["memory_access"].cycles == 216
    assert profiles["haswell-4770"].cpu["cr3_load"].cycles == 124
    assert profiles["pentium-160"].cpu["tlb_miss"].cycles <= 9
    assert [profiles[name].mhz for name in NAMES] == [3400, 50, 2200, 160]


def test_the_lower_bound_of_the_i486_is_the_sum_of_its_parts(profiles: dict[str, Profile]) -> None:
    """002_50211d24b7aa1a78.txt: 20 instructions of one cycle, entry and exit, five TLB misses: 172."""
    cpu = profiles["i486-dx50"].cpu
    parts = 20 * cpu["alu"].cycles + cpu["kernel_entry"].cycles + cpu["kernel_exit"].cycles
    assert parts + 5 * cpu["tlb_miss"].cycles == 172


def test_global_pages_came_with_the_pentium_pro(profiles: dict[str, Profile]) -> None:
    assert [name for name in NAMES if profiles[name].global_pages] == ["haswell-4770", "opteron-6174"]


def test_one_price_for_the_paths_that_were_counted(profiles: dict[str, Profile]) -> None:
    """0.9 cycles an instruction: the number of instructions stands beside the cycles."""
    counted = re.compile(r"by 0\.9 cycles an instruction; (\d+) instructions, counted on the real kernel")
    found = {
        key: (cost.cycles, int(match[1]))
        for key, cost in profiles["opteron-6174"].kernel.items()
        if cost.fitted_to and (match := counted.search(cost.fitted_to))
    }
    assert {
        "syscall_decode",
        "ipc_path",
        "ipc_block",
        "thread_switch",
        "map_page",
        "unmap_page",
    } <= found.keys()
    for cycles, instructions in found.values():
        assert abs(cycles - 0.9 * instructions) <= 0.5


# --- what the rest of the machine gets ----------------------------------------------------------


def test_instruction_costs_are_the_vcpus(profiles: dict[str, Profile]) -> None:
    table = profiles["opteron-6174"].instruction_costs()
    assert isinstance(table, CostTable)
    assert (table.alu, table.mul, table.load, table.trap) == (500, 2000, 500, 0)
    assert (table.tlb_miss, table.fpu_switch) == (45_000, 150_000)
    assert tuple(table.as_dict()) == INSTRUCTION_KEYS


@pytest.mark.parametrize("name", NAMES)
def test_kernel_costs_are_complete(profiles: dict[str, Profile], name: str) -> None:
    costs, profile = profiles[name].kernel_costs(), profiles[name]
    for field in fields(KernelCosts):
        from_profile = profile.cpu.get(field.name) or profile.kernel[field.name]
        assert getattr(costs, field.name) == from_profile.cycles > 0


def test_keys_are_those_of_the_two_cost_tables() -> None:
    """What a mode or space switch costs is the processor's, the rest the kernel's; nothing is in both."""
    assert not set(CPU_KEYS) & set(KERNEL_KEYS)
    assert {f.name for f in fields(CostTable)} <= set(CPU_KEYS)
    assert {f.name for f in fields(KernelCosts)} <= {*CPU_KEYS, *KERNEL_KEYS}
    assert {"kernel_entry", "kernel_exit", "exception_entry", "cr3_load"} <= set(CPU_KEYS)
    assert "ipc_path" in KERNEL_KEYS


def test_distances_on_the_opteron(profiles: dict[str, Profile]) -> None:
    """Two dies of six cores in each package."""
    topology = profiles["opteron-6174"].topology
    assert topology == Topology(packages=4, dies_per_package=2, cores_per_die=6)
    assert [topology.distance(0, core) for core in (0, 5, 6, 11, 12, 47)] == [
        Distance.SAME_DIE,
        Distance.SAME_DIE,
        Distance.OTHER_DIE,
        Distance.OTHER_DIE,
        Distance.OTHER_PACKAGE,
        Distance.OTHER_PACKAGE,
    ]
    assert (topology.die_of(47), topology.package_of(47)) == (7, 3)
    assert topology.package_of(63) == 5  # more cores than the model has: more packages
    assert all(topology.distance(a, b) is topology.distance(b, a) for a in range(48) for b in range(48))


def test_cpuid(profiles: dict[str, Profile]) -> None:
    opteron, i486 = profiles["opteron-6174"].cpuid, profiles["i486-dx50"].cpuid
    assert (opteron.vendor, opteron.family, opteron.model, opteron.stepping) == ("AuthenticAMD", 0x10, 9, 1)
    assert opteron.brand == "AMD Opteron(tm) Processor 6174"
    assert (i486.vendor, i486.family, i486.brand) == ("GenuineIntel", 4, "")


def test_signatures_are_those_of_the_real_processors(profiles: dict[str, Profile]) -> None:
    """Leaf 1 EAX, as the vCPU answers it."""
    leaves = {name: cpuid_leaves(profiles[name].cpuid) for name in NAMES}
    assert {name: next(leaf.eax for leaf in leaves[name] if leaf.leaf == 1) for name in NAMES} == {
        "haswell-4770": 0x306C3,
        "i486-dx50": 0x411,
        "opteron-6174": 0x100F91,
        "pentium-160": 0x52C,
    }
    assert leaves["opteron-6174"] == cpuid_leaves(OPTERON_6174)


def test_a_fraction_is_kept(profiles: dict[str, Profile]) -> None:
    half = profiles["opteron-6174"].cpu["alu"]
    assert (half.millicycles, half.cycles) == (500, 0)
    assert half.resolved()["cycles"] == 0.5
    assert profiles["opteron-6174"].cpu["mul"].resolved()["cycles"] == 2


# --- profiles of one's own ----------------------------------------------------------------------


@pytest.fixture
def text() -> str:
    """A good profile under the name of `mine`."""
    original = (BUNDLED_PROFILES / "i486-dx50.toml").read_text(encoding="utf-8")
    return original.replace('name = "i486-dx50"', 'name = "mine"')


def load(folder: Path, text: str | bytes) -> Profile:
    path = folder / "mine.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_profile(path)


def refusal(folder: Path, text: str | bytes) -> str:
    with pytest.raises(ProfileError) as caught:
        load(folder, text)
    return check_line(caught.value, folder)


def check_line(error: ProfileError, folder: Path) -> str:
    line = str(error)
    assert line.isprintable()
    assert line.startswith(f"{folder / 'mine.toml'}: ")
    return line.removeprefix(f"{folder / 'mine.toml'}: ")


def test_a_profile_of_ones_own(tmp_path: Path, text: str) -> None:
    mine = load(tmp_path, text.replace("tlb_miss = { cycles = 9,", "tlb_miss = { cycles = 12.125,"))
    assert (mine.name, mine.path) == ("mine", tmp_path / "mine.toml")
    assert mine.cpu["tlb_miss"].millicycles == 12_125
    assert load_profile(str(tmp_path / "mine.toml")) == mine


def test_resolved_is_complete_and_the_same_in_any_folder(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    resolved = load(tmp_path / "a", text).resolved()
    assert json.dumps(resolved) == json.dumps(load(tmp_path / "b", text).resolved())
    assert list(resolved) == ["machine", "topology", "cpuid", "cpu", "kernel"]
    assert resolved["cpu"]["tlb_miss"]["cycles"] == 9
    assert resolved["cpu"]["ipi_latency"]["other_die"]["cycles"] == 200
    assert resolved["kernel"]["ipc_path"]["cycles"] == 34
    assert set(resolved["cpu"]) == {*CPU_KEYS, "ipi_latency", "cache_line_transfer"}
    assert set(resolved["kernel"]) == set(KERNEL_KEYS)


def test_a_profile_by_name_or_path(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("")
    assert find_profile("opteron-6174") == BUNDLED_PROFILES / "opteron-6174.toml"
    assert find_profile("mine.toml", tmp_path) == tmp_path / "mine.toml"
    assert find_profile(str(tmp_path / "mine.toml"), Path("/elsewhere")) == tmp_path / "mine.toml"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("opteron", 'found no profile "opteron" (did you mean "opteron-6174"?), expected the path of one'),
        (
            "xyz",
            'found no profile "xyz", expected the path of one (as in ./NAME.toml) '
            f"or a bundled one: {', '.join(NAMES)}",
        ),
        ("", 'found no profile ""'),
        ("./absent.toml", "absent.toml: found no such file, expected a readable file"),
        ("../opteron-6174", "../opteron-6174: found no such file"),
    ],
)
def test_no_such_profile(name: str, line: str) -> None:
    with pytest.raises(ProfileError) as caught:
        load_profile(name)
    assert line in str(caught.value)


# --- mistakes -----------------------------------------------------------------------------------

TLB_MISS = re.compile(r"tlb_miss = \{[^}]*\}")
IPC_PATH = re.compile(r"ipc_path = \{[^}]*\}")
FORM = '{ cycles = N, source = "…" } or { cycles = N, fitted_to = "…" }'


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ("9", f"cpu.tlb_miss: found 9, expected {FORM}"),
        ("{ cycles = 9 }", f"cpu.tlb_miss: found a number without an origin, expected {FORM}"),
        ("{ source = 'x' }", "cpu.tlb_miss: found no cycles, expected every one of its keys"),
        (
            "{ cycles = 9, source = 'x', fitted_to = 'y' }",
            f"cpu.tlb_miss: found two origins, expected {FORM}",
        ),
        (
            "{ cycles = 9, source = '' }",
            'cpu.tlb_miss.source: found "", expected where the number comes from',
        ),
        ("{ cycles = 9, fitted_to = ' ' }", 'cpu.tlb_miss.fitted_to: found " ", expected where the number'),
        ("{ cycles = 9, source = 4 }", "cpu.tlb_miss.source: found 4, expected an origin"),
        ('{ cycles = 9, source = "a\\nb" }', "cpu.tlb_miss.source: found"),
        ("{ cycles = 9, sauce = 'x' }", 'found unknown key cpu.tlb_miss.sauce (did you mean "source"?)'),
        (
            "{ cycles = -1, source = 'x' }",
            "cpu.tlb_miss.cycles: found -1, expected a number from 0 to 1000000",
        ),
        ("{ cycles = -0.5, source = 'x' }", "cpu.tlb_miss.cycles: found -0.5, expected"),
        ("{ cycles = 1000001, source = 'x' }", "cpu.tlb_miss.cycles: found 1000001, expected"),
        (
            "{ cycles = 0.0001, source = 'x' }",
            "cpu.tlb_miss.cycles: found 0.0001, expected a number from 0 to",
        ),
        ("{ cycles = '9', source = 'x' }", 'cpu.tlb_miss.cycles: found "9", expected a number from 0 to'),
        ("{ cycles = true, source = 'x' }", "cpu.tlb_miss.cycles: found true, expected a number from 0 to"),
        ("{ cycles = nan, source = 'x' }", "cpu.tlb_miss.cycles: found NaN, expected a number from 0 to"),
        (
            "{ cycles = -inf, source = 'x' }",
            "cpu.tlb_miss.cycles: found -Infinity, expected a number from 0 to",
        ),
        ("{ cycles = 1e999999999, source = 'x' }", "cpu.tlb_miss.cycles: found 1E+999999999, expected"),
        ("{ cycles = 1e-999999999, source = 'x' }", "cpu.tlb_miss.cycles: found 1E-999999999, expected"),
        (
            "{ cycles = 1e99999999999999999999, source = 'x' }",
            "found invalid TOML, a number beyond all bounds",
        ),
        ("{ cycles = 0x" + "f" * 5000 + ", source = 'x' }", "cpu.tlb_miss.cycles: found an enormous integer"),
    ],
)
def test_a_bad_number(tmp_path: Path, text: str, entry: str, line: str) -> None:
    assert line in refusal(tmp_path, TLB_MISS.sub(lambda _: f"tlb_miss = {entry}", text))


def test_the_kernel_takes_whole_cycles(tmp_path: Path, text: str) -> None:
    spoilt = IPC_PATH.sub("ipc_path = { cycles = 34.5, source = 'x' }", text)
    assert "kernel.ipc_path.cycles: found 34.5, expected a whole number from 0" in refusal(tmp_path, spoilt)
    whole = IPC_PATH.sub("ipc_path = { cycles = 34.0, source = 'x' }", text)
    assert load(tmp_path, whole).kernel_costs().ipc_path == 34


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "\n[kernel]",
            "\n[kernels]",
            'found unknown key kernels (did you mean "kernel"?), expected one of cpu, cpuid',
        ),
        ('name = "mine"', 'name = "other"', 'machine.name: found "other", expected the file\'s name, "mine"'),
        ("mhz = 50", "mhz = 0", "machine.mhz: found 0, expected an integer from 1 to 100000"),
        ("mhz = 50", "mhz = 2.2", "machine.mhz: found 2.2, expected an integer from 1 to 100000"),
        ("global_pages = false", "global_pages = 0", "machine.global_pages: found 0, expected true or false"),
        ("mhz = 50", "ghz = 50", 'found unknown key machine.ghz (did you mean "mhz"?)'),
        ("mhz = 50", "", "machine: found no mhz, expected every one of its keys"),
        ("packages = 1", "packages = 65", "topology.packages: found 65, expected an integer from 1 to 64"),
        ("dies_per_package = 1\n", "", "topology: found no dies_per_package, expected"),
        (
            'vendor = "GenuineIntel"',
            'vendor = "Intel"',
            'cpuid.vendor: found "Intel", expected 12 ASCII characters',
        ),
        ('vendor = "GenuineIntel"', 'vendor = "GenuineIntél"', "cpuid.vendor: found"),
        ("family = 4", "family = 271", "cpuid.family: found 271, expected an integer from 0 to 270"),
        ("model = 1", "model = 256", "cpuid.model: found 256, expected an integer from 0 to 255"),
        ("stepping = 1", "stepping = 16", "cpuid.stepping: found 16, expected an integer from 0 to 15"),
        ('brand = ""', f'brand = "{"x" * 48}"', "expected at most 47 ASCII characters"),
        (
            "tlb_miss =",
            "tlb_mis =",
            'found unknown key cpu.tlb_mis (did you mean "tlb_miss"?), expected one of alu',
        ),
        ("ipc_path =", "ipc_path_length =", "found unknown key kernel.ipc_path_length (did you mean"),
        (
            "same_die = { cycles = 200,",
            "same_die = { cycles = 0,",
            "cpu.ipi_latency.same_die.cycles: found 0, expected a",
        ),
        (
            "[cpu.ipi_latency]",
            "[cpu.ipi_latencies]",
            'found unknown key cpu.ipi_latencies (did you mean "ipi_latency"?)',
        ),
        ("other_package =", "other_planet =", "found unknown key cpu.ipi_latency.other_planet"),
    ],
)
def test_a_mistake_is_one_line_with_its_key(tmp_path: Path, text: str, old: str, new: str, line: str) -> None:
    assert old in text
    assert line in refusal(tmp_path, text.replace(old, new, 1))


def test_all_missing_keys_come_at_once(tmp_path: Path, text: str) -> None:
    spoilt = TLB_MISS.sub("", re.sub(r"(cr3_load|alu) = \{[^}]*\}", "", text))
    assert (
        refusal(tmp_path, spoilt) == "cpu: found no alu, cr3_load, tlb_miss, expected every one of its keys"
    )
    assert (
        refusal(tmp_path, "")
        == "found no cpu, cpuid, kernel, machine, topology, expected every one of its keys"
    )


def test_a_profile_that_is_none(tmp_path: Path) -> None:
    assert "expected UTF-8 text" in refusal(tmp_path, b"\xff\xfe")
    assert "at line 1, column" in refusal(tmp_path, "alu: 4")
    with pytest.raises(ProfileError, match="found a directory, expected a readable file"):
        load_profile(tmp_path)


def test_mutated_profiles_load_or_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    random_ = random.Random("profile mutants")
    loaded = refused = 0
    for _ in range(400):
        spoilt = bytearray(text.encode())
        for _ in range(random_.randint(1, 3)):
            at = random_.randrange(len(spoilt))
            match random_.randrange(4):
                case 0:
                    spoilt[at] = random_.randrange(256)
                case 1:
                    spoilt[at] ^= 1 << random_.randrange(8)
                case 2:
                    del spoilt[at : at + random_.randint(1, 40)]
                case _:
                    spoilt[at:at] = random_.choice(
                        (b"=", b"\n", b"[", b"}", b"9", b"0x", b"1e9", b"'", b'"', b".")
                    )
        try:
            assert len(load(tmp_path, bytes(spoilt)).cpu) == len(CPU_KEYS)
            loaded += 1
        except ProfileError as error:
            check_line(error, tmp_path)
            refused += 1
    assert min(loaded, refused) > 20
