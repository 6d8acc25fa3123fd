// SPDX-License-Identifier: BSD-3-Clause
// Pools in force: their ranges cut into segments that nobody else has, and the lowest free address of a pool.
//
//	pool blue  203.0.113.0/28, 198.51.100.7      segments   198.51.100.7            blue, 2nd in order of use
//	pool green 203.0.113.8/29 (younger)                     203.0.113.0 - .15       blue, 1st
//	                                                        green has none: a finding
//
// A segment holds no map of its addresses, only the runs of held ones: as addresses are given lowest first, there are few. Lowest free
// address: behind the first run, when that begins where the segment begins.
#include "ipam_priv.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

// Index of the first segment that ends at or behind `a`.
static uint32_t segment_lower(const struct ipam_pools *pools, const struct address *a)
{
	uint32_t low = 0, high = pools->n_segments;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (address_compare(&pools->segments[middle].range.last, a) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct ipam_segment *ipam_segment_of(const struct ipam_pools *pools, const struct address *a)
{
	uint32_t idx = segment_lower(pools, a);
	if (idx == pools->n_segments || !ipam_range_contains(&pools->segments[idx].range, a))
		return NULL;
	return &pools->segments[idx];
}

uint32_t ipam_home_of(const struct ipam_pools *pools, const struct address *a)
{
	const struct ipam_segment *segment = ipam_segment_of(pools, a);
	return segment ? segment->pool : IPAM_NOBODY;
}

uint32_t ipam_home_find(const struct ipam_pools *pools, const char *name)
{
	uint32_t low = 0, high = pools->n_homes;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		int order = strcmp(pools->homes[middle].name, name);
		if (order == 0)
			return middle;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return IPAM_NOBODY;
}

// ---------------------------------------------------------------- cutting
static int insert_segment(struct ipam_pools *pools, const struct ipam_segment *segment)
{
	if (array_grow(pools->segments, pools->n_segments, pools->cap_segments) != 0)
		return -ENOMEM;
	uint32_t idx = segment_lower(pools, &segment->range.first);
	memmove(pools->segments + idx + 1, pools->segments + idx,
		(pools->n_segments - idx) * sizeof(*pools->segments));
	pools->segments[idx] = *segment;
	pools->n_segments++;
	return 0;
}

static void tell_overlap(struct ipam_pools *pools, const struct ipam_segment *segment,
	const struct ipam_segment *other)
{
	char mine[2 * ADDRESS_TEXT_LEN], theirs[2 * ADDRESS_TEXT_LEN];
	const char *name = pools->homes[segment->pool].name;
	ipam_range_format(&segment->range, mine, sizeof(mine));
	ipam_range_format(&other->range, theirs, sizeof(theirs));
	if (other->pool == IPAM_NOBODY)
		error_add(&pools->findings, EEXIST, name,
			"%s: %s is reserved for sluice or its machine, and is left out", mine,
			theirs);
	else if (other->pool == segment->pool)
		error_add(&pools->findings, EEXIST, name, "%s: %s is in this pool already", mine,
			theirs);
	else
		error_add(&pools->findings, EEXIST, name,
			"%s: %s belongs to the pool %s, which is older, and is left out", mine,
			theirs, pools->homes[other->pool].name);
}

// Adds what of a range is nobody's yet.
static int add_range(struct ipam_pools *pools, const struct ipam_segment *segment)
{
	struct ipam_segment piece = *segment;
	for (;;) {
		uint32_t idx = segment_lower(pools, &piece.range.first);
		if (idx == pools->n_segments)
			return insert_segment(pools, &piece);
		struct ipam_segment other = pools->segments[idx];
		if (address_compare(&other.range.first, &segment->range.last) > 0)
			return insert_segment(pools, &piece);
		if (segment->pool != IPAM_NOBODY)
			tell_overlap(pools, segment, &other);
		if (address_compare(&piece.range.first, &other.range.first) < 0) {
			piece.range.last = ipam_before(&other.range.first);
			if (insert_segment(pools, &piece) != 0)
				return -ENOMEM;
		}
		if (address_compare(&other.range.last, &segment->range.last) >= 0)
			return 0;
		piece.range.first = ipam_after(&other.range.last);
		piece.range.last = segment->range.last;
	}
}

static int order_of_use(const void *a, const void *b)
{
	const struct ipam_segment *x = *(struct ipam_segment *const *)a;
	const struct ipam_segment *y = *(struct ipam_segment *const *)b;
	if (x->range_idx != y->range_idx)
		return x->range_idx < y->range_idx ? -1 : 1;
	return address_compare(&x->range.first, &y->range.first);
}

static void add_size(struct ipam_home *home, const struct ipam_range *range)
{
	uint64_t *size = &home->size[ipam_family_of(&range->first)];
	uint64_t more = ipam_range_size(range);
	*size = *size > UINT64_MAX - more ? UINT64_MAX : *size + more;
}

// Segments of each pool, in its order of use.
static int list_segments(struct ipam_pools *pools)
{
	struct ipam_segment **sorted = calloc(pools->n_segments + 1, sizeof(*sorted));
	int rc = sorted ? 0 : -ENOMEM;
	for (uint32_t i = 0; rc == 0 && i < pools->n_homes; i++) {
		struct ipam_home *home = &pools->homes[i];
		home->segments = calloc(home->n_segments + 1, sizeof(*home->segments));
		rc = home->segments ? 0 : -ENOMEM;
		home->n_segments = 0;
	}
	for (uint32_t i = 0; rc == 0 && i < pools->n_segments; i++)
		sorted[i] = &pools->segments[i];
	if (rc == 0)
		qsort(sorted, pools->n_segments, sizeof(*sorted), order_of_use);
	for (uint32_t i = 0; rc == 0 && i < pools->n_segments; i++) {
		if (sorted[i]->pool == IPAM_NOBODY)
			continue;
		struct ipam_home *home = &pools->homes[sorted[i]->pool];
		sorted[i]->pos = home->n_segments;
		home->segments[home->n_segments++] = (uint32_t)(sorted[i] - pools->segments);
		add_size(home, &sorted[i]->range);
	}
	free(sorted);
	return rc;
}

// ---------------------------------------------------------------- making
static int order_of_names(const void *a, const void *b)
{
	const struct ipam_pool *x = *(const struct ipam_pool *const *)a;
	const struct ipam_pool *y = *(const struct ipam_pool *const *)b;
	int order = strcmp(x->name, y->name);
	if (order == 0 && x->created_s != y->created_s)
		order = x->created_s < y->created_s ? -1 : 1;
	return order ? order : x < y ? -1 : x > y;
}

static int order_of_age(const void *a, const void *b)
{
	const struct ipam_pool *x = *(const struct ipam_pool *const *)a;
	const struct ipam_pool *y = *(const struct ipam_pool *const *)b;
	if (x->created_s != y->created_s)
		return x->created_s < y->created_s ? -1 : 1;
	return order_of_names(a, b);
}

static int add_homes(struct ipam_pools *pools, const struct ipam_pool **sorted, uint32_t n)
{
	pools->homes = calloc(n + 1, sizeof(*pools->homes));
	if (pools->homes == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		const struct ipam_pool *from = sorted[i];
		if (i && strcmp(from->name, sorted[i - 1]->name) == 0) {
			error_add(&pools->findings, EEXIST, from->name,
				"there is another pool of this name, which is older: this one is "
				"left out");
			continue;
		}
		struct ipam_home *home = &pools->homes[pools->n_homes];
		*home = (struct ipam_home){ .name = strdup(from->name),
			.priority = from->priority > 0 ? from->priority : INT32_MAX,
			.auto_assign = from->auto_assign,
			.is_pinned = from->is_pinned };
		if (home->name == NULL)
			return -ENOMEM;
		pools->n_homes++;
	}
	return 0;
}

static int add_ranges(struct ipam_pools *pools, const struct ipam_pool **sorted, uint32_t n)
{
	qsort(sorted, n, sizeof(*sorted), order_of_age);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t home = ipam_home_find(pools, sorted[i]->name);
		bool is_known = pools->homes[home].n_segments; // the older one of the name
		pools->homes[home].n_segments = 1;
		for (uint32_t k = 0; !is_known && k < sorted[i]->n_ranges; k++) {
			struct ipam_segment segment = {
				.range = sorted[i]->ranges[k], .pool = home, .range_idx = k
			};
			if (add_range(pools, &segment) != 0)
				return -ENOMEM;
		}
	}
	for (uint32_t i = 0; i < pools->n_homes; i++)
		pools->homes[i].n_segments = 0;
	for (uint32_t i = 0; i < pools->n_segments; i++)
		if (pools->segments[i].pool != IPAM_NOBODY)
			pools->homes[pools->segments[i].pool].n_segments++;
	return list_segments(pools);
}

// Indexes of the homes: pinned before open, each by priority; equal ones by name, as the homes lie.
static int order_homes(struct ipam_pools *pools)
{
	pools->order = calloc(pools->n_homes + 1, sizeof(*pools->order));
	if (pools->order == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < pools->n_homes; i++) {
		const struct ipam_home *home = &pools->homes[i];
		uint32_t at = i;
		for (; at > 0; at--) {
			const struct ipam_home *other = &pools->homes[pools->order[at - 1]];
			if (other->is_pinned > home->is_pinned ||
				(other->is_pinned == home->is_pinned &&
					other->priority <= home->priority))
				break;
			pools->order[at] = pools->order[at - 1];
		}
		pools->order[at] = i;
	}
	return 0;
}

// Everything that they are made from, as one row of bytes.
static int note_given(struct ipam_pools *pools, const struct ipam_pool *from, uint32_t n_from,
	const struct ipam_range *reserved, uint32_t n_reserved)
{
	char *text = NULL;
	FILE *out = open_memstream(&text, &pools->given_len);
	if (out == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < n_from; i++) {
		fprintf(out, "%s %d %d %d %lld %u ", from[i].name, from[i].priority,
			from[i].auto_assign, from[i].is_pinned, (long long)from[i].created_s,
			from[i].n_ranges);
		if (from[i].n_ranges)
			fwrite(from[i].ranges, sizeof(*from[i].ranges), from[i].n_ranges, out);
	}
	if (n_reserved)
		fwrite(reserved, sizeof(*reserved), n_reserved, out);
	bool failed = ferror(out);
	if (fclose(out) != 0 || failed) {
		free(text);
		return -ENOMEM;
	}
	pools->given = text;
	return 0;
}

int ipam_pools_init(struct ipam_pools *pools, const struct ipam_pool *from, uint32_t n_from,
	const struct ipam_range *reserved, uint32_t n_reserved)
{
	*pools = (struct ipam_pools){ 0 };
	const struct ipam_pool **sorted = calloc(n_from + 1, sizeof(*sorted));
	int rc = sorted ? note_given(pools, from, n_from, reserved, n_reserved) : -ENOMEM;
	for (uint32_t i = 0; rc == 0 && i < n_from; i++)
		sorted[i] = &from[i];
	if (rc == 0) {
		qsort(sorted, n_from, sizeof(*sorted), order_of_names);
		rc = add_homes(pools, sorted, n_from);
	}
	for (uint32_t i = 0; rc == 0 && i < n_reserved; i++) {
		struct ipam_segment segment = { .range = reserved[i], .pool = IPAM_NOBODY };
		rc = add_range(pools, &segment);
	}
	if (rc == 0)
		rc = add_ranges(pools, sorted, n_from);
	if (rc == 0)
		rc = order_homes(pools);
	free(sorted);
	if (rc != 0)
		ipam_pools_fini(pools);
	return rc;
}

void ipam_pools_fini(struct ipam_pools *pools)
{
	for (uint32_t i = 0; i < pools->n_homes; i++) {
		free(pools->homes[i].name);
		free(pools->homes[i].segments);
	}
	for (uint32_t i = 0; i < pools->n_segments; i++)
		free(pools->segments[i].runs);
	free(pools->homes);
	free(pools->order);
	free(pools->segments);
	free(pools->given);
	error_fini(&pools->findings);
	*pools = (struct ipam_pools){ 0 };
}

bool ipam_pools_same(const struct ipam_pools *a, const struct ipam_pools *b)
{
	return a->given && b->given && a->given_len == b->given_len &&
	       memcmp(a->given, b->given, a->given_len) == 0;
}

// ---------------------------------------------------------------- taking
static bool segment_lowest(const struct ipam_segment *segment, struct address *out)
{
	if (segment->n_runs == 0 ||
		!address_equal(&segment->runs[0].first, &segment->range.first)) {
		*out = segment->range.first;
		return true;
	}
	if (address_equal(&segment->runs[0].last, &segment->range.last))
		return false;
	*out = ipam_after(&segment->runs[0].last);
	return true;
}

bool ipam_home_lowest(
	struct ipam_pools *pools, uint32_t home_idx, enum ipam_family family, struct address *out)
{
	struct ipam_home *home = &pools->homes[home_idx];
	for (uint32_t *at = &home->hint[family]; *at < home->n_segments; ++*at) {
		const struct ipam_segment *segment = &pools->segments[home->segments[*at]];
		if (ipam_family_of(&segment->range.first) == family && segment_lowest(segment, out))
			return true;
	}
	return false;
}

// Index of the first run that ends at or behind `a`.
static uint32_t run_lower(const struct ipam_segment *segment, const struct address *a)
{
	uint32_t low = 0, high = segment->n_runs;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (address_compare(&segment->runs[middle].last, a) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void close_run(struct ipam_segment *segment, uint32_t idx)
{
	segment->n_runs--;
	memmove(segment->runs + idx, segment->runs + idx + 1,
		(segment->n_runs - idx) * sizeof(*segment->runs));
}

static void open_run(struct ipam_segment *segment, uint32_t idx, const struct ipam_range *run)
{
	assert(segment->n_runs < segment->cap_runs);
	memmove(segment->runs + idx + 1, segment->runs + idx,
		(segment->n_runs - idx) * sizeof(*segment->runs));
	segment->runs[idx] = *run;
	segment->n_runs++;
}

int ipam_pools_take(struct ipam_pools *pools, const struct address *a)
{
	struct ipam_segment *segment = ipam_segment_of(pools, a);
	assert(segment && segment->pool != IPAM_NOBODY);
	// Never more runs than held addresses: with that much room, ipam_pools_give needs none.
	if (array_grow(segment->runs, segment->n_held, segment->cap_runs) != 0)
		return -ENOMEM;
	segment->n_held++;
	uint32_t idx = run_lower(segment, a);
	struct ipam_range *next = idx < segment->n_runs ? &segment->runs[idx] : NULL;
	struct ipam_range *previous = idx > 0 ? &segment->runs[idx - 1] : NULL;
	assert(next == NULL || !ipam_range_contains(next, a));
	struct address before = ipam_before(a), after = ipam_after(a);
	bool joins_previous = previous && address_equal(&previous->last, &before);
	bool joins_next = next && address_equal(&next->first, &after);
	if (joins_previous && joins_next) {
		previous->last = next->last;
		close_run(segment, idx);
	} else if (joins_previous) {
		previous->last = *a;
	} else if (joins_next) {
		next->first = *a;
	} else {
		open_run(segment, idx, &(struct ipam_range){ *a, *a });
	}
	pools->homes[segment->pool].n_held[ipam_family_of(a)]++;
	return 0;
}

void ipam_pools_give(struct ipam_pools *pools, const struct address *a)
{
	struct ipam_segment *segment = ipam_segment_of(pools, a);
	assert(segment && segment->pool != IPAM_NOBODY);
	uint32_t idx = run_lower(segment, a);
	assert(idx < segment->n_runs && ipam_range_contains(&segment->runs[idx], a));
	segment->n_held--;
	struct ipam_range *run = &segment->runs[idx];
	struct ipam_range rest = { ipam_after(a), run->last };
	bool is_first = address_equal(&run->first, a), is_last = address_equal(&run->last, a);
	if (is_first && is_last) {
		close_run(segment, idx);
	} else if (is_first) {
		run->first = rest.first;
	} else {
		run->last = ipam_before(a);
		if (!is_last)
			open_run(segment, idx + 1, &rest);
	}
	struct ipam_home *home = &pools->homes[segment->pool];
	enum ipam_family family = ipam_family_of(a);
	home->n_held[family]--;
	if (segment->pos < home->hint[family])
		home->hint[family] = segment->pos;
}
