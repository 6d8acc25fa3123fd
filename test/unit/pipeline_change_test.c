// SPDX-License-Identifier: BSD-3-Clause
// Flows that end, change hands or outlive what they were made from: within one burst, over many FIBs, over changes of
// their service.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "frames_priv.h"
#include "world_priv.h"

static struct rte_mbuf *client_frame(uint16_t port, uint8_t tcp_flags)
{
	uint8_t frame[FRAME_MAX];
	struct frame_spec spec = { .src = "100.64.0.1",
		.dst = "203.0.113.10",
		.protocol = NET_PROTO_TCP,
		.src_port = port,
		.dst_port = 80,
		.tcp_flags = tcp_flags };
	return frame_mbuf(frame, frame_build(&spec, frame));
}

static struct rte_mbuf *backend_frame(const struct flow_record *r, uint8_t tcp_flags)
{
	uint8_t frame[FRAME_MAX];
	char src[ADDRESS_TEXT_LEN];
	address_format(&r->backend, src);
	struct frame_spec spec = { .src = src,
		.dst = "192.0.2.1",
		.protocol = NET_PROTO_TCP,
		.src_port = rte_be_to_cpu_16(r->backend_port),
		.dst_port = rte_be_to_cpu_16(r->snat_port),
		.tcp_flags = tcp_flags };
	return frame_mbuf(frame, frame_build(&spec, frame));
}

static void run_burst(struct world *w, struct burst *b, uint32_t n)
{
	struct pipeline *p = &w->workers[0];
	p->now_ns = w->now_ns;
	p->now_s = (uint32_t)(w->now_ns / CLOCK_S);
	b->n = n;
	memset(b->in_port, 0, sizeof(b->in_port));
	memset(b->hops, 0, sizeof(b->hops));
	pipeline_run(p, b);
}

static void free_burst(struct burst *b)
{
	for (uint32_t i = 0; i < b->n; i++)
		frame_mbuf_destroy(b->mbufs[i]);
}

static void run_one(struct world *w, struct burst *b, struct rte_mbuf *mbuf)
{
	b->mbufs[0] = mbuf;
	run_burst(w, b, 1);
	assert_int_equal(b->verdict[0], PIPELINE_FORWARD);
	free_burst(b);
}

static uint16_t source_port(const struct rte_mbuf *mbuf)
{
	struct packet p;
	packet_parse(mbuf, NULL, &p);
	assert_int_equal(p.kind, PACKET_FLOW);
	return rte_be_to_cpu_16(p.src_port);
}

// The only flow of worker 0, established.
static struct flow_record *establish(struct world *w, struct burst *b)
{
	run_one(w, b, client_frame(5000, TCP_SYN));
	struct flow_record *r = flow_record(&w->workers[0].flows, 0);
	run_one(w, b, backend_frame(r, TCP_SYN | TCP_ACK));
	run_one(w, b, client_frame(5000, TCP_ACK));
	assert_int_equal(r->state, FLOW_STATE_ESTABLISHED);
	return r;
}

static void answer_flow(struct world *w, struct burst *b, bool is_v6)
{
	const struct flow_record *r = flow_record(&w->workers[0].flows, b->flow_idx[0]);
	char backend[ADDRESS_TEXT_LEN], own[ADDRESS_TEXT_LEN];
	uint8_t frame[FRAME_MAX];
	struct frame_spec spec = { .is_v6 = is_v6,
		.src = address_format(&r->backend, backend),
		.dst = address_format(&w->snapshot->own[r->snat_slot].address, own),
		.protocol = NET_PROTO_TCP,
		.src_port = rte_be_to_cpu_16(r->backend_port),
		.dst_port = rte_be_to_cpu_16(r->snat_port),
		.tcp_flags = TCP_SYN | TCP_ACK };
	run_one(w, b, frame_mbuf(frame, frame_build(&spec, frame)));
}

// The way of an established flow's packet writes its Ethernet header otherwise than that of the first one.
static void ethernet_header_stays_the_same(void **state)
{
	static struct burst b;
	for (int is_v6 = 0; is_v6 < 2; is_v6++) {
		struct world w;
		uint8_t frame[FRAME_MAX], first[sizeof(struct eth_header)];
		struct frame_spec spec = { .is_v6 = is_v6,
			.src = is_v6 ? "2001:db8:7::1" : "198.51.100.7",
			.dst = is_v6 ? "2001:db8:1::10" : "203.0.113.10",
			.protocol = NET_PROTO_TCP,
			.src_port = 5000,
			.dst_port = 80 };
		world_init(&w, 1000, 1024, 65535);
		for (uint32_t k = 0; k < 3; k++) {
			spec.tcp_flags = k == 0 ? TCP_SYN : TCP_ACK;
			b.mbufs[0] = frame_mbuf(frame, frame_build(&spec, frame));
			run_burst(&w, &b, 1);
			assert_int_equal(b.verdict[0], PIPELINE_FORWARD);
			if (k == 0)
				memcpy(first, frame_bytes(b.mbufs[0]), sizeof(first));
			assert_memory_equal(frame_bytes(b.mbufs[0]), first, sizeof(first));
			free_burst(&b);
			if (k == 0)
				answer_flow(&w, &b, is_v6);
		}
		assert_int_equal(first[12] << 8 | first[13], is_v6 ? 0x86dd : 0x0800);
		world_fini(&w);
	}
}

// A flow that is to be reset ends once, however many of its packets are in the burst.
static void reset_ends_a_flow_once(void **state)
{
	static struct burst b;
	struct world w;
	world_init(&w, 1000, 1024, 65535);
	struct flow_record *r = establish(&w, &b);
	world_reset_backend(&w, r->backend_id);
	for (uint32_t i = 0; i < 4; i++)
		b.mbufs[i] = client_frame(5000, TCP_ACK);
	run_burst(&w, &b, 4);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(b.verdict[i], PIPELINE_REPLY);
	assert_int_equal(w.workers[0].flows.n_flows, 0);
	assert_int_equal(w.counters[0].values[COUNTER_FLOWS_CLOSED], 1);
	free_burst(&b);
	world_fini(&w);
}

// The last segment of a closed flow and the SYN that uses its port again, in one burst: each goes with its own flow.
static void last_segment_stays_with_its_flow(void **state)
{
	static struct burst b;
	struct world w;
	world_init(&w, 1000, 1024, 65535);
	struct flow_record *r = establish(&w, &b);
	run_one(&w, &b, client_frame(5000, TCP_RST));
	assert_int_equal(r->state, FLOW_STATE_CLOSED);
	uint16_t before = rte_be_to_cpu_16(r->snat_port);
	b.mbufs[0] = client_frame(5000, TCP_ACK);
	b.mbufs[1] = client_frame(5000, TCP_SYN);
	run_burst(&w, &b, 2);
	assert_int_equal(b.verdict[0], PIPELINE_FORWARD);
	assert_int_equal(b.verdict[1], PIPELINE_FORWARD);
	assert_int_equal(source_port(b.mbufs[0]), before);
	assert_int_not_equal(source_port(b.mbufs[1]), before);
	free_burst(&b);
	world_fini(&w);
}

// A burst of SYNs larger than the table: flows of the same burst give way to each other, no packet leaves as another's.
static void eviction_within_a_burst(void **state)
{
	static struct burst b;
	struct world w;
	world_init(&w, 4, 1024, 65535);
	world_publish(&w, 1); // one backend: source ports must differ
	for (uint32_t i = 0; i < 16; i++)
		b.mbufs[i] = client_frame((uint16_t)(6000 + i), TCP_SYN);
	run_burst(&w, &b, 16);
	for (uint32_t i = 0; i < 16; i++) {
		assert_int_equal(b.verdict[i], PIPELINE_FORWARD);
		for (uint32_t k = 0; k < i; k++)
			assert_int_not_equal(source_port(b.mbufs[i]), source_port(b.mbufs[k]));
	}
	free_burst(&b);
	world_fini(&w);
}

static struct nexthop_fib *fib_by_entry(uint16_t nexthop, uint32_t generation)
{
	struct nexthop_route routes[2] = {
		{ .prefix = { address_from_v4(0), 0 }, .nexthop = nexthop }, { .nexthop = nexthop }
	};
	return nexthop_fib_create(routes, 2, generation);
}

// A flow keeps low bits of the FIB's generation. One that sleeps while they come round must not believe its next hop, which may
// be another neighbour's by now: the sweep makes it look again.
static void generation_comes_round(void **state)
{
	static struct burst b;
	struct world w;
	world_init(&w, 1000, 1024, 65535);
	struct nexthop_table table = { w.entries, 4 };
	struct mac second = { { 2, 0, 0, 0, 0, 9 } };
	nexthop_store(&table, 1, &second, 0, NEXTHOP_VALID);
	static const uint32_t rounds[] = { 255, 256, 510, 512, 65536 };
	for (uint32_t i = 0; i < ARRAY_SIZE(rounds); i++) {
		uint16_t port = (uint16_t)(5000 + i);
		run_one(&w, &b, client_frame(port, TCP_SYN));
		struct nexthop_fib *fibs[2] = { fib_by_entry(1, 2),
			fib_by_entry(1, 1 + rounds[i]) };
		struct snapshot *was = w.snapshot, *next[2];
		for (int k = 0; k < 2; k++) {
			next[k] = snapshot_with_fib(was, fibs[k], ++w.generation);
			w.workers[0].snapshot = next[k];
			if (k == 0)
				pipeline_housekeep(&w.workers[0], 256);
		}
		b.mbufs[0] = client_frame(port, TCP_SYN);
		run_burst(&w, &b, 1);
		assert_int_equal(b.verdict[0], PIPELINE_FORWARD);
		assert_memory_equal(frame_bytes(b.mbufs[0]), second.bytes, 6);
		free_burst(&b);
		w.workers[0].snapshot = was;
		for (int k = 0; k < 2; k++) {
			snapshot_destroy(next[k]);
			nexthop_fib_destroy(fibs[k]);
		}
	}
	world_fini(&w);
}

// The index of a timeout policy is given to other timeouts when no flow can hold it: so a live flow takes over the policy
// that its listener has now.
static void live_flow_takes_the_new_policy(void **state)
{
	static struct burst b;
	struct world w;
	world_init(&w, 1000, 1024, 65535);
	struct flow_record *r = establish(&w, &b);
	const struct snapshot_backend *backend = &w.snapshot->backends[r->backend_id];
	struct snapshot_listener *l =
		(struct snapshot_listener *)&w.snapshot->listeners[backend->listener_idx];
	l->policy = (uint8_t)(r->policy + 1);
	w.now_ns += CLOCK_S;
	run_one(&w, &b, client_frame(5000, TCP_ACK));
	assert_int_equal(r->policy, l->policy);
	run_one(&w, &b,
		client_frame(5000, TCP_ACK)); // and with every packet it is known whose it is
	assert_int_equal(pipeline_listener(w.snapshot, &b, 0), backend->listener_idx);
	world_fini(&w);
}

// Once no service has the VIP, its slot is given away after the idle timeout: a backend that goes on sending must not keep
// the flow beyond that.
static void flow_of_a_removed_vip_ages(void **state)
{
	static struct burst b;
	struct world w;
	world_init(&w, 1000, 1024, 65535);
	struct flow_record *r = establish(&w, &b);
	uint32_t stamp_s = r->stamp_s;
	w.now_ns += 2 * CLOCK_S;
	run_one(&w, &b, backend_frame(r, TCP_ACK));
	assert_int_equal(r->stamp_s, stamp_s + 2);
	struct snapshot_own *own = (struct snapshot_own *)w.snapshot->own;
	own[r->vip_slot].kind = SNAPSHOT_OWN_NONE;
	w.now_ns += 2 * CLOCK_S;
	run_one(&w, &b, backend_frame(r, TCP_ACK));
	assert_int_equal(r->stamp_s, stamp_s + 2);
	world_fini(&w);
}

// Fragments to a source address that is the host's too: of TCP and UDP they may be ours, all others are the kernel's.
static void fragments_of_the_kernel_are_punted(void **state)
{
	static struct burst b;
	struct world w;
	world_init(&w, 1000, 1024, 65535);
	static const uint8_t protocols[] = { NET_PROTO_ICMP, NET_PROTO_UDP, NET_PROTO_TCP, 47 };
	uint8_t frame[FRAME_MAX];
	for (uint32_t i = 0; i < ARRAY_SIZE(protocols); i++) {
		struct frame_spec spec = { .dst = "192.0.2.1",
			.protocol = protocols[i],
			.icmp_type = 8,
			.v4_fragment = RTE_BE16(0x2000),
			.n_payload = protocols[i] == NET_PROTO_TCP ? 68 : 64 };
		b.mbufs[i] = frame_mbuf(frame, frame_build(&spec, frame));
	}
	run_burst(&w, &b, ARRAY_SIZE(protocols));
	for (uint32_t i = 0; i < ARRAY_SIZE(protocols); i++) {
		bool ours = protocols[i] == NET_PROTO_TCP || protocols[i] == NET_PROTO_UDP;
		assert_int_equal(b.verdict[i], ours ? PIPELINE_DROP : PIPELINE_PUNT);
		if (ours)
			assert_int_equal(b.reason[i], DROP_FRAGMENT);
	}
	free_burst(&b);
	world_fini(&w);
}

// An ICMP error that is too long for the way out is not sent to vanish there, and never answered.
static void long_error_is_dropped_by_name(void **state)
{
	static struct burst b;
	struct world w;
	world_init(&w, 1000, 1024, 65535);
	struct flow_record *r = establish(&w, &b);
	uint8_t quoted[FRAME_MAX], frame[FRAME_MAX];
	char backend[ADDRESS_TEXT_LEN];
	address_format(&r->backend, backend);
	struct frame_spec inner = { .src = "192.0.2.1",
		.dst = backend,
		.src_port = rte_be_to_cpu_16(r->snat_port),
		.dst_port = rte_be_to_cpu_16(r->backend_port),
		.n_payload = 400 };
	size_t n = frame_build(&inner, quoted) - sizeof(struct eth_header);
	struct frame_spec outer = { .src = backend,
		.dst = "192.0.2.1",
		.protocol = NET_PROTO_ICMP,
		.icmp_type = 3,
		.icmp_code = 1,
		.payload = quoted + sizeof(struct eth_header),
		.n_payload = (uint16_t)n };
	n = frame_build(&outer, frame);
	run_one(&w, &b, frame_mbuf(frame, n));
	w.workers[0].ports[0].mtu = 400;
	b.mbufs[0] = frame_mbuf(frame, n);
	run_burst(&w, &b, 1);
	assert_int_equal(b.verdict[0], PIPELINE_DROP);
	assert_int_equal(b.reason[0], DROP_MTU_EXCEEDED);
	free_burst(&b);
	world_fini(&w);
}

// Verdict of one packet at worker 0 that `hops` workers had before.
static uint8_t verdict_of(struct world *w, struct burst *b, struct rte_mbuf *mbuf, uint8_t hops)
{
	struct pipeline *p = &w->workers[0];
	p->now_ns = w->now_ns;
	p->now_s = (uint32_t)(w->now_ns / CLOCK_S);
	b->n = 1;
	b->mbufs[0] = mbuf;
	b->in_port[0] = 0;
	b->hops[0] = hops;
	pipeline_run(p, b);
	free_burst(b);
	return b->verdict[0];
}

// An adopted flow lies at another worker than its client's packets come to: they are given on, once.
static void packets_follow_an_adopted_flow(void **state)
{
	static struct burst b;
	struct world w;
	world_init(&w, 1000, 1024, 65535);
	struct pipeline *p = &w.workers[0];
	struct flow_record *r =
		establish(&w, &b); // of client port 5000: becomes that of another worker
	struct flow_key key = flow_client_key(r);
	struct flow_directory *directory;
	size_t size = flow_directory_size(10);
	void *mem = aligned_alloc(64, size);
	assert_int_equal(flow_directory_init(mem, size, 10, &directory), 0);
	assert_true(flow_directory_add(directory, flow_hash(&p->flows, &key), 1));
	// Who has the flow, forwards.
	p->directory = directory;
	assert_int_equal(verdict_of(&w, &b, client_frame(5000, TCP_ACK), 0), PIPELINE_FORWARD);
	w.now_ns += 3600 * CLOCK_S;
	p->now_s = (uint32_t)(w.now_ns / CLOCK_S);
	while (p->flows.n_flows > 0)
		pipeline_housekeep(p, 64);
	assert_int_equal(verdict_of(&w, &b, client_frame(5000, TCP_ACK), 0), PIPELINE_RESTEER);
	assert_int_equal(b.out_port[0], 1);
	assert_int_equal(
		verdict_of(&w, &b, client_frame(5000, TCP_FIN | TCP_ACK), 0), PIPELINE_RESTEER);
	// Came from there: it has ended.
	assert_int_equal(verdict_of(&w, &b, client_frame(5000, TCP_ACK), 1), PIPELINE_REPLY);
	// Nobody's, or said to be this worker's own.
	assert_int_equal(verdict_of(&w, &b, client_frame(5001, TCP_ACK), 0), PIPELINE_REPLY);
	key.peer_port = RTE_BE16(5002);
	assert_true(flow_directory_add(directory, flow_hash(&p->flows, &key), 0));
	assert_int_equal(verdict_of(&w, &b, client_frame(5002, TCP_ACK), 0), PIPELINE_REPLY);
	assert_int_equal(verdict_of(&w, &b, client_frame(5000, TCP_SYN), 0), PIPELINE_RESTEER);
	assert_int_equal(verdict_of(&w, &b, client_frame(5001, TCP_SYN), 0), PIPELINE_FORWARD);
	assert_int_equal(verdict_of(&w, &b, client_frame(5000, TCP_SYN), 1), PIPELINE_FORWARD);
	free(mem);
	world_fini(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(packets_follow_an_adopted_flow),
		cmocka_unit_test(last_segment_stays_with_its_flow),
		cmocka_unit_test(eviction_within_a_burst),
		cmocka_unit_test(generation_comes_round),
		cmocka_unit_test(live_flow_takes_the_new_policy),
		cmocka_unit_test(flow_of_a_removed_vip_ages),
		cmocka_unit_test(ethernet_header_stays_the_same),
		cmocka_unit_test(reset_ends_a_flow_once),
		cmocka_unit_test(fragments_of_the_kernel_are_punted),
		cmocka_unit_test(long_error_is_dropped_by_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
