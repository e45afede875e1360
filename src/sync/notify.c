/*
 * notify.c
 *		notify(), a trigger function for the users' own tables.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/tupdesc.h"
#include "base/compat.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "sync/notification.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(postalytics_notify);

#define MAX_CHANNEL		(NAMEDATALEN - 1)

/*
 * Return the transition table of the trigger: the new rows or, for DELETE, the old
 * rows.  NULL if the trigger has no such table.
 */
static Tuplestorestate *
changed_rows(const TriggerData *trigger)
{
	return TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ?
		trigger->tg_oldtable : trigger->tg_newtable;
}

static const char *
operation(const TriggerData *trigger)
{
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		return "INSERT";
	return TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? "UPDATE" : "DELETE";
}

/* Raise an error unless the trigger was defined as postalytics_notify requires. */
static void
check_trigger(FunctionCallInfo fcinfo)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	const char *channel;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager", "notify")));
	if (!TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) ||
		TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must be defined as AFTER INSERT, UPDATE or DELETE FOR EACH STATEMENT",
						trigger->tg_trigger->tgname)));
	if (changed_rows(trigger) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must have a transition table", trigger->tg_trigger->tgname),
				 errhint("Add REFERENCING %s TABLE AS changed.",
						 TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ? "OLD" : "NEW")));
	if (trigger->tg_trigger->tgnargs < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("trigger \"%s\" must have a channel argument", trigger->tg_trigger->tgname),
				 errhint("Use notify('channel') or notify('channel', 'key_column', ...).")));
	channel = trigger->tg_trigger->tgargs[0];
	if (channel[0] == '\0' || strlen(channel) > MAX_CHANNEL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("channel name must be between 1 and %d bytes long", MAX_CHANNEL)));
}

/*
 * Return the columns of the primary key, which may be deferrable; NIL if there
 * is none.
 */
static List *
primary_key_columns(Relation relation)
{
	List	   *columns = NIL;
	ListCell   *cell;

	foreach(cell, RelationGetIndexList(relation))
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		if (index->rd_index->indisprimary)
			for (int i = 0; i < index->rd_index->indnkeyatts; i++)
				columns = lappend_int(columns, index->rd_index->indkey.values[i]);
		index_close(index, AccessShareLock);
	}
	return columns;
}

/*
 * Return the columns that the trigger names, or else the columns of the primary
 * key.  Errors: 42703 if a column does not exist, 22023 if there is no key.
 */
static List *
key_columns(const TriggerData *trigger)
{
	Relation	relation = trigger->tg_relation;
	List	   *columns = NIL;

	for (int i = 1; i < trigger->tg_trigger->tgnargs; i++)
	{
		const char *name = trigger->tg_trigger->tgargs[i];
		AttrNumber	column = get_attnum(RelationGetRelid(relation), name);

		if (column <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of relation \"%s\" does not exist",
							name, RelationGetRelationName(relation))));
		columns = lappend_int(columns, column);
	}
	if (columns == NIL)
		columns = primary_key_columns(relation);
	if (columns == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("relation \"%s\" has no primary key", RelationGetRelationName(relation)),
				 errhint("Name its key columns: notify('channel', 'key_column', ...).")));
	return columns;
}

/* Append a value: an integer or a boolean as such, any other value as a string. */
static void
append_value(StringInfo json, Datum value, Oid type)
{
	Oid			output;
	bool		is_varlena;
	char	   *text;

	getTypeOutputInfo(type, &output, &is_varlena);
	text = OidOutputFunctionCall(output, value);

	switch (type)
	{
		case BOOLOID:
			appendStringInfoString(json, DatumGetBool(value) ? "true" : "false");
			break;
		case INT2OID:
		case INT4OID:
		case INT8OID:
			appendStringInfoString(json, text);
			break;
		default:
			escape_json(json, text);
	}
}

static void
append_key(StringInfo json, TupleTableSlot *row, List *columns)
{
	ListCell   *cell;

	foreach(cell, columns)
	{
		Form_pg_attribute column = TupleDescAttr(row->tts_tupleDescriptor, lfirst_int(cell) - 1);
		bool		isnull;
		Datum		value = slot_getattr(row, column->attnum, &isnull);

		appendStringInfoString(json, cell == list_head(columns) ? "{" : ", ");
		escape_json(json, NameStr(column->attname));
		appendStringInfoString(json, ": ");
		if (isnull)
			appendStringInfoString(json, "null");
		else
			append_value(json, value, column->atttypid);
	}
	appendStringInfoChar(json, '}');
}

/*
 * Begin a notification of changed rows: {"table": "public.person",
 * "operation": "UPDATE", ...}.
 */
static void
notification_begin_change(Notification *notification, const TriggerData *trigger)
{
	Relation	relation = trigger->tg_relation;
	StringInfoData about;

	initStringInfo(&about);
	appendStringInfoString(&about, "{\"table\": ");
	escape_json(&about,
				quote_qualified_identifier(get_namespace_name(RelationGetNamespace(relation)),
										   RelationGetRelationName(relation)));
	appendStringInfo(&about, ", \"operation\": \"%s\"", operation(trigger));
	notification_begin(notification, about.data, "keys");
}

/*
 * notify(channel [, key column ...]), an AFTER trigger FOR EACH STATEMENT with
 * a transition table
 *
 * Sends a notification to the channel, with the table, the operation, the number
 * of changed rows, and as many of their keys as fit.  Does nothing if no row was
 * changed.  The key columns default to the primary key.  Errors: 39P01 for a
 * trigger of another kind or without a transition table, 22023 if the channel is
 * missing, empty or too long, or if there is no key, 42703 if a column does not
 * exist.
 */
Datum
postalytics_notify(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Tuplestorestate *rows;
	TupleTableSlot *row;
	List	   *columns;
	Notification notification;

	check_trigger(fcinfo);
	columns = key_columns(trigger);
	rows = changed_rows(trigger);
	row = MakeSingleTupleTableSlot(RelationGetDescr(trigger->tg_relation),
								   &TTSOpsMinimalTuple);
	notification_begin_change(&notification, trigger);
	tuplestore_rescan(rows);
	while (tuplestore_gettupleslot(rows, true, false, row))
	{
		StringInfo	item = notification_item(&notification);

		if (item != NULL)
		{
			append_key(item, row, columns);
			notification_item_end(&notification);
		}
	}
	ExecDropSingleTupleTableSlot(row);
	notification_send(&notification, trigger->tg_trigger->tgargs[0]);
	return PointerGetDatum(NULL);
}
