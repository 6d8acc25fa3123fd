// SPDX-License-Identifier: BSD-3-Clause
// Credentials: files that change, pairs that do not fit, plugins that answer, fail, hang or say too much.
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster_priv.h"

#define WAIT_S 20

struct world {
	struct event_base *base;
	struct cluster_auth *auth;
	char dir[64];
	char path[128];
	uint32_t n_changed, n_notes;
	char last_note[1200];
	// of a plugin's run
	bool is_done;
	struct cluster_exec_result result;
	char why[1000];
};

static void note(
	void *arg, enum log_level level, const char *kind, const char *object, const char *text)
{
	struct world *w = arg;
	w->n_notes++;
	snprintf(w->last_note, sizeof(w->last_note), "%s: %s: %s", kind, object, text);
}

static void changed(void *arg)
{
	struct world *w = arg;
	w->n_changed++;
}

static const char *path_in(const struct world *w, const char *name)
{
	static char path[256];
	snprintf(path, sizeof(path), "%s/%s", w->dir, name);
	return path;
}

// Written aside and renamed, as they are replaced in life.
static void put_file(const struct world *w, const char *name, const char *text)
{
	char aside[300], to[256];
	snprintf(to, sizeof(to), "%s", path_in(w, name));
	snprintf(aside, sizeof(aside), "%s.new", to);
	FILE *file = fopen(aside, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
	fclose(file);
	chmod(aside, 0700);
	assert_int_equal(rename(aside, to), 0);
}

static void put_config(struct world *w, const char *cluster, const char *user)
{
	char text[2000];
	snprintf(text, sizeof(text),
		"current-context: c\n"
		"contexts: [{name: c, context: {cluster: k, user: u}}]\n"
		"clusters: [{name: k, cluster: {server: 'https://127.0.0.1:1'%s%s}}]\n"
		"users: [{name: u, user: {%s}}]\n",
		cluster[0] ? ", " : "", cluster, user);
	put_file(w, "kubeconfig", text);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	assert_non_null(w);
	strcpy(w->dir, "/tmp/sluice-auth-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->path, sizeof(w->path), "%s/kubeconfig", w->dir);
	w->base = event_base_new();
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char command[100];
	cluster_auth_destroy(w->auth);
	cluster_exec_result_fini(&w->result);
	event_base_free(w->base);
	snprintf(command, sizeof(command), "rm -rf %s", w->dir);
	assert_int_equal(system(command), 0);
	free(w);
	return 0;
}

static int create(struct world *w, struct error *err)
{
	struct cluster_auth_config config = { .base = w->base,
		.kubeconfig_path = w->path,
		.exec_timeout_ms = 5000,
		.poll_ms = 20,
		.voice = { note, w },
		.changed = changed,
		.arg = w };
	return cluster_auth_create(&config, &w->auth, err);
}

static void create_good(struct world *w)
{
	struct error err = { 0 };
	char line[500];
	if (create(w, &err) != 0)
		fail_msg("%s", error_first(&err, line, sizeof(line)));
}

// Runs the loop until the count is reached.
static void wait_for(struct world *w, const uint32_t *count, uint32_t wanted, const char *what)
{
	time_t end = time(NULL) + WAIT_S;
	while (*count < wanted && time(NULL) < end)
		event_base_loop(w->base, EVLOOP_ONCE);
	if (*count < wanted)
		fail_msg("never came: %s", what);
}

static void assert_bearer(struct world *w, const char *token)
{
	const struct cluster_credentials *now = cluster_auth_get(w->auth);
	assert_non_null(now);
	assert_non_null(now->bearer);
	assert_string_equal(now->bearer, token);
}

// ---------------------------------------------------------------- certificates

struct made { // PEM
	char *cert;
	char *key;
};

static char *bio_text(BIO *bio)
{
	char *bytes = NULL;
	long len = BIO_get_mem_data(bio, &bytes);
	char *text = strndup(bytes, (size_t)len);
	BIO_free(bio);
	return text;
}

static struct made make_pair(long seconds)
{
	struct made made;
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x = X509_new();
	assert_non_null(key);
	ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
	X509_gmtime_adj(X509_getm_notBefore(x), 0);
	X509_gmtime_adj(X509_getm_notAfter(x), seconds);
	X509_set_pubkey(x, key);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
		(const unsigned char *)"edge", -1, -1, 0);
	X509_set_issuer_name(x, X509_get_subject_name(x));
	assert_true(X509_sign(x, key, EVP_sha256()) > 0);
	BIO *cert = BIO_new(BIO_s_mem()), *own = BIO_new(BIO_s_mem());
	PEM_write_bio_X509(cert, x);
	PEM_write_bio_PrivateKey(own, key, NULL, NULL, 0, NULL, NULL);
	made.cert = bio_text(cert);
	made.key = bio_text(own);
	X509_free(x);
	EVP_PKEY_free(key);
	return made;
}

static void made_fini(struct made *made)
{
	free(made->cert);
	free(made->key);
}

static void test_pem(void **state)
{
	struct made a = make_pair(3600), b = make_pair(-3600);
	struct kubeconfig_blob cert = { NULL, a.cert, strlen(a.cert) };
	struct kubeconfig_blob key = { NULL, a.key, strlen(a.key) };
	struct kubeconfig_blob other = { NULL, b.key, strlen(b.key) };
	struct kubeconfig_blob junk = { NULL, "-----BEGIN X-----", 17 };
	char why[200];
	int64_t expires_ms = 0, now_ms = clock_wall_ms();
	assert_int_equal(cluster_pem_check_pair(&cert, &key, why, sizeof(why)), 0);
	assert_int_equal(cluster_pem_check_pair(&cert, &other, why, sizeof(why)), -EINVAL);
	assert_string_equal(why, "the key is not that of the certificate");
	assert_int_equal(cluster_pem_check_pair(&junk, &key, why, sizeof(why)), -EINVAL);
	assert_int_equal(cluster_pem_check_pair(&cert, &junk, why, sizeof(why)), -EINVAL);
	assert_int_equal(cluster_pem_expiry(a.cert, strlen(a.cert), &expires_ms), 0);
	assert_true(expires_ms > now_ms + 3000000 && expires_ms < now_ms + 4000000);
	assert_int_equal(cluster_pem_expiry(b.cert, strlen(b.cert), &expires_ms), 0);
	assert_true(expires_ms < now_ms);
	assert_int_equal(cluster_pem_expiry("", 0, &expires_ms), -EINVAL);
	made_fini(&a);
	made_fini(&b);
}

// ---------------------------------------------------------------- files

static void test_static(void **state)
{
	struct world *w = *state;
	put_config(w, "", "token: abc");
	create_good(w);
	assert_bearer(w, "abc");
	assert_string_equal(cluster_auth_why(w->auth), "");
	assert_int_equal(cluster_auth_expires_ms(w->auth), 0);
	assert_int_equal(cluster_auth_reject(w->auth, "abc"), -ENOENT);
	assert_int_equal(cluster_auth_reject(w->auth, "older"), 0);
	assert_int_equal(w->n_changed, 0);
}

static void test_bad_config(void **state)
{
	struct world *w = *state;
	struct error err = { 0 };
	assert_int_equal(create(w, &err), -ENOENT);
	assert_null(w->auth);
	put_config(w, "", "token: 'a b'");
	assert_int_equal(create(w, &err), -EINVAL);
	// what only a look into the bytes can tell
	put_config(w,
		"certificate-authority-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==", "token: t");
	assert_int_equal(create(w, &err), -EINVAL);
	assert_int_equal(err.n_items, 3);
	assert_non_null(strstr(err.items[2].text, "no certificate in it can be read"));
	error_fini(&err);
}

static void test_token_file(void **state)
{
	struct world *w = *state;
	put_config(w, "", "tokenFile: token");
	create_good(w);
	assert_null(cluster_auth_get(w->auth)); // not there yet
	assert_non_null(strstr(cluster_auth_why(w->auth), "token is not usable"));
	put_file(w, "token", " one\n\n");
	wait_for(w, &w->n_changed, 1, "the token");
	assert_bearer(w, "one");
	put_file(w, "token", "two\n");
	wait_for(w, &w->n_changed, 2, "the next token");
	assert_bearer(w, "two");
	// A token that is none: said, the former one stays.
	uint32_t n_notes = w->n_notes;
	put_file(w, "token", "a b");
	wait_for(w, &w->n_notes, n_notes + 1, "the refusal");
	assert_non_null(strstr(w->last_note, "the former one stays in force"));
	assert_bearer(w, "two");
	put_file(w, "token", "three");
	wait_for(w, &w->n_changed, 3, "a good one again");
	assert_bearer(w, "three");
	// Gone: the last one stays.
	n_notes = w->n_notes;
	unlink(path_in(w, "token"));
	wait_for(w, &w->n_notes, n_notes + 1, "the refusal");
	assert_bearer(w, "three");
}

// After a 401 the file is read at once, not at the next look.
static void test_reject_reads(void **state)
{
	struct world *w = *state;
	put_file(w, "token", "one");
	put_config(w, "", "tokenFile: token");
	create_good(w);
	assert_bearer(w, "one");
	assert_int_equal(cluster_auth_reject(w->auth, "one"), -ENOENT);
	put_file(w, "token", "two");
	assert_int_equal(cluster_auth_reject(w->auth, "one"), 0);
	assert_int_equal(w->n_changed, 1);
	assert_bearer(w, "two");
	assert_int_equal(cluster_auth_reject(w->auth, "one"), 0);
	assert_int_equal(cluster_auth_reject(w->auth, "two"), -ENOENT);
}

static void test_pair(void **state)
{
	struct world *w = *state;
	struct made a = make_pair(3600), b = make_pair(7200), ca = make_pair(3600),
		    ca2 = make_pair(99);
	put_file(w, "crt", a.cert);
	put_file(w, "key", a.key);
	put_file(w, "ca", ca.cert);
	put_config(w, "certificate-authority: ca", "client-certificate: crt, client-key: key");
	create_good(w);
	const struct cluster_credentials *now = cluster_auth_get(w->auth);
	assert_non_null(now);
	assert_string_equal(now->cert.bytes, a.cert);
	assert_string_equal(now->key.bytes, a.key);
	assert_string_equal(now->ca.bytes, ca.cert);
	assert_null(now->bearer);
	uint64_t generation = now->tls_generation;
	assert_true(cluster_auth_expires_ms(w->auth) > clock_wall_ms());
	// Half a change is none.
	uint32_t n_notes = w->n_notes;
	put_file(w, "crt", b.cert);
	wait_for(w, &w->n_notes, n_notes + 1, "the refusal");
	assert_non_null(strstr(w->last_note, "the key is not that of the certificate"));
	now = cluster_auth_get(w->auth);
	assert_string_equal(now->cert.bytes, a.cert);
	assert_int_equal(now->tls_generation, generation);
	put_file(w, "key", b.key);
	wait_for(w, &w->n_changed, 1, "the pair");
	now = cluster_auth_get(w->auth);
	assert_string_equal(now->cert.bytes, b.cert);
	assert_string_equal(now->key.bytes, b.key);
	assert_int_equal(now->tls_generation, generation + 1);
	// The CA by itself; one that cannot be read is refused.
	put_file(w, "ca", "junk");
	n_notes = w->n_notes;
	wait_for(w, &w->n_notes, n_notes + 1, "the refusal");
	assert_string_equal(cluster_auth_get(w->auth)->ca.bytes, ca.cert);
	put_file(w, "ca", ca2.cert);
	assert_int_equal(cluster_auth_look(w->auth), 0);
	assert_int_equal(w->n_changed, 2);
	assert_string_equal(cluster_auth_get(w->auth)->ca.bytes, ca2.cert);
	assert_int_equal(cluster_auth_get(w->auth)->tls_generation, generation + 2);
	assert_int_equal(cluster_auth_look(w->auth), -ENOENT);
	made_fini(&a);
	made_fini(&b);
	made_fini(&ca);
	made_fini(&ca2);
}

// A certificate that ends soon is said once, and again when it has ended; a new one is not.
static void test_expiry(void **state)
{
	static const struct {
		long seconds;
		const char *says; // NULL: nothing
	} cases[] = { { 6 * 24 * 3600, "ends within 7 days" }, { 3600, "ends within 1 day" },
		{ -60, "has ended" }, { 20 * 24 * 3600, "ends within 30 days" },
		{ 40 * 24 * 3600, NULL } };
	struct world *w = *state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct made made = make_pair(cases[i].seconds);
		put_file(w, "crt", made.cert);
		put_file(w, "key", made.key);
		if (i == 0) {
			put_config(w, "", "client-certificate: crt, client-key: key");
			create_good(w);
		} else {
			cluster_auth_look(w->auth);
		}
		w->n_notes = 0;
		for (int k = 0; k < 3; k++)
			event_base_loop(w->base, EVLOOP_ONCE);
		assert_int_equal(w->n_notes, cases[i].says != NULL);
		if (cases[i].says && !strstr(w->last_note, cases[i].says))
			fail_msg("%s: %s", cases[i].says, w->last_note);
		made_fini(&made);
	}
}

static void test_config_changes(void **state)
{
	struct world *w = *state;
	put_config(w, "", "token: one");
	create_good(w);
	uint32_t n_notes = w->n_notes;
	put_config(w, "", "token: [one]");
	wait_for(w, &w->n_notes, n_notes + 1, "the refusal");
	assert_non_null(strstr(w->last_note, "the former kubeconfig stays in force"));
	assert_bearer(w, "one");
	put_config(w, "", "token: two");
	wait_for(w, &w->n_changed, 1, "the kubeconfig");
	assert_bearer(w, "two");
}

// ---------------------------------------------------------------- plugins

static void test_exec_decode(void **state)
{
	static const struct {
		const char *text;
		const char *says; // NULL: good
	} cases[] = {
		{ "{\"token\":\"t\"}", NULL },
		{ "{\"token\":\"t\",\"expirationTimestamp\":\"2026-01-31T12:00:00Z\"}", NULL },
		{ "{\"token\":\"t\",\"expirationTimestamp\":\"2026-01-31T14:00:00.25+02:00\"}",
			NULL },
		{ "{\"token\":\"t\",\"expirationTimestamp\":\"2026-01-31T10:30:00-01:30\"}", NULL },
		{ "{\"token\":\"t\",\"expirationTimestamp\":null,\"clientKeyData\":\"\"}", NULL },
		{ "{\"clientCertificateData\":\"c\",\"clientKeyData\":\"k\"}", NULL },
		{ "{}", "neither token nor" },
		{ "{\"token\":\"\"}", "neither token nor" },
		{ "{\"token\":5}", "status.token is not a text" },
		{ "{\"token\":\"a\\nb\"}", "not printable ASCII" },
		{ "{\"token\":\"t\",\"expirationTimestamp\":\"soon\"}", "RFC 3339" },
		{ "{\"token\":\"t\",\"expirationTimestamp\":\"2026-01-31T12:00:00\"}", "RFC 3339" },
		{ "{\"token\":\"t\",\"expirationTimestamp\":7}", "RFC 3339" },
		{ "{\"clientCertificateData\":\"c\"}", "one of clientCertificateData" },
		{ "[]", "no status" },
		{ "{\"token\":\"t\",\"token\":\"u\"}", "not JSON" },
	};
	struct kubeconfig_exec exec = { .api_version = "client.authentication.k8s.io/v1" };
	struct kubeconfig k = { .exec = &exec };
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct cluster_exec_result result = { 0 };
		char text[500], why[300] = "";
		int n = snprintf(text, sizeof(text),
			"{\"kind\":\"ExecCredential\",\"apiVersion\":\"client.authentication.k8s."
			"io/v1\","
			"\"status\":%s}",
			cases[i].text);
		int rc = cluster_exec_decode(&k, text, (size_t)n, &result, why, sizeof(why));
		if ((rc == 0) != (cases[i].says == NULL) ||
			(rc != 0 && !strstr(why, cases[i].says)))
			fail_msg("%s: %d %s", cases[i].text, rc, why);
		if (i >= 1 && i <= 3)
			assert_int_equal(result.expires_ms, 1769860800000ll);
		cluster_exec_result_fini(&result);
	}
	static const char *const whole[][2] = { { "", "not JSON" },
		{ "{}", "not an ExecCredential" },
		{ "{\"kind\":\"ExecCredential\"}", "apiVersion \"\"" },
		{ "{\"kind\":\"ExecCredential\",\"apiVersion\":\"client.authentication.k8s.io/"
		  "v1beta1\"}",
			"allowed: \"client.authentication.k8s.io/v1\"" } };
	for (size_t i = 0; i < ARRAY_SIZE(whole); i++) {
		struct cluster_exec_result result = { 0 };
		char why[300] = "";
		assert_int_equal(cluster_exec_decode(&k, whole[i][0], strlen(whole[i][0]), &result,
					 why, sizeof(why)),
			-EINVAL);
		assert_non_null(strstr(why, whole[i][1]));
	}
}

static void test_exec_question(void **state)
{
	struct kubeconfig_exec exec = { .api_version = "client.authentication.k8s.io/v1" };
	struct kubeconfig_blob ca = { NULL, "hello", 5 };
	struct kubeconfig k = { .exec = &exec,
		.server = "https://a:443",
		.tls_server_name = "n",
		.proxy_url = "http://p" };
	char *text = cluster_exec_question(&k, &ca);
	assert_string_equal(text,
		"{\"kind\":\"ExecCredential\",\"apiVersion\":"
		"\"client.authentication.k8s.io/v1\",\"spec\":{\"interactive\":false}}");
	free(text);
	exec.provide_cluster_info = true;
	k.exec_config = json_pack("{s:i}", "depth", 3);
	text = cluster_exec_question(&k, &ca);
	assert_string_equal(text,
		"{\"kind\":\"ExecCredential\",\"apiVersion\":\"client.authentication.k8s.io/v1\","
		"\"spec\":{\"interactive\":false,\"cluster\":{\"server\":\"https://a:443\","
		"\"tls-server-name\":\"n\",\"proxy-url\":\"http://p\",\"config\":{\"depth\":3},"
		"\"certificate-authority-data\":\"aGVsbG8=\"}}}");
	free(text);
	json_decref(k.exec_config);
}

static void exec_done(void *arg, struct cluster_exec_result *result, const char *why)
{
	struct world *w = arg;
	w->is_done = true;
	if (result) {
		w->result = *result;
		*result = (struct cluster_exec_result){ 0 };
	}
	snprintf(w->why, sizeof(w->why), "%s", why);
}

// Runs a script as the plugin; its outcome is in w.
static void run_plugin(struct world *w, const char *script, uint32_t timeout_ms)
{
	struct kubeconfig_exec exec = { .api_version = "client.authentication.k8s.io/v1",
		.args = { "one", "two three" },
		.n_args = 2,
		.env = { { "REGION", "north" } },
		.n_env = 1,
		.install_hint = "ask somebody" };
	struct kubeconfig k = { .exec = &exec, .server = "https://a:443" };
	char command[256], why[600] = "";
	put_file(w, "plugin", script);
	snprintf(command, sizeof(command), "%s", path_in(w, "plugin"));
	exec.command = command;
	w->is_done = false;
	cluster_exec_result_fini(&w->result);
	assert_non_null(
		cluster_exec_run(w->base, &k, NULL, timeout_ms, exec_done, w, why, sizeof(why)));
	time_t end = time(NULL) + WAIT_S;
	while (!w->is_done && time(NULL) < end)
		event_base_loop(w->base, EVLOOP_ONCE);
	assert_true(w->is_done);
}

#define SAY(token)                                                                                 \
	"printf '{\"kind\":\"ExecCredential\",\"apiVersion\":\"client.authentication.k8s.io/v1\"," \
	"\"status\":{\"token\":\"%s\"}}' " token "\n"

// The process whose number is in that file ends, or is no more than a name that nobody waits for.
static void assert_gone(const struct world *w, const char *name)
{
	char path[64], text[512] = "";
	int pid = 0;
	FILE *file = fopen(path_in(w, name), "r");
	assert_non_null(file);
	assert_int_equal(fscanf(file, "%d", &pid), 1);
	fclose(file);
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	for (time_t end = time(NULL) + WAIT_S; time(NULL) < end;) {
		file = fopen(path, "r");
		if (file == NULL)
			return;
		const char *line = fgets(text, sizeof(text), file);
		fclose(file);
		const char *state = line ? strrchr(line, ')') : NULL;
		if (state == NULL || state[2] == 'Z')
			return;
	}
	fail_msg("%d lives", pid);
}

static void test_exec_run(void **state)
{
	struct world *w = *state;
	setenv("REGION", "south", 1);
	assert_int_equal(dup2(STDIN_FILENO, 9), 9); // not closed by itself
	run_plugin(w, "#!/bin/sh\n" SAY("\"$1.${2#* }.$REGION.$#\""), 10000);
	assert_string_equal(w->why, "");
	assert_string_equal(w->result.token, "one.three.north.2");
	// What it is asked, that it has no terminal and nothing of ours open.
	run_plugin(w,
		"#!/bin/sh\n"
		"case \"$KUBERNETES_EXEC_INFO\" in *'\"interactive\":false'*) a=asked;; esac\n"
		"[ -t 0 ] || b=alone; read line || c=empty; [ -e /proc/self/fd/9 ] || "
		"d=closed\n" SAY("$a.$b.$c.$d"),
		10000);
	assert_string_equal(w->result.token, "asked.alone.empty.closed");
	run_plugin(w, "#!/bin/sh\necho not today >&2; exit 3\n", 10000);
	assert_null(w->result.token);
	assert_non_null(strstr(w->why, "exit code 3: not today; ask somebody"));
	run_plugin(w, "#!/bin/sh\nkill -9 $$\n", 10000);
	assert_non_null(strstr(w->why, "ended by signal 9"));
	run_plugin(w, "#!/bin/sh\necho hello\n", 10000);
	assert_non_null(strstr(w->why, "not JSON"));
	run_plugin(w, "#!/bin/sh\nsleep 1000 & echo $! > $0.pid; wait\n", 500);
	assert_non_null(strstr(w->why, "not ready after 500 ms, killed"));
	assert_gone(w, "plugin.pid"); // what it started too
	run_plugin(w, "#!/bin/sh\nyes\n", 10000);
	assert_non_null(strstr(w->why, "more than 1048576 bytes of output"));
	close(9);
	// A helper of the plugin keeps its output open.
	run_plugin(w, "#!/bin/sh\nsleep 1000 &\n" SAY("t"), 200);
	assert_non_null(strstr(w->why, "killed"));
}

static void test_exec_missing(void **state)
{
	struct world *w = *state;
	struct kubeconfig_exec exec = { .api_version = "client.authentication.k8s.io/v1",
		.command = "/nonexistent/plugin",
		.install_hint = "install it" };
	struct kubeconfig k = { .exec = &exec, .server = "https://a:443" };
	char why[600] = "";
	assert_null(cluster_exec_run(w->base, &k, NULL, 1000, exec_done, w, why, sizeof(why)));
	assert_string_equal(
		why, "/nonexistent/plugin cannot be run: No such file or directory; install it");
	assert_false(w->is_done);
}

static void put_plugin(struct world *w, const char *script)
{
	put_file(w, "plugin", script);
	put_config(w, "",
		"exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin, "
		"interactiveMode: "
		"Never}");
}

static void test_exec_auth(void **state)
{
	struct world *w = *state;
	put_plugin(w, "#!/bin/sh\nn=$(cat $0.n 2>/dev/null); echo x >> $0.n\n" SAY("t$n"));
	create_good(w);
	assert_null(cluster_auth_get(w->auth));
	wait_for(w, &w->n_changed, 1, "the credentials");
	assert_bearer(w, "t");
	// 401: it runs again, but not at once.
	assert_int_equal(cluster_auth_reject(w->auth, "older"), 0);
	assert_int_equal(cluster_auth_reject(w->auth, "t"), -ENOENT);
	wait_for(w, &w->n_changed, 2, "new credentials");
	assert_bearer(w, "tx");
}

// It fails: said with its words, tried again, and then it goes on.
static void test_exec_fails(void **state)
{
	struct world *w = *state;
	put_plugin(w, "#!/bin/sh\n[ -e $0.now ] || { echo no card >&2; exit 1; }\n" SAY("late"));
	create_good(w);
	wait_for(w, &w->n_notes, 1, "the refusal");
	assert_non_null(strstr(w->last_note, "exit code 1: no card"));
	assert_null(cluster_auth_get(w->auth));
	assert_non_null(strstr(cluster_auth_why(w->auth), "no card"));
	put_file(w, "plugin.now", "");
	wait_for(w, &w->n_changed, 1, "the credentials");
	assert_bearer(w, "late");
}

// Credentials that end soon are renewed before they end.
static void test_exec_expires(void **state)
{
	struct world *w = *state;
	put_plugin(w,
		"#!/bin/sh\nat=$(date -u -d '+6 sec' +%Y-%m-%dT%H:%M:%SZ)\n"
		"printf "
		"'{\"kind\":\"ExecCredential\",\"apiVersion\":\"client.authentication.k8s.io/v1\","
		"\"status\":{\"token\":\"%s\",\"expirationTimestamp\":\"%s\"}}' $$ $at\n");
	create_good(w);
	wait_for(w, &w->n_changed, 2, "the renewal");
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pem),
		IN_WORLD(test_static),
		IN_WORLD(test_bad_config),
		IN_WORLD(test_token_file),
		IN_WORLD(test_reject_reads),
		IN_WORLD(test_pair),
		IN_WORLD(test_expiry),
		IN_WORLD(test_config_changes),
		cmocka_unit_test(test_exec_decode),
		cmocka_unit_test(test_exec_question),
		IN_WORLD(test_exec_run),
		IN_WORLD(test_exec_missing),
		IN_WORLD(test_exec_auth),
		IN_WORLD(test_exec_fails),
		IN_WORLD(test_exec_expires),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
