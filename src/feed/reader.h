/*
 * reader.h
 *		Reads events from JSON.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_READER_H
#define POSTALYTICS_READER_H

#include "feed/batch.h"
#include "rights/binding.h"

extern EventSource *event_batch_read(EventBatch *batch, const char *json, uint32 length,
									 const EventAccount *account);
extern bool event_read_fields(EventRecord *record, EventSource *source);
extern bool event_read_details(EventRecord *record, EventSource *source, Span *details);

#endif							/* POSTALYTICS_READER_H */
