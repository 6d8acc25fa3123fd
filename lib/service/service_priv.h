// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Shared by the files of this module.

#include "service.h"

// (namespace, name) order.
int service_compare_name(
	const char *a_namespace, const char *a_name, const char *b_namespace, const char *b_name);

// Last port of a listener: port_max, or port where port_max was left 0.
static inline uint16_t service_listener_last(const struct service_listener *l)
{
	return l->port_max == 0 ? l->port : l->port_max;
}

// ---------------------------------------------------------------- overlay entries
// Sorted pointers by (namespace, name, address, port). Zero-initialised is empty.
struct overlay_list {
	struct service_overlay **items;
	uint32_t n_items;
	uint32_t cap;
};
struct overlay_key {
	const char *namespace;
	const char *name;
	const struct address *address;
	uint16_t port;
};
void overlay_list_fini(struct overlay_list *list);
// *out_changed: something differs now. 0, -EINVAL, -ENOMEM.
int overlay_list_put(
	struct overlay_list *list, const struct service_overlay *overlay, bool *out_changed);
// 0 or -ENOENT.
int overlay_list_remove(struct overlay_list *list, const struct overlay_key *key);
const struct service_overlay *overlay_list_find(
	const struct overlay_list *list, const struct overlay_key *key);
