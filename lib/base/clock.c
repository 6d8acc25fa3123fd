// SPDX-License-Identifier: BSD-3-Clause
// Clocks and durations.
#include "base.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

uint64_t clock_now_ns(const struct clock *clock)
{
	return clock->now_ns(clock->arg);
}

static uint64_t monotonic_now(void *arg)
{
	(void)arg;
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * CLOCK_S + (uint64_t)ts.tv_nsec;
}

struct clock clock_monotonic(void)
{
	return (struct clock){ .now_ns = monotonic_now };
}

static uint64_t virtual_now(void *arg)
{
	return *(const uint64_t *)arg;
}

struct clock clock_virtual(uint64_t *time_ns)
{
	return (struct clock){ .now_ns = virtual_now, .arg = time_ns };
}

int64_t clock_wall_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

const char *clock_rfc3339(int64_t wall_ms, char *buf, size_t len)
{
	int ms = (int)((wall_ms % 1000 + 1000) % 1000); // before 1970 too
	time_t s = (time_t)((wall_ms - ms) / 1000);
	struct tm tm = { 0 };
	gmtime_r(&s, &tm);
	char date[48] = "";
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf, len, "%s.%03dZ", date, ms);
	return buf;
}

static const struct {
	const char *suffix;
	uint64_t ns;
} units[] = {
	{ "h", 3600 * CLOCK_S },
	{ "m", 60 * CLOCK_S },
	{ "s", CLOCK_S },
	{ "ms", CLOCK_MS },
	{ "us", CLOCK_US },
	{ "ns", 1 },
};

int clock_parse_duration(const char *text, uint64_t *out_ns)
{
	if (strcmp(text, "0") == 0) {
		*out_ns = 0;
		return 0;
	}
	uint64_t total = 0;
	size_t next_unit = 0; // units must fall: "1h30m", never "30m1h"
	if (*text == 0)
		return -EINVAL;
	while (*text) {
		uint64_t number = 0;
		const char *digits = text;
		for (; *text >= '0' && *text <= '9'; text++) {
			if (__builtin_mul_overflow(number, 10u, &number) ||
				__builtin_add_overflow(number, (uint64_t)(*text - '0'), &number))
				return -EINVAL;
		}
		if (text == digits)
			return -EINVAL;
		size_t n_suffix = strspn(text, "hmsun");
		size_t u = next_unit;
		while (u < ARRAY_SIZE(units) &&
			(strlen(units[u].suffix) != n_suffix ||
				strncmp(text, units[u].suffix, n_suffix) != 0))
			u++;
		if (u == ARRAY_SIZE(units))
			return -EINVAL;
		if (__builtin_mul_overflow(number, units[u].ns, &number) ||
			__builtin_add_overflow(total, number, &total))
			return -EINVAL;
		next_unit = u + 1;
		text += n_suffix;
	}
	*out_ns = total;
	return 0;
}

const char *clock_format_duration(uint64_t ns, char *buf, size_t len)
{
	if (ns == 0) {
		snprintf(buf, len, "0s");
		return buf;
	}
	size_t at = 0;
	buf[0] = 0;
	for (size_t u = 0; u < ARRAY_SIZE(units) && ns > 0; u++) {
		uint64_t count = ns / units[u].ns;
		if (count == 0)
			continue;
		at += (size_t)snprintf(buf + at, len - at, "%" PRIu64 "%s", count, units[u].suffix);
		ns -= count * units[u].ns;
		if (at >= len)
			break;
	}
	return buf;
}
