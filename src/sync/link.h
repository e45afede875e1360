/*
 * link.h
 *		Writes the status of pieces into tables of contacts.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_LINK_H
#define POSTALYTICS_LINK_H

#include "feed/event.h"

typedef struct LinkWriter LinkWriter;

extern LinkWriter *link_writer_create(MemoryContext parent);
extern void link_add(LinkWriter *writer, const EventKey *piece);
extern void link_finish(LinkWriter *writer);

#endif							/* POSTALYTICS_LINK_H */
