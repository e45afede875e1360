/*
 * tally.c
 *		Counts the attempts, successes and failures of a session.
 *
 * A row for each ack would cost as much as the ack itself.  So a session counts in
 * memory, in one tally per sync.  fetch, ack and nack write the counts of a tally
 * as a row if its last row is at least FLUSH_INTERVAL old.  The first EARLY_FLUSHES
 * rows are written at once, for the sake of short sessions.  Counts that have not
 * been written when the session ends are lost.
 *
 * The counts of a transaction that is rolled back are discarded, except by
 * ROLLBACK PREPARED.  The rollback of a savepoint also discards the transaction's
 * other unwritten counts.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "base/query.h"
#include "catalog/pg_type.h"
#include "sync/tally.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include <math.h>

#define FLUSH_INTERVAL	(10 * USECS_PER_SEC)
#define EARLY_FLUSHES	20

/* The last bucket is for latencies of about a year or more. */
#define N_BUCKETS		140

typedef struct Counts
{
	int			attempts;
	int			successes;
	int			failures;
	int			latencies[N_BUCKETS];
} Counts;

typedef struct Tally
{
	char		sync[NAMEDATALEN];
	struct Tally *next;
	TimestampTz flushed_at;
	int			flushes;
	Counts		pending;		/* committed, not written yet */
	Counts		current;		/* of this transaction, not written yet */
	Counts		written;		/* pending counts that this transaction has
								 * written */
	int			written_at;		/* nesting level of the transaction that wrote
								 * them */
} Tally;

static Tally *tallies;
static bool changed;			/* this transaction has used a tally */
static bool tallies_kept;

static void
add_counts(Counts *sum, const Counts *counts)
{
	sum->attempts += counts->attempts;
	sum->successes += counts->successes;
	sum->failures += counts->failures;
	for (int i = 0; i < N_BUCKETS; i++)
		sum->latencies[i] += counts->latencies[i];
}

static void
tally_transaction_ended(XactEvent event, void *arg)
{
	bool		committed = event == XACT_EVENT_COMMIT || event == XACT_EVENT_PREPARE;

	tallies_kept = false;
	if (!changed || (!committed && event != XACT_EVENT_ABORT))
		return;
	for (Tally *tally = tallies; tally != NULL; tally = tally->next)
	{
		add_counts(&tally->pending, committed ? &tally->current : &tally->written);
		memset(&tally->current, 0, sizeof(Counts));
		memset(&tally->written, 0, sizeof(Counts));
		tally->written_at = 0;
	}
	changed = false;
}

/*
 * Discard the counts of the whole transaction when a subtransaction is rolled back,
 * because it is not known which counts belong to the subtransaction.  Counts that
 * the subtransaction had written become pending again.
 */
static void
tally_subtransaction_ended(SubXactEvent event, SubTransactionId id, SubTransactionId parent, void *arg)
{
	if (!changed || tallies_kept || event != SUBXACT_EVENT_ABORT_SUB)
		return;
	for (Tally *tally = tallies; tally != NULL; tally = tally->next)
	{
		memset(&tally->current, 0, sizeof(Counts));
		if (tally->written_at < GetCurrentTransactionNestLevel())
			continue;
		add_counts(&tally->pending, &tally->written);
		memset(&tally->written, 0, sizeof(Counts));
		tally->written_at = 0;
	}
}

/*
 * Set whether the rollback of a subtransaction leaves the counts unchanged, as
 * keep_places does for places.
 */
void
keep_tallies(bool keep)
{
	tallies_kept = keep;
}

/*
 * Return the tally of a sync, and create it if necessary.  Also sets changed.
 */
static Tally *
get_tally(const Sync *sync)
{
	Tally	   *tally;

	changed = true;
	for (tally = tallies; tally != NULL; tally = tally->next)
		if (strcmp(tally->sync, sync->name) == 0)
			return tally;
	if (tallies == NULL)
	{
		RegisterXactCallback(tally_transaction_ended, NULL);
		RegisterSubXactCallback(tally_subtransaction_ended, NULL);
	}
	tally = MemoryContextAllocZero(TopMemoryContext, sizeof(Tally));
	strlcpy(tally->sync, sync->name, NAMEDATALEN);
	tally->next = tallies;
	return tallies = tally;
}

void
tally_attempts(const Sync *sync, int count)
{
	get_tally(sync)->current.attempts += count;
}

/* Count a success, and its latency: the time since the delivery was created. */
void
tally_success(const Sync *sync, TimestampTz created_at, TimestampTz now)
{
	Counts	   *counts = &get_tally(sync)->current;
	double		milliseconds = Max((now - created_at) / 1000.0, 1.0);

	counts->successes++;
	counts->latencies[Min((int) (4 * log2(milliseconds)), N_BUCKETS - 1)]++;
}

void
tally_failures(const Sync *sync, int count)
{
	get_tally(sync)->current.failures += count;
}

/* Parameters of insert_tally_query. */
enum
{
	TALLY_SYNC, TALLY_AT, TALLY_ATTEMPTS, TALLY_SUCCESSES, TALLY_FAILURES, TALLY_BUCKETS, TALLY_COUNTS,
	N_TALLY
};

static SqlQuery insert_tally_query = {
	.sql = "INSERT INTO postalytics.tallies (sync, at, attempts, successes, failures, buckets, counts)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7)",
	.result = SPI_OK_INSERT,
	.nparameters = N_TALLY,
	.types = {
		[TALLY_SYNC] = TEXTOID,
		[TALLY_AT] = TIMESTAMPTZOID,
		[TALLY_ATTEMPTS] = INT4OID,
		[TALLY_SUCCESSES] = INT4OID,
		[TALLY_FAILURES] = INT4OID,
		[TALLY_BUCKETS] = INT2ARRAYOID,
		[TALLY_COUNTS] = INT4ARRAYOID
	}
};

static void
insert_counts(const char *sync, const Counts *counts, TimestampTz now)
{
	Datum		buckets[N_BUCKETS];
	Datum		in_buckets[N_BUCKETS];
	int			n = 0;

	for (int i = 0; i < N_BUCKETS; i++)
	{
		if (counts->latencies[i] == 0)
			continue;
		buckets[n] = Int16GetDatum(i);
		in_buckets[n++] = Int32GetDatum(counts->latencies[i]);
	}
	{
		Datum		values[N_TALLY] = {
			[TALLY_SYNC] = CStringGetTextDatum(sync),
			[TALLY_AT] = TimestampTzGetDatum(now),
			[TALLY_ATTEMPTS] = Int32GetDatum(counts->attempts),
			[TALLY_SUCCESSES] = Int32GetDatum(counts->successes),
			[TALLY_FAILURES] = Int32GetDatum(counts->failures),
			[TALLY_BUCKETS] = PointerGetDatum(construct_array(buckets, n, INT2OID, 2, true, TYPALIGN_SHORT)),
			[TALLY_COUNTS] = PointerGetDatum(construct_array(in_buckets, n, INT4OID, 4, true, TYPALIGN_INT))
		};

		query_run(&insert_tally_query, values, NULL);
	}
}

/*
 * Write the counts of a sync, unless its last row is too recent.  Needs an SPI
 * connection and the owner's rights.
 */
void
tally_flush(const Sync *sync)
{
	TimestampTz now = GetCurrentTimestamp();
	Tally	   *tally = get_tally(sync);
	Counts		sum = tally->pending;

	/* A rollback of this subtransaction would not undo the earlier rows. */
	if (tally->written_at != 0 && GetCurrentTransactionNestLevel() > tally->written_at)
		return;
	if (tally->flushes >= EARLY_FLUSHES && now - tally->flushed_at < FLUSH_INTERVAL &&
		now >= tally->flushed_at)
		return;
	add_counts(&sum, &tally->current);
	if (sum.attempts == 0 && sum.successes == 0 && sum.failures == 0)
		return;
	insert_counts(sync->name, &sum, now);
	add_counts(&tally->written, &tally->pending);
	tally->written_at = GetCurrentTransactionNestLevel();
	memset(&tally->pending, 0, sizeof(Counts));
	memset(&tally->current, 0, sizeof(Counts));
	tally->flushed_at = now;
	tally->flushes = Min(tally->flushes + 1, EARLY_FLUSHES);
}
