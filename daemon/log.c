/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The log: owns the level, the sink and the choice of prefix. Everybody calls it,
 * on any thread. It takes no lock and never allocates: a line is put together on
 * the stack and goes out in one write(2), so lines of several threads do not mix.
 * Lines that cannot be written are lost: a full pipe must not stop the daemon.
 */
#include "log.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_TEXT_MAX 1000
#define LOG_PREFIX_MAX 32

static atomic_int log_level = LOG_INFO;
static _Atomic(log_sink_fn) log_sink;
static pthread_once_t log_once = PTHREAD_ONCE_INIT;
static bool log_to_journal;

/* A program below a service inherits JOURNAL_STREAM with another stderr, so the
 * variable alone says nothing. */
static void log_find_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	uintmax_t dev, ino;
	struct stat st;

	if (stream == NULL || sscanf(stream, "%ju:%ju", &dev, &ino) != 2)
		return;
	if (fstat(STDERR_FILENO, &st) < 0)
		return;
	log_to_journal = dev == (uintmax_t)st.st_dev && ino == (uintmax_t)st.st_ino;
}

static const char *log_priority_word(int priority)
{
	if (priority <= LOG_ERR)
		return "error: ";
	if (priority == LOG_WARNING)
		return "warning: ";
	return "";
}

/* What a client chose may be part of a line: it must not forge another one. */
static void log_flatten(char *text)
{
	for (; *text != '\0'; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < 0x20 || c == 0x7f)
			*text = '?';
	}
}

static void log_put(int priority, const char *text)
{
	char line[LOG_PREFIX_MAX + LOG_TEXT_MAX + 2];
	int n;

	(void)pthread_once(&log_once, log_find_journal);
	if (log_to_journal)
		n = snprintf(line, sizeof(line), "<%d>%s\n", priority, text);
	else
		n = snprintf(line, sizeof(line), "uhmmd: %s%s\n", log_priority_word(priority),
			     text);
	if (n > 0)
		(void)!write(STDERR_FILENO, line, (size_t)n);
}

void log_vwrite(int priority, const char *fmt, va_list args)
{
	log_sink_fn sink = atomic_load(&log_sink);
	int saved_errno = errno;
	char text[LOG_TEXT_MAX];

	if (priority > atomic_load(&log_level))
		return;
	(void)vsnprintf(text, sizeof(text), fmt, args);
	log_flatten(text);
	if (sink != NULL)
		sink(priority, text);
	else
		log_put(priority, text);
	errno = saved_errno;
}

void log_write(int priority, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	log_vwrite(priority, fmt, args);
	va_end(args);
}

void log_set_level(int priority)
{
	atomic_store(&log_level, priority);
}

void log_set_sink(log_sink_fn sink)
{
	atomic_store(&log_sink, sink);
}
