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

/* The same, under the name that the command line knows it by. */
static inline int config_parse_size(const char *text, uint64_t *ret_bytes)
{
	return size_parse(text, ret_bytes);
}

#endif
