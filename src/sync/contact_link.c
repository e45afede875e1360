/*
 * contact_link.c
 *		Keeps the table contact_links in each session's memory, and updates the contacts
 *		of a link.
 *
 * The update runs as the owner of the contacts, as a foreign key does.  Thus, neither the
 * role that ingests nor the owner of the extension needs privileges on the contacts, and
 * code that the CRM has attached to the contacts, such as triggers, runs with the
 * privileges of their owner only.  The pieces are read as the owner of the contacts, too,
 * so only those that it may see are written.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/cache.h"
#include "base/compat.h"
#include "base/extension.h"
#include "base/query.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "storage/lmgr.h"
#include "sync/contact_link.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

/* Columns of contact_links, as in link.sql: attribute numbers. */
enum
{
	ATTR_CONTACTS = 1, ATTR_OWNER, ATTR_ID_FIELD, ATTR_ID_COLUMN, ATTR_EMAIL_COLUMN,
	ATTR_STATUS_COLUMN, ATTR_STATUS_AT_COLUMN
};

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
const Link *
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
 * NULL.  Error 42804 if the column has any other type.
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
					 errmsg("column \"%s\" of relation \"%s\" cannot be used as the id of a contact",
							link->id_column, get_rel_name(link->contacts)),
					 errdetail("The column has type %s, but must have type smallint, integer, bigint, uuid, text or character varying.",
							   format_type_be(type))));
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
				 errmsg("column \"%s\" of relation \"%s\" cannot be used as the time of a status",
						link->status_at_column, get_rel_name(link->contacts)),
				 errdetail("The column has type %s, but must have type timestamp with or without time zone.",
						   format_type_be(type))));
	return "p.status_at AT TIME ZONE 'UTC'";
}

/*
 * Append a query for the pieces to write, each with the id and e-mail address that
 * identify its contact.  If all is true, these are all pieces, otherwise those in
 * linked_pieces.
 */
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
 * Append the update of the contacts that differ.  Unless all pieces are written, a contact
 * that has a later status keeps it, because it can be from a piece that is not among
 * these.
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
 * Operators are qualified, because an operator in the schema of the contacts could match
 * the types of their columns better than that in pg_catalog.
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
 * Return the kept plan of a statement for few pieces.  Plans for links that have since
 * changed are not freed, because a session sees few such changes.
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
const char *
qualified_name(Oid relation)
{
	const char *name = get_rel_name(relation);

	return name == NULL ? NULL :
		quote_qualified_identifier(get_namespace_name(get_rel_namespace(relation)), name);
}

/*
 * Return the OID of the contacts with this name, and lock them in ROW EXCLUSIVE mode,
 * without waiting.  Needs no privileges, unlike RangeVarGetRelid.  Errors: 42P01 if they
 * do not exist, 55P03 if the lock is not available.
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
				 errmsg("could not obtain lock on relation \"%s\"", name)));
	if (!OidIsValid(contacts) || !SearchSysCacheExists1(RELOID, ObjectIdGetDatum(contacts)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s\" does not exist", name)));
	return contacts;
}

/*
 * Raise error 42501 if the contacts have another owner than when they were linked.  The
 * name can belong to another relation by now.  Without this check, a user could, by
 * renaming schemas or tables, have a status written into a relation to which the user may
 * not write.
 */
static void
check_owner(const Link *link)
{
	if (strcmp(GetUserNameFromId(relation_owner(link->contacts), false), link->owner) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("owner of relation \"%s\" has changed since the relation was linked", link->name),
				 errhint("Call %s.link_contacts again.", EXTENSION_SCHEMA)));
}

/*
 * Update the contacts of a link, as their owner, from the pieces in linked_pieces, or from
 * all pieces if npieces, the number of pieces there, is 0.  The caller must be connected to
 * SPI and be the owner of the extension.  Returns the number of contacts that were updated.
 * The result is in SPI_tuptable, as update_statement says.
 *
 * Triggers of the contacts run with the schema of the contacts in search_path, and wait
 * for each lock at most 0.1 seconds.  Settings that they change are restored.  Locks and
 * errors are those of lock_contacts and check_owner; can also raise any error that the
 * statement or the triggers raise.
 */
int64
update_contacts(const Link *link, int64 npieces)
{
	Link		found = *link;
	SavedUser	before;
	int			level;
	char	   *sql;
	bool		isnull;

	found.contacts = lock_contacts(link->name);
	check_owner(&found);
	sql = update_statement(&found, npieces == 0);
	GetUserIdAndSecContext(&before.user, &before.context);
	SetUserIdAndSecContext(relation_owner(found.contacts),
						   before.context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	level = NewGUCNestLevel();
	set_parameter("search_path", psprintf("pg_catalog, %s, pg_temp",
										  quote_identifier(get_namespace_name(get_rel_namespace(found.contacts)))));
	set_parameter("lock_timeout", "100ms");
	set_parameter("row_security", "on");
	run_statement(sql, npieces > 0 && npieces <= MAX_FEW);
	AtEOXact_GUC(false, level);
	restore_user(before);
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}
