// SPDX-License-Identifier: BSD-3-Clause
// The whole step under fuzz: a sequence of packets (good ones damaged, replies, raw bytes), configuration changes and
// time. Oracles inside: the accounting identity after every packet; a TCP flow's packets all reach the backend of its first one
// while its record lives; the checksums of what goes out are right when those of what came in were.
#include <stdlib.h>

#include "../unit/frames_priv.h"
#include "../unit/world_priv.h"

#define FLOWS 64

struct input {
	const uint8_t *at;
	size_t left;
};

static uint8_t next(struct input *in)
{
	if (in->left == 0)
		return 0;
	in->left--;
	return *in->at++;
}

struct memory {
	bool known;
	struct address backend;
};

static void count_fate(struct pipeline *p, const struct burst *b)
{
	switch (b->verdict[0]) {
	case PIPELINE_FORWARD:
	case PIPELINE_REPLY:
		counters_add(p->counters, COUNTER_SENT, 1);
		break;
	case PIPELINE_PUNT:
		counters_add(p->counters, COUNTER_PUNTED, 1);
		break;
	case PIPELINE_RESTEER:
		counters_add(p->counters, COUNTER_RESTEERED_OUT, 1);
		break;
	default:
		REQUIRE(b->verdict[0] == PIPELINE_DROP);
	}
	REQUIRE(counters_imbalance(p->counters) == 0);
}

static void run_one(struct world *w, struct burst *b, struct rte_mbuf *mbuf)
{
	struct pipeline *p = &w->workers[0];
	p->now_ns = w->now_ns;
	p->now_s = (uint32_t)(w->now_ns / CLOCK_S);
	b->n = 1;
	b->mbufs[0] = mbuf;
	b->in_port[0] = 0;
	b->hops[0] = 0;
	counters_add(p->counters, COUNTER_RECEIVED, 1);
	pipeline_run(p, b);
	count_fate(p, b);
}

static const uint8_t flag_choices[] = { TCP_SYN, TCP_ACK, TCP_ACK | TCP_PSH, TCP_FIN | TCP_ACK,
	TCP_RST, TCP_SYN | TCP_ACK, 0, 0xff };

// A packet of flow k, whole or damaged. Checks the oracles on the way out.
static void step_client(struct world *w, struct input *in, struct memory *memory)
{
	static struct burst b;
	uint8_t frame[FRAME_MAX], k = next(in) % FLOWS, shape = next(in);
	char client[48];
	bool is_v6 = k & 1;
	snprintf(client, sizeof(client), is_v6 ? "2001:db8:c::%u" : "100.64.0.%u", k + 1);
	struct frame_spec spec = {
		.src = client,
		.dst = is_v6 ? "2001:db8:1::10" : "203.0.113.10",
		.is_v6 = is_v6,
		.protocol = k & 2 ? NET_PROTO_UDP : NET_PROTO_TCP,
		.src_port = (uint16_t)(4000 + k),
		.dst_port = k & 2 ? 53 : 80,
		.tcp_flags = flag_choices[shape & 7],
		.ttl = shape & 8 ? 1 : 64,
		.n_payload = next(in),
	};
	size_t n = frame_build(&spec, frame);
	bool damaged = shape & 16;
	for (int d = 0; damaged && d < 3; d++)
		frame[next(in) % n] ^= next(in);
	if (shape & 32) {
		damaged = true;
		n = 1 + (size_t)next(in) * n / 256;
	}
	struct rte_mbuf *mbuf =
		shape & 64 && n > 70 ? frame_mbuf_split(frame, n, 70) : frame_mbuf(frame, n);
	run_one(w, &b, mbuf);
	if (b.verdict[0] == PIPELINE_FORWARD && !damaged) {
		struct packet out;
		packet_parse(mbuf, NULL, &out);
		REQUIRE(out.kind == PACKET_FLOW && packet_l4_checksum_ok(mbuf, &out));
		if (!(k & 2) && spec.tcp_flags != TCP_SYN && memory[k].known)
			REQUIRE(address_equal(&out.dst, &memory[k].backend));
		memory[k] = (struct memory){ true, out.dst };
	}
	frame_mbuf_destroy(mbuf);
}

// Whatever a backend might send to a SNAT address.
static void step_backend(struct world *w, struct input *in)
{
	static struct burst b;
	uint8_t frame[FRAME_MAX], shape = next(in);
	char src[48];
	bool is_v6 = shape & 1;
	snprintf(src, sizeof(src), is_v6 ? "2001:db8:9::%u" : "10.9.0.%u", shape % BACKENDS + 2);
	struct frame_spec spec = {
		.src = src,
		.dst = is_v6 ? "2001:db8::1" : "192.0.2.1",
		.is_v6 = is_v6,
		.protocol = shape & 2 ? NET_PROTO_UDP : NET_PROTO_TCP,
		.src_port = shape & 2 ? 5353 : 8080,
		.dst_port = (uint16_t)(1024 + next(in) * 4),
		.tcp_flags = flag_choices[shape >> 5],
		.n_payload = 8,
	};
	size_t n = frame_build(&spec, frame);
	struct rte_mbuf *mbuf = frame_mbuf(frame, n);
	run_one(w, &b, mbuf);
	frame_mbuf_destroy(mbuf);
}

static void step_raw(struct world *w, struct input *in)
{
	static struct burst b;
	uint8_t frame[256];
	size_t n = 1 + next(in) % 200;
	for (size_t i = 0; i < n; i++)
		frame[i] = next(in);
	struct rte_mbuf *mbuf = frame_mbuf_room(frame, n, next(in), next(in));
	run_one(w, &b, mbuf);
	frame_mbuf_destroy(mbuf);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	struct world w;
	struct memory memory[FLOWS] = { 0 };
	struct input in = { bytes, n };
	world_init(&w, 48, 1024, 2047);
	while (in.left > 0) {
		uint8_t what = next(&in);
		switch (what % 8) {
		case 0:
			w.now_ns += (uint64_t)next(&in) * next(&in) * (CLOCK_S / 16);
			memset(memory, 0, sizeof(memory)); // records may have aged away
			break;
		case 1:
			world_publish(&w, 1 + next(&in) % 63u);
			break;
		case 2:
			step_raw(&w, &in);
			break;
		case 3:
			step_backend(&w, &in);
			break;
		case 4:
			w.workers[0].now_s = (uint32_t)(w.now_ns / CLOCK_S);
			pipeline_housekeep(&w.workers[0], next(&in));
			break;
		default: {
			uint64_t gone = w.counters[0].values[COUNTER_FLOWS_EVICTED] +
					w.counters[0].values[COUNTER_FLOWS_CLOSED] +
					w.counters[0].values[COUNTER_FLOWS_EXPIRED] +
					w.counters[0].values[COUNTER_FLOWS_REPICKED];
			step_client(&w, &in, memory);
			uint64_t after = w.counters[0].values[COUNTER_FLOWS_EVICTED] +
					 w.counters[0].values[COUNTER_FLOWS_CLOSED] +
					 w.counters[0].values[COUNTER_FLOWS_EXPIRED] +
					 w.counters[0].values[COUNTER_FLOWS_REPICKED];
			if (after != gone) // a flow ended: its next packet may begin another
				memset(memory, 0, sizeof(memory));
		}
		}
	}
	world_fini(&w);
	return 0;
}
