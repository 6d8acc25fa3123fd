// SPDX-License-Identifier: BSD-3-Clause
// The tables of one worker as the daemon makes them, filled with flows by real packets: SYN, SYN-ACK,
// ACK of each. Services of one mode and one family with a VIP each, one port.
#include "scene_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <rte_mempool.h>

#define SCENE_PORT     80
#define SCENE_BACKENDS 64

static void scene_die(const char *what)
{
	fprintf(stderr, "sluice-bench: %s\n", what);
	exit(1);
}

static const struct mac own_mac = { { 0x02, 0, 0, 0, 0, 2 } };
static const struct mac gateway_mac = { { 0x02, 0, 0, 0, 0, 1 } };

// ---------------------------------------------------------------- addresses

static struct address address_in(bool is_v6, uint32_t v4_base, uint16_t v6_net, uint32_t host)
{
	if (!is_v6)
		return address_from_v4(rte_cpu_to_be_32(v4_base + host));
	struct address a = { .words = { RTE_BE32(0x20010db8),
				     rte_cpu_to_be_32((uint32_t)v6_net << 16), 0,
				     rte_cpu_to_be_32(host) } };
	return a;
}

static struct address vip_address(bool is_v6, uint32_t service_idx)
{
	return address_in(is_v6, 0xc6120000u, 1, 10 + service_idx);
}

static struct address snat_address(bool is_v6, uint32_t n)
{
	return address_in(is_v6, 0xc6336400u, 2, 1 + n);
}

static struct address backend_address(bool is_v6, uint32_t n)
{
	return address_in(is_v6, 0x0a000000u, 3, 2 + n);
}

// 24 bits of a one-to-one mix: neighbours in number are no neighbours in address.
static struct address client_address(bool is_v6, uint32_t id)
{
	return address_in(is_v6, 0x14000000u, 4, id * 0x9e3779b1u & 0xffffff);
}

static rte_be16_t client_port(uint32_t id)
{
	return rte_cpu_to_be_16((uint16_t)(1024 + (id * 0x85ebca6bu >> 18)));
}

// ---------------------------------------------------------------- tables

static bool scene_is_nat(const struct bench_scene_shape *shape)
{
	return shape->mode == SERVICE_MODE_FULLNAT || shape->mode == SERVICE_MODE_DNAT;
}

static uint32_t n_services(const struct bench_scene_shape *shape)
{
	return shape->n_services ? shape->n_services : 1;
}

static uint32_t n_backends(const struct bench_scene_shape *shape)
{
	return shape->n_backends ? shape->n_backends : SCENE_BACKENDS;
}

struct service *bench_scene_service(
	const struct bench_scene_shape *shape, uint32_t service_idx, uint32_t first_backend)
{
	struct service_defaults defaults = service_defaults_builtin();
	struct service *service = service_create(&defaults);
	snprintf(service->namespace, sizeof(service->namespace), "default");
	snprintf(service->name, sizeof(service->name), "s%u", service_idx);
	service->owner = SERVICE_OWNER_FILE;
	*service_add_address(service) = vip_address(shape->is_v6, service_idx);
	struct service_listener *l = service_add_listener(service);
	l->protocol = NET_PROTO_TCP;
	l->port = l->port_max = SCENE_PORT;
	// A listener's port may not change on the way in one-way modes.
	uint16_t port = scene_is_nat(shape) ? 8080 : SCENE_PORT;
	for (uint32_t i = 0; i < n_backends(shape); i++) {
		struct service_backend *b = service_add_backend(service);
		b->address = backend_address(
			shape->is_v6, service_idx * n_backends(shape) + first_backend + i);
		b->weight = SERVICE_WEIGHT_DEFAULT;
		b->conditions.ready = b->conditions.serving = true;
		service_backend_add_port(b)->port = port;
	}
	return service;
}

static void scene_put(
	struct service_store *store, const struct bench_scene_shape *shape, uint32_t service_idx)
{
	struct error err = { 0 };
	char text[256];
	struct service *service = bench_scene_service(shape, service_idx, 0);
	if (service_store_put(store, service, NULL, &err) != 0)
		scene_die(error_first(&err, text, sizeof(text)));
	// Set behind the validation's back, which need not let every mode through that the pipeline has.
	struct service *held = (struct service *)(uintptr_t)service_store_find(
		store, service->namespace, service->name);
	held->mode = shape->mode;
	service_destroy(service);
}

static void scene_services(struct bench_scene *s)
{
	s->store = service_store_create();
	for (uint32_t i = 0; i < n_services(&s->shape); i++)
		scene_put(s->store, &s->shape, i);
}

// Everything lies behind a gateway; l2dsr needs its backends on the link, each with a MAC.
static void scene_routes(struct bench_scene *s)
{
	struct nexthop_table *table = &s->pipeline.nexthops;
	bool is_v6 = s->shape.is_v6;
	uint32_t n_hosts = s->shape.mode == SERVICE_MODE_L2DSR ? n_backends(&s->shape) : 0;
	struct nexthop_route *routes = calloc(2 + n_hosts, sizeof(*routes));
	table->n_entries = 1 + n_hosts;
	table->entries = calloc(table->n_entries, sizeof(*table->entries));
	nexthop_store(table, 0, &gateway_mac, 0, NEXTHOP_VALID);
	routes[0].prefix.address = address_from_v4(0);
	for (uint32_t i = 0; i < n_hosts; i++) {
		struct address a = backend_address(is_v6, i);
		struct mac mac = { { 0x02, 0, 0, 1, (uint8_t)(i >> 8), (uint8_t)i } };
		table->entries[1 + i].address = a;
		nexthop_store(table, (uint16_t)(1 + i), &mac, 0, NEXTHOP_VALID);
		routes[2 + i] = (struct nexthop_route){ .prefix = { a, is_v6 ? 128 : 32 },
			.nexthop = (uint16_t)(1 + i) };
	}
	s->fib = nexthop_fib_create(routes, 2 + n_hosts, 1);
	s->pipeline.ports[0] =
		(struct pipeline_port){ .mac = own_mac, .mtu = 1500, .present = true };
	free(routes);
}

static void scene_snat(struct bench_scene *s)
{
	struct snat_config *config = s->snat_config = calloc(1, sizeof(*config));
	config->n_addresses = (uint16_t)(2 + s->shape.capacity / 300000);
	config->port_min = s->pipeline.snat_port_min = 1024;
	config->port_max = s->pipeline.snat_port_max = 65535;
	config->n_workers = 1;
	for (uint16_t i = 0; i < config->n_addresses; i++) {
		config->addresses[i] = snat_address(s->shape.is_v6, i);
		if (snapshot_registry_slot(s->registry, &config->addresses[i], &config->slots[i]) !=
			0)
			scene_die("no slot for an address");
	}
	size_t size = snat_size(config, 0);
	s->snat_memory = bench_alloc(size);
	if (snat_init(s->snat_memory, size, config, 0, &s->pipeline.snat) != 0)
		scene_die("source ports are not laid out");
}

struct snapshot *bench_scene_build(
	struct bench_scene *s, const struct snapshot *previous, uint64_t generation)
{
	struct snapshot_input input = { .store = s->store,
		.registry = s->registry,
		.snat = s->snat_config->addresses,
		.n_snat = s->snat_config->n_addresses,
		.fib = s->fib,
		.previous = previous,
		.generation = generation };
	struct error err = { 0 };
	struct snapshot *snapshot;
	char text[256];
	if (snapshot_build(&input, &snapshot, &err) != 0)
		scene_die(error_first(&err, text, sizeof(text)));
	return snapshot;
}

static void scene_flows(struct bench_scene *s)
{
	static const struct hash_key key = { { 0x243f6a8885a308d3ull, 0x13198a2e03707344ull } };
	bool is_nat = scene_is_nat(&s->shape), is_v6 = s->shape.is_v6;
	uint32_t capacity = is_nat ? s->shape.capacity : 64;
	size_t size = flow_table_size(capacity);
	s->flow_memory = bench_alloc(size);
	if (flow_table_init(&s->pipeline.flows, s->flow_memory, size, capacity, &key) != 0)
		scene_die("the flow table is not laid out");
	capacity = is_nat ? 64 : s->shape.capacity;
	struct oneway_capacity one = { is_v6 ? 0 : capacity, is_v6 ? capacity : 0 };
	size = oneway_size(one);
	s->oneway_memory = bench_alloc(size);
	if (oneway_init(&s->pipeline.oneway, s->oneway_memory, size, one, &key) != 0)
		scene_die("the one-way table is not laid out");
}

// ---------------------------------------------------------------- packets

// L4 checksum over pseudo-header and header; no payload.
static rte_be16_t tcp_checksum(
	const struct tcp_header *tcp, const struct address *src, const struct address *dst)
{
	uint64_t sum = checksum_sum(tcp, sizeof(*tcp));
	if (address_is_v4(src))
		sum += checksum_sum_v4(address_v4(src)) + checksum_sum_v4(address_v4(dst));
	else
		sum += checksum_sum_address(src) + checksum_sum_address(dst);
	sum += RTE_BE16(NET_PROTO_TCP) + rte_cpu_to_be_16(sizeof(*tcp));
	return (rte_be16_t)~checksum_fold(sum);
}

// An IP header at `at`; returns its length.
static size_t write_ip(char *at, const struct address *src, const struct address *dst)
{
	if (address_is_v4(src)) {
		struct v4_header ip = { .version_ihl = 0x45,
			.total_length = RTE_BE16(sizeof(ip) + sizeof(struct tcp_header)),
			.fragment = RTE_BE16(0x4000),
			.ttl = 64,
			.protocol = NET_PROTO_TCP,
			.src = address_v4(src),
			.dst = address_v4(dst) };
		ip.checksum = (rte_be16_t)~checksum_fold(checksum_sum(&ip, sizeof(ip)));
		memcpy(at, &ip, sizeof(ip));
		return sizeof(ip);
	}
	struct v6_header ip = { .version_class_label = RTE_BE32(0x60000000),
		.payload_length = RTE_BE16(sizeof(struct tcp_header)),
		.next_header = NET_PROTO_TCP,
		.hop_limit = 64,
		.src = *src,
		.dst = *dst };
	memcpy(at, &ip, sizeof(ip));
	return sizeof(ip);
}

struct tuple {
	struct address src;
	struct address dst;
	rte_be16_t src_port;
	rte_be16_t dst_port;
};

// A 64-byte frame (with its FCS, that is 60 bytes; 74 for IPv6) in a fresh mbuf.
static void write_frame(struct rte_mbuf *mbuf, const struct tuple *t, uint8_t flags)
{
	struct eth_header eth = { .dst = own_mac,
		.src = gateway_mac,
		.type = address_is_v4(&t->src) ? RTE_BE16(NET_ETHERTYPE_V4)
					       : RTE_BE16(NET_ETHERTYPE_V6) };
	struct tcp_header tcp = { .src_port = t->src_port,
		.dst_port = t->dst_port,
		.offset = 0x50,
		.flags = flags,
		.window = RTE_BE16(1024) };
	tcp.checksum = tcp_checksum(&tcp, &t->src, &t->dst);
	rte_pktmbuf_reset(mbuf); // a tunnel header went in front of the last packet
	char *frame = rte_pktmbuf_mtod(mbuf, char *);
	memcpy(frame, &eth, sizeof(eth));
	size_t at = sizeof(eth) + write_ip(frame + sizeof(eth), &t->src, &t->dst);
	memcpy(frame + at, &tcp, sizeof(tcp));
	at += sizeof(tcp);
	mbuf->data_len = mbuf->pkt_len = at < 60 ? 60 : (uint16_t)at;
}

void bench_scene_client(struct bench_scene *s, uint32_t i, uint32_t id, uint8_t flags)
{
	bool is_v6 = s->shape.is_v6;
	struct tuple t = { .src = client_address(is_v6, id),
		.dst = vip_address(is_v6, id % n_services(&s->shape)),
		.src_port = client_port(id),
		.dst_port = RTE_BE16(SCENE_PORT) };
	write_frame(s->burst->mbufs[i], &t, flags);
}

void bench_scene_backend(struct bench_scene *s, uint32_t i, uint32_t flow_idx, uint8_t flags)
{
	const struct flow_record *r = flow_record(&s->pipeline.flows, flow_idx);
	struct address own = s->snapshot->own[r->snat_slot].address;
	struct tuple t = { r->backend, own, r->backend_port, r->snat_port };
	if (r->flags & FLOW_FLAG_DNAT) // own side is the backend, peer the client
		t = (struct tuple){ own, r->backend, r->snat_port, r->backend_port };
	write_frame(s->burst->mbufs[i], &t, flags);
}

void bench_scene_burst(struct bench_scene *s, struct bench_timer *t, uint32_t k)
{
	bool of_backends = k % 2 == 1 && s->flow_idx != NULL;
	for (uint32_t i = 0; i < BENCH_BURST; i++) {
		uint32_t id = bench_random_below(&s->rng, s->shape.n_flows);
		if (of_backends)
			bench_scene_backend(s, i, s->flow_idx[id], TCP_ACK);
		else
			bench_scene_client(s, i, id, TCP_ACK);
	}
	bench_start(t);
	bench_scene_run(s, BENCH_BURST);
	bench_stop(t, BENCH_BURST);
	bench_scene_check(s);
}

void bench_scene_run(struct bench_scene *s, uint32_t n)
{
	s->burst->n = n;
	pipeline_run(&s->pipeline, s->burst);
}

void bench_scene_check(const struct bench_scene *s)
{
	for (uint32_t i = 0; i < s->burst->n; i++) {
		if (s->burst->verdict[i] == PIPELINE_FORWARD)
			continue;
		fprintf(stderr, "sluice-bench: a packet was not forwarded: %s, %s\n",
			pipeline_verdict_name(s->burst->verdict[i]),
			drop_rows[s->burst->reason[i]].name);
		exit(1);
	}
}

// ---------------------------------------------------------------- begin and end

static void scene_open_burst(struct bench_scene *s, uint32_t first, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		bench_scene_client(s, i, first + i, TCP_SYN);
	bench_scene_run(s, n);
	bench_scene_check(s);
	if (s->flow_idx != NULL) {
		memcpy(&s->flow_idx[first], s->burst->flow_idx, n * sizeof(uint32_t));
		for (uint32_t i = 0; i < n; i++)
			bench_scene_backend(s, i, s->flow_idx[first + i], TCP_SYN | TCP_ACK);
		bench_scene_run(s, n);
		bench_scene_check(s);
	}
	for (uint32_t i = 0; i < n; i++)
		bench_scene_client(s, i, first + i, TCP_ACK);
	bench_scene_run(s, n);
	bench_scene_check(s);
}

static void scene_pipeline(struct bench_scene *s)
{
	struct pipeline *p = &s->pipeline;
	pipeline_init(p);
	p->n_workers = 1;
	p->counters = s->counters;
	p->check_mac = true;
	p->n_backend_counters = n_services(&s->shape) * n_backends(&s->shape);
	p->backend_counters = bench_alloc(p->n_backend_counters * sizeof(*p->backend_counters));
	p->now_ns = CLOCK_S;
	p->now_s = 1;
}

static void scene_buffers(struct bench_scene *s)
{
	static struct rte_mempool *pool;
	if (pool == NULL)
		pool = rte_pktmbuf_pool_create(
			"bench", 511, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	s->burst = bench_alloc(sizeof(*s->burst));
	if (pool == NULL || rte_pktmbuf_alloc_bulk(pool, s->burst->mbufs, BURST_MAX) != 0)
		scene_die("no packet buffers");
}

void bench_scene_start(struct bench_scene *s, const struct bench_scene_shape *shape)
{
	memset(s, 0, sizeof(*s));
	s->shape = *shape;
	s->rng.state = 11;
	s->counters = bench_alloc(sizeof(*s->counters));
	s->registry = snapshot_registry_create();
	if (scene_is_nat(shape))
		s->flow_idx = malloc((shape->n_flows + 1) * sizeof(*s->flow_idx));
	scene_buffers(s);
	scene_pipeline(s);
	scene_services(s);
	scene_routes(s);
	scene_snat(s);
	scene_flows(s);
	s->pipeline.snapshot = s->snapshot = bench_scene_build(s, NULL, 1);
	for (uint32_t first = 0; first < shape->n_flows; first += BURST_MAX) {
		uint32_t left = shape->n_flows - first;
		scene_open_burst(s, first, left < BURST_MAX ? left : BURST_MAX);
	}
}

void bench_scene_end(struct bench_scene *s)
{
	for (uint32_t i = 0; i < BURST_MAX; i++)
		rte_pktmbuf_free(s->burst->mbufs[i]);
	snapshot_destroy(s->snapshot);
	snapshot_registry_destroy(s->registry);
	service_store_destroy(s->store);
	nexthop_fib_destroy(s->fib);
	free(s->pipeline.nexthops.entries);
	free(s->snat_config);
	bench_release(s->pipeline.backend_counters);
	bench_release(s->snat_memory);
	bench_release(s->flow_memory);
	bench_release(s->oneway_memory);
	bench_release(s->counters);
	bench_release(s->burst);
	free(s->flow_idx);
}
