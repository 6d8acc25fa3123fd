// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// One worker's tables with established flows, and the packets for them.

#include "bench_priv.h"
#include "pipeline.h"

struct service_store;
struct snapshot_registry;

struct bench_scene {
	struct pipeline pipeline;
	struct burst *burst;
	struct counters *counters;
	struct service_store *store;
	struct snapshot_registry *registry;
	struct snapshot *snapshot;
	struct nexthop_fib *fib;
	void *snat_memory;
	void *flow_memory;
	uint32_t *flow_idx; // by flow number
	uint32_t n_flows;
	bool is_v6;
	struct bench_rng rng;
};

// Flow numbers 0..n_flows-1 are established. Ends the program when something does not fit.
void bench_scene_start(struct bench_scene *s, bool is_v6, uint32_t n_flows, uint32_t capacity);
void bench_scene_end(struct bench_scene *s);
// Writes packet i of the burst: of the client of flow number `id`, or of the backend of a record.
void bench_scene_client(struct bench_scene *s, uint32_t i, uint32_t id, uint8_t flags);
void bench_scene_backend(struct bench_scene *s, uint32_t i, uint32_t flow_idx, uint8_t flags);
void bench_scene_run(struct bench_scene *s, uint32_t n);
// Ends the program unless every packet of the burst was forwarded.
void bench_scene_check(const struct bench_scene *s);
