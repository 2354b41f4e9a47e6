"""A kernel without a machine: cores whose user code we make up, and TLBs that forget nothing unasked.

`Rig` does for the kernel what `emulator.machine` does, but for running user code: it keeps each
core's decision, applies effects, and carries interrupts between cores. `Tlb` stands for a core's TLB
at its worst: whatever user code could have looked up since the last flush may still be there.
"""

from __future__ import annotations

import dataclasses
import enum
import mmap
import zlib
from collections import deque
from random import Random
from typing import TYPE_CHECKING, Final

from l4lab.emulator.interfaces import INTERFACE
from l4lab.kernel import paging
from l4lab.kernel.costs import KernelCosts
from l4lab.kernel.entry import Decision, handle_trap
from l4lab.kernel.errors import KernelBug
from l4lab.kernel.events import EventLog
from l4lab.kernel.frame import CR3
from l4lab.kernel.interface import BootParameters
from l4lab.kernel.invariants import Census
from l4lab.kernel.state import FlushTlb, Ipi
from l4lab.kernel.thread import READY, Thread
from l4lab.kernel.traps import DEADLINE_REACHED, INTERRUPT, Interrupt

if TYPE_CHECKING:
    from l4lab.kernel.drq import Drq
    from l4lab.kernel.state import Effect, Kernel, TlbPolicy
    from l4lab.kernel.traps import Trap

MHZ: Final = 100
KIP_PFN: Final = 1
_TLB_ENTRIES: Final = 8
_FEW_PAGES: Final = 64
_MESSAGE_WORDS: Final = 8
_ENTRIES_A_CENSUS: Final = 64
"""Every so many entries, what has changed is held against what was billed."""


class Logging(enum.Enum):
    """What the kernel logs: nothing, what a ledger needs, or all."""

    NONE = "none"
    LEDGER = "ledger"
    TRACE = "trace"


class Tlb:
    """Some of the translations that a core may hold. `entries`: page -> its entry in the page tables then."""

    __slots__ = ("cr3", "entries")

    def __init__(self) -> None:
        self.cr3 = 0
        self.entries: dict[int, int] = {}

    def load(self, cr3: int) -> None:
        """User code runs with this page directory; another one than the last empties the TLB."""
        if cr3 != self.cr3:
            self.cr3 = cr3
            self.entries.clear()

    def flush(self, pages: tuple[int, ...] | None) -> None:
        """Forget these pages, as `invlpg` does; None: everything."""
        if pages is None:
            self.entries.clear()
            return
        for page in pages:
            large = self.entries.get(page >> 10 << 10, 0) & paging.SUPERPAGE
            self.entries.pop(page >> 10 << 10 if large else page, None)

    def check(self, words: memoryview[int]) -> None:
        """Every translation held is one that the page tables have, with no more rights than they give."""
        for page, entry in self.entries.items():
            now = self.walk(words, page)
            held, given = entry & paging.WRITABLE, now & paging.WRITABLE
            if not now & paging.PRESENT or (now ^ entry) & paging.FRAME_MASK or held > given:
                raise KernelBug(f"stale translation of page {page:#x}: {entry:#x}, the tables say {now:#x}")

    def walk(self, words: memoryview[int], page: int) -> int:
        """The entry that maps `page`, as the hardware finds it; 0 if there is none."""
        pde = words[(self.cr3 >> 12 << 10) + (page >> 10)]
        if not pde & paging.PRESENT or pde & paging.SUPERPAGE:
            return pde if pde & paging.PRESENT else 0
        pte = words[(pde >> 12 << 10) + (page & 1023)]
        return pte if pte & paging.PRESENT else 0

    def remember(self, words: memoryview[int], page: int) -> None:
        """User code touches `page`, if it is mapped."""
        entry = self.walk(words, page)
        if entry:
            if len(self.entries) >= _TLB_ENTRIES:
                del self.entries[next(iter(self.entries))]
            self.entries[page >> 10 << 10 if entry & paging.SUPERPAGE else page] = entry


class Rig:
    """A booted kernel over a small RAM. Time is one clock for all cores, in cycles.

    `interrupts[core]`: DRQs under way to it, in order of sending. `entries`: kernel entries so far. `trail`: a
    checksum of what each of them left behind.
    """

    def __init__(
        self, rng: Random, *, cores: int, ram_bytes: int, kernel_bytes: int, policy: TlbPolicy, log: Logging
    ) -> None:
        self.rng = rng
        self.ram = memoryview(mmap.mmap(-1, ram_bytes)).cast("I")  # zero, and not there until it is used
        parameters = BootParameters(
            first_kernel_pfn=ram_bytes - kernel_bytes >> 12,
            kernel_frame_count=kernel_bytes >> 12,
            cores=cores,
            mhz=MHZ,
            quantum_us=INTERFACE.default_quantum_us,
            kip_pfn=KIP_PFN,
            sigma0_entry=0x100000,
            root_entry=0x240000,
        )
        costs = KernelCosts(**{each.name: 7 for each in dataclasses.fields(KernelCosts)})
        self.kernel: Kernel = INTERFACE.start(self.ram, parameters, costs)
        self.kernel.line_cycles = [[5] * cores for _ in range(cores)]
        self.kernel.tlb_policy = policy
        if log is not Logging.NONE:
            self.kernel.events = EventLog()
            self.kernel.trace = self.kernel.events if log is Logging.TRACE else None
        self.decisions = [Decision() for _ in range(cores)]
        self.tlbs = [Tlb() for _ in range(cores)]
        self.interrupts: list[deque[Drq | None]] = [deque() for _ in range(cores)]
        self.now_cycles = 0
        self.entries = 0
        self.trail: list[int] = []
        self.sigma0, self.root = self.kernel.threads.values()
        self.trap(0, DEADLINE_REACHED)

    def running(self, core: int) -> Thread | None:
        """Who runs on `core`, as far as the core knows: another one may have killed it meanwhile."""
        return self.decisions[core].thread

    def trap(self, core: int, trap: Trap, cycles: int = 1) -> None:
        """One kernel entry, `cycles` after the last one. Before all but interrupts, user code ran."""
        self.now_cycles += cycles
        self.entries += 1
        decision = self.decisions[core]
        if decision.thread is not None and not isinstance(trap, Interrupt):
            self._run_user_code(core, decision.thread)
        log = self.kernel.events
        if log is not None:
            log.entered = decision.thread
            log.sent_to = 0
        census = Census(self.kernel) if self.entries % _ENTRIES_A_CENSUS == 0 else None
        handle_trap(self.kernel, core, trap, self.now_cycles, decision)
        if census is not None:
            census.check_charged(self.kernel, decision.bill)
        for effect in decision.effects:
            self._apply(effect)
        self.trail.append(self._checksum(decision))
        if log is not None:
            log.pending.clear()
        self._check_decision(core, decision)

    def _checksum(self, decision: Decision) -> int:
        """Of the decision, what was logged, and the thread that runs next with its message."""
        kernel, thread, log = self.kernel, decision.thread, self.kernel.events
        left: tuple[object, ...] = (decision.kernel_cycles, decision.bill, kernel.served)
        if thread is not None:
            message = self.ram[thread.utcb : thread.utcb + _MESSAGE_WORDS].tobytes()
            requests = (thread.request, thread.began, thread.last_request)
            left += (thread.number, requests, zlib.crc32(thread.frame.tobytes() + message))
        if log is not None:
            left += (log.pending, log.requests, log.sent_to, log.sent_tag)
        return zlib.crc32(repr(left).encode())

    def _run_user_code(self, core: int, thread: Thread) -> None:
        """The core has executed something, with the page directory that the thread's frame names."""
        task = thread.task
        cr3 = thread.frame[CR3]
        blank = self.kernel.blank_directory_pfn << 12
        if cr3 != blank and (task is None or not task.alive or cr3 != task.space.tables.cr3):
            raise KernelBug(f"{thread!r} ran with page directory {cr3:#x}, which is not its own")
        tlb = self.tlbs[core]
        tlb.load(cr3)
        if tlb.entries:
            tlb.check(self.ram)
        pages = task.space.pages if task is not None else ()
        if pages and len(pages) < _FEW_PAGES:
            tlb.remember(self.ram, self.rng.choice(tuple(pages)))

    def deliver(self, core: int) -> None:
        """The first interrupt that is under way to `core` arrives."""
        drq = self.interrupts[core].popleft()
        self.trap(core, INTERRUPT if drq is None else Interrupt(drq))

    def tick(self, core: int) -> None:
        """A timer tick on `core`; time goes on to the next millisecond."""
        tick_cycles = INTERFACE.tick_us * MHZ
        self.trap(core, DEADLINE_REACHED, tick_cycles - self.now_cycles % tick_cycles)

    def _apply(self, effect: Effect) -> None:
        if isinstance(effect, Ipi):
            self.interrupts[effect.core].append(effect.drq)
        elif isinstance(effect, FlushTlb):
            for number, tlb in enumerate(self.tlbs):
                if effect.cores >> number & 1:
                    tlb.flush(effect.pages)

    def _check_decision(self, core: int, decision: Decision) -> None:
        """What must hold before user code runs on a core: cheap enough for every entry."""
        kernel = self.kernel
        if kernel.dying or kernel.memory.stale or kernel.held:
            raise KernelBug("something is left over from a kernel entry")
        quota = kernel.root_quota
        if quota.used_bytes > quota.limit_bytes:
            raise KernelBug(f"{quota.used_bytes} of {quota.limit_bytes} bytes of kernel memory used")
        thread = decision.thread
        if thread is None:
            return
        if thread.state != READY or thread.core != core or thread is not kernel.cores[core].current:
            raise KernelBug(f"core {core} is to run {thread!r}, {thread.state_name} on core {thread.core}")
        if thread.queued or thread.pending_exception is not None:
            raise KernelBug(f"{thread!r} runs, but is queued or has an exception to raise")
