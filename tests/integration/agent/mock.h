/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A daemon of the smallest kind for the tests of the agent: one thread, one program, every step
 * by hand, so that a test decides what happens between any two of them. Every wait is bounded,
 * and what goes wrong in a helper fails the test that called it.
 */
#ifndef TEST_AGENT_MOCK_H
#define TEST_AGENT_MOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uhmm/wire.h>

#define MOCK_CHUNK_BYTES (2u << 20)
#define MOCK_CHUNKS 4u
#define MOCK_WAIT_MS 10000

struct mock {
	char dir[64];
	char socket_path[96];
	int listener;
	int device;
};

/* The program under test. It speaks lines on its standard output and waits for lines on its
 * standard input. */
struct victim {
	pid_t pid;
	int to, from, err;
};

/* What an agent shows of a child. */
struct kept_child {
	uint8_t token[UHMM_TOKEN_BYTES];
	int uffd;
};

/* One enrolled address space. */
struct space {
	int sock;
	pid_t peer;
	struct uhmm_msg_hello hello;
	int uffd, ring_fd, event_fd, slot_fd;
	struct uhmm_ring *ring;
	struct uhmm_msg_enrol enrol;
	uint8_t token[UHMM_TOKEN_BYTES];
	uint32_t quit_flags;	 /* of the last request for the agent's end */
	unsigned int n_children; /* role agent */
	struct kept_child children[UHMM_CHILDREN_MAX];
};

void mock_open(struct mock *mock);
void mock_close(struct mock *mock);
/* As a daemon that is killed: nobody listens at the path, which stays. */
void mock_stop_listening(struct mock *mock);
void mock_listen_again(struct mock *mock);

/* Start the victim with the preload library; words: its arguments, one string, or NULL.
 * extra_env: NULL or one NAME=VALUE. */
void victim_start(const struct mock *mock, struct victim *victim, const char *words,
		  const char *extra_env);
/* The same for another program, with another preload library or none (NULL). */
void victim_start_program(const struct mock *mock, struct victim *victim, const char *program,
			  const char *preload, const char *words, const char *extra_env);
void victim_read_line(struct victim *victim, char *line, size_t room);
uint64_t victim_read_number(struct victim *victim);
void victim_go_on(struct victim *victim);
/* Wait for its end: the status of waitpid. */
int victim_wait(struct victim *victim);
void victim_read_stderr(struct victim *victim, char *text, size_t room);

/* Is there a connection within ms? */
bool mock_has_client(const struct mock *mock, int ms);
/* The steps of one enrolment, and all of them. HELLO must be of this role. */
void mock_accept(const struct mock *mock, struct space *space, enum uhmm_role role);
/* A connection of which nothing was read yet. */
int mock_accept_only(const struct mock *mock);
/* The rest of mock_accept for it; role agent: with all that it hands over. */
void mock_hear_hello(struct space *space, int sock, enum uhmm_role role);
void mock_welcome(const struct mock *mock, struct space *space);
void mock_take_enrol(struct space *space, bool api);
void mock_ready(struct space *space);
void mock_ready_without_memory(struct space *space);
void mock_enrol(const struct mock *mock, struct space *space);
void space_deinit(struct space *space);

void mock_send(int sock, uint32_t type, void *packet, size_t bytes, const int *fds, size_t n_fds);
size_t mock_recv(int sock, void *packet, size_t room, int *fds, size_t *ret_n_fds);
bool mock_sees_eof(int sock);
/* An admin connection that asks for the agent's end: passes QUIT on, and answers DONE. */
void mock_serve_agent_quit(const struct mock *mock, struct space *space);
/* The same with this error, a negative errno: then no QUIT. */
void mock_answer_agent_quit(const struct mock *mock, struct space *space, int error);

/* Registration and faults. */
int mock_register(const struct space *space, uint64_t addr, uint64_t bytes);
void mock_unregister(const struct space *space, uint64_t addr, uint64_t bytes);
void mock_copy(int uffd, uint64_t addr, const void *page, size_t bytes);
/* The next message of the userfaultfd, which must be of this kind; returns its address, or the
 * new descriptor of a FORK. */
uint64_t mock_next_event(int uffd, unsigned int kind);

/* Commands. */
uint64_t space_chunk(const struct space *space, unsigned int box);
void space_give_slot_file(const struct mock *mock, struct space *space);
struct uhmm_run *space_add_run(struct space *space, unsigned int box, uint64_t home,
			       uint32_t staging_page, uint32_t n_pages, uint64_t off);
/* Give the command; space_finish waits for its answer and returns the status. */
void space_command(struct space *space, unsigned int box, uint32_t ops);
bool space_is_done(struct space *space, unsigned int box, int ms);
int space_finish(struct space *space, unsigned int box);

/* A field of /proc/PID/task/TID/status, as text after "NAME:\t". */
void proc_status(pid_t pid, pid_t tid, const char *field, char *value, size_t room);
unsigned int proc_count_fds(pid_t pid, pid_t tid);
/* The agent of this process comes to have n: it reads what was sent, and closes what it does not
 * need, in its own time. */
void proc_await_agent_fds(pid_t pid, unsigned int n);
/* The thread by the name uhmm-agent, or 0. */
pid_t proc_find_agent(pid_t pid);

#endif
