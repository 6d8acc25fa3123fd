// SPDX-License-Identifier: BSD-3-Clause
// What operators see of backends: state, reason and since when, from the four sources (cluster, probe, operator, and what
// workers count).
#include "control_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

uint16_t control_backend_port(const struct service_backend *b, const struct service_listener *l)
{
	for (uint32_t i = 0; i < b->n_ports; i++) {
		if (strcmp(b->ports[i].listener, l->name) == 0)
			return b->ports[i].port;
	}
	return 0;
}

// Called for each backend of a listener with its port.
typedef bool visit_fn(void *arg, const struct service *s, const struct service_listener *l,
	const struct service_backend *b, uint16_t port);

static bool visit_backends(const struct service *s, visit_fn *fn, void *arg)
{
	for (uint32_t i = 0; i < s->n_listeners; i++) {
		for (uint32_t k = 0; k < s->n_backends; k++) {
			const struct service_backend *b = &s->backends[k];
			uint16_t port = control_backend_port(b, &s->listeners[i]);
			if (port != 0 && !fn(arg, s, &s->listeners[i], b, port))
				return false;
		}
	}
	return true;
}

static uint32_t find_id(struct control *c, const struct service *s,
	const struct service_listener *l, const struct service_backend *b, uint16_t port)
{
	char name[2 * SERVICE_NAME_MAX];
	uint32_t id;
	snprintf(name, sizeof(name), "%s/%s", s->namespace, s->name);
	if (c->published == NULL ||
		snapshot_registry_backend(c->registry, name, l->name, &b->address, port, &id) != 0)
		return SNAPSHOT_BACKEND_NONE;
	if (id >= c->published->n_backends ||
		!(c->published->backends[id].flags & SNAPSHOT_BACKEND_LISTED))
		return SNAPSHOT_BACKEND_NONE;
	return id;
}

static struct health_verdict decide(const struct control *c, const struct service *s,
	const struct service_listener *l, const struct service_backend *b, uint16_t port,
	const struct health_probe **out_probe)
{
	static const struct health_probe off = { .verdict = HEALTH_PROBE_OFF };
	const struct health_probe *probe = control_find_probe(c, s, l, &b->address, port);
	*out_probe = probe != NULL ? probe : &off;
	const struct service_overlay *overlay =
		service_store_find_overlay(c->store, s->namespace, s->name, &b->address, port);
	return health_decide(&b->conditions, *out_probe, overlay);
}

// ---------------------------------------------------------------- since when
// By backend id: a look-up in the registry for each, so only for services that something happened to.
static bool remember(void *arg, const struct service *s, const struct service_listener *l,
	const struct service_backend *b, uint16_t port)
{
	struct control *c = arg;
	const struct health_probe *probe;
	uint32_t id = find_id(c, s, l, b, port);
	if (id >= c->n_memory)
		return true;
	struct control_memory *m = &c->memory[id];
	struct health_verdict v = decide(c, s, l, b, port, &probe);
	if (!m->known || m->state != v.state) {
		m->since_ms = m->known && probe->since_ms > m->since_ms ? probe->since_ms
									: clock_wall_ms();
		m->state = (uint8_t)v.state;
	}
	m->known = true;
	return true;
}

void control_backends_remember(struct control *c)
{
	uint32_t n = c->published->n_backends;
	if (n > c->n_memory) {
		struct control_memory *memory = realloc(c->memory, n * sizeof(*memory));
		if (memory == NULL)
			return; // the time of a change is lost, nothing else
		memset(memory + c->n_memory, 0, (n - c->n_memory) * sizeof(*memory));
		c->memory = memory;
		c->n_memory = n;
	}
	const uint32_t *ids;
	uint32_t n_lingering = snapshot_lingering(c->published, &ids);
	for (uint32_t i = 0; i < n_lingering; i++)
		c->memory[ids[i]].known = false;
	// Probes and operators change what is said of a backend too; those who tell of it remember it (below).
	for (uint32_t i = 0; i < service_store_count(c->store); i++) {
		const struct service *s = service_store_at(c->store, i);
		if (s->revision > c->remembered_generation)
			visit_backends(s, remember, c);
	}
	c->remembered_generation = service_store_generation(c->store);
}

void control_remember_service(struct control *c, const char *namespace, const char *name)
{
	const struct service *s = service_store_find(c->store, namespace, name);
	if (s != NULL && c->published != NULL)
		visit_backends(s, remember, c);
}

// ---------------------------------------------------------------- status
static void fill_verdicts(struct control_backend_status *out, const struct service_backend *b,
	const struct health_probe *probe, const struct service_overlay *overlay)
{
	const struct service_conditions *conditions = &b->conditions;
	snprintf(out->verdict_cluster, sizeof(out->verdict_cluster), "%s",
		conditions->terminating ? "terminating"
		: conditions->ready     ? "ready"
					: "not-ready");
	snprintf(out->verdict_active, sizeof(out->verdict_active), "%s",
		health_probe_verdict_name(probe->verdict));
	snprintf(out->verdict_passive, sizeof(out->verdict_passive), "off");
	snprintf(out->verdict_admin, sizeof(out->verdict_admin), "%s",
		overlay != NULL && overlay->draining ? "draining" : "in");
}

static void fill_published(
	struct control *c, const struct service *s, struct control_backend_status *out)
{
	out->backend_id = find_id(c, s, out->listener, out->backend, out->port);
	out->since_ms = c->started_ms;
	if (out->backend_id == SNAPSHOT_BACKEND_NONE)
		return;
	out->eligible =
		(c->published->backends[out->backend_id].flags & SNAPSHOT_BACKEND_ELIGIBLE) != 0;
	if (out->backend_id < c->n_memory && c->memory[out->backend_id].known)
		out->since_ms = c->memory[out->backend_id].since_ms;
	if (c->dp == NULL)
		return;
	dataplane_backend_counters(c->dp, out->backend_id, &out->counters);
	// Two counters read one after the other while workers count.
	if (out->counters.flows_created > out->counters.flows_ended)
		out->flows = out->counters.flows_created - out->counters.flows_ended;
}

// ---------------------------------------------------------------- ways to a backend
// By family of the VIPs, [0] IPv4, [1] IPv6: are there any, and do they take backends of the other one?
struct service_ways {
	const struct service *service;
	bool has_vip[2];
	bool crosses[2];
};

static void ways_of(const struct service *s, struct service_ways *out)
{
	*out = (struct service_ways){ .service = s };
	for (uint32_t i = 0; i < s->n_addresses; i++)
		out->has_vip[!address_is_v4(&s->addresses[i])] = true;
	for (int v6 = 0; v6 < 2; v6++)
		out->crosses[v6] = out->has_vip[v6] && snapshot_family_crosses(s, !v6);
}

static bool has_snat(const struct control *c, bool v6)
{
	for (uint32_t i = 0; i < c->config.n_snat; i++) {
		if (!address_is_v4(&c->config.snat[i]) == v6)
			return true;
	}
	return false;
}

static bool is_own(const struct control *c, const struct address *address)
{
	uint8_t kind;
	return c->published != NULL &&
	       snapshot_find_own(c->published, address, &kind) != SNAPSHOT_SLOT_NONE &&
	       kind != SNAPSHOT_OWN_BACKEND;
}

// What keeps flows from a backend, however well it is, or how they get there when that is not plain. NULL: nothing to say.
static const char *say_way(
	const struct control *c, const struct service_ways *ways, const struct address *address)
{
	static const char *const crossing[2] = {
		"takes flows of IPv6 VIPs, since the service has no IPv6 backend",
		"takes flows of IPv4 VIPs, since the service has no IPv4 backend"
	};
	enum service_mode mode = ways->service->mode;
	bool v6 = !address_is_v4(address);
	bool needs_snat = mode != SERVICE_MODE_DNAT && mode != SERVICE_MODE_L2DSR;
	if (is_own(c, address))
		return "no flows: it is a VIP or SNAT address of sluice itself";
	if (!ways->has_vip[v6] && !ways->crosses[!v6]) {
		if (mode == SERVICE_MODE_DNAT || mode == SERVICE_MODE_L2DSR)
			return "no flows: no VIP of its family, and this mode cannot change it";
		return "no flows: no VIP of its family, and the VIPs have backends of theirs";
	}
	if (mode == SERVICE_MODE_L2DSR && !control_is_on_link((void *)(uintptr_t)c, address))
		return "no flows: it is on no link of sluice, and mode l2dsr cannot go through a "
		       "router";
	if (needs_snat && !has_snat(c, v6))
		return v6 ? "no way there: snat.addresses has no IPv6 address"
			  : "no way there: snat.addresses has no IPv4 address";
	return ways->crosses[!v6] ? crossing[v6] : NULL;
}

struct status_visit {
	struct control *c;
	bool (*fn)(void *arg, const struct control_backend_status *status);
	void *arg;
	struct service_ways ways; // of the service being visited
};

static bool visit_status(void *arg, const struct service *s, const struct service_listener *l,
	const struct service_backend *b, uint16_t port)
{
	struct status_visit *v = arg;
	const struct health_probe *probe;
	struct control_backend_status status = {
		.service = s,
		.listener = l,
		.backend = b,
		.port = port,
		.backend_id = SNAPSHOT_BACKEND_NONE,
		.weight = b->weight,
	};
	const struct service_overlay *overlay =
		service_store_find_overlay(v->c->store, s->namespace, s->name, &b->address, port);
	struct health_verdict verdict = decide(v->c, s, l, b, port, &probe);
	status.state = verdict.state;
	if (v->ways.service != s)
		ways_of(s, &v->ways);
	const char *way = say_way(v->c, &v->ways, &b->address);
	snprintf(status.reason, sizeof(status.reason), "%s%s%s", verdict.reason, way ? "; " : "",
		way ? way : "");
	if (overlay != NULL && overlay->has_weight)
		status.weight = overlay->weight;
	fill_verdicts(&status, b, probe, overlay);
	fill_published(v->c, s, &status);
	return v->fn(v->arg, &status);
}

void control_each_backend(struct control *c, const struct service *service,
	bool (*fn)(void *arg, const struct control_backend_status *status), void *arg)
{
	struct status_visit v = { .c = c, .fn = fn, .arg = arg };
	if (service != NULL) {
		visit_backends(service, visit_status, &v);
		return;
	}
	for (uint32_t i = 0; i < service_store_count(c->store); i++) {
		if (!visit_backends(service_store_at(c->store, i), visit_status, &v))
			return;
	}
}

bool control_backend_name(struct control *c, uint32_t backend_id, const char **out_service,
	struct address *out_address, uint16_t *out_port)
{
	const struct snapshot *s = c->published;
	if (s == NULL || backend_id >= s->n_backends)
		return false;
	const struct snapshot_backend *b = &s->backends[backend_id];
	if (!(b->flags & SNAPSHOT_BACKEND_LISTED) || b->service_idx >= s->n_services)
		return false;
	*out_service = s->services[b->service_idx].name;
	*out_address = b->address;
	*out_port = b->port;
	return true;
}

// ---------------------------------------------------------------- events
struct probe_visit {
	struct control *c;
	const struct control_watched *watched;
	enum health_probe_verdict before;
	struct address
		last_address; // one event per endpoint of a service, though two listeners share it
	uint16_t last_port;
};

static bool note_backend(void *arg, const struct service *s, const struct service_listener *l,
	const struct service_backend *b, uint16_t port)
{
	struct probe_visit *v = arg;
	if (!address_equal(&b->address, &v->watched->probe.address) ||
		control_find_probe(v->c, s, l, &b->address, port) != &v->watched->health)
		return true;
	remember(v->c, s, l, b, port);
	if (v->last_port == port && address_equal(&v->last_address, &b->address))
		return true;
	v->last_address = b->address;
	v->last_port = port;
	char object[160], endpoint[ADDRESS_TEXT_LEN + 10];
	snprintf(object, sizeof(object), "%s/%s %s", s->namespace, s->name,
		endpoint_format(&b->address, port, endpoint, sizeof(endpoint)));
	if (v->watched->health.verdict == HEALTH_PROBE_DOWN)
		control_note(v->c, LOG_LEVEL_WARN, "backend-down", object, "%s",
			v->watched->health.reason);
	else if (v->before == HEALTH_PROBE_DOWN)
		control_note(v->c, LOG_LEVEL_INFO, "backend-up", object, "%s",
			v->watched->health.reason[0] != '\0' ? v->watched->health.reason
							     : "probe ok");
	return true;
}

static void note_service(void *arg, const struct service *s)
{
	struct probe_visit *v = arg;
	v->last_port = 0;
	visit_backends(s, note_backend, v);
}

void control_note_probe(
	struct control *c, const struct control_watched *w, enum health_probe_verdict before)
{
	struct probe_visit v = { .c = c, .watched = w, .before = before };
	control_probe_users(c, w, note_service, &v);
}
