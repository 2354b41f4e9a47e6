"""Who runs next on a core: wake-ups, donation, preemption, and the switch itself.

The rules of ABI sheet section 6, "Scheduling", each in the function that applies it. A switch here
only changes `core.current` and `core.context`; registers and page directory follow when the machine
runs `current`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel.costs import SCHEDULE, SPACE_SWITCH, SWITCH
from l4lab.kernel.frame import CR3
from l4lab.kernel.sched import outranks_running
from l4lab.kernel.state import Kick
from l4lab.kernel.thread import LATE, NO_CORE, READY

if TYPE_CHECKING:
    from l4lab.kernel.sched import Core
    from l4lab.kernel.state import Kernel
    from l4lab.kernel.thread import Thread


def wake(kernel: Kernel, core: Core, thread: Thread) -> None:
    """`thread` is ready: run it at once if the wake-up rule says so, else queue it in front."""
    if thread.core == NO_CORE or thread is core.current:
        return
    if thread.core != core.number:
        _wake_remote(kernel, thread)
    elif outranks_running(core, thread):
        _put_aside(core)
        core.current = core.context = thread
        core.context_since_cycles = kernel.now_cycles
    else:
        core.ready.add(thread, front=True)


def wake_without_preempting(kernel: Kernel, thread: Thread) -> None:
    """`thread` is ready, in front of its priority; it runs at its core's next scheduling point."""
    if thread.core == NO_CORE or thread.queued:
        return
    home = kernel.cores[thread.core]
    if thread is home.current:
        return
    home.ready.add(thread, front=True)
    if home.current is None:
        kernel.effects.append(Kick(home.number))


def wake_by_timeout(kernel: Kernel, core: Core, thread: Thread) -> None:
    """Woken by its own timeout: preempts lower priorities at once, but not an equal one."""
    core.ready.add(thread, front=True)
    current, context = core.current, core.context
    if current is None or context is None:
        core.reschedule = True
    elif thread.priority > context.priority and thread.priority > current.priority:
        core.reschedule = True


def _wake_remote(kernel: Kernel, thread: Thread) -> None:
    home = kernel.cores[thread.core]
    home.ready.add(thread, front=True)
    if home.current is None or outranks_running(home, thread):
        kernel.effects.append(Kick(home.number))


def switch_donating(kernel: Kernel, core: Core, thread: Thread) -> None:
    """Run `thread` now, on the scheduling context that is running, whatever its own priority."""
    _put_aside(core)
    core.current = thread
    if core.context is None:
        core.context = thread


def _put_aside(core: Core) -> None:
    """The running thread leaves the core; if it could go on, to the front of its priority."""
    current = core.current
    if current is not None and (current.state == READY or current.state == LATE) and not current.queued:
        core.ready.add(current, front=True)


def unqueue(kernel: Kernel, thread: Thread) -> None:
    """Take a thread out of its ready queue, if it is in one."""
    if thread.queued:
        kernel.cores[thread.core].ready.remove(thread)


def preempt_if_outranked(core: Core) -> None:
    """An interrupt from another core: run what it made ready, by the wake-up rule."""
    top = core.ready.top_priority()
    current, context = core.current, core.context
    if current is None or context is None or (top >= context.priority and top >= current.priority):
        core.reschedule = True


def end_of_quantum(core: Core) -> None:
    """The context has used its time: a fresh quantum, and to the back of its priority."""
    context, current = core.context, core.current
    if context is None:
        return
    context.quantum_left_cycles = context.quantum_cycles
    core.reschedule = True
    if current is not None and current is context and current.state == READY:
        core.ready.add(current, front=False)
        core.current = core.context = None
    elif context.queued:
        core.ready.remove(context)
        core.ready.add(context, front=False)


def choose(kernel: Kernel, core: Core) -> None:
    """A reschedule: the first of the highest priority runs, on its own context; any donation ends.

    A running thread that can go on does so if it alone has the highest priority.
    """
    kernel.bill[SCHEDULE] += kernel.costs.schedule
    core.reschedule = False
    current = core.current
    if current is not None and current.state == READY and current.priority > core.ready.top_priority():
        core.context = current
    else:
        chosen = core.ready.pop()
        _put_aside(core)
        core.current = core.context = chosen
    core.context_since_cycles = kernel.now_cycles


def load_space(kernel: Kernel, core: Core, thread: Thread) -> None:
    """Book the switch to `thread`, and to its address space if another one is loaded."""
    costs, bill = kernel.costs, kernel.bill
    core.switches += 1
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
    if space is None:
        thread.frame[CR3] = kernel.blank_directory_pfn << 12
    else:
        space.live_cores |= bit
