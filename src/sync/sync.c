/*
 * sync.c
 *		The syncs as a session knows them, and for which of them a new event
 *		is: those are told, and owed a delivery.
 */
#include "postalytics_status.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/timestamp.h"

/* Attribute numbers of syncs, as sync.sql has them. */
enum
{
	ATTR_NAME = 1, ATTR_CHANNEL, ATTR_ENABLED, ATTR_CAMPAIGNS, ATTR_ACCOUNTS,
	ATTR_STATUSES, ATTR_WAIT, ATTR_UNLESS, ATTR_LATEST_ONLY, ATTR_ORDERED,
	ATTR_DURABLE, ATTR_MAX_ATTEMPTS, ATTR_WORKERS
};

#define EVERY_STATUS	((1 << N_STATUSES) - 1)

/* ---- the syncs that there are now ---- */

static Sync *syncs;

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

/*
 * Convert an array of statuses to a bit mask; NULL gives if_null.  Enum values
 * that users have added are ignored, because no event can have them.
 */
static uint16
load_statuses(TupleTableSlot *row, int attribute, uint16 if_null)
{
	uint16		statuses = 0;
	bool		isnull;
	Datum		value = slot_getattr(row, attribute, &isnull);
	ArrayType  *array;
	Datum	   *elements;
	int			count;

	if (isnull)
		return if_null;
	array = DatumGetArrayTypeP(value);
	deconstruct_array(array, ARR_ELEMTYPE(array), sizeof(Oid), true,
					  TYPALIGN_INT, &elements, NULL, &count);
	for (int i = 0; i < count; i++)
	{
		int			status = find_status(DatumGetObjectId(elements[i]));

		if (status != NO_STATUS)
			statuses |= 1 << status;
	}
	return statuses;
}

static void
load_workers(Sync *sync, TupleTableSlot *row)
{
	bool		isnull;
	Datum		value = slot_getattr(row, ATTR_WORKERS, &isnull);
	Datum	   *names;

	deconstruct_array(DatumGetArrayTypePCopy(value), NAMEOID, NAMEDATALEN, false,
					  TYPALIGN_CHAR, &names, NULL, &sync->nworkers);
	sync->workers = palloc(sync->nworkers * sizeof(char *));
	for (int i = 0; i < sync->nworkers; i++)
		sync->workers[i] = NameStr(*DatumGetName(names[i]));
}

static void
begin_syncs(void)
{
	syncs = NULL;
}

static void
add_sync(TupleTableSlot *row)
{
	Sync	   *sync = palloc(sizeof(Sync));
	bool		isnull;

	sync->name = TextDatumGetCString(slot_getattr(row, ATTR_NAME, &isnull));
	sync->channel = TextDatumGetCString(slot_getattr(row, ATTR_CHANNEL, &isnull));
	sync->enabled = DatumGetBool(slot_getattr(row, ATTR_ENABLED, &isnull));
	sync->campaigns = load_texts(row, ATTR_CAMPAIGNS);
	sync->accounts = load_texts(row, ATTR_ACCOUNTS);
	sync->statuses = load_statuses(row, ATTR_STATUSES, EVERY_STATUS);
	sync->wait = *DatumGetIntervalP(slot_getattr(row, ATTR_WAIT, &isnull));
	sync->unless = load_statuses(row, ATTR_UNLESS, 0);
	sync->latest_only = DatumGetBool(slot_getattr(row, ATTR_LATEST_ONLY, &isnull));
	sync->ordered = DatumGetBool(slot_getattr(row, ATTR_ORDERED, &isnull));
	sync->durable = DatumGetBool(slot_getattr(row, ATTR_DURABLE, &isnull));
	sync->max_attempts = DatumGetInt32(slot_getattr(row, ATTR_MAX_ATTEMPTS, &isnull));
	load_workers(sync, row);
	sync->next = syncs;
	syncs = sync;
}

static TableCache syncs_cache = {
	.table = "syncs",
	.begin = begin_syncs,
	.add = add_sync
};

/*
 * The sync of that name, valid until syncs are looked at again; error 42704 if
 * there is none.
 */
const Sync *
find_sync(const char *name)
{
	for (const Sync *sync = first_sync(); sync != NULL; sync = sync->next)
		if (strcmp(sync->name, name) == 0)
			return sync;
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("sync \"%s\" does not exist", name),
			 errhint("Their names are in %s.syncs.", EXTENSION_SCHEMA)));
}

/* The first of all syncs, in a list, valid until they are looked at again. */
const Sync *
first_sync(void)
{
	LockRelationOid(extension_relation("syncs"), AccessShareLock);
	refresh_cache(&syncs_cache);
	return syncs;
}

/*
 * May the session's role work on a sync?  The extension's owner may, and who has
 * the rights of one of its workers.  The role is the one that the session has
 * set, for the functions that ask run as their owner.
 */
void
check_sync_worker(const Sync *sync)
{
	Oid			role = GetOuterUserId();
	bool		may = has_privs_of_role(role, extension_owner());

	for (int i = 0; i < sync->nworkers && !may; i++)
	{
		Oid			worker = get_role_oid(sync->workers[i], true);

		may = OidIsValid(worker) && has_privs_of_role(role, worker);
	}
	if (!may)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for sync \"%s\"", sync->name),
				 errhint("Its owner can call %s.grant_sync.", EXTENSION_SCHEMA)));
}

/* ---- matching ---- */

typedef struct Matched
{
	const Sync *sync;
	bool		by_worker;		/* who will notify it */
	Notice		notice;
} Matched;

struct SyncMatch
{
	int			count;
	Matched    *syncs;
	DeliveryWriter *deliveries;
};

/* {"sync": "name" */
static char *
about_sync(const char *name)
{
	StringInfoData about;

	initStringInfo(&about);
	appendStringInfoString(&about, "{\"sync\": ");
	escape_json(&about, name);
	return about.data;
}

/* Tell a sync's channel, at commit, of count events, without showing any. */
void
sync_notify(const char *name, const char *channel, int64 count)
{
	Notice		notice;

	notice_begin(&notice, about_sync(name), "events");
	notice.count = count;
	notice_send(&notice, channel);
}

/*
 * Prepare to match a statement's events against the syncs enabled now.  Until
 * the transaction ends it holds ROW SHARE on syncs, so that who makes a sync
 * from stored events, or drops one, can wait for the writers that are at it.
 */
SyncMatch *
sync_match_begin(MemoryContext parent)
{
	MemoryContext caller = MemoryContextSwitchTo(parent);
	SyncMatch  *match = palloc0(sizeof(SyncMatch));
	bool		has_worker = wake_has_worker();
	int			i = 0;

	LockRelationOid(extension_relation("syncs"), RowShareLock);
	refresh_cache(&syncs_cache);
	for (Sync *sync = syncs; sync != NULL; sync = sync->next)
		match->count += sync->enabled;
	match->syncs = palloc(Max(match->count, 1) * sizeof(Matched));
	for (Sync *sync = syncs; sync != NULL; sync = sync->next)
	{
		if (!sync->enabled)
			continue;
		match->syncs[i].sync = sync;
		match->syncs[i].by_worker = sync->durable && has_worker;
		notice_begin(&match->syncs[i].notice, about_sync(sync->name), "events");
		i++;
	}
	match->deliveries = delivery_writer_create(parent);
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
		if (equal_texts(list->texts[i], value))
			return true;
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

/* Note for which syncs an event is, and owe it to them. */
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
		if (item != NULL && !match->syncs[i].by_worker)
		{
			append_event(item, row);
			notice_item_end(&match->syncs[i].notice);
		}
		if (sync->durable)
			delivery_add(match->deliveries, sync, row);
	}
}

/*
 * Write what is owed, and notify the syncs that matched: once each, whatever
 * the number of events.  Where a worker runs, those with deliveries are its.
 */
void
sync_match_finish(SyncMatch *match)
{
	delivery_finish(match->deliveries);
	for (int i = 0; i < match->count; i++)
	{
		const Matched *each = &match->syncs[i];

		if (!each->by_worker)
			notice_send(&each->notice, each->sync->channel);
		else if (each->notice.count > 0)
			wake_worker(each->sync->name, each->sync->channel, each->notice.count);
	}
}
