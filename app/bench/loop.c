// SPDX-License-Identifier: BSD-3-Clause
// The rig of the benches that run the product's worker threads: ports whose frames are written as they are received.
#include "loop_priv.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <rte_ethdev.h>

#define LOOP_PORT      80
#define LOOP_LIMIT_MS  20000
#define LOOP_RETRY_MS  500
#define LOOP_CLIENTS4  0x14000000u
#define LOOP_VIP4      0xcb00710au
#define LOOP_BACKENDS4 0x0a000002u
#define LOOP_SNAT4     0xc6336401u

static const struct mac gateway_mac = { { 0x02, 0, 0, 0, 0, 1 } };

static void loop_die(const char *what, struct error *err)
{
	char text[512];
	fprintf(stderr, "sluice-bench: %s: %s\n", what,
		err ? error_first(err, text, sizeof(text)) : "out of time or memory");
	exit(1);
}

void loop_sleep_ms(uint32_t ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l };
	nanosleep(&t, NULL);
}

static double clock_ns(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static uint64_t counted(const struct counters *c, enum counter_id id)
{
	return __atomic_load_n(&c->values[id], __ATOMIC_RELAXED);
}

// ---------------------------------------------------------------- frames

// A TCP segment without payload whose sequence number is the flow's.
static void write_frame(struct loop_frame *frame, const struct mac *to, const struct address *src,
	const struct address *dst, const struct tcp_header *tcp)
{
	struct eth_header eth = {
		.dst = *to, .src = gateway_mac, .type = RTE_BE16(NET_ETHERTYPE_V4)
	};
	struct v4_header ip = { .version_ihl = 0x45,
		.total_length = RTE_BE16(sizeof(ip) + sizeof(*tcp)),
		.fragment = RTE_BE16(0x4000),
		.ttl = 64,
		.protocol = NET_PROTO_TCP,
		.src = address_v4(src),
		.dst = address_v4(dst) };
	struct tcp_header t = *tcp;
	ip.checksum = (rte_be16_t)~checksum_fold(checksum_sum(&ip, sizeof(ip)));
	t.checksum = (rte_be16_t)~checksum_fold(
		checksum_pseudo(src, dst, NET_PROTO_TCP, sizeof(t)) + checksum_sum(&t, sizeof(t)));
	memset(frame, 0, sizeof(*frame));
	memcpy(frame->bytes, &eth, sizeof(eth));
	memcpy(frame->bytes + sizeof(eth), &ip, sizeof(ip));
	memcpy(frame->bytes + sizeof(eth) + sizeof(ip), &t, sizeof(t));
}

static void write_client_frames(struct loop_feeder *f, uint32_t first_client)
{
	struct mac mac = device_port(f->loop->device, 0)->mac;
	struct address vip = address_from_v4(RTE_BE32(LOOP_VIP4));
	for (uint32_t i = 0; i < LOOP_FLOWS; i++) {
		struct address client =
			address_from_v4(rte_cpu_to_be_32(LOOP_CLIENTS4 + first_client + i));
		struct tcp_header tcp = { .src_port = RTE_BE16(4000),
			.dst_port = RTE_BE16(LOOP_PORT),
			.sequence = rte_cpu_to_be_32(i),
			.offset = 0x50,
			.window = RTE_BE16(1024) };
		tcp.flags = TCP_SYN;
		write_frame(&f->syn[i], &mac, &client, &vip, &tcp);
		tcp.flags = TCP_ACK;
		write_frame(&f->of_client[i], &mac, &client, &vip, &tcp);
	}
}

// What the backend answers to a frame that has just left.
static void learn_reply(struct loop_feeder *f, const struct rte_mbuf *mbuf)
{
	struct mac mac = device_port(f->loop->device, 0)->mac;
	const char *at = rte_pktmbuf_mtod(mbuf, const char *) + sizeof(struct eth_header);
	struct v4_header ip;
	struct tcp_header tcp;
	memcpy(&ip, at, sizeof(ip));
	memcpy(&tcp, at + sizeof(ip), sizeof(tcp));
	uint32_t id = rte_be_to_cpu_32(tcp.sequence);
	if (id >= LOOP_FLOWS || tcp.dst_port != RTE_BE16(8080))
		return;
	f->n_opened += f->of_backend[id].bytes[12] == 0;
	struct address backend = address_from_v4(ip.dst), own = address_from_v4(ip.src);
	struct tcp_header reply = { .src_port = tcp.dst_port,
		.dst_port = tcp.src_port,
		.sequence = tcp.sequence,
		.offset = 0x50,
		.window = tcp.window };
	reply.flags = TCP_SYN | TCP_ACK;
	write_frame(&f->syn_ack[id], &mac, &backend, &own, &reply);
	reply.flags = TCP_ACK;
	write_frame(&f->of_backend[id], &mac, &backend, &own, &reply);
}

// ---------------------------------------------------------------- callbacks [worker]

static inline void put_frame(struct rte_mbuf *mbuf, const struct loop_frame *frame)
{
	memcpy(rte_pktmbuf_mtod(mbuf, void *), frame, sizeof(*frame));
	mbuf->data_len = LOOP_FRAME;
	mbuf->pkt_len = LOOP_FRAME;
}

static inline uint32_t draw(struct loop_feeder *f)
{
	f->random = f->random * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(f->random >> 40);
}

static void feed_random(struct loop_feeder *f, uint32_t feed, struct rte_mbuf **mbufs, uint16_t n)
{
	const struct loop_frame *replies = feed == LOOP_CROSSWISE ? f->of_others : f->of_backend;
	for (uint16_t i = 0; i < n; i++) {
		uint32_t r = draw(f), id = r & (LOOP_FLOWS - 1);
		put_frame(mbufs[i], r & LOOP_FLOWS ? &replies[id] : &f->of_client[id]);
	}
}

// A null port gives buffers; into an empty burst of another one come buffers of our own.
static uint16_t feed_open(struct loop_feeder *f, struct rte_mbuf **mbufs, uint16_t n, uint16_t max)
{
	uint64_t left = LOOP_FLOWS - f->n_fed;
	if (n == 0 && left > 0) {
		n = left < max ? (uint16_t)left : max;
		if (rte_pktmbuf_alloc_bulk(f->pool, mbufs, n) != 0)
			return 0;
	}
	uint16_t n_put = left < n ? (uint16_t)left : n;
	for (uint16_t i = 0; i < n_put; i++)
		put_frame(mbufs[i], &f->open_frames[f->n_fed + i]);
	if (n_put < n)
		rte_pktmbuf_free_bulk(mbufs + n_put, n - n_put);
	return n_put;
}

static uint16_t on_receive(
	uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n, uint16_t max, void *arg)
{
	struct loop_feeder *f = arg;
	// acquire: what is to be fed was written before
	uint32_t feed = __atomic_load_n(&f->feed, __ATOMIC_ACQUIRE);
	if (unlikely(!f->has_clock)) {
		pthread_getcpuclockid(pthread_self(), &f->clock);
		__atomic_store_n(&f->has_clock, 1, __ATOMIC_RELEASE); // the clock is written
	}
	if (f->on_poll != NULL)
		f->on_poll(f);
	uint16_t n_put = n;
	if (likely(feed >= LOOP_OWN && feed < LOOP_OTHERS)) {
		feed_random(f, feed, mbufs, n);
	} else if (feed == LOOP_OPEN) {
		n_put = feed_open(f, mbufs, n, max);
	} else if (feed == LOOP_SILENT && n > 0) {
		rte_pktmbuf_free_bulk(mbufs, n);
		n_put = 0;
	}
	__atomic_store_n(&f->n_fed, f->n_fed + n_put, __ATOMIC_RELAXED);
	return n_put;
}

// Of a port whose transmit side is its own receive side: what was sent ends here.
static uint16_t on_receive_back(
	uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n, uint16_t max, void *arg)
{
	if (n > 0)
		rte_pktmbuf_free_bulk(mbufs, n);
	return 0;
}

static uint16_t on_transmit(
	uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n, void *arg)
{
	struct loop_feeder *f = arg;
	if (f->on_sent != NULL)
		f->on_sent(f, mbufs, n);
	if (likely(__atomic_load_n(&f->feed, __ATOMIC_RELAXED) != LOOP_OPEN))
		return n;
	for (uint16_t i = 0; i < n; i++)
		learn_reply(f, mbufs[i]);
	return n;
}

// ---------------------------------------------------------------- device and tables

uint32_t loop_cpus(int cpus[CPU_SETSIZE])
{
	cpu_set_t set;
	uint32_t n = 0;
	if (sched_getaffinity(0, sizeof(set), &set) != 0)
		return 0;
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &set))
			cpus[n++] = i;
	return n;
}

// Workers on the last ones, "a,b"; control on the first.
static void choose_cores(struct device_config *config, uint32_t n_workers)
{
	int cpus[CPU_SETSIZE];
	uint32_t n_cpus = loop_cpus(cpus);
	size_t used = 0;
	for (uint32_t w = 0; w < n_workers; w++) {
		uint32_t at = n_cpus >= n_workers ? n_cpus - n_workers + w : 0;
		used += (size_t)snprintf(config->cores + used, sizeof(config->cores) - used, "%s%d",
			w ? "," : "", cpus[at]);
	}
	snprintf(config->control_core, sizeof(config->control_core), "%d", cpus[0]);
}

static void start_device(struct loop *l, const char *const *devices, uint32_t n_devices)
{
	struct device_config *config = calloc(1, sizeof(*config));
	struct error err = { 0 };
	choose_cores(config, l->n_workers);
	config->n_ports = n_devices;
	config->flow_bytes_per_worker = 64u << 20;
	for (uint32_t i = 0; i < n_devices; i++) {
		struct device_port_config *p = &config->ports[i];
		snprintf(p->name, sizeof(p->name), "p%u", i);
		snprintf(p->device, sizeof(p->device), "%s", devices[i]);
		p->queues = (uint16_t)l->n_workers;
	}
	if (device_start(config, &l->log, &l->device, &err) != 0)
		loop_die("the ports", &err);
	free(config);
}

void loop_put_service(struct loop *l, uint32_t n_backends)
{
	struct service_defaults defaults = service_defaults_builtin();
	struct service *service = service_create(&defaults);
	struct error err = { 0 };
	snprintf(service->namespace, sizeof(service->namespace), "default");
	snprintf(service->name, sizeof(service->name), "web");
	service->owner = SERVICE_OWNER_FILE;
	*service_add_address(service) = address_from_v4(RTE_BE32(LOOP_VIP4));
	struct service_listener *listener = service_add_listener(service);
	listener->protocol = NET_PROTO_TCP;
	listener->port = listener->port_max = LOOP_PORT;
	for (uint32_t i = 0; i < n_backends; i++) {
		struct service_backend *b = service_add_backend(service);
		b->address = address_from_v4(rte_cpu_to_be_32(LOOP_BACKENDS4 + i));
		b->weight = SERVICE_WEIGHT_DEFAULT;
		b->conditions.ready = b->conditions.serving = true;
		service_backend_add_port(b)->port = 8080;
	}
	if (service_store_put(l->store, service, NULL, &err) != 0)
		loop_die("the service", &err);
	service_destroy(service);
}

static void make_snat(struct loop *l)
{
	l->snat = (struct snat_config){ .n_addresses = 1,
		.addresses = { address_from_v4(RTE_BE32(LOOP_SNAT4)) },
		.port_min = 1024,
		.port_max = 65535,
		.n_workers = (uint16_t)l->n_workers };
	if (snapshot_registry_slot(l->registry, &l->snat.addresses[0], &l->snat.slots[0]) != 0)
		loop_die("the source address", NULL);
}

static uint16_t way_in(const struct loop *l)
{
	return device_port(l->device, 0)->port_id;
}

static uint16_t way_out(const struct loop *l)
{
	return device_port(l->device, device_n_ports(l->device) - 1)->port_id;
}

static void make_feeder(struct loop *l, uint16_t w)
{
	struct loop_feeder *f = &l->feeders[w];
	f->loop = l;
	f->random = w + 1u;
	f->pool = device_pool(l->device, w);
	f->syn = calloc(LOOP_FLOWS, sizeof(*f->syn));
	f->syn_ack = calloc(LOOP_FLOWS, sizeof(*f->syn_ack));
	f->of_client = calloc(LOOP_FLOWS, sizeof(*f->of_client));
	f->of_backend = calloc(LOOP_FLOWS, sizeof(*f->of_backend));
	write_client_frames(f, w * LOOP_FLOWS);
	bool ok = rte_eth_add_rx_callback(way_in(l), w, on_receive, f) != NULL &&
		  rte_eth_add_tx_callback(way_out(l), w, on_transmit, f) != NULL;
	if (ok && way_out(l) != way_in(l))
		ok = rte_eth_add_rx_callback(way_out(l), w, on_receive_back, f) != NULL;
	if (!ok)
		loop_die("callbacks of the ports", NULL);
}

void loop_init(struct loop *l, uint32_t n_workers, const char *const *devices, uint32_t n_devices)
{
	memset(l, 0, sizeof(*l));
	l->n_workers = n_workers;
	l->log = (struct log){ .fd = 2, .level = LOG_LEVEL_ERROR };
	start_device(l, devices, n_devices);
	bench_calibrate();
	l->registry = snapshot_registry_create();
	uint8_t out = (uint8_t)(n_devices - 1);
	l->hop.word = nexthop_word(&gateway_mac, out, NEXTHOP_VALID);
	struct nexthop_route none = { .prefix = { address_from_v4(0), 0 }, .port_idx = out };
	l->fib = nexthop_fib_create(&none, 1, 1);
	l->store = service_store_create();
	loop_put_service(l, LOOP_BACKENDS);
	make_snat(l);
	for (uint16_t w = 0; w < l->n_workers; w++)
		make_feeder(l, w);
	for (uint16_t w = 0; w < l->n_workers; w++)
		l->feeders[w].of_others = l->feeders[(w + 1) % l->n_workers].of_backend;
}

// The callbacks go with the ports, the process with everything else.
void loop_fini(struct loop *l)
{
	snapshot_destroy(l->snapshot);
	snapshot_registry_destroy(l->registry);
	service_store_destroy(l->store);
	nexthop_fib_destroy(l->fib);
	device_stop(l->device);
	for (uint32_t w = 0; w < l->n_workers; w++) {
		free(l->feeders[w].syn);
		free(l->feeders[w].syn_ack);
		free(l->feeders[w].of_client);
		free(l->feeders[w].of_backend);
	}
}

// ---------------------------------------------------------------- data plane

void loop_publish(struct loop *l)
{
	struct snapshot_input input = { .store = l->store,
		.registry = l->registry,
		.snat = l->snat.addresses,
		.n_snat = l->snat.n_addresses,
		.fib = l->fib,
		.previous = l->snapshot,
		.generation = ++l->generation };
	struct error err = { 0 };
	struct snapshot *next, *former = l->snapshot;
	if (snapshot_build(&input, &next, &err) != 0)
		loop_die("the snapshot", &err);
	dataplane_publish(l->dataplane, next);
	l->snapshot = next;
	if (former == NULL)
		return;
	uint64_t token = dataplane_grace_start(l->dataplane);
	for (uint32_t n = 0; !dataplane_grace_done(l->dataplane, token); n++) {
		if (n == LOOP_LIMIT_MS * 100)
			loop_die("a worker does not come round", NULL);
		sched_yield();
	}
	snapshot_destroy(former);
}

void loop_feed(struct loop *l, uint32_t worker, enum loop_feed feed)
{
	// release: what is to be fed is written
	__atomic_store_n(&l->feeders[worker].feed, feed, __ATOMIC_RELEASE);
}

// Feeds one frame of each flow to one worker; again when not all of them left: a far end that has just come up may not
// take them yet.
static void open_step(struct loop *l, uint32_t w, const struct loop_frame *frames)
{
	struct loop_feeder *f = &l->feeders[w];
	const struct counters *c = dataplane_counters(l->dataplane, w);
	uint64_t before = 0;
	f->open_frames = frames;
	for (uint32_t ms = 0; ms < LOOP_LIMIT_MS; ms++) {
		if (ms % LOOP_RETRY_MS == 0) {
			loop_feed(l, w, LOOP_SILENT);
			loop_sleep_ms(2);
			before = counted(c, COUNTER_SENT);
			__atomic_store_n(&f->n_fed, 0, __ATOMIC_RELAXED);
			loop_feed(l, w, LOOP_OPEN);
		}
		loop_sleep_ms(1);
		if (counted(c, COUNTER_SENT) - before >= LOOP_FLOWS) {
			loop_feed(l, w, LOOP_SILENT);
			loop_sleep_ms(2);
			return;
		}
	}
	loop_die("flows do not open", NULL);
}

// A far end may have to come up first.
static void wait_links(struct loop *l)
{
	for (uint32_t ms = 0; ms < LOOP_LIMIT_MS; ms += 10) {
		bool all = true;
		device_poll_links(l->device);
		for (uint32_t i = 0; i < device_n_ports(l->device); i++)
			all &= device_port(l->device, i)->link_up;
		if (all)
			return;
		loop_sleep_ms(10);
	}
	loop_die("a port has no link", NULL);
}

void loop_start(struct loop *l, enum device_idle idle, bool with_flows)
{
	struct dataplane_config *config = calloc(1, sizeof(*config));
	struct error err = { 0 };
	config->flow_capacity = 4 * LOOP_FLOWS;
	config->flow_key = (struct hash_key){ { 0x243f6a8885a308d3ull, 0x13198a2e03707344ull } };
	config->snat = l->snat;
	config->nexthops = (struct nexthop_table){ &l->hop, 1 };
	config->idle = idle;
	config->punt_per_s = 1000;
	config->n_backend_counters = 4 * LOOP_BACKENDS;
	for (uint32_t w = 0; w < l->n_workers; w++) {
		l->feeders[w].has_clock = 0;
		l->feeders[w].n_opened = 0;
		memset(l->feeders[w].of_backend, 0, LOOP_FLOWS * sizeof(struct loop_frame));
		loop_feed(l, w, LOOP_SILENT);
	}
	if (dataplane_create(l->device, config, &l->log, &l->dataplane, &err) != 0 ||
		dataplane_start(l->dataplane, &err) != 0)
		loop_die("the data plane", &err);
	free(config);
	snapshot_destroy(l->snapshot);
	l->snapshot = NULL;
	loop_publish(l);
	if (with_flows)
		wait_links(l);
	for (uint32_t w = 0; w < l->n_workers && with_flows; w++) {
		open_step(l, w, l->feeders[w].syn);
		if (l->feeders[w].n_opened != LOOP_FLOWS)
			loop_die("flows are not what was opened", NULL);
		open_step(l, w, l->feeders[w].syn_ack);
		open_step(l, w, l->feeders[w].of_client);
	}
}

void loop_stop(struct loop *l)
{
	dataplane_stop(l->dataplane);
	dataplane_destroy(l->dataplane);
	l->dataplane = NULL;
}

// ---------------------------------------------------------------- measuring

void loop_look(const struct loop *l, struct loop_span *out, double sign)
{
	if (sign < 0)
		memset(out, 0, sizeof(*out));
	out->wall_ns += sign * clock_ns(CLOCK_MONOTONIC);
	for (uint32_t w = 0; w < l->n_workers; w++) {
		const struct counters *c = dataplane_counters(l->dataplane, w);
		out->received[w] += sign * (double)counted(c, COUNTER_RECEIVED);
		out->sent[w] += sign * (double)counted(c, COUNTER_SENT);
		out->busy_ns[w] +=
			sign * (double)counted(c, COUNTER_BUSY_CYCLES) * bench_ns_per_tick;
		out->polls[w] += sign * (double)counted(c, COUNTER_POLLS);
		// acquire: then the clock is there
		if (__atomic_load_n(&l->feeders[w].has_clock, __ATOMIC_ACQUIRE))
			out->cpu_ns[w] += sign * clock_ns(l->feeders[w].clock);
		out->dropped += sign * (double)counters_dropped(c);
	}
}

void loop_put_frame(struct loop *l, struct rte_mbuf *mbuf, uint32_t flow)
{
	put_frame(mbuf, &l->feeders[0].of_client[flow % LOOP_FLOWS]);
}

double loop_feeder_ns(struct loop *l)
{
	struct loop_feeder *f = &l->feeders[0];
	struct rte_mbuf *mbufs[BENCH_BURST];
	if (rte_pktmbuf_alloc_bulk(f->pool, mbufs, BENCH_BURST) != 0)
		loop_die("no packet buffers", NULL);
	struct bench_timer t = { 0 };
	for (uint32_t k = 0; k < 4096; k++) {
		bench_start(&t);
		feed_random(f, LOOP_OWN, mbufs, BENCH_BURST);
		bench_stop(&t, BENCH_BURST);
	}
	rte_pktmbuf_free_bulk(mbufs, BENCH_BURST);
	return bench_ns_per_op(&t);
}

void loop_measure(struct loop *l, uint32_t ms, struct loop_span *out)
{
	loop_look(l, out, -1);
	loop_sleep_ms(ms);
	loop_look(l, out, 1);
}

double loop_rate(const struct loop *l, const struct loop_span *span)
{
	double rate = 0;
	for (uint32_t w = 0; w < l->n_workers; w++)
		if (span->cpu_ns[w] > 0)
			rate += span->sent[w] / span->cpu_ns[w] * 1e9;
	return rate;
}
