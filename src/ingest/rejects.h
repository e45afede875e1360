/*
 * rejects.h
 *		The table rejects.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_REJECTS_H
#define POSTALYTICS_REJECTS_H

#include "feed/batch.h"

extern void insert_rejects(EventBatch *batch);

#endif							/* POSTALYTICS_REJECTS_H */
