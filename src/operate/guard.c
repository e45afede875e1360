/*
 * guard.c
 *		Refuses to drop the extension without CASCADE while it holds events,
 *		and removes the bindings of roles whose grants are dropped.
 *
 * The partitions are not members of the extension, so the server would drop
 * them silently.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/query.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "commands/user.h"
#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(postalytics_guard_drop);

/* True if the command drops this extension without CASCADE. */
static bool
drops_extension(const DropStmt *drop)
{
	ListCell   *cell;

	if (drop->removeType != OBJECT_EXTENSION || drop->behavior == DROP_CASCADE)
		return false;
	foreach(cell, drop->objects)
	{
		if (strcmp(strVal(lfirst(cell)), EXTENSION_NAME) == 0)
			return true;
	}
	return false;
}

static SqlQuery loss_query = {
	.sql = "SELECT pg_catalog.format("
	"           '%s monthly partitions of events (%s), and the pieces, campaigns, rejects, syncs and deliveries',"
	"           pg_catalog.count(*),"
	"           pg_catalog.pg_size_pretty(pg_catalog.sum(pg_catalog.pg_total_relation_size(t.relid))))"
	" FROM pg_catalog.pg_partition_tree('postalytics.events') AS t"
	" WHERE t.isleaf"
	" HAVING EXISTS (SELECT FROM postalytics.events)",
	.result = SPI_OK_SELECT
};

/* Return a description of what would be lost; NULL if there are no events. */
static char *
describe_loss(void)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *loss = NULL;

	SPI_connect();
	query_run(&loss_query, NULL, NULL);
	if (SPI_processed > 0)
		loss = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (loss != NULL)
		loss = MemoryContextStrdup(caller, loss);
	SPI_finish();
	return loss;
}

/* Parameters of bound_query and unbind_query. */
enum
{
	UNBIND_ROLES, N_UNBIND
};

static SqlQuery bound_query = {
	.sql = "SELECT"
	" FROM postalytics.bindings AS b"
	" WHERE b.role = ANY ($1)",
	.result = SPI_OK_SELECT,
	.nparameters = N_UNBIND,
	.types = {[UNBIND_ROLES] = OIDARRAYOID}
};

static SqlQuery unbind_query = {
	.sql = "DELETE FROM postalytics.bindings AS b"
	" WHERE b.role = ANY ($1)",
	.result = SPI_OK_DELETE,
	.nparameters = N_UNBIND,
	.types = {[UNBIND_ROLES] = OIDARRAYOID}
};

/*
 * Remove the bindings of roles whose privileges DROP OWNED revokes.  Otherwise
 * a binding would stay in effect if its role has the same privileges through
 * another role.
 */
static void
unbind_roles(const List *roles)
{
	Datum	   *elements = palloc(list_length(roles) * sizeof(Datum));
	Datum		values[N_UNBIND];
	int			count = 0;
	ListCell   *cell;

	foreach(cell, roles)
		elements[count++] = ObjectIdGetDatum(lfirst_oid(cell));
	values[UNBIND_ROLES] = PointerGetDatum(construct_array(elements, count, OIDOID, sizeof(Oid), true, TYPALIGN_INT));
	SPI_connect();
	/* Even a DELETE of no rows would wait for a grant in progress. */
	query_run(&bound_query, values, NULL);
	if (SPI_processed > 0)
		query_run(&unbind_query, values, NULL);
	SPI_finish();
}

/*
 * guard_drop(), the event trigger on ddl_command_start of DROP EXTENSION and
 * DROP OWNED
 *
 * Removes the bindings of roles named in DROP OWNED.  Error 2BP01 if the
 * command would drop events and the role may drop the extension.  Other roles
 * get the server's own error, which reveals nothing.
 */
Datum
postalytics_guard_drop(PG_FUNCTION_ARGS)
{
	EventTriggerData *trigger = (EventTriggerData *) fcinfo->context;
	Node	   *statement;
	SavedUser	caller;
	List	   *dropped = NIL;	/* roles whose objects are dropped */
	bool		drops = false;	/* drops the extension without CASCADE */
	char	   *loss = NULL;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by event trigger manager", "guard_drop")));
	statement = trigger->parsetree;
	if (IsA(statement, DropStmt))
		drops = drops_extension((DropStmt *) statement);
	else if (IsA(statement, DropOwnedStmt))
	{
		const DropOwnedStmt *drop = (DropOwnedStmt *) statement;

		/* This must precede switch_to_owner: CURRENT_USER is the caller. */
		dropped = roleSpecsToIds(drop->roles);
		drops = drop->behavior != DROP_CASCADE && list_member_oid(dropped, extension_owner());
	}
	if (dropped == NIL && !drops)
		return PointerGetDatum(NULL);
	caller = switch_to_owner();
	if (dropped != NIL)
		unbind_roles(dropped);
	if (drops && has_privs_of_role(caller.user, extension_owner()))
		loss = describe_loss();
	restore_user(caller);
	if (loss != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop extension %s because it contains events", EXTENSION_NAME),
				 errdetail("It contains %s.", loss),
				 errhint("Back up the data, then use DROP EXTENSION ... CASCADE.")));
	return PointerGetDatum(NULL);
}
