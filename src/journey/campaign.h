/*
 * campaign.h
 *		The table campaigns.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_CAMPAIGN_H
#define POSTALYTICS_CAMPAIGN_H

#include "base/table.h"
#include "storage/events.h"
#include "utils/palloc.h"

/* Columns of campaigns. */
enum
{
	CAMPAIGNS_ID, CAMPAIGNS_ACCOUNT, CAMPAIGNS_NAME, CAMPAIGNS_NAMED_ON,
	N_CAMPAIGNS_COLUMNS
};

typedef struct CampaignWriter CampaignWriter;

extern Relation open_campaigns(LOCKMODE mode);
extern CampaignWriter *campaign_writer_create(MemoryContext parent);
extern void campaign_add(CampaignWriter *writer, const EventRow *row);
extern void campaign_finish(CampaignWriter *writer);

#endif							/* POSTALYTICS_CAMPAIGN_H */
