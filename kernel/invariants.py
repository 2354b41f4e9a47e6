"""What must hold between any two kernel entries. Each check raises KernelBug naming the first violation.

 1. every mapping stands in its space's index under its page, and in its parent's children
 2. a child's frames lie inside its parent's, its rights within its parent's
 3. the page tables in RAM hold exactly the indexed mappings and the kernel-user pages
 4. nothing maps a frame of the kernel's share but kernel-user memory, once each
 5. every frame the kernel has taken is accounted for: tables, kernel-user memory, boot
 6. capability tables and objects agree; counts are right; dead objects have no capabilities
 7. a thread's state and what it waits in agree; queues hold nobody else
 8. a ready thread with a core is running or queued there, exactly once
 9. a reply slot and its caller name each other, and the caller waits
10. quotas are within limits and sum up

For tests and for `KernelBug` dumps; O(everything).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel import paging
from l4lab.kernel.errors import KernelBug
from l4lab.kernel.mapdb import WRITE, Mapping
from l4lab.kernel.objects import Gate, Irq, Semaphore
from l4lab.kernel.thread import DEAD, LATE, NO_CORE, READY, RECEIVING, REMOTE, SENDING, WAITING, Thread

if TYPE_CHECKING:
    from l4lab.kernel.memory import Memory, Space
    from l4lab.kernel.state import Kernel


def check_all(kernel: Kernel) -> None:
    """Every invariant of this module."""
    check_memory(kernel)
    check_frames(kernel)
    check_capabilities(kernel)
    check_threads(kernel)
    check_queues(kernel)
    check_quotas(kernel)


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise KernelBug(text)


# --- memory -------------------------------------------------------------------------------------


def check_memory(kernel: Kernel) -> None:
    """Invariants 1 to 4."""
    for task in kernel.tasks.values():
        _check_space(kernel.memory, task.space)
    for root in kernel.memory.roots.values():
        _check_children(root)


def _check_space(memory: Memory, space: Space) -> None:
    for vpn, mapping in space.pages.items():
        _check_mapping(memory, space, mapping)
        _require(mapping.vpn == vpn and mapping.pages == 1, f"{mapping!r} indexed as page {vpn:#x}")
        _require(vpn >> 10 not in space.superpages, f"{mapping!r} lies under a superpage of {space.name}")
        _require(vpn not in space.ku_pages, f"{mapping!r} over kernel-user memory")
    for number, mapping in space.superpages.items():
        _check_mapping(memory, space, mapping)
        _require(
            mapping.vpn == number << 10 and mapping.pages == 1024,
            f"{mapping!r} indexed as superpage {number}",
        )
    _check_tables(memory, space)


def _check_mapping(memory: Memory, space: Space, mapping: Mapping) -> None:
    _require(mapping.space is space, f"{mapping!r} indexed in {space.name}")
    _require(mapping.pfn + mapping.pages <= memory.user_frames, f"{mapping!r} maps the kernel's frames")
    parent = mapping.parent
    _require(parent is not None and parent.space is not None, f"{mapping!r} has no living parent")
    assert parent is not None
    inside = parent.pfn <= mapping.pfn and mapping.pfn + mapping.pages <= parent.pfn + parent.pages
    _require(inside, f"{mapping!r} lies outside its parent {parent!r}")
    _require(
        mapping.rights & ~parent.rights == 0 or not mapping.rights & WRITE or bool(parent.rights & WRITE),
        f"{mapping!r} has more rights than its parent {parent!r}",
    )
    key = -1 if mapping.is_superpage else mapping.pfn
    group = (parent.children or {}).get(key, {})
    _require(mapping in group, f"{mapping!r} is not among the children of {parent!r}")
    _check_children(mapping)


def _check_children(mapping: Mapping) -> None:
    for group in (mapping.children or {}).values():
        _require(bool(group), f"{mapping!r} keeps an empty group of children")
        for child in group:
            _require(child.parent is mapping, f"{child!r} does not know its parent {mapping!r}")
            _require(child.space is not None, f"removed {child!r} is still below {mapping!r}")
            index = None
            if child.space is not None:
                index = (
                    child.space.superpages.get(child.vpn >> 10)
                    if child.is_superpage
                    else child.space.pages.get(child.vpn)
                )
            _require(index is child, f"{child!r} is in the tree but not in its space")


def _check_tables(memory: Memory, space: Space) -> None:
    """Invariant 3: walk the directory in RAM and compare."""
    words = memory.words
    present = 0
    is_sigma0 = space is memory.sigma0
    for index in range(paging.ENTRIES):
        pde = words[(space.tables.directory_pfn << 10) + index]
        if index in memory.shared_tables or not pde & paging.PRESENT:
            continue
        if pde & paging.SUPERPAGE:
            mapping = space.superpages.get(index)
            if is_sigma0:
                _require(pde >> 12 == index << 10, f"sigma0 superpage {index} is not one to one")
                continue
            _require(mapping is not None, f"{space.name}: directory entry {index} maps what is not recorded")
            assert mapping is not None
            _check_entry(space, mapping, pde)
            present += 1
            continue
        _require(
            space.tables.table_pfns.get(index) == pde >> 12, f"{space.name}: unknown page table {pde:#x}"
        )
        first = (pde >> 12) << 10
        for offset, pte in enumerate(words[first : first + paging.ENTRIES].tolist()):
            if not pte & paging.PRESENT:
                continue
            present += 1
            vpn = index << 10 | offset
            if vpn in space.ku_pages:
                _require(
                    pte >> 12 == space.ku_pages[vpn], f"{space.name}: kernel-user page {vpn:#x} elsewhere"
                )
                continue
            found = space.pages.get(vpn)
            _require(found is not None, f"{space.name}: page {vpn:#x} is mapped but not recorded")
            assert found is not None
            _check_entry(space, found, pte)
    recorded = len(space.pages) + len(space.superpages) + len(space.ku_pages)
    _require(present == recorded, f"{space.name}: {recorded} pages recorded, {present} in the page tables")


def _check_entry(space: Space, mapping: Mapping, entry: int) -> None:
    _require(entry >> 12 == mapping.pfn, f"{space.name}: {mapping!r} but the entry says {entry:#x}")
    writable = bool(entry & paging.WRITABLE)
    _require(
        writable == bool(mapping.rights & WRITE), f"{space.name}: {mapping!r} but the entry says {entry:#x}"
    )


def check_frames(kernel: Kernel) -> None:
    """Invariants 4 and 5: no kernel frame is used twice, lost or kept by the dead."""
    owners: dict[int, str] = {}

    def own(pfn: int, who: str) -> None:
        _require(kernel.frames.is_taken(pfn), f"{who} uses kernel frame {pfn:#x}, which is free")
        _require(pfn not in owners, f"kernel frame {pfn:#x} belongs to {owners.get(pfn)} and to {who}")
        owners[pfn] = who

    for task in kernel.tasks.values():
        own(task.space.tables.directory_pfn, f"the directory of {task!r}")
        for index, pfn in task.space.tables.table_pfns.items():
            own(pfn, f"page table {index} of {task!r}")
        for vpn, pfn in task.space.ku_pages.items():
            own(pfn, f"kernel-user page {vpn:#x} of {task!r}")
    expected = kernel.frames.taken_count - len(owners)
    _require(expected == kernel.fixed_frames, f"{expected - kernel.fixed_frames} kernel frames leaked")


# --- capabilities -------------------------------------------------------------------------------


def check_capabilities(kernel: Kernel) -> None:
    """Invariant 6."""
    for task in kernel.tasks.values():
        for index, cap in task.capability_table.slots.items():
            _require(
                cap.index == index and cap.table is task.capability_table, f"{cap!r} is in the wrong slot"
            )
            _require(cap in cap.object.capabilities, f"{cap!r} is unknown to its object")
            _require(cap.object.alive, f"{cap!r} names a dead object")
            counted = sum(1 for other in cap.object.capabilities if other.counted)
            _require(
                counted >= cap.object.counted or cap.object.permanent,
                f"{cap.object!r} counts {cap.object.counted}, has {counted}",
            )
            for other in cap.object.capabilities:
                _require(other.table.slots.get(other.index) is other, f"{other!r} is not in its slot")


# --- threads ------------------------------------------------------------------------------------


def check_threads(kernel: Kernel) -> None:
    """Invariants 7 and 9."""
    for thread in kernel.threads.values():
        partner = thread.partner
        if thread.state == SENDING:
            _require(isinstance(partner, Thread | Gate), f"{thread!r} sends to nobody")
            queue = partner.waiting if isinstance(partner, Gate) else partner.senders  # type: ignore[union-attr]
            _require(thread in set(queue), f"{thread!r} is not in the queue of {partner!r}")
        elif thread.state == WAITING:
            _require(
                isinstance(partner, Semaphore) and thread in set(partner.waiting), f"{thread!r} waits nowhere"
            )
        elif thread.state not in (RECEIVING, LATE, REMOTE):
            _require(partner is None, f"{thread!r} is {thread.state_name} but waits for {partner!r}")
        armed = thread.timeout is not None and thread.timeout.thread is thread
        _require(thread.timeout is None or armed, f"{thread!r} keeps a spent timeout")
        _require(
            not armed or thread.state in (SENDING, RECEIVING, WAITING),
            f"{thread!r} is {thread.state_name} with a timeout",
        )
        for sender in thread.senders:
            if isinstance(sender, Thread):
                _require(
                    sender.state == SENDING and sender.partner is thread,
                    f"{sender!r} is queued at {thread!r}",
                )
            elif isinstance(sender, Irq):
                _require(sender.queued and sender.thread is thread, f"{sender!r} is queued at {thread!r}")
        if thread.reply.caller is not None:
            caller = thread.reply.caller
            _require(caller.held_by is thread.reply, f"{caller!r} does not know who holds it")
            _require(
                caller.state in (RECEIVING, LATE), f"{caller!r} is {caller.state_name} but awaits an answer"
            )
        _require(thread.state != DEAD or not thread.senders, f"dead {thread!r} has senders")


def check_queues(kernel: Kernel) -> None:
    """Invariant 8."""
    queued: dict[Thread, int] = {}
    for core in kernel.cores:
        for thread in core.ready.threads():
            _require(thread not in queued, f"{thread!r} is queued twice")
            _require(
                thread.queued and thread.core == core.number, f"{thread!r} is queued on core {core.number}"
            )
            _require(thread.state in (READY, LATE), f"{thread!r} is queued but {thread.state_name}")
            _require(thread is not core.current, f"{thread!r} runs and is queued")
            queued[thread] = core.number
    for thread in kernel.threads.values():
        runs = thread.core != NO_CORE and kernel.cores[thread.core].current is thread
        if thread.state in (READY, LATE) and thread.core != NO_CORE:
            _require(
                runs or thread in queued or thread.in_flight,
                f"{thread!r} is {thread.state_name} but not queued on core {thread.core}",
            )
        else:
            _require(not thread.queued, f"{thread!r} is {thread.state_name} but queued")
            _require(not runs or thread.state == READY, f"{thread!r} is {thread.state_name} but runs")


def check_quotas(kernel: Kernel) -> None:
    """Invariant 10."""
    quota = kernel.root_quota
    _require(
        0 <= quota.used_bytes <= quota.limit_bytes,
        f"kernel memory: {quota.used_bytes} of {quota.limit_bytes} bytes",
    )
    frames_bytes = kernel.frames.taken_count * 4096
    _require(
        frames_bytes <= quota.used_bytes, f"{frames_bytes} bytes of frames, only {quota.used_bytes} charged"
    )
