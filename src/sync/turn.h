/*
 * turn.h
 *		A short-term lock that serializes decisions about a sync.
 *
 * The turn of a session is the time for which it holds the lock.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_TURN_H
#define POSTALYTICS_TURN_H

#include "sync/sync.h"

extern void take_turn(const Sync *sync);
extern void end_turn(const Sync *sync);

#endif							/* POSTALYTICS_TURN_H */
