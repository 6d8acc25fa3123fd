// SPDX-License-Identifier: BSD-3-Clause
// Checks of what stands around the ports: twins, virtual devices, MTU, checksum offload of veth
// peers, the guard that keeps the kernel silent on af_packet interfaces, source ports shared with
// the host.
#include "preflight_priv.h"

#include <stdlib.h>
#include <string.h>

#define IFNAME_MAX 15

static const char *twin_name(const struct preflight_port *port)
{
	return port->twin[0] ? port->twin : port->name;
}

// ---------------------------------------------------------------- twins

static void check_twin(struct preflight_run *run, const struct preflight_port *port)
{
	const char *twin = twin_name(port);
	struct device_name device;
	char object[64], cause[256];
	preflight_device_parse(run, port->device, &device);
	TEXT(object, "twin %s of port %s", twin, port->name);
	if (strlen(twin) > IFNAME_MAX || strchr(twin, '/') != NULL || twin[0] == 0) {
		TEXT(cause, "not a name for an interface (1 to %d characters, no /)", IFNAME_MAX);
		preflight_finding_add(
			run, PREFLIGHT_ERROR, object, cause, "set ports[].twin to a shorter name");
	} else if (strcmp(twin, device.netdev) == 0) {
		preflight_finding_add(run, PREFLIGHT_ERROR, object,
			"the twin has the name of the interface that the port takes",
			"set ports[].twin to another name");
	} else if (root_exists(run, "/sys/class/net/%s", twin) &&
		   (root_number(run, 0, "/sys/class/net/%s/tun_flags", twin) & 2) == 0) {
		TEXT(cause, "an interface %s exists and is no TAP", twin);
		preflight_finding_add(run, PREFLIGHT_ERROR, object, cause,
			"set ports[].twin to another name, or ip link del %s", twin);
	}
}

void check_tun(struct preflight_run *run)
{
	uint32_t before = run->report->n_error;
	if (!root_exists(run, "/dev/net/tun"))
		preflight_finding_add(run, PREFLIGHT_ERROR, "/dev/net/tun",
			"missing: twins cannot be made",
			"modprobe tun; mkdir -p /dev/net; mknod /dev/net/tun c 10 200");
	for (uint32_t i = 0; i < run->input->n_ports; i++)
		check_twin(run, &run->input->ports[i]);
	if (run->report->n_error == before)
		preflight_finding_add(
			run, PREFLIGHT_OK, "twins", "/dev/net/tun is there, names are free", NULL);
}

// ---------------------------------------------------------------- virtual devices

// Files that a virtual device opens by argument; the folder is enough for those it creates.
static const struct vdev_file {
	const char *driver;
	const char *key;
	bool is_made;
} vdev_files[] = {
	{ "net_pcap", "rx_pcap", false },
	{ "net_pcap", "tx_pcap", true },
	{ "net_memif", "socket", true },
	{ "virtio_user", "path", false },
	{ "net_vhost", "iface", true },
};

static void vdev_check_file(struct preflight_run *run, const char *object,
	const struct device_name *device, const struct vdev_file *file)
{
	char path[256], cause[320];
	if (strstr(device->driver, file->driver) == NULL ||
		!device_arg(device->args, file->key, path, sizeof(path)) || path[0] != '/')
		return;
	char *slash = strrchr(path, '/');
	if (file->is_made && slash != path)
		*slash = 0;
	if (root_exists(run, "%s", path))
		return;
	TEXT(cause, "%s names %s, which does not exist", file->key, path);
	preflight_finding_add(run, PREFLIGHT_ERROR, object, cause,
		file->is_made ? "mkdir -p %s" : "ls -l %s (start its server first)", path);
}

static void check_vdev_port(struct preflight_run *run, const struct preflight_port *port)
{
	struct device_name device;
	char object[320], cause[256];
	preflight_device_parse(run, port->device, &device);
	if (device.kind != DEVICE_VDEV)
		return;
	port_object(port, object, sizeof(object));
	bool by_path = strstr(device.driver, "vhost") != NULL;
	bool needs_iface = strstr(device.driver, "af_packet") || strstr(device.driver, "af_xdp");
	if (needs_iface && device.netdev[0] == 0) {
		preflight_finding_add(run, PREFLIGHT_ERROR, object, "names no interface",
			"set ports[].device = \"%s0,iface=INTERFACE\"", device.driver);
	} else if (!by_path && device.netdev[0] &&
		   !root_exists(run, "/sys/class/net/%s", device.netdev)) {
		TEXT(cause, "iface %s does not exist in this namespace", device.netdev);
		preflight_finding_add(run, PREFLIGHT_ERROR, object, cause,
			"ip -br link (and start in the namespace that has it: ip netns exec NAME "
			"...)");
	}
	for (size_t i = 0; i < ARRAY_SIZE(vdev_files); i++)
		vdev_check_file(run, object, &device, &vdev_files[i]);
}

void check_vdev(struct preflight_run *run)
{
	uint32_t before = run->report->n_error;
	for (uint32_t i = 0; i < run->input->n_ports; i++)
		check_vdev_port(run, &run->input->ports[i]);
	if (run->report->n_error == before)
		preflight_finding_add(
			run, PREFLIGHT_OK, "virtual devices", "what they name is there", NULL);
}

// ---------------------------------------------------------------- MTU, checksums, guard

void check_mtu(struct preflight_run *run)
{
	uint32_t before = run->report->n_warn;
	for (uint32_t i = 0; i < run->input->n_ports; i++) {
		const struct preflight_port *port = &run->input->ports[i];
		struct device_name device;
		char object[320], cause[256];
		preflight_device_parse(run, port->device, &device);
		int64_t wanted = port->mtu ? port->mtu : 1500;
		if (device.netdev[0] == 0)
			continue;
		int64_t mtu = root_number(run, wanted, "/sys/class/net/%s/mtu", device.netdev);
		if (mtu >= wanted)
			continue;
		TEXT(cause, "%s has MTU %d, the port %d: longer frames are lost without a word",
			device.netdev, (int)mtu, (int)wanted);
		preflight_finding_add(run, PREFLIGHT_WARN,
			port_object(port, object, sizeof(object)), cause,
			"ip link set %s mtu %d (and its far end)", device.netdev, (int)wanted);
	}
	if (run->report->n_warn == before)
		preflight_finding_add(
			run, PREFLIGHT_OK, "MTU", "interfaces carry what ports may send", NULL);
}

void check_partial_checksum(struct preflight_run *run)
{
	uint32_t before = run->report->n_warn;
	for (uint32_t i = 0; i < run->input->n_ports; i++) {
		const struct preflight_port *port = &run->input->ports[i];
		char object[320], cause[256];
		const char *ns = port->peer_namespace;
		if (port->peer_tx_checksum != PREFLIGHT_YES)
			continue;
		TEXT(cause,
			"veth peer %s%s%s leaves checksums to an offload that is not there: TCP "
			"and UDP are dropped",
			port->peer, ns[0] ? " in namespace " : "", ns);
		preflight_finding_add(run, PREFLIGHT_WARN,
			port_object(port, object, sizeof(object)), cause,
			"%s%s%sethtool -K %s tx off", ns[0] ? "ip netns exec " : "", ns,
			ns[0] ? " " : "", port->peer);
	}
	if (run->report->n_warn == before)
		preflight_finding_add(run, PREFLIGHT_OK, "checksums",
			"no veth peer is known to leave them out", NULL);
}

// Kernel's effective value: the larger of that of all interfaces and that of this one.
static int64_t v4_setting(const struct preflight_run *run, const char *netdev, const char *name)
{
	const char *path = "/proc/sys/net/ipv4/conf/%s/%s";
	int64_t all = root_number(run, 0, path, "all", name);
	int64_t own = root_number(run, 0, path, netdev, name);
	return all > own ? all : own;
}

// The kernel gets a copy of every frame of an af_packet interface. It stays silent when it sees
// none of them, or when it answers no ARP, takes nothing whose way back is elsewhere, and has no
// IPv6 there.
static bool kernel_is_silent(const struct preflight_run *run, const char *netdev)
{
	return v4_setting(run, netdev, "rp_filter") == 1 &&
	       v4_setting(run, netdev, "arp_ignore") == 8 &&
	       root_number(run, 1, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", netdev) == 1;
}

void check_twin_guard(struct preflight_run *run)
{
	uint32_t before = run->report->n_warn;
	for (uint32_t i = 0; i < run->input->n_ports; i++) {
		const struct preflight_port *port = &run->input->ports[i];
		struct device_name device;
		char object[320], cause[256];
		preflight_device_parse(run, port->device, &device);
		if (strstr(device.driver, "af_packet") == NULL || device.netdev[0] == 0 ||
			!root_exists(run, "/sys/class/net/%s", device.netdev) ||
			port->ingress_drop == PREFLIGHT_YES || kernel_is_silent(run, device.netdev))
			continue;
		TEXT(cause,
			"the kernel sees each frame of %s too and answers ARP, ping and closed "
			"ports "
			"a second time beside twin %s",
			device.netdev, twin_name(port));
		preflight_finding_add(run, PREFLIGHT_WARN,
			port_object(port, object, sizeof(object)), cause,
			"nft add table netdev sluice && nft 'add chain netdev sluice %s { type "
			"filter hook ingress device \"%s\" priority -500; policy drop; }'",
			device.netdev, device.netdev);
	}
	if (run->report->n_warn == before)
		preflight_finding_add(
			run, PREFLIGHT_OK, "twin guard", "the kernel answers on twins only", NULL);
}

// ---------------------------------------------------------------- source ports

// Ports of ip_local_reserved_ports as bits.
static void reserved_ports(const struct preflight_run *run, uint64_t bits[1024])
{
	char text[8192];
	memset(bits, 0, 1024 * sizeof(*bits));
	if (root_read(run, text, sizeof(text), "/proc/sys/net/ipv4/ip_local_reserved_ports") <= 0)
		return;
	for (char *p = text; *p;) {
		unsigned long first = strtoul(p, &p, 10), last = first;
		if (*p == '-')
			last = strtoul(p + 1, &p, 10);
		for (unsigned long port = first; port <= last && port < 65536; port++)
			bits[port / 64] |= 1ull << (port % 64);
		if (*p != ',')
			break;
		p++;
	}
}

// First port that both SNAT and the host's own sockets would use, 0 = none.
static uint32_t shared_port(const struct preflight_run *run, uint32_t first, uint32_t last)
{
	char text[64];
	uint64_t reserved[1024];
	uint32_t low = 32768, high = 60999;
	if (root_read(run, text, sizeof(text), "/proc/sys/net/ipv4/ip_local_port_range") > 0)
		sscanf(text, "%u %u", &low, &high);
	reserved_ports(run, reserved);
	for (uint32_t port = first > low ? first : low; port <= last && port <= high; port++)
		if (!(reserved[port / 64] >> (port % 64) & 1))
			return port;
	return 0;
}

// The host itself uses an address unless it is a host address on one of our twins: that one we put
// there.
static const struct preflight_host_address *host_uses(
	const struct preflight_run *run, const struct address *address)
{
	for (uint32_t i = 0; i < run->input->n_addresses; i++) {
		const struct preflight_host_address *own = &run->input->addresses[i];
		bool on_twin = false;
		if (!address_equal(&own->address, address))
			continue;
		for (uint32_t p = 0; p < run->input->n_ports; p++)
			on_twin |= strcmp(twin_name(&run->input->ports[p]), own->ifname) == 0;
		if (!on_twin || own->prefix_len < (address_is_v4(address) ? 32 : 128))
			return own;
	}
	return NULL;
}

void check_snat_ports(struct preflight_run *run)
{
	const struct preflight_input *input = run->input;
	bool is_default = input->snat_first_port == 0 && input->snat_last_port == 0;
	uint32_t first = is_default ? 1024 : input->snat_first_port;
	uint32_t last = is_default ? 65535 : input->snat_last_port;
	uint32_t before = run->report->n_error;
	uint32_t port = shared_port(run, first, last);
	for (uint32_t i = 0; i < input->n_snat; i++) {
		char object[96], cause[256], text[ADDRESS_TEXT_LEN];
		const struct preflight_host_address *own = host_uses(run, &input->snat[i]);
		if (own == NULL || port == 0)
			continue;
		TEXT(object, "snat.addresses %s", address_format(&input->snat[i], text));
		TEXT(cause,
			"also an address of the host (%s), whose own sockets may use port %u of "
			"%u-%u",
			own->ifname, port, first, last);
		preflight_finding_add(run, PREFLIGHT_ERROR, object, cause,
			"sysctl -w net.ipv4.ip_local_reserved_ports=%u-%u (or an address of its "
			"own "
			"for SNAT)",
			first, last);
	}
	if (run->report->n_error == before)
		preflight_finding_add(
			run, PREFLIGHT_OK, "snat.ports", "clear of the host's own", NULL);
}
