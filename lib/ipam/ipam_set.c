// SPDX-License-Identifier: BSD-3-Clause
// Sorted arrays of pointers: a search is log n, an insertion moves the pointers behind it (80 kB at 10,000 items: microseconds).
#include "ipam_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

uint32_t ipam_set_lower(const struct ipam_set *set, const void *key)
{
	uint32_t low = 0, high = set->n_items;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (set->compare(set->items[middle], key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void *ipam_set_find(const struct ipam_set *set, const void *key)
{
	uint32_t idx = ipam_set_lower(set, key);
	if (idx == set->n_items || set->compare(set->items[idx], key) != 0)
		return NULL;
	return set->items[idx];
}

int ipam_set_insert(struct ipam_set *set, void *item)
{
	uint32_t idx = ipam_set_lower(set, item);
	if (idx < set->n_items && set->compare(set->items[idx], item) == 0)
		return 0;
	if (array_grow(set->items, set->n_items, set->cap) != 0)
		return -ENOMEM;
	memmove(set->items + idx + 1, set->items + idx, (set->n_items - idx) * sizeof(*set->items));
	set->items[idx] = item;
	set->n_items++;
	return 0;
}

int ipam_set_reserve(struct ipam_set *set, uint32_t n)
{
	while (set->cap < n)
		if (array_grow(set->items, set->cap, set->cap) != 0)
			return -ENOMEM;
	return 0;
}

void ipam_set_remove(struct ipam_set *set, const void *item)
{
	uint32_t idx = ipam_set_lower(set, item);
	if (idx == set->n_items || set->compare(set->items[idx], item) != 0)
		return;
	set->n_items--;
	memmove(set->items + idx, set->items + idx + 1, (set->n_items - idx) * sizeof(*set->items));
}

void ipam_set_fini(struct ipam_set *set)
{
	free(set->items);
	*set = (struct ipam_set){ .compare = set->compare };
}
