/*
 * configuration.c
 *		Copies the configuration of the front to the slots when a transaction commits.
 *
 * The slots commit what is copied to them at once, so it must not be copied while the
 * transaction can still be rolled back.  The constraint triggers (configuration.sql) only
 * check the configuration on the slots: SET CONSTRAINTS can fire them at any time, and
 * triggers of others can fail after them.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "base/extension.h"
#include "commands/extension.h"
#include "executor/spi.h"

PG_FUNCTION_INFO_V1(postalytics_copy_at_commit);

/* True if this transaction has changed the configuration. */
static bool has_changed;

/* The extension may have been dropped since the change. */
static void
copy_configuration(void)
{
	SavedUser	caller;

	if (!OidIsValid(get_extension_oid("postalytics_cluster", true)))
		return;
	caller = switch_to_owner();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	SPI_execute("SELECT postalytics.copy_to_checked_slots()", false, 0);
	SPI_finish();
	PopActiveSnapshot();
	restore_user(caller);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	bool		copies = has_changed;

	has_changed = false;
	if (copies && event == XACT_EVENT_PRE_COMMIT)
		copy_configuration();
	if (copies && event == XACT_EVENT_PRE_PREPARE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has changed the configuration of a cluster")));
}

/*
 * copy_at_commit() → void
 *
 * Calls copy_to_checked_slots, as the owner, when the transaction commits.  The transaction
 * fails with 0A000 if it is prepared instead.
 */
Datum
postalytics_copy_at_commit(PG_FUNCTION_ARGS)
{
	static bool registered;

	if (!registered)
		RegisterXactCallback(at_transaction_end, NULL);
	registered = true;
	has_changed = true;
	PG_RETURN_VOID();
}
