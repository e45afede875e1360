/*
 * inbox.c
 *		The triggers of the view inbox, which ingest the rows of a statement
 *		together.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/extension.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "feed/reader.h"
#include "fmgr.h"
#include "ingest/store.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(postalytics_inbox_insert);
PG_FUNCTION_INFO_V1(postalytics_inbox_row);

/*
 * The rows of a statement on inbox, which are stored together at the end of
 * the statement.  A nested statement has a separate Inbox.  An Inbox is
 * allocated in the memory context of the subtransaction, so that an abort
 * removes it.
 */
typedef struct Inbox
{
	MemoryContext context;
	AllowedAccounts bound;		/* accounts for which the current user may
								 * ingest */
	Call	   *call;
	EventBatch *batch;
	Size		bytes;			/* approximate size of the batch, in bytes */
	Spill	   *spill;			/* events of earlier batches, or NULL */
	struct Inbox *outer;		/* inbox of the enclosing statement, or NULL */
	MemoryContextCallback leave;
} Inbox;

/* The inbox of the innermost statement, or NULL. */
static Inbox *inbox;

/* Approximate limit on the memory for the rows of a statement, in bytes. */
#define INBOX_BYTES		(64 * 1024 * 1024)

static void
leave_inbox(void *arg)
{
	inbox = ((Inbox *) arg)->outer;
}

static void
enter_inbox(void)
{
	MemoryContext context = AllocSetContextCreate(CurTransactionContext, "postalytics inbox",
												  ALLOCSET_SMALL_SIZES);
	Inbox	   *entered = MemoryContextAllocZero(context, sizeof(Inbox));
	MemoryContext caller = MemoryContextSwitchTo(context);

	ingest_accounts(&entered->bound);
	MemoryContextSwitchTo(caller);
	entered->context = context;
	entered->call = call_create(context, true);
	entered->batch = event_batch_create(context, entered->call);
	entered->outer = inbox;
	entered->leave.func = leave_inbox;
	entered->leave.arg = entered;
	MemoryContextRegisterResetCallback(context, &entered->leave);
	inbox = entered;
}

/*
 * Write the batch to the spill, which is created if necessary, and begin an
 * empty batch.
 */
static void
spill_inbox(void)
{
	SavedUser	caller = switch_to_owner();

	if (inbox->spill == NULL)
		inbox->spill = spill_create(inbox->context);
	spill_batch(inbox->batch, inbox->spill);
	MemoryContextDelete(inbox->batch->context);
	inbox->batch = event_batch_create(inbox->context, inbox->call);
	inbox->bytes = 0;
	restore_user(caller);
}

/* Store the rows of the statement, and free the inbox. */
static void
store_inbox(void)
{
	SavedUser	caller = switch_to_owner();

	if (inbox->spill == NULL)
		(void) store_batch(inbox->batch, 0);
	else
	{
		spill_inbox();
		(void) store_spill(inbox->spill);
		spill_end(inbox->spill);
	}
	restore_user(caller);
	MemoryContextDelete(inbox->context);
}

/*
 * Return a row as JSON: its payload if no other column except account has a
 * value, otherwise an object of its columns without account.  *account is set
 * to the account, or to NULL if that column is NULL.
 */
static const char *
inbox_row_json(HeapTuple row, TupleDesc tupdesc, char **account)
{
	StringInfoData json;
	char	   *payload = NULL;

	initStringInfo(&json);
	*account = NULL;
	for (int i = 0; i < tupdesc->natts; i++)
	{
		const char *name = NameStr(TupleDescAttr(tupdesc, i)->attname);
		char	   *value = SPI_getvalue(row, tupdesc, i + 1);

		if (value == NULL)
			continue;
		if (strcmp(name, "account") == 0)
		{
			*account = value;
			continue;
		}
		appendStringInfoString(&json, json.len == 0 ? "{" : ", ");
		escape_json(&json, name);
		appendStringInfoString(&json, ": ");
		if (strcmp(name, "payload") == 0)
		{
			payload = json.len == strlen("{\"payload\": ") ? value : NULL;
			appendStringInfoString(&json, value);
		}
		else
			escape_json(&json, value);
	}
	if (payload != NULL)
		return payload;
	appendStringInfoString(&json, json.len == 0 ? "{}" : "}");
	return json.data;
}

/*
 * inbox_row(), called by the row trigger of inbox
 *
 * Reads a row into the batch, and writes the batch to the spill if it is full.
 * Locks and errors are those of ingest.  Error 39P01 if the function is called
 * in any other way.
 */
Datum
postalytics_inbox_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	const char *json;
	char	   *account;
	EventAccount event_account;
	uint32		length;

	if (!CALLED_AS_TRIGGER(fcinfo) || inbox == NULL ||
		!TRIGGER_FIRED_INSTEAD(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"inbox_row\" can be used only by the row trigger of view \"%s.inbox\"", EXTENSION_SCHEMA)));

	json = inbox_row_json(trigger->tg_trigtuple,
						  RelationGetDescr(trigger->tg_relation), &account);
	length = strlen(json);
	event_batch_check_size(inbox->batch, length);
	json = MemoryContextStrdup(inbox->batch->context, json);
	event_account = account_of_call(&inbox->bound, account);
	event_account.name = MemoryContextStrdup(inbox->batch->context, event_account.name);
	event_batch_read(inbox->batch, json, length, &event_account);

	inbox->bytes += length + sizeof(EventRecord);
	if (inbox->bytes >= INBOX_BYTES)
		spill_inbox();
	return PointerGetDatum(trigger->tg_trigtuple);
}

/*
 * inbox_insert(), called by the BEFORE and AFTER statement triggers of inbox
 *
 * The BEFORE trigger begins an Inbox, and the AFTER trigger stores its rows.
 * Locks and errors are those of ingest.  Error 39P01 if the function is called
 * in any other way.
 */
Datum
postalytics_inbox_insert(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"inbox_insert\" can be used only by the statement triggers of view \"%s.inbox\"", EXTENSION_SCHEMA)));

	if (TRIGGER_FIRED_BEFORE(trigger->tg_event))
		enter_inbox();
	else if (inbox != NULL)
		store_inbox();
	return PointerGetDatum(NULL);
}
