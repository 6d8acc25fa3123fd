// SPDX-License-Identifier: BSD-3-Clause
// NAT flows that need more than new addresses: PROXY header, TOA, the other family. A client and a server of a few lines talk through
// the whole step; what the server puts together must be the header and then the client's bytes.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "frames_priv.h"
#include "world_priv.h"

#define CLIENT_ISN 0xfffffff0u // wraps soon
#define SERVER_ISN 7000u
#define STREAM_MAX 8192

struct talk {
	struct world w;
	struct burst *b;
	bool is_v6; // the client's family
	bool backend_v6;
	// server's side
	uint8_t stream[STREAM_MAX];
	bool have[STREAM_MAX];
	uint32_t n_got;  // bytes in order
	uint32_t client; // initial sequence number that it saw
	// last frame that reached either end
	uint8_t frame[FRAME_MAX];
	uint32_t n_frame;
	struct packet p;
	struct address face;
	uint16_t face_port;
	uint32_t seen_ack; // by the client
};

static void talk_start(struct talk *t, bool is_v6, bool backend_v6, enum service_client_address how)
{
	memset(t, 0, sizeof(*t));
	t->is_v6 = is_v6;
	t->backend_v6 = backend_v6;
	t->b = aligned_alloc(64, (sizeof(struct burst) + 63) & ~63ul);
	memset(t->b, 0, sizeof(*t->b));
	world_init(&t->w, 64, 1024, 65535);
	t->w.shape.client_address = how;
	t->w.shape.only_family = backend_v6 ? 6 : 4;
	world_publish(&t->w, (1u << BACKENDS) - 1);
}

static void talk_end(struct talk *t)
{
	world_fini(&t->w);
	free(t->b);
}

// One frame through worker 0, which owns the whole talk when the source port does; else through the other.
static bool pass(struct talk *t, const struct frame_spec *spec)
{
	uint8_t frame[FRAME_MAX];
	size_t n = frame_build(spec, frame);
	struct rte_mbuf *mbuf = frame_mbuf_room(frame, n, 128, 64);
	struct burst *b = t->b;
	uint32_t worker = 0;
	b->hops[0] = 0;
	for (uint32_t turn = 0; turn < 2; turn++) {
		struct pipeline *p = &t->w.workers[worker];
		p->now_ns = t->w.now_ns;
		p->now_s = (uint32_t)(t->w.now_ns / CLOCK_S);
		b->n = 1;
		b->mbufs[0] = mbuf;
		pipeline_run(p, b);
		if (b->verdict[0] != PIPELINE_RESTEER)
			break;
		worker = b->out_port[0];
		b->hops[0]++;
	}
	bool sent = b->verdict[0] == PIPELINE_FORWARD;
	if (sent) {
		t->n_frame = mbuf->pkt_len;
		memcpy(t->frame, rte_pktmbuf_mtod(mbuf, char *), mbuf->pkt_len);
		packet_parse(mbuf, NULL, &t->p);
		assert_int_equal(t->p.kind, PACKET_FLOW);
		assert_true(frame_checksums_ok(t->frame, 14));
	}
	frame_mbuf_destroy(mbuf);
	return sent;
}

static const struct tcp_header *tcp(const struct talk *t)
{
	return (const void *)(t->frame + t->p.l4_offset);
}

static uint32_t payload(const struct talk *t, const uint8_t **out)
{
	uint32_t n_header = (tcp(t)->offset >> 4) * 4u;
	*out = t->frame + t->p.l4_offset + n_header;
	return t->p.l4_length - n_header;
}

// Client to server. lost: the frame is dropped on its way to the server.
static void say(struct talk *t, uint8_t flags, uint32_t offset, const char *text, bool lost)
{
	struct frame_spec spec = { .src = t->is_v6 ? "2001:db8:c::1" : "100.64.0.1",
		.dst = t->is_v6 ? "2001:db8:1::10" : "203.0.113.10",
		.is_v6 = t->is_v6,
		.protocol = NET_PROTO_TCP,
		.src_port = 5000,
		.dst_port = 80,
		.tcp_flags = flags,
		.sequence = CLIENT_ISN + offset,
		.acknowledgement = SERVER_ISN + 1,
		.payload = text,
		.n_payload = (uint16_t)strlen(text) };
	assert_true(pass(t, &spec));
	assert_int_equal(t->p.is_v6, t->backend_v6);
	t->face = t->p.src;
	t->face_port = rte_be_to_cpu_16(t->p.src_port);
	uint32_t sequence = rte_be_to_cpu_32(tcp(t)->sequence);
	if (flags & TCP_SYN)
		t->client = sequence;
	const uint8_t *bytes;
	uint32_t n = payload(t, &bytes);
	uint32_t at = sequence - t->client - 1;
	for (uint32_t i = 0; i < n && !lost; i++) {
		assert_true(at + i < STREAM_MAX);
		if (t->have[at + i])
			assert_int_equal(t->stream[at + i], bytes[i]);
		t->stream[at + i] = bytes[i];
		t->have[at + i] = true;
	}
	while (t->have[t->n_got])
		t->n_got++;
}

// Server to client: acknowledges all that came in order.
static void answer(struct talk *t, uint8_t flags, uint32_t sequence)
{
	char src[ADDRESS_TEXT_LEN], dst[ADDRESS_TEXT_LEN];
	address_format(&t->p.dst, src);
	struct address server = t->p.dst;
	uint16_t port = rte_be_to_cpu_16(t->p.dst_port);
	address_format(&t->face, dst);
	struct frame_spec spec = { .src = src,
		.dst = dst,
		.is_v6 = t->backend_v6,
		.protocol = NET_PROTO_TCP,
		.src_port = port,
		.dst_port = t->face_port,
		.tcp_flags = flags,
		.sequence = sequence,
		.acknowledgement = t->client + 1 + t->n_got };
	assert_true(pass(t, &spec));
	assert_int_equal(t->p.is_v6, t->is_v6);
	t->seen_ack = rte_be_to_cpu_32(tcp(t)->acknowledgement) - CLIENT_ISN - 1;
	// back to the server's view for the next answer
	t->p.dst = server;
	t->p.dst_port = rte_cpu_to_be_16(port);
}

static void check_proxy_header(const struct talk *t, uint32_t n)
{
	static const uint8_t signature[12] = { 0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55,
		0x49, 0x54, 0x0a };
	assert_memory_equal(t->stream, signature, sizeof(signature));
	assert_int_equal(t->stream[12], 0x21);
	assert_int_equal(t->stream[13], t->is_v6 ? 0x21 : 0x11);
	assert_int_equal(frame_get16(&t->stream[14]), n - 16);
	struct address client = address_of(t->is_v6 ? "2001:db8:c::1" : "100.64.0.1");
	const uint8_t *first = client.bytes + (t->is_v6 ? 0 : 12);
	assert_memory_equal(&t->stream[16], first, t->is_v6 ? 16 : 4);
	assert_int_equal(frame_get16(&t->stream[n - 4]), 5000);
	assert_int_equal(frame_get16(&t->stream[n - 2]), 80);
}

static void talk_proxy(bool is_v6, bool backend_v6, bool lose_first)
{
	struct talk t;
	uint32_t n = is_v6 ? 52 : 28;
	talk_start(&t, is_v6, backend_v6, SERVICE_CLIENT_PROXY_V2);
	say(&t, TCP_SYN, 0, "fast open", false);
	assert_int_equal(t.n_got, 0); // nothing before the header
	answer(&t, TCP_SYN | TCP_ACK, SERVER_ISN);
	assert_int_equal(t.seen_ack, 0);
	say(&t, TCP_ACK, 1, "", lose_first);
	assert_int_equal(t.n_got, lose_first ? 0 : n);
	say(&t, TCP_ACK | TCP_PSH, 1, "hello ", lose_first);
	if (lose_first) { // the second segment goes before the first comes again
		say(&t, TCP_ACK, 7, "wor", false);
		answer(&t, TCP_ACK, SERVER_ISN + 1);
		assert_int_equal(t.seen_ack, 0);
		say(&t, TCP_ACK, 1, "hello ", false);
	}
	answer(&t, TCP_ACK, SERVER_ISN + 1);
	assert_int_equal(t.seen_ack, lose_first ? 9 : 6);
	say(&t, TCP_ACK, 7, "world, and more", false);
	answer(&t, TCP_ACK, SERVER_ISN + 1);
	assert_int_equal(t.seen_ack, 21);
	assert_memory_equal(&t.stream[n], "hello world, and more", 21);
	check_proxy_header(&t, n);
	say(&t, TCP_ACK, 1, "hello ", false); // a late double: the stream agrees
	answer(&t, TCP_ACK, SERVER_ISN + 1);
	assert_int_equal(t.seen_ack, 21);
	talk_end(&t);
}

static void test_proxy(void **state)
{
	for (int i = 0; i < 8; i++)
		talk_proxy(i & 1, i & 2, i & 4);
}

// Options of the last frame that reached the server: the TOA one, or NULL.
static const uint8_t *find_option(const struct talk *t, uint8_t kind)
{
	const uint8_t *at = (const uint8_t *)(tcp(t) + 1);
	const uint8_t *end = t->frame + t->p.l4_offset + (tcp(t)->offset >> 4) * 4u;
	while (at < end && *at != 0) {
		if (*at == kind)
			return at;
		at += *at == 1 ? 1 : at[1];
	}
	return NULL;
}

static void talk_toa(bool is_v6, bool backend_v6)
{
	struct talk t;
	talk_start(&t, is_v6, backend_v6, SERVICE_CLIENT_TOA);
	say(&t, TCP_SYN, 0, "", false);
	assert_null(find_option(&t, 254));
	answer(&t, TCP_SYN | TCP_ACK, SERVER_ISN);
	for (int k = 0; k < 2; k++) {
		say(&t, TCP_ACK, 1, k ? "data" : "", false);
		const uint8_t *option = find_option(&t, 254);
		assert_non_null(option);
		assert_int_equal(option[1], is_v6 ? 20 : 8);
		assert_int_equal(frame_get16(option + 2), 5000);
		struct address client = address_of(is_v6 ? "2001:db8:c::1" : "100.64.0.1");
		assert_memory_equal(option + 4, client.bytes + (is_v6 ? 0 : 12), is_v6 ? 16 : 4);
	}
	answer(&t, TCP_ACK, SERVER_ISN + 1); // acknowledges data
	assert_int_equal(t.seen_ack, 4);
	say(&t, TCP_ACK, 5, "more", false);
	assert_null(find_option(&t, 254));
	talk_end(&t);
}

static void test_toa(void **state)
{
	for (int i = 0; i < 4; i++)
		talk_toa(i & 1, i & 2);
}

static void test_cross(void **state)
{
	for (int i = 0; i < 2; i++) {
		struct talk t;
		talk_start(&t, i, !i, SERVICE_CLIENT_NONE);
		say(&t, TCP_SYN, 0, "", false);
		answer(&t, TCP_SYN | TCP_ACK, SERVER_ISN);
		say(&t, TCP_ACK, 1, "some bytes", false);
		answer(&t, TCP_ACK, SERVER_ISN + 1);
		assert_int_equal(t.seen_ack, 10);
		assert_memory_equal(t.stream, "some bytes", 10);
		talk_end(&t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_proxy),
		cmocka_unit_test(test_toa),
		cmocka_unit_test(test_cross),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
