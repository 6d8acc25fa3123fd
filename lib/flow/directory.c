// SPDX-License-Identifier: BSD-3-Clause
// Laying out and filling the directory (directory.h); reading it is inline there. Linear probing at half load: a look-up that
// misses reads 1.5 cells on average, nearly always of one line.
#include "directory.h"

#include <errno.h>
#include <string.h>

static uint64_t n_cells(uint64_t n_flows)
{
	uint64_t n = 64;
	while (n < 2 * n_flows)
		n *= 2;
	return n;
}

size_t flow_directory_size(uint64_t n_flows)
{
	return sizeof(struct flow_directory) + n_cells(n_flows) * sizeof(uint64_t);
}

int flow_directory_init(void *mem, size_t size, uint64_t n_flows, struct flow_directory **out)
{
	if ((uintptr_t)mem % 64 != 0 || size < flow_directory_size(n_flows))
		return -EINVAL;
	memset(mem, 0, flow_directory_size(n_flows));
	struct flow_directory *directory = mem;
	directory->mask = n_cells(n_flows) - 1;
	*out = directory;
	return 0;
}

bool flow_directory_add(struct flow_directory *directory, uint64_t hash, uint16_t worker)
{
	if (directory->n_flows > directory->mask / 2)
		return false;
	for (uint64_t k = 0; k < FLOW_DIRECTORY_PROBES; k++) {
		uint64_t *cell = &directory->cells[((hash >> 20) + k) & directory->mask];
		if (*cell != 0 && flow_directory_tag(*cell) == flow_directory_tag(hash))
			return true;
		if (*cell != 0)
			continue;
		*cell = flow_directory_tag(hash) | (uint16_t)(worker + 1);
		directory->n_flows++;
		return true;
	}
	return false;
}
