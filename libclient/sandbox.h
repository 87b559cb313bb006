/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Programs that were started under a seccomp filter, as services mostly are. Such a filter
 * covers the agent like every other thread, so the agent is no way out of it; but a call that it
 * does not allow may kill the program.
 */
#ifndef UHMM_LIBCLIENT_SANDBOX_H
#define UHMM_LIBCLIENT_SANDBOX_H

#include <stdbool.h>

/*
 * Every system call of enrolment (link.c, spawn.c, journey.c, enrol.c) and of the agent: how it
 * can be made without an effect, and what it answers then. A call that is missing here kills
 * programs in sandboxes; the test enrols_under_an_inherited_filter finds out.
 *
 *   X(name, arguments 1 to 6, answer)
 */
#define SANDBOX_OK 1 /* anything but an error */
#define SANDBOX_CALLS(X)                                                                           \
	X(getpid, 0, 0, 0, 0, 0, 0, SANDBOX_OK)                                                    \
	X(clock_gettime, CLOCK_MONOTONIC, 0, 0, 0, 0, 0, -EFAULT)                                  \
	X(nanosleep, 0, 0, 0, 0, 0, 0, -EFAULT)                                                    \
	X(rt_sigprocmask, SIG_SETMASK, 0, 0, 8, 0, 0, 0)                                           \
	X(futex, 0, FUTEX_WAKE, 1, 0, 0, 0, -EFAULT)                                               \
	X(futex, 0, FUTEX_WAKE_OP_PRIVATE, 0, 0, 0, 0, -EFAULT)                                    \
	X(kill, 0x7fffffff, 0, 0, 0, 0, 0, -ESRCH)                                                 \
	X(tgkill, 0x7fffffff, 0x7fffffff, 0, 0, 0, 0, -ESRCH)                                      \
	X(waitid, P_ALL, 0, 0, WEXITED | WNOHANG | WNOWAIT, 0, 0, -ECHILD)                         \
	X(wait4, -1, 0, WNOHANG | __WALL, 0, 0, 0, -ECHILD)                                        \
	X(clone, AGENT_CLONE_FLAGS & ~CLONE_SIGHAND, 0, 0, 0, 0, 0, -EINVAL)                       \
	X(openat, AT_FDCWD, 0, O_RDONLY | O_CLOEXEC, 0, 0, 0, -EFAULT)                             \
	X(read, -1, 0, 0, 0, 0, 0, -EBADF)                                                         \
	X(write, -1, 0, 0, 0, 0, 0, -EBADF)                                                        \
	X(pread64, -1, 0, 0, 0, 0, 0, -EBADF)                                                      \
	X(pwrite64, -1, 0, 0, 0, 0, 0, -EBADF)                                                     \
	X(close, -1, 0, 0, 0, 0, 0, -EBADF)                                                        \
	X(close_range, UINT32_MAX, UINT32_MAX, 0, 0, 0, 0, 0)                                      \
	X(chdir, 0, 0, 0, 0, 0, 0, -EFAULT)                                                        \
	X(ioctl, -1, USERFAULTFD_IOC_NEW, 0, 0, 0, 0, -EBADF)                                      \
	X(ioctl, -1, UHMM_UFFDIO_MOVE, 0, 0, 0, 0, -EBADF)                                         \
	X(mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, \
	  0, SANDBOX_OK)                                                                           \
	X(mprotect, 0, 0, PROT_NONE, 0, 0, 0, 0)                                                   \
	X(munmap, 0, 0, 0, 0, 0, 0, -EINVAL)                                                       \
	X(madvise, 0, 0, MADV_DONTFORK, 0, 0, 0, 0)                                                \
	X(mincore, 1, 0, 0, 0, 0, 0, -EINVAL)                                                      \
	X(prctl, PR_SET_NAME, 0, 0, 0, 0, 0, -EFAULT)                                              \
	X(socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, 0, 0, 0, SANDBOX_OK)                  \
	X(setsockopt, -1, SOL_SOCKET, SO_SNDTIMEO, 0, 0, 0, -EBADF)                                \
	X(connect, -1, 0, 0, 0, 0, 0, -EBADF)                                                      \
	X(sendmsg, -1, 0, MSG_NOSIGNAL, 0, 0, 0, -EBADF)                                           \
	X(recvmsg, -1, 0, MSG_CMSG_CLOEXEC, 0, 0, 0, -EBADF)                                       \
	X(ppoll, 0, 1, 0, 0, 8, 0, -EFAULT)                                                        \
	X(exit, 0, 0, 0, 0, 0, 0, 0)

/* What is known of the calling thread. */
struct sandbox {
	bool filtered;	  /* a seccomp filter is in force */
	bool has_caps;	  /* its permitted capabilities are not empty */
};

/* From /proc, with calls that the loader has just made itself: no filter that let the program
 * start forbids them. */
void sandbox_look(struct sandbox *ret_sandbox);

/*
 * Try the calls in a forked process, which a filter may kill in our stead. False: one of them is
 * forbidden, or that could not be found out. The fork itself, and waiting for it, are the
 * caller's risk.
 */
bool sandbox_allows_agent(const struct sandbox *sandbox);

#endif
