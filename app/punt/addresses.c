// SPDX-License-Identifier: BSD-3-Clause
// Own addresses (VIPs and SNAT addresses) on every twin, so that the kernel answers ARP and ND for
// them.
//
// Ours carry a protocol tag (IFA_PROTO), which tells them from those of the operator even after a
// crash: a stale one of ours goes, one of his stays, also where it is equal to an own address (then
// it serves). Host prefixes only; IPv4 with scope link and IPv6 deprecated, so that the kernel
// never picks one as the source of its own traffic, whose answers the data path would take for its
// own; IPv6 without duplicate detection (2 s of silence) and without a prefix route.
//
// A change of thousands takes the kernel a while (50 us for an IPv4 address; for an IPv6 one as much
// as 2 ms when there are thousands, each joins a multicast group): turns of 1 ms, between which the
// loop serves others.
#include "punt_priv.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <stdlib.h>
#include <string.h>

#define RECONCILE_RETRY_MIN_MS 1000
#define RECONCILE_RETRY_MAX_MS 60000
#define CHECK_DELAY_MS         50

struct present {
	struct address address;
	bool is_ours;
};

struct survey { // of the addresses on one twin
	uint32_t ifindex;
	struct present *items;
	uint32_t n_items;
	uint32_t cap;
	int status;
};

static int survey_visit(const struct nlmsghdr *m, void *arg)
{
	struct survey *survey = arg;
	const struct nlattr *attrs[IFA_MAX + 1];
	struct present present = { 0 };
	if (m->nlmsg_type != RTM_NEWADDR)
		return MNL_CB_OK;
	attrs_index(m, sizeof(struct ifaddrmsg), attrs, IFA_MAX);
	const struct ifaddrmsg *a = mnl_nlmsg_get_payload(m);
	const struct nlattr *local = attrs[IFA_LOCAL] ? attrs[IFA_LOCAL] : attrs[IFA_ADDRESS];
	if (a->ifa_index != survey->ifindex || local == NULL ||
		!address_from_attr(local, a->ifa_family, &present.address))
		return MNL_CB_OK;
	present.is_ours =
		attrs[IFA_PROTO] && mnl_attr_get_u8(attrs[IFA_PROTO]) == PUNT_ADDRESS_PROTO;
	if (array_grow(survey->items, survey->n_items, survey->cap) != 0) {
		survey->status = -ENOMEM;
		return MNL_CB_OK;
	}
	survey->items[survey->n_items++] = present;
	return MNL_CB_OK;
}

static int present_compare(const void *a, const void *b)
{
	const struct present *x = a, *y = b;
	int order = address_compare(&x->address, &y->address);
	return order ? order : (int)x->is_ours - (int)y->is_ours;
}

static int address_order(const void *a, const void *b)
{
	return address_compare(a, b);
}

static int survey_take(struct twin *t, struct survey *out)
{
	struct netlink *n = &t->punt->request;
	struct nlmsghdr *m = netlink_message(n, t->punt->buffer, RTM_GETADDR, NLM_F_DUMP);
	struct ifaddrmsg *a = mnl_nlmsg_put_extra_header(m, sizeof(*a));
	a->ifa_family = AF_UNSPEC;
	a->ifa_index = t->ifindex;
	memset(out, 0, sizeof(*out));
	out->ifindex = t->ifindex;
	int status = netlink_collect(n, m, survey_visit, out);
	qsort(out->items, out->n_items, sizeof(*out->items), present_compare);
	return status ? status : out->status;
}

// All own addresses, sorted, each once. The caller frees.
static int wanted_take(struct punt *p, struct address **out, uint32_t *out_n)
{
	struct address none;
	uint32_t n = control_own_addresses(p->control, &none, 0), n_unique = 0;
	struct address *wanted = calloc(n + 1u, sizeof(*wanted));
	if (wanted == NULL)
		return -ENOMEM;
	uint32_t n_now = control_own_addresses(p->control, wanted, n);
	if (n_now < n)
		n = n_now;
	qsort(wanted, n, sizeof(*wanted), address_order);
	for (uint32_t i = 0; i < n; i++)
		if (n_unique == 0 || !address_equal(&wanted[n_unique - 1], &wanted[i]))
			wanted[n_unique++] = wanted[i];
	*out = wanted;
	*out_n = n_unique;
	return 0;
}

// ---------------------------------------------------------------- one twin

// Merges the two sorted lists into changes. Removals need no room of their own order: a VIP that
// moves is one of both.
static int changes_plan(struct twin *t, const struct survey *survey, const struct address *wanted,
	uint32_t n_wanted)
{
	uint32_t n = 0, w = 0, s = 0;
	struct twin_change *changes = calloc(n_wanted + survey->n_items + 1u, sizeof(*changes));
	if (changes == NULL)
		return -ENOMEM;
	while (w < n_wanted || s < survey->n_items) {
		int order = w == n_wanted ? 1
			    : s == survey->n_items
				    ? -1
				    : address_compare(&wanted[w], &survey->items[s].address);
		if (order < 0) {
			changes[n++] = (struct twin_change){ wanted[w++], true };
		} else if (order > 0) {
			if (survey->items[s].is_ours)
				changes[n++] =
					(struct twin_change){ survey->items[s].address, false };
			s++;
		} else {
			// There, ours or the operator's; several prefixes of one address count
			// once.
			while (s < survey->n_items &&
				address_equal(&wanted[w], &survey->items[s].address))
				s++;
			w++;
		}
	}
	free(t->changes);
	t->changes = changes;
	t->n_changes = n;
	t->next_change = 0;
	t->n_refused = 0;
	return 0;
}

static int change_make(struct twin *t, const struct twin_change *change)
{
	struct netlink *n = &t->punt->request;
	bool is_v4 = address_is_v4(&change->address);
	static const struct ifa_cacheinfo deprecated = { .ifa_prefered = 0,
		.ifa_valid = UINT32_MAX };
	struct nlmsghdr *m =
		netlink_message(n, t->punt->buffer, change->is_add ? RTM_NEWADDR : RTM_DELADDR,
			change->is_add ? NLM_F_CREATE | NLM_F_EXCL : 0);
	struct ifaddrmsg *a = mnl_nlmsg_put_extra_header(m, sizeof(*a));
	a->ifa_family = is_v4 ? AF_INET : AF_INET6;
	a->ifa_prefixlen = is_v4 ? 32 : 128;
	a->ifa_index = t->ifindex;
	a->ifa_scope = is_v4 ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
	address_to_attr(m, IFA_LOCAL, &change->address);
	address_to_attr(m, IFA_ADDRESS, &change->address);
	if (change->is_add) {
		mnl_attr_put_u8(m, IFA_PROTO, PUNT_ADDRESS_PROTO);
		if (!is_v4) {
			mnl_attr_put_u32(m, IFA_FLAGS, IFA_F_NODAD | IFA_F_NOPREFIXROUTE);
			mnl_attr_put(m, IFA_CACHEINFO, sizeof(deprecated), &deprecated);
		}
	}
	int status = netlink_ask(n, m);
	if (change->is_add ? status == -EEXIST : status == -EADDRNOTAVAIL)
		return 0;
	return status;
}

static void change_refused(struct twin *t, const struct twin_change *change, int status)
{
	char text[ADDRESS_TEXT_LEN];
	if (t->n_refused++ > 0) // one line for a pass, not one for each of 10,000
		return;
	control_note(t->punt->control, LOG_LEVEL_ERROR, "address-refused", t->name,
		"%s cannot be %s: %s", address_format(&change->address, text),
		change->is_add ? "added" : "removed", strerror(-status));
}

// A bounded turn. Returns changes still to be made.
static uint32_t changes_turn(struct twin *t)
{
	struct clock clock = clock_monotonic();
	uint64_t end_ns = clock_now_ns(&clock) + PUNT_ADDRESSES_TURN_NS;
	while (t->next_change < t->n_changes && clock_now_ns(&clock) < end_ns) {
		const struct twin_change *change = &t->changes[t->next_change++];
		int status = change_make(t, change);
		if (status != 0)
			change_refused(t, change, status);
	}
	return t->n_changes - t->next_change;
}

// ---------------------------------------------------------------- all twins

static void delay_arm(struct event *timer, uint32_t delay_ms)
{
	struct timeval delay = { .tv_sec = delay_ms / 1000,
		.tv_usec = (suseconds_t)(delay_ms % 1000 * 1000) };
	evtimer_add(timer, &delay);
}

static int plan_all(struct punt *p)
{
	struct address *wanted;
	uint32_t n_wanted;
	int status = wanted_take(p, &wanted, &n_wanted);
	if (status != 0)
		return status;
	for (uint32_t i = 0; i < p->n_twins && status == 0; i++) {
		struct twin *t = &p->twins[i];
		struct survey survey;
		if (t->fd < 0)
			continue;
		status = survey_take(t, &survey);
		if (status == 0)
			status = changes_plan(t, &survey, wanted, n_wanted);
		free(survey.items);
	}
	free(wanted);
	return status;
}

static uint32_t turn_all(struct punt *p, uint32_t *out_n_refused)
{
	uint32_t n_left = 0;
	for (uint32_t i = 0; i < p->n_twins; i++) {
		if (p->twins[i].fd >= 0)
			n_left += changes_turn(&p->twins[i]);
		*out_n_refused += p->twins[i].n_refused;
	}
	return n_left;
}

static void reconcile_again(struct punt *p)
{
	p->is_plan_due = true;
	delay_arm(p->reconcile, p->reconcile_ms);
	p->reconcile_ms = p->reconcile_ms * 2 > RECONCILE_RETRY_MAX_MS ? RECONCILE_RETRY_MAX_MS
								       : p->reconcile_ms * 2;
}

static void reconcile_on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct punt *p = arg;
	uint32_t n_refused = 0;
	if (p->is_plan_due || (p->is_check_due && !p->is_changing)) {
		int status = plan_all(p);
		if (status != 0) {
			control_note(p->control, LOG_LEVEL_ERROR, "address-refused", "twins",
				"own addresses cannot be surveyed: %s", strerror(-status));
			reconcile_again(p);
			return;
		}
		p->is_plan_due = p->is_check_due = false;
	}
	p->is_changing = turn_all(p, &n_refused) > 0;
	if (p->is_changing)
		delay_arm(p->reconcile, 0);
	else if (n_refused > 0)
		reconcile_again(p);
	else
		p->reconcile_ms = RECONCILE_RETRY_MIN_MS;
	if (!evtimer_pending(p->reconcile, NULL) && p->is_check_due)
		delay_arm(p->reconcile, CHECK_DELAY_MS);
}

// Own addresses are others now: what was planned is planned anew, at once.
void addresses_changed(void *arg)
{
	struct punt *p = arg;
	p->is_plan_due = true;
	if (p->reconcile != NULL)
		delay_arm(p->reconcile, 0);
}

// The kernel's may be others now (our own removals are told too): a look when changes under way
// are made.
void addresses_check(struct punt *p)
{
	p->is_check_due = true;
	if (p->reconcile != NULL && !evtimer_pending(p->reconcile, NULL))
		delay_arm(p->reconcile, CHECK_DELAY_MS);
}

int addresses_start(struct punt *p)
{
	p->reconcile_ms = RECONCILE_RETRY_MIN_MS;
	p->reconcile = evtimer_new(control_base(p->control), reconcile_on_timer, p);
	if (p->reconcile == NULL)
		return -ENOMEM;
	addresses_changed(p);
	return 0;
}

void addresses_remove(struct twin *t)
{
	struct survey survey;
	if (t->fd < 0)
		return;
	if (survey_take(t, &survey) == 0 && changes_plan(t, &survey, NULL, 0) == 0)
		while (changes_turn(t) > 0)
			;
	free(survey.items);
}

void addresses_fini(struct punt *p)
{
	if (p->reconcile != NULL)
		event_free(p->reconcile);
	p->reconcile = NULL;
}
