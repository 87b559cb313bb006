/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One agent gives way to the next while other threads look: nothing that was decided about
 * one happens to another, and nobody touches what the one before has taken along. The kernel's
 * part (whose userfaultfd, whose /proc) is answered by the wrappers below.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent.h"
#include "evict.h"
#include "fixture.h"
#include "uffd.h"

enum uffd_result __wrap_uffd_unregister(int uffd, uint64_t addr, uint64_t bytes);
int __wrap_space_verify(struct space *space, uint64_t staging_addr);
int __wrap_space_open_proc(struct space *space, pid_t pid);

static struct group group;
static struct space space;
static enum uffd_result unregister_says;

enum uffd_result __wrap_uffd_unregister(int uffd, uint64_t addr, uint64_t bytes)
{
	(void)uffd;
	(void)addr;
	(void)bytes;
	return unregister_says;
}

int __wrap_space_verify(struct space *of, uint64_t staging_addr)
{
	(void)of;
	(void)staging_addr;
	return 0;
}

int __wrap_space_open_proc(struct space *of, pid_t pid)
{
	(void)of;
	(void)pid;
	return 0;
}

/* A new agent; returns the program's end of its socket. */
static struct attach attach_make(int *ret_peer)
{
	struct attach attach = { .pid = getpid(), .uid = 5, .ring_fd = -1 };
	int ends[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
				    ends), 0);
	attach.sock = ends[0];
	attach.ring = mmap(NULL, sizeof(*attach.ring), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	fixture_must(attach.ring != MAP_FAILED, "no ring");
	*ret_peer = ends[1];
	return attach;
}

static int attach_one(uint32_t *ret_gen)
{
	struct attach attach;
	int peer;

	attach = attach_make(&peer);
	fixture_must(agent_attach(&space, &attach) == 0, "not attached");
	fixture_must(attach.ring == NULL && attach.sock == -1, "not taken over");
	*ret_gen = attach.gen;
	return peer;
}

/* The type of the next packet, 0: none. */
static uint32_t next_packet(int peer)
{
	union {
		struct uhmm_msg h;
		char bytes[512];
	} msg;

	return recv(peer, &msg, sizeof(msg), 0) > 0 ? msg.h.type : 0;
}

static void setup(void)
{
	space.group = &group;
	space.page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	space.page_shift = (unsigned int)__builtin_ctzll(space.page_size);
	space.sock = space.ring_fd = -1;
	space.mail_efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	space.agent_efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	space.uffd = -1;
	space.peek_fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	space.pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	space.n_batches = 1;
	space.batches = calloc(1, sizeof(*space.batches));
	space.unit = calloc(1, sizeof(*space.unit));
	space.state = SPACE_SERVING;
	pthread_mutex_init(&space.agent_lock, NULL);
}

static void teardown(void)
{
	free(space.batches);
	free(space.unit);
	if (space.ring)
		munmap(space.ring, sizeof(*space.ring));
}

START_TEST(an_agent_is_told_to_end_once)
{
	struct agent_view view;
	uint32_t gen;
	int peer;

	ck_assert(!agent_view(&space, &view));
	peer = attach_one(&gen);
	ck_assert(agent_view(&space, &view));
	ck_assert_uint_eq(view.gen, gen);
	ck_assert_uint_eq(view.uid, 5);
	ck_assert(agent_dismiss(&space, gen, UHMM_REASON_SECCOMP, true));
	ck_assert(!agent_dismiss(&space, gen, UHMM_REASON_NO_AGENT, true));
	ck_assert(!space_has_agent(&space));
	ck_assert_uint_eq(space.agent_reason, UHMM_REASON_SECCOMP);
	ck_assert(agent_is_sandboxed(&space));
	ck_assert_uint_eq(next_packet(peer), UHMM_MSG_READY);
	ck_assert_uint_eq(next_packet(peer), UHMM_MSG_MEMORY);
	ck_assert_uint_eq(next_packet(peer), UHMM_MSG_QUIT);
	ck_assert_uint_eq(next_packet(peer), 0);
}
END_TEST

START_TEST(what_was_decided_about_one_agent_never_happens_to_the_next)
{
	uint32_t first, second;
	int peer;

	close(attach_one(&first));
	ck_assert(agent_dismiss(&space, first, UHMM_REASON_NO_AGENT, false));
	peer = attach_one(&second);
	ck_assert_uint_ne(first, second);
	/* Only now does the end of the first one's socket arrive. */
	ck_assert(!agent_dismiss(&space, first, UHMM_REASON_NO_AGENT, true));
	ck_assert(space_has_agent(&space));
	ck_assert_uint_eq(next_packet(peer), UHMM_MSG_READY);
	ck_assert_uint_eq(next_packet(peer), UHMM_MSG_MEMORY);
	ck_assert_uint_eq(next_packet(peer), 0);
}
END_TEST

START_TEST(nobody_retires_who_is_just_back)
{
	uint32_t gen;
	int peer = attach_one(&gen);

	(void)next_packet(peer); /* READY */
	(void)next_packet(peer); /* MEMORY */
	space.recovered = true;
	ck_assert(!agent_retire(&space, gen, UHMM_REASON_UID_CHANGED));
	ck_assert(space_has_agent(&space));
	ck_assert_uint_eq(next_packet(peer), 0);
	/* Nothing can be away of one that has had no worker. */
	space.recovered = false;
	ck_assert(agent_retire(&space, gen, UHMM_REASON_UID_CHANGED));
	ck_assert_uint_eq(next_packet(peer), UHMM_MSG_QUIT);
}
END_TEST

START_TEST(a_second_agent_beside_the_first_is_refused)
{
	struct attach attach;
	uint32_t gen;
	int peer;

	(void)attach_one(&gen);
	attach = attach_make(&peer);
	ck_assert_int_eq(agent_attach(&space, &attach), -EBUSY);
	ck_assert_int_ge(attach.sock, 0);
	ck_assert_uint_eq(space.agent_gen, gen);
}
END_TEST

START_TEST(no_agent_follows_one_that_may_still_move)
{
	struct attach attach;
	uint32_t gen;
	int peer;

	(void)attach_one(&gen);
	space.batches[0].state = BATCH_MOVING;
	space.batches[0].beacon = true;
	space.batches[0].n_pages = 1;
	space.batches[0].seq = 1;
	ck_assert(agent_dismiss(&space, gen, UHMM_REASON_NO_AGENT, false));
	attach = attach_make(&peer);
	unregister_says = UFFD_NO_MEM;
	ck_assert_int_eq(agent_attach(&space, &attach), -EAGAIN);
	ck_assert_int_eq(space.batches[0].state, BATCH_MOVING);
	unregister_says = UFFD_OK;
	ck_assert_int_eq(agent_attach(&space, &attach), 0);
	ck_assert_int_eq(space.batches[0].state, BATCH_IDLE);
}
END_TEST

static void *dismiss_run(void *arg)
{
	bool *stop = arg;
	struct agent_view view;

	while (!__atomic_load_n(stop, __ATOMIC_RELAXED))
		if (agent_view(&space, &view))
			(void)agent_dismiss(&space, view.gen, UHMM_REASON_SECCOMP, true);
	return NULL;
}

START_TEST(agents_come_and_go_under_a_keeper_that_looks)
{
	bool stop = false;
	pthread_t keeper;

	ck_assert_int_eq(pthread_create(&keeper, NULL, dismiss_run, &stop), 0);
	for (int i = 0; i < 2000; i++) {
		uint32_t gen;

		close(attach_one(&gen));
		while (space_has_agent(&space))
			;
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(keeper, NULL);
}
END_TEST

/* A process of the same family, which has an agent; returns the program's end of its socket. */
static int relative_make(struct space *of)
{
	int ends[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
				    ends), 0);
	of->family = space.family;
	of->sock = ends[0];
	of->uffd = of->mail_efd = -1;
	of->state = SPACE_SERVING;
	of->identified = of->worker_started = true;
	of->n_refs = 1;
	pthread_mutex_init(&of->agent_lock, NULL);
	list_add_tail(&registry_spaces, &of->link);
	return ends[1];
}

/* Without an agent: that of `space` keeps its userfaultfd. */
static void ward_make(struct space *of)
{
	(void)relative_make(of);
	of->agent_reason = UHMM_REASON_NO_AGENT;
	of->uffd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	of->warden = space_ref(&space);
}

START_TEST(another_agent_of_the_family_keeps_what_an_ending_one_kept)
{
	static struct space other, ward, second;
	int peer;

	space.family = (struct family *)(void *)&group; /* whichever it is */
	space.n_refs = 1;
	ward_make(&ward);
	agent_leave_wards(&space);
	ck_assert_ptr_eq(ward.warden, &space);
	ck_assert_uint_ne(ward.retired_gen, 0);
	ck_assert(agent_has_wards(&space));

	peer = relative_make(&other);
	ward_make(&second);
	agent_leave_wards(&space);
	ck_assert_ptr_eq(second.warden, &other);
	ck_assert_uint_eq(second.retired_gen, 0);
	ck_assert_uint_eq(other.n_refs, 3);
	ck_assert_uint_eq(space.n_refs, 1);
	ck_assert(!agent_has_wards(&space));
	ck_assert_uint_eq(next_packet(peer), UHMM_MSG_CHILD);
	/* Both of them, and each is forgotten when it needs nobody any more. */
	ck_assert_uint_eq(next_packet(peer), UHMM_MSG_CHILD);
	ck_assert_uint_eq(next_packet(peer), 0);
	agent_free_warden(&second);
	ck_assert_ptr_null(second.warden);
	ck_assert_uint_eq(other.n_refs, 2);
	ck_assert_uint_eq(next_packet(peer), UHMM_MSG_CHILD);
}
END_TEST

START_TEST(nobody_else_keeps_a_child_of_another_family_or_user)
{
	static struct space other, third, ward;

	space.family = (struct family *)(void *)&group;
	space.n_refs = 1;
	(void)relative_make(&other);
	other.family = NULL;
	(void)relative_make(&third);
	third.uid = 1;
	ward_make(&ward);
	agent_leave_wards(&space);
	ck_assert_ptr_eq(ward.warden, &space);
	ck_assert_uint_ne(ward.retired_gen, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("agent");
	TCase *tcase = tcase_create("agent");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, an_agent_is_told_to_end_once);
	tcase_add_test(tcase, what_was_decided_about_one_agent_never_happens_to_the_next);
	tcase_add_test(tcase, nobody_retires_who_is_just_back);
	tcase_add_test(tcase, a_second_agent_beside_the_first_is_refused);
	tcase_add_test(tcase, no_agent_follows_one_that_may_still_move);
	tcase_add_test(tcase, agents_come_and_go_under_a_keeper_that_looks);
	tcase_add_test(tcase, another_agent_of_the_family_keeps_what_an_ending_one_kept);
	tcase_add_test(tcase, nobody_else_keeps_a_child_of_another_family_or_user);
	suite_add_tcase(suite, tcase);
	return fixture_main(suite);
}
