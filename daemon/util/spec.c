/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Splits backend specifications. Pure; any thread. */
#include "spec.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

static bool spec_is_word(const char *text)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789_-";

	return *text != '\0' && text[strspn(text, allowed)] == '\0';
}

static bool spec_has_key(const struct uhmm_backend_param *params, size_t n, const char *key)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (strcmp(params[i].key, key) == 0)
			return true;
	}
	return false;
}

/* Split "key=value" in place. */
static int spec_split_param(char *text, struct uhmm_backend_param *ret_param)
{
	char *value = strchr(text, '=');

	if (value == NULL || value[1] == '\0')
		return -EINVAL;
	*value++ = '\0';
	if (!spec_is_word(text))
		return -EINVAL;
	*ret_param = (struct uhmm_backend_param){ .key = text, .value = value };
	return 0;
}

static int spec_split_params(char *text, struct uhmm_backend_param *params, size_t max_params)
{
	size_t n = 0;

	while (text != NULL) {
		struct uhmm_backend_param param;
		char *one = strsep(&text, ",");
		int r = spec_split_param(one, &param);

		if (r < 0)
			return r;
		if (spec_has_key(params, n, param.key))
			return -EINVAL;
		if (n == max_params)
			return -E2BIG;
		params[n++] = param;
	}
	params[n] = (struct uhmm_backend_param){ .key = NULL };
	return 0;
}

int spec_parse(const char *spec, char *buf, size_t buf_bytes, char **ret_name,
	       struct uhmm_backend_param *params, size_t max_params)
{
	char *rest;
	int r;

	if (strlen(spec) >= buf_bytes)
		return -ENAMETOOLONG;
	strcpy(buf, spec);
	rest = strchr(buf, ':');
	if (rest != NULL)
		*rest++ = '\0';
	if (!spec_is_word(buf))
		return -EINVAL;
	r = spec_split_params(rest, params, max_params);
	if (r == 0)
		*ret_name = buf;
	return r;
}
