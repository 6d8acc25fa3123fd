// SPDX-License-Identifier: BSD-3-Clause
// ipam when memory runs out: every allocation fails once, each in a run of its own. What could not be done says so and is done again;
// the result is the same, every change is told, nothing leaks (the sanitizer looks).
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ipam.h"

#define N_REQUESTS 24

// The linker puts these in front of the C library's.
void *__real_calloc(size_t n, size_t size);
void *__real_malloc(size_t size);
void *__real_reallocarray(void *p, size_t n, size_t size);
char *__real_strdup(const char *text);
int __real_vasprintf(char **out, const char *fmt, va_list ap);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_reallocarray(void *p, size_t n, size_t size);
char *__wrap_strdup(const char *text);
int __wrap_vasprintf(char **out, const char *fmt, va_list ap);

static uint32_t n_asked, fails_at; // the fails_at-th fails, counted from 1; 0 none

static bool fails(void)
{
	return ++n_asked == fails_at;
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_reallocarray(void *p, size_t n, size_t size)
{
	return fails() ? NULL : __real_reallocarray(p, n, size);
}

char *__wrap_strdup(const char *text)
{
	return fails() ? NULL : __real_strdup(text);
}

int __wrap_vasprintf(char **out, const char *fmt, va_list ap)
{
	return fails() ? -1 : __real_vasprintf(out, fmt, ap);
}

// ---------------------------------------------------------------- a story
#define N_STAGES 4

struct end { // what it comes to
	struct ipam_answer answers[N_STAGES][N_REQUESTS];
	bool is_there[N_STAGES][N_REQUESTS];
	struct address told[N_STAGES][N_REQUESTS][IPAM_FAMILIES]; // by ipam_next
	uint32_t n_told[N_STAGES][N_REQUESTS];
};

static void name_of(int i, char name[8])
{
	snprintf(name, 8, "s%02d", i);
}

static int put(struct ipam *ipam, int i, int form)
{
	char name[8];
	struct ipam_port port = { 6, (uint16_t)(80 + i % 5 + form), (uint16_t)(80 + i % 5 + form) };
	name_of(i, name);
	struct ipam_request request = { .namespace = "ns",
		.name = name,
		.uid = name,
		.created_s = i * 7 % 5,
		.families = { IPAM_V4, IPAM_V6 },
		.n_families = 2,
		.policy = (enum ipam_policy)((i + form) % 3),
		.pool = i % 4 == 3 ? "green" : "",
		.sharing_key = i % 3 ? "k" : "",
		.backend_key = "",
		.ports = &port,
		.n_ports = 1 };
	return ipam_put(ipam, &request);
}

static int set_pools(struct ipam *ipam, int form)
{
	struct ipam_range v4, v6, more;
	assert_int_equal(ipam_range_parse("203.0.113.0/29", &v4, "", NULL), 0);
	assert_int_equal(ipam_range_parse("2001:db8::/126", &v6, "", NULL), 0);
	assert_int_equal(ipam_range_parse("203.0.113.4-203.0.113.20", &more, "", NULL), 0);
	struct ipam_range blue[] = { v4, v6 }, green[] = { more };
	struct ipam_pool pools[] = {
		{ .name = "blue", .ranges = blue, .n_ranges = form ? 1 : 2, .auto_assign = true },
		{ .name = "green", .ranges = green, .n_ranges = 1, .created_s = 5 },
	};
	return ipam_set_pools(ipam, pools, 2, NULL, 0, NULL);
}

static void note(struct ipam *ipam, struct end *end, int stage)
{
	struct ipam_answer answer;
	for (int i = 0; stage && i < N_REQUESTS; i++) {
		memcpy(end->told[stage][i], end->told[stage - 1][i], sizeof(end->told[0][0]));
		end->n_told[stage][i] = end->n_told[stage - 1][i];
	}
	while (ipam_next(ipam, &answer)) {
		int i = atoi(answer.name + 1);
		memcpy(end->told[stage][i], answer.addresses, sizeof(end->told[0][0]));
		end->n_told[stage][i] = answer.n_addresses;
	}
	for (int i = 0; i < N_REQUESTS; i++) {
		char name[8];
		name_of(i, name);
		end->is_there[stage][i] = ipam_find(ipam, "ns", name, &end->answers[stage][i]);
	}
}

// Once more where it failed; a second failure there is none.
#define AGAIN(call)                                  \
	do {                                         \
		if ((call) == -ENOMEM)               \
			assert_int_equal((call), 0); \
	} while (0)

static void play(struct end *end)
{
	struct ipam *ipam = ipam_create(NULL, NULL);
	memset(end, 0, sizeof(*end));
	if (ipam == NULL)
		ipam = ipam_create(NULL, NULL);
	AGAIN(set_pools(ipam, 0));
	for (int i = 0; i < N_REQUESTS; i++)
		AGAIN(put(ipam, i, 0));
	AGAIN(ipam_run(ipam));
	note(ipam, end, 0);
	for (int i = 0; i < N_REQUESTS; i += 2)
		AGAIN(put(ipam, i, 1));
	AGAIN(ipam_run(ipam));
	note(ipam, end, 1);
	for (int i = 0; i < 4; i++) {
		char name[8];
		name_of(i * 5, name);
		assert_int_equal(ipam_remove(ipam, "ns", name), 0);
	}
	AGAIN(ipam_run(ipam));
	note(ipam, end, 2);
	AGAIN(set_pools(ipam, 1));
	ipam_touch(ipam, NULL, NULL);
	AGAIN(ipam_run(ipam));
	note(ipam, end, 3);
	ipam_destroy(ipam);
}

static void assert_same(const struct end *got, const struct end *want, uint32_t failed)
{
	for (int k = 0; k < N_STAGES * N_REQUESTS; k++) {
		int stage = k / N_REQUESTS, i = k % N_REQUESTS;
		const struct ipam_answer *a = &got->answers[stage][i];
		const struct ipam_answer *b = &want->answers[stage][i];
		assert_int_equal(got->is_there[stage][i], want->is_there[stage][i]);
		if (!want->is_there[stage][i])
			continue;
		if (a->n_addresses != b->n_addresses || a->reason != b->reason ||
			memcmp(a->addresses, b->addresses, sizeof(a->addresses)) != 0)
			fail_msg("allocation %u failed: s%02d has another address, stage %d",
				failed, i, stage);
		if (got->n_told[stage][i] != b->n_addresses ||
			memcmp(got->told[stage][i], b->addresses,
				b->n_addresses * sizeof(struct address)) != 0)
			fail_msg("allocation %u failed: s%02d was not told, stage %d", failed, i,
				stage);
	}
}

static void test_every_allocation_fails_once(void **state)
{
	static struct end want, got;
	fails_at = 0;
	n_asked = 0;
	play(&want);
	uint32_t n = n_asked;
	assert_in_range(n, 300, 5000);
	assert_same(&want, &want, 0);
	for (uint32_t at = 1; at <= n; at++) {
		n_asked = 0;
		fails_at = at;
		play(&got);
		fails_at = 0;
		assert_same(&got, &want, at);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_allocation_fails_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
