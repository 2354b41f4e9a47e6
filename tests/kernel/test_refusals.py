"""What kernel objects refuse, with which code, in which order: ABI sheet sections 6 and 11.

One table for each object: the message, and the answer's label (0 and positive: success). The order of
the checks shows in messages that are wrong in two ways.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from l4lab.kernel.fiasco import abi
from support.kernel_world import World, cap, item, memory_page, object_page, tag

IPC_8 = -2008
"""The IPC error 8: EAX is the error bit."""
IPC_9 = -2009

THREAD, GATE, IRQ, SEMAPHORE, FACTORY, TASK, UNBOUND, STARTED = 20, 21, 22, 23, 24, 25, 26, 27
WEAKER = 0x40
"""Slots with the same objects as 0x40 lower, but with the right R only."""
EMPTY = 0x3F
FRESH = 0x38


class Case(NamedTuple):
    """`slot`: the object called. `words`, `items`: the message. `expected`: label, or minus 2000 + IPC error."""

    name: str
    slot: int
    label: int
    words: tuple[int, ...]
    items: tuple[int, ...]
    expected: int


def furnished() -> World:
    """One of each kind of object in root's table, and an R-only capability to each besides."""
    world = World()
    world.new_thread(STARTED)
    world.create(THREAD, abi.PROTO_THREAD)
    world.new_gate(GATE, STARTED, 0x100)
    world.create(IRQ, abi.PROTO_IRQ_SENDER)
    world.create(SEMAPHORE, abi.PROTO_SEMAPHORE)
    world.create(FACTORY, abi.PROTO_FACTORY, 0x100000)
    world.new_task(TASK)
    world.new_gate(UNBOUND)
    for slot in (THREAD, GATE, IRQ, SEMAPHORE, FACTORY, TASK, abi.BOOT_CAP_SCHEDULER, abi.BOOT_CAP_LOG):
        world.give(abi.BOOT_CAP_TASK, WEAKER + slot, slot, abi.OBJECT_RIGHT_R)
    world.receive_buffers(world.root, FRESH << 12 | abi.BUFFER_ITEM | abi.BUFFER_SMALL)
    return world


NO_OBJECT = (abi.ITEM_MAP, memory_page(0x400000))
VOID = (0, 0)


def arguments(slot: int, label: int, words: tuple[int, ...], weak: int, right: int) -> list[Case]:
    """An operation that names an object by an item: what can be wrong with that (section 6, "Item argument")."""
    name = f"argument of {label}:{words[0]:#x}"
    cases = [
        Case(f"{name} missing", slot, label, words, (), -abi.EINVAL),
        Case(f"{name} void", slot, label, words, VOID, -abi.EINVAL),
        Case(f"{name} not an object page", slot, label, words, NO_OBJECT, IPC_8),
        Case(f"{name} empty slot", slot, label, words, item(EMPTY), -abi.EINVAL),
        Case(f"{name} of the wrong type", slot, label, words, item(abi.BOOT_CAP_FACTORY), -abi.EINVAL),
    ]
    if right:
        cases.append(Case(f"{name} without the right", slot, label, words, item(weak), -abi.EPERM))
    return cases


def protocol(slot: int, label: int, *, right: bool, empty: int, unknown: int = 0x77) -> list[Case]:
    """The checks that come before any operation: label, right, word count, opcode."""
    cases = [
        Case(f"{label} wrong label", slot, 5, (), (), -abi.EBADPROTO),
        Case(f"{label} no words", slot, label, (), (), empty),
        Case(f"{label} unknown opcode", slot, label, (unknown,), (), -abi.ENOSYS),
    ]
    if right:
        weak = WEAKER + slot
        cases += [
            Case(f"{label} wrong label before right", weak, 5, (), (), -abi.EBADPROTO),
            Case(f"{label} right before words", weak, label, (), (), -abi.EPERM),
            Case(f"{label} right before opcode", weak, label, (unknown,), (), -abi.EPERM),
        ]
    return cases


F, T, S = abi.PROTO_FACTORY, abi.PROTO_TASK, abi.PROTO_SCHEDULER
FACTORY_CASES = [
    *(
        case
        for case in protocol(FACTORY, F, right=True, empty=-abi.EMSGTOOSHORT)
        if "opcode" not in case.name
    ),
    Case("unknown type", FACTORY, F, (99,), (), -abi.ENODEV),
    Case("unknown negative type", FACTORY, F, (-99,), (), -abi.ENODEV),
    Case("virtual machines", FACTORY, F, (abi.PROTO_VM,), (), -abi.ENODEV),
    Case("DMA spaces", FACTORY, F, (abi.PROTO_DMA_SPACE,), (), -abi.ENODEV),
    Case("vCPU contexts", FACTORY, F, (abi.PROTO_VCPU_CONTEXT,), (), -abi.ENODEV),
    Case("gate", FACTORY, F, (0,), (), 0),
    Case("gate, other name", FACTORY, F, (abi.PROTO_KOBJECT,), (), 0),
    Case("bound gate", FACTORY, F, (0, 0, 0x10), item(STARTED), 0),
    Case("gate item but too few words", FACTORY, F, (0, 0), item(STARTED), -abi.EMSGTOOSHORT),
    Case("gate label", FACTORY, F, (0, 0, 0x11), item(STARTED), -abi.EINVAL),
    Case("gate not an object page", FACTORY, F, (0, 0, 0x10), NO_OBJECT, -abi.EINVAL),
    Case("gate not a thread", FACTORY, F, (0, 0, 0x10), item(IRQ), -abi.EINVAL),
    Case("gate thread without S", FACTORY, F, (0, 0, 0x10), item(WEAKER + THREAD), -abi.EPERM),
    Case("task too short", FACTORY, F, (T, 0), (), -abi.EINVAL),
    Case("task", FACTORY, F, (T, 0, 0), (), 0),
    Case("task area not memory", FACTORY, F, (T, 0, object_page(5)), (), -abi.EINVAL),
    Case("task area too small", FACTORY, F, (T, 0, memory_page(0x400000, 11)), (), -abi.EINVAL),
    Case("task area too large", FACTORY, F, (T, 0, memory_page(0x400000, 18)), (), -abi.EINVAL),
    Case("task area in the kernel", FACTORY, F, (T, 0, memory_page(0xC0000000, 12)), (), -abi.EINVAL),
    Case("factory too short", FACTORY, F, (F, 0), (), -abi.EMSGTOOSHORT),
    Case("factory too long", FACTORY, F, (F, 0, 1, 0), (), -abi.EMSGTOOLONG),
    Case("factory with item", FACTORY, F, (F, 0, 1), item(1), -abi.EMSGTOOLONG),
    Case("factory limit zero", FACTORY, F, (F, 0, 0), (), -abi.ENOMEM),
    Case("factory limit too large", FACTORY, F, (F, 0, 0x7FFFFFFF), (), -abi.ENOMEM),
    Case("factory larger than its parent", FACTORY, F, (F, 0, 0x7FFFFFFE), (), -abi.ENOMEM),
    Case("factory", FACTORY, F, (F, 0, 0x1000), (), 0),
    Case("thread", FACTORY, F, (abi.PROTO_THREAD,), (), 0),
    Case("irq", FACTORY, F, (abi.PROTO_IRQ_SENDER,), (), 0),
    Case("semaphore", FACTORY, F, (abi.PROTO_SEMAPHORE,), (), 0),
]

MAP = (abi.TASK_MAP, 0, object_page(abi.BOOT_CAP_LOG))
TASK_CASES = [
    Case("wrong label", TASK, 5, (0,), (), -abi.EBADPROTO),
    Case("unknown opcode", TASK, T, (0x77,), (), -abi.ENOSYS),
    Case("opcode is the whole word", TASK, T, (0x10000 | abi.TASK_CAP_INFO, 0), (), -abi.ENOSYS),
    Case("ldt", TASK, T, (abi.TASK_LDT_SET, 0), (), -abi.ENOSYS),
    Case("map without W", WEAKER + TASK, T, MAP, item(abi.BOOT_CAP_TASK), -abi.EPERM),
    Case("map", TASK, T, MAP, item(abi.BOOT_CAP_TASK), 0),
    *(
        case
        for case in arguments(TASK, T, MAP, 0, 0)
        if "type" not in case.name and "map item" not in case.name
    ),
    Case("map from no task", TASK, T, MAP, item(IRQ), -abi.EINVAL),
    Case("map of nothing", TASK, T, (abi.TASK_MAP, 0, object_page(EMPTY)), item(abi.BOOT_CAP_TASK), 0),
    Case("unmap needs no right", WEAKER + TASK, T, (abi.TASK_UNMAP, 0, memory_page(0)), (), 0),
    Case("unmap of an empty slot", TASK, T, (abi.TASK_UNMAP, abi.UNMAP_SELF, object_page(EMPTY)), (), 0),
    Case("cap valid", abi.BOOT_CAP_TASK, T, (abi.TASK_CAP_INFO, cap(GATE)), (), 1),
    Case("cap not valid", abi.BOOT_CAP_TASK, T, (abi.TASK_CAP_INFO, cap(EMPTY)), (), 0),
    Case("special selector", abi.BOOT_CAP_TASK, T, (abi.TASK_CAP_INFO, abi.CAP_INVALID), (), 0),
    Case("cap info, 1 word", TASK, T, (abi.TASK_CAP_INFO,), (), -abi.EINVAL),
    Case("cap info, 4 words", TASK, T, (abi.TASK_CAP_INFO, 0, 0, 0), (), -abi.EINVAL),
    Case("equal", abi.BOOT_CAP_TASK, T, (abi.TASK_CAP_INFO, cap(GATE), cap(GATE)), (), 1),
    Case(
        "equal, fewer rights", abi.BOOT_CAP_TASK, T, (abi.TASK_CAP_INFO, cap(IRQ), cap(WEAKER + IRQ)), (), 0
    ),
    Case("equal, both empty", abi.BOOT_CAP_TASK, T, (abi.TASK_CAP_INFO, cap(EMPTY), cap(EMPTY + 64)), (), 1),
    Case("equal, special", abi.BOOT_CAP_TASK, T, (abi.TASK_CAP_INFO, 0x800, 0x801), (), 1),
    Case("ku memory", TASK, T, (abi.TASK_ADD_KU_MEM, memory_page(0x400000)), (), 0),
    Case("ku memory exists", TASK, T, (abi.TASK_ADD_KU_MEM, memory_page(abi.BOOT_UTCB)), (), -abi.EEXIST),
    Case("ku memory no memory", TASK, T, (abi.TASK_ADD_KU_MEM, object_page(5)), (), -abi.EINVAL),
    Case("ku memory too small", TASK, T, (abi.TASK_ADD_KU_MEM, memory_page(0x400000, 11)), (), -abi.EINVAL),
    Case("ku memory too large", TASK, T, (abi.TASK_ADD_KU_MEM, memory_page(0x400000, 18)), (), -abi.EINVAL),
    Case("ku memory in the kernel", TASK, T, (abi.TASK_ADD_KU_MEM, memory_page(0xC0000000)), (), -abi.EINVAL),
]

RUN = (abi.SCHEDULER_RUN_THREAD, 0, 1, 1, 0)
SCHEDULER = abi.BOOT_CAP_SCHEDULER
SCHEDULER_CASES = [
    *protocol(SCHEDULER, S, right=False, empty=-abi.EMSGTOOSHORT),
    Case("no right needed", WEAKER + SCHEDULER, S, (abi.SCHEDULER_INFO, 0), (), 0),
    Case("info too short", SCHEDULER, S, (abi.SCHEDULER_INFO,), (), -abi.EMSGTOOSHORT),
    Case("info beyond", SCHEDULER, S, (abi.SCHEDULER_INFO, 0xFFFFFF), (), -abi.ERANGE),
    Case("run too short", SCHEDULER, S, RUN[:4], item(STARTED), -abi.EINVAL),
    *arguments(SCHEDULER, S, RUN, 0, 0),
    Case("run priority 0", SCHEDULER, S, (*RUN[:3], 0, 0), item(STARTED), -abi.EINVAL),
    Case("run class", SCHEDULER, S, (*RUN[:3], -2, 12, 0, 1), item(STARTED), -abi.ERANGE),
    Case("run class too short", SCHEDULER, S, (*RUN[:3], -1, 20, 0, 1), item(STARTED), -abi.EINVAL),
    Case("run class, priority", SCHEDULER, S, (*RUN[:3], -1, 24, 0, 1), item(STARTED), 0),
    Case("run, priority too high", SCHEDULER, S, (*RUN[:3], 1000, 0), item(THREAD), 0),
    Case("run nowhere", SCHEDULER, S, (abi.SCHEDULER_RUN_THREAD, 0, 0, 1, 0), item(THREAD), 0),
    Case("idle too short", SCHEDULER, S, (abi.SCHEDULER_IDLE_TIME, 0), (), -abi.EMSGTOOSHORT),
    Case("idle of no core", SCHEDULER, S, (abi.SCHEDULER_IDLE_TIME, 0, 0), (), -abi.EINVAL),
    Case("idle", SCHEDULER, S, (abi.SCHEDULER_IDLE_TIME, 0, 1), (), 0),
]

K = abi.PROTO_KOBJECT
BIND = (abi.ENDPOINT_BIND, 0x40)
GATE_CASES = [
    Case("no words", GATE, K, (), (), -abi.EINVAL),
    Case("unknown opcode", GATE, K, (0x77,), (), -abi.ENOSYS),
    Case("bind too short", GATE, K, (abi.ENDPOINT_BIND,), item(STARTED), -abi.EMSGTOOSHORT),
    Case("bind label", GATE, K, (abi.ENDPOINT_BIND, 0x41), item(STARTED), -abi.EINVAL),
    *arguments(GATE, K, BIND, WEAKER + THREAD, abi.OBJECT_RIGHT_S),
    Case("bind", GATE, K, BIND, item(STARTED), 0),
    Case("info", GATE, K, (abi.GATE_GET_INFO,), (), 0),
    Case("count too short", GATE, K, (abi.KOBJECT_DEC_REFCNT,), (), -abi.EINVAL),
]

TRIGGER, Q = abi.PROTO_IRQ, abi.PROTO_IRQ_SENDER
IRQ_CASES = [
    Case("wrong label", IRQ, 5, (0,), (), -abi.EBADPROTO),
    Case("no words before wrong label", IRQ, 5, (), (), -abi.EINVAL),
    Case("no words", IRQ, Q, (), (), -abi.EINVAL),
    Case("no words to bind", IRQ, K, (), (), -abi.EINVAL),
    Case("unknown opcode", IRQ, Q, (0x77,), (), -abi.ENOSYS),
    Case("unknown opcode to bind", IRQ, K, (0x77,), (), -abi.ENOSYS),
    Case("unknown opcode to trigger", IRQ, TRIGGER, (0x77,), (), -abi.ENOSYS),
    Case("vcpu", IRQ, Q, (abi.IRQ_SENDER_BIND_VCPU,), (), -abi.ENOSYS),
    Case("detach without S", WEAKER + IRQ, Q, (abi.IRQ_SENDER_DETACH,), (), -abi.EPERM),
    Case("detach unbound", IRQ, Q, (abi.IRQ_SENDER_DETACH,), (), -abi.ENOENT),
    Case("bind without S", WEAKER + IRQ, K, BIND, item(STARTED), -abi.EPERM),
    *arguments(IRQ, K, BIND, WEAKER + THREAD, abi.OBJECT_RIGHT_S),
    Case("bind, label with low bits", IRQ, K, (abi.ENDPOINT_BIND, 0x43), item(STARTED), 0),
]

P = abi.PROTO_SEMAPHORE
SEMAPHORE_CASES = [
    Case("wrong label", SEMAPHORE, 5, (0,), (), -abi.EBADPROTO),
    Case("no words before wrong label", SEMAPHORE, 5, (), (), -abi.EINVAL),
    Case("no words", SEMAPHORE, P, (), (), -abi.EINVAL),
    Case("unknown opcode", SEMAPHORE, P, (0x77,), (), -abi.ENOSYS),
    Case("down without S", WEAKER + SEMAPHORE, P, (abi.SEMAPHORE_DOWN,), (), -abi.EPERM),
]

ICU = abi.BOOT_CAP_ICU
PIN = (abi.ICU_BIND, 3)
ICU_CASES = [
    *protocol(ICU, TRIGGER, right=False, empty=-abi.EMSGTOOSHORT),
    Case("bind too short", ICU, TRIGGER, (abi.ICU_BIND,), item(IRQ), -abi.EMSGTOOSHORT),
    Case("bind no item", ICU, TRIGGER, PIN, (), -abi.EMSGTOOSHORT),
    Case("bind void item", ICU, TRIGGER, PIN, VOID, -abi.EINVAL),
    Case("bind not an object page", ICU, TRIGGER, PIN, NO_OBJECT, IPC_8),
    Case("bind no irq", ICU, TRIGGER, PIN, item(THREAD), -abi.EINVAL),
    Case("bind irq without W", ICU, TRIGGER, PIN, item(WEAKER + IRQ), -abi.EPERM),
    Case("bind bad pin", ICU, TRIGGER, (abi.ICU_BIND, 1000), item(IRQ), -abi.EINVAL),
    Case("bind", ICU, TRIGGER, PIN, item(IRQ), 0),
    Case("info", ICU, TRIGGER, (abi.ICU_INFO,), (), 0),
]

D = abi.PROTO_THREAD
CONTROL = (abi.THREAD_CONTROL | abi.CONTROL_BIND_TASK, 0, 0, 0, 0, abi.BOOT_UTCB)
THREAD_CASES = [
    Case("no words", THREAD, D, (), (), -abi.EMSGTOOSHORT),
    Case("unknown opcode", THREAD, D, (0x77,), (), -abi.ENOSYS),
    Case("doorbell", THREAD, D, (abi.THREAD_REGISTER_DOORBELL,), (), -abi.ENOSYS),
    Case("control without S", WEAKER + THREAD, D, (abi.THREAD_CONTROL,), (), -abi.EPERM),
    Case("control too short", THREAD, D, (abi.THREAD_CONTROL, 0, 0, 0, 0), (), -abi.EINVAL),
    Case("control reads", THREAD, D, (abi.THREAD_CONTROL, 0, 0, 0, 0, 0), (), 0),
    *arguments(THREAD, D, CONTROL, WEAKER + TASK, abi.OBJECT_RIGHT_S),
    Case("bind", THREAD, D, CONTROL, item(TASK), 0),
    Case("bind, UTCB nowhere", THREAD, D, (*CONTROL[:5], 0x400000), item(TASK), -abi.EINVAL),
    Case("bind, UTCB beyond", THREAD, D, (*CONTROL[:5], abi.BOOT_UTCB + 0xE04), item(TASK), -abi.EINVAL),
    Case("bind, UTCB unaligned", THREAD, D, (*CONTROL[:5], abi.BOOT_UTCB + 2), item(TASK), -abi.EINVAL),
    Case("bind again", STARTED, D, CONTROL, item(TASK), -abi.EINVAL),
    Case("ex_regs too short", STARTED, D, (abi.THREAD_EX_REGS, 0), (), -abi.EINVAL),
    Case("ex_regs too long", STARTED, D, (abi.THREAD_EX_REGS, 0, 0, 0), (), -abi.EINVAL),
    Case("ex_regs reserved", STARTED, D, (abi.THREAD_EX_REGS | 1 << 24, 0, 0), (), -abi.EINVAL),
    Case("ex_regs needs no right", WEAKER + THREAD, D, (abi.THREAD_EX_REGS, 0, 0), (), 0),
    *arguments(THREAD, D, (abi.THREAD_REGISTER_DELETE_IRQ,), WEAKER + IRQ, abi.OBJECT_RIGHT_W),
    Case("modify senders too short", STARTED, D, (abi.THREAD_MODIFY_SENDERS, 0, 0, 0), (), 0),
    Case("gdt query", STARTED, D, (abi.THREAD_GDT,), (), 0),
    Case("gdt short", STARTED, D, (abi.THREAD_GDT, 0), (), 0x4B),
    Case("gdt", STARTED, D, (abi.THREAD_GDT, 0, 0x0000FFFF, 0x00CFF200), (), 0x4B),
    Case("gdt null", STARTED, D, (abi.THREAD_GDT, 2, 0, 0), (), 0x5B),
    Case("gdt beyond", STARTED, D, (abi.THREAD_GDT, 9, 0, 0), (), 0x93),
    Case("gdt kernel segment", STARTED, D, (abi.THREAD_GDT, 0, 0x0000FFFF, 0x00CF9200), (), -abi.EINVAL),
    Case("gdt call gate", STARTED, D, (abi.THREAD_GDT, 0, 0x0000FFFF, 0x0000EC00), (), -abi.EINVAL),
    Case("stats", STARTED, D, (abi.THREAD_STATS,), (), 0),
]

LOG = abi.BOOT_CAP_LOG
LOG_CASES = [
    *protocol(LOG, abi.PROTO_LOG, right=False, empty=-abi.EMSGTOOSHORT),
    Case("read without W", WEAKER + LOG, abi.PROTO_LOG, (abi.LOG_READ,), (), -abi.EPERM),
    Case("read", LOG, abi.PROTO_LOG, (abi.LOG_READ | 4 << 16,), (), 0),
    Case("attributes", LOG, abi.PROTO_LOG, (abi.LOG_GET_ATTR,), (), 0),
    Case("pin", LOG, TRIGGER, (abi.ICU_INFO,), (), 0),
]

TABLES = {
    "factory": FACTORY_CASES, "task": TASK_CASES, "scheduler": SCHEDULER_CASES, "gate": GATE_CASES,
    "irq": IRQ_CASES, "semaphore": SEMAPHORE_CASES, "icu": ICU_CASES, "thread": THREAD_CASES, "log": LOG_CASES,
}  # fmt: skip
CASES = [pytest.param(case, id=f"{kind}: {case.name}") for kind, cases in TABLES.items() for case in cases]


@pytest.mark.parametrize("case", CASES)
def test_answer(case: Case) -> None:
    """Each row of the tables. A refusal has no words, and leaves the caller able to go on."""
    world = furnished()
    got = world.object_call(case.slot, case.label, *case.words, items=case.items)
    if got.failed:
        assert got.tag == abi.TAG_ERROR
        assert -2000 - got.error == case.expected
        return
    assert got.value == case.expected
    if case.expected < 0:
        assert got.tag == tag(case.expected)


@pytest.mark.parametrize(
    "buffer",
    [(0,), (abi.BUFFER_ITEM, memory_page(0x400000)), (abi.BUFFER_ITEM, abi.FPAGE_ALL), (FRESH << 12 | 2,)],
)
def test_factory_needs_an_object_buffer(buffer: tuple[int, ...]) -> None:
    """Void, of memory, "all", or without the item bit: error 9, before the type is looked at."""
    world = furnished()
    world.receive_buffers(world.root, *buffer)
    got = world.object_call(FACTORY, F, 99)
    assert (got.tag, got.error) == (abi.TAG_ERROR, abi.IPC_RECEIVE_OVERFLOW)
    assert -2000 - got.error == IPC_9


def test_factory_without_receive_phase_does_nothing() -> None:
    """EAX unchanged, nothing created; wrong label and missing right are not reported either."""
    world = furnished()
    used = world.kernel.root_quota.used_bytes
    sent = tag(F, 1)
    got = world.call(world.root, cap(FACTORY), abi.OP_SEND, sent, abi.PROTO_IRQ_SENDER)
    assert got is not None and got.tag == sent and world.kernel.root_quota.used_bytes == used


@pytest.mark.parametrize("slot", [1 << 18, 0xFFFFF])
def test_slot_out_of_range(slot: int) -> None:
    """-12, and the object that was made is gone."""
    world = furnished()
    world.receive_buffers(world.root, slot << 12 | abi.BUFFER_ITEM | abi.BUFFER_SMALL)
    used = world.kernel.root_quota.used_bytes
    assert world.object_call(FACTORY, F, abi.PROTO_IRQ_SENDER).value == -abi.ENOMEM
    assert world.kernel.root_quota.used_bytes == used


@pytest.mark.parametrize("kind", [0, T, D, F, Q, P])
def test_quota_exhausted(kind: int) -> None:
    """-12 for every kind of object; nothing is charged."""
    world = furnished()
    world.create(0x30, F, 16)
    world.receive_buffers(world.root, FRESH << 12 | abi.BUFFER_ITEM | abi.BUFFER_SMALL)
    used = world.kernel.root_quota.used_bytes
    got = world.object_call(0x30, F, kind, 0, 100 if kind == F else 0)
    assert got.value == -abi.ENOMEM
    assert world.kernel.root_quota.used_bytes == used


@pytest.mark.parametrize("pages", range(6))
def test_task_creation_is_all_or_nothing(pages: int) -> None:
    """Whatever runs out on the way, nothing stays charged or taken."""
    world = furnished()
    world.create(0x30, F, 512 + 4096 * pages + 100)
    world.receive_buffers(world.root, FRESH << 12 | abi.BUFFER_ITEM | abi.BUFFER_SMALL)
    before = (world.kernel.root_quota.used_bytes, world.kernel.frames.taken_count)
    got = world.object_call(0x30, F, T, 0, memory_page(abi.BOOT_UTCB, 13))
    if got.value == 0:
        assert pages >= 4  # directory, page table, two pages
        world.delete(FRESH)
    else:
        assert got.value == -abi.ENOMEM and pages < 4
    assert (world.kernel.root_quota.used_bytes, world.kernel.frames.taken_count) == before


def test_client_view_of_a_gate_sends_protocol_messages_to_the_thread() -> None:
    """Without the server right, -10 is a message like any other."""
    world = furnished()
    server = world.object(STARTED)
    world.call(server, abi.CAP_INVALID, abi.OP_WAIT)  # type: ignore[arg-type]
    words = (abi.TASK_MAP, 0x30 << 12, object_page(GATE, 7))  # the server right is not passed on
    assert world.object_call(abi.BOOT_CAP_TASK, T, *words, items=item(abi.BOOT_CAP_TASK)).tag == 0
    assert world.call(world.root, cap(0x30), abi.OP_CALL, tag(K, 1), abi.GATE_GET_INFO) is None
    assert world.answer(server).tag == tag(K, 1)  # type: ignore[arg-type]
