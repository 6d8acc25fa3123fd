// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Maglev tables of a compiled snapshot: blocks counted by their users, found by the digest of their members.
// Control thread.

#include "balance.h"

struct table_block {
	uint32_t n_users;
	uint32_t m;
	uint32_t n_members;
	struct balance_member *members; // what the slots were computed from, in their order
	uint64_t digest;
	uint16_t slots[];
};

// A set of tables, each held once. Zero-initialised is empty.
struct table_set {
	struct table_block **items;
	uint32_t n_items;
	uint32_t cap;
	uint32_t *
		index; // hash of digest -> item, UINT32_MAX = empty; room for `cap` items at half load
	uint32_t index_mask;
};

// Room for `cap` tables. 0 or -ENOMEM.
int table_set_init(struct table_set *set, uint32_t cap);
void table_set_fini(struct table_set *set);
// Tables of a snapshot before: a set, and some beside it. Zero: there is none.
struct table_former {
	const struct table_set *set;
	struct table_block *const *others;
	uint32_t n_others;
};
// The table of these members: one of the set, else the same one of before, else built. *out is borrowed from the set. 0,
// -ENOMEM, or -EINVAL as balance_build.
int table_set_get(struct table_set *set, const struct table_former *former,
	const struct balance_member *members, uint32_t n_members, const struct table_block **out);
// One table by itself; n_users 0. 0, -ENOMEM, or -EINVAL as balance_build.
int table_block_build(uint64_t digest, const struct balance_member *members, uint32_t n_members,
	struct table_block **out);
void table_block_put(struct table_block *block);
bool table_block_matches(const struct table_block *t, uint64_t digest,
	const struct balance_member *members, uint32_t n_members);
static inline const struct table_block *table_block_of(const uint16_t *slots)
{
	return (const struct table_block *)(const void *)((const char *)slots -
							  offsetof(struct table_block, slots));
}
