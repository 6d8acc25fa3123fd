// SPDX-License-Identifier: BSD-3-Clause
// Maglev tables: members by identity, their permutations, sizes and digests. The loop that fills a table is fill.c.
#include "balance_priv.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct identity {
	uint8_t bytes[18]; // address, port big endian
	uint16_t member_idx;
};

static struct identity identity_make(const struct balance_member *member, uint16_t idx)
{
	struct identity id = { .member_idx = idx };
	memcpy(id.bytes, member->address.bytes, 16);
	id.bytes[16] = (uint8_t)(member->port >> 8);
	id.bytes[17] = (uint8_t)member->port;
	return id;
}

static int identity_compare(const void *a, const void *b)
{
	const struct identity *x = a, *y = b;
	return memcmp(x->bytes, y->bytes, sizeof(x->bytes));
}

static bool is_prime(uint32_t n)
{
	if (n < 4)
		return n >= 2;
	if (n % 2 == 0)
		return false;
	for (uint32_t d = 3; d * d <= n; d += 2) {
		if (n % d == 0)
			return false;
	}
	return true;
}

uint32_t balance_table_size(uint32_t n_members)
{
	if (n_members > BALANCE_TABLE_MAX / 100)
		return BALANCE_TABLE_MAX;
	uint32_t m = 100 * n_members;
	if (m < BALANCE_TABLE_MIN)
		return BALANCE_TABLE_MIN;
	while (!is_prime(m))
		m++;
	return m;
}

static void identities_sort(struct identity *ids, uint32_t n)
{
	bool is_sorted = true;
	for (uint32_t i = 1; i < n && is_sorted; i++)
		is_sorted = identity_compare(&ids[i - 1], &ids[i]) < 0;
	if (!is_sorted)
		qsort(ids, n, sizeof(*ids), identity_compare);
}

// Makes the turns of all members with a weight, in identity order. Returns their number, or -EINVAL: one identity twice.
static int64_t turns_make(const struct balance_member *members, uint32_t n_members, uint32_t m,
	struct identity *ids, struct turn *turns)
{
	for (uint32_t i = 0; i < n_members; i++)
		ids[i] = identity_make(&members[i], (uint16_t)i);
	identities_sort(ids, n_members);
	uint32_t n_turns = 0;
	for (uint32_t i = 0; i < n_members; i++) {
		if (i > 0 && identity_compare(&ids[i - 1], &ids[i]) == 0)
			return -EINVAL;
		uint16_t weight = members[ids[i].member_idx].weight;
		if (weight == 0)
			continue;
		turns[n_turns++] = (struct turn){
			.position = (uint32_t)(hash_stable(ids[i].bytes, 18, 1) % m),
			.skip = (uint32_t)(hash_stable(ids[i].bytes, 18, 2) % (m - 1) + 1),
			.weight = weight,
			.member_idx = ids[i].member_idx,
		};
	}
	return n_turns;
}

int balance_build_as(enum balance_variant variant, const struct balance_member *members,
	uint32_t n_members, uint32_t m, uint16_t *slots)
{
	if (m < BALANCE_TABLE_MIN || m > BALANCE_BUILD_MAX || !is_prime(m) ||
		n_members > BALANCE_MEMBERS_MAX)
		return -EINVAL;
	struct identity *ids = calloc(n_members + 1, sizeof(*ids));
	struct turn *turns = calloc(n_members + 1, sizeof(*turns));
	int64_t n_turns = -ENOMEM;
	if (ids && turns)
		n_turns = turns_make(members, n_members, m, ids, turns);
	int rc = n_turns < 0 ? (int)n_turns : 0;
	if (n_turns > 0)
		rc = balance_fill(turns, (uint32_t)n_turns, m, variant, slots);
	else if (n_turns == 0)
		memset(slots, 0xff, m * sizeof(*slots)); // BALANCE_EMPTY
	free(turns);
	free(ids);
	return rc;
}

int balance_build(
	const struct balance_member *members, uint32_t n_members, uint32_t m, uint16_t *slots)
{
	if (m > BALANCE_TABLE_MAX)
		return -EINVAL;
	return balance_build_as(BALANCE_FASTEST, members, n_members, m, slots);
}

uint64_t balance_digest(const struct balance_member *members, uint32_t n_members)
{
	// A sum does not know an order; each term is a whole hash of identity and weight.
	uint64_t sum = 0;
	for (uint32_t i = 0; i < n_members; i++) {
		struct identity id = identity_make(&members[i], 0);
		uint8_t bytes[20];
		memcpy(bytes, id.bytes, 18);
		bytes[18] = (uint8_t)(members[i].weight >> 8);
		bytes[19] = (uint8_t)members[i].weight;
		sum += hash_stable(bytes, sizeof(bytes), 3);
	}
	uint8_t last[12];
	for (int i = 0; i < 8; i++)
		last[i] = (uint8_t)(sum >> (56 - 8 * i));
	for (int i = 0; i < 4; i++)
		last[8 + i] = (uint8_t)(n_members >> (24 - 8 * i));
	return hash_stable(last, sizeof(last), 4);
}
