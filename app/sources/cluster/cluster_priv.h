// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Inside the cluster source. All of it runs on the thread of the event loop; nothing blocks, but for small local files.
//
//   kubeconfig ──► auth ──credentials──► http ──bytes──► cluster (reflectors, model) ──► control
//                   │ exec: a plugin for credentials       └► writer (Lease, status, Events)

#include <event2/event.h>

#include "base.h"
#include "kubeconfig_priv.h"

// How the parts tell what an operator should know; NULL fn: nobody listens. `kind` is a stable word, `object` what it is about.
struct cluster_voice {
	void (*note)(void *arg, enum log_level level, const char *kind, const char *object,
		const char *text);
	void *arg;
};
void cluster_say(const struct cluster_voice *voice, enum log_level level, const char *kind,
	const char *object, const char *fmt, ...) __attribute__((format(printf, 5, 6)));

// ---------------------------------------------------------------- certificates (pem.c)
// First certificate of a PEM text: when it ends. -EINVAL: none that can be read.
int cluster_pem_expiry(const char *bytes, size_t len, int64_t *out_wall_ms);
// Whether the first certificate and the key belong together. 0; -EINVAL with the cause in `why`.
int cluster_pem_check_pair(const struct kubeconfig_blob *cert, const struct kubeconfig_blob *key,
	char *why, size_t why_len);

// ---------------------------------------------------------------- plugin (exec.c)
struct cluster_exec; // one run
struct cluster_exec_result {
	char *token; // NULL: none. gives all three
	char *cert;  // PEM, NULL: none
	char *key;
	int64_t expires_ms; // wall clock, 0 = never
};
void cluster_exec_result_fini(struct cluster_exec_result *result);
// Reads an ExecCredential of the plugin's apiVersion. 0 or -EINVAL with the cause in `why`.
int cluster_exec_decode(const struct kubeconfig *k, const char *text, size_t len,
	struct cluster_exec_result *out, char *why, size_t why_len);
// What goes into KUBERNETES_EXEC_INFO. The caller frees; NULL: out of memory. `ca` are the bytes that are in force.
char *cluster_exec_question(const struct kubeconfig *k, const struct kubeconfig_blob *ca);
// Runs the plugin: standard input is /dev/null, 1 MiB of standard output at most, `timeout_ms` at most. done is called once from
// the loop, with a result that it takes or with NULL and the cause. NULL: could not be started (cause in why). `k` and `ca` are
// needed only for this call's length, but for k->exec, which must live until done.
struct cluster_exec *cluster_exec_run(struct event_base *base, const struct kubeconfig *k,
	const struct kubeconfig_blob *ca, uint32_t timeout_ms,
	void (*done)(void *arg, struct cluster_exec_result *result, const char *why), void *arg,
	char *why, size_t why_len);
// Kills it and its children; done is not called.
void cluster_exec_cancel(struct cluster_exec *exec);

// ---------------------------------------------------------------- credentials (auth.c)
struct cluster_credentials {
	const struct kubeconfig *config;
	const char *bearer;                   // NULL: none
	struct kubeconfig_blob ca, cert, key; // bytes, or NULL
	uint64_t tls_generation;              // grows when ca, cert, key or config change
};

struct cluster_auth_config {
	struct event_base *base;
	const char *kubeconfig_path; // "" = in cluster
	const char *folder;          // in cluster: of the service account, NULL = the usual one
	uint32_t exec_timeout_ms;    // 0 = 60 s
	uint32_t poll_ms;            // of files, 0 = 2 s
	struct cluster_voice voice;
	// Credentials came or changed. From the loop, or from within cluster_auth_reject; never from within create.
	void (*changed)(void *arg);
	void *arg;
};
struct cluster_auth;
// The kubeconfig must be good; files that it names may come later. 0 or -errno with every finding in err.
int cluster_auth_create(
	const struct cluster_auth_config *config, struct cluster_auth **out, struct error *err);
void cluster_auth_destroy(struct cluster_auth *auth);
const struct kubeconfig *cluster_auth_kubeconfig(const struct cluster_auth *auth);
// NULL: not complete yet, `changed` will tell. Borrowed until `changed`, or the loop goes on.
const struct cluster_credentials *cluster_auth_get(struct cluster_auth *auth);
// The server said 401 to `bearer` (NULL: a request without). 0: there are other credentials now; -EAGAIN: `changed` will tell;
// -ENOENT: nothing else is to be had.
int cluster_auth_reject(struct cluster_auth *auth, const char *bearer);
// A TLS handshake failed: looks at the files now. 0: something changed; -ENOENT.
int cluster_auth_look(struct cluster_auth *auth);
// What is missing, "" when complete; and when the client certificate ends, 0 = there is none.
const char *cluster_auth_why(const struct cluster_auth *auth);
int64_t cluster_auth_expires_ms(const struct cluster_auth *auth);
// For messages: what the server is shown ("the token of PATH"), and by what it is trusted ("certificate-authority PATH").
void cluster_auth_name(const struct cluster_auth *auth, char *out, size_t len);
void cluster_auth_trust(const struct cluster_auth *auth, char *out, size_t len);

// ---------------------------------------------------------------- requests (http.c)
enum cluster_end {
	CLUSTER_END_CLEAN,   // the whole body was there
	CLUSTER_END_REFUSED, // nobody listens, or no credentials
	CLUSTER_END_TIMEOUT,
	CLUSTER_END_BROKEN,
};
struct cluster_request {
	const char *method;       // "GET", "POST", "PUT", "PATCH", "DELETE"
	const char *path;         // with query, begins with /
	const char *content_type; // NULL: no body
	const void *body;
	size_t body_len;
	bool is_watch;       // a connection of its own, no limit of time
	uint32_t timeout_ms; // of the whole, 0 = 60 s (none for a watch)
	uint32_t header_ms;  // until the head of the answer, 0 = 10 s
	// The head came; retry_after_s 0: not given. content_type is borrowed.
	void (*head)(void *arg, int status, uint32_t retry_after_s, const char *content_type);
	void (*body_part)(void *arg, const char *bytes, size_t len);
	void (*end)(void *arg, enum cluster_end how, const char *why); // once, last
	void *arg;
};
struct cluster_call;
struct cluster_http;
int cluster_http_create(struct event_base *base, struct cluster_auth *auth,
	const struct cluster_voice *voice, struct cluster_http **out);
void cluster_http_destroy(struct cluster_http *http); // cancels what runs
// Credentials changed: calls that waited begin; watches made with other certificates end, CLEAN.
void cluster_http_wake(struct cluster_http *http);
// Copies what it needs. Callbacks come from the loop, never from within this call. NULL: out of memory.
struct cluster_call *cluster_http_begin(
	struct cluster_http *http, const struct cluster_request *request);
// No callback comes after this; allowed from within callbacks.
void cluster_http_cancel(struct cluster_call *call);
uint32_t cluster_http_count(const struct cluster_http *http); // calls that wait or run
