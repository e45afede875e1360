/*
 * months.c
 *		Creates the missing months that the events of a call need, and opens
 *		months for writing without a query.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/table.h"
#include "base/extension.h"
#include "feed/status_name.h"
#include "ingest/months.h"
#include "miscadmin.h"
#include "storage/ensure_partition.h"
#include "storage/events.h"
#include "storage/lmgr.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

/* ---- months that exist ---- */

/* A month that a batch needs. */
typedef struct NeededMonth
{
	TimestampTz start;
	TimestampTz end;
	const char *reject_reason;	/* why the month cannot exist, or NULL */
} NeededMonth;

typedef struct NeededMonths
{
	NeededMonth *months;		/* searched sequentially, as they are few */
	int			count;
} NeededMonths;

/*
 * Return the month of a time, which is added if necessary.  The pointer is
 * valid until another month is added.
 */
static NeededMonth *
need_month(NeededMonths *needed, TimestampTz time)
{
	NeededMonth *month;

	for (int i = needed->count - 1; i >= 0; i--)
	{
		month = &needed->months[i];
		if (time >= month->start && time < month->end)
			return month;
	}
	needed->months = needed->months == NULL ? palloc(sizeof(NeededMonth)) :
		repalloc(needed->months, (needed->count + 1) * sizeof(NeededMonth));
	month = &needed->months[needed->count++];
	month->start = month_start(time);
	month->end = next_month(month->start);
	month->reject_reason = NULL;
	return month;
}

/* qsort comparator: the latest month first. */
static int
compare_months(const void *a, const void *b)
{
	TimestampTz x = ((const NeededMonth *) a)->start;
	TimestampTz y = ((const NeededMonth *) b)->start;

	return x > y ? -1 : x < y;
}

/*
 * Create months.  For each month that cannot be created, the reason is recorded
 * in its reject_reason.
 */
static void
create_months(NeededMonth *const *months, int count)
{
	TimestampTz *starts = palloc(Max(count, 1) * sizeof(TimestampTz));

	for (int i = 0; i < count; i++)
		starts[i] = months[i]->start;
	create_months_in_worker(starts, count);
	for (int i = 0; i < count; i++)
	{
		LeafState	state = ensure_leaf(LEAF_MONTH, starts[i]);

		if (state == LEAF_NAME_TAKEN)
			months[i]->reject_reason =
				psprintf("month was detached as table \"%s.%s\"", EXTENSION_SCHEMA, leaf_name(LEAF_MONTH, starts[i]));
		else if (state == LEAF_LIMIT_REACHED)
			months[i]->reject_reason =
				psprintf("month does not exist, and setting \"max_months\" allows only %d months",
						 current_settings()->max_months);
	}
}

/*
 * Create the missing months of a batch, the latest month first, up to the
 * number that the call may create.  A month whose name is taken by another
 * table does not count towards that number.
 */
static void
create_missing_months(NeededMonths *needed, EventBatch *batch)
{
	int			max_new = batch->settings.max_new_months;
	NeededMonth **missing = palloc(needed->count * sizeof(NeededMonth *));
	int			nmissing = 0;

	qsort(needed->months, needed->count, sizeof(NeededMonth), compare_months);
	for (int i = 0; i < needed->count; i++)
	{
		NeededMonth *month = &needed->months[i];

		if (has_leaf(LEAF_MONTH, month->start))
			continue;
		if (leaf_name_is_taken(LEAF_MONTH, month->start) || batch->call->new_months++ < max_new)
			missing[nmissing++] = month;
		else
			month->reject_reason =
				psprintf("month does not exist, and setting \"max_new_months\" allows one call to create only %d months",
						 max_new);
	}
	create_months(missing, nmissing);
}

/*
 * Make sure that the months needed by the events of a batch exist, and reject
 * the events whose months cannot exist.
 *
 * Locks: ROW EXCLUSIVE on events before anything else, so that no month is
 * retired before the rows are inserted, and configure() cannot change setting
 * identity.  Errors: 25006 in a read-only transaction; 40001 if configure()
 * has changed setting identity since the batch was created.
 */
void
ensure_months(EventBatch *batch)
{
	NeededMonths needed = {0};

	if (batch->nrecords == 0)
		return;
	PreventCommandIfReadOnly("INSERT");
	LockRelationOid(extension_relation("events"), RowExclusiveLock);
	if (current_settings()->identity != batch->settings.identity)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("setting \"identity\" was changed while the events were read"),
				 errhint("Try again.")));
	for (int64 i = 0; i < batch->nrecords; i++)
	{
		const EventKey *key = &event_batch_record(batch, i)->key;

		if (!is_production_error(key->status))
			(void) need_month(&needed, key->occurred_at);
	}
	create_missing_months(&needed, batch);
	for (int64 i = batch->nrecords - 1; i >= 0; i--)
	{
		const EventKey *key = &event_batch_record(batch, i)->key;
		const NeededMonth *month;

		if (is_production_error(key->status))
			continue;
		month = need_month(&needed, key->occurred_at);
		if (month->reject_reason != NULL)
			event_batch_reject(batch, i, month->reject_reason);
	}
}

/* ---- months that are open ---- */

/* Return the index of the open month with this OID, or -1. */
static int
find_month(Months *months, Oid leaf)
{
	if (months->last < months->count &&
		RelationGetRelid(months->months[months->last].leaf) == leaf)
		return months->last;
	for (int i = 0; i < months->count; i++)
	{
		if (RelationGetRelid(months->months[i].leaf) == leaf)
			return months->last = i;
	}
	return -1;
}

/*
 * Open the month of a time, unless the month is open already, and return its
 * index in *which.  Returns false if the month does not exist or may be written
 * only by a query.
 */
static bool
open_month(Months *months, TimestampTz time, int *which)
{
	Oid			leaf = leaf_of(months->events, LEAF_MONTH, time);
	Month	   *month;

	if (!OidIsValid(leaf))
		return false;
	*which = find_month(months, leaf);
	if (*which >= 0)
		return true;
	*which = months->count;
	months->months = months->months == NULL ? palloc(sizeof(Month)) :
		repalloc(months->months, (months->count + 1) * sizeof(Month));
	month = &months->months[months->count++];
	month->leaf = table_open(leaf, RowExclusiveLock);
	month->table = NULL;
	return direct_allowed(month->leaf, events_columns, N_EVENTS_COLUMNS) &&
		has_key(month->leaf, EVENTS_PIECE_ID + 1, N_EVENT_KEY);
}

/*
 * Open the months of all events of an offer, and set the month of each event's
 * target.  Returns false if the events must be inserted by a query.
 * close_months must be called even then.
 */
bool
open_months(Months *months, Offer *offer)
{
	months->events = table_open(extension_relation("events"), RowExclusiveLock);
	check_columns(months->events, events_columns, N_EVENTS_COLUMNS);
	if (!direct_allowed_below(months->events, events_columns, N_EVENTS_COLUMNS, "events_inserted"))
		return false;
	offer_rewind(offer);
	while (offer_next_event(offer))
		if (!open_month(months, offer->key->occurred_at, &offer_target(offer)->month))
			return false;
	for (int i = 0; i < months->count; i++)
		months->months[i].table = direct_open(months->months[i].leaf, N_EVENTS_COLUMNS);
	return true;
}

/* Close the months.  Their locks are kept until the transaction ends. */
void
close_months(Months *months)
{
	for (int i = 0; i < months->count; i++)
	{
		if (months->months[i].table != NULL)
			direct_close(months->months[i].table);
		table_close(months->months[i].leaf, NoLock);
	}
	table_close(months->events, NoLock);
}
