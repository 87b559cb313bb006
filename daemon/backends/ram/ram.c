/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ram: host memory. A store is a root-only file on a tmpfs. The agent of the program
 * writes it through a write-only descriptor, so the kernel charges the program's
 * cgroup; the daemon reads it through a mapping that stays where it is while the file
 * grows. The file keeps its pages when the daemon dies.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <syslog.h>
#include <unistd.h>

#include "uhmm/backend.h"

struct uhmm_tier {
	int dir_fd;
	uint32_t page_size;
	size_t map_bytes; /* addresses reserved for each store: what the tmpfs can hold */
};

struct uhmm_store {
	struct uhmm_tier *tier;
	int fd;
	char *map;
	size_t map_bytes; /* reserved */
	uint64_t n_slots;
	char name[64];
};

static int ram_tier_open(const struct uhmm_backend_env *env,
			 const struct uhmm_backend_param *params, struct uhmm_tier **ret_tier)
{
	struct uhmm_tier *tier;
	struct statfs fs;

	if (params[0].key) {
		env->log(LOG_ERR, "tier %s: the ram backend knows no key '%s'", env->tier_name,
			 params[0].key);
		return -EINVAL;
	}
	tier = calloc(1, sizeof(*tier));
	if (!tier)
		return -ENOMEM;
	tier->page_size = env->page_size;
	tier->dir_fd = open(env->pages_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (tier->dir_fd < 0 || fstatfs(tier->dir_fd, &fs) < 0) {
		int err = -errno;

		env->log(LOG_ERR, "tier %s: %s: %s", env->tier_name, env->pages_dir,
			 strerror(-err));
		if (tier->dir_fd >= 0)
			close(tier->dir_fd);
		free(tier);
		return err;
	}
	tier->map_bytes = (size_t)fs.f_blocks * (size_t)fs.f_bsize;
	if (tier->map_bytes == 0)
		tier->map_bytes = (size_t)32 << 30;
	*ret_tier = tier;
	return 0;
}

static void ram_tier_close(struct uhmm_tier *tier)
{
	close(tier->dir_fd);
	free(tier);
}

/* Take over fd, which is -errno if the file could not be opened, and map it. On an error it is
 * closed. */
static int ram_store_new(struct uhmm_tier *tier, const char *name, int fd, size_t map_bytes,
			 struct uhmm_store **ret_store)
{
	struct uhmm_store *store = fd < 0 ? NULL : calloc(1, sizeof(*store));
	int err = fd < 0 ? fd : -ENOMEM;

	if (store) {
		store->tier = tier;
		store->fd = fd;
		store->map_bytes = map_bytes;
		snprintf(store->name, sizeof(store->name), "%s", name);
		store->map = mmap(NULL, map_bytes, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
		err = store->map == MAP_FAILED ? -errno : 0;
	}
	if (err == 0) {
		*ret_store = store;
		return 0;
	}
	if (fd >= 0)
		close(fd);
	free(store);
	return err;
}

static int ram_store_open(struct uhmm_tier *tier, const char *name, struct uhmm_store **ret_store)
{
	int fd = openat(tier->dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	bool made = fd >= 0;
	int err = ram_store_new(tier, name, made ? fd : -errno, tier->map_bytes, ret_store);

	if (err < 0 && made)
		unlinkat(tier->dir_fd, name, 0);
	return err;
}

/* Can this be a file that an earlier process made, of n_slots at least? */
static int ram_check_file(const struct uhmm_tier *tier, const struct stat *st, uint64_t n_slots)
{
	if (!S_ISREG(st->st_mode) || (st->st_mode & 07777) != 0600 || st->st_uid != geteuid() ||
	    st->st_nlink != 1)
		return -EPERM;
	return (uint64_t)st->st_size / tier->page_size < n_slots ? -EPROTO : 0;
}

static int ram_store_reopen(struct uhmm_tier *tier, const char *name, uint64_t n_slots,
			    struct uhmm_store **ret_store)
{
	int fd = openat(tier->dir_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;
	size_t bytes;
	int err;

	if (fd < 0)
		return errno == ELOOP ? -EPERM : -errno;
	err = fstat(fd, &st) < 0 ? -errno : ram_check_file(tier, &st, n_slots);
	if (err < 0) {
		close(fd);
		return err;
	}
	/* The tmpfs may have become smaller than the file is long. */
	bytes = (size_t)st.st_size > tier->map_bytes ? (size_t)st.st_size : tier->map_bytes;
	err = ram_store_new(tier, name, fd, bytes, ret_store);
	/* It may have grown for slots that nobody learned of. */
	if (err == 0)
		(*ret_store)->n_slots = (uint64_t)st.st_size / tier->page_size;
	return err;
}

static void ram_store_leave(struct uhmm_store *store)
{
	munmap(store->map, store->map_bytes);
	close(store->fd);
	free(store);
}

static void ram_store_close(struct uhmm_store *store)
{
	unlinkat(store->tier->dir_fd, store->name, 0);
	/* The agent may still hold its descriptor: give the memory back now. */
	(void)!ftruncate(store->fd, 0);
	ram_store_leave(store);
}

static int ram_store_resize(struct uhmm_store *store, uint64_t n_slots)
{
	if (n_slots <= store->n_slots)
		return 0;
	if (n_slots > store->map_bytes / store->tier->page_size)
		return -ENOSPC;
	if (ftruncate(store->fd, (off_t)(n_slots * store->tier->page_size)) < 0)
		return -errno;
	store->n_slots = n_slots;
	return 0;
}

static int ram_read(struct uhmm_store *store, uint64_t slot, uint32_t n_pages, void *buf)
{
	size_t page = store->tier->page_size;

	memcpy(buf, store->map + slot * page, n_pages * page);
	return 0;
}

static int ram_write(struct uhmm_store *store, uint64_t slot, uint32_t n_pages, const void *buf)
{
	size_t page = store->tier->page_size, len = n_pages * page, done = 0;
	off_t at = (off_t)(slot * page);

	while (done < len) {
		ssize_t n = pwrite(store->fd, (const char *)buf + done, len - done,
				   at + (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		done += (size_t)n;
	}
	return 0;
}

static void ram_free(struct uhmm_store *store, uint64_t slot, uint32_t n_pages)
{
	off_t page = (off_t)store->tier->page_size;

	(void)fallocate(store->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)slot * page,
			(off_t)n_pages * page);
}

static const void *ram_store_map(struct uhmm_store *store)
{
	return store->map;
}

static int ram_store_fd(struct uhmm_store *store)
{
	int fd = openat(store->tier->dir_fd, store->name, O_WRONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static const struct uhmm_backend_ops ram_ops = {
	.abi = UHMM_BACKEND_ABI,
	.size = sizeof(ram_ops),
	.name = "ram",
	.flags = UHMM_BACKEND_HOST_MEMORY | UHMM_BACKEND_NATIVE_CHARGE,
	.tier_open = ram_tier_open,
	.tier_close = ram_tier_close,
	.store_open = ram_store_open,
	.store_close = ram_store_close,
	.store_resize = ram_store_resize,
	.read = ram_read,
	.write = ram_write,
	.free = ram_free,
	.store_map = ram_store_map,
	.store_fd = ram_store_fd,
	.store_reopen = ram_store_reopen,
	.store_leave = ram_store_leave,
};

const struct uhmm_backend_ops *uhmm_backend_entry(void)
{
	return &ram_ops;
}
