/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The agent: a thread inside the program that moves pages on the daemon's command.
 * struct uhmm_agent lies in the agent's private area, which is never evicted; it is filled
 * by the starter (spawn.c) before the thread exists.
 */
#ifndef UHMM_LIBCLIENT_AGENT_H
#define UHMM_LIBCLIENT_AGENT_H

#include <stdint.h>
#include <sys/un.h>
#include <uhmm/wire.h>

#define AGENT_SLOT_FILES_MAX 64u
/*
 * Not FILES and not FS: the program may close every descriptor and change its directory,
 * root and mount namespace without asking us, and sees nothing of ours.
 */
#define AGENT_CLONE_FLAGS                                                                          \
	(CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_PARENT_SETTID |           \
	 CLONE_CHILD_CLEARTID)
/* Where the agent looks at pages before it moves them: the beginning of its private area. */
#define AGENT_SCRATCH_BYTES (64ul << 10)

/* uhmm_agent.go: whether the starter lets the agent read the socket. */
enum agent_go {
	AGENT_GO_WAIT = 0,
	AGENT_GO_RUN = 1,   /* enrolled: the socket is the agent's now */
	AGENT_GO_ABORT = 2, /* enrolment failed, or it rests and may end: end */
	AGENT_GO_LINGER = 3, /* look for no daemon, and end at no QUIT: rest, all still open */
};

/* uhmm_agent.at: where it is after RUN. */
enum agent_at {
	AGENT_AT_WORK = 0, /* a daemon has it */
	AGENT_AT_LOSS = 1, /* its daemon went away: it looks for the next one */
	AGENT_AT_REST = 2, /* it waits for `go` to change from LINGER, and does nothing else */
};

/* A forked child whose own agent has not come yet. */
struct agent_child {
	uint8_t token[UHMM_TOKEN_BYTES];
	int32_t fd; /* its userfaultfd */
};

struct uhmm_agent {
	struct uhmm_ring *ring;
	uint64_t staging_addr;
	uint64_t chunk_bytes;
	uint64_t page_bytes;
	char *scratch; /* AGENT_SCRATCH_BYTES */
	uint32_t n_chunks;
	/* The same numbers in the agent's own table. No socket: begin by looking for a daemon. */
	int32_t sock, uffd, event_fd;
	uint32_t filtered, has_caps;  /* as struct sandbox has it */
	uint32_t go;		      /* futex, enum agent_go */
	uint32_t tid;		      /* futex; set by clone, cleared by the kernel at the end */
	/* For the next daemon. */
	struct sockaddr_un daemon;   /* absolute; an empty path: look for none */
	uint64_t ring_bytes;
	struct uhmm_msg_hello hello; /* with this space's token */
	struct uhmm_msg_enrol enrol;
	/* From here on the agent's alone while it runs; others look when it is at rest. */
	uint32_t at; /* futex, enum agent_at */
	uint32_t n_children;
	struct agent_child children[UHMM_CHILDREN_MAX];
	int32_t mem_fd; /* this process's memory, read-only, from the daemon; -1: none */
	uint32_t n_slot_files;
	int32_t slot_files[AGENT_SLOT_FILES_MAX];
	uint32_t object_number; /* of the shared memory object that there is; 0: none */
	int32_t object_fd, object_slots_fd;
};

/*
 * Start the thread on a stack that ends at stack_top (16-byte aligned). The caller has
 * blocked all signals, since the thread inherits the mask. Returns the thread id or a
 * negative errno.
 */
long agent_clone(struct uhmm_agent *agent, void *stack_top);

#endif
