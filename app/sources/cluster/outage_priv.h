// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Services as bytes and back, exactly: what is read compares equal to what was written.
//
//   file    "sluice cluster state 1\n" · text: of whom · record ... · 0 (u32) · hash of all before it (u64)
//   record  length (u32, not 0) · a service
//   text    length (u16) · bytes; numbers are little-endian
//
// Only whole files count: whoever reads checks the hash before he looks at a record.

#include "base.h"
#include "service.h"

#define OUTAGE_FILE_MAX (512u << 20)

struct outage_bytes { // growable, heap
	uint8_t *bytes;
	size_t len, cap;
	bool is_short; // of memory: what is in it is not whole
};
void outage_bytes_fini(struct outage_bytes *b);

void outage_put_head(struct outage_bytes *b, const char *whose);
void outage_put_service(struct outage_bytes *b, const struct service *service);
// The end; hash: of everything before, outage_hash chained.
void outage_put_tail(struct outage_bytes *b, uint64_t hash);
// Chains: the hash of two pieces is that of the second with the hash of the first as seed. Pieces must be cut alike on both
// sides: head, each record, closing zero.
uint64_t outage_hash(const void *bytes, size_t len, uint64_t seed);

struct outage_services { // gives
	struct service **services;
	uint32_t n_services, cap;
};
void outage_services_fini(struct outage_services *s);
// A whole file. 0; -EINVAL: damaged, or of another version (cause in why); -ESTALE: of another cluster; -ENOMEM. Outputs
// untouched on failure.
int outage_read(const uint8_t *bytes, size_t len, const char *whose, struct outage_services *out,
	char *why, size_t why_len);
