/*
 * batch.c
 *		Collects event records and rejects in a separate memory context.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/extension.h"
#include "feed/batch.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Months of events begin with the year 1. */
#define FIRST_TIME	((date2j(1, 1, 1) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY)

/* Create a batch for a call, in a new memory context that is a child of parent. */
EventBatch *
event_batch_create(MemoryContext parent, Call *call)
{
	MemoryContext context = AllocSetContextCreate(parent,
												  "postalytics events",
												  ALLOCSET_DEFAULT_SIZES);
	EventBatch *batch = MemoryContextAllocZero(context, sizeof(EventBatch));
	TimestampTz now = GetCurrentStatementStartTimestamp();

	batch->context = context;
	batch->scratch = AllocSetContextCreate(context, "postalytics event",
										   ALLOCSET_SMALL_SIZES);
	batch->settings = *current_settings();
	batch->status_names = status_names();
	batch->call = call;
	/* Days and months of the intervals are counted in UTC. */
	batch->earliest = Max(FIRST_TIME,
						  DatumGetTimestamp(DirectFunctionCall2(timestamp_mi_interval, TimestampGetDatum(now),
																IntervalPGetDatum(&batch->settings.earliest))));
	batch->latest = DatumGetTimestamp(DirectFunctionCall2(timestamp_pl_interval, TimestampGetDatum(now),
														  IntervalPGetDatum(&batch->settings.latest)));
	return batch;
}

/* Raise error 54000 if the size of a payload exceeds max_call_size. */
void
event_batch_check_size(const EventBatch *batch, uint32 length)
{
	if (length > batch->settings.max_call_size)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("payload of %u bytes exceeds the maximum size", length),
				 errdetail("Setting \"max_call_size\" allows %d bytes.", batch->settings.max_call_size),
				 errhint("Split the payload into several calls or rows, or increase the setting with %s.configure.", EXTENSION_SCHEMA)));
}

#define CHUNK	1024			/* number of records in a chunk */

/*
 * Return the i-th record, counted from 0.  The pointer is valid while the batch
 * exists.
 */
EventRecord *
event_batch_record(EventBatch *batch, int64 i)
{
	return &batch->chunks[i / CHUNK][i % CHUNK];
}

/*
 * Return the array with room for at least one more element.  used is the number
 * of elements in the array, *size is its capacity, and element is the size of an
 * element in bytes.
 */
static void *
enlarge(EventBatch *batch, void *array, int64 used, int64 *size, Size element)
{
	if (used < *size)
		return array;
	*size = *size == 0 ? 64 : *size * 2;
	if (array == NULL)
		return MemoryContextAllocHuge(batch->context, *size * element);
	return repalloc_huge(array, *size * element);
}

/* Add a copy of a record to the batch. */
void
event_batch_add(EventBatch *batch, const EventRecord *record)
{
	int64		chunk = batch->nrecords / CHUNK;

	if (chunk == batch->nchunks)
	{
		batch->chunks = enlarge(batch, batch->chunks, chunk,
								&batch->max_chunks, sizeof(EventRecord *));
		batch->chunks[batch->nchunks++] =
			MemoryContextAlloc(batch->context, CHUNK * sizeof(EventRecord));
	}
	*event_batch_record(batch, batch->nrecords++) = *record;
	batch->nerrors += is_production_error(record->key.status);
	record->source->accepted++;
}

/*
 * Add a reject of a source.  piece is NULL if it could not be read.  If account is
 * NULL, the reject has the account of the source.  The first skip_rejects rejects
 * of a source are only counted.  So are those after the next max_rejects, because
 * ingest/rejects.c will replace all rejects of the source with one.
 */
void
event_batch_add_reject(EventBatch *batch, EventSource *source, Span payload,
					   const char *piece, const char *account, const char *reason)
{
	Reject	   *reject;

	int64		number = source->rejected++ - batch->skip_rejects;

	batch->nrejected++;
	if (number < 0 || number >= batch->settings.max_rejects)
		return;
	batch->rejects = enlarge(batch, batch->rejects, batch->nrejects,
							 &batch->max_rejects, sizeof(Reject));
	reject = &batch->rejects[batch->nrejects++];
	reject->source = source;
	reject->payload = payload;
	reject->piece = piece == NULL ? NULL : MemoryContextStrdup(batch->context, piece);
	reject->account = account == NULL ? source->account : MemoryContextStrdup(batch->context, account);
	reject->reason = MemoryContextStrdup(batch->context, reason);
}

/* Turn the i-th record into a reject.  The last record moves to position i. */
void
event_batch_reject(EventBatch *batch, int64 i, const char *reason)
{
	EventRecord *record = event_batch_record(batch, i);

	record->source->accepted--;
	batch->nerrors -= is_production_error(record->key.status);
	event_batch_add_reject(batch, record->source, record->payload,
						   pnstrdup(record->key.piece, record->key.piece_length),
						   pnstrdup(record->key.account, record->key.account_length), reason);
	*record = *event_batch_record(batch, --batch->nrecords);
}
