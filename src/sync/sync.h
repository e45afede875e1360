/*
 * sync.h
 *		The syncs, as each session caches them.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_SYNC_H
#define POSTALYTICS_SYNC_H

#include "datatype/timestamp.h"
#include "lifecycle/lifecycle.h"

/* A list of texts.  An empty list means any text. */
typedef struct TextList
{
	int			count;
	text	  **texts;
} TextList;

/* A row of syncs. */
typedef struct Sync
{
	char	   *name;
	char	   *channel;
	bool		enabled;
	TextList	campaigns;
	TextList	accounts;
	uint16		statuses;		/* bit mask */
	Interval	wait;
	uint16		unless;			/* bit mask, 0 for none */
	bool		latest_only;
	bool		ordered;
	bool		durable;
	int			max_attempts;
	int			rate;			/* deliveries within per; 0 for no limit */
	int64		per;			/* in microseconds */
	int			max_leased;		/* 0 for no limit */
	int			breaker;		/* consecutive failures; 0 for no breaker */
	bool		errors;			/* the sync is also for production errors */
	bool		notify_events;	/* notifications list events of named
								 * accounts, too */
	uint64		generation;		/* counts the times that syncs was read */
	struct Sync *next;
} Sync;

extern const Sync *first_sync(void);
extern const Sync *find_sync(const char *name);
extern bool is_listed(const TextList *list, const char *value, uint32 length);
extern void check_durable(const Sync *sync);

#endif							/* POSTALYTICS_SYNC_H */
