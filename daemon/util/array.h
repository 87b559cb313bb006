/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Growable arrays: `v` with room for *cap elements, of which n are in use. The caller owns it, and
 * frees it with free().
 */
#ifndef UHMM_UTIL_ARRAY_H
#define UHMM_UTIL_ARRAY_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* The first one's room. */
#define ARRAY_CAP_MIN 16u

/* Where the array lies now that it has room for one more element of `size` bytes. NULL: there is
 * no memory, and v is as it was. */
static inline void *array_room(void *v, uint32_t n, uint32_t *cap, size_t size)
{
	uint32_t more = *cap ? 2 * *cap : ARRAY_CAP_MIN;
	void *grown;

	if (n < *cap)
		return v;
	grown = realloc(v, more * size);
	if (grown)
		*cap = more;
	return grown;
}

#endif
