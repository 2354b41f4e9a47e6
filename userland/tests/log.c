/* The log (ABI 11.9). */
#include "conf.h"

static l4_cap_t log_cap(void)
{
	return l4_own_log();
}

TEST(LOG0001, "a write answers nothing: the tag comes back as it was sent", "log.write:OK")
{
	l4_utcb_t *utcb = l4_utcb();
	l4_tag_t tag = l4_tag_with(l4_tag(L4_PROTO_LOG, 2, 0), L4_TAG_SCHEDULE);

	utcb->mr[0] = L4_LOG_WRITE;
	utcb->mr[1] = 0;
	l4_message_t message = l4_invoke(log_cap(), L4_OP_SEND, tag, 0x1234, l4_forever());
	CHECK_EQ(message.tag.raw, tag.raw);
	CHECK_EQ(message.label, 0x1234);
}

TEST(LOG0002, "a write of more than 244 bytes is ignored without an error", "log.write:OK")
{
	l4_tag_t tag = l4_tag(L4_PROTO_LOG, 63, 0);

	conf_fill(0x41414141, 63);
	l4_utcb()->mr[0] = L4_LOG_WRITE;
	l4_utcb()->mr[1] = L4_LOG_WRITE_MAX_BYTES + 1;
	CHECK_EQ(l4_send(log_cap(), tag, 0, l4_forever()).raw, tag.raw);
}

TEST(LOG0003, "a write as a call sleeps until its receive timeout, for the log never sends", "log.write:IPC3")
{
	l4_tag_t tag = l4_tag(L4_PROTO_LOG, 2, 0);
	uint64_t before = conf_now_us();

	l4_utcb()->mr[0] = L4_LOG_WRITE;
	l4_utcb()->mr[1] = 0;
	CHECK_EQ(l4_call(log_cap(), tag, receive_within(3000)).tag.raw, tag.raw | L4_TAG_ERROR);
	CHECK_EQ(l4_utcb()->error, L4_IPC_RECEIVE_TIMEOUT);
	CHECK(conf_now_us() - before >= 3000);
}

TEST(LOG0004, "a read of what nobody typed answers 0 bytes and that the buffer is drained", "log.read:OK")
{
	l4_utcb()->mr[0] = 4 << 16 | L4_LOG_READ;
	l4_tag_t tag = l4_call(log_cap(), l4_tag(L4_PROTO_LOG, 1, 0), l4_forever()).tag;
	CHECK_EQ(tag.raw, 0);
	CHECK_EQ(l4_utcb()->mr[0], L4_LOG_READ_DRAINED);
}

TEST(LOG0005, "a read needs the W right", "log.read:EPERM")
{
	l4_cap_t copy = conf_copy(log_cap(), L4_OBJECT_RIGHT_R | L4_OBJECT_RIGHT_S);
	char text[4];

	CHECK_EQ(l4_log_read(copy, text, sizeof text), -L4_EPERM);
}

TEST(LOG0006, "attributes are read as they were set", "log.get_attr:OK log.set_attr:OK")
{
	static const l4_word_t initial[] = L4_LOG_INITIAL_ATTR;
	l4_log_attributes_t attributes, other = { 0x100, 4, 0 };

	CHECK_EQ(l4_log_get_attributes(log_cap(), &attributes), 0);
	CHECK_EQ(attributes.input, initial[0]);
	CHECK_EQ(attributes.output, initial[1]);
	CHECK_EQ(attributes.local, initial[2]);
	CHECK_EQ(l4_log_set_attributes(log_cap(), &other), 0);
	CHECK_EQ(l4_log_get_attributes(log_cap(), &other), 0);
	CHECK_EQ(other.local, 0);
	CHECK_EQ(l4_log_set_attributes(log_cap(), &attributes), 0);
}

TEST(LOG0007, "the answer to reading the attributes has four words", "log.get_attr:OK")
{
	l4_utcb()->mr[0] = L4_LOG_GET_ATTR;
	CHECK_EQ(l4_call(log_cap(), l4_tag(L4_PROTO_LOG, 1, 0), l4_forever()).tag.raw, l4_tag(0, 4, 0).raw);
}

TEST(LOG0008, "an unknown operation is not implemented", "log.unknown:ENOSYS")
{
	l4_utcb()->mr[0] = 4;
	CHECK_EQ(l4_request(log_cap(), l4_tag(L4_PROTO_LOG, 1, 0)), -L4_ENOSYS);
	l4_utcb()->mr[0] = 0xffff;
	CHECK_EQ(l4_request(log_cap(), l4_tag(L4_PROTO_LOG, 1, 0)), -L4_ENOSYS);
}

TEST(LOG0009, "only the low half of the first word names the operation", "log.get_attr:OK")
{
	l4_utcb()->mr[0] = 0xabcd0000 | L4_LOG_GET_ATTR;
	CHECK_EQ(l4_request(log_cap(), l4_tag(L4_PROTO_LOG, 1, 0)), 0);
}

TEST(LOG0010, "another protocol is refused", "log.unknown:EBADPROTO")
{
	l4_utcb()->mr[0] = L4_LOG_GET_ATTR;
	CHECK_EQ(l4_request(log_cap(), l4_tag(L4_PROTO_FACTORY, 1, 0)), -L4_EBADPROTO);
	CHECK_EQ(l4_request(log_cap(), l4_tag(0, 1, 0)), -L4_EBADPROTO);
}

TEST(LOG0011, "a message without words is too short", "log.unknown:EMSGTOOSHORT")
{
	CHECK_EQ(l4_request(log_cap(), l4_tag(L4_PROTO_LOG, 0, 0)), -L4_EMSGTOOSHORT);
}
