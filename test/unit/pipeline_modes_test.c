// SPDX-License-Identifier: BSD-3-Clause
// Each forwarding mode through the whole step: where packets go, what is remembered, what does not change.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "frames_priv.h"
#include "world_priv.h"

#define N_FLOWS 200

static struct rte_mbuf *client_frame(bool is_v6, uint16_t port, uint8_t flags)
{
	uint8_t frame[FRAME_MAX];
	struct frame_spec spec = { .src = is_v6 ? "2001:db8:c::1" : "100.64.0.1",
		.dst = is_v6 ? "2001:db8:1::10" : "203.0.113.10",
		.is_v6 = is_v6,
		.protocol = NET_PROTO_TCP,
		.src_port = port,
		.dst_port = 80,
		.tcp_flags = flags,
		.n_payload = 100 };
	return frame_mbuf_room(frame, frame_build(&spec, frame), 128, 0);
}

static struct burst *burst_create(void)
{
	struct burst *b = aligned_alloc(64, (sizeof(struct burst) + 63) & ~63ul);
	memset(b, 0, sizeof(*b));
	return b;
}

static void run(struct world *w, uint32_t worker, struct burst *b, struct rte_mbuf *mbuf)
{
	struct pipeline *p = &w->workers[worker];
	p->now_ns = w->now_ns;
	p->now_s = (uint32_t)(w->now_ns / CLOCK_S);
	b->n = 1;
	b->mbufs[0] = mbuf;
	pipeline_run(p, b);
}

// The worker that a packet of this client is settled by.
static uint32_t run_settled(struct world *w, struct burst *b, struct rte_mbuf *mbuf)
{
	b->hops[0] = 0;
	run(w, 0, b, mbuf);
	if (b->verdict[0] != PIPELINE_RESTEER)
		return 0;
	b->hops[0] = 1;
	uint32_t to = b->out_port[0];
	run(w, to, b, mbuf);
	return to;
}

static void start(struct world *w, enum service_mode mode)
{
	world_init(w, 1024, 1024, 65535);
	w->shape.mode = mode;
	world_publish(w, (1u << BACKENDS) - 1);
}

static uint32_t packets_of(const struct world *w)
{
	uint64_t n = 0;
	for (uint32_t k = 0; k < WORKERS; k++)
		for (uint32_t i = 0; i < 64; i++)
			n += w->workers[k].backend_counters[i].packets_in;
	return (uint32_t)n;
}

// Every packet of a flow to one backend, whatever happens to the others, and no byte of it changed.
static void check_oneway(enum service_mode mode, bool is_v6, uint32_t n_outer)
{
	struct world w;
	struct burst *b = burst_create();
	uint32_t backends[N_FLOWS], n_used = 0;
	start(&w, mode);
	for (uint32_t round = 0; round < 4; round++) {
		for (uint16_t i = 0; i < N_FLOWS; i++) {
			struct rte_mbuf *sent = client_frame(
				is_v6, (uint16_t)(2000 + i), round ? TCP_ACK : TCP_SYN);
			struct rte_mbuf *kept = client_frame(
				is_v6, (uint16_t)(2000 + i), round ? TCP_ACK : TCP_SYN);
			run_settled(&w, b, sent);
			assert_int_equal(b->verdict[0], PIPELINE_FORWARD);
			if (round == 0)
				backends[i] = b->backend_id[0];
			assert_int_equal(b->backend_id[0], backends[i]);
			assert_int_equal(sent->pkt_len, kept->pkt_len + n_outer);
			assert_memory_equal(rte_pktmbuf_mtod_offset(sent, char *, 14 + n_outer),
				rte_pktmbuf_mtod_offset(kept, char *, 14), kept->pkt_len - 14);
			frame_mbuf_destroy(sent);
			frame_mbuf_destroy(kept);
		}
		if (round == 1)
			world_publish(&w, (1u << (BACKENDS - 2)) - 1); // two are gone
		if (round == 2)
			world_publish(&w, (1u << BACKENDS) - 1);
	}
	for (uint32_t id = 0; id < 64; id++)
		n_used += w.workers[0].backend_counters[id].packets_in > 0;
	assert_true(n_used >= BACKENDS);
	assert_int_equal(packets_of(&w), 4 * N_FLOWS);
	assert_int_equal(w.workers[0].oneway.families[is_v6].n_entries, N_FLOWS);
	world_fini(&w);
	free(b);
}

static void test_ipip(void **state)
{
	check_oneway(SERVICE_MODE_IPIP, false, 20);
	check_oneway(SERVICE_MODE_IPIP, true, 40);
}

static void test_gue(void **state)
{
	check_oneway(SERVICE_MODE_GUE, false, 32);
	check_oneway(SERVICE_MODE_GUE, true, 52);
}

// l2dsr reaches who is on the link; the world's backends are behind a gateway.
static void test_l2dsr(void **state)
{
	struct world w;
	struct burst *b = burst_create();
	start(&w, SERVICE_MODE_L2DSR);
	struct rte_mbuf *mbuf = client_frame(false, 2000, TCP_SYN);
	run_settled(&w, b, mbuf);
	assert_int_equal(b->verdict[0], PIPELINE_DROP);
	assert_int_equal(b->reason[0], DROP_L2DSR_NOT_ON_LINK);
	frame_mbuf_destroy(mbuf);
	world_fini(&w);
	free(b);
}

// dnat: the backend sees the client, its answer becomes the VIP's, both at the same worker.
// The number of a backend whose flows are gone is given to another one: the way to the first is not taken for its.
static void test_number_given_again(void **state)
{
	struct world w;
	start(&w, SERVICE_MODE_IPIP);
	struct burst *b = burst_create();
	const struct nexthop_route routes[] = {
		{ .prefix = { address_of("10.9.0.2"), 32 }, .nexthop = 0 },
		{ .prefix = { address_of("10.9.0.3"), 32 }, .nexthop = 1 },
	};
	struct nexthop_table table = { w.entries, 4 };
	const struct mac macs[] = { { { 2, 0, 0, 0, 0, 8 } }, { { 2, 0, 0, 0, 0, 9 } } };
	uint32_t ids[2];
	nexthop_fib_destroy(w.fib);
	w.fib = nexthop_fib_create(routes, 2, 7);
	for (uint16_t k = 0; k < 2; k++) {
		nexthop_store(&table, k, &macs[k], 0, NEXTHOP_VALID);
		world_publish(&w, 0);
		snapshot_registry_release(w.registry, 2 * k);
		snapshot_registry_reclaim(w.registry, 2 * k + 1);
		world_publish(&w, 1u << k); // 10.9.0.2, then 10.9.0.3
		struct rte_mbuf *mbuf = client_frame(false, (uint16_t)(3000 + k), TCP_SYN);
		run_settled(&w, b, mbuf);
		assert_int_equal(b->verdict[0], PIPELINE_FORWARD);
		assert_memory_equal(rte_pktmbuf_mtod(mbuf, void *), &macs[k], sizeof(macs[k]));
		ids[k] = b->backend_id[0];
		frame_mbuf_destroy(mbuf);
	}
	assert_int_equal(ids[0], ids[1]);
	free(b);
	world_fini(&w);
}

static void check_dnat(bool is_v6)
{
	struct world w;
	struct burst *b = burst_create();
	start(&w, SERVICE_MODE_DNAT);
	for (uint16_t i = 0; i < N_FLOWS; i++) {
		struct rte_mbuf *mbuf = client_frame(is_v6, (uint16_t)(2000 + i), TCP_SYN);
		uint32_t owner = run_settled(&w, b, mbuf);
		assert_int_equal(b->verdict[0], PIPELINE_FORWARD);
		struct packet p;
		packet_parse(mbuf, NULL, &p);
		assert_int_equal(p.kind, PACKET_FLOW);
		assert_true(packet_l4_checksum_ok(mbuf, &p));
		assert_int_equal(p.dst_port, rte_cpu_to_be_16(8080));
		assert_int_equal(p.src_port, rte_cpu_to_be_16((uint16_t)(2000 + i)));
		char server[ADDRESS_TEXT_LEN];
		address_format(&p.dst, server);
		uint8_t frame[FRAME_MAX];
		struct frame_spec answer = { .src = server,
			.dst = is_v6 ? "2001:db8:c::1" : "100.64.0.1",
			.is_v6 = is_v6,
			.protocol = NET_PROTO_TCP,
			.src_port = 8080,
			.dst_port = (uint16_t)(2000 + i),
			.tcp_flags = TCP_SYN | TCP_ACK };
		struct rte_mbuf *back = frame_mbuf(frame, frame_build(&answer, frame));
		assert_int_equal(run_settled(&w, b, back), owner);
		assert_int_equal(b->verdict[0], PIPELINE_FORWARD);
		packet_parse(back, NULL, &p);
		struct address vip = address_of(is_v6 ? "2001:db8:1::10" : "203.0.113.10");
		assert_true(address_equal(&p.src, &vip));
		assert_int_equal(p.src_port, rte_cpu_to_be_16(80));
		assert_true(packet_l4_checksum_ok(back, &p));
		frame_mbuf_destroy(mbuf);
		frame_mbuf_destroy(back);
		// what the backend says to others is the kernel's
		answer.dst_port = 9;
		back = frame_mbuf(frame, frame_build(&answer, frame));
		run_settled(&w, b, back);
		assert_int_equal(b->verdict[0], PIPELINE_PUNT);
		frame_mbuf_destroy(back);
	}
	assert_int_equal(w.workers[0].flows.n_flows + w.workers[1].flows.n_flows, N_FLOWS);
	world_fini(&w);
	free(b);
}

static void test_dnat(void **state)
{
	check_dnat(false);
	check_dnat(true);
}

// Both sides of a flow that is gone speak in one burst, the client first: its packet makes the flow, and the backend's, which
// came behind it, is of that flow.
static void test_dnat_answer_behind_first(void **state)
{
	struct world w;
	struct burst *b = burst_create();
	uint8_t frame[FRAME_MAX];
	const struct frame_spec ask = { .src = "100.64.0.1",
		.dst = "203.0.113.10",
		.protocol = NET_PROTO_UDP,
		.src_port = 2000,
		.dst_port = 53 };
	const struct frame_spec answer = { .src = "10.9.0.2",
		.dst = "100.64.0.1",
		.protocol = NET_PROTO_UDP,
		.src_port = 5353,
		.dst_port = 2000 };
	start(&w, SERVICE_MODE_DNAT);
	world_publish(&w, 1); // one backend
	struct address client = address_of(ask.src), vip = address_of(ask.dst);
	struct pipeline *p = &w.workers[flow_owner_by_client(&client, WORKERS)];
	p->now_ns = w.now_ns;
	p->now_s = (uint32_t)(w.now_ns / CLOCK_S);
	b->n = 2;
	b->mbufs[0] = frame_mbuf(frame, frame_build(&ask, frame));
	b->mbufs[1] = frame_mbuf(frame, frame_build(&answer, frame));
	pipeline_run(p, b);
	assert_int_equal(b->verdict[0], PIPELINE_FORWARD);
	assert_int_equal(b->verdict[1], PIPELINE_FORWARD);
	assert_int_equal(p->flows.n_flows, 1);
	assert_int_equal(flow_record(&p->flows, b->flow_idx[0])->state, FLOW_STATE_UDP_TWOWAY);
	struct packet back;
	packet_parse(b->mbufs[1], NULL, &back);
	assert_true(address_equal(&back.src, &vip));
	assert_int_equal(back.src_port, rte_cpu_to_be_16(53));
	frame_mbuf_destroy(b->mbufs[0]);
	frame_mbuf_destroy(b->mbufs[1]);
	world_fini(&w);
	free(b);
}

// A client stays with its backend while that may take flows, also when the table says otherwise by now.
static void check_affinity(enum service_mode mode)
{
	struct world w;
	struct burst *b = burst_create();
	world_init(&w, 1024, 1024, 65535);
	w.shape = (struct world_shape){ .mode = mode, .affinity_s = 60 };
	world_publish(&w, 0x3);
	struct rte_mbuf *mbuf = client_frame(false, 2000, TCP_SYN);
	run_settled(&w, b, mbuf);
	uint32_t first = b->backend_id[0];
	frame_mbuf_destroy(mbuf);
	uint32_t n_same = 0;
	for (uint16_t i = 1; i < 50; i++) {
		world_publish(&w, 0x3 | (i * 7u & 0x3f)); // the first two and others
		w.now_ns += 30 * CLOCK_S;
		mbuf = client_frame(false, (uint16_t)(2000 + i), TCP_SYN);
		run_settled(&w, b, mbuf);
		n_same += b->backend_id[0] == first;
		frame_mbuf_destroy(mbuf);
	}
	assert_int_equal(n_same, 49);
	// Its backend goes away: another one, which is then kept when the first is back.
	uint32_t bit = 1u << (w.snapshot->backends[first].address.bytes[15] - 2);
	for (uint16_t i = 50; i < 90; i++) {
		world_publish(&w, i < 60 ? 0x3f & ~bit : 0x3f);
		mbuf = client_frame(false, (uint16_t)(2000 + i), TCP_SYN);
		run_settled(&w, b, mbuf);
		assert_int_not_equal(b->backend_id[0], first);
		frame_mbuf_destroy(mbuf);
	}
	// Forgotten after its time: what the hash says now, which is the first again with this set.
	w.now_ns += 61 * CLOCK_S;
	world_publish(&w, 0x3);
	mbuf = client_frame(false, 3000, TCP_SYN);
	run_settled(&w, b, mbuf);
	assert_int_equal(b->backend_id[0], first);
	frame_mbuf_destroy(mbuf);
	world_fini(&w);
	free(b);
}

static void test_affinity(void **state)
{
	check_affinity(SERVICE_MODE_FULLNAT);
	check_affinity(SERVICE_MODE_IPIP);
}

// Least connections evens out what the hash alone leaves uneven.
static void test_least_connections(void **state)
{
	uint64_t spread[2];
	for (int turn = 0; turn < 2; turn++) {
		struct world w;
		struct burst *b = burst_create();
		world_init(&w, 4096, 1024, 65535);
		w.shape.scheduler = turn ? SERVICE_LEAST_CONNECTIONS : SERVICE_MAGLEV;
		world_publish(&w, (1u << BACKENDS) - 1);
		for (uint16_t i = 0; i < 600; i++) {
			struct rte_mbuf *mbuf = client_frame(false, (uint16_t)(2000 + i), TCP_SYN);
			b->hops[0] = 0;
			run(&w, 0, b, mbuf);
			assert_int_equal(b->verdict[0], PIPELINE_FORWARD);
			frame_mbuf_destroy(mbuf);
		}
		uint64_t most = 0, least = UINT64_MAX;
		for (uint32_t id = 0; id < 64; id++) {
			uint64_t n = w.workers[0].backend_counters[id].flows_created;
			most = n > most ? n : most;
			least = n > 0 && n < least ? n : least;
		}
		spread[turn] = most - least;
		world_fini(&w);
		free(b);
	}
	assert_true(spread[1] <= 4);
	assert_true(spread[1] < spread[0]);
}

// Entries of worker 1, as adopted; their clients' packets come to worker 0: to the backends that they have, which no hash finds.
static void test_adopted_entries(void **state)
{
	struct world w;
	struct burst *b = burst_create();
	uint32_t backends[N_FLOWS];
	start(&w, SERVICE_MODE_IPIP);
	for (uint16_t i = 0; i < N_FLOWS; i++) {
		struct rte_mbuf *mbuf = client_frame(false, (uint16_t)(2000 + i), TCP_SYN);
		b->hops[0] = 0;
		run(&w, 1, b, mbuf);
		assert_int_equal(b->verdict[0], PIPELINE_FORWARD);
		backends[i] = b->backend_id[0];
		frame_mbuf_destroy(mbuf);
	}
	world_publish(&w, 1); // one backend stays listed, five are draining
	struct flow_directory *directory;
	size_t size = flow_directory_size(N_FLOWS);
	void *mem = aligned_alloc(64, size);
	assert_int_equal(flow_directory_init(mem, size, N_FLOWS, &directory), 0);
	const struct oneway_table *table = &w.workers[1].oneway;
	struct oneway_entry e;
	for (uint32_t ref = 0; ref < oneway_n_positions(table); ref++)
		if (oneway_copy(table, ref, &e))
			flow_directory_add(directory, flow_key_hash(&table->schedule, &e.key), 1);
	assert_int_equal(directory->n_flows, N_FLOWS);
	w.workers[0].directory = w.workers[1].directory = directory;
	for (uint16_t i = 0; i < N_FLOWS; i++) {
		struct rte_mbuf *mbuf = client_frame(false, (uint16_t)(2000 + i), TCP_ACK);
		assert_int_equal(run_settled(&w, b, mbuf), 1);
		assert_int_equal(b->verdict[0], PIPELINE_FORWARD);
		assert_int_equal(b->backend_id[0], backends[i]);
		frame_mbuf_destroy(mbuf);
	}
	// Somebody new stays where it comes.
	struct rte_mbuf *mbuf = client_frame(false, 9000, TCP_SYN);
	assert_int_equal(run_settled(&w, b, mbuf), 0);
	assert_int_equal(b->verdict[0], PIPELINE_FORWARD);
	frame_mbuf_destroy(mbuf);
	free(mem);
	world_fini(&w);
	free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ipip),
		cmocka_unit_test(test_gue),
		cmocka_unit_test(test_l2dsr),
		cmocka_unit_test(test_number_given_again),
		cmocka_unit_test(test_dnat),
		cmocka_unit_test(test_dnat_answer_behind_first),
		cmocka_unit_test(test_adopted_entries),
		cmocka_unit_test(test_affinity),
		cmocka_unit_test(test_least_connections),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
