// SPDX-License-Identifier: BSD-3-Clause
// Backends: lists, one, and the operator's word on them (drain, weight), which is allowed on every service, whoever
// owns it, and lasts until it is taken back.
#include "admin_priv.h"

#include <errno.h>
#include <stdlib.h>

// ---------------------------------------------------------------- output
static json_t *overlay_json(const struct service_overlay *o)
{
	if (o == NULL)
		return json_null();
	return json_pack("{s:b, s:o, s:o, s:s, s:s, s:o}", "draining", o->draining, "since",
		json_time(o->since_ms), "deadline", json_time(o->deadline_ms), "onDeadline",
		o->reset_on_deadline ? "reset" : "keep", "reason", o->reason, "weight",
		o->has_weight ? json_count(o->weight) : json_null());
}

json_t *backend_json(struct admin *admin, const struct control_backend_status *b)
{
	const struct service *s = b->service;
	char name[SERVICE_NAME_MAX * 2 + 2];
	snprintf(name, sizeof(name), "%s/%s", s->namespace, s->name);
	const struct service_overlay *overlay =
		service_store_find_overlay(control_store(admin->control), s->namespace, s->name,
			&b->backend->address, b->port);
	const struct pipeline_backend_counters *c = &b->counters;
	json_t *counters = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "packetsIn",
		json_count(c->packets_in), "packetsOut", json_count(c->packets_out), "bytesIn",
		json_count(c->bytes_in), "bytesOut", json_count(c->bytes_out), "flowsCreated",
		json_count(c->flows_created), "flowsEnded", json_count(c->flows_ended),
		"portsExhausted", json_count(c->ports_exhausted));
	json_t *verdicts = json_pack("{s:s, s:s, s:s, s:s}", "cluster", b->verdict_cluster,
		"active", b->verdict_active, "passive", b->verdict_passive, "admin",
		b->verdict_admin);
	json_t *reason = json_string(b->reason);
	return json_pack("{s:s, s:s, s:o, s:i, s:s, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
		"service", name, "listener", b->listener->name, "address",
		json_address(&b->backend->address), "port", (int)b->port, "state",
		health_state_name(b->state), "eligible", b->eligible, "reason",
		reason ? reason : json_string(""), "since", json_time(b->since_ms), "weight",
		json_count(b->weight), "flows", json_count(b->flows), "counters", counters,
		"verdicts", verdicts, "overlay", overlay_json(overlay));
}

// ---------------------------------------------------------------- selection
#define BEYOND_MAX 10000 // what is left after a page is counted so far

struct selection {
	struct admin_request *r;
	const char *state;
	bool by_address;
	struct address address;
	uint16_t port; // 0 = any
	uint32_t skip; // of the service at hand
	uint32_t idx;  // in the service at hand
	uint32_t limit;
	json_t *items;
	char next[320]; // token of the last item taken
	int64_t remaining;
};

static bool take_backend(void *arg, const struct control_backend_status *b)
{
	struct selection *sel = arg;
	uint32_t idx = sel->idx++;
	if (idx < sel->skip ||
		(sel->state && strcmp(sel->state, health_state_name(b->state)) != 0) ||
		(sel->by_address && !address_equal(&sel->address, &b->backend->address)) ||
		(sel->port && sel->port != b->port))
		return true;
	if (json_array_size(sel->items) == sel->limit) {
		sel->remaining++;
		return sel->remaining <= BEYOND_MAX;
	}
	snprintf(sel->next, sizeof(sel->next), "%s/%s %llu %u", b->service->namespace,
		b->service->name, (unsigned long long)b->service->generation, idx + 1);
	json_array_append_new(sel->items, backend_json(sel->r->admin, b));
	return true;
}

static bool service_named(const struct service *s, const char *text)
{
	const char *slash = strchr(text, '/');
	if (slash == NULL)
		return strcmp(s->name, text) == 0;
	size_t n = (size_t)(slash - text);
	return strlen(s->namespace) == n && strncmp(s->namespace, text, n) == 0 &&
	       strcmp(s->name, slash + 1) == 0;
}

// Where a page token points: the service and how many of its backends were shown. A token is good for as long as that
// service has not changed. 0, or answered.
static int token_resolve(struct admin_request *r, struct admin_page *page,
	const struct service **out_service, uint32_t *out_skip)
{
	char name[160];
	unsigned long long generation = 0;
	unsigned int skip = 0;
	*out_service = NULL;
	if (page->after[0] == 0)
		return 0;
	if (sscanf(page->after, "%159s %llu %u", name, &generation, &skip) == 3) {
		char *slash = strchr(name, '/');
		if (slash)
			*slash++ = 0;
		*out_service =
			slash ? service_store_find(control_store(r->admin->control), name, slash)
			      : NULL;
	}
	*out_skip = skip;
	if (*out_service && (*out_service)->generation == generation)
		return 0;
	reply_problem(r, PROBLEM_GONE, "the service under the token changed: start again");
	return -ESTALE;
}

static void list_backends(struct admin_request *r, const struct service *only, const char *filter)
{
	struct control *control = r->admin->control;
	const struct service_store *store = control_store(control);
	const struct service *from = NULL;
	struct admin_page page;
	struct selection sel = { .r = r, .state = query_text(r, "state") };
	uint32_t first_skip = 0;
	if (page_begin(r, &page) != 0 || token_resolve(r, &page, &from, &first_skip) != 0)
		return;
	const char *address = query_text(r, "address");
	sel.by_address = address && address_parse(address, &sel.address) == 0;
	sel.limit = page.limit;
	sel.items = json_array();
	bool started = from == NULL, known = filter == NULL;
	for (uint32_t i = 0; i < service_store_count(store); i++) {
		const struct service *s = service_store_at(store, i);
		bool wanted =
			(only == NULL || s == only) && (filter == NULL || service_named(s, filter));
		known |= wanted;
		sel.skip = s == from ? first_skip : 0;
		started |= s == from;
		sel.idx = 0;
		if (wanted && started && sel.remaining <= BEYOND_MAX)
			control_each_backend(control, s, take_backend, &sel);
	}
	if (!known) {
		json_decref(sel.items);
		reply_problem(r, PROBLEM_NOT_FOUND, "there is no service %.128s", filter);
		return;
	}
	page_reply(r, sel.items, control_generation(control), sel.remaining ? sel.next : NULL,
		sel.remaining > BEYOND_MAX ? -1 : sel.remaining);
}

void get_backends(struct admin_request *r)
{
	list_backends(r, NULL, query_text(r, "service"));
}

void get_service_backends(struct admin_request *r)
{
	const struct service *s = find_service(r);
	if (s)
		list_backends(r, s, NULL);
}

// ---------------------------------------------------------------- one address of a service
// Fills sel with what the path names; NULL: answered 404.
static const struct service *backend_select(struct admin_request *r, struct selection *sel)
{
	const struct service *s = find_service(r);
	if (s == NULL)
		return NULL;
	*sel = (struct selection){ .r = r,
		.by_address = true,
		.port = (uint16_t)query_integer(r, "port", 0),
		.limit = SERVICE_LISTENERS_MAX,
		.items = json_array() };
	if (address_parse(r->args[2], &sel->address) == 0)
		control_each_backend(r->admin->control, s, take_backend, sel);
	if (json_array_size(sel->items) != 0)
		return s;
	json_decref(sel->items);
	reply_problem(r, PROBLEM_NOT_FOUND, "%s/%s has no backend %.64s%s%.5s", s->namespace,
		s->name, r->args[2], sel->port ? " with port " : "",
		sel->port ? query_text(r, "port") : "");
	return NULL;
}

static void reply_selection(struct admin_request *r, struct selection *sel)
{
	page_reply(r, sel->items, control_generation(r->admin->control), NULL, 0);
}

// The same again, after a change.
static void reply_backend(struct admin_request *r, struct selection *sel)
{
	json_decref(sel->items);
	if (backend_select(r, sel))
		reply_selection(r, sel);
}

void get_backend(struct admin_request *r)
{
	struct selection sel;
	if (backend_select(r, &sel))
		reply_selection(r, &sel);
}

// The operator's word so far on exactly this (address, port), or an empty one.
static struct service_overlay overlay_so_far(
	struct admin_request *r, const struct service *s, const struct selection *sel)
{
	const struct service_overlay *o = service_store_find_overlay(
		control_store(r->admin->control), s->namespace, s->name, &sel->address, sel->port);
	if (o && o->port == sel->port)
		return *o;
	struct service_overlay fresh = { .address = sel->address, .port = sel->port };
	snprintf(fresh.namespace, sizeof(fresh.namespace), "%s", s->namespace);
	snprintf(fresh.name, sizeof(fresh.name), "%s", s->name);
	return fresh;
}

static void put_overlay(
	struct admin_request *r, const struct service_overlay *overlay, struct selection *sel)
{
	struct error err = { 0 };
	int rc =
		query_flag(r, "dryRun") ? 0 : control_put_overlay(r->admin->control, overlay, &err);
	if (rc == 0) {
		reply_backend(r, sel);
	} else {
		json_decref(sel->items);
		reply_error(r, rc, &err);
	}
	error_fini(&err);
}

// Takes back the drains ('d') or weights ('w') on what was selected: exactly that port, or with none named all of them.
static void clear_overlays(
	struct admin_request *r, const struct service *s, struct selection *sel, char which)
{
	const struct service_store *store = control_store(r->admin->control);
	char namespace[SERVICE_NAME_MAX], name[SERVICE_NAME_MAX];
	uint16_t ports[SERVICE_LISTENERS_MAX];
	uint32_t n = 0;
	bool covered = false; // by a word on every port
	snprintf(namespace, sizeof(namespace), "%s", s->namespace);
	snprintf(name, sizeof(name), "%s", s->name);
	for (uint32_t i = 0; i < service_store_overlay_count(store) && n < ARRAY_SIZE(ports); i++) {
		const struct service_overlay *o = service_store_overlay_at(store, i);
		if (strcmp(o->namespace, namespace) != 0 || strcmp(o->name, name) != 0 ||
			!address_equal(&o->address, &sel->address))
			continue;
		covered |= o->port == 0 && (which == 'd' ? o->draining : o->has_weight);
		if (sel->port == 0 || o->port == sel->port)
			ports[n++] = o->port;
	}
	if (sel->port != 0 && covered && n == 0) {
		json_decref(sel->items);
		reply_problem(r, PROBLEM_CONFLICT,
			"what was said holds for every port of %s: take it back without ?port=",
			r->args[2]);
		return;
	}
	struct error err = { 0 };
	int rc = 0;
	for (uint32_t i = 0; i < n && rc == 0 && !query_flag(r, "dryRun"); i++) {
		rc = control_clear_overlay(
			r->admin->control, namespace, name, &sel->address, ports[i], which, &err);
		rc = rc == -ENOENT ? 0 : rc;
	}
	if (rc == 0) {
		reply_backend(r, sel);
	} else {
		json_decref(sel->items);
		reply_error(r, rc, &err);
	}
	error_fini(&err);
}

// ---------------------------------------------------------------- drain, weight
void post_drain(struct admin_request *r)
{
	struct selection sel;
	const struct service *s = backend_select(r, &sel);
	if (s == NULL)
		return;
	struct service_overlay overlay = overlay_so_far(r, s, &sel);
	const char *deadline = json_string_value(json_object_get(r->json, "deadline"));
	const char *then = json_string_value(json_object_get(r->json, "onDeadline"));
	const char *reason = json_string_value(json_object_get(r->json, "reason"));
	int64_t deadline_ms = 0;
	if (deadline && control_parse_deadline(deadline, clock_wall_ms(), &deadline_ms) != 0) {
		json_decref(sel.items);
		finding_add(r, "/deadline", NULL,
			"`%.40s`: a duration (5m) or an RFC 3339 time in UTC", deadline);
		reply_problem(r, PROBLEM_INVALID, "the deadline is not valid");
		return;
	}
	if (!overlay.draining)
		overlay.since_ms = clock_wall_ms();
	overlay.draining = true;
	overlay.deadline_ms = deadline_ms;
	overlay.reset_on_deadline = then && strcmp(then, "reset") == 0;
	snprintf(overlay.reason, sizeof(overlay.reason), "%s", reason ? reason : "");
	put_overlay(r, &overlay, &sel);
}

void post_undrain(struct admin_request *r)
{
	struct selection sel;
	const struct service *s = backend_select(r, &sel);
	if (s)
		clear_overlays(r, s, &sel, 'd');
}

void patch_backend(struct admin_request *r)
{
	struct selection sel;
	const struct service *s = backend_select(r, &sel);
	if (s == NULL)
		return;
	json_t *weight = json_object_get(r->json, "weight");
	if (json_is_null(weight)) {
		clear_overlays(r, s, &sel, 'w');
		return;
	}
	struct service_overlay overlay = overlay_so_far(r, s, &sel);
	overlay.has_weight = true;
	overlay.weight = (uint32_t)json_integer_value(weight);
	put_overlay(r, &overlay, &sel);
}
