// SPDX-License-Identifier: BSD-3-Clause
// Content as 128 bits, so that what was given last need not be kept to know that it is the same.
#include "kube_cluster_priv.h"

#include <string.h>

void kube_digest_add(struct kube_digest *d, const void *bytes, size_t len)
{
	static const uint64_t other_words[] = { 0x9e3779b97f4a7c15ull, 0x2545f4914f6cdd1dull };
	for (int i = 0; i < 2; i++) {
		struct hash_key key = { { d->halves[i], other_words[i] } };
		d->halves[i] = hash_bytes(&key, bytes, len);
	}
}

void kube_digest_text(struct kube_digest *d, const char *text)
{
	kube_digest_add(d, text ? text : "", text ? strlen(text) : 0);
}

static void add_number(struct kube_digest *d, uint64_t number)
{
	kube_digest_add(d, &number, sizeof(number));
}

static void add_check(struct kube_digest *d, const struct service_check *check)
{
	uint64_t numbers[] = { check->kind, check->port, check->interval_ms, check->timeout_ms,
		check->rise, check->fall };
	kube_digest_add(d, numbers, sizeof(numbers));
	kube_digest_text(d, check->path);
	kube_digest_text(d, check->port_name);
}

static void add_listeners(struct kube_digest *d, const struct service_listener *l, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		kube_digest_text(d, l[i].name);
		add_number(d,
			(uint64_t)l[i].protocol << 32 | (uint64_t)l[i].port << 16 | l[i].port_max);
	}
}

static void add_backend(struct kube_digest *d, const struct service_backend *b)
{
	uint64_t numbers[] = { b->address.halves[0], b->address.halves[1], b->weight, b->n_ports,
		b->conditions.ready * 4u + b->conditions.serving * 2u + b->conditions.terminating };
	kube_digest_add(d, numbers, sizeof(numbers));
	kube_digest_text(d, b->target);
	kube_digest_text(d, b->uid);
	for (uint32_t i = 0; i < b->n_ports; i++) {
		kube_digest_text(d, b->ports[i].listener);
		add_number(d, b->ports[i].port);
	}
}

struct kube_digest kube_digest_service(const struct hash_key *key, const struct service *s)
{
	struct kube_digest d = { { key->words[0], key->words[1] } };
	uint64_t numbers[] = { s->owner, s->n_addresses, s->n_listeners, s->n_backends, s->mode,
		s->scheduler, s->client_address, s->affinity_s, s->n_source_ranges, s->tcp_idle_s,
		s->udp_idle_s, s->drain_timeout_s };
	kube_digest_text(&d, s->namespace);
	kube_digest_text(&d, s->name);
	kube_digest_add(&d, numbers, sizeof(numbers));
	kube_digest_add(&d, s->addresses, s->n_addresses * sizeof(*s->addresses));
	add_listeners(&d, s->listeners, s->n_listeners);
	for (uint32_t i = 0; i < s->n_source_ranges; i++) {
		kube_digest_add(&d, &s->source_ranges[i].address, sizeof(struct address));
		add_number(&d, s->source_ranges[i].len);
	}
	add_check(&d, &s->check);
	for (uint32_t i = 0; i < s->n_backends; i++)
		add_backend(&d, &s->backends[i]);
	return d;
}

static void add_wants(struct kube_digest *d, const struct kube_wants *w)
{
	uint64_t numbers[] = { w->is_wanted, w->n_families, w->families[0], w->families[1],
		w->policy, w->n_requested, w->is_proxy_mode, w->n_ports };
	kube_digest_add(d, numbers, sizeof(numbers));
	kube_digest_add(d, w->requested, w->n_requested * sizeof(*w->requested));
	kube_digest_text(d, w->pool);
	kube_digest_text(d, w->sharing_key);
	kube_digest_text(d, w->backend_key);
	add_listeners(d, w->ports, w->n_ports);
}

// resourceVersion changes with every write of ours: it says nothing. Counts of endpoints go with the service.
struct kube_digest kube_digest_change(const struct hash_key *key, const struct kube_change *change)
{
	struct kube_digest d = { { key->words[0], key->words[1] } };
	uint64_t numbers[] = { (uint64_t)change->generation, change->is_gone, change->is_ours,
		change->is_refused, change->is_deleting, change->has_finalizer,
		change->wants_no_finalizer, change->expose, change->n_ingress };
	kube_digest_add(&d, numbers, sizeof(numbers));
	kube_digest_text(&d, change->uid);
	kube_digest_text(&d, change->labels);
	add_wants(&d, &change->wants);
	for (uint32_t i = 0; i < change->n_ingress; i++) {
		kube_digest_add(&d, &change->ingress[i].address, sizeof(struct address));
		add_number(&d, change->ingress[i].is_proxy_mode);
	}
	add_number(&d, change->findings->n_lost);
	for (uint32_t i = 0; i < change->findings->n_items; i++) {
		kube_digest_text(&d, change->findings->items[i].path);
		kube_digest_text(&d, change->findings->items[i].text);
	}
	return d;
}
