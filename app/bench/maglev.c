// SPDX-License-Identifier: BSD-3-Clause
// Building a Maglev table of 1,000 members (G14) beside the loop as the paper has it: a modulo per probe, the table
// itself says which slots are taken. Both must give the same table.
#include "bench_priv.h"
#include "balance.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <rte_cycles.h>

#define MAGLEV_MEMBERS 1000

struct maglev_rig {
	struct balance_member members[MAGLEV_MEMBERS]; // in identity order
	uint32_t m;
	uint16_t *slots;
	uint16_t *naive;
	uint64_t offset[MAGLEV_MEMBERS];
	uint64_t skip[MAGLEV_MEMBERS];
};

// Longer than a gap by nature: timed as a whole, not by bench_start.
static double maglev_build(void *arg)
{
	struct maglev_rig *rig = arg;
	uint64_t start = rte_rdtsc();
	if (balance_build(rig->members, MAGLEV_MEMBERS, rig->m, rig->slots) != 0) {
		fprintf(stderr, "sluice-bench: balance_build refused\n");
		exit(1);
	}
	return (double)(rte_rdtsc() - start) * bench_ns_per_tick;
}

// NSDI 2016, section 3.4, pseudocode "Populate".
static double maglev_paper(void *arg)
{
	struct maglev_rig *rig = arg;
	uint64_t next[MAGLEV_MEMBERS] = { 0 };
	uint64_t start = rte_rdtsc();
	for (uint32_t i = 0; i < MAGLEV_MEMBERS; i++) {
		uint8_t identity[18];
		memcpy(identity, rig->members[i].address.bytes, 16);
		identity[16] = (uint8_t)(rig->members[i].port >> 8);
		identity[17] = (uint8_t)rig->members[i].port;
		rig->offset[i] = hash_stable(identity, 18, 1) % rig->m;
		rig->skip[i] = hash_stable(identity, 18, 2) % (rig->m - 1) + 1;
	}
	memset(rig->naive, 0xff, rig->m * sizeof(*rig->naive));
	for (uint32_t n = 0; n < rig->m;) {
		for (uint32_t i = 0; i < MAGLEV_MEMBERS && n < rig->m; i++, n++) {
			uint64_t c;
			do
				c = (rig->offset[i] + next[i]++ * rig->skip[i]) % rig->m;
			while (rig->naive[c] != BALANCE_EMPTY);
			rig->naive[c] = (uint16_t)i;
		}
	}
	return (double)(rte_rdtsc() - start) * bench_ns_per_tick;
}

int bench_maglev(const struct bench_options *options)
{
	struct maglev_rig *rig = calloc(1, sizeof(*rig));
	struct bench_rounds *rounds = calloc(1, sizeof(*rounds));
	rig->m = BALANCE_TABLE_MAX;
	rig->slots = calloc(rig->m, sizeof(*rig->slots));
	rig->naive = calloc(rig->m, sizeof(*rig->naive));
	for (uint32_t i = 0; i < MAGLEV_MEMBERS; i++)
		rig->members[i] = (struct balance_member){
			.address = address_from_v4(rte_cpu_to_be_32(0x0a090000u + i)),
			.port = 8080,
			.weight = 100
		};
	struct bench_contender contenders[] = { { maglev_build, rig }, { maglev_paper, rig } };
	bench_run(contenders, 2, options->n_rounds, rounds);
	if (memcmp(rig->slots, rig->naive, rig->m * sizeof(*rig->slots)) != 0) {
		fprintf(stderr, "sluice-bench: the table is not the paper's\n");
		return -1;
	}
	struct bench_line line = { .bench = "maglev",
		.goal = "G14",
		.name = "build/1000 members/65537",
		.value = bench_median(rounds, 0) / 1e6,
		.unit = "ms",
		.peer = "the paper's loop",
		.peer_value = bench_median(rounds, 1) / 1e6,
		.multiple = bench_ratio(rounds, 1, 0),
		.gate = 1.5,
		.gate_is_floor = true,
		.limit_value = NAN };
	bench_report(options, &line);
	free(rig->slots);
	free(rig->naive);
	free(rig);
	free(rounds);
	return 0;
}
