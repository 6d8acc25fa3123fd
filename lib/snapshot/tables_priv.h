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
	uint32_t *index; // hash of digest -> item, UINT32_MAX = empty; at most half full
	uint32_t index_mask;
};

// Room for `cap` tables. 0 or -ENOMEM.
int table_set_init(struct table_set *set, uint32_t cap);
void table_set_fini(struct table_set *set);
// The table of these members, or NULL.
struct table_block *table_set_find(const struct table_set *set, uint64_t digest,
	const struct balance_member *members, uint32_t n_members);
// Holds the table from now on; makes room. 0 or -ENOMEM.
int table_set_add(struct table_set *set, struct table_block *block);
// One table by itself; n_users 0. 0, -ENOMEM, or -EINVAL as balance_build.
int table_block_build(uint64_t digest, const struct balance_member *members, uint32_t n_members,
	struct table_block **out);
void table_block_free(struct table_block *block);
