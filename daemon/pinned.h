/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The pages of a program that must stay because an exiting thread uses them when its faults
 * are no longer delivered: thread control blocks, and the nodes of robust lists. Owned by one
 * thread; not on the fault path.
 */
#ifndef UHMMD_PINNED_H
#define UHMMD_PINNED_H

#include <stdbool.h>
#include <stdint.h>

struct pinned {
	uint64_t *v; /* page indices, sorted, may repeat */
	uint32_t n, cap;
};

void pinned_deinit(struct pinned *pinned);
/* Look at all threads that there are: task_fd and mem_fd are of the program's /proc/PID/task
 * and mem. 0 or a negative errno; the set is not to be used then. */
int pinned_collect(struct pinned *pinned, int task_fd, int mem_fd, unsigned int page_shift);
bool pinned_has(const struct pinned *pinned, uint64_t pgidx);

#endif
