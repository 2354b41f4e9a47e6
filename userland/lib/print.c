/* A small printf. One engine formats into a sink; printf's sink sends to the log what has gathered, and
 * snprintf's fills a buffer. Nothing is shared between threads. */
#include <l4/log.h>
#include <l4/print.h>
#include <l4/program.h>

enum { DIGITS = 20 }; /* of 2^64 in decimal */

typedef struct sink {
	char *buffer;
	size_t used, size;
	size_t total;                   /* characters produced so far */
	void (*full)(struct sink *sink); /* makes room, or leaves `used` at `size`: then characters are dropped */
} sink_t;

/** One conversion: what stands between % and its letter. */
typedef struct {
	bool left, zero;
	int width, precision; /* precision -1: none */
	int longs;            /* how many l */
} spec_t;

static void put(sink_t *sink, char character)
{
	if (sink->used == sink->size)
		sink->full(sink);
	if (sink->used < sink->size)
		sink->buffer[sink->used++] = character;
	sink->total++;
}

static void put_times(sink_t *sink, char character, int times)
{
	for (; times > 0; times--)
		put(sink, character);
}

static void put_text(sink_t *sink, const char *text, int length)
{
	for (; length > 0; length--)
		put(sink, *text++);
}

static void put_padded(sink_t *sink, const spec_t *spec, const char *text, int length)
{
	if (!spec->left)
		put_times(sink, ' ', spec->width - length);
	put_text(sink, text, length);
	if (spec->left)
		put_times(sink, ' ', spec->width - length);
}

static void put_string(sink_t *sink, const spec_t *spec, const char *text)
{
	int length = 0;

	if (text == NULL)
		text = "(null)";
	while (length != spec->precision && text[length] != '\0')
		length++;
	put_padded(sink, spec, text, length);
}

/** `sign` is 0 or a character to stand in front of zeros and digits. */
static void put_number(sink_t *sink, const spec_t *spec, uint64_t value, unsigned base, char sign, const char *digits)
{
	char text[DIGITS + 1];
	int start = DIGITS + 1;

	do {
		text[--start] = digits[value % base];
		value /= base;
	} while (value != 0);
	int length = DIGITS + 1 - start;
	if (spec->zero && !spec->left) {
		if (sign != 0)
			put(sink, sign);
		put_times(sink, '0', spec->width - length - (sign != 0));
		put_text(sink, &text[start], length);
		return;
	}
	if (sign != 0)
		text[--start] = sign;
	put_padded(sink, spec, &text[start], DIGITS + 1 - start);
}

static void put_signed(sink_t *sink, const spec_t *spec, int64_t value)
{
	uint64_t magnitude = value < 0 ? -(uint64_t)value : (uint64_t)value;

	put_number(sink, spec, magnitude, 10, value < 0 ? '-' : 0, "0123456789");
}

static const char *parse_spec(const char *format, spec_t *spec, va_list *arguments)
{
	*spec = (spec_t){ .precision = -1 };
	for (;; format++) {
		if (*format == '-')
			spec->left = true;
		else if (*format == '0')
			spec->zero = true;
		else
			break;
	}
	for (; *format >= '0' && *format <= '9'; format++)
		spec->width = spec->width * 10 + *format - '0';
	if (*format == '.') {
		spec->precision = 0;
		if (*++format == '*') {
			spec->precision = va_arg(*arguments, int);
			format++;
		}
		for (; *format >= '0' && *format <= '9'; format++)
			spec->precision = spec->precision * 10 + *format - '0';
	}
	for (; *format == 'l' || *format == 'z'; format++)
		spec->longs += *format == 'l';
	return format;
}

static void put_conversion(sink_t *sink, const spec_t *spec, char letter, va_list *arguments)
{
	static const char lower[] = "0123456789abcdef", upper[] = "0123456789ABCDEF";

	switch (letter) {
	case 'd':
	case 'i':
		put_signed(sink, spec, spec->longs > 1 ? va_arg(*arguments, int64_t) : va_arg(*arguments, int));
		return;
	case 'u':
	case 'x':
	case 'X': {
		uint64_t value = spec->longs > 1 ? va_arg(*arguments, uint64_t) : va_arg(*arguments, unsigned);
		put_number(sink, spec, value, letter == 'u' ? 10 : 16, 0, letter == 'X' ? upper : lower);
		return;
	}
	case 'p':
		put_text(sink, "0x", 2);
		put_number(sink, &(spec_t){ .zero = true, .width = 8 }, va_arg(*arguments, uintptr_t), 16, 0, lower);
		return;
	case 's':
		put_string(sink, spec, va_arg(*arguments, const char *));
		return;
	case 'c':
		put_padded(sink, spec, (char[]){ (char)va_arg(*arguments, int) }, 1);
		return;
	default:
		put(sink, letter);
	}
}

static void format_into(sink_t *sink, const char *format, va_list *arguments)
{
	spec_t spec;

	for (; *format != '\0'; format++) {
		if (*format != '%') {
			put(sink, *format);
			continue;
		}
		format = parse_spec(format + 1, &spec, arguments);
		if (*format == '\0')
			return;
		put_conversion(sink, &spec, *format, arguments);
	}
}

/** Sends what has gathered. The message registers it needs and the error word come out as they went in. */
static void flush_to_log(sink_t *sink)
{
	l4_word_t saved[2 + L4_LOG_WRITE_MAX_BYTES / sizeof(l4_word_t)];
	l4_utcb_t *utcb = l4_utcb();
	l4_word_t error = utcb->error;

	memcpy(saved, utcb->mr, sizeof saved);
	l4_log_write(l4_own_log(), sink->buffer, sink->used);
	memcpy(utcb->mr, saved, sizeof saved);
	utcb->error = error;
	sink->used = 0;
}

void vprintf(const char *format, va_list arguments)
{
	char buffer[L4_LOG_WRITE_MAX_BYTES];
	sink_t sink = { .buffer = buffer, .size = sizeof buffer, .full = flush_to_log };
	va_list copy;

	va_copy(copy, arguments);
	format_into(&sink, format, &copy);
	va_end(copy);
	if (sink.used > 0)
		flush_to_log(&sink);
}

void printf(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
}

static void drop(sink_t *sink)
{
	(void)sink;
}

size_t snprintf(char *to, size_t bytes, const char *format, ...)
{
	sink_t sink = { .buffer = to, .size = bytes > 0 ? bytes - 1 : 0, .full = drop };
	va_list arguments;

	va_start(arguments, format);
	format_into(&sink, format, &arguments);
	va_end(arguments);
	if (bytes > 0)
		to[sink.used] = '\0';
	return sink.total;
}
