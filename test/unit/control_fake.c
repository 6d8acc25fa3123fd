// SPDX-License-Identifier: BSD-3-Clause
#include "control_fake_priv.h"

#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct fake fake;

void fake_reset(void)
{
	if (fake.event_fd > 0)
		close(fake.event_fd);
	for (uint32_t i = 0; i < fake.n_replies; i++)
		free(fake.replies[i]);
	memset(&fake, 0, sizeof(fake));
	fake.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	fake.n_workers = 1;
	snprintf(fake.port.name, sizeof(fake.port.name), "p0");
	fake.port.mtu = 1500;
	fake.port.link_up = true;
}

void fake_wake(void)
{
	uint64_t one = 1;
	ssize_t n = write(fake.event_fd, &one, sizeof(one));
	(void)n;
}

void fake_reply(struct dataplane_reply *reply)
{
	fake.replies[fake.n_replies++] = reply;
	fake_wake();
}

void dataplane_publish(struct dataplane *dp, const struct snapshot *snapshot)
{
	fake.published = snapshot;
	fake.n_published++;
}

uint64_t dataplane_grace_start(struct dataplane *dp)
{
	return ++fake.grace_next;
}

bool dataplane_grace_done(struct dataplane *dp, uint64_t token)
{
	return token <= fake.grace_done;
}

uint64_t dataplane_adopted_generation(const struct dataplane *dp)
{
	return fake.published != NULL ? fake.published->generation : 0;
}

uint64_t dataplane_sweeps(const struct dataplane *dp)
{
	return fake.sweeps;
}

uint32_t dataplane_n_workers(const struct dataplane *dp)
{
	return fake.n_workers;
}

void dataplane_backend_counters(
	const struct dataplane *dp, uint32_t backend_id, struct pipeline_backend_counters *out)
{
	*out = fake.counters[backend_id % 256];
}

int dataplane_ask(
	struct dataplane *dp, uint32_t worker_idx, const struct dataplane_request *request)
{
	if (fake.is_mailbox_full || fake.n_asked >= 256)
		return -11;
	fake.asked_worker[fake.n_asked] = worker_idx;
	fake.asked[fake.n_asked++] = *request;
	return 0;
}

struct dataplane_reply *dataplane_next_reply(struct dataplane *dp)
{
	if (fake.n_replies == 0)
		return NULL;
	struct dataplane_reply *reply = fake.replies[0];
	memmove(fake.replies, fake.replies + 1, --fake.n_replies * sizeof(reply));
	return reply;
}

void dataplane_reply_free(struct dataplane *dp, struct dataplane_reply *reply)
{
	free(reply);
}

int dataplane_event_fd(const struct dataplane *dp)
{
	return fake.event_fd;
}

uint32_t dataplane_take_wanted(struct dataplane *dp, struct dataplane_wanted *out, uint32_t max)
{
	uint32_t n = fake.n_wanted < max ? fake.n_wanted : max;
	memcpy(out, fake.wanted, n * sizeof(*out));
	fake.n_wanted = 0;
	return n;
}

uint32_t device_n_ports(const struct device *device)
{
	return 1;
}

const struct device_port *device_port(const struct device *device, uint32_t idx)
{
	return &fake.port;
}

void device_poll_links(struct device *device)
{
}
