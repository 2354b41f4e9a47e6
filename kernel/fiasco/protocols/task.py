"""Task: map, unmap, capability tests, kernel-user memory. Ref: ABI sheet section 11.2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from l4lab.kernel import capspace, charges, contention, lifecycle, ports, tracing
from l4lab.kernel.costs import MAP, UNMAP
from l4lab.kernel.fiasco import abi, flexpage, items
from l4lab.kernel.fiasco.messages import make_tag
from l4lab.kernel.fiasco.protocols.common import OK, Call, error, first_item, ipc_error, is_object_page
from l4lab.kernel.objects import Gate, Task
from l4lab.kernel.outcomes import MapOutcome

if TYPE_CHECKING:
    from l4lab.kernel.capability import Capability, KernelObject
    from l4lab.kernel.state import Kernel


_REMOVABLE_RIGHTS: Final = abi.OBJECT_RIGHT_W | abi.OBJECT_RIGHT_S


def handle(call: Call, task: KernelObject) -> int:
    """Dispatch on the whole of MR[0]; only map needs a right (W)."""
    assert isinstance(task, Task)
    if call.label != abi.PROTO_TASK:
        return error(abi.EBADPROTO)
    operation = call.word(0)
    if operation == abi.TASK_MAP:
        return _map(call, task)
    if operation == abi.TASK_UNMAP:
        return _unmap(call, task)
    if operation == abi.TASK_CAP_INFO:
        return _cap_info(call, task)
    if operation == abi.TASK_ADD_KU_MEM:
        return _add_ku_mem(call, task)
    return error(abi.ENOSYS)  # ldt_set too: there is no LDT


def _map(call: Call, target: Task) -> int:
    if not call.rights & abi.OBJECT_RIGHT_W:
        return error(abi.EPERM)
    item = first_item(call)  # behind however many words there are
    if item is None or not item[0]:
        return error(abi.EINVAL)
    if not is_object_page(item[1]):
        return ipc_error(call, abi.IPC_SEND_OVERFLOW)
    cap = capspace.lookup(call.me.task, item[1] >> abi.CAP_SHIFT)
    if cap is None or not isinstance(cap.object, Task):
        return error(abi.EINVAL)
    page = call.word(2)
    if is_object_page(page):
        special = call.rights & cap.rights & abi.OBJECT_RIGHT_S
        page &= ~abi.OBJECT_RIGHT_S | special
    # POINT OF NO RETURN
    call.kernel.bill[MAP] += call.kernel.costs.map_item
    if call.kernel.trace is not None:
        call.kernel.trace.actor = call.me.number
    outcome = items.map_flexpage(call.kernel, cap.object, page, target, items.EVERYTHING, call.word(1))
    return ipc_error(call, abi.IPC_SEND_MAP_FAILED) if outcome is MapOutcome.OUT_OF_MEMORY else OK


def _unmap(call: Call, task: Task) -> int:
    """Takes from `task`; the flexpages come back with the access flags in their rights bits."""
    mask = call.word(1)
    if call.kernel.trace is not None:
        call.kernel.trace.actor = call.me.number
    call.kernel.bill[UNMAP] += max(call.words - 2, 0) * call.kernel.costs.unmap_item
    for position in range(2, call.words):
        word = call.word(position)
        flags = _unmap_page(call, task, flexpage.decode(word), mask)
        # Also if no answer is wanted: the real kernel works in the caller's message registers.
        call.kernel.words[call.me.utcb + position] = word & ~abi.FPAGE_RIGHTS_MASK | flags
    return make_tag(0, call.words)


def _unmap_page(call: Call, task: Task, page: flexpage.Flexpage, mask: int) -> int:
    also_self = bool(mask & abi.UNMAP_SELF)
    flags = 0
    trace = call.kernel.trace
    if page.kind == abi.FPAGE_TYPE_MEMORY or page.is_everything:
        order = 32 if page.is_everything else min(page.order, 32)
        if order >= abi.FPAGE_MIN_MEMORY_ORDER:
            memory = call.kernel.memory
            first, pages = page.address >> 12, 1 << (order - 12)
            for mapping in memory.mappings_in(task.space, first, pages):
                contention.lock(call.kernel, mapping)
            rights = flexpage.memory_rights(page.rights)
            touched = memory.unmap_range(task.space, first, pages, rights, also_self=also_self)
            flags = flexpage.access_flags(touched)
            charges.memory(call.kernel, UNMAP)
            if trace is not None:
                tracing.unmapped(call.kernel, trace, task, page.address, pages, page.rights)
    if (page.kind == abi.FPAGE_TYPE_IO or page.is_everything) and page.rights:
        first = 0 if page.is_everything else page.address
        order = 16 if page.is_everything else min(page.order, 16)
        ports.unmap_range(call.kernel, task, first, 1 << order, also_self=also_self)
    if (page.kind == abi.FPAGE_TYPE_OBJECT or page.is_everything) and also_self:
        start = 0 if page.is_everything else page.address
        order = 20 if page.is_everything else min(page.order, 20)
        if page.rights & abi.OBJECT_RIGHT_R:
            delete = bool(mask & abi.UNMAP_DELETE)
            capspace.unmap_range(call.kernel, task, start, 1 << order, delete=delete)
        else:
            capspace.restrict_range(call.kernel, task, start, 1 << order, page.rights & _REMOVABLE_RIGHTS)
        if trace is not None:
            tracing.capabilities_unmapped(call.kernel, trace, task, start, 1 << order, page.rights)
    return flags


def _cap_info(call: Call, task: Task) -> int:
    if call.words == 2:
        return make_tag(1 if _by_selector(task, call.word(1)) is not None else 0)
    if call.words == 3:
        return make_tag(1 if _equal(task, call.word(1), call.word(2)) else 0)
    return error(abi.EINVAL)


def _by_selector(task: Task, selector: int) -> Capability | None:
    if selector & (abi.CAP_INVALID_BIT | abi.CAP_EXPLICIT_REPLY_BIT):
        return None
    return capspace.lookup(task, selector >> abi.CAP_SHIFT)


def _equal(task: Task, first: int, second: int) -> bool:
    """Section 11.2: same word; same special selector; both empty; or same object, rights and view."""
    if first == second:
        return True
    special = abi.CAP_INVALID_BIT | abi.CAP_EXPLICIT_REPLY_BIT
    if first & special or second & special:
        return first >> 10 == second >> 10
    a, b = _by_selector(task, first), _by_selector(task, second)
    if a is None or b is None:
        return a is b
    rights = abi.OBJECT_RIGHT_W | abi.OBJECT_RIGHT_S
    if a.object is not b.object or a.rights & rights != b.rights & rights:
        return False
    return not isinstance(a.object, Gate) or not (a.extra ^ b.extra) & abi.OBJECT_RIGHT_SERVER


def _add_ku_mem(call: Call, task: Task) -> int:
    """Areas are added in order; the first that cannot be is the answer, the ones before it stay."""
    done = 0
    for position in range(1, call.words):
        word = call.word(position)
        if word >> abi.FPAGE_TYPE_SHIFT & abi.FPAGE_TYPE_MASK != abi.FPAGE_TYPE_MEMORY:
            return error(abi.EINVAL)
        refusal = add_area(call.kernel, task, word)
        if refusal:
            return error(refusal)
        call.answer_word(position - 1, area_word(word))
        done += 1
    return make_tag(0, done)


def add_area(kernel: Kernel, task: Task, word: int) -> int:
    """Give `task` the kernel-user memory that a flexpage of any type describes; 0, or the errno of the refusal.

    It begins at the page that the word names, aligned to its size or not.
    """
    order = word >> abi.FPAGE_ORDER_SHIFT & abi.FPAGE_ORDER_MASK
    if not abi.KU_MEM_MIN_ORDER <= order <= abi.KU_MEM_MAX_ORDER:
        return abi.EINVAL
    vpn, pages = word >> abi.FPAGE_ADDRESS_SHIFT, 1 << order - abi.FPAGE_ADDRESS_SHIFT
    if vpn + pages > abi.USER_LIMIT >> abi.FPAGE_ADDRESS_SHIFT:
        return abi.EINVAL
    refusal = lifecycle.add_ku_memory(kernel, task, vpn, pages)
    return 0 if not refusal else abi.EEXIST if refusal == "exists" else abi.ENOMEM


def area_word(word: int) -> int:
    """How the flexpage of an area that was added comes back: as memory, without rights."""
    kept = abi.FPAGE_ORDER_MASK << abi.FPAGE_ORDER_SHIFT | ~0xFFF
    return word & kept & 0xFFFFFFFF | abi.FPAGE_TYPE_MEMORY << abi.FPAGE_TYPE_SHIFT
