/* Tasks: address space, capability table, I/O ports (ABI 7, 11.2). */
#ifndef L4_TASK_H
#define L4_TASK_H

#include <l4/ipc.h>

/** Maps `item` of the task `source` into `task`; its send base is the destination (address, or slot << 12).
 * An empty source is no error. */
static inline int l4_task_map(l4_cap_t task, l4_cap_t source, l4_item_t item)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_TASK_MAP;
	utcb->mr[1] = item.control;
	utcb->mr[2] = item.fpage.raw;
	l4_put_item(3, l4_argument(source));
	return l4_request(task, l4_tag(L4_PROTO_TASK, 3, 1));
}

/** Passes a capability on into slot `to` of `task`, with the given rights. */
static inline int l4_task_map_cap(l4_cap_t task, l4_cap_t source, l4_cap_t from, l4_cap_t to, l4_word_t rights)
{
	l4_item_t item = l4_object_item(from, rights);

	item.control |= to.raw;
	return l4_task_map(task, source, item);
}

/** Takes the rights named in `fpage` from everything that was mapped on from it, and, with L4_UNMAP_SELF, from
 * `task` itself. L4_UNMAP_SELF | L4_UNMAP_DELETE also destroys the objects. */
static inline int l4_task_unmap(l4_cap_t task, l4_fpage_t fpage, l4_word_t mask)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_TASK_UNMAP;
	utcb->mr[1] = mask;
	utcb->mr[2] = fpage.raw;
	return l4_request(task, l4_tag(L4_PROTO_TASK, 3, 0));
}

/** The pages' L4_ACCESS_* flags, gathered by the l4_task_unmap just before. */
static inline l4_word_t l4_task_unmapped_access(void)
{
	return l4_fpage_rights((l4_fpage_t){ l4_utcb()->mr[2] });
}

/** Removes a capability; the object lives on if others hold it. */
static inline int l4_task_release(l4_cap_t task, l4_cap_t cap)
{
	return l4_task_unmap(task, l4_object_fpage(cap, 0, L4_OBJECT_RIGHTS), L4_UNMAP_SELF);
}

/** Destroys the object and with it everybody's capabilities to it. */
static inline int l4_task_delete(l4_cap_t task, l4_cap_t cap)
{
	return l4_task_unmap(task, l4_object_fpage(cap, 0, L4_OBJECT_RIGHTS), L4_UNMAP_SELF | L4_UNMAP_DELETE);
}

/** 1 if slot `cap` of `task` holds an object, else 0. */
static inline int l4_task_cap_valid(l4_cap_t task, l4_cap_t cap)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_TASK_CAP_INFO;
	utcb->mr[1] = cap.raw;
	return l4_request(task, l4_tag(L4_PROTO_TASK, 2, 0));
}

/** 1 if both slots hold the same object with the same view and rights, else 0. */
static inline int l4_task_cap_equal(l4_cap_t task, l4_cap_t a, l4_cap_t b)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_TASK_CAP_INFO;
	utcb->mr[1] = a.raw;
	utcb->mr[2] = b.raw;
	return l4_request(task, l4_tag(L4_PROTO_TASK, 3, 0));
}

/** Adds kernel-user memory (for UTCBs) of order 12 to 17 where nothing is mapped yet. */
static inline int l4_task_add_ku_mem(l4_cap_t task, l4_fpage_t area)
{
	l4_utcb_t *utcb = l4_utcb();

	utcb->mr[0] = L4_TASK_ADD_KU_MEM;
	utcb->mr[1] = area.raw;
	return l4_request(task, l4_tag(L4_PROTO_TASK, 2, 0));
}

#endif
