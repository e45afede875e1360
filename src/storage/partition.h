/*
 * partition.h
 *		Partitions that must exist before rows are inserted.
 */
#ifndef POSTALYTICS_PARTITION_H
#define POSTALYTICS_PARTITION_H

#include "storage/leaf.h"

extern void create_months_in_worker(const TimestampTz *times, int count);
extern bool ensure_day(TimestampTz time);

#endif							/* POSTALYTICS_PARTITION_H */
