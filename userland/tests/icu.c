/* Interrupt controllers: the machine's, and the ones of a single pin that log and scheduler are (ABI 11.7). */
#include "conf.h"

static l4_cap_t icu(void)
{
	return l4_cap(L4_BOOT_CAP_ICU);
}

/** The last pin of the machine: nothing drives it. */
static l4_word_t free_pin(void)
{
	l4_icu_info_t info;

	CHECK_EQ(l4_icu_info(icu(), &info), 0);
	return info.pins - 1;
}

static int request(l4_cap_t cap, l4_word_t operation, l4_word_t pin, unsigned words, unsigned items)
{
	l4_utcb()->mr[0] = operation;
	l4_utcb()->mr[1] = pin;
	return l4_request(cap, l4_tag(L4_PROTO_IRQ, words, items));
}

TEST(ICU0001, "the machine's controller tells its pins", "icu.info:OK")
{
	l4_icu_info_t info;

	CHECK_EQ(l4_icu_info(icu(), &info), 0);
	CHECK(info.pins >= 16);
}

TEST(ICU0002, "the log and the scheduler are controllers of one pin", "icu.info:OK")
{
	l4_icu_info_t info;

	CHECK_EQ(l4_icu_info(l4_own_log(), &info), 0);
	CHECK_EQ(info.pins, 1);
	CHECK_EQ(l4_icu_info(l4_own_scheduler(), &info), 0);
	CHECK_EQ(info.pins, 1);
}

TEST(ICU0003, "an IRQ is bound to a pin and unbound again", "icu.bind:OK icu.unbind:OK")
{
	l4_cap_t irq = conf_irq();

	CHECK_EQ(l4_icu_bind(icu(), free_pin(), irq), 0);
	CHECK_EQ(l4_icu_unbind(icu(), free_pin(), irq), 0);
	CHECK_EQ(l4_icu_bind(icu(), free_pin(), irq), 0);
	CHECK_EQ(l4_icu_unbind(icu(), free_pin(), irq), 0);
}

TEST(ICU0004, "a pin in use and a pin that is not there are invalid", "icu.bind:EINVAL")
{
	l4_cap_t first = conf_irq(), second = conf_irq();
	l4_word_t pin = free_pin();

	CHECK_EQ(l4_icu_bind(icu(), pin, first), 0);
	CHECK_EQ(l4_icu_bind(icu(), pin, second), -L4_EINVAL);
	CHECK_EQ(l4_icu_bind(icu(), pin + 1, second), -L4_EINVAL);
	CHECK_EQ(l4_icu_bind(l4_own_log(), 1, second), -L4_EINVAL);
	CHECK_EQ(l4_icu_unbind(icu(), pin, first), 0);
}

TEST(ICU0005, "binding to a pin needs the W right on the IRQ", "icu.bind:EPERM")
{
	l4_cap_t weak = conf_copy(conf_irq(), L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_S);

	CHECK_EQ(l4_icu_bind(icu(), free_pin(), weak), -L4_EPERM);
}

TEST(ICU0006, "binding without an IRQ, or with another object, does not work", "icu.bind:EMSGTOOSHORT,EINVAL")
{
	l4_word_t pin = free_pin();

	CHECK_EQ(request(icu(), L4_ICU_BIND, pin, 2, 0), -L4_EMSGTOOSHORT);
	CHECK_EQ(request(icu(), L4_ICU_BIND, pin, 1, 0), -L4_EMSGTOOSHORT);
	CHECK_EQ(l4_icu_bind(icu(), pin, l4_own_log()), -L4_EINVAL);
	CHECK_EQ(l4_icu_bind(icu(), pin, conf_slot()), -L4_EINVAL);
}

TEST(ICU0007, "binding to another pin leaves the first free", "icu.bind:OK")
{
	l4_cap_t first = conf_irq(), second = conf_irq();
	l4_word_t pin = free_pin();

	CHECK_EQ(l4_icu_bind(icu(), pin, first), 0);
	CHECK_EQ(l4_icu_bind(icu(), pin - 1, first), 0);
	CHECK_EQ(l4_icu_bind(icu(), pin, second), 0);
	CHECK_EQ(l4_icu_unbind(icu(), pin - 1, first), 0);
	CHECK_EQ(l4_icu_unbind(icu(), pin, second), 0);
}

TEST(ICU0008, "masking and unmasking answer nothing", "icu.mask:OK icu.unmask:OK")
{
	l4_cap_t irq = conf_irq();
	l4_word_t pin = free_pin();

	CHECK_EQ(l4_icu_bind(icu(), pin, irq), 0);
	CHECK_EQ(l4_icu_control(icu(), L4_ICU_UNMASK, pin).raw, l4_tag(L4_PROTO_IRQ, 2, 0).raw);
	CHECK_EQ(l4_icu_control(icu(), L4_ICU_MASK, pin).raw, l4_tag(L4_PROTO_IRQ, 2, 0).raw);
	CHECK_EQ(l4_icu_unbind(icu(), pin, irq), 0);
}

TEST(ICU0009, "a log's pin takes an IRQ", "icu.bind:OK icu.unbind:OK")
{
	l4_cap_t irq = conf_irq();

	CHECK_EQ(l4_icu_bind(l4_own_log(), 0, irq), 0);
	CHECK_EQ(l4_icu_unbind(l4_own_log(), 0, irq), 0);
	CHECK_EQ(l4_icu_bind(l4_own_scheduler(), 0, irq), 0);
	CHECK_EQ(l4_icu_unbind(l4_own_scheduler(), 0, irq), 0);
}

TEST(ICU0010, "the mode of a pin is set", "icu.set_mode:OK")
{
	CHECK_EQ(l4_icu_set_mode(icu(), free_pin(), 1), 0);
}

TEST(ICU0011, "another protocol is refused and an unknown operation not implemented", "icu.unknown:EBADPROTO,ENOSYS")
{
	CHECK_EQ(request(icu(), 0x55, 0, 2, 0), -L4_ENOSYS);
	l4_utcb()->mr[0] = L4_ICU_INFO;
	CHECK_EQ(l4_request(icu(), l4_tag(L4_PROTO_TASK, 1, 0)), -L4_EBADPROTO);
}

TEST(ICU0012, "binding an item that is no capability is too short a message", "icu.bind:EMSGTOOSHORT icu.unbind:EMSGTOOSHORT")
{
	l4_word_t pin = free_pin();

	CHECK_EQ(request(icu(), L4_ICU_UNBIND, pin, 1, 0), -L4_EMSGTOOSHORT);
	CHECK_EQ(request(icu(), L4_ICU_UNBIND, pin, 2, 0), -L4_EMSGTOOSHORT);
	CHECK_EQ(l4_icu_unbind(icu(), pin, l4_own_log()), -L4_EINVAL);
}

TEST(ICU0013, "unbinding a pin that nothing is bound to is no error", "icu.unbind:OK")
{
	CHECK_EQ(l4_icu_unbind(icu(), free_pin(), conf_irq()), 0);
}

TEST(ICU0014, "the mode of a pin that is not there is invalid, and without a mode the message too short",
     "icu.set_mode:EINVAL,EMSGTOOSHORT")
{
	CHECK_EQ(l4_icu_set_mode(icu(), 0x7ffff, 1), -L4_EINVAL);
	CHECK_EQ(request(icu(), L4_ICU_SET_MODE, free_pin(), 2, 0), -L4_EMSGTOOSHORT);
}

TEST(ICU0015, "a message without words is too short", "icu.unknown:EMSGTOOSHORT")
{
	CHECK_EQ(request(icu(), 0, 0, 0, 0), -L4_EMSGTOOSHORT);
	CHECK_EQ(request(l4_own_log(), 0, 0, 0, 0), -L4_EMSGTOOSHORT);
	CHECK_EQ(request(l4_own_scheduler(), 0, 0, 0, 0), -L4_EMSGTOOSHORT);
}

TEST(ICU0016, "the log knows no message-signalled interrupts", "icu.msi_info:ENOSYS,EMSGTOOSHORT")
{
	CHECK_EQ(request(l4_own_log(), L4_ICU_MSI_INFO, 0, 1, 0), -L4_EMSGTOOSHORT);
	CHECK_EQ(request(l4_own_log(), L4_ICU_MSI_INFO, 0, 4, 0), -L4_ENOSYS);
}

TEST(ICU0017, "masking a pin that is not there is ignored", "icu.mask:OK icu.unmask:OK")
{
	CHECK_EQ(l4_icu_control(icu(), L4_ICU_MASK, 0x7ffff).raw, l4_tag(L4_PROTO_IRQ, 2, 0).raw);
	CHECK_EQ(l4_icu_control(icu(), L4_ICU_UNMASK, 0x7ffff).raw, l4_tag(L4_PROTO_IRQ, 2, 0).raw);
}

TEST(ICU0018, "a semaphore is bound to a pin like an IRQ", "icu.bind:OK")
{
	l4_cap_t semaphore = conf_semaphore();

	CHECK_EQ(l4_icu_bind(icu(), free_pin(), semaphore), 0);
	CHECK_EQ(l4_icu_unbind(icu(), free_pin(), semaphore), 0);
}

TEST(ICU0019, "unmasking as a call sleeps until its receive timeout", "icu.unmask:IPC3 icu.mask:IPC3")
{
	for (l4_word_t operation = L4_ICU_UNMASK; operation <= L4_ICU_MASK; operation++) {
		l4_utcb()->mr[0] = operation;
		l4_utcb()->mr[1] = free_pin();
		l4_utcb()->mr[0] = operation;
		CHECK_EQ(l4_result(l4_call(icu(), l4_tag(L4_PROTO_IRQ, 2, 0), receive_within(2000)).tag),
			 ipc_error(L4_IPC_RECEIVE_TIMEOUT));
	}
}
