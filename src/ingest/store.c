/*
 * store.c
 *		Stores the events of a call, everything that is derived from them, and
 *		its rejects.
 *
 * The rows of events are inserted directly into the months, without a query,
 * unless users have added something to the table that requires a query, such
 * as a trigger.  In that case one INSERT statement inserts the rows, and the
 * trigger events_inserted derives pieces, campaigns and deliveries.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "base/extension.h"
#include "commands/sequence.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "ingest/derive.h"
#include "ingest/months.h"
#include "ingest/production_error.h"
#include "ingest/progress.h"
#include "ingest/rejects.h"
#include "ingest/repeat.h"
#include "ingest/store.h"
#include "miscadmin.h"
#include "storage/events.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/*
 * If fewer than one in EXPECT_NEW events is a duplicate, inserting an event
 * without searching for a stored row first is cheaper.
 */
#define EXPECT_NEW		16

/*
 * Insert the events without a query.  Sets event_id in the targets of the new
 * events, and returns the number of new events.  Sets adds_data in the targets
 * of duplicates that have data which the stored event lacks.
 */
static int64
insert_rows(Months *months, Offer *offer, MemoryContext scratch)
{
	Oid			event_ids = extension_relation("event_id_seq");
	Datum		values[N_EVENTS_COLUMNS];
	bool		nulls[N_EVENTS_COLUMNS];
	Row			row = {values, nulls};
	int64		inserted = 0;

	offer_rewind(offer);
	for (int64 n = 0; offer_next_event(offer); n++)
	{
		EventTarget *target = offer_target(offer);
		MemoryContext caller = MemoryContextSwitchTo(scratch);
		int64		event_id = nextval_internal(event_ids, false);
		bool		expect_new = (n - inserted) * EXPECT_NEW < n;
		DirectTable *table = months->months[target->month].table;

		CHECK_FOR_INTERRUPTS();
		set_event(offer_record(offer), offer->keep_payload, row);
		row_set(row, EVENTS_EVENT_ID, Int64GetDatum(event_id));
		row_set(row, EVENTS_RECEIVED_AT, TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()));
		if (direct_insert(table, values, nulls, expect_new))
		{
			target->event_id = event_id;
			inserted++;
		}
		else
		{
			if (offer->keep_payload)
				target->adds_data = repeat_adds_data(offer_record(offer), direct_stored(table));
			ExecClearTuple(direct_stored(table));	/* release the page of the
													 * stored row */
		}
		MemoryContextSwitchTo(caller);
		MemoryContextReset(scratch);
	}
	return inserted;
}

/*
 * Fill in the data that stored events lack, for each target with adds_data set.
 * adds_data is reset if nothing was filled in for the target.  Returns true if
 * anything was filled in.
 */
static bool
fill_in_repeats(Months *months, Offer *offer, MemoryContext scratch)
{
	Datum		values[N_EVENTS_COLUMNS];
	bool		nulls[N_EVENTS_COLUMNS];
	Row			row = {values, nulls};
	bool		any = false;

	offer_rewind(offer);
	while (offer_next_event(offer))
	{
		EventTarget *target = offer_target(offer);
		DirectTable *table = months->months[target->month].table;
		MemoryContext caller;

		if (!target->adds_data)
			continue;
		CHECK_FOR_INTERRUPTS();
		caller = MemoryContextSwitchTo(scratch);
		set_event(offer_record(offer), true, row);
		direct_next_command(table);
		target->adds_data = direct_update(table, values, nulls, repeat_merge);
		any |= target->adds_data;
		MemoryContextSwitchTo(caller);
		MemoryContextReset(scratch);
	}
	if (any)
		CommandCounterIncrement();
	return any;
}

/* Derive from the new events and from the events that were filled in. */
static void
derive_events(Derivation *derivation, Months *months, Offer *offer)
{
	offer_rewind(offer);
	while (offer_next_event(offer))
	{
		const EventTarget *target = offer_target(offer);
		const EventRecord *record;
		MemoryContext caller;
		EventRow	row;

		if (target->event_id == 0 && !target->adds_data)
			continue;
		caller = MemoryContextSwitchTo(derive_piece(derivation, offer->key));
		row.event_id = target->event_id;
		row.is_repeat = target->adds_data;
		if (!row.is_repeat)
		{
			record = offer_record(offer);
			row.key = record->key;
			row.campaign_id = (text *) DatumGetPointer(event_field_text(record, CAMPAIGN_ID));
			row.drop_id = (text *) DatumGetPointer(event_field_text(record, DROP_ID));
			row.record = record;
		}
		if (!row.is_repeat || read_stored_event(months->months[target->month].leaf, offer->key, &row))
			derive_row(derivation, &row);
		MemoryContextSwitchTo(caller);
	}
}

/*
 * Match the new production errors with the syncs, and derive the campaigns of
 * all production errors in the call, including duplicates.
 */
static void
derive_errors(Derivation *derivation, Offer *offer, const EventRow *inserted, int64 count, MemoryContext scratch)
{
	for (int64 i = 0; i < count; i++)
		derive_error(derivation, &inserted[i]);
	offer_rewind(offer);
	while (offer_next_error(offer))
	{
		MemoryContext caller = MemoryContextSwitchTo(scratch);
		const EventRecord *record = offer_record(offer);
		EventRow	row = {
			.key = record->key,
			.campaign_id = (text *) DatumGetPointer(event_field_text(record, CAMPAIGN_ID)),
			.record = record
		};

		derive_campaign(derivation, &row);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(scratch);
	}
}

/*
 * Insert the events and production errors of an offer, with everything that is
 * derived from them, and return the number of new events and production errors.
 */
static int64
insert_events(Offer *offer, MemoryContext context)
{
	MemoryContext scratch;
	Months		months = {0};
	int64		inserted;
	bool		direct;
	bool		more = false;
	EventRow   *errors = NULL;
	int64		nerrors = 0;

	if (offer->count == 0)
		return 0;
	scratch = AllocSetContextCreate(context, "postalytics row", ALLOCSET_DEFAULT_SIZES);
	offer->targets = MemoryContextAllocExtended(context, offer->count * sizeof(EventTarget),
												MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	if (offer->nerrors > 0)		/* before events, as forget locks them in this
								 * order */
		nerrors = insert_production_errors(offer, &errors);
	direct = open_months(&months, offer);
	inserted = direct ? insert_rows(&months, offer, scratch) : offer_insert(offer);
	if (direct && inserted < offer->count - offer->nerrors)
		more = fill_in_repeats(&months, offer, scratch);
	if ((direct && inserted > 0) || more || nerrors > 0)
	{
		Derivation *derivation = derive_begin(DERIVE_NEW);

		if (direct)
			derive_events(derivation, &months, offer);
		if (nerrors > 0)
			derive_errors(derivation, offer, errors, nerrors, scratch);
		derive_end(derivation);
	}
	close_months(&months);
	pfree(offer->targets);
	MemoryContextDelete(scratch);
	return inserted + nerrors;
}

/*
 * Store the events and rejects of a batch.  bytes is the size of the call if
 * the progress of the call is shown, and 0 otherwise.
 */
IngestResult
store_batch(EventBatch *batch, int64 bytes)
{
	IngestResult result;
	Offer		offer;

	ensure_months(batch);
	if (bytes > 0)
		progress_begin(bytes, bytes);	/* again, as creating a month may have
										 * ended the report */
	SPI_connect();
	offer_batch(&offer, batch, bytes > 0);
	result.inserted = insert_events(&offer, batch->context);
	result.duplicates = batch->nrecords - result.inserted;
	result.rejected = batch->nrejected;
	insert_rejects(batch);
	SPI_finish();
	return result;
}

/*
 * Write the events of a batch to the spill, and store its rejects.  The batch
 * may be freed afterwards.
 */
void
spill_batch(EventBatch *batch, Spill *spill)
{
	ensure_months(batch);
	SPI_connect();
	insert_rejects(batch);
	SPI_finish();
	spill_add(spill, batch);
}

/*
 * Store the events of a spill.  The rejects have already been stored by
 * spill_batch, so the result does not count them.
 */
IngestResult
store_spill(Spill *spill)
{
	IngestResult result = {0};
	Offer		offer;

	offer_spill(&offer, spill);
	SPI_connect();
	result.inserted = insert_events(&offer, CurrentMemoryContext);
	result.duplicates = offer.count - result.inserted;
	SPI_finish();
	return result;
}

/* Return a result as a row of type ingest_result. */
Datum
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
