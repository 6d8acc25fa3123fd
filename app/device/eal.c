// SPDX-License-Identifier: BSD-3-Clause
// Starting the EAL with its mouth held: what it logs goes to our log at debug, and the last lines are attached to a failure.
// It prints its usage to stdout when it dislikes an argument, so stdout is turned away meanwhile.
#include "device_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>

#include "compat.h"

static void keep_line(struct eal_log *eal)
{
	eal->partial[eal->partial_len] = 0;
	eal->partial_len = 0;
	if (eal->partial[0] == 0)
		return;
	memcpy(eal->lines[eal->n_lines % EAL_LINES], eal->partial, sizeof(eal->partial));
	eal->n_lines++;
	log_write(eal->log, LOG_LEVEL_DEBUG, "eal", "%s", eal->partial);
}

// Called with the stream's lock held, from any thread that makes DPDK log.
static ssize_t take_text(void *cookie, const char *text, size_t len)
{
	struct eal_log *eal = cookie;
	for (size_t i = 0; i < len; i++) {
		if (text[i] == '\n' || eal->partial_len + 1 == sizeof(eal->partial))
			keep_line(eal);
		if (text[i] != '\n')
			eal->partial[eal->partial_len++] = text[i];
	}
	return (ssize_t)len;
}

int eal_log_open(struct eal_log *eal, const struct log *log, struct error *err)
{
	*eal = (struct eal_log){ .log = log };
	eal->stream = fopencookie(eal, "w", (cookie_io_functions_t){ .write = take_text });
	if (eal->stream == NULL)
		return error_add(err, ENOMEM, "eal", "out of memory");
	setvbuf(eal->stream, NULL, _IOLBF, 0);
	rte_openlog_stream(eal->stream);
	return 0;
}

void eal_log_close(struct eal_log *eal)
{
	if (eal->stream == NULL)
		return;
	rte_openlog_stream(NULL);
	fclose(eal->stream);
	eal->stream = NULL;
}

void eal_log_attach(const struct eal_log *eal, uint32_t since, struct error *err)
{
	fflush(eal->stream);
	uint32_t first = eal->n_lines > EAL_LINES ? eal->n_lines - EAL_LINES : 0;
	if (first < since)
		first = since;
	for (uint32_t i = first; i < eal->n_lines; i++)
		error_add(err, EIO, "eal", "%s", eal->lines[i % EAL_LINES]);
}

static int init_quietly(int argc, char **argv)
{
	fflush(stdout);
	int saved = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (saved >= 0 && nowhere >= 0)
		dup2(nowhere, STDOUT_FILENO);
	int rc = rte_eal_init(argc, argv);
	fflush(stdout);
	if (saved >= 0 && nowhere >= 0)
		dup2(saved, STDOUT_FILENO);
	if (saved >= 0)
		close(saved);
	if (nowhere >= 0)
		close(nowhere);
	return rc;
}

static void log_words(const struct device_plan *plan, const struct log *log)
{
	char line[900];
	size_t n = 0;
	line[0] = 0;
	for (uint32_t i = 0; i < plan->n_words && n + 1 < sizeof(line); i++)
		n += (size_t)snprintf(line + n, sizeof(line) - n, " %s", plan->words[i]);
	log_write(log, LOG_LEVEL_INFO, "eal", "arguments:%s", line);
}

int eal_start(const struct device_plan *plan, struct eal_log *eal, struct error *err)
{
	char name[] = "sluiced";
	char *argv[DEVICE_WORDS_MAX + 2] = { name };
	for (uint32_t i = 0; i < plan->n_words; i++)
		argv[i + 1] = plan->words[i];
	log_words(plan, eal->log);
	rte_errno = 0;
	int rc = init_quietly((int)plan->n_words + 1, argv);
	if (rc >= 0)
		return 0;
	int code = compat_eal_errno(rc);
	error_add(err, code, "eal", "DPDK did not start (%s); its last lines follow",
		rte_strerror(code));
	eal_log_attach(eal, 0, err);
	return -code;
}
