// SPDX-License-Identifier: BSD-3-Clause
// The verdict on a backend. Probe history is a state machine of two counters:
//
//            1 ok                 fall failures in a row
//   UNKNOWN ──────► UP ◄────────────────────────────────┐
//      │            └───────────────► DOWN ─────────────┘
//      └── fall failures in a row ──►      rise ok in a row
//
// What it is not: no timer, no socket; a probe reports, control asks.
#include "health.h"

#include <stdio.h>
#include <string.h>

#define TRANSITION_MS     200u
#define DOWN_FIRST_MAX_MS 1000u  // rise of 2 within 3 s of recovery: 1 s, 200 ms and two answers
#define DOWN_FIRST_FOR_MS 60000u // for so long
#define DOWN_MAX_MS       15000u

static const char *const state_names[] = {
	[HEALTH_UP] = "up",
	[HEALTH_DOWN] = "down",
	[HEALTH_DRAINING] = "draining",
};
static const char *const verdict_names[] = {
	[HEALTH_PROBE_UNKNOWN] = "unknown",
	[HEALTH_PROBE_UP] = "up",
	[HEALTH_PROBE_DOWN] = "down",
	[HEALTH_PROBE_OFF] = "off",
};

const char *health_state_name(enum health_state state)
{
	return (unsigned)state < ARRAY_SIZE(state_names) ? state_names[state] : "unknown";
}

const char *health_probe_verdict_name(enum health_probe_verdict v)
{
	return (unsigned)v < ARRAY_SIZE(verdict_names) ? verdict_names[v] : "unknown";
}

// ---------------------------------------------------------------- probes
void health_probe_init(struct health_probe *p, enum service_check_kind kind)
{
	memset(p, 0, sizeof(*p));
	p->verdict = kind == SERVICE_CHECK_NONE ? HEALTH_PROBE_OFF : HEALTH_PROBE_UNKNOWN;
}

static enum health_probe_verdict next_verdict(
	const struct health_probe *p, const struct service_check *check)
{
	if (p->verdict != HEALTH_PROBE_DOWN && p->n_fail_row >= check->fall)
		return HEALTH_PROBE_DOWN;
	if (p->verdict == HEALTH_PROBE_UNKNOWN && p->n_ok_row >= 1)
		return HEALTH_PROBE_UP;
	if (p->verdict == HEALTH_PROBE_DOWN && p->n_ok_row >= check->rise)
		return HEALTH_PROBE_UP;
	return p->verdict;
}

bool health_probe_report(struct health_probe *p, const struct service_check *check, bool ok,
	const char *reason, int64_t wall_ms)
{
	if (p->verdict == HEALTH_PROBE_OFF)
		return false;
	if (ok) {
		p->n_ok++;
		p->n_fail_row = 0;
		p->n_ok_row += p->n_ok_row < UINT32_MAX;
	} else {
		p->n_fail++;
		p->n_ok_row = 0;
		p->n_fail_row += p->n_fail_row < UINT32_MAX;
	}
	enum health_probe_verdict next = next_verdict(p, check);
	if (next == p->verdict)
		return false;
	p->verdict = next;
	p->since_ms = wall_ms;
	snprintf(p->reason, sizeof(p->reason), "%s", reason ? reason : "");
	return true;
}

// Delay while down, without jitter. The time it has been down is taken from the number of failures, so that no clock is
// needed: they came at least DOWN_FIRST_MAX_MS or so apart.
static uint64_t down_delay_ms(const struct health_probe *p, const struct service_check *check)
{
	uint64_t interval = check->interval_ms;
	uint64_t first_max = interval > DOWN_FIRST_MAX_MS ? interval : DOWN_FIRST_MAX_MS;
	uint64_t max = interval > DOWN_MAX_MS ? interval : DOWN_MAX_MS;
	uint64_t delay = 2 * interval < first_max ? 2 * interval : first_max;
	uint64_t n_since = p->n_fail_row > check->fall ? p->n_fail_row - check->fall : 0;
	for (uint64_t n = DOWN_FIRST_FOR_MS / delay; n < n_since && delay < max; n++)
		delay += delay / 2 + 1;
	return delay < max ? delay : max;
}

uint32_t health_probe_delay_ms(
	const struct health_probe *p, const struct service_check *check, uint32_t random)
{
	bool is_down = p->verdict == HEALTH_PROBE_DOWN;
	uint64_t delay = check->interval_ms;
	if (is_down ? p->n_ok_row > 0 : p->n_fail_row > 0)
		delay = delay < TRANSITION_MS ? delay : TRANSITION_MS;
	else if (is_down)
		delay = down_delay_ms(p, check);
	uint64_t tenth = delay / 10;
	return (uint32_t)(delay - tenth + ((uint64_t)random * (2 * tenth + 1) >> 32));
}

// ---------------------------------------------------------------- one verdict
static struct health_verdict make_verdict(enum health_state state, bool may_take_new)
{
	return (struct health_verdict){ .state = state, .may_take_new = may_take_new };
}

static struct health_verdict decide_drained(const struct service_overlay *overlay)
{
	struct health_verdict v = make_verdict(HEALTH_DRAINING, false);
	// The prefix may cost the tail of a very long reason.
	int max = (int)(sizeof(v.reason) - sizeof("drained by operator: "));
	snprintf(v.reason, sizeof(v.reason), "drained by operator%s%.*s",
		overlay->reason[0] ? ": " : "", max, overlay->reason);
	return v;
}

static struct health_verdict decide_probe(
	const struct health_probe *probe, const struct service_overlay *overlay)
{
	struct health_verdict v = make_verdict(HEALTH_UP, true);
	const char *tail = "not probed yet";
	enum health_probe_verdict verdict = probe ? probe->verdict : HEALTH_PROBE_UNKNOWN;
	if (verdict == HEALTH_PROBE_DOWN) {
		v = make_verdict(HEALTH_DOWN, false);
		snprintf(v.reason, sizeof(v.reason), "%s",
			probe->reason[0] ? probe->reason : "probe failed");
		return v;
	}
	if (verdict == HEALTH_PROBE_UP)
		tail = "probe ok";
	else if (verdict == HEALTH_PROBE_OFF)
		tail = "no probe";
	v.may_take_new = overlay == NULL || !overlay->has_weight || overlay->weight > 0;
	snprintf(v.reason, sizeof(v.reason), "ready, %s%s", tail,
		v.may_take_new ? "" : ", weight 0 by operator");
	return v;
}

struct health_verdict health_decide(const struct service_conditions *conditions,
	const struct health_probe *probe, const struct service_overlay *overlay)
{
	if (overlay && overlay->draining)
		return decide_drained(overlay);
	if (conditions->ready)
		return decide_probe(probe, overlay);
	struct health_verdict v =
		make_verdict(conditions->terminating ? HEALTH_DRAINING : HEALTH_DOWN, false);
	snprintf(v.reason, sizeof(v.reason), "%s%s",
		conditions->terminating ? "terminating" : "not ready",
		conditions->terminating && !conditions->serving ? ", not serving" : "");
	return v;
}

// ---------------------------------------------------------------- all of a listener
// Tier of a candidate, 0 = best; N_TIERS = never.
#define N_TIERS 4
static unsigned tier_of(const struct health_candidate *c)
{
	if (c->draining || c->weight == 0)
		return N_TIERS;
	unsigned is_down = c->probe == HEALTH_PROBE_DOWN ? 2 : 0;
	if (c->conditions.ready)
		return is_down;
	if (c->conditions.serving && c->conditions.terminating)
		return is_down + 1;
	return N_TIERS;
}

uint32_t health_choose(const struct health_candidate *candidates, uint32_t n, bool *out_eligible)
{
	unsigned best = N_TIERS;
	for (uint32_t i = 0; i < n; i++) {
		unsigned tier = tier_of(&candidates[i]);
		best = tier < best ? tier : best;
	}
	uint32_t n_eligible = 0;
	for (uint32_t i = 0; i < n; i++) {
		out_eligible[i] = best < N_TIERS && tier_of(&candidates[i]) == best;
		n_eligible += out_eligible[i];
	}
	return n_eligible;
}
