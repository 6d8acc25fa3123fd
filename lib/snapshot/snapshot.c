// SPDX-License-Identifier: BSD-3-Clause
// Hot path: no allocation, lock, log, system call.
// Look-ups in a published snapshot: listener by (slot, protocol, port), source ranges, backend of a new flow.
// Everything here reads; a handful of warm lines per new flow, nothing per packet of a known one.
#include "snapshot.h"

#define SECOND_TRIES 8 // further hashes before the even fallback

const struct snapshot_listener *snapshot_find_listener(
	const struct snapshot *s, uint16_t slot, uint8_t protocol, uint16_t port)
{
	for (uint32_t i = snapshot_listener_hash(slot, protocol, port);; i++) {
		uint32_t idx = s->listener_cells[i & s->listener_mask];
		if (idx == UINT32_MAX)
			break;
		const struct snapshot_listener *l = &s->listeners[idx];
		if (l->slot == slot && l->protocol == protocol && l->port == port &&
			l->port_max == port)
			return l;
	}
	if (slot >= s->n_own)
		return NULL;
	const struct snapshot_own *own = &s->own[slot];
	for (uint32_t i = 0; i < own->n_ranges; i++) { // narrowest first
		const struct snapshot_listener *l = &s->listeners[s->ranges[own->first_range + i]];
		if (l->protocol == protocol && port >= l->port && port <= l->port_max)
			return l;
	}
	return NULL;
}

// Order of source ranges: IPv4 first, then by address.
static inline bool range_is_after(const struct prefix *p, const struct address *a, bool is_v4)
{
	bool p_is_v4 = address_is_v4(&p->address);
	if (p_is_v4 != is_v4)
		return is_v4;
	return address_compare(&p->address, a) > 0;
}

bool snapshot_source_allowed(
	const struct snapshot *s, const struct snapshot_listener *l, const struct address *client)
{
	if (l->n_sources == 0)
		return true;
	// They are disjoint, so only the last one that does not begin after the client can hold it.
	const struct prefix *ranges = &s->sources[l->first_source];
	bool is_v4 = address_is_v4(client);
	uint32_t low = 0, high = l->n_sources;
	while (low < high) {
		uint32_t middle = (low + high) / 2;
		if (range_is_after(&ranges[middle], client, is_v4))
			high = middle;
		else
			low = middle + 1;
	}
	return low > 0 && prefix_contains(&ranges[low - 1], client);
}

static inline bool is_eligible(const struct snapshot *s, uint32_t backend_id)
{
	return (s->backends[backend_id].flags & SNAPSHOT_BACKEND_ELIGIBLE) != 0;
}

// A different backend than `primary` by further hashes; false when the tries ran out.
static bool pick_second(const struct snapshot *s, const struct snapshot_listener *l, uint64_t *hash,
	struct snapshot_pick *pick)
{
	for (int k = 0; k < SECOND_TRIES; k++) {
		*hash = balance_rehash(*hash);
		uint16_t member = l->table[balance_slot(*hash, l->table_size)];
		if (member == BALANCE_EMPTY)
			return false; // then all are
		uint32_t id = l->members[member];
		if (id == pick->primary_id)
			continue;
		if (pick->second_id == SNAPSHOT_BACKEND_NONE)
			pick->second_id = id;
		if (is_eligible(s, id)) {
			pick->backend_id = id;
			pick->step = SNAPSHOT_PICK_SECOND;
			return true;
		}
	}
	return false;
}

struct snapshot_pick snapshot_pick(
	const struct snapshot *s, const struct snapshot_listener *l, uint64_t hash)
{
	struct snapshot_pick pick = {
		.backend_id = SNAPSHOT_BACKEND_NONE,
		.primary_id = SNAPSHOT_BACKEND_NONE,
		.second_id = SNAPSHOT_BACKEND_NONE,
		.step = SNAPSHOT_PICK_NONE,
	};
	if (l->n_eligible == 0)
		return pick;
	if (l->table_size > 0) {
		pick.slot = balance_slot(hash, l->table_size);
		uint16_t member = l->table[pick.slot];
		if (member != BALANCE_EMPTY) {
			pick.primary_id = l->members[member];
			if (is_eligible(s, pick.primary_id)) {
				pick.backend_id = pick.primary_id;
				pick.step = SNAPSHOT_PICK_PRIMARY;
				return pick;
			}
			if (pick_second(s, l, &hash, &pick))
				return pick;
		}
	}
	hash = balance_rehash(hash);
	pick.backend_id = l->eligible[balance_slot(hash, l->n_eligible)];
	pick.step = SNAPSHOT_PICK_FALLBACK;
	return pick;
}

uint32_t snapshot_pick_other(
	const struct snapshot *s, const struct snapshot_listener *l, uint64_t hash)
{
	struct snapshot_pick pick = {
		.backend_id = SNAPSHOT_BACKEND_NONE,
		.second_id = SNAPSHOT_BACKEND_NONE,
	};
	if (l->table_size == 0 || l->n_eligible < 2)
		return SNAPSHOT_BACKEND_NONE;
	uint16_t member = l->table[balance_slot(hash, l->table_size)];
	pick.primary_id = member == BALANCE_EMPTY ? SNAPSHOT_BACKEND_NONE : l->members[member];
	pick_second(s, l, &hash, &pick);
	return pick.backend_id;
}

uint64_t snapshot_pick_hash(const struct snapshot_listener *l, const struct address *client,
	rte_be16_t client_port, rte_be16_t vip_port)
{
	uint64_t ports = 0;
	if (l->affinity_s == 0)
		ports = (uint64_t)rte_be_to_cpu_16(client_port) << 16 | rte_be_to_cpu_16(vip_port);
	struct hash_key fixed = { { 0x736c756963652d31ull, 0x6d61676c65762d31ull } };
	return hash_words3(&fixed, rte_be_to_cpu_64(client->halves[0]) + 1,
		rte_be_to_cpu_64(client->halves[1]), ports);
}
