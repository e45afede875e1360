/*
 * settings.h
 *		Settings of the database, and configuration parameters of the server.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_SETTINGS_H
#define POSTALYTICS_SETTINGS_H

#include "datatype/timestamp.h"
#include "pgtime.h"

/* What identifies a mail piece. */
typedef enum Identity
{
	IDENTITY_MAIL,				/* mail id */
	IDENTITY_CONTACT			/* campaign and contact, where both are known */
} Identity;

/* The settings of the database that are read in C. */
typedef struct Settings
{
	Identity	identity;
	bool		whole_seconds;	/* setting event_precision is second */
	bool		keep_payload;
	pg_tz	   *feed_time_zone;
	Interval	earliest;		/* how far before now an event may be */
	Interval	latest;			/* how far after now an event may be */
	bool		has_history;	/* setting history is not zero */
	Interval	max_wait;
	int			max_months;
	int			max_new_months;
	int			max_call_size;	/* bytes */
	int			max_fields_size;	/* bytes */
	int			max_rejects;
	int			max_campaigns;
} Settings;

extern int	setting_notify_interval;	/* milliseconds */
extern int	setting_maintenance_interval;	/* seconds */
extern char *setting_worker_databases;
extern bool worker_is_allowed(const char *database);

extern void settings_init(void);
extern const Settings *current_settings(void);

#endif							/* POSTALYTICS_SETTINGS_H */
