// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// How to reach a cluster: one cluster and one user of a kubeconfig (YAML or JSON), or the service account of the pod. Only read
// and checked here; files that it names are opened by cluster_auth, except when a kubeconfig is checked whole.

#include <jansson.h>

#include "base.h"

#define KUBECONFIG_LIST_MAX 64 // groups, extras, words and variables of a plugin

// Bytes that are in the kubeconfig, or the path of a file that has them, or neither. Bytes win.
struct kubeconfig_blob {
	const char *path; // absolute
	const char *bytes;
	size_t len;
};

struct kubeconfig_pair {
	const char *name;
	const char *value;
};

struct kubeconfig_exec {
	const char *api_version; // client.authentication.k8s.io/v1 or /v1beta1
	const char *command;     // absolute, or a name without slash that PATH knows
	const char *args[KUBECONFIG_LIST_MAX];
	uint32_t n_args;
	struct kubeconfig_pair env[KUBECONFIG_LIST_MAX];
	uint32_t n_env;
	const char *install_hint;     // NULL: none
	const char *interactive_mode; // NULL (v1beta1 only), "Never" or "IfAvailable"
	bool provide_cluster_info;
};

struct kubeconfig {
	struct arena arena; // all that the pointers below point to
	const char *path;   // "" = in cluster
	const char *context;
	const char *cluster;
	const char *user;
	const char *namespace; // NULL: none

	bool is_https;
	const char *host; // name or address, no brackets
	uint16_t port;
	const char *prefix;          // path of the URL without slash at its end, often ""
	const char *server;          // scheme://host:port/prefix, with brackets where they belong
	const char *tls_server_name; // NULL: the host's own
	bool insecure;
	struct kubeconfig_blob ca;
	const char *proxy_url; // NULL: what the environment says

	struct kubeconfig_blob cert;
	struct kubeconfig_blob key;
	const char *token;      // NULL: none
	const char *token_path; // NULL: none; wins over token
	const char *username;   // NULL: none
	const char *password;
	struct kubeconfig_exec *exec; // NULL: none
	json_t *exec_config;          // what the cluster's extension says to the plugin, NULL: none
	const char *as;               // NULL: nobody else
	const char *as_uid;
	const char *as_groups[KUBECONFIG_LIST_MAX];
	uint32_t n_as_groups;
	struct kubeconfig_pair as_extra[KUBECONFIG_LIST_MAX]; // one pair for each value
	uint32_t n_as_extra;
};

// From text. Relative paths are relative to the folder of `path`, which is also the name in messages. Every finding is in err
// with line and key path; warnings gets what is taken but probably not meant (unknown keys, no credentials). 0 or -errno; *out
// untouched on failure.
int kubeconfig_decode(const char *text, size_t len, const char *path, struct kubeconfig **out,
	struct error *err, struct error *warnings);
// The same from a file: regular, at most 1 MiB.
int kubeconfig_load(
	const char *path, struct kubeconfig **out, struct error *err, struct error *warnings);
// From inside: KUBERNETES_SERVICE_HOST and _PORT, token and ca.crt of `folder` (NULL: the usual one).
int kubeconfig_in_cluster(const char *folder, struct kubeconfig **out, struct error *err);
void kubeconfig_destroy(struct kubeconfig *k); // NULL is fine

// Strict base64 (blanks and line ends inside are fine) into the arena, NUL behind the bytes. NULL: not base64, or no memory.
char *kubeconfig_base64(struct arena *arena, const char *text, size_t *out_len);
// Whether a text may stand in a header: printable ASCII, not empty.
bool kubeconfig_is_header_text(const char *text);
// Reads a small regular file whole, NUL behind it; gives *out. 0 or -errno.
int kubeconfig_read_file(const char *path, size_t max, char **out, size_t *out_len);
