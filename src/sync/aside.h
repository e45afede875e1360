/*
 * aside.h
 *		Deliveries and pieces that a session has put aside.
 *
 * An aside is a delivery or piece that is due but cannot be leased yet.  It has
 * its own time at which the session decides on it again, which is called a probe.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_ASIDE_H
#define POSTALYTICS_ASIDE_H

#include "datatype/timestamp.h"
#include "lib/ilist.h"
#include "lib/pairingheap.h"
#include "sync/subject.h"

typedef struct Aside
{
	pairingheap_node node;		/* in Asides.heap unless gone */
	slist_node	gone_node;
	Subject		subject;
	TimestampTz probe_at;
	uint64		set_in;			/* Asides.transaction when probe_at was set */
	bool		gone;			/* removed by the current transaction */
	bool		listed;			/* in Asides.gone */
} Aside;

typedef struct Asides
{
	MemoryContext context;
	struct asides_hash *hash;
	pairingheap *heap;			/* ordered by probe_at */
	slist_head	gone;			/* entries that are listed */
	uint64		transaction;	/* number of the current one, from 1 */
} Asides;

extern void asides_init(Asides *asides, MemoryContext parent);
extern Aside *aside_find(Asides *asides, Subject subject);
extern bool aside_add(Asides *asides, Subject subject, TimestampTz until, TimestampTz now);
extern void aside_defer(Asides *asides, Aside *aside, TimestampTz until, TimestampTz now);
extern void aside_remove(Asides *asides, Aside *aside);
extern Aside *aside_first(Asides *asides);
extern void asides_commit(Asides *asides);
extern void asides_abort(Asides *asides);

#endif							/* POSTALYTICS_ASIDE_H */
