/*
 * delivery_writer.c
 *		Writes deliveries in the transaction that brings their events.
 */
#include "sync/delivery.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

struct DeliveryWriter
{
	MemoryContext context;
	MemoryContext row_context;
	Relation	unfinished;		/* NULL until there is something to write */
	DirectTable *direct;		/* NULL if only a query can write to it */
	Tuplestorestate *rows;		/* for the query */
	int64		count;
	Datum		waiting;		/* the state */
	Oid			delivery_ids;
};

/* Writes deliveries; needs an SPI connection. */
DeliveryWriter *
delivery_writer_create(MemoryContext parent)
{
	DeliveryWriter *writer = MemoryContextAllocZero(parent, sizeof(DeliveryWriter));

	writer->context = parent;
	return writer;
}

static Datum
waiting_state(Relation deliveries)
{
	Oid			type = TupleDescAttr(RelationGetDescr(deliveries), DELIVERY_STATE)->atttypid;

	return DirectFunctionCall2(enum_in, CStringGetDatum("waiting"), ObjectIdGetDatum(type));
}

static void
begin_writing(DeliveryWriter *writer)
{
	MemoryContext caller = MemoryContextSwitchTo(writer->context);

	writer->unfinished = open_unfinished(RowExclusiveLock);
	writer->row_context = AllocSetContextCreate(writer->context, "postalytics delivery",
												ALLOCSET_SMALL_SIZES);
	if (direct_allowed(writer->unfinished, deliveries_columns, N_DELIVERY_COLUMNS))
		writer->direct = direct_open(writer->unfinished, N_DELIVERY_COLUMNS);
	else
		writer->rows = tuplestore_begin_heap(false, false, work_mem);
	writer->waiting = waiting_state(writer->unfinished);
	writer->delivery_ids = extension_relation("delivery_id_seq");
	MemoryContextSwitchTo(caller);
}

static void
write_row(DeliveryWriter *writer, Datum *values, bool *nulls)
{
	if (writer->direct == NULL)
		tuplestore_putvalues(writer->rows, RelationGetDescr(writer->unfinished), values, nulls);
	else if (!direct_insert(writer->direct, values, nulls, true))
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("delivery_id " INT64_FORMAT " already exists", DatumGetInt64(values[DELIVERY_ID])),
				 errhint("Use setval() to advance sequence %s.delivery_id_seq beyond the largest delivery_id.",
						 EXTENSION_SCHEMA)));
	writer->count++;
}

/* Add a delivery of an event to a sync.  Days and months of wait are added in UTC. */
void
delivery_add(DeliveryWriter *writer, const Sync *sync, const EventRow *row)
{
	MemoryContext caller;
	Datum	   *values;
	bool	   *nulls;

	if (writer->unfinished == NULL)
		begin_writing(writer);
	caller = MemoryContextSwitchTo(writer->row_context);
	new_row(RelationGetDescr(writer->unfinished), &values, &nulls);
	for (int i = DELIVERY_ID; i <= DELIVERY_IS_TEST; i++)
		nulls[i] = false;
	values[DELIVERY_ID] = Int64GetDatum(nextval_internal(writer->delivery_ids, false));
	values[DELIVERY_SYNC] = CStringGetTextDatum(sync->name);
	values[DELIVERY_PIECE_ID] =
		PointerGetDatum(cstring_to_text_with_len(row->piece, row->piece_length));
	values[DELIVERY_STATUS] = ObjectIdGetDatum(status_oid(row->status));
	values[DELIVERY_OCCURRED_AT] = TimestampTzGetDatum(row->occurred_at);
	values[DELIVERY_CREATED_AT] = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	values[DELIVERY_DUE_AT] =
		DirectFunctionCall2(timestamp_pl_interval,
							TimestampGetDatum(row->occurred_at),
							IntervalPGetDatum(&sync->wait));
	values[DELIVERY_STATE] = writer->waiting;
	values[DELIVERY_ATTEMPT] = Int32GetDatum(0);
	values[DELIVERY_IS_TEST] = BoolGetDatum(false);
	write_row(writer, values, nulls);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(writer->row_context);
}

/* Insert the collected rows by a query, where direct insertion is not allowed. */
static void
write_by_query(DeliveryWriter *writer)
{
	static SPIPlanPtr plan = NULL;

	register_rows("owed", RelationGetRelid(writer->unfinished), writer->rows, writer->count);
	if (SPI_execute_plan(keep_plan(&plan,
								   "INSERT INTO postalytics.deliveries_unfinished"
								   " (delivery_id, sync, piece_id, status, occurred_at, due_at)"
								   " SELECT delivery_id, sync, piece_id, status, occurred_at, due_at"
								   " FROM owed",
								   0, NULL),
						 NULL, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write deliveries");
	SPI_unregister_relation("owed");
	tuplestore_end(writer->rows);
}

/* Write the remaining deliveries and close the table. */
void
delivery_finish(DeliveryWriter *writer)
{
	if (writer->unfinished == NULL)
		return;
	if (writer->direct != NULL)
		direct_close(writer->direct);
	else
		write_by_query(writer);
	table_close(writer->unfinished, NoLock);
}
