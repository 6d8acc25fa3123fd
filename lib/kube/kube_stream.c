// SPDX-License-Identifier: BSD-3-Clause
// Pieces to values: where a value begins, what is held of it until its end comes, and where to read on after garbage.
//
//   held      the value that is open, as far as earlier pieces brought it
//   pending   bytes behind the first newline of something that turned out to be garbage: read again, before the next piece
//   skip      nothing is kept: a value too large or too deep up to its end, or garbage up to the next newline
//
// Invariant: pending is only read while held is empty, so a value never spans the two.
// Why reading again is linear: tokens are the same in both readings (a raw newline never stands in a string), so what is open at the end
// of the second reading began at a bracket that was open in the first one, and there are at most KUBE_DEPTH_MAX + 1 of these.
#include "kube_stream_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define KEPT_BYTES    (64u << 10) // a buffer larger than that is given back when it is empty
#define GARBAGE_BYTES (1u << 20)  // of garbage without a newline: told again
#define SHOWN_BYTES   256u        // of garbage in a frame that is not held

struct kube_bytes {
	char *at;
	size_t n;
	size_t cap;
};

enum kube_skip { KUBE_SKIP_NOTHING, KUBE_SKIP_VALUE, KUBE_SKIP_LINE, KUBE_SKIP_ALL };

struct kube_stream {
	enum kube_stream_kind kind;
	size_t frame_max_bytes;
	struct kube_bytes held;
	struct kube_bytes pending;
	size_t pending_at;
	bool is_told; // the last frame was what is held
	bool is_open; // a value (of a list: an element)
	uint32_t
		n_bom; // bytes of a byte order mark seen at the very start; 3: no longer looked for
	struct kube_grammar grammar;
	enum kube_skip skip;
	uint32_t skip_depth;
	bool is_skip_string;
	bool is_skip_escape;
	size_t n_skipped;
	// a list
	struct kube_bytes envelope;
	struct kube_grammar around; // grammar of the envelope
	bool is_in_items;
	bool is_done;
	char key[8]; // of the envelope's member, as far as it matters
	uint32_t n_key;
};

// ---------------------------------------------------------------- buffers
static bool bytes_append(struct kube_bytes *b, const char *text, size_t len, size_t max)
{
	if (len > max || b->n > max - len)
		return false;
	if (b->n + len > b->cap) {
		size_t cap = b->cap ? b->cap : 512;
		while (cap < b->n + len)
			cap *= 2;
		cap = cap < max ? cap : max;
		char *grown = realloc(b->at, cap);
		if (grown == NULL)
			return false;
		b->at = grown;
		b->cap = cap;
	}
	if (len)
		memcpy(b->at + b->n, text, len);
	b->n += len;
	return true;
}

static void bytes_clear(struct kube_bytes *b)
{
	b->n = 0;
	if (b->cap <= KEPT_BYTES)
		return;
	free(b->at);
	*b = (struct kube_bytes){ 0 };
}

static size_t tell(struct kube_frame *out, enum kube_frame_kind kind, const char *text, size_t len)
{
	*out = (struct kube_frame){ kind, text, len };
	return len;
}

static bool is_string(const struct kube_grammar *g)
{
	return g->expect == KUBE_IN_STRING || g->expect == KUBE_IN_ESCAPE;
}

static void skip_start(struct kube_stream *s, enum kube_skip skip)
{
	s->skip = skip;
	s->skip_depth = s->grammar.depth;
	s->is_skip_string = is_string(&s->grammar);
	s->is_skip_escape = s->grammar.expect == KUBE_IN_ESCAPE;
	s->n_skipped = 0;
	s->is_open = false;
}

// How garbage is left behind: a watch goes on at the next line, a list does not.
static enum kube_skip garbage_skip(const struct kube_stream *s)
{
	return s->kind == KUBE_STREAM_WATCH ? KUBE_SKIP_LINE : KUBE_SKIP_ALL;
}

// ---------------------------------------------------------------- skipping
// True: the value that is not wanted ends here.
static bool skip_step(struct kube_stream *s, char c)
{
	if (c == '\n' && s->kind == KUBE_STREAM_WATCH)
		return true; // the server writes none inside of a value: this one was cut off
	if (s->is_skip_escape) {
		s->is_skip_escape = false;
		return false;
	}
	if (s->is_skip_string) {
		s->is_skip_escape = c == '\\';
		s->is_skip_string = c != '"';
		return false;
	}
	if (c == '"')
		s->is_skip_string = true;
	else if (c == '{' || c == '[')
		s->skip_depth++;
	else if (c == '}' || c == ']')
		return --s->skip_depth == 0;
	return false;
}

static size_t skip_value(struct kube_stream *s, const char *text, size_t len)
{
	for (size_t at = 0; at < len; at++) {
		if (!skip_step(s, text[at]))
			continue;
		s->skip = KUBE_SKIP_NOTHING;
		return at + 1;
	}
	return len;
}

static size_t skip_line(struct kube_stream *s, const char *text, size_t len, struct kube_frame *out)
{
	size_t room = GARBAGE_BYTES - s->n_skipped;
	size_t n = len < room ? len : room;
	const char *newline = memchr(text, '\n', n);
	if (newline) {
		s->skip = KUBE_SKIP_NOTHING;
		return (size_t)(newline - text) + 1;
	}
	s->n_skipped += n;
	if (s->n_skipped >= GARBAGE_BYTES) {
		s->n_skipped = 0;
		tell(out, KUBE_FRAME_GARBAGE, text, n < SHOWN_BYTES ? n : SHOWN_BYTES);
	}
	return n;
}

// ---------------------------------------------------------------- a value
// The open value as far as text goes, in one piece: what is held and text[0..len), or that alone. False: out of memory; then what
// is held is all there is.
static bool gather(struct kube_stream *s, const char *text, size_t len, struct kube_frame *out)
{
	if (s->held.n == 0) {
		tell(out, KUBE_FRAME_NONE, text, len);
		return true;
	}
	bool is_there = bytes_append(&s->held, text, len, s->frame_max_bytes);
	tell(out, KUBE_FRAME_NONE, s->held.at, s->held.n);
	s->is_told = true;
	return is_there;
}

// Text of the value that is open, up to where it turned out to be none, is in *out. Goes back to the first newline in it: the number of
// bytes of this piece that are done with (n_taken of them belong to the value).
static size_t resync(struct kube_stream *s, size_t n_taken, struct kube_frame *out)
{
	const char *newline = memchr(out->text, '\n', out->len);
	out->kind = KUBE_FRAME_GARBAGE;
	s->is_open = false;
	if (newline == NULL) {
		skip_start(s, KUBE_SKIP_LINE);
		return n_taken;
	}
	size_t n_line = (size_t)(newline - out->text) + 1;
	out->len = n_line;
	if (!s->is_told)
		return n_line;
	assert(s->pending.n == 0);
	struct kube_bytes empty = s->pending;
	s->pending = s->held;
	s->pending_at = n_line;
	s->held = empty;
	s->is_told = false;
	return n_taken;
}

// What the open value is, told; it is not wanted any further.
static size_t value_refuse(
	struct kube_stream *s, size_t n, enum kube_frame_kind kind, struct kube_frame *out)
{
	out->kind = kind;
	skip_start(s, KUBE_SKIP_VALUE);
	return n;
}

// Goes on with the value that is open. Returns bytes taken.
static size_t value_run(struct kube_stream *s, const char *text, size_t len, struct kube_frame *out)
{
	enum kube_grammar_verdict verdict;
	size_t room = s->frame_max_bytes - s->held.n;
	size_t n = kube_grammar_run(&s->grammar, text, len < room ? len : room, &verdict);
	if (verdict == KUBE_GRAMMAR_MORE && n == len &&
		bytes_append(&s->held, text, n, s->frame_max_bytes))
		return n;
	bool is_there = gather(s, text, n, out);
	if (verdict == KUBE_GRAMMAR_CLOSED) {
		out->kind = is_there ? KUBE_FRAME_VALUE : KUBE_FRAME_TOO_LARGE;
		s->is_open = false;
		return n;
	}
	if (verdict == KUBE_GRAMMAR_MORE)
		return value_refuse(s, n, KUBE_FRAME_TOO_LARGE, out);
	if (verdict == KUBE_GRAMMAR_DEEP)
		return value_refuse(s, n, KUBE_FRAME_TOO_DEEP, out);
	if (s->kind == KUBE_STREAM_WATCH && is_there)
		return resync(s, n, out);
	out->kind = KUBE_FRAME_GARBAGE;
	skip_start(s, garbage_skip(s));
	return n;
}

// Blanks, and a byte order mark at the start of the stream. Returns bytes taken.
static size_t blanks_run(struct kube_stream *s, const char *text, size_t len)
{
	static const char mark[] = "\xef\xbb\xbf";
	size_t at = 0;
	while (at < len && s->n_bom < 3 && text[at] == mark[s->n_bom]) {
		s->n_bom++;
		at++;
	}
	if (at < len && s->n_bom == 0)
		s->n_bom = 3;
	while (at < len && s->n_bom == 3 && kube_is_blank(text[at]))
		at++;
	return at;
}

static void value_open(struct kube_stream *s, uint32_t depth_max)
{
	kube_grammar_init(&s->grammar, depth_max);
	s->grammar.is_watch = s->kind == KUBE_STREAM_WATCH;
	s->is_open = true;
}

static size_t garbage_start(
	struct kube_stream *s, const char *text, size_t len, struct kube_frame *out)
{
	const char *newline = memchr(text, '\n', len < SHOWN_BYTES ? len : SHOWN_BYTES);
	size_t shown = newline ? (size_t)(newline - text) : len < SHOWN_BYTES ? len : SHOWN_BYTES;
	s->n_bom = 3;
	kube_grammar_init(&s->grammar, 0);
	skip_start(s, garbage_skip(s));
	tell(out, KUBE_FRAME_GARBAGE, text, shown);
	return 0;
}

// Up to the end of the first frame in text. Returns bytes taken.
static size_t watch_run(struct kube_stream *s, const char *text, size_t len, struct kube_frame *out)
{
	size_t at = 0;
	while (at < len && out->kind == KUBE_FRAME_NONE) {
		if (s->skip == KUBE_SKIP_LINE) {
			at += skip_line(s, text + at, len - at, out);
		} else if (s->skip == KUBE_SKIP_VALUE) {
			at += skip_value(s, text + at, len - at);
		} else if (s->is_open) {
			at += value_run(s, text + at, len - at, out);
		} else {
			at += blanks_run(s, text + at, len - at);
			if (at < len && s->n_bom == 3 && (text[at] == '{' || text[at] == '['))
				value_open(s, KUBE_DEPTH_MAX + 1);
			else if (at < len)
				at += garbage_start(s, text + at, len - at, out);
		}
	}
	return at;
}

// ---------------------------------------------------------------- a list
// A byte of the envelope goes by: which member it is in.
static void key_note(struct kube_stream *s, char c)
{
	const struct kube_grammar *g = &s->around;
	if (g->depth != 1)
		return;
	if (g->expect == KUBE_EXPECT_KEY || g->expect == KUBE_EXPECT_KEY_OR_CLOSE)
		s->n_key = 0;
	else if (is_string(g) && g->is_key && !(c == '"' && g->expect == KUBE_IN_STRING) &&
		 s->n_key < sizeof(s->key))
		s->key[s->n_key++] = c;
}

static bool is_items_start(const struct kube_stream *s, char c)
{
	return c == '[' && s->around.depth == 1 && s->around.expect == KUBE_EXPECT_VALUE &&
	       s->n_key == 5 && memcmp(s->key, "items", 5) == 0;
}

static bool is_value_place(const struct kube_grammar *g)
{
	return g->expect == KUBE_EXPECT_VALUE || g->expect == KUBE_EXPECT_VALUE_OR_CLOSE;
}

static void list_break(struct kube_stream *s, enum kube_frame_kind kind, struct kube_frame *out)
{
	skip_start(s, KUBE_SKIP_ALL);
	tell(out, kind, s->envelope.at, s->envelope.n);
}

// One byte of the envelope. False: it is the start of an element, and was not taken.
static bool envelope_step(struct kube_stream *s, char c, struct kube_frame *out)
{
	bool is_between = s->is_in_items && s->around.depth == 2;
	if (is_between && is_value_place(&s->around) && c == '{')
		return false;
	bool is_start = is_items_start(s, c);
	key_note(s, c);
	if (is_between && is_value_place(&s->around) && !kube_is_blank(c) && c != ']') {
		list_break(s, KUBE_FRAME_GARBAGE, out); // an element that is no object
		return true;
	}
	enum kube_grammar_verdict verdict = kube_grammar_step(&s->around, c);
	if (is_start)
		s->is_in_items = true;
	else if (s->around.depth < 2)
		s->is_in_items = false;
	bool is_kept = !is_between || c == ']';
	if (verdict == KUBE_GRAMMAR_BAD || verdict == KUBE_GRAMMAR_DEEP) {
		list_break(s, KUBE_FRAME_GARBAGE, out);
	} else if (is_kept && !bytes_append(&s->envelope, &c, 1, s->frame_max_bytes)) {
		list_break(s, KUBE_FRAME_TOO_LARGE, out);
	} else if (verdict == KUBE_GRAMMAR_CLOSED) {
		s->is_done = true;
		tell(out, KUBE_FRAME_ENVELOPE, s->envelope.at, s->envelope.n);
	}
	return true;
}

static size_t envelope_run(
	struct kube_stream *s, const char *text, size_t len, struct kube_frame *out)
{
	size_t at = 0;
	if (s->around.depth == 0) {
		at = blanks_run(s, text, len);
		if (at == len)
			return len;
		if (s->is_done || s->n_bom != 3 || text[at] != '{')
			return at + garbage_start(s, text + at, len - at, out);
	}
	for (; at < len && out->kind == KUBE_FRAME_NONE; at++) {
		if (envelope_step(s, text[at], out))
			continue;
		value_open(s, KUBE_DEPTH_MAX);
		return at;
	}
	return at;
}

static size_t list_run(struct kube_stream *s, const char *text, size_t len, struct kube_frame *out)
{
	size_t at = 0;
	while (at < len && out->kind == KUBE_FRAME_NONE) {
		bool was_inside = s->is_open || s->skip == KUBE_SKIP_VALUE;
		if (s->skip == KUBE_SKIP_ALL)
			return len;
		if (s->skip == KUBE_SKIP_VALUE)
			at += skip_value(s, text + at, len - at);
		else if (s->is_open)
			at += value_run(s, text + at, len - at, out);
		else
			at += envelope_run(s, text + at, len - at, out);
		if (was_inside && !s->is_open && s->skip == KUBE_SKIP_NOTHING)
			s->around.expect = KUBE_EXPECT_COMMA_OR_CLOSE; // the element is over
	}
	return at;
}

// ---------------------------------------------------------------- public
struct kube_stream *kube_stream_create(enum kube_stream_kind kind, size_t frame_max_bytes)
{
	struct kube_stream *s = calloc(1, sizeof(*s));
	if (s == NULL)
		return NULL;
	s->frame_max_bytes = frame_max_bytes ? frame_max_bytes : KUBE_FRAME_MAX_BYTES;
	assert(s->frame_max_bytes <= KUBE_FRAME_MAX_BYTES);
	kube_stream_reset(s, kind);
	return s;
}

void kube_stream_destroy(struct kube_stream *s)
{
	if (s == NULL)
		return;
	free(s->held.at);
	free(s->pending.at);
	free(s->envelope.at);
	free(s);
}

void kube_stream_reset(struct kube_stream *s, enum kube_stream_kind kind)
{
	bytes_clear(&s->held);
	bytes_clear(&s->pending);
	bytes_clear(&s->envelope);
	*s = (struct kube_stream){
		.kind = kind,
		.frame_max_bytes = s->frame_max_bytes,
		.held = s->held,
		.pending = s->pending,
		.envelope = s->envelope,
	};
	kube_grammar_init(&s->around, KUBE_DEPTH_MAX);
}

// What the last frame borrowed is no longer needed.
static void told_drop(struct kube_stream *s)
{
	if (s->is_told)
		bytes_clear(&s->held);
	s->is_told = false;
	if (s->pending.n && s->pending_at == s->pending.n) {
		bytes_clear(&s->pending);
		s->pending_at = 0;
	}
}

size_t kube_stream_feed(
	struct kube_stream *s, const char *bytes, size_t len, struct kube_frame *out)
{
	told_drop(s);
	*out = (struct kube_frame){ .kind = KUBE_FRAME_NONE };
	if (s->kind == KUBE_STREAM_LIST)
		return list_run(s, bytes, len, out);
	if (s->pending.n) {
		s->pending_at += watch_run(
			s, s->pending.at + s->pending_at, s->pending.n - s->pending_at, out);
		if (out->kind != KUBE_FRAME_NONE)
			return 0;
		told_drop(s);
	}
	return watch_run(s, bytes, len, out);
}

bool kube_stream_is_whole(const struct kube_stream *s)
{
	if (s->kind == KUBE_STREAM_LIST)
		return s->is_done && s->skip == KUBE_SKIP_NOTHING;
	return !s->is_open && s->skip == KUBE_SKIP_NOTHING && s->pending.n == s->pending_at &&
	       (s->n_bom == 0 || s->n_bom == 3);
}

void kube_stream_envelope(const struct kube_stream *s, const char **out_text, size_t *out_len)
{
	*out_text = s->envelope.at;
	*out_len = s->envelope.n;
}

size_t kube_stream_held_bytes(const struct kube_stream *s)
{
	return s->held.cap + s->pending.cap + s->envelope.cap;
}
