// SPDX-License-Identifier: BSD-3-Clause
// Verbs that change something (drain, undrain, weight, release, apply, delete, reload), and explain, which asks.
#include "ctl_priv.h"

#include <ctype.h>
#include <stdlib.h>
#include <unistd.h>

// ---------------------------------------------------------------- which backend
struct choice {
	char namespace[64], name[64];
	struct address address;
	uint16_t port;
	char text[ADDRESS_TEXT_LEN];
	const char *rest; // the word after, for weight
};

// With no service named: the one that has this backend.
static int service_of(struct ctl *ctl, struct choice *choice)
{
	struct ctl_path path = path_make("/api/v1/backends");
	int code;
	path_query(&path, "address", choice->text);
	path_query(&path, "limit", "1000");
	json_t *tree = ctl_get(ctl, &path, 0, &code);
	if (tree == NULL)
		return code;
	const json_t *items = json_object_get(tree, "items");
	const char *found = "";
	for (size_t i = 0; i < json_array_size(items) && code == CTL_OK; i++) {
		const char *service = json_str(json_array_get(items, i), "service");
		if (found[0] && strcmp(found, service) != 0)
			code = ctl_error(CTL_USAGE, "this backend serves more than one service",
				service, "sluicectl VERB NS/NAME ADDRESS");
		found = service;
	}
	if (found[0] == 0)
		code = ctl_error(CTL_NOT_FOUND, "no service has this backend", choice->text,
			"sluicectl get backends");
	else if (code == CTL_OK && !service_split(found, choice->namespace, choice->name))
		code = CTL_FAILURE;
	json_decref(tree);
	return code;
}

// [backend] [SERVICE] ADDRESS[:PORT] [REST], in either order of service and address.
static int choose(struct ctl *ctl, struct choice *choice, bool has_rest)
{
	const char *service = ctl->service;
	bool have_address = false;
	uint32_t n = ctl->n_words - has_rest, i = 0;
	*choice = (struct choice){ .rest = has_rest ? ctl->words[n] : NULL };
	if (n > 1 && strcmp(ctl->words[0], "backend") == 0)
		i++;
	for (; i < n; i++) {
		if (!have_address && endpoint_split(ctl->words[i], &choice->address, &choice->port))
			have_address = true;
		else if (service == NULL)
			service = ctl->words[i];
		else
			return ctl_error(CTL_USAGE, "one service and one ADDRESS[:PORT]",
				ctl->words[i], "sluicectl help drain");
	}
	if (!have_address)
		return ctl_error(CTL_USAGE, "a backend is ADDRESS or ADDRESS:PORT ([...] for IPv6)",
			n ? ctl->words[n - 1] : "", "sluicectl get backends");
	address_format(&choice->address, choice->text);
	if (service == NULL)
		return service_of(ctl, choice);
	if (!service_split(service, choice->namespace, choice->name))
		return ctl_error(CTL_USAGE, "a service is NAMESPACE/NAME", service, NULL);
	return CTL_OK;
}

static struct ctl_path backend_path(
	struct ctl *ctl, const struct choice *choice, const char *action)
{
	struct ctl_path path = path_make("/api/v1/services");
	char port[8];
	path_segment(&path, choice->namespace);
	path_segment(&path, choice->name);
	path_segment(&path, "backends");
	path_segment(&path, choice->text);
	if (action)
		path_segment(&path, action);
	snprintf(port, sizeof(port), "%u", choice->port);
	path_query(&path, "port", choice->port ? port : NULL);
	if (ctl->dry_run)
		path_query(&path, "dryRun", "true");
	return path;
}

static int act(struct ctl *ctl, const char *method, const struct ctl_path *path, json_t *body,
	json_t **out)
{
	struct ctl_answer answer;
	int code = ctl_request(ctl, method, path, body, &answer);
	json_decref(body);
	*out = code == CTL_OK ? json_incref(answer.json) : NULL;
	answer_fini(&answer);
	return code;
}

static void tell_backends(struct ctl *ctl, const json_t *tree)
{
	char endpoint[64];
	if (output_tree(ctl, tree))
		return;
	const json_t *items = json_object_get(tree, "items");
	for (size_t i = 0; i < json_array_size(items); i++) {
		const json_t *b = json_array_get(items, i);
		print_safe(stdout, json_str(b, "service"));
		printf(" ");
		print_safe(stdout, endpoint_text(b, "address", "port", endpoint));
		printf(" ");
		print_safe(stdout, json_str(b, "state"));
		printf("  weight %lld  flows %lld%s\n", (long long)json_int(b, "weight"),
			(long long)json_int(b, "flows"), ctl->dry_run ? "  (dry run)" : "");
	}
}

// ---------------------------------------------------------------- drain
static json_int_t flows_left(const json_t *tree)
{
	const json_t *items = json_object_get(tree, "items");
	json_int_t n = 0;
	for (size_t i = 0; i < json_array_size(items); i++)
		n += json_int(json_array_get(items, i), "flows");
	return n;
}

static int drain_wait(struct ctl *ctl, const struct choice *choice)
{
	uint64_t timeout_ns = 600 * CLOCK_S;
	struct clock clock = clock_monotonic();
	uint64_t start_ns = clock_now_ns(&clock);
	struct ctl_path path = backend_path(ctl, choice, NULL);
	if (ctl->timeout)
		clock_parse_duration(ctl->timeout, &timeout_ns);
	for (json_int_t last = -1;; usleep(200000)) {
		int code;
		json_t *tree = ctl_get(ctl, &path, 0, &code);
		if (tree == NULL)
			return code;
		json_int_t left = flows_left(tree);
		json_decref(tree);
		if (left != last)
			fprintf(stderr, "%lld flows left\n", (long long)left);
		last = left;
		if (left == 0)
			return CTL_OK;
		if (clock_now_ns(&clock) - start_ns >= timeout_ns)
			return ctl_error(CTL_TIMEOUT, "flows are left", "the drain goes on",
				"the same again, or --deadline TIME --on-deadline reset");
	}
}

// Draining the last backend that takes new flows is asked about, on a terminal.
static int drain_confirm(struct ctl *ctl, const struct choice *choice)
{
	struct ctl_path path = path_make("/api/v1/services");
	int code, n_other = 0;
	path_segment(&path, choice->namespace);
	path_segment(&path, choice->name);
	path_segment(&path, "backends");
	json_t *tree = ctl_get(ctl, &path, 0, &code);
	if (tree == NULL)
		return code;
	const json_t *items = json_object_get(tree, "items");
	for (size_t i = 0; i < json_array_size(items); i++) {
		const json_t *b = json_array_get(items, i);
		const char *address = json_str(b, "address");
		bool is_v6 = strchr(address, ':') != NULL;
		bool same_family = is_v6 != address_is_v4(&choice->address);
		n_other += same_family && strcmp(address, choice->text) != 0 &&
			   json_is_true(json_object_get(b, "eligible"));
	}
	json_decref(tree);
	if (n_other > 0 || ctl->yes || ctl->dry_run)
		return CTL_OK;
	fprintf(stderr, "warning: %s/%s has no other backend of this family that takes new flows\n",
		choice->namespace, choice->name);
	if (!isatty(0))
		return CTL_OK;
	fprintf(stderr, "Drain it all the same? [y/N] ");
	int c = getchar();
	return c == 'y' || c == 'Y' ? CTL_OK : CTL_FAILURE;
}

int verb_drain(struct ctl *ctl)
{
	struct choice choice;
	uint64_t ns;
	json_t *tree;
	if (ctl->timeout && clock_parse_duration(ctl->timeout, &ns) != 0)
		return ctl_error(
			CTL_USAGE, "--timeout: a duration such as 10m", ctl->timeout, NULL);
	int code = choose(ctl, &choice, false);
	if (code == CTL_OK)
		code = drain_confirm(ctl, &choice);
	if (code != CTL_OK)
		return code;
	json_t *body = json_object();
	if (ctl->deadline)
		json_object_set_new(body, "deadline", json_string(ctl->deadline));
	if (ctl->on_deadline)
		json_object_set_new(body, "onDeadline", json_string(ctl->on_deadline));
	if (ctl->reason)
		json_object_set_new(body, "reason", json_string(ctl->reason));
	struct ctl_path path = backend_path(ctl, &choice, "drain");
	code = act(ctl, "POST", &path, body, &tree);
	if (code != CTL_OK)
		return code;
	tell_backends(ctl, tree);
	json_decref(tree);
	return ctl->wait && !ctl->dry_run ? drain_wait(ctl, &choice) : CTL_OK;
}

static int act_on_backend(struct ctl *ctl, const char *method, const struct choice *choice,
	const char *action, json_t *body)
{
	json_t *tree;
	struct ctl_path path = backend_path(ctl, choice, action);
	int code = act(ctl, method, &path, body, &tree);
	if (code != CTL_OK)
		return code;
	tell_backends(ctl, tree);
	json_decref(tree);
	return CTL_OK;
}

int verb_undrain(struct ctl *ctl)
{
	struct choice choice;
	int code = choose(ctl, &choice, false);
	return code == CTL_OK ? act_on_backend(ctl, "POST", &choice, "undrain", NULL) : code;
}

int verb_weight(struct ctl *ctl)
{
	struct choice choice;
	int code = choose(ctl, &choice, true);
	if (code != CTL_OK)
		return code;
	json_t *weight = json_null();
	if (strcmp(choice.rest, "default") != 0) {
		char *end;
		long n = strtol(choice.rest, &end, 10);
		if (*end || end == choice.rest || n < 0 || n > 65535)
			return ctl_error(
				CTL_USAGE, "a weight is 0..65535, or default", choice.rest, NULL);
		weight = json_integer(n);
	}
	return act_on_backend(ctl, "PATCH", &choice, NULL, json_pack("{s:o}", "weight", weight));
}

// ---------------------------------------------------------------- explain
static void explanation_print(const json_t *tree)
{
	const json_t *steps = json_object_get(tree, "steps");
	for (size_t i = 0; i < json_array_size(steps); i++) {
		const json_t *s = json_array_get(steps, i);
		printf("%2lld %-10s ", (long long)json_int(s, "step"), json_str(s, "name"));
		print_safe(stdout, json_str(s, "text"));
		printf("\n");
	}
	printf("verdict: ");
	for (const char *c = json_str(tree, "verdict"); *c; c++)
		fputc(toupper((unsigned char)*c), stdout);
	const char *names[] = { "reason", "service", "backend" };
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (json_str(tree, names[i])[0] == 0)
			continue;
		printf("  %s ", names[i]);
		print_safe(stdout, json_str(tree, names[i]));
	}
	printf("  (worker w%lld)\n", (long long)json_int(tree, "worker"));
	if (json_str(tree, "meaning")[0]) {
		printf("meaning: ");
		print_safe(stdout, json_str(tree, "meaning"));
		printf("\n");
	}
	if (json_str(tree, "fix")[0]) {
		printf("look at: ");
		print_safe(stdout, json_str(tree, "fix"));
		printf("\n");
	}
}

int verb_explain(struct ctl *ctl)
{
	struct address src, dst;
	uint16_t src_port, dst_port;
	char a[ADDRESS_TEXT_LEN], b[ADDRESS_TEXT_LEN];
	json_t *tree;
	if (!endpoint_split(ctl->words[1], &src, &src_port))
		return ctl_error(CTL_USAGE, "the source is ADDRESS:PORT ([...] for IPv6)",
			ctl->words[1], NULL);
	if (!endpoint_split(ctl->words[2], &dst, &dst_port))
		return ctl_error(CTL_USAGE, "the destination is ADDRESS:PORT ([...] for IPv6)",
			ctl->words[2], NULL);
	json_t *body = json_pack("{s:s, s:s, s:i, s:s, s:i}", "protocol", ctl->words[0], "source",
		address_format(&src, a), "sourcePort", (int)src_port, "destination",
		address_format(&dst, b), "destinationPort", (int)dst_port);
	if (ctl->flags)
		json_object_set_new(body, "flags", json_string(ctl->flags));
	struct ctl_path path = path_make("/api/v1/explain");
	int code = act(ctl, "POST", &path, body, &tree);
	if (code != CTL_OK)
		return code;
	if (!output_tree(ctl, tree))
		explanation_print(tree);
	json_decref(tree);
	return CTL_OK;
}

// ---------------------------------------------------------------- apply, delete
static json_t *file_load(const char *file)
{
	json_error_t why;
	char cause[512];
	json_t *tree = strcmp(file, "-") == 0 ? json_loadf(stdin, JSON_REJECT_DUPLICATES, &why)
					      : json_load_file(file, JSON_REJECT_DUPLICATES, &why);
	if (tree == NULL) {
		snprintf(
			cause, sizeof(cause), "%s:%d:%d: %s", file, why.line, why.column, why.text);
		ctl_error(CTL_FAILURE, "the file is not JSON", cause, NULL);
	}
	return tree;
}

// One service, an array, or {"items": []}: an array of them. Takes tree.
static json_t *services_of(json_t *tree)
{
	json_t *items = json_is_array(tree) ? tree : json_object_get(tree, "items");
	json_t *list = json_is_array(items) ? json_incref(items) : json_pack("[O]", tree);
	json_decref(tree);
	return list;
}

static int each_of_file(struct ctl *ctl, int (*fn)(struct ctl *ctl, json_t *service))
{
	json_t *tree = ctl->file ? file_load(ctl->file) : NULL;
	int code = CTL_OK;
	if (ctl->file == NULL)
		return ctl_error(CTL_USAGE, "-f FILE is needed", NULL, "sluicectl help apply");
	if (tree == NULL)
		return CTL_FAILURE;
	json_t *services = services_of(tree);
	for (size_t i = 0; i < json_array_size(services); i++) {
		int one = fn(ctl, json_array_get(services, i));
		code = code == CTL_OK ? one : code; // go on: every refusal is told
	}
	json_decref(services);
	return code;
}

static int service_path(struct ctl *ctl, const json_t *metadata, struct ctl_path *path)
{
	const char *namespace = json_str(metadata, "namespace"), *name = json_str(metadata, "name");
	if (name[0] == 0)
		return ctl_error(CTL_FAILURE, "a service without metadata.name", NULL, NULL);
	*path = path_make("/api/v1/services");
	path_segment(path, namespace[0] ? namespace : "default");
	path_segment(path, name);
	if (ctl->dry_run)
		path_query(path, "dryRun", "true");
	return CTL_OK;
}

static int apply_one(struct ctl *ctl, json_t *service)
{
	struct ctl_path path;
	struct ctl_answer answer;
	const json_t *metadata = json_object_get(service, "metadata");
	int code = service_path(ctl, metadata, &path);
	if (code != CTL_OK)
		return code;
	code = ctl_request(ctl, "PUT", &path, service, &answer);
	if (code == CTL_OK && !output_tree(ctl, answer.json)) {
		printf("service ");
		print_safe(stdout, json_str(json_at(answer.json, "metadata"), "namespace"));
		printf("/");
		print_safe(stdout, json_str(metadata, "name"));
		printf(" %s%s\n", answer.status == 201 ? "created" : "configured",
			ctl->dry_run ? " (dry run)" : "");
	}
	answer_fini(&answer);
	return code;
}

int verb_apply(struct ctl *ctl)
{
	return each_of_file(ctl, apply_one);
}

static int delete_one(struct ctl *ctl, json_t *service)
{
	struct ctl_path path;
	json_t *tree;
	const json_t *metadata = json_object_get(service, "metadata");
	int code = service_path(ctl, metadata, &path);
	if (code == CTL_OK)
		code = act(ctl, "DELETE", &path, NULL, &tree);
	if (code != CTL_OK)
		return code;
	json_decref(tree);
	printf("service ");
	print_safe(stdout, json_str(metadata, "namespace"));
	printf("/");
	print_safe(stdout, json_str(metadata, "name"));
	printf(" deleted%s\n", ctl->dry_run ? " (dry run)" : "");
	return CTL_OK;
}

int verb_delete(struct ctl *ctl)
{
	char namespace[64], name[64];
	if (ctl->n_words == 0)
		return each_of_file(ctl, delete_one);
	const char *word = ctl->words[ctl->n_words - 1];
	if ((ctl->n_words == 2 && strncmp(ctl->words[0], "service", 7) != 0) ||
		!service_split(word, namespace, name))
		return ctl_error(CTL_USAGE, "a service is NAMESPACE/NAME", word, NULL);
	json_t *service =
		json_pack("{s:{s:s, s:s}}", "metadata", "namespace", namespace, "name", name);
	int code = delete_one(ctl, service);
	json_decref(service);
	return code;
}

int verb_release(struct ctl *ctl)
{
	char namespace[64], name[64];
	const char *word = ctl->words[ctl->n_words - 1];
	json_t *tree;
	if ((ctl->n_words == 2 && strncmp(ctl->words[0], "service", 7) != 0) ||
		!service_split(word, namespace, name))
		return ctl_error(CTL_USAGE, "a service is NAMESPACE/NAME", word, NULL);
	struct ctl_path path = path_make("/api/v1/services");
	path_segment(&path, namespace);
	path_segment(&path, name);
	path_segment(&path, "release");
	int code = act(ctl, "POST", &path, NULL, &tree);
	if (code != CTL_OK)
		return code;
	json_decref(tree);
	printf("service %s/%s: its backends are as its source says\n", namespace, name);
	return CTL_OK;
}

int verb_reload(struct ctl *ctl)
{
	struct ctl_path path = path_make("/api/v1/config/reload");
	json_t *tree;
	int code = act(ctl, "POST", &path, NULL, &tree);
	if (code != CTL_OK)
		return code;
	if (!output_tree(ctl, tree))
		printf("reloaded: generation %lld\n", (long long)json_int(tree, "generation"));
	json_decref(tree);
	return CTL_OK;
}
