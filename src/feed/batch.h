/*
 * batch.h
 *		The events and rejects that were read from one or more texts.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_BATCH_H
#define POSTALYTICS_BATCH_H

#include "feed/call.h"
#include "feed/event.h"
#include "feed/status_name.h"
#include "rights/settings.h"
#include "utils/palloc.h"

/* A rejected event. */
typedef struct Reject
{
	EventSource *source;
	Span		payload;
	const char *piece;			/* NULL if the piece could not be read */
	const char *account;
	const char *reason;
} Reject;

typedef struct EventBatch
{
	MemoryContext context;
	MemoryContext scratch;		/* for the event that is being read */
	Settings	settings;
	StatusNames *status_names;
	Call	   *call;
	TimestampTz earliest;		/* earliest acceptable event date */
	TimestampTz latest;			/* latest acceptable event date */
	EventRecord **chunks;
	int64		nchunks;
	int64		max_chunks;
	int64		nrecords;
	int64		nerrors;		/* number of records that are production
								 * errors */
	int64		nsources;
	Reject	   *rejects;
	int64		nrejects;
	int64		max_rejects;
	int64		nrejected;		/* number of rejected events, including those
								 * that are only counted */
	int64		nignored;		/* number of ignored events */
	int64		skip_rejects;	/* number of rejects of each source that are
								 * counted but not added */
	void		(*progress) (uint32 done);	/* called with the number of bytes
											 * read so far, if not NULL */
} EventBatch;

extern EventBatch *event_batch_create(MemoryContext parent, Call *call);
extern void event_batch_check_size(const EventBatch *batch, uint32 length);
extern void event_batch_add(EventBatch *batch, const EventRecord *record);
extern EventRecord *event_batch_record(EventBatch *batch, int64 i);
extern void event_batch_add_reject(EventBatch *batch, EventSource *source, Span payload,
								   const char *piece, const char *account, const char *reason);
extern void event_batch_reject(EventBatch *batch, int64 i, const char *reason);

#endif							/* POSTALYTICS_BATCH_H */
