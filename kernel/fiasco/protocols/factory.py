"""Factory: creates kernel objects into the caller's receive buffer. Ref: ABI sheet section 11.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel import capspace, contention, lifecycle, tracing
from l4lab.kernel.costs import OBJECT
from l4lab.kernel.fiasco import abi, items
from l4lab.kernel.fiasco.messages import make_tag
from l4lab.kernel.fiasco.protocols.common import (
    NO_REPLY,
    Call,
    error,
    first_item,
    ipc_error,
    is_object_page,
    named_object,
)
from l4lab.kernel.fiasco.protocols.task import add_area, area_word
from l4lab.kernel.objects import Factory, Gate, Task
from l4lab.kernel.thread import DEAD, Thread

if TYPE_CHECKING:
    from l4lab.kernel.capability import KernelObject

_LIMIT_MAX_BYTES = (1 << 31) - 1
_ANSWER_ITEM = 0x38


def handle(call: Call, factory: KernelObject) -> int:
    """Create what MR[0] names. Answer: one item, label 0."""
    assert isinstance(factory, Factory)
    contention.lock(call.kernel, factory)
    if call.label != abi.PROTO_FACTORY:
        return error(abi.EBADPROTO)
    if not call.rights & abi.OBJECT_RIGHT_S:
        return error(abi.EPERM)
    if call.words == 0:
        return error(abi.EMSGTOOSHORT)
    if not call.wants_reply:
        return NO_REPLY
    slot = _destination(call)
    if slot is None:
        return ipc_error(call, abi.IPC_RECEIVE_OVERFLOW)
    kind = (call.word(0) ^ 0x80000000) - 0x80000000
    created = _create(call, factory, kind)
    if isinstance(created, int):
        return created
    # POINT OF NO RETURN
    call.kernel.bill[OBJECT] += call.kernel.costs.create_object
    assert call.me.task is not None
    words = 1 if isinstance(created, Task) and call.word(2) else 0
    area = area_word(call.word(2))
    if slot >= call.kernel.interface.object_index_limit or not capspace.insert_new(
        call.kernel, call.me.task, slot, created
    ):
        if isinstance(created, Gate) and created.thread is not None:
            created.thread.bound_gates.pop(created, None)  # which never had it: nothing is reported
            created.thread = None
        capspace.kill_object(call.kernel, created)
        return error(abi.ENOMEM)
    if call.kernel.trace is not None:
        tracing.created(call.kernel, call.kernel.trace, created)
    if words:
        call.answer_word(0, area)
    call.answer_word(words, _ANSWER_ITEM)
    return make_tag(0, words, 1)


def _destination(call: Call) -> int | None:
    """The slot that the caller's first object buffer names; None if it has no such buffer."""
    bdr = call.kernel.words[call.me.utcb + abi.UTCB_BDR // 4]
    buffer, _ = items.read_buffer(call.kernel, call.me, bdr >> abi.BDR_OBJECT_SHIFT & abi.BDR_INDEX_MASK)
    if not buffer.control & abi.BUFFER_ITEM or buffer.window.kind != abi.FPAGE_TYPE_OBJECT:
        return None
    return buffer.window.named


def _create(call: Call, factory: Factory, kind: int) -> KernelObject | int:
    """The new object, nowhere named yet, or the refusal."""
    kernel, budget = call.kernel, factory.budget
    made: KernelObject | None
    if kind in (abi.PROTO_NONE, abi.PROTO_KOBJECT):
        return _create_gate(call, factory)
    if kind == abi.PROTO_TASK:
        return _create_task(call, factory)
    if kind == abi.PROTO_FACTORY:
        return _create_factory(call, factory)
    if kind == abi.PROTO_THREAD:
        made = lifecycle.create_thread(kernel, budget)
    elif kind == abi.PROTO_IRQ_SENDER:
        made = lifecycle.create_irq(kernel, budget)
    elif kind == abi.PROTO_SEMAPHORE:
        made = lifecycle.create_semaphore(kernel, budget)
    else:
        return error(abi.ENODEV)
    return error(abi.ENOMEM) if made is None else made


def _create_gate(call: Call, factory: Factory) -> KernelObject | int:
    thread: KernelObject | int | None = None
    label = 0
    item = first_item(call)
    if item is not None:
        if not is_object_page(item[1]):
            return error(abi.EINVAL)
        thread = named_object(call, item[1], Thread, abi.OBJECT_RIGHT_S)
        if isinstance(thread, int):
            return thread
        if call.words < 3:
            return error(abi.EMSGTOOSHORT)
        label = call.word(2)
        if label & abi.LABEL_RIGHTS_MASK:
            return error(abi.EINVAL)
    gate = lifecycle.create_gate(call.kernel, factory.budget)
    if gate is None:
        return error(abi.ENOMEM)
    if isinstance(thread, Thread):
        gate.label = label
        gate.thread = thread
        if thread.state != DEAD:
            thread.bound_gates[gate] = None
    return gate


def _create_task(call: Call, factory: Factory) -> KernelObject | int:
    if call.words < 3:
        return error(abi.EINVAL)
    task = lifecycle.create_task(call.kernel, factory.budget)
    if task is None:
        return error(abi.ENOMEM)
    area = call.word(2)  # of whatever type
    if area:
        refusal = add_area(call.kernel, task, area)
        if refusal:
            capspace.kill_object(call.kernel, task)
            return error(refusal)
    return task


def _create_factory(call: Call, factory: Factory) -> KernelObject | int:
    if call.words < 3:
        return error(abi.EMSGTOOSHORT)
    if call.words > 3 or call.items:
        return error(abi.EMSGTOOLONG)
    limit = call.word(2)
    if not 0 < limit < _LIMIT_MAX_BYTES:
        return error(abi.ENOMEM)
    made = lifecycle.create_factory(call.kernel, factory.budget, limit)
    return error(abi.ENOMEM) if made is None else made
