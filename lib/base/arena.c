// SPDX-License-Identifier: BSD-3-Clause
// Bump allocator over a chain of blocks; the newest block is first.
#include "base.h"

#include <stdlib.h>
#include <string.h>

struct arena_block {
	struct arena_block *next;
	size_t size; // payload bytes
	size_t used;
	char pad[40]; // payload starts on a cache line
};
_Static_assert(sizeof(struct arena_block) == 64, "payload must start on a line");

#define ARENA_BLOCK_BYTES (64u << 10)

static char *payload(struct arena_block *block)
{
	return (char *)(block + 1);
}

void *arena_alloc(struct arena *arena, size_t size, size_t align)
{
	struct arena_block *block = arena->first;
	size_t at = block ? (block->used + align - 1) & ~(align - 1) : 0;
	if (block == NULL || at > block->size || size > block->size - at) {
		size_t want = size > ARENA_BLOCK_BYTES ? size : ARENA_BLOCK_BYTES;
		if (want > SIZE_MAX - 128)
			return NULL;
		size_t total = (want + sizeof(*block) + 63) & ~(size_t)63;
		block = aligned_alloc(64, total);
		if (block == NULL)
			return NULL;
		memset(block, 0, total);
		block->size = total - sizeof(*block);
		block->next = arena->first;
		arena->first = block;
		at = 0;
	}
	block->used = at + size;
	arena->used_bytes += size;
	return payload(block) + at;
}

char *arena_strdup(struct arena *arena, const char *text)
{
	size_t n = strlen(text) + 1;
	char *copy = arena_alloc(arena, n, 1);
	if (copy)
		memcpy(copy, text, n);
	return copy;
}

void arena_fini(struct arena *arena)
{
	while (arena->first) {
		struct arena_block *next = arena->first->next;
		free(arena->first);
		arena->first = next;
	}
	arena->used_bytes = 0;
}
