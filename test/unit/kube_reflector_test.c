// SPDX-License-Identifier: BSD-3-Clause
// The reflector in virtual time: a table of scenes. Each is a script, one line a step; what the server does, what the reflector asks
// for and when, and what the sink hears.
//
//   > QUESTION       it asks now, for: stream [RV] | list | list RV | full | page TOKEN | watch RV
//   wait LO HI       it asks for nothing for LO..HI ms; that time passes
//   busy LO HI       the request is under way; look again after LO..HI ms; that time passes
//   abandon          the request is dropped
//   +MS              time passes
//   head CODE [RETRY_AFTER [TYPE]]
//   body WORDS       A:name:rv M: D: (events)  B:rv (bookmark)  BE:rv (the list's last)  E:code:reason[:more] (ERROR)
//                    S:code:reason[:more] (a Status)  L:rv:continue:names (a list; ' stands for ")
//                    ~text (as it is, to the end of the line, ^ for a newline)
//   end clean|refused|timeout|broken       wake
//   sink WORDS       since the last time: begin, put NAME@RV, del NAME, end, bad NAME
//   is FIELD VALUE   of the status
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base.h"
#include "kube_play_priv.h"
#include "kube_reflector.h"

#include "kube_scenes_priv.h"

struct stage {
	const struct scene *scene;
	const char *line;
	int n_line;
	struct kube_reflector *r;
	uint64_t now_ns;
	char *heard;
	size_t n_heard;
	FILE *ear;
};

static void fail_at(const struct stage *st, const char *fmt, ...)
	__attribute__((format(printf, 2, 3), noreturn));
static void fail_at(const struct stage *st, const char *fmt, ...)
{
	char text[2048];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fail_msg("scene \"%s\", step %d `%.100s` at %.3f s: %s\n(trouble: %s)", st->scene->name,
		st->n_line, st->line, (double)st->now_ns / 1e9, text,
		kube_reflector_status(st->r)->trouble_text);
	abort();
}

// ---------------------------------------------------------------- the sink
static void heard(
	void *arg, const char *word, const char *namespace, const char *name, const char *version)
{
	struct stage *st = arg;
	fflush(st->ear);
	bool is_cluster = name[0] && namespace[0] == '\0' && strcmp(name, "?") != 0;
	fprintf(st->ear, "%s%s%s%s%s%s%s", st->n_heard ? " " : "", word, name[0] ? " " : "",
		is_cluster ? "/" : "", name, version[0] ? "@" : "", version);
	fflush(st->ear);
}

static void hear_begin(void *arg)
{
	heard(arg, "begin", "", "", "");
}

static void hear_end(void *arg)
{
	heard(arg, "end", "", "", "");
}

static void hear_put(void *arg, json_t *object)
{
	const json_t *metadata = json_object_get(object, "metadata");
	const char *namespace = json_string_value(json_object_get(metadata, "namespace"));
	const char *version = json_string_value(json_object_get(metadata, "resourceVersion"));
	heard(arg, "put", namespace ? namespace : "",
		json_string_value(json_object_get(metadata, "name")), version ? version : "");
}

static void hear_remove(void *arg, const char *namespace, const char *name)
{
	heard(arg, "del", namespace, name, "");
}

static void hear_bad(void *arg, const char *namespace, const char *name, const char *reason)
{
	assert_true(reason[0]);
	heard(arg, "bad", namespace, name[0] ? name : "?", "");
}

static void ear_open(struct stage *st)
{
	st->heard = NULL;
	st->n_heard = 0;
	st->ear = open_memstream(&st->heard, &st->n_heard);
	assert_non_null(st->ear);
}

static void ear_close(struct stage *st)
{
	fclose(st->ear);
	free(st->heard);
}

static void step_sink(struct stage *st, const char *want)
{
	fflush(st->ear);
	if (strcmp(st->heard, want))
		fail_at(st, "the sink heard: %s", st->heard);
	ear_close(st);
	ear_open(st);
}

// ---------------------------------------------------------------- questions
#define STREAM                                                                                     \
	"watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=" \
	"true&timeoutSeconds=T"

static void expand_question(const char *question, char *out, size_t len)
{
	char word[32] = "", version[600] = "";
	sscanf(question, "%31s %599s", word, version);
	const char *and = version[0] ? "&resourceVersion=" : "";
	if (strcmp(word, "stream") == 0)
		snprintf(out, len, STREAM "%s%s", and, version);
	else if (strcmp(word, "watch") == 0)
		snprintf(out, len, "watch=true&allowWatchBookmarks=true&timeoutSeconds=T%s%s", and,
			version);
	else if (strcmp(word, "page") == 0)
		snprintf(out, len, "limit=500&continue=%s", version);
	else if (strcmp(word, "list") == 0 && version[0])
		snprintf(out, len, "resourceVersion=%s", version);
	else
		snprintf(out, len, "%s", strcmp(word, "list") == 0 ? "limit=500" : "");
}

// The target with T for a number of seconds that was in its range.
static void reduce_target(const struct stage *st, const char *target, char *out, size_t len)
{
	const char *mark = strstr(target, "timeoutSeconds=");
	if (mark == NULL) {
		snprintf(out, len, "%s", target);
		return;
	}
	char *end;
	const char *number = mark + strlen("timeoutSeconds=");
	unsigned long seconds = strtoul(number, &end, 10);
	if (seconds < 300 || seconds > 600)
		fail_at(st, "timeoutSeconds=%lu", seconds);
	snprintf(out, len, "%.*sT%s", (int)(number - target), target, end);
}

static void step_ask(struct stage *st, const char *question)
{
	char want[1024], full[1400], got[4096];
	struct kube_request request;
	const char *query = st->scene->query ? st->scene->query : "";
	enum kube_reflector_step step = kube_reflector_next(st->r, st->now_ns, &request);
	if (step != KUBE_STEP_REQUEST)
		fail_at(st, "no request but step %d, for %.3f s", step,
			(double)(request.until_ns - st->now_ns) / 1e9);
	expand_question(question, want, sizeof(want));
	snprintf(full, sizeof(full), PLAY_PATH "%s%s%s%s", query[0] || want[0] ? "?" : "", query,
		query[0] && want[0] ? "&" : "", want);
	reduce_target(st, request.target, got, sizeof(got));
	if (strcmp(got, full))
		fail_at(st, "asked for %s, not %s", got, full);
	if (request.is_watch != (strstr(full, "watch=true") != NULL))
		fail_at(st, "is_watch is %d", request.is_watch);
}

static void step_pass(struct stage *st, enum kube_reflector_step want, const char *range)
{
	unsigned long low, high;
	struct kube_request request;
	assert_int_equal(sscanf(range, "%lu %lu", &low, &high), 2);
	enum kube_reflector_step step = kube_reflector_next(st->r, st->now_ns, &request);
	if (step != want)
		fail_at(st, "step %d (%s)", step, request.target ? request.target : "");
	uint64_t ns = request.until_ns - st->now_ns;
	if (ns < low * CLOCK_MS || ns > high * CLOCK_MS)
		fail_at(st, "%.3f s", (double)ns / 1e9);
	st->now_ns = request.until_ns;
	if (want == KUBE_STEP_WAIT) { // and not a moment earlier
		step = kube_reflector_next(st->r, st->now_ns - 1, &request);
		if (step != KUBE_STEP_WAIT)
			fail_at(st, "step %d just before", step);
	}
}

static void step_abandon(struct stage *st)
{
	struct kube_request request;
	enum kube_reflector_step step = kube_reflector_next(st->r, st->now_ns, &request);
	if (step != KUBE_STEP_ABANDON)
		fail_at(st, "step %d", step);
}

// ---------------------------------------------------------------- the server
static void print_list(FILE *out, char *fields)
{
	char *version = strsep(&fields, ":"), *next = strsep(&fields, ":"), *name;
	bool is_first = true;
	fprintf(out,
		"{\"kind\":\"ThingList\",\"apiVersion\":\"x/v1\",\"metadata\":{"
		"\"resourceVersion\":\"%s\",\"continue\":\"%s\"},\"items\":[",
		version, next);
	while (fields && (name = strsep(&fields, ","))) {
		if (name[0] == '\0')
			continue;
		fputs(is_first ? "" : ",", out);
		is_first = false;
		if (name[0] == '!') { // a number out of range
			play_object(out, name + 1, "1");
			fputs(",\"spec\":1e999999}", out);
		} else if (name[0] == '?') { // no name
			fputs("{\"metadata\":{\"name\":7,\"resourceVersion\":\"1\"}}", out);
		} else if (name[0] == '+') { // of another kind
			fprintf(out,
				"{\"kind\":\"Other\",\"metadata\":{\"name\":\"%s\","
				"\"resourceVersion\":\"1\"}}",
				name + 1);
		} else { // as items are: without a kind
			fprintf(out,
				"{\"metadata\":{\"name\":\"%s\",\"namespace\":\"d\","
				"\"resourceVersion\":\"1\"}}",
				name);
		}
	}
	fputs("]}\n", out);
}

static void print_word(FILE *out, char *word)
{
	static const char *const types[] = { "ADDED", "MODIFIED", "DELETED" };
	char *kind = strsep(&word, ":");
	if (strcmp(kind, "L") == 0) {
		print_list(out, word);
		return;
	}
	char *first = strsep(&word, ":"), *second = strsep(&word, ":");
	if (strcmp(kind, "B") == 0 || strcmp(kind, "BE") == 0) {
		play_bookmark(out, first, kind[1] == 'E');
	} else if (strcmp(kind, "S") == 0) {
		play_status(out, atoi(first), second, word ? word : "");
	} else if (strcmp(kind, "E") == 0) {
		fputs("{\"type\":\"ERROR\",\"object\":", out);
		play_status(out, atoi(first), second, word ? word : "");
		fputs("}\n", out);
	} else {
		const char *letter = strchr("AMD", kind[0]);
		assert_non_null(letter);
		play_event(out, types[letter - "AMD"], first, second);
	}
}

static void step_body(struct stage *st, const char *words)
{
	char *text = NULL;
	size_t len;
	char copy[2048], *rest = copy, *word;
	FILE *out = open_memstream(&text, &len);
	assert_non_null(out);
	snprintf(copy, sizeof(copy), "%s", words);
	while (words[0] != '~' && (word = strsep(&rest, " ")))
		print_word(out, word);
	for (const char *c = words + 1; words[0] == '~' && *c; c++)
		fputc(*c == '^' ? '\n' : *c, out);
	fclose(out);
	for (char *c = text; c < text + len; c++)
		*c = *c == '\'' ? '"' : *c;
	char *exact = malloc(len); // a read beyond it is seen
	memcpy(exact, text, len);
	free(text);
	size_t half = len / 2; // in two pieces, as it may come
	kube_reflector_body(st->r, st->now_ns, exact, half);
	kube_reflector_body(st->r, st->now_ns, exact + half, len - half);
	free(exact);
}

static void step_head(struct stage *st, const char *words)
{
	int code = 0;
	long after = -1;
	char type[64] = "application/json";
	assert_true(sscanf(words, "%d %ld %63s", &code, &after, type) >= 1);
	kube_reflector_head(st->r, st->now_ns, code, after, type);
}

static void step_end(struct stage *st, const char *how)
{
	static const char *const names[] = { "clean", "refused", "timeout", "broken" };
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(how, names[i]))
			continue;
		kube_reflector_end(st->r, st->now_ns, (enum kube_end)i);
		return;
	}
	fail_at(st, "no such end");
}

static void step_is(struct stage *st, const char *words)
{
	const struct kube_reflector_status *s = kube_reflector_status(st->r);
	const struct {
		const char *name;
		uint64_t value;
	} numbers[] = {
		{ "synced", s->is_synced },
		{ "watching", s->is_watching },
		{ "lists", s->n_lists },
		{ "complete", s->n_lists_complete },
		{ "watches", s->n_watches },
		{ "requests", s->n_requests },
		{ "events", s->n_events },
		{ "bookmarks", s->n_bookmarks },
		{ "objects", s->n_objects },
		{ "bad", s->n_bad_objects },
		{ "frames", s->n_bad_frames },
		{ "skipped", s->n_skipped },
		{ "expired", s->n_expired },
		{ "silent", s->n_silent },
		{ "older", s->n_older },
	};
	char name[32], value[200] = "";
	sscanf(words, "%31s %199[^\n]", name, value);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		if (strcmp(numbers[i].name, name))
			continue;
		if (numbers[i].value != strtoull(value, NULL, 10))
			fail_at(st, "is %llu", (unsigned long long)numbers[i].value);
		return;
	}
	const char *text = strcmp(name, "rv") == 0     ? s->last_rv
			   : strcmp(name, "text") == 0 ? s->trouble_text
						       : kube_trouble_name(s->trouble);
	bool is_same =
		strcmp(name, "text") == 0 ? strstr(text, value) != NULL : strcmp(text, value) == 0;
	if (!is_same)
		fail_at(st, "is %s", text);
}

// ---------------------------------------------------------------- a scene
static void step(struct stage *st, char *line)
{
	char *words = line, *verb = strsep(&words, " ");
	words = words ? words : line + strlen(line);
	if (strcmp(verb, ">") == 0)
		step_ask(st, words);
	else if (strcmp(verb, "wait") == 0)
		step_pass(st, KUBE_STEP_WAIT, words);
	else if (strcmp(verb, "busy") == 0)
		step_pass(st, KUBE_STEP_BUSY, words);
	else if (strcmp(verb, "abandon") == 0)
		step_abandon(st);
	else if (verb[0] == '+')
		st->now_ns += strtoull(verb + 1, NULL, 10) * CLOCK_MS;
	else if (strcmp(verb, "head") == 0)
		step_head(st, words);
	else if (strcmp(verb, "body") == 0)
		step_body(st, words);
	else if (strcmp(verb, "end") == 0)
		step_end(st, words);
	else if (strcmp(verb, "wake") == 0)
		kube_reflector_wake(st->r, st->now_ns);
	else if (strcmp(verb, "sink") == 0)
		step_sink(st, words);
	else if (strcmp(verb, "is") == 0)
		step_is(st, words);
	else
		fail_at(st, "no such step");
}

static void play(const struct scene *scene, uint64_t seed)
{
	struct stage st = { .scene = scene, .line = "", .now_ns = 1000 * CLOCK_S };
	struct kube_sink sink = { hear_begin, hear_put, hear_remove, hear_end, hear_bad, &st };
	struct kube_reflector_config config = { .path = PLAY_PATH,
		.query = scene->query,
		.kind = "Thing",
		.is_optional = scene->is_optional,
		.no_watch_list = scene->no_watch_list,
		.seed = seed };
	st.r = kube_reflector_create(&config, &sink);
	assert_non_null(st.r);
	ear_open(&st);
	char *script = strdup(scene->script), *rest = script, *line;
	while ((line = strsep(&rest, "\n"))) {
		char copy[2048];
		line += strspn(line, "\t ");
		if (line[0] == '\0')
			continue;
		snprintf(copy, sizeof(copy), "%s", line);
		st.line = line;
		st.n_line++;
		step(&st, copy);
	}
	free(script);
	ear_close(&st);
	kube_reflector_destroy(st.r);
}

static void test_scene(void **state)
{
	for (uint64_t seed = 1; seed <= 20; seed++)
		play(*state, seed);
}

// A server whose pages never end is not asked for ever.
static void test_pages(void **state)
{
	struct scene scene = { .name = "pages without end", .no_watch_list = true };
	struct stage st = { .scene = &scene, .line = "", .now_ns = CLOCK_S };
	struct kube_sink sink = { hear_begin, hear_put, hear_remove, hear_end, hear_bad, &st };
	struct kube_reflector_config config = {
		.path = PLAY_PATH, .kind = "Thing", .no_watch_list = true
	};
	struct kube_request request;
	uint32_t n_pages = 0;
	st.r = kube_reflector_create(&config, &sink);
	ear_open(&st);
	while (kube_reflector_next(st.r, st.now_ns, &request) == KUBE_STEP_REQUEST) {
		char words[64];
		snprintf(words, sizeof(words), "L:9:t%u:", n_pages++);
		kube_reflector_head(st.r, st.now_ns, 200, -1, NULL);
		step_body(&st, words);
		kube_reflector_end(st.r, st.now_ns, KUBE_END_CLEAN);
	}
	assert_int_equal(n_pages, 2001);
	assert_false(kube_reflector_status(st.r)->is_synced);
	step_sink(&st, "begin");
	ear_close(&st);
	kube_reflector_destroy(st.r);
}

// A test a scene, and one more.
int main(void)
{
	struct CMUnitTest tests[ARRAY_SIZE(scenes) + 1];
	assert_true(ARRAY_SIZE(scenes) >= 60);
	for (size_t i = 0; i < ARRAY_SIZE(scenes); i++)
		tests[i] = (struct CMUnitTest){ scenes[i].name, test_scene, NULL, NULL,
			(void *)&scenes[i] };
	tests[ARRAY_SIZE(scenes)] = (struct CMUnitTest)cmocka_unit_test(test_pages);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
