// SPDX-License-Identifier: BSD-3-Clause
// Bytes from anybody on the admin socket, through MHD and every handler, on the stand-in for control. Oracles: whatever
// is answered is an HTTP answer, none is an internal error (500) or one without a handler, and the loop comes back
// (libFuzzer's -timeout). The input may hold several requests.
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "rest_control_priv.h"

#define TURNS_MAX 64

static struct control *control;
static struct admin *admin;
static struct admin_config config;

static void finish(void)
{
	admin_destroy(admin);
	rest_control_end();
}

static void begin(void)
{
	struct error err = { 0 };
	char line[256];
	snprintf(config.socket, sizeof(config.socket), "/tmp/sluice-rest-fuzz.%d", (int)getpid());
	control = rest_control_begin(LOG_LEVEL_ERROR);
	if (admin_open(control, &config, &admin, &err) != 0) {
		fprintf(stderr, "%s\n", error_first(&err, line, sizeof(line)));
		exit(1);
	}
	atexit(finish);
}

static int client_open(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", config.socket);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sun, sizeof(sun)) != 0)
		abort(); // the server closed its listener, or lets connections pile up
	return fd;
}

static void check_answer(const char *text, ssize_t n)
{
	static const char start[] = "HTTP/1.1 ";
	size_t len = sizeof(start) - 1;
	if (n < (ssize_t)len + 3)
		return;
	if (memcmp(text, start, len) != 0 && memcmp(text, "HTTP/1.0 ", len) != 0)
		abort();
	if (memcmp(text + len, "500", 3) == 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static char answer[1 << 16];
	if (control == NULL)
		begin();
	int fd = client_open();
	size_t sent = 0;
	bool ended = false, checked = false;
	for (int turn = 0; turn < TURNS_MAX && !ended; turn++) {
		ssize_t n = sent < size ? send(fd, bytes + sent, size - sent, MSG_NOSIGNAL) : 0;
		if (n > 0)
			sent += (size_t)n;
		if (sent == size)
			shutdown(fd, SHUT_WR);
		event_base_loop(control_base(control), EVLOOP_NONBLOCK);
		n = recv(fd, answer, sizeof(answer), 0);
		if (n > 0 && !checked)
			check_answer(answer, n);
		checked |= n > 0;
		ended = n == 0 || (n < 0 && errno != EAGAIN);
	}
	close(fd);
	for (int turn = 0; turn < 4; turn++)
		event_base_loop(control_base(control), EVLOOP_NONBLOCK);
	return 0;
}
