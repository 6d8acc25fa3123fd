// SPDX-License-Identifier: BSD-3-Clause
// Requests to the API server over libcurl's multi interface, driven by the control loop. HTTP/1.1 only; a watch has a connection
// of its own and never asks for compression (its body would be many gzip members in a row, which libcurl does not take).
//
//   begin ─► waiting ──credentials──► running ──head──► body ... ─► end
//               ▲                        │ 401, once
//               └────── other credentials ┘
//
// Callbacks run inside libcurl's, where no transfer may be added or removed: begin and cancel only mark a call, and a timer of
// no delay (kick) does what was marked. A half-open peer is found by the kernel (TCP_USER_TIMEOUT for what is sent, keepalive
// for what is not), a server that accepts and does not answer by the header timer.
#include "cluster_priv.h"

#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define HTTP_CONNECT_MS      5000
#define HTTP_HEADER_MS       10000
#define HTTP_TOTAL_MS        60000
#define HTTP_WAIT_MS         60000 // for credentials
#define HTTP_USER_TIMEOUT_MS 30000
#define HTTP_IDLE_S          60L // a kept connection
#define HTTP_KEPT            32L // watches under way count, too: fewer, and each write would shake hands anew
#define HTTP_WARNINGS_MAX    64

enum call_state { CALL_WAITING, CALL_RUNNING, CALL_DONE };

struct cluster_call {
	struct cluster_http *http;
	struct cluster_call *next, **link; // in the list of all
	struct cluster_request request;    // its texts are owned
	enum call_state state;
	CURL *easy;
	struct curl_slist *headers, *connect_to;
	struct event *limit; // for credentials, then for the head
	char *bearer;        // that it went with
	uint64_t tls_generation;
	uint32_t retry_after_s;
	char content_type[128];
	bool has_head;     // told, or held back
	bool is_held_back; // the 401 that may still be mended
	bool is_retried;
	bool is_cancelled;
	bool is_outdated; // to end because certificates changed
	char error[CURL_ERROR_SIZE];
};

struct cluster_http {
	struct event_base *base;
	struct cluster_auth *auth;
	struct cluster_voice voice;
	CURLM *multi;
	struct event *timer; // libcurl's
	struct event *kick;
	struct cluster_call *calls;
	uint32_t n_calls;
	bool is_inside;                       // libcurl is on the stack
	uint64_t warnings[HTTP_WARNINGS_MAX]; // hashes of Warning headers that were told
	uint32_t n_warnings;
};

static void kick(struct cluster_http *http)
{
	struct timeval now = { 0 };
	if (!evtimer_pending(http->kick, NULL))
		evtimer_add(http->kick, &now);
}

// ---------------------------------------------------------------- calls

static void call_stop(struct cluster_call *call)
{
	if (call->easy) {
		curl_multi_remove_handle(call->http->multi, call->easy);
		curl_easy_cleanup(call->easy);
	}
	curl_slist_free_all(call->headers);
	curl_slist_free_all(call->connect_to);
	free(call->bearer);
	call->easy = NULL;
	call->headers = call->connect_to = NULL;
	call->bearer = NULL;
	if (call->limit)
		evtimer_del(call->limit);
}

static void call_free(struct cluster_call *call)
{
	call_stop(call);
	if (call->limit)
		event_free(call->limit);
	*call->link = call->next;
	if (call->next)
		call->next->link = call->link;
	call->http->n_calls--;
	free((char *)call->request.method);
	free((char *)call->request.path);
	free((char *)call->request.content_type);
	free((void *)call->request.body);
	free(call);
}

static void call_end(struct cluster_call *call, enum cluster_end how, const char *why)
{
	void (*end)(void *arg, enum cluster_end how, const char *why) = call->request.end;
	void *arg = call->request.arg;
	bool is_cancelled = call->is_cancelled;
	char text[400];
	snprintf(text, sizeof(text), "%s", why); // it may be the call's own
	call_free(call);
	if (!is_cancelled)
		end(arg, how, text);
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
	struct cluster_call *call = arg;
	char why[400];
	if (call->state == CALL_WAITING) {
		snprintf(why, sizeof(why), "no credentials: %.300s",
			cluster_auth_why(call->http->auth));
		call_end(call, CLUSTER_END_REFUSED, why);
		return;
	}
	snprintf(why, sizeof(why), "no answer within %u ms", call->request.header_ms);
	call_end(call, CLUSTER_END_TIMEOUT, why);
}

static void limit_set(struct cluster_call *call, uint32_t ms)
{
	struct timeval limit = { ms / 1000, ms % 1000 * 1000 };
	evtimer_add(call->limit, &limit);
}

// ---------------------------------------------------------------- the answer

// Each text once: a Warning comes with every answer.
static void tell_warning(struct cluster_http *http, const char *value, size_t len)
{
	uint64_t hash = 14695981039346656037ull;
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (uint8_t)value[i]) * 1099511628211ull;
	for (uint32_t i = 0; i < http->n_warnings; i++)
		if (http->warnings[i] == hash)
			return;
	if (http->n_warnings == HTTP_WARNINGS_MAX)
		return;
	http->warnings[http->n_warnings++] = hash;
	cluster_say(&http->voice, LOG_LEVEL_WARN, "api-warning",
		cluster_auth_kubeconfig(http->auth)->server, "%.*s", len < 300 ? (int)len : 300,
		value);
}

// Value of a header line when it has that name; blanks around are off.
static const char *header_value(const char *line, size_t len, const char *name, size_t *out_len)
{
	size_t n = strlen(name);
	if (len <= n || strncasecmp(line, name, n) != 0 || line[n] != ':')
		return NULL;
	const char *from = line + n + 1, *to = line + len;
	while (from < to && (*from == ' ' || *from == '\t'))
		from++;
	while (to > from && (unsigned char)to[-1] <= ' ')
		to--;
	*out_len = (size_t)(to - from);
	return from;
}

static void take_header(struct cluster_call *call, const char *line, size_t len)
{
	size_t n = 0;
	const char *value = header_value(line, len, "Retry-After", &n);
	if (value && n > 0 && n < 7 && strspn(value, "0123456789") >= n)
		call->retry_after_s = (uint32_t)strtoul(value, NULL, 10);
	value = header_value(line, len, "Content-Type", &n);
	if (value)
		snprintf(call->content_type, sizeof(call->content_type), "%.*s",
			n < 100 ? (int)n : 100, value);
	value = header_value(line, len, "Warning", &n);
	if (value && n > 4 && strncmp(value, "299 ", 4) == 0)
		tell_warning(call->http, value, n);
}

// The head is whole. A first 401 is held back: there may be other credentials.
static void take_head(struct cluster_call *call)
{
	long status = 0;
	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status < 200) // 100 Continue and its like
		return;
	call->has_head = true;
	evtimer_del(call->limit);
	if (status == 401 && !call->is_retried) {
		call->is_held_back = true;
		return;
	}
	if (call->request.head)
		call->request.head(
			call->request.arg, (int)status, call->retry_after_s, call->content_type);
}

static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
	struct cluster_call *call = arg;
	size_t len = size * n;
	if (call->is_cancelled)
		return 0;
	if (call->has_head) // trailers
		return len;
	if (len <= 2 && line[0] <= '\r')
		take_head(call);
	else
		take_header(call, line, len);
	return call->is_cancelled ? 0 : len;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
	struct cluster_call *call = arg;
	if (!call->is_cancelled && !call->is_held_back && call->request.body_part)
		call->request.body_part(call->request.arg, bytes, size * n);
	return call->is_cancelled ? 0 : size * n;
}

// ---------------------------------------------------------------- a transfer

static int set_socket(void *arg, curl_socket_t fd, curlsocktype purpose)
{
	unsigned int ms = HTTP_USER_TIMEOUT_MS;
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
	return CURL_SOCKOPT_OK;
}

static bool header_add(struct cluster_call *call, const char *name, const char *value)
{
	size_t len = strlen(name) + strlen(value) + 3;
	char *line = malloc(len);
	if (line == NULL)
		return false;
	snprintf(line, len, "%s: %s", name, value);
	struct curl_slist *list = curl_slist_append(call->headers, line);
	free(line);
	if (list)
		call->headers = list;
	return list != NULL;
}

static bool headers_impersonate(struct cluster_call *call, const struct kubeconfig *k)
{
	char name[200];
	bool good = true;
	if (k->as)
		good = header_add(call, "Impersonate-User", k->as);
	if (k->as_uid)
		good = good && header_add(call, "Impersonate-Uid", k->as_uid);
	for (uint32_t i = 0; i < k->n_as_groups; i++)
		good = good && header_add(call, "Impersonate-Group", k->as_groups[i]);
	for (uint32_t i = 0; i < k->n_as_extra; i++) {
		snprintf(name, sizeof(name), "Impersonate-Extra-%.150s", k->as_extra[i].name);
		good = good && header_add(call, name, k->as_extra[i].value);
	}
	return good;
}

static bool headers_set(struct cluster_call *call, const struct cluster_credentials *now)
{
	bool good = header_add(call, "Accept", "application/json") &&
		    header_add(call, "Expect", "") && headers_impersonate(call, now->config);
	if (now->bearer) {
		size_t len = strlen(now->bearer) + 8;
		char *value = malloc(len);
		if (value)
			snprintf(value, len, "Bearer %s", now->bearer);
		good = good && value && header_add(call, "Authorization", value);
		free(value);
		call->bearer = strdup(now->bearer);
		good = good && call->bearer;
	}
	if (call->request.content_type)
		good = good && header_add(call, "Content-Type", call->request.content_type);
	curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, call->headers);
	if (now->config->username) {
		curl_easy_setopt(call->easy, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
		curl_easy_setopt(call->easy, CURLOPT_USERNAME, now->config->username);
		curl_easy_setopt(call->easy, CURLOPT_PASSWORD, now->config->password);
	}
	return good;
}

// The name that the certificate must have becomes the host of the URL, and the connection goes to the real one.
static bool url_set(struct cluster_call *call, const struct kubeconfig *k)
{
	const char *host = k->tls_server_name && k->is_https ? k->tls_server_name : k->host;
	bool is_v6 = strchr(host, ':') != NULL, to_v6 = strchr(k->host, ':') != NULL;
	size_t len = strlen(host) + strlen(k->prefix) + strlen(call->request.path) + 32;
	char *url = malloc(len), to[320];
	if (url == NULL)
		return false;
	snprintf(url, len, "%s://%s%s%s:%u%s%s", k->is_https ? "https" : "http", is_v6 ? "[" : "",
		host, is_v6 ? "]" : "", k->port, k->prefix, call->request.path);
	bool good = curl_easy_setopt(call->easy, CURLOPT_URL, url) == CURLE_OK;
	free(url);
	if (host == k->host)
		return good;
	snprintf(to, sizeof(to), "::%s%s%s:%u", to_v6 ? "[" : "", k->host, to_v6 ? "]" : "",
		k->port);
	call->connect_to = curl_slist_append(NULL, to);
	curl_easy_setopt(call->easy, CURLOPT_CONNECT_TO, call->connect_to);
	return good && call->connect_to;
}

static void blob_set(CURL *easy, CURLoption option, const struct kubeconfig_blob *from)
{
	struct curl_blob blob = { (void *)from->bytes, from->len, CURL_BLOB_COPY };
	if (from->bytes)
		curl_easy_setopt(easy, option, &blob);
}

static void tls_set(struct cluster_call *call, const struct cluster_credentials *now)
{
	CURL *easy = call->easy;
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, now->config->insecure ? 0L : 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, now->config->insecure ? 0L : 2L);
	blob_set(easy, CURLOPT_CAINFO_BLOB, &now->ca);
	blob_set(easy, CURLOPT_SSLCERT_BLOB, &now->cert);
	blob_set(easy, CURLOPT_SSLKEY_BLOB, &now->key);
	curl_easy_setopt(easy, CURLOPT_SSLCERTTYPE, "PEM");
	curl_easy_setopt(easy, CURLOPT_SSLKEYTYPE, "PEM");
	call->tls_generation = now->tls_generation;
}

static void proxy_set(CURL *easy, const struct kubeconfig *k)
{
	char url[2048];
	if (k->proxy_url == NULL)
		return; // the environment says
	// As elsewhere in this world, the proxy resolves names also for the scheme socks5.
	bool is_socks = strncmp(k->proxy_url, "socks5://", 9) == 0;
	snprintf(url, sizeof(url), "%s%s", is_socks ? "socks5h://" : "",
		is_socks ? k->proxy_url + 9 : k->proxy_url);
	curl_easy_setopt(easy, CURLOPT_PROXY, url);
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
}

static void body_set(struct cluster_call *call)
{
	const struct cluster_request *request = &call->request;
	if (request->content_type) {
		curl_easy_setopt(call->easy, CURLOPT_POST, 1L);
		curl_easy_setopt(
			call->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_len);
		curl_easy_setopt(call->easy, CURLOPT_POSTFIELDS, request->body);
	}
	if (strcmp(request->method, "GET") != 0)
		curl_easy_setopt(call->easy, CURLOPT_CUSTOMREQUEST, request->method);
}

static void limits_set(struct cluster_call *call)
{
	CURL *easy = call->easy;
	bool is_watch = call->request.is_watch;
	long total_ms = call->request.timeout_ms ? (long)call->request.timeout_ms
			: is_watch               ? 0
						 : HTTP_TOTAL_MS;
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, total_ms);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)HTTP_CONNECT_MS);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 15L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 5L);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, set_socket);
	curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, is_watch ? 1L : 0L);
	curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, is_watch ? 1L : 0L);
	curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, HTTP_IDLE_S);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "sluiced/" SLUICE_VERSION);
}

static int call_start(struct cluster_call *call, const struct cluster_credentials *now)
{
	call->easy = curl_easy_init();
	if (call->easy == NULL)
		return -ENOMEM;
	limits_set(call);
	if (!url_set(call, now->config) || !headers_set(call, now))
		return -ENOMEM;
	tls_set(call, now);
	proxy_set(call->easy, now->config);
	body_set(call);
	curl_easy_setopt(call->easy, CURLOPT_PRIVATE, call);
	curl_easy_setopt(call->easy, CURLOPT_ERRORBUFFER, call->error);
	curl_easy_setopt(call->easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(call->easy, CURLOPT_HEADERDATA, call);
	curl_easy_setopt(call->easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(call->easy, CURLOPT_WRITEDATA, call);
	call->retry_after_s = 0;
	call->has_head = call->is_held_back = false;
	call->content_type[0] = call->error[0] = '\0';
	call->state = CALL_RUNNING;
	limit_set(call, call->request.header_ms);
	return curl_multi_add_handle(call->http->multi, call->easy) == CURLM_OK ? 0 : -ENOMEM;
}

// ---------------------------------------------------------------- the end of a transfer

static enum cluster_end end_of(CURL *easy, CURLcode code)
{
	long os_errno = 0;
	curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &os_errno);
	if (code == CURLE_OK)
		return CLUSTER_END_CLEAN;
	if (code == CURLE_OPERATION_TIMEDOUT)
		return CLUSTER_END_TIMEOUT;
	if (code == CURLE_COULDNT_CONNECT && os_errno == ECONNREFUSED)
		return CLUSTER_END_REFUSED;
	return CLUSTER_END_BROKEN;
}

static bool is_tls_failure(CURLcode code)
{
	return code == CURLE_SSL_CONNECT_ERROR || code == CURLE_PEER_FAILED_VERIFICATION ||
	       code == CURLE_SSL_CERTPROBLEM || code == CURLE_SSL_CACERT_BADFILE ||
	       code == CURLE_RECV_ERROR || code == CURLE_SSL_ISSUER_ERROR;
}

// After a 401: again with other credentials, now or when they come; or it is the answer.
static bool call_retry(struct cluster_call *call)
{
	int rc = cluster_auth_reject(call->http->auth, call->bearer);
	call->is_retried = true;
	if (rc == -ENOENT)
		return false;
	call_stop(call);
	call->state = CALL_WAITING;
	limit_set(call, HTTP_WAIT_MS);
	if (rc == 0)
		kick(call->http);
	return true;
}

static void call_finish(struct cluster_call *call, CURLcode code)
{
	struct cluster_http *http = call->http;
	enum cluster_end how = end_of(call->easy, code);
	char why[300];
	snprintf(why, sizeof(why), "%s",
		code == CURLE_OK ? ""
		: call->error[0] ? call->error
				 : curl_easy_strerror(code));
	if (how == CLUSTER_END_CLEAN && !call->has_head) { // cut within the head
		how = CLUSTER_END_BROKEN;
		snprintf(why, sizeof(why), "the answer ends within its head");
	}
	call->state = CALL_DONE;
	if (call->is_cancelled) {
		call_free(call);
		return;
	}
	if (is_tls_failure(code) && !call->has_head)
		cluster_auth_look(http->auth);
	if (call->is_held_back) {
		if (call_retry(call))
			return;
		if (call->request.head)
			call->request.head(
				call->request.arg, 401, call->retry_after_s, call->content_type);
	}
	call_end(call, how, why);
}

static void take_finished(struct cluster_http *http)
{
	CURLMsg *message;
	int n_left;
	while ((message = curl_multi_info_read(http->multi, &n_left)) != NULL) {
		struct cluster_call *call = NULL;
		if (message->msg != CURLMSG_DONE)
			continue;
		CURLcode code = message->data.result;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&call);
		call_finish(call, code);
	}
}

// ---------------------------------------------------------------- the loop

static void act(struct cluster_http *http, curl_socket_t fd, int flags)
{
	int n_running;
	http->is_inside = true;
	curl_multi_socket_action(http->multi, fd, flags, &n_running);
	http->is_inside = false;
	take_finished(http);
}

static void on_socket_event(evutil_socket_t fd, short what, void *arg)
{
	act(arg, fd,
		(what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0));
}

static void on_curl_timer(evutil_socket_t fd, short what, void *arg)
{
	act(arg, CURL_SOCKET_TIMEOUT, 0);
}

static int set_timer(CURLM *multi, long timeout_ms, void *arg)
{
	struct cluster_http *http = arg;
	struct timeval tv = { timeout_ms / 1000, timeout_ms % 1000 * 1000 };
	if (timeout_ms < 0)
		evtimer_del(http->timer);
	else
		evtimer_add(http->timer, &tv);
	return 0;
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	struct cluster_http *http = arg;
	struct event *event = socket_arg;
	if (event != NULL)
		event_free(event);
	curl_multi_assign(http->multi, fd, NULL);
	if (what == CURL_POLL_REMOVE)
		return 0;
	short events = EV_PERSIST;
	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		events |= EV_READ;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		events |= EV_WRITE;
	event = event_new(http->base, fd, events, on_socket_event, http);
	if (event == NULL)
		return -1;
	event_add(event, NULL);
	curl_multi_assign(http->multi, fd, event);
	return 0;
}

// What was marked. A callback may mark or free others, so the walk begins anew after each that was done.
static bool kick_one(struct cluster_http *http, const struct cluster_credentials *now)
{
	for (struct cluster_call *call = http->calls; call; call = call->next) {
		if (call->is_cancelled) {
			call_free(call);
			return true;
		}
		if (call->is_outdated) {
			call_end(call, CLUSTER_END_CLEAN, "other certificates are in force");
			return true;
		}
		if (call->state == CALL_WAITING && now) {
			if (call_start(call, now) != 0)
				call_end(call, CLUSTER_END_BROKEN, "out of memory");
			return true;
		}
	}
	return false;
}

static void on_kick(evutil_socket_t fd, short what, void *arg)
{
	struct cluster_http *http = arg;
	while (kick_one(http, cluster_auth_get(http->auth))) {}
}

void cluster_http_wake(struct cluster_http *http)
{
	const struct cluster_credentials *now = cluster_auth_get(http->auth);
	for (struct cluster_call *call = http->calls; call && now; call = call->next)
		call->is_outdated |= call->state == CALL_RUNNING && call->request.is_watch &&
				     call->tls_generation != now->tls_generation;
	kick(http);
}

// ---------------------------------------------------------------- public

int cluster_http_create(struct event_base *base, struct cluster_auth *auth,
	const struct cluster_voice *voice, struct cluster_http **out)
{
	struct cluster_http *http = calloc(1, sizeof(*http));
	if (http == NULL)
		return -ENOMEM;
	http->base = base;
	http->auth = auth;
	http->voice = *voice;
	http->multi = curl_multi_init();
	http->timer = evtimer_new(base, on_curl_timer, http);
	http->kick = evtimer_new(base, on_kick, http);
	if (http->multi == NULL || http->timer == NULL || http->kick == NULL) {
		cluster_http_destroy(http);
		return -ENOMEM;
	}
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
	curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, HTTP_KEPT);
	curl_multi_setopt(http->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
	*out = http;
	return 0;
}

void cluster_http_destroy(struct cluster_http *http)
{
	if (http == NULL)
		return;
	while (http->calls)
		call_free(http->calls);
	if (http->multi)
		curl_multi_cleanup(http->multi);
	if (http->timer)
		event_free(http->timer);
	if (http->kick)
		event_free(http->kick);
	free(http);
}

// gives its own copies of the texts. false: out of memory.
static bool request_copy(struct cluster_request *to, const struct cluster_request *from)
{
	*to = *from;
	to->method = strdup(from->method);
	to->path = strdup(from->path);
	to->content_type = from->content_type ? strdup(from->content_type) : NULL;
	void *body = from->content_type ? malloc(from->body_len + 1) : NULL;
	if (body)
		memcpy(body, from->body, from->body_len);
	to->body = body;
	if (to->header_ms == 0)
		to->header_ms = HTTP_HEADER_MS;
	return to->method && to->path && (!from->content_type || (to->content_type && body));
}

struct cluster_call *cluster_http_begin(
	struct cluster_http *http, const struct cluster_request *request)
{
	struct cluster_call *call = calloc(1, sizeof(*call));
	if (call == NULL)
		return NULL;
	call->http = http;
	call->next = http->calls;
	call->link = &http->calls;
	if (http->calls)
		http->calls->link = &call->next;
	http->calls = call;
	http->n_calls++;
	call->limit = evtimer_new(http->base, on_limit, call);
	if (!request_copy(&call->request, request) || call->limit == NULL) {
		call_free(call);
		return NULL;
	}
	limit_set(call, HTTP_WAIT_MS);
	kick(http);
	return call;
}

void cluster_http_cancel(struct cluster_call *call)
{
	call->is_cancelled = true;
	if (call->http->is_inside || call->state == CALL_DONE)
		kick(call->http);
	else
		call_free(call);
}

uint32_t cluster_http_count(const struct cluster_http *http)
{
	return http->n_calls;
}
