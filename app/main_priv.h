// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Parts of main that stand aside. Included by main alone.
#include "base.h"
#include "cluster.h"
#include "control.h"
#include "settings.h"

// Claims the state folder for the life of the process; the descriptor is the claim. *out_fd -1: nothing to claim ("" or no
// such folder). 0, or -EBUSY with E_RUNNING and the other's pid in err.
int main_lock_take(const char *state_dir, int *out_fd, struct error *err);

// Begins to follow the cluster that the settings name; *out stays as it is where they name none. 0 or -errno.
int main_cluster_create(const struct settings *s, struct control *control,
	struct source_cluster **out, struct error *err);
