/*
 * extension.c
 *		Finds the extension's relations and owner, switches to the owner, and sets
 *		configuration parameters for a while.
 *
 * table.c checks the columns and keys of the relations.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/compat.h"
#include "base/extension.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* The symbol of function interface(), without the number. */
#define INTERFACE_SYMBOL	"postalytics_interface_"

/*
 * Check that the extension in this schema requires the interface that this library
 * provides, by comparing the C symbol of the function interface().  Errors: 55000 if
 * the interfaces differ, 42883 if the function does not exist.
 */
static void
check_interface(Oid schema)
{
	static const char expected[] = INTERFACE_SYMBOL CppAsString2(EXTENSION_INTERFACE);
	oidvector  *none = buildoidvector(NULL, 0);
	HeapTuple	function = SearchSysCache3(PROCNAMEARGSNSP, CStringGetDatum("interface"),
										   PointerGetDatum(none), ObjectIdGetDatum(schema));
	text	   *symbol;
	int			required = 0;
	bool		isnull;

	pfree(none);
	if (!HeapTupleIsValid(function))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function %s.interface() does not exist", EXTENSION_SCHEMA)));
	symbol = DatumGetTextPP(SysCacheGetAttr(PROCNAMEARGSNSP, function, Anum_pg_proc_prosrc, &isnull));
	if (VARSIZE_ANY_EXHDR(symbol) == sizeof(expected) - 1 &&
		memcmp(VARDATA_ANY(symbol), expected, sizeof(expected) - 1) == 0)
	{
		ReleaseSysCache(function);
		return;
	}

	(void) sscanf(text_to_cstring(symbol), INTERFACE_SYMBOL "%d", &required);
	ReleaseSysCache(function);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("library version %s does not support interface %d of extension \"%s\"",
					POSTALYTICS_VERSION, required, EXTENSION_NAME),
			 errdetail("It supports only interface %d.", EXTENSION_INTERFACE),
			 required < EXTENSION_INTERFACE ?
			 errhint("Run ALTER EXTENSION %s UPDATE.", EXTENSION_NAME) :
			 errhint(RELOAD_HINT)));
}

/* Return the OID of a relation in the extension's schema.  Error 42P01 if it does not exist. */
static Oid
find_relation(Oid schema, const char *name)
{
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
 * Return the OID of one of the extension's relations, given its name.  Error
 * 42P01 if it does not exist, 55000 if the extension requires another interface
 * (see check_interface).
 */
Oid
extension_relation(const char *name)
{
	Oid			schema = get_namespace_oid(EXTENSION_SCHEMA, false);
	Oid			relation = find_relation(schema, name);

	check_interface(schema);
	return relation;
}

/* Return the owner of a relation; InvalidOid if the relation does not exist. */
Oid
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
 * Return the extension's owner, who is found as the owner of events, because
 * all members of the extension have the same owner.  The interface is not
 * checked, so that an extension with another interface can be dropped.
 */
Oid
extension_owner(void)
{
	Oid			relation = find_relation(get_namespace_oid(EXTENSION_SCHEMA, false), "events");
	Oid			owner = relation_owner(relation);

	if (!OidIsValid(owner))
		elog(ERROR, "cache lookup failed for relation %u", relation);
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

/* Set a configuration parameter until the caller's GUC nest level ends. */
void
set_parameter(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}
