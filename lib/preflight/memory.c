// SPDX-License-Identifier: BSD-3-Clause
// Checks of memory: huge pages by node and size, their mount, ordinary memory, and who holds what
// is missing.
#include "preflight_priv.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PAGES "/sys/kernel/mm/hugepages"
#define NODES "/sys/devices/system/node"

struct pages {
	const char *dir;  // of one node, or of the machine
	uint64_t page_kb; // of the size with the most free memory (2M where nothing is free)
	uint64_t total_kb;
	uint64_t free_kb;
	uint64_t best_kb;
};

static bool pages_visit(const struct preflight_run *run, const char *name, void *arg)
{
	struct pages *pages = arg;
	uint64_t kb;
	if (sscanf(name, "hugepages-%" SCNu64 "kB", &kb) != 1 || kb == 0 || kb > 1u << 30)
		return true;
	int64_t n = root_number(run, 0, "%s/%s/nr_hugepages", pages->dir, name);
	int64_t n_free = root_number(run, 0, "%s/%s/free_hugepages", pages->dir, name);
	if (n < 0 || n_free < 0 || n > UINT32_MAX || n_free > UINT32_MAX)
		return true;
	pages->total_kb += (uint64_t)n * kb;
	pages->free_kb += (uint64_t)n_free * kb;
	if ((uint64_t)n_free * kb > pages->best_kb || pages->page_kb == 0) {
		pages->best_kb = (uint64_t)n_free * kb;
		pages->page_kb = kb;
	}
	return true;
}

static struct pages pages_count(const struct preflight_run *run, const char *dir)
{
	struct pages pages = { .dir = dir };
	root_each(run, dir, pages_visit, &pages);
	if (pages.best_kb == 0 && root_exists(run, "%s/hugepages-2048kB", dir))
		pages.page_kb = 2048;
	return pages;
}

static bool hugetlbfs_is_mounted(const struct preflight_run *run)
{
	char line[512], type[32];
	bool found = false;
	FILE *file = root_open(run, "/proc/mounts");
	if (file == NULL)
		return false;
	while (!found && fgets(line, sizeof(line), file) != NULL)
		found = sscanf(line, "%*s %*s %31s", type) == 1 && strcmp(type, "hugetlbfs") == 0;
	fclose(file);
	return found;
}

void check_hugetlbfs(struct preflight_run *run)
{
	struct pages pages = pages_count(run, PAGES);
	char cause[256];
	if (hugetlbfs_is_mounted(run)) {
		preflight_finding_add(run, PREFLIGHT_OK, "hugetlbfs", "mounted", NULL);
	} else if (!run->input->hugetlbfs_required) {
		preflight_finding_add(
			run, PREFLIGHT_OK, "hugetlbfs", "not mounted, not needed", NULL);
	} else {
		TEXT(cause, "%" PRIu64 " x %" PRIu64 " kB reserved but hugetlbfs is not mounted",
			pages.page_kb ? pages.total_kb / pages.page_kb : 0, pages.page_kb);
		preflight_finding_add(run, PREFLIGHT_ERROR, "hugetlbfs", cause,
			"mkdir -p /dev/hugepages && mount -t hugetlbfs hugetlbfs /dev/hugepages");
	}
}

// ---------------------------------------------------------------- who holds huge pages

struct holder {
	uint64_t kb;
	int32_t pid;
};

static bool holder_visit(const struct preflight_run *run, const char *name, void *arg)
{
	struct holder *holder = arg;
	char text[4096];
	uint64_t kb;
	if (name[0] < '0' || name[0] > '9' ||
		root_read(run, text, sizeof(text), "/proc/%s/status", name) <= 0)
		return true;
	const char *row = strstr(text, "\nHugetlbPages:");
	if (row == NULL || sscanf(row + 14, "%" SCNu64, &kb) != 1 || kb <= holder->kb)
		return true;
	holder->kb = kb;
	holder->pid = atoi(name);
	return true;
}

// "; 6144 MB held by sluiced, pid 812" appended to a cause.
static void append_holder(struct preflight_run *run, char *cause, size_t len)
{
	struct holder holder = { 0 };
	char name[64];
	root_each(run, "/proc", holder_visit, &holder);
	if (holder.pid == 0)
		return;
	process_name(run, holder.pid, name, sizeof(name));
	text_append(cause, len, "; %" PRIu64 " MB held by %s, pid %d", holder.kb >> 10,
		name[0] ? name : "?", holder.pid);
}

static void huge_short(
	struct preflight_run *run, const char *where, const struct pages *pages, uint64_t need_kb)
{
	char object[64], cause[512];
	uint64_t page_kb = pages->page_kb ? pages->page_kb : 2048;
	uint64_t missing = (need_kb - pages->free_kb + page_kb - 1) / page_kb;
	uint64_t wanted = pages->total_kb / page_kb + missing;
	enum preflight_severity severity =
		run->input->hugepages_required ? PREFLIGHT_ERROR : PREFLIGHT_WARN;
	TEXT(object, "huge pages%s%s", where[0] ? " of " : "", where);
	TEXT(cause, "need %" PRIu64 " MB%s%s, free %" PRIu64 " MB of %" PRIu64 " kB pages",
		need_kb >> 10, where[0] ? " on " : "", where, pages->free_kb >> 10, page_kb);
	append_holder(run, cause, sizeof(cause));
	if (severity == PREFLIGHT_WARN)
		text_append(cause, sizeof(cause), "; ordinary memory is used instead");
	preflight_finding_add(run, severity, object, cause,
		"echo %" PRIu64 " > %s/hugepages-%" PRIu64
		"kB/nr_hugepages (permanent: vm.nr_hugepages in /etc/sysctl.d/sluice.conf)",
		wanted, pages->dir, page_kb);
}

// Nodes of the ports' devices, as bits; 0 = no port has one.
static uint64_t port_nodes(const struct preflight_run *run)
{
	uint64_t nodes = 0;
	for (uint32_t i = 0; i < run->input->n_ports; i++) {
		struct device_name device;
		preflight_device_parse(run, run->input->ports[i].device, &device);
		if (device.pci[0] == 0)
			continue;
		int64_t node =
			root_number(run, -1, "/sys/bus/pci/devices/%s/numa_node", device.pci);
		if (node >= 0 && node < 64)
			nodes |= 1ull << node;
	}
	return nodes;
}

static void check_node_pages(struct preflight_run *run, uint32_t node, uint64_t need_kb)
{
	char dir[128], where[32];
	TEXT(dir, NODES "/node%u/hugepages", node);
	TEXT(where, "node %u", node);
	struct pages pages = pages_count(run, dir);
	if (pages.free_kb < need_kb)
		huge_short(run, where, &pages, need_kb);
}

void check_hugepages(struct preflight_run *run)
{
	const struct preflight_input *input = run->input;
	uint64_t need_kb = (input->memory_bytes ? input->memory_bytes : PREFLIGHT_MEMORY_MIN) >> 10;
	uint32_t before = run->report->n_warn + run->report->n_error;
	uint64_t nodes = port_nodes(run);
	uint32_t n_nodes = (uint32_t)__builtin_popcountll(nodes);
	struct pages pages = pages_count(run, PAGES);
	char cause[128];
	if (!input->hugepages) {
		preflight_finding_add(run, PREFLIGHT_OK, "huge pages", "switched off", NULL);
		return;
	}
	if (pages.total_kb == 0 && !input->hugepages_required) {
		preflight_finding_add(run, PREFLIGHT_OK, "huge pages",
			"none reserved: ordinary memory is used", NULL);
		return;
	}
	if (!input->starting && input->running_pid > 0) {
		preflight_finding_add(
			run, PREFLIGHT_OK, "huge pages", "in use by the running sluiced", NULL);
		return;
	}
	for (uint32_t node = 0; node < 64; node++)
		if (nodes >> node & 1)
			check_node_pages(run, node, need_kb / n_nodes);
	if (nodes == 0 && pages.free_kb < need_kb)
		huge_short(run, "", &pages, need_kb);
	if (run->report->n_warn + run->report->n_error != before)
		return;
	TEXT(cause, "%" PRIu64 " MB free, %" PRIu64 " MB needed", pages.free_kb >> 10,
		need_kb >> 10);
	preflight_finding_add(run, PREFLIGHT_OK, "huge pages", cause, NULL);
}

void check_memory(struct preflight_run *run)
{
	const struct preflight_input *input = run->input;
	char text[2048], cause[256];
	uint64_t need_kb = (input->memory_bytes ? input->memory_bytes : PREFLIGHT_MEMORY_MIN) >> 10;
	uint64_t available_kb;
	const char *row = NULL;
	if (root_read(run, text, sizeof(text), "/proc/meminfo") > 0)
		row = strstr(text, "MemAvailable:");
	if (row == NULL || sscanf(row + 13, "%" SCNu64, &available_kb) != 1) {
		preflight_finding_add(run, PREFLIGHT_OK, "memory", "not known", NULL);
		return;
	}
	// Huge pages are not part of MemAvailable: where they serve, only small tables remain.
	struct pages pages = pages_count(run, PAGES);
	if (input->hugepages && pages.free_kb >= need_kb)
		need_kb = PREFLIGHT_MEMORY_MIN >> 10;
	TEXT(cause, "%" PRIu64 " MB available, %" PRIu64 " MB needed", available_kb >> 10,
		need_kb >> 10);
	if (available_kb >= need_kb || (!input->starting && input->running_pid > 0))
		preflight_finding_add(run, PREFLIGHT_OK, "memory", cause, NULL);
	else
		preflight_finding_add(run, PREFLIGHT_ERROR, "memory", cause,
			"set memory.size or flows.capacity lower, or free memory (ps -eo "
			"rss,pid,comm --sort -rss | head)");
}
