/*
 * notice.h
 *		Notifications, as JSON.
 */
#ifndef POSTALYTICS_NOTICE_H
#define POSTALYTICS_NOTICE_H

#include "lib/stringinfo.h"
#include "storage/events.h"

/* A notification that is being built. */
typedef struct Notice
{
	const char *about;			/* the first members of the object */
	const char *list;			/* name of the list of items */
	StringInfoData items;		/* those that fit */
	int			before;			/* length without the current item */
	int			room;			/* bytes for items; 0 once one did not fit */
	int64		count;			/* of all items */
} Notice;

extern void notice_begin(Notice *notice, const char *about, const char *list);
extern StringInfo notice_item(Notice *notice);
extern void notice_item_end(Notice *notice);
extern void notice_send(const Notice *notice, const char *channel);

extern void notice_begin_sync(Notice *notice, const char *sync);
extern void notice_add_event(Notice *notice, const EventRow *row);
extern void notify_sync(const char *sync, const char *channel, int64 count);

#endif							/* POSTALYTICS_NOTICE_H */
