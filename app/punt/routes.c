// SPDX-License-Identifier: BSD-3-Clause
// Routes over twins, as the kernel's main table has them, handed to control as a whole whenever
// they changed.
//
// No route is followed by itself: every hint leads to one dump (soon, several hints to one). That
// costs about 1 us a route and is right whatever the kernel left unsaid. Taken: unicast over a twin
// (of a multipath route the first usable hop over one), and blackhole, unreachable and prohibit,
// which forbid what a shorter prefix would allow. Not taken: link-local prefixes (they say nothing
// about which twin), routes by type of service or source.
//
// While a twin is lost or down the kernel drops its routes; ours are held until it is up and has a
// route again.
#include "punt_priv.h"

#include <errno.h>
#include <linux/if_link.h>
#include <stdlib.h>
#include <string.h>

struct hop {
	uint32_t ifindex;
	struct address gateway; // unspecified: on-link
	uint8_t flags;
};

static struct nlmsghdr *routes_request(void *arg, void *buf)
{
	struct punt *p = arg;
	struct nlmsghdr *m = netlink_message(&p->routes.dump.netlink, buf, RTM_GETROUTE, 0);
	struct rtmsg *route = mnl_nlmsg_put_extra_header(m, sizeof(*route));
	route->rtm_family = AF_UNSPEC;
	return m;
}

static bool gateway_take(
	const struct nlattr *gateway, const struct nlattr *via, uint8_t family, struct address *out)
{
	memset(out, 0, sizeof(*out));
	if (gateway != NULL)
		return address_from_attr(gateway, family, out);
	if (via == NULL)
		return true;
	// An IPv4 route by way of an IPv6 neighbour, or the other way round.
	const struct rtvia *rtvia = mnl_attr_get_payload(via);
	uint16_t len = mnl_attr_get_payload_len(via);
	if (len == sizeof(*rtvia) + 4 && rtvia->rtvia_family == AF_INET) {
		rte_be32_t v4;
		memcpy(&v4, rtvia->rtvia_addr, 4);
		*out = address_from_v4(v4);
		return true;
	}
	if (len == sizeof(*rtvia) + 16 && rtvia->rtvia_family == AF_INET6) {
		memcpy(out->bytes, rtvia->rtvia_addr, 16);
		return true;
	}
	return false;
}

struct hop_attrs {
	const struct nlattr *gateway;
	const struct nlattr *via;
};

static int hop_attr_visit(const struct nlattr *attr, void *arg)
{
	struct hop_attrs *attrs = arg;
	if (mnl_attr_get_type(attr) == RTA_GATEWAY)
		attrs->gateway = attr;
	else if (mnl_attr_get_type(attr) == RTA_VIA)
		attrs->via = attr;
	return MNL_CB_OK;
}

static bool hop_is_usable(struct punt *p, const struct hop *hop)
{
	return !(hop->flags & RTNH_F_DEAD) && punt_twin_by_ifindex(p, hop->ifindex) != NULL;
}

// First usable hop of a multipath route.
static bool multipath_take(
	struct punt *p, const struct nlattr *multipath, uint8_t family, struct hop *out)
{
	const uint8_t *at = mnl_attr_get_payload(multipath);
	size_t left = mnl_attr_get_payload_len(multipath);
	while (left >= sizeof(struct rtnexthop)) {
		const struct rtnexthop *nh = (const void *)at;
		struct hop_attrs attrs = { 0 };
		struct hop hop = { .ifindex = (uint32_t)nh->rtnh_ifindex, .flags = nh->rtnh_flags };
		if (nh->rtnh_len < sizeof(*nh) || nh->rtnh_len > left)
			return false;
		mnl_attr_parse_payload(
			RTNH_DATA(nh), nh->rtnh_len - sizeof(*nh), hop_attr_visit, &attrs);
		if (hop_is_usable(p, &hop) &&
			gateway_take(attrs.gateway, attrs.via, family, &hop.gateway)) {
			*out = hop;
			return true;
		}
		size_t step = RTNH_ALIGN(nh->rtnh_len);
		if (step >= left)
			return false;
		at += step;
		left -= step;
	}
	return false;
}

static bool hop_take(
	struct punt *p, const struct rtmsg *route, const struct nlattr **attrs, struct hop *out)
{
	if (attrs[RTA_MULTIPATH] != NULL)
		return multipath_take(p, attrs[RTA_MULTIPATH], route->rtm_family, out);
	memset(out, 0, sizeof(*out));
	out->flags = (uint8_t)route->rtm_flags;
	if (attrs[RTA_OIF] != NULL)
		out->ifindex = mnl_attr_get_u32(attrs[RTA_OIF]);
	return hop_is_usable(p, out) &&
	       gateway_take(attrs[RTA_GATEWAY], attrs[RTA_VIA], route->rtm_family, &out->gateway);
}

static bool prefix_take(const struct rtmsg *route, const struct nlattr *dst, struct prefix *out)
{
	memset(out, 0, sizeof(*out));
	out->len = route->rtm_dst_len;
	if (route->rtm_dst_len > (route->rtm_family == AF_INET ? 32 : 128))
		return false;
	if (dst != NULL)
		return address_from_attr(dst, route->rtm_family, &out->address);
	if (route->rtm_family == AF_INET)
		out->address = address_from_v4(0);
	return route->rtm_dst_len == 0;
}

// fe80::/10 and ff00::/8 are on every link.
static bool prefix_is_local(const struct prefix *prefix)
{
	const uint8_t *bytes = prefix->address.bytes;
	return !address_is_v4(&prefix->address) && prefix->len >= 8 &&
	       (bytes[0] == 0xff || (bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80));
}

static bool route_is_negative(const struct rtmsg *route)
{
	return route->rtm_type == RTN_BLACKHOLE || route->rtm_type == RTN_UNREACHABLE ||
	       route->rtm_type == RTN_PROHIBIT;
}

// False: not one for us.
static bool route_take(struct punt *p, const struct nlmsghdr *m, struct control_route *out)
{
	const struct nlattr *attrs[RTA_MAX + 1];
	struct hop hop;
	memset(out, 0, sizeof(*out)); // compared bytewise later
	attrs_index(m, sizeof(struct rtmsg), attrs, RTA_MAX);
	const struct rtmsg *route = mnl_nlmsg_get_payload(m);
	if ((route->rtm_family != AF_INET && route->rtm_family != AF_INET6) ||
		route->rtm_table != RT_TABLE_MAIN || (route->rtm_flags & RTM_F_CLONED) ||
		route->rtm_src_len != 0 || route->rtm_tos != 0)
		return false;
	if (!prefix_take(route, attrs[RTA_DST], &out->prefix) || prefix_is_local(&out->prefix))
		return false;
	if (attrs[RTA_PRIORITY] != NULL)
		out->metric = mnl_attr_get_u32(attrs[RTA_PRIORITY]);
	if (route_is_negative(route)) {
		out->port_idx = CONTROL_ROUTE_NOWHERE;
		// The kernel's own reject entries of IPv6 stand at the end of its table.
		return out->metric != UINT32_MAX;
	}
	if (route->rtm_type != RTN_UNICAST || !hop_take(p, route, attrs, &hop))
		return false;
	out->gateway = hop.gateway;
	out->port_idx = punt_twin_by_ifindex(p, hop.ifindex)->port_idx;
	return true;
}

static void route_keep(struct routes *routes, const struct control_route *route)
{
	if (routes->n_found >= PUNT_ROUTES_MAX ||
		array_grow(routes->found, routes->n_found, routes->found_cap) != 0) {
		routes->is_truncated = true;
		return;
	}
	routes->found[routes->n_found++] = *route;
}

static int routes_visit(const struct nlmsghdr *m, void *arg)
{
	struct punt *p = arg;
	struct control_route route;
	if (m->nlmsg_type == RTM_NEWROUTE &&
		m->nlmsg_len >= MNL_NLMSG_HDRLEN + sizeof(struct rtmsg) && route_take(p, m, &route))
		route_keep(&p->routes, &route);
	return MNL_CB_OK;
}

// ---------------------------------------------------------------- twins that are away

// Is the device away at this moment? Asked after the dump: the kernel marks a link down before it
// drops its routes.
static bool twin_is_away(struct punt *p, struct twin *t)
{
	struct link_facts link;
	return t->fd < 0 || link_query(&p->request, t->name, &link) != 0 ||
	       link.ifindex != t->ifindex || !link.is_up;
}

static bool has_route_over(const struct routes *routes, uint8_t port_idx)
{
	for (uint32_t i = 0; i < routes->n_found; i++)
		if (routes->found[i].port_idx == port_idx)
			return true;
	return false;
}

static void hold_routes(struct punt *p, struct twin *t)
{
	struct routes *routes = &p->routes;
	if (twin_is_away(p, t)) {
		t->is_held = true;
	} else if (t->is_held && has_route_over(routes, t->port_idx)) {
		t->is_held = false;
		neighbours_dump(p);
	}
	if (!t->is_held)
		return;
	uint32_t n_kept = 0;
	for (uint32_t i = 0; i < routes->n_found; i++)
		if (routes->found[i].port_idx != t->port_idx)
			routes->found[n_kept++] = routes->found[i];
	routes->n_found = n_kept;
	for (uint32_t i = 0; i < routes->n_now; i++)
		if (routes->now[i].port_idx == t->port_idx)
			route_keep(routes, &routes->now[i]);
}

static int route_compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct control_route));
}

static void routes_publish(struct punt *p)
{
	struct routes *routes = &p->routes;
	struct control_route *former = routes->now;
	routes->now = routes->found;
	routes->n_now = routes->n_found;
	routes->found = former;
	// Its room is not known any more once swapped: give it back.
	free(routes->found);
	routes->found = NULL;
	routes->found_cap = 0;
	control_set_routes(p->control, routes->now, routes->n_now);
}

static void routes_done(void *arg, bool is_whole)
{
	struct punt *p = arg;
	struct routes *routes = &p->routes;
	if (is_whole) {
		for (uint32_t i = 0; i < p->n_twins; i++)
			hold_routes(p, &p->twins[i]);
		if (routes->n_found > 0)
			qsort(routes->found, routes->n_found, sizeof(*routes->found),
				route_compare);
		if (routes->n_found != routes->n_now || !routes->is_known ||
			(routes->n_now > 0 && memcmp(routes->found, routes->now,
						      routes->n_now * sizeof(*routes->now)) != 0))
			routes_publish(p);
		routes->is_known = true;
	}
	if (routes->is_truncated && !routes->is_truncated_noted)
		control_note(p->control, LOG_LEVEL_ERROR, "routes-truncated", "main table",
			"more than %d routes over twins: the rest is not used", PUNT_ROUTES_MAX);
	routes->is_truncated_noted |= routes->is_truncated;
	routes->is_truncated = false;
	routes->n_found = 0;
}

void routes_changed(struct punt *p)
{
	if (p->routes.dump.timer != NULL)
		dump_again(&p->routes.dump);
}

int routes_start(struct punt *p)
{
	struct dump *dump = &p->routes.dump;
	dump->request = routes_request;
	dump->visit = routes_visit;
	dump->done = routes_done;
	dump->arg = p;
	int status = dump_init(dump, control_base(p->control));
	if (status == 0)
		dump_again(dump);
	return status;
}

void routes_fini(struct punt *p)
{
	dump_fini(&p->routes.dump);
	free(p->routes.found);
	free(p->routes.now);
	memset(&p->routes, 0, sizeof(p->routes));
}
