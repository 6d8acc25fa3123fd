// SPDX-License-Identifier: BSD-3-Clause
// The reflector under any order of calls with any bytes: each input byte is a step. What always holds: times asked for lie ahead, the sink
// hears an end only of a list that began, objects have names, lists keep their budget, one request at a time.
//
//   00..3f  ask what to do, after n*n*8 ms      40..5f  a head        60..6f  an end
//   70..7f  wake                                80..bf  a piece that a server may send    c0..ff  the next n bytes as they are
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kube_reflector.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

struct world {
	struct kube_reflector *r;
	uint64_t now_ns;
	bool is_busy;
	bool is_listing;
	uint64_t asked_ns;
	uint64_t n_lists;
	uint64_t starts[4]; // of the last lists that were answered
};

static void must(bool claim)
{
	if (!claim)
		abort();
}

static void on_begin(void *arg)
{
	((struct world *)arg)->is_listing = true;
}

static void on_end(void *arg)
{
	struct world *w = arg;
	must(w->is_listing);
	w->is_listing = false;
}

static void on_put(void *arg, json_t *object)
{
	const json_t *metadata = json_object_get(object, "metadata");
	const char *name = json_string_value(json_object_get(metadata, "name"));
	const char *version = json_string_value(json_object_get(metadata, "resourceVersion"));
	must(name && name[0] && strlen(name) <= 253);
	must(version == NULL || version[0]);
}

static void on_remove(void *arg, const char *namespace, const char *name)
{
	must(name[0] && strlen(name) <= 253 && strlen(namespace) <= 253);
}

static void on_bad(void *arg, const char *namespace, const char *name, const char *reason)
{
	must(strlen(name) <= 253 && reason[0]);
	for (const char *c = reason; *c; c++)
		must((unsigned char)*c >= 0x20 && (unsigned char)*c < 0x7f);
}

static void step_ask(struct world *w, uint64_t n)
{
	struct kube_request request;
	w->now_ns += n * n * 8 * CLOCK_MS;
	switch (kube_reflector_next(w->r, w->now_ns, &request)) {
	case KUBE_STEP_REQUEST:
		must(!w->is_busy && strncmp(request.target, "/api/v1/things?", 15) == 0);
		w->is_busy = true;
		w->asked_ns = w->now_ns;
		break;
	case KUBE_STEP_ABANDON:
		must(w->is_busy);
		w->is_busy = false;
		break;
	case KUBE_STEP_BUSY:
		must(w->is_busy && request.until_ns > w->now_ns);
		break;
	case KUBE_STEP_WAIT:
		must(!w->is_busy && request.until_ns > w->now_ns);
		break;
	}
}

// A list was answered: of any four, the last started 30 s after the first.
static void budget_check(struct world *w)
{
	uint64_t n = kube_reflector_status(w->r)->n_lists;
	if (n == w->n_lists)
		return;
	must(n == w->n_lists + 1);
	w->n_lists = n;
	memmove(w->starts, w->starts + 1, sizeof(w->starts) - sizeof(w->starts[0]));
	w->starts[3] = w->asked_ns;
	if (n >= 4)
		must(w->starts[3] - w->starts[0] >= 30 * CLOCK_S);
}

static void step_head(struct world *w, uint32_t n)
{
	static const int codes[] = { 200, 200, 200, 200, 400, 401, 403, 404, 410, 422, 429, 500,
		503, 504, 302, 0 };
	static const char *const types[] = { NULL, "application/json", "text/plain", "" };
	kube_reflector_head(w->r, w->now_ns, codes[n % 16], n & 16 ? (int64_t)n : -1,
		types[codes[n % 16] == 200 ? n % 2 : n % 4]);
	budget_check(w);
}

static const char *const pieces[] = {
	"{\"type\":\"ADDED\",\"object\":{\"kind\":\"Thing\",\"metadata\":{\"name\":\"a\","
	"\"namespace\":\"d\",\"resourceVersion\":\"5\"}}}\n",
	"{\"type\":\"MODIFIED\",\"object\":{\"kind\":\"Thing\",\"metadata\":{\"name\":\"a\","
	"\"namespace\":\"d\",\"resourceVersion\":\"15\"}}}\n",
	"{\"type\":\"DELETED\",\"object\":{\"kind\":\"Thing\",\"metadata\":{\"name\":\"a\","
	"\"namespace\":\"d\",\"resourceVersion\":\"25\"}}}\n",
	"{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"Thing\",\"metadata\":{\"resourceVersion\":"
	"\"30\"}}}\n",
	"{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"Thing\",\"metadata\":{\"resourceVersion\":"
	"\"9\",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}}}}\n",
	"{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":410,\"reason\":\"Expired\"}}"
	"\n",
	"{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":429,\"details\":{"
	"\"retryAfterSeconds\":3}}}\n",
	"{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":500}}\n",
	"{\"kind\":\"ThingList\",\"metadata\":{\"resourceVersion\":\"9\",\"continue\":\"t\"},"
	"\"items\":[",
	"{\"kind\":\"ThingList\",\"metadata\":{\"resourceVersion\":\"9\"},\"items\":[",
	"{\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"5\"}}",
	",",
	"]}",
	"{\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"5\"},\"a\":1e999999}",
	"{\"kind\":\"Status\",\"code\":504,\"details\":{\"causes\":[{\"reason\":"
	"\"ResourceVersionTooLarge\"}],\"retryAfterSeconds\":1}}",
	"{\"type\":\"MODIFIED\",\"object\":{\"kind\":\"Thing\",\"metadata\":{\"name\":\"a\","
	"\"namespace\":\"d\",\"resourceVersion\":\"40\"},\"a\":1,\"a\":2}}\n",
	"{\"type\":\"DELETED\",\"object\":{\"kind\":\"Thing\",\"metadata\":{\"name\":\"a\","
	"\"namespace\":\"d\",\"resourceVersion\":\"41\"},\"a\":\"\\u0000\"}}\n",
	"{\"type\":\"ADDED\",\"object\":{\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\","
	"\"resourceVersion\":\"5\"}}}\n",
	"garbage\n",
	"\n",
};

static void send(struct world *w, const char *text, size_t len)
{
	char *exact = malloc(len ? len : 1);
	memcpy(exact, text, len);
	kube_reflector_body(w->r, w->now_ns, exact, len);
	free(exact);
}

static void step(struct world *w, const uint8_t **at, const uint8_t *end)
{
	uint8_t c = *(*at)++;
	if (c < 0x40) {
		step_ask(w, c);
	} else if (c < 0x60) {
		step_head(w, c & 31);
	} else if (c < 0x70) {
		kube_reflector_end(w->r, w->now_ns, (enum kube_end)(c & 3));
		w->is_busy = false;
	} else if (c < 0x80) {
		kube_reflector_wake(w->r, w->now_ns);
	} else if (c < 0xc0) {
		const char *piece = pieces[(c & 63) % (sizeof(pieces) / sizeof(pieces[0]))];
		send(w, piece, strlen(piece));
	} else {
		size_t n = c & 63, left = (size_t)(end - *at);
		n = n < left ? n : left;
		send(w, (const char *)*at, n);
		*at += n;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct world w = { .now_ns = 1000 * CLOCK_S };
	struct kube_sink sink = { on_begin, on_put, on_remove, on_end, on_bad, &w };
	struct kube_reflector_config config = {
		.path = "/api/v1/things", .query = "q=1", .kind = "Thing"
	};
	const uint8_t *at = bytes, *end = bytes + size;
	if (size < 2)
		return 0;
	config.seed = bytes[0];
	config.is_optional = bytes[1] & 1;
	config.no_watch_list = bytes[1] & 2;
	w.r = kube_reflector_create(&config, &sink);
	must(w.r != NULL);
	for (at += 2; at < end;)
		step(&w, &at, end);
	must(strlen(kube_reflector_status(w.r)->last_rv) <
		sizeof(kube_reflector_status(w.r)->last_rv));
	kube_reflector_destroy(w.r);
	return 0;
}
