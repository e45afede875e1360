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
 * pending_links, and are tried again with the next ones.
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
#include "miscadmin.h"
#include "nodes/value.h"
#include "rights/binding.h"
#include "storage/lmgr.h"
#include "sync/delivery.h"
#include "sync/link.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(postalytics_link_contacts);
PG_FUNCTION_INFO_V1(postalytics_unlink_contacts);
PG_FUNCTION_INFO_V1(postalytics_retry_links);

/* Columns of contact_links, as in link.sql: attribute numbers. */
enum
{
	ATTR_CONTACTS = 1, ATTR_ID_FIELD, ATTR_ID_COLUMN, ATTR_EMAIL_COLUMN,
	ATTR_STATUS_COLUMN, ATTR_STATUS_AT_COLUMN
};

/* A row of contact_links. */
typedef struct Link
{
	const char *name;			/* of the contacts, qualified and quoted */
	Oid			contacts;		/* InvalidOid in the list of links, because
								 * the contacts can be created again */
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
 * The number of pending pieces that are tried again at a time, and the number of pieces
 * up to which the plan of the update is kept.
 */
#define MAX_RETRIED		1000
#define MAX_FEW			100

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

/* Return the list of all links, which is valid until the next call. */
static const Link *
first_link(void)
{
	LockRelationOid(extension_relation("contact_links"), AccessShareLock);
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

/* Return the qualified and quoted name of a relation. */
static const char *
qualified_name(Oid relation)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relation)), get_rel_name(relation));
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
 * Update the contacts of a link, as their owner, from the pieces of a writer, or from all
 * pieces if the writer is NULL.  Returns the number of contacts that were updated.  The
 * pieces whose contacts were locked are in the rows of SPI_tuptable after the first.
 *
 * Triggers of the contacts run in the schema of the contacts, and wait up to 0.1 seconds
 * for a lock.  They cannot leave anything in the session.  Locks and errors are those of
 * lock_contacts; also any error that the contacts cause.
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

/* Add the pieces in the second and third column of result rows, from a row on. */
static void
add_result(LinkWriter *writer, SPITupleTable *rows, uint64 first, uint64 count)
{
	for (uint64 i = first; i < count; i++)
	{
		bool		isnull;
		Datum		piece = SPI_getbinval(rows->vals[i], rows->tupdesc, 2, &isnull);
		Datum		account = SPI_getbinval(rows->vals[i], rows->tupdesc, 3, &isnull);

		add_piece(writer, piece, account);
	}
}

/* ---- pending pieces ---- */

static SqlQuery retried_query = {
	.sql = "SELECT p.contacts, p.piece_id, p.account"
	" FROM postalytics.pending_links AS p"
	" WHERE p.contacts = $1"
	" LIMIT " CppAsString2(MAX_RETRIED)
	" FOR UPDATE SKIP LOCKED",
	.result = SPI_OK_SELECT,
	.nparameters = 1,
	.types = {TEXTOID}
};

static SqlQuery forget_query = {
	.sql = "DELETE FROM postalytics.pending_links AS p"
	" USING linked_pieces AS k"
	" WHERE p.contacts = $1"
	"   AND p.piece_id = k.piece_id"
	"   AND p.account = k.account",
	.result = SPI_OK_DELETE,
	.nparameters = 1,
	.types = {TEXTOID}
};

static SqlQuery keep_query = {
	.sql = "INSERT INTO postalytics.pending_links (contacts, piece_id, account)"
	" SELECT $1, k.piece_id, k.account"
	" FROM linked_pieces AS k"
	" ON CONFLICT DO NOTHING",
	.result = SPI_OK_INSERT,
	.nparameters = 1,
	.types = {TEXTOID}
};

/* Run a query that reads the pieces of a writer as linked_pieces. */
static void
run_with_pieces(SqlQuery *query, const Link *link, LinkWriter *writer)
{
	Datum		contacts = CStringGetTextDatum(link->name);

	register_rowset("linked_pieces", writer->tupdesc, writer->pieces, writer->count);
	query_run(query, &contacts, NULL);
	SPI_unregister_relation("linked_pieces");
}

/* Add pending pieces of a link to a writer. */
static void
add_pending(const Link *link, LinkWriter *writer)
{
	Datum		contacts = CStringGetTextDatum(link->name);

	query_run(&retried_query, &contacts, NULL);
	add_result(writer, SPI_tuptable, 0, SPI_processed);
}

/*
 * Let the pieces in the rows of the update's result after the first be pending, and
 * return their number.
 */
static int64
keep_skipped(const Link *link, SPITupleTable *result, MemoryContext context)
{
	LinkWriter *skipped;
	int64		count = (int64) result->numvals - 1;

	if (count == 0)
		return 0;
	skipped = create_writer(context);
	add_result(skipped, result, 1, result->numvals);
	run_with_pieces(&keep_query, link, skipped);
	tuplestore_end(skipped->pieces);
	return count;
}

/* ---- writing without failing ---- */

static SqlQuery log_query = {
	.sql = "SELECT postalytics.log_maintenance('not linked', $1, $2)"
	" WHERE NOT EXISTS (SELECT"
	"                   FROM postalytics.maintenance_log AS l"
	"                   WHERE l.relation = $1"
	"                     AND l.action = 'not linked'"
	"                     AND l.at > now() - '1 hour'::interval)",
	.result = SPI_OK_SELECT,
	.nparameters = 2,
	.types = {TEXTOID, TEXTOID}
};

/* Log an error of the contacts, and record it in maintenance_log once an hour. */
static void
log_failure(const Link *link, const ErrorData *error)
{
	Datum		values[] = {CStringGetTextDatum(link->name), CStringGetTextDatum(error->message)};

	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("could not write the status of pieces into %s: %s", link->name, error->message),
			 error->detail != NULL ? errdetail_internal("%s", error->detail) : 0,
			 errhint("The pieces are in %s.pending_links, and the next ingest tries again.", EXTENSION_SCHEMA)));
	query_run(&log_query, values, NULL);
}

/*
 * Try to update the contacts of a link.  Returns the error, or NULL if there was none.  A
 * canceled query is an error of the caller.
 */
static ErrorData *
try_update(const Link *link, LinkWriter *writer)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

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
	if (error != NULL && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	return error;
}

/*
 * Write the pieces of a writer into the contacts of a link, and let the pieces that could
 * not be written be pending.  The writer's pieces are pending already if are_pending is
 * true.  Returns the number of pieces that are not pending, or -1 after an error.
 */
static int64
write_pieces(const Link *link, LinkWriter *writer, bool are_pending)
{
	SPITupleTable *result;
	ErrorData  *error;

	register_rowset("linked_pieces", writer->tupdesc, writer->pieces, writer->count);
	error = try_update(link, writer);
	result = SPI_tuptable;
	SPI_unregister_relation("linked_pieces");
	if (error != NULL)
	{
		log_failure(link, error);
		if (!are_pending)
			run_with_pieces(&keep_query, link, writer);
		return -1;
	}
	if (are_pending)
		run_with_pieces(&forget_query, link, writer);
	return writer->count - keep_skipped(link, result, writer->context);
}

/*
 * Write pending pieces of a link.  Returns the number of pieces that are no longer
 * pending.
 */
static int64
retry_pending(const Link *link, MemoryContext context)
{
	LinkWriter *writer = create_writer(context);
	int64		done = 0;

	add_pending(link, writer);
	if (writer->count > 0)
		done = Max(write_pieces(link, writer, true), 0);
	tuplestore_end(writer->pieces);
	return done;
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

/* Write the pieces, whose rows must have been written, into all linked contacts. */
void
link_finish(LinkWriter *writer)
{
	for (const Link *link = first_link(); link != NULL && writer->count > 0; link = link->next)
		if (write_pieces(link, writer, false) >= 0)
			(void) retry_pending(link, writer->context);
	tuplestore_end(writer->pieces);
}

/* ---- SQL ---- */

/* Arguments of link_contacts, in the order of the columns of contact_links. */
enum
{
	ARG_CONTACTS, ARG_ID_FIELD, ARG_ID_COLUMN, ARG_EMAIL_COLUMN,
	ARG_STATUS_COLUMN, ARG_STATUS_AT_COLUMN, N_LINK
};

static SqlQuery link_query = {
	.sql = "INSERT INTO postalytics.contact_links AS l"
	"     (contacts, id_field, id_column, email_column, status_column, status_at_column)"
	" VALUES ($1, $2, $3, $4, $5, $6)"
	" ON CONFLICT (contacts) DO UPDATE"
	" SET (id_field, id_column, email_column, status_column, status_at_column) ="
	"     (excluded.id_field, excluded.id_column, excluded.email_column, excluded.status_column, excluded.status_at_column)",
	.result = SPI_OK_INSERT,
	.nparameters = N_LINK,
	.types = {
		[ARG_CONTACTS] = TEXTOID,
		[ARG_ID_FIELD] = TEXTOID,
		[ARG_ID_COLUMN] = NAMEOID,
		[ARG_EMAIL_COLUMN] = NAMEOID,
		[ARG_STATUS_COLUMN] = NAMEOID,
		[ARG_STATUS_AT_COLUMN] = NAMEOID
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
	kind = get_rel_relkind(link->contacts);
	check_may_link(link->contacts);
	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE && kind != RELKIND_VIEW)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("contacts must be a table or a view")));
	link->name = qualified_name(link->contacts);
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
 * Locks: those of update_contacts, and the link's row.  Errors: 22004 if another argument
 * or both of these are NULL, 42501 (see check_may_link), 42703, 42804 or 42809 for
 * contacts that cannot be written, 55P03 if the contacts are locked.
 */
Datum
postalytics_link_contacts(PG_FUNCTION_ARGS)
{
	Datum		values[N_LINK];
	bool		nulls[N_LINK];
	Link		link;
	SavedUser	caller;
	int64		count;

	read_link(fcinfo, &link);
	for (int i = 0; i < N_LINK; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i);
	}
	values[ARG_CONTACTS] = CStringGetTextDatum(link.name);
	caller = switch_to_owner();
	SPI_connect();
	query_run(&link_query, values, nulls);
	audit("link_contacts", values[ARG_CONTACTS]);
	count = update_contacts(&link, NULL);
	(void) keep_skipped(&link, SPI_tuptable, CurrentMemoryContext);
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

	check_may_link(contacts);
	if (OidIsValid(contacts))
		return qualified_name(contacts);
	return quote_qualified_identifier(range->schemaname, range->relname);
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

/*
 * retry_links() returns bigint
 *
 * Writes pending pieces into their contacts, and returns the number of pieces that are no
 * longer pending.  Must be called as the owner.  Locks: those of update_contacts.
 */
Datum
postalytics_retry_links(PG_FUNCTION_ARGS)
{
	int64		done = 0;

	SPI_connect();
	for (const Link *link = first_link(); link != NULL; link = link->next)
		done += retry_pending(link, CurrentMemoryContext);
	SPI_finish();
	PG_RETURN_INT64(done);
}
