// SPDX-License-Identifier: BSD-3-Clause
// One line per record, text (logfmt-like, with the <N> priority prefix that journald
// understands when stderr is not a terminal) or JSON.
#include "base.h"

#include <string.h>
#include <unistd.h>

static const char *const level_names[] = { "error", "warn", "info", "debug" };
static const int level_priorities[] = { 3, 4, 6, 7 };

const char *log_level_name(enum log_level level)
{
	return level_names[level];
}

// Bytes of the well-formed UTF-8 sequence at `text`, or 0.
static size_t utf8_length(const char *text)
{
	const unsigned char *at = (const unsigned char *)text;
	size_t n = at[0] < 0xc2 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : at[0] < 0xf5 ? 4 : 0;
	for (size_t i = 1; i < n; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	}
	if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) ||
		(at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f))
		return 0;
	return n;
}

// Makes one line of text that may come from outside, with control characters, or cut in the middle of a character: no line that
// somebody else made up, no terminal that is told to do something. For JSON quotes are escaped too.
static size_t escape(char *out, size_t len, const char *text, bool is_json)
{
	size_t n = 0;
	for (; *text && n + 8 < len; text++) {
		unsigned char c = (unsigned char)*text;
		if (c >= 0x80) {
			size_t n_bytes = utf8_length(text);
			if (n_bytes == 0) {
				out[n++] = '?';
				continue;
			}
			memcpy(out + n, text, n_bytes);
			n += n_bytes;
			text += n_bytes - 1;
			continue;
		}
		if (is_json && (c == '"' || c == '\\')) {
			out[n++] = '\\';
			out[n++] = (char)c;
		} else if (c == '\n') {
			out[n++] = '\\';
			out[n++] = 'n';
		} else if (c < 0x20 || c == 0x7f) {
			n += (size_t)snprintf(out + n, len - n, "\\u%04x", c);
		} else {
			out[n++] = (char)c;
		}
	}
	out[n] = 0;
	return n;
}

void log_write(const struct log *log, enum log_level level, const char *event, const char *fmt, ...)
{
	if (log == NULL || level > log->level)
		return;
	char message[1024];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	char safe[1600], when[32], line[2048];
	escape(safe, sizeof(safe), message, log->format == LOG_JSON);
	clock_rfc3339(clock_wall_ms(), when, sizeof(when));
	int n;
	if (log->format == LOG_JSON) {
		n = snprintf(line, sizeof(line),
			"{\"time\":\"%s\",\"level\":\"%s\",\"event\":\"%s\",\"message\":\"%s\"}\n",
			when, level_names[level], event, safe);
	} else if (isatty(log->fd)) {
		n = snprintf(line, sizeof(line), "%s %-5s %s: %s\n", when + 11, level_names[level],
			event, safe);
	} else {
		n = snprintf(line, sizeof(line), "<%d>%s %s %s: %s\n", level_priorities[level],
			when, level_names[level], event, safe);
	}
	if (n > (int)sizeof(line) - 1)
		n = (int)sizeof(line) - 1;
	ssize_t written = write(log->fd, line, (size_t)n);
	(void)written; // nowhere left to report a log that cannot be written
}
