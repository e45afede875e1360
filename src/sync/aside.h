/*
 * aside.h
 *		Deliveries and pieces that a session has put aside.
 */
#ifndef POSTALYTICS_ASIDE_H
#define POSTALYTICS_ASIDE_H

#include "datatype/timestamp.h"
#include "lib/ilist.h"
#include "lib/pairingheap.h"
#include "sync/subject.h"

typedef struct Aside
{
	pairingheap_node node;		/* in the heap unless gone */
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
	pairingheap *heap;			/* by probe_at */
	slist_head	gone;
	uint64		transaction;	/* the number of the current one, from 1 */
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
