/*
 * verdict.h
 *		Decisions on the due deliveries of a sync.
 *
 * A look is one scan for the due deliveries of a sync (look.c).  A verdict is the
 * decision on one of them.  A judge is the state that all decisions of a look
 * share.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_VERDICT_H
#define POSTALYTICS_VERDICT_H

#include "storage/lookup.h"
#include "sync/sibling.h"

/* What to do with a delivery that is due. */
typedef enum Verdict
{
	LEASE,
	POSTPONE,					/* until the head of its piece is due */
	GIVE_UP,					/* all attempts are used */
	SUPERSEDE,					/* the sync is latest_only, and the piece has
								 * a later delivery */
	CANCEL						/* the piece has reached a status of the
								 * sync's "unless", or the sync no longer
								 * includes the account */
} Verdict;

#define N_VERDICTS	(CANCEL + 1)

/* The rows that a look locked, by verdict. */
typedef struct Found
{
	int			batch;			/* maximum number of rows to be found */
	int			count;			/* number of rows of all verdicts */
	struct
	{
		int			count;
		int			size;		/* allocated elements of the arrays */
		Datum	   *tids;		/* ctids of the rows */
		Datum	   *times;		/* for POSTPONE: until when */
	}			verdict[N_VERDICTS];
} Found;

typedef struct Judge
{
	const Sync *sync;
	TimestampTz now;
	Relation	unfinished;
	Siblings	siblings;
	Relation	pieces;			/* NULL if the sync has no "unless" */
	Lookup		key;			/* of pieces, by piece_id and account */
	TupleTableSlot *locked;		/* the row locked last */
	struct leases_hash *leases; /* NULL until first needed */
	Found	   *found;
} Judge;

/* The part of a decision that concerns the next look. */
typedef struct Outcome
{
	bool		stays;			/* the delivery or piece may still have due
								 * entries */
	TimestampTz until;			/* if so, when it can be leased; DT_NOBEGIN if
								 * unknown */
	int64		id;				/* a delivery that was decided on; 0 if there
								 * was none */
} Outcome;

extern void judge_begin(Judge *judge, const Sync *sync, TimestampTz now, Relation unfinished, Place *place,
						Found *found);
extern void judge_end(Judge *judge);
extern bool waits_in_order(const Sync *sync, bool is_test);
extern Outcome judge_delivery(Judge *judge, const DeliveryRow *row, ItemPointer place);
extern Outcome judge_piece(Judge *judge, Datum piece, Datum account);

#endif							/* POSTALYTICS_VERDICT_H */
