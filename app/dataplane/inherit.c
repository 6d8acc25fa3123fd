// SPDX-License-Identifier: BSD-3-Clause
// Flows of the process before this one. Runs at start, before any worker does.
//
//   same number of workers, same capacity     the file is the table: adopted where it lies (lib/flow/adopt.c), and each worker
//                                             takes the source ports of its flows
//   anything else                             flows are read out of every file that is there and copied, one by one, to the
//                                             worker that owns their source port now; then the file goes
//
// A flow ends here when it cannot go on: its source address or port is not ours any more, its worker has no room, or
// another flow has one of its keys (both were of one client and lived at different workers) and has more right to it: is
// confirmed, or was used last.
//
// Ends between copying and removing a file leave both: the next one finds each flow there already, and keeps one.
//
// Where a client's packets arrive has nothing to do with who owns the source port: with more than one worker
// all flows that were kept are listed in a directory, which a worker asks before it calls a packet a stranger's.
#include "dataplane_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

// ---------------------------------------------------------------- flows

// They end one day: begun here too, or the difference would be negative.
static void count_kept(struct pipeline *p, const struct flow_record *r)
{
	if (r->backend_id < p->n_backend_counters)
		worker_add(&p->backend_counters[r->backend_id].flows_created, 1);
}

// The source port of flow idx is in use. False: it cannot be.
static bool take_port(struct pipeline *p, uint32_t idx)
{
	const struct flow_record *r = flow_record(&p->flows, idx);
	if (r->flags & FLOW_FLAG_DNAT) // has none
		return true;
	if (snat_take(p->snat, r->snat_slot, r->snat_port, &r->backend, r->backend_port,
		    r->protocol) != 0)
		return false;
	snat_name(p->snat, idx);
	return true;
}

// The clock of a worker before may have run ahead: a stamp to come would read as very old.
static void clamp_stamp(struct flow_record *r, uint32_t now_s)
{
	if ((int32_t)(r->stamp_s - now_s) > 0)
		r->stamp_s = now_s;
}

void inherit_in_place(struct inheritance *in, struct pipeline *p)
{
	struct flow_table *table = &p->flows;
	for (uint32_t i = 0; i < table->n_used && table->n_flows > 0; i++) {
		struct flow_record *r = flow_record(table, i);
		if (r->state == FLOW_STATE_FREE)
			continue;
		clamp_stamp(r, in->now_s);
		if (take_port(p, i)) {
			count_kept(p, r);
			in->n_kept++;
			continue;
		}
		flow_remove(table, i);
		in->n_lost++;
	}
}

static struct pipeline *heir_of(const struct inheritance *in, const struct flow_record *r)
{
	uint16_t n = (uint16_t)in->n_heirs;
	if (r->flags & FLOW_FLAG_DNAT)
		return in->heirs[flow_owner_by_client(&r->client, n)];
	return in->heirs[snat_owner(rte_be_to_cpu_16(r->snat_port), n)];
}

static void end_kept(struct inheritance *in, struct pipeline *p, uint32_t idx)
{
	const struct flow_record *r = flow_record(&p->flows, idx);
	if (!(r->flags & FLOW_FLAG_DNAT))
		snat_free(p->snat, r->snat_slot, r->snat_port, &r->backend, r->backend_port,
			r->protocol);
	if (r->backend_id < p->n_backend_counters)
		worker_add(&p->backend_counters[r->backend_id].flows_ended, 1);
	flow_remove(&p->flows, idx);
	in->n_kept--;
	in->n_lost++;
}

// Is there a flow with one of r's keys that has more right to it? The one that was used last has; one that has less ends.
static bool yields_to_another(
	struct inheritance *in, struct pipeline *p, const struct flow_record *r)
{
	struct flow_key keys[2] = { flow_client_key(r), flow_backend_key(r) };
	if (flow_key_equal(&keys[0], &keys[1]))
		return true;
	for (uint32_t k = 0; k < 2; k++) {
		uint8_t side;
		uint32_t idx = flow_lookup(&p->flows, &keys[k], &side);
		if (idx == FLOW_NONE)
			continue;
		const struct flow_record *other = flow_record(&p->flows, idx);
		bool other_yields = flow_state_yields(other->state);
		if (other_yields == flow_state_yields(r->state) ? other->stamp_s >= r->stamp_s
								: !other_yields)
			return true;
		end_kept(in, p, idx);
	}
	return false;
}

static bool copy_flow(struct inheritance *in, struct flow_record *r)
{
	struct pipeline *p = heir_of(in, r);
	clamp_stamp(r, in->now_s);
	if (yields_to_another(in, p, r))
		return false;
	uint32_t idx = flow_add(&p->flows, r);
	if (idx == FLOW_NONE)
		return false;
	if (!take_port(p, idx)) {
		flow_remove(&p->flows, idx);
		return false;
	}
	count_kept(p, r);
	return true;
}

int inherit_copies(
	struct inheritance *in, const void *mem, size_t size, bool confirmed, struct error *err)
{
	struct flow_leftover left;
	struct flow_record r;
	int rc = flow_leftover_open(&left, mem, size, err);
	if (rc != 0)
		return rc;
	// Numbers of slots and backends in it are those of another life.
	if (memcmp(&left.key, &in->key, sizeof(in->key)) != 0)
		return error_add(err, EINVAL, "flows.file", "made with another key");
	while (flow_leftover_next(&left, &r)) {
		if (flow_state_yields(r.state) == confirmed)
			continue;
		bool kept = copy_flow(in, &r);
		in->n_kept += kept;
		in->n_lost += !kept;
	}
	return 0;
}

// ---------------------------------------------------------------- files

void inherit_path(
	char out[INHERIT_PATH_MAX], const char *dir, uint32_t idx, uint32_t of, const char *more)
{
	snprintf(out, INHERIT_PATH_MAX, "%s/flows.%u-of-%u%s", dir, idx, of, more);
}

// Reads a file where it lies. NULL: there is none, or it is no regular file.
static void *map_to_read(const char *path, size_t *out_size)
{
	struct stat status;
	void *mem = MAP_FAILED;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return NULL;
	if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0)
		mem = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (mem == MAP_FAILED)
		return NULL;
	*out_size = (size_t)status.st_size;
	return mem;
}

bool inherit_set_aside(const char *dir, uint32_t idx, uint32_t of, uint32_t capacity)
{
	char path[INHERIT_PATH_MAX], aside[INHERIT_PATH_MAX];
	size_t size = 0;
	inherit_path(path, dir, idx, of, "");
	inherit_path(aside, dir, idx, of, ".old");
	void *mem = map_to_read(path, &size);
	struct flow_leftover left;
	bool differs = mem != NULL && flow_leftover_open(&left, mem, size, NULL) == 0 &&
		       left.capacity != capacity;
	device_unmap(mem, size);
	return differs && rename(path, aside) == 0;
}

static void read_file(struct inheritance *in, const char *path, bool confirmed)
{
	size_t size = 0;
	void *mem = map_to_read(path, &size);
	if (mem == NULL)
		return;
	struct error err = { 0 };
	char text[256];
	// Said once.
	if (inherit_copies(in, mem, size, confirmed, &err) != 0 && confirmed)
		log_write(in->log, LOG_LEVEL_WARN, "flows-not-adopted", "%s: %s", path,
			error_first(&err, text, sizeof(text)));
	error_fini(&err);
	device_unmap(mem, size);
	in->n_files += confirmed;
}

static void read_confirmed(struct inheritance *in, const char *path)
{
	read_file(in, path, true);
}

static void read_others(struct inheritance *in, const char *path)
{
	read_file(in, path, false);
}

static void remove_file(struct inheritance *in, const char *path)
{
	unlink(path);
}

// Every file that is not a table of this process: of another number of workers, or set aside.
static void each_stranger(const char *dir, uint32_t n_workers,
	void (*fn)(struct inheritance *in, const char *path), struct inheritance *arg)
{
	char path[INHERIT_PATH_MAX];
	for (uint32_t of = 1; of <= DEVICE_WORKERS_MAX; of++) {
		for (uint32_t idx = 0; idx < of; idx++) {
			for (int aside = of == n_workers; aside < 2; aside++) {
				inherit_path(path, dir, idx, of, aside ? ".old" : "");
				fn(arg, path);
			}
		}
	}
}

// Confirmed flows of all files first: where fewer workers have less room, those that are being used get it.
void inherit_files(struct inheritance *in, const char *dir)
{
	each_stranger(dir, in->n_heirs, read_confirmed, in);
	each_stranger(dir, in->n_heirs, read_others, in);
	inherit_remove_files(dir, in->n_heirs);
}

void inherit_remove_files(const char *dir, uint32_t n_workers)
{
	each_stranger(dir, n_workers, remove_file, NULL);
}

// ---------------------------------------------------------------- directory

static uint64_t count_flows(const struct inheritance *in)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < in->n_heirs; i++)
		n += in->heirs[i]->flows.n_flows;
	return n;
}

size_t inherit_directory_size(const struct inheritance *in)
{
	uint64_t n = count_flows(in);
	return in->n_heirs > 1 && n > 0 ? flow_directory_size(n) : 0;
}

const struct flow_directory *inherit_directory(const struct inheritance *in, void *mem, size_t size)
{
	struct flow_directory *directory;
	if (flow_directory_init(mem, size, count_flows(in), &directory) != 0)
		return NULL;
	for (uint16_t w = 0; w < in->n_heirs; w++) {
		struct pipeline *p = in->heirs[w];
		for (uint32_t i = 0; i < p->flows.n_used; i++) {
			const struct flow_record *r = flow_record(&p->flows, i);
			struct flow_key key = flow_client_key(r);
			if (r->state != FLOW_STATE_FREE)
				flow_directory_add(directory, flow_hash(&p->flows, &key), w);
		}
	}
	for (uint32_t w = 0; w < in->n_heirs; w++)
		in->heirs[w]->directory = directory;
	return directory;
}
