/*
 * settings.h
 *		The configuration parameters.
 */
#ifndef POSTALYTICS_SETTINGS_H
#define POSTALYTICS_SETTINGS_H

#include "pgtime.h"

/* What identifies a mail piece. */
typedef enum Identity
{
	IDENTITY_MAIL,				/* its mail id */
	IDENTITY_CONTACT			/* campaign and contact, where both are known */
} Identity;

extern int	setting_identity;
extern bool setting_keep_payload;
extern int	setting_earliest;	/* minutes before now */
extern int	setting_latest;		/* minutes after now */
extern int	setting_history;	/* minutes */
extern int	setting_notify_interval;	/* milliseconds */
extern int	setting_maintenance_interval;	/* seconds */
extern char *setting_worker_databases;
extern pg_tz *feed_time_zone;

extern void settings_init(void);

#endif							/* POSTALYTICS_SETTINGS_H */
