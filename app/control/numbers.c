// SPDX-License-Identifier: BSD-3-Clause
// The journal of stable numbers beside the flow files: what a slot, a backend id or a policy means, kept so that the
// next process finds the live flows of this one meaningful. Its first line carries the key of the flow tables: tables
// with another key belong to another journal and are not adopted.
//
// A line is written before the number is published. Losing the journal loses the adoption, nothing else.
#include "control_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define NUMBERS_FILE      "numbers"
#define NUMBERS_MAX_BYTES (64u << 20)
#define NUMBERS_HEAD      "sluice-numbers 1 "

static void numbers_path(const struct control *c, const char *suffix, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/%s%s", c->config.flow_dir, NUMBERS_FILE, suffix);
}

static bool write_all(int fd, const char *text, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, text, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		text += n;
		len -= (size_t)n;
	}
	return true;
}

static void take_line(void *arg, const char *line)
{
	fprintf(arg, "%s\n", line);
}

// Appends what is new; one write. False: the journal is not to be trusted any more.
static bool numbers_append(struct control *c, int fd)
{
	char *text = NULL;
	size_t len = 0;
	FILE *memory = open_memstream(&text, &len);
	if (memory == NULL)
		return false;
	snapshot_registry_fresh(c->registry, take_line, memory);
	bool done = fclose(memory) == 0 && write_all(fd, text, len);
	free(text);
	return done;
}

void control_numbers_keep(struct control *c)
{
	char path[PATH_MAX];
	if (c->numbers_fd < 0 || numbers_append(c, c->numbers_fd))
		return;
	control_note(c, LOG_LEVEL_ERROR, "numbers-not-kept", c->config.flow_dir,
		"%s; flows will not survive a restart", strerror(errno));
	numbers_path(c, "", path);
	unlink(path); // half a journal must not be believed
	close(c->numbers_fd);
	c->numbers_fd = -1;
}

// Lines from the end: the last one of a number counts. A torn last line is skipped.
static void restore_lines(struct control *c, char *first, char *end)
{
	while (end > first) {
		char *line = end - 1;
		while (line > first && line[-1] != '\n')
			line--;
		end[-1] = 0; // its newline
		snapshot_registry_restore(c->registry, line);
		end = line;
	}
}

// True when the journal was read and its key taken.
static bool numbers_read(struct control *c)
{
	char path[PATH_MAX];
	struct stat st;
	numbers_path(c, "", path);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return false;
	bool taken = false;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0 &&
		st.st_size <= NUMBERS_MAX_BYTES) {
		char *text = malloc((size_t)st.st_size + 1);
		ssize_t n = text ? read(fd, text, (size_t)st.st_size) : -1;
		if (n > 0) {
			text[n] = 0;
			char *head_end = memchr(text, '\n', (size_t)n);
			char *last = memrchr(text, '\n', (size_t)n);
			struct hash_key key;
			if (head_end != NULL && sscanf(text, NUMBERS_HEAD "%16lx %16lx",
							&key.words[0], &key.words[1]) == 2) {
				c->flow_key = key;
				restore_lines(c, head_end + 1, last + 1);
				taken = true;
			}
		}
		free(text);
	}
	close(fd);
	return taken;
}

// The first thing that needs the folder says what is wrong with it.
static int refuse_folder(const struct control *c, int code, struct error *err)
{
	return error_add(err, code, "flows.file",
		"%s: %s; a folder on tmpfs or hugetlbfs, or \"none\"", c->config.flow_dir,
		strerror(code));
}

int control_numbers_init(struct control *c, struct error *err)
{
	char path[PATH_MAX], aside[PATH_MAX], head[96];
	c->numbers_fd = -1;
	if (getrandom(&c->flow_key, sizeof(c->flow_key), 0) != sizeof(c->flow_key))
		return -errno;
	if (c->config.flow_dir[0] == 0)
		return 0;
	if (mkdir(c->config.flow_dir, 0700) != 0 && errno != EEXIST)
		return refuse_folder(c, errno, err);
	numbers_read(c);
	// Written anew: compact, and never a torn line in the middle.
	numbers_path(c, ".new", aside);
	numbers_path(c, "", path);
	int fd =
		open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return refuse_folder(c, errno, err);
	int n = snprintf(head, sizeof(head), NUMBERS_HEAD "%016lx %016lx\n", c->flow_key.words[0],
		c->flow_key.words[1]);
	if (!write_all(fd, head, (size_t)n) || !numbers_append(c, fd) || rename(aside, path) != 0) {
		int code = errno ? errno : EIO;
		close(fd);
		unlink(aside);
		return refuse_folder(c, code, err);
	}
	c->numbers_fd = fd;
	return 0;
}

void control_numbers_fini(struct control *c)
{
	if (c->numbers_fd >= 0)
		close(c->numbers_fd);
	c->numbers_fd = -1;
}

struct hash_key control_flow_key(const struct control *c)
{
	return c->flow_key;
}
