// SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "schema.h"
#include "settings.h"

// The whole configuration: settings_table.c.
extern const struct schema_field settings_table[];

// Checks across keys. Every finding goes to err with the line of its key. true: none.
bool settings_cross_check(
	const struct settings *settings, const struct schema_lines *lines, struct error *err);

// "auto", or a list of CPU numbers and ranges without repetition: "2-5,8".
bool settings_cores_valid(const char *text);
