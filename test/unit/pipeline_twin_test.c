// SPDX-License-Identifier: BSD-3-Clause
// Two worlds get the same packets in the same order, one in bursts of 64 and the other one by one: whatever a burst does together,
// ahead or late, each packet's fate and what is left in the tables are the same. (Which source port a flow gets is not: within
// a burst some flows are opened behind others.)
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "frames_priv.h"
#include "world_priv.h"

#define BURSTS  400
#define CLIENTS 3 // of each family
#define PORTS   5

struct twin {
	struct world w;
	struct burst b;
	struct burst all; // of single packets: what became of each
	uint8_t hops[BURST_MAX];
};

// What a packet of the sequence is, for both worlds.
struct plan {
	struct frame_spec spec;
	struct flow_key answers; // it is the answer of this flow's backend, as the world has it
	bool is_answer;
	uint8_t hops;
	char src[ADDRESS_TEXT_LEN];
	char dst[ADDRESS_TEXT_LEN];
};

static void plan_client(struct plan *plan, uint64_t r, bool udp)
{
	static const uint8_t flags[] = { TCP_SYN, TCP_SYN, TCP_SYN, TCP_ACK, TCP_ACK | TCP_PSH,
		TCP_ACK, TCP_FIN | TCP_ACK, TCP_RST };
	bool is_v6 = (r >> 8 & 3) == 0;
	snprintf(plan->src, sizeof(plan->src), is_v6 ? "2001:db8:c::%u" : "100.64.0.%u",
		(unsigned)(r >> 12) % CLIENTS + 1);
	snprintf(plan->dst, sizeof(plan->dst), is_v6 ? "2001:db8:1::10" : "203.0.113.10");
	plan->spec = (struct frame_spec){
		.is_v6 = is_v6,
		.protocol = udp ? NET_PROTO_UDP : NET_PROTO_TCP,
		.src_port = (uint16_t)(2000 + (r >> 20) % PORTS),
		.dst_port = udp                   ? 53
			    : (r >> 50) % 32 == 0 ? 81
						  : 80,
		.tcp_flags = flags[r >> 28 & 7],
		.ttl = (r >> 32 & 31) == 0 ? 1 : 61,
		.n_payload = (uint16_t)((r >> 40 & 31) == 0 ? 1440 : r >> 40 & 63),
	};
}

// A dnat backend speaks by itself, perhaps on a flow that a packet before it in the burst begins.
static void plan_dnat(struct plan *plan, uint64_t r, bool udp)
{
	plan_client(plan, r, udp);
	memcpy(plan->dst, plan->src, sizeof(plan->dst));
	snprintf(plan->src, sizeof(plan->src), plan->spec.is_v6 ? "2001:db8:9::%u" : "10.9.0.%u",
		(unsigned)(r >> 33) % BACKENDS + 2);
	plan->spec.dst_port = plan->spec.src_port;
	plan->spec.src_port = udp ? 5353 : 8080;
}

static void plan_make(struct plan *plan, uint64_t *seed, const struct flow_table *table)
{
	uint64_t r = frame_random(seed);
	bool udp = (r >> 4 & 3) == 0;
	*plan = (struct plan){ .hops = r >> 6 & 1 };
	if ((r & 15) < 3 && table->n_used > 0) {
		const struct flow_record *flow = flow_record(table, (r >> 40) % table->n_used);
		plan->is_answer = flow->state != FLOW_STATE_FREE;
		plan->answers = flow_client_key(flow);
	}
	if ((r & 15) == 3)
		plan_dnat(plan, r, udp);
	else
		plan_client(plan, r, udp);
}

// From the backend of the flow, to whom it takes for its client. False: no such flow.
static bool answer_make(const struct world *w, const struct plan *plan, struct frame_spec *spec,
	char src[ADDRESS_TEXT_LEN], char dst[ADDRESS_TEXT_LEN])
{
	const struct pipeline *p = &w->workers[0];
	uint8_t side;
	uint32_t idx = flow_lookup(&p->flows, &plan->answers, &side);
	if (idx == FLOW_NONE)
		return false;
	const struct flow_record *r = flow_record(&p->flows, idx);
	const struct address *own = &w->snapshot->own[r->snat_slot].address;
	bool dnat = r->flags & FLOW_FLAG_DNAT;
	address_format(dnat ? own : &r->backend, src);
	address_format(dnat ? &r->backend : own, dst);
	spec->is_v6 = !address_is_v4(&r->backend);
	spec->protocol = r->protocol;
	spec->src_port = rte_be_to_cpu_16(dnat ? r->snat_port : r->backend_port);
	spec->dst_port = rte_be_to_cpu_16(dnat ? r->backend_port : r->snat_port);
	if (spec->tcp_flags == TCP_SYN)
		spec->tcp_flags = TCP_SYN | TCP_ACK;
	return true;
}

static struct rte_mbuf *plan_frame(const struct world *w, const struct plan *plan)
{
	uint8_t frame[FRAME_MAX];
	char src[ADDRESS_TEXT_LEN], dst[ADDRESS_TEXT_LEN];
	struct frame_spec spec = plan->spec;
	memcpy(src, plan->src, sizeof(src));
	memcpy(dst, plan->dst, sizeof(dst));
	if (plan->is_answer)
		assert_true(answer_make(w, plan, &spec, src, dst));
	spec.src = src;
	spec.dst = dst;
	return frame_mbuf_room(frame, frame_build(&spec, frame), 128, 128);
}

static void run(struct twin *t, struct burst *b)
{
	struct pipeline *p = &t->w.workers[0];
	p->now_ns = t->w.now_ns;
	p->now_s = (uint32_t)(t->w.now_ns / CLOCK_S);
	pipeline_run(p, b);
}

static void run_together(struct twin *t, const struct plan *plans)
{
	t->all.n = BURST_MAX;
	for (uint32_t i = 0; i < BURST_MAX; i++) {
		t->all.mbufs[i] = plan_frame(&t->w, &plans[i]);
		t->all.hops[i] = plans[i].hops;
	}
	run(t, &t->all);
}

// All frames are made first, as the other world's are.
static void run_one_by_one(struct twin *t, const struct plan *plans)
{
	struct burst *all = &t->all, *b = &t->b;
	for (uint32_t i = 0; i < BURST_MAX; i++)
		all->mbufs[i] = plan_frame(&t->w, &plans[i]);
	for (uint32_t i = 0; i < BURST_MAX; i++) {
		b->n = 1;
		b->mbufs[0] = all->mbufs[i];
		b->hops[0] = plans[i].hops;
		run(t, b);
		all->verdict[i] = b->verdict[0];
		all->reason[i] = b->reason[0];
		all->out_port[i] = b->out_port[0];
		all->nexthop[i] = b->nexthop[0];
		all->backend_id[i] = b->backend_id[0];
		all->listener_idx[i] = pipeline_listener(t->w.snapshot, b, 0);
	}
}

static void same_fates(
	const struct snapshot *s, const struct burst *x, const struct burst *y, bool same_bytes)
{
	for (uint32_t i = 0; i < BURST_MAX; i++) {
		assert_int_equal(x->verdict[i], y->verdict[i]);
		assert_int_equal(x->reason[i], y->reason[i]);
		assert_int_equal(x->backend_id[i], y->backend_id[i]);
		assert_int_equal(pipeline_listener(s, x, i), pipeline_listener(s, y, i));
		if (x->verdict[i] != PIPELINE_DROP && x->verdict[i] != PIPELINE_PUNT)
			assert_int_equal(x->out_port[i], y->out_port[i]);
		if (x->verdict[i] == PIPELINE_FORWARD)
			assert_int_equal(x->nexthop[i], y->nexthop[i]);
		assert_int_equal(x->mbufs[i]->pkt_len, y->mbufs[i]->pkt_len);
		if (same_bytes)
			assert_memory_equal(frame_bytes(x->mbufs[i]), frame_bytes(y->mbufs[i]),
				x->mbufs[i]->pkt_len);
	}
}

static void same_tables(const struct world *x, const struct world *y)
{
	const struct pipeline *p = &x->workers[0], *q = &y->workers[0];
	assert_int_equal(p->flows.n_flows, q->flows.n_flows);
	for (uint32_t i = 0; i < p->flows.n_used; i++) {
		const struct flow_record *r = flow_record(&p->flows, i);
		struct flow_key key = flow_client_key(r);
		uint8_t side;
		if (r->state == FLOW_STATE_FREE)
			continue;
		uint32_t idx = flow_lookup(&q->flows, &key, &side);
		assert_int_not_equal(idx, FLOW_NONE);
		assert_int_equal(r->state, flow_record(&q->flows, idx)->state);
		assert_int_equal(r->stamp_s, flow_record(&q->flows, idx)->stamp_s);
		assert_int_equal(r->backend_id, flow_record(&q->flows, idx)->backend_id);
	}
	for (uint32_t v = 0; v < 2; v++)
		assert_int_equal(p->oneway.families[v].n_entries, q->oneway.families[v].n_entries);
	assert_int_equal(snat_n_free(p->snat, 4), snat_n_free(q->snat, 4));
	assert_int_equal(snat_n_free(p->snat, 6), snat_n_free(q->snat, 6));
	for (uint32_t id = 0; id < x->snapshot->n_backends; id++)
		assert_memory_equal(&p->backend_counters[id], &q->backend_counters[id],
			offsetof(struct pipeline_backend_counters, ways));
	for (uint32_t c = 0; c < COUNTER_MAX; c++)
		if (c != COUNTER_FLOW_HITS && c != COUNTER_FLOW_MISSES)
			assert_int_equal(p->counters->values[c], q->counters->values[c]);
	assert_memory_equal(p->counters->drops, q->counters->drops, sizeof(p->counters->drops));
}

// Some backends are there now and then, and some of those are to be reset.
static void change(struct twin twins[2], uint64_t *seed)
{
	uint64_t r = frame_random(seed);
	for (uint32_t k = 0; k < 2; k++) {
		struct world *w = &twins[k].w;
		w->now_ns += (200 + (r >> 8) % 4000) * CLOCK_MS;
		if (r % 4 == 0)
			world_publish(w, (uint32_t)(r >> 32) % ((1u << BACKENDS) - 1) + 1);
		if (r % 8 == 0)
			world_reset_backend(w, (uint32_t)(r >> 40) % w->snapshot->n_backends);
	}
}

static void check(struct world_shape shape, bool same_bytes)
{
	static struct twin twins[2];
	static struct plan plans[BURST_MAX];
	uint64_t seed = 11 + shape.mode;
	uint32_t n_forwarded = 0;
	for (uint32_t k = 0; k < 2; k++) {
		memset(&twins[k], 0, sizeof(twins[k]));
		world_init(&twins[k].w, 1024, 1024, 65535);
		twins[k].w.shape = shape;
		world_publish(&twins[k].w, (1u << BACKENDS) - 1);
	}
	for (uint32_t n = 0; n < BURSTS; n++) {
		for (uint32_t i = 0; i < BURST_MAX; i++)
			plan_make(&plans[i], &seed, &twins[0].w.workers[0].flows);
		run_together(&twins[0], plans);
		run_one_by_one(&twins[1], plans);
		same_fates(twins[0].w.snapshot, &twins[0].all, &twins[1].all, same_bytes);
		same_tables(&twins[0].w, &twins[1].w);
		for (uint32_t i = 0; i < BURST_MAX; i++) {
			n_forwarded += twins[0].all.verdict[i] == PIPELINE_FORWARD;
			frame_mbuf_destroy(twins[0].all.mbufs[i]);
			frame_mbuf_destroy(twins[1].all.mbufs[i]);
		}
		change(twins, &seed);
	}
	assert_true(n_forwarded > BURSTS * BURST_MAX / 8);
	world_fini(&twins[0].w);
	world_fini(&twins[1].w);
}

static void fullnat(void **state)
{
	check((struct world_shape){ 0 }, false);
}

static void fullnat_with_affinity(void **state)
{
	check((struct world_shape){ .affinity_s = 60 }, false);
}

static void dnat(void **state)
{
	check((struct world_shape){ .mode = SERVICE_MODE_DNAT }, true);
}

static void ipip(void **state)
{
	check((struct world_shape){ .mode = SERVICE_MODE_IPIP }, true);
}

static void gue_with_affinity(void **state)
{
	check((struct world_shape){ .mode = SERVICE_MODE_GUE, .affinity_s = 60 }, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fullnat),
		cmocka_unit_test(fullnat_with_affinity),
		cmocka_unit_test(dnat),
		cmocka_unit_test(ipip),
		cmocka_unit_test(gue_with_affinity),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
