// SPDX-License-Identifier: BSD-3-Clause
// The queue of faces, and what each is now: compared with what was given last, so that only changes are given.
#include "kube_cluster_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct kube_face *queue_take(struct kube_cluster *c)
{
	struct kube_face *face = c->first_dirty;
	if (face == NULL)
		return NULL;
	c->first_dirty = face->next_dirty;
	face->is_dirty = false;
	return face;
}

static void face_free(struct kube_cluster *c, struct kube_face *face)
{
	struct kube_owner *owner = face->owner;
	kube_face_destroy(c, face);
	kube_owner_drop(c, owner);
}

// What the last change borrowed.
static void given_clear(struct kube_cluster *c)
{
	struct kube_given *given = &c->given;
	struct kube_face *gone = given->gone;
	service_destroy(given->service);
	error_fini(&given->findings);
	free(given->name);
	free(given->uid);
	*given = (struct kube_given){ 0 };
	// One that has come back, or waits for its turn again, is not for us to free.
	if (gone && gone->is_gone && !gone->is_dirty)
		face_free(c, gone);
}

void kube_given_fini(struct kube_cluster *c)
{
	c->given.gone = NULL; // goes with its owner
	given_clear(c);
}

// Nothing of it is given any more.
static void face_forget(struct kube_cluster *c, struct kube_face *face)
{
	kube_claims_unserve(c, face);
	face->is_served = false;
	face->n_endpoints = face->n_ready = face->n_ids = 0;
	free(face->ids);
	face->ids = NULL;
	face->service_digest = face->change_digest = (struct kube_digest){ { 0 } };
}

// ---------------------------------------------------------------- the words of a change
static const char *or_empty(const char *text)
{
	return text ? text : "";
}

static void wants_fill(const struct kube_service *form, struct kube_wants *out)
{
	const struct kube_extras *extras = &form->extras;
	out->is_wanted = true;
	memcpy(out->families, extras->families, sizeof(out->families));
	out->n_families = extras->n_families;
	out->policy = extras->policy;
	memcpy(out->requested, extras->requested, sizeof(out->requested));
	out->n_requested = extras->n_requested;
	out->pool = or_empty(extras->pool);
	out->sharing_key = or_empty(extras->sharing_key);
	out->ports = form->service->listeners;
	out->n_ports = form->service->n_listeners;
	out->backend_key = extras->is_local ? or_empty(extras->selector) : "";
	out->is_proxy_mode = extras->is_proxy_mode;
}

static void ingress_fill(struct kube_cluster *c, const struct kube_face *face,
	const struct kube_service *form, struct kube_change *out)
{
	struct address vips[SERVICE_ADDRESSES_MAX];
	out->n_ingress = kube_face_addresses(face, vips);
	out->ingress = c->given.ingress;
	for (uint32_t i = 0; i < out->n_ingress; i++)
		c->given.ingress[i] = (struct kube_ingress){ vips[i],
			form->extras.expose == KUBE_EXPOSE_NONE &&
				(form->extras.proxy_bits >> i & 1) };
}

// Everything but kind and service.
static int change_fill(struct kube_cluster *c, struct kube_face *face, struct kube_change *out)
{
	const struct kube_owner *owner = face->owner;
	const struct kube_service *form = kube_owner_form(owner);
	const char *dot = face->hostname[0] ? "." : "";
	*out = (struct kube_change){ .kind = KUBE_KEEP,
		.namespace = owner->object.namespace,
		.object = owner->object.name,
		.hostname = face->hostname,
		.uid = or_empty(owner->meta.uid),
		.resource_version = or_empty(owner->meta.resource_version),
		.created = or_empty(owner->meta.created),
		.labels = or_empty(owner->meta.labels),
		.generation = owner->meta.generation,
		.is_ours = owner->is_ours,
		.is_deleting = owner->meta.is_deleting,
		.has_finalizer = owner->meta.has_finalizer,
		.findings = &c->given.findings,
		.wants = { .pool = "", .sharing_key = "", .backend_key = "" } };
	if (c->given.name == NULL &&
		asprintf(&c->given.name, "%s%s%s", face->hostname, dot, owner->object.name) < 0) {
		c->given.name = NULL;
		return -ENOMEM;
	}
	out->name = c->given.name;
	out->wants_no_finalizer = out->has_finalizer && face->hostname[0] == '\0' &&
				  (owner->is_ours ? out->is_deleting : owner->may_clean_up);
	out->n_endpoints = face->n_endpoints;
	out->n_ready = face->n_ready;
	if (form == NULL || !owner->is_ours)
		return 0;
	out->expose = form->extras.expose;
	out->to_nodes = form->extras.to_nodes;
	ingress_fill(c, face, form, out);
	bool is_parent = out->expose == KUBE_EXPOSE_ENDPOINTS && face->hostname[0] == '\0';
	if (!owner->meta.is_deleting && !face->is_gone && !is_parent)
		wants_fill(form, &out->wants);
	return 0;
}

// ---------------------------------------------------------------- what goes
// The object that it was given for is no more: deleted, or another one has its name.
static bool give_gone(struct kube_cluster *c, struct kube_face *face, struct kube_change *out)
{
	const struct kube_owner *owner = face->owner;
	if (change_fill(c, face, out) != 0)
		return false;
	c->given.uid = face->given_uid;
	face->given_uid = NULL;
	out->kind = KUBE_REMOVE;
	out->uid = c->given.uid;
	out->is_gone = true;
	out->is_ours = out->is_deleting = out->has_finalizer = out->wants_no_finalizer = false;
	out->wants.is_wanted = false;
	out->n_ingress = out->n_endpoints = out->n_ready = 0;
	face_forget(c, face);
	if (owner->has_object && !face->is_gone)
		kube_face_queue(c, face, true);
	else
		c->given.gone = face;
	return true;
}

// A hostname that is no longer there; the object is.
static bool give_leaving(struct kube_cluster *c, struct kube_face *face, struct kube_change *out)
{
	if (face->given_uid == NULL || change_fill(c, face, out) != 0) {
		face_free(c, face);
		return false;
	}
	out->kind = face->is_served ? KUBE_REMOVE : KUBE_KEEP;
	out->n_endpoints = out->n_ready = 0;
	face_forget(c, face);
	free(face->given_uid);
	face->given_uid = NULL;
	c->given.gone = face;
	return true;
}

// Another one is served with what this one is to have: first take it from there.
static bool give_way(struct kube_cluster *c, struct kube_face *face, struct kube_face *other,
	struct kube_change *out)
{
	kube_face_queue(c, face, true);
	if (change_fill(c, other, out) != 0)
		return false;
	if (other->given_uid && strcmp(other->given_uid, out->uid)) {
		c->given.uid = strdup(other->given_uid);
		out->uid = or_empty(c->given.uid);
	}
	out->kind = KUBE_REMOVE;
	out->n_endpoints = out->n_ready = 0;
	face_forget(c, other);
	kube_face_queue(c, other, false);
	return true;
}

// ---------------------------------------------------------------- endpoints given before and now
static int compare_ids(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

static uint32_t count_missing(const uint64_t *ids, uint32_t n, const uint64_t *in, uint32_t n_in)
{
	uint32_t n_missing = 0, at = 0;
	for (uint32_t i = 0; i < n; i++) {
		while (at < n_in && in[at] < ids[i])
			at++;
		n_missing += at == n_in || in[at] != ids[i];
	}
	return n_missing;
}

// Addresses of a service, sorted; of those that terminate, or of the others.
static uint32_t collect_ids(const struct service *s, bool terminating, uint64_t *out)
{
	uint32_t n = 0, n_unique = 0;
	for (uint32_t i = 0; i < s->n_backends; i++)
		if (s->backends[i].conditions.terminating == terminating)
			out[n++] = hash_stable(s->backends[i].address.bytes, 16, 0);
	if (n)
		qsort(out, n, sizeof(*out), compare_ids);
	for (uint32_t i = 0; i < n; i++)
		if (i == 0 || out[i] != out[n_unique - 1])
			out[n_unique++] = out[i];
	return n_unique;
}

static bool has_id(const uint64_t *ids, uint32_t n, uint64_t id)
{
	return n && bsearch(&id, ids, n, sizeof(*ids), compare_ids);
}

static int note_endpoints(struct kube_face *face, const struct service *s, struct kube_change *out)
{
	uint64_t *staying = calloc(2 * s->n_backends + 1u, sizeof(*staying));
	if (staying == NULL)
		return -ENOMEM;
	uint64_t *ending = staying + s->n_backends;
	uint32_t n_staying = collect_ids(s, false, staying);
	uint32_t n_ending = collect_ids(s, true, ending);
	out->shrunk = (struct kube_shrink){ .n_before = face->n_ids,
		.n_gone = count_missing(face->ids, face->n_ids, staying, n_staying),
		.n_new = count_missing(staying, n_staying, face->ids, face->n_ids),
		.n_now = n_staying };
	// Of these, the ones that are still there, as terminating ones, are no loss.
	for (uint32_t i = 0; i < n_ending; i++)
		out->shrunk.n_gone -= has_id(face->ids, face->n_ids, ending[i]) &&
				      !has_id(staying, n_staying, ending[i]);
	free(face->ids);
	face->ids = realloc(staying, (n_staying + 1u) * sizeof(*staying));
	if (face->ids == NULL) // it only could not be made smaller
		face->ids = staying;
	face->n_ids = n_staying;
	face->n_endpoints = s->n_backends;
	face->n_ready = 0;
	for (uint32_t i = 0; i < s->n_backends; i++)
		face->n_ready += s->backends[i].conditions.ready;
	out->n_endpoints = face->n_endpoints;
	out->n_ready = face->n_ready;
	return 0;
}

// ---------------------------------------------------------------- what is
static bool is_admitted(const struct kube_face *face, const struct address *vip)
{
	for (uint32_t i = 0; i < face->wanted.n_items; i++)
		if (address_equal(&face->wanted.items[i].vip, vip))
			return true;
	return false;
}

// Addresses of the record, in its order: the admitted ones into the building, the others among the notes.
static void admit_addresses(struct kube_building *b)
{
	struct address vips[SERVICE_ADDRESSES_MAX];
	char text[ADDRESS_TEXT_LEN];
	uint32_t n = kube_face_addresses(b->face, vips);
	for (uint32_t i = 0; i < n; i++) {
		if (is_admitted(b->face, &vips[i])) {
			b->vips[b->n_vips++] = vips[i];
			continue;
		}
		error_add(b->notes, EINVAL,
			b->form->extras.expose ? "metadata.annotations"
					       : "status.loadBalancer.ingress",
			"%s is not served: no pool gives it to this Service; allowed: an address "
			"of a pool for it",
			address_format(&vips[i], text));
	}
}

static void note_winner(const struct kube_claim *winner, struct error *notes)
{
	const struct kube_face *face = winner->face;
	char text[ADDRESS_TEXT_LEN];
	error_add(notes, EADDRINUSE, "status.loadBalancer.ingress",
		"%s %s port %u belongs to Service %s/%s%s%s, which is older; allowed: an address, "
		"protocol and port that no other Service has",
		address_format(&winner->vip, text), service_protocol_name(winner->protocol),
		winner->port, face->owner->object.namespace, face->hostname,
		face->hostname[0] ? "." : "", face->owner->object.name);
}

// The newest form in trial, while the one before it is in force: does it stand by now?
static bool head_stands(struct kube_cluster *c, const struct kube_face *face)
{
	struct error findings = { 0 }, notes = { 0 };
	struct kube_owner *owner = face->owner;
	struct service *service = NULL;
	struct kube_building b = {
		.face = face, .form = owner->head, .findings = &findings, .notes = &notes
	};
	for (uint32_t i = 0; i < owner->head->service->n_addresses; i++)
		b.vips[b.n_vips++] = owner->head->service->addresses[i];
	int rc = kube_build(c, &b, &service);
	if (rc == -EINVAL && !owner->is_refused) {
		free(owner->refusal);
		owner->refusal = kube_findings_pack(&findings);
	}
	service_destroy(service);
	error_fini(&findings);
	error_fini(&notes);
	return rc == 0;
}

// The form in force and its endpoints make no valid service. With an older one that did, that is in force from now on.
static bool fall_back(struct kube_cluster *c, struct kube_face *face)
{
	struct kube_owner *owner = face->owner;
	if (owner->uses_fallback || owner->fallback == NULL || owner->is_proven)
		return false;
	owner->uses_fallback = true;
	kube_owner_refresh(c, owner);
	return true;
}

static bool return_to_head(struct kube_cluster *c, struct kube_face *face)
{
	struct kube_owner *owner = face->owner;
	if (!owner->uses_fallback || !head_stands(c, face))
		return false;
	owner->uses_fallback = false;
	if (!owner->is_refused) {
		free(owner->refusal);
		owner->refusal = NULL;
	}
	kube_owner_refresh(c, owner);
	return true;
}

static bool can_serve(const struct kube_face *face)
{
	const struct kube_owner *owner = face->owner;
	return owner->is_ours && !owner->meta.is_deleting && kube_owner_form(owner);
}

// What the face gives: a service, or NULL. *out_refused: the reasons are findings.
static int face_build(
	struct kube_cluster *c, struct kube_face *face, struct service **out, bool *out_refused)
{
	struct kube_owner *owner = face->owner;
	struct error *findings = &c->given.findings;
	struct error notes = { 0 };
	struct kube_building b = {
		.face = face, .form = kube_owner_form(owner), .findings = findings, .notes = &notes
	};
	int rc = 0;
	*out_refused = owner->refusal != NULL;
	kube_findings_unpack(owner->refusal, findings);
	if (can_serve(face)) {
		const struct kube_claim *winner = kube_claims_winner(c, face);
		admit_addresses(&b);
		kube_packed_note(owner, &notes);
		if (winner)
			note_winner(winner, findings);
		else if (b.n_vips)
			rc = kube_build(c, &b, out);
		*out_refused = *out_refused || winner || rc == -EINVAL;
	}
	error_merge(findings, &notes, "");
	error_fini(&notes);
	return rc;
}

static int give_service(struct kube_cluster *c, struct kube_face *face, struct service *service,
	struct kube_change *out)
{
	struct kube_digest digest = kube_digest_service(&c->config.key, service);
	c->given.service = service;
	if (face->is_served && memcmp(&digest, &face->service_digest, sizeof(digest)) == 0) {
		out->kind = KUBE_KEEP;
		return 0;
	}
	if (kube_claims_serve(c, face) != 0 || note_endpoints(face, service, out) != 0)
		return -ENOMEM;
	face->is_served = true;
	face->service_digest = digest;
	out->kind = KUBE_PUT;
	out->service = service;
	out->trigger_ms = face->owner->trigger_ms;
	face->owner->trigger_ms = 0;
	return 0;
}

static void note_refused(struct kube_cluster *c, struct kube_face *face, bool is_refused)
{
	c->n_refused_services += is_refused - face->is_refused;
	face->is_refused = is_refused;
}

static int note_given(struct kube_face *face)
{
	const char *uid = or_empty(face->owner->meta.uid);
	if (face->given_uid == NULL)
		face->given_uid = strdup(uid);
	return face->given_uid ? 0 : -ENOMEM;
}

// The object is not ours (any more): this is the last that is said of it.
static void give_up(struct kube_cluster *c, struct kube_face *face)
{
	face_forget(c, face);
	free(face->given_uid);
	face->given_uid = NULL;
	face->is_gone = true;
	c->given.gone = face;
}

// false: as it was given last.
static bool give_current(struct kube_cluster *c, struct kube_face *face, struct kube_change *out)
{
	struct service *service = NULL;
	const struct kube_owner *owner = face->owner;
	bool is_refused = false;
	if (!owner->is_ours && face->given_uid == NULL && !owner->meta.has_finalizer) {
		face_free(c, face); // nothing was ever said of it
		return false;
	}
	int rc = face_build(c, face, &service, &is_refused);
	if (rc == -EINVAL && fall_back(c, face)) {
		head_stands(c, face); // for its findings
		return false;
	}
	if (service && !face->owner->uses_fallback)
		kube_owner_prove(c, face->owner);
	note_refused(c, face, is_refused);
	if (rc == -ENOMEM || change_fill(c, face, out) != 0 || note_given(face) != 0 ||
		(service && give_service(c, face, service, out) != 0)) {
		if (service && c->given.service == NULL)
			service_destroy(service);
		return false; // it stays as it was; the next change of it tries again
	}
	out->is_refused = is_refused;
	if (service == NULL && rc == 0 && face->is_served) {
		face_forget(c, face);
		out->kind = KUBE_REMOVE;
		out->n_endpoints = out->n_ready = 0;
	}
	struct kube_digest digest = kube_digest_change(&c->config.key, out);
	bool is_news = out->kind != KUBE_KEEP ||
		       memcmp(&digest, &face->change_digest, sizeof(digest)) != 0;
	face->change_digest = digest;
	if (!face->owner->is_ours)
		give_up(c, face);
	return is_news;
}

static bool face_give(struct kube_cluster *c, struct kube_face *face, struct kube_change *out)
{
	struct kube_owner *owner = face->owner;
	bool is_known = face->given_uid != NULL;
	if (is_known && (!owner->has_object || strcmp(face->given_uid, owner->meta.uid)))
		return give_gone(c, face, out);
	if (face->is_gone)
		return give_leaving(c, face, out);
	if (return_to_head(c, face)) {
		kube_face_queue(c, face, false);
		return false;
	}
	struct kube_face *other =
		can_serve(face) && face->holds ? kube_claims_in_the_way(c, face) : NULL;
	if (other)
		return give_way(c, face, other, out);
	return give_current(c, face, out);
}

bool kube_cluster_next(struct kube_cluster *c, struct kube_change *out)
{
	struct kube_change change;
	if (!kube_cluster_is_synced(c))
		return false;
	for (;;) {
		given_clear(c);
		struct kube_face *face = queue_take(c);
		if (face == NULL)
			return false;
		if (face_give(c, face, &change))
			break;
	}
	*out = change;
	c->n_changes++;
	return true;
}

void kube_cluster_again(struct kube_cluster *c, const char *namespace, const char *object)
{
	struct kube_owner *owner = kube_map_find(&c->owners, namespace, object);
	for (struct kube_face *face = owner ? owner->faces : NULL; face; face = face->next) {
		face->service_digest = face->change_digest = (struct kube_digest){ { 0 } };
		kube_face_queue(c, face, false);
	}
}
