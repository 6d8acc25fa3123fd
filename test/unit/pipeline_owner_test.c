// SPDX-License-Identifier: BSD-3-Clause
// A flow that another worker than the one its packets come to has: whatever changes meanwhile, it is found there, and not begun once more.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "frames_priv.h"
#include "world_priv.h"

#define N_CLIENTS 64

struct seen {
	uint32_t backend_id;
	rte_be16_t source_port; // as the backend sees it; of one-way modes the client's
};

static struct burst *burst_create(void)
{
	struct burst *b = aligned_alloc(64, (sizeof(struct burst) + 63) & ~63ul);
	memset(b, 0, sizeof(*b));
	return b;
}

static void start(struct world *w, struct world_shape shape)
{
	struct hash_key key = { { 3, 4 } };
	world_init(w, 1024, 1024, 65535);
	w->shape = shape;
	world_publish(w, (1u << BACKENDS) - 1);
	for (uint32_t i = 0; i < WORKERS; i++) {
		void *mem = aligned_alloc(64, fragments_size(64));
		assert_int_equal(
			fragments_init(mem, fragments_size(64), 64, &key, &w->workers[i].fragments),
			0);
	}
}

static void end(struct world *w)
{
	for (uint32_t i = 0; i < WORKERS; i++)
		free(w->workers[i].fragments);
	world_fini(w);
}

// Runs a packet that comes to `worker` until somebody keeps it; *out is what the backend gets to see. False: it was not forwarded.
static bool settle(
	struct world *w, struct burst *b, uint32_t worker, struct rte_mbuf *mbuf, struct seen *out)
{
	b->hops[0] = 0;
	do {
		struct pipeline *p = &w->workers[worker];
		p->now_ns = w->now_ns;
		p->now_s = (uint32_t)(w->now_ns / CLOCK_S);
		b->n = 1;
		b->in_port[0] = 0;
		b->mbufs[0] = mbuf;
		pipeline_run(p, b);
		worker = b->out_port[0];
	} while (b->verdict[0] == PIPELINE_RESTEER && ++b->hops[0] <= WORKERS);
	const uint8_t *frame = frame_bytes(mbuf);
	uint32_t l4 = frame[23] == 4 ? 54 : 34; // in a tunnel of ipip
	if (b->flow_idx[0] == FLOW_NONE && frame[23] == NET_PROTO_UDP)
		l4 = 66; // of gue
	out->backend_id = b->backend_id[0];
	memcpy(&out->source_port, frame + l4, 2);
	frame_mbuf_destroy(mbuf);
	return b->verdict[0] == PIPELINE_FORWARD;
}

static struct rte_mbuf *client_frame(uint32_t k, uint8_t protocol, uint8_t flags, bool is_fragment)
{
	static uint16_t id;
	uint8_t frame[FRAME_MAX];
	char client[32];
	snprintf(client, sizeof(client), "100.64.0.%u", k + 1);
	struct frame_spec spec = { .src = client,
		.protocol = protocol,
		.src_port = (uint16_t)(2000 + k),
		.dst_port = protocol == NET_PROTO_UDP ? 53 : 80,
		.tcp_flags = flags,
		.udp_no_checksum = is_fragment,
		.n_payload = 64 };
	size_t n = frame_build(&spec, frame);
	if (is_fragment) {
		frame_put16(frame + 18, ++id);
		frame_put16(frame + 20, 0x2000);
		frame_fix_checksums(frame, 14);
	}
	return frame_mbuf_room(frame, n, 128, 0);
}

static uint32_t n_flows(const struct world *w)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < WORKERS; i++) {
		const struct oneway_table *t = &w->workers[i].oneway;
		n += w->workers[i].flows.n_flows;
		for (uint32_t ref = 0; ref < oneway_n_positions(t); ref++) {
			struct oneway_entry e;
			n += oneway_copy(t, ref, &e) && e.state != ONEWAY_AFFINITY;
		}
	}
	return n;
}

static uint8_t protocol_of(uint32_t k)
{
	return k & 1 ? NET_PROTO_TCP : NET_PROTO_UDP;
}

// Flows that were opened at their client's worker, and then nothing of the service asks for that any more.
static void check_turned_off(struct world_shape before, struct world_shape after)
{
	struct world w;
	struct burst *b = burst_create();
	struct seen first[N_CLIENTS], now;
	start(&w, before);
	for (uint32_t k = 0; k < N_CLIENTS; k++)
		assert_true(settle(&w, b, k / 2 % WORKERS,
			client_frame(k, protocol_of(k), TCP_SYN, false), &first[k]));
	assert_in_range(w.workers[0].flows.n_flows + w.workers[0].oneway.families[0].n_entries, 8,
		2 * N_CLIENTS - 8); // both have some
	w.shape = after;
	for (uint32_t turn = 0; turn < 3; turn++) {
		world_publish(&w, (1u << BACKENDS) - 1); // and once more, unchanged
		for (uint32_t k = 0; k < N_CLIENTS; k++) {
			assert_true(settle(&w, b, k / 2 % WORKERS,
				client_frame(k, protocol_of(k), TCP_ACK, false), &now));
			assert_int_equal(now.backend_id, first[k].backend_id);
			assert_int_equal(now.source_port, first[k].source_port);
		}
	}
	assert_int_equal(n_flows(&w), N_CLIENTS);
	end(&w);
	free(b);
}

static void affinity_is_turned_off(void **state)
{
	check_turned_off((struct world_shape){ .affinity_s = 60 }, (struct world_shape){ 0 });
	check_turned_off((struct world_shape){ .affinity_s = 60, .mode = SERVICE_MODE_IPIP },
		(struct world_shape){ .mode = SERVICE_MODE_IPIP });
}

static void affinity_of_dnat_is_turned_off(void **state)
{
	check_turned_off((struct world_shape){ .affinity_s = 60, .mode = SERVICE_MODE_DNAT },
		(struct world_shape){ .mode = SERVICE_MODE_DNAT });
}

static void dnat_becomes_fullnat(void **state)
{
	check_turned_off(
		(struct world_shape){ .mode = SERVICE_MODE_DNAT }, (struct world_shape){ 0 });
}

// Where one worker sees all of a client, its flows lie there: a dnat backend's answers are looked for nowhere else.
static void check_owners(const struct world *w)
{
	for (uint16_t i = 0; i < WORKERS && w->snapshot->listeners[0].by_client; i++) {
		const struct flow_table *t = &w->workers[i].flows;
		for (uint32_t k = 0; k < t->n_used; k++) {
			const struct flow_record *r = flow_record(t, k);
			if (r->state != FLOW_STATE_FREE)
				assert_int_equal(flow_owner_by_client(&r->client, WORKERS), i);
		}
	}
}

// The first datagram is cut up and comes by addresses alone; the whole ones that follow may come anywhere, the answer too.
static void check_fragment_first(struct world_shape shape)
{
	struct world w;
	struct burst *b = burst_create();
	struct seen first[N_CLIENTS], now;
	start(&w, shape);
	for (uint32_t k = 0; k < N_CLIENTS; k++)
		assert_true(settle(
			&w, b, k % WORKERS, client_frame(k, NET_PROTO_UDP, 0, true), &first[k]));
	for (uint32_t turn = 0; turn < 3; turn++) {
		if (turn == 2) // whose hash the flows were chosen by is no more
			world_publish(&w, (1u << BACKENDS) - 2);
		for (uint32_t k = 0; k < N_CLIENTS; k++) {
			bool is_fragment = turn == 1;
			assert_true(settle(&w, b, (k / 2 + turn) % WORKERS,
				client_frame(k, NET_PROTO_UDP, 0, is_fragment), &now));
			const struct snapshot_backend *backend =
				&w.snapshot->backends[first[k].backend_id];
			if (!(backend->flags & SNAPSHOT_BACKEND_LISTED))
				continue;
			assert_int_equal(now.backend_id, first[k].backend_id);
			assert_int_equal(now.source_port, first[k].source_port);
		}
	}
	check_owners(&w);
	assert_int_equal(n_flows(&w), N_CLIENTS);
	end(&w);
	free(b);
}

static void a_flow_begins_with_a_fragment(void **state)
{
	check_fragment_first((struct world_shape){ 0 });
	check_fragment_first((struct world_shape){ .mode = SERVICE_MODE_IPIP });
	check_fragment_first((struct world_shape){ .mode = SERVICE_MODE_DNAT });
	check_fragment_first((struct world_shape){ .affinity_s = 60 });
	check_fragment_first((struct world_shape){ .affinity_s = 60, .mode = SERVICE_MODE_GUE });
}

// Who never had it does not pay for it.
static void nobody_is_handed_on_without_need(void **state)
{
	struct world w;
	struct burst *b = burst_create();
	struct seen now;
	start(&w, (struct world_shape){ 0 });
	for (uint32_t k = 0; k < N_CLIENTS; k++) {
		assert_true(
			settle(&w, b, 0, client_frame(k, protocol_of(k), TCP_SYN, false), &now));
		assert_int_equal(b->hops[0], 0);
	}
	assert_int_equal(w.workers[0].flows.n_flows, N_CLIENTS);
	end(&w);
	free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(affinity_is_turned_off),
		cmocka_unit_test(affinity_of_dnat_is_turned_off),
		cmocka_unit_test(dnat_becomes_fullnat),
		cmocka_unit_test(a_flow_begins_with_a_fragment),
		cmocka_unit_test(nobody_is_handed_on_without_need),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
