// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// What must hold of every burst of the step's fuzzer:
//
//   accounting   each packet has one verdict, each drop a name; received + generated + re-steered in = sent + punted + dropped +
//                re-steered out + held; as many answers counted as were made; nobody is handed on more often than there are workers
//   one backend  a packet of a flow that the table has goes where its flow goes, while that backend is listed; a confirmed flow
//                that had a packet a moment ago is in the table
//   bytes        punted and re-steered packets are as they came; so is what tunnels and l2dsr carry; checksums are right where they
//                came right, also those of datagrams put together from forwarded fragments
#include "pipeline_rig_priv.h"

// What the tables say of a client's flow.
struct live {
	bool is_there;
	bool is_confirmed; // and not closing
	bool may_restart;  // a SYN begins another flow
	uint32_t backend_id;
	uint32_t idle_s;
};

struct watch {
	struct pipeline *p;
	struct burst *b;
	struct live live[BURST_MAX];
	bool is_sure[BURST_MAX]; // live may be held against the verdict
	uint64_t n_dropped, n_generated, n_evicted;
};

static const uint8_t client_protocols[4] = { NET_PROTO_TCP, NET_PROTO_UDP, NET_PROTO_TCP,
	NET_PROTO_SCTP };

static inline struct frame_spec client_spec(uint32_t k, char *client)
{
	bool is_v6 = k & 1;
	uint8_t protocol = client_protocols[k >> 1 & 3];
	snprintf(client, 48, is_v6 ? "2001:db8:c::%u" : "100.64.0.%u", k / 16 + 1);
	return (struct frame_spec){ .src = client,
		.dst = is_v6 ? "2001:db8:1::10" : "203.0.113.10",
		.is_v6 = is_v6,
		.protocol = protocol,
		.src_port = (uint16_t)(4000 + k),
		.dst_port = protocol == NET_PROTO_TCP   ? 80
			    : protocol == NET_PROTO_UDP ? 53
							: 3868 };
}

static inline struct flow_key client_key(const struct rig *rig, uint32_t k)
{
	char client[48];
	uint8_t kind;
	struct frame_spec s = client_spec(k, client);
	struct address src = address_of(client), vip = address_of(s.dst);
	uint16_t slot = snapshot_find_own(rig->w.snapshot, &vip, &kind);
	return flow_key_make(
		&src, rte_cpu_to_be_16(s.src_port), rte_cpu_to_be_16(s.dst_port), slot, s.protocol);
}

// ---------------------------------------------------------------- tables
static inline bool backend_is_eligible(const struct pipeline *p, uint32_t id)
{
	return id < p->snapshot->n_backends &&
	       (p->snapshot->backends[id].flags & SNAPSHOT_BACKEND_ELIGIBLE);
}

static inline struct live live_nat(const struct pipeline *p, const struct flow_key *key)
{
	uint8_t side;
	uint32_t idx = flow_lookup(&p->flows, key, &side);
	if (idx == FLOW_NONE || side != FLOW_SIDE_CLIENT)
		return (struct live){ 0 };
	const struct flow_record *r = flow_record(&p->flows, idx);
	const struct snapshot_policy *seconds = &p->snapshot->policies[r->policy];
	struct flow_policy policy = flow_policy_make(seconds->tcp_idle_s, seconds->udp_idle_s);
	uint32_t idle_s = p->now_s - r->stamp_s;
	if (r->policy >= p->snapshot->n_policies || idle_s > policy.idle_s[r->state])
		return (struct live){ 0 };
	return (struct live){ .is_there = true,
		.is_confirmed = flow_is_confirmed(r->state) && r->state != FLOW_STATE_CLOSING &&
				r->state != FLOW_STATE_CLOSED,
		.may_restart =
			r->state == FLOW_STATE_CLOSED || r->state == FLOW_STATE_CLOSING ||
			(r->state == FLOW_STATE_SYN_SENT && !backend_is_eligible(p, r->backend_id)),
		.backend_id = r->backend_id,
		.idle_s = idle_s };
}

static inline struct live live_oneway(const struct pipeline *p, const struct flow_key *key)
{
	uint32_t ref = oneway_lookup(&p->oneway, key);
	if (ref == ONEWAY_NONE || p->policies_generation != p->snapshot->generation)
		return (struct live){ 0 };
	uint64_t word = oneway_word(&p->oneway, ref);
	enum oneway_state state = oneway_state(word);
	if (oneway_idle_at(word, p->now_s) > oneway_timeout_s(word, &p->oneway_timeouts))
		return (struct live){ 0 };
	return (struct live){ .is_there = true,
		.is_confirmed = state == ONEWAY_ESTABLISHED || state == ONEWAY_UDP,
		.may_restart = state == ONEWAY_FIN || state == ONEWAY_CLOSED ||
			       (state == ONEWAY_EMBRYONIC &&
				       !backend_is_eligible(p, oneway_backend_id(word))),
		.backend_id = oneway_backend_id(word),
		.idle_s = oneway_idle_at(word, p->now_s) };
}

static inline bool rig_is_oneway(const struct rig *rig)
{
	enum service_mode mode = rig_shapes[rig->config.shape].mode;
	return mode == SERVICE_MODE_IPIP || mode == SERVICE_MODE_GUE || mode == SERVICE_MODE_L2DSR;
}

static inline struct live live_find(const struct rig *rig, const struct pipeline *p, int k)
{
	struct flow_key key = client_key(rig, (uint32_t)k);
	return rig_is_oneway(rig) ? live_oneway(p, &key) : live_nat(p, &key);
}

// May flows of this backend be held to it?
static inline bool backend_holds(const struct rig *rig, uint32_t id)
{
	const struct snapshot *s = rig->w.snapshot;
	return id < s->n_backends && (s->backends[id].flags & SNAPSHOT_BACKEND_LISTED) &&
	       !(s->backends[id].flags & SNAPSHOT_BACKEND_RESET) &&
	       snapshot_mode_is_oneway(s->backends[id].mode) == rig_is_oneway(rig);
}

// ---------------------------------------------------------------- before a burst
// What must be in the table: its flow was confirmed a moment ago and nothing has ended it.
static inline void memory_check(const struct rig *rig, const struct watch *w, uint32_t i, int k)
{
	const struct memory *m = &rig->memory[k];
	if (!m->is_sure || m->is_oneway != rig_is_oneway(rig) || m->worker != w->p->worker_idx ||
		w->p->now_s - m->stamp_s > FRESH_S || !backend_holds(rig, m->backend_id))
		return;
	if (m->is_oneway && w->p->policies_generation != w->p->snapshot->generation)
		return;
	REQUIRE(w->live[i].is_there && w->live[i].backend_id == m->backend_id);
}

static inline void watch_begin(
	const struct rig *rig, struct watch *w, struct pipeline *p, struct burst *b)
{
	uint64_t seen = 0;
	w->p = p;
	w->b = b;
	w->n_dropped = counters_dropped(p->counters);
	w->n_generated = p->counters->values[COUNTER_GENERATED];
	w->n_evicted = p->counters->values[COUNTER_FLOWS_EVICTED];
	for (uint32_t i = 0; i < b->n; i++) {
		const struct track *t = track_of(b->mbufs[i]);
		w->live[i] = (struct live){ 0 };
		w->is_sure[i] = false;
		if (t->client < 0)
			continue;
		w->live[i] = live_find(rig, p, t->client);
		// Fragments go behind the others of a burst.
		w->is_sure[i] = t->is_good && t->is_whole && !(seen >> t->client & 1);
		seen |= 1ull << t->client;
		if (w->is_sure[i])
			memory_check(rig, w, i, t->client);
	}
}

// ---------------------------------------------------------------- bytes
static inline bool mode_is_tunnel(uint8_t mode)
{
	return mode == SNAPSHOT_IPIP || mode == SNAPSHOT_GUE;
}

// Where the client's packet begins in a tunnel's.
static inline uint32_t outer_length(const struct snapshot_backend *backend)
{
	uint32_t n = address_is_v4(&backend->address) ? 20 : 40;
	return backend->mode == SNAPSHOT_GUE ? n + 12 : n;
}

static inline void check_oneway(const struct track *t, const struct snapshot_backend *backend,
	const uint8_t *out, uint32_t n)
{
	bool is_tunnel = mode_is_tunnel(backend->mode);
	uint32_t before = 14 + (is_tunnel ? outer_length(backend) : 0);
	struct packet in;
	struct rte_mbuf *mbuf = frame_mbuf(t->bytes, t->n);
	packet_parse(mbuf, NULL, &in); // without Ethernet's padding
	frame_mbuf_destroy(mbuf);
	REQUIRE(n >= before + in.l3_length);
	REQUIRE(memcmp(out + before, t->bytes + 14, in.l3_length) == 0);
	if (!is_tunnel)
		return;
	REQUIRE(n == before + in.l3_length);
	struct frame_layout l = frame_layout_of(out, 14);
	REQUIRE(l.end == n);
	if (out[14] >> 4 == 4)
		REQUIRE(frame_get16(out + 24) == frame_v4_checksum(out, 14));
}

// Puts the pieces of a datagram together again, as the receiver does.
static inline void check_datagram(const struct datagram *d)
{
	uint8_t whole[FRAME_MAX];
	bool is_v6 = d->out[0][14] >> 4 == 6;
	uint32_t header = 14 + (is_v6 ? 40 : 20), skip = is_v6 ? 8 : 0, n = header;
	memcpy(whole, d->out[0], header);
	for (uint32_t i = 0; i < d->n_pieces; i++) {
		uint32_t n_piece = d->n_bytes[i] - header - skip;
		memcpy(whole + n, d->out[i] + header + skip, n_piece);
		n += n_piece;
	}
	if (is_v6) {
		whole[20] = d->out[0][54];
		frame_put16(whole + 18, n - 54);
	} else {
		frame_put16(whole + 16, n - 14);
		frame_put16(whole + 20, 0);
		frame_put16(whole + 24, frame_v4_checksum(whole, 14));
	}
	REQUIRE(frame_checksums_ok(whole, 14));
}

static inline void check_piece(
	const struct track *t, const struct burst *b, uint32_t i, const uint8_t *out, uint32_t n)
{
	struct datagram *d = t->datagram;
	if (d == NULL || d->serial != t->serial || n > TRACK_BYTES)
		return;
	if (d->n_out > 0)
		REQUIRE(d->backend_id == b->backend_id[i]);
	d->backend_id = b->backend_id[i];
	if (d->n_bytes[t->piece] > 0)
		return;
	memcpy(d->out[t->piece], out, n);
	d->n_bytes[t->piece] = n;
	if (++d->n_out == d->n_pieces)
		check_datagram(d);
}

static inline void check_bytes(
	const struct rig *rig, const struct burst *b, uint32_t i, uint8_t *out, uint32_t n)
{
	const struct track *t = track_of(b->mbufs[i]);
	uint32_t id = b->backend_id[i];
	if (b->verdict[i] == PIPELINE_REPLY) {
		REQUIRE(frame_checksums_ok(out, 14));
		return;
	}
	REQUIRE(id < rig->w.snapshot->n_backends);
	const struct snapshot_backend *backend = &rig->w.snapshot->backends[id];
	if (b->flow_idx[i] == FLOW_NONE) {
		check_oneway(t, backend, out, n);
		if (t->datagram && t->datagram->serial == t->serial)
			t->datagram->n_pieces = 0; // not put together
		return;
	}
	if (t->is_good && t->is_whole)
		REQUIRE(frame_checksums_ok(out, 14));
	if (!t->is_whole && t->is_good)
		check_piece(t, b, i, out, n);
}

static inline void keep_sent(
	struct rig *rig, const struct burst *b, uint32_t i, const uint8_t *out, uint32_t n)
{
	const struct track *t = track_of(b->mbufs[i]);
	if (n > TRACK_BYTES || !t->is_good || !t->is_whole)
		return;
	struct sent *s = &rig->sent[rig->n_sent++ % SENT_KEPT];
	s->client = t->client;
	s->is_nat = b->flow_idx[i] != FLOW_NONE;
	s->to_backend = !s->is_nat || b->side[i] == FLOW_SIDE_CLIENT;
	s->n = n;
	memcpy(s->bytes, out, n);
}

// ---------------------------------------------------------------- after a burst
static inline void remember(struct rig *rig, const struct watch *w, uint32_t i)
{
	const struct track *t = track_of(w->b->mbufs[i]);
	if (t->client < 0)
		return;
	struct live now = live_find(rig, w->p, t->client);
	struct memory *m = &rig->memory[t->client];
	m->is_sure = now.is_there && now.is_confirmed && t->is_good;
	m->is_oneway = rig_is_oneway(rig);
	m->worker = w->p->worker_idx;
	m->backend_id = now.backend_id;
	m->stamp_s = w->p->now_s - now.idle_s;
}

// Did the backend of packet i's flow end a flow earlier in the burst? Then a SYN begins another.
static inline bool was_ended(const struct watch *w, uint32_t i)
{
	for (uint32_t k = 0; k < i; k++)
		if (w->b->side[k] == FLOW_SIDE_BACKEND &&
			w->b->backend_id[k] == w->live[i].backend_id &&
			(w->b->packets[k].tcp_flags & (TCP_RST | TCP_FIN)))
			return true;
	return false;
}

static inline void check_backend(const struct rig *rig, const struct watch *w, uint32_t i)
{
	const struct live *live = &w->live[i];
	const struct packet *packet = &w->b->packets[i];
	bool evicted = w->p->counters->values[COUNTER_FLOWS_EVICTED] != w->n_evicted;
	bool is_syn = (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	if (!w->is_sure[i] || !live->is_there || !backend_holds(rig, live->backend_id) ||
		(is_syn && (live->may_restart || was_ended(w, i))) ||
		(evicted && (!live->is_confirmed || live->idle_s >= FRESH_S)))
		return;
	REQUIRE(w->b->backend_id[i] == live->backend_id);
}

static inline void check_sent(struct rig *rig, const struct watch *w, uint32_t i)
{
	uint8_t out[FRAME_MAX];
	uint32_t n = mbuf_linear(w->b->mbufs[i], out);
	REQUIRE(n == w->b->mbufs[i]->pkt_len);
	check_bytes(rig, w->b, i, out, n);
	if (w->b->verdict[i] == PIPELINE_REPLY)
		return;
	check_backend(rig, w, i);
	keep_sent(rig, w->b, i, out, n);
}

static inline void check_untouched(const struct rte_mbuf *mbuf)
{
	uint8_t out[FRAME_MAX];
	const struct track *t = track_of(mbuf);
	REQUIRE(mbuf_linear(mbuf, out) == t->n && memcmp(out, t->bytes, t->n) == 0);
}

static inline void watch_counts(const struct watch *w, uint32_t n_replies, uint32_t n_drops)
{
	const struct counters *c = w->p->counters;
	REQUIRE(c->values[COUNTER_GENERATED] - w->n_generated == n_replies);
	REQUIRE(counters_dropped(c) - w->n_dropped == n_drops);
	REQUIRE(counters_imbalance(c) ==
		(int64_t)(fragments_n_held(w->p->fragments) + w->p->n_released));
}
