// SPDX-License-Identifier: BSD-3-Clause
// The keys of a kubeconfig's maps and how each value is taken.
#include "kubeconfig_rows_priv.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "net.h"

// ---------------------------------------------------------------- saying what is wrong

static void vsay(
	struct error *err, const struct tree *node, const char *path, const char *fmt, va_list ap)
{
	char text[900];
	vsnprintf(text, sizeof(text), fmt, ap);
	error_add_line(err, EINVAL, node ? node->line : 0, path, "%s", text);
}

void kubeconfig_refuse(struct kubeconfig_reader *r, const struct tree *node, const char *path,
	const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsay(r->err, node, path, fmt, ap);
	va_end(ap);
}

static const struct tree *place_of(
	const struct tree *map, const char *path, const char *key, char out[KUBECONFIG_PATH_MAX])
{
	const struct tree *own = tree_find(map, key);
	snprintf(out, KUBECONFIG_PATH_MAX, "%s%s%s", path, path[0] && key[0] ? "." : "", key);
	return own ? own : map;
}

void kubeconfig_refuse_under(struct kubeconfig_reader *r, const struct tree *node, const char *path,
	const char *key, const char *fmt, ...)
{
	char whole[KUBECONFIG_PATH_MAX];
	va_list ap;
	va_start(ap, fmt);
	vsay(r->err, place_of(node, path, key, whole), whole, fmt, ap);
	va_end(ap);
}

void kubeconfig_warn_under(struct kubeconfig_reader *r, const struct tree *node, const char *path,
	const char *key, const char *fmt, ...)
{
	char whole[KUBECONFIG_PATH_MAX];
	va_list ap;
	va_start(ap, fmt);
	vsay(r->warnings, place_of(node, path, key, whole), whole, fmt, ap);
	va_end(ap);
}

void kubeconfig_warn_unknown(struct kubeconfig_reader *r, const struct tree *map, const char *path,
	const char *const *keys)
{
	size_t n = 0;
	while (keys[n])
		n++;
	for (const struct tree *node = map->first; node; node = node->next) {
		size_t i = 0;
		while (i < n && strcmp(keys[i], node->key) != 0)
			i++;
		if (i < n)
			continue;
		const char *nearest = error_nearest(node->key, keys, n);
		kubeconfig_warn_under(r, map, path, node->key, "unknown key, not heeded%s%s%s",
			nearest ? ", did you mean \"" : "", nearest ? nearest : "",
			nearest ? "\"?" : "");
	}
}

// ---------------------------------------------------------------- one value each

bool kubeconfig_is_header_text(const char *text)
{
	const char *c = text;
	while (*c > 0x20 && *c < 0x7f)
		c++;
	return *c == '\0' && c > text;
}

static bool is_text(struct kubeconfig_reader *r, const struct tree *node, const char *path)
{
	if (node->kind == TREE_TEXT && node->text[0])
		return true;
	kubeconfig_refuse(r, node, path, "%s; allowed: a text that is not empty",
		node->kind == TREE_TEXT ? "\"\"" : tree_kind_name(node));
	return false;
}

static void take_text(
	struct kubeconfig_reader *r, const struct tree *node, const char *path, void *field)
{
	if (is_text(r, node, path))
		*(const char **)field = node->text;
}

// What goes into a header or a URL.
static void take_word(
	struct kubeconfig_reader *r, const struct tree *node, const char *path, void *field)
{
	if (!is_text(r, node, path))
		return;
	if (kubeconfig_is_header_text(node->text))
		*(const char **)field = node->text;
	else
		kubeconfig_refuse(r, node, path,
			"a blank, control character or non-ASCII letter inside; allowed: printable "
			"ASCII");
}

// A line of a header: blanks inside are fine (names of users).
static void take_line(
	struct kubeconfig_reader *r, const struct tree *node, const char *path, void *field)
{
	if (!is_text(r, node, path))
		return;
	for (const char *c = node->text; *c; c++) {
		if (*c >= 0x20 && *c < 0x7f)
			continue;
		kubeconfig_refuse(r, node, path,
			"a control character or non-ASCII letter inside; allowed: printable ASCII");
		return;
	}
	*(const char **)field = node->text;
}

static void take_bool(
	struct kubeconfig_reader *r, const struct tree *node, const char *path, void *field)
{
	bool is_true = node->kind == TREE_TEXT && node->is_plain && !strcasecmp(node->text, "true");
	bool is_false =
		node->kind == TREE_TEXT && node->is_plain && !strcasecmp(node->text, "false");
	if (is_true || is_false)
		*(bool *)field = is_true;
	else
		kubeconfig_refuse(r, node, path, "%s%.60s%s; allowed: true or false",
			node->kind == TREE_TEXT ? "\"" : "",
			node->kind == TREE_TEXT ? node->text : tree_kind_name(node),
			node->kind == TREE_TEXT ? "\"" : "");
}

// Looked at and not needed.
static void take_nothing(
	struct kubeconfig_reader *r, const struct tree *node, const char *path, void *field)
{
}

static void take_unsupported(
	struct kubeconfig_reader *r, const struct tree *node, const char *path, void *field)
{
	kubeconfig_refuse(r, node, path,
		"not supported; allowed: token, tokenFile, client-certificate, username, exec");
}

// Relative to the folder of the kubeconfig. A name without slash too, unless it is a command.
static const char *path_of(struct kubeconfig_reader *r, const char *text)
{
	const char *slash = strrchr(r->out->path, '/');
	if (text[0] == '/' || slash == NULL)
		return text;
	size_t len = (size_t)(slash + 1 - r->out->path);
	char *whole = arena_alloc(&r->out->arena, len + strlen(text) + 1, 1);
	if (whole == NULL) {
		r->is_out_of_memory = true;
		return text;
	}
	memcpy(whole, r->out->path, len);
	memcpy(whole + len, text, strlen(text));
	return whole;
}

static void take_path(
	struct kubeconfig_reader *r, const struct tree *node, const char *path, void *field)
{
	if (is_text(r, node, path))
		*(const char **)field = path_of(r, node->text);
}

static int base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

char *kubeconfig_base64(struct arena *arena, const char *text, size_t *out_len)
{
	uint8_t *bytes = arena_alloc(arena, strlen(text) / 4 * 3 + 4, 1);
	uint32_t word = 0, n_digits = 0, n_pads = 0;
	size_t len = 0;
	if (bytes == NULL)
		return NULL;
	for (const char *c = text; *c; c++) {
		if (isspace((unsigned char)*c))
			continue;
		int value = *c == '=' ? 0 : base64_value(*c);
		n_pads += *c == '=';
		if (value < 0 || (n_pads && *c != '=') || n_pads > 2)
			return NULL;
		word = word << 6 | (uint32_t)value;
		if (++n_digits % 4)
			continue;
		bytes[len++] = (uint8_t)(word >> 16);
		bytes[len++] = (uint8_t)(word >> 8);
		bytes[len++] = (uint8_t)word;
	}
	if (n_digits % 4 || len < n_pads)
		return NULL;
	len -= n_pads;
	bytes[len] = 0;
	*out_len = len;
	return (char *)bytes;
}

static void take_base64(
	struct kubeconfig_reader *r, const struct tree *node, const char *path, void *field)
{
	struct kubeconfig_blob *blob = field;
	if (!is_text(r, node, path))
		return;
	size_t len = 0;
	char *bytes = kubeconfig_base64(&r->out->arena, node->text, &len);
	if (bytes == NULL || memmem(bytes, len, "-----BEGIN ", 11) == NULL) {
		kubeconfig_refuse(r, node, path, "%s; allowed: PEM in base64",
			bytes ? "no PEM in it" : "not base64");
		return;
	}
	blob->bytes = bytes;
	blob->len = len;
}

static void take_server_text(
	struct kubeconfig_reader *r, const struct tree *node, const char *path, void *field)
{
	take_word(r, node, path, &r->server);
	if (r->server == NULL)
		r->server = ""; // said already, not missing
}

static void take_proxy(
	struct kubeconfig_reader *r, const struct tree *node, const char *path, void *field)
{
	static const char *const schemes[] = { "http://", "https://", "socks5://", "socks5h://" };
	const char *text = NULL;
	take_word(r, node, path, &text);
	if (text == NULL)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
		size_t len = strlen(schemes[i]);
		if (strncmp(text, schemes[i], len) == 0 && text[len] && text[len] != '/' &&
			!strpbrk(text + len, "?#\\")) {
			*(const char **)field = text;
			return;
		}
	}
	kubeconfig_refuse(r, node, path,
		"\"%.100s\"; allowed: a URL as \"http://192.0.2.1:3128\", schemes http, https, "
		"socks5, "
		"socks5h",
		text);
}

// ---------------------------------------------------------------- lists

static void take_groups(
	struct kubeconfig_reader *r, const struct tree *node, const char *path, void *field)
{
	struct kubeconfig *k = r->out;
	if (node->kind != TREE_LIST || node->n_nodes > KUBECONFIG_LIST_MAX) {
		kubeconfig_refuse(r, node, path, "%u entries; allowed: a list of at most %d texts",
			node->n_nodes, KUBECONFIG_LIST_MAX);
		return;
	}
	for (const struct tree *item = node->first; item; item = item->next) {
		k->as_groups[k->n_as_groups] = NULL;
		take_line(r, item, path, &k->as_groups[k->n_as_groups]);
		k->n_as_groups += k->as_groups[k->n_as_groups] != NULL;
	}
}

// Names become part of a header's name, so anything else than a token is escaped as %XX there, lower case.
static const char *extra_name(struct kubeconfig_reader *r, const char *text)
{
	char *name = arena_alloc(&r->out->arena, 3 * strlen(text) + 1, 1);
	size_t n = 0;
	if (name == NULL) {
		r->is_out_of_memory = true;
		return text;
	}
	for (const char *c = text; *c; c++) {
		if (isalnum((unsigned char)*c) || strchr("!#$&'*+-.^_`|~", *c))
			name[n++] = *c;
		else
			n += (size_t)sprintf(name + n, "%%%02X", (unsigned char)*c);
	}
	return name;
}

static void take_extra_values(
	struct kubeconfig_reader *r, const struct tree *list, const char *path, const char *name)
{
	struct kubeconfig *k = r->out;
	for (const struct tree *item = list->first; item; item = item->next) {
		const char *value = NULL;
		if (k->n_as_extra == KUBECONFIG_LIST_MAX) {
			kubeconfig_refuse(r, item, path, "too many values; allowed: %d in all",
				KUBECONFIG_LIST_MAX);
			return;
		}
		take_line(r, item, path, &value);
		if (value)
			k->as_extra[k->n_as_extra++] = (struct kubeconfig_pair){ name, value };
	}
}

static void take_extra(
	struct kubeconfig_reader *r, const struct tree *node, const char *path, void *field)
{
	if (node->kind != TREE_MAP) {
		kubeconfig_refuse(r, node, path, "%s; allowed: a map of lists of texts",
			tree_kind_name(node));
		return;
	}
	for (const struct tree *list = node->first; list; list = list->next) {
		char whole[KUBECONFIG_PATH_MAX];
		snprintf(whole, sizeof(whole), "%s[\"%.60s\"]", path, list->key);
		if (list->kind == TREE_LIST && list->key[0])
			take_extra_values(r, list, whole, extra_name(r, list->key));
		else
			kubeconfig_refuse(r, list, whole, "%s; allowed: a list of texts",
				tree_kind_name(list));
	}
}

// ---------------------------------------------------------------- exec

static void take_args(
	struct kubeconfig_reader *r, const struct tree *node, const char *path, void *field)
{
	struct kubeconfig_exec *exec = field;
	if (node->kind != TREE_LIST || node->n_nodes > KUBECONFIG_LIST_MAX) {
		kubeconfig_refuse(r, node, path, "%u entries; allowed: a list of at most %d texts",
			node->n_nodes, KUBECONFIG_LIST_MAX);
		return;
	}
	for (const struct tree *item = node->first; item; item = item->next) {
		if (item->kind == TREE_LIST || item->kind == TREE_MAP)
			kubeconfig_refuse(
				r, item, path, "%s; allowed: a text", tree_kind_name(item));
		else
			exec->args[exec->n_args++] = item->text ? item->text : "";
	}
}

static void take_env_pair(struct kubeconfig_reader *r, const struct tree *item, const char *path,
	struct kubeconfig_exec *exec)
{
	const struct tree *name = tree_find(item, "name"), *value = tree_find(item, "value");
	bool has_name =
		name && name->kind == TREE_TEXT && name->text[0] && !strchr(name->text, '=');
	if (!has_name || (value && value->kind != TREE_TEXT)) {
		kubeconfig_refuse(r, item, path,
			"allowed: { name, value }, a name without = that is not empty, a text");
		return;
	}
	exec->env[exec->n_env++] = (struct kubeconfig_pair){ name->text, value ? value->text : "" };
}

static void take_env(
	struct kubeconfig_reader *r, const struct tree *node, const char *path, void *field)
{
	uint32_t idx = 0;
	if (node->kind != TREE_LIST || node->n_nodes > KUBECONFIG_LIST_MAX) {
		kubeconfig_refuse(r, node, path,
			"%u entries; allowed: a list of at most %d { name, value }", node->n_nodes,
			KUBECONFIG_LIST_MAX);
		return;
	}
	for (const struct tree *item = node->first; item; item = item->next) {
		char whole[KUBECONFIG_PATH_MAX];
		snprintf(whole, sizeof(whole), "%s[%u]", path, idx++);
		take_env_pair(r, item, whole, field);
	}
}

static void take_command(
	struct kubeconfig_reader *r, const struct tree *node, const char *path, void *field)
{
	if (is_text(r, node, path))
		*(const char **)field =
			strchr(node->text, '/') ? path_of(r, node->text) : node->text;
}

#define EXEC_FIELD(member) offsetof(struct kubeconfig_exec, member)
static const struct kubeconfig_row exec_rows[] = {
	{ "apiVersion", take_text, EXEC_FIELD(api_version) },
	{ "command", take_command, EXEC_FIELD(command) },
	{ "args", take_args, 0 },
	{ "env", take_env, 0 },
	{ "installHint", take_text, EXEC_FIELD(install_hint) },
	{ "interactiveMode", take_text, EXEC_FIELD(interactive_mode) },
	{ "provideClusterInfo", take_bool, EXEC_FIELD(provide_cluster_info) },
	{ NULL },
};

static void check_mode(struct kubeconfig_reader *r, const struct tree *node, const char *path,
	const struct kubeconfig_exec *exec)
{
	const char *mode = exec->interactive_mode;
	bool is_v1 = exec->api_version &&
		     strcmp(exec->api_version, "client.authentication.k8s.io/v1") == 0;
	if (mode == NULL && is_v1 && tree_find(node, "interactiveMode") == NULL)
		kubeconfig_refuse_under(r, node, path, "interactiveMode",
			"missing; allowed with v1: \"Never\" or \"IfAvailable\"");
	if (mode == NULL || strcmp(mode, "Never") == 0 || strcmp(mode, "IfAvailable") == 0)
		return;
	kubeconfig_refuse_under(r, node, path, "interactiveMode",
		strcmp(mode, "Always") == 0
			? "\"%.60s\" wants a terminal, which a daemon has not; allowed: \"Never\", "
			  "\"IfAvailable\""
			: "\"%.60s\"; allowed: \"Never\", \"IfAvailable\"",
		mode);
}

static void take_exec(
	struct kubeconfig_reader *r, const struct tree *node, const char *path, void *field)
{
	static const char *const versions[] = { "client.authentication.k8s.io/v1",
		"client.authentication.k8s.io/v1beta1" };
	struct kubeconfig_exec *exec =
		arena_alloc(&r->out->arena, sizeof(*exec), _Alignof(struct kubeconfig_exec));
	if (exec == NULL) {
		r->is_out_of_memory = true;
		return;
	}
	if (node->kind != TREE_MAP) {
		kubeconfig_refuse(r, node, path, "%s; allowed: a map", tree_kind_name(node));
		return;
	}
	kubeconfig_decode_map(r, node, path, exec_rows, exec);
	if (exec->command == NULL && tree_find(node, "command") == NULL)
		kubeconfig_refuse_under(
			r, node, path, "command", "missing; allowed: a path, or a name in PATH");
	if (exec->api_version == NULL && tree_find(node, "apiVersion") == NULL)
		kubeconfig_refuse_under(r, node, path, "apiVersion",
			"missing; allowed: \"%s\", \"%s\"", versions[0], versions[1]);
	else if (exec->api_version && strcmp(exec->api_version, versions[0]) != 0 &&
		 strcmp(exec->api_version, versions[1]) != 0)
		kubeconfig_refuse_under(r, node, path, "apiVersion",
			"\"%.60s\"; allowed: \"%s\", \"%s\"", exec->api_version, versions[0],
			versions[1]);
	check_mode(r, node, path, exec);
	*(struct kubeconfig_exec **)field = exec;
}

// The extension of the cluster that is meant for the plugin.
static void take_extensions(
	struct kubeconfig_reader *r, const struct tree *node, const char *path, void *field)
{
	for (const struct tree *item = node->kind == TREE_LIST ? node->first : NULL; item;
		item = item->next) {
		const struct tree *name = tree_find(item, "name");
		const struct tree *value = tree_find(item, "extension");
		if (name == NULL || value == NULL || name->kind != TREE_TEXT ||
			strcmp(name->text, "client.authentication.k8s.io/exec") != 0)
			continue;
		json_decref(*(json_t **)field);
		*(json_t **)field = tree_to_json(value);
		r->is_out_of_memory |= *(json_t **)field == NULL;
	}
}

// ---------------------------------------------------------------- the maps

#define FIELD(member) offsetof(struct kubeconfig, member)

const struct kubeconfig_row kubeconfig_context_rows[] = {
	{ "cluster", take_text, FIELD(cluster) },
	{ "user", take_text, FIELD(user) },
	{ "namespace", take_text, FIELD(namespace) },
	{ "extensions", take_nothing, 0 },
	{ NULL },
};

const struct kubeconfig_row kubeconfig_cluster_rows[] = {
	{ "server", take_server_text, 0 },
	{ "tls-server-name", take_word, FIELD(tls_server_name) },
	{ "insecure-skip-tls-verify", take_bool, FIELD(insecure) },
	{ "certificate-authority", take_path, FIELD(ca.path) },
	{ "certificate-authority-data", take_base64, FIELD(ca) },
	{ "proxy-url", take_proxy, FIELD(proxy_url) },
	{ "disable-compression", take_nothing, 0 },
	{ "extensions", take_extensions, FIELD(exec_config) },
	{ NULL },
};

const struct kubeconfig_row kubeconfig_user_rows[] = {
	{ "client-certificate", take_path, FIELD(cert.path) },
	{ "client-certificate-data", take_base64, FIELD(cert) },
	{ "client-key", take_path, FIELD(key.path) },
	{ "client-key-data", take_base64, FIELD(key) },
	{ "token", take_word, FIELD(token) },
	{ "tokenFile", take_path, FIELD(token_path) },
	{ "username", take_line, FIELD(username) },
	{ "password", take_text, FIELD(password) },
	{ "as", take_line, FIELD(as) },
	{ "as-uid", take_line, FIELD(as_uid) },
	{ "as-groups", take_groups, 0 },
	{ "as-user-extra", take_extra, 0 },
	{ "auth-provider", take_unsupported, 0 },
	{ "exec", take_exec, FIELD(exec) },
	{ "extensions", take_nothing, 0 },
	{ NULL },
};

static const struct kubeconfig_row *row_find(const struct kubeconfig_row *rows, const char *name)
{
	while (rows->name && strcmp(rows->name, name) != 0)
		rows++;
	return rows->name ? rows : NULL;
}

void kubeconfig_decode_map(struct kubeconfig_reader *r, const struct tree *map, const char *path,
	const struct kubeconfig_row *rows, void *record)
{
	const char *keys[32] = { NULL };
	size_t n = 0;
	if (map->kind != TREE_MAP) {
		kubeconfig_refuse(r, map, path, "%s; allowed: a map", tree_kind_name(map));
		return;
	}
	for (const struct kubeconfig_row *row = rows; row->name; row++)
		keys[n++] = row->name;
	for (const struct tree *node = map->first; node; node = node->next) {
		char whole[KUBECONFIG_PATH_MAX];
		const struct kubeconfig_row *row = row_find(rows, node->key);
		snprintf(whole, sizeof(whole), "%s.%s", path, node->key);
		if (row && node->kind != TREE_NULL)
			row->take(r, node, whole, (char *)record + row->offset);
	}
	kubeconfig_warn_unknown(r, map, path, keys);
}

// ---------------------------------------------------------------- the server

static bool host_valid(const char *host, bool is_bracketed)
{
	struct address a;
	if (is_bracketed)
		return address_parse(host, &a) == 0 && strchr(host, ':');
	size_t len = strlen(host);
	return len > 0 && len <= 253 &&
	       host[strspn(host,
		       "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")] ==
		       '\0';
}

static bool port_parse(const char *text, size_t len, uint16_t *out)
{
	if (len == 0 || len > 5 || strspn(text, "0123456789") < len)
		return false;
	unsigned long port = strtoul(text, NULL, 10);
	*out = (uint16_t)port;
	return port >= 1 && port <= 65535;
}

// "host:port", "[v6]:port" or without port, up to `end`.
static bool authority_parse(struct kubeconfig *k, const char *text, const char *end, char host[256])
{
	bool is_bracketed = text[0] == '[';
	const char *from = text + is_bracketed;
	const char *to = from + strcspn(from, is_bracketed ? "]" : ":/");
	if (to > end || to - from > 253 || (is_bracketed && *to != ']'))
		return false;
	memcpy(host, from, (size_t)(to - from));
	host[to - from] = '\0';
	to += is_bracketed;
	k->port = k->is_https ? 443 : 80;
	if (to < end && (*to != ':' || !port_parse(to + 1, (size_t)(end - to - 1), &k->port)))
		return false;
	return host_valid(host, is_bracketed);
}

static bool server_parse(struct kubeconfig_reader *r, const char *url)
{
	struct kubeconfig *k = r->out;
	struct address a;
	char host[256], whole[2048], prefix[1024];
	k->is_https = strncasecmp(url, "https://", 8) == 0;
	if (!k->is_https && strncasecmp(url, "http://", 7) != 0)
		return false;
	const char *text = url + (k->is_https ? 8 : 7);
	const char *end = text + strcspn(text, "/?#@");
	size_t len = strlen(end);
	while (len > 0 && end[len - 1] == '/')
		len--;
	if (strpbrk(end, "?#@\\\"<>") || strstr(end, "..") || len >= sizeof(prefix) ||
		!authority_parse(k, text, end, host))
		return false;
	snprintf(prefix, sizeof(prefix), "%.*s", (int)len, end);
	bool is_v6 = strchr(host, ':') != NULL;
	snprintf(whole, sizeof(whole), "http%s://%s%s%s:%u%s", k->is_https ? "s" : "",
		is_v6 ? "[" : "", host, is_v6 ? "]" : "", k->port, prefix);
	r->is_loopback = strcasecmp(host, "localhost") == 0 ||
			 (address_parse(host, &a) == 0 &&
				 (address_is_v4(&a) ? a.bytes[12] == 127 : !strcmp(host, "::1")));
	k->host = arena_strdup(&k->arena, host);
	k->prefix = arena_strdup(&k->arena, prefix);
	k->server = arena_strdup(&k->arena, whole);
	r->is_out_of_memory |= !k->host || !k->prefix || !k->server;
	return true;
}

void kubeconfig_take_server(struct kubeconfig_reader *r, const char *url)
{
	if (url[0] == '\0' || server_parse(r, url))
		return;
	kubeconfig_refuse_under(r, r->cluster.node, r->cluster.path, "server",
		"\"%.100s\"; allowed: a URL as \"https://192.0.2.1:6443\" with scheme https or "
		"http, a "
		"host, a port of 1..65535 and a path at most",
		url);
}
