/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * struct control: a shared mapping of a regular file. Regular files cannot be registered with
 * a userfaultfd, so what lies here is never evicted, whatever the daemon does; a tmpfs would
 * not do. Made by the runner, inherited by everybody else.
 */
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "torture.h"

#define CONTROL_ADDR ((void *)0x5e0000000000ull)

struct control *const ctl = CONTROL_ADDR;

int control_open_file(int flags)
{
	const char *const dirs[] = { getenv("TMPDIR"), "/var/tmp", ".", "/tmp" };

	for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++) {
		struct statfs fs;
		int fd;

		if (!dirs[i] || statfs(dirs[i], &fs) < 0 || fs.f_type == TMPFS_MAGIC ||
		    fs.f_type == RAMFS_MAGIC)
			continue;
		fd = open(dirs[i], O_TMPFILE | O_RDWR | flags, 0600);
		if (fd >= 0)
			return fd;
	}
	return -ENOENT;
}

int control_map(int fd)
{
	void *addr = mmap(CONTROL_ADDR, sizeof(struct control), PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);

	if (addr == MAP_FAILED)
		return -errno;
	return addr == CONTROL_ADDR ? 0 : -EEXIST;
}

int control_make(int *ret_fd)
{
	int fd = control_open_file(0);
	int error;

	if (fd < 0)
		return fd;
	error = ftruncate(fd, sizeof(struct control)) < 0 ? -errno : control_map(fd);
	if (error) {
		(void)close(fd);
		return error;
	}
	*ret_fd = fd;
	return 0;
}

void control_reset(void)
{
	ctl->stop = 0;
	ctl->n_actors = 0;
	ctl->n_alive = 0;
	ctl->n_unaided = 0;
	ctl->n_mapped = 0;
	memset(ctl->commons, 0, sizeof(ctl->commons));
	ctl->n_scripts = 0;
	memset(&ctl->failure, 0, sizeof(ctl->failure));
	for (uint32_t i = 0; i < ACTORS_MAX; i++)
		ctl->actors[i].state = ACTOR_FREE;
}
