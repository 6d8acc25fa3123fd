// SPDX-License-Identifier: BSD-3-Clause
// Checks of the ports' devices: are they there, whose are they, can vfio take them, is their driver
// installed.
#include "preflight_priv.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define NEAREST_MAX 6

// ---------------------------------------------------------------- what is there instead

struct nearest {
	char *buf;
	size_t len;
	uint32_t n;
};

static bool nearest_pci(const struct preflight_run *run, const char *name, void *arg)
{
	struct nearest *nearest = arg;
	char driver[64];
	if (root_number(run, 0, "/sys/bus/pci/devices/%s/class", name) >> 16 != 0x02)
		return true;
	if (!root_link(run, driver, sizeof(driver), 0, "/sys/bus/pci/devices/%s/driver", name))
		TEXT(driver, "no driver");
	text_append(nearest->buf, nearest->len, "%s%s (%s, node %d)", nearest->n ? ", " : "", name,
		driver, (int)root_number(run, -1, "/sys/bus/pci/devices/%s/numa_node", name));
	return ++nearest->n < NEAREST_MAX;
}

static bool nearest_netdev(const struct preflight_run *run, const char *name, void *arg)
{
	struct nearest *nearest = arg;
	if (strcmp(name, "lo") == 0)
		return true;
	text_append(nearest->buf, nearest->len, "%s%s", nearest->n ? ", " : "", name);
	return ++nearest->n < NEAREST_MAX;
}

static const char *list_pci(const struct preflight_run *run, char *buf, size_t len)
{
	struct nearest nearest = { buf, len, 0 };
	buf[0] = 0;
	root_each(run, "/sys/bus/pci/devices", nearest_pci, &nearest);
	if (nearest.n == 0)
		snprintf(buf, len, "none");
	return buf;
}

static const char *list_netdevs(const struct preflight_run *run, char *buf, size_t len)
{
	struct nearest nearest = { buf, len, 0 };
	buf[0] = 0;
	root_each(run, "/sys/class/net", nearest_netdev, &nearest);
	if (nearest.n == 0)
		snprintf(buf, len, "none");
	return buf;
}

static bool pci_exists(const struct preflight_run *run, const struct device_name *device)
{
	return device->pci[0] && root_exists(run, "/sys/bus/pci/devices/%s", device->pci);
}

static void port_missing(struct preflight_run *run, const struct preflight_port *port)
{
	struct device_name device;
	char object[320], cause[512], list[320];
	preflight_device_parse(run, port->device, &device);
	port_object(port, object, sizeof(object));
	if (device.kind == DEVICE_UNKNOWN) {
		TEXT(cause, "neither a PCI address, ifname:INTERFACE nor a virtual device net_*");
		preflight_finding_add(run, PREFLIGHT_ERROR, object, cause,
			"set ports[].device, for example \"0000:3b:00.0\", \"ifname:ens1f0\" or "
			"\"net_af_packet0,iface=veth0\"");
	} else if (device.kind == DEVICE_PCI && !pci_exists(run, &device)) {
		TEXT(cause, "no such PCI device; network devices here: %s",
			list_pci(run, list, sizeof(list)));
		preflight_finding_add(run, PREFLIGHT_ERROR, object, cause,
			"set ports[].device to one of them (lspci -Dnn | grep -i ethernet)");
	} else if (device.kind == DEVICE_IFNAME &&
		   !root_exists(run, "/sys/class/net/%s", device.netdev)) {
		TEXT(cause, "no interface %s in this namespace; there are: %s", device.netdev,
			list_netdevs(run, list, sizeof(list)));
		preflight_finding_add(run, PREFLIGHT_ERROR, object, cause,
			"set ports[].device to one of them (ip -br link)");
	} else if (device.kind != DEVICE_VDEV) {
		preflight_finding_add(run, PREFLIGHT_OK, object, "there", NULL);
	}
}

void check_port_missing(struct preflight_run *run)
{
	if (run->input->n_ports == 0)
		preflight_finding_add(run, PREFLIGHT_OK, "ports", "none configured", NULL);
	for (uint32_t i = 0; i < run->input->n_ports; i++)
		port_missing(run, &run->input->ports[i]);
}

// ---------------------------------------------------------------- drivers of DPDK

static const char *vdev_pmd(const char *driver)
{
	if (strstr(driver, "virtio_user") != NULL)
		return "virtio";
	if (strncmp(driver, "net_", 4) != 0 && strncmp(driver, "eth_", 4) != 0)
		return NULL;
	if (strcmp(driver + 4, "tun") == 0)
		return "tap";
	if (strcmp(driver + 4, "bonding") == 0)
		return "bond";
	return driver + 4;
}

static void port_pmd(struct preflight_run *run, const struct preflight_port *port)
{
	struct device_name device;
	char object[320], cause[256], package[96], what[64];
	const char *pmd = NULL;
	preflight_device_parse(run, port->device, &device);
	port_object(port, object, sizeof(object));
	if (device.kind == DEVICE_VDEV) {
		pmd = vdev_pmd(device.driver);
		TEXT(what, "%s", device.driver);
	} else if (pci_exists(run, &device)) {
		const char *dir = "/sys/bus/pci/devices/%s/%s";
		uint16_t vendor = (uint16_t)root_number(run, 0, dir, device.pci, "vendor");
		uint16_t id = (uint16_t)root_number(run, 0, dir, device.pci, "device");
		pmd = pmd_of_pci(vendor, id);
		TEXT(what, "%04x:%04x", vendor, id);
		if (pmd == NULL) {
			TEXT(cause, "%s: no driver of DPDK is known for it", what);
			preflight_finding_add(run, PREFLIGHT_WARN, object, cause,
				"dpdk-pmdinfo.py -r $(which sluiced), or a NIC of the list at "
				"core.dpdk.org/supported/nics");
			return;
		}
	} else {
		return;
	}
	if (pmd == NULL || pmd_is_installed(run, pmd)) {
		TEXT(cause, "%s is served by net_%s", what, pmd ? pmd : "?");
		preflight_finding_add(run, PREFLIGHT_OK, object, cause, NULL);
		return;
	}
	TEXT(cause, "%s needs net_%s, which is not installed", what, pmd);
	preflight_finding_add(run, PREFLIGHT_ERROR, object, cause, "apt-get install %s",
		pmd_package(run, pmd, package, sizeof(package)));
}

void check_pmd(struct preflight_run *run)
{
	uint32_t before = run->report->n_items;
	for (uint32_t i = 0; i < run->input->n_ports; i++)
		port_pmd(run, &run->input->ports[i]);
	if (run->report->n_items == before)
		preflight_finding_add(run, PREFLIGHT_OK, "drivers", "none needed", NULL);
}

// ---------------------------------------------------------------- whose is the device

// Does the longest IPv4 route to `dst` (0 = the default route) leave by `netdev`? Fields of
// /proc/net/route are in host order of a little-endian machine, as they lie in memory.
static bool v4_route_uses(const struct preflight_run *run, const char *netdev, uint32_t dst)
{
	char line[256], name[32];
	uint32_t to, mask, flags, best_mask = 0;
	bool uses = false, found = false;
	FILE *file = root_open(run, "/proc/net/route");
	if (file == NULL)
		return false;
	while (fgets(line, sizeof(line), file) != NULL) {
		if (sscanf(line, "%31s %x %*x %x %*d %*d %*d %x", name, &to, &flags, &mask) != 4)
			continue;
		// A longer prefix has the larger mask once in host order.
		if (!(flags & 1) || (dst & mask) != to || (dst == 0 && mask != 0) ||
			(found && __builtin_bswap32(mask) <= best_mask))
			continue;
		found = true;
		best_mask = __builtin_bswap32(mask);
		uses = strcmp(name, netdev) == 0;
	}
	fclose(file);
	return uses;
}

static bool v6_parse_hex(const char *hex, struct address *out)
{
	for (int i = 0; i < 16; i++) {
		unsigned int byte;
		if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
			return false;
		out->bytes[i] = (uint8_t)byte;
	}
	return true;
}

static bool v6_route_uses(
	const struct preflight_run *run, const char *netdev, const struct address *dst)
{
	char line[256], to[40], name[32];
	uint32_t len, flags;
	int best = -1;
	bool uses = false;
	FILE *file = root_open(run, "/proc/net/ipv6_route");
	if (file == NULL)
		return false;
	while (fgets(line, sizeof(line), file) != NULL) {
		struct prefix prefix = { 0 };
		if (sscanf(line, "%39s %x %*s %*s %*s %*s %*s %*s %x %31s", to, &len, &flags,
			    name) != 4 ||
			len > 128 || (flags & 0x200) || strcmp(name, "lo") == 0 || // RTF_REJECT
			!v6_parse_hex(to, &prefix.address))
			continue;
		prefix.len = (uint8_t)len;
		bool covers = dst ? len == 0 || prefix_contains(&prefix, dst) : len == 0;
		if (!covers || (int)len <= best)
			continue;
		best = (int)len;
		uses = strcmp(name, netdev) == 0;
	}
	fclose(file);
	return uses;
}

// Why an interface must stay with the kernel, or NULL.
static const char *netdev_burden(const struct preflight_run *run, const char *netdev)
{
	struct address client;
	if (run->input->ssh_client[0] && address_parse(run->input->ssh_client, &client) == 0 &&
		(address_is_v4(&client) ? v4_route_uses(run, netdev, address_v4(&client))
					: v6_route_uses(run, netdev, &client)))
		return "it carries this ssh session";
	if (v4_route_uses(run, netdev, 0) || v6_route_uses(run, netdev, NULL))
		return "it carries the default route";
	return NULL;
}

struct netdev_search {
	char name[16];
	const char *burden;
};

static bool netdev_visit(const struct preflight_run *run, const char *name, void *arg)
{
	struct netdev_search *search = arg;
	snprintf(search->name, sizeof(search->name), "%.15s", name);
	search->burden = netdev_burden(run, name);
	return search->burden == NULL;
}

struct virtio_search {
	const char *pci;
	struct netdev_search *netdev;
};

static bool virtio_visit(const struct preflight_run *run, const char *name, void *arg)
{
	struct virtio_search *search = arg;
	char dir[160];
	if (strncmp(name, "virtio", 6) != 0)
		return true;
	TEXT(dir, "/sys/bus/pci/devices/%s/%.32s/net", search->pci, name);
	root_each(run, dir, netdev_visit, search->netdev);
	return true;
}

// Interfaces of a PCI device: the last one, or the one with a burden.
static struct netdev_search pci_netdevs(const struct preflight_run *run, const char *pci)
{
	struct netdev_search netdev = { 0 };
	struct virtio_search search = { pci, &netdev };
	char dir[128];
	TEXT(dir, "/sys/bus/pci/devices/%s/net", pci);
	root_each(run, dir, netdev_visit, &netdev);
	TEXT(dir, "/sys/bus/pci/devices/%s", pci);
	if (netdev.name[0] == 0)
		root_each(run, dir, virtio_visit, &search);
	return netdev;
}

static bool driver_is_userspace(const char *driver)
{
	return strcmp(driver, "vfio-pci") == 0 || strcmp(driver, "uio_pci_generic") == 0 ||
	       strcmp(driver, "igb_uio") == 0;
}

static void port_driver_pci(
	struct preflight_run *run, const char *object, const struct device_name *device)
{
	char driver[64], cause[320];
	if (!root_link(run, driver, sizeof(driver), 0, "/sys/bus/pci/devices/%s/driver",
		    device->pci)) {
		preflight_finding_add(run, PREFLIGHT_ERROR, object, "bound to no driver",
			"driverctl set-override %s vfio-pci", device->pci);
		return;
	}
	struct netdev_search netdev = pci_netdevs(run, device->pci);
	if (driver_is_userspace(driver) || (pci_is_bifurcated(driver) && netdev.burden == NULL)) {
		TEXT(cause, "on %s", driver);
		preflight_finding_add(run, PREFLIGHT_OK, object, cause, NULL);
		return;
	}
	TEXT(cause, "on %s as %s", driver, netdev.name[0] ? netdev.name : "no interface");
	if (netdev.burden != NULL) {
		text_append(cause, sizeof(cause), "; %s: refused", netdev.burden);
		preflight_finding_add(run, PREFLIGHT_ERROR, object, cause,
			"choose another port, or move that traffic first (ip route show default)");
		return;
	}
	preflight_finding_add(run, PREFLIGHT_ERROR, object, cause,
		"driverctl set-override %s vfio-pci (back: driverctl unset-override %s)",
		device->pci, device->pci);
}

static void port_driver(struct preflight_run *run, const struct preflight_port *port)
{
	struct device_name device;
	char object[320], cause[256];
	preflight_device_parse(run, port->device, &device);
	port_object(port, object, sizeof(object));
	if (pci_exists(run, &device)) {
		port_driver_pci(run, object, &device);
		return;
	}
	if (device.netdev[0] == 0 || !root_exists(run, "/sys/class/net/%s", device.netdev))
		return;
	// A virtual port takes frames away from the kernel too.
	const char *burden = netdev_burden(run, device.netdev);
	if (burden == NULL) {
		preflight_finding_add(run, PREFLIGHT_OK, object, "free to be taken", NULL);
		return;
	}
	TEXT(cause, "%s: %s: refused", device.netdev, burden);
	preflight_finding_add(run, PREFLIGHT_ERROR, object, cause,
		"choose another interface, or move that traffic first (ip route show default)");
}

void check_port_driver(struct preflight_run *run)
{
	uint32_t before = run->report->n_items;
	for (uint32_t i = 0; i < run->input->n_ports; i++)
		port_driver(run, &run->input->ports[i]);
	if (run->report->n_items == before)
		preflight_finding_add(
			run, PREFLIGHT_OK, "ports", "no device of the machine is taken", NULL);
}

// ---------------------------------------------------------------- vfio and IOMMU

static bool count_entry(const struct preflight_run *run, const char *name, void *arg)
{
	++*(uint32_t *)arg;
	return true;
}

// Ports that vfio has to take: PCI devices whose kernel driver does not share them.
static bool wants_vfio(
	const struct preflight_run *run, const struct preflight_port *port, struct device_name *out)
{
	char driver[64] = "";
	preflight_device_parse(run, port->device, out);
	if (!pci_exists(run, out))
		return false;
	root_link(run, driver, sizeof(driver), 0, "/sys/bus/pci/devices/%s/driver", out->pci);
	return !pci_is_bifurcated(driver) && strcmp(driver, "uio_pci_generic") != 0 &&
	       strcmp(driver, "igb_uio") != 0;
}

static void iommu_missing(struct preflight_run *run, const char *object)
{
	char cpuinfo[4096], cmdline[2048], unsafe[8];
	root_read(run, cpuinfo, sizeof(cpuinfo), "/proc/cpuinfo");
	root_read(run, cmdline, sizeof(cmdline), "/proc/cmdline");
	bool is_amd = strstr(cpuinfo, "AuthenticAMD") != NULL;
	bool asked = strstr(cmdline, "intel_iommu=on") || strstr(cmdline, "amd_iommu=on") ||
		     strstr(cmdline, "iommu=pt");
	if (root_read(run, unsafe, sizeof(unsafe),
		    "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode") > 0 &&
		unsafe[0] == 'Y') {
		preflight_finding_add(run, PREFLIGHT_WARN, object,
			"vfio runs without an IOMMU (unsafe): the device can write all of memory",
			"boot with %s=on iommu=pt", is_amd ? "amd_iommu" : "intel_iommu");
		return;
	}
	preflight_finding_add(run, PREFLIGHT_ERROR, object,
		asked ? "the kernel was told to use an IOMMU but found none: firmware has it off"
		      : "no IOMMU: the kernel was booted without one, or the machine has none",
		asked ? "switch VT-d or AMD-Vi on in the firmware; in a virtual machine without "
			"one: "
			"echo Y > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
		: is_amd
			? "boot with amd_iommu=on iommu=pt; in a virtual machine without one: echo "
			  "Y > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode"
			: "boot with intel_iommu=on iommu=pt; in a virtual machine without one: "
			  "echo "
			  "Y > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode");
}

void check_iommu_off(struct preflight_run *run)
{
	struct device_name device;
	uint32_t n_groups = 0, n_wanted = 0;
	char object[320] = "";
	for (uint32_t i = 0; i < run->input->n_ports; i++) {
		if (!wants_vfio(run, &run->input->ports[i], &device))
			continue;
		if (n_wanted++ == 0)
			port_object(&run->input->ports[i], object, sizeof(object));
	}
	if (n_wanted == 0) {
		preflight_finding_add(run, PREFLIGHT_OK, "vfio", "not needed", NULL);
		return;
	}
	if (!root_exists(run, "/sys/bus/pci/drivers/vfio-pci")) {
		preflight_finding_add(run, PREFLIGHT_ERROR, object,
			"the driver vfio-pci is not loaded", "modprobe vfio-pci");
		return;
	}
	root_each(run, "/sys/kernel/iommu_groups", count_entry, &n_groups);
	if (n_groups == 0)
		iommu_missing(run, object);
	else
		preflight_finding_add(run, PREFLIGHT_OK, "vfio", "loaded, IOMMU in use", NULL);
}

struct group_search {
	const char *own;
	char other[32];
	char driver[64];
};

// Bridges (pcieport) and devices without a driver do not stand in vfio's way.
static bool group_visit(const struct preflight_run *run, const char *name, void *arg)
{
	struct group_search *search = arg;
	char driver[64];
	if (strcmp(name, search->own) == 0 ||
		!root_link(
			run, driver, sizeof(driver), 0, "/sys/bus/pci/devices/%s/driver", name) ||
		strcmp(driver, "vfio-pci") == 0 || strcmp(driver, "pcieport") == 0 ||
		strcmp(driver, "pci-stub") == 0)
		return true;
	snprintf(search->other, sizeof(search->other), "%.31s", name);
	snprintf(search->driver, sizeof(search->driver), "%s", driver);
	return false;
}

void check_iommu_group(struct preflight_run *run)
{
	uint32_t before = run->report->n_items;
	for (uint32_t i = 0; i < run->input->n_ports; i++) {
		struct device_name device;
		struct group_search search = { .own = device.pci };
		char group[32], dir[128], object[320], cause[256];
		if (!wants_vfio(run, &run->input->ports[i], &device) ||
			!root_link(run, group, sizeof(group), 0,
				"/sys/bus/pci/devices/%s/iommu_group", device.pci))
			continue;
		TEXT(dir, "/sys/kernel/iommu_groups/%s/devices", group);
		root_each(run, dir, group_visit, &search);
		if (search.other[0] == 0)
			continue;
		port_object(&run->input->ports[i], object, sizeof(object));
		TEXT(cause, "group %s also holds %s on %s: vfio cannot take one of them alone",
			group, search.other, search.driver);
		preflight_finding_add(run, PREFLIGHT_ERROR, object, cause,
			"driverctl set-override %s vfio-pci (both), or use a slot with ACS",
			search.other);
	}
	if (run->report->n_items == before)
		preflight_finding_add(run, PREFLIGHT_OK, "IOMMU groups", "not shared", NULL);
}
