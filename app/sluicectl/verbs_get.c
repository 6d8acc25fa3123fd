// SPDX-License-Identifier: BSD-3-Clause
// Verbs that only read: status, get, describe, drops, flows, events, api, version.
#include "ctl_priv.h"

#include <stdlib.h>
#include <unistd.h>

// ---------------------------------------------------------------- rows
static const char *joined(const json_t *strings, char *buf, size_t len)
{
	size_t n = 0;
	buf[0] = 0;
	for (size_t i = 0; i < json_array_size(strings) && n < len; i++)
		n += (size_t)snprintf(buf + n, len - n, "%s%s", i ? "," : "",
			json_string_value(json_array_get(strings, i)));
	return buf[0] ? buf : "-";
}

static const char *listeners_text(const json_t *listeners, char *buf, size_t len)
{
	size_t n = 0;
	buf[0] = 0;
	for (size_t i = 0; i < json_array_size(listeners) && n < len; i++) {
		const json_t *l = json_array_get(listeners, i);
		int port = (int)json_int(l, "port"), port_max = (int)json_int(l, "portMax");
		char range[16] = "";
		if (port_max > port)
			snprintf(range, sizeof(range), "-%d", port_max);
		n += (size_t)snprintf(buf + n, len - n, "%s%d%s/%s", i ? "," : "", port, range,
			json_str(l, "protocol"));
	}
	return buf;
}

static void services_table(struct ctl *ctl, const json_t *items)
{
	struct ctl_table t;
	char vips[512], listeners[512];
	table_begin(&t, "NAMESPACE NAME OWNER VIPS LISTENERS MODE BACKENDS GENERATION");
	for (size_t i = 0; i < json_array_size(items); i++) {
		const json_t *s = json_array_get(items, i);
		const json_t *backends = json_at(s, "status/backends");
		size_t n_up = 0;
		for (size_t b = 0; b < json_array_size(backends); b++)
			n_up += strcmp(json_str(json_array_get(backends, b), "state"), "up") == 0;
		table_cell(&t, "%s", json_str(json_at(s, "metadata"), "namespace"));
		table_cell(&t, "%s", json_str(json_at(s, "metadata"), "name"));
		table_cell(&t, "%s", json_str(json_at(s, "metadata"), "managedBy"));
		table_cell(&t, "%s", joined(json_at(s, "spec/addresses"), vips, sizeof(vips)));
		table_cell(&t, "%s",
			listeners_text(json_at(s, "spec/listeners"), listeners, sizeof(listeners)));
		table_cell(&t, "%s", json_str(json_at(s, "spec"), "mode"));
		table_cell(&t, "%zu/%zu", n_up, json_array_size(backends));
		table_cell(&t, "%lld", (long long)json_int(json_at(s, "metadata"), "generation"));
	}
	table_print(ctl, &t);
}

static void backends_table(struct ctl *ctl, const json_t *items)
{
	struct ctl_table t;
	char buf[64], age[16];
	table_begin(&t, "SERVICE LISTENER BACKEND STATE NEW WEIGHT FLOWS SINCE REASON");
	for (size_t i = 0; i < json_array_size(items); i++) {
		const json_t *b = json_array_get(items, i);
		const char *listener = json_str(b, "listener");
		table_cell(&t, "%s", json_str(b, "service"));
		table_cell(&t, "%s", listener[0] ? listener : "-");
		table_cell(&t, "%s", endpoint_text(b, "address", "port", buf));
		table_cell(&t, "%s", json_str(b, "state"));
		table_cell(&t, "%s", json_is_true(json_object_get(b, "eligible")) ? "yes" : "no");
		table_cell(&t, "%lld", (long long)json_int(b, "weight"));
		table_cell(&t, "%lld", (long long)json_int(b, "flows"));
		table_cell(&t, "%s", human_age(json_str(b, "since"), age));
		table_cell(&t, "%s", json_str(b, "reason"));
	}
	table_print(ctl, &t);
}

static void ports_table(struct ctl *ctl, const json_t *items)
{
	struct ctl_table t;
	char a[16], b[16];
	table_begin(&t, "PORT DRIVER LINK SPEED MTU MAC TWIN RX TX MISSED ERRORS");
	for (size_t i = 0; i < json_array_size(items); i++) {
		const json_t *p = json_array_get(items, i);
		const json_t *c = json_at(p, "counters");
		table_cell(&t, "%s", json_str(p, "name"));
		table_cell(&t, "%s", json_str(p, "driver"));
		table_cell(&t, "%s", json_is_true(json_at(p, "link/up")) ? "up" : "down");
		table_cell(&t, "%s",
			human_count((double)json_int(json_at(p, "link"), "speedMbps") * 1e6, a));
		table_cell(&t, "%lld", (long long)json_int(p, "mtu"));
		table_cell(&t, "%s", json_str(p, "mac"));
		table_cell(&t, "%s", json_str(p, "twin"));
		table_cell(&t, "%s", human_count((double)json_int(c, "receivedPackets"), a));
		table_cell(&t, "%s", human_count((double)json_int(c, "sentPackets"), b));
		table_cell(&t, "%lld", (long long)json_int(c, "missed"));
		table_cell(&t, "%lld",
			(long long)(json_int(c, "receiveErrors") + json_int(c, "sendErrors")));
	}
	table_print(ctl, &t);
}

static json_int_t sum_of(const json_t *object)
{
	json_int_t sum = 0;
	const char *key;
	json_t *value;
	json_object_foreach((json_t *)(uintptr_t)object, key, value) sum +=
		json_integer_value(value);
	return sum;
}

static void workers_table(struct ctl *ctl, const json_t *items)
{
	struct ctl_table t;
	char a[16];
	table_begin(&t,
		"WORKER CPU NUMA BUSY FLOWS CAPACITY RX TX PUNTED DROPPED IMBALANCE GENERATION");
	for (size_t i = 0; i < json_array_size(items); i++) {
		const json_t *w = json_array_get(items, i);
		const json_t *c = json_at(w, "counters");
		table_cell(&t, "%s", json_str(w, "name"));
		table_cell(&t, "%lld", (long long)json_int(w, "cpu"));
		table_cell(&t, "%lld", (long long)json_int(w, "numa"));
		table_cell(&t, "%.0f%%", json_number_value(json_at(w, "busyRatio")) * 100);
		table_cell(&t, "%s", human_count((double)json_int(w, "flows"), a));
		table_cell(&t, "%s", human_count((double)json_int(w, "flowCapacity"), a));
		table_cell(&t, "%s", human_count((double)json_int(c, "received"), a));
		table_cell(&t, "%s", human_count((double)json_int(c, "sent"), a));
		table_cell(&t, "%s", human_count((double)json_int(c, "punted"), a));
		table_cell(&t, "%s", human_count((double)sum_of(json_at(w, "drops")), a));
		table_cell(&t, "%lld", (long long)json_int(w, "imbalance"));
		table_cell(&t, "%lld", (long long)json_int(w, "generation"));
	}
	table_print(ctl, &t);
}

static void drops_table(struct ctl *ctl, const json_t *items)
{
	struct ctl_table t;
	table_begin(&t, "REASON CLASS TOTAL MEANING LOOK-AT");
	for (size_t i = 0; i < json_array_size(items); i++) {
		const json_t *d = json_array_get(items, i);
		if (json_int(d, "total") == 0 && !ctl->all && !ctl->drop_reason)
			continue;
		table_cell(&t, "%s", json_str(d, "reason"));
		table_cell(&t, "%s", json_str(d, "class"));
		table_cell(&t, "%lld", (long long)json_int(d, "total"));
		table_cell(&t, "%s", json_str(d, "help"));
		table_cell(&t, "%s", json_str(d, "fix")[0] ? json_str(d, "fix") : "-");
	}
	if (t.n_cells == t.n_columns)
		fprintf(stderr, "no drop so far; --all lists every reason\n");
	table_print(ctl, &t);
}

static void flows_table(struct ctl *ctl, const json_t *items)
{
	struct ctl_table t;
	char a[64];
	table_begin(&t, "PROTOCOL CLIENT VIP SERVICE BACKEND SOURCE STATE IDLE WORKER");
	for (size_t i = 0; i < json_array_size(items); i++) {
		const json_t *f = json_array_get(items, i);
		table_cell(&t, "%s", json_str(f, "protocol"));
		table_cell(&t, "%s", endpoint_text(f, "client", "clientPort", a));
		table_cell(&t, "%s", endpoint_text(f, "vip", "vipPort", a));
		table_cell(&t, "%s", json_str(f, "service")[0] ? json_str(f, "service") : "-");
		table_cell(&t, "%s", endpoint_text(f, "backend", "backendPort", a));
		table_cell(&t, "%s", endpoint_text(f, "source", "sourcePort", a));
		table_cell(&t, "%s", json_str(f, "state"));
		table_cell(&t, "%s", json_str(f, "idle"));
		table_cell(&t, "w%lld", (long long)json_int(f, "worker"));
	}
	table_print(ctl, &t);
}

static void events_table(struct ctl *ctl, const json_t *items)
{
	struct ctl_table t;
	table_begin(&t, "ID TIME KIND OBJECT TEXT");
	for (size_t i = 0; i < json_array_size(items); i++) {
		const json_t *e = json_array_get(items, i);
		table_cell(&t, "%lld", (long long)json_int(e, "id"));
		table_cell(&t, "%s", json_str(e, "time"));
		table_cell(&t, "%s", json_str(e, "kind"));
		table_cell(&t, "%s", json_str(e, "object"));
		table_cell(&t, "%s", json_str(e, "text"));
	}
	table_print(ctl, &t);
}

static void config_table(struct ctl *ctl, const json_t *tree)
{
	yaml_print(stdout, tree, 0);
}

// ---------------------------------------------------------------- get
static const struct noun {
	const char *name;
	const char *path;
	const char *query; // filters it takes, blank separated
	bool is_list;
	uint64_t limit; // default, 0 = all
	void (*print)(struct ctl *ctl, const json_t *items);
} nouns[] = {
	{ "services", "/api/v1/services", "", true, 0, services_table },
	{ "backends", "/api/v1/backends", "service state", true, 0, backends_table },
	{ "ports", "/api/v1/ports", "", true, 0, ports_table },
	{ "workers", "/api/v1/workers", "", true, 0, workers_table },
	{ "drops", "/api/v1/drops", "", true, 0, drops_table },
	{ "flows", "/api/v1/flows", "service backend client", true, 100, flows_table },
	{ "events", "/api/v1/events", "after kind", true, 0, events_table },
	{ "config", "/api/v1/config", "", false, 0, config_table },
};

static const struct noun *noun_find(const char *word)
{
	const struct noun *found = NULL;
	size_t n_found = 0;
	const char *names[ARRAY_SIZE(nouns)];
	if (strcmp(word, "svc") == 0)
		return &nouns[0];
	for (size_t i = 0; i < ARRAY_SIZE(nouns); i++) {
		names[i] = nouns[i].name;
		if (strncmp(nouns[i].name, word, strlen(word)) == 0) {
			found = &nouns[i];
			n_found++;
		}
	}
	if (n_found == 1)
		return found;
	char what[256];
	const char *near = error_nearest(word, names, ARRAY_SIZE(nouns));
	snprintf(what, sizeof(what), "unknown noun %.64s%s%s%s", word,
		near ? ", did you mean " : "", near ? near : "", near ? "?" : "");
	ctl_error(CTL_USAGE, what, NULL, "sluicectl help get");
	return NULL;
}

static int limit_of(const struct ctl *ctl, uint64_t fallback, uint64_t *out)
{
	char *end = NULL;
	*out = ctl->all ? 0 : fallback;
	if (ctl->limit == NULL)
		return CTL_OK;
	*out = strtoull(ctl->limit, &end, 10);
	if (*end == 0 && ctl->limit[0] != '-' && *out >= 1 && *out <= 100000000)
		return CTL_OK;
	return ctl_error(CTL_USAGE, "--limit: a number of 1..100000000", ctl->limit, NULL);
}

static void noun_query(struct ctl *ctl, const struct noun *noun, struct ctl_path *path)
{
	const struct {
		const char *name, *value;
	} filters[] = {
		{ "service", ctl->service },
		{ "state", ctl->state },
		{ "backend", ctl->backend },
		{ "client", ctl->client },
		{ "after", ctl->after },
		{ "kind", ctl->kind },
	};
	for (size_t i = 0; i < ARRAY_SIZE(filters); i++) {
		if (strstr(noun->query, filters[i].name))
			path_query(path, filters[i].name, filters[i].value);
	}
}

static int list_noun(struct ctl *ctl, const struct noun *noun)
{
	struct ctl_path path = path_make(noun->path);
	uint64_t limit = 0;
	char page[16];
	int code = limit_of(ctl, noun->limit, &limit);
	if (code != CTL_OK)
		return code;
	noun_query(ctl, noun, &path);
	snprintf(page, sizeof(page), "%u", limit && limit < 1000 ? (unsigned)limit : 1000);
	if (noun->limit || noun->print == services_table || noun->print == backends_table ||
		ctl->limit)
		path_query(&path, "limit", page);
	json_t *tree = ctl_get(ctl, &path, limit, &code);
	if (tree == NULL)
		return code;
	json_t *items = json_object_get(tree, "items");
	while (limit && json_array_size(items) > limit)
		json_array_remove(items, json_array_size(items) - 1);
	for (size_t i = json_array_size(items); ctl->drop_reason && i-- > 0;) {
		if (strcmp(json_str(json_array_get(items, i), "reason"), ctl->drop_reason) != 0)
			json_array_remove(items, i);
	}
	if (ctl->drop_reason && json_array_size(items) == 0) {
		json_decref(tree);
		return ctl_error(CTL_NOT_FOUND, "there is no such drop reason", ctl->drop_reason,
			"sluicectl drops --all");
	}
	if (!output_tree(ctl, tree))
		noun->print(ctl, noun->is_list ? items : tree);
	json_decref(tree);
	return CTL_OK;
}

static int get_one_service(struct ctl *ctl, const char *word)
{
	char namespace[64], name[64];
	int code;
	if (!service_split(word, namespace, name))
		return ctl_error(CTL_USAGE, "a service is NAMESPACE/NAME", word, NULL);
	struct ctl_path path = path_make("/api/v1/services");
	path_segment(&path, namespace);
	path_segment(&path, name);
	json_t *tree = ctl_get(ctl, &path, 0, &code);
	if (tree == NULL)
		return code;
	if (!output_tree(ctl, tree)) {
		json_t *items = json_pack("[O]", tree);
		services_table(ctl, items);
		json_decref(items);
	}
	json_decref(tree);
	return CTL_OK;
}

int verb_get(struct ctl *ctl)
{
	const struct noun *noun = noun_find(ctl->words[0]);
	if (noun == NULL)
		return CTL_USAGE;
	const char *name = ctl->n_words > 1 ? ctl->words[1] : NULL;
	if (name && noun->print == services_table)
		return get_one_service(ctl, name);
	if (name && noun->print == backends_table)
		ctl->service = name;
	else if (name && noun->print == drops_table)
		ctl->drop_reason = name;
	else if (name)
		return ctl_error(
			CTL_USAGE, "only services, backends and drops take a name", name, NULL);
	return list_noun(ctl, noun);
}

int verb_flows(struct ctl *ctl)
{
	return list_noun(ctl, noun_find("flows"));
}

// ---------------------------------------------------------------- drops, events: once or for ever
static int drops_since(struct ctl *ctl, json_t **last)
{
	struct ctl_path path = path_make("/api/v1/drops");
	struct ctl_table t;
	int code;
	json_t *tree = ctl_get(ctl, &path, 0, &code);
	if (tree == NULL)
		return code;
	json_t *items = json_object_get(tree, "items");
	table_begin(&t, "REASON RATE TOTAL MEANING");
	for (size_t i = 0; *last && i < json_array_size(items); i++) {
		const json_t *d = json_array_get(items, i);
		const json_t *was = json_array_get(json_object_get(*last, "items"), i);
		json_int_t n = json_int(d, "total") - json_int(was, "total");
		if (n == 0)
			continue;
		table_cell(&t, "%s", json_str(d, "reason"));
		table_cell(&t, "%lld/s", (long long)n);
		table_cell(&t, "%lld", (long long)json_int(d, "total"));
		table_cell(&t, "%s", json_str(d, "help"));
	}
	if (*last && t.n_cells > t.n_columns)
		table_print(ctl, &t);
	else
		for (uint32_t i = 0; i < t.n_cells; i++)
			free(t.cells[i]);
	free(t.cells);
	fflush(stdout);
	json_decref(*last);
	*last = tree;
	return CTL_OK;
}

int verb_drops(struct ctl *ctl)
{
	json_t *last = NULL;
	int code = CTL_OK;
	ctl->drop_reason = ctl->n_words ? ctl->words[0] : NULL;
	if (!ctl->watch)
		return list_noun(ctl, noun_find("drops"));
	while (code == CTL_OK) {
		code = drops_since(ctl, &last);
		sleep(1);
	}
	json_decref(last);
	return code;
}

int verb_events(struct ctl *ctl)
{
	char after[32];
	json_int_t id = 0;
	int code = CTL_OK;
	if (!ctl->watch)
		return list_noun(ctl, noun_find("events"));
	while (code == CTL_OK) {
		struct ctl_path path = path_make("/api/v1/events");
		path_query(&path, "after", ctl->after);
		path_query(&path, "kind", ctl->kind);
		json_t *tree = ctl_get(ctl, &path, 0, &code);
		if (tree == NULL)
			return code;
		json_t *items = json_object_get(tree, "items");
		size_t n = json_array_size(items);
		if (n) {
			id = json_int(json_array_get(items, n - 1), "id");
			events_table(ctl, items);
			ctl->no_headers = true;
			fflush(stdout);
		}
		json_decref(tree);
		snprintf(after, sizeof(after), "%lld", (long long)id);
		if (id)
			ctl->after = after;
		sleep(1);
	}
	return code;
}

// ---------------------------------------------------------------- status
static json_t *status_part(struct ctl *ctl, const char *path_text, int *code)
{
	struct ctl_path path = path_make(path_text);
	return ctl_get(ctl, &path, 0, code);
}

static void status_print(struct ctl *ctl, const json_t *tree)
{
	const json_t *system = json_at(tree, "system");
	const json_t *backends = json_at(system, "backends");
	const json_t *rates = json_at(system, "rates");
	char a[16], b[16];
	bool ready = json_is_true(json_object_get(system, "ready"));
	printf("sluiced ");
	print_safe(stdout, json_str(system, "version"));
	printf(" up ");
	print_safe(stdout, json_str(system, "uptime"));
	printf("  %s", ready ? "READY" : "NOT READY: ");
	print_safe(stdout, ready ? "" : json_str(system, "reason"));
	printf("  generation %lld  digest ", (long long)json_int(system, "generation"));
	print_safe(stdout, json_str(system, "digest"));
	printf("\nservices %lld  backends %lld up, %lld down, %lld draining  flows %s\n",
		(long long)sum_of(json_at(system, "services")), (long long)json_int(backends, "up"),
		(long long)json_int(backends, "down"), (long long)json_int(backends, "draining"),
		human_count((double)json_int(system, "flows"), a));
	printf("received %s/s  sent %s/s",
		human_count(json_number_value(json_at(rates, "received")), a),
		human_count(json_number_value(json_at(rates, "sent")), b));
	printf("  drops last 1m %s/s\n",
		human_count(json_number_value(json_at(rates, "droppedLastMinute")), a));
	if (json_at(tree, "ports/items")) {
		printf("\n");
		ports_table(ctl, json_at(tree, "ports/items"));
	}
	if (json_at(tree, "workers/items")) {
		printf("\n");
		workers_table(ctl, json_at(tree, "workers/items"));
	}
}

int verb_status(struct ctl *ctl)
{
	int code;
	json_t *system = status_part(ctl, "/api/v1/system", &code);
	if (system == NULL)
		return code;
	json_t *tree = json_pack("{s:o}", "system", system);
	ctl->quiet = true; // without a data path there is less to show
	json_t *ports = status_part(ctl, "/api/v1/ports", &code);
	json_t *workers = status_part(ctl, "/api/v1/workers", &code);
	if (ports)
		json_object_set_new(tree, "ports", ports);
	if (workers)
		json_object_set_new(tree, "workers", workers);
	if (!output_tree(ctl, tree))
		status_print(ctl, tree);
	json_decref(tree);
	return CTL_OK;
}

// ---------------------------------------------------------------- describe
static void describe_service(struct ctl *ctl, json_t *tree)
{
	json_t *shown = json_deep_copy(tree);
	json_t *status = json_object_get(shown, "status");
	json_t *backends = json_incref(json_object_get(status, "backends"));
	json_object_del(status, "backends");
	yaml_print(stdout, shown, 0);
	printf("\n");
	backends_table(ctl, backends);
	json_decref(backends);
	json_decref(shown);
}

static int describe_backend(struct ctl *ctl, const char *word, const char *service)
{
	struct address address;
	uint16_t port;
	char text[ADDRESS_TEXT_LEN];
	int code;
	if (!endpoint_split(word, &address, &port))
		return ctl_error(CTL_USAGE, "a backend is ADDRESS or ADDRESS:PORT", word, NULL);
	struct ctl_path path = path_make("/api/v1/backends");
	path_query(&path, "address", address_format(&address, text));
	path_query(&path, "service", service);
	json_t *tree = ctl_get(ctl, &path, 0, &code);
	if (tree == NULL)
		return code;
	json_t *items = json_object_get(tree, "items");
	for (size_t i = json_array_size(items); port && i-- > 0;) {
		if (json_int(json_array_get(items, i), "port") != port)
			json_array_remove(items, i);
	}
	if (json_array_size(items) == 0)
		code = ctl_error(
			CTL_NOT_FOUND, "there is no such backend", word, "sluicectl get backends");
	else if (!output_tree(ctl, tree))
		yaml_print(stdout, items, 0);
	json_decref(tree);
	return code;
}

int verb_describe(struct ctl *ctl)
{
	const char *noun = ctl->words[0];
	if (noun[0] && strncmp("backends", noun, strlen(noun)) == 0) {
		const char *service = ctl->n_words == 3 ? ctl->words[1] : ctl->service;
		return describe_backend(ctl, ctl->words[ctl->n_words - 1], service);
	}
	if (strcmp(noun, "svc") != 0 &&
		(noun[0] == 0 || strncmp("services", noun, strlen(noun)) != 0))
		return ctl_error(CTL_USAGE, "describe service NS/NAME, or describe backend ADDRESS",
			noun, NULL);
	char namespace[64], name[64];
	int code;
	if (!service_split(ctl->words[1], namespace, name))
		return ctl_error(CTL_USAGE, "a service is NAMESPACE/NAME", ctl->words[1], NULL);
	struct ctl_path path = path_make("/api/v1/services");
	path_segment(&path, namespace);
	path_segment(&path, name);
	json_t *tree = ctl_get(ctl, &path, 0, &code);
	if (tree == NULL)
		return code;
	if (!output_tree(ctl, tree))
		describe_service(ctl, tree);
	json_decref(tree);
	return CTL_OK;
}

// ---------------------------------------------------------------- api, version
int verb_api(struct ctl *ctl)
{
	int code;
	struct ctl_path path = path_make("/openapi.json");
	json_t *tree = ctl_get(ctl, &path, 0, &code);
	if (tree == NULL)
		return code;
	if (strcmp(ctl->output, "table") == 0)
		ctl->output = "json";
	output_tree(ctl, tree);
	json_decref(tree);
	return CTL_OK;
}

int verb_version(struct ctl *ctl)
{
	int code;
	ctl->quiet = true;
	json_t *system = status_part(ctl, "/api/v1/system", &code);
	json_t *tree = json_pack("{s:s, s:o}", "client", SLUICE_VERSION, "server",
		system ? json_string(json_str(system, "version")) : json_null());
	if (!output_tree(ctl, tree)) {
		printf("sluicectl %s\nsluiced ", SLUICE_VERSION);
		print_safe(stdout, system ? json_str(system, "version") : "not reached");
		printf("\n");
	}
	json_decref(tree);
	json_decref(system);
	return CTL_OK;
}
