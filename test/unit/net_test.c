// SPDX-License-Identifier: BSD-3-Clause
// Addresses, prefixes, MACs, checksum arithmetic, hashes.
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "net.h"

static struct address address(const char *text)
{
	struct address a;
	if (address_parse(text, &a) != 0)
		fail_msg("'%s' is an address", text);
	return a;
}

// ---------------------------------------------------------------- text
static void test_address_text(void **state)
{
	static const char *const good[] = { "0.0.0.0", "192.0.2.1", "255.255.255.255", "::", "::1",
		"2001:db8::1", "fe80::1", "2001:db8:0:1:2:3:4:5", "::ffff:0:0:1",
		"64:ff9b::c000:201" };
	char text[ADDRESS_TEXT_LEN];
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct address a = address(good[i]);
		assert_int_equal(address_is_v4(&a), strchr(good[i], ':') == NULL);
		assert_string_equal(address_format(&a, text), good[i]);
	}
	struct address a = address("2001:DB8:0:0::00A");
	assert_string_equal(address_format(&a, text), "2001:db8::a");
	static const char *const bad[] = { "", " ", "1", "1.2.3", "1.2.3.4.5", "256.1.1.1",
		"01.2.3.4", "1.2.3.4 ", " 1.2.3.4", "1.2.3.-4", "0x1.2.3.4", "1.2.3.4/32", ":",
		":::", "1:2", "1::2::3", "g::1", "12345::", "1:2:3:4:5:6:7:8:9", "fe80::1%eth0",
		"[::1]", "::1 ", "::ffff:192.0.2.1", "::ffff:c000:201", "192.0.2.1:80",
		"localhost" };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct address before = address("2001:db8::7"), after = before;
		if (address_parse(bad[i], &after) != -EINVAL)
			fail_msg("'%s' was taken for an address", bad[i]);
		assert_true(address_equal(&before, &after));
	}
}

static void test_address_forms(void **state)
{
	struct address a = address_from_v4(RTE_BE32(0xc0000201)), b = address("192.0.2.1");
	assert_true(address_equal(&a, &b));
	assert_int_equal(address_v4(&b), RTE_BE32(0xc0000201));
	for (int i = 0; i < 128; i++) { // every bit counts
		b = a;
		b.bytes[i / 8] ^= (uint8_t)(1 << i % 8);
		assert_false(address_equal(&a, &b));
		assert_int_equal(address_compare(&a, &b) > 0, memcmp(&a, &b, 16) > 0);
	}
	b = address("10.0.0.1");
	struct address c = address("2001:db8::1");
	assert_true(address_compare(&b, &a) < 0 && address_compare(&a, &c) < 0);
	assert_int_equal(address_compare(&a, &a), 0);
}

static void test_prefixes(void **state)
{
	static const char *const good[] = { "0.0.0.0/0", "10.0.0.0/8", "192.0.2.128/25",
		"192.0.2.1/32", "::/0", "2001:db8::/32", "2001:db8:0:8000::/49",
		"2001:db8::1/128" };
	char text[ADDRESS_TEXT_LEN + 4];
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct prefix p;
		assert_int_equal(prefix_parse(good[i], &p), 0);
		assert_string_equal(prefix_format(&p, text), good[i]);
	}
	static const char *const bad[] = { "", "/", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33",
		"10.0.0.0/-1", "10.0.0.0/08", "10.0.0.0/8 ", " 10.0.0.0/8", "10.0.0.0/ 8",
		"10.0.0.0/+8", "10.0.0.0/8/8", "10.0.0.1/8", "192.0.2.129/25", "::/129", "::1/127",
		"2001:db8::/28", "::/1000", "10.0.0.0/255.0.0.0", "10/8",
		"0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000/8" };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct prefix p = { .len = 77 };
		if (prefix_parse(bad[i], &p) != -EINVAL)
			fail_msg("'%s' was taken for a prefix", bad[i]);
		assert_int_equal(p.len, 77);
	}
}

// Against counting equal leading bits.
static void test_prefix_contains(void **state)
{
	uint64_t seed = 1;
	for (int i = 0; i < 20000; i++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		bool is_v6 = seed >> 63;
		struct address a = is_v6 ? address("2001:db8:1234:5678:9abc:def0:1234:5678")
					 : address("192.0.2.77");
		uint32_t first = is_v6 ? 0 : 96, max = is_v6 ? 128 : 32;
		struct prefix p = { .address = a, .len = (uint8_t)((seed >> 33) % (max + 1)) };
		for (uint32_t bit = first + p.len; bit < 128; bit++)
			p.address.bytes[bit / 8] &= (uint8_t) ~(0x80 >> bit % 8);
		uint32_t flip = (uint32_t)(seed >> 45) % max;
		assert_true(prefix_contains(&p, &a));
		a.bytes[(first + flip) / 8] ^= (uint8_t)(0x80 >> (first + flip) % 8);
		assert_int_equal(prefix_contains(&p, &a), flip >= p.len);
	}
	struct prefix all4, all6;
	prefix_parse("0.0.0.0/0", &all4);
	prefix_parse("::/0", &all6);
	struct address v4 = address("1.2.3.4"), v6 = address("::1:2");
	assert_true(prefix_contains(&all4, &v4) && prefix_contains(&all6, &v6));
	assert_false(prefix_contains(&all4, &v6) || prefix_contains(&all6, &v4));
}

static void test_address_classes(void **state)
{
	static const struct {
		const char *text;
		bool is_impossible_source, is_unroutable;
	} cases[] = {
		{ "192.0.2.1", false, false },
		{ "10.0.0.1", false, false },
		{ "1.0.0.0", false, false },
		{ "126.255.255.255", false, false },
		{ "128.0.0.0", false, false },
		{ "223.255.255.255", false, false },
		{ "169.253.0.1", false, false },
		{ "0.0.0.0", true, true },
		{ "127.0.0.1", true, true },
		{ "127.255.0.1", true, true },
		{ "224.0.0.1", true, true },
		{ "239.255.255.255", true, true },
		{ "255.255.255.255", true, true },
		{ "169.254.1.1", false, true },
		{ "0.0.0.1", false, true },
		{ "240.0.0.1", false, true },
		{ "::", true, true },
		{ "::1", true, true },
		{ "::2", false, false },
		{ "ff02::1", true, true },
		{ "ff00::", true, true },
		{ "fe80::1", false, true },
		{ "febf::1", false, true },
		{ "fec0::1", false, false },
		{ "fc00::1", false, false },
		{ "2001:db8::1", false, false },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct address a = address(cases[i].text);
		if (address_is_impossible_source(&a) != cases[i].is_impossible_source ||
			address_is_unroutable(&a) != cases[i].is_unroutable)
			fail_msg("%s is in the wrong class", cases[i].text);
		assert_int_equal(address_is_unspecified(&a),
			strcmp(cases[i].text, "::") == 0 || strcmp(cases[i].text, "0.0.0.0") == 0);
	}
}

static void test_endpoint_and_mac(void **state)
{
	char buf[ADDRESS_TEXT_LEN + 10];
	struct address a = address("192.0.2.1"),
		       b = address("2001:db8:1111:2222:3333:4444:5555:6666");
	assert_string_equal(endpoint_format(&a, 80, buf, sizeof(buf)), "192.0.2.1:80");
	assert_string_equal(endpoint_format(&b, 65535, buf, sizeof(buf)),
		"[2001:db8:1111:2222:3333:4444:5555:6666]:65535");
	struct mac mac;
	assert_int_equal(mac_parse("02:00:aB:00:00:ff", &mac), 0);
	assert_string_equal(mac_format(&mac, buf), "02:00:ab:00:00:ff");
	static const char *const bad[] = { "", "02:00:00:00:00", "02:00:00:00:00:0",
		"02:00:00:00:00:001", "02:00:00:00:00:01:", "02-00-00-00-00-01",
		"0g:00:00:00:00:01", " 2:00:00:00:00:01", "02:00:00:00:00:01 ", "0200.0000.0001",
		"+2:00:00:00:00:01" };
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (mac_parse(bad[i], &mac) != -EINVAL)
			fail_msg("'%s' was taken for a MAC", bad[i]);
	}
	assert_int_equal(mac.bytes[5], 0xff);
}

// ---------------------------------------------------------------- checksums
static uint64_t draw(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	return z ^ (z >> 27);
}

// RFC 1071, word by word, carries at once.
static uint16_t naive_sum(const uint8_t *at, size_t n)
{
	uint32_t sum = 0;
	for (size_t i = 0; i < n; i += 2) {
		uint16_t word = 0;
		memcpy(&word, at + i, n - i < 2 ? 1 : 2);
		sum += word;
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return (uint16_t)sum;
}

static void test_checksum_sum(void **state)
{
	uint64_t seed = 2;
	for (size_t n = 0; n < 600; n++) {
		uint8_t *block = malloc(n + 4); // exact, and at each alignment
		assert_non_null(block);
		for (size_t shift = 0; shift < 4; shift++) {
			for (size_t i = 0; i < n; i++)
				block[shift + i] = n % 3 ? (uint8_t)draw(&seed) : 0xff;
			assert_int_equal(checksum_fold(checksum_sum(block + shift, n)),
				naive_sum(block + shift, n));
		}
		free(block);
	}
	assert_int_equal(checksum_fold(0), 0);
	assert_int_equal(checksum_fold(0xffff), 0xffff);
	assert_int_equal(checksum_fold(0x10000), 1);
	assert_int_equal(checksum_fold(UINT64_MAX), 0xffff);
	assert_int_equal(checksum_fold(0x00010000ffffffffull), 1);   // a carry out of every step
	assert_int_equal(checksum_fold(0xffffffffull << 32 | 1), 1); // -0 + 1
	// RFC 1071 section 3
	const uint8_t example[] = { 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7 };
	assert_int_equal(checksum_fold(checksum_sum(example, 8)), RTE_BE16(0xddf2));
}

// 40 words, some changed: the updated checksum is the one computed afresh. Words are often 0 or 0xffff.
static void test_checksum_update(void **state)
{
	uint64_t seed = 3;
	for (int i = 0; i < 100000; i++) {
		uint16_t words[40], fresh[4];
		for (int k = 0; k < 40; k++)
			words[k] = draw(&seed) % 4   ? (uint16_t)draw(&seed)
				   : draw(&seed) % 2 ? 0xffff
						     : 0;
		words[39] = 6; // as a pseudo-header has it: the sum is never of zeros alone
		uint16_t before = (uint16_t)~naive_sum((uint8_t *)words, sizeof(words));
		uint64_t removed = 0, added = 0, delta = 0;
		for (int k = 0; k < 4; k++) {
			fresh[k] = draw(&seed) % 4   ? (uint16_t)draw(&seed)
				   : draw(&seed) % 2 ? 0xffff
						     : 0;
			removed += words[k * 3];
			added += fresh[k];
			delta += checksum_delta(words[k * 3], fresh[k]);
			words[k * 3] = fresh[k];
		}
		uint16_t after = (uint16_t)~naive_sum((uint8_t *)words, sizeof(words));
		assert_int_equal(checksum_update(before, removed, added), after);
		assert_int_equal(checksum_apply(before, delta), after);
	}
	// RFC 1624 section 4: 0xdd2f, 0x5555 becomes 0x3285: 0x0000, where RFC 1141 gave 0xffff
	assert_int_equal(checksum_update(0xdd2f, 0x5555, 0x3285), 0x0000);
}

static void test_checksum_pseudo(void **state)
{
	struct address a = address("192.0.2.1"), b = address("203.0.113.10");
	uint8_t v4[12] = { 192, 0, 2, 1, 203, 0, 113, 10, 0, 17, 0x12, 0x34 };
	assert_int_equal(checksum_fold(checksum_pseudo(&a, &b, 17, 0x1234)), naive_sum(v4, 12));
	a = address("2001:db8::ffff:1"), b = address("2001:db8:ffff::2");
	uint8_t v6[40] = { [34] = 0x12, [35] = 0x34, [39] = 58 };
	memcpy(v6, &a, 16);
	memcpy(v6 + 16, &b, 16);
	assert_int_equal(checksum_fold(checksum_pseudo(&a, &b, 58, 0x1234)), naive_sum(v6, 40));
	assert_int_equal(checksum_fold(checksum_sum_address(&a)), naive_sum(a.bytes, 16));
}

// ---------------------------------------------------------------- hashes
static void test_hash_stable(void **state)
{
	// Every node and version must agree: values of test/oracle/maglev.py.
	assert_int_equal(hash_stable("", 0, 0), 0x2180a92350d49cceull);
	assert_int_equal(hash_stable("sluice", 6, 1), 0x5e511522f7e8c246ull);
	assert_int_equal(hash_stable("sluice", 6, 2), 0x62ec87a6e27e5c06ull);
}

// Each bit of the key changes about half of the bits of the hash.
static void test_hash_spreads(void **state)
{
	uint64_t seed = 4;
	struct hash_key key = { { draw(&seed), draw(&seed) } }, near = key;
	near.words[0] ^= 1;
	struct hash_schedule schedule = hash_schedule_make(&key), other = hash_schedule_make(&near);
	uint64_t n_bits[3] = { 0 };
	for (int i = 0; i < 200 * 192; i++) {
		struct flow_key a = { .peer = { .halves = { draw(&seed), draw(&seed) } },
			.peer_port = (uint16_t)draw(&seed),
			.own_port = 80,
			.own_slot = 3,
			.protocol = 6 };
		struct flow_key b = a;
		int bit = i % 192;
		((uint8_t *)&b)[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_false(flow_key_equal(&a, &b));
		assert_true(flow_key_equal(&a, &a));
		uint64_t h = flow_key_hash(&schedule, &a);
		n_bits[0] += (uint64_t)__builtin_popcountll(h ^ flow_key_hash(&schedule, &b));
		n_bits[1] += (uint64_t)__builtin_popcountll(h ^ flow_key_hash(&other, &a));
		n_bits[2] += (uint64_t)__builtin_popcountll(
			hash_bytes(&key, &a, sizeof(a)) ^ hash_bytes(&key, &b, sizeof(b)));
	}
	for (int k = 0; k < 3; k++) {
		double mean = (double)n_bits[k] / (200 * 192);
		if (mean < 31 || mean > 33)
			fail_msg("hash %d: %f bits of 64 change", k, mean);
	}
}

// Clients as they come (one address, ports in order; one port, addresses in order): high and low bits of the hash fill
// 4,096 rows evenly. 65,536 keys in random rows leave a variance of 16 per row.
static void test_hash_of_sequences(void **state)
{
	static uint32_t rows[2][4096];
	uint64_t seed = 5;
	for (int round = 0; round < 20; round++) {
		struct hash_key key = { { draw(&seed), draw(&seed) } };
		struct hash_schedule schedule = hash_schedule_make(&key);
		memset(rows, 0, sizeof(rows));
		for (uint32_t i = 0; i < 65536; i++) {
			struct flow_key k = { .peer = address_from_v4(RTE_BE32(0xc6336407)),
				.own_port = RTE_BE16(443),
				.own_slot = 1,
				.protocol = 6 };
			if (round % 2)
				k.peer_port = rte_cpu_to_be_16((uint16_t)i);
			else
				k.peer.words[3] = rte_cpu_to_be_32(0xc6330000 | i);
			uint64_t h = flow_key_hash(&schedule, &k);
			rows[0][h & 4095]++;
			rows[1][h >> 52]++;
		}
		for (int k = 0; k < 2; k++) {
			double variance = 0;
			for (int row = 0; row < 4096; row++)
				variance += (rows[k][row] - 16.0) * (rows[k][row] - 16.0) / 4096;
			if (variance > 24)
				fail_msg("round %d, bits %d: variance %f", round, k, variance);
		}
	}
}

static void test_hash_bytes_lengths(void **state)
{
	struct hash_key key = { { 1, 2 } };
	const uint8_t zeros[32] = { 0 };
	for (size_t n = 0; n <= 32; n++) {
		for (size_t m = 0; m < n; m++)
			assert_int_not_equal(
				hash_bytes(&key, zeros, n), hash_bytes(&key, zeros, m));
	}
	uint8_t *exact = malloc(5);
	assert_non_null(exact);
	memcpy(exact, "abcde", 5);
	assert_int_equal(hash_bytes(&key, exact, 5), hash_bytes(&key, "abcdefgh", 5));
	free(exact);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_address_text),
		cmocka_unit_test(test_address_forms),
		cmocka_unit_test(test_prefixes),
		cmocka_unit_test(test_prefix_contains),
		cmocka_unit_test(test_address_classes),
		cmocka_unit_test(test_endpoint_and_mac),
		cmocka_unit_test(test_checksum_sum),
		cmocka_unit_test(test_checksum_update),
		cmocka_unit_test(test_checksum_pseudo),
		cmocka_unit_test(test_hash_stable),
		cmocka_unit_test(test_hash_spreads),
		cmocka_unit_test(test_hash_of_sequences),
		cmocka_unit_test(test_hash_bytes_lengths),
	};
	return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
