// SPDX-License-Identifier: BSD-3-Clause
// The two tables of a worker that outlive the process, when the configuration names a folder for their files: flows, and entries
// of one-way modes. [control]
#include "dataplane_priv.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

// Files of other shapes are read later (inherit.c); where they leave no room for this one, their flows are given up.
static void *map_table(struct worker *w, const struct dataplane_config *config,
	enum inherit_kind kind, struct placed *out, struct error *err)
{
	char path[INHERIT_PATH_MAX];
	const char *dir = config->flow_dir;
	size_t size = out->size;
	uint32_t n = w->dp->n_workers;
	inherit_set_aside(dir, kind, w->idx, n, config->flow_capacity);
	inherit_path(path, dir, kind, w->idx, n, "");
	out->mem = device_map(path, &out->size, w->numa, &out->is_kept, NULL);
	if (out->mem == NULL && kind == INHERIT_FLOWS) {
		log_write(w->dp->log, LOG_LEVEL_WARN, "flows-not-adopted",
			"no room for %s beside the files of other tables: these are removed", path);
		inherit_remove_files(dir, n);
		out->size = size;
		out->mem = device_map(path, &out->size, w->numa, &out->is_kept, err);
	} else if (out->mem == NULL) { // an entry is worth less than another table's flow
		log_write(w->dp->log, LOG_LEVEL_WARN, "flows-not-kept",
			"no room for %s: entries of one-way modes will not survive a restart",
			path);
		unlink(path);
		out->size = size;
		out->is_kept = false;
	}
	out->is_mapped = out->mem != NULL;
	return out->mem;
}

// Memory of out->size bytes: a file, or from the device, where the table need not outlive the process.
static int place_table(struct worker *w, const struct dataplane_config *config,
	enum inherit_kind kind, struct placed *out, struct error *err)
{
	if (config->flow_dir[0] && map_table(w, config, kind, out, err) != NULL)
		return 0;
	if (config->flow_dir[0] && kind == INHERIT_FLOWS)
		return -ENOMEM;
	out->mem = device_alloc(w->dp->device, out->size, w->numa);
	return out->mem ? 0 : refuse_memory("flow table", out->size, w->idx, err);
}

int tables_make_flows(struct worker *w, const struct dataplane_config *config, struct error *err)
{
	size_t size = flow_table_size(config->flow_capacity);
	struct placed *at = &w->flows_at;
	at->size = size;
	int rc = place_table(w, config, INHERIT_FLOWS, at, err);
	if (rc != 0)
		return rc;
	struct flow_table *table = &w->pipeline.flows;
	if (at->is_kept && flow_table_adopt(table, at->mem, size, NULL) == 0 &&
		table->capacity == config->flow_capacity &&
		memcmp(&table->key, &config->flow_key, sizeof(table->key)) == 0)
		return 0;
	rc = flow_table_init(table, at->mem, size, config->flow_capacity, &config->flow_key);
	return rc == 0 ? 0
		       : error_add(err, -rc, "flows.capacity", "%u is not in 1..%u",
				 config->flow_capacity, FLOW_CAPACITY_MAX);
}

// Flows of one-way modes: a table as large, for each family.
int tables_make_oneway(struct worker *w, const struct dataplane_config *config, struct error *err)
{
	struct oneway_capacity capacity = { config->flow_capacity, config->flow_capacity }, had;
	struct hash_key key;
	size_t size = oneway_size(capacity);
	struct placed *at = &w->oneway_at;
	struct clock clock = clock_monotonic();
	at->size = size;
	int rc = place_table(w, config, INHERIT_ONEWAY, at, err);
	if (rc != 0)
		return rc;
	struct oneway_table *table = &w->pipeline.oneway;
	if (at->is_kept && oneway_peek(at->mem, size, &had, &key, NULL) == 0 &&
		memcmp(&had, &capacity, sizeof(had)) == 0 &&
		memcmp(&key, &config->flow_key, sizeof(key)) == 0 &&
		oneway_adopt(table, at->mem, size, (uint32_t)(clock_now_ns(&clock) / CLOCK_S),
			NULL) == 0)
		return 0;
	rc = oneway_init(table, at->mem, size, capacity, &config->flow_key);
	return rc == 0 ? 0
		       : error_add(err, -rc, "flows.capacity", "%u is not in 1..%u",
				 config->flow_capacity, ONEWAY_CAPACITY_MAX);
}

static void end_placed(struct placed *at)
{
	if (at->is_mapped)
		device_unmap(at->mem, at->size);
	else
		device_free(at->mem);
}

void tables_end(struct worker *w)
{
	if (w->flows_at.is_mapped && w->pipeline.flows.header)
		flow_table_close(&w->pipeline.flows);
	if (w->oneway_at.is_mapped && w->pipeline.oneway.header)
		oneway_close(&w->pipeline.oneway);
	end_placed(&w->flows_at);
	end_placed(&w->oneway_at);
}
