// SPDX-License-Identifier: BSD-3-Clause
// A twin: the TAP device of one port. Opened or made, given the port's MAC and MTU, watched, opened
// again when it was lost; frames both ways.
//
// Who owns it: a twin that is not there is made, marked with an alias and made persistent, in this
// order, so that a persistent one of ours always carries the mark. A twin with the mark is ours,
// whichever run of sluice made it, and goes at a clean end. One without it stays, with everything
// on it that is not ours.
//
// A twin that is lost (deleted by hand, moved away) or down loses frames under names of their own;
// packets of flows go on, by the routes and neighbours last known.
#include "punt_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define TUN_DEVICE "/dev/net/tun"

static int twin_refuse(const struct twin *t, struct error *err, int code, const char *cause)
{
	char path[48];
	snprintf(path, sizeof(path), "ports[%u].twin", t->port_idx);
	return error_add(err, code, path, "%s: %s", t->name, cause);
}

static int tun_attach(struct twin *t, const struct link_facts *link, struct error *err)
{
	struct ifreq request = { 0 };
	int fd = open(TUN_DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0) {
		char cause[96];
		int code = errno;
		snprintf(cause, sizeof(cause), "%s: %s", TUN_DEVICE, strerror(code));
		return twin_refuse(t, err, code, cause);
	}
	request.ifr_flags = IFF_TAP | IFF_NO_PI;
	if (link->is_multi_queue)
		request.ifr_flags |= IFF_MULTI_QUEUE;
	memcpy(request.ifr_name, t->name, sizeof(request.ifr_name));
	if (ioctl(fd, TUNSETIFF, &request) != 0) {
		int code = errno;
		close(fd);
		return twin_refuse(t, err, code,
			code == EBUSY   ? "held by another process (another sluiced?)"
			: code == EPERM ? "may not be opened: CAP_NET_ADMIN is needed"
					: strerror(code));
	}
	// Whole frames with their checksums, whoever used the device before.
	ioctl(fd, TUNSETOFFLOAD, 0);
	t->fd = fd;
	return 0;
}

static int twin_check_name(const struct twin *t, struct error *err)
{
	if (t->name[0] == 0 || strpbrk(t->name, "/% ") != NULL || strcmp(t->name, ".") == 0 ||
		strcmp(t->name, "..") == 0)
		return twin_refuse(t, err, EINVAL, "not a name for an interface");
	return 0;
}

// A new device: the mark first, then persistence.
static int twin_mark(struct twin *t, struct error *err)
{
	int status = link_set_alias(&t->punt->request, t->ifindex, PUNT_ALIAS);
	if (status == 0 && ioctl(t->fd, TUNSETPERSIST, 1) != 0)
		status = -errno;
	return status == 0 ? 0 : twin_refuse(t, err, -status, "cannot be made persistent");
}

// MAC, MTU, settings, up. The MAC first: the link-local address is made from it when the device
// goes up.
static int twin_configure(struct twin *t, const struct link_facts *link, struct error *err)
{
	struct netlink *n = &t->punt->request;
	char cause[96], mac[18];
	bool keep_mac = !t->has_mac || memcmp(&t->mac, &link->mac, sizeof(t->mac)) == 0;
	int status = link_set(n, t->ifindex, keep_mac ? NULL : &t->mac, 0);
	if (status != 0) {
		snprintf(cause, sizeof(cause), "MAC %s: %s", mac_format(&t->mac, mac),
			strerror(-status));
		return twin_refuse(t, err, -status, cause);
	}
	status = link_set(n, t->ifindex, NULL, t->mtu == link->mtu ? 0 : t->mtu);
	if (status != 0) {
		snprintf(cause, sizeof(cause), "MTU %u: %s", t->mtu, strerror(-status));
		return twin_refuse(t, err, -status, cause);
	}
	settings_apply(t);
	status = link_set_up(n, t->ifindex);
	t->is_up = status == 0;
	return status == 0 ? 0 : twin_refuse(t, err, -status, "cannot be brought up");
}

int twin_open(struct twin *t, struct error *err)
{
	struct link_facts link;
	int status = twin_check_name(t, err);
	if (status != 0)
		return status;
	status = link_query(&t->punt->request, t->name, &link);
	if (status != 0 && status != -ENODEV)
		return twin_refuse(t, err, -status, strerror(-status));
	bool existed = status == 0;
	if (existed && !link.is_tap)
		return twin_refuse(
			t, err, EEXIST, "an interface of that name exists and is no TAP");
	status = tun_attach(t, &link, err);
	if (status != 0)
		return status;
	t->is_made = !existed || link.is_ours;
	if (!existed)
		status = link_query(&t->punt->request, t->name, &link);
	if (status != 0)
		twin_refuse(t, err, -status, strerror(-status));
	t->ifindex = link.ifindex;
	if (status == 0 && !existed)
		status = twin_mark(t, err);
	if (status == 0)
		status = twin_configure(t, &link, err);
	if (status != 0) {
		twin_close(t, !existed);
		return status;
	}
	control_note(t->punt->control, LOG_LEVEL_INFO, existed ? "twin-attached" : "twin-made",
		t->name, "ifindex %u, MTU %u%s", t->ifindex, t->mtu,
		existed && t->is_made ? ", made by an earlier run" : "");
	return 0;
}

void twin_close(struct twin *t, bool remove)
{
	if (t->readable != NULL)
		event_free(t->readable);
	t->readable = NULL;
	if (t->fd < 0)
		return;
	if (remove && t->is_made)
		ioctl(t->fd, TUNSETPERSIST, 0); // goes with the last descriptor
	close(t->fd);
	t->fd = -1;
	t->ifindex = 0;
	t->is_up = false;
}

void twin_fini(struct twin *t)
{
	twin_close(t, true);
	if (t->retry != NULL)
		event_free(t->retry);
	t->retry = NULL;
	free(t->changes);
	t->changes = NULL;
}

struct twin *punt_twin_by_ifindex(struct punt *p, uint32_t ifindex)
{
	for (uint32_t i = 0; i < p->n_twins; i++)
		if (ifindex != 0 && p->twins[i].ifindex == ifindex)
			return &p->twins[i];
	return NULL;
}

// ---------------------------------------------------------------- lost and found

static void twin_retry_later(struct twin *t)
{
	struct timeval delay = { .tv_sec = t->retry_ms / 1000,
		.tv_usec = (suseconds_t)(t->retry_ms % 1000 * 1000) };
	evtimer_add(t->retry, &delay);
	t->retry_ms = t->retry_ms * 2 > PUNT_RETRY_MAX_MS ? PUNT_RETRY_MAX_MS : t->retry_ms * 2;
}

void twin_retry(struct twin *t)
{
	struct error err = { 0 };
	int status = twin_open(t, &err);
	if (status == 0)
		status = twin_listen(t);
	if (status != 0) {
		// Said once, when the pause has grown to its full length.
		char text[256];
		if (t->retry_ms > PUNT_RETRY_MAX_MS / 2 && t->retry_ms < PUNT_RETRY_MAX_MS)
			control_note(t->punt->control, LOG_LEVEL_ERROR, "twin-lost", t->name,
				"cannot be opened again: %s",
				error_first(&err, text, sizeof(text)));
		error_fini(&err);
		twin_close(t, false);
		twin_retry_later(t);
		return;
	}
	t->retry_ms = PUNT_RETRY_MIN_MS;
	addresses_changed(t->punt);
	neighbours_dump(t->punt);
	routes_changed(t->punt);
}

void twin_lose(struct twin *t, const char *why)
{
	if (t->fd < 0)
		return;
	twin_close(t, false);
	t->is_held = true;
	t->n_changes = t->next_change = 0;
	control_note(t->punt->control, LOG_LEVEL_ERROR, "twin-lost", t->name,
		"%s; flows go on by what was learnt, ARP, ND and BGP do not until it is back", why);
	twin_retry_later(t);
}

// ---------------------------------------------------------------- frames

// From the kernel to the port. A turn is bounded: the rest waits in the device's queue, whose
// length bounds it.
static void twin_on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct twin *t = arg;
	struct punt *p = t->punt;
	struct dataplane *dp = (struct dataplane *)control_dataplane(p->control);
	for (uint32_t i = 0; i < PUNT_FRAMES_PER_TURN; i++) {
		ssize_t len = read(t->fd, p->frame, sizeof(p->frame));
		if (len < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (len < 0) {
			twin_lose(t, strerror(errno)); // EBADFD: the device is gone
			return;
		}
		if (dataplane_inject(dp, t->port_idx, p->frame, (uint32_t)len) != 0) {
			struct counters *counters = dataplane_control_counters(dp);
			counters_add(counters, COUNTER_INJECTED, 1);
			counters_drop(counters, DROP_INJECT_TX, 1);
		}
	}
}

int twin_listen(struct twin *t)
{
	struct event_base *base = control_base(t->punt->control);
	t->readable = event_new(base, t->fd, EV_READ | EV_PERSIST, twin_on_readable, t);
	return t->readable == NULL || event_add(t->readable, NULL) != 0 ? -ENOMEM : 0;
}

// From the port to the kernel. The worker counted the frame as punted: one that is refused is taken
// back and dropped by name, in control's own block, so that the sum over all blocks is right.
static void frame_refused(struct dataplane *dp, enum drop_reason reason)
{
	struct counters *counters = dataplane_control_counters(dp);
	counters_add(counters, COUNTER_PUNTED, (uint64_t)-1);
	counters_drop(counters, reason, 1);
}

static void frame_write(struct punt *p, struct dataplane *dp, const struct dataplane_punted *punted)
{
	struct twin *t = punted->port_idx < p->n_twins ? &p->twins[punted->port_idx] : NULL;
	uint32_t len;
	const void *frame = dataplane_frame(punted->mbuf, &len);
	if (t == NULL || t->fd < 0) {
		frame_refused(dp, DROP_PUNT_NO_TWIN);
		return;
	}
	if (write(t->fd, frame, len) == (ssize_t)len)
		return;
	int code = errno;
	frame_refused(dp, DROP_PUNT_WRITE);
	if (code == EBADFD)
		twin_lose(t, strerror(code));
}

void punt_carry(void *arg)
{
	struct punt *p = arg;
	struct dataplane *dp = (struct dataplane *)control_dataplane(p->control);
	struct dataplane_punted punted[PUNT_FRAMES_PER_TURN];
	uint32_t n_done = 0, n;
	if (dp == NULL)
		return;
	do {
		n = dataplane_take_punted(dp, punted, PUNT_FRAMES_PER_TURN);
		for (uint32_t i = 0; i < n; i++) {
			frame_write(p, dp, &punted[i]);
			dataplane_free_punted(dp, punted[i].mbuf);
		}
		n_done += n;
	} while (n == PUNT_FRAMES_PER_TURN && n_done < PUNT_PUNTED_PER_TURN);
	if (n == PUNT_FRAMES_PER_TURN)
		event_active(p->carry, EV_TIMEOUT, 0);
}
