/*
 * events.c
 *		The columns of the table events.
 *
 * See partition.c for its partitions.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "storage/events.h"

const TableColumn events_columns[N_EVENTS_COLUMNS] = {
	[EVENTS_EVENT_ID] = COLUMN_NOT_NULL("event_id", INT8OID),
	[EVENTS_PIECE_ID] = COLUMN_NOT_NULL("piece_id", TEXTOID),
	[EVENTS_ACCOUNT] = COLUMN_NOT_NULL("account", TEXTOID),
	[EVENTS_STATUS] = COLUMN_NOT_NULL("status", ANYENUMOID),
	[EVENTS_OCCURRED_AT] = COLUMN_NOT_NULL("occurred_at", TIMESTAMPTZOID),
	[EVENTS_RECEIVED_AT] = COLUMN_NOT_NULL("received_at", TIMESTAMPTZOID),
	[EVENTS_CAMPAIGN_ID] = COLUMN("campaign_id", TEXTOID),
	[EVENTS_DROP_ID] = COLUMN("drop_id", TEXTOID),
	[EVENTS_PAYLOAD] = COLUMN("payload", JSONOID),
};
