"""`l4lab bench engine`: how fast user code runs and what entering the kernel costs, against the engine alone.

Each ratio compares measurements that take turns in one process, on the same code; it is that of the best
of either, in the process's own CPU time, so that a busy host disturbs it little.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from l4lab.emulator.costs import CostTable
from l4lab.emulator.interfaces import INTERFACE
from l4lab.emulator.ram import Ram
from l4lab.emulator.vcpu import NO_DEADLINE, Engine, Vcpu
from l4lab.emulator.yardstick.bare import BareEngine
from l4lab.emulator.yardstick.stock import start_stop_us
from l4lab.kernel.errors import KernelBug
from l4lab.kernel.frame import (
    CR3,
    EAX,
    EBX,
    ECX,
    EIP,
    ESI,
    INSTRUCTIONS,
    TLB_MISSES,
    FramePool,
    read_counter,
)
from l4lab.kernel.traps import SYSTEM_CALL
from l4lab.tools.bench.host.limits import Limits
from l4lab.tools.common.progress import Progress
from l4lab.tools.common.report import console, table
from l4lab.tools.common.versions import versions

FORMAT: Final = 1

CODE_ADDRESS: Final = 0x0040_0000
DATA_ADDRESS: Final = 0x0040_1000
RAM_BYTES: Final = 4 << 20
SYSTEM_CALL_CODE: Final = b"\xcd\x30"  # int 0x30

ROUNDS: Final = 7
"""How often the two sides of a ratio take turns."""
ENTRIES: Final = 20_000
MANY_CORES: Final = 48
SIDES: Final = ("engine_alone", "engine_with_tlb", "l4lab")


@dataclass(frozen=True, slots=True)
class Loop:
    """Straight code that ends in `dec ecx; jnz` to its start. EBX points to a page of data, ESI is 0."""

    name: str
    code: bytes
    instructions: int
    iterations: int


EXPLANATION: Final = """
engine alone: no hook at all; its kernel entry is one start and stop of its Python binding
with a TLB:   one hook, which fills the TLB with pages that are either code or data
l4lab:        every instruction, cycle and TLB miss counted, page tables walked; its kernel entry
              shows all registers to Python and goes on in another address space
"""

LOOPS: Final = (
    Loop(
        "register",
        bytes.fromhex("01d8 31c2 8d741601 29f7 49 75f3"),  # add, xor, lea, sub, dec, jnz
        instructions=6,
        iterations=15_000_000,
    ),
    Loop(
        "memory",
        bytes.fromhex("8b0433 01d0 890433 83c604 81e6fc0f0000 49 75ec"),  # a load, a store, 5 others
        instructions=7,
        iterations=1_500_000,
    ),
    Loop(
        "x87",  # mov [ebx], ecx; fild, fldpi, fmulp, fstp
        bytes.fromhex("890b db03 d9eb dec9 dd5b08 49 75f2"),
        instructions=7,
        iterations=300_000,
    ),
    Loop(
        "SSE",  # cvtsi2ss, movaps, mulss, addss, movss to memory
        bytes.fromhex("f30f2ac1 0f28c8 f30f59c8 f30f58c8 f30f110b 49 75ea"),
        instructions=7,
        iterations=300_000,
    ),
)
LIMITS: Final = Limits(
    at_least={
        "register_loop_ratio": 0.6,
        "memory_loop_ratio": 0.85,
        "entry_ratio": 0.5,
        "x87_loop_ratio": 1.2,
        "SSE_loop_ratio": 0.9,
    },
    at_most={"cores48_seconds": 2, "cores48_rss_mib": 400},
)


class Guest:
    """One vCPU without a kernel: address spaces of a page of code and one of data at fixed addresses."""

    def __init__(self, code: bytes) -> None:
        self.ram = Ram(RAM_BYTES)
        self.engine = Engine(self.ram, CostTable.uniform())
        self.vcpu = Vcpu(self.engine, 0)
        self.pool = FramePool(INTERFACE.selectors)
        self._next_pfn = 16
        self.code = code

    def thread(self) -> array[int]:
        """A thread in an address space of its own, at the first instruction."""
        directory, table, code, data = range(self._next_pfn, self._next_pfn + 4)
        self._next_pfn += 4
        words = self.ram.words
        words[directory * 1024 + (CODE_ADDRESS >> 22)] = table << 12 | 7  # present, writable, user
        words[table * 1024 + (CODE_ADDRESS >> 12 & 0x3FF)] = code << 12 | 5
        words[table * 1024 + (DATA_ADDRESS >> 12 & 0x3FF)] = data << 12 | 7
        self.ram.bytes_[code << 12 : (code << 12) + len(self.code)] = self.code
        frame = self.pool.take()
        frame[CR3], frame[EIP], frame[EBX] = directory << 12, CODE_ADDRESS, DATA_ADDRESS
        return frame

    def run(self, frame: array[int]) -> None:
        """Run to the next system call; nothing else may happen."""
        trap = self.vcpu.run(frame, NO_DEADLINE)
        if trap is not SYSTEM_CALL:
            raise KernelBug(f"benchmark program stopped with {trap} at {frame[EIP]:#x}")


def measure_loop(loop: Loop) -> dict[str, float]:
    """Million instructions per second of each of SIDES; the best of ROUNDS runs, all three taking turns."""
    bare, paged = (
        BareEngine(loop.code, CODE_ADDRESS, DATA_ADDRESS, fill_tlb=fill_tlb) for fill_tlb in (False, True)
    )
    guest = Guest(loop.code + SYSTEM_CALL_CODE)
    frame = guest.thread()
    registers = {"ecx": loop.iterations, "ebx": DATA_ADDRESS, "esi": 0}

    def ours() -> float:
        frame[EIP], frame[ECX], frame[ESI] = CODE_ADDRESS, loop.iterations, 0
        start = time.process_time()
        guest.run(frame)
        return time.process_time() - start

    turns = [(bare.run_seconds(registers), paged.run_seconds(registers), ours()) for _ in range(ROUNDS)]
    instructions = loop.iterations * loop.instructions
    executed, expected = read_counter(frame, INSTRUCTIONS), ROUNDS * (instructions + 1)
    if executed != expected:
        raise KernelBug(f"{loop.name} loop: counted {executed} instructions, expected {expected}")
    best = (min(column) for column in zip(*turns, strict=True))
    return {side: instructions / seconds / 1e6 for side, seconds in zip(SIDES, best, strict=True)}


def entry_us() -> float:
    """Microseconds of one kernel entry and the way out of it into another address space.

    Two threads in two address spaces take turns: each time registers are read and one is written, page
    tables and TLB of the other space are loaded, and it runs from its system call to the next.
    """
    guest = Guest(b"\x8b\x03" + SYSTEM_CALL_CODE + b"\xeb\xfa")  # mov eax, [ebx]; int 0x30; jmp back
    frames = guest.thread(), guest.thread()
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(ENTRIES // 2):
            for frame in frames:
                guest.run(frame)
                if frame[EAX] or frame[EIP] != CODE_ADDRESS + 4:
                    raise KernelBug(f"benchmark program is at {frame[EIP]:#x}")
                frame[ESI] = 0
        best = min(best, time.process_time() - start)
    misses = sum(read_counter(frame, TLB_MISSES) for frame in frames)
    if misses < 2 * ENTRIES * ROUNDS:
        raise KernelBug(f"{misses} TLB misses in {ENTRIES * ROUNDS} changes of address space")
    return best / ENTRIES * 1e6


def many_cores() -> dict[str, float]:
    """Seconds to make MANY_CORES vCPUs that have each run something, and MiB of this process with them."""
    start = time.perf_counter()
    guest = Guest(SYSTEM_CALL_CODE)
    for core in range(MANY_CORES):
        if core:
            guest.vcpu = Vcpu(guest.engine, core)
        guest.run(guest.thread())
    return {"seconds": time.perf_counter() - start, "rss_mib": peak_rss_bytes() / (1 << 20)}


def peak_rss_bytes() -> int:
    """The most memory this process had resident."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) << 10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes where there is no /proc: macOS


def many_cores_in_new_process() -> dict[str, float]:
    """`many_cores` where nothing else has taken memory yet."""
    command = [sys.executable, "-P", "-m", "l4lab.tools.bench.host.engine"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def measure() -> dict[str, Any]:
    """All figures; takes a few seconds on a quiet host."""
    with Progress("measuring", len(LOOPS) + 3) as progress:
        rates = {}
        for loop in LOOPS:
            rates[loop.name] = measure_loop(loop)
            progress.advance()
        stock_us = start_stop_us()
        progress.advance()
        our_us = entry_us()
        progress.advance()
        cores = many_cores_in_new_process()
        progress.advance()
    sides = {name: tuple(rate.values()) for name, rate in rates.items()}
    return {
        "format": FORMAT,
        "versions": versions(),
        **{f"{name}_loop_ratio": ours / alone for name, (alone, _, ours) in sides.items()},
        **{f"{name}_loop_ratio_with_tlb": ours / paged for name, (_, paged, ours) in sides.items()},
        "entry_ratio": stock_us / our_us,
        f"cores{MANY_CORES}_seconds": cores["seconds"],
        f"cores{MANY_CORES}_rss_mib": cores["rss_mib"],
        "mips": rates,
        "entry_us": {"stock_binding": stock_us, "l4lab": our_us},
    }


def show(figures: dict[str, Any]) -> None:
    speeds = table("", "engine alone", "with a TLB", "l4lab", "ratios")
    for name, rates in figures["mips"].items():
        ratios = f"{figures[f'{name}_loop_ratio']:.2f}, {figures[f'{name}_loop_ratio_with_tlb']:.2f}"
        speeds.add_row(f"{name} loop, MIPS", *(f"{mips:.0f}" for mips in rates.values()), ratios)
    us = figures["entry_us"]
    speeds.add_row(
        "kernel entry, µs",
        f"{us['stock_binding']:.2f}",
        "",
        f"{us['l4lab']:.2f}",
        f"{figures['entry_ratio']:.2f}",
    )
    console(soft_wrap=True).print(speeds)
    print(EXPLANATION)
    print(
        f"{MANY_CORES} cores: made in {figures[f'cores{MANY_CORES}_seconds']:.2f} s, "
        f"{figures[f'cores{MANY_CORES}_rss_mib']:.0f} MiB resident"
    )


if __name__ == "__main__":
    print(json.dumps(many_cores()))
