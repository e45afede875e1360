/*
 * ensure_partition.h
 *		Partitions that must exist before rows are inserted.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_ENSURE_PARTITION_H
#define POSTALYTICS_ENSURE_PARTITION_H

#include "storage/partition.h"

extern void create_months_in_worker(const TimestampTz *times, int count);
extern bool ensure_day(TimestampTz time);

#endif							/* POSTALYTICS_ENSURE_PARTITION_H */
