// SPDX-License-Identifier: BSD-3-Clause
// What the plan wants to know of the machine, read below a root folder so that tests bring their own.
#include "device_priv.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

bool machine_read(const char *root, char *out, size_t len, const char *fmt, ...)
{
	char rest[512], path[1024];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(rest, sizeof(rest), fmt, ap);
	va_end(ap);
	snprintf(path, sizeof(path), "%s/%s", root, rest);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return false;
	bool ok = fgets(out, (int)len, file) != NULL;
	fclose(file);
	if (ok)
		out[strcspn(out, "\n")] = 0;
	return ok;
}

bool machine_parse_cpus(const char *text, cpu_set_t *out)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	while (*text) {
		char *end;
		unsigned long first = strtoul(text, &end, 10);
		unsigned long last = first;
		if (end == text)
			return false;
		if (*end == '-') {
			text = end + 1;
			last = strtoul(text, &end, 10);
			if (end == text)
				return false;
		}
		if (first > last || last >= CPU_SETSIZE)
			return false;
		for (unsigned long cpu = first; cpu <= last; cpu++)
			CPU_SET(cpu, &set);
		text = end;
		if (*text == ',' && text[1])
			text++;
		else if (*text)
			return false;
	}
	*out = set;
	return true;
}

const char *machine_format_cpus(const cpu_set_t *set, char *buf, size_t len)
{
	size_t n = 0;
	buf[0] = 0;
	for (int cpu = 0; cpu < CPU_SETSIZE && n + 16 < len; cpu++) {
		if (!CPU_ISSET(cpu, set))
			continue;
		int first = cpu;
		while (cpu + 1 < CPU_SETSIZE && CPU_ISSET(cpu + 1, set))
			cpu++;
		const char *comma = n ? "," : "";
		if (first == cpu)
			n += (size_t)snprintf(buf + n, len - n, "%s%d", comma, first);
		else
			n += (size_t)snprintf(buf + n, len - n, "%s%d-%d", comma, first, cpu);
	}
	return buf;
}

static int for_each_node(
	const char *root, bool (*fn)(const char *root, int node, void *arg), void *arg)
{
	char path[1024];
	snprintf(path, sizeof(path), "%s/sys/devices/system/node", root);
	DIR *dir = opendir(path);
	if (dir == NULL)
		return -1;
	int found = -1;
	for (struct dirent *entry; found < 0 && (entry = readdir(dir)) != NULL;) {
		int node, end = 0;
		if (sscanf(entry->d_name, "node%d%n", &node, &end) == 1 &&
			entry->d_name[end] == 0 && fn(root, node, arg))
			found = node;
	}
	closedir(dir);
	return found;
}

static bool node_has_cpu(const char *root, int node, void *arg)
{
	char text[512];
	cpu_set_t set;
	return machine_read(
		       root, text, sizeof(text), "sys/devices/system/node/node%d/cpulist", node) &&
	       machine_parse_cpus(text, &set) && CPU_ISSET(*(const uint16_t *)arg, &set);
}

int machine_cpu_node(const char *root, uint16_t cpu)
{
	return for_each_node(root, node_has_cpu, &cpu);
}

int machine_pci_node(const char *root, const char *address)
{
	char text[32];
	if (!machine_read(root, text, sizeof(text), "sys/bus/pci/devices/%s/numa_node", address))
		return -1;
	return (int)strtol(text, NULL, 10);
}

uint64_t machine_free_hugepage_bytes(const char *root)
{
	char path[1024];
	snprintf(path, sizeof(path), "%s/sys/kernel/mm/hugepages", root);
	DIR *dir = opendir(path);
	if (dir == NULL)
		return 0;
	uint64_t bytes = 0;
	for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
		unsigned long kb;
		char text[32];
		if (sscanf(entry->d_name, "hugepages-%lukB", &kb) == 1 &&
			machine_read(root, text, sizeof(text),
				"sys/kernel/mm/hugepages/%.200s/free_hugepages", entry->d_name))
			bytes += strtoull(text, NULL, 10) * kb * 1024;
	}
	closedir(dir);
	return bytes;
}

bool machine_has_iommu(const char *root)
{
	char path[1024];
	snprintf(path, sizeof(path), "%s/sys/kernel/iommu_groups", root);
	DIR *dir = opendir(path);
	if (dir == NULL)
		return false;
	bool any = false;
	for (struct dirent *entry; !any && (entry = readdir(dir)) != NULL;)
		any = entry->d_name[0] != '.';
	closedir(dir);
	return any;
}
