/*
 * notify.c
 *		What a channel is told: one notification a statement, however many rows
 *		it brings, as JSON that fits in one.  And notify(), the same for the
 *		users' own tables.
 */
#include "postalytics_status.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/tupdesc.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(postalytics_notify);

/* The server's own limit is "less than 8000 bytes". */
#define MAX_PAYLOAD		7999

/* ---- a notification, while it is made ---- */

/*
 * {"<about>": …, "count": …, "<list>": [ … ]}
 *
 * about is JSON, without its closing brace.  It allocates in the current memory
 * context, and must be small.
 */
void
notice_begin(Notice *notice, const char *about, const char *list)
{
	notice->about = about;
	notice->list = list;
	notice->count = 0;
	initStringInfo(&notice->items);
	notice->room = MAX_PAYLOAD -
		strlen(psprintf("%s, \"count\": " INT64_FORMAT ", \"%s\": []}",
						about, PG_INT64_MAX, list));
}

/* Count an item; where to write it, or NULL if there is no more room. */
StringInfo
notice_item(Notice *notice)
{
	notice->count++;
	if (notice->room <= 0)
		return NULL;
	notice->before = notice->items.len;
	if (notice->before > 0)
		appendStringInfoString(&notice->items, ", ");
	return &notice->items;
}

/* The item is written: if it does not fit, it was the last. */
void
notice_item_end(Notice *notice)
{
	if (notice->items.len <= notice->room)
		return;
	notice->items.len = notice->before;
	notice->items.data[notice->before] = '\0';
	notice->room = 0;
}

/* Notify, at commit, if anything was counted; errors as pg_notify's. */
void
notice_send(const Notice *notice, const char *channel)
{
	if (notice->count > 0)
		Async_Notify(channel,
					 psprintf("%s, \"count\": " INT64_FORMAT ", \"%s\": [%s]}",
							  notice->about, notice->count, notice->list,
							  notice->items.data));
}

/* ---- notify(): the trigger for the users' own tables ---- */

#define MAX_CHANNEL		(NAMEDATALEN - 1)

/* The rows that a statement changed: as they are now, or were if it deletes. */
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

/* Check how the trigger was made, before anything else. */
static void
check_trigger(FunctionCallInfo fcinfo)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	const char *channel;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("notify must be called as a trigger")));
	if (!TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) ||
		TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must be AFTER INSERT, UPDATE or DELETE, FOR EACH STATEMENT",
						trigger->tg_trigger->tgname)));
	if (changed_rows(trigger) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" has no transition table", trigger->tg_trigger->tgname),
				 errhint("Add REFERENCING %s TABLE AS changed.",
						 TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ? "OLD" : "NEW")));
	if (trigger->tg_trigger->tgnargs < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("trigger \"%s\" names no channel", trigger->tg_trigger->tgname),
				 errhint("Use notify('channel') or notify('channel', 'key_column', ...).")));
	channel = trigger->tg_trigger->tgargs[0];
	if (channel[0] == '\0' || strlen(channel) > MAX_CHANNEL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("channel \"%s\" is not of 1 to %d bytes", channel, MAX_CHANNEL)));
}

/* In the key's order; a deferrable one will do.  NIL if there is none. */
static List *
primary_key(Relation relation)
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

/* The columns that the trigger names, or else those of the primary key. */
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
		columns = primary_key(relation);
	if (columns == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("relation \"%s\" has no primary key", RelationGetRelationName(relation)),
				 errhint("Name its key columns: notify('channel', 'key_column', ...).")));
	return columns;
}

/* Integers and booleans are JSON as they are; the rest is their text. */
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

/* {"table": "public.person", "operation": "UPDATE" */
static char *
about_change(const TriggerData *trigger)
{
	Relation	relation = trigger->tg_relation;
	StringInfoData about;

	initStringInfo(&about);
	appendStringInfoString(&about, "{\"table\": ");
	escape_json(&about,
				quote_qualified_identifier(get_namespace_name(RelationGetNamespace(relation)),
										   RelationGetRelationName(relation)));
	appendStringInfo(&about, ", \"operation\": \"%s\"", operation(trigger));
	return about.data;
}

/*
 * notify(channel [, key column ...]), an AFTER trigger for each statement, with
 * a transition table
 *
 * Notifies channel of the table, the operation, how many rows changed, and as
 * many of their keys as fit; of nothing where no row did.  Without key columns
 * they are the primary key's.  Errors: 39P01 for a trigger of another kind or
 * without transition table, 22023 for no channel or one of a wrong length, or
 * no key, 42703 for a column that is not there.
 */
Datum
postalytics_notify(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Tuplestorestate *rows;
	TupleTableSlot *row;
	List	   *columns;
	Notice		notice;

	check_trigger(fcinfo);
	columns = key_columns(trigger);
	rows = changed_rows(trigger);
	row = MakeSingleTupleTableSlot(RelationGetDescr(trigger->tg_relation),
								   &TTSOpsMinimalTuple);
	notice_begin(&notice, about_change(trigger), "keys");
	tuplestore_rescan(rows);
	while (tuplestore_gettupleslot(rows, true, false, row))
	{
		StringInfo	item = notice_item(&notice);

		if (item != NULL)
		{
			append_key(item, row, columns);
			notice_item_end(&notice);
		}
	}
	ExecDropSingleTupleTableSlot(row);
	notice_send(&notice, trigger->tg_trigger->tgargs[0]);
	return PointerGetDatum(NULL);
}
