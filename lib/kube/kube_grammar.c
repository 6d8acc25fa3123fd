// SPDX-License-Identifier: BSD-3-Clause
// JSON's grammar between brackets as a push-down automaton of one byte a level: enough to know at every byte whether a value may go
// on like this, where it ends, and how deep it is.
//
// Why not only count brackets: of `{"kind":"Service",` and a newline, cut off in the middle, a counter takes all that follows
// for its inside, for ever. The grammar sees at the next `{` that no key stands there.
#include "kube_stream_priv.h"

#include <string.h>

static const char cut_mark[] = "\n{\"type\":\"";

void kube_grammar_init(struct kube_grammar *g, uint32_t depth_max)
{
	*g = (struct kube_grammar){ .depth_max = depth_max };
}

static enum kube_grammar_verdict push(struct kube_grammar *g, bool is_object)
{
	if (g->depth >= g->depth_max)
		return KUBE_GRAMMAR_DEEP;
	g->is_object[g->depth++] = is_object;
	g->expect = is_object ? KUBE_EXPECT_KEY_OR_CLOSE : KUBE_EXPECT_VALUE_OR_CLOSE;
	return KUBE_GRAMMAR_MORE;
}

static enum kube_grammar_verdict pop(struct kube_grammar *g, bool is_object)
{
	if (g->depth == 0 || g->is_object[g->depth - 1] != is_object)
		return KUBE_GRAMMAR_BAD;
	g->depth--;
	g->expect = KUBE_EXPECT_COMMA_OR_CLOSE;
	return g->depth ? KUBE_GRAMMAR_MORE : KUBE_GRAMMAR_CLOSED;
}

static enum kube_grammar_verdict enter_string(struct kube_grammar *g, bool is_key)
{
	g->is_key = is_key;
	g->expect = KUBE_IN_STRING;
	return KUBE_GRAMMAR_MORE;
}

static bool is_token(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       c == '-' || c == '+' || c == '.';
}

static enum kube_grammar_verdict step_value(struct kube_grammar *g, char c)
{
	if (c == '{' || c == '[')
		return push(g, c == '{');
	if (g->depth == 0)
		return KUBE_GRAMMAR_BAD; // a bare word or number has no end that can be seen
	if (c == '"')
		return enter_string(g, false);
	if (c == ']' && g->expect == KUBE_EXPECT_VALUE_OR_CLOSE)
		return pop(g, false);
	if (c != '-' && !(c >= '0' && c <= '9') && c != 't' && c != 'f' && c != 'n')
		return KUBE_GRAMMAR_BAD;
	g->expect = KUBE_IN_TOKEN;
	return KUBE_GRAMMAR_MORE;
}

static enum kube_grammar_verdict step_key(struct kube_grammar *g, char c)
{
	if (c == '"')
		return enter_string(g, true);
	if (c == '}' && g->expect == KUBE_EXPECT_KEY_OR_CLOSE)
		return pop(g, true);
	return KUBE_GRAMMAR_BAD;
}

static enum kube_grammar_verdict step_behind_value(struct kube_grammar *g, char c)
{
	if (c == '}' || c == ']')
		return pop(g, c == '}');
	if (c != ',' || g->depth == 0)
		return KUBE_GRAMMAR_BAD;
	g->expect = g->is_object[g->depth - 1] ? KUBE_EXPECT_KEY : KUBE_EXPECT_VALUE;
	return KUBE_GRAMMAR_MORE;
}

static enum kube_grammar_verdict step_string(struct kube_grammar *g, char c)
{
	if (g->expect == KUBE_IN_ESCAPE) {
		g->expect = KUBE_IN_STRING;
		return c && strchr("\"\\/bfnrtu", c) ? KUBE_GRAMMAR_MORE : KUBE_GRAMMAR_BAD;
	}
	if ((unsigned char)c < 0x20)
		return KUBE_GRAMMAR_BAD;
	if (c == '\\')
		g->expect = KUBE_IN_ESCAPE;
	else if (c == '"')
		g->expect = g->is_key ? KUBE_EXPECT_COLON : KUBE_EXPECT_COMMA_OR_CLOSE;
	return KUBE_GRAMMAR_MORE;
}

enum kube_grammar_verdict kube_grammar_step(struct kube_grammar *g, char c)
{
	if (g->expect == KUBE_IN_STRING || g->expect == KUBE_IN_ESCAPE)
		return step_string(g, c);
	if (g->expect == KUBE_IN_TOKEN) {
		if (is_token(c))
			return KUBE_GRAMMAR_MORE;
		g->expect = KUBE_EXPECT_COMMA_OR_CLOSE;
	}
	if (kube_is_blank(c))
		return KUBE_GRAMMAR_MORE;
	if (g->expect == KUBE_EXPECT_VALUE || g->expect == KUBE_EXPECT_VALUE_OR_CLOSE)
		return step_value(g, c);
	if (g->expect == KUBE_EXPECT_KEY || g->expect == KUBE_EXPECT_KEY_OR_CLOSE)
		return step_key(g, c);
	if (g->expect == KUBE_EXPECT_COMMA_OR_CLOSE)
		return step_behind_value(g, c);
	if (c != ':')
		return KUBE_GRAMMAR_BAD;
	g->expect = KUBE_EXPECT_VALUE;
	return KUBE_GRAMMAR_MORE;
}

// Bytes of a string that need no second look: most of an object.
static size_t plain_length(const char *text, size_t len)
{
	size_t n = 0;
	while (n < len && (unsigned char)text[n] >= 0x20 && text[n] != '"' && text[n] != '\\')
		n++;
	return n;
}

// Notes a byte that was taken. True: the mark is complete.
static bool is_cut(struct kube_grammar *g, char c)
{
	if (g->n_mark && c == cut_mark[g->n_mark])
		g->n_mark++;
	else
		g->n_mark = c == '\n';
	return g->is_watch && g->n_mark == sizeof(cut_mark) - 1;
}

size_t kube_grammar_run(struct kube_grammar *g, const char *text, size_t len,
	enum kube_grammar_verdict *out_verdict)
{
	*out_verdict = KUBE_GRAMMAR_MORE;
	for (size_t at = 0; at < len; at++) {
		if (g->expect == KUBE_IN_STRING && g->n_mark == 0) {
			at += plain_length(text + at, len - at);
			if (at == len)
				break;
		}
		*out_verdict = kube_grammar_step(g, text[at]);
		if (*out_verdict == KUBE_GRAMMAR_MORE && is_cut(g, text[at]))
			*out_verdict = KUBE_GRAMMAR_CUT;
		if (*out_verdict == KUBE_GRAMMAR_MORE)
			continue;
		bool is_taken =
			*out_verdict == KUBE_GRAMMAR_CLOSED || *out_verdict == KUBE_GRAMMAR_CUT;
		return is_taken ? at + 1 : at;
	}
	return len;
}

bool kube_tree_is_small(const char *text, size_t len)
{
	uint32_t n_brackets = 0, n_values = 1;
	for (size_t at = 0; at < len; at++) {
		char c = text[at];
		n_brackets += c == '{' || c == '[';
		n_values += c == ',' || c == '{' || c == '[';
		if (c != '"')
			continue;
		at++;
		for (at += plain_length(text + at, len - at); at < len && text[at] != '"';
			at += plain_length(text + at, len - at))
			at += text[at] == '\\' ? 2 : 1;
	}
	return n_brackets <= KUBE_BRACKETS_MAX && n_values <= KUBE_VALUES_MAX;
}
