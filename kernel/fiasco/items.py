"""Typed items: what one thread gives another in a message, and what the receiver lets in.

The order of checks is the real kernel's, item by item: words and earlier items stay even if a later
item fails. Ref: ABI sheet section 6, "Typed items", "Receive buffers", "Received item description".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from l4lab.kernel import capspace, charges, contention, ports, tracing
from l4lab.kernel.costs import MAP
from l4lab.kernel.fiasco import abi, flexpage
from l4lab.kernel.objects import Gate, Task
from l4lab.kernel.outcomes import MapOutcome

if TYPE_CHECKING:
    from l4lab.kernel.fiasco.flexpage import Flexpage
    from l4lab.kernel.state import Kernel
    from l4lab.kernel.thread import Thread

_BR: Final = abi.UTCB_BR // 4
_BDR: Final = abi.UTCB_BDR // 4
_KEPT_OBJECT_RIGHTS: Final = abi.OBJECT_RIGHT_R | abi.OBJECT_RIGHT_W | abi.OBJECT_RIGHT_D
_BUFFER_SHIFTS: Final = {
    abi.FPAGE_TYPE_MEMORY: abi.BDR_MEMORY_SHIFT,
    abi.FPAGE_TYPE_IO: abi.BDR_IO_SHIFT,
    abi.FPAGE_TYPE_OBJECT: abi.BDR_OBJECT_SHIFT,
}
EVERYTHING: Final = flexpage.decode(abi.FPAGE_ALL)


class Buffer:
    """One receive buffer. `control` 0: there is none."""

    __slots__ = ("control", "target_selector", "window")

    def __init__(self, control: int, window: Flexpage, target_selector: int) -> None:
        self.control = control
        self.window = window
        self.target_selector = target_selector


def read_buffer(kernel: Kernel, thread: Thread, index: int) -> tuple[Buffer, int]:
    """The receive buffer at buffer register `index` of `thread`, and the index behind it.

    Registers that do not exist read as zero, which ends the buffers.
    """
    words, base = kernel.words, thread.utcb + _BR
    control = words[base + index] if index < abi.UTCB_BR_WORDS else 0
    if not control:
        return Buffer(0, EVERYTHING, 0), index
    index += 1
    if control & abi.BUFFER_SMALL:
        slot = control >> abi.CAP_SHIFT
        window = flexpage.Flexpage(abi.FPAGE_TYPE_OBJECT, slot, 0, 0, slot)
    else:
        window = flexpage.decode(words[base + index] if index < abi.UTCB_BR_WORDS else 0)
        index += 1
    selector = abi.CAP_INVALID
    if control & abi.BUFFER_FORWARD:
        selector = words[base + index] if index < abi.UTCB_BR_WORDS else abi.CAP_INVALID
        index += 1
    return Buffer(control, window, selector), index


class _Buffers:
    """The three independent iterators over a receiver's buffers, one for each kind of item."""

    __slots__ = ("_at", "_kernel", "_thread")

    def __init__(self, kernel: Kernel, thread: Thread) -> None:
        self._kernel = kernel
        self._thread = thread
        self._at: dict[int, int] = {}

    def current(self, kind: int) -> tuple[Buffer, int]:
        if self._thread.kernel_message is not None:
            # A fault's answer: one window for everything, whatever the kind (section 8).
            used = self._at.get(kind, 0)
            return Buffer(0 if used else abi.BUFFER_ITEM, EVERYTHING, abi.CAP_INVALID), 1
        at = self._at.get(kind)
        if at is None:
            bdr = self._kernel.words[self._thread.utcb + _BDR]
            at = bdr >> _BUFFER_SHIFTS[kind] & abi.BDR_INDEX_MASK
        return read_buffer(self._kernel, self._thread, at)

    def advance(self, kind: int, following: int) -> None:
        self._at[kind] = following


def transfer(kernel: Kernel, sender: Thread, receiver: Thread, first: int, count: int) -> int:
    """Transfer `count` items that stand at message register `first` of `sender`.

    Writes each description into the receiver's message registers. Returns 0, or the error code of
    the send phase (the receiver's is one more); items before the failing one stay transferred.
    """
    words = kernel.words
    buffers = _Buffers(kernel, receiver)
    describe = receiver.kernel_message is None
    for number in range(count):
        kernel.bill[MAP] += kernel.costs.map_item
        position = first + 2 * number
        if position + 1 >= abi.UTCB_MR_WORDS:
            return abi.IPC_SEND_OVERFLOW
        control = words[sender.utcb + position]
        if not control:
            if describe:
                words[receiver.utcb + position] = 0
            continue
        page_word = words[sender.utcb + position + 1]
        kind = page_word >> abi.FPAGE_TYPE_SHIFT & abi.FPAGE_TYPE_MASK
        if not control & abi.ITEM_MAP or kind == abi.FPAGE_TYPE_SPECIAL:
            return abi.IPC_SEND_OVERFLOW
        buffer, following = buffers.current(kind)
        if not buffer.control & abi.BUFFER_ITEM:
            return abi.IPC_SEND_OVERFLOW
        description = control & abi.ITEM_CONTROL_KEPT | page_word & abi.ITEM_FPAGE_KEPT
        outcome, data, code = _transfer_one(kernel, sender, receiver, control, page_word, kind, buffer)
        if describe:
            words[receiver.utcb + position] = description | outcome
            if outcome in (abi.ITEM_KIND_LOCAL_ID, abi.ITEM_KIND_FLEXPAGE):
                words[receiver.utcb + position + 1] = data
        if code:
            return code
        if not control & abi.ITEM_COMPOUND:
            buffers.advance(kind, following)
    return 0


def _transfer_one(
    kernel: Kernel, sender: Thread, receiver: Thread, control: int, page_word: int, kind: int, buffer: Buffer
) -> tuple[int, int, int]:
    """One item into one buffer: (kind of outcome, its data word, error code)."""
    if kind == abi.FPAGE_TYPE_OBJECT:
        allowed = sender.send_rights & abi.OBJECT_RIGHT_S | _KEPT_OBJECT_RIGHTS
        page_word &= ~abi.FPAGE_RIGHTS_MASK | allowed
    if buffer.control & abi.BUFFER_LOCAL_ID:
        local = _local_id(sender, receiver, page_word)
        if local is not None:
            return *local, 0
    target = _target_task(receiver, buffer)
    if target is None or not target.alive:  # a thread may outlive its task
        return 0, 0, abi.IPC_SEND_OVERFLOW
    assert sender.task is not None
    if kernel.trace is not None:
        kernel.trace.actor = sender.number
    outcome = map_flexpage(kernel, sender.task, page_word, target, buffer.window, control)
    if outcome is MapOutcome.OUT_OF_MEMORY:
        return abi.ITEM_KIND_MAPPED, 0, abi.IPC_SEND_MAP_FAILED
    return abi.ITEM_KIND_NOTHING if outcome is MapOutcome.LACKED else abi.ITEM_KIND_MAPPED, 0, 0


def _local_id(sender: Thread, receiver: Thread, page_word: int) -> tuple[int, int] | None:
    """(outcome, data) if the receiver gets an id instead of a mapping (section 6, "Local id").

    The flexpage's type does not matter: a page's number is looked up as a slot, too.
    """
    if sender.task is receiver.task:
        return abi.ITEM_KIND_FLEXPAGE, page_word
    cap = capspace.lookup(sender.task, page_word >> abi.FPAGE_ADDRESS_SHIFT)
    if cap is None or not isinstance(cap.object, Gate):
        return None
    thread = cap.object.thread
    if thread is None or thread.task is not receiver.task:
        return None
    return abi.ITEM_KIND_LOCAL_ID, cap.object.label | cap.rights & page_word & abi.LABEL_RIGHTS_MASK


def _target_task(receiver: Thread, buffer: Buffer) -> Task | None:
    """Whose space the buffer opens: the receiver's, or with a forward buffer the named task's (needs W)."""
    if not buffer.control & abi.BUFFER_FORWARD:
        return receiver.task
    if buffer.target_selector & abi.CAP_INVALID_BIT:
        return None
    cap = capspace.lookup(receiver.task, buffer.target_selector >> abi.CAP_SHIFT)
    if cap is None or not isinstance(cap.object, Task) or not cap.rights & abi.OBJECT_RIGHT_W:
        return None
    return cap.object


def map_flexpage(
    kernel: Kernel, source: Task, page_word: int, target: Task, window: Flexpage, control: int
) -> MapOutcome:
    """Map what a send flexpage and a receive window have in common.

    `control`: the item's control word: send base, grant, cache and object-specific bits. A window of another
    kind, or one that has nothing in common with the flexpage, is DONE: nobody is told.
    """
    page = flexpage.decode(page_word)
    if not window.is_everything and window.kind != page.kind:
        return MapOutcome.DONE
    hot_spot = control & abi.ITEM_SEND_BASE_MASK
    if page.kind == abi.FPAGE_TYPE_MEMORY:
        return _map_memory(kernel, source, page, target, window, hot_spot, control)
    if page.kind == abi.FPAGE_TYPE_OBJECT:
        return _map_objects(kernel, source, page, target, window, hot_spot >> abi.CAP_SHIFT, control)
    if page.kind == abi.FPAGE_TYPE_IO:
        return _map_ports(kernel, source, page, target, window, grant=bool(control & abi.ITEM_GRANT))
    return MapOutcome.DONE


def _map_memory(
    kernel: Kernel, source: Task, page: Flexpage, target: Task, window: Flexpage, hot_spot: int, control: int
) -> MapOutcome:
    window_order = 32 if window.is_everything else min(window.order, 32)
    order = min(page.order, 32)
    if order < abi.FPAGE_MIN_MEMORY_ORDER or window_order < abi.FPAGE_MIN_MEMORY_ORDER:
        return MapOutcome.DONE
    start, at, order = flexpage.place(page.address, order, window.address, window_order, hot_spot)
    cached = not control & abi.ITEM_CACHE_SET or control & abi.ITEM_CACHE_MASK == abi.ITEM_CACHE_CACHED
    mapped = kernel.memory.map_range(
        source.space,
        start >> 12,
        target.space,
        at >> 12,
        1 << (order - 12),
        flexpage.memory_rights(page.rights),
        grant=bool(control & abi.ITEM_GRANT),
        cached=cached,
    )
    for mapping in mapped.sources:
        contention.lock(kernel, mapping)
    if kernel.trace is not None:
        for first, into, pages in mapped.runs:
            tracing.mapped(kernel, kernel.trace, target, first, into, pages)
    kernel.bill[MAP] += mapped.entries * kernel.costs.map_page
    charges.memory(kernel, MAP)
    return mapped.outcome


def _map_ports(
    kernel: Kernel, source: Task, page: Flexpage, target: Task, window: Flexpage, *, grant: bool
) -> MapOutcome:
    """Ports go one to one; only what send flexpage and window have in common counts."""
    first, end = page.address, page.address + (1 << min(page.order, 16))
    if not window.is_everything:
        first = max(first, window.address)
        end = min(end, window.address + (1 << min(window.order, 16)))
    if first >= end:
        return MapOutcome.DONE
    if not page.rights & abi.PORT_RIGHTS:
        return MapOutcome.LACKED
    return ports.map_range(kernel, source, target, first, end - first, grant=grant)


def _map_objects(
    kernel: Kernel, source: Task, page: Flexpage, target: Task, window: Flexpage, hot_spot: int, control: int
) -> MapOutcome:
    if not page.rights & abi.OBJECT_RIGHT_R:
        return MapOutcome.LACKED
    window_order = 20 if window.is_everything else min(window.order, 20)
    start, at, order = flexpage.place(
        page.address, min(page.order, 20), window.address, window_order, hot_spot
    )
    mapped, outcome = capspace.map_range(
        kernel,
        source,
        start,
        target,
        at,
        1 << order,
        page.rights,
        extra=control & abi.ITEM_OBJECT_RIGHTS_MASK,
        weak=bool(control & abi.ITEM_WEAK),
        grant=bool(control & abi.ITEM_GRANT),
    )
    if mapped and kernel.trace is not None:
        tracing.capabilities_mapped(kernel, kernel.trace, target, start, at, mapped)
    return outcome
