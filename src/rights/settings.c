/*
 * settings.c
 *		The settings, which are stored in table configuration, and the
 *		configuration parameters of the server.
 *
 * Settings determine, for example, how data is interpreted and how long it is
 * kept.  They are stored in a table, so that a dump contains them, only the
 * owner and managers can change them (with configure), and every session sees a
 * change once it is committed.  The table holds only values that differ from
 * the default.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include <limits.h>

#include "base/cache.h"
#include "base/compat.h"
#include "base/extension.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "rights/settings.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(postalytics_setting);
PG_FUNCTION_INFO_V1(postalytics_check_setting);
PG_FUNCTION_INFO_V1(postalytics_known_settings);

/* ---- configuration parameters ---- */

int			setting_notify_interval;
int			setting_maintenance_interval;
char	   *setting_worker_databases;

/* Define the configuration parameters, and reserve their prefix. */
void
settings_init(void)
{
	DefineCustomIntVariable(EXTENSION_NAME ".notify_interval",
							"Sets the minimum time between notifications by the background worker.",
							NULL,
							&setting_notify_interval, 50, 0, 60000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable(EXTENSION_NAME ".maintenance_interval",
							"Sets the time between maintenance runs by the background worker.",
							"Zero disables them.",
							&setting_maintenance_interval, SECS_PER_DAY, 0, 7 * SECS_PER_DAY,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomStringVariable(EXTENSION_NAME ".worker_databases",
							   "Sets the databases that have a background worker.",
							   "A comma-separated list of names, or * for every database that has the extension.",
							   &setting_worker_databases, "*",
							   PGC_SIGHUP, GUC_LIST_INPUT, NULL, NULL, NULL);
	MarkGUCPrefixReserved(EXTENSION_NAME);
}

/* True if parameter worker_databases allows a background worker for a database. */
bool
worker_is_allowed(const char *database)
{
	char	   *names = pstrdup(setting_worker_databases);
	List	   *list;
	ListCell   *cell;

	if (strcmp(names, "*") == 0)
		return true;
	if (!SplitIdentifierString(names, ',', &list))
		return false;
	foreach(cell, list)
	{
		if (strcmp(lfirst(cell), database) == 0)
			return true;
	}
	return false;
}

/* ---- settings ---- */

typedef enum SettingId
{
	SETTING_IDENTITY,
	SETTING_EVENT_PRECISION,
	SETTING_KEEP_PAYLOAD,
	SETTING_FEED_TIME_ZONE,
	SETTING_EARLIEST,
	SETTING_LATEST,
	SETTING_HISTORY,
	SETTING_RETENTION,
	SETTING_RETENTION_ACTION,
	SETTING_PREMAKE_MONTHS,
	SETTING_PIECE_RETENTION,
	SETTING_PIECE_RETENTION_ACTION,
	SETTING_REJECT_RETENTION,
	SETTING_AUDIT_RETENTION,
	SETTING_RESTORE_TESTED,
	SETTING_MAX_WAIT,
	SETTING_MAX_MONTHS,
	SETTING_MAX_NEW_MONTHS,
	SETTING_MAX_CALL_SIZE,
	SETTING_MAX_FIELDS_SIZE,
	SETTING_MAX_REJECTS,
	SETTING_MAX_CAMPAIGNS,
	N_SETTINGS
} SettingId;

#define MAX_CHOICES	3

typedef struct SettingInfo
{
	const char *name;
	const char *default_value;
	const char *description;
	const char *allowed;		/* description of the values that is_valid
								 * accepts */
	bool		(*is_valid) (const struct SettingInfo *info, const char *value);
	const char *choices[MAX_CHOICES];
	const char *min;			/* for sizes, counts and intervals; an
								 * interval may also be 0 */
	const char *max;			/* for sizes, counts and intervals */
} SettingInfo;

static bool
is_choice(const SettingInfo *info, const char *value)
{
	for (int i = 0; i < MAX_CHOICES && info->choices[i] != NULL; i++)
		if (strcmp(info->choices[i], value) == 0)
			return true;
	return false;
}

static bool
is_count(const SettingInfo *info, const char *value)
{
	char	   *end;
	long		count = strtol(value, &end, 10);

	return value[0] >= '0' && value[0] <= '9' && *end == '\0' &&
		strlen(value) <= 9 && count >= atol(info->min) && count <= atol(info->max);
}

/* Convert a size, such as 64kB, to bytes.  Returns false if it is invalid. */
static bool
parse_size(const char *value, int *size)
{
	return parse_int(value, size, GUC_UNIT_BYTE, NULL);
}

/* Convert a valid size to bytes. */
static int
to_size(const char *value)
{
	int			size = 0;

	(void) parse_size(value, &size);
	return size;
}

static bool
is_size(const SettingInfo *info, const char *value)
{
	int			size;

	return parse_size(value, &size) && size >= to_size(info->min) && size <= to_size(info->max);
}

static bool
is_time_zone(const SettingInfo *info, const char *value)
{
	pg_tz	   *zone = pg_tzset(value);

	return zone != NULL && pg_tz_acceptable(zone);
}

/* Convert text to an interval.  Error 22007 or 22008 if it is invalid. */
static Interval
to_interval(const char *value)
{
	return *DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(value),
												  ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

static bool
is_less(const Interval *a, const Interval *b)
{
	return DatumGetBool(DirectFunctionCall2(interval_lt, IntervalPGetDatum(a), IntervalPGetDatum(b)));
}

static bool
is_zero(const Interval *duration)
{
	return duration->month == 0 && duration->day == 0 && duration->time == 0;
}

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

/*
 * True if the value is zero or an interval within the limits.  A unit is
 * required, because the server would read "90" as 90 seconds.
 */
static bool
is_duration(const SettingInfo *info, const char *value)
{
	MemoryContext caller = CurrentMemoryContext;
	Interval	duration = {0};
	Interval	least = to_interval(info->min);
	Interval	most = to_interval(info->max);
	volatile bool valid = true;

	PG_TRY();
	{
		duration = to_interval(value);
	}
	PG_CATCH();
	{
		int			code = geterrcode();

		MemoryContextSwitchTo(caller);
		if (ERRCODE_TO_CATEGORY(code) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		FlushErrorState();
		valid = false;
	}
	PG_END_TRY();
	if (!valid)
		return false;
	if (is_zero(&duration))
		return true;
	return strcspn(value, LETTERS ":") < strlen(value) &&
		!is_less(&duration, &least) && !is_less(&most, &duration);
}

/* True for a date of the form 2026-10-06 that exists, or "never". */
static bool
is_date(const SettingInfo *info, const char *value)
{
	int			date[3];
	int			same[3];

	if (strcmp(value, info->choices[0]) == 0)
		return true;
	if (strlen(value) != strlen("2026-10-06") || value[4] != '-' || value[7] != '-' ||
		strspn(value, "0123456789") != 4 || strspn(value + 5, "0123456789") != 2 ||
		strspn(value + 8, "0123456789") != 2)
		return false;
	date[0] = atoi(value);
	date[1] = atoi(value + 5);
	date[2] = atoi(value + 8);
	j2date(date2j(date[0], date[1], date[2]), &same[0], &same[1], &same[2]);
	return date[0] > 0 && memcmp(date, same, sizeof(date)) == 0;
}

static const SettingInfo setting_info[N_SETTINGS] = {
	[SETTING_IDENTITY] = {
		.name = "identity",
		.default_value = "mail",
		.description = "Sets whether a mail piece is identified by its mail id (mail), or by campaign and contact where both are known (contact); "
		"cannot change once there are events.",
		.allowed = "mail or contact",
		.is_valid = is_choice,
		.choices = {"mail", "contact"}
	},
	[SETTING_EVENT_PRECISION] = {
		.name = "event_precision",
		.default_value = "microsecond",
		.description = "Sets the precision with which event times are stored and compared.",
		.allowed = "microsecond or second",
		.is_valid = is_choice,
		.choices = {"microsecond", "second"}
	},
	[SETTING_KEEP_PAYLOAD] = {
		.name = "keep_payload",
		.default_value = "on",
		.description = "Sets whether the JSON of each event is stored with it.",
		.allowed = "on or off",
		.is_valid = is_choice,
		.choices = {"on", "off"}
	},
	[SETTING_FEED_TIME_ZONE] = {
		.name = "feed_time_zone",
		.default_value = "UTC",
		.description = "Sets the time zone of timestamps in the feed that do not specify one.",
		.allowed = "a time zone name",
		.is_valid = is_time_zone
	},
	[SETTING_EARLIEST] = {
		.name = "earliest",
		.default_value = "10 years",
		.description = "Sets how far in the past the date of an event may be.",
		.allowed = "0, or an interval with a unit, up to 5000 years",
		.is_valid = is_duration,
		.min = "1 microsecond",
		.max = "5000 years"
	},
	[SETTING_LATEST] = {
		.name = "latest",
		.default_value = "1 day",
		.description = "Sets how far in the future the date of an event may be.",
		.allowed = "0, or an interval with a unit, up to 1000 years",
		.is_valid = is_duration,
		.min = "1 microsecond",
		.max = "1000 years"
	},
	[SETTING_HISTORY] = {
		.name = "history",
		.default_value = "30 days",
		.description = "Sets how long finished deliveries are kept; 0 keeps none.",
		.allowed = "0, or an interval with a unit, from 1 day to 1000 years",
		.is_valid = is_duration,
		.min = "1 day",
		.max = "1000 years"
	},
	[SETTING_RETENTION] = {
		.name = "retention",
		.default_value = "0",
		.description = "Sets how long monthly partitions of events are kept; 0 keeps them forever.",
		.allowed = "0, or an interval with a unit, from 1 day to 1000 years",
		.is_valid = is_duration,
		.min = "1 day",
		.max = "1000 years"
	},
	[SETTING_RETENTION_ACTION] = {
		.name = "retention_action",
		.default_value = "drop",
		.description = "Sets whether maintain() drops or detaches partitions older than retention.",
		.allowed = "drop or detach",
		.is_valid = is_choice,
		.choices = {"drop", "detach"}
	},
	[SETTING_PREMAKE_MONTHS] = {
		.name = "premake_months",
		.default_value = "2",
		.description = "Sets the number of monthly partitions that maintain() creates in advance.",
		.allowed = "0 to 120",
		.is_valid = is_count,
		.min = "0",
		.max = "120"
	},
	[SETTING_PIECE_RETENTION] = {
		.name = "piece_retention",
		.default_value = "0",
		.description = "Sets how long after its last event a piece is anonymised or deleted (see piece_retention_action), and how long production errors are kept; 0 disables this.",
		.allowed = "0, or an interval with a unit, from 1 day to 1000 years",
		.is_valid = is_duration,
		.min = "1 day",
		.max = "1000 years"
	},
	[SETTING_PIECE_RETENTION_ACTION] = {
		.name = "piece_retention_action",
		.default_value = "anonymise",
		.description = "Sets whether maintain() anonymises or deletes pieces older than piece_retention.",
		.allowed = "anonymise or delete",
		.is_valid = is_choice,
		.choices = {"anonymise", "delete"}
	},
	[SETTING_REJECT_RETENTION] = {
		.name = "reject_retention",
		.default_value = "0",
		.description = "Sets how long rejects are kept; 0 keeps them forever.",
		.allowed = "0, or an interval with a unit, from 1 day to 1000 years",
		.is_valid = is_duration,
		.min = "1 day",
		.max = "1000 years"
	},
	[SETTING_AUDIT_RETENTION] = {
		.name = "audit_retention",
		.default_value = "1 year",
		.description = "Sets how long rows of audit_log are kept; 0 keeps them forever.",
		.allowed = "0, or an interval with a unit, from 1 day to 1000 years",
		.is_valid = is_duration,
		.min = "1 day",
		.max = "1000 years"
	},
	[SETTING_RESTORE_TESTED] = {
		.name = "restore_tested",
		.default_value = "never",
		.description = "Sets the date on which restoring a backup was last tested. check_setup() reports if it is more than a year ago.",
		.allowed = "never, or a date such as 2026-10-06",
		.is_valid = is_date,
		.choices = {"never"}
	},
	[SETTING_MAX_WAIT] = {
		.name = "max_wait",
		.default_value = "5 minutes",
		.description = "Sets the maximum time for which fetch() waits, regardless of its argument. A waiting fetch holds a snapshot, which keeps VACUUM from removing rows.",
		.allowed = "0, or an interval with a unit, up to 1 day",
		.is_valid = is_duration,
		.min = "1 microsecond",
		.max = "1 day"
	},
	[SETTING_MAX_MONTHS] = {
		.name = "max_months",
		.default_value = "240",
		.description = "Sets the maximum number of monthly partitions of events.",
		.allowed = "1 to 100000",
		.is_valid = is_count,
		.min = "1",
		.max = "100000"
	},
	[SETTING_MAX_NEW_MONTHS] = {
		.name = "max_new_months",
		.default_value = "36",
		.description = "Sets the maximum number of monthly partitions that one call creates.",
		.allowed = "1 to 100000",
		.is_valid = is_count,
		.min = "1",
		.max = "100000"
	},
	[SETTING_MAX_CALL_SIZE] = {
		.name = "max_call_size",
		.default_value = "256MB",
		.description = "Sets the maximum size of the JSON of one call of ingest, or of one row of inbox.",
		.allowed = "1kB to 1GB",
		.is_valid = is_size,
		.min = "1kB",
		.max = "1GB"
	},
	[SETTING_MAX_FIELDS_SIZE] = {
		.name = "max_fields_size",
		.default_value = "64kB",
		.description = "Sets the maximum size of the list's own fields of an event.",
		.allowed = "1kB to 16MB",
		.is_valid = is_size,
		.min = "1kB",
		.max = "16MB"
	},
	[SETTING_MAX_REJECTS] = {
		.name = "max_rejects",
		.default_value = "1000",
		.description = "Sets the maximum number of rejects of one call that are stored separately; if there are more, they are combined.",
		.allowed = "1 to 1000000",
		.is_valid = is_count,
		.min = "1",
		.max = "1000000"
	},
	[SETTING_MAX_CAMPAIGNS] = {
		.name = "max_campaigns",
		.default_value = "10000",
		.description = "Sets the maximum number of campaigns that the events of one call can name.",
		.allowed = "1 to 1000000",
		.is_valid = is_count,
		.min = "1",
		.max = "1000000"
	}
};

/*
 * Return the id of the setting with a name.  Error 42704 if there is no such
 * setting.
 */
static SettingId
setting_by_name(const char *name)
{
	for (SettingId i = 0; i < N_SETTINGS; i++)
		if (strcmp(setting_info[i].name, name) == 0)
			return i;
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("unrecognized setting \"%s\"", name),
			 errhint("The settings are listed in %s.settings.", EXTENSION_SCHEMA)));
	return N_SETTINGS;			/* not reached */
}

/* Check that a setting allows a value.  Error 22023 if it does not. */
static void
check_value(const SettingInfo *info, const char *value)
{
	if (!info->is_valid(info, value))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for setting \"%s\": \"%s\"", info->name, value),
				 errhint("Allowed values: %s.", info->allowed)));
}

/* ---- the current values ---- */

static const char *setting_values[N_SETTINGS];
static Settings settings;

static void
begin_settings(void)
{
	for (int i = 0; i < N_SETTINGS; i++)
		setting_values[i] = setting_info[i].default_value;
}

/*
 * Add a row of configuration, whose columns are name and value.  A row with an
 * unknown name, which a later version may have written, is ignored.
 */
static void
add_setting(TupleTableSlot *row)
{
	bool		isnull;
	char	   *name = TextDatumGetCString(slot_getattr(row, 1, &isnull));

	for (int i = 0; i < N_SETTINGS; i++)
		if (strcmp(setting_info[i].name, name) == 0)
			setting_values[i] = TextDatumGetCString(slot_getattr(row, 2, &isnull));
}

/*
 * Check all values, and convert those that are read in C.  Error 22023 if a
 * value is not allowed.
 */
static void
convert_settings(void)
{
	Interval	history;

	for (int i = 0; i < N_SETTINGS; i++)
		check_value(&setting_info[i], setting_values[i]);
	settings.identity = strcmp(setting_values[SETTING_IDENTITY], "contact") == 0 ? IDENTITY_CONTACT : IDENTITY_MAIL;
	settings.whole_seconds = strcmp(setting_values[SETTING_EVENT_PRECISION], "second") == 0;
	settings.keep_payload = strcmp(setting_values[SETTING_KEEP_PAYLOAD], "on") == 0;
	settings.feed_time_zone = pg_tzset(setting_values[SETTING_FEED_TIME_ZONE]);
	settings.earliest = to_interval(setting_values[SETTING_EARLIEST]);
	settings.latest = to_interval(setting_values[SETTING_LATEST]);
	history = to_interval(setting_values[SETTING_HISTORY]);
	settings.has_history = !is_zero(&history);
	settings.max_wait = to_interval(setting_values[SETTING_MAX_WAIT]);
	settings.max_months = atoi(setting_values[SETTING_MAX_MONTHS]);
	settings.max_new_months = atoi(setting_values[SETTING_MAX_NEW_MONTHS]);
	settings.max_call_size = to_size(setting_values[SETTING_MAX_CALL_SIZE]);
	settings.max_fields_size = to_size(setting_values[SETTING_MAX_FIELDS_SIZE]);
	settings.max_rejects = atoi(setting_values[SETTING_MAX_REJECTS]);
	settings.max_campaigns = atoi(setting_values[SETTING_MAX_CAMPAIGNS]);
}

static TableCache settings_cache = {
	.table = "configuration",
	.begin = begin_settings,
	.add = add_setting,
	.end = convert_settings
};

/*
 * Return the settings, which are valid until the next call.  Error 22023 if a
 * row of configuration holds a value that is not allowed.
 */
const Settings *
current_settings(void)
{
	refresh_cache(&settings_cache);
	return &settings;
}

/* ---- SQL ---- */

/*
 * setting(name text) returns text
 *
 * Returns the current value of a setting.  Strict.  Errors: 42704 if there is
 * no such setting, 22023 if a row of configuration holds a value that is not
 * allowed.
 */
Datum
postalytics_setting(PG_FUNCTION_ARGS)
{
	SettingId	name = setting_by_name(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	(void) current_settings();
	PG_RETURN_TEXT_P(cstring_to_text(setting_values[name]));
}

/*
 * check_setting(name text, value text) returns boolean
 *
 * Checks a new value of a setting, and returns true if it differs from the
 * default.  NULL stands for the default.  Errors: 42704 if there is no such
 * setting, 22023 if the value is not allowed.
 */
Datum
postalytics_check_setting(PG_FUNCTION_ARGS)
{
	const SettingInfo *info;
	char	   *value;

	info = &setting_info[setting_by_name(PG_ARGISNULL(0) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(0)))];
	if (PG_ARGISNULL(1))
		PG_RETURN_BOOL(false);
	value = text_to_cstring(PG_GETARG_TEXT_PP(1));
	check_value(info, value);
	PG_RETURN_BOOL(strcmp(value, info->default_value) != 0);
}

/*
 * known_settings() returns setof (name text, "default" text, allowed text,
 *		description text)
 *
 * Returns all settings, in the order of SettingId.
 */
Datum
postalytics_known_settings(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < N_SETTINGS; i++)
	{
		const SettingInfo *info = &setting_info[i];
		Datum		values[] = {
			CStringGetTextDatum(info->name), CStringGetTextDatum(info->default_value),
			CStringGetTextDatum(info->allowed), CStringGetTextDatum(info->description)
		};
		bool		nulls[lengthof(values)] = {false};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
