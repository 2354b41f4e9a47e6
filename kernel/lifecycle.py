"""Birth and death of kernel objects, and what their partners see of it.

Ref: ABI sheet section 7, "What a partner sees on deletion". Objects die when their last counted
capability is taken away; `reap` runs at the end of the operation that took it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel import capspace, charges, dispatch, ipc, ports, requests, tracing, waiting
from l4lab.kernel.costs import IPC, IPI, MAP, OBJECT, UNMAP
from l4lab.kernel.frame import CR3
from l4lab.kernel.interface import CANCELLED, NOT_EXISTENT
from l4lab.kernel.memory import EVERY_PAGE
from l4lab.kernel.objects import Factory, Gate, Irq, Semaphore, Task
from l4lab.kernel.quota import (
    FACTORY_BYTES,
    GATE_BYTES,
    IRQ_BYTES,
    SEMAPHORE_BYTES,
    TASK_BYTES,
    THREAD_BYTES,
    Quota,
)
from l4lab.kernel.state import End, Ipi, KernelWritten
from l4lab.kernel.thread import DEAD, READY, SenderQueue, Thread
from l4lab.kernel.units import PAGE_BYTES

if TYPE_CHECKING:
    from l4lab.kernel.capability import KernelObject
    from l4lab.kernel.sched import Core
    from l4lab.kernel.state import Kernel

# --- birth --------------------------------------------------------------------------------------


def create_task(kernel: Kernel, quota: Quota, name: str = "") -> Task | None:
    """An empty task, paid from `quota`; None if that refuses."""
    if not quota.charge(TASK_BYTES):
        return None
    number = kernel.new_number()
    space = kernel.memory.create_space(name or f"task {number}", quota)
    if space is None:
        quota.refund(TASK_BYTES)
        return None
    charges.memory(kernel, MAP)
    task = Task(number, quota, TASK_BYTES, space)
    task.name = name
    kernel.tasks[number] = task
    return task


def create_thread(kernel: Kernel, quota: Quota) -> Thread | None:
    """A thread without task, dormant."""
    if not quota.charge(THREAD_BYTES):
        return None
    thread = Thread(
        kernel.new_number(),
        quota,
        THREAD_BYTES,
        kernel.frame_pool.take(),
        kernel.scratch_utcb,
        kernel.quantum_cycles,
        kernel.interface.thread_state(),
    )
    thread.frame[CR3] = kernel.blank_directory_pfn << 12
    kernel.threads[thread.number] = thread
    return thread


def create_gate(kernel: Kernel, quota: Quota) -> Gate | None:
    """An unbound gate with label 0."""
    return Gate(kernel.new_number(), quota, GATE_BYTES, SenderQueue()) if quota.charge(GATE_BYTES) else None


def create_irq(kernel: Kernel, quota: Quota) -> Irq | None:
    """An unbound IRQ object."""
    return Irq(kernel.new_number(), quota, IRQ_BYTES) if quota.charge(IRQ_BYTES) else None


def create_semaphore(kernel: Kernel, quota: Quota) -> Semaphore | None:
    """A semaphore with count zero."""
    if not quota.charge(SEMAPHORE_BYTES):
        return None
    return Semaphore(kernel.new_number(), quota, SEMAPHORE_BYTES, SenderQueue())


def create_factory(kernel: Kernel, quota: Quota, limit_bytes: int) -> Factory | None:
    """A factory that may spend `limit_bytes`, which `quota` lends it."""
    if not quota.charge(FACTORY_BYTES):
        return None
    budget = quota.lend(limit_bytes)
    if budget is None:
        quota.refund(FACTORY_BYTES)
        return None
    return Factory(kernel.new_number(), quota, FACTORY_BYTES, budget)


def add_ku_memory(kernel: Kernel, task: Task, vpn: int, pages: int) -> str:
    """Kernel-user memory for `task`; "" on success, else why not (`Memory.add_ku_area`)."""
    area = kernel.memory.add_ku_area(task.space, vpn, pages)
    charges.memory(kernel, MAP)
    if isinstance(area, str):
        return area
    kernel.effects.append(KernelWritten(area.first_pfn, area.pages, active=True))
    return ""


def bind_thread(kernel: Kernel, thread: Thread, task: Task, utcb_address: int) -> bool:
    """Put an unbound thread into `task`, its UTCB at `utcb_address`; False if that is no place for one."""
    if utcb_address & 3:
        return False
    word = kernel.memory.ku_word(task.space, utcb_address, kernel.interface.utcb_bytes)
    if word is None:
        return False
    # POINT OF NO RETURN
    if kernel.events is not None:
        requests.bound(kernel, kernel.events, thread, task)
    thread.task = task
    task.threads[thread] = None
    thread.utcb = word
    thread.utcb_address = utcb_address
    kernel.interface.utcb_bound(kernel, thread)
    thread.frame[CR3] = task.space.tables.cr3
    return True


# --- death --------------------------------------------------------------------------------------


def reap(kernel: Kernel, core: Core) -> None:
    """End every object on `kernel.dying`, and those that die with them."""
    for obj in kernel.dying:  # which grows meanwhile
        if kernel.trace is not None:
            tracing.destroyed(kernel, kernel.trace, obj)
        kernel.bill[OBJECT] += kernel.costs.end_object
        _end(kernel, core, obj)
        obj.quota.refund(obj.charged_bytes)
    kernel.dying.clear()


def _end(kernel: Kernel, core: Core, obj: KernelObject) -> None:
    if isinstance(obj, Thread):
        kill(kernel, obj)
        _forget_thread(kernel, obj)
    elif isinstance(obj, Task):
        _end_task(kernel, obj)
    elif isinstance(obj, Gate):
        _end_gate(kernel, core, obj)
    elif isinstance(obj, Irq):
        _end_irq(obj)
    elif isinstance(obj, Semaphore):
        _end_semaphore(kernel, core, obj)
    elif isinstance(obj, Factory):
        obj.budget.close()  # what it made stays charged until it ends, but nothing is added


def kill(kernel: Kernel, me: Thread) -> None:
    """The thread stops for good. Those queued on it get error 6; those it called wait on (section 7)."""
    if me.state == DEAD:
        return
    if me.queued:
        dispatch.unqueue(kernel, me)
    waiting.stop_waiting(kernel, me)
    me.state = DEAD
    me.kernel_message = None
    me.pending_exception = None
    me.reply.clear()
    kernel.interface.utcb_released(kernel, me)
    core = kernel.cores[max(me.core, 0)]
    for sender in list(me.senders):
        if isinstance(sender, Thread):
            me.senders.remove(sender, sender.queued_priority)
            sender.partner = None
            kernel.bill[IPC] += kernel.costs.ipc_abort
            dispatch.disarm(kernel, sender)
            sender.state = READY
            kernel.interface.send_failed(kernel, sender, CANCELLED)
            dispatch.wake_without_preempting(kernel, sender)
        elif isinstance(sender, Irq):
            me.senders.remove(sender, sender.queued_priority)
            sender.queued = False
            sender.pending = True
            kernel.bill[IPC] += kernel.costs.list_step
    if me.delete_irq is not None:
        _stop_notifying(me.delete_irq)
        me.delete_irq = None
    if core.current is me:
        core.reschedule = True
        if core.number != kernel.here:
            core.current = None
            kernel.bill[IPI] += kernel.costs.ipi_send
            kernel.effects.append(Ipi(core.number, None))
    _check_root_end(kernel, me)


def _stop_notifying(irq: KernelObject) -> None:
    if isinstance(irq, Irq | Semaphore):
        irq.notifies = None


def _forget_thread(kernel: Kernel, me: Thread) -> None:
    """A dead thread that nobody can name: its memory goes."""
    kernel.bill[OBJECT] += (len(me.bound_gates) + len(me.bound_irqs)) * kernel.costs.list_step
    for gate in list(me.bound_gates):
        if isinstance(gate, Gate):
            gate.thread = me  # stays bound to the dead thread: IPC fails with error 4
    for irq in me.bound_irqs:
        if isinstance(irq, Irq):
            irq.thread = None
    me.bound_irqs.clear()
    if me.delete_irq is not None:  # registered after the death
        _stop_notifying(me.delete_irq)
    if me.task is not None and me in me.task.threads:
        me.task.totals.add(me)
        del me.task.threads[me]
        if not me.task.threads and not me.task.alive:
            _release_ku_memory(kernel, me.task)
    kernel.threads.pop(me.number, None)
    kernel.frame_pool.give_back(me.frame)
    me.frame = kernel.frame_pool.blank
    me.utcb = kernel.scratch_utcb
    me.receive_from = None  # who slept waits for itself, and would live on in that circle


def _check_root_end(kernel: Kernel, me: Thread) -> None:
    """The root task ends when the last of its threads does."""
    root = kernel.root_task
    if root is None or me.task is not root or kernel.end is not None:
        return
    if all(thread.state == DEAD for thread in root.threads):
        kernel.end = End.ROOT_KILLED if root.alive else End.ROOT_ENDED


def _end_task(kernel: Kernel, task: Task) -> None:
    """Memory and capabilities go; threads that others can name live on without a space."""
    steps = len(task.reply_slots) + len(task.threads) + len(task.space.tables.table_pfns)
    kernel.bill[OBJECT] += steps * kernel.costs.list_step
    for slot in task.reply_slots.values():
        slot.clear()
    task.reply_slots.clear()
    for cap in list(task.capability_table.slots.values()):
        if cap.table.slots.get(cap.index) is cap:
            capspace.displace(kernel, cap)
    task.capability_table.free()
    ports.unmap_range(kernel, task, 0, ports.PORTS, also_self=True)
    task.quota.refund(len(task.reply_pages) * PAGE_BYTES)
    task.reply_pages.clear()
    for thread in task.threads:
        thread.frame[CR3] = kernel.blank_directory_pfn << 12
    for core in kernel.cores:
        if core.space is task.space:
            core.space = None
            kernel.memory.stale.append((1 << core.number, EVERY_PAGE))
    kernel.memory.destroy_space(task.space)
    charges.memory(kernel, UNMAP)
    task.space.live_cores = 0
    if not task.threads:
        _release_ku_memory(kernel, task)
    kernel.tasks.pop(task.number, None)
    kernel.ended_tasks.append(task)
    if task is kernel.root_task and kernel.end is None:
        kernel.end = End.ROOT_ENDED


def _release_ku_memory(kernel: Kernel, task: Task) -> None:
    for area in kernel.memory.release_ku_areas(task.space):
        kernel.bill[OBJECT] += kernel.costs.list_step
        kernel.effects.append(KernelWritten(area.first_pfn, area.pages, active=False))


def _end_gate(kernel: Kernel, core: Core, gate: Gate) -> None:
    """Senders that wait for a binding get error 4; the bound thread's deletion IRQ is triggered."""
    while gate.waiting:
        sender = gate.waiting.first()
        assert isinstance(sender, Thread)
        waiting.stop_waiting(kernel, sender)
        sender.state = READY
        kernel.interface.send_failed(kernel, sender, NOT_EXISTENT)
        dispatch.wake(kernel, core, sender)
    thread = gate.thread
    gate.thread = None
    if thread is not None:
        thread.bound_gates.pop(gate, None)
        if isinstance(thread.delete_irq, Irq):
            ipc.trigger(kernel, core, thread.delete_irq)
        elif isinstance(thread.delete_irq, Semaphore):
            waiting.release(kernel, core, thread.delete_irq)


def unbind_irq(irq: Irq) -> bool:
    """Detach from thread; True if a delivery was waiting, which stays pending."""
    thread = irq.thread
    if thread is not None:
        thread.bound_irqs.pop(irq, None)
        if irq.queued:
            thread.senders.remove(irq, irq.queued_priority)
            irq.queued = False
            irq.pending = True
        irq.thread = None
    return irq.pending


def detach_source(irq: Irq | Semaphore) -> None:
    """Undo the binding to what fires it: an interrupt controller's pin, or the end of a thread's gates."""
    if irq.pin is not None:
        icu, pin = irq.pin
        icu.pins.pop(pin, None)
        irq.pin = None
    if irq.notifies is not None:
        irq.notifies.delete_irq = None
        irq.notifies = None


def _end_irq(irq: Irq) -> None:
    unbind_irq(irq)
    irq.pending = False
    detach_source(irq)


def _end_semaphore(kernel: Kernel, core: Core, semaphore: Semaphore) -> None:
    while semaphore.waiting:
        thread = semaphore.waiting.first()
        assert isinstance(thread, Thread)
        waiting.stop_waiting(kernel, thread)
        thread.state = READY
        kernel.interface.down_failed(kernel, thread, NOT_EXISTENT)
        dispatch.wake(kernel, core, thread)
    detach_source(semaphore)
