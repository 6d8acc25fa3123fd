// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The pipeline of dataplane_test: see dataplane_fake.c.

#include "pipeline.h"

#define FAKE_SCRIPT    14 // offset in the frame
#define FAKE_HOPS      62
#define FAKE_NEIGHBOUR 0x0a090000 // address of entry 0
