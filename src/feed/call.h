/*
 * call.h
 *		Counts campaigns, rejects and new months of a call against its limits.
 */
#ifndef POSTALYTICS_CALL_H
#define POSTALYTICS_CALL_H

#include "feed/event.h"
#include "utils/palloc.h"

/* A call of ingest, or a statement on inbox. */
typedef struct Call
{
	MemoryContext context;
	bool		is_statement;	/* on inbox, not a call of ingest */
	struct seen_hash *campaigns;	/* named by its events, or NULL */
	uint64		last_campaign;	/* hash of the one that was named last */
	int64		rejects;		/* number, including those beyond max_rejects */
	int			new_months;		/* missing months it needed, including those
								 * beyond max_new_months */
} Call;

extern Call *call_create(MemoryContext context, bool is_statement);
extern bool call_add_campaign(Call *call, const EventRecord *record, int max_campaigns);

#endif							/* POSTALYTICS_CALL_H */
