/*
 * partition.h
 *		The partitions of events and deliveries.
 *
 * A leaf is a partition of events, which holds the events of one month, or a
 * partition of deliveries, which holds the deliveries finished on one day.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_PARTITION_H
#define POSTALYTICS_PARTITION_H

#include "datatype/timestamp.h"
#include "utils/relcache.h"

typedef enum LeafKind
{
	LEAF_MONTH,					/* leaf of events */
	LEAF_DAY					/* leaf of deliveries */
} LeafKind;

typedef enum LeafState
{
	LEAF_EXISTS,
	LEAF_CREATED,
	LEAF_NAME_TAKEN,			/* a relation that is not a partition has the
								 * leaf's name */
	LEAF_LIMIT_REACHED			/* setting max_months allows no more leaves */
} LeafState;

typedef enum ParentLock
{
	PARENT_LOCKED,
	PARENT_BUSY,				/* another transaction holds a conflicting
								 * lock */
	PARENT_HAS_LEAF				/* another session has created the leaf
								 * meanwhile */
} ParentLock;

extern TimestampTz month_start(TimestampTz time);
extern TimestampTz next_month(TimestampTz month);
extern char *leaf_name(LeafKind kind, TimestampTz time);
extern Oid	leaf_of(Relation parent, LeafKind kind, TimestampTz time);
extern bool has_leaf(LeafKind kind, TimestampTz time);
extern bool has_new_leaf(LeafKind kind, TimestampTz time);
extern bool leaf_name_is_taken(LeafKind kind, TimestampTz time);
extern ParentLock lock_parent(LeafKind kind, TimestampTz time, int timeout);
extern void unlock_parent(LeafKind kind);
extern LeafState ensure_leaf(LeafKind kind, TimestampTz time);
extern int32 create_leaves(LeafKind kind, TimestampTz from, TimestampTz until);

#endif							/* POSTALYTICS_PARTITION_H */
