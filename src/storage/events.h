/*
 * events.h
 *		The table events.
 *
 * Copyright (c) 2026, the postalytics_status developers
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

/*
 * Number of columns in the primary key of each leaf of events (see
 * partition.h), beginning with EVENTS_PIECE_ID.
 */
#define N_EVENT_KEY		4

/* A row of events, as passed to the functions that derive data from it. */
typedef struct EventRow
{
	int64		event_id;
	EventKey	key;
	text	   *campaign_id;	/* the drop's id if only the drop is known,
								 * NULL if neither is known */
	text	   *drop_id;		/* may be NULL */
	const EventRecord *record;	/* contents of the payload, or NULL */
	bool		is_repeat;		/* the event was processed before, and the
								 * record adds data to it */
} EventRow;

#endif							/* POSTALYTICS_EVENTS_H */
