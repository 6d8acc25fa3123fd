// SPDX-License-Identifier: BSD-3-Clause
// A Service object to a struct service without backends. Meaning of the fields: kubernetes.md section 2.
#include "kube_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define AFFINITY_DEFAULT_S 10800
#define AFFINITY_MAX_S     86400
#define RANGES_ANNOTATION  "service.beta.kubernetes.io/load-balancer-source-ranges"

static const struct kube_known spec_known[] = {
	{ "allocateLoadBalancerNodePorts", JSON_TRUE },
	{ "clusterIP", JSON_STRING },
	{ "clusterIPs", JSON_ARRAY },
	{ "externalIPs", JSON_ARRAY },
	{ "externalTrafficPolicy", JSON_STRING },
	{ "healthCheckNodePort", JSON_INTEGER },
	{ "internalTrafficPolicy", JSON_STRING },
	{ "ipFamilies", JSON_ARRAY },
	{ "ipFamilyPolicy", JSON_STRING },
	{ "loadBalancerClass", JSON_STRING },
	{ "publishNotReadyAddresses", JSON_TRUE },
	{ "selector", JSON_OBJECT },
	{ "trafficDistribution", JSON_STRING },
	{ NULL },
};

static const struct kube_known port_known[] = {
	{ "appProtocol", JSON_STRING },
	{ "nodePort", JSON_INTEGER },
	{ NULL },
};

int kube_protocol_read(struct kube_reader *r, const json_t *in, uint8_t *out)
{
	char quoted[96];
	const char *text = kube_text(r, in, "protocol");
	*out = NET_PROTO_TCP;
	if (text && service_protocol_parse(text, out)) {
		kube_refuse_at(r, "protocol", "%s: allowed: TCP, UDP, SCTP",
			kube_quote(text, quoted, sizeof(quoted)));
		return -EINVAL;
	}
	return 0;
}

static void read_port(struct kube_reader *r, const json_t *json, struct service *s)
{
	int64_t number = 0;
	uint8_t protocol = 0;
	char quoted[96];
	const char *name = kube_text(r, json, "name");
	bool has_number = kube_integer(r, json, "port", &number);
	const json_t *target = json_object_get(json, "targetPort");
	kube_check_types(r, json, port_known);
	if (target && !json_is_integer(target) && !json_is_string(target) && !json_is_null(target))
		kube_refuse_at(r, "targetPort", "allowed: a port number or the name of one");
	if (name && strlen(name) >= SERVICE_NAME_MAX)
		kube_refuse_at(r, "name", "%s: allowed: at most %d characters",
			kube_quote(name, quoted, sizeof(quoted)), SERVICE_NAME_MAX - 1);
	kube_protocol_read(r, json, &protocol);
	if (!has_number) {
		if (kube_is_absent(json, "port"))
			kube_refuse(r, "no port; allowed: port 1..65535");
		return;
	}
	if (number < 1 || number > 65535) {
		kube_refuse_at(r, "port", "%lld: allowed: 1..65535", (long long)number);
		return;
	}
	struct service_listener *listener = service_add_listener(s);
	if (listener == NULL) {
		kube_refuse(r, "out of memory");
		return;
	}
	snprintf(listener->name, sizeof(listener->name), "%s", name ? name : "");
	listener->protocol = protocol;
	listener->port = (uint16_t)number;
	listener->port_max = (uint16_t)number;
}

static void read_ports(struct kube_reader *r, const json_t *spec, struct service *s)
{
	const json_t *ports = kube_array(r, spec, "ports");
	if (json_array_size(ports) == 0 && (ports || kube_is_absent(spec, "ports"))) {
		kube_refuse_at(r, "ports", "no port; allowed: 1..%d ports", SERVICE_LISTENERS_MAX);
		return;
	}
	kube_enter(r, "ports");
	if (json_array_size(ports) > SERVICE_LISTENERS_MAX)
		kube_refuse(r, "%zu ports: allowed: 1..%d", json_array_size(ports),
			SERVICE_LISTENERS_MAX);
	for (size_t i = 0; i < json_array_size(ports) && i < SERVICE_LISTENERS_MAX; i++) {
		const json_t *port = json_array_get(ports, i);
		kube_enter_idx(r, (uint32_t)i);
		if (json_is_object(port))
			read_port(r, port, s);
		else
			kube_refuse(r, "allowed: an object");
		kube_leave(r);
	}
	kube_leave(r);
}

static void read_affinity(struct kube_reader *r, const json_t *spec, struct service *s)
{
	char quoted[96];
	const char *kind = kube_text(r, spec, "sessionAffinity");
	const json_t *config = kube_object(r, spec, "sessionAffinityConfig");
	int64_t seconds = AFFINITY_DEFAULT_S;
	bool by_client = kind && strcmp(kind, "ClientIP") == 0;
	if (kind && !by_client && strcmp(kind, "None"))
		kube_refuse_at(r, "sessionAffinity", "%s: allowed: None, ClientIP",
			kube_quote(kind, quoted, sizeof(quoted)));
	kube_enter(r, "sessionAffinityConfig");
	const json_t *client = kube_object(r, config, "clientIP");
	kube_enter(r, "clientIP");
	kube_integer(r, client, "timeoutSeconds", &seconds);
	if (seconds < 1 || seconds > AFFINITY_MAX_S)
		kube_refuse_at(r, "timeoutSeconds", "%lld: allowed: 1..%d", (long long)seconds,
			AFFINITY_MAX_S);
	kube_leave(r);
	if (client && !by_client)
		kube_refuse(r, "allowed: only with sessionAffinity ClientIP");
	kube_leave(r);
	s->affinity_s = by_client ? (uint32_t)seconds : 0;
}

// Kubernetes takes blanks around an entry, and host bits, which it masks.
static bool range_parse(const char *text, size_t len, struct prefix *out)
{
	char word[ADDRESS_TEXT_LEN + 4];
	while (len && (*text == ' ' || *text == '\t')) {
		text++;
		len--;
	}
	while (len && (text[len - 1] == ' ' || text[len - 1] == '\t'))
		len--;
	if (len >= sizeof(word))
		return false;
	memcpy(word, text, len);
	word[len] = '\0';
	char *slash = strchr(word, '/');
	if (slash == NULL || strspn(slash + 1, "0123456789") != strlen(slash + 1) ||
		strlen(slash + 1) < 1 || strlen(slash + 1) > 3)
		return false;
	uint32_t bits = (uint32_t)strtoul(slash + 1, NULL, 10);
	*slash = '\0';
	if (address_parse(word, &out->address))
		return false;
	uint32_t first = address_is_v4(&out->address) ? 96 : 0;
	if (bits > 128 - first)
		return false;
	out->len = (uint8_t)bits;
	for (uint32_t bit = first + bits; bit < 128; bit++)
		out->address.bytes[bit / 8] &= (uint8_t) ~(0x80 >> bit % 8);
	return true;
}

#define RANGE_ALLOWED "prefix as 203.0.113.0/24 or 2001:db8::/32"

static void add_range(struct kube_reader *r, struct service *s, const char *text, size_t len)
{
	char quoted[96], word[80];
	struct prefix range;
	if (!range_parse(text, len, &range)) {
		snprintf(word, sizeof(word), "%.*s", (int)(len < 79 ? len : 79), text);
		kube_refuse(
			r, "%s: allowed: " RANGE_ALLOWED, kube_quote(word, quoted, sizeof(quoted)));
		return;
	}
	struct prefix *slot = service_add_source_range(s);
	if (slot)
		*slot = range;
	else
		kube_refuse(r, "out of memory");
}

static void read_ranges(
	struct kube_reader *r, const json_t *spec, const json_t *metadata, struct service *s)
{
	const json_t *ranges = kube_array(r, spec, "loadBalancerSourceRanges");
	kube_enter(r, "loadBalancerSourceRanges");
	for (size_t i = 0; i < json_array_size(ranges); i++) {
		const char *text = json_string_value(json_array_get(ranges, i));
		kube_enter_idx(r, (uint32_t)i);
		if (text)
			add_range(r, s, text, strlen(text));
		else
			kube_refuse(r, "allowed: a string, " RANGE_ALLOWED);
		kube_leave(r);
	}
	kube_leave(r);
	const char *list = json_string_value(
		json_object_get(json_object_get(metadata, "annotations"), RANGES_ANNOTATION));
	if (json_array_size(ranges) || list == NULL || list[strspn(list, " ")] == '\0')
		return;
	struct kube_step spec_step = r->steps[--r->n_steps]; // the list stands elsewhere
	kube_enter(r, "metadata");
	kube_enter(r, "annotations");
	kube_enter(r, RANGES_ANNOTATION);
	for (;;) {
		size_t len = strcspn(list, ",");
		add_range(r, s, list, len);
		if (list[len] == '\0')
			break;
		list += len + 1;
	}
	r->n_steps -= 3;
	r->steps[r->n_steps++] = spec_step;
}

// ---------------------------------------------------------------- addresses

void kube_add_vip(struct kube_reader *r, struct service *s, const struct address *vip)
{
	char text[ADDRESS_TEXT_LEN];
	for (uint32_t i = 0; i < s->n_addresses; i++) {
		if (!address_equal(&s->addresses[i], vip))
			continue;
		kube_refuse(r, "%s is there twice; allowed: each address once",
			address_format(vip, text));
		return;
	}
	if (s->n_addresses == SERVICE_ADDRESSES_MAX) {
		kube_refuse(r, "allowed: at most %d addresses", SERVICE_ADDRESSES_MAX);
		return;
	}
	struct address *slot = service_add_address(s);
	if (slot)
		*slot = *vip;
	else
		kube_refuse(r, "out of memory");
}

static void read_ingress_entry(
	struct kube_reader *r, const json_t *entry, uint32_t entry_idx, struct kube_service *s)
{
	char quoted[96];
	struct address vip;
	const char *ip = kube_text(r, entry, "ip");
	const char *mode = kube_text(r, entry, "ipMode");
	kube_text(r, entry, "hostname"); // names nothing that a packet has
	if (mode && strcmp(mode, "VIP") && strcmp(mode, "Proxy"))
		kube_refuse_at(r, "ipMode", "%s: allowed: VIP, Proxy",
			kube_quote(mode, quoted, sizeof(quoted)));
	if (ip == NULL)
		return;
	uint32_t n_before = r->n_bad;
	kube_enter(r, "ip");
	if (address_parse(ip, &vip))
		kube_refuse(r, "%s: allowed: IPv4 or IPv6 address",
			kube_quote(ip, quoted, sizeof(quoted)));
	else if (s->service->n_addresses < SERVICE_ADDRESSES_MAX)
		s->vip_idx[s->service->n_addresses] = entry_idx;
	if (mode && strcmp(mode, "Proxy") == 0)
		s->extras.proxy_bits |= (uint16_t)(1u << s->service->n_addresses % 16);
	if (r->n_bad == n_before)
		kube_add_vip(r, s->service, &vip);
	kube_leave(r);
}

static void read_status(struct kube_reader *r, const json_t *json, struct kube_service *s)
{
	const json_t *status = kube_object(r, json, "status");
	kube_enter(r, "status");
	const json_t *balancer = kube_object(r, status, "loadBalancer");
	kube_enter(r, "loadBalancer");
	const json_t *ingress = kube_array(r, balancer, "ingress");
	kube_enter(r, "ingress");
	for (size_t i = 0; i < json_array_size(ingress); i++) {
		const json_t *entry = json_array_get(ingress, i);
		kube_enter_idx(r, (uint32_t)i);
		if (json_is_object(entry))
			read_ingress_entry(r, entry, (uint32_t)i, s);
		else
			kube_refuse(r, "allowed: an object with ip");
		kube_leave(r);
	}
	kube_leave(r);
	kube_leave(r);
	kube_leave(r);
}

// Of the watch: the record alone says what is served; these are told to address management.
static void note_requests(struct kube_service *s, const struct address *wanted, uint32_t n_wanted)
{
	memcpy(s->extras.requested, wanted, n_wanted * sizeof(*wanted));
	s->extras.n_requested = n_wanted;
	s->vips = KUBE_VIPS_STATUS;
}

// loadBalancerIP is a request for one address; one that the annotation does not hold contradicts it.
static void read_requests(struct kube_reader *r, const json_t *spec, struct kube_service *s,
	const struct address *wanted, uint32_t n_wanted)
{
	char quoted[96];
	struct address ip;
	const char *text = kube_text(r, spec, "loadBalancerIP");
	kube_enter(r, "loadBalancerIP");
	bool has_ip = text && text[0];
	bool agrees = n_wanted == 0;
	if (has_ip && address_parse(text, &ip)) {
		kube_refuse(r, "%s: allowed: IPv4 or IPv6 address",
			kube_quote(text, quoted, sizeof(quoted)));
		has_ip = false;
	}
	for (uint32_t i = 0; has_ip && i < n_wanted; i++)
		agrees = agrees || address_equal(&wanted[i], &ip);
	if (has_ip && !agrees)
		kube_refuse(r,
			"%s differs from the annotation " KUBE_PREFIX
			"addresses; allowed: one of its addresses, or only one of the two",
			kube_quote(text, quoted, sizeof(quoted)));
	if (r->is_watch) {
		note_requests(s, n_wanted ? wanted : &ip, n_wanted ? n_wanted : has_ip);
	} else if (s->service->n_addresses) {
		s->vips = KUBE_VIPS_STATUS;
	} else if (n_wanted) {
		s->vips = KUBE_VIPS_ANNOTATION;
		for (uint32_t i = 0; i < n_wanted; i++)
			kube_add_vip(r, s->service, &wanted[i]);
	} else if (has_ip) {
		s->vips = KUBE_VIPS_SPEC;
		kube_add_vip(r, s->service, &ip);
	}
	kube_leave(r);
}

// ---------------------------------------------------------------- the object

static bool type_read(struct kube_reader *r, const json_t *spec, bool *out_is_ours)
{
	static const char *const types[] = { "LoadBalancer", "ClusterIP", "NodePort",
		"ExternalName" };
	char quoted[96];
	const char *type = kube_text(r, spec, "type");
	*out_is_ours = type && strcmp(type, types[0]) == 0;
	for (size_t i = 0; type && i < ARRAY_SIZE(types); i++)
		if (strcmp(type, types[i]) == 0)
			return true;
	if (type)
		kube_refuse_at(r, "type",
			"%s: allowed: LoadBalancer, ClusterIP, NodePort, ExternalName",
			kube_quote(type, quoted, sizeof(quoted)));
	return type == NULL;
}

static void check_port_exists(struct kube_reader *r, const struct service *s)
{
	const char *name = s->check.port_name;
	for (uint32_t i = 0; i < s->n_listeners; i++)
		if (strcmp(s->listeners[i].name, name) == 0)
			return;
	if (name[0] == '\0')
		return;
	kube_enter(r, "metadata");
	kube_enter(r, "annotations");
	kube_refuse_at(r, KUBE_PREFIX "health-check-port",
		"\"%s\" is no port of this Service: allowed: number 1..65535, or the name of one",
		name);
	kube_leave(r);
	kube_leave(r);
}

// metadata has been looked at: namespace and name are there and fit.
static struct service *service_start(struct kube_reader *r, const char *namespace, const char *name)
{
	struct service *s = service_create(r->defaults);
	if (s == NULL) {
		kube_refuse(r, "out of memory");
		return NULL;
	}
	s->owner = r->is_watch ? SERVICE_OWNER_KUBERNETES : SERVICE_OWNER_FILE;
	snprintf(s->namespace, sizeof(s->namespace), "%s", namespace);
	snprintf(s->name, sizeof(s->name), "%s", name);
	return s;
}

void kube_service_read(struct kube_reader *r, const json_t *json, struct kube_service *out)
{
	uint32_t n_before = r->n_bad;
	bool is_ours = false;
	struct address wanted[2];
	uint32_t n_wanted = 0;
	const json_t *metadata = json_object_get(json, "metadata");
	const char *namespace = json_string_value(json_object_get(metadata, "namespace"));
	const char *name = json_string_value(json_object_get(metadata, "name"));
	const json_t *spec = kube_object(r, json, "spec");
	if (kube_is_absent(json, "spec"))
		kube_refuse(r, "no spec; allowed: a Service with metadata and spec");
	kube_enter(r, "spec");
	bool type_known = spec && type_read(r, spec, &is_ours);
	kube_leave(r);
	if (type_known && (is_ours || r->is_watch))
		out->service = service_start(r, namespace ? namespace : "default", name);
	kube_enter(r, "metadata");
	kube_annotations_read(r, metadata, out, wanted, &n_wanted);
	kube_leave(r);
	if (out->service == NULL)
		return;
	if (is_ours)
		read_status(r, json, out);
	else
		kube_assigned_read(r, metadata, out);
	kube_enter(r, "spec");
	kube_check_types(r, spec, spec_known);
	read_ports(r, spec, out->service);
	read_affinity(r, spec, out->service);
	read_ranges(r, spec, metadata, out->service);
	read_requests(r, spec, out, wanted, n_wanted);
	if (r->is_watch)
		kube_extras_read(r, spec, is_ours, out);
	kube_leave(r);
	if (r->is_watch)
		kube_extras_check(r, json, out);
	check_port_exists(r, out->service);
	if (!r->is_watch && out->service->n_addresses == 0 && r->n_bad == n_before)
		kube_refuse(r, "no address: allowed: status.loadBalancer.ingress[].ip, or the "
			       "annotation " KUBE_PREFIX "addresses");
	if (r->n_bad != n_before)
		kube_service_fini(out);
}

void kube_service_fini(struct kube_service *s)
{
	service_destroy(s->service);
	json_decref(s->weights);
	kube_extras_fini(&s->extras);
	s->service = NULL;
	s->weights = NULL;
}
