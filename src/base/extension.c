/*
 * extension.c
 *		Finds the extension's relations and owner, and switches to the owner.
 *
 * table.c checks the columns and keys of the relations.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/extension.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/*
 * Return the OID of one of the extension's relations, given its name.  Error
 * 42P01 if it does not exist.
 */
Oid
extension_relation(const char *name)
{
	Oid			schema = get_namespace_oid(EXTENSION_SCHEMA, false);
	Oid			relation = get_relname_relid(name, schema);

	if (!OidIsValid(relation))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s.%s\" does not exist",
						EXTENSION_SCHEMA, name),
				 errhint("Run CREATE EXTENSION %s.", EXTENSION_NAME)));
	return relation;
}

/*
 * Return the extension's owner, who is found as the owner of events, because
 * all members of the extension have the same owner.
 */
Oid
extension_owner(void)
{
	HeapTuple	events = SearchSysCache1(RELOID, ObjectIdGetDatum(extension_relation("events")));
	Oid			owner;

	if (!HeapTupleIsValid(events))
		elog(ERROR, "cache lookup failed for relation %u", extension_relation("events"));
	owner = ((Form_pg_class) GETSTRUCT(events))->relowner;
	ReleaseSysCache(events);
	return owner;
}

/*
 * Switch to the extension's owner, as a SECURITY DEFINER function does.  The
 * caller must have checked the privileges of the current user.  After an
 * error, the abort of the transaction restores the user.
 */
SavedUser
switch_to_owner(void)
{
	SavedUser	before;

	GetUserIdAndSecContext(&before.user, &before.context);
	SetUserIdAndSecContext(extension_owner(), before.context | SECURITY_LOCAL_USERID_CHANGE);
	return before;
}

/* Switch back to the user that switch_to_owner saved. */
void
restore_user(SavedUser before)
{
	SetUserIdAndSecContext(before.user, before.context);
}
