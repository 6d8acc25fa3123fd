// SPDX-License-Identifier: BSD-3-Clause
// 10,000 broken lines on watches, a good event behind each: none crashes, each good one is applied, and memory stays within 64 MB of
// where it began. The kinds are those that broke others: nesting, exponents, NUL, sizes, duplicate keys, truncation, types.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base.h"
#include "kube_play_priv.h"
#include "kube_reflector.h"

#define N_LINES 10000
#define MOST    (64u << 20)
#define N_LARGE 4 // of 64 MiB: they take their time

// ---------------------------------------------------------------- what is allocated
size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static size_t tree_bytes, tree_peak_bytes;

static void *tree_malloc(size_t size)
{
	void *at = malloc(size);
	tree_bytes += at ? malloc_usable_size(at) : 0;
	tree_peak_bytes = tree_bytes > tree_peak_bytes ? tree_bytes : tree_peak_bytes;
	return at;
}

static void tree_free(void *at)
{
	tree_bytes -= at ? malloc_usable_size(at) : 0;
	free(at);
}

// Without the trees.
static size_t other_bytes(void)
{
	size_t all = __sanitizer_get_current_allocated_bytes
			     ? __sanitizer_get_current_allocated_bytes()
			     : mallinfo2().uordblks + mallinfo2().hblkhd;
	return all > tree_bytes ? all - tree_bytes : 0;
}

// ---------------------------------------------------------------- the world
struct world {
	struct kube_reflector *r;
	uint64_t now_ns;
	uint64_t random;
	uint32_t version;
	char last_put[64];
	uint64_t n_bad;
	uint64_t n_named; // of the bad
	size_t first_bytes;
	size_t peak_bytes;
};

static uint32_t below(struct world *w, uint32_t bound)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return (uint32_t)(w->random >> 32) % bound;
}

static void sample(struct world *w)
{
	size_t now = other_bytes();
	size_t grown = now > w->first_bytes ? now - w->first_bytes : 0;
	w->peak_bytes = grown > w->peak_bytes ? grown : w->peak_bytes;
}

static void on_begin(void *arg)
{
}

static void on_put(void *arg, json_t *object)
{
	struct world *w = arg;
	const json_t *metadata = json_object_get(object, "metadata");
	snprintf(w->last_put, sizeof(w->last_put), "%s@%s",
		json_string_value(json_object_get(metadata, "name")),
		json_string_value(json_object_get(metadata, "resourceVersion")));
}

static void on_remove(void *arg, const char *namespace, const char *name)
{
	assert_string_equal(name, "x"); // the broken ones'
}

static void on_bad(void *arg, const char *namespace, const char *name, const char *reason)
{
	struct world *w = arg;
	w->n_bad++;
	w->n_named += name[0] != '\0';
	assert_true(reason[0]);
	if (name[0])
		assert_string_equal(name, "x");
	sample(w);
}

// Pieces of up to 1 MiB, each a copy of exact length.
static void send(struct world *w, const char *text, size_t len)
{
	while (len) {
		size_t n = below(w, 2) ? 1 + below(w, 1u << 20) : 1 + below(w, 4000);
		n = n < len ? n : len;
		char *exact = malloc(n);
		memcpy(exact, text, n);
		kube_reflector_body(w->r, w->now_ns, exact, n);
		free(exact);
		sample(w);
		text += n;
		len -= n;
	}
}

// Up to a live watch: every question is answered as a good server does.
static void live(struct world *w)
{
	struct kube_request request;
	char text[300], version[16];
	snprintf(version, sizeof(version), "%u", w->version);
	for (;;) {
		switch (kube_reflector_next(w->r, w->now_ns, &request)) {
		case KUBE_STEP_WAIT:
			w->now_ns = request.until_ns;
			break;
		case KUBE_STEP_BUSY:
			assert_true(kube_reflector_status(w->r)->is_watching);
			return;
		case KUBE_STEP_ABANDON:
			break;
		case KUBE_STEP_REQUEST:
			kube_reflector_head(w->r, w->now_ns, 200, -1, "application/json");
			FILE *out = fmemopen(text, sizeof(text), "w");
			play_bookmark(out, version, strstr(request.target, "sendInitial") != NULL);
			fclose(out);
			send(w, text, strlen(text));
		}
	}
}

// ---------------------------------------------------------------- broken lines
static void repeat(FILE *out, const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		fputs(text, out);
}

static void x_start(struct world *w, FILE *out)
{
	static const char *const types[] = { "ADDED", "MODIFIED", "DELETED" };
	char version[16];
	snprintf(version, sizeof(version), "%u", ++w->version);
	fprintf(out, "{\"type\":\"%s\",\"object\":", types[below(w, 3)]);
	play_object(out, "x", version);
}

#define KINDS 20

// 1,000 or 100,000 levels.
static void nested_print(struct world *w, FILE *out, uint32_t kind)
{
	uint32_t n = below(w, 8) ? 1000 : 100000;
	if (kind != 11) { // with a name
		x_start(w, out);
		fputs(",\"a\":", out);
	}
	repeat(out, kind == 10 || below(w, 2) ? "[" : "{\"a\":", n);
	if (kind != 10)
		return;
	repeat(out, "]", n);
	fputs("}}", out);
}

// Over 2 MiB, or much tree of little text.
static void large_print(struct world *w, FILE *out, uint32_t kind)
{
	const uint32_t sizes[40] = { 65000, 690000 }; // just allowed, and within 2 MiB
	uint32_t n = sizes[below(w, 40)];
	x_start(w, out);
	fputs(",\"a\":[", out);
	if (kind == 12)
		repeat(out, "\"0123456789abcdef\",", n / 3);
	else if (kind == 13)
		repeat(out, "{},", n);
	else
		repeat(out, below(w, 2) ? "1," : "\"\",", 4 * n);
	fputs("{}],\"a\":1}}", out);
}

static void line_print(struct world *w, FILE *out, uint32_t kind)
{
	static const char *const members[] = { ",\"a\":1e999999}}", ",\"a\":-1e999999}}",
		",\"a\":99999999999999999999}}", ",\"a\":\"\\u0000\"}}", ",\"a\":1,\"a\":2}}",
		",\"a\":\"\xff\xfe\"}}", ",\"a\":01}}", ",\"a\":.5}}", ",\"a\":tru}}" };
	static const char unnamed[] = "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"\","
				      "\"resourceVersion\":\"1\"}}}";
	static const char *const wrong[] = { "{\"type\":7,\"object\":{}}", "{\"type\":\"ADDED\"}",
		"{\"type\":\"ADDED\",\"object\":[]}", "{\"type\":\"ADDED\",\"object\":null}",
		"{\"type\":\"ADDED\",\"object\":{\"metadata\":[]}}",
		"{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":{}}}}",
		"{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":5}}}", "{}",
		"[]", "\"a\"", "null", "-", unnamed };
	bool is_named = kind < ARRAY_SIZE(members) || kind == 15 || kind == 16 || kind == 19;
	if (is_named)
		x_start(w, out);
	if (kind < ARRAY_SIZE(members))
		fputs(members[kind], out);
	else if (kind <= 11)
		nested_print(w, out, kind);
	else if (kind <= 14)
		large_print(w, out, kind);
	else if (kind == 15) // raw NUL
		fprintf(out, ",\"a%cb\":1}}", 0);
	else if (kind == 16) // raw control characters
		fputs(",\"a\":\"\x01\x02\x1f\"}}", out);
	else if (kind == 17)
		fputs(wrong[below(w, ARRAY_SIZE(wrong))], out);
	else if (kind == 19) // to be cut off
		fputs(",\"spec\":{\"b\":[1,{\"c\":\"d\"}]}}}", out);
	for (uint32_t n = kind == 18 ? below(w, 300) : 0; n > 0; n--) // anything
		fputc((int)(1 + below(w, 255)), out);
}

static void broken_line(struct world *w, uint32_t kind)
{
	char *text;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	line_print(w, out, kind);
	fclose(out);
	if (kind == KINDS - 1)
		len = 1 + below(w, (uint32_t)len - 1);
	text[len] = '\n';
	send(w, text, len + 1);
	free(text);
}

static void good_event(struct world *w)
{
	char name[16], version[16], text[400], want[40];
	snprintf(name, sizeof(name), "n%u", below(w, 1000));
	snprintf(version, sizeof(version), "%u", ++w->version);
	snprintf(want, sizeof(want), "%s@%s", name, version);
	FILE *out = fmemopen(text, sizeof(text), "w");
	play_event(out, "MODIFIED", name, version);
	fclose(out);
	send(w, text, strlen(text));
	assert_string_equal(w->last_put, want);
}

// A name, then 64 MiB, whole or cut off.
static void large_line(struct world *w, bool is_whole)
{
	char *text, fill[65536];
	size_t len;
	FILE *out = open_memstream(&text, &len);
	x_start(w, out);
	fputs(",\"a\":\"", out);
	fclose(out);
	send(w, text, len);
	free(text);
	memset(fill, 'z', sizeof(fill));
	for (int i = 0; i < 1024; i++)
		kube_reflector_body(w->r, w->now_ns, fill, sizeof(fill));
	sample(w);
	send(w, is_whole ? "\"}}\n" : "\n", is_whole ? 4 : 1);
}

static void world_open(struct world *w)
{
	struct kube_sink sink = { on_begin, on_put, on_remove, on_begin, on_bad, w };
	struct kube_reflector_config config = { .path = PLAY_PATH, .kind = "Thing", .seed = 5 };
	*w = (struct world){ .now_ns = 10 * CLOCK_S, .random = 77, .version = 9 };
	json_set_alloc_funcs(tree_malloc, tree_free);
	w->r = kube_reflector_create(&config, &sink);
	assert_non_null(w->r);
	live(w);
	w->first_bytes = other_bytes();
}

static void test_lines(void **state)
{
	struct world w;
	world_open(&w);
	for (uint32_t i = 0; i < N_LINES; i++) {
		broken_line(&w, i % KINDS);
		good_event(&w);
		if (i % (N_LINES / N_LARGE) == 0) {
			large_line(&w, i % 2);
			good_event(&w);
		}
		w.now_ns += CLOCK_S;
		live(&w);
	}
	const struct kube_reflector_status *s = kube_reflector_status(w.r);
	print_message("%llu refused alone, %llu frames lost, %llu lists; trees at most %zu KiB, "
		      "the rest %zu KiB\n",
		(unsigned long long)s->n_bad_objects, (unsigned long long)s->n_bad_frames,
		(unsigned long long)s->n_lists, tree_peak_bytes >> 10, w.peak_bytes >> 10);
	assert_true(s->n_bad_objects > N_LINES / 2);
	assert_true(s->n_bad_frames > N_LINES / 6);
	assert_true(s->n_lists <= 3 + N_LINES / 30 + 1);
	assert_true(tree_peak_bytes + w.peak_bytes < MOST);
	sample(&w);
	size_t left = other_bytes();
	assert_true(left < w.first_bytes + (1u << 20)); // and nothing stays
	kube_reflector_destroy(w.r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
