/*
 * pause.h
 *		Pauses of syncs.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_PAUSE_H
#define POSTALYTICS_PAUSE_H

#include "datatype/timestamp.h"
#include "sync/sync.h"

extern TimestampTz get_pause_end(const Sync *sync, TimestampTz now);
extern void insert_pause(const Sync *sync, TimestampTz until, Datum reason);

#endif							/* POSTALYTICS_PAUSE_H */
