/*
 * pace.h
 *		Limits on the deliveries that a sync leases.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_PACE_H
#define POSTALYTICS_PACE_H

#include "sync/sync.h"

extern bool is_paced(const Sync *sync);
extern int	pace_begin(const Sync *sync, int batch);
extern void pace_end(const Sync *sync, Datum tids, int count, TimestampTz until);
extern TimestampTz pace_next(const Sync *sync, TimestampTz now);
extern void pace_release(const Sync *sync, Datum tids);

#endif							/* POSTALYTICS_PACE_H */
