// SPDX-License-Identifier: BSD-3-Clause
// Services: list, one, create, replace, merge patch, remove. What may be written and whether it would compile is
// control's to say; here are ownership, preconditions and the dry run (the same store code on a copy).
#include "admin_priv.h"

#include <errno.h>
#include <stdlib.h>

// ---------------------------------------------------------------- output
// Of what decides where a flow goes: two nodes with the same digest pick the same backend. Health is not in it.
static void service_digest(json_t *spec, char out[17])
{
	static const char *const parts[] = { "addresses", "listeners", "mode", "scheduler",
		"sessionAffinity", "backends" };
	json_t *content = json_object();
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		json_object_set(content, parts[i], json_object_get(spec, parts[i]));
	char *text = json_dumps(content, JSON_COMPACT | JSON_SORT_KEYS);
	snprintf(out, 17, "%016llx",
		(unsigned long long)(text ? hash_stable(text, strlen(text), 1) : 0));
	free(text);
	json_decref(content);
}

struct status_list {
	struct admin *admin;
	json_t *items;
};

static bool add_backend(void *arg, const struct control_backend_status *status)
{
	struct status_list *list = arg;
	json_array_append_new(list->items, backend_json(list->admin, status));
	return true;
}

static json_t *service_json(struct admin *admin, const struct service *s)
{
	json_t *body = control_service_to_json(s);
	struct status_list list = { .admin = admin, .items = json_array() };
	char digest[17];
	service_digest(json_object_get(body, "spec"), digest);
	control_each_backend(admin->control, s, add_backend, &list);
	json_object_set_new(
		body, "status", json_pack("{s:s, s:o}", "digest", digest, "backends", list.items));
	return body;
}

static void reply_service(struct admin_request *r, unsigned int status, const struct service *s)
{
	reply_etag(r, s->generation);
	if (status == 201)
		reply_header(r, "Location", "/api/v1/services/%s/%s", s->namespace, s->name);
	reply_json(r, status, service_json(r->admin, s));
}

const struct service *find_service(struct admin_request *r)
{
	const struct service *s =
		service_store_find(control_store(r->admin->control), r->args[0], r->args[1]);
	if (s == NULL)
		reply_problem(r, PROBLEM_NOT_FOUND, "there is no service %.64s/%.64s", r->args[0],
			r->args[1]);
	return s;
}

// ---------------------------------------------------------------- reading
static bool service_selected(struct admin_request *r, const struct service *s)
{
	const char *namespace = query_text(r, "namespace");
	const char *owner = query_text(r, "managedBy");
	const char *vip = query_text(r, "vip");
	struct address address;
	if (namespace && strcmp(namespace, s->namespace) != 0)
		return false;
	if (owner && strcmp(owner, service_owner_name(s->owner)) != 0)
		return false;
	if (vip == NULL || address_parse(vip, &address) != 0)
		return true;
	for (uint32_t i = 0; i < s->n_addresses; i++) {
		if (address_equal(&s->addresses[i], &address))
			return true;
	}
	return false;
}

static int service_key_compare(const struct service *s, const char *namespace, const char *name)
{
	int order = strcmp(s->namespace, namespace);
	return order != 0 ? order : strcmp(s->name, name);
}

void get_services(struct admin_request *r)
{
	const struct service_store *store = control_store(r->admin->control);
	uint64_t generation = service_store_generation(store);
	struct admin_page page;
	if (!reply_precondition(r, true, generation) || page_begin(r, &page) != 0)
		return;
	char *slash = strchr(page.after, '/');
	if (slash)
		*slash = 0;
	json_t *items = json_array();
	char next[SERVICE_NAME_MAX * 2 + 2] = "";
	int64_t remaining = 0;
	for (uint32_t i = 0; i < service_store_count(store); i++) {
		const struct service *s = service_store_at(store, i);
		if ((slash && service_key_compare(s, page.after, slash + 1) <= 0) ||
			!service_selected(r, s))
			continue;
		if (json_array_size(items) == page.limit) {
			remaining++;
			continue;
		}
		snprintf(next, sizeof(next), "%s/%s", s->namespace, s->name);
		json_array_append_new(items, service_json(r->admin, s));
	}
	reply_etag(r, generation);
	page_reply(r, items, generation, remaining ? next : NULL, remaining);
}

void get_service(struct admin_request *r)
{
	const struct service *s = find_service(r);
	if (s && reply_precondition(r, true, s->generation))
		reply_service(r, 200, s);
}

// ---------------------------------------------------------------- merge patch (RFC 7396)
static void merge_apply(json_t *target, json_t *patch)
{
	const char *key;
	json_t *value;
	json_object_foreach(patch, key, value)
	{
		json_t *member = json_object_get(target, key);
		if (json_is_null(value)) {
			json_object_del(target, key);
		} else if (!json_is_object(value)) {
			json_object_set(target, key, value);
		} else {
			if (!json_is_object(member)) {
				json_object_set_new(target, key, json_object());
				member = json_object_get(target, key);
			}
			merge_apply(member, value);
		}
	}
}

// The patch that makes `new` of `old`.
static json_t *merge_diff(json_t *old, json_t *new)
{
	json_t *patch = json_object();
	const char *key;
	json_t *value;
	json_object_foreach(new, key, value)
	{
		json_t *before = json_object_get(old, key);
		if (json_equal(before, value))
			continue;
		if (json_is_object(before) && json_is_object(value))
			json_object_set_new(patch, key, merge_diff(before, value));
		else
			json_object_set(patch, key, value);
	}
	json_object_foreach(old, key, value)
	{
		if (json_object_get(new, key) == NULL)
			json_object_set_new(patch, key, json_null());
	}
	return patch;
}

// ---------------------------------------------------------------- writing
static bool name_agrees(struct admin_request *r, const char *key, const char *wanted)
{
	const char *given =
		json_string_value(json_object_get(json_object_get(r->json, "metadata"), key));
	if (given == NULL || strcmp(given, wanted) == 0)
		return true;
	char pointer[32];
	snprintf(pointer, sizeof(pointer), "/metadata/%s", key);
	finding_add(r, pointer, NULL, "`%.64s` differs from `%.64s` in the path", given, wanted);
	return false;
}

// The service that a spec describes; NULL: answered. Gives.
static struct service *service_decode(
	struct admin_request *r, json_t *spec, const char *namespace, const char *name)
{
	struct error err = { 0 };
	json_t *body = json_pack("{s:{s:s, s:s}, s:O}", "metadata", "namespace", namespace, "name",
		name, "spec", spec);
	if (body == NULL) {
		reply_problem(r, PROBLEM_INVALID, "the names are not text");
		return NULL;
	}
	struct service *s =
		control_service_from_json(body, control_defaults(r->admin->control), &err);
	json_decref(body);
	if (s == NULL)
		reply_error(r, -EINVAL, &err);
	else
		s->owner = SERVICE_OWNER_API;
	error_fini(&err);
	return s;
}

// A copy of the store with `s` put into it; NULL with err. Gives.
static struct service_store *store_try(
	const struct service_store *store, const struct service *s, int *out_rc, struct error *err)
{
	struct service_store *copy = service_store_create();
	*out_rc = copy ? 0 : -ENOMEM;
	for (uint32_t i = 0; i < service_store_count(store) && *out_rc == 0; i++)
		*out_rc = service_store_put(copy, service_store_at(store, i), NULL, err);
	if (*out_rc == 0)
		*out_rc = service_store_put(copy, s, NULL, err);
	if (*out_rc == 0)
		return copy;
	service_store_destroy(copy);
	return NULL;
}

static void reply_dry_run(
	struct admin_request *r, const struct service *s, const struct service *before)
{
	struct error err = { 0 };
	int rc = 0;
	struct service_store *copy = store_try(control_store(r->admin->control), s, &rc, &err);
	if (copy == NULL) {
		reply_error(r, rc, &err);
		error_fini(&err);
		return;
	}
	const struct service *result = service_store_find(copy, s->namespace, s->name);
	json_t *body = control_service_to_json(result);
	json_t *old = before ? control_service_to_json(before) : json_object();
	json_object_set_new(body, "diff", merge_diff(old, body));
	json_decref(old);
	reply_json(r, before ? 200 : 201, body);
	service_store_destroy(copy);
}

// Takes s.
static void store_service(struct admin_request *r, struct service *s, const struct service *before)
{
	unsigned int status = before ? 200 : 201;
	if (query_flag(r, "dryRun")) {
		reply_dry_run(r, s, before);
		service_destroy(s);
		return;
	}
	struct error err = { 0 };
	bool changed = false;
	int rc = control_put_service(r->admin->control, s, &changed, &err);
	if (rc != 0) {
		reply_error(r, rc, &err);
	} else {
		const struct service *stored =
			service_store_find(control_store(r->admin->control), s->namespace, s->name);
		if (stored)
			reply_service(r, status, stored);
		else
			reply_problem(r, PROBLEM_INTERNAL, "stored and gone");
	}
	error_fini(&err);
	service_destroy(s);
}

static bool owner_allows(struct admin_request *r, const struct service *s)
{
	if (s == NULL || s->owner == SERVICE_OWNER_API)
		return true;
	reply_problem(r, PROBLEM_OWNER, "%s/%s is managed by %s: change it there", s->namespace,
		s->name, service_owner_name(s->owner));
	return false;
}

static bool names_agree(struct admin_request *r)
{
	bool agree = name_agrees(r, "namespace", r->args[0]);
	agree = name_agrees(r, "name", r->args[1]) && agree;
	if (!agree)
		reply_problem(r, PROBLEM_INVALID, "the body names another object than the path");
	return agree;
}

void put_service(struct admin_request *r)
{
	const struct service *before =
		service_store_find(control_store(r->admin->control), r->args[0], r->args[1]);
	if (!owner_allows(r, before) ||
		!reply_precondition(r, before != NULL, before ? before->generation : 0) ||
		!names_agree(r))
		return;
	struct service *s =
		service_decode(r, json_object_get(r->json, "spec"), r->args[0], r->args[1]);
	if (s)
		store_service(r, s, before);
}

void post_services(struct admin_request *r)
{
	json_t *metadata = json_object_get(r->json, "metadata");
	const char *namespace = json_string_value(json_object_get(metadata, "namespace"));
	const char *name = json_string_value(json_object_get(metadata, "name"));
	if (namespace == NULL || name == NULL) {
		if (namespace == NULL)
			finding_add(r, "/metadata/namespace", NULL, "is needed");
		if (name == NULL)
			finding_add(r, "/metadata/name", NULL, "is needed");
		reply_problem(r, PROBLEM_INVALID, "metadata must name the service");
		return;
	}
	const struct service *before =
		service_store_find(control_store(r->admin->control), namespace, name);
	if (before && owner_allows(r, before))
		reply_problem(r, PROBLEM_EXISTS, "%s/%s exists; PUT replaces it", namespace, name);
	if (before)
		return;
	struct service *s = service_decode(r, json_object_get(r->json, "spec"), namespace, name);
	if (s)
		store_service(r, s, NULL);
}

void patch_service(struct admin_request *r)
{
	const struct service *before = find_service(r);
	if (before == NULL || !owner_allows(r, before) ||
		!reply_precondition(r, true, before->generation) || !names_agree(r))
		return;
	json_t *body = control_service_to_json(before);
	json_t *spec = json_object_get(body, "spec");
	json_t *patch = json_object_get(r->json, "spec");
	if (patch != NULL && !json_is_object(patch)) {
		finding_add(r, "/spec", NULL, "must be an object");
		reply_problem(r, PROBLEM_INVALID, "a spec cannot be replaced by something else");
		json_decref(body);
		return;
	}
	if (patch)
		merge_apply(spec, patch);
	struct service *s = NULL;
	if (shape_check(r, shape_find("ServiceSpec"), spec, "/spec") != 0)
		reply_problem(r, PROBLEM_INVALID, "the patched service is not valid");
	else
		s = service_decode(r, spec, before->namespace, before->name);
	if (s)
		store_service(r, s, before);
	json_decref(body);
}

void delete_service(struct admin_request *r)
{
	const struct service *s = find_service(r);
	if (s == NULL || !owner_allows(r, s) || !reply_precondition(r, true, s->generation))
		return;
	if (query_flag(r, "dryRun")) {
		reply_empty(r, 204);
		return;
	}
	struct error err = { 0 };
	int rc = control_remove_service(
		r->admin->control, r->args[0], r->args[1], SERVICE_OWNER_API, &err);
	if (rc != 0)
		reply_error(r, rc, &err);
	else
		reply_empty(r, 204);
	error_fini(&err);
}

void post_release(struct admin_request *r)
{
	const struct service *s = find_service(r);
	if (s == NULL)
		return;
	if (control_release(r->admin->control, s->namespace, s->name) == 0)
		reply_empty(r, 204);
	else
		reply_problem(r, PROBLEM_NOT_FOUND,
			"nothing is kept of %s/%s: its backends are as its source says", r->args[0],
			r->args[1]);
}
