// SPDX-License-Identifier: BSD-3-Clause
// A service and an overlay as JSON: the REST body (interfaces.md section 6) and the form kept in the state folder,
// which are one. The inverse is json_decode.c; encode then decode gives an equal service.
#include "control.h"

#include <errno.h>

static json_t *json_duration(uint64_t ns)
{
	char text[32];
	return json_string(clock_format_duration(ns, text, sizeof(text)));
}

static json_t *encode_addresses(const struct service *s)
{
	json_t *array = json_array();
	char text[ADDRESS_TEXT_LEN];
	for (uint32_t i = 0; i < s->n_addresses; i++)
		json_array_append_new(array, json_string(address_format(&s->addresses[i], text)));
	return array;
}

static json_t *encode_listeners(const struct service *s)
{
	json_t *array = json_array();
	for (uint32_t i = 0; i < s->n_listeners; i++) {
		const struct service_listener *l = &s->listeners[i];
		json_array_append_new(
			array, json_pack("{s:s, s:s, s:i, s:i}", "name", l->name, "protocol",
				       service_protocol_name(l->protocol), "port", (int)l->port,
				       "portMax", (int)l->port_max));
	}
	return array;
}

static json_t *encode_check(const struct service_check *c)
{
	json_t *check = json_object();
	json_object_set_new(check, "kind", json_string(service_check_name(c->kind)));
	if (c->path[0] != '\0')
		json_object_set_new(check, "path", json_string(c->path));
	if (c->port_name[0] != '\0')
		json_object_set_new(check, "port", json_string(c->port_name));
	else if (c->port != 0)
		json_object_set_new(check, "port", json_integer(c->port));
	json_object_set_new(check, "interval", json_duration(c->interval_ms * CLOCK_MS));
	json_object_set_new(check, "timeout", json_duration(c->timeout_ms * CLOCK_MS));
	json_object_set_new(check, "rise", json_integer(c->rise));
	json_object_set_new(check, "fall", json_integer(c->fall));
	return check;
}

static json_t *encode_backend(const struct service_backend *b)
{
	char text[ADDRESS_TEXT_LEN];
	json_t *ports = json_object();
	for (uint32_t i = 0; i < b->n_ports; i++)
		json_object_set_new(ports, b->ports[i].listener, json_integer(b->ports[i].port));
	json_t *backend = json_pack("{s:s, s:o, s:i}", "address", address_format(&b->address, text),
		"ports", ports, "weight", (int)b->weight);
	const struct service_conditions *c = &b->conditions;
	if (!c->ready || !c->serving || c->terminating)
		json_object_set_new(backend, "conditions",
			json_pack("{s:b, s:b, s:b}", "ready", c->ready, "serving", c->serving,
				"terminating", c->terminating));
	if (b->target[0] != '\0')
		json_object_set_new(backend, "target", json_string(b->target));
	return backend;
}

static json_t *encode_backends(const struct service *s)
{
	json_t *array = json_array();
	for (uint32_t i = 0; i < s->n_backends; i++)
		json_array_append_new(array, encode_backend(&s->backends[i]));
	return array;
}

static json_t *encode_source_ranges(const struct service *s)
{
	json_t *array = json_array();
	char text[ADDRESS_TEXT_LEN + 4];
	for (uint32_t i = 0; i < s->n_source_ranges; i++)
		json_array_append_new(
			array, json_string(prefix_format(&s->source_ranges[i], text)));
	return array;
}

static json_t *encode_spec(const struct service *s)
{
	json_t *spec = json_object();
	json_object_set_new(spec, "addresses", encode_addresses(s));
	json_object_set_new(spec, "listeners", encode_listeners(s));
	json_object_set_new(spec, "mode", json_string(service_mode_name(s->mode)));
	json_object_set_new(spec, "scheduler", json_string(service_scheduler_name(s->scheduler)));
	json_object_set_new(
		spec, "clientAddress", json_string(service_client_address_name(s->client_address)));
	if (s->affinity_s != 0)
		json_object_set_new(spec, "sessionAffinity",
			json_pack("{s:o}", "timeout", json_duration(s->affinity_s * CLOCK_S)));
	json_object_set_new(spec, "sourceRanges", encode_source_ranges(s));
	json_object_set_new(spec, "healthCheck", encode_check(&s->check));
	json_object_set_new(spec, "idleTimeout",
		json_pack("{s:o, s:o}", "tcp", json_duration(s->tcp_idle_s * CLOCK_S), "udp",
			json_duration(s->udp_idle_s * CLOCK_S)));
	json_object_set_new(spec, "drainTimeout", json_duration(s->drain_timeout_s * CLOCK_S));
	json_object_set_new(spec, "backends", encode_backends(s));
	return spec;
}

json_t *control_service_to_json(const struct service *s)
{
	return json_pack("{s:{s:s, s:s, s:s, s:I}, s:o}", "metadata", "namespace", s->namespace,
		"name", s->name, "managedBy", service_owner_name(s->owner), "generation",
		(json_int_t)s->generation, "spec", encode_spec(s));
}

json_t *control_overlay_to_json(const struct service_overlay *o)
{
	char text[ADDRESS_TEXT_LEN], time[32];
	json_t *overlay = json_pack("{s:s, s:s, s:s}", "namespace", o->namespace, "name", o->name,
		"address", address_format(&o->address, text));
	if (o->port != 0)
		json_object_set_new(overlay, "port", json_integer(o->port));
	if (o->draining) {
		json_object_set_new(overlay, "draining", json_true());
		json_object_set_new(overlay, "since",
			json_string(clock_rfc3339(o->since_ms, time, sizeof(time))));
		if (o->deadline_ms != 0)
			json_object_set_new(overlay, "deadline",
				json_string(clock_rfc3339(o->deadline_ms, time, sizeof(time))));
		json_object_set_new(overlay, "onDeadline",
			json_string(o->reset_on_deadline ? "reset" : "keep"));
		json_object_set_new(overlay, "reason", json_string(o->reason));
	}
	if (o->has_weight)
		json_object_set_new(overlay, "weight", json_integer(o->weight));
	return overlay;
}
