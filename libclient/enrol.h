/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The enrolment of the calling process: at most one a process, whoever asks for it.
 */
#ifndef UHMM_LIBCLIENT_ENROL_H
#define UHMM_LIBCLIENT_ENROL_H

#include <stdbool.h>
#include <stdint.h>
#include <uhmm/wire.h>

/* Why a process is not managed, for people. */
struct enrol_why {
	uint32_t reason; /* enum uhmm_reason; NONE: the text says it all */
	char text[sizeof(((struct uhmm_msg_refuse *)0)->text)]; /* one line, no newline */
};

/* $UHMM_SOCKET or the default. */
const char *enrol_default_path(void);

/*
 * Enrol with the daemon at `path`, unless that is done. 0, or a negative errno with *ret_why
 * filled; the process is as before then.
 */
int enrol_process(const char *path, struct enrol_why *ret_why);

/*
 * End this process's agent so that the caller may do what a second thread stands in the way
 * of. False: there is none to end (not enrolled, sandboxed, another thread is at it, or this
 * is a child that shares our memory); then enrol_resume must not be called.
 */
bool enrol_pause(void);
void enrol_resume(void);

/*
 * As enrol_pause and enrol_resume, around a call that puts a seccomp filter in force. After
 * one that succeeded nothing here makes a system call again, in this process or its children.
 */
bool enrol_sandbox_begin(void);
void enrol_sandbox_end(bool in_force);

#endif
