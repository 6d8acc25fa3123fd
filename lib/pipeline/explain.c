// SPDX-License-Identifier: BSD-3-Clause
// Why a packet would go where it would go: the look-ups of the stages, without writing, a line for each step.
// Cold (a mailbox request), but it runs on the worker whose tables it reads.
#include "pipeline_priv.h"

#include <stdio.h>

const char *pipeline_verdict_name(enum pipeline_verdict v)
{
	static const char *const names[] = { "forward", "reply", "punt", "drop", "resteer", "held",
		"wait" };
	return (unsigned)v < ARRAY_SIZE(names) ? names[v] : "unknown";
}

void pipeline_show_flow(
	const struct pipeline *p, const struct flow_record *r, struct flow_record *out)
{
	*out = *r;
	out->backend = *flow_server(p, r);
	out->backend_port = flow_server_port(r);
}

bool pipeline_show_entry(const struct pipeline *p, uint32_t ref, struct flow_record *out)
{
	static const uint8_t states[ONEWAY_STATE_MAX] = {
		[ONEWAY_EMBRYONIC] = FLOW_STATE_SYN_SENT,
		[ONEWAY_ESTABLISHED] = FLOW_STATE_ESTABLISHED,
		[ONEWAY_FIN] = FLOW_STATE_FIN_CLIENT,
		[ONEWAY_CLOSED] = FLOW_STATE_CLOSED,
		[ONEWAY_UDP_FIRST] = FLOW_STATE_UDP_ONEWAY,
		[ONEWAY_UDP] = FLOW_STATE_UDP_TWOWAY,
	};
	struct oneway_entry entry;
	if (!oneway_copy(&p->oneway, ref, &entry) || entry.state == ONEWAY_AFFINITY)
		return false;
	const struct snapshot_backend *backend = pipeline_backend(p, entry.backend_id);
	*out = (struct flow_record){
		.client = entry.key.peer,
		.client_port = entry.key.peer_port,
		.vip_port = entry.key.own_port,
		.vip_slot = entry.key.own_slot,
		.protocol = entry.key.protocol,
		.state = states[entry.state],
		.backend_id = entry.backend_id & FLOW_BACKEND_ID_MAX,
		.flags = FLOW_FLAG_ONEWAY,
		.snat_slot = SNAPSHOT_SLOT_NONE,
		.stamp_s = p->now_s - entry.idle_s,
	};
	if (backend != NULL) {
		out->backend = backend->address;
		out->backend_port = rte_cpu_to_be_16(backend->port);
	}
	return true;
}

__attribute__((format(printf, 3, 4))) static void step(
	struct pipeline_explanation *out, const char *name, const char *fmt, ...)
{
	if (out->n_steps >= PIPELINE_STEPS_MAX)
		return;
	struct pipeline_step *s = &out->steps[out->n_steps++];
	snprintf(s->name, sizeof(s->name), "%s", name);
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(s->text, sizeof(s->text), fmt, ap);
	va_end(ap);
}

static void refuse(
	struct pipeline_explanation *out, enum pipeline_verdict verdict, enum drop_reason reason)
{
	out->verdict = (uint8_t)verdict;
	out->reason = (uint8_t)reason;
}

static void explain_way(
	const struct pipeline *p, const struct address *peer, struct pipeline_explanation *out)
{
	char text[ADDRESS_TEXT_LEN], mac_text[18];
	struct nexthop_answer answer = nexthop_find(p->snapshot->fib, peer);
	address_format(peer, text);
	if (answer.nexthop == NEXTHOP_NONE) {
		step(out, "nexthop", "no route to %s", text);
		refuse(out, PIPELINE_DROP, DROP_NO_ROUTE);
		return;
	}
	refuse(out, PIPELINE_FORWARD, DROP_NONE);
	if (answer.nexthop == NEXTHOP_MISSING) {
		step(out, "nexthop",
			"%s is on-link at port %u and not resolved: held while asked for", text,
			answer.port_idx);
		out->verdict = PIPELINE_WAIT;
		return;
	}
	uint64_t word = nexthop_load(&p->nexthops, answer.nexthop);
	struct mac mac = nexthop_word_mac(word);
	char via[ADDRESS_TEXT_LEN];
	address_format(&p->nexthops.entries[answer.nexthop].address, via);
	if (nexthop_word_state(word) != NEXTHOP_VALID) {
		step(out, "nexthop", "%s via %s at port %u: neighbour has no MAC", text, via,
			answer.port_idx);
		out->verdict = PIPELINE_WAIT;
		return;
	}
	step(out, "nexthop", "%s via %s (%s) at port %u", text, via, mac_format(&mac, mac_text),
		nexthop_word_port(word));
}

static const char *mode_name(uint8_t mode)
{
	static const char *const names[] = { "fullnat", "dnat", "ipip", "gue", "l2dsr" };
	return mode < ARRAY_SIZE(names) ? names[mode] : "unknown";
}

static void explain_flow(
	const struct pipeline *p, uint32_t idx, uint8_t side, struct pipeline_explanation *out)
{
	const struct flow_record *r = flow_record(&p->flows, idx);
	char backend[ADDRESS_TEXT_LEN + 10], client[ADDRESS_TEXT_LEN + 10],
		face[ADDRESS_TEXT_LEN + 10];
	endpoint_format(
		flow_server(p, r), rte_be_to_cpu_16(flow_server_port(r)), backend, sizeof(backend));
	endpoint_format(&r->client, rte_be_to_cpu_16(r->client_port), client, sizeof(client));
	endpoint_format(flow_face(p, r), rte_be_to_cpu_16(flow_face_port(r)), face, sizeof(face));
	out->flow_idx = idx;
	out->backend_id = r->backend_id;
	step(out, "flow", "known: %s, idle %u s, client %s, backend %s, source %s",
		flow_state_name(r->state), p->now_s - r->stamp_s, client, backend, face);
	explain_way(p, side == FLOW_SIDE_CLIENT ? flow_server(p, r) : &r->client, out);
}

// Towards a backend of a one-way mode: way, tunnel.
static void explain_oneway(const struct pipeline *p, const struct snapshot_backend *backend,
	struct pipeline_explanation *out)
{
	bool is_v6 = !address_is_v4(&backend->address);
	const struct address *source = &p->snapshot->tunnel_source[is_v6];
	char text[ADDRESS_TEXT_LEN];
	explain_way(p, &backend->address, out);
	if (backend->mode == SNAPSHOT_L2DSR || out->verdict == PIPELINE_DROP)
		return;
	if (address_is_unspecified(source)) {
		step(out, "tunnel", "no SNAT address of IPv%d, which would be its source",
			is_v6 ? 6 : 4);
		refuse(out, PIPELINE_DROP, DROP_NO_SNAT_ADDRESS);
		return;
	}
	step(out, "tunnel", "%s from %s", mode_name(backend->mode), address_format(source, text));
}

static void explain_pick(const struct pipeline *p, const struct snapshot_listener *l,
	const struct pipeline_question *q, struct pipeline_explanation *out)
{
	struct packet packet = { .src = q->src,
		.dst = q->dst,
		.src_port = rte_cpu_to_be_16(q->src_port),
		.dst_port = rte_cpu_to_be_16(q->dst_port),
		.protocol = q->protocol,
		.tcp_flags = q->tcp_flags };
	struct snapshot_pick pick = stage_pick(p, l, &packet);
	if (pick.backend_id == SNAPSHOT_BACKEND_NONE) {
		step(out, "pick", "none of %u backends may take new flows", l->n_members);
		refuse(out, PIPELINE_REPLY, DROP_NO_BACKEND);
		return;
	}
	static const char *const why[] = {
		[SNAPSHOT_PICK_PRIMARY] = "first choice",
		[SNAPSHOT_PICK_SECOND] = "first choice not eligible, second",
		[SNAPSHOT_PICK_FALLBACK] = "neither candidate eligible, by hash among the rest",
		[SNAPSHOT_PICK_NONE] = "",
		[SNAPSHOT_PICK_LIGHTER] = "least connections: fewer than the first choice",
		[SNAPSHOT_PICK_STICKY] = "session affinity: the client's backend",
	};
	const struct snapshot_backend *backend = &p->snapshot->backends[pick.backend_id];
	char text[ADDRESS_TEXT_LEN + 10];
	endpoint_format(&backend->address, backend->port, text, sizeof(text));
	step(out, "pick", "maglev slot %u of %u -> backend %s (%s; weight %u, %u of %u eligible)",
		pick.slot, l->table_size, text, why[pick.step], backend->weight, l->n_eligible,
		l->n_members);
	out->backend_id = pick.backend_id;
	if (snapshot_mode_is_oneway(l->mode)) {
		explain_oneway(p, backend, out);
		return;
	}
	int family = address_is_v4(&backend->address) ? 4 : 6;
	uint64_t n_free = snat_n_free(p->snat, family);
	if (l->mode == SNAPSHOT_DNAT) {
		step(out, "source", "the client's own, as mode dnat has it");
	} else {
		step(out, "snat", "%lu IPv%d source ports free on this worker",
			(unsigned long)n_free, family);
		if (n_free == 0) {
			refuse(out, PIPELINE_DROP, DROP_SNAT_EXHAUSTED);
			return;
		}
	}
	explain_way(p, &backend->address, out);
}

// Would a packet without a flow be handed to another worker?
static bool explain_owner(const struct pipeline *p, const struct snapshot_listener *l,
	const struct pipeline_question *q, struct pipeline_explanation *out)
{
	if (p->n_workers == 1 || !l->by_client)
		return false;
	out->owner_worker = flow_owner_by_client(&q->src, p->n_workers);
	if (out->owner_worker == p->worker_idx)
		return false;
	step(out, "owner", "worker %u opens this client's flows", out->owner_worker);
	refuse(out, PIPELINE_RESTEER, DROP_NONE);
	return true;
}

static void explain_miss(const struct pipeline *p, const struct pipeline_question *q, uint16_t slot,
	struct pipeline_explanation *out)
{
	const struct snapshot *s = p->snapshot;
	step(out, "flow", "none");
	const struct snapshot_listener *l =
		snapshot_find_listener(s, slot, q->protocol, q->dst_port);
	if (l == NULL) {
		step(out, "listener", "no listener for protocol %u port %u", q->protocol,
			q->dst_port);
		refuse(out, PIPELINE_REPLY, DROP_CLOSED_PORT);
		return;
	}
	out->listener_idx = (uint32_t)(l - s->listeners);
	step(out, "listener", "service %s, port %u, mode %s", s->services[l->service_idx].name,
		l->port, mode_name(l->mode));
	if (!snapshot_source_allowed(s, l, &q->src)) {
		step(out, "source", "not in any of the %u source ranges", l->n_sources);
		refuse(out, PIPELINE_DROP, DROP_SOURCE_RANGE);
		return;
	}
	step(out, "source", l->n_sources ? "allowed by one of %u ranges" : "everybody is allowed",
		l->n_sources);
	if (explain_owner(p, l, q, out))
		return;
	bool is_syn = (q->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
	if (q->protocol != NET_PROTO_UDP && !is_syn && !snapshot_mode_is_oneway(l->mode)) {
		step(out, "state", "not a SYN, and no flow: answered with RST");
		refuse(out, q->tcp_flags & TCP_RST ? PIPELINE_DROP : PIPELINE_REPLY,
			q->tcp_flags & TCP_RST ? DROP_NO_FLOW_QUIET : DROP_NO_FLOW);
		return;
	}
	explain_pick(p, l, q, out);
}

// A known flow of a one-way mode. False: none.
static bool explain_entry(
	const struct pipeline *p, const struct flow_key *key, struct pipeline_explanation *out)
{
	uint32_t ref = oneway_lookup(&p->oneway, key);
	if (ref == ONEWAY_NONE)
		return false;
	uint64_t word = oneway_word(&p->oneway, ref);
	const struct snapshot_backend *backend = pipeline_backend(p, oneway_backend_id(word));
	if (backend == NULL || oneway_is_expired(&p->oneway, word, &p->oneway_timeouts))
		return false;
	char text[ADDRESS_TEXT_LEN + 10];
	endpoint_format(&backend->address, backend->port, text, sizeof(text));
	out->backend_id = oneway_backend_id(word);
	out->listener_idx = backend->listener_idx;
	step(out, "flow", "known: %s, idle %u s, backend %s, one way",
		oneway_state_name(oneway_state(word)), oneway_idle_s(&p->oneway, word), text);
	explain_oneway(p, backend, out);
	return true;
}

// Address and ownership. True: it is ours and this worker's; key is filled.
static bool explain_address(const struct pipeline *p, const struct pipeline_question *q,
	struct flow_key *key, struct pipeline_explanation *out)
{
	char text[ADDRESS_TEXT_LEN];
	uint8_t kind = SNAPSHOT_OWN_NONE;
	uint16_t slot = snapshot_find_own(p->snapshot, &q->dst, &kind);
	address_format(&q->dst, text);
	refuse(out, PIPELINE_PUNT, DROP_NONE);
	const struct snapshot_address_cell *from = snapshot_find_cell(p->snapshot, &q->src);
	if (slot == SNAPSHOT_SLOT_NONE && from->kind == SNAPSHOT_OWN_BACKEND) {
		step(out, "address", "%s is not ours, but the source is a backend of mode dnat",
			text);
		*key = flow_key_make(&q->dst, rte_cpu_to_be_16(q->dst_port),
			rte_cpu_to_be_16(q->src_port), from->slot, q->protocol);
		return true;
	}
	if (slot == SNAPSHOT_SLOT_NONE) {
		step(out, "address", "%s is not ours: to the kernel", text);
		return false;
	}
	step(out, "address", "%s is a %s (slot %u, snapshot %lu)", text,
		kind == SNAPSHOT_OWN_VIP ? "VIP" : "SNAT address", slot,
		(unsigned long)p->snapshot->generation);
	if (q->protocol != NET_PROTO_TCP && q->protocol != NET_PROTO_UDP &&
		q->protocol != NET_PROTO_SCTP) {
		step(out, "protocol", "protocol %u has no listeners", q->protocol);
		refuse(out, PIPELINE_DROP, DROP_PROTOCOL);
		return false;
	}
	if (kind == SNAPSHOT_OWN_SNAT) {
		if (q->dst_port < p->snat_port_min || q->dst_port > p->snat_port_max) {
			step(out, "port", "%u is outside the SNAT range: to the kernel",
				q->dst_port);
			return false;
		}
		out->owner_worker = snat_owner(q->dst_port, p->n_workers);
		step(out, "port", "owned by worker %u", out->owner_worker);
		if (out->owner_worker != p->worker_idx) {
			refuse(out, PIPELINE_RESTEER, DROP_NONE);
			return false;
		}
	}
	*key = (struct flow_key){ .peer = q->src,
		.peer_port = rte_cpu_to_be_16(q->src_port),
		.own_port = rte_cpu_to_be_16(q->dst_port),
		.own_slot = slot,
		.protocol = q->protocol };
	return true;
}

// Which table a packet for this VIP is looked up in (classify.c).
static bool goes_oneway(const struct pipeline *p, const struct pipeline_question *q, uint16_t slot)
{
	uint8_t tables = p->snapshot->own[slot].tables;
	if (tables != (SNAPSHOT_TABLE_NAT | SNAPSHOT_TABLE_ONEWAY))
		return tables == SNAPSHOT_TABLE_ONEWAY;
	const struct snapshot_listener *l =
		snapshot_find_listener(p->snapshot, slot, q->protocol, q->dst_port);
	return l != NULL && snapshot_mode_is_oneway(l->mode);
}

static void explain_verdict(struct pipeline_explanation *out)
{
	step(out, "verdict", "%s%s%s", pipeline_verdict_name(out->verdict), out->reason ? ": " : "",
		out->reason ? drop_rows[out->reason].name : "");
}

void pipeline_explain(const struct pipeline *p, const struct pipeline_question *q,
	struct pipeline_explanation *out)
{
	*out = (struct pipeline_explanation){
		.backend_id = SNAPSHOT_BACKEND_NONE,
		.listener_idx = UINT32_MAX,
		.flow_idx = FLOW_NONE,
		.owner_worker = p->worker_idx,
	};
	struct flow_key key;
	if (!explain_address(p, q, &key, out)) {
		explain_verdict(out);
		return;
	}
	uint8_t kind = SNAPSHOT_OWN_NONE, side;
	snapshot_find_own(p->snapshot, &q->dst, &kind);
	bool oneway = kind == SNAPSHOT_OWN_VIP && goes_oneway(p, q, key.own_slot);
	uint32_t idx = oneway ? FLOW_NONE : pipeline_find(p, &key, kind, &side);
	if (idx != FLOW_NONE &&
		!flow_gives_way(p, flow_record(&p->flows, idx), side, q->tcp_flags)) {
		explain_flow(p, idx, side, out);
	} else if (kind == SNAPSHOT_OWN_NONE) {
		step(out, "flow", "none: the backend's own traffic, to the kernel");
		refuse(out, PIPELINE_PUNT, DROP_NONE);
	} else if (kind == SNAPSHOT_OWN_SNAT) {
		step(out, "flow", "none: nothing starts at a SNAT address");
		refuse(out, PIPELINE_DROP, DROP_NO_FLOW_QUIET);
	} else if (!oneway || !explain_entry(p, &key, out)) {
		explain_miss(p, q, key.own_slot, out);
	}
	explain_verdict(out);
}
