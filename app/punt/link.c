// SPDX-License-Identifier: BSD-3-Clause
// What a twin's device is like in the kernel, and how it is made so.
#include "punt_priv.h"

#include <errno.h>
#include <linux/if_link.h>
#include <string.h>

#define TUN_TYPE_TAP 2 // IFF_TAP, as IFLA_TUN_TYPE tells it

static void link_take_kind(const struct nlattr *nest, struct link_facts *out)
{
	const struct nlattr *kind[IFLA_INFO_MAX + 1], *tun[IFLA_TUN_MAX + 1];
	attrs_index_nested(nest, kind, IFLA_INFO_MAX);
	if (kind[IFLA_INFO_KIND] == NULL || kind[IFLA_INFO_DATA] == NULL ||
		strncmp(mnl_attr_get_str(kind[IFLA_INFO_KIND]), "tun",
			mnl_attr_get_payload_len(kind[IFLA_INFO_KIND])) != 0)
		return;
	attrs_index_nested(kind[IFLA_INFO_DATA], tun, IFLA_TUN_MAX);
	out->is_tap = tun[IFLA_TUN_TYPE] && mnl_attr_get_u8(tun[IFLA_TUN_TYPE]) == TUN_TYPE_TAP;
	out->is_multi_queue =
		tun[IFLA_TUN_MULTI_QUEUE] && mnl_attr_get_u8(tun[IFLA_TUN_MULTI_QUEUE]) != 0;
}

static int link_visit(const struct nlmsghdr *m, void *arg)
{
	struct link_facts *out = arg;
	const struct nlattr *attrs[IFLA_IFALIAS + 1];
	if (m->nlmsg_type != RTM_NEWLINK)
		return MNL_CB_OK;
	attrs_index(m, sizeof(struct ifinfomsg), attrs, IFLA_IFALIAS);
	const struct ifinfomsg *link = mnl_nlmsg_get_payload(m);
	out->ifindex = (uint32_t)link->ifi_index;
	out->is_up = (link->ifi_flags & IFF_UP) != 0;
	if (attrs[IFLA_MTU])
		out->mtu = mnl_attr_get_u32(attrs[IFLA_MTU]);
	if (attrs[IFLA_ADDRESS] && mnl_attr_get_payload_len(attrs[IFLA_ADDRESS]) == 6)
		memcpy(out->mac.bytes, mnl_attr_get_payload(attrs[IFLA_ADDRESS]), 6);
	if (attrs[IFLA_IFALIAS])
		out->is_ours = strncmp(mnl_attr_get_str(attrs[IFLA_IFALIAS]), PUNT_ALIAS,
				       mnl_attr_get_payload_len(attrs[IFLA_IFALIAS])) == 0;
	if (attrs[IFLA_LINKINFO])
		link_take_kind(attrs[IFLA_LINKINFO], out);
	return MNL_CB_OK;
}

int link_query(struct netlink *n, const char *name, struct link_facts *out)
{
	uint8_t buf[NETLINK_BUFFER_BYTES];
	struct nlmsghdr *m = netlink_message(n, buf, RTM_GETLINK, NLM_F_ACK);
	mnl_nlmsg_put_extra_header(m, sizeof(struct ifinfomsg));
	mnl_attr_put_strz(m, IFLA_IFNAME, name);
	memset(out, 0, sizeof(*out));
	int status = netlink_collect(n, m, link_visit, out);
	return status == 0 && out->ifindex == 0 ? -ENODEV : status;
}

static struct nlmsghdr *link_change(
	struct netlink *n, void *buf, uint32_t ifindex, struct ifinfomsg **out)
{
	struct nlmsghdr *m = netlink_message(n, buf, RTM_NEWLINK, 0);
	*out = mnl_nlmsg_put_extra_header(m, sizeof(struct ifinfomsg));
	(*out)->ifi_index = (int)ifindex;
	return m;
}

int link_set(struct netlink *n, uint32_t ifindex, const struct mac *mac, uint32_t mtu)
{
	uint8_t buf[NETLINK_BUFFER_BYTES];
	struct ifinfomsg *link;
	struct nlmsghdr *m = link_change(n, buf, ifindex, &link);
	if (mac != NULL)
		mnl_attr_put(m, IFLA_ADDRESS, sizeof(*mac), mac);
	if (mtu != 0)
		mnl_attr_put_u32(m, IFLA_MTU, mtu);
	return mac == NULL && mtu == 0 ? 0 : netlink_ask(n, m);
}

int link_set_alias(struct netlink *n, uint32_t ifindex, const char *alias)
{
	uint8_t buf[NETLINK_BUFFER_BYTES];
	struct ifinfomsg *link;
	struct nlmsghdr *m = link_change(n, buf, ifindex, &link);
	mnl_attr_put_str(m, IFLA_IFALIAS, alias);
	return netlink_ask(n, m);
}

int link_set_up(struct netlink *n, uint32_t ifindex)
{
	uint8_t buf[NETLINK_BUFFER_BYTES];
	struct ifinfomsg *link;
	struct nlmsghdr *m = link_change(n, buf, ifindex, &link);
	link->ifi_flags = IFF_UP;
	link->ifi_change = IFF_UP;
	return netlink_ask(n, m);
}
