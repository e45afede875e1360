/*
 * delivery_row.c
 *		Builds the rows of type delivery that fetch returns: a leased delivery
 *		with its event, its piece and its campaign.
 *
 * The partitions of events are called leaves; see partition.h.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/table.h"
#include "base/compat.h"
#include "base/extension.h"
#include "base/query.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "journey/campaign.h"
#include "journey/piece.h"
#include "storage/lookup.h"
#include "storage/partition.h"
#include "sync/delivery_row.h"
#include "sync/place.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* A partition of events in which the events of deliveries are looked up. */
typedef struct EventLeaf
{
	Relation	leaf;
	bool		by_key;			/* result of has_event_key */
	Lookup		key;
	AttrNumber	campaign_id;	/* attribute numbers, which can differ from
								 * those of events */
	AttrNumber	payload;
} EventLeaf;

/* The tables from which rows of type delivery are built. */
typedef struct Sources
{
	Relation	events;
	Relation	pieces;
	Relation	campaigns;
	Lookup		piece;
	Lookup		campaign;
	List	   *leaves;			/* of EventLeaf */
} Sources;

static void
begin_sources(Sources *sources)
{
	sources->events = table_open(extension_relation("events"), AccessShareLock);
	sources->pieces = open_pieces(AccessShareLock);
	sources->campaigns = open_campaigns(AccessShareLock);
	sources->leaves = NIL;
	lookup_begin(&sources->piece, sources->pieces, compat_primary_key(sources->pieces),
				 GetActiveSnapshot(), 2);
	lookup_begin(&sources->campaign, sources->campaigns, compat_primary_key(sources->campaigns),
				 GetActiveSnapshot(), 2);
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

/*
 * True if a partition is a plain table with the primary key (piece_id, account,
 * status, occurred_at), as the extension creates it.
 */
static bool
has_event_key(Relation leaf)
{
	static const char *const names[] = {"piece_id", "account", "status", "occurred_at"};
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

/* Return the partition for events that occurred at a time, or NULL if there is none. */
static EventLeaf *
find_leaf(Sources *sources, TimestampTz occurred_at)
{
	Oid			oid = leaf_of(sources->events, LEAF_MONTH, occurred_at);
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
	leaf->campaign_id = get_attnum(oid, "campaign_id");
	leaf->payload = get_attnum(oid, "payload");
	leaf->by_key = has_event_key(leaf->leaf);
	if (leaf->by_key)
		lookup_begin(&leaf->key, leaf->leaf, compat_primary_key(leaf->leaf), GetActiveSnapshot(), N_EVENT_KEY);
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
	OUT_DUE_AT, OUT_PIECE_ID, OUT_ACCOUNT, OUT_PAYLOAD
};

/* The columns that come from the piece: numbers in delivery and in pieces. */
static const struct
{
	int			out;
	int			piece;
}			piece_out[] = {
	{OUT_CAMPAIGN_ID, PIECE_CAMPAIGN_ID}, {OUT_CONTACT_ID, PIECE_CONTACT_ID},
	{OUT_FIRST_NAME, PIECE_FIRST_NAME},
	{OUT_LAST_NAME, PIECE_LAST_NAME}, {OUT_COMPANY, PIECE_COMPANY},
	{OUT_EMAIL, PIECE_EMAIL}, {OUT_COUNTRY, PIECE_COUNTRY}, {OUT_FIELDS, PIECE_FIELDS}
};

/* Set a column, unless it is already set, to an attribute of the row in a slot. */
static void
fill_in(Datum *values, bool *nulls, int column, TupleTableSlot *slot, AttrNumber attribute)
{
	if (nulls[column])
		values[column] = slot_getattr(slot, attribute, &nulls[column]);
}

/*
 * Find the event of a delivery by the primary key of a partition.  True if the
 * event was found; the row is then in the slot of leaf->key.
 */
static bool
find_event(EventLeaf *leaf, const Datum *values)
{
	lookup_key(&leaf->key, 0, 1, BTEqualStrategyNumber, values[OUT_PIECE_ID]);
	lookup_key(&leaf->key, 1, 2, BTEqualStrategyNumber, values[OUT_ACCOUNT]);
	lookup_key(&leaf->key, 2, 3, BTEqualStrategyNumber, values[OUT_STATUS]);
	lookup_key(&leaf->key, 3, 4, BTEqualStrategyNumber, values[OUT_OCCURRED_AT]);
	return lookup_first(&leaf->key);
}

/* Parameters of event_query. */
enum
{
	EVENT_PIECE_ID, EVENT_ACCOUNT, EVENT_STATUS, EVENT_OCCURRED_AT, N_EVENT
};

static SqlQuery event_query = {
	.sql = "SELECT e.campaign_id, e.payload"
	" FROM postalytics.events AS e"
	" WHERE e.piece_id = $1"
	"   AND e.account = $2"
	"   AND e.status = $3::postalytics.mail_status"
	"   AND e.occurred_at = $4"
	" LIMIT 1",
	.result = SPI_OK_SELECT,
	.nparameters = N_EVENT,
	.types = {
		[EVENT_PIECE_ID] = TEXTOID,
		[EVENT_ACCOUNT] = TEXTOID,
		[EVENT_STATUS] = TEXTOID,
		[EVENT_OCCURRED_AT] = TIMESTAMPTZOID
	}
};

/*
 * Find the event of a delivery with a query.  Used for partitions without the
 * primary key: those that are not plain tables, and those that users attached
 * without it.  True if the event was found; the row is then in SPI_tuptable.
 */
static bool
query_event(const Datum *values)
{
	Datum		parameters[N_EVENT] = {
		[EVENT_PIECE_ID] = values[OUT_PIECE_ID],
		[EVENT_ACCOUNT] = values[OUT_ACCOUNT],
		[EVENT_STATUS] = CStringGetTextDatum(status_name(status_from_oid(DatumGetObjectId(values[OUT_STATUS])))),
		[EVENT_OCCURRED_AT] = values[OUT_OCCURRED_AT]
	};

	query_run(&event_query, parameters, NULL);
	return SPI_processed > 0;
}

/*
 * Set a column, unless it is already set, to a column of the first row in
 * SPI_tuptable.
 */
static void
fill_in_queried(Datum *values, bool *nulls, int column, int number)
{
	if (nulls[column])
		values[column] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number, &nulls[column]);
}

/*
 * Fill in the columns that come from the event.  Called before fill_in_piece,
 * because the event takes precedence over the piece.
 */
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
		fill_in(values, nulls, OUT_CAMPAIGN_ID, leaf->key.slot, leaf->campaign_id);
		fill_in(values, nulls, OUT_PAYLOAD, leaf->key.slot, leaf->payload);
	}
	else if (query_event(values))
	{
		fill_in_queried(values, nulls, OUT_CAMPAIGN_ID, 1);
		fill_in_queried(values, nulls, OUT_PAYLOAD, 2);
	}
}

/* Parameters of error_query. */
enum
{
	PRODUCTION_PIECE_ID, PRODUCTION_ACCOUNT, PRODUCTION_OCCURRED_AT, N_PRODUCTION
};

static SqlQuery error_query = {
	.sql = "SELECT x.status, x.campaign_id, x.contact_id, x.payload"
	" FROM postalytics.production_errors AS x"
	" WHERE x.piece_id = $1"
	"   AND x.account = $2"
	"   AND x.occurred_at = $3",
	.result = SPI_OK_SELECT,
	.nparameters = N_PRODUCTION,
	.types = {
		[PRODUCTION_PIECE_ID] = TEXTOID,
		[PRODUCTION_ACCOUNT] = TEXTOID,
		[PRODUCTION_OCCURRED_AT] = TIMESTAMPTZOID
	}
};

/* Fill in the columns that come from the production error. */
static void
fill_in_error(Datum *values, bool *nulls)
{
	Datum		parameters[N_PRODUCTION] = {
		[PRODUCTION_PIECE_ID] = values[OUT_PIECE_ID],
		[PRODUCTION_ACCOUNT] = values[OUT_ACCOUNT],
		[PRODUCTION_OCCURRED_AT] = values[OUT_OCCURRED_AT]
	};

	query_run(&error_query, parameters, NULL);
	if (SPI_processed == 0)
		return;
	fill_in_queried(values, nulls, OUT_LABEL, 1);
	fill_in_queried(values, nulls, OUT_CAMPAIGN_ID, 2);
	fill_in_queried(values, nulls, OUT_CONTACT_ID, 3);
	fill_in_queried(values, nulls, OUT_PAYLOAD, 4);
}

/* Fill in the columns that come from the piece, and the name of the campaign. */
static void
fill_in_piece(Sources *sources, Datum *values, bool *nulls)
{
	lookup_key(&sources->piece, 0, 1, BTEqualStrategyNumber, values[OUT_PIECE_ID]);
	lookup_key(&sources->piece, 1, 2, BTEqualStrategyNumber, values[OUT_ACCOUNT]);
	if (lookup_first(&sources->piece))
		for (int i = 0; i < lengthof(piece_out); i++)
			fill_in(values, nulls, piece_out[i].out, sources->piece.slot, piece_out[i].piece + 1);
	if (nulls[OUT_CAMPAIGN_ID])
		return;
	lookup_key(&sources->campaign, 0, 1, BTEqualStrategyNumber, values[OUT_CAMPAIGN_ID]);
	lookup_key(&sources->campaign, 1, 2, BTEqualStrategyNumber, values[OUT_ACCOUNT]);
	if (lookup_first(&sources->campaign))
		fill_in(values, nulls, OUT_CAMPAIGN_NAME, sources->campaign.slot, CAMPAIGNS_NAME + 1);
}

/* A row that the lease query has returned, and the key by which it is sorted. */
typedef struct LeasedRow
{
	DueKey		key;
	HeapTuple	tuple;
} LeasedRow;

static int
compare_leased(const void *a, const void *b)
{
	const LeasedRow *x = a;
	const LeasedRow *y = b;

	return compare_due_keys(&x->key, &y->key);
}

/* Set values and nulls from a row that the lease query has returned. */
static void
read_leased(HeapTuple tuple, TupleDesc tupdesc, Datum *values, bool *nulls)
{
	memset(nulls, true, N_OUT_COLUMNS * sizeof(bool));
	for (int i = 0; i < lengthof(leased_columns); i++)
		values[leased_columns[i]] = SPI_getbinval(tuple, tupdesc, i + 1, &nulls[leased_columns[i]]);
}

/* Return the rows of the lease query in the order in which they are due. */
static LeasedRow *
sort_leased(SPITupleTable *leased, uint64 count)
{
	LeasedRow  *rows = palloc(count * sizeof(LeasedRow));
	Datum		values[N_OUT_COLUMNS];
	bool		nulls[N_OUT_COLUMNS];

	for (uint64 i = 0; i < count; i++)
	{
		read_leased(leased->vals[i], leased->tupdesc, values, nulls);
		rows[i].key = (DueKey)
		{
			DatumGetTimestampTz(values[OUT_DUE_AT]),
				DatumGetTimestampTz(values[OUT_OCCURRED_AT]),
				DatumGetInt64(values[OUT_DELIVERY_ID])
		};
		rows[i].tuple = leased->vals[i];
	}
	qsort(rows, count, sizeof(LeasedRow), compare_leased);
	return rows;
}

/*
 * Add a row to the result for each delivery in SPI_tuptable, in the order in which
 * they are due.  The lease query of fetch.c has left the deliveries there, with
 * the columns of leased_columns.
 */
void
return_leased(ReturnSetInfo *result)
{
	SPITupleTable *leased = SPI_tuptable;
	uint64		count = SPI_processed;
	LeasedRow  *rows = sort_leased(leased, count);
	Sources		sources;
	Datum		values[N_OUT_COLUMNS];
	bool		nulls[N_OUT_COLUMNS];

	PushActiveSnapshot(GetTransactionSnapshot());
	begin_sources(&sources);
	for (uint64 i = 0; i < count; i++)
	{
		SPI_tuptable = NULL;
		read_leased(rows[i].tuple, leased->tupdesc, values, nulls);
		if (nulls[OUT_STATUS])
			fill_in_error(values, nulls);
		else
		{
			values[OUT_LABEL] = CStringGetTextDatum(status_label(status_from_oid(DatumGetObjectId(values[OUT_STATUS]))));
			nulls[OUT_LABEL] = false;
			fill_in_event(&sources, values, nulls);
		}
		fill_in_piece(&sources, values, nulls);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		SPI_freetuptable(SPI_tuptable); /* of query_event or fill_in_error */
	}
	end_sources(&sources);
	PopActiveSnapshot();
}
