// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Objects by (namespace, name): a chained hash map whose links lie in the objects. One allocation an object, its key behind it.

#include "net.h"

struct kube_object {              // first member of what is kept
	struct kube_object *next; // of its cell
	uint64_t hash;
	const char *namespace; // "" of a resource without; lies behind the object, as does the name
	const char *name;
	uint32_t epoch; // of the last put
};

struct kube_map {
	struct kube_object **cells;
	uint32_t n_cells; // power of two, or 0
	uint32_t n_objects;
	struct hash_key key;
};

void *kube_map_find(const struct kube_map *map, const char *namespace, const char *name);
// A new zeroed object of `size` bytes with that key; it must not be there. NULL: out of memory.
void *kube_map_add(struct kube_map *map, const char *namespace, const char *name, size_t size);
// Takes it out and frees it.
void kube_map_remove(struct kube_map *map, struct kube_object *object);
// Walk: the first with NULL, then the next one; NULL at the end. The last one given may be removed before the next is asked for
// only when the next has been asked for already.
void *kube_map_next(const struct kube_map *map, const struct kube_object *object);
void kube_map_fini(struct kube_map *map); // every object is gone
