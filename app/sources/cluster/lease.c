// SPDX-License-Identifier: BSD-3-Clause
// Who leads, and who is there. The Lease `leader` is held by one node: that one gives addresses and writes. The Lease node-<name> is
// this node's own sign of life; its annotation says up to which version of Services this node serves, so that the leader can
// tell on how many nodes a VIP is in force. The Leases of all are followed as a resource.
#include "core_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define APPLIED     "sluice-lb.github.io/applied" // annotation of a node's Lease
#define NODE_PREFIX "node-"
#define BODY_MAX    65536
#define END_MS      500 // at most, to give the lead back at the end
#define NODES_MAX   256
#define LONELY_NS   (30 * CLOCK_S) // without a leader, until that is said

struct cluster_lease { // one of the two
	struct cluster_leases *leases;
	struct kube_lease *lease;
	bool is_own;
	struct cluster_call *call;
	struct event *timer;
	int status;
	char body[BODY_MAX];
	size_t body_len;
	bool is_done;
	char told[256]; // trouble that was said last
};

struct cluster_peer { // a node's Lease as it is followed
	char name[SERVICE_NAME_MAX];
	uint64_t hash;    // of its spec
	uint64_t seen_ns; // when that last changed, by our clock
	uint64_t duration_ns;
	uint64_t applied; // version of Services
	bool is_marked;
};

struct cluster_leases {
	struct source_cluster *cluster;
	struct cluster_lease leader, own;
	uint64_t free_ns; // since when nobody leads, 0 = somebody does
	bool is_lonely;   // that was said
	bool is_leading;  // as it was told last
	char path[256];
	struct cluster_feed feed;
	struct kube_sink sink;
	struct cluster_peer peers[NODES_MAX];
	uint32_t n_peers;
	uint64_t applied; // version of Services that is in force here
};

static void lease_step(struct cluster_lease *l);

static int64_t wall_us(void)
{
	return clock_wall_ms() * 1000;
}

// ---------------------------------------------------------------- one lease

static void on_head(void *arg, int status, uint32_t retry_after_s, const char *content_type)
{
	struct cluster_lease *l = arg;
	l->status = status;
}

static void on_body(void *arg, const char *bytes, size_t len)
{
	struct cluster_lease *l = arg;
	if (len > sizeof(l->body) - l->body_len)
		len = sizeof(l->body) - l->body_len;
	memcpy(l->body + l->body_len, bytes, len);
	l->body_len += len;
}

static void on_end(void *arg, enum cluster_end how, const char *why)
{
	struct cluster_lease *l = arg;
	l->call = NULL;
	kube_lease_answer(l->lease, cluster_now_ns(), how == CLUSTER_END_CLEAN ? l->status : 0,
		l->body, l->body_len);
	lease_step(l);
}

// The body with what this node has in force. gives; NULL: out of memory.
static char *body_annotated(const struct kube_lease_request *wanted, uint64_t applied)
{
	char text[32];
	json_t *lease = json_loadb(wanted->body, wanted->body_len, 0, NULL);
	json_t *metadata = json_object_get(lease, "metadata");
	json_t *annotations = json_object_get(metadata, "annotations");
	snprintf(text, sizeof(text), "%llu", (unsigned long long)applied);
	if (annotations == NULL) {
		annotations = json_object();
		json_object_set_new(metadata, "annotations", annotations);
	}
	json_object_set_new(annotations, APPLIED, json_string(text));
	char *body = lease ? json_dumps(lease, JSON_COMPACT) : NULL;
	json_decref(lease);
	return body;
}

static void lease_send(struct cluster_lease *l, const struct kube_lease_request *wanted)
{
	static const char *const methods[] = {
		[KUBE_LEASE_GET] = "GET",
		[KUBE_LEASE_POST] = "POST",
		[KUBE_LEASE_PUT] = "PUT",
	};
	struct source_cluster *c = l->leases->cluster;
	char *body = wanted->body && l->is_own && l->leases->applied
			     ? body_annotated(wanted, l->leases->applied)
			     : NULL;
	struct cluster_request request = {
		.method = methods[wanted->method],
		.path = wanted->path,
		.content_type = wanted->body ? "application/json" : NULL,
		.body = body ? body : wanted->body,
		.body_len = body ? strlen(body) : wanted->body_len,
		.head = on_head,
		.body_part = on_body,
		.end = on_end,
		.arg = l,
	};
	l->status = 0;
	l->body_len = 0;
	l->call = cluster_http_begin(c->http, &request);
	free(body);
	if (l->call == NULL)
		kube_lease_answer(l->lease, cluster_now_ns(), 0, NULL, 0);
}

static void tell_trouble(struct cluster_lease *l)
{
	const struct kube_lease_status *status = kube_lease_status(l->lease);
	if (strcmp(status->trouble_text, l->told) == 0)
		return;
	snprintf(l->told, sizeof(l->told), "%s", status->trouble_text);
	if (l->told[0])
		cluster_say(&l->leases->cluster->voice, LOG_LEVEL_DEBUG, "lease-trouble",
			l->is_own ? "own" : "leader", "%s", l->told);
}

static void look_leading(struct cluster_leases *leases)
{
	struct source_cluster *c = leases->cluster;
	bool is_leading = kube_lease_is_held(leases->leader.lease, cluster_now_ns());
	if (is_leading == leases->is_leading)
		return;
	leases->is_leading = is_leading;
	cluster_say(&c->voice, LOG_LEVEL_INFO, is_leading ? "leading" : "following", c->node_name,
		is_leading ? "this node gives addresses and writes status"
			   : "another node gives addresses and writes status, or nobody");
	cluster_writer_lead(c, is_leading);
}

static void lease_step(struct cluster_lease *l)
{
	struct kube_lease_request request;
	tell_trouble(l);
	if (!l->is_own)
		look_leading(l->leases);
	for (;;) {
		uint64_t now_ns = cluster_now_ns(), until_ns = 0;
		switch (kube_lease_next(l->lease, now_ns, wall_us(), &request)) {
		case KUBE_LEASE_REQUEST:
			lease_send(l, &request);
			continue;
		case KUBE_LEASE_ABANDON:
			if (l->call)
				cluster_http_cancel(l->call);
			l->call = NULL;
			continue;
		case KUBE_LEASE_DONE:
			l->is_done = true;
			return;
		default:
			until_ns = request.until_ns;
		}
		// The end of the lead is told when it comes, also when no answer does.
		uint64_t held_ns = l->is_own ? 0 : kube_lease_held_until_ns(l->lease);
		if (held_ns > now_ns && held_ns < until_ns)
			until_ns = held_ns;
		uint64_t wait_us = until_ns > now_ns ? (until_ns - now_ns) / CLOCK_US + 1 : 0;
		struct timeval wait = { (time_t)(wait_us / 1000000),
			(suseconds_t)(wait_us % 1000000) };
		evtimer_add(l->timer, &wait);
		return;
	}
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	lease_step(arg);
}

static int lease_init(struct cluster_lease *l, struct cluster_leases *leases,
	const struct kube_lease_config *config)
{
	struct timeval now = { 0 };
	l->leases = leases;
	l->is_own = config->kind == KUBE_LEASE_OWN;
	l->lease = kube_lease_create(config);
	l->timer = evtimer_new(leases->cluster->base, on_timer, l);
	if (l->lease == NULL || l->timer == NULL)
		return -ENOMEM;
	evtimer_add(l->timer, &now);
	return 0;
}

static void lease_fini(struct cluster_lease *l)
{
	if (l->call)
		cluster_http_cancel(l->call);
	if (l->timer)
		event_free(l->timer);
	kube_lease_destroy(l->lease);
	*l = (struct cluster_lease){ 0 };
}

// ---------------------------------------------------------------- the others

static struct cluster_peer *peer_find(struct cluster_leases *leases, const char *name, bool create)
{
	for (uint32_t i = 0; i < leases->n_peers; i++)
		if (strcmp(leases->peers[i].name, name) == 0)
			return &leases->peers[i];
	if (!create || leases->n_peers == NODES_MAX)
		return NULL;
	struct cluster_peer *peer = &leases->peers[leases->n_peers++];
	*peer = (struct cluster_peer){ 0 };
	snprintf(peer->name, sizeof(peer->name), "%s", name);
	return peer;
}

static void peer_remove(struct cluster_leases *leases, struct cluster_peer *peer)
{
	*peer = leases->peers[--leases->n_peers];
}

static void on_begin(void *arg)
{
	struct cluster_leases *leases = arg;
	for (uint32_t i = 0; i < leases->n_peers; i++)
		leases->peers[i].is_marked = false;
}

static void on_put(void *arg, json_t *object)
{
	struct cluster_leases *leases = arg;
	const json_t *metadata = json_object_get(object, "metadata");
	const json_t *spec = json_object_get(object, "spec");
	const char *name = json_string_value(json_object_get(metadata, "name"));
	const char *renewed = json_string_value(json_object_get(spec, "renewTime"));
	const char *applied = json_string_value(
		json_object_get(json_object_get(metadata, "annotations"), APPLIED));
	if (name == NULL || strncmp(name, NODE_PREFIX, strlen(NODE_PREFIX)) != 0)
		return;
	struct cluster_peer *peer = peer_find(leases, name + strlen(NODE_PREFIX), true);
	if (peer == NULL)
		return;
	json_int_t duration_s = json_integer_value(json_object_get(spec, "leaseDurationSeconds"));
	uint64_t hash = renewed ? hash_stable(renewed, strlen(renewed), 1) : 0;
	if (hash != peer->hash || peer->seen_ns == 0)
		peer->seen_ns = cluster_now_ns();
	peer->hash = hash;
	peer->duration_ns =
		(uint64_t)(duration_s > 0 && duration_s < 3600 ? duration_s : 0) * CLOCK_S;
	uint64_t version = applied ? strtoull(applied, NULL, 10) : 0;
	bool is_news = version != peer->applied;
	peer->applied = version;
	peer->is_marked = true;
	if (is_news)
		cluster_writer_recount(leases->cluster);
}

static void on_remove(void *arg, const char *namespace, const char *name)
{
	struct cluster_leases *leases = arg;
	if (strncmp(name, NODE_PREFIX, strlen(NODE_PREFIX)) != 0)
		return;
	struct cluster_peer *peer = peer_find(leases, name + strlen(NODE_PREFIX), false);
	if (peer)
		peer_remove(leases, peer);
}

static void on_list_end(void *arg)
{
	struct cluster_leases *leases = arg;
	for (uint32_t i = leases->n_peers; i-- > 0;)
		if (!leases->peers[i].is_marked)
			peer_remove(leases, &leases->peers[i]);
}

static void on_bad(void *arg, const char *namespace, const char *name, const char *reason)
{
}

void cluster_leases_count(const struct source_cluster *c, uint64_t version,
	uint32_t *out_programmed, uint32_t *out_nodes)
{
	const struct cluster_leases *leases = c->leases;
	uint64_t now_ns = cluster_now_ns();
	*out_nodes = 1; // this one
	*out_programmed = leases->applied >= version && version != 0;
	for (uint32_t i = 0; i < leases->n_peers; i++) {
		const struct cluster_peer *peer = &leases->peers[i];
		if (strcmp(peer->name, c->node_name) == 0 ||
			now_ns - peer->seen_ns > peer->duration_ns)
			continue;
		(*out_nodes)++;
		*out_programmed += peer->applied >= version && version != 0;
	}
}

// ---------------------------------------------------------------- public

void cluster_leases_applied(struct source_cluster *c, uint64_t version)
{
	if (c->leases && version > c->leases->applied)
		c->leases->applied = version;
}

bool cluster_leases_lead(const struct source_cluster *c)
{
	return c->leases && kube_lease_is_held(c->leases->leader.lease, cluster_now_ns());
}

const struct cluster_feed *cluster_leases_feed(const struct source_cluster *c)
{
	return c->leases ? &c->leases->feed : NULL;
}

// What waits for a leader is not seen anywhere else: a Service stays without address, a deleted one keeps its finalizer.
void cluster_leases_tick(struct source_cluster *c)
{
	struct cluster_leases *leases = c->leases;
	uint64_t now_ns = cluster_now_ns();
	if (leases == NULL || leases->leader.lease == NULL)
		return;
	if (!kube_lease_is_free(leases->leader.lease, now_ns)) {
		if (leases->is_lonely)
			cluster_say(&c->voice, LOG_LEVEL_INFO, "led-again",
				cluster_leases_leader(c), "this node leads");
		leases->is_lonely = false;
		leases->free_ns = 0;
		return;
	}
	if (leases->free_ns == 0)
		leases->free_ns = now_ns;
	if (leases->is_lonely || now_ns - leases->free_ns < LONELY_NS)
		return;
	leases->is_lonely = true;
	cluster_say(&c->voice, LOG_LEVEL_WARN, "nobody-leads", c->namespace,
		"no node has held the Lease leader for 30s; until one does, Services get no "
		"address, status or Event, and deleted ones keep their finalizer%s%s",
		leases->leader.told[0] ? "; here: " : "", leases->leader.told);
}

const char *cluster_leases_leader(const struct source_cluster *c)
{
	return c->leases ? kube_lease_status(c->leases->leader.lease)->holder : "";
}

int cluster_leases_start(struct source_cluster *c, const struct source_cluster_config *config)
{
	struct cluster_leases *leases = calloc(1, sizeof(*leases));
	struct kube_lease_config leader = kube_lease_config_default(KUBE_LEASE_ELECTION);
	struct kube_lease_config own = kube_lease_config_default(KUBE_LEASE_OWN);
	char name[128];
	if (leases == NULL)
		return -ENOMEM;
	c->leases = leases;
	leases->cluster = c;
	snprintf(name, sizeof(name), NODE_PREFIX "%s", c->node_name);
	leader.namespace = own.namespace = c->namespace;
	leader.name = "leader";
	own.name = name;
	leader.identity = own.identity = c->node_name;
	leader.lease_ms = config->lease_ms;
	leader.renew_deadline_ms = config->lease_renew_ms;
	leader.retry_ms = config->lease_retry_ms;
	own.lease_ms = 20000;
	own.renew_deadline_ms = 15000;
	own.retry_ms = 5000;
	if (getrandom(&leader.seed, sizeof(leader.seed), 0) != sizeof(leader.seed))
		leader.seed = cluster_now_ns();
	own.seed = leader.seed + 1;
	snprintf(leases->path, sizeof(leases->path),
		"/apis/coordination.k8s.io/v1/namespaces/%s/leases", c->namespace);
	leases->sink =
		(struct kube_sink){ on_begin, on_put, on_remove, on_list_end, on_bad, leases };
	struct cluster_feed_source source = { "leases", leases->path, "Lease", false, false };
	int rc = lease_init(&leases->leader, leases, &leader);
	if (rc == 0)
		rc = lease_init(&leases->own, leases, &own);
	if (rc == 0)
		rc = cluster_feed_init_other(&leases->feed, c, &source, &leases->sink);
	if (rc == 0)
		cluster_feed_start(&leases->feed);
	return rc;
}

static void on_end_limit(evutil_socket_t fd, short what, void *arg)
{
	*(bool *)arg = true;
}

// Gives the lead back, so that another node takes over at once and not when the Lease runs out.
static void lead_release(struct cluster_leases *leases)
{
	struct cluster_lease *l = &leases->leader;
	struct event_base *base = leases->cluster->base;
	struct timeval limit = { .tv_usec = END_MS * 1000 };
	bool is_over = false;
	struct event *timer = evtimer_new(base, on_end_limit, &is_over);
	if (timer == NULL)
		return;
	evtimer_add(timer, &limit);
	kube_lease_release(l->lease, cluster_now_ns());
	lease_step(l);
	while (!l->is_done && !is_over)
		if (event_base_loop(base, EVLOOP_ONCE) != 0)
			break;
	event_free(timer);
}

void cluster_leases_wake(struct source_cluster *c)
{
	if (c->leases)
		cluster_feed_wake(&c->leases->feed);
}

void cluster_leases_end(struct source_cluster *c)
{
	struct cluster_leases *leases = c->leases;
	if (leases == NULL)
		return;
	if (leases->leader.lease && kube_lease_is_held(leases->leader.lease, cluster_now_ns()))
		lead_release(leases);
	cluster_feed_fini(&leases->feed);
	lease_fini(&leases->leader);
	lease_fini(&leases->own);
	free(leases);
	c->leases = NULL;
}
