/*
 * place.c
 *		Computes where a session's scans for the due deliveries of a sync begin.
 *
 * A look is one scan of deliveries_unfinished_due_idx for due deliveries of a
 * sync (look.c).  A scan from the first index entry reads the entries of all
 * deliveries that were finished since the oldest snapshot was taken, because
 * VACUUM cannot remove them.  So a session remembers a place for each sync: the
 * position in the index before which there is nothing to lease, except what is
 * put aside (aside.c).  The place takes account of:
 *
 * - Deliveries that other transactions have not committed yet.  The writers are
 *   the transactions that hold the lock of due_clock (due.c).  A place does not
 *   pass the time at which the writers were listed until each of them has ended
 *   or is parked.  A writer that does not end soon is parked.  When it ends, the
 *   place goes back to where it was when the writer was parked.
 * - Deliveries that are leased, locked, or blocked by another delivery of their
 *   piece.  They are obstacles, which a place does not pass.  An obstacle that
 *   does not go away soon is put aside.
 * - Changes that this transaction has made.  If the transaction is rolled back,
 *   the place goes back to where it was before the transaction's first look.
 *
 * From time to time a look begins at the first entry, which is called a full
 * scan, so that a due_at changed by hand, or a change of the system clock, does
 * not delay a delivery indefinitely.  The more entries a full scan reads in vain,
 * the later the next full scan starts.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "base/compat.h"
#include "sync/due.h"
#include "sync/place.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* These are in microseconds. */
#define PATIENCE		100000	/* time before an obstacle is put aside, or a
								 * writer is parked */
#define LIST_INTERVAL	10000	/* minimum time between two lists of writers */
#define FULL_EACH		100		/* delay of the next full scan for each entry
								 * read in vain; reading an entry takes about
								 * 1, so full scans take about 1 % of the time */

/*
 * If a full scan reads no more entries in vain than this, the next look is a full
 * scan, too.
 */
#define FEW_ENTRIES		100

static const DueKey first_key = {DT_NOBEGIN, DT_NOBEGIN, 0};

static MemoryContext places_context;
static Place *places;
static Place *used_places;
static uint64 places_generation;	/* Sync.generation of the syncs to which
									 * places belong */
static bool places_kept;

int
compare_due_keys(const DueKey *a, const DueKey *b)
{
	if (a->due_at != b->due_at)
		return a->due_at < b->due_at ? -1 : 1;
	if (a->occurred_at != b->occurred_at)
		return a->occurred_at < b->occurred_at ? -1 : 1;
	return a->id < b->id ? -1 : a->id > b->id;
}

static DueKey
earlier_key(const DueKey *a, const DueKey *b)
{
	return compare_due_keys(a, b) < 0 ? *a : *b;
}

static void
start_over(Place *place)
{
	place->start = place->saved = first_key;
	place->visible_before = DT_NOBEGIN;
	place->full_at = DT_NOBEGIN;
	place->clock = place->listed_at = 0;
	place->nwriters = 0;
	place->nparked = 0;
	place->met_at = DT_NOEND;
}

/* ---- the ends of transactions ---- */

/* Keep the results of this transaction's looks. */
static void
commit_places(void)
{
	for (Place *place = used_places; place != NULL; place = place->next_used)
	{
		asides_commit(&place->asides);
		place->used = false;
	}
	used_places = NULL;
}

/* Move the places back to where they were before this transaction's first look. */
static void
abort_places(void)
{
	for (Place *place = used_places; place != NULL; place = place->next_used)
	{
		asides_abort(&place->asides);
		place->start = place->saved;
		place->used = false;
	}
	used_places = NULL;
}

static void
places_transaction_ended(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
			commit_places();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
			places_kept = false;
			abort_places();
			break;
		case XACT_EVENT_PREPARE:

			/*
			 * The prepared transaction can still be rolled back.  Its own
			 * deliveries, which were visible to its looks, become invisible
			 * until it is committed.
			 */
			abort_places();
			for (Place *place = places; place != NULL; place = place->next)
				start_over(place);
			break;
		default:
			break;
	}
}

static void
places_subtransaction_ended(SubXactEvent event, SubTransactionId id, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB && !places_kept)
		abort_places();
}

/*
 * Set whether the rollback of a subtransaction leaves the places unchanged.  Only
 * for use around the rollback of a subtransaction that has changed nothing.  The
 * abort of a transaction resets this to false.
 */
void
keep_places(bool keep)
{
	places_kept = keep;
}

/* ---- the places ---- */

static Place *
create_place(const Sync *sync)
{
	Place	   *place = MemoryContextAllocZero(places_context, sizeof(Place));

	strlcpy(place->sync, sync->name, NAMEDATALEN);
	start_over(place);
	asides_init(&place->asides, places_context);
	place->next = places;
	places = place;
	return place;
}

/*
 * Remove all places, because the syncs have changed.  The first call registers
 * the transaction callbacks.
 */
static void
forget_places(void)
{
	if (places_context == NULL)
	{
		RegisterXactCallback(places_transaction_ended, NULL);
		RegisterSubXactCallback(places_subtransaction_ended, NULL);
	}
	else
		MemoryContextDelete(places_context);
	places = used_places = NULL;
	places_context = AllocSetContextCreate(TopMemoryContext, "postalytics places", ALLOCSET_SMALL_SIZES);
}

/*
 * Return the place of a sync, creating it if necessary.
 *
 * NULL if every scan must begin at the first entry: in REPEATABLE READ and
 * SERIALIZABLE transactions, whose snapshot may be older than the place, and
 * during recovery, when the locks of writers cannot be seen.
 */
Place *
find_place(const Sync *sync)
{
	Place	  **link;

	if (IsolationUsesXactSnapshot() || RecoveryInProgress())
		return NULL;
	if (places_context == NULL || places_generation != sync->generation)
	{
		forget_places();
		places_generation = sync->generation;
	}
	for (link = &places; *link != NULL; link = &(*link)->next)
	{
		Place	   *place = *link;

		if (strcmp(place->sync, sync->name) != 0)
			continue;
		*link = place->next;	/* move the place to the front, where the next
								 * search finds it */
		place->next = places;
		return places = place;
	}
	return create_place(sync);
}

/* Remove the writers that have ended from place->writers. */
static void
remove_ended_writers(Place *place)
{
	int			left = 0;

	for (int i = 0; i < place->nwriters; i++)
		if (!VirtualXactLock(place->writers[i], false))
			place->writers[left++] = place->writers[i];
	place->nwriters = left;
}

/*
 * If parked writers have ended, move the place back to where it was when they
 * were parked, and return true.  The caller must then take a new snapshot,
 * because its old snapshot may not include the deliveries of these writers.
 */
bool
go_back(Place *place)
{
	bool		went_back = false;

	for (int i = place->nparked - 1; i >= 0; i--)
	{
		if (!VirtualXactLock(place->parked[i].writer, false))
			continue;
		place->start = earlier_key(&place->start, &place->parked[i].start);
		place->saved = earlier_key(&place->saved, &place->start);
		place->parked[i] = place->parked[--place->nparked];
		went_back = true;
	}
	return went_back;
}

static void
park(Place *place, VirtualTransactionId writer)
{
	Size		size = (place->nparked + 1) * sizeof(Parked);

	place->parked = place->parked == NULL ? MemoryContextAlloc(places_context, size) :
		repalloc(place->parked, size);
	place->parked[place->nparked++] = (Parked)
	{
		writer, place->start
	};
}

static bool
is_parked(const Place *place, VirtualTransactionId writer)
{
	for (int i = 0; i < place->nparked; i++)
		if (VirtualTransactionIdEquals(place->parked[i].writer, writer))
			return true;
	return false;
}

/* List the current writers, except parked ones, for advance_visible. */
static void
list_writers(Place *place)
{
	TimestampTz clock = GetCurrentTimestamp();
	VirtualTransactionId *writers;
	VirtualTransactionId *copy;
	int			count;

	writers = due_writers(&count);
	copy = MemoryContextAlloc(places_context, Max(count, 1) * sizeof(VirtualTransactionId));
	if (place->writers != NULL)
		pfree(place->writers);
	place->writers = copy;
	for (int i = 0; i < count; i++)
		if (!is_parked(place, writers[i]))
			place->writers[place->nwriters++] = writers[i];
	place->clock = place->listed_at = clock;
	pfree(writers);
}

/*
 * Advance visible_before if all listed writers have ended or are parked.  Park
 * those that have not ended within PATIENCE.
 */
static void
advance_visible(Place *place, TimestampTz now)
{
	if (place->clock == 0)
		return;
	remove_ended_writers(place);
	if (now - place->clock > PATIENCE)
		while (place->nwriters > 0)
			park(place, place->writers[--place->nwriters]);
	if (place->nwriters > 0)
		return;
	place->visible_before = place->clock;
	place->clock = 0;
}

/*
 * Begin a look.  The caller takes its snapshot after this call, and calls go_back
 * after it has taken the snapshot.  True if the scan must begin at the first
 * entry rather than at place->start.
 */
bool
begin_at_place(Place *place, TimestampTz now)
{
	if (now < place->looked_at)
	{
		/*
		 * The clock was set back, so any delivery may be due before
		 * visible_before.
		 */
		MemoryContextDelete(place->asides.context);
		asides_init(&place->asides, places_context);
		start_over(place);
	}
	place->looked_at = now;
	if (!place->used)
	{
		place->saved = place->start;
		place->next_used = used_places;
		used_places = place;
		place->used = true;
	}
	advance_visible(place, now);
	if (place->clock == 0 && now - place->listed_at >= LIST_INTERVAL)
	{
		list_writers(place);
		advance_visible(place, now);
	}
	return now >= place->full_at;
}

/*
 * True if a delivery is known to be finished, because it is before the place of
 * its sync, and neither the delivery nor its piece is put aside.
 */
bool
is_before_place(Place *place, const DueKey *key, const text *piece, const text *account)
{
	return compare_due_keys(key, &place->start) < 0 &&
		aside_find(&place->asides, piece_subject(piece, account)) == NULL &&
		aside_find(&place->asides, delivery_subject(key->id)) == NULL;
}

/*
 * If a piece is put aside, make the next look probe it.  Called when this session
 * ends the lease of a delivery of the piece.
 */
void
look_again_at(const Sync *sync, const text *piece, const text *account)
{
	Place	   *place = find_place(sync);
	Aside	   *aside = place == NULL ? NULL : aside_find(&place->asides, piece_subject(piece, account));

	if (aside != NULL)
		aside_defer(&place->asides, aside, 0, 0);
}

/*
 * True if the subject of an entry should be put aside: the obstacle was first met
 * longer ago than PATIENCE, and the scan that met it also reached this entry.
 */
bool
is_old_obstacle(const Place *place, const DueKey *key, TimestampTz now)
{
	return now - PATIENCE > place->met_at && compare_due_keys(key, &place->behind) <= 0;
}

/*
 * End a look, and compute where the next look begins.  obstacle is the first entry
 * that must be visited again, or NULL if there is none.  end is the last entry
 * that was read, or a key after all due entries if the scan read all of them.
 * from_start is true if the scan began at the first entry.  passed is the number
 * of entries that were read in vain, because they lead to no visible row or to a
 * delivery that is leased (also by this look), locked or blocked.
 */
void
end_at_place(Place *place, TimestampTz now, const DueKey *obstacle, const DueKey *end,
			 bool from_start, int64 passed)
{
	DueKey		visible_before = {place->visible_before, DT_NOBEGIN, 0};
	DueKey		next = *end;

	if (obstacle != NULL)
		next = *obstacle;
	else if (from_start && compare_due_keys(end, &place->start) < 0)
		next = place->start;
	place->start = earlier_key(&next, &visible_before);
	place->saved = earlier_key(&place->saved, &place->start);
	if (from_start)
		place->full_at = passed <= FEW_ENTRIES ? now : now + passed * FULL_EACH;
	if (obstacle == NULL)
		place->met_at = DT_NOEND;
	else if (place->met_at == DT_NOEND || compare_due_keys(obstacle, &place->obstacle) != 0)
	{
		place->obstacle = *obstacle;
		place->behind = *end;
		place->met_at = now;
	}
}
