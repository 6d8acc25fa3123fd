// SPDX-License-Identifier: BSD-3-Clause
// SCTP: what a first chunk means, CRC32c of every variant against one bit by bit, NAT, quoted packets, answers.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "frames_priv.h"

static uint8_t frame[FRAME_MAX], want[FRAME_MAX];
static uint8_t large[14 + 65535];

static const char *const variants[] = { "scalar", "sse4.2", "pclmul" };

static struct packet parse(const struct rte_mbuf *mbuf)
{
	struct packet p;
	memset(&p, 0xa5, sizeof(p));
	packet_parse(mbuf, NULL, &p);
	return p;
}

static struct packet parse_bytes(const void *bytes, size_t n)
{
	struct rte_mbuf *mbuf = frame_mbuf(bytes, n);
	struct packet p = parse(mbuf);
	frame_mbuf_destroy(mbuf);
	return p;
}

static void assert_frame(const struct rte_mbuf *mbuf, const uint8_t *bytes, size_t n)
{
	assert_int_equal(mbuf->pkt_len, n);
	assert_int_equal(mbuf->data_len, n);
	for (size_t i = 0; i < n; i++) {
		if (frame_bytes(mbuf)[i] != bytes[i])
			fail_msg("byte %zu is %02x, not %02x", i, frame_bytes(mbuf)[i], bytes[i]);
	}
}

// ---------------------------------------------------------------- parse
static void test_flags(void **state)
{
	static const uint8_t flags[256] = {
		[SCTP_INIT] = TCP_SYN,
		[SCTP_INIT_ACK] = TCP_SYN | TCP_ACK,
		[SCTP_ABORT] = TCP_RST,
		[SCTP_SHUTDOWN] = TCP_FIN,
		[SCTP_SHUTDOWN_ACK] = TCP_FIN,
		[SCTP_SHUTDOWN_COMPLETE] = TCP_RST,
	};
	for (int type = 0; type < 256; type++) {
		struct frame_spec s = { .is_v6 = type & 1,
			.protocol = NET_PROTO_SCTP,
			.sctp_chunk = (uint8_t)type,
			.n_payload = 16 };
		struct packet p = parse_bytes(frame, frame_build(&s, frame));
		assert_int_equal(p.kind, PACKET_FLOW);
		assert_int_equal(p.tcp_flags, flags[type] ? flags[type] : TCP_ACK);
		assert_int_equal(p.src_port, RTE_BE16(40000));
		assert_int_equal(p.dst_port, RTE_BE16(80));
	}
}

// One or two bytes of the SCTP packet changed. An INIT of 20 bytes is at 0, DATA of 16 at 1.
static void test_refused(void **state)
{
	static const struct {
		uint8_t spec, at, value, reason;
	} edits[] = {
		{ 0, 7, 1, DROP_SCTP_BAD_CHUNK },   // INIT with a verification tag
		{ 0, 15, 19, DROP_SCTP_BAD_CHUNK }, // shorter than an INIT
		{ 0, 15, 21, DROP_SCTP_BAD_CHUNK }, // beyond the packet
		{ 0, 14, 1, DROP_SCTP_BAD_CHUNK },
		{ 0, 15, 20, DROP_NONE },
		{ 1, 15, 3, DROP_SCTP_BAD_CHUNK }, // shorter than its header
		{ 1, 15, 0, DROP_SCTP_BAD_CHUNK },
		{ 1, 15, 4, DROP_NONE }, // others may follow, whatever they are
		{ 1, 15, 16, DROP_NONE },
		{ 1, 15, 17, DROP_SCTP_BAD_CHUNK },
		{ 1, 14, 0xff, DROP_SCTP_BAD_CHUNK },
		{ 1, 12, SCTP_INIT, DROP_SCTP_BAD_CHUNK },
	};
	for (size_t i = 0; i < ARRAY_SIZE(edits) * 4; i++) {
		struct frame_spec s = { .protocol = NET_PROTO_SCTP,
			.sctp_chunk = edits[i / 4].spec == 0 ? SCTP_INIT : 0,
			.is_v6 = i & 1,
			.n_payload = edits[i / 4].spec == 0 ? 16 : 12,
			.n_padding = i & 2 ? 30 : 0 };
		size_t n = frame_build(&s, frame);
		frame[(s.is_v6 ? 54 : 34) + edits[i / 4].at] = edits[i / 4].value;
		struct packet p = parse_bytes(frame, n);
		assert_string_equal(drop_rows[p.reason].name, drop_rows[edits[i / 4].reason].name);
		assert_int_equal(p.kind == PACKET_BAD, edits[i / 4].reason != DROP_NONE);
	}
	// Shorter than a chunk header, in a frame that is long enough.
	for (uint16_t left = 0; left < 16; left++) {
		uint8_t raw[16] = { 0, 9, 0, 9, 1, 1, 1, 1, 0, 0, 0, 0, 3, 0, 0, 4 };
		struct frame_spec s = {
			.protocol = 99, .payload = raw, .n_payload = left, .n_padding = 40
		};
		size_t n = frame_build(&s, frame);
		memcpy(frame + 34, raw, sizeof(raw));
		frame[23] = NET_PROTO_SCTP;
		frame_put16(frame + 24, frame_v4_checksum(frame, 14));
		assert_int_equal(parse_bytes(frame, n).reason, DROP_SCTP_TRUNCATED);
	}
	// Tag 0 without an INIT; an INIT whose own tag is 0.
	for (int i = 0; i < 2; i++) {
		struct frame_spec s = {
			.protocol = NET_PROTO_SCTP, .sctp_chunk = i ? SCTP_INIT : 0, .n_payload = 16
		};
		size_t n = frame_build(&s, frame);
		memset(frame + (i ? 50 : 38), 0, 4);
		assert_int_equal(parse_bytes(frame, n).reason, DROP_SCTP_BAD_CHUNK);
	}
}

// An INIT is alone: up to 3 bytes of padding may follow, no more.
static void test_init_is_alone(void **state)
{
	for (uint16_t n_more = 0; n_more < 12; n_more++) {
		struct frame_spec s = { .protocol = NET_PROTO_SCTP,
			.sctp_chunk = SCTP_INIT,
			.n_payload = (uint16_t)(17 + n_more) };
		size_t n = frame_build(&s, frame);
		frame_put16(frame + 48, 21);
		struct packet p = parse_bytes(frame, n);
		assert_int_equal(p.reason, n_more <= 3 ? DROP_NONE : DROP_SCTP_BAD_CHUNK);
	}
}

// ---------------------------------------------------------------- checksums
static void test_variants(void **state)
{
	assert_null(packet_select_variant("mmx"));
	assert_string_equal(packet_select_variant("scalar"), "scalar");
	const char *best = packet_select_variant(NULL);
	assert_non_null(best);
	assert_string_equal(packet_select_variant(best), best);
	printf("packet: crc32c by %s\n", best);
}

// RFC 3720 B.4: 32 bytes of zeros give aa 36 91 8a. The oracle itself.
static void test_oracle(void **state)
{
	const uint8_t zeros[32] = { 0 };
	assert_int_equal((uint32_t)~frame_crc32c(~0u, zeros, 32), 0x8a9136aa);
	uint8_t rising[32];
	for (uint8_t i = 0; i < 32; i++)
		rising[i] = i;
	assert_int_equal((uint32_t)~frame_crc32c(~0u, rising, 32), 0x46dd794e);
}

// Every length of a while, cut in segments anywhere: right, and any flipped bit is seen.
static void test_checksum(void **state)
{
	uint64_t seed = 7;
	for (uint32_t i = 0; i < 1200; i++) {
		if (packet_select_variant(variants[i % 3]) == NULL)
			continue;
		struct frame_spec s = { .is_v6 = i & 1,
			.protocol = NET_PROTO_SCTP,
			.n_payload = (uint16_t)(i / 3),
			.n_padding = (uint16_t)(i & 4) };
		size_t n = frame_build(&s, frame), l4 = s.is_v6 ? 54 : 34;
		size_t first = l4 + 16 + frame_random(&seed) % (n - l4 - 15);
		struct rte_mbuf *mbuf =
			i & 8 ? frame_mbuf_split(frame, n, first) : frame_mbuf(frame, n);
		struct packet p = parse(mbuf);
		assert_true(packet_sctp_checksum_ok(mbuf, &p));
		assert_true(packet_l4_checksum_ok(mbuf, &p));
		assert_false(packet_l4_checksum_is_partial(mbuf, &p));
		size_t at = l4 + frame_random(&seed) % (n - s.n_padding - l4);
		uint8_t *byte = at < mbuf->data_len ? frame_bytes(mbuf) + at
						    : frame_bytes(mbuf->next) + at - first;
		*byte ^= (uint8_t)(1u << frame_random(&seed) % 8);
		assert_false(packet_sctp_checksum_ok(mbuf, &p));
		memset(frame_bytes(mbuf) + l4 + 8, 0, 4); // left to an offload that never came
		assert_true(packet_l4_checksum_is_partial(mbuf, &p));
		frame_mbuf_destroy(mbuf);
	}
	packet_select_variant(NULL);
}

static void random_bytes(uint64_t *seed, void *out, size_t n)
{
	uint8_t *at = out;
	for (size_t i = 0; i < n; i++)
		at[i] = (uint8_t)(frame_random(seed) >> 40);
}

static void random_nat(uint64_t *seed, bool is_v6, struct packet_nat *nat)
{
	random_bytes(seed, nat, sizeof(*nat));
	if (!is_v6) {
		nat->src = address_from_v4(nat->src.words[3]);
		nat->dst = address_from_v4(nat->dst.words[3]);
	}
}

static void expect_fullnat(uint8_t *out, bool is_v6, const struct packet_nat *nat)
{
	size_t l4 = frame_layout_of(out, 14).l4;
	memcpy(out, &nat->macs, 12);
	out[is_v6 ? 21 : 22]--;
	memcpy(out + (is_v6 ? 22 : 26), nat->src.bytes + (is_v6 ? 0 : 12), is_v6 ? 16 : 4);
	memcpy(out + (is_v6 ? 38 : 30), nat->dst.bytes + (is_v6 ? 0 : 12), is_v6 ? 16 : 4);
	memcpy(out + l4, &nat->src_port, 2);
	memcpy(out + l4 + 2, &nat->dst_port, 2);
	frame_fix_checksums(out, 14);
}

static void test_fullnat(void **state)
{
	uint64_t seed = 20260301;
	printf("packet: seed %lu\n", (unsigned long)seed);
	for (uint32_t i = 0; i < 60000; i++) {
		if (packet_select_variant(variants[i % 3]) == NULL)
			continue;
		uint8_t payload[700];
		random_bytes(&seed, payload, 40);
		memset(payload + 40, (int)i, sizeof(payload) - 40);
		struct frame_spec s = { .is_v6 = i / 3 & 1,
			.protocol = NET_PROTO_SCTP,
			.sctp_chunk = 3,
			.src_port = (uint16_t)frame_random(&seed),
			.payload = payload,
			.n_payload = (uint16_t)(i & 7 ? frame_random(&seed) % 40
						      : frame_random(&seed) % 700) };
		size_t n = frame_build(&s, frame);
		struct packet_nat nat;
		random_nat(&seed, s.is_v6, &nat);
		memcpy(want, frame, n);
		expect_fullnat(want, s.is_v6, &nat);
		size_t l4 = s.is_v6 ? 54 : 34;
		uint32_t wrong = i & 64 ? (uint32_t)frame_random(&seed) : 0;
		for (int k = 0; k < 4; k++) { // a wrong checksum stays as wrong
			frame[l4 + 8 + (size_t)k] ^= (uint8_t)(wrong >> 8 * k);
			want[l4 + 8 + (size_t)k] ^= (uint8_t)(wrong >> 8 * k);
		}
		struct rte_mbuf *mbuf = frame_mbuf(frame, n);
		struct packet p = parse(mbuf);
		assert_int_equal(p.kind, PACKET_FLOW);
		packet_rewrite_fullnat(mbuf, &p, &nat);
		assert_frame(mbuf, want, n);
		assert_int_equal(packet_sctp_checksum_ok(mbuf, &p), wrong == 0);
		frame_mbuf_destroy(mbuf);
	}
	packet_select_variant(NULL);
}

// Any length that an IP packet can have, by each variant; the payload far behind in a second segment.
static void test_fullnat_large(void **state)
{
	uint64_t seed = 3;
	random_bytes(&seed, large, sizeof(large));
	for (uint32_t i = 0; i < 3 * 260; i++) {
		if (packet_select_variant(variants[i % 3]) == NULL)
			continue;
		size_t n_sctp = i < 3 * 240 ? 16 + frame_random(&seed) % (65535 - 20 - 16 + 1)
					    : 65515 - (i / 3 - 240);
		struct frame_spec s = { .protocol = NET_PROTO_SCTP, .sctp_chunk = 3 };
		memcpy(large, frame, frame_build(&s, frame));
		frame_put16(large + 16, (uint32_t)n_sctp + 20);
		frame_fix_checksums(large, 14);
		struct packet_nat nat;
		random_nat(&seed, false, &nat);
		struct rte_mbuf *mbuf = frame_mbuf_split(large, 34 + n_sctp, 50);
		struct packet p = parse(mbuf);
		assert_int_equal(p.kind, PACKET_FLOW);
		assert_true(packet_sctp_checksum_ok(mbuf, &p));
		packet_rewrite_fullnat(mbuf, &p, &nat);
		assert_true(packet_sctp_checksum_ok(mbuf, &p));
		expect_fullnat(large, false, &nat);
		assert_memory_equal(frame_bytes(mbuf), large, 50);
		frame_mbuf_destroy(mbuf);
	}
	packet_select_variant(NULL);
}

// ---------------------------------------------------------------- quoted packets
static size_t build_quoted(bool is_v6, bool rewritten, uint16_t n_payload, uint8_t *out)
{
	struct frame_spec inner = { .is_v6 = is_v6,
		.protocol = NET_PROTO_SCTP,
		.src = is_v6 ? "2001:db8:5::1" : "192.0.2.1",
		.dst = is_v6 ? "2001:db8:9::2" : "10.9.0.2",
		.src_port = 3001,
		.dst_port = 8080,
		.n_payload = n_payload };
	if (rewritten) {
		inner.src = inner.dst = NULL;
		inner.src_port = inner.dst_port = 0;
	}
	return frame_build(&inner, out);
}

static struct address address(const char *text)
{
	struct address a;
	assert_int_equal(address_parse(text, &a), 0);
	return a;
}

// Quotes that end anywhere: ports change, the checksum does when it is there in full, and is that of the whole packet.
static void test_quoted(void **state)
{
	for (int i = 0; i < 2 * 60; i++) {
		bool is_v6 = i & 1;
		uint8_t quoted_was[FRAME_MAX], quoted_is[FRAME_MAX];
		size_t n_ip = is_v6 ? 40 : 20, left = n_ip + (size_t)i / 2;
		size_t whole = build_quoted(is_v6, false, 300, quoted_was) - 14;
		build_quoted(is_v6, true, 300, quoted_is);
		assert_true(left < whole);
		struct frame_spec outer = { .is_v6 = is_v6,
			.protocol = is_v6 ? NET_PROTO_ICMPV6 : NET_PROTO_ICMP,
			.icmp_type = is_v6 ? 1 : 3,
			.icmp_code = is_v6 ? 4 : 3,
			.dst = is_v6 ? "2001:db8:5::1" : "192.0.2.1",
			.payload = quoted_was + 14,
			.n_payload = (uint16_t)left };
		size_t n = frame_build(&outer, frame);
		struct rte_mbuf *mbuf = frame_mbuf(frame, n);
		struct packet p = parse(mbuf), quoted;
		bool readable = packet_parse_quoted(mbuf, &p, &quoted);
		assert_int_equal(readable, left >= n_ip + 8);
		if (readable) {
			struct packet_nat inner = {
				.src = address(is_v6 ? "2001:db8:c::7" : "198.51.100.7"),
				.dst = address(is_v6 ? "2001:db8:1::10" : "203.0.113.10"),
				.src_port = RTE_BE16(40000),
				.dst_port = RTE_BE16(80),
			};
			struct packet_nat to = { .src = inner.dst, .dst = inner.src };
			assert_int_equal(quoted.protocol, NET_PROTO_SCTP);
			packet_rewrite_icmp_error(mbuf, &p, &quoted, &to, &inner);
			assert_true(packet_l4_checksum_ok(
				mbuf, &(struct packet){ .kind = PACKET_ICMP_ERROR,
					      .protocol = p.protocol,
					      .is_v6 = is_v6,
					      .src = to.src,
					      .dst = to.dst,
					      .l4_offset = p.l4_offset,
					      .l4_length = p.l4_length }));
			if (left < n_ip + 12) // half a checksum is left alone
				memcpy(quoted_is + 14 + n_ip + 8, quoted_was + 14 + n_ip + 8, 4);
			assert_memory_equal(frame_bytes(mbuf) + n - left, quoted_is + 14, left);
		}
		frame_mbuf_destroy(mbuf);
	}
}

// A quoted first fragment does not say how long its packet was.
static void test_quoted_fragment(void **state)
{
	uint8_t inner[FRAME_MAX];
	size_t n_inner = build_quoted(false, false, 100, inner) - 14;
	inner[20] = 0x20;
	struct frame_spec outer = { .protocol = NET_PROTO_ICMP,
		.icmp_type = 3,
		.dst = "192.0.2.1",
		.payload = inner + 14,
		.n_payload = (uint16_t)n_inner };
	struct rte_mbuf *mbuf = frame_mbuf(frame, frame_build(&outer, frame));
	struct packet p = parse(mbuf), quoted;
	assert_true(packet_parse_quoted(mbuf, &p, &quoted));
	struct packet_nat nat = { .src_port = RTE_BE16(1), .dst_port = RTE_BE16(2) };
	nat.src = nat.dst = address("203.0.113.1");
	packet_rewrite_icmp_error(mbuf, &p, &quoted, &nat, &nat);
	const uint8_t *sctp = frame_bytes(mbuf) + 34 + 8 + 20;
	assert_memory_equal(sctp, ((uint8_t[]){ 0, 1, 0, 2 }), 4);
	assert_memory_equal(sctp + 4, inner + 14 + 20 + 4, n_inner - 24);
	frame_mbuf_destroy(mbuf);
}

// ---------------------------------------------------------------- answers
struct answer_case {
	uint8_t chunks[32]; // from the first chunk's type on
	uint8_t n;
	uint8_t answer; // chunk type; 0: silence
	uint8_t flags;
	uint32_t tag;
};
#define TAG  0x5c7a6001
#define INIT SCTP_INIT, 0, 0, 20, 1, 2, 3, 4, 0, 0, 8, 0, 0, 1, 0, 1, 9, 9, 9, 9
static const struct answer_case answer_cases[] = {
	{ { INIT }, 20, SCTP_ABORT, 0, 0x01020304 },
	{ { 0, 3, 0, 17, 0, 0, 0, 1 }, 20, SCTP_ABORT, SCTP_FLAG_T, TAG },
	{ { 10, 0, 0, 8, 1, 1, 1, 1 }, 8, SCTP_ABORT, SCTP_FLAG_T, TAG },
	{ { SCTP_SHUTDOWN, 0, 0, 8, 1, 1, 1, 1 }, 8, SCTP_ABORT, SCTP_FLAG_T, TAG },
	{ { SCTP_SHUTDOWN_ACK, 0, 0, 4 }, 4, SCTP_SHUTDOWN_COMPLETE, SCTP_FLAG_T, TAG },
	{ { 3, 0, 0, 4, SCTP_SHUTDOWN_ACK, 0, 0, 4 }, 8, SCTP_SHUTDOWN_COMPLETE, SCTP_FLAG_T, TAG },
	{ { 0xc1, 0, 0, 4 }, 4, SCTP_ABORT, SCTP_FLAG_T, TAG },
	{ { 63, 0, 0, 4, SCTP_ERROR, 0, 0, 8, 0, 4, 0, 4 }, 12, SCTP_ABORT, SCTP_FLAG_T, TAG },
	{ { SCTP_ERROR, 0, 0, 5, 3, 0, 0, 0 }, 8, SCTP_ABORT, SCTP_FLAG_T, TAG },
	{ { SCTP_ERROR, 0, 0, 4 }, 4, SCTP_ABORT, SCTP_FLAG_T, TAG },
	{ { SCTP_ABORT, 0, 0, 4 }, 4 }, { { 3, 0, 0, 5, 0, 0, 0, 0, SCTP_ABORT, 0, 0, 4 }, 12 },
	{ { SCTP_SHUTDOWN_COMPLETE, 1, 0, 4 }, 4 }, { { SCTP_COOKIE_ACK, 0, 0, 4 }, 4 },
	{ { SCTP_ERROR, 0, 0, 12, 0, 3, 0, 8 }, 12 },
	{ { 3, 0, 0, 4, 3, 0, 0 }, 7 },    // half a chunk header
	{ { 3, 0, 0, 4, 3, 0, 0, 3 }, 8 }, // too short for its own header
	{ { 3, 0, 0, 4, 3, 0, 0, 5 }, 8 }, // beyond the packet
};

static size_t build_answer(const struct answer_case *c, bool is_v6)
{
	struct frame_spec s = { .is_v6 = is_v6,
		.protocol = NET_PROTO_SCTP,
		.src = is_v6 ? "2001:db8:1::10" : "203.0.113.10",
		.dst = is_v6 ? "2001:db8:c::7" : "198.51.100.7",
		.src_port = 80,
		.dst_port = 40000,
		.ttl = 64,
		.sctp_chunk = c->answer,
		.sctp_tag = c->tag,
		.v4_fragment = RTE_BE16(0x4000) };
	size_t n = frame_build(&s, want);
	uint8_t macs[6];
	memcpy(macs, want, 6);
	memcpy(want, want + 6, 6);
	memcpy(want + 6, macs, 6);
	if (is_v6) {
		frame_put32(want + 14, 0x60000000);
	} else {
		want[15] = 0;
		frame_put16(want + 18, 0);
	}
	want[n - 3] = c->flags;
	frame_fix_checksums(want, 14);
	frame_fix_sctp(want + n - 16, 16);
	return n;
}

static void test_answer(void **state)
{
	static const uint8_t options[] = { 0, 0, 1, 4, 0, 0, 0, 0 };
	for (size_t i = 0; i < ARRAY_SIZE(answer_cases) * 5; i++) {
		const struct answer_case *c = &answer_cases[i / 5];
		struct frame_spec s = { .is_v6 = i % 5 & 1,
			.protocol = NET_PROTO_SCTP,
			.sctp_chunk = c->chunks[0],
			.payload = c->chunks + 4,
			.n_payload = (uint16_t)(c->n - 4),
			.n_padding = i % 5 == 2 ? 6 : 0 };
		if (i % 5 == 3) {
			s.extensions = options;
			s.n_extension_bytes = 8;
			s.first_extension = 60;
		}
		size_t n = frame_build(&s, frame), l4 = frame_layout_of(frame, 14).l4;
		memcpy(frame + l4 + 12, c->chunks, c->n);
		frame_fix_checksums(frame, 14);
		if (i % 5 == 4)
			frame[0] = 3; // to a group
		struct rte_mbuf *mbuf = frame_mbuf(frame, n);
		struct packet p = parse(mbuf);
		assert_int_equal(p.kind, PACKET_FLOW);
		bool answered = c->answer != 0 && i % 5 != 4;
		assert_int_equal(packet_answer_sctp_abort(mbuf, &p), answered);
		if (answered)
			assert_frame(mbuf, want, build_answer(c, s.is_v6));
		else
			assert_frame(mbuf, frame, n);
		assert_false(packet_answer_reset(mbuf, &p));
		frame_mbuf_destroy(mbuf);
	}
}

static void test_answer_refused(void **state)
{
	// Not in one segment; not SCTP; 65 chunks.
	struct frame_spec s = { .protocol = NET_PROTO_SCTP, .sctp_chunk = 3, .n_payload = 256 };
	size_t n = frame_build(&s, frame);
	frame_put16(frame + 48, 4);
	for (size_t at = 50; at < n; at += 4)
		frame_put32(frame + at, 0x03000004);
	for (uint32_t cut = 0; cut <= 4; cut += 4) { // 65 chunks, 64 chunks
		frame_put16(frame + 16, (uint32_t)n - 14 - cut);
		frame_fix_checksums(frame, 14);
		struct rte_mbuf *mbuf = frame_mbuf(frame, n);
		struct packet p = parse(mbuf);
		assert_int_equal(packet_answer_sctp_abort(mbuf, &p), cut == 4);
		frame_mbuf_destroy(mbuf);
	}
	struct rte_mbuf *split = frame_mbuf_split(frame, n, 60);
	struct packet p = parse(split);
	assert_int_equal(p.kind, PACKET_FLOW);
	assert_false(packet_answer_sctp_abort(split, &p));
	frame_mbuf_destroy(split);
	// Cut to its first segment, at every byte of two chunks: answered by what is left, an error without its cause is not.
	static const uint8_t chunks[] = { 3, 0, 0, 4, SCTP_ERROR, 0, 0, 8, 0, 4, 0, 4 };
	struct frame_spec two = {
		.protocol = NET_PROTO_SCTP, .payload = chunks + 4, .n_payload = 8, .sctp_chunk = 3
	};
	n = frame_build(&two, frame);
	frame_put16(frame + 48, 4);
	frame_fix_checksums(frame, 14);
	for (size_t first = 50; first < n; first++) {
		split = frame_mbuf_split(frame, n, first);
		p = parse(split);
		assert_int_equal(p.kind, PACKET_FLOW);
		frame_mbuf_destroy(packet_detach_tail(split));
		assert_int_equal(packet_answer_sctp_abort(split, &p), first < 54 || first >= 56);
		frame_mbuf_destroy(split);
	}
	n = frame_build(&(struct frame_spec){ .n_payload = 40 }, frame);
	struct rte_mbuf *tcp = frame_mbuf(frame, n);
	p = parse(tcp);
	assert_false(packet_answer_sctp_abort(tcp, &p));
	assert_frame(tcp, frame, n);
	frame_mbuf_destroy(tcp);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_init_is_alone),
		cmocka_unit_test(test_variants),
		cmocka_unit_test(test_oracle),
		cmocka_unit_test(test_checksum),
		cmocka_unit_test(test_fullnat),
		cmocka_unit_test(test_fullnat_large),
		cmocka_unit_test(test_quoted),
		cmocka_unit_test(test_quoted_fragment),
		cmocka_unit_test(test_answer),
		cmocka_unit_test(test_answer_refused),
	};
	return cmocka_run_group_tests_name("packet_sctp", tests, NULL, NULL);
}
