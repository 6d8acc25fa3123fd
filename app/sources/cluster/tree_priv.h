// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// A small YAML document (JSON is one too) as a tree whose nodes know their line. Bounded in every direction: length, depth,
// nodes, keys of one map; anchors, aliases, tags and a second document are refused, so that no text grows when it is read.

#include <jansson.h>

#include "base.h"

#define TREE_BYTES_MAX (1u << 20)
#define TREE_DEPTH_MAX 32
#define TREE_NODES_MAX 65536
#define TREE_KEYS_MAX  1024 // of one map

enum tree_kind { TREE_NULL, TREE_TEXT, TREE_LIST, TREE_MAP };

struct tree {
	enum tree_kind kind;
	uint32_t line;      // 1..; of a member of a map its key's
	bool is_plain;      // a scalar without quotes: may also mean a number or a truth value
	uint32_t n_nodes;   // of a list or map
	const char *key;    // of a member of a map, else NULL
	const char *text;   // of a scalar, NUL-terminated, no NUL inside
	struct tree *first; // child
	struct tree *last;
	struct tree *next; // sibling
};

// Reads the whole text into the arena. An empty document is a TREE_NULL. 0, -EINVAL with the finding and its line in err,
// -ENOMEM.
int tree_read(
	const char *text, size_t len, struct arena *arena, struct tree **out, struct error *err);
// Member of a map, NULL: none, or not a map. A member that is null counts as none.
const struct tree *tree_find(const struct tree *map, const char *key);
const char *tree_kind_name(const struct tree *node); // "a list"
// As JSON: plain scalars become null, true, false and numbers where they look it. New reference; NULL: out of memory.
json_t *tree_to_json(const struct tree *node);
