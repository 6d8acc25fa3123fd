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
// The table of these members: one of the set, else the same one of `previous` (may be NULL), else built. *out is borrowed from
// the set. 0, -ENOMEM, or -EINVAL as balance_build.
int table_set_get(struct table_set *set, const struct table_set *previous,
	const struct balance_member *members, uint32_t n_members, const struct table_block **out);
