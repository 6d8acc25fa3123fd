// SPDX-License-Identifier: BSD-3-Clause
// Services: which are ours, their newest and their last good form, the faces they give.
#include "kube_cluster_priv.h"
#include "kube_encode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct kube_service *kube_owner_form(const struct kube_owner *owner)
{
	return owner->uses_fallback ? owner->fallback : owner->head;
}

struct kube_owner *kube_owner_get(struct kube_cluster *c, const char *namespace, const char *name)
{
	struct kube_owner *owner = kube_map_find(&c->owners, namespace, name);
	return owner ? owner : kube_map_add(&c->owners, namespace, name, sizeof(*owner));
}

static void form_destroy(struct kube_cluster *c, struct kube_service *form)
{
	if (form == NULL)
		return;
	c->n_to_nodes -= form->extras.to_nodes;
	kube_service_fini(form);
	free(form);
}

void kube_owner_drop(struct kube_cluster *c, struct kube_owner *owner)
{
	if (owner->has_object || owner->slices || owner->faces)
		return;
	form_destroy(c, owner->head);
	form_destroy(c, owner->fallback);
	free(owner->meta.block);
	free(owner->refusal);
	kube_map_remove(&c->owners, &owner->object);
}

// ---------------------------------------------------------------- faces
void kube_face_queue(struct kube_cluster *c, struct kube_face *face, bool first)
{
	if (face->is_dirty)
		return;
	face->is_dirty = true;
	face->next_dirty = first ? c->first_dirty : NULL;
	bool is_empty = c->first_dirty == NULL;
	if (!is_empty && !first)
		c->last_dirty->next_dirty = face;
	if (is_empty || !first)
		c->last_dirty = face;
	if (is_empty || first)
		c->first_dirty = face;
}

void kube_face_destroy(struct kube_cluster *c, struct kube_face *face)
{
	struct kube_face **at = &face->owner->faces;
	while (*at != face)
		at = &(*at)->next;
	*at = face->next;
	face->is_dirty = true; // so that it is not queued by what follows
	kube_claims_want(c, face, NULL, 0);
	kube_claims_unserve(c, face);
	c->n_faces--;
	c->n_refused_services -= face->is_refused;
	free(face->hostname);
	free(face->given_uid);
	free(face->ids);
	free(face);
}

static struct kube_face *find_face(const struct kube_owner *owner, const char *hostname)
{
	struct kube_face *face = owner->faces;
	while (face && strcmp(face->hostname, hostname))
		face = face->next;
	return face;
}

// The face of that hostname, made when new, revived when going.
static struct kube_face *get_face(
	struct kube_cluster *c, struct kube_owner *owner, const char *hostname)
{
	struct kube_face *face = find_face(owner, hostname);
	if (face) {
		face->is_gone = false;
		return face;
	}
	if (array_grow(c->work, c->n_faces, c->cap_work) != 0)
		return NULL;
	face = calloc(1, sizeof(*face));
	char *copy = strdup(hostname);
	if (face == NULL || copy == NULL) {
		free(face);
		free(copy);
		return NULL;
	}
	*face = (struct kube_face){ .owner = owner, .hostname = copy };
	struct kube_face **at = &owner->faces; // the first stays the first
	while (*at)
		at = &(*at)->next;
	*at = face;
	c->n_faces++;
	return face;
}

uint32_t kube_face_addresses(const struct kube_face *face, struct address *out)
{
	const struct kube_service *form = kube_owner_form(face->owner);
	if (form == NULL || face->is_gone)
		return 0;
	if (form->extras.expose == KUBE_EXPOSE_ENDPOINTS) {
		const char *text =
			json_string_value(json_object_get(form->extras.assigned, face->hostname));
		uint32_t n = text && face->hostname[0] ? kube_addresses_parse(text, out, 2) : 0;
		return n == 2 && address_equal(&out[0], &out[1]) ? 1 : n;
	}
	if (form->service->n_addresses)
		memcpy(out, form->service->addresses, form->service->n_addresses * sizeof(*out));
	return form->service->n_addresses;
}

// Claims of a face: the addresses that the caller admits.
static int want_claims(struct kube_cluster *c, struct kube_face *face)
{
	const struct kube_owner *owner = face->owner;
	struct address vips[SERVICE_ADDRESSES_MAX];
	uint32_t n =
		owner->is_ours && !owner->meta.is_deleting ? kube_face_addresses(face, vips) : 0;
	uint32_t n_admitted = 0;
	for (uint32_t i = 0; i < n; i++)
		if (c->config.allowed == NULL ||
			c->config.allowed(c->config.arg, owner->object.namespace,
				owner->object.name, &vips[i]))
			vips[n_admitted++] = vips[i];
	return kube_claims_want(c, face, vips, n_admitted);
}

// expose endpoints: a face for every hostname with a ready endpoint or an address on record.
static int refresh_hostnames(struct kube_cluster *c, struct kube_owner *owner)
{
	const struct kube_service *form = kube_owner_form(owner);
	const char *hostname;
	json_t *value;
	for (struct kube_face *face = owner->faces; face; face = face->next)
		face->is_gone = face->hostname[0] != '\0';
	json_object_foreach(form->extras.assigned, hostname, value)
	{
		if (hostname[0] && get_face(c, owner, hostname) == NULL)
			return -ENOMEM;
	}
	for (struct kube_packed_slice *slice = owner->slices; slice; slice = slice->next) {
		for (uint32_t i = 0; i < slice->slice.n_endpoints; i++) {
			const struct kube_endpoint *e = &slice->slice.endpoints[i];
			if (e->hostname[0] && e->conditions.ready &&
				get_face(c, owner, e->hostname) == NULL)
				return -ENOMEM;
		}
	}
	return 0;
}

static int refresh_faces(struct kube_cluster *c, struct kube_owner *owner)
{
	const struct kube_service *form = kube_owner_form(owner);
	bool by_hostname = owner->is_ours && !owner->meta.is_deleting && form &&
			   form->extras.expose == KUBE_EXPOSE_ENDPOINTS;
	bool is_known = owner->has_object && (owner->is_ours || owner->faces);
	if (is_known && get_face(c, owner, "") == NULL)
		return -ENOMEM;
	if (by_hostname)
		return refresh_hostnames(c, owner);
	for (struct kube_face *face = owner->faces; face; face = face->next)
		face->is_gone = !owner->has_object || face->hostname[0];
	return 0;
}

int kube_owner_refresh(struct kube_cluster *c, struct kube_owner *owner)
{
	int rc = refresh_faces(c, owner);
	for (struct kube_face *face = owner->faces; face; face = face->next) {
		int failed = want_claims(c, face);
		rc = rc ? rc : failed;
		kube_face_queue(c, face, false);
	}
	return rc;
}

int kube_owner_touch(struct kube_cluster *c, struct kube_owner *owner)
{
	const struct kube_service *form = kube_owner_form(owner);
	if (form && form->extras.expose == KUBE_EXPOSE_ENDPOINTS)
		return kube_owner_refresh(c, owner);
	for (struct kube_face *face = owner->faces; face; face = face->next)
		kube_face_queue(c, face, false);
	return 0;
}

// ---------------------------------------------------------------- which are ours
enum kube_kind { KIND_OTHER, KIND_BALANCER, KIND_EXPOSED, KIND_UNKNOWN };

static enum kube_kind kind_of(const struct kube_cluster *c, const json_t *object)
{
	static const char *const others[] = { "ClusterIP", "NodePort", "ExternalName" };
	const json_t *spec = json_object_get(object, "spec");
	const json_t *annotations =
		json_object_get(json_object_get(object, "metadata"), "annotations");
	const char *type = json_string_value(json_object_get(spec, "type"));
	const char *class_name = json_string_value(json_object_get(spec, "loadBalancerClass"));
	const char *ip = json_string_value(json_object_get(spec, "clusterIP"));
	const char *expose = json_string_value(json_object_get(annotations, KUBE_PREFIX "expose"));
	if (type && strcmp(type, "LoadBalancer") == 0) {
		if (ip && strcmp(ip, "None") == 0)
			return KIND_OTHER; // cannot be, says the API
		bool matches = class_name
				       ? c->class_name[0] && strcmp(class_name, c->class_name) == 0
				       : c->config.is_default_class;
		return matches ? KIND_BALANCER : KIND_OTHER;
	}
	bool is_word = kube_is_absent(spec, "type");
	for (size_t i = 0; type && i < ARRAY_SIZE(others); i++)
		is_word = is_word || strcmp(type, others[i]) == 0;
	if (!json_is_object(spec) || !is_word)
		return KIND_UNKNOWN;
	return expose && strcmp(expose, "none") ? KIND_EXPOSED : KIND_OTHER;
}

// The finalizer of a Service that needs us no more is ours to take off; one of another class may have been put there by another.
static bool may_clean_up(const json_t *object)
{
	const char *type =
		json_string_value(json_object_get(json_object_get(object, "spec"), "type"));
	return type == NULL || strcmp(type, "LoadBalancer");
}

// ---------------------------------------------------------------- put
static void check_name(struct kube_reader *r, const char *key, const char *name)
{
	char quoted[96];
	if (strlen(name) < SERVICE_NAME_MAX)
		return;
	kube_enter(r, "metadata");
	kube_refuse_at(r, key, "%s: allowed: at most %d characters",
		kube_quote(name, quoted, sizeof(quoted)), SERVICE_NAME_MAX - 1);
	kube_leave(r);
}

// The status is the record of addresses, and the annotation beside it says of which it is: who leads writes both at once. A status
// that is not of the annotation was written by somebody else, and who leads puts it right; meanwhile, what was in force and is of
// the annotation stays (kubernetes.md 4.2).
static int keep_addresses(
	const struct kube_owner *owner, const json_t *object, struct kube_service *fresh)
{
	const json_t *annotations =
		json_object_get(json_object_get(object, "metadata"), "annotations");
	const char *text =
		json_string_value(json_object_get(annotations, KUBE_PREFIX "allocation"));
	const struct kube_service *before = kube_owner_form(owner);
	if (text == NULL || before == NULL || before->service->n_addresses == 0 ||
		before->extras.expose != KUBE_EXPOSE_NONE ||
		fresh->extras.expose != KUBE_EXPOSE_NONE ||
		kube_allocation_is_of(
			text, fresh->service->addresses, fresh->service->n_addresses) ||
		!kube_allocation_is_of(
			text, before->service->addresses, before->service->n_addresses))
		return 0;
	size_t len = before->service->n_addresses * sizeof(struct address);
	struct address *kept = malloc(len);
	if (kept == NULL)
		return -ENOMEM;
	free(fresh->service->addresses);
	fresh->service->addresses = memcpy(kept, before->service->addresses, len);
	fresh->service->n_addresses = before->service->n_addresses;
	memcpy(fresh->vip_idx, before->vip_idx, sizeof(fresh->vip_idx));
	fresh->extras.proxy_bits = before->extras.proxy_bits;
	return 0;
}

static int decode(struct kube_cluster *c, struct kube_owner *owner, const json_t *object)
{
	struct error err = { 0 };
	struct kube_service fresh = { 0 };
	struct kube_reader r = { .text = "",
		.is_watch = true,
		.defaults = &c->config.defaults,
		.err = &err,
		.item_idx = UINT32_MAX };
	check_name(&r, "namespace", owner->object.namespace);
	check_name(&r, "name", owner->object.name);
	kube_service_read(&r, object, &fresh);
	int rc = r.n_bad ? 0 : keep_addresses(owner, object, &fresh);
	struct kube_service *head = r.n_bad || rc ? NULL : malloc(sizeof(*head));
	char *refusal = r.n_bad ? kube_findings_pack(&err) : NULL;
	error_fini(&err);
	if (head == NULL && refusal == NULL) {
		kube_service_fini(&fresh);
		return -ENOMEM;
	}
	free(owner->refusal);
	owner->refusal = refusal;
	owner->is_refused = head == NULL;
	if (head == NULL) {
		kube_service_fini(&fresh);
		return 0;
	}
	*head = fresh;
	c->n_to_nodes += head->extras.to_nodes;
	// The last one that stood the test of its endpoints stays until this one has.
	if (owner->is_proven) {
		form_destroy(c, owner->fallback);
		owner->fallback = owner->head;
	} else {
		form_destroy(c, owner->head);
	}
	owner->head = head;
	owner->is_proven = false;
	owner->uses_fallback = false;
	return 0;
}

void kube_owner_prove(struct kube_cluster *c, struct kube_owner *owner)
{
	owner->is_proven = true;
	form_destroy(c, owner->fallback);
	owner->fallback = NULL;
}

static void forget_forms(struct kube_cluster *c, struct kube_owner *owner)
{
	form_destroy(c, owner->head);
	form_destroy(c, owner->fallback);
	owner->head = owner->fallback = NULL;
	owner->uses_fallback = owner->is_refused = owner->is_proven = false;
	free(owner->refusal);
	owner->refusal = NULL;
}

// Claims are ordered by age: they go before it changes.
static void forget_claims(struct kube_cluster *c, struct kube_owner *owner)
{
	for (struct kube_face *face = owner->faces; face; face = face->next)
		kube_claims_want(c, face, NULL, 0);
}

static void set_ours(struct kube_cluster *c, struct kube_owner *owner, bool is_ours)
{
	c->n_ours += is_ours - owner->is_ours;
	owner->is_ours = is_ours;
}

// Another object of that name, or the same one in a newer form.
static int take_meta(struct kube_cluster *c, struct kube_owner *owner, const json_t *object)
{
	struct kube_meta meta;
	if (kube_meta_read(c, object, &meta) != 0)
		return -ENOMEM;
	bool is_other = owner->has_object && strcmp(meta.uid, owner->meta.uid) != 0;
	if (!owner->has_object || is_other || strcmp(meta.created, owner->meta.created) != 0)
		forget_claims(c, owner);
	if (is_other)
		forget_forms(c, owner);
	free(owner->meta.block);
	owner->meta = meta;
	c->n_objects += !owner->has_object;
	owner->has_object = true;
	return 0;
}

static int take(struct kube_cluster *c, struct kube_owner *owner, const json_t *object)
{
	int rc = take_meta(c, owner, object);
	if (rc != 0)
		return rc;
	enum kube_kind kind = kind_of(c, object);
	bool is_ours = kind == KIND_BALANCER || kind == KIND_EXPOSED ||
		       (kind == KIND_UNKNOWN && owner->is_ours);
	if (is_ours)
		rc = decode(c, owner, object);
	else
		forget_forms(c, owner);
	c->n_bad_objects += owner->is_refused;
	set_ours(c, owner, is_ours);
	owner->may_clean_up = may_clean_up(object);
	if (rc == 0 && !is_ours && owner->meta.has_finalizer && owner->may_clean_up &&
		get_face(c, owner, "") == NULL)
		rc = -ENOMEM;
	int failed = kube_owner_refresh(c, owner);
	rc = rc ? rc : failed;
	owner->version = rc ? 0 : kube_version_of(object);
	return rc;
}

int kube_owner_put(struct kube_cluster *c, const json_t *object)
{
	const char *namespace, *name;
	kube_identity_read(object, &namespace, &name);
	uint64_t version = kube_version_of(object);
	struct kube_owner *owner = kube_owner_get(c, namespace, name);
	if (owner == NULL)
		return -ENOMEM;
	owner->object.epoch = c->epochs[KUBE_CLUSTER_SERVICES];
	if (owner->has_object && version && version == owner->version)
		return 0;
	int rc = take(c, owner, object);
	kube_owner_drop(c, owner);
	return rc;
}

void kube_owner_remove(struct kube_cluster *c, struct kube_owner *owner)
{
	if (!owner->has_object)
		return;
	forget_claims(c, owner);
	forget_forms(c, owner);
	set_ours(c, owner, false);
	owner->has_object = false;
	owner->version = 0;
	c->n_objects--;
	kube_owner_refresh(c, owner);
	kube_owner_drop(c, owner);
}
