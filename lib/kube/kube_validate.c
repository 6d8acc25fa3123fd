// SPDX-License-Identifier: BSD-3-Clause
// What lib/service has to say of a decoded Service, told in the words and lines of the file it came from.
#include "kube_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// A JSON pointer of the REST form begins with `pointer`; the Kubernetes form has it at steps.
struct validate_row {
	const char *pointer;
	const char *steps[4];
};

#define ANNOTATION(name)                                    \
	{                                                   \
		"metadata", "annotations", KUBE_PREFIX name \
	}

static const struct validate_row validate_rows[] = {
	{ "/metadata/namespace", { "metadata", "namespace" } },
	{ "/metadata/name", { "metadata", "name" } },
	{ "/spec/listeners", { "spec", "ports" } },
	{ "/spec/mode", ANNOTATION("mode") },
	{ "/spec/scheduler", ANNOTATION("scheduler") },
	{ "/spec/clientAddress", ANNOTATION("client-address") },
	{ "/spec/sessionAffinity", { "spec", "sessionAffinityConfig" } },
	{ "/spec/sourceRanges", { "spec", "loadBalancerSourceRanges" } },
	{ "/spec/healthCheck/kind", ANNOTATION("health-check") },
	{ "/spec/healthCheck/path", ANNOTATION("health-check") },
	{ "/spec/healthCheck/port", ANNOTATION("health-check-port") },
	{ "/spec/healthCheck/interval", ANNOTATION("health-check-interval") },
	{ "/spec/healthCheck/timeout", ANNOTATION("health-check-timeout") },
	{ "/spec/healthCheck/rise", ANNOTATION("health-check-rise") },
	{ "/spec/healthCheck/fall", ANNOTATION("health-check-fall") },
	{ "/spec/idleTimeout/tcp", ANNOTATION("idle-timeout-tcp") },
	{ "/spec/idleTimeout/udp", ANNOTATION("idle-timeout-udp") },
	{ "/spec/drainTimeout", ANNOTATION("drain-timeout") },
};

static void enter_steps(struct kube_reader *r, const char *const *steps)
{
	for (size_t i = 0; i < 4 && steps[i]; i++)
		kube_enter(r, steps[i]);
}

// "" or "/1" behind the addresses: the entry of the status, the annotation, or the one address of the spec.
static void enter_addresses(struct kube_reader *r, const char *rest, const struct kube_service *s)
{
	static const char *const from_status[4] = { "status", "loadBalancer", "ingress" };
	static const char *const from_annotation[4] = ANNOTATION("addresses");
	static const char *const from_spec[4] = { "spec", "loadBalancerIP" };
	unsigned long idx = rest[0] == '/' ? strtoul(rest + 1, NULL, 10) : SERVICE_ADDRESSES_MAX;
	if (s->vips == KUBE_VIPS_STATUS)
		enter_steps(r, from_status);
	else if (s->vips == KUBE_VIPS_ANNOTATION)
		enter_steps(r, from_annotation);
	else
		enter_steps(r, from_spec);
	if (s->vips != KUBE_VIPS_STATUS || idx >= SERVICE_ADDRESSES_MAX)
		return;
	kube_enter_idx(r, s->vip_idx[idx]);
	kube_enter(r, "ip");
}

// "/0/port" behind the listeners: one port, and its field where the file has one of that name.
static void enter_port(struct kube_reader *r, const char *rest)
{
	char *end = NULL;
	if (rest[0] != '/' || rest[1] < '0' || rest[1] > '9')
		return;
	kube_enter_idx(r, (uint32_t)strtoul(rest + 1, &end, 10));
	static const char *const fields[] = { "name", "protocol", "port" };
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		if (*end == '/' && strcmp(end + 1, fields[i]) == 0)
			kube_enter(r, fields[i]);
}

static void enter_pointer(struct kube_reader *r, const char *pointer, const struct kube_service *s)
{
	static const char *const mode[4] = ANNOTATION("mode");
	if (strncmp(pointer, "/spec/addresses", 15) == 0) {
		enter_addresses(r, pointer + 15, s);
		return;
	}
	// A port of an endpoint is one of 1..65535 by now: what is wrong with it is that the mode cannot change it.
	if (strncmp(pointer, "/spec/backends/", 15) == 0 && strstr(pointer, "/ports/")) {
		enter_steps(r, mode);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(validate_rows); i++) {
		const struct validate_row *row = &validate_rows[i];
		size_t len = strlen(row->pointer);
		if (strncmp(pointer, row->pointer, len) || (pointer[len] && pointer[len] != '/'))
			continue;
		enter_steps(r, row->steps);
		if (strcmp(row->pointer, "/spec/listeners") == 0)
			enter_port(r, pointer + len);
		return;
	}
}

void kube_service_validate(struct kube_reader *r, const struct kube_service *s)
{
	struct error found = { 0 };
	int rc = service_validate(s->service, &found);
	for (uint32_t i = 0; i < found.n_items; i++) {
		const struct error_item *item = &found.items[i];
		const char *pointer = item->path ? item->path : "";
		r->n_steps = 0;
		enter_pointer(r, pointer, s);
		if (r->n_steps)
			kube_refuse(r, "%s", item->text ? item->text : "out of memory");
		else
			kube_refuse(
				r, "%s: %s", pointer, item->text ? item->text : "out of memory");
		r->n_steps = 0;
	}
	if (rc && found.n_items == 0)
		kube_refuse(r, "does not validate: %s", strerror(-rc));
	error_fini(&found);
}
