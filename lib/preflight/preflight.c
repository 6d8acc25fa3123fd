// SPDX-License-Identifier: BSD-3-Clause
// The table of checks, the run over it, and the report. What each check looks at stands in
// machine.c (process, cores, tuning), memory.c (huge pages), ports.c (devices and drivers) and
// network.c (twins, offloads, addresses).
#include "preflight_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const struct preflight_check preflight_checks[] = {
	{ "E_PERM", "may this user open devices, packet sockets and twins", check_permissions },
	{ "E_RUNNING", "is another sluiced serving on the admin socket", check_running },
	{ "E_LIMIT", "open files, locked memory, files of the whole machine", check_limits },
	{ "E_TUN", "is /dev/net/tun there, are the twins' names free", check_tun },
	{ "E_CORE", "are the cores asked for there and online", check_cores },
	{ "E_HUGE_MOUNT", "is hugetlbfs mounted where it is needed", check_hugetlbfs },
	{ "E_HUGE_SHORT", "are there enough free huge pages", check_hugepages },
	{ "E_MEMORY", "is there enough ordinary memory", check_memory },
	{ "E_PMD", "is DPDK's driver for each port installed", check_pmd },
	{ "E_PORT_MISSING", "is each port's device there", check_port_missing },
	{ "E_PORT_DRIVER", "is each port's device free to be taken", check_port_driver },
	{ "E_IOMMU_OFF", "can vfio take PCI devices", check_iommu_off },
	{ "E_IOMMU_GROUP", "is each port alone in its IOMMU group", check_iommu_group },
	{ "E_VDEV", "are the interfaces and files of virtual ports there", check_vdev },
	{ "E_SNAT_PORTS", "do SNAT ports stay clear of the host's own", check_snat_ports },
	{ "W_NUMA", "are ports and worker cores on one node", check_numa },
	{ "W_MTU", "does each interface carry its port's MTU", check_mtu },
	{ "W_PARTIAL_CSUM", "do veth peers fill their checksums in", check_partial_checksum },
	{ "W_TWIN_GUARD", "does the kernel stay silent on af_packet interfaces", check_twin_guard },
	{ "W_TUNE", "governor, sibling threads, isolation, huge page daemon", check_tuning },
};
const uint32_t preflight_n_checks = ARRAY_SIZE(preflight_checks);

const char *preflight_severity_name(enum preflight_severity severity)
{
	static const char *const names[] = { "ok", "warn", "error" };
	return names[severity];
}

const char *text_format(char *buf, size_t len, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	vsnprintf(buf, len, fmt, args);
	va_end(args);
	return buf;
}

void text_append(char *buf, size_t len, const char *fmt, ...)
{
	size_t used = strlen(buf);
	va_list args;
	va_start(args, fmt);
	vsnprintf(buf + used, len - used, fmt, args);
	va_end(args);
}

// Findings quote file contents and configuration: keep them to one printable line.
static void text_clean(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = ' ';
}

void preflight_finding_add(struct preflight_run *run, enum preflight_severity severity,
	const char *object, const char *cause, const char *command_fmt, ...)
{
	struct preflight_report *report = run->report;
	if (array_grow(report->items, report->n_items, report->cap) != 0) {
		run->status = -ENOMEM;
		return;
	}
	struct preflight_finding *f = &report->items[report->n_items++];
	memset(f, 0, sizeof(*f));
	f->id = run->id;
	f->severity = severity;
	snprintf(f->object, sizeof(f->object), "%s", object);
	snprintf(f->cause, sizeof(f->cause), "%s", cause);
	if (command_fmt != NULL) {
		va_list args;
		va_start(args, command_fmt);
		vsnprintf(f->command, sizeof(f->command), command_fmt, args);
		va_end(args);
	}
	text_clean(f->object);
	text_clean(f->cause);
	text_clean(f->command);
	report->n_ok += severity == PREFLIGHT_OK;
	report->n_warn += severity == PREFLIGHT_WARN;
	report->n_error += severity == PREFLIGHT_ERROR;
}

int preflight_run(const struct preflight_input *input, struct preflight_report *out)
{
	struct preflight_input bounded = *input;
	if (bounded.n_ports > PREFLIGHT_PORTS_MAX)
		bounded.n_ports = PREFLIGHT_PORTS_MAX;
	struct preflight_run run = { .input = &bounded, .report = out };
	for (uint32_t i = 0; i < preflight_n_checks; i++) {
		run.id = preflight_checks[i].id;
		preflight_checks[i].run(&run);
	}
	return run.status;
}

void preflight_report_fini(struct preflight_report *report)
{
	free(report->items);
	memset(report, 0, sizeof(*report));
}

const char *preflight_format(const struct preflight_finding *f, char *buf, size_t len)
{
	snprintf(buf, len, "%s %s: %s%s%s", f->id, f->object, f->cause,
		f->command[0] ? "; try: " : "", f->command);
	return buf;
}
