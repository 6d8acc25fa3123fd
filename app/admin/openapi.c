// SPDX-License-Identifier: BSD-3-Clause
// The OpenAPI 3.1 document, made from routes.c and shapes.c at each request (it is asked for rarely).
#include "admin_priv.h"

#include <stdlib.h>

#define NAME_PATTERN     "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
#define DURATION_PATTERN "^(0|([0-9]+(h|m|s|ms|us|ns))+)$"
#define TOKEN_PATTERN    "^(0[1-9a-f]|[1-9a-f][0-9a-f])+$" // of a page: reply.c
#define QUERY_PATTERN    "^[^\\u0000-\\u001f\\u007f]*$"    // uri.c

static json_t *schema_ref(const char *shape)
{
	char text[96];
	snprintf(text, sizeof(text), "#/components/schemas/%s", shape);
	return json_pack("{s:s}", "$ref", text);
}

static json_t *words(const char *const *list)
{
	json_t *array = json_array();
	for (; *list; list++)
		json_array_append_new(array, json_string(*list));
	return array;
}

static json_t *format_schema(const char *format)
{
	if (format && strcmp(format, "address") == 0)
		return json_pack("{s:[{s:s,s:s},{s:s,s:s}]}", "anyOf", "type", "string", "format",
			"ipv4", "type", "string", "format", "ipv6");
	json_t *schema = json_pack("{s:s}", "type", "string");
	if (format == NULL)
		return schema;
	if (strcmp(format, "duration") == 0)
		json_object_set_new(schema, "pattern", json_string(DURATION_PATTERN));
	else if (strcmp(format, "name") == 0)
		json_object_set_new(schema, "pattern", json_string(NAME_PATTERN));
	else if (strcmp(format, "token") == 0)
		json_object_set_new(schema, "pattern", json_string(TOKEN_PATTERN));
	else if (strcmp(format, "date-time") == 0)
		json_object_set_new(schema, "format", json_string("date-time"));
	else
		json_object_set_new(schema, "x-format", json_string(format));
	return schema;
}

static void bounds(json_t *schema, const struct admin_field *f, const char *low, const char *high)
{
	if (f->min == 0 && f->max == 0)
		return;
	json_object_set_new(schema, low, json_integer(f->min));
	json_object_set_new(schema, high, json_integer(f->max));
}

static json_t *scalar_schema(const struct admin_field *f)
{
	json_t *schema;
	switch ((enum admin_type)f->type) {
	case ADMIN_INTEGER:
		schema = json_pack("{s:s}", "type", "integer");
		bounds(schema, f, "minimum", "maximum");
		return schema;
	case ADMIN_REAL:
		return json_pack("{s:s}", "type", "number");
	case ADMIN_BOOLEAN:
		return json_pack("{s:s}", "type", "boolean");
	case ADMIN_PORT:
		return json_pack("{s:[{s:s,s:i,s:i},{s:s}]}", "oneOf", "type", "integer", "minimum",
			1, "maximum", 65535, "type", "string");
	case ADMIN_STRING:
		schema = format_schema(f->format);
		if (f->allowed)
			json_object_set_new(schema, "enum", words(f->allowed));
		else
			bounds(schema, f, "minLength", "maxLength");
		return schema;
	default:
		return json_object();
	}
}

static json_t *field_schema(const struct admin_field *f)
{
	json_t *schema;
	switch ((enum admin_type)f->type) {
	case ADMIN_OBJECT:
		schema = schema_ref(f->of);
		break;
	case ADMIN_ARRAY:
	case ADMIN_STRINGS:
		schema = json_pack("{s:s, s:o}", "type", "array", "items",
			f->type == ADMIN_ARRAY ? schema_ref(f->of) : format_schema(f->format));
		bounds(schema, f, "minItems", "maxItems");
		break;
	case ADMIN_NUMBERS: {
		struct admin_field number = { .type = ADMIN_INTEGER, .min = f->min, .max = f->max };
		schema = json_pack("{s:s, s:o}", "type", "object", "additionalProperties",
			scalar_schema(&number));
		break;
	}
	default:
		schema = scalar_schema(f);
	}
	if (f->flags & ADMIN_NULLABLE)
		schema = json_pack("{s:[o, {s:s}]}", "anyOf", schema, "type", "null");
	if (f->flags & ADMIN_READ_ONLY)
		json_object_set_new(schema, "readOnly", json_true());
	if (f->help)
		json_object_set_new(schema, "description", json_string(f->help));
	return schema;
}

static json_t *shape_schema(const struct admin_shape *shape)
{
	json_t *properties = json_object();
	json_t *required = json_array();
	for (const struct admin_field *f = shape->fields; f->name; f++) {
		json_object_set_new(properties, f->name, field_schema(f));
		if ((f->flags & ADMIN_REQUIRED) && !(f->flags & ADMIN_READ_ONLY))
			json_array_append_new(required, json_string(f->name));
	}
	json_t *schema = json_pack("{s:s, s:s, s:o, s:b}", "type", "object", "description",
		shape->help, "properties", properties, "additionalProperties", 0);
	if (json_array_size(required))
		json_object_set_new(schema, "required", required);
	else
		json_decref(required);
	return schema;
}

static json_t *schemas(void)
{
	json_t *all = json_object();
	for (const struct admin_shape *shape = admin_shapes; shape->name; shape++)
		json_object_set_new(all, shape->name, shape_schema(shape));
	json_t *codes = json_array();
	for (int i = 0; i < PROBLEM_MAX; i++)
		json_array_append_new(codes, json_string(admin_problem_rows[i].code));
	json_t *problem = json_object_get(json_object_get(all, "Problem"), "properties");
	json_object_set_new(json_object_get(problem, "code"), "enum", codes);
	json_object_set_new(all, "Config",
		json_pack("{s:s, s:s}", "type", "object", "description",
			"one member for each group of the settings"));
	json_object_set_new(all, "Document",
		json_pack("{s:s, s:s}", "type", "object", "description", "an OpenAPI document"));
	return all;
}

// ---------------------------------------------------------------- paths
static void add_parameter(
	json_t *list, const struct admin_field *p, size_t len, const char *name, bool in_path)
{
	json_t *schema = p ? scalar_schema(p) : json_pack("{s:s}", "type", "string");
	if (in_path && p && p->format == NULL && p->type == ADMIN_STRING) {
		json_object_set_new(schema, "pattern", json_string(NAME_PATTERN));
		json_object_set_new(schema, "minLength", json_integer(1));
	}
	if (!in_path && json_object_get(schema, "maxLength") &&
		json_object_get(schema, "pattern") == NULL)
		json_object_set_new(schema, "pattern", json_string(QUERY_PATTERN));
	json_array_append_new(
		list, json_pack("{s:s%, s:s, s:b, s:s, s:o}", "name", name, len, "in",
			      in_path ? "path" : "query", "required", in_path, "description",
			      p && p->help ? p->help : "", "schema", schema));
}

static json_t *parameters(const struct admin_route *route)
{
	json_t *list = json_array();
	for (const char *at = strchr(route->path, '{'); at; at = strchr(at, '{')) {
		size_t n = strcspn(++at, "}");
		add_parameter(list, param_find(at, n), n, at, true);
	}
	for (const char *at = route->query; *at;) {
		size_t n = strcspn(at, " ");
		add_parameter(list, param_find(at, n), n, at, false);
		at += n + (at[n] == ' ');
	}
	return list;
}

static const char *status_text(unsigned int status)
{
	if (status < 300)
		return status == 201 ? "Created" : status == 204 ? "Done" : "OK";
	if (status == 304)
		return "Not modified";
	for (int i = 0; i < PROBLEM_MAX; i++) {
		if (admin_problem_rows[i].status == status)
			return admin_problem_rows[i].title;
	}
	return "Refused";
}

static json_t *response(const struct admin_route *route, unsigned int status)
{
	json_t *r = json_pack("{s:s}", "description", status_text(status));
	bool is_success = status < 300;
	const char *type = is_success ? "application/json" : "application/problem+json";
	if (status == 204 || status == 304)
		return r;
	if (route->role == ADMIN_NOBODY || (is_success && route->response == NULL)) {
		json_object_set_new(r, "content",
			json_pack("{s:{s:{s:s}}}", "text/plain", "schema", "type", "string"));
	} else {
		json_object_set_new(r, "content",
			json_pack("{s:{s:o}}", type, "schema",
				schema_ref(is_success ? route->response : "Problem")));
	}
	return r;
}

static json_t *responses(const struct admin_route *route)
{
	json_t *all = json_object();
	char key[8];
	for (const char *at = route->statuses; *at;) {
		unsigned int status = (unsigned int)strtoul(at, NULL, 10);
		snprintf(key, sizeof(key), "%u", status);
		json_object_set_new(all, key, response(route, status));
		at += strcspn(at, " ");
		at += *at == ' ';
	}
	json_object_set_new(all, "default",
		json_pack("{s:s, s:{s:{s:o}}}", "description", "Refused", "content",
			"application/problem+json", "schema", schema_ref("Problem")));
	return all;
}

static json_t *operation(const struct admin_route *route)
{
	json_t *op = json_pack("{s:s, s:s, s:o, s:o}", "operationId", route->id, "summary",
		route->summary, "parameters", parameters(route), "responses", responses(route));
	if (route->request) {
		bool optional = route->request[0] == '?';
		bool patch = strcmp(route->method, "PATCH") == 0;
		json_object_set_new(op, "requestBody",
			json_pack("{s:b, s:{s:{s:o}}}", "required", !optional, "content",
				patch ? "application/merge-patch+json" : "application/json",
				"schema", schema_ref(route->request + optional)));
	}
	if (route->role == ADMIN_NOBODY)
		json_object_set_new(op, "security", json_array());
	return op;
}

json_t *openapi_document(void)
{
	json_t *paths = json_object();
	for (const struct admin_route *route = admin_routes; route->method; route++) {
		json_t *path = json_object_get(paths, route->path);
		if (path == NULL) {
			path = json_object();
			json_object_set_new(paths, route->path, path);
		}
		char method[16];
		size_t n = 0;
		for (; route->method[n] && n + 1 < sizeof(method); n++)
			method[n] = (char)(route->method[n] | 0x20);
		method[n] = 0;
		json_object_set_new(path, method, operation(route));
	}
	return json_pack("{s:s, s:{s:s, s:s, s:s, s:{s:s}}, s:o, s:{s:o, s:{s:{s:s, s:s, s:s}}}, "
			 "s:[{s:[]}, {}]}",
		"openapi", "3.1.0", "info", "title", "sluice", "version", SLUICE_VERSION,
		"description", "Layer-4 load balancer for Kubernetes Services", "license", "name",
		"BSD-3-Clause", "paths", paths, "components", "schemas", schemas(),
		"securitySchemes", "token", "type", "http", "scheme", "bearer", "description",
		"on TCP; on the UNIX socket the kernel says who asks", "security", "token");
}
