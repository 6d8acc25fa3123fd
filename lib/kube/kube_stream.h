// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// Cuts what an API server sends into JSON values, in whatever pieces it comes. Knows brackets, strings and the grammar
// between them, not what the values mean; pure, no I/O. A public header of its own beside kube.h.
//
//   watch   {"type":"ADDED","object":{..}} {"type":..}\n{..        -> each value as soon as its last byte is there
//   list    {"kind":"ServiceList","metadata":{..},"items":[ {..} , {..} ]}
//                                                          -> each element of `items`, then the envelope without them
//
// A value is cut where JSON says that it ends, not at a newline and not at a piece. Of newlines it knows one thing: the server's
// encoder writes none inside of a value. So after something broken it goes back to the first newline that was inside of it and
// reads on from there, and what was whole is found again; a list is broken as a whole. And where `{"type":"` begins a line inside of
// a value of a watch, that value was cut off: the event is not taken for its inside.
//
// Memory: one value, at most frame_max_bytes, however many come, given back when it was a large one; a value that lies whole
// within a piece is not copied. Time: linear in the bytes (each at most KUBE_DEPTH_MAX times, and only if it is garbage made
// for that). RFC 8259; kubernetes.io API concepts, "Efficient detection of changes".

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KUBE_FRAME_MAX_BYTES (16u << 20) // of one value; etcd takes no object of more than 1.5 MiB

enum kube_stream_kind {
	KUBE_STREAM_WATCH, // values one after another
	KUBE_STREAM_LIST   // the elements of the member `items` of one object, then the rest of it
};

enum kube_frame_kind {
	KUBE_FRAME_NONE, // nothing complete yet: all bytes taken
	KUBE_FRAME_VALUE, // a watch's value (an object or an array), or an element of a list (an object)
	KUBE_FRAME_ENVELOPE,  // the list's object, with `"items":[]`; the last frame of a list
	KUBE_FRAME_TOO_LARGE, // of more than frame_max_bytes: text is how it began
	KUBE_FRAME_TOO_DEEP, // nested deeper than KUBE_DEPTH_MAX (a watch's: one more, its wrapper): likewise
	KUBE_FRAME_GARBAGE // not JSON: text is what was given up, cut where it is long
};

struct kube_frame {
	enum kube_frame_kind kind;
	const char *text; // borrowed, until the next call; not NUL-terminated
	size_t len;
};

struct kube_stream;

// frame_max_bytes: 1..KUBE_FRAME_MAX_BYTES, 0 = KUBE_FRAME_MAX_BYTES. NULL: out of memory.
struct kube_stream *kube_stream_create(enum kube_stream_kind kind, size_t frame_max_bytes);
void kube_stream_destroy(struct kube_stream *s); // NULL is fine
// For the next body: forgets everything that was fed, keeps the buffer where it is small.
void kube_stream_reset(struct kube_stream *s, enum kube_stream_kind kind);

// Takes bytes up to the end of the first frame in them and says how many; 0..len. Call again with the rest until it says
// KUBE_FRAME_NONE (with len 0 too: a frame may be waiting in what is held). A frame that was broken is told once, and bytes of it
// are never part of another, except those behind a newline in it (see above). Without a newline for 1 MiB garbage is told again for
// each MiB. Bytes behind the envelope of a list that are not blank are garbage.
// An allocation that fails is told as KUBE_FRAME_TOO_LARGE.
size_t kube_stream_feed(
	struct kube_stream *s, const char *bytes, size_t len, struct kube_frame *out);

// True: the stream ended where no value is open. False: in the middle of one (or of garbage, or a list before its end).
bool kube_stream_is_whole(const struct kube_stream *s);
// Of a list: its envelope as far as it came, to look at before the first element (the server writes kind and metadata first).
// Borrowed, until the next call; *out_len 0: nothing yet.
void kube_stream_envelope(const struct kube_stream *s, const char **out_text, size_t *out_len);
// Bytes that it holds on the heap now.
size_t kube_stream_held_bytes(const struct kube_stream *s);
