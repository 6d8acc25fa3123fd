// SPDX-License-Identifier: BSD-3-Clause
// The peer: DPDK's rte_hash, one entry per flow, 16-byte keys (an IPv4 five-tuple, padded), hash of two
// CRC32 instructions. Flow number -> key is arithmetic, so that making a burst's keys reads no memory.
#include "bench_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dlfcn.h>
#include <rte_hash.h>

#define HASH_SAMPLE_BURSTS 2048

struct hash_key16 {
	uint32_t src;
	uint32_t dst;
	uint16_t src_port;
	uint16_t dst_port;
	uint32_t protocol;
};

struct bench_hash {
	struct rte_hash *table;
	uint32_t n_flows; // numbers first..first+n_flows-1 are in the table
	uint32_t n_ids;
	uint32_t *ids; // [n_flows], for churn
	struct bench_rng rng;
};

static inline struct hash_key16 hash_make_key(uint32_t id)
{
	uint32_t mixed = id * 0x9e3779b1u; // odd: one to one
	return (struct hash_key16){ .src = mixed,
		.dst = 0x0100000a,
		.src_port = (uint16_t)(mixed >> 7),
		.dst_port = 80,
		.protocol = 6 };
}

static uint32_t hash_crc(const void *key, uint32_t len, uint32_t seed)
{
	uint64_t words[2];
	(void)len;
	memcpy(words, key, sizeof(words));
	return (uint32_t)_mm_crc32_u64(_mm_crc32_u64(seed, words[0]), words[1]);
}

static bool hash_fill(struct bench_hash *h, uint32_t n_entries)
{
	char name[32];
	static uint32_t serial;
	snprintf(name, sizeof(name), "bench%u", serial++);
	struct rte_hash_parameters p = { .name = name,
		.entries = n_entries,
		.key_len = sizeof(struct hash_key16),
		.hash_func = hash_crc,
		.hash_func_init_val = 0x1234567,
		.socket_id = bench_heap_socket() };
	h->table = rte_hash_create(&p);
	if (h->table == NULL) {
		fprintf(stderr, "sluice-bench: rte_hash of %u entries does not fit\n", n_entries);
		exit(1);
	}
	for (uint32_t id = 0; id < h->n_flows; id++) {
		struct hash_key16 key = hash_make_key(id);
		if (rte_hash_add_key_data(h->table, &key, (void *)(uintptr_t)id) != 0) {
			rte_hash_free(h->table);
			return false;
		}
	}
	return true;
}

struct bench_hash *bench_hash_create(uint32_t n_flows)
{
	struct bench_hash *h = calloc(1, sizeof(*h));
	uint32_t n_entries = 8;
	h->n_flows = h->n_ids = n_flows;
	h->rng.state = 42;
	while (n_entries < n_flows)
		n_entries *= 2;
	while (!hash_fill(h, n_entries))
		n_entries *= 2;
	h->ids = malloc(n_flows * sizeof(*h->ids));
	for (uint32_t i = 0; i < n_flows; i++)
		h->ids[i] = i;
	return h;
}

void bench_hash_destroy(struct bench_hash *h)
{
	rte_hash_free(h->table);
	free(h->ids);
	free(h);
}

// Bursts of `bulk` keys with numbers first..first+n_flows-1, all present or all absent.
static double hash_lookups(struct bench_hash *h, uint32_t bulk, uint32_t first)
{
	struct hash_key16 keys[BENCH_BURST];
	const void *pointers[BENCH_BURST];
	int32_t positions[BENCH_BURST];
	struct bench_timer t = { 0 };
	for (uint32_t i = 0; i < BENCH_BURST; i++)
		pointers[i] = &keys[i];
	for (uint32_t b = 0; b < HASH_SAMPLE_BURSTS; b++) {
		for (uint32_t i = 0; i < bulk; i++)
			keys[i] = hash_make_key(first + bench_random_below(&h->rng, h->n_flows));
		bench_start(&t);
		rte_hash_lookup_bulk(h->table, pointers, bulk, positions);
		bench_stop(&t, bulk);
		if ((positions[0] >= 0) != (first == 0)) {
			fprintf(stderr, "sluice-bench: rte_hash gives a wrong answer\n");
			exit(1);
		}
	}
	return bench_ns_per_op(&t);
}

double bench_hash_hit(struct bench_hash *h, uint32_t bulk)
{
	return hash_lookups(h, bulk, 0);
}

double bench_hash_miss(struct bench_hash *h, uint32_t bulk)
{
	return hash_lookups(h, bulk, 1u << 30);
}

double bench_hash_hit32(void *h)
{
	return bench_hash_hit(h, 32);
}

double bench_hash_churn(struct bench_hash *h)
{
	struct hash_key16 gone[BENCH_CHURN_BURST], come[BENCH_CHURN_BURST];
	uint32_t at[BENCH_CHURN_BURST];
	struct bench_timer t = { 0 };
	bool failed = false;
	for (uint32_t b = 0; b < HASH_SAMPLE_BURSTS; b++) {
		for (uint32_t i = 0; i < BENCH_CHURN_BURST; i++) {
			at[i] = bench_random_below(&h->rng, h->n_flows);
			gone[i] = hash_make_key(h->ids[at[i]]);
			h->ids[at[i]] = h->n_ids++;
			come[i] = hash_make_key(h->ids[at[i]]);
		}
		bench_start(&t);
		for (uint32_t i = 0; i < BENCH_CHURN_BURST; i++) {
			failed |= rte_hash_del_key(h->table, &gone[i]) < 0;
			failed |= rte_hash_add_key(h->table, &come[i]) < 0;
		}
		bench_stop(&t, BENCH_CHURN_BURST);
	}
	if (failed)
		fprintf(stderr, "sluice-bench: rte_hash refused a key\n");
	return bench_ns_per_op(&t);
}

double bench_hash_churn32(void *h)
{
	return bench_hash_churn(h);
}

const char *bench_hash_library(void)
{
	Dl_info where;
	return dladdr((void *)(uintptr_t)rte_hash_create, &where) != 0 ? where.dli_fname : "?";
}
