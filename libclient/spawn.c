/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes the mappings of an enrolled process and starts its agent. Called by enrol.c on the
 * thread that enrols, all signals blocked. Raw system calls only: no errno, no allocation.
 *
 * Everything but the beacon and the ring is MADV_DONTFORK, so that a child has neither
 * staging nor the stack of a thread that it does not have.
 */
#include "spawn.h"

#include <errno.h>
#include <linux/auxvec.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "link.h"
#include "sys.h"

#define STACK_BYTES (64ul << 10)
#define STAGING_ALIGN (2ul << 20)
#define START_MS 2000

_Static_assert(sizeof(struct uhmm_agent) <= 4096, "its data is one page");

static bool is_error(long ret)
{
	return (unsigned long)ret >= -4095ul;
}

size_t spawn_page_bytes(void)
{
	return (size_t)getauxval(AT_PAGESZ);
}

static long map_anonymous(size_t bytes, int prot)
{
	return sys_call6(SYS_mmap, 0, (long)bytes, prot,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static int advise(const struct spawn_area *area, int advice)
{
	return (int)sys_call3(SYS_madvise, (long)area->addr, (long)area->bytes, advice);
}

/* MADV_NOHUGEPAGE is EINVAL on a kernel that has no huge pages to begin with. */
static int advise_ours(const struct spawn_area *area)
{
	(void)advise(area, MADV_NOHUGEPAGE);
	return advise(area, MADV_DONTFORK);
}

void spawn_unmap(struct spawn_area *area)
{
	if (area->addr)
		(void)sys_call2(SYS_munmap, (long)area->addr, (long)area->bytes);
	area->addr = NULL;
	area->bytes = 0;
}

int spawn_map_ring(int ring_fd, size_t bytes, struct spawn_area *ret_area)
{
	long addr = sys_call6(SYS_mmap, 0, (long)bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
			      ring_fd, 0);

	if (is_error(addr))
		return (int)addr;
	ret_area->addr = (void *)addr;
	ret_area->bytes = bytes;
	return 0;
}

int spawn_map_staging(size_t bytes, struct spawn_area *ret_area)
{
	struct spawn_area area = { .bytes = bytes };
	long raw = map_anonymous(bytes + STAGING_ALIGN, PROT_READ | PROT_WRITE);
	size_t head, tail;
	int err;

	if (is_error(raw))
		return (int)raw;
	head = (STAGING_ALIGN - (size_t)raw % STAGING_ALIGN) % STAGING_ALIGN;
	tail = STAGING_ALIGN - head;
	if (head)
		(void)sys_call2(SYS_munmap, raw, (long)head);
	if (tail)
		(void)sys_call2(SYS_munmap, raw + (long)(head + bytes), (long)tail);
	area.addr = (void *)(raw + (long)head);
	err = advise_ours(&area);
	if (err) {
		spawn_unmap(&area);
		return err;
	}
	*ret_area = area;
	return 0;
}

/* From below: room to look at pages in, a page that catches a stack overflow, the stack, a page of data. */
int spawn_map_private(struct spawn_area *ret_area)
{
	size_t page = spawn_page_bytes();
	struct spawn_area area = { .bytes = AGENT_SCRATCH_BYTES + page + STACK_BYTES + page };
	long raw = map_anonymous(area.bytes, PROT_READ | PROT_WRITE);
	long err;

	if (is_error(raw))
		return (int)raw;
	area.addr = (void *)raw;
	err = advise_ours(&area);
	if (err == 0)
		err = sys_call3(SYS_mprotect, raw + (long)AGENT_SCRATCH_BYTES, (long)page, PROT_NONE);
	if (err) {
		spawn_unmap(&area);
		return (int)err;
	}
	*ret_area = area;
	return 0;
}

int spawn_map_beacon(struct spawn_area *ret_area, struct uhmm_beacon **ret_beacon)
{
	size_t page = spawn_page_bytes();
	struct spawn_area area = { .bytes = 3 * page };
	long raw = map_anonymous(area.bytes, PROT_NONE);
	struct uhmm_beacon *beacon;
	long err;

	if (is_error(raw))
		return (int)raw;
	area.addr = (void *)raw;
	(void)advise(&area, MADV_NOHUGEPAGE);
	err = sys_call3(SYS_mprotect, raw + (long)page, (long)page, PROT_READ | PROT_WRITE);
	if (err) {
		spawn_unmap(&area);
		return (int)err;
	}
	beacon = (struct uhmm_beacon *)(raw + (long)page);
	__atomic_store_n(&beacon->word, UHMM_BEACON_HERE, __ATOMIC_RELEASE);
	*ret_area = area;
	*ret_beacon = beacon;
	return 0;
}

struct uhmm_agent *spawn_agent_of(const struct spawn_area *private_area)
{
	return (struct uhmm_agent *)((char *)private_area->addr + private_area->bytes -
				     spawn_page_bytes());
}

/* Wait on a futex that other processes may share, until it changes or until `until_ms`. */
static void futex_wait(const uint32_t *word, uint32_t value, long until_ms)
{
	long left_ms = until_ms - link_now_ms();
	const struct timespec left = {
		.tv_sec = left_ms / 1000,
		.tv_nsec = left_ms % 1000 * 1000000,
	};

	if (left_ms > 0)
		(void)sys_call4(SYS_futex, (long)word, FUTEX_WAIT, value, (long)&left);
}

void spawn_release(struct uhmm_agent *agent, enum agent_go go)
{
	__atomic_store_n(&agent->go, (uint32_t)go, __ATOMIC_RELEASE);
	(void)sys_call3(SYS_futex, (long)&agent->go, FUTEX_WAKE_PRIVATE, 1);
}

static uint32_t await_start(const struct uhmm_agent *agent)
{
	const uint32_t *state = &agent->ring->agent_state;
	long until_ms = link_now_ms() + START_MS;
	uint32_t now;

	do {
		now = __atomic_load_n(state, __ATOMIC_ACQUIRE);
		if (now != UHMM_AGENT_STARTING)
			break;
		futex_wait(state, now, until_ms);
	} while (link_now_ms() < until_ms);
	return __atomic_load_n(state, __ATOMIC_ACQUIRE);
}

int spawn_agent(struct uhmm_agent *agent, const struct spawn_area *private_area, uint32_t *ret_tid)
{
	uint32_t state;
	long tid;

	agent->go = AGENT_GO_WAIT;
	__atomic_store_n(&agent->ring->agent_state, UHMM_AGENT_STARTING, __ATOMIC_RELEASE);
	tid = agent_clone(agent, (char *)private_area->addr + private_area->bytes -
					 spawn_page_bytes());
	if (tid < 0)
		return (int)tid;
	*ret_tid = (uint32_t)tid;
	agent->ring->agent_tid = (uint32_t)tid;
	state = await_start(agent);
	if (state == UHMM_AGENT_READY)
		return 0;
	/* Stopped by a debugger, say: it will end when it runs again. */
	spawn_release(agent, AGENT_GO_ABORT);
	return state == UHMM_AGENT_FAILED ? -EPERM : -ETIMEDOUT;
}

bool spawn_agent_gone(struct uhmm_agent *agent, uint32_t tid, long timeout_ms)
{
	const struct timespec nap = { .tv_nsec = 50 * 1000 };
	long until_ms = link_now_ms() + timeout_ms;
	long pid = sys_call0(SYS_getpid);
	uint32_t still;

	/* The kernel clears the word when the thread leaves the address space ... */
	while ((still = __atomic_load_n(&agent->tid, __ATOMIC_ACQUIRE)) != 0) {
		if (link_now_ms() >= until_ms)
			return false;
		futex_wait(&agent->tid, still, until_ms);
	}
	/* ... which is a moment before it leaves the thread group. */
	while (sys_call3(SYS_tgkill, pid, (long)tid, 0) != -ESRCH) {
		if (link_now_ms() >= until_ms)
			return false;
		(void)sys_call2(SYS_nanosleep, (long)&nap, 0);
	}
	/* Its number goes before its place in the group's list, both under a lock that any
	 * wait takes: after this the group is without it. */
	(void)sys_call6(SYS_waitid, P_ALL, 0, 0, WEXITED | WNOHANG | WNOWAIT, 0, 0);
	return true;
}
