// SPDX-License-Identifier: BSD-3-Clause
// Sharing of Maglev tables: between snapshots, so that a change in one service builds one table and a change of health
// none; and inside one, so that listeners with the same backends (ports of one service, VIPs of one family) need one.
#include "tables_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void table_block_put(struct table_block *block)
{
	if (--block->n_users > 0)
		return;
	free(block->members);
	free(block);
}

int table_set_init(struct table_set *set, uint32_t cap)
{
	uint32_t size = 16;
	while (size < cap * 2ull)
		size *= 2;
	set->items = calloc(cap + 1ull, sizeof(*set->items));
	set->index = malloc(size * sizeof(*set->index));
	if (set->items == NULL || set->index == NULL) {
		table_set_fini(set);
		return -ENOMEM;
	}
	memset(set->index, 0xff, size * sizeof(*set->index));
	set->cap = cap;
	set->index_mask = size - 1;
	return 0;
}

void table_set_fini(struct table_set *set)
{
	for (uint32_t i = 0; i < set->n_items; i++)
		table_block_put(set->items[i]);
	free(set->items);
	free(set->index);
	*set = (struct table_set){ 0 };
}

bool table_block_matches(const struct table_block *t, uint64_t digest,
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

static struct table_block *find(const struct table_set *set, uint64_t digest,
	const struct balance_member *members, uint32_t n)
{
	if (set == NULL || set->index == NULL)
		return NULL;
	for (uint32_t at = (uint32_t)digest;; at++) {
		uint32_t idx = set->index[at & set->index_mask];
		if (idx == UINT32_MAX)
			return NULL;
		if (table_block_matches(set->items[idx], digest, members, n))
			return set->items[idx];
	}
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

static struct table_block *find_former(const struct table_former *former, uint64_t digest,
	const struct balance_member *members, uint32_t n)
{
	struct table_block *t = find(former->set, digest, members, n);
	for (uint32_t i = 0; t == NULL && i < former->n_others; i++)
		if (table_block_matches(former->others[i], digest, members, n))
			t = former->others[i];
	return t;
}

int table_set_get(struct table_set *set, const struct table_former *former,
	const struct balance_member *members, uint32_t n_members, const struct table_block **out)
{
	uint64_t digest = balance_digest(members, n_members);
	struct table_block *t = find(set, digest, members, n_members);
	if (t != NULL) {
		*out = t;
		return 0;
	}
	if (set->n_items == set->cap)
		return -ENOMEM; // the caller counted wrong; never past the end
	t = find_former(former, digest, members, n_members);
	if (t == NULL) {
		int rc = table_block_build(digest, members, n_members, &t);
		if (rc != 0)
			return rc;
	}
	t->n_users++;
	uint32_t at = (uint32_t)digest;
	while (set->index[at & set->index_mask] != UINT32_MAX)
		at++;
	set->index[at & set->index_mask] = set->n_items;
	set->items[set->n_items++] = t;
	*out = t;
	return 0;
}
