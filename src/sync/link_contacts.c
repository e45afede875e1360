/*
 * link_contacts.c
 *		The SQL functions link_contacts, unlink_contacts and retry_links.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/query.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "rights/binding.h"
#include "storage/lmgr.h"
#include "sync/delivery.h"
#include "sync/link.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(postalytics_link_contacts);
PG_FUNCTION_INFO_V1(postalytics_unlink_contacts);
PG_FUNCTION_INFO_V1(postalytics_retry_links);

/* The number of pending pieces of a link that retry_links tries in one call. */
#define MAX_RETRIED		1000

/* The number of times that it tries pieces of a link in halves, after an error. */
#define MAX_SPLITS		40

/* Arguments of link_contacts, which are also parameters of link_query. */
enum
{
	ARG_CONTACTS, ARG_ID_FIELD, ARG_ID_COLUMN, ARG_EMAIL_COLUMN,
	ARG_STATUS_COLUMN, ARG_STATUS_AT_COLUMN, N_ARGS, LINK_OWNER = N_ARGS, N_LINK
};

/*
 * Wait for the transactions that are storing events, and block new ones.  Otherwise, a
 * transaction that does not see the link yet would not write its pieces into the contacts,
 * and they would not be visible here, either.
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
 * Raise error 42501 unless the current user may link and unlink these contacts.  The user
 * must have the privileges of their owner, because they are written as their owner, and
 * those of a manager, because their triggers run in ingest.
 */
static void
check_may_link(Oid contacts)
{
	Oid			owner = relation_owner(contacts);

	if (!may_manage() || (OidIsValid(owner) && !has_privs_of_role(GetUserId(), owner)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to link or unlink contacts"),
				 errdetail("Only roles with the privileges of the owner of the contacts and those that %s.grant_manage grants may do so.",
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
				 errmsg("cannot link relation \"%s\"", link->name),
				 errdetail("Contacts must be an ordinary table, a partitioned table or a view, and must not be temporary.")));
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
 * Errors: 22004 if both id_field and email_column, or any other argument, are NULL, 25001
 * unless the transaction is READ COMMITTED, 42501 (see check_may_link), 42703, 42804 or 42809 for
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
	count = update_contacts(&link, 0);
	keep_skipped(&link, SPI_tuptable, CurrentMemoryContext);
	SPI_finish();
	restore_user(caller);
	PG_RETURN_INT64(count);
}

/*
 * Return the qualified name of the contacts that a user names, which need not exist any
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

	/* The caller's search_path is used only to look up the name. */
	set_parameter("search_path", "pg_catalog, pg_temp");
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

/* An ingest that runs beside unlink_contacts can leave such rows. */
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
 * Writes pending pieces into their contacts, up to MAX_RETRIED of each link, and returns
 * the number of rows of pending_links that are done.  Also deletes those of contacts that
 * are not linked.  Must be called as the owner.  Locks: those of update_contacts, and rows of
 * pending_links.
 */
Datum
postalytics_retry_links(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		done = 0;

	SPI_connect();
	for (const Link *link = first_link(); link != NULL; link = link->next)
		done += retry_pending(link, now, MAX_RETRIED, MAX_SPLITS, CurrentMemoryContext);
	query_run(&orphans_query, NULL, NULL);
	SPI_finish();
	PG_RETURN_INT64(done);
}
