"""IPC gates, seen with the server right. Ref: ABI sheet section 11.8."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel import ipc
from l4lab.kernel.fiasco import abi
from l4lab.kernel.fiasco.messages import make_tag
from l4lab.kernel.fiasco.protocols.common import OK, Call, error, object_argument
from l4lab.kernel.objects import Gate
from l4lab.kernel.thread import Thread

if TYPE_CHECKING:
    from l4lab.kernel.capability import KernelObject


def handle(call: Call, gate: KernelObject) -> int:
    """Bind to a thread, read the label, lower the count. The label was checked by the caller."""
    assert isinstance(gate, Gate)
    if call.words == 0:
        return error(abi.EINVAL)
    operation = call.word(0)
    if operation == abi.ENDPOINT_BIND:
        return _bind(call, gate)
    if operation == abi.GATE_GET_INFO:
        call.answer_word(0, gate.label)
        return make_tag(0, 1)
    if operation == abi.KOBJECT_DEC_REFCNT:
        return _dec_refcnt(call, gate)
    return error(abi.ENOSYS)


def _bind(call: Call, gate: Gate) -> int:
    if not call.rights & abi.OBJECT_RIGHT_S:
        return error(abi.EPERM)
    if call.words < 2:
        return error(abi.EMSGTOOSHORT)
    label = call.word(1)
    if label & abi.LABEL_RIGHTS_MASK:
        return error(abi.EINVAL)
    thread = object_argument(call, Thread, abi.OBJECT_RIGHT_S)
    if isinstance(thread, int):
        return thread
    assert isinstance(thread, Thread)
    # POINT OF NO RETURN
    if gate.thread is not None:
        gate.thread.bound_gates.pop(gate, None)
    gate.label = label
    gate.thread = thread
    thread.bound_gates[gate] = None
    ipc.gate_bound(call.kernel, call.core, gate)
    return OK


def _dec_refcnt(call: Call, gate: Gate) -> int:
    """Lower the count of capabilities that keep the gate alive, or raise it; never ends it by itself."""
    if call.words < 2:
        return error(abi.EINVAL)
    difference = (call.word(1) ^ 0x80000000) - 0x80000000
    gate.counted -= difference
    gate.deducted += difference
    call.answer_word(0, gate.counted)
    return make_tag(0, 1)
