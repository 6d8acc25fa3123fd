// SPDX-License-Identifier: BSD-3-Clause
// TCP segments with a TOA option, a PROXY header, without their payload, or shifted in sequence space, on mbufs of exact length. The oracle
// puts the bytes together one by one and recomputes the checksums.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "frames_priv.h"

static uint8_t frame[FRAME_MAX], want[FRAME_MAX];

static struct address address(const char *text)
{
	struct address a;
	assert_int_equal(address_parse(text, &a), 0);
	return a;
}

static struct packet parse(const struct rte_mbuf *mbuf)
{
	struct packet p;
	packet_parse(mbuf, NULL, &p);
	assert_int_equal(p.kind, PACKET_FLOW);
	return p;
}

static void assert_bytes(const struct rte_mbuf *mbuf, const uint8_t *bytes, size_t n)
{
	assert_int_equal(mbuf->pkt_len, n);
	for (size_t at = 0; mbuf != NULL; mbuf = mbuf->next) {
		assert_true(at + mbuf->data_len <= n);
		for (size_t i = 0; i < mbuf->data_len; i++) {
			if (frame_bytes(mbuf)[i] != bytes[at + i])
				fail_msg("byte %zu is %02x, not %02x", at + i, frame_bytes(mbuf)[i],
					bytes[at + i]);
		}
		at += mbuf->data_len;
		assert_true(mbuf->next != NULL || at == n);
	}
}

// After a change the struct packet says what parsing says. The TTL may be another.
static void assert_packet(const struct rte_mbuf *mbuf, const struct packet *p)
{
	struct packet again = parse(mbuf);
	assert_memory_equal(&again, p, sizeof(again));
}

// `frame` of n bytes with more put in at `at`; lengths and checksums are right.
static size_t put_in(size_t n, size_t at, const void *more, size_t n_more)
{
	bool is_v6 = frame[12] == 0x86;
	memcpy(want, frame, at);
	memcpy(want + at, more, n_more);
	memcpy(want + at + n_more, frame + at, n - at);
	size_t field = is_v6 ? 18 : 16;
	frame_put16(want + field, frame_get16(want + field) + (uint32_t)n_more);
	frame_fix_checksums(want, 14);
	return n + n_more;
}

// The frame in one segment or two, with headroom in the first.
static struct rte_mbuf *mbuf_make(size_t n, size_t headroom, size_t first)
{
	if (first >= n)
		return frame_mbuf_room(frame, n, headroom, 0);
	struct rte_mbuf *mbuf = frame_mbuf_room(frame, first, headroom, 0);
	mbuf->next = frame_mbuf(frame + first, n - first);
	mbuf->nb_segs = 2;
	mbuf->pkt_len = (uint32_t)n;
	return mbuf;
}

static size_t header_end(void)
{
	size_t l4 = frame_layout_of(frame, 14).l4;
	return l4 + (frame[l4 + 12] >> 4) * 4u;
}

static const uint8_t extensions[] = { 60, 0, 1, 4, 0, 0, 0, 0 };

// Both families, with and without extension headers and TCP options, odd and even payloads, padding.
static size_t build(uint32_t i, uint8_t option_bytes)
{
	struct frame_spec s = { .is_v6 = i & 1,
		.tcp_option_bytes = option_bytes,
		.sequence = 0xfffffff0 + i,
		.acknowledgement = i * 77,
		.n_payload = (uint16_t)(i / 2 % 7),
		.n_padding = i % 5 == 0 ? 6 : 0 };
	if (i % 11 == 1) {
		s.extensions = extensions;
		s.n_extension_bytes = s.is_v6 ? 8 : 0;
		s.first_extension = 60;
	}
	return frame_build(&s, frame);
}

// ---------------------------------------------------------------- TOA
static const uint8_t toa_v4[] = { 254, 8, 0x9c, 0x40, 198, 51, 100, 7 };
static const uint8_t toa_v6[] = { 254, 20, 0x9c, 0x40, 0x20, 1, 0xd, 0xb8, 0, 0xc, 0, 0, 0, 0, 0, 0,
	0, 0, 0, 7 };

static void toa_of(bool client_is_v6, struct address *client, const uint8_t **option, size_t *n)
{
	*client = address(client_is_v6 ? "2001:db8:c::7" : "198.51.100.7");
	*option = client_is_v6 ? toa_v6 : toa_v4;
	*n = client_is_v6 ? sizeof(toa_v6) : sizeof(toa_v4);
}

static size_t expect_toa(size_t n, const uint8_t *option, size_t n_option)
{
	size_t l4 = frame_layout_of(frame, 14).l4;
	size_t n_want = put_in(n, l4 + 20, option, n_option);
	want[l4 + 12] = (uint8_t)(want[l4 + 12] + (n_option / 4 << 4));
	frame_fix_checksums(want, 14);
	return n_want;
}

// Clients of both families, to backends of both; with and without headroom, split anywhere.
static void test_toa(void **state)
{
	for (uint32_t i = 0; i < 2 * 2 * 41; i++) {
		struct address client;
		const uint8_t *option;
		size_t n_option, n = build(i / 2, (uint8_t)(i % 4 / 2 * 12));
		toa_of(i & 1, &client, &option, &n_option);
		size_t n_want = expect_toa(n, option, n_option);
		for (size_t first = header_end(); first <= n; first++) {
			for (size_t missing = 0; missing < 2; missing++) {
				struct rte_mbuf *mbuf = mbuf_make(n, n_option - missing, first);
				struct packet p = parse(mbuf);
				assert_int_equal(
					packet_toa_insert(mbuf, &p, &client, RTE_BE16(40000), 1500),
					missing ? PACKET_GROWTH_NO_HEADROOM : PACKET_GROWN);
				assert_bytes(mbuf, missing ? frame : want, missing ? n : n_want);
				assert_packet(mbuf, &p);
				frame_mbuf_destroy(mbuf);
			}
		}
	}
}

static void test_toa_limits(void **state)
{
	for (uint8_t option_bytes = 0; option_bytes <= 40; option_bytes += 4) {
		for (int family = 0; family < 2; family++) {
			struct address client;
			const uint8_t *option;
			size_t n_option, n = build((uint32_t)family, option_bytes);
			toa_of(family, &client, &option, &n_option);
			bool fits = option_bytes + n_option <= 40;
			size_t n_want = fits ? expect_toa(n, option, n_option) : n;
			uint16_t l3 = (uint16_t)(n - 14);
			for (uint16_t mtu = l3; mtu <= l3 + n_option; mtu++) {
				struct rte_mbuf *mbuf = mbuf_make(n, 64, n);
				struct packet p = parse(mbuf);
				// Padding is no part of the IP packet.
				bool is_short = p.l3_length + n_option <= mtu;
				enum packet_growth growth =
					packet_toa_insert(mbuf, &p, &client, RTE_BE16(40000), mtu);
				assert_int_equal(growth, !fits      ? PACKET_GROWTH_NO_OPTIONS
							 : is_short ? PACKET_GROWN
								    : PACKET_GROWTH_TOO_LONG);
				bool is_in = growth == PACKET_GROWN;
				assert_bytes(mbuf, is_in ? want : frame, is_in ? n_want : n);
				assert_packet(mbuf, &p);
				frame_mbuf_destroy(mbuf);
			}
		}
	}
}

// Before the NAT rewrite or after it: the same packet.
static void test_toa_and_nat(void **state)
{
	for (uint32_t i = 0; i < 40; i++) {
		size_t n = build(i, 12);
		bool is_v6 = i & 1;
		struct address client = address("198.51.100.7");
		struct packet_nat nat = {
			.src = address(is_v6 ? "2001:db8:5::1" : "192.0.2.1"),
			.dst = address(is_v6 ? "2001:db8:9::2" : "10.9.0.2"),
			.src_port = RTE_BE16(3001),
			.dst_port = RTE_BE16(8080),
		};
		struct rte_mbuf *before = mbuf_make(n, 8, n), *after = mbuf_make(n, 8, n);
		struct packet p = parse(before), q = p;
		packet_toa_insert(before, &p, &client, RTE_BE16(40000), 1500);
		packet_rewrite_fullnat(before, &p, &nat);
		packet_rewrite_fullnat(after, &q, &nat);
		packet_toa_insert(after, &q, &client, RTE_BE16(40000), 1500);
		assert_true(frame_checksums_ok(frame_bytes(before), 14));
		assert_bytes(after, frame_bytes(before), before->pkt_len);
		assert_memory_equal(&p, &q, sizeof(p));
		frame_mbuf_destroy(before);
		frame_mbuf_destroy(after);
	}
}

// ---------------------------------------------------------------- PROXY protocol
static const uint8_t proxy_v4[] = { 0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49,
	0x54, 0x0a, 0x21, 0x11, 0, 12, 198, 51, 100, 7, 203, 0, 113, 10, 0x9c, 0x40, 0, 80 };
static const uint8_t proxy_v6[] = { 0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49,
	0x54, 0x0a, 0x21, 0x21, 0, 36, 0x20, 1, 0xd, 0xb8, 0, 0xc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7,
	0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x9c, 0x40, 0, 80 };

static struct packet_proxy proxy_make(bool is_v6)
{
	struct packet_endpoint client = { address(is_v6 ? "2001:db8:c::7" : "198.51.100.7"),
		RTE_BE16(40000) };
	struct packet_endpoint vip = { address(is_v6 ? "2001:db8:1::10" : "203.0.113.10"),
		RTE_BE16(80) };
	struct packet_proxy header;
	memset(&header, 0xa5, sizeof(header));
	packet_proxy_build(&header, &client, &vip);
	return header;
}

static void test_proxy_header(void **state)
{
	struct packet_proxy header = proxy_make(false);
	assert_int_equal(header.length, 28);
	assert_memory_equal(header.bytes, proxy_v4, 28);
	for (size_t i = 28; i < sizeof(header.bytes); i++)
		assert_int_equal(header.bytes[i], 0);
	header = proxy_make(true);
	assert_int_equal(header.length, 52);
	assert_memory_equal(header.bytes, proxy_v6, 52);
}

static void test_proxy_insert(void **state)
{
	for (uint32_t i = 0; i < 2 * 80; i++) {
		struct packet_proxy header = proxy_make(i & 1);
		size_t n = build(i / 2, (uint8_t)(i % 3 * 4));
		size_t n_want = put_in(n, header_end(), header.bytes, header.length);
		for (size_t first = header_end(); first <= n; first++) {
			for (size_t missing = 0; missing < 2; missing++) {
				struct rte_mbuf *mbuf =
					mbuf_make(n, header.length - missing, first);
				struct packet p = parse(mbuf);
				assert_int_equal(packet_proxy_insert(mbuf, &p, &header, 1500),
					missing ? PACKET_GROWTH_NO_HEADROOM : PACKET_GROWN);
				assert_bytes(mbuf, missing ? frame : want, missing ? n : n_want);
				assert_packet(mbuf, &p);
				frame_mbuf_destroy(mbuf);
			}
		}
	}
}

static void test_proxy_mtu(void **state)
{
	struct packet_proxy header = proxy_make(true);
	size_t n = build(1, 0);
	for (uint16_t mtu = (uint16_t)(n - 14); mtu < n - 14 + 60; mtu++) {
		struct rte_mbuf *mbuf = mbuf_make(n, 64, n);
		struct packet p = parse(mbuf);
		assert_int_equal(packet_proxy_insert(mbuf, &p, &header, mtu),
			mtu < n - 14 + 52 ? PACKET_GROWTH_TOO_LONG : PACKET_GROWN);
		assert_packet(mbuf, &p);
		frame_mbuf_destroy(mbuf);
	}
}

static void test_proxy_urgent(void **state)
{
	static const uint16_t was[] = { 0, 5, 0xff00, 0xffe2, 0xffe3, 0xffe4, 0xffff };
	for (size_t i = 0; i < ARRAY_SIZE(was) * 2; i++) {
		struct packet_proxy header = proxy_make(false);
		size_t n = frame_build(
			&(struct frame_spec){
				.tcp_flags = TCP_ACK | (i & 1 ? TCP_URG : 0), .n_payload = 6 },
			frame);
		frame_put16(frame + 34 + 18, was[i / 2]);
		frame_fix_checksums(frame, 14);
		size_t n_want = put_in(n, 54, header.bytes, 28);
		uint32_t moved = was[i / 2] + 28u;
		if (i & 1)
			frame_put16(want + 34 + 18, moved < 0xffff ? moved : 0xffff);
		frame_fix_checksums(want, 14);
		struct rte_mbuf *mbuf = mbuf_make(n, 28, n);
		struct packet p = parse(mbuf);
		assert_int_equal(packet_proxy_insert(mbuf, &p, &header, 1500), PACKET_GROWN);
		assert_bytes(mbuf, want, n_want);
		frame_mbuf_destroy(mbuf);
	}
}

// ---------------------------------------------------------------- payload cut off
// Makes `want` of `frame`: no payload, no padding, no FIN that stood behind payload.
static size_t expect_cut(void)
{
	size_t end = header_end();
	struct frame_layout l = frame_layout_of(frame, 14);
	memcpy(want, frame, end);
	size_t field = l.is_v6 ? 18 : 16;
	frame_put16(want + field, frame_get16(want + field) - (uint32_t)(l.end - end));
	if (l.end > end && (frame[l.l4 + 13] & TCP_ACK))
		want[l.l4 + 13] &= (uint8_t)~TCP_FIN;
	frame_fix_checksums(want, 14);
	return end;
}

static size_t build_payload(uint32_t i)
{
	static const uint8_t flags[] = { TCP_SYN, TCP_ACK | TCP_PSH, TCP_ACK | TCP_FIN, TCP_FIN };
	return frame_build(&(struct frame_spec){ .is_v6 = i & 1,
				   .tcp_flags = flags[i / 2 % 4],
				   .tcp_option_bytes = (uint8_t)(i % 5 * 4),
				   .n_payload = (uint16_t)(i % 7),
				   .n_padding = i % 4 == 0 ? 5 : 0 },
		frame);
}

static void test_cut(void **state)
{
	for (uint32_t i = 0; i < 180; i++) {
		size_t n = build_payload(i), n_want = expect_cut();
		for (size_t first = n_want; first <= n; first++) {
			struct rte_mbuf *mbuf = mbuf_make(n, 0, first);
			struct rte_mbuf *second = mbuf->next;
			struct packet p = parse(mbuf);
			struct rte_mbuf *tail = packet_cut_payload(mbuf, &p);
			assert_ptr_equal(tail, second);
			assert_bytes(mbuf, want, n_want);
			assert_int_equal(mbuf->nb_segs, 1);
			assert_packet(mbuf, &p);
			if (tail != NULL)
				assert_int_equal(tail->pkt_len, n - first);
			frame_mbuf_destroy(tail);
			frame_mbuf_destroy(mbuf);
		}
	}
}

// A wrong checksum stays as wrong.
static void test_cut_wrong_checksum(void **state)
{
	for (uint32_t i = 0; i < 60; i++) {
		size_t n = build_payload(i), l4 = frame_layout_of(frame, 14).l4;
		uint8_t *last = frame + n - 1;
		if (frame_layout_of(frame, 14).end != n || header_end() == n)
			continue;
		*last ^= 1;
		struct rte_mbuf *mbuf = mbuf_make(n, 0, n);
		struct packet p = parse(mbuf);
		assert_false(packet_l4_checksum_ok(mbuf, &p));
		packet_cut_payload(mbuf, &p);
		assert_false(packet_l4_checksum_ok(mbuf, &p));
		assert_int_equal(p.l4_offset, l4);
		frame_mbuf_destroy(mbuf);
	}
}

static void test_proxy_cut_and_insert(void **state)
{
	for (uint32_t i = 0; i < 180; i++) {
		struct packet_proxy header = proxy_make(i & 4);
		size_t n = build_payload(i), n_cut = expect_cut(), end = header_end();
		uint8_t whole[FRAME_MAX];
		memcpy(whole, frame, n);
		memcpy(frame, want, n_cut);
		size_t n_want = put_in(n_cut, end, header.bytes, header.length);
		memcpy(frame, whole, n);
		for (size_t first = end; first <= n; first += 3) {
			for (size_t missing = 0; missing < 2; missing++) {
				struct rte_mbuf *mbuf =
					mbuf_make(n, header.length - missing, first);
				struct rte_mbuf *second = mbuf->next, *tail = mbuf;
				struct packet p = parse(mbuf);
				assert_int_equal(
					packet_proxy_cut_and_insert(mbuf, &p, &header, &tail),
					missing ? PACKET_GROWTH_NO_HEADROOM : PACKET_GROWN);
				assert_ptr_equal(tail, missing ? NULL : second);
				assert_bytes(mbuf, missing ? frame : want, missing ? n : n_want);
				assert_packet(mbuf, &p);
				frame_mbuf_destroy(tail);
				frame_mbuf_destroy(mbuf);
			}
		}
	}
}

// ---------------------------------------------------------------- sequence numbers
static void test_shift_sequence(void **state)
{
	static const int32_t deltas[] = { 28, 52, -28, 0, 0x7fffffff, -0x7fffffff };
	for (uint32_t i = 0; i < ARRAY_SIZE(deltas) * 40; i++) {
		int32_t delta = deltas[i % ARRAY_SIZE(deltas)];
		size_t n = build(i / 6, 12), l4 = frame_layout_of(frame, 14).l4;
		memcpy(want, frame, n);
		frame_put32(want + l4 + 4, 0xfffffff0 + i / 6 + (uint32_t)delta);
		frame_fix_checksums(want, 14);
		struct rte_mbuf *mbuf = mbuf_make(n, 0, header_end());
		struct packet p = parse(mbuf);
		packet_shift_sequence(mbuf, &p, delta);
		assert_bytes(mbuf, want, n);
		frame_mbuf_destroy(mbuf);
	}
}

#define FIRST 0xfffffff8u // the header spans the wrap

static void test_shift_acknowledgement(void **state)
{
	static const struct {
		uint32_t was, is;
		uint8_t flags;
		bool young, whole;
	} cases[] = {
		{ FIRST, FIRST, TCP_SYN | TCP_ACK, true, false },
		{ FIRST, FIRST, TCP_ACK, true, false },
		{ FIRST + 1, FIRST, TCP_ACK, true, false },
		{ FIRST + 27, FIRST, TCP_ACK, true, false },
		{ FIRST + 28, FIRST, TCP_ACK, true, true },
		{ FIRST + 29, FIRST + 1, TCP_ACK | TCP_FIN, true, true },
		{ FIRST + 1000028, FIRST + 1000000, TCP_RST | TCP_ACK, true, true },
		{ FIRST - 1, FIRST - 29, TCP_ACK, true, false }, // a keepalive's: who knows
		{ 12345, 12345, TCP_RST, true, false },
		{ 12345, 12345, TCP_RST, false, true },
		{ FIRST + 3, FIRST - 25, TCP_ACK, false, true }, // 4 GB later
		{ FIRST + 0x80000000u, FIRST + 0x80000000u - 28, TCP_ACK, false, true },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases) * 2; i++) {
		struct frame_spec s = { .is_v6 = i & 1,
			.tcp_flags = cases[i / 2].flags,
			.acknowledgement = cases[i / 2].was,
			.tcp_option_bytes = 12,
			.n_payload = 5 };
		size_t n = frame_build(&s, frame);
		s.acknowledgement = cases[i / 2].is;
		frame_build(&s, want);
		const uint32_t first = FIRST;
		struct rte_mbuf *mbuf = frame_mbuf(frame, n);
		struct packet p = parse(mbuf);
		assert_int_equal(packet_shift_acknowledgement(
					 mbuf, &p, 28, cases[i / 2].young ? &first : NULL),
			cases[i / 2].whole);
		assert_bytes(mbuf, want, n);
		frame_mbuf_destroy(mbuf);
	}
}

// Options of 40 bytes; SACK blocks get their edges from FIRST on, as many bytes behind it as the index says.
struct sack_case {
	uint8_t options[40];
	uint8_t n;
	uint8_t blocks[4]; // offsets of blocks in the options, 0: none
};
static const struct sack_case sack_cases[] = {
	{ { 1, 1, 5, 10 }, 12, { 4 } }, { { 1, 5, 10, [11] = 1 }, 12, { 3 } }, // odd
	{ { 5, 10, [10] = 1, 1 }, 12, { 2 } },
	{ { 8, 10, [10] = 1, 1, 1, 1, 5, 26 }, 40, { 16, 24, 32 } },
	{ { 8, 10, [10] = 1, 5, 26, [37] = 1, 1, 1 }, 40, { 13, 21, 29 } }, // odd
	{ { 1, 5, 34, [35] = 0, 0, 0, 0, 0 }, 40, { 3, 11, 19, 27 } },
	{ { 5, 10, [10] = 5, 10, [20] = 5, 10, [30] = 1, 1 }, 32, { 2, 12, 22 } },
	{ { 0, 2, 5, 10 }, 12 },                   // behind the end
	{ { 1, 1, 5, 9, [11] = 1 }, 12 },          // not whole blocks
	{ { 1, 1, 5, 2, 5, 6, [10] = 1, 1 }, 12 }, // none; half of one
	{ { 1, 1, 5, 18 }, 12 },                   // beyond the header
	{ { 1, 1, 5, 1 }, 12 }, { { 1, 1, 5, 0 }, 12 },
	{ { [0 ... 10] = 1, 5 }, 12 }, // its length is not there
	{ { 3, 40, 5, 10 }, 12 },      // an option before it lies
};

static void put_edges(uint8_t *options, const struct sack_case *c, uint32_t skip, uint32_t less)
{
	for (uint32_t k = 0; k < 4 && c->blocks[k] != 0; k++) {
		for (uint32_t edge = 0; edge < 2; edge++) {
			uint32_t number = skip + k * 700 + edge * 13;
			uint32_t is = number < less ? 0 : number - less;
			frame_put32(options + c->blocks[k] + edge * 4, FIRST + is);
		}
	}
}

static void test_shift_sacks(void **state)
{
	const uint32_t first = FIRST;
	for (size_t i = 0; i < ARRAY_SIZE(sack_cases) * 2 * 120; i++) {
		const struct sack_case *c = &sack_cases[i / 240];
		uint32_t skip = (uint32_t)(i / 2 % 120);
		struct frame_spec s = { .is_v6 = i & 1,
			.tcp_option_bytes = c->n,
			.acknowledgement = FIRST + 28,
			.n_payload = 1 };
		size_t n = frame_build(&s, frame), options = s.is_v6 ? 74 : 54;
		memcpy(frame + options, c->options, c->n);
		memcpy(want, frame, n);
		put_edges(frame + options, c, skip, 0);
		put_edges(want + options, c, skip, 28);
		frame_put32(want + options - 12, FIRST);
		frame_fix_checksums(frame, 14);
		frame_fix_checksums(want, 14);
		struct rte_mbuf *mbuf = mbuf_make(n, 0, header_end());
		struct packet p = parse(mbuf);
		assert_true(packet_shift_acknowledgement(mbuf, &p, 28, &first));
		assert_bytes(mbuf, want, n);
		frame_mbuf_destroy(mbuf);
	}
}

// Anything as options: nothing is read beyond the header, whatever changes keeps the checksum right.
static void test_shift_random(void **state)
{
	static const uint8_t likely_bytes[] = { 0, 1, 1, 1, 2, 5, 5, 5, 10, 18, 26, 34 };
	uint64_t seed = 20260401;
	printf("packet: seed %lu\n", (unsigned long)seed);
	for (uint32_t i = 0; i < 60000; i++) {
		struct frame_spec s = { .is_v6 = i & 1,
			.tcp_option_bytes = (uint8_t)(frame_random(&seed) % 11 * 4),
			.acknowledgement = (uint32_t)frame_random(&seed) };
		size_t n = frame_build(&s, frame), options = s.is_v6 ? 74 : 54;
		for (size_t k = options; k < n; k++) {
			uint64_t draw = frame_random(&seed);
			frame[k] = draw & 1 ? (uint8_t)(draw >> 8)
					    : likely_bytes[(draw >> 8) % sizeof(likely_bytes)];
		}
		frame_fix_checksums(frame, 14);
		struct rte_mbuf *mbuf = frame_mbuf(frame, n);
		struct packet p = parse(mbuf);
		const uint32_t first = (uint32_t)frame_random(&seed);
		packet_shift_acknowledgement(mbuf, &p, 52, i & 2 ? &first : NULL);
		assert_true(frame_checksums_ok(frame_bytes(mbuf), 14));
		assert_memory_equal(frame_bytes(mbuf) + 14, frame + 14, s.is_v6 ? 8 : 10);
		frame_mbuf_destroy(mbuf);
	}
}

// ---------------------------------------------------------------- quoted segments
// Quotes of 8 bytes and more; the client's number comes out, and no checksum gets wrong.
static void test_quoted(void **state)
{
	const uint32_t first = FIRST;
	for (uint32_t i = 0; i < 2 * 14 * 40; i++) {
		bool is_v6 = i & 1;
		uint32_t sent = i / 2 % 40, known = sent < 28 ? 0 : sent - 28;
		size_t left = (is_v6 ? 40u : 20u) + 8 + i / 80;
		uint8_t was[FRAME_MAX], is[FRAME_MAX];
		struct frame_spec inner = {
			.is_v6 = is_v6, .sequence = FIRST + sent, .n_payload = 3
		};
		frame_build(&inner, was);
		inner.sequence = FIRST + known;
		frame_build(&inner, is);
		struct frame_spec outer = { .is_v6 = is_v6,
			.protocol = is_v6 ? NET_PROTO_ICMPV6 : NET_PROTO_ICMP,
			.icmp_type = is_v6 ? 2 : 3,
			.icmp_code = is_v6 ? 0 : 4,
			.dst = is_v6 ? "2001:db8:c::7" : "198.51.100.7",
			.payload = was + 14,
			.n_payload = (uint16_t)left };
		size_t n = frame_build(&outer, frame);
		if (left == (is_v6 ? 40u : 20u) + 17) // half a checksum is left alone
			is[14 + left - 1] = was[14 + left - 1];
		outer.payload = is + 14;
		frame_build(&outer, want);
		struct rte_mbuf *mbuf = frame_mbuf(frame, n);
		struct packet p, quoted;
		packet_parse(mbuf, NULL, &p);
		assert_true(packet_parse_quoted(mbuf, &p, &quoted));
		packet_shift_quoted_sequence(mbuf, &p, &quoted, 28, &first);
		assert_bytes(mbuf, want, n);
		frame_mbuf_destroy(mbuf);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_toa),
		cmocka_unit_test(test_toa_limits),
		cmocka_unit_test(test_toa_and_nat),
		cmocka_unit_test(test_proxy_header),
		cmocka_unit_test(test_proxy_insert),
		cmocka_unit_test(test_proxy_mtu),
		cmocka_unit_test(test_proxy_urgent),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_cut_wrong_checksum),
		cmocka_unit_test(test_proxy_cut_and_insert),
		cmocka_unit_test(test_shift_sequence),
		cmocka_unit_test(test_shift_acknowledgement),
		cmocka_unit_test(test_shift_sacks),
		cmocka_unit_test(test_shift_random),
		cmocka_unit_test(test_quoted),
	};
	return cmocka_run_group_tests_name("packet_segment", tests, NULL, NULL);
}
