// SPDX-License-Identifier: BSD-3-Clause
// The form of a configuration, checked before libconfig sees it. Not a second parser: no value is kept.
//
//   settings  = { key ( "=" | ":" ) value [ ";" | "," ] }
//   value     = literal | boolean | "{" settings "}" | "(" [ value { "," value } ] ")" | "[" [ literal { "," literal } ] "]"
//
// Why: libconfig says "syntax error" and no more, and its parser loses the text that it holds when it gives up, 64 bytes
// each time (1.5, found by the mutations of settings_test). Adjacent texts, which it would join, are refused.
#include "schema_priv.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct grammar {
	const char *at;
	uint32_t line;
	struct error *err;
};

// The next character that counts; 0 at the end.
static char look(struct grammar *g)
{
	for (; *g->at && strchr(" \t\r\n", *g->at); g->at++)
		g->line += *g->at == '\n';
	return *g->at;
}

char schema_literal(const char *literal, uint32_t *out_line, const char **out_text)
{
	char *end = NULL;
	*out_line = (uint32_t)strtoul(literal + 1, &end, 10);
	*out_text = end + 1;
	return literal[0];
}

static bool refuse(struct grammar *g, const char *allowed)
{
	char found[96] = "end of file", quoted[112];
	char c = look(g);
	if (c == '"') {
		uint32_t line = 0;
		const char *text = NULL;
		schema_literal(g->at + 1, &line, &text);
		snprintf(found, sizeof(found), "%.*s", (int)strcspn(text, "\""), text);
	} else if (c) {
		size_t len = strcspn(g->at, " \t\r\n\"=:;,(){}[]");
		snprintf(found, sizeof(found), "%.*s", (int)(len ? len : 1), g->at);
	}
	error_add_line(g->err, EINVAL, g->line, "", "syntax error at %s; allowed: %s",
		c ? schema_quote(found, quoted, sizeof(quoted)) : found, allowed);
	return false;
}

static void skip_literal(struct grammar *g)
{
	for (g->at++; *g->at && *g->at != '"'; g->at++)
		if (*g->at == '\\' && g->at[1])
			g->at++;
	if (*g->at)
		g->at++;
}

static bool is_boolean(const char *word, size_t len)
{
	return (len == 4 && strncasecmp(word, "true", 4) == 0) ||
	       (len == 5 && strncasecmp(word, "false", 5) == 0);
}

static bool literal_ok(struct grammar *g)
{
	if (look(g) != '"')
		return refuse(g, "a value in quotes");
	skip_literal(g);
	if (look(g) == '"')
		return refuse(g, "one value, then ; or , or a closing bracket");
	return true;
}

static bool settings_ok(struct grammar *g, char closing);
static bool value_ok(struct grammar *g);

// Behind the opening bracket; items of a list, literals of an array.
static bool items_ok(struct grammar *g, char closing)
{
	bool (*item_ok)(struct grammar *) = closing == ']' ? literal_ok : value_ok;
	if (look(g) == closing) {
		g->at++;
		return true;
	}
	for (;;) {
		if (!item_ok(g))
			return false;
		char c = look(g);
		if (c != ',' && c != closing)
			return refuse(g, closing == ']' ? ", or ]" : ", or )");
		g->at++;
		if (c == closing)
			return true;
	}
}

static bool value_ok(struct grammar *g)
{
	char c = look(g);
	size_t len = strcspn(g->at, " \t\r\n\"=:;,(){}[]");
	if (c == '"')
		return literal_ok(g);
	if (c == '{' || c == '(' || c == '[')
		g->at++;
	if (c == '{')
		return settings_ok(g, '}');
	if (c == '(' || c == '[')
		return items_ok(g, c == '(' ? ')' : ']');
	if (!is_boolean(g->at, len))
		return refuse(g, "a value: number, true, false, text in quotes, { }, ( ) or [ ]");
	g->at += len;
	return true;
}

static bool key_ok(struct grammar *g)
{
	size_t len = 0;
	if (isalpha((unsigned char)look(g)))
		while (isalnum((unsigned char)g->at[len]) ||
			(g->at[len] && strchr("_-", g->at[len])))
			len++;
	if (len == 0 || is_boolean(g->at, len))
		return refuse(g, "a key, then = and a value");
	g->at += len;
	char c = look(g);
	if (c != '=' && c != ':')
		return refuse(g, "= behind a key");
	g->at++;
	return true;
}

// closing 0: to the end of the text.
static bool settings_ok(struct grammar *g, char closing)
{
	while (look(g) != closing) {
		if (!key_ok(g) || !value_ok(g))
			return false;
		char c = look(g);
		if (c == ';' || c == ',')
			g->at++;
	}
	if (closing)
		g->at++;
	return true;
}

bool schema_grammar_ok(const char *scanned, struct error *err)
{
	struct grammar g = { scanned, 1, err };
	return settings_ok(&g, '\0');
}
