// SPDX-License-Identifier: BSD-3-Clause
#include "sources.h"

#include <errno.h>

int source_file_create(
	struct control *control, const char *path, struct source_file **out, struct error *err)
{
	return -ENOSYS;
}

int source_file_reload(struct source_file *source, const char *path, struct error *err)
{
	return -ENOSYS;
}

const char *source_file_path(const struct source_file *source)
{
	return "";
}

void source_file_destroy(struct source_file *source)
{
}
