"""Fiasco.OC behind the kernel's door: every question of `kernel.interface` with this member's answer.

Each answer is a call of the module that knows it, or a number of `abi`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from l4lab.kernel.fiasco import abi, boot, fastpath, faults, kip, messages
from l4lab.kernel.fiasco.modules import module_list
from l4lab.kernel.fiasco.protocols import log
from l4lab.kernel.fiasco.threadstate import NEVER_SET, ThreadState, state_of
from l4lab.kernel.frame import EDX, UTCB_BASE
from l4lab.kernel.interface import (
    CANCELLED,
    NOT_EXISTENT,
    TIMED_OUT,
    BootModule,
    BootParameters,
    Interface,
    MemoryRange,
    Selectors,
    Tag,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from l4lab.kernel.capability import Capability
    from l4lab.kernel.costs import KernelCosts
    from l4lab.kernel.objects import Gate, Irq
    from l4lab.kernel.sched import Core
    from l4lab.kernel.state import Kernel
    from l4lab.kernel.thread import Thread
    from l4lab.kernel.traps import CpuException, PageFault

SELECTORS: Final = Selectors(
    code=0x1B,
    data=0x23,
    utcb=0x43,
    first_thread=abi.GDT_FIRST_USER_SELECTOR,
    thread_entries=abi.GDT_USER_ENTRIES,
)
OBJECT_INDEX_LIMIT: Final = 1 << 18
"""The real kernel's two levels hold 1024 pages of 256 slots; a selector could name more."""

_SEND_CODES: Final = {
    TIMED_OUT: abi.IPC_SEND_TIMEOUT,
    NOT_EXISTENT: abi.IPC_NOT_EXISTENT,
    CANCELLED: abi.IPC_SEND_CANCELLED,
}
_RECEIVE_CODES: Final = {
    TIMED_OUT: abi.IPC_RECEIVE_TIMEOUT,
    NOT_EXISTENT: abi.IPC_RECEIVE_NOT_EXISTENT,
    CANCELLED: abi.IPC_RECEIVE_CANCELLED,
}
_DOWN_CODES: Final = {**_RECEIVE_CODES, NOT_EXISTENT: abi.IPC_NOT_EXISTENT}
_NO_SLOT: Final = abi.CAP_INVALID_BIT | abi.CAP_EXPLICIT_REPLY_BIT
_RIGHTS_LETTERS: Final = (
    ("R", abi.OBJECT_RIGHT_R),
    ("W", abi.OBJECT_RIGHT_W),
    ("S", abi.OBJECT_RIGHT_S),
    ("D", abi.OBJECT_RIGHT_D),
)


class Fiasco(Interface):
    """The user interface of Fiasco.OC on ia32."""

    name = "Fiasco.OC"
    system_call_vector = abi.SYSTEM_CALL_VECTOR
    selectors = SELECTORS
    system_call_page = abi.SYSTEM_CALL_PAGE
    user_limit = abi.USER_LIMIT
    utcb_bytes = abi.UTCB_BYTES
    tick_us = abi.TICK_US
    default_quantum_us = abi.QUANTUM_DEFAULT_US
    max_cores = abi.SCHEDULER_MAX_CPUS
    object_index_limit = OBJECT_INDEX_LIMIT
    irq_priority = abi.IRQ_QUEUE_PRIORITY
    all_rights = abi.OBJECT_RIGHTS
    all_extra_rights = abi.ITEM_OBJECT_RIGHTS_MASK
    delete_right = abi.OBJECT_RIGHT_D
    protocols = MappingProxyType(
        {
            name[len("PROTO_") :].lower(): value
            for name, value in vars(abi).items()
            if name.startswith("PROTO_") and isinstance(value, int)
        }
    )

    # --- beginning ----------------------------------------------------------------------------------

    def module_list(self, address: int, modules: Sequence[BootModule]) -> bytes:
        return module_list(address, modules)

    def info_page(self, parameters: BootParameters, module_list: int, ranges: Sequence[MemoryRange]) -> bytes:
        return kip.build(parameters, module_list, ranges)

    def start(self, words: memoryview[int], parameters: BootParameters, costs: KernelCosts) -> Kernel:
        return boot.start(self, words, parameters, costs)

    def thread_state(self) -> ThreadState:
        return ThreadState()

    # --- entries ------------------------------------------------------------------------------------

    @property
    def system_call(self) -> Callable[[Kernel, Core, Thread], None]:
        return fastpath.system_call

    def page_fault(self, kernel: Kernel, core: Core, me: Thread, trap: PageFault) -> None:
        faults.page_fault(kernel, core, me, trap)

    def cpu_exception(self, kernel: Kernel, core: Core, me: Thread, trap: CpuException) -> None:
        faults.cpu_exception(kernel, core, me, trap)

    def raise_pending(self, kernel: Kernel, core: Core, me: Thread) -> None:
        faults.raise_pending(kernel, core, me)

    def show_clock(self, kernel: Kernel) -> None:
        """The clock stands in the kernel info page."""
        place = kernel.kip_word + abi.KIP_OFF_CLOCK // 4
        kernel.words[place] = kernel.clock_us & 0xFFFFFFFF
        kernel.words[place + 1] = kernel.clock_us >> 32

    # --- messages -----------------------------------------------------------------------------------

    def transfer(self, kernel: Kernel, sender: Thread, receiver: Thread) -> bool:
        return messages.transfer(kernel, sender, receiver)

    def tag(self, tag: int) -> Tag:
        items = tag >> abi.TAG_ITEMS_SHIFT & abi.TAG_ITEMS_MASK
        return Tag(messages.label_of(tag), tag & abi.TAG_WORDS_MASK, items)

    def notify(self, kernel: Kernel, receiver: Thread, irq: Irq) -> None:
        messages.deliver_irq(kernel, receiver, irq)

    def address_to(self, sender: Thread, gate: Gate) -> None:
        messages.address_to(sender, gate)

    def send_deadline_us(self, kernel: Kernel, thread: Thread) -> int:
        return messages.deadline_us(kernel, thread, messages.send_timeout(thread))

    def receive_deadline_us(self, kernel: Kernel, thread: Thread) -> int:
        return messages.deadline_us(kernel, thread, thread.receive_timeout)

    # --- results ------------------------------------------------------------------------------------

    def sent(self, kernel: Kernel, thread: Thread) -> None:
        messages.finish_send(kernel, thread)

    def send_queued(self, thread: Thread) -> None:
        messages.queue_up(thread)

    def send_failed(self, kernel: Kernel, thread: Thread, failure: int) -> None:
        messages.fail_send(kernel, thread, _SEND_CODES[failure])

    def receive_failed(self, kernel: Kernel, thread: Thread, failure: int) -> None:
        messages.fail_receive(kernel, thread, _RECEIVE_CODES[failure])

    def down_failed(self, kernel: Kernel, thread: Thread, failure: int) -> None:
        messages.fail_semaphore(kernel, thread, _DOWN_CODES[failure])

    def down_done(self, thread: Thread) -> None:
        messages.semaphore_obtained(thread)

    # --- UTCBs --------------------------------------------------------------------------------------

    def utcb_bound(self, kernel: Kernel, thread: Thread) -> None:
        """Its address stands in it, where the segment for UTCBs begins."""
        kernel.words[thread.utcb + messages.ADDRESS] = thread.utcb_address
        thread.frame[UTCB_BASE] = thread.utcb_address + abi.UTCB_ADDRESS

    def utcb_released(self, kernel: Kernel, thread: Thread) -> None:
        kernel.words[thread.utcb + messages.FREE_MARKER] = 0

    # --- names, for people --------------------------------------------------------------------------

    def answers(self, thread: Thread) -> bool:
        return bool(thread.frame[EDX] & abi.OP_REPLY)

    def named_slot(self, thread: Thread) -> int | None:
        selector = thread.frame[EDX]
        return None if selector & (_NO_SLOT | abi.OP_REPLY) else selector >> abi.CAP_SHIFT

    def object_name(self, given: bytes) -> str:
        return log.name_of(given)

    def rights_text(self, cap: Capability) -> str:
        return "".join(letter if cap.rights & bit else "-" for letter, bit in _RIGHTS_LETTERS)

    def message_words(self, kernel: Kernel, thread: Thread) -> list[int]:
        _, words, items = self.tag(thread.send_tag)
        end = thread.utcb + min(words + 2 * items, abi.UTCB_MR_WORDS)
        return kernel.words[thread.utcb : end].tolist()

    def handlers(self, thread: Thread) -> list[tuple[str, int | None]]:
        state = state_of(thread)
        named = (("pager", state.pager), ("exception handler", state.exception_handler))
        return [(what, index if index != NEVER_SET else None) for what, index in named]


FIASCO: Final = Fiasco()
