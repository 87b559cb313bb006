/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The agent: a thread inside the program that moves pages on the daemon's command.
 * struct uhmm_agent lies in the agent's private area, which is never evicted; it is filled
 * by the starter (spawn.c) before the thread exists.
 */
#ifndef UHMM_LIBCLIENT_AGENT_H
#define UHMM_LIBCLIENT_AGENT_H

#include <stdint.h>
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
	AGENT_GO_ABORT = 2, /* enrolment failed: end */
};

struct uhmm_agent {
	struct uhmm_ring *ring;
	uint64_t staging_addr;
	uint64_t chunk_bytes;
	uint64_t page_bytes;
	char *scratch; /* AGENT_SCRATCH_BYTES */
	uint32_t n_chunks;
	int32_t pid;   /* of this process, in its own pid namespace */
	int32_t sock, uffd, event_fd; /* the same numbers in the agent's own table */
	uint32_t filtered, has_caps;  /* as struct sandbox has it */
	uint32_t go;		      /* futex, enum agent_go */
	uint32_t tid;		      /* futex; set by clone, cleared by the kernel at the end */
	uint32_t n_slot_files;	      /* from here on the agent's alone */
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
