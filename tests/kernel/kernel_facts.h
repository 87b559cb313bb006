/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the tests of kernel facts share. A test's name is the fact; where the fact is false,
 * the test fails by that name. Everything a test makes is gone with it: Check runs each in
 * a process of its own.
 *
 * "ok" helpers fail the running test themselves; the others return 0 or a negative errno.
 */
#ifndef KERNEL_FACTS_H
#define KERNEL_FACTS_H

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/uapi.h"

#define KF_PATIENCE_MS 10000 /* for what must happen */
#define KF_QUIET_MS 100      /* for what must not */

extern size_t kf_page; /* bytes */

TCase *kf_tcase_move(void);
TCase *kf_tcase_gate(void);
TCase *kf_tcase_huge(void);
TCase *kf_tcase_marker(void);
TCase *kf_tcase_event(void);
TCase *kf_tcase_fork(void);
TCase *kf_tcase_fault(void);
TCase *kf_tcase_guard(void);
TCase *kf_tcase_remote(void);
TCase *kf_tcase_files(void);
TCase *kf_tcase_shared(void);
TCase *kf_tcase_adopt(void);

/* Say that the running test cannot be done here; the test returns then. */
void kf_skip(const char *fact, const char *reason);

/* A userfaultfd of this process with exactly these features. */
int kf_open_ok(uint64_t features);
/* As above, and MOVE. */
int kf_open_move_ok(uint64_t features);
int kf_api(int uffd, uint64_t features);

/* n pages of private anonymous memory, untouched, no huge pages. */
unsigned char *kf_map_ok(size_t n_pages);

int kf_register(int uffd, const void *addr, size_t bytes, uint64_t mode);
void kf_register_ok(int uffd, const void *addr, size_t bytes, uint64_t mode);
int kf_unregister(int uffd, const void *addr, size_t bytes);
/* MOVE all of it: 0, or the negative errno. */
int kf_move(int uffd, const void *dst, const void *src, size_t bytes);
/* COPY one page full of `value`. */
int kf_fill(int uffd, const void *addr, unsigned char value, uint64_t mode);
/* Write-protect. */
int kf_mark(int uffd, const void *addr, size_t bytes);
int kf_wake(int uffd, const void *addr, size_t bytes);

/* The next message; fails the test if none comes. */
struct uffd_msg kf_read_ok(int uffd);
/* The next message, which must be a fault in this page (of whatever process). */
struct uffd_msg kf_read_fault_ok(int uffd, const void *addr);
bool kf_has_message(int uffd, int timeout_ms);

/* The entry of /proc/PID/pagemap; pid 0 is this process. */
uint64_t kf_pagemap_ok(pid_t pid, const void *addr);
bool kf_is_marked(pid_t pid, const void *addr);
bool kf_is_present(const void *addr);
/* Nothing there, and no marker either. */
bool kf_is_empty(pid_t pid, const void *addr);

/* Another thread that makes one call that may block. */
struct kf_thread {
	pthread_t thread;
	void *(*fn)(void *);
	void *arg;
};
void kf_thread_start(struct kf_thread *thread, void *(*fn)(void *), void *arg);
/* Has it come back within this time? It is joined then. */
bool kf_thread_done(struct kf_thread *thread, int timeout_ms);

/* A thread that reads one byte. */
struct kf_touch {
	struct kf_thread thread;
	const volatile unsigned char *addr;
	unsigned char value; /* once done */
};
void kf_touch_start(struct kf_touch *touch, const void *addr);
/* It must come back, with this value. */
void kf_touch_ends_ok(struct kf_touch *touch, unsigned char value);
bool kf_touch_done(struct kf_touch *touch, int timeout_ms);

/* A thread that calls madvise, which may wait for its event to be read. */
struct kf_advise {
	struct kf_thread thread;
	void *addr;
	size_t bytes;
	int advice;
	int error;
};
void kf_advise_start(struct kf_advise *advise, void *addr, size_t bytes, int advice);

/* A thread that moves a mapping over another one. */
struct kf_remap {
	struct kf_thread thread;
	unsigned char *from;
	unsigned char *to;
	size_t bytes;
};
void kf_remap_start(struct kf_remap *remap, unsigned char *from, unsigned char *to, size_t bytes);

/*
 * A task of this process made by the bare system call, on the C library's thread state of
 * the caller: fn may make raw system calls only, must not be sanitized (KF_BARE), and ends
 * by SYS_exit. Returns its tid.
 */
#define KF_BARE __attribute__((no_sanitize("address", "thread", "undefined")))
pid_t kf_bare_thread_ok(int (*fn)(void *), void *arg, int flags, void *clear_tid);

/* A thread that forks; the child runs fn and exits with what it returns. */
struct kf_fork {
	struct kf_thread thread;
	int (*fn)(void *);
	void *arg;
	pid_t pid;
};
void kf_fork_start(struct kf_fork *fork, int (*fn)(void *), void *arg);

/* A child process that runs fn. Check kills what is left of a test's process group. */
pid_t kf_child(int (*fn)(void *), void *arg);
/* For these two: stays until one byte comes through the pipe whose reading end arg points at. */
int kf_child_waits(void *arg);
/* It must exit by itself; returns its status. */
int kf_wait_ok(pid_t pid);

void kf_send_fd_ok(int socket, int fd);
int kf_recv_fd(int socket);

#endif
