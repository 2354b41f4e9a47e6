"""Address spaces: the kernel against `support.specification`, with the same random histories.

Every step is made of real system calls (task.map, task.unmap, map and grant items in messages, tasks
created and destroyed); after each, the page tables in RAM, walked as the hardware walks them, must
hold exactly what the specification says, and every kernel invariant must hold.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from l4lab.kernel import paging
from l4lab.kernel.fiasco import abi
from l4lab.kernel.objects import Task
from l4lab.kernel.thread import Thread
from support import specification as spec
from support.kernel_world import KERNEL_BYTES, RAM_BYTES, World, item, memory_page, object_page, tag

USER_FRAMES = (RAM_BYTES - KERNEL_BYTES) >> 12
UNIVERSE = 4 * spec.BLOCK  # pages that the histories use
FAR_UTCB = abi.BOOT_UTCB
NEAR_UTCB = 0x401000  # in the second block: no 4 MiB page fits there
UTCBS = {"root": abi.BOOT_UTCB, "a": FAR_UTCB, "b": NEAR_UTCB, "c": FAR_UTCB}
TASK_SLOTS = {"sigma0": 33, "root": abi.BOOT_CAP_TASK, "a": 30, "b": 31, "c": 32}
THREAD_SLOTS = {"sigma0": abi.BOOT_CAP_THREAD, "root": abi.BOOT_CAP_THREAD, "a": 40, "b": 41, "c": 42}

source_names = st.sampled_from(["sigma0", "sigma0", "root", "a", "b", "c"])
target_names = st.sampled_from(["root", "a", "b", "c", "a", "b", "sigma0"])
blocks = st.integers(0, 3)
offsets = st.sampled_from([0, 0, 0, 1, 2, 3, 5, 1023])
page_numbers = st.builds(lambda block, offset: block * spec.BLOCK + offset, blocks, offsets)
orders = st.sampled_from([12, 12, 13, 14, 22, 22, 23, 24])
page_rights = st.sampled_from([7, 7, 7, 6, 5, 4, 3, 2, 1, 0])


def page_tables(world: World, task: Task) -> dict[int, tuple[int, bool]]:
    """What the hardware finds: page -> (frame, may be written), user pages only."""
    found: dict[int, tuple[int, bool]] = {}
    directory = task.space.tables.directory_pfn << 10
    for index in range(abi.USER_LIMIT >> 22):
        pde = world.ram[directory + index]
        if not pde & paging.PRESENT:
            continue
        assert pde & paging.USER
        if pde & paging.SUPERPAGE:
            assert not pde & 0x3FE000, "a 4 MiB frame that is not aligned"
            writable = bool(pde & paging.WRITABLE)
            found.update((index << 10 | i, ((pde >> 12) + i, writable)) for i in range(1024))
            continue
        table = (pde >> 12) << 10
        for offset, pte in enumerate(world.ram[table : table + 1024].tolist()):
            if pte & paging.PRESENT:
                assert pte & paging.USER
                assert pde & paging.WRITABLE
                found[index << 10 | offset] = (pte >> 12, bool(pte & paging.WRITABLE))
    return found


class AddressSpaces(RuleBasedStateMachine):
    """sigma0, the root task and three tasks that give each other memory."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.get_sigma0()
        self.tasks: dict[str, Task] = {}
        self.threads: dict[str, Thread] = {"sigma0": self.world.sigma0, "root": self.world.root}
        self.spaces: dict[str, spec.Space] = {"sigma0": spec.Sigma0(USER_FRAMES)}
        for name in ("root", "a", "b", "c"):
            self.add_task(name)

    def get_sigma0(self) -> None:
        """The root task asks sigma0 for its task capability."""
        world = self.world
        world.receive_buffers(world.root, TASK_SLOTS["sigma0"] << 12 | abi.BUFFER_ITEM | abi.BUFFER_SMALL)
        assert world.call(world.root, abi.BOOT_CAP_PAGER << 12, abi.OP_CALL, tag(1)) is None
        answer = item(abi.BOOT_CAP_TASK)
        world.call(world.sigma0, abi.CAP_INVALID, abi.OP_REPLY_AND_WAIT, tag(0, 0, 1), *answer)
        assert world.object(TASK_SLOTS["sigma0"]) is world.sigma0.task
        world.call(world.root, abi.BOOT_CAP_PAGER << 12, abi.OP_SEND, tag(2))  # sigma0 is ready, and stays so

    def add_task(self, name: str) -> None:
        world, slot = self.world, TASK_SLOTS[name]
        if name != "root":
            world.new_task(slot, UTCBS[name])
            self.threads[name] = world.new_thread(THREAD_SLOTS[name], slot, utcb=UTCBS[name])
        task = world.object(slot)
        assert isinstance(task, Task)
        self.tasks[name] = task
        self.spaces[name] = spec.Space({UTCBS[name] >> 12})

    # --- steps ------------------------------------------------------------------------------------

    @rule(
        giver=source_names, receiver=target_names, page=page_numbers, at=page_numbers, order=orders,
        rights=page_rights, grant=st.booleans(),
    )  # fmt: skip
    def task_map(
        self, giver: str, receiver: str, page: int, at: int, order: int, rights: int, grant: bool
    ) -> None:
        """The root task maps from one task to another."""
        world = self.world
        control = at << 12 | (abi.ITEM_GRANT if grant else 0)
        page &= -(1 << order - 12)
        words = (abi.TASK_MAP, control, memory_page(page << 12, order, rights), *item(TASK_SLOTS[giver]))
        answer = world.call(
            world.root, TASK_SLOTS[receiver] << 12, abi.OP_CALL, tag(abi.PROTO_TASK, 3, 1), *words
        )
        assert answer is not None and answer.tag == tag(0)
        start, to, size = spec.place(page, order - 12, 0, 20, at)
        spec.map_pages(self.spaces[giver], start, self.spaces[receiver], to, size, rights, grant=grant)

    @rule(
        giver=source_names, receiver=target_names, page=page_numbers, order=orders, window=page_numbers,
        window_order=orders, hot_spot=page_numbers, rights=page_rights, grant=st.booleans(),
    )  # fmt: skip
    def message(
        self, giver: str, receiver: str, page: int, order: int, window: int, window_order: int,
        hot_spot: int, rights: int, grant: bool,
    ) -> None:  # fmt: skip
        """A thread of one task sends another's thread an item; the receiver says where it may land."""
        if receiver in (giver, "sigma0"):
            return
        world = self.world
        page &= -(1 << order - 12)
        window &= -(1 << window_order - 12)
        to_thread, from_thread = self.threads[receiver], self.threads[giver]
        self.give_capability(giver, receiver)
        world.receive_buffers(to_thread, abi.BUFFER_ITEM, memory_page(window << 12, window_order))
        assert world.call(to_thread, abi.CAP_INVALID, abi.OP_WAIT) is None
        control = hot_spot << 12 | abi.ITEM_MAP | (abi.ITEM_GRANT if grant else 0)
        words = (control, memory_page(page << 12, order, rights))
        answer = world.call(from_thread, 50 << 12, abi.OP_SEND, tag(0, 0, 1), *words)
        assert answer is None or not answer.failed
        before = len(self.spaces[receiver].sigma)
        start, to, size = spec.place(page, order - 12, window, window_order - 12, hot_spot)
        spec.map_pages(self.spaces[giver], start, self.spaces[receiver], to, size, rights, grant=grant)
        kind = world.message(to_thread, 1)[0] & abi.ITEM_KIND_FLEXPAGE
        assert kind == abi.ITEM_KIND_MAPPED or len(self.spaces[receiver].sigma) <= before

    @rule(name=source_names, page=page_numbers, order=orders, rights=page_rights, own=st.booleans())
    def unmap(self, name: str, page: int, order: int, rights: int, own: bool) -> None:
        """task.unmap of one flexpage."""
        page &= -(1 << order - 12)
        mask = abi.UNMAP_SELF if own else 0
        answer = self.call_task(name, abi.TASK_UNMAP, mask, memory_page(page << 12, order, rights))
        assert answer == tag(0, 3)
        spec.unmap_pages(self.spaces[name], page, 1 << order - 12, rights, also_self=own)

    @rule(name=source_names, rights=st.sampled_from([0xF, 7, 2, 4]), own=st.booleans())
    def unmap_everything(self, name: str, rights: int, own: bool) -> None:
        """task.unmap of a whole address space."""
        mask = abi.UNMAP_SELF if own else 0
        self.call_task(name, abi.TASK_UNMAP, mask, memory_page(0, 32, rights))
        spec.unmap_pages(self.spaces[name], 0, UNIVERSE + 2 * spec.BLOCK, rights, also_self=own)

    @rule(name=st.sampled_from(["a", "b", "c"]))
    def replace(self, name: str) -> None:
        """A task ends, all that came from its pages with it; an empty one takes its place."""
        for slot in (TASK_SLOTS[name], THREAD_SLOTS[name]):
            mask = abi.UNMAP_SELF | abi.UNMAP_DELETE
            self.call_task("root", abi.TASK_UNMAP, mask, object_page(slot))
        spec.unmap_pages(self.spaces[name], 0, UNIVERSE + 2 * spec.BLOCK, spec.R, also_self=True)
        self.add_task(name)

    # --- parts ------------------------------------------------------------------------------------

    def call_task(self, name: str, operation: int, *words: int) -> int:
        world = self.world
        answer = world.call(
            world.root,
            TASK_SLOTS[name] << 12,
            abi.OP_CALL,
            tag(abi.PROTO_TASK, 1 + len(words)),
            operation,
            *words,
        )
        assert answer is not None
        return answer.tag

    def give_capability(self, giver: str, receiver: str) -> None:
        """The sender gets the receiver's thread capability, from the root task, into its slot 50."""
        words = (abi.TASK_MAP, 50 << 12, object_page(THREAD_SLOTS[receiver], 7), *item(abi.BOOT_CAP_TASK))
        world = self.world
        answer = world.call(
            world.root, TASK_SLOTS[giver] << 12, abi.OP_CALL, tag(abi.PROTO_TASK, 3, 1), *words
        )
        assert answer is not None and answer.tag == tag(0)

    # --- comparison -------------------------------------------------------------------------------

    @invariant()
    def same_pages(self) -> None:
        for name, task in self.tasks.items():
            space = self.spaces[name]
            found = page_tables(self.world, task)
            for page in space.fixed:
                assert found.pop(page)[1]
            wanted = {v: (page.frame, bool(page.rights & spec.W)) for v, page in space.sigma.items()}
            assert found == wanted, name


TestAddressSpaces = AddressSpaces.TestCase
TestAddressSpaces.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
