/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sizes as people write them. Depends on nothing: the command line uses it too. */
#ifndef UHMM_UTIL_SIZE_H
#define UHMM_UTIL_SIZE_H

#include <stdint.h>

/*
 * "64M" to bytes: decimal digits, then at most one of K, M, G, T (powers of 1024,
 * either case). -EINVAL: anything else; -ERANGE: does not fit 64 bits.
 */
int size_parse(const char *text, uint64_t *ret_bytes);

#endif
