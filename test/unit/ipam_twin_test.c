// SPDX-License-Identifier: BSD-3-Clause
// ipam against a naive twin on random worlds. The twin computes everything anew from pools, requests and what is recorded, by walking
// over all addresses; ipam gets the same in another order, or piece by piece. What both give must be equal: so arrival order, restarts
// and changes of leader play no part.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ipam.h"

#define N_POOLS    5
#define N_REQUESTS 24
#define N_SPOTS    32 // addresses of the world per family
#define NONE       (-1)

// ---------------------------------------------------------------- the world
static uint64_t seed;

static uint32_t dice(uint32_t n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(seed >> 33) % n;
}

// Address number: 0..31 are 203.0.113.0.., 32..63 are 2001:db8::.
static struct address spot(int at)
{
	struct address a;
	if (at < N_SPOTS)
		return address_from_v4(rte_cpu_to_be_32(0xcb007100u + (uint32_t)at));
	address_parse("2001:db8::", &a);
	a.bytes[15] = (uint8_t)(at - N_SPOTS);
	return a;
}

static int spot_of(const struct address *a)
{
	return ipam_family_of(a) == IPAM_V4 ? a->bytes[15] : N_SPOTS + a->bytes[15];
}

static int family_of_spot(int at)
{
	return at < N_SPOTS ? IPAM_V4 : IPAM_V6;
}

struct pool {
	char name[16];
	bool exists;
	int first[4], last[4]; // spots, in order of use
	struct ipam_range ranges[4];
	struct ipam_pool value;
};

struct asker {
	char name[16], uid[16], key[8], backend[8], pool[16];
	bool exists;
	struct ipam_request value;
	struct ipam_port ports[3];
	struct address recorded[2];
	bool selected[N_POOLS];
	int holds[2];  // the twin's answer, spots
	uint64_t form; // under which
	int had[2];    // what is recorded, spots
	uint64_t had_form;
};

static struct pool pools[N_POOLS];
static struct asker askers[N_REQUESTS];
static int owner[2 * N_SPOTS];              // pool of a spot
static struct ipam_answer told[N_REQUESTS]; // last answer that was given
static int reserved_spot;

static bool selects(void *arg, const char *pool, const char *namespace, const char *name)
{
	assert_string_equal(namespace, "ns");
	return askers[atoi(name + 1)].selected[atoi(pool + 1)];
}

static void make_pool(struct pool *p, int idx)
{
	*p = (struct pool){ .exists = dice(5) != 0 };
	snprintf(p->name, sizeof(p->name), "p%d", idx);
	p->value = (struct ipam_pool){ .name = p->name,
		.ranges = p->ranges,
		.n_ranges = dice(4),
		.priority = (int32_t)dice(4),
		.auto_assign = dice(4) != 0,
		.is_pinned = dice(2),
		.created_s = dice(3) };
	for (uint32_t i = 0; i < p->value.n_ranges; i++) {
		int base = dice(3) ? 0 : N_SPOTS, first = (int)dice(N_SPOTS);
		int last = first + (int)dice(5);
		p->first[i] = base + first;
		p->last[i] = base + (last < N_SPOTS ? last : N_SPOTS - 1);
		p->ranges[i] = (struct ipam_range){ spot(p->first[i]), spot(p->last[i]) };
	}
}

static void make_families(struct ipam_request *q)
{
	q->n_families = 1 + dice(2);
	q->families[0] = dice(3) ? IPAM_V4 : IPAM_V6;
	q->families[1] = q->families[0] == IPAM_V4 ? IPAM_V6 : IPAM_V4;
	q->policy = (enum ipam_policy)dice(3);
	q->n_wanted = dice(5) ? 0 : 1 + dice(2);
	for (uint32_t i = 0; i < q->n_wanted; i++)
		q->wanted[i] = spot((int)dice(2 * N_SPOTS));
}

static void make_asker(struct asker *a, int idx, int generation)
{
	*a = (struct asker){ .exists = true, .had = { NONE, NONE } };
	snprintf(a->name, sizeof(a->name), "s%d", idx);
	snprintf(a->uid, sizeof(a->uid), "u%u", (unsigned)(idx * 7 + generation) % 24);
	if (dice(2))
		snprintf(a->key, sizeof(a->key), "k%u", dice(2));
	if (dice(4) == 0)
		snprintf(a->backend, sizeof(a->backend), "b%u", dice(2));
	if (dice(5) == 0)
		snprintf(a->pool, sizeof(a->pool), "p%u", dice(N_POOLS + 1));
	a->value = (struct ipam_request){ .namespace = "ns",
		.name = a->name,
		.uid = a->uid,
		.created_s = dice(6),
		.pool = a->pool,
		.sharing_key = a->key,
		.backend_key = a->backend,
		.ports = a->ports,
		.n_ports = 1 + dice(3),
		.recorded = a->recorded };
	make_families(&a->value);
	for (uint32_t i = 0; i < a->value.n_ports; i++) {
		uint16_t first = (uint16_t)(80 + dice(6));
		a->ports[i] = (struct ipam_port){ dice(2) ? 6 : 17, first,
			(uint16_t)(first + (dice(3) ? 0 : dice(3))) };
	}
	for (int i = 0; i < N_POOLS; i++)
		a->selected[i] = dice(2);
	a->form = ipam_form(&a->value);
}

// What its status says: `had`.
static void record(struct asker *a)
{
	a->value.n_recorded = 0;
	for (int i = 0; i < 2; i++)
		if (a->had[i] != NONE)
			a->recorded[a->value.n_recorded++] = spot(a->had[i]);
	a->value.recorded_form = a->had_form;
}

// ---------------------------------------------------------------- the twin
static bool is_older_pool(const struct pool *a, const struct pool *b)
{
	if (a->value.created_s != b->value.created_s)
		return a->value.created_s < b->value.created_s;
	return strcmp(a->name, b->name) < 0;
}

static bool pool_has(const struct pool *p, int at)
{
	for (uint32_t i = 0; i < p->value.n_ranges; i++)
		if (at >= p->first[i] && at <= p->last[i])
			return true;
	return false;
}

static void twin_owners(void)
{
	for (int at = 0; at < 2 * N_SPOTS; at++) {
		owner[at] = NONE;
		for (int i = 0; i < N_POOLS && at != reserved_spot; i++)
			if (pools[i].exists && pool_has(&pools[i], at) &&
				(owner[at] == NONE || is_older_pool(&pools[i], &pools[owner[at]])))
				owner[at] = i;
	}
}

static bool twin_selects(int pool, const struct asker *a)
{
	return !pools[pool].value.is_pinned || a->selected[pool];
}

static bool ports_clash(const struct asker *a, const struct asker *b)
{
	for (uint32_t i = 0; i < a->value.n_ports; i++)
		for (uint32_t k = 0; k < b->value.n_ports; k++)
			if (a->ports[i].protocol == b->ports[k].protocol &&
				a->ports[i].first <= b->ports[k].last &&
				b->ports[k].first <= a->ports[i].last)
				return true;
	return false;
}

// 0 nobody there, 1 others with whom it fits, -1 others with whom it does not.
static int company(const struct asker *a, int at)
{
	int with = 0;
	for (int i = 0; i < N_REQUESTS; i++) {
		const struct asker *b = &askers[i];
		if (b == a || !b->exists || b->holds[family_of_spot(at)] != at)
			continue;
		if (a->key[0] == 0 || strcmp(a->key, b->key) != 0 ||
			strcmp(a->backend, b->backend) != 0 || ports_clash(a, b))
			return -1;
		with = 1;
	}
	return with;
}

static uint32_t needed(const struct asker *a)
{
	return a->value.policy == IPAM_SINGLE_STACK ? 1 : a->value.n_families;
}

static int wanted_spot(const struct asker *a, int family)
{
	for (uint32_t i = 0; i < a->value.n_wanted; i++)
		if ((int)ipam_family_of(&a->value.wanted[i]) == family)
			return spot_of(&a->value.wanted[i]);
	return NONE;
}

static bool twin_valid(const struct asker *a, int at)
{
	int pool = owner[at], wish = wanted_spot(a, family_of_spot(at));
	if (pool == NONE || !twin_selects(pool, a) ||
		(a->pool[0] && strcmp(a->pool, pools[pool].name) != 0))
		return false;
	if (wish != NONE)
		return wish == at;
	return a->value.n_wanted == 0 || owner[spot_of(&a->value.wanted[0])] == pool;
}

static int twin_lowest(const struct asker *a, int pool, int family)
{
	for (int at = 0; a->key[0] && at < 2 * N_SPOTS; at++)
		if (owner[at] == pool && family_of_spot(at) == family && company(a, at) == 1)
			return at;
	for (uint32_t i = 0; i < pools[pool].value.n_ranges; i++) {
		for (int at = pools[pool].first[i]; at <= pools[pool].last[i]; at++) {
			bool is_free = true;
			for (int k = 0; k < N_REQUESTS; k++)
				is_free = is_free &&
					  !(askers[k].exists &&
						  askers[k].holds[family_of_spot(at)] == at);
			if (is_free && owner[at] == pool && family_of_spot(at) == family)
				return at;
		}
	}
	return NONE;
}

static void twin_keep(struct asker *a)
{
	for (uint32_t i = 0; i < needed(a); i++) {
		int family = (int)a->value.families[i];
		for (int k = 0; k < 2 && a->holds[family] == NONE; k++)
			if (a->had[k] != NONE && family_of_spot(a->had[k]) == family &&
				twin_valid(a, a->had[k]) && company(a, a->had[k]) >= 0)
				a->holds[family] = a->had[k];
	}
}

static int n_holds(const struct asker *a)
{
	return (a->holds[0] != NONE) + (a->holds[1] != NONE);
}

// true: it gave an address back.
static bool twin_complete(struct asker *a)
{
	int has = a->holds[IPAM_V4] != NONE ? IPAM_V4 : IPAM_V6, missing = !has;
	int wish = wanted_spot(a, missing), at = wish;
	if (wish == NONE)
		at = twin_lowest(a, owner[a->holds[has]], missing);
	else if (!twin_valid(a, wish) || company(a, wish) < 0)
		at = NONE;
	a->holds[missing] = at;
	if (at != NONE || (wish == NONE && a->value.policy == IPAM_PREFER_DUAL_STACK))
		return false;
	a->holds[has] = NONE;
	return true;
}

static void twin_wanted(struct asker *a)
{
	for (uint32_t i = 0; i < a->value.n_wanted; i++) {
		int at = spot_of(&a->value.wanted[i]), family = family_of_spot(at);
		bool is_family = false;
		for (uint32_t k = 0; k < needed(a); k++)
			is_family |= (int)a->value.families[k] == family;
		if (!is_family || wanted_spot(a, family) != at ||
			(i == 1 && (int)ipam_family_of(&a->value.wanted[0]) == family) ||
			owner[at] == NONE || !twin_selects(owner[at], a) ||
			(a->pool[0] && strcmp(pools[owner[at]].name, a->pool) != 0) ||
			company(a, at) < 0)
			return;
	}
	int first = spot_of(&a->value.wanted[0]), family = family_of_spot(first);
	int second = a->value.n_wanted == 2 ? spot_of(&a->value.wanted[1]) : NONE;
	if (second == NONE && needed(a) == 2) {
		second = twin_lowest(a, owner[first], !family);
		if (second == NONE && a->value.policy == IPAM_REQUIRE_DUAL_STACK)
			return;
	}
	a->holds[family] = first;
	a->holds[!family] = second;
}

static bool twin_from(struct asker *a, int pool, uint32_t n)
{
	int at[2] = { NONE, NONE };
	for (uint32_t i = 0; i < n; i++)
		at[a->value.families[i]] = twin_lowest(a, pool, (int)a->value.families[i]);
	if (at[a->value.families[0]] == NONE || (n == 2 && at[a->value.families[1]] == NONE))
		return false;
	a->holds[0] = at[0];
	a->holds[1] = at[1];
	return true;
}

// Rank of a pool among those asked in turn; smaller is earlier.
static int rank(int pool)
{
	int priority = pools[pool].value.priority ? pools[pool].value.priority : 99;
	return (pools[pool].value.is_pinned ? 0 : 1000) + priority * N_POOLS + pool;
}

static bool twin_pools(struct asker *a, uint32_t n)
{
	if (a->pool[0]) {
		int pool = atoi(a->pool + 1);
		return pool < N_POOLS && pools[pool].exists && twin_selects(pool, a) &&
		       twin_from(a, pool, n);
	}
	for (int at = 0; at < 2000; at++)
		for (int i = 0; i < N_POOLS; i++)
			if (pools[i].exists && pools[i].value.auto_assign && rank(i) == at &&
				twin_selects(i, a) && twin_from(a, i, n))
				return true;
	return false;
}

static void twin_allocate(struct asker *a)
{
	if (a->value.n_wanted)
		twin_wanted(a);
	else if (!twin_pools(a, needed(a)) && needed(a) == 2 &&
		 a->value.policy == IPAM_PREFER_DUAL_STACK)
		twin_pools(a, 1);
}

static int order_claim(const void *x, const void *y)
{
	const struct asker *a = *(struct asker *const *)x, *b = *(struct asker *const *)y;
	bool a_new = a->had_form && a->had_form != a->form;
	bool b_new = b->had_form && b->had_form != b->form;
	if (a_new != b_new)
		return a_new - b_new;
	if (a->value.created_s != b->value.created_s)
		return a->value.created_s < b->value.created_s ? -1 : 1;
	int order = strcmp(a->uid, b->uid);
	return order ? order : strcmp(a->name, b->name);
}

static int order_wait(const void *x, const void *y)
{
	const struct asker *a = *(struct asker *const *)x, *b = *(struct asker *const *)y;
	if (a->value.created_s != b->value.created_s)
		return a->value.created_s < b->value.created_s ? -1 : 1;
	return strcmp(a->name, b->name);
}

// Everything anew, from what is recorded.
static void twin_run(void)
{
	struct asker *row[N_REQUESTS];
	uint32_t n = 0;
	twin_owners();
	for (int i = 0; i < N_REQUESTS; i++) {
		askers[i].holds[0] = askers[i].holds[1] = NONE;
		if (askers[i].exists)
			row[n++] = &askers[i];
	}
	qsort(row, n, sizeof(*row), order_claim);
	for (uint32_t i = 0; i < n; i++)
		twin_keep(row[i]);
	qsort(row, n, sizeof(*row), order_wait);
	for (bool again = true; again;) {
		again = false;
		for (uint32_t i = 0; i < n; i++)
			if (n_holds(row[i]) == 1 && needed(row[i]) == 2)
				again |= twin_complete(row[i]);
	}
	for (uint32_t i = 0; i < n; i++)
		if (n_holds(row[i]) == 0)
			twin_allocate(row[i]);
}

// ---------------------------------------------------------------- comparing
static void give_pools(struct ipam *ipam)
{
	struct ipam_pool list[N_POOLS];
	uint32_t n = 0;
	for (int i = N_POOLS - 1; i >= 0; i--)
		if (pools[i].exists)
			list[n++] = pools[i].value;
	struct ipam_range reserved = { spot(reserved_spot), spot(reserved_spot) };
	assert_int_equal(ipam_set_pools(ipam, list, n, &reserved, 1, NULL), 0);
}

static void compare_one(const struct ipam *ipam, const struct asker *a)
{
	struct ipam_answer answer;
	int n = 0;
	assert_true(ipam_find(ipam, "ns", a->name, &answer));
	for (uint32_t i = 0; i < needed(a); i++) {
		int at = a->holds[a->value.families[i]];
		if (at == NONE)
			continue;
		assert_true((uint32_t)n < answer.n_addresses);
		assert_int_equal(spot_of(&answer.addresses[n]), at);
		if (n++ == 0)
			assert_string_equal(answer.pool, pools[owner[at]].name);
		assert_true(ipam_allows(ipam, "ns", a->name, &answer.addresses[n - 1]));
	}
	assert_int_equal(answer.n_addresses, n);
	assert_int_equal(answer.form, a->form);
	assert_int_equal(answer.reason == IPAM_ALLOCATED, n == (int)needed(a));
	assert_int_equal(answer.reason == IPAM_ALLOCATED_ONE, n == 1 && needed(a) == 2);
	assert_true(answer.text[0]);
}

static void compare_usage(const struct ipam *ipam)
{
	struct ipam_usage usage;
	for (uint32_t i = 0; ipam_usage_at(ipam, i, &usage); i++) {
		int pool = atoi(usage.pool + 1);
		uint64_t held[2] = { 0, 0 }, size[2] = { 0, 0 };
		for (int at = 0; at < 2 * N_SPOTS; at++) {
			int family = family_of_spot(at), is_held = 0;
			for (int k = 0; k < N_REQUESTS; k++)
				is_held |= askers[k].exists && askers[k].holds[family] == at;
			held[family] += owner[at] == pool && is_held;
			size[family] += owner[at] == pool;
		}
		for (int family = 0; family < 2; family++) {
			assert_int_equal(usage.assigned[family], held[family]);
			assert_int_equal(usage.available[family], size[family] - held[family]);
		}
	}
}

static void compare(const struct ipam *ipam)
{
	uint32_t n = 0, n_waiting = 0, requests, waiting;
	for (int i = 0; i < N_REQUESTS; i++) {
		if (!askers[i].exists)
			continue;
		compare_one(ipam, &askers[i]);
		n++;
		n_waiting += n_holds(&askers[i]) == 0;
	}
	compare_usage(ipam);
	ipam_count(ipam, &requests, &waiting);
	assert_int_equal(requests, n);
	assert_int_equal(waiting, n_waiting);
}

// Every answer that changed is given once, and no other.
static void drain(struct ipam *ipam)
{
	struct ipam_answer answer;
	bool seen[N_REQUESTS] = { false };
	while (ipam_next(ipam, &answer)) {
		int i = atoi(answer.name + 1);
		assert_false(seen[i]);
		seen[i] = true;
		assert_true(answer.n_addresses != told[i].n_addresses ||
			    answer.form != told[i].form || answer.reason != told[i].reason ||
			    memcmp(answer.addresses, told[i].addresses, sizeof(answer.addresses)) !=
				    0 ||
			    strcmp(answer.text, told[i].text) != 0);
		told[i] = answer;
	}
	for (int i = 0; i < N_REQUESTS; i++) {
		if (!askers[i].exists || !ipam_find(ipam, "ns", askers[i].name, &answer))
			continue;
		assert_int_equal(answer.n_addresses, told[i].n_addresses);
		assert_memory_equal(answer.addresses, told[i].addresses, sizeof(answer.addresses));
		assert_string_equal(answer.text, told[i].text);
	}
}

static void make_world(uint64_t from)
{
	seed = from;
	reserved_spot = (int)dice(2 * N_SPOTS);
	for (int i = 0; i < N_POOLS; i++)
		make_pool(&pools[i], i);
	for (int i = 0; i < N_REQUESTS; i++) {
		make_asker(&askers[i], i, 0);
		askers[i].exists = dice(5) != 0;
		for (int k = 0; k < 2; k++)
			askers[i].had[k] = dice(2) ? NONE : (int)dice(2 * N_SPOTS);
		if (dice(2))
			askers[i].had_form = dice(3) ? askers[i].form : 77;
		record(&askers[i]);
	}
}

static void put_shuffled(struct ipam *ipam)
{
	int row[N_REQUESTS];
	for (int i = 0; i < N_REQUESTS; i++) {
		int k = (int)dice((uint32_t)i + 1);
		row[i] = row[k];
		row[k] = i;
	}
	for (int i = 0; i < N_REQUESTS; i++)
		if (askers[row[i]].exists)
			assert_int_equal(ipam_put(ipam, &askers[row[i]].value), 0);
}

// Any order of arrival, pools first or last: the twin's result.
static void test_any_order(void **state)
{
	for (uint64_t world = 1; world <= 400; world++) {
		make_world(world);
		twin_run();
		for (int round = 0; round < 3; round++) {
			struct ipam *ipam = ipam_create(selects, NULL);
			if (round)
				give_pools(ipam);
			put_shuffled(ipam);
			if (!round)
				give_pools(ipam);
			assert_int_equal(ipam_run(ipam), 0);
			compare(ipam);
			ipam_destroy(ipam);
		}
	}
}

// What the last run gave is what is recorded now, and comes back by the watch.
static void note(struct ipam *ipam)
{
	for (int i = 0; i < N_REQUESTS; i++) {
		struct asker *a = &askers[i];
		memcpy(a->had, a->holds, sizeof(a->had));
		a->had_form = a->form;
		record(a);
		if (a->exists)
			assert_int_equal(ipam_put(ipam, &a->value), 0);
	}
}

static void change_asker(struct ipam *ipam, int i, int generation)
{
	struct asker *a = &askers[i], old = *a;
	if (a->exists && dice(4) == 0) {
		a->exists = false;
		told[i] = (struct ipam_answer){ 0 };
		assert_int_equal(ipam_remove(ipam, "ns", a->name), 0);
		return;
	}
	bool is_new = !old.exists || dice(8) == 0; // deleted and made again
	make_asker(a, i, is_new ? generation : 0);
	if (!is_new) {
		memcpy(a->uid, old.uid, sizeof(a->uid));
		memcpy(a->had, old.had, sizeof(a->had));
		a->had_form = old.had_form;
		record(a);
	} else {
		told[i] = (struct ipam_answer){ 0 };
	}
	if (is_new && old.exists && strcmp(old.uid, a->uid) == 0)
		snprintf(a->uid, sizeof(a->uid), "v%d", generation);
	assert_int_equal(ipam_put(ipam, &a->value), 0);
}

static void change_something(struct ipam *ipam, int generation)
{
	uint32_t what = dice(10);
	int i = (int)dice(N_REQUESTS);
	if (what == 0) {
		int pool = (int)dice(N_POOLS);
		make_pool(&pools[pool], pool);
		give_pools(ipam);
	} else if (what == 1) {
		askers[i].selected[dice(N_POOLS)] ^= true;
		ipam_touch(ipam, "ns", askers[i].name);
	} else {
		change_asker(ipam, i, generation);
	}
}

// Piece by piece, one or several changes a run: what the twin makes of the whole. A new leader now and then makes the same of it.
static void test_piece_by_piece(void **state)
{
	for (uint64_t world = 1; world <= 60; world++) {
		struct ipam *ipam = ipam_create(selects, NULL);
		memset(told, 0, sizeof(told));
		make_world(world * 1000);
		give_pools(ipam);
		put_shuffled(ipam);
		assert_int_equal(ipam_run(ipam), 0);
		twin_run();
		compare(ipam);
		drain(ipam);
		for (int step = 1; step <= 120; step++) {
			note(ipam);
			for (uint32_t n = dice(4); n > 0; n--)
				change_something(ipam, step);
			if (step % 40 == 0) {
				ipam_clear(ipam);
				for (int i = 0; i < N_REQUESTS; i++)
					record(&askers[i]);
				put_shuffled(ipam);
				memset(told, 0, sizeof(told));
			}
			assert_int_equal(ipam_run(ipam), 0);
			twin_run();
			compare(ipam);
			drain(ipam);
		}
		ipam_destroy(ipam);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_any_order),
		cmocka_unit_test(test_piece_by_piece),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
