"""Capability tables as spaces: look up, map, unmap, delete.

Ref: ABI sheet section 7, "Objects". Flat: a mapped capability is a copy. Objects whose last counted
capability goes are put on `kernel.dying`; `lifecycle.reap` ends them when the operation is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel import capability
from l4lab.kernel.capability import Capability, KernelObject
from l4lab.kernel.costs import MAP, UNMAP
from l4lab.kernel.outcomes import MapOutcome

if TYPE_CHECKING:
    from l4lab.kernel.objects import Task
    from l4lab.kernel.state import Kernel


def lookup(task: Task | None, index: int) -> Capability | None:
    """What slot `index` holds; None if it is empty or there is no task."""
    return task.capability_table.slots.get(index) if task is not None else None


def insert_new(kernel: Kernel, task: Task, index: int, obj: KernelObject) -> bool:
    """Give `task` the first capability to `obj`, counted and with all rights; False without quota.

    What the slot held before is unmapped first.
    """
    old = task.capability_table.slots.get(index)
    if old is not None:
        displace(kernel, old)
    kernel.bill[MAP] += kernel.costs.map_capability
    interface = kernel.interface
    return capability.insert(
        task.capability_table, index, obj, interface.all_rights, interface.all_extra_rights, counted=True
    )


def map_range(
    kernel: Kernel,
    source: Task,
    source_index: int,
    target: Task,
    target_index: int,
    count: int,
    rights: int,
    *,
    extra: int,
    weak: bool,
    grant: bool,
) -> tuple[int, MapOutcome]:
    """Copy (or move) the capabilities of `count` slots; empty ones are skipped.

    `rights`, `extra`: those to pass on, as far as the source has them.
    Returns how many capabilities were mapped, and what the receiver learns.
    """
    mapped = 0
    outcome = MapOutcome.LACKED
    for index in _occupied(kernel, source, source_index, count, MAP):
        at = target_index + index - source_index
        if at >= kernel.interface.object_index_limit:
            break
        if index not in source.capability_table.slots:
            continue  # its object ended with one that was in the way of a capability before
        outcome = MapOutcome.DONE
        done = _map_one(kernel, source, index, target, at, rights, extra, weak, grant)
        if done is None:
            return mapped, MapOutcome.OUT_OF_MEMORY
        mapped += done
    return mapped, outcome


def _map_one(
    kernel: Kernel,
    source: Task,
    index: int,
    target: Task,
    at: int,
    rights: int,
    extra: int,
    weak: bool,
    grant: bool,
) -> int | None:
    old = target.capability_table.slots.get(at)
    if old is not None:
        displace(kernel, old)
    cap = source.capability_table.slots.get(index)
    if cap is None:  # it was the slot mapped onto, or died with it
        return 0
    kernel.bill[MAP] += kernel.costs.map_capability
    counted = cap.counted and not weak
    if not capability.insert(
        target.capability_table, at, cap.object, cap.rights & rights, cap.extra & extra, counted
    ):
        return None
    if grant:
        remove(kernel, cap)
    return 1


def unmap_range(kernel: Kernel, task: Task, index: int, count: int, *, delete: bool) -> None:
    """Take the capabilities of `count` slots; `delete`: with the delete right, end their objects at once."""
    slots = task.capability_table.slots
    for slot in _occupied(kernel, task, index, count, UNMAP):
        cap = slots.get(slot)
        if cap is not None:  # it may have gone with another of the range
            displace(kernel, cap) if delete else remove(kernel, cap)


def restrict_range(kernel: Kernel, task: Task, index: int, count: int, rights: int) -> None:
    """Take `rights` from the capabilities of `count` slots, which stay there."""
    slots = task.capability_table.slots
    for slot in _occupied(kernel, task, index, count, UNMAP):
        kernel.bill[UNMAP] += kernel.costs.map_capability
        slots[slot].rights &= ~rights


def _occupied(kernel: Kernel, task: Task, index: int, count: int, cause: int) -> list[int]:
    """The occupied slots of a range, by index. O(min(range, capabilities)).

    The others are billed to `cause`: one by one where the table has a page, else by the page.
    """
    slots = task.capability_table.slots
    if count <= len(slots):
        found = [slot for slot in range(index, index + count) if slot in slots]
    else:
        found = sorted(slot for slot in slots if index <= slot < index + count)
    looked_at = task.capability_table.places(index, index + count)
    kernel.bill[cause] += (looked_at - len(found)) * kernel.costs.range_step
    return found


def remove(kernel: Kernel, cap: Capability) -> None:
    """Empty one slot; the object dies if that was its last counted capability."""
    kernel.bill[UNMAP] += kernel.costs.map_capability
    if capability.drop(cap):
        kill_object(kernel, cap.object)


def displace(kernel: Kernel, cap: Capability) -> None:
    """Something else comes into the slot, or its task ends: with the delete right that ends the object."""
    if cap.rights & kernel.interface.delete_right and not cap.object.permanent:
        kill_object(kernel, cap.object)
    else:
        remove(kernel, cap)


def kill_object(kernel: Kernel, obj: KernelObject) -> None:
    """All capabilities of `obj` go; the rest of its end follows in `lifecycle.reap`."""
    if not obj.alive or obj.permanent:
        return
    obj.alive = False
    kernel.bill[UNMAP] += len(obj.capabilities) * kernel.costs.map_capability
    for cap in list(obj.capabilities):
        capability.drop(cap)
    kernel.dying.append(obj)
