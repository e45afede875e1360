/*
 * look.h
 *		Looks at the deliveries of a sync that are due.
 */
#ifndef POSTALYTICS_LOOK_H
#define POSTALYTICS_LOOK_H

#include "datatype/timestamp.h"
#include "sync/sync.h"

/* What is to become of a delivery that is due. */
typedef enum Verdict
{
	LEASE,
	POSTPONE,					/* until the head of its piece is due */
	GIVE_UP,					/* its last lease has expired */
	SUPERSEDE,					/* latest_only: the piece has a later delivery */
	CANCEL						/* unless: the piece has reached a status */
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

#endif							/* POSTALYTICS_LOOK_H */
