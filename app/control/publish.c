// SPDX-License-Identifier: BSD-3-Clause
// From desired state to what workers read: compile, publish, retire.
//
// Leading edge: a change after 20 ms of quiet is published in the call that made it; followers wait for the timer and go
// together. A published snapshot is never changed. The one before it is freed when a grace period of all workers has
// passed; nobody waits for that, a timer looks every 5 ms while there is something to free.
//
// Backend ids and slots that a publication no longer uses are given back to the registry in batches (struct
// control_release). Their numbers are used again only when every worker has swept its table twice since, the flows
// counted on the ids are gone, and the longest idle timeout has passed (a slot is part of flow keys).
#include "control_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WORK_COMPILES (CONTROL_WORK_BUILD | CONTROL_WORK_PART)
// What is given back in this time is one batch; after that time flow counters are not believed any more.
#define RELEASE_SPAN_NS (10 * CLOCK_S)
#define RELEASE_MAX_NS  (7 * 24 * 3600 * CLOCK_S)

static void fib_release(struct control_fib *f)
{
	if (f == NULL || --f->n_users > 0)
		return;
	nexthop_fib_destroy(f->fib);
	free(f);
}

// Gives a holder with one user, or NULL: out of memory.
static struct control_fib *fib_make(struct control *c)
{
	struct control_fib *f = calloc(1, sizeof(*f));
	if (f == NULL)
		return NULL;
	f->n_users = 1;
	f->fib = control_hops_fib(c);
	if (f->fib == NULL) {
		free(f);
		return NULL;
	}
	return f;
}

// ---------------------------------------------------------------- retire
static void free_retired(struct control *c, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		snapshot_destroy(c->retired[i].snapshot);
		fib_release(c->retired[i].fib);
	}
	c->n_retired -= n;
	if (n > 0)
		memmove(c->retired, c->retired + n, c->n_retired * sizeof(*c->retired));
}

static void on_retire(evutil_socket_t fd, short what, void *arg)
{
	struct control *c = arg;
	uint32_t n = 0;
	while (n < c->n_retired &&
		(c->dp == NULL || dataplane_grace_done(c->dp, c->retired[n].token)))
		n++;
	free_retired(c, n);
	if (c->n_retired > 0)
		control_arm(c->retire, CONTROL_RETIRE_TICK_MS * CLOCK_MS);
}

// Room for one more was made before (publication must not fail half way).
static void retire_snapshot(struct control *c, struct snapshot *snapshot, struct control_fib *fib)
{
	if (snapshot == NULL)
		return;
	c->retired[c->n_retired++] = (struct control_retired){
		.snapshot = snapshot,
		.fib = fib,
		.token = c->dp != NULL ? dataplane_grace_start(c->dp) : 0,
	};
	if (!evtimer_pending(c->retire, NULL))
		control_arm(c->retire, CONTROL_RETIRE_TICK_MS * CLOCK_MS);
}

// ---------------------------------------------------------------- release of ids and slots
static bool is_listed(const struct snapshot *s, uint32_t id)
{
	return id < s->n_backends && (s->backends[id].flags & SNAPSHOT_BACKEND_LISTED) != 0;
}

static bool owns_slot(const struct snapshot *s, uint32_t slot)
{
	return slot < s->n_own && s->own[slot].kind != SNAPSHOT_OWN_NONE;
}

static uint64_t longest_idle_ns(const struct snapshot *s)
{
	uint64_t idle_s = 0;
	for (uint32_t i = 0; i < s->n_policies; i++) {
		if (s->policies[i].tcp_idle_s > idle_s)
			idle_s = s->policies[i].tcp_idle_s;
		if (s->policies[i].udp_idle_s > idle_s)
			idle_s = s->policies[i].udp_idle_s;
	}
	return idle_s * CLOCK_S;
}

// The batch of the last RELEASE_SPAN_NS, or a new one. NULL: out of memory.
static struct control_release *open_release(struct control *c)
{
	uint64_t now = control_now_ns(c);
	if (c->n_releases > 0 && now - c->releases[c->n_releases - 1].begin_ns < RELEASE_SPAN_NS)
		return &c->releases[c->n_releases - 1];
	if (array_grow(c->releases, c->n_releases, c->releases_cap) != 0)
		return NULL;
	c->releases[c->n_releases] = (struct control_release){
		.begin_ns = now,
		.pass = ++c->release_pass,
	};
	return &c->releases[c->n_releases++];
}

// Out of memory: the registry is not told, and the numbers stay out of use. That loses numbers, not flows.
static void release_numbers(
	struct control *c, const struct snapshot *before, const struct snapshot *after)
{
	struct control_release *r = open_release(c);
	if (r == NULL)
		return;
	const uint32_t *ids;
	uint32_t n = snapshot_lingering(after, &ids);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t id = ids[i];
		if (!is_listed(before, id))
			continue;
		if (array_grow(r->backend_ids, r->n_backend_ids, r->backend_ids_cap) != 0)
			return;
		r->backend_ids[r->n_backend_ids++] = id;
	}
	r->sweeps = c->dp != NULL ? dataplane_sweeps(c->dp) : 0;
	r->due_ns = control_now_ns(c) + longest_idle_ns(before) + CLOCK_S;
	snapshot_registry_release(c->registry, r->pass);
}

static bool release_is_over(const struct control *c, const struct control_release *r)
{
	uint64_t now = control_now_ns(c);
	if (c->dp == NULL || now < r->due_ns || dataplane_sweeps(c->dp) < r->sweeps + 2)
		return false;
	if (now > r->due_ns + RELEASE_MAX_NS)
		return true;
	for (uint32_t i = 0; i < r->n_backend_ids; i++) {
		struct pipeline_backend_counters n;
		dataplane_backend_counters(c->dp, r->backend_ids[i], &n);
		if (n.flows_created != n.flows_ended && !is_listed(c->published, r->backend_ids[i]))
			return false;
	}
	return true;
}

static void reclaim_numbers(struct control *c)
{
	uint32_t n = 0;
	while (n < c->n_releases && release_is_over(c, &c->releases[n]))
		free(c->releases[n++].backend_ids);
	if (n == 0)
		return;
	snapshot_registry_reclaim(c->registry, c->releases[n - 1].pass + 1);
	c->n_releases -= n;
	memmove(c->releases, c->releases + n, c->n_releases * sizeof(*c->releases));
}

// ---------------------------------------------------------------- own addresses
static int compare_addresses(const void *a, const void *b)
{
	return address_compare(a, b);
}

// All VIPs, sorted, without repeats, in heap memory.
static struct address *own_list(const struct control *c, uint32_t *out_n)
{
	uint32_t n = 0, n_all = c->config.n_snat;
	for (uint32_t i = 0; i < service_store_count(c->store); i++)
		n_all += service_store_at(c->store, i)->n_addresses;
	struct address *list = calloc(n_all + 1, sizeof(*list));
	if (list == NULL)
		return NULL;
	for (uint32_t i = 0; i < service_store_count(c->store); i++) {
		const struct service *s = service_store_at(c->store, i);
		for (uint32_t k = 0; k < s->n_addresses; k++)
			list[n++] = s->addresses[k];
	}
	for (uint32_t i = 0; i < c->config.n_snat; i++)
		list[n++] = c->config.snat[i];
	qsort(list, n, sizeof(*list), compare_addresses);
	uint32_t n_kept = 0;
	for (uint32_t i = 0; i < n; i++) {
		if (n_kept == 0 || !address_equal(&list[n_kept - 1], &list[i]))
			list[n_kept++] = list[i];
	}
	*out_n = n_kept;
	return list;
}

uint32_t control_own_addresses(const struct control *c, struct address *out, uint32_t max)
{
	uint32_t n = 0;
	struct address *list = own_list(c, &n);
	if (list == NULL)
		return 0;
	if (max > 0 && n > 0) // out may be NULL: only the count is wanted
		memcpy(out, list, (n < max ? n : max) * sizeof(*list));
	free(list);
	return n;
}

static void tell_addresses(struct control *c)
{
	uint32_t n = 0;
	struct address *list = own_list(c, &n);
	if (list == NULL)
		return;
	uint64_t hash = hash_stable(list, n * sizeof(*list), n + 1);
	free(list);
	if (hash == c->own_hash)
		return;
	c->own_hash = hash;
	if (c->hop_hooks.addresses != NULL)
		c->hop_hooks.addresses(c->hop_arg);
}

// Are VIPs and SNAT addresses what they were? By slot, so false may be said of some that are.
static bool addresses_are(const struct snapshot *before, const struct snapshot *next)
{
	uint32_t n = before->n_own > next->n_own ? before->n_own : next->n_own;
	for (uint32_t i = 0; i < n && before->own != next->own; i++) {
		if (owns_slot(before, i) != owns_slot(next, i))
			return false;
		if (owns_slot(next, i) &&
			(before->own[i].kind != next->own[i].kind ||
				!address_equal(&before->own[i].address, &next->own[i].address)))
			return false;
	}
	return true;
}

// ---------------------------------------------------------------- publish
static int build(struct control *c, uint32_t work, struct control_fib *fib, struct snapshot **out,
	struct error *err)
{
	if (work & WORK_COMPILES || c->published == NULL) {
		const struct snapshot_touched touched = { c->touched, c->n_touched };
		struct snapshot_input input = {
			.store = c->store,
			.registry = c->registry,
			.health = { control_probe_verdict, control_is_on_link, c },
			.snat = c->config.snat,
			.n_snat = c->config.n_snat,
			.fib = fib->fib,
			.generation = c->generation + 1,
			.wall_ms = clock_wall_ms(),
			.previous = c->published,
			.touched = work & CONTROL_WORK_BUILD ? NULL : &touched,
		};
		return snapshot_build(&input, out, err);
	}
	*out = snapshot_with_fib(c->published, fib->fib, c->generation + 1);
	return *out != NULL ? 0 : error_add(err, ENOMEM, "", "out of memory");
}

uint32_t control_touch(struct control *c, const struct address *address)
{
	if (c->n_touched == CONTROL_TOUCHED_MAX)
		return CONTROL_WORK_BUILD;
	c->touched[c->n_touched++] = *address;
	return CONTROL_WORK_PART;
}

// Probes and neighbours as the store has it. 0 or -ENOMEM.
static int follow_store(struct control *c, uint32_t work)
{
	if (work & CONTROL_WORK_BUILD) {
		int rc = control_probes_reconcile(c);
		if (rc == 0)
			control_hops_reconcile(c);
		return rc;
	}
	control_hops_follow(c);
	return control_probes_follow(c);
}

// What comes after workers have been given `next`.
static void settle(struct control *c, const struct snapshot *before, const struct snapshot *next)
{
	control_backends_remember(c);
	if (before == NULL || !addresses_are(before, next))
		tell_addresses(c);
	c->n_touched = 0;
}

static int publish(struct control *c, uint32_t work, struct error *err)
{
	struct snapshot *next = NULL, *before = c->published;
	struct control_fib *fib = c->fib, *fib_before = c->fib;
	work |= c->work;
	if (before == NULL || (work & CONTROL_WORK_PART && c->is_follow_torn))
		work |= CONTROL_WORK_BUILD;
	if (work & WORK_COMPILES && follow_store(c, work) != 0)
		return error_add(err, ENOMEM, "", "out of memory");
	// Reconciling may have made entries, and so asked for a new FIB.
	work |= c->work;
	if (array_grow(c->retired, c->n_retired, c->retired_cap) != 0)
		return error_add(err, ENOMEM, "", "out of memory");
	if (work & CONTROL_WORK_FIB || fib == NULL)
		fib = fib_make(c);
	else
		fib->n_users++;
	if (fib == NULL)
		return error_add(err, ENOMEM, "", "out of memory");
	int rc = build(c, work, fib, &next, err);
	if (rc != 0) {
		fib_release(fib);
		return rc;
	}
	c->generation++;
	c->published = next;
	c->fib = fib;
	c->work = 0;
	control_numbers_keep(c);
	if (c->dp != NULL)
		dataplane_publish(c->dp, next);
	if (before != NULL && work & WORK_COMPILES)
		release_numbers(c, before, next);
	retire_snapshot(c, before, fib_before);
	if (work & WORK_COMPILES)
		settle(c, before, next);
	return 0;
}

int control_publish_now(struct control *c, uint32_t work, struct error *err)
{
	// A publication that a hook asks for inside of this one would retire the same snapshot: it is held.
	bool was_held = c->is_held;
	c->is_held = true;
	int rc = publish(c, work, err);
	c->is_held = was_held;
	return rc;
}

// What was published stays; the work waits for the timer.
static void note_failure(struct control *c, uint32_t work, const struct error *err)
{
	char text[512];
	if (!c->is_failed)
		control_note(c, LOG_LEVEL_ERROR, "publish-refused", "",
			"%s; what was published stays, next try in 1s",
			error_first(err, text, sizeof(text)));
	c->is_failed = true;
	c->work |= work;
	control_arm(c->coalesce, CLOCK_S);
}

static void on_coalesce(evutil_socket_t fd, short what, void *arg)
{
	struct control *c = arg;
	if (c->work != 0)
		control_change_noted(c, c->work);
}

void control_change_noted(struct control *c, uint32_t work)
{
	struct error err = { 0 };
	if (control_change(c, work, &err) != 0)
		note_failure(c, work, &err);
	error_fini(&err);
}

int control_publish_init(struct control *c)
{
	c->coalesce = evtimer_new(c->base, on_coalesce, c);
	c->retire = evtimer_new(c->base, on_retire, c);
	return c->coalesce != NULL && c->retire != NULL ? 0 : -ENOMEM;
}

int control_change(struct control *c, uint32_t work, struct error *err)
{
	if (c->dp == NULL || c->is_held || evtimer_pending(c->coalesce, NULL)) {
		// Before the data plane is attached nothing is published: attaching does. What is held goes along.
		c->work |= work;
		return 0;
	}
	uint64_t begun_ns = control_now_ns(c);
	int rc = control_publish_now(c, work, err);
	uint64_t cost_ns = control_now_ns(c) - begun_ns;
	// A publication that takes long is followed by a pause as long, so that the loop has time for the rest.
	control_arm(c->coalesce, cost_ns > c->config.coalesce_ns ? cost_ns : c->config.coalesce_ns);
	if (rc == 0)
		c->is_failed = false;
	return rc;
}

void control_publish_tick(struct control *c)
{
	reclaim_numbers(c);
	// The flows of a removed backend have had their drain timeout: a build marks them.
	if (c->published != NULL && clock_wall_ms() >= snapshot_registry_next_reset_ms(c->registry))
		control_change_noted(c, CONTROL_WORK_PART);
}

void control_publish_end(struct control *c)
{
	for (uint32_t i = 0; i < c->n_releases; i++)
		free(c->releases[i].backend_ids);
	free(c->releases);
	free_retired(c, c->n_retired);
	free(c->retired);
	if (c->published != NULL)
		snapshot_destroy(c->published);
	fib_release(c->fib);
	if (c->coalesce != NULL)
		event_free(c->coalesce);
	if (c->retire != NULL)
		event_free(c->retire);
	free(c->memory);
}

uint64_t control_generation(const struct control *c)
{
	return c->published != NULL ? c->published->generation : 0;
}

uint64_t control_digest(const struct control *c)
{
	return c->published != NULL ? c->published->digest : 0;
}

bool control_own_address(struct control *c, uint16_t slot, struct address *out)
{
	if (c->published == NULL || !owns_slot(c->published, slot))
		return false;
	*out = c->published->own[slot].address;
	return true;
}
