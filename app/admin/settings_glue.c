// SPDX-License-Identifier: BSD-3-Clause
// From the settings to the few words this module needs, so that the rest of it (and its tests) does without them.
#include "admin.h"

static json_t *show(void *arg)
{
	return settings_to_json(arg);
}

int admin_create(struct control *control, const struct settings *settings, struct admin **out,
	struct error *err)
{
	static struct admin_config config; // 3 KiB, copied by admin_open
	config = (struct admin_config){ .settings_json = show, .arg = (void *)(uintptr_t)settings };
	snprintf(config.socket, sizeof(config.socket), "%s", settings->admin.socket);
	for (uint32_t i = 0; i < settings->admin.n_listen && i < ADMIN_LISTENS_MAX; i++) {
		const struct settings_listen *from = &settings->admin.listen[i];
		struct admin_listen *to = &config.listens[config.n_listens++];
		snprintf(to->address, sizeof(to->address), "%s", from->address_text);
		snprintf(to->tokens_file, sizeof(to->tokens_file), "%s", from->tokens_file);
		to->port = (uint16_t)from->port;
	}
	return admin_open(control, &config, out, err);
}
