// SPDX-License-Identifier: BSD-3-Clause
// Next-hop entries and the building of a FIB (cold; the look-up is nexthop_find.c).
#include "nexthop_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void nexthop_store(struct nexthop_table *t, uint16_t idx, const struct mac *mac, uint8_t port_idx,
	enum nexthop_state state)
{
	assert(idx < t->n_entries);
	// Relaxed: MAC, port and state are one word, and nothing else is published by it.
	__atomic_store_n(
		&t->entries[idx].word, nexthop_word(mac, port_idx, state), __ATOMIC_RELAXED);
}

static void mask_make(uint32_t bits, uint64_t mask[2])
{
	struct address a;
	for (uint32_t i = 0; i < 16; i++) {
		uint32_t keep = bits > i * 8 ? bits - i * 8 : 0;
		a.bytes[i] = keep >= 8 ? 0xff : (uint8_t)(0xff00 >> keep);
	}
	mask[0] = a.halves[0];
	mask[1] = a.halves[1];
}

static uint32_t route_bits(const struct nexthop_route *route)
{
	return address_is_v4(&route->prefix.address) ? 96u + route->prefix.len : route->prefix.len;
}

static bool cell_is_better(const struct nexthop_route *route, const struct nexthop_cell *cell)
{
	if (route->metric != cell->metric)
		return route->metric < cell->metric;
	if (route->nexthop != cell->nexthop)
		return route->nexthop < cell->nexthop;
	return route->port_idx < cell->port_idx;
}

// Adds one route, or improves the one that is there.
static void route_add(struct nexthop_fib *fib, const struct nexthop_route *route)
{
	uint32_t bits = route_bits(route);
	uint64_t mask[2];
	mask_make(bits, mask);
	struct address masked = route->prefix.address;
	masked.halves[0] &= mask[0];
	masked.halves[1] &= mask[1];
	uint32_t i = nexthop_hash(&masked, bits) & fib->cell_mask;
	struct nexthop_cell *cell = &fib->cells[i];
	while (cell->bits_plus_1 != 0 &&
		(cell->bits_plus_1 != bits + 1 || !address_equal(&cell->address, &masked))) {
		i = (i + 1) & fib->cell_mask;
		cell = &fib->cells[i];
	}
	if (cell->bits_plus_1 != 0 && !cell_is_better(route, cell))
		return;
	*cell = (struct nexthop_cell){
		.address = masked,
		.metric = route->metric,
		.nexthop = route->nexthop,
		.port_idx = route->port_idx,
		.bits_plus_1 = (uint8_t)(bits + 1),
	};
}

static void lengths_make(struct nexthop_fib *fib, const bool used[2][129])
{
	for (int family = 0; family < 2; family++) {
		for (uint32_t bits = 129; bits-- > 0;) {
			if (!used[family][bits])
				continue;
			struct nexthop_length *length =
				&fib->lengths[family][fib->n_lengths[family]++];
			length->bits = bits;
			mask_make(bits, length->mask);
		}
	}
}

struct nexthop_fib *nexthop_fib_create(
	const struct nexthop_route *routes, uint32_t n_routes, uint32_t generation)
{
	assert(n_routes <= 1u << 28);
	uint32_t n_cells = 16;
	while (n_cells < 2 * n_routes)
		n_cells *= 2;
	struct nexthop_fib *fib = calloc(1, sizeof(*fib) + n_cells * sizeof(fib->cells[0]));
	if (fib == NULL)
		return NULL;
	fib->generation = generation;
	fib->cell_mask = n_cells - 1;
	bool used[2][129] = { 0 };
	for (uint32_t i = 0; i < n_routes; i++) {
		assert(route_bits(&routes[i]) <= 128);
		used[address_is_v4(&routes[i].prefix.address)][route_bits(&routes[i])] = true;
		route_add(fib, &routes[i]);
	}
	lengths_make(fib, used);
	return fib;
}

void nexthop_fib_destroy(struct nexthop_fib *fib)
{
	free(fib);
}

uint32_t nexthop_fib_generation(const struct nexthop_fib *fib)
{
	return fib->generation;
}
