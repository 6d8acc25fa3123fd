// SPDX-License-Identifier: BSD-3-Clause
#include <stdio.h>

int main(void)
{
	fprintf(stderr, "sluiced: not wired yet\n");
	return 1;
}
