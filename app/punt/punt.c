// SPDX-License-Identifier: BSD-3-Clause
// The slow path's table of contents: twins made, learning started, hooks of control set; and all of
// it back.
#include "punt_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void twin_init(struct punt *p, struct twin *t, const struct device_port *port, uint8_t idx)
{
	static const struct mac none = { { 0 } };
	t->punt = p;
	t->fd = -1;
	t->port_idx = idx;
	t->mac = port->mac;
	t->has_mac = memcmp(&port->mac, &none, sizeof(none)) != 0;
	t->mtu = port->mtu;
	t->retry_ms = PUNT_RETRY_MIN_MS;
	snprintf(t->name, sizeof(t->name), "%s", port->twin[0] ? port->twin : port->name);
}

static int twin_check_unique(const struct punt *p, const struct twin *t, struct error *err)
{
	char path[48];
	snprintf(path, sizeof(path), "ports[%u].twin", t->port_idx);
	for (uint32_t i = 0; i < t->port_idx; i++)
		if (strcmp(p->twins[i].name, t->name) == 0)
			return error_add(err, EEXIST, path,
				"%s: also the twin of ports[%u]; each port has its own", t->name,
				i);
	return 0;
}

static void carry_on_event(evutil_socket_t fd, short what, void *arg)
{
	punt_carry(arg);
}

static void retry_on_timer(evutil_socket_t fd, short what, void *arg)
{
	twin_retry(arg);
}

static int twins_open(struct punt *p, struct error *err)
{
	const struct device *device = control_device(p->control);
	struct event_base *base = control_base(p->control);
	uint32_t n_ports = device_n_ports(device);
	for (uint32_t i = 0; i < n_ports && i < DEVICE_PORTS_MAX; i++) {
		struct twin *t = &p->twins[i];
		twin_init(p, t, device_port(device, i), (uint8_t)i);
		p->n_twins++;
		t->retry = evtimer_new(base, retry_on_timer, t);
		if (t->retry == NULL)
			return error_add(err, ENOMEM, "", "out of memory");
		int status = twin_check_unique(p, t, err);
		if (status == 0)
			status = twin_open(t, err);
		if (status != 0)
			return status;
	}
	return 0;
}

int punt_create(struct control *c, struct punt **out, struct error *err)
{
	struct punt *p = calloc(1, sizeof(*p));
	if (p == NULL)
		return error_add(err, ENOMEM, "", "out of memory");
	p->control = c;
	int status = netlink_open(&p->request, 0, true);
	if (status != 0)
		error_add(err, -status, "", "netlink socket: %s", strerror(-status));
	if (status == 0)
		status = twins_open(p, err);
	if (status != 0) {
		punt_destroy(p);
		return status;
	}
	*out = p;
	return 0;
}

int punt_start(struct punt *p, struct error *err)
{
	const struct control_nexthop_hooks hooks = { .resolve = neighbours_resolve,
		.addresses = addresses_changed };
	p->carry = event_new(control_base(p->control), -1, 0, carry_on_event, p);
	int status = p->carry == NULL ? -ENOMEM : monitor_start(p);
	if (status == 0)
		status = neighbours_start(p);
	if (status == 0)
		status = routes_start(p);
	if (status == 0)
		status = addresses_start(p);
	for (uint32_t i = 0; i < p->n_twins && status == 0; i++)
		status = twin_listen(&p->twins[i]);
	if (status != 0)
		return error_add(err, -status, "", "slow path: %s", strerror(-status));
	p->is_hooked = true;
	control_set_nexthop_hooks(p->control, &hooks, p);
	control_set_punt_hook(p->control, punt_carry, p);
	return 0;
}

void punt_destroy(struct punt *p)
{
	static const struct control_nexthop_hooks no_hooks = { 0 };
	if (p == NULL)
		return;
	if (p->is_hooked) {
		control_set_punt_hook(p->control, NULL, NULL);
		control_set_nexthop_hooks(p->control, &no_hooks, NULL);
	}
	addresses_fini(p);
	monitor_fini(p);
	routes_fini(p);
	neighbours_fini(p);
	for (uint32_t i = 0; i < p->n_twins; i++) {
		struct twin *t = &p->twins[i];
		if (t->fd >= 0 && !t->is_made) {
			addresses_remove(t);
			settings_restore(t);
		}
		twin_fini(t);
	}
	if (p->carry != NULL)
		event_free(p->carry);
	netlink_close(&p->request);
	free(p);
}
