/*
 * call.h
 *		Counts campaigns, rejects and new months of a call against its limits.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_CALL_H
#define POSTALYTICS_CALL_H

#include "feed/event.h"
#include "utils/palloc.h"

/* A call of ingest, or a statement on inbox. */
typedef struct Call
{
	MemoryContext context;
	bool		is_statement;	/* a statement on inbox, not a call of ingest */
	struct seen_hash *campaigns;	/* named by the events; NULL before the
									 * first */
	uint64		last_campaign;	/* hash of the campaign that was named last */
	int64		rejects;		/* number of rejects, including those beyond
								 * max_rejects */
	int			new_months;		/* number of missing months that events need,
								 * including those beyond max_new_months */
} Call;

extern Call *call_create(MemoryContext context, bool is_statement);
extern bool call_add_campaign(Call *call, const EventRecord *record, int max_campaigns);

#endif							/* POSTALYTICS_CALL_H */
