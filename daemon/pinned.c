/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Collects the pages that must stay. Called by a space's worker for private memory and by the
 * thread of shared objects; the lists that are walked are the program's, so nothing in them is
 * believed, and each walk is bounded.
 */
#define _GNU_SOURCE
#include "pinned.h"

#include <errno.h>
#include <linux/futex.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "threads.h"
#include "util/array.h"

/* struct pthread of glibc lies around its robust list head: the tid word 16 bytes before it,
 * the thread pointer within 1 KiB, the rseq area within 2 KiB after. */
#define TCB_BEFORE 0x400u
#define TCB_AFTER 0x900u
#define ROBUST_NODES_MAX 2048u

struct pin_walk {
	struct pinned *pinned;
	int mem_fd;
	unsigned int page_shift;
	int error;
};

void pinned_deinit(struct pinned *pinned)
{
	free(pinned->v);
	*pinned = (struct pinned){ .v = NULL };
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

bool pinned_has(const struct pinned *pinned, uint64_t pgidx)
{
	return pinned->n && bsearch(&pgidx, pinned->v, pinned->n, sizeof(pgidx), compare_u64);
}

static int pin_range(struct pin_walk *walk, uint64_t start, uint64_t end)
{
	struct pinned *pinned = walk->pinned;

	for (uint64_t i = start >> walk->page_shift; i <= end >> walk->page_shift; i++) {
		uint64_t *v = array_room(pinned->v, pinned->n, &pinned->cap, sizeof(*v));

		if (!v)
			return -ENOMEM;
		pinned->v = v;
		if (pinned->n && pinned->v[pinned->n - 1] == i)
			continue;
		pinned->v[pinned->n++] = i;
	}
	return 0;
}

/* A mutex that is held: its node in the list, and the futex word that belongs to it. */
static int pin_node(struct pin_walk *walk, uint64_t node, const struct robust_list_head *head)
{
	uint64_t futex = (node & ~1ull) + (uint64_t)head->futex_offset;
	int err = pin_range(walk, node, node + sizeof(node));

	return err < 0 ? err : pin_range(walk, futex, futex + sizeof(uint32_t));
}

/* The mutexes that the thread holds. Their nodes never leave, so they can be read. */
static int pin_robust_list(struct pin_walk *walk, uint64_t head_addr)
{
	struct robust_list_head head;
	uint64_t node, next;
	int err;

	if (pread(walk->mem_fd, &head, sizeof(head), (off_t)head_addr) != sizeof(head))
		return 0;
	node = (uint64_t)(uintptr_t)head.list.next;
	for (uint32_t i = 0; node != head_addr && i < ROBUST_NODES_MAX; i++) {
		err = pin_node(walk, node, &head);
		if (err < 0)
			return err;
		if (pread(walk->mem_fd, &next, sizeof(next), (off_t)(node & ~1ull)) !=
		    sizeof(next))
			break;
		node = next;
	}
	node = (uint64_t)(uintptr_t)head.list_op_pending;
	return node ? pin_node(walk, node, &head) : 0;
}

static bool pin_thread(void *arg, int task_fd, pid_t tid)
{
	struct pin_walk *walk = arg;
	uint64_t head = 0;
	size_t len = 0;

	(void)task_fd;
	if (syscall(SYS_get_robust_list, tid, &head, &len) < 0 || head < TCB_BEFORE)
		return true; /* it has gone, or it is no thread of a C library */
	walk->error = pin_range(walk, head - TCB_BEFORE, head + TCB_AFTER);
	if (walk->error == 0)
		walk->error = pin_robust_list(walk, head);
	return walk->error == 0;
}

int pinned_collect(struct pinned *pinned, int task_fd, int mem_fd, unsigned int page_shift)
{
	struct pin_walk walk = { .pinned = pinned, .mem_fd = mem_fd, .page_shift = page_shift };

	pinned->n = 0;
	if (!threads_each(task_fd, pin_thread, &walk))
		return walk.error ? walk.error : -EIO;
	if (pinned->n > 1)
		qsort(pinned->v, pinned->n, sizeof(*pinned->v), compare_u64);
	return 0;
}
