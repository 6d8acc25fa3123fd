// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "base.h"

// The settings table and what it decodes to. Shape of the whole configuration (interfaces.md section 4).
