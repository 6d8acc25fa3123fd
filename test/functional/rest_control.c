// SPDX-License-Identifier: BSD-3-Clause
// A stand-in for control: a real service store, an invented machine (two ports, two workers, 5,000 flows), questions of
// workers answered from a timer. With it app/admin runs as it is, without the rest of the process.
#include "rest_control_priv.h"

#include <errno.h>
#include <stdlib.h>

#define EVENTS_MAX 1024
#define N_FLOWS    5000
#define DNAT_SLOT  10 // own slots of backends
#define N_WORKERS  2
#define N_PORTS    2

struct answer { // owed to admin
	struct event *timer;
	struct control *control;
	void (*explained)(void *, const struct pipeline_explanation *, uint16_t);
	void (*flows)(void *, const struct control_flow *, uint32_t, uint64_t);
	void *arg;
	struct pipeline_question question;
	struct dataplane_flow_filter filter;
	uint64_t position;
	uint32_t limit;
};

struct control {
	struct event_base *base;
	struct log log;
	struct service_store *store;
	struct service_defaults defaults;
	struct control_event events[EVENTS_MAX];
	uint64_t n_events;
	uint64_t generation;
	int64_t started_ms;
	struct counters counters[N_WORKERS + 1];
	struct device_port ports[N_PORTS];
	bool refuse_reload;
	bool is_released;
};

static struct control standin;

// ---------------------------------------------------------------- control
struct event_base *control_base(struct control *c)
{
	return c->base;
}

const struct log *control_log(struct control *c)
{
	return &c->log;
}

int control_reload(struct control *c, struct error *err)
{
	c->refuse_reload = !c->refuse_reload;
	if (!c->refuse_reload)
		return error_add(err, EINVAL, "services", "the file is broken");
	c->generation++;
	return 0;
}

const struct service_store *control_store(const struct control *c)
{
	return c->store;
}

const struct service_defaults *control_defaults(const struct control *c)
{
	return &c->defaults;
}

int control_put_service(
	struct control *c, const struct service *service, bool *out_changed, struct error *err)
{
	int rc = service_store_put(c->store, service, out_changed, err);
	c->generation += rc == 0;
	return rc;
}

int control_remove_service(struct control *c, const char *namespace, const char *name,
	enum service_owner owner, struct error *err)
{
	int rc = service_store_remove(c->store, namespace, name, owner, err);
	c->generation += rc == 0;
	return rc;
}

int control_put_overlay(struct control *c, const struct service_overlay *overlay, struct error *err)
{
	return service_store_put_overlay(c->store, overlay);
}

int control_clear_overlay(struct control *c, const char *namespace, const char *name,
	const struct address *address, uint16_t port, char which, struct error *err)
{
	const struct service_overlay *found =
		service_store_find_overlay(c->store, namespace, name, address, port);
	if (found == NULL || found->port != port)
		return -ENOENT;
	struct service_overlay overlay = *found;
	if (which == 'd')
		overlay.draining = false;
	else
		overlay.has_weight = false;
	if (overlay.draining || overlay.has_weight)
		return service_store_put_overlay(c->store, &overlay);
	return service_store_remove_overlay(c->store, namespace, name, address, port);
}

static uint16_t backend_port(const struct service_backend *b, const struct service_listener *l)
{
	for (uint32_t i = 0; i < b->n_ports; i++) {
		if (strcmp(b->ports[i].listener, l->name) == 0)
			return b->ports[i].port;
	}
	return 0;
}

static void fill_status(
	struct control *c, const struct service *s, struct control_backend_status *st, uint32_t id)
{
	const struct service_overlay *o = service_store_find_overlay(
		c->store, s->namespace, s->name, &st->backend->address, st->port);
	bool draining = o && o->draining;
	st->service = s;
	st->backend_id = id;
	st->state = draining ? HEALTH_DRAINING : HEALTH_UP;
	st->eligible = !draining;
	st->since_ms = c->started_ms;
	st->weight = o && o->has_weight ? o->weight : st->backend->weight;
	st->flows = 7;
	st->counters.packets_in = 10 + id;
	snprintf(st->reason, sizeof(st->reason), "%s",
		draining ? "drained by operator" : "ready, \"probe\" ok\x1b[31m");
	snprintf(st->verdict_cluster, sizeof(st->verdict_cluster), "ready");
	snprintf(st->verdict_active, sizeof(st->verdict_active), "up");
	snprintf(st->verdict_passive, sizeof(st->verdict_passive), "off");
	snprintf(st->verdict_admin, sizeof(st->verdict_admin), draining ? "draining" : "in");
}

// Ids are numbered over all services; fn NULL only counts.
static bool each_backend_of(struct control *c, const struct service *s, uint32_t *id,
	bool (*fn)(void *arg, const struct control_backend_status *status), void *arg)
{
	for (uint32_t l = 0; l < s->n_listeners; l++) {
		for (uint32_t b = 0; b < s->n_backends; b++) {
			struct control_backend_status st = { .listener = &s->listeners[l],
				.backend = &s->backends[b],
				.port = backend_port(&s->backends[b], &s->listeners[l]) };
			if (st.port == 0)
				continue;
			fill_status(c, s, &st, (*id)++);
			if (fn && !fn(arg, &st))
				return false;
		}
	}
	return true;
}

void control_each_backend(struct control *c, const struct service *service,
	bool (*fn)(void *arg, const struct control_backend_status *status), void *arg)
{
	uint32_t id = 0;
	for (uint32_t i = 0; i < service_store_count(c->store); i++) {
		const struct service *s = service_store_at(c->store, i);
		bool wanted = service == NULL || s == service;
		if (!each_backend_of(c, s, &id, wanted ? fn : NULL, arg))
			return;
	}
}

uint64_t control_generation(const struct control *c)
{
	return c->generation;
}

uint64_t control_digest(const struct control *c)
{
	return 0x0123456789abcdefull + c->generation;
}

const double control_cluster_bounds_s[CONTROL_CLUSTER_BUCKETS] = { 0.005, 0.01, 0.025, 0.05, 0.1,
	0.25, 0.5, 1, 2.5, 5, 10, 30 };

// Something is kept of one service, until it is released.
int control_release(struct control *c, const char *namespace, const char *name)
{
	if (c->is_released || strcmp(namespace, "prod") != 0 || strcmp(name, "dns") != 0)
		return -ENOENT;
	c->is_released = true;
	return 0;
}

bool control_cluster(const struct control *c, struct control_cluster *out)
{
	*out = (struct control_cluster){ .server = "https://192.0.2.1:6443",
		.node = "edge-1",
		.leader = "edge-2",
		.is_synced = true,
		.certificate_expires_ms = 1800000000000,
		.n_services = 3,
		.n_written = 7,
		.n_resources = 2,
		.latency = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13 },
		.latency_sum_s = 12.5 };
	out->resources[0] = (struct control_cluster_resource){ "services", true, true, "none", "",
		1700000000000, 1, 2, 3, 4, 5, 6 };
	out->resources[1] = (struct control_cluster_resource){ "nodes", false, false, "forbidden",
		"403 \"no\"", 0, 1, 0, 0, 0, 1, 0 };
	return true;
}

bool control_is_ready(const struct control *c, char *reason, size_t len)
{
	snprintf(reason, len, "%s", "");
	return true;
}

int64_t control_started_ms(const struct control *c)
{
	return c->started_ms;
}

bool control_backend_name(struct control *c, uint32_t backend_id, const char **out_service,
	struct address *out_address, uint16_t *out_port)
{
	*out_service = backend_id < 3 ? "default/web" : "prod/dns";
	*out_address = address_from_v4(RTE_BE32(0x0a090002 + backend_id));
	*out_port = 8080;
	return backend_id < 6;
}

bool control_own_address(struct control *c, uint16_t slot, struct address *out)
{
	*out = address_from_v4(slot == 0 ? RTE_BE32(0xcb00710a) : RTE_BE32(0xc0000201));
	if (slot >= DNAT_SLOT)
		*out = address_from_v4(rte_cpu_to_be_32(0x0a090002u + slot - DNAT_SLOT));
	return true;
}

void control_note(struct control *c, enum log_level level, const char *kind, const char *object,
	const char *fmt, ...)
{
	if (c->n_events == EVENTS_MAX) { // the stand-in forgets by halves
		memmove(c->events, c->events + EVENTS_MAX / 2, sizeof(c->events) / 2);
		c->n_events /= 2;
	}
	static uint64_t id;
	struct control_event *e = &c->events[c->n_events++];
	*e = (struct control_event){ .id = ++id, .time_ms = clock_wall_ms() };
	snprintf(e->kind, sizeof(e->kind), "%s", kind);
	snprintf(e->object, sizeof(e->object), "%s", object);
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	log_write(&c->log, level, kind, "%s: %s", e->object, e->text);
}

uint32_t control_events(
	const struct control *c, uint64_t after, const struct control_event **out, uint32_t max)
{
	uint64_t first = 0;
	while (first < c->n_events && c->events[first].id <= after)
		first++;
	uint64_t n = c->n_events - first;
	*out = &c->events[first];
	return n > max ? max : (uint32_t)n;
}

// ---------------------------------------------------------------- questions
static struct control_flow make_flow(uint64_t n)
{
	struct control_flow f = { .worker_idx = (uint16_t)(n % N_WORKERS),
		.idle_s = (uint32_t)n % 60 };
	f.record.client = address_from_v4(rte_cpu_to_be_32(0xc6336400u + (uint32_t)(n % 250)));
	f.record.client_port = rte_cpu_to_be_16((uint16_t)(1024 + n));
	f.record.vip_port = RTE_BE16(80);
	f.record.backend_id = (uint32_t)(n % 6);
	f.record.backend = address_from_v4(rte_cpu_to_be_32(0x0a090002 + (uint32_t)(n % 6)));
	f.record.backend_port = RTE_BE16(8080);
	f.record.snat_slot = 1;
	f.record.snat_port = rte_cpu_to_be_16((uint16_t)(2000 + n));
	f.record.protocol = NET_PROTO_TCP;
	f.record.state = FLOW_STATE_ESTABLISHED;
	if (n % 6 == 0) { // mode ipip
		f.record.snat_slot = SNAPSHOT_SLOT_NONE;
		f.record.snat_port = 0;
	}
	if (n % 6 < 3)
		return f;
	f.record.flags = FLOW_FLAG_DNAT; // the last three backends' flows
	f.record.backend = f.record.client;
	f.record.backend_port = f.record.client_port;
	f.record.snat_slot = (uint16_t)(DNAT_SLOT + n % 6);
	f.record.snat_port = RTE_BE16(8080);
	return f;
}

static bool flow_selected(const struct dataplane_flow_filter *filter, const struct control_flow *f)
{
	if (filter->by_client && !address_equal(&filter->client, &f->record.client))
		return false;
	for (uint32_t i = 0; i < filter->n_backend_ids && filter->by_backend_id; i++) {
		if (filter->backend_ids[i] == f->record.backend_id)
			return true;
	}
	return !filter->by_backend_id;
}

static void answer_flows(struct answer *a)
{
	static struct control_flow flows[1000];
	uint32_t n = 0;
	uint64_t at = a->position;
	// like workers: a bounded look, which may find less than was asked for
	for (uint32_t looked = 0; looked < 512 && at < N_FLOWS && n < a->limit && n < 1000;
		looked++) {
		struct control_flow f = make_flow(at++);
		if (flow_selected(&a->filter, &f))
			flows[n++] = f;
	}
	a->flows(a->arg, flows, n, at == N_FLOWS ? 0 : at);
}

static void answer_explanation(struct answer *a)
{
	struct pipeline_explanation e = { .n_steps = 3, .backend_id = 1 };
	if (a->question.dst_port == 9999) { // the worker that does not answer
		a->explained(a->arg, NULL, 1);
		return;
	}
	bool forward = a->question.dst_port == 80;
	e.verdict = forward ? PIPELINE_FORWARD : PIPELINE_REPLY;
	e.reason = forward ? DROP_NONE : DROP_CLOSED_PORT;
	if (!forward)
		e.backend_id = SNAPSHOT_BACKEND_NONE;
	static const char *const names[] = { "address", "listener", "verdict" };
	for (uint32_t i = 0; i < 3; i++) {
		snprintf(e.steps[i].name, sizeof(e.steps[i].name), "%s", names[i]);
		snprintf(e.steps[i].text, sizeof(e.steps[i].text), "step %u of port %u", i + 1,
			a->question.dst_port);
	}
	a->explained(a->arg, &e, 0);
}

static void answer_due(evutil_socket_t fd, short events, void *arg)
{
	struct answer *a = arg;
	if (a->explained)
		answer_explanation(a);
	else
		answer_flows(a);
	event_free(a->timer);
	free(a);
}

static int answer_later(struct control *c, struct answer owed, uint32_t ms)
{
	struct answer *a = calloc(1, sizeof(*a));
	*a = owed;
	a->timer = evtimer_new(c->base, answer_due, a);
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
	event_add(a->timer, &tv);
	return 0;
}

int control_explain(struct control *c, const struct pipeline_question *question,
	void (*fn)(void *arg, const struct pipeline_explanation *explanation, uint16_t worker_idx),
	void *arg)
{
	struct answer a = { .control = c, .explained = fn, .arg = arg, .question = *question };
	return answer_later(c, a, question->dst_port == 9999 ? 1000 : 5);
}

int control_flows(struct control *c, const struct dataplane_flow_filter *filter, uint64_t position,
	uint32_t limit,
	void (*fn)(void *arg, const struct control_flow *flows, uint32_t n, uint64_t next),
	void *arg)
{
	struct answer a = { .control = c,
		.flows = fn,
		.arg = arg,
		.filter = *filter,
		.position = position,
		.limit = limit };
	return answer_later(c, a, 2);
}

// ---------------------------------------------------------------- machine
const struct device *control_device(const struct control *c)
{
	return (const struct device *)(const void *)c;
}

const struct dataplane *control_dataplane(const struct control *c)
{
	return (const struct dataplane *)(const void *)c;
}

uint32_t device_n_ports(const struct device *device)
{
	return N_PORTS;
}

const struct device_port *device_port(const struct device *device, uint32_t idx)
{
	return &standin.ports[idx];
}

void device_port_stats(const struct device *device, uint32_t idx, struct device_port_stats *out)
{
	*out = (struct device_port_stats){ .rx_missed = idx };
}

uint32_t dataplane_n_workers(const struct dataplane *dp)
{
	return N_WORKERS;
}

const struct counters *dataplane_counters(const struct dataplane *dp, uint32_t worker_idx)
{
	return &standin.counters[worker_idx];
}

struct counters *dataplane_control_counters(struct dataplane *dp)
{
	return &standin.counters[N_WORKERS];
}

void dataplane_port_counters(
	const struct dataplane *dp, uint32_t port_idx, struct dataplane_port_counters *out)
{
	*out = (struct dataplane_port_counters){ .rx_packets = 1000 + port_idx,
		.tx_bytes = UINT64_MAX };
}

void dataplane_worker_state(
	const struct dataplane *dp, uint32_t worker_idx, struct dataplane_worker_state *out)
{
	*out = (struct dataplane_worker_state){ .cpu = (uint16_t)worker_idx,
		.numa = -1,
		.heartbeat = 12345,
		.busy_cycles = 30,
		.total_cycles = 100,
		.n_flows = N_FLOWS / N_WORKERS,
		.flow_capacity = 100000,
		.snapshot_generation = standin.generation,
		.variant = "scalar" };
}

// ---------------------------------------------------------------- beginning and end
static void add_service(const char *name, enum service_owner owner, const char *vip, uint32_t first)
{
	struct service *s = service_create(&standin.defaults);
	snprintf(s->namespace, sizeof(s->namespace), "%s",
		owner == SERVICE_OWNER_FILE ? "default" : "prod");
	snprintf(s->name, sizeof(s->name), "%s", name);
	s->owner = owner;
	address_parse(vip, service_add_address(s));
	struct service_listener *l = service_add_listener(s);
	*l = (struct service_listener){
		.name = "http", .protocol = NET_PROTO_TCP, .port = 80, .port_max = 80
	};
	for (uint32_t i = 0; i < 3; i++) {
		struct service_backend *b = service_add_backend(s);
		b->address = address_from_v4(rte_cpu_to_be_32(0x0a090002 + first + i));
		b->weight = 100;
		b->conditions = (struct service_conditions){ .ready = true, .serving = true };
		struct service_backend_port *p = service_backend_add_port(b);
		snprintf(p->listener, sizeof(p->listener), "http");
		p->port = 8080;
	}
	service_normalise(s);
	struct error err = { 0 };
	char line[256];
	if (control_put_service(&standin, s, NULL, &err) != 0) {
		fprintf(stderr, "%s\n", error_first(&err, line, sizeof(line)));
		exit(1);
	}
	service_destroy(s);
}

static void machine_invent(void)
{
	for (uint32_t i = 0; i < N_PORTS; i++) {
		struct device_port *p = &standin.ports[i];
		snprintf(p->name, sizeof(p->name), "p%u", i);
		snprintf(p->twin, sizeof(p->twin), "p%u", i);
		snprintf(p->driver, sizeof(p->driver), "net_af_packet");
		p->n_rx_queues = p->n_tx_queues = N_WORKERS;
		p->mtu = 1500;
		p->numa = -1;
		p->link_up = true;
		p->link_mbps = 10000;
	}
	for (uint32_t i = 0; i < N_WORKERS; i++) {
		struct counters *c = &standin.counters[i];
		counters_add(c, COUNTER_RECEIVED, 1000);
		counters_add(c, COUNTER_SENT, 990);
		counters_drop(c, DROP_NO_BACKEND, 10);
	}
}

struct control *rest_control_begin(enum log_level level)
{
	standin.base = event_base_new();
	standin.log = (struct log){ .fd = 2, .level = level };
	standin.store = service_store_create();
	standin.defaults = service_defaults_builtin();
	standin.started_ms = clock_wall_ms();
	machine_invent();
	add_service("web", SERVICE_OWNER_FILE, "203.0.113.10", 0);
	add_service("dns", SERVICE_OWNER_KUBERNETES, "203.0.113.11", 3);
	return &standin;
}

void rest_control_end(void)
{
	event_base_loop(standin.base, EVLOOP_NONBLOCK);
	event_base_free(standin.base);
	service_store_destroy(standin.store);
}
