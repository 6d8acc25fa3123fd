// SPDX-License-Identifier: BSD-3-Clause
// Fragments: what the parser says of them, the cache against named cases and a naive twin, and their rewrite against that of the whole.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "fragments_twin_priv.h"

#define N_DATAGRAMS 64u
#define MS          1000000ull

static uint8_t frame[66000];

static struct packet parse(const struct rte_mbuf *mbuf)
{
	struct packet p;
	memset(&p, 0xa5, sizeof(p));
	packet_parse(mbuf, NULL, &p);
	return p;
}

static struct packet parse_piece(struct piece s)
{
	struct rte_mbuf *mbuf = frame_mbuf(frame, piece_build(&s, frame));
	struct packet p = parse(mbuf);
	frame_mbuf_destroy(mbuf);
	return p;
}

#define assert_bad(p, why)                                                            \
	do {                                                                          \
		assert_int_equal((p).kind, PACKET_BAD);                               \
		assert_string_equal(drop_rows[(p).reason].name, drop_rows[why].name); \
	} while (0)

// ---------------------------------------------------------------- the parser
static void test_parse_fields(void **state)
{
	for (int is_v6 = 0; is_v6 < 2; is_v6++) {
		struct packet p = parse_piece((struct piece){
			.is_v6 = is_v6, .id = 0x1234, .has_more = true, .length = 64 });
		assert_int_equal(p.kind, PACKET_FRAGMENT);
		assert_int_equal(packet_fragment_offset(&p), 0);
		assert_true(packet_fragment_has_more(&p));
		assert_int_equal(packet_fragment_length(&p), 64);
		assert_int_equal(p.src_port, RTE_BE16(40000));
		assert_int_equal(p.dst_port, RTE_BE16(80));
		assert_int_equal(p.fragment_header, is_v6 ? 54 : 0);
		p = parse_piece((struct piece){ .is_v6 = is_v6,
			.protocol = NET_PROTO_TCP,
			.has_more = true,
			.length = 24 });
		assert_int_equal(p.kind, PACKET_FRAGMENT);
		assert_int_equal(p.tcp_flags, TCP_ACK);
		p = parse_piece((struct piece){ .is_v6 = is_v6, .offset = 1480, .length = 3 });
		assert_int_equal(p.kind, PACKET_FRAGMENT);
		assert_int_equal(packet_fragment_offset(&p), 1480);
		assert_false(packet_fragment_has_more(&p));
		assert_int_equal(packet_fragment_length(&p), 3);
		assert_int_equal(p.src_port, 0);
		// a protocol without ports
		p = parse_piece((struct piece){
			.is_v6 = is_v6, .protocol = 47, .has_more = true, .length = 8 });
		assert_int_equal(p.kind, PACKET_FRAGMENT);
		assert_int_equal(p.src_port, 0);
	}
}

static void test_parse_identification(void **state)
{
	for (int is_v6 = 0; is_v6 < 2; is_v6++) {
		struct piece s = { .is_v6 = is_v6, .id = 0xfedc, .offset = 8, .length = 8 };
		s.id = is_v6 ? 0xfedcba98 : s.id;
		struct rte_mbuf *mbuf = frame_mbuf(frame, piece_build(&s, frame));
		struct packet p = parse(mbuf);
		assert_int_equal(packet_fragment_id(mbuf, &p),
			is_v6 ? RTE_BE32(0xfedcba98) : RTE_BE16(0xfedc));
		frame_mbuf_destroy(mbuf);
	}
}

static void test_parse_lengths(void **state)
{
	static const struct {
		uint32_t offset, length;
		bool has_more;
		int reason4, reason6; // DROP_NONE: good
	} cases[] = {
		{ 0, 0, true, DROP_FRAGMENT_BAD_LENGTH, DROP_FRAGMENT_BAD_LENGTH },
		{ 0, 15, true, DROP_FRAGMENT_BAD_LENGTH, DROP_FRAGMENT_BAD_LENGTH },
		{ 64, 0, false, DROP_FRAGMENT_BAD_LENGTH, DROP_FRAGMENT_BAD_LENGTH },
		{ 64, 0, true, DROP_FRAGMENT_BAD_LENGTH, DROP_FRAGMENT_BAD_LENGTH },
		{ 64, 12, true, DROP_FRAGMENT_BAD_LENGTH, DROP_FRAGMENT_BAD_LENGTH },
		{ 64, 12, false, DROP_NONE, DROP_NONE },
		{ 64, 16, true, DROP_NONE, DROP_NONE },
		// 65,535 with the IPv4 header; behind the IPv6 one
		{ 65512, 3, false, DROP_NONE, DROP_NONE },
		{ 65512, 4, false, DROP_FRAGMENT_BAD_LENGTH, DROP_NONE },
		{ 65512, 23, false, DROP_FRAGMENT_BAD_LENGTH, DROP_NONE },
		{ 65512, 24, false, DROP_FRAGMENT_BAD_LENGTH, DROP_FRAGMENT_BAD_LENGTH },
		{ 65528, 8, false, DROP_FRAGMENT_BAD_LENGTH, DROP_FRAGMENT_BAD_LENGTH },
		{ 65528, 7, false, DROP_FRAGMENT_BAD_LENGTH, DROP_NONE },
		{ 65528, 1480, false, DROP_FRAGMENT_BAD_LENGTH, DROP_FRAGMENT_BAD_LENGTH },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases) * 2; i++) {
		bool is_v6 = i >= ARRAY_SIZE(cases);
		size_t k = i % ARRAY_SIZE(cases);
		struct packet p = parse_piece((struct piece){ .is_v6 = is_v6,
			.offset = cases[k].offset,
			.length = cases[k].length,
			.has_more = cases[k].has_more });
		int reason = is_v6 ? cases[k].reason6 : cases[k].reason4;
		if (reason != DROP_NONE)
			assert_bad(p, reason);
		else
			assert_int_equal(p.kind, PACKET_FRAGMENT);
	}
}

// First fragments of 8 to 64 bytes, TCP headers of 20 to 60; later ones at the first offsets.
static void test_parse_tiny(void **state)
{
	for (int is_v6 = 0; is_v6 < 2; is_v6++) {
		size_t l4 = is_v6 ? 62 : 34;
		for (uint32_t length = 8; length <= 64; length += 8) {
			struct piece s = { .is_v6 = is_v6,
				.protocol = NET_PROTO_TCP,
				.has_more = true,
				.length = length };
			for (uint32_t words = 0; words < 16; words++) {
				size_t n = piece_build(&s, frame);
				if (length > 12)
					frame[l4 + 12] = (uint8_t)(words << 4);
				struct rte_mbuf *mbuf = frame_mbuf(frame, n);
				struct packet p = parse(mbuf);
				if (length < 20 || words * 4 > length)
					assert_bad(p, DROP_FRAGMENT_TINY);
				else if (words < 5)
					assert_bad(p, DROP_TCP_BAD_OFFSET);
				else
					assert_int_equal(p.kind, PACKET_FRAGMENT);
				frame_mbuf_destroy(mbuf);
			}
		}
		for (uint32_t offset = 8; offset <= 24; offset += 8) {
			struct piece s = { .is_v6 = is_v6, .offset = offset, .length = 64 };
			assert_int_equal(parse_piece(s).kind, PACKET_FRAGMENT);
			s.protocol = NET_PROTO_TCP;
			if (offset < 20)
				assert_bad(parse_piece(s), DROP_FRAGMENT_TINY);
			else
				assert_int_equal(parse_piece(s).kind, PACKET_FRAGMENT);
			s.protocol = NET_PROTO_SCTP;
			if (offset < 16)
				assert_bad(parse_piece(s), DROP_FRAGMENT_TINY);
			else
				assert_int_equal(parse_piece(s).kind, PACKET_FRAGMENT);
		}
		struct piece sctp = {
			.is_v6 = is_v6, .protocol = NET_PROTO_SCTP, .has_more = true, .length = 8
		};
		assert_bad(parse_piece(sctp), DROP_FRAGMENT_TINY);
		sctp.length = 16;
		assert_int_equal(parse_piece(sctp).kind, PACKET_FRAGMENT);
	}
}

// What is refused in whole packets is refused in first fragments.
static void test_parse_first_l4(void **state)
{
	for (int is_v6 = 0; is_v6 < 2; is_v6++) {
		size_t l4 = is_v6 ? 62 : 34;
		struct piece s = { .is_v6 = is_v6, .has_more = true, .length = 64 };
		for (int what = 0; what < 10; what++) {
			s.protocol = what < 3   ? NET_PROTO_UDP
				     : what < 6 ? NET_PROTO_TCP
						: NET_PROTO_SCTP;
			size_t n = piece_build(&s, frame);
			int want = DROP_NONE;
			if (what == 0)
				frame_put16(frame + l4 + 4, 64);
			if (what == 1) {
				frame_put16(frame + l4 + 4, 63);
				want = DROP_UDP_BAD_LENGTH;
			}
			if (what == 2) {
				frame_put16(frame + l4 + 6, 0);
				want = is_v6 ? DROP_BAD_L4_CHECKSUM : DROP_NONE;
			}
			if (what >= 6) { // chunk type, its length, tag
				static const uint8_t chunks[4][3] = { { 1, 4, 0 }, { 1, 4, 9 },
					{ 0, 4, 0 }, { 0, 3, 9 } };
				frame_put32(frame + l4 + 4, chunks[what - 6][2]);
				frame[l4 + 12] = chunks[what - 6][0];
				frame[l4 + 15] = chunks[what - 6][1];
				want = what == 6 ? DROP_NONE : DROP_SCTP_BAD_CHUNK;
			} else if (what >= 3) {
				const uint8_t flags[] = { 0, TCP_SYN | TCP_FIN, TCP_SYN };
				frame[l4 + 13] = flags[what - 3];
				want = what < 5 ? DROP_TCP_BAD_FLAGS : DROP_NONE;
			}
			struct rte_mbuf *mbuf = frame_mbuf(frame, n);
			struct packet p = parse(mbuf);
			if (want != DROP_NONE)
				assert_bad(p, want);
			else
				assert_int_equal(p.kind, PACKET_FRAGMENT);
			if (what == 6) // INIT begins a flow
				assert_int_equal(p.tcp_flags, TCP_SYN);
			frame_mbuf_destroy(mbuf);
		}
	}
}

// IPv6: headers of the unfragmentable part stay before the fragment header, others come behind it, in the first fragment.
static void test_parse_v6_chain(void **state)
{
	struct chain {
		uint8_t bytes[32];
		uint16_t n;
		uint8_t first;
		uint16_t n_payload; // of UDP
		int reason;
		uint16_t fragment_header;
		uint16_t length;
	};
	static const struct chain chains[] = {
		// destination options, fragment: first
		{ { 44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 1, 0, 0, 0, 9 }, 16, 60, 8, DROP_NONE, 62,
			16 },
		// fragment: first, destination options
		{ { 60, 0, 0, 1, 0, 0, 0, 9, 17, 0, 1, 4, 0, 0, 0, 0 }, 16, 44, 8, DROP_NONE, 54,
			24 },
		// the same, with options longer than what is here
		{ { 60, 0, 0, 1, 0, 0, 0, 9, 17, 9, 1, 4, 0, 0, 0, 0 }, 16, 44, 8,
			DROP_FRAGMENT_TINY, 54, 24 },
		// a fragment within a first fragment
		{ { 44, 0, 0, 1, 0, 0, 0, 9, 17, 0, 0, 1, 0, 0, 0, 9 }, 16, 44, 8, DROP_NONE, 54,
			24 },
		// atomic, then a real one
		{ { 44, 0, 0, 0, 0, 0, 0, 9, 17, 0, 0, 1, 0, 0, 0, 9 }, 16, 44, 8, DROP_NONE, 62,
			16 },
		// a later one whose header says that options follow: they are payload
		{ { 60, 0, 0, 9, 0, 0, 0, 9, 17, 9, 1, 4, 0, 0, 0, 0 }, 16, 44, 8, DROP_NONE, 54,
			24 },
	};
	static const uint8_t plain[] = { 60, 0, 1, 4, 0, 0, 0, 0, 60, 0, 1, 4, 0, 0, 0, 0 };
	for (size_t i = 0; i < ARRAY_SIZE(chains); i++) {
		const struct chain *c = &chains[i];
		struct frame_spec s = { .is_v6 = true,
			.protocol = NET_PROTO_UDP,
			.extensions = plain,
			.n_extension_bytes = c->n,
			.first_extension = 60,
			.n_payload = c->n_payload };
		// the builder walks the chain: it must not lie yet
		size_t n = frame_build(&s, frame);
		memcpy(frame + 54, c->bytes, c->n);
		frame[20] = c->first;
		struct rte_mbuf *mbuf = frame_mbuf(frame, n);
		struct packet p = parse(mbuf);
		frame_mbuf_destroy(mbuf);
		assert_int_equal(p.fragment_header, c->fragment_header);
		if (c->reason != DROP_NONE) {
			assert_bad(p, c->reason);
			continue;
		}
		assert_int_equal(p.kind, PACKET_FRAGMENT);
		assert_int_equal(packet_fragment_length(&p), c->length);
		assert_int_equal(p.l4_offset + p.l4_length, n);
		assert_int_equal(p.protocol, i == 3 ? 44 : i == 5 ? 60 : NET_PROTO_UDP);
		assert_int_equal(p.dst_port, i == 3 || i == 5 ? 0 : RTE_BE16(80));
	}
}

// Cut or split at every byte: refused by name, nothing read beyond.
static void test_parse_cut_and_split(void **state)
{
	for (int k = 0; k < 8; k++) {
		struct piece s = { .is_v6 = k & 1,
			.protocol = k & 2 ? NET_PROTO_TCP : NET_PROTO_UDP,
			.offset = k & 4 ? 64 : 0,
			.has_more = true,
			.length = 64 };
		size_t n = piece_build(&s, frame), n_ip = s.is_v6 ? 62 : 34;
		size_t n_headers = n_ip + (k & 4 ? 0 : k & 2 ? 20 : 8);
		struct packet whole = parse_piece(s);
		for (size_t at = 0; at < n; at++) {
			struct rte_mbuf *mbuf = frame_mbuf(frame, at);
			assert_int_equal(parse(mbuf).kind, PACKET_BAD);
			frame_mbuf_destroy(mbuf);
			mbuf = frame_mbuf_split(frame, n, at);
			struct packet p = parse(mbuf);
			if (at < n_headers)
				assert_bad(p, DROP_SEGMENTED_HEADERS);
			else
				assert_memory_equal(&p, &whole, sizeof(p));
			frame_mbuf_destroy(mbuf);
		}
	}
}

// ---------------------------------------------------------------- the cache
struct bench {
	void *memory;
	struct fragments *f;
	uint64_t now_ns;
	struct fragments_answer answer;
	struct rte_mbuf *released[FRAGMENTS_HELD_EACH];
	uint32_t n_released;
	struct rte_mbuf *shown; // the last one, when it is not held
	uint64_t n_alive;
};

static void bench_init(struct bench *b, uint32_t n_datagrams)
{
	struct hash_key key = { { 7, 11 } };
	memset(b, 0, sizeof(*b));
	size_t size = fragments_size(n_datagrams);
	b->memory = aligned_alloc(64, size);
	memset(b->memory, 0xa5, size);
	b->now_ns = 1000 * CLOCK_S;
	assert_int_equal(fragments_init(b->memory, size, n_datagrams, &key, &b->f), 0);
}

static void bench_fini(struct bench *b)
{
	struct rte_mbuf *out[FRAGMENTS_HELD_MAX];
	uint32_t n = fragments_expire(b->f, UINT64_MAX, out, FRAGMENTS_HELD_MAX);
	for (uint32_t i = 0; i < n; i++)
		frame_mbuf_destroy(out[i]);
	assert_int_equal(fragments_n_held(b->f), 0);
	free(b->memory);
}

static enum fragments_kind show_mbuf(struct bench *b, struct rte_mbuf *mbuf)
{
	struct packet p = parse(mbuf);
	assert_int_equal(p.kind, PACKET_FRAGMENT);
	fragments_see(b->f, &p, mbuf, b->now_ns, &b->answer);
	if (b->answer.kind != FRAGMENTS_HELD)
		frame_mbuf_destroy(mbuf);
	if (b->answer.given_up)
		frame_mbuf_destroy(b->answer.given_up);
	return b->answer.kind;
}

static enum fragments_kind show(struct bench *b, struct piece s)
{
	return show_mbuf(b, frame_mbuf(frame, piece_build(&s, frame)));
}

// Settles the first fragment that was just shown.
static void settle(struct bench *b, uint64_t decision)
{
	assert_int_equal(b->answer.kind, FRAGMENTS_FIRST);
	b->n_released = fragments_settle(b->f, &b->answer, decision, b->released);
}

#define assert_first(b, s, decision)                           \
	do {                                                   \
		assert_int_equal(show(b, s), FRAGMENTS_FIRST); \
		settle(b, decision);                           \
	} while (0)
#define assert_known(b, s, want)                               \
	do {                                                   \
		assert_int_equal(show(b, s), FRAGMENTS_KNOWN); \
		assert_int_equal((b)->answer.decision, want);  \
	} while (0)
#define assert_refused(b, s, why)                                                             \
	do {                                                                                  \
		assert_int_equal(show(b, s), FRAGMENTS_REFUSED);                              \
		assert_string_equal(drop_rows[(b)->answer.reason].name, drop_rows[why].name); \
	} while (0)

static struct piece piece(bool is_v6, uint32_t id, uint32_t offset, uint32_t length, bool has_more)
{
	return (struct piece){
		.is_v6 = is_v6, .id = id, .offset = offset, .length = length, .has_more = has_more
	};
}

static void test_init(void **state)
{
	struct hash_key key = { { 1, 2 } };
	struct fragments *f;
	size_t size = fragments_size(FRAGMENTS_DATAGRAMS);
	assert_in_range(size, 500000, 570000); // what packet.h says
	void *memory = aligned_alloc(64, size);
	assert_int_equal(fragments_init(memory, size, 0, &key, &f), -EINVAL);
	assert_int_equal(fragments_init(memory, size, 4, &key, &f), -EINVAL);
	assert_int_equal(fragments_init(memory, size, 12, &key, &f), -EINVAL);
	assert_int_equal(fragments_init(memory, size, 1u << 21, &key, &f), -EINVAL);
	assert_int_equal(fragments_init(memory, size - 1, FRAGMENTS_DATAGRAMS, &key, &f), -EINVAL);
	assert_int_equal(fragments_init(memory, size, FRAGMENTS_DATAGRAMS, &key, &f), 0);
	assert_int_equal(fragments_n_held(f), 0);
	free(memory);
}

static void test_in_order(void **state)
{
	struct bench b;
	bench_init(&b, N_DATAGRAMS);
	for (int is_v6 = 0; is_v6 < 2; is_v6++) {
		assert_first(&b, piece(is_v6, 1, 0, 1480, true), 77);
		assert_int_equal(b.n_released, 0);
		assert_known(&b, piece(is_v6, 1, 1480, 1480, true), 77);
		assert_known(&b, piece(is_v6, 1, 2960, 100, false), 77);
		// whole, and forgotten: the identification may come again
		assert_first(&b, piece(is_v6, 1, 0, 1480, true), 78);
		assert_known(&b, piece(is_v6, 1, 1480, 8, false), 78);
		assert_int_equal(fragments_n_held(b.f), 0);
	}
	bench_fini(&b);
}

static void show_released(struct bench *b, uint32_t n, uint64_t decision)
{
	assert_int_equal(b->n_released, n);
	for (uint32_t i = 0; i < n; i++) {
		assert_int_equal(show_mbuf(b, b->released[i]), FRAGMENTS_KNOWN);
		assert_int_equal(b->answer.decision, decision);
	}
}

static void test_reversed(void **state)
{
	struct bench b;
	bench_init(&b, N_DATAGRAMS);
	for (int is_v6 = 0; is_v6 < 2; is_v6++) {
		for (uint32_t n = 1; n <= FRAGMENTS_HELD_EACH; n++) {
			for (uint32_t i = n; i > 0; i--) {
				enum fragments_kind kind =
					show(&b, piece(is_v6, n, i * 64, 64, i != n));
				assert_int_equal(kind, FRAGMENTS_HELD);
				assert_null(b.answer.given_up);
			}
			assert_int_equal(fragments_n_held(b.f), n);
			assert_first(&b, piece(is_v6, n, 0, 64, true), 100 + n);
			// in the order in which they came
			for (uint32_t i = 0; i < n; i++) {
				struct packet p = parse(b.released[i]);
				assert_int_equal(packet_fragment_offset(&p), (n - i) * 64);
			}
			show_released(&b, n, 100 + n);
			assert_int_equal(fragments_n_held(b.f), 0);
			// all came: forgotten
			assert_int_equal(show(&b, piece(is_v6, n, 64, 64, n != 1)), FRAGMENTS_HELD);
			assert_first(&b, piece(is_v6, n, 0, 64, true), 0);
			frame_mbuf_destroy(b.released[0]);
		}
	}
	bench_fini(&b);
}

// Datagrams that differ in one part of the key alone.
static void test_interleaved(void **state)
{
	struct bench b;
	bench_init(&b, N_DATAGRAMS);
	struct piece keys[] = {
		{ .id = 1 },
		{ .id = 2 },
		{ .id = 1, .host = 1 },
		{ .id = 1, .is_v6 = true },
		{ .id = 0x10001, .is_v6 = true },
		{ .id = 1, .is_v6 = true, .host = 1 },
		{ .id = 1, .protocol = NET_PROTO_TCP },
	};
	for (uint32_t round = 0; round < 4; round++) {
		for (uint32_t i = 0; i < ARRAY_SIZE(keys); i++) {
			struct piece s = keys[i];
			s.length = 64;
			s.offset = round * 64;
			s.has_more = round < 3;
			if (round == 0)
				assert_first(&b, s, i);
			else
				assert_known(&b, s, i);
		}
	}
	// IPv6: the protocol that a later fragment claims is none of the key.
	assert_first(&b, piece(true, 9, 0, 64, true), 5);
	struct piece s = {
		.is_v6 = true, .id = 9, .protocol = 60, .offset = 64, .length = 64, .has_more = true
	};
	assert_known(&b, s, 5);
	bench_fini(&b);
}

static void test_duplicates(void **state)
{
	struct bench b;
	bench_init(&b, N_DATAGRAMS);
	for (int is_v6 = 0; is_v6 < 2; is_v6++) {
		assert_first(&b, piece(is_v6, 1, 0, 64, true), 1);
		assert_known(&b, piece(is_v6, 1, 64, 64, true), 1);
		assert_known(&b, piece(is_v6, 1, 192, 64, true), 1);
		for (int i = 0; i < 3; i++) {
			assert_refused(&b, piece(is_v6, 1, 64, 64, true), DROP_FRAGMENT_DUPLICATE);
			assert_refused(&b, piece(is_v6, 1, 192, 64, true), DROP_FRAGMENT_DUPLICATE);
		}
		assert_known(&b, piece(is_v6, 1, 128, 64, true), 1); // the datagram lives
		assert_refused(&b, piece(is_v6, 1, 128, 64, true), DROP_FRAGMENT_DUPLICATE);
		assert_known(&b, piece(is_v6, 1, 256, 64, false), 1);
		// A first one again, of the same flow: decided again, and starts anew.
		assert_first(&b, piece(is_v6, 2, 0, 64, true), 2);
		assert_known(&b, piece(is_v6, 2, 64, 64, true), 2);
		assert_first(&b, piece(is_v6, 2, 0, 64, true), 3);
		assert_known(&b, piece(is_v6, 2, 64, 64, true), 3);
		assert_known(&b, piece(is_v6, 2, 128, 64, false), 3);
		// With other ports nobody can tell whose the later ones are.
		struct piece other = piece(is_v6, 3, 0, 64, true);
		assert_first(&b, other, 4);
		other.src_port = 40001;
		assert_refused(&b, other, DROP_FRAGMENT_OVERLAP);
		assert_refused(&b, piece(is_v6, 3, 64, 64, true), DROP_FRAGMENT_OVERLAP);
	}
	bench_fini(&b);
}

// Each: what came in order, then the offending fragment; nothing of the datagram passes any more.
static void test_overlaps(void **state)
{
	static const struct {
		const char *name;
		struct {
			uint32_t offset, length;
			bool has_more;
		} before[3], bad;
	} cases[] = {
		{ "teardrop", { { 0, 64, true } }, { 24, 4, false } },
		{ "first, longer", { { 0, 64, true } }, { 0, 72, true } },
		{ "first, shorter", { { 0, 64, true } }, { 0, 56, true } },
		{ "into the first", { { 0, 64, true } }, { 56, 64, true } },
		{ "into the first, last", { { 0, 64, true } }, { 56, 9, false } },
		{ "over the next", { { 0, 64, true }, { 128, 64, true } }, { 64, 72, true } },
		{ "over two", { { 0, 64, true }, { 128, 8, true }, { 144, 8, true } },
			{ 136, 24, true } },
		{ "covers one", { { 0, 64, true }, { 128, 8, true } }, { 120, 24, true } },
		{ "within one", { { 0, 64, true }, { 64, 64, true } }, { 72, 8, true } },
		{ "begins alike", { { 0, 64, true }, { 64, 64, true } }, { 64, 56, true } },
		{ "ends alike", { { 0, 64, true }, { 64, 64, true } }, { 72, 56, true } },
		{ "beyond the end", { { 0, 64, true }, { 128, 8, false } }, { 136, 8, true } },
		{ "last beyond the end", { { 0, 64, true }, { 128, 8, false } },
			{ 136, 8, false } },
		{ "a second end", { { 0, 64, true }, { 128, 8, false } }, { 64, 8, false } },
		{ "more at the end", { { 0, 64, true }, { 128, 8, false } }, { 128, 8, true } },
		{ "end within", { { 0, 64, true }, { 128, 64, true } }, { 64, 8, false } },
		{ "byte of the last", { { 0, 64, true }, { 128, 7, false } }, { 128, 6, false } },
	};
	struct bench b;
	bench_init(&b, N_DATAGRAMS);
	for (uint32_t i = 0; i < ARRAY_SIZE(cases) * 2; i++) {
		uint32_t k = i / 2;
		for (uint32_t n = 0; n < 3 && cases[k].before[n].length > 0; n++) {
			struct piece s = piece(i % 2, i, cases[k].before[n].offset,
				cases[k].before[n].length, cases[k].before[n].has_more);
			if (n == 0)
				assert_first(&b, s, i);
			else
				assert_known(&b, s, i);
		}
		show(&b, piece(i % 2, i, cases[k].bad.offset, cases[k].bad.length,
				 cases[k].bad.has_more));
		if (b.answer.kind != FRAGMENTS_REFUSED || b.answer.reason != DROP_FRAGMENT_OVERLAP)
			fail_msg("%s", cases[k].name);
		assert_refused(&b, piece(i % 2, i, 512, 64, true), DROP_FRAGMENT_OVERLAP);
		assert_refused(&b, piece(i % 2, i, 0, 64, true), DROP_FRAGMENT_OVERLAP);
		b.now_ns += FRAGMENTS_LIFE_NS; // and then its identification is free again
		assert_first(&b, piece(i % 2, i, 0, 64, true), 1);
		assert_known(&b, piece(i % 2, i, 64, 64, false), 1);
	}
	bench_fini(&b);
}

static void test_gaps(void **state)
{
	struct bench b;
	bench_init(&b, N_DATAGRAMS);
	for (int is_v6 = 0; is_v6 < 2; is_v6++) {
		assert_first(&b, piece(is_v6, 1, 0, 8, true), 1);
		for (uint32_t i = 1; i < FRAGMENTS_RANGES; i++)
			assert_known(&b, piece(is_v6, 1, i * 16, 8, true), 1);
		assert_refused(&b, piece(is_v6, 1, 2000, 8, true), DROP_FRAGMENT_GAPS);
		assert_known(&b, piece(is_v6, 1, 8, 8, true), 1); // closes one
		assert_known(&b, piece(is_v6, 1, 2000, 8, true), 1);
		assert_refused(&b, piece(is_v6, 1, 3000, 8, true), DROP_FRAGMENT_GAPS);
		for (uint32_t i = 1; i < FRAGMENTS_RANGES - 1; i++)
			assert_known(&b, piece(is_v6, 1, i * 16 + 8, 8, true), 1);
		uint32_t end = (FRAGMENTS_RANGES - 1) * 16 + 8;
		assert_known(&b, piece(is_v6, 1, end, 2000 - end, true), 1);
		assert_known(&b, piece(is_v6, 1, 2008, 1, false), 1);
	}
	bench_fini(&b);
}

static void test_life(void **state)
{
	struct bench b;
	bench_init(&b, N_DATAGRAMS);
	for (int is_v6 = 0; is_v6 < 2; is_v6++) {
		assert_first(&b, piece(is_v6, 1, 0, 64, true), 1);
		b.now_ns += FRAGMENTS_LIFE_NS - 1;
		assert_known(&b, piece(is_v6, 1, 64, 64, true), 1); // does not prolong it
		b.now_ns++;
		assert_int_equal(show(&b, piece(is_v6, 1, 128, 64, true)), FRAGMENTS_HELD);
		// Another flow, with the same identification, takes what waits for it.
		assert_first(&b, piece(is_v6, 1, 0, 72, true), 2);
		show_released(&b, 1, 2);
		// However long ago.
		b.now_ns += (1ull << 56) + CLOCK_S;
		assert_first(&b, piece(is_v6, 1, 0, 64, true), 3);
	}
	bench_fini(&b);
}

static uint32_t expire(struct bench *b, uint32_t max)
{
	struct rte_mbuf *out[FRAGMENTS_HELD_MAX];
	uint32_t n = fragments_expire(b->f, b->now_ns, out, max);
	for (uint32_t i = 0; i < n; i++)
		frame_mbuf_destroy(out[i]);
	return n;
}

static void test_hold_expires(void **state)
{
	struct bench b;
	bench_init(&b, N_DATAGRAMS);
	for (uint32_t i = 0; i < 6; i++) {
		assert_int_equal(
			show(&b, piece(i & 1, i / 4, 64 + i * 8, 8, true)), FRAGMENTS_HELD);
		b.now_ns += MS;
	}
	b.now_ns += FRAGMENTS_HOLD_NS - 6 * MS - 1;
	assert_int_equal(expire(&b, 100), 0);
	b.now_ns++;
	assert_int_equal(expire(&b, 100), 1);
	b.now_ns += 10 * MS;
	assert_int_equal(expire(&b, 3), 3);
	// The first one finds what is left: piece 4, of IPv4 and identification 1.
	assert_first(&b, piece(false, 1, 0, 64, true), 9);
	show_released(&b, 1, 9);
	assert_first(&b, piece(false, 0, 0, 64, true), 9);
	assert_int_equal(b.n_released, 0);
	assert_int_equal(expire(&b, 100), 1);
	assert_int_equal(fragments_n_held(b.f), 0);
	bench_fini(&b);
}

static void test_hold_bounds(void **state)
{
	struct bench b;
	bench_init(&b, 4096);
	for (uint32_t i = 0; i < FRAGMENTS_HELD_EACH; i++)
		assert_int_equal(show(&b, piece(false, 1, 64 + i * 8, 8, true)), FRAGMENTS_HELD);
	assert_refused(&b, piece(false, 1, 4000, 8, true), DROP_FRAGMENT_NO_FIRST);
	for (uint32_t i = FRAGMENTS_HELD_EACH; i < FRAGMENTS_HELD_MAX; i++) {
		assert_int_equal(show(&b, piece(false, 1000 + i, 64, 8, true)), FRAGMENTS_HELD);
		assert_null(b.answer.given_up);
	}
	assert_int_equal(fragments_n_held(b.f), FRAGMENTS_HELD_MAX);
	// Each further one pushes out the oldest, and with its last one the datagram 1.
	for (uint32_t i = 0; i < FRAGMENTS_HELD_EACH; i++) {
		assert_int_equal(show(&b, piece(true, 2000 + i, 64, 8, true)), FRAGMENTS_HELD);
		assert_non_null(b.answer.given_up);
	}
	assert_int_equal(fragments_n_held(b.f), FRAGMENTS_HELD_MAX);
	assert_first(&b, piece(false, 1, 0, 64, true), 1);
	assert_int_equal(b.n_released, 0);
	assert_first(&b, piece(true, 2000, 0, 64, true), 2);
	show_released(&b, 1, 2);
	// Full, and all of one datagram's but one: its own oldest makes room.
	assert_int_equal(expire(&b, 200), 0);
	b.now_ns += FRAGMENTS_HOLD_NS;
	assert_int_equal(expire(&b, 200), FRAGMENTS_HELD_MAX - 1);
	for (uint32_t i = 0; i < FRAGMENTS_HELD_MAX; i++)
		assert_int_equal(show(&b, piece(true, 3000 + i, 64, 8, true)), FRAGMENTS_HELD);
	assert_int_equal(show(&b, piece(true, 3000, 72, 8, true)), FRAGMENTS_HELD);
	assert_non_null(b.answer.given_up);
	assert_first(&b, piece(true, 3000, 0, 64, true), 3);
	assert_int_equal(b.n_released, 1);
	frame_mbuf_destroy(b.released[0]);
	bench_fini(&b);
}

static uint32_t id_of(const struct rte_mbuf *mbuf)
{
	return frame_get16(frame_bytes(mbuf) + 18);
}

// All wait, one of each datagram; a second one of the oldest takes the place of its first. Whoever comes next does not mix with it.
static void test_hold_own_oldest(void **state)
{
	struct bench b;
	bench_init(&b, 256);
	assert_int_equal(show(&b, piece(false, 0, 64, 8, true)), FRAGMENTS_HELD);
	for (uint32_t id = 1; fragments_n_held(b.f) < FRAGMENTS_HELD_MAX; id++)
		show(&b, piece(false, id, 64, 8, true));
	assert_int_equal(show(&b, piece(false, 0, 128, 8, true)), FRAGMENTS_HELD);
	assert_non_null(b.answer.given_up);
	uint32_t n_met = 0;
	for (uint32_t id = 1000; id < 1064; id++) {
		if (show(&b, piece(false, id, 64, 8, true)) != FRAGMENTS_HELD)
			continue;
		n_met++;
		assert_first(&b, piece(false, id, 0, 64, true), id);
		assert_int_equal(b.n_released, 1);
		assert_int_equal(id_of(b.released[0]), id);
		show_released(&b, 1, id);
	}
	assert_true(n_met > 32);
	assert_first(&b, piece(false, 0, 0, 64, true), 1);
	assert_int_equal(id_of(b.released[0]), 0);
	assert_int_equal(b.n_released, 1);
	frame_mbuf_destroy(b.released[0]);
	bench_fini(&b);
}

// One set: first fragments push out the oldest, later ones without a first never do.
static void test_table_bounds(void **state)
{
	struct bench b;
	bench_init(&b, FRAGMENTS_WAYS);
	for (uint32_t i = 0; i < FRAGMENTS_WAYS; i++) {
		assert_first(&b, piece(i & 1, i, 0, 64, true), i);
		b.now_ns += 100 * MS;
	}
	assert_refused(&b, piece(false, 99, 64, 64, true), DROP_FRAGMENT_NO_FIRST);
	assert_first(&b, piece(false, 100, 0, 64, true), 100);
	assert_refused(&b, piece(false, 0, 64, 64, true), DROP_FRAGMENT_NO_FIRST); // was pushed out
	for (uint32_t i = 1; i < FRAGMENTS_WAYS; i++)
		assert_known(&b, piece(i & 1, i, 64, 64, true), i);
	// Those that are over make room for anybody.
	b.now_ns += FRAGMENTS_LIFE_NS - 700 * MS;
	assert_int_equal(show(&b, piece(false, 99, 64, 64, true)), FRAGMENTS_HELD);
	// What waited for a datagram that is pushed out is given back in its turn.
	b.now_ns += 100 * MS;
	for (uint32_t i = 0; i < FRAGMENTS_WAYS; i++)
		assert_first(&b, piece(true, 200 + i, 0, 64, true), i);
	assert_int_equal(fragments_n_held(b.f), 1);
	assert_int_equal(expire(&b, 10), 0);
	b.now_ns += FRAGMENTS_HOLD_NS;
	assert_int_equal(expire(&b, 10), 1);
	bench_fini(&b);
}

// ---------------------------------------------------------------- against the twin
struct pair {
	struct bench b;
	struct twin twin;
	uint64_t seed;
	uint32_t n_kinds[4];
	uint32_t n_reasons[DROP_MAX];
	uint32_t n_given_up;
	uint32_t n_released;
	uint64_t next_decision;
};

static void pair_show(struct pair *w, struct rte_mbuf *mbuf)
{
	struct packet p = parse(mbuf);
	if (p.kind != PACKET_FRAGMENT) {
		frame_mbuf_destroy(mbuf);
		return;
	}
	struct fragments_answer answer;
	fragments_see(w->b.f, &p, mbuf, w->b.now_ns, &answer);
	twin_see(&w->twin, &p, mbuf, w->b.now_ns, &answer);
	w->n_kinds[answer.kind]++;
	w->n_reasons[answer.reason]++;
	if (answer.given_up) {
		w->n_given_up++;
		frame_mbuf_destroy(answer.given_up);
	}
	struct rte_mbuf *released[FRAGMENTS_HELD_EACH];
	uint32_t n = 0;
	if (answer.kind == FRAGMENTS_FIRST) {
		uint64_t decision = ++w->next_decision;
		uint32_t d = twin_find(&w->twin, &p, mbuf, w->b.now_ns);
		n = fragments_settle(w->b.f, &answer, decision, released);
		twin_settle(&w->twin, d, decision, released, n);
		w->n_released += n;
	}
	if (answer.kind != FRAGMENTS_HELD)
		frame_mbuf_destroy(mbuf);
	for (uint32_t i = 0; i < n; i++)
		pair_show(w, released[i]);
}

static void pair_expire(struct pair *w, uint64_t now_ns)
{
	struct rte_mbuf *out[FRAGMENTS_HELD_MAX];
	uint32_t max = (uint32_t)(frame_random(&w->seed) % FRAGMENTS_HELD_MAX) + 1;
	uint32_t n = fragments_expire(w->b.f, now_ns, out, max);
	twin_expire(&w->twin, now_ns, out, n, max);
	for (uint32_t i = 0; i < n; i++)
		frame_mbuf_destroy(out[i]);
	assert_int_equal(fragments_n_held(w->b.f), w->twin.n_held);
}

// Few datagrams, few offsets: everything meets. Mostly a chain of equal pieces, in any order, now and then an odd one.
static struct piece piece_random(uint64_t *seed)
{
	uint32_t n = (uint32_t)(frame_random(seed) % 6), unit = frame_random(seed) % 16 ? 64 : 8;
	struct piece s = { .is_v6 = frame_random(seed) & 1,
		.host = frame_random(seed) % 2,
		.id = (uint32_t)(frame_random(seed) % 12),
		.protocol = frame_random(seed) % 32 ? NET_PROTO_UDP : NET_PROTO_TCP,
		.offset = n * unit,
		.length = 64,
		.has_more = n < 5 };
	s.src_port = frame_random(seed) % 64 ? 40000 : 40001;
	if (frame_random(seed) % 32 == 0)
		s.length = (uint32_t)(frame_random(seed) % 128 + 1);
	if (frame_random(seed) % 32 == 0)
		s.offset = (uint32_t)(frame_random(seed) % 64 * 8);
	if (frame_random(seed) % 64 == 0)
		s.has_more = !s.has_more;
	return s;
}

static void pair_check_met(const struct pair *w)
{
	for (int kind = FRAGMENTS_FIRST; kind <= FRAGMENTS_REFUSED; kind++)
		assert_true(w->n_kinds[kind] > 500);
	assert_true(w->n_reasons[DROP_FRAGMENT_OVERLAP] > 500);
	assert_true(w->n_reasons[DROP_FRAGMENT_DUPLICATE] > 500);
	assert_true(w->n_released > 500);
}

static void test_twin(void **state)
{
	struct pair *w = calloc(1, sizeof(*w));
	w->seed = 20260401;
	printf("fragments: seed %lu\n", (unsigned long)w->seed);
	bench_init(&w->b, 4096);
	for (int i = 0; i < 40000; i++) {
		struct piece s = piece_random(&w->seed);
		pair_show(w, frame_mbuf(frame, piece_build(&s, frame)));
		w->b.now_ns += frame_random(&w->seed) % (20 * MS);
		if (frame_random(&w->seed) % 1024 == 0)
			w->b.now_ns += frame_random(&w->seed) % (6 * CLOCK_S);
		if (frame_random(&w->seed) % 32 == 0)
			pair_expire(w, w->b.now_ns);
	}
	pair_check_met(w);
	while (fragments_n_held(w->b.f) > 0)
		pair_expire(w, UINT64_MAX);
	bench_fini(&w->b);
	free(w);
}

// Many gaps, and more that wait than may.
static void test_twin_bounds(void **state)
{
	struct pair *w = calloc(1, sizeof(*w));
	w->seed = 20260402;
	bench_init(&w->b, 4096);
	for (int i = 0; i < 10000; i++) {
		struct piece s = { .is_v6 = frame_random(&w->seed) & 1,
			.id = (uint32_t)(frame_random(&w->seed) % 24),
			.offset = (uint32_t)(frame_random(&w->seed) % 48 * 8),
			.length = 8,
			.has_more = true };
		if (frame_random(&w->seed) % (i / 1000 % 2 ? 4 : 200) == 0)
			s.offset = (uint32_t)(frame_random(&w->seed) % 2 * 8);
		else if (s.offset == 0)
			s.offset = 8;
		pair_show(w, frame_mbuf(frame, piece_build(&s, frame)));
		w->b.now_ns += frame_random(&w->seed) % (3 * MS);
		if (i % 2500 == 0)
			w->b.now_ns += FRAGMENTS_LIFE_NS;
	}
	assert_true(w->n_given_up > 100);
	assert_true(w->n_reasons[DROP_FRAGMENT_NO_FIRST] > 100);
	assert_true(w->n_reasons[DROP_FRAGMENT_GAPS] > 100);
	while (fragments_n_held(w->b.f) > 0)
		pair_expire(w, UINT64_MAX);
	bench_fini(&w->b);
	free(w);
}

// ---------------------------------------------------------------- rewrite
static struct address address(const char *text)
{
	struct address a;
	assert_int_equal(address_parse(text, &a), 0);
	return a;
}

static struct packet_nat nat_random(bool is_v6, uint64_t *seed)
{
	struct packet_nat nat = { .src = address(is_v6 ? "2001:db8:5::1" : "192.0.2.1"),
		.dst = address(is_v6 ? "2001:db8:9::2" : "10.9.0.2"),
		.src_port = (rte_be16_t)frame_random(seed),
		.dst_port = (rte_be16_t)frame_random(seed),
		.macs = packet_macs_make(&(struct mac){ { 2, 0, 0, 0, 9, 2 } },
			&(struct mac){ { 2, 0, 0, 0, 0, 2 } }) };
	nat.src.bytes[15] = (uint8_t)frame_random(seed);
	nat.dst.bytes[15] = (uint8_t)frame_random(seed);
	return nat;
}

// Cuts bytes [begin, end) of the L4 packet of a whole frame out as a fragment.
static size_t cut_out(const uint8_t *whole, bool is_v6, size_t begin, size_t end, uint8_t *out)
{
	size_t l4 = is_v6 ? 54 : 34;
	struct frame_layout l = frame_layout_of(whole, 14);
	bool has_more = l4 + end < l.end;
	memcpy(out, whole, l4);
	if (is_v6) {
		memset(out + 54, 0, 8);
		out[54] = l.protocol;
		out[20] = 44;
		frame_put16(out + 56, (uint32_t)begin | has_more);
		frame_put32(out + 58, 0xabcd1234);
		frame_put16(out + 18, (uint32_t)(end - begin + 8));
		memcpy(out + 62, whole + l4 + begin, end - begin);
		return 62 + end - begin;
	}
	frame_put16(out + 20, (uint32_t)begin / 8 | (uint32_t)has_more << 13);
	frame_put16(out + 16, (uint32_t)(end - begin + 20));
	frame_put16(out + 24, frame_v4_checksum(out, 14));
	memcpy(out + 34, whole + l4 + begin, end - begin);
	return 34 + end - begin;
}

// Rewriting the fragments of a packet is rewriting the packet: byte for byte, with its checksums.
static void test_rewrite_is_that_of_the_whole(void **state)
{
	static uint8_t whole[FRAME_MAX], want[FRAME_MAX], part[FRAME_MAX], expected[FRAME_MAX];
	uint64_t seed = 20260403;
	for (int i = 0; i < 20000; i++) {
		struct frame_spec s = { .is_v6 = i & 1,
			.protocol = i & 2 ? NET_PROTO_TCP : NET_PROTO_UDP,
			.tcp_option_bytes = (uint8_t)(frame_random(&seed) % 3 * 4),
			.src_port = (uint16_t)frame_random(&seed),
			.n_payload = (uint16_t)(frame_random(&seed) % 600 + 40) };
		s.udp_no_checksum = !s.is_v6 && frame_random(&seed) % 8 == 0;
		size_t n = frame_build(&s, whole), l4 = s.is_v6 ? 54 : 34;
		struct packet_nat nat = nat_random(s.is_v6, &seed);
		struct rte_mbuf *mbuf = frame_mbuf(whole, n);
		struct packet p = parse(mbuf);
		packet_rewrite_fullnat(mbuf, &p, &nat);
		memcpy(want, frame_bytes(mbuf), n);
		frame_mbuf_destroy(mbuf);
		for (size_t begin = 0, end; begin < n - l4; begin = end) {
			end = begin + (frame_random(&seed) % 20 + (begin ? 1 : 5)) * 8;
			end = end < n - l4 ? end : n - l4;
			if (begin == 0 && end == n - l4)
				end -= 8 + (end & 7);
			size_t n_part = cut_out(whole, s.is_v6, begin, end, part);
			assert_int_equal(cut_out(want, s.is_v6, begin, end, expected), n_part);
			mbuf = frame_mbuf(part, n_part);
			p = parse(mbuf);
			assert_int_equal(p.kind, PACKET_FRAGMENT);
			packet_rewrite_fragment(mbuf, &p, &nat);
			assert_memory_equal(frame_bytes(mbuf), expected, n_part);
			frame_mbuf_destroy(mbuf);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_fields),
		cmocka_unit_test(test_parse_identification),
		cmocka_unit_test(test_parse_lengths),
		cmocka_unit_test(test_parse_tiny),
		cmocka_unit_test(test_parse_first_l4),
		cmocka_unit_test(test_parse_v6_chain),
		cmocka_unit_test(test_parse_cut_and_split),
		cmocka_unit_test(test_init),
		cmocka_unit_test(test_in_order),
		cmocka_unit_test(test_reversed),
		cmocka_unit_test(test_interleaved),
		cmocka_unit_test(test_duplicates),
		cmocka_unit_test(test_overlaps),
		cmocka_unit_test(test_gaps),
		cmocka_unit_test(test_life),
		cmocka_unit_test(test_hold_expires),
		cmocka_unit_test(test_hold_bounds),
		cmocka_unit_test(test_hold_own_oldest),
		cmocka_unit_test(test_table_bounds),
		cmocka_unit_test(test_twin),
		cmocka_unit_test(test_twin_bounds),
		cmocka_unit_test(test_rewrite_is_that_of_the_whole),
	};
	return cmocka_run_group_tests_name("fragments", tests, NULL, NULL);
}
