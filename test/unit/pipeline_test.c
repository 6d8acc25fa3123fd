// SPDX-License-Identifier: BSD-3-Clause
// The whole data path in one process: a few workers with their own tables over one snapshot, virtual time, frames of exact
// length. Checks what no single stage can: explain against the path really taken, flows that stay while backends come
// and go, ownership of source ports over workers, table pressure, and that every packet has one counted fate.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "frames_priv.h"
#include "world_priv.h"

// Runs one frame through one worker; counts what the caller of a pipeline counts. The result stays in *b.
static void run_frame(struct world *w, uint16_t worker, struct burst *b, struct rte_mbuf *mbuf)
{
	struct pipeline *p = &w->workers[worker];
	p->now_ns = w->now_ns;
	p->now_s = (uint32_t)(w->now_ns / CLOCK_S);
	b->n = 1;
	b->mbufs[0] = mbuf;
	b->in_port[0] = 0;
	b->hops[0] = 0;
	counters_add(p->counters, COUNTER_RECEIVED, 1);
	pipeline_run(p, b);
	switch (b->verdict[0]) {
	case PIPELINE_FORWARD:
	case PIPELINE_REPLY:
		counters_add(p->counters, COUNTER_SENT, 1);
		break;
	case PIPELINE_PUNT:
		counters_add(p->counters, COUNTER_PUNTED, 1);
		break;
	case PIPELINE_RESTEER:
		counters_add(p->counters, COUNTER_RESTEERED_OUT, 1);
		break;
	default:
		assert_int_equal(b->verdict[0], PIPELINE_DROP);
	}
	assert_int_equal(counters_imbalance(p->counters), 0);
}

struct flow_case {
	char client[48];
	uint16_t port;
	bool is_v6;
	uint8_t protocol;
};

static struct flow_case case_random(uint64_t *seed)
{
	struct flow_case c = { .is_v6 = frame_random(seed) & 1 };
	c.protocol = frame_random(seed) % 4 ? NET_PROTO_TCP : NET_PROTO_UDP;
	c.port = (uint16_t)(1024 + frame_random(seed) % 60000);
	uint32_t r = (uint32_t)frame_random(seed);
	if (c.is_v6)
		snprintf(
			c.client, sizeof(c.client), "2001:db8:c:%x::%x", r >> 16, (r & 0xffff) + 1);
	else
		snprintf(c.client, sizeof(c.client), "100.%u.%u.%u", 64 + (r >> 16) % 64,
			r >> 8 & 255, r & 255);
	return c;
}

static struct rte_mbuf *case_frame(const struct flow_case *c, uint8_t tcp_flags, uint8_t *frame)
{
	struct frame_spec spec = {
		.src = c->client,
		.dst = c->is_v6 ? "2001:db8:1::10" : "203.0.113.10",
		.is_v6 = c->is_v6,
		.protocol = c->protocol,
		.src_port = c->port,
		.dst_port = c->protocol == NET_PROTO_TCP ? 80 : 53,
		.tcp_flags = tcp_flags,
		.n_payload = tcp_flags == TCP_SYN ? 0 : 20,
	};
	size_t n = frame_build(&spec, frame);
	return frame_mbuf(frame, n);
}

static struct pipeline_question case_question(const struct flow_case *c, uint8_t tcp_flags)
{
	struct pipeline_question q = {
		.src = address_of(c->client),
		.dst = address_of(c->is_v6 ? "2001:db8:1::10" : "203.0.113.10"),
		.src_port = c->port,
		.dst_port = c->protocol == NET_PROTO_TCP ? 80 : 53,
		.protocol = c->protocol,
		.tcp_flags = tcp_flags,
	};
	return q;
}

// Explain first, then the packet itself: verdict, reason and backend must agree, for new flows, known ones, strays, and
// everything that random destinations and flags make of it; and explain must not have changed a byte of the tables.
static void explain_agrees_with_the_path(void **state)
{
	static struct burst b;
	struct world w;
	world_init(&w, 20000, 1024, 65535);
	uint64_t seed = 4711;
	uint8_t frame[FRAME_MAX];
	uint32_t n_known = 0;
	struct flow_case cases[64];
	for (int k = 0; k < 10000; k++) {
		struct flow_case *c = &cases[k % 64];
		bool again = k >= 64 && frame_random(&seed) % 3 == 0;
		if (!again)
			*c = case_random(&seed);
		static const uint8_t flags[] = { TCP_SYN, TCP_SYN, TCP_SYN, TCP_ACK, TCP_RST,
			TCP_FIN | TCP_ACK };
		uint8_t f = c->protocol == NET_PROTO_TCP
				    ? flags[frame_random(&seed) % ARRAY_SIZE(flags)]
				    : 0;
		if (k % 997 == 0)
			world_publish(&w, 1 + (uint32_t)frame_random(&seed) % 63);
		w.now_ns += frame_random(&seed) % (20 * CLOCK_MS);
		struct pipeline *p = &w.workers[0];
		p->now_ns = w.now_ns;
		p->now_s = (uint32_t)(w.now_ns / CLOCK_S);
		struct pipeline_question q = case_question(c, f);
		struct pipeline_explanation told;
		uint32_t n_before = p->flows.n_flows;
		pipeline_explain(p, &q, &told);
		assert_int_equal(p->flows.n_flows, n_before);
		struct rte_mbuf *mbuf = case_frame(c, f, frame);
		run_frame(&w, 0, &b, mbuf);
		n_known += told.flow_idx != FLOW_NONE;
		bool limited = b.reason[0] == DROP_ANSWER_RATE || told.verdict == PIPELINE_REPLY;
		if (!limited) {
			assert_int_equal(told.verdict, b.verdict[0]);
			assert_int_equal(told.reason, b.reason[0]);
		}
		if (b.verdict[0] == PIPELINE_FORWARD)
			assert_int_equal(told.backend_id, b.backend_id[0]);
		frame_mbuf_destroy(mbuf);
	}
	assert_true(n_known > 1000);
	world_fini(&w);
}

// A reply as the backend would send it, from the frame that went out.
static struct rte_mbuf *reply_to(const struct rte_mbuf *out, uint8_t tcp_flags, uint8_t *frame)
{
	struct packet p;
	packet_parse(out, NULL, &p);
	char src[48], dst[48];
	address_format(&p.dst, src);
	address_format(&p.src, dst);
	struct frame_spec spec = { .src = src,
		.dst = dst,
		.is_v6 = p.is_v6,
		.protocol = p.protocol,
		.src_port = rte_be_to_cpu_16(p.dst_port),
		.dst_port = rte_be_to_cpu_16(p.src_port),
		.tcp_flags = tcp_flags,
		.n_payload = 8 };
	return frame_mbuf(frame, frame_build(&spec, frame));
}

// Random flows on both workers while backends come and go: every packet of a flow reaches the backend of its first one, replies
// reach the client that asked, whichever worker they arrive at.
static void flows_keep_their_backend(void **state)
{
	enum { N = 3000 };
	static struct burst b;
	static struct flow_case cases[N];
	static struct address chosen[N];
	struct world w;
	world_init(&w, 20000, 1024, 65535);
	uint64_t seed = 99;
	uint8_t frame[FRAME_MAX], back[FRAME_MAX];
	for (int k = 0; k < N; k++) {
		cases[k] = case_random(&seed);
		uint16_t worker = (uint16_t)(k % WORKERS);
		struct rte_mbuf *mbuf = case_frame(&cases[k], TCP_SYN, frame);
		run_frame(&w, worker, &b, mbuf);
		assert_int_equal(b.verdict[0], PIPELINE_FORWARD);
		struct packet p;
		packet_parse(mbuf, NULL, &p);
		assert_int_equal(p.kind, PACKET_FLOW);
		assert_true(packet_l4_checksum_ok(mbuf, &p));
		chosen[k] = p.dst;
		assert_int_equal(snat_owner(rte_be_to_cpu_16(p.src_port), WORKERS), worker);
		struct rte_mbuf *reply = reply_to(mbuf, TCP_SYN | TCP_ACK, back);
		uint16_t other = (uint16_t)(1 - worker);
		run_frame(&w, other, &b, reply);
		assert_int_equal(b.verdict[0], PIPELINE_RESTEER);
		assert_int_equal(b.out_port[0], worker);
		run_frame(&w, worker, &b, reply);
		assert_int_equal(b.verdict[0], PIPELINE_FORWARD);
		packet_parse(reply, NULL, &p);
		struct address client = address_of(cases[k].client);
		assert_true(address_equal(&p.dst, &client));
		assert_int_equal(rte_be_to_cpu_16(p.dst_port), cases[k].port);
		frame_mbuf_destroy(reply);
		frame_mbuf_destroy(mbuf);
	}
	for (int round = 0; round < 20; round++) {
		world_publish(&w, 1 + (uint32_t)frame_random(&seed) % 63);
		for (int k = 0; k < N; k += 3) {
			if (cases[k].protocol == NET_PROTO_UDP)
				continue; // leaves a removed backend on purpose
			struct rte_mbuf *mbuf = case_frame(&cases[k], TCP_ACK, frame);
			run_frame(&w, (uint16_t)(k % WORKERS), &b, mbuf);
			assert_int_equal(b.verdict[0], PIPELINE_FORWARD);
			struct packet p;
			packet_parse(mbuf, NULL, &p);
			assert_true(address_equal(&p.dst, &chosen[k]));
			frame_mbuf_destroy(mbuf);
		}
	}
	world_fini(&w);
}

// A source port says whose flow it is, but not who sends: from other ports of the backend, other hosts, with another protocol,
// nobody reaches the client; beside packets of the flow in the same burst, too.
static void strangers_at_ports_in_use(void **state)
{
	static struct burst b;
	struct world w;
	world_init(&w, 1000, 1024, 65535);
	uint64_t seed = 5;
	uint8_t frame[FRAME_MAX];
	struct flow_case flow = case_random(&seed);
	flow.protocol = NET_PROTO_TCP;
	struct rte_mbuf *out = case_frame(&flow, TCP_SYN, frame);
	run_frame(&w, 0, &b, out);
	assert_int_equal(b.verdict[0], PIPELINE_FORWARD);
	struct packet p;
	packet_parse(out, NULL, &p);
	char backend[ADDRESS_TEXT_LEN], own[ADDRESS_TEXT_LEN];
	address_format(&p.dst, backend);
	address_format(&p.src, own);
	for (uint32_t k = 0; k < 400; k++) {
		struct frame_spec spec = { .src = backend,
			.dst = own,
			.is_v6 = p.is_v6,
			.protocol = k % 4 == 3 ? NET_PROTO_UDP : NET_PROTO_TCP,
			.src_port = rte_be_to_cpu_16(p.dst_port),
			.dst_port = rte_be_to_cpu_16(p.src_port),
			.tcp_flags = k % 2 ? TCP_ACK : TCP_RST,
			.n_payload = 8 };
		char text[ADDRESS_TEXT_LEN];
		if (k % 2)
			spec.src_port = (uint16_t)(1 + k);
		else
			spec.src = (snprintf(text, sizeof(text),
					    p.is_v6 ? "2001:db8:9::%x" : "10.9.1.%u", k % 250 + 1),
				text);
		uint8_t bytes[2][FRAME_MAX];
		struct rte_mbuf *mbufs[2] = { frame_mbuf(bytes[0], frame_build(&spec, bytes[0])),
			reply_to(out, TCP_SYN | TCP_ACK, bytes[1]) };
		bool alone = k % 3 == 0;
		b.n = alone ? 1 : 2;
		b.mbufs[k % 2 && !alone] = mbufs[0];
		if (!alone)
			b.mbufs[!(k % 2)] = mbufs[1];
		struct pipeline *pipe = &w.workers[0];
		pipe->now_ns = w.now_ns;
		pipe->now_s = (uint32_t)(w.now_ns / CLOCK_S);
		pipeline_run(pipe, &b);
		for (uint32_t i = 0; i < b.n; i++) {
			bool stranger = b.mbufs[i] == mbufs[0];
			assert_int_equal(b.verdict[i], stranger ? PIPELINE_DROP : PIPELINE_FORWARD);
			if (stranger)
				assert_int_equal(b.reason[i], DROP_NO_FLOW_QUIET);
		}
		frame_mbuf_destroy(mbufs[0]);
		frame_mbuf_destroy(mbufs[1]);
	}
	assert_int_equal(w.workers[0].flows.n_flows, 1);
	frame_mbuf_destroy(out);
	world_fini(&w);
}

// Two packets of one new flow in one burst make one flow; a whole burst of them keeps its order and verdicts.
static void one_burst_one_flow(void **state)
{
	static struct burst b;
	struct world w;
	world_init(&w, 1000, 1024, 65535);
	uint8_t frame[FRAME_MAX];
	struct flow_case c = { .client = "100.64.0.1", .port = 5000, .protocol = NET_PROTO_UDP };
	b.n = BURST_MAX;
	for (uint32_t i = 0; i < b.n; i++) {
		c.port = (uint16_t)(5000 + i / 2);
		b.mbufs[i] = case_frame(&c, 0, frame);
		b.in_port[i] = 0;
		b.hops[i] = 0;
	}
	struct pipeline *p = &w.workers[0];
	p->now_ns = w.now_ns;
	pipeline_run(p, &b);
	assert_int_equal(p->flows.n_flows, BURST_MAX / 2);
	for (uint32_t i = 0; i < b.n; i++) {
		assert_int_equal(b.verdict[i], PIPELINE_FORWARD);
		assert_int_equal(b.flow_idx[i], b.flow_idx[i & ~1u]);
		frame_mbuf_destroy(b.mbufs[i]);
	}
	world_fini(&w);
}

// More SYNs than the table holds: embryonic flows give way, a confirmed one is kept.
static void pressure_keeps_confirmed_flows(void **state)
{
	static struct burst b;
	struct world w;
	world_init(&w, 256, 1024, 65535);
	uint64_t seed = 5;
	uint8_t frame[FRAME_MAX], back[FRAME_MAX];
	struct flow_case good = { .client = "100.64.0.1", .port = 7777, .protocol = NET_PROTO_TCP };
	struct rte_mbuf *mbuf = case_frame(&good, TCP_SYN, frame);
	run_frame(&w, 0, &b, mbuf);
	struct rte_mbuf *reply = reply_to(mbuf, TCP_SYN | TCP_ACK, back);
	run_frame(&w, 0, &b, reply);
	frame_mbuf_destroy(mbuf);
	frame_mbuf_destroy(reply);
	mbuf = case_frame(&good, TCP_ACK, frame);
	run_frame(&w, 0, &b, mbuf);
	frame_mbuf_destroy(mbuf);
	uint32_t n_forwarded = 0;
	for (int k = 0; k < 5000; k++) {
		struct flow_case c = case_random(&seed);
		c.protocol = NET_PROTO_TCP;
		mbuf = case_frame(&c, TCP_SYN, frame);
		run_frame(&w, 0, &b, mbuf);
		n_forwarded += b.verdict[0] == PIPELINE_FORWARD;
		frame_mbuf_destroy(mbuf);
	}
	assert_int_equal(n_forwarded, 5000);
	assert_true(w.counters[0].values[COUNTER_FLOWS_EVICTED] > 4000);
	mbuf = case_frame(&good, TCP_ACK, frame);
	run_frame(&w, 0, &b, mbuf);
	assert_int_equal(b.verdict[0], PIPELINE_FORWARD);
	frame_mbuf_destroy(mbuf);
	world_fini(&w);
}

// Few source ports: refused by name when they are gone, given again when flows end.
static void ports_run_out_by_name(void **state)
{
	static struct burst b;
	struct world w;
	world_init(&w, 20000, 2048, 2048 + 127); // two blocks: 64 ports a worker and ring
	world_publish(&w, 1);
	uint8_t frame[FRAME_MAX];
	uint32_t n_forwarded = 0;
	for (uint16_t k = 0; k < 100; k++) {
		struct flow_case c = { .client = "100.64.0.2",
			.port = (uint16_t)(3000 + k),
			.protocol = NET_PROTO_UDP };
		struct rte_mbuf *mbuf = case_frame(&c, 0, frame);
		run_frame(&w, 0, &b, mbuf);
		n_forwarded += b.verdict[0] == PIPELINE_FORWARD;
		if (b.verdict[0] != PIPELINE_FORWARD)
			assert_int_equal(b.reason[0], DROP_SNAT_EXHAUSTED);
		else // answered, so that it does not give way to the next one
			flow_set_state(&w.workers[0].flows, b.flow_idx[0], FLOW_STATE_UDP_TWOWAY);
		frame_mbuf_destroy(mbuf);
	}
	assert_int_equal(n_forwarded, 64);
	w.now_ns += 3600 * CLOCK_S;
	w.workers[0].now_s = (uint32_t)(w.now_ns / CLOCK_S);
	for (int k = 0; k < 200; k++)
		pipeline_housekeep(&w.workers[0], 256);
	assert_int_equal(w.workers[0].flows.n_flows, 0);
	struct flow_case c = { .client = "100.64.0.2", .port = 9, .protocol = NET_PROTO_UDP };
	struct rte_mbuf *mbuf = case_frame(&c, 0, frame);
	run_frame(&w, 0, &b, mbuf);
	assert_int_equal(b.verdict[0], PIPELINE_FORWARD);
	frame_mbuf_destroy(mbuf);
	world_fini(&w);
}

// One frame through worker 0, whatever becomes of it.
static void run_unsent(struct world *w, struct burst *b, struct rte_mbuf *mbuf)
{
	struct pipeline *p = &w->workers[0];
	p->now_ns = w->now_ns;
	p->now_s = (uint32_t)(w->now_ns / CLOCK_S);
	b->n = 1;
	b->mbufs[0] = mbuf;
	b->in_port[0] = 0;
	b->hops[0] = 0;
	pipeline_run(p, b);
}

// Next hops: a missing neighbour holds the packet, a missing route drops it, a new MAC is used by the next packet.
static void next_hops_change_under_flows(void **state)
{
	static struct burst b;
	struct world w;
	world_init(&w, 1000, 1024, 65535);
	uint8_t frame[FRAME_MAX];
	struct flow_case c = { .client = "100.64.0.3", .port = 4000, .protocol = NET_PROTO_UDP };
	struct nexthop_table table = { w.entries, 4 };
	struct mac second = { { 2, 0, 0, 0, 0, 9 } };
	struct rte_mbuf *mbuf = case_frame(&c, 0, frame);
	nexthop_store(&table, 0, &second, 0, NEXTHOP_INCOMPLETE);
	run_unsent(&w, &b, mbuf);
	assert_int_equal(b.verdict[0], PIPELINE_WAIT);
	frame_mbuf_destroy(mbuf);
	nexthop_store(&table, 0, &second, 0, NEXTHOP_VALID);
	mbuf = case_frame(&c, 0, frame);
	run_unsent(&w, &b, mbuf);
	assert_int_equal(b.verdict[0], PIPELINE_FORWARD);
	assert_memory_equal(frame_bytes(mbuf), second.bytes, 6);
	frame_mbuf_destroy(mbuf);
	struct nexthop_fib *none = nexthop_fib_create(NULL, 0, 2);
	struct snapshot *moved = snapshot_with_fib(w.snapshot, none, ++w.generation);
	w.workers[0].snapshot = moved;
	mbuf = case_frame(&c, 0, frame);
	run_unsent(&w, &b, mbuf);
	assert_int_equal(b.verdict[0], PIPELINE_DROP);
	assert_int_equal(b.reason[0], DROP_NO_ROUTE);
	frame_mbuf_destroy(mbuf);
	snapshot_destroy(moved);
	nexthop_fib_destroy(none);
	world_fini(&w);
}

// Good frames damaged at random, in bursts: every packet has one counted fate, nothing is read or written beyond (sanitizer).
static void damaged_frames_are_accounted(void **state)
{
	static struct burst b;
	struct world w;
	world_init(&w, 512, 1024, 65535);
	uint64_t seed = 31337;
	uint8_t frame[FRAME_MAX];
	struct pipeline *p = &w.workers[0];
	for (int round = 0; round < 600; round++) {
		b.n = 1 + (uint32_t)frame_random(&seed) % BURST_MAX;
		w.now_ns += frame_random(&seed) % CLOCK_S;
		p->now_ns = w.now_ns;
		p->now_s = (uint32_t)(w.now_ns / CLOCK_S);
		for (uint32_t i = 0; i < b.n; i++) {
			struct flow_case c = case_random(&seed);
			c.port = (uint16_t)(2000 + frame_random(&seed) % 50);
			static const uint8_t flags[] = { TCP_SYN, TCP_ACK, TCP_FIN, TCP_RST };
			struct rte_mbuf *whole =
				case_frame(&c, flags[frame_random(&seed) % 4], frame);
			size_t n = whole->data_len;
			frame_mbuf_destroy(whole);
			for (uint64_t d = frame_random(&seed) % 4; d > 0; d--)
				frame[frame_random(&seed) % n] ^=
					(uint8_t)(1 << frame_random(&seed) % 8);
			if (frame_random(&seed) % 5 == 0)
				n = 1 + frame_random(&seed) % n;
			b.mbufs[i] = frame_mbuf(frame, n);
			b.in_port[i] = 0;
			b.hops[i] = 0;
		}
		counters_add(p->counters, COUNTER_RECEIVED, b.n);
		pipeline_run(p, &b);
		for (uint32_t i = 0; i < b.n; i++) {
			if (b.verdict[i] == PIPELINE_FORWARD || b.verdict[i] == PIPELINE_REPLY)
				counters_add(p->counters, COUNTER_SENT, 1);
			else if (b.verdict[i] == PIPELINE_PUNT)
				counters_add(p->counters, COUNTER_PUNTED, 1);
			else if (b.verdict[i] == PIPELINE_RESTEER)
				counters_add(p->counters, COUNTER_RESTEERED_OUT, 1);
			frame_mbuf_destroy(b.mbufs[i]);
		}
		assert_int_equal(counters_imbalance(p->counters), 0);
		pipeline_housekeep(p, 64);
	}
	world_fini(&w);
}

// Replies of this worker's flows and of the other's in one burst, in no order: each goes where its port belongs, with the others'
// frames as they came, and what was in between loses nothing.
static void replies_are_told_apart(void **state)
{
	enum { N = BURST_MAX };
	static struct burst b;
	struct world w;
	world_init(&w, 512, 1024, 65535);
	uint64_t seed = 4711;
	uint8_t frame[FRAME_MAX], back[FRAME_MAX];
	uint16_t owners[N];
	struct flow_case cases[N];
	struct rte_mbuf *replies[N];
	for (int k = 0; k < N; k++) {
		cases[k] = case_random(&seed);
		owners[k] = (uint16_t)(frame_random(&seed) % WORKERS);
		struct rte_mbuf *mbuf = case_frame(&cases[k], TCP_SYN, frame);
		run_frame(&w, owners[k], &b, mbuf);
		assert_int_equal(b.verdict[0], PIPELINE_FORWARD);
		replies[k] = reply_to(mbuf, TCP_SYN | TCP_ACK, back);
		frame_mbuf_destroy(mbuf);
	}
	for (int k = 0; k < N; k++) {
		b.mbufs[k] = replies[k];
		b.in_port[k] = b.hops[k] = 0;
	}
	b.n = N;
	pipeline_run(&w.workers[0], &b);
	for (int k = 0; k < N; k++) {
		struct packet p;
		struct address client = address_of(cases[k].client);
		packet_parse(replies[k], NULL, &p);
		assert_int_equal(
			b.verdict[k], owners[k] == 0 ? PIPELINE_FORWARD : PIPELINE_RESTEER);
		assert_true(address_equal(&p.dst, &client) == (owners[k] == 0));
		if (owners[k] == 0)
			assert_int_equal(rte_be_to_cpu_16(p.dst_port), cases[k].port);
		else
			assert_int_equal(b.out_port[k], owners[k]);
		frame_mbuf_destroy(replies[k]);
	}
	world_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(explain_agrees_with_the_path),
		cmocka_unit_test(flows_keep_their_backend),
		cmocka_unit_test(strangers_at_ports_in_use),
		cmocka_unit_test(one_burst_one_flow),
		cmocka_unit_test(pressure_keeps_confirmed_flows),
		cmocka_unit_test(ports_run_out_by_name),
		cmocka_unit_test(next_hops_change_under_flows),
		cmocka_unit_test(damaged_frames_are_accounted),
		cmocka_unit_test(replies_are_told_apart),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
