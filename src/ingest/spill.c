/*
 * spill.c
 *		Sorts the events of a statement that do not fit in memory, using the
 *		server's tuplesort.
 *
 * A statement must write all of its events in key order.  If it wrote them in
 * several parts, each sorted separately, it could deadlock with another
 * statement.  A sorted tuple has the key of an event, its payload, and the
 * positions of the fields in the payload.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "feed/reader.h"
#include "ingest/spill.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplesort.h"
#include "utils/typcache.h"

/*
 * Attributes of the sorted tuples.  The first SORT_KEYS attributes are the sort
 * keys.
 */
enum
{
	SPILL_PIECE_ID = 1, SPILL_ACCOUNT, SPILL_STATUS, SPILL_OCCURRED_AT,
	SPILL_SOURCE, SPILL_OFFSET, SPILL_PAYLOAD, SPILL_FIELDS
};

#define SORT_KEYS	SPILL_OFFSET
#define N_SPILL_COLUMNS	SPILL_FIELDS

/* Positions of the fields of an event in its payload. */
typedef struct SpilledFields
{
	TimestampTz expected_at;
	uint32		escaped;
	Span		field[N_FIELDS];
} SpilledFields;

struct Spill
{
	MemoryContext context;
	Tuplesortstate *sort;
	TupleTableSlot *slot;		/* the current record */
	EventKey	key;			/* key of the current record; points into the
								 * slot */
	int64		count;			/* number of records */
	int64		nerrors;		/* number of production errors among them */
	int64		nsources;		/* number of sources of the added batches */
};

/* Create a spill in a new memory context. */
Spill *
spill_create(MemoryContext parent)
{
	static const Oid types[] = {TEXTOID, TEXTOID, INT2OID, TIMESTAMPTZOID, INT8OID, INT8OID, TEXTOID, BYTEAOID};
	MemoryContext context = AllocSetContextCreate(parent, "postalytics spill", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	Spill	   *spill = palloc0(sizeof(Spill));
	TupleDesc	tupdesc = CreateTemplateTupleDesc(N_SPILL_COLUMNS);
	AttrNumber	columns[SORT_KEYS];
	Oid			operators[SORT_KEYS];
	Oid			collations[SORT_KEYS] = {C_COLLATION_OID, C_COLLATION_OID};
	bool		nulls_first[SORT_KEYS] = {false};

	for (int i = 0; i < N_SPILL_COLUMNS; i++)
		TupleDescInitEntry(tupdesc, i + 1, "", types[i], -1, 0);
	compat_finish_tupdesc(tupdesc);
	for (int i = 0; i < SORT_KEYS; i++)
	{
		columns[i] = i + 1;
		operators[i] = lookup_type_cache(types[i], TYPECACHE_LT_OPR)->lt_opr;
	}
	spill->context = context;
	spill->sort = tuplesort_begin_heap(tupdesc, SORT_KEYS, columns, operators, collations, nulls_first,
									   maintenance_work_mem, NULL, TUPLESORT_RANDOMACCESS);
	spill->slot = MakeSingleTupleTableSlot(tupdesc, &TTSOpsMinimalTuple);
	MemoryContextSwitchTo(caller);
	return spill;
}

/*
 * Return the positions of a record's fields as a SpilledFields.  The result is
 * empty if some fields were collected, because they must be read again from the
 * payload.
 */
static bytea *
spilled_fields(const EventRecord *record)
{
	SpilledFields fields = {.expected_at = record->expected_at,.escaped = record->escaped};
	Size		size = record->collected == NULL ? sizeof(fields) : 0;
	bytea	   *result = palloc(VARHDRSZ + size);

	for (int i = 0; i < N_FIELDS; i++)
		if (record->field[i].length > 0)
			fields.field[i] = (Span)
		{
			record->field[i].offset - record->payload.offset, record->field[i].length
		};
	SET_VARSIZE(result, VARHDRSZ + size);
	memcpy(VARDATA(result), &fields, size);
	return result;
}

static void
add_to_sort(Spill *spill, const EventRecord *record, TupleTableSlot *row)
{
	const EventKey *key = &record->key;

	ExecClearTuple(row);
	memset(row->tts_isnull, false, N_SPILL_COLUMNS * sizeof(bool));
	row->tts_values[SPILL_PIECE_ID - 1] = PointerGetDatum(cstring_to_text_with_len(key->piece, key->piece_length));
	row->tts_values[SPILL_ACCOUNT - 1] = PointerGetDatum(cstring_to_text_with_len(key->account, key->account_length));
	row->tts_values[SPILL_STATUS - 1] = Int16GetDatum(key->status);
	row->tts_values[SPILL_OCCURRED_AT - 1] = TimestampTzGetDatum(key->occurred_at);
	row->tts_values[SPILL_SOURCE - 1] = Int64GetDatum(spill->nsources + record->source->number);
	row->tts_values[SPILL_OFFSET - 1] = Int64GetDatum(record->payload.offset);
	row->tts_values[SPILL_PAYLOAD - 1] =
		PointerGetDatum(cstring_to_text_with_len(record->source->json + record->payload.offset,
												 record->payload.length));
	row->tts_values[SPILL_FIELDS - 1] = PointerGetDatum(spilled_fields(record));
	ExecStoreVirtualTuple(row);
	tuplesort_puttupleslot(spill->sort, row);
}

/* Add the records of a batch.  The batch may be freed afterwards. */
void
spill_add(Spill *spill, EventBatch *batch)
{
	MemoryContext caller = MemoryContextSwitchTo(batch->scratch);
	TupleTableSlot *row = MakeSingleTupleTableSlot(spill->slot->tts_tupleDescriptor, &TTSOpsVirtual);
	MemoryContext each = AllocSetContextCreate(batch->scratch, "postalytics spilled event",
											   ALLOCSET_DEFAULT_SIZES);

	MemoryContextSwitchTo(each);
	for (int64 i = 0; i < batch->nrecords; i++)
	{
		CHECK_FOR_INTERRUPTS();
		add_to_sort(spill, event_batch_record(batch, i), row);
		MemoryContextReset(each);
	}
	MemoryContextSwitchTo(batch->scratch);
	ExecDropSingleTupleTableSlot(row);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(batch->scratch);
	spill->count += batch->nrecords;
	spill->nerrors += batch->nerrors;
	spill->nsources += batch->nsources;
}

/*
 * Sort the records.  No records may be added afterwards.  Returns the number of
 * records, and the number of production errors among them in *nerrors.
 */
int64
spill_sort(Spill *spill, int64 *nerrors)
{
	*nerrors = spill->nerrors;
	tuplesort_performsort(spill->sort);
	return spill->count;
}

/* Go back to the position before the first record. */
void
spill_rewind(Spill *spill)
{
	ExecClearTuple(spill->slot);
	tuplesort_rescan(spill->sort);
}

/*
 * Advance to the next record and return its key, which is valid until the next
 * call.  Returns NULL at the end.
 */
const EventKey *
spill_next(Spill *spill)
{
	text	   *piece;
	text	   *account;
	bool		isnull;

	if (!tuplesort_gettupleslot(spill->sort, true, false, spill->slot, NULL))
		return NULL;
	slot_getallattrs(spill->slot);
	piece = DatumGetTextPP(slot_getattr(spill->slot, SPILL_PIECE_ID, &isnull));
	spill->key.piece = VARDATA_ANY(piece);
	spill->key.piece_length = VARSIZE_ANY_EXHDR(piece);
	account = DatumGetTextPP(slot_getattr(spill->slot, SPILL_ACCOUNT, &isnull));
	spill->key.account = VARDATA_ANY(account);
	spill->key.account_length = VARSIZE_ANY_EXHDR(account);
	spill->key.status = DatumGetInt16(slot_getattr(spill->slot, SPILL_STATUS, &isnull));
	spill->key.occurred_at = DatumGetTimestampTz(slot_getattr(spill->slot, SPILL_OCCURRED_AT, &isnull));
	return &spill->key;
}

/*
 * Set the fields of a record whose source is its payload.  Returns false if the
 * positions of the fields were not stored.
 */
static bool
restore_fields(EventRecord *record, const bytea *stored)
{
	SpilledFields fields;

	if (VARSIZE_ANY_EXHDR(stored) == 0)
		return false;
	memcpy(&fields, VARDATA_ANY(stored), sizeof(fields));
	record->expected_at = fields.expected_at;
	record->escaped = fields.escaped;
	memcpy(record->field, fields.field, sizeof(fields.field));
	return true;
}

/*
 * Return a copy of the current record with all its fields, allocated in the
 * current memory context.
 */
const EventRecord *
spill_record(Spill *spill)
{
	EventSource *source = palloc(sizeof(EventSource));
	EventRecord *record = palloc0(sizeof(EventRecord));
	bool		isnull;
	text	   *payload = DatumGetTextPCopy(slot_getattr(spill->slot, SPILL_PAYLOAD, &isnull));

	*source = source_of_event(VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload));
	record->source = source;
	if (!restore_fields(record, DatumGetByteaPP(slot_getattr(spill->slot, SPILL_FIELDS, &isnull))) &&
		!event_read_fields(record, source))
		elog(ERROR, "could not read a spilled event");
	record->key = spill->key;
	record->key.piece = pnstrdup(spill->key.piece, spill->key.piece_length);
	record->key.account = pnstrdup(spill->key.account, spill->key.account_length);
	record->payload.length = source->length;
	return record;
}

void
spill_end(Spill *spill)
{
	ExecDropSingleTupleTableSlot(spill->slot);
	tuplesort_end(spill->sort);
	MemoryContextDelete(spill->context);
}
