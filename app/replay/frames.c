// SPDX-License-Identifier: BSD-3-Clause
// Frames of a capture as mbufs: each segment over a block of its own that is not a byte longer than asked for, so that a sanitizer
// sees each read or write beyond. How a frame lies in memory is the same for all, or told by --layout, frame by frame.
#include "replay_priv.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define LINE_MAX_BYTES 256
#define HEADROOM       128 // what DPDK leaves before a received frame
#define FILL           0xa5

static const struct replay_layout plain = { .headroom = HEADROOM, .fill = FILL };

// ---------------------------------------------------------------- layouts
static int number_parse(char **at, uint32_t max, uint32_t *out)
{
	char *end;
	if (**at < '0' || **at > '9')
		return -EINVAL;
	unsigned long value = strtoul(*at, &end, 0);
	if (value > max)
		return -EINVAL;
	*out = (uint32_t)value;
	*at = end;
	return 0;
}

static int segments_parse(char **at, struct replay_layout *out)
{
	for (;;) {
		uint32_t length;
		if (out->n_segments == REPLAY_SEGMENTS_MAX - 1 ||
			number_parse(at, UINT16_MAX, &length) != 0 || length == 0)
			return -EINVAL;
		out->segments[out->n_segments++] = (uint16_t)length;
		if (**at != ',')
			return 0;
		(*at)++;
	}
}

static int word_parse(char *word, struct replay_layout *out)
{
	uint32_t value = 0;
	char *at = strchr(word, '=');
	if (at == NULL)
		return -EINVAL;
	*at++ = 0;
	int rc = -EINVAL;
	if (strcmp(word, "headroom") == 0) {
		rc = number_parse(&at, REPLAY_ROOM_MAX, &value);
		out->headroom = (uint16_t)value;
	} else if (strcmp(word, "tailroom") == 0) {
		rc = number_parse(&at, REPLAY_ROOM_MAX, &value);
		out->tailroom = (uint16_t)value;
	} else if (strcmp(word, "fill") == 0) {
		rc = number_parse(&at, UINT8_MAX, &value);
		out->fill = (uint8_t)value;
	} else if (strcmp(word, "segments") == 0) {
		rc = segments_parse(&at, out);
	}
	return rc == 0 && *at == 0 ? 0 : -EINVAL;
}

static int layout_parse(char *line, struct replay_layout *out)
{
	char *rest = NULL;
	*out = plain;
	for (char *word = strtok_r(line, " \t\n", &rest); word;
		word = strtok_r(NULL, " \t\n", &rest))
		if (word_parse(word, out) != 0)
			return -EINVAL;
	return 0;
}

int replay_layouts_load(const char *path, struct replay_layouts *out, struct error *err)
{
	FILE *file = fopen(path, "r");
	if (file == NULL)
		return error_add(err, errno, path, "cannot be read: %s", strerror(errno));
	char line[LINE_MAX_BYTES];
	int rc = 0;
	while (rc == 0 && fgets(line, sizeof(line), file)) {
		rc = array_grow(out->items, out->n_items, out->cap);
		if (rc == 0)
			rc = layout_parse(line, &out->items[out->n_items++]);
	}
	fclose(file);
	if (rc == -ENOMEM)
		return error_add(err, ENOMEM, path, "out of memory");
	if (rc != 0 || out->n_items == 0)
		return error_add(err, EINVAL, path,
			"line %u: want words headroom=N tailroom=N (0..%u) fill=BYTE segments=N,N "
			"(1..%u)",
			out->n_items, REPLAY_ROOM_MAX, REPLAY_SEGMENTS_MAX - 1);
	return 0;
}

void replay_layouts_fini(struct replay_layouts *layouts)
{
	free(layouts->items);
	*layouts = (struct replay_layouts){ 0 };
}

const struct replay_layout *replay_layout_of(const struct replay_layouts *layouts, uint64_t idx)
{
	if (layouts->n_items == 0)
		return &plain;
	return &layouts->items[idx < layouts->n_items ? idx : layouts->n_items - 1];
}

// ---------------------------------------------------------------- frames
static int segment_add(struct replay_frame *frame, const uint8_t *bytes, uint16_t length,
	uint16_t headroom, const struct replay_layout *layout)
{
	size_t size = (size_t)headroom + length + layout->tailroom;
	uint8_t *block = malloc(size ? size : 1);
	if (block == NULL)
		return -ENOMEM;
	memset(block, layout->fill, size);
	memcpy(block + headroom, bytes, length);
	struct rte_mbuf *mbuf = &frame->segments[frame->n_segments];
	mbuf->buf_addr = block;
	mbuf->buf_len = (uint16_t)size;
	mbuf->data_off = headroom;
	mbuf->data_len = length;
	mbuf->nb_segs = 1;
	mbuf->refcnt = 1;
	if (frame->n_segments > 0)
		mbuf[-1].next = mbuf;
	frame->blocks[frame->n_segments++] = block;
	return 0;
}

struct rte_mbuf *replay_frame_create(
	const uint8_t *bytes, uint32_t length, const struct replay_layout *layout)
{
	struct replay_frame *frame =
		aligned_alloc(RTE_CACHE_LINE_SIZE, RTE_ALIGN(sizeof(*frame), RTE_CACHE_LINE_SIZE));
	if (frame == NULL)
		return NULL;
	memset(frame, 0, sizeof(*frame));
	uint32_t at = 0, n = 0;
	int rc = 0;
	do {
		uint32_t left = length - at;
		uint32_t here = n < layout->n_segments ? layout->segments[n] : left;
		here = here < left ? here : left;
		rc = segment_add(
			frame, bytes + at, (uint16_t)here, n ? 0 : layout->headroom, layout);
		at += here;
		n++;
	} while (rc == 0 && at < length);
	frame->segments[0].pkt_len = length;
	frame->segments[0].nb_segs = (uint16_t)frame->n_segments;
	if (rc == 0)
		return &frame->segments[0];
	replay_frame_destroy(&frame->segments[0]);
	return NULL;
}

void replay_frame_destroy(struct rte_mbuf *mbuf)
{
	struct replay_frame *frame = replay_frame_of(mbuf);
	for (uint32_t i = 0; i < frame->n_segments; i++)
		free(frame->blocks[i]);
	free(frame);
}

uint32_t replay_frame_gather(const struct rte_mbuf *mbuf, uint8_t *out)
{
	uint32_t n = 0, n_segments = 0;
	for (const struct rte_mbuf *s = mbuf; s; s = s->next, n_segments++) {
		assert(s->data_off + s->data_len <= s->buf_len && n + s->data_len <= mbuf->pkt_len);
		memcpy(out + n, rte_pktmbuf_mtod(s, const uint8_t *), s->data_len);
		n += s->data_len;
	}
	assert(n == mbuf->pkt_len && n_segments == mbuf->nb_segs);
	return n;
}
