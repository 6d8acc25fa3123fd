// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The slow path: each port has a twin, a persistent TAP device of the kernel with the port's MAC
// and MTU. All that is not ours (ARP, ND, BGP, BFD, ping to node addresses, ssh) goes to it, all
// that the kernel sends comes from it. The kernel answers ARP and ND for the VIPs and SNAT
// addresses kept on every twin; neighbours and routes are learnt from it.
//
// Control thread only, in the event loop of control; nothing here blocks. What is bounded: frames
// and messages per wake-up, addresses changed per turn, next hops refreshed per tick, neighbours
// and routes kept.

#include "base.h"
#include "control.h"

struct punt;

// Makes or attaches to the twin of every port of control's device and brings it up. A twin that
// cannot be had is an error naming it (held by another process, no TAP, no right to); twins made so
// far are removed again. 0 or -errno.
int punt_create(struct control *c, struct punt **out, struct error *err);
// Puts own addresses on the twins, starts to learn routes and neighbours and to carry frames. 0 or
// -errno.
int punt_start(struct punt *p, struct error *err);
// Takes our addresses and settings back; removes the twins that sluice made (this run or an earlier
// one that was killed) and leaves others as they were. NULL is allowed.
void punt_destroy(struct punt *p);
