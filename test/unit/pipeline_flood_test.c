// SPDX-License-Identifier: BSD-3-Clause
// Floods of one kind after the other beside good traffic, nine packets of ten: every good packet passes to the backend that it
// has had all along, tables stay within their size, each drop has its name, and a while after the end nothing is left.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "lane_priv.h"

#define VIP      0xcb00710a // 203.0.113.10
#define N_GOOD   200
#define CAPACITY 1000
#define N_BURSTS 1500 // of each kind

enum kind { SYN, UDP, ACK, LATER_FRAGMENT, FIRST_FRAGMENT, ECHO, FORGED_ERROR, KINDS };

struct good {
	uint32_t backend_id;
	struct flow_record r; // fullnat: what its backend answers to
};

struct flood {
	struct world w;
	struct lane *lane;
	struct good good[N_GOOD];
	bool is_oneway;
	uint64_t seed;
	uint64_t n_verdicts[KINDS][8]; // enum pipeline_verdict
	void *fragments;
};

static struct lane_frame good_frame(uint32_t i, uint8_t flags)
{
	return (struct lane_frame){ .src = 0x64400001 + i,
		.dst = VIP,
		.src_port = (uint16_t)(3000 + i),
		.dst_port = 80,
		.protocol = NET_PROTO_TCP,
		.tcp_flags = flags };
}

static struct lane_frame answer_frame(const struct flow_record *r, uint8_t flags)
{
	return (struct lane_frame){ .src = rte_be_to_cpu_32(address_v4(&r->backend)),
		.dst = 0xc0000201, // 192.0.2.1
		.src_port = rte_be_to_cpu_16(r->backend_port),
		.dst_port = rte_be_to_cpu_16(r->snat_port),
		.protocol = NET_PROTO_TCP,
		.tcp_flags = flags };
}

static void one(struct flood *f, const struct lane_frame *frame)
{
	lane_begin(f->lane, &f->w, 0);
	lane_add(f->lane, frame);
	lane_run(f->lane);
	assert_int_equal(f->lane->b.verdict[0], PIPELINE_FORWARD);
}

static void good_open(struct flood *f, uint32_t i)
{
	struct lane_frame syn = good_frame(i, TCP_SYN), ack = good_frame(i, TCP_ACK);
	one(f, &syn);
	f->good[i].backend_id = f->lane->b.backend_id[0];
	if (!f->is_oneway) {
		f->good[i].r = *flow_record(&f->lane->p->flows, f->lane->b.flow_idx[0]);
		struct lane_frame answer = answer_frame(&f->good[i].r, TCP_SYN | TCP_ACK);
		one(f, &answer);
	}
	one(f, &ack);
}

static void flood_start(struct flood *f, enum service_mode mode)
{
	struct hash_key key = { { 3, 4 } };
	memset(f, 0, sizeof(*f));
	f->lane = aligned_alloc(64, (sizeof(*f->lane) + 63) & ~63ul);
	memset(f->lane, 0, sizeof(*f->lane));
	f->seed = mode + 1;
	f->is_oneway = mode == SERVICE_MODE_IPIP;
	world_init(&f->w, CAPACITY, 1024, 65535);
	f->w.shape = (struct world_shape){ .mode = mode, .only_family = 4 };
	world_publish(&f->w, (1u << BACKENDS) - 1);
	f->fragments = aligned_alloc(64, fragments_size(64));
	assert_int_equal(fragments_init(f->fragments, fragments_size(64), 64, &key,
				 &f->w.workers[0].fragments),
		0);
}

// A packet of the flood. Fragments that may be held have memory of their own.
static size_t flood_build(struct flood *f, enum kind kind, uint8_t *frame)
{
	static const uint8_t protocols[KINDS] = { NET_PROTO_TCP, NET_PROTO_UDP, NET_PROTO_TCP,
		NET_PROTO_UDP, NET_PROTO_UDP, NET_PROTO_ICMP, NET_PROTO_ICMP };
	uint64_t r = frame_random(&f->seed);
	struct lane_frame like = { .src = 0x65000000 | (uint32_t)(r & 0xffffff),
		.dst = VIP,
		.src_port = (uint16_t)(1024 + (r >> 24) % 60000),
		.dst_port = protocols[kind] == NET_PROTO_UDP ? 53 : 80,
		.protocol = protocols[kind],
		.tcp_flags = kind == SYN ? TCP_SYN : TCP_ACK };
	size_t n = lane_frame_build(&like, frame);
	if (kind == LATER_FRAGMENT || kind == FIRST_FRAGMENT) {
		frame_put16(frame + 18, (uint32_t)(r >> 40));
		frame_put16(frame + 20, kind == FIRST_FRAGMENT ? 0x2000 : 2);
	}
	if (kind == FORGED_ERROR) { // quotes what we might have sent
		struct lane_frame quoted = { .src = VIP,
			.dst = like.src,
			.src_port = 80,
			.dst_port = like.src_port,
			.protocol = NET_PROTO_TCP };
		uint8_t inner[128];
		size_t n_inner = lane_frame_build(&quoted, inner) - 14;
		memset(frame + 34, 0, 8);
		frame[34] = 3;
		frame[35] = 1;
		memcpy(frame + 42, inner + 14, n_inner);
		n = 42 + n_inner;
		frame_put16(frame + 16, (uint32_t)(n - 14));
	}
	frame_fix_checksums(frame, 14);
	return n;
}

static void add_flood(struct flood *f, enum kind kind)
{
	uint8_t frame[256];
	size_t n = flood_build(f, kind, frame);
	struct lane *l = f->lane;
	if (kind != LATER_FRAGMENT) {
		lane_add_bytes(l, frame, n);
		return;
	}
	l->b.mbufs[l->n] = frame_mbuf_room(frame, n, 64, 0);
	l->b.in_port[l->n] = 0;
	l->b.hops[l->n++] = 1;
}

static void check_good(struct flood *f, uint32_t k, uint32_t i)
{
	const struct burst *b = &f->lane->b;
	assert_int_equal(b->verdict[k], PIPELINE_FORWARD);
	assert_int_equal(b->backend_id[k], f->good[i].backend_id);
}

static void check_flood(struct flood *f, enum kind kind, uint32_t k)
{
	struct burst *b = &f->lane->b;
	f->n_verdicts[kind][b->verdict[k]]++;
	if (b->verdict[k] == PIPELINE_DROP || b->verdict[k] == PIPELINE_REPLY)
		assert_int_not_equal(b->reason[k], DROP_NONE);
	if (kind == LATER_FRAGMENT && b->verdict[k] != PIPELINE_HELD)
		frame_mbuf_destroy(b->mbufs[k]);
}

static void free_held(struct flood *f, uint64_t now_ns)
{
	struct rte_mbuf *out[BURST_MAX];
	uint32_t n = pipeline_expire_held(&f->w.workers[0], now_ns, out, BURST_MAX);
	for (uint32_t i = 0; i < n; i++)
		frame_mbuf_destroy(out[i]);
}

// 54 of the flood, six of good flows: clients' packets, and in fullnat one of three its backend's.
static void burst(struct flood *f, enum kind kind, uint32_t turn)
{
	struct lane *l = f->lane;
	lane_begin(l, &f->w, 0);
	while (l->n < 60) {
		if (l->n % 10 != 9) {
			add_flood(f, kind);
			continue;
		}
		uint32_t i = (turn * 6 + l->n / 10) % N_GOOD;
		struct lane_frame frame = good_frame(i, TCP_ACK | TCP_PSH);
		if (!f->is_oneway && turn % 3 == 0)
			frame = answer_frame(&f->good[i].r, TCP_ACK);
		lane_add(l, &frame);
	}
	lane_run(l);
	for (uint32_t k = 0; k < 60; k++) {
		if (k % 10 == 9)
			check_good(f, k, (turn * 6 + k / 10) % N_GOOD);
		else
			check_flood(f, kind, k);
	}
	for (uint32_t k = 0; k < l->b.n_given_up; k++)
		frame_mbuf_destroy(l->b.given_up[k]);
	free_held(f, f->w.now_ns);
	assert_true(l->p->flows.n_flows <= CAPACITY);
	assert_true(fragments_n_held(l->p->fragments) <= FRAGMENTS_HELD_MAX);
	f->w.now_ns += CLOCK_MS * 5;
	pipeline_housekeep(l->p, 16);
}

static void check_end(struct flood *f, uint64_t n_free)
{
	struct pipeline *p = &f->w.workers[0];
	free_held(f, f->w.now_ns + 10 * CLOCK_S);
	free_held(f, f->w.now_ns + 10 * CLOCK_S);
	f->w.now_ns += 2000 * CLOCK_S;
	p->now_ns = f->w.now_ns;
	p->now_s = (uint32_t)(f->w.now_ns / CLOCK_S);
	for (int k = 0; k < 100; k++)
		pipeline_housekeep(p, 256);
	assert_int_equal(fragments_n_held(p->fragments), 0);
	assert_int_equal(p->flows.n_flows, 0);
	assert_int_equal(p->oneway.families[0].n_entries, 0);
	assert_int_equal(snat_n_free(p->snat, 4), n_free);
	for (uint32_t i = 0; i < 64; i++)
		assert_int_equal(
			p->backend_counters[i].flows_created, p->backend_counters[i].flows_ended);
}

static void check_mode(enum service_mode mode)
{
	static struct flood f;
	flood_start(&f, mode);
	uint64_t n_free = snat_n_free(f.w.workers[0].snat, 4);
	for (uint32_t i = 0; i < N_GOOD; i++)
		good_open(&f, i);
	for (enum kind kind = 0; kind < KINDS; kind++)
		for (uint32_t turn = 0; turn < N_BURSTS; turn++)
			burst(&f, kind, turn);
	const uint64_t(*n)[8] = f.n_verdicts;
	assert_int_equal(n[SYN][PIPELINE_FORWARD], N_BURSTS * 54); // each gets in
	assert_int_equal(n[UDP][PIPELINE_FORWARD], N_BURSTS * 54);
	assert_int_equal(n[FIRST_FRAGMENT][PIPELINE_FORWARD], N_BURSTS * 54);
	assert_int_equal(n[LATER_FRAGMENT][PIPELINE_FORWARD], 0);
	assert_true(n[ECHO][PIPELINE_REPLY] > 0 && n[ECHO][PIPELINE_DROP] > 0);
	if (!f.is_oneway) {
		assert_true(n[ACK][PIPELINE_DROP] > n[ACK][PIPELINE_REPLY]);
		assert_int_equal(n[ACK][PIPELINE_FORWARD] + n[FORGED_ERROR][PIPELINE_FORWARD], 0);
	}
	check_end(&f, n_free);
	world_fini(&f.w);
	free(f.fragments);
	free(f.lane);
}

// Piece `piece` of datagram `id`: 0 is the first.
static void add_piece(struct flood *f, uint32_t id, uint32_t piece)
{
	uint8_t frame[256];
	struct lane_frame like = { .src = 0x64400001,
		.dst = VIP,
		.src_port = 3000,
		.dst_port = 53,
		.protocol = NET_PROTO_UDP };
	size_t n = lane_frame_build(&like, frame);
	struct lane *l = f->lane;
	frame_put16(frame + 18, id);
	frame_put16(frame + 20, 0x2000 | piece * 2);
	frame_fix_checksums(frame, 14);
	l->b.mbufs[l->n] = frame_mbuf_room(frame, n, 64, 0);
	l->b.in_port[l->n] = 0;
	l->b.hops[l->n++] = 1;
}

// Runs what was added; all that is not held leaves.
static uint32_t run_pieces(struct flood *f)
{
	uint32_t n_forwarded = 0, n = f->lane->n;
	lane_run(f->lane);
	for (uint32_t k = 0; k < n; k++) {
		n_forwarded += f->lane->b.verdict[k] == PIPELINE_FORWARD;
		if (f->lane->b.verdict[k] != PIPELINE_HELD)
			frame_mbuf_destroy(f->lane->b.mbufs[k]);
	}
	return n_forwarded;
}

// As many as can be are held; then one burst releases them, and holds and releases more.
static void one_burst_releases_more_than_are_held(void **state)
{
	static struct flood f;
	uint32_t n_forwarded = 0;
	flood_start(&f, SERVICE_MODE_FULLNAT);
	struct pipeline *p = &f.w.workers[0];
	for (uint32_t id = 0; id < 16; id++) {
		lane_begin(f.lane, &f.w, 0);
		for (uint32_t piece = 1; piece <= 8; piece++)
			add_piece(&f, id, piece);
		assert_int_equal(run_pieces(&f), 0);
	}
	assert_int_equal(fragments_n_held(p->fragments), FRAGMENTS_HELD_MAX);
	lane_begin(f.lane, &f.w, 0);
	for (uint32_t id = 0; id < 16; id++)
		add_piece(&f, id, 0);
	for (uint32_t id = 16; id < 21; id++)
		for (uint32_t k = 1; k <= 9; k++)
			add_piece(&f, id, k % 9);
	n_forwarded += run_pieces(&f);
	assert_int_equal(n_forwarded, 21);
	assert_int_equal(p->n_released, 21 * 8);
	assert_int_equal(p->answer_bucket.per_s, 1000); // lies behind
	while (p->n_released > 0) {
		f.lane->b.n = 0;
		pipeline_take_released(p, &f.lane->b);
		f.lane->n = f.lane->b.n;
		n_forwarded += run_pieces(&f);
	}
	assert_int_equal(n_forwarded, 21 * 9);
	world_fini(&f.w);
	free(f.fragments);
	free(f.lane);
}

static void fullnat_bears_floods(void **state)
{
	check_mode(SERVICE_MODE_FULLNAT);
}

static void ipip_bears_floods(void **state)
{
	check_mode(SERVICE_MODE_IPIP);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fullnat_bears_floods),
		cmocka_unit_test(ipip_bears_floods),
		cmocka_unit_test(one_burst_releases_more_than_are_held),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
