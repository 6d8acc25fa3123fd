// SPDX-License-Identifier: BSD-3-Clause
// sluice-bench [NAME ...] [--json]: figures beside their peers from the same run. Needs no root, huge
// pages or devices.
#include "bench_priv.h"
#include "flow.h"
#include "oneway.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_version.h>

static const struct {
	const char *name;
	int (*run)(const struct bench_options *options);
	const char *help;
	bool has_process;     // its own: starts the EAL as the daemon does
	bool only_by_request; // scripts/bench runs it beside its peer
} benches[] = {
	{ "table", bench_table, "flow table beside rte_hash: G1 to G5" },
	{ "oneway", bench_oneway, "table of one-way modes beside rte_hash: G1 to G5" },
	{ "pipeline", bench_pipeline, "every mode and family, without port I/O: G6, G7, G8" },
	{ "flows", bench_flows, "new flows and whole connections: G11, G12" },
	{ "scale", bench_scale, "many services and backends: G16" },
	{ "flood", bench_flood, "good packets under a SYN flood: G19" },
	{ "null", bench_null, "a worker over a null port: G10 (scripts/bench null adds the peer)",
		true, true },
	{ "ports", bench_ports, "a worker over the port of --device, fed from outside: G9", true,
		true },
	{ "workers", bench_workers, "two workers beside one: G17", true },
	{ "residence", bench_residence, "how long a packet stays: G18", true },
	{ "changes", bench_changes, "endpoint changes while forwarding: G20", true },
	{ "idle", bench_idle, "a worker without packets: G21", true },
	{ "snat", bench_snat, "source ports" },
	{ "ageing", bench_ageing, "expiry of flows: G13" },
	{ "maglev", bench_maglev, "building Maglev tables, their bytes: G14, G15" },
};
#define N_BENCHES ARRAY_SIZE(benches)

static void print_help(FILE *out)
{
	fprintf(out,
		"usage: sluice-bench [NAME ...] [--json] [--large] [--rounds N] [--variant NAME]\n"
		"  --json     one JSON object a line\n"
		"  --large    10M flows too (2 GB of memory)\n"
		"  --rounds   times that contenders take turns: 9..%u, default 15\n"
		"  --device   of `ports`, as in the configuration (test/bench/ports.py)\n"
		"  --variant  of the flow look-up: scalar, sse2, avx2, avx512; default the "
		"fastest\n"
		"Names, all when none is given:\n",
		BENCH_ROUNDS_MAX);
	for (uint32_t i = 0; i < N_BENCHES; i++)
		fprintf(out, "  %-9s  %s\n", benches[i].name, benches[i].help);
}

struct request {
	struct bench_options options;
	bool wanted[N_BENCHES];
};

static bool request_bench(struct request *r, const char *name)
{
	for (uint32_t i = 0; i < N_BENCHES; i++)
		if (strcmp(benches[i].name, name) == 0)
			return r->wanted[i] = true;
	fprintf(stderr, "sluice-bench: no bench `%s`\n", name);
	print_help(stderr);
	return false;
}

static bool parse_rounds(const char *text, uint32_t *out)
{
	char *end;
	unsigned long n = text ? strtoul(text, &end, 10) : 0;
	if (text == NULL || *end != 0 || n < 9 || n > BENCH_ROUNDS_MAX) {
		fprintf(stderr, "sluice-bench: --rounds takes 9..%u\n", BENCH_ROUNDS_MAX);
		return false;
	}
	*out = (uint32_t)n;
	return true;
}

static bool parse_size(const char *text, const char **out)
{
	static const char *const sizes[] = { "1", "1K", "64K", "1M", "10M" };
	for (uint32_t i = 0; text != NULL && i < ARRAY_SIZE(sizes); i++)
		if (strcmp(sizes[i], text) == 0) {
			*out = text;
			return true;
		}
	fprintf(stderr, "sluice-bench: --size takes 1, 1K, 64K, 1M or 10M\n");
	return false;
}

static bool parse_arguments(int argc, char **argv, struct request *r)
{
	bool any = false;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0) {
			r->options.json = true;
		} else if (strcmp(argv[i], "--large") == 0) {
			r->options.large = true;
		} else if (strcmp(argv[i], "--rounds") == 0) {
			if (!parse_rounds(argv[++i], &r->options.n_rounds))
				return false;
		} else if (strcmp(argv[i], "--size") == 0) {
			if (!parse_size(argv[++i], &r->options.size))
				return false;
		} else if (strcmp(argv[i], "--variant") == 0 && i + 1 < argc) {
			r->options.variant = argv[++i];
		} else if (strcmp(argv[i], "--device") == 0 && i + 1 < argc) {
			r->options.device = argv[++i];
		} else if (strcmp(argv[i], "--help") == 0) {
			print_help(stdout);
			exit(0);
		} else {
			if (!request_bench(r, argv[i]))
				return false;
			any = true;
		}
	}
	for (uint32_t i = 0; i < N_BENCHES && !any; i++)
		r->wanted[i] = !benches[i].only_by_request;
	return true;
}

// The last processor that we may use: the first ones take most interrupts.
static int last_cpu(void)
{
	cpu_set_t set;
	int last = 0;
	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		for (int i = 0; i < CPU_SETSIZE; i++)
			if (CPU_ISSET(i, &set))
				last = i;
	return last;
}

// EAL without huge pages, devices or files: packets and small tables; everything that is measured lies in our
// own heap (bench_heap_init).
static int start_eal(void)
{
	// EAL wants its arguments writable.
	char texts[][24] = { "sluice-bench", "--no-huge", "-m", "128", "--no-pci", "--no-telemetry",
		"--no-shconf", "--log-level", "error", "--lcores", "", "--file-prefix", "" };
	char *args[ARRAY_SIZE(texts)];
	snprintf(texts[10], sizeof(texts[10]), "0@%d", last_cpu());
	snprintf(texts[12], sizeof(texts[12]), "sluice-bench-%d", (int)getpid());
	for (uint32_t i = 0; i < ARRAY_SIZE(texts); i++)
		args[i] = texts[i];
	int rc = rte_eal_init((int)ARRAY_SIZE(args), args);
	if (rc < 0)
		fprintf(stderr, "sluice-bench: EAL: %s\n", rte_strerror(rte_errno));
	return rc < 0 ? -rte_errno : 0;
}

static void print_conditions(const struct bench_options *options, const char *variant)
{
	FILE *out = options->json ? stderr : stdout;
	fprintf(out,
		"# %s, processor %d at %.2f GHz, tables in %s pages, look-up %s, %u rounds, "
		"one thread, no port I/O, peer %s\n",
		rte_version(), last_cpu(), bench_clock_ghz(), bench_heap_pages(), variant,
		options->n_rounds, bench_hash_library());
	fflush(out);
}

// Benches of the worker loop come first, each in a child: this process has no EAL yet.
static int run_in_child(const struct request *r, uint32_t i)
{
	int status = 0;
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		int rc = benches[i].run(&r->options);
		fflush(stdout);
		_exit(rc == 0 ? 0 : 1);
	}
	if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
		return -1;
	return 0;
}

static int run_here(const struct request *r, const char *variant)
{
	if (start_eal() != 0)
		return -1;
	if (bench_heap_init(bench_wants_size(&r->options, "10M") ? 3ull << 30 : 640ull << 20) !=
		0) {
		fprintf(stderr, "sluice-bench: no memory for the tables\n");
		return -1;
	}
	bench_calibrate();
	print_conditions(&r->options, variant);
	int rc = 0;
	for (uint32_t i = 0; i < N_BENCHES && rc == 0; i++)
		if (r->wanted[i] && !benches[i].has_process)
			rc = benches[i].run(&r->options);
	fprintf(stderr, "# %.3f %% of bursts left out (interrupted), %lu rounds repeated (steal)\n",
		100.0 * (double)bench_n_gaps / (double)(bench_n_bursts ? bench_n_bursts : 1),
		(unsigned long)bench_n_repeated);
	rte_eal_cleanup();
	return rc;
}

int main(int argc, char **argv)
{
	struct request r = { .options = { .n_rounds = 15 } };
	if (!parse_arguments(argc, argv, &r))
		return 2;
	const char *variant = flow_select_variant(r.options.variant);
	if (variant == NULL) {
		fprintf(stderr, "sluice-bench: variant `%s` does not run here\n",
			r.options.variant);
		return 2;
	}
	if (oneway_select_variant(r.options.variant) == NULL) // one that this table has not
		oneway_select_variant("scalar");
	bench_n_skipped = mmap(NULL, sizeof(*bench_n_skipped), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (bench_n_skipped == MAP_FAILED)
		return 1;
	int rc = 0;
	bool some_here = false;
	for (uint32_t i = 0; i < N_BENCHES && rc == 0; i++) {
		some_here |= r.wanted[i] && !benches[i].has_process;
		if (r.wanted[i] && benches[i].has_process)
			rc = run_in_child(&r, i);
	}
	if (rc == 0 && some_here)
		rc = run_here(&r, variant);
	fprintf(stderr, "# %u lines not measured\n", *bench_n_skipped);
	return rc == 0 ? 0 : 1;
}
