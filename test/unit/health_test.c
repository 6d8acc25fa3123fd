// SPDX-License-Identifier: BSD-3-Clause
// Health: the probe machine walked with every short history, delays, verdicts and choices over every combination.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "health.h"

static struct service_check make_check(uint8_t rise, uint8_t fall)
{
	struct service_check check = service_defaults_builtin().check;
	check.rise = rise;
	check.fall = fall;
	return check;
}

// The verdict straight from the definition, over the whole history (bit i of `history` = result i).
static enum health_probe_verdict by_definition(
	uint32_t history, uint32_t n, uint32_t rise, uint32_t fall)
{
	enum health_probe_verdict verdict = HEALTH_PROBE_UNKNOWN;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t row = 1; // length of the run of equal results that ends at i
		while (row <= i && (history >> (i - row) & 1) == (history >> i & 1))
			row++;
		bool ok = history >> i & 1;
		if (!ok && row >= fall)
			verdict = HEALTH_PROBE_DOWN;
		else if (ok && verdict == HEALTH_PROBE_UNKNOWN)
			verdict = HEALTH_PROBE_UP;
		else if (ok && row >= rise)
			verdict = HEALTH_PROBE_UP;
	}
	return verdict;
}

static void walk(uint32_t history, uint32_t n, const struct service_check *check)
{
	struct health_probe p;
	health_probe_init(&p, SERVICE_CHECK_TCP);
	for (uint32_t i = 0; i < n; i++) {
		bool ok = history >> i & 1;
		enum health_probe_verdict before = p.verdict;
		int64_t since = p.since_ms;
		bool changed = health_probe_report(&p, check, ok, ok ? "" : "refused", 1000 + i);
		assert_int_equal(changed, p.verdict != before);
		assert_int_equal(p.since_ms, changed ? 1000 + i : since);
		if (changed)
			assert_string_equal(p.reason, ok ? "" : "refused");
		assert_int_equal(
			p.verdict, by_definition(history, i + 1, check->rise, check->fall));
	}
	assert_int_equal(p.n_ok, (uint64_t)__builtin_popcount(history));
	assert_int_equal(p.n_ok + p.n_fail, n);
}

static void test_machine(void **state)
{
	for (uint8_t rise = 1; rise <= 4; rise++) {
		for (uint8_t fall = 1; fall <= 4; fall++) {
			struct service_check check = make_check(rise, fall);
			for (uint32_t history = 0; history < 1u << 11; history++)
				walk(history, 11, &check);
		}
	}
}

static void test_off(void **state)
{
	struct service_check check = make_check(1, 1);
	struct health_probe p;
	memset(&p, 0xff, sizeof(p));
	health_probe_init(&p, SERVICE_CHECK_NONE);
	assert_int_equal(p.verdict, HEALTH_PROBE_OFF);
	assert_false(health_probe_report(&p, &check, false, "x", 1));
	assert_int_equal(p.verdict, HEALTH_PROBE_OFF);
	assert_int_equal(p.n_fail, 0);
}

static void assert_around(uint32_t delay_ms, uint32_t want_ms)
{
	assert_in_range(delay_ms, want_ms - want_ms / 10, want_ms + want_ms / 10);
}

static void test_delay(void **state)
{
	struct service_check check = make_check(2, 2);
	struct health_probe p;
	health_probe_init(&p, SERVICE_CHECK_TCP);
	health_probe_report(&p, &check, true, "", 0);
	uint32_t low = UINT32_MAX, high = 0;
	for (uint64_t random = 0; random <= UINT32_MAX; random += 1u << 20) {
		uint32_t delay = health_probe_delay_ms(&p, &check, (uint32_t)random);
		low = delay < low ? delay : low;
		high = delay > high ? delay : high;
	}
	assert_int_equal(low, 900);
	assert_in_range(high, 1099, 1100);
	assert_int_equal(health_probe_delay_ms(&p, &check, UINT32_MAX), 1100);

	health_probe_report(&p, &check, false, "x", 0); // about to fall
	assert_around(health_probe_delay_ms(&p, &check, 1u << 31), 200);
	health_probe_report(&p, &check, false, "x", 0); // down
	uint64_t t_ms = 0;
	uint32_t previous = 0;
	for (int i = 0; i < 200; i++) {
		uint32_t delay = health_probe_delay_ms(&p, &check, 1u << 31);
		if (t_ms < 55000)
			assert_around(delay, 1000);
		assert_true(delay >= previous && delay <= 16500);
		previous = delay;
		t_ms += delay;
		health_probe_report(&p, &check, false, "x", 0);
	}
	assert_around(previous, 15000);
	health_probe_report(&p, &check, true, "", 0); // about to rise
	assert_int_equal(p.verdict, HEALTH_PROBE_DOWN);
	assert_around(health_probe_delay_ms(&p, &check, 1u << 31), 200);
	health_probe_report(&p, &check, false, "x", 0); // no: patience starts anew
	assert_around(health_probe_delay_ms(&p, &check, 1u << 31), 1000);

	check.interval_ms = 100; // shorter than the transition's pace
	p.n_ok_row = 1;
	assert_around(health_probe_delay_ms(&p, &check, 1u << 31), 100);
	p.n_ok_row = 0;
	assert_around(health_probe_delay_ms(&p, &check, 1u << 31), 200);
	check.interval_ms =
		3600000; // longer than all limits: never faster than asked, but in transition
	assert_around(health_probe_delay_ms(&p, &check, 1u << 31), 3600000);
	p.n_fail_row = UINT32_MAX;
	assert_around(health_probe_delay_ms(&p, &check, 1u << 31), 3600000);
	p.n_ok_row = 1;
	assert_around(health_probe_delay_ms(&p, &check, 1u << 31), 200);
}

// After recovery, rise = 2 good answers come within 3 s whatever the luck, while it has been down for under a minute.
static void test_recovery_time(void **state)
{
	struct service_check check = make_check(2, 2);
	for (uint32_t interval = 100; interval <= 1000; interval += 100) {
		check.interval_ms = interval;
		struct health_probe p;
		health_probe_init(&p, SERVICE_CHECK_TCP);
		health_probe_report(&p, &check, false, "x", 0);
		health_probe_report(&p, &check, false, "x", 0);
		for (uint64_t t_ms = 0; t_ms < 45000;) {
			struct health_probe q = p; // it recovers right after a failure
			uint32_t wait = health_probe_delay_ms(&q, &check, UINT32_MAX);
			health_probe_report(&q, &check, true, "", 0);
			wait += health_probe_delay_ms(&q, &check, UINT32_MAX);
			assert_true(health_probe_report(&q, &check, true, "", 0));
			assert_true(wait + 2 * check.timeout_ms <= 3000);
			t_ms += health_probe_delay_ms(&p, &check, 0);
			health_probe_report(&p, &check, false, "x", 0);
		}
	}
}

static void assert_verdict(
	const struct health_verdict *v, enum health_state state, bool takes_new, const char *reason)
{
	assert_int_equal(v->state, state);
	assert_int_equal(v->may_take_new, takes_new);
	assert_string_equal(v->reason, reason);
}

static void test_decide(void **state)
{
	struct service_conditions ready = { .ready = true, .serving = true };
	struct service_conditions gone = { .terminating = true };
	struct service_conditions leaving = { .serving = true, .terminating = true };
	struct service_conditions not_ready = { .serving = true };
	struct health_probe p;
	health_probe_init(&p, SERVICE_CHECK_TCP);
	struct health_verdict v = health_decide(&ready, NULL, NULL);
	assert_verdict(&v, HEALTH_UP, true, "ready, not probed yet");
	v = health_decide(&ready, &p, NULL);
	assert_verdict(&v, HEALTH_UP, true, "ready, not probed yet");
	p.verdict = HEALTH_PROBE_OFF;
	v = health_decide(&ready, &p, NULL);
	assert_verdict(&v, HEALTH_UP, true, "ready, no probe");
	p.verdict = HEALTH_PROBE_UP;
	v = health_decide(&ready, &p, NULL);
	assert_verdict(&v, HEALTH_UP, true, "ready, probe ok");
	ready.terminating = true; // publishNotReadyAddresses
	v = health_decide(&ready, &p, NULL);
	assert_verdict(&v, HEALTH_UP, true, "ready, probe ok");
	p.verdict = HEALTH_PROBE_DOWN;
	v = health_decide(&ready, &p, NULL);
	assert_verdict(&v, HEALTH_DOWN, false, "probe failed");
	strcpy(p.reason, "connect: Connection refused");
	v = health_decide(&ready, &p, NULL);
	assert_verdict(&v, HEALTH_DOWN, false, "connect: Connection refused");
	v = health_decide(&not_ready, &p, NULL); // the cluster's word comes first
	assert_verdict(&v, HEALTH_DOWN, false, "not ready");
	v = health_decide(&leaving, &p, NULL);
	assert_verdict(&v, HEALTH_DRAINING, false, "terminating");
	v = health_decide(&gone, &p, NULL);
	assert_verdict(&v, HEALTH_DRAINING, false, "terminating, not serving");
	struct service_overlay overlay = { .draining = true };
	v = health_decide(&ready, &p, &overlay);
	assert_verdict(&v, HEALTH_DRAINING, false, "drained by operator");
	strcpy(overlay.reason, "reboot");
	v = health_decide(&ready, &p, &overlay);
	assert_verdict(&v, HEALTH_DRAINING, false, "drained by operator: reboot");
	memset(overlay.reason, 'x', sizeof(overlay.reason) - 1);
	v = health_decide(&ready, &p, &overlay);
	assert_int_equal(strlen(v.reason), SERVICE_REASON_MAX - 1);
	overlay = (struct service_overlay){ .has_weight = true };
	p.verdict = HEALTH_PROBE_UP;
	v = health_decide(&ready, &p, &overlay);
	assert_verdict(&v, HEALTH_UP, false, "ready, probe ok, weight 0 by operator");
	overlay.weight = 1;
	v = health_decide(&ready, &p, &overlay);
	assert_verdict(&v, HEALTH_UP, true, "ready, probe ok");
}

// ---------------------------------------------------------------- choice
// Every kind of candidate by number: 3 condition bits, 4 probe verdicts, drained or not, weight 0 or not.
#define N_KINDS (8 * 4 * 2 * 2)

static struct health_candidate make_candidate(uint32_t kind)
{
	return (struct health_candidate){
		.conditions = { .ready = kind & 1,
			.serving = kind >> 1 & 1,
			.terminating = kind >> 2 & 1 },
		.probe = (enum health_probe_verdict)(kind >> 3 & 3),
		.draining = kind >> 5 & 1,
		.weight = kind >> 6 & 1 ? 0 : 100,
	};
}

static bool is_wanted(const struct health_candidate *c)
{
	return !c->draining && c->weight > 0;
}

// The rule, said in sets.
static void choose_naive(const struct health_candidate *c, uint32_t n, bool *out)
{
	for (int step = 0; step < 4; step++) {
		bool any = false;
		for (uint32_t i = 0; i < n; i++) {
			bool cluster = step % 2 == 0 ? c[i].conditions.ready
						     : !c[i].conditions.ready &&
							       c[i].conditions.serving &&
							       c[i].conditions.terminating;
			bool probe = (c[i].probe == HEALTH_PROBE_DOWN) == (step >= 2);
			out[i] = is_wanted(&c[i]) && cluster && probe;
			any = any || out[i];
		}
		if (any)
			return;
	}
}

static void check_choice(const uint32_t *kinds, uint32_t n)
{
	struct health_candidate c[3];
	bool eligible[3] = { true, true, true }, naive[3];
	for (uint32_t i = 0; i < n; i++)
		c[i] = make_candidate(kinds[i]);
	uint32_t n_eligible = health_choose(c, n, eligible);
	choose_naive(c, n, naive);
	uint32_t sum = 0;
	for (uint32_t i = 0; i < n; i++) {
		assert_int_equal(eligible[i], naive[i]);
		assert_true(!eligible[i] || is_wanted(&c[i]));
		sum += eligible[i];
	}
	assert_int_equal(n_eligible, sum);
}

static void test_choose(void **state)
{
	assert_int_equal(health_choose(NULL, 0, NULL), 0);
	uint32_t kinds[3];
	for (kinds[0] = 0; kinds[0] < N_KINDS; kinds[0]++) {
		check_choice(kinds, 1);
		for (kinds[1] = 0; kinds[1] < N_KINDS; kinds[1]++) {
			for (kinds[2] = 0; kinds[2] < N_KINDS; kinds[2]++)
				check_choice(kinds, 3);
		}
	}
}

// The rule by examples, as an operator would tell it.
static void test_choose_examples(void **state)
{
	struct health_candidate up = {
		.conditions = { true, true, false }, .probe = HEALTH_PROBE_UP, .weight = 100
	};
	struct health_candidate down = up, leaving = up, drained = up, unknown = up;
	down.probe = HEALTH_PROBE_DOWN;
	leaving.conditions = (struct service_conditions){ false, true, true };
	drained.draining = true;
	unknown.probe = HEALTH_PROBE_UNKNOWN;
	bool e[3];
	assert_int_equal(health_choose((struct health_candidate[]){ up, down, unknown }, 3, e), 2);
	assert_true(e[0] && !e[1] && e[2]);
	assert_int_equal(health_choose((struct health_candidate[]){ up, leaving, down }, 3, e), 1);
	assert_true(e[0] && !e[1]);
	assert_int_equal(
		health_choose((struct health_candidate[]){ down, leaving, down }, 3, e), 1);
	assert_true(e[1]); // listed as leaving, but it answers
	assert_int_equal(
		health_choose((struct health_candidate[]){ down, down, drained }, 3, e), 2);
	assert_true(e[0] && e[1] && !e[2]); // fail open, without the drained one
	assert_int_equal(health_choose(&down, 1, e), 1);
	assert_int_equal(health_choose(&drained, 1, e), 0);
}

static void test_names(void **state)
{
	assert_string_equal(health_state_name(HEALTH_DRAINING), "draining");
	assert_string_equal(health_state_name(9), "unknown");
	assert_string_equal(health_probe_verdict_name(HEALTH_PROBE_OFF), "off");
	assert_string_equal(health_probe_verdict_name(9), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_machine),
		cmocka_unit_test(test_off),
		cmocka_unit_test(test_delay),
		cmocka_unit_test(test_recovery_time),
		cmocka_unit_test(test_decide),
		cmocka_unit_test(test_choose),
		cmocka_unit_test(test_choose_examples),
		cmocka_unit_test(test_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
