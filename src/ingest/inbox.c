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
#include "ingest/inbox.h"
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
	StoreRows	store;
	void	   *stored;			/* state of store, NULL at first */
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
enter_inbox(StoreRows store)
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
	entered->store = store;
	entered->outer = inbox;
	entered->leave.func = leave_inbox;
	entered->leave.arg = entered;
	MemoryContextRegisterResetCallback(context, &entered->leave);
	inbox = entered;
}

/* Store the batch.  Unless it is the last, begin an empty batch. */
static void
store_inbox(bool is_last)
{
	SavedUser	caller = switch_to_owner();

	inbox->store(inbox->batch, &inbox->stored, is_last);
	MemoryContextDelete(inbox->batch->context);
	inbox->batch = is_last ? NULL : event_batch_create(inbox->context, inbox->call);
	inbox->bytes = 0;
	restore_user(caller);
}

/* Store all rows at the end of the statement, so that ingest orders all of them. */
static void
store_together(EventBatch *batch, void **stored, bool is_last)
{
	Spill	   *spill = *stored;

	if (is_last && spill == NULL)
	{
		(void) store_batch(batch, 0);
		return;
	}
	if (spill == NULL)
		*stored = spill = spill_create(MemoryContextGetParent(batch->context));
	spill_batch(batch, spill);
	if (is_last)
	{
		(void) store_spill(spill);
		spill_end(spill);
	}
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
 * Reads a row into the batch, and stores the batch if it is full.
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
		store_inbox(false);
	return PointerGetDatum(trigger->tg_trigtuple);
}

/*
 * Begin an Inbox for the BEFORE statement trigger of inbox, and store its rows for the
 * AFTER trigger.  Locks and errors are those of ingest.  Error 39P01 if fcinfo is not a
 * call of these triggers.
 */
void
inbox_statement(FunctionCallInfo fcinfo, StoreRows store)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"inbox_insert\" can be used only by the statement triggers of view \"%s.inbox\"", EXTENSION_SCHEMA)));

	if (TRIGGER_FIRED_BEFORE(trigger->tg_event))
		enter_inbox(store);
	else if (inbox != NULL)
	{
		store_inbox(true);
		MemoryContextDelete(inbox->context);
	}
}

/*
 * inbox_insert(), called by the BEFORE and AFTER statement triggers of inbox: see
 * inbox_statement.
 */
Datum
postalytics_inbox_insert(PG_FUNCTION_ARGS)
{
	inbox_statement(fcinfo, store_together);
	return PointerGetDatum(NULL);
}
