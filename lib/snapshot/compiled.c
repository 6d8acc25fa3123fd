// SPDX-License-Identifier: BSD-3-Clause
// How long compiled content lives: a snapshot holds a counted `compiled`, that holds a counted root and a counted shape
// (build_priv.h). Control thread.
#include "build_priv.h"

#include <stdlib.h>

struct compiled *build_compiled_of(const struct snapshot *s)
{
	return ((const struct holder *)s->owner)->compiled;
}

uint32_t snapshot_lingering(const struct snapshot *s, const uint32_t **out_ids)
{
	const struct compiled *compiled = build_compiled_of(s);
	*out_ids = compiled->lingering;
	return compiled->n_lingering;
}

static void root_put(struct build_root *root)
{
	if (root == NULL || --root->n_users > 0)
		return;
	table_set_fini(&root->scrap_tables);
	table_set_fini(&root->tables);
	arena_fini(&root->arena);
	arena_fini(&root->scrap);
	free(root);
}

static void shape_put(struct build_shape *shape)
{
	if (shape == NULL || --shape->n_users > 0)
		return;
	arena_fini(&shape->arena);
	free(shape);
}

void build_compiled_put(struct compiled *c)
{
	if (c == NULL || --c->n_users > 0)
		return;
	root_put(c->root);
	shape_put(c->shape);
	arena_fini(&c->flats);
	free(c->lingering);
	free(c);
}

struct compiled *build_compiled_create(struct build_root *root, struct build_shape *shape)
{
	struct compiled *compiled = calloc(1, sizeof(*compiled));
	if (root == NULL)
		root = calloc(1, sizeof(*root));
	if (shape == NULL)
		shape = calloc(1, sizeof(*shape));
	if (root != NULL)
		root->n_users++;
	if (shape != NULL)
		shape->n_users++;
	if (compiled == NULL || root == NULL || shape == NULL) {
		root_put(root);
		shape_put(shape);
		free(compiled);
		return NULL;
	}
	compiled->n_users = 1;
	compiled->root = root;
	compiled->shape = shape;
	return compiled;
}

void snapshot_destroy(struct snapshot *s)
{
	if (s == NULL)
		return;
	struct holder *holder = s->owner;
	build_compiled_put(holder->compiled);
	free(holder);
}

struct snapshot *snapshot_with_fib(
	const struct snapshot *s, const struct nexthop_fib *fib, uint64_t generation)
{
	const struct holder *from = s->owner;
	struct holder *holder = malloc(sizeof(*holder));
	if (holder == NULL)
		return NULL;
	*holder = *from;
	holder->compiled->n_users++;
	holder->snapshot.owner = holder;
	holder->snapshot.fib = fib;
	holder->snapshot.generation = generation;
	return &holder->snapshot;
}
