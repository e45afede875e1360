/*
 * link.c
 *		link_contacts, and the writing of the status of pieces into the tables of
 *		contacts that it has linked.
 *
 * The transaction that stores new events also writes the status of their pieces into
 * the contacts that these were mailed to.  It does so as the owner of the contacts, as
 * a foreign key does, so that neither the role that ingests nor the owner of the
 * extension needs privileges on the contacts, and that code that the CRM has attached to
 * them has no others than its own.  The owner also reads the pieces, so it writes only
 * what it may see.
 *
 * Ingest neither fails nor waits because of a contact.  Rows that another transaction
 * has locked are skipped, and an error is logged.  In both cases, the pieces are kept in
 * pending_links, which is a queue: ingest and maintain() lock its oldest rows, write
 * their pieces, and delete exactly these rows.  As it has no unique key, a piece that is
 * just being tried again can become pending once more, and no insertion waits.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/cache.h"
#include "base/compat.h"
#include "base/extension.h"
#include "base/query.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "rights/binding.h"
#include "storage/lmgr.h"
#include "sync/delivery.h"
#include "sync/link.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(postalytics_link_contacts);
PG_FUNCTION_INFO_V1(postalytics_unlink_contacts);
PG_FUNCTION_INFO_V1(postalytics_retry_links);

/* Columns of contact_links, as in link.sql: attribute numbers. */
enum
{
	ATTR_CONTACTS = 1, ATTR_OWNER, ATTR_ID_FIELD, ATTR_ID_COLUMN, ATTR_EMAIL_COLUMN,
	ATTR_STATUS_COLUMN, ATTR_STATUS_AT_COLUMN
};

/* A row of contact_links. */
typedef struct Link
{
	const char *name;			/* of the contacts, qualified and quoted */
	Oid			contacts;		/* InvalidOid in the list of links, because
								 * the contacts can be created again */
	const char *owner;			/* role that owned the contacts when they were
								 * linked */
	const char *id_field;		/* NULL to find contacts only by e-mail
								 * address */
	const char *id_column;
	const char *email_column;	/* NULL to find contacts only by id */
	const char *status_column;
	const char *status_at_column;
	struct Link *next;
} Link;

struct LinkWriter
{
	MemoryContext context;
	TupleDesc	tupdesc;		/* of a piece: piece_id, account */
	Tuplestorestate *pieces;
	int64		count;
};

/*
 * The number of pieces up to which the plan of the update is kept, which is also the
 * number of pending pieces that ingest tries again, and the number that maintain() tries
 * at a time.
 */
#define MAX_FEW			100
#define MAX_RETRIED		1000

/* Time after an error during which ingest does not try a pending piece again. */
#define ERROR_PAUSE		USECS_PER_MINUTE

/* Bytes of a message of the contacts' code that are logged. */
#define MAX_MESSAGE		1000

/* ---- the links in memory ---- */

static Link *links;

static void
begin_links(void)
{
	links = NULL;
}

/* Read a text; NULL gives NULL. */
static const char *
load_text(TupleTableSlot *row, int attribute)
{
	bool		isnull;
	Datum		value = slot_getattr(row, attribute, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/* Read the name of a column; NULL gives NULL. */
static const char *
load_name(TupleTableSlot *row, int attribute)
{
	bool		isnull;
	Datum		value = slot_getattr(row, attribute, &isnull);

	return isnull ? NULL : pstrdup(NameStr(*DatumGetName(value)));
}

static void
add_link(TupleTableSlot *row)
{
	Link	   *link = palloc(sizeof(Link));

	link->name = load_text(row, ATTR_CONTACTS);
	link->contacts = InvalidOid;
	link->owner = load_name(row, ATTR_OWNER);
	link->id_field = load_text(row, ATTR_ID_FIELD);
	link->id_column = load_name(row, ATTR_ID_COLUMN);
	link->email_column = load_name(row, ATTR_EMAIL_COLUMN);
	link->status_column = load_name(row, ATTR_STATUS_COLUMN);
	link->status_at_column = load_name(row, ATTR_STATUS_AT_COLUMN);
	link->next = links;
	links = link;
}

static TableCache links_cache = {
	.table = "contact_links",
	.begin = begin_links,
	.add = add_link
};

/*
 * Return the list of all links, which is valid until the next call.  The lock, which is
 * held until the transaction ends, lets link_contacts wait for transactions that do not
 * know the link yet.
 */
static const Link *
first_link(void)
{
	LockRelationOid(extension_relation("contact_links"), RowShareLock);
	refresh_cache(&links_cache);
	return links;
}

/* ---- the statement that updates contacts ---- */

#define EQUALS	" OPERATOR(pg_catalog.=) "

/*
 * Return the type of a column of the contacts, or the base type if it is a domain.  Error
 * 42703 if the column does not exist.
 */
static Oid
column_type(Oid contacts, const char *column)
{
	AttrNumber	attribute = get_attnum(contacts, column);

	if (attribute <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s\" does not exist", column, get_rel_name(contacts))));
	return getBaseType(get_atttype(contacts, attribute));
}

/*
 * Return the expression for the id of the contact of a piece, in the type of the id
 * column so that an index can be used.  A text that is not an id of that type gives
 * NULL.  Error 42804 if the column has another type than those here.
 */
static const char *
id_expression(const Link *link)
{
	Oid			type = column_type(link->contacts, link->id_column);

	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
			return "CASE WHEN x.id OPERATOR(pg_catalog.~) '^[0-9]{1,18}$' THEN x.id::pg_catalog.int8 END";
		case UUIDOID:
			return "CASE WHEN x.id OPERATOR(pg_catalog.~*) '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'"
				" THEN x.id::pg_catalog.uuid END";
		case TEXTOID:
		case VARCHAROID:
			return "x.id";
		default:
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column \"%s\" of relation \"%s\" has type %s, which cannot be the id of a contact",
							link->id_column, get_rel_name(link->contacts), format_type_be(type)),
					 errdetail("The type must be smallint, integer, bigint, uuid, text or character varying.")));
	}
}

/* Return the expression for the status of a piece, for the type of the status column. */
static const char *
status_expression(const Link *link)
{
	Oid			type = column_type(link->contacts, link->status_column);

	return type == TEXTOID || type == VARCHAROID ? "postalytics.label(p.status)" : "p.status";
}

/*
 * Return the expression for the time of the status.  CRMs that use timestamp store UTC in
 * it.
 */
static const char *
status_at_expression(const Link *link)
{
	Oid			type = column_type(link->contacts, link->status_at_column);

	if (type == TIMESTAMPTZOID)
		return "p.status_at";
	if (type != TIMESTAMPOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of relation \"%s\" has type %s, which cannot be the time of a status",
						link->status_at_column, get_rel_name(link->contacts), format_type_be(type)),
				 errdetail("The type must be timestamp with or without time zone.")));
	return "p.status_at AT TIME ZONE 'UTC'";
}

/* Append the pieces to write, with what identifies their contacts. */
static void
append_pieces(StringInfo sql, const Link *link, bool all)
{
	appendStringInfo(sql, "WITH changed AS MATERIALIZED ("
					 " SELECT p.piece_id, p.account, %s AS status, %s AS at, pg_catalog.lower(p.email) AS email,",
					 status_expression(link), status_at_expression(link));
	if (link->id_field != NULL)
		appendStringInfo(sql, " p.fields OPERATOR(pg_catalog.->>) %s::pg_catalog.text AS id",
						 quote_literal_cstr(link->id_field));
	else
		appendStringInfoString(sql, " NULL::pg_catalog.text AS id");
	appendStringInfoString(sql, " FROM postalytics.pieces AS p");
	if (!all)
		appendStringInfoString(sql, " JOIN (SELECT DISTINCT k.piece_id, k.account FROM linked_pieces AS k) AS k"
							   " ON k.piece_id" EQUALS "p.piece_id AND k.account" EQUALS "p.account");
	appendStringInfoString(sql, " WHERE p.status IS NOT NULL)");
}

/*
 * Append the contacts of the pieces: those with the id that the piece has, or else the
 * one with its e-mail address, if it is the only one.
 */
static void
append_matches(StringInfo sql, const Link *link)
{
	const char *id = quote_identifier(link->id_column);

	appendStringInfo(sql, ", by_id AS MATERIALIZED ("
					 " SELECT x.*, c.%s AS contact FROM changed AS x LEFT JOIN %s AS c ON c.%s" EQUALS "%s),"
					 " matched AS MATERIALIZED ("
					 " SELECT x.contact, x.piece_id, x.account, x.status, x.at FROM by_id AS x"
					 " WHERE x.contact IS NOT NULL",
					 id, link->name, id, id_expression(link));
	if (link->email_column != NULL)
		appendStringInfo(sql, " UNION ALL"
						 " SELECT (pg_catalog.array_agg(c.%s))[1], x.piece_id, x.account, x.status, x.at"
						 " FROM by_id AS x JOIN %s AS c ON pg_catalog.lower(c.%s)" EQUALS "x.email"
						 " WHERE x.contact IS NULL"
						 " GROUP BY x.piece_id, x.account, x.status, x.at"
						 " HAVING pg_catalog.count(*)" EQUALS "1",
						 id, link->name, quote_identifier(link->email_column));
	appendStringInfoString(sql, ")");
}

/*
 * Append the update of the contacts that differ.  A later status is kept, because another
 * piece can have given it, unless all pieces are written.
 */
static void
append_update(StringInfo sql, const Link *link, bool all)
{
	const char *id = quote_identifier(link->id_column);
	const char *status = quote_identifier(link->status_column);
	const char *at = quote_identifier(link->status_at_column);
	char	   *condition = psprintf("(c.%s IS NULL OR c.%s IS NULL OR c.%s OPERATOR(pg_catalog.%s) n.at"
									 " OR (c.%s" EQUALS "n.at AND c.%s OPERATOR(pg_catalog.<>) n.status))",
									 status, at, at, all ? "<>" : "<", at, status);

	appendStringInfo(sql, ", newest AS MATERIALIZED ("
					 " SELECT DISTINCT ON (m.contact) m.contact, m.status, m.at FROM matched AS m"
					 " ORDER BY m.contact, m.at DESC, m.piece_id DESC, m.account DESC),"
					 " wanted AS MATERIALIZED ("
					 " SELECT n.* FROM newest AS n JOIN %s AS c ON c.%s" EQUALS "n.contact WHERE %s),"
					 " locked AS MATERIALIZED ("
					 " SELECT n.* FROM wanted AS n JOIN %s AS c ON c.%s" EQUALS "n.contact"
					 " FOR NO KEY UPDATE OF c SKIP LOCKED),"
					 " written AS ("
					 " UPDATE %s AS c SET %s = n.status, %s = n.at FROM locked AS n"
					 " WHERE c.%s" EQUALS "n.contact AND %s"
					 " RETURNING 1)",
					 link->name, id, condition, link->name, id, link->name, status, at, id, condition);
}

/*
 * Return the statement that updates the contacts of a link from the pieces in
 * linked_pieces, or from all pieces.  Its first row contains the number of contacts
 * that were updated, and each other row a piece whose contact was locked by another
 * transaction.
 *
 * Operators are qualified, because the types of the contacts' columns may be such that
 * another operator matches better than the server's.
 */
static char *
update_statement(const Link *link, bool all)
{
	StringInfoData sql;

	initStringInfo(&sql);
	append_pieces(&sql, link, all);
	append_matches(&sql, link);
	append_update(&sql, link, all);
	appendStringInfoString(&sql, " SELECT pg_catalog.count(*), NULL::pg_catalog.text, NULL::pg_catalog.text FROM written"
						   " UNION ALL"
						   " SELECT 0, m.piece_id, m.account FROM matched AS m JOIN wanted AS w ON w.contact" EQUALS "m.contact"
						   " WHERE NOT EXISTS (SELECT FROM locked AS l WHERE l.contact" EQUALS "m.contact)");
	return sql.data;
}

/* ---- running the statement ---- */

/* A statement whose plan is kept for the session. */
typedef struct KeptPlan
{
	char	   *sql;
	SPIPlanPtr	plan;
	struct KeptPlan *next;
} KeptPlan;

/*
 * Return the kept plan of a statement for few pieces.  Plans of links that have changed
 * remain, because a session sees only few changes.
 */
static SPIPlanPtr
kept_plan(const char *sql)
{
	static KeptPlan *plans;
	KeptPlan   *kept;
	SPIPlanPtr	plan;

	for (kept = plans; kept != NULL; kept = kept->next)
		if (strcmp(kept->sql, sql) == 0)
			return kept->plan;
	plan = SPI_prepare(sql, 0, NULL);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	kept = MemoryContextAlloc(TopMemoryContext, sizeof(KeptPlan));
	kept->plan = plan;
	kept->sql = MemoryContextStrdup(TopMemoryContext, sql);
	kept->next = plans;
	plans = kept;
	return kept->plan;
}

/*
 * Run the statement.  A plan is kept only if there are few pieces, because a plan that
 * is good for few of them would be slow for many.
 */
static void
run_statement(const char *sql, bool few)
{
	int			result = few ? SPI_execute_plan(kept_plan(sql), NULL, NULL, false, 0) : SPI_execute(sql, false, 0);

	if (result != SPI_OK_SELECT)
		elog(ERROR, "SPI execution failed: %s", SPI_result_code_string(result));
}

/* Return the qualified and quoted name of a relation, or NULL if it does not exist. */
static const char *
qualified_name(Oid relation)
{
	const char *name = get_rel_name(relation);

	return name == NULL ? NULL :
		quote_qualified_identifier(get_namespace_name(get_rel_namespace(relation)), name);
}

/*
 * Return the OID of the contacts with this name, and lock them in ROW EXCLUSIVE mode,
 * without waiting.  Needs no privileges, unlike RangeVarGetRelid.  Errors: 42P01 if they
 * do not exist, 55P03.
 */
static Oid
lock_contacts(const char *name)
{
	List	   *names = compat_qualified_names(name);
	Oid			schema = get_namespace_oid(strVal(linitial(names)), true);
	Oid			contacts = OidIsValid(schema) ? get_relname_relid(strVal(lsecond(names)), schema) : InvalidOid;

	if (OidIsValid(contacts) && !ConditionalLockRelationOid(contacts, RowExclusiveLock))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("could not obtain lock on relation %s", name)));
	if (!OidIsValid(contacts) || !SearchSysCacheExists1(RELOID, ObjectIdGetDatum(contacts)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation %s does not exist", name)));
	return contacts;
}

/* Return the owner of a relation; InvalidOid if the relation does not exist. */
static Oid
relation_owner(Oid relation)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * Raise error 42501 if the contacts have another owner than when they were linked.  They
 * may be another relation, which a user who may not write to it has given their name.
 */
static void
check_owner(const Link *link)
{
	if (strcmp(GetUserNameFromId(relation_owner(link->contacts), false), link->owner) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("owner of relation %s has changed since it was linked", link->name),
				 errhint("Call %s.link_contacts again.", EXTENSION_SCHEMA)));
}

/*
 * Update the contacts of a link, as their owner, from the pieces of a writer, or from all
 * pieces if the writer is NULL.  Returns the number of contacts that were updated.  The
 * pieces whose contacts were locked are in the rows of SPI_tuptable after the first.
 *
 * Triggers of the contacts run in the schema of the contacts, and wait up to 0.1 seconds
 * for a lock.  Settings that they change are restored.  Locks and errors are those of
 * lock_contacts and check_owner; also any error that the contacts cause.
 */
static int64
update_contacts(const Link *link, const LinkWriter *writer)
{
	Link		found = *link;
	SavedUser	before;
	int			level;
	char	   *sql;
	bool		isnull;

	found.contacts = lock_contacts(link->name);
	check_owner(&found);
	sql = update_statement(&found, writer == NULL);
	GetUserIdAndSecContext(&before.user, &before.context);
	SetUserIdAndSecContext(relation_owner(found.contacts),
						   before.context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	level = NewGUCNestLevel();
	set_parameter("search_path", psprintf("pg_catalog, %s, pg_temp",
										  quote_identifier(get_namespace_name(get_rel_namespace(found.contacts)))));
	set_parameter("lock_timeout", "100ms");
	set_parameter("row_security", "on");
	run_statement(sql, writer != NULL && writer->count <= MAX_FEW);
	AtEOXact_GUC(false, level);
	restore_user(before);
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/* ---- pieces ---- */

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

/* Return a value of a result row, which is not NULL. */
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

/* Return a message without its end if it is long. */
static const char *
clipped(const char *message)
{
	return pnstrdup(message, pg_mbcliplen(message, strlen(message), MAX_MESSAGE));
}

/*
 * Report an error of the contacts, once an hour.  Its text may contain their data, so it is
 * written only to the server log.
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
				 errmsg("could not write the status of pieces into %s: %s", link->name, clipped(error->message)),
				 error->detail != NULL ? errdetail_internal("%s", clipped(error->detail)) : 0,
				 errhint("The pieces are in %s.pending_links, and are tried again.", EXTENSION_SCHEMA)));
}

/*
 * Try to update the contacts of a link from the pieces of a writer.  Returns the error, or
 * NULL if there was none; then SPI_tuptable is as update_contacts leaves it.  If the
 * caller's query is canceled, that is an error of the caller, but code of the contacts
 * may raise an error with the same SQLSTATE.
 */
static ErrorData *
try_update(const Link *link, LinkWriter *writer)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	register_rowset("linked_pieces", writer->tupdesc, writer->pieces, writer->count);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		(void) update_contacts(link, writer);
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
 * Let the pieces of a writer be pending.  failed_at is DT_NOBEGIN unless an error
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

/* Let the pieces that the update skipped be pending. */
static void
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

/* With the skipped pieces as linked_pieces. */
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
 * Try pending pieces again, which are in the result rows from first on.  After an error,
 * the pieces are tried in halves if may_split is true, so that a contact that cannot be
 * written does not keep others from being written.  Returns the number of pieces that
 * are no longer pending.
 */
static int64
retry_rows(const Link *link, SPITupleTable *rows, uint64 first, int count, bool may_split, MemoryContext context)
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
	else if (may_split && count > 1)
	{
		done = retry_rows(link, rows, first, count / 2, true, context);
		done += retry_rows(link, rows, first + count / 2, count - count / 2, true, context);
	}
	else
	{
		log_failure(link, error);
		query_run(&failed_query, &tids, NULL);
	}
	return done;
}

/*
 * Try up to limit pending pieces of a link again, the longest pending first, but not those
 * with an error at or after a time.  Returns the number of pieces that are no longer
 * pending.
 */
static int64
retry_pending(const Link *link, TimestampTz failed_before, int64 limit, bool may_split, MemoryContext context)
{
	Datum		values[N_PENDING] = {
		[PENDING_CONTACTS] = CStringGetTextDatum(link->name),
		[PENDING_FAILED_BEFORE] = TimestampTzGetDatum(failed_before),
		[PENDING_LIMIT] = Int64GetDatum(limit)
	};

	query_run(&pending_query, values, NULL);
	return SPI_processed == 0 ? 0 : retry_rows(link, SPI_tuptable, 0, (int) SPI_processed, may_split, context);
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

/* Add a piece, whose row link_finish reads. */
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
 * Write the pieces of a writer into the contacts of a link, or let them be pending.  True
 * unless there was an error.
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
 * pending pieces, unless the transaction could fail because another one has tried them
 * since its snapshot was taken.
 */
void
link_finish(LinkWriter *writer)
{
	TimestampTz failed_before = GetCurrentTimestamp() - ERROR_PAUSE;

	for (const Link *link = first_link(); link != NULL && writer->count > 0; link = link->next)
		if (write_pieces(link, writer) && !IsolationUsesXactSnapshot())
			(void) retry_pending(link, failed_before, MAX_FEW, false, writer->context);
	tuplestore_end(writer->pieces);
}

/* ---- SQL ---- */

/* Arguments of link_contacts, which are also parameters of link_query. */
enum
{
	ARG_CONTACTS, ARG_ID_FIELD, ARG_ID_COLUMN, ARG_EMAIL_COLUMN,
	ARG_STATUS_COLUMN, ARG_STATUS_AT_COLUMN, N_ARGS, LINK_OWNER = N_ARGS, N_LINK
};

/*
 * Wait until no transaction stores events, and keep others from beginning to.  Otherwise,
 * those that do not know the link would not write into the contacts, and the pieces that
 * they store would not be seen here, either.
 */
static SqlQuery lock_query = {
	.sql = "SELECT postalytics.check_read_committed('link_contacts'),"
	"       postalytics.lock_briefly('postalytics.contact_links', 'EXCLUSIVE')",
	.result = SPI_OK_SELECT
};

static SqlQuery link_query = {
	.sql = "INSERT INTO postalytics.contact_links AS l"
	"     (contacts, id_field, id_column, email_column, status_column, status_at_column, owner)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7)"
	" ON CONFLICT (contacts) DO UPDATE"
	" SET (id_field, id_column, email_column, status_column, status_at_column, owner) ="
	"     (excluded.id_field, excluded.id_column, excluded.email_column, excluded.status_column,"
	"      excluded.status_at_column, excluded.owner)",
	.result = SPI_OK_INSERT,
	.nparameters = N_LINK,
	.types = {
		[ARG_CONTACTS] = TEXTOID,
		[ARG_ID_FIELD] = TEXTOID,
		[ARG_ID_COLUMN] = NAMEOID,
		[ARG_EMAIL_COLUMN] = NAMEOID,
		[ARG_STATUS_COLUMN] = NAMEOID,
		[ARG_STATUS_AT_COLUMN] = NAMEOID,
		[LINK_OWNER] = NAMEOID
	}
};

static SqlQuery unlink_query = {
	.sql = "WITH pending AS ("
	"     DELETE FROM postalytics.pending_links AS p WHERE p.contacts = $1)"
	" DELETE FROM postalytics.contact_links AS l WHERE l.contacts = $1",
	.result = SPI_OK_DELETE,
	.nparameters = 1,
	.types = {TEXTOID}
};

static SqlQuery audit_query = {
	.sql = "SELECT postalytics.audit($1, $2, NULL, NULL)",
	.result = SPI_OK_SELECT,
	.nparameters = 2,
	.types = {TEXTOID, TEXTOID}
};

/* Record a call in audit_log. */
static void
audit(const char *action, Datum name)
{
	Datum		values[] = {CStringGetTextDatum(action), name};

	query_run(&audit_query, values, NULL);
}

/*
 * Raise error 42501 unless the current user may link these contacts.  The user must own
 * them, because they are written as their owner, and may manage syncs, because their
 * triggers run in ingest.
 */
static void
check_may_link(Oid contacts)
{
	Oid			owner = relation_owner(contacts);

	if (!may_manage() || (OidIsValid(owner) && !has_privs_of_role(GetUserId(), owner)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to link contacts"),
				 errhint("You need the privileges of the owner of the contacts and those that %s.grant_manage grants.",
						 EXTENSION_SCHEMA)));
}

/* Return an argument that is the name of a column. */
static const char *
column_argument(FunctionCallInfo fcinfo, int i, const char *name)
{
	return NameStr(*DatumGetName(required_argument(fcinfo, i, name)));
}

/* Read the arguments of link_contacts. */
static void
read_link(FunctionCallInfo fcinfo, Link *link)
{
	char		kind;

	link->contacts = DatumGetObjectId(required_argument(fcinfo, ARG_CONTACTS, "contacts"));
	if (!ConditionalLockRelationOid(link->contacts, RowExclusiveLock))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("could not obtain lock on relation with OID %u", link->contacts)));
	check_may_link(link->contacts);
	link->name = qualified_name(link->contacts);
	if (link->name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", link->contacts)));
	kind = get_rel_relkind(link->contacts);
	if ((kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE && kind != RELKIND_VIEW) ||
		get_rel_persistence(link->contacts) == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("contacts must be a table or a view, and not temporary")));
	link->owner = GetUserNameFromId(relation_owner(link->contacts), false);
	link->id_field = PG_ARGISNULL(ARG_ID_FIELD) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(ARG_ID_FIELD));
	link->id_column = column_argument(fcinfo, ARG_ID_COLUMN, "id_column");
	link->email_column = PG_ARGISNULL(ARG_EMAIL_COLUMN) ? NULL : NameStr(*PG_GETARG_NAME(ARG_EMAIL_COLUMN));
	link->status_column = column_argument(fcinfo, ARG_STATUS_COLUMN, "status_column");
	link->status_at_column = column_argument(fcinfo, ARG_STATUS_AT_COLUMN, "status_at_column");
	link->next = NULL;
	if (link->id_field == NULL && link->email_column == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("id_field and email_column must not both be NULL")));
}

/*
 * link_contacts(contacts regclass, id_field text, id_column name, email_column name,
 *				 status_column name, status_at_column name) returns bigint
 *
 * Links a table or updatable view of contacts, or changes its link, and writes the
 * newest status among the pieces of each contact into it.  Returns the number of
 * contacts that were updated.  id_field is the field of the mailing list that contains
 * the contact's id; either id_field or email_column may be NULL.
 *
 * Locks: those of update_contacts, then EXCLUSIVE on contact_links, for which ingest waits.
 * Errors: 22004 if another argument or both of these are NULL, 25001 unless the
 * transaction is READ COMMITTED, 42501 (see check_may_link), 42703, 42804 or 42809 for
 * contacts that cannot be written, 55P03 if a lock is not available.
 */
Datum
postalytics_link_contacts(PG_FUNCTION_ARGS)
{
	Datum		values[N_LINK];
	bool		nulls[N_LINK] = {false};
	NameData	owner;
	Link		link;
	SavedUser	caller;
	int64		count;

	read_link(fcinfo, &link);
	for (int i = 0; i < N_ARGS; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i);
	}
	values[ARG_CONTACTS] = CStringGetTextDatum(link.name);
	namestrcpy(&owner, link.owner);
	values[LINK_OWNER] = NameGetDatum(&owner);
	caller = switch_to_owner();
	SPI_connect();
	query_run(&lock_query, NULL, NULL);
	query_run(&link_query, values, nulls);
	audit("link_contacts", values[ARG_CONTACTS]);
	count = update_contacts(&link, NULL);
	keep_skipped(&link, SPI_tuptable, CurrentMemoryContext);
	SPI_finish();
	restore_user(caller);
	PG_RETURN_INT64(count);
}

/*
 * Return the qualified name of the contacts that a user names, who need not exist any
 * more, and check that the user may unlink them.  Errors: 42501, 42602 for a malformed
 * name, and those of name lookup.
 */
static const char *
unlinked_name(const char *given)
{
	List	   *names = compat_qualified_names(given);
	RangeVar   *range = makeRangeVarFromNameList(names);
	Oid			contacts = RangeVarGetRelid(range, NoLock, true);

	const char *name = qualified_name(contacts);

	check_may_link(contacts);
	return name != NULL ? name : quote_qualified_identifier(range->schemaname, range->relname);
}

/*
 * unlink_contacts(contacts text) returns boolean
 *
 * Removes a link, without changing the contacts.  False if there is none.  The contacts
 * need not exist any more.  Locks: the link's row.  Errors: 22004 for NULL, those of
 * unlinked_name.
 */
Datum
postalytics_unlink_contacts(PG_FUNCTION_ARGS)
{
	const char *given = TextDatumGetCString(required_argument(fcinfo, 0, "contacts"));
	Datum		name = CStringGetTextDatum(unlinked_name(given));
	int			level = NewGUCNestLevel();
	SavedUser	caller;
	bool		existed;

	set_parameter("search_path", "pg_catalog, pg_temp");	/* only the name is
															 * looked up in the
															 * caller's */
	caller = switch_to_owner();
	SPI_connect();
	query_run(&unlink_query, &name, NULL);
	existed = SPI_processed > 0;
	if (existed)
		audit("unlink_contacts", name);
	SPI_finish();
	restore_user(caller);
	AtEOXact_GUC(false, level);
	PG_RETURN_BOOL(existed);
}

static SqlQuery orphans_query = {
	.sql = "DELETE FROM postalytics.pending_links AS p"
	" WHERE NOT EXISTS (SELECT"
	"                   FROM postalytics.contact_links AS l"
	"                   WHERE l.contacts = p.contacts)",
	.result = SPI_OK_DELETE
};

/*
 * retry_links() returns bigint
 *
 * Writes pending pieces into their contacts, a part of them in each call, and returns the
 * number of pieces that are no longer pending.  Also deletes those of contacts that were
 * unlinked.  Must be called as the owner.  Locks: those of update_contacts, and rows of
 * pending_links.
 */
Datum
postalytics_retry_links(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		done = 0;

	SPI_connect();
	for (const Link *link = first_link(); link != NULL; link = link->next)
		done += retry_pending(link, now, MAX_RETRIED, true, CurrentMemoryContext);
	query_run(&orphans_query, NULL, NULL);
	SPI_finish();
	PG_RETURN_INT64(done);
}
