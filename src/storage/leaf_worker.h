/*
 * leaf_worker.h
 *		Partitions created by a background worker.
 */
#ifndef POSTALYTICS_LEAF_WORKER_H
#define POSTALYTICS_LEAF_WORKER_H

#include "storage/leaf.h"

extern bool create_leaves_in_worker(LeafKind kind, const TimestampTz *times, int count);

#endif							/* POSTALYTICS_LEAF_WORKER_H */
