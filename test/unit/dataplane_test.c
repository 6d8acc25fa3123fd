// SPDX-License-Identifier: BSD-3-Clause
// Workers, rings and seams with real threads over ring ports whose transmit side is their own receive side: a frame injected
// comes back in, and a fake pipeline does with it what the frame says (dataplane_fake.c). No root, no huge pages.
// Waits are for events, with a limit; nothing is asserted about how long anything takes.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <rte_malloc.h>

#include "dataplane.h"
#include "dataplane_fake.h"

#define LIMIT_MS 10000
#define N_HOPS   4

static struct device *device;
static char capture[64];
static struct nexthop_entry hops[N_HOPS];
static struct nexthop_fib *fib;
static struct snapshot snapshot;
static struct dataplane *current; // of the test that runs

// ---------------------------------------------------------------- rig

// p0 and p1 loop; p2 has one transmit queue for two workers and writes to a file.
static int group_setup(void **state)
{
	static struct device_config config = { .n_ports = 3, .control_core = "auto" };
	cpu_set_t allowed;
	sched_getaffinity(0, sizeof(allowed), &allowed);
	int cpu = 0;
	while (!CPU_ISSET(cpu, &allowed))
		cpu++;
	snprintf(config.cores, sizeof(config.cores), "%d,%d", cpu, cpu);
	snprintf(capture, sizeof(capture), "/tmp/sluice-dataplane-test-%d.pcap", (int)getpid());
	for (uint32_t i = 0; i < config.n_ports; i++)
		snprintf(config.ports[i].name, sizeof(config.ports[i].name), "p%u", i);
	snprintf(config.ports[0].device, sizeof(config.ports[0].device), "net_ring0");
	snprintf(config.ports[1].device, sizeof(config.ports[1].device), "net_ring1");
	snprintf(config.ports[2].device, sizeof(config.ports[2].device), "net_pcap0,tx_pcap=%s",
		capture);
	config.flow_bytes_per_worker = 16u << 20;
	struct error err = { 0 };
	struct log log = { .fd = 2, .level = LOG_LEVEL_ERROR };
	char text[512];
	int rc = device_start(&config, &log, &device, &err);
	for (uint32_t i = 0; i < err.n_items; i++)
		print_message("%s\n", error_format(&err, i, text, sizeof(text)));
	error_fini(&err);
	fib = nexthop_fib_create(NULL, 0, 1);
	snapshot = (struct snapshot){ .generation = 7, .fib = fib };
	return rc;
}

static int group_teardown(void **state)
{
	nexthop_fib_destroy(fib);
	device_stop(device);
	unlink(capture);
	return 0;
}

static struct dataplane *make_dataplane(uint64_t punt_per_s)
{
	static struct dataplane_config config;
	struct dataplane *dp = NULL;
	struct error err = { 0 };
	char text[512];
	memset(hops, 0, sizeof(hops));
	for (uint32_t i = 0; i < N_HOPS; i++) {
		hops[i].address = address_from_v4(rte_cpu_to_be_32(FAKE_NEIGHBOUR + i));
		hops[i].word = nexthop_word(&(struct mac){ { 0 } }, 0, NEXTHOP_INCOMPLETE);
	}
	config = (struct dataplane_config){ .flow_capacity = 1000,
		.snat = { .n_addresses = 1,
			.addresses = { address_from_v4(RTE_BE32(0xc0000201)) },
			.port_min = 1024,
			.port_max = 65535,
			.n_workers = 2 },
		.nexthops = { .entries = hops, .n_entries = N_HOPS },
		.idle = DEVICE_IDLE_ADAPTIVE,
		.punt_per_s = punt_per_s,
		.n_backend_counters = 64 };
	struct log log = { .fd = 2, .level = LOG_LEVEL_ERROR };
	int rc = dataplane_create(device, &config, &log, &dp, &err);
	if (rc)
		print_message("%s\n", error_first(&err, text, sizeof(text)));
	assert_int_equal(rc, 0);
	current = dp;
	return dp;
}

static struct dataplane *start_dataplane(uint64_t punt_per_s)
{
	struct dataplane *dp = make_dataplane(punt_per_s);
	assert_int_equal(dataplane_start(dp, NULL), 0);
	dataplane_publish(dp, &snapshot);
	return dp;
}

static void rest(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

#define WAIT_FOR(what)                                                 \
	do {                                                           \
		uint32_t waited_ms = 0;                                \
		for (; !(what) && waited_ms < LIMIT_MS; waited_ms++)   \
			rest();                                        \
		if (waited_ms == LIMIT_MS)                             \
			fail_msg("waited %d ms for " #what, LIMIT_MS); \
	} while (0)

static uint64_t counted(const struct dataplane *dp, uint32_t worker, enum counter_id id)
{
	return __atomic_load_n(&dataplane_counters(dp, worker)->values[id], __ATOMIC_RELAXED);
}

static uint64_t dropped(const struct dataplane *dp, uint32_t worker, enum drop_reason reason)
{
	return __atomic_load_n(&dataplane_counters(dp, worker)->drops[reason], __ATOMIC_RELAXED);
}

static int inject(struct dataplane *dp, uint32_t port, const char *script, uint8_t mark)
{
	uint8_t frame[64] = { 0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x88, 0xb5 };
	for (size_t i = 0; script[i]; i++) // arguments are digits, '*' is 255
		frame[FAKE_SCRIPT + 1 + i] =
			i % 2 == 0 ? (uint8_t)script[i]
				   : (uint8_t)(script[i] == '*' ? 255 : script[i] - '0');
	frame[63] = mark;
	int rc = -EAGAIN;
	for (uint32_t tries = 0; rc == -EAGAIN && tries < LIMIT_MS; tries++) {
		rc = dataplane_inject(dp, port, frame, sizeof(frame));
		if (rc == -EAGAIN)
			rest();
	}
	return rc;
}

// The next punted frame; fails when none comes.
static struct dataplane_punted take_one(struct dataplane *dp)
{
	struct dataplane_punted punted = { 0 };
	WAIT_FOR(dataplane_take_punted(dp, &punted, 1) == 1);
	return punted;
}

static uint8_t mark_of(struct dataplane *dp, const struct dataplane_punted *punted)
{
	uint32_t len;
	const uint8_t *frame = dataplane_frame(punted->mbuf, &len);
	assert_int_equal(len, 64);
	return frame[63];
}

static void assert_balanced(const struct dataplane *dp)
{
	for (uint32_t w = 0; w < dataplane_n_workers(dp); w++)
		assert_int_equal(counters_imbalance(dataplane_counters(dp, w)), 0);
}

static void end_dataplane(struct dataplane *dp)
{
	dataplane_stop(dp);
	assert_balanced(dp);
	current = NULL;
	dataplane_destroy(dp);
}

static int test_teardown(void **state) // after a test that failed half way
{
	dataplane_destroy(current);
	current = NULL;
	return 0;
}

// ---------------------------------------------------------------- tests

static void test_nothing_is_received_before_a_snapshot(void **state)
{
	struct dataplane *dp = make_dataplane(0);
	assert_int_equal(dataplane_start(dp, NULL), 0);
	assert_int_equal(inject(dp, 0, "P0", 1), 0);
	WAIT_FOR(counted(dp, 0, COUNTER_SENT) == 1);
	uint64_t turns = counted(dp, 0, COUNTER_POLLS);
	WAIT_FOR(counted(dp, 0, COUNTER_POLLS) > turns + 10);
	assert_int_equal(counted(dp, 0, COUNTER_RECEIVED), 0);
	assert_int_equal(dataplane_adopted_generation(dp), 0);
	dataplane_publish(dp, &snapshot);
	WAIT_FOR(dataplane_adopted_generation(dp) == 7);
	struct dataplane_punted punted = take_one(dp);
	assert_int_equal(mark_of(dp, &punted), 1);
	assert_int_equal(punted.port_idx, 0);
	dataplane_free_punted(dp, punted.mbuf);
	end_dataplane(dp);
}

static void test_grace(void **state)
{
	struct dataplane *dp = start_dataplane(0);
	for (int i = 0; i < 20; i++) {
		uint64_t token = dataplane_grace_start(dp);
		WAIT_FOR(dataplane_grace_done(dp, token));
	}
	dataplane_stop(dp);
	assert_true(
		dataplane_grace_done(dp, dataplane_grace_start(dp))); // nobody is left to wait for
	end_dataplane(dp);
}

// The event comes once for any number of things, and again after they were all taken.
static void test_event_and_classes(void **state)
{
	struct dataplane *dp = start_dataplane(0);
	struct pollfd event = { .fd = dataplane_event_fd(dp), .events = POLLIN };
	for (int round = 0; round < 3; round++) {
		assert_int_equal(inject(dp, 0, "P2", 2), 0);
		assert_int_equal(inject(dp, 1, "P1", 1), 0);
		assert_int_equal(inject(dp, 0, "P0", 0), 0);
		uint64_t n = 3u * (uint64_t)(round + 1);
		WAIT_FOR(counted(dp, 0, COUNTER_PUNTED) + counted(dp, 1, COUNTER_PUNTED) == n);
		assert_int_equal(poll(&event, 1, LIMIT_MS), 1);
		uint64_t rings;
		assert_int_equal(read(event.fd, &rings, sizeof(rings)), sizeof(rings));
		struct dataplane_punted punted[8];
		assert_int_equal(dataplane_take_punted(dp, punted, 8), 3);
		for (uint8_t i = 0; i < 3; i++) { // most important first
			assert_int_equal(punted[i].class, i);
			assert_int_equal(mark_of(dp, &punted[i]), i);
			assert_int_equal(punted[i].port_idx, i == 1);
			dataplane_free_punted(dp, punted[i].mbuf);
		}
	}
	// A reader with a limit is called again.
	assert_int_equal(inject(dp, 0, "P0", 0), 0);
	assert_int_equal(inject(dp, 0, "P0", 1), 0);
	WAIT_FOR(counted(dp, 0, COUNTER_PUNTED) + counted(dp, 1, COUNTER_PUNTED) == 11);
	uint64_t rings;
	assert_int_equal(poll(&event, 1, LIMIT_MS), 1);
	assert_int_equal(read(event.fd, &rings, sizeof(rings)), sizeof(rings));
	struct dataplane_punted one = take_one(dp);
	dataplane_free_punted(dp, one.mbuf);
	assert_int_equal(poll(&event, 1, LIMIT_MS), 1);
	one = take_one(dp);
	dataplane_free_punted(dp, one.mbuf);
	end_dataplane(dp);
}

// 64 tokens and no refill to speak of: a half for all, a quarter more for neighbours, the last one for routing.
static void test_punt_floors(void **state)
{
	struct dataplane *dp = start_dataplane(2); // one a second for each worker
	static const struct {
		const char *script;
		uint32_t n_least;
	} rows[] = { { "P2", 32 }, { "P1", 16 }, { "P0", 16 } };
	uint32_t n_admitted = 0, n_sent = 0;
	for (size_t row = 0; row < ARRAY_SIZE(rows); row++) {
		for (uint32_t i = 0; i < 100; i++, n_sent++)
			assert_int_equal(inject(dp, 0, rows[row].script, 0), 0);
		WAIT_FOR(counted(dp, 0, COUNTER_RECEIVED) == n_sent);
		WAIT_FOR(counters_imbalance(dataplane_counters(dp, 0)) == 0);
		uint32_t n = (uint32_t)counted(dp, 0, COUNTER_PUNTED) - n_admitted;
		n_admitted += n;
		assert_in_range(n, rows[row].n_least, rows[row].n_least + 10);
		assert_int_equal(dropped(dp, 0, DROP_PUNT_RATE), n_sent - n_admitted);
	}
	dataplane_stop(dp);
	// Nobody took them: control takes `punted` back and names what became of them.
	const struct counters *control = dataplane_control_counters(dp);
	assert_int_equal(control->drops[DROP_SHUTDOWN], n_admitted);
	assert_int_equal((int64_t)control->values[COUNTER_PUNTED], -(int64_t)n_admitted);
	end_dataplane(dp);
}

static void test_resteer_and_hand_over(void **state)
{
	struct dataplane *dp = start_dataplane(0);
	for (uint8_t i = 0; i < 100;
		i++) // out of p1 and in again, so that its port is not the one of injection
		assert_int_equal(inject(dp, 0, "F1R1P0", i), 0);
	for (uint8_t i = 0; i < 100; i++) {
		struct dataplane_punted punted = take_one(dp);
		assert_int_equal(punted.worker_idx, 1);
		assert_int_equal(punted.port_idx, 1); // the port it came in by
		assert_int_equal(mark_of(dp, &punted), i);
		dataplane_free_punted(dp, punted.mbuf);
	}
	assert_int_equal(counted(dp, 0, COUNTER_RESTEERED_OUT), 100);
	assert_int_equal(counted(dp, 1, COUNTER_RESTEERED_IN), 100);
	// Worker 1 has no transmit queue at p2: through worker 0.
	assert_int_equal(device_port(device, 2)->n_tx_queues, 1);
	for (uint8_t i = 0; i < 50; i++)
		assert_int_equal(inject(dp, 0, "R1F2", i), 0);
	struct dataplane_port_counters port;
	WAIT_FOR((dataplane_port_counters(dp, 2, &port), port.tx_packets == 50));
	assert_int_equal(port.tx_bytes, 50 * 64);
	assert_int_equal(counted(dp, 1, COUNTER_RESTEERED_OUT), 50);
	assert_int_equal(counted(dp, 0, COUNTER_RESTEERED_IN), 50);
	// A worker that is not there is a named drop, never a crash.
	assert_int_equal(inject(dp, 0, "R9", 0), 0);
	assert_int_equal(inject(dp, 0, "F9", 0), 0);
	WAIT_FOR(dropped(dp, 0, DROP_RESTEER_RING_FULL) == 1);
	WAIT_FOR(dropped(dp, 0, DROP_NO_ROUTE) == 1);
	end_dataplane(dp);
}

// Forwarded, moved and dropped in one stream: each kind comes in the order in which it was sent.
static void test_mixed_bursts_keep_order(void **state)
{
	static const char *const scripts[] = { "P0", "R1P0", "F1P0", "D0", "F1R1P0" };
	enum { KINDS = ARRAY_SIZE(scripts), EACH = 30 };
	struct dataplane *dp = start_dataplane(0);
	uint32_t seen[2][2] = { 0 }; // by worker and port
	uint8_t next[2][2] = { 0 };
	for (uint32_t i = 0; i < KINDS * EACH; i++)
		assert_int_equal(inject(dp, 0, scripts[i % KINDS], (uint8_t)(i / KINDS)), 0);
	for (uint32_t i = 0; i < (KINDS - 1) * EACH; i++) {
		struct dataplane_punted punted = take_one(dp);
		uint32_t worker = punted.worker_idx, port = punted.port_idx;
		assert_in_range(worker, 0, 1);
		assert_in_range(port, 0, 1);
		assert_int_equal(mark_of(dp, &punted), next[worker][port]++);
		seen[worker][port]++;
		dataplane_free_punted(dp, punted.mbuf);
	}
	for (uint32_t k = 0; k < 4; k++)
		assert_int_equal(seen[k / 2][k % 2], EACH);
	end_dataplane(dp);
}

// Packets that are between workers, in a ring or taken out of one for the next burst, have a name and a pool afterwards.
static void test_stop_while_packets_move(void **state)
{
	static const char script[] = "F0R1R0F0R1R0F0R1R0F0R1R0F0R1R0F0R1R0F0R1R0D0";
	struct rte_mempool *pool = device_control_pool(device);
	uint32_t n_before = rte_mempool_avail_count(pool);
	for (int round = 0; round < 30; round++) {
		struct dataplane *dp = start_dataplane(0);
		for (uint8_t i = 0; i < 200; i++)
			assert_int_equal(inject(dp, 0, script, i), 0);
		end_dataplane(dp);
	}
	struct dataplane *dp = start_dataplane(0); // runs what the port still has
	WAIT_FOR(rte_mempool_avail_count(pool) == n_before);
	end_dataplane(dp);
}

// How many workers had a packet travels with it, and ends where it leaves.
static void test_hops(void **state)
{
	static const struct {
		const char *script;
		uint8_t hops, port_idx;
	} rows[] = { { "H0", 0, 0 }, { "F1R1H0", 1, 1 }, { "F1R1R0H0", 2, 1 },
		{ "R1R0R1R0R1R0H0", 6, 0 }, { "R1R0F1H0", 0, 1 } };
	struct dataplane *dp = start_dataplane(0);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_int_equal(inject(dp, 0, rows[i].script, 0), 0);
		struct dataplane_punted punted = take_one(dp);
		uint32_t len;
		const uint8_t *frame = dataplane_frame(punted.mbuf, &len);
		assert_int_equal(frame[FAKE_HOPS], rows[i].hops);
		assert_int_equal(punted.port_idx, rows[i].port_idx);
		dataplane_free_punted(dp, punted.mbuf);
	}
	end_dataplane(dp);
}

static void resolve(uint32_t entry)
{
	const struct mac mac = { { 0x02, 0xaa, 0xbb, 0xcc, 0xdd, (uint8_t)entry } };
	__atomic_store_n(&hops[entry].word, nexthop_word(&mac, 0, NEXTHOP_VALID), __ATOMIC_RELAXED);
}

static void unresolve(uint32_t entry)
{
	const struct mac mac = { { 0 } };
	__atomic_store_n(
		&hops[entry].word, nexthop_word(&mac, 0, NEXTHOP_INCOMPLETE), __ATOMIC_RELAXED);
}

static void test_wait_for_neighbour(void **state)
{
	struct dataplane *dp = start_dataplane(0);
	struct dataplane_wanted wanted;
	for (uint8_t i = 0; i < 3; i++)
		assert_int_equal(inject(dp, 0, "W1P0", i), 0);
	WAIT_FOR(dataplane_take_wanted(dp, &wanted, 1) == 1);
	assert_true(address_equal(&wanted.address, &hops[1].address));
	assert_int_equal(wanted.port_idx, 0);
	WAIT_FOR(counted(dp, 0, COUNTER_NEXTHOP_QUEUED) == 3);
	resolve(1);
	for (uint8_t i = 0; i < 3; i++) { // in order, with the MACs that were not known
		struct dataplane_punted punted = take_one(dp);
		uint32_t len;
		const uint8_t *frame = dataplane_frame(punted.mbuf, &len);
		assert_int_equal(frame[63], i);
		assert_memory_equal(frame, "\x02\xaa\xbb\xcc\xdd\x01", 6);
		assert_memory_equal(frame + 6, device_port(device, 0)->mac.bytes, 6);
		dataplane_free_punted(dp, punted.mbuf);
	}
	end_dataplane(dp);
}

// Frames with the marks 0..n-1 come back in this order, all with the MAC of the fake's neighbour.
static void take_in_order(struct dataplane *dp, uint8_t n)
{
	for (uint8_t i = 0; i < n; i++) {
		struct dataplane_punted punted = take_one(dp);
		uint32_t len;
		const uint8_t *frame = dataplane_frame(punted.mbuf, &len);
		assert_int_equal(frame[63], i);
		assert_memory_equal(frame, "\x02\xaa\xbb\xcc\xdd\xee", 6);
		dataplane_free_punted(dp, punted.mbuf);
	}
}

// An entry becomes valid after the held packets were looked at and before the next packet is decided: it does not overtake.
static void test_wait_keeps_order(void **state)
{
	struct dataplane *dp = start_dataplane(0);
	for (uint8_t round = 0; round < 3; round++) {
		uint64_t n_queued = counted(dp, 0, COUNTER_NEXTHOP_QUEUED);
		unresolve(1);
		for (uint8_t i = 0; i < 5; i++)
			assert_int_equal(inject(dp, 0, "W1P0", i), 0);
		assert_int_equal(inject(dp, 0, "W3P0", 99), 0); // somebody else's waits on
		WAIT_FOR(counted(dp, 0, COUNTER_NEXTHOP_QUEUED) == n_queued + 6);
		assert_int_equal(inject(dp, 0, "V1P0", 5), 0);
		take_in_order(dp, 6);
	}
	// Of another next hop: it is not kept back.
	uint64_t n_queued = counted(dp, 0, COUNTER_NEXTHOP_QUEUED);
	unresolve(1);
	assert_int_equal(inject(dp, 0, "W1P0", 1), 0);
	WAIT_FOR(counted(dp, 0, COUNTER_NEXTHOP_QUEUED) == n_queued + 1);
	assert_int_equal(inject(dp, 0, "V2P0", 0), 0);
	take_in_order(dp, 1);
	dataplane_stop(dp);
	end_dataplane(dp);
}

// Decided by an entry that was valid a moment ago: behind those that are held, with the MAC that comes.
static void test_wait_behind_held(void **state)
{
	struct dataplane *dp = start_dataplane(0);
	for (uint8_t i = 0; i < 2; i++)
		assert_int_equal(inject(dp, 0, "W2P0", i), 0);
	WAIT_FOR(counted(dp, 0, COUNTER_NEXTHOP_QUEUED) == 2);
	for (uint8_t i = 2; i < 4; i++)
		assert_int_equal(inject(dp, 0, "B2P0", i), 0);
	WAIT_FOR(counted(dp, 0, COUNTER_NEXTHOP_QUEUED) == 4);
	assert_int_equal(inject(dp, 0, "V2P0", 4), 0);
	take_in_order(dp, 5);
	end_dataplane(dp);
}

// Packets that move on do not wait for a next hop that others wait for, and are not lost for it.
static void test_moves_while_others_wait(void **state)
{
	struct dataplane *dp = start_dataplane(0);
	assert_int_equal(inject(dp, 0, "W1P0", 99), 0);
	WAIT_FOR(counted(dp, 0, COUNTER_NEXTHOP_QUEUED) == 1);
	for (uint8_t i = 0; i < 20; i++) {
		assert_int_equal(inject(dp, 0, "R1P0", i), 0);
		assert_int_equal(inject(dp, 0, "D0", i), 0);
	}
	for (uint8_t i = 0; i < 20; i++) {
		struct dataplane_punted punted = take_one(dp);
		assert_int_equal(punted.worker_idx, 1);
		assert_int_equal(mark_of(dp, &punted), i);
		dataplane_free_punted(dp, punted.mbuf);
	}
	end_dataplane(dp);
}

// No entry yet: a later snapshot brings a route with one.
static void test_wait_for_snapshot(void **state)
{
	struct dataplane *dp = start_dataplane(0);
	struct address want = address_from_v4(rte_cpu_to_be_32(FAKE_NEIGHBOUR + 255));
	hops[2].address = want;
	assert_int_equal(inject(dp, 0, "W*P0", 5), 0);
	WAIT_FOR(counted(dp, 0, COUNTER_NEXTHOP_QUEUED) == 1);
	resolve(2);
	struct nexthop_route route = { .prefix = { .address = want, .len = 32 }, .nexthop = 2 };
	struct snapshot later = { .generation = 8, .fib = nexthop_fib_create(&route, 1, 2) };
	dataplane_publish(dp, &later);
	struct dataplane_punted punted = take_one(dp);
	assert_int_equal(mark_of(dp, &punted), 5);
	dataplane_free_punted(dp, punted.mbuf);
	assert_int_equal(dataplane_adopted_generation(dp), 8);
	dataplane_stop(dp);
	nexthop_fib_destroy((struct nexthop_fib *)(uintptr_t)later.fib);
	end_dataplane(dp);
}

static void test_wait_is_bounded(void **state)
{
	struct dataplane *dp = start_dataplane(0);
	for (uint8_t i = 0; i < 40; i++)
		assert_int_equal(inject(dp, 0, "W0P0", i), 0);
	assert_int_equal(inject(dp, 0, "W3P0", 0), 0);
	WAIT_FOR(counted(dp, 0, COUNTER_NEXTHOP_QUEUED) == 33);
	assert_int_equal(dropped(dp, 0, DROP_NEXTHOP_QUEUE_FULL), 8);
	WAIT_FOR(dropped(dp, 0, DROP_NEXTHOP_UNRESOLVED) == 33);
	// Asked again while they waited, not once per packet.
	struct dataplane_wanted wanted[64];
	assert_in_range(dataplane_take_wanted(dp, wanted, 64), 4, 24);
	// Those that still wait at the end have a name too.
	for (uint8_t i = 0; i < 10; i++)
		assert_int_equal(inject(dp, 0, "W0P0", i), 0);
	WAIT_FOR(counted(dp, 0, COUNTER_NEXTHOP_QUEUED) == 43);
	dataplane_stop(dp);
	assert_int_equal(
		dropped(dp, 0, DROP_SHUTDOWN) + dropped(dp, 0, DROP_NEXTHOP_UNRESOLVED), 43);
	end_dataplane(dp);
}

// ---------------------------------------------------------------- mail

static struct dataplane_reply *ask(
	struct dataplane *dp, uint32_t worker, const struct dataplane_request *request)
{
	struct dataplane_reply *reply = NULL;
	assert_int_equal(dataplane_ask(dp, worker, request), 0);
	WAIT_FOR((reply = dataplane_next_reply(dp)) != NULL);
	assert_int_equal(reply->worker_idx, worker);
	assert_int_equal(reply->cookie, request->cookie);
	return reply;
}

// All flows that match, page by page; out_pages says how many there were.
static uint32_t list_flows(
	struct dataplane *dp, const struct dataplane_flow_filter *filter, uint32_t *out_pages)
{
	struct dataplane_request request = {
		.kind = DATAPLANE_FLOWS, .cookie = 5, .filter = *filter
	};
	uint32_t n = 0;
	for (*out_pages = 0; request.cursor != FLOW_NONE; ++*out_pages) {
		struct dataplane_reply *reply = ask(dp, 0, &request);
		n += reply->n_flows;
		request.cursor = reply->next_cursor;
		dataplane_reply_free(dp, reply);
	}
	return n;
}

static void test_flows_and_purge(void **state)
{
	struct dataplane *dp = start_dataplane(0);
	struct dataplane_flow_filter all = { 0 };
	uint32_t n_pages;
	for (uint32_t i = 0; i < 150; i++)
		assert_int_equal(inject(dp, 0, i < 100 ? "A1" : i < 140 ? "A2" : "A9", 0), 0);
	WAIT_FOR(dropped(dp, 0, DROP_NO_BACKEND) == 150);
	assert_int_equal(list_flows(dp, &all, &n_pages), 150);
	assert_in_range(n_pages, 3, 4);
	struct dataplane_flow_filter two = {
		.by_backend_id = true, .backend_ids = { 9, 2 }, .n_backend_ids = 2
	};
	assert_int_equal(list_flows(dp, &two, &n_pages), 50);
	two.by_client = true;
	two.client = address_from_v4(rte_cpu_to_be_32(0x0a000009));
	assert_int_equal(list_flows(dp, &two, &n_pages), 10);
	struct dataplane_request purge = { .kind = DATAPLANE_PURGE, .cookie = 6, .backend_id = 1 };
	struct dataplane_reply *reply = ask(dp, 0, &purge);
	assert_int_equal(reply->n_flows, 100);
	assert_int_equal(reply->next_cursor, FLOW_NONE);
	dataplane_reply_free(dp, reply);
	assert_int_equal(list_flows(dp, &all, &n_pages), 50);
	struct pipeline_backend_counters backend;
	dataplane_backend_counters(dp, 1, &backend);
	assert_int_equal(backend.flows_ended, 100);
	end_dataplane(dp);
}

static void test_mailbox(void **state)
{
	struct dataplane *dp = make_dataplane(0);
	struct dataplane_request request = { .kind = DATAPLANE_EXPLAIN };
	request.question.dst_port = 4321;
	for (uint64_t i = 0; i < 64; i++) {
		request.cookie = i;
		assert_int_equal(dataplane_ask(dp, 1, &request), 0);
	}
	assert_int_equal(dataplane_ask(dp, 1, &request), -EAGAIN); // nobody reads yet
	assert_int_equal(dataplane_ask(dp, 2, &request), -EINVAL);
	dataplane_publish(dp, &snapshot);
	assert_int_equal(dataplane_start(dp, NULL), 0);
	for (uint64_t i = 0; i < 64; i++) {
		struct dataplane_reply *reply = NULL;
		WAIT_FOR((reply = dataplane_next_reply(dp)) != NULL);
		assert_int_equal(reply->cookie, i);
		assert_string_equal(reply->explanation.steps[0].text, "port 4321");
		dataplane_reply_free(dp, reply);
	}
	assert_null(dataplane_next_reply(dp));
	// Unread replies and letters are freed with the rest.
	assert_int_equal(dataplane_ask(dp, 1, &request), 0);
	assert_int_equal(dataplane_ask(dp, 0, &request), 0);
	end_dataplane(dp);
}

// ---------------------------------------------------------------- life

static void test_sleeps_and_wakes(void **state)
{
	struct dataplane *dp = start_dataplane(0);
	struct dataplane_worker_state worker;
	for (uint8_t i = 0; i < 3; i++) {
		WAIT_FOR((dataplane_worker_state(dp, 1, &worker), worker.sleeping));
		assert_int_equal(inject(dp, 0, "R1P0", i), 0);
		struct dataplane_punted punted = take_one(dp);
		assert_int_equal(mark_of(dp, &punted), i);
		dataplane_free_punted(dp, punted.mbuf);
	}
	assert_int_equal(worker.flow_capacity, 1000);
	assert_int_equal(worker.snapshot_generation, 7);
	assert_true(counted(dp, 1, COUNTER_SLEEPS) > 0);
	end_dataplane(dp);
}

static void test_stop_and_start_again(void **state)
{
	struct dataplane *dp = start_dataplane(0);
	for (uint8_t round = 0; round < 5; round++) {
		assert_int_equal(inject(dp, 0, "P0", round), 0);
		struct dataplane_punted punted = take_one(dp);
		assert_int_equal(mark_of(dp, &punted), round);
		dataplane_free_punted(dp, punted.mbuf);
		dataplane_stop(dp);
		assert_balanced(dp);
		assert_int_equal(dataplane_start(dp, NULL), 0);
	}
	end_dataplane(dp);
}

static void test_frames_that_cannot_be(void **state)
{
	struct dataplane *dp = make_dataplane(0);
	uint8_t frame[2000] = { 0 };
	assert_int_equal(dataplane_inject(dp, 0, frame, 13), -EMSGSIZE);
	assert_int_equal(dataplane_inject(dp, 0, frame, 1519), -EMSGSIZE);
	assert_int_equal(dataplane_inject(dp, 3, frame, 64), -EINVAL);
	int rc = 0, n = 0;
	while ((rc = dataplane_inject(dp, 0, frame, 64)) == 0)
		n++;
	assert_int_equal(rc, -EAGAIN); // nobody sends: the ring is full
	assert_in_range(n, 256, 1024);
	end_dataplane(dp);
}

// A burst's buffers must not meet in one set of a cache: 64 sets of 64 bytes, 8 lines each, as most processors have. The first line of
// their heads is where every stage looks.
static void test_buffers_lie_apart(void **state)
{
	struct rte_mempool *pool = device_pool(device, 0);
	struct rte_mbuf *mbufs[64];
	uint32_t n_in_set[64] = { 0 };
	assert_int_equal(rte_pktmbuf_alloc_bulk(pool, mbufs, ARRAY_SIZE(mbufs)), 0);
	for (size_t i = 0; i < ARRAY_SIZE(mbufs); i++) {
		uint32_t set = (uintptr_t)mbufs[i] / 64 % 64;
		assert_in_range(++n_in_set[set], 1, 8);
		assert_true(rte_pktmbuf_tailroom(mbufs[i]) >= 1518);
		memset(rte_pktmbuf_mtod(mbufs[i], void *), (int)i, 1518);
	}
	for (size_t i = 0; i < ARRAY_SIZE(mbufs); i++) // none lies in another
		assert_int_equal(*rte_pktmbuf_mtod_offset(mbufs[i], uint8_t *, 1517), i);
	rte_pktmbuf_free_bulk(mbufs, ARRAY_SIZE(mbufs));
}

static void test_nothing_leaks(void **state)
{
	struct rte_malloc_socket_stats before, after;
	end_dataplane(start_dataplane(0));
	rte_malloc_get_socket_stats(0, &before);
	for (int i = 0; i < 5; i++)
		end_dataplane(start_dataplane(0));
	rte_malloc_get_socket_stats(0, &after);
	assert_int_equal(after.heap_allocsz_bytes, before.heap_allocsz_bytes);
	assert_int_equal(after.alloc_count, before.alloc_count);
}

int main(void)
{
#define DATAPLANE_TEST(fn) cmocka_unit_test_teardown(fn, test_teardown)
	const struct CMUnitTest tests[] = {
		DATAPLANE_TEST(test_nothing_is_received_before_a_snapshot),
		DATAPLANE_TEST(test_grace),
		DATAPLANE_TEST(test_event_and_classes),
		DATAPLANE_TEST(test_punt_floors),
		DATAPLANE_TEST(test_resteer_and_hand_over),
		DATAPLANE_TEST(test_mixed_bursts_keep_order),
		DATAPLANE_TEST(test_stop_while_packets_move),
		DATAPLANE_TEST(test_hops),
		DATAPLANE_TEST(test_wait_for_neighbour),
		DATAPLANE_TEST(test_wait_keeps_order),
		DATAPLANE_TEST(test_wait_behind_held),
		DATAPLANE_TEST(test_moves_while_others_wait),
		DATAPLANE_TEST(test_wait_for_snapshot),
		DATAPLANE_TEST(test_wait_is_bounded),
		DATAPLANE_TEST(test_flows_and_purge),
		DATAPLANE_TEST(test_mailbox),
		DATAPLANE_TEST(test_sleeps_and_wakes),
		DATAPLANE_TEST(test_stop_and_start_again),
		DATAPLANE_TEST(test_frames_that_cannot_be),
		DATAPLANE_TEST(test_buffers_lie_apart),
		DATAPLANE_TEST(test_nothing_leaks),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
