"""Cost profiles: what a processor and the kernel on it take, in cycles (`images/profiles/*.toml`).

A profile is five tables:

    [machine]    name (that of the file), description, mhz, global_pages: whether a load of CR3 leaves
                 global translations in the TLB (processors before the Pentium Pro have none)
    [topology]   packages, dies_per_package, cores_per_die
    [cpuid]      vendor, family, model, stepping, brand: how user code sees the processor
    [cpu]        costs of instructions, mode switches, memory and messages between cores
    [kernel]     lengths of the kernel's paths, one key for each field of `kernel.costs.KernelCosts`

Every number in the last two says where it comes from, in one of two ways:

    tlb_miss = { cycles = 9, source = "002_50211d24b7aa1a78.txt, design basis" }
    ipc_path = { cycles = 34, fitted_to = "250 cycles for 8 bytes, 001_1b920a6df003b76d.txt, table I" }

The keys of [cpu]:

    alu … locked               for each instruction or access, as `emulator.costs.CostTable` defines
                               them; fractions down to a thousandth of a cycle
    tlb_miss, fpu_switch       added for each TLB refill, each lazy switch of x87/SSE state; likewise
    kernel_entry, kernel_exit  system call and return; `trap` is then 0, lest it be charged twice
    exception_entry            the same as kernel_entry for faults, exceptions and interrupts
    halt_exit                  added where an interrupt or the timer finds its core idle, that is, halted
    cr3_load                   another page directory; the refills that follow are tlb_miss
    invalidate_page            one page out of the TLB
    memory_access              a line that no cache has
    ipi_send, ipi_receive      an interrupt to another core, for the one and for the other
    ipi_occupancy              how long one such interrupt keeps the interconnect from the next
    [cpu.ipi_latency]          same_die, other_die, other_package: from sending to arriving; at least 1,
                               because cores run apart by the least of them
    [cpu.cache_line_transfer]  likewise: a line that another core wrote last

A user's profile is a file like the bundled ones, named by its path; nothing else needs to change.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from l4lab.emulator.costs import MAX_COST_MILLICYCLES, MILLICYCLES_PER_CYCLE, CostTable
from l4lab.emulator.errors import ProfileError
from l4lab.emulator.files.inputs import BUNDLED_PROFILES, bundled_names, find_bundled
from l4lab.emulator.files.tomlfile import Table, load_toml, shown
from l4lab.kernel.costs import KernelCosts


class Distance(enum.Enum):
    """How far apart two cores are; the value is the key in the profile."""

    SAME_DIE = "same_die"
    OTHER_DIE = "other_die"
    OTHER_PACKAGE = "other_package"


INSTRUCTION_KEYS: Final = tuple(f.name for f in fields(CostTable))
"""[cpu] keys that may be fractions."""

DISTANCE_KEYS: Final = ("ipi_latency", "cache_line_transfer")
"""[cpu] keys that are tables with a number for each distance."""

_OTHER_CPU_KEYS: Final = (
    "kernel_entry",
    "kernel_exit",
    "exception_entry",
    "halt_exit",
    "cr3_load",
    "invalidate_page",
    "memory_access",
    "ipi_send",
    "ipi_receive",
    "ipi_occupancy",
)

CPU_KEYS: Final = (*INSTRUCTION_KEYS, *_OTHER_CPU_KEYS)
"""[cpu] keys that are one number."""

KERNEL_KEYS: Final = tuple(f.name for f in fields(KernelCosts) if f.name not in CPU_KEYS)
"""[kernel] keys."""

MAX_CYCLES: Final = MAX_COST_MILLICYCLES // MILLICYCLES_PER_CYCLE
_FRACTION_PLACES: Final = 3
_VENDOR_BYTES: Final = 12
_BRAND_BYTES: Final = 47
_ENTRY_FORM: Final = '{ cycles = N, source = "…" } or { cycles = N, fitted_to = "…" }'


@dataclass(frozen=True, slots=True)
class Cost:
    """One number of a profile and its origin: exactly one of `source` and `fitted_to` is given."""

    millicycles: int
    source: str | None
    fitted_to: str | None

    @property
    def cycles(self) -> int:
        """Whole cycles; only `INSTRUCTION_KEYS` can have a fraction, which this drops."""
        return self.millicycles // MILLICYCLES_PER_CYCLE

    def resolved(self) -> dict[str, object]:
        """As in the file; the number is an int unless it has a fraction."""
        whole = self.millicycles % MILLICYCLES_PER_CYCLE == 0
        cycles = self.cycles if whole else self.millicycles / MILLICYCLES_PER_CYCLE
        origin = {"source": self.source} if self.source is not None else {"fitted_to": self.fitted_to}
        return {"cycles": cycles, **origin}


@dataclass(frozen=True, slots=True)
class Topology:
    """Where cores are. They are numbered through die by die and package by package.

    A machine may have more cores than the model has: further packages of the same kind hold them.
    """

    packages: int
    dies_per_package: int
    cores_per_die: int

    def die_of(self, core: int) -> int:
        """The die, and with it the NUMA node, that `core` is on."""
        return core // self.cores_per_die

    def package_of(self, core: int) -> int:
        """The package that `core` is on."""
        return self.die_of(core) // self.dies_per_package

    def distance(self, core: int, other: int) -> Distance:
        """How far apart two cores are; a core is on its own die."""
        if self.die_of(core) == self.die_of(other):
            return Distance.SAME_DIE
        if self.package_of(core) == self.package_of(other):
            return Distance.OTHER_DIE
        return Distance.OTHER_PACKAGE


@dataclass(frozen=True, slots=True)
class Cpuid:
    """Who the `cpuid` instruction says the processor is, a `CpuIdentity`; the vCPU adds what it can do.

    Family and model include the extended fields. `brand` is empty before there were brand strings.
    """

    vendor: str
    family: int
    model: int
    stepping: int
    brand: str


@dataclass(frozen=True, slots=True)
class Profile:
    """A processor and the kernel on it. Mappings are in the order of the key lists above."""

    path: Path
    name: str
    description: str
    mhz: int
    global_pages: bool
    topology: Topology
    cpuid: Cpuid
    cpu: Mapping[str, Cost]
    ipi_latency: Mapping[Distance, Cost]
    cache_line_transfer: Mapping[Distance, Cost]
    kernel: Mapping[str, Cost]

    def instruction_costs(self) -> CostTable:
        """The costs that the vCPU adds up."""
        return CostTable(**{key: self.cpu[key].millicycles for key in INSTRUCTION_KEYS})

    def kernel_costs(self) -> KernelCosts:
        """The costs that the kernel charges."""
        costs = {**self.cpu, **self.kernel}
        return KernelCosts(**{f.name: costs[f.name].cycles for f in fields(KernelCosts)})

    def resolved(self) -> dict[str, Any]:
        """The whole profile as JSON has it; the same for the same contents, wherever the file lies."""
        cpu: dict[str, Any] = {key: cost.resolved() for key, cost in self.cpu.items()}
        for key, costs in (
            ("ipi_latency", self.ipi_latency),
            ("cache_line_transfer", self.cache_line_transfer),
        ):
            cpu[key] = {distance.value: cost.resolved() for distance, cost in costs.items()}
        return {
            "machine": {
                "name": self.name,
                "description": self.description,
                "mhz": self.mhz,
                "global_pages": self.global_pages,
            },
            "topology": {f.name: getattr(self.topology, f.name) for f in fields(Topology)},
            "cpuid": {f.name: getattr(self.cpuid, f.name) for f in fields(Cpuid)},
            "cpu": cpu,
            "kernel": {key: cost.resolved() for key, cost in self.kernel.items()},
        }


def bundled_profiles() -> tuple[str, ...]:
    """Names of the profiles that come with the package, sorted."""
    return bundled_names(BUNDLED_PROFILES, ".toml")


def find_profile(name_or_path: str, base: Path = Path()) -> Path:
    """The file of a bundled profile, or of a path relative to `base`.

    A word with a separator or the ending `.toml` is a path. ProfileError lists the bundled ones.
    """
    return find_bundled(name_or_path, BUNDLED_PROFILES, base, "profile", ProfileError)


def load_profile(name_or_path: str | Path) -> Profile:
    """A profile by name or path. ProfileError for any mistake, with file and key."""
    path = find_profile(name_or_path) if isinstance(name_or_path, str) else name_or_path
    top = load_toml(path, ProfileError)
    tables = ("machine", "topology", "cpuid", "cpu", "kernel")
    top.allow(*tables).require(*tables)
    machine = _table(top, "machine", ("name", "description", "mhz", "global_pages"))
    cpu = _table(top, "cpu", (*CPU_KEYS, *DISTANCE_KEYS))
    kernel = _table(top, "kernel", KERNEL_KEYS)
    return Profile(
        path=path,
        name=_name(machine),
        description=machine.string("description", "a sentence"),
        mhz=machine.integer("mhz", 1, 100_000),
        global_pages=machine.take("global_pages", bool, "true or false"),
        topology=_topology(top),
        cpuid=_cpuid(top),
        cpu={key: _cost(cpu, key, _FRACTION_PLACES if key in INSTRUCTION_KEYS else 0) for key in CPU_KEYS},
        ipi_latency=_distances(cpu, "ipi_latency", 1),
        cache_line_transfer=_distances(cpu, "cache_line_transfer", 0),
        kernel={key: _cost(kernel, key) for key in KERNEL_KEYS},
    )


def _table(parent: Table, key: str, keys: tuple[str, ...]) -> Table:
    return parent.table(key).allow(*keys).require(*keys)


def _name(machine: Table) -> str:
    """A copied profile must not go by the name of the original in anybody's results."""
    name = machine.string("name", "the file's name")
    if name != machine.path.stem:
        machine.refuse("name", shown(name), f"the file's name, {shown(machine.path.stem)}")
    return name


def _topology(top: Table) -> Topology:
    names = tuple(f.name for f in fields(Topology))
    table = _table(top, "topology", names)
    return Topology(*(table.integer(name, 1, 64) for name in names))


def _cpuid(top: Table) -> Cpuid:
    table = _table(top, "cpuid", tuple(f.name for f in fields(Cpuid)))
    vendor = table.string("vendor", f"{_VENDOR_BYTES} ASCII characters")
    if not (vendor.isascii() and len(vendor) == _VENDOR_BYTES):
        table.refuse("vendor", shown(vendor), f'{_VENDOR_BYTES} ASCII characters, as in "AuthenticAMD"')
    brand = table.string("brand", "a name")
    if not (brand.isascii() and len(brand) <= _BRAND_BYTES):
        table.refuse("brand", shown(brand), f"at most {_BRAND_BYTES} ASCII characters")
    return Cpuid(
        vendor=vendor,
        family=table.integer("family", 0, 0xF + 0xFF),
        model=table.integer("model", 0, 0xFF),
        stepping=table.integer("stepping", 0, 0xF),
        brand=brand,
    )


def _distances(cpu: Table, key: str, low_cycles: int) -> dict[Distance, Cost]:
    table = _table(cpu, key, tuple(distance.value for distance in Distance))
    return {distance: _cost(table, distance.value, low_cycles=low_cycles) for distance in Distance}


def _cost(parent: Table, key: str, places: int = 0, low_cycles: int = 0) -> Cost:
    parent.take(key, dict, _ENTRY_FORM)
    entry = parent.table(key).allow("cycles", "source", "fitted_to").require("cycles")
    number = entry.decimal("cycles", low_cycles, MAX_CYCLES, places)
    origins = {name: entry.string(name, "an origin") for name in ("source", "fitted_to") if name in entry}
    if len(origins) != 1:
        parent.refuse(key, "two origins" if origins else "a number without an origin", _ENTRY_FORM)
    for name, text in origins.items():
        if not text.strip():
            entry.refuse(name, shown(text), "where the number comes from")
    return Cost(int(number * MILLICYCLES_PER_CYCLE), origins.get("source"), origins.get("fitted_to"))
