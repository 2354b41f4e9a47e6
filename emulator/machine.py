"""The machine: cores in global time order, and what passes between them and the kernel.

The whole control flow is `Machine.run`: the core that is furthest behind runs until it traps; the
trap is kept until no other core is behind it, and then the kernel decides; the machine does what
the decision says. A core never runs further ahead than the least latency between two cores, so
nothing that another core does can come too late. Ties go to the lower core number.

Idle cores cost nothing: they have no next moment until something is sent to them.

Longer than most files: turns, kernel entries and what these send to other cores are one loop, read in one go.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Self

from l4lab.emulator import boot
from l4lab.emulator.files.manifest import Idle
from l4lab.emulator.files.profile import Profile, load_profile
from l4lab.emulator.interfaces import INTERFACE
from l4lab.emulator.ledger import BATCH_VALUES, SAMPLE_CYCLES, Ledger
from l4lab.emulator.ram import Ram
from l4lab.emulator.results import RunResult, StopReason, collect
from l4lab.emulator.vcpu import Engine, Vcpu
from l4lab.kernel import requests, tracing
from l4lab.kernel.costs import CAUSES, IPI, SHOOTDOWN
from l4lab.kernel.drq import FlushDrq
from l4lab.kernel.entry import Decision, handle_trap
from l4lab.kernel.errors import KernelBug
from l4lab.kernel.frame import (
    EIP,
    FPU_AREA,
    FPU_AREA_WORDS,
    FPU_SWITCHES,
    FPU_VALID,
    INSTRUCTIONS,
    TLB_MISSES,
)
from l4lab.kernel.state import ConsoleOutput, CopyFpu, End, FlushTlb, Ipi, KernelWritten, TimerSet
from l4lab.kernel.teardown import take_apart
from l4lab.kernel.traps import (
    DEADLINE_REACHED,
    HOST_STOP,
    INTERRUPT,
    SYSTEM_CALL,
    Interrupt,
    Trap,
)

if TYPE_CHECKING:
    from l4lab.emulator.files.manifest import Manifest
    from l4lab.kernel.state import Effect, Kernel
    from l4lab.kernel.thread import Thread

NEVER: Final = 1 << 62
"""A moment behind all others, and as a limit none. In cycles; rows and events have 64 bits for one."""
LAST_WAKE_UP_CYCLES: Final = 1 << 61
"""A timeout due behind this is never over. From here to NEVER cores would be busy, for more than a host's life."""


@dataclass(slots=True, eq=False)
class CoreState:
    """One core of the machine.

    `trap`: what its last run ended with, not yet served. `moment`: when it next does something, as
    the agenda has it. `clock_cycles`: its vCPU's clock.
    `interrupts`: (arrival, order of sending, what arrives), soonest first.
    `inbox`: the latest of them that brings DRQs, until it is taken; when it arrives.
    `stuck_at`, `stuck_switches`: instructions (modulo 2**32) of the last thread that trapped, and switches of the
    core, by then; `stuck_since_cycles`: since when both are so, see `Machine._is_stuck`.
    `idle_since_cycles`: when it became idle; None while it runs a thread. `booked_until`: the end of its
    last ledger row. `samples`: where its user code was since then, in a trace: (cycle, EIP, TLB misses of the
    thread so far), one after the other; `next_sample`: when the next is due.
    """

    number: int
    vcpu: Vcpu
    decision: Decision = field(default_factory=Decision)
    trap: Trap | None = None
    moment: int = NEVER
    clock_cycles: int = 0
    interrupts: list[tuple[int, int, Interrupt]] = field(default_factory=list)
    idle_since_cycles: int | None = None
    inbox: Interrupt | None = None
    inbox_arrival_cycles: int = 0
    kernel_cycles: int = 0
    idle_cycles: int = 0
    booked_until: int = 0
    stuck_at: int = 0
    stuck_switches: int = 0
    stuck_since_cycles: int = 0
    samples: list[int] = field(default_factory=list)
    next_sample: int = 0


class Machine:
    """A machine with everything loaded, before its first instruction.

    `console`: called with each piece of output as it comes; the result has all of it besides.
    `entries`: kernel entries served so far. `ledger`: gets every cycle booked; costs host time, no cycle.
    Raises OperatorError if the manifest's files or profile cannot be used.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        console: Callable[[bytes], None] | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.manifest = manifest
        self.profile: Profile = load_profile(manifest.profile_path())
        self.ram = Ram(manifest.ram_bytes)
        parameters = boot.load(manifest, self.ram, self.profile.mhz, global_pages=self.profile.global_pages)
        costs = self.profile.kernel_costs()
        if manifest.idle is Idle.POLL:
            costs = replace(costs, halt_exit=0)
        self.kernel: Kernel = INTERFACE.start(self.ram.words, parameters, costs)
        self.kernel.tlb_policy = manifest.tlb
        self.engine = Engine(
            self.ram, self.profile.instruction_costs(), self.profile.cpuid, self.kernel.interface
        )
        self.cores = [self._make_core(number) for number in range(manifest.cores)]
        self.output = bytearray()
        self._console = console
        self.ledger = ledger
        if ledger is not None:
            requests.start(self.kernel, ledger.log)
            self.kernel.trace = ledger.log if ledger.trace else None
        self._tick_us = self.kernel.interface.tick_us
        self._tick_cycles = self._tick_us * self.profile.mhz
        self._lookahead_cycles = min(cost.cycles for cost in self.profile.ipi_latency.values())
        topology = self.profile.topology
        numbers = range(manifest.cores)
        self.kernel.line_cycles = [
            [self.profile.cache_line_transfer[topology.distance(a, b)].cycles for b in numbers]
            for a in numbers
        ]
        self._latency_cycles = [[self.latency_cycles(a, b) for b in numbers] for a in numbers]
        self._occupancy_cycles = self.profile.cpu["ipi_occupancy"].cycles
        self._interconnect_free = 0
        self._sent = 0
        self.entries = 0
        # Heap of (moment, core number): an entry counts while it is that core's `moment`. Two that never
        # come see to it that there are always two others.
        self._agenda: list[tuple[int, int]] = [(NEVER, 0), (NEVER, 0)]
        self._apply(self.cores[0], self.kernel.effects, 0)
        self.cores[0].trap = INTERRUPT  # the boot core enters the kernel once, to choose its first thread
        self._expect(self.cores[0])

    def close(self) -> None:
        """Give back engine, RAM and the kernel's objects; there is nothing to run or to look at any more.

        Without it engine and RAM go with the last reference to the machine, and the kernel's objects, which
        refer to each other, when Python's garbage collector comes by.
        """
        self.cores.clear()
        self.engine.close()
        take_apart(self.kernel)
        self.ram.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _make_core(self, number: int) -> CoreState:
        state = CoreState(number, Vcpu(self.engine, number))
        state.idle_since_cycles = 0
        return state

    # --- the run loop -----------------------------------------------------------------------------

    def run(self, max_cycles: int | None = None) -> RunResult:
        """Run until the root task ends, nothing can happen any more, or a core's clock reaches `max_cycles`.

        May be called again after MAX_CYCLES or HOST_STOP and goes on where it stopped. Raises
        KernelBug, with the kernel's state in its text, for a mistake of ours; ValueError if it is closed.
        """
        if not self.cores:
            raise ValueError("the machine is closed")
        limit = NEVER if max_cycles is None else min(max_cycles, NEVER)
        try:
            reason = self._run(limit)
        except KernelBug as bug:
            raise KernelBug(f"{bug.detail}\n{self.describe()}") from bug
        finally:
            if self.ledger is not None:
                self._book_rest(self.ledger)
        return collect(self, reason)

    def _run(self, limit: int) -> StopReason:
        """The turns of the cores, by their moments. O(log cores) each; the benchmark is `l4lab bench scale`."""
        kernel = self.kernel
        kernel_cores = kernel.cores
        agenda = self._agenda
        cores = self.cores
        lookahead_cycles = self._lookahead_cycles
        heappop, heapreplace = heapq.heappop, heapq.heapreplace
        while kernel.end is None:
            now, number = agenda[0]
            core = cores[number]
            if core.moment != now and now != NEVER:
                heappop(agenda)
                continue
            if now >= limit:
                return StopReason.ALL_WAIT if now == NEVER else StopReason.MAX_CYCLES
            # No other core does anything before this. An outdated entry only makes it too early.
            others, third = agenda[1][0], agenda[2][0]
            if third < others:
                others = third
            decision = core.decision
            trap = core.trap
            if trap is None:
                trap = self._due(core, now)
            else:
                core.trap = None
            if trap is not None and not self._serve(core, trap, now):
                return StopReason.HOST_STOP
            thread = decision.thread
            if thread is None:
                moment = self._next_moment(core)
            else:
                moment = core.clock_cycles
                # After a kernel entry, user code can follow at once, unless something may come between.
                if trap is None or not (
                    decision.effects
                    or core.interrupts
                    or kernel_cores[number].current is not thread
                    or moment >= limit
                    or kernel.end is not None
                ):
                    if moment < others:
                        trap = self._run_ahead(core, thread, moment, others, limit)
                    else:
                        horizon = others + lookahead_cycles
                        trap = self._run_core(core, thread, moment, horizon if horizon < limit else limit)
                    if trap is HOST_STOP:
                        return StopReason.HOST_STOP
                    moment = core.clock_cycles
                    if core.trap is None and decision.thread is None:
                        moment = self._next_moment(core)
            # In place of the moment that has passed, which is still the first of the agenda.
            core.moment = moment
            if moment == NEVER:
                heappop(agenda)
            else:
                heapreplace(agenda, (moment, number))
        return StopReason.ROOT_ENDED if kernel.end is End.ROOT_ENDED else StopReason.ROOT_KILLED

    def _due(self, core: CoreState, now: int) -> Trap | None:
        """What enters the kernel on `core` now, though its user code did not trap; None: nothing does."""
        thread = core.decision.thread
        if core.interrupts and core.interrupts[0][0] <= now:
            interrupt = heapq.heappop(core.interrupts)[2]
            if interrupt is core.inbox:
                core.inbox = None
            return interrupt
        if thread is None:
            return DEADLINE_REACHED
        if self.kernel.cores[core.number].current is not thread:
            return INTERRUPT  # another core has killed it
        return None

    def _expect(self, core: CoreState) -> None:
        """Something was sent to another core: its next moment may have come closer."""
        moment = self._next_moment(core)
        if moment < core.moment:
            core.moment = moment
            heapq.heappush(self._agenda, (moment, core.number))

    def _next_moment(self, core: CoreState) -> int:
        """When this core can next do something; NEVER for a core that waits for others."""
        clock = core.clock_cycles
        if core.trap is not None or core.decision.thread is not None:
            return clock
        moment = core.interrupts[0][0] if core.interrupts else NEVER
        deadline_us = self.kernel.cores[core.number].wake_ups.next_deadline_us()
        if deadline_us is not None:
            due = -(-deadline_us // self._tick_us) * self._tick_cycles
            if due < moment and due <= LAST_WAKE_UP_CYCLES:
                moment = due
        return max(moment, clock)

    def _run_ahead(self, core: CoreState, thread: Thread, now: int, others: int, limit: int) -> Trap:
        """Run `thread`, and serve its traps and what follows, as long as nobody else can come between.

        That is before `others`, the next moment of any other core, and until an effect may have changed
        that. Returns the last trap; one that has to wait its turn is left in the core.
        """
        horizon = others + self._lookahead_cycles
        if horizon > limit:
            horizon = limit
        while True:
            trap = self._run_core(core, thread, now, horizon)
            clock = core.clock_cycles
            if clock >= others or core.trap is None:
                return trap
            core.trap = None
            if not self._serve(core, trap, clock):
                return HOST_STOP
            decision = core.decision
            now = core.clock_cycles
            following = decision.thread
            if following is None or decision.effects or core.interrupts or now >= others or now >= limit:
                return trap
            if self.kernel.cores[core.number].current is not following or self.kernel.end is not None:
                return trap
            thread = following

    def _run_core(self, core: CoreState, thread: Thread, now: int, horizon: int) -> Trap:
        """Run user code until it traps or must stop; the trap is served when its time has come."""
        kernel_wants_it = core.decision.run_until_cycles
        tick = (now // self._tick_cycles + 1) * self._tick_cycles
        if tick < kernel_wants_it:
            kernel_wants_it = tick
        deadline = kernel_wants_it if kernel_wants_it < horizon else horizon
        if core.interrupts and core.interrupts[0][0] < deadline:
            deadline = core.interrupts[0][0]
        vcpu = core.vcpu
        if deadline <= now:
            deadline = now + 1
        ledger = self.ledger
        if ledger is not None and ledger.trace:
            trap = _run_sampled(core, thread, now, deadline)
        else:
            trap = vcpu.run(thread.frame, deadline)
        clock = core.clock_cycles = vcpu.clock_cycles
        if trap is HOST_STOP or (trap is DEADLINE_REACHED and clock < kernel_wants_it):
            return trap
        if trap is not SYSTEM_CALL and trap is not DEADLINE_REACHED and self._is_stuck(core, thread, clock):
            trap = DEADLINE_REACHED
        core.trap = trap
        return trap

    def _is_stuck(self, core: CoreState, thread: Thread, now: int) -> bool:
        """Whether `thread`, which traps now, has done nothing else for a whole tick, without completing an instruction.

        Ticks that fall into kernel entries are not made up for, as one in user code comes soon; here there is none.
        Then the tick comes in place of the trap, which comes again.
        """
        completed, switches = thread.frame[INSTRUCTIONS], self.kernel.cores[core.number].switches
        if completed == core.stuck_at and switches == core.stuck_switches:
            if now - core.stuck_since_cycles < self._tick_cycles:
                return False
            core.stuck_since_cycles = now
            return True
        core.stuck_at, core.stuck_switches, core.stuck_since_cycles = completed, switches, now
        return False

    def _serve(self, core: CoreState, trap: Trap, now: int) -> bool:
        """One kernel entry, and what it asks for. False: not now; only a debugger has that (`debugged`)."""
        idle = 0
        if core.idle_since_cycles is not None:
            idle = now - core.idle_since_cycles
            core.idle_cycles += idle
            self.kernel.cores[core.number].idle_cycles = core.idle_cycles
            core.idle_since_cycles = None
            core.vcpu.advance(idle)
        decision = core.decision
        thread = decision.thread
        ledger = self.ledger
        if ledger is not None:
            log = ledger.log
            log.entered = thread
            log.sent_to = 0
            if thread is None:
                number = request = misses = switches = 0
            else:
                number, request = thread.number, thread.request
                frame = thread.frame  # the kernel may end the thread, and take its frame
                misses, switches = frame[TLB_MISSES], frame[FPU_SWITCHES]
                if ledger.trace:
                    tracing.sampled(log, core.number, thread, core.samples, now)
                    tracing.entered(self.kernel, log, core.number, thread, trap.number, now)
        kernel = self.kernel
        handle_trap(kernel, core.number, trap, now, decision)
        if decision.effects:
            self._apply(core, decision.effects, now + decision.kernel_cycles)
        cost = decision.kernel_cycles
        core.kernel_cycles += cost
        self.entries += 1
        core.vcpu.advance(cost)
        core.clock_cycles = now + cost
        decision.run_until_cycles += cost
        if decision.thread is None:
            core.idle_since_cycles = now + cost
        if ledger is not None:
            rows = ledger.rows
            rows += (
                core.booked_until,
                now,
                core.number,
                number,
                request,
                0 if trap is SYSTEM_CALL else trap.number,
                misses,
                switches,
                kernel.served,
                log.sent_to,
                log.sent_tag,
            )
            rows += decision.bill
            core.booked_until = now + cost
            if len(rows) >= BATCH_VALUES or len(log.pending) >= BATCH_VALUES:
                ledger.flush()
        return True

    def _book_rest(self, ledger: Ledger) -> None:
        """The machine stands still: what cores did since their last kernel entry, in rows without one."""
        for core in self.cores:
            thread = core.decision.thread
            start, end = core.booked_until, core.clock_cycles
            if thread is not None and end > start:
                misses, switches = thread.frame[TLB_MISSES], thread.frame[FPU_SWITCHES]
                ledger.rows += (start, end, core.number, thread.number, thread.request)
                ledger.rows += (HOST_STOP.number, misses, switches, 0, 0, 0, *(0,) * CAUSES)
                core.booked_until = end
        ledger.flush()

    def _apply(self, core: CoreState, effects: list[Effect], now: int) -> None:
        """Do what the kernel decided must happen before any user code runs."""
        for effect in effects:
            if isinstance(effect, ConsoleOutput):
                self._write(effect.data)
            elif isinstance(effect, FlushTlb):
                self._flush(core, effect, now)
            elif isinstance(effect, Ipi):
                self._post(core, effect, now)
            elif isinstance(effect, CopyFpu):
                self._copy_fpu(effect)
            elif isinstance(effect, TimerSet):
                self._expect(self.cores[effect.core])
            elif isinstance(effect, KernelWritten):
                for pfn in range(effect.first_pfn, effect.first_pfn + effect.count):
                    self.engine.set_kernel_written(pfn, effect.active)
                if not effect.active:
                    self.engine.forget_code(effect.first_pfn, effect.count)

    def _write(self, data: bytes) -> None:
        self.output += data
        if self._console is not None:
            self._console(data)

    def _copy_fpu(self, copy: CopyFpu) -> None:
        self.engine.sync_fpu(copy.source)
        self.engine.drop_fpu(copy.target)
        end = FPU_AREA + FPU_AREA_WORDS
        copy.target[FPU_AREA:end] = copy.source[FPU_AREA:end]
        copy.target[FPU_VALID] = copy.source[FPU_VALID]

    def _flush(self, core: CoreState, flush: FlushTlb, now: int) -> None:
        """Make cores forget translations, and `core` wait for those of them that are not itself.

        The translations go at once, which no program can tell from going on arrival: until the
        waiting is over, either may be the case. What is waited for is the last answer: when the
        interrupt has arrived, the other has left what it does in the kernel, and has flushed.
        """
        if flush.pages is None and flush.cores == 1 << core.number:  # nearly always
            core.vcpu.flush_tlb()
            return
        answered = now
        for other in self.cores:
            if not flush.cores >> other.number & 1:
                continue
            if flush.pages is None:
                other.vcpu.flush_tlb()
            else:
                for page in flush.pages:
                    other.vcpu.invalidate_page(page << 12)
            if flush.waits_for >> other.number & 1:
                drq = FlushDrq(len(flush.pages) if flush.pages is not None else 0)
                arrival = self._send_interrupt(core.number, other.number, Interrupt(drq), now)
                handled = max(arrival, other.clock_cycles) + self._flush_cycles(drq)
                answered = max(answered, handled + self.kernel.line_cycles[other.number][core.number])
        waited = answered - now
        if waited:
            core.decision.bill[SHOOTDOWN] += waited
            core.decision.kernel_cycles += waited

    def _flush_cycles(self, drq: FlushDrq) -> int:
        """What a core takes to serve one: entry, receipt, and the flush itself."""
        costs = self.kernel.costs
        flush = drq.pages * costs.invalidate_page if drq.pages else costs.cr3_load
        return costs.exception_entry + costs.ipi_receive + flush

    def _post(self, core: CoreState, ipi: Ipi, now: int) -> None:
        """The kernel on `core` has put a DRQ into another core's queue at `now`, if `ipi` has one.

        It sends an interrupt only if it finds that queue empty. It is not empty if an interrupt for it
        cannot have been taken by `now`: the kernel on the other core will find this DRQ, too.
        """
        target = self.cores[ipi.core]
        inbox, drq = target.inbox, ipi.drq
        if drq is None:
            self._send_interrupt(core.number, ipi.core, INTERRUPT, now)
        elif inbox is not None and max(target.inbox_arrival_cycles, target.clock_cycles) >= now:
            inbox.merged.append(drq)
            spared = self.kernel.costs.ipi_send
            core.decision.bill[IPI] -= spared
            core.decision.kernel_cycles -= spared
            if self.kernel.events is not None:
                wait = max(target.inbox_arrival_cycles - now, 0)
                requests.sent(self.kernel.events, now, core.number, ipi.core, drq, wait, 0)
        else:
            target.inbox = interrupt = Interrupt(drq)
            target.inbox_arrival_cycles = self._send_interrupt(core.number, ipi.core, interrupt, now)

    def _send_interrupt(self, source: int, number: int, interrupt: Interrupt, now: int) -> int:
        """To core `number`. One interrupt occupies the interconnect for a while; a later one waits its turn.

        Returns when it arrives.
        """
        start = max(now, self._interconnect_free)
        self._interconnect_free = start + self._occupancy_cycles
        travel = self._latency_cycles[source][number]
        arrival = start + travel
        if self.kernel.events is not None:
            requests.sent(self.kernel.events, now, source, number, interrupt.drq, start - now, travel)
        self._sent += 1
        target = self.cores[number]
        heapq.heappush(target.interrupts, (arrival, self._sent, interrupt))
        self._expect(target)
        return arrival

    def latency_cycles(self, source: int, target: int) -> int:
        """How long an interrupt from core `source` to core `target` is on its way."""
        distance = self.profile.topology.distance(source, target)
        return self.profile.ipi_latency[distance].cycles

    def stop(self) -> None:
        """Ask a run to end with HOST_STOP soon; from a signal handler or another thread."""
        for core in self.cores:
            core.vcpu.stop()

    # --- for people -------------------------------------------------------------------------------

    def describe(self) -> str:
        """The cores and threads, in a few lines each: for `KernelBug` and for Ctrl-C."""
        lines = []
        for core in self.cores:
            thread = core.decision.thread
            doing = "idle" if thread is None else f"{thread!r}"
            lines.append(f"core {core.number}: cycle {core.vcpu.clock_cycles}, {doing}")
        for thread in self.kernel.threads.values():
            where = f"core {thread.core}" if thread.core >= 0 else "off-line"
            partner = f" {thread.partner!r}" if thread.partner is not None else ""
            lines.append(f"{thread!r}: {thread.state_name}{partner}, {where}, EIP {thread.frame[8]:#x}")
        return "\n".join(lines)


def _run_sampled(core: CoreState, thread: Thread, now: int, deadline: int) -> Trap:
    """`Vcpu.run`, with a look every SAMPLE_CYCLES at where the thread is. The run stays the same."""
    vcpu, frame = core.vcpu, thread.frame
    if core.next_sample <= now:
        core.next_sample = (now // SAMPLE_CYCLES + 1) * SAMPLE_CYCLES
    while True:
        sample = core.next_sample
        trap = vcpu.run(frame, sample if sample < deadline else deadline)
        if trap is not DEADLINE_REACHED:
            return trap
        clock = vcpu.clock_cycles
        if clock >= sample:
            core.samples += (clock, frame[EIP], frame[TLB_MISSES])
            core.next_sample = (clock // SAMPLE_CYCLES + 1) * SAMPLE_CYCLES
        if clock >= deadline:
            return trap
