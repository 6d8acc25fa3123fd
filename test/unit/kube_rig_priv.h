// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Objects of the API from one line each, and changes of the model as one line each, so that a case reads as a story:
//
//   svc default/web ip=203.0.113.10 ports=http:80,dns:53/UDP@30053 ...      slice default/web-1 svc=web ports=http:8080 eps=10.9.0.2,10.9.0.3/n
//   node n1 ip=10.0.0.1 ...      ns default labels=a=b      pool p addresses=...      pod default/web-0 ip=... gate=True
//
// A word json={...}, the last one of a line, is laid over the object. An endpoint is ADDRESS[/FLAGS[/key=value...]]; flags: r ready (default),
// n not ready nor serving, t serving and terminating, x terminating only, d ready and terminating, u no conditions at all.
#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "kube_cluster.h"
#include "kube_encode.h"

#define RIG_PREFIX "sluice-lb.github.io/"

struct rig {
	struct kube_cluster *cluster;
	uint64_t resource_version; // of the next object
	char line[8192];           // the last change
	char wants[2048];
	char findings[8192];
	char ingress[1024];
};

static inline json_t *rig_text(const char *text)
{
	json_t *json = json_string(text);
	if (json == NULL)
		fail_msg("bad text");
	return json;
}

// The object at a path of keys, made when it is not there.
static inline json_t *rig_at(json_t *json, const char *a, const char *b)
{
	const char *keys[] = { a, b };
	for (size_t i = 0; i < 2 && keys[i]; i++) {
		json_t *next = json_object_get(json, keys[i]);
		if (next == NULL) {
			next = json_object();
			json_object_set_new(json, keys[i], next);
		}
		json = next;
	}
	return json;
}

static inline json_t *rig_list(const char *text, json_t *(*make)(const char *word))
{
	char copy[4096], *save = NULL;
	json_t *array = json_array();
	snprintf(copy, sizeof(copy), "%s", text);
	for (char *word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save))
		json_array_append_new(array, make(word));
	return array;
}

static inline json_t *rig_ingress(const char *word)
{
	json_t *entry = json_object();
	char copy[128];
	snprintf(copy, sizeof(copy), "%s", word);
	char *slash = strchr(copy, '/');
	if (slash)
		*slash = '\0';
	json_object_set_new(entry, "ip", rig_text(copy));
	json_object_set_new(entry, "ipMode", rig_text(slash ? slash + 1 : "VIP"));
	return entry;
}

// name:port[/PROTOCOL][@nodePort]; of a slice the same without the last.
static inline json_t *rig_port(const char *word)
{
	char name[64] = "", protocol[16] = "TCP";
	json_t *port = json_object();
	const char *colon = strchr(word, ':'), *slash = strchr(word, '/'), *at = strchr(word, '@');
	snprintf(name, sizeof(name), "%.*s", (int)(colon - word), word);
	if (slash)
		snprintf(protocol, sizeof(protocol), "%.*s", (int)strcspn(slash + 1, "@"),
			slash + 1);
	if (name[0])
		json_object_set_new(port, "name", rig_text(name));
	json_object_set_new(port, "port", json_integer(atoi(colon + 1)));
	json_object_set_new(port, "protocol", rig_text(protocol));
	if (at)
		json_object_set_new(port, "nodePort", json_integer(atoi(at + 1)));
	return port;
}

static inline void rig_endpoint_member(json_t *endpoint, const char *word)
{
	const char *value = strchr(word, '=') + 1;
	json_t *target = json_object();
	if (strncmp(word, "pod=", 4) == 0) {
		json_object_set_new(target, "kind", rig_text("Pod"));
		json_object_set_new(target, "name", rig_text(value));
		json_object_update(rig_at(endpoint, "targetRef", NULL), target);
	} else if (strncmp(word, "uid=", 4) == 0) {
		json_object_set_new(target, "uid", rig_text(value));
		json_object_update(rig_at(endpoint, "targetRef", NULL), target);
	} else if (strncmp(word, "node=", 5) == 0) {
		json_object_set_new(endpoint, "nodeName", rig_text(value));
	} else if (strncmp(word, "host=", 5) == 0) {
		json_object_set_new(endpoint, "hostname", rig_text(value));
	} else if (strncmp(word, "zone=", 5) == 0) {
		json_t *zone = json_object();
		json_object_set_new(zone, "name", rig_text(value));
		json_t *zones = json_array();
		json_array_append_new(zones, zone);
		json_object_set_new(rig_at(endpoint, "hints", NULL), "forZones", zones);
	} else {
		fail_msg("no such member: %s", word);
	}
	json_decref(target);
}

static inline json_t *rig_endpoint(const char *word)
{
	char copy[512], *save = NULL;
	json_t *endpoint = json_object();
	snprintf(copy, sizeof(copy), "%s", word);
	char *address = strtok_r(copy, "/", &save), *flags = strtok_r(NULL, "/", &save);
	char flag = flags ? flags[0] : 'r';
	json_t *addresses = json_array();
	json_array_append_new(addresses, rig_text(address));
	json_object_set_new(endpoint, "addresses", addresses);
	if (flag != 'u') {
		json_t *conditions = rig_at(endpoint, "conditions", NULL);
		bool serving = flag == 'r' || flag == 't' || flag == 'd';
		json_object_set_new(conditions, "ready", json_boolean(flag == 'r' || flag == 'd'));
		json_object_set_new(conditions, "serving", json_boolean(serving));
		json_object_set_new(conditions, "terminating",
			json_boolean(flag == 't' || flag == 'x' || flag == 'd'));
	}
	for (char *rest = strtok_r(NULL, "/", &save); rest; rest = strtok_r(NULL, "/", &save))
		rig_endpoint_member(endpoint, rest);
	return endpoint;
}

static inline json_t *rig_family(const char *word)
{
	return rig_text(word[0] == '4' ? "IPv4" : "IPv6");
}

static inline json_t *rig_node_address(const char *word)
{
	json_t *entry = json_object();
	bool is_outer = word[0] == '!';
	json_object_set_new(entry, "type", rig_text(is_outer ? "ExternalIP" : "InternalIP"));
	json_object_set_new(entry, "address", rig_text(word + is_outer));
	return entry;
}

static inline json_t *rig_pod_ip(const char *word)
{
	json_t *entry = json_object();
	json_object_set_new(entry, "ip", rig_text(word));
	return entry;
}

static inline json_t *rig_gate(const char *value, const char *key)
{
	json_t *entry = json_object(), *array = json_array();
	if (strcmp(key, "type") == 0)
		json_object_set_new(entry, "status", rig_text(value));
	json_object_set_new(entry, strcmp(key, "type") ? "conditionType" : "type",
		rig_text(RIG_PREFIX "healthy"));
	json_array_append_new(array, entry);
	return array;
}

// One word key=value of a line into the object.
// "203.0.113.10,2001:db8::1": what was given, as the annotation says it.
static inline json_t *rig_allocation(const char *value)
{
	struct address addresses[2];
	char text[400], *rest = NULL;
	uint32_t n = 0;
	snprintf(text, sizeof(text), "%s", value);
	for (char *one = strtok_r(text, ",", &rest); one && n < 2; one = strtok_r(NULL, ",", &rest))
		assert_int_equal(address_parse(one, &addresses[n++]), 0);
	struct kube_allocation allocation = { "blue", 7, addresses, n };
	return json_string(kube_allocation_format(&allocation, text, sizeof(text)));
}

static inline void rig_word(json_t *json, const char *key, const char *value)
{
	json_t *metadata = rig_at(json, "metadata", NULL), *spec = json_object_get(json, "spec");
	if (strcmp(key, "uid") == 0)
		json_object_set_new(metadata, "uid", rig_text(value));
	else if (strcmp(key, "rv") == 0)
		json_object_set_new(metadata, "resourceVersion", rig_text(value));
	else if (strcmp(key, "created") == 0)
		json_object_set_new(metadata, "creationTimestamp", rig_text(value));
	else if (strcmp(key, "gen") == 0)
		json_object_set_new(metadata, "generation", json_integer(atoi(value)));
	else if (strcmp(key, "deleting") == 0)
		json_object_set_new(
			metadata, "deletionTimestamp", rig_text("2026-01-02T00:00:00Z"));
	else if (strcmp(key, "given") == 0)
		json_object_set_new(rig_at(metadata, "annotations", NULL), RIG_PREFIX "allocation",
			rig_allocation(value));
	else if (strcmp(key, "finalizer") == 0)
		json_object_set_new(metadata, "finalizers", rig_list(value, rig_text));
	else if (strncmp(key, "label:", 6) == 0)
		json_object_set_new(rig_at(metadata, "labels", NULL), key + 6, rig_text(value));
	else if (strchr(key, '/'))
		json_object_set_new(rig_at(metadata, "annotations", NULL), key, rig_text(value));
	else if (key[0] == '.') {
		char full[128];
		snprintf(full, sizeof(full), RIG_PREFIX "%s", key + 1);
		json_object_set_new(rig_at(metadata, "annotations", NULL), full, rig_text(value));
	} else if (strcmp(key, "svc") == 0)
		json_object_set_new(rig_at(metadata, "labels", NULL), "kubernetes.io/service-name",
			rig_text(value));
	else if (strcmp(key, "ip") == 0 && json_object_get(json, "node"))
		json_object_set_new(rig_at(json, "status", NULL), "addresses",
			rig_list(value, rig_node_address));
	else if (strcmp(key, "ip") == 0 && json_object_get(json, "pod"))
		json_object_set_new(
			rig_at(json, "status", NULL), "podIPs", rig_list(value, rig_pod_ip));
	else if (strcmp(key, "ip") == 0)
		json_object_set_new(rig_at(json, "status", "loadBalancer"), "ingress",
			rig_list(value, rig_ingress));
	else if (strcmp(key, "ports") == 0)
		json_object_set_new(spec ? spec : json, "ports", rig_list(value, rig_port));
	else if (strcmp(key, "eps") == 0)
		json_object_set_new(json, "endpoints", rig_list(value, rig_endpoint));
	else if (strcmp(key, "family") == 0)
		json_object_set_new(json, "addressType", rig_text(value));
	else if (strcmp(key, "families") == 0)
		json_object_set_new(spec, "ipFamilies", rig_list(value, rig_family));
	else if (strcmp(key, "ranges") == 0)
		json_object_set_new(spec, "loadBalancerSourceRanges", rig_list(value, rig_text));
	else if (strcmp(key, "addresses") == 0)
		json_object_set_new(spec, "addresses", rig_list(value, rig_text));
	else if (strcmp(key, "namespaces") == 0)
		json_object_set_new(spec, "namespaces", rig_list(value, rig_text));
	else if (strcmp(key, "gate") == 0) {
		json_object_set_new(spec, "readinessGates", rig_gate(value, "conditionType"));
		if (value[0])
			json_object_set_new(rig_at(json, "status", NULL), "conditions",
				rig_gate(value, "type"));
	} else
		json_object_set_new(spec, key, rig_text(value)); // type, class ... as they are
}

static const struct {
	const char *word;
	enum kube_cluster_resource resource;
	const char *initial; // ' for "
} rig_kinds[] = {
	{ "svc", KUBE_CLUSTER_SERVICES,
		"{'metadata': {}, 'spec': {'type': 'LoadBalancer'}, 'status': {}}" },
	{ "slice", KUBE_CLUSTER_SLICES, "{'metadata': {}, 'addressType': 'IPv4'}" },
	{ "node", KUBE_CLUSTER_NODES, "{'metadata': {}, 'spec': {}, 'node': 1}" },
	{ "ns", KUBE_CLUSTER_NAMESPACES, "{'metadata': {}, 'spec': {}}" },
	{ "pool", KUBE_CLUSTER_POOLS, "{'metadata': {}, 'spec': {}}" },
	{ "pod", KUBE_CLUSTER_PODS, "{'metadata': {}, 'spec': {}, 'pod': 1}" },
};

static inline size_t rig_kind(const char *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(rig_kinds); i++)
		if (strcmp(rig_kinds[i].word, word) == 0)
			return i;
	fail_msg("no such kind: %s", word);
	return 0;
}

static inline json_t *rig_json(const char *text)
{
	char copy[4096];
	json_error_t error;
	snprintf(copy, sizeof(copy), "%s", text);
	for (char *c = copy; *c; c++)
		if (*c == '\'')
			*c = '"';
	json_t *json = json_loads(copy, JSON_DECODE_ANY, &error);
	if (json == NULL)
		fail_msg("%s: %s", copy, error.text);
	return json;
}

// The object of a line "KIND NAME word..."; uid and creation time from the name unless given.
static inline json_t *rig_object(
	const char *line, uint64_t resource_version, enum kube_cluster_resource *out_resource)
{
	char copy[8192], *save = NULL, text[300];
	const char *patch = strstr(line, "json=");
	snprintf(copy, sizeof(copy), "%.*s", patch ? (int)(patch - line) : (int)strlen(line), line);
	size_t kind = rig_kind(strtok_r(copy, " ", &save));
	char *name = strtok_r(NULL, " ", &save), *slash = strchr(name, '/');
	json_t *json = rig_json(rig_kinds[kind].initial),
	       *metadata = rig_at(json, "metadata", NULL);
	snprintf(text, sizeof(text), "uid-%s", slash ? slash + 1 : name);
	json_object_set_new(metadata, "uid", rig_text(text));
	json_object_set_new(metadata, "creationTimestamp", rig_text("2026-01-01T00:00:00Z"));
	snprintf(text, sizeof(text), "%llu", (unsigned long long)resource_version);
	json_object_set_new(metadata, "resourceVersion", rig_text(text));
	if (slash) {
		*slash = '\0';
		json_object_set_new(metadata, "namespace", rig_text(name));
	}
	json_object_set_new(metadata, "name", rig_text(slash ? slash + 1 : name));
	for (char *word = strtok_r(NULL, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		char *equals = strchr(word, '=');
		if (equals)
			*equals = '\0';
		rig_word(json, word, equals ? equals + 1 : "");
	}
	if (patch) {
		json_t *over = rig_json(patch + 5);
		json_object_update_recursive(json, over);
		json_decref(over);
	}
	json_object_del(json, "node");
	json_object_del(json, "pod");
	*out_resource = rig_kinds[kind].resource;
	return json;
}

static inline void rig_put(struct rig *rig, const char *line)
{
	enum kube_cluster_resource resource;
	json_t *json = rig_object(line, ++rig->resource_version, &resource);
	assert_int_equal(kube_cluster_put(rig->cluster, resource, json), 0);
	json_decref(json);
}

// "KIND NAME"
static inline void rig_remove(struct rig *rig, const char *line)
{
	char kind[16], name[256];
	assert_int_equal(sscanf(line, "%15s %255s", kind, name), 2);
	char *slash = strchr(name, '/');
	if (slash)
		*slash = '\0';
	kube_cluster_remove(rig->cluster, rig_kinds[rig_kind(kind)].resource, slash ? name : NULL,
		slash ? slash + 1 : name);
}

static inline void rig_sync(struct rig *rig)
{
	for (int i = 0; i < KUBE_CLUSTER_RESOURCES; i++) {
		kube_cluster_begin(rig->cluster, (enum kube_cluster_resource)i);
		kube_cluster_end(rig->cluster, (enum kube_cluster_resource)i);
	}
}

// ---------------------------------------------------------------- a change as one line
__attribute__((format(printf, 3, 4))) static inline void rig_print(
	char *buf, size_t len, const char *fmt, ...)
{
	size_t at = strlen(buf);
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(buf + at, len - at, fmt, ap);
	va_end(ap);
}

static inline void rig_print_backend(char *buf, size_t len, const struct service_backend *b)
{
	char text[ADDRESS_TEXT_LEN];
	char flag = b->conditions.ready         ? b->conditions.terminating ? 'd' : 'r'
		    : b->conditions.terminating ? b->conditions.serving ? 't' : 'x'
		    : b->conditions.serving     ? 's'
						: 'n';
	rig_print(buf, len, " %s/%c", address_format(&b->address, text), flag);
	for (uint32_t i = 0; i < b->n_ports; i++)
		rig_print(
			buf, len, "%s%s:%u", i ? "," : "(", b->ports[i].listener, b->ports[i].port);
	rig_print(buf, len, "%s", b->n_ports ? ")" : "");
	if (b->weight != SERVICE_WEIGHT_DEFAULT)
		rig_print(buf, len, "*%u", b->weight);
	if (b->target[0])
		rig_print(buf, len, "@%s", b->target);
	if (b->uid[0])
		rig_print(buf, len, "#%s", b->uid);
}

// "namespace/name VIP,VIP name:port/PROTO,... | backend backend ..."
static inline void rig_print_service(char *buf, size_t len, const struct service *s)
{
	char text[ADDRESS_TEXT_LEN + 4];
	for (uint32_t i = 0; i < s->n_addresses; i++)
		rig_print(buf, len, "%s%s", i ? "," : " ", address_format(&s->addresses[i], text));
	for (uint32_t i = 0; i < s->n_listeners; i++) {
		const struct service_listener *l = &s->listeners[i];
		rig_print(buf, len, "%s%s:%u", i ? "," : " ", l->name, l->port);
		if (l->protocol != NET_PROTO_TCP)
			rig_print(buf, len, "/%s", service_protocol_name(l->protocol));
	}
	if (s->mode != SERVICE_MODE_FULLNAT)
		rig_print(buf, len, " mode=%s", service_mode_name(s->mode));
	if (s->affinity_s)
		rig_print(buf, len, " affinity=%us", s->affinity_s);
	for (uint32_t i = 0; i < s->n_source_ranges; i++)
		rig_print(buf, len, "%s%s",
			i ? "," : " ranges=", prefix_format(&s->source_ranges[i], text));
	if (s->check.kind != SERVICE_CHECK_TCP)
		rig_print(buf, len, " check=%s:%u%s", service_check_name(s->check.kind),
			s->check.port, s->check.path);
	rig_print(buf, len, " |");
	for (uint32_t i = 0; i < s->n_backends; i++)
		rig_print_backend(buf, len, &s->backends[i]);
}

static inline void rig_print_wants(char *buf, size_t len, const struct kube_wants *w)
{
	static const char *const policies[] = { "single", "prefer-dual", "require-dual" };
	char text[ADDRESS_TEXT_LEN];
	buf[0] = '\0';
	if (!w->is_wanted) {
		rig_print(buf, len, "nothing");
		return;
	}
	for (uint32_t i = 0; i < w->n_families; i++)
		rig_print(buf, len, "%u", w->families[i]);
	rig_print(buf, len, " %s", policies[w->policy]);
	for (uint32_t i = 0; i < w->n_requested; i++)
		rig_print(buf, len, "%s%s",
			i ? "," : " requested=", address_format(&w->requested[i], text));
	if (w->pool[0])
		rig_print(buf, len, " pool=%s", w->pool);
	if (w->sharing_key[0])
		rig_print(buf, len, " sharing=%s", w->sharing_key);
	if (w->backend_key[0])
		rig_print(buf, len, " backends=%s", w->backend_key);
	if (w->is_proxy_mode)
		rig_print(buf, len, " proxy");
	for (uint32_t i = 0; i < w->n_ports; i++)
		rig_print(buf, len, "%s%s:%u/%s", i ? "," : " ", w->ports[i].name, w->ports[i].port,
			service_protocol_name(w->ports[i].protocol));
}

static inline void rig_print_change(struct rig *rig, const struct kube_change *change)
{
	static const char *const kinds[] = { "PUT", "REMOVE", "KEEP" };
	char *line = rig->line, text[1024];
	size_t len = sizeof(rig->line);
	line[0] = rig->findings[0] = rig->ingress[0] = '\0';
	rig_print(line, len, "%s %s/%s", kinds[change->kind], change->namespace, change->name);
	const struct {
		bool is_set;
		const char *word;
	} words[] = { { change->is_gone, "gone" },
		{ !change->is_ours && !change->is_gone, "foreign" },
		{ change->is_refused, "refused" }, { change->is_deleting, "deleting" },
		{ change->has_finalizer, "finalizer" }, { change->wants_no_finalizer, "release" } };
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (words[i].is_set)
			rig_print(line, len, " %s", words[i].word);
	assert_true(change->shrunk.n_gone <= change->shrunk.n_before &&
		    change->shrunk.n_new <= change->shrunk.n_now &&
		    change->shrunk.n_now - change->shrunk.n_new <=
			    change->shrunk.n_before - change->shrunk.n_gone);
	if (change->shrunk.n_gone)
		rig_print(
			line, len, " shrunk=%u/%u", change->shrunk.n_gone, change->shrunk.n_before);
	assert_int_equal(change->kind == KUBE_PUT, change->service != NULL);
	if (change->service)
		rig_print_service(line, len, change->service);
	rig_print_wants(rig->wants, sizeof(rig->wants), &change->wants);
	for (uint32_t i = 0; i < change->findings->n_items; i++)
		rig_print(rig->findings, sizeof(rig->findings), "%s\n",
			error_format(change->findings, i, text, sizeof(text)));
	for (uint32_t i = 0; i < change->n_ingress; i++)
		rig_print(rig->ingress, sizeof(rig->ingress), "%s%s%s", i ? "," : "",
			address_format(&change->ingress[i].address, text),
			change->ingress[i].is_proxy_mode ? "/Proxy" : "");
}

static inline bool rig_next(struct rig *rig)
{
	struct kube_change change;
	if (!kube_cluster_next(rig->cluster, &change))
		return false;
	rig_print_change(rig, &change);
	return true;
}
