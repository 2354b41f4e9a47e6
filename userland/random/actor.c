#include "actor.h"
#include "places.h"

#include <l4/string.h>

actor_t actors[THREADS];
static char stacks[THREADS][STACK_BYTES] __attribute__((aligned(16)));

l4_word_t actor_stack(unsigned number)
{
	l4_word_t *top = (l4_word_t *)(stacks[number] + STACK_BYTES - 16);

	top[0] = number;
	top[-1] = 0;
	return (l4_word_t)&top[-1];
}

/* --- a trampoline: the block of an actor lies behind the UTCBs of its task ------------------------------------------ */

typedef struct {
	l4_word_t handler, user_data[2], saved_mr0, flags, state[L4_EXCEPTION_WORDS];
} trampoline_t;

/** Asks the thread operation in MR[0] of itself, and does not come back. ESP is the interrupted thread's. */
void actor_tramp(void);
__asm__(".globl actor_tramp\n"
	"actor_tramp:\n\t"
	"subl $128, %esp\n\t"
	"pushl %edx\n\t"
	"pushl %eax\n\t"
	"call actor_tramp_handle\n\t"
	"movl %fs:0, %ecx\n\t"
	"movl %eax, (%ecx)\n\t"
	"movl $(-12 << 16) + 1, %eax\n\t"
	"movl $0xfffff803, %edx\n\t"
	"xorl %ecx, %ecx\n\t"
	"movl $0xeacff000, %edi\n\t"
	"call *%edi\n\t"
	"ud2\n\t");

/** In the handler: makes the page there or does not, and says how the thread shall go on. */
l4_word_t actor_tramp_handle(trampoline_t *block, l4_word_t fault);
l4_word_t actor_tramp_handle(trampoline_t *block, l4_word_t fault)
{
	if (block->user_data[0] & 1)
		l4_task_map(l4_own_task(), l4_own_task(),
			    l4_map_item(l4_memory_fpage(page_address(0), L4_PAGE_SHIFT, L4_MEMORY_RIGHTS), fault));
	bool gives_up = ++block->user_data[1] > 3;
	return L4_THREAD_PF_TRAMP_CONTROL | (gives_up || block->user_data[0] & 2 ? L4_PF_TRAMP_REFLECT : L4_PF_TRAMP_RESUME);
}

static int tramp_control(l4_word_t operation, l4_word_t argument, unsigned words)
{
	l4_utcb()->mr[0] = L4_THREAD_PF_TRAMP_CONTROL | operation;
	l4_utcb()->mr[1] = argument;
	return l4_request(l4_self(), l4_tag(L4_PROTO_THREAD, words, 0));
}

static void act_with_trampoline(actor_t *me, unsigned number)
{
	trampoline_t *block = (trampoline_t *)trampoline_address(number);

	memset(block, 0, sizeof *block);
	block->handler = (l4_word_t)actor_tramp;
	block->user_data[0] = me->act.mr[0];
	me->tag = (l4_word_t)tramp_control(L4_PF_TRAMP_SETUP, (l4_word_t)block, 2);
	me->value = *(volatile l4_word_t *)me->act.address;
	me->label = block->user_data[1];
	me->error = (l4_word_t)tramp_control(L4_PF_TRAMP_DISABLE, 0, 1);
}

/* --- acting ------------------------------------------------------------------------------------------------------------- */

static void call(actor_t *me)
{
	l4_utcb_t *utcb = l4_utcb();
	const act_t *act = &me->act;

	utcb->bdr = act->bdr;
	for (unsigned i = 0; i < ACT_BRS; i++)
		utcb->br[i] = act->br[i];
	for (unsigned i = 0; i < L4_UTCB_MR_WORDS; i++)
		utcb->mr[i] = act->mr[i];
	utcb->error = 0;
	l4_message_t message = l4_invoke((l4_cap_t){ act->selector }, 0, (l4_tag_t){ act->tag }, act->label,
					 (l4_timeouts_t){ act->timeouts });
	me->tag = message.tag.raw;
	me->label = message.label;
	me->error = utcb->error;
	for (unsigned i = 0; i < L4_UTCB_MR_WORDS; i++)
		me->mr[i] = utcb->mr[i];
}

void actor_act(void *argument)
{
	unsigned number = (unsigned)(l4_word_t)argument;
	actor_t *me = &actors[number];
	volatile l4_word_t *place = (volatile l4_word_t *)me->act.address;
	unsigned char byte = 0;

	me->value = 0;
	switch (me->act.kind) {
	case ACT_CALL:
		call(me);
		break;
	case ACT_READ:
		me->value = *place;
		break;
	case ACT_WRITE:
		*place = me->act.label;
		break;
	case ACT_BREAK:
		__asm__ volatile("int3");
		break;
	case ACT_PORT:
		__asm__ volatile("inb %w1, %0" : "=a"(byte) : "d"(me->act.address));
		me->value = byte;
		break;
	case ACT_TRAMPOLINE:
		act_with_trampoline(me, number);
		break;
	}
	me->busy = false;
	me->fresh = true;
	l4_sleep_forever();
}

void actor_park(void *argument)
{
	actor_t *me = &actors[(unsigned)(l4_word_t)argument];

	me->busy = false;
	me->parked = true;
	l4_sleep_forever();
}

void actor_probe(void *argument)
{
	unsigned number = (unsigned)(l4_word_t)argument;
	l4_word_t *mr = l4_utcb()->mr;

	for (;;) {
		l4_wait(l4_forever());
		volatile l4_word_t *place = (volatile l4_word_t *)mr[1];
		l4_word_t value = *place;
		if (mr[0])
			*place = value;
		mr[0] = value;
		l4_send(handler_cap(number), l4_tag(PROTO_PROBED, 1, 0), 0, l4_forever());
	}
}
