// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "ipam.h"

#define IPAM_NOBODY UINT32_MAX // pool index of reserved addresses

// ---------------------------------------------------------------- ipam_range.c
// The address after and before `a`; they wrap.
struct address ipam_after(const struct address *a);
struct address ipam_before(const struct address *a);
// last - first + 1, UINT64_MAX when it does not fit.
uint64_t ipam_range_size(const struct ipam_range *range);

// ---------------------------------------------------------------- ipam_set.c
// Sorted array of pointers. compare takes two items; the key of a search is an item too, filled in as far as compare looks.
typedef int ipam_compare(const void *a, const void *b);
struct ipam_set {
	void **items;
	uint32_t n_items;
	uint32_t cap;
	ipam_compare *compare;
};
// First index whose item is not before `key`.
uint32_t ipam_set_lower(const struct ipam_set *set, const void *key);
void *ipam_set_find(const struct ipam_set *set, const void *key); // equal, or NULL
int ipam_set_insert(struct ipam_set *set, void *item);            // 0, -ENOMEM; once each
int ipam_set_reserve(
	struct ipam_set *set, uint32_t n); // with room for n in all, insert cannot fail
void ipam_set_remove(struct ipam_set *set, const void *item); // by what is equal; absent: nothing
void ipam_set_fini(struct ipam_set *set);                     // not the items

// ---------------------------------------------------------------- ipam_pool.c
// Addresses in a row that belong to one pool. All segments are disjoint, in order of addresses.
struct ipam_segment {
	struct ipam_range range;
	uint32_t pool;      // index, or IPAM_NOBODY
	uint32_t range_idx; // of the pool's ranges as given
	uint32_t pos;       // in the pool's order of use
	struct ipam_range
		*runs; // held addresses: in order, disjoint, with at least one free address between
	uint32_t n_runs;
	uint32_t cap_runs;
	uint32_t n_held;
};

struct ipam_home { // a pool in force
	char *name;
	int32_t priority;
	bool auto_assign;
	bool is_pinned;
	uint32_t *segments; // in order of use
	uint32_t n_segments;
	uint32_t hint
		[IPAM_FAMILIES]; // no segment before this position has a free address of the family
	uint64_t size[IPAM_FAMILIES]; // UINT64_MAX: that many or more
	uint64_t n_held[IPAM_FAMILIES];
};

struct ipam_pools {
	struct ipam_home *homes; // in order of names
	uint32_t n_homes;
	uint32_t *order; // indexes, pinned ones first, each by priority and name
	struct ipam_segment *segments;
	uint32_t n_segments;
	uint32_t cap_segments;
	void *given; // what they were made from, to know the same again
	size_t given_len;
	struct error findings;
};
int ipam_pools_init(struct ipam_pools *pools, const struct ipam_pool *from, uint32_t n_from,
	const struct ipam_range *reserved, uint32_t n_reserved);
void ipam_pools_fini(struct ipam_pools *pools);
bool ipam_pools_same(const struct ipam_pools *a, const struct ipam_pools *b);
struct ipam_segment *ipam_segment_of(const struct ipam_pools *pools, const struct address *a);
// Index of the pool, or IPAM_NOBODY.
uint32_t ipam_home_of(const struct ipam_pools *pools, const struct address *a);
uint32_t ipam_home_find(const struct ipam_pools *pools, const char *name);
// Lowest free address in order of use. false: none.
bool ipam_home_lowest(
	struct ipam_pools *pools, uint32_t home, enum ipam_family family, struct address *out);
// Marks an address of a pool as held, or free again. Only what is free is taken, only what is held given back.
int ipam_pools_take(struct ipam_pools *pools, const struct address *a); // 0, -ENOMEM
void ipam_pools_give(struct ipam_pools *pools, const struct address *a);

// ---------------------------------------------------------------- ipam_held.c
struct request;

struct ipam_use { // one range of ports on a held address
	struct ipam_port port;
	const struct request *owner;
};

// An address that somebody holds.
struct held {
	struct address address;
	uint32_t home;
	char *sharing_key; // "" = one holder alone
	char *backend_key;
	struct ipam_use *uses; // by protocol and port, disjoint
	uint32_t n_uses;
	uint32_t cap_uses;
	const struct request **holders;
	uint32_t n_holders;
	uint32_t cap_holders;
};

struct given { // an answer, to know when it changes
	struct address addresses[IPAM_FAMILIES];
	uint32_t n_addresses;
	uint64_t form;
	enum ipam_reason reason;
	char *pool; // NULL = ""
	char *text;
};

struct request {
	struct ipam_request value; // its texts lie in `block`, arrays are owned
	char *block;
	size_t block_len;
	uint64_t form;
	struct held *held[IPAM_FAMILIES];     // by family
	struct address before[IPAM_FAMILIES]; // what it held when this run began
	uint32_t n_before;
	uint64_t before_form;    // form under which it held these, or was recorded
	uint64_t held_form;      // of what it holds
	enum ipam_reason reason; // of the last try that did not get all
	char *text;
	struct given answer; // as of the last run
	bool is_news;        // what the answer follows from has changed since
	uint32_t dirty_at;   // index in `dirty` + 1, 0 = not in it
};

struct ipam {
	ipam_selects *selects;
	void *arg;
	struct ipam_pools pools;
	struct ipam_set requests;  // struct request, by namespace, name
	struct ipam_set dirty;     // to be looked at in the next run; no order
	struct ipam_set waiting;   // lack an address; by age
	struct ipam_set changed;   // answers not given yet; youngest first, given from the end
	struct ipam_set addresses; // struct held, by address
	struct ipam_set shared;    // struct held with a key; by keys, pool, address
	struct request **claims;   // of a run: room for all requests, as in the next
	struct request **row;
	uint32_t cap_run;
	bool is_freed; // since the waiting were last tried
};

int ipam_order_key(const void *a, const void *b); // namespace, name
int ipam_order_age(const void *a, const void *b); // creation, namespace, name
int ipam_order_age_back(const void *a, const void *b);
int ipam_order_address(const void *a, const void *b);
int ipam_order_shared(const void *a, const void *b);

struct held *ipam_held_find(const struct ipam *ipam, const struct address *a);
// Could `r` join those who hold it? *out_other (may be NULL): one who stands in the way.
bool ipam_held_fits(
	const struct held *held, const struct request *r, const struct request **out_other);
int ipam_hold(struct ipam *ipam, struct request *r, const struct address *a); // 0, -ENOMEM
void ipam_release(struct ipam *ipam, struct request *r, enum ipam_family family);
// Lowest address of the request's key in that pool with room for its ports.
bool ipam_shared_lowest(const struct ipam *ipam, const struct request *r, uint32_t home,
	enum ipam_family family, struct address *out);

// ---------------------------------------------------------------- ipam_request.c
// A copy with ports in order; NULL: out of memory.
struct request *ipam_request_create(const struct ipam_request *value);
void ipam_request_destroy(struct request *r); // holds nothing any more
// But for what is recorded.
bool ipam_request_equal(const struct request *a, const struct request *b);
// Takes the value of `from`, which keeps the old one.
void ipam_request_swap(struct request *r, struct request *from);

// ---------------------------------------------------------------- ipam_rules.c
uint32_t ipam_n_held(const struct request *r);
// Everything it holds is as it was given, and may stay whatever the others do.
bool ipam_stays(const struct ipam *ipam, const struct request *r);
uint32_t ipam_n_needed(const struct request *r); // families
// 1: holds all it needs. Each returns 0 or -ENOMEM, holding then what it held before.
int ipam_keep(struct ipam *ipam, struct request *r);
// Holds one address: the second from the same pool, or, where one alone will not do, gives it back (*out_released).
int ipam_complete(struct ipam *ipam, struct request *r, bool *out_released);
// Holds none: by the rules; the reason goes into its answer.
int ipam_allocate(struct ipam *ipam, struct request *r);
bool ipam_home_selects(const struct ipam *ipam, uint32_t home, const struct request *r);
