// SPDX-License-Identifier: BSD-3-Clause
// When which target is tried. One timer per target, a bounded number of tries in flight, a queue for the rest.
//
//   RESTING ──timer──► QUEUED ──room──► RUNNING ──result──► RESTING (control says for how long)
//
// Tries are spaced from start to start. The first comes within 100 ms of the wish, at a phase that is a hash of the
// target, so that a thousand backends that appear at once are not asked in one instant.
#include "probe_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_WITHIN_MS 100
#define CHAINS_FIRST    256

static uint64_t now_ns(void)
{
	struct clock clock = clock_monotonic();
	return clock_now_ns(&clock);
}

bool probe_is_own_error(int code)
{
	return code == EMFILE || code == ENFILE || code == ENOBUFS || code == ENOMEM ||
	       code == EADDRNOTAVAIL;
}

static struct probe_target *find_target(const struct probe *p, uint32_t id)
{
	struct probe_target *t = p->chains[id & p->chain_mask];
	while (t != NULL && t->what.id != id)
		t = t->chain;
	return t;
}

static void rest(struct probe_target *t, uint64_t delay_ms)
{
	struct timeval tv = { .tv_sec = (time_t)(delay_ms / 1000),
		.tv_usec = (suseconds_t)(delay_ms % 1000 * 1000) };
	t->state = PROBE_RESTING;
	event_add(t->timer, &tv);
}

static void begin(struct probe_target *t)
{
	t->state = PROBE_RUNNING;
	t->began_ns = now_ns();
	t->owner->n_running++;
	if (t->what.check.kind == SERVICE_CHECK_HTTP)
		probe_http_begin(t);
	else
		probe_tcp_begin(t);
}

static void run_queue(struct probe *p)
{
	// A try that ends before it returns comes back here: the outer loop goes on, the stack does not grow.
	if (p->is_queue_running)
		return;
	p->is_queue_running = true;
	while (p->queue_first != NULL && p->n_running < PROBE_IN_FLIGHT_MAX) {
		struct probe_target *t = p->queue_first;
		p->queue_first = t->next;
		if (p->queue_first == NULL)
			p->queue_last = NULL;
		t->next = NULL;
		begin(t);
	}
	p->is_queue_running = false;
}

static void leave_queue(struct probe_target *t)
{
	struct probe *p = t->owner;
	struct probe_target **link = &p->queue_first, *before = NULL;
	while (*link != t) {
		before = *link;
		link = &before->next;
	}
	*link = t->next;
	if (p->queue_last == t)
		p->queue_last = before;
	t->next = NULL;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct probe_target *t = arg;
	struct probe *p = t->owner;
	t->state = PROBE_QUEUED;
	if (p->queue_last != NULL)
		p->queue_last->next = t;
	else
		p->queue_first = t;
	p->queue_last = t;
	run_queue(p);
}

static void note_short(struct probe *p, const struct probe_target *t, const char *reason)
{
	char text[ADDRESS_TEXT_LEN + 10];
	if (!p->is_short)
		control_note(p->control, LOG_LEVEL_WARN, "probe-short",
			endpoint_format(&t->what.address, t->what.port, text, sizeof(text)),
			"cannot probe for a want of our own (%s); verdicts stay as they are",
			reason);
	p->is_short = true;
}

void probe_finish(struct probe_target *t, enum probe_result result, const char *reason)
{
	struct probe *p = t->owner;
	uint32_t id = t->what.id, delay_ms = t->what.check.interval_ms;
	uint64_t began_ns = t->began_ns;
	t->state = PROBE_RESTING;
	p->n_running--;
	if (result == PROBE_CANNOT) {
		note_short(p, t, reason);
	} else {
		p->is_short = false;
		delay_ms = control_probe_report(p->control, id, result == PROBE_GOOD, reason);
	}
	// The report may have changed what is wanted, this target too.
	t = find_target(p, id);
	if (t != NULL) {
		uint64_t took_ms = (now_ns() - began_ns) / CLOCK_MS;
		rest(t, delay_ms > took_ms + 10 ? delay_ms - took_ms : 10);
	}
	if (p->queue_first != NULL)
		run_queue(p);
}

// ---------------------------------------------------------------- hooks
static void grow_chains(struct probe *p)
{
	uint32_t n = 2 * (p->chain_mask + 1);
	struct probe_target **chains = calloc(n, sizeof(struct probe_target *));
	if (chains == NULL)
		return; // longer chains do as well
	for (uint32_t i = 0; i <= p->chain_mask; i++) {
		for (struct probe_target *t = p->chains[i], *after; t != NULL; t = after) {
			after = t->chain;
			t->chain = chains[t->what.id & (n - 1)];
			chains[t->what.id & (n - 1)] = t;
		}
	}
	free(p->chains);
	p->chains = chains;
	p->chain_mask = n - 1;
}

static void free_target(struct probe_target *t)
{
	struct probe *p = t->owner;
	if (t->state == PROBE_QUEUED)
		leave_queue(t);
	if (t->state == PROBE_RUNNING) {
		p->n_running--;
		if (t->what.check.kind == SERVICE_CHECK_HTTP)
			probe_http_cancel(t);
		else
			probe_tcp_cancel(t);
	}
	if (t->easy != NULL)
		curl_easy_cleanup(t->easy);
	event_free(t->timer);
	free(t);
	p->n_targets--;
}

static void on_start(void *arg, const struct control_probe *what)
{
	struct probe *p = arg;
	struct probe_target *t = calloc(1, sizeof(*t));
	if (t != NULL)
		t->timer = evtimer_new(p->base, on_timer, t);
	if (t == NULL || t->timer == NULL) {
		free(t);
		control_note(p->control, LOG_LEVEL_ERROR, "probe-short", "",
			"out of memory: a backend is not probed");
		return;
	}
	t->owner = p;
	t->what = *what;
	t->fd = -1;
	if (p->n_targets > p->chain_mask)
		grow_chains(p);
	t->chain = p->chains[what->id & p->chain_mask];
	p->chains[what->id & p->chain_mask] = t;
	p->n_targets++;
	rest(t, hash_stable(&what->address, sizeof(what->address), what->port) % FIRST_WITHIN_MS);
}

static void on_stop(void *arg, uint32_t id)
{
	struct probe *p = arg;
	struct probe_target **link = &p->chains[id & p->chain_mask];
	while (*link != NULL && (*link)->what.id != id)
		link = &(*link)->chain;
	struct probe_target *t = *link;
	if (t == NULL)
		return;
	*link = t->chain;
	free_target(t);
}

int probe_create(struct control *control, struct probe **out, struct error *err)
{
	static const struct control_probe_hooks hooks = { .start = on_start, .stop = on_stop };
	struct probe *p = calloc(1, sizeof(*p));
	if (p != NULL)
		p->chains = calloc(CHAINS_FIRST, sizeof(struct probe_target *));
	if (p == NULL || p->chains == NULL) {
		free(p);
		return error_add(err, ENOMEM, "", "out of memory");
	}
	p->chain_mask = CHAINS_FIRST - 1;
	p->control = control;
	p->base = control_base(control);
	control_set_probe_hooks(control, &hooks, p);
	*out = p;
	return 0;
}

void probe_destroy(struct probe *p)
{
	if (p == NULL)
		return;
	control_set_probe_hooks(p->control, NULL, NULL);
	for (uint32_t i = 0; i <= p->chain_mask; i++) {
		for (struct probe_target *t = p->chains[i], *after; t != NULL; t = after) {
			after = t->chain;
			free_target(t);
		}
	}
	probe_http_end(p);
	free(p->chains);
	free(p);
}
