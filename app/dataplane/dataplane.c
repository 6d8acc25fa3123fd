// SPDX-License-Identifier: BSD-3-Clause
// Life of the data plane: create, start, stop, destroy; and what others read of it.
#include "dataplane_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <rte_launch.h>

#define STOP_LIMIT_MS 500

// ---------------------------------------------------------------- create

// A re-steer ring for each ordered pair; a hand-over ring where a worker has no transmit queue of its own at some port.
static int connect_pair(struct dataplane *dp, struct worker *from, struct worker *to)
{
	bool hands_over = false;
	for (uint32_t i = 0; i < dp->n_ports; i++)
		hands_over |= from->ways[i].owner == to->idx;
	to->resteer_in[from->idx] = seam_create(dp->device, RING_RESTEER, sizeof(void *), to->numa);
	from->resteer_out[to->idx] = to->resteer_in[from->idx];
	if (hands_over)
		to->handover_in[from->idx] =
			seam_create(dp->device, RING_HANDOVER, sizeof(void *), to->numa);
	for (uint32_t i = 0; i < dp->n_ports; i++) {
		if (from->ways[i].owner == to->idx)
			from->ways[i].handover = to->handover_in[from->idx];
	}
	return to->resteer_in[from->idx] && (!hands_over || to->handover_in[from->idx]) ? 0
											: -ENOMEM;
}

static int connect_workers(struct dataplane *dp, struct error *err)
{
	for (uint32_t from = 0; from < dp->n_workers; from++) {
		for (uint32_t to = 0; to < dp->n_workers; to++) {
			if (from != to && connect_pair(dp, dp->workers[from], dp->workers[to]))
				return error_add(err, ENOMEM, "memory.size",
					"no room for the rings between %u workers", dp->n_workers);
		}
	}
	return 0;
}

static int make_grace(struct dataplane *dp, struct error *err)
{
	dp->qsbr = device_alloc(dp->device, rte_rcu_qsbr_get_memsize(dp->n_workers), -1);
	if (dp->qsbr == NULL || rte_rcu_qsbr_init(dp->qsbr, dp->n_workers) != 0)
		return error_add(err, ENOMEM, "memory.size", "no room for grace periods");
	dp->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (dp->event_fd < 0)
		return error_add(err, errno, "", "eventfd: %s", strerror(errno));
	return 0;
}

// Flows of the process before this one.
static int inherit_all(
	struct dataplane *dp, const struct dataplane_config *config, struct error *err)
{
	struct clock clock = clock_monotonic();
	struct inheritance in = { .n_heirs = dp->n_workers,
		.now_s = (uint32_t)(clock_now_ns(&clock) / CLOCK_S),
		.key = config->flow_key,
		.log = dp->log };
	for (uint32_t i = 0; i < dp->n_workers; i++)
		in.heirs[i] = &dp->workers[i]->pipeline;
	for (uint32_t i = 0; i < dp->n_workers; i++)
		inherit_in_place(&in, in.heirs[i]);
	for (uint32_t i = 0; i < dp->n_workers; i++)
		inherit_oneway_in_place(&in, in.heirs[i]);
	if (config->flow_dir[0])
		inherit_files(&in, config->flow_dir);
	if (in.n_kept + in.n_lost > 0)
		log_write(dp->log, LOG_LEVEL_INFO, "flows-adopted",
			"%lu flows go on, %lu cannot; %u files of other workers were read",
			(unsigned long)in.n_kept, (unsigned long)in.n_lost, in.n_files);
	size_t size = inherit_directory_size(&in);
	if (size == 0)
		return 0;
	dp->directory = device_alloc(dp->device, size, -1);
	if (dp->directory == NULL)
		return error_add(err, ENOMEM, "memory.size",
			"no room for the directory of %lu adopted flows (%zu bytes)",
			(unsigned long)in.n_kept, size);
	inherit_directory(&in, dp->directory, size);
	return 0;
}

int dataplane_create(struct device *device, const struct dataplane_config *config,
	const struct log *log, struct dataplane **out, struct error *err)
{
	if (config->flow_capacity == 0 || config->flow_capacity > FLOW_CAPACITY_MAX)
		return error_add(err, EINVAL, "flows.capacity", "%u is not in 1..%u",
			config->flow_capacity, FLOW_CAPACITY_MAX);
	struct dataplane *dp = device_alloc(device, sizeof(*dp), -1);
	if (dp == NULL)
		return error_add(err, ENOMEM, "memory.size", "no room for the data plane");
	dp->device = device;
	dp->log = log;
	dp->event_fd = -1;
	dp->control_sleeps = 1;
	dp->control_pool = device_control_pool(device);
	dp->idle = config->idle;
	dp->sleep_ns = config->sleep_ns;
	dp->n_ports = device_n_ports(device);
	dp->n_workers = device_n_workers(device);
	dp->n_backend_counters =
		config->n_backend_counters ? config->n_backend_counters : BACKEND_COUNTERS;
	dp->variant = flow_select_variant(NULL);
	oneway_select_variant(NULL);
	packet_select_variant(NULL);
	int rc = make_grace(dp, err);
	for (uint32_t i = 0; rc == 0 && i < dp->n_workers; i++)
		rc = worker_create(dp, config, i, err);
	for (uint32_t i = 0; rc == 0 && i < dp->n_workers; i++)
		rc = tables_make_oneway(dp->workers[i], config, err);
	if (rc == 0)
		rc = inherit_all(dp, config, err);
	if (rc == 0)
		rc = connect_workers(dp, err);
	if (rc) {
		dataplane_destroy(dp);
		return rc;
	}
	*out = dp;
	return 0;
}

void dataplane_destroy(struct dataplane *dp)
{
	if (dp == NULL)
		return;
	if (dp->is_running)
		dataplane_stop(dp);
	if (dp->event_fd >= 0)
		close(dp->event_fd);
	if (dp->is_stuck)
		return; // a worker still uses it all
	for (uint32_t i = 0; i < dp->n_workers; i++)
		worker_destroy(dp->workers[i]);
	device_free(dp->directory);
	device_free(dp->qsbr);
	device_free(dp);
}

// ---------------------------------------------------------------- start and stop

int dataplane_start(struct dataplane *dp, struct error *err)
{
	__atomic_store_n(&dp->is_stopping, 0, __ATOMIC_RELAXED);
	dp->is_running = true;
	for (uint32_t i = 0; i < dp->n_workers; i++) {
		struct worker *w = dp->workers[i];
		__atomic_store_n(&w->face.is_done, 0, __ATOMIC_RELAXED);
		int rc = rte_eal_remote_launch(worker_main, w, w->lcore);
		if (rc) {
			dataplane_stop(dp);
			return error_add(err, -rc, "workers",
				"worker %u on CPU %u does not start: %s", i, w->cpu, strerror(-rc));
		}
		w->launched = true;
	}
	return 0;
}

static bool wait_done(const struct worker *w, uint32_t *left_ms)
{
	while (!__atomic_load_n(&w->face.is_done, __ATOMIC_ACQUIRE)) {
		if (*left_ms == 0)
			return false;
		nanosleep(&(struct timespec){ .tv_nsec = (long)CLOCK_MS }, NULL);
		--*left_ms;
	}
	return true;
}

static void drain_ring(struct rte_ring *ring, struct counters *counters, enum counter_id taken)
{
	void *mbuf;
	while (ring && rte_ring_sc_dequeue(ring, &mbuf) == 0) {
		counters_add(counters, taken, 1);
		counters_drop(counters, DROP_SHUTDOWN, 1);
		rte_pktmbuf_free(mbuf);
	}
}

// After the threads are gone: everything that is still somewhere gets a name.
static void drain_worker(struct dataplane *dp, struct worker *w)
{
	struct rte_mbuf *mbuf;
	while ((mbuf = wait_take(&w->waiting)) != NULL) {
		counters_drop(&w->counters, DROP_SHUTDOWN, 1);
		rte_pktmbuf_free(mbuf);
	}
	for (uint16_t peer = 0; peer < w->n_peers; peer++) {
		struct arrivals *arrived = &w->arrived[peer];
		counters_add(&w->counters, COUNTER_RESTEERED_IN, arrived->n);
		counters_drop(&w->counters, DROP_SHUTDOWN, arrived->n);
		rte_pktmbuf_free_bulk(arrived->mbufs, arrived->n);
		arrived->n = 0;
		drain_ring(w->resteer_in[peer], &w->counters, COUNTER_RESTEERED_IN);
		drain_ring(w->handover_in[peer], &w->counters, COUNTER_RESTEERED_IN);
	}
	drain_ring(w->inject, &w->counters, COUNTER_INJECTED);
	for (int class = 0; class < PIPELINE_PUNT_CLASSES; class ++) {
		while (rte_ring_sc_dequeue(w->punt[class], (void **)&mbuf) == 0) {
			// The worker counted it as punted: control takes that back.
			counters_add(&dp->control_counters, COUNTER_PUNTED, (uint64_t)-1);
			counters_drop(&dp->control_counters, DROP_SHUTDOWN, 1);
			rte_pktmbuf_free(mbuf);
		}
	}
	struct mail *mail = w->mail;
	free(mail);
	w->mail = NULL;
	while (rte_ring_sc_dequeue(w->mailbox, (void **)&mail) == 0)
		free(mail);
	while (rte_ring_sc_dequeue(w->replies, (void **)&mail) == 0)
		free(mail);
	w->n_asked = 0;
}

void dataplane_stop(struct dataplane *dp)
{
	if (!dp->is_running)
		return;
	uint32_t left_ms = STOP_LIMIT_MS;
	__atomic_store_n(&dp->is_stopping, 1, __ATOMIC_SEQ_CST);
	for (uint32_t i = 0; i < dp->n_workers; i++)
		bell_ring(&dp->workers[i]->bell);
	for (uint32_t i = 0; i < dp->n_workers; i++) {
		struct worker *w = dp->workers[i];
		if (!w->launched)
			continue;
		if (!wait_done(w, &left_ms)) {
			log_write(dp->log, LOG_LEVEL_ERROR, "worker",
				"worker %u on CPU %u did not stop within %d ms", i, w->cpu,
				STOP_LIMIT_MS);
			dp->is_stuck = true;
			continue;
		}
		rte_eal_wait_lcore(w->lcore);
		w->launched = false;
	}
	dp->is_running = false;
	for (uint32_t i = 0; !dp->is_stuck && i < dp->n_workers; i++)
		drain_worker(dp, dp->workers[i]);
}

// ---------------------------------------------------------------- what others read

uint32_t dataplane_n_workers(const struct dataplane *dp)
{
	return dp->n_workers;
}

const struct counters *dataplane_counters(const struct dataplane *dp, uint32_t worker_idx)
{
	return &dp->workers[worker_idx]->counters;
}

struct counters *dataplane_control_counters(struct dataplane *dp)
{
	return &dp->control_counters;
}

static uint64_t relaxed(const uint64_t *value)
{
	return __atomic_load_n(value, __ATOMIC_RELAXED);
}

void dataplane_backend_counters(
	const struct dataplane *dp, uint32_t backend_id, struct pipeline_backend_counters *out)
{
	memset(out, 0, sizeof(*out));
	for (uint32_t i = 0; i < dp->n_workers; i++) {
		const struct pipeline *p = &dp->workers[i]->pipeline;
		if (backend_id >= p->n_backend_counters)
			return;
		const struct pipeline_backend_counters *from = &p->backend_counters[backend_id];
		out->packets_in += relaxed(&from->packets_in);
		out->packets_out += relaxed(&from->packets_out);
		out->bytes_in += relaxed(&from->bytes_in);
		out->bytes_out += relaxed(&from->bytes_out);
		out->flows_created += relaxed(&from->flows_created);
		out->flows_ended += relaxed(&from->flows_ended);
		out->ports_exhausted += relaxed(&from->ports_exhausted);
	}
}

void dataplane_port_counters(
	const struct dataplane *dp, uint32_t port_idx, struct dataplane_port_counters *out)
{
	memset(out, 0, sizeof(*out));
	for (uint32_t i = 0; port_idx < dp->n_ports && i < dp->n_workers; i++) {
		const struct dataplane_port_counters *from = &dp->workers[i]->ports[port_idx];
		out->rx_packets += relaxed(&from->rx_packets);
		out->rx_bytes += relaxed(&from->rx_bytes);
		out->tx_packets += relaxed(&from->tx_packets);
		out->tx_bytes += relaxed(&from->tx_bytes);
	}
}

void dataplane_worker_state(
	const struct dataplane *dp, uint32_t worker_idx, struct dataplane_worker_state *out)
{
	const struct worker *w = dp->workers[worker_idx];
	*out = (struct dataplane_worker_state){
		.cpu = w->cpu,
		.numa = w->numa,
		.heartbeat = relaxed(&w->counters.values[COUNTER_POLLS]),
		.busy_cycles = relaxed(&w->counters.values[COUNTER_BUSY_CYCLES]),
		.total_cycles = relaxed(&w->face.total_cycles),
		.n_flows = __atomic_load_n(&w->face.n_flows, __ATOMIC_RELAXED),
		.flow_capacity = w->pipeline.flows.capacity,
		.snapshot_generation = relaxed(&w->face.generation),
		.variant = dp->variant,
		.sleeping = __atomic_load_n(&w->bell.sleeping_us, __ATOMIC_RELAXED) != 0,
	};
}

uint64_t dataplane_adopted_generation(const struct dataplane *dp)
{
	uint64_t lowest = UINT64_MAX;
	for (uint32_t i = 0; i < dp->n_workers; i++) {
		// acquire: whoever sees the generation may free what came before
		uint64_t n = __atomic_load_n(&dp->workers[i]->face.generation, __ATOMIC_ACQUIRE);
		lowest = n < lowest ? n : lowest;
	}
	return lowest;
}

uint64_t dataplane_sweeps(const struct dataplane *dp)
{
	uint64_t lowest = UINT64_MAX;
	for (uint32_t i = 0; i < dp->n_workers; i++) {
		uint64_t n = relaxed(&dp->workers[i]->face.n_sweeps);
		lowest = n < lowest ? n : lowest;
	}
	return lowest;
}
