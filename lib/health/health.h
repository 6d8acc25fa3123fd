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
// in a row are DOWN; from DOWN `rise` successes in a row are UP.
bool health_probe_report(struct health_probe *p, const struct service_check *check, bool ok,
	const char *reason, int64_t wall_ms);
// When to probe next, after a result: interval with jitter (+-10 %), faster (200 ms, or the interval if that is shorter) while in transition,
// slower while down (2x interval, times 1.5 up to 15 s, but never slower than what rise within 3 s of recovery needs: at most 1 s for the
// first minute). random: any 32-bit number.
uint32_t health_probe_delay_ms(
	const struct health_probe *p, const struct service_check *check, uint32_t random);

// One verdict. Order: operator drain; cluster (not ready, terminating); probe.
struct health_verdict {
	enum health_state state;
	bool may_take_new; // before the service-wide rules below
	char reason
		[SERVICE_REASON_MAX]; // "ready, probe ok", "connect: Connection refused", "drained by operator: ..."
};
struct health_verdict health_decide(const struct service_conditions *conditions,
	const struct health_probe *probe, const struct service_overlay *overlay);

// Which backends of one listener take new flows (reliability.md F5, kubernetes.md 3.4): ready and up; else serving and terminating and up; when
// probes fail for all of them: fail open to all that the cluster calls ready. n verdicts in, eligible[i] out. Returns how many.
struct health_candidate {
	struct service_conditions conditions;
	enum health_probe_verdict probe;
	bool draining;
	uint32_t weight;
};
uint32_t health_choose(const struct health_candidate *candidates, uint32_t n, bool *out_eligible);
