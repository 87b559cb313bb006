/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The control thread's event loop: io_uring polls descriptors and keeps one periodic timer.
 * One thread; callbacks may add and remove sources, also their own.
 */
#ifndef UHMMD_LOOP_H
#define UHMMD_LOOP_H

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/list.h"

struct loop {
	struct io_uring ring;
	uint64_t tick_ns;
	bool stop;
	void (*tick)(void *data);
	void *tick_data;
	struct __kernel_timespec tick_time;
};

/* Embedded in what it belongs to. */
struct loop_source {
	int fd;
	void (*fn)(struct loop_source *source);
	bool armed;   /* a poll is in the kernel */
	bool removed; /* wait for the kernel to give it back, then call `gone` */
	void (*gone)(struct loop_source *source);
};

int loop_init(struct loop *loop, uint64_t tick_ns, void (*tick)(void *data), void *data);
void loop_deinit(struct loop *loop);
int loop_run(struct loop *loop);

/* Call fn whenever fd is readable (or hung up). */
int loop_add(struct loop *loop, struct loop_source *source, int fd,
	     void (*fn)(struct loop_source *source));
/* No callback after this; `gone` is called once the source's memory may be freed. */
void loop_remove(struct loop *loop, struct loop_source *source,
		 void (*gone)(struct loop_source *source));

#endif
