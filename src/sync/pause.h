/*
 * pause.h
 *		Syncs that hand out nothing for a while.
 */
#ifndef POSTALYTICS_PAUSE_H
#define POSTALYTICS_PAUSE_H

#include "datatype/timestamp.h"
#include "sync/sync.h"

extern TimestampTz paused_until(const Sync *sync, TimestampTz now);
extern void pause_until(const Sync *sync, TimestampTz until, Datum reason);

#endif							/* POSTALYTICS_PAUSE_H */
