/*
 * partition_worker.h
 *		Partitions created by a background worker.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_PARTITION_WORKER_H
#define POSTALYTICS_PARTITION_WORKER_H

#include "storage/partition.h"

extern bool create_leaves_in_worker(LeafKind kind, const TimestampTz *times, int count);

#endif							/* POSTALYTICS_PARTITION_WORKER_H */
