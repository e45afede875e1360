/*
 * progress.h
 *		Progress of a long call.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_PROGRESS_H
#define POSTALYTICS_PROGRESS_H

#include "postgres.h"

extern bool progress_is_wanted(int64 bytes);
extern void progress_begin(int64 bytes, int64 bytes_read);
extern void progress_bytes_read(uint32 bytes);
extern void progress_events(int64 events);
extern void progress_end(void);

#endif							/* POSTALYTICS_PROGRESS_H */
