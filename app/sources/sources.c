// SPDX-License-Identifier: BSD-3-Clause
// The services file as a source: read whole, decode whole, replace what the file owned, or keep it and say why.
#include "sources.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kube.h"

#define SOURCE_NAME     "file"
#define SOURCE_PATH_MAX 4096

struct source_file {
	struct control *control;
	char path[SOURCE_PATH_MAX];
};

static int read_all(int fd, size_t size, char **out_text, size_t *out_len)
{
	// One byte more than it had: a file that grows meanwhile is seen as too large at worst, never cut silently.
	char *text = malloc(size + 1);
	size_t len = 0;
	if (text == NULL)
		return -ENOMEM;
	while (len <= size) {
		ssize_t n = read(fd, text + len, size + 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			int rc = -errno;
			free(text);
			return rc;
		}
		if (n == 0)
			break;
		len += (size_t)n;
	}
	if (len > size) {
		free(text);
		return -EAGAIN;
	}
	*out_text = text;
	*out_len = len;
	return 0;
}

// A regular file only: the control loop must not wait for the other end of a pipe. gives *out_text.
static int file_read(const char *path, char **out_text, size_t *out_len, struct error *err)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st)) {
		int rc = errno;
		if (fd >= 0)
			close(fd);
		return error_add(err, rc, "", "cannot be opened: %s", strerror(rc));
	}
	int rc = 0;
	if (!S_ISREG(st.st_mode))
		rc = error_add(err, EINVAL, "", "not a regular file; allowed: a regular file");
	else if (st.st_size > KUBE_FILE_MAX_BYTES)
		rc = error_add(err, EFBIG, "", "%lld bytes; allowed: at most %u",
			(long long)st.st_size, KUBE_FILE_MAX_BYTES);
	else if ((rc = read_all(fd, (size_t)st.st_size, out_text, out_len)) == -EAGAIN)
		error_add(err, EAGAIN, "", "grew while it was read; write it aside and rename it");
	else if (rc)
		error_add(err, -rc, "", "cannot be read: %s", strerror(-rc));
	close(fd);
	return rc;
}

// Findings of the store begin with "namespace/name": the line of that object goes with them.
static uint32_t line_find(const struct kube_result *result, const char *path)
{
	for (uint32_t i = 0; i < result->n_services; i++) {
		char name[2 * SERVICE_NAME_MAX];
		size_t len = (size_t)snprintf(name, sizeof(name), "%s/%s",
			result->services[i]->namespace, result->services[i]->name);
		if (strncmp(path, name, len) == 0 && (path[len] == '\0' || path[len] == '/' ||
							     path[len] == ':' || path[len] == ' '))
			return result->lines[i];
	}
	return 0;
}

static void add_findings(
	struct error *err, const struct error *found, const struct kube_result *result)
{
	for (uint32_t i = 0; i < found->n_items; i++) {
		const char *path = found->items[i].path ? found->items[i].path : "";
		const char *text = found->items[i].text ? found->items[i].text : "out of memory";
		error_add_line(err, EINVAL, line_find(result, path), path, "%s", text);
	}
	err->n_lost += found->n_lost;
}

static int put_services(struct control *control, const struct kube_result *result,
	struct error *err, uint32_t *out_n_changed)
{
	struct error found = { 0 };
	int rc = control_replace_owner(control, SERVICE_OWNER_FILE, result->services,
		result->n_services, out_n_changed, &found);
	if (rc && found.n_items == 0)
		error_add(&found, -rc, "", "refused: %s", strerror(-rc));
	if (rc)
		add_findings(err, &found, result);
	error_fini(&found);
	return rc;
}

// From path to services in force. Nothing changes on failure.
static int file_apply(struct control *control, const char *path, struct error *err)
{
	struct kube_result result = { 0 };
	uint32_t n_changed = 0;
	char *text = NULL;
	size_t len = 0;
	int rc = 0;
	if (path[0])
		rc = file_read(path, &text, &len, err);
	if (rc == 0 && path[0])
		rc = kube_decode_file(text, len, path, control_defaults(control), &result, err);
	free(text);
	if (rc == 0)
		rc = put_services(control, &result, err, &n_changed);
	if (rc == 0) {
		control_set_synced(control, SOURCE_NAME, true);
		control_note(control, LOG_LEVEL_INFO, "reload", path[0] ? path : "(no file)",
			"%u services, %u changed", result.n_services, n_changed);
	}
	kube_result_fini(&result);
	return rc;
}

static int file_try(struct control *control, const char *path, struct error *err)
{
	if (strlen(path) >= SOURCE_PATH_MAX)
		return error_add(err, ENAMETOOLONG, "", "path of %zu characters; allowed: %d",
			strlen(path), SOURCE_PATH_MAX - 1);
	return file_apply(control, path, err);
}

int source_file_create(
	struct control *control, const char *path, struct source_file **out, struct error *err)
{
	struct error found = { .file = path };
	struct source_file *source = calloc(1, sizeof(*source));
	int rc = source ? file_try(control, path, &found) : -ENOMEM;
	error_merge(err, &found, "");
	error_fini(&found);
	if (rc) {
		free(source);
		return rc;
	}
	source->control = control;
	snprintf(source->path, sizeof(source->path), "%s", path);
	*out = source;
	return 0;
}

int source_file_reload(struct source_file *source, const char *path, struct error *err)
{
	const char *from = path ? path : source->path;
	struct error found = { .file = from };
	char text[1200];
	int rc = file_try(source->control, from, &found);
	for (uint32_t i = 0; i < found.n_items; i++)
		log_write(control_log(source->control), LOG_LEVEL_ERROR, "services-file", "%s",
			error_format(&found, i, text, sizeof(text)));
	if (rc)
		control_note(source->control, LOG_LEVEL_ERROR, "reload-refused", from,
			"%u errors, the services in force stay; first: %s",
			found.n_items + found.n_lost, error_first(&found, text, sizeof(text)));
	else if (path)
		snprintf(source->path, sizeof(source->path), "%s", path);
	error_merge(err, &found, "");
	error_fini(&found);
	return rc;
}

const char *source_file_path(const struct source_file *source)
{
	return source->path;
}

void source_file_destroy(struct source_file *source)
{
	free(source);
}
