// SPDX-License-Identifier: BSD-3-Clause
// The allocator: what is put, what a run does with it, and the answers that changed.
#include "ipam_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct ipam *ipam_create(ipam_selects *selects, void *arg)
{
	struct ipam *ipam = calloc(1, sizeof(*ipam));
	if (ipam == NULL)
		return NULL;
	*ipam = (struct ipam){ .selects = selects,
		.arg = arg,
		.requests.compare = ipam_order_key,
		.waiting.compare = ipam_order_age,
		.changed.compare = ipam_order_age_back,
		.addresses.compare = ipam_order_address,
		.shared.compare = ipam_order_shared };
	return ipam;
}

void ipam_clear(struct ipam *ipam)
{
	for (uint32_t i = 0; i < ipam->requests.n_items; i++) {
		struct request *r = ipam->requests.items[i];
		ipam_release(ipam, r, IPAM_V4);
		ipam_release(ipam, r, IPAM_V6);
		ipam_request_destroy(r);
	}
	struct ipam_set *sets[] = { &ipam->requests, &ipam->dirty, &ipam->waiting, &ipam->changed };
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++)
		ipam_set_fini(sets[i]);
	ipam->is_freed = false;
}

void ipam_destroy(struct ipam *ipam)
{
	if (ipam == NULL)
		return;
	ipam_clear(ipam);
	ipam_set_fini(&ipam->addresses);
	ipam_set_fini(&ipam->shared);
	free(ipam->claims);
	free(ipam->row);
	ipam_pools_fini(&ipam->pools);
	free(ipam);
}

static struct request *find(const struct ipam *ipam, const char *namespace, const char *name)
{
	struct request key = { .value = { .namespace = namespace, .name = name } };
	return ipam_set_find(&ipam->requests, &key);
}

// Room in `dirty`, `waiting` and `changed` is made when a request comes: nothing of these fails later.
static void mark_dirty(struct ipam *ipam, struct request *r)
{
	if (r->dirty_at)
		return;
	ipam->dirty.items[ipam->dirty.n_items++] = r;
	r->dirty_at = ipam->dirty.n_items;
}

static void unmark_dirty(struct ipam *ipam, struct request *r)
{
	if (r->dirty_at == 0)
		return;
	struct request *last = ipam->dirty.items[--ipam->dirty.n_items];
	ipam->dirty.items[r->dirty_at - 1] = last;
	last->dirty_at = r->dirty_at;
	r->dirty_at = 0;
}

// Gives back what it holds, and remembers it for ipam_keep.
static void detach(struct ipam *ipam, struct request *r)
{
	if (ipam_n_held(r) == 0)
		return;
	r->n_before = 0;
	r->before_form = r->held_form;
	for (int family = 0; family < IPAM_FAMILIES; family++) {
		if (r->held[family])
			r->before[r->n_before++] = r->held[family]->address;
		ipam_release(ipam, r, family);
	}
}

// ---------------------------------------------------------------- pools
int ipam_set_pools(struct ipam *ipam, const struct ipam_pool *pools, uint32_t n_pools,
	const struct ipam_range *reserved, uint32_t n_reserved, struct error *err)
{
	struct ipam_pools fresh;
	int rc = ipam_pools_init(&fresh, pools, n_pools, reserved, n_reserved);
	if (rc != 0)
		return rc;
	error_merge(err, &fresh.findings, "");
	if (ipam_pools_same(&ipam->pools, &fresh)) { // but whom they select may be new
		ipam_pools_fini(&fresh);
		ipam_touch(ipam, NULL, NULL);
		return 0;
	}
	for (uint32_t i = 0; i < ipam->requests.n_items; i++) {
		mark_dirty(ipam, ipam->requests.items[i]);
		detach(ipam, ipam->requests.items[i]);
	}
	ipam_pools_fini(&ipam->pools);
	ipam->pools = fresh;
	ipam->is_freed = true;
	return 0;
}

const char *ipam_pool_of(const struct ipam *ipam, const struct address *a)
{
	uint32_t home = ipam_home_of(&ipam->pools, a);
	return home == IPAM_NOBODY ? NULL : ipam->pools.homes[home].name;
}

bool ipam_allows(
	const struct ipam *ipam, const char *namespace, const char *name, const struct address *a)
{
	struct request r = { .value = { .namespace = namespace, .name = name } };
	uint32_t home = ipam_home_of(&ipam->pools, a);
	return home != IPAM_NOBODY && ipam_home_selects(ipam, home, &r);
}

bool ipam_usage_at(const struct ipam *ipam, uint32_t idx, struct ipam_usage *out)
{
	if (idx >= ipam->pools.n_homes)
		return false;
	const struct ipam_home *home = &ipam->pools.homes[idx];
	*out = (struct ipam_usage){ .pool = home->name };
	for (int family = 0; family < IPAM_FAMILIES; family++) {
		uint64_t size = home->size[family];
		out->assigned[family] = home->n_held[family];
		out->available[family] = size == UINT64_MAX ? size : size - home->n_held[family];
	}
	return true;
}

// ---------------------------------------------------------------- requests
static void drop(struct ipam *ipam, struct request *r)
{
	ipam->is_freed |= ipam_n_held(r) > 0;
	ipam_release(ipam, r, IPAM_V4);
	ipam_release(ipam, r, IPAM_V6);
	ipam_set_remove(&ipam->requests, r);
	unmark_dirty(ipam, r);
	ipam_set_remove(&ipam->waiting, r);
	ipam_set_remove(&ipam->changed, r);
	ipam_request_destroy(r);
}

// What a run works on, so that it needs no memory of its own.
static int reserve_run(struct ipam *ipam, uint32_t n)
{
	if (n <= ipam->cap_run)
		return 0;
	struct request **claims = reallocarray(ipam->claims, 2 * (size_t)n, sizeof(*claims));
	if (claims)
		ipam->claims = claims;
	struct request **row = reallocarray(ipam->row, 2 * (size_t)n, sizeof(*row));
	if (row)
		ipam->row = row;
	if (claims == NULL || row == NULL)
		return -ENOMEM;
	ipam->cap_run = 2 * n;
	return 0;
}

static int add(struct ipam *ipam, struct request *r)
{
	struct ipam_set *sets[] = { &ipam->requests, &ipam->dirty, &ipam->waiting, &ipam->changed };
	for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
		if (ipam_set_reserve(sets[i], ipam->requests.n_items + 1) != 0) {
			ipam_request_destroy(r);
			return -ENOMEM;
		}
	}
	if (reserve_run(ipam, ipam->requests.n_items + 1) != 0) {
		ipam_request_destroy(r);
		return -ENOMEM;
	}
	ipam_set_insert(&ipam->requests, r);
	mark_dirty(ipam, r);
	return 0;
}

// What is recorded counts only for who has nothing here.
static void replace_recorded(struct ipam *ipam, struct request *r, struct request *from)
{
	if (ipam_n_held(r) == 0 && from->value.n_recorded)
		mark_dirty(ipam, r);
	ipam_request_swap(r, from);
}

static void replace(struct ipam *ipam, struct request *r, struct request *from)
{
	bool is_waiting = ipam_set_find(&ipam->waiting, r);
	bool is_changed = ipam_set_find(&ipam->changed, r);
	ipam_set_remove(&ipam->waiting, r); // the order there is one of values
	ipam_set_remove(&ipam->changed, r);
	ipam_request_swap(r, from);
	if (is_waiting)
		ipam_set_insert(&ipam->waiting, r);
	if (is_changed)
		ipam_set_insert(&ipam->changed, r);
	mark_dirty(ipam, r);
}

static bool is_sound(const struct ipam_request *request)
{
	if (request->n_families < 1 || request->n_families > IPAM_FAMILIES ||
		request->n_wanted > IPAM_FAMILIES)
		return false;
	if (request->n_families == 2 && request->families[0] == request->families[1])
		return false;
	for (uint32_t i = 0; i < request->n_ports; i++)
		if (request->ports[i].last < request->ports[i].first)
			return false;
	return true;
}

int ipam_put(struct ipam *ipam, const struct ipam_request *request)
{
	if (!is_sound(request))
		return -EINVAL;
	struct request *fresh = ipam_request_create(request);
	if (fresh == NULL)
		return -ENOMEM;
	struct request *r = find(ipam, request->namespace, request->name);
	if (r && strcmp(r->value.uid, request->uid) != 0) {
		drop(ipam, r);
		r = NULL;
	}
	if (r == NULL)
		return add(ipam, fresh);
	if (ipam_request_equal(r, fresh))
		replace_recorded(ipam, r, fresh);
	else
		replace(ipam, r, fresh);
	ipam_request_destroy(fresh);
	return 0;
}

int ipam_remove(struct ipam *ipam, const char *namespace, const char *name)
{
	struct request *r = find(ipam, namespace, name);
	if (r == NULL)
		return -ENOENT;
	drop(ipam, r);
	return 0;
}

void ipam_touch(struct ipam *ipam, const char *namespace, const char *name)
{
	struct request key = { .value = { .namespace = namespace ? namespace : "",
				       .name = name ? name : "" } };
	for (uint32_t i = ipam_set_lower(&ipam->requests, &key); i < ipam->requests.n_items; i++) {
		struct request *r = ipam->requests.items[i];
		if (namespace && strcmp(r->value.namespace, namespace) != 0)
			return;
		if (name && strcmp(r->value.name, name) != 0)
			return;
		mark_dirty(ipam, r);
	}
}

// ---------------------------------------------------------------- run
static bool is_form_changed(const struct request *r)
{
	uint64_t form = r->n_before ? r->before_form : r->value.recorded_form;
	return form && form != r->form;
}

// Who stayed as it was comes first, then the older, then the smaller uid, as on every node where two claim one address.
static int order_claims(const void *a, const void *b)
{
	const struct request *x = *(struct request *const *)a, *y = *(struct request *const *)b;
	if (is_form_changed(x) != is_form_changed(y))
		return is_form_changed(x) ? 1 : -1;
	if (x->value.created_s != y->value.created_s)
		return x->value.created_s < y->value.created_s ? -1 : 1;
	int order = strcmp(x->value.uid, y->value.uid);
	return order ? order : ipam_order_key(x, y);
}

static bool is_all_kept(const struct request *r)
{
	if (r->n_before == 0)
		return true;
	if (r->before_form != r->form)
		return false;
	for (uint32_t i = 0; i < r->n_before; i++) {
		const struct held *held = r->held[ipam_family_of(&r->before[i])];
		if (held == NULL || !address_equal(&held->address, &r->before[i]))
			return false;
	}
	return true;
}

// Step 1. `claims` are the dirty ones; order of claims. Who stays as it is is not touched: those fit beside each other already.
static int keep_all(struct ipam *ipam, struct request **claims, uint32_t n)
{
	uint32_t n_moved = 0;
	for (uint32_t i = 0; i < n; i++) {
		struct request *r = claims[i];
		if (ipam_stays(ipam, r))
			continue;
		detach(ipam, r);
		claims[i] = claims[n_moved];
		claims[n_moved++] = r;
	}
	qsort(claims, n_moved, sizeof(*claims), order_claims);
	for (uint32_t i = 0; i < n_moved; i++) {
		if (ipam_keep(ipam, claims[i]) != 0)
			return -ENOMEM;
		ipam->is_freed |= !is_all_kept(claims[i]);
	}
	for (uint32_t i = 0; i < n; i++) {
		if (ipam_n_held(claims[i]) < ipam_n_needed(claims[i]))
			ipam_set_insert(&ipam->waiting, claims[i]);
		else
			ipam_set_remove(&ipam->waiting, claims[i]);
	}
	return 0;
}

// Who is tried in this run, in order of age: all who wait when something was freed, else the dirty ones.
struct row {
	struct request **items; // room for all requests
	uint32_t n_items;
	bool is_whole;
};

static int order_row(const void *a, const void *b)
{
	return ipam_order_age(*(struct request *const *)a, *(struct request *const *)b);
}

static void row_fill(const struct ipam *ipam, struct row *row)
{
	const struct ipam_set *from = ipam->is_freed ? &ipam->waiting : &ipam->dirty;
	row->is_whole = ipam->is_freed;
	row->n_items = 0;
	for (uint32_t i = 0; i < from->n_items; i++) {
		struct request *r = from->items[i];
		// Of those who wait, all: after a failure one may hold all it needs, and not be told yet.
		if (row->is_whole || ipam_n_held(r) < ipam_n_needed(r))
			row->items[row->n_items++] = r;
	}
	if (!row->is_whole && row->n_items)
		qsort(row->items, row->n_items, sizeof(*row->items), order_row);
}

// Step 2a: who holds one of two gets the second, or gives the first back; again while something is given back.
static int complete_all(struct ipam *ipam, struct row *row)
{
	bool again = true;
	while (again) {
		again = false;
		for (uint32_t i = 0; i < row->n_items; i++)
			if (ipam_n_held(row->items[i]) == 1 && ipam_n_needed(row->items[i]) == 2 &&
				ipam_complete(ipam, row->items[i], &again) != 0)
				return -ENOMEM;
		if (again && !row->is_whole)
			row_fill(ipam, row);
	}
	return 0;
}

// "203.0.113.10, 2001:db8::a of pool blue", and what is missing.
static void print_allocated(const struct given *is, const char *missing, char *buf, size_t len)
{
	char first[ADDRESS_TEXT_LEN], second[ADDRESS_TEXT_LEN] = "";
	address_format(&is->addresses[0], first);
	if (is->n_addresses == 2)
		address_format(&is->addresses[1], second);
	snprintf(buf, len, "%s%s%s of pool %.100s%s%s", first, second[0] ? ", " : "", second,
		is->pool, missing ? "; " : "", missing ? missing : "");
}

static bool is_given(const struct given *a, const struct given *b)
{
	return a->n_addresses == b->n_addresses &&
	       memcmp(a->addresses, b->addresses, a->n_addresses * sizeof(a->addresses[0])) == 0 &&
	       a->form == b->form && a->reason == b->reason && a->pool && b->pool &&
	       strcmp(a->pool, b->pool) == 0 && strcmp(a->text, b->text) == 0;
}

// Writes down the answer that follows from what it holds.
static int settle(struct ipam *ipam, struct request *r)
{
	char text[IPAM_REASON_MAX];
	struct given is = { .form = r->form,
		.pool = (char *)(uintptr_t) "",
		.reason = r->reason,
		.text = r->text };
	for (uint32_t i = 0; i < ipam_n_needed(r); i++) {
		const struct held *held = r->held[r->value.families[i]];
		if (held && is.n_addresses == 0)
			is.pool = ipam->pools.homes[held->home].name;
		if (held)
			is.addresses[is.n_addresses++] = held->address;
	}
	if (is.n_addresses) {
		bool is_all = is.n_addresses == ipam_n_needed(r);
		is.reason = is_all ? IPAM_ALLOCATED : IPAM_ALLOCATED_ONE;
		print_allocated(&is, is_all ? NULL : r->text, text, sizeof(text));
		is.text = text;
	}
	if (is_given(&r->answer, &is)) {
		r->is_news = false;
		return 0;
	}
	is.pool = strdup(is.pool);
	is.text = strdup(is.text);
	if (is.pool == NULL || is.text == NULL) {
		free(is.pool);
		free(is.text);
		return -ENOMEM;
	}
	free(r->answer.pool);
	free(r->answer.text);
	r->answer = is;
	r->is_news = false;
	return ipam_set_insert(&ipam->changed, r);
}

// Step 2b.
static int allocate_all(struct ipam *ipam, struct row *row)
{
	for (uint32_t i = 0; i < row->n_items; i++)
		if (ipam_n_held(row->items[i]) == 0 && ipam_allocate(ipam, row->items[i]) != 0)
			return -ENOMEM;
	return 0;
}

static int settle_all(struct ipam *ipam, struct request **items, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		if (!items[i]->is_news && items[i]->dirty_at == 0)
			continue;
		if (settle(ipam, items[i]) != 0)
			return -ENOMEM;
		if (ipam_n_held(items[i]) == ipam_n_needed(items[i]))
			ipam_set_remove(&ipam->waiting, items[i]);
	}
	return 0;
}

static int run(struct ipam *ipam, struct row *row)
{
	struct request **claims = ipam->claims;
	uint32_t n = ipam->dirty.n_items;
	if (n)
		memcpy(claims, ipam->dirty.items, n * sizeof(*claims));
	int rc = keep_all(ipam, claims, n);
	if (rc == 0) {
		row_fill(ipam, row);
		rc = complete_all(ipam, row);
	}
	if (rc == 0)
		rc = allocate_all(ipam, row);
	if (rc == 0)
		rc = settle_all(ipam, row->items, row->n_items);
	if (rc == 0)
		rc = settle_all(ipam, claims, n);
	if (rc != 0)
		return rc;
	for (uint32_t i = 0; i < n; i++) {
		claims[i]->dirty_at = 0;
		claims[i]->n_before = 0;
	}
	ipam->dirty.n_items = 0;
	return 0;
}

int ipam_run(struct ipam *ipam)
{
	if (ipam->dirty.n_items == 0 && !ipam->is_freed)
		return 0;
	struct row row = { .items = ipam->row };
	int rc = run(ipam, &row);
	ipam->is_freed = rc != 0; // after a failure whoever waits is tried again
	return rc;
}

// ---------------------------------------------------------------- answers
static void give(const struct request *r, struct ipam_answer *out)
{
	*out = (struct ipam_answer){ .namespace = r->value.namespace,
		.name = r->value.name,
		.uid = r->value.uid,
		.n_addresses = r->answer.n_addresses,
		.pool = r->answer.pool ? r->answer.pool : "",
		.form = r->answer.form,
		.reason = r->answer.reason };
	memcpy(out->addresses, r->answer.addresses, sizeof(out->addresses));
	snprintf(out->text, sizeof(out->text), "%s", r->answer.text ? r->answer.text : "");
}

bool ipam_next(struct ipam *ipam, struct ipam_answer *out)
{
	if (ipam->changed.n_items == 0)
		return false;
	give(ipam->changed.items[--ipam->changed.n_items], out);
	return true;
}

bool ipam_find(
	const struct ipam *ipam, const char *namespace, const char *name, struct ipam_answer *out)
{
	const struct request *r = find(ipam, namespace, name);
	if (r == NULL || r->answer.text == NULL)
		return false;
	give(r, out);
	return true;
}

void ipam_count(const struct ipam *ipam, uint32_t *out_requests, uint32_t *out_waiting)
{
	*out_requests = ipam->requests.n_items;
	*out_waiting = 0;
	for (uint32_t i = 0; i < ipam->waiting.n_items; i++) {
		const struct request *r = ipam->waiting.items[i];
		*out_waiting += ipam_n_held(r) == 0;
	}
}
