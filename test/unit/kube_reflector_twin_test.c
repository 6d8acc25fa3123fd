// SPDX-License-Identifier: BSD-3-Clause
// The reflector against a model server with a random history and random misbehaviour. Always: what the sink is told to put was once
// so, what it is told to remove was removed, what it sweeps is not there in the version of the list, lists keep their budget. And when the
// server behaves again, what the sink holds is what the server holds, exactly.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base.h"
#include "kube_play_priv.h"
#include "kube_reflector.h"

#define N_NAMES   24
#define N_HISTORY 20000
#define STEP_NS   (200 * CLOCK_MS)
#define PAGE      7

// ---------------------------------------------------------------- the history of the server
struct change {
	uint32_t version;
	uint16_t name;
	bool is_removed;
	bool is_bad; // its content cannot be taken, its name can be read
};

enum naughty { // what may go wrong with a request
	NAUGHTY_NOT,
	NAUGHTY_REFUSED,
	NAUGHTY_NO_HEAD,
	NAUGHTY_CODE,
	NAUGHTY_HTML,
	NAUGHTY_CUT,
	NAUGHTY_SILENT,
	NAUGHTY_GARBAGE,
	NAUGHTY_TRUNCATED,
	NAUGHTY_ERROR_EVENT,
	NAUGHTY_ODD_EVENT,
	NAUGHTY_NO_BOOKMARK,
	NAUGHTY_UNNAMED,
	NAUGHTY_KINDS
};

struct request {
	bool is_open;
	bool has_head;
	bool is_watch;
	bool is_list; // counts for the budget
	int code;
	uint64_t asked_ns;
	uint64_t head_ns;
	uint64_t until_ns; // timeoutSeconds
	uint64_t bookmark_ns;
	enum naughty naughty;
	uint64_t naughty_ns; // when it strikes
	size_t at;           // of the history, next to send
	char *body;          // still to send
	size_t body_len;
	size_t body_at;
	bool ends; // when the body is sent
};

struct pages { // of one list, by token
	uint32_t version;
	uint32_t id;
	uint16_t next; // name
};

struct world {
	struct change history[N_HISTORY];
	size_t n_history;
	uint32_t version;
	uint32_t oldest; // versions up to here are gone: 410
	struct request request;
	struct pages pages;
	bool is_naughty;
	bool is_storm;   // every watch is told 410
	bool has_stream; // knows streaming lists
	uint64_t now_ns;
	uint64_t random;
	uint64_t list_starts[4096];
	size_t n_list_starts;
	uint64_t n_struck[NAUGHTY_KINDS];
	// the sink
	struct kube_reflector *reflector;
	uint32_t held[N_NAMES]; // version, 0 = not held
	bool is_marked[N_NAMES];
	bool is_listing;
	uint64_t n_swept;
	uint64_t n_removed;
	uint64_t n_ends;
};

static uint32_t below(struct world *w, uint32_t bound)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return (uint32_t)(w->random >> 32) % bound;
}

// The newest change of a name up to a version, or NULL.
static const struct change *state_at(const struct world *w, uint16_t name, uint32_t version)
{
	const struct change *last = NULL;
	for (size_t i = 0; i < w->n_history && w->history[i].version <= version; i++)
		if (w->history[i].name == name)
			last = &w->history[i];
	return last && !last->is_removed ? last : NULL;
}

static const struct change *change_of(const struct world *w, uint32_t version)
{
	for (size_t i = w->n_history; i-- > 0;)
		if (w->history[i].version == version)
			return &w->history[i];
	return NULL;
}

static void history_grow(struct world *w)
{
	if (w->n_history == N_HISTORY)
		return;
	uint16_t name = (uint16_t)below(w, N_NAMES);
	bool is_there = state_at(w, name, UINT32_MAX) != NULL;
	w->version += 1 + below(w, 3);
	w->history[w->n_history++] = (struct change){
		.version = w->version,
		.name = name,
		.is_removed = is_there && below(w, 3) == 0,
		.is_bad = below(w, 12) == 0,
	};
}

// ---------------------------------------------------------------- the sink
static void on_begin(void *arg)
{
	struct world *w = arg;
	w->is_listing = true;
	memset(w->is_marked, 0, sizeof(w->is_marked));
}

static uint16_t name_of(const char *namespace, const char *text)
{
	unsigned name = 0;
	assert_string_equal(namespace, "d");
	assert_int_equal(sscanf(text, "n%u", &name), 1);
	assert_true(name < N_NAMES);
	return (uint16_t)name;
}

static void on_put(void *arg, json_t *object)
{
	struct world *w = arg;
	const json_t *metadata = json_object_get(object, "metadata");
	uint16_t name = name_of(json_string_value(json_object_get(metadata, "namespace")),
		json_string_value(json_object_get(metadata, "name")));
	const char *text = json_string_value(json_object_get(metadata, "resourceVersion"));
	uint32_t version = (uint32_t)strtoul(text, NULL, 10);
	const struct change *change = change_of(w, version);
	assert_non_null(change);
	assert_int_equal(change->name, name);
	assert_false(change->is_removed || change->is_bad);
	w->held[name] = version;
	w->is_marked[name] = true;
}

static void on_remove(void *arg, const char *namespace, const char *text)
{
	struct world *w = arg;
	uint16_t name = name_of(namespace, text);
	bool was_removed = false;
	for (size_t i = 0; i < w->n_history && !was_removed; i++)
		was_removed = w->history[i].name == name && w->history[i].is_removed;
	assert_true(was_removed);
	w->held[name] = 0;
	w->n_removed++;
}

static void on_end(void *arg)
{
	struct world *w = arg;
	uint32_t version =
		(uint32_t)strtoul(kube_reflector_status(w->reflector)->last_rv, NULL, 10);
	assert_true(w->is_listing);
	w->is_listing = false;
	w->n_ends++;
	for (uint16_t name = 0; name < N_NAMES; name++) {
		const struct change *there = state_at(w, name, version);
		if (w->held[name] && !w->is_marked[name]) {
			assert_null(there);
			w->held[name] = 0;
			w->n_swept++;
		}
		if (there && !there->is_bad)
			assert_int_equal(w->held[name], there->version);
		else if (there == NULL)
			assert_int_equal(w->held[name], 0);
	}
}

static void on_bad(void *arg, const char *namespace, const char *text, const char *reason)
{
	struct world *w = arg;
	if (text[0])
		w->is_marked[name_of(namespace, text)] = true;
}

// ---------------------------------------------------------------- bodies
static void object_print(FILE *out, const struct change *change, const char *end)
{
	char name[16], version[16];
	static const char *const bad[] = { ",\"a\":1,\"a\":2", ",\"a\":1e999999",
		",\"a\":\"\\u0000\"", ",\"a\":99999999999999999999999", ",\"a\":\"\xff\"",
		",\"a\":01" };
	snprintf(name, sizeof(name), "n%u", change->name);
	snprintf(version, sizeof(version), "%u", change->version);
	play_object(out, name, version);
	fputs(change->is_bad ? bad[change->version % ARRAY_SIZE(bad)] : ",\"spec\":{\"b\":[1,{}]}",
		out);
	fputs(end, out);
}

static void event_print(struct world *w, FILE *out, const struct change *change)
{
	bool was_there = state_at(w, change->name, change->version - 1) != NULL;
	fprintf(out, "{\"type\":\"%s\",\"object\":",
		change->is_removed ? "DELETED"
		: was_there        ? "MODIFIED"
				   : "ADDED");
	object_print(out, change, below(w, 2) ? "}}\n" : "}}");
}

static void body_add(struct request *q, const char *text, size_t len)
{
	if (q->body_at)
		memmove(q->body, q->body + q->body_at, q->body_len - q->body_at);
	q->body_len -= q->body_at;
	q->body_at = 0;
	q->body = realloc(q->body, q->body_len + len + 1);
	assert_non_null(q->body);
	memcpy(q->body + q->body_len, text, len);
	q->body_len += len;
}

static void print_add(struct request *q, FILE *out, char **text, size_t *len)
{
	fclose(out);
	body_add(q, *text, *len);
	free(*text);
}

// Everything there is, in an order of its own, and the bookmark that ends it.
static void stream_list_start(struct world *w)
{
	char *text;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	uint16_t first = (uint16_t)below(w, N_NAMES);
	char version[16];
	snprintf(version, sizeof(version), "%u", w->version);
	for (uint16_t i = 0; i < N_NAMES; i++) {
		const struct change *there =
			state_at(w, (uint16_t)((first + i) % N_NAMES), w->version);
		if (there == NULL)
			continue;
		fputs("{\"type\":\"ADDED\",\"object\":", out);
		object_print(out, there, "}}\n");
	}
	if (w->request.naughty != NAUGHTY_NO_BOOKMARK)
		play_bookmark(out, version, 1);
	print_add(&w->request, out, &text, &len);
	w->request.at = w->n_history;
}

static void page_start(struct world *w, uint32_t version, uint16_t from, uint16_t most)
{
	char *text;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	uint16_t n = 0, name = from;
	bool is_unnamed = w->request.naughty == NAUGHTY_UNNAMED;
	fputs("{\"kind\":\"ThingList\",", out);
	bool is_first = below(w, 2); // the metadata
	for (uint16_t next = from; is_first && n < most && next < N_NAMES; next++)
		n += state_at(w, next, version) != NULL;
	uint16_t end = from;
	for (uint16_t k = 0; end < N_NAMES && k < most; end++)
		k += state_at(w, end, version) != NULL;
	w->pages = (struct pages){ version, w->pages.id + 1, end };
	char metadata[200];
	snprintf(metadata, sizeof(metadata),
		"\"metadata\":{\"resourceVersion\":\"%u\",\"continue\":\"%.0d%s\"}", version, 0,
		"");
	if (end < N_NAMES)
		snprintf(metadata, sizeof(metadata),
			"\"metadata\":{\"resourceVersion\":\"%u\",\"continue\":\"t%u\"}", version,
			w->pages.id);
	if (is_first)
		fprintf(out, "%s,", metadata);
	fputs("\"items\":[", out);
	const char *comma = "";
	for (; name < end; name++) {
		const struct change *there = state_at(w, name, version);
		if (there == NULL)
			continue;
		fputs(comma, out);
		comma = ",\n";
		if (is_unnamed && below(w, 3) == 0) {
			w->n_struck[NAUGHTY_UNNAMED]++;
			fputs("{\"metadata\":{}}", out);
		} else {
			object_print(out, there, "}");
		}
	}
	fprintf(out, "]%s%s}", is_first ? "" : ",", is_first ? "" : metadata);
	print_add(&w->request, out, &text, &len);
	w->request.ends = true;
}

static void status_start(struct world *w, int code)
{
	char *text;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	if (below(w, 2))
		play_status(out, code, "x", "");
	else
		fputs("not JSON", out);
	w->request.code = code;
	print_add(&w->request, out, &text, &len);
	w->request.ends = true;
}

// ---------------------------------------------------------------- requests
static const char *parameter(const char *target, const char *key)
{
	const char *at = strstr(target, key);
	return at ? at + strlen(key) : NULL;
}

static void watch_answer(struct world *w, const char *target)
{
	struct request *q = &w->request;
	const char *from = parameter(target, "&resourceVersion=");
	bool is_stream = strstr(target, "sendInitialEvents") != NULL;
	uint32_t version = from ? (uint32_t)strtoul(from, NULL, 10) : 0;
	q->until_ns =
		w->now_ns + strtoull(parameter(target, "timeoutSeconds="), NULL, 10) * CLOCK_S;
	if (w->is_naughty)
		q->until_ns = w->now_ns + (5 + below(w, 60)) * CLOCK_S;
	q->is_list = is_stream;
	if (is_stream && !w->has_stream) {
		status_start(w, 422);
	} else if (is_stream) {
		stream_list_start(w);
	} else if (version < w->oldest || w->is_storm) {
		status_start(w, 410);
	} else {
		for (q->at = 0; q->at < w->n_history && w->history[q->at].version <= version;)
			q->at++;
	}
}

static void list_answer(struct world *w, const char *target)
{
	const char *token = parameter(target, "continue=t");
	const char *from = parameter(target, "?resourceVersion=");
	w->request.is_list = token == NULL;
	if (token &&
		(strtoul(token, NULL, 10) != w->pages.id || (w->is_naughty && below(w, 9) == 0)))
		status_start(w, 410);
	else if (token)
		page_start(w, w->pages.version, w->pages.next, PAGE);
	else if (from && w->is_naughty && below(w, 5) == 0)
		status_start(w, 410);
	else
		page_start(w, w->version, 0, from || !strstr(target, "limit=") ? N_NAMES : PAGE);
}

static void request_open(struct world *w, const struct kube_request *asked)
{
	static const int codes[] = { 429, 500, 503, 504, 401, 403, 404, 410, 400, 302 };
	struct request *q = &w->request;
	assert_false(q->is_open);
	free(q->body);
	*q = (struct request){
		.is_open = true, .code = 200, .is_watch = asked->is_watch, .asked_ns = w->now_ns
	};
	q->head_ns = w->now_ns + below(w, 3) * STEP_NS;
	q->bookmark_ns = w->now_ns + 60 * CLOCK_S;
	if (w->is_naughty && below(w, 3))
		q->naughty = (enum naughty)below(w, NAUGHTY_KINDS);
	q->naughty_ns = w->now_ns + below(w, below(w, 2) ? 5 : 40) * CLOCK_S;
	if (q->naughty == NAUGHTY_CODE && below(w, 2))
		status_start(w, codes[below(w, ARRAY_SIZE(codes))]);
	else if (asked->is_watch)
		watch_answer(w, asked->target);
	else
		list_answer(w, asked->target);
}

static void request_close(struct world *w, enum kube_end how)
{
	w->request.is_open = false;
	kube_reflector_end(w->reflector, w->now_ns, how);
}

static void send(struct world *w, const char *text, size_t len)
{
	char *exact = malloc(len ? len : 1); // a read beyond it is seen
	memcpy(exact, text, len);
	kube_reflector_body(w->reflector, w->now_ns, exact, len);
	free(exact);
}

static void budget_check(struct world *w)
{
	size_t n = w->n_list_starts;
	if (n == ARRAY_SIZE(w->list_starts))
		return;
	w->list_starts[w->n_list_starts++] = w->request.asked_ns;
	if (n >= 3)
		assert_true(w->list_starts[n] - w->list_starts[n - 3] >= 30 * CLOCK_S);
}

static void head_send(struct world *w)
{
	struct request *q = &w->request;
	bool is_html = q->naughty == NAUGHTY_HTML;
	q->has_head = true;
	if (q->code == 200 && q->is_list)
		budget_check(w);
	kube_reflector_head(w->reflector, w->now_ns, q->code,
		q->code >= 429 && below(w, 2) ? (int64_t)below(w, 10) : -1,
		is_html && below(w, 2) ? "text/html" : "application/json");
	if (is_html) {
		w->n_struck[NAUGHTY_HTML]++;
		send(w, "<html>\n", 7);
	}
}

// True: nothing more is done with this request now.
static bool strike(struct world *w)
{
	struct request *q = &w->request;
	static const char *const garbage[] = { "garbage\n", "{\"type\":\n", "[[[\n", "}\n",
		"\xff\xfe\n", "{\"type\":\"MODIFIED\"}\n", "{\"type\":1,\"object\":{}}\n",
		"{\"a\":\"\n", "[[{\"type\":\"ADDED\",\n" };
	static const char *const odd[] = { "{\"type\":\"ODD\",\"object\":{}}\n",
		"{\"type\":\"ADDED\",\"object\":{\"kind\":\"Pod\",\"metadata\":{\"name\":\"n1\","
		"\"namespace\":\"d\","
		"\"resourceVersion\":\"999999999\"}}}\n",
		"\n\n" };
	static const char *const errors[] = { "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\","
					      "\"code\":410,\"reason\":\"Expired\"}}\n",
		"{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":500}}\n",
		"{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":429,\"details\":{"
		"\"retryAfterSeconds\":2}}}\n" };
	const char *text = NULL;
	w->n_struck[q->naughty]++;
	switch (q->naughty) {
	case NAUGHTY_CUT:
		request_close(w, below(w, 2) ? KUBE_END_CLEAN : KUBE_END_BROKEN);
		return true;
	case NAUGHTY_GARBAGE:
		text = garbage[below(w, ARRAY_SIZE(garbage))];
		break;
	case NAUGHTY_ODD_EVENT:
		text = odd[below(w, ARRAY_SIZE(odd))];
		break;
	case NAUGHTY_ERROR_EVENT:
		text = errors[below(w, ARRAY_SIZE(errors))];
		break;
	case NAUGHTY_TRUNCATED: // the rest of what is to be sent, up to somewhere in it, then a new line
		if (q->body_len - q->body_at > 20)
			q->body_len -= 1 + below(w, 19);
		text = "\n";
		break;
	default:
		return false;
	}
	if (q->is_watch && q->code == 200)
		body_add(q, text, strlen(text));
	q->naughty_ns = w->now_ns + (1 + below(w, 60)) * CLOCK_S;
	return false;
}

static void events_add(struct world *w)
{
	struct request *q = &w->request;
	char *text, version[16];
	size_t len;
	FILE *out = open_memstream(&text, &len);
	for (; q->at < w->n_history; q->at++)
		event_print(w, out, &w->history[q->at]);
	snprintf(version, sizeof(version), "%u", w->version);
	if (w->now_ns >= q->bookmark_ns) {
		play_bookmark(out, version, 0);
		q->bookmark_ns = w->now_ns + 60 * CLOCK_S;
	}
	print_add(q, out, &text, &len);
}

static void body_send(struct world *w)
{
	static const char expired[] =
		"{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":410}}\n";
	struct request *q = &w->request;
	uint32_t n = below(w, 5);
	if (w->is_storm && q->is_watch && q->code == 200 && q->body_at == q->body_len)
		body_add(q, expired, strlen(expired)); // the stream behind its list too
	while (q->is_open && q->body_at < q->body_len && n-- > 0) {
		size_t left = q->body_len - q->body_at;
		size_t piece = below(w, 3) ? left : 1 + below(w, (uint32_t)left);
		send(w, q->body + q->body_at, piece);
		q->body_at += piece;
	}
	if (q->body_at == q->body_len && q->ends)
		request_close(w, KUBE_END_CLEAN);
}

static void server_step(struct world *w)
{
	struct request *q = &w->request;
	if (!q->is_open)
		return;
	if (!q->has_head) {
		if (q->naughty == NAUGHTY_REFUSED) {
			w->n_struck[NAUGHTY_REFUSED]++;
			request_close(w, KUBE_END_REFUSED);
		} else if (q->naughty == NAUGHTY_NO_HEAD) {
			w->n_struck[NAUGHTY_NO_HEAD]++;
		} else if (w->now_ns >= q->head_ns) {
			head_send(w);
		}
		return;
	}
	if (q->naughty == NAUGHTY_SILENT && w->now_ns >= q->naughty_ns) {
		w->n_struck[NAUGHTY_SILENT]++;
		return;
	}
	if (q->is_watch && q->code == 200)
		events_add(w);
	if (q->naughty && w->now_ns >= q->naughty_ns && strike(w))
		return;
	body_send(w);
	if (q->is_open && q->is_watch && w->now_ns >= q->until_ns)
		request_close(w, KUBE_END_CLEAN);
}

// ---------------------------------------------------------------- running
static void reflector_step(struct world *w)
{
	struct kube_request asked;
	for (;;) {
		switch (kube_reflector_next(w->reflector, w->now_ns, &asked)) {
		case KUBE_STEP_REQUEST:
			request_open(w, &asked);
			break;
		case KUBE_STEP_ABANDON:
			assert_true(w->request.is_open);
			w->request.is_open = false;
			break;
		default:
			assert_true(asked.until_ns > w->now_ns);
			return;
		}
	}
}

static void run(struct world *w, bool is_naughty, uint64_t for_ns, uint32_t changes_percent)
{
	w->is_naughty = is_naughty;
	if (!is_naughty)
		w->request.naughty = NAUGHTY_NOT;
	for (uint64_t end_ns = w->now_ns + for_ns; w->now_ns < end_ns; w->now_ns += STEP_NS) {
		for (uint32_t n = below(w, 100) < changes_percent ? 1 + below(w, 4) : 0; n > 0; n--)
			history_grow(w);
		if (is_naughty && below(w, 500) == 0)
			w->oldest = w->version; // compacted
		server_step(w);
		reflector_step(w);
	}
}

static void same_check(const struct world *w)
{
	for (uint16_t name = 0; name < N_NAMES; name++) {
		const struct change *there = state_at(w, name, UINT32_MAX);
		if (there == NULL)
			assert_int_equal(w->held[name], 0);
		else if (!there->is_bad)
			assert_int_equal(w->held[name], there->version);
		else // the last good form, of its present life, or none
			assert_true(w->held[name] < there->version);
	}
	assert_true(kube_reflector_status(w->reflector)->is_watching);
	assert_int_equal(kube_reflector_status(w->reflector)->trouble, KUBE_TROUBLE_NONE);
}

static struct {
	uint64_t struck[NAUGHTY_KINDS];
	uint64_t n_swept, n_removed, n_frames, n_bad, n_expired, n_silent, n_lists, n_requests;
} seen;

static void count(const struct world *w)
{
	const struct kube_reflector_status *s = kube_reflector_status(w->reflector);
	for (int i = 0; i < NAUGHTY_KINDS; i++)
		seen.struck[i] += w->n_struck[i];
	seen.n_swept += w->n_swept;
	seen.n_removed += w->n_removed;
	seen.n_frames += s->n_bad_frames;
	seen.n_bad += s->n_bad_objects;
	seen.n_expired += s->n_expired;
	seen.n_silent += s->n_silent;
	seen.n_lists += s->n_lists_complete;
	seen.n_requests += s->n_requests;
}

static void life(uint64_t seed)
{
	struct world *w = calloc(1, sizeof(*w));
	assert_non_null(w);
	*w = (struct world){ .random = seed * 0x9e3779b97f4a7c15ull + 1,
		.has_stream = seed % 3 != 0,
		.now_ns = 50 * CLOCK_S };
	struct kube_sink sink = { on_begin, on_put, on_remove, on_end, on_bad, w };
	struct kube_reflector_config config = {
		.path = PLAY_PATH, .kind = "Thing", .seed = seed, .no_watch_list = seed % 7 == 0
	};
	w->reflector = kube_reflector_create(&config, &sink);
	assert_non_null(w->reflector);
	for (int i = 0; i < 30; i++)
		history_grow(w);
	if (seed % 2) { // begins well
		run(w, false, 10 * CLOCK_S, 0);
		assert_true(kube_reflector_status(w->reflector)->is_synced);
		same_check(w);
	}
	for (int round = 0; round < 3; round++) {
		run(w, true, 15 * 60 * CLOCK_S, 5);
		w->is_storm = true;
		run(w, false, 4 * 60 * CLOCK_S, 5);
		w->is_storm = false;
		run(w, false, 6 * 60 * CLOCK_S, 5);
		run(w, false, 5 * CLOCK_S, 0);
		if (!kube_reflector_status(w->reflector)
				->is_watching) // it has just come to its end
			run(w, false, 5 * CLOCK_S, 0);
		same_check(w);
	}
	count(w);
	free(w->request.body);
	kube_reflector_destroy(w->reflector);
	free(w);
}

static void test_lives(void **state)
{
	for (uint64_t seed = 1; seed <= 40; seed++)
		life(seed);
}

// The misbehaviour did take place.
static void test_was_naughty(void **state)
{
	for (int i = NAUGHTY_NOT + 1; i < NAUGHTY_KINDS; i++)
		if (i != NAUGHTY_CODE && i != NAUGHTY_NO_BOOKMARK)
			assert_in_range(seen.struck[i], 30, UINT32_MAX);
	assert_true(seen.n_swept > 100);
	assert_true(seen.n_removed > 1000);
	assert_true(seen.n_frames > 100);
	assert_true(seen.n_bad > 1000);
	assert_true(seen.n_expired > 50);
	assert_true(seen.n_silent > 50);
	assert_true(seen.n_lists > 200);
	print_message("%llu requests, %llu lists, %llu swept, %llu removed, %llu frames lost\n",
		(unsigned long long)seen.n_requests, (unsigned long long)seen.n_lists,
		(unsigned long long)seen.n_swept, (unsigned long long)seen.n_removed,
		(unsigned long long)seen.n_frames);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lives),
		cmocka_unit_test(test_was_naughty),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
