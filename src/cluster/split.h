/*
 * split.h
 *		Splits the events of a call by slot.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_SPLIT_H
#define POSTALYTICS_SPLIT_H

#include "feed/batch.h"
#include "lib/stringinfo.h"

/* The events of a call that belong to a slot and an account. */
typedef struct Part
{
	int			slot;
	const char *account;		/* specified by the caller; '' if none */
	bool		account_is_fixed;
	StringInfoData json;		/* an array */
	int64		events;			/* number of accepted events */
	int64		rejects;		/* number of rejected events */
	const char *reason;			/* reason of the first reject, or NULL */
	struct Part *next;
} Part;

extern Part *split_batch(EventBatch *batch, int slots, int *count);

#endif							/* POSTALYTICS_SPLIT_H */
