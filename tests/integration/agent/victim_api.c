/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program that knows of uhmm: it asks the mock daemon through libuhmm, and exits with 7 if
 * each answer came through as it was given.
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <uhmm/uhmm.h>
#include <unistd.h>

#define GOOD 7

/* The line that is wrong, as an exit status would say it: 8 and more. */
#define EXPECT(condition)                                                                          \
	do {                                                                                       \
		if (!(condition))                                                                  \
			return __COUNTER__ + 8;                                                    \
	} while (0)

static int use(struct uhmm *handle, unsigned char *memory, size_t page)
{
	unsigned char vec[4] = { 9, 9, 9, 9 };
	static const unsigned char want[4] = {
		UHMM_WHERE_HOST, UHMM_WHERE_TIER, UHMM_WHERE_LEAVING, UHMM_WHERE_POISONED,
	};

	EXPECT(uhmm_migrate(handle, memory, 0, UHMM_TO_TIER) == -EINVAL);
	EXPECT(uhmm_migrate(handle, memory, SIZE_MAX, UHMM_TO_TIER) == -EINVAL);
	EXPECT(uhmm_migrate(handle, memory, page, (enum uhmm_destination)2) == -EINVAL);
	/* Two pages and a byte of each neighbour: four. */
	EXPECT(uhmm_migrate(handle, memory + page - 1, 2 * page + 2, UHMM_TO_TIER) == 3);
	EXPECT(uhmm_migrate(handle, memory, page, UHMM_TO_HOME) == -ENOSPC);
	EXPECT(uhmm_query(handle, memory + 1, 4 * page - 2, vec) == 0);
	EXPECT(memcmp(vec, want, sizeof(vec)) == 0);
	/* The daemon hangs up. */
	EXPECT(uhmm_query(handle, memory, page, vec) == -ENOTCONN);
	EXPECT(uhmm_migrate(handle, memory, page, UHMM_TO_HOME) == -ENOTCONN);
	return GOOD;
}

int main(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	unsigned char *memory = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uhmm *handle = NULL, *second = NULL;
	int status;

	EXPECT(memory != MAP_FAILED);
	errno = 1234;
	EXPECT(uhmm_open("/nonexistent/socket", &handle) == -ENOENT && !handle);
	EXPECT(uhmm_open(NULL, &handle) == 0);
	EXPECT(uhmm_open(NULL, &second) == 0);
	uhmm_close(second);
	uhmm_close(NULL);
	status = use(handle, memory, page);
	uhmm_close(handle);
	EXPECT(errno == 1234);
	return status;
}
