// SPDX-License-Identifier: BSD-3-Clause
// Answers: JSON, text, nothing, problems (RFC 9457), entity tags and preconditions, pages of lists. An answer is
// only prepared here; request.c hands it to MHD.
#include "admin_priv.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

const struct admin_problem_row admin_problem_rows[PROBLEM_MAX] = {
	[PROBLEM_BAD_REQUEST] = { "bad-request", 400, "The request is malformed" },
	[PROBLEM_BAD_JSON] = { "bad-json", 400, "The body is not acceptable JSON" },
	[PROBLEM_UNAUTHORIZED] = { "unauthorized", 401, "Credentials are needed" },
	[PROBLEM_FORBIDDEN] = { "forbidden", 403, "Not allowed for this identity" },
	[PROBLEM_ORIGIN] = { "origin-refused", 403, "Host or Origin is refused" },
	[PROBLEM_NOT_FOUND] = { "not-found", 404, "No such object" },
	[PROBLEM_METHOD] = { "method-not-allowed", 405, "The method is not allowed here" },
	[PROBLEM_NOT_ACCEPTABLE] = { "not-acceptable", 406, "No acceptable representation" },
	[PROBLEM_EXISTS] = { "already-exists", 409, "The object exists already" },
	[PROBLEM_OWNER] = { "owned-by-other", 409, "The object belongs to another source" },
	[PROBLEM_ADDRESS_IN_USE] = { "address-in-use", 409,
		"The address and port belong to another service" },
	[PROBLEM_CONFLICT] = { "conflict", 409, "The state does not allow it" },
	[PROBLEM_GONE] = { "list-changed", 410, "The list changed under the continue token" },
	[PROBLEM_PRECONDITION] = { "precondition-failed", 412, "The object has changed" },
	[PROBLEM_TOO_LARGE] = { "too-large", 413, "The body is too large" },
	[PROBLEM_URI_TOO_LONG] = { "uri-too-long", 414, "The request target is too long" },
	[PROBLEM_MEDIA_TYPE] = { "unsupported-media-type", 415, "The media type is not supported" },
	[PROBLEM_INVALID] = { "invalid", 422, "The content is not valid" },
	[PROBLEM_BACK_OFF] = { "back-off", 429, "Too many failed attempts" },
	[PROBLEM_INTERNAL] = { "internal", 500, "Internal error" },
	[PROBLEM_NOT_IMPLEMENTED] = { "not-implemented", 501, "Not implemented" },
	[PROBLEM_UNAVAILABLE] = { "unavailable", 503, "Not available now" },
	[PROBLEM_WORKER_TIMEOUT] = { "worker-timeout", 504, "A worker did not answer in time" },
};

// ---------------------------------------------------------------- answers
void reply_text(struct admin_request *r, unsigned int status, const char *content_type, char *text,
	size_t len)
{
	free(r->reply);
	r->status = status;
	r->content_type = content_type;
	r->reply = text;
	r->reply_len = len;
}

void reply_empty(struct admin_request *r, unsigned int status)
{
	reply_text(r, status, NULL, NULL, 0);
}

void reply_word(struct admin_request *r, unsigned int status, const char *word)
{
	char *line = NULL;
	int n = asprintf(&line, "%s\n", word);
	if (n < 0)
		reply_empty(r, 500);
	else
		reply_text(r, status, "text/plain; charset=utf-8", line, (size_t)n);
}

static void reply_dump(
	struct admin_request *r, unsigned int status, const char *content_type, json_t *body)
{
	char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	json_decref(body);
	size_t len = text ? strlen(text) : 0;
	char *line = text ? realloc(text, len + 2) : NULL;
	if (line == NULL) {
		free(text);
		reply_empty(r, 500);
		return;
	}
	line[len] = '\n';
	line[len + 1] = 0;
	reply_text(r, status, content_type, line, len + 1);
}

void reply_json(struct admin_request *r, unsigned int status, json_t *body)
{
	reply_dump(r, status, "application/json", body);
}

void reply_header(struct admin_request *r, const char *name, const char *fmt, ...)
{
	if (r->n_headers == ADMIN_REPLY_HEADERS)
		return;
	uint32_t i = r->n_headers++;
	snprintf(r->headers[i].name, sizeof(r->headers[i].name), "%s", name);
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(r->headers[i].value, sizeof(r->headers[i].value), fmt, ap);
	va_end(ap);
}

// ---------------------------------------------------------------- problems
// A string that came from outside; what is not UTF-8 is replaced whole.
static json_t *json_text(const char *text)
{
	json_t *string = json_string(text);
	return string ? string : json_string("(not UTF-8)");
}

void finding_add(
	struct admin_request *r, const char *pointer, json_t *allowed, const char *fmt, ...)
{
	if (r->findings == NULL)
		r->findings = json_array();
	if (json_array_size(r->findings) >= ADMIN_FINDINGS_MAX) {
		r->n_findings_lost++;
		json_decref(allowed);
		return;
	}
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	json_t *finding = json_object();
	json_object_set_new(finding, "pointer", json_text(pointer));
	json_object_set_new(finding, "detail", json_text(text));
	if (allowed)
		json_object_set_new(finding, "allowed", allowed);
	json_array_append_new(r->findings, finding);
}

void reply_problem(struct admin_request *r, enum admin_problem problem, const char *fmt, ...)
{
	const struct admin_problem_row *row = &admin_problem_rows[problem];
	char detail[512], type[128];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(detail, sizeof(detail), fmt, ap);
	va_end(ap);
	snprintf(type, sizeof(type), "https://sluice-lb.github.io/problems#%s", row->code);
	json_t *body = json_object();
	json_object_set_new(body, "type", json_string(type));
	json_object_set_new(body, "title", json_string(row->title));
	json_object_set_new(body, "status", json_integer(row->status));
	json_object_set_new(body, "detail", json_text(detail));
	json_object_set_new(body, "instance", json_text(r->path ? r->path : ""));
	json_object_set_new(body, "code", json_string(row->code));
	if (r->findings)
		json_object_set(body, "errors", r->findings);
	if (r->n_findings_lost)
		json_object_set_new(body, "errorsOmitted", json_integer(r->n_findings_lost));
	json_object_set_new(body, "requestId", json_string(r->id));
	reply_dump(r, row->status, "application/problem+json", body);
}

static enum admin_problem problem_of(int code)
{
	switch (-code) {
	case EEXIST:
		return PROBLEM_OWNER;
	case EADDRINUSE:
		return PROBLEM_ADDRESS_IN_USE;
	case ENOENT:
		return PROBLEM_NOT_FOUND;
	case ENOSYS:
		return PROBLEM_NOT_IMPLEMENTED;
	case EAGAIN:
	case ENODEV:
	case ENOMEM:
		return PROBLEM_UNAVAILABLE;
	case EINVAL:
	case ERANGE:
	case ENOSPC:
	case ENOTSUP:
		return PROBLEM_INVALID;
	default:
		return PROBLEM_INTERNAL;
	}
}

void reply_error(struct admin_request *r, int code, const struct error *err)
{
	char line[512];
	for (uint32_t i = 0; i < err->n_items; i++) {
		const struct error_item *item = &err->items[i];
		if (item->file)
			finding_add(r, item->path ? item->path : "", NULL, "%s:%u: %s", item->file,
				item->line, item->text ? item->text : "");
		else
			finding_add(r, item->path ? item->path : "", NULL, "%s",
				item->text ? item->text : "");
	}
	r->n_findings_lost += err->n_lost;
	if (err->n_items)
		error_first(err, line, sizeof(line));
	else
		snprintf(line, sizeof(line), "%s", strerror(-code));
	reply_problem(r, problem_of(code), "%s", line);
}

char *reply_raw(struct admin_request *r, size_t *out_len)
{
	reply_problem(r, PROBLEM_TOO_LARGE, "a body has at most %u bytes", ADMIN_BODY_MAX);
	char *raw = NULL;
	int n = asprintf(&raw,
		"HTTP/1.1 413 Content Too Large\r\nContent-Type: application/problem+json\r\n"
		"Content-Length: %zu\r\nX-Request-Id: %s\r\nConnection: close\r\n\r\n%s",
		r->reply_len, r->id, r->reply ? r->reply : "");
	if (n < 0)
		return NULL;
	*out_len = (size_t)n;
	return raw;
}

// ---------------------------------------------------------------- preconditions
void reply_etag(struct admin_request *r, uint64_t generation)
{
	reply_header(r, "ETag", "\"%llu\"", (unsigned long long)generation);
}

// True if the list of tags in a header has this generation. Weak tags match only where weak comparison is asked for.
static bool tags_match(const char *header, uint64_t generation, bool weak)
{
	char own[32];
	int n = snprintf(own, sizeof(own), "\"%llu\"", (unsigned long long)generation);
	while (*header) {
		header += strspn(header, " \t,");
		bool is_weak = strncmp(header, "W/", 2) == 0;
		const char *tag = header + (is_weak ? 2 : 0);
		if (strncmp(tag, own, (size_t)n) == 0 && (weak || !is_weak))
			return true;
		header += strcspn(header, ",");
	}
	return false;
}

static bool is_read(const struct admin_request *r)
{
	return strcmp(r->method, "GET") == 0 || strcmp(r->method, "HEAD") == 0;
}

bool reply_precondition(struct admin_request *r, bool exists, uint64_t generation)
{
	const char *match = request_header(r, "If-Match");
	if (match != NULL &&
		(!exists || (strcmp(match, "*") != 0 && !tags_match(match, generation, false)))) {
		if (exists)
			reply_etag(r, generation);
		reply_problem(r, PROBLEM_PRECONDITION, "If-Match %.100s: %s", match,
			exists ? "the object has another generation" : "there is no such object");
		return false;
	}
	const char *none = request_header(r, "If-None-Match");
	if (none == NULL || !exists ||
		(strcmp(none, "*") != 0 && !tags_match(none, generation, true)))
		return true;
	reply_etag(r, generation);
	if (is_read(r))
		reply_empty(r, 304);
	else
		reply_problem(r, PROBLEM_PRECONDITION, "If-None-Match %.100s: it exists", none);
	return false;
}

// ---------------------------------------------------------------- pages
// A continue token is the place where the page ended, in hexadecimal so that nobody reads meaning into it.
int page_begin(struct admin_request *r, struct admin_page *page)
{
	page->limit = (uint32_t)query_integer(r, "limit", ADMIN_LIMIT_DEFAULT);
	page->after[0] = 0;
	const char *token = query_text(r, "continue");
	if (token == NULL)
		return 0;
	size_t n = strlen(token);
	bool fine = n % 2 == 0 && n / 2 < sizeof(page->after) && n != 0 &&
		    strspn(token, "0123456789abcdef") == n;
	for (size_t i = 0; fine && i < n / 2; i++) {
		char pair[3] = { token[2 * i], token[2 * i + 1], 0 };
		page->after[i] = (char)strtoul(pair, NULL, 16);
		page->after[i + 1] = 0;
		fine = page->after[i] != 0;
	}
	if (fine)
		return 0;
	finding_add(r, "?continue", NULL, "not a token of this server");
	reply_problem(r, PROBLEM_BAD_REQUEST, "the continue token is not understood");
	return -EINVAL;
}

void page_reply(struct admin_request *r, json_t *items, uint64_t generation, const char *next,
	int64_t remaining)
{
	char token[1024] = "";
	for (size_t i = 0; next && next[i] && 2 * i + 3 < sizeof(token); i++)
		snprintf(token + 2 * i, 3, "%02x", (unsigned char)next[i]);
	json_t *metadata = json_object();
	json_object_set_new(metadata, "generation", json_count(generation));
	json_object_set_new(metadata, "continue", next ? json_string(token) : json_null());
	json_object_set_new(
		metadata, "remaining", remaining < 0 ? json_null() : json_integer(remaining));
	json_t *body = json_object();
	json_object_set_new(body, "items", items);
	json_object_set_new(body, "metadata", metadata);
	reply_json(r, 200, body);
}

// ---------------------------------------------------------------- values
json_t *json_time(int64_t wall_ms)
{
	char text[32];
	return wall_ms <= 0 ? json_null() : json_string(clock_rfc3339(wall_ms, text, sizeof(text)));
}

json_t *json_duration_s(uint64_t seconds)
{
	char text[32];
	return json_string(clock_format_duration(seconds * CLOCK_S, text, sizeof(text)));
}

json_t *json_address(const struct address *address)
{
	char text[ADDRESS_TEXT_LEN];
	return json_string(address_format(address, text));
}

json_t *json_count(uint64_t n)
{
	return json_integer(n > INT64_MAX ? INT64_MAX : (json_int_t)n);
}
