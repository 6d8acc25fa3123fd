// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
//
// The bulk look-up, once per variant: lookup.c includes this file with
//   FLOW_TARGET      function attribute that lets the compiler use the variant's instructions
//   FLOW_NAME(name)  name of a function of the variant
//   FLOW_HASHES      hashes and bucket lines of the first keys, several at once; returns of how many
//   FLOW_MATCH       how a bucket's tags are compared
//   FLOW_SLOT(mask)  the first slot of what that gives
// A function cannot take the place of this: the compare must be inlined, and may be only into a
// function compiled for the same instructions.
//
// Nothing waits for a line that was not asked for FLOW_AHEAD keys earlier. Records are compared when all have been asked for, in
// that order: first those that have a name, whose words were asked for long ago, and those that were found in a second bucket last,
// so that nobody waits behind them. Measured: see sluice-bench table.

FLOW_TARGET static void FLOW_NAME(flow_hash_lines)(const struct flow_table *table,
	const struct flow_key *keys, uint32_t n, uint64_t *hashes, uint64_t *lines)
{
	for (uint32_t i = FLOW_HASHES(table, keys, n, hashes, lines); i < n; i++)
		lines[i] = flow_hash_line(table, &keys[i], &hashes[i]);
}

FLOW_TARGET static inline struct flow_candidate FLOW_NAME(flow_take)(const struct flow_table *table,
	const struct flow_bucket *bucket, uint32_t mask, uint32_t key)
{
	uint32_t entry = bucket->entries[FLOW_SLOT(mask)];
	flow_prefetch_line((const char *)table->records + flow_entry_line(entry));
	return (struct flow_candidate){ .entry = entry, .key = key };
}

FLOW_TARGET static inline __attribute__((always_inline)) void FLOW_NAME(flow_settle)(
	const struct flow_question *q, const struct flow_candidate *c)
{
	uint32_t entry = c->entry, i = c->key;
	// The first equal tag is another key's, about once in 3,000 look-ups.
	if (unlikely(!flow_entry_matches(q->table, entry, &q->keys[i])))
		entry = flow_find_entry(q->table, &q->keys[i], q->hashes[i]);
	q->idx[i] = entry == FLOW_ENTRY_NONE ? FLOW_NONE : flow_entry_idx(entry);
	q->side[i] = flow_entry_side(entry);
}

FLOW_TARGET static void FLOW_NAME(flow_bulk)(const struct flow_question *q)
{
	uint64_t lines[FLOW_BURST_MAX]; // where the bucket to look into lies
	struct flow_candidate found[FLOW_BURST_MAX];
	uint32_t later[FLOW_BURST_MAX]; // keys to look for in their other bucket
	uint32_t n_found = 0, n_later = 0, n = q->n;
	const struct flow_table *table = q->table;
	const char *buckets = table->buckets;
	uint64_t *hashes = q->hashes;

	FLOW_NAME(flow_hash_lines)(table, q->keys, n, hashes, lines);
	for (uint32_t i = 0; i < n && i < FLOW_AHEAD; i++)
		flow_prefetch_line(buckets + lines[i]);
	flow_take_named(q);
#pragma GCC unroll 2
	for (uint32_t i = 0; i < n; i++) {
		if (i + FLOW_AHEAD < n)
			flow_prefetch_line(buckets + lines[i + FLOW_AHEAD]);
		const struct flow_bucket *bucket = (const void *)(buckets + lines[i]);
		uint32_t mask = FLOW_MATCH(bucket, flow_tag(hashes[i]));
		if (likely(mask != 0)) {
			found[n_found++] = FLOW_NAME(flow_take)(table, bucket, mask, i);
			continue;
		}
		flow_settle_none(q, i);
		if (bucket->filter & flow_filter_bit(flow_tag(hashes[i]))) {
			lines[i] = flow_other_line(table, lines[i], flow_tag(hashes[i]));
			later[n_later++] = i;
		}
	}

	for (uint32_t k = 0; k < n_later; k++) {
		const struct flow_bucket *bucket = (const void *)(buckets + lines[later[k]]);
		uint32_t mask = FLOW_MATCH(bucket, flow_tag(hashes[later[k]]));
		if (mask != 0)
			found[n_found++] = FLOW_NAME(flow_take)(table, bucket, mask, later[k]);
	}

	flow_settle_named(q);
#pragma GCC unroll 2
	for (uint32_t k = 0; k < n_found; k++)
		FLOW_NAME(flow_settle)(q, &found[k]);
}

#undef FLOW_TARGET
#undef FLOW_NAME
#undef FLOW_HASHES
#undef FLOW_MATCH
#undef FLOW_SLOT
