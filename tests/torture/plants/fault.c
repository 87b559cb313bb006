/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* daemon/fault.c, which may be deceived about guards. */
#include <unistd.h>

#include "plants.h"

#define pread(fd, to, bytes, at)                                                        \
	((fd) == space->pagemap_fd ? planted_read_pagemap(fd, to, bytes, at)            \
				   : (pread)(fd, to, bytes, at))

#include "../../../daemon/fault.c"
