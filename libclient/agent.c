/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Everything that runs on the agent's thread, and the clone that starts it.
 *
 * Freestanding. The thread has no thread-local storage of its own (its fs register is the
 * starter's), a small stack, and lives in a program whose memory may be away at any time.
 * So nothing here may touch the program's memory, errno, the library's .data, .bss or its
 * global offset table, call the C library, or allocate: a fault on an evicted page would be
 * served, but the daemon may be waiting for this very thread. What it touches is its stack,
 * struct uhmm_agent, the ring, staging (as an argument of system calls only) and its own
 * code. Nor may it make a system call that waits where a page is away: this thread has the
 * userfaultfd that the daemon after this one serves by. Those that take an address of the
 * program's fail there. Its objects (this, agent_link.c and rejoin.c) together must have no
 * undefined symbol; a test looks.
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>

#include "agent_link.h"
#include "rejoin.h"
#include "uapi-mini.h"

/* This many runs in a row that answer EINVAL mean that the daemon closed the gate. */
#define GATE_CLOSED_RUNS 8u

/* The C library aligns struct pthread at least so. */
#define TCB_ALIGN 64u
/* In its mutexes' kind. */
#define MUTEX_KIND_ROBUST 16u

__attribute__((visibility("hidden"), noreturn, used)) void
uhmm_agent_main(struct uhmm_agent *agent);

long agent_clone(struct uhmm_agent *agent, void *stack_top)
{
	void **sp = (void **)stack_top - 2;
	register uint32_t *child_tid __asm__("r10") = &agent->tid;
	register long tls __asm__("r8") = 0;
	long ret;

	sp[0] = agent;
	sp[1] = NULL;
	/* The child has another stack, so it must not return from here: it takes its
	 * argument from the stack and never comes back. */
	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov (%%rsp), %%rdi\n\t"
			 "call uhmm_agent_main\n\t"
			 "ud2\n"
			 "1:"
			 : "=a"(ret)
			 : "a"((long)SYS_clone), "D"((long)AGENT_CLONE_FLAGS), "S"(sp),
			   "d"(&agent->tid), "r"(child_tid), "r"(tls)
			 : "rcx", "r11", "memory");
	return ret;
}

__attribute__((noreturn)) static void agent_end(struct uhmm_agent *agent, uint32_t state)
{
	/* One call and no more: under a filter each one may be the program's death. The
	 * kernel closes our table, clears agent->tid and wakes who waits for that. */
	__atomic_store_n(&agent->ring->agent_state, state, __ATOMIC_RELEASE);
	for (;;)
		(void)sys_call1(SYS_exit, 0);
}

static void futex_wake_all(uint32_t *word)
{
	(void)sys_call3(SYS_futex, (long)word, FUTEX_WAKE, 0x7fffffff);
}

/* --- becoming harmless --------------------------------------------------------------- */

/* What it needs, in a list that stays sorted. */
struct fd_list {
	uint32_t n;
	uint32_t fds[3 + UHMM_CHILDREN_MAX];
};

static void fd_list_add(struct fd_list *list, int fd)
{
	uint32_t at = list->n;

	if (fd < 0)
		return;
	for (; at > 0 && list->fds[at - 1] > (uint32_t)fd; at--)
		WRITE_ONCE(list->fds[at], list->fds[at - 1]);
	list->fds[at] = (uint32_t)fd;
	list->n++;
}

/* Close all of the copied table but ours: nobody may wait for an end of file on a pipe that
 * only the agent still holds. */
static long close_all_but_ours(const struct uhmm_agent *agent)
{
	struct fd_list ours;
	uint32_t first = 0;

	ours.n = 0;
	fd_list_add(&ours, agent->sock);
	fd_list_add(&ours, agent->uffd);
	fd_list_add(&ours, agent->event_fd);
	for (uint32_t i = 0; i < agent->n_children; i++)
		fd_list_add(&ours, agent->children[i].fd);
	for (uint32_t i = 0; i < ours.n; i++) {
		if (ours.fds[i] > first) {
			long err = sys_call3(SYS_close_range, first, (long)ours.fds[i] - 1, 0);

			if (err < 0)
				return err;
		}
		first = ours.fds[i] + 1;
	}
	return sys_call3(SYS_close_range, first, UINT32_MAX, 0);
}

/* Permitted, effective and inheritable; ambient follows permitted. The uid stays: changing it
 * would clear the whole program's dumpable flag. */
static long drop_capabilities(void)
{
	struct __user_cap_header_struct header;
	struct __user_cap_data_struct none[2];

	header.version = _LINUX_CAPABILITY_VERSION_3;
	header.pid = 0;
	for (unsigned int i = 0; i < 2; i++) {
		WRITE_ONCE(none[i].effective, 0);
		WRITE_ONCE(none[i].permitted, 0);
		WRITE_ONCE(none[i].inheritable, 0);
	}
	return sys_call2(SYS_capset, (long)&header, (long)none);
}

/*
 * Forbid ourselves to open files and to connect or bind TCP sockets. Landlock and
 * no_new_privs are both properties of one thread, so the program does not notice; descriptors
 * that are open already go on working. A kernel without Landlock has none to give.
 */
static void forbid_files_and_network(void)
{
	struct uhmm_landlock_attr attr;
	long abi, fd;
	long attr_bytes = 8;

	if (sys_call6(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0) < 0)
		return;
	abi = sys_call3(SYS_landlock_create_ruleset, 0, 0, UHMM_LANDLOCK_QUERY_VERSION);
	if (abi < 1)
		return;
	attr.access_fs = (1u << 13) - 1;
	attr.access_net = 0;
	attr.scoped = 0;
	if (abi >= 2)
		attr.access_fs |= 1u << 13; /* refer */
	if (abi >= 3)
		attr.access_fs |= 1u << 14; /* truncate */
	if (abi >= 4) {
		attr.access_net = 3; /* bind and connect TCP */
		attr_bytes = 16;
	}
	if (abi >= 6) {
		attr.scoped = 3; /* abstract sockets, signals */
		attr_bytes = 24;
	}
	fd = sys_call3(SYS_landlock_create_ruleset, (long)&attr, attr_bytes, 0);
	if (fd < 0)
		return;
	(void)sys_call2(SYS_landlock_restrict_self, fd, 0);
	sys_close((int)fd);
}

static bool become_harmless(const struct uhmm_agent *agent)
{
	static const char name[16] = "uhmm-agent";
	static const char root[] = "/";

	if (close_all_but_ours(agent) < 0)
		return false;
	/* Only a courtesy: the directory that the program was started in can be unmounted. */
	(void)sys_call1(SYS_chdir, (long)root);
	/* Under a filter only what was tried; it covers this thread as well as the others. */
	if ((!agent->filtered || agent->has_caps) && drop_capabilities() < 0)
		return false;
	if (!agent->filtered)
		forbid_files_and_network();
	(void)sys_call6(SYS_prctl, PR_SET_NAME, (long)name, 0, 0, 0, 0);
	return true;
}

/* --- one command --------------------------------------------------------------------- */

/* Who waits on a word that was this before is woken, and looks again as one has to. */
#define RARE_WORD 0x5a5

/*
 * Break the copy-on-write sharing that a fork left on a page: the kernel MOVEs none that
 * another process may still share, even when that process has long ended, until the next
 * write. This is a write that changes nothing, an atomic OR with 0. It answers with an error
 * where a store would kill the program, and where the page is away, at once. A page that is busy
 * because it is pinned stays so.
 */
static bool make_exclusive(uint64_t addr)
{
	uint32_t nobody_waits = 0;

	return sys_call6(SYS_futex, (long)&nobody_waits, FUTEX_WAKE_OP_PRIVATE, 0, 0, (long)addr,
			 FUTEX_OP(FUTEX_OP_OR, 0, FUTEX_OP_CMP_EQ, RARE_WORD)) >= 0;
}

/*
 * Is a thread's control block of the C library in this page? It begins with a pointer to
 * itself, and has another 16 bytes on, from before the thread exists until its stack is reused.
 * An exiting thread's faults are not delivered, so such a page never leaves; the daemon knows
 * the threads that there were a moment ago, this finds the one that was born since.
 */
static bool holds_tcb(const uint64_t *words, uint64_t addr, uint64_t page_bytes)
{
	const uint64_t step = TCB_ALIGN / sizeof(*words);

	for (uint64_t i = 0; i + 2 < page_bytes / sizeof(*words); i += step) {
		uint64_t self = addr + i * sizeof(*words);

		if (words[i] == self && words[i + 2] == self)
			return true;
	}
	return false;
}

/*
 * Does a thread hold a robust mutex of the C library in this page? An ending thread writes
 * those, too. struct __pthread_mutex_s: lock, count, owner, nusers, kind, each 4 bytes.
 */
static bool holds_robust_mutex(const uint64_t *words, uint64_t page_bytes)
{
	for (uint64_t i = 0; i + 2 < page_bytes / sizeof(*words); i++) {
		uint32_t owner = (uint32_t)words[i + 1];

		if (words[i + 1] >> 32 == 1 && owner != 0 &&
		    ((uint32_t)words[i] & FUTEX_TID_MASK) == owner &&
		    (uint32_t)words[i + 2] & MUTEX_KIND_ROBUST)
			return true;
	}
	return false;
}

static bool must_stay(const struct uhmm_agent *agent, uint64_t at, uint64_t addr)
{
	const uint64_t *words = (const void *)(agent->scratch + at);

	return holds_tcb(words, addr, agent->page_bytes) ||
	       holds_robust_mutex(words, agent->page_bytes);
}

/* So many pages are looked for at once. */
#define PRESENT_PAGES_MAX 64u

/* How many bytes from addr on are there. To look at what was never touched would make a page
 * there, and what is in swap need not leave. */
static uint64_t present_bytes(const struct uhmm_agent *agent, uint64_t addr, uint64_t len)
{
	unsigned char present[PRESENT_PAGES_MAX];
	uint64_t at = 0, max = PRESENT_PAGES_MAX * agent->page_bytes;

	if (len > max)
		len = max;
	/* What of it is mapped can be read. */
	if (sys_call3(SYS_mincore, (long)addr, (long)len, (long)present) < 0)
		return len;
	while (at < len && READ_ONCE(present[at / agent->page_bytes]) & 1)
		at += agent->page_bytes;
	return at;
}

/*
 * How many bytes from addr on may leave: none that was not looked at. Through a descriptor of the
 * process's memory, which answers EIO where a page is away, though it was there a moment ago: any
 * other way to read waits for the daemon then. And a load of memory that the program has just
 * protected would kill it.
 */
static uint64_t may_leave(const struct uhmm_agent *agent, uint64_t addr, uint64_t len)
{
	uint64_t max = len < AGENT_SCRATCH_BYTES ? len : AGENT_SCRATCH_BYTES;
	uint64_t at = 0, piece = present_bytes(agent, addr, max);
	long got = 0;

	if (piece)
		got = sys_call4(SYS_pread64, agent->mem_fd, (long)agent->scratch, (long)piece,
				(long)addr);
	while (got > 0 && at + agent->page_bytes <= (uint64_t)got &&
	       !must_stay(agent, at, addr + at))
		at += agent->page_bytes;
	return at;
}

/*
 * Move [src, src + len) to dst. A page that will not move is skipped and remembered in
 * *ret_result. Returns 0 (go on with the next run), -EINVAL (nothing of what is left of this
 * run can move), or another negative errno that ends the command.
 */
static long move_run(const struct uhmm_agent *agent, uint64_t dst, uint64_t src, uint64_t len,
		     int32_t *ret_result)
{
	uint64_t done = 0, seen = 0; /* [0, seen) has been looked at */
	uint64_t made_exclusive = len; /* none yet */

	while (done < len) {
		struct uhmm_uffdio_move move;
		long err;

		if (done >= seen) {
			seen = done + may_leave(agent, src + done, len - done);
			if (seen == done) {
				*ret_result = -EBUSY;
				done += agent->page_bytes;
				continue;
			}
		}
		move.dst = dst + done;
		move.src = src + done;
		move.len = seen - done;
		move.mode = UHMM_UFFDIO_MOVE_ALLOW_SRC_HOLES;
		move.move = 0;
		err = sys_call3(SYS_ioctl, agent->uffd, (long)UHMM_UFFDIO_MOVE, (long)&move);
		if (err == 0) {
			done = seen;
			continue;
		}
		if (READ_ONCE(move.move) > 0) {
			/* Progress, whatever errno says; the next round tells what stopped it. */
			done += (uint64_t)READ_ONCE(move.move);
			continue;
		}
		if (err == -EBUSY && made_exclusive != done) {
			made_exclusive = done;
			if (make_exclusive(src + done))
				continue;
		}
		if (err != -EBUSY && err != -ENOENT && err != -EEXIST && err != -EFAULT) {
			*ret_result = (int32_t)err;
			return err;
		}
		*ret_result = (int32_t)err;
		done += agent->page_bytes;
	}
	return 0;
}

/* Write [addr, addr + len) to the slot file; nothing of it counts unless all was written. */
static int32_t store_run(int fd, uint64_t addr, uint64_t len, uint64_t off)
{
	uint64_t done = 0;

	while (done < len) {
		long n = sys_call4(SYS_pwrite64, fd, (long)(addr + done), (long)(len - done),
				   (long)(off + done));

		if (n < 0)
			return (int32_t)n;
		if (n == 0)
			return -EIO;
		done += (uint64_t)n;
	}
	return 0;
}

/* Does the run lie within the staging chunk? The ring is shared memory. */
static bool run_fits(const struct uhmm_agent *agent, uint32_t page, uint32_t n_pages)
{
	uint64_t end = ((uint64_t)page + n_pages) * agent->page_bytes;

	return n_pages != 0 && end <= agent->chunk_bytes;
}

static int32_t do_moves(const struct uhmm_agent *agent, struct uhmm_ring_box *box, uint64_t chunk,
			uint32_t n_runs)
{
	unsigned int n_einval = 0;

	if (agent->mem_fd < 0)
		return -EBADF;
	for (uint32_t i = 0; i < n_runs; i++) {
		struct uhmm_run *run = &box->runs[i];
		uint32_t page = READ_ONCE(run->staging_page);
		uint32_t n_pages = READ_ONCE(run->n_pages);
		int32_t result = 0;
		long err;

		if (!run_fits(agent, page, n_pages))
			return -ERANGE;
		err = move_run(agent, chunk + page * agent->page_bytes, READ_ONCE(run->home_addr),
			       n_pages * agent->page_bytes, &result);
		WRITE_ONCE(run->result, result);
		if (err != 0 && err != -EINVAL)
			return (int32_t)err;
		n_einval = err == -EINVAL ? n_einval + 1 : 0;
		if (n_einval == GATE_CLOSED_RUNS)
			return -EINVAL;
	}
	return 0;
}

/*
 * A run whose MOVE in the same command left a page behind is not stored, and keeps that
 * result: a hole in staging would be read as zeros, or block on the daemon.
 */
static int32_t do_stores(const struct uhmm_agent *agent, struct uhmm_ring_box *box, uint64_t chunk,
			 uint32_t n_runs, bool moved)
{
	uint32_t file = READ_ONCE(box->slots);

	if (file >= agent->n_slot_files)
		return -EBADF;
	for (uint32_t i = 0; i < n_runs; i++) {
		struct uhmm_run *run = &box->runs[i];
		uint32_t page = READ_ONCE(run->staging_page);
		uint32_t n_pages = READ_ONCE(run->n_pages);

		if (!run_fits(agent, page, n_pages))
			return -ERANGE;
		if (moved && READ_ONCE(run->result) != 0)
			continue;
		WRITE_ONCE(run->result, store_run(agent->slot_files[file],
						  chunk + page * agent->page_bytes,
						  n_pages * agent->page_bytes,
						  READ_ONCE(run->store_off)));
	}
	return 0;
}

/* Copy [from, from + len) of the object to its slot file; nothing of it counts unless all was
 * written. Through the descriptor, not through the program's mapping, which the program may
 * change at any time. */
static int32_t copy_run(const struct uhmm_agent *agent, uint64_t from, uint64_t len, uint64_t to)
{
	for (uint64_t done = 0; done < len;) {
		uint64_t left = len - done;
		uint64_t piece = left < AGENT_SCRATCH_BYTES ? left : AGENT_SCRATCH_BYTES;
		long n = sys_call4(SYS_pread64, agent->object_fd, (long)agent->scratch,
				   (long)piece, (long)(from + done));
		int32_t err;

		if (n <= 0)
			return n < 0 ? (int32_t)n : -EIO;
		err = store_run(agent->object_slots_fd, (uint64_t)agent->scratch, (uint64_t)n,
				to + done);
		if (err < 0)
			return err;
		done += (uint64_t)n;
	}
	return 0;
}

static int32_t do_copies(const struct uhmm_agent *agent, struct uhmm_ring_box *box)
{
	uint32_t n_runs = READ_ONCE(box->n_runs);

	if (n_runs > UHMM_RING_RUNS || READ_ONCE(box->ops) != UHMM_OP_COPY)
		return -ERANGE;
	for (uint32_t i = 0; i < n_runs; i++) {
		struct uhmm_run *run = &box->runs[i];

		WRITE_ONCE(run->result, copy_run(agent, READ_ONCE(run->home_addr),
						 READ_ONCE(run->n_pages) * agent->page_bytes,
						 READ_ONCE(run->store_off)));
	}
	return 0;
}

static int32_t do_command(const struct uhmm_agent *agent, struct uhmm_ring_box *box, uint64_t chunk)
{
	uint32_t ops = READ_ONCE(box->ops);
	uint32_t n_runs = READ_ONCE(box->n_runs);
	int32_t status = 0;

	if (n_runs > UHMM_RING_RUNS)
		return -ERANGE;
	/* The _LOCKED kind also frees after an mlockall that caught staging. */
	if (ops & UHMM_OP_FREE)
		status = (int32_t)sys_call3(SYS_madvise, (long)chunk, (long)agent->chunk_bytes,
					    MADV_DONTNEED_LOCKED);
	if (status == 0 && (ops & UHMM_OP_MOVE))
		status = do_moves(agent, box, chunk, n_runs);
	if (status == 0 && (ops & UHMM_OP_STORE))
		status = do_stores(agent, box, chunk, n_runs, ops & UHMM_OP_MOVE);
	return status;
}

static void answer_box(const struct uhmm_agent *agent, struct uhmm_ring_box *box, uint32_t seq,
		       int32_t status)
{
	uint64_t one = 1;

	WRITE_ONCE(box->status, status);
	__atomic_store_n(&box->done, seq, __ATOMIC_RELEASE);
	(void)sys_call3(SYS_write, agent->event_fd, (long)&one, sizeof(one));
}

static bool look_at_object_box(const struct uhmm_agent *agent)
{
	struct uhmm_ring_box *box = &agent->ring->object;
	uint32_t seq = __atomic_load_n(&box->seq, __ATOMIC_ACQUIRE);

	if (seq == READ_ONCE(box->done) || agent->object_number == 0 ||
	    READ_ONCE(box->slots) != agent->object_number)
		return false;
	answer_box(agent, box, seq, do_copies(agent, box));
	return true;
}

/* Do what is asked in any box. Returns whether there was anything. */
static bool look_at_boxes(const struct uhmm_agent *agent)
{
	bool found = look_at_object_box(agent);

	for (uint32_t i = 0; i < agent->n_chunks; i++) {
		struct uhmm_ring_box *box = &agent->ring->boxes[i];
		uint32_t seq = __atomic_load_n(&box->seq, __ATOMIC_ACQUIRE);

		if (seq == READ_ONCE(box->done))
			continue;
		found = true;
		answer_box(agent, box, seq,
			   do_command(agent, box, agent->staging_addr + i * agent->chunk_bytes));
	}
	return found;
}

/* --- the socket ---------------------------------------------------------------------- */

static void take_object(struct uhmm_agent *agent, const struct uhmm_msg_object *msg,
			const int fds[static 2])
{
	if (agent->object_number) {
		close_if_open(agent->object_fd);
		close_if_open(agent->object_slots_fd);
	}
	agent->object_fd = fds[0];
	agent->object_slots_fd = fds[1];
	agent->object_number = READ_ONCE(msg->number);
}

static void take_memory(struct uhmm_agent *agent, int fd)
{
	close_if_open(agent->mem_fd);
	agent->mem_fd = fd;
}

static void add_slot_file(struct uhmm_agent *agent, int fd)
{
	if (agent->n_slot_files == AGENT_SLOT_FILES_MAX) {
		sys_close(fd);
		return;
	}
	/* A descriptor that the program's limit kept from us (-1) takes its number all the
	 * same: stores into it answer EBADF, and the next file keeps the number that the
	 * daemon knows it by. */
	agent->slot_files[agent->n_slot_files++] = fd;
}

enum packet_result {
	PACKET_SERVED,
	PACKET_QUIT,
	PACKET_LOST, /* the daemon is gone, or does not follow wire.h */
};

/* Wait for one packet and act on it. */
static enum packet_result serve_packet(struct uhmm_agent *agent)
{
	union agent_packet packet;
	int fds[2];
	long n;

	n = agent_recv(agent->sock, &packet, fds);
	/* A daemon that died over what it had not read: said once, before what it had sent. */
	if (n == -EINTR || n == -ECONNRESET)
		return PACKET_SERVED;
	if (n < (long)sizeof(packet.h))
		return PACKET_LOST;
	switch (packet.h.type) {
	case UHMM_MSG_DOORBELL:
		while (look_at_boxes(agent))
			;
		return PACKET_SERVED;
	case UHMM_MSG_SLOTS:
		close_if_open(fds[1]);
		add_slot_file(agent, fds[0]);
		return PACKET_SERVED;
	case UHMM_MSG_MEMORY:
		close_if_open(fds[1]);
		take_memory(agent, fds[0]);
		return PACKET_SERVED;
	case UHMM_MSG_OBJECT:
		take_object(agent, &packet.object, fds);
		return PACKET_SERVED;
	case UHMM_MSG_CHILD:
		close_if_open(fds[1]);
		if (n == (long)sizeof(packet.child))
			rejoin_keep_child(agent, &packet.child, fds[0]);
		else
			close_if_open(fds[0]);
		return PACKET_SERVED;
	case UHMM_MSG_QUIT:
		return PACKET_QUIT;
	default:
		close_if_open(fds[0]);
		close_if_open(fds[1]);
		return PACKET_LOST;
	}
}

/* Until nothing is left to do: QUIT, unless the program wants us at hand all the same. */
static void serve(struct uhmm_agent *agent)
{
	enum packet_result result;

	do {
		result = agent->sock < 0 ? PACKET_LOST : serve_packet(agent);
		if (result == PACKET_QUIT && agent_told(agent) != AGENT_GO_LINGER)
			return;
	} while (result == PACKET_SERVED || rejoin_daemon(agent));
}

static void announce(struct uhmm_agent *agent, uint32_t state)
{
	__atomic_store_n(&agent->ring->agent_state, state, __ATOMIC_RELEASE);
	futex_wake_all(&agent->ring->agent_state);
}

void uhmm_agent_main(struct uhmm_agent *agent)
{
	if (!become_harmless(agent)) {
		announce(agent, UHMM_AGENT_FAILED);
		agent_end(agent, UHMM_AGENT_FAILED);
	}
	announce(agent, UHMM_AGENT_READY);
	while (agent_told(agent) == AGENT_GO_WAIT)
		agent_nap(agent, AGENT_GO_WAIT, -1);
	if (agent_told(agent) != AGENT_GO_ABORT)
		serve(agent);
	agent_end(agent, UHMM_AGENT_ENDED);
}
