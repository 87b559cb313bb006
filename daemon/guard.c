/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guard. The userfaultfd that a FORK event brings is nobody's but the daemon's from the read(2)
 * until the parent's agent has it. If that were closed, the child's memory would read zero where it
 * is away, from its stack on, and not even its own library could be relied on to end it.
 *
 * So there is a second process, which shares the daemon's descriptors (CLONE_FILES) and one page of
 * notes, and nothing else. A descriptor that the kernel puts into the daemon's table is in its own.
 * It waits for the daemon's end, passes on what the notes say, and ends too: only then does any
 * agent see that the daemon is gone, and what it was given is before that in its socket.
 *
 * Owner: the daemon starts it; nobody waits for it. Killed together with the daemon it cannot help:
 * then a child that is lost sees a beacon of zeros, see wire.h.
 *
 * Never here, in the guard: a descriptor opened or closed while the daemon lives.
 */
#define _GNU_SOURCE
#include "guard.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "event_log.h"
#include "uhmm/wire.h"
#include "wire.h"

/* So many threads read at once; any more go without. */
#define NOTES_MAX 64u
/* A guard has ended so long after its daemon. */
#define END_MS 1000u
#define END_STEP_MS 5u

enum note_state {
	NOTE_FREE = 0,
	NOTE_TAKEN, /* it says nothing yet */
	NOTE_HOLDS,
};

struct guard_note {
	uint32_t state; /* enum note_state, atomic */
	int32_t sock, log_fd;
	uint32_t n;
	uint64_t log_off;
};

static struct guard_note *notes; /* NOTES_MAX, shared with the guard; NULL: there is none */
static pid_t started;

/* ---- in the daemon ----------------------------------------------------------------------- */

pid_t guard_pid(void)
{
	return started;
}

struct guard_note *guard_begin(int sock, int log_fd, uint64_t log_off, uint32_t n)
{
	for (uint32_t i = 0; notes && i < NOTES_MAX; i++) {
		struct guard_note *note = &notes[i];
		uint32_t free = NOTE_FREE;

		if (!__atomic_compare_exchange_n(&note->state, &free, NOTE_TAKEN, false,
						 __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
			continue;
		note->sock = sock;
		note->log_fd = log_fd;
		note->n = n;
		note->log_off = log_off;
		__atomic_store_n(&note->state, NOTE_HOLDS, __ATOMIC_RELEASE);
		return note;
	}
	return NULL;
}

void guard_end(struct guard_note *note)
{
	if (note)
		__atomic_store_n(&note->state, NOTE_FREE, __ATOMIC_RELEASE);
}

bool guard_may_be_ending(unsigned int *waited_ms)
{
	const struct timespec step = { .tv_nsec = END_STEP_MS * 1000000 };

	if (*waited_ms >= END_MS)
		return false;
	(void)nanosleep(&step, NULL);
	*waited_ms += END_STEP_MS;
	return true;
}

/* ---- in the guard ------------------------------------------------------------------------ */

static bool is_zero(const uint8_t token[UHMM_TOKEN_BYTES])
{
	static const uint8_t none[UHMM_TOKEN_BYTES];

	return memcmp(token, none, sizeof(none)) == 0;
}

/* What the daemon would have done next. If it had done so already, the agent takes the second for
 * the first. */
static void pass_on(const struct guard_note *note, uint64_t off, struct uffd_msg *msg)
{
	struct uhmm_msg_child child = { .h = { .type = UHMM_MSG_CHILD, .len = sizeof(child) } };
	uint8_t *token = event_log_token(msg);
	int uffd = (int)msg->arg.fork.ufd;

	if (is_zero(token) && (getrandom(token, UHMM_TOKEN_BYTES, 0) != UHMM_TOKEN_BYTES ||
			       pwrite(note->log_fd, token, UHMM_TOKEN_BYTES,
				      (off_t)(off + (uint64_t)(token - (uint8_t *)msg))) !=
				       UHMM_TOKEN_BYTES))
		return;
	memcpy(child.token, token, UHMM_TOKEN_BYTES);
	(void)wire_send(note->sock, &child, sizeof(child), &uffd, 1, MSG_DONTWAIT);
}

static void settle(const struct guard_note *note)
{
	for (uint32_t i = 0; i < note->n; i++) {
		uint64_t off = note->log_off + i * sizeof(struct uffd_msg);
		struct uffd_msg msg;

		/* Behind the last that was read there are zeros. */
		if (pread(note->log_fd, &msg, sizeof(msg), (off_t)off) != sizeof(msg) ||
		    msg.event == 0)
			return;
		if (msg.event == UFFD_EVENT_FORK)
			pass_on(note, off, &msg);
	}
}

__attribute__((noreturn)) static void guard_run(int daemon_pidfd)
{
	struct pollfd pollfd = { .fd = daemon_pidfd, .events = POLLIN };
	sigset_t all;

	/* Whoever stops the daemon means the daemon. */
	sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, NULL);
	(void)prctl(PR_SET_NAME, "uhmmd-guard", 0, 0, 0);
	while (poll(&pollfd, 1, -1) != 1)
		;
	for (uint32_t i = 0; i < NOTES_MAX; i++)
		if (__atomic_load_n(&notes[i].state, __ATOMIC_ACQUIRE) == NOTE_HOLDS)
			settle(&notes[i]);
	_exit(0);
}

int guard_start(void)
{
	int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	void *map = MAP_FAILED;
	long pid;

	if (pidfd < 0)
		return -errno;
	map = mmap(NULL, NOTES_MAX * sizeof(*notes), PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED) {
		(void)close(pidfd);
		return -ENOMEM;
	}
	notes = map;
	/* A fork that shares the table of descriptors, and of whose end nobody is told. */
	pid = syscall(SYS_clone, (long)CLONE_FILES, 0l, 0l, 0l, 0l);
	if (pid == 0)
		guard_run(pidfd);
	if (pid > 0) {
		started = (pid_t)pid;
		return 0;
	}
	pid = -errno;
	(void)munmap(map, NOTES_MAX * sizeof(*notes));
	notes = NULL;
	(void)close(pidfd);
	return (int)pid;
}
