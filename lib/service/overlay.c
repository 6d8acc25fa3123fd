// SPDX-License-Identifier: BSD-3-Clause
// The operator's overlay: entries sorted by (namespace, name, address, port), looked up by binary search.
#include "service.h"
#include "service_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int compare_key(const struct service_overlay *o, const struct overlay_key *key)
{
	int order = service_compare_name(o->namespace, o->name, key->namespace, key->name);
	if (order == 0)
		order = address_compare(&o->address, key->address);
	return order ? order : (o->port > key->port) - (o->port < key->port);
}

static struct overlay_key key_of(const struct service_overlay *o)
{
	return (struct overlay_key){ o->namespace, o->name, &o->address, o->port };
}

// First entry that is not below `key`.
static uint32_t lower_bound(const struct overlay_list *list, const struct overlay_key *key)
{
	uint32_t low = 0, high = list->n_items;
	while (low < high) {
		uint32_t middle = (low + high) / 2;
		if (compare_key(list->items[middle], key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool is_at(const struct overlay_list *list, uint32_t at, const struct overlay_key *key)
{
	return at < list->n_items && compare_key(list->items[at], key) == 0;
}

static bool values_equal(const struct service_overlay *a, const struct service_overlay *b)
{
	return a->draining == b->draining && a->since_ms == b->since_ms &&
	       a->deadline_ms == b->deadline_ms && a->reset_on_deadline == b->reset_on_deadline &&
	       strcmp(a->reason, b->reason) == 0 && a->has_weight == b->has_weight &&
	       (!a->has_weight || a->weight == b->weight);
}

int overlay_list_put(
	struct overlay_list *list, const struct service_overlay *overlay, bool *out_changed)
{
	if (overlay->namespace[0] == 0 || overlay->name[0] == 0 ||
		(overlay->has_weight && overlay->weight > SERVICE_WEIGHT_MAX))
		return -EINVAL;
	struct overlay_key key = key_of(overlay);
	if (!overlay->draining && !overlay->has_weight) {
		*out_changed = overlay_list_remove(list, &key) == 0;
		return 0;
	}
	uint32_t at = lower_bound(list, &key);
	if (is_at(list, at, &key)) {
		*out_changed = !values_equal(list->items[at], overlay);
		*list->items[at] = *overlay;
		return 0;
	}
	struct service_overlay *copy = malloc(sizeof(*copy));
	if (copy == NULL || array_grow(list->items, list->n_items, list->cap) != 0) {
		free(copy);
		return -ENOMEM;
	}
	*copy = *overlay;
	memmove(&list->items[at + 1], &list->items[at],
		(list->n_items - at) * sizeof(list->items[0]));
	list->items[at] = copy;
	list->n_items++;
	*out_changed = true;
	return 0;
}

int overlay_list_remove(struct overlay_list *list, const struct overlay_key *key)
{
	uint32_t at = lower_bound(list, key);
	if (!is_at(list, at, key))
		return -ENOENT;
	free(list->items[at]);
	list->n_items--;
	memmove(&list->items[at], &list->items[at + 1],
		(list->n_items - at) * sizeof(list->items[0]));
	return 0;
}

const struct service_overlay *overlay_list_find(
	const struct overlay_list *list, const struct overlay_key *key)
{
	uint32_t at = lower_bound(list, key);
	return is_at(list, at, key) ? list->items[at] : NULL;
}

void overlay_list_fini(struct overlay_list *list)
{
	for (uint32_t i = 0; i < list->n_items; i++)
		free(list->items[i]);
	free(list->items);
	*list = (struct overlay_list){ 0 };
}
