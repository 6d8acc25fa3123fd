// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The grammar between brackets, for kube_stream.c, and the reading of a broken object's name, for the reflector.
#include "kube.h"
#include "kube_stream.h"

// ---------------------------------------------------------------- kube_grammar.c
// Of one object. An EndpointSlice with all it may hold has 8,000 brackets and 140,000 values; a tree of these bounds takes 45 MB.
#define KUBE_BRACKETS_MAX 65536u
#define KUBE_VALUES_MAX   262144u

enum kube_expect {
	KUBE_EXPECT_VALUE,
	KUBE_EXPECT_VALUE_OR_CLOSE,
	KUBE_EXPECT_KEY,
	KUBE_EXPECT_KEY_OR_CLOSE,
	KUBE_EXPECT_COLON,
	KUBE_EXPECT_COMMA_OR_CLOSE,
	KUBE_IN_STRING,
	KUBE_IN_ESCAPE,
	KUBE_IN_TOKEN // a number or a word: its letters are looked at by who parses it
};

enum kube_grammar_verdict {
	KUBE_GRAMMAR_MORE,
	KUBE_GRAMMAR_CLOSED, // the outermost bracket was closed
	KUBE_GRAMMAR_BAD,
	KUBE_GRAMMAR_DEEP,
	KUBE_GRAMMAR_CUT // an event begins on a line of its own, inside of this value: its end never came
};

// Where a value is, from its opening bracket on. Zero is before it. Strings are checked for raw control characters, tokens for
// their alphabet, brackets, commas and colons for their places; what is left to say (numbers, UTF-8) the parser says.
struct kube_grammar {
	uint32_t depth;
	uint32_t depth_max; // at most KUBE_DEPTH_MAX + 1
	enum kube_expect expect;
	bool is_key;    // of the string that is being read
	bool is_watch;  // look for cuts
	uint8_t n_mark; // bytes of the mark of a cut, seen last
	bool is_object[KUBE_DEPTH_MAX + 1];
};
void kube_grammar_init(struct kube_grammar *g, uint32_t depth_max);
enum kube_grammar_verdict kube_grammar_step(struct kube_grammar *g, char c);
// Steps until the verdict is another than MORE. Returns how many bytes were taken: the closing bracket and the mark of a cut are,
// a bad byte and the bracket that is too deep are not.
size_t kube_grammar_run(struct kube_grammar *g, const char *text, size_t len,
	enum kube_grammar_verdict *out_verdict);
// Would a tree of this text be of a bounded size? A tree takes 40 times its text where that is `{},{},..`.
bool kube_tree_is_small(const char *text, size_t len);
static inline bool kube_is_blank(char c)
{
	return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}
