/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads sizes. Pure; any thread. No strtoull: it takes signs, spaces and "0x". */
#include "size.h"

#include <errno.h>

static int size_shift(char unit, unsigned int *ret_shift)
{
	switch (unit) {
	case '\0':
		*ret_shift = 0;
		return 0;
	case 'k':
	case 'K':
		*ret_shift = 10;
		return 0;
	case 'm':
	case 'M':
		*ret_shift = 20;
		return 0;
	case 'g':
	case 'G':
		*ret_shift = 30;
		return 0;
	case 't':
	case 'T':
		*ret_shift = 40;
		return 0;
	default:
		return -EINVAL;
	}
}

int size_parse(const char *text, uint64_t *ret_bytes)
{
	const char *at = text;
	unsigned int shift;
	uint64_t value = 0;
	int overflow = 0;

	for (; *at >= '0' && *at <= '9'; at++) {
		overflow |= __builtin_mul_overflow(value, 10u, &value);
		overflow |= __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value);
	}
	if (at == text || size_shift(*at, &shift) < 0 || (*at != '\0' && at[1] != '\0'))
		return -EINVAL;
	if (overflow || value > UINT64_MAX >> shift)
		return -ERANGE;
	*ret_bytes = value << shift;
	return 0;
}
