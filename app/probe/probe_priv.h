// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <curl/curl.h>

#include "probe.h"

enum probe_state { PROBE_RESTING, PROBE_QUEUED, PROBE_RUNNING };

struct probe_http;

struct probe_target {
	struct probe *owner;
	struct control_probe what;
	enum probe_state state;
	struct event *timer; // until the next try
	uint64_t began_ns;
	struct probe_target *chain; // of its id
	struct probe_target *next;  // in the queue
	// tcp
	int fd; // -1: none
	struct event *io;
	// http
	CURL *easy;
	uint32_t n_body_bytes;
	char curl_error[CURL_ERROR_SIZE];
};

struct probe {
	struct control *control;
	struct event_base *base;
	struct probe_target **chains; // by id
	uint32_t chain_mask;
	uint32_t n_targets;
	uint32_t n_running;
	struct probe_target *queue_first, *queue_last; // ready, but too many are in flight
	struct probe_http *http;                       // made with the first HTTP check
	bool is_queue_running;
	bool is_short; // of sockets or memory of our own: told once
};

// How one try ended. PROBE_CANNOT: for a want of our own (descriptors, memory), so that nothing is known of the backend.
enum probe_result { PROBE_GOOD, PROBE_BAD, PROBE_CANNOT };
void probe_finish(struct probe_target *t, enum probe_result result, const char *reason);

// Each begins a try that ends in one probe_finish, maybe before it returns; cancel ends it without.
void probe_tcp_begin(struct probe_target *t);
void probe_tcp_cancel(struct probe_target *t);
void probe_http_begin(struct probe_target *t);
void probe_http_cancel(struct probe_target *t);
void probe_http_end(struct probe *p); // of the module; every target is gone
// Errors that say nothing of the backend.
bool probe_is_own_error(int code);
