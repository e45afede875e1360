/*
 * guard.c
 *		Refuses to drop the extension silently while it holds events: its
 *		leaves are no members of it, and would go without a word.
 */
#include "postalytics_status.h"

#include "commands/event_trigger.h"
#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(postalytics_guard_drop);

/* Does the command drop this extension, and without CASCADE? */
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

static bool
events_exist(void)
{
	bool		exist;

	SPI_connect();
	if (SPI_execute("SELECT FROM postalytics.events LIMIT 1", true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read events");
	exist = SPI_processed > 0;
	SPI_finish();
	return exist;
}

/*
 * Event trigger function, on ddl_command_start of DROP EXTENSION.
 * Errors: 2BP01 where the extension would be dropped with its events.
 */
Datum
postalytics_guard_drop(PG_FUNCTION_ARGS)
{
	EventTriggerData *trigger = (EventTriggerData *) fcinfo->context;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("guard_drop must be called as an event trigger")));
	if (IsA(trigger->parsetree, DropStmt) &&
		drops_extension((DropStmt *) trigger->parsetree) && events_exist())
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop extension %s because it holds events", EXTENSION_NAME),
				 errdetail("Its events, pieces, campaigns, rejects and syncs would be lost."),
				 errhint("Back them up, then use DROP EXTENSION %s CASCADE.", EXTENSION_NAME)));
	return PointerGetDatum(NULL);
}
