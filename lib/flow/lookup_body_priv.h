// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
//
// The bulk look-up, once per variant: lookup.c includes this file with
//   FLOW_TARGET    function attribute that lets the compiler use the variant's instructions
//   FLOW_BULK      name of the function
//   FLOW_MATCH     how a bucket's tags are compared
// A function cannot take the place of this: the compare must be inlined, and may be only into a
// function compiled for the same instructions.
//
// Nothing waits for a line that was not asked for one loop earlier. Measured: see sluice-bench table.
FLOW_TARGET static void FLOW_BULK(const struct flow_table *table, const struct flow_key *keys,
	const uint64_t *hashes, uint32_t n, uint32_t *out_idx, uint8_t *out_side)
{
	uint32_t primary[FLOW_BULK_MAX];
	uint32_t entries[FLOW_BULK_MAX];
	uint32_t later[FLOW_BULK_MAX]; // keys to look for in their other bucket
	uint32_t n_later = 0;

#pragma GCC unroll 4
	for (uint32_t i = 0; i < n; i++) {
		primary[i] = flow_primary_bucket(table, hashes[i]);
		flow_prefetch_line(flow_bucket(table, primary[i]));
	}

#pragma GCC unroll 2
	for (uint32_t i = 0; i < n; i++) {
		uint16_t tag = flow_tag(hashes[i]);
		const struct flow_bucket *bucket = flow_bucket(table, primary[i]);
		uint32_t mask = FLOW_MATCH(bucket, tag);
		entries[i] = FLOW_ENTRY_NONE;
		if (mask != 0) {
			entries[i] = bucket->entries[__builtin_ctz(mask)];
			flow_prefetch_line(flow_entry_record(table, entries[i]));
		} else if (bucket->filter & flow_filter_bit(tag)) {
			primary[i] = flow_other_bucket(table->n_buckets, primary[i], tag);
			flow_prefetch_line(flow_bucket(table, primary[i]));
			later[n_later++] = i;
		}
	}

	for (uint32_t k = 0; k < n_later; k++) {
		uint32_t i = later[k];
		const struct flow_bucket *bucket = flow_bucket(table, primary[i]);
		uint32_t mask = FLOW_MATCH(bucket, flow_tag(hashes[i]));
		if (mask != 0) {
			entries[i] = bucket->entries[__builtin_ctz(mask)];
			flow_prefetch_line(flow_entry_record(table, entries[i]));
		}
	}

#pragma GCC unroll 2
	for (uint32_t i = 0; i < n; i++) {
		uint32_t entry = entries[i];
		// The first equal tag is another key's, about once in 3,000 look-ups.
		if (entry != FLOW_ENTRY_NONE && !flow_entry_matches(table, entry, &keys[i]))
			entry = flow_find_entry(table, &keys[i], hashes[i]);
		out_idx[i] = entry == FLOW_ENTRY_NONE ? FLOW_NONE : flow_entry_idx(entry);
		out_side[i] = flow_entry_side(entry);
	}
}

#undef FLOW_TARGET
#undef FLOW_BULK
#undef FLOW_MATCH
