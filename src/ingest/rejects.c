/*
 * rejects.c
 *		Stores the events that were rejected, with the reasons.
 *
 * The texts of the reasons are in feed/validate.c, feed/reader.c and months.c.
 * retry.c ingests the rejected events again.
 *
 * If a source, which is one JSON value, has too many rejects, they are folded:
 * one reject is stored for all of them.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/table.h"
#include "base/extension.h"
#include "base/query.h"
#include "base/table.h"
#include "base/text.h"
#include "catalog/pg_type.h"
#include "ingest/rejects.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/*
 * Columns of rejects, as defined in rejects.sql: attribute number minus one.
 */
enum
{
	REJECT_ID, REJECT_RECEIVED_AT, REJECT_ACCOUNT, REJECT_PIECE_ID, REJECT_REASON,
	REJECT_PAYLOAD,
	N_REJECTS_COLUMNS
};

static const TableColumn rejects_columns[N_REJECTS_COLUMNS] = {
	[REJECT_ID] = COLUMN_NOT_NULL("reject_id", INT8OID),
	[REJECT_RECEIVED_AT] = COLUMN_NOT_NULL("received_at", TIMESTAMPTZOID),
	[REJECT_ACCOUNT] = COLUMN_NOT_NULL("account", TEXTOID),
	[REJECT_PIECE_ID] = COLUMN("piece_id", TEXTOID),
	[REJECT_REASON] = COLUMN_NOT_NULL("reason", TEXTOID),
	[REJECT_PAYLOAD] = COLUMN_NOT_NULL("payload", JSONOID),
};

/* ---- many rejects of a source ---- */

/*
 * Fold the rejects of each source that has more than max_rejects.  The first
 * reject is kept, with the whole source as its payload and the number of
 * rejected events in its reason.
 */
static void
fold_rejects(EventBatch *batch)
{
	int64		n = 0;

	for (int64 i = 0; i < batch->nrejects; i++)
	{
		Reject	   *reject = &batch->rejects[i];
		EventSource *source = reject->source;

		if (source->rejected > batch->settings.max_rejects)
		{
			if (source->folded)
				continue;
			source->folded = true;
			reject->piece = NULL;
			reject->account = source->account;
			reject->payload.offset = 0;
			reject->payload.length = source->length;
			source->first_reason = reject->reason;
			reject->reason = MemoryContextStrdup(batch->context,
												 psprintf(INT64_FORMAT " events rejected; first reason: %s",
														  source->rejected, reject->reason));
		}
		batch->rejects[n++] = *reject;
	}
	batch->nrejects = n;
}

/* ---- many rejects of a statement on inbox ---- */

/* qsort comparator: by account, then in the order of arrival. */
static int
compare_rejects(const void *a, const void *b)
{
	const Reject *x = a;
	const Reject *y = b;
	int			result = strcmp(x->account, y->account);

	if (result != 0)
		return result;
	if (x->source->number != y->source->number)
		return x->source->number < y->source->number ? -1 : 1;
	return x->payload.offset < y->payload.offset ? -1 : 1;
}

/*
 * Append the payload of a reject to the elements of an array.  If the reject
 * was folded and its payload is an array, append the elements of the payload
 * instead.
 */
static void
append_elements(StringInfo array, const Reject *reject)
{
	int			length = reject->payload.length;
	const char *json = trim(reject->source->json + reject->payload.offset, &length);

	if (reject->source->folded && json[0] == '[')
		appendBinaryStringInfo(array, json + 1, length - 2);
	else
		appendBinaryStringInfo(array, json, length);
}

/*
 * Combine rejects of one account into one reject, whose payload is an array of
 * their events.
 */
static Reject
combine_group(EventBatch *batch, const Reject *rejects, int64 count)
{
	MemoryContext caller = MemoryContextSwitchTo(batch->context);
	EventSource *source = palloc0(sizeof(EventSource));
	Reject		combined = rejects[0];
	int64		nevents = 0;
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '[');
	for (int64 i = 0; i < count; i++)
	{
		if (i > 0)
			appendStringInfoChar(&json, ',');
		append_elements(&json, &rejects[i]);
		nevents += rejects[i].source->folded ? rejects[i].source->rejected : 1;
	}
	appendStringInfoChar(&json, ']');
	source->json = json.data;
	source->length = json.len;
	source->account = combined.account;
	combined.reason = psprintf(INT64_FORMAT " events rejected; first reason: %s", nevents,
							   rejects[0].source->folded ? rejects[0].source->first_reason : rejects[0].reason);
	combined.source = source;
	combined.piece = NULL;
	combined.payload.offset = 0;
	combined.payload.length = json.len;
	MemoryContextSwitchTo(caller);
	return combined;
}

/* Maximum size of the payload of a combined reject, in bytes. */
#define COMBINED_BYTES	(64 * 1024 * 1024)

/*
 * Return how many rejects, beginning with the first, are to be combined.  These
 * are the rejects of the same account, up to a total of COMBINED_BYTES.
 */
static int64
count_combined(const Reject *rejects, int64 count)
{
	uint64		bytes = rejects[0].payload.length;
	int64		n = 1;

	for (; n < count && strcmp(rejects[n].account, rejects[0].account) == 0; n++)
	{
		bytes += rejects[n].payload.length + 1;
		if (bytes > COMBINED_BYTES)
			break;
	}
	return n;
}

/*
 * Keep the rejects of a batch that are among the first max_rejects rejects of
 * the statement on inbox, and combine the others by account.
 */
static void
combine_rejects(EventBatch *batch)
{
	int			max_rejects = batch->settings.max_rejects;
	Reject	   *others = MemoryContextAllocHuge(batch->context, Max(batch->nrejects, 1) * sizeof(Reject));
	int64		nothers = 0;
	int64		nrejects = 0;

	for (int64 i = 0; i < batch->nrejects; i++)
	{
		Reject		reject = batch->rejects[i];

		if (batch->call->rejects++ < max_rejects)
			batch->rejects[nrejects++] = reject;
		else
			others[nothers++] = reject;
	}
	qsort(others, nothers, sizeof(Reject), compare_rejects);
	for (int64 i = 0; i < nothers;)
	{
		int64		n = count_combined(others + i, nothers - i);

		batch->rejects[nrejects++] = n == 1 ? others[i] : combine_group(batch, others + i, n);
		i += n;
	}
	batch->nrejects = nrejects;
}

/* ---- the table ---- */

static SqlQuery insert_rejects_query = {
	.sql = "INSERT INTO postalytics.rejects (account, piece_id, reason, payload)"
	" SELECT r.account, r.piece_id, r.reason, r.payload"
	" FROM rejected AS r",
	.result = SPI_OK_INSERT
};

/* Return a string as text, or 0 for NULL. */
static Datum
text_or_null(const char *string)
{
	return string == NULL ? (Datum) 0 : CStringGetTextDatum(string);
}

/*
 * Store the rejects of a batch, folded and combined if there are too many.
 * Needs an SPI connection.  Locks: ROW EXCLUSIVE on rejects.  Errors: 55000 and
 * 0A000 as for check_columns.
 */
void
insert_rejects(EventBatch *batch)
{
	Relation	rejects;
	Tuplestorestate *rows;
	MemoryContext caller;

	if (batch->nrejects == 0)
		return;
	fold_rejects(batch);
	if (batch->call->is_statement)
		combine_rejects(batch);
	rejects = table_open(extension_relation("rejects"), RowExclusiveLock);
	check_columns(rejects, rejects_columns, N_REJECTS_COLUMNS);
	rows = tuplestore_begin_heap(false, false, work_mem);
	caller = MemoryContextSwitchTo(batch->scratch);
	for (int64 i = 0; i < batch->nrejects; i++)
	{
		const Reject *reject = &batch->rejects[i];
		Row			row = new_row(RelationGetDescr(rejects));

		row_set(row, REJECT_ACCOUNT, CStringGetTextDatum(reject->account));
		row_set_or_null(row, REJECT_PIECE_ID, text_or_null(reject->piece));
		row_set(row, REJECT_REASON, CStringGetTextDatum(reject->reason));
		row_set(row, REJECT_PAYLOAD, span_json(reject->source, reject->payload));
		tuplestore_putvalues(rows, RelationGetDescr(rejects), row.values, row.nulls);
		MemoryContextReset(batch->scratch);
	}
	MemoryContextSwitchTo(caller);
	register_rowset("rejected", RelationGetDescr(rejects), rows, batch->nrejects);
	query_run(&insert_rejects_query, NULL, NULL);
	SPI_unregister_relation("rejected");
	tuplestore_end(rows);
	table_close(rejects, NoLock);
}
