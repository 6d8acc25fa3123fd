// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The scene a capture is played in: one port, one worker, tables in ordinary memory.

#include "kube.h"
#include "pipeline.h"
#include "snapshot_build.h"

#define REPLAY_NEIGHBOURS_MAX 1024
#define REPLAY_SEGMENTS_MAX   8
#define REPLAY_ROOM_MAX       1024
#define REPLAY_FRAME_MAX \
	(UINT16_MAX - 2 * REPLAY_ROOM_MAX) // the blocks of mbufs have 16-bit lengths

struct replay_neighbour {
	struct address address;
	struct mac mac;
};

// What the command line and the configuration say.
struct replay_setup {
	struct service_defaults defaults;
	uint16_t mtu;
	uint16_t vlan; // 0: untagged
	uint32_t flow_capacity;
	struct address snat[SNAT_ADDRESSES_MAX];
	uint32_t n_snat;
	uint16_t snat_port_min;
	uint16_t snat_port_max;
	struct replay_neighbour neighbours[REPLAY_NEIGHBOURS_MAX];
	uint32_t n_neighbours;
	struct hash_key key;
};

#define REPLAY_BACKENDS 4096 // ids that have counters

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
	void *fragments_memory;
	void *oneway_memory;
	size_t oneway_bytes;
	struct pipeline_backend_counters *backend_counters;
	uint64_t generation;
	int64_t wall_ms; // of the capture, for drain timeouts
};

// 0 or -errno with every finding in err. The setup is borrowed.
int replay_scene_init(struct replay_scene *scene, const struct replay_setup *setup,
	const struct kube_result *services, struct error *err);
void replay_scene_fini(struct replay_scene *scene);
// Puts another set of services in force; on error the old one stays.
int replay_scene_change(
	struct replay_scene *scene, const struct kube_result *services, struct error *err);
// The capture's clock: when a removed backend has had its drain timeout, its flows are marked, as control does.
int replay_scene_clock(struct replay_scene *scene, int64_t wall_ms, struct error *err);
// Reads and decodes a services file. Gives.
int replay_load_services(const char *path, const struct service_defaults *defaults,
	struct kube_result *out, struct error *err);

// ---------------------------------------------------------------- frames.c
// How a frame lies in memory.
struct replay_layout {
	uint16_t headroom; // before the first segment
	uint16_t tailroom; // behind each
	uint8_t fill;      // of both
	uint8_t n_segments;
	uint16_t segments[REPLAY_SEGMENTS_MAX - 1]; // lengths; what is left lies in one more
};
struct replay_layouts { // zero: 128 bytes of headroom, nothing behind, one segment
	struct replay_layout *items;
	uint32_t n_items;
	uint32_t cap;
};
// One line for each frame, the last one for the rest: words of headroom=N tailroom=N fill=BYTE segments=N,N,...
int replay_layouts_load(const char *path, struct replay_layouts *out, struct error *err);
void replay_layouts_fini(struct replay_layouts *layouts);
const struct replay_layout *replay_layout_of(const struct replay_layouts *layouts, uint64_t idx);

// A frame's mbufs and blocks, whatever becomes of the chain.
struct replay_frame {
	struct rte_mbuf
		segments[REPLAY_SEGMENTS_MAX]; // the first one is what the pipeline knows it by
	void *blocks[REPLAY_SEGMENTS_MAX];
	uint32_t n_segments;
	uint64_t number; // of the packet in the capture, 1..
	uint64_t at_ns;  // its time
};
static inline struct replay_frame *replay_frame_of(const struct rte_mbuf *mbuf)
{
	return (struct replay_frame *)(uintptr_t)mbuf;
}

// At most REPLAY_FRAME_MAX bytes. NULL: out of memory.
struct rte_mbuf *replay_frame_create(
	const uint8_t *bytes, uint32_t length, const struct replay_layout *layout);
// All that was made for the frame, also segments that are no longer in its chain.
void replay_frame_destroy(struct rte_mbuf *mbuf);
// Copies the chain to out, pkt_len bytes of room. Returns its length.
uint32_t replay_frame_gather(const struct rte_mbuf *mbuf, uint8_t *out);
