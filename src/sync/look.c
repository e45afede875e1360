/*
 * look.c
 *		Finds the due deliveries of a sync, and when the next one is due.
 *
 * A look is one scan of deliveries_unfinished_due_idx for due deliveries of a
 * sync.  The subject of each decision is a delivery or, in an ordered sync, all
 * deliveries of a piece.  A look decides on each piece once.  The index includes
 * the piece, so the look skips the other entries of the piece without visiting
 * the heap, and a piece with ten thousand deliveries costs only a few index
 * pages.
 *
 * place.c computes where the scan begins.  Some deliveries and pieces before
 * that position are put aside (aside.c): they are due but could not be leased
 * before.  Unless the scan begins at the first entry, the look first decides on
 * these again, which is called a probe.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/extension.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "sync/look.h"
#include "sync/place.h"
#include "sync/subject.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Maximum number of superseded deliveries that a look does not count in its batch. */
#define MAX_SUPERSEDED	1000

/*
 * Maximum number of deliveries and pieces put aside that a look probes.  A larger
 * batch is the maximum instead.
 */
#define MAX_ASIDE_PROBES	1000

/* ---- subjects that a look has decided on ---- */

typedef struct SeenSubject
{
	Subject		subject;
	char		status;			/* for simplehash */
} SeenSubject;

#define SH_PREFIX		seen
#define SH_ELEMENT_TYPE SeenSubject
#define SH_KEY_TYPE		Subject
#define SH_KEY			subject
#define SH_HASH_KEY(tb, key) hash_subject(key)
#define SH_EQUAL(tb, a, b) equal_subjects(a, b)
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* ---- the look ---- */

typedef struct Look
{
	const Sync *sync;
	TimestampTz now;
	int			batch;
	Relation	unfinished;
	Judge		judge;
	Lookup		due;			/* scan by sync and due_at */
	Lookup		by_id;			/* by_id.table is NULL until first needed */
	seen_hash  *seen;
	Place	   *place;			/* NULL if every scan begins at the first
								 * entry */
	bool		from_start;		/* the scan begins at the first entry */
	int64		passed;			/* entries read in vain; see end_at_place */
	DueKey		end;			/* key of the last entry read */
	bool		has_obstacle;
	DueKey		obstacle;		/* first entry that the next scan must visit
								 * again */
} Look;

/* Columns of the index deliveries_unfinished_due_idx. */
enum
{
	DUE_SYNC, DUE_DUE_AT, DUE_OCCURRED_AT, DUE_DELIVERY_ID, DUE_PIECE_ID, DUE_ACCOUNT, DUE_IS_TEST,
	N_DUE_COLUMNS
};

static const TableColumn due_columns[N_DUE_COLUMNS] = {
	[DUE_SYNC] = COLUMN("sync", TEXTOID),
	[DUE_DUE_AT] = COLUMN("due_at", TIMESTAMPTZOID),
	[DUE_OCCURRED_AT] = COLUMN("occurred_at", TIMESTAMPTZOID),
	[DUE_DELIVERY_ID] = COLUMN("delivery_id", INT8OID),
	[DUE_PIECE_ID] = COLUMN("piece_id", TEXTOID),
	[DUE_ACCOUNT] = COLUMN("account", TEXTOID),
	[DUE_IS_TEST] = COLUMN("is_test", BOOLOID),
};

static void
begin_look(Look *look, const Sync *sync, TimestampTz now, int batch, Found *found, LOCKMODE mode)
{
	memset(look, 0, sizeof(*look));
	look->sync = sync;
	look->now = now;
	look->batch = batch;
	look->place = find_place(sync);
	look->from_start = look->place == NULL || begin_at_place(look->place, now);
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	while (look->place != NULL && go_back(look->place))
	{
		PopActiveSnapshot();
		PushActiveSnapshot(GetTransactionSnapshot());
	}
	look->unfinished = open_unfinished(mode);
	judge_begin(&look->judge, sync, now, look->unfinished, look->from_start ? NULL : look->place, found);
	lookup_begin(&look->due, look->unfinished, extension_relation("deliveries_unfinished_due_idx"),
				 GetActiveSnapshot(), 3);
	check_columns(look->due.index, due_columns, N_DUE_COLUMNS);
	look->due.scan->xs_want_itup = true;
	look->seen = seen_create(CurrentMemoryContext, 256, NULL);
}

static void
end_look(Look *look)
{
	judge_end(&look->judge);
	lookup_end(&look->due);
	if (look->by_id.table != NULL)
		lookup_end(&look->by_id);
	table_close(look->unfinished, NoLock);
	PopActiveSnapshot();
}

/* Begin a scan of the due deliveries. */
static void
begin_scan(Look *look)
{
	Lookup	   *due = &look->due;

	lookup_key(due, 0, DUE_SYNC + 1, BTEqualStrategyNumber, look->judge.siblings.sync);
	lookup_key(due, 1, DUE_DUE_AT + 1, BTLessEqualStrategyNumber, TimestampTzGetDatum(look->now));
	if (look->from_start)
		lookup_key(due, 2, DUE_DUE_AT + 1, BTGreaterEqualStrategyNumber, TimestampTzGetDatum(DT_NOBEGIN));
	else
	{
		const DueKey *start = &look->place->start;
		Datum		values[] = {
			TimestampTzGetDatum(start->due_at),
			TimestampTzGetDatum(start->occurred_at),
			Int64GetDatum(start->id)
		};

		lookup_row_key(due, 2, DUE_DUE_AT + 1, BTGreaterEqualStrategyNumber, lengthof(values), values);
	}
	lookup_rescan(due);
}

/*
 * Record that the subject of the current entry cannot be leased before until,
 * which is DT_NOBEGIN if the time is unknown.  If the subject is already put
 * aside, defer its probe.  If the entry is an old obstacle, put the subject aside.
 * Otherwise the entry becomes the obstacle of this scan, at which the next scan
 * begins.  After the first obstacle, entries are only counted.
 */
static void
leave_undecided(Look *look, Subject subject, TimestampTz until)
{
	Asides	   *asides;
	Aside	   *aside;

	look->passed++;
	if (look->place == NULL || look->has_obstacle)
		return;
	asides = &look->place->asides;
	aside = aside_find(asides, subject);
	if (aside != NULL)
		aside_defer(asides, aside, until, look->now);
	else if (!is_old_obstacle(look->place, &look->end, look->now) ||
			 !aside_add(asides, subject, until, look->now))
	{
		look->has_obstacle = true;
		look->obstacle = look->end;
	}
}

/*
 * True if the current entry is to be skipped, because this look has already
 * decided on its piece or the piece is put aside.  In the first case, the entry
 * is recorded as one that cannot be leased yet.
 */
static bool
skip_piece(Look *look, Subject piece)
{
	if (seen_lookup(look->seen, piece) != NULL)
	{
		leave_undecided(look, piece, DT_NOBEGIN);
		return true;
	}
	return !look->from_start && aside_find(&look->place->asides, piece) != NULL;
}

/* Remember that this look decides on a subject, so that it does so only once. */
static void
mark_seen(Look *look, Subject subject)
{
	bool		found;
	SeenSubject *seen = seen_insert(look->seen, subject, &found);

	if (!found)
		seen->subject = copy_subject(subject);
}

/*
 * Advance to the next due delivery that this look has not decided on.  Put its
 * row into the slot of look->due, and set subject, whose texts are valid until
 * the next call.  False at the end of the scan.
 */
static bool
next_delivery(Look *look, Subject *subject)
{
	Datum		entry[N_DUE_COLUMNS];

	while (lookup_next_entry(&look->due, entry))
	{
		CHECK_FOR_INTERRUPTS();
		look->end.due_at = DatumGetTimestampTz(entry[DUE_DUE_AT]);
		look->end.occurred_at = DatumGetTimestampTz(entry[DUE_OCCURRED_AT]);
		look->end.id = DatumGetInt64(entry[DUE_DELIVERY_ID]);
		if (waits_in_order(look->sync, DatumGetBool(entry[DUE_IS_TEST])))
		{
			*subject = piece_subject(DatumGetTextPP(entry[DUE_PIECE_ID]), DatumGetTextPP(entry[DUE_ACCOUNT]));
			if (skip_piece(look, *subject))
				continue;
		}
		else
		{
			*subject = delivery_subject(look->end.id);
			if (seen_lookup(look->seen, *subject) != NULL)
				continue;
		}
		if (lookup_row(&look->due))
			return true;
		look->passed++;
	}
	look->end = (DueKey)
	{
		look->now, DT_NOEND, PG_INT64_MAX
	};
	return false;
}

/*
 * Decide on the subject that next_delivery has found: the delivery in the slot of
 * look->due, or its piece.
 */
static void
consider(Look *look, Subject subject)
{
	DeliveryRow row;
	Outcome		outcome;

	read_delivery(look->due.slot, &row);
	if (row.lease_until > look->now)
	{
		leave_undecided(look, subject, subject.piece != NULL ? DT_NOBEGIN : row.lease_until);
		return;
	}
	if (subject.piece != NULL)
	{
		mark_seen(look, subject);
		outcome = judge_piece(&look->judge, row.piece, row.account);
		if (outcome.id == 0)
			elog(ERROR, "could not find delivery " INT64_FORMAT " by its piece", row.id);
	}
	else
		outcome = judge_delivery(&look->judge, &row, &look->due.slot->tts_tid);
	if (outcome.stays)
		leave_undecided(look, subject, outcome.until);
}

/* ---- deliveries and pieces put aside ---- */

/* Read the delivery with an id into row.  False if it is finished or not due. */
static bool
find_due(Look *look, int64 id, DeliveryRow *row)
{
	if (look->by_id.table == NULL)
		lookup_begin(&look->by_id, look->unfinished, compat_primary_key(look->unfinished),
					 GetActiveSnapshot(), 1);
	lookup_key(&look->by_id, 0, 1, BTEqualStrategyNumber, Int64GetDatum(id));
	if (!lookup_first(&look->by_id))
		return false;
	read_delivery(look->by_id.slot, row);
	return row->due_at <= look->now;
}

/*
 * Decide on a delivery or piece that is put aside.  It remains put aside only if
 * it may still have due entries.
 */
static void
probe(Look *look, Aside *aside)
{
	Subject		subject = aside->subject;
	Outcome		outcome = {.stays = false};
	DeliveryRow row;

	mark_seen(look, subject);
	if (subject.piece != NULL)
		outcome = judge_piece(&look->judge, PointerGetDatum(subject.piece), PointerGetDatum(subject.account));
	else if (find_due(look, subject.id, &row))
		outcome = judge_delivery(&look->judge, &row, &look->by_id.slot->tts_tid);
	if (outcome.stays)
		aside_defer(&look->place->asides, aside, outcome.until, look->now);
	else
		aside_remove(&look->place->asides, aside);
}

/* ---- fetch ---- */

/* True if a look has found as many deliveries as its batch allows. */
static bool
has_enough(const Look *look)
{
	const Found *found = look->judge.found;

	return found->count - Min(found->verdict[SUPERSEDE].count, MAX_SUPERSEDED) >= look->batch;
}

/*
 * Probe the deliveries and pieces put aside whose probe_at has come.  The time
 * since the last look limits their number; see PROBE_EACH in aside.c.
 */
static void
probe_asides(Look *look)
{
	for (int i = 0; i < Max(look->batch, MAX_ASIDE_PROBES) && !has_enough(look); i++)
	{
		Aside	   *first = aside_first(&look->place->asides);

		if (first == NULL || first->probe_at > look->now)
			break;
		probe(look, first);
	}
}

/*
 * After a scan that began at the first entry and passed the place, remove the
 * deliveries and pieces put aside whose probe_at has come.  All of them are
 * before the place, so the scan has decided on those that it has not deferred.
 */
static void
forget_asides(Look *look)
{
	Asides	   *asides = &look->place->asides;
	Aside	   *first;

	while ((first = aside_first(asides)) != NULL && first->probe_at <= look->now)
		aside_remove(asides, first);
}

/*
 * Decide on the due deliveries of a sync, lock up to batch of them, and add them
 * to found by verdict.  found must be empty.  The first MAX_SUPERSEDED
 * superseded deliveries do not count towards batch.
 *
 * Locks: RowExclusiveLock on deliveries_unfinished, and the rows, with SKIP
 * LOCKED.  Errors: 55000 if a table or index was altered.
 */
void
look_for_due(const Sync *sync, TimestampTz now, int batch, Found *found)
{
	Look		look;
	Subject		subject;

	begin_look(&look, sync, now, batch, found, RowExclusiveLock);
	if (look.place != NULL)
	{
		look.end = look.place->start;
		if (!look.from_start)
			probe_asides(&look);
	}
	if (!has_enough(&look))
		begin_scan(&look);
	while (!has_enough(&look) && next_delivery(&look, &subject))
		consider(&look, subject);
	if (look.place != NULL && look.from_start && compare_due_keys(&look.end, &look.place->start) >= 0)
		forget_asides(&look);
	if (look.place != NULL)
		end_at_place(look.place, now, look.has_obstacle ? &look.obstacle : NULL, &look.end,
					 look.from_start, look.passed);
	end_look(&look);
}

/* ---- when the next delivery is ready ---- */

/*
 * Return the earliest time, as far as is known, at which one of the due deliveries
 * can be fetched: the due_at of the delivery or of the head of its piece, the end
 * of the lease that it waits for, or the next probe_at.  DT_NOEND if no delivery
 * is due.
 */
static TimestampTz
next_ready(Look *look)
{
	TimestampTz next = DT_NOEND;
	Subject		subject;
	DeliveryRow row;
	ItemPointerData place;

	if (!look->from_start)
	{
		Aside	   *first = aside_first(&look->place->asides);

		if (first != NULL)
			next = first->probe_at;
	}
	begin_scan(look);
	while (next > look->now && next_delivery(look, &subject))
	{
		read_delivery(look->due.slot, &row);
		if (subject.piece != NULL && row.lease_until <= look->now)
		{
			mark_seen(look, subject);
			(void) find_head(&look->judge.siblings, row.piece, row.account, &row, &place);
		}
		if (row.due_at <= look->now && row.lease_until <= look->now)
			return row.due_at;
		next = Min(next, Max(row.due_at, row.lease_until));
	}
	return next;
}

/*
 * Return the due_at of the next delivery of the sync that is not due yet.
 * DT_NOEND if there is none.
 */
static TimestampTz
next_not_due(Look *look)
{
	bool		isnull;

	lookup_key(&look->due, 1, DUE_DUE_AT + 1, BTGreaterStrategyNumber, TimestampTzGetDatum(look->now));
	lookup_key(&look->due, 2, DUE_DUE_AT + 1, BTLessStrategyNumber, TimestampTzGetDatum(DT_NOEND));
	if (!lookup_first(&look->due))
		return DT_NOEND;
	return DatumGetTimestampTz(delivery_attribute(look->due.slot, DELIVERY_DUE_AT, &isnull));
}

/*
 * Return the earliest time, as far as is known, at which a delivery of a sync can
 * be fetched.  DT_NOEND if the sync has no waiting or leased delivery.
 */
TimestampTz
look_for_next(const Sync *sync, TimestampTz now)
{
	TimestampTz next;
	Look		look;

	begin_look(&look, sync, now, 0, NULL, AccessShareLock);
	next = next_ready(&look);
	if (next > now)
		next = Min(next, next_not_due(&look));
	end_look(&look);
	return next;
}
