"""The kernel's small machines, each against a model that is too slow and too simple to be wrong."""

from __future__ import annotations

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from l4lab.kernel.fiasco import abi, flexpage, messages
from l4lab.kernel.fiasco.protocols.scheduler import cpu_set_contains
from l4lab.kernel.interface import InterfaceState
from l4lab.kernel.pageframes import KernelFrames
from l4lab.kernel.quota import UNLIMITED, Quota
from l4lab.kernel.sched import ReadyQueue
from l4lab.kernel.thread import SenderQueue, Thread
from l4lab.kernel.timeouts import Timeout, WakeUpQueue
from support import specification as spec
from support.kernel_world import World

words = st.integers(0, 2**32 - 1)


def new_thread(number: int, priority: int) -> Thread:
    thread = Thread(number, Quota(1), 0, array("I"), 0, 1000, InterfaceState())
    thread.priority = priority
    return thread


# --- queues -------------------------------------------------------------------------------------


class ReadyQueueModel(RuleBasedStateMachine):
    """A ready queue is a list: sorted by priority, newcomers before or behind their equals."""

    threads = Bundle("threads")

    def __init__(self) -> None:
        super().__init__()
        self.queue = ReadyQueue()
        self.model: list[Thread] = []
        self.made = 0

    @rule(target=threads, priority=st.sampled_from([0, 1, 1, 2, 200, 255]), front=st.booleans())
    def add(self, priority: int, front: bool) -> Thread:
        self.made += 1
        thread = new_thread(self.made, priority)
        self.queue.add(thread, front=front)
        lower = [t for t in self.model if t.priority < priority]
        equal = [t for t in self.model if t.priority == priority]
        higher = [t for t in self.model if t.priority > priority]
        self.model = higher + ([thread, *equal] if front else [*equal, thread]) + lower
        return thread

    @rule(thread=consumes(threads))
    def remove(self, thread: Thread) -> None:
        if thread in self.model:
            self.queue.remove(thread)
            self.model.remove(thread)

    @rule()
    def pop(self) -> None:
        assert self.queue.pop() is (self.model.pop(0) if self.model else None)

    @invariant()
    def same(self) -> None:
        assert self.queue.threads() == self.model
        assert all(thread.queued for thread in self.model)
        assert bool(self.queue) == bool(self.model)
        assert self.queue.top_priority() == (self.model[0].priority if self.model else -1)


class SenderQueueModel(RuleBasedStateMachine):
    """A sender queue is a list too: by priority at the time of queueing, first come first served."""

    threads = Bundle("threads")

    def __init__(self) -> None:
        super().__init__()
        self.queue = SenderQueue()
        self.model: list[tuple[int, Thread]] = []
        self.made = 0

    @rule(target=threads, priority=st.sampled_from([0, 1, 1, 7, 255]))
    def add(self, priority: int) -> tuple[int, Thread]:
        self.made += 1
        thread = new_thread(self.made, 0)
        self.queue.add(thread, priority)
        self.model.append((priority, thread))
        self.model.sort(key=lambda entry: -entry[0])
        return priority, thread

    @rule(entry=consumes(threads))
    def remove(self, entry: tuple[int, Thread]) -> None:
        priority, thread = entry
        assert self.queue.holds(thread, priority) == (entry in self.model)
        if entry in self.model:
            self.queue.remove(thread, priority)
            self.model.remove(entry)
            assert not self.queue.holds(thread, priority)

    @invariant()
    def same(self) -> None:
        assert list(self.queue) == [thread for _, thread in self.model]
        assert bool(self.queue) == bool(self.model)
        if self.model:
            assert self.queue.first() is self.model[0][1]


class WakeUpQueueModel(RuleBasedStateMachine):
    """A wake-up queue is a list of deadlines; equal ones expire in the order they were set."""

    armed = Bundle("armed")

    def __init__(self) -> None:
        super().__init__()
        self.queue = WakeUpQueue()
        self.model: list[tuple[int, int, Thread]] = []
        self.made = 0
        self.now_us = 0

    @rule(target=armed, delay_us=st.sampled_from([1, 5, 5, 7, 1000, 2**40]))
    def arm(self, delay_us: int) -> tuple[Timeout, tuple[int, int, Thread]]:
        self.made += 1
        thread = new_thread(self.made, 0)
        entry = (self.now_us + delay_us, self.made, thread)
        self.model.append(entry)
        return self.queue.arm(thread, entry[0]), entry

    @rule(many=st.integers(1, 150))
    def arm_and_cancel(self, many: int) -> None:
        """What ping-pong with timeouts does: more cancelled ones than live ones."""
        for _ in range(many):
            self.made += 1
            self.queue.arm(new_thread(self.made, 0), self.now_us + 100).cancel()

    @rule(one=consumes(armed))
    def cancel(self, one: tuple[Timeout, tuple[int, int, Thread]]) -> None:
        timeout, entry = one
        timeout.cancel()
        timeout.cancel()  # harmless
        if entry in self.model:
            self.model.remove(entry)

    @rule(passed_us=st.sampled_from([0, 1, 5, 100]))
    def expire(self, passed_us: int) -> None:
        self.now_us += passed_us
        due = sorted(entry[:2] for entry in self.model if entry[0] <= self.now_us)
        by_number = {entry[1]: entry[2] for entry in self.model}
        for _, number in due:
            assert self.queue.pop_expired(self.now_us) is by_number[number]
        assert self.queue.pop_expired(self.now_us) is None
        self.model = [entry for entry in self.model if entry[0] > self.now_us]

    @invariant()
    def same(self) -> None:
        assert len(self.queue) == len(self.model)
        assert self.queue.next_deadline_us() == min((entry[0] for entry in self.model), default=None)
        live = {entry.thread for entry in self.queue.timeouts()}
        assert live == {entry[2] for entry in self.model}


# --- budgets and frames -------------------------------------------------------------------------


class QuotaModel(RuleBasedStateMachine):
    """A budget is charged if it and the top have room; what was charged or lent can all be given back."""

    charges = Bundle("charges")

    def __init__(self) -> None:
        super().__init__()
        top = Quota(1000)
        self.budgets = [Quota(UNLIMITED, top), Quota(600, top), Quota(2000, top)]
        self.top = top
        self.charged: dict[Quota, int] = dict.fromkeys(self.budgets, 0)
        self.lent: dict[
            Quota, tuple[Quota, int]
        ] = {}  # borrower -> lender and how much, until it is returned

    def used(self, budget: Quota) -> int:
        lent = (size for lender, size in self.lent.values() if lender is budget)
        return self.charged[budget] + (0 if budget.limit_bytes == UNLIMITED else sum(lent))

    def free(self, budget: Quota) -> int:
        return 0 if budget.closed else budget.limit_bytes - self.used(budget)

    @rule(target=charges, index=st.integers(0, 9), size=st.sampled_from([0, 1, 99, 300, 600]))
    def charge(self, index: int, size: int) -> tuple[Quota, int]:
        budget = self.budgets[index % len(self.budgets)]
        fits = size <= self.free(budget) and not budget.closed and sum(self.charged.values()) + size <= 1000
        assert budget.charge(size) == fits
        self.charged[budget] += size if fits else 0
        return budget, size if fits else 0

    @rule(charge=consumes(charges))
    def refund(self, charge: tuple[Quota, int]) -> None:
        budget, size = charge
        budget.refund(size)
        self.charged[budget] -= size
        self.settle()

    @rule(index=st.integers(0, 9), size=st.sampled_from([1, 200, 600]))
    def lend(self, index: int, size: int) -> None:
        lender = self.budgets[index % len(self.budgets)]
        fits = size <= self.free(lender) and not lender.closed
        borrower = lender.lend(size)
        assert (borrower is not None) == fits
        if borrower is not None:
            self.budgets.append(borrower)
            self.charged[borrower] = 0
            self.lent[borrower] = lender, size

    @rule(index=st.integers(0, 9))
    def close(self, index: int) -> None:
        self.budgets[index % len(self.budgets)].close()
        self.settle()

    def settle(self) -> None:
        """Closed budgets in which nothing is left return what they borrowed; that may be the last of another."""
        done = [each for each in self.lent if each.closed and not self.used(each)]
        for borrower in done:
            del self.lent[borrower]
        if done:
            self.settle()

    @invariant()
    def same(self) -> None:
        assert self.top.used_bytes == sum(self.charged.values()) <= self.top.limit_bytes
        for budget in self.budgets:
            assert budget.used_bytes == self.used(budget) <= budget.limit_bytes


class FramesModel(RuleBasedStateMachine):
    """Frames are handed out once, in runs where wanted, and refused only when there really are none."""

    runs = Bundle("runs")
    FIRST, COUNT = 100, 24

    def __init__(self) -> None:
        super().__init__()
        self.frames = KernelFrames(self.FIRST, self.COUNT)
        self.free = set(range(self.FIRST, self.FIRST + self.COUNT))

    @rule(target=runs, count=st.sampled_from([1, 1, 2, 3, 4, 8]))
    def take(self, count: int) -> tuple[int, int]:
        run = self.frames.take_run(count)
        possible = [pfn for pfn in self.free if all(pfn + i in self.free for i in range(count))]
        if run is None:
            assert not possible
            return 0, 0
        assert run in possible
        self.free -= set(range(run, run + count))
        return run, count

    @rule(run=consumes(runs), split=st.booleans())
    def give_back(self, run: tuple[int, int], split: bool) -> None:
        first, count = run
        if split:
            for pfn in range(first, first + count):
                self.frames.give_back(pfn)
        else:
            self.frames.give_back(first, count)
        self.free |= set(range(first, first + count))

    @invariant()
    def same(self) -> None:
        assert self.frames.taken_count == self.COUNT - len(self.free)
        everything = range(self.FIRST, self.FIRST + self.COUNT)
        assert [self.frames.is_taken(pfn) for pfn in everything] == [
            pfn not in self.free for pfn in everything
        ]


TestReadyQueue = ReadyQueueModel.TestCase
TestSenderQueue = SenderQueueModel.TestCase
TestWakeUpQueue = WakeUpQueueModel.TestCase
TestQuota = QuotaModel.TestCase
TestFrames = FramesModel.TestCase
for _model in (TestReadyQueue, TestSenderQueue, TestWakeUpQueue, TestQuota, TestFrames):
    _model.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
del _model


# --- words --------------------------------------------------------------------------------------


@given(st.integers(0, 20), st.integers(0, 20), words, words, words)
def test_placement(send_log2: int, window_log2: int, send: int, window: int, hot_spot: int) -> None:
    """`flexpage.place` is the specification's `place`, in whatever unit."""
    send, window = send >> send_log2 << send_log2, window >> window_log2 << window_log2
    start, at, order = flexpage.place(send, send_log2, window, window_log2, hot_spot)
    assert (start, at, 1 << order) == spec.place(send, send_log2, window, window_log2, hot_spot)
    assert send <= start < send + (1 << send_log2)
    assert window <= at < window + (1 << window_log2)


@given(words)
def test_flexpage_word(word: int) -> None:
    """A flexpage is aligned to its size; the address is in the unit of its space."""
    page = flexpage.decode(word)
    assert page.kind == word >> 4 & 3
    assert page.order == word >> 6 & 63
    assert page.rights == word & 15
    raw = word & 0xFFFFF000 if page.kind == abi.FPAGE_TYPE_MEMORY else word >> 12
    assert page.address % (1 << page.order) == 0
    assert page.address <= raw < page.address + (1 << page.order)
    assert page.is_everything == (word & 0xFF0 == abi.FPAGE_ALL & 0xFF0)


@given(
    st.integers(0, 40).map(lambda granularity: granularity << 24),
    st.integers(0, 80),
    words,
)
def test_cpu_set(granularity: int, offset: int, bitmap: int) -> None:
    """Each bit of the map stands for 2 ** granularity cores in a row, the first from the offset on, rounded down."""
    each = 1 << min(granularity >> 24, 24)
    first = offset // each * each
    members = {
        first + bit * each + i for bit in range(32) if bitmap >> bit & 1 for i in range(min(each, 200))
    }
    for core in range(128):
        assert cpu_set_contains(granularity | offset, bitmap, core) == (core in members)


@given(st.integers(0, 0xFFFF), st.lists(words, min_size=58, max_size=58))
def test_timeout_word(encoded: int, registers: list[int]) -> None:
    """0 waits for ever; mantissa and exponent are microseconds; else two buffer registers tell."""
    world = _WORLD
    world.receive_buffers(world.root, *registers[:57])
    world.ram[world.root.utcb + abi.UTCB_BR // 4 + 57] = registers[57]
    world.kernel.clock_us = now_us = 5_000_000
    if encoded == 0:
        expected = messages.NEVER
    elif encoded & 0x8000:
        index = min(encoded & 0x3F, 56)
        expected = int.from_bytes(
            b"".join(word.to_bytes(4, "little") for word in _registers(world)[index : index + 2]), "little"
        )
    else:
        expected = now_us + (encoded & 0x3FF) * 2 ** (encoded >> 10 & 0x1F)
    if encoded and expected <= now_us:
        expected = messages.EXPIRED
    assert messages.deadline_us(world.kernel, world.root, encoded) == expected


def _registers(world: World) -> list[int]:
    first = world.root.utcb + abi.UTCB_BR // 4
    return world.ram[first : first + abi.UTCB_BR_WORDS].tolist()


_WORLD = World()
