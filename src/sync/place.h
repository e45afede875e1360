/*
 * place.h
 *		Where a session's looks at the due deliveries of a sync begin.
 */
#ifndef POSTALYTICS_PLACE_H
#define POSTALYTICS_PLACE_H

#include "storage/lock.h"
#include "sync/aside.h"
#include "sync/sync.h"

/* A position in deliveries_unfinished_due_idx, within a sync. */
typedef struct DueKey
{
	TimestampTz due_at;
	TimestampTz occurred_at;
	int64		id;
} DueKey;

/* A transaction that has held the lock of due_clock for longer than PATIENCE. */
typedef struct Parked
{
	VirtualTransactionId writer;
	DueKey		start;			/* it writes no delivery before this */
} Parked;

typedef struct Place
{
	char		sync[NAMEDATALEN];
	struct Place *next;
	struct Place *next_used;	/* in the same transaction */
	bool		used;
	TimestampTz looked_at;
	TimestampTz full_at;		/* when to scan from the first entry again */
	DueKey		start;			/* no delivery before this can be leased,
								 * unless it is put aside */
	DueKey		saved;			/* what start becomes after a rollback */
	TimestampTz visible_before; /* every delivery due before this is visible,
								 * unless a parked writer wrote it */
	TimestampTz clock;			/* becomes visible_before when writers have
								 * ended; 0 for none */
	TimestampTz listed_at;		/* the last clock */
	VirtualTransactionId *writers;
	int			nwriters;
	Parked	   *parked;
	int			nparked;
	DueKey		obstacle;		/* the entry that start cannot pass */
	DueKey		behind;			/* the end of the scan that first met it */
	TimestampTz met_at;
	Asides		asides;
} Place;

extern Place *find_place(const Sync *sync);
extern bool begin_at_place(Place *place, TimestampTz now);
extern bool go_back(Place *place);
extern int	compare_due_keys(const DueKey *a, const DueKey *b);
extern bool is_before_place(Place *place, const DueKey *key, const text *piece, const text *account);
extern bool is_old_obstacle(const Place *place, const DueKey *key, TimestampTz now);
extern void end_at_place(Place *place, TimestampTz now, const DueKey *obstacle, const DueKey *end,
						 bool from_start, int64 passed);
extern void look_again_at(const Sync *sync, const text *piece, const text *account);
extern void keep_places(bool keep);

#endif							/* POSTALYTICS_PLACE_H */
