"""The end of a whole kernel, from outside: its objects let go of each other.

They refer to each other in circles (a thread and its task, a capability and its object, a mapping and its
parent), so that without this only the garbage collector could tell that nobody needs them any more.
Nothing here is an operation of the kernel's; afterwards the kernel is good for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel.objects import Gate, Icu, Irq, Semaphore
from l4lab.kernel.sched import Core
from l4lab.kernel.thread import DEAD, ReplySlot, SenderQueue

if TYPE_CHECKING:
    from l4lab.kernel.capability import KernelObject
    from l4lab.kernel.mapdb import Mapping
    from l4lab.kernel.memory import Space
    from l4lab.kernel.objects import Task
    from l4lab.kernel.state import Kernel
    from l4lab.kernel.thread import Thread


def take_apart(kernel: Kernel) -> None:
    """Break every circle of references among the kernel's objects. O(objects)."""
    for task in kernel.tasks.values():
        _empty_task(task)
        _empty_space(task.space)
    for root in kernel.memory.roots.values():
        _empty_mapping(root)
    kernel.memory.roots.clear()
    for thread in kernel.threads.values():
        _forget_partners(thread)
    for core in kernel.cores:
        while (deadline_us := core.wake_ups.next_deadline_us()) is not None:
            core.wake_ups.pop_expired(deadline_us)
    kernel.cores[:] = [Core(core.number) for core in kernel.cores]
    kernel.port_roots.clear()
    for rest in (kernel.held, kernel.effects, kernel.dying, kernel.ended_tasks):
        rest.clear()


def _empty_task(task: Task) -> None:
    for capability in task.capability_table.slots.values():
        _forget_names(capability.object)
    task.capability_table.slots.clear()
    task.threads.clear()
    task.ports.clear()
    task.reply_slots.clear()


def _forget_names(obj: KernelObject) -> None:
    obj.capabilities.clear()
    if isinstance(obj, Icu):
        obj.pins.clear()
    elif isinstance(obj, Gate):
        if obj.thread is not None and obj.thread.state == DEAD:
            _forget_partners(obj.thread)  # only gates still know it
        obj.thread = None
        obj.waiting = SenderQueue()
    elif isinstance(obj, Irq):
        obj.thread = obj.notifies = obj.pin = None
    elif isinstance(obj, Semaphore):
        obj.notifies = obj.pin = None
        obj.waiting = SenderQueue()


def _empty_space(space: Space) -> None:
    for mapping in (*space.pages.values(), *space.superpages.values()):
        _empty_mapping(mapping)
    space.pages.clear()
    space.superpages.clear()


def _empty_mapping(mapping: Mapping) -> None:
    mapping.space = mapping.parent = mapping.children = mapping.by_frame = None


def _forget_partners(thread: Thread) -> None:
    thread.capabilities.clear()
    thread.task = thread.partner = thread.receive_from = thread.timeout = None
    thread.kernel_message = thread.held_by = thread.reply_slot_wanted = thread.delete_irq = None
    thread.reply = ReplySlot()
    thread.senders = SenderQueue()
    thread.bound_irqs.clear()
    thread.bound_gates.clear()
