/*
 * timestamp.h
 *		Timestamps as the feed writes them.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_TIMESTAMP_H
#define POSTALYTICS_TIMESTAMP_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "pgtime.h"

extern bool parse_timestamp(const char *string, int length, pg_tz *zone, TimestampTz *time);

#endif							/* POSTALYTICS_TIMESTAMP_H */
