/*
 * events.h
 *		The table events.
 */
#ifndef POSTALYTICS_EVENTS_H
#define POSTALYTICS_EVENTS_H

#include "base/table.h"
#include "feed/event.h"

/*
 * Columns of events, in the order of events.sql: attribute number minus one.
 */

enum
{
	EVENTS_EVENT_ID, EVENTS_PIECE_ID, EVENTS_ACCOUNT, EVENTS_STATUS,
	EVENTS_OCCURRED_AT, EVENTS_RECEIVED_AT, EVENTS_CAMPAIGN_ID, EVENTS_DROP_ID, EVENTS_PAYLOAD,
	N_EVENTS_COLUMNS
};

extern const TableColumn events_columns[N_EVENTS_COLUMNS];

/* Number of columns in the key of a leaf, beginning with EVENTS_PIECE_ID. */
#define N_EVENT_KEY		4

/* A row of events, as passed to the functions that derive data from it. */
typedef struct EventRow
{
	int64		event_id;
	EventKey	key;
	text	   *campaign_id;	/* or NULL; the drop's id if only the drop is
								 * known */
	text	   *drop_id;		/* or NULL */
	const EventRecord *record;	/* read from its payload, or NULL */
	bool		is_repeat;		/* it was processed before; this record has
								 * more */
} EventRow;

#endif							/* POSTALYTICS_EVENTS_H */
