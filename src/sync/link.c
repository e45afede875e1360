/*
 * link.c
 *		Writes the status of pieces into linked contacts, in the transaction that stores
 *		their events.
 *
 * Ingest neither fails nor waits because of a contact.  Rows that another transaction has
 * locked are skipped, and an error is logged.  In both cases, the pieces are kept in
 * pending_links, which is a queue: ingest and maintain() lock some of its rows, first those
 * without an error and then those whose last error is longest ago, write their pieces, and
 * delete exactly these rows.  It has no unique key, so a piece can be added again while
 * another transaction is trying it, and the insertion does not wait.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "base/extension.h"
#include "base/query.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "sync/delivery.h"
#include "sync/link.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

struct LinkWriter
{
	MemoryContext context;
	TupleDesc	tupdesc;		/* of a piece: piece_id, account */
	Tuplestorestate *pieces;
	int64		count;
};

/* Time after an error during which ingest does not try a pending piece again. */
#define ERROR_PAUSE		USECS_PER_MINUTE

/* Maximum length of an error message or detail in the server log, in bytes. */
#define MAX_MESSAGE		1000

static LinkWriter *
create_writer(MemoryContext parent)
{
	MemoryContext caller = MemoryContextSwitchTo(parent);
	LinkWriter *writer = palloc0(sizeof(LinkWriter));

	writer->context = parent;
	writer->tupdesc = CreateTemplateTupleDesc(2);
	TupleDescInitEntry(writer->tupdesc, 1, "piece_id", TEXTOID, -1, 0);
	TupleDescInitEntry(writer->tupdesc, 2, "account", TEXTOID, -1, 0);
	TupleDescInitEntryCollation(writer->tupdesc, 1, C_COLLATION_OID);
	TupleDescInitEntryCollation(writer->tupdesc, 2, C_COLLATION_OID);
	compat_finish_tupdesc(writer->tupdesc);
	writer->pieces = tuplestore_begin_heap(false, false, work_mem);
	MemoryContextSwitchTo(caller);
	return writer;
}

static void
add_piece(LinkWriter *writer, Datum piece, Datum account)
{
	Datum		values[] = {piece, account};
	bool		nulls[] = {false, false};

	tuplestore_putvalues(writer->pieces, writer->tupdesc, values, nulls);
	writer->count++;
}

/* Return a column of a result row.  The value must not be NULL. */
static Datum
result_value(SPITupleTable *rows, uint64 i, int column)
{
	bool		isnull;

	return SPI_getbinval(rows->vals[i], rows->tupdesc, column, &isnull);
}

/* Return the pieces that the update skipped, which are its result rows after the first. */
static LinkWriter *
skipped_pieces(SPITupleTable *result, MemoryContext context)
{
	LinkWriter *skipped = create_writer(context);

	for (uint64 i = 1; i < result->numvals; i++)
		add_piece(skipped, result_value(result, i, 2), result_value(result, i, 3));
	return skipped;
}

/* ---- errors ---- */

/* Parameters of log_query. */
enum
{
	LOG_CONTACTS, LOG_DETAIL, N_LOG
};

static SqlQuery log_query = {
	.sql = "SELECT postalytics.log_maintenance('not linked', $1, $2)"
	" WHERE NOT EXISTS (SELECT"
	"                   FROM postalytics.maintenance_log AS l"
	"                   WHERE l.relation = $1"
	"                     AND l.action = 'not linked'"
	"                     AND l.at > now() - '1 hour'::interval)",
	.result = SPI_OK_SELECT,
	.nparameters = N_LOG,
	.types = {[LOG_CONTACTS] = TEXTOID,[LOG_DETAIL] = TEXTOID}
};

/* Return a message without its end if it is long.  It may be NULL. */
static const char *
clipped(const char *message)
{
	if (message == NULL)
		return "";
	return pnstrdup(message, pg_mbcliplen(message, strlen(message), MAX_MESSAGE));
}

/*
 * Report an error of the contacts, at most once an hour for each link.  Its text may
 * contain their data, so it is written only to the server log.
 */
static void
log_failure(const Link *link, const ErrorData *error)
{
	Datum		values[N_LOG] = {
		[LOG_CONTACTS] = CStringGetTextDatum(link->name),
		[LOG_DETAIL] = CStringGetTextDatum(psprintf("error %s; see the server log", unpack_sql_state(error->sqlerrcode)))
	};

	query_run(&log_query, values, NULL);
	if (SPI_processed > 0)
		ereport(LOG_SERVER_ONLY,
				(errcode(error->sqlerrcode),
				 errmsg("could not write the status of pieces into relation \"%s\": %s", link->name, clipped(error->message)),
				 error->detail != NULL ? errdetail_internal("%s", clipped(error->detail)) : 0,
				 errhint("Remove the cause, or call %s.unlink_contacts. Until then, the pieces are in %s.pending_links and are tried again.",
						 EXTENSION_SCHEMA, EXTENSION_SCHEMA)));
}

/*
 * Try to update the contacts of a link from the pieces of a writer.  Returns the error, or
 * NULL if there was none; then SPI_tuptable is as update_contacts leaves it.  If the
 * caller's query is canceled, the error is rethrown.  Code of the contacts can raise an
 * error with the same SQLSTATE, so the function that raised it is compared, too.
 */
static ErrorData *
try_update(const Link *link, LinkWriter *writer)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;
	ErrorContextCallback *contexts = error_context_stack;
	const char *query = debug_query_string;

	register_rowset("linked_pieces", writer->tupdesc, writer->pieces, writer->count);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		/*
		 * Hide the caller's statement, which can contain other accounts'
		 * data.
		 */
		error_context_stack = NULL;
		debug_query_string = NULL;
		(void) update_contacts(link, writer->count);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	error_context_stack = contexts;
	debug_query_string = query;
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	SPI_unregister_relation("linked_pieces");
	if (error != NULL && error->sqlerrcode == ERRCODE_QUERY_CANCELED &&
		error->funcname != NULL && strcmp(error->funcname, "ProcessInterrupts") == 0)
		ReThrowError(error);
	return error;
}

/* ---- pending pieces ---- */

/* Parameters of keep_query. */
enum
{
	KEEP_CONTACTS, KEEP_FAILED_AT, N_KEEP
};

static SqlQuery keep_query = {
	.sql = "INSERT INTO postalytics.pending_links (contacts, piece_id, account, failed_at)"
	" SELECT $1, k.piece_id, k.account, $2"
	" FROM linked_pieces AS k",
	.result = SPI_OK_INSERT,
	.nparameters = N_KEEP,
	.types = {[KEEP_CONTACTS] = TEXTOID,[KEEP_FAILED_AT] = TIMESTAMPTZOID}
};

/*
 * Add the pieces of a writer to pending_links.  failed_at is DT_NOBEGIN unless an error
 * occurred.
 */
static void
keep_pieces(const Link *link, LinkWriter *writer, TimestampTz failed_at)
{
	Datum		values[N_KEEP] = {
		[KEEP_CONTACTS] = CStringGetTextDatum(link->name),
		[KEEP_FAILED_AT] = TimestampTzGetDatum(failed_at)
	};

	if (writer->count == 0)
		return;
	register_rowset("linked_pieces", writer->tupdesc, writer->pieces, writer->count);
	query_run(&keep_query, values, NULL);
	SPI_unregister_relation("linked_pieces");
}

/* Add the pieces that the update skipped to pending_links. */
void
keep_skipped(const Link *link, SPITupleTable *result, MemoryContext context)
{
	LinkWriter *skipped = skipped_pieces(result, context);

	keep_pieces(link, skipped, DT_NOBEGIN);
	tuplestore_end(skipped->pieces);
}

/* Parameters of pending_query. */
enum
{
	PENDING_CONTACTS, PENDING_FAILED_BEFORE, PENDING_LIMIT, N_PENDING
};

static SqlQuery pending_query = {
	.sql = "SELECT p.ctid, p.piece_id, p.account"
	" FROM postalytics.pending_links AS p"
	" WHERE p.contacts = $1"
	"   AND p.failed_at < $2"
	" ORDER BY p.failed_at, p.since"
	" LIMIT $3"
	" FOR UPDATE SKIP LOCKED",
	.result = SPI_OK_SELECT,
	.nparameters = N_PENDING,
	.types = {[PENDING_CONTACTS] = TEXTOID,[PENDING_FAILED_BEFORE] = TIMESTAMPTZOID,[PENDING_LIMIT] = INT8OID}
};

/* linked_pieces contains the pieces that were skipped, which remain pending. */
static SqlQuery done_query = {
	.sql = "DELETE FROM postalytics.pending_links AS p"
	" WHERE p.ctid = ANY ($1)"
	"   AND NOT EXISTS (SELECT"
	"                   FROM linked_pieces AS k"
	"                   WHERE k.piece_id = p.piece_id"
	"                     AND k.account = p.account)",
	.result = SPI_OK_DELETE,
	.nparameters = 1,
	.types = {TIDARRAYOID}
};

static SqlQuery failed_query = {
	.sql = "UPDATE postalytics.pending_links AS p"
	" SET failed_at = clock_timestamp()"
	" WHERE p.ctid = ANY ($1)",
	.result = SPI_OK_UPDATE,
	.nparameters = 1,
	.types = {TIDARRAYOID}
};

/*
 * True if an error can be due to one contact, so that others could be written without it.
 */
static bool
concerns_one_contact(const ErrorData *error)
{
	switch (error->sqlerrcode)
	{
		case ERRCODE_LOCK_NOT_AVAILABLE:
		case ERRCODE_INSUFFICIENT_PRIVILEGE:
		case ERRCODE_UNDEFINED_TABLE:
		case ERRCODE_UNDEFINED_COLUMN:
			return false;
		default:
			return true;
	}
}

/*
 * Try count pending pieces again, those in the result rows from first on.  After an error,
 * the pieces are tried in halves, so that a contact that cannot be written does not keep
 * others from being written, until *splits, which is decremented, is 0.  Returns the
 * number of rows of pending_links that are done.
 */
static int64
retry_rows(const Link *link, SPITupleTable *rows, uint64 first, int count, int *splits, MemoryContext context)
{
	LinkWriter *writer = create_writer(context);
	Datum	   *places = palloc(count * sizeof(Datum));
	Datum		tids;
	int64		done = 0;
	ErrorData  *error;

	for (int i = 0; i < count; i++)
	{
		places[i] = result_value(rows, first + i, 1);
		add_piece(writer, result_value(rows, first + i, 2), result_value(rows, first + i, 3));
	}
	error = try_update(link, writer);
	tuplestore_end(writer->pieces);
	tids = tid_array(places, count);
	if (error == NULL)
	{
		LinkWriter *skipped = skipped_pieces(SPI_tuptable, context);

		register_rowset("linked_pieces", skipped->tupdesc, skipped->pieces, skipped->count);
		query_run(&done_query, &tids, NULL);
		done = (int64) SPI_processed;
		SPI_unregister_relation("linked_pieces");
		tuplestore_end(skipped->pieces);
	}
	else if (count > 1 && *splits > 0 && concerns_one_contact(error))
	{
		(*splits)--;
		done = retry_rows(link, rows, first, count / 2, splits, context);
		done += retry_rows(link, rows, first + count / 2, count - count / 2, splits, context);
	}
	else
	{
		log_failure(link, error);
		query_run(&failed_query, &tids, NULL);
	}
	return done;
}

/*
 * Try up to limit pending pieces of a link again, first those without an error and then
 * those whose last error is longest ago, except those with an error at or after
 * failed_before.  splits is how often pieces may be tried in halves.  Returns the number
 * of rows of pending_links that are done.
 */
int64
retry_pending(const Link *link, TimestampTz failed_before, int64 limit, int splits, MemoryContext context)
{
	Datum		values[N_PENDING] = {
		[PENDING_CONTACTS] = CStringGetTextDatum(link->name),
		[PENDING_FAILED_BEFORE] = TimestampTzGetDatum(failed_before),
		[PENDING_LIMIT] = Int64GetDatum(limit)
	};

	query_run(&pending_query, values, NULL);
	return SPI_processed == 0 ? 0 : retry_rows(link, SPI_tuptable, 0, (int) SPI_processed, &splits, context);
}

/* ---- for ingest ---- */

/*
 * Create a writer in a memory context, or return NULL if no contacts are linked.  Until
 * link_finish, the caller must be connected to SPI and be the owner of the extension.
 */
LinkWriter *
link_writer_create(MemoryContext parent)
{
	return first_link() == NULL ? NULL : create_writer(parent);
}

/* Add a piece.  Its row is read only by link_finish. */
void
link_add(LinkWriter *writer, const EventKey *piece)
{
	text	   *piece_id = cstring_to_text_with_len(piece->piece, piece->piece_length);
	text	   *account = cstring_to_text_with_len(piece->account, piece->account_length);

	add_piece(writer, PointerGetDatum(piece_id), PointerGetDatum(account));
	pfree(piece_id);
	pfree(account);
}

/*
 * Write the pieces of a writer into the contacts of a link, or add them to pending_links.
 * True unless there was an error.
 */
static bool
write_pieces(const Link *link, LinkWriter *writer)
{
	ErrorData  *error = try_update(link, writer);

	if (error == NULL)
	{
		keep_skipped(link, SPI_tuptable, writer->context);
		return true;
	}
	log_failure(link, error);
	keep_pieces(link, writer, GetCurrentTimestamp());
	return false;
}

/*
 * Write the pieces, whose rows must have been written, into all linked contacts.  Also try
 * pending pieces, except in REPEATABLE READ and SERIALIZABLE, where it is an error to lock
 * rows that another transaction has changed since the snapshot was taken.
 */
void
link_finish(LinkWriter *writer)
{
	TimestampTz failed_before = GetCurrentTimestamp() - ERROR_PAUSE;

	for (const Link *link = first_link(); link != NULL && writer->count > 0; link = link->next)
		if (write_pieces(link, writer) && !IsolationUsesXactSnapshot())
			(void) retry_pending(link, failed_before, MAX_FEW, 0, writer->context);
	tuplestore_end(writer->pieces);
}
