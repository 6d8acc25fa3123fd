// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The scene a capture is played in: one port, one worker, tables in ordinary memory.

#include "kube.h"
#include "pipeline.h"
#include "snapshot_build.h"

#define REPLAY_NEIGHBOURS_MAX 1024

struct replay_neighbour {
	struct address address;
	struct mac mac;
};

// What the command line and the configuration say.
struct replay_setup {
	struct service_defaults defaults;
	uint16_t mtu;
	uint32_t flow_capacity;
	struct address snat[SNAT_ADDRESSES_MAX];
	uint32_t n_snat;
	uint16_t snat_port_min;
	uint16_t snat_port_max;
	struct replay_neighbour neighbours[REPLAY_NEIGHBOURS_MAX];
	uint32_t n_neighbours;
	struct hash_key key;
};

struct replay_scene {
	struct pipeline pipeline;
	struct counters counters;
	struct service_store *store;
	struct snapshot_registry *registry;
	struct snapshot *snapshot;
	struct nexthop_fib *fib;
	const struct replay_setup *setup;
	void *flow_memory;
	size_t flow_bytes;
	void *snat_memory;
	uint64_t generation;
};

// 0 or -errno with every finding in err. The setup is borrowed.
int replay_scene_init(struct replay_scene *scene, const struct replay_setup *setup,
	const struct kube_result *services, struct error *err);
void replay_scene_fini(struct replay_scene *scene);
// Puts another set of services in force; on error the old one stays.
int replay_scene_change(
	struct replay_scene *scene, const struct kube_result *services, struct error *err);
// Reads and decodes a services file. Gives.
int replay_load_services(const char *path, const struct service_defaults *defaults,
	struct kube_result *out, struct error *err);
