/*
 * link.h
 *		Writes the status of pieces into linked contacts.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_LINK_H
#define POSTALYTICS_LINK_H

#include "executor/spi.h"
#include "feed/event.h"
#include "sync/contact_link.h"

typedef struct LinkWriter LinkWriter;

extern LinkWriter *link_writer_create(MemoryContext parent);
extern void link_add(LinkWriter *writer, const EventKey *piece);
extern void link_finish(LinkWriter *writer);
extern void keep_skipped(const Link *link, SPITupleTable *result, MemoryContext context);
extern int64 retry_pending(const Link *link, TimestampTz failed_before, int64 limit, int splits,
						   MemoryContext context);

#endif							/* POSTALYTICS_LINK_H */
