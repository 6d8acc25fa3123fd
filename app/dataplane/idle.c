// SPDX-License-Identifier: BSD-3-Clause
// Where workers meet the kernel: going to sleep, being woken, the clock, waking control. Not on the path of a packet: each call
// here is one per silence, per second, or per wake-up of control.
//
// Adaptive: a millisecond of polling after the last packet, then sleeps of 1/256 of the silence so far, from 50 us to
// 2 ms. A sleeper is thus late by at most 0.4 % of the gap between packets, and after half a second of silence costs 2 to 3 % of
// a core. Any packet starts over. A bell ends a sleep at once.
// Health probes and ARP of a port without clients are packets too, a hundred a second in short bursts: below QUIET_PACKETS
// in a window the watch is shorter (QUIET_SPIN_NS) and sleeps are 1/32 of the silence. Measured with 6 backends probed every
// second: 12 % of a core without this rule, 2.7 % with it; 1.5 % with whole sleeps at once, but then a ping every 5, 20,
// 200 ms takes 1.1, 1.4, 1.1 ms on average instead of 0.2, 0.4, 0.6.
#include "dataplane_priv.h"

#include <linux/futex.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <rte_cycles.h>
#include <rte_pause.h>

#define SPIN_NS         (1 * CLOCK_MS)
#define SLEEP_MIN_NS    (50 * CLOCK_US)
#define SLEEP_MAX_NS    (2 * CLOCK_MS)
#define SLEEP_WAIT_NS   (200 * CLOCK_US) // while packets wait for a next hop
#define SLEEP_SHARE     256
#define QUIET_WINDOW_NS (500 * CLOCK_MS)
#define QUIET_PACKETS   500 // in a window
#define QUIET_SPIN_NS   (50 * CLOCK_US)
#define QUIET_SHARE     32
#define EMPTY_TURNS     16 // before a sleep of fixed length
#define TIMER_SLACK     1000ul

// ---------------------------------------------------------------- bell

void bell_ring(struct bell *bell)
{
	// seq_cst, as in idle_sleep: either the sleeper sees the bell, or we see the sleeper
	__atomic_store_n(&bell->rung, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&bell->sleeping_us, __ATOMIC_SEQ_CST) != 0)
		syscall(SYS_futex, &bell->rung, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void idle_sleep(struct worker *w, uint64_t sleep_ns)
{
	struct bell *bell = &w->bell;
	struct timespec limit = { .tv_sec = (time_t)(sleep_ns / CLOCK_S),
		.tv_nsec = (long)(sleep_ns % CLOCK_S) };
	uint64_t us = sleep_ns / CLOCK_US;
	us = us == 0 ? 1 : us;
	rte_rcu_qsbr_thread_offline(w->dp->qsbr, w->idx);
	__atomic_store_n(
		&bell->sleeping_us, us < UINT32_MAX ? (uint32_t)us : UINT32_MAX, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&bell->rung, __ATOMIC_SEQ_CST) == 0)
		syscall(SYS_futex, &bell->rung, FUTEX_WAIT_PRIVATE, 0, &limit, NULL, 0);
	__atomic_store_n(&bell->sleeping_us, 0, __ATOMIC_RELAXED);
	// Before the rings are looked at: who rings after this is heard at the next sleep.
	__atomic_store_n(&bell->rung, 0, __ATOMIC_SEQ_CST);
	rte_rcu_qsbr_thread_online(w->dp->qsbr, w->idx);
	counters_add(&w->counters, COUNTER_SLEEPS, 1);
}

// Few packets in the last whole window?
static bool is_quiet(struct worker *w)
{
	uint64_t now = w->pipeline.now_ns;
	if (now - w->window_ns >= QUIET_WINDOW_NS) {
		uint64_t received = w->counters.values[COUNTER_RECEIVED];
		w->window_packets = received - w->window_received;
		w->window_received = received;
		w->window_ns = now;
	}
	return w->window_packets < QUIET_PACKETS;
}

// How long to sleep after `silent_ns` without a packet; 0: not yet.
static uint64_t sleep_length(struct worker *w, uint64_t silent_ns)
{
	bool quiet = is_quiet(w);
	if (silent_ns < (quiet ? QUIET_SPIN_NS : SPIN_NS))
		return 0;
	uint64_t sleep_ns = silent_ns / (quiet ? QUIET_SHARE : SLEEP_SHARE);
	sleep_ns = sleep_ns < SLEEP_MIN_NS ? SLEEP_MIN_NS : sleep_ns;
	return sleep_ns > SLEEP_MAX_NS ? SLEEP_MAX_NS : sleep_ns;
}

void idle_turn(struct worker *w)
{
	// Not with a question at work, nor with an answer that control was not called for yet.
	if (w->dp->idle == DEVICE_IDLE_POLL || w->mail != NULL || w->posted)
		return;
	uint64_t sleep_ns;
	if (w->dp->idle == DEVICE_IDLE_SLEEP) {
		if (w->empty_turns < EMPTY_TURNS)
			return;
		sleep_ns = w->dp->sleep_ns;
	} else {
		sleep_ns = sleep_length(w, w->pipeline.now_ns - w->last_packet_ns);
		if (sleep_ns == 0) {
			rte_pause();
			return;
		}
	}
	if (w->waiting.n_packets > 0 && sleep_ns > SLEEP_WAIT_NS)
		sleep_ns = SLEEP_WAIT_NS;
	if (sleep_ns > 0)
		idle_sleep(w, sleep_ns);
}

// ---------------------------------------------------------------- clock

static uint64_t kernel_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * CLOCK_S + (uint64_t)now.tv_nsec;
}

// The counter and the kernel's clock at one moment: the closest of a few pairs, or a thread that lost its CPU between the two
// would make a rate of it.
static uint64_t read_both(uint64_t *out_tsc)
{
	uint64_t ns = 0, closest = UINT64_MAX;
	for (uint32_t tries = 0; tries < 4; tries++) {
		uint64_t before = rte_rdtsc(), now_ns = kernel_ns(), after = rte_rdtsc();
		if (after - before >= closest)
			continue;
		closest = after - before;
		*out_tsc = before + closest / 2;
		ns = now_ns;
	}
	return ns;
}

uint64_t idle_sync_clock(struct worker *w)
{
	uint64_t tsc = 0, ns = read_both(&tsc);
	return worker_clock_sync(&w->clock, tsc, ns, w->pipeline.now_ns);
}

// ---------------------------------------------------------------- thread

void idle_enter(struct worker *w)
{
	prctl(PR_SET_TIMERSLACK, TIMER_SLACK, 0, 0, 0);
	uint64_t tsc = 0, ns = read_both(&tsc);
	worker_clock_init(&w->clock, rte_get_tsc_hz(), tsc, ns);
	// A thread that is started again does not go back behind the one before.
	w->pipeline.now_ns = worker_clock_sync(&w->clock, tsc, ns, w->pipeline.now_ns);
	w->first_tsc = tsc;
	w->last_packet_ns = w->pipeline.now_ns;
	w->sweep_due_ns = w->pipeline.now_ns;
	w->punt_bucket.last_ns = w->pipeline.now_ns;
	rte_rcu_qsbr_thread_register(w->dp->qsbr, w->idx);
	rte_rcu_qsbr_thread_online(w->dp->qsbr, w->idx);
}

void idle_leave(struct worker *w)
{
	rte_rcu_qsbr_thread_offline(w->dp->qsbr, w->idx);
	rte_rcu_qsbr_thread_unregister(w->dp->qsbr, w->idx);
	__atomic_store_n(&w->face.is_done, 1, __ATOMIC_RELEASE);
}

// ---------------------------------------------------------------- control's ear

static void write_event(struct dataplane *dp)
{
	uint64_t one = 1;
	ssize_t written = write(dp->event_fd, &one, sizeof(one));
	(void)written; // full means that it is readable already
}

void control_call(struct dataplane *dp)
{
	// seq_cst, as in control_rests: either control finds what was posted, or we see that it rests
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&dp->control_sleeps, __ATOMIC_RELAXED) &&
		__atomic_exchange_n(&dp->control_sleeps, 0, __ATOMIC_RELAXED))
		write_event(dp);
}

void control_rests(struct dataplane *dp)
{
	__atomic_store_n(&dp->control_sleeps, 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void control_call_again(struct dataplane *dp)
{
	write_event(dp);
}
