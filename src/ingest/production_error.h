/*
 * production_error.h
 *		The production errors of a call.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_PRODUCTION_ERROR_H
#define POSTALYTICS_PRODUCTION_ERROR_H

#include "ingest/offer.h"
#include "storage/events.h"

extern int64 insert_production_errors(Offer *offer, EventRow **inserted);

#endif							/* POSTALYTICS_PRODUCTION_ERROR_H */
