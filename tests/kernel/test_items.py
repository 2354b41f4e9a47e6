"""Typed items and receive buffers: ABI sheet section 6, from "Typed items, sender side" to "Rights reduction"."""

from __future__ import annotations

import pytest

from l4lab.kernel.capability import Capability
from l4lab.kernel.fiasco import abi
from support.kernel_world import World, cap, item, memory_page, object_page, tag

RECEIVER, TASK, GATE, IRQ = 20, 30, 22, 23
AT = 40  # slots of the receiver's task that messages aim at
SMALL = abi.BUFFER_ITEM | abi.BUFFER_SMALL


class Pair:
    """The root thread sends, a thread of another task receives."""

    def __init__(self) -> None:
        self.world = world = World()
        self.task = world.new_task(TASK)
        self.receiver = world.new_thread(RECEIVER, TASK, utcb=abi.BOOT_UTCB)
        world.create(IRQ, abi.PROTO_IRQ_SENDER)
        world.give_memory(0x400000)
        world.give_memory(0x401000)

    def send(
        self, *message: int, words: int = 0, buffers: tuple[int, ...] = (), bdr: int = 0, slot: int = RECEIVER
    ) -> tuple[int, int]:
        """Send items (after `words` untyped words); the error codes of sender and receiver."""
        world = self.world
        for thread in (world.root, self.receiver):
            world.ram[thread.utcb + abi.UTCB_ERROR // 4] = 0
        world.receive_buffers(self.receiver, *buffers, bdr=bdr)
        for index in range(16):
            world.ram[self.receiver.utcb + index] = 0xEEEEEEEE
        world.call(self.receiver, abi.CAP_INVALID, abi.OP_WAIT)
        items = (len(message) - words) // 2
        world.call(world.root, cap(slot), abi.OP_SEND, tag(0, words, items), *message)
        return world.answer(world.root).error, world.answer(self.receiver).error

    def slots(self) -> dict[int, Capability]:
        return self.task.capability_table.slots

    def described(self, count: int = 1, words: int = 0) -> list[int]:
        return self.world.message(self.receiver, words + 2 * count)[words:]


# --- sender side --------------------------------------------------------------------------------


def test_void_item() -> None:
    """Consumes one item and two words, no buffer; the receiver gets 0 in the first word, the second stays."""
    pair = Pair()
    log = item(abi.BOOT_CAP_LOG)
    assert pair.send(0, 0x123, *log, buffers=(AT << 12 | SMALL,)) == (0, 0)
    assert pair.described(2) == [0, 0xEEEEEEEE, 0x38, 0xEEEEEEEE]
    assert list(pair.slots()) == [AT]


@pytest.mark.parametrize(
    "bad", [(1, object_page(1)), (0x1000, object_page(1)), (abi.ITEM_MAP, 0), (8, 0xFC0)]
)
def test_malformed_items(bad: tuple[int, int]) -> None:
    """Bit 3 clear, or a flexpage of type 0: errors 8 and 9; earlier items stay, later ones are not looked at."""
    pair = Pair()
    log = item(abi.BOOT_CAP_LOG)
    codes = pair.send(
        *log, *bad, *log, buffers=(AT << 12 | SMALL, AT + 1 << 12 | SMALL, AT + 2 << 12 | SMALL)
    )
    assert codes == (abi.IPC_SEND_OVERFLOW, abi.IPC_RECEIVE_OVERFLOW)
    assert list(pair.slots()) == [AT]
    assert pair.described(3) == [0x38, 0xEEEEEEEE, *[0xEEEEEEEE] * 4]


def test_items_past_the_message_registers() -> None:
    """Errors 8 and 9: nothing is read behind MR[62]."""
    for words, items in ((62, 1), (63, 1), (63, 63), (61, 2)):
        pair = Pair()
        world = pair.world
        world.receive_buffers(pair.receiver, AT << 12 | SMALL)
        world.call(pair.receiver, abi.CAP_INVALID, abi.OP_WAIT)
        for index in range(63):
            world.ram[world.root.utcb + index] = 0
        world.call(world.root, cap(RECEIVER), abi.OP_SEND, tag(0, words, items))
        assert world.answer(world.root).error == abi.IPC_SEND_OVERFLOW
        assert world.answer(pair.receiver).error == abi.IPC_RECEIVE_OVERFLOW


def test_untyped_words_come_first() -> None:
    """Items stand behind them on both sides."""
    pair = Pair()
    assert pair.send(7, 8, 9, *item(abi.BOOT_CAP_LOG), words=3, buffers=(AT << 12 | SMALL,)) == (0, 0)
    assert pair.world.message(pair.receiver, 5) == [7, 8, 9, 0x38, 0xEEEEEEEE]


def test_grant_of_a_capability() -> None:
    """The sender's slot is empty afterwards."""
    pair = Pair()
    pair.world.give(abi.BOOT_CAP_TASK, 50, IRQ)
    pair.send(abi.ITEM_MAP | abi.ITEM_GRANT, object_page(50, 7), buffers=(AT << 12 | SMALL,))
    root = pair.world.root.task
    assert root is not None and 50 not in root.capability_table.slots
    assert pair.slots()[AT].object is pair.world.object(IRQ)


def test_weak_reference() -> None:
    """Not counted: the object dies with the counted one."""
    pair = Pair()
    pair.send(abi.ITEM_MAP | abi.ITEM_WEAK, object_page(IRQ, 7), buffers=(AT << 12 | SMALL,))
    assert not pair.slots()[AT].counted
    pair.world.unmap(abi.BOOT_CAP_TASK, object_page(IRQ, 4))
    assert AT not in pair.slots()


# --- descriptions -------------------------------------------------------------------------------


def test_description_of_a_mapping() -> None:
    """Send base, compound bit, flexpage type and size; kind 0."""
    pair = Pair()
    first = 0x7000 | abi.ITEM_MAP | abi.ITEM_COMPOUND | abi.ITEM_GRANT | 0x50
    page = memory_page(0x400000, 12)
    pair.send(first, page, buffers=(abi.BUFFER_ITEM, abi.FPAGE_ALL))
    assert pair.described() == [0x7000 | 1 | abi.ITEM_MAP | page & 0xFF0, 0xEEEEEEEE]
    assert pair.task.space.pages[0x7].pfn == 0x400


@pytest.mark.parametrize(
    "page", [object_page(99), object_page(IRQ, 3), memory_page(0x900000), memory_page(0x400000, 12, 0)]
)
def test_description_of_nothing(page: int) -> None:
    """Empty slot, R missing, unmapped page, no rights: kind 2, no error."""
    pair = Pair()
    assert pair.send(abi.ITEM_MAP, page, buffers=(abi.BUFFER_ITEM, abi.FPAGE_ALL)) == (0, 0)
    assert pair.described()[0] & 6 == abi.ITEM_KIND_NOTHING
    assert not pair.slots() and not pair.task.space.pages


# --- buffers ------------------------------------------------------------------------------------


def test_no_buffer() -> None:
    """BR[BDR index] is zero, or has no item bit: 8 and 9; the words have been transferred."""
    for buffers in ((), (AT << 12 | abi.BUFFER_SMALL,), (1, object_page(AT))):
        pair = Pair()
        codes = pair.send(5, *item(abi.BOOT_CAP_LOG), words=1, buffers=buffers)
        assert codes == (abi.IPC_SEND_OVERFLOW, abi.IPC_RECEIVE_OVERFLOW)
        assert pair.world.message(pair.receiver, 1) == [5]


def test_each_kind_has_its_own_buffers() -> None:
    """The BDR's three indices; each iterator advances by itself."""
    pair = Pair()
    buffers = (abi.BUFFER_ITEM, memory_page(0x800000), 0, AT << 12 | SMALL, AT + 1 << 12 | SMALL, 0)
    message = (
        *item(abi.BOOT_CAP_LOG), 0x5000 | abi.ITEM_MAP, memory_page(0x400000), *item(IRQ, 7),
    )  # fmt: skip
    assert pair.send(*message, buffers=buffers, bdr=3 << 10) == (0, 0)
    assert sorted(pair.slots()) == [AT, AT + 1]
    assert list(pair.task.space.pages) == [0x800]


def test_compound_items_share_a_buffer() -> None:
    """The iterator does not advance; with an "all" window the send bases tell them apart."""
    pair = Pair()
    first = (cap(AT + 3) | abi.ITEM_MAP | abi.ITEM_COMPOUND, object_page(abi.BOOT_CAP_LOG))
    second = (cap(AT + 4) | abi.ITEM_MAP, object_page(IRQ, 7))
    assert pair.send(*first, *second, buffers=(abi.BUFFER_ITEM, abi.FPAGE_ALL)) == (0, 0)
    assert sorted(pair.slots()) == [AT + 3, AT + 4]
    third = pair.send(*second, *second, buffers=(abi.BUFFER_ITEM, abi.FPAGE_ALL))
    assert third == (abi.IPC_SEND_OVERFLOW, abi.IPC_RECEIVE_OVERFLOW)


def test_buffer_of_another_type() -> None:
    """Its own type is not checked: no error, nothing mapped, and the description still says kind 0."""
    pair = Pair()
    assert pair.send(0x5000 | abi.ITEM_MAP, memory_page(0x400000), buffers=(AT << 12 | SMALL,)) == (0, 0)
    assert pair.described()[0] & 6 == abi.ITEM_KIND_MAPPED
    assert not pair.slots() and not pair.task.space.pages


def test_buffers_end_with_the_registers() -> None:
    """A buffer whose words would lie behind BR[57] is none; nothing beyond is read."""
    pair = Pair()
    world = pair.world
    world.ram[pair.receiver.utcb + abi.UTCB_BR // 4 + 57] = abi.BUFFER_ITEM
    registers = (*[0] * 31, AT << 12 | SMALL)
    assert pair.send(*item(abi.BOOT_CAP_LOG), buffers=registers, bdr=31 << 10) == (0, 0)
    assert list(pair.slots()) == [AT]


def test_forwarded_mapping() -> None:
    """Bit 0: one more word names the task that gets the mapping; needs W on it."""
    pair = Pair()
    world = pair.world
    other = world.new_task(TASK + 1)
    for rights, expected in ((7, (0, 0)), (4, (8, 9))):
        world.give(TASK, 5, TASK + 1, rights)
        buffers = (AT << 12 | SMALL | abi.BUFFER_FORWARD, cap(5))
        assert pair.send(*item(abi.BOOT_CAP_LOG), buffers=buffers) == expected
        assert pair.slots().keys() == {5}
    assert list(other.capability_table.slots) == [AT]


@pytest.mark.parametrize("selector", [abi.CAP_INVALID, cap(99), cap(6)])
def test_forwarding_to_nothing(selector: int) -> None:
    """No task there: 8 and 9."""
    pair = Pair()
    pair.world.give(TASK, 6, IRQ)
    buffers = (AT << 12 | SMALL | abi.BUFFER_FORWARD, selector)
    assert pair.send(*item(abi.BOOT_CAP_LOG), buffers=buffers) == (8, 9)


# --- local ids ----------------------------------------------------------------------------------

LOCAL = AT << 12 | SMALL | abi.BUFFER_LOCAL_ID


def test_own_gate_arrives_as_its_label() -> None:
    """Kind 4, label | rights of capability and flexpage; nothing is mapped. Client or server view alike."""
    for extra in (abi.ITEM_OBJECT_RIGHTS_MASK, 0):
        for rights, shown in ((7, 3), (5, 1), (6, 2), (4, 0)):
            pair = Pair()
            pair.world.new_gate(GATE, RECEIVER, 0x1230)
            words = (abi.TASK_MAP, cap(50) | extra, object_page(GATE, 7))
            pair.world.object_call(abi.BOOT_CAP_TASK, abi.PROTO_TASK, *words, items=item(abi.BOOT_CAP_TASK))
            assert pair.send(abi.ITEM_MAP, object_page(50, rights), buffers=(LOCAL,)) == (0, 0)
            assert pair.described() == [0x3C, 0x1230 | shown]
            assert not pair.slots()


def test_others_are_mapped() -> None:
    """Gates of others, unbound gates, IRQ objects, threads: kind 0."""
    pair = Pair()
    world = pair.world
    world.new_thread(21)
    world.new_gate(GATE, 21, 0x100)
    world.new_gate(GATE + 10)
    for slot in (GATE, GATE + 10, IRQ, RECEIVER):
        assert pair.send(*item(slot, 7), buffers=(LOCAL,)) == (0, 0)
        assert pair.described() == [0x38, 0xEEEEEEEE]
        assert pair.slots()[AT].object is world.object(slot)


def test_inside_a_task_the_flexpage_arrives() -> None:
    """Kind 6, the rights-masked flexpage word, without looking at the capability."""
    world = World()
    receiver = world.new_thread(RECEIVER)
    world.receive_buffers(receiver, LOCAL)
    world.call(receiver, abi.CAP_INVALID, abi.OP_WAIT)
    world.call(world.root, cap(RECEIVER), abi.OP_SEND, tag(0, 0, 1), abi.ITEM_MAP, object_page(999, 7))
    assert world.message(receiver, 2) == [0x3E, object_page(999, 7)]


def test_local_id_advances_the_iterator() -> None:
    """Like a mapping does."""
    pair = Pair()
    pair.world.new_gate(GATE, RECEIVER, 0x1230)
    gate, log = item(GATE, 7), item(abi.BOOT_CAP_LOG)
    assert pair.send(*gate, *log, buffers=(LOCAL, AT + 1 << 12 | SMALL)) == (0, 0)
    assert pair.described(2)[0::2] == [0x3C, 0x38]
    assert list(pair.slots()) == [AT + 1]


# --- rights -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("used", "special"), [(7, True), (5, False), (6, True), (4, False)])
def test_objects_sent_without_s_lose_s(used: int, special: bool) -> None:
    """Mask: rights of the IPC capability | R W D; W is never masked."""
    pair = Pair()
    pair.world.give(abi.BOOT_CAP_TASK, 50, RECEIVER, used)
    pair.send(*item(IRQ), buffers=(AT << 12 | SMALL,), slot=50)
    assert pair.slots()[AT].rights == abi.OBJECT_RIGHTS & ~(0 if special else abi.OBJECT_RIGHT_S)


@pytest.mark.parametrize("rights", [4, 5, 6, 7, 12, 15])
def test_rights_are_those_of_both(rights: int) -> None:
    """The sender's capability and the flexpage."""
    pair = Pair()
    pair.world.give(abi.BOOT_CAP_TASK, 50, IRQ, 13)
    pair.send(*item(50, rights), buffers=(AT << 12 | SMALL,))
    assert pair.slots()[AT].rights == 13 & rights


@pytest.mark.parametrize("rights", [4, 5, 6, 7])
def test_label_bits_of_a_gate(rights: int) -> None:
    """The low two bits of the label show W and S of the capability used, never more."""
    pair = Pair()
    pair.world.new_gate(GATE, RECEIVER, 0x1230)
    pair.world.give(abi.BOOT_CAP_TASK, 50, GATE, rights)
    pair.send(slot=50)
    assert pair.world.answer(pair.receiver).label == 0x1230 | rights & 3


def test_object_specific_rights() -> None:
    """Dropped unless the control word carries them."""
    pair = Pair()
    pair.world.new_gate(GATE, None)
    for control, expected in ((0, 0), (0x20, 0x20), (0xE0, 0xE0)):
        pair.send(abi.ITEM_MAP | control, object_page(GATE, 7), buffers=(AT << 12 | SMALL,))
        assert pair.slots()[AT].extra == expected


# --- placement of capabilities ------------------------------------------------------------------


def test_window_of_capabilities() -> None:
    """A range of slots lands in a window at the hot spot; empty ones are skipped."""
    pair = Pair()
    for slot in (0x50, 0x51, 0x53):
        pair.world.give(abi.BOOT_CAP_TASK, slot, IRQ)
    control = cap(0x14) | abi.ITEM_MAP
    window = object_page(0x60, 7, order=4)
    assert pair.send(control, object_page(0x50, 7, order=2), buffers=(abi.BUFFER_ITEM, window)) == (0, 0)
    assert sorted(pair.slots()) == [0x64, 0x65, 0x67]


def test_small_window_takes_a_part() -> None:
    """Of a larger send flexpage the hot spot chooses which."""
    pair = Pair()
    for slot in (0x50, 0x51, 0x53):
        pair.world.give(abi.BOOT_CAP_TASK, slot, IRQ)
    control = cap(0x53) | abi.ITEM_MAP
    pair.send(control, object_page(0x50, 7, order=2), buffers=(AT << 12 | SMALL,))
    assert list(pair.slots()) == [AT]


def test_index_zero_is_a_slot_like_any_other() -> None:
    """As on the real kernel."""
    pair = Pair()
    pair.send(abi.ITEM_MAP, object_page(IRQ, 7), buffers=(SMALL,))
    assert list(pair.slots()) == [0]
