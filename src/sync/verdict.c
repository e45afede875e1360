/*
 * verdict.c
 *		Selects the due deliveries of a sync, decides what is to become of each
 *		(lease, postpone, give up, supersede, cancel), and locks them.
 *
 * fetch.c carries out the verdicts.  A look scans deliveries_unfinished_due_idx, whose entries include the piece.
 * In an ordered sync only the head of a piece, its earliest unfinished
 * delivery, can be handed out.  Each look finds the head of a piece once, and
 * skips the piece's other index entries without visiting the heap, so that a
 * piece with ten thousand visits costs only a few index pages.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/extension.h"
#include "base/query.h"
#include "base/text.h"
#include "catalog/pg_type.h"
#include "journey/piece.h"
#include "miscadmin.h"
#include "storage/lookup.h"
#include "sync/delivery.h"
#include "sync/verdict.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* The number of superseded deliveries that do not count towards a look's batch. */
#define MAX_SUPERSEDED	1000

/* ---- the pieces that a look has dealt with ---- */

typedef struct PieceKey
{
	const text *piece;
	const text *account;
} PieceKey;

typedef struct SeenPiece
{
	PieceKey	key;
	bool		has_lease;		/* latest_only: a delivery of it is leased */
	DeliveryRow lease;			/* the first such delivery */
	char		status;			/* for simplehash */
} SeenPiece;

#define SH_PREFIX		pieces
#define SH_ELEMENT_TYPE SeenPiece
#define SH_KEY_TYPE		PieceKey
#define SH_KEY			key
#define SH_HASH_KEY(tb, key) hash_combine(hash_text((key).piece), hash_text((key).account))
#define SH_EQUAL(tb, a, b) (equal_texts((a).piece, (b).piece) && equal_texts((a).account, (b).account))
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* ---- the look ---- */

typedef struct Look
{
	const Sync *sync;
	text	   *name;			/* of the sync */
	TimestampTz now;
	int			batch;
	Relation	unfinished;
	Relation	pieces;			/* NULL unless the sync has "unless" */
	Lookup		due;			/* by sync and due_at */
	Lookup		piece;			/* by piece_id, account, sync and occurred_at */
	Lookup		key;			/* of pieces, by piece_id and account */
	TupleTableSlot *locked;		/* the row locked last */
	pieces_hash *seen;
	Found	   *found;			/* NULL for next_due */
} Look;

/* Columns of the index deliveries_unfinished_due_idx. */
enum
{
	DUE_SYNC, DUE_DUE_AT, DUE_PIECE_ID, DUE_ACCOUNT, DUE_IS_TEST, N_DUE_COLUMNS
};

static const TableColumn due_columns[N_DUE_COLUMNS] = {
	[DUE_SYNC] = COLUMN("sync", TEXTOID),
	[DUE_DUE_AT] = COLUMN("due_at", TIMESTAMPTZOID),
	[DUE_PIECE_ID] = COLUMN("piece_id", TEXTOID),
	[DUE_ACCOUNT] = COLUMN("account", TEXTOID),
	[DUE_IS_TEST] = COLUMN("is_test", BOOLOID),
};

enum
{
	PIECE_INDEX_PIECE_ID, PIECE_INDEX_ACCOUNT, PIECE_INDEX_SYNC, PIECE_INDEX_OCCURRED_AT,
	N_PIECE_INDEX_COLUMNS
};

static const TableColumn piece_index_columns[N_PIECE_INDEX_COLUMNS] = {
	[PIECE_INDEX_PIECE_ID] = COLUMN("piece_id", TEXTOID),
	[PIECE_INDEX_ACCOUNT] = COLUMN("account", TEXTOID),
	[PIECE_INDEX_SYNC] = COLUMN("sync", TEXTOID),
	[PIECE_INDEX_OCCURRED_AT] = COLUMN("occurred_at", TIMESTAMPTZOID),
};

/*
 * Begin a lookup in deliveries_unfinished by an index; error 55000 if the
 * index was altered.
 */
static void
begin_lookup(Look *look, Lookup *lookup, const char *index, const TableColumn *columns,
			 int ncolumns, int nkeys)
{
	lookup_begin(lookup, look->unfinished, extension_relation(index), GetActiveSnapshot(), nkeys);
	check_columns(lookup->index, columns, ncolumns);
}

static void
begin_look(Look *look, const Sync *sync, TimestampTz now, TimestampTz from, int batch, LOCKMODE mode)
{
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	memset(look, 0, sizeof(*look));
	look->sync = sync;
	look->name = cstring_to_text(sync->name);
	look->now = now;
	look->batch = batch;
	look->unfinished = open_unfinished(mode);
	begin_lookup(look, &look->due, "deliveries_unfinished_due_idx", due_columns, N_DUE_COLUMNS, 3);
	begin_lookup(look, &look->piece, "deliveries_unfinished_piece_idx", piece_index_columns,
				 N_PIECE_INDEX_COLUMNS, 4);
	look->due.scan->xs_want_itup = true;
	lookup_key(&look->due, 0, DUE_SYNC + 1, BTEqualStrategyNumber, PointerGetDatum(look->name));
	lookup_key(&look->due, 1, DUE_DUE_AT + 1, BTGreaterEqualStrategyNumber, TimestampTzGetDatum(from));
	lookup_key(&look->due, 2, DUE_DUE_AT + 1, BTLessEqualStrategyNumber, TimestampTzGetDatum(now));
	if (sync->unless != 0)
	{
		look->pieces = open_pieces(AccessShareLock);
		lookup_begin(&look->key, look->pieces, compat_primary_key(look->pieces), GetActiveSnapshot(), 2);
	}
	look->locked = table_slot_create(look->unfinished, NULL);
	look->seen = pieces_create(CurrentMemoryContext, 256, NULL);
}

static void
end_look(Look *look)
{
	ExecDropSingleTupleTableSlot(look->locked);
	lookup_end(&look->due);
	lookup_end(&look->piece);
	table_close(look->unfinished, NoLock);
	if (look->pieces != NULL)
	{
		lookup_end(&look->key);
		table_close(look->pieces, NoLock);
	}
	PopActiveSnapshot();
}

/* True if only the head of a piece may be handed out. */
static bool
waits_in_order(const Look *look, bool is_test)
{
	return look->sync->ordered && !look->sync->latest_only && !is_test;
}

/*
 * Return the entry of the piece of the delivery in the slot of look->due,
 * creating it if necessary; found is set to true if it existed.
 */
static SeenPiece *
see_piece(Look *look, bool *found)
{
	bool		isnull;
	PieceKey	key = {
		DatumGetTextPP(delivery_attribute(look->due.slot, DELIVERY_PIECE_ID, &isnull)),
		DatumGetTextPP(delivery_attribute(look->due.slot, DELIVERY_ACCOUNT, &isnull))
	};
	SeenPiece  *seen = pieces_insert(look->seen, key, found);

	if (!*found)
	{
		seen->key.piece = DatumGetTextPCopy(PointerGetDatum(key.piece));
		seen->key.account = DatumGetTextPCopy(PointerGetDatum(key.account));
	}
	return seen;
}

/*
 * Advance to the next delivery that is due, in the slot of look->due, except
 * for those of pieces that this look has already dealt with.  False at the
 * end.
 */
static bool
next_due_delivery(Look *look)
{
	while (index_getnext_tid(look->due.scan, ForwardScanDirection) != NULL)
	{
		IndexTuple	entry = look->due.scan->xs_itup;
		TupleDesc	tupdesc = look->due.scan->xs_itupdesc;
		bool		isnull;
		bool		is_test = DatumGetBool(index_getattr(entry, DUE_IS_TEST + 1, tupdesc, &isnull));
		PieceKey	key = {
			DatumGetTextPP(index_getattr(entry, DUE_PIECE_ID + 1, tupdesc, &isnull)),
			DatumGetTextPP(index_getattr(entry, DUE_ACCOUNT + 1, tupdesc, &isnull))
		};
		bool		found;

		CHECK_FOR_INTERRUPTS();
		if (waits_in_order(look, is_test) && pieces_lookup(look->seen, key) != NULL)
			continue;
		if (!index_fetch_heap(look->due.scan, look->due.slot))
			continue;
		if (waits_in_order(look, is_test))
			(void) see_piece(look, &found);
		return true;
	}
	return false;
}

/* ---- the other deliveries of a piece ---- */

/* Set the keys to the deliveries of a row's piece from a time on. */
static void
seek_piece(Look *look, const DeliveryRow *row, TimestampTz from)
{
	lookup_key(&look->piece, 0, PIECE_INDEX_PIECE_ID + 1, BTEqualStrategyNumber, row->piece);
	lookup_key(&look->piece, 1, PIECE_INDEX_ACCOUNT + 1, BTEqualStrategyNumber, row->account);
	lookup_key(&look->piece, 2, PIECE_INDEX_SYNC + 1, BTEqualStrategyNumber, PointerGetDatum(look->name));
	lookup_key(&look->piece, 3, PIECE_INDEX_OCCURRED_AT + 1, BTGreaterEqualStrategyNumber,
			   TimestampTzGetDatum(from));
	lookup_rescan(&look->piece);
}

/* True if a delivery comes before another of its piece. */
static bool
is_before(const DeliveryRow *row, const DeliveryRow *other)
{
	int			status = status_from_oid(DatumGetObjectId(row->status));
	int			other_status = status_from_oid(DatumGetObjectId(other->status));

	if (row->occurred_at != other->occurred_at)
		return row->occurred_at < other->occurred_at;
	return status != other_status ? status < other_status : row->id < other->id;
}

/* Find the head of a delivery's piece, which may be the delivery itself. */
static void
find_head(Look *look, const DeliveryRow *row, DeliveryRow *head, ItemPointer place)
{
	DeliveryRow each;
	bool		found = false;

	seek_piece(look, row, DT_NOBEGIN);
	while (lookup_next(&look->piece, ForwardScanDirection))
	{
		read_delivery(look->piece.slot, &each);
		if (found && each.occurred_at != head->occurred_at)
			break;
		if (each.is_test || each.due_at == DT_NOEND || (found && !is_before(&each, head)))
			continue;
		*head = each;
		head->piece = row->piece;	/* as the slot goes on to another row */
		head->account = row->account;
		head->sync = row->sync;
		*place = look->piece.slot->tts_tid;
		found = true;
	}
	if (!found)
		elog(ERROR, "could not find delivery " INT64_FORMAT " by its piece", row->id);
}

/* Find the first delivery of a piece that is leased, if any. */
static void
find_lease(Look *look, const DeliveryRow *row, SeenPiece *seen)
{
	DeliveryRow each;

	seen->has_lease = false;
	seek_piece(look, row, DT_NOBEGIN);
	while (lookup_next(&look->piece, ForwardScanDirection))
	{
		read_delivery(look->piece.slot, &each);
		if (seen->has_lease && each.occurred_at != seen->lease.occurred_at)
			break;
		if (each.is_test || each.lease_until <= look->now ||
			(seen->has_lease && !is_before(&each, &seen->lease)))
			continue;
		seen->has_lease = true;
		seen->lease = each;		/* is_before() does not read its texts */
	}
}

/*
 * True if an earlier delivery of the piece of the row, which is that in the
 * slot of look->due, is leased.  A look searches each piece once, because the piece
 * can have thousands of deliveries that this transaction has superseded.
 */
static bool
has_earlier_lease(Look *look, const DeliveryRow *row)
{
	bool		found;
	SeenPiece  *seen = see_piece(look, &found);

	if (!found)
		find_lease(look, row, seen);
	return seen->has_lease && is_before(&seen->lease, row);
}

/* True if the piece has a later delivery that is not finished. */
static bool
has_later_unfinished(Look *look, const DeliveryRow *row)
{
	DeliveryRow each;

	seek_piece(look, row, row->occurred_at);
	while (lookup_next(&look->piece, ForwardScanDirection))
	{
		read_delivery(look->piece.slot, &each);
		if (!each.is_test &&
			(each.occurred_at > row->occurred_at ||
			 status_from_oid(DatumGetObjectId(each.status)) > status_from_oid(DatumGetObjectId(row->status))))
			return true;
	}
	return false;
}

/* Parameters of later_query. */
enum
{
	LATER_PIECE_ID, LATER_ACCOUNT, LATER_SYNC, LATER_OCCURRED_AT, LATER_STATUS, N_LATER
};

/* The last condition excludes deliveries_unfinished. */
static SqlQuery later_query = {
	.sql = "SELECT"
	" FROM postalytics.deliveries AS l"
	" WHERE l.piece_id = $1"
	"   AND l.account = $2"
	"   AND l.sync = $3"
	"   AND (l.occurred_at, l.status) > ($4, $5::postalytics.mail_status)"
	"   AND NOT l.is_test"
	"   AND l.state NOT IN ('cancelled', 'discarded')"
	"   AND (l.finished_at AT TIME ZONE 'UTC')::date IS NOT NULL"
	" LIMIT 1",
	.result = SPI_OK_SELECT,
	.nparameters = N_LATER,
	.types = {
		[LATER_PIECE_ID] = TEXTOID,
		[LATER_ACCOUNT] = TEXTOID,
		[LATER_SYNC] = TEXTOID,
		[LATER_OCCURRED_AT] = TIMESTAMPTZOID,
		[LATER_STATUS] = TEXTOID
	}
};

/* True if the piece has a later delivery in history. */
static bool
has_later_finished(Look *look, const DeliveryRow *row)
{
	Datum		values[N_LATER] = {
		[LATER_PIECE_ID] = row->piece,
		[LATER_ACCOUNT] = row->account,
		[LATER_SYNC] = PointerGetDatum(look->name),
		[LATER_OCCURRED_AT] = TimestampTzGetDatum(row->occurred_at),
		[LATER_STATUS] = CStringGetTextDatum(status_name(status_from_oid(DatumGetObjectId(row->status))))
	};
	bool		has;

	query_run(&later_query, values, NULL);
	has = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	return has;
}

/* ---- what is to become of a delivery ---- */

/* Parameters of account_query. */
enum
{
	ACCOUNT_SYNC, ACCOUNT_ACCOUNT, N_ACCOUNT
};

static SqlQuery account_query = {
	.sql = "SELECT"
	" FROM postalytics.syncs AS s"
	" WHERE s.name = $1"
	"   AND (s.accounts IS NULL OR $2 = ANY (s.accounts))",
	.result = SPI_OK_SELECT,
	.nparameters = N_ACCOUNT,
	.types = {[ACCOUNT_SYNC] = TEXTOID,[ACCOUNT_ACCOUNT] = TEXTOID}
};

/*
 * True if the sync is for the account of a delivery.  If it seems not to be,
 * asks the table: a transaction that changes both becomes visible before other
 * sessions are told that the sync has changed.
 */
static bool
is_for_account(Look *look, const DeliveryRow *row)
{
	text	   *account = DatumGetTextPP(row->account);
	Datum		values[N_ACCOUNT] = {
		[ACCOUNT_SYNC] = PointerGetDatum(look->name),
		[ACCOUNT_ACCOUNT] = row->account
	};
	bool		found;

	if (is_listed(&look->sync->accounts, VARDATA_ANY(account), VARSIZE_ANY_EXHDR(account)))
		return true;
	query_run(&account_query, values, NULL);
	found = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	return found;
}

/*
 * True if the piece has reached a status that cancels the sync's deliveries,
 * or the sync no longer includes its account, which its workers may then not
 * see.
 */
static bool
is_cancelled(Look *look, const DeliveryRow *row)
{
	if (!is_for_account(look, row))
		return true;
	if (look->sync->unless == 0)
		return false;
	lookup_key(&look->key, 0, 1, BTEqualStrategyNumber, row->piece);
	lookup_key(&look->key, 1, 2, BTEqualStrategyNumber, row->account);
	return lookup_first(&look->key) && piece_has_reached(look->key.slot, look->sync->unless);
}

/* Decide what is to become of a delivery that is due and not leased. */
static Verdict
judge(Look *look, const DeliveryRow *row)
{
	if (row->is_test && row->attempt < look->sync->max_attempts)
		return is_for_account(look, row) ? LEASE : CANCEL;
	if (row->attempt >= look->sync->max_attempts)
		return GIVE_UP;
	if (look->sync->latest_only && (has_later_unfinished(look, row) || has_later_finished(look, row)))
		return SUPERSEDE;
	return is_cancelled(look, row) ? CANCEL : LEASE;
}

/*
 * Lock a row without waiting; false if another transaction holds it or has
 * changed it.
 */
static bool
lock_delivery(Look *look, ItemPointer place)
{
	bool		locked = lock_row(look->unfinished, place, LockTupleExclusive, LockWaitSkip, look->locked);

	ExecClearTuple(look->locked);
	return locked;
}

/* Add a locked row, and what is to become of it. */
static void
add_found(Look *look, Verdict verdict, ItemPointer place, TimestampTz postpone_to)
{
	Found	   *found = look->found;
	int			nth = found->verdict[verdict].count++;
	ItemPointer copy = palloc(sizeof(ItemPointerData));

	if (nth == found->verdict[verdict].size)
	{
		int			size = found->verdict[verdict].size = nth == 0 ? 64 : 2 * nth;

		if (nth == 0)
		{
			found->verdict[verdict].places = palloc(size * sizeof(Datum));
			found->verdict[verdict].times = palloc(size * sizeof(Datum));
		}
		found->verdict[verdict].places = repalloc(found->verdict[verdict].places, size * sizeof(Datum));
		found->verdict[verdict].times = repalloc(found->verdict[verdict].times, size * sizeof(Datum));
	}
	ItemPointerCopy(place, copy);
	found->verdict[verdict].places[nth] = PointerGetDatum(copy);
	found->verdict[verdict].times[nth] = TimestampTzGetDatum(postpone_to);
	found->count++;
}

/*
 * Postpone the due rows of a piece until its head is due, so that the next
 * looks do not visit them again.
 */
static void
postpone_piece(Look *look, const DeliveryRow *head)
{
	DeliveryRow each;

	seek_piece(look, head, head->occurred_at);
	while (lookup_next(&look->piece, ForwardScanDirection))
	{
		ItemPointerData place = look->piece.slot->tts_tid;

		read_delivery(look->piece.slot, &each);
		if (!each.is_test && each.due_at <= look->now && each.lease_until <= look->now &&
			lock_delivery(look, &place))
			add_found(look, POSTPONE, &place, head->due_at);
	}
}

/*
 * Decide on the delivery in the slot of look->due, or on the head of its
 * piece, and lock it.
 */
static void
consider(Look *look)
{
	DeliveryRow row;
	DeliveryRow head;
	ItemPointerData place = look->due.slot->tts_tid;
	Verdict		verdict;

	read_delivery(look->due.slot, &row);
	if (waits_in_order(look, row.is_test))
	{
		find_head(look, &row, &head, &place);
		if (head.due_at > look->now)
		{
			postpone_piece(look, &head);
			return;
		}
		row = head;
	}
	if (row.lease_until > look->now)
		return;
	if (look->sync->ordered && look->sync->latest_only && !row.is_test && has_earlier_lease(look, &row))
		return;
	verdict = judge(look, &row);
	if (lock_delivery(look, &place))
		add_found(look, verdict, &place, 0);
}

/*
 * Decide on the deliveries that are due, from the beginning, until a batch is
 * found.  The first MAX_SUPERSEDED superseded ones do not count towards it.
 */
static void
find_due(Look *look)
{
	const int  *superseded = &look->found->verdict[SUPERSEDE].count;
	bool		isnull;

	lookup_rescan(&look->due);
	while (look->found->count - Min(*superseded, MAX_SUPERSEDED) < look->batch && next_due_delivery(look))
	{
		look->found->last_due =
			DatumGetTimestampTz(delivery_attribute(look->due.slot, DELIVERY_DUE_AT, &isnull));
		consider(look);
	}
}

/* Look at the deliveries that are due since a time. */
static void
look_from(const Sync *sync, TimestampTz now, TimestampTz from, int batch, Found *found)
{
	Look		look;

	memset(found, 0, sizeof(*found));
	found->last_due = DT_NOBEGIN;
	begin_look(&look, sync, now, from, batch, RowExclusiveLock);
	look.found = found;
	find_due(&look);
	end_look(&look);
}

/*
 * Where the session's last look ended, by due_at.  A session that works
 * through a backlog continues there, because a scan from the beginning would
 * have to skip the dead index entries of finished deliveries each time, and an
 * old snapshot can keep VACUUM from removing them for hours.  It starts from
 * the beginning every FROM_START_INTERVAL, and when it finds less than a
 * batch.
 */
static struct
{
	char		sync[NAMEDATALEN];
	TimestampTz from;			/* by due_at */
	TimestampTz until;			/* by the clock */
}			backlog;

#define FROM_START_INTERVAL	(1 * USECS_PER_SEC)

/*
 * Look at the deliveries of a sync that are due, and lock up to batch of them.
 */
void
look_for_due(const Sync *sync, TimestampTz now, int batch, Found *found)
{
	bool		goes_on = strcmp(backlog.sync, sync->name) == 0 && now < backlog.until;

	if (goes_on)
	{
		look_from(sync, now, backlog.from, batch, found);
		goes_on = found->count >= batch;
	}
	if (!goes_on)
	{
		look_from(sync, now, DT_NOBEGIN, batch, found);
		strlcpy(backlog.sync, sync->name, NAMEDATALEN);
		backlog.until = now + FROM_START_INTERVAL;
	}
	backlog.from = found->last_due;
	if (found->count < batch)
		backlog.until = now;
}

/* ---- when the next delivery is ready ---- */

/*
 * Return the time from which the first delivery that is due can be fetched:
 * its due_at, the end of the lease that it waits for, or DT_NOEND if nothing
 * is due.
 */
static TimestampTz
next_ready(Look *look)
{
	TimestampTz next = DT_NOEND;
	DeliveryRow row;
	ItemPointerData place;

	lookup_rescan(&look->due);
	while (next_due_delivery(look))
	{
		read_delivery(look->due.slot, &row);
		if (waits_in_order(look, row.is_test))
			find_head(look, &row, &row, &place);
		if (row.due_at <= look->now && row.lease_until <= look->now)
			return row.due_at;
		next = Min(next, Max(row.due_at, row.lease_until));
	}
	return next;
}

/*
 * Return the due_at of the next delivery of the sync that is not due yet;
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
 * Return when a delivery of a sync can be fetched, as far as is known;
 * DT_NOEND for never.
 */
TimestampTz
look_for_next(const Sync *sync, TimestampTz now)
{
	TimestampTz next;
	Look		look;

	begin_look(&look, sync, now, DT_NOBEGIN, 0, AccessShareLock);
	next = next_ready(&look);
	if (next > now)
		next = Min(next, next_not_due(&look));
	end_look(&look);
	return next;
}
