// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Maglev consistent hashing (Eisenbud et al., NSDI 2016, section 3.4): build (cold), pick (hot).
// The table is a pure function of the set of (identity, weight): members are sorted by identity first, integer
// arithmetic only, so every node computes the same table.

#include <stdint.h>
#include <stddef.h>

#include "base.h"
#include "net.h"

#define BALANCE_TABLE_MIN   251
#define BALANCE_TABLE_MAX   65537
#define BALANCE_BUILD_MAX   1048575 // of balance_build_as
#define BALANCE_MEMBERS_MAX 65535
#define BALANCE_EMPTY       UINT16_MAX

struct balance_member {
	struct address address;
	uint16_t port;   // host order
	uint16_t weight; // 0 = no slots
};

// Smallest prime >= 100 * n_members, within BALANCE_TABLE_MIN..BALANCE_TABLE_MAX.
uint32_t balance_table_size(uint32_t n_members);

// Fills slots[0..m-1] with indices into `members` (as given, any order). All weights 0 or n = 0: every slot
// is BALANCE_EMPTY. identity = 16 address bytes + port big endian; offset = hash_stable(identity, 18, 1) % m, skip =
// hash_stable(identity, 18, 2) % (m - 1) + 1. Turns go in rounds over the members in identity order: member i
// takes floor((r+1)*w_i/w_max) - floor(r*w_i/w_max) slots in round r (equal weights: the paper's loop).
// 0; -EINVAL: m is no prime in range, n > BALANCE_MEMBERS_MAX, or two members with one identity; -ENOMEM.
int balance_build(
	const struct balance_member *members, uint32_t n_members, uint32_t m, uint16_t *slots);

// The same for primes m up to BALANCE_BUILD_MAX, and by a chosen variant; all give the same table. -ENOTSUP: the processor
// does not run it.
enum balance_variant { BALANCE_FASTEST, BALANCE_SCALAR, BALANCE_AVX2 };
int balance_build_as(enum balance_variant variant, const struct balance_member *members,
	uint32_t n_members, uint32_t m, uint16_t *slots);

// Digest of a set of members, order independent (named tables, REST digest).
uint64_t balance_digest(const struct balance_member *members, uint32_t n_members);

// Slot of a flow hash: fixed-point multiply, no division. Hot.
static inline uint32_t balance_slot(uint64_t hash, uint32_t m)
{
	return (uint32_t)(((hash & 0xffffffff) * m) >> 32);
}
// Hash for the second candidate of the same flow.
static inline uint64_t balance_rehash(uint64_t hash)
{
	return hash_fold(hash ^ 0x9e3779b97f4a7c15ull, 0xd6e8feb86659fd93ull);
}
