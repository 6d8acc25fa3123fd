// SPDX-License-Identifier: BSD-3-Clause
// YAML events of libyaml into a tree. The parser is asked for one event at a time, so that a text is given up at the first
// thing too deep or too many; libyaml itself holds no more than the text and one scalar.
#include "tree_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct tree_reader {
	yaml_parser_t parser;
	struct arena *arena;
	struct error *err;
	struct tree *root;
	struct tree *open[TREE_DEPTH_MAX]; // lists and maps around the next node
	uint32_t depth;
	uint32_t n_nodes;
	const char *key; // of the next node, when it stands in a map
	uint32_t key_line;
	const char *text;
	size_t len;
	uint32_t n_documents;
	int rc; // first failure
};

static void reader_fail(
	struct tree_reader *r, const yaml_mark_t *mark, const char *text, const char *allowed)
{
	r->rc = -EINVAL;
	error_add_line(
		r->err, EINVAL, (uint32_t)mark->line + 1, "", "%s; allowed: %s", text, allowed);
}

static struct tree *reader_add(struct tree_reader *r, const yaml_mark_t *mark, enum tree_kind kind)
{
	if (++r->n_nodes > TREE_NODES_MAX) {
		reader_fail(r, mark, "too many values", "65536");
		return NULL;
	}
	struct tree *node = arena_alloc(r->arena, sizeof(*node), _Alignof(struct tree));
	if (node == NULL) {
		r->rc = -ENOMEM;
		return NULL;
	}
	node->kind = kind;
	node->line = r->key ? r->key_line : (uint32_t)mark->line + 1;
	node->key = r->key;
	r->key = NULL;
	struct tree *parent = r->depth ? r->open[r->depth - 1] : NULL;
	if (parent == NULL) {
		r->root = node;
		return node;
	}
	if (parent->last)
		parent->last->next = node;
	else
		parent->first = node;
	parent->last = node;
	parent->n_nodes++;
	return node;
}

static void reader_open(struct tree_reader *r, const yaml_mark_t *mark, enum tree_kind kind)
{
	bool in_map = r->depth && r->open[r->depth - 1]->kind == TREE_MAP;
	if (in_map && r->key == NULL) {
		reader_fail(r, mark, "a list or map as a key", "text");
		return;
	}
	if (r->depth == TREE_DEPTH_MAX) {
		reader_fail(r, mark, "nested too deep", "32 levels");
		return;
	}
	struct tree *node = reader_add(r, mark, kind);
	if (node)
		r->open[r->depth++] = node;
}

static char *reader_copy(struct tree_reader *r, const yaml_event_t *event)
{
	size_t len = event->data.scalar.length;
	const char *text = (const char *)event->data.scalar.value;
	if (memchr(text, '\0', len)) {
		reader_fail(r, &event->start_mark, "a NUL character in a text", "text without");
		return NULL;
	}
	char *copy = arena_alloc(r->arena, len + 1, 1);
	if (copy == NULL)
		r->rc = -ENOMEM;
	else
		memcpy(copy, text, len);
	return copy;
}

static void reader_key(struct tree_reader *r, const yaml_event_t *event)
{
	const struct tree *map = r->open[r->depth - 1];
	char *key = reader_copy(r, event);
	if (key == NULL)
		return;
	for (const struct tree *node = map->first; node; node = node->next) {
		char text[160];
		if (strcmp(node->key, key) != 0)
			continue;
		snprintf(text, sizeof(text), "key \"%.100s\" is in line %u too", key, node->line);
		reader_fail(r, &event->start_mark, text, "each key once");
		return;
	}
	if (map->n_nodes == TREE_KEYS_MAX)
		reader_fail(r, &event->start_mark, "too many keys in one map", "1024");
	r->key = key;
	r->key_line = (uint32_t)event->start_mark.line + 1;
}

static bool is_null(const char *text)
{
	return text[0] == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0 ||
	       strcmp(text, "Null") == 0 || strcmp(text, "NULL") == 0;
}

static void reader_scalar(struct tree_reader *r, const yaml_event_t *event)
{
	bool in_map = r->depth && r->open[r->depth - 1]->kind == TREE_MAP;
	bool is_plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	if (event->data.scalar.anchor || event->data.scalar.tag) {
		reader_fail(r, &event->start_mark, "an anchor (&) or tag (!)", "plain values");
		return;
	}
	if (in_map && r->key == NULL) {
		reader_key(r, event);
		return;
	}
	char *text = reader_copy(r, event);
	struct tree *node = text ? reader_add(r, &event->start_mark, TREE_TEXT) : NULL;
	if (node == NULL)
		return;
	node->text = text;
	node->is_plain = is_plain;
	if (is_plain && is_null(text))
		node->kind = TREE_NULL;
}

static void reader_take(struct tree_reader *r, const yaml_event_t *event)
{
	const yaml_mark_t *mark = &event->start_mark;
	switch (event->type) {
	case YAML_DOCUMENT_START_EVENT:
		if (r->n_documents++)
			reader_fail(r, mark, "a second document", "one");
		break;
	case YAML_ALIAS_EVENT:
		reader_fail(r, mark, "an alias (*)", "values written out");
		break;
	case YAML_SEQUENCE_START_EVENT:
		if (event->data.sequence_start.anchor || event->data.sequence_start.tag)
			reader_fail(r, mark, "an anchor (&) or tag (!)", "plain values");
		else
			reader_open(r, mark, TREE_LIST);
		break;
	case YAML_MAPPING_START_EVENT:
		if (event->data.mapping_start.anchor || event->data.mapping_start.tag)
			reader_fail(r, mark, "an anchor (&) or tag (!)", "plain values");
		else
			reader_open(r, mark, TREE_MAP);
		break;
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		r->depth--;
		break;
	case YAML_SCALAR_EVENT:
		reader_scalar(r, event);
		break;
	default:
		break;
	}
}

static void reader_refuse_syntax(struct tree_reader *r)
{
	const yaml_parser_t *parser = &r->parser;
	if (parser->error == YAML_MEMORY_ERROR) {
		r->rc = -ENOMEM;
		return;
	}
	uint32_t line = (uint32_t)parser->problem_mark.line + 1;
	if (parser->error == YAML_READER_ERROR) { // bytes that are no text
		line = 1;
		for (size_t i = 0; i < parser->problem_offset && i < r->len; i++)
			line += r->text[i] == '\n';
	}
	r->rc = -EINVAL;
	error_add_line(r->err, EINVAL, line, "", "%s%s%s; allowed: YAML or JSON in UTF-8",
		parser->problem ? parser->problem : "syntax error", parser->context ? ", " : "",
		parser->context ? parser->context : "");
}

int tree_read(
	const char *text, size_t len, struct arena *arena, struct tree **out, struct error *err)
{
	struct tree_reader r = { .arena = arena, .err = err, .text = text, .len = len };
	yaml_event_type_t type = YAML_NO_EVENT;
	if (len > TREE_BYTES_MAX)
		return error_add(
			err, EFBIG, "", "%zu bytes; allowed: at most %u", len, TREE_BYTES_MAX);
	if (!yaml_parser_initialize(&r.parser))
		return error_add(err, ENOMEM, "", "out of memory");
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
	while (r.rc == 0 && type != YAML_STREAM_END_EVENT) {
		yaml_event_t event;
		if (!yaml_parser_parse(&r.parser, &event)) {
			reader_refuse_syntax(&r);
			break;
		}
		type = event.type;
		reader_take(&r, &event);
		yaml_event_delete(&event);
	}
	yaml_parser_delete(&r.parser);
	if (r.rc == 0 && r.root == NULL) { // not even a document
		yaml_mark_t top = { 0 };
		reader_add(&r, &top, TREE_NULL);
	}
	if (r.rc == -ENOMEM)
		error_add(err, ENOMEM, "", "out of memory");
	if (r.rc == 0)
		*out = r.root;
	return r.rc;
}

const struct tree *tree_find(const struct tree *map, const char *key)
{
	if (map == NULL || map->kind != TREE_MAP)
		return NULL;
	for (const struct tree *node = map->first; node; node = node->next)
		if (strcmp(node->key, key) == 0)
			return node->kind == TREE_NULL ? NULL : node;
	return NULL;
}

const char *tree_kind_name(const struct tree *node)
{
	static const char *const names[] = { "nothing", "a text", "a list", "a map" };
	return names[node->kind];
}

static json_t *scalar_to_json(const struct tree *node)
{
	char *end = NULL;
	if (!node->is_plain)
		return json_string(node->text);
	if (strcmp(node->text, "true") == 0 || strcmp(node->text, "false") == 0)
		return json_boolean(node->text[0] == 't');
	errno = 0;
	long long whole = strtoll(node->text, &end, 10);
	if (*end == '\0' && errno == 0)
		return json_integer(whole);
	if (node->text[strspn(node->text, "0123456789+-.eE")] != '\0')
		return json_string(node->text); // also the inf and nan that strtod would take
	errno = 0;
	double real = strtod(node->text, &end);
	json_t *value = *end == '\0' && errno == 0 ? json_real(real) : NULL;
	return value ? value : json_string(node->text);
}

json_t *tree_to_json(const struct tree *node)
{
	if (node->kind == TREE_NULL)
		return json_null();
	if (node->kind == TREE_TEXT)
		return scalar_to_json(node);
	json_t *whole = node->kind == TREE_LIST ? json_array() : json_object();
	for (const struct tree *child = node->first; child && whole; child = child->next) {
		json_t *value = tree_to_json(child);
		int rc = node->kind == TREE_LIST ? json_array_append_new(whole, value)
						 : json_object_set_new(whole, child->key, value);
		if (rc != 0) {
			json_decref(whole);
			return NULL;
		}
	}
	return whole;
}
