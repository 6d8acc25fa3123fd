// SPDX-License-Identifier: BSD-3-Clause
// Status of Services, pools and pods: what it is to say, whether it says so already, and the apply that makes it so.
#include "kube_encode_priv.h"
#include "kube_priv.h"

#include <errno.h>
#include <string.h>

#define NUMBER_MAX ((1ull << 53) - 1) // exact in every reader of JSON

const char *kube_condition_name(enum kube_condition_type type)
{
	static const char *const names[] = {
		[KUBE_ALLOCATED] = KUBE_PREFIX "Allocated",
		[KUBE_PROGRAMMED] = KUBE_PREFIX "Programmed",
		[KUBE_BACKENDS_HEALTHY] = KUBE_PREFIX "BackendsHealthy",
	};
	return names[type];
}

static const char *truth_name(enum kube_truth truth)
{
	return truth == KUBE_TRUE ? "True" : truth == KUBE_FALSE ? "False" : "Unknown";
}

static enum kube_truth truth_parse(const char *text)
{
	if (text == NULL)
		return KUBE_ABSENT;
	return strcmp(text, "True") == 0    ? KUBE_TRUE
	       : strcmp(text, "False") == 0 ? KUBE_FALSE
					    : KUBE_UNKNOWN;
}

// ---------------------------------------------------------------- conditions
struct kube_condition kube_condition_programmed(uint32_t k, uint32_t n)
{
	struct kube_condition c = { .truth = n && k == n ? KUBE_TRUE : KUBE_FALSE,
		.reason = k == 0   ? "NotProgrammed"
			  : k == n ? "Programmed"
				   : "PartlyProgrammed" };
	snprintf(c.message, sizeof(c.message), "programmed on %u of %u node%s", k, n,
		n == 1 ? "" : "s");
	return c;
}

struct kube_condition kube_condition_backends(uint32_t k, uint32_t n)
{
	struct kube_condition c = { .truth = n && k == n ? KUBE_TRUE : KUBE_FALSE,
		.reason = n == 0   ? "NoBackends"
			  : k == 0 ? "NoneHealthy"
			  : k == n ? "AllHealthy"
				   : "SomeUnhealthy" };
	snprintf(c.message, sizeof(c.message), "%u of %u backend%s healthy", k, n,
		n == 1 ? "" : "s");
	return c;
}

struct kube_condition kube_condition_allocated(
	bool is_allocated, const char *reason, const char *text)
{
	struct kube_condition c = { .truth = is_allocated ? KUBE_TRUE : KUBE_FALSE,
		.reason = reason };
	kube_clean(text, c.message, sizeof(c.message));
	return c;
}

struct kube_condition kube_condition_pool(const struct error *findings, bool is_overlap)
{
	struct kube_condition c = { .truth = KUBE_TRUE, .reason = "Accepted" };
	if (findings == NULL || findings->n_items == 0) {
		snprintf(c.message, sizeof(c.message), "gives addresses");
		return c;
	}
	char first[KUBE_MESSAGE_MAX], text[KUBE_MESSAGE_MAX + 32];
	uint32_t more = findings->n_items - 1 + findings->n_lost;
	error_first(findings, first, sizeof(first) - 32);
	snprintf(text, sizeof(text), more ? "%s (and %u more)" : "%s", first, more);
	kube_clean(text, c.message, sizeof(c.message));
	c.truth = KUBE_FALSE;
	c.reason = is_overlap ? "Overlapping" : "Invalid";
	return c;
}

static json_t *condition_json(
	const char *type, const struct kube_condition *condition, int64_t generation)
{
	char when[32], message[KUBE_MESSAGE_MAX];
	json_t *json = json_pack("{s:s,s:s}", "type", type, "status", truth_name(condition->truth));
	if (generation)
		json_object_set_new(json, "observedGeneration", json_integer(generation));
	json_object_set_new(json, "lastTransitionTime",
		json_string(kube_seconds_format(condition->since_s, when, sizeof(when))));
	json_object_set_new(json, "reason", json_string(condition->reason));
	json_object_set_new(json, "message",
		json_string(kube_clean(condition->message, message, sizeof(message))));
	return json;
}

// ---------------------------------------------------------------- digests
// Of what is to be there and of what is there, made from the same pieces in the same order.
struct digest {
	uint64_t hard;
	uint64_t soft;
	bool any;
};

static void add_text(uint64_t *to, const char *text)
{
	*to = hash_stable(text, strlen(text) + 1, *to);
}

static void add_number(uint64_t *to, uint64_t number)
{
	uint64_t fixed = rte_cpu_to_be_64(number);
	*to = hash_stable(&fixed, sizeof(fixed), *to);
}

static void add_own(struct digest *d, const char *what, const char *text)
{
	if (text == NULL || text[0] == '\0')
		return;
	add_text(&d->hard, what);
	add_text(&d->hard, text);
	d->any = true;
}

static void add_ingress(struct digest *d, const char *ip, const char *mode)
{
	add_own(d, "ingress", ip);
	add_text(&d->hard, mode);
}

static void add_port(struct digest *d, const char *protocol, uint64_t port, const char *error)
{
	add_text(&d->hard, protocol);
	add_number(&d->hard, port);
	add_text(&d->hard, error);
}

static void add_condition(struct digest *d, const char *type, const char *truth, const char *reason)
{
	add_own(d, type, truth);
	add_text(&d->hard, reason);
}

static void add_message(struct digest *d, const char *message, int64_t generation)
{
	add_text(&d->soft, message);
	add_number(&d->soft, (uint64_t)generation);
}

static void digest_condition(struct digest *d, const char *type,
	const struct kube_condition *condition, int64_t generation)
{
	char message[KUBE_MESSAGE_MAX];
	if (condition->truth == KUBE_ABSENT)
		return;
	add_condition(d, type, truth_name(condition->truth), condition->reason);
	add_message(d, kube_clean(condition->message, message, sizeof(message)), generation);
}

static const char *mode_name(const struct kube_ingress *ingress)
{
	return ingress->is_proxy_mode ? "Proxy" : "VIP";
}

static struct digest digest_status(const struct kube_status *want)
{
	struct digest d = { 0 };
	add_own(&d, "finalizer", want->finalizer);
	add_own(&d, "allocation", want->allocation);
	add_own(&d, "assigned", want->assigned);
	for (uint32_t i = 0; i < want->n_ingress; i++) {
		char text[ADDRESS_TEXT_LEN];
		add_ingress(&d, address_format(&want->ingress[i].address, text),
			mode_name(&want->ingress[i]));
		for (uint32_t k = 0; k < want->n_ports; k++)
			add_port(&d, service_protocol_name(want->ports[k].protocol),
				want->ports[k].port, want->ports[k].error);
	}
	for (int i = 0; i < KUBE_CONDITIONS; i++)
		digest_condition(&d, kube_condition_name((enum kube_condition_type)i),
			&want->conditions[i], want->generation);
	return d;
}

// ---------------------------------------------------------------- what is there
static const char *text_of(const json_t *in, const char *key)
{
	const char *text = json_string_value(json_object_get(in, key));
	return text ? text : "";
}

static const json_t *find_condition(const json_t *status, const char *type)
{
	const json_t *conditions = json_object_get(status, "conditions");
	for (size_t i = 0; i < json_array_size(conditions); i++) {
		const json_t *condition = json_array_get(conditions, i);
		if (strcmp(text_of(condition, "type"), type) == 0)
			return condition;
	}
	return NULL;
}

static void see_condition(
	struct digest *d, const json_t *status, const char *type, struct kube_seen *out, int idx)
{
	const json_t *condition = find_condition(status, type);
	const char *truth = json_string_value(json_object_get(condition, "status"));
	out->truths[idx] = truth_parse(truth);
	if (out->truths[idx] == KUBE_ABSENT)
		return;
	if (kube_seconds_parse(text_of(condition, "lastTransitionTime"), &out->since_s[idx]) != 0)
		out->since_s[idx] = 0;
	add_condition(d, type, truth, text_of(condition, "reason"));
	add_message(d, text_of(condition, "message"),
		json_integer_value(json_object_get(condition, "observedGeneration")));
}

static void see_ingress(struct digest *d, const json_t *status)
{
	const json_t *list = json_object_get(json_object_get(status, "loadBalancer"), "ingress");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *entry = json_array_get(list, i);
		const char *ip = text_of(entry, "ip");
		add_ingress(d, ip[0] ? ip : "?", text_of(entry, "ipMode"));
		const json_t *ports = json_object_get(entry, "ports");
		for (size_t k = 0; k < json_array_size(ports); k++) {
			const json_t *port = json_array_get(ports, k);
			add_port(d, text_of(port, "protocol"),
				(uint64_t)json_integer_value(json_object_get(port, "port")),
				text_of(port, "error"));
		}
	}
}

static bool has_finalizer(const json_t *metadata, const char *finalizer)
{
	const json_t *list = json_object_get(metadata, "finalizers");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *text = json_string_value(json_array_get(list, i));
		if (text && strcmp(text, finalizer) == 0)
			return true;
	}
	return false;
}

static void settle_seen(struct kube_seen *seen, const struct digest *d)
{
	seen->hard = d->any ? d->hard | 1 : 0;
	seen->soft = d->soft;
}

void kube_seen_read(const json_t *service, const char *finalizer, struct kube_seen *out)
{
	const json_t *metadata = json_object_get(service, "metadata");
	const json_t *annotations = json_object_get(metadata, "annotations");
	const json_t *status = json_object_get(service, "status");
	const char *allocation = text_of(annotations, KUBE_PREFIX "allocation");
	char pool[256];
	struct digest d = { 0 };
	*out = (struct kube_seen){ 0 };
	add_own(&d, "finalizer", has_finalizer(metadata, finalizer) ? finalizer : "");
	add_own(&d, "allocation", allocation);
	add_own(&d, "assigned", text_of(annotations, KUBE_PREFIX "assigned"));
	see_ingress(&d, status);
	for (int i = 0; i < KUBE_CONDITIONS; i++)
		see_condition(&d, status, kube_condition_name((enum kube_condition_type)i), out, i);
	settle_seen(out, &d);
	kube_allocation_parse(allocation, pool, sizeof(pool), &out->form);
}

// ---------------------------------------------------------------- settle
static void keep_time(
	struct kube_condition *condition, const struct kube_seen *seen, int idx, int64_t now_s)
{
	bool is_same = condition->truth == seen->truths[idx] && seen->since_s[idx];
	condition->since_s = is_same ? seen->since_s[idx] : now_s;
}

static enum kube_urgency urgency(const struct digest *d, const struct kube_seen *seen)
{
	struct kube_seen want;
	settle_seen(&want, d);
	if (want.hard != seen->hard)
		return KUBE_WRITE_NOW;
	return want.soft != seen->soft ? KUBE_WRITE_SOON : KUBE_WRITE_NONE;
}

enum kube_urgency kube_status_settle(
	struct kube_status *want, const struct kube_seen *seen, int64_t now_s)
{
	for (int i = 0; i < KUBE_CONDITIONS; i++)
		keep_time(&want->conditions[i], seen, i, now_s);
	struct digest d = digest_status(want);
	return urgency(&d, seen);
}

// ---------------------------------------------------------------- writing
static json_t *ports_json(const struct kube_status *want)
{
	json_t *ports = json_array();
	for (uint32_t i = 0; i < want->n_ports; i++) {
		const struct kube_ingress_port *from = &want->ports[i];
		json_t *port = json_pack("{s:i,s:s}", "port", (int)from->port, "protocol",
			service_protocol_name(from->protocol));
		if (from->error[0])
			json_object_set_new(port, "error", json_string(from->error));
		json_array_append_new(ports, port);
	}
	return ports;
}

static json_t *ingress_json(const struct kube_status *want)
{
	json_t *list = json_array();
	for (uint32_t i = 0; i < want->n_ingress; i++) {
		char text[ADDRESS_TEXT_LEN];
		json_t *entry = json_pack("{s:s,s:s}", "ip",
			address_format(&want->ingress[i].address, text), "ipMode",
			mode_name(&want->ingress[i]));
		if (want->n_ports)
			json_object_set_new(entry, "ports", ports_json(want));
		json_array_append_new(list, entry);
	}
	return list;
}

static json_t *metadata_json(const struct kube_status *want)
{
	json_t *metadata = json_pack("{s:s,s:s,s:s}", "name", want->name, "namespace",
		want->namespace, "uid", want->uid);
	if (want->resource_version[0])
		json_object_set_new(
			metadata, "resourceVersion", json_string(want->resource_version));
	json_t *annotations = json_object();
	if (want->allocation[0])
		json_object_set_new(
			annotations, KUBE_PREFIX "allocation", json_string(want->allocation));
	if (want->assigned[0])
		json_object_set_new(
			annotations, KUBE_PREFIX "assigned", json_string(want->assigned));
	if (json_object_size(annotations))
		json_object_set(metadata, "annotations", annotations);
	json_decref(annotations);
	if (want->finalizer[0])
		json_object_set_new(metadata, "finalizers", json_pack("[s]", want->finalizer));
	return metadata;
}

static int write_apply(struct kube_write *out, const char *path, json_t *body)
{
	char target[KUBE_TARGET_MAX];
	snprintf(target, sizeof(target), "%s/status?fieldManager=" KUBE_FIELD_MANAGER "&force=true",
		path);
	return kube_write_make(out, "PATCH", "application/apply-patch+yaml", target, body);
}

int kube_write_status(const struct kube_status *want, struct kube_write *out)
{
	char namespace[800], name[800], path[KUBE_TARGET_MAX - 100];
	json_t *conditions = json_array(), *status = json_object();
	for (int i = 0; i < KUBE_CONDITIONS; i++)
		if (want->conditions[i].truth != KUBE_ABSENT)
			json_array_append_new(conditions,
				condition_json(kube_condition_name((enum kube_condition_type)i),
					&want->conditions[i], want->generation));
	if (want->n_ingress)
		json_object_set_new(
			status, "loadBalancer", json_pack("{s:o}", "ingress", ingress_json(want)));
	if (json_array_size(conditions))
		json_object_set(status, "conditions", conditions);
	json_decref(conditions);
	snprintf(path, sizeof(path), "/api/v1/namespaces/%s/services/%s",
		kube_segment(want->namespace, namespace, sizeof(namespace)),
		kube_segment(want->name, name, sizeof(name)));
	return write_apply(out, path,
		json_pack("{s:s,s:s,s:o,s:o}", "apiVersion", "v1", "kind", "Service", "metadata",
			metadata_json(want), "status", status));
}

// ---------------------------------------------------------------- pools
static uint64_t capped(uint64_t n)
{
	return n < NUMBER_MAX ? n : NUMBER_MAX;
}

void kube_pool_seen_read(const json_t *pool, struct kube_seen *out)
{
	const json_t *status = json_object_get(pool, "status");
	static const char *const members[] = { "assigned", "available" };
	static const char *const families[] = { "ipv4", "ipv6" };
	struct digest d = { 0 };
	*out = (struct kube_seen){ 0 };
	see_condition(&d, status, "Ready", out, 0);
	for (size_t i = 0; i < 4; i++) {
		const json_t *count =
			json_object_get(json_object_get(status, members[i / 2]), families[i % 2]);
		add_number(&d.soft,
			json_is_integer(count) ? (uint64_t)json_integer_value(count) : UINT64_MAX);
	}
	settle_seen(out, &d);
}

enum kube_urgency kube_pool_settle(
	struct kube_pool_status *want, const struct kube_seen *seen, int64_t now_s)
{
	struct digest d = { 0 };
	keep_time(&want->ready, seen, 0, now_s);
	digest_condition(&d, "Ready", &want->ready, want->generation);
	for (int i = 0; i < 2; i++)
		add_number(&d.soft, capped(want->assigned[i]));
	for (int i = 0; i < 2; i++)
		add_number(&d.soft, capped(want->available[i]));
	return urgency(&d, seen);
}

static json_t *counts_json(const uint64_t counts[2])
{
	return json_pack("{s:I,s:I}", "ipv4", (json_int_t)capped(counts[0]), "ipv6",
		(json_int_t)capped(counts[1]));
}

int kube_write_pool(const struct kube_pool_status *want, struct kube_write *out)
{
	char name[800], path[KUBE_TARGET_MAX - 100];
	snprintf(path, sizeof(path), "/apis/sluice-lb.github.io/v1alpha1/addresspools/%s",
		kube_segment(want->name, name, sizeof(name)));
	json_t *status = json_pack("{s:o,s:o,s:[o]}", "assigned", counts_json(want->assigned),
		"available", counts_json(want->available), "conditions",
		condition_json("Ready", &want->ready, want->generation));
	return write_apply(out, path,
		json_pack("{s:s,s:s,s:{s:s,s:s},s:o}", "apiVersion", "sluice-lb.github.io/v1alpha1",
			"kind", "AddressPool", "metadata", "name", want->name, "uid", want->uid,
			"status", status));
}

// ---------------------------------------------------------------- pods
int kube_write_pod(const struct kube_pod *pod, const char *gate,
	const struct kube_condition *condition, struct kube_write *out)
{
	char namespace[800], name[800], path[KUBE_TARGET_MAX - 100];
	snprintf(path, sizeof(path), "/api/v1/namespaces/%s/pods/%s",
		kube_segment(pod->namespace, namespace, sizeof(namespace)),
		kube_segment(pod->name, name, sizeof(name)));
	return write_apply(out, path,
		json_pack("{s:s,s:s,s:{s:s,s:s,s:s},s:{s:[o]}}", "apiVersion", "v1", "kind", "Pod",
			"metadata", "name", pod->name, "namespace", pod->namespace, "uid", pod->uid,
			"status", "conditions", condition_json(gate, condition, 0)));
}
