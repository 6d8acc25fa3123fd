// SPDX-License-Identifier: BSD-3-Clause
// The last good state on disk, so that a start while the API cannot be reached serves at once, and one while it can begins with
// what was in force.
//
//   change ─► dirty ── 1 s of quiet, 5 s at most ─► encode, a slice a turn ─► written back by the kernel ─► fsync ─► rename
//
// Nothing of this holds the loop for long: a slice is 256 KiB, and fsync, which takes a second on a busy disk, is left to the C
// library's aio (a thread of its own that sees a descriptor and nothing else of ours) and asked for now and then. A file is whole
// or is not taken: a damaged one is set aside. A disk that is full or gone costs a message and the state of before.
#include "core_priv.h"

#include <aio.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "outage_priv.h"

#define OUTAGE_NAME        "kubernetes.state"
#define OUTAGE_QUIET_NS    CLOCK_S
#define OUTAGE_LONGEST_NS  (5 * CLOCK_S)
#define OUTAGE_SLICE_BYTES (256u << 10)
#define OUTAGE_SETTLE_NS   (500 * CLOCK_MS)
#define OUTAGE_RETRY_NS    (30 * CLOCK_S)
#define OUTAGE_LOOK_NS     (10 * CLOCK_MS) // at an fsync under way

enum outage_step {
	OUTAGE_IDLE,
	OUTAGE_WAITING,
	OUTAGE_WRITING,
	OUTAGE_SETTLING,
	OUTAGE_SYNCING, // the file
	OUTAGE_NAMING,  // its folder
};

struct cluster_outage {
	struct source_cluster *cluster;
	char path[512], aside[520], dir[256];
	char *whose;
	struct event *timer;
	enum outage_step step;
	bool is_dirty; // a change since the last slice began
	bool is_failing;
	uint64_t first_ns; // of the changes that wait
	int fd;            // -1: none
	struct aiocb sync; // under way in SYNCING and NAMING
	uint64_t hash;
	char last_namespace[SERVICE_NAME_MAX], last_name[SERVICE_NAME_MAX]; // written last
	struct outage_bytes bytes;
	uint64_t n_saved;
};

static void timer_set(struct cluster_outage *o, uint64_t wait_ns)
{
	struct timeval wait = { (time_t)(wait_ns / CLOCK_S),
		(suseconds_t)(wait_ns % CLOCK_S / CLOCK_US) };
	evtimer_add(o->timer, &wait);
}

// ---------------------------------------------------------------- save

static void save_fail(struct cluster_outage *o, const char *what, int code)
{
	if (!o->is_failing)
		cluster_say(&o->cluster->voice, LOG_LEVEL_ERROR, "state-not-kept", o->path,
			"%s: %s; tried again every 30 s", what, strerror(code));
	o->is_failing = true;
	if (o->fd >= 0)
		close(o->fd);
	o->fd = -1;
	unlink(o->aside);
	o->is_dirty = false;
	o->step = OUTAGE_WAITING;
	timer_set(o, OUTAGE_RETRY_NS);
}

static int write_all(int fd, const uint8_t *bytes, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, bytes, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		bytes += n;
		len -= (size_t)n;
	}
	return 0;
}

static bool slice_write(struct cluster_outage *o)
{
	int code = o->bytes.is_short ? ENOMEM : write_all(o->fd, o->bytes.bytes, o->bytes.len);
	o->bytes.len = 0;
	if (code == 0)
		return true;
	outage_bytes_fini(&o->bytes);
	save_fail(o, "cannot be written", code);
	return false;
}

static void save_begin(struct cluster_outage *o)
{
	o->is_dirty = false;
	o->fd = open(o->aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (o->fd < 0) {
		save_fail(o, "cannot be opened", errno);
		return;
	}
	outage_put_head(&o->bytes, o->whose);
	o->hash = outage_hash(o->bytes.bytes, o->bytes.len, 0);
	o->last_namespace[0] = o->last_name[0] = '\0';
	o->step = OUTAGE_WRITING;
	timer_set(o, 0);
}

// The first service behind the one that was written last: others may have come and gone since.
static uint32_t next_idx(const struct cluster_outage *o, const struct service_store *store)
{
	uint32_t low = 0, high = service_store_count(store);
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		const struct service *s = service_store_at(store, middle);
		int order = strcmp(s->namespace, o->last_namespace);
		if (order == 0)
			order = strcmp(s->name, o->last_name);
		if (order <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

// One slice. true: all are written.
static bool save_slice(struct cluster_outage *o)
{
	const struct service_store *store = control_store(o->cluster->control);
	const struct service *s = NULL;
	uint32_t n = service_store_count(store), i = next_idx(o, store);
	for (; i < n && o->bytes.len < OUTAGE_SLICE_BYTES && !o->bytes.is_short; i++) {
		size_t begin = o->bytes.len;
		s = service_store_at(store, i);
		if (s->owner != SERVICE_OWNER_KUBERNETES)
			continue;
		outage_put_service(&o->bytes, s);
		o->hash = outage_hash(o->bytes.bytes + begin, o->bytes.len - begin, o->hash);
	}
	if (s) {
		snprintf(o->last_namespace, sizeof(o->last_namespace), "%s", s->namespace);
		snprintf(o->last_name, sizeof(o->last_name), "%s", s->name);
	}
	return i >= n;
}

static void save_on(struct cluster_outage *o)
{
	bool is_last = save_slice(o);
	if (is_last)
		outage_put_tail(&o->bytes, o->hash);
	if (!slice_write(o))
		return;
	if (!is_last) {
		timer_set(o, 0);
		return;
	}
	outage_bytes_fini(&o->bytes);
	sync_file_range(o->fd, 0, 0, SYNC_FILE_RANGE_WRITE); // only a hint
	o->step = OUTAGE_SETTLING;
	timer_set(o, OUTAGE_SETTLE_NS);
}

// Begins to sync o->fd; where aio will not, it is done at once.
static void sync_begin(struct cluster_outage *o, enum outage_step step)
{
	o->sync = (struct aiocb){ .aio_fildes = o->fd,
		.aio_sigevent = { .sigev_notify = SIGEV_NONE } };
	o->step = step;
	if (aio_fsync(O_SYNC, &o->sync) != 0) {
		o->sync.aio_fildes = -1;
		if (fsync(o->fd) != 0) {
			save_fail(o, "cannot be kept", errno);
			return;
		}
	}
	timer_set(o, OUTAGE_LOOK_NS);
}

// 0: done; EINPROGRESS; another: what went wrong.
static int sync_look(struct cluster_outage *o)
{
	if (o->sync.aio_fildes < 0)
		return 0;
	int code = aio_error(&o->sync);
	if (code != EINPROGRESS)
		aio_return(&o->sync);
	return code;
}

static void save_name(struct cluster_outage *o)
{
	close(o->fd);
	o->fd = -1;
	if (rename(o->aside, o->path) == 0)
		o->fd = open(o->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (o->fd < 0)
		save_fail(o, "cannot be kept", errno);
	else
		sync_begin(o, OUTAGE_NAMING);
}

static void save_end(struct cluster_outage *o)
{
	close(o->fd);
	o->fd = -1;
	if (o->is_failing)
		cluster_say(&o->cluster->voice, LOG_LEVEL_INFO, "state-kept", o->path,
			"the last good state is kept again");
	o->is_failing = false;
	o->n_saved++;
	o->step = OUTAGE_IDLE;
	if (o->is_dirty)
		cluster_outage_changed(o->cluster);
}

static void save_sync(struct cluster_outage *o)
{
	int code = sync_look(o);
	if (code == EINPROGRESS)
		timer_set(o, OUTAGE_LOOK_NS);
	else if (code != 0)
		save_fail(o, "cannot be kept", code);
	else if (o->step == OUTAGE_SYNCING)
		save_name(o);
	else
		save_end(o);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct cluster_outage *o = arg;
	if (o->step == OUTAGE_WAITING)
		save_begin(o);
	else if (o->step == OUTAGE_WRITING)
		save_on(o);
	else if (o->step == OUTAGE_SETTLING)
		sync_begin(o, OUTAGE_SYNCING);
	else if (o->step == OUTAGE_SYNCING || o->step == OUTAGE_NAMING)
		save_sync(o);
}

void cluster_outage_changed(struct source_cluster *c)
{
	struct cluster_outage *o = c->outage;
	if (o == NULL)
		return;
	uint64_t now_ns = cluster_now_ns();
	if (!o->is_dirty)
		o->first_ns = now_ns;
	o->is_dirty = true;
	if (o->step > OUTAGE_WAITING || o->is_failing)
		return; // again when this one is done
	uint64_t longest_ns = o->first_ns + OUTAGE_LONGEST_NS;
	uint64_t left_ns = longest_ns > now_ns ? longest_ns - now_ns : 0;
	o->step = OUTAGE_WAITING;
	timer_set(o, left_ns < OUTAGE_QUIET_NS ? left_ns : OUTAGE_QUIET_NS);
}

// ---------------------------------------------------------------- load

static void set_aside(struct cluster_outage *o, const char *why)
{
	char bad[530];
	snprintf(bad, sizeof(bad), "%s.bad", o->path);
	bool is_aside = rename(o->path, bad) == 0;
	cluster_say(&o->cluster->voice, LOG_LEVEL_ERROR, "state-set-aside", o->path, "%s; %s %s",
		why, is_aside ? "now" : "it could not be renamed to", bad);
}

// All at once, or one by one where something stands in the way of one.
static uint32_t put_services(struct source_cluster *c, const struct outage_services *s)
{
	struct error err = { 0 };
	uint32_t n_put = s->n_services;
	int rc = control_replace_owner(
		c->control, SERVICE_OWNER_KUBERNETES, s->services, s->n_services, NULL, &err);
	error_fini(&err);
	if (rc == 0)
		return n_put;
	n_put = 0;
	for (uint32_t i = 0; i < s->n_services; i++) {
		char label[2 * SERVICE_NAME_MAX], line[400];
		struct error why = { 0 };
		if (control_put_service(c->control, s->services[i], NULL, &why) == 0) {
			n_put++;
		} else {
			snprintf(label, sizeof(label), "%s/%s", s->services[i]->namespace,
				s->services[i]->name);
			cluster_say(&c->voice, LOG_LEVEL_WARN, "service-refused", label,
				"of the last good state: %s",
				error_first(&why, line, sizeof(line)));
		}
		error_fini(&why);
	}
	return n_put;
}

// true: a state was there and is in force.
static bool load(struct cluster_outage *o)
{
	struct outage_services services = { 0 };
	char *bytes = NULL, why[600] = "", age[32];
	size_t len = 0;
	struct stat st;
	int rc = kubeconfig_read_file(o->path, OUTAGE_FILE_MAX, &bytes, &len);
	if (rc == -ENOENT)
		return false;
	if (rc == 0)
		rc = outage_read(
			(const uint8_t *)bytes, len, o->whose, &services, why, sizeof(why));
	else
		snprintf(why, sizeof(why), "cannot be read: %s", strerror(-rc));
	free(bytes);
	if (rc != 0) {
		set_aside(o, why);
		return false;
	}
	int64_t age_s = stat(o->path, &st) == 0 ? clock_wall_ms() / 1000 - st.st_mtime : 0;
	uint32_t n = put_services(o->cluster, &services);
	cluster_say(&o->cluster->voice, LOG_LEVEL_INFO, "state-loaded", o->path,
		"%u of %u services, %s old", n, services.n_services,
		clock_format_duration(
			(uint64_t)(age_s < 0 ? 0 : age_s) * CLOCK_S, age, sizeof(age)));
	outage_services_fini(&services);
	return true;
}

// ---------------------------------------------------------------- its life

int cluster_outage_start(
	struct source_cluster *c, const struct source_cluster_config *config, bool *out_loaded)
{
	const struct kubeconfig *k = cluster_auth_kubeconfig(c->auth);
	size_t len = strlen(k->server) + strlen(config->class_name) + 8;
	*out_loaded = false;
	if (config->state_dir[0] == '\0')
		return 0;
	struct cluster_outage *o = calloc(1, sizeof(*o));
	if (o == NULL)
		return -ENOMEM;
	o->cluster = c;
	o->fd = -1;
	snprintf(o->dir, sizeof(o->dir), "%s", config->state_dir);
	snprintf(o->path, sizeof(o->path), "%s/" OUTAGE_NAME, config->state_dir);
	snprintf(o->aside, sizeof(o->aside), "%s.new", o->path);
	o->whose = malloc(len);
	o->timer = evtimer_new(c->base, on_timer, o);
	c->outage = o;
	if (o->whose == NULL || o->timer == NULL) {
		cluster_outage_end(c);
		return -ENOMEM;
	}
	snprintf(o->whose, len, "%.700s %s", k->server, config->class_name);
	mkdir(o->dir, 0700); // may be there already; what fails is said when it is written
	*out_loaded = load(o);
	return 0;
}

void cluster_outage_end(struct source_cluster *c)
{
	struct cluster_outage *o = c->outage;
	if (o == NULL)
		return;
	// What waits is written now: nothing is served from this loop any more.
	if (o->step == OUTAGE_WAITING && !o->is_failing)
		save_begin(o);
	while (o->step == OUTAGE_WRITING)
		save_on(o);
	if (o->step == OUTAGE_SETTLING)
		sync_begin(o, OUTAGE_SYNCING);
	while (o->step == OUTAGE_SYNCING || o->step == OUTAGE_NAMING) {
		const struct aiocb *list[] = { &o->sync };
		if (o->sync.aio_fildes >= 0)
			aio_suspend(list, 1, NULL);
		save_sync(o);
	}
	if (o->fd >= 0)
		close(o->fd);
	if (o->timer)
		event_free(o->timer);
	outage_bytes_fini(&o->bytes);
	free(o->whose);
	free(o);
	c->outage = NULL;
}

uint64_t cluster_outage_saved(const struct source_cluster *c)
{
	return c->outage ? c->outage->n_saved : 0;
}
