/*
 * verdict.h
 *		What is to become of the due deliveries of a sync.
 */
#ifndef POSTALYTICS_VERDICT_H
#define POSTALYTICS_VERDICT_H

#include "datatype/timestamp.h"
#include "sync/sync.h"

/* What is to become of a delivery that is due. */
typedef enum Verdict
{
	LEASE,
	POSTPONE,					/* until the head of its piece is due */
	GIVE_UP,					/* all attempts are used */
	SUPERSEDE,					/* latest_only: the piece has a later delivery */
	CANCEL						/* unless: the piece has reached a status; or
								 * the sync no longer includes its account */
} Verdict;

#define N_VERDICTS	(CANCEL + 1)

/* The rows that a look locked, by verdict. */
typedef struct Found
{
	int			count;			/* of all verdicts */
	struct
	{
		int			count;
		int			size;		/* allocated elements of the arrays */
		Datum	   *places;		/* ctid */
		Datum	   *times;		/* POSTPONE: until when */
	}			verdict[N_VERDICTS];
	TimestampTz last_due;		/* where the look ended, by due_at */
} Found;

extern void look_for_due(const Sync *sync, TimestampTz now, int batch, Found *found);
extern TimestampTz look_for_next(const Sync *sync, TimestampTz now);

#endif							/* POSTALYTICS_VERDICT_H */
