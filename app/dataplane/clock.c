// SPDX-License-Identifier: BSD-3-Clause
// A worker's clock. Between two syncs, a second apart, it goes by the processor's counter; at each it is compared with
// CLOCK_MONOTONIC, which the rest of the node, the process before this one and the one after it go by.
//
//   behind   jumps to the kernel's time
//   ahead    goes slower for the next second, so that it meets it: it never runs back, and never stands still but for the
//            turn of a sync
//
// The rate is measured anew at each sync, between it and the one before: what the machine says of its counter is right to
// some 100 ppm, 9 s a day, and NTP slews the kernel's clock besides. A rate that differs by half from what is said is not
// believed: the counter or the clock jumped (a machine that was stopped and went on), and what is said is used once more.
#include "dataplane_priv.h"

static uint64_t gain_of(uint64_t ns, uint64_t cycles)
{
	return (uint64_t)(((__uint128_t)ns << 32) / cycles);
}

void worker_clock_init(
	struct worker_clock *clock, uint64_t tsc_hz, uint64_t tsc, uint64_t kernel_ns)
{
	uint64_t nominal = gain_of(CLOCK_S, tsc_hz);
	*clock = (struct worker_clock){ .base_ns = kernel_ns,
		.base_tsc = tsc,
		.gain = nominal,
		.rate = nominal,
		.nominal = nominal,
		.sync_ns = kernel_ns,
		.sync_tsc = tsc };
}

static uint64_t measure(const struct worker_clock *clock, uint64_t tsc, uint64_t kernel_ns)
{
	// Too close together, and the time that two readings take would count.
	if (kernel_ns < clock->sync_ns + CLOCK_S / 10 || tsc <= clock->sync_tsc)
		return clock->rate;
	uint64_t gain = gain_of(kernel_ns - clock->sync_ns, tsc - clock->sync_tsc);
	bool plausible = gain > clock->nominal / 2 && gain < clock->nominal * 2;
	return plausible ? gain : clock->nominal;
}

uint64_t worker_clock_sync(
	struct worker_clock *clock, uint64_t tsc, uint64_t kernel_ns, uint64_t last_ns)
{
	clock->rate = measure(clock, tsc, kernel_ns);
	uint64_t ahead_ns = last_ns > kernel_ns ? last_ns - kernel_ns : 0;
	uint64_t most_ns = CLOCK_S / 2; // what one second can make up for
	uint64_t slower_ns = ahead_ns < most_ns ? ahead_ns : most_ns;
	clock->gain = clock->rate - (uint64_t)((__uint128_t)clock->rate * slower_ns / CLOCK_S);
	clock->base_ns = kernel_ns + ahead_ns;
	clock->base_tsc = tsc;
	clock->sync_ns = kernel_ns;
	clock->sync_tsc = tsc;
	return clock->base_ns;
}
