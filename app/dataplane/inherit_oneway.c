// SPDX-License-Identifier: BSD-3-Clause
// Entries of one-way modes that the process before this one left. Any worker could have them: one that misses a packet's entry
// finds its holder in the directory. They go where the client's address names, which is right at once for what session
// affinity remembers.
//
// It stays as old as it was: what nobody used for long is not young again.
//
// An entry that finds no room is no loss while the backends are the same: the hash finds them again.
#include "dataplane_priv.h"

#include <errno.h>
#include <string.h>

static void count_entry(struct inheritance *in, struct pipeline *p, const struct oneway_entry *e)
{
	if (e->state != ONEWAY_AFFINITY && e->backend_id < p->n_backend_counters)
		worker_add(&p->backend_counters[e->backend_id].flows_created, 1);
	in->n_kept++;
}

void inherit_oneway_in_place(struct inheritance *in, struct pipeline *p)
{
	struct oneway_entry e;
	for (uint32_t ref = 0; ref < oneway_n_positions(&p->oneway); ref++)
		if (oneway_copy(&p->oneway, ref, &e))
			count_entry(in, p, &e);
}

// No snapshot yet, so no service's timeouts: the longest that stamps of seconds can tell, so that nobody gives way to another for
// having been idle. What is expired goes with the first pass of the sweep.
static bool add_entry(struct inheritance *in, struct pipeline *p, const struct oneway_entry *e)
{
	struct flow_policy policy;
	for (uint32_t state = 0; state < FLOW_STATE_MAX; state++)
		policy.idle_s[state] = ONEWAY_FINE_MAX_S;
	const struct oneway_timeouts timeouts = { .fallback = { .affinity_s = ONEWAY_FINE_MAX_S },
		.policies = &policy };
	uint64_t evicted = 0, hash = flow_key_hash(&p->oneway.schedule, &e->key);
	oneway_advance(&p->oneway, in->now_s);
	if (oneway_lookup(&p->oneway, &e->key) != ONEWAY_NONE)
		return false;
	uint32_t ref = oneway_add(&p->oneway, hash, e, &timeouts, &evicted);
	if (evicted != 0) {
		uint32_t id = oneway_backend_id(evicted);
		if (oneway_state(evicted) != ONEWAY_AFFINITY && id < p->n_backend_counters)
			worker_add(&p->backend_counters[id].flows_ended, 1);
		in->n_kept--;
		in->n_lost++;
	}
	if (ref != ONEWAY_NONE)
		oneway_set_idle(&p->oneway, ref, e->idle_s);
	return ref != ONEWAY_NONE;
}

int inherit_oneway_copies(struct inheritance *in, void *mem, size_t size, struct error *err)
{
	struct oneway_table table;
	int rc = oneway_adopt(&table, mem, size, in->now_s, err);
	if (rc != 0)
		return rc;
	// Numbers of slots and backends in it are those of another life.
	if (memcmp(&table.key, &in->key, sizeof(in->key)) != 0)
		return error_add(err, EINVAL, "flows.file", "made with another key");
	struct oneway_entry e;
	for (uint32_t ref = 0; ref < oneway_n_positions(&table); ref++) {
		if (!oneway_copy(&table, ref, &e))
			continue;
		struct pipeline *p =
			in->heirs[flow_owner_by_client(&e.key.peer, (uint16_t)in->n_heirs)];
		if (add_entry(in, p, &e))
			count_entry(in, p, &e);
		else
			in->n_lost++;
	}
	return 0;
}
