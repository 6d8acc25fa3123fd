// SPDX-License-Identifier: BSD-3-Clause
// The whole step under fuzz: sequences of packets of all kinds, configurations of all modes, and time. pipeline_rig_priv.h is the
// world, pipeline_oracle_priv.h what must hold, pipeline_forged_priv.h what errors that were made up must not do.
//
// Input: steps. A byte says what, the following ones how; a step that finds no more bytes takes zeroes.
#include "pipeline_forged_priv.h"

#define STEPS_MAX 400

struct input {
	const uint8_t *at;
	size_t left;
};

static uint8_t next(struct input *in)
{
	if (in->left == 0)
		return 0;
	in->left--;
	return *in->at++;
}

static struct rig rig;

// ---------------------------------------------------------------- lanes
// Queues a frame at a worker. shape: room around it, and segments.
static void offer(uint32_t worker, const struct track *like, uint8_t shape)
{
	struct track *t = malloc(sizeof(*t));
	struct rte_mbuf *mbuf;
	struct lane *lane = &rig.lanes[worker];
	*t = *like;
	uint32_t n = t->n, first = 20u + (shape >> 2) % 120u;
	if ((shape & 3) == 3 && n > first)
		mbuf = frame_mbuf_split(t->bytes, n, first);
	else
		mbuf = frame_mbuf_room(
			t->bytes, n, shape & 1 ? 0 : 128, shape & 2 ? 64 + (shape >> 2) : 0);
	memcpy(mbuf->dynfield1, &t, sizeof(t));
	mbuf->port = pipeline_mark(0, 0);
	REQUIRE(lane->n < LANE_MAX);
	lane->mbufs[lane->n++] = mbuf;
	rig.n_alive++;
}

static void move(struct pipeline *p, struct burst *b, uint32_t i)
{
	REQUIRE(b->out_port[i] < WORKERS && b->out_port[i] != p->worker_idx);
	REQUIRE(b->hops[i] + 1u < WORKERS);
	check_untouched(b->mbufs[i]);
	struct lane *lane = &rig.lanes[b->out_port[i]];
	b->mbufs[i]->port = pipeline_mark(b->in_port[i], (uint8_t)(b->hops[i] + 1));
	REQUIRE(lane->n < LANE_MAX);
	lane->mbufs[lane->n++] = b->mbufs[i];
	counters_add(p->counters, COUNTER_RESTEERED_OUT, 1);
}

// What the worker does with a verdict.
static void leave(const struct watch *w, uint32_t i, uint32_t *n_replies, uint32_t *n_drops)
{
	struct burst *b = w->b;
	switch ((enum pipeline_verdict)b->verdict[i]) {
	case PIPELINE_REPLY:
		++*n_replies;
		++*n_drops;
		REQUIRE(b->reason[i] != DROP_NONE);
		__attribute__((fallthrough));
	case PIPELINE_FORWARD:
	case PIPELINE_WAIT:
		check_sent(&rig, w, i);
		counters_add(w->p->counters, COUNTER_SENT, 1);
		break;
	case PIPELINE_PUNT:
		check_untouched(b->mbufs[i]);
		counters_add(w->p->counters, COUNTER_PUNTED, 1);
		break;
	case PIPELINE_DROP:
		++*n_drops;
		REQUIRE(b->reason[i] != DROP_NONE);
		break;
	case PIPELINE_RESTEER:
		move(w->p, b, i);
		return;
	case PIPELINE_HELD:
		return;
	}
	remember(&rig, w, i);
	rig_free(&rig, b->mbufs[i]);
}

static void run_burst(uint32_t worker)
{
	static struct burst bursts[WORKERS];
	static struct watch w;
	struct lane *lane = &rig.lanes[worker];
	struct pipeline *p = &rig.w.workers[worker];
	struct burst *b = &bursts[worker];
	uint32_t n_replies = 0, n_drops = 0, n;
	p->now_ns = rig.w.now_ns;
	p->now_s = (uint32_t)(rig.w.now_ns / CLOCK_S);
	b->n = 0;
	pipeline_take_released(p, b);
	n = BURST_MAX - b->n < lane->n ? BURST_MAX - b->n : lane->n;
	for (uint32_t i = 0; i < n; i++) {
		b->mbufs[b->n] = lane->mbufs[i];
		pipeline_unmark(b, b->n);
		counters_add(p->counters,
			b->hops[b->n] > 0 ? COUNTER_RESTEERED_IN : COUNTER_RECEIVED, 1);
		b->n++;
	}
	lane->n -= n;
	memmove(lane->mbufs, lane->mbufs + n, lane->n * sizeof(lane->mbufs[0]));
	watch_begin(&rig, &w, p, b);
	pipeline_run(p, b);
	for (uint32_t i = 0; i < b->n; i++)
		leave(&w, i, &n_replies, &n_drops);
	for (uint32_t i = 0; i < b->n_tails; i++)
		frame_mbuf_destroy(b->tails[i]);
	for (uint32_t i = 0; i < b->n_given_up; i++, n_drops++)
		rig_free(&rig, b->given_up[i]);
	watch_counts(&w, n_replies, n_drops);
	REQUIRE(p->flows.n_flows <= RIG_CAPACITY);
}

static void run_lanes(void)
{
	for (bool more = true; more;) {
		more = false;
		for (uint32_t i = 0; i < WORKERS; i++) {
			if (rig.lanes[i].n == 0 && rig.w.workers[i].n_released == 0)
				continue;
			run_burst(i);
			more = true;
		}
	}
}

static void expire_held(uint64_t now_ns)
{
	struct rte_mbuf *out[BURST_MAX];
	for (uint32_t i = 0; i < WORKERS; i++) {
		uint32_t n;
		do {
			n = pipeline_expire_held(&rig.w.workers[i], now_ns, out, BURST_MAX);
			for (uint32_t k = 0; k < n; k++)
				rig_free(&rig, out[k]);
		} while (n > 0);
	}
}

// ---------------------------------------------------------------- frames
static const uint8_t tcp_choices[8] = { TCP_SYN, TCP_ACK, TCP_ACK | TCP_PSH, TCP_FIN | TCP_ACK,
	TCP_RST, TCP_SYN | TCP_ACK, TCP_ACK, TCP_SYN };
static const uint8_t sctp_choices[8] = { SCTP_INIT, 0, 0, 7, 6, 2, 10, 0 };

static void spec_say(struct frame_spec *s, uint8_t shape, uint8_t more)
{
	s->tcp_flags = tcp_choices[shape & 7];
	s->sctp_chunk = sctp_choices[shape & 7];
	s->sequence = 0xfffffff0u + (more & 63);
	s->acknowledgement = 7001u + (more >> 6);
	s->n_payload = s->protocol == NET_PROTO_SCTP ? 16 : more & 1 ? more : 0;
	s->udp_no_checksum = more & 2;
	s->ttl = shape & 8 ? 1 : 64;
	s->tcp_option_bytes = more & 32 ? 12 : 0;
}

static void damage(struct input *in, struct track *t)
{
	for (int d = 0; d < 3; d++)
		t->bytes[next(in) % t->n] ^= next(in);
	uint8_t cut = next(in);
	if (cut & 1)
		t->n = 1 + (uint32_t)cut * t->n / 256;
	t->is_good = false;
	rig_forget(&rig); // it may have been anything
}

static uint32_t client_worker(uint32_t k)
{
	return k >> 2 & 1;
}

// A packet of client k, whole or damaged.
static void step_client(struct input *in)
{
	struct track t = { .is_good = true, .is_whole = true };
	uint8_t k = next(in) % CLIENTS, shape = next(in), room = next(in);
	char client[48];
	struct frame_spec spec = client_spec(k, client);
	spec_say(&spec, shape, next(in));
	if ((shape & 0xc0) == 0xc0)
		spec.n_payload = (uint16_t)(1300 + next(in));
	t.client = k;
	t.n = (uint32_t)frame_build(&spec, t.bytes);
	if (shape & 16)
		damage(in, &t);
	offer(client_worker(k), &t, room);
}

// An answer to something that we sent.
static void step_answer(struct input *in)
{
	uint8_t which = next(in), shape = next(in), room = next(in);
	const struct sent *s = &rig.sent[which % SENT_KEPT];
	if (rig.n_sent <= which % SENT_KEPT || !s->is_nat || !s->to_backend)
		return;
	struct rte_mbuf *mbuf = frame_mbuf(s->bytes, s->n);
	struct packet p;
	packet_parse(mbuf, NULL, &p);
	frame_mbuf_destroy(mbuf);
	if (p.kind != PACKET_FLOW)
		return;
	char src[ADDRESS_TEXT_LEN], dst[ADDRESS_TEXT_LEN];
	address_format(&p.dst, src);
	address_format(&p.src, dst);
	struct frame_spec spec = { .src = src,
		.dst = dst,
		.is_v6 = p.is_v6,
		.protocol = p.protocol,
		.src_port = rte_be_to_cpu_16(p.dst_port),
		.dst_port = rte_be_to_cpu_16(p.src_port) };
	uint8_t more = next(in);
	spec_say(&spec, shape, more);
	spec.sequence = 7000u + (more & 3);
	spec.acknowledgement = 0xfffffff1u + (more >> 2);
	struct track t = { .client = -1, .is_good = true, .is_whole = true };
	t.n = (uint32_t)frame_build(&spec, t.bytes);
	if (spec.tcp_flags & (TCP_RST | TCP_FIN) || spec.sctp_chunk != 0)
		rig_forget(&rig);
	if (shape & 16)
		damage(in, &t);
	offer(which >> 7, &t, room);
}

// An error about the frame `quoted`, n bytes, of which it quotes a part; to the quoted packet's source.
static void error_build(
	const uint8_t *quoted, uint32_t n, uint8_t shape, uint8_t mtu, struct track *t)
{
	static const uint8_t types[2][4] = { { 3, 3, 11, 12 }, { 2, 1, 3, 4 } };
	bool is_v6 = quoted[14] >> 4 == 6;
	struct address to = quote_address(quoted + (is_v6 ? 22 : 26), is_v6);
	char dst[ADDRESS_TEXT_LEN];
	address_format(&to, dst);
	uint32_t most = shape & 4 ? 28 + (shape >> 3) : 512;
	struct frame_spec spec = { .src = is_v6 ? "2001:db8:f::1" : "198.18.0.1",
		.dst = dst,
		.is_v6 = is_v6,
		.protocol = is_v6 ? NET_PROTO_ICMPV6 : NET_PROTO_ICMP,
		.icmp_type = types[is_v6][shape & 3],
		.icmp_code = !is_v6 && (shape & 3) == 0 ? 4 : 0,
		.payload = quoted + 14,
		.n_payload = (uint16_t)(n - 14 < most ? n - 14 : most) };
	*t = (struct track){ .client = -1, .is_good = true, .is_whole = true };
	t->n = (uint32_t)frame_build(&spec, t->bytes);
	frame_put16(t->bytes + 14 + (is_v6 ? 40 : 20) + 6, 500u + 8u * mtu);
	frame_fix_checksums(t->bytes, 14);
}

// An ICMP error that quotes something that we sent.
static void step_error(struct input *in)
{
	uint8_t which = next(in), shape = next(in), room = next(in);
	const struct sent *s = &rig.sent[which % SENT_KEPT];
	struct track t;
	if (rig.n_sent <= which % SENT_KEPT)
		return;
	error_build(s->bytes, s->n, shape, next(in), &t);
	if (which & 64)
		damage(in, &t);
	offer(which >> 7, &t, room);
}

// A packet that we might have sent, to a client or to a backend.
static uint32_t forge_sent(struct input *in, bool to_backend, uint8_t *out)
{
	char client[48];
	struct frame_spec like = client_spec(next(in) % CLIENTS, client);
	struct frame_spec spec = { .is_v6 = like.is_v6,
		.protocol = like.protocol,
		.src = like.dst,
		.dst = like.src,
		.src_port = like.dst_port,
		.dst_port = like.src_port };
	if (to_backend) {
		spec.src = like.is_v6 ? "2001:db8::1" : "192.0.2.1";
		spec.dst = like.is_v6 ? "2001:db8:9::2" : "10.9.0.2";
		spec.src_port = (uint16_t)(RIG_PORT_MIN + next(in));
		spec.dst_port = like.dst_port == 80 ? 8080 : like.dst_port == 53 ? 5353 : 3868;
	}
	uint8_t shape = next(in);
	spec_say(&spec, shape, next(in));
	return (uint32_t)frame_build(&spec, out);
}

// What was sent, or might have been, with another sequence number, port, address or protocol.
static uint32_t forge(struct input *in, uint8_t which, uint8_t how, uint8_t *out)
{
	const struct sent *s = &rig.sent[which % SENT_KEPT];
	uint32_t n = s->n;
	if (how & 1 && rig.n_sent > which % SENT_KEPT)
		memcpy(out, s->bytes, n);
	else
		n = forge_sent(in, how & 2, out);
	bool is_v6 = out[14] >> 4 == 6;
	uint32_t l4 = is_v6 ? 54 : 34;
	if (how & 4)
		for (int i = 4; i < 8; i++)
			out[l4 + i] = next(in);
	if (how & 8)
		out[l4 + (next(in) & 3)] ^= next(in);
	if (how & 16)
		out[l4 - 1 - (next(in) & (is_v6 ? 31 : 7))] ^= next(in);
	if (how & 32)
		out[is_v6 ? 20 : 23] = client_protocols[next(in) & 3];
	return n;
}

// An error about a packet that we did not send, or not like that. Alone, so that all that changes is its doing.
static void step_forged(struct input *in)
{
	static struct knowledge before;
	uint8_t quoted[FRAME_MAX];
	uint8_t which = next(in), shape = next(in), how = next(in), room = next(in);
	struct track t;
	run_lanes();
	uint32_t n = forge(in, which, how, quoted);
	error_build(quoted, n, shape, next(in), &t);
	uint32_t icmp = t.bytes[14] >> 4 == 6 ? 54 : 34;
	if (how & 128) {
		t.bytes[icmp + 2] ^= 1 + next(in) % 255;
		t.is_good = false;
	}
	knowledge_take(&rig, &before);
	offer(which >> 7, &t, room);
	run_lanes();
	forged_check(&rig, &before, &t, icmp + 8);
}

// ---------------------------------------------------------------- fragments
// Piece i of a frame: bytes [from, to) behind its IP header.
static void piece_cut(const struct track *whole, struct track *out, uint32_t from, uint32_t to)
{
	static uint32_t id;
	bool is_v6 = whole->bytes[14] >> 4 == 6;
	uint32_t header = 14 + (is_v6 ? 40 : 20), n_all = whole->n - header;
	bool more = to < n_all;
	if (from == 0)
		id++;
	*out = *whole;
	memcpy(out->bytes + header + (is_v6 ? 8 : 0), whole->bytes + header + from, to - from);
	out->n = header + (is_v6 ? 8 : 0) + to - from;
	if (!is_v6) {
		frame_put16(out->bytes + 16, out->n - 14);
		frame_put16(out->bytes + 18, id);
		frame_put16(out->bytes + 20, from / 8 | (more ? 0x2000u : 0));
		frame_put16(out->bytes + 24, frame_v4_checksum(out->bytes, 14));
		return;
	}
	uint8_t *extension = out->bytes + header;
	extension[0] = whole->bytes[20];
	extension[1] = 0;
	frame_put16(extension + 2, from | more);
	frame_put32(extension + 4, id);
	out->bytes[20] = 44;
	frame_put16(out->bytes + 18, out->n - 54);
}

// A datagram of client k in two to four pieces, in any order, perhaps with time between, perhaps not all.
static void step_fragments(struct input *in)
{
	static struct track whole, pieces[PIECES_MAX];
	uint8_t k = next(in) % CLIENTS, shape = next(in), order = next(in), room = next(in);
	char client[48];
	struct frame_spec spec = client_spec(k, client);
	spec_say(&spec, shape & 7, next(in));
	spec.n_payload = (uint16_t)(spec.protocol == NET_PROTO_SCTP ? 200 : 100 + shape);
	uint32_t n_pieces = 2 + (shape >> 3) % 3;
	whole = (struct track){ .client = k, .is_good = true };
	whole.n = (uint32_t)frame_build(&spec, whole.bytes);
	whole.datagram = &rig.datagrams[rig.n_datagrams % 8];
	whole.serial = ++rig.n_datagrams;
	*whole.datagram = (struct datagram){ .serial = whole.serial, .n_pieces = n_pieces };
	uint32_t n_all = whole.n - (spec.is_v6 ? 54 : 34), each = (n_all / n_pieces + 7) & ~7u;
	for (uint32_t i = 0; i < n_pieces; i++) {
		uint32_t to = i + 1 == n_pieces ? n_all : (i + 1) * each;
		piece_cut(&whole, &pieces[i], i * each, to);
		pieces[i].piece = (uint8_t)i;
	}
	rig.memory[k].is_sure = false; // may be settled by either worker
	for (uint32_t i = 0; i < n_pieces; i++) {
		uint32_t which = (order & 1 ? n_pieces - 1 - i : i) ^ (order >> 1 & 1);
		if (which >= n_pieces || (order >> 2 & 7) == i + 4)
			continue;
		offer(order >> 7, &pieces[which], room);
		if (order & 64)
			run_lanes();
	}
}

static void step_raw(struct input *in)
{
	struct track t = { .client = -1 };
	t.n = 1 + next(in) % 200;
	for (size_t i = 0; i < t.n; i++)
		t.bytes[i] = next(in);
	rig_forget(&rig);
	offer(t.n & 1, &t, next(in));
}

// ---------------------------------------------------------------- configuration and time
static void step_config(struct input *in)
{
	struct config c = rig.config;
	uint8_t what = next(in), value = next(in);
	run_lanes();
	if (what & 1)
		c.mask = 1 + value % 63;
	if (what & 2)
		c.shape = (uint8_t)(value % RIG_SHAPES);
	if (what & 4)
		c.drains = (what & 8) ? 1u << value % BACKENDS : 0;
	c.reset = (what & 0xf0) == 0xf0 && c.drains;
	rig_publish(&rig, c);
	if (c.reset)
		rig_forget(&rig);
}

static void step_time(struct input *in)
{
	run_lanes();
	uint64_t n = next(in);
	rig.w.now_ns += n * n * (CLOCK_S / 64) * (1 + (next(in) & 3));
	expire_held(rig.w.now_ns);
}

static void housekeep(uint32_t worker, uint32_t n)
{
	struct pipeline *p = &rig.w.workers[worker];
	p->now_ns = rig.w.now_ns;
	p->now_s = (uint32_t)(rig.w.now_ns / CLOCK_S);
	pipeline_housekeep(p, n);
}

static void step(struct input *in)
{
	uint8_t what = next(in);
	switch (what % 16) {
	case 0:
		step_time(in);
		break;
	case 1:
		step_config(in);
		break;
	case 2:
		step_raw(in);
		break;
	case 3:
		run_lanes();
		housekeep(what >> 7, next(in));
		break;
	case 4:
	case 5:
	case 6:
		step_answer(in);
		break;
	case 7:
		step_error(in);
		break;
	case 8:
	case 9:
		step_fragments(in);
		break;
	case 10:
		step_forged(in);
		break;
	default:
		step_client(in);
	}
	if (what & 16 || rig.lanes[0].n + rig.lanes[1].n > 96)
		run_lanes();
}

// Long afterwards nothing is left.
static void end(void)
{
	run_lanes();
	expire_held(UINT64_MAX);
	REQUIRE(rig.n_alive == 0);
	rig.w.now_ns += 100000 * CLOCK_S;
	for (uint32_t i = 0; i < WORKERS; i++) {
		struct pipeline *p = &rig.w.workers[i];
		REQUIRE(counters_imbalance(p->counters) == 0 &&
			fragments_n_held(p->fragments) == 0);
		for (int turn = 0; turn < 48; turn++)
			housekeep(i, 256);
		REQUIRE(p->flows.n_flows == 0);
		REQUIRE(p->oneway.families[0].n_entries == 0 &&
			p->oneway.families[1].n_entries == 0);
		for (int f = 0; f < 2; f++)
			REQUIRE(snat_n_free(p->snat, f ? 6 : 4) == rig.n_free[i][f]);
		for (uint32_t k = 0; k < p->n_backend_counters; k++)
			REQUIRE(p->backend_counters[k].flows_created ==
				p->backend_counters[k].flows_ended);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	struct input in = { bytes, n };
	rig_reset(&rig);
	for (int i = 0; i < STEPS_MAX && in.left > 0; i++)
		step(&in);
	end();
	return 0;
}
