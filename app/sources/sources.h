// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Where desired state comes from. Each source decodes whole, hands the result to control, and never takes
// running state away because of a bad input. Control thread.

#include "base.h"
#include "control.h"

// The services file (interfaces.md section 3). Read at creation and on source_file_reload; not watched: a half-written
// file would be read half-written, and an operator wants to choose the moment.
struct source_file;

// Reads `path` once and puts its services in force as owner "file"; control is borrowed. path "": no services file is wanted, the
// source counts as synced with no services. 0, or -errno with every finding in err (and nothing created): a file named in the
// configuration that is missing or bad stops a start.
int source_file_create(
	struct control *control, const char *path, struct source_file **out, struct error *err);
// Reads again, from `path` (NULL: from the same as before; "" takes all services of the file back). On error nothing changes, every
// finding is logged and in err, and the event "reload-refused" is noted. 0 or -errno.
int source_file_reload(struct source_file *source, const char *path, struct error *err);
const char *source_file_path(const struct source_file *source);
void source_file_destroy(struct source_file *source); // the services stay
