/*
 * ingest.c
 *		ingest, inbox and rejects: from a text to rows of events, each fact once.
 *
 * A call, or a statement on inbox, reads all of its events, orders them by key, makes the months they
 * need, inserts them, and derives the rest.  One order for every call, so that
 * calls which overlap wait for each other but never in a circle: events by key
 * first, pieces after them, campaigns last.
 *
 * The rows go straight into the months, unless users have hung something on
 * them that only a query would heed.  Then it is one INSERT, whose trigger
 * derives the rest.
 */
#include "postalytics_status.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/progress.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "base/compat.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/pg_bswap.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/backend_progress.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(postalytics_ingest);
PG_FUNCTION_INFO_V1(postalytics_offered_events);
PG_FUNCTION_INFO_V1(postalytics_retry_rejects);
PG_FUNCTION_INFO_V1(postalytics_inbox_insert);
PG_FUNCTION_INFO_V1(postalytics_inbox_row);

#define MAX_ACCOUNT		255		/* bytes, as the feed's own ids */

typedef struct IngestResult
{
	int64		inserted;
	int64		duplicates;
	int64		rejected;
} IngestResult;

/* A record, with the start of its key beside it for the sort. */
typedef struct OrderedRecord
{
	uint64		prefix;			/* of piece, compares as its bytes do */
	const EventRecord *record;
} OrderedRecord;

/* Where an event goes. */
typedef struct Place
{
	int64		event_id;		/* once it is stored, else 0 */
	int			month;			/* of those opened */
} Place;

/*
 * The events that are being inserted, in key order: those of a batch, or of a
 * spill.  They are gone through more than once.
 */
typedef struct Offer
{
	OrderedRecord *records;		/* of a batch, else NULL */
	Spill	   *spill;
	int64		count;
	int64		next;			/* after the current one */
	const EventRecord *key;		/* key of the current one: piece, status, occurred_at */
	Place	   *places;			/* in key order */
	bool		is_inserted;	/* the INSERT has read all; its trigger reads them again */
	bool		show_progress;
} Offer;

static Offer *offer;			/* of the innermost call, or NULL */

/* ---- progress: a long call shows in pg_stat_progress_copy ---- */

#define LONG_CALL	(1024 * 1024)	/* bytes */

/* Not for a call inside of a COPY, whose own progress it would overwrite. */
static bool
wants_progress(int64 bytes)
{
	return bytes >= LONG_CALL && MyBEEntry != NULL &&
		MyBEEntry->st_progress_command == PROGRESS_COMMAND_INVALID;
}

static void
start_progress(int64 bytes, int64 bytes_read)
{
	const int	index[] = {
		PROGRESS_COPY_COMMAND, PROGRESS_COPY_TYPE,
		PROGRESS_COPY_BYTES_TOTAL, PROGRESS_COPY_BYTES_PROCESSED
	};
	const int64 value[] = {
		PROGRESS_COPY_COMMAND_FROM, PROGRESS_COPY_TYPE_CALLBACK,
		bytes, bytes_read
	};

	pgstat_progress_start_command(PROGRESS_COMMAND_COPY,
								  extension_relation("events"));
	pgstat_progress_update_multi_param(lengthof(index), index, value);
}

static void
show_bytes_read(uint32 bytes)
{
	pgstat_progress_update_param(PROGRESS_COPY_BYTES_PROCESSED, bytes);
}

/* ---- order ---- */

static uint64
key_prefix(const EventRecord *record)
{
	uint64		prefix = 0;

	memcpy(&prefix, record->piece, Min(record->piece_length, sizeof(prefix)));
	return pg_hton64(prefix);
}

/* Of equal keys the first that arrived comes first, and is the one stored. */
static int
compare_records(const void *a, const void *b)
{
	const OrderedRecord *x = a;
	const OrderedRecord *y = b;
	int			result;

	if (x->prefix != y->prefix)
		return x->prefix < y->prefix ? -1 : 1;
	result = event_compare(x->record, y->record->piece, y->record->piece_length,
						   y->record->status, y->record->occurred_at);
	if (result != 0)
		return result;
	if (x->record->source == y->record->source)
		return x->record->payload.offset < y->record->payload.offset ? -1 : 1;
	return x->record->source->number < y->record->source->number ? -1 : 1;
}

static OrderedRecord *
order_records(EventBatch *batch)
{
	OrderedRecord *ordered = MemoryContextAllocHuge(batch->context,
													batch->nrecords * sizeof(OrderedRecord));

	for (int64 i = 0; i < batch->nrecords; i++)
	{
		ordered[i].record = event_batch_record(batch, i);
		ordered[i].prefix = key_prefix(ordered[i].record);
	}
	qsort(ordered, batch->nrecords, sizeof(OrderedRecord), compare_records);
	return ordered;
}

/* Go back to the beginning. */
static void
offer_rewind(Offer *offered)
{
	if (offered->spill != NULL)
		spill_rewind(offered->spill);
	offered->next = 0;
	offered->key = NULL;
}

/* Advance to the next event and set its key; false at the end. */
static bool
offer_next(Offer *offered)
{
	offered->key = offered->spill != NULL ? spill_next(offered->spill) :
		offered->next < offered->count ? offered->records[offered->next].record : NULL;
	if (offered->key == NULL)
		return false;
	if (offered->show_progress && offered->next % 1024 == 0)
		pgstat_progress_update_param(PROGRESS_COPY_TUPLES_PROCESSED, offered->next);
	offered->next++;
	return true;
}

/* The current event with all its fields; one of a spill is read into the current memory context. */
static const EventRecord *
offer_record(Offer *offered)
{
	return offered->spill != NULL ? spill_record(offered->spill) : offered->key;
}

/* The Place of the current event. */
static Place *
offer_place(Offer *offered)
{
	return &offered->places[offered->next - 1];
}

/* ---- events ---- */

/* A month that a batch needs: it is there now, unless something is in the way. */
typedef struct NeededMonth
{
	TimestampTz start;
	TimestampTz end;
	const char *in_the_way;
} NeededMonth;

typedef struct NeededMonths
{
	NeededMonth *months;		/* few */
	int			count;
} NeededMonths;

/* The month of a time, which is added if it is not among those needed yet. */
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
	month->end = month_start(month->start + 31 * USECS_PER_DAY);
	month->in_the_way = NULL;
	return month;
}

/* Make those that are missing, and note what is in the way of the others. */
static void
make_months(NeededMonths *needed)
{
	TimestampTz *starts = palloc(needed->count * sizeof(TimestampTz));

	for (int i = 0; i < needed->count; i++)
		starts[i] = needed->months[i].start;
	make_months_in_worker(starts, needed->count);
	for (int i = 0; i < needed->count; i++)
		if (ensure_month(starts[i]) == LEAF_IN_THE_WAY)
			needed->months[i].in_the_way =
				psprintf("its month was detached: table \"%s.%s\"", EXTENSION_SCHEMA, month_name(starts[i]));
}

/*
 * Make the months that the records need.  events is locked first, so that none is
 * retired before its rows are in.  What cannot have a month is rejected.
 */
static void
ensure_months(EventBatch *batch)
{
	NeededMonths needed = {0};

	if (batch->nrecords == 0)
		return;
	PreventCommandIfReadOnly("INSERT");
	LockRelationOid(extension_relation("events"), RowExclusiveLock);
	for (int64 i = 0; i < batch->nrecords; i++)
		(void) need_month(&needed, event_batch_record(batch, i)->occurred_at);
	make_months(&needed);
	for (int64 i = batch->nrecords - 1; i >= 0; i--)
	{
		const NeededMonth *month = need_month(&needed, event_batch_record(batch, i)->occurred_at);

		if (month->in_the_way != NULL)
			event_batch_reject(batch, i, month->in_the_way);
	}
}

/* A json value of a source, made in the current memory context. */
static Datum
span_json(const EventSource *source, Span span)
{
	return PointerGetDatum(cstring_to_text_with_len(source->text + span.offset,
													span.length));
}

/* The columns of a record's row, but for event_id and received_at. */
static void
set_event(const EventRecord *record, Datum *values, bool *nulls)
{
	memset(nulls, true, N_EVENTS_COLUMNS * sizeof(bool));
	values[EVENTS_PIECE_ID] = PointerGetDatum(cstring_to_text_with_len(record->piece,
																record->piece_length));
	nulls[EVENTS_PIECE_ID] = false;
	values[EVENTS_STATUS] = ObjectIdGetDatum(status_oid(record->status));
	nulls[EVENTS_STATUS] = false;
	values[EVENTS_OCCURRED_AT] = TimestampTzGetDatum(record->occurred_at);
	nulls[EVENTS_OCCURRED_AT] = false;
	values[EVENTS_ACCOUNT] = event_field_text(record, ACCOUNT);
	nulls[EVENTS_ACCOUNT] = values[EVENTS_ACCOUNT] == (Datum) 0;
	values[EVENTS_CAMPAIGN_ID] = event_field_text(record, CAMPAIGN_ID);
	nulls[EVENTS_CAMPAIGN_ID] = values[EVENTS_CAMPAIGN_ID] == (Datum) 0;
	if (setting_keep_payload)
	{
		values[EVENTS_PAYLOAD] = span_json(record->source, record->payload);
		nulls[EVENTS_PAYLOAD] = false;
	}
}

/*
 * offered_events() returns setof events
 *
 * The events of the running call, in key order, event_id and received_at left
 * NULL.  Returned one by one into the INSERT, so that a large call is never
 * held twice.  Error 55000 outside of one.
 */
Datum
postalytics_offered_events(PG_FUNCTION_ARGS)
{
	FuncCallContext *call;
	Datum	   *values;
	bool	   *nulls;

	if (offer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no ingest is running"),
				 errhint("Call %s.ingest(json).", EXTENSION_SCHEMA)));
	if (SRF_IS_FIRSTCALL())
	{
		TupleDesc	tupdesc;
		MemoryContext caller;

		call = SRF_FIRSTCALL_INIT();
		caller = MemoryContextSwitchTo(call->multi_call_memory_ctx);
		if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
			elog(ERROR, "return type must be a row type");
		call->tuple_desc = BlessTupleDesc(tupdesc);
		MemoryContextSwitchTo(caller);
	}
	call = SRF_PERCALL_SETUP();
	if (!offer_next(offer))
		SRF_RETURN_DONE(call);
	new_row(call->tuple_desc, &values, &nulls);
	set_event(offer_record(offer), values, nulls);
	SRF_RETURN_NEXT(call, HeapTupleGetDatum(heap_form_tuple(call->tuple_desc, values, nulls)));
}

/*
 * The record of an event that the running call offered, or NULL.  The trigger
 * asks in key order; duplicates are passed over.  One of a spill is made in the
 * current memory context.
 */
const EventRecord *
ingested_record(const char *piece, uint32 length, MailStatus status,
				TimestampTz occurred_at)
{
	int			order = -1;

	if (offer == NULL)
		return NULL;
	if (!offer->is_inserted)
	{
		offer->is_inserted = true;
		offer_rewind(offer);
	}
	if (offer->key != NULL)
		order = event_compare(offer->key, piece, length, status, occurred_at);
	while (order < 0 && offer_next(offer))
		order = event_compare(offer->key, piece, length, status, occurred_at);
	return order == 0 ? offer_record(offer) : NULL;
}

/* Insert them by a query, whose trigger derives the rest; how many were new. */
static int64
insert_by_query(Offer *offered)
{
	static SPIPlanPtr plan = NULL;
	Offer	   *outer = offer;
	int			result;

	offer_rewind(offered);
	PG_TRY();
	{
		offer = offered;
		result = SPI_execute_plan(keep_plan(&plan,
											"INSERT INTO postalytics.events"
											" (piece_id, status, occurred_at, account, campaign_id, payload)"
											" SELECT (e).piece_id, (e).status, (e).occurred_at,"
											"        (e).account, (e).campaign_id, (e).payload"
											" FROM (SELECT postalytics.offered_events()) AS o (e)"
											" ON CONFLICT DO NOTHING",
											0, NULL),
								  NULL, NULL, false, 0);
	}
	PG_FINALLY();
	{
		offer = outer;
	}
	PG_END_TRY();
	if (result != SPI_OK_INSERT)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(result));
	return SPI_processed;
}

/* A leaf of events that is being written to. */
typedef struct Month
{
	Relation	leaf;
	DirectTable *table;
} Month;

/* Those that a call needs. */
typedef struct Months
{
	Relation	events;
	Month	   *months;
	int			count;
	int			last;			/* that was asked for */
} Months;

/* Which of the months opened has this leaf; -1 for none. */
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
 * Open the leaf for an instant, and say which of the months it is; false if there
 * is none that may be written to.
 */
static bool
open_month(Months *months, TimestampTz instant, int *which)
{
	Oid			leaf = month_of_events(months->events, instant);
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
		has_key(month->leaf, EVENTS_PIECE_ID + 1, 3);
}

/*
 * Open all that the records need, and note which is whose, for they are not asked
 * for again: one may be detached meanwhile.  False if a query must do it.
 */
static bool
open_months(Months *months, Offer *offered)
{
	months->events = table_open(extension_relation("events"), RowExclusiveLock);
	check_columns(months->events, events_columns, N_EVENTS_COLUMNS);
	if (!direct_allowed_below(months->events, events_columns, N_EVENTS_COLUMNS, "events_inserted"))
		return false;
	offer_rewind(offered);
	while (offer_next(offered))
		if (!open_month(months, offered->key->occurred_at, &offer_place(offered)->month))
			return false;
	for (int i = 0; i < months->count; i++)
		months->months[i].table = direct_open(months->months[i].leaf, N_EVENTS_COLUMNS);
	return true;
}

/* Their locks stay until the transaction ends. */
static void
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

#define HOPE	16				/* one of so many is a duplicate */

/*
 * Insert them straight into the leaves, noting event_id with those that are
 * new; how many.
 */
static int64
insert_rows(Months *months, Offer *offered, MemoryContext scratch)
{
	Oid			event_ids = extension_relation("event_id_seq");
	Datum		values[N_EVENTS_COLUMNS];
	bool		nulls[N_EVENTS_COLUMNS];
	int64		inserted = 0;

	offer_rewind(offered);
	while (offer_next(offered))
	{
		Place	   *place = offer_place(offered);
		MemoryContext caller = MemoryContextSwitchTo(scratch);
		int64		event_id = nextval_internal(event_ids, false);

		/* Among few duplicates it is cheaper to hope for none. */
		bool		hope = (offered->next - 1 - inserted) * HOPE < offered->next - 1;

		CHECK_FOR_INTERRUPTS();
		set_event(offer_record(offered), values, nulls);
		values[EVENTS_EVENT_ID] = Int64GetDatum(event_id);
		nulls[EVENTS_EVENT_ID] = false;
		values[EVENTS_RECEIVED_AT] = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
		nulls[EVENTS_RECEIVED_AT] = false;
		if (direct_insert(months->months[place->month].table, values, nulls, hope))
		{
			place->event_id = event_id;
			inserted++;
		}
		MemoryContextSwitchTo(caller);
		MemoryContextReset(scratch);
	}
	return inserted;
}

static text *
field_text(const EventRecord *record, Field field)
{
	return (text *) DatumGetPointer(event_field_text(record, field));
}

/* Derive what the trigger would, from those that are new. */
static void
derive_new(Offer *offered)
{
	Derivation *derivation = derive_begin(true);

	offer_rewind(offered);
	while (offer_next(offered))
	{
		const EventRecord *record;
		MemoryContext caller;
		EventRow	row;

		if (offer_place(offered)->event_id == 0)
			continue;
		caller = MemoryContextSwitchTo(derive_piece(derivation, offered->key->piece,
													offered->key->piece_length));
		record = offer_record(offered);
		row.event_id = offer_place(offered)->event_id;
		row.piece = record->piece;
		row.piece_length = record->piece_length;
		row.status = record->status;
		row.occurred_at = record->occurred_at;
		row.account = field_text(record, ACCOUNT);
		row.campaign_id = field_text(record, CAMPAIGN_ID);
		row.record = record;
		derive_row(derivation, &row);
		MemoryContextSwitchTo(caller);
	}
	derive_end(derivation);
}

/* Insert the events offered, and all that is derived; how many were new. */
static int64
insert_events(Offer *offered, MemoryContext context)
{
	MemoryContext scratch;
	Months		months = {0};
	int64		inserted;
	bool		direct;

	if (offered->count == 0)
		return 0;
	scratch = AllocSetContextCreate(context, "postalytics row", ALLOCSET_DEFAULT_SIZES);
	offered->places = MemoryContextAllocExtended(context, offered->count * sizeof(Place),
											  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	direct = open_months(&months, offered);
	inserted = direct ? insert_rows(&months, offered, scratch) : insert_by_query(offered);
	close_months(&months);
	if (direct && inserted > 0)
		derive_new(offered);
	pfree(offered->places);
	MemoryContextDelete(scratch);
	return inserted;
}

/* ---- rejects ---- */

/* Columns of rejects, as ingest.sql has them. */
enum
{
	REJECT_ID, REJECT_RECEIVED_AT, REJECT_ACCOUNT, REJECT_PIECE_ID, REASON,
	REJECT_PAYLOAD,
	N_REJECTS_COLUMNS
};

static const TableColumn rejects_columns[N_REJECTS_COLUMNS] = {
	[REJECT_ID] = COLUMN_NOT_NULL("reject_id", INT8OID),
	[REJECT_RECEIVED_AT] = COLUMN_NOT_NULL("received_at", TIMESTAMPTZOID),
	[REJECT_ACCOUNT] = COLUMN("account", TEXTOID),
	[REJECT_PIECE_ID] = COLUMN("piece_id", TEXTOID),
	[REASON] = COLUMN_NOT_NULL("reason", TEXTOID),
	[REJECT_PAYLOAD] = COLUMN("payload", JSONOID),
};

/*
 * Of a source with too many rejects keep the first, with the whole source as
 * its payload and the count in its reason.
 */
static void
fold_rejects(EventBatch *batch)
{
	int64		n = 0;

	for (int64 i = 0; i < batch->nrejects; i++)
	{
		Reject	   *reject = &batch->rejects[i];
		EventSource *source = reject->source;

		if (source->rejected > MAX_REJECTS)
		{
			if (source->folded)
				continue;
			source->folded = true;
			reject->piece = NULL;
			reject->payload = (Span) {0, source->length};
			reject->reason = MemoryContextStrdup(batch->context,
												 psprintf(INT64_FORMAT " events rejected; the first: %s",
														  source->rejected, reject->reason));
		}
		batch->rejects[n++] = *reject;
	}
	batch->nrejects = n;
}

static void
insert_rejects(EventBatch *batch)
{
	static SPIPlanPtr plan = NULL;
	Relation	rejects;
	Tuplestorestate *rows;
	MemoryContext caller;
	int			result;

	if (batch->nrejects == 0)
		return;
	rejects = table_open(extension_relation("rejects"), RowExclusiveLock);
	check_columns(rejects, rejects_columns, N_REJECTS_COLUMNS);
	rows = tuplestore_begin_heap(false, false, work_mem);
	caller = MemoryContextSwitchTo(batch->scratch);
	for (int64 i = 0; i < batch->nrejects; i++)
	{
		const Reject *reject = &batch->rejects[i];
		Datum	   *values;
		bool	   *nulls;

		new_row(RelationGetDescr(rejects), &values, &nulls);
		if (reject->source->account != NULL)
		{
			values[REJECT_ACCOUNT] = CStringGetTextDatum(reject->source->account);
			nulls[REJECT_ACCOUNT] = false;
		}
		if (reject->piece != NULL)
		{
			values[REJECT_PIECE_ID] = CStringGetTextDatum(reject->piece);
			nulls[REJECT_PIECE_ID] = false;
		}
		values[REASON] = CStringGetTextDatum(reject->reason);
		nulls[REASON] = false;
		values[REJECT_PAYLOAD] = span_json(reject->source, reject->payload);
		nulls[REJECT_PAYLOAD] = false;
		tuplestore_putvalues(rows, RelationGetDescr(rejects), values, nulls);
		MemoryContextReset(batch->scratch);
	}
	MemoryContextSwitchTo(caller);

	register_rows("rejected", RelationGetRelid(rejects), rows, batch->nrejects);
	result = SPI_execute_plan(keep_plan(&plan,
										"INSERT INTO postalytics.rejects (account, piece_id, reason, payload)"
										" SELECT account, piece_id, reason, payload FROM rejected",
										0, NULL),
							  NULL, NULL, false, 0);
	if (result != SPI_OK_INSERT)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(result));
	SPI_unregister_relation("rejected");
	tuplestore_end(rows);
	table_close(rejects, NoLock);
}

/* ---- a batch ---- */

/*
 * Store what a batch holds.  bytes is its size where progress is to be shown,
 * and else 0.
 */
static IngestResult
store_batch(EventBatch *batch, int64 bytes)
{
	IngestResult result;
	Offer		offered = {0};

	ensure_months(batch);
	if (bytes > 0)
		start_progress(bytes, bytes);	/* again: making a month ends it */
	SPI_connect();
	offered.records = order_records(batch);
	offered.count = batch->nrecords;
	offered.show_progress = bytes > 0;
	result.inserted = insert_events(&offered, batch->context);
	result.duplicates = batch->nrecords - result.inserted;
	result.rejected = batch->nrejected;
	fold_rejects(batch);
	insert_rejects(batch);
	SPI_finish();
	return result;
}

/*
 * Write the events of a batch to the spill, and store its rejects.  The batch
 * may be freed afterwards.
 */
static void
spill_batch(EventBatch *batch, Spill *spill)
{
	ensure_months(batch);
	SPI_connect();
	fold_rejects(batch);
	insert_rejects(batch);
	SPI_finish();
	spill_add(spill, batch);
}

/* Store the events of a spill; returns the number of new ones, and in count of all. */
static int64
store_spill(Spill *spill, int64 *count)
{
	Offer		offered = {.spill = spill};
	int64		inserted;

	*count = offered.count = spill_sort(spill);
	SPI_connect();
	inserted = insert_events(&offered, CurrentMemoryContext);
	SPI_finish();
	return inserted;
}

static Datum
form_result(FunctionCallInfo fcinfo, IngestResult result)
{
	TupleDesc	tupdesc;
	Datum		values[3];
	bool		nulls[3] = {false, false, false};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Int64GetDatum(result.inserted);
	values[1] = Int64GetDatum(result.duplicates);
	values[2] = Int64GetDatum(result.rejected);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls));
}

/*
 * ingest(payload json, account text DEFAULT NULL) returns ingest_result
 *
 * payload: an event, an array of them, or either under data, events or items;
 * NULL holds none.  account: of all of them, over what they say themselves;
 * NULL or '' leaves it to them.
 *
 * Errors: 22001 for an account of more than 255 bytes, 54001 for JSON nested
 * too deep, 25006 in a read-only transaction.  Locks: RowExclusiveLock on what
 * it writes; rows of events, then pieces, then campaigns, each in key order.
 */
Datum
postalytics_ingest(PG_FUNCTION_ARGS)
{
	text	   *payload;
	char	   *account = NULL;
	EventBatch *batch;
	IngestResult result = {0};
	bool		show_progress;

	if (PG_ARGISNULL(0))
		return form_result(fcinfo, result);
	payload = PG_GETARG_TEXT_PP(0);
	if (!PG_ARGISNULL(1) && VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(1)) > 0)
		account = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (account != NULL && strlen(account) > MAX_ACCOUNT)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("account is longer than %d bytes", MAX_ACCOUNT)));

	show_progress = wants_progress(VARSIZE_ANY_EXHDR(payload));
	if (show_progress)
		start_progress(VARSIZE_ANY_EXHDR(payload), 0);
	batch = event_batch_create(CurrentMemoryContext);
	batch->progress = show_progress ? show_bytes_read : NULL;
	event_batch_read(batch, VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload), account);
	result = store_batch(batch, show_progress ? VARSIZE_ANY_EXHDR(payload) : 0);
	MemoryContextDelete(batch->context);
	if (show_progress)
		pgstat_progress_end_command();
	return form_result(fcinfo, result);
}

/* ---- retry_rejects ---- */

#define RETRY_CHUNK		10000

/* A reject that is being read again. */
typedef struct Retried
{
	int64		reject_id;
	const char *reason;			/* of the last time */
	EventSource *source;
} Retried;

/* Read the next rejects into the batch; returns how many, and which. */
static int
read_rejects(EventBatch *batch, int64 after, int64 until, Retried **retried)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {INT8OID, INT8OID};
	Datum		args[] = {Int64GetDatum(after), Int64GetDatum(until)};
	int			result;
	int			count;

	result = SPI_execute_plan(keep_plan(&plan,
										"SELECT reject_id, reason, account, payload"
										" FROM postalytics.rejects"
										" WHERE reject_id > $1 AND reject_id <= $2"
										" ORDER BY reject_id"
										" LIMIT " CppAsString2(RETRY_CHUNK)
										" FOR UPDATE SKIP LOCKED",
										lengthof(types), types),
							  args, NULL, false, 0);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(result));
	count = SPI_processed;
	*retried = MemoryContextAlloc(batch->context, Max(count, 1) * sizeof(Retried));
	for (int i = 0; i < count; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	tupdesc = SPI_tuptable->tupdesc;
		bool		isnull;
		text	   *payload;
		char	   *account;

		(*retried)[i].reject_id =
			DatumGetInt64(SPI_getbinval(row, tupdesc, 1, &isnull));
		(*retried)[i].reason = SPI_getvalue(row, tupdesc, 2);
		account = SPI_getvalue(row, tupdesc, 3);
		payload = DatumGetTextPP(SPI_getbinval(row, tupdesc, 4, &isnull));
		/* SPI's memory outlives the batch: SPI_finish frees it, after the insert */
		(*retried)[i].source =
			event_batch_read(batch, VARDATA_ANY(payload),
							 VARSIZE_ANY_EXHDR(payload), account);
	}
	return count;
}

/* The newest reject; 0 if there is none. */
static int64
newest_reject(void)
{
	bool		isnull;
	Datum		newest;

	SPI_connect();
	if (SPI_execute("SELECT max(reject_id) FROM postalytics.rejects", true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read rejects");
	newest = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	SPI_finish();
	return isnull ? 0 : DatumGetInt64(newest);
}

static void
delete_rejects(const Retried *retried, int count)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {INT8ARRAYOID};
	Datum	   *ids = palloc(count * sizeof(Datum));
	int			nids = 0;
	Datum		args[1];

	for (int i = 0; i < count; i++)
	{
		const EventSource *source = retried[i].source;

		if (source->accepted > 0 || source->rejected == 0)
			ids[nids++] = Int64GetDatum(retried[i].reject_id);
	}
	if (nids == 0)
		return;
	args[0] = PointerGetDatum(construct_array(ids, nids, INT8OID, sizeof(int64),
											  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	if (SPI_execute_plan(keep_plan(&plan,
								   "DELETE FROM postalytics.rejects"
								   " WHERE reject_id = ANY ($1)",
								   lengthof(types), types),
						 args, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not delete rejects");
}

static void
update_reason(int64 reject_id, const char *reason)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {INT8OID, TEXTOID};
	Datum		args[] = {Int64GetDatum(reject_id), CStringGetTextDatum(reason)};

	if (SPI_execute_plan(keep_plan(&plan,
								   "UPDATE postalytics.rejects"
								   " SET reason = $2"
								   " WHERE reject_id = $1",
								   lengthof(types), types),
						 args, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not update rejects");
}

/*
 * Rejects of which still nothing is understood stay in the table, with the new
 * reason.  Remove them from the batch, and return the number of their events.
 * A source's number is its index in retried.
 */
static int64
keep_rejects(EventBatch *batch, const Retried *retried, int count)
{
	int64		kept = 0;
	int64		n = 0;

	for (int64 i = 0; i < batch->nrejects; i++)
	{
		const Reject *reject = &batch->rejects[i];
		const Retried *old = &retried[reject->source->number];

		if (reject->source->accepted > 0)
			batch->rejects[n++] = *reject;
		else if (reject->source->rejected <= MAX_REJECTS && strcmp(reject->reason, old->reason) != 0)
			update_reason(old->reject_id, reject->reason);
	}
	batch->nrejects = n;
	for (int i = 0; i < count; i++)
		if (retried[i].source->accepted == 0)
			kept += retried[i].source->rejected;
	batch->nrejected -= kept;
	return kept;
}

/*
 * retry_rejects() returns ingest_result
 *
 * Reads every reject again, because there may be new field_names or settings.
 * Those of which anything is understood leave the table, and what is still
 * wrong inside of them comes back to it.  Rejects that another call is
 * retrying are passed over.  Locks and errors as ingest.
 */
Datum
postalytics_retry_rejects(PG_FUNCTION_ARGS)
{
	IngestResult total = {0};
	Spill	   *spill = spill_create(CurrentMemoryContext);
	int64		last = 0;
	int64		newest = newest_reject();	/* not what comes back meanwhile */
	int64		offered;
	int			count;

	do
	{
		EventBatch *batch = event_batch_create(CurrentMemoryContext);
		Retried    *retried;

		SPI_connect();
		count = read_rejects(batch, last, newest, &retried);
		if (count > 0)
		{
			last = retried[count - 1].reject_id;
			delete_rejects(retried, count);
			total.rejected += keep_rejects(batch, retried, count);
			spill_batch(batch, spill);
			total.rejected += batch->nrejected;
		}
		SPI_finish();
		MemoryContextDelete(batch->context);
	} while (count > 0);
	total.inserted = store_spill(spill, &offered);
	total.duplicates = offered - total.inserted;
	spill_end(spill);
	return form_result(fcinfo, total);
}

/* ---- inbox ---- */

/*
 * The rows of a statement on inbox, read as they come and stored together at
 * its end, in key order as ingest's are.  A statement inside of another's row
 * has its own.  Lives in the subtransaction, so that an abort takes it away.
 */
typedef struct Inbox
{
	MemoryContext context;
	EventBatch *batch;
	Size		bytes;			/* in the batch, about */
	Spill	   *spill;			/* of the batches before, or NULL */
	struct Inbox *outer;
	MemoryContextCallback leave;
} Inbox;

static Inbox *inbox;

/* About how much of a statement is kept in memory. */
#define INBOX_BYTES		(64 * 1024 * 1024)

static void
leave_inbox(void *arg)
{
	inbox = ((Inbox *) arg)->outer;
}

static void
enter_inbox(void)
{
	MemoryContext context = AllocSetContextCreate(CurTransactionContext, "postalytics inbox",
												  ALLOCSET_SMALL_SIZES);
	Inbox	   *entered = MemoryContextAllocZero(context, sizeof(Inbox));

	entered->context = context;
	entered->batch = event_batch_create(context);
	entered->outer = inbox;
	entered->leave.func = leave_inbox;
	entered->leave.arg = entered;
	MemoryContextRegisterResetCallback(context, &entered->leave);
	inbox = entered;
}

/* Write the batch to the spill, and start an empty one. */
static void
spill_inbox(void)
{
	if (inbox->spill == NULL)
		inbox->spill = spill_create(inbox->context);
	spill_batch(inbox->batch, inbox->spill);
	MemoryContextDelete(inbox->batch->context);
	inbox->batch = event_batch_create(inbox->context);
	inbox->bytes = 0;
}

static void
store_inbox(void)
{
	int64		count;

	if (inbox->spill == NULL)
		(void) store_batch(inbox->batch, 0);
	else
	{
		spill_inbox();
		(void) store_spill(inbox->spill, &count);
		spill_end(inbox->spill);
	}
	MemoryContextDelete(inbox->context);
}

/*
 * A row as JSON: its payload where it has nothing else, or an object of its
 * columns.  The account goes its own way, unless it is too long and the reason
 * for a reject.
 */
static const char *
inbox_row_json(HeapTuple row, TupleDesc tupdesc, char **account)
{
	StringInfoData json;
	char	   *payload = NULL;

	initStringInfo(&json);
	*account = NULL;
	for (int i = 0; i < tupdesc->natts; i++)
	{
		const char *name = NameStr(TupleDescAttr(tupdesc, i)->attname);
		char	   *value = SPI_getvalue(row, tupdesc, i + 1);

		if (value == NULL)
			continue;
		if (strcmp(name, "account") == 0 && strlen(value) <= MAX_ACCOUNT)
		{
			*account = value[0] == '\0' ? NULL : value;
			continue;
		}
		appendStringInfoString(&json, json.len == 0 ? "{" : ", ");
		escape_json(&json, name);
		appendStringInfoString(&json, ": ");
		if (strcmp(name, "payload") == 0)
		{
			payload = json.len == strlen("{\"payload\": ") ? value : NULL;
			appendStringInfoString(&json, value);
		}
		else
			escape_json(&json, value);
	}
	if (payload != NULL)
		return payload;
	appendStringInfoString(&json, json.len == 0 ? "{}" : "}");
	return json.data;
}

/* Row trigger of inbox.  Errors: 39P01 when attached to anything else. */
Datum
postalytics_inbox_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	const char *json;
	char	   *account;
	uint32		length;

	if (!CALLED_AS_TRIGGER(fcinfo) || inbox == NULL ||
		!TRIGGER_FIRED_INSTEAD(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("inbox_row is the row trigger of %s.inbox", EXTENSION_SCHEMA)));

	json = inbox_row_json(trigger->tg_trigtuple,
						  RelationGetDescr(trigger->tg_relation), &account);
	json = MemoryContextStrdup(inbox->batch->context, json);
	if (account != NULL)
		account = MemoryContextStrdup(inbox->batch->context, account);
	length = strlen(json);
	event_batch_read(inbox->batch, json, length, account);

	inbox->bytes += length + sizeof(EventRecord);
	if (inbox->bytes >= INBOX_BYTES)
		spill_inbox();
	return PointerGetDatum(trigger->tg_trigtuple);
}

/*
 * Statement trigger of inbox, before and after.  Locks and errors as ingest;
 * 39P01 when attached to anything else.
 */
Datum
postalytics_inbox_insert(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("inbox_insert is the statement trigger of %s.inbox", EXTENSION_SCHEMA)));

	if (TRIGGER_FIRED_BEFORE(trigger->tg_event))
		enter_inbox();
	else if (inbox != NULL)
		store_inbox();
	return PointerGetDatum(NULL);
}
