// SPDX-License-Identifier: BSD-3-Clause
// Requests to the daemon over its UNIX socket or HTTP, and how a refusal is told: what, cause, what to try.
// A daemon that is not there is noticed within a second.
#include "ctl_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define ANSWER_MAX (256u << 20)

// ---------------------------------------------------------------- paths
struct ctl_path path_make(const char *start)
{
	struct ctl_path path = { 0 };
	path.n = (size_t)snprintf(path.text, sizeof(path.text), "%s", start);
	return path;
}

static void path_escape(struct ctl_path *path, const char *text)
{
	static const char plain[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:";
	for (; *text && path->n + 4 < sizeof(path->text); text++) {
		if (strchr(plain, *text)) {
			path->text[path->n++] = *text;
			path->text[path->n] = 0;
		} else {
			path->n += (size_t)snprintf(path->text + path->n,
				sizeof(path->text) - path->n, "%%%02X", (unsigned char)*text);
		}
	}
}

void path_segment(struct ctl_path *path, const char *segment)
{
	if (path->n + 2 >= sizeof(path->text))
		return;
	path->text[path->n++] = '/';
	path->text[path->n] = 0;
	path_escape(path, segment);
}

void path_query(struct ctl_path *path, const char *name, const char *value)
{
	if (value == NULL || path->n + strlen(name) + 3 >= sizeof(path->text))
		return;
	path->n += (size_t)snprintf(path->text + path->n, sizeof(path->text) - path->n,
		"%c%s=", path->has_query ? '&' : '?', name);
	path->has_query = true;
	path_escape(path, value);
}

// ---------------------------------------------------------------- errors
int ctl_error(int code, const char *what, const char *cause, const char *try_this)
{
	fprintf(stderr, "error: ");
	print_safe(stderr, what);
	if (cause && cause[0]) {
		fprintf(stderr, "\n  cause: ");
		print_safe(stderr, cause);
	}
	if (try_this && try_this[0]) {
		fprintf(stderr, "\n  try: ");
		print_safe(stderr, try_this);
	}
	fprintf(stderr, "\n");
	return code;
}

static const struct {
	const char *code;
	const char *try_this;
} remedies[] = {
	{ "not-found", "sluicectl get services; sluicectl get backends" },
	{ "owned-by-other", "change it at its source (the services file or the cluster)" },
	{ "address-in-use", "sluicectl get services, and choose another address or port" },
	{ "already-exists", "sluicectl apply -f FILE replaces it" },
	{ "precondition-failed", "read it again, then change it" },
	{ "unauthorized", "SLUICE_TOKEN_FILE=FILE with a token of the server's tokens file" },
	{ "forbidden", "root, a member of the socket's group, or a token with a higher role" },
	{ "back-off", "wait, then use the right token" },
	{ "unavailable", "sluicectl status, and again in a moment" },
	{ "worker-timeout", "sluicectl get workers: does its heartbeat move?" },
	{ "conflict", "undrain or weight with the ADDRESS alone" },
	{ "list-changed", "the same command again" },
};

static int exit_of_status(long status)
{
	if (status == 404)
		return CTL_NOT_FOUND;
	if (status == 409 || status == 412)
		return CTL_CONFLICT;
	if (status == 504)
		return CTL_TIMEOUT;
	return CTL_FAILURE;
}

static void print_finding(const json_t *finding)
{
	fprintf(stderr, "  cause: ");
	const char *pointer = json_str(finding, "pointer");
	if (pointer[0]) {
		print_safe(stderr, pointer);
		fprintf(stderr, ": ");
	}
	print_safe(stderr, json_str(finding, "detail"));
	const json_t *allowed = json_object_get(finding, "allowed");
	for (size_t i = 0; i < json_array_size(allowed); i++) {
		fprintf(stderr, "%s", i ? ", " : " (allowed: ");
		print_safe(stderr, json_string_value(json_array_get(allowed, i)));
	}
	fprintf(stderr, "%s\n", json_array_size(allowed) ? ")" : "");
}

static int refusal_print(const struct ctl_answer *answer)
{
	const char *detail = json_str(answer->json, "detail");
	const char *code = json_str(answer->json, "code");
	const json_t *findings = json_object_get(answer->json, "errors");
	fprintf(stderr, "error: ");
	print_safe(stderr, detail[0] ? detail : "the server refused");
	fprintf(stderr, " (%ld%s", answer->status, code[0] ? " " : "");
	print_safe(stderr, code);
	fprintf(stderr, ")\n");
	for (size_t i = 0; i < json_array_size(findings); i++)
		print_finding(json_array_get(findings, i));
	for (size_t i = 0; i < ARRAY_SIZE(remedies); i++) {
		if (strcmp(code, remedies[i].code) == 0)
			fprintf(stderr, "  try: %s\n", remedies[i].try_this);
	}
	return exit_of_status(answer->status);
}

// ---------------------------------------------------------------- transport
static size_t body_take(char *piece, size_t size, size_t n, void *arg)
{
	struct ctl_answer *answer = arg;
	size_t len = size * n;
	if (len > ANSWER_MAX - answer->n_text)
		return 0;
	char *grown = realloc(answer->text, answer->n_text + len + 1);
	if (grown == NULL)
		return 0;
	memcpy(grown + answer->n_text, piece, len);
	answer->text = grown;
	answer->n_text += len;
	grown[answer->n_text] = 0;
	return len;
}

static const char *socket_path(const char *server)
{
	if (strncmp(server, "unix:", 5) == 0)
		server += strncmp(server + 5, "//", 2) == 0 ? 7 : 5;
	return server[0] == '/' ? server : NULL;
}

static const char *server_name(const struct ctl *ctl)
{
	const char *server = ctl->server ? ctl->server : getenv("SLUICE_SERVER");
	return server && server[0] ? server : CTL_DEFAULT;
}

static int unreachable(const struct ctl *ctl, const char *why)
{
	char what[512], cause[256];
	const char *server = server_name(ctl);
	const char *path = socket_path(server);
	struct stat st;
	snprintf(what, sizeof(what), "cannot reach sluiced at %s", server);
	snprintf(cause, sizeof(cause), "%s", why);
	if (path && stat(path, &st) != 0)
		snprintf(cause, sizeof(cause), "%s: %s", path, strerror(errno));
	else if (path && access(path, W_OK) != 0)
		snprintf(cause, sizeof(cause), "%s: %s", path, strerror(errno));
	bool denied = path && access(path, F_OK) == 0 && access(path, W_OK) != 0;
	if (ctl->quiet)
		return CTL_UNREACHABLE;
	return ctl_error(CTL_UNREACHABLE, what, cause,
		denied ? "as root, or as a member of the socket's group"
		       : "systemctl status sluiced; or --server PATH|URL; sluicectl doctor works "
			 "without it");
}

static int token_header(struct curl_slist **headers)
{
	const char *file = getenv("SLUICE_TOKEN_FILE");
	if (file == NULL || file[0] == 0)
		return 0;
	char token[512], line[600];
	FILE *f = fopen(file, "re");
	if (f == NULL || fgets(token, sizeof(token), f) == NULL) {
		char cause[512];
		snprintf(cause, sizeof(cause), "%s: %s", file, f ? "empty" : strerror(errno));
		if (f)
			fclose(f);
		return ctl_error(CTL_FAILURE, "the token cannot be read", cause, "");
	}
	fclose(f);
	token[strcspn(token, " \t\r\n")] = 0;
	snprintf(line, sizeof(line), "Authorization: Bearer %s", token);
	*headers = curl_slist_append(*headers, line);
	return 0;
}

static void curl_prepare(
	struct ctl *ctl, const char *method, const char *path, struct curl_slist *headers)
{
	char url[4096];
	const char *server = server_name(ctl);
	const char *socket = socket_path(server);
	if (ctl->curl == NULL)
		ctl->curl = curl_easy_init();
	else
		curl_easy_reset(ctl->curl);
	snprintf(url, sizeof(url), "%s%s", socket ? "http://localhost" : server, path);
	curl_easy_setopt(ctl->curl, CURLOPT_URL, url);
	if (socket)
		curl_easy_setopt(ctl->curl, CURLOPT_UNIX_SOCKET_PATH, socket);
	curl_easy_setopt(ctl->curl, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(ctl->curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(ctl->curl, CURLOPT_CONNECTTIMEOUT_MS, 1000L);
	curl_easy_setopt(ctl->curl, CURLOPT_TIMEOUT_MS, 60000L);
	curl_easy_setopt(ctl->curl, CURLOPT_LOW_SPEED_LIMIT, 1L); // a daemon that is stopped
	curl_easy_setopt(ctl->curl, CURLOPT_LOW_SPEED_TIME, 5L);
	curl_easy_setopt(ctl->curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(ctl->curl, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(ctl->curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(ctl->curl, CURLOPT_WRITEFUNCTION, body_take);
	if (ctl->verbose)
		fprintf(stderr, "> %s %s%s\n", method, server, path);
}

int ctl_request(struct ctl *ctl, const char *method, const struct ctl_path *path,
	const json_t *body, struct ctl_answer *out)
{
	struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
	*out = (struct ctl_answer){ 0 };
	int code = token_header(&headers);
	if (code != 0) {
		curl_slist_free_all(headers);
		return code;
	}
	char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	if (text)
		headers = curl_slist_append(headers,
			strcmp(method, "PATCH") == 0 ? "Content-Type: application/merge-patch+json"
						     : "Content-Type: application/json");
	curl_prepare(ctl, method, path->text, headers);
	curl_easy_setopt(ctl->curl, CURLOPT_WRITEDATA, out);
	if (text)
		curl_easy_setopt(ctl->curl, CURLOPT_POSTFIELDS, text);
	CURLcode rc = curl_easy_perform(ctl->curl);
	curl_easy_getinfo(ctl->curl, CURLINFO_RESPONSE_CODE, &out->status);
	curl_slist_free_all(headers);
	free(text);
	if (ctl->verbose)
		fprintf(stderr, "< %ld, %zu bytes\n", out->status, out->n_text);
	if (rc != CURLE_OK && out->status == 0)
		return unreachable(ctl, curl_easy_strerror(rc));
	if (rc != CURLE_OK)
		return ctl_error(rc == CURLE_OPERATION_TIMEDOUT ? CTL_TIMEOUT : CTL_FAILURE,
			"the answer did not come whole", curl_easy_strerror(rc), "");
	if (out->text)
		out->json = json_loadb(out->text, out->n_text, JSON_DECODE_ANY, NULL);
	if (out->status < 400)
		return CTL_OK;
	return ctl->quiet ? exit_of_status(out->status) : refusal_print(out);
}

void answer_fini(struct ctl_answer *answer)
{
	json_decref(answer->json);
	free(answer->text);
	*answer = (struct ctl_answer){ 0 };
}

void client_fini(struct ctl *ctl)
{
	if (ctl->curl)
		curl_easy_cleanup(ctl->curl);
}

json_t *ctl_get(struct ctl *ctl, const struct ctl_path *path, uint64_t limit, int *out_code)
{
	json_t *all = NULL;
	char token[1100] = "";
	for (;;) {
		struct ctl_path page = *path;
		struct ctl_answer answer;
		if (token[0])
			path_query(&page, "continue", token);
		*out_code = ctl_request(ctl, "GET", &page, NULL, &answer);
		if (*out_code == CTL_OK && !json_is_object(answer.json))
			*out_code = ctl_error(CTL_FAILURE, "the answer is not JSON", page.text,
				"is this the address of a sluiced?");
		if (*out_code != CTL_OK) {
			answer_fini(&answer);
			json_decref(all);
			return NULL;
		}
		json_t *items = json_object_get(answer.json, "items");
		const char *next = json_str(json_object_get(answer.json, "metadata"), "continue");
		snprintf(token, sizeof(token), "%s", next);
		json_t *first = all ? json_object_get(all, "items") : items;
		if (all) {
			json_array_extend(first, items);
			json_object_set(all, "metadata", json_object_get(answer.json, "metadata"));
		} else {
			all = json_incref(answer.json);
		}
		answer_fini(&answer);
		if (token[0] == 0 || (limit && json_array_size(first) >= limit))
			return all;
	}
}
