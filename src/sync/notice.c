/*
 * notice.c
 *		Builds notifications: one per statement, however many rows it has, as
 *		JSON that fits into a payload.
 */
#include "postgres.h"

#include "base/compat.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "fmgr.h"
#include "sync/notice.h"
#include "sync/sync.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(postalytics_wake);

/* The server requires less than 8000 bytes. */
#define MAX_PAYLOAD		7999

/*
 * Begin a notification of the form {about, "count": n, "list": [items]}.
 * about is the beginning of a JSON object, without its closing brace, and must
 * be short.  Allocates in the current memory context.
 */
void
notice_begin(Notice *notice, const char *about, const char *list)
{
	notice->about = about;
	notice->list = list;
	notice->count = 0;
	initStringInfo(&notice->items);
	notice->room = MAX_PAYLOAD -
		strlen(psprintf("%s, \"count\": " INT64_FORMAT ", \"%s\": []}",
						about, PG_INT64_MAX, list));
}

/*
 * Count an item, and return where to write it; NULL if there is no more room.
 */
StringInfo
notice_item(Notice *notice)
{
	notice->count++;
	if (notice->room <= 0)
		return NULL;
	notice->before = notice->items.len;
	if (notice->before > 0)
		appendStringInfoString(&notice->items, ", ");
	return &notice->items;
}

/*
 * End an item.  If it does not fit it is removed, and none is added after it.
 */
void
notice_item_end(Notice *notice)
{
	if (notice->items.len <= notice->room)
		return;
	notice->items.len = notice->before;
	notice->items.data[notice->before] = '\0';
	notice->room = 0;
}

/*
 * Notify the channel at commit, if anything was counted.  Errors are those of
 * pg_notify.
 */
void
notice_send(const Notice *notice, const char *channel)
{
	if (notice->count > 0)
		Async_Notify(channel,
					 psprintf("%s, \"count\": " INT64_FORMAT ", \"%s\": [%s]}",
							  notice->about, notice->count, notice->list,
							  notice->items.data));
}

/* ---- notifications of syncs ---- */

/*
 * Begin a notification of a sync: {"sync": "name", "count": ..., "events":
 * [...]}.
 */
void
notice_begin_sync(Notice *notice, const char *sync)
{
	StringInfoData about;

	initStringInfo(&about);
	appendStringInfoString(&about, "{\"sync\": ");
	escape_json(&about, sync);
	notice_begin(notice, about.data, "events");
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
notice_add_event(Notice *notice, const EventRow *row)
{
	StringInfo	item = notice_item(notice);

	if (item != NULL)
	{
		append_event(item, row);
		notice_item_end(notice);
	}
}

/*
 * Notify the channel of a sync, at commit, of a number of events, without
 * listing them.
 */
void
notify_sync(const char *sync, const char *channel, int64 count)
{
	Notice		notice;

	notice_begin_sync(&notice, sync);
	notice.count = count;
	notice_send(&notice, channel);
}

/*
 * wake(sync text, count bigint) returns void: as notify_sync.  Strict.  Error
 * 42704 if there is no such sync.
 */
Datum
postalytics_wake(PG_FUNCTION_ARGS)
{
	const Sync *sync = find_sync(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	notify_sync(sync->name, sync->channel, PG_GETARG_INT64(1));
	PG_RETURN_VOID();
}
