// SPDX-License-Identifier: BSD-3-Clause
// Loading, printing and comparing the configuration; the rows are in settings_table.c.
#include "settings_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void settings_defaults(struct settings *out)
{
	memset(out, 0, sizeof(*out));
	schema_set_defaults(settings_table, out);
}

// What follows from other keys.
static void settings_complete(struct settings *s)
{
	for (uint32_t i = 0; i < s->n_ports; i++)
		if (s->ports[i].twin[0] == '\0')
			memcpy(s->ports[i].twin, s->ports[i].name, sizeof(s->ports[i].twin));
}

static int settings_decode(const char *text, size_t len, struct settings *out, struct error *err)
{
	struct schema_lines lines = { 0 };
	settings_defaults(out);
	int rc = schema_read_config(settings_table, text, len, out, &lines, err);
	settings_complete(out);
	if (!settings_cross_check(out, &lines, err))
		rc = -EINVAL;
	schema_lines_fini(&lines);
	return rc;
}

int settings_load_text(const char *text, size_t len, const char *file_name, struct settings *out,
	struct error *err)
{
	struct error own = { .file = file_name };
	int rc = -ENOMEM;
	if (len > SETTINGS_FILE_MAX) {
		rc = error_add(
			&own, EFBIG, "", "%zu bytes; allowed: at most %u", len, SETTINGS_FILE_MAX);
	} else {
		struct settings *draft = malloc(sizeof(*draft));
		rc = draft ? settings_decode(text, len, draft, &own)
			   : error_add(&own, ENOMEM, "", "out of memory");
		if (rc == 0)
			*out = *draft;
		free(draft);
	}
	error_merge(err, &own, "");
	error_fini(&own);
	return rc;
}

// Reads to the end, for a configuration may come from a pipe. One byte over the limit is enough to be refused.
static int file_read(int fd, char *buf, size_t cap, size_t *out_len)
{
	size_t len = 0;
	while (len < cap) {
		ssize_t n = read(fd, buf + len, cap - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	*out_len = len;
	return 0;
}

int settings_load(const char *path, struct settings *out, struct error *err)
{
	struct error own = { .file = path };
	size_t len = 0;
	char *text = malloc(SETTINGS_FILE_MAX + 1);
	int fd = text ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	int rc = text ? 0 : -ENOMEM;
	if (text && fd < 0)
		rc = -errno;
	if (fd >= 0)
		rc = file_read(fd, text, SETTINGS_FILE_MAX + 1, &len);
	if (rc)
		error_add(&own, -rc, "", "cannot be read: %s", strerror(-rc));
	else
		rc = settings_load_text(text, len, path, out, &own);
	if (fd >= 0)
		close(fd);
	free(text);
	error_merge(err, &own, "");
	error_fini(&own);
	return rc;
}

void settings_fini(struct settings *settings)
{
}

static const char sample_head[] =
	"# SPDX-License-Identifier: BSD-3-Clause\n"
	"# Configuration of sluiced, /etc/sluice/sluice.conf (libconfig). Every key with its "
	"default;\n"
	"# a key that is left out has it. `live`: a reload (SIGHUP) takes a change; `restart`: the "
	"next\n"
	"# start does, and the reload says so. Times and sizes are quoted, with a unit. A file "
	"with any\n"
	"# error is refused whole: `sluiced --check --config FILE` lists every one.\n"
	"# This text is `sluiced --print-default-config`.\n\n";

void settings_print_default(FILE *file)
{
	struct settings *s = malloc(sizeof(*s));
	if (s == NULL)
		return;
	settings_defaults(s);
	// Two keys have no default that could serve; the sample shows an example of each.
	const struct schema_field *ports = settings_table;
	schema_set_defaults(ports->fields, &s->ports[0]);
	s->n_ports = 1;
	settings_complete(s);
	if (address_parse("192.0.2.1", &s->snat.addresses[0]) == 0 &&
		address_parse("2001:db8::1", &s->snat.addresses[1]) == 0)
		s->snat.n_addresses = 2;
	fputs(sample_head, file);
	schema_print(settings_table, s, true, file);
	free(s);
}

void settings_print(const struct settings *settings, FILE *file)
{
	schema_print(settings_table, settings, false, file);
}

json_t *settings_to_json(const struct settings *settings)
{
	return schema_to_json(settings_table, settings);
}

struct settings_differ {
	void (*fn)(void *arg, const struct settings_change *change);
	void *arg;
};

static void differ_pass(void *arg, const struct schema_change *change)
{
	const struct settings_differ *differ = arg;
	struct settings_change out = { change->path, change->old_text, change->new_text,
		change->live };
	if (differ->fn)
		differ->fn(differ->arg, &out);
}

uint32_t settings_diff(const struct settings *old_settings, const struct settings *new_settings,
	void (*fn)(void *arg, const struct settings_change *change), void *arg)
{
	struct settings_differ differ = { fn, arg };
	return schema_diff(settings_table, old_settings, new_settings, differ_pass, &differ);
}
