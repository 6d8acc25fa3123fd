// SPDX-License-Identifier: BSD-3-Clause
// One service by itself: is it whole, in range, without contradiction, and something this version can carry?
// Types and syntax are the decoder's; conflicts between services are the store's.
#include "service.h"
#include "service_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define IDLE_MAX_S      (7u * 24 * 3600) // as FLOW_IDLE_MAX_S of the flow table
#define DRAIN_MAX_S     (7u * 24 * 3600)
#define AFFINITY_MAX_S  86400u
#define INTERVAL_MIN_MS 100u
#define INTERVAL_MAX_MS 3600000u
#define TIMEOUT_MIN_MS  10u
#define ROW_MAX         10u

struct validation {
	const struct service *s;
	struct error *err;
	int rc;
	char path[192];                          // of what is being looked at
	const struct service_listener **by_name; // the listeners, sorted by name
	uint32_t n_by_name;
};

__attribute__((format(printf, 2, 3))) static void place(struct validation *v, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(v->path, sizeof(v->path), fmt, ap);
	va_end(ap);
}

// Adds a finding at the current place.
__attribute__((format(printf, 2, 3))) static void refuse(struct validation *v, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	error_add(v->err, EINVAL, v->path, "%s", text);
	if (v->rc == 0)
		v->rc = -EINVAL;
}

static void check_range(struct validation *v, const char *path, uint64_t value, uint64_t max)
{
	if (value >= 1 && value <= max)
		return;
	place(v, "%s", path);
	refuse(v, "%llu not in 1..%llu", (unsigned long long)value, (unsigned long long)max);
}

// ---------------------------------------------------------------- names
// DNS label of RFC 1123: a-z, 0-9 and '-', no '-' at either end, 1..63 long.
static bool is_label(const char *text)
{
	size_t len = strlen(text);
	if (len == 0 || len >= SERVICE_NAME_MAX || text[0] == '-' || text[len - 1] == '-')
		return false;
	return strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

static void check_label(struct validation *v, const char *text)
{
	if (!is_label(text))
		refuse(v,
			"`%s` is no DNS label; allowed: 1..63 of a-z, 0-9 and `-`, no `-` at "
			"either end",
			text);
}

// Of the cluster also "hostname.service", an endpoint of a headless Service: no object can have such a name.
static void check_name(struct validation *v)
{
	char first[SERVICE_NAME_MAX];
	const char *dot = strchr(v->s->name, '.');
	if (v->s->owner == SERVICE_OWNER_KUBERNETES && dot) {
		snprintf(first, sizeof(first), "%.*s", (int)(dot - v->s->name), v->s->name);
		check_label(v, first);
		check_label(v, dot + 1);
	} else {
		check_label(v, v->s->name);
	}
}

// A name as one step of a JSON pointer (RFC 6901: ~ is ~0, / is ~1).
static const char *pointer_step(const char *name, char *buf, size_t len)
{
	size_t n = 0;
	for (; *name && n + 3 < len; name++) {
		if (*name == '~' || *name == '/') {
			buf[n++] = '~';
			buf[n++] = *name == '~' ? '0' : '1';
		} else {
			buf[n++] = *name;
		}
	}
	buf[n] = 0;
	return buf;
}

// ---------------------------------------------------------------- addresses
static const char *why_unroutable(const struct address *a)
{
	if (address_is_unspecified(a))
		return "unspecified";
	if (address_is_v4(a)) {
		if (a->bytes[12] == 127)
			return "loopback";
		if (a->bytes[12] == 169)
			return "link-local";
		if ((a->bytes[12] & 0xf0) == 224)
			return "multicast";
		return a->bytes[12] == 0 ? "this-network (0.0.0.0/8)" : "reserved or broadcast";
	}
	if (a->bytes[0] == 0xff)
		return "multicast";
	return a->bytes[0] == 0xfe ? "link-local" : "loopback";
}

static void check_routable(struct validation *v, const struct address *a)
{
	char text[ADDRESS_TEXT_LEN];
	if (address_is_unroutable(a))
		refuse(v,
			"%s is %s; allowed: a routable unicast address (not unspecified, loopback, "
			"link-local, multicast, reserved)",
			address_format(a, text), why_unroutable(a));
}

static void check_addresses(struct validation *v)
{
	const struct service *s = v->s;
	char text[ADDRESS_TEXT_LEN];
	place(v, "/spec/addresses");
	if (s->n_addresses == 0)
		refuse(v, "empty; allowed: 1..%u addresses", SERVICE_ADDRESSES_MAX);
	if (s->n_addresses > SERVICE_ADDRESSES_MAX) {
		refuse(v, "%u addresses; allowed: 1..%u", s->n_addresses, SERVICE_ADDRESSES_MAX);
		return;
	}
	for (uint32_t i = 0; i < s->n_addresses; i++) {
		place(v, "/spec/addresses/%u", i);
		check_routable(v, &s->addresses[i]);
		for (uint32_t j = 0; j < i; j++) {
			if (!address_equal(&s->addresses[i], &s->addresses[j]))
				continue;
			refuse(v, "%s is there already (/spec/addresses/%u); allowed: each once",
				address_format(&s->addresses[i], text), j);
			break;
		}
	}
}

static void check_source_ranges(struct validation *v)
{
	const struct service *s = v->s;
	place(v, "/spec/sourceRanges");
	if (s->n_source_ranges > SERVICE_SOURCES_MAX)
		refuse(v, "%u ranges; allowed: 0..%u", s->n_source_ranges, SERVICE_SOURCES_MAX);
	for (uint32_t i = 0; i < s->n_source_ranges && i < SERVICE_SOURCES_MAX; i++) {
		const struct prefix *p = &s->source_ranges[i];
		unsigned max = address_is_v4(&p->address) ? 32 : 128;
		place(v, "/spec/sourceRanges/%u", i);
		if (p->len > max)
			refuse(v, "prefix length %u not in 0..%u", p->len, max);
		else if (!prefix_contains(p, &p->address))
			refuse(v, "host bits are set; allowed: the network address");
	}
}

// ---------------------------------------------------------------- listeners
static void check_listener(struct validation *v, uint32_t i)
{
	const struct service_listener *l = &v->s->listeners[i];
	if (l->name[0] || v->s->n_listeners > 1) {
		place(v, "/spec/listeners/%u/name", i);
		check_label(v, l->name);
	}
	place(v, "/spec/listeners/%u/protocol", i);
	if (l->protocol != NET_PROTO_TCP && l->protocol != NET_PROTO_UDP &&
		l->protocol != NET_PROTO_SCTP)
		refuse(v, "protocol %u; allowed: TCP, UDP, SCTP", l->protocol);
	place(v, "/spec/listeners/%u/port", i);
	if (l->port == 0)
		refuse(v, "0 not in 1..65535");
	place(v, "/spec/listeners/%u/portMax", i);
	if (l->port_max != 0 && l->port_max < l->port)
		refuse(v, "%u is below the port %u; allowed: %u..65535", l->port_max, l->port,
			l->port);
}

static int compare_listener_names(const void *a, const void *b)
{
	const struct service_listener *const *x = a, *const *y = b;
	int order = strcmp((*x)->name, (*y)->name);
	return order ? order : (*x > *y) - (*x < *y);
}

static int compare_listener_ports(const void *a, const void *b)
{
	const struct service_listener *const *x = a, *const *y = b;
	if ((*x)->protocol != (*y)->protocol)
		return (*x)->protocol < (*y)->protocol ? -1 : 1;
	if ((*x)->port != (*y)->port)
		return (*x)->port < (*y)->port ? -1 : 1;
	return (*x > *y) - (*x < *y);
}

// Ports of one protocol must not meet. In order of the first port, only the listener that reaches furthest so far can
// meet the next one.
static void check_overlaps(struct validation *v)
{
	const struct service *s = v->s;
	const struct service_listener *sorted[SERVICE_LISTENERS_MAX];
	for (uint32_t i = 0; i < s->n_listeners; i++)
		sorted[i] = &s->listeners[i];
	qsort(sorted, s->n_listeners, sizeof(sorted[0]), compare_listener_ports);
	const struct service_listener *reach = NULL;
	for (uint32_t i = 0; i < s->n_listeners; i++) {
		const struct service_listener *l = sorted[i];
		if (reach && reach->protocol == l->protocol &&
			l->port <= service_listener_last(reach)) {
			const struct service_listener *later = l > reach ? l : reach;
			const struct service_listener *first = l > reach ? reach : l;
			place(v, "/spec/listeners/%u/port", (uint32_t)(later - s->listeners));
			refuse(v,
				"%s %u overlaps /spec/listeners/%u (%s %u); allowed: ports of one "
				"protocol that do not meet",
				service_protocol_name(later->protocol), later->port,
				(uint32_t)(first - s->listeners),
				service_protocol_name(first->protocol), first->port);
		}
		if (reach == NULL || reach->protocol != l->protocol ||
			service_listener_last(l) > service_listener_last(reach))
			reach = l;
	}
}

static void check_listeners(struct validation *v)
{
	const struct service *s = v->s;
	place(v, "/spec/listeners");
	if (s->n_listeners == 0)
		refuse(v, "empty; allowed: 1..%u listeners", SERVICE_LISTENERS_MAX);
	if (s->n_listeners > SERVICE_LISTENERS_MAX) {
		refuse(v, "%u listeners; allowed: 1..%u", s->n_listeners, SERVICE_LISTENERS_MAX);
		return;
	}
	for (uint32_t i = 0; i < s->n_listeners; i++)
		check_listener(v, i);
	check_overlaps(v);
	for (uint32_t i = 0; i < s->n_listeners; i++)
		v->by_name[i] = &s->listeners[i];
	v->n_by_name = s->n_listeners;
	qsort(v->by_name, v->n_by_name, sizeof(v->by_name[0]), compare_listener_names);
	for (uint32_t i = 1; i < v->n_by_name; i++) {
		if (strcmp(v->by_name[i]->name, v->by_name[i - 1]->name) != 0)
			continue;
		place(v, "/spec/listeners/%u/name", (uint32_t)(v->by_name[i] - s->listeners));
		refuse(v, "`%s` is there already (/spec/listeners/%u); allowed: each name once",
			v->by_name[i]->name, (uint32_t)(v->by_name[i - 1] - s->listeners));
	}
}

// Index of a listener by name, or -1.
static int find_listener(const struct validation *v, const char *name)
{
	uint32_t low = 0, high = v->n_by_name;
	while (low < high) {
		uint32_t middle = (low + high) / 2;
		int order = strcmp(v->by_name[middle]->name, name);
		if (order == 0)
			return (int)(v->by_name[middle] - v->s->listeners);
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return -1;
}

// ---------------------------------------------------------------- backends
// Where a packet's destination port stays what the client wrote, the backend must listen there: in the modes that do not
// change packets, and in a range, whose first port stands for all.
struct port_mismatch {
	uint32_t n;
	uint32_t backend_idx; // of the first
	uint16_t port;
};

static bool port_is_kept(const struct service *s, const struct service_listener *l)
{
	bool is_oneway = s->mode == SERVICE_MODE_IPIP || s->mode == SERVICE_MODE_GUE ||
			 s->mode == SERVICE_MODE_L2DSR;
	return is_oneway || service_listener_last(l) > l->port;
}

static void refuse_port(struct validation *v, uint32_t i, const struct port_mismatch *found)
{
	const struct service_listener *l = &v->s->listeners[i];
	char step[SERVICE_NAME_MAX * 2 + 4], others[48] = "", why[64], text[ADDRESS_TEXT_LEN + 10];
	place(v, "/spec/backends/%u/ports/%s", found->backend_idx,
		pointer_step(l->name, step, sizeof(step)));
	if (found->n > 1)
		snprintf(others, sizeof(others), " (and %u more)", found->n - 1);
	if (service_listener_last(l) > l->port)
		snprintf(why, sizeof(why), "a range of ports keeps the packet's port");
	else
		snprintf(why, sizeof(why), "mode %s does not change the packet's port",
			service_mode_name(v->s->mode));
	refuse(v, "%s%s is not on port %u of listener `%s`: %s; allowed: %u",
		endpoint_format(&v->s->backends[found->backend_idx].address, found->port, text,
			sizeof(text)),
		others, l->port, l->name, why, l->port);
}

// One backend of one listener: identities must differ.
struct identity {
	const struct address *address;
	uint32_t backend_idx;
	int listener_idx;
	uint16_t port;
};

static int compare_identities(const void *a, const void *b)
{
	const struct identity *x = a, *y = b;
	int order = address_compare(x->address, y->address);
	if (order)
		return order;
	if (x->listener_idx != y->listener_idx)
		return x->listener_idx < y->listener_idx ? -1 : 1;
	if (x->port != y->port)
		return x->port < y->port ? -1 : 1;
	return (x->backend_idx > y->backend_idx) - (x->backend_idx < y->backend_idx);
}

// Checks the ports of backend i; adds those that are sound to `identities`. Returns how many.
static uint32_t check_backend_ports(struct validation *v, uint32_t i, struct identity *identities)
{
	const struct service_backend *b = &v->s->backends[i];
	char step[SERVICE_NAME_MAX * 2 + 4];
	uint32_t n = 0;
	for (uint32_t p = 0; p < b->n_ports; p++) {
		const struct service_backend_port *port = &b->ports[p];
		place(v, "/spec/backends/%u/ports/%s", i,
			pointer_step(port->listener, step, sizeof(step)));
		int listener_idx = find_listener(v, port->listener);
		if (listener_idx < 0 && v->n_by_name > 0)
			refuse(v, "no listener is named `%s`; allowed: a name of /spec/listeners",
				port->listener);
		if (port->port == 0)
			refuse(v, "0 not in 1..65535");
		if (listener_idx >= 0 && port->port != 0)
			identities[n++] =
				(struct identity){ &b->address, i, listener_idx, port->port };
	}
	return n;
}

static void check_backend(struct validation *v, uint32_t i)
{
	const struct service_backend *b = &v->s->backends[i];
	char text[ADDRESS_TEXT_LEN];
	place(v, "/spec/backends/%u/address", i);
	check_routable(v, &b->address);
	for (uint32_t a = 0; a < v->s->n_addresses && a < SERVICE_ADDRESSES_MAX; a++) {
		if (address_equal(&b->address, &v->s->addresses[a]))
			refuse(v, "%s is an address of the service itself (/spec/addresses/%u)",
				address_format(&b->address, text), a);
	}
	place(v, "/spec/backends/%u/weight", i);
	if (b->weight > SERVICE_WEIGHT_MAX)
		refuse(v, "%u not in 0..%u", b->weight, SERVICE_WEIGHT_MAX);
	// Slices may hold endpoints for ports that the service does not have (yet); an operator's own words may not.
	place(v, "/spec/backends/%u/ports", i);
	if (b->n_ports == 0 && v->s->owner == SERVICE_OWNER_API)
		refuse(v, "empty; allowed: a port for at least one listener name");
}

// One finding for each listener, or a service with many pods would say the same of each.
static void check_kept_ports(struct validation *v, const struct identity *identities, uint32_t n)
{
	struct port_mismatch found[SERVICE_LISTENERS_MAX] = { 0 };
	for (uint32_t i = 0; i < n; i++) {
		const struct identity *id = &identities[i];
		const struct service_listener *l = &v->s->listeners[id->listener_idx];
		struct port_mismatch *m = &found[id->listener_idx];
		if (l->port == 0 || id->port == l->port || !port_is_kept(v->s, l))
			continue;
		if (m->n++ == 0)
			*m = (struct port_mismatch){ 1, id->backend_idx, id->port };
	}
	for (uint32_t i = 0; i < v->n_by_name; i++) {
		if (found[i].n > 0)
			refuse_port(v, i, &found[i]);
	}
}

static void check_duplicates(struct validation *v, struct identity *identities, uint32_t n)
{
	char text[ADDRESS_TEXT_LEN + 10];
	qsort(identities, n, sizeof(*identities), compare_identities);
	for (uint32_t i = 1; i < n; i++) {
		const struct identity *a = &identities[i - 1], *b = &identities[i];
		if (!address_equal(a->address, b->address) || a->listener_idx != b->listener_idx)
			continue;
		// Two ports of one listener inside one backend entry would be ambiguous; in two
		// entries (two processes of one host) they are two backends.
		if (a->port != b->port && a->backend_idx != b->backend_idx)
			continue;
		place(v, "/spec/backends/%u", b->backend_idx);
		refuse(v,
			"%s of listener `%s` is there already (/spec/backends/%u); allowed: each "
			"once",
			endpoint_format(b->address, b->port, text, sizeof(text)),
			v->s->listeners[b->listener_idx].name, a->backend_idx);
	}
}

static void check_backends(struct validation *v)
{
	const struct service *s = v->s;
	place(v, "/spec/backends");
	if (s->n_backends > SERVICE_BACKENDS_MAX) {
		refuse(v, "%u backends; allowed: 0..%u", s->n_backends, SERVICE_BACKENDS_MAX);
		return;
	}
	size_t n_ports = 0;
	for (uint32_t i = 0; i < s->n_backends; i++)
		n_ports += s->backends[i].n_ports;
	struct identity *identities = calloc(n_ports + 1, sizeof(*identities));
	if (identities == NULL) {
		v->rc = error_add(v->err, ENOMEM, v->path, "out of memory");
		return;
	}
	uint32_t n = 0;
	for (uint32_t i = 0; i < s->n_backends; i++) {
		check_backend(v, i);
		n += check_backend_ports(v, i, identities + n);
	}
	check_kept_ports(v, identities, n);
	check_duplicates(v, identities, n);
	free(identities);
}

// ---------------------------------------------------------------- policy
static void check_probe_port(struct validation *v)
{
	const struct service_check *c = &v->s->check;
	if (c->port_name[0] == 0)
		return;
	place(v, "/spec/healthCheck/port");
	int listener_idx = find_listener(v, c->port_name);
	if (c->port)
		refuse(v, "both a number (%u) and a name (`%s`); allowed: one of them", c->port,
			c->port_name);
	else if (listener_idx < 0 && v->n_by_name > 0)
		refuse(v,
			"no listener is named `%s`; allowed: 1..65535 or a name of /spec/listeners",
			c->port_name);
	else if (listener_idx >= 0 && v->s->listeners[listener_idx].protocol != NET_PROTO_TCP)
		refuse(v, "listener `%s` is not TCP, and a %s check is; allowed: a TCP listener",
			c->port_name, service_check_name(c->kind));
}

static void check_probe_path(struct validation *v)
{
	const struct service_check *c = &v->s->check;
	if (c->path[0] == 0)
		return;
	place(v, "/spec/healthCheck/path");
	if (c->kind != SERVICE_CHECK_HTTP && c->kind != SERVICE_CHECK_HTTPS) {
		refuse(v, "a path with a %s check; allowed: only with kind http",
			service_check_name(c->kind));
		return;
	}
	bool is_clean = c->path[0] == '/';
	for (const char *p = c->path; *p; p++)
		is_clean = is_clean && *p > ' ' && *p < 0x7f;
	if (!is_clean)
		refuse(v, "no HTTP path; allowed: `/` and then printable ASCII without blanks");
}

static void check_probe(struct validation *v)
{
	const struct service_check *c = &v->s->check;
	if (c->kind != SERVICE_CHECK_TCP && c->kind != SERVICE_CHECK_HTTP &&
		c->kind != SERVICE_CHECK_NONE) {
		place(v, "/spec/healthCheck/kind");
		refuse(v, "%s is not supported yet; allowed: tcp, http, none",
			service_check_name(c->kind));
	}
	check_probe_path(v);
	check_probe_port(v);
	place(v, "/spec/healthCheck/interval");
	if (c->interval_ms < INTERVAL_MIN_MS || c->interval_ms > INTERVAL_MAX_MS)
		refuse(v, "%ums not in 100ms..1h", c->interval_ms);
	place(v, "/spec/healthCheck/timeout");
	if (c->timeout_ms < TIMEOUT_MIN_MS || c->timeout_ms > c->interval_ms)
		refuse(v, "%ums not in 10ms..interval (%ums)", c->timeout_ms, c->interval_ms);
	check_range(v, "/spec/healthCheck/rise", c->rise, ROW_MAX);
	check_range(v, "/spec/healthCheck/fall", c->fall, ROW_MAX);
}

static void check_seconds(
	struct validation *v, const char *path, uint32_t value, uint32_t min, uint32_t max)
{
	char low[32], high[32], text[32];
	if (value >= min && value <= max)
		return;
	place(v, "%s", path);
	refuse(v, "%s not in %s..%s", clock_format_duration(value * CLOCK_S, text, sizeof(text)),
		clock_format_duration(min * CLOCK_S, low, sizeof(low)),
		clock_format_duration(max * CLOCK_S, high, sizeof(high)));
}

// Carried in the TCP streams of fullnat; other listeners of the service go without.
static void check_client_address(struct validation *v)
{
	const struct service *s = v->s;
	const char *word = service_client_address_name(s->client_address);
	bool has_tcp = false;
	for (uint32_t i = 0; i < v->n_by_name; i++)
		has_tcp = has_tcp || s->listeners[i].protocol == NET_PROTO_TCP;
	place(v, "/spec/clientAddress");
	if (s->client_address > SERVICE_CLIENT_PROXY_V2)
		refuse(v, "%s; allowed: none, toa, proxy-v2", word);
	else if (s->client_address == SERVICE_CLIENT_NONE)
		return;
	else if (s->mode != SERVICE_MODE_FULLNAT)
		refuse(v,
			"%s with mode %s, which keeps the client's address; allowed: none, or mode "
			"fullnat",
			word, service_mode_name(s->mode));
	else if (!has_tcp && v->n_by_name > 0)
		refuse(v,
			"%s, and no listener is TCP; allowed: none, or a TCP listener beside the "
			"others",
			word);
}

static void check_policy(struct validation *v)
{
	const struct service *s = v->s;
	place(v, "/spec/mode");
	if (s->mode > SERVICE_MODE_L2DSR)
		refuse(v, "%s; allowed: fullnat, dnat, ipip, gue, l2dsr",
			service_mode_name(s->mode));
	place(v, "/spec/scheduler");
	if (s->scheduler > SERVICE_LEAST_CONNECTIONS)
		refuse(v, "%s; allowed: maglev, least-connections",
			service_scheduler_name(s->scheduler));
	check_client_address(v);
	if (s->affinity_s)
		check_seconds(v, "/spec/sessionAffinity/timeout", s->affinity_s, 1, AFFINITY_MAX_S);
	check_seconds(v, "/spec/idleTimeout/tcp", s->tcp_idle_s, 1, IDLE_MAX_S);
	check_seconds(v, "/spec/idleTimeout/udp", s->udp_idle_s, 1, IDLE_MAX_S);
	check_seconds(v, "/spec/drainTimeout", s->drain_timeout_s, 0, DRAIN_MAX_S);
}

int service_validate(const struct service *s, struct error *err)
{
	const struct service_listener *by_name[SERVICE_LISTENERS_MAX];
	struct validation v = { .s = s, .err = err, .by_name = by_name };
	place(&v, "/metadata/namespace");
	check_label(&v, s->namespace);
	place(&v, "/metadata/name");
	check_name(&v);
	check_addresses(&v);
	check_listeners(&v);
	check_policy(&v);
	check_source_ranges(&v);
	check_probe(&v);
	check_backends(&v);
	return v.rc;
}
