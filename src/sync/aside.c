/*
 * aside.c
 *		Deliveries and pieces that a session has put aside.
 *
 * These are due but cannot be leased yet.  Each has its own time at which the
 * session probes it, that is, decides on it again.  The session's index scans can
 * therefore begin at a later position.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "sync/aside.h"
#include "utils/timestamp.h"

/* Maximum number of entries for a sync.  Each takes about 200 bytes. */
#define MAX_ASIDE	100000

/*
 * If it is not known when an entry can be leased, it is probed after
 * PROBE_INTERVAL, or after PROBE_EACH times the number of entries, whichever is
 * longer.  PROBE_EACH bounds the total cost of probes.  Both are in microseconds.
 */
#define PROBE_INTERVAL	100000
#define PROBE_EACH		1000

typedef struct AsideEntry
{
	Subject		subject;
	Aside	   *aside;
	char		status;			/* for simplehash */
} AsideEntry;

#define SH_PREFIX		asides
#define SH_ELEMENT_TYPE AsideEntry
#define SH_KEY_TYPE		Subject
#define SH_KEY			subject
#define SH_HASH_KEY(tb, key) hash_subject(key)
#define SH_EQUAL(tb, a, b) equal_subjects(a, b)
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* Pairing heaps put the largest element first, so earlier times are larger. */
static int
compare_probes(const pairingheap_node * a, const pairingheap_node * b, void *arg)
{
	TimestampTz one = pairingheap_const_container(Aside, node, a)->probe_at;
	TimestampTz other = pairingheap_const_container(Aside, node, b)->probe_at;

	return one < other ? 1 : one > other ? -1 : 0;
}

/* Initialize an empty set in a new memory context, which is a child of parent. */
void
asides_init(Asides *asides, MemoryContext parent)
{
	MemoryContext caller;

	asides->context = AllocSetContextCreate(parent, "postalytics deliveries put aside", ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(asides->context);
	asides->hash = asides_create(asides->context, 16, NULL);
	asides->heap = pairingheap_allocate(compare_probes, NULL);
	slist_init(&asides->gone);
	asides->transaction = 1;
	MemoryContextSwitchTo(caller);
}

/* Return the entry of a subject, or NULL if it is not put aside. */
Aside *
aside_find(Asides *asides, Subject subject)
{
	AsideEntry *entry = asides->hash->members == 0 ? NULL : asides_lookup(asides->hash, subject);

	return entry == NULL || entry->aside->gone ? NULL : entry->aside;
}

/*
 * Put a piece or delivery aside, to be probed at until.  until is DT_NOBEGIN if it
 * is not known when the piece or delivery can be leased.  False if there are
 * already MAX_ASIDE entries.
 */
bool
aside_add(Asides *asides, Subject subject, TimestampTz until, TimestampTz now)
{
	AsideEntry *entry = asides_lookup(asides->hash, subject);
	Aside	   *aside;

	if (entry != NULL)
		aside = entry->aside;
	else
	{
		MemoryContext caller = MemoryContextSwitchTo(asides->context);
		bool		found;

		if (asides->hash->members >= MAX_ASIDE)
		{
			MemoryContextSwitchTo(caller);
			return false;
		}
		aside = palloc0(sizeof(Aside));
		aside->subject = copy_subject(subject);
		aside->gone = true;
		asides_insert(asides->hash, aside->subject, &found)->aside = aside;
		MemoryContextSwitchTo(caller);
	}
	if (aside->gone)
	{
		aside->gone = false;
		aside->probe_at = until;
		pairingheap_add(asides->heap, &aside->node);
	}
	aside_defer(asides, aside, until, now);
	return true;
}

/* Set another time at which an entry is probed.  until is as for aside_add. */
void
aside_defer(Asides *asides, Aside *aside, TimestampTz until, TimestampTz now)
{
	pairingheap_remove(asides->heap, &aside->node);
	aside->probe_at = until != DT_NOBEGIN ? until :
		now + Max(PROBE_INTERVAL, (int64) asides->hash->members * PROBE_EACH);
	aside->set_in = asides->transaction;
	pairingheap_add(asides->heap, &aside->node);
}

/* Remove an entry.  A rollback of the transaction restores it. */
void
aside_remove(Asides *asides, Aside *aside)
{
	pairingheap_remove(asides->heap, &aside->node);
	aside->gone = true;
	if (!aside->listed)
		slist_push_head(&asides->gone, &aside->gone_node);
	aside->listed = true;
}

/* Return the entry with the earliest probe_at, or NULL if there are no entries. */
Aside *
aside_first(Asides *asides)
{
	if (pairingheap_is_empty(asides->heap))
		return NULL;
	return pairingheap_container(Aside, node, pairingheap_first(asides->heap));
}

/* Free the entries that a committed transaction removed. */
void
asides_commit(Asides *asides)
{
	while (!slist_is_empty(&asides->gone))
	{
		Aside	   *aside = slist_container(Aside, gone_node, slist_pop_head_node(&asides->gone));

		aside->listed = false;
		if (!aside->gone)
			continue;
		asides_delete(asides->hash, aside->subject);
		if (aside->subject.piece != NULL)
		{
			pfree(unconstify(text *, aside->subject.piece));
			pfree(unconstify(text *, aside->subject.account));
		}
		pfree(aside);
	}
	asides->transaction++;
}

/*
 * Undo the removals of a transaction that is rolled back.  Make all entries that
 * the transaction added, deferred or removed due for a probe at once.
 */
void
asides_abort(Asides *asides)
{
	asides_iterator iterator;
	AsideEntry *entry;

	asides_start_iterate(asides->hash, &iterator);
	while ((entry = asides_iterate(asides->hash, &iterator)) != NULL)
	{
		Aside	   *aside = entry->aside;

		if (!aside->listed && aside->set_in != asides->transaction)
			continue;
		if (!aside->gone)
			pairingheap_remove(asides->heap, &aside->node);
		aside->gone = aside->listed = false;
		aside->probe_at = DT_NOBEGIN;
		pairingheap_add(asides->heap, &aside->node);
	}
	slist_init(&asides->gone);
	asides->transaction++;
}
