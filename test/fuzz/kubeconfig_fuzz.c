// SPDX-License-Identifier: BSD-3-Clause
// A kubeconfig from anybody: refused with a finding and nothing touched, or taken with all that a request needs.
#include <stdlib.h>
#include <string.h>

#include "kubeconfig_priv.h"

static void check_whole(const struct kubeconfig *k)
{
	if (!k->server || !k->host || !k->port || !k->prefix || !k->cluster || !k->user)
		abort();
	if (k->insecure && (k->ca.path || k->ca.bytes))
		abort();
	if (k->token && !kubeconfig_is_header_text(k->token))
		abort();
	if (strpbrk(k->server, "\r\n ") || (k->ca.bytes && k->ca.bytes[k->ca.len] != '\0'))
		abort();
	if (k->exec && (!k->exec->command || !k->exec->api_version))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct kubeconfig *k = NULL;
	struct error err = { 0 }, warnings = { 0 };
	int rc = kubeconfig_decode((const char *)bytes, size, "/etc/fuzz", &k, &err, &warnings);
	if ((rc == 0) != (err.n_items == 0) || (rc == 0) != (k != NULL))
		abort();
	if (rc == 0)
		check_whole(k);
	kubeconfig_destroy(k);
	error_fini(&err);
	error_fini(&warnings);
	return 0;
}
