// SPDX-License-Identifier: BSD-3-Clause
// Flows of one process go on in the next, with as many workers or others: in plain memory, without ports or threads.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataplane_priv.h"

#define WORKERS_MAX 4
#define SLOT        7
#define N_BACKENDS  5

static const struct hash_key test_key = { { 21, 22 } };

// One life of a node: workers with tables and source ports.
struct node {
	uint32_t n;
	uint32_t capacity;
	struct pipeline *workers[WORKERS_MAX];
	void *tables[WORKERS_MAX];
	void *entries[WORKERS_MAX];
	void *ports[WORKERS_MAX];
	struct snat_config snat;
};

static void node_start(struct node *p, uint32_t n, uint32_t capacity)
{
	p->n = n;
	p->capacity = capacity;
	p->snat = (struct snat_config){ .n_addresses = 1,
		.addresses = { address_from_v4(RTE_BE32(0xc0000201)) },
		.slots = { SLOT },
		.port_min = 1024,
		.port_max = 65535,
		.n_workers = (uint16_t)n };
	for (uint16_t i = 0; i < n; i++) {
		struct pipeline *w = calloc(1, sizeof(*w));
		size_t size = flow_table_size(capacity);
		p->tables[i] = aligned_alloc(64, size);
		assert_int_equal(
			flow_table_init(&w->flows, p->tables[i], size, capacity, &test_key), 0);
		size = oneway_size((struct oneway_capacity){ capacity, capacity });
		p->entries[i] = aligned_alloc(64, size);
		assert_int_equal(oneway_init(&w->oneway, p->entries[i], size,
					 (struct oneway_capacity){ capacity, capacity }, &test_key),
			0);
		oneway_advance(&w->oneway, 50);
		size = snat_size(&p->snat, i);
		p->ports[i] = aligned_alloc(64, size);
		assert_int_equal(snat_init(p->ports[i], size, &p->snat, i, &w->snat), 0);
		w->worker_idx = i;
		w->n_workers = (uint16_t)n;
		w->n_backend_counters = N_BACKENDS;
		w->backend_counters = calloc(N_BACKENDS, sizeof(*w->backend_counters));
		p->workers[i] = w;
	}
}

static void node_end(struct node *p)
{
	for (uint32_t i = 0; i < p->n; i++) {
		free(p->workers[i]->backend_counters);
		free(p->workers[i]);
		free(p->tables[i]);
		free(p->entries[i]);
		free(p->ports[i]);
	}
}

static struct inheritance inheritance_of(struct node *p, uint32_t now_s)
{
	struct inheritance in = { .n_heirs = p->n, .now_s = now_s, .key = test_key };
	for (uint32_t i = 0; i < p->n; i++)
		in.heirs[i] = p->workers[i];
	return in;
}

// Flow `id`: every seventh in mode dnat, every fifth not confirmed.
static struct flow_record make_flow(uint32_t id)
{
	struct flow_record r = { .client = address_from_v4(rte_cpu_to_be_32(0x0a000000u + id)),
		.backend = address_from_v4(rte_cpu_to_be_32(0x0b000000u + id % N_BACKENDS)),
		.client_port = rte_cpu_to_be_16((uint16_t)(1024 + id % 50000)),
		.vip_port = RTE_BE16(80),
		.vip_slot = 1,
		.backend_port = RTE_BE16(8080),
		.protocol = NET_PROTO_TCP,
		.state = id % 5 ? FLOW_STATE_ESTABLISHED : FLOW_STATE_SYN_SENT,
		.backend_id = id % N_BACKENDS,
		.stamp_s = 50 };
	if (id % 7 == 0) {
		r.flags = FLOW_FLAG_DNAT;
		r.backend = r.client;
		r.backend_port = r.client_port;
		r.snat_slot = (uint16_t)(100 + id % N_BACKENDS);
		r.snat_port = RTE_BE16(8080);
	}
	return r;
}

// Opens flow `id` at worker w, as a pipeline does.
static void open_flow(struct node *p, uint32_t w, uint32_t id)
{
	struct flow_record r = make_flow(id);
	struct pipeline *worker = p->workers[w];
	if (r.flags & FLOW_FLAG_DNAT)
		worker = p->workers[flow_owner_by_client(&r.client, (uint16_t)p->n)];
	else
		assert_int_equal(snat_alloc(worker->snat, &r.backend, r.backend_port, r.protocol,
					 id * 2654435761u, &r.snat_slot, &r.snat_port),
			0);
	assert_int_not_equal(flow_add(&worker->flows, &r), FLOW_NONE);
}

static uint64_t n_flows(const struct node *p)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < p->n; i++)
		n += p->workers[i]->flows.n_flows;
	return n;
}

static uint64_t n_ports_used(const struct node *p)
{
	uint64_t n = (65536 - 1024) * SNAT_POOLS;
	for (uint32_t i = 0; i < p->n; i++)
		n -= snat_n_free(p->workers[i]->snat, 4);
	return n;
}

// The worker that should have flow `id` has it, by both keys, with what `before` says of it; its port is in use.
static void check_flow(const struct node *p, uint32_t id, const struct flow_record *before)
{
	struct flow_record r = *before;
	uint16_t owner = r.flags & FLOW_FLAG_DNAT
				 ? flow_owner_by_client(&r.client, (uint16_t)p->n)
				 : snat_owner(rte_be_to_cpu_16(r.snat_port), (uint16_t)p->n);
	struct pipeline *w = p->workers[owner];
	struct flow_key client = flow_client_key(&r), backend = flow_backend_key(&r);
	uint8_t side;
	uint32_t idx = flow_lookup(&w->flows, &client, &side);
	assert_int_not_equal(idx, FLOW_NONE);
	assert_int_equal(side, FLOW_SIDE_CLIENT);
	if (r.flags & FLOW_FLAG_DNAT) {
		assert_int_equal(flow_lookup(&w->flows, &backend, &side), idx);
		assert_int_equal(side, FLOW_SIDE_BACKEND);
	} else {
		assert_int_equal(pipeline_find_reply(w, &backend), idx);
	}
	const struct flow_record *now = flow_record(&w->flows, idx);
	assert_int_equal(now->backend_id, id % N_BACKENDS);
	assert_int_equal(now->state, r.state);
	assert_int_equal(now->stamp_s, r.stamp_s);
	assert_int_equal(now->nexthop_backend, UINT16_MAX);
	if (!(r.flags & FLOW_FLAG_DNAT))
		assert_int_equal(snat_take(w->snat, &backend), -ENOENT);
	if (w->directory)
		assert_int_equal(
			flow_directory_find(w->directory, flow_hash(&w->flows, &client)), owner);
}

// Each port in use says whose it is.
static void check_names(const struct node *p)
{
	for (uint32_t w = 0; w < p->n; w++) {
		struct pipeline *worker = p->workers[w];
		uint8_t *named = calloc(p->capacity, 1);
		for (uint32_t k = 0; k < N_BACKENDS * (65536 / 64); k++) {
			struct address backend =
				address_from_v4(rte_cpu_to_be_32(0x0b000000u + k % N_BACKENDS));
			uint32_t flows[64];
			uint32_t n = snat_used(worker->snat, &backend, RTE_BE16(8080),
				NET_PROTO_TCP, 0, 64, flows);
			for (uint32_t i = 0; i < n; i++)
				named[flows[i]] = 1;
		}
		for (uint32_t i = 0; i < worker->flows.n_used; i++) {
			const struct flow_record *r = flow_record(&worker->flows, i);
			bool has_port = r->state != FLOW_STATE_FREE && !(r->flags & FLOW_FLAG_DNAT);
			assert_int_equal(named[i], has_port);
		}
		free(named);
	}
}

// What process `from` has, by number of the flow.
static struct flow_record *remember(const struct node *from, uint32_t n)
{
	struct flow_record *flows = aligned_alloc(64, n * sizeof(*flows));
	for (uint32_t i = 0; i < from->n; i++) {
		const struct flow_table *t = &from->workers[i]->flows;
		for (uint32_t k = 0; k < t->n_used; k++) {
			uint32_t id =
				rte_be_to_cpu_32((uint32_t)(t->records[k].client.halves[1] >> 32));
			flows[id - 0x0a000000u] = t->records[k];
		}
	}
	return flows;
}

static void hand_over(const struct node *from, struct inheritance *in)
{
	for (uint32_t k = 0; k < 2 * from->n; k++)
		assert_int_equal(inherit_copies(in, from->tables[k % from->n],
					 flow_table_size(from->capacity), k < from->n, NULL),
			0);
}

// Four workers, then two, three, one, four, tables of other sizes too: nobody is lost, nothing is there twice.
static void test_other_numbers_of_workers(void **state)
{
	static const uint32_t numbers[] = { 4, 2, 3, 1, 4 };
	const uint32_t n = 20000;
	struct node from;
	node_start(&from, numbers[0], n);
	for (uint32_t id = 0; id < n; id++)
		open_flow(&from, id % numbers[0], id);
	uint64_t n_ports = n_ports_used(&from);
	assert_int_equal(n_ports, n - (n + 6) / 7);
	for (size_t step = 1; step < ARRAY_SIZE(numbers); step++) {
		struct node to;
		struct flow_record *before = remember(&from, n);
		node_start(&to, numbers[step], n + 1000 * (uint32_t)step);
		struct inheritance in = inheritance_of(&to, 60);
		hand_over(&from, &in);
		assert_int_equal(in.n_kept, n);
		assert_int_equal(in.n_lost, 0);
		size_t size = inherit_directory_size(&in);
		void *mem = NULL;
		assert_int_equal(size > 0, to.n > 1);
		if (size > 0) {
			mem = aligned_alloc(64, size);
			assert_non_null(inherit_directory(&in, mem, size));
		}
		for (uint32_t id = 0; id < n; id++)
			check_flow(&to, id, &before[id]);
		assert_int_equal(n_flows(&to), n);
		assert_int_equal(n_ports_used(&to), n_ports);
		check_names(&to);
		uint64_t n_created = 0;
		for (uint32_t i = 0; i < to.n; i++)
			for (uint32_t b = 0; b < N_BACKENDS; b++)
				n_created += to.workers[i]->backend_counters[b].flows_created;
		assert_int_equal(n_created, n);
		// The same again, as after a death before the files were removed: all are known.
		hand_over(&from, &in);
		assert_int_equal(in.n_kept, n);
		assert_int_equal(in.n_lost, n);
		assert_int_equal(n_flows(&to), n);
		assert_int_equal(n_ports_used(&to), n_ports);
		free(before);
		free(mem);
		node_end(&from);
		from = to;
	}
	node_end(&from);
}

static void test_same_number_in_place(void **state)
{
	const uint32_t n = 3000;
	struct node p;
	node_start(&p, 2, n);
	for (uint32_t id = 0; id < n; id++)
		open_flow(&p, id % 2, id);
	struct flow_record *before = remember(&p, n);
	uint64_t n_ports = n_ports_used(&p);
	for (uint16_t i = 0; i < 2; i++) { // a new process: ports are free, the table is there
		struct pipeline *w = p.workers[i];
		assert_int_equal(snat_init(p.ports[i], SIZE_MAX, &p.snat, i, &w->snat), 0);
		assert_int_equal(
			flow_table_adopt(&w->flows, p.tables[i], flow_table_size(n), NULL), 0);
	}
	struct inheritance in = inheritance_of(&p, 60);
	inherit_in_place(&in, p.workers[0]);
	inherit_in_place(&in, p.workers[1]);
	assert_int_equal(in.n_kept, n);
	assert_int_equal(n_ports_used(&p), n_ports);
	size_t size = inherit_directory_size(&in); // queues may have other owners
	void *mem = aligned_alloc(64, size);
	assert_non_null(inherit_directory(&in, mem, size));
	for (uint32_t id = 0; id < n; id++)
		check_flow(&p, id, &before[id]);
	check_names(&p);
	free(mem);
	free(before);
	node_end(&p);
}

// What cannot go on ends: an address that is gone, ports beyond a narrower range, more flows than there is room for, and the
// confirmed ones have the room.
static void test_who_cannot_go_on(void **state)
{
	const uint32_t n = 2000;
	struct node from, to;
	node_start(&from, 2, n);
	for (uint32_t id = 1; id < n; id++)
		open_flow(&from, id % 2, id);
	uint32_t n_dnat = (n - 1) / 7, n_narrow = 0, n_confirmed = 0;
	for (uint32_t i = 0; i < 2; i++)
		for (uint32_t k = 0; k < from.workers[i]->flows.n_used; k++) {
			const struct flow_record *r = flow_record(&from.workers[i]->flows, k);
			n_narrow += !(r->flags & FLOW_FLAG_DNAT) &&
				    rte_be_to_cpu_16(r->snat_port) < 1024 + 100;
			n_confirmed += r->state == FLOW_STATE_ESTABLISHED;
		}
	node_start(&to, 1, n);
	to.snat.slots[0] = SLOT + 1;
	assert_int_equal(snat_init(to.ports[0], SIZE_MAX, &to.snat, 0, &to.workers[0]->snat), 0);
	struct inheritance in = inheritance_of(&to, 60);
	hand_over(&from, &in);
	assert_int_equal(in.n_kept, n_dnat);
	assert_int_equal(in.n_lost, n - 1 - n_dnat);
	node_end(&to);
	node_start(&to, 1, n);
	to.snat.port_max = 1024 + 99;
	assert_int_equal(snat_init(to.ports[0], SIZE_MAX, &to.snat, 0, &to.workers[0]->snat), 0);
	in = inheritance_of(&to, 60);
	hand_over(&from, &in);
	assert_true(n_narrow > 50);
	assert_int_equal(in.n_kept, n_dnat + n_narrow);
	node_end(&to);
	node_start(&to, 1, 900);
	in = inheritance_of(&to, 60);
	assert_true(n_confirmed > 900);
	hand_over(&from, &in);
	for (uint32_t k = 0; k < to.workers[0]->flows.n_used; k++)
		assert_int_equal(
			flow_record(&to.workers[0]->flows, k)->state, FLOW_STATE_ESTABLISHED);
	assert_int_equal(to.workers[0]->flows.n_flows, 900);
	assert_int_equal(in.n_lost, n - 1 - 900);
	node_end(&to);
	node_end(&from);
}

// One client's flow at two workers: the confirmed one goes on, else the one that was used last, whichever is met first.
static void test_two_of_one_client(void **state)
{
	static const struct {
		uint8_t states[2];
		uint32_t stamps[2];
		uint32_t winner;
	} rows[] = {
		{ { FLOW_STATE_ESTABLISHED, FLOW_STATE_SYN_SENT }, { 10, 50 }, 0 },
		{ { FLOW_STATE_CLOSED, FLOW_STATE_ESTABLISHED }, { 50, 10 }, 1 },
		{ { FLOW_STATE_ESTABLISHED, FLOW_STATE_ESTABLISHED }, { 10, 50 }, 1 },
		{ { FLOW_STATE_ESTABLISHED, FLOW_STATE_FIN_CLIENT }, { 50, 10 }, 0 },
		{ { FLOW_STATE_SYN_SENT, FLOW_STATE_CLOSED }, { 10, 50 }, 1 },
	};
	for (uint32_t k = 0; k < 4 * ARRAY_SIZE(rows); k++) {
		struct node from, to;
		node_start(&from, 2, 100);
		node_start(&to, 1, 100);
		uint32_t first = k % 2; // file that is read first
		bool others_first = k / 2 % 2;
		for (uint32_t w = 0; w < 2; w++) {
			struct flow_record r = make_flow(1);
			r.backend = address_from_v4(rte_cpu_to_be_32(0x0b000000u + w));
			r.backend_id = w;
			r.state = rows[k / 4].states[w];
			r.stamp_s = rows[k / 4].stamps[w];
			assert_int_equal(
				snat_alloc(from.workers[w]->snat, &r.backend, r.backend_port,
					r.protocol, 0, &r.snat_slot, &r.snat_port),
				0);
			assert_int_not_equal(flow_add(&from.workers[w]->flows, &r), FLOW_NONE);
		}
		struct inheritance in = inheritance_of(&to, 60);
		for (uint32_t file = 0; file < 4; file++)
			assert_int_equal(
				inherit_copies(&in, from.tables[(file + first) % 2],
					flow_table_size(100), (file < 2) != others_first, NULL),
				0);
		assert_int_equal(to.workers[0]->flows.n_flows, 1);
		assert_int_equal(n_ports_used(&to), 1);
		assert_int_equal(in.n_kept, 1);
		assert_int_equal(in.n_lost, 1);
		struct flow_record r = make_flow(1);
		struct flow_key key = flow_client_key(&r);
		uint8_t side;
		uint32_t idx = flow_lookup(&to.workers[0]->flows, &key, &side);
		assert_int_not_equal(idx, FLOW_NONE);
		assert_int_equal(
			flow_record(&to.workers[0]->flows, idx)->backend_id, rows[k / 4].winner);
		node_end(&to);
		node_end(&from);
	}
}

static void test_refused_and_clamped(void **state)
{
	struct node from, to;
	node_start(&from, 1, 100);
	for (uint32_t id = 1; id < 50; id++)
		open_flow(&from, 0, id);
	flow_record(&from.workers[0]->flows, 3)->stamp_s = 61; // a second ahead
	flow_record(&from.workers[0]->flows, 4)->stamp_s = 60;
	node_start(&to, 2, 100);
	struct inheritance in = inheritance_of(&to, 60);
	in.key.words[0]++;
	struct error err = { 0 };
	assert_int_equal(
		inherit_copies(&in, from.tables[0], flow_table_size(100), true, &err), -EINVAL);
	assert_int_equal(inherit_copies(&in, from.tables[0], flow_table_size(100) - 64, true, &err),
		-EINVAL);
	assert_int_equal(err.n_items, 2);
	error_fini(&err);
	assert_int_equal(n_flows(&to), 0);
	assert_int_equal(in.n_kept + in.n_lost, 0);
	assert_int_equal(inherit_directory_size(&in), 0); // nobody to list
	in = inheritance_of(&to, 60);
	hand_over(&from, &in);
	for (uint32_t i = 0; i < 2; i++)
		for (uint32_t k = 0; k < to.workers[i]->flows.n_used; k++)
			assert_true(flow_record(&to.workers[i]->flows, k)->stamp_s <= 60);
	node_end(&to);
	node_end(&from);
}

// ---------------------------------------------------------------- one-way modes

#define N_ENTRIES 5000u

static const struct oneway_timeouts *entry_timeouts(void)
{
	static struct flow_policy policy;
	static struct oneway_timeouts timeouts = { .fallback = { .affinity_s = 3600 } };
	policy = flow_policy_make(900, 60);
	timeouts.policies = &policy;
	return &timeouts;
}

// Entry `id`: TCP, UDP and what affinity remembers, of both families.
static struct oneway_entry make_entry(uint32_t id)
{
	struct address client = address_from_v4(rte_cpu_to_be_32(0x0a000000u + id));
	if (id % 4 == 1)
		client = (struct address){
			.bytes = { 0x20, 0x01, [14] = (uint8_t)(id >> 8), [15] = (uint8_t)id }
		};
	uint8_t protocol = id % 3 ? NET_PROTO_TCP : NET_PROTO_UDP;
	struct oneway_entry e = { .key = flow_key_make(
					  &client, RTE_BE16(4000), RTE_BE16(80), 1, protocol),
		.backend_id = id % N_BACKENDS,
		.state = id % 3 ? ONEWAY_ESTABLISHED : ONEWAY_UDP };
	if (id % 7 == 0 && id % 3)
		e.state = ONEWAY_EMBRYONIC;
	if (id % 10 == 0) {
		e.key = oneway_affinity_key(&client, RTE_BE16(80), 1, protocol);
		e.state = ONEWAY_AFFINITY;
	}
	return e;
}

// In which its last packet came.
static uint32_t entry_second(uint32_t id)
{
	return 50 + id * 10 / N_ENTRIES;
}

static void add_entries(struct node *node, uint32_t n)
{
	uint64_t evicted;
	for (uint32_t id = 0; id < n; id++) {
		struct oneway_table *t = &node->workers[id % node->n]->oneway; // wherever it came
		struct oneway_entry e = make_entry(id);
		oneway_advance(t, entry_second(id));
		assert_int_not_equal(oneway_add(t, flow_key_hash(&t->schedule, &e.key), &e,
					     entry_timeouts(), &evicted),
			ONEWAY_NONE);
	}
}

static void check_entries(const struct node *node, uint32_t now_s)
{
	uint64_t n = 0, n_created = 0;
	for (uint32_t id = 0; id < N_ENTRIES; id++) {
		struct oneway_entry e = make_entry(id), found;
		uint16_t owner = flow_owner_by_client(&e.key.peer, (uint16_t)node->n);
		const struct pipeline *w = node->workers[owner];
		uint32_t ref = oneway_lookup(&w->oneway, &e.key);
		assert_int_not_equal(ref, ONEWAY_NONE);
		assert_true(oneway_copy(&w->oneway, ref, &found));
		assert_int_equal(found.backend_id, e.backend_id);
		assert_int_equal(found.state, e.state);
		assert_int_equal(found.idle_s, now_s - entry_second(id));
		uint64_t hash = flow_key_hash(&w->oneway.schedule, &e.key);
		if (w->directory)
			assert_int_equal(flow_directory_find(w->directory, hash),
				e.state == ONEWAY_AFFINITY ? FLOW_DIRECTORY_NONE : owner);
	}
	for (uint32_t i = 0; i < node->n; i++) {
		n += node->workers[i]->oneway.families[0].n_entries;
		n += node->workers[i]->oneway.families[1].n_entries;
		for (uint32_t b = 0; b < N_BACKENDS; b++)
			n_created += node->workers[i]->backend_counters[b].flows_created;
	}
	assert_int_equal(n, N_ENTRIES);
	assert_int_equal(n_created, N_ENTRIES - N_ENTRIES / 10);
}

static void test_oneway_other_numbers_of_workers(void **state)
{
	static const uint32_t numbers[] = { 4, 2, 3, 1 }, seconds[] = { 60, 60, 200, 30000 };
	struct node from;
	node_start(&from, 4, N_ENTRIES);
	add_entries(&from, N_ENTRIES);
	for (size_t step = 1; step < ARRAY_SIZE(numbers); step++) {
		struct node to;
		node_start(&to, numbers[step], N_ENTRIES + 100);
		struct inheritance in = inheritance_of(&to, seconds[step]);
		size_t size = oneway_size((struct oneway_capacity){ from.capacity, from.capacity });
		void *file = aligned_alloc(64, size);
		for (uint32_t k = 0; k < 2 * from.n; k++) { // twice: the second time all are known
			memcpy(file, from.entries[k % from.n], size);
			assert_int_equal(inherit_oneway_copies(&in, file, size, NULL), 0);
		}
		assert_int_equal(in.n_kept, N_ENTRIES);
		assert_int_equal(in.n_lost, N_ENTRIES);
		free(file);
		size = inherit_directory_size(&in);
		void *mem = size ? aligned_alloc(64, size) : NULL;
		assert_int_equal(inherit_directory(&in, mem, size) != NULL, size > 0);
		check_entries(&to, seconds[step]);
		free(mem);
		node_end(&from);
		from = to;
	}
	node_end(&from);
}

static void test_oneway_in_place_and_refused(void **state)
{
	struct node p, to;
	node_start(&p, 1, N_ENTRIES);
	add_entries(&p, N_ENTRIES);
	size_t size = oneway_size((struct oneway_capacity){ N_ENTRIES, N_ENTRIES });
	assert_int_equal(oneway_adopt(&p.workers[0]->oneway, p.entries[0], size, 60, NULL), 0);
	struct inheritance in = inheritance_of(&p, 60);
	inherit_oneway_in_place(&in, p.workers[0]);
	assert_int_equal(in.n_kept, N_ENTRIES);
	check_entries(&p, 60);
	node_start(&to, 2, 10);
	in = inheritance_of(&to, 60);
	in.key.words[1]++;
	assert_int_equal(inherit_oneway_copies(&in, p.entries[0], size, NULL), -EINVAL);
	assert_int_equal(inherit_oneway_copies(&in, p.entries[0], size - 64, NULL), -EINVAL);
	assert_int_equal(in.n_kept + in.n_lost, 0);
	in.key.words[1]--;
	// Little room: some find it, the others are said to be lost.
	assert_int_equal(inherit_oneway_copies(&in, p.entries[0], size, NULL), 0);
	assert_int_equal(in.n_kept + in.n_lost, N_ENTRIES);
	assert_in_range(in.n_kept, 20, 80);
	uint32_t n_there = 0;
	for (uint32_t i = 0; i < 4; i++)
		n_there += to.workers[i / 2]->oneway.families[i % 2].n_entries;
	assert_int_equal(in.n_kept, n_there);
	node_end(&to);
	node_end(&p);
}

// ---------------------------------------------------------------- files

static void write_file(const char *path, const void *mem, size_t size)
{
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(mem, 1, size, f), size);
	fclose(f);
}

static bool is_there(const char *path)
{
	struct stat status;
	return stat(path, &status) == 0;
}

// Files of other numbers of workers are read and removed, whatever is in them; those of this process stay.
static void test_files(void **state)
{
	char dir[] = "/tmp/sluice-inherit-XXXXXX", path[INHERIT_PATH_MAX];
	struct log log = { .fd = -1 };
	struct node from, to;
	assert_non_null(mkdtemp(dir));
	node_start(&from, 3, 1000);
	for (uint32_t id = 0; id < 2000; id++)
		open_flow(&from, id % 3, id);
	struct flow_record *before = remember(&from, 2000);
	for (uint32_t i = 0; i < 3; i++) {
		inherit_path(path, dir, INHERIT_FLOWS, i, 3, "");
		write_file(path, from.tables[i], flow_table_size(1000));
	}
	add_entries(&from, 2500);
	size_t entry_bytes = oneway_size((struct oneway_capacity){ 1000, 1000 });
	inherit_path(path, dir, INHERIT_ONEWAY, 1, 3, "");
	write_file(path, from.entries[1], entry_bytes);
	inherit_path(path, dir, INHERIT_FLOWS, 4, 5, "");
	write_file(path, "rubbish", 7);
	inherit_path(path, dir, INHERIT_FLOWS, 0, 2, "");
	write_file(path, from.tables[0], flow_table_size(1000)); // its own name
	node_start(&to, 2, 2000);
	struct inheritance in = inheritance_of(&to, 60);
	in.log = &log;
	inherit_files(&in, dir);
	uint32_t n_entries = from.workers[1]->oneway.families[0].n_entries +
			     from.workers[1]->oneway.families[1].n_entries;
	assert_true(n_entries > 500);
	assert_int_equal(in.n_files, 5);
	assert_int_equal(in.n_kept, 2000 + n_entries);
	for (uint32_t id = 0; id < 2000; id++)
		check_flow(&to, id, &before[id]);
	assert_true(is_there(path));
	for (uint32_t i = 0; i < 3; i++) {
		inherit_path(path, dir, INHERIT_FLOWS, i, 3, "");
		assert_false(is_there(path));
	}
	inherit_path(path, dir, INHERIT_ONEWAY, 1, 3, "");
	assert_false(is_there(path));
	inherit_path(path, dir, INHERIT_ONEWAY, 1, 2, "");
	write_file(path, from.entries[1], entry_bytes);
	// Of the same name, but another capacity: set aside, then read like the others.
	assert_false(inherit_set_aside(dir, INHERIT_FLOWS, 0, 2, 1000));
	assert_true(inherit_set_aside(dir, INHERIT_FLOWS, 0, 2, 999));
	assert_false(inherit_set_aside(dir, INHERIT_FLOWS, 0, 2, 999));
	assert_false(inherit_set_aside(dir, INHERIT_ONEWAY, 1, 2, 1000));
	assert_true(inherit_set_aside(dir, INHERIT_ONEWAY, 1, 2, 999));
	inherit_path(path, dir, INHERIT_FLOWS, 0, 2, "");
	assert_false(is_there(path));
	node_end(&to);
	node_start(&to, 2, 2000);
	in = inheritance_of(&to, 60);
	in.log = &log;
	inherit_files(&in, dir);
	assert_int_equal(in.n_files, 2);
	assert_int_equal(in.n_kept, from.workers[0]->flows.n_flows + n_entries);
	assert_int_equal(rmdir(dir), 0); // nothing is left in it
	free(before);
	node_end(&to);
	node_end(&from);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_other_numbers_of_workers),
		cmocka_unit_test(test_same_number_in_place),
		cmocka_unit_test(test_who_cannot_go_on),
		cmocka_unit_test(test_two_of_one_client),
		cmocka_unit_test(test_refused_and_clamped),
		cmocka_unit_test(test_oneway_other_numbers_of_workers),
		cmocka_unit_test(test_oneway_in_place_and_refused),
		cmocka_unit_test(test_files),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
