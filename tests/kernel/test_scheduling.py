"""Who runs next: the rules of ABI sheet section 6, "Scheduling", each a test.

Unlike elsewhere nobody is made to run here (`World.switch_to` with a ready thread that is not running
would be cheating): a thread acts only while it is `running`.
"""

from __future__ import annotations

from l4lab.kernel import dispatch
from l4lab.kernel.fiasco import abi
from l4lab.kernel.thread import LATE, READY, Thread
from support.kernel_world import NOW, Answer, World, cap, item, tag

A, B, C = 20, 21, 22
IRQ, SEMAPHORE = 30, 31
ROOT_PRIORITY = 10
SPAN_US = 10_000  # the default quantum


class Stage:
    """A root thread of priority 10 that runs, and others that `act` only when it is their turn."""

    def __init__(self, **priorities: int) -> None:
        """Threads by name, in slots of their own; all of them wait for messages, in open wait."""
        self.world = World()
        self.world.run_thread(abi.BOOT_CAP_THREAD, ROOT_PRIORITY)
        self.threads: dict[str, Thread] = {"root": self.world.root}
        self.slots = {"root": abi.BOOT_CAP_THREAD}
        for number, (name, priority) in enumerate(priorities.items()):
            thread = self.world.new_thread(A + number, priority=priority)
            self.threads[name], self.slots[name] = thread, A + number
            self.world.call(thread, abi.CAP_INVALID, abi.OP_WAIT)
        self.world.switch_to(self.world.root)

    def act(
        self, name: str, selector: int, operation: int, sent: int = 0, *words: int, timeouts: int = 0
    ) -> Answer | None:
        assert self.runs() == name, f"{self.runs()} runs, not {name}"
        return self.world.call(self.threads[name], selector, operation, sent, *words, timeouts=timeouts)

    def runs(self) -> str | None:
        """Who runs."""
        running = self.world.running()
        return next((name for name, thread in self.threads.items() if thread is running), None)

    def send(self, sender: str, receiver: str, *, flags: int = 0) -> None:
        self.act(sender, cap(self.slots[receiver]), abi.OP_SEND, tag(1, flags=flags))

    def call(self, sender: str, receiver: str, *, flags: int = 0, timeouts: int = 0) -> None:
        self.act(sender, cap(self.slots[receiver]), abi.OP_CALL, tag(1, flags=flags), timeouts=timeouts)

    def wait(self, name: str) -> None:
        self.act(name, abi.CAP_INVALID, abi.OP_WAIT)

    def reply(self, name: str, operation: int = abi.OP_REPLY_AND_WAIT) -> None:
        self.act(name, abi.CAP_INVALID, operation, tag(2))

    def context(self) -> Thread | None:
        """Whose priority and quantum are used."""
        return self.world.kernel.cores[0].context


# --- the wake-up rule ---------------------------------------------------------------------------


def test_higher_runs_at_once() -> None:
    """A message to a higher thread: it runs, the sender is ready."""
    stage = Stage(high=20)
    stage.send("root", "high")
    assert stage.runs() == "high" and stage.world.root.state == READY


def test_equal_runs_at_once() -> None:
    """Higher than or equal to, also with the SCHEDULE flag."""
    for flags in (0, abi.TAG_SCHEDULE):
        stage = Stage(equal=ROOT_PRIORITY)
        stage.send("root", "equal", flags=flags)
        assert stage.runs() == "equal"


def test_lower_does_not_run() -> None:
    """A plain send to a lower one: the sender goes on, and the receiver runs when it blocks."""
    stage = Stage(low=5)
    stage.send("root", "low")
    assert stage.runs() == "root"
    stage.wait("root")
    assert stage.runs() == "low"


def test_preempted_thread_goes_to_the_front() -> None:
    """Two workers of equal priority, started by a higher one, run in reverse order of starting."""
    stage = Stage(first=5, second=5)
    stage.send("root", "first")
    stage.send("root", "second")
    stage.wait("root")
    assert stage.runs() == "second"
    stage.wait("second")
    assert stage.runs() == "first"


def test_only_the_end_of_its_quantum_moves_a_thread_back() -> None:
    """Being preempted any number of times does not cost it its place; its quantum does."""
    stage = Stage(peer=ROOT_PRIORITY, high=20)
    stage.send("root", "peer")  # the peer runs, root is in front of the queue
    stage.send("peer", "high")
    stage.wait("high")
    assert stage.runs() == "peer"
    stage.world.run_for(SPAN_US)
    assert stage.runs() == "root"
    stage.world.run_for(SPAN_US)
    assert stage.runs() == "peer"


def test_irq_wakes_by_the_same_rule() -> None:
    """Equal priority preempts, lower does not."""
    for priority, expected in ((ROOT_PRIORITY, "server"), (5, "root")):
        stage = Stage(server=priority)
        stage.world.create(IRQ, abi.PROTO_IRQ_SENDER)
        stage.world.object_call(
            IRQ, abi.PROTO_KOBJECT, abi.ENDPOINT_BIND, 7, items=item(stage.slots["server"])
        )
        stage.act("root", cap(IRQ), abi.OP_SEND, tag(abi.PROTO_IRQ, 1), abi.IRQ_TRIGGER)
        assert stage.runs() == expected


def test_semaphore_up_wakes_by_the_same_rule() -> None:
    """Equal priority preempts, lower does not."""
    for priority, expected in ((ROOT_PRIORITY, "waiter"), (5, "root")):
        stage = Stage(waiter=priority)
        stage.world.create(SEMAPHORE, abi.PROTO_SEMAPHORE)
        stage.world.cancel(stage.slots["waiter"])
        waiter = stage.threads["waiter"]
        stage.world.call(waiter, cap(SEMAPHORE), abi.OP_CALL, tag(abi.PROTO_SEMAPHORE, 1), abi.SEMAPHORE_DOWN)
        assert stage.runs() == "root"
        stage.act("root", cap(SEMAPHORE), abi.OP_SEND, tag(abi.PROTO_IRQ, 1), abi.IRQ_TRIGGER)
        assert stage.runs() == expected


def test_both_running_thread_and_context_must_be_outranked() -> None:
    """A low server on a high client's time is not preempted by one between the two."""
    stage = Stage(low=3, middle=7)
    stage.call("root", "low")
    assert stage.runs() == "low"
    stage.send("low", "middle", flags=abi.TAG_SCHEDULE)
    assert stage.runs() == "low"


def test_a_server_on_a_lower_clients_time_is_outranked_by_its_own_priority() -> None:
    """One between the client and the server does not preempt it, though it would the client."""
    stage = Stage(high=20, middle=15)
    stage.call("root", "high")
    assert stage.runs() == "high" and stage.context() is stage.world.root
    stage.send("high", "middle", flags=abi.TAG_SCHEDULE)
    assert stage.runs() == "high"


# --- timeouts -----------------------------------------------------------------------------------


def test_own_timeout_preempts_a_lower_thread_at_once() -> None:
    """At the tick at which it is over."""
    stage = Stage(high=20)
    stage.send("root", "high")
    stage.act("high", abi.CAP_INVALID, abi.OP_RECV, timeouts=1 << 10 | 1000)  # 2 ms
    assert stage.runs() == "root"
    stage.world.run_for(3000)
    assert stage.runs() == "high"


def test_own_timeout_does_not_preempt_an_equal_thread() -> None:
    """It runs when the other's quantum ends: a sleep of 3 ms takes 10."""
    stage = Stage(equal=ROOT_PRIORITY)
    stage.send("root", "equal")
    stage.act("equal", abi.CAP_INVALID, abi.OP_RECV, timeouts=2 << 10 | 750)  # 3 ms
    assert stage.runs() == "root"
    stage.world.run_for(4000)
    assert stage.threads["equal"].state == READY and stage.runs() == "root"
    stage.world.run_for(SPAN_US)
    assert stage.runs() == "equal"


# --- donation -----------------------------------------------------------------------------------


def test_call_runs_the_server_whatever_its_priority() -> None:
    """On the caller's scheduling context."""
    stage = Stage(low=3)
    stage.call("root", "low")
    assert stage.runs() == "low" and stage.context() is stage.world.root


def test_call_with_schedule_flag_does_not_donate() -> None:
    """The server is woken by the rule and runs on its own time; here the caller blocks anyway."""
    stage = Stage(low=3, middle=5)
    stage.world.switch_to(stage.world.root)
    stage.send("root", "middle")
    stage.call("root", "low", flags=abi.TAG_SCHEDULE)
    assert stage.runs() == "middle" and stage.context() is stage.threads["middle"]


def test_call_with_zero_receive_timeout_does_not_donate() -> None:
    """The server does not run; the caller has its timeout at once."""
    stage = Stage(low=3)
    got = stage.act("root", cap(stage.slots["low"]), abi.OP_CALL, tag(1), timeouts=abi.TIMEOUT_ZERO)
    assert stage.runs() == "root"
    assert got is not None and got.error == abi.IPC_RECEIVE_TIMEOUT


def test_call_with_an_acceptable_sender_queued_does_not_donate() -> None:
    """A send and wait whose receive phase finds somebody: the sender goes on."""
    stage = Stage(low=3, other=5)
    other, low = stage.threads["other"], stage.slots["low"]
    stage.send("root", "other")
    stage.world.call(other, cap(abi.BOOT_CAP_THREAD), abi.OP_SEND, tag(4))
    stage.world.switch_to(stage.world.root)
    stage.act("root", cap(low), abi.OP_SEND_AND_WAIT, tag(1))
    assert stage.runs() == "root"
    assert stage.world.answer(stage.world.root).tag == tag(4)


def test_plain_send_does_not_donate() -> None:
    """To a lower receiver: the sender continues."""
    stage = Stage(low=3)
    stage.send("root", "low")
    assert stage.runs() == "root" and stage.context() is stage.world.root


def test_reply_hands_the_context_straight_back() -> None:
    """The client continues first, also if the server has the higher priority; with and without waiting."""
    for operation in (abi.OP_REPLY_AND_WAIT, abi.OP_REPLY | abi.OP_SEND):
        stage = Stage(high=20)
        stage.call("root", "high")
        assert stage.runs() == "high" and stage.context() is stage.world.root
        stage.reply("high", operation)
        assert stage.runs() == "root" and stage.context() is stage.world.root


def test_server_that_replied_continues_at_the_next_scheduling_point() -> None:
    """A kernel object call is none; blocking is one."""
    stage = Stage(high=20)
    stage.call("root", "high")
    stage.reply("high", abi.OP_REPLY | abi.OP_SEND)
    assert stage.threads["high"].state == READY
    stage.act(
        "root", cap(abi.BOOT_CAP_SCHEDULER), abi.OP_CALL, tag(abi.PROTO_SCHEDULER, 2), abi.SCHEDULER_INFO, 0
    )
    assert stage.runs() == "root"
    stage.wait("root")
    assert stage.runs() == "high" and stage.context() is stage.threads["high"]


def test_a_tick_is_a_scheduling_point() -> None:
    """The server that replied, and is higher, continues at the next timer tick."""
    stage = Stage(high=20)
    stage.call("root", "high")
    stage.reply("high", abi.OP_REPLY | abi.OP_SEND)
    assert stage.runs() == "root"
    stage.world.run_for(1000)
    assert stage.runs() == "high"


def test_a_thread_woken_meanwhile_is_compared_with_who_runs() -> None:
    """Not with who is ready: it runs, and the server after it."""
    stage = Stage(high=20, other=12)
    stage.call("root", "high")
    stage.reply("high", abi.OP_REPLY | abi.OP_SEND)
    stage.send("root", "other")
    assert stage.runs() == "other"
    stage.wait("other")
    assert stage.runs() == "high"


def test_donated_time_is_passed_on() -> None:
    """A server on its client's time calls another server: that one runs on the client's time too."""
    stage = Stage(middle=5, low=3)
    stage.call("root", "middle")
    stage.call("middle", "low")
    assert stage.runs() == "low" and stage.context() is stage.world.root


def test_sends_on_donated_time_donate() -> None:
    """Also a plain send, if the sender itself runs on a donated context."""
    stage = Stage(middle=5, low=3)
    stage.call("root", "middle")
    stage.send("middle", "low")
    assert stage.runs() == "low" and stage.context() is stage.world.root


def test_donation_ends_with_the_quantum() -> None:
    """From then on the server competes with its own priority."""
    stage = Stage(low=3, middle=5)
    stage.send("root", "middle")
    stage.call("root", "low")
    assert stage.runs() == "low"
    stage.world.run_for(SPAN_US)
    assert stage.runs() == "middle" and stage.context() is stage.threads["middle"]


def test_donation_ends_with_a_wake_up_that_preempts() -> None:
    """Afterwards the server is on its own."""
    stage = Stage(low=3, middle=5, high=20)
    stage.send("root", "middle")
    stage.call("root", "low")
    stage.send("low", "high", flags=abi.TAG_SCHEDULE)
    assert stage.runs() == "high"
    stage.wait("high")
    assert stage.runs() == "middle"


def test_donation_ends_when_the_server_blocks() -> None:
    """The next of the highest priority runs, on its own context."""
    stage = Stage(low=3, middle=5)
    stage.send("root", "middle")
    stage.call("root", "low")
    stage.wait("low")
    assert stage.runs() == "middle" and stage.context() is stage.threads["middle"]


def test_reply_without_donation_follows_the_wake_up_rule() -> None:
    """The donation is over; the client, lower than the server, has to wait until it blocks."""
    stage = Stage(high=20)
    stage.call("root", "high")
    stage.world.run_for(SPAN_US)
    assert stage.runs() == "high" and stage.context() is stage.threads["high"]
    stage.reply("high", abi.OP_REPLY | abi.OP_SEND)
    assert stage.runs() == "high"
    stage.wait("high")
    assert stage.runs() == "root"


# --- run_thread, ex_regs, switch, yield -----------------------------------------------------------


def test_run_thread_switches_to_an_equal_or_higher_thread() -> None:
    """On a started thread; not to a lower one."""
    for priority, expected in ((20, "worker"), (ROOT_PRIORITY, "worker"), (5, "root")):
        stage = Stage(worker=5)
        stage.send("root", "worker")  # it is ready
        stage.world.run_thread(stage.slots["worker"], priority)
        assert stage.runs() == expected


def test_run_thread_that_lowers_the_caller() -> None:
    """Below a ready one: that one runs."""
    stage = Stage(worker=5)
    stage.send("root", "worker")
    stage.world.run_thread(abi.BOOT_CAP_THREAD, 3)
    assert stage.runs() == "worker"


def test_run_thread_on_a_waiting_thread_changes_nobody() -> None:
    """It takes effect when the thread wakes."""
    stage = Stage(worker=5)
    stage.world.run_thread(stage.slots["worker"], 20)
    assert stage.runs() == "root"
    stage.send("root", "worker")
    assert stage.runs() == "worker"


def test_first_ex_regs_does_not_switch() -> None:
    """Even to a higher thread; it runs when the starter blocks."""
    stage = Stage()
    world = stage.world
    world.create(A, abi.PROTO_THREAD)
    address = abi.BOOT_UTCB + abi.UTCB_BYTES
    flags = abi.THREAD_CONTROL | abi.CONTROL_BIND_TASK
    words = (flags, 0, 0, 0, 0, address)
    world.object_call(A, abi.PROTO_THREAD, *words, items=item(abi.BOOT_CAP_TASK))
    world.run_thread(A, 20)
    world.ex_regs(A, 0, 0x1000, 0x2000)
    thread = world.object(A)
    assert isinstance(thread, Thread)
    assert stage.runs() == "root" and thread.state == READY
    world.call(world.root, abi.CAP_INVALID, abi.OP_WAIT)
    assert world.running() is thread


def test_cancel_does_not_switch() -> None:
    """ex_regs with cancel only makes the target ready."""
    stage = Stage(high=20)
    stage.world.cancel(stage.slots["high"])
    assert stage.runs() == "root" and stage.threads["high"].state == READY
    stage.wait("root")
    assert stage.runs() == "high"


def test_ready_higher_thread_runs_at_the_tick() -> None:
    """A timer tick in between can let the new thread in earlier."""
    stage = Stage(high=20)
    stage.world.cancel(stage.slots["high"])
    stage.world.run_for(1000)
    assert stage.runs() == "high"


def test_zero_timeout_wait_is_no_scheduling_point() -> None:
    """The library's yield only returns error 3; it does not give up the CPU."""
    stage = Stage(equal=ROOT_PRIORITY, high=20)
    stage.world.cancel(stage.slots["high"])
    stage.world.cancel(stage.slots["equal"])
    got = stage.act("root", abi.CAP_INVALID, abi.OP_RECV, tag(3), timeouts=NOW)
    assert got is not None and (got.tag, got.error) == (tag(3) | abi.TAG_ERROR, abi.IPC_RECEIVE_TIMEOUT)
    assert stage.runs() == "root"


def test_thread_switch_runs_a_ready_thread() -> None:
    """Whatever its priority."""
    stage = Stage(low=3)
    stage.send("root", "low")
    stage.act("root", cap(stage.slots["low"]), abi.OP_CALL, tag(abi.PROTO_THREAD, 1), abi.THREAD_SWITCH)
    assert stage.runs() == "low"
    assert stage.world.answer(stage.world.root).tag == tag(0)


def test_thread_switch_to_a_blocked_thread_reschedules() -> None:
    """Then the first of the highest priority runs: here a higher one that had been made ready."""
    stage = Stage(low=3, high=20)
    stage.world.cancel(stage.slots["high"])
    stage.act("root", cap(stage.slots["low"]), abi.OP_CALL, tag(abi.PROTO_THREAD, 1), abi.THREAD_SWITCH)
    assert stage.runs() == "high"


def test_round_robin_inside_a_priority() -> None:
    """Each in turn for its quantum."""
    stage = Stage(one=ROOT_PRIORITY, two=ROOT_PRIORITY)
    stage.send("root", "one")
    stage.send("one", "two")
    order = []
    for _ in range(6):
        order.append(stage.runs())
        stage.world.run_for(SPAN_US)
    assert order == ["two", "one", "root"] * 2


def test_own_quantum() -> None:
    """run_thread sets it, in microseconds."""
    stage = Stage(peer=ROOT_PRIORITY)
    words = (abi.SCHEDULER_RUN_THREAD, 0, 1, ROOT_PRIORITY, 3000)
    stage.world.object_call(
        abi.BOOT_CAP_SCHEDULER, abi.PROTO_SCHEDULER, *words, items=item(stage.slots["peer"])
    )
    stage.send("root", "peer")
    stage.world.run_for(2000)
    assert stage.runs() == "peer"
    stage.world.run_for(2000)
    assert stage.runs() == "root"


# --- sender queues --------------------------------------------------------------------------------


def test_senders_queue_by_priority_then_order() -> None:
    """The priority at the time of queueing counts; IRQ objects come first."""
    stage = Stage(low=3, first=5, second=5, high=20)
    world = stage.world
    world.create(IRQ, abi.PROTO_IRQ_SENDER)
    world.object_call(IRQ, abi.PROTO_KOBJECT, abi.ENDPOINT_BIND, 7, items=item(abi.BOOT_CAP_THREAD))
    labels = {"low": 1, "first": 2, "second": 3, "high": 4}
    for name, label in labels.items():
        world.cancel(stage.slots[name])
        world.call(stage.threads[name], cap(abi.BOOT_CAP_THREAD), abi.OP_SEND, tag(label))
    world.run_thread(stage.slots["low"], 200)  # too late
    world.switch_to(world.root)
    world.call(world.root, cap(IRQ), abi.OP_SEND, tag(abi.PROTO_IRQ, 1), abi.IRQ_TRIGGER)
    received = []
    for _ in range(5):
        got = world.call(world.root, abi.CAP_INVALID, abi.OP_WAIT)
        got = got or world.answer(world.root)
        received.append(got.value)
    assert received == [0, 4, 2, 3, 1]


def test_thread_whose_timeout_is_over_is_not_lost() -> None:
    """Woken to learn that, and interrupted by a reschedule with nobody else ready: it runs."""
    stage = Stage()
    core = stage.world.kernel.cores[0]
    root = stage.world.root
    root.state = LATE
    core.reschedule = True
    dispatch.choose(stage.world.kernel, core)
    assert core.current is root
