// SPDX-License-Identifier: BSD-3-Clause
// A pipeline that does what the frame says. Behind the Ethernet header: the number of steps done, then pairs of
// an operation and its argument, one pair for each time the frame passes here.
//   F port · P class · D · R worker · W entry (255: none yet) · A backend id (adds a flow, drops the frame)
//   V entry: it becomes valid, then forward by it, to port 0 · B entry: forward by it, whatever its state
//   H: writes into the frame how many workers had it before, then as P 0
#include "dataplane_fake.h"

#include <stdio.h>

void pipeline_init(struct pipeline *p)
{
	p->policies_generation = UINT64_MAX;
}

static void add_flow(struct pipeline *p, uint8_t backend_id)
{
	struct flow_record r = { .client = address_from_v4(rte_cpu_to_be_32(0x0a000001)),
		.backend = address_from_v4(rte_cpu_to_be_32(0x0a000100u + backend_id)),
		.client_port = rte_cpu_to_be_16((uint16_t)(1000 + p->flows.n_flows)),
		.vip_port = RTE_BE16(80),
		.backend_port = RTE_BE16(8080),
		.protocol = NET_PROTO_TCP,
		.state = FLOW_STATE_ESTABLISHED,
		.backend_id = backend_id,
		.stamp_s = p->now_s };
	if (backend_id == 9) // another client
		r.client = address_from_v4(rte_cpu_to_be_32(0x0a000009));
	snat_alloc(p->snat, &r.backend, r.backend_port, r.protocol, 0, &r.snat_slot, &r.snat_port);
	flow_add(&p->flows, &r);
}

static const struct mac fake_mac = { { 0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0xee } };

static void one_step(struct pipeline *p, struct burst *b, uint32_t i)
{
	uint8_t *frame = rte_pktmbuf_mtod(b->mbufs[i], uint8_t *);
	uint8_t *step = &frame[FAKE_SCRIPT + 1 + 2 * frame[FAKE_SCRIPT]];
	frame[FAKE_SCRIPT]++;
	uint8_t argument = step[1];
	b->verdict[i] = PIPELINE_DROP;
	b->out_port[i] = argument;
	b->was_reply[i] = false;
	switch (step[0]) {
	case 'F':
		b->verdict[i] = PIPELINE_FORWARD;
		b->nexthop[i] = NEXTHOP_NONE;
		return;
	case 'V':
		nexthop_store(&p->nexthops, argument, &fake_mac, 0, NEXTHOP_VALID);
		__attribute__((fallthrough));
	case 'B':
		b->verdict[i] = PIPELINE_FORWARD;
		b->nexthop[i] = argument;
		b->out_port[i] = 0;
		memcpy(frame, fake_mac.bytes, sizeof(fake_mac));
		return;
	case 'P':
		b->verdict[i] = PIPELINE_PUNT;
		b->punt_class[i] = argument;
		return;
	case 'H':
		frame[FAKE_HOPS] = b->hops[i];
		b->verdict[i] = PIPELINE_PUNT;
		b->punt_class[i] = 0;
		return;
	case 'R':
		b->verdict[i] = PIPELINE_RESTEER;
		return;
	case 'W':
		b->verdict[i] = PIPELINE_WAIT;
		b->out_port[i] = 0;
		b->nexthop[i] = argument == 255 ? NEXTHOP_MISSING : argument;
		b->want[i] = address_from_v4(rte_cpu_to_be_32(FAKE_NEIGHBOUR + argument));
		return;
	case 'A':
		add_flow(p, argument);
		break;
	}
	counters_drop(p->counters, DROP_NO_BACKEND, 1);
}

void pipeline_run(struct pipeline *p, struct burst *b)
{
	for (uint32_t i = 0; i < b->n; i++)
		one_step(p, b, i);
}

uint32_t pipeline_housekeep(struct pipeline *p, uint32_t max_records)
{
	p->slice_done = max_records;
	return 0;
}

void pipeline_explain(const struct pipeline *p, const struct pipeline_question *q,
	struct pipeline_explanation *out)
{
	snprintf(out->steps[0].text, sizeof(out->steps[0].text), "port %u", q->dst_port);
	out->n_steps = 1;
}

void pipeline_take_released(struct pipeline *p, struct burst *b)
{
}

uint32_t pipeline_expire_held(
	struct pipeline *p, uint64_t now_ns, struct rte_mbuf **out, uint32_t max)
{
	return 0;
}

void pipeline_show_flow(
	const struct pipeline *p, const struct flow_record *r, struct flow_record *out)
{
	*out = *r;
}

bool pipeline_show_entry(const struct pipeline *p, uint32_t ref, struct flow_record *out)
{
	return false;
}
