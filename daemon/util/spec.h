/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Backend specifications: NAME or NAME:key=value,key=value. */
#ifndef UHMM_UTIL_SPEC_H
#define UHMM_UTIL_SPEC_H

#include <stddef.h>

#include "uhmm/backend.h"

/*
 * Split `spec`. NAME and the keys are [a-z0-9_-]+; a value is anything without a comma,
 * and not empty; no key comes twice. Name, keys and values lie in `buf`, which must
 * outlive them; `params` has room for max_params and the NULL key that ends it.
 * -EINVAL: not of this form; -ENAMETOOLONG: buf is too small; -E2BIG: too many params.
 */
int spec_parse(const char *spec, char *buf, size_t buf_bytes, char **ret_name,
	       struct uhmm_backend_param *params, size_t max_params);

#endif
