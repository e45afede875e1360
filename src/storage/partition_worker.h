/*
 * partition_worker.h
 *		Partitions created by a background worker.
 */
#ifndef POSTALYTICS_PARTITION_WORKER_H
#define POSTALYTICS_PARTITION_WORKER_H

#include "storage/partition.h"

extern bool create_leaves_in_worker(LeafKind kind, const TimestampTz *times, int count);

#endif							/* POSTALYTICS_PARTITION_WORKER_H */
