// SPDX-License-Identifier: BSD-3-Clause
// 802.1Q tags: off and on, on mbufs of exact length.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "frames_priv.h"

static uint8_t frame[FRAME_MAX], tagged[FRAME_MAX];

// The untagged frame, and the same with a tag.
static size_t build(uint16_t type, uint16_t tci, uint16_t n_payload)
{
	size_t n = frame_build(&(struct frame_spec){ .n_payload = n_payload }, frame);
	memcpy(tagged, frame, 12);
	frame_put16(tagged + 12, type);
	frame_put16(tagged + 14, tci);
	memcpy(tagged + 16, frame + 12, n - 12);
	return n;
}

static void assert_bytes(const struct rte_mbuf *mbuf, const uint8_t *bytes, size_t n)
{
	assert_int_equal(mbuf->pkt_len, n);
	for (size_t at = 0; mbuf != NULL; mbuf = mbuf->next) {
		assert_true(at + mbuf->data_len <= n);
		assert_memory_equal(frame_bytes(mbuf), bytes + at, mbuf->data_len);
		at += mbuf->data_len;
		assert_true(mbuf->next != NULL || at == n);
	}
}

static void test_strip(void **state)
{
	static const struct {
		uint16_t type, tci, vid, reason;
	} cases[] = {
		{ 0x8100, 100, 100, DROP_NONE },
		{ 0x8100, 0xf064, 100, DROP_NONE }, // priority 7, drop eligible
		{ 0x8100, 4094, 4094, DROP_NONE },
		{ 0x8100, 101, 100, DROP_VLAN_MISMATCH },
		{ 0x8100, 0x0864, 100, DROP_VLAN_MISMATCH },
		{ 0x8100, 0xe000, 100, DROP_VLAN_UNTAGGED }, // a priority, no VLAN
		{ 0x88a8, 100, 100, DROP_VLAN_MISMATCH },
		{ 0x0800, 100, 100, DROP_VLAN_UNTAGGED },
		{ 0x0806, 100, 100, DROP_VLAN_UNTAGGED },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t n = build(cases[i].type, cases[i].tci, 33);
		struct rte_mbuf *mbuf = frame_mbuf(tagged, n + 4);
		enum drop_reason reason = packet_vlan_strip(mbuf, cases[i].vid);
		assert_string_equal(drop_rows[reason].name, drop_rows[cases[i].reason].name);
		bool is_off = reason == DROP_NONE;
		assert_bytes(mbuf, is_off ? frame : tagged, is_off ? n : n + 4);
		assert_int_equal(mbuf->data_off, is_off ? 4 : 0);
		frame_mbuf_destroy(mbuf);
	}
}

// One tag comes off; the one behind it stays, for the kernel.
static void test_strip_one(void **state)
{
	size_t n = build(0x8100, 7, 0);
	frame_put16(tagged + 16, 0x8100);
	frame_put16(frame + 12, 0x8100);
	struct rte_mbuf *mbuf = frame_mbuf(tagged, n + 4);
	assert_int_equal(packet_vlan_strip(mbuf, 7), DROP_NONE);
	assert_bytes(mbuf, frame, n);
	frame_mbuf_destroy(mbuf);
}

static void test_strip_offloaded(void **state)
{
	static const struct {
		uint16_t tci, reason;
	} cases[] = {
		{ 100, DROP_NONE },
		{ 0xa064, DROP_NONE },
		{ 101, DROP_VLAN_MISMATCH },
		{ 0x2000, DROP_VLAN_UNTAGGED },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t n = build(0x8100, 100, 9);
		struct rte_mbuf *mbuf = frame_mbuf(frame, n);
		const uint64_t others = RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_RSS_HASH;
		mbuf->ol_flags = others | RTE_MBUF_F_RX_VLAN | RTE_MBUF_F_RX_VLAN_STRIPPED;
		mbuf->vlan_tci = cases[i].tci;
		assert_int_equal(packet_vlan_strip(mbuf, 100), cases[i].reason);
		assert_bytes(mbuf, frame, n);
		if (cases[i].reason == DROP_NONE) {
			assert_true(mbuf->ol_flags == others);
			assert_int_equal(mbuf->vlan_tci, 0);
			// What was seen once is not seen again.
			assert_int_equal(packet_vlan_strip(mbuf, 100), DROP_VLAN_UNTAGGED);
		}
		frame_mbuf_destroy(mbuf);
	}
	// A driver that recognises the tag and leaves it in the frame.
	size_t n = build(0x8100, 100, 9);
	struct rte_mbuf *mbuf = frame_mbuf(tagged, n + 4);
	mbuf->ol_flags = RTE_MBUF_F_RX_VLAN;
	mbuf->vlan_tci = 100;
	assert_int_equal(packet_vlan_strip(mbuf, 100), DROP_NONE);
	assert_bytes(mbuf, frame, n);
	frame_mbuf_destroy(mbuf);
}

static void test_strip_cut(void **state)
{
	size_t n = build(0x8100, 100, 5) + 4;
	for (size_t cut = 0; cut <= n; cut++) {
		struct rte_mbuf *mbuf = frame_mbuf(tagged, cut);
		enum drop_reason reason = packet_vlan_strip(mbuf, 100);
		assert_int_equal(reason, cut < 18 ? DROP_ETH_TRUNCATED : DROP_NONE);
		assert_bytes(mbuf, cut < 18 ? tagged : frame, cut < 18 ? cut : cut - 4);
		frame_mbuf_destroy(mbuf);
		mbuf = frame_mbuf_split(tagged, n, cut);
		reason = packet_vlan_strip(mbuf, 100);
		assert_int_equal(reason, cut < 18 ? DROP_SEGMENTED_HEADERS : DROP_NONE);
		assert_bytes(mbuf, cut < 18 ? tagged : frame, cut < 18 ? n : n - 4);
		frame_mbuf_destroy(mbuf);
	}
}

// With headroom the MACs move down, without it all else moves back, without either nothing.
static void test_insert(void **state)
{
	for (uint16_t headroom = 0; headroom <= 5; headroom++) {
		for (uint16_t tailroom = 0; tailroom <= 5; tailroom++) {
			size_t n = build(0x8100, 0xa123, 40);
			struct rte_mbuf *mbuf = frame_mbuf_room(frame, n, headroom, tailroom);
			bool fits = headroom >= 4 || tailroom >= 4;
			assert_int_equal(packet_vlan_insert(mbuf, 0xa123), fits);
			assert_bytes(mbuf, fits ? tagged : frame, fits ? n + 4 : n);
			assert_int_equal(mbuf->data_len, mbuf->pkt_len);
			assert_int_equal(mbuf->data_off, headroom >= 4 ? headroom - 4 : headroom);
			if (fits) {
				assert_int_equal(packet_vlan_strip(mbuf, 0x123), DROP_NONE);
				assert_bytes(mbuf, frame, n);
			}
			frame_mbuf_destroy(mbuf);
		}
	}
}

static void test_insert_split(void **state)
{
	size_t n = build(0x8100, 4000, 5);
	for (size_t first = 0; first <= n; first++) {
		struct rte_mbuf *mbuf = frame_mbuf_room(frame, first, 0, 4);
		mbuf->next = frame_mbuf(frame + first, n - first);
		mbuf->nb_segs = 2;
		mbuf->pkt_len = (uint32_t)n;
		assert_int_equal(packet_vlan_insert(mbuf, 4000), first >= 12);
		assert_bytes(mbuf, first >= 12 ? tagged : frame, first >= 12 ? n + 4 : n);
		frame_mbuf_destroy(mbuf);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_strip),
		cmocka_unit_test(test_strip_one),
		cmocka_unit_test(test_strip_offloaded),
		cmocka_unit_test(test_strip_cut),
		cmocka_unit_test(test_insert),
		cmocka_unit_test(test_insert_split),
	};
	return cmocka_run_group_tests_name("packet_vlan", tests, NULL, NULL);
}
