"""The views of the kernel: each shows what a test has brought about, and changes nothing."""

from __future__ import annotations

import pytest

from l4lab.kernel import inspect, inspect_memory
from l4lab.kernel.fiasco import abi
from l4lab.kernel.inspect import View
from support.kernel_world import World, cap, item, memory_page, tag

SERVER, CLIENT, GATE, TASK = 20, 21, 22, 30
PAGE = 0x400000
TARGET = 0x10000000


def rows(view: View) -> dict[str | int, dict[str, str | int]]:
    """First cell -> the row, by column."""
    return {row[0]: dict(zip(view.columns, row, strict=True)) for row in view.rows}


@pytest.fixture
def called() -> World:
    """A client has called a server, which runs; a second thread waits behind it in the server's queue."""
    world = World()
    server = world.new_thread(SERVER)
    client = world.new_thread(CLIENT)
    assert world.call(server, abi.CAP_INVALID, abi.OP_WAIT) is None
    assert world.call(world.root, cap(SERVER), abi.OP_CALL, tag(5, 2), 11, 22, label=0x77) is None
    assert world.call(client, cap(SERVER), abi.OP_CALL, tag(6)) is None
    world.switch_to(server)
    return world


def test_threads_tell_what_each_waits_for(called: World) -> None:
    server, client = list(called.kernel.threads.values())[2:]
    shown = rows(inspect.threads(called.kernel))
    assert shown[server.number]["state"] == "running"
    assert shown[called.root.number]["state"] == f"waits for an answer of {inspect.thread_name(server)}"
    assert shown[client.number]["state"] == f"sends to {inspect.thread_name(server)}"
    assert shown[called.sigma0.number]["state"] == "waits for anyone"


def test_senders_and_details_show_the_queue(called: World) -> None:
    server, client = list(called.kernel.threads.values())[2:]
    view = inspect.senders(called.kernel)
    assert view.rows == ((inspect.thread_name(server), 1, inspect.thread_name(client)),)
    details = rows(inspect.thread_details(called.kernel, server))
    assert details["owes an answer to"]["value"] == inspect.thread_name(called.root)
    assert details["senders queued"]["value"] == inspect.thread_name(client)


def test_message_shows_words_as_the_tag_counts_them(called: World) -> None:
    view = inspect.message(called.kernel, called.root)
    assert view.rows == (("MR0", "0x0000000b"), ("MR1", "0x00000016"))
    assert "protocol 5, label 0x77" in view.title


def test_capabilities_and_objects_name_what_they_lead_to() -> None:
    world = World()
    world.new_thread(SERVER)
    gate = world.new_gate(GATE, SERVER, label=0x40)
    task = world.root.task
    assert task is not None
    row = rows(inspect.capabilities(world.kernel, task))[f"{GATE:#x}"]
    assert (row["kind"], row["leads to"]) == (
        "gate",
        f"{inspect.thread_name(world.kernel.threads[gate.thread.number])}, label 0x40"
        if gate.thread is not None
        else "",
    )
    assert [row[0] for row in inspect.objects(world.kernel, "gate").rows][-1] == gate.number


def test_ready_queues_and_timeouts() -> None:
    world = World(cores=2)
    world.new_thread(SERVER, priority=7)
    shown = inspect.ready_queues(world.kernel).rows
    assert (0, "running", world.root.priority, inspect.thread_name(world.root), "") in shown
    assert any(row[:3] == (0, "ready", 7) for row in shown)
    assert (1, "idle", 0, "", "") in shown
    assert world.call(world.root, abi.CAP_INVALID, 2, tag(7, 1), timeouts=0x0C01 + 3) is None
    view = inspect.timeouts(world.kernel)
    assert [row[2] for row in view.rows] == [inspect.thread_name(world.root)]
    assert "until" in inspect.state_text(world.kernel, world.root)


def map_on(world: World) -> None:
    """The root task's page goes on to a new task, read-only."""
    world.give_memory(PAGE)
    world.new_task(TASK)
    words = (abi.TASK_MAP, TARGET, memory_page(PAGE, 12, abi.RIGHT_R))
    assert world.object_call(TASK, abi.PROTO_TASK, *words, items=item(abi.BOOT_CAP_TASK)).tag == 0


def test_mapping_tree_and_page_table_agree() -> None:
    world = World()
    map_on(world)
    task = world.kernel.tasks[max(world.kernel.tasks)]
    tree = inspect_memory.mapping_tree(world.kernel, PAGE >> 12)
    assert [(str(row[0]).strip(), row[1], row[4]) for row in tree.rows] == [
        ("sigma0", f"{0x400000:#010x}", "rwx"),
        ("root", f"{PAGE:#010x}", "rwx"),
        (inspect.task_name(task), f"{TARGET:#010x}", "r--"),
    ]
    row = next(
        row for row in inspect_memory.page_table(world.kernel, task).rows if row[0] == f"{TARGET:#010x}"
    )
    assert row[2:5] == (1, f"{PAGE:#010x}", "r-u")
    walk = inspect_memory.page_table(world.kernel, task, TARGET + 0x123)
    assert walk.title.endswith(f"physical {PAGE + 0x123:#x}")
    assert [row[0] for row in walk.rows] == ["directory", "table"]
    assert inspect_memory.page_table(world.kernel, task, TARGET + 0x1000).title.endswith("not mapped")


def test_mapping_ways_are_the_trees_in_short() -> None:
    """Every frame below the root is in exactly one row group, with as many ways as its tree has ends."""
    world = World()
    map_on(world)
    world.give_memory(PAGE + 0x1000)
    world.give_memory(0x800000, order=22)
    task = world.kernel.tasks[max(world.kernel.tasks)]
    found = {row[0]: row for row in inspect_memory.mapping_ways(world.kernel).rows}
    assert found["0x00400000"][2:] == ("1", f"sigma0 > root > {inspect.task_name(task)} r--")
    assert found["0x00401000"][2:] == ("1", "sigma0 > root rwx")
    assert found["0x00800000"][2:] == ("1024", "sigma0 > root rwx")


def test_memory_adds_up_to_the_kernels_frames() -> None:
    world = World()
    map_on(world)
    frames = world.kernel.frames
    shown = rows(inspect_memory.memory(world.kernel))
    free = shown["kernel, free"]["kernel frames"]
    assert isinstance(free, int)
    assert free == frames.end_pfn - frames.first_pfn - frames.taken_count
    assert shown["root"]["pages"] == 1


def test_lines_align_numbers_to_the_right() -> None:
    view = View("title", ("name", "count"), (("a", 5), ("bcd", 1234)))
    assert view.lines() == ["title", "name  count", "a         5", "bcd    1234"]
    assert view.as_dict() == {
        "title": "title",
        "columns": ["name", "count"],
        "rows": [["a", 5], ["bcd", 1234]],
    }


def test_looking_changes_nothing(called: World) -> None:
    before = bytes(called.ram)
    entries = [thread.state for thread in called.kernel.threads.values()]
    kernel = called.kernel
    for view in (
        inspect.threads,
        inspect.tasks,
        inspect.objects,
        inspect.senders,
        inspect.ready_queues,
        inspect.timeouts,
        inspect.interrupts,
        inspect_memory.memory,
        inspect_memory.mapping_ways,
    ):
        assert view(kernel).lines()
    assert bytes(called.ram) == before
    assert [thread.state for thread in kernel.threads.values()] == entries
