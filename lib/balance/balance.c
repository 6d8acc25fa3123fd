// SPDX-License-Identifier: BSD-3-Clause
// Maglev tables: the loop of the paper (Eisenbud et al., NSDI 2016, section 3.4, "Populate") with two
// changes that do not change a slot of the result:
//  - taken slots are a bitmap (8 KB at m = 65537, stays in the first-level cache), not the table itself;
//  - a permutation is walked by add and subtract, not by multiply and modulo: no division a probe, and
//    nothing that could wrap.
//
// Weights: members take turns in rounds. Round r gives member i floor((r+1)*w_i/w_max) -
// floor(r*w_i/w_max) turns, which is 0 or 1; kept as the running remainder r*w_i mod w_max.
//
// Cost: about m*H(m) probes of one bit, and rounds * n_members for the turns. Equal weights: 0.8 ms at m = 65537 and 1,000
// members. Worst case of weights (one of 65535 beside n - 1 of 1): m rounds of n members each.
#include "balance.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct turn {
	uint32_t position; // next slot of this member's permutation
	uint32_t skip;
	uint32_t remainder; // r*weight mod w_max
	uint16_t weight;
	uint16_t member_idx;
};

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

// Makes the turns of all members with a weight, in identity order. Returns their number, or -EINVAL: one identity twice.
static int64_t turns_make(const struct balance_member *members, uint32_t n_members, uint32_t m,
	struct identity *ids, struct turn *turns)
{
	for (uint32_t i = 0; i < n_members; i++)
		ids[i] = identity_make(&members[i], (uint16_t)i);
	qsort(ids, n_members, sizeof(*ids), identity_compare);
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

static inline void turn_take(struct turn *turn, uint32_t m, uint64_t *taken, uint16_t *slots)
{
	uint32_t at = turn->position;
	while (taken[at >> 6] >> (at & 63) & 1) {
		at += turn->skip;
		at = at >= m ? at - m : at;
	}
	taken[at >> 6] |= 1ull << (at & 63);
	slots[at] = turn->member_idx;
	at += turn->skip;
	turn->position = at >= m ? at - m : at;
}

static void fill_equal(
	struct turn *turns, uint32_t n_turns, uint32_t m, uint64_t *taken, uint16_t *slots)
{
	uint32_t n_free = m;
	while (n_free > 0) {
		uint32_t n = n_turns < n_free ? n_turns : n_free;
		for (uint32_t i = 0; i < n; i++)
			turn_take(&turns[i], m, taken, slots);
		n_free -= n;
	}
}

static void fill_weighted(struct turn *turns, uint32_t n_turns, uint32_t w_max, uint32_t m,
	uint64_t *taken, uint16_t *slots)
{
	uint32_t n_free = m;
	while (n_free > 0) {
		for (uint32_t i = 0; i < n_turns && n_free > 0; i++) {
			turns[i].remainder += turns[i].weight;
			if (turns[i].remainder < w_max)
				continue;
			turns[i].remainder -= w_max;
			turn_take(&turns[i], m, taken, slots);
			n_free--;
		}
	}
}

static void fill(struct turn *turns, uint32_t n_turns, uint32_t m, uint16_t *slots)
{
	uint64_t taken[BALANCE_TABLE_MAX / 64 + 1] = { 0 };
	uint32_t w_min = UINT32_MAX, w_max = 0;
	for (uint32_t i = 0; i < n_turns; i++) {
		w_min = turns[i].weight < w_min ? turns[i].weight : w_min;
		w_max = turns[i].weight > w_max ? turns[i].weight : w_max;
	}
	if (w_min == w_max)
		fill_equal(turns, n_turns, m, taken, slots);
	else
		fill_weighted(turns, n_turns, w_max, m, taken, slots);
}

int balance_build(
	const struct balance_member *members, uint32_t n_members, uint32_t m, uint16_t *slots)
{
	if (m < BALANCE_TABLE_MIN || m > BALANCE_TABLE_MAX || !is_prime(m) ||
		n_members > BALANCE_MEMBERS_MAX)
		return -EINVAL;
	struct identity *ids = calloc(n_members + 1, sizeof(*ids));
	struct turn *turns = calloc(n_members + 1, sizeof(*turns));
	int64_t n_turns = -ENOMEM;
	if (ids && turns)
		n_turns = turns_make(members, n_members, m, ids, turns);
	if (n_turns > 0)
		fill(turns, (uint32_t)n_turns, m, slots);
	else if (n_turns == 0)
		memset(slots, 0xff, m * sizeof(*slots)); // BALANCE_EMPTY
	free(turns);
	free(ids);
	return n_turns < 0 ? (int)n_turns : 0;
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
