// SPDX-License-Identifier: BSD-3-Clause
// Checks across keys: what no row of the table can see by itself. They run also when a row was refused, so that one run
// lists everything; a key that was refused, or left out where it must be given, is not compared with others.
#include "settings_priv.h"

#include <errno.h>
#include <string.h>

struct settings_checker {
	const struct schema_lines *lines;
	struct error *err;
	uint32_t n_bad;
};

static void check_fail(struct settings_checker *c, const char *path, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void check_fail(struct settings_checker *c, const char *path, const char *fmt, ...)
{
	char text[640];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	error_add_line(c->err, EINVAL, schema_line_of(c->lines, path), path, "%s", text);
	c->n_bad++;
}

static bool is_refused(const struct settings_checker *c, const char *path)
{
	for (uint32_t i = 0; i < c->err->n_items; i++)
		if (c->err->items[i].path && strcmp(c->err->items[i].path, path) == 0)
			return true;
	return false;
}

static bool port_is_refused(const struct settings_checker *c, uint32_t idx, const char *key)
{
	char path[64];
	snprintf(path, sizeof(path), "ports[%u].%s", idx, key);
	return is_refused(c, path);
}

// The kernel interface that a device string opens: "net_af_packet0,iface=veth0", "ifname:ens1f0". NULL: none.
static const char *device_interface(const char *device, char *buf, size_t len)
{
	const char *name = strstr(device, ",iface=");
	if (name)
		name += 7;
	else if (strncmp(device, "ifname:", 7) == 0)
		name = device + 7;
	if (name == NULL)
		return NULL;
	snprintf(buf, len, "%.*s", (int)strcspn(name, ","), name);
	return buf;
}

static void check_twins(struct settings_checker *c, const struct settings *s, uint32_t idx)
{
	char path[64], interface[256];
	const char *twin = s->ports[idx].twin;
	snprintf(path, sizeof(path), "ports[%u].twin", idx);
	if (twin[0] == '\0' || is_refused(c, path))
		return;
	for (uint32_t i = 0; i < s->n_ports; i++) {
		if (i < idx && strcmp(twin, s->ports[i].twin) == 0 &&
			!port_is_refused(c, i, "twin"))
			check_fail(c, path,
				"\"%s\" is the twin of ports[%u] too; allowed: one name per port",
				twin, i);
		if (device_interface(s->ports[i].device, interface, sizeof(interface)) &&
			strcmp(twin, interface) == 0)
			check_fail(c, path,
				"\"%s\" is the interface that ports[%u].device opens; allowed: a "
				"name of its own",
				twin, i);
	}
}

// The first earlier port with the same text in a field, or idx.
static uint32_t port_first(const struct settings *s, uint32_t idx, size_t offset)
{
	const char *own = (const char *)&s->ports[idx] + offset;
	for (uint32_t i = 0; i < idx && own[0]; i++)
		if (strcmp(own, (const char *)&s->ports[i] + offset) == 0)
			return i;
	return idx;
}

static void check_ports(struct settings_checker *c, const struct settings *s)
{
	char path[64];
	for (uint32_t i = 0; i < s->n_ports; i++) {
		uint32_t first = port_first(s, i, offsetof(struct settings_port, name));
		snprintf(path, sizeof(path), "ports[%u].name", i);
		if (first < i)
			check_fail(c, path,
				"\"%s\" is the name of ports[%u] too; allowed: unique names",
				s->ports[i].name, first);
		first = port_first(s, i, offsetof(struct settings_port, device));
		snprintf(path, sizeof(path), "ports[%u].device", i);
		if (first < i)
			check_fail(c, path,
				"\"%s\" is the device of ports[%u] too; allowed: each device once",
				s->ports[i].device, first);
		check_twins(c, s, i);
	}
}

static void check_snat(struct settings_checker *c, const struct settings *s)
{
	char path[64], text[ADDRESS_TEXT_LEN];
	for (uint32_t i = 0; i < s->snat.n_addresses; i++) {
		for (uint32_t j = 0; j < i; j++) {
			if (!address_equal(&s->snat.addresses[i], &s->snat.addresses[j]) ||
				address_is_unspecified(&s->snat.addresses[i]))
				continue;
			snprintf(path, sizeof(path), "snat.addresses[%u]", i);
			check_fail(c, path,
				"\"%s\" is in the list twice (also snat.addresses[%u]); allowed: "
				"each once",
				address_format(&s->snat.addresses[i], text), j);
			break;
		}
	}
}

static void check_listen(struct settings_checker *c, const struct settings *s)
{
	const struct settings_listen *listen = s->admin.listen;
	for (uint32_t i = 0; i < s->admin.n_listen; i++) {
		for (uint32_t j = 0; j < i; j++) {
			char path[64];
			if (listen[i].port != listen[j].port || listen[i].port == 0 ||
				listen[i].address_text[0] == '\0' ||
				!address_equal(&listen[i].address, &listen[j].address))
				continue;
			snprintf(path, sizeof(path), "admin.listen[%u].port", i);
			check_fail(c, path,
				"%u on %s is admin.listen[%u] too; allowed: each address and port "
				"once",
				listen[i].port, listen[i].address_text, j);
		}
	}
}

// ---------------------------------------------------------------- the cluster

static bool ranges_overlap(const struct settings_range *a, const struct settings_range *b)
{
	return address_is_v4(&a->first) == address_is_v4(&b->first) &&
	       address_compare(&a->first, &b->last) <= 0 &&
	       address_compare(&b->first, &a->last) <= 0;
}

static bool range_is_refused(const struct settings_checker *c, uint32_t pool, uint32_t range)
{
	char path[64];
	snprintf(path, sizeof(path), "kubernetes.pools[%u].addresses[%u]", pool, range);
	return is_refused(c, path);
}

// The first range before (pool, range), in the order of writing, that shares an address with it.
static bool range_find_overlap(const struct settings_checker *c,
	const struct settings_kubernetes *k, uint32_t at[2], uint32_t out[2])
{
	const struct settings_range *own = &k->pools[at[0]].ranges[at[1]];
	for (uint32_t i = 0; i <= at[0]; i++) {
		uint32_t n = i < at[0] ? k->pools[i].n_ranges : at[1];
		for (uint32_t j = 0; j < n; j++) {
			if (range_is_refused(c, i, j) ||
				!ranges_overlap(own, &k->pools[i].ranges[j]))
				continue;
			out[0] = i;
			out[1] = j;
			return true;
		}
	}
	return false;
}

static void check_pool_ranges(
	struct settings_checker *c, const struct settings_kubernetes *k, uint32_t pool)
{
	char path[64];
	for (uint32_t i = 0; i < k->pools[pool].n_ranges; i++) {
		uint32_t at[2] = { pool, i }, other[2];
		if (range_is_refused(c, pool, i) || !range_find_overlap(c, k, at, other))
			continue;
		snprintf(path, sizeof(path), "kubernetes.pools[%u].addresses[%u]", pool, i);
		check_fail(c, path,
			"\"%s\" overlaps \"%s\" of kubernetes.pools[%u].addresses[%u]; allowed: "
			"each "
			"address once",
			k->pools[pool].ranges[i].text, k->pools[other[0]].ranges[other[1]].text,
			other[0], other[1]);
	}
}

static void check_pools(struct settings_checker *c, const struct settings_kubernetes *k)
{
	char path[64];
	for (uint32_t i = 0; i < k->n_pools; i++) {
		uint32_t first = 0;
		snprintf(path, sizeof(path), "kubernetes.pools[%u]", i);
		if (is_refused(c, path))
			continue;
		while (first < i && strcmp(k->pools[first].name, k->pools[i].name) != 0)
			first++;
		snprintf(path, sizeof(path), "kubernetes.pools[%u].name", i);
		if (first < i && k->pools[i].name[0])
			check_fail(c, path,
				"\"%s\" is the name of kubernetes.pools[%u] too; allowed: unique "
				"names",
				k->pools[i].name, first);
		snprintf(path, sizeof(path), "kubernetes.pools[%u].addresses", i);
		if (k->pools[i].n_ranges == 0 && !is_refused(c, path))
			check_fail(c, path, "no address; allowed: 1..%d prefixes or ranges",
				SETTINGS_RANGES_MAX);
		check_pool_ranges(c, k, i);
	}
}

// duration > renew deadline > 1.2 x retry, as every user of such Leases has it: else two could lead, or nobody for long.
static void check_lease(struct settings_checker *c, const struct settings_kubernetes *k)
{
	char own[32], other[32];
	bool renew_refused = is_refused(c, "kubernetes.lease_renew_deadline");
	if (k->lease_renew_ns >= k->lease_duration_ns && !renew_refused &&
		!is_refused(c, "kubernetes.lease_duration"))
		check_fail(c, "kubernetes.lease_renew_deadline",
			"\"%s\" is not shorter than kubernetes.lease_duration; allowed: less than "
			"\"%s\"",
			clock_format_duration(k->lease_renew_ns, own, sizeof(own)),
			clock_format_duration(k->lease_duration_ns, other, sizeof(other)));
	if (k->lease_retry_ns * 6 / 5 >= k->lease_renew_ns && !renew_refused &&
		!is_refused(c, "kubernetes.lease_retry"))
		check_fail(c, "kubernetes.lease_retry",
			"1.2 times \"%s\" is not shorter than kubernetes.lease_renew_deadline "
			"\"%s\"; "
			"allowed: less",
			clock_format_duration(k->lease_retry_ns, own, sizeof(own)),
			clock_format_duration(k->lease_renew_ns, other, sizeof(other)));
}

bool settings_cross_check(
	const struct settings *settings, const struct schema_lines *lines, struct error *err)
{
	struct settings_checker c = { lines, err, 0 };
	check_ports(&c, settings);
	check_snat(&c, settings);
	check_listen(&c, settings);
	check_pools(&c, &settings->kubernetes);
	check_lease(&c, &settings->kubernetes);
	const struct settings_health *health = &settings->health;
	if (health->timeout_ns > health->interval_ns && !is_refused(&c, "health.timeout") &&
		!is_refused(&c, "health.interval")) {
		char timeout[32], interval[32];
		check_fail(&c, "health.timeout",
			"\"%s\" is longer than health.interval; allowed: at most \"%s\"",
			clock_format_duration(health->timeout_ns, timeout, sizeof(timeout)),
			clock_format_duration(health->interval_ns, interval, sizeof(interval)));
	}
	return c.n_bad == 0;
}

int settings_check_daemon(const struct settings *settings, struct error *err)
{
	uint32_t n_bad = 0;
	if (settings->n_ports == 0) {
		error_add(err, EINVAL, "ports",
			"no port is configured; allowed: 1..%d entries, as { name = \"p0\"; device "
			"= "
			"\"0000:3b:00.0\"; }",
			SETTINGS_PORTS_MAX);
		n_bad++;
	}
	if (settings->snat.n_addresses == 0) {
		error_add(err, EINVAL, "snat.addresses",
			"no address is configured; allowed: 1..%d, modes fullnat, ipip and gue "
			"need "
			"one for each family of backends",
			SETTINGS_SNAT_MAX);
		n_bad++;
	}
	if (settings->admin.socket[0] == '\0' && settings->admin.n_listen == 0) {
		error_add(err, EINVAL, "admin",
			"neither socket nor listen is configured; allowed: at least one of them");
		n_bad++;
	}
	return n_bad ? -EINVAL : 0;
}
