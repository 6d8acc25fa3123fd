// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// What the files of this module share. The way of a request:
//
//   connection.c  accept, deadlines          auth.c   who is it, may they
//   uri.c         path and query, decoded    routes.c which handler
//   request.c     body, dispatch, answer     body.c   JSON, checked against a shape
//   handlers_*.c  the work                   reply.c  answers, problems
//
// Nothing is shared between requests but struct admin; all of it on the control thread.

#include <microhttpd.h>

#include "admin.h"

#define ADMIN_BODY_MAX        (1u << 20)
#define ADMIN_HEADER_BYTES    (32u << 10)
#define ADMIN_URI_MAX         2048
#define ADMIN_SEGMENTS_MAX    12
#define ADMIN_QUERY_MAX       16
#define ADMIN_REPLY_HEADERS   6
#define ADMIN_JSON_DEPTH_MAX  32
#define ADMIN_CONNECTIONS_MAX 64
#define ADMIN_PER_IP_MAX      8
#define ADMIN_TOKENS_MAX      64
#define ADMIN_BACKOFFS        256
#define ADMIN_FINDINGS_MAX    64

enum admin_role { ADMIN_NOBODY, ADMIN_VIEWER, ADMIN_OPERATOR, ADMIN_ADMIN };

// ---------------------------------------------------------------- tables
// Types of query parameters, body fields and response fields. One table feeds the checks of what comes
// in and the OpenAPI document.
enum admin_type {
	ADMIN_STRING,
	ADMIN_INTEGER,
	ADMIN_BOOLEAN,
	ADMIN_OBJECT,  // of shape `of`
	ADMIN_ARRAY,   // of shape `of`
	ADMIN_STRINGS, // array of strings
	ADMIN_NUMBERS, // object of integers by any name
	ADMIN_PORT,    // integer 1..65535 or a name
	ADMIN_REAL,    // a number with a fraction
	ADMIN_ANY,     // any JSON
};

enum admin_field_flags {
	ADMIN_REQUIRED = 1,
	ADMIN_NULLABLE = 2,
	ADMIN_READ_ONLY = 4, // accepted in a request and ignored
};

struct admin_field {
	const char *name;
	uint8_t type;               // enum admin_type
	uint8_t flags;              // enum admin_field_flags
	const char *of;             // shape of OBJECT and ARRAY
	const char *const *allowed; // words of a STRING, NULL-terminated
	const char *format;         // of a STRING: "duration" "address" "prefix" "date-time" "name"
	int64_t min, max; // of an INTEGER; length of a STRING; items of an ARRAY. 0, 0 = unbounded
	const char *help;
};

struct admin_shape {
	const char *name;
	const char *help;
	const struct admin_field *fields; // ends with name NULL
};

extern const struct admin_shape admin_shapes[]; // ends with name NULL
const struct admin_shape *shape_find(const char *name);
extern const struct admin_field admin_params[]; // query and path parameters by name, ends with NULL
const struct admin_field *param_find(const char *name, size_t len);

struct admin_request;
struct admin_route {
	const char *method;
	const char *path; // "/api/v1/services/{namespace}/{name}"
	void (*handler)(struct admin_request *r);
	uint8_t role;         // least enum admin_role
	const char *id;       // operationId
	const char *query;    // parameter names, blank separated
	const char *request;  // shape of the body, NULL = none is read
	const char *response; // shape of the success answer, NULL = no JSON
	const char *statuses; // success first, then those of this route's own: "200 404 409"
	const char *summary;
};
extern const struct admin_route admin_routes[]; // ends with method NULL
json_t *openapi_document(void);                 // gives

// ---------------------------------------------------------------- state
struct admin_token {
	uint8_t role;
	uint8_t sha256[32];
	char comment[64];
};

struct admin_tokens {
	char path[256];
	int64_t mtime_ns; // of the file that was read
	struct admin_token items[ADMIN_TOKENS_MAX];
	uint32_t n_items;
};

// One MHD daemon: the UNIX listener, or one TCP address.
struct admin_server {
	struct admin *admin;
	struct MHD_Daemon *daemon;
	struct event *readable; // MHD's epoll descriptor
	struct event *timer;    // MHD's own timeout
	bool is_unix;
	gid_t gid; // of the socket file
	dev_t dev; // of the socket file, to remove only our own
	ino_t ino;
	uint32_t n_connections;
	uint64_t n_closed;
	char name[128]; // path, or "[address]:port"
	struct admin_tokens tokens;
};

enum admin_phase {
	ADMIN_PHASE_HEADERS, // waiting for a request (or for the rest of its headers)
	ADMIN_PHASE_REQUEST, // a request is being read, worked on or answered
	ADMIN_PHASE_CLOSING, // shut down by us; MHD notices next
};

struct admin_connection {
	struct admin_server *server;
	struct admin_connection *next, *prev; // oldest first
	struct event *deadline;
	int fd;
	uint8_t phase;       // enum admin_phase
	struct address peer; // TCP
	uid_t uid;           // UNIX
	gid_t gid;
};

// Failed guesses of one address.
struct admin_backoff {
	struct address peer;
	uint32_t n_failures;
	uint64_t until_ns;
	uint64_t last_ns;
};

struct admin_wait; // see wait.c

// Rates over the last second and minute, from a 1 s timer.
#define ADMIN_SAMPLES 61
struct admin_sample {
	uint64_t time_ns;
	uint64_t received, sent, dropped;
};
struct admin_worker_sample {
	uint64_t busy_cycles, total_cycles;
	double busy_ratio;
};

struct admin {
	struct control *control; // borrowed
	struct admin_config config;
	struct admin_server servers[ADMIN_LISTENS_MAX + 1];
	uint32_t n_servers;
	struct admin_connection *oldest, *newest;
	struct admin_backoff backoffs[ADMIN_BACKOFFS];
	struct admin_wait *waiting; // answers that workers owe
	struct event *sampler;
	struct admin_sample samples[ADMIN_SAMPLES];
	uint64_t n_samples;
	struct admin_worker_sample workers[DEVICE_WORKERS_MAX];
	uint64_t n_requests_by_class[6]; // by status / 100
	uint64_t n_denied;
	uint64_t n_deadlines;
	uint64_t n_evicted;
	uint64_t n_series_dropped;
	uint64_t request_seed;
	double scrape_seconds; // of the last scrape
};

uint64_t admin_now_ns(void);

struct admin_pair {
	const char *name;
	const char *value;
};

struct admin_request {
	struct admin *admin;
	struct admin_connection *connection;
	struct MHD_Connection *mhd;
	char method[16];
	char *uri;        // as received
	char *words;      // decoded text that segments and query point into
	const char *path; // for messages: as received, without the query
	const char *segments[ADMIN_SEGMENTS_MAX];
	uint32_t n_segments;
	struct admin_pair query[ADMIN_QUERY_MAX];
	uint32_t n_query;
	int uri_error; // HTTP status of a refused URI, 0 = fine
	const struct admin_route *route;
	const char *args[4]; // path parameters in order
	uint32_t n_args;
	uint8_t role;
	char identity[128];
	char id[65]; // X-Request-Id
	bool has_body;
	bool started; // headers seen
	bool too_large;
	bool body_in_vain; // refused while the body is still on its way
	char *body;
	size_t body_len, body_cap;
	json_t *json; // parsed body
	json_t *findings;
	uint32_t n_findings_lost;
	// answer
	unsigned int status; // 0 = none yet
	char *reply;
	size_t reply_len;
	const char *content_type;
	struct {
		char name[32];
		char value[256];
	} headers[ADMIN_REPLY_HEADERS];
	uint32_t n_headers;
	bool is_changing; // worth an audit record
	bool suspended;
	struct admin_wait *wait;
};

// ---------------------------------------------------------------- connection.c
void connection_notify(void *arg, struct MHD_Connection *mhd, void **socket_context,
	enum MHD_ConnectionNotificationCode code);
// A new deadline, counted from now.
void connection_set_deadline(
	struct admin_connection *connection, enum admin_phase phase, uint32_t timeout_ms);
void connection_close(struct admin_connection *connection); // shutdown(2); MHD does the rest

// ---------------------------------------------------------------- auth.c
int tokens_load(struct admin_tokens *tokens, struct error *err);
// Finds out who asks: sets role and identity. 0, or the problem was answered already (-EACCES).
int auth_identify(struct admin_request *r);
int auth_check_origin(struct admin_request *r); // 0, or answered (-EACCES)

// ---------------------------------------------------------------- uri.c
void uri_parse(struct admin_request *r); // sets uri_error on refusal
const char *query_text(const struct admin_request *r, const char *name); // NULL: not given
int64_t query_integer(const struct admin_request *r, const char *name, int64_t fallback);
bool query_flag(const struct admin_request *r, const char *name);
// Every parameter of the query against the route's list. 0, or answered (-EINVAL).
int query_check(struct admin_request *r);

// ---------------------------------------------------------------- request.c
void *request_begin(void *arg, const char *uri, struct MHD_Connection *mhd);
enum MHD_Result request_step(void *arg, struct MHD_Connection *mhd, const char *url,
	const char *method, const char *version, const char *upload, size_t *upload_len,
	void **state);
void request_end(
	void *arg, struct MHD_Connection *mhd, void **state, enum MHD_RequestTerminationCode why);
const char *request_header(const struct admin_request *r, const char *name); // NULL: absent

// ---------------------------------------------------------------- body.c
int body_parse(struct admin_request *r); // into r->json; 0, or answered
// Compares with a shape; findings are added to the request. Returns how many.
uint32_t shape_check(struct admin_request *r, const struct admin_shape *shape, json_t *value,
	const char *pointer);

// ---------------------------------------------------------------- reply.c
enum admin_problem {
	PROBLEM_BAD_REQUEST,
	PROBLEM_BAD_JSON,
	PROBLEM_UNAUTHORIZED,
	PROBLEM_FORBIDDEN,
	PROBLEM_ORIGIN,
	PROBLEM_NOT_FOUND,
	PROBLEM_METHOD,
	PROBLEM_NOT_ACCEPTABLE,
	PROBLEM_EXISTS,
	PROBLEM_OWNER,
	PROBLEM_ADDRESS_IN_USE,
	PROBLEM_CONFLICT,
	PROBLEM_GONE,
	PROBLEM_PRECONDITION,
	PROBLEM_TOO_LARGE,
	PROBLEM_URI_TOO_LONG,
	PROBLEM_MEDIA_TYPE,
	PROBLEM_INVALID,
	PROBLEM_BACK_OFF,
	PROBLEM_INTERNAL,
	PROBLEM_NOT_IMPLEMENTED,
	PROBLEM_UNAVAILABLE,
	PROBLEM_WORKER_TIMEOUT,
	PROBLEM_MAX,
};
struct admin_problem_row {
	const char *code;
	unsigned int status;
	const char *title;
};
extern const struct admin_problem_row admin_problem_rows[PROBLEM_MAX];

void reply_json(struct admin_request *r, unsigned int status, json_t *body); // takes body
// Takes malloc'ed text.
void reply_text(struct admin_request *r, unsigned int status, const char *content_type, char *text,
	size_t len);
void reply_word(struct admin_request *r, unsigned int status, const char *word); // text/plain
void reply_empty(struct admin_request *r, unsigned int status);
void reply_header(struct admin_request *r, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void reply_problem(struct admin_request *r, enum admin_problem problem, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
// From a refusal of control or service: the code decides the problem, the items become findings.
void reply_error(struct admin_request *r, int code, const struct error *err);
// allowed (takes) may be NULL.
void finding_add(struct admin_request *r, const char *pointer, json_t *allowed, const char *fmt,
	...) __attribute__((format(printf, 4, 5)));
// The body of the request_in_vain answer, for a client that still sends (see request.c). gives
char *reply_raw(struct admin_request *r, size_t *out_len);

// Preconditions (RFC 9110 13) on an object of that generation. False: answered with 304 or 412.
bool reply_precondition(struct admin_request *r, bool exists, uint64_t generation);
void reply_etag(struct admin_request *r, uint64_t generation);

// Pages: a bounded part of a list.
#define ADMIN_LIMIT_DEFAULT 100
#define ADMIN_LIMIT_MAX     1000
struct admin_page {
	uint32_t limit;
	char after[512]; // where the last page ended, "" = from the start
};
int page_begin(struct admin_request *r, struct admin_page *page); // 0, or answered
// items (takes). next: where to go on, NULL = this was the last page. remaining < 0: not known.
void page_reply(struct admin_request *r, json_t *items, uint64_t generation, const char *next,
	int64_t remaining);

json_t *json_time(int64_t wall_ms);
json_t *json_duration_s(uint64_t seconds);
json_t *json_address(const struct address *address);
json_t *json_count(uint64_t n); // a counter; above 2^63 - 1 it stays there

// ---------------------------------------------------------------- wait.c
// An answer that workers owe: the connection sleeps. The object outlives a request that ends early, until
// control has called back.
struct admin_wait {
	struct admin_request *request; // NULL: nobody waits any more
	struct admin_wait *next, *prev;
	struct pipeline_question question; // of /explain
	// of /flows
	struct dataplane_flow_filter filter;
	char filter_text[256];
	uint32_t limit;
	uint32_t n_rounds;
	json_t *items;
	bool by_service;
	char service[SERVICE_NAME_MAX * 2 + 2];
	struct address backend;
	bool by_backend;
};
struct admin_wait *wait_begin(struct admin_request *r); // NULL: answered (no memory)
void wait_forget(struct admin_request *r);              // the request ends first
// In the call-back: the request, or NULL when it is gone. Ends the wait (frees it).
struct admin_request *wait_end(struct admin_wait *wait);
void wait_resume(struct admin_request *r);  // the answer is ready
void wait_abandon_all(struct admin *admin); // wakes every sleeping connection, without an answer

// ---------------------------------------------------------------- handlers
void get_services(struct admin_request *r);
void post_services(struct admin_request *r);
void get_service(struct admin_request *r);
void put_service(struct admin_request *r);
void patch_service(struct admin_request *r);
void delete_service(struct admin_request *r);
void post_release(struct admin_request *r);
void get_backends(struct admin_request *r);
void get_service_backends(struct admin_request *r);
void get_backend(struct admin_request *r);
void patch_backend(struct admin_request *r);
void post_drain(struct admin_request *r);
void post_undrain(struct admin_request *r);
void get_ports(struct admin_request *r);
void get_workers(struct admin_request *r);
void get_drops(struct admin_request *r);
void get_flows(struct admin_request *r);
void get_events(struct admin_request *r);
void get_config(struct admin_request *r);
void post_reload(struct admin_request *r);
void get_digest(struct admin_request *r);
void get_kubernetes(struct admin_request *r);
void get_system(struct admin_request *r);
void post_explain(struct admin_request *r);
void get_livez(struct admin_request *r);
void get_readyz(struct admin_request *r);
void get_metrics(struct admin_request *r);
void get_openapi(struct admin_request *r);

// Shared by handlers.
const struct service *find_service(struct admin_request *r); // by args 0 and 1; NULL: answered 404
json_t *backend_json(struct admin *admin, const struct control_backend_status *status);
void sampler_tick(evutil_socket_t fd, short events, void *arg);
struct admin_rates {
	double received_per_s, sent_per_s, dropped_per_s, dropped_per_minute;
};
struct admin_rates admin_rates(const struct admin *admin);
