// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The verdict on one backend from three sources (cluster conditions, active probes, the operator), as a pure state
// machine with an injected clock. No I/O: probes report, control reads. Control thread.

#include <stdbool.h>
#include <stdint.h>

#include "base.h"
#include "service.h"

enum health_state { HEALTH_UP, HEALTH_DOWN, HEALTH_DRAINING };
const char *health_state_name(enum health_state state); // "up" "down" "draining"

enum health_probe_verdict {
	HEALTH_PROBE_UNKNOWN,
	HEALTH_PROBE_UP,
	HEALTH_PROBE_DOWN,
	HEALTH_PROBE_OFF
};
const char *health_probe_verdict_name(enum health_probe_verdict v); // "unknown" "up" "down" "off"

// Probe history of one (address, port, check). Zero + health_probe_init.
struct health_probe {
	enum health_probe_verdict verdict;
	uint32_t n_ok_row;               // successes in a row
	uint32_t n_fail_row;             // failures in a row
	int64_t since_ms;                // wall clock of the last change of verdict
	char reason[SERVICE_REASON_MAX]; // of the last change, "connect: Connection refused"
	uint64_t n_ok;
	uint64_t n_fail;
};
void health_probe_init(struct health_probe *p, enum service_check_kind kind);
// Takes one result; reason is the failure's text or "". Returns true when the verdict changed. From UNKNOWN one success is UP; `fall` failures
// in a row are DOWN; from DOWN `rise` successes in a row are UP. OFF stays OFF and counts nothing.
bool health_probe_report(struct health_probe *p, const struct service_check *check, bool ok,
	const char *reason, int64_t wall_ms);
// When to probe next, after a result, with jitter of +-10 %:
//   steady                      interval
//   in transition               200 ms, or the interval if that is shorter
//   down, about the first min.  2x interval, at most 1 s (or the interval, where that is longer), so that `rise` good
//                               answers come within 3 s of recovery
//   down, later                 times 1.5 each, up to 15 s (or the interval, where that is longer)
// random: any 32-bit number.
uint32_t health_probe_delay_ms(
	const struct health_probe *p, const struct service_check *check, uint32_t random);

// One verdict. Order: operator drain; cluster (ready counts, even of one that terminates: publishNotReadyAddresses); probe.
struct health_verdict {
	enum health_state state;
	bool may_take_new; // before the service-wide rules below
	char reason
		[SERVICE_REASON_MAX]; // "ready, probe ok", "connect: Connection refused", "drained by operator: ..."
};
// probe, overlay may be NULL: not probed, no word of the operator.
struct health_verdict health_decide(const struct service_conditions *conditions,
	const struct health_probe *probe, const struct service_overlay *overlay);

// Which backends of one listener take new flows (reliability.md F5, kubernetes.md 3.4). The first of these that is not empty:
//   1. ready, and no probe says down        2. serving and terminating, and no probe says down
//   3. ready (fail open: every probe fails)  4. serving and terminating (the same)
// A drained one and weight 0 never, whatever is left. n candidates in, out_eligible[i] out. Returns how many.
struct health_candidate {
	struct service_conditions conditions;
	enum health_probe_verdict probe;
	bool draining;
	uint32_t weight;
};
uint32_t health_choose(const struct health_candidate *candidates, uint32_t n, bool *out_eligible);
