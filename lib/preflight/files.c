// SPDX-License-Identifier: BSD-3-Clause
// Reading below the root folder: small files, links, folders, lists of cores. Every read is
// bounded; a file that is not there, cannot be read or makes no sense is the same as one that says
// nothing.
#include "preflight_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *path_build(const struct preflight_run *run, char buf[PREFLIGHT_PATH_MAX],
	const char *fmt, va_list args)
{
	const char *root = run->input->root ? run->input->root : "";
	int n = snprintf(buf, PREFLIGHT_PATH_MAX, "%s", root);
	if (n >= 0 && n < PREFLIGHT_PATH_MAX)
		vsnprintf(buf + n, (size_t)(PREFLIGHT_PATH_MAX - n), fmt, args);
	return buf;
}

#define PATH_FROM_ARGS(run, path, fmt)             \
	do {                                       \
		va_list args_;                     \
		va_start(args_, fmt);              \
		path_build(run, path, fmt, args_); \
		va_end(args_);                     \
	} while (0)

const char *root_path(
	const struct preflight_run *run, char buf[PREFLIGHT_PATH_MAX], const char *fmt, ...)
{
	PATH_FROM_ARGS(run, buf, fmt);
	return buf;
}

bool root_exists(const struct preflight_run *run, const char *fmt, ...)
{
	char path[PREFLIGHT_PATH_MAX];
	struct stat st;
	PATH_FROM_ARGS(run, path, fmt);
	return lstat(path, &st) == 0;
}

static int path_read(const char *path, char *buf, size_t len)
{
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return -1;
	size_t n = fread(buf, 1, len - 1, file);
	fclose(file);
	if (n > 0 && buf[n - 1] == '\n')
		n--;
	buf[n] = 0;
	return (int)n;
}

int root_read(const struct preflight_run *run, char *buf, size_t len, const char *fmt, ...)
{
	char path[PREFLIGHT_PATH_MAX];
	PATH_FROM_ARGS(run, path, fmt);
	buf[0] = 0;
	return path_read(path, buf, len);
}

int64_t root_number(const struct preflight_run *run, int64_t missing, const char *fmt, ...)
{
	char path[PREFLIGHT_PATH_MAX];
	char text[64];
	char *end;
	PATH_FROM_ARGS(run, path, fmt);
	if (path_read(path, text, sizeof(text)) <= 0)
		return missing;
	errno = 0;
	long long value = strtoll(text, &end, 0);
	return errno != 0 || end == text ? missing : value;
}

bool root_link(
	const struct preflight_run *run, char *buf, size_t len, uint32_t n_up, const char *fmt, ...)
{
	char path[PREFLIGHT_PATH_MAX];
	char target[PREFLIGHT_PATH_MAX];
	PATH_FROM_ARGS(run, path, fmt);
	ssize_t n = readlink(path, target, sizeof(target) - 1);
	if (n <= 0)
		return false;
	target[n] = 0;
	char *slash = strrchr(target, '/');
	for (; n_up > 0 && slash != NULL; n_up--) {
		*slash = 0;
		slash = strrchr(target, '/');
	}
	snprintf(buf, len, "%s", slash ? slash + 1 : target);
	return n_up == 0;
}

FILE *root_open(const struct preflight_run *run, const char *fmt, ...)
{
	char path[PREFLIGHT_PATH_MAX];
	PATH_FROM_ARGS(run, path, fmt);
	return fopen(path, "re");
}

void root_each(const struct preflight_run *run, const char *dir,
	bool (*fn)(const struct preflight_run *run, const char *name, void *arg), void *arg)
{
	char path[PREFLIGHT_PATH_MAX];
	DIR *d = opendir(root_path(run, path, "%s", dir));
	if (d == NULL)
		return;
	struct dirent *entry;
	uint32_t n = 0;
	while ((entry = readdir(d)) != NULL && n++ < PREFLIGHT_DIR_MAX) {
		if (entry->d_name[0] != '.' && !fn(run, entry->d_name, arg))
			break;
	}
	closedir(d);
}

// ---------------------------------------------------------------- cpu sets

bool cpu_set_has(const struct cpu_set *set, uint32_t cpu)
{
	return cpu < PREFLIGHT_CPUS_MAX && (set->words[cpu / 64] >> (cpu % 64) & 1);
}

// One "a" or "a-b". Returns where it ended, NULL when it makes no sense.
static const char *cpu_range_parse(const char *text, uint32_t *out_first, uint32_t *out_last)
{
	char *end;
	if (*text < '0' || *text > '9')
		return NULL;
	unsigned long first = strtoul(text, &end, 10);
	unsigned long last = first;
	if (*end == '-') {
		text = end + 1;
		if (*text < '0' || *text > '9')
			return NULL;
		last = strtoul(text, &end, 10);
	}
	if (last >= PREFLIGHT_CPUS_MAX || first > last)
		return NULL;
	*out_first = (uint32_t)first;
	*out_last = (uint32_t)last;
	return end;
}

int cpu_set_parse(const char *text, struct cpu_set *out)
{
	struct cpu_set set = { 0 };
	uint32_t first, last;
	while (*text) {
		text = cpu_range_parse(text, &first, &last);
		if (text == NULL)
			return -EINVAL;
		for (uint32_t cpu = first; cpu <= last; cpu++)
			set.words[cpu / 64] |= 1ull << (cpu % 64);
		if (*text == ',')
			text++;
		else if (*text)
			return -EINVAL;
	}
	*out = set;
	return 0;
}

const char *cpu_set_format(const struct cpu_set *set, char *buf, size_t len)
{
	buf[0] = 0;
	for (uint32_t cpu = 0; cpu < PREFLIGHT_CPUS_MAX; cpu++) {
		if (!cpu_set_has(set, cpu))
			continue;
		uint32_t last = cpu;
		while (cpu_set_has(set, last + 1))
			last++;
		text_append(buf, len, buf[0] ? ",%u" : "%u", cpu);
		if (last > cpu)
			text_append(buf, len, "-%u", last);
		cpu = last;
	}
	return buf;
}

bool cpu_set_read(const struct preflight_run *run, struct cpu_set *out, const char *path)
{
	char text[1024];
	return root_read(run, text, sizeof(text), "%s", path) > 0 && cpu_set_parse(text, out) == 0;
}

struct node_search {
	uint32_t cpu;
	int node;
};

static bool node_visit(const struct preflight_run *run, const char *name, void *arg)
{
	struct node_search *search = arg;
	struct cpu_set set;
	char path[PREFLIGHT_PATH_MAX];
	uint32_t node;
	if (sscanf(name, "node%u", &node) != 1)
		return true;
	TEXT(path, "/sys/devices/system/node/%s/cpulist", name);
	if (!cpu_set_read(run, &set, path) || !cpu_set_has(&set, search->cpu))
		return true;
	search->node = (int)node;
	return false;
}

int cpu_node(const struct preflight_run *run, uint32_t cpu)
{
	struct node_search search = { .cpu = cpu, .node = -1 };
	root_each(run, "/sys/devices/system/node", node_visit, &search);
	return search.node;
}

bool worker_cores(const struct preflight_run *run, struct cpu_set *out)
{
	const char *cores = run->input->cores;
	if (cores == NULL || cores[0] == 0 || strcmp(cores, "auto") == 0)
		return false;
	return cpu_set_parse(cores, out) == 0;
}
