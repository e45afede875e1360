/*
 * lifecycle.h
 *		The statuses of a mail piece.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_LIFECYCLE_H
#define POSTALYTICS_LIFECYCLE_H

#include "datatype/timestamp.h"

/* The statuses, in the order of the enum mail_status. */
typedef enum MailStatus
{
	MAIL_PIECE_CREATED,
	ADDRESSED,
	PRINTED,
	MAILED,
	IN_TRANSIT,
	IN_LOCAL_AREA,
	PROCESSED_FOR_DELIVERY,
	RE_ROUTED,
	RETURNED_TO_SENDER,
	PURL_OPENED,
	PURL_COMPLETED
} MailStatus;

#define N_STATUSES	(PURL_COMPLETED + 1)
#define NO_STATUS	(-1)

extern int	status_from_text(const char *spelling, int len);
extern int	find_status(Oid value);
extern int	status_from_oid(Oid value);
extern Oid	status_oid(MailStatus status);
extern const char *status_name(MailStatus status);
extern const char *status_label(MailStatus status);
extern int	status_from_times(const TimestampTz *last);

#endif							/* POSTALYTICS_LIFECYCLE_H */
