/*
 * campaign.c
 *		Table campaigns: the campaigns that events name, and the campaigns'
 *		names.
 *
 * A row changes only if an event gives the campaign another name, or a name on a
 * later day.  If the row also had counts or the time of the last event, all
 * writers would have to wait for each other.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/table.h"
#include "base/compat.h"
#include "base/query.h"
#include "base/text.h"
#include "catalog/pg_type.h"
#include "journey/campaign.h"
#include "miscadmin.h"
#include "storage/lookup.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

static const TableColumn campaigns_columns[N_CAMPAIGNS_COLUMNS] = {
	[CAMPAIGNS_ID] = COLUMN_NOT_NULL("campaign_id", TEXTOID),
	[CAMPAIGNS_ACCOUNT] = COLUMN_NOT_NULL("account", TEXTOID),
	[CAMPAIGNS_NAME] = COLUMN("name", TEXTOID),
	[CAMPAIGNS_NAMED_ON] = COLUMN("named_on", DATEOID),
};

/* Open table campaigns.  Errors are those of open_table. */
Relation
open_campaigns(LOCKMODE mode)
{
	return open_table("campaigns", campaigns_columns, N_CAMPAIGNS_COLUMNS, 2, mode);
}

typedef struct CampaignKey
{
	text	   *campaign_id;
	const char *account;		/* not null-terminated */
	uint32		account_length;
} CampaignKey;

static inline uint32
hash_campaign(const CampaignKey *key)
{
	return hash_combine(hash_text(key->campaign_id),
						hash_bytes((const unsigned char *) key->account, key->account_length));
}

static inline bool
equal_campaigns(const CampaignKey *a, const CampaignKey *b)
{
	return equal_texts(a->campaign_id, b->campaign_id) &&
		equal_bytes(a->account, a->account_length, b->account, b->account_length);
}

/* A campaign that the events name. */
typedef struct Campaign
{
	CampaignKey key;
	text	   *name;			/* NULL if no event gives one */
	DateADT		named_on;		/* UTC day of the event that gives the name */
	char		status;			/* for simplehash */
} Campaign;

#define SH_PREFIX		campaigns
#define SH_ELEMENT_TYPE Campaign
#define SH_KEY_TYPE		CampaignKey
#define SH_KEY			key
#define SH_HASH_KEY(tb, key) hash_campaign(&(key))
#define SH_EQUAL(tb, a, b) equal_campaigns(&(a), &(b))
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct CampaignWriter
{
	MemoryContext context;
	campaigns_hash *campaigns;
};

/*
 * Create a writer, which collects the campaigns of events until campaign_finish
 * writes them.  Needs an SPI connection.
 */
CampaignWriter *
campaign_writer_create(MemoryContext parent)
{
	CampaignWriter *writer = MemoryContextAllocZero(parent, sizeof(CampaignWriter));

	writer->context = parent;
	writer->campaigns = campaigns_create(parent, 16, NULL);
	return writer;
}

/* Return the UTC day of a time. */
static DateADT
day_of(TimestampTz time)
{
	TimestampTz day = time / USECS_PER_DAY;

	return (DateADT) (time % USECS_PER_DAY < 0 ? day - 1 : day);
}

/*
 * True if a name given on a day takes precedence over another name, given on
 * other_day.  A campaign has the name that was given on the latest day.  Of several
 * names given on that day, it has the last in byte order.  So the name depends only
 * on the set of events, and an event that repeats the current name on the same day
 * does not update the row.
 */
static bool
name_takes_precedence(DateADT day, const char *name, int length, DateADT other_day, const text *other)
{
	if (day != other_day)
		return day > other_day;
	return compare_bytes(name, length, VARDATA_ANY(other), VARSIZE_ANY_EXHDR(other)) > 0;
}

/*
 * Add the campaign of an event, if it has one, and the name that the event gives
 * to the campaign.
 */
void
campaign_add(CampaignWriter *writer, const EventRow *row)
{
	MemoryContext caller;
	Campaign   *campaign;
	const char *name = NULL;
	DateADT		day = day_of(row->key.occurred_at);
	CampaignKey key = {row->campaign_id, row->key.account, row->key.account_length};
	int			length;
	bool		found;

	if (row->campaign_id == NULL)
		return;
	if (row->record != NULL)
		name = event_field(row->record, CAMPAIGN_NAME, &length);

	campaign = campaigns_insert(writer->campaigns, key, &found);
	caller = MemoryContextSwitchTo(writer->context);
	if (!found)
	{
		campaign->key.campaign_id = DatumGetTextPCopy(PointerGetDatum(row->campaign_id));
		campaign->key.account = pnstrdup(key.account, key.account_length);
		campaign->name = NULL;
	}
	if (name != NULL &&
		(campaign->name == NULL ||
		 name_takes_precedence(day, name, length, campaign->named_on, campaign->name)))
	{
		if (campaign->name == NULL ||
			!equal_bytes(VARDATA_ANY(campaign->name), VARSIZE_ANY_EXHDR(campaign->name), name, length))
			campaign->name = cstring_to_text_with_len(name, length);
		campaign->named_on = day;
	}
	MemoryContextSwitchTo(caller);
}

/* True if the stored row, which is in the slot, need not be updated. */
static bool
campaign_is_current(TupleTableSlot *slot, const Campaign *campaign)
{
	Datum		name;
	Datum		named_on;
	bool		isnull;

	if (campaign->name == NULL)
		return true;
	if (slot_attisnull(slot, CAMPAIGNS_NAME + 1) || slot_attisnull(slot, CAMPAIGNS_NAMED_ON + 1))
		return false;
	name = slot_getattr(slot, CAMPAIGNS_NAME + 1, &isnull);
	named_on = slot_getattr(slot, CAMPAIGNS_NAMED_ON + 1, &isnull);
	return !name_takes_precedence(campaign->named_on, VARDATA_ANY(campaign->name), VARSIZE_ANY_EXHDR(campaign->name),
								  DatumGetDateADT(named_on), DatumGetTextPP(name));
}

static Datum
account_text(const Campaign *campaign)
{
	return PointerGetDatum(cstring_to_text_with_len(campaign->key.account, campaign->key.account_length));
}

static void
add_campaign_row(const Campaign *campaign, TupleDesc tupdesc, Tuplestorestate *rows)
{
	Row			row = new_row(tupdesc);

	row_set(row, CAMPAIGNS_ID, PointerGetDatum(campaign->key.campaign_id));
	row_set(row, CAMPAIGNS_ACCOUNT, account_text(campaign));
	if (campaign->name != NULL)
	{
		row_set(row, CAMPAIGNS_NAME, PointerGetDatum(campaign->name));
		row_set(row, CAMPAIGNS_NAMED_ON, DateADTGetDatum(campaign->named_on));
	}
	tuplestore_putvalues(rows, tupdesc, row.values, row.nulls);
}

/*
 * Add a row for each campaign whose stored row does not exist or must be updated.
 * Returns the number of rows added.
 */
static int64
collect_campaigns(CampaignWriter *writer, Relation relation, Tuplestorestate *rows)
{
	Lookup		stored;
	campaigns_iterator iterator;
	Campaign   *campaign;
	int64		count = 0;

	lookup_begin(&stored, relation, compat_primary_key(relation), GetActiveSnapshot(), 2);
	campaigns_start_iterate(writer->campaigns, &iterator);
	while ((campaign = campaigns_iterate(writer->campaigns, &iterator)) != NULL)
	{
		lookup_key(&stored, 0, 1, BTEqualStrategyNumber, PointerGetDatum(campaign->key.campaign_id));
		lookup_key(&stored, 1, 2, BTEqualStrategyNumber, account_text(campaign));
		if (lookup_first(&stored) && campaign_is_current(stored.slot, campaign))
			continue;
		add_campaign_row(campaign, RelationGetDescr(relation), rows);
		count++;
	}
	lookup_end(&stored);
	return count;
}

/*
 * If a row exists, the query keeps the stored name or the new name, whichever
 * takes precedence according to name_takes_precedence.
 */
static SqlQuery write_campaign_query = {
	.sql = "INSERT INTO postalytics.campaigns AS c (campaign_id, account, name, named_on)"
	" SELECT s.campaign_id, s.account, s.name, s.named_on"
	" FROM seen AS s"
	" ORDER BY s.campaign_id, s.account"
	" ON CONFLICT (campaign_id, account) DO UPDATE"
	" SET (name, named_on) ="
	"     (SELECT n.name, n.named_on"
	"      FROM postalytics.latest_name(c.name, c.named_on, excluded.name, excluded.named_on) AS n)",
	.result = SPI_OK_INSERT
};

/* Write the campaigns that are new or have changed. */
void
campaign_finish(CampaignWriter *writer)
{
	Relation	relation;
	Tuplestorestate *rows;
	int64		count;

	if (writer->campaigns->members == 0)
		return;
	relation = open_campaigns(RowExclusiveLock);
	rows = tuplestore_begin_heap(false, false, work_mem);
	count = collect_campaigns(writer, relation, rows);
	if (count > 0)
	{
		register_rowset("seen", RelationGetDescr(relation), rows, count);
		query_run(&write_campaign_query, NULL, NULL);
		SPI_unregister_relation("seen");
	}
	tuplestore_end(rows);
	table_close(relation, NoLock);
}
