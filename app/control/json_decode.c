// SPDX-License-Identifier: BSD-3-Clause
// A JSON body to a service or an overlay: strict (unknown fields, wrong types and values out of range are refused), and
// whole (every finding is reported, each at its JSON pointer, before anything is given). The inverse is json_encode.c.
//
// Not here: what only makes sense over the whole service (duplicates, families, unsupported modes); that is
// service_validate, run at the end when the body could be read at all.
#include "control.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define POINTER_MAX 384

// One decoding: where findings go and how many there were (err may be NULL).
struct decode {
	struct error *err;
	uint32_t n_bad;
};

static void decode_refuse(struct decode *d, const char *at, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void decode_refuse(struct decode *d, const char *at, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	error_add(d->err, EINVAL, at, "%s", text);
	d->n_bad++;
}

// at + "/" + key, with ~ and / escaped (RFC 6901), cut at POINTER_MAX.
static const char *pointer_join(char *out, const char *at, const char *key)
{
	size_t n = strnlen(at, POINTER_MAX - 4);
	memmove(out, at, n);
	out[n++] = '/';
	for (; *key != '\0' && n + 3 < POINTER_MAX; key++) {
		if (*key == '~' || *key == '/') {
			out[n++] = '~';
			out[n++] = *key == '~' ? '0' : '1';
		} else {
			out[n++] = *key;
		}
	}
	out[n] = '\0';
	return out;
}

static const char *pointer_index(char *out, const char *at, size_t idx)
{
	char text[24];
	snprintf(text, sizeof(text), "%zu", idx);
	return pointer_join(out, at, text);
}

// The offending value as the sender wrote it, cut at 60 bytes.
static const char *value_text(const json_t *value, char *out, size_t len)
{
	if (json_is_object(value) || json_is_array(value))
		return json_is_object(value) ? "an object" : "a list";
	size_t n = json_dumpb(value, out, len - 1, JSON_ENCODE_ANY | JSON_COMPACT);
	if (n == 0)
		return "?";
	if (n > len - 1) {
		n = len - 1;
		memcpy(out + n - 3, "...", 3);
	}
	out[n] = '\0';
	return out;
}

static void refuse_value(
	struct decode *d, const char *at, const json_t *value, const char *what_is_allowed)
{
	char text[64];
	decode_refuse(d, at, "%s %s", value_text(value, text, sizeof(text)), what_is_allowed);
}

// Every key must be one of `allowed`.
static void check_keys(struct decode *d, const char *at, const json_t *object,
	const char *const *allowed, size_t n_allowed)
{
	const char *key;
	json_t *value;
	json_object_foreach((json_t *)(uintptr_t)object, key, value)
	{
		bool known = false;
		for (size_t i = 0; i < n_allowed && !known; i++)
			known = strcmp(key, allowed[i]) == 0;
		if (known)
			continue;
		char pointer[POINTER_MAX];
		const char *near = error_nearest(key, allowed, n_allowed);
		if (near != NULL) {
			decode_refuse(d, pointer_join(pointer, at, key),
				"unknown field, did you mean \"%s\"?", near);
			continue;
		}
		char list[256] = "";
		for (size_t i = 0, used = 0; i < n_allowed && used < sizeof(list); i++)
			used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s",
				i == 0 ? "" : ", ", allowed[i]);
		decode_refuse(
			d, pointer_join(pointer, at, key), "unknown field, allowed: %s", list);
	}
}

// The member `key`, or NULL when it is absent or null; pointer is set in any case.
static json_t *member(const json_t *object, const char *at, const char *key, char *pointer)
{
	pointer_join(pointer, at, key);
	json_t *value = json_object_get(object, key);
	return json_is_null(value) ? NULL : value;
}

// The readers below leave *out alone when the member is absent or refused.
static void read_text(struct decode *d, const json_t *object, const char *at, const char *key,
	char *out, size_t len)
{
	char pointer[POINTER_MAX], allowed[64];
	const json_t *value = member(object, at, key, pointer);
	if (value == NULL)
		return;
	if (!json_is_string(value)) {
		refuse_value(d, pointer, value, "is not a string");
	} else if (json_string_length(value) >= len) {
		snprintf(allowed, sizeof(allowed), "is longer than %zu bytes", len - 1);
		refuse_value(d, pointer, value, allowed);
	} else {
		memcpy(out, json_string_value(value), json_string_length(value) + 1);
	}
}

static bool number_value(struct decode *d, const char *at, const json_t *value,
	const uint32_t range[2], uint32_t *out)
{
	char allowed[64];
	if (!json_is_integer(value)) {
		refuse_value(d, at, value, "is not an integer");
		return false;
	}
	json_int_t n = json_integer_value(value);
	if (n < (json_int_t)range[0] || n > (json_int_t)range[1]) {
		snprintf(allowed, sizeof(allowed), "not in %u..%u", range[0], range[1]);
		refuse_value(d, at, value, allowed);
		return false;
	}
	*out = (uint32_t)n;
	return true;
}

static bool read_number(struct decode *d, const json_t *object, const char *path[2],
	const uint32_t range[2], uint32_t *out)
{
	char pointer[POINTER_MAX];
	const json_t *value = member(object, path[0], path[1], pointer);
	return value != NULL && number_value(d, pointer, value, range, out);
}

// A duration as a whole number of `unit_ns` in range.
static void read_duration(struct decode *d, const json_t *object, const char *path[2],
	uint64_t unit_ns, const uint32_t range[2], uint32_t *out)
{
	char pointer[POINTER_MAX], low[32], high[32], allowed[128];
	const json_t *value = member(object, path[0], path[1], pointer);
	uint64_t ns;
	if (value == NULL)
		return;
	if (!json_is_string(value) || clock_parse_duration(json_string_value(value), &ns) != 0) {
		refuse_value(d, pointer, value, "is not a duration such as \"1s\" or \"15m\"");
		return;
	}
	if (ns % unit_ns != 0 || ns / unit_ns < range[0] || ns / unit_ns > range[1]) {
		snprintf(allowed, sizeof(allowed), "not in %s..%s in steps of %s",
			clock_format_duration(range[0] * unit_ns, low, sizeof(low)),
			clock_format_duration(range[1] * unit_ns, high, sizeof(high)),
			unit_ns == CLOCK_S ? "1s" : "1ms");
		refuse_value(d, pointer, value, allowed);
		return;
	}
	*out = (uint32_t)(ns / unit_ns);
}

static void read_bool(
	struct decode *d, const json_t *object, const char *at, const char *key, bool *out)
{
	char pointer[POINTER_MAX];
	const json_t *value = member(object, at, key, pointer);
	if (value == NULL)
		return;
	if (!json_is_boolean(value))
		refuse_value(d, pointer, value, "is not true or false");
	else
		*out = json_is_true(value);
}

// The member as an object or a list (by `type`), or NULL: absent or refused.
static json_t *read_container(
	struct decode *d, const json_t *object, const char *path[2], json_type type, char *pointer)
{
	json_t *value = member(object, path[0], path[1], pointer);
	if (value != NULL && json_typeof(value) != type) {
		refuse_value(d, pointer, value,
			type == JSON_OBJECT ? "is not an object" : "is not a list");
		return NULL;
	}
	return value;
}

// ---------------------------------------------------------------- words
static const char *word_mode(int i)
{
	return service_mode_name((enum service_mode)i);
}

static const char *word_scheduler(int i)
{
	return service_scheduler_name((enum service_scheduler)i);
}

static const char *word_client_address(int i)
{
	return service_client_address_name((enum service_client_address)i);
}

static const char *word_check(int i)
{
	return service_check_name((enum service_check_kind)i);
}

static const char *word_owner(int i)
{
	return service_owner_name((enum service_owner)i);
}

struct words {
	const char *(*name)(int i);
	int n;
};

// Index of the word, or -1: absent or refused.
static int read_word(struct decode *d, const json_t *object, const char *at, const char *key,
	const struct words *words)
{
	char pointer[POINTER_MAX], allowed[256] = "is not one of";
	const json_t *value = member(object, at, key, pointer);
	if (value == NULL)
		return -1;
	size_t used = strlen(allowed);
	for (int i = 0; i < words->n; i++) {
		if (json_is_string(value) && strcmp(json_string_value(value), words->name(i)) == 0)
			return i;
		if (used < sizeof(allowed))
			used += (size_t)snprintf(allowed + used, sizeof(allowed) - used, "%s %s",
				i == 0 ? "" : ",", words->name(i));
	}
	refuse_value(d, pointer, value, allowed);
	return -1;
}

// ---------------------------------------------------------------- parts of a service
static const uint32_t PORT_RANGE[2] = { 1, UINT16_MAX };

static void decode_metadata(struct decode *d, const json_t *body, struct service *s)
{
	static const char *const keys[] = { "namespace", "name", "managedBy", "generation" };
	static const struct words owners = { word_owner, SERVICE_OWNER_API + 1 };
	char at[POINTER_MAX], pointer[POINTER_MAX];
	const json_t *meta =
		read_container(d, body, (const char *[2]){ "", "metadata" }, JSON_OBJECT, at);
	if (meta == NULL) {
		if (member(body, "", "metadata", at) == NULL)
			decode_refuse(d, at, "missing");
		return;
	}
	check_keys(d, at, meta, keys, ARRAY_SIZE(keys));
	read_text(d, meta, at, "namespace", s->namespace, sizeof(s->namespace));
	read_text(d, meta, at, "name", s->name, sizeof(s->name));
	if (member(meta, at, "namespace", pointer) == NULL)
		decode_refuse(d, pointer, "missing");
	if (member(meta, at, "name", pointer) == NULL)
		decode_refuse(d, pointer, "missing");
	// Who owns it and its generation are ours to say: read for their form only.
	read_word(d, meta, at, "managedBy", &owners);
	const json_t *generation = member(meta, at, "generation", pointer);
	if (generation != NULL &&
		(!json_is_integer(generation) || json_integer_value(generation) < 0))
		refuse_value(d, pointer, generation, "is not a generation number");
}

static void decode_addresses(
	struct decode *d, const json_t *spec, const char *at, struct service *s)
{
	char list_at[POINTER_MAX], pointer[POINTER_MAX];
	const json_t *list =
		read_container(d, spec, (const char *[2]){ at, "addresses" }, JSON_ARRAY, list_at);
	size_t i;
	json_t *value;
	json_array_foreach(list, i, value)
	{
		struct address address;
		pointer_index(pointer, list_at, i);
		if (i >= SERVICE_ADDRESSES_MAX) {
			decode_refuse(d, list_at, "more than %u addresses",
				(unsigned)SERVICE_ADDRESSES_MAX);
			return;
		}
		if (!json_is_string(value) || address_parse(json_string_value(value), &address)) {
			refuse_value(d, pointer, value, "is not an IPv4 or IPv6 address");
			continue;
		}
		struct address *slot = service_add_address(s);
		if (slot != NULL)
			*slot = address;
		else
			decode_refuse(d, pointer, "out of memory");
	}
}

static void decode_listener(
	struct decode *d, const json_t *value, const char *at, struct service_listener *l)
{
	static const char *const keys[] = { "name", "protocol", "port", "portMax" };
	char pointer[POINTER_MAX];
	uint32_t port = 0, port_max = 0;
	if (!json_is_object(value)) {
		refuse_value(d, at, value, "is not an object");
		return;
	}
	check_keys(d, at, value, keys, ARRAY_SIZE(keys));
	read_text(d, value, at, "name", l->name, sizeof(l->name));
	l->protocol = NET_PROTO_TCP;
	const json_t *protocol = member(value, at, "protocol", pointer);
	if (protocol != NULL &&
		(!json_is_string(protocol) ||
			service_protocol_parse(json_string_value(protocol), &l->protocol) != 0))
		refuse_value(d, pointer, protocol, "is not one of TCP, UDP, SCTP");
	if (member(value, at, "port", pointer) == NULL)
		decode_refuse(d, pointer, "missing");
	read_number(d, value, (const char *[2]){ at, "port" }, PORT_RANGE, &port);
	port_max = port;
	read_number(d, value, (const char *[2]){ at, "portMax" },
		(const uint32_t[2]){ port != 0 ? port : 1, UINT16_MAX }, &port_max);
	l->port = (uint16_t)port;
	l->port_max = (uint16_t)port_max;
}

static void decode_listeners(
	struct decode *d, const json_t *spec, const char *at, struct service *s)
{
	char list_at[POINTER_MAX], pointer[POINTER_MAX];
	const json_t *list =
		read_container(d, spec, (const char *[2]){ at, "listeners" }, JSON_ARRAY, list_at);
	size_t i;
	json_t *value;
	json_array_foreach(list, i, value)
	{
		if (i >= SERVICE_LISTENERS_MAX) {
			decode_refuse(d, list_at, "more than %u listeners",
				(unsigned)SERVICE_LISTENERS_MAX);
			return;
		}
		struct service_listener *l = service_add_listener(s);
		pointer_index(pointer, list_at, i);
		if (l != NULL)
			decode_listener(d, value, pointer, l);
		else
			decode_refuse(d, pointer, "out of memory");
	}
}

static void decode_source_ranges(
	struct decode *d, const json_t *spec, const char *at, struct service *s)
{
	char list_at[POINTER_MAX], pointer[POINTER_MAX];
	const json_t *list = read_container(
		d, spec, (const char *[2]){ at, "sourceRanges" }, JSON_ARRAY, list_at);
	size_t i;
	json_t *value;
	json_array_foreach(list, i, value)
	{
		struct prefix prefix;
		pointer_index(pointer, list_at, i);
		if (!json_is_string(value) || prefix_parse(json_string_value(value), &prefix)) {
			refuse_value(d, pointer, value,
				"is not a prefix such as 192.0.2.0/24 (no bits beyond its length)");
			continue;
		}
		struct prefix *slot = service_add_source_range(s);
		if (slot != NULL)
			*slot = prefix;
		else
			decode_refuse(d, pointer, "out of memory");
	}
}

static void decode_check(
	struct decode *d, const json_t *spec, const char *spec_at, struct service *s)
{
	static const char *const keys[] = { "kind", "path", "port", "interval", "timeout", "rise",
		"fall" };
	static const struct words kinds = { word_check, SERVICE_CHECK_NONE + 1 };
	static const uint32_t rise_range[2] = { 1, 10 };
	char at[POINTER_MAX], pointer[POINTER_MAX];
	const json_t *check = read_container(
		d, spec, (const char *[2]){ spec_at, "healthCheck" }, JSON_OBJECT, at);
	if (check == NULL)
		return;
	struct service_check *c = &s->check;
	check_keys(d, at, check, keys, ARRAY_SIZE(keys));
	int kind = read_word(d, check, at, "kind", &kinds);
	if (kind >= 0)
		c->kind = (enum service_check_kind)kind;
	if (c->kind != SERVICE_CHECK_HTTP && c->kind != SERVICE_CHECK_HTTPS)
		c->path[0] = '\0'; // of a default of another kind
	read_text(d, check, at, "path", c->path, sizeof(c->path));
	const json_t *port = member(check, at, "port", pointer);
	uint32_t number = c->port;
	if (port != NULL) {
		c->port_name[0] = '\0';
		number = 0;
	}
	if (json_is_string(port))
		read_text(d, check, at, "port", c->port_name, sizeof(c->port_name));
	else if (port != NULL)
		number_value(d, pointer, port, PORT_RANGE, &number);
	c->port = (uint16_t)number;
	read_duration(d, check, (const char *[2]){ at, "interval" }, CLOCK_MS,
		(const uint32_t[2]){ 100, 3600000 }, &c->interval_ms);
	read_duration(d, check, (const char *[2]){ at, "timeout" }, CLOCK_MS,
		(const uint32_t[2]){ 10, 3600000 }, &c->timeout_ms);
	uint32_t rise = c->rise, fall = c->fall;
	read_number(d, check, (const char *[2]){ at, "rise" }, rise_range, &rise);
	read_number(d, check, (const char *[2]){ at, "fall" }, rise_range, &fall);
	c->rise = (uint8_t)rise;
	c->fall = (uint8_t)fall;
}

static void add_backend_port(struct decode *d, const char *at, struct service_backend *b,
	const char *name, uint32_t port)
{
	struct service_backend_port *p = service_backend_add_port(b);
	if (p == NULL) {
		decode_refuse(d, at, "out of memory");
		return;
	}
	memcpy(p->listener, name, strlen(name) + 1);
	p->port = (uint16_t)port;
}

// Absent: every listener's own port.
static void decode_backend_ports(struct decode *d, const json_t *backend, const char *backend_at,
	const struct service *s, struct service_backend *b)
{
	char at[POINTER_MAX], pointer[POINTER_MAX];
	if (member(backend, backend_at, "ports", at) == NULL) {
		for (uint32_t i = 0; i < s->n_listeners; i++)
			add_backend_port(d, at, b, s->listeners[i].name, s->listeners[i].port);
		return;
	}
	json_t *ports = read_container(
		d, backend, (const char *[2]){ backend_at, "ports" }, JSON_OBJECT, at);
	const char *key;
	json_t *value;
	json_object_foreach(ports, key, value)
	{
		uint32_t port = 0;
		bool known = false;
		pointer_join(pointer, at, key);
		for (uint32_t i = 0; i < s->n_listeners && !known; i++)
			known = strcmp(s->listeners[i].name, key) == 0;
		if (!known)
			decode_refuse(d, pointer, "no listener has this name");
		else if (number_value(d, pointer, value, PORT_RANGE, &port))
			add_backend_port(d, pointer, b, key, port);
	}
}

static void decode_conditions(
	struct decode *d, const json_t *backend, const char *backend_at, struct service_backend *b)
{
	static const char *const keys[] = { "ready", "serving", "terminating" };
	char at[POINTER_MAX];
	const json_t *conditions = read_container(
		d, backend, (const char *[2]){ backend_at, "conditions" }, JSON_OBJECT, at);
	if (conditions == NULL)
		return;
	check_keys(d, at, conditions, keys, ARRAY_SIZE(keys));
	read_bool(d, conditions, at, "ready", &b->conditions.ready);
	read_bool(d, conditions, at, "serving", &b->conditions.serving);
	read_bool(d, conditions, at, "terminating", &b->conditions.terminating);
}

static void decode_backend(struct decode *d, const json_t *value, const char *at,
	const struct service *s, struct service_backend *b)
{
	static const char *const keys[] = { "address", "ports", "weight", "conditions", "target" };
	char pointer[POINTER_MAX];
	b->weight = SERVICE_WEIGHT_DEFAULT;
	b->conditions = (struct service_conditions){ .ready = true, .serving = true };
	if (!json_is_object(value)) {
		refuse_value(d, at, value, "is not an object");
		return;
	}
	check_keys(d, at, value, keys, ARRAY_SIZE(keys));
	const json_t *address = member(value, at, "address", pointer);
	if (address == NULL)
		decode_refuse(d, pointer, "missing");
	else if (!json_is_string(address) || address_parse(json_string_value(address), &b->address))
		refuse_value(d, pointer, address, "is not an IPv4 or IPv6 address");
	decode_backend_ports(d, value, at, s, b);
	read_number(d, value, (const char *[2]){ at, "weight" },
		(const uint32_t[2]){ 0, SERVICE_WEIGHT_MAX }, &b->weight);
	decode_conditions(d, value, at, b);
	read_text(d, value, at, "target", b->target, sizeof(b->target));
}

static void decode_backends(struct decode *d, const json_t *spec, const char *at, struct service *s)
{
	char list_at[POINTER_MAX], pointer[POINTER_MAX];
	const json_t *list =
		read_container(d, spec, (const char *[2]){ at, "backends" }, JSON_ARRAY, list_at);
	size_t i;
	json_t *value;
	json_array_foreach(list, i, value)
	{
		if (i >= SERVICE_BACKENDS_MAX) {
			decode_refuse(d, list_at, "more than %u backends",
				(unsigned)SERVICE_BACKENDS_MAX);
			return;
		}
		struct service_backend *b = service_add_backend(s);
		pointer_index(pointer, list_at, i);
		if (b != NULL)
			decode_backend(d, value, pointer, s, b);
		else
			decode_refuse(d, pointer, "out of memory");
	}
}

static void decode_policy(struct decode *d, const json_t *spec, const char *at, struct service *s)
{
	static const char *const idle_keys[] = { "tcp", "udp" };
	static const char *const affinity_keys[] = { "timeout" };
	static const struct words modes = { word_mode, SERVICE_MODE_L2DSR + 1 };
	static const struct words schedulers = { word_scheduler, SERVICE_LEAST_CONNECTIONS + 1 };
	static const struct words clients = { word_client_address, SERVICE_CLIENT_PROXY_V2 + 1 };
	static const uint32_t week[2] = { 1, 7 * 24 * 3600 };
	char sub[POINTER_MAX];
	int word = read_word(d, spec, at, "mode", &modes);
	if (word >= 0)
		s->mode = (enum service_mode)word;
	word = read_word(d, spec, at, "scheduler", &schedulers);
	if (word >= 0)
		s->scheduler = (enum service_scheduler)word;
	word = read_word(d, spec, at, "clientAddress", &clients);
	if (word >= 0)
		s->client_address = (enum service_client_address)word;
	const json_t *affinity = read_container(
		d, spec, (const char *[2]){ at, "sessionAffinity" }, JSON_OBJECT, sub);
	if (affinity != NULL) {
		s->affinity_s = 10800; // Kubernetes' default
		check_keys(d, sub, affinity, affinity_keys, ARRAY_SIZE(affinity_keys));
		read_duration(d, affinity, (const char *[2]){ sub, "timeout" }, CLOCK_S,
			(const uint32_t[2]){ 1, 86400 }, &s->affinity_s);
	}
	const json_t *idle =
		read_container(d, spec, (const char *[2]){ at, "idleTimeout" }, JSON_OBJECT, sub);
	if (idle != NULL) {
		check_keys(d, sub, idle, idle_keys, ARRAY_SIZE(idle_keys));
		read_duration(
			d, idle, (const char *[2]){ sub, "tcp" }, CLOCK_S, week, &s->tcp_idle_s);
		read_duration(
			d, idle, (const char *[2]){ sub, "udp" }, CLOCK_S, week, &s->udp_idle_s);
	}
	read_duration(d, spec, (const char *[2]){ at, "drainTimeout" }, CLOCK_S,
		(const uint32_t[2]){ 0, 7 * 24 * 3600 }, &s->drain_timeout_s);
}

static void decode_service(struct decode *d, const json_t *body, struct service *s)
{
	static const char *const keys[] = { "metadata", "spec", "status" };
	static const char *const spec_keys[] = { "addresses", "listeners", "mode", "scheduler",
		"clientAddress", "sessionAffinity", "sourceRanges", "healthCheck", "idleTimeout",
		"drainTimeout", "backends" };
	char at[POINTER_MAX];
	if (!json_is_object(body)) {
		decode_refuse(d, "", "the body is not an object");
		return;
	}
	check_keys(d, "", body, keys, ARRAY_SIZE(keys)); // status is ours: ignored
	decode_metadata(d, body, s);
	const json_t *spec =
		read_container(d, body, (const char *[2]){ "", "spec" }, JSON_OBJECT, at);
	if (spec == NULL) {
		if (member(body, "", "spec", at) == NULL)
			decode_refuse(d, at, "missing");
		return;
	}
	check_keys(d, at, spec, spec_keys, ARRAY_SIZE(spec_keys));
	decode_addresses(d, spec, at, s);
	decode_listeners(d, spec, at, s);
	decode_policy(d, spec, at, s);
	decode_source_ranges(d, spec, at, s);
	decode_check(d, spec, at, s);
	decode_backends(d, spec, at, s);
}

struct service *control_service_from_json(
	const json_t *body, const struct service_defaults *defaults, struct error *err)
{
	struct decode d = { .err = err };
	struct service *s = service_create(defaults);
	if (s == NULL) {
		error_add(err, ENOMEM, "", "out of memory");
		return NULL;
	}
	s->owner = SERVICE_OWNER_API;
	decode_service(&d, body, s);
	if (d.n_bad == 0) {
		// Findings name places as the sender wrote them: validate before the order is changed.
		if (service_validate(s, err) == 0) {
			service_normalise(s);
			return s;
		}
	}
	service_destroy(s);
	return NULL;
}

// ---------------------------------------------------------------- overlay
// "2026-01-31T12:00:00Z", with optional fraction; UTC only.
static int parse_utc(const char *text, int64_t *out_ms)
{
	struct tm tm = { 0 };
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	if (rest == NULL)
		return -EINVAL;
	int64_t ms = 0, unit = 100;
	if (*rest == '.') {
		for (rest++; *rest >= '0' && *rest <= '9'; rest++, unit /= 10)
			ms += (*rest - '0') * unit;
	}
	if (strcmp(rest, "Z") != 0)
		return -EINVAL;
	time_t s = timegm(&tm);
	if (s < 0)
		return -EINVAL;
	*out_ms = (int64_t)s * 1000 + ms;
	return 0;
}

int control_parse_deadline(const char *text, int64_t now_ms, int64_t *out_ms)
{
	uint64_t ns;
	if (clock_parse_duration(text, &ns) == 0) {
		*out_ms = now_ms + (int64_t)(ns / CLOCK_MS);
		return 0;
	}
	return parse_utc(text, out_ms);
}

static void decode_drain(struct decode *d, const json_t *value, struct service_overlay *o)
{
	char pointer[POINTER_MAX], time[40] = "", action[16] = "keep";
	read_bool(d, value, "", "draining", &o->draining);
	read_text(d, value, "", "since", time, sizeof(time));
	if (time[0] != '\0' && parse_utc(time, &o->since_ms) != 0)
		decode_refuse(
			d, "/since", "\"%s\" is not a time such as 2026-01-31T12:00:00Z", time);
	time[0] = '\0';
	read_text(d, value, "", "deadline", time, sizeof(time));
	if (time[0] != '\0' && parse_utc(time, &o->deadline_ms) != 0)
		decode_refuse(
			d, "/deadline", "\"%s\" is not a time such as 2026-01-31T12:00:00Z", time);
	read_text(d, value, "", "onDeadline", action, sizeof(action));
	o->reset_on_deadline = strcmp(action, "reset") == 0;
	if (!o->reset_on_deadline && strcmp(action, "keep") != 0)
		decode_refuse(d, "/onDeadline", "\"%s\" is not one of keep, reset", action);
	read_text(d, value, "", "reason", o->reason, sizeof(o->reason));
	o->has_weight = member(value, "", "weight", pointer) != NULL;
	read_number(d, value, (const char *[2]){ "", "weight" },
		(const uint32_t[2]){ 0, SERVICE_WEIGHT_MAX }, &o->weight);
}

int control_overlay_from_json(const json_t *value, struct service_overlay *out, struct error *err)
{
	static const char *const keys[] = { "namespace", "name", "address", "port", "draining",
		"since", "deadline", "onDeadline", "reason", "weight" };
	struct decode d = { .err = err };
	struct service_overlay o = { 0 };
	char text[ADDRESS_TEXT_LEN] = "";
	uint32_t port = 0;
	if (!json_is_object(value))
		return error_add(err, EINVAL, "", "not an object");
	check_keys(&d, "", value, keys, ARRAY_SIZE(keys));
	read_text(&d, value, "", "namespace", o.namespace, sizeof(o.namespace));
	read_text(&d, value, "", "name", o.name, sizeof(o.name));
	read_text(&d, value, "", "address", text, sizeof(text));
	if (o.namespace[0] == '\0' || o.name[0] == '\0')
		decode_refuse(&d, "/name", "namespace and name are needed");
	if (address_parse(text, &o.address) != 0)
		decode_refuse(&d, "/address", "\"%s\" is not an address", text);
	read_number(&d, value, (const char *[2]){ "", "port" }, PORT_RANGE, &port);
	o.port = (uint16_t)port;
	decode_drain(&d, value, &o);
	if (d.n_bad != 0)
		return -EINVAL;
	*out = o;
	return 0;
}
