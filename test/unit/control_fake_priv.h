// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Stands in for the data plane and the device under the control tests: publications are recorded, grace periods end when
// the test says so, workers answer what the test put there. One instance, static.

#include "control.h"

#define FAKE_PUBLISHED_MAX 4096

struct fake {
	const struct snapshot *published; // last
	uint32_t n_published;
	uint64_t grace_done; // tokens up to this are over
	uint64_t grace_next;
	uint64_t sweeps;
	int event_fd;
	struct dataplane_wanted wanted[64];
	uint32_t n_wanted;
	struct dataplane_request asked[256];
	uint32_t asked_worker[256];
	uint32_t n_asked;
	bool is_mailbox_full;
	struct dataplane_reply *replies[256];
	uint32_t n_replies;
	struct pipeline_backend_counters counters[256];
	struct device_port port;
	uint32_t n_workers;
};
extern struct fake fake;
void fake_reset(void);
void fake_wake(void); // the event descriptor fires
// Puts a reply in the ring (takes it).
void fake_reply(struct dataplane_reply *reply);
