// SPDX-License-Identifier: BSD-3-Clause
// Changes of the desired state, each whole or not at all: check, store, compile and publish, keep on disk.
//
// What a snapshot cannot hold is refused before it is stored (control_check_service, check_slots), so that a change that only waits
// for its turn cannot be one that will not compile. When the compile fails all the same (memory), a change that was
// published at once is taken back out of the store; a later one stays stored, is noted and tried again (publish.c).
#include "control_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *service_label(
	const char *namespace, const char *name, char out[2 * SERVICE_NAME_MAX])
{
	snprintf(out, 2 * SERVICE_NAME_MAX, "%s/%s", namespace, name);
	return out;
}

static const char *backend_label(
	const struct service_overlay *o, char out[2 * SERVICE_NAME_MAX + ADDRESS_TEXT_LEN + 16])
{
	char text[ADDRESS_TEXT_LEN + 10];
	if (o->port != 0)
		endpoint_format(&o->address, o->port, text, sizeof(text));
	else
		address_format(&o->address, text);
	snprintf(out, 2 * SERVICE_NAME_MAX + ADDRESS_TEXT_LEN + 16, "%s/%s %s", o->namespace,
		o->name, text);
	return out;
}

// One policy per pair of idle timeouts; their number is bounded by the flow record.
static bool policy_fits(const struct control *c, const struct service *service)
{
	const struct snapshot *s = c->published;
	if (s == NULL || s->n_policies < SNAPSHOT_POLICIES_MAX)
		return true;
	for (uint32_t i = 0; i < s->n_policies; i++) {
		if (s->policies[i].tcp_idle_s == service->tcp_idle_s &&
			s->policies[i].udp_idle_s == service->udp_idle_s)
			return true;
	}
	return false;
}

// Addresses of a service that have no slot yet: its VIPs, and its backends where they are dnat. Written to out unless that is
// NULL.
static uint32_t new_addresses(
	const struct control *c, const struct service *service, struct address *out)
{
	uint32_t n_backends = service->mode == SERVICE_MODE_DNAT ? service->n_backends : 0, n = 0;
	for (uint32_t i = 0; i < service->n_addresses + n_backends; i++) {
		const struct address *a =
			i < service->n_addresses
				? &service->addresses[i]
				: &service->backends[i - service->n_addresses].address;
		if (snapshot_registry_has_slot(c->registry, a))
			continue;
		if (out != NULL)
			out[n] = *a;
		n++;
	}
	return n;
}

static int compare_addresses(const void *a, const void *b)
{
	return address_compare(a, b);
}

// Do services that come together find slots? Counted once for each address, and only when a rough count says that it is close.
static int check_slots(
	const struct control *c, struct service *const *services, uint32_t n, struct error *err)
{
	uint64_t n_new = 0;
	uint32_t n_free = snapshot_registry_free_slots(c->registry), n_found = 0, n_distinct = 0;
	for (uint32_t i = 0; i < n; i++)
		n_new += new_addresses(c, services[i], NULL);
	if (n_new <= n_free)
		return 0;
	struct address *found = calloc(n_new, sizeof(*found));
	if (found == NULL)
		return error_add(err, ENOMEM, "", "out of memory");
	for (uint32_t i = 0; i < n; i++)
		n_found += new_addresses(c, services[i], found + n_found);
	qsort(found, n_found, sizeof(*found), compare_addresses);
	for (uint32_t i = 0; i < n_found; i++)
		n_distinct += i == 0 || !address_equal(&found[i], &found[i - 1]);
	free(found);
	if (n_distinct <= n_free)
		return 0;
	return error_add(err, EINVAL, n == 1 ? "/spec/addresses" : "addresses",
		"%u more addresses than are known already (VIPs, and backends in mode dnat); "
		"allowed: "
		"%u (of %u VIPs, SNAT addresses and dnat backends in all, one that is gone counts "
		"until its flows are gone)",
		n_distinct, n_free, SNAPSHOT_SLOTS_MAX);
}

int control_check_service(const struct control *c, const struct service *service, struct error *err)
{
	int rc = 0;
	for (uint32_t i = 0; i < service->n_addresses; i++) {
		for (uint32_t k = 0; k < c->config.n_snat; k++) {
			char path[48], text[ADDRESS_TEXT_LEN];
			if (!address_equal(&service->addresses[i], &c->config.snat[k]))
				continue;
			snprintf(path, sizeof(path), "/spec/addresses/%u", i);
			rc = error_add(err, EINVAL, path,
				"%s is a SNAT address (snat.addresses), not free for a service",
				address_format(&service->addresses[i], text));
		}
	}
	if (!policy_fits(c, service))
		rc = error_add(err, EINVAL, "/spec/idleTimeout",
			"%u different pairs of idle timeouts are in use already, and that is all "
			"there can be",
			SNAPSHOT_POLICIES_MAX);
	return rc;
}

// ---------------------------------------------------------------- services
// Takes a change of one service back: the former one in, or the new one out.
static void restore_service(
	struct control *c, const struct service *service, const struct service *former)
{
	if (former != NULL)
		service_store_put(c->store, former, NULL, NULL);
	else
		service_store_remove(
			c->store, service->namespace, service->name, service->owner, NULL);
}

static void note_change(struct control *c, const struct service *service, const char *what)
{
	char label[2 * SERVICE_NAME_MAX];
	control_note(c, LOG_LEVEL_INFO, "service-changed",
		service_label(service->namespace, service->name, label),
		"%s: %u addresses, %u listeners, %u backends (%s)", what, service->n_addresses,
		service->n_listeners, service->n_backends, service_owner_name(service->owner));
}

int control_put_service(
	struct control *c, const struct service *service, bool *out_changed, struct error *err)
{
	int rc = control_check_service(c, service, err);
	if (rc == 0)
		rc = check_slots(
			c, (struct service *[]){ (struct service *)(uintptr_t)service }, 1, err);
	if (rc != 0)
		return rc;
	const struct service *before =
		service_store_find(c->store, service->namespace, service->name);
	struct service *former = before != NULL ? service_clone(before) : NULL;
	if (before != NULL && former == NULL)
		return error_add(err, ENOMEM, "", "out of memory");
	bool changed = false;
	rc = service_store_put(c->store, service, &changed, err);
	if (rc == 0 && changed) {
		rc = control_change(c, CONTROL_WORK_PART, err);
		if (rc != 0)
			restore_service(c, service, former);
	}
	if (rc == 0 && changed) {
		control_state_dirty(c, service->owner == SERVICE_OWNER_API, false);
		note_change(c, service, former != NULL ? "replaced" : "created");
	}
	if (rc == 0 && out_changed != NULL)
		*out_changed = changed;
	service_destroy(former);
	return rc;
}

int control_remove_service(struct control *c, const char *namespace, const char *name,
	enum service_owner owner, struct error *err)
{
	const struct service *before = service_store_find(c->store, namespace, name);
	struct service *former = before != NULL ? service_clone(before) : NULL;
	if (before != NULL && former == NULL)
		return error_add(err, ENOMEM, "", "out of memory");
	int rc = service_store_remove(c->store, namespace, name, owner, err);
	if (rc == 0) {
		rc = control_change(c, CONTROL_WORK_PART, err);
		if (rc != 0)
			service_store_put(c->store, former, NULL, NULL);
	}
	if (rc == 0) {
		control_state_dirty(c, owner == SERVICE_OWNER_API, false);
		note_change(c, former, "removed");
	}
	service_destroy(former);
	return rc;
}

static void destroy_services(struct service **services, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		service_destroy(services[i]);
	free(services);
}

// Copies of all services of an owner. NULL: out of memory.
static struct service **clone_owner(
	const struct control *c, enum service_owner owner, uint32_t *out_n)
{
	uint32_t n = 0, n_all = service_store_count(c->store);
	struct service **services = calloc(n_all + 1, sizeof(struct service *));
	if (services == NULL)
		return NULL;
	for (uint32_t i = 0; i < n_all; i++) {
		const struct service *s = service_store_at(c->store, i);
		if (s->owner != owner)
			continue;
		services[n] = service_clone(s);
		if (services[n] == NULL) {
			destroy_services(services, n);
			return NULL;
		}
		n++;
	}
	*out_n = n;
	return services;
}

static int check_all(
	const struct control *c, struct service *const *services, uint32_t n, struct error *err)
{
	int rc = check_slots(c, services, n, err);
	for (uint32_t i = 0; i < n; i++) {
		struct error found = { 0 };
		char label[2 * SERVICE_NAME_MAX];
		int one = control_check_service(c, services[i], &found);
		if (one != 0) {
			rc = one;
			error_merge(err, &found,
				service_label(services[i]->namespace, services[i]->name, label));
		}
		error_fini(&found);
	}
	return rc;
}

int control_replace_owner(struct control *c, enum service_owner owner,
	struct service *const *services, uint32_t n_services, uint32_t *out_n_changed,
	struct error *err)
{
	uint32_t n_former = 0, n_changed = 0;
	int rc = check_all(c, services, n_services, err);
	if (rc != 0)
		return rc;
	struct service **former = clone_owner(c, owner, &n_former);
	if (former == NULL)
		return error_add(err, ENOMEM, "", "out of memory");
	rc = service_store_replace_owner(c->store, owner, services, n_services, &n_changed, err);
	if (rc == 0 && n_changed > 0) {
		rc = control_change(c, CONTROL_WORK_BUILD, err);
		if (rc != 0)
			service_store_replace_owner(c->store, owner, former, n_former, NULL, NULL);
	}
	if (rc == 0 && n_changed > 0) {
		control_state_dirty(c, owner == SERVICE_OWNER_API, false);
		control_note(c, LOG_LEVEL_INFO, "services-changed", service_owner_name(owner),
			"%u services, %u changed", n_services, n_changed);
	}
	if (rc == 0 && out_n_changed != NULL)
		*out_n_changed = n_changed;
	destroy_services(former, n_former);
	return rc;
}

// ---------------------------------------------------------------- overlay
// A backend as the overlay names it: any port, or one it has.
static bool backend_exists(const struct service *s, const struct address *address, uint16_t port)
{
	for (uint32_t i = 0; i < s->n_backends; i++) {
		const struct service_backend *b = &s->backends[i];
		if (!address_equal(&b->address, address))
			continue;
		if (port == 0)
			return true;
		for (uint32_t k = 0; k < b->n_ports; k++) {
			if (b->ports[k].port == port)
				return true;
		}
	}
	return false;
}

// The entry of exactly (address, port), or NULL.
static const struct service_overlay *find_exact(const struct control *c, const char *namespace,
	const char *name, const struct address *address, uint16_t port)
{
	const struct service_overlay *o =
		service_store_find_overlay(c->store, namespace, name, address, port);
	return o != NULL && o->port == port ? o : NULL;
}

static void note_overlay(struct control *c, const struct service_overlay *o, const char *kind)
{
	char label[2 * SERVICE_NAME_MAX + ADDRESS_TEXT_LEN + 16];
	if (o->draining)
		control_note(c, LOG_LEVEL_INFO, kind, backend_label(o, label), "%s",
			o->reason[0] != '\0' ? o->reason : "by operator");
	else if (o->has_weight)
		control_note(
			c, LOG_LEVEL_INFO, kind, backend_label(o, label), "weight %u", o->weight);
	else
		control_note(c, LOG_LEVEL_INFO, kind, backend_label(o, label), "taken back");
}

// Puts or removes (o == NULL) the entry and publishes; takes it back when that fails.
static int change_overlay(struct control *c, const struct service_overlay *key,
	const struct service_overlay *o, struct error *err)
{
	const struct service_overlay *before =
		find_exact(c, key->namespace, key->name, &key->address, key->port);
	struct service_overlay former = before != NULL ? *before : *key;
	bool had = before != NULL;
	int rc = o != NULL ? service_store_put_overlay(c->store, o)
			   : service_store_remove_overlay(
				     c->store, key->namespace, key->name, &key->address, key->port);
	if (rc != 0)
		return error_add(err, -rc, "", "%s",
			rc == -ENOENT ? "no such drain or weight" : strerror(-rc));
	rc = control_change(c, CONTROL_WORK_PART, err);
	if (rc == 0) {
		control_remember_service(c, key->namespace, key->name);
		control_state_dirty(c, false, true);
		return 0;
	}
	if (had)
		service_store_put_overlay(c->store, &former);
	else
		service_store_remove_overlay(
			c->store, former.namespace, former.name, &former.address, former.port);
	return rc;
}

int control_put_overlay(struct control *c, const struct service_overlay *overlay, struct error *err)
{
	char label[2 * SERVICE_NAME_MAX], text[ADDRESS_TEXT_LEN];
	const struct service *s = service_store_find(c->store, overlay->namespace, overlay->name);
	if (s == NULL)
		return error_add(err, ENOENT, "", "no service %s",
			service_label(overlay->namespace, overlay->name, label));
	if (!backend_exists(s, &overlay->address, overlay->port))
		return error_add(err, ENOENT, "", "service %s has no backend %s with this port",
			service_label(overlay->namespace, overlay->name, label),
			address_format(&overlay->address, text));
	if (overlay->has_weight && overlay->weight > SERVICE_WEIGHT_MAX)
		return error_add(err, EINVAL, "/weight", "%u not in 0..%u", overlay->weight,
			SERVICE_WEIGHT_MAX);
	struct service_overlay o = *overlay;
	if (o.draining && o.since_ms == 0)
		o.since_ms = clock_wall_ms();
	int rc = change_overlay(c, &o, &o, err);
	if (rc == 0)
		note_overlay(c, &o, o.draining ? "drain" : "weight");
	return rc;
}

int control_remove_overlay(struct control *c, const char *namespace, const char *name,
	const struct address *address, uint16_t port, struct error *err)
{
	struct service_overlay key = { .address = *address, .port = port };
	snprintf(key.namespace, sizeof(key.namespace), "%s", namespace);
	snprintf(key.name, sizeof(key.name), "%s", name);
	int rc = change_overlay(c, &key, NULL, err);
	if (rc == 0)
		note_overlay(c, &key, "undrain");
	return rc;
}

int control_clear_overlay(struct control *c, const char *namespace, const char *name,
	const struct address *address, uint16_t port, char which, struct error *err)
{
	const struct service_overlay *before = find_exact(c, namespace, name, address, port);
	if (before == NULL || (which == 'd' && !before->draining) ||
		(which == 'w' && !before->has_weight))
		return error_add(err, ENOENT, "", "no such drain or weight");
	struct service_overlay o = *before;
	if (which == 'd') {
		o.draining = false;
		o.since_ms = o.deadline_ms = 0;
		o.reset_on_deadline = false;
		o.reason[0] = '\0';
	} else {
		o.has_weight = false;
		o.weight = 0;
	}
	int rc = change_overlay(c, &o, o.draining || o.has_weight ? &o : NULL, err);
	if (rc == 0) {
		o.draining = o.has_weight = false;
		note_overlay(c, &o, which == 'd' ? "undrain" : "weight");
	}
	return rc;
}

// ---------------------------------------------------------------- drain deadlines
static bool purge_backend(void *arg, const struct control_backend_status *status)
{
	void **args = arg;
	struct control *c = args[0];
	const struct service_overlay *o = args[1];
	if (address_equal(&status->backend->address, &o->address) &&
		(o->port == 0 || o->port == status->port))
		control_purge(c, status->backend_id);
	return true;
}

// The drain goes on after its deadline; what is left of its flows is cut when the operator asked for that. Once: the
// deadline is cleared.
void control_deadlines_tick(struct control *c)
{
	int64_t now = clock_wall_ms();
	for (uint32_t i = 0; i < service_store_overlay_count(c->store); i++) {
		struct service_overlay o = *service_store_overlay_at(c->store, i);
		if (!o.draining || o.deadline_ms == 0 || o.deadline_ms > now)
			continue;
		char label[2 * SERVICE_NAME_MAX + ADDRESS_TEXT_LEN + 16];
		control_note(c, LOG_LEVEL_INFO, "drain-deadline", backend_label(&o, label),
			o.reset_on_deadline ? "flows left over are removed"
					    : "flows left over are kept");
		const struct service *s = service_store_find(c->store, o.namespace, o.name);
		if (o.reset_on_deadline && s != NULL)
			control_each_backend(c, s, purge_backend, (void *[]){ c, &o });
		o.deadline_ms = 0;
		service_store_put_overlay(c->store, &o);
		control_state_dirty(c, false, true);
	}
}
