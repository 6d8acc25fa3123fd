// SPDX-License-Identifier: BSD-3-Clause
// The life of one request, as MHD calls it: the request line (request_begin), the headers, pieces of the body, the
// end of the body (request_step each time), the end of the answer (request_end).
//
// A refusal is known once the headers are in, but answered only when the body has been read and thrown away: closing
// on a client that still sends would reset the connection under the answer. A body over the limit is the exception:
// its answer goes out at once, then the rest is thrown away for two seconds at most.
#include "admin_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>

#define LINGER_MS 2000

const char *request_header(const struct admin_request *r, const char *name)
{
	return MHD_lookup_connection_value(r->mhd, MHD_HEADER_KIND, name);
}

// ---------------------------------------------------------------- begin
void *request_begin(void *arg, const char *uri, struct MHD_Connection *mhd)
{
	struct admin_server *server = arg;
	const union MHD_ConnectionInfo *socket =
		MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct admin_connection *connection = socket ? socket->socket_context : NULL;
	struct admin_request *r = connection ? calloc(1, sizeof(*r)) : NULL;
	if (r == NULL)
		return NULL;
	r->admin = server->admin;
	r->connection = connection;
	r->mhd = mhd;
	r->uri = strndup(uri, ADMIN_URI_MAX + 1);
	if (r->uri == NULL) {
		free(r);
		return NULL;
	}
	uri_parse(r);
	return r;
}

static void request_number(struct admin_request *r)
{
	const char *given = request_header(r, "X-Request-Id");
	size_t n = given ? strlen(given) : 0;
	if (n > 0 && n < sizeof(r->id) &&
		strspn(given,
			"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n) {
		snprintf(r->id, sizeof(r->id), "%s", given);
		return;
	}
	uint64_t seed = r->admin->request_seed++;
	snprintf(r->id, sizeof(r->id), "%016llx",
		(unsigned long long)hash_stable(&seed, sizeof(seed), 0x72657175657374ull));
}

// ---------------------------------------------------------------- routing
// Compares a template with the segments; fills args.
static bool route_matches(struct admin_request *r, const char *template)
{
	uint32_t segment = 0;
	r->n_args = 0;
	for (const char *at = template; *at == '/'; segment++) {
		size_t n = strcspn(++at, "/");
		if (segment == r->n_segments)
			return false;
		const char *have = r->segments[segment];
		if (at[0] == '{') {
			if (have[0] == 0 || r->n_args == ARRAY_SIZE(r->args))
				return false;
			r->args[r->n_args++] = have;
		} else if (strlen(have) != n || strncmp(have, at, n) != 0) {
			return false;
		}
		at += n;
	}
	return segment == r->n_segments;
}

// The route of method and path; NULL with the methods that the path has in `allow` ("" = no such path).
static const struct admin_route *route_find(struct admin_request *r, char *allow, size_t len)
{
	const char *method = strcmp(r->method, "HEAD") == 0 ? "GET" : r->method;
	const struct admin_route *found = NULL;
	size_t n = 0;
	allow[0] = 0;
	for (const struct admin_route *route = admin_routes; route->method; route++) {
		if (!route_matches(r, route->path))
			continue;
		n += (size_t)snprintf(allow + n, len - n, "%s%s%s", n ? ", " : "", route->method,
			strcmp(route->method, "GET") == 0 ? ", HEAD" : "");
		if (strcmp(route->method, method) == 0)
			found = route;
	}
	if (n)
		snprintf(allow + n, len - n, ", OPTIONS");
	if (found)
		route_matches(r, found->path); // args again
	return found;
}

// Does Accept admit type/subtype? Quality is only looked at for "q=0".
static bool range_admits(const char *range, size_t n, const char *type, const char *subtype)
{
	size_t t = strlen(type), s = strlen(subtype);
	size_t media = strcspn(range, "; \t,");
	if (media > n)
		media = n;
	bool same = (media == t + 1 + s && strncasecmp(range, type, t) == 0 && range[t] == '/' &&
			    strncasecmp(range + t + 1, subtype, s) == 0) ||
		    (media == t + 2 && strncasecmp(range, type, t) == 0 &&
			    strncmp(range + t, "/*", 2) == 0) ||
		    (media == 3 && strncmp(range, "*/*", 3) == 0);
	if (!same)
		return false;
	for (const char *q = range + media; q < range + n; q++) {
		if (strncasecmp(q, "q=0", 3) == 0)
			return strspn(q + 3, ".0") != strcspn(q + 3, ", ;\t");
	}
	return true;
}

static bool accepts(const struct admin_request *r, const char *type, const char *subtype)
{
	const char *accept = request_header(r, "Accept");
	if (accept == NULL || accept[0] == 0)
		return true;
	while (*accept) {
		accept += strspn(accept, " \t,");
		size_t n = strcspn(accept, ",");
		if (range_admits(accept, n, type, subtype))
			return true;
		accept += n;
	}
	return false;
}

static bool content_type_fits(const struct admin_request *r)
{
	const char *given = request_header(r, "Content-Type");
	if (given == NULL)
		return true;
	size_t n = strcspn(given, "; \t");
	if (n == 16 && strncasecmp(given, "application/json", n) == 0)
		return true;
	return strcmp(r->method, "PATCH") == 0 && n == 28 &&
	       strncasecmp(given, "application/merge-patch+json", n) == 0;
}

// ---------------------------------------------------------------- headers are in
static bool rights_suffice(struct admin_request *r)
{
	uint8_t needed = r->route ? r->route->role : ADMIN_VIEWER;
	if (r->role >= needed)
		return true;
	if (r->role != ADMIN_NOBODY || r->connection->server->is_unix) {
		static const char *const names[] = { "nobody", "viewer", "operator", "admin" };
		reply_problem(r, PROBLEM_FORBIDDEN, "%s is %s; this needs %s", r->identity,
			names[r->role], names[needed]);
		return false;
	}
	reply_header(r, "WWW-Authenticate", "Bearer");
	reply_problem(r, PROBLEM_UNAUTHORIZED, "a bearer token is needed");
	return false;
}

static void refuse_route(struct admin_request *r, const char *allow)
{
	if (r->uri_error == 414)
		reply_problem(r, PROBLEM_URI_TOO_LONG, "at most %d bytes", ADMIN_URI_MAX);
	else if (r->uri_error == 400)
		reply_problem(r, PROBLEM_BAD_REQUEST,
			"the request target has a bad escape or character, or too many parameters");
	else if (strcmp(r->uri, "*") != 0 && allow[0] == 0)
		reply_problem(r, PROBLEM_NOT_FOUND, "no such path; /openapi.json lists them");
	else if (strcmp(r->method, "OPTIONS") == 0) {
		reply_header(r, "Allow", "%s",
			allow[0] ? allow : "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
		reply_empty(r, 204);
	} else {
		reply_header(r, "Allow", "%s", allow);
		reply_problem(r, PROBLEM_METHOD, "%s is not allowed here: %s", r->method, allow);
	}
}

// Everything that can be refused without the body. An answer may be prepared afterwards.
static void request_open(struct admin_request *r)
{
	char allow[128];
	r->route = r->uri_error ? NULL : route_find(r, allow, sizeof(allow));
	if (r->uri_error)
		allow[0] = 0;
	if (auth_check_origin(r) != 0 || auth_identify(r) != 0 || !rights_suffice(r))
		return;
	r->is_changing = r->route && r->route->role >= ADMIN_OPERATOR;
	if (r->route == NULL) {
		refuse_route(r, allow);
	} else if (r->route->response && !accepts(r, "application", "json")) {
		reply_problem(r, PROBLEM_NOT_ACCEPTABLE, "application/json is what there is");
	} else if (r->route->request && r->has_body && !content_type_fits(r)) {
		reply_header(r, strcmp(r->method, "PATCH") == 0 ? "Accept-Patch" : "Accept-Post",
			"application/json");
		reply_problem(r, PROBLEM_MEDIA_TYPE, "application/json is needed");
	} else {
		query_check(r);
	}
}

// ---------------------------------------------------------------- body
static void body_refuse(struct admin_request *r)
{
	r->too_large = true;
	size_t len = 0;
	char *raw = reply_raw(r, &len);
	if (raw)
		send(r->connection->fd, raw, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	free(raw);
	r->admin->n_requests_by_class[4]++;
	connection_set_deadline(r->connection, ADMIN_PHASE_REQUEST, LINGER_MS);
}

static void body_take(struct admin_request *r, const char *piece, size_t len)
{
	if (r->too_large)
		return;
	if (len > ADMIN_BODY_MAX - r->body_len) {
		body_refuse(r);
		return;
	}
	if (r->status != 0) { // refused: only count it
		r->body_len += len;
		return;
	}
	if (r->body_len + len > r->body_cap) {
		size_t cap = r->body_cap ? r->body_cap * 2 : 4096;
		while (cap < r->body_len + len)
			cap *= 2;
		char *grown = realloc(r->body, cap);
		if (grown == NULL) {
			reply_problem(r, PROBLEM_UNAVAILABLE, "out of memory");
			return;
		}
		r->body = grown;
		r->body_cap = cap;
	}
	memcpy(r->body + r->body_len, piece, len);
	r->body_len += len;
}

// Looks at what the headers say of the body. True: it can be waited for.
static bool body_expect(struct admin_request *r)
{
	const char *length = request_header(r, "Content-Length");
	const char *coding = request_header(r, "Transfer-Encoding");
	r->has_body = coding != NULL || (length != NULL && strcmp(length, "0") != 0);
	bool large = length && (strlen(length) > 9 || strtoull(length, NULL, 10) > ADMIN_BODY_MAX);
	if (!large)
		return true;
	if (request_header(r, "Expect") != NULL) { // nothing is on its way yet
		reply_header(r, "Connection", "close");
		reply_problem(r, PROBLEM_TOO_LARGE, "a body has at most %u bytes", ADMIN_BODY_MAX);
		return false;
	}
	body_refuse(r);
	return true;
}

// ---------------------------------------------------------------- answer
static void request_dispatch(struct admin_request *r)
{
	const char *shape = r->route->request;
	if (shape != NULL) {
		bool optional = shape[0] == '?';
		if (r->body_len == 0 && !optional) {
			reply_problem(r, PROBLEM_BAD_JSON, "a JSON body is needed");
			return;
		}
		if (r->body_len != 0 && body_parse(r) != 0)
			return;
		const struct admin_shape *body_shape = shape_find(shape + optional);
		if (r->json && shape_check(r, body_shape, r->json, "") != 0) {
			reply_problem(r, PROBLEM_INVALID, "the body does not have the shape of %s",
				body_shape->name);
			return;
		}
	}
	r->route->handler(r);
	if (r->status == 0 && r->wait == NULL)
		reply_problem(r, PROBLEM_INTERNAL, "%s %s gave no answer", r->method, r->path);
}

static void request_audit(struct admin_request *r)
{
	if (!r->is_changing || r->role == ADMIN_NOBODY || query_flag(r, "dryRun"))
		return;
	r->is_changing = false;
	control_note(r->admin->control, LOG_LEVEL_INFO, "api-change", r->path, "%s by %s: %u (%s)",
		r->method, r->identity, r->status, r->id);
}

static enum MHD_Result request_answer(struct admin_request *r)
{
	request_audit(r);
	r->admin->n_requests_by_class[r->status / 100 % 6]++;
	struct MHD_Response *response =
		r->reply ? MHD_create_response_from_buffer(
				   r->reply_len, r->reply, MHD_RESPMEM_MUST_FREE)
			 : MHD_create_response_from_buffer(
				   0, (void *)(uintptr_t) "", MHD_RESPMEM_PERSISTENT);
	if (response == NULL)
		return MHD_NO;
	r->reply = NULL; // MHD's now
	if (r->content_type)
		MHD_add_response_header(response, "Content-Type", r->content_type);
	MHD_add_response_header(response, "X-Request-Id", r->id);
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	MHD_add_response_header(response, "Cache-Control", "no-cache");
	for (uint32_t i = 0; i < r->n_headers; i++)
		MHD_add_response_header(response, r->headers[i].name, r->headers[i].value);
	enum MHD_Result result = MHD_queue_response(r->mhd, r->status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result request_headers(struct admin_request *r, const char *method)
{
	r->started = true;
	snprintf(r->method, sizeof(r->method), "%s", method);
	request_number(r);
	connection_set_deadline(
		r->connection, ADMIN_PHASE_REQUEST, r->admin->config.request_timeout_ms);
	if (!body_expect(r))
		return request_answer(r);
	if (!r->too_large)
		request_open(r);
	// Without a body on its way (or with one that waits for our word) a refusal goes out at once.
	bool waits = request_header(r, "Expect") != NULL;
	return r->status != 0 && !r->too_large && waits ? request_answer(r) : MHD_YES;
}

// Eight parameters, because MHD has it so.
enum MHD_Result request_step(void *arg, struct MHD_Connection *mhd, const char *url,
	const char *method, const char *version, const char *upload, size_t *upload_len,
	void **state)
{
	struct admin_request *r = *state;
	if (r == NULL)
		return MHD_NO;
	if (!r->started)
		return request_headers(r, method);
	if (*upload_len > 0) {
		body_take(r, upload, *upload_len);
		*upload_len = 0;
		return MHD_YES;
	}
	if (r->too_large) { // answered already
		connection_close(r->connection);
		return MHD_NO;
	}
	if (r->status == 0)
		request_dispatch(r);
	if (r->status != 0)
		return request_answer(r);
	MHD_suspend_connection(mhd);
	r->suspended = true;
	return MHD_YES;
}

void request_end(
	void *arg, struct MHD_Connection *mhd, void **state, enum MHD_RequestTerminationCode why)
{
	struct admin_request *r = *state;
	if (r == NULL)
		return;
	*state = NULL;
	wait_forget(r);
	connection_set_deadline(
		r->connection, ADMIN_PHASE_HEADERS, r->admin->config.header_timeout_ms);
	json_decref(r->json);
	json_decref(r->findings);
	free(r->reply);
	free(r->body);
	free(r->words);
	free(r->uri);
	free(r);
}
