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


def is_too_short(call: Call, words: int) -> bool:
    """Whether a message lacks words. Too many words and items together count as too few, as on the real kernel."""
    return call.words < words or call.words + call.items > abi.UTCB_MR_WORDS


def first_item(call: Call) -> tuple[int, int] | None:
    """Control word and flexpage of the message's first item, both 0 if it is void; None if there is none."""
    position = call.words
    if call.items == 0 or position >= abi.UTCB_MR_WORDS:
        return None
    if not call.word(position):
        return 0, 0
    return None if position + 1 >= abi.UTCB_MR_WORDS else (call.word(position), call.word(position + 1))


def is_object_page(page_word: int) -> bool:
    """Whether a flexpage word is one of capabilities."""
    return page_word >> abi.FPAGE_TYPE_SHIFT & abi.FPAGE_TYPE_MASK == abi.FPAGE_TYPE_OBJECT


def named_object(call: Call, page_word: int, kind: type | tuple[type, ...], right: int) -> KernelObject | int:
    """The object in the first slot of a flexpage, or the answer that refuses it.

    `right`: what the caller's capability to it must have.
    """
    cap = capspace.lookup(call.me.task, page_word >> abi.CAP_SHIFT)
    if cap is None or not isinstance(cap.object, kind):
        return error(abi.EINVAL)
    if cap.rights & right != right:
        return error(abi.EPERM)
    return cap.object


def object_argument(call: Call, kind: type | tuple[type, ...], right: int) -> KernelObject | int:
    """The object that the message's first item names, or the answer that refuses it; see `named_object`.

    Nothing is asked of the item's control word but that it is not 0. Ref: ABI sheet section 6, "Item argument of
    an operation".
    """
    item = first_item(call)
    if item is None or not item[0]:
        return error(abi.EINVAL)
    if not is_object_page(item[1]):
        return ipc_error(call, abi.IPC_SEND_OVERFLOW)
    return named_object(call, item[1], kind, right)
