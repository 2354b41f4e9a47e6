"""The only way in: a trap of one core comes in, a decision goes out.

Read forward: `handle_trap` → the interface's entries → `ipc` → the interface's `transfer` → `dispatch`.
Nothing here or below calls the machine; what it must do is in the decision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from l4lab.kernel import contention, crosscore, dispatch, lifecycle, shootdown, tracing, waiting
from l4lab.kernel.costs import CAUSES, ENTRY, EXIT, HALT, IPI, TIMER
from l4lab.kernel.state import End
from l4lab.kernel.thread import LATE, READY
from l4lab.kernel.traps import (
    SYSTEM_CALL,
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


class Decision:
    """What the machine does next for one core.

    `thread`: runs next; None: the core idles. `kernel_cycles`: what this entry cost; `bill`: by cause.
    `effects`: to be done before any user code runs. `run_until_cycles`: when the kernel wants the
    core back at the latest: the end of the quantum. Means nothing while idle.
    """

    __slots__ = ("bill", "effects", "kernel_cycles", "run_until_cycles", "thread")

    def __init__(self) -> None:
        self.thread: Thread | None = None
        self.kernel_cycles = 0
        self.bill: list[int] = []
        self.effects: list[Effect] = []
        self.run_until_cycles = 0


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
    context = core.context
    if context is not None:
        context.quantum_left_cycles -= now_cycles - core.context_since_cycles
        core.context_since_cycles = now_cycles
    kernel.served = me.request if me is not None else 0
    if trap is SYSTEM_CALL and me is not None:
        kernel.bill[ENTRY] = kernel.costs.kernel_entry
        kernel.system_call(kernel, core, me)
    else:
        _serve_other(kernel, core, me, trap)
    if kernel.dying:
        lifecycle.reap(kernel, core)
        if kernel.end is End.ROOT_ENDED and me is not None:
            kernel.exit_code = me.send_label & 0xFF  # our convention: DECISIONS.md 8
    current = core.current
    if core.reschedule or current is None or current.state != READY or current.pending_exception is not None:
        _settle(kernel, core)
    _decide(kernel, core, me, decision)


def _serve_other(kernel: Kernel, core: Core, me: Thread | None, trap: Trap) -> None:
    """Everything but the system call of a living thread."""
    kernel.bill[ENTRY] = kernel.costs.exception_entry
    if me is None and core.space is None:
        kernel.bill[HALT] = kernel.costs.halt_exit
    match trap:
        case PageFault():
            if me is not None:  # None: another core has killed the thread since it trapped
                kernel.interface.page_fault(kernel, core, me, trap)
        case CpuException():
            if me is not None:
                kernel.interface.cpu_exception(kernel, core, me, trap)
        case DeadlineReached():
            _tick(kernel, core)
        case Interrupt():
            _interrupt(kernel, core, trap)
        case SystemCall() | HostStop():
            pass
        case _:
            assert_never(trap)


def _interrupt(kernel: Kernel, core: Core, trap: Interrupt) -> None:
    advance_clock(kernel)
    core.interrupted = True
    kernel.served = 0
    kernel.bill[IPI] += kernel.costs.ipi_receive
    if trap.drq is not None:
        crosscore.serve(kernel, core, trap.drq, trap.merged)
    else:
        dispatch.preempt_if_outranked(core)


def _tick(kernel: Kernel, core: Core) -> None:
    """Time has passed: clock, wake-up queue, quantum."""
    kernel.bill[TIMER] += kernel.costs.timer_tick
    kernel.served = 0
    advance_clock(kernel)
    while (thread := core.wake_ups.pop_expired(kernel.clock_us)) is not None:
        thread.timeout = None
        kernel.bill[TIMER] += kernel.costs.wake_up_queue
        waiting.time_out(kernel, thread)
        if thread.core == core.number:
            dispatch.wake_by_timeout(kernel, core, thread)
        else:
            dispatch.wake_without_preempting(kernel, thread)
    context = core.context
    if context is not None and context.quantum_left_cycles <= 0:
        dispatch.end_of_quantum(kernel, core)
    dispatch.preempt_if_lower(core)


def advance_clock(kernel: Kernel) -> None:
    """Bring the clock that programs see to the last tick at or before now."""
    tick_us = kernel.interface.tick_us
    now_us = kernel.now_cycles // kernel.mhz // tick_us * tick_us
    if now_us > kernel.clock_us:
        kernel.clock_us = now_us
        kernel.interface.show_clock(kernel)


def _settle(kernel: Kernel, core: Core) -> None:
    """Until there is a thread that can go to user mode, or none: choose, and finish what was set aside."""
    while True:
        current = core.current
        if core.reschedule or current is None or current.state != READY:
            if current is not None and current.state == LATE and not core.reschedule:
                waiting.finish_late(kernel, current)
                continue
            dispatch.choose(kernel, core)
            current = core.current
            if current is None:
                return
            if current.state == LATE:
                waiting.finish_late(kernel, current)
        if current.pending_exception is None:
            return
        kernel.interface.raise_pending(kernel, core, current)
        if kernel.dying:
            lifecycle.reap(kernel, core)


def _decide(kernel: Kernel, core: Core, before: Thread | None, decision: Decision) -> None:
    bill = kernel.bill
    current = core.current
    if current is not None:
        if current is not before or core.space is None:
            if kernel.trace is not None:
                task = current.task
                loaded = task.space if task is not None and task.alive else None
                tracing.switch(kernel, kernel.trace, before, current, space=loaded is not core.space)
            dispatch.load_space(kernel, core, current)
        context = core.context
        assert context is not None
        bill[EXIT] = kernel.costs.kernel_exit
        left = context.quantum_left_cycles
        decision.run_until_cycles = kernel.now_cycles + (left if left > 0 else 1)
    elif before is not None or core.space is not None:
        if kernel.trace is not None:
            tracing.switch(kernel, kernel.trace, before, None, space=core.space is not None)
        dispatch.go_idle(kernel, core)
    if kernel.memory.stale:
        shootdown.settle(kernel)
    decision.thread = current
    decision.bill = bill
    decision.kernel_cycles = sum(bill)
    decision.effects = kernel.effects
    if kernel.held:
        contention.release_all(kernel, kernel.now_cycles + decision.kernel_cycles)
