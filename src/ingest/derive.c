/*
 * derive.c
 *		Passes rows of events, in the order of pieces, to the code that derives
 *		journeys, campaigns and deliveries from them.
 *
 * store.c, the trigger in inserted.c, and refold.c pass all their rows through
 * this file.  The memory used for a piece is released after the piece's last
 * row, so that memory use does not grow with the number of pieces.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "feed/reader.h"
#include "ingest/derive.h"
#include "ingest/offer.h"
#include "journey/campaign.h"
#include "journey/journey.h"
#include "storage/slot.h"
#include "sync/link.h"
#include "sync/match.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

struct Derivation
{
	MemoryContext context;
	MemoryContext piece_context;	/* for data of the current piece */
	EventKey	key;			/* key of the current piece; key.piece is NULL
								 * before the first row */
	Slot		slot;			/* slots is 0 unless the events are new */
	JourneyWriter *journeys;	/* NULL if only campaigns are derived */
	CampaignWriter *campaigns;
	SyncMatch  *syncs;			/* NULL unless the events are new */
	LinkWriter *links;			/* NULL unless the events are new and contacts
								 * are linked */
};

/*
 * Begin to derive from events.  The caller must keep an SPI connection open
 * until derive_end.
 */
Derivation *
derive_begin(DeriveKind kind)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "postalytics derive",
												  ALLOCSET_DEFAULT_SIZES);
	Derivation *derivation = MemoryContextAllocZero(context, sizeof(Derivation));

	derivation->context = context;
	derivation->piece_context = AllocSetContextCreate(context, "postalytics piece",
													  ALLOCSET_DEFAULT_SIZES);
	if (kind != DERIVE_CAMPAIGNS)
		derivation->journeys = journey_writer_create(context, kind == DERIVE_PIECES);
	derivation->campaigns = campaign_writer_create(context);
	if (kind == DERIVE_NEW)
	{
		derivation->slot = own_slot();
		derivation->syncs = sync_match_begin(context);
		derivation->links = link_writer_create(context);
	}
	return derivation;
}

/*
 * Prepare for the next row, whose piece is given by key.  Returns the memory
 * context for the data that the row points to, which is reset when the next
 * piece begins.  Rows must be passed in the order of pieces.  Error 22023 if the
 * events are new and the piece belongs to another slot (check_slot_of_piece).
 */
MemoryContext
derive_piece(Derivation *derivation, const EventKey *key)
{
	char	   *copy;

	if (derivation->key.piece != NULL && piece_compare(&derivation->key, key) == 0)
		return derivation->piece_context;
	if (derivation->key.piece != NULL && derivation->journeys != NULL)
		journey_next_piece(derivation->journeys);
	MemoryContextReset(derivation->piece_context);
	copy = MemoryContextAlloc(derivation->piece_context, key->piece_length + key->account_length + 1);
	memcpy(copy, key->piece, key->piece_length);
	memcpy(copy + key->piece_length, key->account, key->account_length);
	derivation->key = *key;
	derivation->key.piece = copy;
	derivation->key.account = copy + key->piece_length;
	check_slot_of_piece(derivation->slot, key->piece, key->piece_length);
	if (derivation->links != NULL)
		link_add(derivation->links, key);
	return derivation->piece_context;
}

/*
 * Derive from a row of the current piece.  A row with is_repeat set is not
 * matched with the syncs.
 */
void
derive_row(Derivation *derivation, const EventRow *row)
{
	if (derivation->journeys != NULL)
		journey_add(derivation->journeys, row);
	campaign_add(derivation->campaigns, row);
	if (derivation->syncs != NULL && !row->is_repeat)
		sync_match_event(derivation->syncs, row);
}

/* Derive only the campaign of a row. */
void
derive_campaign(Derivation *derivation, const EventRow *row)
{
	campaign_add(derivation->campaigns, row);
}

/*
 * Match a production error with the syncs.  A production error does not change
 * a journey.  Error 22023 as for derive_piece.
 */
void
derive_error(Derivation *derivation, const EventRow *row)
{
	check_slot_of_piece(derivation->slot, row->key.piece, row->key.piece_length);
	sync_match_error(derivation->syncs, row);
}

/* ---- rows in a slot ---- */

#define ATTR(column)	((column) + 1)

/* Return a text or json attribute, or NULL if the attribute is NULL. */
static text *
text_attribute(TupleTableSlot *slot, int attribute)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, attribute, &isnull);

	return isnull ? NULL : DatumGetTextPP(value);
}

/*
 * Set the piece and account of a key.  They point into the texts, which must
 * live as long as the key.
 */
static void
set_piece(EventKey *key, const text *piece, const text *account)
{
	key->piece = VARDATA_ANY(piece);
	key->piece_length = VARSIZE_ANY_EXHDR(piece);
	key->account = VARDATA_ANY(account);
	key->account_length = VARSIZE_ANY_EXHDR(account);
}

/*
 * Parse the payload of the row in a slot.  Returns NULL if the payload is NULL
 * or not an object.
 */
static const EventRecord *
read_payload(TupleTableSlot *slot)
{
	text	   *payload = text_attribute(slot, ATTR(EVENTS_PAYLOAD));
	EventSource *source;
	EventRecord *record;

	if (payload == NULL)
		return NULL;
	source = palloc(sizeof(EventSource));
	*source = source_of_event(pnstrdup(VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload)),
							  VARSIZE_ANY_EXHDR(payload));
	record = palloc(sizeof(EventRecord));
	return event_read_fields(record, source) ? record : NULL;
}

/*
 * Read the row in a slot into the memory context of its piece, and switch to
 * that memory context.
 */
static void
read_row(Derivation *derivation, TupleTableSlot *slot, EventRow *row)
{
	bool		isnull;
	text	   *piece;
	text	   *account;

	slot_getallattrs(slot);
	piece = text_attribute(slot, ATTR(EVENTS_PIECE_ID));
	account = text_attribute(slot, ATTR(EVENTS_ACCOUNT));
	set_piece(&row->key, piece, account);
	MemoryContextSwitchTo(derive_piece(derivation, &row->key));
	set_piece(&row->key, DatumGetTextPCopy(PointerGetDatum(piece)), DatumGetTextPCopy(PointerGetDatum(account)));
	row->event_id = DatumGetInt64(slot_getattr(slot, ATTR(EVENTS_EVENT_ID), &isnull));
	row->key.status = status_from_oid(DatumGetObjectId(slot_getattr(slot, ATTR(EVENTS_STATUS), &isnull)));
	row->key.occurred_at = DatumGetTimestampTz(slot_getattr(slot, ATTR(EVENTS_OCCURRED_AT), &isnull));
	row->campaign_id = text_attribute(slot, ATTR(EVENTS_CAMPAIGN_ID));
	row->drop_id = text_attribute(slot, ATTR(EVENTS_DROP_ID));
	row->is_repeat = false;
	row->record = offered_record(&row->key);
	if (row->record == NULL)
		row->record = read_payload(slot);
}

/* Derive pieces, campaigns and deliveries from the event in a slot. */
void
derive_slot(Derivation *derivation, TupleTableSlot *slot)
{
	MemoryContext caller = CurrentMemoryContext;
	EventRow	row;

	read_row(derivation, slot, &row);
	derive_row(derivation, &row);
	MemoryContextSwitchTo(caller);
}

/* Write the rows that have not been written yet, and free the derivation. */
void
derive_end(Derivation *derivation)
{
	if (derivation->journeys != NULL)
		journey_finish(derivation->journeys);
	campaign_finish(derivation->campaigns);
	if (derivation->syncs != NULL)
		sync_match_finish(derivation->syncs);
	if (derivation->links != NULL)
		link_finish(derivation->links);
	MemoryContextDelete(derivation->context);
}
