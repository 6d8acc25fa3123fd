// SPDX-License-Identifier: BSD-3-Clause
#include <stdio.h>

int main(void)
{
	fprintf(stderr, "sluicectl: not wired yet\n");
	return 1;
}
