// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The stand-in for control behind the REST tests and the REST fuzzer. One per process.
#include "admin.h"

struct control *rest_control_begin(enum log_level level);
void rest_control_end(void); // after admin_destroy
