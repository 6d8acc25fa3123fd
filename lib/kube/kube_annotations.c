// SPDX-License-Identifier: BSD-3-Clause
// The annotations of a Service (interfaces.md section 2), one row each.
#include "kube_priv.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HOURS_S 3600ull

// What an annotation is read into, besides the service.
struct annotation_sink {
	struct kube_service *s;
	struct address *addresses;
	uint32_t *n_addresses;
};

struct annotation_row {
	const char *key;
	void (*read)(struct kube_reader *r, const struct annotation_row *row, const char *text,
		struct annotation_sink *sink);
	const char *today; // value words that work, closed by NULL words in `later`
	const char *const *later;
	const char *allowed;
	const char *in_cluster; // allowed there, where that is more
	size_t offset;          // numbers and times: field of struct service
	uint64_t min;
	uint64_t max;
	uint64_t unit_ns;
};

static void refuse_value(struct kube_reader *r, const struct annotation_row *row, const char *text)
{
	char quoted[96];
	kube_refuse(r, "%s: allowed: %s", kube_quote(text, quoted, sizeof(quoted)),
		r->is_watch && row->in_cluster ? row->in_cluster : row->allowed);
}

// Rows whose only working value changes nothing: the other names stand, and are refused as not there yet.
static void read_only_word(struct kube_reader *r, const struct annotation_row *row,
	const char *text, struct annotation_sink *sink)
{
	char quoted[96];
	kube_quote(text, quoted, sizeof(quoted));
	if (row->today && strcmp(text, row->today) == 0)
		return;
	for (size_t i = 0; row->later[i]; i++) {
		if (strcmp(text, row->later[i]) && strcmp(row->later[i], "*"))
			continue;
		if (row->today)
			kube_refuse(r, "%s is not supported yet; allowed today: %s", quoted,
				row->today);
		else
			kube_refuse(r, "%s: this annotation is not supported yet; allowed: %s",
				quoted, row->allowed);
		return;
	}
	refuse_value(r, row, text);
}

static void read_nothing(struct kube_reader *r, const struct annotation_row *row, const char *text,
	struct annotation_sink *sink)
{
}

static void read_targets(struct kube_reader *r, const struct annotation_row *row, const char *text,
	struct annotation_sink *sink)
{
	if (!r->is_watch)
		read_only_word(r, row, text, sink);
	else if (strcmp(text, "endpoints") == 0 || strcmp(text, "nodes") == 0)
		sink->s->extras.to_nodes = text[0] == 'n';
	else
		refuse_value(r, row, text);
}

static void read_ip_mode(struct kube_reader *r, const struct annotation_row *row, const char *text,
	struct annotation_sink *sink)
{
	if (!r->is_watch)
		read_only_word(r, row, text, sink);
	else if (strcmp(text, "VIP") == 0 || strcmp(text, "Proxy") == 0)
		sink->s->extras.is_proxy_mode = text[0] == 'P';
	else
		refuse_value(r, row, text);
}

static void read_expose(struct kube_reader *r, const struct annotation_row *row, const char *text,
	struct annotation_sink *sink)
{
	static const char *const words[] = { [KUBE_EXPOSE_NONE] = "none",
		[KUBE_EXPOSE_SERVICE] = "service",
		[KUBE_EXPOSE_ENDPOINTS] = "endpoints" };
	if (!r->is_watch) {
		read_only_word(r, row, text, sink);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcmp(text, words[i]))
			continue;
		sink->s->extras.expose = (enum kube_expose)i;
		return;
	}
	refuse_value(r, row, text);
}

// Printable, no blanks around, 1..253 characters.
static bool word_valid(const char *text)
{
	size_t len = strlen(text);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			return false;
	return len >= 1 && len <= 253 && text[0] != ' ' && text[len - 1] != ' ';
}

static void read_word(struct kube_reader *r, const struct annotation_row *row, const char *text,
	struct annotation_sink *sink)
{
	char **slot = (char **)((char *)&sink->s->extras + row->offset);
	if (!r->is_watch) {
		read_only_word(r, row, text, sink);
	} else if (!word_valid(text)) {
		refuse_value(r, row, text);
	} else {
		*slot = strdup(text);
		if (*slot == NULL)
			kube_refuse(r, "out of memory");
	}
}

static void read_mode(struct kube_reader *r, const struct annotation_row *row, const char *text,
	struct annotation_sink *sink)
{
	enum service_mode mode;
	if (service_mode_parse(text, &mode) != 0)
		refuse_value(r, row, text);
	else if (sink->s->service)
		sink->s->service->mode = mode;
}

static void read_scheduler(struct kube_reader *r, const struct annotation_row *row,
	const char *text, struct annotation_sink *sink)
{
	enum service_scheduler scheduler;
	if (service_scheduler_parse(text, &scheduler) != 0)
		refuse_value(r, row, text);
	else if (sink->s->service)
		sink->s->service->scheduler = scheduler;
}

static void read_client_address(struct kube_reader *r, const struct annotation_row *row,
	const char *text, struct annotation_sink *sink)
{
	enum service_client_address client_address;
	if (service_client_address_parse(text, &client_address) != 0)
		refuse_value(r, row, text);
	else if (sink->s->service)
		sink->s->service->client_address = client_address;
}

// "number" up to 64 bits, digits only.
static bool digits_parse(const char *text, uint64_t *out)
{
	if (text[0] == '\0' || strspn(text, "0123456789") != strlen(text) || strlen(text) > 18)
		return false;
	*out = strtoull(text, NULL, 10);
	return true;
}

static void read_number(struct kube_reader *r, const struct annotation_row *row, const char *text,
	struct annotation_sink *sink)
{
	uint64_t value = 0;
	if (!digits_parse(text, &value) || value < row->min || value > row->max)
		refuse_value(r, row, text);
	else if (sink->s->service)
		*((uint8_t *)sink->s->service + row->offset) = (uint8_t)value;
}

static void read_duration(struct kube_reader *r, const struct annotation_row *row, const char *text,
	struct annotation_sink *sink)
{
	uint64_t ns = 0;
	if (clock_parse_duration(text, &ns) || ns % row->unit_ns || ns / row->unit_ns < row->min ||
		ns / row->unit_ns > row->max)
		refuse_value(r, row, text);
	else if (sink->s->service)
		*(uint32_t *)((char *)sink->s->service + row->offset) =
			(uint32_t)(ns / row->unit_ns);
}

static bool http_path_valid(const char *path)
{
	for (const char *c = path; *c; c++)
		if ((unsigned char)*c <= 0x20 || (unsigned char)*c >= 0x7f || *c == '#')
			return false;
	return path[0] == '/' && strlen(path) < sizeof(((struct service_check *)0)->path);
}

static void read_check(struct kube_reader *r, const struct annotation_row *row, const char *text,
	struct annotation_sink *sink)
{
	enum service_check_kind kind = SERVICE_CHECK_TCP;
	char word[16], quoted[96];
	const char *colon = strchr(text, ':');
	const char *path = colon ? colon + 1 : "/";
	snprintf(word, sizeof(word), "%.*s", (int)strcspn(text, ":"), text);
	kube_quote(text, quoted, sizeof(quoted));
	if (service_check_parse(word, &kind)) {
		refuse_value(r, row, text);
	} else if (kind != SERVICE_CHECK_TCP && kind != SERVICE_CHECK_HTTP &&
		   kind != SERVICE_CHECK_NONE) {
		kube_refuse(r, "%s is not supported yet; allowed today: %s", quoted, row->allowed);
	} else if ((colon && kind != SERVICE_CHECK_HTTP) || !http_path_valid(path)) {
		refuse_value(r, row, text);
	} else if (sink->s->service) {
		struct service_check *check = &sink->s->service->check;
		check->kind = kind;
		memset(check->path, 0, sizeof(check->path));
		if (kind == SERVICE_CHECK_HTTP)
			memcpy(check->path, path, strlen(path));
	}
}

static bool port_name_valid(const char *name)
{
	size_t len = strlen(name);
	if (len == 0 || len >= SERVICE_NAME_MAX)
		return false;
	for (const char *c = name; *c; c++)
		if (!islower((unsigned char)*c) && !isdigit((unsigned char)*c) && *c != '-')
			return false;
	return true;
}

static void read_check_port(struct kube_reader *r, const struct annotation_row *row,
	const char *text, struct annotation_sink *sink)
{
	uint64_t port = 0;
	bool is_number = digits_parse(text, &port);
	if (is_number ? port < 1 || port > 65535 : !port_name_valid(text)) {
		refuse_value(r, row, text);
		return;
	}
	if (sink->s->service == NULL)
		return;
	struct service_check *check = &sink->s->service->check;
	check->port = (uint16_t)port;
	memset(check->port_name, 0, sizeof(check->port_name));
	if (!is_number)
		memcpy(check->port_name, text, strlen(text));
}

// Comma list; blanks around an entry do not count.
static void read_addresses(struct kube_reader *r, const struct annotation_row *row,
	const char *text, struct annotation_sink *sink)
{
	struct address found[2];
	uint32_t n = 0;
	for (;;) {
		char word[ADDRESS_TEXT_LEN];
		text += strspn(text, " ");
		size_t len = strcspn(text, ",");
		const char *next = text + len;
		while (len && text[len - 1] == ' ')
			len--;
		snprintf(word, sizeof(word), "%.*s", (int)(len < sizeof(word) ? len : 0), text);
		if (n == 2 || address_parse(word, &found[n]) ||
			(n == 1 && address_is_v4(&found[0]) == address_is_v4(&found[1]))) {
			refuse_value(r, row, text);
			return;
		}
		n++;
		if (*next == '\0')
			break;
		text = next + 1;
	}
	memcpy(sink->addresses, found, n * sizeof(found[0]));
	*sink->n_addresses = n;
}

// Checked and re-keyed by canonical address, so that the join finds a weight with one look.
static bool weights_canonical(struct kube_reader *r, json_t *given, json_t *out)
{
	const char *key;
	json_t *value;
	bool good = true;
	json_object_foreach(given, key, value)
	{
		char quoted[96], text[ADDRESS_TEXT_LEN];
		struct address address;
		bool is_address = address_parse(key, &address) == 0;
		const char *name = is_address ? address_format(&address, text) : key;
		kube_quote(key, quoted, sizeof(quoted));
		if (!json_is_integer(value) || json_integer_value(value) < 0 ||
			json_integer_value(value) > SERVICE_WEIGHT_MAX) {
			kube_refuse(r, "weight of %s: allowed: integer 0..%d", quoted,
				SERVICE_WEIGHT_MAX);
			good = false;
		} else if (json_object_get(out, name)) {
			kube_refuse(r, "%s is in it twice; allowed: each address once", quoted);
			good = false;
		} else if (json_object_set(out, name, value)) {
			kube_refuse(r, "out of memory");
			good = false;
		}
	}
	return good;
}

static void read_weights(struct kube_reader *r, const struct annotation_row *row, const char *text,
	struct annotation_sink *sink)
{
	json_error_t error;
	uint32_t line = 0;
	json_t *given = NULL;
	if (kube_depth_ok(text, strlen(text), 1, &line))
		given = json_loads(text, JSON_REJECT_DUPLICATES, &error);
	if (!json_is_object(given)) {
		refuse_value(r, row, text);
		json_decref(given);
		return;
	}
	json_t *weights = json_object();
	if (weights && weights_canonical(r, given, weights))
		sink->s->weights = weights;
	else
		json_decref(weights);
	json_decref(given);
}

#define SECONDS_ROW(name, member, low, text)                                                    \
	{                                                                                       \
		.key = name, .read = read_duration, .offset = offsetof(struct service, member), \
		.min = low, .max = 168 * HOURS_S, .unit_ns = CLOCK_S, .allowed = text           \
	}

static const struct annotation_row annotation_rows[] = {
	{ .key = "mode", .read = read_mode, .allowed = "fullnat, dnat, ipip, gue, l2dsr" },
	{ .key = "scheduler", .read = read_scheduler, .allowed = "maglev, least-connections" },
	{ .key = "weights",
		.read = read_weights,
		.allowed = "JSON object of endpoint address, pod name or hostname to 0..65535, as "
			   "{\"10.9.0.2\": 50}" },
	{ .key = "client-address", .read = read_client_address, .allowed = "none, toa, proxy-v2" },
	{ .key = "targets",
		.read = read_targets,
		.in_cluster = "endpoints, nodes",
		.today = "endpoints",
		.later = (const char *const[]){ "nodes", NULL },
		.allowed = "endpoints (later also nodes)" },
	{ .key = "health-check",
		.read = read_check,
		.allowed = "tcp, http, http:/path, none (later also https, grpc, udp, icmp)" },
	{ .key = "health-check-port",
		.read = read_check_port,
		.allowed = "number 1..65535, or the name of a port of this Service" },
	{ .key = "health-check-interval",
		.read = read_duration,
		.offset = offsetof(struct service, check.interval_ms),
		.min = 100,
		.max = 3600000,
		.unit_ns = CLOCK_MS,
		.allowed = "time 100ms..1h, whole milliseconds, as 1s" },
	{ .key = "health-check-timeout",
		.read = read_duration,
		.offset = offsetof(struct service, check.timeout_ms),
		.min = 10,
		.max = 3600000,
		.unit_ns = CLOCK_MS,
		.allowed = "time 10ms up to the interval, whole milliseconds, as 500ms" },
	{ .key = "health-check-rise",
		.read = read_number,
		.offset = offsetof(struct service, check.rise),
		.min = 1,
		.max = 10,
		.allowed = "number 1..10" },
	{ .key = "health-check-fall",
		.read = read_number,
		.offset = offsetof(struct service, check.fall),
		.min = 1,
		.max = 10,
		.allowed = "number 1..10" },
	SECONDS_ROW("idle-timeout-tcp", tcp_idle_s, 1, "time 1s..168h, whole seconds, as 15m"),
	SECONDS_ROW("idle-timeout-udp", udp_idle_s, 1, "time 1s..168h, whole seconds, as 60s"),
	SECONDS_ROW("drain-timeout", drain_timeout_s, 0, "time 0..168h, whole seconds, as 5m"),
	{ .key = "addresses",
		.read = read_addresses,
		.allowed = "IPv4 and IPv6 address, at most one of each, with a comma between" },
	{ .key = "address-pool",
		.read = read_word,
		.offset = offsetof(struct kube_extras, pool),
		.in_cluster = "name of an AddressPool",
		.later = (const char *const[]){ "*", NULL },
		.allowed = "leave it out and name addresses in " KUBE_PREFIX "addresses" },
	{ .key = "sharing-key",
		.read = read_word,
		.offset = offsetof(struct kube_extras, sharing_key),
		.in_cluster = "text of 1..253 characters",
		.later = (const char *const[]){ "*", NULL },
		.allowed =
			"leave it out; Services with different ports may name the same address" },
	{ .key = "ip-mode",
		.read = read_ip_mode,
		.in_cluster = "VIP, Proxy",
		.today = "VIP",
		.later = (const char *const[]){ "Proxy", NULL },
		.allowed = "VIP (later also Proxy)" },
	{ .key = "expose",
		.read = read_expose,
		.in_cluster = "none, service (of a ClusterIP Service), endpoints (of a "
			      "headless one)",
		.today = "none",
		.later = (const char *const[]){ "service", "endpoints", NULL },
		.allowed = "none (later also service, endpoints)" },
	// Written by sluice itself: what `expose` was given, and under which form addresses were.
	{ .key = "assigned", .read = read_nothing, .allowed = "" },
	{ .key = "allocation", .read = read_nothing, .allowed = "" },
};

static const struct annotation_row *find_row(const char *key)
{
	for (size_t i = 0; i < ARRAY_SIZE(annotation_rows); i++)
		if (strcmp(annotation_rows[i].key, key) == 0)
			return &annotation_rows[i];
	return NULL;
}

static void refuse_key(struct kube_reader *r, const char *key)
{
	const char *names[ARRAY_SIZE(annotation_rows)];
	char allowed[512] = "";
	size_t n = 0;
	for (size_t i = 0; i < ARRAY_SIZE(annotation_rows); i++) {
		names[i] = annotation_rows[i].key;
		if (n < sizeof(allowed))
			n += (size_t)snprintf(
				allowed + n, sizeof(allowed) - n, "%s%s", i ? ", " : "", names[i]);
	}
	const char *nearest = error_nearest(key, names, ARRAY_SIZE(names));
	if (nearest)
		kube_refuse(r,
			"unknown annotation, did you mean \"" KUBE_PREFIX
			"%s\"? allowed after the prefix: %s",
			nearest, allowed);
	else
		kube_refuse(r, "unknown annotation; allowed after the prefix: %s", allowed);
}

static bool is_check_key(const char *key)
{
	return strcmp(key, "health-check") == 0 || strcmp(key, "health-check-port") == 0;
}

void kube_annotations_read(struct kube_reader *r, const json_t *metadata, struct kube_service *s,
	struct address *out_addresses, uint32_t *out_n)
{
	struct annotation_sink sink = { s, out_addresses, out_n };
	const json_t *annotations = kube_object(r, metadata, "annotations");
	const char *key;
	json_t *value;
	*out_n = 0;
	kube_enter(r, "annotations");
	json_object_foreach((json_t *)(uintptr_t)annotations, key, value)
	{
		if (!json_is_string(value)) {
			kube_refuse_at(r, key, "not a string: allowed: string");
			continue;
		}
		if (strncmp(key, KUBE_PREFIX, strlen(KUBE_PREFIX)) != 0)
			continue;
		const struct annotation_row *row = find_row(key + strlen(KUBE_PREFIX));
		kube_enter(r, key);
		s->extras.has_check =
			s->extras.has_check || is_check_key(key + strlen(KUBE_PREFIX));
		if (row)
			row->read(r, row, json_string_value(value), &sink);
		else
			refuse_key(r, key + strlen(KUBE_PREFIX));
		kube_leave(r);
	}
	kube_leave(r);
}
