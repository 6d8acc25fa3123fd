// SPDX-License-Identifier: BSD-3-Clause
// Source ports against a naive twin: one plain queue of ports per (address, pool), ports listed by
// trying every number. Which endpoints share a pool is learnt from outside, by exhausting one.
#include "snat.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define SEED 0x5eedc0deull

// What a backend's reply to a source port says.
static struct flow_key reply_key(uint16_t slot, rte_be16_t port, const struct address *backend,
	rte_be16_t backend_port, uint8_t protocol)
{
	return (struct flow_key){ .peer = *backend,
		.peer_port = backend_port,
		.own_port = port,
		.own_slot = slot,
		.protocol = protocol };
}

// Of an endpoint with port 80 and protocol 6, as they lie in a packet.
static void free_port(struct snat *s, uint16_t slot, rte_be16_t port, const struct address *backend)
{
	struct flow_key key = reply_key(slot, port, backend, 80, 6);
	snat_free(s, &key);
}

static uint64_t rng_state;

static uint64_t rng(void)
{
	rng_state += 0x9e3779b97f4a7c15ull;
	uint64_t z = (rng_state ^ (rng_state >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static void rng_start(const char *name)
{
	rng_state = SEED;
	print_message("%s: seed %#llx\n", name, (unsigned long long)SEED);
}

// The most endpoints, addresses and ports that a test here uses.
#define ENDPOINTS 40
#define ADDRESSES 5

struct endpoint {
	struct address address;
	rte_be16_t port;
	uint8_t protocol;
	uint32_t pool; // learnt
};

struct queue {
	uint16_t *ports;
	uint32_t n;
};

struct rig {
	struct snat_config config;
	uint16_t worker_idx;
	void *mem;
	struct snat *snat;
	struct endpoint endpoints[ENDPOINTS];
	struct queue queues[ADDRESSES][SNAT_POOLS + 1]; // pools are numbered as they are met
};

static struct address v4(uint32_t host)
{
	return address_from_v4(rte_cpu_to_be_32(host));
}

static struct address v6(uint16_t last)
{
	struct address a = { .bytes = { 0x20, 0x01, 0x0d, 0xb8 } };
	a.bytes[14] = (uint8_t)(last >> 8);
	a.bytes[15] = (uint8_t)last;
	return a;
}

static struct snat *snat_make(const struct snat_config *config, uint16_t worker_idx, void **out_mem)
{
	struct snat *snat = NULL;
	size_t size = snat_size(config, worker_idx);
	assert_true(size > 0);
	*out_mem = aligned_alloc(64, size);
	assert_non_null(*out_mem);
	memset(*out_mem, 0xa5, size);
	assert_int_equal(snat_init(*out_mem, size, config, worker_idx, &snat), 0);
	return snat;
}

// In the order in which they are first given out.
static uint32_t naive_ports(const struct snat_config *c, uint16_t worker_idx, uint16_t *out)
{
	static uint16_t owned[65536];
	uint32_t n = 0;
	for (uint32_t p = 0; p <= 65535; p++)
		if (p >= c->port_min && p <= c->port_max &&
			snat_owner((uint16_t)p, c->n_workers) == worker_idx)
			owned[n++] = (uint16_t)p;
	for (uint32_t i = 0; i < n; i++)
		out[i] = owned[(i + c->first) % n];
	return n;
}

static int endpoint_alloc(
	struct snat *s, const struct endpoint *e, uint32_t hash, uint16_t *slot, rte_be16_t *port)
{
	return snat_alloc(s, &e->address, e->port, e->protocol, hash, slot, port);
}

// Endpoints with one pool: using up one of them leaves nothing for the other.
static void rig_learn_pools(struct rig *r)
{
	uint32_t n_pools[2] = { 0, 0 };
	for (uint32_t i = 0; i < ENDPOINTS; i++)
		r->endpoints[i].pool = UINT32_MAX;
	for (uint32_t i = 0; i < ENDPOINTS; i++) {
		struct endpoint *e = &r->endpoints[i];
		if (e->pool != UINT32_MAX)
			continue;
		uint32_t family = !address_is_v4(&e->address);
		e->pool = n_pools[family]++;
		void *mem;
		uint16_t slot;
		rte_be16_t port;
		struct snat *s = snat_make(&r->config, r->worker_idx, &mem);
		while (endpoint_alloc(s, e, 0, &slot, &port) == 0)
			;
		for (uint32_t k = i + 1; k < ENDPOINTS; k++)
			if (family == !address_is_v4(&r->endpoints[k].address) &&
				endpoint_alloc(s, &r->endpoints[k], 0, &slot, &port) == -ENOSPC)
				r->endpoints[k].pool = e->pool;
		free(mem);
	}
	assert_true(n_pools[0] > 1 && n_pools[0] <= SNAT_POOLS);
	assert_true(n_pools[1] > 1 && n_pools[1] <= SNAT_POOLS);
}

static void rig_start(struct rig *r, uint16_t worker_idx, uint16_t n_workers, uint16_t port_min,
	uint16_t port_max)
{
	*r = (struct rig){ .worker_idx = worker_idx };
	r->config = (struct snat_config){ .n_addresses = ADDRESSES,
		.port_min = port_min,
		.port_max = port_max,
		.n_workers = n_workers,
		.first = port_min * 2654435761u };
	for (uint16_t a = 0; a < ADDRESSES; a++) {
		r->config.addresses[a] = a < 3 ? v4(0xc0000201u + a) : v6(a);
		r->config.slots[a] = (uint16_t)(7 + a * 1000);
	}
	for (uint32_t i = 0; i < ENDPOINTS; i++)
		r->endpoints[i] = (struct endpoint){
			.address = i % 4 ? v4(0x0a000000u + i / 3) : v6((uint16_t)(100 + i / 3)),
			.port = rte_cpu_to_be_16((uint16_t)(80 + i % 3)),
			.protocol = i % 2 ? NET_PROTO_TCP : NET_PROTO_UDP,
		};
	rig_learn_pools(r);
	r->snat = snat_make(&r->config, worker_idx, &r->mem);
	for (uint32_t a = 0; a < ADDRESSES; a++)
		for (uint32_t p = 0; p < SNAT_POOLS; p++) {
			r->queues[a][p].ports = malloc(65536 * sizeof(uint16_t));
			r->queues[a][p].n =
				naive_ports(&r->config, worker_idx, r->queues[a][p].ports);
		}
}

static void rig_end(struct rig *r)
{
	for (uint32_t a = 0; a < ADDRESSES; a++)
		for (uint32_t p = 0; p < SNAT_POOLS; p++)
			free(r->queues[a][p].ports);
	free(r->mem);
}

static uint32_t rig_address_of(const struct rig *r, uint16_t slot)
{
	for (uint32_t a = 0; a < ADDRESSES; a++)
		if (r->config.slots[a] == slot)
			return a;
	fail();
	return 0;
}

struct taken {
	uint32_t endpoint;
	uint16_t slot;
	rte_be16_t port;
};

// Takes one port and checks it against the queues; false when the endpoint is out of ports.
static bool rig_alloc(struct rig *r, struct taken *out)
{
	uint32_t idx = (uint32_t)(rng() % ENDPOINTS);
	const struct endpoint *e = &r->endpoints[idx];
	bool is_v6 = !address_is_v4(&e->address);
	struct taken t = { .endpoint = idx };
	int rc = endpoint_alloc(r->snat, e, (uint32_t)rng(), &t.slot, &t.port);
	if (rc != 0) {
		assert_int_equal(rc, -ENOSPC);
		for (uint32_t a = 0; a < ADDRESSES; a++)
			if ((a >= 3) == is_v6)
				assert_int_equal(r->queues[a][e->pool].n, 0);
		return false;
	}
	uint32_t a = rig_address_of(r, t.slot);
	assert_int_equal(a >= 3, is_v6);
	struct queue *q = &r->queues[a][e->pool];
	assert_true(q->n > 0);
	assert_int_equal(rte_be_to_cpu_16(t.port), q->ports[0]);
	memmove(q->ports, q->ports + 1, --q->n * sizeof(uint16_t));
	*out = t;
	return true;
}

static void rig_free(struct rig *r, const struct taken *t)
{
	const struct endpoint *e = &r->endpoints[t->endpoint];
	struct flow_key key = reply_key(t->slot, t->port, &e->address, e->port, e->protocol);
	struct snat_place place = snat_locate(r->snat, &key);
	snat_prefetch(r->snat, &place);
	snat_free_at(r->snat, &place);
	struct queue *q = &r->queues[rig_address_of(r, t->slot)][e->pool];
	q->ports[q->n++] = rte_be_to_cpu_16(t->port);
}

// Takes a chosen port, free or not, of any worker.
static bool rig_take(struct rig *r, struct taken *out)
{
	struct taken t = { .endpoint = (uint32_t)(rng() % ENDPOINTS) };
	const struct endpoint *e = &r->endpoints[t.endpoint];
	uint32_t a = (uint32_t)(rng() % ADDRESSES);
	uint32_t span = r->config.port_max - r->config.port_min + 3u;
	uint16_t port = (uint16_t)(r->config.port_min - 1u + rng() % span);
	t.slot = r->config.slots[a];
	t.port = rte_cpu_to_be_16(port);
	struct queue *q = &r->queues[a][e->pool];
	uint32_t at = 0;
	while (at < q->n && q->ports[at] != port)
		at++;
	bool there = at < q->n && (a >= 3) == !address_is_v4(&e->address);
	struct flow_key key = reply_key(t.slot, t.port, &e->address, e->port, e->protocol);
	int rc = snat_take(r->snat, &key);
	assert_int_equal(rc, there ? 0 : -ENOENT);
	if (!there)
		return false;
	memmove(q->ports + at, q->ports + at + 1, (--q->n - at) * sizeof(uint16_t));
	*out = t;
	return true;
}

static uint64_t rig_n_free(const struct rig *r, bool is_v6)
{
	uint64_t n = 0;
	for (uint32_t a = 0; a < ADDRESSES; a++)
		for (uint32_t p = 0; p < SNAT_POOLS; p++)
			if ((a >= 3) == is_v6)
				n += r->queues[a][p].n;
	return n;
}

static void run_against_twin(uint16_t worker_idx, uint16_t n_workers, uint16_t min, uint16_t max)
{
	struct rig r;
	rig_start(&r, worker_idx, n_workers, min, max);
	struct taken *held = calloc(100000, sizeof(*held));
	uint32_t n_held = 0;
	for (uint32_t op = 0; op < 60000; op++) {
		uint32_t phase = op / 10000 % 3; // mostly taking, mostly giving back, both
		uint32_t dice = (uint32_t)(rng() % 100);
		if (dice < (phase == 0 ? 75u : phase == 1 ? 25u : 45u))
			n_held += rig_alloc(&r, &held[n_held]);
		else if (dice < 90 && n_held > 0) {
			uint32_t k = (uint32_t)(rng() % n_held);
			rig_free(&r, &held[k]);
			held[k] = held[--n_held];
		} else if (dice >= 95)
			n_held += rig_take(&r, &held[n_held]);
		if (op % 1000 == 0) {
			assert_int_equal(snat_n_free(r.snat, 4), rig_n_free(&r, false));
			assert_int_equal(snat_n_free(r.snat, 6), rig_n_free(&r, true));
		}
	}
	free(held);
	rig_end(&r);
}

static void test_twin(void **state)
{
	rng_start("twin");
	run_against_twin(0, 1, 1000, 1004);
	run_against_twin(0, 1, 1024, 1224);
	run_against_twin(1, 3, 1030, 1900);
	run_against_twin(2, 3, 1, 700);
	run_against_twin(0, 1, 65000, 65535);
}

// Every port of every worker is owned once, and each worker can give out all of its own.
static void test_every_port_once(void **state)
{
	static const uint16_t cases[][3] = { { 1, 65535, 1 }, { 1024, 65535, 3 }, { 1100, 1163, 4 },
		{ 65535, 65535, 2 }, { 32768, 60999, 7 }, { 63, 64, 2 } };
	for (uint32_t c = 0; c < ARRAY_SIZE(cases); c++) {
		struct snat_config config = { .n_addresses = 1,
			.addresses = { v4(0xc0000201u) },
			.slots = { 5 },
			.port_min = cases[c][0],
			.port_max = cases[c][1],
			.n_workers = cases[c][2] };
		uint8_t *seen = calloc(65536, 1);
		for (uint16_t w = 0; w < config.n_workers; w++) {
			void *mem;
			struct snat *s = snat_make(&config, w, &mem);
			struct endpoint e = {
				.address = v4(0x0a000001u), .port = 80, .protocol = 6
			};
			uint16_t slot;
			rte_be16_t port;
			int rc;
			while ((rc = endpoint_alloc(s, &e, 77, &slot, &port)) == 0) {
				assert_int_equal(slot, 5);
				assert_int_equal(
					snat_owner(rte_be_to_cpu_16(port), config.n_workers), w);
				seen[rte_be_to_cpu_16(port)]++;
			}
			assert_int_equal(rc, -ENOSPC);
			free(mem);
		}
		for (uint32_t p = 0; p < 65536; p++)
			assert_int_equal(seen[p], p >= cases[c][0] && p <= cases[c][1]);
		free(seen);
	}
}

static void test_memory(void **state)
{
	struct snat_config config = {
		.n_addresses = 10, .port_min = 1024, .port_max = 65535, .n_workers = 4
	};
	for (uint32_t a = 0; a < 10; a++) {
		config.addresses[a] = v4(a + 1);
		config.slots[a] = (uint16_t)a;
	}
	uint64_t n_ports = (65536 - 1024) / 4;
	uint64_t links = 10ull * SNAT_POOLS * n_ports * 4;
	assert_true(snat_size(&config, 1) >= links);
	assert_true(snat_size(&config, 1) <
		    links + 10 * SNAT_POOLS * 64 + 65536 * sizeof(uint16_t) + 8192);
}

static void test_refused(void **state)
{
	static const struct snat_config good = { .n_addresses = 2,
		.slots = { 1, 2 },
		.port_min = 1024,
		.port_max = 2047,
		.n_workers = 2 };
	struct snat_config c = good;
	void *mem = aligned_alloc(64, snat_size(&good, 0));
	struct snat *s = NULL;
	assert_int_equal(snat_init(mem, snat_size(&good, 0), &good, 0, &s), 0);
	s = NULL;
	assert_int_equal(snat_init(mem, snat_size(&good, 0) - 1, &good, 0, &s), -EINVAL);
	assert_int_equal(snat_init(mem, SIZE_MAX, &good, 2, &s), -EINVAL);
	c.port_min = 0;
	assert_int_equal(snat_init(mem, SIZE_MAX, &c, 0, &s), -EINVAL);
	c = good;
	c.port_max = 1023;
	assert_int_equal(snat_init(mem, SIZE_MAX, &c, 0, &s), -EINVAL);
	c = good;
	c.n_workers = 0;
	assert_int_equal(snat_init(mem, SIZE_MAX, &c, 0, &s), -EINVAL);
	c = good;
	c.n_addresses = SNAT_ADDRESSES_MAX + 1;
	assert_int_equal(snat_init(mem, SIZE_MAX, &c, 0, &s), -EINVAL);
	c = good;
	c.slots[1] = 1; // two addresses in one slot
	assert_int_equal(snat_init(mem, SIZE_MAX, &c, 0, &s), -EINVAL);
	assert_null(s);
	free(mem);
}

static void test_family_and_empty(void **state)
{
	struct snat_config config = { .n_addresses = 1,
		.addresses = { v4(1) },
		.slots = { 9 },
		.port_min = 5000,
		.port_max = 5000,
		.n_workers = 2 };
	uint16_t owner = snat_owner(5000, 2), slot;
	rte_be16_t port;
	void *mem;
	struct snat *s = snat_make(&config, owner, &mem);
	struct address b4 = v4(2), b6 = v6(2);
	assert_int_equal(snat_alloc(s, &b6, 80, 6, 0, &slot, &port), -EAFNOSUPPORT);
	assert_int_equal(snat_alloc(s, &b4, 80, 6, UINT32_MAX, &slot, &port), 0);
	assert_int_equal(snat_alloc(s, &b4, 80, 6, 0, &slot, &port), -ENOSPC);
	assert_int_equal(snat_n_free(s, 4), SNAT_POOLS - 1);
	assert_int_equal(snat_n_free(s, 6), 0);
	// Given back twice, to the wrong slot, a port of nobody: no effect.
	free_port(s, 8, port, &b4);
	free_port(s, 9, rte_cpu_to_be_16(4999), &b4);
	assert_int_equal(snat_alloc(s, &b4, 80, 6, 0, &slot, &port), -ENOSPC);
	free_port(s, 9, port, &b4);
	free_port(s, 9, port, &b4);
	assert_int_equal(snat_n_free(s, 4), SNAT_POOLS);
	assert_int_equal(snat_alloc(s, &b4, 80, 6, 0, &slot, &port), 0);
	assert_int_equal(snat_alloc(s, &b4, 80, 6, 0, &slot, &port), -ENOSPC);
	free(mem);
	// The other worker owns no port of the range.
	s = snat_make(&config, (uint16_t)(1 - owner), &mem);
	assert_int_equal(snat_n_free(s, 4), 0);
	assert_int_equal(snat_alloc(s, &b4, 80, 6, 0, &slot, &port), -ENOSPC);
	free(mem);
	config.n_addresses = 0;
	s = snat_make(&config, 0, &mem);
	assert_int_equal(snat_alloc(s, &b4, 80, 6, 0, &slot, &port), -EAFNOSUPPORT);
	free(mem);
}

// Who holds the ports of a ring: all of them in turn, those of other rings never, and nobody for ports that are free or
// were never named.
static void test_used(void **state)
{
	struct snat_config config = {
		.n_addresses = 2, .port_min = 1024, .port_max = 1024 + 199, .n_workers = 1
	};
	config.addresses[0] = v4(1);
	config.addresses[1] = v4(2);
	config.slots[1] = 1;
	void *mem;
	struct snat *s = snat_make(&config, 0, &mem);
	struct address b = v4(99);
	uint32_t flows[64], n_seen[400] = { 0 };
	uint16_t slot;
	rte_be16_t port, ports[2][200];
	assert_int_equal(snat_used(s, &b, 80, 6, 0, 64, flows), 0);
	for (uint32_t i = 0; i < 400; i++) { // first address: 0..199, second: 200..399
		assert_int_equal(
			snat_alloc(s, &b, 80, 6, i < 200 ? 0 : UINT32_MAX, &slot, &port), 0);
		ports[i / 200][i % 200] = port;
		snat_name(s, i);
	}
	assert_int_equal(snat_alloc(s, &b, 80, 6, 0, &slot, &port), -ENOSPC);
	for (uint32_t k = 0; k < 20; k++) {
		uint32_t n = snat_used(s, &b, 80, 6, k < 10 ? 0 : UINT32_MAX, 20, flows);
		assert_int_equal(n, 20);
		for (uint32_t i = 0; i < n; i++) {
			assert_in_range(flows[i], k < 10 ? 0 : 200, k < 10 ? 199 : 399);
			n_seen[flows[i]]++;
		}
	}
	for (uint32_t i = 0; i < 400; i++)
		assert_int_equal(n_seen[i], 1);
	for (uint16_t other = 1; other < 200;
		other++) { // other endpoints: this ring, or an empty one
		uint32_t n = snat_used(s, &b, other, 6, 0, 20, flows);
		assert_true(n == 0 || n == 20);
	}
	// Given back and taken again, not named yet: nobody's.
	for (uint32_t i = 0; i < 400; i++)
		free_port(s, (uint16_t)(i / 200), ports[i / 200][i % 200], &b);
	snat_name(s, 7); // too late: the port taken last was given back
	for (uint32_t k = 0; k < 4; k++)
		assert_int_equal(snat_used(s, &b, 80, 6, UINT32_MAX, 64, flows), 0);
	assert_int_equal(snat_alloc(s, &b, 80, 6, 0, &slot, &port), 0);
	assert_int_equal(snat_used(s, &b, 80, 6, 0, 64, flows) +
				 snat_used(s, &b, 80, 6, 0, 64, flows) +
				 snat_used(s, &b, 80, 6, 0, 64, flows) +
				 snat_used(s, &b, 80, 6, 0, 8, flows),
		0);
	snat_name(s, SNAT_USER_MAX);
	uint32_t n = 0;
	for (uint32_t k = 0; k < 10 && n == 0; k++)
		n = snat_used(s, &b, 80, 6, 0, 20, flows);
	assert_int_equal(n, 1);
	assert_int_equal(flows[0], SNAT_USER_MAX);
	struct address b6 = v6(1);
	assert_int_equal(snat_used(s, &b6, 80, 6, 0, 20, flows), 0); // no address of that family
	free(mem);
}

// Each port in use says whose it is, to one who asks alone and to one who asks for many; every other port says nothing.
static void test_users(void **state)
{
	enum { N = 300 };
	struct snat_config config = { .n_addresses = 2,
		.port_min = 1000,
		.port_max = 1000 + 499,
		.n_workers = 3,
		.first = 77 };
	config.addresses[0] = v4(1);
	config.addresses[1] = v6(2);
	config.slots[0] = 40000;
	config.slots[1] = 3;
	void *mem;
	struct snat *s = snat_make(&config, 1, &mem);
	struct flow_key keys[N];
	rng_start("users");
	for (uint32_t i = 0; i < N; i++) {
		struct address b = i % 2 ? v6((uint16_t)(i % 20)) : v4(100 + i % 20);
		uint16_t slot;
		rte_be16_t port;
		assert_int_equal(snat_alloc(s, &b, 80, 6, (uint32_t)rng(), &slot, &port), 0);
		keys[i] = reply_key(slot, port, &b, 80, 6);
		assert_int_equal(snat_user(s, &keys[i]), SNAT_USER_NONE); // not named yet
		snat_name(s, 1000 + i);
	}
	for (uint32_t i = 0; i < N; i += 3)
		snat_free(s, &keys[i]);
	const uint32_t *words[N];
	snat_ask(s, keys, N, words);
	for (uint32_t i = 0; i < N; i++) {
		bool used = i % 3 != 0;
		assert_int_equal(snat_user(s, &keys[i]), used ? 1000 + i : SNAT_USER_NONE);
		assert_int_equal(*words[i] >> 31, used);
		if (used)
			assert_int_equal(*words[i] & 0x7fffffff, 1000 + i);
	}
	// Other slots, ports around the range, of other workers, any at all: of nobody, or a name that was given.
	uint32_t n_named = 0;
	for (uint32_t port = 0; port < 65536; port++) {
		struct flow_key k = keys[port % N];
		k.own_port = rte_cpu_to_be_16((uint16_t)port);
		bool ours = port >= 1000 && port < 1500 && snat_owner((uint16_t)port, 3) == 1;
		uint32_t user = snat_user(s, &k);
		snat_ask(s, &k, 1, words);
		assert_int_equal(
			*words[0] >> 31 && *words[0] != UINT32_MAX, user != SNAT_USER_NONE);
		if (!ours)
			assert_int_equal(user, SNAT_USER_NONE);
		n_named += user != SNAT_USER_NONE;
		k.own_slot = (uint16_t)(port == 3 || port == 40000 ? 4 : port);
		assert_int_equal(snat_user(s, &k), SNAT_USER_NONE);
		snat_ask(s, &k, 1, words);
		assert_int_equal(*words[0] >> 31, 0);
	}
	assert_true(n_named > 0);
	free(mem);
}

// Endpoints that differ in one byte, in order, come to all rings alike.
static void test_endpoints_spread(void **state)
{
	struct snat_config config = {
		.n_addresses = 1, .port_min = 1024, .port_max = 2047, .n_workers = 1
	};
	config.addresses[0] = v4(1);
	void *mem;
	struct snat *s = snat_make(&config, 0, &mem);
	for (uint32_t byte = 0; byte < 18; byte++) { // of the address, then of the port
		uint32_t n_of[SNAT_POOLS] = { 0 };
		if (byte == 10 || byte == 11)
			continue; // no address of either family differs there and is like this one
		for (uint32_t k = 0; k < 256; k++) {
			struct address b = byte < 10 ? v6(1) : v4(0x0a000001);
			rte_be16_t port = RTE_BE16(8080);
			uint8_t *at = byte < 16 ? &b.bytes[byte] : (uint8_t *)&port + byte - 16;
			*at = (uint8_t)k;
			struct flow_key key = reply_key(0, RTE_BE16(1024), &b, port, 6);
			n_of[snat_locate(s, &key).ring]++;
		}
		for (uint32_t pool = 0; pool < SNAT_POOLS; pool++)
			assert_in_range(n_of[pool], 256 / SNAT_POOLS / 2, 256 / SNAT_POOLS * 3 / 2);
	}
	free(mem);
}

// One hash keeps one address while it has ports; many hashes use all addresses.
static void test_addresses_spread(void **state)
{
	struct snat_config config = {
		.n_addresses = 4, .port_min = 1024, .port_max = 65535, .n_workers = 1
	};
	for (uint32_t a = 0; a < 4; a++) {
		config.addresses[a] = v4(a + 1);
		config.slots[a] = (uint16_t)(a + 10);
	}
	void *mem;
	struct snat *s = snat_make(&config, 0, &mem);
	struct address b = v4(99);
	uint32_t n[4] = { 0 };
	uint16_t slot, first;
	rte_be16_t port;
	rng_start("spread");
	for (uint32_t i = 0; i < 4000; i++) {
		assert_int_equal(snat_alloc(s, &b, 80, 6, (uint32_t)rng(), &slot, &port), 0);
		n[slot - 10]++;
	}
	for (uint32_t a = 0; a < 4; a++)
		assert_true(n[a] > 800 && n[a] < 1200);
	assert_int_equal(snat_alloc(s, &b, 80, 6, 12345, &first, &port), 0);
	for (uint32_t i = 0; i < 100; i++) {
		assert_int_equal(snat_alloc(s, &b, 80, 6, 12345, &slot, &port), 0);
		assert_int_equal(slot, first);
	}
	free(mem);
}

static void test_owner_without_division(void **state)
{
	for (uint32_t n = 1; n <= 256; n++) {
		uint64_t reciprocal = snat_reciprocal((uint16_t)n);
		for (uint32_t port = 0; port < 65536; port += 61)
			assert_int_equal(snat_owner_by((uint16_t)port, (uint16_t)n, reciprocal),
				snat_owner((uint16_t)port, (uint16_t)n));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_owner_without_division),
		cmocka_unit_test(test_twin),
		cmocka_unit_test(test_every_port_once),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_family_and_empty),
		cmocka_unit_test(test_used),
		cmocka_unit_test(test_users),
		cmocka_unit_test(test_endpoints_spread),
		cmocka_unit_test(test_addresses_spread),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
