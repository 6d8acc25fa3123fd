// SPDX-License-Identifier: BSD-3-Clause
// Which CPU does what. `auto`, in this order: isolated CPUs (isolcpus=, nohz_full=) if the machine has any, else all that the
// process may use; those on the NUMA node of the first port that has one come first; never the control CPU, never CPU 0 when
// there is another; one of two SMT siblings. As many workers as the ports can feed: the queues that the device strings
// or the configuration name, else up to 8 for hardware ports, one for virtual ones. What was chosen is said, with the reason.
//
// A list from the configuration is taken as it stands, in its order; a CPU may appear twice or be the control CPU too (tiny
// machines, tests): each entry is one worker thread.
#include "device_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define AUTO_WORKERS_MAX 8

struct machine_cpus {
	cpu_set_t online;
	cpu_set_t allowed; // by affinity; isolated ones are added
	cpu_set_t isolated;
};

static void read_set(const char *root, const char *path, cpu_set_t *out)
{
	char text[1024];
	CPU_ZERO(out);
	if (machine_read(root, text, sizeof(text), "%s", path))
		machine_parse_cpus(text, out);
}

static void read_allowed(const char *root, cpu_set_t *out)
{
	char path[1024], line[1024];
	CPU_ZERO(out);
	snprintf(path, sizeof(path), "%s/proc/self/status", root);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return;
	while (fgets(line, sizeof(line), file)) {
		static const char key[] = "Cpus_allowed_list:\t";
		if (strncmp(line, key, sizeof(key) - 1) != 0)
			continue;
		line[strcspn(line, "\n")] = 0;
		machine_parse_cpus(line + sizeof(key) - 1, out);
		break;
	}
	fclose(file);
}

static void read_cpus(const char *root, struct machine_cpus *out)
{
	cpu_set_t tickless;
	read_set(root, "sys/devices/system/cpu/online", &out->online);
	if (CPU_COUNT(&out->online) == 0)
		CPU_SET(0, &out->online);
	read_set(root, "sys/devices/system/cpu/isolated", &out->isolated);
	read_set(root, "sys/devices/system/cpu/nohz_full", &tickless);
	CPU_OR(&out->isolated, &out->isolated, &tickless);
	CPU_AND(&out->isolated, &out->isolated, &out->online);
	read_allowed(root, &out->allowed);
	if (CPU_COUNT(&out->allowed) == 0)
		out->allowed = out->online;
	CPU_OR(&out->allowed, &out->allowed, &out->isolated);
	CPU_AND(&out->allowed, &out->allowed, &out->online);
}

static int refuse_cpu(
	unsigned long cpu, const struct machine_cpus *cpus, const char *path, struct error *err)
{
	char online[128];
	return error_add(err, EINVAL, path, "CPU %lu is not online, there are %s", cpu,
		machine_format_cpus(&cpus->online, online, sizeof(online)));
}

// One number or range at *text; advances it past the comma.
static bool parse_range(const char **text, unsigned long *out_first, unsigned long *out_last)
{
	char *end;
	*out_first = *out_last = strtoul(*text, &end, 10);
	if (end == *text || **text == '-' || **text == '+')
		return false;
	if (*end == '-') {
		const char *second = end + 1;
		*out_last = strtoul(second, &end, 10);
		if (end == second)
			return false;
	}
	if (*end == ',' && end[1] != 0)
		end++;
	else if (*end != 0)
		return false;
	*text = end;
	return *out_first <= *out_last;
}

static int take_list(const char *list, const struct machine_cpus *cpus, struct device_plan *plan,
	struct error *err)
{
	static const char path[] = "workers.cores";
	uint16_t n = 0;
	const char *text = list;
	while (*text) {
		unsigned long first, last;
		if (!parse_range(&text, &first, &last))
			return error_add(err, EINVAL, path,
				"\"%s\" is no list of CPUs such as \"2-5,8\", nor \"auto\"", list);
		for (unsigned long cpu = first; cpu <= last; cpu++) {
			if (cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, &cpus->online))
				return refuse_cpu(cpu, cpus, path, err);
			if (n == DEVICE_WORKERS_MAX)
				return error_add(err, EINVAL, path,
					"\"%s\" is more than %d workers", list, DEVICE_WORKERS_MAX);
			plan->cpus[n++] = (uint16_t)cpu;
		}
	}
	plan->n_workers = n;
	return 0;
}

static bool is_worker(const struct device_plan *plan, int cpu)
{
	for (uint16_t i = 0; i < plan->n_workers; i++) {
		if (plan->cpus[i] == cpu)
			return true;
	}
	return false;
}

// Lowest CPU for control that no worker has; ordinary CPUs before isolated ones. Else it shares with the first worker.
static void choose_control(const struct machine_cpus *cpus, struct device_plan *plan)
{
	int spare = -1;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &cpus->allowed) || is_worker(plan, cpu))
			continue;
		if (!CPU_ISSET(cpu, &cpus->isolated)) {
			plan->control_cpu = (uint16_t)cpu;
			return;
		}
		if (spare < 0)
			spare = cpu;
	}
	plan->control_cpu = spare >= 0 ? (uint16_t)spare : plan->cpus[0];
}

static int take_control(const char *text, const struct machine_cpus *cpus, struct device_plan *plan,
	struct error *err)
{
	char *end;
	unsigned long cpu = strtoul(text, &end, 10);
	if (end == text || *end || *text == '-' || *text == '+')
		return error_add(err, EINVAL, "workers.control_core",
			"\"%s\" is neither a CPU number nor \"auto\"", text);
	if (cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, &cpus->online))
		return refuse_cpu(cpu, cpus, "workers.control_core", err);
	plan->control_cpu = (uint16_t)cpu;
	return 0;
}

// How many workers the ports can feed.
static uint32_t wanted_workers(
	const struct device_config *config, const struct device_name *names, bool *out_said)
{
	uint32_t n = 0;
	bool hardware = false;
	for (uint32_t i = 0; i < config->n_ports; i++) {
		uint32_t queues = config->ports[i].queues;
		if (queues == 0)
			queues = device_name_queues(&names[i]);
		hardware |= names[i].kind == DEVICE_KIND_PCI && queues == 0;
		if (queues > n)
			n = queues;
	}
	*out_said = !hardware;
	if (hardware)
		n = AUTO_WORKERS_MAX;
	if (n == 0)
		n = 1;
	return n < DEVICE_WORKERS_MAX ? n : DEVICE_WORKERS_MAX;
}

static int port_node(
	const struct device_config *config, const struct device_name *names, const char *root)
{
	for (uint32_t i = 0; i < config->n_ports; i++) {
		int node = names[i].kind == DEVICE_KIND_PCI ? machine_pci_node(root, names[i].name)
							    : -1;
		if (node >= 0)
			return node;
	}
	return -1;
}

static void siblings_of(const char *root, int cpu, cpu_set_t *out)
{
	char path[96];
	snprintf(path, sizeof(path), "sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
		cpu);
	read_set(root, path, out);
	CPU_SET(cpu, out);
}

struct picker {
	const char *root;
	cpu_set_t pool;
	cpu_set_t avoid;
	uint32_t wanted;
};

// Takes CPUs until there are enough workers: those on `node` (-1: any). Each takes its SMT siblings out of the game.
static void pick_cpus(struct picker *p, int node, struct device_plan *plan)
{
	for (int cpu = 0; cpu < CPU_SETSIZE && plan->n_workers < p->wanted; cpu++) {
		if (!CPU_ISSET(cpu, &p->pool) || CPU_ISSET(cpu, &p->avoid))
			continue;
		if (node >= 0 && machine_cpu_node(p->root, (uint16_t)cpu) != node)
			continue;
		cpu_set_t siblings;
		siblings_of(p->root, cpu, &siblings);
		CPU_OR(&p->avoid, &p->avoid, &siblings);
		plan->cpus[plan->n_workers++] = (uint16_t)cpu;
	}
}

static void choose_workers(
	const struct machine_cpus *cpus, struct picker *p, int node, struct device_plan *plan)
{
	bool isolated = CPU_COUNT(&cpus->isolated) > 0;
	p->pool = isolated ? cpus->isolated : cpus->allowed;
	cpu_set_t siblings;
	siblings_of(p->root, plan->control_cpu, &siblings);
	p->avoid = siblings;
	CPU_SET(0, &p->avoid);
	if (node >= 0)
		pick_cpus(p, node, plan);
	pick_cpus(p, -1, plan);
	if (plan->n_workers == 0) { // nothing but SMT siblings of control, or CPU 0
		CPU_ZERO(&p->avoid);
		CPU_SET(plan->control_cpu, &p->avoid);
		p->wanted = 1;
		pick_cpus(p, -1, plan);
	}
	if (plan->n_workers == 0)
		plan->cpus[plan->n_workers++] = plan->control_cpu;
}

static void explain_auto(const struct machine_cpus *cpus, uint32_t wanted, bool said, int node,
	struct device_plan *plan)
{
	char where[32] = "no port has a NUMA node";
	if (node >= 0)
		snprintf(where, sizeof(where), "ports on node %d", node);
	const char *shared = "";
	if (plan->n_workers == 1 && plan->cpus[0] == plan->control_cpu)
		shared = ", the only CPU: shared with control";
	snprintf(plan->cores_reason, sizeof(plan->cores_reason),
		"auto: %u of %u wanted (%s), from %s, %s%s", plan->n_workers, wanted,
		said ? "queues of the ports" : "hardware ports",
		CPU_COUNT(&cpus->isolated) ? "isolated CPUs" : "CPUs of this process", where,
		shared);
}

static int place_all(const struct device_config *config, const char *root, struct device_plan *plan)
{
	plan->control_numa = machine_cpu_node(root, plan->control_cpu);
	for (uint16_t i = 0; i < plan->n_workers; i++)
		plan->numas[i] = machine_cpu_node(root, plan->cpus[i]);
	if (plan->cores_reason[0] == 0)
		snprintf(plan->cores_reason, sizeof(plan->cores_reason),
			"workers.cores = \"%.100s\"", config->cores);
	return 0;
}

static bool is_auto(const char *text)
{
	return text[0] == 0 || strcmp(text, "auto") == 0;
}

int cores_choose(const struct device_config *config, const struct device_name *names,
	const char *root, struct device_plan *plan, struct error *err)
{
	struct machine_cpus cpus;
	read_cpus(root, &cpus);
	int rc = 0;
	if (!is_auto(config->cores))
		rc = take_list(config->cores, &cpus, plan, err);
	if (rc == 0 && !is_auto(config->control_core))
		rc = take_control(config->control_core, &cpus, plan, err);
	else if (rc == 0)
		choose_control(&cpus, plan);
	if (rc)
		return rc;
	if (plan->n_workers == 0) {
		bool said;
		uint32_t wanted = wanted_workers(config, names, &said);
		int node = port_node(config, names, root);
		struct picker picker = { .root = root, .wanted = wanted };
		choose_workers(&cpus, &picker, node, plan);
		explain_auto(&cpus, wanted, said, node, plan);
	}
	return place_all(config, root, plan);
}
