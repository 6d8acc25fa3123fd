// SPDX-License-Identifier: BSD-3-Clause
// Sequences of fragments and time against the naive twin of the unit test, and what must hold of rewritten ones.
//
// Input: steps of 6 bytes: what (family, host, protocol, port, more, small or large step), identification, offset (2), length, time.
#include <assert.h>

#include "../unit/fragments_twin_priv.h"

#define STEP_BYTES  6
#define STEPS_MAX   600
#define N_DATAGRAMS 512u
#define LENGTH_MAX  2048u

struct scene {
	struct fragments *f;
	void *memory;
	struct twin *twin;
	uint64_t now_ns;
	uint64_t next_decision;
	uint32_t n_alive; // mbufs that were made and are neither gone nor held
};

static uint8_t frame[LENGTH_MAX + 128];

static void scene_drop(struct scene *w, struct rte_mbuf *mbuf)
{
	frame_mbuf_destroy(mbuf);
	w->n_alive--;
}

// Addresses, TTL and the IPv4 checksum change, ports and L4 checksum of a first one: nothing else.
static void check_rewrite(const struct rte_mbuf *shown, const struct packet *p)
{
	struct address to4 = address_from_v4(RTE_BE32(0x0a090002)), to6 = { .bytes = { 0xfd } };
	const struct address *to = p->is_v6 ? &to6 : &to4;
	struct packet_nat nat = { .src = *to, .dst = *to, .src_port = 1, .dst_port = 2 };
	size_t n = shown->pkt_len;
	struct rte_mbuf *mbuf = frame_mbuf(frame_bytes(shown), n);
	packet_rewrite_fragment(mbuf, p, &nat);
	struct packet again;
	packet_parse(mbuf, NULL, &again);
	assert(again.kind == PACKET_FRAGMENT && again.fragment == p->fragment);
	assert(address_equal(&again.src, to) && again.ttl == p->ttl - 1);
	assert(packet_fragment_id(mbuf, &again) == packet_fragment_id(shown, p));
	size_t n_changed = p->l4_offset;
	if (packet_fragment_offset(p) == 0)
		n_changed += p->protocol == NET_PROTO_TCP ? 18 : 8;
	assert(memcmp(frame_bytes(mbuf) + n_changed, frame_bytes(shown) + n_changed,
		       n - n_changed) == 0);
	frame_mbuf_destroy(mbuf);
}

static void scene_show(struct scene *w, struct rte_mbuf *mbuf)
{
	struct packet p;
	packet_parse(mbuf, NULL, &p);
	if (p.kind != PACKET_FRAGMENT) {
		assert(p.kind == PACKET_BAD || p.fragment == 0); // a whole packet
		scene_drop(w, mbuf);
		return;
	}
	check_rewrite(mbuf, &p);
	struct fragments_answer answer;
	struct rte_mbuf *released[FRAGMENTS_HELD_EACH];
	uint32_t n = 0;
	fragments_see(w->f, &p, mbuf, w->now_ns, &answer);
	twin_see(w->twin, &p, mbuf, w->now_ns, &answer);
	if (answer.given_up)
		frame_mbuf_destroy(answer.given_up);
	if (answer.kind == FRAGMENTS_FIRST) {
		uint32_t d = twin_find(w->twin, &p, mbuf, w->now_ns);
		n = fragments_settle(w->f, &answer, ++w->next_decision, released);
		twin_settle(w->twin, d, w->next_decision, released, n);
	}
	if (answer.kind != FRAGMENTS_HELD)
		scene_drop(w, mbuf);
	else
		w->n_alive--;
	w->n_alive += n;
	for (uint32_t i = 0; i < n; i++)
		scene_show(w, released[i]);
	assert(fragments_n_held(w->f) == w->twin->n_held);
}

static void scene_expire(struct scene *w, uint64_t now_ns)
{
	struct rte_mbuf *out[FRAGMENTS_HELD_MAX];
	uint32_t n = fragments_expire(w->f, now_ns, out, FRAGMENTS_HELD_MAX);
	twin_expire(w->twin, now_ns, out, n, FRAGMENTS_HELD_MAX);
	for (uint32_t i = 0; i < n; i++)
		frame_mbuf_destroy(out[i]);
}

static void scene_step(struct scene *w, const uint8_t *at)
{
	static const uint8_t protocols[] = { NET_PROTO_UDP, NET_PROTO_TCP, 0, 60 };
	struct piece s = { .is_v6 = at[0] & 1,
		.host = at[0] >> 1 & 1,
		.protocol = protocols[at[0] >> 2 & 3],
		.src_port = at[0] & 16 ? 40001 : 40000,
		.has_more = at[0] & 32,
		.id = at[1] % 16,
		.offset = (uint32_t)(at[2] << 8 | at[3]) & 0xfff8,
		.length = at[4] };
	if (at[0] & 64)
		s.length *= 8;
	if (s.protocol == 60 && (!s.is_v6 || s.offset == 0))
		s.protocol = NET_PROTO_UDP;
	w->now_ns += (uint64_t)at[5] * at[5] * (at[0] & 128 ? 1000000 : 1000);
	w->n_alive++;
	scene_show(w, frame_mbuf(frame, piece_build(&s, frame)));
	if (at[5] % 8 == 7)
		scene_expire(w, w->now_ns);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	static struct twin twin;
	struct hash_key key = { { 7, 11 } };
	struct scene w = { .twin = &twin, .now_ns = 1000 * CLOCK_S };
	if (n / STEP_BYTES > STEPS_MAX)
		return 0;
	for (uint32_t i = 0; i < TWIN_DATAGRAMS; i++)
		twin.datagrams[i].is_used = false;
	twin.n_held = 0;
	size_t size = fragments_size(N_DATAGRAMS);
	w.memory = aligned_alloc(64, size);
	assert(fragments_init(w.memory, size, N_DATAGRAMS, &key, &w.f) == 0);
	for (size_t at = 0; at + STEP_BYTES <= n; at += STEP_BYTES)
		scene_step(&w, bytes + at);
	assert(w.n_alive == 0);
	scene_expire(&w, UINT64_MAX);
	assert(fragments_n_held(w.f) == 0);
	free(w.memory);
	return 0;
}
