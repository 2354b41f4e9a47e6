"""The only way in: a trap of one core comes in, a decision goes out.

Read forward: `handle_trap` → `syscalls` or `faults` → `ipc` → `messages`, `items` → `dispatch`.
Nothing here or below calls the machine; what it must do is in the decision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from l4lab.kernel import contention, crosscore, dispatch, faults, ipc, lifecycle, shootdown, syscalls
from l4lab.kernel.abi import fiasco as abi
from l4lab.kernel.costs import CAUSES, ENTRY, EXIT, IPI, TIMER
from l4lab.kernel.frame import EIP
from l4lab.kernel.state import End
from l4lab.kernel.thread import LATE, READY
from l4lab.kernel.traps import (
    INTERRUPT,
    CpuException,
    DeadlineReached,
    HostStop,
    Interrupt,
    PageFault,
    SystemCall,
    Trap,
)

if TYPE_CHECKING:
    from l4lab.kernel.sched import Core
    from l4lab.kernel.state import Effect, Kernel
    from l4lab.kernel.thread import Thread

_SYSTEM_CALL_BYTES = 2
_KIP_CLOCK = abi.KIP_OFF_CLOCK // 4


class Decision:
    """What the machine does next for one core.

    `thread`: runs next; None: the core idles. `kernel_cycles`: what this entry cost; `bill`: by cause.
    `request`: what the entry served, 0: nothing in particular.
    `effects`: to be done before any user code runs. `run_until_cycles`: when the kernel wants the
    core back at the latest (quantum); None while idle.
    """

    __slots__ = ("bill", "effects", "kernel_cycles", "request", "run_until_cycles", "thread")

    def __init__(self) -> None:
        self.thread: Thread | None = None
        self.kernel_cycles = 0
        self.bill: list[int] = []
        self.request = 0
        self.effects: list[Effect] = []
        self.run_until_cycles: int | None = None


def handle_trap(kernel: Kernel, number: int, trap: Trap, now_cycles: int, decision: Decision) -> None:
    """Serve one trap of core `number` at `now_cycles` of its clock; the outcome goes into `decision`.

    Cost: O(1) in threads, tasks, mappings and cores, but for operations that name ranges.
    """
    core = kernel.cores[number]
    me = core.current
    kernel.here = number
    kernel.now_cycles = now_cycles
    kernel.bill = [0] * CAUSES
    kernel.effects = []
    _account_quantum(core, now_cycles)
    before = me.request if me is not None else 0
    if me is None and isinstance(trap, SystemCall | PageFault | CpuException):
        trap = INTERRUPT  # another core has killed the thread since it trapped
    if isinstance(trap, SystemCall):
        kernel.bill[ENTRY] += kernel.costs.kernel_entry
        assert me is not None
        if me.alien and not me.alien_pass:
            _alien_before(kernel, core, me)
        else:
            syscalls.system_call(kernel, core, me)
            if me.alien:
                _alien_after(me)
    elif isinstance(trap, PageFault):
        kernel.bill[ENTRY] += kernel.costs.exception_entry
        assert me is not None
        faults.page_fault(kernel, core, me, trap)
    elif isinstance(trap, CpuException):
        kernel.bill[ENTRY] += kernel.costs.exception_entry
        assert me is not None
        faults.cpu_exception(kernel, core, me, trap)
    elif isinstance(trap, DeadlineReached):
        kernel.bill[ENTRY] += kernel.costs.exception_entry
        _tick(kernel, core)
    elif isinstance(trap, Interrupt):
        kernel.bill[ENTRY] += kernel.costs.exception_entry
        _interrupt(kernel, core, trap)
    elif isinstance(trap, HostStop):
        pass
    else:
        assert_never(trap)
    if kernel.request_log is not None:
        decision.request = _request_served(trap, me, before)
    if kernel.dying:
        lifecycle.reap(kernel, core)
        if kernel.end is End.ROOT_ENDED and me is not None:
            kernel.exit_code = me.send_label & 0xFF  # our convention: DECISIONS.md, "exit code"
    _settle(kernel, core)
    _decide(kernel, core, me, decision)


def _request_served(trap: Trap, me: Thread | None, before: int) -> int:
    """What the entry is booked to: what the thread worked for, or has just begun; or what was brought."""
    if isinstance(trap, Interrupt):
        return crosscore.request_of(trap.request) if trap.request is not None else 0
    return before or (me.request if me is not None else 0)


def _interrupt(kernel: Kernel, core: Core, trap: Interrupt) -> None:
    advance_clock(kernel)
    if trap.request is not None:
        kernel.bill[IPI] += kernel.costs.ipi_receive
        crosscore.serve(kernel, core, trap.request)
    else:
        dispatch.preempt_if_outranked(core)


def _account_quantum(core: Core, now_cycles: int) -> None:
    context = core.context
    if context is not None:
        context.quantum_left_cycles -= now_cycles - core.context_since_cycles
        core.context_since_cycles = now_cycles


def _tick(kernel: Kernel, core: Core) -> None:
    """Time has passed: clock, wake-up queue, quantum."""
    kernel.bill[TIMER] += kernel.costs.timer_tick
    advance_clock(kernel)
    while (thread := core.wake_ups.pop_expired(kernel.clock_us)) is not None:
        thread.timeout = None
        ipc.time_out(kernel, thread)
        if thread.core == core.number:
            dispatch.wake_by_timeout(kernel, core, thread)
        else:
            dispatch.wake_without_preempting(kernel, thread)
    context = core.context
    if context is not None and context.quantum_left_cycles <= 0:
        dispatch.end_of_quantum(core)


def advance_clock(kernel: Kernel) -> None:
    """Bring the KIP clock to the last tick at or before now (ABI sheet section 10: 1000 us)."""
    now_us = kernel.now_cycles // kernel.mhz // abi.TICK_US * abi.TICK_US
    if now_us > kernel.clock_us:
        kernel.clock_us = now_us
        kernel.words[kernel.kip_word + _KIP_CLOCK] = now_us & 0xFFFFFFFF
        kernel.words[kernel.kip_word + _KIP_CLOCK + 1] = now_us >> 32


def _settle(kernel: Kernel, core: Core) -> None:
    """Until there is a thread that can go to user mode, or none: choose, and finish what was set aside."""
    while True:
        current = core.current
        if core.reschedule or current is None or current.state != READY:
            if current is not None and current.state == LATE and not core.reschedule:
                ipc.finish_late(kernel, current)
                continue
            dispatch.choose(kernel, core)
            current = core.current
            if current is None:
                return
            if current.state == LATE:
                ipc.finish_late(kernel, current)
        if current.pending_exception is None:
            return
        faults.raise_pending(kernel, core, current)
        if kernel.dying:
            lifecycle.reap(kernel, core)


def _decide(kernel: Kernel, core: Core, before: Thread | None, decision: Decision) -> None:
    current = core.current
    if current is not None and (current is not before or core.space is None):
        dispatch.load_space(kernel, core, current)
    if kernel.memory.stale:
        shootdown.settle(kernel)
    if current is not None:
        kernel.bill[EXIT] += kernel.costs.kernel_exit
        context = core.context
        assert context is not None
        decision.run_until_cycles = kernel.now_cycles + max(context.quantum_left_cycles, 1)
    else:
        decision.run_until_cycles = None
    decision.thread = current
    decision.bill = kernel.bill
    decision.kernel_cycles = sum(kernel.bill)
    if kernel.held:
        contention.release_all(kernel, kernel.now_cycles + decision.kernel_cycles)
    decision.effects = kernel.effects


# --- alien threads ------------------------------------------------------------------------------


def _alien_before(kernel: Kernel, core: Core, me: Thread) -> None:
    """An alien's system call is first shown to its exception handler (ABI sheet section 1)."""
    me.frame[EIP] = me.frame[EIP] - _SYSTEM_CALL_BYTES & 0xFFFFFFFF
    faults.exception(kernel, core, me, (faults.VECTOR_GENERAL_PROTECTION, abi.ALIEN_BEFORE, 0))


def _alien_after(me: Thread) -> None:
    """And shown again when it is done, in the alien's own time."""
    me.alien_pass = False
    me.pending_exception = (faults.VECTOR_GENERAL_PROTECTION, abi.ALIEN_AFTER, 0)
