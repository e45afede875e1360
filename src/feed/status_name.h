/*
 * status_name.h
 *		The spellings of statuses, with those that users have added.
 */
#ifndef POSTALYTICS_STATUS_NAME_H
#define POSTALYTICS_STATUS_NAME_H

#include "lifecycle/lifecycle.h"

/* What status_find returns for an event that has no place in the lifecycle. */
#define IGNORED_STATUS	N_STATUSES

extern int	status_find(const char *spelling, int length);

#endif							/* POSTALYTICS_STATUS_NAME_H */
