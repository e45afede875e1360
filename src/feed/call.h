/*
 * call.h
 *		Counts what a call has brought, to enforce the limits of a call.
 */
#ifndef POSTALYTICS_CALL_H
#define POSTALYTICS_CALL_H

#include "feed/event.h"
#include "utils/palloc.h"

/* A call of ingest, or a statement on inbox. */
typedef struct Call
{
	MemoryContext context;
	bool		is_statement;	/* on inbox */
	struct seen_hash *campaigns;	/* that its events name, or NULL */
	uint64		last_campaign;	/* of the last event that named one */
	int64		rejects;		/* number, including those beyond max_rejects */
	int			new_months;		/* missing months it needed, including those
								 * beyond max_new_months */
} Call;

extern Call *call_create(MemoryContext context, bool is_statement);
extern bool call_add_campaign(Call *call, const EventRecord *record, int max_campaigns);

#endif							/* POSTALYTICS_CALL_H */
