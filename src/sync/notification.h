/*
 * notification.h
 *		Notifications, as JSON.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_NOTIFICATION_H
#define POSTALYTICS_NOTIFICATION_H

#include "lib/stringinfo.h"
#include "storage/events.h"

/* A notification that is being built. */
typedef struct Notification
{
	const char *about;			/* the first members of the object */
	const char *list;			/* name of the list of items */
	StringInfoData items;		/* items that fit */
	int			before;			/* length of items without the current one */
	int			room;			/* maximum length of items; 0 once an item did
								 * not fit */
	int64		count;			/* number of all items */
} Notification;

extern void notification_begin(Notification *notification, const char *about, const char *list);
extern StringInfo notification_item(Notification *notification);
extern void notification_item_end(Notification *notification);
extern void notification_send(const Notification *notification, const char *channel);

extern void notification_begin_sync(Notification *notification, const char *sync);
extern void notification_add_event(Notification *notification, const EventRow *row);
extern void notify_sync(const char *sync, const char *channel, int64 count);

#endif							/* POSTALYTICS_NOTIFICATION_H */
