/* More than one processor (ABI 15). Skipped where there is one. */
#include "conf.h"

static void need_two(void)
{
	l4_word_t present, maximum;

	CHECK_EQ(l4_scheduler_info(l4_own_scheduler(), &present, &maximum), 0);
	if ((present & 2) == 0)
		conf_skip("there is one processor");
}

static volatile l4_word_t counter, got_tag, got_label, got_error;

static void count_forever(void *argument)
{
	(void)argument;
	for (;;)
		counter++;
}

static void serve(void *argument)
{
	(void)argument;
	for (l4_message_t message = l4_wait(l4_forever());; message = l4_serve(l4_tag(1, 0, 0))) {
		got_tag = message.tag.raw;
		got_label = message.label;
	}
}

static l4_cap_t partner;

static void call_partner(void *argument)
{
	(void)argument;
	got_tag = l4_call(partner, l4_tag(2, 0, 0), l4_forever()).tag.raw;
	got_error = l4_utcb()->error;
	l4_sleep_forever();
}

static l4_cap_t start_on(unsigned cpu, l4_thread_entry_t *entry)
{
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .entry = entry, .cpu = cpu, .priority = CONF_HIGHER });

	conf_settle();
	return thread;
}

TEST(SMP0001, "a thread on another processor runs at the same time", "scheduler.run_thread:OK")
{
	need_two();
	start_on(1, count_forever);
	l4_word_t before = counter;
	conf_spin_us(3000);
	CHECK(counter != before);
}

TEST(SMP0002, "a call leads to another processor and back", "ipc.call:OK")
{
	need_two();
	l4_cap_t gate = conf_gate(start_on(1, serve), 0x20);
	for (int i = 0; i < 10; i++) {
		CHECK_EQ(l4_result(l4_call(gate, l4_tag(i, 3, 0), receive_within(20000)).tag), 1);
		CHECK_EQ(got_tag, l4_tag(i, 3, 0).raw);
		CHECK_EQ(got_label, 0x23);
	}
}

TEST(SMP0003, "a call from another processor finds a server that comes later", "ipc.wait:OK")
{
	need_two();
	partner = conf_worker();
	start_on(1, call_partner);
	CHECK_EQ(l4_result(l4_wait(receive_within(20000)).tag), 2);
	CHECK_EQ(l4_result(l4_reply(l4_tag(7, 0, 0), l4_no_wait())), 7);
	conf_settle();
	CHECK_EQ(got_tag, l4_tag(7, 0, 0).raw);
}

TEST(SMP0004, "timeouts hold for partners on other processors", "ipc.send:IPC2 ipc.call:IPC3")
{
	need_two();
	l4_cap_t busy = start_on(1, count_forever);
	CHECK_EQ(l4_result(l4_send(busy, l4_tag(0, 0, 0), 0, l4_no_wait())), ipc_error(L4_IPC_SEND_TIMEOUT));
	CHECK_EQ(l4_result(l4_send(busy, l4_tag(0, 0, 0), 0, send_within(3000))), ipc_error(L4_IPC_SEND_TIMEOUT));
}

TEST(SMP0005, "run thread moves a running thread to another processor", "scheduler.run_thread:OK")
{
	need_two();
	l4_cap_t thread = conf_helper(&(conf_helper_t){ .entry = count_forever, .priority = CONF_LOWER });
	l4_word_t before = counter;
	conf_spin_us(3000);
	CHECK_EQ(counter, before);
	CHECK_EQ(l4_scheduler_run_on(l4_own_scheduler(), thread, 1, CONF_LOWER), 0);
	conf_spin_us(5000);
	CHECK(counter != before);
	CHECK_EQ(l4_scheduler_run_on(l4_own_scheduler(), thread, 0, CONF_LOWER), 0);
	conf_settle(); /* the other processor may need a moment to let it go */
	before = counter;
	conf_spin_us(3000);
	CHECK_EQ(counter, before);
}

TEST(SMP0006, "run thread moves a blocked thread, which is reached as before", "scheduler.run_thread:OK ipc.call:OK")
{
	need_two();
	l4_cap_t thread = start_on(0, serve);
	for (unsigned cpu = 1; cpu < 4; cpu++) {
		CHECK_EQ(l4_scheduler_run_on(l4_own_scheduler(), thread, cpu % 2, CONF_HIGHER), 0);
		CHECK_EQ(l4_result(l4_call(thread, l4_tag(0, 0, 0), receive_within(20000)).tag), 1);
	}
}

TEST(SMP0007, "a thread sent to a processor that is not there stops until it is sent to one that is", "scheduler.run_thread:OK")
{
	need_two();
	l4_cap_t thread = start_on(1, count_forever);
	CHECK_EQ(l4_scheduler_run_on(l4_own_scheduler(), thread, 60, CONF_HIGHER), 0);
	conf_settle();
	l4_word_t before = counter;
	conf_spin_us(3000);
	CHECK_EQ(counter, before);
	CHECK_EQ(l4_scheduler_run_on(l4_own_scheduler(), thread, 1, CONF_HIGHER), 0);
	conf_spin_us(3000);
	CHECK(counter != before);
}

TEST(SMP0008, "an IRQ reaches a thread on another processor", "irq.trigger:OK")
{
	need_two();
	l4_cap_t irq = conf_irq();
	got_label = 0;
	CHECK_EQ(l4_irq_bind(irq, start_on(1, serve), 0x88), 0);
	l4_irq_trigger(irq);
	conf_settle();
	CHECK_EQ(got_label, 0x88);
}

TEST(SMP0009, "cancel reaches a thread on another processor", "thread.ex_regs:OK ipc.call:IPC7")
{
	need_two();
	partner = start_on(0, serve);
	CHECK_EQ(l4_thread_ex_regs(partner, (l4_word_t)count_forever, L4_EX_REGS_KEEP, L4_EX_REGS_CANCEL, NULL), 0);
	l4_task_delete(l4_own_task(), partner);
	partner = conf_worker();
	l4_cap_t caller = start_on(1, call_partner);
	CHECK_EQ(l4_result(l4_wait(receive_within(20000)).tag), 2);
	CHECK_EQ(l4_thread_ex_regs(caller, L4_EX_REGS_KEEP, L4_EX_REGS_KEEP, L4_EX_REGS_CANCEL, NULL), 0);
	conf_settle();
	CHECK_EQ(got_error, L4_IPC_RECEIVE_CANCELLED);
}

TEST(SMP0010, "what is unmapped is gone on the other processor too", "task.unmap:OK")
{
	need_two();
	l4_word_t page = (l4_word_t)conf_memory(12);
	l4_cap_t prober = conf_prober((l4_cap_t){ 0 });

	CHECK_EQ(l4_scheduler_run_on(l4_own_scheduler(), prober, 1, CONF_HIGHER), 0);
	CHECK_EQ(l4_task_map(l4_own_task(), l4_own_task(), l4_map_item(l4_memory_fpage(page, 12, 7), L4_HEAP_START)), 0);
	CHECK(conf_write(prober, L4_HEAP_START, 5));
	CHECK_EQ(l4_task_unmap(l4_own_task(), l4_memory_fpage(page, 12, 7), 0), 0);
	CHECK(!conf_read(prober, L4_HEAP_START, NULL));
	CHECK_EQ(*(volatile l4_word_t *)page, 5);
}

TEST(SMP0011, "switch to a thread on another processor does nothing", "thread.switch:OK")
{
	need_two();
	CHECK_EQ(l4_thread_switch(start_on(1, count_forever)), 0);
}

TEST(SMP0012, "the senders of a thread on another processor cannot be modified", "thread.modify_senders:EINVAL")
{
	need_two();
	CHECK_EQ(l4_thread_modify_senders(start_on(1, count_forever), ~0u, 0, 0, 0), -L4_EINVAL);
}

TEST(SMP0013, "a running thread on another processor is destroyed", "task.unmap:OK")
{
	need_two();
	CHECK_EQ(l4_task_delete(l4_own_task(), start_on(1, count_forever)), 0);
	conf_settle();
	l4_word_t before = counter;
	conf_spin_us(3000);
	CHECK_EQ(counter, before);
}

TEST(SMP0014, "a semaphore is shared by threads of several processors", "semaphore.down:OK semaphore.up:OK")
{
	need_two();
	l4_cap_t irq = conf_irq(), semaphore = conf_semaphore();
	CHECK_EQ(l4_irq_bind(irq, conf_worker(), 0), 0);
	start_on(1, count_forever);
	l4_semaphore_up(semaphore);
	CHECK_EQ(l4_semaphore_down(semaphore, l4_timeout_us(1000)), 0);
}
