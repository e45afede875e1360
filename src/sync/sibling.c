/*
 * sibling.c
 *		Finds the deliveries of a sync for the same piece.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/query.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "sync/sibling.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

enum
{
	PIECE_INDEX_PIECE_ID, PIECE_INDEX_ACCOUNT, PIECE_INDEX_SYNC, PIECE_INDEX_OCCURRED_AT,
	PIECE_INDEX_DUE_AT, PIECE_INDEX_DELIVERY_ID, N_PIECE_INDEX_COLUMNS
};

static const TableColumn piece_index_columns[N_PIECE_INDEX_COLUMNS] = {
	[PIECE_INDEX_PIECE_ID] = COLUMN("piece_id", TEXTOID),
	[PIECE_INDEX_ACCOUNT] = COLUMN("account", TEXTOID),
	[PIECE_INDEX_SYNC] = COLUMN("sync", TEXTOID),
	[PIECE_INDEX_OCCURRED_AT] = COLUMN("occurred_at", TIMESTAMPTZOID),
	[PIECE_INDEX_DUE_AT] = COLUMN("due_at", TIMESTAMPTZOID),
	[PIECE_INDEX_DELIVERY_ID] = COLUMN("delivery_id", INT8OID),
};

/*
 * Prepare to find deliveries of a sync by their piece, with the active snapshot.
 * Unless place is NULL, skip the deliveries that are known to be finished because
 * they are before the place.  Error 55000 if the index was altered.
 */
void
siblings_begin(Siblings *siblings, Relation unfinished, text *sync, Place *place)
{
	siblings->sync = PointerGetDatum(sync);
	siblings->place = place;
	lookup_begin(&siblings->lookup, unfinished, extension_relation("deliveries_unfinished_piece_idx"),
				 GetActiveSnapshot(), 4);
	check_columns(siblings->lookup.index, piece_index_columns, N_PIECE_INDEX_COLUMNS);
	siblings->lookup.scan->xs_want_itup = true;
}

void
siblings_end(Siblings *siblings)
{
	lookup_end(&siblings->lookup);
}

/* Begin to read the unfinished deliveries of a piece that occurred at from or later. */
void
siblings_seek(Siblings *siblings, Datum piece, Datum account, TimestampTz from)
{
	Lookup	   *lookup = &siblings->lookup;

	lookup_key(lookup, 0, PIECE_INDEX_PIECE_ID + 1, BTEqualStrategyNumber, piece);
	lookup_key(lookup, 1, PIECE_INDEX_ACCOUNT + 1, BTEqualStrategyNumber, account);
	lookup_key(lookup, 2, PIECE_INDEX_SYNC + 1, BTEqualStrategyNumber, siblings->sync);
	lookup_key(lookup, 3, PIECE_INDEX_OCCURRED_AT + 1, BTGreaterEqualStrategyNumber,
			   TimestampTzGetDatum(from));
	lookup_rescan(lookup);
}

/* True if the delivery of an index entry is known to be finished. */
static bool
is_known_finished(Siblings *siblings, const Datum *entry)
{
	DueKey		key = {
		DatumGetTimestampTz(entry[PIECE_INDEX_DUE_AT]),
		DatumGetTimestampTz(entry[PIECE_INDEX_OCCURRED_AT]),
		DatumGetInt64(entry[PIECE_INDEX_DELIVERY_ID])
	};

	return siblings->place != NULL &&
		is_before_place(siblings->place, &key, DatumGetTextPP(entry[PIECE_INDEX_PIECE_ID]),
						DatumGetTextPP(entry[PIECE_INDEX_ACCOUNT]));
}

/*
 * Read the next delivery that is not a test, in the order of occurred_at.  False
 * if there are no more.  The texts of row are valid until the next call.
 */
bool
siblings_next(Siblings *siblings, DeliveryRow *row)
{
	Lookup	   *lookup = &siblings->lookup;
	Datum		entry[N_PIECE_INDEX_COLUMNS];

	while (lookup_next_entry(lookup, entry))
	{
		CHECK_FOR_INTERRUPTS();
		if (is_known_finished(siblings, entry) || !lookup_row(lookup))
			continue;
		read_delivery(lookup->slot, row);
		if (!row->is_test)
			return true;
	}
	return false;
}

/*
 * True if row comes before other, which is a delivery of the same piece.  The
 * order is that of occurred_at, status and delivery_id.
 */
bool
is_before(const DeliveryRow *row, const DeliveryRow *other)
{
	if (row->occurred_at != other->occurred_at)
		return row->occurred_at < other->occurred_at;
	return row->status != other->status ? row->status < other->status : row->id < other->id;
}

/*
 * Find the head of a piece: the first of its unfinished deliveries that are neither
 * tests nor dead.  Set place to its ctid.  False if there is none.  The texts of
 * head are the arguments piece and account, not copies.
 */
bool
find_head(Siblings *siblings, Datum piece, Datum account, DeliveryRow *head, ItemPointer place)
{
	DeliveryRow each;
	bool		found = false;

	siblings_seek(siblings, piece, account, DT_NOBEGIN);
	while (siblings_next(siblings, &each))
	{
		if (found && each.occurred_at != head->occurred_at)
			break;
		if (each.due_at == DT_NOEND || (found && !is_before(&each, head)))
			continue;
		*head = each;
		head->piece = piece;	/* the texts in the slot become invalid */
		head->account = account;
		head->sync = siblings->sync;
		*place = siblings->lookup.slot->tts_tid;
		found = true;
	}
	return found;
}

/*
 * Find the first leased delivery of a row's piece.  False if there is none.  The
 * texts of lease are not valid.
 */
bool
find_lease(Siblings *siblings, const DeliveryRow *row, TimestampTz now, DeliveryRow *lease)
{
	DeliveryRow each;
	bool		found = false;

	siblings_seek(siblings, row->piece, row->account, DT_NOBEGIN);
	while (siblings_next(siblings, &each))
	{
		if (found && each.occurred_at != lease->occurred_at)
			break;
		if (each.lease_until <= now || (found && !is_before(&each, lease)))
			continue;
		*lease = each;
		found = true;
	}
	return found;
}

/*
 * True if there is an unfinished delivery of the same piece that is later than row.
 * Production errors neither supersede other deliveries nor are superseded.
 */
bool
has_later_unfinished(Siblings *siblings, const DeliveryRow *row)
{
	DeliveryRow each;

	if (row->status == NO_STATUS)
		return false;
	siblings_seek(siblings, row->piece, row->account, row->occurred_at);
	while (siblings_next(siblings, &each))
		if (each.status != NO_STATUS && (each.occurred_at > row->occurred_at || each.status > row->status))
			return true;
	return false;
}

/* Parameters of later_query. */
enum
{
	LATER_PIECE_ID, LATER_ACCOUNT, LATER_SYNC, LATER_OCCURRED_AT, LATER_STATUS, N_LATER
};

/* The last condition excludes the partition deliveries_unfinished. */
static SqlQuery later_query = {
	.sql = "SELECT"
	" FROM postalytics.deliveries AS l"
	" WHERE l.piece_id = $1"
	"   AND l.account = $2"
	"   AND l.sync = $3"
	"   AND (l.occurred_at, l.status) > ($4, $5::postalytics.mail_status)"
	"   AND l.status IS NOT NULL"
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

/*
 * True if there is a finished delivery of the same piece, neither cancelled nor
 * discarded, that is later than row.  False for a production error.
 */
bool
has_later_finished(Siblings *siblings, const DeliveryRow *row)
{
	Datum		values[N_LATER] = {
		[LATER_PIECE_ID] = row->piece,
		[LATER_ACCOUNT] = row->account,
		[LATER_SYNC] = siblings->sync,
		[LATER_OCCURRED_AT] = TimestampTzGetDatum(row->occurred_at),
	};
	bool		has;

	if (row->status == NO_STATUS)
		return false;
	values[LATER_STATUS] = CStringGetTextDatum(status_name(row->status));
	query_run(&later_query, values, NULL);
	has = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	return has;
}
