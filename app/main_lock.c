// SPDX-License-Identifier: BSD-3-Clause
// One process per state folder: a lock on the folder itself, so that no file is left behind and none can be stale.
#include "main_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

// Who holds the lock, from /proc/locks ("1: FLOCK  ADVISORY  WRITE 1234 00:2f:5678 0 EOF"); 0: not to be seen.
static int find_holder(int fd)
{
	struct stat st;
	char line[256];
	int holder = 0;
	if (fstat(fd, &st) != 0)
		return 0;
	FILE *locks = fopen("/proc/locks", "re");
	while (locks != NULL && holder == 0 && fgets(line, sizeof(line), locks) != NULL) {
		int pid;
		unsigned long inode;
		if (sscanf(line, "%*d: FLOCK %*s %*s %d %*x:%*x:%lu", &pid, &inode) == 2 &&
			inode == (unsigned long)st.st_ino)
			holder = pid;
	}
	if (locks != NULL)
		fclose(locks);
	return holder;
}

int main_lock_take(const char *state_dir, int *out_fd, struct error *err)
{
	*out_fd = -1;
	if (state_dir[0] == '\0')
		return 0;
	mkdir(state_dir, 0750); // is there, or the state cannot be kept, which control says
	int fd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
		*out_fd = fd;
		return 0;
	}
	int code = errno;
	if (code == EWOULDBLOCK)
		error_add(err, EBUSY, "state_dir",
			"E_RUNNING %s is in use by another sluiced, pid %d: stop it, or give this "
			"one a state_dir, an admin.socket and twins of its own",
			state_dir, find_holder(fd));
	close(fd);
	return code == EWOULDBLOCK ? -EBUSY : 0; // a file system without locks is no reason to stop
}
