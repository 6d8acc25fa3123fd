// SPDX-License-Identifier: BSD-3-Clause
// The model of the cluster, told as stories: objects come and go, and after each the changes that must come of it, no more and
// no fewer. What random stories must hold to is kube_twin_test.
#include "kube_rig_priv.h"

struct story {
	const char *name;
	const char *steps[28];
	const char *zone;
	bool no_default_class;
};

// "+..." put, "-..." remove, "begin KIND", "end KIND", "unsynced" (first), "sync"; "= ..." the next change is this, "." there is none;
// of the last change: "f ..." a finding has this, "nof" there is none, "w ..." it wants this, "i ..." its record;
// "allow PREFIX" VIPs that begin so, "recheck", "refuse PREFIX", "again NAMESPACE/NAME".
static const struct story stories[] = {
#include "kube_stories_priv.h"
};

static const char *allowed_prefix; // of the running story

static bool allowed(void *arg, const char *namespace, const char *name, const struct address *vip)
{
	char text[ADDRESS_TEXT_LEN];
	return strncmp(address_format(vip, text), allowed_prefix, strlen(allowed_prefix)) == 0;
}

static uint32_t n_failed;

static void expect_text(const struct story *story, uint32_t at, const char *got, const char *wanted)
{
	if (strcmp(got, wanted) == 0)
		return;
	n_failed++;
	print_error("%s, step %u:\n  expected %s\n  got      %s\n", story->name, at, wanted, got);
}

static bool starts(const char *text, const char *word)
{
	return strncmp(text, word, strlen(word)) == 0;
}

static void play_input(struct rig *rig, const char *step)
{
	struct prefix prefix;
	if (step[0] == '+')
		rig_put(rig, step + 1);
	else if (step[0] == '-')
		rig_remove(rig, step + 1);
	else if (starts(step, "begin "))
		kube_cluster_begin(rig->cluster, rig_kinds[rig_kind(step + 6)].resource);
	else if (starts(step, "end "))
		kube_cluster_end(rig->cluster, rig_kinds[rig_kind(step + 4)].resource);
	else if (starts(step, "allow "))
		allowed_prefix = step + 6;
	else if (starts(step, "recheck"))
		kube_cluster_recheck(rig->cluster);
	else if (starts(step, "again "))
		kube_cluster_again(rig->cluster, "default", step + 6);
	else if (starts(step, "refuse ") && prefix_parse(step + 7, &prefix) == 0)
		kube_cluster_set_refused(rig->cluster, &prefix, 1);
	else if (starts(step, "sync"))
		rig_sync(rig);
	else
		fail_msg("no such step: %s", step);
}

static void play_step(struct rig *rig, const struct story *story, uint32_t at)
{
	const char *step = story->steps[at];
	if (starts(step, "= ")) {
		expect_text(story, at, rig_next(rig) ? rig->line : "no change", step + 2);
	} else if (strcmp(step, ".") == 0) {
		expect_text(story, at, rig_next(rig) ? rig->line : "no change", "no change");
	} else if (starts(step, "f ")) {
		if (strstr(rig->findings, step + 2) == NULL)
			expect_text(story, at, rig->findings, step + 2);
	} else if (strcmp(step, "nof") == 0) {
		expect_text(story, at, rig->findings, "");
	} else if (starts(step, "w ")) {
		expect_text(story, at, rig->wants, step + 2);
	} else if (starts(step, "i ")) {
		expect_text(story, at, rig->ingress, step + 2);
	} else {
		play_input(rig, step);
	}
}

static void play(const struct story *story)
{
	struct kube_cluster_config config = { .defaults = service_defaults_builtin(),
		.class_name = "sluice-lb.github.io/sluice",
		.is_default_class = !story->no_default_class,
		.zone = story->zone,
		.allowed = allowed };
	struct rig rig = { .cluster = kube_cluster_create(&config) };
	uint32_t at = 0;
	allowed_prefix = "";
	assert_non_null(rig.cluster);
	if (strcmp(story->steps[0], "unsynced"))
		rig_sync(&rig);
	else
		at++;
	for (; at < ARRAY_SIZE(story->steps) && story->steps[at]; at++)
		play_step(&rig, story, at);
	expect_text(story, at, rig_next(&rig) ? rig.line : "no change", "no change");
	kube_cluster_destroy(rig.cluster);
}

static void test_stories(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(stories); i++)
		play(&stories[i]);
	print_message("%zu stories\n", ARRAY_SIZE(stories));
	assert_int_equal(n_failed, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stories),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
