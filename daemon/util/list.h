/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A doubly linked list through a member; an unlinked member points to itself. */
#ifndef UHMMD_LIST_H
#define UHMMD_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *prev, *next;
};

#define LIST_INIT(name) { &(name), &(name) }

static inline void list_init(struct list *head)
{
	head->prev = head->next = head;
}

static inline void list_add_tail(struct list *head, struct list *entry)
{
	entry->prev = head->prev;
	entry->next = head;
	head->prev->next = entry;
	head->prev = entry;
}

static inline void list_del(struct list *entry)
{
	entry->prev->next = entry->next;
	entry->next->prev = entry->prev;
	list_init(entry);
}

static inline bool list_empty(const struct list *head)
{
	return head->next == head;
}

#define list_entry(ptr, type, member) \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))

#define list_for_each(pos, head) for (pos = (head)->next; pos != (head); pos = (pos)->next)

/* The current entry may be removed. */
#define list_for_each_safe(pos, tmp, head) \
	for (pos = (head)->next, tmp = (pos)->next; pos != (head); pos = tmp, tmp = (pos)->next)

#endif
