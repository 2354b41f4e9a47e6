"""What must hold between any two kernel entries. Each check raises KernelBug naming the first violation.

 1. every mapping stands in its space's index under its page, and among its parent's children; nothing
    else is in the trees, and every tree is rooted in sigma0
 2. a child's frames lie inside its parent's
 3. the page tables in RAM hold exactly the indexed mappings and the kernel-user pages, with their rights
 4. nothing maps a frame of the kernel's share but kernel-user memory, once each
 5. every frame the kernel has taken is accounted for: directories, tables, kernel-user memory, boot
 6. capability tables and objects agree; the counts are exact; what is dead has no capability, and what
    lives has one that counts
 7. a thread's state and what it waits in agree; queues hold nobody else; timeouts are armed once
 8. a ready thread with a core is running or queued there, exactly once
    sender and receiver that could meet do not both wait
 9. a reply slot and its caller name each other, and the caller waits
10. every budget has been charged exactly for what is there, and is within its limit
11. what refers to each other does so both ways: threads with gates, IRQ objects, tasks and UTCBs,
    interrupt pins with what they trigger
12. nothing is left over from the last entry: translations to forget, objects to end
13. a thread's state changes as `thread.TRANSITIONS` allows; this one is checked at each change, while
    `transitions_checked` is entered
14. what a kernel entry has changed was charged, at its price: mappings, ports, capabilities, objects, ready queues,
    timeouts, waits (`Census`); and whatever has changed costs more than entry and exit

For tests and for `KernelBug` dumps; O(everything). A child may have more rights than its parent: the
parent was granted on with fewer (ABI sheet section 7; K/map_util.cpp leaves the children alone).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from l4lab.kernel import mapdb, paging
from l4lab.kernel.costs import CAUSE_NAMES, ENTRY, EXIT, IPC, MAP, OBJECT, SCHEDULE, TIMER, UNMAP
from l4lab.kernel.errors import KernelBug
from l4lab.kernel.mapdb import WRITE, Mapping
from l4lab.kernel.objects import Factory, Gate, Icu, Irq, Semaphore
from l4lab.kernel.quota import MAPPING_BYTES, Quota
from l4lab.kernel.thread import (
    DEAD,
    DORMANT,
    LATE,
    NO_CORE,
    READY,
    RECEIVING,
    REMOTE,
    SENDING,
    STATE_NAMES,
    TAKING,
    TRANSITIONS,
    WAITING,
    ReplySlot,
    Thread,
)
from l4lab.kernel.units import PAGE_BYTES

if TYPE_CHECKING:
    from l4lab.kernel.capability import KernelObject
    from l4lab.kernel.memory import Memory, Space
    from l4lab.kernel.sched import Core
    from l4lab.kernel.state import Kernel
    from l4lab.kernel.thread import SenderQueue

_ENTRY_FLAGS = paging.PRESENT | paging.USER | paging.WRITABLE | paging.SUPERPAGE


def check_all(kernel: Kernel) -> None:
    """Every invariant of this module."""
    check_nothing_left(kernel)
    check_memory(kernel)
    check_frames(kernel)
    check_capabilities(kernel)
    check_threads(kernel)
    check_references(kernel)
    check_queues(kernel)
    check_timeouts(kernel)
    check_quotas(kernel)
    if len(kernel.cores) == 1:
        check_rendezvous(kernel)


def _fail(text: str) -> NoReturn:
    raise KernelBug(text)


def check_nothing_left(kernel: Kernel) -> None:
    """Invariant 12."""
    if kernel.dying:
        _fail(f"{kernel.dying[0]!r} is still to be ended")
    if kernel.memory.stale:
        _fail(f"translations still to be forgotten: {kernel.memory.stale[0]}")
    if kernel.held:
        _fail(f"{kernel.held[0]!r} is still locked")
    memory = kernel.memory
    if memory.removals or memory.cleared_pages or memory.range_steps:
        _fail("steps of memory operations still to be billed")


# --- charges ------------------------------------------------------------------------------------


class Census:
    """Invariant 14: all of the kernel that costs something to change, taken between two entries. O(everything).

    What comes and goes within one entry is not seen, so what was charged may be more than what shows.
    """

    def __init__(self, kernel: Kernel) -> None:
        tasks = kernel.tasks.values()
        self.mappings = {
            m for task in tasks for m in (*task.space.pages.values(), *task.space.superpages.values())
        }
        self.ports = {port for task in tasks for port in task.ports.values()}
        self.capabilities = {cap for task in tasks for cap in task.capability_table.slots.values()}
        self.objects = {cap.object for cap in self.capabilities}
        self.queued = {thread for core in kernel.cores for thread in core.ready.threads()}
        self.timeouts = {timeout for core in kernel.cores for timeout in core.wake_ups.timeouts()}
        waits = (SENDING, WAITING, RECEIVING)
        self.waiting = {
            (thread, thread.state, thread.partner)
            for thread in kernel.threads.values()
            if thread.state in waits
        }

    def check_charged(self, kernel: Kernel, bill: list[int]) -> None:
        """`bill`: of the one entry since this census."""
        now, costs = Census(kernel), kernel.costs
        tables = (
            (self.mappings, now.mappings),
            (self.ports, now.ports),
            (self.capabilities, now.capabilities),
        )
        gone = [len(before - after) for before, after in tables]
        come = [len(after - before) for before, after in tables]
        removing = (costs.unmap_page, costs.map_port, costs.map_capability)
        mapping = (costs.map_page, costs.map_port, costs.map_capability)
        least = {
            UNMAP: sum(n * price for n, price in zip(gone, removing, strict=True)),
            MAP: sum(n * price for n, price in zip(come, mapping, strict=True)),
            OBJECT: len({obj for obj in self.objects if not obj.alive}) * costs.end_object,
            SCHEDULE: len(self.queued ^ now.queued) * costs.ready_queue,
            TIMER: len(self.timeouts ^ now.timeouts) * costs.wake_up_queue,
            IPC: len(now.waiting - self.waiting) * costs.ipc_block,
        }
        for cause, cycles in least.items():
            if bill[cause] < cycles:
                _fail(f"{CAUSE_NAMES[cause]}: {bill[cause]} cycles billed for work of {cycles}")
        changed = any(gone) or any(come) or self.queued != now.queued or self.waiting != now.waiting
        if changed and sum(bill) == bill[ENTRY] + bill[EXIT] and costs.schedule:
            _fail("something has changed, and only entry and exit were billed")


# --- states -------------------------------------------------------------------------------------


class _CheckedState:
    """Stands for the slot `Thread.state`, and lets only legal changes through."""

    def __init__(self, slot: Any) -> None:
        self._slot = slot

    def __get__(self, thread: Thread, owner: type) -> int:
        state: int = self._slot.__get__(thread, owner)
        return state

    def __set__(self, thread: Thread, state: int) -> None:
        before = self._slot.__get__(thread, Thread) if hasattr(thread, "partner") else state
        if state != before and state not in TRANSITIONS[before]:
            _fail(f"{thread!r} becomes {STATE_NAMES[state]} from {STATE_NAMES[before]}")
        self._slot.__set__(thread, state)


@contextmanager
def transitions_checked() -> Iterator[None]:
    """Invariant 13, for all kernels of this process."""
    slot = vars(Thread)["state"]
    setattr(Thread, "state", _CheckedState(slot))  # noqa: B010  (an assignment would change the declared type)
    try:
        yield
    finally:
        setattr(Thread, "state", slot)  # noqa: B010


# --- memory -------------------------------------------------------------------------------------


def remains(kernel: Kernel) -> list[Space]:
    """The spaces of ended tasks that still have threads: their kernel-user memory is there, no more."""
    threads = kernel.threads.values()
    return list({t.task.space: None for t in threads if t.task is not None and not t.task.alive})


def check_memory(kernel: Kernel) -> None:
    """Invariants 1 to 4."""
    memory = kernel.memory
    for task in kernel.tasks.values():
        _check_space(memory, task.space)
    for number, root in memory.roots.items():
        if root.pfn != number << 10 or root.parent is not None or root.space is not memory.sigma0:
            _fail(f"{root!r} is not sigma0's")
        _check_children(root)


def _check_space(memory: Memory, space: Space) -> None:
    if space is memory.sigma0:
        if space.pages or space.superpages:
            _fail("sigma0 has got a mapping from somebody")
        _check_sigma0_tables(memory, space)
        return
    words, tables = memory.words, space.tables
    directory = tables.directory_pfn << 10
    for vpn, mapping in space.pages.items():
        if mapping.vpn != vpn or mapping.pages != 1:
            _fail(f"{mapping!r} indexed as page {vpn:#x}")
        if vpn in space.ku_pages:
            _fail(f"{mapping!r} over kernel-user memory")
        table = tables.table_pfns.get(vpn >> 10)
        if table is None:
            _fail(f"{mapping!r} has no page table")
        _check_mapping(memory, space, mapping)
        _check_entry(space, mapping, words[(table << 10) + (vpn & 1023)])
    for number, mapping in space.superpages.items():
        if mapping.vpn != number << 10 or mapping.pages != 1024:
            _fail(f"{mapping!r} indexed as superpage {number}")
        _check_mapping(memory, space, mapping)
        _check_entry(space, mapping, words[directory + number])
    _check_ku_pages(memory, space)
    _check_nothing_else(memory, space)


def _check_mapping(memory: Memory, space: Space, mapping: Mapping) -> None:
    if mapping.space is not space:
        _fail(f"{mapping!r} indexed in {space.name}")
    if mapping.pfn + mapping.pages > memory.user_frames and mapping.pfn < memory.ram_frames:
        _fail(f"{mapping!r} maps the kernel's frames")
    parent = mapping.parent
    if parent is None or parent.space is None:
        _fail(f"{mapping!r} has no living parent")
    if parent.pfn > mapping.pfn or mapping.pfn + mapping.pages > parent.pfn + parent.pages:
        _fail(f"{mapping!r} lies outside its parent {parent!r}")
    by_frame = parent.by_frame or {}
    group = parent.children if parent.pages == mapping.pages else by_frame.get(mapping.pfn)
    if mapping not in mapdb.members(group):
        _fail(f"{mapping!r} is not among the children of {parent!r}")
    _check_children(mapping)


def _check_children(mapping: Mapping) -> None:
    by_frame = mapping.by_frame
    if by_frame is not None and (not by_frame or mapping.pages == 1):
        _fail(f"{mapping!r} keeps an index of children by frame")
    for group in (mapping.children, *(by_frame or {}).values()):
        if isinstance(group, dict) and len(group) < 2:
            _fail(f"{mapping!r} keeps a group of {len(group)} children")
        for child in mapdb.members(group):
            if child.parent is not mapping:
                _fail(f"{child!r} does not know its parent {mapping!r}")
            space = child.space
            if space is None:
                _fail(f"removed {child!r} is still below {mapping!r}")
            index = (
                space.superpages.get(child.vpn >> 10) if child.is_superpage else space.pages.get(child.vpn)
            )
            if index is not child:
                _fail(f"{child!r} is in the tree but not in its space")


def _check_entry(space: Space, mapping: Mapping, entry: int) -> None:
    expected = paging.PRESENT | paging.USER
    if mapping.rights & WRITE:
        expected |= paging.WRITABLE
    if mapping.is_superpage:
        expected |= paging.SUPERPAGE
    if entry >> 12 != mapping.pfn or entry & _ENTRY_FLAGS != expected:
        _fail(f"{space.name}: {mapping!r} but the entry says {entry:#x}")


def _check_ku_pages(memory: Memory, space: Space) -> None:
    expected: dict[int, int] = {}
    for area in space.ku_areas:
        expected.update((area.vpn + i, area.first_pfn + i) for i in range(area.pages))
    if expected != space.ku_pages:
        _fail(f"{space.name}: areas and pages of kernel-user memory differ")
    writable = paging.PRESENT | paging.USER | paging.WRITABLE
    for vpn, pfn in space.ku_pages.items():
        entry = memory.words[(space.tables.table_pfns[vpn >> 10] << 10) + (vpn & 1023)]
        if entry >> 12 != pfn or entry & _ENTRY_FLAGS != writable:
            _fail(f"{space.name}: kernel-user page {vpn:#x}, but the entry says {entry:#x}")


def _check_nothing_else(memory: Memory, space: Space) -> None:
    """Invariant 3, the other way round: as many entries are in use as there are things recorded."""
    words, tables = memory.words, space.tables
    directory = words[tables.directory_pfn << 10 : (tables.directory_pfn << 10) + 1024].tolist()
    for shared, (index, pfn) in enumerate([*memory.shared_tables.items(), *tables.table_pfns.items()]):
        if directory[index] >> 12 != pfn or directory[index] & paging.SUPERPAGE:
            kind = "shared" if shared < len(memory.shared_tables) else "page"
            _fail(f"{space.name}: {kind} table {index} is {pfn:#x}, the directory says {directory[index]:#x}")
    used = 1024 - directory.count(0)
    recorded = len(memory.shared_tables) + len(tables.table_pfns) + len(space.superpages)
    if used != recorded:
        _fail(f"{space.name}: {used} directory entries in use, {recorded} recorded")
    used = sum(
        1024 - words[pfn << 10 : (pfn << 10) + 1024].tolist().count(0) for pfn in tables.table_pfns.values()
    )
    if used != len(space.pages) + len(space.ku_pages):
        _fail(f"{space.name}: {used} pages mapped, {len(space.pages) + len(space.ku_pages)} recorded")


def _check_sigma0_tables(memory: Memory, space: Space) -> None:
    """sigma0 has its kernel-user pages, and its RAM one to one wherever it has looked."""
    _check_ku_pages(memory, space)
    first = space.tables.directory_pfn << 10
    for index, pde in enumerate(memory.words[first : first + 1024].tolist()):
        if not pde or index in memory.shared_tables or index in space.tables.table_pfns:
            continue
        if not pde & paging.SUPERPAGE or pde >> 12 != index << 10 or index << 10 >= memory.user_frames:
            _fail(f"sigma0: entry {index} is {pde:#x}, not one to one")
    for pfn in space.tables.table_pfns.values():
        used = 1024 - memory.words[pfn << 10 : (pfn << 10) + 1024].tolist().count(0)
        if used > len(space.ku_pages):
            _fail(f"sigma0: {used} small pages mapped, {len(space.ku_pages)} are kernel-user memory")


def check_frames(kernel: Kernel) -> None:
    """Invariants 4 and 5: no kernel frame is used twice, lost or kept by the dead."""
    owners: dict[int, str] = {}

    def own(pfn: int, owner: str) -> None:
        if not kernel.frames.is_taken(pfn):
            _fail(f"{owner} uses kernel frame {pfn:#x}, which is free")
        if pfn in owners:
            _fail(f"kernel frame {pfn:#x} belongs to {owners[pfn]} and to {owner}")
        owners[pfn] = owner

    for task in kernel.tasks.values():
        own(task.space.tables.directory_pfn, task.space.name)
        for pfn in task.space.tables.table_pfns.values():
            own(pfn, task.space.name)
    for space in (*(task.space for task in kernel.tasks.values()), *remains(kernel)):
        for area in space.ku_areas:
            for pfn in range(area.first_pfn, area.first_pfn + area.pages):
                own(pfn, space.name)
    leaked = kernel.frames.taken_count - len(owners) - kernel.fixed_frames
    if leaked:
        _fail(f"{leaked} kernel frames leaked")


# --- capabilities -------------------------------------------------------------------------------


def objects(kernel: Kernel) -> list[KernelObject]:
    """All kernel objects that anybody can name, and all tasks and threads."""
    found: dict[KernelObject, None] = {}
    for task in kernel.tasks.values():
        found[task] = None
        for cap in task.capability_table.slots.values():
            found[cap.object] = None
    found.update(dict.fromkeys(kernel.threads.values()))
    return list(found)


def check_capabilities(kernel: Kernel) -> None:
    """Invariant 6."""
    slots = 0
    for task in kernel.tasks.values():
        slots += len(task.capability_table.slots)
        for index, cap in task.capability_table.slots.items():
            if cap.index != index or cap.table is not task.capability_table:
                _fail(f"{cap!r} is in the wrong slot")
            if not 0 <= index < kernel.interface.object_index_limit:
                _fail(f"{cap!r} is in a slot that does not exist")
            if cap not in cap.object.capabilities:
                _fail(f"{cap!r} is unknown to its object")
    named = 0
    for obj in objects(kernel):
        named += len(obj.capabilities)
        counted = sum(1 for cap in obj.capabilities if cap.counted)
        if counted - obj.deducted != obj.counted:
            _fail(f"{obj!r} counts {obj.counted}, has {counted}, {obj.deducted} deducted")
        if not obj.alive:
            _fail(f"{obj!r} can still be found")
        if not counted and not obj.permanent:
            _fail(f"{obj!r} lives on without a counted capability")
    if named != slots:
        _fail(f"{named} capabilities of objects, {slots} in tables")


# --- threads ------------------------------------------------------------------------------------


def check_threads(kernel: Kernel) -> None:
    """Invariants 7 and 9."""
    for obj in objects(kernel):
        if isinstance(obj, Gate):
            if obj.waiting and obj.thread is not None:
                _fail(f"threads wait for a binding of {obj!r}, which is bound")
            _check_queue(obj, obj.waiting, SENDING)
        elif isinstance(obj, Semaphore):
            if obj.waiting and obj.count:
                _fail(f"threads wait for {obj!r}, which counts {obj.count}")
            _check_queue(obj, obj.waiting, WAITING)
    for thread in kernel.threads.values():
        _check_queue(thread, thread.senders, SENDING)
        _check_waiting(thread)
        _check_reply_slot(thread.reply)
        if thread.held_by is not None and thread.held_by.caller is not thread:
            _fail(f"{thread!r} is not in the reply slot it is said to be in")
        if thread.state == DEAD and (thread.senders or thread.kernel_message or thread.reply.caller):
            _fail(f"dead {thread!r} still communicates")
    for task in kernel.tasks.values():
        for slot in task.reply_slots.values():
            _check_reply_slot(slot)


def _check_queue(owner: KernelObject, queue: SenderQueue, state: int) -> None:
    for sender in queue:
        if isinstance(sender, Thread):
            if sender.state != state or sender.partner is not owner:
                _fail(f"{sender!r}, {sender.state_name}, is queued at {owner!r}")
        elif not isinstance(sender, Irq) or not sender.queued or sender.thread is not owner:
            _fail(f"{sender!r} is queued at {owner!r}")


def _check_waiting(thread: Thread) -> None:
    """A blocked thread is where its state says; one that is not blocked waits for nothing."""
    partner, state = thread.partner, thread.state
    if state == SENDING:
        queue = partner.waiting if isinstance(partner, Gate) else None
        queue = partner.senders if isinstance(partner, Thread) else queue
        if queue is None or not queue.holds(thread, thread.queued_priority):
            _fail(f"{thread!r} sends, but is not in the queue of {partner!r}")
    elif state == WAITING:
        if not isinstance(partner, Semaphore) or not partner.waiting.holds(thread, thread.queued_priority):
            _fail(f"{thread!r} is not in the queue of {partner!r}")
    elif state in (REMOTE, TAKING):
        if not isinstance(partner, Thread):
            _fail(f"{thread!r} sends to {partner!r} on another core")
    elif partner is not None and state not in (RECEIVING, LATE):
        _fail(f"{thread!r} is {thread.state_name} but waits for {partner!r}")


def check_rendezvous(kernel: Kernel) -> None:
    """Nobody waits to receive what somebody waits to send. Holds while no DRQ is between cores."""
    for thread in kernel.threads.values():
        if thread.state == RECEIVING and thread.core != NO_CORE:
            for sender in thread.senders:
                if sender is not thread and thread.partner in (None, sender):
                    _fail(f"{sender!r} and {thread!r} wait for each other")


def _check_reply_slot(slot: ReplySlot) -> None:
    caller = slot.caller
    if caller is None:
        return
    if caller.held_by is not slot:
        _fail(f"{caller!r} does not know who holds it")
    if caller.state not in (RECEIVING, LATE) and not (caller.state == REMOTE and caller.sent):
        _fail(f"{caller!r} is {caller.state_name} but awaits an answer")


def check_references(kernel: Kernel) -> None:
    """Invariant 11."""
    for thread in kernel.threads.values():
        for gate in thread.bound_gates:
            if not isinstance(gate, Gate) or gate.thread is not thread:
                _fail(f"{gate!r} is not bound to {thread!r}")
        for irq in thread.bound_irqs:
            if not isinstance(irq, Irq) or irq.thread is not thread:
                _fail(f"{irq!r} is not bound to {thread!r}")
        notifier = thread.delete_irq
        if notifier is not None and (
            not isinstance(notifier, Irq | Semaphore) or notifier.notifies is not thread
        ):
            _fail(f"{notifier!r} does not report the end of gates of {thread!r}")
        _check_utcb(kernel, thread)
    for obj in objects(kernel):
        if isinstance(obj, Gate) and obj.thread is not None and obj.thread.state != DEAD:
            if obj not in obj.thread.bound_gates:
                _fail(f"{obj.thread!r} does not know {obj!r}")
        elif isinstance(obj, Irq) and obj.thread is not None:
            if obj not in obj.thread.bound_irqs:
                _fail(f"{obj.thread!r} does not know {obj!r}")
            if obj.pending and obj.thread.state != DEAD:
                _fail(f"{obj!r} keeps a delivery that {obj.thread!r} could have")
            if obj.queued != obj.thread.senders.holds(obj, obj.queued_priority):
                _fail(f"{obj!r} is{'' if obj.queued else ' not'} queued at {obj.thread!r}, it says")
        if isinstance(obj, Irq | Semaphore):
            _check_notifier(obj)
        elif isinstance(obj, Icu):
            for pin, target in obj.pins.items():
                if target.pin != (obj, pin) or not target.alive:
                    _fail(f"pin {pin} of {obj!r} triggers {target!r}")


def _check_notifier(obj: Irq | Semaphore) -> None:
    if obj.notifies is not None and obj.notifies.delete_irq is not obj:
        _fail(f"{obj!r} reports to {obj.notifies!r}, which does not know")
    if obj.pin is not None and obj.pin[0].pins.get(obj.pin[1]) is not obj:
        _fail(f"{obj!r} is not on its pin")


def _check_utcb(kernel: Kernel, thread: Thread) -> None:
    """A bound thread's UTCB lies in its task's kernel-user memory, an unbound one's is the scratch page."""
    task = thread.task
    if task is None:
        if thread.utcb != kernel.scratch_utcb or thread.state not in (DORMANT, DEAD):
            _fail(f"{thread!r} has no task, but is {thread.state_name}")
        return
    if thread not in task.threads:
        _fail(f"{thread!r} is unknown to {task!r}")
    found = kernel.memory.ku_word(task.space, thread.utcb_address, kernel.interface.utcb_bytes)
    if found != thread.utcb:
        _fail(f"the UTCB of {thread!r} is elsewhere")


def check_queues(kernel: Kernel) -> None:
    """Invariant 8."""
    queued: dict[Thread, int] = {}
    for core in kernel.cores:
        for thread in core.ready.threads():
            if thread in queued:
                _fail(f"{thread!r} is queued twice")
            if not thread.queued or thread.core != core.number:
                _fail(f"{thread!r} is queued on core {core.number}")
            if thread.state not in (READY, LATE):
                _fail(f"{thread!r} is queued but {thread.state_name}")
            if thread is core.current:
                _fail(f"{thread!r} runs and is queued")
            queued[thread] = core.number
        _check_core(core)
    for thread in kernel.threads.values():
        runs = thread.core != NO_CORE and kernel.cores[thread.core].current is thread
        if thread.state in (READY, LATE) and thread.core != NO_CORE:
            if not (runs or thread in queued or thread.in_flight):
                _fail(f"{thread!r} is {thread.state_name} but not queued on core {thread.core}")
        elif thread.queued:
            _fail(f"{thread!r} is {thread.state_name} but queued")


def _check_core(core: Core) -> None:
    current, context = core.current, core.context
    if current is None:
        if core.ready and not core.reschedule:
            _fail(f"core {core.number} idles, but {core.ready.threads()[0]!r} could run")
        return
    if current.core != core.number:
        _fail(f"{current!r} of core {current.core} runs on core {core.number}")
    if context is None:
        _fail(f"{current!r} runs on nobody's time")


def check_timeouts(kernel: Kernel) -> None:
    """Invariant 7: a thread has a timeout if and only if it stands in the wake-up queue of its core."""
    armed: dict[Thread, int] = {}
    for core in kernel.cores:
        for timeout in core.wake_ups.timeouts():
            thread = timeout.thread
            if thread is None or thread.timeout is not timeout or thread in armed:
                _fail(f"a wake-up of {thread!r} that it does not know")
            if thread.state not in (SENDING, RECEIVING, WAITING, REMOTE):
                _fail(f"{thread!r} is {thread.state_name} with a timeout")
            armed[thread] = core.number
        if len(core.wake_ups) != len(core.wake_ups.timeouts()):
            _fail(f"core {core.number} miscounts its wake-ups")
    for thread in kernel.threads.values():
        if thread.timeout is not None and armed.get(thread) != max(thread.core, 0):
            _fail(f"{thread!r} keeps a spent timeout, or one on another core")


# --- budgets ------------------------------------------------------------------------------------


def check_quotas(kernel: Kernel) -> None:
    """Invariant 10: what each budget was charged with, added up from what is there."""
    expected: dict[Quota, int] = {}

    def charge(quota: Quota, size_bytes: int) -> None:
        for node in (quota, quota.top):
            if node is not None:
                expected[node] = expected.get(node, 0) + size_bytes

    charge(kernel.root_quota, kernel.fixed_frames * PAGE_BYTES)
    for obj in objects(kernel):
        charge(obj.quota, obj.charged_bytes)
    for task in kernel.tasks.values():
        charge(task.quota, len(task.ports) * MAPPING_BYTES)
        charge(task.quota, (len(task.capability_table.pages) + len(task.reply_pages)) * PAGE_BYTES)
        charge(task.quota, (1 + len(task.space.tables.table_pfns)) * PAGE_BYTES)
        charge(task.quota, (len(task.space.pages) + len(task.space.superpages)) * MAPPING_BYTES)
    for space in (*(task.space for task in kernel.tasks.values()), *remains(kernel)):
        charge(space.quota, sum(area.pages for area in space.ku_areas) * PAGE_BYTES)
    for obj in objects(kernel):
        if isinstance(obj, Factory):
            charge(obj.budget, 0)
    borrowers = list(expected)
    for quota in borrowers:  # which grows meanwhile
        if quota.lender is not None:
            if quota.lender not in expected:
                expected[quota.lender] = 0
                borrowers.append(quota.lender)
            expected[quota.lender] += quota.limit_bytes
    for quota, size_bytes in expected.items():
        if quota.used_bytes != size_bytes:
            _fail(f"a budget was charged {quota.used_bytes} bytes for {size_bytes} in use")
        if quota.used_bytes > quota.limit_bytes:
            _fail(f"{quota.used_bytes} of {quota.limit_bytes} bytes used")
