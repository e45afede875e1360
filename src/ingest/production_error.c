/*
 * production_error.c
 *		Stores the production errors of a call, each error once.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/table.h"
#include "base/compat.h"
#include "base/extension.h"
#include "base/query.h"
#include "catalog/pg_type.h"
#include "feed/reader.h"
#include "feed/status_name.h"
#include "ingest/production_error.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

/* Columns of production_errors, as defined in production_error.sql. */
enum
{
	ERROR_PIECE_ID, ERROR_ACCOUNT, ERROR_STATUS, ERROR_OCCURRED_AT, ERROR_RECEIVED_AT,
	ERROR_CAMPAIGN_ID, ERROR_DROP_ID, ERROR_CONTACT_ID, ERROR_CODE_COLUMN, ERROR_DESCRIPTION_COLUMN,
	ERROR_PAYLOAD, N_ERROR_COLUMNS
};

static const TableColumn error_columns[N_ERROR_COLUMNS] = {
	[ERROR_PIECE_ID] = COLUMN_NOT_NULL("piece_id", TEXTOID),
	[ERROR_ACCOUNT] = COLUMN_NOT_NULL("account", TEXTOID),
	[ERROR_STATUS] = COLUMN_NOT_NULL("status", TEXTOID),
	[ERROR_OCCURRED_AT] = COLUMN_NOT_NULL("occurred_at", TIMESTAMPTZOID),
	[ERROR_RECEIVED_AT] = COLUMN_NOT_NULL("received_at", TIMESTAMPTZOID),
	[ERROR_CAMPAIGN_ID] = COLUMN("campaign_id", TEXTOID),
	[ERROR_DROP_ID] = COLUMN("drop_id", TEXTOID),
	[ERROR_CONTACT_ID] = COLUMN("contact_id", TEXTOID),
	[ERROR_CODE_COLUMN] = COLUMN("code", TEXTOID),
	[ERROR_DESCRIPTION_COLUMN] = COLUMN("description", TEXTOID),
	[ERROR_PAYLOAD] = COLUMN("payload", JSONOID),
};

/*
 * Set the columns code and description, which are read from the payload of the
 * record.
 */
static void
set_details(Row row, const EventRecord *record)
{
	EventSource part = source_of_event(record->source->json + record->payload.offset, record->payload.length);
	Span		details[N_ALL_FIELDS - N_FIELDS] = {0};
	EventRecord again;

	if (!event_read_details(&again, &part, details))
		return;
	row_set_or_null(row, ERROR_CODE_COLUMN, span_text(&part, details[ERROR_CODE - N_FIELDS]));
	row_set_or_null(row, ERROR_DESCRIPTION_COLUMN, span_text(&part, details[ERROR_DESCRIPTION - N_FIELDS]));
}

/* Set the columns of a row of production_errors except received_at. */
static void
set_error(Row row, const EventRecord *record, bool keep_payload)
{
	const EventKey *key = &record->key;

	row_set(row, ERROR_PIECE_ID, PointerGetDatum(cstring_to_text_with_len(key->piece, key->piece_length)));
	row_set(row, ERROR_ACCOUNT, PointerGetDatum(cstring_to_text_with_len(key->account, key->account_length)));
	row_set(row, ERROR_STATUS, CStringGetTextDatum(meaning_name(key->status)));
	row_set(row, ERROR_OCCURRED_AT, TimestampTzGetDatum(key->occurred_at));
	row_set_or_null(row, ERROR_CAMPAIGN_ID, event_field_text(record, CAMPAIGN_ID));
	row_set_or_null(row, ERROR_DROP_ID, event_field_text(record, DROP_ID));
	row_set_or_null(row, ERROR_CONTACT_ID, event_field_text(record, CONTACT_ID));
	set_details(row, record);
	if (keep_payload)
		row_set(row, ERROR_PAYLOAD, span_json(record->source, record->payload));
}

/*
 * Inserts rows in key order, so that overlapping calls do not deadlock.  Rows
 * with the same key are inserted in the order of the offer.
 */
static SqlQuery insert_errors_query = {
	.sql = "INSERT INTO postalytics.production_errors"
	"     (piece_id, account, status, occurred_at, campaign_id, drop_id, contact_id, code, description, payload)"
	" SELECT n.piece_id, n.account, n.status, n.occurred_at, n.campaign_id, n.drop_id, n.contact_id, n.code,"
	"        n.description, n.payload"
	" FROM (SELECT e.*, row_number() OVER () AS place FROM new_errors AS e) AS n"
	" ORDER BY n.piece_id, n.account, n.occurred_at, n.place"
	" ON CONFLICT DO NOTHING"
	" RETURNING piece_id, account, occurred_at, campaign_id, drop_id",
	.result = SPI_OK_INSERT_RETURNING
};

/*
 * Return a text column of the i-th row of the query's result.  Returns NULL
 * if the column is NULL.
 */
static text *
result_text(uint64 i, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? NULL : DatumGetTextPP(value);
}

/*
 * Return the i-th row of the query's result.  The texts of the row point into
 * the result.
 */
static EventRow
result_row(uint64 i)
{
	EventRow	row = {0};
	text	   *piece = result_text(i, 1);
	text	   *account = result_text(i, 2);
	bool		isnull;

	row.key.piece = VARDATA_ANY(piece);
	row.key.piece_length = VARSIZE_ANY_EXHDR(piece);
	row.key.account = VARDATA_ANY(account);
	row.key.account_length = VARSIZE_ANY_EXHDR(account);
	row.key.occurred_at = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 3, &isnull));
	row.campaign_id = result_text(i, 4);
	row.drop_id = result_text(i, 5);
	return row;
}

/*
 * Insert the production errors of an offer.  Returns the number of new errors,
 * and their rows in *inserted.  These rows are valid until SPI_finish.  Needs
 * an SPI connection.  Locks: ROW EXCLUSIVE on production_errors.  Errors: 55000
 * and 0A000 as for check_columns.
 */
int64
insert_production_errors(Offer *offer, EventRow **inserted)
{
	Relation	errors = table_open(extension_relation("production_errors"), RowExclusiveLock);
	Tuplestorestate *rows = tuplestore_begin_heap(false, false, work_mem);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "postalytics error", ALLOCSET_SMALL_SIZES);
	int64		count;

	check_columns(errors, error_columns, N_ERROR_COLUMNS);
	offer_rewind(offer);
	while (offer_next_error(offer))
	{
		MemoryContext caller = MemoryContextSwitchTo(scratch);
		Row			row = new_row(RelationGetDescr(errors));

		set_error(row, offer_record(offer), offer->keep_payload);
		tuplestore_putvalues(rows, RelationGetDescr(errors), row.values, row.nulls);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(scratch);
	}
	register_rowset("new_errors", RelationGetDescr(errors), rows, offer->nerrors);
	query_run(&insert_errors_query, NULL, NULL);
	SPI_unregister_relation("new_errors");
	count = SPI_processed;
	*inserted = palloc(Max(count, 1) * sizeof(EventRow));
	for (int64 i = 0; i < count; i++)
		(*inserted)[i] = result_row(i);
	tuplestore_end(rows);
	MemoryContextDelete(scratch);
	table_close(errors, NoLock);
	return count;
}
