// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// What the files of sluicectl share. One run: options and words (sluicectl.c), one or more requests (client.c), the
// verb (verbs_*.c), output (output.c). No DPDK: this program runs on a machine that has none of it.

#include <curl/curl.h>
#include <jansson.h>

#include "base.h"
#include "net.h"

enum ctl_exit {
	CTL_OK = 0,
	CTL_FAILURE = 1,
	CTL_USAGE = 2,
	CTL_NOT_FOUND = 3,
	CTL_UNREACHABLE = 4,
	CTL_CONFLICT = 5,
	CTL_TIMEOUT = 6,
};

#define CTL_WORDS_MAX 16
#define CTL_DEFAULT   "/run/sluice/sluice.sock"

struct ctl {
	// words after the verb
	const char *words[CTL_WORDS_MAX];
	uint32_t n_words;
	// options
	const char *output; // "table" "json" "yaml"
	const char *server;
	const char *file;
	const char *config;
	const char *service;
	const char *backend;
	const char *client;
	const char *state;
	const char *kind;
	const char *deadline;
	const char *on_deadline;
	const char *reason;
	const char *flags;
	const char *timeout;
	const char *limit;
	const char *after;
	bool no_headers;
	bool watch;
	bool wait;
	bool all;
	bool dry_run;
	bool yes;
	bool verbose;
	bool help;
	const char *drop_reason; // the word after drops
	// client
	CURL *curl;
	bool quiet; // no message for a refusal
};

struct ctl_verb {
	const char *name;
	const char *args;    // as in help
	const char *help;    // one line
	const char *options; // names of the options it takes, blank separated
	uint32_t min_words, max_words;
	int (*run)(struct ctl *ctl); // enum ctl_exit
};
extern const struct ctl_verb ctl_verbs[]; // ends with name NULL

// ---------------------------------------------------------------- client.c
struct ctl_path {
	char text[2048];
	size_t n;
	bool has_query;
};
struct ctl_path path_make(const char *start);
void path_segment(struct ctl_path *path, const char *segment);               // escaped
void path_query(struct ctl_path *path, const char *name, const char *value); // NULL value: nothing

struct ctl_answer {
	long status; // HTTP; 0 = none came
	json_t *json;
	char *text;
	size_t n_text;
};
void answer_fini(struct ctl_answer *answer);
// Sends one request; body is borrowed, may be NULL. On a refusal prints it (unless ctl->quiet) and returns its exit
// code; out is filled either way.
int ctl_request(struct ctl *ctl, const char *method, const struct ctl_path *path,
	const json_t *body, struct ctl_answer *out);
// GET that follows the pages of a list, up to `limit` items (0 = all). NULL after a printed failure (*out_code). Gives.
json_t *ctl_get(struct ctl *ctl, const struct ctl_path *path, uint64_t limit, int *out_code);
int ctl_error(int code, const char *what, const char *cause,
	const char *try_this); // prints, returns code
void client_fini(struct ctl *ctl);

// ---------------------------------------------------------------- output.c
// A table of text; cells are copied, control characters escaped when printed.
struct ctl_table {
	char **cells;
	uint32_t n_cells, cap;
	uint32_t n_columns;
};
// "NAME STATE ..." blank separated.
void table_begin(struct ctl_table *table, const char *headers);
void table_cell(struct ctl_table *table, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void table_print(struct ctl *ctl, struct ctl_table *table); // and frees
void print_safe(FILE *out, const char *text);               // control characters as \xNN
// -o json or yaml: prints and returns true; table: false.
bool output_tree(struct ctl *ctl, const json_t *tree);
void yaml_print(FILE *out, const json_t *value, int indent);
bool output_is_known(const char *format);

const char *json_str(const json_t *object, const char *key); // "" when absent
json_int_t json_int(const json_t *object, const char *key);
const json_t *json_at(const json_t *object, const char *path); // "metadata/name"
const char *human_count(double n, char buf[16]);               // 1.2M
// "3m" since an RFC 3339 time, "-" when there is none.
const char *human_age(const char *time, char buf[16]);
// Endpoint text with brackets for IPv6.
const char *endpoint_text(
	const json_t *object, const char *address, const char *port, char buf[64]);

// ---------------------------------------------------------------- words
// "ns/name" or "name" (namespace default). false: not a name.
bool service_split(const char *text, char namespace[64], char name[64]);
// "192.0.2.1:80", "[2001:db8::1]:80", or an address alone (port 0).
bool endpoint_split(const char *text, struct address *address, uint16_t *port);

// ---------------------------------------------------------------- verbs
int verb_status(struct ctl *ctl);
int verb_get(struct ctl *ctl);
int verb_describe(struct ctl *ctl);
int verb_drain(struct ctl *ctl);
int verb_undrain(struct ctl *ctl);
int verb_weight(struct ctl *ctl);
int verb_release(struct ctl *ctl);
int verb_explain(struct ctl *ctl);
int verb_drops(struct ctl *ctl);
int verb_flows(struct ctl *ctl);
int verb_events(struct ctl *ctl);
int verb_doctor(struct ctl *ctl);
int verb_apply(struct ctl *ctl);
int verb_delete(struct ctl *ctl);
int verb_reload(struct ctl *ctl);
int verb_api(struct ctl *ctl);
int verb_version(struct ctl *ctl);
int verb_help(struct ctl *ctl);
