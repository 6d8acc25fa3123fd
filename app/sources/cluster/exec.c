// SPDX-License-Identifier: BSD-3-Clause
// A credential plugin: a program that prints an ExecCredential. It is spawned (no copy of this process's memory is made), with no
// descriptor but its own three, in a process group of its own, and read by the loop until it ends, is too slow or says too much.
#include "cluster_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXEC_OUT_MAX (1u << 20)
#define EXEC_ERR_MAX 1024 // of what it says on standard error; the rest is read and forgotten
#define EXEC_REAP_MS 10

extern char **environ;

struct cluster_exec {
	struct event_base *base;
	const struct kubeconfig *config;
	void (*done)(void *arg, struct cluster_exec_result *result, const char *why);
	void *arg;
	pid_t pid;
	int out_fd, err_fd;
	struct event *out_event, *err_event, *reap_timer, *limit_timer;
	char *out;
	size_t out_len, out_cap;
	char err[EXEC_ERR_MAX];
	size_t err_len;
	uint32_t timeout_ms;
	bool is_killed;
	bool is_too_long;
};

// ---------------------------------------------------------------- ExecCredential

void cluster_exec_result_fini(struct cluster_exec_result *result)
{
	free(result->token);
	free(result->cert);
	free(result->key);
	*result = (struct cluster_exec_result){ 0 };
}

// "2026-01-31T12:00:00Z", with a fraction, or with an offset "+02:00".
static int time_parse(const char *text, int64_t *out_ms)
{
	struct tm tm = { 0 };
	int hours = 0, minutes = 0;
	char sign = 'Z';
	const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	if (end == NULL)
		return -EINVAL;
	if (*end == '.')
		end += 1 + strspn(end + 1, "0123456789");
	int n = sscanf(end, "%c%2d:%2d", &sign, &hours, &minutes);
	if (!(n == 1 && (sign == 'Z' || sign == 'z')) && !(n == 3 && (sign == '+' || sign == '-')))
		return -EINVAL;
	int64_t offset_s = n == 3 ? (hours * 60 + minutes) * 60 : 0;
	*out_ms = ((int64_t)timegm(&tm) - (sign == '-' ? -offset_s : offset_s)) * 1000;
	return 0;
}

// A text of the status. false: there and not a text, or out of memory.
static bool take_text(const json_t *status, const char *name, char **out, char *why, size_t why_len)
{
	const json_t *value = json_object_get(status, name);
	if (value == NULL || json_is_null(value))
		return true;
	if (!json_is_string(value) ||
		strlen(json_string_value(value)) != json_string_length(value)) {
		snprintf(why, why_len, "status.%s is not a text", name);
		return false;
	}
	if (json_string_length(value) == 0)
		return true;
	*out = strdup(json_string_value(value));
	if (*out == NULL)
		snprintf(why, why_len, "out of memory");
	return *out != NULL;
}

static int status_decode(
	const json_t *status, struct cluster_exec_result *out, char *why, size_t why_len)
{
	const json_t *expires = json_object_get(status, "expirationTimestamp");
	if (!take_text(status, "token", &out->token, why, why_len) ||
		!take_text(status, "clientCertificateData", &out->cert, why, why_len) ||
		!take_text(status, "clientKeyData", &out->key, why, why_len))
		return -EINVAL;
	if (expires && !json_is_null(expires) &&
		(!json_is_string(expires) ||
			time_parse(json_string_value(expires), &out->expires_ms) != 0)) {
		snprintf(why, why_len, "status.expirationTimestamp is not an RFC 3339 time");
		return -EINVAL;
	}
	if (!out->cert != !out->key) {
		snprintf(why, why_len, "status has one of clientCertificateData and clientKeyData");
		return -EINVAL;
	}
	if (!out->token && !out->cert) {
		snprintf(why, why_len, "status has neither token nor clientCertificateData");
		return -EINVAL;
	}
	if (out->token && !kubeconfig_is_header_text(out->token)) {
		snprintf(why, why_len, "status.token is not printable ASCII without blanks");
		return -EINVAL;
	}
	return 0;
}

int cluster_exec_decode(const struct kubeconfig *k, const char *text, size_t len,
	struct cluster_exec_result *out, char *why, size_t why_len)
{
	struct cluster_exec_result result = { 0 };
	json_error_t error;
	json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
	const char *kind = json_string_value(json_object_get(root, "kind"));
	const char *version = json_string_value(json_object_get(root, "apiVersion"));
	int rc = -EINVAL;
	if (root == NULL)
		snprintf(why, why_len, "its output is not JSON: %s", error.text);
	else if (kind == NULL || strcmp(kind, "ExecCredential") != 0)
		snprintf(why, why_len, "its output is not an ExecCredential");
	else if (version == NULL || strcmp(version, k->exec->api_version) != 0)
		snprintf(why, why_len, "its output has apiVersion \"%.60s\"; allowed: \"%s\"",
			version ? version : "", k->exec->api_version);
	else if (!json_is_object(json_object_get(root, "status")))
		snprintf(why, why_len, "its output has no status");
	else
		rc = status_decode(json_object_get(root, "status"), &result, why, why_len);
	json_decref(root);
	if (rc == 0)
		*out = result;
	else
		cluster_exec_result_fini(&result);
	return rc;
}

static char *base64_encode(const char *bytes, size_t len)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *text = malloc((len + 2) / 3 * 4 + 1);
	size_t n = 0;
	for (size_t i = 0; text && i < len; i += 3) {
		size_t left = len - i;
		uint32_t word = (uint32_t)(uint8_t)bytes[i] << 16;
		word |= left > 1 ? (uint32_t)(uint8_t)bytes[i + 1] << 8 : 0;
		word |= left > 2 ? (uint32_t)(uint8_t)bytes[i + 2] : 0;
		text[n++] = digits[word >> 18];
		text[n++] = digits[word >> 12 & 63];
		text[n++] = left > 1 ? digits[word >> 6 & 63] : '=';
		text[n++] = left > 2 ? digits[word & 63] : '=';
	}
	if (text)
		text[n] = '\0';
	return text;
}

static json_t *cluster_to_json(const struct kubeconfig *k, const struct kubeconfig_blob *ca)
{
	json_t *cluster = json_pack("{s:s}", "server", k->server);
	if (cluster == NULL)
		return NULL;
	if (k->tls_server_name)
		json_object_set_new(cluster, "tls-server-name", json_string(k->tls_server_name));
	if (k->insecure)
		json_object_set_new(cluster, "insecure-skip-tls-verify", json_true());
	if (k->proxy_url)
		json_object_set_new(cluster, "proxy-url", json_string(k->proxy_url));
	if (k->exec_config)
		json_object_set(cluster, "config", k->exec_config);
	if (ca && ca->bytes) {
		char *text = base64_encode(ca->bytes, ca->len);
		json_object_set_new(
			cluster, "certificate-authority-data", text ? json_string(text) : NULL);
		free(text);
	}
	return cluster;
}

char *cluster_exec_question(const struct kubeconfig *k, const struct kubeconfig_blob *ca)
{
	json_t *spec = json_pack("{s:b}", "interactive", 0);
	if (spec && k->exec->provide_cluster_info)
		json_object_set_new(spec, "cluster", cluster_to_json(k, ca));
	json_t *root = json_pack("{s:s, s:s, s:o}", "kind", "ExecCredential", "apiVersion",
		k->exec->api_version, "spec", spec);
	char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	return text;
}

// ---------------------------------------------------------------- the run

static void exec_free(struct cluster_exec *x)
{
	struct event *events[] = { x->out_event, x->err_event, x->reap_timer, x->limit_timer };
	for (size_t i = 0; i < ARRAY_SIZE(events); i++)
		if (events[i])
			event_free(events[i]);
	if (x->out_fd >= 0)
		close(x->out_fd);
	if (x->err_fd >= 0)
		close(x->err_fd);
	free(x->out);
	free(x);
}

static void exec_kill(struct cluster_exec *x)
{
	if (x->pid > 0)
		kill(-x->pid, SIGKILL); // the group: what it started too
	x->is_killed = true;
}

// What it said on standard error, on one line, for the message.
static const char *exec_said(struct cluster_exec *x)
{
	while (x->err_len && (unsigned char)x->err[x->err_len - 1] <= ' ')
		x->err_len--;
	x->err[x->err_len] = '\0';
	for (size_t i = 0; i < x->err_len; i++)
		if ((unsigned char)x->err[i] < 0x20 || (unsigned char)x->err[i] > 0x7e)
			x->err[i] = ' ';
	return x->err;
}

static void exec_finish(struct cluster_exec *x, int status)
{
	struct cluster_exec_result result = { 0 };
	const struct kubeconfig_exec *exec = x->config->exec;
	char cause[300] = "", why[800];
	int rc = -EINVAL;
	if (x->is_too_long)
		snprintf(cause, sizeof(cause), "more than %u bytes of output", EXEC_OUT_MAX);
	else if (x->is_killed)
		snprintf(cause, sizeof(cause), "not ready after %u ms, killed", x->timeout_ms);
	else if (WIFSIGNALED(status))
		snprintf(cause, sizeof(cause), "ended by signal %d", WTERMSIG(status));
	else if (WEXITSTATUS(status) != 0)
		snprintf(cause, sizeof(cause), "exit code %d", WEXITSTATUS(status));
	else
		rc = cluster_exec_decode(
			x->config, x->out ? x->out : "", x->out_len, &result, cause, sizeof(cause));
	const char *said = exec_said(x);
	snprintf(why, sizeof(why), "%s: %s%s%.200s%s%.200s", exec->command, cause,
		said[0] ? ": " : "", said, exec->install_hint ? "; " : "",
		exec->install_hint ? exec->install_hint : "");
	x->done(x->arg, rc ? NULL : &result, rc ? why : "");
	cluster_exec_result_fini(&result); // what done did not take
	exec_free(x);
}

static void on_reap(evutil_socket_t fd, short what, void *arg)
{
	struct cluster_exec *x = arg;
	struct timeval soon = { .tv_usec = EXEC_REAP_MS * 1000 };
	int status = 0;
	pid_t pid = waitpid(x->pid, &status, WNOHANG);
	if (pid == 0 || (pid < 0 && errno == EINTR)) {
		evtimer_add(x->reap_timer, &soon);
		return;
	}
	if (pid < 0)
		status = 0; // reaped by somebody else: judge by the output
	x->pid = 0;
	exec_finish(x, status);
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
	struct cluster_exec *x = arg;
	struct timeval now = { 0 };
	exec_kill(x);
	evtimer_add(x->reap_timer, &now);
}

static void on_err(evutil_socket_t fd, short what, void *arg)
{
	struct cluster_exec *x = arg;
	char rest[512];
	size_t room = sizeof(x->err) - 1 - x->err_len;
	ssize_t n = room ? read(fd, x->err + x->err_len, room) : read(fd, rest, sizeof(rest));
	if (n > 0 && room)
		x->err_len += (size_t)n;
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		event_del(x->err_event);
}

static void on_out(evutil_socket_t fd, short what, void *arg)
{
	struct cluster_exec *x = arg;
	struct timeval now = { 0 };
	if (x->out_len == x->out_cap) {
		size_t cap = x->out_cap ? 2 * x->out_cap : 4096;
		char *out = x->out_cap <= EXEC_OUT_MAX ? realloc(x->out, cap) : NULL;
		x->is_too_long = out == NULL;
		if (out) {
			x->out = out;
			x->out_cap = cap;
		}
	}
	ssize_t n = x->is_too_long ? 0 : read(fd, x->out + x->out_len, x->out_cap - x->out_len);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		x->out_len += (size_t)n;
		if (x->out_len <= EXEC_OUT_MAX)
			return;
		x->is_too_long = true;
	}
	event_del(x->out_event);
	if (x->is_too_long)
		exec_kill(x);
	evtimer_add(x->reap_timer, &now);
}

// The environment of this process, the plugin's own variables, and what it is asked for. The texts belong to others but the
// last, *out_info.
static char **environment_of(
	const struct kubeconfig *k, const struct kubeconfig_blob *ca, struct arena *arena)
{
	size_t n = 0, at = 0;
	while (environ[n])
		n++;
	char **env = arena_alloc(arena, (n + k->exec->n_env + 2) * sizeof(*env), sizeof(*env));
	char *request = cluster_exec_question(k, ca);
	for (size_t i = 0; env && i < n; i++) {
		bool is_replaced = strncmp(environ[i], "KUBERNETES_EXEC_INFO=", 21) == 0;
		for (uint32_t j = 0; j < k->exec->n_env; j++) {
			size_t len = strlen(k->exec->env[j].name);
			is_replaced |= strncmp(environ[i], k->exec->env[j].name, len) == 0 &&
				       environ[i][len] == '=';
		}
		if (!is_replaced)
			env[at++] = environ[i];
	}
	for (uint32_t i = 0; env && request && i <= k->exec->n_env; i++) {
		bool is_last = i == k->exec->n_env;
		const char *name = is_last ? "KUBERNETES_EXEC_INFO" : k->exec->env[i].name;
		const char *value = is_last ? request : k->exec->env[i].value;
		size_t len = strlen(name) + strlen(value) + 2;
		env[at] = arena_alloc(arena, len, 1);
		if (env[at] == NULL)
			env = NULL;
		else
			snprintf(env[at++], len, "%s=%s", name, value);
	}
	if (request == NULL)
		env = NULL;
	free(request);
	return env;
}

static int spawn(struct cluster_exec *x, const struct kubeconfig_blob *ca, const int fds[2])
{
	const struct kubeconfig_exec *exec = x->config->exec;
	char *argv[KUBECONFIG_LIST_MAX + 2] = { (char *)exec->command };
	struct arena arena = { 0 };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none, all;
	char **env = environment_of(x->config, ca, &arena);
	if (env == NULL) {
		arena_fini(&arena);
		return ENOMEM;
	}
	for (uint32_t i = 0; i < exec->n_args; i++)
		argv[i + 1] = (char *)exec->args[i];
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, fds[0], 1);
	posix_spawn_file_actions_adddup2(&actions, fds[1], 2);
	posix_spawn_file_actions_addclosefrom_np(&actions, 3);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes,
		POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	int rc = posix_spawnp(&x->pid, exec->command, &actions, &attributes, argv, env);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	arena_fini(&arena);
	return rc;
}

static int exec_watch(struct cluster_exec *x)
{
	struct timeval limit = { x->timeout_ms / 1000, x->timeout_ms % 1000 * 1000 };
	x->out_event = event_new(x->base, x->out_fd, EV_READ | EV_PERSIST, on_out, x);
	x->err_event = event_new(x->base, x->err_fd, EV_READ | EV_PERSIST, on_err, x);
	x->reap_timer = evtimer_new(x->base, on_reap, x);
	x->limit_timer = evtimer_new(x->base, on_limit, x);
	if (!x->out_event || !x->err_event || !x->reap_timer || !x->limit_timer)
		return -ENOMEM;
	event_add(x->out_event, NULL);
	event_add(x->err_event, NULL);
	evtimer_add(x->limit_timer, &limit);
	return 0;
}

// Both ends of a pipe: ours does not block.
static int pipe_open(int *out_read, int *out_write)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) != 0)
		return -errno;
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	*out_read = fds[0];
	*out_write = fds[1];
	return 0;
}

struct cluster_exec *cluster_exec_run(struct event_base *base, const struct kubeconfig *k,
	const struct kubeconfig_blob *ca, uint32_t timeout_ms,
	void (*done)(void *arg, struct cluster_exec_result *result, const char *why), void *arg,
	char *why, size_t why_len)
{
	int theirs[2] = { -1, -1 };
	struct cluster_exec *x = calloc(1, sizeof(*x));
	if (x == NULL) {
		snprintf(why, why_len, "out of memory");
		return NULL;
	}
	*x = (struct cluster_exec){ .base = base,
		.config = k,
		.done = done,
		.arg = arg,
		.out_fd = -1,
		.err_fd = -1,
		.timeout_ms = timeout_ms };
	int rc = pipe_open(&x->out_fd, &theirs[0]);
	if (rc == 0)
		rc = pipe_open(&x->err_fd, &theirs[1]);
	if (rc == 0)
		rc = -spawn(x, ca, theirs);
	for (int i = 0; i < 2; i++)
		if (theirs[i] >= 0)
			close(theirs[i]);
	if (rc == 0)
		rc = exec_watch(x);
	if (rc == 0)
		return x;
	snprintf(why, why_len, "%s cannot be run: %s%s%s", k->exec->command, strerror(-rc),
		k->exec->install_hint ? "; " : "",
		k->exec->install_hint ? k->exec->install_hint : "");
	cluster_exec_cancel(x);
	return NULL;
}

void cluster_exec_cancel(struct cluster_exec *x)
{
	exec_kill(x);
	if (x->pid > 0)
		waitpid(x->pid, NULL, 0); // just killed: at once
	exec_free(x);
}
