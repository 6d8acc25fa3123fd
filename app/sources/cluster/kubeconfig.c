// SPDX-License-Identifier: BSD-3-Clause
// A kubeconfig: from the tree of the file to one cluster and one user, checked as client-go checks them, and more: whatever would
// fail later at the first request is refused here, with its line. Each map of the file is a table of the keys it may have.
#include "kubeconfig_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kubeconfig_rows_priv.h"
#include "net.h"
#include "tree_priv.h"

#define READ_MORE         4096
#define IN_CLUSTER_FOLDER "/var/run/secrets/kubernetes.io/serviceaccount"

// ---------------------------------------------------------------- choosing

// The entry of a list of { name, <what> }; *out_path is its place. NULL: none of that name (said).
static const struct tree *entry_find(struct kubeconfig_reader *r, const char *list_name,
	const char *what, const char *name, char path[KUBECONFIG_PATH_MAX])
{
	const struct tree *list = tree_find(r->root, list_name);
	const struct tree *found = NULL;
	char names[400] = "";
	uint32_t idx = 0;
	size_t n = 0;
	if (list && list->kind != TREE_LIST) {
		kubeconfig_refuse(r, list, list_name, "%s; allowed: a list of { name, %s }",
			tree_kind_name(list), what);
		return NULL;
	}
	for (const struct tree *item = list ? list->first : NULL; item; item = item->next, idx++) {
		const struct tree *own = tree_find(item, "name");
		const char *text = own && own->kind == TREE_TEXT ? own->text : "";
		if (n < sizeof(names) && idx < 16)
			n += (size_t)snprintf(
				names + n, sizeof(names) - n, "%s\"%.40s\"", n ? ", " : "", text);
		if (found || strcmp(text, name) != 0)
			continue;
		found = item;
		snprintf(path, KUBECONFIG_PATH_MAX, "%s[%u].%s", list_name, idx, what);
	}
	if (found == NULL)
		kubeconfig_refuse(r, list ? list : r->root, list_name,
			"no entry named \"%.100s\"; allowed: %s", name,
			names[0] ? names : "none, the list is empty");
	return found;
}

// The map inside such an entry, decoded by its rows. A user may be empty.
static struct kubeconfig_place entry_decode(struct kubeconfig_reader *r, const char *list_name,
	const char *what, const char *name, const struct kubeconfig_row *rows)
{
	struct kubeconfig_place place = { 0 };
	const struct tree *entry = entry_find(r, list_name, what, name, place.path);
	if (entry == NULL)
		return place;
	const struct tree *map = tree_find(entry, what);
	if (map)
		kubeconfig_decode_map(r, map, place.path, rows, r->out);
	else if (strcmp(what, "user") != 0)
		kubeconfig_refuse(r, entry, place.path, "missing; allowed: a map");
	place.node = map ? map : entry;
	return place;
}

static const char *text_at_top(struct kubeconfig_reader *r, const char *key)
{
	const struct tree *node = tree_find(r->root, key);
	if (node && node->kind != TREE_TEXT)
		kubeconfig_refuse(r, node, key, "%s; allowed: a text", tree_kind_name(node));
	return node && node->kind == TREE_TEXT ? node->text : NULL;
}

static void check_kind(struct kubeconfig_reader *r)
{
	const char *kind = text_at_top(r, "kind");
	const char *version = text_at_top(r, "apiVersion");
	if (kind && strcmp(kind, "Config") != 0)
		kubeconfig_refuse(r, tree_find(r->root, "kind"), "kind",
			"\"%.60s\"; allowed: \"Config\"", kind);
	if (version && strcmp(version, "v1") != 0)
		kubeconfig_refuse(r, tree_find(r->root, "apiVersion"), "apiVersion",
			"\"%.60s\"; allowed: \"v1\"", version);
}

// The context that is current: which cluster, which user.
static bool context_decode(struct kubeconfig_reader *r)
{
	char path[KUBECONFIG_PATH_MAX];
	struct kubeconfig *k = r->out;
	k->context = text_at_top(r, "current-context");
	if (k->context == NULL) {
		kubeconfig_refuse(r, r->root, "current-context",
			"missing; allowed: the name of one of contexts");
		return false;
	}
	const struct tree *entry = entry_find(r, "contexts", "context", k->context, path);
	const struct tree *map = entry ? tree_find(entry, "context") : NULL;
	if (entry && map == NULL)
		kubeconfig_refuse(r, entry, path, "missing; allowed: a map with cluster and user");
	if (map == NULL)
		return false;
	kubeconfig_decode_map(r, map, path, kubeconfig_context_rows, k);
	if (k->cluster == NULL)
		kubeconfig_refuse_under(
			r, map, path, "cluster", "missing; allowed: the name of one of clusters");
	if (k->user == NULL)
		kubeconfig_refuse_under(
			r, map, path, "user", "missing; allowed: the name of one of users");
	return k->cluster && k->user;
}

// ---------------------------------------------------------------- what goes together

static void check_cluster(struct kubeconfig_reader *r)
{
	struct kubeconfig *k = r->out;
	const struct kubeconfig_place *at = &r->cluster;
	if (at->node == NULL)
		return;
	if (r->server == NULL)
		kubeconfig_refuse_under(r, at->node, at->path, "server",
			"missing; allowed: a URL as \"https://192.0.2.1:6443\"");
	else
		kubeconfig_take_server(r, r->server);
	if (k->insecure && (k->ca.path || k->ca.bytes))
		kubeconfig_refuse_under(r, at->node, at->path, "insecure-skip-tls-verify",
			"true beside a certificate authority; allowed: one of them");
	if (k->ca.path && k->ca.bytes)
		kubeconfig_warn_under(r, at->node, at->path, "certificate-authority",
			"certificate-authority-data is there too and is taken");
	if (k->insecure)
		kubeconfig_warn_under(r, at->node, at->path, "insecure-skip-tls-verify",
			"true: anybody on the way can read and change what sluice is told");
}

static void check_pair(struct kubeconfig_reader *r, const struct kubeconfig_blob *own,
	const struct kubeconfig_blob *other, const char *own_name, const char *other_name)
{
	const struct kubeconfig_place *at = &r->user;
	bool has_own = own->path || own->bytes, has_other = other->path || other->bytes;
	if (has_own && !has_other)
		kubeconfig_refuse_under(r, at->node, at->path, other_name,
			"missing beside %s; allowed: both or none", own_name);
	if (own->path && own->bytes)
		kubeconfig_warn_under(r, at->node, at->path, own_name,
			"%s-data is there too and is taken", own_name);
}

static void check_methods(struct kubeconfig_reader *r)
{
	const struct kubeconfig *k = r->out;
	const struct kubeconfig_place *at = &r->user;
	const char *names[3];
	uint32_t n = 0;
	if (k->token || k->token_path)
		names[n++] = k->token ? "token" : "tokenFile";
	if (k->username || k->password)
		names[n++] = "username";
	if (k->exec)
		names[n++] = "exec";
	if (n > 1)
		kubeconfig_refuse_under(r, at->node, at->path, names[1],
			"beside %s; allowed: one of token, tokenFile, username with password, exec",
			names[0]);
	if (n == 0 && !k->cert.path && !k->cert.bytes)
		kubeconfig_warn_under(r, at->node, at->path, "",
			"no credentials: requests go as system:anonymous");
}

static void check_user(struct kubeconfig_reader *r)
{
	const struct kubeconfig *k = r->out;
	const struct kubeconfig_place *at = &r->user;
	if (at->node == NULL)
		return;
	check_pair(r, &k->cert, &k->key, "client-certificate", "client-key");
	check_pair(r, &k->key, &k->cert, "client-key", "client-certificate");
	check_methods(r);
	if (k->password && !k->username)
		kubeconfig_refuse_under(r, at->node, at->path, "username",
			"missing beside password; allowed: both or none");
	if (k->username && !k->password)
		kubeconfig_refuse_under(r, at->node, at->path, "password",
			"missing beside username; allowed: both or none");
	if (k->username && strchr(k->username, ':'))
		kubeconfig_refuse_under(r, at->node, at->path, "username",
			"\"%.60s\"; allowed: a name without colon", k->username);
	if ((k->as_uid || k->n_as_groups || k->n_as_extra) && !k->as)
		kubeconfig_refuse_under(r, at->node, at->path, "as",
			"missing beside as-uid, as-groups or as-user-extra; allowed: the name of a "
			"user");
	if (!k->is_https && k->server && !r->is_loopback &&
		(k->token || k->token_path || k->username || k->exec))
		kubeconfig_refuse_under(r, r->cluster.node, r->cluster.path, "server",
			"\"%.100s\" with credentials; allowed: https, or a loopback address",
			k->server);
}

// ---------------------------------------------------------------- the file

static void config_decode(struct kubeconfig_reader *r)
{
	static const char *const keys[] = { "apiVersion", "kind", "preferences", "clusters",
		"users", "contexts", "current-context", "extensions", NULL };
	if (r->root->kind != TREE_MAP) {
		kubeconfig_refuse(r, r->root, "",
			"%s; allowed: a map with clusters, users, contexts and current-context",
			tree_kind_name(r->root));
		return;
	}
	kubeconfig_warn_unknown(r, r->root, "", keys);
	check_kind(r);
	if (!context_decode(r))
		return;
	r->cluster =
		entry_decode(r, "clusters", "cluster", r->out->cluster, kubeconfig_cluster_rows);
	r->user = entry_decode(r, "users", "user", r->out->user, kubeconfig_user_rows);
	check_cluster(r);
	check_user(r);
}

void kubeconfig_destroy(struct kubeconfig *k)
{
	if (k == NULL)
		return;
	json_decref(k->exec_config);
	arena_fini(&k->arena);
	free(k);
}

int kubeconfig_decode(const char *text, size_t len, const char *path, struct kubeconfig **out,
	struct error *err, struct error *warnings)
{
	struct error own = { .file = path }, mild = { .file = path };
	struct kubeconfig_reader r = { .err = &own, .warnings = &mild };
	r.out = calloc(1, sizeof(*r.out));
	int rc = r.out ? tree_read(text, len, &r.out->arena, &r.root, &own)
		       : error_add(&own, ENOMEM, "", "out of memory");
	if (rc == 0) {
		r.out->path = arena_strdup(&r.out->arena, path);
		config_decode(&r);
		rc = own.n_items || own.n_lost ? -EINVAL : r.is_out_of_memory ? -ENOMEM : 0;
		if (rc == -ENOMEM)
			error_add(&own, ENOMEM, "", "out of memory");
	}
	error_merge(err, &own, "");
	error_merge(warnings, &mild, "");
	error_fini(&own);
	error_fini(&mild);
	if (rc == 0)
		*out = r.out;
	else
		kubeconfig_destroy(r.out);
	return rc;
}

int kubeconfig_read_file(const char *path, size_t max, char **out, size_t *out_len)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	int rc = fstat(fd, &st) ? -errno : S_ISREG(st.st_mode) ? 0 : -EINVAL;
	if (rc == 0 && (uint64_t)st.st_size > max)
		rc = -EFBIG;
	// Room for what it has, and some more: a file that grows meanwhile is too long, never cut silently.
	if (rc == 0 && (size_t)st.st_size + READ_MORE < max)
		max = (size_t)st.st_size + READ_MORE;
	char *text = rc ? NULL : malloc(max + 2);
	size_t len = 0;
	if (rc == 0 && text == NULL)
		rc = -ENOMEM;
	while (rc == 0 && len <= max) {
		ssize_t n = read(fd, text + len, max + 1 - len);
		if (n == 0)
			break;
		if (n < 0 && errno != EINTR)
			rc = -errno;
		if (n > 0)
			len += (size_t)n;
	}
	close(fd);
	if (rc == 0 && len > max)
		rc = -EFBIG;
	if (rc != 0) {
		free(text);
		return rc;
	}
	text[len] = '\0';
	char *fit = realloc(text, len + 1);
	*out = fit ? fit : text;
	*out_len = len;
	return 0;
}

int kubeconfig_load(
	const char *path, struct kubeconfig **out, struct error *err, struct error *warnings)
{
	struct error own = { .file = path };
	char *text = NULL;
	size_t len = 0;
	int rc = kubeconfig_read_file(path, TREE_BYTES_MAX, &text, &len);
	if (rc == -EFBIG)
		error_add(&own, EFBIG, "", "too long; allowed: at most %u bytes", TREE_BYTES_MAX);
	else if (rc == -EINVAL)
		error_add(&own, EINVAL, "", "not a regular file; allowed: a regular file");
	else if (rc != 0)
		error_add(&own, -rc, "", "cannot be read: %s", strerror(-rc));
	error_merge(err, &own, "");
	error_fini(&own);
	if (rc == 0)
		rc = kubeconfig_decode(text, len, path, out, err, warnings);
	free(text);
	return rc;
}

// ---------------------------------------------------------------- from inside

static const char *folder_path(struct arena *arena, const char *folder, const char *name)
{
	char path[512];
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return arena_strdup(arena, path);
}

int kubeconfig_in_cluster(const char *folder, struct kubeconfig **out, struct error *err)
{
	const char *host = getenv("KUBERNETES_SERVICE_HOST"),
		   *port = getenv("KUBERNETES_SERVICE_PORT");
	char server[320];
	struct error own = { 0 };
	if (host == NULL || port == NULL || host[0] == '\0')
		return error_add(err, ENOENT, "kubernetes.kubeconfig",
			"\"\": KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set, so "
			"this "
			"is no pod; allowed: the path of a kubeconfig");
	struct kubeconfig *k = calloc(1, sizeof(*k));
	struct kubeconfig_reader r = { .err = &own, .warnings = NULL, .out = k };
	if (k == NULL)
		return error_add(err, ENOMEM, "", "out of memory");
	bool is_v6 = strchr(host, ':') != NULL;
	snprintf(server, sizeof(server), "https://%s%s%s:%s", is_v6 ? "[" : "", host,
		is_v6 ? "]" : "", port);
	snprintf(r.cluster.path, sizeof(r.cluster.path), "environment");
	kubeconfig_take_server(&r, server);
	k->path = k->context = k->cluster = k->user = "";
	k->token_path = folder_path(&k->arena, folder ? folder : IN_CLUSTER_FOLDER, "token");
	k->ca.path = folder_path(&k->arena, folder ? folder : IN_CLUSTER_FOLDER, "ca.crt");
	int rc = own.n_items                                                         ? -EINVAL
		 : k->token_path == NULL || k->ca.path == NULL || r.is_out_of_memory ? -ENOMEM
										     : 0;
	error_merge(err, &own, "");
	error_fini(&own);
	if (rc == 0)
		*out = k;
	else
		kubeconfig_destroy(k);
	return rc;
}
