// SPDX-License-Identifier: BSD-3-Clause
// Checks of the process and the processor: privileges, a second instance, limits, cores, NUMA
// placement, tuning.
#include "preflight_priv.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

// Numbers of linux/capability.h.
#define CAPABILITY_NET_ADMIN 12
#define CAPABILITY_NET_RAW   13
#define CAPABILITY_IPC_LOCK  14

#define NOFILE_MIN    4096 // a probe, a connection of the admin API and a watch hold one each
#define FILE_MAX_MIN  8192
#define COMM_MAX      64
#define TUNE_LIST_MAX 256

static bool has_capability(const struct preflight_input *input, uint32_t n)
{
	return (input->capabilities >> n & 1) != 0;
}

void check_permissions(struct preflight_run *run)
{
	const struct preflight_input *input = run->input;
	char missing[128] = "", object[64], cause[256];
	if (!has_capability(input, CAPABILITY_NET_ADMIN))
		text_append(missing, sizeof(missing), " CAP_NET_ADMIN");
	if (!has_capability(input, CAPABILITY_NET_RAW))
		text_append(missing, sizeof(missing), " CAP_NET_RAW");
	if (!has_capability(input, CAPABILITY_IPC_LOCK) && input->hugepages)
		text_append(missing, sizeof(missing), " CAP_IPC_LOCK");
	TEXT(object, "uid %u", input->uid);
	if (missing[0] == 0) {
		preflight_finding_add(run, PREFLIGHT_OK, object,
			"may open devices, packet sockets and twins", NULL);
		return;
	}
	TEXT(cause, "running as uid %u without%s: ports, twins and neighbours cannot be set up",
		input->uid, missing);
	preflight_finding_add(run, PREFLIGHT_ERROR, object, cause,
		"run as root (sudo), or give the service unit AmbientCapabilities=CAP_NET_ADMIN "
		"CAP_NET_RAW CAP_IPC_LOCK");
}

void process_name(const struct preflight_run *run, int32_t pid, char *buf, size_t len)
{
	root_read(run, buf, len, "/proc/%d/comm", pid);
}

// ---------------------------------------------------------------- a second instance

struct socket_search {
	char link[40]; // "socket:[1234]"
	int32_t pid;
	int32_t owner;
};

static bool socket_visit_fd(const struct preflight_run *run, const char *name, void *arg)
{
	struct socket_search *search = arg;
	char target[64];
	if (!root_link(run, target, sizeof(target), 0, "/proc/%d/fd/%s", search->pid, name) ||
		strcmp(target, search->link) != 0)
		return true;
	search->owner = search->pid;
	return false;
}

static bool socket_visit_process(const struct preflight_run *run, const char *name, void *arg)
{
	struct socket_search *search = arg;
	char dir[64];
	if (name[0] < '0' || name[0] > '9')
		return true;
	search->pid = atoi(name);
	TEXT(dir, "/proc/%d/fd", search->pid);
	root_each(run, dir, socket_visit_fd, search);
	return search->owner == 0;
}

// Inode of a listening UNIX socket bound to `path` in /proc/net/unix, 0 = none.
static uint64_t socket_inode(const struct preflight_run *run, const char *path)
{
	char line[512], bound[256];
	uint32_t flags;
	uint64_t inode, found = 0;
	FILE *file = root_open(run, "/proc/net/unix");
	if (file == NULL)
		return 0;
	while (found == 0 && fgets(line, sizeof(line), file) != NULL) {
		if (sscanf(line, "%*s %*x %*x %x %*x %*x %" SCNu64 " %255s", &flags, &inode,
			    bound) != 3)
			continue;
		if ((flags & 0x10000) && strcmp(bound, path) == 0) // __SO_ACCEPTCON
			found = inode;
	}
	fclose(file);
	return found;
}

// Process that listens on the admin socket: as the socket itself said, else by the tables of this
// namespace. -1: one listens, but which is hidden; 0: none.
static int32_t running_pid(const struct preflight_run *run)
{
	struct socket_search search = { 0 };
	if (run->input->running_pid > 0)
		return run->input->running_pid;
	uint64_t inode = socket_inode(run, run->input->socket_path);
	if (inode == 0)
		return 0;
	TEXT(search.link, "socket:[%" PRIu64 "]", inode);
	root_each(run, "/proc", socket_visit_process, &search);
	return search.owner ? search.owner : -1;
}

void check_running(struct preflight_run *run)
{
	const char *path = run->input->socket_path;
	char object[128], cause[256], name[COMM_MAX];
	if (path == NULL || path[0] == 0)
		return;
	TEXT(object, "socket %s", path);
	int32_t pid = running_pid(run);
	if (pid == 0) {
		preflight_finding_add(run, PREFLIGHT_OK, object,
			run->input->starting ? "free" : "no sluiced is running", NULL);
		return;
	}
	if (pid > 0) {
		process_name(run, pid, name, sizeof(name));
		TEXT(cause, "%s, pid %d, is serving here", name[0] ? name : "a process", pid);
	} else {
		TEXT(cause, "a process that this user may not see is serving here");
	}
	if (!run->input->starting)
		preflight_finding_add(run, PREFLIGHT_OK, object, cause, NULL);
	else if (pid > 0)
		preflight_finding_add(run, PREFLIGHT_ERROR, object, cause,
			"kill %d (stop it), or give this one another admin.socket, state_dir and "
			"other ports",
			pid);
	else
		preflight_finding_add(run, PREFLIGHT_ERROR, object, cause, "ss -xlp src %s", path);
}

// ---------------------------------------------------------------- limits

// Hard limit of a row of /proc/self/limits. UINT64_MAX: unlimited or not known.
static uint64_t hard_limit(const struct preflight_run *run, const char *row)
{
	char line[256], value[32];
	uint64_t limit = UINT64_MAX;
	FILE *file = root_open(run, "/proc/self/limits");
	if (file == NULL)
		return limit;
	size_t len = strlen(row);
	while (fgets(line, sizeof(line), file) != NULL) {
		if (strncmp(line, row, len) == 0 && sscanf(line + len, "%*s %31s", value) == 1 &&
			value[0] != 'u')
			limit = strtoull(value, NULL, 10);
	}
	fclose(file);
	return limit;
}

// Pinned memory is wanted by PCI devices (vfio) and af_xdp rings.
static bool pins_memory(const struct preflight_run *run)
{
	struct device_name device;
	for (uint32_t i = 0; i < run->input->n_ports; i++) {
		preflight_device_parse(run, run->input->ports[i].device, &device);
		if (device.kind == DEVICE_PCI || strstr(device.driver, "af_xdp") != NULL)
			return true;
	}
	return false;
}

void check_limits(struct preflight_run *run)
{
	char cause[256];
	uint32_t before = run->report->n_error;
	uint64_t nofile = hard_limit(run, "Max open files");
	uint64_t memlock = hard_limit(run, "Max locked memory");
	uint64_t need = run->input->memory_bytes ? run->input->memory_bytes : PREFLIGHT_MEMORY_MIN;
	int64_t file_max = root_number(run, INT64_MAX, "/proc/sys/fs/file-max");
	if (nofile < NOFILE_MIN) {
		TEXT(cause, "hard limit of open files is %" PRIu64 ", %d are needed", nofile,
			NOFILE_MIN);
		preflight_finding_add(run, PREFLIGHT_ERROR, "RLIMIT_NOFILE", cause,
			"ulimit -Hn 65536 (as root), or LimitNOFILE=65536 in the service unit");
	}
	if (memlock < need && pins_memory(run) &&
		!has_capability(run->input, CAPABILITY_IPC_LOCK)) {
		TEXT(cause, "%" PRIu64 " bytes may be locked, %" PRIu64 " are needed", memlock,
			need);
		preflight_finding_add(run, PREFLIGHT_ERROR, "RLIMIT_MEMLOCK", cause,
			"ulimit -l unlimited, or LimitMEMLOCK=infinity in the service unit");
	}
	if (file_max < FILE_MAX_MIN) {
		TEXT(cause, "the whole machine may open %" PRId64 " files, %d are needed", file_max,
			FILE_MAX_MIN);
		preflight_finding_add(run, PREFLIGHT_ERROR, "fs.file-max", cause,
			"sysctl -w fs.file-max=1048576");
	}
	if (run->report->n_error == before)
		preflight_finding_add(
			run, PREFLIGHT_OK, "limits", "open files and locked memory suffice", NULL);
}

// ---------------------------------------------------------------- cores

static void check_core_list(
	struct preflight_run *run, const char *what, const char *list, const struct cpu_set *online)
{
	char cause[256], range[128], object[64];
	struct cpu_set wanted;
	if (list == NULL || list[0] == 0 || strcmp(list, "auto") == 0)
		return;
	TEXT(object, "%s \"%s\"", what, list);
	cpu_set_format(online, range, sizeof(range));
	if (cpu_set_parse(list, &wanted) != 0) {
		TEXT(cause, "not a list of cores 0..%d such as \"2-5,8\"", PREFLIGHT_CPUS_MAX - 1);
		preflight_finding_add(run, PREFLIGHT_ERROR, object, cause, "%s = \"auto\"", what);
		return;
	}
	for (uint32_t cpu = 0; cpu < PREFLIGHT_CPUS_MAX; cpu++) {
		if (!cpu_set_has(&wanted, cpu) || cpu_set_has(online, cpu))
			continue;
		if (root_exists(run, "/sys/devices/system/cpu/cpu%u", cpu)) {
			TEXT(cause, "core %u is offline (online: %s)", cpu, range);
			preflight_finding_add(run, PREFLIGHT_ERROR, object, cause,
				"echo 1 > /sys/devices/system/cpu/cpu%u/online", cpu);
		} else {
			TEXT(cause, "core %u not in %s", cpu, range);
			preflight_finding_add(run, PREFLIGHT_ERROR, object, cause,
				"set %s to cores of %s, or \"auto\"", what, range);
		}
		return;
	}
	TEXT(cause, "online (of %s)", range);
	preflight_finding_add(run, PREFLIGHT_OK, object, cause, NULL);
}

void check_cores(struct preflight_run *run)
{
	struct cpu_set online;
	uint32_t before = run->report->n_items;
	if (!cpu_set_read(run, &online, "/sys/devices/system/cpu/online")) {
		preflight_finding_add(run, PREFLIGHT_WARN, "cores",
			"/sys/devices/system/cpu/online cannot be read",
			"mount -t sysfs sysfs /sys");
		return;
	}
	check_core_list(run, "workers.cores", run->input->cores, &online);
	check_core_list(run, "workers.control_core", run->input->control_core, &online);
	if (run->report->n_items == before)
		preflight_finding_add(run, PREFLIGHT_OK, "workers.cores", "auto", NULL);
}

static int port_node(const struct preflight_run *run, const struct device_name *device)
{
	if (device->pci[0])
		return (int)root_number(run, -1, "/sys/bus/pci/devices/%s/numa_node", device->pci);
	return -1;
}

static void check_numa_port(
	struct preflight_run *run, const struct preflight_port *port, const struct cpu_set *cores)
{
	struct device_name device;
	struct cpu_set local;
	char object[128], cause[320], path[128], list[128], far[128];
	struct cpu_set remote = { 0 };
	bool any = false;
	preflight_device_parse(run, port->device, &device);
	int node = port_node(run, &device);
	if (node < 0)
		return;
	TEXT(path, "/sys/devices/system/node/node%d/cpulist", node);
	if (!cpu_set_read(run, &local, path))
		return;
	for (uint32_t i = 0; i < ARRAY_SIZE(remote.words); i++) {
		remote.words[i] = cores->words[i] & ~local.words[i];
		any |= remote.words[i] != 0;
	}
	if (!any)
		return;
	TEXT(cause,
		"%s is on node %d, worker cores %s are not: each packet crosses between sockets",
		port->name, node, cpu_set_format(&remote, far, sizeof(far)));
	preflight_finding_add(run, PREFLIGHT_WARN, port_object(port, object, sizeof(object)), cause,
		"set workers.cores to cores of %s (or \"auto\", which picks among them)",
		cpu_set_format(&local, list, sizeof(list)));
}

void check_numa(struct preflight_run *run)
{
	struct cpu_set cores;
	uint32_t before = run->report->n_warn;
	if (!worker_cores(run, &cores)) {
		preflight_finding_add(
			run, PREFLIGHT_OK, "placement", "cores are chosen by node", NULL);
		return;
	}
	for (uint32_t i = 0; i < run->input->n_ports; i++)
		check_numa_port(run, &run->input->ports[i], &cores);
	if (run->report->n_warn == before)
		preflight_finding_add(
			run, PREFLIGHT_OK, "placement", "ports and worker cores share nodes", NULL);
}

// ---------------------------------------------------------------- tuning

static void tune_governor(struct preflight_run *run, const struct cpu_set *cores)
{
	char governor[32], cause[TUNE_LIST_MAX + 128], list[TUNE_LIST_MAX];
	struct cpu_set slow = { 0 };
	char last[32] = "";
	for (uint32_t cpu = 0; cpu < PREFLIGHT_CPUS_MAX; cpu++) {
		if (!cpu_set_has(cores, cpu) ||
			root_read(run, governor, sizeof(governor),
				"/sys/devices/system/cpu/cpu%u/cpufreq/scaling_governor",
				cpu) <= 0 ||
			strcmp(governor, "performance") == 0)
			continue;
		slow.words[cpu / 64] |= 1ull << (cpu % 64);
		TEXT(last, "%s", governor);
	}
	if (last[0] == 0)
		return;
	cpu_set_format(&slow, list, sizeof(list));
	TEXT(cause, "governor=%s on cores %s: a worker waits for its clock to rise", last, list);
	preflight_finding_add(run, PREFLIGHT_WARN, "governor", cause,
		"cpupower -c %s frequency-set -g performance", list);
}

static void tune_siblings(struct preflight_run *run, const struct cpu_set *cores)
{
	char path[128], list[TUNE_LIST_MAX], cause[TUNE_LIST_MAX + 128];
	for (uint32_t cpu = 0; cpu < PREFLIGHT_CPUS_MAX; cpu++) {
		struct cpu_set siblings, shared = { 0 };
		uint32_t n = 0;
		if (!cpu_set_has(cores, cpu))
			continue;
		TEXT(path, "/sys/devices/system/cpu/cpu%u/topology/thread_siblings_list", cpu);
		if (!cpu_set_read(run, &siblings, path))
			continue;
		for (uint32_t i = 0; i < ARRAY_SIZE(shared.words); i++) {
			shared.words[i] = siblings.words[i] & cores->words[i];
			n += (uint32_t)__builtin_popcountll(shared.words[i]);
		}
		if (n < 2)
			continue;
		cpu_set_format(&shared, list, sizeof(list));
		TEXT(cause, "worker cores %s are threads of one core and share it", list);
		preflight_finding_add(run, PREFLIGHT_WARN, "SMT", cause,
			"set workers.cores to one thread of each core");
		return;
	}
}

static void tune_isolation(struct preflight_run *run, const struct cpu_set *cores)
{
	struct cpu_set isolated = { 0 }, shared = { 0 };
	char wanted[TUNE_LIST_MAX], list[TUNE_LIST_MAX], cause[TUNE_LIST_MAX + 128];
	bool any = false;
	cpu_set_read(run, &isolated, "/sys/devices/system/cpu/isolated");
	for (uint32_t i = 0; i < ARRAY_SIZE(shared.words); i++) {
		shared.words[i] = cores->words[i] & ~isolated.words[i];
		any |= shared.words[i] != 0;
	}
	if (!any)
		return;
	cpu_set_format(&shared, list, sizeof(list));
	cpu_set_format(cores, wanted, sizeof(wanted));
	TEXT(cause, "worker cores %s are not isolated: other tasks may stop them for milliseconds",
		list);
	preflight_finding_add(run, PREFLIGHT_WARN, "isolcpus", cause,
		"boot with isolcpus=%s nohz_full=%s rcu_nocbs=%s", wanted, wanted, wanted);
}

static bool find_irqbalance(const struct preflight_run *run, const char *name, void *arg)
{
	char comm[COMM_MAX];
	if (name[0] < '0' || name[0] > '9')
		return true;
	process_name(run, atoi(name), comm, sizeof(comm));
	if (strcmp(comm, "irqbalance") != 0)
		return true;
	*(bool *)arg = true;
	return false;
}

static void tune_machine(struct preflight_run *run)
{
	char text[128];
	bool irqbalance = false;
	if (root_read(run, text, sizeof(text), "/sys/kernel/mm/transparent_hugepage/enabled") > 0 &&
		strstr(text, "[always]") != NULL)
		preflight_finding_add(run, PREFLIGHT_WARN, "transparent_hugepage",
			"set to always: the kernel may stop a worker while it collapses pages",
			"echo madvise > /sys/kernel/mm/transparent_hugepage/enabled");
	root_each(run, "/proc", find_irqbalance, &irqbalance);
	if (irqbalance)
		preflight_finding_add(run, PREFLIGHT_WARN, "irqbalance",
			"running: it may move interrupts onto worker cores",
			"systemctl disable --now irqbalance");
}

// Deep idle states cost tens of microseconds to leave; a worker that sleeps would pay it.
static void tune_idle_states(struct preflight_run *run, const struct cpu_set *cores)
{
	char cause[160];
	for (uint32_t cpu = 0; cpu < PREFLIGHT_CPUS_MAX; cpu++) {
		if (!cpu_set_has(cores, cpu))
			continue;
		for (uint32_t state = 0; state < 16; state++) {
			const char *dir = "/sys/devices/system/cpu/cpu%u/cpuidle/state%u/%s";
			int64_t latency = root_number(run, 0, dir, cpu, state, "latency");
			if (latency <= 50 || root_number(run, 0, dir, cpu, state, "disable") != 0)
				continue;
			TEXT(cause,
				"core %u may enter an idle state that takes %" PRId64
				" us to leave",
				cpu, latency);
			preflight_finding_add(
				run, PREFLIGHT_WARN, "C-states", cause, "cpupower idle-set -D 50");
			return;
		}
	}
}

void check_tuning(struct preflight_run *run)
{
	struct cpu_set cores;
	uint32_t before = run->report->n_warn;
	bool hardware = false;
	for (uint32_t i = 0; i < run->input->n_ports; i++) {
		struct device_name device;
		preflight_device_parse(run, run->input->ports[i].device, &device);
		hardware |= device.pci[0] != 0;
	}
	bool chosen = worker_cores(run, &cores);
	if (chosen) {
		tune_governor(run, &cores);
		tune_siblings(run, &cores);
	}
	// What follows costs microseconds of jitter: worth a word only where a NIC is in play.
	if (chosen && hardware) {
		tune_isolation(run, &cores);
		tune_idle_states(run, &cores);
	}
	if (hardware)
		tune_machine(run);
	if (run->report->n_warn == before)
		preflight_finding_add(run, PREFLIGHT_OK, "tuning",
			hardware ? "nothing to say" : "virtual ports only", NULL);
}
