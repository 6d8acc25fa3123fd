// SPDX-License-Identifier: BSD-3-Clause
// Field tables over a small record of every type: values and back, literals, places, printing.
#include "edits_priv.h"
#include "schema.h"

#include <errno.h>

struct small {
	char name[8];
	uint32_t weight;
};

struct sample {
	bool on;
	uint32_t number;
	uint32_t numbers_auto;
	uint64_t size;
	uint64_t time_ns;
	char text[16];
	uint32_t word;
	struct address address;
	struct small group;
	struct small items[3];
	uint32_t n_items;
	struct address addresses[2];
	uint32_t n_addresses;
};

static bool check_even(void *record, char *why, size_t len)
{
	snprintf(why, len, "even number");
	return ((struct sample *)record)->number % 2 == 0;
}

#define IN(record, member) .offset = offsetof(struct record, member)

static const char *const words[] = { "red", "green", NULL };
static const char *const soon[] = { "blue", NULL };
static const struct schema_field small_table[] = {
	{ .name = "name",
		.type = SCHEMA_TEXT,
		IN(small, name),
		.size = 8,
		.min = 1,
		.max = 7,
		.required = true,
		.default_text = "example",
		.help = "Its name." },
	{ .name = "weight",
		.type = SCHEMA_U32,
		IN(small, weight),
		.max = 9,
		.default_text = "3",
		.live = true,
		.help = "Its weight." },
	{ .name = NULL },
};
static const struct schema_field address_table[] = {
	{ .name = "", .type = SCHEMA_ADDRESS },
	{ .name = NULL },
};
static const struct schema_field table[] = {
	{ .name = "on",
		.type = SCHEMA_BOOL,
		IN(sample, on),
		.default_text = "true",
		.help = "On." },
	{ .name = "number",
		.type = SCHEMA_U32,
		IN(sample, number),
		.min = 2,
		.max = UINT32_MAX,
		.default_text = "4",
		.unit = "apples",
		.live = true,
		.check = check_even,
		.help = "How many." },
	{ .name = "queues",
		.type = SCHEMA_U32,
		IN(sample, numbers_auto),
		.min = 1,
		.max = 8,
		.auto_zero = true,
		.default_text = "auto",
		.help = "Queues." },
	{ .name = "size",
		.type = SCHEMA_SIZE,
		IN(sample, size),
		.max = UINT64_MAX,
		.default_text = "64K",
		.help = "Room." },
	{ .name = "time",
		.type = SCHEMA_DURATION,
		IN(sample, time_ns),
		.max = 3600 * CLOCK_S,
		.step = CLOCK_MS,
		.default_text = "1s",
		.help = "Time." },
	{ .name = "text",
		.type = SCHEMA_TEXT,
		IN(sample, text),
		.size = 16,
		.max = 15,
		.default_text = "a \"b\" \\c",
		.help = "Text." },
	{ .name = "colour",
		.type = SCHEMA_WORD,
		IN(sample, word),
		.words = words,
		.soon = soon,
		.default_text = "green",
		.help = "Colour." },
	{ .name = "address",
		.type = SCHEMA_ADDRESS,
		IN(sample, address),
		.default_text = "192.0.2.1",
		.help = "Address." },
	{ .name = "group",
		.type = SCHEMA_GROUP,
		IN(sample, group),
		.fields = small_table,
		.help = "A group." },
	{ .name = "items",
		.type = SCHEMA_LIST,
		IN(sample, items),
		.size = sizeof(struct small),
		.n_offset = offsetof(struct sample, n_items),
		.max = 3,
		.fields = small_table,
		.help = "Items." },
	{ .name = "addresses",
		.type = SCHEMA_LIST,
		IN(sample, addresses),
		.size = sizeof(struct address),
		.n_offset = offsetof(struct sample, n_addresses),
		.max = 2,
		.fields = address_table,
		.help = "Addresses." },
	{ .name = NULL },
};

static int read_text(
	const char *text, struct sample *out, struct schema_lines *lines, struct error *err)
{
	memset(out, 0, sizeof(*out));
	schema_set_defaults(table, out);
	return schema_read_config(table, text, strlen(text), out, lines, err);
}

static struct sample read_good(const char *text)
{
	struct sample s;
	struct error err = { 0 };
	char line[600];
	if (read_text(text, &s, NULL, &err))
		fail_msg("%s: %s", text, error_first(&err, line, sizeof(line)));
	return s;
}

// The first finding of a refused text.
static void assert_finding(const char *text, uint32_t line, const char *path, const char *says)
{
	struct sample s;
	struct error err = { .file = "f" };
	char found[600];
	assert_int_equal(read_text(text, &s, NULL, &err), -EINVAL);
	assert_true(err.n_items > 0);
	if (err.items[0].line != line || strcmp(err.items[0].path, path) ||
		!strstr(err.items[0].text, says))
		fail_msg("%s: %s", text, error_first(&err, found, sizeof(found)));
	error_fini(&err);
}

static void test_values(void **state)
{
	struct sample s =
		read_good("on = FALSE; number = 0xFFFFFFFE, queues = 8\nsize = \"1048576\"; "
			  "time = \"1h\"; text : \"\\\"#//\"; colour = \"red\";");
	assert_false(s.on);
	assert_true(s.number == 0xfffffffe);
	assert_int_equal(s.numbers_auto, 8);
	assert_true(s.size == 1048576);
	assert_true(s.time_ns == 3600 * CLOCK_S);
	assert_string_equal(s.text, "\"#//");
	assert_int_equal(s.word, 0);
	assert_string_equal(s.group.name, "example");
	s = read_good(
		"# a comment ( { \" \n/* one \" \n more */ number = 6; // the end\nqueues = "
		"\"auto\"; "
		"group = { weight = 0; name = \"x\" };\n"
		"items = ( { name = \"a\" }, { name = \"b\"; weight = 9L; } ); addresses = [];");
	assert_int_equal(s.number, 6);
	assert_int_equal(s.numbers_auto, 0);
	assert_int_equal(s.group.weight, 0);
	assert_int_equal(s.n_items, 2);
	assert_int_equal(s.items[0].weight, 3);
	assert_int_equal(s.items[1].weight, 9);
	assert_int_equal(s.n_addresses, 0);
	read_good("");
	read_good("# only a comment, without line end");
}

static void test_findings(void **state)
{
	assert_finding("\n\nnumber = 5;", 3, "number", "\"5\": allowed: even number");
	assert_finding("number = 4294967296;", 1, "number",
		"\"4294967296\": allowed: number 2..4294967295");
	assert_finding("number = 4294967298;", 1, "number", "allowed: number");  // 2 to who wraps
	assert_finding("number = 0x100000002;", 1, "number", "allowed: number"); // likewise
	assert_finding("number = 99999999999999999999999;", 1, "number", "allowed: number");
	assert_finding("number = 010;", 1, "number", "\"010\": allowed: number");
	assert_finding("number = 0x;", 1, "number", "allowed: number");
	assert_finding("number = 6LLL;", 1, "number", "allowed: number");
	assert_finding("size = \"16777216T\";", 1, "size", "allowed: size");
	assert_finding("size = \"K\";", 1, "size", "allowed: size");
	assert_finding("size = \"-1\";", 1, "size", "allowed: size");
	assert_finding("size = \"\";", 1, "size", "allowed: size");
	assert_finding("time = \"1500us\";", 1, "time", "allowed: time");
	assert_finding("time = \"auto\";", 1, "time", "allowed: time");
	assert_finding("text = \"1234567890123456\";", 1, "text", "allowed: text of 0..15");
	assert_finding("text = \"\xc3\xa4\";", 1, "text", "\"??\": allowed: text");
	assert_finding("colour = \"blue\";", 1, "colour",
		"is not supported yet; allowed today: \"red\", \"green\"");
	assert_finding("colour = \"re\";", 1, "colour", "\"re\": allowed: \"red\", \"green\"");
	assert_finding(
		"color = \"red\";", 1, "color", "did you mean \"colour\"? allowed: on, number,");
	assert_finding("items = (\n{ name = \"a\" },\n{ weight = 1 } );", 3, "items[1].name",
		"key is missing");
	assert_finding("addresses = [ \"192.0.2.1\",\n\"x\"\n];", 2, "addresses[1]",
		"\"x\": allowed: IPv4 or IPv6");
	assert_finding("addresses = [ true ];", 1, "", "allowed: a value in quotes");
	assert_finding("addresses = ( true );", 1, "addresses[0]", "true: allowed: IPv4");
	assert_finding("addresses = [ \"::1\", \"::2\", \"::3\" ];", 1, "addresses",
		"3 entries: allowed: list of at most 2");
	assert_finding("group = { weight = 1;\nweight = 2; };", 2, "", "allowed: each key once");
	assert_finding("text = \"a\n\";", 1, "", "allowed: a closing \" on its line");
	assert_finding("text = \"a", 1, "", "allowed: a closing \" on its line");
	assert_finding("text = \"a\\", 1, "", "allowed: \\\\ and \\\" only");
	assert_finding(
		"group = { weight = 1;\n\n", 3, "", "syntax error at end of file; allowed: a key");
	assert_finding("=", 1, "", "syntax error at \"=\"; allowed: a key");
	assert_finding("number", 1, "", "allowed: a key, then =");
	assert_finding("number =", 1, "", "end of file; allowed: a value");
	assert_finding("items = ( , );", 1, "", "allowed: a value");
}

static void test_lines(void **state)
{
	struct schema_lines lines = { 0 };
	struct sample s;
	assert_int_equal(read_text("number = 2;\ngroup = {\n name = \"x\";\n};\nitems = (\n{ name "
				   "= \"a\";\n},\n{\n"
				   "name = \"b\"; }\n);\naddresses = [\n\"::1\",\n\"::2\"\n\n];",
				 &s, &lines, NULL),
		0);
	assert_int_equal(schema_line_of(&lines, "number"), 1);
	assert_int_equal(schema_line_of(&lines, "group.name"), 3);
	assert_int_equal(schema_line_of(&lines, "group.weight"), 2); // not written: the group
	assert_int_equal(schema_line_of(&lines, "items[1].name"), 9);
	assert_int_equal(schema_line_of(&lines, "items[1].weight"), 8);
	assert_int_equal(schema_line_of(&lines, "items[7]"), 5);
	assert_int_equal(schema_line_of(&lines, "addresses[0]"), 12);
	assert_int_equal(schema_line_of(&lines, "addresses[1]"), 13);
	assert_int_equal(schema_line_of(&lines, "time"), 0);
	schema_lines_fini(&lines);
}

// What is printed reads as the same record, for random values.
static void test_round_trip(void **state)
{
	uint64_t random = 0x5eed0003u;
	printf("seed 0x5eed0003\n");
	for (int i = 0; i < 2000; i++) {
		struct sample s = read_good("");
		char *text = NULL;
		size_t len = 0;
		s.on = edits_random(&random, 2);
		s.number = 2 * (1 + edits_random(&random, 0x7ffffffe));
		s.numbers_auto = edits_random(&random, 9);
		s.size = (uint64_t)edits_random(&random, 1u << 31) << edits_random(&random, 33);
		s.time_ns = edits_random(&random, 3600001) * CLOCK_MS;
		s.word = edits_random(&random, 2);
		s.n_items = edits_random(&random, 4);
		for (uint32_t j = 0; j < s.n_items; j++) {
			snprintf(s.items[j].name, 8, "n%u", edits_random(&random, 1000));
			s.items[j].weight = edits_random(&random, 10);
		}
		s.n_addresses = edits_random(&random, 3);
		for (uint32_t j = 0; j < s.n_addresses; j++)
			s.addresses[j] = address_from_v4(edits_random(&random, 1u << 31));
		for (size_t j = 0, n = edits_random(&random, 15); j < 15; j++)
			s.text[j] = j < n ? (char)(0x20 + edits_random(&random, 0x5f)) : '\0';
		FILE *file = open_memstream(&text, &len);
		assert_non_null(file);
		schema_print(table, &s, i % 2, file);
		fclose(file);
		struct sample again = read_good(text);
		assert_int_equal(schema_diff(table, &s, &again, NULL, NULL), 0);
		assert_memory_equal(&s.number, &again.number, sizeof(s.number));
		assert_true(s.size == again.size && s.time_ns == again.time_ns);
		assert_string_equal(s.text, again.text);
		assert_int_equal(s.n_items, again.n_items);
		free(text);
	}
}

static void test_help(void **state)
{
	struct sample s = read_good("");
	char *text = NULL;
	size_t len = 0;
	FILE *file = open_memstream(&text, &len);
	assert_non_null(file);
	schema_print(table, &s, true, file);
	fclose(file);
	assert_non_null(strstr(text,
		"# How many.\n# number 2..4294967295, apples; default 4; live\nnumber = 4;\n"));
	assert_non_null(strstr(text,
		"# number 1..8, or \"auto\"; default \"auto\"; restart\nqueues = \"auto\";\n"));
	assert_non_null(strstr(text, "#   weight: Its weight. number 0..9; default 3; live\n"));
	assert_non_null(strstr(text, "required, for example \"example\"; restart"));
	assert_non_null(strstr(text, "text = \"a \\\"b\\\" \\\\c\";\n"));
	free(text);
}

static void test_json(void **state)
{
	struct sample s = read_good(
		"items = ( { name = \"a\" } ); addresses = [ \"192.0.2.7\" ]; size = \"3M\";");
	json_t *json = schema_to_json(table, &s);
	char *text = json_dumps(json, JSON_COMPACT);
	assert_string_equal(text,
		"{\"on\":true,\"number\":4,\"queues\":\"auto\",\"size\":\"3M\",\"time\":\"1s\","
		"\"text\":\"a \\\"b\\\" \\\\c\",\"colour\":\"green\",\"address\":\"192.0.2.1\","
		"\"group\":{\"name\":\"example\",\"weight\":3},"
		"\"items\":[{\"name\":\"a\",\"weight\":3}],\"addresses\":[\"192.0.2.7\"]}");
	free(text);
	json_decref(json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_findings),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_help),
		cmocka_unit_test(test_json),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
