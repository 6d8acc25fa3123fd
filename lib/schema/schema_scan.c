// SPDX-License-Identifier: BSD-3-Clause
// What libconfig must not see as it stands: before it parses, every text, number and bare word is put in quotes behind a mark and
// its line, comments are taken out and the few things it gets wrong or says badly are refused by name.
//
// Why: libconfig 1.5 turns `5000000000` into 705032704 and 0x1ffffffff into -1 without a word, answers `interval = 1s` or
// `idle = adaptive` with "syntax error", and gives the last text of an array the line of the bracket behind it. With the literal in
// hand the reader can name place, value and what is allowed. Line ends stay where they were.
#include "schema_priv.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SCAN_DEPTH_MAX 16 // brackets inside brackets; the deepest key needs 3

struct scan {
	const char *at;
	const char *end;
	char *out; // room for twelve times the input: one character can become "<mark>1048576:c"
	uint32_t line;
	uint32_t depth;
	uint32_t n_bad;
	struct error *err;
};

static void scan_refuse(struct scan *s, uint32_t line, const char *text)
{
	error_add_line(s->err, EINVAL, line, "", "%s", text);
	s->n_bad++;
}

static bool scan_looking_at(const struct scan *s, const char *text)
{
	size_t len = strlen(text);
	return (size_t)(s->end - s->at) >= len && memcmp(s->at, text, len) == 0;
}

static void scan_line_comment(struct scan *s)
{
	while (s->at < s->end && *s->at != '\n')
		s->at++;
}

static void scan_block_comment(struct scan *s)
{
	uint32_t line = s->line;
	for (s->at += 2; s->at < s->end && !scan_looking_at(s, "*/"); s->at++) {
		if (*s->at != '\n')
			continue;
		*s->out++ = '\n';
		s->line++;
	}
	if (s->at == s->end)
		scan_refuse(
			s, line, "comment is opened by /* and never closed; allowed: */ behind it");
	else
		s->at += 2;
	*s->out++ = ' ';
}

static void literal_open(struct scan *s, char mark)
{
	s->out += sprintf(s->out, "\"%c%u:", mark, s->line);
}

static void scan_string(struct scan *s)
{
	s->at++;
	literal_open(s, SCHEMA_MARK_TEXT);
	while (s->at < s->end && *s->at != '"' && *s->at != '\n') {
		if (*s->at == '\\') {
			char next = s->at + 1 < s->end ? s->at[1] : '\n';
			if (next != '\\' && next != '"') {
				scan_refuse(s, s->line,
					"backslash in a text; allowed: \\\\ and \\\" only");
				return;
			}
			*s->out++ = *s->at++;
		}
		*s->out++ = *s->at++;
	}
	if (s->at == s->end || *s->at == '\n') {
		scan_refuse(s, s->line,
			"text is opened by \" and not closed; allowed: a closing \" on its line");
		return;
	}
	*s->out++ = *s->at++;
}

static bool is_word(char c)
{
	return isalnum((unsigned char)c) || (c && strchr("_.+-*", c));
}

static bool is_boolean(const char *word, size_t len)
{
	return (len == 4 && strncasecmp(word, "true", 4) == 0) ||
	       (len == 5 && strncasecmp(word, "false", 5) == 0);
}

// A word that = or : follows is a key; true and false are libconfig's; the rest is a literal.
static void scan_word(struct scan *s)
{
	const char *from = s->at;
	while (s->at < s->end && is_word(*s->at))
		s->at++;
	size_t len = (size_t)(s->at - from);
	const char *next = s->at;
	while (next < s->end && (*next == ' ' || *next == '\t' || *next == '\r' || *next == '\n'))
		next++;
	bool is_key = next < s->end && (*next == '=' || *next == ':');
	bool is_number = isdigit((unsigned char)*from) || strchr("+-.", *from);
	bool is_literal = !is_key && !is_boolean(from, len);
	if (is_literal)
		literal_open(s, is_number ? SCHEMA_MARK_NUMBER : SCHEMA_MARK_WORD);
	memcpy(s->out, from, len);
	s->out += len;
	if (is_literal)
		*s->out++ = '"';
}

static void scan_other(struct scan *s)
{
	char c = *s->at;
	if (c == '\n')
		s->line++;
	if (strchr("{([", c) && ++s->depth == SCAN_DEPTH_MAX + 1)
		scan_refuse(s, s->line, "brackets are nested deeper than 16; allowed: at most 16");
	if (strchr("})]", c) && s->depth)
		s->depth--;
	if (c == '@')
		scan_refuse(s, s->line, "@include is not supported; allowed: one file");
	*s->out++ = *s->at++;
}

// Control characters are the markers' place, and no text of a setting has them.
static bool scan_is_clean(struct scan *s)
{
	uint32_t line = 1;
	for (const char *p = s->at; p < s->end; p++) {
		unsigned char c = (unsigned char)*p;
		if (c == '\n')
			line++;
		if ((c < 0x20 && c != '\n' && c != '\t' && c != '\r') || c == 0x7f) {
			error_add_line(s->err, EINVAL, line, "",
				"control character 0x%02x; allowed: text, tab, line end", c);
			return false;
		}
	}
	return true;
}

char *schema_scan(const char *text, size_t len, struct error *err)
{
	char *out = malloc(12 * len + 1);
	if (out == NULL) {
		error_add(err, ENOMEM, "", "out of memory");
		return NULL;
	}
	struct scan s = { text, text + len, out, 1, 0, 0, err };
	if (!scan_is_clean(&s))
		s.n_bad++;
	while (s.n_bad == 0 && s.at < s.end) {
		if (*s.at == '#' || scan_looking_at(&s, "//"))
			scan_line_comment(&s);
		else if (scan_looking_at(&s, "/*"))
			scan_block_comment(&s);
		else if (*s.at == '"')
			scan_string(&s);
		else if (is_word(*s.at))
			scan_word(&s);
		else
			scan_other(&s);
	}
	*s.out = '\0';
	if (s.n_bad == 0)
		return out;
	free(out);
	return NULL;
}
