// SPDX-License-Identifier: BSD-3-Clause
// The loop itself: create, attach, run, end; the once-a-second tick; readiness.
//
//   sources, admin ─► desired.c ─► publish.c ─► dataplane_publish ─► retired when no worker can hold it
//   probe ─► probes.c ──verdict──────┘  ▲
//   punt ─► hops.c ──────FIB────────────┘
//
// Not here: sockets of any kind, decisions about packets. Invariant: no call in this folder blocks; the one exception is
// the write of the state folder, which is short or kept to a tenth of the loop's time (state.c).
#include "control_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

uint64_t control_now_ns(const struct control *c)
{
	return clock_now_ns(&c->clock);
}

void control_arm(struct event *timer, uint64_t ns)
{
	struct timeval tv = { .tv_sec = (time_t)(ns / CLOCK_S),
		.tv_usec = (suseconds_t)(ns % CLOCK_S / CLOCK_US) };
	event_add(timer, &tv);
}

static void poll_links(struct control *c)
{
	if (c->device == NULL)
		return;
	device_poll_links(c->device);
	for (uint32_t i = 0; i < device_n_ports(c->device); i++) {
		const struct device_port *port = device_port(c->device, i);
		if (port->link_up == c->links[i])
			continue;
		c->links[i] = port->link_up;
		control_note(c, port->link_up ? LOG_LEVEL_INFO : LOG_LEVEL_WARN,
			port->link_up ? "port-up" : "port-down", port->name, "link is %s",
			port->link_up ? "up" : "down");
	}
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct control *c = arg;
	poll_links(c);
	control_deadlines_tick(c);
	control_hops_tick(c);
	control_publish_tick(c);
	control_arm(c->tick, CONTROL_TICK_MS * CLOCK_MS);
}

int control_create(const struct control_config *config, const struct log *log, struct control **out,
	struct error *err)
{
	struct control *c = calloc(1, sizeof(*c));
	if (c == NULL)
		return error_add(err, ENOMEM, "", "out of memory");
	c->config = *config;
	c->numbers_fd = -1;
	if (c->config.coalesce_ns == 0)
		c->config.coalesce_ns = 20 * CLOCK_MS;
	c->log = *log;
	c->clock = clock_monotonic();
	c->started_ms = clock_wall_ms();
	c->next_question = 1;
	if (getrandom(&c->random, sizeof(c->random), 0) != sizeof(c->random))
		c->random = control_now_ns(c);
	control_probes_init(c);
	c->base = event_base_new();
	c->store = service_store_create();
	c->registry = snapshot_registry_create();
	c->events = calloc(CONTROL_EVENTS, sizeof(*c->events));
	if (c->base == NULL || c->store == NULL || c->registry == NULL || c->events == NULL) {
		control_destroy(c);
		return error_add(err, ENOMEM, "", "out of memory");
	}
	c->tick = evtimer_new(c->base, on_tick, c);
	int rc = c->tick == NULL ? -ENOMEM : control_publish_init(c);
	if (rc == 0)
		rc = control_state_init(c);
	if (rc == 0)
		rc = control_hops_init(c);
	if (rc == 0)
		rc = control_numbers_init(c, err);
	// Slots of the SNAT addresses come first, so that they are known before any service is.
	uint16_t slot;
	for (uint32_t i = 0; rc == 0 && i < config->n_snat; i++)
		rc = snapshot_registry_slot(c->registry, &config->snat[i], &slot);
	if (rc != 0) {
		control_destroy(c);
		return error_add(
			err, -rc, "", "the control loop cannot be set up: %s", strerror(-rc));
	}
	control_arm(c->tick, CONTROL_TICK_MS * CLOCK_MS);
	*out = c;
	return 0;
}

static void on_dataplane(evutil_socket_t fd, short what, void *arg)
{
	struct control *c = arg;
	uint64_t n;
	// Non-blocking eventfd: a failed read means another reading took the count; the rings are looked at in any case.
	ssize_t ignored = read(fd, &n, sizeof(n));
	(void)ignored;
	control_answers(c);
	control_hops_wanted(c);
	if (c->punt != NULL)
		c->punt(c->punt_arg);
}

int control_attach(
	struct control *c, struct device *device, struct dataplane *dp, struct error *err)
{
	c->dp_event =
		event_new(c->base, dataplane_event_fd(dp), EV_READ | EV_PERSIST, on_dataplane, c);
	if (c->dp_event == NULL || event_add(c->dp_event, NULL) != 0)
		return error_add(err, ENOMEM, "", "no event for the data plane");
	c->device = device;
	c->dp = dp;
	for (uint32_t i = 0; i < device_n_ports(device); i++)
		c->links[i] = device_port(device, i)->link_up;
	int rc = control_publish_now(c, CONTROL_WORK_BUILD | CONTROL_WORK_FIB, err);
	if (rc != 0)
		control_detach(c);
	return rc;
}

void control_detach(struct control *c)
{
	control_questions_end(c);
	if (c->dp_event != NULL)
		event_free(c->dp_event);
	c->dp_event = NULL;
	c->dp = NULL;
	c->device = NULL;
}

void control_destroy(struct control *c)
{
	if (c == NULL)
		return;
	if (c->dp != NULL)
		control_detach(c);
	if (c->store != NULL)
		control_state_flush(c);
	control_state_end(c);
	control_publish_end(c);
	control_probes_end(c);
	control_hops_end(c);
	if (c->tick != NULL)
		event_free(c->tick);
	control_numbers_fini(c);
	if (c->registry != NULL)
		snapshot_registry_destroy(c->registry);
	if (c->store != NULL)
		service_store_destroy(c->store);
	if (c->base != NULL)
		event_base_free(c->base);
	free(c->events);
	free(c);
}

struct event_base *control_base(struct control *c)
{
	return c->base;
}

const struct log *control_log(struct control *c)
{
	return &c->log;
}

void control_set_log(struct control *c, const struct log *log)
{
	c->log = *log;
}

int control_run(struct control *c)
{
	return event_base_dispatch(c->base) < 0 ? -EIO : 0;
}

void control_end(struct control *c)
{
	event_base_loopbreak(c->base);
}

uint16_t control_snat_slot(struct control *c, uint32_t snat_idx)
{
	uint16_t slot = SNAPSHOT_SLOT_NONE;
	if (snat_idx < c->config.n_snat)
		snapshot_registry_slot(c->registry, &c->config.snat[snat_idx], &slot);
	return slot;
}

void control_set_reload(struct control *c, int (*reload)(void *arg, struct error *err), void *arg)
{
	c->reload = reload;
	c->reload_arg = arg;
}

int control_reload(struct control *c, struct error *err)
{
	if (c->reload == NULL)
		return error_add(err, ENOSYS, "", "nothing to reload");
	return c->reload(c->reload_arg, err);
}

void control_set_punt_hook(struct control *c, void (*fn)(void *arg), void *arg)
{
	c->punt = fn;
	c->punt_arg = arg;
}

const struct service_store *control_store(const struct control *c)
{
	return c->store;
}

const struct service_defaults *control_defaults(const struct control *c)
{
	return &c->config.defaults;
}

void control_set_defaults(struct control *c, const struct service_defaults *defaults)
{
	c->config.defaults = *defaults;
}

const struct device *control_device(const struct control *c)
{
	return c->device;
}

const struct dataplane *control_dataplane(const struct control *c)
{
	return c->dp;
}

int64_t control_started_ms(const struct control *c)
{
	return c->started_ms;
}

void control_set_synced(struct control *c, const char *source, bool synced)
{
	uint32_t i = 0;
	while (i < c->n_synced && strcmp(c->synced[i].source, source) != 0)
		i++;
	if (i == CONTROL_SYNCED_MAX)
		return;
	if (i == c->n_synced) {
		snprintf(c->synced[i].source, sizeof(c->synced[i].source), "%s", source);
		c->n_synced++;
	}
	c->synced[i].synced = synced;
}

bool control_is_ready(const struct control *c, char *reason, size_t len)
{
	char ignored[1];
	if (reason == NULL) {
		reason = ignored;
		len = sizeof(ignored);
	}
	if (c->dp == NULL || c->published == NULL) {
		snprintf(reason, len, "starting: nothing published yet");
		return false;
	}
	for (uint32_t i = 0; i < device_n_ports(c->device); i++) {
		if (!device_port(c->device, i)->link_up) {
			snprintf(reason, len, "port %s is down", device_port(c->device, i)->name);
			return false;
		}
	}
	if (dataplane_adopted_generation(c->dp) == 0) {
		snprintf(reason, len, "workers have not adopted a snapshot yet");
		return false;
	}
	for (uint32_t i = 0; i < c->n_synced; i++) {
		if (!c->synced[i].synced) {
			snprintf(reason, len, "source %s is not synced", c->synced[i].source);
			return false;
		}
	}
	snprintf(reason, len, "ready");
	return true;
}

const double control_cluster_bounds_s[CONTROL_CLUSTER_BUCKETS] = { 0.005, 0.01, 0.025, 0.05, 0.1,
	0.25, 0.5, 1, 2.5, 5, 10, 30 };

void control_set_cluster_hook(
	struct control *c, void (*fill)(void *arg, struct control_cluster *out), void *arg)
{
	c->cluster_hook = fill;
	c->cluster_arg = arg;
}

void control_set_release_hook(struct control *c,
	int (*release)(void *arg, const char *namespace, const char *name), void *arg)
{
	c->release_hook = release;
	c->release_arg = arg;
}

int control_release(struct control *c, const char *namespace, const char *name)
{
	return c->release_hook ? c->release_hook(c->release_arg, namespace, name) : -ENOENT;
}

bool control_cluster(const struct control *c, struct control_cluster *out)
{
	*out = (struct control_cluster){ 0 };
	if (c->cluster_hook == NULL)
		return false;
	c->cluster_hook(c->cluster_arg, out);
	return true;
}
