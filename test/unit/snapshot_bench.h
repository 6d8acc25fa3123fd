// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// What snapshot_test.c and snapshot_modes_test.c compile: small services, and a place to compile them in.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "snapshot_build.h"

// ---------------------------------------------------------------- random, fixed seed
static uint64_t random_state;

static inline uint64_t random_word(void)
{
	random_state += 0x9e3779b97f4a7c15ull; // splitmix64
	uint64_t z = random_state;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static inline uint32_t random_below(uint32_t n)
{
	return (uint32_t)((random_word() >> 32) * n >> 32);
}

static inline void random_seed(uint64_t seed)
{
	print_message("seed %llu\n", (unsigned long long)seed);
	random_state = seed;
}

// ---------------------------------------------------------------- makers
static inline struct address v4(uint32_t host_order)
{
	return address_from_v4(rte_cpu_to_be_32(host_order));
}

static inline struct address v6(uint32_t low)
{
	struct address a = { .bytes = { 0x20, 0x01, 0x0d, 0xb8 } };
	a.words[3] = rte_cpu_to_be_32(low);
	return a;
}

#define VIP(i)     v4(0xcb007100u + (i)) // 203.0.113.0/24
#define BACKEND(i) v4(0x0a090000u + (i)) // 10.9.0.0/16

static inline struct service *make_service(const char *name, struct address vip)
{
	struct service *s = service_create(NULL);
	assert_non_null(s);
	strcpy(s->namespace, "default");
	snprintf(s->name, sizeof(s->name), "%s", name);
	*service_add_address(s) = vip;
	return s;
}

static inline void add_listener(
	struct service *s, const char *name, uint8_t protocol, uint16_t port)
{
	struct service_listener *l = service_add_listener(s);
	snprintf(l->name, sizeof(l->name), "%s", name);
	l->protocol = protocol;
	l->port = l->port_max = port;
}

static inline void add_backend(
	struct service *s, struct address address, uint16_t port, uint32_t weight)
{
	struct service_backend *b = service_add_backend(s);
	b->address = address;
	b->weight = weight;
	b->conditions = (struct service_conditions){ .ready = true, .serving = true };
	struct service_backend_port *p = service_backend_add_port(b);
	snprintf(p->listener, sizeof(p->listener), "http");
	p->port = port;
}

// default/web, one VIP, http on 80, n backends of equal weight.
static inline struct service *make_web(uint32_t n_backends)
{
	struct service *s = make_service("web", VIP(1));
	add_listener(s, "http", NET_PROTO_TCP, 80);
	for (uint32_t i = 0; i < n_backends; i++)
		add_backend(s, BACKEND(i + 1), 8080, 100);
	return s;
}

// A place to compile in: store, registry, the last snapshot, probes as told.
struct bench {
	struct service_store *store;
	struct snapshot_registry *registry;
	struct snapshot *s;
	struct address down[64];
	uint32_t n_down;
	uint32_t n_asked; // probe verdicts asked for by the last build
	int64_t wall_ms;
	struct address snat[8];
	uint32_t n_snat;
};

static inline enum health_probe_verdict bench_probe(void *arg, const struct service *s,
	const struct service_listener *l, const struct address *address, uint16_t port)
{
	struct bench *b = arg;
	b->n_asked++;
	for (uint32_t i = 0; i < b->n_down; i++) {
		if (address_equal(&b->down[i], address))
			return HEALTH_PROBE_DOWN;
	}
	return HEALTH_PROBE_UP;
}

static inline void bench_init(struct bench *b)
{
	*b = (struct bench){ .store = service_store_create(),
		.registry = snapshot_registry_create() };
}

static inline void bench_fini(struct bench *b)
{
	snapshot_destroy(b->s);
	snapshot_registry_destroy(b->registry);
	service_store_destroy(b->store);
}

// Takes the service.
static inline void bench_put(struct bench *b, struct service *s)
{
	struct error err = { 0 };
	char line[512];
	if (service_store_put(b->store, s, NULL, &err) != 0)
		fail_msg("%s", error_first(&err, line, sizeof(line)));
	service_destroy(s);
}

static inline int bench_try(
	struct bench *b, const struct address *snat, uint32_t n_snat, struct error *err)
{
	struct snapshot *next = NULL;
	struct snapshot_input input = {
		.store = b->store,
		.registry = b->registry,
		.health = { .probe = bench_probe, .arg = b },
		.snat = snat,
		.n_snat = n_snat,
		.generation = b->s ? b->s->generation + 1 : 1,
		.wall_ms = b->wall_ms,
		.previous = b->s,
	};
	b->n_asked = 0;
	int rc = snapshot_build(&input, &next, err);
	if (rc != 0) {
		assert_null(next);
		return rc;
	}
	snapshot_destroy(b->s);
	b->s = next;
	return 0;
}

static inline void bench_build(struct bench *b)
{
	struct error err = { 0 };
	char line[512];
	if (bench_try(b, b->snat, b->n_snat, &err) != 0)
		fail_msg("%s", error_first(&err, line, sizeof(line)));
}

static inline const struct snapshot_listener *find(
	const struct snapshot *s, struct address vip, uint8_t protocol, uint16_t port)
{
	uint8_t kind = SNAPSHOT_OWN_NONE;
	uint16_t slot = snapshot_find_own(s, &vip, &kind);
	if (slot == SNAPSHOT_SLOT_NONE)
		return NULL;
	assert_true(slot < s->n_own);
	assert_int_equal(kind, s->own[slot].kind);
	assert_true(address_equal(&s->own[slot].address, &vip));
	return snapshot_find_listener(s, slot, protocol, port);
}

static inline const struct snapshot_listener *web(const struct bench *b)
{
	const struct snapshot_listener *l = find(b->s, VIP(1), NET_PROTO_TCP, 80);
	assert_non_null(l);
	return l;
}

// Backend of the i-th client, checked for what must always be so. BACKEND_NONE: nobody.
static inline uint32_t pick_id(const struct bench *b, const struct snapshot_listener *l, uint32_t i)
{
	struct address client = v4(0xc6120000u + (i >> 4));
	uint64_t hash = snapshot_pick_hash(l, &client, (rte_be16_t)(i * 40503u), RTE_BE16(80));
	struct snapshot_pick pick = snapshot_pick(b->s, l, hash);
	if (pick.backend_id == SNAPSHOT_BACKEND_NONE) {
		assert_int_equal(pick.step, SNAPSHOT_PICK_NONE);
		assert_int_equal(l->n_eligible, 0);
		return SNAPSHOT_BACKEND_NONE;
	}
	assert_true(pick.backend_id < b->s->n_backends);
	assert_int_equal(b->s->backends[pick.backend_id].flags & 3,
		SNAPSHOT_BACKEND_LISTED | SNAPSHOT_BACKEND_ELIGIBLE);
	assert_int_equal(pick.step == SNAPSHOT_PICK_PRIMARY, pick.backend_id == pick.primary_id);
	return pick.backend_id;
}

// Number n of BACKEND(n).
static inline uint32_t backend_number(const struct bench *b, uint32_t id)
{
	return rte_be_to_cpu_32(address_v4(&b->s->backends[id].address)) - 0x0a090000u;
}
