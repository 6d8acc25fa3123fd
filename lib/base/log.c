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

// Escapes text for a JSON string or a quoted logfmt value.
static size_t escape(char *out, size_t len, const char *text)
{
	size_t n = 0;
	for (; *text && n + 8 < len; text++) {
		unsigned char c = (unsigned char)*text;
		if (c == '"' || c == '\\') {
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
	escape(safe, sizeof(safe), message);
	clock_rfc3339(clock_wall_ms(), when, sizeof(when));
	int n;
	if (log->format == LOG_JSON) {
		n = snprintf(line, sizeof(line),
			"{\"time\":\"%s\",\"level\":\"%s\",\"event\":\"%s\",\"message\":\"%s\"}\n",
			when, level_names[level], event, safe);
	} else if (isatty(log->fd)) {
		n = snprintf(line, sizeof(line), "%s %-5s %s: %s\n", when + 11, level_names[level],
			event, message);
	} else {
		n = snprintf(line, sizeof(line), "<%d>%s %s %s: %s\n", level_priorities[level],
			when, level_names[level], event, message);
	}
	if (n > (int)sizeof(line) - 1)
		n = (int)sizeof(line) - 1;
	ssize_t written = write(log->fd, line, (size_t)n);
	(void)written; // nowhere left to report a log that cannot be written
}
