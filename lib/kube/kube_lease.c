// SPDX-License-Identifier: BSD-3-Clause
// The contract first: nothing is asked for yet.
#include "kube_lease.h"

#include <stdlib.h>

#include "base.h"

struct kube_lease {
	struct kube_lease_status status;
};

struct kube_lease_config kube_lease_config_default(enum kube_lease_kind kind)
{
	bool is_own = kind == KUBE_LEASE_OWN;
	return (struct kube_lease_config){
		.kind = kind,
		.lease_ms = is_own ? 40000 : 15000,
		.renew_deadline_ms = is_own ? 30000 : 10000,
		.retry_ms = is_own ? 10000 : 2000,
	};
}

struct kube_lease *kube_lease_create(const struct kube_lease_config *config)
{
	return calloc(1, sizeof(struct kube_lease));
}

void kube_lease_destroy(struct kube_lease *l)
{
	free(l);
}

enum kube_lease_step kube_lease_next(
	struct kube_lease *l, uint64_t now_ns, int64_t wall_us, struct kube_lease_request *out)
{
	*out = (struct kube_lease_request){ .until_ns = now_ns + 60 * CLOCK_S };
	return KUBE_LEASE_WAIT;
}

void kube_lease_answer(
	struct kube_lease *l, uint64_t now_ns, int http_status, const char *body, size_t len)
{
}

bool kube_lease_is_held(const struct kube_lease *l, uint64_t now_ns)
{
	return false;
}

uint64_t kube_lease_held_until_ns(const struct kube_lease *l)
{
	return 0;
}

void kube_lease_release(struct kube_lease *l, uint64_t now_ns)
{
}

const struct kube_lease_status *kube_lease_status(const struct kube_lease *l)
{
	return &l->status;
}

const char *kube_micro_time(int64_t wall_us, char *buf, size_t len)
{
	int64_t us = (wall_us % 1000000 + 1000000) % 1000000;
	char whole[32];
	clock_rfc3339((wall_us - us) / 1000, whole, sizeof(whole)); // "2026-01-31T12:00:00.000Z"
	snprintf(buf, len, "%.19s.%06dZ", whole, (int)us);
	return buf;
}
