/*
 * breaker.h
 *		Circuit breakers, which pause a sync after consecutive failures.
 */
#ifndef POSTALYTICS_BREAKER_H
#define POSTALYTICS_BREAKER_H

#include "sync/sync.h"

/* The latest row of breaker_events. */
typedef struct Breaker
{
	TimestampTz at;				/* DT_NOBEGIN if there is none */
	int			failures;
	int			trips;			/* 0 if it is closed */
	TimestampTz until;			/* end of the pause; DT_NOBEGIN if closed */
} Breaker;

extern Breaker get_breaker(const Sync *sync);
extern void breaker_failed(const Sync *sync, int count);
extern void breaker_succeeded(const Sync *sync);

#endif							/* POSTALYTICS_BREAKER_H */
