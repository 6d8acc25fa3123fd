// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The operator's door: REST on a UNIX socket (peer credentials) and, where configured, on TCP (bearer token).
// Everything runs on the control loop, in bounded steps; nothing here may stop or slow the data path.
// [control] thread only.

#include <jansson.h>

#include "base.h"
#include "control.h"
#include "settings.h"

#define ADMIN_LISTENS_MAX 8

struct admin_listen {
	char address[64]; // "127.0.0.1", "::1"
	uint16_t port;
	char tokens_file[256]; // lines of "role sha256hex [comment]"; re-read when it changes
};

struct admin_config {
	char socket[108]; // path, "" = no UNIX listener
	struct admin_listen listens[ADMIN_LISTENS_MAX];
	uint32_t n_listens;
	uint32_t
		header_timeout_ms; // 0 = 10 s: from the first byte's chance to the end of the headers
	uint32_t request_timeout_ms; // 0 = 30 s: from the headers to the last byte of the answer
	// Effective settings for GET /config (gives); NULL: none to show.
	json_t *(*settings_json)(void *arg);
	void *arg;
};

struct admin;

// Opens every listener. An address that cannot be had is an error naming it; a stale socket file is replaced, one
// that somebody answers on is not (-EADDRINUSE). `control` is borrowed. 0 or -errno.
int admin_open(struct control *control, const struct admin_config *config, struct admin **out,
	struct error *err);
// The same from the settings (borrowed for the life of the admin).
int admin_create(struct control *control, const struct settings *settings, struct admin **out,
	struct error *err);
// Closes listeners and connections; removes the socket file if it is still ours. NULL is fine.
void admin_destroy(struct admin *admin);
