"""Capability tables: the kernel against `support.specification`, with the same random histories.

Objects are created, mapped, granted, weakened, unmapped, deleted and lose counts, by real system calls
from the root task; tasks are objects too, and their tables end with them. After each step everything a
program can observe is compared: which capabilities are valid, and which are equal.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from l4lab.kernel.fiasco import abi
from l4lab.kernel.objects import Task
from support import specification as spec
from support.kernel_world import World, item, object_page, tag

TASKS = 3
SLOTS = range(0x20, 0x28)  # of every task: where the histories happen
HANDLES = 0x40  # root's own way to the tasks: weak, so that they can die
NAMES = ("root", "a", "b", "c")

tables = st.sampled_from(NAMES)
indices = st.sampled_from(SLOTS)
orders = st.sampled_from([0, 0, 0, 1, 2, 3])
cap_rights = st.sampled_from([15, 15, 7, 7, 5, 6, 4, 12, 3, 0])
masks = st.sampled_from([abi.UNMAP_SELF, abi.UNMAP_SELF, abi.UNMAP_SELF | abi.UNMAP_DELETE, 0])
extras = st.sampled_from([0xE0, 0xE0, 0x20, 0xC0, 0])
KINDS = {
    "gate": (abi.PROTO_NONE,),
    "irq": (abi.PROTO_IRQ_SENDER,),
    "semaphore": (abi.PROTO_SEMAPHORE,),
    "factory": (abi.PROTO_FACTORY, 0x10000),
    "thread": (abi.PROTO_THREAD,),
    "task": (abi.PROTO_TASK, 0),
}


class CapabilityTables(RuleBasedStateMachine):
    """The root task and three others; root acts for all, by weak capabilities to them."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.spec = spec.Tables()
        self.tables: dict[str, spec.Table] = {"root": self.spec.new_table()}
        self.tasks: dict[str, spec.Object] = {}

    @initialize()
    def three_tasks(self) -> None:
        for number, name in enumerate(NAMES[1:]):
            self.make("root", SLOTS[number], "task")
            self.adopt(name, SLOTS[number])

    def adopt(self, name: str, slot: int) -> None:
        """`name` is from now on the task in root's slot; a weak capability keeps hold of it."""
        obj = self.tables["root"].slots[slot].object
        assert obj.table is not None
        self.tables[name], self.tasks[name] = obj.table, obj
        handle = HANDLES + NAMES.index(name)
        page = object_page(slot, abi.OBJECT_RIGHT_R | abi.OBJECT_RIGHT_W | abi.OBJECT_RIGHT_S)
        self.root_task_call(
            abi.BOOT_CAP_TASK, abi.TASK_MAP, handle << 12 | abi.ITEM_WEAK, page, *item(abi.BOOT_CAP_TASK)
        )

    # --- steps ------------------------------------------------------------------------------------

    @rule(slot=indices, kind=st.sampled_from(sorted(KINDS)))
    def create(self, slot: int, kind: str) -> None:
        """A new object in a slot of root's, whatever was there."""
        self.make("root", slot, kind)

    def make(self, name: str, slot: int, kind: str) -> None:
        assert self.world.create(slot, *KINDS[kind]).tag == tag(0, 0, 1)
        obj = spec.Object(is_gate=kind == "gate", table=self.spec.new_table() if kind == "task" else None)
        spec.create(self.tables[name], slot, obj)

    @rule(
        giver=tables, taker=tables, index=indices, at=indices, order=orders, rights=cap_rights,
        extra=extras, weak=st.booleans(), grant=st.booleans(),
    )  # fmt: skip
    def task_map(
        self, giver: str, taker: str, index: int, at: int, order: int, rights: int, extra: int,
        weak: bool, grant: bool,
    ) -> None:  # fmt: skip
        """task.map of a range of capabilities."""
        if not (self.lives(giver) and self.lives(taker)):
            return
        control = at << 12 | extra | (abi.ITEM_WEAK if weak else 0) | (abi.ITEM_GRANT if grant else 0)
        index &= -(1 << order)
        answer = self.root_task_call(
            self.handle(taker),
            abi.TASK_MAP,
            control,
            object_page(index, rights, order),
            *item(self.handle(giver)),
        )
        assert answer == tag(0)
        start, to, log2 = index, at >> order << order, order
        spec.map_caps(
            self.tables[giver], start, self.tables[taker], to, 1 << log2, rights,
            extra=extra, weak=weak, grant=grant,
        )  # fmt: skip

    @rule(name=tables, index=indices, order=orders, rights=cap_rights, mask=masks)
    def unmap(self, name: str, index: int, order: int, rights: int, mask: int) -> None:
        """task.unmap of a range."""
        if not self.lives(name):
            return
        index &= -(1 << order)
        assert self.root_task_call(
            self.handle(name), abi.TASK_UNMAP, mask, object_page(index, rights, order)
        ) == tag(0, 3)
        if mask & abi.UNMAP_SELF:
            delete = bool(mask & abi.UNMAP_DELETE)
            spec.unmap_caps(self.tables[name], index, 1 << order, rights, delete=delete)

    @rule(index=indices, difference=st.sampled_from([1, 1, 2, 0, -1, -5]))
    def dec_refcnt(self, index: int, difference: int) -> None:
        """Take something off an object's count; nothing else happens for now."""
        cap = self.tables["root"].slots.get(index)
        if cap is None or not cap.object.is_gate or not cap.extra & spec.GATE_SERVER:
            return
        world = self.world
        answer = world.call(
            world.root,
            index << 12,
            abi.OP_CALL,
            tag(abi.PROTO_KOBJECT, 2),
            abi.KOBJECT_DEC_REFCNT,
            difference,
        )
        spec.deduct(cap.object, difference)
        assert answer is not None and answer.tag == tag(0, 1)
        assert world.message(world.root, 1) == [cap.object.count & 0xFFFFFFFF]

    @rule(name=st.sampled_from(NAMES[1:]), slot=indices)
    def take_another_task(self, name: str, slot: int) -> None:
        """When a task has died, another one gets its role, so that there is always something to do."""
        if not self.lives(name):
            self.make("root", slot, "task")
            self.adopt(name, slot)

    # --- parts ------------------------------------------------------------------------------------

    def lives(self, name: str) -> bool:
        return name == "root" or self.tasks[name].alive

    def handle(self, name: str) -> int:
        return abi.BOOT_CAP_TASK if name == "root" else HANDLES + NAMES.index(name)

    def root_task_call(self, slot: int, operation: int, *words: int) -> int:
        """A call of the root task on a task capability; its answer's tag."""
        items = 1 if operation == abi.TASK_MAP else 0
        count = 1 + len(words) - 2 * items
        world = self.world
        answer = world.call(
            world.root, slot << 12, abi.OP_CALL, tag(abi.PROTO_TASK, count, items), operation, *words
        )
        assert answer is not None
        return answer.tag

    # --- comparison -------------------------------------------------------------------------------

    @invariant()
    def same_tables(self) -> None:
        self.world.check = False  # the questions change nothing
        for name in self.tables:
            task = self.world.call(
                self.world.root,
                self.handle(name) << 12,
                abi.OP_CALL,
                tag(abi.PROTO_TASK, 2),
                abi.TASK_CAP_INFO,
                1 << 12,
            )
            assert task is not None and task.failed != self.lives(name), name
            if self.lives(name):
                self.compare(name)
        self.world.check = True

    def compare(self, name: str) -> None:
        table, slot = self.tables[name], self.handle(name)
        for index in SLOTS:
            valid = self.root_task_call(slot, abi.TASK_CAP_INFO, index << 12)
            assert valid == tag(int(index in table.slots)), (name, index)
        for index in SLOTS:
            for other in range(index + 1, SLOTS.stop):
                same = self.root_task_call(slot, abi.TASK_CAP_INFO, index << 12, other << 12)
                assert same == tag(int(spec.equal(table, index, other))), (name, index, other)
        wanted = {i: (cap.rights, cap.extra, cap.counted) for i, cap in table.slots.items()}
        assert self.real_slots(name) == wanted, name

    def real_slots(self, name: str) -> dict[int, tuple[int, int, bool]]:
        """What no system call tells: the rights in full, and what counts."""
        task = self.world.object(self.handle(name))
        assert isinstance(task, Task)
        slots = task.capability_table.slots
        return {i: (cap.rights, cap.extra, cap.counted) for i, cap in slots.items() if i in SLOTS}


TestCapabilityTables = CapabilityTables.TestCase
TestCapabilityTables.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
