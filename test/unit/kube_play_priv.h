// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// What the reflector's tests share: texts of a server for a made-up resource Thing.
#include <stdio.h>
#include <string.h>

#define PLAY_PATH "/apis/x/v1/things"

// One object, as JSON without the closing bracket of it: more members may follow.
static inline void play_object(FILE *out, const char *name, const char *version)
{
	fprintf(out,
		"{\"apiVersion\":\"x/"
		"v1\",\"kind\":\"Thing\",\"metadata\":{\"name\":\"%s\",\"namespace\":\"d\","
		"\"resourceVersion\":\"%s\"}",
		name, version);
}

static inline void play_event(FILE *out, const char *type, const char *name, const char *version)
{
	fprintf(out, "{\"type\":\"%s\",\"object\":", type);
	play_object(out, name, version);
	fputs(",\"spec\":{}}}\n", out);
}

static inline void play_bookmark(FILE *out, const char *version, int is_list_end)
{
	fprintf(out,
		"{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"Thing\",\"metadata\":{"
		"\"resourceVersion\":\"%s\"%s}}}\n",
		version,
		is_list_end ? ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}" : "");
}

static inline void play_status(FILE *out, int code, const char *reason, const char *more)
{
	fprintf(out,
		"{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Failure\",\"message\":"
		"\"m\",\"reason\":\"%s\","
		"\"code\":%d%s}",
		reason, code, more);
}
