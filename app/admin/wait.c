// SPDX-License-Identifier: BSD-3-Clause
// Sleeping connections: an answer that workers owe. Control calls back exactly once, whatever happens to the client
// meanwhile, so what the call-back gets is an object of its own; a request that ends first only lets go of it.
#include "admin_priv.h"

#include <stdlib.h>

struct admin_wait *wait_begin(struct admin_request *r)
{
	struct admin_wait *wait = calloc(1, sizeof(*wait));
	if (wait == NULL) {
		reply_problem(r, PROBLEM_UNAVAILABLE, "out of memory");
		return NULL;
	}
	wait->request = r;
	r->wait = wait;
	wait->next = r->admin->waiting;
	if (wait->next)
		wait->next->prev = wait;
	r->admin->waiting = wait;
	return wait;
}

void wait_forget(struct admin_request *r)
{
	struct admin_wait *wait = r->wait;
	if (wait == NULL)
		return;
	if (wait->prev)
		wait->prev->next = wait->next;
	else
		r->admin->waiting = wait->next;
	if (wait->next)
		wait->next->prev = wait->prev;
	wait->next = wait->prev = NULL;
	wait->request = NULL;
	r->wait = NULL;
}

struct admin_request *wait_end(struct admin_wait *wait)
{
	struct admin_request *r = wait->request;
	if (r)
		wait_forget(r);
	json_decref(wait->items);
	free(wait);
	return r;
}

void wait_resume(struct admin_request *r)
{
	if (!r->suspended)
		return; // answered before the handler returned
	r->suspended = false;
	MHD_resume_connection(r->mhd);
	// The library looks at resumed connections only when it is run, and nothing else would run it.
	event_active(r->connection->server->timer, EV_TIMEOUT, 0);
}

void wait_abandon_all(struct admin *admin)
{
	while (admin->waiting) {
		struct admin_request *r = admin->waiting->request;
		wait_forget(r);
		reply_problem(r, PROBLEM_UNAVAILABLE, "shutting down");
		wait_resume(r);
	}
}
