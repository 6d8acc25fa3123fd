// SPDX-License-Identifier: BSD-3-Clause
// Source ports: taking one and giving another back, at 50 % use, endpoints at random; bytes per port.
#include "bench_priv.h"
#include "flow.h"
#include "snat.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define SNAT_ADDRESSES     8
#define SNAT_HELD          (1u << 20)
#define SNAT_ENDPOINTS     256
#define SNAT_SAMPLE_BURSTS 4096

struct snat_rig {
	struct snat *snat;
	void *mem;
	size_t size;
	struct bench_rng rng;
	struct snat_held {
		uint16_t slot;
		rte_be16_t port;
		uint16_t endpoint;
	} * held; // [SNAT_HELD]
};

static struct address endpoint_address(uint32_t endpoint)
{
	return address_from_v4(rte_cpu_to_be_32(0x0a090000u + endpoint));
}

static void snat_hold(struct snat_rig *rig, struct snat_held *h)
{
	h->endpoint = (uint16_t)bench_random_below(&rig->rng, SNAT_ENDPOINTS);
	struct address backend = endpoint_address(h->endpoint);
	if (snat_alloc(rig->snat, &backend, RTE_BE16(8080), NET_PROTO_TCP,
		    (uint32_t)bench_random(&rig->rng), &h->slot, &h->port) != 0) {
		fprintf(stderr, "sluice-bench: out of source ports\n");
		exit(1);
	}
}

static void snat_start(struct snat_rig *rig)
{
	struct snat_config *config = calloc(1, sizeof(*config));
	config->n_addresses = SNAT_ADDRESSES;
	for (uint16_t i = 0; i < SNAT_ADDRESSES; i++) {
		config->addresses[i] = address_from_v4(rte_cpu_to_be_32(0xc6336401u + i));
		config->slots[i] = i;
	}
	config->port_min = 1024;
	config->port_max = 65535;
	config->n_workers = 1;
	rig->rng.state = 3;
	rig->size = snat_size(config, 0);
	rig->mem = bench_alloc(rig->size);
	rig->held = bench_alloc(SNAT_HELD * sizeof(*rig->held));
	snat_init(rig->mem, rig->size, config, 0, &rig->snat);
	for (uint32_t i = 0; i < SNAT_HELD; i++)
		snat_hold(rig, &rig->held[i]);
	free(config);
}

static double snat_sample(void *arg)
{
	struct snat_rig *rig = arg;
	struct bench_timer t = { 0 };
	struct snat_held gone[BENCH_BURST], come[BENCH_BURST];
	uint32_t at[BENCH_BURST];
	for (uint32_t b = 0; b < SNAT_SAMPLE_BURSTS; b++) {
		for (uint32_t i = 0; i < BENCH_BURST; i++)
			at[i] = (bench_random_below(&rig->rng, SNAT_HELD / BENCH_BURST)) *
					BENCH_BURST +
				i; // no flow twice in a burst
		for (uint32_t i = 0; i < BENCH_BURST; i++)
			gone[i] = rig->held[at[i]];
		bench_start(&t);
		for (uint32_t i = 0; i < BENCH_BURST; i++) {
			struct address backend = endpoint_address(gone[i].endpoint);
			struct flow_key reply = flow_key_make(&backend, RTE_BE16(8080),
				gone[i].port, gone[i].slot, NET_PROTO_TCP);
			snat_free(rig->snat, &reply);
			snat_hold(rig, &come[i]);
		}
		bench_stop(&t, BENCH_BURST);
		for (uint32_t i = 0; i < BENCH_BURST; i++)
			rig->held[at[i]] = come[i];
	}
	return bench_ns_per_op(&t);
}

int bench_snat(const struct bench_options *options)
{
	struct snat_rig rig = { 0 };
	struct bench_rounds *rounds = calloc(1, sizeof(*rounds));
	snat_start(&rig);
	struct bench_contender contender = { snat_sample, &rig };
	bench_run(&contender, 1, options->n_rounds, rounds);
	struct bench_line line = { .bench = "snat",
		.name = "free+alloc/1M held",
		.value = bench_median(rounds, 0),
		.unit = "ns",
		.peer_value = NAN,
		.multiple = NAN,
		.gate = NAN,
		.limit_value = NAN };
	bench_report(options, &line);
	line.name = "memory";
	line.unit = "bytes/port";
	line.value = (double)rig.size / (SNAT_ADDRESSES * (65536.0 - 1024) * SNAT_POOLS);
	line.peer = "4 bytes of link";
	line.peer_value = 4;
	bench_report(options, &line);
	bench_release(rig.held);
	bench_release(rig.mem);
	free(rounds);
	return 0;
}
