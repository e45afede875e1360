/*
 * due.h
 *		The times at which deliveries are due, and the transactions that set due_at.
 */
#ifndef POSTALYTICS_DUE_H
#define POSTALYTICS_DUE_H

#include "datatype/timestamp.h"
#include "storage/lock.h"

extern TimestampTz due_clock(void);
extern TimestampTz due_at(TimestampTz occurred_at, const Interval *wait, TimestampTz clock);
extern VirtualTransactionId * due_writers(int *count);

#endif							/* POSTALYTICS_DUE_H */
