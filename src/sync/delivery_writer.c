/*
 * delivery_writer.c
 *		Writes the deliveries of new events, in the transaction that inserts them.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "base/extension.h"
#include "base/query.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "storage/direct.h"
#include "sync/delivery.h"
#include "sync/delivery_writer.h"
#include "sync/due.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

struct DeliveryWriter
{
	MemoryContext context;
	MemoryContext row_context;
	Relation	unfinished;		/* NULL until there is something to write */
	DirectTable *direct;		/* NULL if a query must insert the rows */
	Tuplestorestate *rows;		/* to be inserted by a query */
	int64		count;
	Datum		waiting;		/* state of new deliveries */
	Oid			delivery_ids;
	TimestampTz clock;			/* when writing began; see due.c */
};

/* Create a writer in a memory context.  It needs an SPI connection. */
DeliveryWriter *
delivery_writer_create(MemoryContext parent)
{
	DeliveryWriter *writer = MemoryContextAllocZero(parent, sizeof(DeliveryWriter));

	writer->context = parent;
	return writer;
}

/* Return the value of state for new deliveries. */
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
	writer->clock = due_clock();
	MemoryContextSwitchTo(caller);
}

static void
write_row(DeliveryWriter *writer, Row row)
{
	if (writer->direct == NULL)
		tuplestore_putvalues(writer->rows, RelationGetDescr(writer->unfinished), row.values, row.nulls);
	else if (!direct_insert(writer->direct, row.values, row.nulls, true))
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("delivery_id " INT64_FORMAT " already exists", DatumGetInt64(row.values[DELIVERY_ID])),
				 errhint("Use setval() to advance sequence %s.delivery_id_seq beyond the largest delivery_id.",
						 EXTENSION_SCHEMA)));
	writer->count++;
}

/* Add the delivery of an event, or of a production error, to a sync. */
static void
add_delivery(DeliveryWriter *writer, const Sync *sync, const EventRow *event, bool is_error)
{
	const EventKey *key = &event->key;
	MemoryContext caller;
	Row			row;

	if (writer->unfinished == NULL)
		begin_writing(writer);
	caller = MemoryContextSwitchTo(writer->row_context);
	row = new_row(RelationGetDescr(writer->unfinished));
	row_set(row, DELIVERY_ID, Int64GetDatum(nextval_internal(writer->delivery_ids, false)));
	row_set(row, DELIVERY_SYNC, CStringGetTextDatum(sync->name));
	row_set(row, DELIVERY_PIECE_ID,
			PointerGetDatum(cstring_to_text_with_len(key->piece, key->piece_length)));
	row_set(row, DELIVERY_ACCOUNT,
			PointerGetDatum(cstring_to_text_with_len(key->account, key->account_length)));
	if (!is_error)
		row_set(row, DELIVERY_STATUS, ObjectIdGetDatum(status_oid(key->status)));
	row_set(row, DELIVERY_OCCURRED_AT, TimestampTzGetDatum(key->occurred_at));
	row_set(row, DELIVERY_CREATED_AT, TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()));
	row_set(row, DELIVERY_DUE_AT, TimestampTzGetDatum(due_at(key->occurred_at, &sync->wait, writer->clock)));
	row_set(row, DELIVERY_STATE, writer->waiting);
	row_set(row, DELIVERY_ATTEMPT, Int32GetDatum(0));
	row_set(row, DELIVERY_IS_TEST, BoolGetDatum(false));
	write_row(writer, row);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(writer->row_context);
}

/* Add the delivery of an event to a sync. */
void
delivery_add(DeliveryWriter *writer, const Sync *sync, const EventRow *event)
{
	add_delivery(writer, sync, event, false);
}

/* Add the delivery of a production error, which has no status, to a sync. */
void
delivery_add_error(DeliveryWriter *writer, const Sync *sync, const EventRow *error)
{
	add_delivery(writer, sync, error, true);
}

static SqlQuery write_deliveries_query = {
	.sql = "INSERT INTO postalytics.deliveries_unfinished"
	"     (delivery_id, sync, piece_id, account, status, occurred_at, due_at)"
	" SELECT n.delivery_id, n.sync, n.piece_id, n.account, n.status, n.occurred_at, n.due_at"
	" FROM new_deliveries AS n",
	.result = SPI_OK_INSERT
};

/*
 * Insert the collected rows by a query, because direct insertion is not allowed.
 */
static void
write_by_query(DeliveryWriter *writer)
{
	register_rowset("new_deliveries", RelationGetDescr(writer->unfinished), writer->rows, writer->count);
	query_run(&write_deliveries_query, NULL, NULL);
	SPI_unregister_relation("new_deliveries");
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
