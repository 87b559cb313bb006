/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The planted daemon: the daemon's own sources, and one bug that UHMM_PLANT names. Nothing in
 * daemon/ knows of it: what can be caught at a call between two files is caught by the linker
 * (--wrap), what cannot is compiled once more with another word in it. See docs/torture.md.
 */
#ifndef UHMM_TORTURE_PLANTS_H
#define UHMM_TORTURE_PLANTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Is that the bug of this run? */
bool planted(const char *name);

/* fault.c reads a pagemap: where there is a guard it sees a hole of ours. */
ssize_t planted_read_pagemap(int fd, void *to, size_t bytes, off_t at);

#endif
