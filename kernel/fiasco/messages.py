"""What a message is on this interface: UTCBs, tags, timeouts, error codes, results.

`kernel.ipc` decides who meets whom; this module moves the words and writes the results. Typed items are in
`items`.

Source: ABI sheet sections 3, 4, 6. Register results are the **[run2]** list of section 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from l4lab.kernel import requests
from l4lab.kernel.costs import COPY
from l4lab.kernel.fiasco import abi, items
from l4lab.kernel.frame import EAX, ECX, ESI
from l4lab.kernel.interface import EXPIRED, NEVER
from l4lab.kernel.state import CopyFpu

if TYPE_CHECKING:
    from l4lab.kernel.objects import Gate, Irq
    from l4lab.kernel.state import Kernel
    from l4lab.kernel.thread import Thread

MR: Final = abi.UTCB_MR // 4
BDR: Final = abi.UTCB_BDR // 4
BR: Final = abi.UTCB_BR // 4
ERROR: Final = abi.UTCB_ERROR // 4
FREE_MARKER: Final = abi.UTCB_FREE_MARKER // 4
ADDRESS: Final = abi.UTCB_ADDRESS // 4

FPU_STATE_WORDS: Final = 128
"""What FXSAVE writes. Ref: Intel SDM vol. 1, 10.5.1."""


def label_of(tag: int) -> int:
    """The signed label of a tag."""
    return (tag >> 16 & 0xFFFF ^ 0x8000) - 0x8000


def make_tag(label: int, words: int = 0, item_count: int = 0) -> int:
    """A tag without flags."""
    return (label & 0xFFFF) << 16 | item_count << 6 | words


# --- timeouts -----------------------------------------------------------------------------------


def send_timeout(thread: Thread) -> int:
    """The send timeout of the operation in flight, as encoded; the kernel's own messages wait forever."""
    return 0 if thread.kernel_message is not None else thread.frame[ECX] >> 16


def deadline_us(kernel: Kernel, thread: Thread, encoded: int) -> int:
    """When an encoded timeout is over, in microseconds since boot, or NEVER or EXPIRED.

    Ref: ABI sheet section 4, "Timeouts". Absolute times stand in the thread's buffer registers.
    """
    if encoded == 0:
        return NEVER
    if encoded & abi.TIMEOUT_ABSOLUTE:
        index = min(encoded & abi.TIMEOUT_BR_MASK, abi.TIMEOUT_BR_MAX)
        position = thread.utcb + BR + index
        deadline = kernel.words[position] | kernel.words[position + 1] << 32
    else:
        exponent = encoded >> abi.TIMEOUT_EXPONENT_SHIFT & abi.TIMEOUT_EXPONENT_MASK
        deadline = kernel.clock_us + ((encoded & abi.TIMEOUT_MANTISSA_MASK) << exponent)
    return deadline if deadline > kernel.clock_us else EXPIRED


# --- results ------------------------------------------------------------------------------------


def fail_send(kernel: Kernel, thread: Thread, code: int) -> None:
    """The send phase failed; there is no receive phase."""
    if thread.kernel_message is not None:
        thread.kernel_message.failed(kernel, thread, code)
        return
    if thread.began:
        requests.end(kernel, thread, code)
    kernel.words[thread.utcb + ERROR] = code
    thread.frame[EAX] = abi.TAG_ERROR


def fail_receive(kernel: Kernel, thread: Thread, code: int) -> None:
    """The receive phase ended without message: the sent tag comes back, marked."""
    if thread.held_by is not None:
        thread.held_by.clear()
    if thread.kernel_message is not None:
        thread.kernel_message.failed(kernel, thread, code)
        return
    if thread.began:
        requests.end(kernel, thread, code)
    kernel.words[thread.utcb + ERROR] = code
    thread.frame[EAX] = thread.send_tag | abi.TAG_ERROR


def fail_semaphore(kernel: Kernel, thread: Thread, code: int) -> None:
    """A down on a semaphore failed."""
    kernel.words[thread.utcb + ERROR] = code
    thread.frame[EAX] = abi.TAG_ERROR


def semaphore_obtained(thread: Thread) -> None:
    """A down that had to wait has got the semaphore: label 0."""
    thread.frame[EAX] = 0


def finish_send(kernel: Kernel, thread: Thread) -> None:
    """A send-only operation is done: the sent tag comes back as it is; see `queue_up`."""
    if thread.began:
        requests.end(kernel, thread)


def queue_up(thread: Thread) -> None:
    """A message has to wait for its receiver: only then bit 15 of its tag, if it was set, does not come back."""
    if thread.kernel_message is None:
        thread.frame[EAX] = thread.send_tag


def deliver_irq(kernel: Kernel, receiver: Thread, irq: Irq) -> None:
    """An IRQ message: no words, its label (ABI sheet section 6)."""
    if kernel.events is not None:
        requests.notified(kernel, kernel.events, irq, receiver, irq.label, irq.fired_cycles)
    receiver.frame[EAX] = 0
    receiver.frame[ESI] = irq.label


def address_to(sender: Thread, gate: Gate) -> None:
    """The message of `sender` goes through `gate`: the receiver sees the gate's label and the rights used."""
    sender.send_label = gate.label | sender.send_rights & abi.LABEL_RIGHTS_MASK


# --- transfer -----------------------------------------------------------------------------------


def transfer(kernel: Kernel, sender: Thread, receiver: Thread) -> bool:
    """Move the message of `sender` to `receiver`, who gets its result; False if an item failed.

    On failure both have their error codes. The sender's own result is the caller's business.
    """
    tag = sender.send_tag
    sender.ipc_count += 1
    if kernel.events is not None:
        requests.pass_on(kernel, kernel.events, sender, receiver, tag)
    if receiver.kernel_message is not None:
        return receiver.kernel_message.take_answer(kernel, sender, receiver)
    count = tag & abi.TAG_WORDS_MASK
    item_count = tag >> abi.TAG_ITEMS_SHIFT & abi.TAG_ITEMS_MASK
    if count:
        kernel.bill[COPY] += count * kernel.costs.copy_word
        words = kernel.words
        target = receiver.utcb
        if sender.kernel_message is not None:
            for index, word in enumerate(sender.kernel_message.words):
                words[target + index] = word
        else:
            source = sender.utcb
            words[target : target + count] = words[source : source + count]
    frame = receiver.frame
    frame[ESI] = sender.send_label
    if item_count:
        code = items.transfer(kernel, sender, receiver, count, item_count)
        if code:
            kernel.words[receiver.utcb + ERROR] = code | 1
            frame[EAX] = tag | abi.TAG_ERROR
            fail_send(kernel, sender, code)
            return False
    if tag & abi.TAG_FPU and kernel.words[receiver.utcb + BDR] & abi.BDR_ACCEPT_FPU:
        transfer_fpu(kernel, sender, receiver)
    frame[EAX] = tag
    return True


def transfer_fpu(kernel: Kernel, sender: Thread, receiver: Thread) -> None:
    """The message brings the sender's x87/SSE state, if the capability used has the S right (section 9)."""
    if sender.send_rights & abi.OBJECT_RIGHT_S:
        kernel.bill[COPY] += FPU_STATE_WORDS * kernel.costs.copy_word
        kernel.effects.append(CopyFpu(sender.frame, receiver.frame))
