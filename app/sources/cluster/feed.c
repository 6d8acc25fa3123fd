// SPDX-License-Identifier: BSD-3-Clause
// One resource of the API: the reflector says what to send and when, this file sends it and brings the answers. Nothing is decided
// here but this: a resource that may not be read (403 before its first list) and without which Services can still be served counts
// as empty, so that one missing rule does not stop the rest.
#include "core_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define FEED_HEADER_MS 10000

static const struct cluster_feed_source resources[KUBE_CLUSTER_RESOURCES] = {
	[KUBE_CLUSTER_SERVICES] = { "services", "/api/v1/services", "Service", false, false },
	[KUBE_CLUSTER_SLICES] = { "endpointslices", "/apis/discovery.k8s.io/v1/endpointslices",
		"EndpointSlice", false, false },
	[KUBE_CLUSTER_NODES] = { "nodes", "/api/v1/nodes", "Node", false, true },
	[KUBE_CLUSTER_NAMESPACES] = { "namespaces", "/api/v1/namespaces", "Namespace", false,
		true },
	[KUBE_CLUSTER_POOLS] = { "addresspools", "/apis/sluice-lb.github.io/v1alpha1/addresspools",
		"AddressPool", true, true },
	[KUBE_CLUSTER_PODS] = { "pods", "/api/v1/pods", "Pod", false, true },
};

const char *cluster_resource_name(enum kube_cluster_resource resource)
{
	return resources[resource].name;
}

// ---------------------------------------------------------------- objects to the model

static void on_begin(void *arg)
{
	struct cluster_feed *feed = arg;
	feed->n_listed = 0;
	kube_cluster_begin(feed->cluster->model, feed->resource);
}

static void on_put(void *arg, json_t *object)
{
	struct cluster_feed *feed = arg;
	feed->n_listed++;
	if (feed->resource == KUBE_CLUSTER_SERVICES)
		cluster_writer_see(feed->cluster, object);
	if (feed->resource == KUBE_CLUSTER_POOLS)
		cluster_pool_status_see(feed->cluster, object);
	if (kube_cluster_put(feed->cluster->model, feed->resource, object) != 0)
		feed->is_lost = true;
}

static void on_remove(void *arg, const char *namespace, const char *name)
{
	struct cluster_feed *feed = arg;
	if (feed->resource == KUBE_CLUSTER_SERVICES)
		cluster_writer_unsee(feed->cluster, namespace, name);
	kube_cluster_remove(feed->cluster->model, feed->resource, namespace, name);
}

static void on_end(void *arg)
{
	struct cluster_feed *feed = arg;
	const struct kube_reflector_status *status = kube_reflector_status(feed->reflector);
	kube_cluster_end(feed->cluster->model, feed->resource);
	if (status->n_lists_complete <= 1)
		cluster_say(&feed->cluster->voice, LOG_LEVEL_INFO, "cluster-listed",
			feed->source.name, "%u objects", feed->n_listed);
	feed->is_waived = false;
}

static void on_bad(void *arg, const char *namespace, const char *name, const char *reason)
{
	struct cluster_feed *feed = arg;
	char object[160];
	snprintf(object, sizeof(object), "%s %.63s%s%.63s", feed->source.name, namespace,
		namespace[0] ? "/" : "", name);
	cluster_say(&feed->cluster->voice, LOG_LEVEL_WARN, "object-refused", object, "%s", reason);
	kube_cluster_keep(feed->cluster->model, feed->resource, namespace, name);
}

// ---------------------------------------------------------------- requests

static void feed_step(struct cluster_feed *feed);

static void on_head(void *arg, int status, uint32_t retry_after_s, const char *content_type)
{
	struct cluster_feed *feed = arg;
	kube_reflector_head(feed->reflector, cluster_now_ns(), status,
		retry_after_s ? (int64_t)retry_after_s : -1, content_type);
}

static void on_body(void *arg, const char *bytes, size_t len)
{
	struct cluster_feed *feed = arg;
	kube_reflector_body(feed->reflector, cluster_now_ns(), bytes, len);
	feed_step(feed);
	cluster_drain_soon(feed->cluster);
}

static void on_call_end(void *arg, enum cluster_end how, const char *why)
{
	static const enum kube_end ends[] = {
		[CLUSTER_END_CLEAN] = KUBE_END_CLEAN,
		[CLUSTER_END_REFUSED] = KUBE_END_REFUSED,
		[CLUSTER_END_TIMEOUT] = KUBE_END_TIMEOUT,
		[CLUSTER_END_BROKEN] = KUBE_END_BROKEN,
	};
	struct cluster_feed *feed = arg;
	feed->call = NULL;
	if (how != CLUSTER_END_CLEAN) {
		feed->n_errors++;
		snprintf(feed->last_error, sizeof(feed->last_error), "%s", why);
	}
	kube_reflector_end(feed->reflector, cluster_now_ns(), ends[how]);
	feed_step(feed);
	cluster_drain_soon(feed->cluster);
}

static void feed_send(struct cluster_feed *feed, const struct kube_request *wanted)
{
	struct cluster_request request = {
		.method = "GET",
		.path = wanted->target,
		.is_watch = wanted->is_watch,
		.timeout_ms = wanted->is_watch ? 0 : KUBE_LIST_TIMEOUT_MS,
		.header_ms = FEED_HEADER_MS,
		.head = on_head,
		.body_part = on_body,
		.end = on_call_end,
		.arg = feed,
	};
	feed->call = cluster_http_begin(feed->cluster->http, &request);
	if (feed->call == NULL)
		kube_reflector_end(feed->reflector, cluster_now_ns(), KUBE_END_BROKEN);
}

void cluster_feed_trouble(const struct cluster_feed *feed, char *out, size_t len)
{
	const struct kube_reflector_status *status = kube_reflector_status(feed->reflector);
	const struct cluster_auth *auth = feed->cluster->auth;
	const char *server = cluster_auth_kubeconfig(auth)->server;
	char whose[200];
	if (status->trouble == KUBE_TROUBLE_UNAUTHORIZED) {
		cluster_auth_name(auth, whose, sizeof(whose));
		snprintf(out, len,
			"%s: %s does not accept %s; allowed: what it knows and has not ended",
			status->trouble_text, server, whose);
	} else if (status->trouble != KUBE_TROUBLE_UNREACHABLE || feed->last_error[0] == '\0') {
		snprintf(out, len, "%s", status->trouble_text);
	} else if (strncmp(feed->last_error, "SSL", 3) == 0) {
		cluster_auth_trust(auth, whose, sizeof(whose));
		snprintf(out, len, "%s: %s: %s (%s)", status->trouble_text, server,
			feed->last_error, whose);
	} else {
		snprintf(out, len, "%s: %s: %s", status->trouble_text, server, feed->last_error);
	}
}

// Said when it begins, when it becomes another, and when it is over.
static void tell_trouble(struct cluster_feed *feed)
{
	const struct kube_reflector_status *status = kube_reflector_status(feed->reflector);
	const char *name = feed->source.name;
	char text[600];
	if (status->trouble == feed->told)
		return;
	feed->told = status->trouble;
	if (status->trouble == KUBE_TROUBLE_NONE) {
		cluster_say(&feed->cluster->voice, LOG_LEVEL_INFO, "cluster-back", name,
			"followed again");
		return;
	}
	cluster_feed_trouble(feed, text, sizeof(text));
	cluster_say(&feed->cluster->voice, LOG_LEVEL_WARN, "cluster-trouble", name, "%s: %s",
		kube_trouble_name(status->trouble), text);
}

// What may not be read and need not be is empty.
static void waive(struct cluster_feed *feed)
{
	const struct kube_reflector_status *status = kube_reflector_status(feed->reflector);
	if (feed->is_waived || feed->sink || status->is_synced ||
		status->trouble != KUBE_TROUBLE_FORBIDDEN || !feed->source.is_waivable)
		return;
	feed->is_waived = true;
	kube_cluster_begin(feed->cluster->model, feed->resource);
	kube_cluster_end(feed->cluster->model, feed->resource);
	cluster_drain_soon(feed->cluster);
}

static int reflector_create(struct cluster_feed *feed)
{
	struct kube_sink own = { on_begin, on_put, on_remove, on_end, on_bad, feed };
	struct kube_sink sink = feed->sink ? *feed->sink : own;
	struct kube_reflector_config config = {
		.path = feed->source.path,
		.kind = feed->source.kind,
		.is_optional = feed->source.is_optional,
	};
	if (getrandom(&config.seed, sizeof(config.seed), 0) != sizeof(config.seed))
		config.seed = cluster_now_ns();
	feed->reflector = kube_reflector_create(&config, &sink);
	return feed->reflector ? 0 : -ENOMEM;
}

static void feed_drop(struct cluster_feed *feed)
{
	if (feed->call)
		cluster_http_cancel(feed->call);
	feed->call = NULL;
	kube_reflector_destroy(feed->reflector);
	feed->reflector = NULL;
	feed->told = KUBE_TROUBLE_NONE;
}

// Begins anew, after an object that had no room.
static void feed_restart(struct cluster_feed *feed)
{
	feed->is_lost = false;
	feed_drop(feed);
	cluster_say(&feed->cluster->voice, LOG_LEVEL_ERROR, "cluster-trouble", feed->source.name,
		"out of memory: listed anew");
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct cluster_feed *feed = arg;
	if (feed->is_lost)
		feed_restart(feed);
	if (feed->reflector != NULL || reflector_create(feed) == 0)
		feed_step(feed);
}

static void timer_set(struct cluster_feed *feed, uint64_t until_ns)
{
	uint64_t now_ns = cluster_now_ns();
	uint64_t wait_us = until_ns > now_ns ? (until_ns - now_ns) / CLOCK_US + 1 : 0;
	struct timeval wait = { (time_t)(wait_us / 1000000), (suseconds_t)(wait_us % 1000000) };
	evtimer_add(feed->timer, &wait);
}

static void feed_step(struct cluster_feed *feed)
{
	struct kube_request request;
	tell_trouble(feed);
	waive(feed);
	if (feed->is_lost) {
		timer_set(feed, cluster_now_ns() + CLOCK_S);
		return;
	}
	for (;;) {
		switch (kube_reflector_next(feed->reflector, cluster_now_ns(), &request)) {
		case KUBE_STEP_REQUEST:
			feed_send(feed, &request);
			break;
		case KUBE_STEP_ABANDON:
			if (feed->call)
				cluster_http_cancel(feed->call);
			feed->call = NULL;
			break;
		default:
			timer_set(feed, request.until_ns);
			return;
		}
	}
}

// ---------------------------------------------------------------- its life

int cluster_feed_init(
	struct cluster_feed *feed, struct source_cluster *c, enum kube_cluster_resource resource)
{
	feed->resource = resource;
	return cluster_feed_init_other(feed, c, &resources[resource], NULL);
}

int cluster_feed_init_other(struct cluster_feed *feed, struct source_cluster *c,
	const struct cluster_feed_source *source, const struct kube_sink *sink)
{
	feed->cluster = c;
	feed->source = *source;
	feed->sink = sink;
	feed->timer = evtimer_new(c->base, on_timer, feed);
	return feed->timer ? 0 : -ENOMEM;
}

void cluster_feed_fini(struct cluster_feed *feed)
{
	if (feed->call)
		cluster_http_cancel(feed->call);
	if (feed->timer)
		event_free(feed->timer);
	kube_reflector_destroy(feed->reflector);
	*feed = (struct cluster_feed){ 0 };
}

void cluster_feed_start(struct cluster_feed *feed)
{
	if (feed->reflector == NULL && !evtimer_pending(feed->timer, NULL))
		timer_set(feed, 0);
}

void cluster_feed_relist(struct cluster_feed *feed)
{
	if (feed->reflector == NULL)
		return;
	feed_drop(feed);
	timer_set(feed, 0);
}

void cluster_feed_wake(struct cluster_feed *feed)
{
	if (feed->reflector == NULL)
		return;
	kube_reflector_wake(feed->reflector, cluster_now_ns());
	timer_set(feed, 0);
}
