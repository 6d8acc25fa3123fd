// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Parts of main that stand aside. Included by main alone.
#include "base.h"

// Claims the state folder for the life of the process; the descriptor is the claim. *out_fd -1: nothing to claim ("" or no
// such folder). 0, or -EBUSY with E_RUNNING and the other's pid in err.
int main_lock_take(const char *state_dir, int *out_fd, struct error *err);
