// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Errors that somebody made up. Whatever one quotes:
//
//   nothing changes   tables of flows, entries and ports are the same, byte for byte, and so are the numbers of flows of each backend
//   it stays here     unless it quotes a packet of a flow that a table has, or, in a one-way mode, one of a listener; and its own
//                     checksum is right
//   it says the same  the sequence number that it quotes arrives as it came: who has the connection can judge it, we cannot
//
// What a quoted packet is, is read here once more, from its bytes, and its flow is looked for in all records, one by one.
#include "pipeline_oracle_priv.h"

// ---------------------------------------------------------------- the quoted packet
struct quote {
	bool is_v6;
	uint8_t protocol;
	struct address src, dst;
	rte_be16_t src_port, dst_port;
	uint32_t l4; // offset
};

static inline struct address quote_address(const uint8_t *at, bool is_v6)
{
	struct address a;
	rte_be32_t v4;
	memcpy(&v4, at, sizeof(v4));
	if (!is_v6)
		return address_from_v4(v4);
	memcpy(a.bytes, at, 16);
	return a;
}

// ip: n bytes. False: its ports are not there.
static inline bool quote_read(const uint8_t *ip, uint32_t n, struct quote *q)
{
	if (n < 28)
		return false;
	q->is_v6 = ip[0] >> 4 == 6;
	q->l4 = q->is_v6 ? 40 : (ip[0] & 15) * 4u;
	if (n < q->l4 + 8)
		return false;
	q->protocol = ip[q->is_v6 ? 6 : 9];
	q->src = quote_address(ip + (q->is_v6 ? 8 : 12), q->is_v6);
	q->dst = quote_address(ip + (q->is_v6 ? 24 : 16), q->is_v6);
	memcpy(&q->src_port, ip + q->l4, 2);
	memcpy(&q->dst_port, ip + q->l4 + 2, 2);
	return true;
}

// Did a packet like this leave for one of the two sides of flow r?
static inline bool quote_is_of(
	const struct snapshot *s, const struct flow_record *r, const struct quote *q)
{
	const struct address *vip = &s->own[r->vip_slot].address;
	const struct address *third = &s->own[r->snat_slot].address;
	bool is_dnat = r->flags & FLOW_FLAG_DNAT;
	const struct address *server = is_dnat ? third : &r->backend;
	const struct address *face = is_dnat ? &r->client : third;
	rte_be16_t server_port = is_dnat ? r->snat_port : r->backend_port;
	rte_be16_t face_port = is_dnat ? r->client_port : r->snat_port;
	if (r->state == FLOW_STATE_FREE || r->protocol != q->protocol)
		return false;
	bool to_client = address_equal(&q->src, vip) && q->src_port == r->vip_port &&
			 address_equal(&q->dst, &r->client) && q->dst_port == r->client_port;
	bool to_server = address_equal(&q->src, face) && q->src_port == face_port &&
			 address_equal(&q->dst, server) && q->dst_port == server_port;
	return to_client || to_server;
}

// Is it of a flow that a table has, with all of these flags?
static inline bool quote_has_flow(const struct rig *rig, const struct quote *q, uint32_t flags)
{
	for (uint32_t i = 0; i < WORKERS; i++) {
		const struct flow_table *flows = &rig->w.workers[i].flows;
		for (uint32_t k = 0; k < flows->n_used; k++)
			if ((flow_record(flows, k)->flags & flags) == flags &&
				quote_is_of(rig->w.snapshot, flow_record(flows, k), q))
				return true;
	}
	return false;
}

static inline bool is_listener(uint8_t protocol, const struct address *to, rte_be16_t port)
{
	struct address vips[2] = { address_of("203.0.113.10"), address_of("2001:db8:1::10") };
	uint16_t number = protocol == NET_PROTO_TCP    ? 80
			  : protocol == NET_PROTO_UDP  ? 53
			  : protocol == NET_PROTO_SCTP ? 3868
						       : 0;
	return number != 0 && port == rte_cpu_to_be_16(number) &&
	       (address_equal(to, &vips[0]) || address_equal(to, &vips[1]));
}

static inline bool is_backend(const struct snapshot *s, const struct address *address)
{
	for (uint32_t id = 0; id < s->n_backends; id++)
		if (address_equal(&s->backends[id].address, address))
			return true;
	return false;
}

// A tunnel's packet to a backend, with a client's packet inside.
static inline bool quote_carries_client(
	const struct snapshot *s, const uint8_t *ip, uint32_t n, const struct quote *q)
{
	struct quote inner;
	uint32_t at = q->l4 + (q->protocol == NET_PROTO_UDP ? 12 : 0);
	return at < n && quote_read(ip + at, n - at, &inner) && is_backend(s, &q->dst) &&
	       is_listener(inner.protocol, &inner.dst, inner.dst_port);
}

// May an error that quotes these bytes go anywhere?
static inline bool quote_may_leave(const struct rig *rig, const uint8_t *ip, uint32_t n)
{
	struct quote q;
	if (!quote_read(ip, n, &q))
		return false;
	if (quote_has_flow(rig, &q, 0))
		return true;
	return rig_is_oneway(rig) && (is_listener(q.protocol, &q.src, q.src_port) ||
					     quote_carries_client(rig->w.snapshot, ip, n, &q));
}

// ---------------------------------------------------------------- what sluice knows
#define KNOWN_MAX (1u << 20)

struct knowledge {
	uint8_t bytes[WORKERS][3][KNOWN_MAX]; // flows, source ports, one-way entries
	uint32_t n[WORKERS][3];
	uint32_t n_flows[WORKERS];
	uint64_t created[WORKERS][RIG_BACKENDS], ended[WORKERS][RIG_BACKENDS];
	uint64_t n_sent;
	uint32_t n_kept; // of those, frames that were kept
};

static inline uint64_t rig_sent(const struct rig *rig)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < WORKERS; i++)
		n += rig->w.counters[i].values[COUNTER_SENT];
	return n;
}

// The lanes are empty.
static inline void knowledge_take(struct rig *rig, struct knowledge *k)
{
	struct oneway_capacity one = { RIG_CAPACITY, RIG_CAPACITY };
	for (uint16_t i = 0; i < WORKERS; i++) {
		struct pipeline *p = &rig->w.workers[i];
		size_t sizes[3] = { flow_table_size(RIG_CAPACITY), rig->snat_bytes[i],
			oneway_size(one) };
		const void *from[3] = { rig->w.memory[i][0], rig->w.memory[i][1],
			rig->w.memory[i][3] };
		oneway_advance(
			&p->oneway, (uint32_t)(rig->w.now_ns / CLOCK_S)); // its clock is in it
		for (int m = 0; m < 3; m++) {
			REQUIRE(sizes[m] <= KNOWN_MAX);
			k->n[i][m] = (uint32_t)sizes[m];
			memcpy(k->bytes[i][m], from[m], sizes[m]);
		}
		k->n_flows[i] = p->flows.n_flows;
		for (uint32_t b = 0; b < RIG_BACKENDS; b++) {
			k->created[i][b] = p->backend_counters[b].flows_created;
			k->ended[i][b] = p->backend_counters[b].flows_ended;
		}
	}
	k->n_sent = rig_sent(rig);
	k->n_kept = rig->n_sent;
}

static inline void knowledge_same(const struct rig *rig, const struct knowledge *k)
{
	for (uint32_t i = 0; i < WORKERS; i++) {
		const struct pipeline *p = &rig->w.workers[i];
		REQUIRE(memcmp(k->bytes[i][0], rig->w.memory[i][0], k->n[i][0]) == 0);
		REQUIRE(memcmp(k->bytes[i][1], rig->w.memory[i][1], k->n[i][1]) == 0);
		REQUIRE(memcmp(k->bytes[i][2], rig->w.memory[i][3], k->n[i][2]) == 0);
		REQUIRE(k->n_flows[i] == p->flows.n_flows);
		for (uint32_t b = 0; b < RIG_BACKENDS; b++)
			REQUIRE(k->created[i][b] == p->backend_counters[b].flows_created &&
				k->ended[i][b] == p->backend_counters[b].flows_ended);
	}
}

// ---------------------------------------------------------------- what left
// The quoted sequence number of an error at `frame`, of TCP. False: none.
static inline bool quoted_sequence(const uint8_t *frame, uint32_t n, uint32_t *out)
{
	struct frame_layout l = frame_layout_of(frame, 14);
	struct quote q;
	if (l.protocol != NET_PROTO_ICMP && l.protocol != NET_PROTO_ICMPV6)
		return false;
	const uint8_t *ip = frame + l.l4 + 8;
	if (n < l.l4 + 8 || !quote_read(ip, n - (uint32_t)l.l4 - 8, &q) ||
		q.protocol != NET_PROTO_TCP)
		return false;
	*out = (uint32_t)frame_get16(ip + q.l4 + 4) << 16 | frame_get16(ip + q.l4 + 6);
	return true;
}

// `t` went in, alone. ip: where what it quotes begins.
static inline void forged_check(
	const struct rig *rig, const struct knowledge *before, const struct track *t, uint32_t ip)
{
	uint64_t n_sent = rig_sent(rig) - before->n_sent;
	uint32_t was, is;
	knowledge_same(rig, before);
	REQUIRE(n_sent <= 1);
	if (n_sent == 0)
		return;
	REQUIRE(t->is_good && t->n > ip && quote_may_leave(rig, t->bytes + ip, t->n - ip));
	const struct sent *s = &rig->sent[(rig->n_sent - 1) % SENT_KEPT];
	struct quote q;
	if (rig->n_sent == before->n_kept || !s->is_nat || !quoted_sequence(t->bytes, t->n, &was) ||
		!quoted_sequence(s->bytes, s->n, &is))
		return;
	// A flow keeps its PROXY header, whatever its service says by now.
	if (quote_read(t->bytes + ip, t->n - ip, &q) && quote_has_flow(rig, &q, FLOW_FLAG_PROXY))
		return;
	REQUIRE(was == is);
}
