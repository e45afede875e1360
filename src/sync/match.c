/*
 * match.c
 *		Matches new events against the syncs, writes the deliveries, and notifies
 *		the syncs.
 *
 * An event is for a sync if the sync accepts the status, the campaign or drop, and
 * the account of the event.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/text.h"
#include "fmgr.h"
#include "storage/lmgr.h"
#include "sync/delivery_writer.h"
#include "sync/match.h"
#include "sync/notification.h"
#include "sync/sync.h"
#include "sync/wake.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(postalytics_is_for);

/*
 * True if a list contains a text, or if the list is empty, which means any text.
 * The text may be NULL.
 */
static bool
contains_text(const TextList *list, const text *value)
{
	return value == NULL ? is_listed(list, NULL, 0) :
		is_listed(list, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

/*
 * True if a sync accepts a campaign or drop, and an account.  campaign_id and
 * drop_id may be NULL.  The campaigns of a sync can be ids of campaigns or drops.
 */
static bool
matches_origin(const Sync *sync, const text *campaign_id, const text *drop_id, const char *account,
			   uint32 account_length)
{
	return (contains_text(&sync->campaigns, campaign_id) || contains_text(&sync->campaigns, drop_id)) &&
		is_listed(&sync->accounts, account, account_length);
}

/* True if a sync accepts a status, a campaign or drop, and an account. */
static bool
is_for(const Sync *sync, MailStatus status, const text *campaign_id, const text *drop_id,
	   const char *account, uint32 account_length)
{
	return (sync->statuses & (1 << status)) != 0 &&
		matches_origin(sync, campaign_id, drop_id, account, account_length);
}

/* An enabled sync, and its notification. */
typedef struct Matched
{
	const Sync *sync;
	bool		by_worker;		/* the background worker will notify it */
	Notification notification;
} Matched;

struct SyncMatch
{
	int			count;
	Matched    *syncs;
	DeliveryWriter *deliveries;
};

/*
 * Begin to match the events of a statement against the enabled syncs.
 *
 * Locks: ROW SHARE on syncs until the transaction ends, so that create_sync
 * with "since", and drop_sync, can wait for transactions that have written
 * events.
 */
SyncMatch *
sync_match_begin(MemoryContext parent)
{
	MemoryContext caller = MemoryContextSwitchTo(parent);
	SyncMatch  *match = palloc0(sizeof(SyncMatch));
	bool		has_worker = wake_has_worker();
	const Sync *syncs;
	int			i = 0;

	LockRelationOid(extension_relation("syncs"), RowShareLock);
	syncs = first_sync();		/* one call, as another might reload the list */
	for (const Sync *sync = syncs; sync != NULL; sync = sync->next)
		match->count += sync->enabled;
	match->syncs = palloc(Max(match->count, 1) * sizeof(Matched));
	for (const Sync *sync = syncs; sync != NULL; sync = sync->next)
	{
		if (!sync->enabled)
			continue;
		match->syncs[i].sync = sync;
		match->syncs[i].by_worker = sync->durable && has_worker;
		notification_begin_sync(&match->syncs[i].notification, sync->name);
		i++;
	}
	match->deliveries = delivery_writer_create(parent);
	MemoryContextSwitchTo(caller);
	return match;
}

/*
 * Add an event to the notifications and the deliveries of the syncs that it is
 * for.  Any role can LISTEN.  Therefore a notification counts the events of named
 * accounts, but does not list them unless the sync has notify_events.
 */
void
sync_match_event(SyncMatch *match, const EventRow *row)
{
	for (int i = 0; i < match->count; i++)
	{
		Matched    *each = &match->syncs[i];
		const Sync *sync = each->sync;

		if (!is_for(sync, row->key.status, row->campaign_id, row->drop_id, row->key.account,
					row->key.account_length))
			continue;
		if (each->by_worker || (row->key.account_length > 0 && !sync->notify_events))
			each->notification.count++;
		else
			notification_add_event(&each->notification, row);
		if (sync->durable)
			delivery_add(match->deliveries, sync, row);
	}
}

/*
 * Add a production error to the notifications and the deliveries of the syncs
 * that it is for.  The key of the row has no status.  Notifications count
 * production errors, but do not list them.
 */
void
sync_match_error(SyncMatch *match, const EventRow *row)
{
	for (int i = 0; i < match->count; i++)
	{
		Matched    *each = &match->syncs[i];
		const Sync *sync = each->sync;

		if (!sync->errors ||
			!matches_origin(sync, row->campaign_id, row->drop_id, row->key.account, row->key.account_length))
			continue;
		each->notification.count++;
		if (sync->durable)
			delivery_add_error(match->deliveries, sync, row);
	}
}

/*
 * Write the deliveries, and send one notification to each sync that has matched.
 * If the background worker is running, it notifies the durable syncs instead.
 */
void
sync_match_finish(SyncMatch *match)
{
	delivery_finish(match->deliveries);
	for (int i = 0; i < match->count; i++)
	{
		const Matched *each = &match->syncs[i];

		if (!each->by_worker)
			notification_send(&each->notification, each->sync->channel);
		else if (each->notification.count > 0)
			wake_worker(each->sync->name, each->sync->channel, each->notification.count);
	}
}

/*
 * is_for(sync text, status mail_status, campaign_id text, drop_id text, account
 *		text) returns boolean
 *
 * True if the sync of this name is for events with these values.  campaign_id
 * and drop_id may be NULL; if another argument is NULL, the result is NULL.
 * Error 42704 if there is no such sync.  Looks up the sync once per query,
 * because a replay calls this for each event.
 */
Datum
postalytics_is_for(PG_FUNCTION_ARGS)
{
	const Sync *sync = fcinfo->flinfo->fn_extra;
	const char *name;
	text	   *account;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(4))
		PG_RETURN_NULL();
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (sync == NULL || strcmp(sync->name, name) != 0)
		fcinfo->flinfo->fn_extra = unconstify(Sync *, sync = find_sync(name));
	account = PG_GETARG_TEXT_PP(4);
	PG_RETURN_BOOL(is_for(sync, status_from_oid(PG_GETARG_OID(1)),
						  PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2),
						  PG_ARGISNULL(3) ? NULL : PG_GETARG_TEXT_PP(3),
						  VARDATA_ANY(account), VARSIZE_ANY_EXHDR(account)));
}
