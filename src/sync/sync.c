/*
 * sync.c
 *		Keeps the table syncs in each session's memory.
 *
 * match.c decides which events a sync is for.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/cache.h"
#include "base/compat.h"
#include "base/extension.h"
#include "base/text.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "storage/lmgr.h"
#include "sync/sync.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(postalytics_raise_undefined_sync);
PG_FUNCTION_INFO_V1(postalytics_check_durable);

/* Columns of syncs, as in sync.sql: attribute numbers. */
enum
{
	ATTR_NAME = 1, ATTR_CHANNEL, ATTR_ENABLED, ATTR_CAMPAIGNS, ATTR_ACCOUNTS,
	ATTR_STATUSES, ATTR_WAIT, ATTR_UNLESS, ATTR_LATEST_ONLY, ATTR_ORDERED,
	ATTR_DURABLE, ATTR_MAX_ATTEMPTS, ATTR_NOTIFY_EVENTS, ATTR_RATE, ATTR_PER,
	ATTR_MAX_LEASED, ATTR_BREAKER, ATTR_ERRORS
};

#define EVERY_STATUS	((1 << N_STATUSES) - 1)

/* The first of the list of all syncs. */
static Sync *syncs;
static uint64 generation;		/* counts the times that syncs was read */

/* Read an array of texts; NULL gives an empty list. */
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

/* Read an integer; NULL, which means no limit, gives 0. */
static int
load_limit(TupleTableSlot *row, int attribute)
{
	bool		isnull;
	Datum		value = slot_getattr(row, attribute, &isnull);

	return isnull ? 0 : DatumGetInt32(value);
}

/* Return the length of an interval in microseconds, with months of 30 days. */
static int64
interval_length(const Interval *interval)
{
	int64		days = (int64) interval->month * DAYS_PER_MONTH + interval->day;

	return days * USECS_PER_DAY + interval->time;
}

static void
begin_syncs(void)
{
	syncs = NULL;
	generation++;
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
	sync->notify_events = DatumGetBool(slot_getattr(row, ATTR_NOTIFY_EVENTS, &isnull));
	sync->rate = load_limit(row, ATTR_RATE);
	sync->per = interval_length(DatumGetIntervalP(slot_getattr(row, ATTR_PER, &isnull)));
	sync->max_leased = load_limit(row, ATTR_MAX_LEASED);
	sync->breaker = load_limit(row, ATTR_BREAKER);
	sync->errors = DatumGetBool(slot_getattr(row, ATTR_ERRORS, &isnull));
	sync->generation = generation;
	sync->next = syncs;
	syncs = sync;
}

static TableCache syncs_cache = {
	.table = "syncs",
	.begin = begin_syncs,
	.add = add_sync
};

/*
 * Return the list of all syncs, which is valid until the next call.
 */
const Sync *
first_sync(void)
{
	LockRelationOid(extension_relation("syncs"), AccessShareLock);
	refresh_cache(&syncs_cache);
	return syncs;
}

static void
raise_undefined_sync(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("sync \"%s\" does not exist", name),
			 errhint("Existing syncs are listed in %s.syncs.", EXTENSION_SCHEMA)));
}

/*
 * Return the sync of this name, valid until the next call of find_sync or
 * first_sync.  Error 42704 if it does not exist.
 */
const Sync *
find_sync(const char *name)
{
	for (const Sync *sync = first_sync(); sync != NULL; sync = sync->next)
		if (strcmp(sync->name, name) == 0)
			return sync;
	raise_undefined_sync(name);
	return NULL;				/* not reached */
}

/*
 * True if a list contains a value, or if the list is empty, which means any value.
 * The value may be NULL.
 */
bool
is_listed(const TextList *list, const char *value, uint32 length)
{
	return list->count == 0 ||
		(value != NULL && texts_include(list->texts, list->count, value, length));
}

/* Raise error 22023 if a sync is not durable, and so has no deliveries. */
void
check_durable(const Sync *sync)
{
	if (!sync->durable)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("sync \"%s\" is not durable, so it has no deliveries", sync->name),
				 errhint("LISTEN on its channel, or set \"durable\" to true in its row of %s.syncs.", EXTENSION_SCHEMA)));
}

/* ---- SQL ---- */

/*
 * raise_undefined_sync(name text) returns void
 *
 * Raises error 42704.  Not strict, because a strict function would do nothing for
 * NULL.
 */
Datum
postalytics_raise_undefined_sync(PG_FUNCTION_ARGS)
{
	raise_undefined_sync(PG_ARGISNULL(0) ? "<NULL>" : text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

/*
 * check_durable(name text) returns void
 *
 * Errors: 22023 if the sync is not durable, 42704 if there is no such sync.
 * Strict.
 */
Datum
postalytics_check_durable(PG_FUNCTION_ARGS)
{
	check_durable(find_sync(text_to_cstring(PG_GETARG_TEXT_PP(0))));
	PG_RETURN_VOID();
}
