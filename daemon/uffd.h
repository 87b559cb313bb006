/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The thin seam over userfaultfd and the pagemap: one function an ioctl, and the one
 * classifier for what they answer. Everything above it can be tested on a fake.
 */
#ifndef UHMMD_UFFD_H
#define UHMMD_UFFD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/uapi.h"

/* An address that is never registered: mappings below the end of this are left alone. */
#define UFFD_NEVER_REGISTERED 0x10000ull

/* What an ioctl that fills, marks or registers said. */
enum uffd_result {
	UFFD_OK = 0,
	UFFD_AGAIN,   /* an event is unread: read it, look the record up again */
	UFFD_EXISTS,  /* the page is there: wake it */
	UFFD_GONE,    /* ESRCH: exit or exec */
	UFFD_NO_VMA,  /* ENOENT/EINVAL: the range is not (any more) in a registered mapping */
	UFFD_NO_MEM,  /* the cgroup's limit, or no memory */
	UFFD_ERROR,   /* anything else: errno is as the ioctl left it (REGISTER: EBUSY is a
			 userfaultfd of the program's own) */
};

/*
 * UFFDIO_API with everything that uhmm needs. -ENOTSUP: the kernel lacks something,
 * uffd_probe says what; -EINVAL: not fresh; -EPERM: no CAP_SYS_PTRACE; -ENOTTY: no
 * userfaultfd. Nothing here logs.
 */
int uffd_api(int uffd);
/* Is it a userfaultfd at all? Asks nothing of whoever may stand behind it, so it comes first: a
 * file of a file system in user space answers every ioctl as it likes, or never. */
bool uffd_is_one(int fd);
/* The same, and UFFDIO_API has been asked of it. */
bool uffd_is_used(int fd);
/* The features of this kernel, from a throw-away userfaultfd, and those of them that uhmm
 * needs and misses. A negative errno: there is no userfaultfd at all. */
int uffd_probe(uint64_t *ret_features, uint64_t *ret_missing);
/* For one UFFD_FEATURE_* bit: its name without the prefix; never NULL. */
const char *uffd_feature_name(uint64_t bit);

/* How private memory is registered, wherever it is. */
#define UFFD_REGISTER_MODE (UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP)
enum uffd_result uffd_register(int uffd, uint64_t addr, uint64_t bytes, uint64_t mode);
enum uffd_result uffd_unregister(int uffd, uint64_t addr, uint64_t bytes);
/* *ret_done: bytes filled from the start on (also when the result is not UFFD_OK). */
enum uffd_result uffd_copy(int uffd, uint64_t addr, const void *src, uint64_t bytes,
			   uint64_t *ret_done);
enum uffd_result uffd_zeropage(int uffd, uint64_t addr, uint64_t bytes, uint64_t *ret_done);
enum uffd_result uffd_poison(int uffd, uint64_t addr, uint64_t bytes);
enum uffd_result uffd_wake(int uffd, uint64_t addr, uint64_t bytes);
/* Is the page at addr, of private anonymous memory, registered? Changes nothing there; in shared
 * memory it would map a page. UFFD_NO_VMA: it is not, or nothing is mapped there, but only if no
 * event is unread (uffd_settled). */
enum uffd_result uffd_is_registered(int uffd, uint64_t addr, uint64_t page_size);
/* Is it private anonymous memory, and registered? UFFD_EXISTS: it is shared memory, and registered;
 * a page that it has there may be mapped now. Else as uffd_is_registered. */
enum uffd_result uffd_is_private(int uffd, uint64_t addr, uint64_t page_size);
/* Shared memory: map the page that the object has, in this mapping too. UFFD_EXISTS: it is
 * mapped; UFFD_ERROR with errno EFAULT: the object has none there. */
enum uffd_result uffd_continue(int uffd, uint64_t addr, uint64_t bytes, uint64_t *ret_done);
/* Let go of a write protection, and wake who waits for that. */
enum uffd_result uffd_unprotect(int uffd, uint64_t addr, uint64_t bytes);
/* Write-protect: on a hole this leaves a marker. */
enum uffd_result uffd_mark(int uffd, uint64_t addr, uint64_t bytes);
/* Take the marker away again. */
enum uffd_result uffd_unmark(int uffd, uint64_t addr, uint64_t bytes);
/* Read messages; bytes, or a negative errno. Never waits where the kernel can be told so: the
 * program has the description, and may clear its O_NONBLOCK at any time. */
ssize_t uffd_read(int uffd, void *msgs, size_t bytes);
/* Is an event unread? Has no effect and takes no lock. UFFD_OK: no; UFFD_AGAIN: yes, or one
 * is on its way, or it was read and the program's thread has not run since. An address
 * space that is gone counts as settled. */
enum uffd_result uffd_settled(int uffd);
/* UFFD_GONE when the address space has ended (exit, or exec), else UFFD_OK. No effect. */
enum uffd_result uffd_alive(int uffd);

#endif
