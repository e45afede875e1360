/*
 * offer.c
 *		Reads the events of a call in key order, more than once: to find their
 *		months, to insert the events, and to derive pieces, campaigns and
 *		deliveries from them.
 *
 * Every call inserts events in key order, so that overlapping calls wait for
 * each other without deadlock.
 *
 * If the events are inserted by a query, the query reads them through the
 * function offered_events.  The trigger fired by the query sees only the
 * stored columns.  It calls offered_record for data that is not stored, such
 * as the payload if payloads are not kept.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/compat.h"
#include "base/extension.h"
#include "base/query.h"
#include "feed/status_name.h"
#include "funcapi.h"
#include "ingest/offer.h"
#include "ingest/progress.h"
#include "port/pg_bswap.h"
#include "rights/settings.h"
#include "storage/events.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(postalytics_offered_events);

/* The offer of the innermost query that is inserting events, or NULL. */
static Offer *current_offer;

static uint64
key_prefix(const EventRecord *record)
{
	uint64		prefix = 0;

	memcpy(&prefix, record->key.piece, Min(record->key.piece_length, sizeof(prefix)));
	return pg_hton64(prefix);
}

/*
 * qsort comparator: by key, then in the order of arrival, so that the first of
 * several events with the same key is stored.
 */
static int
compare_records(const void *a, const void *b)
{
	const OrderedRecord *x = a;
	const OrderedRecord *y = b;
	int			result;

	if (x->prefix != y->prefix)
		return x->prefix < y->prefix ? -1 : 1;
	result = event_compare(&x->record->key, &y->record->key);
	if (result != 0)
		return result;
	if (x->record->source == y->record->source)
		return x->record->payload.offset < y->record->payload.offset ? -1 : 1;
	return x->record->source->number < y->record->source->number ? -1 : 1;
}

/* Make an offer of the events of a batch, which are sorted here. */
void
offer_batch(Offer *offer, EventBatch *batch, bool show_progress)
{
	OrderedRecord *ordered = MemoryContextAllocHuge(batch->context,
													batch->nrecords * sizeof(OrderedRecord));

	for (int64 i = 0; i < batch->nrecords; i++)
	{
		ordered[i].record = event_batch_record(batch, i);
		ordered[i].prefix = key_prefix(ordered[i].record);
	}
	qsort(ordered, batch->nrecords, sizeof(OrderedRecord), compare_records);
	memset(offer, 0, sizeof(*offer));
	offer->records = ordered;
	offer->count = batch->nrecords;
	offer->nerrors = batch->nerrors;
	offer->keep_payload = batch->settings.keep_payload;
	offer->show_progress = show_progress;
}

/*
 * Make an offer of the events of a spill, which is sorted here.  No events may
 * be added to the spill afterwards.
 */
void
offer_spill(Offer *offer, Spill *spill)
{
	memset(offer, 0, sizeof(*offer));
	offer->spill = spill;
	offer->count = spill_sort(spill, &offer->nerrors);
	offer->keep_payload = current_settings()->keep_payload;
}

/* Go back to the position before the first event. */
void
offer_rewind(Offer *offer)
{
	if (offer->spill != NULL)
		spill_rewind(offer->spill);
	offer->next = 0;
	offer->key = NULL;
}

/* Advance to the next event, and set key.  Returns false at the end. */
bool
offer_next(Offer *offer)
{
	if (offer->spill != NULL)
		offer->key = spill_next(offer->spill);
	else
	{
		offer->record = offer->next < offer->count ? offer->records[offer->next].record : NULL;
		offer->key = offer->record != NULL ? &offer->record->key : NULL;
	}
	if (offer->key == NULL)
		return false;
	if (offer->show_progress && offer->next % 1024 == 0)
		progress_events(offer->next);
	offer->next++;
	return true;
}

/*
 * Advance to the next event that is not a production error.  Returns false if
 * there is none.
 */
bool
offer_next_event(Offer *offer)
{
	while (offer_next(offer))
		if (!is_production_error(offer->key->status))
			return true;
	return false;
}

/* Advance to the next production error.  Returns false if there is none. */
bool
offer_next_error(Offer *offer)
{
	while (offer_next(offer))
		if (is_production_error(offer->key->status))
			return true;
	return false;
}

/*
 * Return the current event with all its fields.  An event of a spill is read
 * into the current memory context.
 */
const EventRecord *
offer_record(Offer *offer)
{
	return offer->spill != NULL ? spill_record(offer->spill) : offer->record;
}

/* Return the target of the current event. */
EventTarget *
offer_target(Offer *offer)
{
	return &offer->targets[offer->next - 1];
}

/* Set the columns of a row of events except event_id and received_at. */
void
set_event(const EventRecord *record, bool keep_payload, Row row)
{
	const EventKey *key = &record->key;

	memset(row.nulls, true, N_EVENTS_COLUMNS * sizeof(bool));
	row_set(row, EVENTS_PIECE_ID, PointerGetDatum(cstring_to_text_with_len(key->piece, key->piece_length)));
	row_set(row, EVENTS_ACCOUNT, PointerGetDatum(cstring_to_text_with_len(key->account, key->account_length)));
	row_set(row, EVENTS_STATUS, ObjectIdGetDatum(status_oid(key->status)));
	row_set(row, EVENTS_OCCURRED_AT, TimestampTzGetDatum(key->occurred_at));
	row_set_or_null(row, EVENTS_CAMPAIGN_ID, event_field_text(record, CAMPAIGN_ID));
	row_set_or_null(row, EVENTS_DROP_ID, event_field_text(record, DROP_ID));
	if (keep_payload)
		row_set(row, EVENTS_PAYLOAD, span_json(record->source, record->payload));
}

/* ---- events that are inserted by a query ---- */

static SqlQuery insert_events_query = {
	.sql = "INSERT INTO postalytics.events"
	"     (piece_id, account, status, occurred_at, campaign_id, drop_id, payload)"
	" SELECT (o.event).piece_id, (o.event).account, (o.event).status, (o.event).occurred_at,"
	"        (o.event).campaign_id, (o.event).drop_id, (o.event).payload"
	" FROM (SELECT postalytics.offered_events()) AS o (event)"
	" ON CONFLICT DO NOTHING",
	.result = SPI_OK_INSERT
};

/*
 * Insert the events by a query, and return the number of new events.  The
 * trigger events_inserted derives pieces, campaigns and deliveries.  Needs an
 * SPI connection.
 */
int64
offer_insert(Offer *offer)
{
	Offer	   *outer = current_offer;

	offer_rewind(offer);
	PG_TRY();
	{
		current_offer = offer;
		query_run(&insert_events_query, NULL, NULL);
	}
	PG_FINALLY();
	{
		current_offer = outer;
	}
	PG_END_TRY();
	return SPI_processed;
}

/*
 * offered_events() returns setof events
 *
 * Returns the events that the running insert_events_query is to insert, in key
 * order, without event_id and received_at.  Returns one event at a time, so
 * that a large call is not held in memory twice.  Error 55000 if that query is
 * not running.
 */
Datum
postalytics_offered_events(PG_FUNCTION_ARGS)
{
	FuncCallContext *call;
	Row			row;

	if (current_offer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("function \"offered_events\" can be called only by ingest"),
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
	if (!offer_next_event(current_offer))
		SRF_RETURN_DONE(call);
	row = new_row(call->tuple_desc);
	set_event(offer_record(current_offer), current_offer->keep_payload, row);
	SRF_RETURN_NEXT(call, HeapTupleGetDatum(heap_form_tuple(call->tuple_desc, row.values, row.nulls)));
}

/*
 * Return the record of an inserted event.  Returns NULL if no query is inserting
 * an offer, or the event is not in the offer.  Successive calls must pass keys
 * in key order.  Duplicates in the offer, which were not inserted, are skipped.
 * A record of a spill is built in the current memory context.
 */
const EventRecord *
offered_record(const EventKey *key)
{
	Offer	   *offer = current_offer;
	int			order = -1;

	if (offer == NULL)
		return NULL;
	if (!offer->is_inserted)
	{
		offer->is_inserted = true;
		offer_rewind(offer);
	}
	if (offer->key != NULL)
		order = event_compare(offer->key, key);
	while (order < 0 && offer_next_event(offer))
		order = event_compare(offer->key, key);
	return order == 0 ? offer_record(offer) : NULL;
}
