/*
 * call.c
 *		Counts campaigns, rejects and new months of a call against its limits.
 *
 * A call is either a call of ingest, or a statement on inbox, which may need
 * several batches.  When rejects are retried, each of them counts as a separate
 * call, except that max_new_months applies to all of them together.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "common/hashfn.h"
#include "feed/call.h"

/* A campaign, identified by the hash of its id and account. */
typedef struct SeenCampaign
{
	uint64		hash;
	char		status;			/* for simplehash */
} SeenCampaign;

#define SH_PREFIX		seen
#define SH_ELEMENT_TYPE SeenCampaign
#define SH_KEY_TYPE		uint64
#define SH_KEY			hash
#define SH_HASH_KEY(tb, key) ((uint32) (key))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/*
 * Begin a call of ingest or a statement on inbox.  The result exists as long
 * as the memory context.
 */
Call *
call_create(MemoryContext context, bool is_statement)
{
	Call	   *call = MemoryContextAllocZero(context, sizeof(Call));

	call->context = context;
	call->is_statement = is_statement;
	return call;
}

/*
 * Count the campaign that an event names.  Returns false if the events of the
 * call have already named max_campaigns other campaigns.  Two campaigns with the
 * same hash count as one.
 */
bool
call_add_campaign(Call *call, const EventRecord *record, int max_campaigns)
{
	int			length;
	const char *id = event_field(record, CAMPAIGN_ID, &length);
	uint64		hash;
	bool		found;

	if (id == NULL)
		return true;
	hash = hash_bytes_extended((const unsigned char *) record->key.account, record->key.account_length, 0);
	hash = hash_bytes_extended((const unsigned char *) id, length, hash);
	if (call->campaigns == NULL)
		call->campaigns = seen_create(call->context, 16, NULL);
	else if (hash == call->last_campaign)
		return true;
	if (call->campaigns->members >= max_campaigns && seen_lookup(call->campaigns, hash) == NULL)
		return false;
	(void) seen_insert(call->campaigns, hash, &found);
	call->last_campaign = hash;
	return true;
}
