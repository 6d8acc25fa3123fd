// SPDX-License-Identifier: BSD-3-Clause
// Attaching to memory that an earlier process left, or reading flows out of it. Nothing in it is believed: the header must be
// exactly that of its capacity; the buckets are made anew from the records, which costs little more
// than checking each slot and cannot be wrong; a record stays only if it is whole and its keys are
// nobody else's. What cannot be judged here (do slots, backend and ports still exist? who has the port that two claim?) is the
// caller's, and next hops are forgotten.
//
// Cost: about one flow_add per flow, 0.2 s for a million; runs before packets do.
#include "flow.h"
#include "flow_priv.h"

#include <errno.h>

#define ADOPT_BATCH 32

static int flow_check_header(const struct flow_table_header *h, size_t size, struct error *err)
{
	if (size < sizeof(*h))
		return error_add(err, EINVAL, "flows.file", "%zu bytes hold no header", size);
	if (h->magic != FLOW_MAGIC)
		return error_add(err, EINVAL, "flows.file", "not a flow table");
	if (h->format != FLOW_FORMAT)
		return error_add(err, EINVAL, "flows.file", "format %u, this program knows %u",
			h->format, FLOW_FORMAT);
	if (h->capacity == 0 || h->capacity > FLOW_CAPACITY_MAX)
		return error_add(err, EINVAL, "flows.file", "capacity %u not in 1..%u", h->capacity,
			FLOW_CAPACITY_MAX);
	size_t need = flow_table_size(h->capacity);
	if (h->n_buckets != flow_n_buckets(h->capacity) || h->size_bytes != need || size < need)
		return error_add(err, EINVAL, "flows.file",
			"capacity %u takes %zu bytes: header says %llu, there are %zu", h->capacity,
			need, (unsigned long long)h->size_bytes, size);
	return 0;
}

// Is the record one that could have been written?
static bool flow_record_whole(const struct flow_record *r)
{
	if (r->sequence % 2 != 0 || r->state == FLOW_STATE_FREE || r->state >= FLOW_STATE_MAX)
		return false;
	if ((r->flags & FLOW_FLAG_BY_PORT) && (r->flags & FLOW_FLAG_DNAT)) // has no source port
		return false;
	bool is_udp = r->state == FLOW_STATE_UDP_ONEWAY || r->state == FLOW_STATE_UDP_TWOWAY;
	if (is_udp)
		return r->protocol == NET_PROTO_UDP;
	return r->protocol == NET_PROTO_TCP || r->protocol == NET_PROTO_SCTP;
}

static void flow_forget_routes(struct flow_record *r)
{
	r->nexthop_client = UINT16_MAX;
	r->nexthop_backend = UINT16_MAX;
	r->route_generation = 0; // look again
}

// Enters the keys of record idx, or none. A second key that has another way to be found is the caller's to judge.
static bool flow_adopt_record(
	struct flow_table *table, uint32_t idx, uint64_t client_hash, uint64_t backend_hash)
{
	const struct flow_record *r = &table->records[idx];
	struct flow_key client = flow_client_key(r), backend = flow_backend_key(r);
	bool two = flow_has_two_keys(r);
	if (flow_key_equal(&client, &backend) ||
		flow_find_entry(table, &client, client_hash) != FLOW_ENTRY_NONE ||
		(two && flow_find_entry(table, &backend, backend_hash) != FLOW_ENTRY_NONE))
		return false;
	if (!flow_insert_key(table, client_hash, idx, FLOW_SIDE_CLIENT))
		return false;
	if (!two || flow_insert_key(table, backend_hash, idx, FLOW_SIDE_BACKEND))
		return true;
	flow_delete_key(table, client_hash, idx, FLOW_SIDE_CLIENT);
	return false;
}

// Records first..first+n-1: hash all and fetch their buckets, then enter. Free ones join the list.
static void flow_adopt_batch(struct flow_table *table, uint32_t first, uint32_t n)
{
	uint64_t hashes[ADOPT_BATCH][2];
	for (uint32_t i = 0; i < n; i++) {
		const struct flow_record *r = &table->records[first + i];
		struct flow_key client = flow_client_key(r), backend = flow_backend_key(r);
		hashes[i][0] = flow_hash(table, &client);
		hashes[i][1] = flow_hash(table, &backend);
		flow_prefetch_bucket(table, hashes[i][0]);
		flow_prefetch_bucket(table, hashes[i][1]);
	}
	for (uint32_t i = 0; i < n; i++) {
		struct flow_record *r = &table->records[first + i];
		bool keep = flow_record_whole(r) &&
			    flow_adopt_record(table, first + i, hashes[i][0], hashes[i][1]);
		if (keep) {
			flow_forget_routes(r);
			table->n_flows++;
			table->n_used = first + i + 1;
			if (flow_state_yields(r->state))
				flow_count_yielding(table, first + i, 1);
		} else {
			memset(r, 0, sizeof(*r));
		}
	}
}

int flow_table_adopt(struct flow_table *table, void *mem, size_t size, struct error *err)
{
	if ((uintptr_t)mem % 64 != 0)
		return error_add(err, EINVAL, "flows.file", "not aligned to 64 bytes");
	int rc = flow_check_header(mem, size, err);
	if (rc != 0)
		return rc;
	struct flow_table_header *header = mem;
	struct flow_table adopted;
	flow_table_attach(&adopted, mem);
	adopted.was_clean = header->clean == 1;
	header->clean = 0;
	memset(adopted.buckets, 0, (size_t)header->n_buckets * sizeof(struct flow_bucket));
	memset(adopted.yielding, 0, flow_hint_bytes(header->capacity));
	for (uint32_t first = 0; first < adopted.capacity; first += ADOPT_BATCH) {
		uint32_t n_left = adopted.capacity - first;
		flow_adopt_batch(&adopted, first, n_left < ADOPT_BATCH ? n_left : ADOPT_BATCH);
	}
	// Free records below the last used one; the lowest is given out first.
	for (uint32_t i = adopted.n_used; i-- > 0;) {
		if (adopted.records[i].state != FLOW_STATE_FREE)
			continue;
		adopted.records[i].stamp_s = adopted.first_free;
		adopted.first_free = i;
	}
	*table = adopted;
	return 0;
}

int flow_leftover_open(struct flow_leftover *out, const void *mem, size_t size, struct error *err)
{
	if ((uintptr_t)mem % 64 != 0)
		return error_add(err, EINVAL, "flows.file", "not aligned to 64 bytes");
	int rc = flow_check_header(mem, size, err);
	if (rc != 0)
		return rc;
	const struct flow_table_header *header = mem;
	const struct flow_bucket *buckets = (const void *)(header + 1);
	*out = (struct flow_leftover){
		.records = (const void *)(buckets + header->n_buckets),
		.capacity = header->capacity,
		.key = header->key,
	};
	return 0;
}

bool flow_leftover_next(struct flow_leftover *left, struct flow_record *out)
{
	while (left->next < left->capacity) {
		const struct flow_record *r = &left->records[left->next++];
		if (!flow_record_whole(r))
			continue;
		*out = *r;
		flow_forget_routes(out);
		return true;
	}
	return false;
}
