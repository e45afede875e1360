/*
 * maintenance.c
 *		Does the work of maintain(), with a transaction for each partition and each
 *		part of a table, so that no lock on one partition or part is held while the
 *		next is retired.
 *
 * A leaf is a partition that holds rows.  To retire a leaf is to drop it or,
 * depending on the setting retention_action, to detach it.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/query.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "worker/maintenance.h"
#include "worker/process.h"

/* A leaf to retire, and its parent. */
typedef struct OldLeaf
{
	Oid			leaf;
	Oid			parent;
} OldLeaf;

static SqlQuery list_query = {
	.sql = "SELECT l.leaf, l.parent"
	" FROM postalytics.leaves_to_retire() AS l"
	" WHERE (SELECT postalytics.begin_maintenance())",
	.result = SPI_OK_SELECT
};

/*
 * Return the leaves to retire, as a list in a memory context.  The list is NIL if
 * another maintain() is running.
 */
static List *
list_old_leaves(MemoryContext context)
{
	List	   *leaves = NIL;

	transaction_begin("maintaining");
	query_run(&list_query, NULL, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext caller = MemoryContextSwitchTo(context);
		OldLeaf    *old = palloc(sizeof(OldLeaf));
		bool		isnull;

		old->leaf = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		old->parent = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &isnull));
		leaves = lappend(leaves, old);
		MemoryContextSwitchTo(caller);
	}
	transaction_commit();
	return leaves;
}

static SqlQuery carry_query = {
	.sql = "SELECT postalytics.carry_payloads(i.inhrelid, true)"
	" FROM pg_catalog.pg_inherits AS i"
	" WHERE i.inhrelid = $1"
	"   AND i.inhparent = 'postalytics.events'::pg_catalog.regclass",
	.result = SPI_OK_SELECT,
	.nparameters = 1,
	.types = {OIDOID}
};

static SqlQuery retire_query = {
	.sql = "SELECT"
	" FROM pg_catalog.pg_inherits AS i,"
	"      postalytics.retire_leaf(i.inhrelid, i.inhparent, true) AS r"
	" WHERE i.inhrelid = $1"
	"   AND (SELECT postalytics.begin_maintenance())"
	"   AND r.action = 'failed'",
	.result = SPI_OK_SELECT,
	.nparameters = 1,
	.types = {OIDOID}
};

/*
 * Retire a leaf, in two transactions.  The first copies payloads of events to their
 * unfinished deliveries.  False if retire_leaf() reported a failure.
 */
static bool
retire(const OldLeaf *old)
{
	Datum		leaf = ObjectIdGetDatum(old->leaf);
	bool		retired;

	transaction_begin("maintaining");
	query_run(&carry_query, &leaf, NULL);
	transaction_commit();
	transaction_begin("maintaining");
	query_run(&retire_query, &leaf, NULL);
	retired = SPI_processed == 0;
	transaction_commit();
	return retired;
}

static SqlQuery ahead_query = {
	.sql = "SELECT count(*)"
	" FROM postalytics.create_partitions_ahead()",
	.result = SPI_OK_SELECT
};

static SqlQuery pieces_query = {
	.sql = "SELECT"
	" FROM postalytics.retire_pieces() AS r"
	" WHERE (SELECT postalytics.begin_maintenance())"
	"   AND r.more",
	.result = SPI_OK_SELECT
};

static SqlQuery rejects_query = {
	.sql = "SELECT"
	" FROM postalytics.retire_rejects() AS r"
	" WHERE (SELECT postalytics.begin_maintenance())"
	"   AND r.more",
	.result = SPI_OK_SELECT
};

static SqlQuery links_query = {
	.sql = "SELECT"
	" FROM postalytics.retry_links() AS r (done)"
	" WHERE r.done > 0",
	.result = SPI_OK_SELECT
};

static SqlQuery shrink_query = {
	.sql = "SELECT count(*)"
	" FROM postalytics.shrink_deliveries() AS s"
	" WHERE (SELECT postalytics.begin_maintenance())",
	.result = SPI_OK_SELECT
};

/* Run a query in a separate transaction. */
static void
maintain_by_query(SqlQuery *query)
{
	transaction_begin("maintaining");
	query_run(query, NULL, NULL);
	transaction_commit();
}

/*
 * Run a query that retires part of a table, and returns a row if parts are left.
 * True if parts are left.  Also false if another maintain() is running.
 */
static bool
retire_part(SqlQuery *query)
{
	bool		more;

	transaction_begin("maintaining");
	query_run(query, NULL, NULL);
	more = SPI_processed > 0;
	transaction_commit();
	return more;
}

static void
maintain_by_leaf(MemoryContext context)
{
	List	   *leaves;
	Oid			busy = InvalidOid;
	ListCell   *cell;

	maintain_by_query(&ahead_query);
	leaves = list_old_leaves(context);
	foreach(cell, leaves)
	{
		const OldLeaf *old = lfirst(cell);

		if (old->parent != busy && !retire(old))
			busy = old->parent;
	}
}

/*
 * The steps of maintenance.  STEP_PIECES, STEP_REJECTS and STEP_LINKS are repeated until
 * no parts are left.
 */
typedef enum Step
{
	STEP_LEAVES,
	STEP_PIECES,
	STEP_REJECTS,
	STEP_LINKS,
	STEP_SHRINK,
	N_STEPS
} Step;

/* Run a step, and return the next step; N_STEPS after the last step. */
static Step
take_step(Step step, MemoryContext context)
{
	switch (step)
	{
		case STEP_LEAVES:
			maintain_by_leaf(context);
			return STEP_PIECES;
		case STEP_PIECES:
			return retire_part(&pieces_query) ? step : STEP_REJECTS;
		case STEP_REJECTS:
			return retire_part(&rejects_query) ? step : STEP_LINKS;
		case STEP_LINKS:
			return retire_part(&links_query) ? step : STEP_SHRINK;
		default:
			maintain_by_query(&shrink_query);
			return N_STEPS;
	}
}

static SqlQuery log_action_query = {
	.sql = "SELECT postalytics.log_maintenance('failed', 'maintain', $1)",
	.result = SPI_OK_SELECT,
	.nparameters = 1,
	.types = {TEXTOID}
};

static void
log_failure(const char *message)
{
	Datum		values[1];

	transaction_begin("logging an error");
	values[0] = CStringGetTextDatum(message);
	query_run(&log_action_query, values, NULL);
	transaction_commit();
}

/*
 * Run the next step of maintenance, and set *more to whether other steps follow.
 * The worker sends notifications between the steps.  An error is logged, and the
 * next call continues with the following step.  Returns the error message, to be
 * freed by the caller, or NULL if there was no error.
 */
char *
run_maintenance(bool *more)
{
	static Step step = STEP_LEAVES;
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "postalytics maintenance",
												  ALLOCSET_SMALL_SIZES);
	char	   *volatile failure = NULL;

	PG_TRY();
	{
		step = take_step(step, context);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		EmitErrorReport();
		FlushErrorState();
		AbortCurrentTransaction();
		failure = MemoryContextStrdup(TopMemoryContext, error->message);
		log_failure(failure);
		step++;
	}
	PG_END_TRY();
	*more = step != N_STEPS;
	if (!*more)
		step = STEP_LEAVES;
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return failure;
}
