// SPDX-License-Identifier: BSD-3-Clause
// Two workers (G17): what they forward together, as a multiple of one of them alone, beside what two processes with a worker
// each gain, which share nothing but the machine; and the same when every reply arrives at the other worker and has to move (half of
// all packets). net_null keeps the counters of one queue and the pointers of the next in one line, which the two processes
// do not suffer from. Rates are per second of processor time, so that whoever else runs here takes no part.
#include "loop_priv.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS_SPAN_MS   100
#define WORKERS_SETTLE_MS 5

static const char *const workers_devices[] = { "net_null0" };

// ---------------------------------------------------------------- two that share nothing

// A process with one worker on one processor, driven by one byte over a socket: 'r' run for a span and tell the rate.
struct workers_alone {
	pid_t pid;
	int fd;
};

static void workers_pin(int cpu)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static double workers_span_rate(struct loop *l)
{
	struct loop_span span;
	loop_sleep_ms(WORKERS_SETTLE_MS);
	loop_measure(l, WORKERS_SPAN_MS, &span);
	return loop_rate(l, &span);
}

static void workers_alone_main(int fd, int cpu)
{
	static struct loop loop;
	char order;
	workers_pin(cpu);
	loop_init(&loop, 1, workers_devices, 1);
	loop_start(&loop, DEVICE_IDLE_ADAPTIVE, true);
	double rate = 0; // the first answer says that we are ready
	while (write(fd, &rate, sizeof(rate)) == sizeof(rate) && read(fd, &order, 1) == 1) {
		loop_feed(&loop, 0, LOOP_OWN);
		rate = workers_span_rate(&loop);
		loop_feed(&loop, 0, LOOP_SILENT);
	}
	loop_stop(&loop);
	loop_fini(&loop);
}

static double workers_alone_answer(const struct workers_alone *a)
{
	double rate;
	if (read(a->fd, &rate, sizeof(rate)) != sizeof(rate)) {
		fprintf(stderr, "sluice-bench: a worker of its own process is gone\n");
		exit(1);
	}
	return rate;
}

static void workers_alone_go(const struct workers_alone *a)
{
	if (write(a->fd, "r", 1) != 1)
		exit(1);
}

static void workers_alone_start(struct workers_alone *a, int cpu)
{
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0)
		exit(1);
	a->pid = fork();
	if (a->pid == 0) {
		close(ends[0]);
		workers_alone_main(ends[1], cpu);
		_exit(0);
	}
	close(ends[1]);
	a->fd = ends[0];
	workers_alone_answer(a);
}

// Both ends first: the second process has inherited the first one's.
static void workers_alone_end(struct workers_alone alone[2])
{
	close(alone[0].fd);
	close(alone[1].fd);
	waitpid(alone[1].pid, NULL, 0);
	waitpid(alone[0].pid, NULL, 0);
}

// What the second one adds.
static double workers_alone_gain(const struct workers_alone alone[2])
{
	workers_alone_go(&alone[0]);
	double one = workers_alone_answer(&alone[0]);
	workers_alone_go(&alone[0]);
	workers_alone_go(&alone[1]);
	double both = workers_alone_answer(&alone[0]);
	both += workers_alone_answer(&alone[1]);
	return both / one;
}

// ---------------------------------------------------------------- two workers

static double workers_rate(struct loop *l, enum loop_feed first, enum loop_feed second)
{
	loop_feed(l, 0, first);
	loop_feed(l, 1, second);
	double rate = workers_span_rate(l);
	loop_feed(l, 0, LOOP_SILENT);
	loop_feed(l, 1, LOOP_SILENT);
	loop_sleep_ms(WORKERS_SETTLE_MS);
	return rate;
}

struct workers_rounds {
	double gain[BENCH_ROUNDS_MAX];
	double moved[BENCH_ROUNDS_MAX];
	double alone[BENCH_ROUNDS_MAX];
	double share[BENCH_ROUNDS_MAX];
};

static void workers_round(
	struct loop *l, const struct workers_alone alone[2], struct workers_rounds *out, uint32_t r)
{
	out->alone[r] = workers_alone_gain(alone);
	double one = workers_rate(l, LOOP_OWN, LOOP_SILENT);
	out->gain[r] = workers_rate(l, LOOP_OWN, LOOP_OWN) / one;
	out->moved[r] = workers_rate(l, LOOP_CROSSWISE, LOOP_CROSSWISE) / one;
	out->share[r] = out->gain[r] / out->alone[r];
}

static void workers_report(const struct bench_options *options, const struct workers_rounds *rounds)
{
	uint32_t n = options->n_rounds;
	struct bench_line line = { .bench = "workers",
		.goal = "G17",
		.name = "two workers",
		.value = bench_median_of(rounds->gain, n),
		.unit = "x one worker",
		.peer = "two processes",
		.peer_value = bench_median_of(rounds->alone, n),
		.multiple = bench_median_of(rounds->share, n),
		.gate = 0.97,
		.gate_is_floor = true,
		.limit_value = NAN };
	bench_report(options, &line);
	line.name = "two workers, half of the packets move";
	line.value = line.multiple = bench_median_of(rounds->moved, n);
	line.gate = 1.5;
	bench_report(options, &line);
}

int bench_workers(const struct bench_options *options)
{
	static struct loop loop;
	struct workers_alone alone[2];
	int cpus[CPU_SETSIZE];
	if (loop_cpus(cpus) < 2) {
		bench_skip(options, "workers", "G17", "two workers", "needs two processors");
		return 0;
	}
	struct workers_rounds *rounds = calloc(1, sizeof(*rounds));
	uint32_t n_cpus = loop_cpus(cpus);
	for (uint32_t w = 0; w < 2; w++)
		workers_alone_start(&alone[w], cpus[n_cpus - 2 + w]);
	loop_init(&loop, 2, workers_devices, 1);
	loop_start(&loop, DEVICE_IDLE_ADAPTIVE, true);
	for (uint32_t r = 0; r < options->n_rounds; r++)
		workers_round(&loop, alone, rounds, r);
	workers_report(options, rounds);
	workers_alone_end(alone);
	loop_stop(&loop);
	loop_fini(&loop);
	free(rounds);
	return 0;
}
