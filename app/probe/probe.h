// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Active health checks: connects and asks, from ordinary kernel sockets, and tells control what came of it. Verdicts are
// lib/health's, what to probe and how often is control's. Control thread; nothing here blocks.

#include "base.h"
#include "control.h"

#define PROBE_IN_FLIGHT_MAX 2000

struct probe;

// Takes the probe hooks of control (borrowed) and begins with what is wanted already. 0, -ENOMEM.
int probe_create(struct control *control, struct probe **out, struct error *err);
// Gives the hooks back; probes under way are cut. NULL is fine.
void probe_destroy(struct probe *probe);
