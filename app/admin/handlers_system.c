// SPDX-License-Identifier: BSD-3-Clause
// The daemon itself: events, settings, reload, digest, health, the document of this interface.
#include "admin_priv.h"

#include <stdlib.h>

// ---------------------------------------------------------------- events
#define EVENTS_DEFAULT 1024 // all that are kept
void get_events(struct admin_request *r)
{
	static const struct control_event *found; // borrowed until the next event
	uint64_t after = (uint64_t)query_integer(r, "after", 0);
	uint32_t limit = (uint32_t)query_integer(r, "limit", EVENTS_DEFAULT);
	const char *kind = query_text(r, "kind");
	struct control *control = r->admin->control;
	json_t *items = json_array();
	int64_t remaining = 0;
	for (;;) {
		uint32_t n = control_events(control, after, &found, 256);
		if (n == 0)
			break;
		for (uint32_t i = 0; i < n; i++) {
			const struct control_event *e = &found[i];
			after = e->id;
			if (kind && strcmp(kind, e->kind) != 0)
				continue;
			if (json_array_size(items) == limit) {
				remaining++;
				continue;
			}
			json_t *text = json_string(e->text), *object = json_string(e->object);
			json_array_append_new(items,
				json_pack("{s:o, s:o, s:s, s:o, s:o}", "id", json_count(e->id),
					"time", json_time(e->time_ms), "kind", e->kind, "object",
					object ? object : json_string(""), "text",
					text ? text : json_string("")));
		}
	}
	page_reply(r, items, control_generation(control), NULL, remaining);
}

// ---------------------------------------------------------------- configuration
void get_config(struct admin_request *r)
{
	const struct admin_config *config = &r->admin->config;
	json_t *settings = config->settings_json ? config->settings_json(config->arg) : NULL;
	if (settings)
		reply_json(r, 200, settings);
	else
		reply_problem(r, PROBLEM_UNAVAILABLE, "there are no settings to show");
}

void post_reload(struct admin_request *r)
{
	struct error err = { 0 };
	int rc = control_reload(r->admin->control, &err);
	if (rc != 0)
		reply_error(r, rc, &err);
	else
		reply_json(r, 200,
			json_pack("{s:b, s:o}", "reloaded", 1, "generation",
				json_count(control_generation(r->admin->control))));
	error_fini(&err);
}

static json_t *digest_text(const struct control *control)
{
	return json_sprintf("%016llx", (unsigned long long)control_digest(control));
}

void get_digest(struct admin_request *r)
{
	const struct control *control = r->admin->control;
	reply_json(r, 200,
		json_pack("{s:o, s:o}", "digest", digest_text(control), "generation",
			json_count(control_generation(control))));
}

// ---------------------------------------------------------------- at a glance
static bool count_state(void *arg, const struct control_backend_status *b)
{
	uint64_t *n = arg;
	if (b->state <= HEALTH_DRAINING)
		n[b->state]++;
	return true;
}

static json_t *services_by_owner(const struct service_store *store)
{
	uint64_t n[SERVICE_OWNER_API + 1] = { 0 };
	json_t *object = json_object();
	for (uint32_t i = 0; i < service_store_count(store); i++)
		n[service_store_at(store, i)->owner]++;
	for (int i = 0; i <= SERVICE_OWNER_API; i++)
		json_object_set_new(
			object, service_owner_name((enum service_owner)i), json_count(n[i]));
	return object;
}

static json_t *backends_by_state(struct control *control)
{
	uint64_t n[HEALTH_DRAINING + 1] = { 0 };
	json_t *object = json_object();
	control_each_backend(control, NULL, count_state, n);
	for (int i = 0; i <= HEALTH_DRAINING; i++)
		json_object_set_new(
			object, health_state_name((enum health_state)i), json_count(n[i]));
	return object;
}

static uint64_t count_flows(const struct control *control)
{
	const struct dataplane *dp = control_dataplane(control);
	uint64_t n = 0;
	for (uint32_t i = 0; dp && i < dataplane_n_workers(dp); i++) {
		struct dataplane_worker_state w = { 0 };
		dataplane_worker_state(dp, i, &w);
		n += w.n_flows;
	}
	return n;
}

void get_system(struct admin_request *r)
{
	struct control *control = r->admin->control;
	const struct service_store *store = control_store(control);
	char reason[256] = "";
	bool ready = control_is_ready(control, reason, sizeof(reason));
	int64_t started_ms = control_started_ms(control);
	struct admin_rates rates = admin_rates(r->admin);
	int64_t up_ms = clock_wall_ms() - started_ms;
	json_t *rates_json = json_pack("{s:f, s:f, s:f, s:f}", "received", rates.received_per_s,
		"sent", rates.sent_per_s, "dropped", rates.dropped_per_s, "droppedLastMinute",
		rates.dropped_per_minute);
	reply_json(r, 200,
		json_pack("{s:s, s:o, s:o, s:b, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "version",
			SLUICE_VERSION, "started", json_time(started_ms), "uptime",
			json_duration_s(up_ms > 0 ? (uint64_t)up_ms / 1000 : 0), "ready", ready,
			"reason", ready ? "" : reason, "generation",
			json_count(control_generation(control)), "storeGeneration",
			json_count(service_store_generation(store)), "digest", digest_text(control),
			"services", services_by_owner(store), "backends",
			backends_by_state(control), "flows", json_count(count_flows(control)),
			"rates", rates_json));
}

// ---------------------------------------------------------------- health
// One word for everybody; the list of checks only for who may read state.
void get_livez(struct admin_request *r)
{
	if (query_flag(r, "verbose") && r->role >= ADMIN_VIEWER)
		reply_word(r, 200, "[+]loop\nok");
	else
		reply_word(r, 200, "ok");
}

static void verbose_ready(struct admin_request *r, bool ready, const char *reason)
{
	struct control *control = r->admin->control;
	const struct device *device = control_device(control);
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	if (f == NULL) {
		reply_problem(r, PROBLEM_UNAVAILABLE, "out of memory");
		return;
	}
	uint64_t generation = control_generation(control);
	fprintf(f, "[+]loop\n");
	fprintf(f, "[%c]published generation %llu\n", generation ? '+' : '-',
		(unsigned long long)generation);
	for (uint32_t i = 0; device && i < device_n_ports(device); i++) {
		const struct device_port *port = device_port(device, i);
		fprintf(f, "[%c]port %s link %s\n", port->link_up ? '+' : '-', port->name,
			port->link_up ? "up" : "down");
	}
	fprintf(f, "[%c]ready%s%s\n%s\n", ready ? '+' : '-', ready ? "" : ": ", ready ? "" : reason,
		ready ? "ok" : "unready");
	if (fclose(f) == 0)
		reply_text(r, ready ? 200 : 503, "text/plain; charset=utf-8", text, len);
	else
		free(text);
}

void get_readyz(struct admin_request *r)
{
	char reason[256] = "";
	bool ready = control_is_ready(r->admin->control, reason, sizeof(reason));
	if (!ready)
		reply_header(r, "Retry-After", "1");
	if (query_flag(r, "verbose") && r->role >= ADMIN_VIEWER)
		verbose_ready(r, ready, reason);
	else
		reply_word(r, ready ? 200 : 503, ready ? "ok" : "unready");
}

void get_openapi(struct admin_request *r)
{
	reply_json(r, 200, openapi_document());
}
