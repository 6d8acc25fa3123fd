// SPDX-License-Identifier: BSD-3-Clause
// Device strings: what a port's `device` may say, and what the EAL calls it.
//
//   0000:3b:00.0[,args]   PCI address (domain optional)
//   net_af_packet0,args   virtual device, any driver that the DPDK installation has
//   vdev:net_tap0,args    the same, said aloud
//   ifname:ens1f0[,args]  kernel name of a PCI interface; resolved through sysfs
//
// Arguments are passed on verbatim: nothing is added to what the user wrote.
#include "device_priv.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

// [domain:]bus:device.function, all hexadecimal. Writes the full form.
static bool parse_pci(const char *text, char *out, size_t len)
{
	unsigned domain = 0, bus, slot, function;
	int end = 0;
	if (sscanf(text, "%4x:%2x:%2x.%1x%n", &domain, &bus, &slot, &function, &end) != 4 ||
		text[end] != 0) {
		domain = 0;
		end = 0;
		if (sscanf(text, "%2x:%2x.%1x%n", &bus, &slot, &function, &end) != 3 ||
			text[end] != 0)
			return false;
	}
	if (slot > 31 || function > 7)
		return false;
	snprintf(out, len, "%04x:%02x:%02x.%x", domain, bus, slot, function);
	return true;
}

// A virtual device is a driver's name and a number: "net_tap0", "virtio_user1", "net_pcap_in".
static bool is_virtual_name(const char *text)
{
	if (!isalpha((unsigned char)text[0]))
		return false;
	for (const char *c = text; *c; c++) {
		if (!isalnum((unsigned char)*c) && *c != '_')
			return false;
	}
	return true;
}

// The PCI function above an interface: the last PCI address in the path of its device (virtio devices lie below theirs).
static bool find_pci_of(const char *root, const char *iface, char *out, size_t len)
{
	char link[4096], target[4096];
	snprintf(link, sizeof(link), "%s/sys/class/net/%s/device", root, iface);
	if (realpath(link, target) == NULL)
		return false;
	bool found = false;
	char *rest = NULL;
	for (char *part = strtok_r(target, "/", &rest); part; part = strtok_r(NULL, "/", &rest))
		found |= parse_pci(part, out, len);
	return found;
}

static int parse_ifname(const char *iface, const char *root, const char *path,
	struct device_name *out, struct error *err)
{
	char scrap[64];
	if (iface[0] == 0 || strlen(iface) >= IFNAMSIZ || strchr(iface, '/'))
		return error_add(err, EINVAL, path,
			"\"ifname:%s\" is no interface name (1 to 15 characters)", iface);
	char entry[4096];
	snprintf(entry, sizeof(entry), "%s/sys/class/net/%s", root, iface);
	char *found = realpath(entry, NULL);
	if (found == NULL)
		return error_add(
			err, ENODEV, path, "no interface \"%s\" in this network namespace", iface);
	free(found);
	if (!find_pci_of(root, iface, scrap, sizeof(scrap)))
		return error_add(err, ENODEV, path,
			"interface %s is virtual, it has no PCI device to take: use "
			"\"net_af_packet0,iface=%s\" or \"net_af_xdp0,iface=%s\"",
			iface, iface, iface);
	out->kind = DEVICE_KIND_PCI;
	snprintf(out->name, sizeof(out->name), "%s", scrap);
	return 0;
}

static const char *skip_word(const char *text, const char *word)
{
	size_t len = strlen(word);
	return strncmp(text, word, len) == 0 ? text + len : NULL;
}

int device_name_parse(const char *text, const char *root, const char *path, struct device_name *out,
	struct error *err)
{
	struct device_name name = { .kind = DEVICE_KIND_VIRTUAL };
	const char *comma = strchr(text, ',');
	size_t head_len = comma ? (size_t)(comma - text) : strlen(text);
	char head[128];
	if (head_len == 0 || head_len >= sizeof(head))
		return error_add(err, EINVAL, path, "\"%s\" names no device", text);
	memcpy(head, text, head_len);
	head[head_len] = 0;
	if (comma)
		snprintf(name.args, sizeof(name.args), "%s", comma + 1);
	const char *rest;
	if ((rest = skip_word(head, "ifname:")) != NULL) {
		int rc = parse_ifname(rest, root, path, &name, err);
		if (rc == 0)
			*out = name;
		return rc;
	}
	rest = skip_word(head, "vdev:");
	const char *pci = skip_word(head, "pci:");
	if (!rest && parse_pci(pci ? pci : head, name.name, sizeof(name.name))) {
		name.kind = DEVICE_KIND_PCI;
	} else if (!pci && is_virtual_name(rest ? rest : head) &&
		   strlen(rest ? rest : head) < sizeof(name.name)) {
		snprintf(name.name, sizeof(name.name), "%.63s", rest ? rest : head);
	} else {
		return error_add(err, EINVAL, path,
			"\"%s\" is no device: a PCI address (0000:3b:00.0), a virtual device "
			"(net_af_packet0,iface=veth0) or ifname:INTERFACE",
			text);
	}
	*out = name;
	return 0;
}

bool device_name_arg(const struct device_name *name, const char *key, char *out, size_t len)
{
	size_t key_len = strlen(key);
	for (const char *word = name->args; *word;) {
		size_t word_len = strcspn(word, ",");
		if (word_len > key_len && strncmp(word, key, key_len) == 0 &&
			word[key_len] == '=') {
			snprintf(out, len, "%.*s", (int)(word_len - key_len - 1),
				word + key_len + 1);
			return true;
		}
		word += word_len;
		word += *word == ',';
	}
	return false;
}

uint32_t device_name_number(const struct device_name *name, const char *key, uint32_t fallback)
{
	char text[16];
	if (!device_name_arg(name, key, text, sizeof(text)))
		return fallback;
	char *end;
	errno = 0;
	unsigned long value = strtoul(text, &end, 10);
	if (errno || end == text || *end || value > UINT32_MAX)
		return fallback;
	return (uint32_t)value;
}

bool device_name_is(const struct device_name *name, const char *driver)
{
	return name->kind == DEVICE_KIND_VIRTUAL &&
	       strncmp(name->name, driver, strlen(driver)) == 0;
}

uint32_t device_name_queues(const struct device_name *name)
{
	if (device_name_is(name, "net_af_packet") || device_name_is(name, "eth_af_packet"))
		return device_name_number(name, "qpairs", 1);
	if (device_name_is(name, "net_af_xdp"))
		return device_name_number(name, "queue_count", 1);
	if (device_name_is(name, "net_vhost") || device_name_is(name, "net_virtio_user") ||
		device_name_is(name, "virtio_user"))
		return device_name_number(name, "queues", 1);
	return 0;
}
