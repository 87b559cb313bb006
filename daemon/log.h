/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon's log: one line a message, on stderr.
 *
 * Priorities are those of <syslog.h>. When stderr is the journal (JOURNAL_STREAM
 * names it, by device and inode) a line starts with "<N>", as sd-daemon(3) has
 * it; else with "uhmmd: " and, from warnings up, the word for the priority.
 *
 * Threads: any. The fault path must not call it: a line is a write(2).
 */
#ifndef UHMMD_LOG_H
#define UHMMD_LOG_H

#include <stdarg.h>
#include <syslog.h>

/* A message without its prefix and newline. Called on the thread that logs. */
typedef void (*log_sink_fn)(int priority, const char *line);

/* Leaves errno alone. A message is cut at 1000 bytes; control characters in it
 * become '?'. */
void log_vwrite(int priority, const char *fmt, va_list args)
	__attribute__((format(printf, 2, 0)));
void log_write(int priority, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Drop what is less urgent than this; LOG_INFO at the start. */
void log_set_level(int priority);
/* Send lines to `sink` instead of stderr; NULL: stderr again. For tests. */
void log_set_sink(log_sink_fn sink);

#define log_err(...) log_write(LOG_ERR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_WARNING, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)

#endif
