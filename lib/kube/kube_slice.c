// SPDX-License-Identifier: BSD-3-Clause
// An EndpointSlice object: what the join needs of it. Meaning of the fields: kubernetes.md section 3.
#include "kube_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SLICE_ENDPOINTS_MAX 1000 // as the API server has it
#define SLICE_PORTS_MAX     100
#define SERVICE_LABEL       "kubernetes.io/service-name"

static const struct kube_known endpoint_known[] = {
	{ "deprecatedTopology", JSON_OBJECT },
	{ "hints", JSON_OBJECT },
	{ "zone", JSON_STRING },
	{ NULL },
};

// Only the first address counts.
static bool read_address(struct kube_reader *r, const json_t *json, int family, struct address *out)
{
	char quoted[96];
	const json_t *addresses = kube_array(r, json, "addresses");
	if (addresses == NULL && !kube_is_absent(json, "addresses"))
		return false;
	if (json_array_size(addresses) == 0) {
		kube_refuse_at(r, "addresses", "no address; allowed: an array of 1..100 strings");
		return false;
	}
	kube_enter(r, "addresses");
	kube_enter_idx(r, 0);
	bool good = false;
	const char *text = json_string_value(json_array_get(addresses, 0));
	const char *kind = family == 4 ? "IPv4" : "IPv6";
	if (text == NULL)
		kube_refuse(r, "allowed: a string, %s address", kind);
	else if (address_parse(text, out) || address_is_v4(out) != (family == 4))
		kube_refuse(r, "%s: allowed: %s address, as addressType says",
			kube_quote(text, quoted, sizeof(quoted)), kind);
	else if (!r->is_watch && address_is_unroutable(out))
		kube_refuse(r,
			"%s: allowed: unicast address, not loopback, link-local or unspecified",
			kube_quote(text, quoted, sizeof(quoted)));
	else
		good = true;
	kube_leave(r);
	kube_leave(r);
	return good;
}

// forZones[].name: is there one, and is it the reader's?
static void read_hints(struct kube_reader *r, const json_t *json, struct kube_endpoint *e)
{
	const json_t *hints = json_object_get(json, "hints");
	kube_enter(r, "hints");
	const json_t *zones = kube_array(r, hints, "forZones");
	kube_leave(r);
	for (size_t i = 0; i < json_array_size(zones); i++) {
		const char *name =
			json_string_value(json_object_get(json_array_get(zones, i), "name"));
		e->has_hint = e->has_hint || name;
		e->is_near = e->is_near || (name && strcmp(name, r->zone) == 0);
	}
}

static void read_endpoint(
	struct kube_reader *r, const json_t *json, int family, struct kube_slice *out)
{
	struct kube_endpoint e = { 0 };
	kube_check_types(r, json, endpoint_known);
	const json_t *conditions = kube_object(r, json, "conditions");
	kube_enter(r, "conditions");
	e.conditions.ready = kube_bool(r, conditions, "ready", true);
	e.conditions.serving = kube_bool(r, conditions, "serving", true);
	e.conditions.terminating = kube_bool(r, conditions, "terminating", false);
	kube_leave(r);
	const json_t *target = kube_object(r, json, "targetRef");
	kube_enter(r, "targetRef");
	const char *name = kube_text(r, target, "name");
	const char *uid = kube_text(r, target, "uid");
	const char *kind = kube_text(r, target, "kind");
	if (uid && strlen(uid) >= sizeof(((struct service_backend *)0)->uid))
		kube_refuse_at(r, "uid", "%zu characters; allowed: at most %zu", strlen(uid),
			sizeof(((struct service_backend *)0)->uid) - 1);
	kube_leave(r);
	const char *hostname = kube_text(r, json, "hostname");
	const char *node = kube_text(r, json, "nodeName");
	e.node = node ? node : "";
	e.is_pod = kind && strcmp(kind, "Pod") == 0;
	if (r->zone)
		read_hints(r, json, &e);
	e.target = name ? name : "";
	e.hostname = hostname ? hostname : "";
	e.uid = uid ? uid : "";
	if (!read_address(r, json, family, &e.address))
		return;
	if (array_grow(out->endpoints, out->n_endpoints, out->cap_endpoints))
		kube_refuse(r, "out of memory");
	else
		out->endpoints[out->n_endpoints++] = e;
}

static void read_endpoints(
	struct kube_reader *r, const json_t *json, int family, struct kube_slice *out)
{
	const json_t *endpoints = kube_array(r, json, "endpoints");
	kube_enter(r, "endpoints");
	if (json_array_size(endpoints) > SLICE_ENDPOINTS_MAX)
		kube_refuse(r, "%zu endpoints: allowed: at most %d in a slice",
			json_array_size(endpoints), SLICE_ENDPOINTS_MAX);
	for (size_t i = 0; i < json_array_size(endpoints) && i < SLICE_ENDPOINTS_MAX; i++) {
		const json_t *endpoint = json_array_get(endpoints, i);
		kube_enter_idx(r, (uint32_t)i);
		if (json_is_object(endpoint))
			read_endpoint(r, endpoint, family, out);
		else
			kube_refuse(r, "allowed: an object with addresses");
		kube_leave(r);
	}
	kube_leave(r);
}

// A port without number says that the endpoints have none: nothing to forward to, and no error.
static void read_slice_port(struct kube_reader *r, const json_t *json, struct kube_slice *out)
{
	struct kube_slice_port port = { .name = "" };
	int64_t number = 0;
	const char *name = kube_text(r, json, "name");
	kube_text(r, json, "appProtocol");
	if (kube_protocol_read(r, json, &port.protocol) || !kube_integer(r, json, "port", &number))
		return;
	if (number < 0 || number > 65535) {
		kube_refuse_at(r, "port", "%lld: allowed: 0..65535", (long long)number);
		return;
	}
	if (number == 0)
		return;
	port.name = name ? name : "";
	port.port = (uint16_t)number;
	if (array_grow(out->ports, out->n_ports, out->cap_ports))
		kube_refuse(r, "out of memory");
	else
		out->ports[out->n_ports++] = port;
}

static void read_slice_ports(struct kube_reader *r, const json_t *json, struct kube_slice *out)
{
	const json_t *ports = kube_array(r, json, "ports");
	kube_enter(r, "ports");
	if (json_array_size(ports) > SLICE_PORTS_MAX)
		kube_refuse(r, "%zu ports: allowed: at most %d in a slice", json_array_size(ports),
			SLICE_PORTS_MAX);
	for (size_t i = 0; i < json_array_size(ports) && i < SLICE_PORTS_MAX; i++) {
		const json_t *port = json_array_get(ports, i);
		kube_enter_idx(r, (uint32_t)i);
		if (json_is_object(port))
			read_slice_port(r, port, out);
		else
			kube_refuse(r, "allowed: an object with port");
		kube_leave(r);
	}
	kube_leave(r);
}

// 4, 6; 0: a type without meaning here (FQDN), or refused.
static int family_read(struct kube_reader *r, const json_t *json)
{
	char quoted[96];
	const char *type = kube_text(r, json, "addressType");
	if (type == NULL) {
		if (kube_is_absent(json, "addressType"))
			kube_refuse(r, "no addressType; allowed: IPv4, IPv6");
		return 0;
	}
	if (strcmp(type, "IPv4") == 0)
		return 4;
	if (strcmp(type, "IPv6") == 0)
		return 6;
	if (strcmp(type, "FQDN"))
		kube_refuse_at(r, "addressType", "%s: allowed: IPv4, IPv6",
			kube_quote(type, quoted, sizeof(quoted)));
	return 0;
}

void kube_slice_read(struct kube_reader *r, const json_t *json, struct kube_slice *out)
{
	const json_t *metadata = json_object_get(json, "metadata");
	const char *namespace = json_string_value(json_object_get(metadata, "namespace"));
	kube_enter(r, "metadata");
	const char *version = kube_text(r, metadata, "resourceVersion");
	const json_t *labels = kube_object(r, metadata, "labels");
	kube_enter(r, "labels");
	const char *service = kube_text(r, labels, SERVICE_LABEL);
	kube_leave(r);
	kube_leave(r);
	out->namespace = namespace ? namespace : "default";
	out->name = json_string_value(json_object_get(metadata, "name"));
	out->service = service ? service : "";
	if (version && strspn(version, "0123456789") == strlen(version) && strlen(version) < 20)
		out->resource_version = strtoull(version, NULL, 10);
	int family = family_read(r, json);
	if (family == 0)
		return;
	read_endpoints(r, json, family, out);
	read_slice_ports(r, json, out);
}

void kube_slice_fini(struct kube_slice *slice)
{
	free(slice->endpoints);
	free(slice->ports);
}
