// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// What the step's fuzzer runs packets in: two workers with a queue each, re-steering between them, configurations that are built
// once and swapped in, and the oracles that look at every burst.
//
//	step ─► lane (queue of a worker) ─► burst ─► pipeline_run ─► verdicts ─► oracles ─► freed, or on to the other lane, or held
//
// Every mbuf is malloc'ed memory of exact length and carries a struct track: what went in. The world lives on between runs, with
// tables laid out anew; snapshots are kept by what they say, so that a change costs a pointer.
#include <stdlib.h>

#include "../unit/frames_priv.h"
#include "../unit/world_priv.h"

#define CLIENTS       64
#define LANE_MAX      512
#define TRACK_BYTES   2048
#define PIECES_MAX    4
#define SENT_KEPT     16
#define CACHE_MAX     256
#define RIG_CAPACITY  48
#define RIG_PORT_MIN  2048
#define RIG_PORT_MAX  2303
#define RIG_DATAGRAMS 64
#define RIG_BACKENDS  64 // ids: 12 backends of 3 listeners
#define FRESH_S       15 // idle for less, a confirmed flow may not give way to anybody

// A datagram that was cut up: what came out of each piece.
struct datagram {
	uint32_t serial; // its place is used again
	uint32_t n_pieces;
	uint32_t n_out; // pieces that were forwarded by a NAT mode
	uint32_t backend_id;
	uint8_t out[PIECES_MAX][TRACK_BYTES];
	uint32_t n_bytes[PIECES_MAX];
};

struct track {
	int client;    // whose packet, 0..CLIENTS-1; -1: of no client
	bool is_good;  // not damaged: all its checksums are right
	bool is_whole; // no fragment
	uint8_t piece;
	struct datagram *datagram; // borrowed; NULL: none
	uint32_t serial;           // of the datagram
	uint32_t n;
	uint8_t bytes[TRACK_BYTES];
};

struct lane {
	uint32_t n;
	struct rte_mbuf *mbufs[LANE_MAX];
};

// A flow as its entry was when its last packet had passed.
struct memory {
	bool is_sure; // confirmed, and nothing has happened since that could end it
	bool is_oneway;
	uint16_t worker;
	uint32_t backend_id;
	uint32_t stamp_s;
};

// A frame that we sent, for answers to it and errors about it.
struct sent {
	int client;
	bool to_backend;
	bool is_nat;
	uint32_t n;
	uint8_t bytes[TRACK_BYTES];
};

struct config {
	uint8_t shape; // index into shapes
	uint8_t mask;  // backends that are listed
	uint8_t drains;
	bool reset; // of those that drain, flows are ended
};

struct rig {
	struct world w;
	bool is_made;
	struct lane lanes[WORKERS];
	struct memory memory[CLIENTS];
	struct sent sent[SENT_KEPT];
	uint32_t n_sent;
	struct datagram datagrams[8];
	uint32_t n_datagrams;
	uint32_t n_alive; // mbufs, heads of packets only
	uint64_t n_free[WORKERS][2];
	size_t snat_bytes[WORKERS];
	void *fragments[WORKERS];
	struct pipeline fresh[WORKERS];
	struct config config;
	struct config cached[CACHE_MAX];
	struct snapshot *cache[CACHE_MAX];
	uint32_t n_cached;
};

static const struct world_shape rig_shapes[] = {
	{ .sctp = true },
	{ .sctp = true, .mode = SERVICE_MODE_DNAT },
	{ .sctp = true, .mode = SERVICE_MODE_IPIP },
	{ .sctp = true, .mode = SERVICE_MODE_GUE },
	{ .sctp = true, .mode = SERVICE_MODE_L2DSR },
	{ .sctp = true, .only_family = 4 },
	{ .sctp = true, .only_family = 6 },
	{ .sctp = true, .client_address = SERVICE_CLIENT_TOA },
	{ .sctp = true, .client_address = SERVICE_CLIENT_PROXY_V2 },
	{ .sctp = true, .client_address = SERVICE_CLIENT_PROXY_V2, .only_family = 4 },
	{ .sctp = true, .client_address = SERVICE_CLIENT_TOA, .only_family = 6 },
	{ .sctp = true, .scheduler = SERVICE_LEAST_CONNECTIONS },
	{ .sctp = true, .scheduler = SERVICE_LEAST_CONNECTIONS, .mode = SERVICE_MODE_IPIP },
	{ .sctp = true, .affinity_s = 60 },
	{ .sctp = true, .affinity_s = 60, .mode = SERVICE_MODE_GUE },
	{ .sctp = true, .mode = SERVICE_MODE_IPIP, .only_family = 4 },
	{ .sctp = true, .mode = SERVICE_MODE_IPIP, .only_family = 6 },
	{ .sctp = true, .mode = SERVICE_MODE_GUE, .only_family = 6 },
	{ .sctp = true, .mode = SERVICE_MODE_GUE, .only_family = 4 },
	{ .sctp = true, .affinity_s = 60, .mode = SERVICE_MODE_DNAT },
};
#define RIG_SHAPES (sizeof(rig_shapes) / sizeof(rig_shapes[0]))

// ---------------------------------------------------------------- mbufs and tracks
static inline struct track *track_of(const struct rte_mbuf *mbuf)
{
	struct track *track;
	memcpy(&track, mbuf->dynfield1, sizeof(track));
	return track;
}

static inline void rig_free(struct rig *rig, struct rte_mbuf *mbuf)
{
	free(track_of(mbuf));
	frame_mbuf_destroy(mbuf);
	rig->n_alive--;
}

// Copies out all segments.
static inline uint32_t mbuf_linear(const struct rte_mbuf *mbuf, uint8_t *out)
{
	uint32_t n = 0;
	for (; mbuf != NULL; mbuf = mbuf->next) {
		REQUIRE(n + mbuf->data_len <= FRAME_MAX);
		memcpy(out + n, frame_bytes(mbuf), mbuf->data_len);
		n += mbuf->data_len;
	}
	return n;
}

// ---------------------------------------------------------------- configuration
static inline void rig_overlays(struct rig *rig, const struct config *config)
{
	for (uint32_t i = 0; i < BACKENDS * 2; i++) {
		struct service_overlay o = { .namespace = "default", .name = "web" };
		char text[64];
		snprintf(text, sizeof(text), i < BACKENDS ? "10.9.0.%u" : "2001:db8:9::%u",
			i % BACKENDS + 2);
		o.address = address_of(text);
		o.draining = config->drains >> (i % BACKENDS) & 1;
		if (!o.draining) {
			service_store_remove_overlay(
				rig->w.store, o.namespace, o.name, &o.address, 0);
			continue;
		}
		o.reset_on_deadline = config->reset;
		o.deadline_ms = config->reset ? 1 : 0;
		REQUIRE(service_store_put_overlay(rig->w.store, &o) == 0);
	}
}

static inline void rig_forget(struct rig *rig)
{
	memset(rig->memory, 0, sizeof(rig->memory));
}

static inline struct snapshot *rig_build(struct rig *rig, const struct config *config)
{
	if (rig->n_cached == CACHE_MAX) {
		for (uint32_t i = 0; i < CACHE_MAX; i++)
			snapshot_destroy(rig->cache[i]);
		rig->n_cached = 0;
	}
	rig_overlays(rig, config);
	rig->w.shape = rig_shapes[config->shape];
	rig->w.wall_ms = config->reset ? 2 : 0;
	rig->w.snapshot = NULL;
	world_publish(&rig->w, config->mask);
	rig->cached[rig->n_cached] = *config;
	rig->cache[rig->n_cached++] = rig->w.snapshot;
	return rig->w.snapshot;
}

static inline void rig_publish(struct rig *rig, struct config config)
{
	struct snapshot *s = NULL;
	for (uint32_t i = 0; i < rig->n_cached && s == NULL; i++)
		if (memcmp(&rig->cached[i], &config, sizeof(config)) == 0)
			s = rig->cache[i];
	if (s == NULL)
		s = rig_build(rig, &config);
	rig->config = config;
	rig->w.snapshot = s;
	for (uint32_t i = 0; i < WORKERS; i++)
		rig->w.workers[i].snapshot = s;
}

// Some backends are on the link, one of them without an entry yet; everybody else is behind the gateway.
static inline void rig_routes(struct rig *rig)
{
	struct nexthop_table table = { rig->w.entries, 4 };
	struct mac mac = { { 2, 0, 0, 0, 0, 8 } };
	struct nexthop_route routes[5] = { { .prefix = { address_from_v4(0), 0 } }, { 0 } };
	static const char *const near[3] = { "10.9.0.2", "10.9.0.3", "2001:db8:9::2" };
	for (uint16_t i = 0; i < 3; i++) {
		rig->w.entries[i + 1].address = address_of(near[i]);
		nexthop_store(&table, i + 1, &mac, 0, i == 1 ? NEXTHOP_INCOMPLETE : NEXTHOP_VALID);
		routes[i + 2] = (struct nexthop_route){
			.prefix = { address_of(near[i]), i < 2 ? 32 : 128 },
			.nexthop = (uint16_t)(i + 1),
		};
	}
	nexthop_fib_destroy(rig->w.fib);
	rig->w.fib = nexthop_fib_create(routes, 5, 2);
	REQUIRE(rig->w.fib != NULL);
}

static inline void rig_make(struct rig *rig)
{
	world_init(&rig->w, RIG_CAPACITY, RIG_PORT_MIN, RIG_PORT_MAX);
	snapshot_destroy(rig->w.snapshot);
	rig_routes(rig);
	for (uint32_t i = 0; i < WORKERS; i++) {
		rig->fragments[i] = aligned_alloc(64, fragments_size(RIG_DATAGRAMS));
		rig->fresh[i] = rig->w.workers[i];
	}
	// All backends have their numbers before the first packet.
	rig_build(rig, &(struct config){ .mask = 63 });
	rig->is_made = true;
}

// Tables laid out anew in the memory that they have.
static inline void worker_reset(struct rig *rig, uint16_t idx, const struct snat_config *config)
{
	struct hash_key key = { { 5, 6 } };
	struct pipeline *p = &rig->w.workers[idx];
	void *const *memory = rig->w.memory[idx];
	struct oneway_capacity one = { RIG_CAPACITY, RIG_CAPACITY };
	*p = rig->fresh[idx];
	p->n_backend_counters = RIG_BACKENDS;
	memset(memory[2], 0, RIG_BACKENDS * sizeof(p->backend_counters[0]));
	REQUIRE(flow_table_init(&p->flows, memory[0], flow_table_size(RIG_CAPACITY), RIG_CAPACITY,
			&key) == 0);
	rig->snat_bytes[idx] = snat_size(config, idx);
	REQUIRE(snat_init(memory[1], rig->snat_bytes[idx], config, idx, &p->snat) == 0);
	REQUIRE(oneway_init(&p->oneway, memory[3], oneway_size(one), one, &key) == 0);
	REQUIRE(fragments_init(rig->fragments[idx], fragments_size(RIG_DATAGRAMS), RIG_DATAGRAMS,
			&key, &p->fragments) == 0);
	for (int f = 0; f < 2; f++)
		rig->n_free[idx][f] = snat_n_free(p->snat, f ? 6 : 4);
}

// A fresh world for a run.
static inline void rig_reset(struct rig *rig)
{
	static struct snat_config config;
	if (!rig->is_made)
		rig_make(rig);
	config = (struct snat_config){ .n_addresses = 2,
		.port_min = RIG_PORT_MIN,
		.port_max = RIG_PORT_MAX,
		.n_workers = WORKERS };
	for (uint32_t i = 0; i < 2; i++) {
		config.addresses[i] = rig->w.snat[i];
		REQUIRE(snapshot_registry_slot(
				rig->w.registry, &rig->w.snat[i], &config.slots[i]) == 0);
	}
	for (uint16_t i = 0; i < WORKERS; i++)
		worker_reset(rig, i, &config);
	memset(rig->w.counters, 0, sizeof(struct counters) * WORKERS);
	rig->w.now_ns = 1000 * CLOCK_S;
	rig->n_sent = rig->n_datagrams = 0;
	rig_forget(rig);
	REQUIRE(rig->n_alive == 0);
	rig_publish(rig, (struct config){ .mask = 63 });
}
