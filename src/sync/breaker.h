/*
 * breaker.h
 *		Circuit breakers, which pause a sync after consecutive failures.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_BREAKER_H
#define POSTALYTICS_BREAKER_H

#include "sync/sync.h"

/* The state of a sync's breaker: its latest row in breaker_events. */
typedef struct Breaker
{
	TimestampTz at;				/* DT_NOBEGIN if there is no row */
	int			failures;		/* since the last success */
	int			trips;			/* since the last success; 0 if closed */
	TimestampTz until;			/* end of the pause; DT_NOBEGIN if closed */
} Breaker;

extern Breaker get_breaker(const Sync *sync);
extern void breaker_failed(const Sync *sync, int count);
extern void breaker_succeeded(const Sync *sync);

#endif							/* POSTALYTICS_BREAKER_H */
