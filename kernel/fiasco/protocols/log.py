"""The console, and the debugger's names and output. Ref: ABI sheet sections 11.9 and 11.10."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l4lab.kernel import capspace
from l4lab.kernel.costs import COPY
from l4lab.kernel.fiasco import abi
from l4lab.kernel.fiasco.messages import make_tag
from l4lab.kernel.fiasco.protocols import icu
from l4lab.kernel.fiasco.protocols.common import NO_REPLY, OK, Call, error
from l4lab.kernel.objects import Debugger, Log, Task
from l4lab.kernel.state import ConsoleOutput

if TYPE_CHECKING:
    from l4lab.kernel.capability import KernelObject
    from l4lab.kernel.state import Kernel

_NAME_MAX_BYTES = 32


def handle_log(call: Call, log: KernelObject) -> int:
    """Write, read, attributes; label -1 speaks to the input interrupt pin."""
    assert isinstance(log, Log)
    if call.label == abi.PROTO_IRQ:
        return icu.handle(call, log)
    if call.label != abi.PROTO_LOG:
        return error(abi.EBADPROTO)
    if call.words == 0:
        return error(abi.EMSGTOOSHORT)
    operation = call.word(0) & 0xFFFF
    if operation == abi.LOG_WRITE:
        _write(call)
        return NO_REPLY
    if operation == abi.LOG_READ:
        return _read(call, log)
    if operation == abi.LOG_SET_ATTR:
        log.attributes = (call.word(1), call.word(2) | abi.LOG_NEW_LINE_RETURNS, call.word(3))
        return OK
    if operation == abi.LOG_GET_ATTR:
        for index, value in enumerate(log.attributes):
            call.answer_word(1 + index, value)
        return make_tag(0, 4)
    return error(abi.ENOSYS)


def _bytes_at(call: Call, first_word: int, count: int) -> bytes:
    start = (call.me.utcb + first_word) * 4
    return bytes(call.kernel.words.cast("B")[start : start + count])


def _write(call: Call) -> None:
    count = call.word(1)
    if 0 < count <= abi.LOG_WRITE_MAX_BYTES:
        _print(call.kernel, _bytes_at(call, 2, count))


def _print(kernel: Kernel, data: bytes) -> None:
    """To the console, a word at a time; how long the device takes is not modelled."""
    _charge_copy(kernel, len(data))
    kernel.effects.append(ConsoleOutput(data))


def _charge_copy(kernel: Kernel, count: int) -> None:
    kernel.bill[COPY] += -(-count // 4) * kernel.costs.copy_word


def _read(call: Call, log: Log) -> int:
    if not call.wants_reply:
        return OK
    if not call.rights & abi.OBJECT_RIGHT_W:
        return error(abi.EPERM)
    count = min(call.word(0) >> 16, abi.LOG_READ_MAX_BYTES, len(log.input))
    data = bytes(log.input[:count])
    del log.input[:count]
    _charge_copy(call.kernel, count)
    for index in range(0, count, 4):
        call.answer_word(1 + index // 4, int.from_bytes(data[index : index + 4], "little"))
    call.answer_word(0, count | (0 if log.input else abi.LOG_READ_DRAINED))
    return OK


def handle_debugger(call: Call, debugger: KernelObject) -> int:
    """Output without rights, and names for objects. Unknown groups are refused."""
    assert isinstance(debugger, Debugger)
    if call.label != abi.PROTO_DEBUGGER:
        return error(abi.EBADPROTO)
    if call.words == 0:
        return error(abi.EMSGTOOSHORT)
    operation = call.word(0)
    if operation >> abi.DEBUGGER_GROUP_SHIFT == 0:
        return _output(call, operation)
    if operation >> abi.DEBUGGER_GROUP_SHIFT == 1:
        return _on_object(call, operation)
    return error(abi.ENOSYS)


def _output(call: Call, operation: int) -> int:
    value = call.word(1) if call.words > 1 else 0
    hexadecimal = {
        abi.DEBUGGER_OUTHEX32: 8,
        abi.DEBUGGER_OUTHEX20: 5,
        abi.DEBUGGER_OUTHEX16: 4,
        abi.DEBUGGER_OUTHEX12: 3,
        abi.DEBUGGER_OUTHEX8: 2,
    }
    if operation in (abi.DEBUGGER_ENTER, abi.DEBUGGER_OUTNSTRING):
        data = _bytes_at(call, 2, min(value, 4 * max(call.words - 2, 0)))
    elif operation == abi.DEBUGGER_OUTCHAR:
        data = bytes((value & 0xFF,))
    elif operation in hexadecimal:
        digits = hexadecimal[operation]
        data = f"{value & (1 << 4 * digits) - 1:0{digits}x}".encode()
    elif operation == abi.DEBUGGER_OUTDEC:
        data = str((value ^ 0x80000000) - 0x80000000).encode()
    else:
        return error(abi.ENOSYS)
    _print(call.kernel, data)
    return OK


def name_of(given: bytes) -> str:
    """What an object is called, for people, that a program gives this name; bytes that are no UTF-8 as `\\xff`."""
    return given[:_NAME_MAX_BYTES].decode("utf-8", "backslashreplace")


def _on_object(call: Call, operation: int) -> int:
    if operation == abi.DEBUGGER_ADD_IMAGE_INFO:
        return OK
    obj = _named_object(call)
    if obj is None:
        return error(abi.ENOENT)
    if operation == abi.DEBUGGER_SET_NAME:
        raw = _bytes_at(call, 1, min(4 * max(call.words - 1, 0), _NAME_MAX_BYTES))
        obj.name_bytes = raw.split(b"\0")[0]
        obj.name = name_of(obj.name_bytes)
        if call.kernel.events is not None:
            call.kernel.events.names[obj.number] = obj.name
        if isinstance(obj, Task):
            obj.space.name = obj.name
        return OK
    if operation == abi.DEBUGGER_GLOBAL_ID:
        call.answer_word(0, obj.number)
        call.answer_word(1, 0)
        return make_tag(0, 2)
    if operation == abi.DEBUGGER_GET_NAME:
        known = obj.name_bytes or obj.name.encode()
        data = known[:_NAME_MAX_BYTES].ljust(_NAME_MAX_BYTES, b"\0")
        for index in range(0, _NAME_MAX_BYTES, 4):
            call.answer_word(index // 4, int.from_bytes(data[index : index + 4], "little"))
        return make_tag(0, _NAME_MAX_BYTES // 4)
    return error(abi.ENOSYS)


def _named_object(call: Call) -> KernelObject | None:
    """The object of the item behind the words; any kind will do."""
    position = call.words
    if call.items == 0 or position + 1 >= abi.UTCB_MR_WORDS:
        return None
    page = call.word(position + 1)
    cap = capspace.lookup(call.me.task, page >> abi.CAP_SHIFT)
    return cap.object if cap is not None else None
