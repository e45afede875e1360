/*
 * verdict.h
 *		Decisions on the due deliveries of a sync.
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
	SUPERSEDE,					/* latest_only: the piece has a later delivery */
	CANCEL						/* unless: the piece has reached a status; or
								 * the sync no longer includes its account */
} Verdict;

#define N_VERDICTS	(CANCEL + 1)

/* The rows that a look locked, by verdict. */
typedef struct Found
{
	int			batch;			/* maximum number to be found */
	int			count;			/* of all verdicts */
	struct
	{
		int			count;
		int			size;		/* allocated elements of the arrays */
		Datum	   *tids;		/* ctid */
		Datum	   *times;		/* POSTPONE: until when */
	}			verdict[N_VERDICTS];
} Found;

typedef struct Judge
{
	const Sync *sync;
	TimestampTz now;
	Relation	unfinished;
	Siblings	siblings;
	Relation	pieces;			/* NULL unless the sync has "unless" */
	Lookup		key;			/* of pieces, by piece_id and account */
	TupleTableSlot *locked;		/* the row locked last */
	struct leases_hash *leases; /* NULL until it is needed */
	Found	   *found;
} Judge;

/* The part of a decision that concerns the next look. */
typedef struct Outcome
{
	bool		stays;			/* it keeps its due_at */
	TimestampTz until;			/* then, when it can be leased; DT_NOBEGIN if
								 * unknown */
	int64		id;				/* a delivery that was decided on; 0 for none */
} Outcome;

extern void judge_begin(Judge *judge, const Sync *sync, TimestampTz now, Relation unfinished, Place *place,
						Found *found);
extern void judge_end(Judge *judge);
extern bool waits_in_order(const Sync *sync, bool is_test);
extern Outcome judge_delivery(Judge *judge, const DeliveryRow *row, ItemPointer place);
extern Outcome judge_piece(Judge *judge, Datum piece, Datum account);

#endif							/* POSTALYTICS_VERDICT_H */
