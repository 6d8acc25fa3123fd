// SPDX-License-Identifier: BSD-3-Clause
// Objects by (namespace, name). Cells double when there are as many objects; a walk goes by cells, so its order says nothing.
#include "kube_map_priv.h"

#include <stdlib.h>
#include <string.h>

static uint64_t hash_of(const struct kube_map *map, const char *namespace, const char *name)
{
	struct hash_key key = map->key;
	key.words[0] ^= hash_bytes(&map->key, namespace, strlen(namespace));
	return hash_bytes(&key, name, strlen(name));
}

static struct kube_object **cell_of(const struct kube_map *map, uint64_t hash)
{
	return &map->cells[hash & (map->n_cells - 1)];
}

void *kube_map_find(const struct kube_map *map, const char *namespace, const char *name)
{
	if (map->n_cells == 0)
		return NULL;
	uint64_t hash = hash_of(map, namespace, name);
	struct kube_object *object = *cell_of(map, hash);
	while (object && (object->hash != hash || strcmp(object->name, name) ||
				 strcmp(object->namespace, namespace)))
		object = object->next;
	return object;
}

static bool map_grow(struct kube_map *map)
{
	if (map->n_objects < map->n_cells)
		return true;
	struct kube_map grown = *map;
	grown.n_cells = map->n_cells ? map->n_cells * 2 : 64;
	grown.cells = calloc(grown.n_cells, sizeof(*grown.cells));
	if (grown.cells == NULL)
		return false;
	for (uint32_t i = 0; i < map->n_cells; i++) {
		for (struct kube_object *object = map->cells[i], *next; object; object = next) {
			next = object->next;
			struct kube_object **cell = cell_of(&grown, object->hash);
			object->next = *cell;
			*cell = object;
		}
	}
	free(map->cells);
	*map = grown;
	return true;
}

void *kube_map_add(struct kube_map *map, const char *namespace, const char *name, size_t size)
{
	size_t n_namespace = strlen(namespace) + 1, n_name = strlen(name) + 1;
	struct kube_object *object = map_grow(map) ? calloc(1, size + n_namespace + n_name) : NULL;
	if (object == NULL)
		return NULL;
	char *text = (char *)object + size;
	object->namespace = memcpy(text, namespace, n_namespace);
	object->name = memcpy(text + n_namespace, name, n_name);
	object->hash = hash_of(map, namespace, name);
	struct kube_object **cell = cell_of(map, object->hash);
	object->next = *cell;
	*cell = object;
	map->n_objects++;
	return object;
}

void kube_map_remove(struct kube_map *map, struct kube_object *object)
{
	struct kube_object **at = cell_of(map, object->hash);
	while (*at != object)
		at = &(*at)->next;
	*at = object->next;
	map->n_objects--;
	free(object);
}

void *kube_map_next(const struct kube_map *map, const struct kube_object *object)
{
	if (object && object->next)
		return object->next;
	for (uint64_t i = object ? (object->hash & (map->n_cells - 1)) + 1 : 0; i < map->n_cells;
		i++) {
		if (map->cells[i])
			return map->cells[i];
	}
	return NULL;
}

void kube_map_fini(struct kube_map *map)
{
	free(map->cells);
	map->cells = NULL;
	map->n_cells = 0;
}
