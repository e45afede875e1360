/*
 * status_name.h
 *		What the feed's event types mean.
 */
#ifndef POSTALYTICS_STATUS_NAME_H
#define POSTALYTICS_STATUS_NAME_H

#include "lifecycle/lifecycle.h"

/* Meanings other than a status of the lifecycle, which follow the statuses. */
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
