// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// Longest prefix match: one probe per prefix length in use, longest first. Routers that sit beside a
// cluster have a handful of lengths (host routes, a few subnets, the default), so this is a few
// lines of cache, and flows keep the answer: look-ups are for new flows and after a change of the FIB.
#include "nexthop_priv.h"

static const struct nexthop_cell *cell_find(
	const struct nexthop_fib *fib, const struct address *masked, uint32_t bits)
{
	for (uint32_t i = nexthop_hash(masked, bits);; i++) {
		const struct nexthop_cell *cell = &fib->cells[i & fib->cell_mask];
		if (cell->bits_plus_1 == 0)
			return NULL;
		if (cell->bits_plus_1 == bits + 1 && address_equal(&cell->address, masked))
			return cell;
	}
}

struct nexthop_answer nexthop_find(const struct nexthop_fib *fib, const struct address *dst)
{
	int family = address_is_v4(dst);
	for (uint32_t i = 0; i < fib->n_lengths[family]; i++) {
		const struct nexthop_length *length = &fib->lengths[family][i];
		struct address masked;
		masked.halves[0] = dst->halves[0] & length->mask[0];
		masked.halves[1] = dst->halves[1] & length->mask[1];
		const struct nexthop_cell *cell = cell_find(fib, &masked, length->bits);
		if (cell)
			return (struct nexthop_answer){ .nexthop = cell->nexthop,
				.port_idx = cell->port_idx };
	}
	return (struct nexthop_answer){ .nexthop = NEXTHOP_NONE };
}
