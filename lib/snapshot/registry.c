// SPDX-License-Identifier: BSD-3-Clause
#include "snapshot_build.h"
