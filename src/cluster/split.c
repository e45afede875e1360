/*
 * split.c
 *		Splits the events of a call by slot.
 *
 * The front reads a call with the same code as a slot, and sends the text of each event,
 * unchanged, to the slot of its piece.  A rejected event whose piece cannot be read goes
 * to the slot that the hash of its text selects.  The slot reads the events again, and
 * stores the rejects.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "cluster/slots.h"
#include "cluster/split.h"
#include "feed/reader.h"
#include "fmgr.h"
#include "funcapi.h"
#include "storage/slot.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(postalytics_split_events);

/* Return the part of a slot and the account of a source, which is created if missing. */
static Part *
part_of(Part **parts, int *count, int slot, const EventSource *source)
{
	Part	   *part = parts[slot];

	while (part != NULL &&
		   (strcmp(part->account, source->account) != 0 || part->account_is_fixed != source->account_is_fixed))
		part = part->next;
	if (part != NULL)
	{
		appendStringInfoString(&part->json, ", ");
		return part;
	}
	part = palloc0(sizeof(Part));
	part->slot = slot;
	part->account = source->account;
	part->account_is_fixed = source->account_is_fixed;
	initStringInfo(&part->json);
	appendStringInfoChar(&part->json, '[');
	part->next = parts[slot];
	parts[slot] = part;
	(*count)++;
	return part;
}

static void
add_text(Part *part, const EventSource *source, Span span)
{
	appendBinaryStringInfo(&part->json, source->json + span.offset, span.length);
}

/*
 * Split the accepted and the rejected events of a batch.  Returns a list of parts in
 * the memory context of the batch, and sets count to their number.  A slot has a part
 * for each account.
 */
Part *
split_batch(EventBatch *batch, int slots, int *count)
{
	MemoryContext caller = MemoryContextSwitchTo(batch->context);
	Part	  **parts = palloc0(slots * sizeof(Part *));
	Part	   *all = NULL;

	*count = 0;
	for (int64 i = 0; i < batch->nrecords; i++)
	{
		const EventRecord *record = event_batch_record(batch, i);
		int			slot = slot_of_piece(record->key.piece, record->key.piece_length, slots);
		Part	   *part = part_of(parts, count, slot, record->source);

		add_text(part, record->source, record->payload);
		part->events++;
	}
	for (int64 i = 0; i < batch->nrejects; i++)
	{
		const Reject *reject = &batch->rejects[i];
		const char *text = reject->piece == NULL ? reject->source->json + reject->payload.offset : reject->piece;
		int			length = reject->piece == NULL ? reject->payload.length : strlen(reject->piece);
		Part	   *part = part_of(parts, count, slot_of_piece(text, length, slots), reject->source);

		add_text(part, reject->source, reject->payload);
		if (part->rejects++ == 0)
			part->reason = reject->reason;
	}
	for (int slot = slots - 1; slot >= 0; slot--)
	{
		Part	   *next;

		for (Part *part = parts[slot]; part != NULL; part = next)
		{
			appendStringInfoChar(&part->json, ']');
			next = part->next;
			part->next = all;
			all = part;
		}
	}
	MemoryContextSwitchTo(caller);
	return all;
}

/*
 * split_events(document json, account text DEFAULT NULL) returns setof
 *		(slot integer, payload json, events bigint, rejects bigint, reason text)
 *
 * Returns a row for each slot to which ingest would send events.  account is the account
 * of the events; privileges for it are not checked, because only the owner may call this.
 * Rejects beyond setting max_rejects are not counted.  A NULL document has no events.
 * Errors: 55000 if the cluster is not complete, 54000 and 54001 as for ingest.
 */
Datum
postalytics_split_events(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int			slots = number_of_slots();
	EventAccount account = {PG_ARGISNULL(1) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(1)), false};
	EventBatch *batch;
	text	   *payload;
	int			count;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	payload = PG_GETARG_TEXT_PP(0);
	account.is_fixed = account.name[0] != '\0';
	batch = event_batch_create(CurrentMemoryContext, call_create(CurrentMemoryContext, false));
	event_batch_check_size(batch, VARSIZE_ANY_EXHDR(payload));
	event_batch_read(batch, VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload), &account);
	for (Part *part = split_batch(batch, slots, &count); part != NULL; part = part->next)
	{
		Datum		values[] = {
			Int32GetDatum(part->slot),
			PointerGetDatum(cstring_to_text_with_len(part->json.data, part->json.len)),
			Int64GetDatum(part->events),
			Int64GetDatum(part->rejects),
			part->reason == NULL ? (Datum) 0 : CStringGetTextDatum(part->reason)
		};
		bool		nulls[] = {false, false, false, false, part->reason == NULL};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	MemoryContextDelete(batch->context);
	return (Datum) 0;
}
