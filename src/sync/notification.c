/*
 * notification.c
 *		Builds notifications, as JSON that fits into a payload.  A statement
 *		sends one notification to a channel, regardless of its number of rows.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "fmgr.h"
#include "sync/notification.h"
#include "sync/sync.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(postalytics_notify_sync);

/* The server requires less than 8000 bytes. */
#define MAX_PAYLOAD		7999

/*
 * Begin a notification of the form {about, "count": n, "list": [items]}.
 * about is the beginning of a JSON object, without its closing brace, and must
 * be short.  Allocates in the current memory context.
 */
void
notification_begin(Notification *notification, const char *about, const char *list)
{
	notification->about = about;
	notification->list = list;
	notification->count = 0;
	initStringInfo(&notification->items);
	notification->room = MAX_PAYLOAD -
		strlen(psprintf("%s, \"count\": " INT64_FORMAT ", \"%s\": []}",
						about, PG_INT64_MAX, list));
}

/*
 * Count an item, and return the buffer to which to append it; NULL if there is no
 * more room.
 */
StringInfo
notification_item(Notification *notification)
{
	notification->count++;
	if (notification->room <= 0)
		return NULL;
	notification->before = notification->items.len;
	if (notification->before > 0)
		appendStringInfoString(&notification->items, ", ");
	return &notification->items;
}

/*
 * End an item.  If it does not fit, it is removed, and no further items are added.
 */
void
notification_item_end(Notification *notification)
{
	if (notification->items.len <= notification->room)
		return;
	notification->items.len = notification->before;
	notification->items.data[notification->before] = '\0';
	notification->room = 0;
}

/*
 * Notify a channel at commit, if any item was counted.  Errors are those of
 * pg_notify.
 */
void
notification_send(const Notification *notification, const char *channel)
{
	if (notification->count > 0)
		Async_Notify(channel,
					 psprintf("%s, \"count\": " INT64_FORMAT ", \"%s\": [%s]}",
							  notification->about, notification->count, notification->list,
							  notification->items.data));
}

/* ---- notifications of syncs ---- */

/*
 * Begin a notification of a sync: {"sync": "name", "count": ..., "events":
 * [...]}.
 */
void
notification_begin_sync(Notification *notification, const char *sync)
{
	StringInfoData about;

	initStringInfo(&about);
	appendStringInfoString(&about, "{\"sync\": ");
	escape_json(&about, sync);
	notification_begin(notification, about.data, "events");
}

static void
append_member(StringInfo json, const char *name, const char *value, int length)
{
	appendStringInfo(json, ", \"%s\": ", name);
	if (value == NULL)
		appendStringInfoString(json, "null");
	else
		escape_json(json, pnstrdup(value, length));
}

/* Append an event as a JSON object. */
static void
append_event(StringInfo json, const EventRow *row)
{
	const EventKey *key = &row->key;
	const char *name = status_name(key->status);
	const char *label = status_label(key->status);
	char		time[MAXDATELEN + 1];

	JsonEncodeDateTime(time, TimestampTzGetDatum(key->occurred_at), TIMESTAMPTZOID, NULL);
	appendStringInfo(json, "{\"event_id\": " INT64_FORMAT, row->event_id);
	append_member(json, "piece_id", key->piece, key->piece_length);
	append_member(json, "status", name, strlen(name));
	append_member(json, "label", label, strlen(label));
	append_member(json, "occurred_at", time, strlen(time));
	append_member(json, "account", key->account, key->account_length);
	append_member(json, "campaign_id", row->campaign_id == NULL ? NULL : VARDATA_ANY(row->campaign_id),
				  row->campaign_id == NULL ? 0 : VARSIZE_ANY_EXHDR(row->campaign_id));
	appendStringInfoChar(json, '}');
}

/* Add an event to the notification of a sync, if it fits. */
void
notification_add_event(Notification *notification, const EventRow *row)
{
	StringInfo	item = notification_item(notification);

	if (item != NULL)
	{
		append_event(item, row);
		notification_item_end(notification);
	}
}

/*
 * Notify the channel of a sync at commit.  The notification counts the events, but
 * does not list them.
 */
void
notify_sync(const char *sync, const char *channel, int64 count)
{
	Notification notification;

	notification_begin_sync(&notification, sync);
	notification.count = count;
	notification_send(&notification, channel);
}

/*
 * notify_sync(sync text, count bigint) returns void
 *
 * As the C function notify_sync.  Error 42704 if there is no such sync.  Strict.
 */
Datum
postalytics_notify_sync(PG_FUNCTION_ARGS)
{
	const Sync *sync = find_sync(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	notify_sync(sync->name, sync->channel, PG_GETARG_INT64(1));
	PG_RETURN_VOID();
}
