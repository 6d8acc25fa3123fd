// SPDX-License-Identifier: BSD-3-Clause
// The readiness gate of pods (sluice-lb.github.io/healthy), where it is switched on: a pod that asks for it is ready only when sluice
// itself has found it well, so that a rollout waits for what clients would meet. The node that leads looks once a second at what
// its probes say of each such pod's addresses and writes the condition where it says something else; one write at a time. A pod
// that no Service leads to has no probe, and nothing is said of it.
#include "core_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TICK_S     1
#define REFUSED_NS (10 * CLOCK_S)
#define SETTLE_NS  (500 * CLOCK_MS) // until what was written is seen

struct gate_pod {
	char *namespace; // one allocation with name
	char *name;
	uint64_t not_before_ns;
};

struct gate_address { // of a pod, sorted
	struct address address;
	uint32_t pod_idx;
};

struct gate_count { // of a pod's probes
	uint32_t n, n_up;
};

struct cluster_gate {
	struct source_cluster *cluster;
	struct event *timer, *next;
	struct cluster_call *call;
	char writing[2][256]; // namespace, name
	int status;
	bool is_failing; // said
	struct gate_pod *pods;
	uint32_t n_pods, cap;
};

// ---------------------------------------------------------------- which pods

static struct gate_pod *pod_find(struct cluster_gate *g, const char *namespace, const char *name)
{
	for (uint32_t i = 0; i < g->n_pods; i++)
		if (strcmp(g->pods[i].name, name) == 0 &&
			strcmp(g->pods[i].namespace, namespace) == 0)
			return &g->pods[i];
	return NULL;
}

static void pod_add(struct cluster_gate *g, const char *namespace, const char *name)
{
	size_t len = strlen(namespace) + 1;
	if (pod_find(g, namespace, name) || array_grow(g->pods, g->n_pods, g->cap) != 0)
		return;
	char *texts = malloc(len + strlen(name) + 1);
	if (texts == NULL)
		return;
	g->pods[g->n_pods++] = (struct gate_pod){ .namespace = strcpy(texts, namespace),
		.name = strcpy(texts + len, name) };
}

static void pod_remove(struct cluster_gate *g, const char *namespace, const char *name)
{
	struct gate_pod *pod = pod_find(g, namespace, name);
	if (pod == NULL)
		return;
	free(pod->namespace);
	*pod = g->pods[--g->n_pods];
}

void cluster_gate_drain(struct source_cluster *c)
{
	struct kube_pod pod;
	while (c->gate && kube_cluster_next_pod(c->model, &pod)) {
		if (pod.is_gone)
			pod_remove(c->gate, pod.namespace, pod.name);
		else
			pod_add(c->gate, pod.namespace, pod.name);
	}
}

// ---------------------------------------------------------------- what the probes say

struct gate_survey {
	struct gate_address *addresses;
	uint32_t n_addresses, cap;
	struct gate_count *counts; // by pod
};

static int compare_addresses(const void *a, const void *b)
{
	const struct gate_address *x = a, *y = b;
	return address_compare(&x->address, &y->address);
}

static bool survey_backend(void *arg, const struct control_backend_status *status)
{
	struct gate_survey *survey = arg;
	struct gate_address key = { .address = status->backend->address };
	const struct gate_address *found = bsearch(
		&key, survey->addresses, survey->n_addresses, sizeof(key), compare_addresses);
	if (found == NULL)
		return true;
	struct gate_count *count = &survey->counts[found->pod_idx];
	count->n++;
	// Without a check there is nothing that could speak against it.
	count->n_up += strcmp(status->verdict_active, "up") == 0 ||
		       strcmp(status->verdict_active, "off") == 0;
	return true;
}

static void survey_addresses(struct cluster_gate *g, struct gate_survey *survey)
{
	struct kube_pod pod;
	for (uint32_t i = 0; i < g->n_pods; i++) {
		if (!kube_cluster_find_pod(
			    g->cluster->model, g->pods[i].namespace, g->pods[i].name, &pod))
			continue;
		for (uint32_t k = 0; k < pod.n_addresses; k++) {
			if (array_grow(survey->addresses, survey->n_addresses, survey->cap) != 0)
				return;
			survey->addresses[survey->n_addresses++] =
				(struct gate_address){ pod.addresses[k], i };
		}
	}
	if (survey->n_addresses)
		qsort(survey->addresses, survey->n_addresses, sizeof(*survey->addresses),
			compare_addresses);
}

// ---------------------------------------------------------------- writes

static void on_head(void *arg, int status, uint32_t retry_after_s, const char *content_type)
{
	struct cluster_gate *g = arg;
	g->status = status;
}

static void on_end(void *arg, enum cluster_end how, const char *why)
{
	struct cluster_gate *g = arg;
	struct timeval now = { 0 };
	struct gate_pod *pod = pod_find(g, g->writing[0], g->writing[1]);
	bool is_done = how == CLUSTER_END_CLEAN &&
		       (g->status / 100 == 2 || g->status == 404 || g->status == 409);
	g->call = NULL;
	if (pod)
		pod->not_before_ns = cluster_now_ns() + (is_done ? SETTLE_NS : REFUSED_NS);
	if (!is_done && !g->is_failing)
		cluster_say(&g->cluster->voice, LOG_LEVEL_WARN, "gate-not-written", g->writing[1],
			"answer %d%s%s", g->status, why[0] ? ", " : "", why);
	g->is_failing = !is_done;
	evtimer_add(g->next, &now);
}

static bool pod_write(
	struct cluster_gate *g, const struct kube_pod *pod, const struct gate_count *count)
{
	struct kube_write body = { 0 };
	bool is_well = count->n_up == count->n;
	struct kube_condition condition = { .truth = is_well ? KUBE_TRUE : KUBE_FALSE,
		.reason = is_well ? "ProbePassed" : "ProbeFailed",
		.since_s = clock_wall_ms() / 1000 };
	snprintf(condition.message, sizeof(condition.message), "%u of %u checks of %s pass",
		count->n_up, count->n, g->cluster->node_name);
	if (kube_write_pod(pod, KUBE_GATE, &condition, &body) != 0)
		return false;
	struct cluster_request request = {
		.method = body.method,
		.path = body.target,
		.content_type = body.content_type,
		.body = body.body,
		.body_len = body.body_len,
		.head = on_head,
		.end = on_end,
		.arg = g,
	};
	snprintf(g->writing[0], sizeof(g->writing[0]), "%s", pod->namespace);
	snprintf(g->writing[1], sizeof(g->writing[1]), "%s", pod->name);
	g->status = 0;
	g->call = cluster_http_begin(g->cluster->http, &request);
	kube_write_fini(&body);
	return g->call != NULL;
}

// The first pod whose condition says something else than the probes.
static void write_first(struct cluster_gate *g, const struct gate_survey *survey)
{
	uint64_t now_ns = cluster_now_ns();
	for (uint32_t i = 0; i < g->n_pods; i++) {
		struct kube_pod pod;
		const struct gate_count *count = &survey->counts[i];
		if (count->n == 0 || now_ns < g->pods[i].not_before_ns ||
			!kube_cluster_find_pod(
				g->cluster->model, g->pods[i].namespace, g->pods[i].name, &pod))
			continue;
		bool is_well = count->n_up == count->n;
		if ((!pod.is_marked || pod.is_healthy != is_well) && pod_write(g, &pod, count))
			return;
	}
}

static void look(struct cluster_gate *g)
{
	struct gate_survey survey = { 0 };
	if (g->call || g->n_pods == 0 || !cluster_leases_lead(g->cluster))
		return;
	survey.counts = calloc(g->n_pods, sizeof(*survey.counts));
	if (survey.counts) {
		survey_addresses(g, &survey);
		control_each_backend(g->cluster->control, NULL, survey_backend, &survey);
		write_first(g, &survey);
	}
	free(survey.counts);
	free(survey.addresses);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	look(arg);
}

// ---------------------------------------------------------------- its life

int cluster_gate_start(struct source_cluster *c)
{
	struct timeval every = { .tv_sec = TICK_S };
	struct cluster_gate *g = calloc(1, sizeof(*g));
	if (g == NULL)
		return -ENOMEM;
	c->gate = g;
	g->cluster = c;
	g->timer = event_new(c->base, -1, EV_PERSIST, on_timer, g);
	g->next = evtimer_new(c->base, on_timer, g);
	if (g->timer == NULL || g->next == NULL)
		return -ENOMEM;
	evtimer_add(g->timer, &every);
	return 0;
}

void cluster_gate_end(struct source_cluster *c)
{
	struct cluster_gate *g = c->gate;
	if (g == NULL)
		return;
	if (g->call)
		cluster_http_cancel(g->call);
	if (g->timer)
		event_free(g->timer);
	if (g->next)
		event_free(g->next);
	for (uint32_t i = 0; i < g->n_pods; i++)
		free(g->pods[i].namespace);
	free(g->pods);
	free(g);
	c->gate = NULL;
}
