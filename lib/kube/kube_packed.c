// SPDX-License-Identifier: BSD-3-Clause
// Slices as they are kept: endpoints, ports and their texts in one block, without the tree they came in. A node name, which
// many endpoints of a slice share, lies there once when it stands near its like.
#include "kube_cluster_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SERVICE_LABEL      "kubernetes.io/service-name"
#define TRIGGER_ANNOTATION "endpoints.kubernetes.io/last-change-trigger-time"
#define SHARED_MAX         8

// Texts on their way into a block; first only counted (block NULL), then copied.
struct packer {
	char *at; // NULL: counting
	size_t size;
	const char *shared[SHARED_MAX]; // source texts seen last, and where they lie
	const char *shared_at[SHARED_MAX];
	uint32_t n_shared;
};

static const char *pack_text(struct packer *p, const char *text)
{
	size_t len = strlen(text) + 1;
	p->size += len;
	if (p->at == NULL)
		return NULL;
	const char *packed = memcpy(p->at, text, len);
	p->at += len;
	return packed;
}

static const char *pack_shared(struct packer *p, const char *text)
{
	for (uint32_t i = 0; i < SHARED_MAX && i < p->n_shared; i++)
		if (strcmp(p->shared[i], text) == 0)
			return p->shared_at[i];
	uint32_t at = p->n_shared++ % SHARED_MAX;
	p->shared[at] = text;
	p->shared_at[at] = pack_text(p, text);
	return p->shared_at[at];
}

static void pack_texts(struct packer *p, const struct kube_slice *from, struct kube_slice *to)
{
	const char *none = pack_text(p, "");
	for (uint32_t i = 0; i < from->n_endpoints; i++) {
		const struct kube_endpoint *e = &from->endpoints[i];
		const char *target = e->target[0] ? pack_text(p, e->target) : none;
		const char *hostname = e->hostname[0] ? pack_text(p, e->hostname) : none;
		const char *uid = e->uid[0] ? pack_text(p, e->uid) : none;
		const char *node = pack_shared(p, e->node);
		if (p->at == NULL)
			continue;
		to->endpoints[i] = *e;
		to->endpoints[i].target = target;
		to->endpoints[i].hostname = hostname;
		to->endpoints[i].uid = uid;
		to->endpoints[i].node = node;
	}
	for (uint32_t i = 0; i < from->n_ports; i++) {
		const char *name = pack_shared(p, from->ports[i].name);
		if (p->at == NULL)
			continue;
		to->ports[i] = from->ports[i];
		to->ports[i].name = name;
	}
}

// The slice in one block of its own; NULL: out of memory.
static void *pack(const struct kube_slice *from, struct kube_slice *out)
{
	struct packer counting = { 0 };
	pack_texts(&counting, from, NULL);
	size_t n_arrays =
		from->n_endpoints * sizeof(*from->endpoints) + from->n_ports * sizeof(*from->ports);
	char *block = malloc(n_arrays + counting.size);
	if (block == NULL)
		return NULL;
	*out = *from;
	out->endpoints = (struct kube_endpoint *)block;
	out->ports =
		(struct kube_slice_port *)(block + from->n_endpoints * sizeof(*from->endpoints));
	out->cap_endpoints = out->n_endpoints;
	out->cap_ports = out->n_ports;
	struct packer packing = { .at = block + n_arrays };
	pack_texts(&packing, from, out);
	return block;
}

// ---------------------------------------------------------------- equality
static bool endpoints_equal(const struct kube_endpoint *a, const struct kube_endpoint *b)
{
	return address_equal(&a->address, &b->address) &&
	       a->conditions.ready == b->conditions.ready &&
	       a->conditions.serving == b->conditions.serving &&
	       a->conditions.terminating == b->conditions.terminating && a->is_pod == b->is_pod &&
	       a->has_hint == b->has_hint && a->is_near == b->is_near &&
	       strcmp(a->target, b->target) == 0 && strcmp(a->hostname, b->hostname) == 0 &&
	       strcmp(a->uid, b->uid) == 0 && strcmp(a->node, b->node) == 0;
}

// All but the resourceVersion.
static bool slices_equal(const struct kube_slice *a, const struct kube_slice *b)
{
	if (a->n_endpoints != b->n_endpoints || a->n_ports != b->n_ports)
		return false;
	for (uint32_t i = 0; i < a->n_endpoints; i++)
		if (!endpoints_equal(&a->endpoints[i], &b->endpoints[i]))
			return false;
	for (uint32_t i = 0; i < a->n_ports; i++)
		if (a->ports[i].port != b->ports[i].port ||
			a->ports[i].protocol != b->ports[i].protocol ||
			strcmp(a->ports[i].name, b->ports[i].name))
			return false;
	return true;
}

// ---------------------------------------------------------------- place
static void detach(struct kube_cluster *c, struct kube_packed_slice *slice)
{
	struct kube_owner *owner = slice->owner;
	if (owner == NULL)
		return;
	c->n_endpoints -= slice->slice.n_endpoints;
	if (slice->previous)
		slice->previous->next = slice->next;
	else
		owner->slices = slice->next;
	if (slice->next)
		slice->next->previous = slice->previous;
	slice->owner = NULL;
	slice->next = slice->previous = NULL;
}

static void attach(
	struct kube_cluster *c, struct kube_packed_slice *slice, struct kube_owner *owner)
{
	slice->owner = owner;
	slice->next = owner->slices;
	if (slice->next)
		slice->next->previous = slice;
	owner->slices = slice;
	c->n_endpoints += slice->slice.n_endpoints;
}

void kube_packed_remove(struct kube_cluster *c, struct kube_packed_slice *slice)
{
	struct kube_owner *owner = slice->owner;
	detach(c, slice);
	free(slice->block);
	free(slice->refusal);
	kube_map_remove(&c->slices, &slice->object);
	if (owner == NULL)
		return;
	kube_owner_touch(c, owner);
	kube_owner_drop(c, owner);
}

// ---------------------------------------------------------------- put
// RFC 3339 in UTC to wall milliseconds; 0: not such a time.
static uint64_t trigger_of(const json_t *object)
{
	const json_t *annotations =
		json_object_get(json_object_get(object, "metadata"), "annotations");
	const char *text = json_string_value(json_object_get(annotations, TRIGGER_ANNOTATION));
	return text ? kube_time_parse(text) : 0;
}

static int replace(struct kube_cluster *c, struct kube_packed_slice *slice,
	const struct kube_slice *fresh, uint64_t trigger_ms)
{
	struct kube_slice packed;
	struct kube_owner *before = slice->owner;
	struct kube_owner *owner = kube_owner_get(c, slice->object.namespace, fresh->service);
	void *block = owner ? pack(fresh, &packed) : NULL;
	if (block == NULL) {
		if (owner)
			kube_owner_drop(c, owner);
		return -ENOMEM;
	}
	detach(c, slice);
	free(slice->block);
	free(slice->refusal);
	slice->refusal = NULL;
	slice->block = block;
	slice->slice = packed;
	slice->slice.namespace = slice->object.namespace;
	slice->slice.name = slice->object.name;
	slice->slice.service = owner->object.name;
	attach(c, slice, owner);
	if (trigger_ms > owner->trigger_ms)
		owner->trigger_ms = trigger_ms;
	int rc = kube_owner_touch(c, owner);
	if (before && before != owner) {
		rc = rc ? rc : kube_owner_touch(c, before);
		kube_owner_drop(c, before);
	}
	return rc;
}

// Decoded and good.
static int take(struct kube_cluster *c, const json_t *object, const struct kube_slice *fresh,
	struct kube_packed_slice *known)
{
	const char *namespace, *name;
	struct kube_packed_slice *slice = known;
	kube_identity_read(object, &namespace, &name);
	if (known && known->refusal == NULL &&
		strcmp(known->owner->object.name, fresh->service) == 0 &&
		slices_equal(&known->slice, fresh)) {
		bool is_newer = known->slice.resource_version != fresh->resource_version;
		known->slice.resource_version = fresh->resource_version;
		known->version = kube_version_of(object);
		return is_newer ? kube_owner_touch(c, known->owner) : 0;
	}
	if (slice == NULL)
		slice = kube_map_add(&c->slices, namespace, name, sizeof(*slice));
	if (slice == NULL)
		return -ENOMEM;
	slice->object.epoch = c->epochs[KUBE_CLUSTER_SLICES];
	int rc = replace(c, slice, fresh, trigger_of(object));
	if (rc == 0)
		slice->version = kube_version_of(object);
	else if (slice->owner == NULL)
		kube_packed_remove(c, slice);
	return rc;
}

// Its last good version stays, and that is said; of one that was never good, what can be known is whose it is.
static int refuse(struct kube_cluster *c, const json_t *object, const struct error *err,
	struct kube_packed_slice *known, const char *service)
{
	struct kube_slice none = { .service = service };
	int rc = 0;
	c->n_bad_objects++;
	if (known == NULL && service[0])
		rc = take(c, object, &none, NULL);
	if (known == NULL && service[0] && rc == 0) {
		const char *namespace, *name;
		kube_identity_read(object, &namespace, &name);
		known = kube_map_find(&c->slices, namespace, name);
	}
	if (rc != 0 || known == NULL)
		return rc;
	char *refusal = kube_findings_pack(err);
	if (refusal == NULL)
		return -ENOMEM;
	free(known->refusal);
	known->refusal = refusal;
	known->version = kube_version_of(object);
	return kube_owner_touch(c, known->owner);
}

// The next one by name that is refused.
static const struct kube_packed_slice *next_refused(
	const struct kube_owner *owner, const char *after)
{
	const struct kube_packed_slice *best = NULL;
	for (const struct kube_packed_slice *slice = owner->slices; slice; slice = slice->next)
		if (slice->refusal && strcmp(slice->object.name, after) > 0 &&
			(best == NULL || strcmp(slice->object.name, best->object.name) < 0))
			best = slice;
	return best;
}

void kube_packed_note(const struct kube_owner *owner, struct error *notes)
{
	const struct kube_packed_slice *slice = next_refused(owner, "");
	for (; slice && notes->n_items < KUBE_NOTES_MAX;
		slice = next_refused(owner, slice->object.name)) {
		struct error findings = { 0 };
		char prefix[300];
		snprintf(prefix, sizeof(prefix), "endpointslices/%s ", slice->object.name);
		kube_findings_unpack(slice->refusal, &findings);
		error_merge(notes, &findings, prefix);
		error_fini(&findings);
	}
}

int kube_packed_put(struct kube_cluster *c, const json_t *object)
{
	const char *namespace, *name;
	kube_identity_read(object, &namespace, &name);
	struct kube_packed_slice *known = kube_map_find(&c->slices, namespace, name);
	uint64_t version = kube_version_of(object);
	if (known) {
		known->object.epoch = c->epochs[KUBE_CLUSTER_SLICES];
		if (version && version == known->version)
			return 0;
	}
	struct error err = { 0 };
	struct kube_slice fresh = { 0 };
	struct kube_reader r = {
		.text = "", .is_watch = true, .zone = c->zone, .err = &err, .item_idx = UINT32_MAX
	};
	kube_slice_read(&r, object, &fresh);
	int rc = 0;
	if (r.n_bad > 0)
		rc = refuse(c, object, &err, known, fresh.service);
	else if (fresh.service[0] == '\0' && known)
		kube_packed_remove(c, known);
	else if (fresh.service[0] != '\0')
		rc = take(c, object, &fresh, known);
	kube_slice_fini(&fresh);
	error_fini(&err);
	return rc;
}
