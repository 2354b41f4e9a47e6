"""Every step of kernel work has a price: what n more of something cost is n times it, and no step is free.

Each price here is a power of 2**32 of its own, so a bill can be taken apart again into how often each was charged. What
is expected is counted from what was set up, not from what the kernel did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import partial
from typing import Final

import pytest

from l4lab.kernel import capability, crosscore, dispatch, ipc, lifecycle, ports, waiting
from l4lab.kernel.costs import CAUSES, LOCK, KernelCosts
from l4lab.kernel.drq import WakeDrq
from l4lab.kernel.fiasco import abi, items
from l4lab.kernel.fiasco.flexpage import decode as decode_page
from l4lab.kernel.objects import Gate, Irq, Semaphore, Task
from l4lab.kernel.thread import READY, RECEIVE_CLOSED, RECEIVE_OPEN, RECEIVING, ReplySlot, Thread
from l4lab.kernel.traps import DEADLINE_REACHED
from support.kernel_world import FOREVER, World, cap, memory_page, object_page, tag

NAMES: Final = tuple(f.name for f in fields(KernelCosts))
DIGIT: Final = 32
EVERYTHING: Final = decode_page(abi.FPAGE_ALL)
FROM: Final = 0x400  # the first of sigma0's page frames that are passed on
AT: Final = 0x4000  # a page number at the start of a page table
SLOTS_PER_PAGE: Final = capability.SLOTS_PER_PAGE
A_TASK, A_THREAD, A_GATE, AN_IRQ, A_SEMAPHORE = 0x60, 0x61, 0x62, 0x63, 0x64
MANY: Final = 0x400  # a slot at the start of a page of slots

Act = Callable[[], None]


def charged(bill: list[int]) -> Counter[str]:
    """How often each price is in a bill. Waiting for a lock has none."""
    total = sum(cycles for cause, cycles in enumerate(bill) if cause != LOCK)
    return Counter({name: total >> DIGIT * i & (1 << DIGIT) - 1 for i, name in enumerate(NAMES)})


class Priced:
    """A world whose bills can be taken apart, with a task to map from and one to map into."""

    def __init__(self) -> None:
        self.world = World(check=False)  # what is made here has no capabilities
        self.kernel = self.world.kernel
        assert self.world.sigma0.task is not None and self.world.root.task is not None
        self.sigma0, self.root = self.world.sigma0.task, self.world.root.task
        self.task = self.world.new_task(A_TASK)

    def threads(self, count: int, priority: int = 1) -> list[Thread]:
        """Threads of no task, on core 0."""
        made = []
        for _ in range(count):
            thread = lifecycle.create_thread(self.kernel, self.kernel.root_quota)
            assert thread is not None
            thread.core, thread.priority, thread.state = 0, priority, READY
            made.append(thread)
        return made

    def waiting_senders(self, count: int, partner: Thread) -> list[Thread]:
        """Threads queued at `partner` with a message without words, and no receive phase."""
        senders = self.threads(count)
        for sender in senders:
            sender.sends = True
            sender.receive = 0
            waiting.queue_up(self.kernel, sender, partner)
        return senders

    def map(self, source: Task, vpn: int, pages: int, target: Task, at: int) -> None:
        rights = abi.MEMORY_RIGHTS
        self.kernel.memory.map_range(source.space, vpn, target.space, at, pages, rights)

    def fill_slots(self, task: Task, first: int, count: int, obj: object) -> None:
        """`count` capabilities without the right to delete."""
        assert isinstance(obj, Gate | Thread | Irq)
        for slot in range(first, first + count):
            assert capability.insert(task.capability_table, slot, obj, abi.OBJECT_RIGHT_R, 0, True)

    def bill(self, act: Act) -> Counter[str]:
        """What one kernel entry, or one function of the kernel's, is charged."""
        memory = self.kernel.memory
        memory.removals = memory.cleared_pages = memory.range_steps = 0
        memory.stale.clear()
        self.kernel.bill = [0] * CAUSES
        self.kernel.costs = KernelCosts(**{name: 1 << DIGIT * i for i, name in enumerate(NAMES)})
        act()
        return charged(self.kernel.bill)


Case = Callable[[Priced, int], Act]


def empty_slots(first: int, end: int, occupied: Iterable[int]) -> int:
    """What a walk over slots sees, but for the occupied ones: each slot of a page in use, else the page."""
    taken = set(occupied)
    pages = {slot // SLOTS_PER_PAGE for slot in taken}
    all_pages = range(first // SLOTS_PER_PAGE, (end - 1) // SLOTS_PER_PAGE + 1)
    return sum(SLOTS_PER_PAGE if page in pages else 1 for page in all_pages) - len(taken)


# --- memory, capabilities, ports ---------------------------------------------------------------------


def task_with_pages(priced: Priced, n: int) -> Act:
    priced.map(priced.sigma0, FROM + 1, n, priced.task, AT)
    return partial(priced.world.delete, A_TASK)


def task_with_page_tables(priced: Priced, n: int) -> Act:
    for number in range(n):
        priced.map(priced.sigma0, FROM + 1, 1, priced.task, AT + number * 1024)
    return partial(priced.world.delete, A_TASK)


def page_mapped_often(priced: Priced, n: int) -> Act:
    priced.map(priced.sigma0, FROM + 1, 1, priced.root, AT)
    priced.map(priced.root, AT, 1, priced.task, AT)
    for number in range(1, n):
        priced.map(priced.root, AT, 1, priced.task, AT + number)
    return lambda: void(priced.world.unmap(abi.BOOT_CAP_TASK, memory_page(AT << 12), mask=0))


def void(_: object) -> None:
    """Nobody wants the answer."""


def pages_in_a_range(priced: Priced, n: int) -> Act:
    priced.map(priced.sigma0, FROM + 1, n, priced.root, AT)
    word = memory_page(AT << 12, 22)
    return lambda: void(
        items.map_flexpage(priced.kernel, priced.root, word, priced.task, EVERYTHING, AT << 12)
    )


def pages_unmapped_from_a_range(priced: Priced, n: int) -> Act:
    priced.map(priced.sigma0, FROM + 1, n, priced.task, AT)
    return lambda: void(priced.world.unmap(A_TASK, memory_page(AT << 12, 22)))


def pages_onto_which_others_are_mapped(priced: Priced, n: int) -> Act:
    priced.map(priced.sigma0, FROM + 1, n, priced.task, AT)
    priced.map(priced.sigma0, FROM + 2, 1, priced.root, AT)
    for number in range(1024):
        priced.map(priced.sigma0, FROM + 2 + number, 1, priced.root, AT + number)
    word = memory_page(AT << 12, 22)
    return lambda: void(
        items.map_flexpage(priced.kernel, priced.root, word, priced.task, EVERYTHING, AT << 12)
    )


def kernel_user_pages(priced: Priced, n: int) -> Act:
    task = priced.task
    return lambda: void(lifecycle.add_ku_memory(priced.kernel, task, AT, n))


def task_with_kernel_user_areas(priced: Priced, n: int) -> Act:
    for number in range(n):
        assert lifecycle.add_ku_memory(priced.kernel, priced.task, AT + number, 1) == ""
    return partial(priced.world.delete, A_TASK)


def task_with_capabilities(priced: Priced, n: int) -> Act:
    priced.fill_slots(priced.task, MANY, n, priced.world.new_gate(A_GATE))
    return partial(priced.world.delete, A_TASK)


def object_with_capabilities(priced: Priced, n: int) -> Act:
    priced.fill_slots(priced.task, MANY, n, priced.world.new_gate(A_GATE))
    return partial(priced.world.delete, A_GATE)


def object_whose_last_capability_goes(priced: Priced, n: int) -> Act:
    gate = priced.world.new_gate(A_GATE)
    for slot in range(MANY, MANY + n):  # weak ones, which go with it
        assert capability.insert(priced.task.capability_table, slot, gate, abi.OBJECT_RIGHT_R, 0, False)
    return lambda: void(priced.world.unmap(abi.BOOT_CAP_TASK, object_page(A_GATE)))


def capabilities_in_a_range(priced: Priced, n: int) -> Act:
    priced.fill_slots(priced.root, MANY, n, priced.world.new_gate(A_GATE))
    word = object_page(MANY) | 22 - 12 << abi.FPAGE_ORDER_SHIFT
    target, at = priced.task, MANY << abi.CAP_SHIFT
    return lambda: void(items.map_flexpage(priced.kernel, priced.root, word, target, EVERYTHING, at))


def capabilities_unmapped(priced: Priced, n: int) -> Act:
    priced.fill_slots(priced.task, MANY, n, priced.world.new_gate(A_GATE))
    word = object_page(MANY) | 10 << abi.FPAGE_ORDER_SHIFT
    return lambda: void(priced.world.unmap(A_TASK, word))


def capabilities_restricted(priced: Priced, n: int) -> Act:
    priced.fill_slots(priced.task, MANY, n, priced.world.new_gate(A_GATE))
    word = object_page(MANY, abi.OBJECT_RIGHT_W) | 10 << abi.FPAGE_ORDER_SHIFT
    return lambda: void(priced.world.unmap(A_TASK, word))


def ports_mapped(priced: Priced, n: int) -> Act:
    return lambda: void(ports.map_range(priced.kernel, priced.sigma0, priced.task, 0, n, grant=False))


def task_with_ports(priced: Priced, n: int) -> Act:
    ports.map_range(priced.kernel, priced.sigma0, priced.task, 0, n, grant=False)
    return partial(priced.world.delete, A_TASK)


# --- threads, and who waits ----------------------------------------------------------------------------


def task_with_threads(priced: Priced, n: int) -> Act:
    for thread in priced.threads(n):
        thread.task = priced.task
        priced.task.threads[thread] = None
    return partial(priced.world.delete, A_TASK)


def task_with_reply_slots(priced: Priced, n: int) -> Act:
    for index in range(n):
        priced.task.reply_slots[index] = ReplySlot()
    return partial(priced.world.delete, A_TASK)


def thread_with_senders(priced: Priced, n: int) -> Act:
    partner = priced.world.new_thread(A_THREAD)
    priced.waiting_senders(n, partner)
    return partial(priced.world.delete, A_THREAD)


def thread_with_gates(priced: Priced, n: int) -> Act:
    thread = priced.world.new_thread(A_THREAD)
    for _ in range(n):
        gate = lifecycle.create_gate(priced.kernel, priced.kernel.root_quota)
        assert gate is not None
        gate.thread = thread
        thread.bound_gates[gate] = None
    return partial(priced.world.delete, A_THREAD)


def thread_with_interrupts(priced: Priced, n: int) -> Act:
    """Queued at it, and bound to it."""
    thread = priced.world.new_thread(A_THREAD)
    for _ in range(n):
        irq = lifecycle.create_irq(priced.kernel, priced.kernel.root_quota)
        assert irq is not None
        irq.thread = thread
        thread.bound_irqs[irq] = None
        ipc.trigger(priced.kernel, priced.kernel.cores[0], irq)
    return partial(priced.world.delete, A_THREAD)


def senders_relabelled(priced: Priced, n: int) -> Act:
    """By three rules each."""
    partner = priced.world.new_thread(A_THREAD)
    priced.waiting_senders(n, partner)
    words = (abi.THREAD_MODIFY_SENDERS, *(1, 1, 0, 0) * 3)
    return lambda: void(priced.world.object_call(A_THREAD, abi.PROTO_THREAD, *words))


def chain_of_senders(priced: Priced, n: int) -> Act:
    """Each waits to send to the one before it, and then to receive."""
    first = priced.world.new_thread(A_THREAD)
    partner = first
    for sender in priced.threads(n):
        sender.sends = True
        sender.receive = RECEIVE_OPEN
        waiting.queue_up(priced.kernel, sender, partner)
        partner = sender
    return lambda: void(priced.world.call(first, abi.CAP_INVALID, abi.OP_WAIT))


def gate_waited_for(priced: Priced, n: int) -> Act:
    gate = priced.world.new_gate(A_GATE)
    for thread in priced.threads(n):
        thread.sends = True
        waiting.wait_for_gate(priced.kernel, thread, gate)
    return partial(priced.world.delete, A_GATE)


def gate_bound_that_is_waited_for(priced: Priced, n: int) -> Act:
    """To a thread that does not take their messages now."""
    priced.world.new_thread(A_THREAD)
    gate_waited_for(priced, n)
    return lambda: void(priced.world.bind_gate(A_GATE, A_THREAD, 0x10))


def semaphore_waited_for(priced: Priced, n: int) -> Act:
    assert priced.world.create(A_SEMAPHORE, abi.PROTO_SEMAPHORE).value == 0
    semaphore = priced.world.object(A_SEMAPHORE)
    assert isinstance(semaphore, Semaphore)
    for thread in priced.threads(n):
        waiting.wait_for_semaphore(priced.kernel, thread, semaphore)
    return partial(priced.world.delete, A_SEMAPHORE)


def sleepers(priced: Priced, n: int) -> Act:
    """Who all wake up in one tick."""
    for thread in priced.threads(n):
        thread.receive = RECEIVE_CLOSED
        thread.receive_from = thread.partner = thread
        thread.state = RECEIVING
        waiting.arm(priced.kernel, thread, priced.kernel.clock_us + abi.TICK_US)
    return lambda: void(priced.world.trap(DEADLINE_REACHED, cycles=3 * abi.TICK_US * priced.kernel.mhz))


def requests_of_one_interrupt(priced: Priced, n: int) -> Act:
    (thread,) = priced.threads(1)
    merged = [
        WakeDrq(thread, preempt=False) for _ in range(n)
    ]  # nothing to do any more, when they are looked at
    core = priced.kernel.cores[0]
    return lambda: crosscore.serve(priced.kernel, core, WakeDrq(thread, preempt=False), [*merged])


def words_of_a_message(priced: Priced, n: int) -> Act:
    receiver = priced.world.new_thread(A_THREAD)
    priced.world.call(receiver, abi.CAP_INVALID, abi.OP_WAIT)
    root = priced.world.root
    return lambda: void(priced.world.call(root, cap(A_THREAD), abi.OP_SEND, tag(0, n), *(0,) * n))


def words_printed(priced: Priced, n: int) -> Act:
    root, words = priced.world.root, (abi.LOG_WRITE, 4 * n, *(0x20202020,) * n)
    log = cap(abi.BOOT_CAP_LOG)
    return lambda: void(priced.world.call(root, log, abi.OP_SEND, tag(abi.PROTO_LOG, n + 2), *words))


def more(**prices: int) -> Callable[[int], dict[str, int]]:
    """That much for each."""
    return lambda n: {name: count * n for name, count in prices.items()}


def in_slots(**prices: int) -> Callable[[int], dict[str, int]]:
    """The same, and in a range of 1,024 slots a look at those that are empty."""
    return lambda n: {
        **more(**prices)(n),
        "range_step": empty_slots(MANY, MANY + 1024, range(MANY, MANY + n)),
    }


THOUSAND: Final = (1, 10, 1000)
LINEAR: Final[list[tuple[Case, Callable[[int], dict[str, int]], tuple[int, ...]]]] = [
    (task_with_pages, more(unmap_page=1), THOUSAND),
    (task_with_page_tables, more(unmap_page=1, list_step=1), (1, 10, 600)),
    (page_mapped_often, more(unmap_page=1), THOUSAND),
    (pages_in_a_range, more(map_page=1, range_step=-1), THOUSAND),
    (pages_unmapped_from_a_range, more(unmap_page=1, range_step=-1), THOUSAND),
    (pages_onto_which_others_are_mapped, more(unmap_page=1), THOUSAND),
    (kernel_user_pages, more(clear_page=1), THOUSAND),
    (task_with_kernel_user_areas, more(list_step=1), THOUSAND),
    (task_with_capabilities, more(map_capability=1), THOUSAND),
    (object_with_capabilities, more(map_capability=1), THOUSAND),
    (object_whose_last_capability_goes, more(map_capability=1), THOUSAND),
    (capabilities_in_a_range, in_slots(map_capability=1), THOUSAND),
    (capabilities_unmapped, in_slots(map_capability=1), THOUSAND),
    (capabilities_restricted, in_slots(map_capability=1), THOUSAND),
    (ports_mapped, more(map_port=1), THOUSAND),
    (task_with_ports, more(map_port=1), THOUSAND),
    (task_with_threads, more(list_step=1), THOUSAND),
    (task_with_reply_slots, more(list_step=1), THOUSAND),
    (thread_with_senders, more(ipc_abort=1, ready_queue=1), THOUSAND),
    (thread_with_gates, more(list_step=1), THOUSAND),
    (thread_with_interrupts, more(list_step=2), THOUSAND),
    (senders_relabelled, more(list_step=3), THOUSAND),
    (chain_of_senders, more(ipc_path=1, ready_queue=1), (2, 10, 1000)),
    (gate_waited_for, more(ipc_abort=1, ready_queue=1), THOUSAND),
    (gate_bound_that_is_waited_for, more(list_step=1, ipc_block=1), THOUSAND),
    (semaphore_waited_for, more(ipc_abort=1, ready_queue=1), THOUSAND),
    (sleepers, more(ipc_abort=1, ready_queue=1, wake_up_queue=1), THOUSAND),
    (requests_of_one_interrupt, more(list_step=1), THOUSAND),
    (words_of_a_message, more(copy_word=1), (1, 10, 63)),
    (words_printed, more(copy_word=1), (1, 10, 60)),
]


@pytest.mark.parametrize(("case", "expected", "counts"), LINEAR, ids=[case.__name__ for case, _, _ in LINEAR])
def test_n_times_the_work_is_n_times_the_price(
    case: Case, expected: Callable[[int], dict[str, int]], counts: tuple[int, ...]
) -> None:
    bills = []
    for n in counts:
        priced = Priced()
        act = case(priced, n)
        bills.append(priced.bill(act))
    for n, bill in zip(counts[1:], bills[1:], strict=True):
        least, most = expected(counts[0]), expected(n)
        found = {name: bill[name] - bills[0][name] for name in NAMES if bill[name] != bills[0][name]}
        assert found == {name: most[name] - least[name] for name in most}


# --- one of each ---------------------------------------------------------------------------------------


def bill_of_call(
    priced: Priced, thread: Thread, selector: int, operation: int, *words: int, label: int = 0
) -> Counter[str]:
    return priced.bill(
        lambda: void(priced.world.call(thread, selector, operation, tag(label, len(words)), *words))
    )


ENTRY: Final = Counter(kernel_entry=1, kernel_exit=1, syscall_decode=1)
INVOKED: Final = ENTRY + Counter(object_invoke=1)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (abi.PROTO_THREAD, ()),
        (abi.PROTO_IRQ_SENDER, ()),
        (abi.PROTO_SEMAPHORE, ()),
        (abi.PROTO_KOBJECT, ()),
        (abi.PROTO_FACTORY, (1 << 16,)),
        (abi.PROTO_TASK, (0,)),
    ],
)
def test_an_object_has_a_price_when_it_is_made_and_when_it_ends(
    kind: int, arguments: tuple[int, ...]
) -> None:
    priced = Priced()
    made = priced.bill(lambda: void(priced.world.create(A_GATE, kind, *arguments)))
    directory = Counter(clear_page=1) if kind == abi.PROTO_TASK else Counter[str]()
    assert +made == INVOKED + Counter(create_object=1, map_capability=1) + directory
    ended = priced.bill(partial(priced.world.delete, A_GATE))
    flush = Counter(cr3_load=1) if kind == abi.PROTO_TASK else Counter[str]()
    assert +ended == INVOKED + Counter(end_object=1, map_capability=1, unmap_item=1) + flush


def receiver_of(priced: Priced, priority: int = 1) -> Thread:
    """A thread that waits for anybody; by default it does not get the core when it is woken."""
    receiver = priced.world.new_thread(A_THREAD, priority=priority)
    priced.world.call(receiver, abi.CAP_INVALID, abi.OP_WAIT)
    priced.world.switch_to(priced.world.root)
    return receiver


def irq_of(priced: Priced) -> Irq:
    assert priced.world.create(AN_IRQ, abi.PROTO_IRQ_SENDER).value == 0
    irq = priced.world.object(AN_IRQ)
    assert isinstance(irq, Irq)
    return irq


def test_an_interrupt_costs_what_a_message_without_words_costs_and_its_object() -> None:
    by_message, by_interrupt = Priced(), Priced()
    receiver_of(by_message)
    message = bill_of_call(by_message, by_message.world.root, cap(A_THREAD), abi.OP_SEND)
    irq = irq_of(by_interrupt)
    irq.thread = receiver_of(by_interrupt)
    irq.thread.bound_irqs[irq] = None
    root = by_interrupt.world.root
    interrupt = bill_of_call(by_interrupt, root, cap(AN_IRQ), abi.OP_SEND, label=abi.PROTO_IRQ)
    assert interrupt == message + Counter(object_invoke=1)
    assert message["ipc_path"] == 1


def semaphore_of(priced: Priced) -> Semaphore:
    assert priced.world.create(A_SEMAPHORE, abi.PROTO_SEMAPHORE).value == 0
    semaphore = priced.world.object(A_SEMAPHORE)
    assert isinstance(semaphore, Semaphore)
    return semaphore


def test_waiting_for_a_semaphore_costs_what_waiting_for_a_message_costs() -> None:
    priced = Priced()
    semaphore_of(priced)
    root = priced.world.root
    words = (abi.SEMAPHORE_DOWN,)
    down = bill_of_call(priced, root, cap(A_SEMAPHORE), abi.OP_CALL, *words, label=abi.PROTO_SEMAPHORE)
    other = Priced()
    wait = bill_of_call(other, other.world.root, abi.CAP_INVALID, abi.OP_WAIT)
    assert down == wait + Counter(object_invoke=1)
    assert down["ipc_block"] == 1


def test_a_semaphore_that_somebody_waits_for_has_a_price_and_so_has_its_wake_up() -> None:
    priced = Priced()
    semaphore = semaphore_of(priced)
    nobody = bill_of_call(priced, priced.world.root, cap(A_SEMAPHORE), abi.OP_SEND, label=abi.PROTO_IRQ)
    assert +nobody == INVOKED
    (thread,) = priced.threads(1, priority=0)
    waiting.wait_for_semaphore(priced.kernel, thread, semaphore)
    up = bill_of_call(priced, priced.world.root, cap(A_SEMAPHORE), abi.OP_SEND, label=abi.PROTO_IRQ)
    assert +up == INVOKED + Counter(ipc_abort=1, ready_queue=1)


def test_a_timeout_is_armed_and_cancelled_at_a_price() -> None:
    priced = Priced()
    receiver = priced.world.new_thread(A_THREAD, priority=1)
    for timeouts, steps in ((FOREVER, 0), (0x0801, 1)):  # 1 << 2 ms
        priced.world.switch_to(receiver)
        world = priced.world
        wait = priced.bill(partial(world.call, receiver, abi.CAP_INVALID, abi.OP_WAIT, timeouts=timeouts))
        assert wait["wake_up_queue"] == steps
        sent = bill_of_call(priced, world.root, cap(A_THREAD), abi.OP_SEND)
        assert sent["wake_up_queue"] == steps


def test_floating_point_state_is_copied_at_a_price() -> None:
    bills = []
    for accepts in (0, abi.BDR_ACCEPT_FPU):
        priced = Priced()
        receiver = receiver_of(priced)
        priced.world.receive_buffers(receiver, bdr=accepts)
        root = priced.world.root
        send = partial(priced.world.call, root, cap(A_THREAD), abi.OP_SEND, tag(0) | abi.TAG_FPU)
        bills.append(priced.bill(lambda send=send: void(send())))
    assert bills[1] - bills[0] == Counter(copy_word=128)


def test_a_choice_is_a_look_and_a_step_for_each_thread_moved() -> None:
    """The running thread yields to one that waits in the ready queue: one out, one in."""
    priced = Priced()
    (other,) = priced.threads(1, priority=priced.world.root.priority)
    dispatch.enqueue(priced.kernel, priced.kernel.cores[0], other, front=True)
    core = priced.kernel.cores[0]

    def choose() -> None:
        dispatch.choose(priced.kernel, core)

    assert +priced.bill(choose) == Counter(schedule=1, ready_queue=2)
