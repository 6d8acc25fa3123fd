// SPDX-License-Identifier: BSD-3-Clause
// What of a Service only a cluster gives a meaning to: families, traffic policy, node ports, exposure (kubernetes.md 2, 5).
#include "kube_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PROXY_NAME_LABEL "service.kubernetes.io/service-proxy-name"
#define NODE_HEALTH_PORT 10256 // kube-proxy's own, on every node
#define ASSIGNED         KUBE_PREFIX "assigned"

uint32_t kube_addresses_parse(const char *text, struct address *out, uint32_t n_max)
{
	uint32_t n = 0;
	while (*text && n < n_max) {
		char word[ADDRESS_TEXT_LEN];
		text += strspn(text, " ");
		size_t len = strcspn(text, ",");
		size_t n_word = len;
		while (n_word && text[n_word - 1] == ' ')
			n_word--;
		snprintf(word, sizeof(word), "%.*s", (int)(n_word < sizeof(word) ? n_word : 0),
			text);
		if (address_parse(word, &out[n]) == 0)
			n++;
		text += len;
		text += *text == ',';
	}
	return n;
}

// {"web-0": "203.0.113.10"}: texts by hostname. It is ours to write: what somebody else made of it counts as not there.
static json_t *assigned_by_hostname(const char *text)
{
	uint32_t line;
	const char *key;
	json_t *value;
	json_t *given = NULL;
	if (kube_depth_ok(text, strlen(text), 1, &line))
		given = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	json_object_foreach(given, key, value)
	{
		if (json_is_string(value))
			continue;
		json_decref(given);
		return NULL;
	}
	if (given && json_is_object(given))
		return given;
	json_decref(given);
	return NULL;
}

void kube_assigned_read(struct kube_reader *r, const json_t *metadata, struct kube_service *out)
{
	const char *text = json_string_value(
		json_object_get(json_object_get(metadata, "annotations"), ASSIGNED));
	struct address found[2];
	if (text == NULL)
		return;
	if (out->extras.expose == KUBE_EXPOSE_ENDPOINTS)
		out->extras.assigned = assigned_by_hostname(text);
	if (out->extras.expose != KUBE_EXPOSE_SERVICE)
		return;
	uint32_t n = kube_addresses_parse(text, found, ARRAY_SIZE(found));
	for (uint32_t i = 0; i < n; i++)
		if (i == 0 || !address_equal(&found[0], &found[i]))
			kube_add_vip(r, out->service, &found[i]);
}

// ---------------------------------------------------------------- spec
// A word of a member; -1 when absent, -2 when refused.
static int read_enum(struct kube_reader *r, const json_t *spec, const char *key,
	const char *const *words, const char *allowed)
{
	char quoted[96];
	const char *text = kube_text(r, spec, key);
	if (text == NULL)
		return kube_is_absent(spec, key) ? -1 : -2;
	for (int i = 0; words[i]; i++)
		if (strcmp(text, words[i]) == 0)
			return i;
	kube_refuse_at(
		r, key, "%s: allowed: %s", kube_quote(text, quoted, sizeof(quoted)), allowed);
	return -2;
}

static void read_families(struct kube_reader *r, const json_t *spec, struct kube_extras *out)
{
	static const char *const policies[] = { [KUBE_SINGLE_STACK] = "SingleStack",
		[KUBE_PREFER_DUAL_STACK] = "PreferDualStack",
		[KUBE_REQUIRE_DUAL_STACK] = "RequireDualStack",
		NULL };
	char quoted[96];
	int policy = read_enum(r, spec, "ipFamilyPolicy", policies,
		"SingleStack, PreferDualStack, RequireDualStack");
	out->policy = policy < 0 ? KUBE_SINGLE_STACK : (enum kube_families)policy;
	const json_t *families = kube_array(r, spec, "ipFamilies");
	kube_enter(r, "ipFamilies");
	if (json_array_size(families) > 2)
		kube_refuse(r, "%zu families: allowed: at most 2", json_array_size(families));
	for (size_t i = 0; i < json_array_size(families) && i < 2; i++) {
		const char *text = json_string_value(json_array_get(families, i));
		bool is_v4 = text && strcmp(text, "IPv4") == 0;
		kube_enter_idx(r, (uint32_t)i);
		if (!is_v4 && (text == NULL || strcmp(text, "IPv6")))
			kube_refuse(r, "%s: allowed: IPv4, IPv6, each once",
				kube_quote(text ? text : "", quoted, sizeof(quoted)));
		else if (i == 1 && out->families[0] == (is_v4 ? 4 : 6))
			kube_refuse(r, "%s twice: allowed: IPv4, IPv6, each once", text);
		else
			out->families[out->n_families++] = is_v4 ? 4 : 6;
		kube_leave(r);
	}
	kube_leave(r);
}

// An object of an older server, or made by hand, has no families: those of what it asks for, else IPv4.
static void default_families(struct kube_extras *out)
{
	for (uint32_t i = 0; out->n_families == 0 && i < out->n_requested; i++)
		out->families[out->n_families++] = address_is_v4(&out->requested[i]) ? 4 : 6;
	if (out->n_families == 0)
		out->families[out->n_families++] = 4;
}

static uint16_t read_node_port(struct kube_reader *r, const json_t *in, const char *key)
{
	int64_t number = 0;
	kube_integer(r, in, key, &number);
	if (number >= 0 && number <= 65535)
		return (uint16_t)number;
	kube_refuse_at(r, key, "%lld: allowed: 0..65535", (long long)number);
	return 0;
}

static void read_node_ports(struct kube_reader *r, const json_t *spec, struct kube_service *out)
{
	uint32_t n = out->service->n_listeners;
	const json_t *ports = json_object_get(spec, "ports");
	out->extras.health_node_port = read_node_port(r, spec, "healthCheckNodePort");
	out->extras.node_ports = calloc(n + 1, sizeof(uint16_t));
	if (out->extras.node_ports == NULL) {
		kube_refuse(r, "out of memory");
		return;
	}
	kube_enter(r, "ports");
	for (uint32_t i = 0; i < n; i++) { // a port without listener has been refused
		kube_enter_idx(r, i);
		out->extras.node_ports[i] = read_node_port(r, json_array_get(ports, i), "nodePort");
		kube_leave(r);
	}
	kube_leave(r);
}

// Two Services may share an address under policy Local when this is the same.
static void read_selector(struct kube_reader *r, const json_t *spec, struct kube_extras *out)
{
	const json_t *selector = json_object_get(spec, "selector");
	if (json_object_size(selector) == 0)
		return;
	out->selector = json_dumps(selector, JSON_SORT_KEYS | JSON_COMPACT);
	if (out->selector == NULL)
		kube_refuse(r, "out of memory");
}

void kube_extras_read(
	struct kube_reader *r, const json_t *spec, bool is_balancer, struct kube_service *out)
{
	static const char *const policies[] = { "Cluster", "Local", NULL };
	struct kube_extras *extras = &out->extras;
	read_families(r, spec, extras);
	default_families(extras);
	extras->is_local =
		read_enum(r, spec, "externalTrafficPolicy", policies, "Cluster, Local") == 1;
	read_node_ports(r, spec, out);
	read_selector(r, spec, extras);
}

// ---------------------------------------------------------------- what does not go together
static void refuse_annotation(struct kube_reader *r, const char *key, const char *text)
{
	kube_enter(r, "metadata");
	kube_enter(r, "annotations");
	kube_refuse_at(r, key, "%s", text);
	kube_leave(r);
	kube_leave(r);
}

static bool mode_keeps_vip(enum service_mode mode)
{
	return mode == SERVICE_MODE_IPIP || mode == SERVICE_MODE_GUE || mode == SERVICE_MODE_L2DSR;
}

static void check_expose(
	struct kube_reader *r, const json_t *json, const struct kube_extras *extras)
{
	const char *key = KUBE_PREFIX "expose";
	const json_t *spec = json_object_get(json, "spec");
	const char *type = json_string_value(json_object_get(spec, "type"));
	const char *ip = json_string_value(json_object_get(spec, "clusterIP"));
	bool is_headless = ip && strcmp(ip, "None") == 0;
	if (extras->expose == KUBE_EXPOSE_NONE)
		return;
	if (type && strcmp(type, "LoadBalancer") == 0)
		refuse_annotation(r, key,
			"the Service is of type LoadBalancer and has its own address; allowed "
			"there: none");
	else if (type && strcmp(type, "ExternalName") == 0)
		refuse_annotation(
			r, key, "an ExternalName Service has no endpoints; allowed there: none");
	else if (is_headless && extras->expose == KUBE_EXPOSE_SERVICE)
		refuse_annotation(
			r, key, "the Service is headless; allowed there: none, endpoints");
	else if (!is_headless && extras->expose == KUBE_EXPOSE_ENDPOINTS)
		refuse_annotation(
			r, key, "the Service is not headless; allowed there: none, service");
}

// NAT needs a node port for every listener; other modes leave the VIP in the packet, which nodes know from the status.
static void check_node_ports(struct kube_reader *r, const struct kube_service *s)
{
	const struct kube_extras *extras = &s->extras;
	char text[160];
	for (uint32_t i = 0; extras->node_ports && i < s->service->n_listeners; i++) {
		if (extras->node_ports[i])
			continue;
		snprintf(text, sizeof(text),
			"nodes, and port %u has no nodePort; allowed: endpoints, or node ports "
			"(allocateLoadBalancerNodePorts)",
			s->service->listeners[i].port);
		refuse_annotation(r, KUBE_PREFIX "targets", text);
		return;
	}
}

static void check_nodes(struct kube_reader *r, const json_t *json, const struct kube_service *s)
{
	const char *key = KUBE_PREFIX "targets";
	const struct kube_extras *extras = &s->extras;
	const json_t *labels = json_object_get(json_object_get(json, "metadata"), "labels");
	if (!extras->to_nodes)
		return;
	if (json_object_get(labels, PROXY_NAME_LABEL))
		refuse_annotation(r, key,
			"nodes, and the label " PROXY_NAME_LABEL
			" takes the Service from the nodes' proxies; allowed: endpoints");
	else if (extras->expose == KUBE_EXPOSE_ENDPOINTS)
		refuse_annotation(r, key, "nodes with expose endpoints; allowed: endpoints");
	else if (!mode_keeps_vip(s->service->mode))
		check_node_ports(r, s);
	else if (extras->is_proxy_mode || extras->expose == KUBE_EXPOSE_SERVICE)
		refuse_annotation(r, key,
			"nodes, which do not take packets for this VIP in ip-mode Proxy or "
			"exposed; allowed: endpoints, or mode fullnat, dnat");
}

// A probe of a node tells of the node: of its port where that is TCP, else of its proxy. Policy Local has a port for it.
static void default_node_check(struct kube_service *s)
{
	struct service_check *check = &s->service->check;
	bool has_tcp = false;
	if (!s->extras.to_nodes || s->extras.has_check || check->kind != SERVICE_CHECK_TCP)
		return;
	for (uint32_t i = 0; i < s->service->n_listeners; i++)
		has_tcp = has_tcp || s->service->listeners[i].protocol == NET_PROTO_TCP;
	bool is_local = s->extras.is_local && s->extras.health_node_port;
	if (has_tcp && !is_local && !mode_keeps_vip(s->service->mode))
		return;
	check->kind = SERVICE_CHECK_HTTP;
	check->port = is_local ? s->extras.health_node_port : NODE_HEALTH_PORT;
	snprintf(check->path, sizeof(check->path), "/healthz");
}

void kube_extras_check(struct kube_reader *r, const json_t *json, struct kube_service *out)
{
	check_expose(r, json, &out->extras);
	check_nodes(r, json, out);
	if (out->extras.is_proxy_mode && out->service->mode == SERVICE_MODE_DNAT)
		refuse_annotation(r, KUBE_PREFIX "ip-mode",
			"Proxy with mode dnat: a pod would answer a pod past us; allowed: VIP, or "
			"another mode");
	default_node_check(out);
}

void kube_extras_fini(struct kube_extras *extras)
{
	free(extras->pool);
	free(extras->sharing_key);
	free(extras->selector);
	free(extras->node_ports);
	json_decref(extras->assigned);
	*extras = (struct kube_extras){ 0 };
}
