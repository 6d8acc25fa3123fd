// SPDX-License-Identifier: BSD-3-Clause
// Requests as they are kept: a copy, ports in order, one block of texts.
#include "ipam_priv.h"

#include <stdlib.h>
#include <string.h>

int ipam_order_key(const void *a, const void *b)
{
	const struct request *x = a, *y = b;
	int order = strcmp(x->value.namespace, y->value.namespace);
	return order ? order : strcmp(x->value.name, y->value.name);
}

int ipam_order_age(const void *a, const void *b)
{
	const struct request *x = a, *y = b;
	if (x->value.created_s != y->value.created_s)
		return x->value.created_s < y->value.created_s ? -1 : 1;
	return ipam_order_key(a, b);
}

int ipam_order_age_back(const void *a, const void *b)
{
	return ipam_order_age(b, a);
}

static int order_ports(const void *a, const void *b)
{
	const struct ipam_port *x = a, *y = b;
	if (x->protocol != y->protocol)
		return x->protocol < y->protocol ? -1 : 1;
	if (x->first != y->first)
		return x->first < y->first ? -1 : 1;
	return x->last < y->last ? -1 : x->last > y->last;
}

// In order, what overlaps joined.
static uint32_t ports_normalise(struct ipam_port *ports, uint32_t n)
{
	uint32_t n_out = 0;
	qsort(ports, n, sizeof(*ports), order_ports);
	for (uint32_t i = 0; i < n; i++) {
		struct ipam_port *last = n_out ? &ports[n_out - 1] : NULL;
		if (last && last->protocol == ports[i].protocol && ports[i].first <= last->last)
			last->last = ports[i].last > last->last ? ports[i].last : last->last;
		else
			ports[n_out++] = ports[i];
	}
	return n_out;
}

static uint64_t form_of(const struct ipam_request *value, const struct ipam_port *ports, uint32_t n)
{
	uint64_t form = hash_stable(value->sharing_key, strlen(value->sharing_key), 1);
	form = hash_stable(value->backend_key, strlen(value->backend_key), form);
	for (uint32_t i = 0; i < n; i++) {
		uint8_t bytes[5] = { ports[i].protocol, (uint8_t)(ports[i].first >> 8),
			(uint8_t)ports[i].first, (uint8_t)(ports[i].last >> 8),
			(uint8_t)ports[i].last };
		form = hash_stable(bytes, sizeof(bytes), form);
	}
	return form ? form : 1;
}

uint64_t ipam_form(const struct ipam_request *request)
{
	struct request *copy = ipam_request_create(request);
	uint64_t form = copy ? copy->form : 1;
	if (copy)
		ipam_request_destroy(copy);
	return form;
}

// Texts one after the other, each with its NUL.
static char *join_texts(struct ipam_request *value, size_t *out_len)
{
	const char **texts[] = { &value->namespace, &value->name, &value->uid, &value->pool,
		&value->sharing_key, &value->backend_key };
	size_t len = 0;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		len += strlen(*texts[i]) + 1;
	char *block = malloc(len), *at = block;
	for (size_t i = 0; block && i < ARRAY_SIZE(texts); i++) {
		size_t n = strlen(*texts[i]) + 1;
		memcpy(at, *texts[i], n);
		*texts[i] = at;
		at += n;
	}
	*out_len = len;
	return block;
}

static void *copied(const void *from, size_t n, size_t size)
{
	void *copy = calloc(n + 1, size);
	if (copy && n)
		memcpy(copy, from, n * size);
	return copy;
}

struct request *ipam_request_create(const struct ipam_request *value)
{
	struct request *r = calloc(1, sizeof(*r));
	if (r == NULL)
		return NULL;
	r->value = *value;
	struct ipam_port *ports = copied(value->ports, value->n_ports, sizeof(*ports));
	r->value.ports = ports;
	r->value.recorded = copied(value->recorded, value->n_recorded, sizeof(struct address));
	r->block = join_texts(&r->value, &r->block_len);
	if (ports == NULL || r->value.recorded == NULL || r->block == NULL) {
		ipam_request_destroy(r);
		return NULL;
	}
	r->value.n_ports = ports_normalise(ports, value->n_ports);
	r->form = form_of(&r->value, ports, r->value.n_ports);
	return r;
}

void ipam_request_destroy(struct request *r)
{
	free(r->block);
	free((void *)(uintptr_t)r->value.ports);
	free((void *)(uintptr_t)r->value.recorded);
	free(r->text);
	free(r->answer.pool);
	free(r->answer.text);
	free(r);
}

static bool addresses_equal(
	const struct address *a, uint32_t n_a, const struct address *b, uint32_t n_b)
{
	return n_a == n_b && (n_a == 0 || memcmp(a, b, n_a * sizeof(*a)) == 0);
}

bool ipam_request_equal(const struct request *a, const struct request *b)
{
	const struct ipam_request *x = &a->value, *y = &b->value;
	if (a->block_len != b->block_len || memcmp(a->block, b->block, a->block_len) != 0 ||
		x->created_s != y->created_s || x->n_families != y->n_families ||
		x->policy != y->policy || x->n_ports != y->n_ports)
		return false;
	for (uint32_t i = 0; i < x->n_families; i++)
		if (x->families[i] != y->families[i])
			return false;
	for (uint32_t i = 0; i < x->n_ports; i++)
		if (order_ports(&x->ports[i], &y->ports[i]) != 0)
			return false;
	return addresses_equal(x->wanted, x->n_wanted, y->wanted, y->n_wanted);
}

void ipam_request_swap(struct request *r, struct request *from)
{
	struct ipam_request value = r->value;
	char *block = r->block;
	size_t block_len = r->block_len;
	uint64_t form = r->form;
	r->value = from->value;
	r->block = from->block;
	r->block_len = from->block_len;
	r->form = from->form;
	from->value = value;
	from->block = block;
	from->block_len = block_len;
	from->form = form;
}
