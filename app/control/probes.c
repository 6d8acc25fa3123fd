// SPDX-License-Identifier: BSD-3-Clause
// Which probes are wanted, and what they said. Control decides, app/probe connects.
//
// One probe per distinct (address, port, check), however many services and listeners share it; found by a chained hash.
// A probe lives as long as a listed backend needs it. A new check of an endpoint that is probed already (an interval was
// edited) starts from the verdict of the old one, so that no dead backend comes back for the length of a probe.
#include "control_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ID_INDEX_BITS 20 // of an id: index; the rest says which use of the index it is

void control_probes_init(struct control *c)
{
	c->free_watched = CONTROL_NONE;
}

static void followed_free(struct control *c)
{
	for (uint32_t i = 0; i < c->n_followed; i++)
		free(c->followed[i]);
	free(c->followed);
	c->followed = NULL;
	c->n_followed = 0;
}

void control_probes_end(struct control *c)
{
	followed_free(c);
	free(c->watched);
	free(c->probe_chains);
}

// Same place and question; timing may differ. What the hash covers.
static bool is_same_target(const struct control_probe *a, const struct control_probe *b)
{
	return a->port == b->port && a->check.kind == b->check.kind &&
	       address_equal(&a->address, &b->address) && strcmp(a->check.path, b->check.path) == 0;
}

static bool is_same_probe(const struct control_probe *a, const struct control_probe *b)
{
	return is_same_target(a, b) && a->check.interval_ms == b->check.interval_ms &&
	       a->check.timeout_ms == b->check.timeout_ms && a->check.rise == b->check.rise &&
	       a->check.fall == b->check.fall;
}

static uint32_t probe_chain(const struct control *c, const struct control_probe *p)
{
	uint64_t h = hash_stable(
		&p->address, sizeof(p->address), (uint64_t)p->port << 8 | (uint64_t)p->check.kind);
	h ^= hash_stable(p->check.path, strlen(p->check.path), 1);
	return (uint32_t)h & (c->n_probe_chains - 1);
}

static uint32_t probe_find(const struct control *c, const struct control_probe *p)
{
	if (c->n_probe_chains == 0)
		return CONTROL_NONE;
	uint32_t idx = c->probe_chains[probe_chain(c, p)];
	while (idx != CONTROL_NONE && !is_same_probe(&c->watched[idx].probe, p))
		idx = c->watched[idx].next;
	return idx;
}

// ---------------------------------------------------------------- what to probe for a backend
static const struct service_backend *find_backend(const struct service *s,
	const struct address *address, const struct service_listener *l, uint16_t port)
{
	uint32_t low = 0, high = s->n_backends;
	while (low < high) {
		uint32_t mid = (low + high) / 2;
		if (address_compare(&s->backends[mid].address, address) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	for (; low < s->n_backends && address_equal(&s->backends[low].address, address); low++) {
		if (control_backend_port(&s->backends[low], l) == port)
			return &s->backends[low];
	}
	return NULL;
}

static uint16_t named_port(const struct service_backend *b, const char *listener)
{
	for (uint32_t i = 0; i < b->n_ports; i++) {
		if (strcmp(b->ports[i].listener, listener) == 0)
			return b->ports[i].port;
	}
	return 0;
}

static bool is_range(const struct service_listener *l)
{
	return l->port_max > l->port;
}

// A TCP question to the port of a UDP listener says something only where a TCP listener shares that port (DNS). No port of
// a range speaks for it: which ones are open is the application's affair.
static bool serves_tcp(const struct service *s, const struct service_backend *b, uint16_t port)
{
	for (uint32_t i = 0; i < s->n_listeners; i++) {
		if (s->listeners[i].protocol == NET_PROTO_TCP && !is_range(&s->listeners[i]) &&
			control_backend_port(b, &s->listeners[i]) == port)
			return true;
	}
	return false;
}

// false: nothing to probe (the cluster's word alone counts).
static bool probe_target(const struct service *s, const struct service_listener *l,
	const struct service_backend *b, uint16_t port, struct control_probe *out)
{
	const struct service_check *check = &s->check;
	if (check->kind == SERVICE_CHECK_NONE)
		return false;
	bool own_port = false;
	uint16_t other = check->port;
	if (other == 0 && check->port_name[0] != '\0')
		other = named_port(b, check->port_name);
	if (other == 0) {
		other = port;
		own_port = true;
	}
	if (own_port && (l->protocol != NET_PROTO_TCP || is_range(l)) && !serves_tcp(s, b, port))
		return false;
	memset(out, 0, sizeof(*out));
	out->address = b->address;
	out->port = other;
	out->check = *check;
	out->check.port = 0;
	out->check.port_name[0] = '\0';
	return true;
}

const struct health_probe *control_find_probe(const struct control *c, const struct service *s,
	const struct service_listener *l, const struct address *address, uint16_t port)
{
	struct control_probe target;
	const struct service_backend *b = find_backend(s, address, l, port);
	if (b == NULL || !probe_target(s, l, b, port, &target))
		return NULL;
	uint32_t idx = probe_find(c, &target);
	return idx != CONTROL_NONE ? &c->watched[idx].health : NULL;
}

enum health_probe_verdict control_probe_verdict(void *arg, const struct service *s,
	const struct service_listener *l, const struct address *address, uint16_t port)
{
	const struct health_probe *health = control_find_probe(arg, s, l, address, port);
	return health != NULL ? health->verdict : HEALTH_PROBE_OFF;
}

// ---------------------------------------------------------------- the table
static void chain_insert(struct control *c, uint32_t idx)
{
	uint32_t *head = &c->probe_chains[probe_chain(c, &c->watched[idx].probe)];
	c->watched[idx].next = *head;
	*head = idx;
}

static int chains_grow(struct control *c)
{
	uint32_t n = c->n_probe_chains == 0 ? 256 : 2 * c->n_probe_chains;
	uint32_t *chains = malloc(n * sizeof(*chains));
	if (chains == NULL)
		return -ENOMEM;
	free(c->probe_chains);
	c->probe_chains = chains;
	c->n_probe_chains = n;
	for (uint32_t i = 0; i < n; i++)
		chains[i] = CONTROL_NONE;
	for (uint32_t i = 0; i < c->n_watched; i++) {
		if (c->watched[i].used)
			chain_insert(c, i);
	}
	return 0;
}

static uint32_t take_index(struct control *c)
{
	uint32_t idx = c->free_watched;
	if (idx != CONTROL_NONE) {
		c->free_watched = c->watched[idx].next;
		return idx;
	}
	if (c->n_watched >= 1u << ID_INDEX_BITS ||
		array_grow(c->watched, c->n_watched, c->watched_cap) != 0)
		return CONTROL_NONE;
	idx = c->n_watched++;
	memset(&c->watched[idx], 0, sizeof(c->watched[idx]));
	c->watched[idx].probe.id = idx;
	return idx;
}

// The verdict on the same target under another timing, if there is one.
static const struct health_probe *find_sibling(
	const struct control *c, const struct control_probe *p)
{
	uint32_t idx = c->probe_chains[probe_chain(c, p)];
	for (; idx != CONTROL_NONE; idx = c->watched[idx].next) {
		if (is_same_target(&c->watched[idx].probe, p))
			return &c->watched[idx].health;
	}
	return NULL;
}

static void use_probe(struct control_watched *w, const struct control_followed *follower)
{
	if (w->n_users++ == 0) {
		w->follower = follower;
		w->is_shared = false;
	}
	w->is_shared = w->is_shared || w->follower != follower;
}

static int want_probe(struct control *c, const struct control_probe *target,
	const struct control_followed *follower, uint32_t *out_idx)
{
	uint32_t idx = probe_find(c, target);
	if (idx != CONTROL_NONE) {
		use_probe(&c->watched[idx], follower);
		*out_idx = idx;
		return 0;
	}
	if (c->n_probes >= c->n_probe_chains && chains_grow(c) != 0)
		return -ENOMEM;
	const struct health_probe *sibling = find_sibling(c, target);
	struct health_probe health;
	if (sibling != NULL)
		health = *sibling;
	else
		health_probe_init(&health, target->check.kind);
	idx = take_index(c);
	if (idx == CONTROL_NONE)
		return -ENOMEM;
	struct control_watched *w = &c->watched[idx];
	uint32_t id = w->probe.id + (1u << ID_INDEX_BITS); // the next use of this index
	w->probe = *target;
	w->probe.id = id;
	w->health = health;
	w->health.n_ok_row = w->health.n_fail_row = 0;
	w->used = true;
	w->n_users = 0;
	use_probe(w, follower);
	*out_idx = idx;
	chain_insert(c, idx);
	c->n_probes++;
	if (c->probe_hooks.start != NULL)
		c->probe_hooks.start(c->probe_arg, &w->probe);
	return 0;
}

static void stop_probe(struct control *c, uint32_t idx)
{
	struct control_watched *w = &c->watched[idx];
	uint32_t *link = &c->probe_chains[probe_chain(c, &w->probe)];
	while (*link != idx)
		link = &c->watched[*link].next;
	*link = w->next;
	w->used = false;
	w->next = c->free_watched;
	c->free_watched = idx;
	c->n_probes--;
	if (c->probe_hooks.stop != NULL)
		c->probe_hooks.stop(c->probe_arg, w->probe.id);
}

// NULL: out of memory; what it wants by then is counted all the same.
static struct control_followed *follow_service(struct control *c, const struct service *s)
{
	bool is_probed = s->check.kind != SERVICE_CHECK_NONE;
	size_t n_max = is_probed ? (size_t)s->n_listeners * s->n_backends : 0;
	struct control_followed *f = malloc(sizeof(*f) + n_max * sizeof(f->probes[0]));
	if (f == NULL)
		return NULL;
	f->service = s;
	f->n_probes = 0;
	for (uint32_t i = 0; is_probed && i < s->n_listeners; i++) {
		const struct service_listener *l = &s->listeners[i];
		for (uint32_t k = 0; k < s->n_backends; k++) {
			const struct service_backend *b = &s->backends[k];
			uint16_t port = control_backend_port(b, l);
			struct control_probe target;
			if (port == 0 || !probe_target(s, l, b, port, &target))
				continue;
			if (want_probe(c, &target, f, &f->probes[f->n_probes]) != 0) {
				free(f);
				return NULL;
			}
			f->n_probes++;
		}
	}
	return f;
}

static void follow_note(struct control *c)
{
	c->followed_generation = service_store_generation(c->store);
	c->followed_names = service_store_names_generation(c->store);
}

int control_probes_reconcile(struct control *c)
{
	uint32_t n = service_store_count(c->store);
	c->is_follow_torn = true;
	followed_free(c);
	c->followed = calloc(n + 1, sizeof(struct control_followed *));
	if (c->followed == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < c->n_watched; i++)
		c->watched[i].n_users = 0;
	for (; c->n_followed < n; c->n_followed++) {
		uint32_t i = c->n_followed;
		c->followed[i] = follow_service(c, service_store_at(c->store, i));
		if (c->followed[i] == NULL)
			return -ENOMEM; // those that run go on
	}
	for (uint32_t i = 0; i < c->n_watched; i++) {
		if (c->watched[i].used && c->watched[i].n_users == 0)
			stop_probe(c, i);
	}
	c->is_follow_torn = false;
	follow_note(c);
	return 0;
}

// Services as they were followed and as they are, both in the order of the store.
struct follow_match {
	struct control_followed **fresh;  // by index in the store; NULL: to be followed anew
	struct control_followed **former; // not needed any more
	uint32_t n_former;
};

static void let_go(struct control *c, struct follow_match *m, struct control_followed *f)
{
	for (uint32_t k = 0; k < f->n_probes; k++)
		c->watched[f->probes[k]].n_users--;
	m->former[m->n_former++] = f;
}

// One that has not changed is known by its place in memory: it was there before, and no other one of that time can have had
// the same.
static int match_followed(struct control *c, struct follow_match *m, uint32_t n)
{
	uint32_t at = 0;
	for (uint32_t i = 0; i < n; i++) {
		const struct service *s = service_store_at(c->store, i);
		if (s->revision > c->followed_generation)
			continue;
		while (at < c->n_followed && c->followed[at]->service != s)
			let_go(c, m, c->followed[at++]);
		if (at == c->n_followed)
			return -EINVAL; // cannot be
		m->fresh[i] = c->followed[at++];
	}
	while (at < c->n_followed)
		let_go(c, m, c->followed[at++]);
	return 0;
}

// The former have let go of their probes before the new ones ask for them: so a probe is still one service's alone.
static int follow_anew(struct control *c, struct follow_match *m, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		if (m->fresh[i] == NULL)
			m->fresh[i] = follow_service(c, service_store_at(c->store, i));
		if (m->fresh[i] == NULL)
			return -ENOMEM;
	}
	for (uint32_t i = 0; i < m->n_former; i++) {
		const struct control_followed *f = m->former[i];
		for (uint32_t k = 0; k < f->n_probes; k++) {
			const struct control_watched *w = &c->watched[f->probes[k]];
			if (w->used && w->n_users == 0)
				stop_probe(c, f->probes[k]);
		}
	}
	return 0;
}

static int follow_all(struct control *c, struct follow_match *m, uint32_t n)
{
	int rc = m->fresh != NULL && m->former != NULL ? match_followed(c, m, n) : -ENOMEM;
	if (rc == 0)
		rc = follow_anew(c, m, n);
	if (rc != 0) {
		for (uint32_t i = 0; m->fresh != NULL && i < n; i++)
			if (service_store_at(c->store, i)->revision > c->followed_generation)
				free(m->fresh[i]);
		return rc; // the former are counted wrong, and all still there
	}
	for (uint32_t i = 0; i < m->n_former; i++)
		free(m->former[i]);
	free(c->followed);
	c->followed = m->fresh;
	c->n_followed = n;
	m->fresh = NULL;
	return 0;
}

int control_probes_follow(struct control *c)
{
	uint32_t n = service_store_count(c->store);
	if (c->followed_generation == service_store_generation(c->store) && !c->is_follow_torn)
		return 0;
	struct follow_match m = { calloc(n + 1, sizeof(struct control_followed *)),
		calloc(c->n_followed + 1, sizeof(struct control_followed *)), 0 };
	int rc = follow_all(c, &m, n);
	c->is_follow_torn = rc != 0;
	if (rc == 0)
		follow_note(c);
	free(m.fresh);
	free(m.former);
	return rc;
}

static bool is_user(const struct control_followed *f, uint32_t probe_idx)
{
	for (uint32_t k = 0; k < f->n_probes; k++) {
		if (f->probes[k] == probe_idx)
			return true;
	}
	return false;
}

void control_probe_users(struct control *c, const struct control_watched *w,
	void (*fn)(void *arg, const struct service *s), void *arg)
{
	const struct service_store *store = c->store;
	uint32_t probe_idx = (uint32_t)(w - c->watched);
	bool is_current =
		!c->is_follow_torn && c->followed_names == service_store_names_generation(store);
	if (is_current && w->n_users && !w->is_shared &&
		c->followed_generation == service_store_generation(store)) {
		fn(arg, w->follower->service);
		return;
	}
	// What has not been followed yet may be a user or not.
	for (uint32_t i = 0; i < service_store_count(store); i++) {
		const struct service *s = service_store_at(store, i);
		if (!is_current || s->generation > c->followed_generation ||
			is_user(c->followed[i], probe_idx))
			fn(arg, s);
	}
}

void control_set_probe_hooks(struct control *c, const struct control_probe_hooks *hooks, void *arg)
{
	c->probe_hooks = hooks != NULL ? *hooks : (struct control_probe_hooks){ 0 };
	c->probe_arg = arg;
	for (uint32_t i = 0; hooks != NULL && hooks->start != NULL && i < c->n_watched; i++) {
		if (c->watched[i].used)
			hooks->start(arg, &c->watched[i].probe);
	}
}

// splitmix64: for jitter, not for secrets.
static uint32_t next_random(struct control *c)
{
	uint64_t z = c->random += 0x9e3779b97f4a7c15ull;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (uint32_t)(z >> 32);
}

uint32_t control_probe_report(struct control *c, uint32_t id, bool ok, const char *reason)
{
	uint32_t idx = id & ((1u << ID_INDEX_BITS) - 1);
	if (idx >= c->n_watched || !c->watched[idx].used || c->watched[idx].probe.id != id)
		return CONTROL_TICK_MS; // stopped since
	struct control_watched *w = &c->watched[idx];
	enum health_probe_verdict before = w->health.verdict;
	bool changed = health_probe_report(
		&w->health, &w->probe.check, ok, reason != NULL ? reason : "", clock_wall_ms());
	uint32_t delay_ms = health_probe_delay_ms(&w->health, &w->probe.check, next_random(c));
	if (!changed)
		return delay_ms;
	control_note_probe(c, w, before);
	// A backend that nobody had heard of yet counts as up: its first success changes nothing.
	if (before == HEALTH_PROBE_UNKNOWN && w->health.verdict == HEALTH_PROBE_UP)
		return delay_ms;
	control_change_noted(c, control_touch(c, &w->probe.address));
	return delay_ms;
}
