// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Fragments for tests, and a naive twin of the fragment cache: every byte of a datagram in a map, every fragment in a list. It is told what the
// cache answered and stops at the first answer it would not have given. Used by the unit test and the fuzzer.
#include <stdio.h>

#include "frames_priv.h"

#define TWIN_DATAGRAMS  64
#define TWIN_PIECES_MAX 512
#define TWIN_NONE       UINT32_MAX

#define TWIN_REQUIRE(claim)                                                                 \
	do {                                                                                \
		if (!(claim)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #claim); \
			abort();                                                            \
		}                                                                           \
	} while (0)

// ---------------------------------------------------------------- fragments
struct piece {
	bool is_v6;
	bool has_more;
	uint8_t protocol; // default UDP
	uint8_t host;     // last byte of the source
	uint32_t id;
	uint32_t offset;
	uint32_t length;
	uint16_t src_port; // of a first fragment; default 40000
};

// Byte k of the datagram of this identification; where headers are they are written over it.
static inline uint8_t piece_byte(const struct piece *s, uint32_t k)
{
	return (uint8_t)(k * 7 + k / 251 + s->id * 13);
}

static inline void piece_build_l4(const struct piece *s, uint8_t *at)
{
	uint8_t header[20] = { 0 };
	bool is_tcp = s->protocol == NET_PROTO_TCP, is_sctp = s->protocol == NET_PROTO_SCTP;
	uint32_t n = is_tcp ? 20 : is_sctp ? 16 : 8;
	frame_put16(header, s->src_port ? s->src_port : 40000);
	frame_put16(header + 2, 80);
	if (is_tcp)
		frame_put16(header + 12, 0x5010);
	else if (is_sctp)
		frame_put16(header + 14, 4); // a chunk of type 0: DATA
	if (!is_tcp)
		frame_put16(header + 4, 65535 - 40); // of SCTP: the tag
	frame_put16(header + (is_tcp ? 16 : 6), 0x1234);
	memcpy(at, header, n < s->length ? n : s->length);
}

// Returns the length; `frame` has 40 + 14 + 8 bytes and the fragment's length of room.
static inline size_t piece_build(const struct piece *s, uint8_t *frame)
{
	static const uint8_t macs[12] = { 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1 };
	uint8_t protocol = s->protocol ? s->protocol : NET_PROTO_UDP;
	uint32_t n_ip = s->is_v6 ? 48 : 20;
	uint8_t *ip = frame + 14;
	memcpy(frame, macs, 12);
	memset(ip, 0, n_ip);
	frame_put16(frame + 12, s->is_v6 ? 0x86dd : 0x0800);
	if (s->is_v6) {
		frame_put32(ip, 0x60000000);
		frame_put16(ip + 4, s->length + 8);
		ip[6] = 44;
		ip[7] = 61;
		frame_put_address(ip + 8, "2001:db8:c::", true);
		frame_put_address(ip + 24, "2001:db8:1::10", true);
		ip[23] = s->host;
		ip[40] = protocol;
		frame_put16(ip + 42, s->offset | s->has_more);
		frame_put32(ip + 44, s->id);
	} else {
		ip[0] = 0x45;
		frame_put16(ip + 2, s->length + 20);
		frame_put16(ip + 4, s->id);
		frame_put16(ip + 6, s->offset / 8 | (uint32_t)s->has_more << 13);
		ip[8] = 61;
		ip[9] = protocol;
		frame_put_address(ip + 12, "198.51.100.0", false);
		frame_put_address(ip + 16, "203.0.113.10", false);
		ip[15] = s->host;
		frame_put16(ip + 10, frame_v4_checksum(frame, 14));
	}
	for (uint32_t k = 0; k < s->length; k++)
		ip[n_ip + k] = piece_byte(s, s->offset + k);
	if (s->offset == 0)
		piece_build_l4(s, ip + n_ip);
	return 14 + n_ip + s->length;
}

// ---------------------------------------------------------------- the twin
enum twin_state { TWIN_WAITING, TWIN_SETTLED, TWIN_POISONED };

struct twin_datagram {
	bool is_used;
	enum twin_state state;
	struct address src;
	struct address dst;
	uint32_t id;
	uint32_t key_protocol;
	uint64_t deadline_ns;
	uint64_t decision;
	rte_be16_t src_port;
	rte_be16_t dst_port;
	uint8_t protocol;
	uint32_t total;   // 0: not known
	uint32_t reached; // no byte from here on
	uint8_t bytes[65536];
	uint32_t n_pieces;
	uint32_t pieces[TWIN_PIECES_MAX][2];
};

struct twin_held {
	struct rte_mbuf *mbuf;
	uint64_t deadline_ns;
	uint32_t datagram; // TWIN_NONE: forgotten
};

struct twin {
	struct twin_datagram datagrams[TWIN_DATAGRAMS];
	struct twin_held held[FRAGMENTS_HELD_MAX]; // oldest first
	uint32_t n_held;
};

static inline void twin_forget(struct twin *t, uint32_t d)
{
	t->datagrams[d].is_used = false;
	for (uint32_t i = 0; i < t->n_held; i++)
		if (t->held[i].datagram == d)
			t->held[i].datagram = TWIN_NONE;
}

static inline uint32_t twin_find(
	struct twin *t, const struct packet *p, const struct rte_mbuf *mbuf, uint64_t now_ns)
{
	uint32_t protocol = p->is_v6 ? 0 : p->protocol;
	for (uint32_t i = 0; i < TWIN_DATAGRAMS; i++) {
		struct twin_datagram *d = &t->datagrams[i];
		if (!d->is_used || !address_equal(&d->src, &p->src) ||
			!address_equal(&d->dst, &p->dst) || d->key_protocol != protocol ||
			d->id != packet_fragment_id(mbuf, p))
			continue;
		if (now_ns < d->deadline_ns)
			return i;
		twin_forget(t, i);
	}
	return TWIN_NONE;
}

static inline uint32_t twin_begin(struct twin *t, uint32_t d, const struct packet *p,
	const struct rte_mbuf *mbuf, uint64_t now_ns)
{
	for (uint32_t i = 0; d == TWIN_NONE && i < TWIN_DATAGRAMS; i++) {
		if (t->datagrams[i].is_used && now_ns >= t->datagrams[i].deadline_ns)
			twin_forget(t, i);
		if (!t->datagrams[i].is_used)
			d = i;
	}
	TWIN_REQUIRE(d != TWIN_NONE);
	memset(t->datagrams[d].bytes, 0, t->datagrams[d].reached); // not all 64 KB each time
	t->datagrams[d].reached = t->datagrams[d].total = t->datagrams[d].n_pieces = 0;
	t->datagrams[d].state = TWIN_WAITING;
	t->datagrams[d].is_used = true;
	t->datagrams[d].src = p->src;
	t->datagrams[d].dst = p->dst;
	t->datagrams[d].id = packet_fragment_id(mbuf, p);
	t->datagrams[d].key_protocol = p->is_v6 ? 0 : p->protocol;
	t->datagrams[d].deadline_ns = now_ns + FRAGMENTS_LIFE_NS;
	return d;
}

static inline uint32_t twin_n_runs(const struct twin_datagram *d)
{
	uint32_t n = 0;
	for (uint32_t k = 0; k < d->reached; k++)
		n += d->bytes[k] && (k == 0 || !d->bytes[k - 1]);
	return n;
}

static inline bool twin_is_piece(const struct twin_datagram *d, uint32_t begin, uint32_t end)
{
	for (uint32_t i = 0; i < d->n_pieces; i++)
		if (d->pieces[i][0] == begin && d->pieces[i][1] == end)
			return true;
	return false;
}

static inline void twin_set(struct twin_datagram *d, uint32_t begin, uint32_t end, uint8_t value)
{
	memset(d->bytes + begin, value, end - begin);
	d->reached = end > d->reached ? end : d->reached;
	while (d->reached > 0 && !d->bytes[d->reached - 1])
		d->reached--;
}

// What a later fragment of a settled datagram comes to. *may_pass_as_duplicate: an overlap that the filter may take for a duplicate.
static inline enum drop_reason twin_note(
	struct twin_datagram *d, const struct packet *p, bool *may_pass_as_duplicate)
{
	uint32_t begin = packet_fragment_offset(p), end = begin + packet_fragment_length(p);
	uint32_t n_here = 0;
	for (uint32_t k = begin; k < end; k++)
		n_here += d->bytes[k];
	bool has_more = packet_fragment_has_more(p);
	if (d->total != 0 && (has_more ? end >= d->total : end != d->total))
		return DROP_FRAGMENT_OVERLAP;
	if (!has_more && d->reached > end)
		return DROP_FRAGMENT_OVERLAP;
	*may_pass_as_duplicate = n_here == end - begin;
	if (n_here > 0)
		return twin_is_piece(d, begin, end) ? DROP_FRAGMENT_DUPLICATE
						    : DROP_FRAGMENT_OVERLAP;
	twin_set(d, begin, end, 1);
	if (twin_n_runs(d) > FRAGMENTS_RANGES) {
		twin_set(d, begin, end, 0);
		return DROP_FRAGMENT_GAPS;
	}
	TWIN_REQUIRE(d->n_pieces < TWIN_PIECES_MAX);
	d->pieces[d->n_pieces][0] = begin;
	d->pieces[d->n_pieces++][1] = end;
	d->total = has_more ? d->total : end;
	return DROP_NONE;
}

static inline void twin_first(struct twin *t, const struct packet *p, const struct rte_mbuf *mbuf,
	uint64_t now_ns, const struct fragments_answer *got)
{
	uint32_t i = twin_find(t, p, mbuf, now_ns);
	bool unused;
	if (i != TWIN_NONE && t->datagrams[i].state != TWIN_WAITING) {
		struct twin_datagram *d = &t->datagrams[i];
		bool is_same_tuple = d->src_port == p->src_port && d->dst_port == p->dst_port &&
				     d->protocol == p->protocol;
		bool is_again = is_same_tuple && twin_is_piece(d, 0, packet_fragment_length(p));
		// The filter may take another length for the same.
		bool may_pass = is_same_tuple && got->kind == FRAGMENTS_FIRST;
		if (d->state == TWIN_POISONED || !(is_again || may_pass)) {
			TWIN_REQUIRE(got->kind == FRAGMENTS_REFUSED);
			TWIN_REQUIRE(got->reason == DROP_FRAGMENT_OVERLAP);
			d->state = TWIN_POISONED;
			return;
		}
	}
	TWIN_REQUIRE(got->kind == FRAGMENTS_FIRST);
	i = twin_begin(t, i, p, mbuf, now_ns);
	t->datagrams[i].src_port = p->src_port;
	t->datagrams[i].dst_port = p->dst_port;
	t->datagrams[i].protocol = p->protocol;
	TWIN_REQUIRE(twin_note(&t->datagrams[i], p, &unused) == DROP_NONE);
}

static inline struct rte_mbuf *twin_take(struct twin *t, uint32_t at)
{
	struct twin_held h = t->held[at];
	t->n_held--;
	memmove(&t->held[at], &t->held[at + 1], (t->n_held - at) * sizeof(h));
	return h.mbuf;
}

static inline uint32_t twin_n_held_of(const struct twin *t, uint32_t d)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < t->n_held; i++)
		n += t->held[i].datagram == d;
	return n;
}

// The oldest leaves; a datagram that nothing waits for any more is forgotten.
static inline struct rte_mbuf *twin_take_oldest(struct twin *t)
{
	uint32_t d = t->held[0].datagram;
	struct rte_mbuf *mbuf = twin_take(t, 0);
	if (d != TWIN_NONE && twin_n_held_of(t, d) == 0)
		twin_forget(t, d);
	return mbuf;
}

static inline void twin_hold(struct twin *t, const struct packet *p, struct rte_mbuf *mbuf,
	uint64_t now_ns, const struct fragments_answer *got)
{
	uint32_t i = twin_find(t, p, mbuf, now_ns);
	if (i != TWIN_NONE && twin_n_held_of(t, i) == FRAGMENTS_HELD_EACH) {
		TWIN_REQUIRE(got->kind == FRAGMENTS_REFUSED);
		TWIN_REQUIRE(got->reason == DROP_FRAGMENT_NO_FIRST);
		return;
	}
	TWIN_REQUIRE(got->kind == FRAGMENTS_HELD);
	struct rte_mbuf *given_up = NULL;
	if (t->n_held == FRAGMENTS_HELD_MAX)
		given_up = twin_take_oldest(t);
	TWIN_REQUIRE(got->given_up == given_up);
	if (i == TWIN_NONE || !t->datagrams[i].is_used)
		i = twin_begin(t, TWIN_NONE, p, mbuf, now_ns);
	t->held[t->n_held++] = (struct twin_held){ mbuf, now_ns + FRAGMENTS_HOLD_NS, i };
}

static inline void twin_later(struct twin *t, const struct packet *p, struct rte_mbuf *mbuf,
	uint64_t now_ns, const struct fragments_answer *got)
{
	uint32_t i = twin_find(t, p, mbuf, now_ns);
	if (i == TWIN_NONE || t->datagrams[i].state == TWIN_WAITING) {
		twin_hold(t, p, mbuf, now_ns, got);
		return;
	}
	struct twin_datagram *d = &t->datagrams[i];
	bool may_pass = false;
	enum drop_reason reason =
		d->state == TWIN_POISONED ? DROP_FRAGMENT_OVERLAP : twin_note(d, p, &may_pass);
	if (reason == DROP_FRAGMENT_OVERLAP && may_pass && got->reason == DROP_FRAGMENT_DUPLICATE)
		reason = DROP_FRAGMENT_DUPLICATE;
	if (reason == DROP_FRAGMENT_OVERLAP)
		d->state = TWIN_POISONED;
	TWIN_REQUIRE(got->kind == (reason ? FRAGMENTS_REFUSED : FRAGMENTS_KNOWN));
	TWIN_REQUIRE(got->reason == reason);
	if (reason != DROP_NONE)
		return;
	TWIN_REQUIRE(got->decision == d->decision);
	if (d->reached == d->total && d->bytes[0] && twin_n_runs(d) == 1)
		twin_forget(t, i);
}

// Told of each answer of the cache.
static inline void twin_see(struct twin *t, const struct packet *p, struct rte_mbuf *mbuf,
	uint64_t now_ns, const struct fragments_answer *got)
{
	if (packet_fragment_offset(p) == 0)
		twin_first(t, p, mbuf, now_ns, got);
	else
		twin_later(t, p, mbuf, now_ns, got);
}

static inline void twin_settle(struct twin *t, uint32_t d, uint64_t decision,
	struct rte_mbuf *const *released, uint32_t n_released)
{
	TWIN_REQUIRE(d != TWIN_NONE);
	uint32_t n = 0;
	t->datagrams[d].state = TWIN_SETTLED;
	t->datagrams[d].decision = decision;
	for (uint32_t i = 0; i < t->n_held;) {
		if (t->held[i].datagram != d) {
			i++;
			continue;
		}
		struct rte_mbuf *mbuf = twin_take(t, i);
		TWIN_REQUIRE(n < n_released && released[n] == mbuf);
		n++;
	}
	TWIN_REQUIRE(n == n_released);
}

static inline void twin_expire(
	struct twin *t, uint64_t now_ns, struct rte_mbuf *const *out, uint32_t n_out, uint32_t max)
{
	uint32_t n = 0;
	while (n < max && t->n_held > 0 && now_ns >= t->held[0].deadline_ns) {
		struct rte_mbuf *mbuf = twin_take_oldest(t);
		TWIN_REQUIRE(n < n_out && out[n] == mbuf);
		n++;
	}
	TWIN_REQUIRE(n == n_out);
}
