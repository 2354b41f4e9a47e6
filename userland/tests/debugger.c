/* The debugger object (ABI 11.10). It is optional: without it programs see an IPC error, and these tests are skipped. A
 * kernel without the feature "jdb" may have the object, but does nothing but naming. */
#include "conf.h"

static l4_cap_t debugger(void)
{
	l4_cap_t cap = l4_cap(L4_BOOT_CAP_DEBUGGER);

	if (l4_task_cap_valid(l4_own_task(), cap) != 1)
		conf_skip("there is no debugger");
	return cap;
}

static l4_cap_t full_debugger(void)
{
	if (!l4_kip_has_feature(l4_kip(), "jdb"))
		conf_skip("the debugger only names");
	return debugger();
}

TEST(DBG0001, "an object is given a name", "debugger.set_name:OK")
{
	CHECK_EQ(l4_debugger_set_name(debugger(), conf_irq(), "an irq"), 0);
}

TEST(DBG0002, "every object has a number of its own", "debugger.global_id:OK")
{
	l4_word_t a = 0, b = 0, again = 0;
	l4_cap_t irq = conf_irq();

	CHECK_EQ(l4_debugger_global_id(full_debugger(), irq, &a), 0);
	CHECK_EQ(l4_debugger_global_id(full_debugger(), conf_irq(), &b), 0);
	CHECK_EQ(l4_debugger_global_id(full_debugger(), irq, &again), 0);
	CHECK(a != b);
	CHECK_EQ(a, again);
}

TEST(DBG0003, "characters are printed", "debugger.outchar:OK")
{
	l4_utcb()->mr[0] = L4_DEBUGGER_OUTCHAR;
	l4_utcb()->mr[1] = '\n';
	CHECK(l4_request(full_debugger(), l4_tag(L4_PROTO_DEBUGGER, 2, 0)) >= 0);
}
