// SPDX-License-Identifier: BSD-3-Clause
// Sharing of Maglev tables: between snapshots, so that a change in one service builds one table and a change of health
// none; and inside one, so that listeners with the same backends (ports of one service, VIPs of one family) need one.
#include "tables_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void table_block_free(struct table_block *block)
{
	if (block == NULL)
		return;
	free(block->members);
	free(block);
}

static void block_put(struct table_block *block)
{
	if (--block->n_users == 0)
		table_block_free(block);
}

static void index_put(struct table_set *set, uint32_t item)
{
	uint32_t at = (uint32_t)set->items[item]->digest;
	while (set->index[at & set->index_mask] != UINT32_MAX)
		at++;
	set->index[at & set->index_mask] = item;
}

// Room for `cap` items in all. 0 or -ENOMEM, and nothing changed but room.
static int reserve(struct table_set *set, uint32_t cap)
{
	uint64_t size = 16;
	while (size < cap * 2ull)
		size *= 2;
	struct table_block **items =
		reallocarray(set->items, cap + 1ull, sizeof(struct table_block *));
	if (items == NULL)
		return -ENOMEM;
	set->items = items;
	uint32_t *index = malloc(size * sizeof(*index));
	if (index == NULL)
		return -ENOMEM;
	memset(index, 0xff, size * sizeof(*index));
	free(set->index);
	set->index = index;
	set->cap = cap;
	set->index_mask = (uint32_t)(size - 1);
	for (uint32_t i = 0; i < set->n_items; i++)
		index_put(set, i);
	return 0;
}

int table_set_init(struct table_set *set, uint32_t cap)
{
	return reserve(set, cap);
}

void table_set_fini(struct table_set *set)
{
	for (uint32_t i = 0; i < set->n_items; i++)
		block_put(set->items[i]);
	free(set->items);
	free(set->index);
	*set = (struct table_set){ 0 };
}

static bool block_matches(const struct table_block *t, uint64_t digest,
	const struct balance_member *members, uint32_t n)
{
	if (t->digest != digest || t->n_members != n)
		return false;
	for (uint32_t i = 0; i < n; i++) {
		const struct balance_member *a = &t->members[i], *b = &members[i];
		if (!address_equal(&a->address, &b->address) || a->port != b->port ||
			a->weight != b->weight)
			return false;
	}
	return true;
}

struct table_block *table_set_find(const struct table_set *set, uint64_t digest,
	const struct balance_member *members, uint32_t n_members)
{
	if (set->index == NULL)
		return NULL;
	for (uint32_t at = (uint32_t)digest;; at++) {
		uint32_t idx = set->index[at & set->index_mask];
		if (idx == UINT32_MAX)
			return NULL;
		if (block_matches(set->items[idx], digest, members, n_members))
			return set->items[idx];
	}
}

int table_set_add(struct table_set *set, struct table_block *block)
{
	if (set->n_items == set->cap && reserve(set, set->cap ? 2 * set->cap : 16) != 0)
		return -ENOMEM;
	block->n_users++;
	set->items[set->n_items] = block;
	index_put(set, set->n_items++);
	return 0;
}

int table_block_build(
	uint64_t digest, const struct balance_member *members, uint32_t n, struct table_block **out)
{
	uint32_t m = balance_table_size(n);
	struct table_block *t = malloc(sizeof(*t) + m * sizeof(t->slots[0]));
	struct balance_member *copy = malloc((n + 1ull) * sizeof(*copy));
	int rc = -ENOMEM;
	if (t != NULL && copy != NULL)
		rc = balance_build(members, n, m, t->slots);
	if (rc != 0) {
		free(copy);
		free(t);
		return rc;
	}
	memcpy(copy, members, n * sizeof(*copy));
	t->n_users = 0;
	t->m = m;
	t->n_members = n;
	t->members = copy;
	t->digest = digest;
	*out = t;
	return 0;
}
