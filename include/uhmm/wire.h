/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The protocol between uhmmd and its clients, and the ring that the daemon
 * shares with the agent of each space.
 *
 * Transport: an AF_UNIX SOCK_SEQPACKET socket; one message a packet. Every
 * packet starts with struct uhmm_msg; fields are in host order (both ends are
 * on one machine). A packet that is shorter than its type says, longer than
 * UHMM_MSG_MAX, of an unknown type or version, or with other than the expected
 * number of file descriptors ends the connection.
 *
 * Roles. The first message is always UHMM_MSG_HELLO and names one:
 *   program  the process itself; it enrols, and hands the socket to its agent
 *   child    a forked child that read a token from its beacon page, or a
 *            program that starts its agent again with the token of WELCOME
 *   admin    `uhmm status` and friends, and uhmm_open() of the C library
 *   runner   `uhmm run`: makes a group, holds it, asks for its report
 *   agent    an agent, in its own process, whose daemon went away without QUIT
 *
 * Journey of `program`:
 *   C HELLO(program)       ->
 *                          <- WELCOME + [userfaultfd device, ring memfd, eventfd]
 *                             or REFUSE(reason, text)
 *   C ENROL + [userfaultfd]->
 *                          <- READY, or REFUSE
 *   from here the socket belongs to the agent:
 *                          <- MEMORY + [the program's own memory, as in /proc/PID/mem,
 *                             read-only]: to look at pages before they leave; first
 *                          <- DOORBELL            look at the ring
 *                          <- SLOTS + [write-only slot file]
 *                          <- OBJECT(number) + [shared memory object, read-only;
 *                             its write-only slot file]: for the ring's `object` box
 *                          <- QUIT(reason)        end; no further call if the
 *                                                 agent cannot make any
 *                          <- CHILD(token) + [userfaultfd of a forked child]: keep it,
 *                             until CHILD(token) comes without one
 * `child` is the same, but WELCOME carries [the space's userfaultfd, ring memfd,
 * eventfd] and ENROL carries no descriptor.
 *
 * Journey of `agent`. The userfaultfds that it and its kind hold are what keeps memory that is
 * away from reading as zeros while there is no daemon; it hands them to the next one:
 *   A HELLO(agent, token) + [the space's userfaultfd] ->
 *   A CHILD(token) + [userfaultfd] for each that it keeps, then CHILD(zero) without one ->
 *                          <- WELCOME + [ring memfd, eventfd]: the sizes are those of the
 *                             WELCOME before; or REFUSE
 *   A ENROL, with the addresses that it had ->
 *                          <- READY, or REFUSE
 * What it had of the old daemon's, slot files and object included, it has closed by then, and
 * no command of the old ring is under way any more. After REFUSE(busy) or a hang-up it comes
 * again soon, after another REFUSE now and then: a later daemon may know more.
 *
 * Journey of `admin` and `runner`: REQUEST -> any number of TEXT, then DONE. A runner's HELLO
 * is answered by READY; an admin's only when it is refused.
 */
#ifndef UHMM_WIRE_H
#define UHMM_WIRE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define UHMM_WIRE_MAGIC 0x6d6d6875u /* "uhmm" */
#define UHMM_WIRE_VERSION 1u
#define UHMM_MSG_MAX 65536u	    /* bytes, header included */
#define UHMM_MSG_FDS_MAX 3
#define UHMM_SOCKET_DEFAULT "/run/uhmm/uhmm.sock"
#define UHMM_TOKEN_BYTES 16

enum uhmm_msg_type {
	UHMM_MSG_HELLO = 1,
	UHMM_MSG_WELCOME = 2,
	UHMM_MSG_REFUSE = 3,
	UHMM_MSG_ENROL = 4,
	UHMM_MSG_READY = 5,
	UHMM_MSG_DOORBELL = 6,
	UHMM_MSG_SLOTS = 7,
	UHMM_MSG_QUIT = 8,
	UHMM_MSG_OBJECT = 9,
	UHMM_MSG_CHILD = 10,
	UHMM_MSG_MEMORY = 11,
	UHMM_MSG_REQUEST = 16,
	UHMM_MSG_TEXT = 17,
	UHMM_MSG_DONE = 18,
};

enum uhmm_role {
	UHMM_ROLE_PROGRAM = 1,
	UHMM_ROLE_CHILD = 2,
	UHMM_ROLE_ADMIN = 3,
	UHMM_ROLE_RUNNER = 4,
	UHMM_ROLE_AGENT = 5,
};

/* Why something is not managed: a space, a range, or a page. */
enum uhmm_reason {
	UHMM_REASON_NONE = 0,
	UHMM_REASON_POLICY,	   /* the administrator's policy says no */
	UHMM_REASON_VERSION,	   /* client and daemon speak different versions */
	UHMM_REASON_PROTOCOL,	   /* a message that does not follow this file */
	UHMM_REASON_LIMIT,	   /* too many spaces, fds, ... of this user */
	UHMM_REASON_BUSY,	   /* the daemon is going down */
	UHMM_REASON_NO_AGENT,	   /* the agent could not be started, or ended */
	UHMM_REASON_SECCOMP,	   /* a thread entered a seccomp filter */
	UHMM_REASON_UID_CHANGED,   /* the program changed its uid or gid */
	UHMM_REASON_APP_UFFD,	   /* watched by a userfaultfd of the program's own */
	UHMM_REASON_LOCKED,	   /* mlock: a promise to the program */
	UHMM_REASON_TCB,	   /* a thread's control block or robust list */
	UHMM_REASON_PINNED,	   /* DMA, or shared with a forked process */
	UHMM_REASON_READONLY,	   /* not writable, so it cannot be moved */
	UHMM_REASON_EXEC,	   /* executable memory */
	UHMM_REASON_GUARD,	   /* guard page */
	UHMM_REASON_FILE,	   /* file mapping */
	UHMM_REASON_SHARED,	   /* shared memory that nobody has looked at yet */
	UHMM_REASON_SYSV,	   /* System V shared memory */
	UHMM_REASON_HUGETLB,	   /* hugetlbfs */
	UHMM_REASON_DEVICE,	   /* device or special mapping */
	UHMM_REASON_STACK_TOP,	   /* arguments, environment, auxiliary vector */
	UHMM_REASON_AGENT,	   /* the agent's own memory */
	UHMM_REASON_REMOVED,	   /* madvise(DONTNEED or FREE) and not touched since */
	UHMM_REASON_NO_ROOM,	   /* no tier has room, or the page map has none */
	UHMM_REASON_FD_OPEN,	   /* shared memory with an open descriptor: others could read it */
	UHMM_REASON_NAMED,	   /* shared memory with a name in a file system */
	UHMM_REASON_FOREIGN,	   /* shared memory that a process maps which is not managed */
	UHMM_REASON_DIRECT_IO,	   /* a program that maps it does I/O that may pin its pages */
	UHMM_REASON_MAX
};

/* Short name of a reason ("locked", "tcb" ...), for people; never NULL. */
static inline const char *uhmm_reason_name(unsigned int reason)
{
	static const char *const names[UHMM_REASON_MAX] = {
		"none",	  "policy", "version",	 "protocol", "limit",	    "busy",   "no-agent",
		"seccomp", "uid-changed", "app-uffd", "locked",	"tcb",	    "pinned", "readonly",
		"exec",	  "guard",  "file",	 "shared",   "sysv",	    "hugetlb", "device",
		"stack-top", "agent", "removed", "no-room", "fd-open", "named", "foreign", "direct-io",
	};
	return reason < UHMM_REASON_MAX ? names[reason] : "unknown";
}

struct uhmm_msg {
	uint32_t type; /* enum uhmm_msg_type */
	uint32_t len;  /* of the whole packet, bytes */
};

struct uhmm_msg_hello {
	struct uhmm_msg h;
	uint32_t magic;
	uint32_t version;
	uint32_t role; /* enum uhmm_role */
	uint32_t page_size;
	uint8_t token[UHMM_TOKEN_BYTES]; /* role child, agent; else zero */
	uint8_t group[UHMM_TOKEN_BYTES]; /* program, child: from UHMM_GROUP; runner: a
					    random name that it chose; program of a managed
					    unit: INVOCATION_ID; else zero */
	uint64_t host_target_bytes;	 /* runner: 0 is no target. program: not 0 makes the
					    group, of processes of this uid alone */
};

struct uhmm_msg_welcome {
	struct uhmm_msg h;
	uint64_t space_id;
	uint32_t ring_bytes;   /* size of the ring memfd, to be mapped MAP_SHARED */
	uint32_t staging_chunk_bytes;
	uint32_t n_staging_chunks;
	uint32_t reserved;
	uint8_t token[UHMM_TOKEN_BYTES]; /* of this space, for ever: roles child and agent
					    show it */
};

struct uhmm_msg_refuse {
	struct uhmm_msg h;
	uint32_t reason; /* enum uhmm_reason */
	char text[244];	 /* one line, terminated */
};

/* All addresses page-aligned, in the program's address space. */
struct uhmm_msg_enrol {
	struct uhmm_msg h;
	uint64_t staging_addr;	/* n_staging_chunks x staging_chunk_bytes, aligned to 2 MiB,
				   private anonymous, MADV_DONTFORK */
	uint64_t private_addr;	/* the agent's stack and data, MADV_DONTFORK */
	uint64_t private_bytes;
	uint64_t ring_addr;
	uint64_t beacon_addr;	/* one page of its own, private anonymous, inherited by fork */
	int32_t agent_tid;
	uint32_t reserved;
};

/* Takes the place of the object that was sent before. Number 0 comes without descriptors: the
 * agent closes those it has, which keep the object's memory from being freed. */
struct uhmm_msg_object {
	struct uhmm_msg h;
	uint32_t number; /* uhmm_ring_box.slots of the commands that mean this one */
	uint32_t reserved;
};

/*
 * To an agent, with the userfaultfd of a child that was forked just now: it keeps that, so that
 * the daemon's end is not the end of the child's memory. The same token without a descriptor:
 * it is not needed any more. One that there is no room for is closed at once. From an agent:
 * what it keeps; a zero token, without a descriptor, ends that.
 */
#define UHMM_CHILDREN_MAX 128u
struct uhmm_msg_child {
	struct uhmm_msg h;
	uint8_t token[UHMM_TOKEN_BYTES];
};

struct uhmm_msg_quit {
	struct uhmm_msg h;
	uint32_t reason;
	uint32_t reserved;
};

/* What an admin or a runner can ask for. */
enum uhmm_request {
	UHMM_REQ_STATUS = 1,  /* TEXT: a JSON document, split at will */
	UHMM_REQ_EVICT = 2,   /* pid, bytes (0: all) */
	UHMM_REQ_RESTORE = 3, /* pid */
	UHMM_REQ_REPORT = 4,  /* runner: TEXT: the group's JSON report */
	UHMM_REQ_MIGRATE = 5, /* the caller's own memory: addr, bytes, flag HOME or not */
	UHMM_REQ_QUERY = 6,   /* the caller's own memory: addr, bytes; TEXT: a byte a page */
	UHMM_REQ_TIERS = 7,   /* TEXT: JSON */
	/* The caller's own: send its agent QUIT, expect its EOF; with flag HOME bring all home, as it
	 * must be before the last userfaultfd but the daemon's is closed; DONE. */
	UHMM_REQ_AGENT_QUIT = 8,
	UHMM_REQ_MAPS = 9, /* pid; TEXT: JSON: its mappings and what of each lies where */
};
#define UHMM_REQ_FLAG_HOME (1u << 0)
#define UHMM_REQ_FLAG_HOLD (1u << 1) /* RESTORE: and keep it there, until EVICT or RELEASE */
#define UHMM_REQ_FLAG_RELEASE (1u << 2) /* RESTORE: and end what HOLD began */

struct uhmm_msg_request {
	struct uhmm_msg h;
	uint32_t request; /* enum uhmm_request */
	uint32_t flags;
	int32_t pid;
	uint32_t reserved;
	uint64_t addr;
	uint64_t bytes;
};

struct uhmm_msg_done {
	struct uhmm_msg h;
	int32_t error; /* 0 or a negative errno */
	uint32_t reserved;
	uint64_t pages; /* that the request moved */
	char text[112]; /* why it failed, one line; may be empty */
};

/*
 * The ring: one box a staging chunk, in a sealed memfd that the daemon makes.
 * The daemon fills a box, stores `seq` with release order and sends DOORBELL
 * (or sees that the agent is awake); the agent does what `ops` says, in this
 * order: FREE, MOVE, STORE; stores `status` and the runs' `result`s, then
 * `done = seq` with release order, and writes 1 to the eventfd.
 *
 * The daemon never believes what it reads here about where a page is: that it
 * asks the kernel. A wrong answer can only cost the program its own bytes.
 */
#define UHMM_RING_BOXES 4u
#define UHMM_RING_RUNS 512u

#define UHMM_OP_FREE (1u << 0)	/* MADV_DONTNEED the whole staging chunk */
#define UHMM_OP_MOVE (1u << 1)	/* UFFDIO_MOVE each run: home_addr -> staging page */
#define UHMM_OP_STORE (1u << 2) /* pwrite each run: staging page -> slot file at store_off */
#define UHMM_OP_COPY (1u << 3)	/* `object` box only: pread each run from the object at byte
				   home_addr, pwrite it to its slot file at store_off */

struct uhmm_run {
	uint64_t home_addr;    /* MOVE: source; COPY: byte offset in the object */
	uint64_t store_off;    /* STORE: byte offset in the slot file */
	uint32_t staging_page; /* index within the chunk */
	uint32_t n_pages;
	int32_t result; /* MOVE: 0, or the last negative errno of a page that stayed;
			   STORE: 0, or a negative errno: nothing of this run counts */
	uint32_t reserved;
};

struct uhmm_ring_box {
	uint32_t seq;	 /* written by the daemon */
	uint32_t done;	 /* written by the agent */
	uint32_t ops;	 /* UHMM_OP_* */
	uint32_t n_runs; /* in runs[] */
	int32_t status;	 /* agent: 0, or the negative errno that ended the command */
	uint32_t slots;	 /* STORE: which slot file of those sent (0 is the first);
			    COPY: number of the object; a command for another one than the
			    agent has is left alone until that has come */
	uint64_t reserved[5];
	struct uhmm_run runs[UHMM_RING_RUNS];
};

#define UHMM_RING_SANDBOXED (1u << 0) /* a seccomp filter is in force: a forked child must
					 not make any system call of ours */

struct uhmm_ring {
	uint32_t magic; /* UHMM_WIRE_MAGIC, by the daemon */
	uint32_t flags; /* UHMM_RING_*, by the daemon and by the preload's own wrappers */
	uint32_t agent_state; /* enum uhmm_agent_state, by the agent */
	uint32_t agent_tid;
	uint64_t reserved[6];
	struct uhmm_ring_box boxes[UHMM_RING_BOXES];
	struct uhmm_ring_box object; /* COPY; belongs to no staging chunk */
};

enum uhmm_agent_state {
	UHMM_AGENT_STARTING = 0,
	UHMM_AGENT_READY = 1,  /* own fd table, no capabilities, waiting for commands */
	UHMM_AGENT_FAILED = 2, /* it could not make itself harmless, and has ended */
	UHMM_AGENT_ENDED = 3,
};

/*
 * The beacon page. The program writes BEACON_HERE into its first word before
 * ENROL. While nothing is registered it stays so. Before anything else leaves,
 * the beacon does; a child that was forked then faults on it, and the daemon
 * answers with a struct uhmm_beacon of its own. A beacon of zeros: the
 * registration was lost, and this child's memory is incomplete.
 */
#define UHMM_BEACON_HERE 1u  /* nothing was away at the fork: enrol afresh */
#define UHMM_BEACON_TOKEN 2u /* `token` names this child's space */
struct uhmm_beacon {
	uint32_t word;	/* UHMM_BEACON_*; 0: lost */
	uint32_t flags; /* UHMM_RING_SANDBOXED */
	uint8_t token[UHMM_TOKEN_BYTES];
};

#ifdef __cplusplus
}
#endif
#endif
