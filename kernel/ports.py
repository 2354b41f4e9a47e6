"""I/O ports as a space: sigma0 owns all, and passes them on like memory, one to one.

No device of the machine sits on a port, so a permitted read finds all bits set and a write goes
nowhere. Permission itself is real: who was not given a port gets trap 13.
Ref: ABI sheet section 6 (I/O flexpages), section 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from l4lab.kernel.costs import FAULT, MAP, UNMAP
from l4lab.kernel.frame import EAX, EDX, EIP
from l4lab.kernel.outcomes import MapOutcome
from l4lab.kernel.quota import MAPPING_BYTES

if TYPE_CHECKING:
    from l4lab.kernel.objects import Task
    from l4lab.kernel.state import Kernel
    from l4lab.kernel.thread import Thread

PORTS: Final = 1 << 16


class PortMapping:
    """One port in one task. `children`: those it was passed on to, in order; None while there are none."""

    __slots__ = ("children", "parent", "port", "task")

    def __init__(self, task: Task, port: int, parent: PortMapping | None) -> None:
        self.task = task
        self.port = port
        self.parent = parent
        self.children: dict[PortMapping, None] | None = None


def map_range(
    kernel: Kernel, source: Task, target: Task, first: int, count: int, *, grant: bool
) -> MapOutcome:
    """Pass on (or move) the ports of a range that `source` has.

    As with memory: a port that `target` has from elsewhere goes first, with all that was derived from it, and
    with it the source itself, if it was its own target.
    """
    outcome = MapOutcome.LACKED
    for port in _owned(kernel, source, first, count):
        outcome = MapOutcome.DONE
        if target.space is kernel.memory.sigma0:
            break
        parent, old = source.ports.get(port), target.ports.get(port)
        grant_this = grant and parent is not None
        if old is not None:
            if old.parent is parent and old is not parent and not grant_this:
                continue
            _remove_tree(kernel, old)
            if parent is not None and port not in source.ports:
                continue
        if not target.quota.charge(MAPPING_BYTES):
            return MapOutcome.OUT_OF_MEMORY
        # POINT OF NO RETURN
        kernel.bill[MAP] += kernel.costs.map_port
        if grant_this and parent is not None:
            _move(parent, target)
            continue
        child = PortMapping(target, port, parent)
        target.ports[port] = child
        if parent is not None:
            if parent.children is None:
                parent.children = {}
            parent.children[child] = None
        else:
            kernel.port_roots.setdefault(port, {})[child] = None
    return outcome


def _move(mapping: PortMapping, target: Task) -> None:
    """A granted port keeps its place in the tree; `target`, which has paid for it, has it instead."""
    del mapping.task.ports[mapping.port]
    mapping.task.quota.refund(MAPPING_BYTES)
    mapping.task = target
    target.ports[mapping.port] = mapping


def _owned(kernel: Kernel, task: Task, first: int, count: int) -> list[int]:
    """The ports of a range that `task` may pass on. O(min(range, ports of the task))."""
    last = min(first + count, PORTS)
    if task.space is kernel.memory.sigma0:
        return list(range(first, last))
    if count < len(task.ports):
        return [port for port in range(first, last) if port in task.ports]
    return sorted(port for port in task.ports if first <= port < last)


def unmap_range(kernel: Kernel, task: Task, first: int, count: int, *, also_self: bool) -> None:
    """Take the ports from everybody who has them from `task`; `also_self`: from `task` too."""
    is_sigma0 = task.space is kernel.memory.sigma0
    for port in _owned(kernel, task, first, count):
        if is_sigma0:
            for child in list(kernel.port_roots.get(port, ())):
                _remove_tree(kernel, child)
            continue
        mapping = task.ports[port]
        if also_self:
            _remove_tree(kernel, mapping)
        else:
            for child in list(mapping.children or ()):
                _remove_tree(kernel, child)


def _remove_tree(kernel: Kernel, top: PortMapping) -> None:
    """Remove a mapping and all that was derived from it."""
    if top.parent is not None:
        siblings = top.parent.children or {}
        del siblings[top]
        if not siblings:
            top.parent.children = None
    else:
        siblings = kernel.port_roots[top.port]
        del siblings[top]
        if not siblings:
            del kernel.port_roots[top.port]
    pending = [top]
    while pending:
        mapping = pending.pop()
        pending.extend(mapping.children or ())
        kernel.bill[UNMAP] += kernel.costs.map_port
        del mapping.task.ports[mapping.port]
        mapping.task.quota.refund(MAPPING_BYTES)


# --- access -------------------------------------------------------------------------------------

_SIZES: Final = {0xE4: 1, 0xE5: 4, 0xE6: 1, 0xE7: 4, 0xEC: 1, 0xED: 4, 0xEE: 1, 0xEF: 4}
_IMMEDIATE: Final = (0xE4, 0xE5, 0xE6, 0xE7)
_INPUT: Final = (0xE4, 0xE5, 0xEC, 0xED)
_OPERAND_SIZE_PREFIX: Final = 0x66


def access(kernel: Kernel, thread: Thread) -> bool:
    """Carry out the port instruction at EIP if the thread's task may; False if it may not or it is none.

    The forms with a register (`in al, 0x60`, `out dx, eax`, …); string instructions are refused.
    """
    task = thread.task
    if task is None or not (task.ports or task.space is kernel.memory.sigma0):
        return False
    frame = thread.frame
    code = _code_at(kernel, task, frame[EIP], 3)
    length = 1
    size = _SIZES.get(code[0]) if code else None
    short = bool(code) and code[0] == _OPERAND_SIZE_PREFIX
    if short:
        code = code[1:]
        length = 2
        size = _SIZES.get(code[0]) if code else None
        size = 2 if size == 4 else size
    if size is None:
        return False
    opcode = code[0]
    if opcode in _IMMEDIATE:
        if len(code) < 2:
            return False
        port = code[1]
        length += 1
    else:
        port = frame[EDX] & 0xFFFF
    if not all(_may(kernel, task, port + offset) for offset in range(size)):
        return False
    # POINT OF NO RETURN
    kernel.bill[FAULT] += kernel.costs.fault_path
    if opcode in _INPUT:
        frame[EAX] |= (1 << 8 * size) - 1
    frame[EIP] = frame[EIP] + length & 0xFFFFFFFF
    return True


def _may(kernel: Kernel, task: Task, port: int) -> bool:
    return port in task.ports or (task.space is kernel.memory.sigma0 and port < PORTS)


def _code_at(kernel: Kernel, task: Task, address: int, count: int) -> bytes:
    """Up to `count` bytes of the task's memory; fewer where it is not mapped."""
    ram = kernel.words.cast("B")
    found = bytearray()
    for at in range(address, address + count):
        place = task.space.tables.translate(at & 0xFFFFFFFF)
        if place is None or place.physical >= len(ram):
            break
        found.append(ram[place.physical])
    return bytes(found)
