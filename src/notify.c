/*
 * notify.c
 *		What a channel is told: one notification a sync and statement, however
 *		many events there are, as JSON that fits in one.
 */
#include "postalytics_status.h"

#include "catalog/pg_type.h"
#include "commands/async.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/timestamp.h"

/* The server's own limit is "less than 8000 bytes". */
#define MAX_PAYLOAD		7999

/* {"sync": ..., "count": ..., "events": [...]} */
static void
append_payload(StringInfo payload, const char *sync, int64 count, const char *events)
{
	appendStringInfoString(payload, "{\"sync\": ");
	escape_json(payload, sync);
	appendStringInfo(payload, ", \"count\": " INT64_FORMAT ", \"events\": [%s]}",
					 count, events);
}

/* Begin with no events; allocates in the current memory context. */
void
notice_begin(Notice *notice, const char *sync)
{
	StringInfoData frame;

	initStringInfo(&frame);
	append_payload(&frame, sync, PG_INT64_MAX, "");
	notice->room = Max(MAX_PAYLOAD - frame.len, 0);
	notice->count = 0;
	initStringInfo(&notice->events);
	pfree(frame.data);
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

static void
append_text_member(StringInfo json, const char *name, const text *value)
{
	append_member(json, name, value == NULL ? NULL : VARDATA_ANY(value),
				  value == NULL ? 0 : VARSIZE_ANY_EXHDR(value));
}

static void
append_event(StringInfo json, const EventRow *row)
{
	const char *name = status_name(row->status);
	const char *label = status_label(row->status);
	char		stamp[MAXDATELEN + 1];

	JsonEncodeDateTime(stamp, TimestampTzGetDatum(row->occurred_at), TIMESTAMPTZOID, NULL);
	appendStringInfo(json, "{\"event_id\": " INT64_FORMAT, row->event_id);
	append_member(json, "piece_id", row->piece, row->piece_length);
	append_member(json, "status", name, strlen(name));
	append_member(json, "label", label, strlen(label));
	append_member(json, "occurred_at", stamp, strlen(stamp));
	append_text_member(json, "account", row->account);
	append_text_member(json, "campaign_id", row->campaign_id);
	appendStringInfoChar(json, '}');
}

/* Count an event, and show it if there is still room. */
void
notice_add(Notice *notice, const EventRow *row)
{
	StringInfo	events = &notice->events;
	int			before = events->len;

	notice->count++;
	if (notice->room == 0)
		return;
	if (before > 0)
		appendStringInfoString(events, ", ");
	append_event(events, row);
	if (events->len > notice->room)
	{
		events->len = before;
		events->data[before] = '\0';
		notice->room = 0;
	}
}

/* Notify, at commit, that count events came; errors 22023 as pg_notify's. */
void
notice_send(Notice *notice, const char *sync, const char *channel)
{
	StringInfoData payload;

	initStringInfo(&payload);
	append_payload(&payload, sync, notice->count, notice->events.data);
	Async_Notify(channel, payload.data);
	pfree(payload.data);
}
