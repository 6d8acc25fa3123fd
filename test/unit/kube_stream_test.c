// SPDX-License-Identifier: BSD-3-Clause
// The stream splitter: a table of bodies, each cut at every byte, byte by byte and at random; a naive twin, a recursive reader of
// the whole text, on random text; and bounds of what it holds.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base.h"
#include "kube.h"
#include "kube_stream.h"

// ---------------------------------------------------------------- frames as one text
// "V{..}" a value, "E{..}" an envelope, "L" too large, "D" too deep, "G" garbage; '|' behind each. What is shown of a broken
// one depends on the pieces, that there is one does not.
struct story {
	char *text;
	size_t len;
	FILE *file;
};

static void story_open(struct story *story)
{
	*story = (struct story){ 0 };
	story->file = open_memstream(&story->text, &story->len);
	assert_non_null(story->file);
}

static void story_add(struct story *story, const struct kube_frame *frame)
{
	static const char letters[] = "?VELDG";
	fputc(letters[frame->kind], story->file);
	if (frame->kind == KUBE_FRAME_VALUE || frame->kind == KUBE_FRAME_ENVELOPE)
		fwrite(frame->text, 1, frame->len, story->file);
	fputc('|', story->file);
}

static void feed(
	struct kube_stream *s, const char *text, size_t len, struct story *story, size_t frame_max)
{
	// a copy of exact length: a read beyond it is seen
	char *piece = malloc(len ? len : 1), *at = piece;
	assert_non_null(piece);
	memcpy(piece, text, len);
	struct kube_frame frame;
	do {
		size_t n = kube_stream_feed(s, at, len, &frame);
		assert_true(n <= len);
		at += n;
		len -= n;
		assert_true(frame.len <= (frame_max > 256 ? frame_max : 256));
		if (frame.kind != KUBE_FRAME_NONE)
			story_add(story, &frame);
	} while (frame.kind != KUBE_FRAME_NONE);
	assert_int_equal(len, 0);
	free(piece);
}

// Cuts: offsets in rising order, the last one is len.
static char *run(enum kube_stream_kind kind, const char *text, const size_t *cuts, size_t n_cuts,
	size_t frame_max)
{
	struct story story;
	struct kube_stream *s = kube_stream_create(kind, frame_max);
	assert_non_null(s);
	story_open(&story);
	size_t from = 0;
	for (size_t i = 0; i < n_cuts; i++) {
		feed(s, text + from, cuts[i] - from, &story, frame_max);
		from = cuts[i];
	}
	fputs(kube_stream_is_whole(s) ? "whole" : "open", story.file);
	fclose(story.file);
	kube_stream_destroy(s);
	return story.text;
}

static void check_run(enum kube_stream_kind kind, const char *text, const size_t *cuts,
	size_t n_cuts, size_t frame_max, const char *want)
{
	char *got = run(kind, text, cuts, n_cuts, frame_max);
	if (strcmp(got, want))
		fail_msg("text:\n%s\ngot:  %s\nwant: %s\n(%zu pieces, first cut %zu)", text, got,
			want, n_cuts, cuts[0]);
	free(got);
}

static uint64_t random_state = 88172645463325252ull;
static uint32_t random_below(uint32_t bound)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state >> 32) % bound;
}

static void check_random_cuts(enum kube_stream_kind kind, const char *text, size_t len,
	size_t frame_max, const char *want)
{
	size_t cuts[64], n = 0, at = 0;
	while (n < ARRAY_SIZE(cuts) - 1 && at < len) {
		at += random_below(1 + (uint32_t)(random_below(3) ? 7 : len));
		cuts[n++] = at < len ? at : len;
	}
	cuts[n++] = len;
	check_run(kind, text, cuts, n, frame_max, want);
}

static void check_all_cuts(enum kube_stream_kind kind, const char *text, size_t len,
	size_t frame_max, const char *want)
{
	for (size_t cut = 0; cut <= len; cut++)
		check_run(kind, text, (size_t[]){ cut, len }, 2, frame_max, want);
	size_t *each = calloc(len + 1, sizeof(*each));
	assert_non_null(each);
	for (size_t i = 0; i < len; i++)
		each[i] = i + 1;
	if (len)
		check_run(kind, text, each, len, frame_max, want);
	free(each);
	for (int i = 0; i < 50; i++)
		check_random_cuts(kind, text, len, frame_max, want);
}

// ---------------------------------------------------------------- the table
#define A "{\"type\":\"ADDED\",\"object\":{\"a\":[1,2.5e3,true,null,\"x\\\"}]\"]}}"
#define B "{\"type\":\"BOOKMARK\",\"object\":{}}"

static const struct {
	const char *name;
	const char *text;
	const char *want;
	size_t frame_max;
} watches[] = {
	{ "nothing", "", "whole", 0 },
	{ "blanks", " \r\n\t ", "whole", 0 },
	{ "one", A "\n", "V" A "|whole", 0 },
	{ "no newline", A B A, "V" A "|V" B "|V" A "|whole", 0 },
	{ "many newlines", "\n\n" A "\r\n\r\n" B, "V" A "|V" B "|whole", 0 },
	{ "over lines", "{\n \"a\": [\n1,\n 2\n] }\n" B, "V{\n \"a\": [\n1,\n 2\n] }|V" B "|whole",
		0 },
	{ "an array", "[1,[2]]" B, "V[1,[2]]|V" B "|whole", 0 },
	{ "brackets in strings", "{\"a\":\"}{][\\\\\"}" B, "V{\"a\":\"}{][\\\\\"}|V" B "|whole",
		0 },
	{ "escapes", "{\"\\u0041\\n\":\"\\/\\\\\\\"\"}", "V{\"\\u0041\\n\":\"\\/\\\\\\\"\"}|whole",
		0 },
	{ "UTF-8", "{\"a\":\"\xc3\xa4\xe2\x82\xac\"}", "V{\"a\":\"\xc3\xa4\xe2\x82\xac\"}|whole",
		0 },
	{ "byte order mark", "\xef\xbb\xbf" A, "V" A "|whole", 0 },
	{ "byte order mark, blanks", "\xef\xbb\xbf\n " A, "V" A "|whole", 0 },
	{ "half a mark", "\xef\xbb" A "\n" B, "G|V" B "|whole", 0 },
	{ "half a mark, end", "\xef\xbb", "open", 0 },
	{ "a mark later", A "\xef\xbb\xbf" B "\n" B, "V" A "|G|V" B "|whole", 0 },
	{ "cut off", A "{\"type\":\"ADD", "V" A "|open", 0 },
	{ "cut off in an escape", "{\"a\":\"\\", "open", 0 },
	{ "garbage first", "<html>\n" A, "G|V" A "|whole", 0 },
	{ "garbage only", "<html> {\"a\":1}", "G|open", 0 },
	{ "garbage between", A "\ngarbage\n" B, "V" A "|G|V" B "|whole", 0 },
	{ "garbage on the line", A "garbage" B "\n" B, "V" A "|G|V" B "|whole", 0 },
	{ "garbage lines", "x\ny\n\nz\n" B, "G|G|G|V" B "|whole", 0 },
	{ "a bare word", "true\n" B, "G|V" B "|whole", 0 },
	{ "a bare number", "17\n" B, "G|V" B "|whole", 0 },
	{ "a bare string", "\"a\"\n" B, "G|V" B "|whole", 0 },
	{ "a closing bracket", "}\n" B, "G|V" B "|whole", 0 },
	{ "one bracket too many", A "}\n" B, "V" A "|G|V" B "|whole", 0 },
	{ "the wrong bracket", "{\"a\":1]\n" B, "G|V" B "|whole", 0 },
	{ "no comma", "{\"a\":1 \"b\":2}\n" B, "G|V" B "|whole", 0 },
	{ "trailing comma", "{\"a\":1,}\n" B, "G|V" B "|whole", 0 },
	{ "trailing comma in an array", "{\"a\":[1,]}\n" B, "G|V" B "|whole", 0 },
	{ "no colon", "{\"a\" 1}\n" B, "G|V" B "|whole", 0 },
	{ "no value", "{\"a\":}\n" B, "G|V" B "|whole", 0 },
	{ "a key that is a number", "{1:2}\n" B, "G|V" B "|whole", 0 },
	{ "a word of its own", "{\"a\":yes}\n" B, "G|V" B "|whole", 0 },
	{ "single quotes", "{'a':1}\n" B, "G|V" B "|whole", 0 },
	{ "a comment", "{/* */}\n" B, "G|V" B "|whole", 0 },
	{ "a control character", "{\"a\":\"\x01\"}\n" B, "G|V" B "|whole", 0 },
	{ "a tab in a string", "{\"a\":\"\t\"}\n" B, "G|V" B "|whole", 0 },
	{ "an unknown escape", "{\"a\":\"\\x\"}\n" B, "G|V" B "|whole", 0 },
	// a parser says no to these, later
	{ "a broken number", "{\"a\":1e--5}", "V{\"a\":1e--5}|whole", 0 },
	{ "a broken word", "{\"a\":truer}", "V{\"a\":truer}|whole", 0 },
	// truncated lines: what follows is not lost
	{ "cut in a string", "{\"a\":\"b\n" B, "G|V" B "|whole", 0 },
	{ "cut behind a colon", "{\"a\":\n" A "\n" B, "G|V" A "|V" B "|whole", 0 },
	{ "cut behind a bracket", "{\"a\":[\n" A "\n" B, "G|V" A "|V" B "|whole", 0 },
	{ "cut behind a comma", "{\"a\":[1,\n" A "\n" B, "G|V" A "|V" B "|whole", 0 },
	{ "cut behind a value", "{\"a\":1\n" A "\n" B, "G|V" A "|V" B "|whole", 0 },
	{ "cut twice", "{\"a\":\n{\"b\":[\n" A "\n" B, "G|G|V" A "|V" B "|whole", 0 },
	{ "cut thrice, then garbage", "{\"a\":\n{\"b\":[\n{\"c\":\nx\n" B, "G|G|G|G|V" B "|whole",
		0 },
	{ "cut, then the end", "{\"a\":[\n" A "\n", "G|V" A "|whole", 0 },
	{ "cut, then not an event", "{\"a\":[\n{\"b\":1}\n", "open", 0 },
	{ "cut, then an event that is cut", "{\"a\":[\n{\"type\":\"x", "G|open", 0 },
	{ "cut, then nearly an event", "{\"a\":[\n{\"type\":1}]}",
		"V{\"a\":[\n{\"type\":1}]}|whole", 0 },
	{ "an event inside, not on a line", "{\"a\":[\n {\"type\":\"x\"},{\"type\":\"x\"}]}",
		"V{\"a\":[\n {\"type\":\"x\"},{\"type\":\"x\"}]}|whole", 0 },
	{ "inside over lines, as it may be written", "{\"a\":[\n{\n\"type\":\"x\"\n}\n]}",
		"V{\"a\":[\n{\n\"type\":\"x\"\n}\n]}|whole", 0 },
	{ "cut, lines, then the end", "{\"a\":[\n" A "\n{\"b\":\n", "G|V" A "|open", 0 },
	// large
	{ "just small enough",
		"{\"a\":1234}\n"
		"{\"a\":1}",
		"V{\"a\":1234}|V{\"a\":1}|whole", 10 },
	{ "too large",
		"{\"a\":12345}\n"
		"{\"a\":1}",
		"L|V{\"a\":1}|whole", 10 },
	{ "too large, no newline",
		"{\"a\":12345}"
		"{\"a\":1}",
		"L|V{\"a\":1}|whole", 10 },
	{ "too large in a string",
		"{\"a\":\"12}\\\"}5\"}"
		"{\"a\":1}",
		"L|V{\"a\":1}|whole", 10 },
	{ "too large at an escape",
		"{\"a\":\"123\\\"}5\"}"
		"{\"a\":1}",
		"L|V{\"a\":1}|whole", 10 },
	{ "too large, brackets",
		"{\"a\":[[[[[{}]]]]]}"
		"{\"a\":1}",
		"L|V{\"a\":1}|whole", 10 },
	{ "too large, cut",
		"{\"a\":123456\n"
		"{\"a\":1}",
		"L|V{\"a\":1}|whole", 10 },
	{ "too large, end", "{\"a\":123456", "L|open", 10 },
	{ "cut, both lines too large",
		"{\"a\":[\n{\"b\":123456}\n"
		"{\"a\":1}",
		"L|V{\"a\":1}|whole", 10 },
};

static void test_watches(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(watches); i++) {
		size_t frame_max = watches[i].frame_max ? watches[i].frame_max : 4096;
		check_all_cuts(KUBE_STREAM_WATCH, watches[i].text, strlen(watches[i].text),
			frame_max, watches[i].want);
	}
}

#define META "\"metadata\":{\"resourceVersion\":\"9\",\"continue\":\"{[\"}"

static const struct {
	const char *name;
	const char *text;
	const char *want;
	size_t frame_max;
} lists[] = {
	{ "nothing", "", "open", 0 },
	{ "empty", "{\"kind\":\"L\"," META ",\"items\":[]}",
		"E{\"kind\":\"L\"," META ",\"items\":[]}|whole", 0 },
	{ "one", "{\"kind\":\"L\",\"items\":[{\"a\":[{}]}]}",
		"V{\"a\":[{}]}|E{\"kind\":\"L\",\"items\":[]}|whole", 0 },
	{ "three", "{\"items\":[{},{\"items\":[{}]} , {\"b\":1}\n]," META "}\n",
		"V{}|V{\"items\":[{}]}|V{\"b\":1}|E{\"items\":[]," META "}|whole", 0 },
	{ "blanks", " { \"items\" : [ {} , {} ] } ", "V{}|V{}|E{ \"items\" : [] }|whole", 0 },
	{ "null", "{\"items\":null}", "E{\"items\":null}|whole", 0 },
	{ "none", "{\"kind\":\"L\"}", "E{\"kind\":\"L\"}|whole", 0 },
	{ "items elsewhere", "{\"metadata\":{\"items\":[1,{}]},\"items\":[{}]}",
		"V{}|E{\"metadata\":{\"items\":[1,{}]},\"items\":[]}|whole", 0 },
	{ "a value called items", "{\"kind\":\"items\",\"a\":[{}]}",
		"E{\"kind\":\"items\",\"a\":[{}]}|whole", 0 },
	{ "a longer key", "{\"itemsitems\":[{}]}", "E{\"itemsitems\":[{}]}|whole", 0 },
	{ "a shorter key", "{\"item\":[{}]}", "E{\"item\":[{}]}|whole", 0 },
	{ "byte order mark", "\xef\xbb\xbf{\"items\":[{}]}", "V{}|E{\"items\":[]}|whole", 0 },
	{ "something behind", "{\"items\":[]} x", "E{\"items\":[]}|G|open", 0 },
	{ "no object", "[{}]", "G|open", 0 },
	{ "HTML", "<html>\n{\"items\":[]}", "G|open", 0 },
	{ "a number in it", "{\"items\":[{},1,{}]}", "V{}|G|open", 0 },
	{ "null in it", "{\"items\":[null]}", "G|open", 0 },
	{ "a string in it", "{\"items\":[\"{}\"]}", "G|open", 0 },
	{ "an array in it", "{\"items\":[[{}]]}", "G|open", 0 },
	{ "no comma", "{\"items\":[{}{}]}", "V{}|G|open", 0 },
	{ "trailing comma", "{\"items\":[{},]}", "V{}|G|open", 0 },
	{ "broken item", "{\"items\":[{\"a\"},{}]}", "G|open", 0 },
	{ "broken item over lines", "{\"items\":[{\"a\"\n},\n{}]}", "G|open", 0 },
	{ "cut in an item", "{\"items\":[{},{\"a\"", "V{}|open", 0 },
	{ "cut behind the items", "{\"items\":[{}]", "V{}|open", 0 },
	{ "an item too large", "{\"items\":[{\"aaaa\":[\"\\\"]}\"]},{}]}",
		"L|V{}|E{\"items\":[]}|whole", 12 },
	{ "an item over lines too large", "{\"items\":[{\"aaaa\":[\"bb\",\n[]\n]},{}]}",
		"L|V{}|E{\"items\":[]}|whole", 12 },
	{ "the envelope too large", "{\"items\":[{}],\"a\":1}", "V{}|L|open", 12 },
};

static void test_lists(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		size_t frame_max = lists[i].frame_max ? lists[i].frame_max : 4096;
		check_all_cuts(KUBE_STREAM_LIST, lists[i].text, strlen(lists[i].text), frame_max,
			lists[i].want);
	}
}

// ---------------------------------------------------------------- depth
static char *nested(uint32_t depth, const char *before, const char *after)
{
	char *text = NULL;
	size_t len;
	FILE *file = open_memstream(&text, &len);
	fputs(before, file);
	for (uint32_t i = 0; i < depth; i++)
		fputs(i % 2 ? "[" : "{\"a\":", file);
	fputs("0", file);
	for (uint32_t i = depth; i-- > 0;)
		fputs(i % 2 ? "]" : "}", file);
	fputs(after, file);
	fclose(file);
	return text;
}

static void test_depth(void **state)
{
	for (uint32_t depth = KUBE_DEPTH_MAX - 1; depth <= KUBE_DEPTH_MAX + 3; depth++) {
		char *alone = nested(depth, "", "");
		char *text = nested(depth, "", B), *want = NULL;
		assert_true(
			asprintf(&want, "%s%s|V%s|whole", depth <= KUBE_DEPTH_MAX + 1 ? "V" : "D",
				depth <= KUBE_DEPTH_MAX + 1 ? alone : "", B) > 0);
		check_all_cuts(KUBE_STREAM_WATCH, text, strlen(text), 4096, want);
		free(text);
		free(want);
		text = nested(depth, "{\"items\":[", ",{}]}");
		assert_true(asprintf(&want, "%s%s|V{}|E{\"items\":[]}|whole",
				    depth <= KUBE_DEPTH_MAX ? "V" : "D",
				    depth <= KUBE_DEPTH_MAX ? alone : "") > 0);
		check_all_cuts(KUBE_STREAM_LIST, text, strlen(text), 4096, want);
		free(text);
		free(want);
		free(alone);
	}
}

// ---------------------------------------------------------------- a naive twin
// Reads the whole text by recursion, without states, pieces or buffers.
struct twin {
	const char *text;
	size_t len;
	size_t at;
	size_t stop; // no byte from here on belongs to the value: it would be too large
	size_t cut;  // behind the start of an event on a line of its own, inside; 0 = none
	enum { TWIN_FINE, TWIN_MORE, TWIN_BAD, TWIN_DEEP, TWIN_LARGE } verdict;
};

static bool twin_end(struct twin *t)
{
	if (t->cut && t->at >= t->cut) {
		t->verdict = TWIN_BAD;
		return true;
	}
	if (t->at < t->len && t->at < t->stop)
		return false;
	t->verdict = t->at >= t->len ? TWIN_MORE : TWIN_LARGE;
	return true;
}

static bool twin_bad(struct twin *t)
{
	t->verdict = TWIN_BAD;
	return false;
}

static bool twin_blanks(struct twin *t)
{
	static const char mark[] = "\n{\"type\":\"";
	while (!twin_end(t) && strchr(" \t\r\n", t->text[t->at]) && t->text[t->at]) {
		size_t end = t->at + strlen(mark);
		if (end <= t->len && end <= t->stop && !memcmp(t->text + t->at, mark, strlen(mark)))
			t->cut = end;
		t->at++;
	}
	return !twin_end(t);
}

static bool twin_string(struct twin *t)
{
	for (t->at++; !twin_end(t); t->at++) {
		char c = t->text[t->at];
		if (c == '"') {
			t->at++;
			return true;
		}
		if ((unsigned char)c < 0x20)
			return twin_bad(t);
		if (c != '\\')
			continue;
		t->at++;
		if (twin_end(t))
			return false;
		if (t->text[t->at] == 0 || !strchr("\"\\/bfnrtu", t->text[t->at]))
			return twin_bad(t);
	}
	return false;
}

static bool twin_value(struct twin *t, uint32_t depth);

static bool twin_members(struct twin *t, uint32_t depth, bool is_object)
{
	char close = is_object ? '}' : ']';
	t->at++;
	if (!twin_blanks(t))
		return false;
	if (t->text[t->at] == close) {
		t->at++;
		return true;
	}
	for (;;) {
		if (is_object) {
			if (!twin_blanks(t))
				return false;
			if (t->text[t->at] != '"')
				return twin_bad(t);
			if (!twin_string(t) || !twin_blanks(t))
				return false;
			if (t->text[t->at] != ':')
				return twin_bad(t);
			t->at++;
		}
		if (!twin_value(t, depth) || !twin_blanks(t))
			return false;
		char c = t->text[t->at];
		if (c != close && c != ',')
			return twin_bad(t);
		t->at++;
		if (c == close)
			return true;
	}
}

static bool twin_value(struct twin *t, uint32_t depth)
{
	if (!twin_blanks(t))
		return false;
	char c = t->text[t->at];
	if (c == '{' || c == '[') {
		if (depth == KUBE_DEPTH_MAX + 1) {
			t->verdict = TWIN_DEEP;
			return false;
		}
		return twin_members(t, depth + 1, c == '{');
	}
	if (c == '"')
		return twin_string(t);
	if (c == 0 || !strchr("-0123456789tfn", c))
		return twin_bad(t);
	while (!twin_end(t) && t->text[t->at] &&
		strchr("-+.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
			t->text[t->at]))
		t->at++;
	return !twin_end(t);
}

// Behind the value that began at `from` and was told to be too large or too deep at t->at: its end, or the end of the line.
static size_t twin_behind(const char *text, size_t len, size_t from, size_t told)
{
	int depth = 0;
	bool is_string = false, is_escape = false;
	for (size_t i = from; i < len; i++) {
		char c = text[i];
		if (c == '\n' && i >= told)
			return i + 1;
		if (is_escape) {
			is_escape = false;
		} else if (is_string) {
			is_escape = c == '\\';
			is_string = c != '"';
		} else if (c == '"') {
			is_string = true;
		} else if (c == '{' || c == '[') {
			depth++;
		} else if ((c == '}' || c == ']') && --depth == 0) {
			return i + 1;
		}
	}
	return SIZE_MAX;
}

static char *twin_run(const char *text, size_t len, size_t frame_max)
{
	struct story story;
	story_open(&story);
	size_t at = 0;
	bool is_whole = true;
	while (at < len) {
		if (strchr(" \t\r\n", text[at]) && text[at]) {
			at++;
			continue;
		}
		struct twin t = { text, len, at, at + frame_max, 0, TWIN_FINE };
		bool is_start = text[at] == '{' || text[at] == '[';
		if (is_start && twin_value(&t, 0)) {
			story_add(&story,
				&(struct kube_frame){ KUBE_FRAME_VALUE, text + at, t.at - at });
			at = t.at;
			continue;
		}
		is_whole = false;
		if (is_start && t.verdict == TWIN_MORE)
			break;
		if (is_start && (t.verdict == TWIN_DEEP || t.verdict == TWIN_LARGE)) {
			fputs(t.verdict == TWIN_DEEP ? "D|" : "L|", story.file);
			at = twin_behind(text, len, at, t.at);
		} else {
			fputs("G|", story.file);
			const char *newline = memchr(text + at, '\n', len - at);
			at = newline ? (size_t)(newline - text) + 1 : SIZE_MAX;
		}
		if (at == SIZE_MAX)
			break;
		is_whole = true;
	}
	fputs(is_whole ? "whole" : "open", story.file);
	fclose(story.file);
	return story.text;
}

// Text that is nearly JSON: values with some bytes changed, removed, doubled, and newlines strewn in.
static size_t nearly_json(char *out, size_t max)
{
	static const char *const words[] = { A, B, "\n", "\n", "{\"a\":", "[", "{\"b\":[1,", "]",
		"}", ",", "{}", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "\"", "\\", "x",
		"{\"c\":\"\\n\"}", ":", "1e9", "true", " " };
	size_t n = 0, n_words = random_below(14);
	for (size_t i = 0; i < n_words; i++) {
		uint32_t most = random_below(3) ? 4 : ARRAY_SIZE(words);
		const char *word = words[random_below(most)];
		if (n + strlen(word) < max) {
			memcpy(out + n, word, strlen(word));
			n += strlen(word);
		}
	}
	for (uint32_t k = random_below(4); k > 0 && n > 1; k--) {
		size_t i = random_below((uint32_t)n);
		if (random_below(2))
			out[i] = (char)(random_below(4) ? '\n' : 1 + random_below(126));
		else
			memmove(out + i, out + i + 1, --n - i);
	}
	return n;
}

static void test_twin(void **state)
{
	char text[1200];
	for (int i = 0; i < 60000; i++) {
		size_t len = nearly_json(text, sizeof(text) - 1);
		text[len] = '\0';
		size_t frame_max = random_below(3) ? 4096 : 20 + random_below(60);
		char *want = twin_run(text, len, frame_max);
		check_run(KUBE_STREAM_WATCH, text, &len, 1, frame_max, want);
		check_random_cuts(KUBE_STREAM_WATCH, text, len, frame_max, want);
		free(want);
	}
}

// ---------------------------------------------------------------- bounds
// 200,000 values through one stream, in pieces that never fit: it never holds more than one.
static void test_memory_many(void **state)
{
	struct kube_stream *s = kube_stream_create(KUBE_STREAM_WATCH, 0);
	char body[2000];
	size_t len = 0, n_values = 0, most = 0;
	while (len + sizeof(A B) < sizeof(body))
		len += (size_t)sprintf(body + len, "%s\n%s", A, B);
	for (uint32_t round = 0; n_values < 200000; round++) {
		size_t cut = round % len;
		const char *pieces[] = { body, body + cut };
		size_t lengths[] = { cut, len - cut };
		for (int p = 0; p < 2; p++) {
			struct kube_frame frame;
			while (kube_stream_held_bytes(s) <= 4096) {
				size_t n = kube_stream_feed(s, pieces[p], lengths[p], &frame);
				pieces[p] += n;
				lengths[p] -= n;
				if (frame.kind == KUBE_FRAME_NONE)
					break;
				assert_int_equal(frame.kind, KUBE_FRAME_VALUE);
				n_values++;
			}
			assert_int_equal(lengths[p], 0);
			most = kube_stream_held_bytes(s) > most ? kube_stream_held_bytes(s) : most;
		}
	}
	assert_true(kube_stream_is_whole(s));
	assert_in_range(most, 1, 4096);
	kube_stream_destroy(s);
}

// One value of 64 MiB, then a good one: told once, at most the cap is held, and that is given back.
static void test_memory_large(void **state)
{
	struct kube_stream *s = kube_stream_create(KUBE_STREAM_WATCH, 0);
	struct kube_frame frame;
	char piece[65536];
	size_t n_large = 0, most = 0;
	memset(piece, 'a', sizeof(piece));
	assert_int_equal(kube_stream_feed(s, "{\"a\":\"", 6, &frame), 6);
	for (int i = 0; i < 1024; i++) {
		size_t at = 0;
		do {
			at += kube_stream_feed(s, piece + at, sizeof(piece) - at, &frame);
			if (frame.kind != KUBE_FRAME_NONE) {
				assert_int_equal(frame.kind, KUBE_FRAME_TOO_LARGE);
				assert_memory_equal(frame.text, "{\"a\":\"aaaa", 10);
				n_large++;
			}
		} while (frame.kind != KUBE_FRAME_NONE);
		most = kube_stream_held_bytes(s) > most ? kube_stream_held_bytes(s) : most;
	}
	assert_int_equal(n_large, 1);
	assert_in_range(most, KUBE_FRAME_MAX_BYTES / 2, KUBE_FRAME_MAX_BYTES);
	assert_int_equal(kube_stream_feed(s, "\"}" B, 2 + strlen(B), &frame), 2 + strlen(B));
	assert_int_equal(frame.kind, KUBE_FRAME_VALUE);
	assert_true(kube_stream_held_bytes(s) <= 65536);
	kube_stream_destroy(s);
}

// Garbage without a newline is told again for each MiB, and nothing of it is held.
static void test_garbage_for_ever(void **state)
{
	struct kube_stream *s = kube_stream_create(KUBE_STREAM_WATCH, 0);
	struct kube_frame frame;
	char piece[4096];
	size_t n_told = 0;
	memset(piece, 'x', sizeof(piece));
	for (int i = 0; i < 4 * 256; i++) {
		size_t at = 0;
		do {
			at += kube_stream_feed(s, piece + at, sizeof(piece) - at, &frame);
			n_told += frame.kind == KUBE_FRAME_GARBAGE;
		} while (frame.kind != KUBE_FRAME_NONE);
	}
	assert_int_equal(n_told, 1 + 4);
	assert_int_equal(kube_stream_held_bytes(s), 0);
	assert_false(kube_stream_is_whole(s));
	kube_stream_destroy(s);
}

// The worst text for reading again: every line opens two more brackets, and 4 MiB later a byte is wrong. Each line is
// told once, nothing hangs (the reading is 65-fold at most).
static void test_read_again(void **state)
{
	struct kube_stream *s = kube_stream_create(KUBE_STREAM_WATCH, 0);
	size_t fill = 4u << 20, n_garbage = 0, n_values = 0;
	char *text = malloc(fill + 2000);
	size_t len = 0, at = 0;
	for (int i = 0; i < 30; i++)
		len += (size_t)sprintf(text + len, "{\"a\":[\n");
	memset(text + len, ' ', fill);
	len += fill;
	len += (size_t)sprintf(text + len, "x\n" B);
	struct kube_frame frame;
	do {
		size_t piece = len - at < 65536 ? len - at : 65536;
		at += kube_stream_feed(s, text + at, piece, &frame);
		n_garbage += frame.kind == KUBE_FRAME_GARBAGE;
		n_values += frame.kind == KUBE_FRAME_VALUE;
	} while (at < len || frame.kind != KUBE_FRAME_NONE);
	assert_int_equal(n_garbage, 30 + 1);
	assert_int_equal(n_values, 1);
	assert_true(kube_stream_is_whole(s));
	kube_stream_destroy(s);
	free(text);
}

static void test_reset(void **state)
{
	struct kube_stream *s = kube_stream_create(KUBE_STREAM_WATCH, 0);
	struct kube_frame frame;
	kube_stream_feed(s, "{\"a\":[\n{\"b\"", 11, &frame);
	kube_stream_reset(s, KUBE_STREAM_LIST);
	assert_int_equal(kube_stream_feed(s, "{\"items\":[]}", 12, &frame), 12);
	assert_int_equal(frame.kind, KUBE_FRAME_ENVELOPE);
	kube_stream_reset(s, KUBE_STREAM_LIST);
	kube_stream_feed(s, "{\"kind\":", 8, &frame);
	kube_stream_reset(s, KUBE_STREAM_LIST);
	assert_int_equal(kube_stream_feed(s, "{\"items\":[]}", 12, &frame), 12);
	assert_int_equal(frame.kind, KUBE_FRAME_ENVELOPE);
	assert_int_equal(frame.len, 12);
	kube_stream_reset(s, KUBE_STREAM_WATCH);
	assert_true(kube_stream_is_whole(s));
	assert_int_equal(kube_stream_feed(s, "\xef\xbb\xbf{}", 5, &frame), 5);
	assert_int_equal(frame.kind, KUBE_FRAME_VALUE);
	kube_stream_destroy(s);
}

static void test_envelope_so_far(void **state)
{
	struct kube_stream *s = kube_stream_create(KUBE_STREAM_LIST, 0);
	struct kube_frame frame;
	const char *text = "{\"kind\":\"ServiceList\",\"items\":[{},{}]}", *envelope;
	size_t len, n = kube_stream_feed(s, text, strlen(text), &frame);
	assert_int_equal(frame.kind, KUBE_FRAME_VALUE);
	kube_stream_envelope(s, &envelope, &len);
	assert_int_equal(len, strlen("{\"kind\":\"ServiceList\",\"items\":["));
	assert_memory_equal(envelope, text, len);
	assert_int_equal(n, len + 2);
	kube_stream_destroy(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_watches),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_twin),
		cmocka_unit_test(test_memory_many),
		cmocka_unit_test(test_memory_large),
		cmocka_unit_test(test_garbage_for_ever),
		cmocka_unit_test(test_read_again),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_envelope_so_far),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
