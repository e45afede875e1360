/*
 * place.h
 *		Where a session's scans for the due deliveries of a sync begin.
 *
 * A place is the position in deliveries_unfinished_due_idx at which a session's
 * next scan for due deliveries of a sync begins, with the state from which this
 * position is computed.  Such a scan is called a look (look.c).
 *
 * Copyright (c) 2026, the postalytics_status developers
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
	DueKey		start;			/* the writer adds no delivery before this */
} Parked;

typedef struct Place
{
	char		sync[NAMEDATALEN];
	struct Place *next;
	struct Place *next_used;	/* next place used in this transaction */
	bool		used;			/* in this transaction */
	TimestampTz looked_at;		/* when the last look began */
	TimestampTz full_at;		/* when to scan from the first entry again */
	DueKey		start;			/* no delivery before this can be leased,
								 * unless it is put aside */
	DueKey		saved;			/* what start becomes after a rollback */
	TimestampTz visible_before; /* every delivery due before this is visible,
								 * unless a parked writer wrote it */
	TimestampTz clock;			/* when writers were listed; becomes
								 * visible_before when all have ended or are
								 * parked, and then 0 */
	TimestampTz listed_at;		/* when writers were last listed */
	VirtualTransactionId *writers;	/* transactions whose end is awaited */
	int			nwriters;
	Parked	   *parked;
	int			nparked;
	DueKey		obstacle;		/* the entry that start cannot pass */
	DueKey		behind;			/* last entry of the scan that first met the
								 * obstacle */
	TimestampTz met_at;			/* time of that scan; DT_NOEND if there is no
								 * obstacle */
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
