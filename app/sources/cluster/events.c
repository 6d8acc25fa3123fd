// SPDX-License-Identifier: BSD-3-Clause
// Events on Services, by the node that leads: one request at a time, in the series that keep a flood of repeats to a few writes.
#include "core_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct cluster_voices {
	struct source_cluster *cluster;
	struct kube_series *series;
	struct cluster_call *call;
	struct event *timer;
	int status;
};

static void voices_step(struct cluster_voices *v);

static int64_t wall_us(void)
{
	return clock_wall_ms() * 1000;
}

static void on_head(void *arg, int status, uint32_t retry_after_s, const char *content_type)
{
	struct cluster_voices *v = arg;
	v->status = status;
}

static void on_end(void *arg, enum cluster_end how, const char *why)
{
	struct cluster_voices *v = arg;
	v->call = NULL;
	kube_series_answer(v->series, cluster_now_ns(), how == CLUSTER_END_CLEAN ? v->status : 0);
	voices_step(v);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	voices_step(arg);
}

static void voices_step(struct cluster_voices *v)
{
	struct kube_write write = { 0 };
	uint64_t until_ns = 0, now_ns = cluster_now_ns();
	if (v->call || !cluster_leases_lead(v->cluster))
		return;
	if (!kube_series_next(v->series, now_ns, wall_us(), &write, &until_ns)) {
		if (until_ns == UINT64_MAX)
			return;
		uint64_t wait_ns = until_ns > now_ns ? until_ns - now_ns : 0;
		struct timeval wait = { (time_t)(wait_ns / CLOCK_S),
			(suseconds_t)(wait_ns % CLOCK_S / CLOCK_US + 1) };
		evtimer_add(v->timer, &wait);
		return;
	}
	struct cluster_request request = {
		.method = write.method,
		.path = write.target,
		.content_type = write.content_type,
		.body = write.body,
		.body_len = write.body_len,
		.head = on_head,
		.end = on_end,
		.arg = v,
	};
	v->status = 0;
	v->call = cluster_http_begin(v->cluster->http, &request);
	kube_write_fini(&write);
	if (v->call == NULL)
		kube_series_answer(v->series, now_ns, 0);
}

void cluster_voices_add(struct source_cluster *c, const struct cluster_record *record,
	bool is_warning, const char *reason, const char *action, const char *fmt, ...)
{
	char note[KUBE_NOTE_MAX];
	va_list ap;
	if (c->voices == NULL || !cluster_leases_lead(c) || record->object == NULL)
		return;
	va_start(ap, fmt);
	vsnprintf(note, sizeof(note), fmt, ap);
	va_end(ap);
	struct kube_event event = {
		.api_version = "v1",
		.kind = "Service",
		.namespace = record->namespace,
		.name = record->object,
		.uid = record->uid,
		.reason = reason,
		.action = action,
		.is_warning = is_warning,
		.note = note,
	};
	kube_series_add(c->voices->series, &event, cluster_now_ns(), wall_us());
	voices_step(c->voices);
}

int cluster_voices_start(struct source_cluster *c)
{
	struct cluster_voices *v = calloc(1, sizeof(*v));
	uint64_t seed = 0;
	if (v == NULL)
		return -ENOMEM;
	c->voices = v;
	v->cluster = c;
	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		seed = cluster_now_ns();
	v->series = kube_series_create(KUBE_CONTROLLER, c->node_name, seed);
	v->timer = evtimer_new(c->base, on_timer, v);
	return v->series && v->timer ? 0 : -ENOMEM;
}

void cluster_voices_end(struct source_cluster *c)
{
	struct cluster_voices *v = c->voices;
	if (v == NULL)
		return;
	if (v->call)
		cluster_http_cancel(v->call);
	if (v->timer)
		event_free(v->timer);
	kube_series_destroy(v->series);
	free(v);
	c->voices = NULL;
}
