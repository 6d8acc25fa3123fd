// SPDX-License-Identifier: BSD-3-Clause
// The REST server of sluiced without the rest of it, on the stand-in for control (rest_control.c). What rest_check.py
// drives; nothing of DPDK runs.
//
//   rest_standin SOCKET [--tcp ADDRESS PORT TOKENS] [--header-timeout MS] [--request-timeout MS]
#include "rest_control_priv.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

static void ended(evutil_socket_t fd, short events, void *arg)
{
	event_base_loopbreak(arg);
}

static json_t *settings_shown(void *arg)
{
	return json_pack("{s:{s:s}}", "admin", "socket", arg);
}

static int config_read(struct admin_config *config, int argc, char **argv)
{
	if (argc < 2)
		return -EINVAL;
	snprintf(config->socket, sizeof(config->socket), "%s", argv[1]);
	for (int i = 2; i < argc; i++) {
		if (strcmp(argv[i], "--tcp") == 0 && i + 3 < argc) {
			struct admin_listen *l = &config->listens[config->n_listens++];
			snprintf(l->address, sizeof(l->address), "%s", argv[++i]);
			l->port = (uint16_t)atoi(argv[++i]);
			snprintf(l->tokens_file, sizeof(l->tokens_file), "%s", argv[++i]);
		} else if (strcmp(argv[i], "--header-timeout") == 0 && i + 1 < argc) {
			config->header_timeout_ms = (uint32_t)atoi(argv[++i]);
		} else if (strcmp(argv[i], "--request-timeout") == 0 && i + 1 < argc) {
			config->request_timeout_ms = (uint32_t)atoi(argv[++i]);
		} else {
			return -EINVAL;
		}
	}
	config->settings_json = settings_shown;
	config->arg = config->socket;
	return 0;
}

int main(int argc, char **argv)
{
	static struct admin_config config;
	struct error err = { 0 };
	char line[512];
	if (config_read(&config, argc, argv) != 0) {
		fprintf(stderr, "usage: rest_standin SOCKET [--tcp ADDRESS PORT TOKENS] "
				"[--header-timeout MS] [--request-timeout MS]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	struct control *control = rest_control_begin(LOG_LEVEL_INFO);
	struct event_base *base = control_base(control);
	struct admin *admin = NULL;
	if (admin_open(control, &config, &admin, &err) != 0) {
		fprintf(stderr, "%s\n", error_first(&err, line, sizeof(line)));
		return 1;
	}
	struct event *term = evsignal_new(base, SIGTERM, ended, base);
	event_add(term, NULL);
	printf("ready\n");
	fflush(stdout);
	event_base_dispatch(base);
	admin_destroy(admin);
	event_free(term);
	rest_control_end();
	error_fini(&err);
	return 0;
}
