/* Capabilities and the objects behind them: counting, overwriting, destroying (ABI 7). */
#include "conf.h"

static l4_cap_t self(void)
{
	return l4_own_task();
}

enum { NO_DELETE = L4_OBJECT_RIGHTS & ~L4_OBJECT_RIGHT_D };

TEST(OBJ0001, "an object lives as long as one of its capabilities", "task.unmap:OK")
{
	l4_cap_t irq = conf_irq();
	l4_cap_t copy = conf_copy(irq, NO_DELETE);

	CHECK_EQ(l4_task_release(self(), irq), 0);
	CHECK(conf_valid(copy));
	CHECK_EQ(l4_irq_bind(copy, conf_worker(), 0), 0);
}

TEST(OBJ0002, "deleting destroys an object with all its capabilities", "task.unmap:OK")
{
	l4_cap_t irq = conf_irq();
	l4_cap_t copy = conf_copy(irq, NO_DELETE), task = conf_task();

	conf_give(task, irq);
	CHECK_EQ(l4_task_delete(self(), irq), 0);
	CHECK(!conf_valid(irq));
	CHECK(!conf_valid(copy));
	CHECK_EQ(l4_task_cap_valid(task, irq), 0);
}

TEST(OBJ0003, "deleting without the D right only removes the capability", "task.unmap:OK")
{
	l4_cap_t irq = conf_irq();
	l4_cap_t copy = conf_copy(irq, NO_DELETE);

	CHECK_EQ(l4_task_delete(self(), copy), 0);
	CHECK(!conf_valid(copy));
	CHECK(conf_valid(irq));
}

TEST(OBJ0004, "a weak capability does not keep its object", "task.map:OK")
{
	l4_cap_t irq = conf_irq(), weak = conf_slot();
	l4_item_t item = l4_object_item(irq, NO_DELETE);

	item.control |= L4_ITEM_WEAK | weak.raw;
	CHECK_EQ(l4_task_map(self(), self(), item), 0);
	CHECK(conf_valid(weak));
	CHECK_EQ(l4_task_release(self(), irq), 0);
	CHECK(!conf_valid(weak));
}

TEST(OBJ0005, "removing a weak capability does not count", "task.unmap:OK")
{
	l4_cap_t irq = conf_irq(), weak = conf_slot();
	l4_item_t item = l4_object_item(irq, NO_DELETE);

	item.control |= L4_ITEM_WEAK | weak.raw;
	CHECK_EQ(l4_task_map(self(), self(), item), 0);
	CHECK_EQ(l4_task_release(self(), weak), 0);
	CHECK(conf_valid(irq));
}

TEST(OBJ0006, "mapping into a slot in use replaces what is there", "task.map:OK")
{
	l4_cap_t irq = conf_irq(), other = conf_semaphore();

	CHECK_EQ(l4_task_map_cap(self(), self(), irq, other, NO_DELETE), 0);
	CHECK_EQ(l4_task_cap_equal(self(), irq, other), 1);
}

TEST(OBJ0007, "replacing a capability with the D right destroys its object, others' capabilities or not", "task.map:OK")
{
	l4_cap_t full = conf_irq(), other = conf_semaphore();
	l4_cap_t copy = conf_copy(full, NO_DELETE);

	CHECK_EQ(l4_task_map_cap(self(), self(), other, full, NO_DELETE), 0);
	CHECK(!conf_valid(copy));
	full = conf_irq();
	copy = conf_copy(full, NO_DELETE);
	CHECK_EQ(l4_task_map_cap(self(), self(), other, copy, NO_DELETE), 0);
	CHECK(conf_valid(full));
}

TEST(OBJ0008, "creating into a slot in use replaces what is there like mapping does", "factory.create_semaphore:OK")
{
	l4_cap_t full = conf_irq();
	l4_cap_t copy = conf_copy(full, NO_DELETE);

	CHECK_EQ(l4_factory_create_semaphore(l4_own_factory(), full), 0);
	CHECK(!conf_valid(copy));
}

TEST(OBJ0009, "mapping a capability onto its own slot just loses it", "task.map:OK")
{
	l4_cap_t irq = conf_irq();

	CHECK_EQ(l4_task_map_cap(self(), self(), irq, irq, L4_OBJECT_RIGHTS), 0);
	CHECK(!conf_valid(irq));
}

TEST(OBJ0010, "a mapping is a copy: removing the one it came from leaves it", "task.unmap:OK")
{
	l4_cap_t irq = conf_irq();
	l4_cap_t first = conf_copy(irq, NO_DELETE);
	l4_cap_t second = conf_copy(first, NO_DELETE);

	CHECK_EQ(l4_task_release(self(), first), 0);
	CHECK(conf_valid(second));
	CHECK(conf_valid(irq));
}

TEST(OBJ0011, "rights taken from one capability stay with its copies", "task.unmap:OK")
{
	l4_cap_t irq = conf_irq();
	l4_cap_t copy = conf_copy(irq, NO_DELETE);

	CHECK_EQ(l4_task_unmap(self(), l4_object_fpage(irq, 0, L4_OBJECT_RIGHT_S), L4_UNMAP_SELF), 0);
	CHECK_EQ(l4_irq_detach(irq), -L4_EPERM);
	CHECK_EQ(l4_irq_detach(copy), -L4_ENOENT);
}

TEST(OBJ0012, "rights that a capability lacks cannot be passed on", "task.map:OK")
{
	l4_cap_t weak = conf_copy(conf_irq(), L4_OBJECT_RIGHT_R);
	l4_cap_t again = conf_copy(weak, L4_OBJECT_RIGHTS);

	CHECK_EQ(l4_task_cap_equal(self(), weak, again), 1);
	CHECK_EQ(l4_irq_detach(again), -L4_EPERM);
}

TEST(OBJ0013, "granting moves a capability", "task.map:OK")
{
	l4_cap_t irq = conf_irq(), slot = conf_slot();
	l4_item_t item = l4_object_item(irq, L4_OBJECT_RIGHTS);

	item.control |= L4_ITEM_GRANT | slot.raw;
	CHECK_EQ(l4_task_map(self(), self(), item), 0);
	CHECK(!conf_valid(irq));
	CHECK(conf_valid(slot));
	CHECK_EQ(l4_irq_bind(slot, conf_worker(), 0), 0);
}
