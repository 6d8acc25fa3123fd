// SPDX-License-Identifier: BSD-3-Clause
// The contract first: nothing is asked for yet.
#include "kube_reflector.h"

#include <stdlib.h>

struct kube_reflector {
	struct kube_reflector_status status;
};

const char *kube_trouble_name(enum kube_trouble trouble)
{
	static const char *const names[] = { "none", "unreachable", "unauthorized", "forbidden",
		"not-found", "throttled", "server", "garbage" };
	return names[trouble];
}

struct kube_reflector *kube_reflector_create(
	const struct kube_reflector_config *config, const struct kube_sink *sink)
{
	return calloc(1, sizeof(struct kube_reflector));
}

void kube_reflector_destroy(struct kube_reflector *r)
{
	free(r);
}

enum kube_step kube_reflector_next(
	struct kube_reflector *r, uint64_t now_ns, struct kube_request *out)
{
	*out = (struct kube_request){ .until_ns = now_ns + 60 * CLOCK_S };
	return KUBE_STEP_WAIT;
}

void kube_reflector_head(struct kube_reflector *r, uint64_t now_ns, int http_status,
	int64_t retry_after_s, const char *content_type)
{
}

void kube_reflector_body(struct kube_reflector *r, uint64_t now_ns, const char *bytes, size_t len)
{
}

void kube_reflector_end(struct kube_reflector *r, uint64_t now_ns, enum kube_end how)
{
}

void kube_reflector_wake(struct kube_reflector *r, uint64_t now_ns)
{
}

const struct kube_reflector_status *kube_reflector_status(const struct kube_reflector *r)
{
	return &r->status;
}
