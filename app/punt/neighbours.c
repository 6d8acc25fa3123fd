// SPDX-License-Identifier: BSD-3-Clause
// Neighbours of the twins as the kernel knows them, told to control when they change, and kept
// fresh.
//
// The kernel resolves nothing by itself when only DPDK forwards: each next hop in use is touched
// every 250 ms (NTF_USE), which makes the kernel resolve it, or probe it once its confirmation is
// older than the twin's settings allow. So a silent change of a MAC is followed within a second, a
// gratuitous ARP or unsolicited NA at once.
//
// The table is open addressing with linear probing over (port, address), at most half full; an
// entry that went keeps its slot as NEXTHOP_UNUSED until the table is next copied. An event is
// newer than a dump that runs: what it said stands.
#include "punt_priv.h"

#include <errno.h>
#include <linux/neighbour.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_MIN           1024
#define KICK_BYTES          64 // of one request, at most
#define TABLE_FULL_NOTED_NS (60 * CLOCK_S)

// ---------------------------------------------------------------- table

static uint32_t slot_first(const struct neighbours *n, uint8_t port_idx, const struct address *a)
{
	uint64_t hash = hash_fold(a->halves[0] ^ 0x9e3779b97f4a7c15ull,
		a->halves[1] ^ 0xd6e8feb86659fd93ull ^ ((uint64_t)port_idx << 56));
	return (uint32_t)hash & (n->n_slots - 1);
}

// The entry, or the free slot where it would go. There always is one: the table is at most half
// full.
static struct neighbour *slot_find(
	const struct neighbours *n, uint8_t port_idx, const struct address *address)
{
	uint32_t i = slot_first(n, port_idx, address);
	for (;; i = (i + 1) & (n->n_slots - 1)) {
		struct neighbour *slot = &n->slots[i];
		if (!slot->is_used ||
			(slot->port_idx == port_idx && address_equal(&slot->address, address)))
			return slot;
	}
}

// Copies what is not gone into a table with room for as much again.
static int table_copy(struct neighbours *n)
{
	struct neighbours copy = { .n_slots = SLOTS_MIN };
	uint32_t n_live = 0;
	for (uint32_t i = 0; i < n->n_slots; i++)
		n_live += n->slots[i].is_used && n->slots[i].state != NEXTHOP_UNUSED;
	while (copy.n_slots < n_live * 4)
		copy.n_slots *= 2;
	copy.slots = calloc(copy.n_slots, sizeof(*copy.slots));
	if (copy.slots == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < n->n_slots; i++) {
		const struct neighbour *slot = &n->slots[i];
		if (slot->is_used && slot->state != NEXTHOP_UNUSED)
			*slot_find(&copy, slot->port_idx, &slot->address) = *slot;
	}
	free(n->slots);
	n->slots = copy.slots;
	n->n_slots = copy.n_slots;
	n->n_used = n_live;
	return 0;
}

static struct neighbour *slot_claim(struct punt *p, uint8_t port_idx, const struct address *address)
{
	struct neighbours *n = &p->neighbours;
	struct neighbour *slot = slot_find(n, port_idx, address);
	if (slot->is_used)
		return slot;
	if (n->n_used >= PUNT_NEIGHBOURS_MAX ||
		(n->n_used * 2 >= n->n_slots && table_copy(n) != 0)) {
		if (!n->is_full_noted)
			control_note(p->control, LOG_LEVEL_ERROR, "neighbours-full", "twins",
				"more than %u neighbours: the rest is not used", n->n_used);
		n->is_full_noted = true;
		return NULL;
	}
	slot = slot_find(n, port_idx, address);
	*slot = (struct neighbour){ .address = *address, .port_idx = port_idx, .is_used = true };
	n->n_used++;
	return slot;
}

// ---------------------------------------------------------------- what the kernel says

static enum nexthop_state state_of(uint16_t nud, bool has_mac)
{
	if (nud & (NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT | NUD_NOARP))
		return has_mac ? NEXTHOP_VALID : NEXTHOP_UNUSED;
	if (nud & NUD_FAILED)
		return NEXTHOP_FAILED;
	return nud & NUD_INCOMPLETE ? NEXTHOP_INCOMPLETE : NEXTHOP_UNUSED;
}

static void neighbour_tell(
	struct punt *p, struct neighbour *slot, enum nexthop_state state, const struct mac *mac)
{
	if (slot->state == state &&
		(state != NEXTHOP_VALID || memcmp(&slot->mac, mac, sizeof(*mac)) == 0))
		return;
	slot->state = (uint8_t)state;
	slot->mac = *mac;
	control_set_neighbour(p->control, slot->port_idx, &slot->address, mac, state);
}

static bool is_multicast(const struct address *a)
{
	return address_is_v4(a) ? (a->bytes[12] & 0xf0) == 0xe0 || a->words[3] == UINT32_MAX
				: a->bytes[0] == 0xff;
}

void neighbours_take(struct punt *p, const struct nlmsghdr *m, bool is_event)
{
	struct neighbours *n = &p->neighbours;
	const struct nlattr *attrs[NDA_LLADDR + 1];
	struct address address;
	struct mac mac = { { 0 } };
	if (m->nlmsg_len < MNL_NLMSG_HDRLEN + sizeof(struct ndmsg))
		return;
	attrs_index(m, sizeof(struct ndmsg), attrs, NDA_LLADDR);
	const struct ndmsg *nd = mnl_nlmsg_get_payload(m);
	const struct twin *t = punt_twin_by_ifindex(p, (uint32_t)nd->ndm_ifindex);
	if (t == NULL || attrs[NDA_DST] == NULL || (nd->ndm_flags & NTF_PROXY) ||
		!address_from_attr(attrs[NDA_DST], nd->ndm_family, &address) ||
		is_multicast(&address))
		return;
	bool has_mac = attrs[NDA_LLADDR] && mnl_attr_get_payload_len(attrs[NDA_LLADDR]) == 6;
	if (has_mac)
		memcpy(mac.bytes, mnl_attr_get_payload(attrs[NDA_LLADDR]), 6);
	enum nexthop_state state =
		m->nlmsg_type == RTM_DELNEIGH ? NEXTHOP_UNUSED : state_of(nd->ndm_state, has_mac);
	// A twin that is down, or has just been made again and has no route yet, asks in vain: what
	// was known stands. It is looked at again when the twin is what it was.
	if (t->is_held && state != NEXTHOP_VALID)
		return;
	struct neighbour *slot = slot_find(n, t->port_idx, &address);
	if (!slot->is_used && state == NEXTHOP_UNUSED && !n->dump.is_running)
		return;
	slot = slot_claim(p, t->port_idx, &address);
	if (slot == NULL || (!is_event && slot->told == n->dump_number))
		return;
	if (is_event && n->dump.is_running)
		slot->told = n->dump_number;
	slot->seen = n->dump_number;
	neighbour_tell(p, slot, state, &mac);
}

static struct nlmsghdr *neighbours_request(void *arg, void *buf)
{
	struct neighbours *n = &((struct punt *)arg)->neighbours;
	struct nlmsghdr *m = netlink_message(&n->dump.netlink, buf, RTM_GETNEIGH, 0);
	n->dump_number++;
	mnl_nlmsg_put_extra_header(m, sizeof(struct ndmsg));
	return m;
}

static int neighbours_visit(const struct nlmsghdr *m, void *arg)
{
	if (m->nlmsg_type == RTM_NEWNEIGH)
		neighbours_take(arg, m, false);
	return MNL_CB_OK;
}

// What a whole dump did not show, and no event told while it ran, is gone.
static void neighbours_done(void *arg, bool is_whole)
{
	struct punt *p = arg;
	struct neighbours *n = &p->neighbours;
	static const struct mac none = { { 0 } };
	for (uint32_t i = 0; is_whole && i < n->n_slots; i++) {
		struct neighbour *slot = &n->slots[i];
		if (slot->is_used && slot->seen != n->dump_number && slot->told != n->dump_number)
			neighbour_tell(p, slot, NEXTHOP_UNUSED, &none);
	}
	table_copy(n); // no memory: what is gone keeps its slots
	n->is_full_noted &= n->n_used >= PUNT_NEIGHBOURS_MAX;
}

void neighbours_dump(struct punt *p)
{
	if (p->neighbours.dump.timer != NULL)
		dump_again(&p->neighbours.dump);
}

// ---------------------------------------------------------------- kept fresh

// Answers to requests are errors. A full table of the kernel is the one worth a word.
static void kick_drain(struct punt *p)
{
	struct neighbours *n = &p->neighbours;
	struct clock clock = clock_monotonic();
	uint64_t now = clock_now_ns(&clock);
	for (uint32_t i = 0; i < PUNT_FRESH_PER_TICK; i++) {
		ssize_t len = mnl_socket_recvfrom(n->kick.socket, p->buffer, sizeof(p->buffer));
		const struct nlmsghdr *m = (const void *)p->buffer;
		if (len < 0 && errno != ENOBUFS)
			return;
		if (len < 0 || !mnl_nlmsg_ok(m, (int)len) || m->nlmsg_type != NLMSG_ERROR)
			continue;
		const struct nlmsgerr *error = mnl_nlmsg_get_payload(m);
		if (error->error != -ENOBUFS || now - n->table_full_noted_ns < TABLE_FULL_NOTED_NS)
			continue;
		n->table_full_noted_ns = now;
		control_note(p->control, LOG_LEVEL_ERROR, "neighbour-table-full", "kernel",
			"no room for another neighbour: sysctl -w "
			"net.ipv4.neigh.default.gc_thresh3=65536 and net.ipv6.neigh...");
	}
}

// Appends one request at `offset`; returns the end, or `offset` when the twin is away.
static size_t kick_put(struct punt *p, size_t offset, uint8_t port_idx, const struct address *a)
{
	if (port_idx >= p->n_twins || !p->twins[port_idx].is_up)
		return offset;
	struct nlmsghdr *m = netlink_message(
		&p->neighbours.kick, p->buffer + offset, RTM_NEWNEIGH, NLM_F_CREATE);
	struct ndmsg *nd = mnl_nlmsg_put_extra_header(m, sizeof(*nd));
	nd->ndm_family = address_is_v4(a) ? AF_INET : AF_INET6;
	nd->ndm_ifindex = (int32_t)p->twins[port_idx].ifindex;
	nd->ndm_flags = NTF_USE;
	address_to_attr(m, NDA_DST, a);
	return offset + MNL_ALIGN(m->nlmsg_len);
}

static void kick_send(struct punt *p, size_t len)
{
	if (len > 0 && mnl_socket_sendto(p->neighbours.kick.socket, p->buffer, len) < 0)
		control_note(p->control, LOG_LEVEL_DEBUG, "neighbour-kick", "kernel", "%s",
			strerror(errno));
}

static void neighbours_on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct punt *p = arg;
	struct neighbours *n = &p->neighbours;
	uint32_t n_all = control_nexthops_in_use(p->control, n->in_use, PUNT_NEXTHOPS_MAX);
	uint32_t n_now = n_all < PUNT_FRESH_PER_TICK ? n_all : PUNT_FRESH_PER_TICK;
	size_t len = 0;
	if (n_all > PUNT_NEXTHOPS_MAX)
		n_all = PUNT_NEXTHOPS_MAX;
	n->n_resolves = 0;
	for (uint32_t i = 0; i < n_now; i++) {
		const struct dataplane_wanted *hop = &n->in_use[(n->cursor + i) % n_all];
		len = kick_put(p, len, hop->port_idx, &hop->address);
		if (len + KICK_BYTES > sizeof(p->buffer)) {
			kick_send(p, len);
			len = 0;
		}
	}
	kick_send(p, len);
	kick_drain(p);
	n->cursor = n_all ? (n->cursor + n_now) % n_all : 0;
}

// A scan of our subnets must not make the kernel shout: what is over the limit is asked for again
// by control.
void neighbours_resolve(void *arg, uint8_t port_idx, const struct address *address)
{
	struct punt *p = arg;
	// The kernel may have told before control knew a use for it, and tells no second time.
	const struct neighbour *slot = slot_find(&p->neighbours, port_idx, address);
	if (slot->is_used && slot->state == NEXTHOP_VALID)
		control_set_neighbour(p->control, port_idx, address, &slot->mac, NEXTHOP_VALID);
	if (p->neighbours.n_resolves++ < PUNT_RESOLVES_PER_TICK)
		kick_send(p, kick_put(p, 0, port_idx, address));
}

int neighbours_start(struct punt *p)
{
	static const struct timeval period = { .tv_usec = PUNT_FRESH_MS * 1000 };
	struct neighbours *n = &p->neighbours;
	struct event_base *base = control_base(p->control);
	n->dump_number = 1;
	n->dump.request = neighbours_request;
	n->dump.visit = neighbours_visit;
	n->dump.done = neighbours_done;
	n->dump.arg = p;
	n->in_use = calloc(PUNT_NEXTHOPS_MAX, sizeof(*n->in_use));
	n->tick = event_new(base, -1, EV_PERSIST, neighbours_on_tick, p);
	if (n->in_use == NULL || n->tick == NULL || table_copy(n) != 0)
		return -ENOMEM;
	int status = netlink_open(&n->kick, 0, false);
	if (status == 0)
		status = dump_init(&n->dump, base);
	if (status == 0 && event_add(n->tick, &period) != 0)
		status = -ENOMEM;
	if (status == 0)
		dump_again(&n->dump);
	return status;
}

void neighbours_fini(struct punt *p)
{
	struct neighbours *n = &p->neighbours;
	if (n->tick != NULL)
		event_free(n->tick);
	dump_fini(&n->dump);
	netlink_close(&n->kick);
	free(n->in_use);
	free(n->slots);
	memset(n, 0, sizeof(*n));
}
