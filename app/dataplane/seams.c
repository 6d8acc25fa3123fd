// SPDX-License-Identifier: BSD-3-Clause
// Control's side of the seams: publish, grace periods, mail, punted and injected frames, wanted next hops.
//
// Control is called through an eventfd, once for any number of things posted: it is called again only after it found
// a ring empty (control_rests). A reader that stops at its own limit calls itself.
#include "dataplane_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int dataplane_event_fd(const struct dataplane *dp)
{
	return dp->event_fd;
}

// ---------------------------------------------------------------- snapshot

void dataplane_publish(struct dataplane *dp, const struct snapshot *snapshot)
{
	// release: a worker that sees the pointer sees what it leads to
	__atomic_store_n(&dp->snapshot, snapshot, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < dp->n_workers; i++)
		bell_ring(&dp->workers[i]->bell);
}

uint64_t dataplane_grace_start(struct dataplane *dp)
{
	return rte_rcu_qsbr_start(dp->qsbr);
}

bool dataplane_grace_done(struct dataplane *dp, uint64_t token)
{
	return rte_rcu_qsbr_check(dp->qsbr, token, false) == 1;
}

// ---------------------------------------------------------------- mail

int dataplane_ask(
	struct dataplane *dp, uint32_t worker_idx, const struct dataplane_request *request)
{
	if (worker_idx >= dp->n_workers)
		return -EINVAL;
	struct worker *w = dp->workers[worker_idx];
	if (w->n_asked >= RING_MAIL)
		return -EAGAIN;
	struct mail *mail = calloc(1, sizeof(*mail));
	if (mail == NULL)
		return -ENOMEM;
	mail->request = *request;
	mail->reply.kind = request->kind;
	mail->reply.cookie = request->cookie;
	mail->reply.worker_idx = (uint16_t)worker_idx;
	mail->reply.next_cursor = FLOW_NONE;
	if (rte_ring_sp_enqueue(w->mailbox, mail) != 0) {
		free(mail);
		return -EAGAIN;
	}
	w->n_asked++;
	bell_ring(&w->bell);
	return 0;
}

static struct mail *take_reply(struct dataplane *dp)
{
	for (uint32_t i = 0; i < dp->n_workers; i++) {
		void *mail;
		if (rte_ring_sc_dequeue(dp->workers[i]->replies, &mail) == 0) {
			dp->workers[i]->n_asked--;
			return mail;
		}
	}
	return NULL;
}

struct dataplane_reply *dataplane_next_reply(struct dataplane *dp)
{
	struct mail *mail = take_reply(dp);
	if (mail == NULL) {
		control_rests(dp);
		mail = take_reply(dp);
	}
	return mail ? &mail->reply : NULL;
}

void dataplane_reply_free(struct dataplane *dp, struct dataplane_reply *reply)
{
	free(reply); // first member of its mail
}

// ---------------------------------------------------------------- punted frames

static uint32_t take_class(
	struct dataplane *dp, uint8_t class, struct dataplane_punted *out, uint32_t max)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < dp->n_workers; i++) {
		struct rte_ring *ring = dp->workers[i]->punt[class];
		void *mbuf;
		while (n < max && rte_ring_sc_dequeue(ring, &mbuf) == 0) {
			out[n++] = (struct dataplane_punted){ .mbuf = mbuf,
				.worker_idx = (uint16_t)i,
				.port_idx = (uint8_t)((struct rte_mbuf *)mbuf)->port,
				.class = class };
		}
	}
	return n;
}

static uint32_t take_all_classes(struct dataplane *dp, struct dataplane_punted *out, uint32_t max)
{
	uint32_t n = 0;
	for (uint8_t class = 0; class < PIPELINE_PUNT_CLASSES; class ++)
		n += take_class(dp, class, out + n, max - n);
	return n;
}

uint32_t dataplane_take_punted(struct dataplane *dp, struct dataplane_punted *out, uint32_t max)
{
	uint32_t n = take_all_classes(dp, out, max);
	if (n < max) {
		control_rests(dp);
		n += take_all_classes(dp, out + n, max - n);
	}
	if (n == max)
		control_call_again(dp);
	return n;
}

const void *dataplane_frame(const struct rte_mbuf *mbuf, uint32_t *out_len)
{
	*out_len = mbuf->data_len;
	return rte_pktmbuf_mtod(mbuf, const void *);
}

void dataplane_free_punted(struct dataplane *dp, struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

// ---------------------------------------------------------------- injected frames

int dataplane_inject(struct dataplane *dp, uint32_t port_idx, const void *frame, uint32_t len)
{
	if (port_idx >= dp->n_ports)
		return -EINVAL;
	const struct device_port *port = device_port(dp->device, port_idx);
	if (len < sizeof(struct eth_header) || len > port->mtu + 18u)
		return -EMSGSIZE;
	struct rte_mbuf *mbuf = rte_pktmbuf_alloc(dp->control_pool);
	if (mbuf == NULL)
		return -ENOBUFS;
	char *room = rte_pktmbuf_append(mbuf, (uint16_t)len);
	if (room == NULL) {
		rte_pktmbuf_free(mbuf);
		return -EMSGSIZE;
	}
	memcpy(room, frame, len);
	mbuf->port = (uint16_t)port_idx;
	// Ports are spread over the workers that own a transmit queue there.
	struct worker *w = dp->workers[port_idx % port->n_tx_queues];
	if (rte_ring_sp_enqueue(w->inject, mbuf) != 0) {
		rte_pktmbuf_free(mbuf);
		return -EAGAIN;
	}
	bell_ring(&w->bell);
	return 0;
}

// ---------------------------------------------------------------- wanted next hops

static uint32_t take_wanted(struct dataplane *dp, struct dataplane_wanted *out, uint32_t max)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < dp->n_workers && n < max; i++)
		n += rte_ring_sc_dequeue_burst_elem(
			dp->workers[i]->wanted, out + n, sizeof(*out), max - n, NULL);
	return n;
}

uint32_t dataplane_take_wanted(struct dataplane *dp, struct dataplane_wanted *out, uint32_t max)
{
	uint32_t n = take_wanted(dp, out, max);
	if (n < max) {
		control_rests(dp);
		n += take_wanted(dp, out + n, max - n);
	}
	if (n == max)
		control_call_again(dp);
	return n;
}
