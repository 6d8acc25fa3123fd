// SPDX-License-Identifier: BSD-3-Clause
// May we do what we must? Asked at start and then every ten minutes, one question after the other, rule by rule of the table that
// the RBAC manifest is made from. What is missing is said with the rule to add; nothing waits for the answers.
#include "core_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ACCESS_AGAIN_S   600
#define ACCESS_RETRY_S   10
#define ACCESS_BODY_MAX  65536
#define ACCESS_RULES_MAX 64
#define ACCESS_VERBS_MAX 6

struct cluster_access {
	struct source_cluster *cluster;
	struct cluster_call *call;
	struct event *timer;
	uint32_t rule_idx, verb_idx; // of the question that is next, or under way
	bool is_missing[ACCESS_RULES_MAX][ACCESS_VERBS_MAX];
	int status;
	char body[ACCESS_BODY_MAX];
	size_t body_len;
};

static void ask_next(struct cluster_access *a);

// Labels of namespaces are asked about also while no pool wants them: one may at any time.
static bool is_needed(const struct source_cluster *c, const struct kube_rule *rule)
{
	return rule->need != KUBE_NEED_GATE || c->gate != NULL;
}

static void timer_set(struct cluster_access *a, time_t s)
{
	struct timeval wait = { .tv_sec = s };
	evtimer_add(a->timer, &wait);
}

// Said when it becomes known, not with every round.
static void take_answer(struct cluster_access *a, bool is_allowed)
{
	const struct kube_rule *rule = kube_rule_at(a->rule_idx);
	const struct cluster_voice *voice = &a->cluster->voice;
	bool *missing = &a->is_missing[a->rule_idx][a->verb_idx];
	char text[1024];
	if (!is_allowed && !*missing)
		cluster_say(voice, LOG_LEVEL_ERROR, "permission-missing", rule->resource, "%s",
			kube_rule_complain(rule, rule->verbs[a->verb_idx], text, sizeof(text)));
	if (is_allowed && *missing)
		cluster_say(voice, LOG_LEVEL_INFO, "permission-granted", rule->resource, "%s %s",
			rule->verbs[a->verb_idx], rule->resource);
	*missing = !is_allowed;
}

static void on_head(void *arg, int status, uint32_t retry_after_s, const char *content_type)
{
	struct cluster_access *a = arg;
	a->status = status;
}

static void on_body(void *arg, const char *bytes, size_t len)
{
	struct cluster_access *a = arg;
	if (len > sizeof(a->body) - a->body_len)
		len = sizeof(a->body) - a->body_len;
	memcpy(a->body + a->body_len, bytes, len);
	a->body_len += len;
}

static void on_end(void *arg, enum cluster_end how, const char *why)
{
	struct cluster_access *a = arg;
	bool is_allowed = true;
	a->call = NULL;
	json_t *review = how == CLUSTER_END_CLEAN && a->status / 100 == 2
				 ? json_loadb(a->body, a->body_len, JSON_REJECT_DUPLICATES, NULL)
				 : NULL;
	int rc = review ? kube_review_read(review, &is_allowed) : -EINVAL;
	json_decref(review);
	if (rc != 0) { // no answer: the same question again
		timer_set(a, ACCESS_RETRY_S);
		return;
	}
	take_answer(a, is_allowed);
	a->verb_idx++;
	ask_next(a);
}

static void ask(struct cluster_access *a, const struct kube_rule *rule)
{
	struct kube_write write = { 0 };
	a->status = 0;
	a->body_len = 0;
	if (kube_write_review(rule, rule->verbs[a->verb_idx], a->cluster->namespace, &write) == 0) {
		struct cluster_request request = {
			.method = write.method,
			.path = write.target,
			.content_type = write.content_type,
			.body = write.body,
			.body_len = write.body_len,
			.head = on_head,
			.body_part = on_body,
			.end = on_end,
			.arg = a,
		};
		a->call = cluster_http_begin(a->cluster->http, &request);
	}
	kube_write_fini(&write);
	if (a->call == NULL)
		timer_set(a, ACCESS_RETRY_S);
}

static void ask_next(struct cluster_access *a)
{
	uint32_t n = kube_rule_count();
	for (; a->rule_idx < n && a->rule_idx < ACCESS_RULES_MAX; a->rule_idx++, a->verb_idx = 0) {
		const struct kube_rule *rule = kube_rule_at(a->rule_idx);
		if (!is_needed(a->cluster, rule) || a->verb_idx >= ACCESS_VERBS_MAX ||
			rule->verbs[a->verb_idx] == NULL)
			continue;
		ask(a, rule);
		return;
	}
	a->rule_idx = a->verb_idx = 0;
	timer_set(a, ACCESS_AGAIN_S);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	ask_next(arg);
}

int cluster_access_start(struct source_cluster *c)
{
	struct cluster_access *a = calloc(1, sizeof(*a));
	if (a == NULL)
		return -ENOMEM;
	a->cluster = c;
	a->timer = evtimer_new(c->base, on_timer, a);
	if (a->timer == NULL) {
		free(a);
		return -ENOMEM;
	}
	c->access = a;
	timer_set(a, 0);
	return 0;
}

void cluster_access_end(struct source_cluster *c)
{
	struct cluster_access *a = c->access;
	if (a == NULL)
		return;
	if (a->call)
		cluster_http_cancel(a->call);
	event_free(a->timer);
	free(a);
	c->access = NULL;
}

uint32_t cluster_access_missing(const struct source_cluster *c)
{
	uint32_t n = 0;
	for (uint32_t i = 0; c->access && i < ACCESS_RULES_MAX; i++)
		for (uint32_t k = 0; k < ACCESS_VERBS_MAX; k++)
			n += c->access->is_missing[i][k];
	return n;
}
