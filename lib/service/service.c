// SPDX-License-Identifier: BSD-3-Clause
// The value of one service: made, copied, put in order, compared.
// Arrays carry no capacity: room is always the next power of two, so an element more needs memory only when the count is
// a power of two (or 0). Whoever makes such an array by other means must keep that.
#include "service.h"
#include "service_priv.h"

#include <stdlib.h>
#include <string.h>

struct service_defaults service_defaults_builtin(void)
{
	return (struct service_defaults){
		.mode = SERVICE_MODE_FULLNAT,
		.check = { .kind = SERVICE_CHECK_TCP,
			.interval_ms = 1000,
			.timeout_ms = 500,
			.rise = 2,
			.fall = 2 },
		.tcp_idle_s = 900,
		.udp_idle_s = 60,
		.drain_timeout_s = 300,
	};
}

struct service *service_create(const struct service_defaults *defaults)
{
	struct service *s = calloc(1, sizeof(*s));
	if (s == NULL)
		return NULL;
	struct service_defaults builtin = service_defaults_builtin();
	if (defaults == NULL)
		defaults = &builtin;
	s->mode = defaults->mode;
	s->check = defaults->check;
	s->tcp_idle_s = defaults->tcp_idle_s;
	s->udp_idle_s = defaults->udp_idle_s;
	s->drain_timeout_s = defaults->drain_timeout_s;
	return s;
}

void service_destroy(struct service *service)
{
	if (service == NULL)
		return;
	for (uint32_t i = 0; i < service->n_backends; i++)
		free(service->backends[i].ports);
	free(service->backends);
	free(service->listeners);
	free(service->addresses);
	free(service->source_ranges);
	free(service);
}

static size_t room_for(uint32_t n)
{
	size_t room = 1;
	while (room < n)
		room *= 2;
	return room;
}

// Copies n elements into fresh memory with the room that add_element expects; n = 0 gives NULL.
static bool copy_elements(void *out, const void *from, uint32_t n, size_t size)
{
	void *copy = NULL;
	if (n > 0) {
		copy = calloc(room_for(n), size);
		if (copy == NULL)
			return false;
		memcpy(copy, from, n * size);
	}
	memcpy(out, &copy, sizeof(copy));
	return true;
}

static bool clone_backends(struct service *copy, const struct service *service)
{
	if (service->n_backends == 0)
		return true;
	copy->backends = calloc(room_for(service->n_backends), sizeof(*copy->backends));
	if (copy->backends == NULL)
		return false;
	for (uint32_t i = 0; i < service->n_backends; i++) {
		const struct service_backend *from = &service->backends[i];
		struct service_backend *to = &copy->backends[i];
		*to = *from;
		if (!copy_elements(&to->ports, from->ports, from->n_ports, sizeof(*to->ports))) {
			to->ports = NULL;
			return false;
		}
		copy->n_backends++;
	}
	return true;
}

struct service *service_clone(const struct service *service)
{
	struct service *copy = malloc(sizeof(*copy));
	if (copy == NULL)
		return NULL;
	*copy = *service;
	copy->addresses = NULL;
	copy->listeners = NULL;
	copy->backends = NULL;
	copy->source_ranges = NULL;
	copy->n_backends = 0;
	if (!copy_elements(&copy->addresses, service->addresses, service->n_addresses,
		    sizeof(*copy->addresses)) ||
		!copy_elements(&copy->listeners, service->listeners, service->n_listeners,
			sizeof(*copy->listeners)) ||
		!copy_elements(&copy->source_ranges, service->source_ranges,
			service->n_source_ranges, sizeof(*copy->source_ranges)) ||
		!clone_backends(copy, service)) {
		service_destroy(copy);
		return NULL;
	}
	return copy;
}

// One more zeroed element at the end of *items; NULL and nothing changed when out of memory.
static void *add_element(void *items, uint32_t *n, size_t size)
{
	void *base;
	memcpy(&base, items, sizeof(base));
	if ((*n & (*n - 1)) == 0) { // 0 or a power of two: full
		if (*n > UINT32_MAX / 2)
			return NULL;
		base = reallocarray(base, *n ? (size_t)*n * 2 : 1, size);
		if (base == NULL)
			return NULL;
		memcpy(items, &base, sizeof(base));
	}
	void *element = (char *)base + (size_t)*n * size;
	memset(element, 0, size);
	(*n)++;
	return element;
}

struct address *service_add_address(struct service *s)
{
	return add_element(&s->addresses, &s->n_addresses, sizeof(*s->addresses));
}

struct service_listener *service_add_listener(struct service *s)
{
	return add_element(&s->listeners, &s->n_listeners, sizeof(*s->listeners));
}

struct service_backend *service_add_backend(struct service *s)
{
	return add_element(&s->backends, &s->n_backends, sizeof(*s->backends));
}

struct service_backend_port *service_backend_add_port(struct service_backend *b)
{
	return add_element(&b->ports, &b->n_ports, sizeof(*b->ports));
}

struct prefix *service_add_source_range(struct service *s)
{
	return add_element(&s->source_ranges, &s->n_source_ranges, sizeof(*s->source_ranges));
}

uint16_t service_backend_find_port(const struct service_backend *b, const char *listener)
{
	for (uint32_t i = 0; i < b->n_ports; i++) {
		if (strcmp(b->ports[i].listener, listener) == 0)
			return b->ports[i].port;
	}
	return 0;
}

const struct service_listener *service_find_listener(const struct service *s, const char *name)
{
	for (uint32_t i = 0; i < s->n_listeners; i++) {
		if (strcmp(s->listeners[i].name, name) == 0)
			return &s->listeners[i];
	}
	return NULL;
}

// ---------------------------------------------------------------- order
int service_compare_name(
	const char *a_namespace, const char *a_name, const char *b_namespace, const char *b_name)
{
	int order = strcmp(a_namespace, b_namespace);
	return order ? order : strcmp(a_name, b_name);
}

#define COMPARE(a, b) (((a) > (b)) - ((a) < (b)))

static int compare_addresses(const void *a, const void *b)
{
	return address_compare(a, b);
}

static int compare_prefixes(const void *a, const void *b)
{
	const struct prefix *x = a, *y = b;
	int order = address_compare(&x->address, &y->address);
	return order ? order : COMPARE(x->len, y->len);
}

static int compare_ports(const void *a, const void *b)
{
	const struct service_backend_port *x = a, *y = b;
	int order = strcmp(x->listener, y->listener);
	return order ? order : COMPARE(x->port, y->port);
}

// 0 iff every field is equal: it is both the order of normalise and the test of equal.
static int compare_backends(const void *a, const void *b)
{
	const struct service_backend *x = a, *y = b;
	int order = address_compare(&x->address, &y->address);
	if (order == 0)
		order = COMPARE(x->n_ports, y->n_ports);
	for (uint32_t i = 0; order == 0 && i < x->n_ports; i++)
		order = compare_ports(&x->ports[i], &y->ports[i]);
	if (order == 0)
		order = strcmp(x->uid, y->uid);
	if (order == 0)
		order = strcmp(x->target, y->target);
	if (order == 0)
		order = COMPARE(x->weight, y->weight);
	const struct service_conditions *p = &x->conditions, *q = &y->conditions;
	if (order == 0)
		order = COMPARE(p->ready * 4 + p->serving * 2 + p->terminating,
			q->ready * 4 + q->serving * 2 + q->terminating);
	return order;
}

static void normalise_source_ranges(struct service *s)
{
	if (s->n_source_ranges == 0)
		return;
	qsort(s->source_ranges, s->n_source_ranges, sizeof(*s->source_ranges), compare_prefixes);
	uint32_t n_kept = 1;
	for (uint32_t i = 1; i < s->n_source_ranges; i++) {
		if (compare_prefixes(&s->source_ranges[n_kept - 1], &s->source_ranges[i]) != 0)
			s->source_ranges[n_kept++] = s->source_ranges[i];
	}
	s->n_source_ranges = n_kept;
}

void service_normalise(struct service *s)
{
	for (uint32_t i = 0; i < s->n_listeners; i++)
		s->listeners[i].port_max = service_listener_last(&s->listeners[i]);
	if (s->check.kind == SERVICE_CHECK_HTTP && s->check.path[0] == 0)
		memcpy(s->check.path, "/", 2);
	if (s->n_addresses)
		qsort(s->addresses, s->n_addresses, sizeof(*s->addresses), compare_addresses);
	normalise_source_ranges(s);
	for (uint32_t i = 0; i < s->n_backends; i++) {
		struct service_backend *b = &s->backends[i];
		if (b->n_ports > 1)
			qsort(b->ports, b->n_ports, sizeof(*b->ports), compare_ports);
	}
	if (s->n_backends)
		qsort(s->backends, s->n_backends, sizeof(*s->backends), compare_backends);
}

// ---------------------------------------------------------------- equality
static bool checks_equal(const struct service_check *a, const struct service_check *b)
{
	return a->kind == b->kind && strcmp(a->path, b->path) == 0 &&
	       strcmp(a->port_name, b->port_name) == 0 && a->port == b->port &&
	       a->interval_ms == b->interval_ms && a->timeout_ms == b->timeout_ms &&
	       a->rise == b->rise && a->fall == b->fall;
}

static bool scalars_equal(const struct service *a, const struct service *b)
{
	return strcmp(a->namespace, b->namespace) == 0 && strcmp(a->name, b->name) == 0 &&
	       a->owner == b->owner && a->n_addresses == b->n_addresses &&
	       a->n_listeners == b->n_listeners && a->n_backends == b->n_backends &&
	       a->n_source_ranges == b->n_source_ranges && a->mode == b->mode &&
	       a->scheduler == b->scheduler && a->client_address == b->client_address &&
	       a->affinity_s == b->affinity_s && a->tcp_idle_s == b->tcp_idle_s &&
	       a->udp_idle_s == b->udp_idle_s && a->drain_timeout_s == b->drain_timeout_s &&
	       checks_equal(&a->check, &b->check);
}

static bool listeners_equal(const struct service_listener *a, const struct service_listener *b)
{
	return strcmp(a->name, b->name) == 0 && a->protocol == b->protocol && a->port == b->port &&
	       a->port_max == b->port_max;
}

bool service_equal(const struct service *a, const struct service *b)
{
	if (!scalars_equal(a, b))
		return false;
	for (uint32_t i = 0; i < a->n_addresses; i++) {
		if (!address_equal(&a->addresses[i], &b->addresses[i]))
			return false;
	}
	for (uint32_t i = 0; i < a->n_listeners; i++) {
		if (!listeners_equal(&a->listeners[i], &b->listeners[i]))
			return false;
	}
	for (uint32_t i = 0; i < a->n_source_ranges; i++) {
		if (compare_prefixes(&a->source_ranges[i], &b->source_ranges[i]) != 0)
			return false;
	}
	for (uint32_t i = 0; i < a->n_backends; i++) {
		if (compare_backends(&a->backends[i], &b->backends[i]) != 0)
			return false;
	}
	return true;
}
