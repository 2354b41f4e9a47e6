"""What the object protocols share: the call they get, the answers they give, item arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from l4lab.kernel import capspace
from l4lab.kernel.fiasco import abi, messages
from l4lab.kernel.fiasco.messages import make_tag

if TYPE_CHECKING:
    from collections.abc import Callable

    from l4lab.kernel.capability import KernelObject
    from l4lab.kernel.sched import Core
    from l4lab.kernel.state import Kernel
    from l4lab.kernel.thread import Thread

NO_REPLY: Final = -1
"""The operation is done and has no answer: a receive phase that was asked for follows."""
BLOCKED: Final = -2
"""The caller waits, or has had its registers replaced: nothing more is to be done for it now."""

OK: Final = make_tag(0)


@dataclass(slots=True)
class Call:
    """One invocation of a kernel object.

    `me`: the caller. `rights`, `extra`: of the capability used. `wants_reply`: a receive phase was
    asked for, so an answer may be written into the caller's message registers.
    """

    kernel: Kernel
    core: Core
    me: Thread
    tag: int
    rights: int
    extra: int
    wants_reply: bool

    @property
    def label(self) -> int:
        """The signed label."""
        return messages.label_of(self.tag)

    @property
    def words(self) -> int:
        """How many untyped words were sent."""
        return self.tag & abi.TAG_WORDS_MASK

    @property
    def items(self) -> int:
        """How many typed items were sent."""
        return self.tag >> abi.TAG_ITEMS_SHIFT & abi.TAG_ITEMS_MASK

    def word(self, index: int) -> int:
        """Message register `index` of the caller."""
        return self.kernel.words[self.me.utcb + index]

    def answer_word(self, index: int, value: int) -> None:
        """Write a message register of the answer; nothing if no answer is wanted."""
        if self.wants_reply:
            self.kernel.words[self.me.utcb + index] = value & 0xFFFFFFFF


if TYPE_CHECKING:
    Handler = Callable[[Call, KernelObject], int]


def error(number: int) -> int:
    """The answer that reports an errno."""
    return make_tag(-number)


def ipc_error(call: Call, code: int) -> int:
    """The answer that reports an IPC error of the send phase; delivered even if no answer is wanted."""
    call.kernel.words[call.me.utcb + messages.ERROR] = code
    return abi.TAG_ERROR


def object_argument(
    call: Call, kind: type | tuple[type, ...], right: int, *, missing: int = abi.EINVAL
) -> KernelObject | int:
    """The object that the message's first item names, or the answer that refuses it.

    `right`: what the caller's capability to it must have. `missing`: the errno for no or a void item.
    Ref: ABI sheet section 6, "Item argument of an operation".
    """
    position = call.words
    if call.items == 0 or position + 1 >= abi.UTCB_MR_WORDS or not call.word(position):
        return error(missing)
    page = call.word(position + 1)
    if not call.word(position) & abi.ITEM_MAP or page >> abi.FPAGE_TYPE_SHIFT & 3 != abi.FPAGE_TYPE_OBJECT:
        return ipc_error(call, abi.IPC_SEND_OVERFLOW)
    cap = capspace.lookup(call.me.task, page >> abi.CAP_SHIFT)
    if cap is None or not isinstance(cap.object, kind):
        return error(abi.EINVAL)
    if cap.rights & right != right:
        return error(abi.EPERM)
    return cap.object
