// SPDX-License-Identifier: BSD-3-Clause
// A worker's clock over a counter and a kernel's clock that are made up: wrong rates, jumps, long sleeps.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "dataplane_priv.h"

#define SAID_HZ 2600000000ull

// A machine whose counter runs at hz, whatever it says; time passes by `pass`.
struct machine {
	double hz;
	double tsc;
	uint64_t kernel_ns;
	struct worker_clock clock;
	uint64_t now_ns;      // last reading
	uint64_t furthest_ns; // reading beyond the kernel's time, at most
	uint64_t late_ns;     // ... and behind it
	uint64_t rng;
};

static uint64_t rng(struct machine *m)
{
	m->rng += 0x9e3779b97f4a7c15ull;
	uint64_t z = (m->rng ^ (m->rng >> 30)) * 0xbf58476d1ce4e5b9ull;
	return z ^ (z >> 31);
}

static void machine_start(struct machine *m, double hz)
{
	*m = (struct machine){ .hz = hz, .tsc = 1e12, .kernel_ns = 500 * CLOCK_S, .rng = 7 };
	worker_clock_init(&m->clock, SAID_HZ, (uint64_t)m->tsc, m->kernel_ns);
	m->now_ns = worker_clock_read(&m->clock, (uint64_t)m->tsc);
	assert_int_equal(m->now_ns, m->kernel_ns);
}

// As take_time does.
static void machine_read(struct machine *m)
{
	uint64_t tsc = (uint64_t)m->tsc, before_ns = m->now_ns;
	uint64_t ns = worker_clock_read(&m->clock, tsc);
	if (ns - m->clock.base_ns > CLOCK_S)
		ns = worker_clock_sync(&m->clock, tsc, m->kernel_ns, m->now_ns);
	m->now_ns = ns;
	assert_true(m->now_ns >= before_ns);
	if (m->now_ns > m->kernel_ns && m->now_ns - m->kernel_ns > m->furthest_ns)
		m->furthest_ns = m->now_ns - m->kernel_ns;
	if (m->now_ns < m->kernel_ns && m->kernel_ns - m->now_ns > m->late_ns)
		m->late_ns = m->kernel_ns - m->now_ns;
}

static void pass(struct machine *m, uint64_t ns)
{
	m->kernel_ns += ns;
	m->tsc += (double)ns * m->hz / 1e9;
}

// Readings at any distance, up to two seconds apart.
static void run(struct machine *m, uint64_t for_ns)
{
	uint64_t end_ns = m->kernel_ns + for_ns;
	m->furthest_ns = m->late_ns = 0;
	while (m->kernel_ns < end_ns) {
		static const uint64_t most_ns[] = { 5000, 200000, 20 * CLOCK_MS, 2 * CLOCK_S };
		uint64_t r = rng(m);
		pass(m, r % most_ns[r >> 60 & 3 & (r >> 58)] + 1);
		machine_read(m);
	}
}

// The rate is what the counter does, not what is said of it; an hour later nothing has added up.
static void test_rate(void **state)
{
	static const double factors[] = { 1.0, 1.0001, 0.9999, 1.01, 0.99, 1.3, 0.7 };
	for (size_t i = 0; i < ARRAY_SIZE(factors); i++) {
		struct machine m;
		machine_start(&m, (double)SAID_HZ * factors[i]);
		run(&m, 10 * CLOCK_S);
		// Before the first measure it could not be better than this.
		double wrong = factors[i] > 1 ? factors[i] - 1 : 1 - factors[i];
		assert_true((double)m.furthest_ns <= 2.5e9 * wrong + 1000);
		run(&m, 3600 * CLOCK_S);
		assert_in_range(m.furthest_ns, 0, 20000);
		assert_in_range(m.late_ns, 0, 20000);
	}
}

// Ahead once: slower until it meets the kernel's time. It stands still from the last reading to a sync, and never longer; nor does
// it go back.
static void check_ahead(uint64_t by_ns)
{
	struct machine m;
	machine_start(&m, SAID_HZ);
	run(&m, 5 * CLOCK_S);
	m.kernel_ns -= by_ns; // whatever made it so
	m.clock.sync_ns -= by_ns;
	for (uint32_t k = 0; k < 500; k++) {
		uint64_t before_ns = m.now_ns;
		for (uint32_t twice = 0; twice < 2; twice++) {
			pass(&m, 10 * CLOCK_MS);
			machine_read(&m);
		}
		assert_true(m.now_ns - before_ns >= 4 * CLOCK_MS);
	}
	run(&m, 5 * CLOCK_S);
	assert_in_range(m.furthest_ns, 0, 20000);
}

static void test_ahead(void **state)
{
	check_ahead(300 * CLOCK_MS);
	check_ahead(3 * CLOCK_S);
}

// The last sync is so long ago that the next one measures.
static void away_from_sync(struct machine *m)
{
	while (m->kernel_ns - m->clock.sync_ns < 300 * CLOCK_MS) {
		pass(m, 10 * CLOCK_MS);
		machine_read(m);
	}
}

// A counter that jumps, forward or back, does not take the time along; a kernel's clock that jumps forward does.
static void test_jumps(void **state)
{
	static const double tsc_jumps[] = { 9e12, -9e11, -1e12, 3e9 };
	for (size_t i = 0; i < ARRAY_SIZE(tsc_jumps); i++) {
		struct machine m;
		machine_start(&m, SAID_HZ * 1.01);
		run(&m, 5 * CLOCK_S);
		away_from_sync(&m);
		m.tsc += tsc_jumps[i];
		run(&m, 5 * CLOCK_S);
		// Less than a second cannot be told from a second that passed.
		assert_true(m.furthest_ns <= 1100 * CLOCK_MS);
		assert_true(m.late_ns <= 2 * CLOCK_S);
		run(&m, 10 * CLOCK_S); // and the rate is found again
		run(&m, 100 * CLOCK_S);
		assert_in_range(m.furthest_ns, 0, 20000);
		assert_in_range(m.late_ns, 0, 20000);
	}
	struct machine m;
	machine_start(&m, SAID_HZ);
	run(&m, 5 * CLOCK_S);
	away_from_sync(&m);
	m.kernel_ns += 3600 * CLOCK_S; // was suspended
	pass(&m, 2 * CLOCK_S);
	machine_read(&m);
	m.furthest_ns = 0;
	for (uint32_t k = 0; k < 50000; k++) { // busy
		pass(&m, 10000);
		machine_read(&m);
	}
	assert_in_range(m.furthest_ns, 0, 20000);
	run(&m, 3 * CLOCK_S);
	assert_in_range(m.kernel_ns - m.now_ns, 0, 2 * CLOCK_S);
	run(&m, 10 * CLOCK_S);
	assert_in_range(m.late_ns, 0, 20000);
	assert_in_range(m.furthest_ns, 0, 20000);
}

// A worker that is started again goes on where the one before ended, also if that one was ahead.
static void test_start_again(void **state)
{
	struct machine m;
	machine_start(&m, SAID_HZ);
	uint64_t last_ns = m.kernel_ns + 200 * CLOCK_MS;
	worker_clock_init(&m.clock, SAID_HZ, (uint64_t)m.tsc, m.kernel_ns);
	m.now_ns = worker_clock_sync(&m.clock, (uint64_t)m.tsc, m.kernel_ns, last_ns);
	assert_int_equal(m.now_ns, last_ns);
	run(&m, 5 * CLOCK_S);
	run(&m, 5 * CLOCK_S);
	assert_in_range(m.furthest_ns, 0, 20000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rate),
		cmocka_unit_test(test_ahead),
		cmocka_unit_test(test_jumps),
		cmocka_unit_test(test_start_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
