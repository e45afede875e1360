/*
 * look.h
 *		Scans for the due deliveries of a sync.
 *
 * A look is one scan of deliveries_unfinished_due_idx for due deliveries of a
 * sync.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_LOOK_H
#define POSTALYTICS_LOOK_H

#include "sync/verdict.h"

extern void look_for_due(const Sync *sync, TimestampTz now, int batch, Found *found);
extern TimestampTz look_for_next(const Sync *sync, TimestampTz now);

#endif							/* POSTALYTICS_LOOK_H */
