// SPDX-License-Identifier: BSD-3-Clause
// The configuration from anybody: refused with a finding and nothing touched, or taken, and then it prints as what reads back the same.
#include <stdlib.h>
#include <string.h>

#include "settings.h"

static void check_print(const struct settings *s)
{
	static struct settings again;
	char *text = NULL;
	size_t len = 0;
	FILE *file = open_memstream(&text, &len);
	if (file == NULL)
		abort();
	settings_print(s, file);
	fclose(file);
	if (settings_load_text(text, len, "printed", &again, NULL) ||
		settings_diff(s, &again, NULL, NULL))
		abort();
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static struct settings s;
	struct error err = { 0 };
	memset(&s, 0, sizeof(s));
	s.punt_rate = 77;
	int rc = settings_load_text((const char *)bytes, size, "fuzz", &s, &err);
	if ((rc == 0) != (err.n_items == 0))
		abort();
	if (rc && s.punt_rate != 77)
		abort();
	if (rc == 0)
		check_print(&s);
	error_fini(&err);
	return 0;
}
