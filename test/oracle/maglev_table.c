// SPDX-License-Identifier: BSD-3-Clause
// Builds Maglev tables for maglev_check.py. In, as text: a line "N M VARIANT" (0: the fastest, 1: scalar), then N lines
// "ADDRESS PORT WEIGHT"; again until the end. Out: a line with the M slots of each, or with the negative error code alone.
#include <stdio.h>
#include <stdlib.h>

#include "balance.h"

static int members_read(struct balance_member *members, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		char text[ADDRESS_TEXT_LEN];
		if (scanf("%47s %hu %hu", text, &members[i].port, &members[i].weight) != 3 ||
			address_parse(text, &members[i].address) != 0)
			return -1;
	}
	return 0;
}

int main(void)
{
	unsigned n, m, variant;
	while (scanf("%u %u %u", &n, &m, &variant) == 3) {
		struct balance_member *members = calloc(n + 1, sizeof(*members));
		uint16_t *slots = calloc(m + 1, sizeof(*slots));
		if (members == NULL || slots == NULL || members_read(members, n) != 0)
			return 1;
		int rc = balance_build_as((enum balance_variant)variant, members, n, m, slots);
		if (rc != 0)
			printf("%d", rc);
		for (unsigned i = 0; rc == 0 && i < m; i++)
			printf("%u ", slots[i]);
		putchar('\n');
		free(slots);
		free(members);
	}
	return 0;
}
