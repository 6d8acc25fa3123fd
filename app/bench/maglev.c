// SPDX-License-Identifier: BSD-3-Clause
// Building a Maglev table of 1,000 members (G14) beside the loop as the paper has it: a modulo per probe, the table
// itself says which slots are taken. Both must give the same table. Every sample has members of its own: a table built
// again and again is learnt by the branch predictor. And the bytes that tables of many small services take (G15).
#include "bench_priv.h"
#include "service.h"
#include "snapshot_build.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAGLEV_MEMBERS  1000
#define MAGLEV_SERVICES 10000
#define MAGLEV_BACKENDS 10 // of each service

struct maglev_rig {
	struct balance_member members[MAGLEV_MEMBERS]; // in identity order
	uint32_t m;
	uint32_t n_samples;
	enum balance_variant variant;
	uint16_t *slots;
	uint16_t *plain;
	uint64_t offset[MAGLEV_MEMBERS];
	uint64_t skip[MAGLEV_MEMBERS];
};

static void maglev_die(const char *what)
{
	fprintf(stderr, "sluice-bench: %s\n", what);
	exit(1);
}

static void maglev_members(struct maglev_rig *rig, uint32_t sample)
{
	for (uint32_t i = 0; i < MAGLEV_MEMBERS; i++) {
		uint32_t host = 0x0a000000u + sample * 1024 + i;
		rig->members[i] =
			(struct balance_member){ .address = address_from_v4(rte_cpu_to_be_32(host)),
				.port = 8080,
				.weight = 100 };
	}
}

// ---------------------------------------------------------------- build time

// Longer than a gap by nature: timed as a whole by the processor time of the thread, not by bench_start.
static double maglev_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double maglev_build_as(struct maglev_rig *rig, enum balance_variant variant)
{
	double start = maglev_now_ns();
	if (balance_build_as(variant, rig->members, MAGLEV_MEMBERS, rig->m, rig->slots) != 0)
		maglev_die("balance_build_as refused");
	return maglev_now_ns() - start;
}

// First of a round.
static double maglev_build(void *arg)
{
	struct maglev_rig *rig = arg;
	maglev_members(rig, rig->n_samples++);
	return maglev_build_as(rig, BALANCE_FASTEST);
}

static double maglev_build_scalar(void *arg)
{
	return maglev_build_as(arg, BALANCE_SCALAR);
}

// NSDI 2016, section 3.4, pseudocode "Populate".
static double maglev_paper(void *arg)
{
	struct maglev_rig *rig = arg;
	uint64_t next[MAGLEV_MEMBERS] = { 0 };
	double start = maglev_now_ns();
	for (uint32_t i = 0; i < MAGLEV_MEMBERS; i++) {
		uint8_t identity[18];
		memcpy(identity, rig->members[i].address.bytes, 16);
		identity[16] = (uint8_t)(rig->members[i].port >> 8);
		identity[17] = (uint8_t)rig->members[i].port;
		rig->offset[i] = hash_stable(identity, 18, 1) % rig->m;
		rig->skip[i] = hash_stable(identity, 18, 2) % (rig->m - 1) + 1;
	}
	memset(rig->plain, 0xff, rig->m * sizeof(*rig->plain));
	for (uint32_t n = 0; n < rig->m;) {
		for (uint32_t i = 0; i < MAGLEV_MEMBERS && n < rig->m; i++, n++) {
			uint64_t c;
			do
				c = (rig->offset[i] + next[i]++ * rig->skip[i]) % rig->m;
			while (rig->plain[c] != BALANCE_EMPTY);
			rig->plain[c] = (uint16_t)i;
		}
	}
	double ns = maglev_now_ns() - start;
	if (memcmp(rig->slots, rig->plain, rig->m * sizeof(*rig->slots)) != 0)
		maglev_die("a table is not the paper's");
	return ns;
}

struct maglev_size {
	const char *name;
	uint32_t m;
	double gate;
};

static void maglev_report_time(const struct bench_options *options, const struct maglev_size *size)
{
	struct maglev_rig *rig = calloc(1, sizeof(*rig));
	struct bench_rounds *rounds = calloc(1, sizeof(*rounds));
	rig->m = size->m;
	rig->slots = calloc(rig->m, sizeof(*rig->slots));
	rig->plain = calloc(rig->m, sizeof(*rig->plain));
	struct bench_contender contenders[] = { { maglev_build, rig }, { maglev_paper, rig },
		{ maglev_build_scalar, rig } };
	bench_run(contenders, 3, options->n_rounds, rounds);
	struct bench_line line = { .bench = "maglev",
		.goal = "G14",
		.name = size->name,
		.value = bench_median(rounds, 0) / 1e6,
		.unit = "ms",
		.peer = "the paper's loop",
		.peer_value = bench_median(rounds, 1) / 1e6,
		.multiple = bench_ratio(rounds, 1, 0),
		.gate = size->gate,
		.gate_is_floor = true,
		.limit_value = NAN };
	bench_report(options, &line);
	char name[32];
	snprintf(name, sizeof(name), "%s, scalar", size->name);
	line.goal = NULL;
	line.name = name;
	line.value = bench_median(rounds, 2) / 1e6;
	line.multiple = bench_ratio(rounds, 1, 2);
	line.gate = NAN;
	bench_report(options, &line);
	free(rig->slots);
	free(rig->plain);
	free(rig);
	free(rounds);
}

// ---------------------------------------------------------------- memory

static void maglev_put_service(struct service_store *store, uint32_t n)
{
	struct service_defaults defaults = service_defaults_builtin();
	struct service *service = service_create(&defaults);
	struct error err = { 0 };
	char text[256];
	snprintf(service->namespace, sizeof(service->namespace), "default");
	snprintf(service->name, sizeof(service->name), "s%u", n);
	service->owner = SERVICE_OWNER_FILE;
	*service_add_address(service) = address_from_v4(rte_cpu_to_be_32(0xc6120000u + n));
	struct service_listener *l = service_add_listener(service);
	l->protocol = NET_PROTO_TCP;
	l->port = l->port_max = 80;
	for (uint32_t i = 0; i < MAGLEV_BACKENDS; i++) {
		struct service_backend *b = service_add_backend(service);
		uint32_t host = 0x0a000000u + n * MAGLEV_BACKENDS + i;
		b->address = address_from_v4(rte_cpu_to_be_32(host));
		b->weight = SERVICE_WEIGHT_DEFAULT;
		b->conditions.ready = b->conditions.serving = true;
		service_backend_add_port(b)->port = 8080;
	}
	if (service_store_put(store, service, NULL, &err) != 0)
		maglev_die(error_first(&err, text, sizeof(text)));
	service_destroy(service);
}

// Slots of all tables, and the members that each is a function of.
static double maglev_table_bytes(const struct snapshot *s)
{
	double sum = 0;
	for (uint32_t i = 0; i < s->n_listeners; i++) {
		const struct snapshot_listener *l = &s->listeners[i];
		sum += l->table_size * (double)sizeof(*l->table) +
		       l->n_members * (double)(sizeof(struct balance_member) + sizeof(uint32_t));
	}
	return sum;
}

static double maglev_heap_bytes(void)
{
	struct mallinfo2 m = mallinfo2();
	return (double)m.uordblks + (double)m.hblkhd;
}

static void maglev_report_memory(const struct bench_options *options)
{
	struct service_store *store = service_store_create();
	struct snapshot_registry *registry = snapshot_registry_create();
	for (uint32_t n = 0; n < MAGLEV_SERVICES; n++)
		maglev_put_service(store, n);
	struct nexthop_route none[2] = { { .prefix = { address_from_v4(0), 0 } } };
	struct nexthop_fib *fib = nexthop_fib_create(none, 2, 1);
	struct snapshot_input input = { .store = store, .registry = registry, .fib = fib };
	struct snapshot *snapshot;
	struct error err = { 0 };
	char text[256];
	double before = maglev_heap_bytes();
	if (snapshot_build(&input, &snapshot, &err) != 0)
		maglev_die(error_first(&err, text, sizeof(text)));
	double whole = maglev_heap_bytes() - before;
	struct bench_line line = { .bench = "maglev",
		.goal = "G15",
		.name = "10000x10",
		.value = maglev_table_bytes(snapshot) / 1e6,
		.unit = "MB",
		.peer = "65537 slots for each",
		.peer_value = MAGLEV_SERVICES * 65537.0 * sizeof(uint16_t) / 1e6,
		.gate = 32,
		.limit = "100 slots of 2 bytes for each backend",
		.limit_value = MAGLEV_SERVICES * MAGLEV_BACKENDS * 200 / 1e6 };
	line.multiple = line.value;
	bench_report(options, &line);
	line.goal = NULL;
	line.name = "10000x10, whole snapshot";
	line.value = whole / 1e6;
	line.peer = line.limit = NULL;
	line.peer_value = line.multiple = line.gate = line.limit_value = NAN;
	bench_report(options, &line);
	snapshot_destroy(snapshot);
	nexthop_fib_destroy(fib);
	snapshot_registry_destroy(registry);
	service_store_destroy(store);
}

int bench_maglev(const struct bench_options *options)
{
	static const struct maglev_size sizes[] = { { "65537", 65537, 1.5 },
		{ "655373", 655373, 1.6 } };
	for (uint32_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		maglev_report_time(options, &sizes[i]);
	maglev_report_memory(options);
	return 0;
}
