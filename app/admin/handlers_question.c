// SPDX-License-Identifier: BSD-3-Clause
// What only workers know: live flows and the explanation of a packet. The connection sleeps until control calls back
// (within a second, also when a worker is silent); every question is bounded.
#include "admin_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <strings.h>

#define FLOW_ROUNDS_MAX 16 // questions to control for one page

// ---------------------------------------------------------------- flows
// The endpoint that a flow goes to, and what that one sees as its peer. In dnat the second key of a record is the other way
// about (flow.h); in one-way modes there is none, and the backend sees the client.
struct flow_ends {
	struct address backend, source;
	rte_be16_t backend_port, source_port;
};

static void flow_ends(struct control *control, const struct flow_record *rec, struct flow_ends *out)
{
	struct address own = { 0 };
	control_own_address(control, rec->snat_slot, &own);
	*out = (struct flow_ends){ rec->backend, own, rec->backend_port, rec->snat_port };
	if (rec->flags & FLOW_FLAG_DNAT)
		*out = (struct flow_ends){ own, rec->client, rec->snat_port, rec->client_port };
	else if (rec->snat_slot == SNAPSHOT_SLOT_NONE)
		*out = (struct flow_ends){ rec->backend, rec->client, rec->backend_port,
			rec->client_port };
}

static json_t *flow_json(struct control *control, const struct control_flow *f)
{
	const struct flow_record *rec = &f->record;
	struct address vip = { 0 }, backend;
	struct flow_ends ends;
	const char *service = NULL;
	uint16_t port;
	char idle[32];
	control_own_address(control, rec->vip_slot, &vip);
	flow_ends(control, rec, &ends);
	if (!control_backend_name(control, rec->backend_id, &service, &backend, &port))
		service = NULL;
	clock_format_duration(f->idle_s * CLOCK_S, idle, sizeof(idle));
	return json_pack("{s:s, s:o, s:i, s:o, s:i, s:s, s:o, s:i, s:o, s:i, s:s, s:s, s:i}",
		"protocol", service_protocol_name(rec->protocol), "client",
		json_address(&rec->client), "clientPort", rte_be_to_cpu_16(rec->client_port), "vip",
		json_address(&vip), "vipPort", rte_be_to_cpu_16(rec->vip_port), "service",
		service ? service : "", "backend", json_address(&ends.backend), "backendPort",
		rte_be_to_cpu_16(ends.backend_port), "source", json_address(&ends.source),
		"sourcePort", rte_be_to_cpu_16(ends.source_port), "state",
		flow_state_name((enum flow_state)rec->state), "idle", idle, "worker",
		(int)f->worker_idx);
}

static bool name_matches(const char *wanted, const char *service)
{
	if (strchr(wanted, '/'))
		return strcmp(wanted, service) == 0;
	const char *slash = strchr(service, '/');
	return slash && strcmp(wanted, slash + 1) == 0;
}

static bool flow_wanted(
	struct control *control, const struct admin_wait *wait, const struct control_flow *f)
{
	const char *service = NULL;
	struct address backend;
	struct flow_ends ends;
	uint16_t port;
	flow_ends(control, &f->record, &ends);
	if (wait->by_backend && !address_equal(&wait->backend, &ends.backend))
		return false;
	if (!wait->by_service)
		return true;
	return control_backend_name(control, f->record.backend_id, &service, &backend, &port) &&
	       name_matches(wait->service, service);
}

static void flows_done(struct admin_wait *wait, uint64_t next)
{
	json_t *items = json_incref(wait->items);
	char token[sizeof(wait->filter_text) + 32];
	snprintf(token, sizeof(token), "%llu %s", (unsigned long long)next, wait->filter_text);
	struct admin_request *r = wait_end(wait);
	if (r == NULL) {
		json_decref(items);
		return;
	}
	page_reply(r, items, control_generation(r->admin->control), next ? token : NULL, -1);
	wait_resume(r);
}

static void flows_got(void *arg, const struct control_flow *flows, uint32_t n, uint64_t next)
{
	struct admin_wait *wait = arg;
	if (wait->request == NULL) {
		wait_end(wait);
		return;
	}
	struct control *control = wait->request->admin->control;
	for (uint32_t i = 0; i < n && json_array_size(wait->items) < wait->limit; i++) {
		if (flow_wanted(control, wait, &flows[i]))
			json_array_append_new(wait->items, flow_json(control, &flows[i]));
	}
	uint32_t left = wait->limit - (uint32_t)json_array_size(wait->items);
	if (next == 0 || left == 0 || ++wait->n_rounds == FLOW_ROUNDS_MAX ||
		control_flows(control, &wait->filter, next, left, flows_got, wait) != 0)
		flows_done(wait, next);
}

struct id_list {
	struct admin_wait *wait;
	bool too_many;
};

static bool add_id(void *arg, const struct control_backend_status *b)
{
	struct id_list *list = arg;
	struct dataplane_flow_filter *filter = &list->wait->filter;
	if (list->wait->by_backend && !address_equal(&list->wait->backend, &b->backend->address))
		return true;
	if (b->backend_id == SNAPSHOT_BACKEND_NONE)
		return true;
	if (filter->n_backend_ids == ARRAY_SIZE(filter->backend_ids)) {
		list->too_many = true;
		return false;
	}
	filter->backend_ids[filter->n_backend_ids++] = b->backend_id;
	return true;
}

// Lets workers filter by backend when the ids fit; what remains is filtered here. False: no such service.
static bool flows_filter(struct admin_request *r, struct admin_wait *wait)
{
	const struct service_store *store = control_store(r->admin->control);
	struct id_list list = { .wait = wait };
	bool known = !wait->by_service;
	if (!wait->by_service && !wait->by_backend)
		return true;
	for (uint32_t i = 0; i < service_store_count(store) && !list.too_many; i++) {
		const struct service *s = service_store_at(store, i);
		char name[SERVICE_NAME_MAX * 2 + 2];
		snprintf(name, sizeof(name), "%s/%s", s->namespace, s->name);
		if (wait->by_service && !name_matches(wait->service, name))
			continue;
		known = true;
		control_each_backend(r->admin->control, s, add_id, &list);
	}
	wait->filter.by_backend_id = !list.too_many && wait->filter.n_backend_ids > 0;
	return known;
}

// Where to go on, if the token was made for the same filter. 0, or answered.
static int flows_position(struct admin_request *r, struct admin_wait *wait,
	const struct admin_page *page, uint64_t *out)
{
	char *end = NULL;
	*out = 0;
	if (page->after[0] == 0)
		return 0;
	*out = strtoull(page->after, &end, 10);
	if (*end == ' ' && strcmp(end + 1, wait->filter_text) == 0)
		return 0;
	reply_problem(r, PROBLEM_BAD_REQUEST, "the token belongs to a list with another filter");
	return -EINVAL;
}

void get_flows(struct admin_request *r)
{
	struct admin_page page;
	struct admin_wait *wait;
	const char *service = query_text(r, "service");
	const char *backend = query_text(r, "backend");
	const char *client = query_text(r, "client");
	uint64_t position = 0;
	if (page_begin(r, &page) != 0 || (wait = wait_begin(r)) == NULL)
		return;
	wait->limit = page.limit;
	wait->items = json_array();
	wait->by_service = service != NULL;
	snprintf(wait->service, sizeof(wait->service), "%s", service ? service : "");
	wait->by_backend = backend && address_parse(backend, &wait->backend) == 0;
	wait->filter.by_client = client && address_parse(client, &wait->filter.client) == 0;
	snprintf(wait->filter_text, sizeof(wait->filter_text), "%s|%s|%s", service ? service : "",
		backend ? backend : "", client ? client : "");
	if (!flows_filter(r, wait)) {
		reply_problem(r, PROBLEM_NOT_FOUND, "there is no service %.128s", service);
		wait_end(wait);
		return;
	}
	if (flows_position(r, wait, &page, &position) != 0) {
		wait_end(wait);
		return;
	}
	int rc = control_flows(
		r->admin->control, &wait->filter, position, wait->limit, flows_got, wait);
	if (rc != 0) {
		wait_end(wait);
		reply_problem(r, PROBLEM_UNAVAILABLE, "workers cannot be asked: %s", strerror(-rc));
	}
}

// ---------------------------------------------------------------- explain
static const struct {
	const char *name;
	uint8_t number;
} protocols[] = {
	{ "tcp", NET_PROTO_TCP },
	{ "udp", NET_PROTO_UDP },
	{ "icmp", NET_PROTO_ICMP },
	{ "icmpv6", NET_PROTO_ICMPV6 },
};

static uint8_t protocol_number(const char *text)
{
	for (size_t i = 0; text && i < ARRAY_SIZE(protocols); i++) {
		if (strcasecmp(text, protocols[i].name) == 0)
			return protocols[i].number;
	}
	return NET_PROTO_TCP;
}

// "S", "SA", "FA": letters of tcpdump.
static int flags_parse(const char *text, uint8_t *out)
{
	static const char letters[] = "FSRPAU";
	*out = 0;
	for (; *text; text++) {
		const char *at = strchr(letters, *text & ~0x20);
		if (at == NULL || *at == 0)
			return -EINVAL;
		*out |= (uint8_t)(1u << (at - letters));
	}
	return 0;
}

static int port_find(struct admin *admin, const char *name, uint8_t *out)
{
	const struct device *device = control_device(admin->control);
	for (uint32_t i = 0; device && i < device_n_ports(device); i++) {
		if (strcmp(device_port(device, i)->name, name) == 0) {
			*out = (uint8_t)i;
			return 0;
		}
	}
	return -ENOENT;
}

static int question_decode(struct admin_request *r, struct pipeline_question *q)
{
	const char *flags = json_string_value(json_object_get(r->json, "flags"));
	const char *port = json_string_value(json_object_get(r->json, "port"));
	address_parse(json_string_value(json_object_get(r->json, "source")), &q->src);
	address_parse(json_string_value(json_object_get(r->json, "destination")), &q->dst);
	q->src_port = (uint16_t)json_integer_value(json_object_get(r->json, "sourcePort"));
	q->dst_port = (uint16_t)json_integer_value(json_object_get(r->json, "destinationPort"));
	q->protocol = protocol_number(json_string_value(json_object_get(r->json, "protocol")));
	q->tcp_flags = TCP_SYN;
	if (address_is_v4(&q->src) != address_is_v4(&q->dst))
		finding_add(r, "/destination", NULL, "must be of the family of the source");
	if (flags && flags_parse(flags, &q->tcp_flags) != 0)
		finding_add(r, "/flags", NULL, "`%.32s`: letters of FSRPAU", flags);
	if (port && port_find(r->admin, port, &q->in_port) != 0)
		finding_add(r, "/port", NULL, "there is no port `%.31s`", port);
	if (r->findings == NULL)
		return 0;
	reply_problem(r, PROBLEM_INVALID, "the question is not valid");
	return -EINVAL;
}

// The service that listens there, for packets that reached no backend.
static const struct service *listening(struct admin *admin, const struct pipeline_question *q)
{
	const struct service_store *store = control_store(admin->control);
	for (uint32_t i = 0; i < service_store_count(store); i++) {
		const struct service *s = service_store_at(store, i);
		bool ours = false, listens = false;
		for (uint32_t a = 0; a < s->n_addresses; a++)
			ours |= address_equal(&s->addresses[a], &q->dst);
		for (uint32_t l = 0; l < s->n_listeners && ours; l++) {
			const struct service_listener *listener = &s->listeners[l];
			listens |= listener->protocol == q->protocol &&
				   q->dst_port >= listener->port &&
				   q->dst_port <= listener->port_max;
		}
		if (listens)
			return s;
	}
	return NULL;
}

static void reply_explanation(struct admin_request *r, const struct pipeline_question *q,
	const struct pipeline_explanation *e, uint16_t worker_idx)
{
	char listening_name[SERVICE_NAME_MAX * 2 + 2] = "";
	const char *service = listening_name;
	const struct service *listens = listening(r->admin, q);
	if (listens)
		snprintf(listening_name, sizeof(listening_name), "%s/%s", listens->namespace,
			listens->name);
	char backend[ADDRESS_TEXT_LEN + 10] = "";
	struct address address;
	uint16_t port;
	if (e->backend_id != SNAPSHOT_BACKEND_NONE &&
		control_backend_name(r->admin->control, e->backend_id, &service, &address, &port))
		endpoint_format(&address, port, backend, sizeof(backend));
	bool has_reason = e->reason != DROP_NONE && e->reason < DROP_MAX;
	const struct drop_row *row = &drop_rows[has_reason ? e->reason : DROP_NONE];
	json_t *steps = json_array();
	for (uint32_t i = 0; i < e->n_steps && i < PIPELINE_STEPS_MAX; i++)
		json_array_append_new(
			steps, json_pack("{s:i, s:s, s:s}", "step", (int)i + 1, "name",
				       e->steps[i].name, "text", e->steps[i].text));
	reply_json(r, 200,
		json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:o}", "verdict",
			pipeline_verdict_name((enum pipeline_verdict)e->verdict), "reason",
			has_reason ? row->name : "", "meaning", has_reason ? row->help : "", "fix",
			has_reason ? row->fix : "", "service", service, "backend", backend,
			"worker", (int)worker_idx, "steps", steps));
}

static void explained(void *arg, const struct pipeline_explanation *e, uint16_t worker_idx)
{
	struct pipeline_question question = ((struct admin_wait *)arg)->question;
	struct admin_request *r = wait_end(arg);
	if (r == NULL)
		return;
	if (e)
		reply_explanation(r, &question, e, worker_idx);
	else
		reply_problem(r, PROBLEM_WORKER_TIMEOUT, "worker w%u did not answer within 1 s",
			worker_idx);
	wait_resume(r);
}

void post_explain(struct admin_request *r)
{
	struct pipeline_question q = { 0 };
	if (question_decode(r, &q) != 0)
		return;
	struct admin_wait *wait = wait_begin(r);
	if (wait == NULL)
		return;
	wait->question = q;
	int rc = control_explain(r->admin->control, &q, explained, wait);
	if (rc != 0) {
		wait_end(wait);
		reply_problem(r, PROBLEM_UNAVAILABLE, "workers cannot be asked: %s", strerror(-rc));
	}
}
