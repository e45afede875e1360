/*
 * due.h
 *		The times at which deliveries are due, and the transactions that set due_at.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_DUE_H
#define POSTALYTICS_DUE_H

#include "datatype/timestamp.h"
#include "storage/lock.h"

extern TimestampTz due_clock(void);
extern TimestampTz due_at(TimestampTz occurred_at, const Interval *wait, TimestampTz clock);
extern VirtualTransactionId * due_writers(int *count);

#endif							/* POSTALYTICS_DUE_H */
