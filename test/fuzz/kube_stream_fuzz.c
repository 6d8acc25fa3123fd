// SPDX-License-Identifier: BSD-3-Clause
// Bodies of watches and lists from anybody: the same frames whatever the pieces, and what a parser takes as a value the stream does too.
//
//   byte 0  bit 0: list; bits 1..3: the cap, 0 = the default, else 16 << n   byte 1  seed of the cuts   rest  the body
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kube.h"
#include "kube_stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

struct piece {
	const char *text;
	size_t len;
	size_t most; // bytes of one call, 0 = all
	uint32_t seed;
};

// Frames one behind another; of broken ones only that they are there.
static char *frames(enum kube_stream_kind kind, size_t frame_max, struct piece p, size_t *out_len)
{
	char *story = NULL;
	FILE *out = open_memstream(&story, out_len);
	struct kube_stream *s = kube_stream_create(kind, frame_max);
	if (out == NULL || s == NULL)
		abort();
	struct kube_frame frame;
	do {
		p.seed = p.seed * 1664525u + 1013904223u;
		size_t n = p.most ? 1 + (p.seed >> 16) % p.most : p.len;
		n = n < p.len ? n : p.len;
		char *exact = malloc(n ? n : 1);
		memcpy(exact, p.text, n);
		size_t n_taken = kube_stream_feed(s, exact, n, &frame);
		if (n_taken > n)
			abort();
		if (frame.kind != KUBE_FRAME_NONE)
			fputc("?VELDG"[frame.kind], out);
		if (frame.kind == KUBE_FRAME_VALUE || frame.kind == KUBE_FRAME_ENVELOPE)
			fwrite(frame.text, 1, frame.len, out);
		free(exact);
		p.text += n_taken;
		p.len -= n_taken;
		if (kube_stream_held_bytes(s) > 3 * (frame_max ? frame_max : KUBE_FRAME_MAX_BYTES))
			abort();
	} while (p.len || frame.kind != KUBE_FRAME_NONE);
	fputs(kube_stream_is_whole(s) ? "whole" : "open", out);
	fclose(out);
	kube_stream_destroy(s);
	return story;
}

static size_t depth_of(const json_t *json)
{
	size_t most = 0, i;
	const char *key;
	json_t *inner;
	json_array_foreach(json, i, inner)
	{
		size_t depth = depth_of(inner);
		most = depth > most ? depth : most;
	}
	json_object_foreach((json_t *)json, key, inner)
	{
		size_t depth = depth_of(inner);
		most = depth > most ? depth : most;
	}
	return json_is_array(json) || json_is_object(json) ? most + 1 : 0;
}

// What a parser takes as one value, the stream gives as one.
static void check_value(const char *text, size_t len)
{
	static const char mark[] = "\n{\"type\":\"";
	if (memchr(text, 0, len))
		return; // jansson loses a NUL that stands behind a number: it takes `[3\0]`
	json_t *json = json_loadb(text, len, JSON_ALLOW_NUL, NULL);
	size_t n = len;
	bool is_counted = json && depth_of(json) <= KUBE_DEPTH_MAX &&
			  !memmem(text, len, mark, sizeof(mark) - 1);
	json_decref(json);
	if (!is_counted)
		return;
	char *story = frames(KUBE_STREAM_WATCH, 0, (struct piece){ text, len, 0, 0 }, &n);
	while (len && strchr(" \t\r\n", *text)) {
		text++;
		len--;
	}
	while (len && strchr(" \t\r\n", text[len - 1]))
		len--;
	if (n != len + 6 || story[0] != 'V' || memcmp(story + 1, text, len))
		abort();
	free(story);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	if (size < 2)
		return 0;
	enum kube_stream_kind kind = bytes[0] & 1 ? KUBE_STREAM_LIST : KUBE_STREAM_WATCH;
	size_t frame_max = bytes[0] >> 1 & 7 ? 16u << (bytes[0] >> 1 & 7) : 0, n_whole, n_cut;
	struct piece whole = { (const char *)bytes + 2, size - 2, 0, 0 };
	struct piece cut = { (const char *)bytes + 2, size - 2, 1 + bytes[1] % 40, bytes[1] };
	char *a = frames(kind, frame_max, whole, &n_whole);
	char *b = frames(kind, frame_max, cut, &n_cut);
	if (n_whole != n_cut || memcmp(a, b, n_whole))
		abort();
	free(a);
	free(b);
	check_value(whole.text, whole.len);
	return 0;
}
