/*
 * sync.c
 *		Which enabled syncs a new event is for, and what they are told.
 */
#include "postalytics_status.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/timestamp.h"

/* Attribute numbers of syncs, as sync.sql has them. */
enum
{
	ATTR_NAME = 1, ATTR_CHANNEL, ATTR_ENABLED, ATTR_CAMPAIGNS, ATTR_ACCOUNTS,
	ATTR_STATUSES
};

/* Some texts; none of them means any. */
typedef struct TextList
{
	int			count;
	text	  **texts;
} TextList;

typedef struct Sync
{
	char	   *name;
	char	   *channel;
	TextList	campaigns;
	TextList	accounts;
	uint16		statuses;		/* a bit each */
	struct Sync *next;
} Sync;

#define EVERY_STATUS	((1 << N_STATUSES) - 1)

/* ---- the syncs that are enabled now ---- */

static Sync *enabled_syncs;

static TextList
load_texts(TupleTableSlot *row, int attribute)
{
	TextList	list = {0, NULL};
	bool		isnull;
	Datum		value = slot_getattr(row, attribute, &isnull);
	Datum	   *elements;

	if (isnull)
		return list;
	deconstruct_array(DatumGetArrayTypePCopy(value), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, NULL, &list.count);
	list.texts = palloc(list.count * sizeof(text *));
	for (int i = 0; i < list.count; i++)
		list.texts[i] = DatumGetTextPP(elements[i]);
	return list;
}

static uint16
load_statuses(TupleTableSlot *row)
{
	uint16		statuses = 0;
	bool		isnull;
	Datum		value = slot_getattr(row, ATTR_STATUSES, &isnull);
	ArrayType  *array;
	Datum	   *elements;
	int			count;

	if (isnull)
		return EVERY_STATUS;
	array = DatumGetArrayTypeP(value);
	deconstruct_array(array, ARR_ELEMTYPE(array), sizeof(Oid), true,
					  TYPALIGN_INT, &elements, NULL, &count);
	for (int i = 0; i < count; i++)
		statuses |= 1 << status_from_oid(DatumGetObjectId(elements[i]));
	return statuses;
}

static void
begin_syncs(void)
{
	enabled_syncs = NULL;
}

static void
add_sync(TupleTableSlot *row)
{
	bool		isnull;
	Sync	   *sync;

	if (!DatumGetBool(slot_getattr(row, ATTR_ENABLED, &isnull)))
		return;
	sync = palloc(sizeof(Sync));
	sync->name = TextDatumGetCString(slot_getattr(row, ATTR_NAME, &isnull));
	sync->channel = TextDatumGetCString(slot_getattr(row, ATTR_CHANNEL, &isnull));
	sync->campaigns = load_texts(row, ATTR_CAMPAIGNS);
	sync->accounts = load_texts(row, ATTR_ACCOUNTS);
	sync->statuses = load_statuses(row);
	sync->next = enabled_syncs;
	enabled_syncs = sync;
}

static TableCache syncs_cache = {
	.table = "syncs",
	.begin = begin_syncs,
	.add = add_sync
};

static Sync *
get_enabled_syncs(void)
{
	refresh_cache(&syncs_cache);
	return enabled_syncs;
}

/* ---- matching ---- */

typedef struct Matched
{
	const Sync *sync;
	Notice		notice;
} Matched;

struct SyncMatch
{
	int			count;
	Matched    *syncs;
};

/* {"sync": "name" */
static char *
about_sync(const Sync *sync)
{
	StringInfoData about;

	initStringInfo(&about);
	appendStringInfoString(&about, "{\"sync\": ");
	escape_json(&about, sync->name);
	return about.data;
}

/* Prepare to match a statement's events against the syncs enabled now. */
SyncMatch *
sync_match_begin(MemoryContext parent)
{
	MemoryContext caller = MemoryContextSwitchTo(parent);
	SyncMatch  *match = palloc0(sizeof(SyncMatch));
	Sync	   *first = get_enabled_syncs();
	int			i = 0;

	for (Sync *sync = first; sync != NULL; sync = sync->next)
		match->count++;
	match->syncs = palloc(Max(match->count, 1) * sizeof(Matched));
	for (Sync *sync = first; sync != NULL; sync = sync->next, i++)
	{
		match->syncs[i].sync = sync;
		notice_begin(&match->syncs[i].notice, about_sync(sync), "events");
	}
	MemoryContextSwitchTo(caller);
	return match;
}

static bool
listed(const TextList *list, const text *value)
{
	if (list->count == 0)
		return true;
	if (value == NULL)
		return false;
	for (int i = 0; i < list->count; i++)
	{
		const text *each = list->texts[i];

		if (VARSIZE_ANY_EXHDR(each) == VARSIZE_ANY_EXHDR(value) &&
			memcmp(VARDATA_ANY(each), VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)) == 0)
			return true;
	}
	return false;
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

/* Note for which syncs an event is. */
void
sync_match_event(SyncMatch *match, const EventRow *row)
{
	for (int i = 0; i < match->count; i++)
	{
		const Sync *sync = match->syncs[i].sync;
		StringInfo	item;

		if ((sync->statuses & (1 << row->status)) == 0 ||
			!listed(&sync->campaigns, row->campaign_id) ||
			!listed(&sync->accounts, row->account))
			continue;
		item = notice_item(&match->syncs[i].notice);
		if (item != NULL)
		{
			append_event(item, row);
			notice_item_end(&match->syncs[i].notice);
		}
	}
}

/* Notify the syncs that matched: once each, whatever the number of events. */
void
sync_match_finish(SyncMatch *match)
{
	for (int i = 0; i < match->count; i++)
		notice_send(&match->syncs[i].notice, match->syncs[i].sync->channel);
}
