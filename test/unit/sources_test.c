// SPDX-License-Identifier: BSD-3-Clause
// The file source against a stand-in for control: what it puts in force, what it keeps, what it says.
#include "edits_priv.h"
#include "sources.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

// ---------------------------------------------------------------- stand-in for control

struct control {
	struct service_defaults defaults;
	struct log log;
	struct service_store *store;
	bool synced;
	uint32_t n_replaced;
	char notes[4096];
};

const struct service_defaults *control_defaults(const struct control *c)
{
	return &c->defaults;
}

const struct log *control_log(struct control *c)
{
	return &c->log;
}

void control_set_synced(struct control *c, const char *source, bool synced)
{
	assert_string_equal(source, "file");
	c->synced = synced;
}

int control_replace_owner(struct control *c, enum service_owner owner,
	struct service *const *services, uint32_t n_services, uint32_t *out_n_changed,
	struct error *err)
{
	assert_int_equal(owner, SERVICE_OWNER_FILE);
	c->n_replaced++;
	return service_store_replace_owner(
		c->store, owner, services, n_services, out_n_changed, err);
}

void control_note(struct control *c, enum log_level level, const char *kind, const char *object,
	const char *fmt, ...)
{
	size_t len = strlen(c->notes);
	va_list ap;
	len += (size_t)snprintf(c->notes + len, sizeof(c->notes) - len, "%s ", kind);
	va_start(ap, fmt);
	vsnprintf(c->notes + len, sizeof(c->notes) - len, fmt, ap);
	va_end(ap);
}

// ---------------------------------------------------------------- the tests

struct rig {
	struct control control;
	char path[64];
	char log_path[64];
};

static int rig_setup(void **state)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	assert_non_null(rig);
	snprintf(rig->path, sizeof(rig->path), "/tmp/sluice-sources-XXXXXX");
	snprintf(rig->log_path, sizeof(rig->log_path), "/tmp/sluice-sources-XXXXXX");
	int fd = mkstemp(rig->path);
	assert_true(fd >= 0);
	close(fd);
	rig->control.defaults = service_defaults_builtin();
	rig->control.store = service_store_create();
	rig->control.log = (struct log){ mkstemp(rig->log_path), LOG_LEVEL_INFO, LOG_TEXT };
	assert_true(rig->control.log.fd >= 0);
	*state = rig;
	return 0;
}

static int rig_teardown(void **state)
{
	struct rig *rig = *state;
	unlink(rig->path);
	unlink(rig->log_path);
	close(rig->control.log.fd);
	service_store_destroy(rig->control.store);
	free(rig);
	return 0;
}

static void write_file(const struct rig *rig, const char *text)
{
	FILE *file = fopen(rig->path, "wb");
	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
	fclose(file);
}

static uint32_t log_lines(const struct rig *rig)
{
	FILE *file = fopen(rig->log_path, "rb");
	uint32_t n = 0;
	assert_non_null(file);
	for (int c; (c = fgetc(file)) != EOF;)
		n += c == '\n';
	fclose(file);
	return n;
}

#define SERVICE(name, ip)                                                            \
	"{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"" name \
	"\"},\"spec\":{\"type\":\"LoadBalancer\",\"loadBalancerIP\":\"" ip           \
	"\",\"ports\":[{\"port\":80}]}}"

static void test_good(void **state)
{
	struct rig *rig = *state;
	struct source_file *source = NULL;
	struct error err = { 0 };
	write_file(rig, "[" SERVICE("a", "203.0.113.1") "]");
	rig->control.defaults.check.rise = 9;
	assert_int_equal(source_file_create(&rig->control, rig->path, &source, &err), 0);
	assert_true(rig->control.synced);
	assert_string_equal(source_file_path(source), rig->path);
	const struct service *a = service_store_find(rig->control.store, "default", "a");
	assert_non_null(a);
	assert_int_equal(a->check.rise, 9); // of control's defaults
	write_file(rig, "[" SERVICE("a", "203.0.113.1") ",\n" SERVICE("b", "203.0.113.2") "]");
	assert_int_equal(source_file_reload(source, NULL, &err), 0);
	assert_int_equal(service_store_count(rig->control.store), 2);
	assert_string_equal(
		rig->control.notes, "reload 1 services, 1 changedreload 2 services, 1 changed");
	assert_int_equal(source_file_reload(source, "", &err), 0); // no file any more
	assert_int_equal(service_store_count(rig->control.store), 0);
	assert_string_equal(source_file_path(source), "");
	source_file_destroy(source);
}

static void test_none(void **state)
{
	struct rig *rig = *state;
	struct source_file *source = NULL;
	assert_int_equal(source_file_create(&rig->control, "", &source, NULL), 0);
	assert_true(rig->control.synced);
	assert_int_equal(service_store_count(rig->control.store), 0);
	source_file_destroy(source);
}

static void test_bad_start(void **state)
{
	struct rig *rig = *state;
	struct source_file *source = (struct source_file *)rig;
	struct error err = { 0 };
	assert_int_equal(
		source_file_create(&rig->control, "/nonexistent/x", &source, &err), -ENOENT);
	assert_string_equal(err.items[0].file, "/nonexistent/x");
	assert_int_equal(source_file_create(&rig->control, "/tmp", &source, &err), -EINVAL);
	write_file(rig, "[\n5]");
	assert_int_equal(source_file_create(&rig->control, rig->path, &source, &err), -EINVAL);
	assert_int_equal(err.items[2].line, 2);
	assert_ptr_equal(source, rig);
	assert_false(rig->control.synced);
	assert_int_equal(rig->control.n_replaced, 0);
	error_fini(&err);
	unlink(rig->path); // a pipe must not hold the loop
	assert_int_equal(mkfifo(rig->path, 0600), 0);
	assert_int_equal(source_file_create(&rig->control, rig->path, &source, &err), -EINVAL);
	assert_non_null(strstr(err.items[0].text, "allowed: a regular file"));
	error_fini(&err);
}

static void test_refused_reload(void **state)
{
	struct rig *rig = *state;
	struct source_file *source = NULL;
	struct error err = { 0 };
	write_file(rig, "[" SERVICE("a", "203.0.113.1") "]");
	assert_int_equal(source_file_create(&rig->control, rig->path, &source, &err), 0);
	uint64_t generation = service_store_generation(rig->control.store);
	rig->control.notes[0] = '\0';
	write_file(rig, "[" SERVICE("a", "203.0.113.300") ",\n" SERVICE("B", "203.0.113.2") "]");
	assert_int_equal(source_file_reload(source, NULL, &err), -EINVAL);
	assert_int_equal(err.n_items, 2);
	assert_int_equal(log_lines(rig), 2); // every finding
	assert_int_equal(service_store_generation(rig->control.store), generation);
	assert_non_null(strstr(rig->control.notes,
		"reload-refused 2 errors, the services in force stay; first: "));
	assert_true(rig->control.synced);
	// Another path that is bad: the old one stays.
	assert_int_equal(source_file_reload(source, "/nonexistent/x", NULL), -ENOENT);
	assert_string_equal(source_file_path(source), rig->path);
	error_fini(&err);
	source_file_destroy(source);
}

// What only the store sees has the line of the object too.
static void test_conflict(void **state)
{
	struct rig *rig = *state;
	struct source_file *source = NULL;
	struct error err = { 0 };
	write_file(rig, "[\n" SERVICE("a", "203.0.113.1") ",\n\n" SERVICE("b", "203.0.113.1") "]");
	assert_true(source_file_create(&rig->control, rig->path, &source, &err) < 0);
	assert_true(err.n_items > 0);
	assert_int_equal(err.items[0].line, 4);
	assert_string_equal(err.items[0].file, rig->path);
	assert_int_equal(strncmp(err.items[0].path, "default/b", 9), 0);
	assert_int_equal(service_store_count(rig->control.store), 0);
	error_fini(&err);
}

int main(void)
{
#define WITH_RIG(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)
	const struct CMUnitTest tests[] = {
		WITH_RIG(test_good),
		WITH_RIG(test_none),
		WITH_RIG(test_bad_start),
		WITH_RIG(test_refused_reload),
		WITH_RIG(test_conflict),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
