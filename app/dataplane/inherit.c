// SPDX-License-Identifier: BSD-3-Clause
// Flows of the process before this one. Runs at start, before any worker does.
//
//   same number of workers, same capacity     the file is the table: adopted where it lies (lib/flow/adopt.c), and each worker
//                                             takes the source ports of its flows
//   anything else                             flows are read out of every file that is there and copied, one by one, to the
//                                             worker that owns their source port now; then the file goes
//
// Entries of one-way modes have no source port: their client names the worker (inherit_oneway.c).
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
	struct flow_key reply = flow_backend_key(r);
	if (r->flags & FLOW_FLAG_DNAT) // has none
		return true;
	if (snat_take(p->snat, &reply) != 0)
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
	struct flow_key reply = flow_backend_key(r);
	if (!(r->flags & FLOW_FLAG_DNAT))
		snat_free(p->snat, &reply);
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
		bool by_port = k == 1 && !(r->flags & FLOW_FLAG_DNAT);
		uint32_t idx = by_port ? pipeline_find_reply(p, &keys[k])
				       : flow_lookup(&p->flows, &keys[k], &side);
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
	if (!(r->flags & FLOW_FLAG_DNAT))
		r->flags |= FLOW_FLAG_BY_PORT;
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

void inherit_path(char out[INHERIT_PATH_MAX], const char *dir, enum inherit_kind kind, uint32_t idx,
	uint32_t of, const char *more)
{
	const char *name = kind == INHERIT_FLOWS ? "flows" : "oneway";
	snprintf(out, INHERIT_PATH_MAX, "%s/%s.%u-of-%u%s", dir, name, idx, of, more);
}

// Reads a file where it lies; what is written to the memory never reaches it. NULL: there is none, or it is no regular file.
static void *map_to_read(const char *path, size_t *out_size)
{
	struct stat status;
	void *mem = MAP_FAILED;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return NULL;
	if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0)
		mem = mmap(
			NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	close(fd);
	if (mem == MAP_FAILED)
		return NULL;
	*out_size = (size_t)status.st_size;
	return mem;
}

static bool capacity_differs(
	enum inherit_kind kind, const void *mem, size_t size, uint32_t capacity)
{
	struct flow_leftover left;
	struct oneway_capacity had;
	struct hash_key key;
	if (kind == INHERIT_FLOWS)
		return flow_leftover_open(&left, mem, size, NULL) == 0 && left.capacity != capacity;
	return oneway_peek(mem, size, &had, &key, NULL) == 0 &&
	       (had.v4 != capacity || had.v6 != capacity);
}

bool inherit_set_aside(
	const char *dir, enum inherit_kind kind, uint32_t idx, uint32_t of, uint32_t capacity)
{
	char path[INHERIT_PATH_MAX], aside[INHERIT_PATH_MAX];
	size_t size = 0;
	inherit_path(path, dir, kind, idx, of, "");
	inherit_path(aside, dir, kind, idx, of, ".old");
	void *mem = map_to_read(path, &size);
	bool differs = mem != NULL && capacity_differs(kind, mem, size, capacity);
	device_unmap(mem, size);
	return differs && rename(path, aside) == 0;
}

enum errand { READ_CONFIRMED, READ_OTHERS, READ_ONEWAY, REMOVE };

static int read_table(
	struct inheritance *in, void *mem, size_t size, enum errand errand, struct error *err)
{
	if (errand == READ_ONEWAY)
		return inherit_oneway_copies(in, mem, size, err);
	return inherit_copies(in, mem, size, errand == READ_CONFIRMED, err);
}

static void read_file(struct inheritance *in, const char *path, enum errand errand)
{
	size_t size = 0;
	void *mem = map_to_read(path, &size);
	if (mem == NULL)
		return;
	struct error err = { 0 };
	char text[256];
	// Said once.
	if (read_table(in, mem, size, errand, &err) != 0 && errand != READ_OTHERS)
		log_write(in->log, LOG_LEVEL_WARN, "flows-not-adopted", "%s: %s", path,
			error_first(&err, text, sizeof(text)));
	error_fini(&err);
	device_unmap(mem, size);
	in->n_files += errand != READ_OTHERS;
}

// To every file that is not a table of this process: of another number of workers, or set aside.
static void visit_strangers(struct inheritance *in, const char *dir, enum inherit_kind kind,
	uint32_t n_workers, enum errand errand)
{
	char path[INHERIT_PATH_MAX];
	for (uint32_t of = 1; of <= DEVICE_WORKERS_MAX; of++) {
		for (uint32_t k = 0; k < 2 * of; k++) {
			bool aside = k >= of;
			if (of == n_workers && !aside)
				continue;
			inherit_path(path, dir, kind, k % of, of, aside ? ".old" : "");
			if (errand == REMOVE)
				unlink(path);
			else
				read_file(in, path, errand);
		}
	}
}

// Confirmed flows of all files first: where fewer workers have less room, those that are being used get it.
void inherit_files(struct inheritance *in, const char *dir)
{
	visit_strangers(in, dir, INHERIT_FLOWS, in->n_heirs, READ_CONFIRMED);
	visit_strangers(in, dir, INHERIT_FLOWS, in->n_heirs, READ_OTHERS);
	visit_strangers(in, dir, INHERIT_ONEWAY, in->n_heirs, READ_ONEWAY);
	inherit_remove_files(dir, in->n_heirs);
}

void inherit_remove_files(const char *dir, uint32_t n_workers)
{
	visit_strangers(NULL, dir, INHERIT_FLOWS, n_workers, REMOVE);
	visit_strangers(NULL, dir, INHERIT_ONEWAY, n_workers, REMOVE);
}

// ---------------------------------------------------------------- directory

static uint64_t count_flows(const struct inheritance *in)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < in->n_heirs; i++) {
		const struct pipeline *p = in->heirs[i];
		n += p->flows.n_flows + p->oneway.families[0].n_entries +
		     p->oneway.families[1].n_entries;
	}
	return n;
}

size_t inherit_directory_size(const struct inheritance *in)
{
	uint64_t n = count_flows(in);
	return in->n_heirs > 1 && n > 0 ? flow_directory_size(n) : 0;
}

static void list_flows(struct flow_directory *directory, const struct pipeline *p, uint16_t worker)
{
	for (uint32_t i = 0; i < p->flows.n_used; i++) {
		const struct flow_record *r = flow_record(&p->flows, i);
		struct flow_key key = flow_client_key(r);
		if (r->state != FLOW_STATE_FREE)
			flow_directory_add(directory, flow_hash(&p->flows, &key), worker);
	}
	// What session affinity remembers is looked for at the client's worker only, where it is.
	struct oneway_entry e;
	for (uint32_t ref = 0; ref < oneway_n_positions(&p->oneway); ref++) {
		if (oneway_copy(&p->oneway, ref, &e) && e.state != ONEWAY_AFFINITY)
			flow_directory_add(
				directory, flow_key_hash(&p->oneway.schedule, &e.key), worker);
	}
}

const struct flow_directory *inherit_directory(const struct inheritance *in, void *mem, size_t size)
{
	struct flow_directory *directory;
	if (flow_directory_init(mem, size, count_flows(in), &directory) != 0)
		return NULL;
	for (uint16_t w = 0; w < in->n_heirs; w++)
		list_flows(directory, in->heirs[w], w);
	for (uint32_t w = 0; w < in->n_heirs; w++)
		in->heirs[w]->directory = directory;
	return directory;
}
