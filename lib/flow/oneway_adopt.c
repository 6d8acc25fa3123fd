// SPDX-License-Identifier: BSD-3-Clause
// Attaching to a one-way table that an earlier process left. Nothing in it is believed: the header must be exactly
// that of its capacity; counts and filters are made anew; an entry stays only if its key may lie where it lies,
// its state is one of its protocol, and its key is nowhere else (a writer that died while it moved an entry leaves it
// twice). An entry that was being written has no word and is free. Whether slots and backends still exist is the caller's to
// judge.
//
// Two passes over the lines: the first judges each entry alone and clears the lines' bits, the second finds keys that
// are there twice, and counts.
#include "oneway.h"
#include "oneway_priv.h"

#include <errno.h>

static int oneway_check_header(const struct oneway_header *h, size_t size, struct error *err)
{
	if (size < sizeof(*h))
		return error_add(err, EINVAL, "flows.file", "%zu bytes hold no header", size);
	if (h->magic != ONEWAY_MAGIC)
		return error_add(err, EINVAL, "flows.file", "not a one-way table");
	if (h->format != ONEWAY_FORMAT)
		return error_add(err, EINVAL, "flows.file", "format %u, this program knows %u",
			h->format, ONEWAY_FORMAT);
	if (h->capacity.v4 > ONEWAY_CAPACITY_MAX || h->capacity.v6 > ONEWAY_CAPACITY_MAX)
		return error_add(err, EINVAL, "flows.file", "capacity %u and %u not in 0..%u",
			h->capacity.v4, h->capacity.v6, ONEWAY_CAPACITY_MAX);
	size_t need = oneway_size(h->capacity);
	uint32_t n_lines[2];
	oneway_n_lines(h->capacity, n_lines);
	if (h->n_lines[0] != n_lines[0] || h->n_lines[1] != n_lines[1] || h->size_bytes != need ||
		size < need)
		return error_add(err, EINVAL, "flows.file",
			"capacity %u and %u takes %zu bytes: header says %llu, there are %zu",
			h->capacity.v4, h->capacity.v6, need, (unsigned long long)h->size_bytes,
			size);
	return 0;
}

// Could this entry have been written where it is?
static bool oneway_is_plausible(struct oneway_table *table, uint32_t line, uint32_t slot)
{
	uint64_t word = oneway_words(table, line)[slot];
	if (oneway_is_free(word))
		return false;
	struct flow_key key = oneway_key_at(table, line, slot);
	enum oneway_state state = oneway_state(word);
	bool of_udp = state == ONEWAY_UDP_FIRST || state == ONEWAY_UDP;
	if (state == ONEWAY_FREE ||
		(state != ONEWAY_AFFINITY && of_udp != (key.protocol == NET_PROTO_UDP)))
		return false;
	if (address_is_v4(&key.peer) == oneway_line_is6(table, line))
		return false;
	const struct oneway_family *f = oneway_family_of(table, line);
	uint64_t hash = flow_key_hash(&table->schedule, &key);
	uint32_t home = oneway_home(f, hash);
	return line == home || line == oneway_other(f, hash, home);
}

static void oneway_adopt_alone(struct oneway_table *table, uint32_t line, uint32_t now_s)
{
	uint32_t n_slots = oneway_family_of(table, line)->n_slots;
	int32_t passed_s = (int32_t)(now_s - table->now_s);
	for (uint32_t s = 0; s < n_slots; s++) {
		uint64_t *at = &oneway_words(table, line)[s];
		*at &= ~ONEWAY_LINE_BITS;
		*at = !oneway_is_plausible(table, line, s)
			      ? 0
			      : oneway_date_anew(*at, table->now_s, now_s,
					passed_s > 0 ? (uint32_t)passed_s : 0);
	}
	if (oneway_line_is6(table, line)) {
		struct oneway_line6 *line6 = oneway_line6(table, line);
		line6->sequence &= ~1u;
		line6->n_displaced = 0;
		line6->filter = 0;
	}
}

static void oneway_adopt_together(struct oneway_table *table, uint32_t line)
{
	struct oneway_family *f = oneway_family_of(table, line);
	for (uint32_t s = 0; s < f->n_slots; s++) {
		uint64_t *at = &oneway_words(table, line)[s];
		if (oneway_is_free(*at))
			continue;
		struct flow_key key = oneway_key_at(table, line, s);
		uint64_t hash = flow_key_hash(&table->schedule, &key);
		uint32_t home = oneway_home(f, hash);
		uint32_t earlier = oneway_match(table, line, &key) & ((1u << s) - 1);
		if (earlier != 0 || (line != home && oneway_match(table, home, &key) != 0)) {
			*at &= ONEWAY_LINE_BITS;
			continue;
		}
		if (line != home)
			oneway_count_displaced(table, home, hash);
		f->n_entries++;
	}
}

int oneway_adopt(
	struct oneway_table *table, void *mem, size_t size, uint32_t now_s, struct error *err)
{
	if ((uintptr_t)mem % 64 != 0)
		return error_add(err, EINVAL, "flows.file", "not aligned to 64 bytes");
	int rc = oneway_check_header(mem, size, err);
	if (rc != 0)
		return rc;
	struct oneway_header *header = mem;
	struct oneway_table adopted;
	oneway_attach(&adopted, mem);
	adopted.was_clean = header->clean == 1;
	header->clean = 0;
	for (uint32_t line = 0; line < adopted.n_lines; line++)
		oneway_adopt_alone(&adopted, line, now_s);
	for (uint32_t line = 0; line < adopted.n_lines; line++)
		oneway_adopt_together(&adopted, line);
	adopted.now_s = adopted.dated_s = header->now_s = now_s;
	*table = adopted;
	return 0;
}

int oneway_peek(const void *mem, size_t size, struct oneway_capacity *out_capacity,
	struct hash_key *out_key, struct error *err)
{
	int rc = oneway_check_header(mem, size, err);
	if (rc != 0)
		return rc;
	const struct oneway_header *header = mem;
	*out_capacity = header->capacity;
	*out_key = header->key;
	return 0;
}

void oneway_set_idle(struct oneway_table *table, uint32_t ref, uint32_t idle_s)
{
	uint64_t *at = oneway_word_at(table, ref);
	uint32_t age_s = idle_s < ONEWAY_AGE_MAX_S ? idle_s : ONEWAY_AGE_MAX_S;
	bool coarse = (*at & ONEWAY_COARSE) || age_s > ONEWAY_FINE_MAX_S;
	oneway_store(at, oneway_dated(*at, age_s, coarse, table->now_s));
}
