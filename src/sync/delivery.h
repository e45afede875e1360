/*
 * delivery.h
 *		The table deliveries, and functions that fetch, ack and nack share.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_DELIVERY_H
#define POSTALYTICS_DELIVERY_H

#include "base/table.h"
#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "sync/sync.h"

/*
 * Columns of deliveries, as in delivery.sql: attribute numbers minus one.
 */
enum
{
	DELIVERY_ID, DELIVERY_SYNC, DELIVERY_PIECE_ID, DELIVERY_ACCOUNT,
	DELIVERY_STATUS, DELIVERY_OCCURRED_AT, DELIVERY_CREATED_AT, DELIVERY_DUE_AT, DELIVERY_STATE,
	DELIVERY_ATTEMPT, DELIVERY_IS_TEST, DELIVERY_LEASE_UNTIL, DELIVERY_LEASES,
	DELIVERY_FINISHED_AT, DELIVERY_FAILED_AT, DELIVERY_ERRORS, DELIVERY_PAYLOAD, DELIVERY_REASON,
	N_DELIVERY_COLUMNS
};

extern const TableColumn deliveries_columns[N_DELIVERY_COLUMNS];

/* The columns of a delivery on which the decisions of fetch, ack and nack depend. */
typedef struct DeliveryRow
{
	int64		id;
	Datum		sync;			/* text */
	Datum		piece;			/* text */
	Datum		account;		/* text */
	int			status;			/* NO_STATUS for a production error */
	TimestampTz occurred_at;
	TimestampTz due_at;
	TimestampTz lease_until;	/* DT_NOBEGIN if not leased */
	int			attempt;
	bool		is_test;
} DeliveryRow;

extern Relation open_unfinished(LOCKMODE mode);
extern Datum delivery_attribute(TupleTableSlot *slot, int column, bool *isnull);
extern void read_delivery(TupleTableSlot *slot, DeliveryRow *row);
extern int64 session_id(void);
extern Datum required_argument(FunctionCallInfo fcinfo, int i, const char *name);
extern const Sync *granted_sync(const char *name, bool granted);
extern const Sync *sync_argument(FunctionCallInfo fcinfo);
extern TimestampTz time_after(TimestampTz start, Datum interval, const char *name);
extern Datum tid_array(Datum *tids, int count);
extern void finish_deliveries(Datum tids, const char *state, TimestampTz now);

#endif							/* POSTALYTICS_DELIVERY_H */
