/*
 * tally.h
 *		Counts of a session's attempts, successes and failures.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_TALLY_H
#define POSTALYTICS_TALLY_H

#include "sync/sync.h"

extern void tally_attempts(const Sync *sync, int count);
extern void tally_success(const Sync *sync, TimestampTz created_at, TimestampTz now);
extern void tally_failures(const Sync *sync, int count);
extern void keep_tallies(bool keep);
extern void tally_flush(const Sync *sync);

#endif							/* POSTALYTICS_TALLY_H */
