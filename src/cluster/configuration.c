/*
 * configuration.c
 *		Copies the configuration of the front to the slots when a transaction commits.
 *
 * The slots commit a copy at once, so the configuration is copied as late as possible.  The
 * constraint triggers (configuration.sql) only check and stage it: SET CONSTRAINTS can fire
 * them early, and other deferred triggers can fail after them.  After the copy, the commit
 * can still fail if the transaction is SERIALIZABLE, or in a callback of another library.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "base/extension.h"
#include "cluster/configuration.h"
#include "commands/extension.h"
#include "executor/spi.h"

PG_FUNCTION_INFO_V1(postalytics_copy_at_commit);
PG_FUNCTION_INFO_V1(postalytics_is_staged);

/* True if this transaction has staged a configuration, even if a savepoint undid that. */
static bool may_be_staged;

/*
 * True if this transaction has written the row of cluster_configuration.  The caller has
 * opened an SPI connection.
 */
static bool
is_staged(void)
{
	bool		isnull;

	if (!may_be_staged)
		return false;
	SPI_execute("SELECT c.xmin FROM postalytics.cluster_configuration AS c", false, 0);
	return SPI_processed > 0 &&
		TransactionIdIsCurrentTransactionId(DatumGetTransactionId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)));
}

/*
 * Copy a staged configuration to the slots, as the owner.  Error 0A000 if the transaction is
 * being prepared.
 */
static void
end_transaction(bool prepares)
{
	SavedUser	caller;

	/* The transaction may have dropped the extension. */
	if (!OidIsValid(get_extension_oid("postalytics_cluster", true)))
		return;
	caller = switch_to_owner();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	if (is_staged())
	{
		if (prepares)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has changed the configuration of a cluster")));
		SPI_execute("SELECT postalytics.copy_to_all_slots()", false, 0);
	}
	SPI_finish();
	PopActiveSnapshot();
	restore_user(caller);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (may_be_staged && (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE))
		end_transaction(event == XACT_EVENT_PRE_PREPARE);
	may_be_staged = false;
}

/*
 * The callback that is registered first is called last, so that fewer others can fail after
 * it.
 */
void
configuration_init(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
}

/*
 * copy_at_commit() returns void
 *
 * Schedules copy_to_all_slots for commit, unless a rollback to a savepoint undoes what the
 * transaction has staged.  PREPARE TRANSACTION then fails with 0A000.
 */
Datum
postalytics_copy_at_commit(PG_FUNCTION_ARGS)
{
	may_be_staged = true;
	PG_RETURN_VOID();
}

/*
 * is_staged() returns boolean
 *
 * Returns true if the configuration is to be copied when this transaction commits.
 */
Datum
postalytics_is_staged(PG_FUNCTION_ARGS)
{
	bool		result;

	SPI_connect();
	result = is_staged();
	SPI_finish();
	PG_RETURN_BOOL(result);
}
