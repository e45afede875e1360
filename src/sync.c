/*
 * sync.c
 *		Which enabled syncs a new event is for, and what they are sent.
 */
#include "postalytics_status.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

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

static Sync *enabled_syncs;		/* as of the last load */
static Oid	enabled_syncs_relation; /* the syncs that were read */

/* ---- the cache ---- */

static TextList
load_texts(TupleTableSlot *slot, int attribute)
{
	TextList	list = {0, NULL};
	bool		isnull;
	Datum		value = slot_getattr(slot, attribute, &isnull);
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
load_statuses(TupleTableSlot *slot)
{
	uint16		statuses = 0;
	bool		isnull;
	Datum		value = slot_getattr(slot, ATTR_STATUSES, &isnull);
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

/* Read directly, so that whoever inserts events needs no privilege on syncs. */
static void
load_syncs(Oid relation)
{
	Relation	rel = table_open(relation, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		Sync	   *sync;

		if (!DatumGetBool(slot_getattr(slot, ATTR_ENABLED, &isnull)))
			continue;
		sync = palloc(sizeof(Sync));
		sync->name = TextDatumGetCString(slot_getattr(slot, ATTR_NAME, &isnull));
		sync->channel = TextDatumGetCString(slot_getattr(slot, ATTR_CHANNEL, &isnull));
		sync->campaigns = load_texts(slot, ATTR_CAMPAIGNS);
		sync->accounts = load_texts(slot, ATTR_ACCOUNTS);
		sync->statuses = load_statuses(slot);
		sync->next = enabled_syncs;
		enabled_syncs = sync;
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

/* The enabled syncs, read again when any of them changed. */
static Sync *
get_enabled_syncs(void)
{
	static MemoryContext context = NULL;
	static bool complete = false;	/* an error may end the scan */
	Oid			relation = extension_relation("syncs");
	MemoryContext caller;

	if (complete && enabled_syncs_relation == relation)
		return enabled_syncs;

	if (context == NULL)
	{
		context = AllocSetContextCreate(TopMemoryContext, "postalytics syncs",
										ALLOCSET_SMALL_SIZES);
		watch_relation(&enabled_syncs_relation);
	}
	complete = false;
	enabled_syncs = NULL;
	MemoryContextReset(context);
	enabled_syncs_relation = relation;	/* before the scan, which may learn better */
	caller = MemoryContextSwitchTo(context);
	load_syncs(relation);
	MemoryContextSwitchTo(caller);
	complete = true;
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
		notice_begin(&match->syncs[i].notice, sync->name);
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

/* Note for which syncs an event is. */
void
sync_match_event(SyncMatch *match, const EventRow *row)
{
	for (int i = 0; i < match->count; i++)
	{
		const Sync *sync = match->syncs[i].sync;

		if ((sync->statuses & (1 << row->status)) != 0 &&
			listed(&sync->campaigns, row->campaign_id) &&
			listed(&sync->accounts, row->account))
			notice_add(&match->syncs[i].notice, row);
	}
}

/* Notify the syncs that matched: once each, whatever the number of events. */
void
sync_match_finish(SyncMatch *match)
{
	for (int i = 0; i < match->count; i++)
	{
		Matched    *matched = &match->syncs[i];

		if (matched->notice.count > 0)
			notice_send(&matched->notice, matched->sync->name, matched->sync->channel);
	}
}
