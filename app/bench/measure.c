// SPDX-License-Identifier: BSD-3-Clause
// Clock, rounds, medians, reports, and the heap that holds every table.
#include "bench_priv.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <rte_cycles.h>
#include <rte_malloc.h>

double bench_ns_per_tick;
uint64_t bench_empty_ticks;
uint64_t bench_gap_ticks;
uint64_t bench_n_bursts;
uint64_t bench_n_gaps;
uint64_t bench_n_repeated;
uint32_t *bench_n_skipped;

// ---------------------------------------------------------------- time

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

// Rounds of which nothing was left (NAN) do not count.
double bench_median_of(const double *values, uint32_t n_values)
{
	double sorted[BENCH_ROUNDS_MAX];
	uint32_t n = 0;
	for (uint32_t i = 0; i < n_values; i++)
		if (!isnan(values[i]))
			sorted[n++] = values[i];
	if (n == 0)
		return NAN;
	qsort(sorted, n, sizeof(*sorted), compare_doubles);
	return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

void bench_calibrate(void)
{
	double hz = (double)rte_get_tsc_hz();
	double empty[BENCH_ROUNDS_MAX];
	bench_ns_per_tick = 1e9 / hz;
	bench_gap_ticks = (uint64_t)(20e-6 * hz);
	bench_empty_ticks = 0;
	for (uint32_t i = 0; i < BENCH_ROUNDS_MAX; i++) {
		struct bench_timer t = { 0 };
		for (uint32_t k = 0; k < 100; k++) {
			bench_start(&t);
			bench_stop(&t, 1);
		}
		empty[i] = t.n_ops ? (double)t.ticks / (double)t.n_ops : NAN;
	}
	bench_empty_ticks = (uint64_t)bench_median_of(empty, BENCH_ROUNDS_MAX);
	bench_n_bursts = bench_n_gaps = 0;
}

double bench_clock_ghz(void)
{
	double best = 0;
	for (uint32_t i = 0; i < 20; i++) {
		uint64_t x = i, start = rte_rdtsc();
		for (uint32_t k = 0; k < 2000;
			k++) // one cycle each: none can start before the last one ends
			__asm__ volatile("add $1, %0\n\tadd $1, %0\n\tadd $1, %0\n\tadd $1, %0\n\t"
					 "add $1, %0\n\tadd $1, %0\n\tadd $1, %0\n\tadd $1, %0"
					 : "+r"(x));
		double ns = (double)(rte_rdtsc() - start) * bench_ns_per_tick;
		double ghz = 2000 * 8 / ns;
		best = ghz > best ? ghz : best;
	}
	return best;
}

// Time that the hypervisor took from this machine, in ticks of /proc/stat.
static uint64_t steal_ticks(void)
{
	unsigned long long v[8] = { 0 };
	FILE *f = fopen("/proc/stat", "r");
	if (f == NULL)
		return 0;
	int n = fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3],
		&v[4], &v[5], &v[6], &v[7]);
	fclose(f);
	return n == 8 ? v[7] : 0;
}

void bench_run(const struct bench_contender *contenders, uint32_t n, uint32_t n_rounds,
	struct bench_rounds *out)
{
	out->n_rounds = n_rounds;
	out->n_contenders = n;
	for (uint32_t c = 0; c < n; c++)
		contenders[c].sample(contenders[c].rig);
	uint32_t n_repeats = n_rounds; // a machine that is never left alone must come to an end
	for (uint32_t r = 0; r < n_rounds; r++) {
		uint64_t steal = steal_ticks();
		for (uint32_t c = 0; c < n; c++)
			out->ns[c][r] = contenders[c].sample(contenders[c].rig);
		if (steal_ticks() != steal && n_repeats > 0) {
			n_repeats--;
			bench_n_repeated++;
			r--;
		}
	}
}

double bench_median(const struct bench_rounds *r, uint32_t contender)
{
	return bench_median_of(r->ns[contender], r->n_rounds);
}

double bench_ratio(const struct bench_rounds *r, uint32_t a, uint32_t b)
{
	double ratios[BENCH_ROUNDS_MAX];
	for (uint32_t i = 0; i < r->n_rounds; i++)
		ratios[i] = r->ns[a][i] / r->ns[b][i];
	return bench_median_of(ratios, r->n_rounds);
}

// ---------------------------------------------------------------- reports

static const char *json_number(double v, const char *format, char buf[32])
{
	if (isnan(v))
		return "null";
	snprintf(buf, 32, format, v);
	return buf;
}

static void print_json_text(const char *key, const char *text)
{
	if (text == NULL)
		printf("\"%s\":null,", key);
	else
		printf("\"%s\":\"%s\",", key, text);
}

static bool line_met(const struct bench_line *l)
{
	return l->gate_is_floor ? l->multiple >= l->gate : l->multiple <= l->gate;
}

static void print_json(const struct bench_line *l)
{
	char buf[32];
	bool judged = !isnan(l->gate) && !isnan(l->multiple);
	putchar('{');
	print_json_text("bench", l->bench);
	print_json_text("goal", l->goal);
	print_json_text("case", l->name);
	printf("\"value\":%s,", json_number(l->value, "%.3f", buf));
	print_json_text("unit", l->unit);
	print_json_text("peer", l->peer);
	printf("\"peer_value\":%s,", json_number(l->peer_value, "%.3f", buf));
	printf("\"multiple\":%s,", json_number(l->multiple, "%.3f", buf));
	printf("\"gate\":%s,", json_number(l->gate, "%.3g", buf));
	printf("\"met\":%s,", !judged ? "null" : line_met(l) ? "true" : "false");
	print_json_text("limit", l->limit);
	printf("\"limit_value\":%s}\n", json_number(l->limit_value, "%.3f", buf));
}

static void print_text(const struct bench_line *l)
{
	char buf[32];
	printf("%-9s %-4s %-26s %9.2f %-10s", l->bench, l->goal ? l->goal : "-", l->name, l->value,
		l->unit);
	if (l->peer)
		printf(" %s %s", l->peer, json_number(l->peer_value, "%.2f", buf));
	if (!isnan(l->multiple))
		printf("  x%.2f", l->multiple);
	if (!isnan(l->gate))
		printf("  gate %s%g: %s", l->gate_is_floor ? ">=" : "<=", l->gate,
			isnan(l->multiple) ? "not judged"
			: line_met(l)      ? "met"
					   : "NOT MET");
	if (l->limit)
		printf("  limit %.2f (%s)", l->limit_value, l->limit);
	putchar('\n');
}

bool bench_wants_size(const struct bench_options *options, const char *size)
{
	if (options->size != NULL)
		return strcmp(options->size, size) == 0;
	return options->large || strcmp(size, "10M") != 0;
}

void bench_report(const struct bench_options *options, const struct bench_line *line)
{
	if (options->json)
		print_json(line);
	else
		print_text(line);
	fflush(stdout);
}

void bench_skip(const struct bench_options *options, const char *bench, const char *goal,
	const char *name, const char *reason)
{
	struct bench_line line = { .bench = bench,
		.goal = goal,
		.name = name,
		.value = NAN,
		.unit = "-",
		.peer_value = NAN,
		.multiple = NAN,
		.gate = NAN,
		.limit_value = NAN };
	(*bench_n_skipped)++;
	fprintf(stderr, "# not measured: %s %s %s: %s\n", bench, goal ? goal : "-", name, reason);
	bench_report(options, &line);
}

// ---------------------------------------------------------------- heap

#define HEAP_NAME "sluice-bench"
#define HEAP_PAGE (2ull << 20)

static const char *heap_pages = "none";

const char *bench_heap_pages(void)
{
	return heap_pages;
}

int bench_heap_init(size_t size)
{
	size = (size + HEAP_PAGE - 1) & ~(HEAP_PAGE - 1);
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	heap_pages = "hugetlb";
	char *at = mmap(NULL, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (at == MAP_FAILED) {
		heap_pages = "thp";
		char *mem = mmap(NULL, size + HEAP_PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
		if (mem == MAP_FAILED)
			return -errno;
		at = (char *)(((uintptr_t)mem + HEAP_PAGE - 1) & ~(uintptr_t)(HEAP_PAGE - 1));
		if (madvise(at, size, MADV_HUGEPAGE) != 0)
			heap_pages = "4k";
	}
	if (rte_malloc_heap_create(HEAP_NAME) != 0 ||
		rte_malloc_heap_memory_add(HEAP_NAME, at, size, NULL, 0, HEAP_PAGE) != 0)
		return -ENOMEM;
	return 0;
}

int bench_heap_socket(void)
{
	return rte_malloc_heap_get_socket(HEAP_NAME);
}

void *bench_alloc(size_t size)
{
	void *mem = rte_zmalloc_socket(NULL, size, 64, bench_heap_socket());
	if (mem == NULL) {
		fprintf(stderr, "sluice-bench: %zu bytes do not fit into the heap\n", size);
		exit(1);
	}
	return mem;
}

void bench_release(void *mem)
{
	rte_free(mem);
}
