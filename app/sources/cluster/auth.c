// SPDX-License-Identifier: BSD-3-Clause
// Credentials that are in force, and how they change without a restart: the kubeconfig and every file it names are looked at every
// two seconds (a stat each; read when it differs), the token file is read again each minute besides, a plugin runs again before
// its credentials end and when the server said 401. What is new is taken only when it is whole: a certificate with its key, a CA
// that can be read; else the last good one stays in force, and it is said once.
#include "cluster_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define AUTH_FILE_MAX        (1u << 20)
#define AUTH_POLL_MS         2000
#define AUTH_TOKEN_NS        (60 * CLOCK_S)
#define AUTH_EXEC_TIMEOUT_MS 60000
#define AUTH_EXEC_AGAIN_NS   (5 * CLOCK_S) // after a 401, not more often
#define AUTH_BACKOFF_MAX_NS  (30 * CLOCK_S)

enum auth_file_kind { AUTH_CA, AUTH_CERT, AUTH_KEY, AUTH_TOKEN, AUTH_N_FILES };
static const char *const file_names[] = { "certificate-authority", "client-certificate",
	"client-key", "tokenFile" };

struct auth_signature {
	dev_t device;
	ino_t inode;
	off_t size;
	struct timespec changed;
};

struct auth_file {
	const char *path; // of the kubeconfig, NULL: none
	struct auth_signature seen;
	uint64_t read_ns;
	char *fresh; // as read, not in force yet
	size_t fresh_len;
	char *bytes; // in force, NULL: none
	size_t len;
	bool is_bad; // said
};

struct cluster_auth {
	struct cluster_auth_config config;
	char *path;
	struct kubeconfig *kubeconfig;
	struct auth_signature kubeconfig_seen;
	bool kubeconfig_is_bad;
	struct auth_file files[AUTH_N_FILES];
	struct cluster_exec *exec;
	struct cluster_exec_result granted; // by the plugin
	uint64_t exec_began_ns;
	uint64_t exec_backoff_ns;
	uint64_t exec_again_ns; // not before, 0 = any time
	bool exec_is_wanted;    // the last grant is refused or ends soon
	struct cluster_credentials now;
	char why[400];
	int64_t expires_ms;
	int64_t told_expiry_ms; // of the certificate whose end was said
	int64_t told_days;      // that it had left then
	struct event *timer;
};

void cluster_say(const struct cluster_voice *voice, enum log_level level, const char *kind,
	const char *object, const char *fmt, ...)
{
	char text[1200];
	va_list ap;
	if (voice->note == NULL)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	voice->note(voice->arg, level, kind, object, text);
}

static uint64_t now_ns(void)
{
	struct clock clock = clock_monotonic();
	return clock_now_ns(&clock);
}

// ---------------------------------------------------------------- files

static bool signature_differs(const char *path, struct auth_signature *seen)
{
	struct stat st;
	struct auth_signature now = { 0 };
	if (stat(path, &st) == 0)
		now = (struct auth_signature){ st.st_dev, st.st_ino, st.st_size, st.st_mtim };
	bool differs = now.device != seen->device || now.inode != seen->inode ||
		       now.size != seen->size || now.changed.tv_sec != seen->changed.tv_sec ||
		       now.changed.tv_nsec != seen->changed.tv_nsec;
	*seen = now;
	return differs;
}

static void file_refuse(struct cluster_auth *auth, struct auth_file *file, const char *cause)
{
	if (!file->is_bad)
		cluster_say(&auth->config.voice, LOG_LEVEL_ERROR, "credentials-refused", file->path,
			"%s: %s%s", file_names[file - auth->files], cause,
			file->bytes ? "; the former one stays in force" : "");
	file->is_bad = true;
	free(file->fresh);
	file->fresh = NULL;
	file->seen = (struct auth_signature){ 0 }; // tried again at the next look
}

static bool token_trim(char *text, size_t *len)
{
	while (*len && (unsigned char)text[*len - 1] <= ' ')
		text[--*len] = '\0';
	size_t lead = strspn(text, " \t\r\n");
	memmove(text, text + lead, *len + 1 - lead);
	*len -= lead;
	return *len == strlen(text) && kubeconfig_is_header_text(text);
}

// Reads what may be new into `fresh`. Bytes that are in force already are nothing new.
static void file_look(struct cluster_auth *auth, struct auth_file *file, bool always)
{
	char *bytes = NULL;
	size_t len = 0;
	int64_t expires_ms = 0;
	if (file->path == NULL || (!signature_differs(file->path, &file->seen) && !always))
		return;
	int rc = kubeconfig_read_file(file->path, AUTH_FILE_MAX, &bytes, &len);
	if (rc != 0) {
		file_refuse(auth, file, rc == -EFBIG ? "longer than 1 MiB" : strerror(-rc));
		return;
	}
	file->read_ns = now_ns();
	bool is_token = file == &auth->files[AUTH_TOKEN];
	free(file->fresh);
	file->fresh = bytes;
	file->fresh_len = len;
	if (is_token && !token_trim(bytes, &file->fresh_len))
		file_refuse(auth, file, "empty, or not printable ASCII; allowed: one token");
	else if (file == &auth->files[AUTH_CA] && cluster_pem_expiry(bytes, len, &expires_ms) != 0)
		file_refuse(auth, file, "no certificate in PEM can be read");
	if (file->fresh && file->bytes && file->fresh_len == file->len &&
		memcmp(file->fresh, file->bytes, file->len) == 0) {
		free(file->fresh);
		file->fresh = NULL;
		file->is_bad = false;
	}
}

static bool file_take(struct auth_file *file)
{
	if (file->fresh == NULL)
		return false;
	free(file->bytes);
	file->bytes = file->fresh;
	file->len = file->fresh_len;
	file->fresh = NULL;
	file->is_bad = false;
	return true;
}

// Bytes of the kubeconfig itself, else of the file: what is fresh, or in force.
static struct kubeconfig_blob blob_of(
	const struct kubeconfig_blob *own, const struct auth_file *file, bool wants_fresh)
{
	if (own->bytes)
		return *own;
	if (wants_fresh && file->fresh)
		return (struct kubeconfig_blob){ NULL, file->fresh, file->fresh_len };
	return (struct kubeconfig_blob){ NULL, file->bytes, file->len };
}

// Certificate and key change together or not at all.
static bool pair_take(struct cluster_auth *auth)
{
	struct auth_file *cert = &auth->files[AUTH_CERT], *key = &auth->files[AUTH_KEY];
	char why[200];
	if (cert->fresh == NULL && key->fresh == NULL)
		return false;
	struct kubeconfig_blob new_cert = blob_of(&auth->kubeconfig->cert, cert, true);
	struct kubeconfig_blob new_key = blob_of(&auth->kubeconfig->key, key, true);
	if (new_cert.bytes == NULL || new_key.bytes == NULL)
		return false;
	if (cluster_pem_check_pair(&new_cert, &new_key, why, sizeof(why)) != 0) {
		// One of the two may be replaced in a moment: both are read again then.
		file_refuse(auth, cert->path ? cert : key, why);
		cert->seen = key->seen = (struct auth_signature){ 0 };
		free(key->fresh);
		key->fresh = NULL;
		return false;
	}
	bool took_cert = file_take(cert);
	return file_take(key) || took_cert;
}

// ---------------------------------------------------------------- what is in force

static const char *exec_missing(const struct cluster_auth *auth)
{
	if (auth->kubeconfig->exec == NULL || auth->granted.token || auth->granted.cert)
		return NULL;
	return auth->why[0] ? auth->why : "the plugin has not answered yet";
}

static bool is_complete(struct cluster_auth *auth)
{
	const struct kubeconfig *k = auth->kubeconfig;
	const char *missing = NULL;
	if (k->ca.path && !k->ca.bytes && !auth->files[AUTH_CA].bytes)
		missing = k->ca.path;
	else if (k->cert.path && !k->cert.bytes && !auth->files[AUTH_CERT].bytes)
		missing = k->cert.path;
	else if (k->key.path && !k->key.bytes && !auth->files[AUTH_KEY].bytes)
		missing = k->key.path;
	else if (k->token_path && !auth->files[AUTH_TOKEN].bytes)
		missing = k->token_path;
	if (missing) {
		snprintf(auth->why, sizeof(auth->why), "%.300s is not usable", missing);
		return false;
	}
	missing = exec_missing(auth);
	if (missing && missing != auth->why)
		snprintf(auth->why, sizeof(auth->why), "%s", missing);
	else if (missing == NULL)
		auth->why[0] = '\0';
	return missing == NULL;
}

static void credentials_derive(struct cluster_auth *auth)
{
	const struct kubeconfig *k = auth->kubeconfig;
	struct cluster_credentials *now = &auth->now;
	now->config = k;
	now->bearer = k->token_path ? auth->files[AUTH_TOKEN].bytes : k->token;
	now->ca = blob_of(&k->ca, &auth->files[AUTH_CA], false);
	now->cert = blob_of(&k->cert, &auth->files[AUTH_CERT], false);
	now->key = blob_of(&k->key, &auth->files[AUTH_KEY], false);
	if (auth->granted.token)
		now->bearer = auth->granted.token;
	if (auth->granted.cert) {
		now->cert = (struct kubeconfig_blob){ NULL, auth->granted.cert,
			strlen(auth->granted.cert) };
		now->key = (struct kubeconfig_blob){ NULL, auth->granted.key,
			strlen(auth->granted.key) };
	}
	auth->expires_ms = 0;
	if (now->cert.bytes)
		cluster_pem_expiry(now->cert.bytes, now->cert.len, &auth->expires_ms);
}

// ---------------------------------------------------------------- plugin

static void exec_start(struct cluster_auth *auth);

// A tenth of its life early, a minute at most: the new one is there before the old one ends.
static bool exec_is_due(const struct cluster_auth *auth)
{
	int64_t left_ms = auth->granted.expires_ms - clock_wall_ms();
	int64_t life_ms = left_ms + (int64_t)((now_ns() - auth->exec_began_ns) / CLOCK_MS);
	int64_t early_ms = life_ms / 10 < 60000 ? life_ms / 10 : 60000;
	return auth->granted.expires_ms != 0 && left_ms <= early_ms;
}

static void exec_failed(struct cluster_auth *auth, const char *why)
{
	auth->exec_backoff_ns = auth->exec_backoff_ns ? 2 * auth->exec_backoff_ns : CLOCK_S;
	if (auth->exec_backoff_ns > AUTH_BACKOFF_MAX_NS)
		auth->exec_backoff_ns = AUTH_BACKOFF_MAX_NS;
	auth->exec_again_ns = now_ns() + auth->exec_backoff_ns;
	auth->exec_is_wanted = true;
	snprintf(auth->why, sizeof(auth->why), "%s", why);
	cluster_say(&auth->config.voice, LOG_LEVEL_ERROR, "credentials-refused",
		auth->kubeconfig->exec->command, "plugin %s", why);
}

static void on_exec_done(void *arg, struct cluster_exec_result *result, const char *why)
{
	struct cluster_auth *auth = arg;
	char cause[200];
	auth->exec = NULL;
	if (result == NULL) {
		exec_failed(auth, why);
		return;
	}
	if (result->cert) {
		struct kubeconfig_blob cert = { NULL, result->cert, strlen(result->cert) };
		struct kubeconfig_blob key = { NULL, result->key, strlen(result->key) };
		if (cluster_pem_check_pair(&cert, &key, cause, sizeof(cause)) != 0) {
			exec_failed(auth, cause);
			return;
		}
	}
	bool has_cert = result->cert || auth->granted.cert;
	bool same_cert = !has_cert || (result->cert && auth->granted.cert &&
					      strcmp(result->cert, auth->granted.cert) == 0);
	cluster_exec_result_fini(&auth->granted);
	auth->granted = *result;
	*result = (struct cluster_exec_result){ 0 };
	auth->exec_backoff_ns = 0;
	auth->exec_again_ns = now_ns() + AUTH_EXEC_AGAIN_NS;
	auth->exec_is_wanted = false;
	auth->now.tls_generation += !same_cert;
	auth->why[0] = '\0';
	credentials_derive(auth);
	auth->config.changed(auth->config.arg);
}

static void exec_start(struct cluster_auth *auth)
{
	char why[400];
	struct kubeconfig_blob ca = blob_of(&auth->kubeconfig->ca, &auth->files[AUTH_CA], false);
	uint32_t timeout_ms =
		auth->config.exec_timeout_ms ? auth->config.exec_timeout_ms : AUTH_EXEC_TIMEOUT_MS;
	auth->exec_began_ns = now_ns();
	auth->exec = cluster_exec_run(auth->config.base, auth->kubeconfig, &ca, timeout_ms,
		on_exec_done, auth, why, sizeof(why));
	if (auth->exec == NULL)
		exec_failed(auth, why);
}

static void exec_look(struct cluster_auth *auth)
{
	if (auth->kubeconfig->exec == NULL || auth->exec)
		return;
	bool is_first = !auth->granted.token && !auth->granted.cert;
	if ((is_first || auth->exec_is_wanted || exec_is_due(auth)) &&
		now_ns() >= auth->exec_again_ns)
		exec_start(auth);
}

// ---------------------------------------------------------------- the look

static void files_forget(struct cluster_auth *auth)
{
	for (size_t i = 0; i < AUTH_N_FILES; i++) {
		free(auth->files[i].fresh);
		free(auth->files[i].bytes);
		auth->files[i] = (struct auth_file){ 0 };
	}
}

static void config_take(struct cluster_auth *auth, struct kubeconfig *k)
{
	if (auth->exec)
		cluster_exec_cancel(auth->exec);
	auth->exec = NULL;
	auth->exec_again_ns = auth->exec_backoff_ns = 0;
	cluster_exec_result_fini(&auth->granted);
	files_forget(auth);
	kubeconfig_destroy(auth->kubeconfig);
	auth->kubeconfig = k;
	auth->files[AUTH_CA].path = k->ca.bytes ? NULL : k->ca.path;
	auth->files[AUTH_CERT].path = k->cert.bytes ? NULL : k->cert.path;
	auth->files[AUTH_KEY].path = k->key.bytes ? NULL : k->key.path;
	auth->files[AUTH_TOKEN].path = k->token_path;
}

static void say_warnings(struct cluster_auth *auth, const struct error *warnings)
{
	char line[700];
	for (uint32_t i = 0; i < warnings->n_items; i++)
		cluster_say(&auth->config.voice, LOG_LEVEL_WARN, "kubeconfig", auth->path, "%s",
			error_format(warnings, i, line, sizeof(line)));
}

// Bytes that are in the kubeconfig are looked at once, as files are.
static int config_check(const struct kubeconfig *k, struct error *err)
{
	int64_t expires_ms = 0;
	char why[200];
	if (k->ca.bytes && cluster_pem_expiry(k->ca.bytes, k->ca.len, &expires_ms) != 0)
		return error_add(err, EINVAL, "certificate-authority-data",
			"no certificate in it can be read; allowed: PEM in base64");
	if (k->cert.bytes && k->key.bytes &&
		cluster_pem_check_pair(&k->cert, &k->key, why, sizeof(why)) != 0)
		return error_add(err, EINVAL, "client-certificate-data",
			"%s; allowed: a certificate with its key, PEM in base64", why);
	return 0;
}

static int config_read(struct cluster_auth *auth, struct kubeconfig **out, struct error *err)
{
	struct error warnings = { 0 }, own = { .file = auth->path };
	struct kubeconfig *k = NULL;
	signature_differs(auth->path, &auth->kubeconfig_seen);
	int rc = auth->path[0] ? kubeconfig_load(auth->path, &k, &own, &warnings)
			       : kubeconfig_in_cluster(auth->config.folder, &k, &own);
	if (rc == 0)
		rc = config_check(k, &own);
	if (rc == 0)
		say_warnings(auth, &warnings);
	else
		kubeconfig_destroy(k);
	error_merge(err, &own, "");
	error_fini(&own);
	error_fini(&warnings);
	if (rc == 0)
		*out = k;
	return rc;
}

// The kubeconfig itself changed: a good one is taken whole.
static bool config_look(struct cluster_auth *auth)
{
	struct error err = { 0 };
	struct kubeconfig *k = NULL;
	char line[700];
	if (auth->path[0] == '\0' || !signature_differs(auth->path, &auth->kubeconfig_seen))
		return false;
	int rc = config_read(auth, &k, &err);
	if (rc != 0 && !auth->kubeconfig_is_bad)
		cluster_say(&auth->config.voice, LOG_LEVEL_ERROR, "credentials-refused", auth->path,
			"%s; the former kubeconfig stays in force",
			error_first(&err, line, sizeof(line)));
	error_fini(&err);
	auth->kubeconfig_is_bad = rc != 0;
	if (rc != 0)
		return false;
	config_take(auth, k);
	return true;
}

// Looks at everything. true: credentials changed.
static bool look(struct cluster_auth *auth, bool wants_token)
{
	struct auth_file *token = &auth->files[AUTH_TOKEN];
	bool new_config = config_look(auth);
	bool is_old = now_ns() - token->read_ns >= AUTH_TOKEN_NS;
	for (size_t i = 0; i < AUTH_N_FILES; i++)
		file_look(auth, &auth->files[i], i == AUTH_TOKEN && (wants_token || is_old));
	bool new_pair = pair_take(auth);
	bool new_ca = file_take(&auth->files[AUTH_CA]);
	bool new_token = file_take(token);
	bool new_tls = new_config || new_pair || new_ca;
	if (auth->now.config && (new_tls || new_token))
		cluster_say(&auth->config.voice, LOG_LEVEL_INFO, "credentials-changed",
			auth->kubeconfig->server, "%s%s%s%s", new_config ? "kubeconfig " : "",
			new_ca ? "CA " : "", new_pair ? "client certificate " : "",
			new_token ? "token " : "");
	auth->now.tls_generation += new_tls;
	credentials_derive(auth);
	exec_look(auth);
	return new_tls || new_token;
}

// The end of the client certificate, 30, 7 and 1 days before, and when it has come.
static void tell_expiry(struct cluster_auth *auth)
{
	static const int64_t days[] = { 0, 1, 7, 30 };
	int64_t left_ms = auth->expires_ms - clock_wall_ms();
	size_t i = 0;
	if (auth->expires_ms == 0)
		return;
	if (auth->told_expiry_ms != auth->expires_ms) {
		auth->told_expiry_ms = auth->expires_ms;
		auth->told_days = INT64_MAX;
	}
	while (i < ARRAY_SIZE(days) && left_ms > days[i] * 24 * 3600 * 1000)
		i++;
	if (i == ARRAY_SIZE(days) || days[i] >= auth->told_days)
		return;
	auth->told_days = days[i];
	if (days[i] == 0)
		cluster_say(&auth->config.voice, LOG_LEVEL_ERROR, "certificate-expired",
			auth->kubeconfig->server, "the client certificate has ended");
	else
		cluster_say(&auth->config.voice, LOG_LEVEL_WARN, "certificate-expires",
			auth->kubeconfig->server, "the client certificate ends within %lld day%s",
			(long long)days[i], days[i] == 1 ? "" : "s");
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct cluster_auth *auth = arg;
	tell_expiry(auth);
	if (look(auth, false))
		auth->config.changed(auth->config.arg);
}

// ---------------------------------------------------------------- public

int cluster_auth_create(
	const struct cluster_auth_config *config, struct cluster_auth **out, struct error *err)
{
	uint32_t poll_ms = config->poll_ms ? config->poll_ms : AUTH_POLL_MS;
	struct timeval poll = { poll_ms / 1000, poll_ms % 1000 * 1000 };
	struct kubeconfig *k = NULL;
	struct cluster_auth *auth = calloc(1, sizeof(*auth));
	if (auth == NULL)
		return error_add(err, ENOMEM, "", "out of memory");
	auth->config = *config;
	auth->path = strdup(config->kubeconfig_path);
	auth->timer = event_new(config->base, -1, EV_PERSIST, on_timer, auth);
	int rc = auth->path && auth->timer ? config_read(auth, &k, err)
					   : error_add(err, ENOMEM, "", "out of memory");
	if (rc != 0) {
		cluster_auth_destroy(auth);
		return rc;
	}
	config_take(auth, k);
	look(auth, true);
	evtimer_add(auth->timer, &poll);
	*out = auth;
	return 0;
}

void cluster_auth_destroy(struct cluster_auth *auth)
{
	if (auth == NULL)
		return;
	if (auth->exec)
		cluster_exec_cancel(auth->exec);
	if (auth->timer)
		event_free(auth->timer);
	cluster_exec_result_fini(&auth->granted);
	files_forget(auth);
	kubeconfig_destroy(auth->kubeconfig);
	free(auth->path);
	free(auth);
}

const struct kubeconfig *cluster_auth_kubeconfig(const struct cluster_auth *auth)
{
	return auth->kubeconfig;
}

const struct cluster_credentials *cluster_auth_get(struct cluster_auth *auth)
{
	return is_complete(auth) ? &auth->now : NULL;
}

int cluster_auth_reject(struct cluster_auth *auth, const char *bearer)
{
	const char *now = auth->now.bearer;
	if (bearer && now && strcmp(bearer, now) != 0)
		return 0; // changed since that request
	if (auth->kubeconfig->exec) {
		auth->exec_is_wanted = true;
		exec_look(auth);
		return auth->exec ? -EAGAIN : -ENOENT;
	}
	if (!look(auth, true))
		return -ENOENT;
	auth->config.changed(auth->config.arg);
	return 0;
}

int cluster_auth_look(struct cluster_auth *auth)
{
	if (!look(auth, false))
		return -ENOENT;
	auth->config.changed(auth->config.arg);
	return 0;
}

void cluster_auth_name(const struct cluster_auth *auth, char *out, size_t len)
{
	const struct kubeconfig *k = auth->kubeconfig;
	const char *from = k->path[0] ? k->path : "the service account";
	if (k->exec)
		snprintf(out, len, "what the plugin %s gave", k->exec->command);
	else if (k->token_path)
		snprintf(out, len, "the token of %s", k->token_path);
	else if (k->token)
		snprintf(out, len, "the token of user \"%s\" in %s", k->user, from);
	else if (k->cert.path)
		snprintf(out, len, "the certificate of %s", k->cert.path);
	else if (k->cert.bytes)
		snprintf(out, len, "the certificate of user \"%s\" in %s", k->user, from);
	else if (k->username)
		snprintf(out, len, "the password of user \"%s\" in %s", k->user, from);
	else
		snprintf(out, len, "that user \"%s\" in %s shows nothing", k->user, from);
}

void cluster_auth_trust(const struct cluster_auth *auth, char *out, size_t len)
{
	const struct kubeconfig *k = auth->kubeconfig;
	if (k->ca.path)
		snprintf(out, len, "certificate-authority %s", k->ca.path);
	else if (k->ca.bytes)
		snprintf(out, len, "certificate-authority-data of cluster \"%s\" in %s", k->cluster,
			k->path);
	else
		snprintf(out, len, "no certificate-authority, so those of this machine");
}

const char *cluster_auth_why(const struct cluster_auth *auth)
{
	return auth->why;
}

int64_t cluster_auth_expires_ms(const struct cluster_auth *auth)
{
	return auth->expires_ms;
}
