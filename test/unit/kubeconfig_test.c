// SPDX-License-Identifier: BSD-3-Clause
// kubeconfig: what a good one decodes to, in YAML and in JSON, and what everything else is refused with, at its line.
#include "edits_priv.h"
#include "kubeconfig_priv.h"
#include "tree_priv.h"

#include <errno.h>
#include <unistd.h>

#define GOOD "test/fixtures/kubeconfig_good.yaml"
#define PATH "/etc/sluice/kubeconfig"
#define SEED 0x5eed0005u

static int decode(const char *text, size_t len, struct kubeconfig **out, struct error *err)
{
	return kubeconfig_decode(text, len, PATH, out, err, NULL);
}

static struct kubeconfig *decode_good(const char *text)
{
	struct kubeconfig *k = NULL;
	struct error err = { 0 };
	char line[900];
	if (decode(text, strlen(text), &k, &err))
		fail_msg("%s", error_first(&err, line, sizeof(line)));
	assert_int_equal(err.n_items, 0);
	return k;
}

static void assert_good(const struct kubeconfig *k)
{
	assert_string_equal(k->path, PATH);
	assert_string_equal(k->context, "edge");
	assert_string_equal(k->cluster, "prod");
	assert_string_equal(k->user, "edge-user");
	assert_string_equal(k->namespace, "sluice-system");
	assert_true(k->is_https);
	assert_string_equal(k->host, "api.example.com");
	assert_int_equal(k->port, 6443);
	assert_string_equal(k->prefix, "/base");
	assert_string_equal(k->server, "https://api.example.com:6443/base");
	assert_string_equal(k->tls_server_name, "kubernetes.default");
	assert_false(k->insecure);
	assert_string_equal(k->ca.path, "/etc/sluice/pki/ca.crt");
	assert_null(k->ca.bytes);
	assert_string_equal(k->proxy_url, "socks5://192.0.2.7:1080");
	assert_string_equal(k->cert.bytes, "-----BEGIN CERTIFICATE-----\n");
	assert_int_equal(k->cert.len, 28);
	assert_string_equal(k->key.path, "/etc/sluice/edge.key");
	assert_string_equal(k->as, "system:serviceaccount:kube-system:sluice");
	assert_string_equal(k->as_uid, "17");
	assert_int_equal(k->n_as_groups, 2);
	assert_string_equal(k->as_groups[1], "system:masters");
	assert_int_equal(k->n_as_extra, 2);
	assert_string_equal(k->as_extra[1].name, "example.com%2Freason");
	assert_string_equal(k->as_extra[1].value, "night shift");
	assert_null(k->token);
	assert_null(k->username);
}

static void assert_exec(const struct kubeconfig *k)
{
	const struct kubeconfig_exec *exec = k->exec;
	assert_non_null(exec);
	assert_string_equal(exec->api_version, "client.authentication.k8s.io/v1");
	assert_string_equal(exec->command, "/etc/sluice/bin/token-helper");
	assert_int_equal(exec->n_args, 2);
	assert_string_equal(exec->args[1], "edge");
	assert_int_equal(exec->n_env, 2);
	assert_string_equal(exec->env[0].name, "REGION");
	assert_string_equal(exec->env[0].value, "north");
	assert_string_equal(exec->env[1].value, "");
	assert_string_equal(exec->install_hint, "ask the platform team");
	assert_string_equal(exec->interactive_mode, "IfAvailable");
	assert_true(exec->provide_cluster_info);
	char *config = json_dumps(k->exec_config, JSON_COMPACT | JSON_SORT_KEYS);
	assert_string_equal(config, "{\"audience\":\"edge\",\"depth\":3,\"on\":true}");
	free(config);
}

static void test_good(void **state)
{
	char *text = edits_read(GOOD);
	struct kubeconfig *k = decode_good(text);
	assert_good(k);
	assert_exec(k);
	kubeconfig_destroy(k);
	free(text);
}

// The same as JSON, compact, with tabs, and with blanks: one meaning.
static void test_json(void **state)
{
	static const size_t flags[] = { JSON_COMPACT, JSON_INDENT(4), JSON_INDENT(1) };
	char *text = edits_read(GOOD);
	struct arena arena = { 0 };
	struct tree *root = NULL;
	assert_int_equal(tree_read(text, strlen(text), &arena, &root, NULL), 0);
	json_t *json = tree_to_json(root);
	assert_non_null(json);
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		char *dump = json_dumps(json, flags[i]);
		for (char *c = dump; i == 2 && *c; c++)
			if (*c == '\n')
				for (; c[1] == ' '; c++)
					c[1] = '\t';
		struct kubeconfig *k = decode_good(dump);
		assert_good(k);
		assert_exec(k);
		kubeconfig_destroy(k);
		free(dump);
	}
	json_decref(json);
	arena_fini(&arena);
	free(text);
}

#define FRAME(cluster, user)                                      \
	"current-context: c\n"                                    \
	"contexts: [{name: c, context: {cluster: k, user: u}}]\n" \
	"clusters: [{name: k, cluster: {" cluster "}}]\n"         \
	"users: [{name: u, user: {" user "}}]\n"

static void test_servers(void **state)
{
	static const struct {
		const char *url, *server, *host, *prefix;
		uint16_t port;
	} cases[] = {
		{ "https://192.0.2.1", "https://192.0.2.1:443", "192.0.2.1", "", 443 },
		{ "HTTPS://192.0.2.1:6443/", "https://192.0.2.1:6443", "192.0.2.1", "", 6443 },
		{ "https://[2001:db8::1]:6443", "https://[2001:db8::1]:6443", "2001:db8::1", "",
			6443 },
		{ "https://[::1]", "https://[::1]:443", "::1", "", 443 },
		{ "http://127.0.0.1:8001", "http://127.0.0.1:8001", "127.0.0.1", "", 8001 },
		{ "http://localhost", "http://localhost:80", "localhost", "", 80 },
		{ "https://a.example/k8s/clusters/c-1//", "https://a.example:443/k8s/clusters/c-1",
			"a.example", "/k8s/clusters/c-1", 443 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[600];
		snprintf(text, sizeof(text), FRAME("server: '%s'", "token: t"), cases[i].url);
		struct kubeconfig *k = decode_good(text);
		assert_string_equal(k->server, cases[i].server);
		assert_string_equal(k->host, cases[i].host);
		assert_string_equal(k->prefix, cases[i].prefix);
		assert_int_equal(k->port, cases[i].port);
		assert_string_equal(k->token, "t");
		kubeconfig_destroy(k);
	}
}

static void test_methods(void **state)
{
	struct kubeconfig *k = decode_good(FRAME("server: https://a", "tokenFile: t, token: s"));
	assert_string_equal(k->token_path, "/etc/sluice/t");
	kubeconfig_destroy(k);
	k = decode_good(FRAME("server: https://a, insecure-skip-tls-verify: True",
		"username: a b, password: ' c'"));
	assert_string_equal(k->username, "a b");
	assert_string_equal(k->password, " c");
	assert_true(k->insecure);
	kubeconfig_destroy(k);
	k = decode_good(FRAME("server: https://a, insecure-skip-tls-verify: null, proxy-url: ~",
		"exec: {command: helper, apiVersion: client.authentication.k8s.io/v1beta1}"));
	assert_string_equal(k->exec->command, "helper"); // PATH knows
	assert_null(k->exec->interactive_mode);
	assert_false(k->insecure);
	kubeconfig_destroy(k);
}

static bool says(const struct error *err, const char *part)
{
	char line[900];
	for (uint32_t i = 0; i < err->n_items; i++)
		if (strstr(error_format(err, i, line, sizeof(line)), part))
			return true;
	return false;
}

// Taken, but said.
static void test_warnings(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ FRAME("server: https://a, certificate-authoritty: b", "token: t"), PATH
			":3: clusters[0].cluster.certificate-authoritty: unknown key, not heeded, "
			"did you mean \"certificate-authority\"?" },
		{ FRAME("server: https://a", "token: t, zzz: 1"),
			PATH ":4: users[0].user.zzz: unknown key, not heeded" },
		{ "curent-context: c\n" FRAME("server: https://a", "token: t"),
			PATH ":1: curent-context: unknown key, not heeded, did you mean "
			     "\"current-context\"?" },
		{ FRAME("server: https://a", ""), PATH ":4: users[0].user: no credentials" },
		{ FRAME("server: https://a, insecure-skip-tls-verify: true", "token: t"),
			PATH ":3: clusters[0].cluster.insecure-skip-tls-verify: true: anybody" },
		{ FRAME("server: https://a, certificate-authority: b, certificate-authority-data: "
			"LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==",
			  "token: t"),
			"certificate-authority: certificate-authority-data is there too and is "
			"taken" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error err = { 0 }, warnings = { 0 };
		struct kubeconfig *k = NULL;
		assert_int_equal(kubeconfig_decode(cases[i].text, strlen(cases[i].text), PATH, &k,
					 &err, &warnings),
			0);
		assert_int_equal(err.n_items, 0);
		if (!says(&warnings, cases[i].says))
			fail_msg("not warned: %s", cases[i].says);
		error_fini(&warnings);
		kubeconfig_destroy(k);
	}
}

// ---------------------------------------------------------------- refusals

static const struct edit edits[] = {
	// the text
	{ "kind: Config", "kind: Config: x", "", "allowed: YAML or JSON in UTF-8", NULL },
	{ "kind: Config", "kind: [Config", "", "allowed: YAML or JSON in UTF-8",
		"preferences: {}" },
	{ "kind: Config", "kind: \"Config", "", "allowed: YAML or JSON", "as-uid" },
	{ "kind: Config", "\tkind: Config", "", "allowed: YAML or JSON", NULL },
	{ "kind: Config", "kind: \xff", "", "allowed: YAML or JSON in UTF-8", NULL },
	{ "kind: Config", "kind: &a Config", "", "an anchor (&) or tag (!); allowed: plain", NULL },
	{ "kind: Config", "kind: *a", "", "an alias (*); allowed: values written out", NULL },
	{ "kind: Config", "kind: !!str Config", "", "an anchor (&) or tag (!); allowed: plain",
		NULL },
	{ "preferences: {}", "preferences: &a {}", "", "an anchor (&) or tag (!)", NULL },
	{ "preferences: {}", "preferences: &a []", "", "an anchor (&) or tag (!)", NULL },
	{ "kind: Config", "kind: Config\nkind: Config", "", "key \"kind\" is in line 3 too",
		"kind: Config\npreferences" },
	{ "kind: Config", "kind: Config\n---\na: 1", "", "a second document; allowed: one",
		"---\n" },
	{ "kind: Config", "[a]: Config", "", "a list or map as a key; allowed: text", NULL },
	{ "kind: Config", "kind: \"a\\0b\"", "", "a NUL character in a text", NULL },
	{ "preferences: {}",
		"preferences: "
		"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
		"", "nested too deep; allowed: 32 levels", NULL },
	// what it is
	{ "kind: Config", "kind: Pod", "kind", "\"Pod\"; allowed: \"Config\"", NULL },
	{ "kind: Config", "kind: [a]", "kind", "a list; allowed: a text", NULL },
	{ "apiVersion: v1\n", "apiVersion: v2\n", "apiVersion", "\"v2\"; allowed: \"v1\"", NULL },
	{ "current-context: edge\n", "", "current-context", "missing; allowed: the name of one of",
		"apiVersion: v1\nkind" },
	{ "current-context: edge\n", "current-context:\n", "current-context", "missing",
		"apiVersion: v1\nkind" },
	{ "current-context: edge\n", "current-context: {a: b}\n", "current-context",
		"a map; allowed: a text", NULL },
	{ "current-context: edge\n", "current-context: egde\n", "contexts",
		"no entry named \"egde\"; allowed: \"elsewhere\", \"edge\"", "contexts:\n" },
	{ "contexts:\n- context:\n    cluster: other",
		"contexts:\n- contekst:\n    cluster: prod\n    user: nobody\n  name: edge\n- "
		"context:\n    cluster: other",
		"contexts[0].context", "missing; allowed: a map with cluster and user",
		"contekst:" },
	{ "- context:\n    cluster: prod\n    user: edge-user\n    namespace: sluice-system\n",
		"- context: prod\n", "contexts[1].context", "a text; allowed: a map",
		"context: prod" },
	{ "    cluster: prod\n", "", "contexts[1].context.cluster",
		"missing; allowed: the name of one of clusters", "context:\n    user: edge-user" },
	{ "    user: edge-user\n", "", "contexts[1].context.user",
		"missing; allowed: the name of one of users",
		"context:\n    cluster: prod\n    name" },
	{ "    cluster: prod\n", "    cluster: nowhere\n", "clusters",
		"no entry named \"nowhere\"; allowed: \"other\", \"prod\"", "clusters:\n" },
	{ "    user: edge-user\n", "    user: somebody\n", "users",
		"no entry named \"somebody\"; allowed: \"nobody\", \"edge-user\"", "users:\n" },
	{ "    user: edge-user\n", "    user: [edge-user]\n", "contexts[1].context.user",
		"a list; allowed: a text", NULL },
	{ "namespace: sluice-system", "namespace: \"\"", "contexts[1].context.namespace",
		"\"\"; allowed: a text that is not empty", NULL },
	// the cluster
	{ "    server: https://api.example.com:6443/base/\n", "", "clusters[1].cluster.server",
		"missing; allowed: a URL", "cluster:\n    tls" },
	{ "https://api.example.com:6443/base/", "api.example.com:6443",
		"clusters[1].cluster.server", "allowed: a URL as", NULL },
	{ "https://api.example.com:6443/base/", "ftp://api.example.com",
		"clusters[1].cluster.server", "with scheme https or http", NULL },
	{ "https://api.example.com:6443/base/", "https://:6443", "clusters[1].cluster.server",
		"a host, a port of 1..65535", NULL },
	{ "https://api.example.com:6443/base/", "https://api.example.com:0",
		"clusters[1].cluster.server", "a port of 1..65535", NULL },
	{ "https://api.example.com:6443/base/", "https://api.example.com:65536",
		"clusters[1].cluster.server", "a port of 1..65535", NULL },
	{ "https://api.example.com:6443/base/", "https://api.example.com:6443x",
		"clusters[1].cluster.server", "a port of 1..65535", NULL },
	{ "https://api.example.com:6443/base/", "https://user:pass@api.example.com",
		"clusters[1].cluster.server", "allowed: a URL", NULL },
	{ "https://api.example.com:6443/base/", "https://api.example.com/?a=b",
		"clusters[1].cluster.server", "a path at most", NULL },
	{ "https://api.example.com:6443/base/", "\"https://api.example.com/#x\"",
		"clusters[1].cluster.server", "a path at most", NULL },
	{ "https://api.example.com:6443/base/", "https://[2001:db8::1:6443",
		"clusters[1].cluster.server", "allowed: a URL", NULL },
	{ "https://api.example.com:6443/base/", "https://[192.0.2.1]:6443",
		"clusters[1].cluster.server", "allowed: a URL", NULL },
	{ "https://api.example.com:6443/base/", "https://api.example.com/a/../b",
		"clusters[1].cluster.server", "allowed: a URL", NULL },
	{ "https://api.example.com:6443/base/", "https://api example.com",
		"clusters[1].cluster.server", "a blank, control character", NULL },
	{ "https://api.example.com:6443/base/", "\"https://api.example.com\\r\\nX: y\"",
		"clusters[1].cluster.server", "a blank, control character", NULL },
	{ "https://api.example.com:6443/base/", "http://api.example.com",
		"clusters[1].cluster.server", "with credentials; allowed: https, or a loopback",
		NULL },
	{ "https://api.example.com:6443/base/", "[a]", "clusters[1].cluster.server",
		"a list; allowed: a text", NULL },
	{ "proxy-url: socks5://192.0.2.7:1080", "proxy-url: 192.0.2.7:1080",
		"clusters[1].cluster.proxy-url", "allowed: a URL as \"http://192.0.2.1:3128\"",
		NULL },
	{ "proxy-url: socks5://192.0.2.7:1080", "proxy-url: socks4://192.0.2.7:1080",
		"clusters[1].cluster.proxy-url", "schemes http, https, socks5", NULL },
	{ "proxy-url: socks5://192.0.2.7:1080", "proxy-url: http://",
		"clusters[1].cluster.proxy-url", "allowed: a URL as", NULL },
	{ "disable-compression: true", "insecure-skip-tls-verify: true",
		"clusters[1].cluster.insecure-skip-tls-verify",
		"true beside a certificate authority; allowed: one of them", NULL },
	{ "disable-compression: true", "insecure-skip-tls-verify: yes",
		"clusters[1].cluster.insecure-skip-tls-verify", "\"yes\"; allowed: true or false",
		NULL },
	{ "disable-compression: true", "insecure-skip-tls-verify: 'true'",
		"clusters[1].cluster.insecure-skip-tls-verify", "allowed: true or false", NULL },
	{ "disable-compression: true", "insecure-skip-tls-verify: [true]",
		"clusters[1].cluster.insecure-skip-tls-verify", "a list; allowed: true or false",
		NULL },
	{ "disable-compression: true", "certificate-authority-data: '%%%%'",
		"clusters[1].cluster.certificate-authority-data",
		"not base64; allowed: PEM in base64", NULL },
	{ "tls-server-name: kubernetes.default", "tls-server-name: a b",
		"clusters[1].cluster.tls-server-name", "allowed: printable ASCII", NULL },
	{ "certificate-authority: pki/ca.crt", "certificate-authority: {a: b}",
		"clusters[1].cluster.certificate-authority", "a map; allowed: a text", NULL },
	// the user
	{ "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==", "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg=",
		"users[1].user.client-certificate-data", "not base64", NULL },
	{ "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==", "aGVsbG8=",
		"users[1].user.client-certificate-data", "no PEM in it; allowed: PEM in base64",
		NULL },
	{ "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==", "\"\"",
		"users[1].user.client-certificate-data", "\"\"; allowed: a text", NULL },
	{ "    client-key: /etc/sluice/edge.key\n", "", "users[1].user.client-key",
		"missing beside client-certificate; allowed: both or none", "user:\n    client" },
	{ "    client-certificate-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==\n", "",
		"users[1].user.client-certificate", "missing beside client-key",
		"user:\n    client" },
	{ "    as: system:serviceaccount:kube-system:sluice\n", "", "users[1].user.as",
		"missing beside as-uid, as-groups or as-user-extra", "user:\n    client" },
	{ "as: system:serviceaccount:kube-system:sluice", "as: \"a\\nb\"", "users[1].user.as",
		"a control character", NULL },
	{ "as-groups: [ops, \"system:masters\"]", "as-groups: ops", "users[1].user.as-groups",
		"allowed: a list of at most 64 texts", NULL },
	{ "as-groups: [ops, \"system:masters\"]", "as-groups: [[ops]]", "users[1].user.as-groups",
		"a list; allowed: a text", NULL },
	{ "example.com/reason: [edge, night shift]", "example.com/reason: edge",
		"users[1].user.as-user-extra[\"example.com/reason\"]",
		"a text; allowed: a list of texts", NULL },
	{ "as-user-extra:\n      example.com/reason: [edge, night shift]", "as-user-extra: [a]",
		"users[1].user.as-user-extra", "a list; allowed: a map of lists", NULL },
	{ "as-uid: \"17\"", "token: \"a b\"", "users[1].user.token", "a blank, control character",
		NULL },
	{ "as-uid: \"17\"", "token: abc", "users[1].user.exec",
		"beside token; allowed: one of token, tokenFile", "exec:\n" },
	{ "as-uid: \"17\"", "tokenFile: t", "users[1].user.exec", "beside tokenFile; allowed",
		"exec:\n" },
	{ "as-uid: \"17\"", "username: a", "users[1].user.password", "missing beside username",
		"user:\n    client" },
	{ "as-uid: \"17\"", "password: a", "users[1].user.username", "missing beside password",
		"user:\n    client" },
	{ "as-uid: \"17\"", "username: \"a:b\"", "users[1].user.username",
		"allowed: a name without colon", NULL },
	{ "as-uid: \"17\"", "auth-provider: {name: gcp}", "users[1].user.auth-provider",
		"not supported; allowed: token, tokenFile", NULL },
	// the plugin
	{ "apiVersion: client.authentication.k8s.io/v1\n",
		"apiVersion: client.authentication.k8s.io/v1alpha1\n",
		"users[1].user.exec.apiVersion",
		"allowed: \"client.authentication.k8s.io/v1\", \"client", NULL },
	{ "      apiVersion: client.authentication.k8s.io/v1\n", "",
		"users[1].user.exec.apiVersion", "missing; allowed", "exec:\n" },
	{ "      command: bin/token-helper\n", "", "users[1].user.exec.command",
		"missing; allowed: a path, or a name in PATH", "exec:\n" },
	{ "command: bin/token-helper", "command: \"\"", "users[1].user.exec.command",
		"\"\"; allowed: a text that is not empty", NULL },
	{ "interactiveMode: IfAvailable", "interactiveMode: Always",
		"users[1].user.exec.interactiveMode",
		"wants a terminal, which a daemon has not; allowed: \"Never\"", NULL },
	{ "interactiveMode: IfAvailable", "interactiveMode: sometimes",
		"users[1].user.exec.interactiveMode", "\"sometimes\"; allowed: \"Never\"", NULL },
	{ "      interactiveMode: IfAvailable\n", "", "users[1].user.exec.interactiveMode",
		"missing; allowed with v1", "exec:\n" },
	{ "provideClusterInfo: true", "provideClusterInfo: maybe",
		"users[1].user.exec.provideClusterInfo", "allowed: true or false", NULL },
	{ "      - --audience\n      - 'edge'\n", "        a: b\n", "users[1].user.exec.args",
		"allowed: a list of at most 64 texts", "args:" },
	{ "- 'edge'", "- [edge]", "users[1].user.exec.args", "a list; allowed: a text", NULL },
	{ "- name: REGION", "- nam: REGION", "users[1].user.exec.env[0]",
		"allowed: { name, value }", NULL },
	{ "name: REGION", "name: REG=ION", "users[1].user.exec.env[0]", "a name without =", NULL },
	{ "value: north", "value: [north]", "users[1].user.exec.env[0]", "allowed: { name, value }",
		"name: REGION" },
	{ "env:\n      - name: REGION\n        value: north\n      - name: EMPTY\n        value: "
	  "\"\"",
		"env: {REGION: north}", "users[1].user.exec.env", "allowed: a list of at most 64 {",
		NULL },
	{ "exec:\n", "exec: helper\n    x:\n", "users[1].user.exec", "a text; allowed: a map",
		NULL },
};

static void test_edits(void **state)
{
	char *good = edits_read(GOOD);
	uint32_t n_wrong = 0;
	for (size_t i = 0; i < ARRAY_SIZE(edits); i++) {
		struct error err = { 0 };
		struct kubeconfig *k = NULL;
		uint32_t line = 0;
		char *text = edits_apply(good, &edits[i], &line);
		if (decode(text, strlen(text), &k, &err) == 0)
			fail_msg("taken: %s", edits[i].put);
		assert_null(k);
		assert_true(err.n_items > 0);
		n_wrong += !edits_check(&edits[i], line, &err);
		error_fini(&err);
		free(text);
	}
	assert_int_equal(n_wrong, 0);
	printf("%zu invalidating edits\n", ARRAY_SIZE(edits));
	free(good);
}

// Whole texts that are no kubeconfig.
static void test_texts(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "", "nothing; allowed: a map with clusters" },
		{ "# only a comment\n", "nothing; allowed: a map" },
		{ "null", "nothing; allowed: a map" },
		{ "- a\n- b\n", "a list; allowed: a map" },
		{ "hello", "a text; allowed: a map" },
		{ "{}", "current-context: missing" },
		{ "{\"current-context\": \"c\"}", "contexts: no entry named \"c\"; allowed: none" },
		{ "{\"current-context\": \"c\", \"contexts\": {}}",
			"a map; allowed: a list of { name" },
		{ "{\"current-context\": \"c\", \"contexts\": [1, [], {}, {\"name\": []}]}",
			"no entry named \"c\"" },
		{ "{\"a\": 1, \"a\": 2}", "key \"a\" is in line 1 too" },
		{ "{\"a\": ", "allowed: YAML or JSON" },
		{ "{\"a\" 1}", "allowed: YAML or JSON" },
		{ "\"\\ud800\"", "allowed: YAML or JSON" },
		{ "%YAML 9.1\n---\na: b\n", "allowed: YAML or JSON" },
		{ "a: 'b", "allowed: YAML or JSON" },
		{ "?\n", "allowed: " },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error err = { 0 };
		struct kubeconfig *k = NULL;
		assert_int_equal(decode(cases[i].text, strlen(cases[i].text), &k, &err), -EINVAL);
		if (!says(&err, cases[i].says) || strcmp(err.items[0].file, PATH) != 0)
			fail_msg("%s: not said: %s", cases[i].text, cases[i].says);
		error_fini(&err);
	}
}

static char *repeat(const char *head, const char *part, size_t n, const char *tail)
{
	size_t len = strlen(head) + n * strlen(part) + strlen(tail);
	char *text = malloc(len + 1), *at = text;
	assert_non_null(text);
	at = stpcpy(at, head);
	for (size_t i = 0; i < n; i++)
		at = stpcpy(at, part);
	stpcpy(at, tail);
	return text;
}

static void assert_bomb(char *text, const char *says_what)
{
	struct error err = { 0 };
	struct kubeconfig *k = NULL;
	assert_true(decode(text, strlen(text), &k, &err) < 0);
	if (!says(&err, says_what))
		fail_msg("not said: %s", says_what);
	error_fini(&err);
	free(text);
}

// Texts that would grow or take long.
static void test_bombs(void **state)
{
	assert_bomb(repeat("", "[", 1000000, ""), "nested too deep");
	assert_bomb(repeat("", "{a: ", 200000, ""), "nested too deep");
	assert_bomb(repeat("a: [", "x,", 70000, "]"), "too many values; allowed: 65536");
	assert_bomb(repeat("", "a", TREE_BYTES_MAX + 1, ""), "allowed: at most 1048576");
	assert_bomb(repeat("a: &a [x]\nb: &b [", "*a,", 1000, "]\n"), "an anchor");
	char *text = malloc(40000), *at = text;
	assert_non_null(text);
	for (int i = 0; i < 2000; i++)
		at += sprintf(at, "k%d: 1\n", i);
	assert_bomb(text, "too many keys in one map; allowed: 1024");
}

static void test_base64(void **state)
{
	static const struct {
		const char *text, *bytes;
	} cases[] = { { "", "" }, { "aA==", "h" }, { "aGU=", "he" }, { "aGVs", "hel" },
		{ "aG\nVs\n bG8=", "hello" }, { "+/+/", "\xfb\xff\xbf" }, { "a", NULL },
		{ "aA=", NULL }, { "aA", NULL }, { "a===", NULL }, { "=aAA", NULL },
		{ "aA=A", NULL }, { "aA==aA==", NULL }, { "a-_b", NULL }, { "====", NULL } };
	struct arena arena = { 0 };
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t len = 99;
		const char *bytes = kubeconfig_base64(&arena, cases[i].text, &len);
		if (cases[i].bytes == NULL) {
			if (bytes)
				fail_msg("taken: %s", cases[i].text);
			continue;
		}
		assert_non_null(bytes);
		assert_int_equal(len, strlen(cases[i].bytes));
		assert_string_equal(bytes, cases[i].bytes);
	}
	arena_fini(&arena);
}

static void test_in_cluster(void **state)
{
	static const char *const bad[][2] = { { "", "443" }, { "10.0.0.1", "x" },
		{ "10.0.0.1", "0" }, { "a b", "443" }, { "10.0.0.1/x?", "443" } };
	struct error err = { 0 };
	struct kubeconfig *k = NULL;
	unsetenv("KUBERNETES_SERVICE_HOST");
	unsetenv("KUBERNETES_SERVICE_PORT");
	assert_int_equal(kubeconfig_in_cluster(NULL, &k, &err), -ENOENT);
	assert_string_equal(err.items[0].path, "kubernetes.kubeconfig");
	error_fini(&err);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		setenv("KUBERNETES_SERVICE_HOST", bad[i][0], 1);
		setenv("KUBERNETES_SERVICE_PORT", bad[i][1], 1);
		assert_true(kubeconfig_in_cluster(NULL, &k, &err) < 0);
		assert_true(err.n_items > 0);
		assert_null(k);
		error_fini(&err);
	}
	setenv("KUBERNETES_SERVICE_HOST", "2001:db8::1", 1);
	setenv("KUBERNETES_SERVICE_PORT", "6443", 1);
	assert_int_equal(kubeconfig_in_cluster("/run/account", &k, &err), 0);
	assert_string_equal(k->server, "https://[2001:db8::1]:6443");
	assert_string_equal(k->token_path, "/run/account/token");
	assert_string_equal(k->ca.path, "/run/account/ca.crt");
	kubeconfig_destroy(k);
	k = NULL;
	setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1", 1);
	assert_int_equal(kubeconfig_in_cluster(NULL, &k, &err), 0);
	assert_string_equal(k->server, "https://10.0.0.1:6443");
	assert_string_equal(k->token_path, "/var/run/secrets/kubernetes.io/serviceaccount/token");
	kubeconfig_destroy(k);
}

static void test_files(void **state)
{
	struct error err = { 0 };
	struct kubeconfig *k = NULL;
	char path[] = "/tmp/sluice-kubeconfig-XXXXXX";
	const char *text = FRAME("server: https://a", "tokenFile: token");
	assert_int_equal(kubeconfig_load("/nonexistent/k", &k, &err, NULL), -ENOENT);
	assert_string_equal(err.items[0].file, "/nonexistent/k");
	error_fini(&err);
	assert_int_equal(kubeconfig_load("/tmp", &k, &err, NULL), -EINVAL);
	error_fini(&err);
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	assert_int_equal(kubeconfig_load(path, &k, &err, NULL), 0);
	assert_string_equal(k->token_path, "/tmp/token");
	kubeconfig_destroy(k);
	assert_int_equal(ftruncate(fd, TREE_BYTES_MAX + 1), 0);
	assert_int_equal(kubeconfig_load(path, &k, &err, NULL), -EFBIG);
	error_fini(&err);
	close(fd);
	unlink(path);
}

static void test_mutations(void **state)
{
	static const char *const tokens[] = { "{", "}", "[", "]", ":", ": ", ",", "\n", "\n- ",
		"  ", "\"", "'", "\\", "#", "&a", "*a", "!!str", "|\n", ">\n", "---\n", "null",
		"true", "~", "\xff", "\xc3\xa9", "https://", "user: ", "cluster: ", "edge", "prod",
		"? ", "%", NULL };
	char *good = edits_read(GOOD);
	uint64_t random = SEED;
	uint32_t n_taken = 0;
	printf("seed 0x%x\n", SEED);
	for (int i = 0; i < EDITS_MUTATIONS; i++) {
		struct error err = { 0 }, warnings = { 0 };
		struct kubeconfig *k = NULL;
		size_t len = 0;
		char *text = edits_mutate(good, &random, tokens, &len);
		int rc = kubeconfig_decode(text, len, PATH, &k, &err, &warnings);
		assert_true((rc == 0) == (k != NULL));
		assert_true((rc == 0) == (err.n_items == 0));
		if (rc == 0) {
			n_taken++;
			assert_true(k->server && k->host && k->port && k->user);
		}
		kubeconfig_destroy(k);
		error_fini(&err);
		error_fini(&warnings);
		free(text);
	}
	printf("%d mutations, %u taken\n", EDITS_MUTATIONS, n_taken);
	assert_true(n_taken > 100 && n_taken < EDITS_MUTATIONS * 3 / 4);
	free(good);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_servers),
		cmocka_unit_test(test_methods),
		cmocka_unit_test(test_warnings),
		cmocka_unit_test(test_edits),
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_bombs),
		cmocka_unit_test(test_base64),
		cmocka_unit_test(test_in_cluster),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_mutations),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
