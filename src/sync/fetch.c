/*
 * fetch.c
 *		fetch hands due deliveries to a worker; next_due says when it should
 *		fetch again.
 *
 * A look scans deliveries_unfinished_due_idx, whose entries include the piece.
 * In an ordered sync only the head of a piece, its earliest unfinished
 * delivery, can be handed out.  Each look finds the head of a piece once, and
 * skips the piece's other index entries without visiting the heap, so that a
 * piece with ten thousand visits costs only a few index pages.
 */
#include "sync/delivery.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "base/compat.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "storage/lookup.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(postalytics_fetch);
PG_FUNCTION_INFO_V1(postalytics_next_due);

/* How often a fetch that waits looks again, in milliseconds. */
#define LOOK_INTERVAL	50

/* ---- the pieces that a look has dealt with ---- */

typedef struct SeenPiece
{
	const text *piece;
	char		status;			/* simplehash's */
} SeenPiece;

#define SH_PREFIX		pieces
#define SH_ELEMENT_TYPE SeenPiece
#define SH_KEY_TYPE		const text *
#define SH_KEY			piece
#define SH_HASH_KEY(tb, key) hash_bytes((const unsigned char *) VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key))
#define SH_EQUAL(tb, a, b) equal_texts(a, b)
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* ---- a look at the queue ---- */

/* What is to become of a delivery that is ready. */
typedef enum Verdict
{
	LEASE,
	PUT_OFF,					/* until the head of its piece is due */
	GIVE_UP,					/* its last lease has expired */
	SUPERSEDE,
	CANCEL
} Verdict;

#define N_VERDICTS	(CANCEL + 1)

/* The rows that a look locked, by verdict. */
typedef struct Found
{
	int			count;			/* of all */
	struct
	{
		int			count;
		int			size;		/* of the arrays */
		Datum	   *places;		/* ctid */
		Datum	   *times;		/* PUT_OFF: until when */
	}			verdict[N_VERDICTS];
	TimestampTz last_due;		/* where the look ended, by due_at */
} Found;

typedef struct Look
{
	const Sync *sync;
	text	   *name;			/* the sync's */
	TimestampTz now;
	TimestampTz from;			/* lower bound of due_at */
	int			batch;
	Relation	unfinished;
	Relation	pieces;			/* for unless, else NULL */
	Lookup		due;			/* sync, due_at */
	Lookup		piece;			/* piece_id, sync, occurred_at */
	Lookup		key;			/* of pieces */
	pieces_hash *seen;
	Found	   *found;
} Look;

/* Columns of the index deliveries_unfinished_due_idx. */
enum
{
	DUE_SYNC, DUE_DUE_AT, DUE_PIECE_ID, DUE_IS_TEST, N_DUE_COLUMNS
};

static const TableColumn due_columns[N_DUE_COLUMNS] = {
	[DUE_SYNC] = COLUMN("sync", TEXTOID),
	[DUE_DUE_AT] = COLUMN("due_at", TIMESTAMPTZOID),
	[DUE_PIECE_ID] = COLUMN("piece_id", TEXTOID),
	[DUE_IS_TEST] = COLUMN("is_test", BOOLOID),
};

enum
{
	PIECE_INDEX_PIECE_ID, PIECE_INDEX_SYNC, PIECE_INDEX_OCCURRED_AT, N_PIECE_INDEX_COLUMNS
};

static const TableColumn piece_index_columns[N_PIECE_INDEX_COLUMNS] = {
	[PIECE_INDEX_PIECE_ID] = COLUMN("piece_id", TEXTOID),
	[PIECE_INDEX_SYNC] = COLUMN("sync", TEXTOID),
	[PIECE_INDEX_OCCURRED_AT] = COLUMN("occurred_at", TIMESTAMPTZOID),
};

/* Begin a lookup in deliveries_unfinished by an index; error 55000 if the index was altered. */
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
	look->from = from;
	look->batch = batch;
	look->unfinished = open_unfinished(mode);
	begin_lookup(look, &look->due, "deliveries_unfinished_due_idx", due_columns, N_DUE_COLUMNS, 3);
	begin_lookup(look, &look->piece, "deliveries_unfinished_piece_idx", piece_index_columns,
				 N_PIECE_INDEX_COLUMNS, 3);
	look->due.scan->xs_want_itup = true;
	lookup_key(&look->due, 0, DUE_SYNC + 1, BTEqualStrategyNumber, PointerGetDatum(look->name));
	lookup_key(&look->due, 1, DUE_DUE_AT + 1, BTGreaterEqualStrategyNumber, TimestampTzGetDatum(from));
	lookup_key(&look->due, 2, DUE_DUE_AT + 1, BTLessEqualStrategyNumber, TimestampTzGetDatum(now));
	if (sync->unless != 0)
	{
		look->pieces = open_pieces(AccessShareLock);
		lookup_begin(&look->key, look->pieces, compat_primary_key(look->pieces), GetActiveSnapshot(), 1);
	}
	look->seen = pieces_create(CurrentMemoryContext, 256, NULL);
}

static void
end_look(Look *look)
{
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

/* Set the keys to the deliveries of a piece from a time on. */
static void
seek_piece(Look *look, Datum piece, TimestampTz from)
{
	lookup_key(&look->piece, 0, PIECE_INDEX_PIECE_ID + 1, BTEqualStrategyNumber, piece);
	lookup_key(&look->piece, 1, PIECE_INDEX_SYNC + 1, BTEqualStrategyNumber, PointerGetDatum(look->name));
	lookup_key(&look->piece, 2, PIECE_INDEX_OCCURRED_AT + 1, BTGreaterEqualStrategyNumber,
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

	seek_piece(look, row->piece, DT_NOBEGIN);
	while (lookup_next(&look->piece, ForwardScanDirection))
	{
		read_delivery(look->piece.slot, &each);
		if (found && each.occurred_at != head->occurred_at)
			break;
		if (each.is_test || each.due_at == DT_NOEND || (found && !is_before(&each, head)))
			continue;
		*head = each;
		head->piece = row->piece;	/* as the slot goes on to another row */
		head->sync = row->sync;
		*place = look->piece.slot->tts_tid;
		found = true;
	}
	if (!found)
		elog(ERROR, "could not find delivery " INT64_FORMAT " by its piece", row->id);
}

/* True if an earlier delivery of the piece is in a worker's hands. */
static bool
has_earlier_lease(Look *look, const DeliveryRow *row)
{
	DeliveryRow each;

	seek_piece(look, row->piece, DT_NOBEGIN);
	while (lookup_next(&look->piece, ForwardScanDirection))
	{
		read_delivery(look->piece.slot, &each);
		if (each.occurred_at > row->occurred_at)
			break;
		if (!each.is_test && each.lease_until > look->now && is_before(&each, row))
			return true;
	}
	return false;
}

/* True if the piece has a later delivery that is not finished. */
static bool
has_later_unfinished(Look *look, const DeliveryRow *row)
{
	DeliveryRow each;

	seek_piece(look, row->piece, row->occurred_at);
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

/*
 * True if the piece has a later delivery in history.  The last condition
 * leaves deliveries_unfinished out.
 */
static bool
has_later_finished(Look *look, const DeliveryRow *row)
{
	static SPIPlanPtr plan = NULL;
	static const char query[] =
	"SELECT FROM postalytics.deliveries AS l"
	" WHERE l.piece_id = $1"
	"   AND l.sync = $2"
	"   AND (l.occurred_at, l.status) > ($3, $4::postalytics.mail_status)"
	"   AND NOT l.is_test"
	"   AND l.state <> 'cancelled'"
	"   AND (l.finished_at AT TIME ZONE 'UTC')::date IS NOT NULL"
	" LIMIT 1";
	Oid			types[] = {TEXTOID, TEXTOID, TIMESTAMPTZOID, TEXTOID};
	Datum		values[] = {
		row->piece, PointerGetDatum(look->name), TimestampTzGetDatum(row->occurred_at),
		CStringGetTextDatum(status_name(status_from_oid(DatumGetObjectId(row->status))))
	};

	bool		has;

	execute_plan(keep_plan(&plan, query, lengthof(types), types), values, NULL, SPI_OK_SELECT);
	has = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	return has;
}

/* True if the piece has reached a status that cancels the sync's deliveries. */
static bool
is_cancelled(Look *look, const DeliveryRow *row)
{
	if (look->sync->unless == 0)
		return false;
	lookup_key(&look->key, 0, 1, BTEqualStrategyNumber, row->piece);
	return lookup_first(&look->key) && piece_has_reached(look->key.slot, look->sync->unless);
}

static Verdict
judge(Look *look, const DeliveryRow *row)
{
	if (row->is_test && row->attempt < look->sync->max_attempts)
		return LEASE;
	if (row->attempt >= look->sync->max_attempts)
		return GIVE_UP;
	if (look->sync->latest_only && (has_later_unfinished(look, row) || has_later_finished(look, row)))
		return SUPERSEDE;
	return is_cancelled(look, row) ? CANCEL : LEASE;
}

/*
 * Lock a row without waiting; false if another transaction holds it or has
 * changed it since the snapshot.  Error 40001 if it was changed and the
 * isolation level does not allow a newer snapshot.
 */
static bool
lock_row(Look *look, ItemPointer place)
{
	TupleTableSlot *slot = table_slot_create(look->unfinished, NULL);
	TM_FailureData failure;
	TM_Result	result = table_tuple_lock(look->unfinished, place, GetActiveSnapshot(), slot,
										  GetCurrentCommandId(true), LockTupleExclusive,
										  LockWaitSkip, 0, &failure);

	ExecDropSingleTupleTableSlot(slot);
	if ((result == TM_Updated || result == TM_Deleted) && IsolationUsesXactSnapshot())
		raise_serialization_failure();
	return result == TM_Ok;
}

/* Note a row that is locked, and what is to become of it. */
static void
add_found(Look *look, Verdict verdict, ItemPointer place, TimestampTz put_off_to)
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
	found->verdict[verdict].times[nth] = TimestampTzGetDatum(put_off_to);
	found->count++;
}

/*
 * Postpone the due rows of a piece until its head is due, so that the next looks
 * do not visit them again.
 */
static void
postpone_piece(Look *look, const DeliveryRow *head)
{
	DeliveryRow each;

	seek_piece(look, head->piece, head->occurred_at);
	while (lookup_next(&look->piece, ForwardScanDirection))
	{
		ItemPointerData place = look->piece.slot->tts_tid;

		read_delivery(look->piece.slot, &each);
		if (!each.is_test && each.due_at <= look->now && each.lease_until <= look->now &&
			lock_row(look, &place))
			add_found(look, PUT_OFF, &place, head->due_at);
	}
}

/* Deal with a row that is due, in the slot of look->due. */
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
	if (lock_row(look, &place))
		add_found(look, verdict, &place, 0);
}

/*
 * True unless this look has already handled the piece of an index entry.
 * Always true for deliveries that need not be handed out in order.
 */
static bool
is_first_of_piece(Look *look, IndexTuple entry, bool *is_test)
{
	TupleDesc	tupdesc = look->due.scan->xs_itupdesc;
	bool		isnull;

	*is_test = DatumGetBool(index_getattr(entry, DUE_IS_TEST + 1, tupdesc, &isnull));
	if (!waits_in_order(look, *is_test))
		return true;
	return pieces_lookup(look->seen,
						 DatumGetTextPP(index_getattr(entry, DUE_PIECE_ID + 1, tupdesc, &isnull))) == NULL;
}

/* Judge and lock up to batch rows that are ready. */
static void
find_ready(Look *look)
{
	Found	   *found = look->found;

	lookup_rescan(&look->due);
	while (found->count < look->batch &&
		   index_getnext_tid(look->due.scan, ForwardScanDirection) != NULL)
	{
		bool		is_test;
		bool		isnull;
		bool		found_piece;
		text	   *piece;

		CHECK_FOR_INTERRUPTS();
		if (!is_first_of_piece(look, look->due.scan->xs_itup, &is_test) ||
			!index_fetch_heap(look->due.scan, look->due.slot))
			continue;
		found->last_due = DatumGetTimestampTz(delivery_attribute(look->due.slot, DELIVERY_DUE_AT, &isnull));
		if (waits_in_order(look, is_test))
		{
			piece = DatumGetTextPCopy(delivery_attribute(look->due.slot, DELIVERY_PIECE_ID, &isnull));
			(void) pieces_insert(look->seen, piece, &found_piece);
		}
		consider(look);
	}
}

static void
look_from(const Sync *sync, TimestampTz now, TimestampTz from, int batch, Found *found)
{
	Look		look;

	memset(found, 0, sizeof(*found));
	found->last_due = DT_NOBEGIN;
	begin_look(&look, sync, now, from, batch, RowExclusiveLock);
	look.found = found;
	find_ready(&look);
	end_look(&look);
}

/*
 * Where the session's last look ended, by due_at.  A session that works through
 * a backlog continues there, because a scan from the beginning would have to
 * skip the dead index entries of finished deliveries each time, and an old
 * snapshot can keep VACUUM from removing them for hours.  It starts from the
 * beginning every FROM_START_INTERVAL, and when it finds less than a batch.
 */
static struct
{
	char		sync[NAMEDATALEN];
	TimestampTz from;			/* by due_at */
	TimestampTz until;			/* by the clock */
}			backlog;

#define FROM_START_INTERVAL	(1 * USECS_PER_SEC)

static void
look_in_backlog(const Sync *sync, TimestampTz now, int batch, Found *found)
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

/* ---- what is not handed out ---- */

static void
put_off(Datum places, Datum *until, int count)
{
	static SPIPlanPtr plan = NULL;
	static const char query[] =
	"UPDATE postalytics.deliveries_unfinished AS d"
	" SET due_at = f.until"
	" FROM unnest($1, $2) AS f (place, until)"
	" WHERE d.ctid = f.place";
	Oid			types[] = {TIDARRAYOID, TIMESTAMPTZARRAYOID};
	Datum		values[] = {
		places,
		PointerGetDatum(construct_array(until, count, TIMESTAMPTZOID, sizeof(TimestampTz),
										FLOAT8PASSBYVAL, TYPALIGN_DOUBLE))
	};

	execute_plan(keep_plan(&plan, query, lengthof(types), types), values, NULL, SPI_OK_UPDATE);
}

static void
give_up(Datum places, TimestampTz now)
{
	static SPIPlanPtr plan = NULL;
	static const char query[] =
	"UPDATE postalytics.deliveries_unfinished AS d"
	" SET state = 'dead',"
	"     due_at = 'infinity',"
	"     lease_until = NULL,"
	"     errors =" ERRORS_WITH("$2", "'lease expired'") ","
	"     failed_at = $2"
	" WHERE d.ctid = ANY ($1)";
	Oid			types[] = {TIDARRAYOID, TIMESTAMPTZOID};
	Datum		values[] = {places, TimestampTzGetDatum(now)};

	execute_plan(keep_plan(&plan, query, lengthof(types), types), values, NULL, SPI_OK_UPDATE);
}

/* Apply the verdicts other than LEASE. */
static void
apply_verdicts(const Found *found, TimestampTz now)
{
	for (Verdict verdict = PUT_OFF; verdict < N_VERDICTS; verdict++)
	{
		int			count = found->verdict[verdict].count;
		Datum		places;

		if (count == 0)
			continue;
		places = place_array(found->verdict[verdict].places, count);
		switch (verdict)
		{
			case PUT_OFF:
				put_off(places, found->verdict[verdict].times, count);
				break;
			case GIVE_UP:
				give_up(places, now);
				break;
			default:
				finish_deliveries(places, verdict == SUPERSEDE ? "superseded" : "cancelled", now);
		}
	}
}

/* ---- what is handed out ---- */

/* A partition of events in which the events of deliveries are looked up. */
typedef struct EventLeaf
{
	Relation	leaf;
	bool		by_key;			/* it has the key that the extension gives it */
	Lookup		key;
	AttrNumber	account;		/* partitions may order their columns otherwise */
	AttrNumber	campaign_id;
	AttrNumber	payload;
} EventLeaf;

/* What rows of the type delivery are put together from. */
typedef struct Sources
{
	Relation	events;
	Relation	pieces;
	Relation	campaigns;
	Lookup		piece;
	Lookup		campaign;
	List	   *leaves;			/* EventLeaf */
} Sources;

static void
begin_sources(Sources *sources)
{
	sources->events = table_open(extension_relation("events"), AccessShareLock);
	sources->pieces = open_pieces(AccessShareLock);
	sources->campaigns = open_campaigns(AccessShareLock);
	sources->leaves = NIL;
	lookup_begin(&sources->piece, sources->pieces, compat_primary_key(sources->pieces),
				 GetActiveSnapshot(), 1);
	lookup_begin(&sources->campaign, sources->campaigns, compat_primary_key(sources->campaigns),
				 GetActiveSnapshot(), 1);
}

static void
end_sources(Sources *sources)
{
	ListCell   *cell;

	foreach(cell, sources->leaves)
	{
		EventLeaf  *leaf = lfirst(cell);

		if (leaf->by_key)
			lookup_end(&leaf->key);
		table_close(leaf->leaf, NoLock);
	}
	lookup_end(&sources->piece);
	lookup_end(&sources->campaign);
	table_close(sources->campaigns, NoLock);
	table_close(sources->pieces, NoLock);
	table_close(sources->events, NoLock);
}

/* True if a partition is a table with the key (piece_id, status, occurred_at). */
static bool
has_event_key(Relation leaf)
{
	static const char *const names[] = {"piece_id", "status", "occurred_at"};
	Oid			key = InvalidOid;
	Relation	index;
	bool		has;

	if (leaf->rd_rel->relkind == RELKIND_RELATION)
		key = compat_primary_key(leaf);
	if (!OidIsValid(key))
		return false;
	index = index_open(key, AccessShareLock);
	has = IndexRelationGetNumberOfKeyAttributes(index) == lengthof(names);
	for (int i = 0; i < lengthof(names) && has; i++)
		has = strcmp(NameStr(TupleDescAttr(RelationGetDescr(index), i)->attname), names[i]) == 0;
	index_close(index, AccessShareLock);
	return has;
}

/* The partition that holds an event of a time; NULL if there is none. */
static EventLeaf *
find_leaf(Sources *sources, TimestampTz occurred_at)
{
	Oid			oid = month_of_events(sources->events, occurred_at);
	EventLeaf  *leaf;
	ListCell   *cell;

	if (!OidIsValid(oid))
		return NULL;
	foreach(cell, sources->leaves)
	{
		leaf = lfirst(cell);
		if (RelationGetRelid(leaf->leaf) == oid)
			return leaf;
	}
	leaf = palloc0(sizeof(EventLeaf));
	leaf->leaf = table_open(oid, AccessShareLock);
	leaf->account = get_attnum(oid, "account");
	leaf->campaign_id = get_attnum(oid, "campaign_id");
	leaf->payload = get_attnum(oid, "payload");
	leaf->by_key = has_event_key(leaf->leaf);
	if (leaf->by_key)
		lookup_begin(&leaf->key, leaf->leaf, compat_primary_key(leaf->leaf), GetActiveSnapshot(), 3);
	sources->leaves = lappend(sources->leaves, leaf);
	return leaf;
}

/* The columns of the type delivery. */
enum
{
	OUT_DELIVERY_ID, OUT_ATTEMPT, OUT_IS_TEST, OUT_STATUS, OUT_LABEL,
	OUT_OCCURRED_AT, OUT_DUE_AT, OUT_PIECE_ID, OUT_ACCOUNT, OUT_CAMPAIGN_ID,
	OUT_CAMPAIGN_NAME, OUT_CONTACT_ID, OUT_FIRST_NAME, OUT_LAST_NAME,
	OUT_COMPANY, OUT_EMAIL, OUT_COUNTRY, OUT_FIELDS, OUT_PAYLOAD,
	N_OUT_COLUMNS
};

/* The columns that the lease query returns, in its order. */
static const int leased_columns[] = {
	OUT_DELIVERY_ID, OUT_ATTEMPT, OUT_IS_TEST, OUT_STATUS, OUT_OCCURRED_AT,
	OUT_DUE_AT, OUT_PIECE_ID, OUT_PAYLOAD
};

/* What a worker is told of a piece, and where from. */
static const struct
{
	int			out;
	int			piece;
}			piece_out[] = {
	{OUT_ACCOUNT, PIECE_ACCOUNT}, {OUT_CAMPAIGN_ID, PIECE_CAMPAIGN_ID},
	{OUT_CONTACT_ID, PIECE_CONTACT_ID}, {OUT_FIRST_NAME, PIECE_FIRST_NAME},
	{OUT_LAST_NAME, PIECE_LAST_NAME}, {OUT_COMPANY, PIECE_COMPANY},
	{OUT_EMAIL, PIECE_EMAIL}, {OUT_COUNTRY, PIECE_COUNTRY}, {OUT_FIELDS, PIECE_FIELDS}
};

/* Set a column that is not set yet from an attribute of the row in a slot. */
static void
fill_in(Datum *values, bool *nulls, int column, TupleTableSlot *slot, AttrNumber attribute)
{
	if (nulls[column])
		values[column] = slot_getattr(slot, attribute, &nulls[column]);
}

/* Find the event of a delivery in a partition with the key. */
static bool
find_event(EventLeaf *leaf, const Datum *values)
{
	lookup_key(&leaf->key, 0, 1, BTEqualStrategyNumber, values[OUT_PIECE_ID]);
	lookup_key(&leaf->key, 1, 2, BTEqualStrategyNumber, values[OUT_STATUS]);
	lookup_key(&leaf->key, 2, 3, BTEqualStrategyNumber, values[OUT_OCCURRED_AT]);
	return lookup_first(&leaf->key);
}

/*
 * Likewise in a partition that is not a table of its own, or that users attached
 * without that key: by a query, whose row it returns in SPI_tuptable.
 */
static bool
query_event(const Datum *values)
{
	static SPIPlanPtr plan = NULL;
	static const char query[] =
	"SELECT e.account, e.campaign_id, e.payload"
	" FROM postalytics.events AS e"
	" WHERE e.piece_id = $1"
	"   AND e.status = $2::postalytics.mail_status"
	"   AND e.occurred_at = $3"
	" LIMIT 1";
	Oid			types[] = {TEXTOID, TEXTOID, TIMESTAMPTZOID};
	Datum		arguments[] = {
		values[OUT_PIECE_ID],
		CStringGetTextDatum(status_name(status_from_oid(DatumGetObjectId(values[OUT_STATUS])))),
		values[OUT_OCCURRED_AT]
	};

	execute_plan(keep_plan(&plan, query, lengthof(types), types), arguments, NULL, SPI_OK_SELECT);
	return SPI_processed > 0;
}

/* Set a column that is not set yet from a column of the row that query_event returned. */
static void
fill_in_queried(Datum *values, bool *nulls, int column, int number)
{
	if (nulls[column])
		values[column] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number, &nulls[column]);
}

/* The event's own account, campaign and payload come before those of its piece. */
static void
fill_in_event(Sources *sources, Datum *values, bool *nulls)
{
	EventLeaf  *leaf = find_leaf(sources, DatumGetTimestampTz(values[OUT_OCCURRED_AT]));

	if (leaf == NULL)
		return;
	if (leaf->by_key)
	{
		if (!find_event(leaf, values))
			return;
		fill_in(values, nulls, OUT_ACCOUNT, leaf->key.slot, leaf->account);
		fill_in(values, nulls, OUT_CAMPAIGN_ID, leaf->key.slot, leaf->campaign_id);
		fill_in(values, nulls, OUT_PAYLOAD, leaf->key.slot, leaf->payload);
	}
	else if (query_event(values))
	{
		fill_in_queried(values, nulls, OUT_ACCOUNT, 1);
		fill_in_queried(values, nulls, OUT_CAMPAIGN_ID, 2);
		fill_in_queried(values, nulls, OUT_PAYLOAD, 3);
	}
}

static void
fill_in_piece(Sources *sources, Datum *values, bool *nulls)
{
	lookup_key(&sources->piece, 0, 1, BTEqualStrategyNumber, values[OUT_PIECE_ID]);
	if (lookup_first(&sources->piece))
		for (int i = 0; i < lengthof(piece_out); i++)
			fill_in(values, nulls, piece_out[i].out, sources->piece.slot, piece_out[i].piece + 1);
	if (nulls[OUT_CAMPAIGN_ID])
		return;
	lookup_key(&sources->campaign, 0, 1, BTEqualStrategyNumber, values[OUT_CAMPAIGN_ID]);
	if (lookup_first(&sources->campaign))
		fill_in(values, nulls, OUT_CAMPAIGN_NAME, sources->campaign.slot, CAMPAIGNS_NAME + 1);
}

/* Add a row to the result for each delivery that the lease query returned. */
static void
return_leased(ReturnSetInfo *result)
{
	SPITupleTable *leased = SPI_tuptable;
	uint64		count = SPI_processed;
	Sources		sources;
	Datum		values[N_OUT_COLUMNS];
	bool		nulls[N_OUT_COLUMNS];

	PushActiveSnapshot(GetTransactionSnapshot());
	begin_sources(&sources);
	for (uint64 i = 0; i < count; i++)
	{
		SPI_tuptable = NULL;
		memset(nulls, true, sizeof(nulls));
		for (int j = 0; j < lengthof(leased_columns); j++)
			values[leased_columns[j]] = SPI_getbinval(leased->vals[i], leased->tupdesc, j + 1,
													  &nulls[leased_columns[j]]);
		values[OUT_LABEL] = CStringGetTextDatum(status_label(status_from_oid(DatumGetObjectId(values[OUT_STATUS]))));
		nulls[OUT_LABEL] = false;
		fill_in_event(&sources, values, nulls);
		fill_in_piece(&sources, values, nulls);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		SPI_freetuptable(SPI_tuptable);	/* of query_event */
	}
	end_sources(&sources);
	PopActiveSnapshot();
}

static void
lease(const Found *found, TimestampTz now, TimestampTz until, ReturnSetInfo *result)
{
	static SPIPlanPtr plan = NULL;
	static const char query[] =
	"WITH leased AS ("
	" UPDATE postalytics.deliveries_unfinished AS d"
	" SET state = 'leased',"
	"     attempt = d.attempt + 1,"
	"     lease_until = $3,"
	"     leases = d.leases || $4,"
	"     errors = CASE d.state WHEN 'leased' THEN" ERRORS_WITH("$2", "'lease expired'") " ELSE d.errors END,"
	"     failed_at = CASE d.state WHEN 'leased' THEN $2 ELSE d.failed_at END"
	" WHERE d.ctid = ANY ($1)"
	" RETURNING d.delivery_id, d.attempt, d.is_test, d.status, d.occurred_at, d.due_at, d.piece_id, d.payload)"
	" SELECT l.*"
	" FROM leased AS l"
	" ORDER BY l.due_at, l.delivery_id";
	Oid			types[] = {TIDARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID};
	Datum		values[] = {
		place_array(found->verdict[LEASE].places, found->verdict[LEASE].count),
		TimestampTzGetDatum(now), TimestampTzGetDatum(until), Int64GetDatum(session_id())
	};

	execute_plan(keep_plan(&plan, query, lengthof(types), types), values, NULL, SPI_OK_SELECT);
	return_leased(result);
}

/* ---- fetch ---- */

/* Look once: hand out what is ready, and apply the verdicts to the rest of what was found. */
static void
look_once(FunctionCallInfo fcinfo, const Sync *sync, int batch, Found *found)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until = time_after(now, argument(fcinfo, 2, "lease"), "lease");

	/* In the order in which a month is retired: events first, then deliveries. */
	LockRelationOid(extension_relation("events"), AccessShareLock);
	SPI_connect();
	look_in_backlog(sync, now, batch, found);
	apply_verdicts(found, now);
	if (found->verdict[LEASE].count > 0)
		lease(found, now, until, (ReturnSetInfo *) fcinfo->resultinfo);
	SPI_finish();
}

/*
 * Likewise, but release all locks if nothing was found, so that a waiting fetch
 * does not block maintain().
 */
static void
look_and_release(FunctionCallInfo fcinfo, const Sync *sync, int batch, Found *found)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		look_once(fcinfo, sync, batch, found);
	}
	PG_CATCH();
	{
		/* A caller's handler must not take this subtransaction for its own. */
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
		ReThrowError(error);
	}
	PG_END_TRY();
	if (found->count > 0)
		ReleaseCurrentSubTransaction();
	else
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
}

/*
 * Hand out what is due; true if any rows were changed.  That includes verdicts
 * other than LEASE, because a fetch that went on waiting would keep those rows
 * locked.
 */
static bool
fetch_due(FunctionCallInfo fcinfo, int batch, bool may_wait)
{
	Found		found;
	bool		done = false;

	do
	{
		const Sync *sync = sync_argument(fcinfo);

		if (!sync->enabled)
			break;
		CHECK_FOR_INTERRUPTS();
		if (may_wait)
			look_and_release(fcinfo, sync, batch, &found);
		else
			look_once(fcinfo, sync, batch, &found);
		done |= found.count > 0;
	} while (found.verdict[LEASE].count == 0 &&
			 (found.count > found.verdict[PUT_OFF].count || found.count >= batch));
	return done;
}

/* Sleep until it is time to look again. */
static void
wait_to_look(TimestampTz deadline)
{
	long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 Min(Max(left, 1), LOOK_INTERVAL), PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	AcceptInvalidationMessages();
}

/*
 * fetch(sync text, batch integer, lease interval, max_wait interval)
 * returns setof delivery
 *
 * Leases up to batch due deliveries to the caller, in the order of due_at, and
 * at most one per piece if the sync is ordered; none while the sync is
 * disabled.  If there are none, looks again until max_wait is over.  Also
 * returns early, without rows, if a look has only cancelled, superseded,
 * postponed or given up deliveries.
 *
 * Locks: the rows, with SKIP LOCKED.  Errors: 42704 if there is no such sync,
 * 42501 if it was not granted, 22004 for NULL, 22023 for a batch below 1, a
 * negative interval or a sync that is not durable, 25006 in a read-only
 * transaction, 55000 if the extension's tables were altered.
 */
Datum
postalytics_fetch(PG_FUNCTION_ARGS)
{
	int			batch = DatumGetInt32(argument(fcinfo, 1, "batch"));
	TimestampTz deadline = time_after(GetCurrentTimestamp(),
									  argument(fcinfo, 3, "max_wait"), "max_wait");

	if (batch < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch must be at least 1")));
	PreventCommandIfReadOnly("fetch");
	InitMaterializedSRF(fcinfo, 0);
	while (!fetch_due(fcinfo, batch, GetCurrentTimestamp() < deadline) &&
		   GetCurrentTimestamp() < deadline)
		wait_to_look(deadline);
	return (Datum) 0;
}

/* ---- next_due ---- */

/*
 * The time from which the first delivery that is due can be fetched: its
 * due_at, the end of the lease that it waits for, or DT_NOEND if nothing is
 * due.
 */
static TimestampTz
next_ready(Look *look)
{
	TimestampTz next = DT_NOEND;
	bool		is_test;

	lookup_rescan(&look->due);
	while (index_getnext_tid(look->due.scan, ForwardScanDirection) != NULL)
	{
		DeliveryRow row;
		ItemPointerData place;
		bool		found_piece;

		CHECK_FOR_INTERRUPTS();
		if (!is_first_of_piece(look, look->due.scan->xs_itup, &is_test) ||
			!index_fetch_heap(look->due.scan, look->due.slot))
			continue;
		read_delivery(look->due.slot, &row);
		if (waits_in_order(look, is_test))
		{
			(void) pieces_insert(look->seen, DatumGetTextPCopy(row.piece), &found_piece);
			find_head(look, &row, &row, &place);
		}
		if (row.due_at <= look->now && row.lease_until <= look->now)
			return row.due_at;
		next = Min(next, Max(row.due_at, row.lease_until));
	}
	return next;
}

/* The due_at of the next delivery of the sync that is not due yet; DT_NOEND if there is none. */
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
 * next_due(sync text) returns timestamptz
 *
 * When there will be something to fetch, as far as can be known: a time that
 * has passed if there is now, NULL if nothing waits or the sync is disabled.
 * Errors: as fetch.
 */
Datum
postalytics_next_due(PG_FUNCTION_ARGS)
{
	const Sync *sync = sync_argument(fcinfo);
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next;
	Look		look;

	if (!sync->enabled)
		PG_RETURN_NULL();
	begin_look(&look, sync, now, DT_NOBEGIN, 0, AccessShareLock);
	next = next_ready(&look);
	if (next > now)
		next = Min(next, next_not_due(&look));
	end_look(&look);
	if (next == DT_NOEND)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(next);
}
