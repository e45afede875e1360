/*
 * events.h
 *		The table events.
 */
#ifndef POSTALYTICS_EVENTS_H
#define POSTALYTICS_EVENTS_H

#include "base/table.h"
#include "feed/event.h"

/* Columns of events, as events.sql has them: attribute number less one. */

enum
{
	EVENTS_EVENT_ID, EVENTS_PIECE_ID, EVENTS_ACCOUNT, EVENTS_STATUS,
	EVENTS_OCCURRED_AT, EVENTS_RECEIVED_AT, EVENTS_CAMPAIGN_ID, EVENTS_DROP_ID, EVENTS_PAYLOAD,
	N_EVENTS_COLUMNS
};

extern const TableColumn events_columns[N_EVENTS_COLUMNS];

/* The key of a leaf: the columns from EVENTS_PIECE_ID on. */
#define N_EVENT_KEY		4

/* A row of events, as it is passed to what is derived from it. */
typedef struct EventRow
{
	int64		event_id;
	EventKey	key;
	text	   *campaign_id;	/* or NULL; that of the drop if only that is
								 * known */
	text	   *drop_id;		/* or NULL */
	const EventRecord *record;	/* what its payload says, or NULL */
	bool		is_repeat;		/* it was derived from before; this record has
								 * more */
} EventRow;

#endif							/* POSTALYTICS_EVENTS_H */
