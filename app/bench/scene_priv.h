// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// One worker's tables with established flows, and the packets for them.

#include "bench_priv.h"
#include "pipeline.h"
#include "service.h"
#include "snapshot_build.h"

struct bench_scene_shape {
	enum service_mode mode;
	bool is_v6;
	uint32_t n_flows;    // established: numbers 0..n_flows-1
	uint32_t capacity;   // of the flow table
	uint32_t n_services; // 0: one; flow `id` belongs to service id % n_services
	uint32_t n_backends; // of each service; 0: 64
};

struct bench_scene {
	struct bench_scene_shape shape;
	struct pipeline pipeline;
	struct burst *burst;
	struct counters *counters;
	struct service_store *store;
	struct snapshot_registry *registry;
	struct snapshot *snapshot;
	struct nexthop_fib *fib;
	void *snat_memory;
	struct snat_config *snat_config;
	void *flow_memory;
	void *oneway_memory;
	uint32_t *flow_idx; // by flow number; NAT modes
	struct bench_rng rng;
};

// Ends the program when something does not fit.
void bench_scene_start(struct bench_scene *s, const struct bench_scene_shape *shape);
void bench_scene_end(struct bench_scene *s);
// A service of the scene with its backends from first_backend on; the caller destroys it.
struct service *bench_scene_service(
	const struct bench_scene_shape *shape, uint32_t service_idx, uint32_t first_backend);
// Compiles the store as it is now. Gives.
struct snapshot *bench_scene_build(
	struct bench_scene *s, const struct snapshot *previous, uint64_t generation);
// Writes packet i of the burst: of the client of flow number `id`, which need not exist, or of the backend of a record.
void bench_scene_client(struct bench_scene *s, uint32_t i, uint32_t id, uint8_t flags);
void bench_scene_backend(struct bench_scene *s, uint32_t i, uint32_t flow_idx, uint8_t flags);
void bench_scene_run(struct bench_scene *s, uint32_t n);
// Ends the program unless every packet of the burst was forwarded.
void bench_scene_check(const struct bench_scene *s);
// One timed burst of packets of random established flows; in NAT modes of clients or of backends as `k` is even or odd.
void bench_scene_burst(struct bench_scene *s, struct bench_timer *t, uint32_t k);
