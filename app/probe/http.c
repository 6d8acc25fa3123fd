// SPDX-License-Identifier: BSD-3-Clause
// GET over HTTP/1.1 by libcurl's multi interface, driven by the control loop: curl says which sockets to watch and when it
// wants to be called, libevent calls. A new connection for each try, no redirect, no proxy; status 200..399 is good.
// The body is read and forgotten, up to BODY_MAX; a longer one is cut and counts by its status.
#include "probe_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define BODY_MAX (64 * 1024)

struct probe_http {
	struct probe *owner;
	CURLM *multi;
	struct event *timer;
	struct curl_slist *headers;
};

// ---------------------------------------------------------------- loop
static void finish(struct probe_target *t, CURLcode code)
{
	long status = 0, os_errno = 0;
	char reason[SERVICE_REASON_MAX] = "";
	enum probe_result result = PROBE_BAD;
	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &os_errno);
	curl_multi_remove_handle(t->owner->http->multi, t->easy);
	bool is_cut = code == CURLE_WRITE_ERROR && t->n_body_bytes > BODY_MAX;
	if ((code == CURLE_OK || is_cut) && status >= 200 && status < 400)
		result = PROBE_GOOD;
	else if (code == CURLE_OK || is_cut)
		snprintf(reason, sizeof(reason), "http: status %ld", status);
	else if (code == CURLE_OPERATION_TIMEDOUT)
		snprintf(reason, sizeof(reason), "timeout after %ums", t->what.check.timeout_ms);
	else if (code == CURLE_COULDNT_CONNECT && os_errno != 0)
		snprintf(reason, sizeof(reason), "connect: %s", strerror((int)os_errno));
	else
		snprintf(reason, sizeof(reason), "http: %s",
			t->curl_error[0] != '\0' ? t->curl_error : curl_easy_strerror(code));
	if (code == CURLE_OUT_OF_MEMORY ||
		(code == CURLE_COULDNT_CONNECT && probe_is_own_error((int)os_errno)))
		result = PROBE_CANNOT;
	probe_finish(t, result, reason);
}

static void take_finished(struct probe_http *http)
{
	CURLMsg *message;
	int n_left;
	while ((message = curl_multi_info_read(http->multi, &n_left)) != NULL) {
		struct probe_target *t = NULL;
		if (message->msg != CURLMSG_DONE)
			continue;
		CURLcode code = message->data.result;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&t);
		finish(t, code);
	}
}

static void on_socket_event(evutil_socket_t fd, short what, void *arg)
{
	struct probe_http *http = arg;
	int flags =
		(what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0);
	int n_running;
	curl_multi_socket_action(http->multi, fd, flags, &n_running);
	take_finished(http);
}

static void on_curl_timer(evutil_socket_t fd, short what, void *arg)
{
	struct probe_http *http = arg;
	int n_running;
	curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &n_running);
	take_finished(http);
}

static int set_timer(CURLM *multi, long timeout_ms, void *arg)
{
	struct probe_http *http = arg;
	struct timeval tv = { .tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000 };
	if (timeout_ms < 0)
		evtimer_del(http->timer);
	else
		evtimer_add(http->timer, &tv);
	return 0;
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	struct probe_http *http = arg;
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
	event = event_new(http->owner->base, fd, events, on_socket_event, http);
	if (event == NULL)
		return -1;
	event_add(event, NULL);
	curl_multi_assign(http->multi, fd, event);
	return 0;
}

// ---------------------------------------------------------------- one try
static size_t forget_body(char *bytes, size_t size, size_t n, void *arg)
{
	struct probe_target *t = arg;
	t->n_body_bytes += (uint32_t)(size * n);
	return t->n_body_bytes > BODY_MAX ? 0 : size * n;
}

static int reset_on_close(void *arg, curl_socket_t fd, curlsocktype purpose)
{
	static const struct linger reset = { .l_onoff = 1, .l_linger = 0 };
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	return CURL_SOCKOPT_OK;
}

static int http_open(struct probe *p)
{
	if (p->http != NULL)
		return 0;
	struct probe_http *http = calloc(1, sizeof(*http));
	if (http == NULL)
		return -ENOMEM;
	p->http = http;
	http->owner = p;
	http->multi = curl_multi_init();
	http->timer = evtimer_new(p->base, on_curl_timer, http);
	http->headers = curl_slist_append(NULL, "Connection: close");
	if (http->multi == NULL || http->timer == NULL || http->headers == NULL) {
		probe_http_end(p);
		return -ENOMEM;
	}
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
	return 0;
}

void probe_http_end(struct probe *p)
{
	struct probe_http *http = p->http;
	if (http == NULL)
		return;
	if (http->multi != NULL)
		curl_multi_cleanup(http->multi);
	if (http->timer != NULL)
		event_free(http->timer);
	curl_slist_free_all(http->headers);
	free(http);
	p->http = NULL;
}

static int open_easy(struct probe_target *t)
{
	char endpoint[ADDRESS_TEXT_LEN + 10], url[ADDRESS_TEXT_LEN + 300];
	CURL *easy = curl_easy_init();
	if (easy == NULL)
		return -ENOMEM;
	endpoint_format(&t->what.address, t->what.port, endpoint, sizeof(endpoint));
	snprintf(url, sizeof(url), "http://%s%s", endpoint,
		t->what.check.path[0] == '/' ? t->what.check.path : "/");
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, t);
	curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http");
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_PROXY, ""); // nor one of the environment
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
	curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
	curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)t->what.check.timeout_ms);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)t->what.check.timeout_ms);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, t->owner->http->headers);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "sluice/" SLUICE_VERSION " (health check)");
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, forget_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, reset_on_close);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->curl_error);
	t->easy = easy;
	return 0;
}

void probe_http_begin(struct probe_target *t)
{
	if (http_open(t->owner) != 0 || (t->easy == NULL && open_easy(t) != 0)) {
		probe_finish(t, PROBE_CANNOT, "out of memory");
		return;
	}
	t->n_body_bytes = 0;
	t->curl_error[0] = '\0';
	// The work begins with curl's timer, not in this call.
	if (curl_multi_add_handle(t->owner->http->multi, t->easy) != CURLM_OK)
		probe_finish(t, PROBE_CANNOT, "curl refuses one more transfer");
}

void probe_http_cancel(struct probe_target *t)
{
	curl_multi_remove_handle(t->owner->http->multi, t->easy);
}
