// SPDX-License-Identifier: BSD-3-Clause
#include "settings.h"

#include <errno.h>
#include <string.h>

void settings_defaults(struct settings *out)
{
	memset(out, 0, sizeof(*out));
}

int settings_load(const char *path, struct settings *out, struct error *err)
{
	return -ENOSYS;
}

int settings_load_text(const char *text, size_t len, const char *file_name, struct settings *out,
	struct error *err)
{
	return -ENOSYS;
}

int settings_check_daemon(const struct settings *settings, struct error *err)
{
	return -ENOSYS;
}

void settings_fini(struct settings *settings)
{
}

void settings_print_default(FILE *file)
{
}

void settings_print(const struct settings *settings, FILE *file)
{
}

json_t *settings_to_json(const struct settings *settings)
{
	return NULL;
}

uint32_t settings_diff(const struct settings *old_settings, const struct settings *new_settings,
	void (*fn)(void *arg, const struct settings_change *change), void *arg)
{
	return 0;
}
