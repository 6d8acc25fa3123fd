// SPDX-License-Identifier: BSD-3-Clause
// The cluster source as a whole: makes its parts from the inside out, and carries what the model says to control, a slice at a
// time, so that a flood of events never holds up the loop.
#include "core_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define SOURCE_NAME   "kubernetes"
#define DRAIN_MAX     256 // changes of one turn of the loop
#define DRAIN_MAX_NS  (4 * CLOCK_MS)
#define DRAIN_RETRY_S 1

uint64_t cluster_now_ns(void)
{
	struct clock clock = clock_monotonic();
	return clock_now_ns(&clock);
}

static void note(
	void *arg, enum log_level level, const char *kind, const char *object, const char *text)
{
	struct source_cluster *c = arg;
	control_note(c->control, level, kind, object, "%s", text);
}

// ---------------------------------------------------------------- changes

void cluster_drain_soon(struct source_cluster *c)
{
	struct timeval now = { 0 };
	if (!evtimer_pending(c->drain, NULL))
		evtimer_add(c->drain, &now);
}

// Labels of namespaces are asked for only when a pool wants to know them.
static void look_namespaces(struct source_cluster *c)
{
	struct cluster_feed *feed = &c->feeds[KUBE_CLUSTER_NAMESPACES];
	const struct cluster_feed *pools = &c->feeds[KUBE_CLUSTER_POOLS];
	struct kube_pool pool;
	bool is_wanted = false;
	if (feed->reflector || pools->reflector == NULL ||
		(!pools->is_waived && !kube_reflector_status(pools->reflector)->is_synced))
		return;
	for (uint32_t i = 0; kube_cluster_pool_at(c->model, i, &pool) && !is_wanted; i++)
		is_wanted = pool.namespace_selector != NULL;
	if (is_wanted) {
		cluster_feed_start(feed);
	} else if (!feed->is_waived) {
		feed->is_waived = true;
		kube_cluster_begin(c->model, KUBE_CLUSTER_NAMESPACES);
		kube_cluster_end(c->model, KUBE_CLUSTER_NAMESPACES);
	}
}

// All that is known is in force.
static void drain_end(struct source_cluster *c)
{
	const struct kube_reflector *services = c->feeds[KUBE_CLUSTER_SERVICES].reflector;
	if (services)
		cluster_leases_applied(
			c, strtoull(kube_reflector_status(services)->last_rv, NULL, 10));
	if (cluster_leases_lead(c))
		cluster_addresses_run(c);
}

static void on_drain(evutil_socket_t fd, short what, void *arg)
{
	struct source_cluster *c = arg;
	struct kube_change change;
	uint64_t begin_ns = cluster_now_ns();
	struct timeval again = { .tv_sec = DRAIN_RETRY_S };
	look_namespaces(c);
	cluster_pools_look(c);
	if (!kube_cluster_is_synced(c->model))
		return;
	cluster_gate_drain(c);
	if (!c->is_applied) {
		int rc = cluster_apply_first(c);
		if (rc == -EAGAIN)
			cluster_drain_soon(c);
		else if (rc == -ENOMEM)
			evtimer_add(c->drain, &again);
		if (rc == -EAGAIN || rc == -ENOMEM)
			return;
		c->is_applied = true;
		control_set_synced(c->control, SOURCE_NAME, true);
	}
	for (uint32_t n = 0; n < DRAIN_MAX; n++) {
		if (!kube_cluster_next(c->model, &change)) {
			drain_end(c);
			return;
		}
		cluster_apply(c, &change);
		if (cluster_now_ns() - begin_ns > DRAIN_MAX_NS)
			break;
	}
	cluster_drain_soon(c);
}

static void on_guard(evutil_socket_t fd, short what, void *arg)
{
	cluster_guard_tick(arg);
	cluster_leases_tick(arg);
}

// ---------------------------------------------------------------- credentials

static void on_credentials(void *arg)
{
	struct source_cluster *c = arg;
	if (c->http == NULL)
		return;
	cluster_http_wake(c->http);
	for (uint32_t i = 0; i < KUBE_CLUSTER_RESOURCES; i++)
		cluster_feed_wake(&c->feeds[i]);
	cluster_leases_wake(c);
}

// ---------------------------------------------------------------- its life

// What no endpoint and no VIP may be: what the caller says, and the API server where its address is known.
static int refused_copy(struct source_cluster *c, const struct source_cluster_config *config)
{
	struct address server;
	c->refused = calloc(config->n_refused + 1, sizeof(*c->refused));
	if (c->refused == NULL)
		return -ENOMEM;
	c->n_refused = config->n_refused;
	if (c->n_refused)
		memcpy(c->refused, config->refused, c->n_refused * sizeof(*c->refused));
	if (address_parse(cluster_auth_kubeconfig(c->auth)->host, &server) == 0)
		c->refused[c->n_refused++] = (struct prefix){ .address = server,
			.len = address_is_v4(&server) ? 32 : 128 };
	return 0;
}

static int model_create(
	struct source_cluster *c, const struct source_cluster_config *config, struct error *err)
{
	struct kube_cluster_config model = {
		.defaults = *control_defaults(c->control),
		.class_name = config->class_name,
		.is_default_class = config->is_default_class,
		.zone = config->zone,
		.finalizer = config->finalizer,
		.refused = c->refused,
		.n_refused = c->n_refused,
		.resources = 1u << KUBE_CLUSTER_SERVICES | 1u << KUBE_CLUSTER_SLICES |
			     1u << KUBE_CLUSTER_NODES | 1u << KUBE_CLUSTER_NAMESPACES |
			     1u << KUBE_CLUSTER_POOLS |
			     (config->has_gate ? 1u << KUBE_CLUSTER_PODS : 0),
		.allowed = cluster_pools_allow,
		.arg = c,
	};
	if (getrandom(&model.key, sizeof(model.key), 0) == sizeof(model.key))
		c->model = kube_cluster_create(&model);
	return c->model ? 0 : error_add(err, ENOMEM, "kubernetes", "out of memory");
}

static int texts_copy(struct source_cluster *c, const struct source_cluster_config *config)
{
	c->namespace = strdup(config->namespace);
	c->node_name = strdup(config->node_name);
	c->finalizer = strdup(config->finalizer);
	return c->namespace && c->node_name && c->finalizer ? 0 : -ENOMEM;
}

static int parts_create(
	struct source_cluster *c, const struct source_cluster_config *config, struct error *err)
{
	struct cluster_auth_config auth = {
		.base = c->base,
		.kubeconfig_path = config->kubeconfig,
		.voice = c->voice,
		.changed = on_credentials,
		.arg = c,
	};
	int rc = cluster_auth_create(&auth, &c->auth, err);
	if (rc == 0)
		rc = cluster_http_create(c->base, c->auth, &c->voice, &c->http);
	if (rc == 0)
		rc = refused_copy(c, config);
	if (rc == 0)
		rc = cluster_pools_init(c, config, err);
	if (rc == 0)
		rc = model_create(c, config, err);
	if (rc == 0)
		rc = texts_copy(c, config);
	for (uint32_t i = 0; i < KUBE_CLUSTER_RESOURCES && rc == 0; i++)
		rc = cluster_feed_init(&c->feeds[i], c, (enum kube_cluster_resource)i);
	if (rc == -ENOMEM && err && err->n_items == 0)
		error_add(err, ENOMEM, "kubernetes", "out of memory");
	return rc;
}

static int edges_start(struct source_cluster *c, const struct source_cluster_config *config)
{
	int rc = cluster_access_start(c);
	if (rc == 0)
		rc = cluster_voices_start(c);
	if (rc == 0)
		rc = cluster_writer_start(c);
	if (rc == 0)
		rc = cluster_pool_status_start(c);
	if (rc == 0 && config->has_gate)
		rc = cluster_gate_start(c);
	if (rc == 0)
		rc = cluster_leases_start(c, config);
	return rc;
}

int source_cluster_create(struct control *control, const struct source_cluster_config *config,
	struct source_cluster **out, struct error *err)
{
	static const enum kube_cluster_resource followed[] = { KUBE_CLUSTER_SERVICES,
		KUBE_CLUSTER_SLICES, KUBE_CLUSTER_NODES, KUBE_CLUSTER_POOLS };
	struct source_cluster *c = calloc(1, sizeof(*c));
	if (c == NULL)
		return error_add(err, ENOMEM, "kubernetes", "out of memory");
	c->control = control;
	c->base = control_base(control);
	c->voice = (struct cluster_voice){ note, c };
	c->drain = evtimer_new(c->base, on_drain, c);
	c->guard = event_new(c->base, -1, EV_PERSIST, on_guard, c);
	int rc = c->drain && c->guard ? parts_create(c, config, err)
				      : error_add(err, ENOMEM, "kubernetes", "out of memory");
	bool is_loaded = false;
	if (rc == 0)
		rc = edges_start(c, config);
	if (rc == 0 && cluster_outage_start(c, config, &is_loaded) != 0)
		rc = error_add(err, ENOMEM, "kubernetes", "out of memory");
	if (rc != 0) {
		source_cluster_destroy(c);
		return rc;
	}
	control_set_cluster_hook(control, cluster_tell, c);
	control_set_release_hook(control, cluster_guard_release, c);
	// The last good state is as good as it was before the start: ready.
	control_set_synced(control, SOURCE_NAME, is_loaded);
	if (cluster_auth_get(c->auth) == NULL)
		cluster_say(&c->voice, LOG_LEVEL_WARN, "credentials-missing",
			cluster_auth_kubeconfig(c->auth)->server, "%s", cluster_auth_why(c->auth));
	for (uint32_t i = 0; i < ARRAY_SIZE(followed); i++)
		cluster_feed_start(&c->feeds[followed[i]]);
	if (config->has_gate)
		cluster_feed_start(&c->feeds[KUBE_CLUSTER_PODS]);
	evtimer_add(c->guard, &(struct timeval){ .tv_sec = 1 });
	*out = c;
	return 0;
}

int source_cluster_check(const char *kubeconfig, struct error *err)
{
	struct kubeconfig *k = NULL;
	int rc = kubeconfig[0] ? kubeconfig_load(kubeconfig, &k, err, NULL)
			       : kubeconfig_in_cluster(NULL, &k, err);
	if (rc == 0)
		kubeconfig_destroy(k);
	return rc;
}

void source_cluster_set_defaults(struct source_cluster *c, const struct service_defaults *defaults)
{
	kube_cluster_set_defaults(c->model, defaults);
	cluster_feed_relist(&c->feeds[KUBE_CLUSTER_SERVICES]);
}

void source_cluster_destroy(struct source_cluster *c)
{
	if (c == NULL)
		return;
	control_set_cluster_hook(c->control, NULL, NULL);
	control_set_release_hook(c->control, NULL, NULL);
	cluster_leases_end(c);
	cluster_gate_end(c);
	cluster_pool_status_end(c);
	cluster_writer_end(c);
	cluster_voices_end(c);
	cluster_access_end(c);
	cluster_outage_end(c);
	for (uint32_t i = 0; i < KUBE_CLUSTER_RESOURCES; i++)
		cluster_feed_fini(&c->feeds[i]);
	cluster_http_destroy(c->http);
	cluster_auth_destroy(c->auth);
	cluster_pools_fini(c);
	if (c->model)
		kube_cluster_destroy(c->model);
	cluster_first_fini(c);
	cluster_records_fini(&c->records);
	if (c->drain)
		event_free(c->drain);
	if (c->guard)
		event_free(c->guard);
	free(c->namespace);
	free(c->node_name);
	free(c->finalizer);
	free(c);
}
