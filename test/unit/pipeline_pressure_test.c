// SPDX-License-Identifier: BSD-3-Clause
// Floods over the whole data path, in virtual time: what gives way when source ports or records run out, what is refused and
// by which name, and what is left when it ends.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "frames_priv.h"
#define BACKENDS 20 // with TCP and UDP more endpoints than there are rings
#include "world_priv.h"

#define GOOD_MAX 300

// A client that is being served: worker 0, TCP, IPv4.
struct good {
	uint16_t port;
	uint32_t backend_id;
	rte_be16_t snat_port;
};

static struct burst b;

static void run(struct world *w, struct rte_mbuf *mbuf)
{
	struct pipeline *p = &w->workers[0];
	p->now_ns = w->now_ns;
	p->now_s = (uint32_t)(w->now_ns / CLOCK_S);
	b.n = 1;
	b.mbufs[0] = mbuf;
	b.in_port[0] = 0;
	b.hops[0] = 0;
	pipeline_run(p, &b);
	frame_mbuf_destroy(mbuf);
}

static struct rte_mbuf *client_frame(const char *client, uint16_t port, uint8_t flags)
{
	uint8_t frame[FRAME_MAX];
	struct frame_spec spec = { .src = client,
		.dst = "203.0.113.10",
		.protocol = flags ? NET_PROTO_TCP : NET_PROTO_UDP,
		.src_port = port,
		.dst_port = flags ? 80 : 53,
		.tcp_flags = flags };
	return frame_mbuf(frame, frame_build(&spec, frame));
}

static struct rte_mbuf *flood_frame(uint64_t *seed, bool udp)
{
	uint64_t r = frame_random(seed);
	char client[32];
	snprintf(client, sizeof(client), "100.%u.%u.%u", (unsigned)(65 + (r >> 16) % 60),
		(unsigned)(r >> 8 & 255), (unsigned)(r & 255));
	return client_frame(client, (uint16_t)(1024 + (r >> 32) % 60000), udp ? 0 : TCP_SYN);
}

static struct rte_mbuf *backend_frame(const struct flow_record *r, uint8_t flags)
{
	uint8_t frame[FRAME_MAX];
	char src[ADDRESS_TEXT_LEN];
	address_format(&r->backend, src);
	struct frame_spec spec = { .src = src,
		.dst = "192.0.2.1",
		.protocol = NET_PROTO_TCP,
		.src_port = rte_be_to_cpu_16(r->backend_port),
		.dst_port = rte_be_to_cpu_16(r->snat_port),
		.tcp_flags = flags };
	return frame_mbuf(frame, frame_build(&spec, frame));
}

#define GOOD_CLIENT "100.64.0.1"

// A whole handshake. False when the SYN was refused.
static bool good_open(struct world *w, struct good *g, uint16_t port)
{
	run(w, client_frame(GOOD_CLIENT, port, TCP_SYN));
	if (b.verdict[0] != PIPELINE_FORWARD)
		return false;
	const struct flow_record *r = flow_record(&w->workers[0].flows, b.flow_idx[0]);
	*g = (struct good){ .port = port, .backend_id = r->backend_id, .snat_port = r->snat_port };
	run(w, backend_frame(r, TCP_SYN | TCP_ACK));
	assert_int_equal(b.verdict[0], PIPELINE_FORWARD);
	run(w, client_frame(GOOD_CLIENT, port, TCP_ACK));
	assert_int_equal(b.verdict[0], PIPELINE_FORWARD);
	assert_int_equal(r->state, FLOW_STATE_ESTABLISHED);
	return true;
}

// Its packets pass both ways, to and from the backend that it has had all along.
static void good_goes_on(struct world *w, const struct good *g)
{
	run(w, client_frame(GOOD_CLIENT, g->port, TCP_ACK | TCP_PSH));
	assert_int_equal(b.verdict[0], PIPELINE_FORWARD);
	assert_int_equal(b.backend_id[0], g->backend_id);
	const struct flow_record *r = flow_record(&w->workers[0].flows, b.flow_idx[0]);
	assert_int_equal(r->snat_port, g->snat_port);
	run(w, backend_frame(r, TCP_ACK));
	assert_int_equal(b.verdict[0], PIPELINE_FORWARD);
}

static void housekeep_pass(struct world *w)
{
	struct pipeline *p = &w->workers[0];
	p->now_ns = w->now_ns;
	p->now_s = (uint32_t)(w->now_ns / CLOCK_S);
	uint64_t n_sweeps = p->flows.n_sweeps;
	while (p->flows.n_sweeps == n_sweeps)
		pipeline_housekeep(p, 64);
}

static uint64_t exhausted(const struct world *w, uint32_t backend_id)
{
	return w->workers[0].backend_counters[backend_id].ports_exhausted;
}

// All source ports towards a backend held by SYNs of nobody: each new SYN takes the port of one, established ones keep theirs.
static void ports_are_taken_from_embryonic_flows(void **state)
{
	struct world w;
	struct good good[40];
	uint64_t seed = 1;
	world_init(&w, 20000, 2048, 2048 + 255); // 128 ports for worker 0
	world_publish(&w, 1);                    // one backend
	for (uint16_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_true(good_open(&w, &good[i], (uint16_t)(3000 + i)));
	for (uint32_t k = 0; k < 5000; k++) {
		run(&w, flood_frame(&seed, false));
		assert_int_equal(b.verdict[0], PIPELINE_FORWARD);
		w.now_ns += CLOCK_MS;
	}
	assert_int_equal(w.workers[0].flows.n_flows, 128);
	struct good late;
	assert_true(good_open(&w, &late, 9000));
	for (uint16_t i = 0; i < ARRAY_SIZE(good); i++)
		good_goes_on(&w, &good[i]);
	good_goes_on(&w, &late);
	assert_int_equal(w.counters[0].drops[DROP_SNAT_EXHAUSTED], 0);
	assert_int_equal(exhausted(&w, late.backend_id), 0);
	world_fini(&w);
}

// Backends share rings, and a ring is found full by one backend whose ports are all held by others: no matter whose they are.
static void ports_are_taken_from_any_flow_of_the_ring(void **state)
{
	struct world w;
	uint64_t seed = 2;
	world_init(&w, 20000, 2048, 2048 + 63 + 64); // 64 ports a ring
	for (uint32_t k = 0; k < 20000; k++) {
		run(&w, flood_frame(&seed, k % 3 == 0));
		assert_int_equal(b.verdict[0], PIPELINE_FORWARD);
	}
	// Then all of it goes to one backend, which had some of its ring.
	for (uint32_t mask = 1; mask < 1u << BACKENDS; mask <<= 1) {
		world_publish(&w, mask);
		for (uint32_t k = 0; k < 200; k++) {
			run(&w, flood_frame(&seed, k % 2 == 0));
			assert_int_equal(b.verdict[0], PIPELINE_FORWARD);
		}
	}
	// Forty endpoints: had each a ring of its own, there would be more flows.
	assert_true(w.workers[0].flows.n_flows <= SNAT_POOLS * 64);
	assert_int_equal(w.counters[0].drops[DROP_SNAT_EXHAUSTED], 0);
	world_fini(&w);
}

// Every port held by a confirmed flow: refused by name, counted for the backend, and nobody else is harmed.
static void confirmed_flows_keep_their_ports(void **state)
{
	struct world w;
	struct good good[64], late;
	world_init(&w, 20000, 2048, 2048 + 63 + 64);
	world_publish(&w, 1);
	for (uint16_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_true(good_open(&w, &good[i], (uint16_t)(3000 + i)));
	w.now_ns += 100 * CLOCK_S; // idle for long, but confirmed
	for (uint16_t i = 0; i < 10; i++) {
		assert_false(good_open(&w, &late, (uint16_t)(5000 + i)));
		assert_int_equal(b.verdict[0], PIPELINE_DROP);
		assert_int_equal(b.reason[0], DROP_SNAT_EXHAUSTED);
	}
	assert_int_equal(exhausted(&w, good[0].backend_id), 10);
	assert_int_equal(w.counters[0].values[COUNTER_FLOWS_EVICTED], 0);
	for (uint16_t i = 0; i < ARRAY_SIZE(good); i++)
		good_goes_on(&w, &good[i]);
	// UDP of the same service goes to another endpoint, hence to another ring.
	run(&w, client_frame(GOOD_CLIENT, 6000, 0));
	assert_int_equal(b.verdict[0], PIPELINE_FORWARD);
	assert_int_equal(exhausted(&w, b.backend_id[0]), 0);
	// One ends: its port need not rest when somebody waits for it.
	run(&w, client_frame(GOOD_CLIENT, good[5].port, TCP_RST | TCP_ACK));
	assert_true(good_open(&w, &late, 7000));
	assert_int_equal(late.snat_port, good[5].snat_port);
	assert_false(good_open(&w, &good[5], 7001));
	world_fini(&w);
}

// SYNs and UDP from everywhere, thirty seconds, many more than the table holds: each gets in, those who were there go on
// with their backend, the table does not grow, and a while later nothing of it is left.
static void a_flood_leaves_nothing_behind(void **state)
{
	static struct good good[GOOD_MAX];
	struct world w;
	uint64_t seed = 3;
	world_init(&w, 1000, 1024, 65535);
	uint64_t n_free = snat_n_free(w.workers[0].snat, 4);
	for (uint16_t i = 0; i < GOOD_MAX; i++)
		assert_true(good_open(&w, &good[i], (uint16_t)(3000 + i)));
	for (uint32_t second = 0; second < 30; second++, w.now_ns += CLOCK_S) {
		for (uint32_t k = 0; k < 2000; k++) {
			run(&w, flood_frame(&seed, k % 4 == 0));
			assert_int_equal(b.verdict[0], PIPELINE_FORWARD);
			assert_true(w.workers[0].flows.n_flows <= 1000);
		}
		for (uint16_t i = second % 10; i < GOOD_MAX; i += 10) // every ten seconds each
			good_goes_on(&w, &good[i]);
		if (second % 8 == 0)
			housekeep_pass(&w);
	}
	struct counters *c = &w.counters[0];
	assert_int_equal(c->drops[DROP_FLOW_TABLE_FULL], 0);
	assert_int_equal(c->drops[DROP_SNAT_EXHAUSTED], 0);
	w.now_ns += 11 * CLOCK_S;
	housekeep_pass(&w);
	assert_int_equal(w.workers[0].flows.n_flows, GOOD_MAX);
	assert_int_equal(snat_n_free(w.workers[0].snat, 4), n_free - GOOD_MAX);
	for (uint16_t i = 0; i < GOOD_MAX; i++)
		good_goes_on(&w, &good[i]);
	assert_int_equal(c->values[COUNTER_FLOWS_CREATED],
		c->values[COUNTER_FLOWS_EVICTED] + c->values[COUNTER_FLOWS_EXPIRED] +
			c->values[COUNTER_FLOWS_CLOSED] + GOOD_MAX);
	world_fini(&w);
}

// Slices are bounded by what they end as well; what one does not come to, the next one does; nothing is passed over, and a pass
// is counted when it is over.
static void slices_end_a_bounded_number(void **state)
{
	struct world w;
	uint64_t seed = 4;
	world_init(&w, 2000, 1024, 65535);
	struct pipeline *p = &w.workers[0];
	for (uint32_t k = 0; k < 2000; k++)
		run(&w, flood_frame(&seed, false));
	assert_int_equal(p->flows.n_flows, 2000);
	for (uint32_t i = 0; i < 2000; i += 3) // a third stays
		flow_set_state(&p->flows, i, FLOW_STATE_ESTABLISHED);
	p->now_s += 12;
	uint64_t n_sweeps = p->flows.n_sweeps;
	uint32_t n_gone = 0, n_slices = 0, n_looked = 0;
	while (p->flows.n_sweeps == n_sweeps) {
		uint32_t n = pipeline_housekeep(p, 64);
		assert_in_range(n, 0, 10);
		assert_in_range(p->slice_done, 1, 64);
		n_gone += n;
		n_looked += p->slice_done;
		n_slices++;
	}
	assert_int_equal(n_gone, 2000 - 667);
	assert_int_equal(p->flows.n_flows, 667);
	assert_true(n_slices >= (2000 - 667) / 10);
	assert_in_range(n_looked, 2000, 2000 + 64);
	for (uint32_t i = 0; i < 2000; i++)
		assert_int_equal(flow_record(&p->flows, i)->state,
			i % 3 ? FLOW_STATE_FREE : FLOW_STATE_ESTABLISHED);
	assert_int_equal(w.counters[0].values[COUNTER_FLOWS_EXPIRED], 2000 - 667);
	world_fini(&w);
}

// The same of one-way entries; of three slices two are their table's, and none when it is empty.
static void oneway_slices_end_a_bounded_number(void **state)
{
	struct world w;
	uint64_t seed = 4;
	world_init(&w, 2000, 1024, 65535);
	w.shape.mode = SERVICE_MODE_IPIP;
	world_publish(&w, (1u << BACKENDS) - 1);
	struct pipeline *p = &w.workers[0];
	for (uint32_t k = 0; k < 1500; k++)
		run(&w, flood_frame(&seed, false));
	const uint32_t *n_entries = &p->oneway.families[0].n_entries;
	assert_int_equal(*n_entries, 1500);
	p->now_s += 100;
	uint64_t n_sweeps = p->oneway.n_sweeps;
	uint32_t n_gone = 0, n_slices = 0, n_turns = 0;
	for (; p->oneway.n_sweeps == n_sweeps; n_slices++) {
		uint32_t n = pipeline_housekeep(p, 48);
		assert_in_range(n, 0, 31);
		assert_in_range(p->slice_done, 1, 48);
		n_gone += n;
		n_turns += p->oneway_turn;
	}
	assert_int_equal(n_gone, 1500);
	assert_int_equal(*n_entries, 0);
	assert_true(n_slices >= 1500 / 31);
	assert_in_range(n_turns, n_slices * 2 / 3 - 1, n_slices * 2 / 3 + 1);
	for (uint32_t k = 0; k < 3; k++) {
		n_sweeps = p->oneway.n_sweeps;
		pipeline_housekeep(p, 48);
		assert_false(p->oneway_turn);
		assert_int_equal(
			p->oneway.n_sweeps, n_sweeps + 1); // over an empty table, by the way
	}
	assert_int_equal(w.counters[0].values[COUNTER_FLOWS_EXPIRED], 1500);
	world_fini(&w);
}

// The end of a pass that is under way does not count.
static void two_rounds_have_passes_of_both(struct pipeline *p)
{
	uint64_t until = p->n_rounds + 2;
	uint64_t flows_until = p->flows.n_sweeps + 1 + (p->flows.sweep_next != 0);
	uint64_t oneway_until = p->oneway.n_sweeps + 1 + (p->oneway.sweep_next != 0);
	while (p->n_rounds < until)
		pipeline_housekeep(p, 48);
	assert_true(p->flows.n_sweeps >= flows_until);
	assert_true(p->oneway.n_sweeps >= oneway_until);
}

// One table was empty for long, so its passes were many: they do not stand for those that come when it is not.
static void rounds_wait_for_both_tables(void **state)
{
	for (int flows_first = 0; flows_first < 2; flows_first++) {
		struct world w;
		uint64_t seed = 5;
		world_init(&w, 2000, 1024, 65535);
		struct pipeline *p = &w.workers[0];
		for (uint32_t turn = 0; turn < 2; turn++) {
			bool oneway = turn == (flows_first ? 1u : 0u);
			w.shape.mode = oneway ? SERVICE_MODE_IPIP : SERVICE_MODE_FULLNAT;
			world_publish(&w, (1u << BACKENDS) - 1);
			for (uint32_t k = 0; k < (turn ? 1500 : 100); k++)
				run(&w, flood_frame(&seed, false));
			for (uint32_t k = 0; turn == 0 && k < 3000; k++)
				pipeline_housekeep(p, 48);
		}
		assert_int_equal(p->flows.n_flows, flows_first ? 100 : 1500);
		two_rounds_have_passes_of_both(p);
		two_rounds_have_passes_of_both(p);
		world_fini(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ports_are_taken_from_embryonic_flows),
		cmocka_unit_test(ports_are_taken_from_any_flow_of_the_ring),
		cmocka_unit_test(confirmed_flows_keep_their_ports),
		cmocka_unit_test(a_flood_leaves_nothing_behind),
		cmocka_unit_test(slices_end_a_bounded_number),
		cmocka_unit_test(oneway_slices_end_a_bounded_number),
		cmocka_unit_test(rounds_wait_for_both_tables),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
