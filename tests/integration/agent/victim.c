/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The program under test: one mode a run. It knows nothing of uhmm. It prints a line, waits for
 * one, and its exit status says whether what it saw was right.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 64u
/* Nothing is mapped for so many pages behind the region; what comes later is put at its end. */
#define GAP 64u
#define GOOD 7 /* not a status that something else would leave by accident */
#define BAD 8

static size_t page;
static unsigned char *region;

static void make_region(void)
{
	unsigned char *raw = mmap(NULL, (PAGES + 1 + GAP) * page, PROT_NONE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	/* Between two that keep it a mapping of its own: a guard and nothing. */
	region = raw + page;
	(void)munmap(region + PAGES * page, GAP * page);
	if (mprotect(region, PAGES * page, PROT_READ | PROT_WRITE) != 0)
		_exit(BAD);
	(void)madvise(region, PAGES * page, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < PAGES * page; i++)
		region[i] = (unsigned char)(i / page + i % 251);
}

static int region_is_good(void)
{
	for (size_t i = 0; i < PAGES * page; i++)
		if (region[i] != (unsigned char)(i / page + i % 251))
			return 0;
	return 1;
}

static void say(uint64_t number)
{
	char line[32];
	int len = snprintf(line, sizeof(line), "%#llx\n", (unsigned long long)number);

	if (write(1, line, (size_t)len) != len)
		_exit(BAD);
}

static void wait_line(void)
{
	char byte;

	if (read(0, &byte, 1) != 1)
		_exit(BAD);
}

static int mode_hello(void)
{
	say(1);
	wait_line();
	return GOOD;
}

static int mode_pages(void)
{
	make_region();
	say((uintptr_t)region);
	wait_line();
	return region_is_good() ? GOOD : BAD;
}

/* As pages, but with no descriptor left but the two it talks through. */
static int mode_closes(void)
{
	make_region();
	(void)close(2);
	for (int fd = 3; fd < 1024; fd++)
		(void)close(fd);
	say((uintptr_t)region);
	wait_line();
	return region_is_good() ? GOOD : BAD;
}

/* Something that must be right at any time, then a look at the memory. */
static int mode_then_looks(int (*act)(void))
{
	make_region();
	say((uintptr_t)region);
	wait_line();
	if (act() != 0)
		return BAD;
	say(2);
	wait_line();
	return region_is_good() ? GOOD : BAD;
}

static int close_all(void)
{
	(void)close(2);
	for (int fd = 3; fd < 1024; fd++)
		(void)close(fd);
	return 0;
}

static int change_user(void)
{
	return setgid(65534) != 0 || setuid(65534) != 0 ? -1 : 0;
}

static int change_directory(void)
{
	return chdir("/");
}

static int leave_user_namespace(void)
{
	return unshare(CLONE_NEWUSER);
}

static int mode_drops_range(void)
{
	make_region();
	say((uintptr_t)region);
	wait_line();
	return madvise(region, page, MADV_DONTNEED) == 0 ? GOOD : BAD;
}

static int mode_exec(char *self)
{
	char *argv[] = { self, (char *)(uintptr_t)"hello", NULL };

	say(1);
	wait_line();
	execv(self, argv);
	return BAD;
}

static int wait_for(pid_t child)
{
	int status;

	if (waitpid(child, &status, 0) != child)
		return BAD;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The child says that it runs, and checks its memory; the parent lives on. Its status is the
 * child's. */
static int mode_fork(void)
{
	pid_t child;
	int status;

	make_region();
	say((uintptr_t)region);
	wait_line();
	child = fork();
	if (child == 0) {
		say(3);
		wait_line();
		_exit(region_is_good() ? GOOD : BAD);
	}
	status = wait_for(child);
	say((uint64_t)status);
	wait_line();
	return region_is_good() ? status : BAD;
}

static int mode_unshare(void)
{
	say(1);
	wait_line();
	if (unshare(CLONE_NEWUSER) != 0)
		return BAD;
	say(2);
	wait_line();
	return GOOD;
}

/* First its children's pid namespace alone, which no thread stands in the way of. */
static int mode_unshare_pid(void)
{
	return unshare(CLONE_NEWPID) == 0 ? mode_unshare() : BAD;
}

static int install_filter(void)
{
	/* A socket is death, for every thread. */
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_recvmsg, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog prog = { .len = 5, .filter = code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return -1;
	/* How libraries ask what the kernel has: no filter comes of it. */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, NULL) != -1 ||
	    errno != EFAULT)
		return -1;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC,
			    &prog);
}

static int mode_seccomp(void)
{
	pid_t child;

	say(1);
	wait_line();
	if (install_filter() != 0)
		return BAD;
	child = fork();
	if (child == 0)
		_exit(GOOD);
	say((uint64_t)wait_for(child));
	wait_line();
	return GOOD;
}

/* A filter that is refused leaves things as they were. */
static int mode_bad_filter(void)
{
	struct sock_fprog prog = { .len = 0 };

	say(1);
	wait_line();
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return BAD;
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) != -1 || errno != EINVAL)
		return BAD;
	say(2);
	wait_line();
	return GOOD;
}

/* What the wrappers must not change. */
static int mode_wrappers(void)
{
	char name[16] = "";
	void *map;

	errno = 0;
	map = (void *)syscall(SYS_mmap, NULL, page, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L);
	if (map == MAP_FAILED || errno != 0)
		return BAD;
	if (syscall(SYS_mmap, NULL, page, PROT_READ, MAP_PRIVATE, -1, 0L) != -1 || errno != EBADF)
		return BAD;
	if (syscall(SYS_mmap, NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 1L) != -1 ||
	    errno != EINVAL)
		return BAD;
	if (prctl(PR_SET_NAME, "renamed") != 0 || prctl(PR_GET_NAME, name) != 0 ||
	    strcmp(name, "renamed") != 0)
		return BAD;
	if (unshare(CLONE_FS) != 0 || setns(-1, 0) != -1 || errno != EBADF)
		return BAD;
	return GOOD;
}

static int mode_sees(int argc)
{
	sigset_t mask, pending;

	/* errno, the signal mask and the descriptors are what they are without us. */
	if (argc != 2 || errno != 0)
		return BAD;
	if (sigprocmask(SIG_SETMASK, NULL, &mask) != 0 || !sigisemptyset(&mask))
		return BAD;
	if (sigpending(&pending) != 0 || !sigisemptyset(&pending))
		return BAD;
	return dup(0) == 3 ? GOOD : BAD;
}

/* Become argv[2] under argv[3] as a user who may have no second thread: root is not bound by
 * the limit. Both lie where that user can read them. */
static int mode_no_threads(char **argv)
{
	const struct rlimit none = { 0, 0 };
	char *args[] = { argv[2], (char *)(uintptr_t)"hello", NULL };

	setenv("LD_PRELOAD", argv[3], 1);
	if (setgid(65534) != 0 || setuid(65534) != 0 || setrlimit(RLIMIT_NPROC, &none) != 0)
		return BAD;
	execv(argv[2], args);
	return BAD;
}

static int mode_no_space(char *self)
{
	const struct rlimit tight = { 8 << 20, 8 << 20 };
	char *argv[] = { self, (char *)(uintptr_t)"hello", NULL };

	if (setrlimit(RLIMIT_AS, &tight) != 0)
		return BAD;
	execv(self, argv);
	return BAD;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";

	if (strcmp(mode, "sees") == 0)
		return mode_sees(argc);
	page = (size_t)sysconf(_SC_PAGESIZE);
	if (strcmp(mode, "hello") == 0)
		return mode_hello();
	if (strcmp(mode, "pages") == 0)
		return mode_pages();
	if (strcmp(mode, "then-closes") == 0)
		return mode_then_looks(close_all);
	if (strcmp(mode, "then-setuid") == 0)
		return mode_then_looks(change_user);
	if (strcmp(mode, "then-chdir") == 0)
		return mode_then_looks(change_directory);
	if (strcmp(mode, "then-unshare") == 0)
		return mode_then_looks(leave_user_namespace);
	if (strcmp(mode, "closes") == 0)
		return mode_closes();
	if (strcmp(mode, "drops-range") == 0)
		return mode_drops_range();
	if (strcmp(mode, "exec") == 0)
		return mode_exec(argv[0]);
	if (strcmp(mode, "fork") == 0)
		return mode_fork();
	if (strcmp(mode, "unshare") == 0)
		return mode_unshare();
	if (strcmp(mode, "unshare-pid") == 0)
		return mode_unshare_pid();
	if (strcmp(mode, "seccomp") == 0)
		return mode_seccomp();
	if (strcmp(mode, "bad-filter") == 0)
		return mode_bad_filter();
	if (strcmp(mode, "wrappers") == 0)
		return mode_wrappers();
	if (strcmp(mode, "no-threads") == 0)
		return mode_no_threads(argv);
	if (strcmp(mode, "no-space") == 0)
		return mode_no_space(argv[0]);
	return BAD;
}
