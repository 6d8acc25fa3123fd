// SPDX-License-Identifier: BSD-3-Clause
// Path and query, decoded piece by piece from the line as received: first split, then unescape, so that an escaped
// slash never makes a segment. Refused here, before any route is looked at: bad escapes, NUL and other control
// characters, text that is not UTF-8 (which includes overlong forms). There is no file system behind paths, so `..`
// is a segment like any other and simply matches nothing.
#include "admin_priv.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

// Length of a well-formed UTF-8 sequence at s (RFC 3629: no overlong forms, no surrogates), 0 = none.
static size_t utf8_len(const unsigned char *s)
{
	if (s[0] < 0x80)
		return 1;
	size_t n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 0;
	unsigned char low = 0x80, high = 0xbf;
	if (s[0] == 0xe0)
		low = 0xa0;
	else if (s[0] == 0xed)
		high = 0x9f;
	else if (s[0] == 0xf0)
		low = 0x90;
	else if (s[0] == 0xf4)
		high = 0x8f;
	if (s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++) {
		if (s[i] < 0x80 || s[i] > 0xbf)
			return 0;
	}
	return n;
}

static bool text_is_clean(const char *text)
{
	const unsigned char *s = (const unsigned char *)text;
	while (*s) {
		size_t n = utf8_len(s);
		if (n == 0 || *s < 0x20 || *s == 0x7f)
			return false;
		s += n;
	}
	return true;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// In place. 0 or -EINVAL.
static int unescape(char *text, bool plus_is_blank)
{
	char *out = text;
	for (const char *in = text; *in; in++) {
		char c = *in;
		if (c == '%') {
			int hi = hex_digit(in[1]);
			int lo = hi < 0 ? -1 : hex_digit(in[2]);
			if (lo < 0 || (hi == 0 && lo == 0))
				return -EINVAL;
			c = (char)(hi << 4 | lo);
			in += 2;
		} else if (c == '+' && plus_is_blank) {
			c = ' ';
		}
		*out++ = c;
	}
	*out = 0;
	return text_is_clean(text) ? 0 : -EINVAL;
}

static int path_split(struct admin_request *r, char *path)
{
	if (path[0] != '/')
		return strcmp(path, "*") == 0 ? 0 : -EINVAL;
	char *at = path + 1;
	while (at != NULL) {
		char *slash = strchr(at, '/');
		if (slash)
			*slash = 0;
		if (r->n_segments == ADMIN_SEGMENTS_MAX)
			return -ENOENT;
		if (unescape(at, false) != 0)
			return -EINVAL;
		r->segments[r->n_segments++] = at;
		at = slash ? slash + 1 : NULL;
	}
	return 0;
}

static int query_split(struct admin_request *r, char *query)
{
	char *save = NULL;
	for (char *pair = strtok_r(query, "&", &save); pair; pair = strtok_r(NULL, "&", &save)) {
		if (r->n_query == ADMIN_QUERY_MAX)
			return -EINVAL;
		char *value = strchr(pair, '=');
		if (value)
			*value++ = 0;
		if (unescape(pair, true) != 0 || (value && unescape(value, true) != 0))
			return -EINVAL;
		r->query[r->n_query++] =
			(struct admin_pair){ .name = pair, .value = value ? value : "true" };
	}
	return 0;
}

void uri_parse(struct admin_request *r)
{
	if (strlen(r->uri) > ADMIN_URI_MAX) {
		r->uri_error = 414;
		r->uri[ADMIN_URI_MAX] = 0;
	}
	char *query = strchr(r->uri, '?');
	r->words = strdup(r->uri);
	if (query)
		*query = 0; // r->uri is the path from here on
	r->path = r->uri;
	if (r->words == NULL || r->uri_error != 0)
		return;
	query = strchr(r->words, '?');
	if (query)
		*query++ = 0;
	int rc = path_split(r, r->words);
	if (rc == 0 && query)
		rc = query_split(r, query);
	if (rc != 0)
		r->uri_error = rc == -ENOENT ? 404 : 400;
}

// ---------------------------------------------------------------- query
const char *query_text(const struct admin_request *r, const char *name)
{
	for (uint32_t i = 0; i < r->n_query; i++) {
		if (strcmp(r->query[i].name, name) == 0)
			return r->query[i].value;
	}
	return NULL;
}

static int integer_parse(const char *text, int64_t *out)
{
	if (text[0] == 0 || strlen(text) > 18 || strspn(text, "0123456789") != strlen(text))
		return -EINVAL;
	*out = strtoll(text, NULL, 10);
	return 0;
}

int64_t query_integer(const struct admin_request *r, const char *name, int64_t fallback)
{
	const char *text = query_text(r, name);
	int64_t value;
	return text && integer_parse(text, &value) == 0 ? value : fallback;
}

bool query_flag(const struct admin_request *r, const char *name)
{
	const char *text = query_text(r, name);
	return text && strcmp(text, "true") == 0;
}

static bool word_in_list(const char *word, const char *list)
{
	size_t n = strlen(word);
	if (n == 0 || strchr(word, ' ')) // found everywhere; two words of the list
		return false;
	for (const char *at = list; (at = strstr(at, word)) != NULL; at += n) {
		if ((at == list || at[-1] == ' ') && (at[n] == ' ' || at[n] == 0))
			return true;
	}
	return false;
}

static json_t *words_json(const char *const *words)
{
	json_t *list = json_array();
	for (; *words; words++)
		json_array_append_new(list, json_string(*words));
	return list;
}

static json_t *list_json(const char *list)
{
	json_t *words = json_array();
	while (*list) {
		size_t n = strcspn(list, " ");
		json_array_append_new(words, json_stringn(list, n));
		list += n + (list[n] == ' ');
	}
	return words;
}

static bool word_allowed(const char *word, const char *const *words)
{
	for (; *words; words++) {
		if (strcmp(word, *words) == 0)
			return true;
	}
	return false;
}

// As a JSON Schema counts: characters, not bytes. The text is well-formed UTF-8 by now.
static int64_t n_characters(const char *text)
{
	int64_t n = 0;
	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

static void param_check(struct admin_request *r, const struct admin_field *p, const char *value)
{
	char pointer[80];
	snprintf(pointer, sizeof(pointer), "?%s", p->name);
	int64_t number = 0;
	struct address address;
	if (p->type == ADMIN_BOOLEAN && strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
		finding_add(r, pointer, list_json("true false"), "`%.80s`: true or false", value);
	else if (p->type == ADMIN_INTEGER &&
		 (integer_parse(value, &number) != 0 || number < p->min || number > p->max))
		finding_add(r, pointer, NULL, "`%.80s`: an integer in %lld..%lld", value,
			(long long)p->min, (long long)p->max);
	else if (p->allowed && !word_allowed(value, p->allowed))
		finding_add(r, pointer, words_json(p->allowed), "`%.80s` is not allowed", value);
	else if (p->format && strcmp(p->format, "address") == 0 &&
		 address_parse(value, &address) != 0)
		finding_add(r, pointer, NULL, "`%.80s`: an IPv4 or IPv6 address", value);
	else if (p->type == ADMIN_STRING && p->max != 0 && n_characters(value) > p->max)
		finding_add(r, pointer, NULL, "longer than %lld characters", (long long)p->max);
}

int query_check(struct admin_request *r)
{
	const char *allowed = r->route->query ? r->route->query : "";
	for (uint32_t i = 0; i < r->n_query; i++) {
		const char *name = r->query[i].name;
		if (!word_in_list(name, allowed)) {
			finding_add(r, "?", list_json(allowed), "unknown parameter `%.80s`", name);
		} else if (query_text(r, name) != r->query[i].value) {
			finding_add(r, "?", NULL, "parameter `%.80s` is given twice", name);
		} else {
			param_check(r, param_find(name, strlen(name)), r->query[i].value);
		}
	}
	if (json_array_size(r->findings) == 0)
		return 0;
	reply_problem(r, PROBLEM_BAD_REQUEST, "the query is not understood");
	return -EINVAL;
}
