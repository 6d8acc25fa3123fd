// SPDX-License-Identifier: BSD-3-Clause
// Device strings and drivers: what a port's string names, which PMD serves it, whether that PMD is
// installed.
#include "preflight_priv.h"

#include <ctype.h>
#include <glob.h>
#include <string.h>
#include <stdlib.h>

// Ranges of PCI ids by PMD, most special first. Sources: the id tables of the drivers in DPDK
// 22.11.
static const struct pci_row {
	uint16_t vendor;
	uint16_t first;
	uint16_t last;
	const char *pmd;
} pci_rows[] = {
	{ 0x15b3, 0x1003, 0x1007, "mlx4" },
	{ 0x15b3, 0x1013, 0xa2ff, "mlx5" },
	{ 0x8086, 0x1889, 0x1889, "iavf" },
	{ 0x8086, 0x154c, 0x154c, "iavf" },
	{ 0x8086, 0x1571, 0x1571, "iavf" },
	{ 0x8086, 0x37cd, 0x37cd, "iavf" },
	{ 0x8086, 0x1591, 0x159b, "ice" },
	{ 0x8086, 0x188a, 0x189a, "ice" },
	{ 0x8086, 0x124c, 0x124f, "ice" },
	{ 0x8086, 0x1572, 0x158b, "i40e" },
	{ 0x8086, 0x37ce, 0x37d3, "i40e" },
	{ 0x8086, 0x104e, 0x104f, "i40e" },
	{ 0x8086, 0x0dd2, 0x0dd2, "i40e" },
	{ 0x8086, 0x15ff, 0x15ff, "i40e" },
	{ 0x8086, 0x10b6, 0x10b6, "ixgbe" },
	{ 0x8086, 0x10c6, 0x10c8, "ixgbe" },
	{ 0x8086, 0x10db, 0x10fc, "ixgbe" },
	{ 0x8086, 0x1507, 0x1508, "ixgbe" },
	{ 0x8086, 0x1514, 0x1517, "ixgbe" },
	{ 0x8086, 0x151c, 0x151c, "ixgbe" },
	{ 0x8086, 0x1528, 0x152a, "ixgbe" },
	{ 0x8086, 0x1530, 0x1530, "ixgbe" },
	{ 0x8086, 0x154a, 0x154f, "ixgbe" },
	{ 0x8086, 0x1557, 0x1560, "ixgbe" },
	{ 0x8086, 0x1563, 0x1565, "ixgbe" },
	{ 0x8086, 0x15a8, 0x15b4, "ixgbe" },
	{ 0x8086, 0x15c2, 0x15ce, "ixgbe" },
	{ 0x8086, 0x15e4, 0x15e5, "ixgbe" },
	{ 0x8086, 0x125b, 0x125f, "igc" },
	{ 0x8086, 0x15f2, 0x15f8, "igc" },
	{ 0x8086, 0x1000, 0x15fc, "e1000" },
	{ 0x14e4, 0x1600, 0x16ff, "bnxt" },
	{ 0x14e4, 0xd800, 0xd8ff, "bnxt" },
	{ 0x1af4, 0x1000, 0x1041, "virtio" },
	{ 0x15ad, 0x07b0, 0x07b0, "vmxnet3" },
	{ 0x1d0f, 0xec20, 0xec21, "ena" },
	{ 0x1d0f, 0x0ec2, 0x1ec2, "ena" },
	{ 0x1425, 0x4000, 0x6fff, "cxgbe" },
	{ 0x19ee, 0x3800, 0x6003, "nfp" },
	{ 0x1077, 0x1629, 0x8090, "qede" },
	{ 0x1924, 0x0903, 0x1b03, "sfc" },
	{ 0x10ee, 0x0100, 0x1100, "sfc" },
	{ 0x19e5, 0xa220, 0xa22f, "hns3" },
	{ 0x19e5, 0x0200, 0x1822, "hinic" },
	{ 0x1dd8, 0x1002, 0x1003, "ionic" },
	{ 0x1137, 0x0043, 0x0071, "enic" },
	{ 0x1d6a, 0x0001, 0x94c0, "atlantic" },
	{ 0x8088, 0x0100, 0x010c, "ngbe" },
	{ 0x8088, 0x1000, 0x2fff, "txgbe" },
	{ 0x1ae0, 0x0042, 0x0042, "gve" },
};

const char *pmd_of_pci(uint16_t vendor, uint16_t device)
{
	for (size_t i = 0; i < ARRAY_SIZE(pci_rows); i++) {
		const struct pci_row *row = &pci_rows[i];
		if (row->vendor == vendor && device >= row->first && device <= row->last)
			return row->pmd;
	}
	return NULL;
}

bool pci_is_bifurcated(const char *kernel_driver)
{
	return strcmp(kernel_driver, "mlx5_core") == 0 || strcmp(kernel_driver, "mlx4_core") == 0 ||
	       strcmp(kernel_driver, "mana") == 0;
}

// "0000:3b:00.0" or "3b:00.0", nothing after it.
static bool pci_parse(const char *text, char *buf, size_t len)
{
	unsigned int domain = 0, bus, slot, function;
	int end = -1;
	if (sscanf(text, "%4x:%2x:%2x.%1x%n", &domain, &bus, &slot, &function, &end) != 4) {
		domain = 0;
		end = -1;
		if (sscanf(text, "%2x:%2x.%1x%n", &bus, &slot, &function, &end) != 3)
			return false;
	}
	if (end < 0 || text[end] != 0)
		return false;
	snprintf(buf, len, "%04x:%02x:%02x.%x", domain, bus, slot, function);
	return true;
}

bool device_arg(const char *args, const char *key, char *buf, size_t len)
{
	size_t key_len = strlen(key);
	while (*args) {
		size_t n = strcspn(args, ",");
		if (n > key_len && strncmp(args, key, key_len) == 0 && args[key_len] == '=') {
			snprintf(buf, len, "%.*s", (int)(n - key_len - 1), args + key_len + 1);
			return true;
		}
		args += n;
		if (*args == ',')
			args++;
	}
	return false;
}

// An interface of a PCI device is taken through that device; that of a virtio one lies a folder
// above.
static void ifname_resolve(const struct preflight_run *run, struct device_name *out)
{
	char target[64];
	if (root_link(run, target, sizeof(target), 0, "/sys/class/net/%s/device", out->netdev) &&
		!pci_parse(target, out->pci, sizeof(out->pci)) &&
		strncmp(target, "virtio", 6) == 0 &&
		root_link(run, target, sizeof(target), 1, "/sys/bus/virtio/devices/%s", target))
		pci_parse(target, out->pci, sizeof(out->pci));
}

static void vdev_parse(const char *device, struct device_name *out)
{
	static const char *const keys[] = { "iface", "rx_iface", "tx_iface" };
	size_t n = strcspn(device, ",");
	snprintf(out->args, sizeof(out->args), "%s", device[n] ? device + n + 1 : "");
	snprintf(out->driver, sizeof(out->driver), "%.*s", (int)n, device);
	for (size_t len = strlen(out->driver);
		len > 0 && isdigit((unsigned char)out->driver[len - 1]); len--)
		out->driver[len - 1] = 0;
	for (size_t i = 0; i < ARRAY_SIZE(keys) && out->netdev[0] == 0; i++)
		device_arg(out->args, keys[i], out->netdev, sizeof(out->netdev));
	// The interface of a tap port is one it makes.
	if (strstr(out->driver, "net_tap") != NULL || strstr(out->driver, "net_tun") != NULL)
		out->netdev[0] = 0;
}

void preflight_device_parse(
	const struct preflight_run *run, const char *device, struct device_name *out)
{
	char head[64];
	memset(out, 0, sizeof(*out));
	if (strncmp(device, "ifname:", 7) == 0) {
		out->kind = DEVICE_IFNAME;
		snprintf(out->netdev, sizeof(out->netdev), "%.*s", (int)strcspn(device + 7, ",/"),
			device + 7);
		ifname_resolve(run, out);
		return;
	}
	if (strncmp(device, "pci:", 4) == 0)
		device += 4;
	else if (strncmp(device, "vdev:", 5) == 0)
		device += 5;
	snprintf(head, sizeof(head), "%.*s", (int)strcspn(device, ","), device);
	if (pci_parse(head, out->pci, sizeof(out->pci))) {
		out->kind = DEVICE_PCI;
		return;
	}
	vdev_parse(device, out);
	out->kind = strncmp(out->driver, "net_", 4) == 0 || strncmp(out->driver, "eth_", 4) == 0 ||
				    strncmp(out->driver, "virtio_user", 11) == 0
			    ? DEVICE_VDEV
			    : DEVICE_UNKNOWN;
}

const char *port_object(const struct preflight_port *port, char *buf, size_t len)
{
	snprintf(buf, len, "port %s (%s)", port->name, port->device);
	return buf;
}

// ---------------------------------------------------------------- installed drivers

// Folders that a DPDK of this machine loads drivers from: packaged, and built by hand.
static const char *const pmd_dirs[] = {
	"/usr/lib/*/dpdk/pmds-*",
	"/usr/lib/dpdk/pmds-*",
	"/usr/lib64/dpdk-pmds",
	"/usr/lib64/dpdk/pmds-*",
	"/usr/local/lib/*/dpdk/pmds-*",
	"/usr/local/lib/dpdk/pmds-*",
	"/usr/local/lib64/dpdk/pmds-*",
};

bool pmd_is_installed(const struct preflight_run *run, const char *pmd)
{
	char path[PREFLIGHT_PATH_MAX];
	for (size_t i = 0; i < ARRAY_SIZE(pmd_dirs); i++) {
		glob_t found;
		root_path(run, path, "%s/librte_net_%s.so*", pmd_dirs[i], pmd);
		bool there = glob(path, GLOB_NOSORT, NULL, &found) == 0;
		globfree(&found);
		if (there)
			return true;
	}
	return false;
}

// Debian's name: librte-net-af-packet23, librte-net-mlx5-23.
const char *pmd_package(const struct preflight_run *run, const char *pmd, char *buf, size_t len)
{
	char path[PREFLIGHT_PATH_MAX], abi[16] = "23", name[64];
	for (size_t i = 0; i < ARRAY_SIZE(pmd_dirs); i++) {
		glob_t found;
		root_path(run, path, "%s", pmd_dirs[i]);
		if (glob(path, 0, NULL, &found) == 0) {
			const char *mark = strstr(found.gl_pathv[0], "pmds-");
			if (mark != NULL)
				TEXT(abi, "%.*s", (int)strspn(mark + 5, "0123456789"), mark + 5);
		}
		globfree(&found);
	}
	TEXT(name, "%s", pmd);
	for (char *c = name; *c; c++)
		if (*c == '_')
			*c = '-';
	bool digit = name[0] && isdigit((unsigned char)name[strlen(name) - 1]);
	snprintf(buf, len, "librte-net-%s%s%s", name, digit ? "-" : "", abi);
	return buf;
}
