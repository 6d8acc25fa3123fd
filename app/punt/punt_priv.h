// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Inside of the slow path. One struct punt; its parts are files: twin.c (TAP devices, frames),
// settings.c (sysctls), addresses.c (own addresses on twins), monitor.c (what the kernel tells
// unasked), routes.c and neighbours.c (what is learnt), netlink.c and link.c (how the kernel is
// spoken to).

#include <event2/event.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#include "punt.h"

#define PUNT_FRAME_MAX         65536 // TAP hands over whole frames, whatever the MTU
#define PUNT_FRAMES_PER_TURN   64
#define PUNT_PUNTED_PER_TURN   1024
#define PUNT_MESSAGES_PER_TURN 64       // datagrams of netlink, each at most NETLINK_BUFFER_BYTES
#define PUNT_ADDRESSES_TURN_NS CLOCK_MS // a change of an endpoint takes some turns of the loop
#define PUNT_FRESH_MS          250
#define PUNT_FRESH_PER_TICK    1000
#define PUNT_RESOLVES_PER_TICK 2000
#define PUNT_NEXTHOPS_MAX      16384 // that are kept fresh
#define PUNT_NEIGHBOURS_MAX    65536
#define PUNT_ROUTES_MAX        1000000
#define PUNT_RETRY_MIN_MS      100
#define PUNT_RETRY_MAX_MS      5000
#define PUNT_SETTINGS_MAX      24
#define NETLINK_BUFFER_BYTES   32768

// Marks of ownership that outlive the process: alias of a twin made by sluice, protocol tag of an
// address put there by it.
#define PUNT_ALIAS         "made by sluice"
#define PUNT_ADDRESS_PROTO 83

// ---------------------------------------------------------------- netlink
struct netlink {
	struct mnl_socket *socket;
	uint32_t port_id;
	uint32_t seq;
};
// groups: RTMGRP_* bits. Waiting sockets answer within 1 s or fail with -ETIMEDOUT.
int netlink_open(struct netlink *n, uint32_t groups, bool is_waiting);
void netlink_close(struct netlink *n);
int netlink_fd(const struct netlink *n);
// Starts a message in `buf` (NETLINK_BUFFER_BYTES) with a sequence number of its own.
struct nlmsghdr *netlink_message(struct netlink *n, void *buf, uint16_t type, uint16_t flags);
int netlink_send(struct netlink *n, const struct nlmsghdr *m);
// Sends and waits for the acknowledgement: 0 or -errno of the kernel.
int netlink_ask(struct netlink *n, struct nlmsghdr *m);
// Sends and calls fn for each answer until the last.
int netlink_collect(struct netlink *n, struct nlmsghdr *m, mnl_cb_t fn, void *arg);

// A dump that runs in the event loop. Changes told while it runs (dump_again) make it run once more
// when it is done.
struct dump {
	struct netlink netlink;
	struct event *readable;
	struct event *timer;                               // start, and the end of patience
	struct nlmsghdr *(*request)(void *arg, void *buf); // called once at the start of each
	mnl_cb_t visit;
	void (*done)(void *arg, bool is_whole); // false: given up, what was visited is not all
	void *arg;
	bool is_running;
	bool is_scheduled;
	bool again;
	uint64_t started_ns;
	uint64_t last_ns; // how long the last one took
};
int dump_init(struct dump *d, struct event_base *base);
void dump_fini(struct dump *d);
// Soon (5 ms, so that a burst of changes costs one), and never more than a tenth of the time.
void dump_again(struct dump *d);

// ---------------------------------------------------------------- twins
struct twin_setting_saved {
	char value[24];
	bool is_saved;
};

struct twin_change { // of an own address
	struct address address;
	bool is_add;
};

struct punt;
struct twin {
	struct punt *punt;
	char name[IFNAMSIZ];
	struct mac mac;
	uint16_t mtu;
	uint8_t port_idx;
	bool is_made; // by sluice: removed at a clean end
	bool has_mac; // the port's is one that a device can have
	bool is_up;
	bool is_held; // lost or down: its routes are those last known
	int fd;       // -1: lost
	uint32_t ifindex;
	uint32_t retry_ms;
	struct event *readable;
	struct event *retry;
	struct twin_setting_saved saved[PUNT_SETTINGS_MAX];
	// own addresses: changes still to be made
	struct twin_change *changes;
	uint32_t n_changes;
	uint32_t next_change;
	uint32_t n_refused; // of this pass
};

struct link_facts {
	uint32_t ifindex;
	uint32_t mtu;
	struct mac mac;
	bool is_tap;
	bool is_multi_queue;
	bool is_ours; // carries PUNT_ALIAS
	bool is_up;
};
int link_query(struct netlink *n, const char *name, struct link_facts *out); // -ENODEV: none
// Only what differs is written. NULL mac, 0 mtu: left alone.
int link_set(struct netlink *n, uint32_t ifindex, const struct mac *mac, uint32_t mtu);
int link_set_alias(struct netlink *n, uint32_t ifindex, const char *alias);
int link_set_up(struct netlink *n, uint32_t ifindex);

int twin_open(struct twin *t, struct error *err);
// Gives the descriptor up; removes the device when `remove` and it is ours.
void twin_close(struct twin *t, bool remove);
int twin_listen(struct twin *t); // frames from here on
void twin_lose(struct twin *t, const char *why);
void twin_retry(struct twin *t);
void twin_fini(struct twin *t);
struct twin *punt_twin_by_ifindex(struct punt *p, uint32_t ifindex); // NULL: not one of ours
void punt_carry(void *arg);                                          // punted frames to the twins

void settings_apply(struct twin *t);
void settings_restore(struct twin *t);

// ---------------------------------------------------------------- what is learnt
struct neighbour {
	struct address address;
	struct mac mac;
	uint8_t port_idx;
	uint8_t state; // enum nexthop_state; NEXTHOP_UNUSED: gone from the kernel
	bool is_used;  // slot holds an entry
	uint32_t seen; // number of the dump that last saw it
	uint32_t told; // number of the dump during which an event told of it
};

struct neighbours {
	struct neighbour *slots;
	uint32_t n_slots; // power of two
	uint32_t n_used;
	uint32_t dump_number;
	bool is_full_noted;
	struct dump dump;
	struct netlink kick; // requests to resolve; answers are errors only
	struct event *tick;
	struct dataplane_wanted *in_use; // PUNT_NEXTHOPS_MAX
	uint32_t cursor;
	uint32_t n_resolves; // since the last tick
	uint64_t table_full_noted_ns;
};

struct routes {
	struct dump dump;
	struct control_route *found; // by the dump that runs
	uint32_t n_found;
	uint32_t found_cap;
	struct control_route *now; // as control has them
	uint32_t n_now;
	bool is_known; // a dump was taken
	bool is_truncated;
	bool is_truncated_noted;
};

struct monitor {
	struct netlink netlink;
	struct event *readable;
	uint64_t n_overruns;
};

struct punt {
	struct control *control;
	struct netlink request; // waits for its answers; the kernel gives them at once
	struct twin twins[DEVICE_PORTS_MAX];
	uint32_t n_twins;
	struct neighbours neighbours;
	struct routes routes;
	struct monitor monitor;
	// own addresses
	struct event *reconcile; // timer
	bool is_plan_due;        // own addresses changed
	bool is_check_due;       // those of the kernel may have
	bool is_changing;        // changes planned are being made
	uint32_t reconcile_ms;   // delay after a refusal
	struct event *carry;     // more punted frames wait than one turn takes
	uint8_t frame[PUNT_FRAME_MAX];
	uint8_t buffer[NETLINK_BUFFER_BYTES];        // requests
	uint8_t buffer_events[NETLINK_BUFFER_BYTES]; // messages being read, while requests are made
	bool is_hooked;
};

int addresses_start(struct punt *p);
void addresses_changed(void *arg); // hook of control
void addresses_check(struct punt *p);
void addresses_remove(struct twin *t); // all that are ours, now
void addresses_fini(struct punt *p);

int monitor_start(struct punt *p);
void monitor_fini(struct punt *p);

int routes_start(struct punt *p);
void routes_changed(struct punt *p);
void routes_fini(struct punt *p);

int neighbours_start(struct punt *p);
void neighbours_dump(struct punt *p);
// A message RTM_NEWNEIGH or RTM_DELNEIGH; `is_event`: told unasked, newer than any dump under way.
void neighbours_take(struct punt *p, const struct nlmsghdr *m, bool is_event);
void neighbours_resolve(void *arg, uint8_t port_idx, const struct address *address);
void neighbours_fini(struct punt *p);
// Attribute of an address family into an address: false when its length is wrong.
bool address_from_attr(const struct nlattr *attr, uint8_t family, struct address *out);
void address_to_attr(struct nlmsghdr *m, uint16_t type, const struct address *address);
// Attributes of a message after a fixed header of `offset` bytes, by type up to `max` (the last of
// each wins).
void attrs_index(const struct nlmsghdr *m, size_t offset, const struct nlattr **out, uint16_t max);
// Those of a nest.
void attrs_index_nested(const struct nlattr *nest, const struct nlattr **out, uint16_t max);
