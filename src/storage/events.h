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
	EVENTS_EVENT_ID, EVENTS_PIECE_ID, EVENTS_STATUS, EVENTS_OCCURRED_AT,
	EVENTS_RECEIVED_AT, EVENTS_ACCOUNT, EVENTS_CAMPAIGN_ID, EVENTS_PAYLOAD,
	N_EVENTS_COLUMNS
};

extern const TableColumn events_columns[N_EVENTS_COLUMNS];

/* A row of events, as it is passed to what is derived from it. */
typedef struct EventRow
{
	int64		event_id;
	const char *piece;			/* not terminated */
	uint32		piece_length;
	MailStatus	status;
	TimestampTz occurred_at;
	text	   *account;		/* or NULL */
	text	   *campaign_id;	/* or NULL */
	const EventRecord *record;	/* what its payload says, or NULL */
} EventRow;

#endif							/* POSTALYTICS_EVENTS_H */
