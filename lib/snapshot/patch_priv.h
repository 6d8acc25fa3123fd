// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// A snapshot made from the one before: what is other than it was (snapshot_patch.c), and making it where only endpoints are
// (snapshot_patch.c) or more (snapshot_splice.c). Control thread.

#include "build_priv.h"

#define PATCH_NEW UINT32_MAX // a service that was not there before

struct patch {
	struct build b;
	struct holder *holder;
	uint32_t n_services; // of the store
	uint32_t *
		origin; // by service: its index before, or PATCH_NEW. NULL: each has the one it had
	bool *is_changed;  // by service: to be compiled again
	uint32_t *changed; // these, ascending
	uint32_t n_changed;
	uint32_t *gone; // indices before of services that are not there any more
	uint32_t n_gone, gone_cap;
	// Addresses of which something is other than it was: of backends by verdict or deadline, own ones that came or went.
	struct address *touched;
	uint32_t n_touched, touched_cap;
	uint32_t n_largest; // backends of one changed service
	uint32_t *first_id; // [n_changed + 1] into b.ids
	uint64_t *digest;   // [n_changed] of name and sources, where only endpoints changed
	// snapshot_splice.c
	struct address *vips; // the first n_come of them come, maybe more than once; the others go
	uint32_t n_come;
	uint32_t n_vips, vips_cap;
	uint32_t *
		left; // by slot: backends of changed and gone services that were known by it; NULL: none
	uint32_t *moved_to; // by service before: its index now; PATCH_NEW: gone, or compiled again
	uint32_t *shift;    // of the indices of its listeners
	struct snapshot_idle *idle;
};

static inline uint32_t patch_origin(const struct patch *p, uint32_t service_idx)
{
	return p->origin ? p->origin[service_idx] : service_idx;
}

// What the service was compiled to before; NULL: nothing.
static inline const struct build_part *patch_part_before(
	const struct patch *p, uint32_t service_idx)
{
	uint32_t origin = patch_origin(p, service_idx);
	return origin == PATCH_NEW ? NULL : &p->b.before->parts[origin];
}

// ---------------------------------------------------------------- snapshot_patch.c
int patch_touch(struct patch *p, const struct address *address);
// The array from before with room for more, in the memory of this one's flats.
void *patch_copy(struct patch *p, const void *from, size_t n, size_t n_room, size_t size);
// What the changed and gone services no longer have, and what lingered before.
void patch_linger(struct patch *p);
// What is kept apart of every row that was made anew.
void patch_fill_apart(struct patch *p);
// Ids of changed service i, which have been given, in memory that stays. NULL: out of memory, noted.
const uint32_t *patch_keep_ids(struct patch *p, uint32_t i);

// ---------------------------------------------------------------- snapshot_splice.c
// Own addresses that the changed services bring or leave behind: found, and touched. 1; 0: it has to be compiled whole; -ENOMEM.
int splice_find_vips(struct patch *p);
// Before ids are given: how many backends of the changed services are known by which address. 0 or -ENOMEM.
int splice_count_left(struct patch *p);
// Makes the snapshot, with names, addresses and listeners as they are now. 0 or -errno.
int splice_make(struct patch *p);
