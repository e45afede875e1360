/*
 * verdict.c
 *		Decides what to do with a delivery that is due (lease, postpone, give up,
 *		supersede, cancel), and locks it.
 *
 * These decisions are called verdicts.  look.c finds the deliveries, and fetch.c
 * applies the verdicts.  In an ordered sync, only the head of a piece, its
 * earliest waiting or leased delivery, can be leased.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/table.h"
#include "base/compat.h"
#include "base/query.h"
#include "base/text.h"
#include "catalog/pg_type.h"
#include "journey/piece.h"
#include "sync/subject.h"
#include "sync/verdict.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* ---- leases of pieces, for latest_only ---- */

typedef struct PieceLease
{
	Subject		piece;
	bool		is_leased;		/* a delivery of the piece is leased */
	DeliveryRow lease;			/* the first leased delivery */
	char		status;			/* for simplehash */
} PieceLease;

#define SH_PREFIX		leases
#define SH_ELEMENT_TYPE PieceLease
#define SH_KEY_TYPE		Subject
#define SH_KEY			piece
#define SH_HASH_KEY(tb, key) hash_subject(key)
#define SH_EQUAL(tb, a, b) equal_subjects(a, b)
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/*
 * True if an earlier delivery of a row's piece is leased.  The leases of a piece
 * are searched for only once in a look, because a piece can have thousands of
 * deliveries that this transaction has superseded.
 */
static bool
has_earlier_lease(Judge *judge, const DeliveryRow *row)
{
	bool		found;
	PieceLease *entry;

	if (judge->leases == NULL)
		judge->leases = leases_create(CurrentMemoryContext, 256, NULL);
	entry = leases_insert(judge->leases,
						  piece_subject(DatumGetTextPP(row->piece), DatumGetTextPP(row->account)),
						  &found);
	if (!found)
	{
		entry->piece = copy_subject(entry->piece);
		entry->is_leased = find_lease(&judge->siblings, row, judge->now, &entry->lease);
	}
	return entry->is_leased && is_before(&entry->lease, row);
}

/* ---- the judge ---- */

/*
 * Prepare to decide on deliveries of a sync, with the active snapshot.  place
 * is as for siblings_begin.  Errors: 55000 if a table or index was altered.
 */
void
judge_begin(Judge *judge, const Sync *sync, TimestampTz now, Relation unfinished, Place *place, Found *found)
{
	memset(judge, 0, sizeof(*judge));
	judge->sync = sync;
	judge->now = now;
	judge->unfinished = unfinished;
	judge->found = found;
	siblings_begin(&judge->siblings, unfinished, cstring_to_text(sync->name), place);
	if (sync->unless != 0)
	{
		judge->pieces = open_pieces(AccessShareLock);
		lookup_begin(&judge->key, judge->pieces, compat_primary_key(judge->pieces), GetActiveSnapshot(), 2);
	}
	judge->locked = table_slot_create(unfinished, NULL);
}

void
judge_end(Judge *judge)
{
	ExecDropSingleTupleTableSlot(judge->locked);
	siblings_end(&judge->siblings);
	if (judge->pieces != NULL)
	{
		lookup_end(&judge->key);
		table_close(judge->pieces, NoLock);
	}
}

/*
 * True if a delivery can be leased only while it is the head of its piece.  This
 * applies to ordered syncs without latest_only, but not to tests.
 */
bool
waits_in_order(const Sync *sync, bool is_test)
{
	return sync->ordered && !sync->latest_only && !is_test;
}

/* Parameters of account_query. */
enum
{
	ACCOUNT_SYNC, ACCOUNT_ACCOUNT, N_ACCOUNT
};

static SqlQuery account_query = {
	.sql = "SELECT"
	" FROM postalytics.syncs AS s"
	" WHERE s.name = $1"
	"   AND (s.accounts IS NULL OR $2 = ANY (s.accounts))",
	.result = SPI_OK_SELECT,
	.nparameters = N_ACCOUNT,
	.types = {[ACCOUNT_SYNC] = TEXTOID,[ACCOUNT_ACCOUNT] = TEXTOID}
};

/*
 * True if the sync includes the account of a delivery.  If the cached sync does
 * not, check the table, because a transaction that changes the sync and the
 * delivery becomes visible before other sessions invalidate their caches.
 */
static bool
sync_includes_account(Judge *judge, const DeliveryRow *row)
{
	text	   *account = DatumGetTextPP(row->account);
	Datum		values[N_ACCOUNT] = {
		[ACCOUNT_SYNC] = judge->siblings.sync,
		[ACCOUNT_ACCOUNT] = row->account
	};
	bool		found;

	if (is_listed(&judge->sync->accounts, VARDATA_ANY(account), VARSIZE_ANY_EXHDR(account)))
		return true;
	query_run(&account_query, values, NULL);
	found = SPI_processed > 0;
	SPI_freetuptable(SPI_tuptable);
	return found;
}

/*
 * True if the piece of a delivery has reached a status that cancels the sync's
 * deliveries, or if the sync no longer includes the account.  In the latter case,
 * workers of the sync must not see the delivery.
 */
static bool
is_cancelled(Judge *judge, const DeliveryRow *row)
{
	if (!sync_includes_account(judge, row))
		return true;
	if (judge->sync->unless == 0)
		return false;
	lookup_key(&judge->key, 0, 1, BTEqualStrategyNumber, row->piece);
	lookup_key(&judge->key, 1, 2, BTEqualStrategyNumber, row->account);
	return lookup_first(&judge->key) && piece_has_reached(judge->key.slot, judge->sync->unless);
}

/* Return the verdict on a delivery that is due and not leased. */
static Verdict
decide(Judge *judge, const DeliveryRow *row)
{
	const Sync *sync = judge->sync;

	if (row->is_test && row->attempt < sync->max_attempts)
		return sync_includes_account(judge, row) ? LEASE : CANCEL;
	if (row->attempt >= sync->max_attempts)
		return GIVE_UP;
	if (sync->latest_only &&
		(has_later_unfinished(&judge->siblings, row) || has_later_finished(&judge->siblings, row)))
		return SUPERSEDE;
	return is_cancelled(judge, row) ? CANCEL : LEASE;
}

/*
 * Lock a row, given its ctid, without waiting.  False if another transaction has
 * locked or changed the row.
 */
static bool
lock_delivery(Judge *judge, ItemPointer place)
{
	bool		locked = lock_row(judge->unfinished, place, LockTupleExclusive, LockWaitSkip, judge->locked);

	ExecClearTuple(judge->locked);
	return locked;
}

/* Add a locked row to found.  postpone_to is used only by POSTPONE. */
static void
add_found(Judge *judge, Verdict verdict, ItemPointer place, TimestampTz postpone_to)
{
	Found	   *found = judge->found;
	int			nth = found->verdict[verdict].count++;
	ItemPointer copy = palloc(sizeof(ItemPointerData));

	if (nth == found->verdict[verdict].size)
	{
		int			size = found->verdict[verdict].size = nth == 0 ? 64 : 2 * nth;

		if (nth == 0)
		{
			found->verdict[verdict].tids = palloc(size * sizeof(Datum));
			found->verdict[verdict].times = palloc(size * sizeof(Datum));
		}
		found->verdict[verdict].tids = repalloc(found->verdict[verdict].tids, size * sizeof(Datum));
		found->verdict[verdict].times = repalloc(found->verdict[verdict].times, size * sizeof(Datum));
	}
	ItemPointerCopy(place, copy);
	found->verdict[verdict].tids[nth] = PointerGetDatum(copy);
	found->verdict[verdict].times[nth] = TimestampTzGetDatum(postpone_to);
	found->count++;
}

/* Return the outcome for a delivery that stays until a time; see Outcome. */
static Outcome
stays_until(int64 id, TimestampTz until)
{
	return (Outcome)
	{
		.stays = true,.until = until,.id = id
	};
}

/*
 * Decide on a delivery that is due, lock it, and add it to found.  place is its
 * ctid.
 *
 * The delivery stays if its lease has not expired, if it is to be leased now, or
 * if another transaction has locked or changed it.  In an ordered sync with
 * latest_only, it also stays if an earlier delivery of its piece is leased.
 */
Outcome
judge_delivery(Judge *judge, const DeliveryRow *row, ItemPointer place)
{
	Verdict		verdict;

	if (row->lease_until > judge->now)
		return stays_until(row->id, row->lease_until);
	if (judge->sync->ordered && judge->sync->latest_only && !row->is_test && has_earlier_lease(judge, row))
		return stays_until(row->id, DT_NOBEGIN);
	verdict = decide(judge, row);
	if (!lock_delivery(judge, place))
		return stays_until(row->id, DT_NOBEGIN);
	add_found(judge, verdict, place, 0);
	if (verdict == LEASE)
		return stays_until(row->id, DT_NOBEGIN);
	return (Outcome)
	{
		.id = row->id
	};
}

/*
 * Postpone the due deliveries of a piece until its head is due, so that the next
 * looks do not visit them again.  The piece stays if some of these deliveries are
 * leased or locked.
 */
static Outcome
postpone_piece(Judge *judge, const DeliveryRow *head)
{
	Outcome		outcome = {.id = head->id};
	DeliveryRow each;

	siblings_seek(&judge->siblings, head->piece, head->account, head->occurred_at);
	while (siblings_next(&judge->siblings, &each))
	{
		ItemPointerData place = judge->siblings.lookup.slot->tts_tid;

		if (each.due_at > judge->now)
			continue;
		if (each.lease_until <= judge->now && lock_delivery(judge, &place))
			add_found(judge, POSTPONE, &place, head->due_at);
		else
			outcome = stays_until(each.id, DT_NOBEGIN);
	}
	return outcome;
}

/*
 * Decide on the head of a piece of an ordered sync, and lock it.  If the head is
 * not due, postpone the due deliveries of the piece until the head is due.
 *
 * The outcome's id is 0 if the piece has no head.  If the head is due, the piece
 * always stays, because its other deliveries may be due.
 */
Outcome
judge_piece(Judge *judge, Datum piece, Datum account)
{
	DeliveryRow head;
	ItemPointerData place;

	if (!find_head(&judge->siblings, piece, account, &head, &place))
		return (Outcome)
	{
		.id = 0
	};
	if (head.due_at > judge->now)
		return postpone_piece(judge, &head);
	(void) judge_delivery(judge, &head, &place);
	return stays_until(head.id, DT_NOBEGIN);
}
