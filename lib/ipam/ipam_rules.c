// SPDX-License-Identifier: BSD-3-Clause
// The rules for one request: keep, complete, allocate (ipam.h says them in words).
#include "ipam_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// Why not, as it is found out. The text replaces one before it.
static int refuse(struct request *r, enum ipam_reason reason, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static int refuse(struct request *r, enum ipam_reason reason, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;
	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	free(r->text);
	r->text = text;
	r->reason = reason;
	r->is_news = true;
	return text ? 0 : -ENOMEM;
}

// The same was found out in the last run, and nothing that its text speaks of has changed: thousands may wait for one address.
static bool is_said(const struct request *r, enum ipam_reason reason)
{
	return r->dirty_at == 0 && r->text && r->reason == reason;
}

uint32_t ipam_n_held(const struct request *r)
{
	return (r->held[IPAM_V4] != NULL) + (r->held[IPAM_V6] != NULL);
}

uint32_t ipam_n_needed(const struct request *r)
{
	return r->value.policy == IPAM_SINGLE_STACK ? 1 : r->value.n_families;
}

static bool wants_family(const struct request *r, enum ipam_family family)
{
	for (uint32_t i = 0; i < ipam_n_needed(r); i++)
		if (r->value.families[i] == family)
			return true;
	return false;
}

// The explicit address of that family, or NULL.
static const struct address *wanted_of(const struct request *r, enum ipam_family family)
{
	for (uint32_t i = 0; i < r->value.n_wanted; i++)
		if (ipam_family_of(&r->value.wanted[i]) == family)
			return &r->value.wanted[i];
	return NULL;
}

bool ipam_home_selects(const struct ipam *ipam, uint32_t home, const struct request *r)
{
	const struct ipam_home *pool = &ipam->pools.homes[home];
	if (!pool->is_pinned)
		return true;
	return ipam->selects &&
	       ipam->selects(ipam->arg, pool->name, r->value.namespace, r->value.name);
}

static bool can_hold(const struct ipam *ipam, const struct request *r, const struct address *a,
	const struct request **out_other)
{
	const struct held *held = ipam_held_find(ipam, a);
	return held == NULL || ipam_held_fits(held, r, out_other);
}

// Which pool an address without a wish must come from, IPAM_NOBODY: any.
static uint32_t bound_home(const struct ipam *ipam, const struct request *r)
{
	if (r->value.n_wanted)
		return ipam_home_of(&ipam->pools, &r->value.wanted[0]);
	if (r->value.pool[0])
		return ipam_home_find(&ipam->pools, r->value.pool);
	return IPAM_NOBODY;
}

// Is this what the request asks for, and does its pool allow it?
static bool is_valid(const struct ipam *ipam, const struct request *r, const struct address *a)
{
	uint32_t home = ipam_home_of(&ipam->pools, a);
	if (home == IPAM_NOBODY || !ipam_home_selects(ipam, home, r))
		return false;
	if (r->value.pool[0] && strcmp(ipam->pools.homes[home].name, r->value.pool) != 0)
		return false;
	const struct address *wanted = wanted_of(r, ipam_family_of(a));
	if (wanted)
		return address_equal(wanted, a);
	return r->value.n_wanted == 0 || bound_home(ipam, r) == home;
}

bool ipam_stays(const struct ipam *ipam, const struct request *r)
{
	if (ipam_n_held(r) == 0 || r->held_form != r->form)
		return false;
	for (int family = 0; family < IPAM_FAMILIES; family++) {
		const struct held *held = r->held[family];
		if (held && (!wants_family(r, (enum ipam_family)family) ||
				    !is_valid(ipam, r, &held->address)))
			return false;
	}
	return true;
}

// First of these of a family that may stay.
static int keep_family(struct ipam *ipam, struct request *r, enum ipam_family family)
{
	const struct address *from = r->n_before ? r->before : r->value.recorded;
	uint32_t n = r->n_before ? r->n_before : r->value.n_recorded;
	for (uint32_t i = 0; i < n; i++)
		if (ipam_family_of(&from[i]) == family && is_valid(ipam, r, &from[i]) &&
			can_hold(ipam, r, &from[i], NULL))
			return ipam_hold(ipam, r, &from[i]);
	return 0;
}

int ipam_keep(struct ipam *ipam, struct request *r)
{
	for (uint32_t i = 0; i < ipam_n_needed(r); i++) {
		if (keep_family(ipam, r, r->value.families[i]) != 0) {
			ipam_release(ipam, r, IPAM_V4);
			ipam_release(ipam, r, IPAM_V6);
			return -ENOMEM;
		}
	}
	return 0;
}

// The address a family gets from a pool. false: there is none.
static bool choose(struct ipam *ipam, const struct request *r, uint32_t home,
	enum ipam_family family, struct address *out)
{
	return ipam_shared_lowest(ipam, r, home, family, out) ||
	       ipam_home_lowest(&ipam->pools, home, family, out);
}

// Holds all of these or none.
static int hold_all(struct ipam *ipam, struct request *r, const struct address *chosen, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		if (ipam_hold(ipam, r, &chosen[i]) == 0)
			continue;
		while (i-- > 0)
			ipam_release(ipam, r, ipam_family_of(&chosen[i]));
		return -ENOMEM;
	}
	return 0;
}

// ---------------------------------------------------------------- one of two
static const char *pool_name(const struct ipam *ipam, uint32_t home)
{
	return ipam->pools.homes[home].name;
}

static int tell_one(struct ipam *ipam, struct request *r, uint32_t home, enum ipam_family missing)
{
	const struct ipam_home *pool = &ipam->pools.homes[home];
	return refuse(r, IPAM_ALLOCATED_ONE, "no %s address: pool %s has none%s",
		ipam_family_name(missing), pool->name, pool->size[missing] ? " free" : "");
}

static int give_back(
	struct ipam *ipam, struct request *r, enum ipam_family family, bool *out_released)
{
	ipam_release(ipam, r, family);
	ipam->is_freed = true;
	*out_released = true;
	return 0;
}

int ipam_complete(struct ipam *ipam, struct request *r, bool *out_released)
{
	enum ipam_family has = r->held[IPAM_V4] ? IPAM_V4 : IPAM_V6;
	enum ipam_family missing = has == IPAM_V4 ? IPAM_V6 : IPAM_V4;
	uint32_t home = r->held[has]->home;
	const struct address *wanted = wanted_of(r, missing);
	struct address chosen;
	if (wanted) {
		if (!is_valid(ipam, r, wanted) || !can_hold(ipam, r, wanted, NULL))
			return give_back(ipam, r, has, out_released);
		return ipam_hold(ipam, r, wanted);
	}
	if (choose(ipam, r, home, missing, &chosen))
		return ipam_hold(ipam, r, &chosen);
	if (r->value.policy == IPAM_REQUIRE_DUAL_STACK)
		return give_back(ipam, r, has, out_released);
	if (is_said(r, IPAM_ALLOCATED_ONE))
		return 0;
	return tell_one(ipam, r, home, missing);
}

// ---------------------------------------------------------------- explicit
static const char *families_text(const struct request *r)
{
	if (ipam_n_needed(r) == 2)
		return "IPv4 and IPv6, one of each";
	return ipam_family_name(r->value.families[0]);
}

static int refuse_in_use(struct request *r, const char *text, const struct ipam *ipam,
	const struct request *other, const struct address *a)
{
	const struct held *held = ipam_held_find(ipam, a);
	const char *why = "";
	if (r->value.sharing_key[0] && strcmp(held->sharing_key, r->value.sharing_key) == 0)
		why = strcmp(held->backend_key, r->value.backend_key)
			      ? ", which has other endpoints (externalTrafficPolicy: Local)"
			      : ", on a port of this Service";
	else if (r->value.sharing_key[0] || held->sharing_key[0])
		why = ", under another sharing key";
	return refuse(r, IPAM_IN_USE, "%s is in use by %s/%s%s", text, other->value.namespace,
		other->value.name, why);
}

// 0 and *out_ok: may be held. Else the reason is in the answer.
// Of all pools, as many as there is room for.
static void pool_names(const struct ipam *ipam, char *out, size_t len)
{
	size_t n = (size_t)snprintf(
		out, len, "%s", ipam->pools.n_homes ? "" : "none, there is no pool");
	for (uint32_t i = 0; i < ipam->pools.n_homes; i++) {
		const char *name = pool_name(ipam, ipam->pools.order[i]);
		if (n + strlen(name) + sizeof(", ...") > len) {
			snprintf(out + n, len - n, ", ...");
			return;
		}
		n += (size_t)snprintf(out + n, len - n, "%s%s", i ? ", " : "", name);
	}
}

static int refuse_outside(const struct ipam *ipam, struct request *r, const char *address)
{
	char text[160];
	pool_names(ipam, text, sizeof(text));
	return refuse(
		r, IPAM_OUTSIDE, "%s is in no pool; allowed: an address of %s", address, text);
}

static int check_wanted(
	const struct ipam *ipam, struct request *r, const struct address *a, bool *out_ok)
{
	char text[ADDRESS_TEXT_LEN];
	const struct request *other = NULL;
	uint32_t home = ipam_home_of(&ipam->pools, a);
	address_format(a, text);
	*out_ok = false;
	if (!wants_family(r, ipam_family_of(a)) || wanted_of(r, ipam_family_of(a)) != a)
		return refuse(
			r, IPAM_WRONG_FAMILY, "%s: the Service wants %s", text, families_text(r));
	if (home == IPAM_NOBODY)
		return refuse_outside(ipam, r, text);
	if (r->value.pool[0] && strcmp(pool_name(ipam, home), r->value.pool) != 0)
		return refuse(r, IPAM_OUTSIDE, "%s is in pool %s, not in pool %s", text,
			pool_name(ipam, home), r->value.pool);
	if (!ipam_home_selects(ipam, home, r))
		return refuse(r, IPAM_POOL_NOT_FOR_IT,
			"%s is in pool %s, whose namespaces or selectors leave this Service out",
			text, pool_name(ipam, home));
	if (!can_hold(ipam, r, a, &other))
		return refuse_in_use(r, text, ipam, other, a);
	*out_ok = true;
	return 0;
}

static int allocate_wanted(struct ipam *ipam, struct request *r)
{
	struct address chosen[IPAM_FAMILIES];
	uint32_t n = 0;
	for (uint32_t i = 0; i < r->value.n_wanted; i++) {
		bool ok;
		int rc = check_wanted(ipam, r, &r->value.wanted[i], &ok);
		if (rc != 0 || !ok)
			return rc;
		chosen[n++] = r->value.wanted[i];
	}
	if (n == ipam_n_needed(r))
		return hold_all(ipam, r, chosen, n);
	uint32_t home = ipam_home_of(&ipam->pools, &chosen[0]);
	enum ipam_family missing = ipam_family_of(&chosen[0]) == IPAM_V4 ? IPAM_V6 : IPAM_V4;
	if (choose(ipam, r, home, missing, &chosen[n]))
		return hold_all(ipam, r, chosen, n + 1);
	if (r->value.policy == IPAM_REQUIRE_DUAL_STACK)
		return refuse(r, IPAM_EXHAUSTED,
			"no free %s address in pool %s beside the one asked for",
			ipam_family_name(missing), pool_name(ipam, home));
	int rc = tell_one(ipam, r, home, missing);
	return rc ? rc : hold_all(ipam, r, chosen, n);
}

// ---------------------------------------------------------------- from pools
// How many families at least, and where it was looked.
struct search {
	uint32_t n_families;
	uint32_t n_pools; // that select it
	uint32_t n_able;  // of these, with addresses of every family looked for
	bool done;
};

static bool home_is_able(const struct ipam *ipam, const struct request *r, uint32_t home,
	const struct search *search)
{
	for (uint32_t i = 0; i < search->n_families; i++)
		if (ipam->pools.homes[home].size[r->value.families[i]] == 0)
			return false;
	return true;
}

// All families looked for from this pool, or nothing.
static int try_home(struct ipam *ipam, struct request *r, uint32_t home, struct search *search)
{
	struct address chosen[IPAM_FAMILIES];
	search->n_pools++;
	search->n_able += home_is_able(ipam, r, home, search);
	for (uint32_t i = 0; i < search->n_families; i++)
		if (!choose(ipam, r, home, r->value.families[i], &chosen[i]))
			return 0;
	search->done = true;
	if (search->n_families < ipam_n_needed(r)) {
		int rc = tell_one(ipam, r, home, r->value.families[1]);
		if (rc != 0)
			return rc;
	}
	return hold_all(ipam, r, chosen, search->n_families);
}

// Does a request that names no pool look there?
static bool is_asked(const struct ipam *ipam, const struct request *r, uint32_t home)
{
	return ipam->pools.homes[home].auto_assign && ipam_home_selects(ipam, home, r);
}

static int try_pools(struct ipam *ipam, struct request *r, struct search *search)
{
	if (r->value.pool[0])
		return try_home(ipam, r, ipam_home_find(&ipam->pools, r->value.pool), search);
	for (uint32_t i = 0; i < ipam->pools.n_homes && !search->done; i++) {
		uint32_t home = ipam->pools.order[i];
		if (!is_asked(ipam, r, home))
			continue;
		int rc = try_home(ipam, r, home, search);
		if (rc != 0)
			return rc;
	}
	return 0;
}

static int refuse_unknown_pool(const struct ipam *ipam, struct request *r)
{
	const char **names = calloc(ipam->pools.n_homes + 1, sizeof(*names));
	if (names == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < ipam->pools.n_homes; i++)
		names[i] = ipam->pools.homes[i].name;
	const char *nearest = error_nearest(r->value.pool, names, ipam->pools.n_homes);
	free(names);
	if (nearest)
		return refuse(r, IPAM_POOL_UNKNOWN, "there is no pool %s; did you mean %s?",
			r->value.pool, nearest);
	char text[160];
	pool_names(ipam, text, sizeof(text));
	return refuse(
		r, IPAM_POOL_UNKNOWN, "there is no pool %s; allowed: %s", r->value.pool, text);
}

static int refuse_exhausted(const struct ipam *ipam, struct request *r, const struct search *search)
{
	char names[160] = "";
	size_t n = 0;
	for (uint32_t i = 0; i < ipam->pools.n_homes && n < sizeof(names); i++) {
		uint32_t home = ipam->pools.order[i];
		const char *name = pool_name(ipam, home);
		if (r->value.pool[0] ? strcmp(name, r->value.pool) != 0 : !is_asked(ipam, r, home))
			continue;
		if (home_is_able(ipam, r, home, search))
			n += (size_t)snprintf(
				names + n, sizeof(names) - n, "%s%s", n ? ", " : "", name);
	}
	return refuse(r, IPAM_EXHAUSTED, "no free %s address%s in pool%s %s%s",
		search->n_families == 2 ? "IPv4 and IPv6" : ipam_family_name(r->value.families[0]),
		search->n_families == 2 ? " together" : "", search->n_able > 1 ? "s" : "", names,
		n < sizeof(names) ? "" : "...");
}

static int refuse_nothing(const struct ipam *ipam, struct request *r, const struct search *search)
{
	const char *which =
		search->n_families == 2 ? "IPv4 and IPv6" : ipam_family_name(r->value.families[0]);
	if (search->n_able)
		return is_said(r, IPAM_EXHAUSTED) ? 0 : refuse_exhausted(ipam, r, search);
	if (search->n_pools == 0)
		return refuse(r, IPAM_NO_POOL,
			"no pool gives addresses to this Service (auto-assign, namespaces, "
			"selectors)");
	enum ipam_reason reason = search->n_families == 2 ? IPAM_NOT_DUAL : IPAM_NO_POOL;
	if (r->value.pool[0])
		return refuse(
			r, reason, "pool %s does not have %s addresses", r->value.pool, which);
	return refuse(r, reason, "no pool for this Service has %s%s addresses",
		search->n_families == 2 ? "both " : "", which);
}

int ipam_allocate(struct ipam *ipam, struct request *r)
{
	if (r->value.n_wanted)
		return allocate_wanted(ipam, r);
	if (r->value.pool[0]) {
		uint32_t home = ipam_home_find(&ipam->pools, r->value.pool);
		if (home == IPAM_NOBODY)
			return refuse_unknown_pool(ipam, r);
		if (!ipam_home_selects(ipam, home, r))
			return refuse(r, IPAM_POOL_NOT_FOR_IT,
				"the namespaces or selectors of pool %s leave this Service out",
				r->value.pool);
	}
	struct search search = { .n_families = ipam_n_needed(r) };
	int rc = try_pools(ipam, r, &search);
	if (rc == 0 && !search.done && search.n_families == 2 &&
		r->value.policy == IPAM_PREFER_DUAL_STACK) {
		search = (struct search){ .n_families = 1 };
		rc = try_pools(ipam, r, &search);
	}
	return rc || search.done ? rc : refuse_nothing(ipam, r, &search);
}
