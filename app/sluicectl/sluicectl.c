// SPDX-License-Identifier: BSD-3-Clause
// sluicectl: the operator's command line. The table of verbs below is the only list of them: parsing and help come
// from it. A verb or a noun may be shortened to anything unambiguous.
//
// Exit: 0 ok, 1 failure, 2 usage, 3 not found, 4 cannot reach the daemon, 5 conflict, 6 timeout.
#include "ctl_priv.h"

#include <stdlib.h>

const struct ctl_verb ctl_verbs[] = {
	{ "status", "", "the daemon at a glance: ready, ports, workers, drops", "", 0, 0,
		verb_status },
	{ "get", "services|backends|ports|workers|drops|flows|events|config [NAME]",
		"list objects, or one of them", "service backend client state limit all kind after",
		1, 2, verb_get },
	{ "describe", "service NS/NAME | backend ADDRESS", "everything about one object", "service",
		2, 3, verb_describe },
	{ "drain", "[SERVICE] ADDRESS[:PORT]", "no new flows for a backend; its flows go on",
		"service deadline on-deadline reason wait timeout dry-run yes", 1, 3, verb_drain },
	{ "undrain", "[SERVICE] ADDRESS[:PORT]", "take a drain back", "service dry-run", 1, 3,
		verb_undrain },
	{ "weight", "[SERVICE] ADDRESS[:PORT] N|default", "the operator's weight of a backend",
		"service dry-run", 2, 4, verb_weight },
	{ "release", "[service] NS/NAME",
		"let go of backends that are kept although they vanished from the cluster", "", 1,
		2, verb_release },
	{ "explain", "tcp|udp|icmp SOURCE[:PORT] DESTINATION[:PORT]",
		"what would happen to a packet, step by step", "flags", 3, 3, verb_explain },
	{ "drops", "[REASON]", "packets dropped, why, and what to look at", "watch all", 0, 1,
		verb_drops },
	{ "flows", "", "live flows", "service backend client limit all", 0, 0, verb_flows },
	{ "events", "", "the journal: what changed, when and why", "watch after kind limit", 0, 0,
		verb_events },
	{ "doctor", "", "is this machine fit; needs no daemon", "config", 0, 0, verb_doctor },
	{ "apply", "", "create or replace services from a file", "file dry-run", 0, 0, verb_apply },
	{ "delete", "[service] [NS/NAME]", "remove services made over REST", "file dry-run", 0, 2,
		verb_delete },
	{ "reload", "", "read configuration and services file again", "", 0, 0, verb_reload },
	{ "api", "", "print the OpenAPI document", "", 0, 0, verb_api },
	{ "version", "", "of this program and of the daemon", "", 0, 0, verb_version },
	{ "help", "[VERB]", "this, or more about a verb", "", 0, 1, verb_help },
	{ NULL },
};

// ---------------------------------------------------------------- options
enum option_target { OPT_TEXT, OPT_FLAG };
struct ctl_option {
	const char *name;
	char letter;
	enum option_target target;
	size_t offset; // in struct ctl
	const char *value;
	const char *help;
	bool everywhere; // taken by every verb
};

#define TEXT(n, l, field, v, h)                                          \
	{                                                                \
		n, l, OPT_TEXT, offsetof(struct ctl, field), v, h, false \
	}
#define FLAG(n, l, field, h)                                              \
	{                                                                 \
		n, l, OPT_FLAG, offsetof(struct ctl, field), "", h, false \
	}
#define ALL_TEXT(n, l, field, v, h)                                     \
	{                                                               \
		n, l, OPT_TEXT, offsetof(struct ctl, field), v, h, true \
	}
#define ALL_FLAG(n, l, field, h)                                         \
	{                                                                \
		n, l, OPT_FLAG, offsetof(struct ctl, field), "", h, true \
	}
static const struct ctl_option options[] = {
	ALL_TEXT("output", 'o', output, "table|json|yaml", "form of the output"),
	ALL_TEXT("server", 0, server, "PATH|URL",
		"socket or http:// address; default SLUICE_SERVER, " CTL_DEFAULT),
	ALL_FLAG("no-headers", 0, no_headers, "tables without their first line"),
	ALL_FLAG("verbose", 'v', verbose, "show requests"),
	ALL_FLAG("help", 'h', help, "help on the verb"),
	TEXT("file", 'f', file, "FILE", "JSON of one service or a list; - reads standard input"),
	TEXT("config", 'c', config, "FILE", "default /etc/sluice/sluice.conf"),
	TEXT("service", 0, service, "NS/NAME", "of this service"),
	TEXT("backend", 0, backend, "ADDRESS", "of this backend"),
	TEXT("client", 0, client, "ADDRESS", "of this client"),
	TEXT("state", 0, state, "up|down|draining", "in this state"),
	TEXT("kind", 0, kind, "WORD", "of this kind"),
	TEXT("deadline", 0, deadline, "TIME", "end of the drain: 5m, or an RFC 3339 time"),
	TEXT("on-deadline", 0, on_deadline, "keep|reset",
		"what then happens to the flows that are left"),
	TEXT("reason", 0, reason, "TEXT", "kept with the drain, for others to read"),
	TEXT("flags", 0, flags, "LETTERS", "TCP flags of the packet: FSRPAU; default S"),
	TEXT("timeout", 0, timeout, "TIME", "of --wait; default 10m"),
	TEXT("limit", 0, limit, "N", "at most so many"),
	TEXT("after", 0, after, "ID", "newer than this event"),
	FLAG("watch", 'w', watch, "go on until interrupted"),
	FLAG("wait", 0, wait, "until no flow is left"),
	FLAG("all", 'A', all, "all of them"),
	FLAG("dry-run", 0, dry_run, "check only"),
	FLAG("yes", 'y', yes, "do not ask"),
};

static bool word_listed(const char *list, const char *word)
{
	size_t n = strlen(word);
	for (const char *at = list; (at = strstr(at, word)) != NULL; at += n) {
		if ((at == list || at[-1] == ' ') && (at[n] == ' ' || at[n] == 0))
			return true;
	}
	return false;
}

static int usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static int usage(const char *fmt, ...)
{
	char what[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return ctl_error(CTL_USAGE, what, NULL, "sluicectl help");
}

static const struct ctl_option *option_find(const char *text, size_t n)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		const struct ctl_option *o = &options[i];
		if (n == 1 && o->letter == text[0])
			return o;
		if (n > 1 && strlen(o->name) == n && strncmp(o->name, text, n) == 0)
			return o;
	}
	return NULL;
}

static const char *option_near(const char *text)
{
	const char *names[ARRAY_SIZE(options)];
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		names[i] = options[i].name;
	return error_nearest(text, names, ARRAY_SIZE(options));
}

// One option at argv[*at]; moves *at over its value. Marks it in seen.
static int option_take(struct ctl *ctl, int argc, char **argv, int *at, uint32_t *seen)
{
	const char *text = argv[*at];
	bool is_long = text[1] == '-';
	const char *name = text + 1 + is_long;
	size_t n = is_long ? strcspn(name, "=") : 1;
	const struct ctl_option *o = option_find(name, n);
	if (o == NULL || (is_long && n == 1)) {
		const char *near = option_near(name);
		return usage("unknown option %s%s%s%s", text, near ? ", did you mean --" : "",
			near ? near : "", near ? "?" : "");
	}
	*seen |= 1u << (o - options);
	const char *value =
		is_long ? (name[n] == '=' ? name + n + 1 : NULL) : (name[1] ? name + 1 : NULL);
	char *field = (char *)ctl + o->offset;
	if (o->target == OPT_FLAG) {
		if (value)
			return usage("%s takes no value", text);
		*(bool *)(void *)field = true;
		return 0;
	}
	if (value == NULL && *at + 1 < argc)
		value = argv[++*at];
	if (value == NULL)
		return usage("%s needs a value: %s", text, o->value);
	*(const char **)(void *)field = value;
	return 0;
}

// ---------------------------------------------------------------- help
static void option_print(const struct ctl_option *o)
{
	char left[64];
	snprintf(left, sizeof(left), "%c%c%s --%s%s%s", o->letter ? '-' : ' ',
		o->letter ? o->letter : ' ', o->letter ? "," : " ", o->name, o->value[0] ? " " : "",
		o->value);
	printf("  %-34s %s\n", left, o->help);
}

static void verb_print(const struct ctl_verb *verb)
{
	printf("sluicectl %s%s%s\n\n  %s\n", verb->name, verb->args[0] ? " " : "", verb->args,
		verb->help);
	if (verb->options[0])
		printf("\nOptions:\n");
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		if (word_listed(verb->options, options[i].name))
			option_print(&options[i]);
	}
	printf("\nEverywhere:\n");
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		if (options[i].everywhere)
			option_print(&options[i]);
	}
}

// The verb of a word or of an unambiguous beginning; NULL after a message.
static const struct ctl_verb *verb_find(const char *word)
{
	const struct ctl_verb *found = NULL;
	const char *names[32];
	size_t n_names = 0, n_found = 0;
	for (const struct ctl_verb *v = ctl_verbs; v->name; v++) {
		names[n_names++] = v->name;
		if (strcmp(v->name, word) == 0)
			return v;
		if (strncmp(v->name, word, strlen(word)) == 0) {
			found = v;
			n_found++;
		}
	}
	if (n_found == 1)
		return found;
	const char *near = error_nearest(word, names, n_names);
	if (n_found > 1)
		usage("%s: could be more than one verb", word);
	else
		usage("unknown verb %s%s%s%s", word, near ? ", did you mean " : "",
			near ? near : "", near ? "?" : "");
	return NULL;
}

int verb_help(struct ctl *ctl)
{
	if (ctl->n_words) {
		const struct ctl_verb *verb = verb_find(ctl->words[0]);
		if (verb)
			verb_print(verb);
		return verb ? CTL_OK : CTL_USAGE;
	}
	printf("sluicectl VERB [WORDS] [OPTIONS]\n\n");
	for (const struct ctl_verb *v = ctl_verbs; v->name; v++)
		printf("  %-9s %s\n", v->name, v->help);
	printf("\nsluicectl help VERB says more. Exit: 0 ok, 1 failure, 2 usage, 3 not found,\n"
	       "4 daemon not reached, 5 conflict, 6 timeout.\n");
	return CTL_OK;
}

// ---------------------------------------------------------------- main
static int line_read(struct ctl *ctl, int argc, char **argv, const char **out_verb, uint32_t *seen)
{
	bool only_words = false;
	for (int i = 1; i < argc; i++) {
		if (!only_words && strcmp(argv[i], "--") == 0) {
			only_words = true;
		} else if (!only_words && argv[i][0] == '-' && argv[i][1] != 0) {
			int code = option_take(ctl, argc, argv, &i, seen);
			if (code != 0)
				return code;
		} else if (*out_verb == NULL) {
			*out_verb = argv[i];
		} else if (ctl->n_words == CTL_WORDS_MAX) {
			return usage("too many words");
		} else {
			ctl->words[ctl->n_words++] = argv[i];
		}
	}
	return output_is_known(ctl->output) ? 0 : usage("-o %s: table, json or yaml", ctl->output);
}

static int line_check(const struct ctl *ctl, const struct ctl_verb *verb, uint32_t seen)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		if ((seen & 1u << i) && !options[i].everywhere &&
			!word_listed(verb->options, options[i].name))
			return usage("%s takes no --%s", verb->name, options[i].name);
	}
	if (ctl->n_words < verb->min_words || ctl->n_words > verb->max_words)
		return usage("sluicectl %s%s%s", verb->name, verb->args[0] ? " " : "", verb->args);
	return 0;
}

int main(int argc, char **argv)
{
	struct ctl ctl = { .output = "table" };
	const char *word = NULL;
	uint32_t seen = 0;
	_Static_assert(ARRAY_SIZE(options) <= 32, "one bit each");
	int code = line_read(&ctl, argc, argv, &word, &seen);
	if (code != 0)
		return code;
	if (word == NULL) {
		verb_help(&ctl);
		return ctl.help ? CTL_OK : CTL_USAGE;
	}
	const struct ctl_verb *verb = verb_find(word);
	if (verb == NULL)
		return CTL_USAGE;
	if (ctl.help) {
		verb_print(verb);
		return CTL_OK;
	}
	code = line_check(&ctl, verb, seen);
	if (code == 0)
		code = verb->run(&ctl);
	client_fini(&ctl);
	if (fflush(stdout) != 0 && code == 0)
		code = CTL_FAILURE;
	return code;
}
