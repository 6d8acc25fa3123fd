// SPDX-License-Identifier: BSD-3-Clause
// The services file from anybody: refused with a finding and nothing touched, or taken.
#include <stdlib.h>

#include "kube.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct service_defaults defaults = service_defaults_builtin();
	struct kube_result result = { NULL, 77, NULL };
	struct error err = { 0 };
	int rc = kube_decode_file((const char *)bytes, size, "fuzz", &defaults, &result, &err);
	if ((rc == 0) != (err.n_items == 0))
		abort();
	if (rc && result.n_services != 77)
		abort();
	if (rc == 0)
		kube_result_fini(&result);
	error_fini(&err);
	return 0;
}
