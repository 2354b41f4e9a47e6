"""Who runs next on a core: wake-ups, donation, preemption, and the switch itself.

The rules of ABI sheet section 6, "Scheduling", each in the function that applies it. A switch here
only changes `core.current` and `core.context`; registers and page directory follow when the machine
runs `current`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel import contention, tracing
from l4lab.kernel.costs import SCHEDULE, SPACE_SWITCH, SWITCH, TIMER
from l4lab.kernel.drq import WakeDrq, post
from l4lab.kernel.frame import CR3
from l4lab.kernel.sched import outranks_running
from l4lab.kernel.state import FlushTlb, TimerSet
from l4lab.kernel.thread import DEAD, LATE, NO_CORE, READY

if TYPE_CHECKING:
    from l4lab.kernel.sched import Core
    from l4lab.kernel.state import Kernel
    from l4lab.kernel.thread import Thread
    from l4lab.kernel.timeouts import Timeout


def wake(kernel: Kernel, core: Core, thread: Thread) -> None:
    """`thread` is ready: run it at once if the wake-up rule says so, else queue it in front."""
    if thread.core == NO_CORE or thread is core.current:
        return
    if thread.core != core.number:
        _wake_remote(kernel, thread, preempt=True)
    elif outranks_running(core, thread):
        _put_aside(kernel, core)
        core.current = core.context = thread
        core.context_since_cycles = kernel.now_cycles
    else:
        enqueue(kernel, core, thread, front=True)


def wake_without_preempting(kernel: Kernel, thread: Thread) -> None:
    """`thread` is ready, in front of its priority; it runs at its core's next scheduling point."""
    if thread.core == NO_CORE or thread.queued:
        return
    home = kernel.cores[thread.core]
    if thread is home.current:
        return
    if thread.core != kernel.here:
        _wake_remote(kernel, thread, preempt=False)
        return
    enqueue(kernel, home, thread, front=True)
    if home.current is None:
        home.reschedule = True


def wake_by_timeout(kernel: Kernel, core: Core, thread: Thread) -> None:
    """Woken by its own timeout: preempts lower priorities at once, but not an equal one."""
    enqueue(kernel, core, thread, front=True)
    current, context = core.current, core.context
    if current is None or context is None:
        core.reschedule = True
    elif thread.priority > context.priority and thread.priority > current.priority:
        core.reschedule = True


def _wake_remote(kernel: Kernel, thread: Thread, *, preempt: bool) -> None:
    if not thread.in_flight:
        thread.in_flight = True
        post(kernel, thread.core, WakeDrq(thread, preempt))


def switch_donating(kernel: Kernel, core: Core, thread: Thread) -> None:
    """Run `thread` now, on the scheduling context that is running, whatever its own priority."""
    _put_aside(kernel, core)
    core.current = thread
    if core.context is None:
        core.context = thread


def _put_aside(kernel: Kernel, core: Core) -> None:
    """The running thread leaves the core; if it could go on, to the front of its priority."""
    current = core.current
    if current is not None and (current.state == READY or current.state == LATE) and not current.queued:
        enqueue(kernel, core, current, front=True)


def unqueue(kernel: Kernel, thread: Thread) -> None:
    """Take a thread out of its ready queue, if it is in one."""
    if thread.queued:
        kernel.bill[SCHEDULE] += kernel.costs.ready_queue
        kernel.cores[thread.core].ready.remove(thread)


def enqueue(kernel: Kernel, core: Core, thread: Thread, *, front: bool) -> None:
    """Put a thread that is in no ready queue into that of `core`, its own."""
    kernel.bill[SCHEDULE] += kernel.costs.ready_queue
    core.ready.add(thread, front=front)


def preempt_if_outranked(core: Core) -> None:
    """An interrupt from another core: run what it made ready, by the wake-up rule."""
    top = core.ready.top_priority()
    current, context = core.current, core.context
    if current is None or context is None or (top >= context.priority and top >= current.priority):
        core.reschedule = True


def preempt_if_lower(core: Core) -> None:
    """A tick is a scheduling point: a higher thread that was made ready without a switch runs now."""
    current, context = core.current, core.context
    if current is not None and context is not None:
        top = core.ready.top_priority()
        if top > context.priority and top > current.priority:
            core.reschedule = True


def end_of_quantum(kernel: Kernel, core: Core) -> None:
    """The context has used its time: a fresh quantum, and to the back of its priority."""
    context, current = core.context, core.current
    if context is None:
        return
    context.quantum_left_cycles = context.quantum_cycles
    core.reschedule = True
    if current is not None and current is context and current.state == READY:
        enqueue(kernel, core, current, front=False)
        core.current = core.context = None
    elif context.queued:
        unqueue(kernel, context)
        enqueue(kernel, core, context, front=False)


def choose(kernel: Kernel, core: Core) -> None:
    """A reschedule: the first of the highest priority runs, on its own context; any donation ends.

    A running thread that can go on does so if it alone has the highest priority.
    """
    kernel.bill[SCHEDULE] += kernel.costs.schedule
    core.reschedule = False
    current = core.current
    can_go_on = current is not None and (current.state == READY or current.state == LATE)
    if current is not None and can_go_on and current.priority > core.ready.top_priority():
        core.context = current
    else:
        chosen = core.ready.pop()
        if chosen is not None:
            kernel.bill[SCHEDULE] += kernel.costs.ready_queue
        _put_aside(kernel, core)
        core.current = core.context = chosen
    core.context_since_cycles = kernel.now_cycles
    if kernel.trace is not None:
        tracing.schedule(kernel, kernel.trace, current, core.current)


def place(kernel: Kernel, core: Core, thread: Thread, home: int, priority: int, quantum_cycles: int) -> None:
    """Give a thread its core and parameters, and let it compete there (ABI sheet section 11.4).

    Runs on the thread's own core, or anywhere while it has none.
    """
    was_running = thread is core.current
    unqueue(kernel, thread)
    thread.priority = priority
    thread.quantum_cycles = thread.quantum_left_cycles = quantum_cycles
    if thread.core != home:
        _leave(kernel, core, thread, home)
        was_running = False
    if home == NO_CORE or thread.state == DEAD:
        return
    if was_running:
        if core.ready.top_priority() >= priority:
            core.reschedule = True
    elif thread.state in (READY, LATE):
        wake(kernel, core, thread)


def _leave(kernel: Kernel, core: Core, thread: Thread, home: int) -> None:
    """The thread goes to core `home`, with its timeout."""
    if kernel.trace is not None:
        tracing.migrate(kernel, kernel.trace, thread, thread.core, home)
    thread.core = home
    if thread.timeout is not None and thread.timeout.thread is not None:
        deadline_us = thread.timeout.deadline_us
        disarm(kernel, thread)
        thread.timeout = arm(kernel, thread, deadline_us)
    if core.current is thread:
        core.current = None
        core.reschedule = True
    elif core.context is thread:
        core.context = core.current  # it had donated its time to a thread that stays


def arm(kernel: Kernel, thread: Thread, deadline_us: int) -> Timeout:
    """Arm a timeout on the thread's core; an off-line thread's on core 0."""
    home = max(thread.core, 0)
    if home != kernel.here:
        kernel.effects.append(TimerSet(home))
    kernel.bill[TIMER] += kernel.costs.wake_up_queue
    return kernel.cores[home].wake_ups.arm(thread, deadline_us)


def disarm(kernel: Kernel, thread: Thread) -> None:
    """Cancel the thread's timeout, if one is armed."""
    if thread.timeout is not None:
        kernel.bill[TIMER] += kernel.costs.wake_up_queue
        thread.timeout.cancel()
        thread.timeout = None


def visit(kernel: Kernel, core: Core, thread: Thread) -> None:
    """Book that the kernel goes on in `thread` for a moment, which then waits again: there and back.

    The thread's space is loaded for it, so afterwards the core's TLB is empty.
    Source: the real kernel's `K/context.cpp`, where an answered request makes its thread ready.
    """
    costs, bill = kernel.costs, kernel.bill
    core.switches += 2
    contention.use(kernel, thread, contention.THREAD_LINES)
    bill[SCHEDULE] += 2 * costs.schedule + 4 * costs.ready_queue
    bill[SWITCH] += 2 * costs.thread_switch
    task = thread.task
    if task is not None and task.alive and task.space is not core.space:
        bill[SPACE_SWITCH] += 2 * costs.cr3_load
        kernel.effects.append(FlushTlb(1 << core.number, None, 0))


def go_idle(kernel: Kernel, core: Core) -> None:
    """Book the switch to the idle thread. It lives in the kernel's own space, so the TLB is flushed.

    Source: the real kernel's `K/mem_space.cpp`, which explains why it cannot keep the last space.
    """
    core.switches += 1
    kernel.bill[SWITCH] += kernel.costs.thread_switch
    if core.space is not None:
        kernel.bill[SPACE_SWITCH] += kernel.costs.cr3_load
        core.space.live_cores &= ~(1 << core.number)
        core.space = None
        kernel.effects.append(FlushTlb(1 << core.number, None, 0))


def load_space(kernel: Kernel, core: Core, thread: Thread) -> None:
    """Book the switch to `thread`, and to its address space if another one is loaded."""
    costs, bill = kernel.costs, kernel.bill
    core.switches += 1
    if thread.last_core != core.number:
        contention.use(kernel, thread, contention.THREAD_LINES)
    bill[SWITCH] += costs.thread_switch
    task = thread.task
    space = task.space if task is not None and task.alive else None
    if space is core.space:
        return
    bill[SPACE_SWITCH] += costs.cr3_load
    bit = 1 << core.number
    if core.space is not None:
        core.space.live_cores &= ~bit
    core.space = space
    if core.interrupted:
        # Perhaps no code ran in the last space: then the vCPU sees no change if this one is the last but one.
        core.interrupted = False
        kernel.effects.append(FlushTlb(bit, None, 0))
    if space is None:
        thread.frame[CR3] = kernel.blank_directory_pfn << 12
    else:
        space.live_cores |= bit
