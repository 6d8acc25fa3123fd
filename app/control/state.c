// SPDX-License-Identifier: BSD-3-Clause
// What must be there again after a restart: services made over REST, and drains and weights. Two JSON files in state_dir,
// each written aside, synced and renamed, so that a crash leaves the old or the new one.
//
// Writing is the one thing on the loop that can wait for a device. A change is written in the call that made it, so
// before it is acknowledged, while a write takes less than STATE_PROMPT_NS; a store so large (or a disk so slow) that
// it takes longer is written for a tenth of the loop's time, with what has changed meanwhile. A disk that refuses is
// told once, and tried again every 10 s; nothing else depends on it.
#include "control_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATE_VERSION   1
#define STATE_RETRY_NS  (10 * CLOCK_S)
#define STATE_FILE_MAX  (256u << 20)
#define SERVICES_FILE   "services.json"
#define OVERLAYS_FILE   "overlays.json"
#define STATE_PROMPT_NS (200 * CLOCK_MS)

static void state_path(
	const struct control *c, const char *name, const char *suffix, char out[PATH_MAX])
{
	snprintf(out, PATH_MAX, "%s/%s%s", c->config.state_dir, name, suffix);
}

// ---------------------------------------------------------------- write
static int write_all(int fd, const char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, bytes, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		bytes += n;
		len -= (size_t)n;
	}
	return 0;
}

static int sync_dir(const struct control *c)
{
	int fd = open(c->config.state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int rc = fsync(fd) == 0 ? 0 : -errno;
	close(fd);
	return rc;
}

static int write_text(const struct control *c, const char *name, const char *text)
{
	char aside[PATH_MAX], path[PATH_MAX];
	state_path(c, name, ".new", aside);
	state_path(c, name, "", path);
	int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	int rc = write_all(fd, text, strlen(text));
	if (rc == 0 && fsync(fd) != 0)
		rc = -errno;
	if (close(fd) != 0 && rc == 0)
		rc = -errno;
	if (rc == 0 && rename(aside, path) != 0)
		rc = -errno;
	if (rc != 0)
		unlink(aside);
	return rc != 0 ? rc : sync_dir(c);
}

// Takes items.
static int write_items(const struct control *c, const char *name, json_t *items)
{
	json_t *document = json_pack("{s:i, s:o}", "version", STATE_VERSION, "items", items);
	char *text = document != NULL ? json_dumps(document, JSON_INDENT(1)) : NULL;
	int rc = text != NULL ? write_text(c, name, text) : -ENOMEM;
	free(text);
	json_decref(document);
	return rc;
}

static int write_services(const struct control *c)
{
	json_t *items = json_array();
	for (uint32_t i = 0; i < service_store_count(c->store); i++) {
		const struct service *s = service_store_at(c->store, i);
		if (s->owner == SERVICE_OWNER_API)
			json_array_append_new(items, control_service_to_json(s));
	}
	return write_items(c, SERVICES_FILE, items);
}

static int write_overlays(const struct control *c)
{
	json_t *items = json_array();
	for (uint32_t i = 0; i < service_store_overlay_count(c->store); i++)
		json_array_append_new(
			items, control_overlay_to_json(service_store_overlay_at(c->store, i)));
	return write_items(c, OVERLAYS_FILE, items);
}

void control_state_flush(struct control *c)
{
	if (c->config.state_dir[0] == '\0' || (!c->services_dirty && !c->overlays_dirty))
		return;
	uint64_t begin = control_now_ns(c);
	int rc = 0;
	if (c->services_dirty)
		rc = write_services(c);
	if (rc == 0)
		c->services_dirty = false;
	if (rc == 0 && c->overlays_dirty)
		rc = write_overlays(c);
	if (rc == 0)
		c->overlays_dirty = false;
	c->state_end_ns = control_now_ns(c);
	c->state_cost_ns = c->state_end_ns - begin;
	if (rc != 0 && !c->is_state_failed)
		control_note(c, LOG_LEVEL_ERROR, "state-not-kept", c->config.state_dir,
			"cannot be written (%s): changes over REST and drains will be lost at a "
			"restart; tried again every 10s",
			strerror(-rc));
	if (rc == 0 && c->is_state_failed)
		control_note(c, LOG_LEVEL_INFO, "state-kept", c->config.state_dir, "written again");
	c->is_state_failed = rc != 0;
	if (rc != 0)
		control_arm(c->state_timer, STATE_RETRY_NS);
}

static void on_state(evutil_socket_t fd, short what, void *arg)
{
	control_state_flush(arg);
}

int control_state_init(struct control *c)
{
	c->state_timer = evtimer_new(c->base, on_state, c);
	return c->state_timer != NULL ? 0 : -ENOMEM;
}

void control_state_end(struct control *c)
{
	if (c->state_timer != NULL)
		event_free(c->state_timer);
}

void control_state_dirty(struct control *c, bool services, bool overlays)
{
	c->services_dirty |= services;
	c->overlays_dirty |= overlays;
	if ((!services && !overlays) || evtimer_pending(c->state_timer, NULL))
		return;
	uint64_t rested_ns = control_now_ns(c) - c->state_end_ns;
	// Kept before it is acknowledged, as long as that is quick; a store so large that writing it takes longer is written
	// for a tenth of the time at most.
	if (c->state_end_ns == 0 || c->state_cost_ns < STATE_PROMPT_NS ||
		rested_ns >= 9 * c->state_cost_ns)
		control_state_flush(c);
	else
		control_arm(c->state_timer, 9 * c->state_cost_ns - rested_ns);
}

// ---------------------------------------------------------------- read
static void set_aside(struct control *c, const char *name, const char *why)
{
	char path[PATH_MAX], broken[PATH_MAX];
	state_path(c, name, "", path);
	state_path(c, name, ".broken", broken);
	bool done = rename(path, broken) == 0;
	control_note(c, LOG_LEVEL_ERROR, "state-broken", path, "%s; %s %s", why,
		done ? "set aside as" : "could not be set aside as", broken);
}

// The items of a state file, or NULL: none, or broken (set aside, and err says what).
static json_t *read_items(struct control *c, const char *name, struct error *err)
{
	char path[PATH_MAX], why[256];
	state_path(c, name, "", path);
	struct stat st;
	if (stat(path, &st) != 0 && errno == ENOENT)
		return NULL;
	json_error_t at = { 0 };
	json_t *document = NULL;
	if (st.st_size <= (off_t)STATE_FILE_MAX)
		document = json_load_file(path, JSON_REJECT_DUPLICATES, &at);
	json_t *items = json_object_get(document, "items");
	if (document == NULL)
		snprintf(why, sizeof(why), "line %d: %s", at.line, at.text);
	else if (json_integer_value(json_object_get(document, "version")) != STATE_VERSION)
		snprintf(why, sizeof(why), "version is not %d", STATE_VERSION);
	else if (!json_is_array(items))
		snprintf(why, sizeof(why), "items is not a list");
	else {
		json_incref(items);
		json_decref(document);
		return items;
	}
	json_decref(document);
	error_add(err, EINVAL, path, "%s", why);
	set_aside(c, name, why);
	return NULL;
}

static int load_service(struct control *c, const json_t *item, struct error *err)
{
	struct service *s = control_service_from_json(item, &c->config.defaults, err);
	int rc = -EINVAL;
	if (s != NULL)
		rc = control_check_service(c, s, err);
	if (rc == 0)
		rc = service_store_put(c->store, s, NULL, err);
	service_destroy(s);
	return rc;
}

static int load_overlay(struct control *c, const json_t *item, struct error *err)
{
	struct service_overlay o;
	int rc = control_overlay_from_json(item, &o, err);
	return rc != 0 ? rc : service_store_put_overlay(c->store, &o);
}

// Loads what can be; returns how many items could not.
static uint32_t load_items(struct control *c, const char *name,
	int (*load)(struct control *c, const json_t *item, struct error *err), struct error *err)
{
	json_t *items = read_items(c, name, err);
	size_t i;
	json_t *item;
	uint32_t n_bad = 0;
	json_array_foreach(items, i, item)
	{
		struct error found = { 0 };
		if (load(c, item, &found) != 0) {
			char prefix[64];
			snprintf(prefix, sizeof(prefix), "%s/items/%zu", name, i);
			error_merge(err, &found, prefix);
			n_bad++;
		}
		error_fini(&found);
	}
	if (n_bad > 0) {
		char why[64];
		snprintf(why, sizeof(why), "%u of %zu items were refused", n_bad,
			json_array_size(items));
		set_aside(c, name, why);
	}
	json_decref(items);
	return n_bad;
}

int control_load_state(struct control *c, struct error *err)
{
	if (c->config.state_dir[0] == '\0')
		return 0;
	if (mkdir(c->config.state_dir, 0750) != 0 && errno != EEXIST)
		control_note(c, LOG_LEVEL_WARN, "state-not-kept", c->config.state_dir, "%s",
			strerror(errno));
	struct error found = { 0 };
	uint32_t n_bad = load_items(c, SERVICES_FILE, load_service, &found);
	if (n_bad > 0)
		control_state_dirty(c, true, false);
	n_bad = load_items(c, OVERLAYS_FILE, load_overlay, &found);
	if (n_bad > 0)
		control_state_dirty(c, false, true);
	bool is_whole = found.n_items == 0;
	if (err != NULL)
		error_merge(err, &found, "");
	error_fini(&found);
	control_change_noted(c, CONTROL_WORK_BUILD);
	return is_whole ? 0 : -EINVAL;
}
