/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The seam over userfaultfd. It owns nothing and remembers nothing: each function is one
 * ioctl and its answer, put into one of a few words by one classifier.
 *
 * Called by the space's worker, on the fault path too, so nothing here allocates, logs or
 * waits for the program. Only uffd_probe opens a file; it runs at start and after a failed
 * UFFDIO_API.
 *
 * What may never happen here: a second try. EAGAIN means that the world has changed, and
 * only the caller can look at it again.
 */
#define _GNU_SOURCE
#include "uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define UFFD_FEATURES_NEEDED                                                                       \
	((uint64_t)(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |                           \
		    UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP |                         \
		    UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_PAGEFAULT_FLAG_WP |                      \
		    UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_POISON | UFFD_FEATURE_MOVE))

/* Used for shared memory, which can stay unmanaged where they are missing. */
#define UFFD_FEATURES_WANTED                                                                       \
	((uint64_t)(UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM |                        \
		    UFFD_FEATURE_WP_HUGETLBFS_SHMEM))

static const struct {
	uint64_t bit;
	const char *name;
} uffd_features[] = {
	{ UFFD_FEATURE_PAGEFAULT_FLAG_WP, "PAGEFAULT_FLAG_WP" },
	{ UFFD_FEATURE_EVENT_FORK, "EVENT_FORK" },
	{ UFFD_FEATURE_EVENT_REMAP, "EVENT_REMAP" },
	{ UFFD_FEATURE_EVENT_REMOVE, "EVENT_REMOVE" },
	{ UFFD_FEATURE_MISSING_HUGETLBFS, "MISSING_HUGETLBFS" },
	{ UFFD_FEATURE_MISSING_SHMEM, "MISSING_SHMEM" },
	{ UFFD_FEATURE_EVENT_UNMAP, "EVENT_UNMAP" },
	{ UFFD_FEATURE_SIGBUS, "SIGBUS" },
	{ UFFD_FEATURE_THREAD_ID, "THREAD_ID" },
	{ UFFD_FEATURE_MINOR_HUGETLBFS, "MINOR_HUGETLBFS" },
	{ UFFD_FEATURE_MINOR_SHMEM, "MINOR_SHMEM" },
	{ UFFD_FEATURE_EXACT_ADDRESS, "EXACT_ADDRESS" },
	{ UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "WP_HUGETLBFS_SHMEM" },
	{ UFFD_FEATURE_WP_UNPOPULATED, "WP_UNPOPULATED" },
	{ UFFD_FEATURE_POISON, "POISON" },
	{ UFFD_FEATURE_WP_ASYNC, "WP_ASYNC" },
	{ UFFD_FEATURE_MOVE, "MOVE" },
};

const char *uffd_feature_name(uint64_t bit)
{
	for (size_t i = 0; i < sizeof(uffd_features) / sizeof(uffd_features[0]); i++)
		if (uffd_features[i].bit == bit)
			return uffd_features[i].name;
	return "unknown";
}

/* An ioctl's return value and errno in one word. */
static enum uffd_result uffd_classify(int rc)
{
	if (rc == 0)
		return UFFD_OK;
	switch (errno) {
	case EAGAIN:
		return UFFD_AGAIN;
	case EEXIST:
		return UFFD_EXISTS;
	case ESRCH:
		return UFFD_GONE;
	case ENOENT:
	case EINVAL:
		return UFFD_NO_VMA;
	case ENOMEM:
		return UFFD_NO_MEM;
	default:
		return UFFD_ERROR;
	}
}

/* The answer of an ioctl that tells how far it came: bytes, or a negative errno. What was
 * done counts whatever the ioctl returned. */
static enum uffd_result uffd_classify_progress(int rc, int64_t progress, uint64_t *ret_done)
{
	*ret_done = progress > 0 ? (uint64_t)progress : 0;
	return uffd_classify(rc);
}

static int uffd_api_try(int uffd, uint64_t features, uint64_t *ret_features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	if (ioctl(uffd, UFFDIO_API, &api) < 0)
		return -errno;
	*ret_features = api.features;
	return 0;
}

/* A userfaultfd of our own. The device may be missing where the system call is not. */
static int uffd_open_throwaway(void)
{
	int device = open(UHMM_USERFAULTFD_DEVICE, O_RDWR | O_CLOEXEC);
	int uffd;
	int error;

	if (device < 0) {
		uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
		return uffd < 0 ? -errno : uffd;
	}
	uffd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	error = uffd < 0 ? -errno : 0;
	(void)close(device);
	return error ? error : uffd;
}

int uffd_probe(uint64_t *ret_features, uint64_t *ret_missing)
{
	uint64_t features = 0;
	int uffd = uffd_open_throwaway();
	int error;

	if (uffd < 0)
		return uffd;
	/* Asking for none makes the kernel name all. */
	error = uffd_api_try(uffd, 0, &features);
	(void)close(uffd);
	if (error)
		return error;
	*ret_features = features;
	*ret_missing = UFFD_FEATURES_NEEDED & ~features;
	return 0;
}

int uffd_api(int uffd)
{
	uint64_t features;
	uint64_t missing;
	int error = uffd_api_try(uffd, UFFD_FEATURES_NEEDED | UFFD_FEATURES_WANTED, &features);

	if (error != -EINVAL)
		return error;
	/* Refused as a whole: the kernel lacks something, or this one has been used. */
	error = uffd_probe(&features, &missing);
	if (error)
		return error;
	if (missing)
		return -ENOTSUP;
	return uffd_api_try(uffd, UFFD_FEATURES_NEEDED | (UFFD_FEATURES_WANTED & features),
			    &features);
}

/* No path of a file begins like this name. */
bool uffd_is_one(int fd)
{
	static const char name[] = "anon_inode:[userfaultfd]";
	char path[32], text[sizeof(name)];
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, text, sizeof(text));
	return n == (ssize_t)sizeof(name) - 1 && memcmp(text, name, sizeof(name) - 1) == 0;
}

bool uffd_is_used(int fd)
{
	uint64_t features;

	return uffd_is_one(fd) && uffd_api_try(fd, 0, &features) == -EINVAL;
}

/* REGISTER and UNREGISTER answer ENOMEM for an address space that is gone. A COPY from an
 * address where nothing can be mapped says ESRCH then, and never has an effect. */
static enum uffd_result uffd_classify_register(int rc, int uffd, uint64_t addr)
{
	enum uffd_result result = uffd_classify(rc);
	struct uffdio_copy probe = { .dst = addr, .len = (uint64_t)sysconf(_SC_PAGESIZE) };

	if (result != UFFD_NO_MEM)
		return result;
	if (ioctl(uffd, UFFDIO_COPY, &probe) < 0 && errno == ESRCH)
		return UFFD_GONE;
	errno = ENOMEM;
	return UFFD_NO_MEM;
}

enum uffd_result uffd_register(int uffd, uint64_t addr, uint64_t bytes, uint64_t mode)
{
	struct uffdio_register arg = { .range = { .start = addr, .len = bytes }, .mode = mode };

	return uffd_classify_register(ioctl(uffd, UFFDIO_REGISTER, &arg), uffd, addr);
}

enum uffd_result uffd_unregister(int uffd, uint64_t addr, uint64_t bytes)
{
	struct uffdio_range arg = { .start = addr, .len = bytes };

	return uffd_classify_register(ioctl(uffd, UFFDIO_UNREGISTER, &arg), uffd, addr);
}

enum uffd_result uffd_copy(int uffd, uint64_t addr, const void *src, uint64_t bytes,
			   uint64_t *ret_done)
{
	struct uffdio_copy arg = { .dst = addr, .src = (uintptr_t)src, .len = bytes };
	int rc = ioctl(uffd, UFFDIO_COPY, &arg);

	return uffd_classify_progress(rc, arg.copy, ret_done);
}

enum uffd_result uffd_zeropage(int uffd, uint64_t addr, uint64_t bytes, uint64_t *ret_done)
{
	struct uffdio_zeropage arg = { .range = { .start = addr, .len = bytes } };
	int rc = ioctl(uffd, UFFDIO_ZEROPAGE, &arg);

	return uffd_classify_progress(rc, arg.zeropage, ret_done);
}

enum uffd_result uffd_poison(int uffd, uint64_t addr, uint64_t bytes)
{
	struct uffdio_poison arg = { .range = { .start = addr, .len = bytes } };

	return uffd_classify(ioctl(uffd, UFFDIO_POISON, &arg));
}

enum uffd_result uffd_wake(int uffd, uint64_t addr, uint64_t bytes)
{
	struct uffdio_range arg = { .start = addr, .len = bytes };

	return uffd_classify(ioctl(uffd, UFFDIO_WAKE, &arg));
}

enum uffd_result uffd_continue(int uffd, uint64_t addr, uint64_t bytes, uint64_t *ret_done)
{
	struct uffdio_continue arg = { .range = { .start = addr, .len = bytes } };
	int rc = ioctl(uffd, UFFDIO_CONTINUE, &arg);

	return uffd_classify_progress(rc, arg.mapped, ret_done);
}

enum uffd_result uffd_is_registered(int uffd, uint64_t addr, uint64_t page_size)
{
	/* Private memory is refused for its kind (EINVAL), but only after it has been looked for. */
	struct uffdio_continue arg = { .range = { .start = addr, .len = page_size } };

	if (ioctl(uffd, UFFDIO_CONTINUE, &arg) < 0 && errno != EINVAL && errno != EFAULT &&
	    errno != EEXIST)
		return uffd_classify(-1);
	return UFFD_OK;
}

enum uffd_result uffd_is_private(int uffd, uint64_t addr, uint64_t page_size)
{
	struct uffdio_continue arg = { .range = { .start = addr, .len = page_size } };

	if (ioctl(uffd, UFFDIO_CONTINUE, &arg) == 0 || errno == EFAULT || errno == EEXIST)
		return UFFD_EXISTS;
	return errno == EINVAL ? UFFD_OK : uffd_classify(-1);
}

enum uffd_result uffd_unprotect(int uffd, uint64_t addr, uint64_t bytes)
{
	struct uffdio_writeprotect arg = { .range = { .start = addr, .len = bytes } };

	return uffd_classify(ioctl(uffd, UFFDIO_WRITEPROTECT, &arg));
}

enum uffd_result uffd_mark(int uffd, uint64_t addr, uint64_t bytes)
{
	struct uffdio_writeprotect arg = { .range = { .start = addr, .len = bytes },
					   .mode = UFFDIO_WRITEPROTECT_MODE_WP };

	return uffd_classify(ioctl(uffd, UFFDIO_WRITEPROTECT, &arg));
}

enum uffd_result uffd_unmark(int uffd, uint64_t addr, uint64_t bytes)
{
	struct uffdio_writeprotect arg = { .range = { .start = addr, .len = bytes },
					   .mode = UFFDIO_WRITEPROTECT_MODE_DONTWAKE };

	return uffd_classify(ioctl(uffd, UFFDIO_WRITEPROTECT, &arg));
}

ssize_t uffd_read(int uffd, void *msgs, size_t bytes)
{
	struct iovec iov = { .iov_base = msgs, .iov_len = bytes };
	ssize_t n = preadv2(uffd, &iov, 1, -1, RWF_NOWAIT);

	/* An older kernel: nothing but the flag of the description. */
	if (n < 0 && errno == EOPNOTSUPP)
		n = read(uffd, msgs, bytes);
	return n < 0 ? -errno : n;
}

enum uffd_result uffd_settled(int uffd)
{
	/* No length: never valid. The kernel looks for unread events before it looks at this,
	 * and at the address space only after. */
	struct uffdio_writeprotect arg = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	enum uffd_result result = uffd_classify(ioctl(uffd, UFFDIO_WRITEPROTECT, &arg));

	return result == UFFD_NO_VMA ? UFFD_OK : result;
}

enum uffd_result uffd_alive(int uffd)
{
	/* The lowest page a program could map is never registered (maps.c leaves it alone), so
	 * this cannot fill anything: it asks only whether there is an address space. */
	uint64_t done;
	enum uffd_result result = uffd_zeropage(uffd, UFFD_NEVER_REGISTERED,
						(uint64_t)sysconf(_SC_PAGESIZE), &done);

	return result == UFFD_GONE ? UFFD_GONE : UFFD_OK;
}
