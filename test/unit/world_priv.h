// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// A small world for tests of the whole data path: a few workers with tables of their own over one snapshot, one port, one
// default gateway per family, virtual time. Used by the pipeline's unit test and its fuzzer.
#include <stdio.h>

#include "pipeline.h"
#include "snapshot_build.h"

#define REQUIRE(claim)                                                                      \
	do {                                                                                \
		if (!(claim)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #claim); \
			abort();                                                            \
		}                                                                           \
	} while (0)

#define WORKERS 2
#ifndef BACKENDS
#define BACKENDS 6 // of each family, 32 at most
#endif

#ifndef SNATS
#define SNATS 2 // source addresses: one of each family, then more of IPv4, 4 at most
#endif

// How the world's service is built.
struct world_shape {
	enum service_mode mode;
	enum service_scheduler scheduler;
	enum service_client_address client_address;
	uint32_t affinity_s;
	int only_family; // of backends; 0: both
	bool sctp;       // a third listener
};

struct world {
	struct world_shape shape; // of its service; zero: plain fullnat. Read by world_publish
	struct service_store *store;
	struct snapshot_registry *registry;
	struct snapshot *snapshot;
	struct nexthop_fib *fib;
	struct nexthop_entry entries[4];
	struct pipeline *workers; // WORKERS of them
	struct counters *counters;
	void *memory[WORKERS][4];
	struct address snat[SNATS];
	uint64_t generation;
	uint32_t capacity;
	uint64_t now_ns;
	int64_t wall_ms; // 0: no drain deadline passes
};

static inline struct address address_of(const char *text)
{
	struct address a;
	REQUIRE((address_parse(text, &a)) == 0);
	return a;
}

static inline struct service *web_service(uint32_t mask, const struct world_shape *shape)
{
	struct service_defaults d = service_defaults_builtin();
	struct service *s = service_create(&d);
	snprintf(s->namespace, sizeof(s->namespace), "default");
	snprintf(s->name, sizeof(s->name), "web");
	s->owner = SERVICE_OWNER_FILE;
	s->affinity_s = shape->affinity_s;
	*service_add_address(s) = address_of("203.0.113.10");
	*service_add_address(s) = address_of("2001:db8:1::10");
	struct service_listener *l = service_add_listener(s);
	*l = (struct service_listener){
		.name = "http", .protocol = NET_PROTO_TCP, .port = 80, .port_max = 80
	};
	l = service_add_listener(s);
	*l = (struct service_listener){
		.name = "dns", .protocol = NET_PROTO_UDP, .port = 53, .port_max = 53
	};
	if (shape->sctp)
		*service_add_listener(s) = (struct service_listener){
			.name = "sig", .protocol = NET_PROTO_SCTP, .port = 3868, .port_max = 3868
		};
	for (uint32_t i = 0; i < BACKENDS * 2; i++) {
		if (!(mask & 1u << (i % BACKENDS)))
			continue;
		if (shape->only_family && (shape->only_family == 4) != (i < BACKENDS))
			continue;
		struct service_backend *b = service_add_backend(s);
		char text[64];
		snprintf(text, sizeof(text), i < BACKENDS ? "10.9.0.%u" : "2001:db8:9::%u",
			i % BACKENDS + 2);
		b->address = address_of(text);
		b->weight = 100;
		b->conditions = (struct service_conditions){ .ready = true, .serving = true };
		struct service_backend_port *p = service_backend_add_port(b);
		*p = (struct service_backend_port){ .listener = "http", .port = 8080 };
		p = service_backend_add_port(b);
		*p = (struct service_backend_port){ .listener = "dns", .port = 5353 };
		if (shape->sctp)
			*service_backend_add_port(b) =
				(struct service_backend_port){ .listener = "sig", .port = 3868 };
	}
	return s;
}

// The backend's flows are to be reset from now on, as in a snapshot that says so.
static inline void world_reset_backend(struct world *w, uint32_t backend_id)
{
	struct snapshot_backend *rows = (struct snapshot_backend *)(uintptr_t)w->snapshot->backends;
	uint64_t *staying = (uint64_t *)(uintptr_t)w->snapshot->staying;
	rows[backend_id].flags |= SNAPSHOT_BACKEND_RESET;
	staying[backend_id / 64] &= ~(1ull << backend_id % 64);
}

static inline void world_publish(struct world *w, uint32_t mask)
{
	struct error err = { 0 };
	struct service *s = web_service(mask, &w->shape);
	uint32_t n_changed;
	REQUIRE((service_store_replace_owner(
			w->store, SERVICE_OWNER_FILE, &s, 1, &n_changed, &err)) == 0);
	service_destroy(s);
	struct service *held =
		(struct service *)(uintptr_t)service_store_find(w->store, "default", "web");
	held->mode = w->shape.mode;
	held->scheduler = w->shape.scheduler;
	held->client_address = w->shape.client_address;
	struct snapshot *built = NULL;
	struct snapshot_input input = { .store = w->store,
		.registry = w->registry,
		.snat = w->snat,
		.n_snat = SNATS,
		.fib = w->fib,
		.generation = ++w->generation,
		.wall_ms = w->wall_ms,
		.previous = w->snapshot };
	REQUIRE((snapshot_build(&input, &built, &err)) == 0);
	snapshot_destroy(w->snapshot);
	w->snapshot = built;
	for (int i = 0; i < WORKERS; i++)
		w->workers[i].snapshot = built;
	error_fini(&err);
}

static inline void worker_init(struct world *w, uint16_t idx, struct snat_config *config)
{
	struct pipeline *p = &w->workers[idx];
	struct hash_key key = { { 11, 12 } };
	size_t flow_bytes = flow_table_size(w->capacity),
	       snat_bytes = (snat_size(config, idx) + 63) & ~63ul;
	w->memory[idx][0] = aligned_alloc(64, (flow_bytes + 63) & ~63ul);
	w->memory[idx][1] = aligned_alloc(64, snat_bytes);
	w->memory[idx][2] = aligned_alloc(64, 4096 * sizeof(struct pipeline_backend_counters));
	memset(w->memory[idx][2], 0, 4096 * sizeof(struct pipeline_backend_counters));
	struct oneway_capacity one = { w->capacity, w->capacity };
	w->memory[idx][3] = aligned_alloc(64, oneway_size(one));
	REQUIRE(oneway_init(&p->oneway, w->memory[idx][3], oneway_size(one), one, &key) == 0);
	pipeline_init(p);
	REQUIRE((flow_table_init(&p->flows, w->memory[idx][0], flow_bytes, w->capacity, &key)) ==
		0);
	REQUIRE((snat_init(w->memory[idx][1], snat_bytes, config, idx, &p->snat)) == 0);
	p->worker_idx = idx;
	p->n_workers = WORKERS;
	p->snat_port_min = config->port_min;
	p->snat_port_max = config->port_max;
	p->nexthops = (struct nexthop_table){ w->entries, 4 };
	p->counters = &w->counters[idx];
	p->backend_counters = w->memory[idx][2];
	p->n_backend_counters = 4096;
	p->ports[0] = (struct pipeline_port){
		.mac = { { 2, 0, 0, 0, 0, 2 } }, .mtu = 1500, .present = true
	};
}

static inline void world_init(
	struct world *w, uint32_t capacity, uint16_t port_min, uint16_t port_max)
{
	memset(w, 0, sizeof(*w));
	w->capacity = capacity;
	w->now_ns = 1000 * CLOCK_S;
	w->store = service_store_create();
	w->registry = snapshot_registry_create();
	w->workers = aligned_alloc(64, (sizeof(struct pipeline) * WORKERS + 63) & ~63ul);
	memset(w->workers, 0, sizeof(struct pipeline) * WORKERS);
	w->counters = aligned_alloc(64, sizeof(struct counters) * WORKERS);
	memset(w->counters, 0, sizeof(struct counters) * WORKERS);
	static const char *const snat[] = { "192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3" };
	for (uint32_t i = 0; i < SNATS; i++)
		w->snat[i] = address_of(snat[i]);
	struct nexthop_table table = { w->entries, 4 };
	struct mac mac = { { 2, 0, 0, 0, 0, 1 } };
	nexthop_store(&table, 0, &mac, 0, NEXTHOP_VALID);
	struct nexthop_route routes[2] = { { .prefix = { address_from_v4(0), 0 } },
		{ .nexthop = 0 } };
	w->fib = nexthop_fib_create(routes, 2, 1);
	struct snat_config *config = calloc(1, sizeof(*config));
	config->n_addresses = SNATS;
	config->port_min = port_min;
	config->port_max = port_max;
	config->n_workers = WORKERS;
	for (uint32_t i = 0; i < SNATS; i++) {
		config->addresses[i] = w->snat[i];
		REQUIRE((snapshot_registry_slot(w->registry, &w->snat[i], &config->slots[i])) == 0);
	}
	for (uint16_t i = 0; i < WORKERS; i++)
		worker_init(w, i, config);
	free(config);
	world_publish(w, (1u << BACKENDS) - 1);
}

static inline void world_fini(struct world *w)
{
	for (int i = 0; i < WORKERS; i++)
		for (int k = 0; k < 4; k++)
			free(w->memory[i][k]);
	snapshot_destroy(w->snapshot);
	snapshot_registry_destroy(w->registry);
	service_store_destroy(w->store);
	nexthop_fib_destroy(w->fib);
	free(w->workers);
	free(w->counters);
}
