// SPDX-License-Identifier: BSD-3-Clause
// What no file below /proc and /sys tells: who answers on the admin socket, addresses of the host,
// nft ingress chains, and whether the far end of a veth leaves checksums to an offload (often in
// another namespace).
//
// This file breaks the rule that lib/ opens no sockets: `sluiced` and `sluicectl doctor` both need
// it, and neither may include the other. The checks themselves stay pure; nothing here decides
// anything. Every wait is bounded, every failure leaves its field unknown.
#include "preflight_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/ethtool.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/net_namespace.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define NETNS_DIR       "/run/netns"
#define NETNS_MAX       1024 // named namespaces that are looked at
#define REPLY_BYTES     32768
#define REPLIES_MAX     256
#define NETLINK_WAIT_MS 500

// ---------------------------------------------------------------- who are we

static void gather_identity(struct preflight_input *input)
{
	char line[256];
	input->uid = (uint32_t)geteuid();
	FILE *file = fopen("/proc/self/status", "re");
	if (file == NULL)
		return;
	while (fgets(line, sizeof(line), file) != NULL)
		if (strncmp(line, "CapEff:", 7) == 0)
			input->capabilities = strtoull(line + 7, NULL, 16);
	fclose(file);
	const char *ssh = getenv("SSH_CONNECTION");
	if (ssh != NULL)
		snprintf(input->ssh_client, sizeof(input->ssh_client), "%.*s",
			(int)strcspn(ssh, " "), ssh);
}

static void gather_running(struct preflight_input *input)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	struct ucred peer;
	socklen_t len = sizeof(peer);
	if (input->socket_path == NULL || strlen(input->socket_path) >= sizeof(to.sun_path))
		return;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	strcpy(to.sun_path, input->socket_path);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 &&
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0)
		input->running_pid = (int32_t)peer.pid;
	close(fd);
}

static uint8_t mask_len(const struct sockaddr *mask)
{
	const uint8_t *bytes;
	size_t n;
	uint8_t len = 0;
	if (mask->sa_family == AF_INET) {
		bytes = (const uint8_t *)&((const struct sockaddr_in *)(const void *)mask)
				->sin_addr;
		n = 4;
	} else {
		bytes = (const uint8_t *)&((const struct sockaddr_in6 *)(const void *)mask)
				->sin6_addr;
		n = 16;
	}
	for (size_t i = 0; i < n; i++)
		len = (uint8_t)(len + __builtin_popcount(bytes[i]));
	return len;
}

static void gather_addresses(
	struct preflight_input *input, struct preflight_host_address *addresses)
{
	struct ifaddrs *list;
	if (getifaddrs(&list) != 0)
		return;
	for (const struct ifaddrs *i = list; i && input->n_addresses < PREFLIGHT_ADDRESSES_MAX;
		i = i->ifa_next) {
		struct preflight_host_address *out = &addresses[input->n_addresses];
		if (i->ifa_addr == NULL || i->ifa_netmask == NULL)
			continue;
		if (i->ifa_addr->sa_family == AF_INET)
			out->address = address_from_v4(
				((struct sockaddr_in *)(void *)i->ifa_addr)->sin_addr.s_addr);
		else if (i->ifa_addr->sa_family == AF_INET6)
			memcpy(out->address.bytes,
				&((struct sockaddr_in6 *)(void *)i->ifa_addr)->sin6_addr, 16);
		else
			continue;
		out->prefix_len = mask_len(i->ifa_netmask);
		snprintf(out->ifname, sizeof(out->ifname), "%.15s", i->ifa_name);
		input->n_addresses++;
	}
	freeifaddrs(list);
	input->addresses = addresses;
}

// ---------------------------------------------------------------- netlink

// Sends one request and calls fn for every answer until done, an error, or silence. 0 or -errno.
static int netlink_ask(int protocol, struct nlmsghdr *request,
	void (*fn)(const struct nlmsghdr *reply, void *arg), void *arg)
{
	static const struct timeval wait = { .tv_usec = NETLINK_WAIT_MS * 1000 };
	int status = -ENOMEM;
	char *buf = malloc(REPLY_BYTES);
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
	if (buf == NULL || fd < 0)
		goto out;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	status = -EIO;
	if (send(fd, request, request->nlmsg_len, 0) < 0)
		goto out;
	for (uint32_t i = 0; i < REPLIES_MAX && status == -EIO; i++) {
		ssize_t n = recv(fd, buf, REPLY_BYTES, 0);
		if (n <= 0)
			break;
		uint32_t left = (uint32_t)n;
		for (struct nlmsghdr *m = (void *)buf; NLMSG_OK(m, left) && status == -EIO;
			m = NLMSG_NEXT(m, left)) {
			if (m->nlmsg_type == NLMSG_DONE)
				status = 0;
			else if (m->nlmsg_type == NLMSG_ERROR)
				status = ((struct nlmsgerr *)NLMSG_DATA(m))->error;
			else
				fn(m, arg);
			if (!(m->nlmsg_flags & NLM_F_MULTI) && status == -EIO)
				status = 0;
		}
	}
out:
	if (fd >= 0)
		close(fd);
	free(buf);
	return status;
}

static const struct nlattr *attr_find(const void *attrs, size_t len, uint16_t type, size_t *out_len)
{
	const uint8_t *p = attrs;
	while (len >= NLA_HDRLEN) {
		const struct nlattr *a = (const void *)p;
		if (a->nla_len < NLA_HDRLEN || a->nla_len > len)
			return NULL;
		if ((a->nla_type & NLA_TYPE_MASK) == type) {
			*out_len = a->nla_len - (size_t)NLA_HDRLEN;
			return a;
		}
		size_t step = NLA_ALIGN(a->nla_len);
		if (step >= len)
			return NULL;
		p += step;
		len -= step;
	}
	return NULL;
}

static const void *attr_bytes(const struct nlattr *a)
{
	return (const uint8_t *)a + NLA_HDRLEN;
}

// ---------------------------------------------------------------- nft ingress chains

struct chain_search {
	struct preflight_port *ports;
	char (*netdevs)[16]; // of each port
	uint32_t n_ports;
};

static void chain_device(const struct chain_search *search, const struct nlattr *name, size_t len)
{
	for (uint32_t i = 0; i < search->n_ports; i++)
		if (search->netdevs[i][0] && strnlen(attr_bytes(name), len) < len &&
			strcmp(attr_bytes(name), search->netdevs[i]) == 0)
			search->ports[i].ingress_drop = PREFLIGHT_YES;
}

static void chain_visit(const struct nlmsghdr *m, void *arg)
{
	struct chain_search *search = arg;
	size_t len = 0, hook_len = 0, devs_len = 0;
	uint32_t policy, hooknum;
	if (m->nlmsg_len < NLMSG_LENGTH(sizeof(struct nfgenmsg)))
		return;
	const struct nfgenmsg *gen = NLMSG_DATA(m);
	const uint8_t *attrs = (const uint8_t *)NLMSG_DATA(m) + NLMSG_ALIGN(sizeof(*gen));
	size_t attrs_len = m->nlmsg_len - NLMSG_SPACE(sizeof(*gen));
	const struct nlattr *a = attr_find(attrs, attrs_len, NFTA_CHAIN_POLICY, &len);
	const struct nlattr *hook = attr_find(attrs, attrs_len, NFTA_CHAIN_HOOK, &hook_len);
	if (a == NULL || len != 4 || hook == NULL)
		return;
	memcpy(&policy, attr_bytes(a), 4);
	a = attr_find(attr_bytes(hook), hook_len, NFTA_HOOK_HOOKNUM, &len);
	if (a == NULL || len != 4 || ntohl(policy) != NF_DROP)
		return;
	memcpy(&hooknum, attr_bytes(a), 4);
	if (ntohl(hooknum) != (gen->nfgen_family == NFPROTO_NETDEV ? 0u : 5u)) // ingress
		return;
	a = attr_find(attr_bytes(hook), hook_len, NFTA_HOOK_DEV, &len);
	if (a != NULL)
		chain_device(search, a, len);
	a = attr_find(attr_bytes(hook), hook_len, NFTA_HOOK_DEVS, &devs_len);
	for (size_t at = 0; a != NULL && at + NLA_HDRLEN <= devs_len;) {
		const struct nlattr *dev = (const void *)((const uint8_t *)attr_bytes(a) + at);
		if (dev->nla_len < NLA_HDRLEN || dev->nla_len > devs_len - at)
			break;
		chain_device(search, dev, dev->nla_len - (size_t)NLA_HDRLEN);
		at += NLA_ALIGN(dev->nla_len);
	}
}

static void gather_chains(struct chain_search *search)
{
	struct {
		struct nlmsghdr header;
		struct nfgenmsg gen;
	} request = {
		.header = { .nlmsg_len = sizeof(request),
			.nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.gen = { .nfgen_family = NFPROTO_UNSPEC, .version = NFNETLINK_V0 },
	};
	if (netlink_ask(NETLINK_NETFILTER, &request.header, chain_visit, search) != 0)
		return;
	for (uint32_t i = 0; i < search->n_ports; i++)
		if (search->ports[i].ingress_drop == PREFLIGHT_UNKNOWN)
			search->ports[i].ingress_drop = PREFLIGHT_NO;
}

// ---------------------------------------------------------------- veth peers

struct peer {
	int32_t ifindex; // in its namespace, 0 = none
	int32_t nsid;    // its namespace as numbered in this one, -1 = this one
};

static void peer_visit(const struct nlmsghdr *m, void *arg)
{
	struct peer *peer = arg;
	size_t len = 0;
	if (m->nlmsg_type != RTM_NEWLINK || m->nlmsg_len < NLMSG_LENGTH(sizeof(struct ifinfomsg)))
		return;
	const uint8_t *attrs =
		(const uint8_t *)NLMSG_DATA(m) + NLMSG_ALIGN(sizeof(struct ifinfomsg));
	size_t attrs_len = m->nlmsg_len - NLMSG_SPACE(sizeof(struct ifinfomsg));
	const struct nlattr *a = attr_find(attrs, attrs_len, IFLA_LINK, &len);
	if (a != NULL && len == 4)
		memcpy(&peer->ifindex, attr_bytes(a), 4);
	a = attr_find(attrs, attrs_len, IFLA_LINK_NETNSID, &len);
	if (a != NULL && len == 4)
		memcpy(&peer->nsid, attr_bytes(a), 4);
}

static void nsid_visit(const struct nlmsghdr *m, void *arg)
{
	size_t len = 0;
	if (m->nlmsg_type != RTM_NEWNSID || m->nlmsg_len < NLMSG_LENGTH(sizeof(struct rtgenmsg)))
		return;
	const uint8_t *attrs =
		(const uint8_t *)NLMSG_DATA(m) + NLMSG_ALIGN(sizeof(struct rtgenmsg));
	const struct nlattr *a = attr_find(
		attrs, m->nlmsg_len - NLMSG_SPACE(sizeof(struct rtgenmsg)), NETNSA_NSID, &len);
	if (a != NULL && len == 4)
		memcpy(arg, attr_bytes(a), 4);
}

// Number by which this namespace knows the one behind `fd`, -1 = by none.
static int32_t namespace_id(int fd)
{
	struct {
		struct nlmsghdr header;
		struct rtgenmsg gen;
		uint8_t pad[3];
		struct nlattr attr;
		int32_t fd;
	} request = {
		.header = { .nlmsg_len = sizeof(request),
			.nlmsg_type = RTM_GETNSID,
			.nlmsg_flags = NLM_F_REQUEST },
		.attr = { .nla_len = NLA_HDRLEN + 4, .nla_type = NETNSA_FD },
		.fd = fd,
	};
	int32_t nsid = -1;
	netlink_ask(NETLINK_ROUTE, &request.header, nsid_visit, &nsid);
	return nsid;
}

static int ethtool_ask(int fd, const char *ifname, void *command)
{
	struct ifreq request = { .ifr_data = command };
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", ifname);
	return ioctl(fd, SIOCETHTOOL, &request);
}

struct peer_answer {
	char name[16];
	int32_t tx_checksum; // -1 = not known
};

// Name and offload of the interface `ifindex` of the namespace this process is in.
static struct peer_answer peer_look(int32_t ifindex)
{
	struct peer_answer answer = { .tx_checksum = -1 };
	struct ethtool_value value = { .cmd = ETHTOOL_GTXCSUM };
	struct ifreq request = { .ifr_ifindex = ifindex };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return answer;
	if (ioctl(fd, SIOCGIFNAME, &request) == 0) {
		memcpy(answer.name, request.ifr_name, sizeof(answer.name) - 1);
		if (ethtool_ask(fd, answer.name, &value) == 0)
			answer.tx_checksum = value.data != 0;
	}
	close(fd);
	return answer;
}

// The same in another namespace, looked at by a child, so that this process never leaves its own.
static struct peer_answer peer_look_in(int netns_fd, int32_t ifindex)
{
	struct peer_answer answer = { .tx_checksum = -1 };
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) != 0)
		return answer;
	pid_t pid = fork();
	if (pid == 0) {
		if (setns(netns_fd, CLONE_NEWNET) == 0)
			answer = peer_look(ifindex);
		_exit(write(ends[1], &answer, sizeof(answer)) == (ssize_t)sizeof(answer) ? 0 : 1);
	}
	close(ends[1]);
	if (pid > 0) {
		struct peer_answer told;
		if (read(ends[0], &told, sizeof(told)) == (ssize_t)sizeof(told))
			answer = told;
		waitpid(pid, NULL, 0);
	}
	close(ends[0]);
	return answer;
}

// Finds the named namespace that this one numbers `nsid`. Its descriptor, or -1; the name is
// written.
static int namespace_open(int32_t nsid, char *name, size_t len)
{
	char path[PREFLIGHT_PATH_MAX];
	DIR *dir = opendir(NETNS_DIR);
	int found = -1;
	if (dir == NULL)
		return -1;
	struct dirent *entry;
	for (uint32_t n = 0; found < 0 && n < NETNS_MAX && (entry = readdir(dir)) != NULL; n++) {
		if (entry->d_name[0] == '.')
			continue;
		TEXT(path, NETNS_DIR "/%s", entry->d_name);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (namespace_id(fd) != nsid) {
			close(fd);
			continue;
		}
		snprintf(name, len, "%.63s", entry->d_name);
		found = fd;
	}
	closedir(dir);
	return found;
}

static bool is_veth(const char *netdev)
{
	struct ethtool_drvinfo driver = { .cmd = ETHTOOL_GDRVINFO };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool yes = fd >= 0 && ethtool_ask(fd, netdev, &driver) == 0 &&
		   strncmp(driver.driver, "veth", sizeof(driver.driver)) == 0;
	if (fd >= 0)
		close(fd);
	return yes;
}

static void gather_peer(struct preflight_port *port, const char *netdev)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg link;
	} request = {
		.header = { .nlmsg_len = sizeof(request),
			.nlmsg_type = RTM_GETLINK,
			.nlmsg_flags = NLM_F_REQUEST },
		.link = { .ifi_index = (int)if_nametoindex(netdev) },
	};
	struct peer peer = { .nsid = -1 };
	struct peer_answer answer = { .tx_checksum = -1 };
	if (request.link.ifi_index == 0 || !is_veth(netdev))
		return;
	netlink_ask(NETLINK_ROUTE, &request.header, peer_visit, &peer);
	if (peer.ifindex <= 0)
		return;
	if (peer.nsid < 0) {
		answer = peer_look(peer.ifindex);
	} else {
		int fd = namespace_open(
			peer.nsid, port->peer_namespace, sizeof(port->peer_namespace));
		if (fd >= 0) {
			answer = peer_look_in(fd, peer.ifindex);
			close(fd);
		}
	}
	if (answer.tx_checksum < 0)
		return;
	port->peer_tx_checksum = answer.tx_checksum ? PREFLIGHT_YES : PREFLIGHT_NO;
	snprintf(port->peer, sizeof(port->peer), "%s", answer.name);
}

void preflight_gather(struct preflight_input *input, struct preflight_port *ports,
	struct preflight_host_address *addresses)
{
	char netdevs[PREFLIGHT_PORTS_MAX][16] = { 0 };
	struct preflight_input here = { 0 }; // devices of this machine, whatever input->root is
	struct preflight_run run = { .input = &here };
	uint32_t n_ports =
		input->n_ports < PREFLIGHT_PORTS_MAX ? input->n_ports : PREFLIGHT_PORTS_MAX;
	struct chain_search search = { .ports = ports, .netdevs = netdevs, .n_ports = n_ports };
	gather_identity(input);
	gather_running(input);
	gather_addresses(input, addresses);
	for (uint32_t i = 0; i < n_ports; i++) {
		struct device_name device;
		preflight_device_parse(&run, ports[i].device, &device);
		memcpy(netdevs[i], device.netdev, sizeof(netdevs[i]));
		if (device.netdev[0])
			gather_peer(&ports[i], device.netdev);
	}
	gather_chains(&search);
}
