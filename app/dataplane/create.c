// SPDX-License-Identifier: BSD-3-Clause
// One worker's memory: tables on its NUMA node, rings, queues and ways out. No thread runs yet.
#include "dataplane_priv.h"

#include <errno.h>
#include <string.h>

struct rte_ring *seam_create(struct device *device, uint32_t size, uint32_t item_bytes, int numa)
{
	// Not rte_ring_create: it takes a memory zone for each, and there are 2560 of those.
	ssize_t bytes = rte_ring_get_memsize_elem(item_bytes, size);
	struct rte_ring *ring = bytes > 0 ? device_alloc(device, (size_t)bytes, numa) : NULL;
	if (ring && rte_ring_init(ring, "sluice", size, RING_F_SP_ENQ | RING_F_SC_DEQ) != 0) {
		device_free(ring);
		ring = NULL;
	}
	return ring;
}

int refuse_memory(const char *what, size_t bytes, uint32_t idx, struct error *err)
{
	return error_add(err, ENOMEM, "memory.size", "no room for the %s of worker %u (%zu bytes)",
		what, idx, bytes);
}

static int make_fragments(
	struct worker *w, const struct dataplane_config *config, struct error *err)
{
	size_t size = fragments_size(FRAGMENTS_DATAGRAMS);
	w->fragments_mem = device_alloc(w->dp->device, size, w->numa);
	if (w->fragments_mem == NULL)
		return refuse_memory("fragments", size, w->idx, err);
	int rc = fragments_init(w->fragments_mem, size, FRAGMENTS_DATAGRAMS, &config->flow_key,
		&w->pipeline.fragments);
	return rc == 0 ? 0 : error_add(err, -rc, "memory", "fragments cannot be laid out");
}

static int make_snat(struct worker *w, const struct dataplane_config *config, struct error *err)
{
	size_t size = snat_size(&config->snat, w->idx);
	void *mem = device_alloc(w->dp->device, size ? size : 64, w->numa);
	if (mem == NULL)
		return refuse_memory("source ports", size, w->idx, err);
	int rc = snat_init(mem, size, &config->snat, w->idx, &w->pipeline.snat);
	if (rc == 0)
		return 0;
	device_free(mem);
	w->pipeline.snat = NULL;
	return error_add(err, -rc, "snat", "source ports %u-%u on %u addresses cannot be laid out",
		config->snat.port_min, config->snat.port_max, config->snat.n_addresses);
}

static int make_pipeline(struct worker *w, const struct dataplane_config *config, struct error *err)
{
	struct pipeline *p = &w->pipeline;
	size_t bytes = (size_t)w->dp->n_backend_counters * sizeof(*p->backend_counters);
	p->worker_idx = w->idx;
	p->n_workers = (uint16_t)w->dp->n_workers;
	p->nexthops = config->nexthops;
	p->counters = &w->counters;
	p->n_backend_counters = w->dp->n_backend_counters;
	p->snat_port_min = config->snat.port_min;
	p->snat_port_max = config->snat.port_max;
	p->check_mac = true;
	for (uint32_t i = 0; i < w->dp->n_ports; i++) {
		const struct device_port *port = device_port(w->dp->device, i);
		p->ports[i] = (struct pipeline_port){
			.mac = port->mac, .mtu = port->mtu, .present = true
		};
	}
	pipeline_init(p);
	p->backend_counters = device_alloc(w->dp->device, bytes, w->numa);
	if (p->backend_counters == NULL)
		return refuse_memory("backend counters", bytes, w->idx, err);
	int rc = tables_make_flows(w, config, err);
	if (rc == 0)
		rc = make_fragments(w, config, err);
	return rc ? rc : make_snat(w, config, err);
}

static int make_rings(struct worker *w, struct error *err)
{
	static const uint32_t punt_sizes[PIPELINE_PUNT_CLASSES] = { 256, 256, 512 };
	struct device *device = w->dp->device;
	w->inject = seam_create(device, RING_INJECT, sizeof(void *), w->numa);
	w->mailbox = seam_create(device, RING_MAIL * 2, sizeof(void *), w->numa);
	w->replies = seam_create(device, RING_MAIL * 2, sizeof(void *), w->numa);
	w->wanted = seam_create(device, RING_WANTED, sizeof(struct dataplane_wanted), w->numa);
	bool all = w->inject && w->mailbox && w->replies && w->wanted;
	for (int class = 0; class < PIPELINE_PUNT_CLASSES; class ++) {
		w->punt[class] = seam_create(device, punt_sizes[class], sizeof(void *), w->numa);
		all = all && w->punt[class];
	}
	return all ? 0 : refuse_memory("rings", 0, w->idx, err);
}

// Queue q of every port belongs to worker q % n_workers, so that every queue is polled by somebody.
static int take_queues(struct worker *w, struct error *err)
{
	for (uint32_t i = 0; i < w->dp->n_ports; i++) {
		const struct device_port *port = device_port(w->dp->device, i);
		for (uint16_t q = 0; q < port->n_rx_queues; q++) {
			if (q % w->dp->n_workers != w->idx)
				continue;
			if (w->n_sources == SOURCES_MAX)
				return error_add(err, EINVAL, "ports",
					"worker %u would have more than %d queues", w->idx,
					SOURCES_MAX);
			w->sources[w->n_sources++] = (struct rx_source){ .port_id = port->port_id,
				.queue = q,
				.vlan = port->vlan,
				.port_idx = (uint8_t)i };
		}
		w->ways[i] = (struct tx_way){ .port_id = port->port_id,
			.queue = w->idx,
			.owner = w->idx % port->n_tx_queues,
			.vlan = port->vlan };
	}
	return 0;
}

static void plan_ageing(struct worker *w, uint32_t capacity)
{
	w->sweep_records = capacity < SWEEP_SLICE ? capacity : SWEEP_SLICE;
	w->sweep_slice_ns = SWEEP_NS * w->sweep_records / capacity;
	if (w->sweep_slice_ns > CLOCK_S)
		w->sweep_slice_ns = CLOCK_S;
	if (w->sweep_slice_ns == 0)
		w->sweep_slice_ns = 1;
}

uint64_t dataplane_worker_bytes(const struct dataplane_config *config)
{
	struct snat_config alone = config->snat;
	alone.n_workers = 1; // the most that one worker can own
	uint64_t n_counters =
		config->n_backend_counters ? config->n_backend_counters : BACKEND_COUNTERS;
	struct oneway_capacity oneway = { config->flow_capacity, config->flow_capacity };
	return flow_table_size(config->flow_capacity) + oneway_size(oneway) +
	       fragments_size(FRAGMENTS_DATAGRAMS) + snat_size(&alone, 0) +
	       n_counters * sizeof(struct pipeline_backend_counters) + sizeof(struct worker) +
	       (2ull << 20); // rings, rounding
}

int worker_create(struct dataplane *dp, const struct dataplane_config *config, uint32_t idx,
	struct error *err)
{
	const struct device_worker *place = device_worker(dp->device, idx);
	struct worker *w = device_alloc(dp->device, sizeof(*w), place->numa);
	if (w == NULL)
		return refuse_memory("state", sizeof(*w), idx, err);
	dp->workers[idx] = w;
	w->dp = dp;
	w->idx = (uint16_t)idx;
	w->n_peers = (uint16_t)dp->n_workers;
	w->lcore = place->lcore;
	w->cpu = place->cpu;
	w->numa = place->numa;
	wait_init(&w->waiting);
	punt_init(&w->punt_bucket, config->punt_per_s, dp->n_workers);
	int rc = make_pipeline(w, config, err);
	if (rc == 0)
		rc = make_rings(w, err);
	if (rc == 0)
		rc = take_queues(w, err);
	if (rc == 0)
		plan_ageing(w, config->flow_capacity);
	return rc;
}

void worker_destroy(struct worker *w)
{
	if (w == NULL)
		return;
	tables_end(w);
	device_free(w->fragments_mem);
	device_free(w->pipeline.snat);
	device_free(w->pipeline.backend_counters);
	struct rte_ring *rings[] = { w->inject, w->mailbox, w->replies, w->wanted };
	for (size_t i = 0; i < ARRAY_SIZE(rings); i++)
		device_free(rings[i]);
	for (int class = 0; class < PIPELINE_PUNT_CLASSES; class ++)
		device_free(w->punt[class]);
	for (uint16_t peer = 0; peer < w->n_peers; peer++) { // the receiving end owns them
		device_free(w->resteer_in[peer]);
		device_free(w->handover_in[peer]);
	}
	device_free(w);
}
