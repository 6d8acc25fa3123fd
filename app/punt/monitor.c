// SPDX-License-Identifier: BSD-3-Clause
// What the kernel tells unasked: links, addresses, routes, neighbours. Neighbours are taken from
// the message; for the rest a message is only the reason to look again, because the kernel does not
// tell everything (IPv4 routes vanish in silence with their link or address). An overrun of the
// socket means: look at everything again.
#include "punt_priv.h"

#include <errno.h>
#include <linux/if_link.h>
#include <string.h>
#include <sys/socket.h>

static void link_moved(struct punt *p, struct twin *t, bool is_up)
{
	if (is_up != t->is_up) {
		t->is_up = is_up;
		control_note(p->control, is_up ? LOG_LEVEL_INFO : LOG_LEVEL_WARN,
			is_up ? "twin-up" : "twin-down", t->name,
			is_up ? "frames are carried again"
			      : "set down: punted frames are dropped (punt_write_failed), flows go "
				"on by what was learnt; ip link set %s up",
			t->name);
	}
	if (!is_up)
		t->is_held = true;
	addresses_check(p);
	routes_changed(p);
}

static void link_take(struct punt *p, const struct nlmsghdr *m)
{
	const struct nlattr *attrs[IFLA_ADDRESS + 1];
	if (m->nlmsg_len < MNL_NLMSG_HDRLEN + sizeof(struct ifinfomsg))
		return;
	const struct ifinfomsg *link = mnl_nlmsg_get_payload(m);
	struct twin *t = punt_twin_by_ifindex(p, (uint32_t)link->ifi_index);
	if (t == NULL || link->ifi_family != AF_UNSPEC)
		return;
	if (m->nlmsg_type == RTM_DELLINK) {
		twin_lose(t, "the device was deleted or moved away");
		return;
	}
	bool is_up = (link->ifi_flags & IFF_UP) != 0;
	if (is_up != t->is_up)
		link_moved(p, t, is_up);
	attrs_index(m, sizeof(*link), attrs, IFLA_ADDRESS);
	if (t->has_mac && attrs[IFLA_ADDRESS] &&
		mnl_attr_get_payload_len(attrs[IFLA_ADDRESS]) == 6 &&
		memcmp(mnl_attr_get_payload(attrs[IFLA_ADDRESS]), &t->mac, 6) != 0) {
		char mac[18];
		control_note(p->control, LOG_LEVEL_WARN, "twin-mac", t->name,
			"set back to the port's, %s", mac_format(&t->mac, mac));
		link_set(&p->request, t->ifindex, &t->mac, 0);
	}
}

static void address_take(struct punt *p, const struct nlmsghdr *m)
{
	if (m->nlmsg_type != RTM_DELADDR ||
		m->nlmsg_len < MNL_NLMSG_HDRLEN + sizeof(struct ifaddrmsg))
		return;
	const struct ifaddrmsg *a = mnl_nlmsg_get_payload(m);
	if (punt_twin_by_ifindex(p, a->ifa_index) == NULL)
		return;
	// Perhaps one of ours; surely routes that went with it.
	addresses_check(p);
	routes_changed(p);
}

static void route_take(struct punt *p, const struct nlmsghdr *m)
{
	if (m->nlmsg_len < MNL_NLMSG_HDRLEN + sizeof(struct rtmsg))
		return;
	const struct rtmsg *route = mnl_nlmsg_get_payload(m);
	if (route->rtm_table == RT_TABLE_MAIN && !(route->rtm_flags & RTM_F_CLONED))
		routes_changed(p);
}

static int message_take(const struct nlmsghdr *m, void *arg)
{
	struct punt *p = arg;
	switch (m->nlmsg_type) {
	case RTM_NEWLINK:
	case RTM_DELLINK:
		link_take(p, m);
		break;
	case RTM_NEWADDR:
	case RTM_DELADDR:
		address_take(p, m);
		break;
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		route_take(p, m);
		break;
	case RTM_NEWNEIGH:
	case RTM_DELNEIGH:
		neighbours_take(p, m, true);
		break;
	case RTM_NEWNEXTHOP:
	case RTM_DELNEXTHOP:
		routes_changed(p);
		break;
	default:
		break;
	}
	return MNL_CB_OK;
}

// Messages were lost: what they said is found by looking.
static void overrun(struct punt *p)
{
	p->monitor.n_overruns++;
	control_note(p->control, LOG_LEVEL_DEBUG, "netlink-overrun", "monitor",
		"messages of the kernel were lost (%llu times); looking at all again",
		(unsigned long long)p->monitor.n_overruns);
	for (uint32_t i = 0; i < p->n_twins; i++) {
		struct twin *t = &p->twins[i];
		struct link_facts link;
		int status = link_query(&p->request, t->name, &link);
		if (t->fd >= 0 && (status == -ENODEV || link.ifindex != t->ifindex))
			twin_lose(t, "the device was deleted or moved away");
		else if (t->fd >= 0 && status == 0 && link.is_up != t->is_up)
			link_moved(p, t, link.is_up);
	}
	neighbours_dump(p);
	routes_changed(p);
	addresses_check(p);
}

static void monitor_on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct punt *p = arg;
	for (uint32_t i = 0; i < PUNT_MESSAGES_PER_TURN; i++) {
		ssize_t len = mnl_socket_recvfrom(
			p->monitor.netlink.socket, p->buffer_events, sizeof(p->buffer_events));
		if (len < 0 && errno == ENOBUFS) {
			overrun(p);
			continue;
		}
		if (len < 0)
			return;
		mnl_cb_run(p->buffer_events, (size_t)len, 0, 0, message_take, p);
	}
}

int monitor_start(struct punt *p)
{
	struct monitor *monitor = &p->monitor;
	int group = RTNLGRP_NEXTHOP;
	int status = netlink_open(&monitor->netlink,
		RTMGRP_LINK | RTMGRP_NEIGH | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR |
			RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE,
		false);
	if (status != 0)
		return status;
	int fd = netlink_fd(&monitor->netlink);
	setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group));
	monitor->readable = event_new(
		control_base(p->control), fd, EV_READ | EV_PERSIST, monitor_on_readable, p);
	return monitor->readable == NULL || event_add(monitor->readable, NULL) != 0 ? -ENOMEM : 0;
}

void monitor_fini(struct punt *p)
{
	if (p->monitor.readable != NULL)
		event_free(p->monitor.readable);
	p->monitor.readable = NULL;
	netlink_close(&p->monitor.netlink);
}
