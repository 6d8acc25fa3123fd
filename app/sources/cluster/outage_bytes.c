// SPDX-License-Identifier: BSD-3-Clause
// The form of the last good state on disk.
#include "outage_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net.h"

#define HEAD "sluice cluster state 1\n"

// A new field must be written and read here, and the version in the head be another (but for what the store sets).
_Static_assert(
	sizeof(struct service) == 584, "write and read the new field, and count up the head");
_Static_assert(sizeof(struct service_backend) == 232, "as above");

// ---------------------------------------------------------------- write

void outage_bytes_fini(struct outage_bytes *b)
{
	free(b->bytes);
	*b = (struct outage_bytes){ 0 };
}

static void put(struct outage_bytes *b, const void *bytes, size_t len)
{
	if (b->len + len > b->cap) {
		size_t cap = 2 * b->cap > b->len + len ? 2 * b->cap : b->len + len + 4096;
		uint8_t *more = realloc(b->bytes, cap);
		if (more == NULL) {
			b->is_short = true;
			return;
		}
		b->bytes = more;
		b->cap = cap;
	}
	memcpy(b->bytes + b->len, bytes, len);
	b->len += len;
}

static void put_number(struct outage_bytes *b, uint64_t value, size_t n_bytes)
{
	uint8_t bytes[8];
	for (size_t i = 0; i < n_bytes; i++)
		bytes[i] = (uint8_t)(value >> 8 * i);
	put(b, bytes, n_bytes);
}

static void put_text(struct outage_bytes *b, const char *text)
{
	size_t len = strlen(text);
	put_number(b, len, 2);
	put(b, text, len);
}

static void put_check(struct outage_bytes *b, const struct service_check *check)
{
	put_number(b, check->kind, 1);
	put_text(b, check->path);
	put_text(b, check->port_name);
	put_number(b, check->port, 2);
	put_number(b, check->interval_ms, 4);
	put_number(b, check->timeout_ms, 4);
	put_number(b, check->rise, 1);
	put_number(b, check->fall, 1);
}

static void put_backend(struct outage_bytes *b, const struct service_backend *backend)
{
	put(b, backend->address.bytes, 16);
	put_number(b, backend->weight, 4);
	put_number(b,
		backend->conditions.ready | backend->conditions.serving << 1 |
			backend->conditions.terminating << 2,
		1);
	put_text(b, backend->target);
	put_text(b, backend->uid);
	put_number(b, backend->n_ports, 4);
	for (uint32_t i = 0; i < backend->n_ports; i++) {
		put_text(b, backend->ports[i].listener);
		put_number(b, backend->ports[i].port, 2);
	}
}

static void put_lists(struct outage_bytes *b, const struct service *s)
{
	put_number(b, s->n_addresses, 4);
	for (uint32_t i = 0; i < s->n_addresses; i++)
		put(b, s->addresses[i].bytes, 16);
	put_number(b, s->n_listeners, 4);
	for (uint32_t i = 0; i < s->n_listeners; i++) {
		put_text(b, s->listeners[i].name);
		put_number(b, s->listeners[i].protocol, 1);
		put_number(b, s->listeners[i].port, 2);
		put_number(b, s->listeners[i].port_max, 2);
	}
	put_number(b, s->n_source_ranges, 4);
	for (uint32_t i = 0; i < s->n_source_ranges; i++) {
		put(b, s->source_ranges[i].address.bytes, 16);
		put_number(b, s->source_ranges[i].len, 1);
	}
	put_number(b, s->n_backends, 4);
	for (uint32_t i = 0; i < s->n_backends; i++)
		put_backend(b, &s->backends[i]);
}

void outage_put_head(struct outage_bytes *b, const char *whose)
{
	put(b, HEAD, strlen(HEAD));
	put_text(b, whose);
}

void outage_put_service(struct outage_bytes *b, const struct service *s)
{
	size_t begin = b->len;
	put_number(b, 0, 4);
	put_text(b, s->namespace);
	put_text(b, s->name);
	put_number(b, s->mode, 1);
	put_number(b, s->scheduler, 1);
	put_number(b, s->client_address, 1);
	put_number(b, s->affinity_s, 4);
	put_number(b, s->tcp_idle_s, 4);
	put_number(b, s->udp_idle_s, 4);
	put_number(b, s->drain_timeout_s, 4);
	put_check(b, &s->check);
	put_lists(b, s);
	size_t len = b->len - begin - 4;
	for (size_t i = 0; i < 4 && !b->is_short; i++)
		b->bytes[begin + i] = (uint8_t)(len >> 8 * i);
}

void outage_put_tail(struct outage_bytes *b, uint64_t hash)
{
	static const uint8_t zero[4];
	put_number(b, 0, 4);
	put_number(b, outage_hash(zero, 4, hash), 8);
}

uint64_t outage_hash(const void *bytes, size_t len, uint64_t seed)
{
	return hash_stable(bytes, len, seed ^ len);
}

// ---------------------------------------------------------------- read

struct outage_reader {
	const uint8_t *at, *end;
	bool is_bad;
};

static const uint8_t *take(struct outage_reader *r, size_t len)
{
	static const uint8_t nothing[16];
	if (r->is_bad || (size_t)(r->end - r->at) < len) {
		r->is_bad = true;
		return len <= sizeof(nothing) ? nothing : NULL;
	}
	r->at += len;
	return r->at - len;
}

static uint64_t take_number(struct outage_reader *r, size_t n_bytes)
{
	const uint8_t *bytes = take(r, n_bytes);
	uint64_t value = 0;
	for (size_t i = 0; i < n_bytes; i++)
		value |= (uint64_t)bytes[i] << 8 * i;
	return value;
}

static void take_text(struct outage_reader *r, char *out, size_t size)
{
	size_t len = take_number(r, 2);
	const uint8_t *bytes = take(r, len);
	if (len >= size || bytes == NULL || memchr(bytes, 0, len)) {
		r->is_bad = true;
		return;
	}
	memcpy(out, bytes, len);
	out[len] = '\0';
}

// A value of an enum that ends with `last`.
static uint32_t take_word(struct outage_reader *r, uint32_t last)
{
	uint32_t value = (uint32_t)take_number(r, 1);
	r->is_bad |= value > last;
	return r->is_bad ? 0 : value;
}

// How many items of at least n_bytes follow: never more than there is room for.
static uint32_t take_count(struct outage_reader *r, size_t n_bytes)
{
	uint64_t n = take_number(r, 4);
	r->is_bad |= n > (size_t)(r->end - r->at) / n_bytes;
	return r->is_bad ? 0 : (uint32_t)n;
}

static void take_address(struct outage_reader *r, struct address *out)
{
	memcpy(out->bytes, take(r, 16), 16);
}

static void take_check(struct outage_reader *r, struct service_check *check)
{
	check->kind = take_word(r, SERVICE_CHECK_NONE);
	take_text(r, check->path, sizeof(check->path));
	take_text(r, check->port_name, sizeof(check->port_name));
	check->port = (uint16_t)take_number(r, 2);
	check->interval_ms = (uint32_t)take_number(r, 4);
	check->timeout_ms = (uint32_t)take_number(r, 4);
	check->rise = (uint8_t)take_number(r, 1);
	check->fall = (uint8_t)take_number(r, 1);
}

// false: out of memory.
static bool take_backend(struct outage_reader *r, struct service *s)
{
	struct service_backend *backend = service_add_backend(s);
	if (backend == NULL)
		return false;
	take_address(r, &backend->address);
	backend->weight = (uint32_t)take_number(r, 4);
	uint32_t conditions = take_word(r, 7);
	backend->conditions =
		(struct service_conditions){ conditions & 1, conditions & 2, conditions & 4 };
	take_text(r, backend->target, sizeof(backend->target));
	take_text(r, backend->uid, sizeof(backend->uid));
	uint32_t n = take_count(r, 4);
	for (uint32_t i = 0; i < n && !r->is_bad; i++) {
		struct service_backend_port *port = service_backend_add_port(backend);
		if (port == NULL)
			return false;
		take_text(r, port->listener, sizeof(port->listener));
		port->port = (uint16_t)take_number(r, 2);
	}
	return true;
}

static bool take_listener(struct outage_reader *r, struct service *s)
{
	struct service_listener *listener = service_add_listener(s);
	if (listener == NULL)
		return false;
	take_text(r, listener->name, sizeof(listener->name));
	listener->protocol = (uint8_t)take_number(r, 1);
	listener->port = (uint16_t)take_number(r, 2);
	listener->port_max = (uint16_t)take_number(r, 2);
	return true;
}

static bool take_range(struct outage_reader *r, struct service *s)
{
	struct prefix *range = service_add_source_range(s);
	if (range == NULL)
		return false;
	take_address(r, &range->address);
	range->len = (uint8_t)take_number(r, 1);
	return true;
}

static bool take_lists(struct outage_reader *r, struct service *s)
{
	bool has_room = true;
	uint32_t n = take_count(r, 16);
	for (uint32_t i = 0; i < n && has_room; i++) {
		struct address *address = service_add_address(s);
		has_room = address != NULL;
		if (address)
			take_address(r, address);
	}
	n = take_count(r, 7);
	for (uint32_t i = 0; i < n && has_room && !r->is_bad; i++)
		has_room = take_listener(r, s);
	n = take_count(r, 17);
	for (uint32_t i = 0; i < n && has_room && !r->is_bad; i++)
		has_room = take_range(r, s);
	n = take_count(r, 29);
	for (uint32_t i = 0; i < n && has_room && !r->is_bad; i++)
		has_room = take_backend(r, s);
	return has_room;
}

static int take_service(struct outage_reader *r, struct outage_services *out)
{
	struct service_defaults defaults = service_defaults_builtin();
	struct service *s = array_grow(out->services, out->n_services, out->cap) == 0
				    ? service_create(&defaults)
				    : NULL;
	if (s == NULL)
		return -ENOMEM;
	out->services[out->n_services++] = s;
	take_text(r, s->namespace, sizeof(s->namespace));
	take_text(r, s->name, sizeof(s->name));
	s->owner = SERVICE_OWNER_KUBERNETES;
	s->mode = take_word(r, SERVICE_MODE_L2DSR);
	s->scheduler = take_word(r, SERVICE_LEAST_CONNECTIONS);
	s->client_address = take_word(r, SERVICE_CLIENT_PROXY_V2);
	s->affinity_s = (uint32_t)take_number(r, 4);
	s->tcp_idle_s = (uint32_t)take_number(r, 4);
	s->udp_idle_s = (uint32_t)take_number(r, 4);
	s->drain_timeout_s = (uint32_t)take_number(r, 4);
	take_check(r, &s->check);
	return take_lists(r, s) ? 0 : -ENOMEM;
}

void outage_services_fini(struct outage_services *s)
{
	for (uint32_t i = 0; i < s->n_services; i++)
		service_destroy(s->services[i]);
	free(s->services);
	*s = (struct outage_services){ 0 };
}

// Head to closing zero, hashed as they were written. The reader stands at the first record then. false: damaged.
static bool file_is_whole(struct outage_reader *r, size_t head_len)
{
	struct outage_reader walk = *r;
	uint64_t hash = outage_hash(take(&walk, head_len), head_len, 0);
	r->at = walk.at;
	for (;;) {
		const uint8_t *begin = walk.at;
		uint32_t len = (uint32_t)take_number(&walk, 4);
		take(&walk, len);
		if (walk.is_bad)
			return false;
		hash = outage_hash(begin, (size_t)(walk.at - begin), hash);
		if (len == 0)
			break;
	}
	return take_number(&walk, 8) == hash && !walk.is_bad && walk.at == walk.end;
}

static int head_check(const uint8_t *bytes, size_t len, const char *whose, size_t *out_len,
	char *why, size_t why_len)
{
	struct outage_reader r = { bytes, bytes + len, false };
	char text[1024] = "";
	const uint8_t *head = take(&r, strlen(HEAD));
	if (r.is_bad || memcmp(head, HEAD, strlen(HEAD)) != 0) {
		snprintf(why, why_len, "not a state of this version");
		return -EINVAL;
	}
	take_text(&r, text, sizeof(text));
	*out_len = (size_t)(r.at - bytes);
	if (r.is_bad)
		snprintf(why, why_len, "cut short");
	else if (strcmp(text, whose) != 0)
		snprintf(why, why_len, "of \"%.200s\", not of \"%.200s\"", text, whose);
	return r.is_bad ? -EINVAL : strcmp(text, whose) != 0 ? -ESTALE : 0;
}

int outage_read(const uint8_t *bytes, size_t len, const char *whose, struct outage_services *out,
	char *why, size_t why_len)
{
	struct outage_services services = { 0 };
	struct outage_reader r = { bytes, bytes + len, false };
	size_t head_len = 0;
	int rc = head_check(bytes, len, whose, &head_len, why, why_len);
	if (rc != 0)
		return rc;
	if (!file_is_whole(&r, head_len)) {
		snprintf(why, why_len, "damaged: its checksum is another");
		return -EINVAL;
	}
	for (uint64_t n; rc == 0 && (n = take_number(&r, 4)) != 0;) {
		struct outage_reader record = { r.at, r.at + n, false };
		rc = take_service(&record, &services);
		if (rc == 0 && (record.is_bad || record.at != record.end))
			rc = -EINVAL;
		r.at += n;
	}
	if (rc != 0) {
		snprintf(why, why_len,
			rc == -ENOMEM ? "out of memory" : "a service in it makes no sense");
		outage_services_fini(&services);
		return rc;
	}
	*out = services;
	return 0;
}
