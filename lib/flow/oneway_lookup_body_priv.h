// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
//
// The bulk look-up of the one-way table, once per variant: oneway_lookup.c includes this file with
//   ONEWAY_TARGET  function attribute that lets the compiler use the variant's instructions
//   ONEWAY_BULK    name of the function
//   ONEWAY_MATCH4  how the keys of an IPv4 line are compared
// A function cannot take the place of this: the compare must be inlined, and may be only into a
// function compiled for the same instructions.
//
// Nothing waits for a line that was not asked for one loop earlier.
ONEWAY_TARGET static void ONEWAY_BULK(struct oneway_table *table, const struct flow_key *keys,
	const uint64_t *hashes, uint32_t n, uint32_t *out_refs)
{
	const struct oneway_family *families = table->families;
	uint32_t lines[ONEWAY_BULK_MAX];
	uint8_t order[2][ONEWAY_BULK_MAX]; // keys by family
	uint32_t n_order[2] = { 0, 0 };
	struct oneway_later later = { .n = 0 };

	for (uint32_t i = 0; i < n; i++) {
		uint32_t is6 = !address_is_v4(&keys[i].peer);
		lines[i] = oneway_home(&families[is6], hashes[i]);
		flow_prefetch_line(oneway_line4(table, lines[i]));
		order[0][n_order[0]] = (uint8_t)i;
		order[1][n_order[1]] = (uint8_t)i;
		n_order[0] += !is6;
		n_order[1] += is6;
	}

	for (uint32_t k = 0; k < n_order[0]; k++) {
		uint32_t i = order[0][k];
		const struct oneway_line4 *line = oneway_line4(table, lines[i]);
		uint32_t mask = ONEWAY_MATCH4(line, oneway_key4(&keys[i]), oneway_wanted(&keys[i]));
		out_refs[i] = oneway_found(lines[i], mask);
		if (mask == 0 && oneway_filter4(line, hashes[i])) {
			lines[i] = oneway_other(&families[0], hashes[i], lines[i]);
			flow_prefetch_line(oneway_line4(table, lines[i]));
			later.keys[later.n++] = (uint8_t)i;
		}
	}
	uint32_t n_later4 = later.n;

	for (uint32_t k = 0; k < n_order[1]; k++) {
		uint32_t i = order[1][k];
		const struct oneway_line6 *line = oneway_line6(table, lines[i]);
		uint32_t mask = oneway_match6(line, &keys[i], oneway_wanted(&keys[i]));
		out_refs[i] = oneway_found(lines[i], mask);
		if (mask == 0 && oneway_filter6(line, hashes[i])) {
			lines[i] = oneway_other(&families[1], hashes[i], lines[i]);
			flow_prefetch_line(oneway_line6(table, lines[i]));
			later.keys[later.n++] = (uint8_t)i;
		}
	}

	for (uint32_t k = 0; k < n_later4; k++) {
		uint32_t i = later.keys[k];
		uint32_t mask = ONEWAY_MATCH4(oneway_line4(table, lines[i]), oneway_key4(&keys[i]),
			oneway_wanted(&keys[i]));
		out_refs[i] = oneway_found(lines[i], mask);
	}
	for (uint32_t k = n_later4; k < later.n; k++) {
		uint32_t i = later.keys[k];
		uint32_t mask = oneway_match6(
			oneway_line6(table, lines[i]), &keys[i], oneway_wanted(&keys[i]));
		out_refs[i] = oneway_found(lines[i], mask);
	}
	if (later.n != 0)
		oneway_settle(table, keys, hashes, &later, out_refs);
}

#undef ONEWAY_TARGET
#undef ONEWAY_BULK
#undef ONEWAY_MATCH4
