/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <string.h>

#include "fixture.h"
#include "util/array.h"
#include "util/size.h"
#include "util/spec.h"

#define PARAMS 3

static char buf[32];
static char *name;
static struct uhmm_backend_param params[PARAMS + 1];

static int parse(const char *spec)
{
	return spec_parse(spec, buf, sizeof(buf), &name, params, PARAMS);
}

START_TEST(sizes_are_numbers_with_a_unit)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 },	       { "1", 1 },
		{ "4096", 4096 },      { "1k", 1024 },
		{ "64M", 64ull << 20 }, { "3G", 3ull << 30 },
		{ "2t", 2ull << 40 },  { "007", 7 },
		{ "18446744073709551615", UINT64_MAX },
		{ "16777215T", 16777215ull << 40 },
	};
	uint64_t bytes;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		ck_assert_msg(size_parse(good[i].text, &bytes) == 0, "%s", good[i].text);
		ck_assert_uint_eq(bytes, good[i].bytes);
	}
}
END_TEST

START_TEST(rubbish_is_no_size)
{
	static const char *const bad[] = { "",	  " ",	 "M",	"1MB",	"1 M", " 1", "1 ",
					   "-1",  "+1",	 "1.5G", "0x10", "1e3", "1P", "1KK",
					   "one", "1\n", "١" };
	uint64_t bytes = 77;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(size_parse(bad[i], &bytes) == -EINVAL, "'%s'", bad[i]);
	ck_assert_uint_eq(bytes, 77);
}
END_TEST

START_TEST(sizes_do_not_wrap)
{
	static const char *const bad[] = { "18446744073709551616", "16777216T", "99999999999999999999",
					   "18446744073709551615K",
					   "18446744073709551616000000000000000000000000T" };
	uint64_t bytes;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(size_parse(bad[i], &bytes) == -ERANGE, "%s", bad[i]);
}
END_TEST

START_TEST(a_name_alone_is_a_spec)
{
	ck_assert_int_eq(parse("ram"), 0);
	ck_assert_str_eq(name, "ram");
	ck_assert_ptr_null(params[0].key);
}
END_TEST

START_TEST(parameters_come_in_order)
{
	ck_assert_int_eq(parse("file:path=/a:b=c,x-y_1=2"), 0);
	ck_assert_str_eq(name, "file");
	ck_assert_str_eq(params[0].key, "path");
	ck_assert_str_eq(params[0].value, "/a:b=c");
	ck_assert_str_eq(params[1].key, "x-y_1");
	ck_assert_str_eq(params[1].value, "2");
	ck_assert_ptr_null(params[2].key);
}
END_TEST

START_TEST(malformed_specs_are_refused)
{
	static const char *const bad[] = { "",	      ":",	 ":a=b", "ram:",     "ram:a",
					   "ram:=b",  "ram:a=",	 "ram:a=b,", "ram:,a=b", "../x",
					   "a b",     "RAM",	 "ram:A=b",  "ram:a=b,a=c" };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(parse(bad[i]) == -EINVAL, "'%s'", bad[i]);
}
END_TEST

START_TEST(specs_have_limits)
{
	ck_assert_int_eq(parse("ram:a=1,b=2,c=3"), 0);
	ck_assert_int_eq(parse("ram:a=1,b=2,c=3,d=4"), -E2BIG);
	ck_assert_int_eq(parse("a234567890123456789012345678901"), 0);
	ck_assert_int_eq(parse("a2345678901234567890123456789012"), -ENAMETOOLONG);
}
END_TEST

START_TEST(an_array_grows_and_keeps_what_it_has)
{
	uint32_t *v = NULL, cap = 0;

	for (uint32_t n = 0; n < 1000; n++) {
		uint32_t before = cap;

		v = array_room(v, n, &cap, sizeof(*v));
		ck_assert_ptr_nonnull(v);
		ck_assert_uint_gt(cap, n);
		ck_assert(cap == before || n == before);
		v[n] = n;
	}
	for (uint32_t n = 0; n < 1000; n++)
		ck_assert_uint_eq(v[n], n);
	free(v);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("util");
	TCase *tcase = tcase_create("util");

	tcase_add_test(tcase, sizes_are_numbers_with_a_unit);
	tcase_add_test(tcase, rubbish_is_no_size);
	tcase_add_test(tcase, sizes_do_not_wrap);
	tcase_add_test(tcase, a_name_alone_is_a_spec);
	tcase_add_test(tcase, parameters_come_in_order);
	tcase_add_test(tcase, malformed_specs_are_refused);
	tcase_add_test(tcase, specs_have_limits);
	tcase_add_test(tcase, an_array_grows_and_keeps_what_it_has);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
