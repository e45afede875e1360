/*
 * status_name.h
 *		The meanings of the feed's event types.
 *
 * The meaning of an event type is a status of the lifecycle, or one of the
 * constants below.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_STATUS_NAME_H
#define POSTALYTICS_STATUS_NAME_H

#include "lifecycle/lifecycle.h"

/* Meanings that are not a status.  Their numbers follow those of MailStatus. */
enum
{
	IGNORED_EVENT = N_STATUSES, /* neither stored nor rejected */
	PRODUCTION_ERROR,			/* the piece was not created */
	GENERAL_ERROR,
	N_MEANINGS
};

static inline bool
is_production_error(int meaning)
{
	return meaning == PRODUCTION_ERROR || meaning == GENERAL_ERROR;
}

/* The spellings in status_names. */
typedef struct spellings_hash StatusNames;

extern StatusNames *status_names(void);
extern int	find_meaning(StatusNames *names, const char *spelling, int length);
extern const char *meaning_name(int meaning);

#endif							/* POSTALYTICS_STATUS_NAME_H */
