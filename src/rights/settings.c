/*
 * settings.c
 *		Defines the configuration parameters, and reads them for SQL.
 *
 * The settings that only maintain() uses are read there by name.
 */
#include "postgres.h"

#include <limits.h>

#include "base/extension.h"
#include "fmgr.h"
#include "rights/settings.h"
#include "utils/builtins.h"
#include "utils/guc.h"

PG_FUNCTION_INFO_V1(postalytics_setting);

int			setting_identity = IDENTITY_MAIL;
bool		setting_keep_payload = true;
int			setting_earliest;
int			setting_latest;
int			setting_history;
int			setting_notify_interval;
int			setting_maintenance_interval;
char	   *setting_worker_databases;
pg_tz	   *feed_time_zone;

/* Used only by maintain(), which reads them by name. */
static int	setting_retention;
static int	setting_retention_action;
static int	setting_premake_months;

static char *setting_feed_time_zone;

static const struct config_enum_entry identity_options[] = {
	{"mail", IDENTITY_MAIL, false},
	{"contact", IDENTITY_CONTACT, false},
	{NULL, 0, false}
};

static const struct config_enum_entry retention_actions[] = {
	{"drop", 0, false},
	{"detach", 1, false},
	{NULL, 0, false}
};

#define MINUTES_PER_DAY		(24 * 60)
#define SECONDS_PER_DAY		(MINUTES_PER_DAY * 60)

/* Ten years with their leap days. */
#define DEFAULT_EARLIEST	(3653 * MINUTES_PER_DAY)
#define DEFAULT_LATEST		MINUTES_PER_DAY
#define DEFAULT_HISTORY		(30 * MINUTES_PER_DAY)

static bool
check_feed_time_zone(char **newval, void **extra, GucSource source)
{
	pg_tz	   *zone = pg_tzset(*newval);

	if (zone == NULL)
		GUC_check_errdetail("Unrecognized time zone name: \"%s\".", *newval);
	else if (!pg_tz_acceptable(zone))
	{
		GUC_check_errmsg("time zone \"%s\" appears to use leap seconds", *newval);
		GUC_check_errdetail("PostgreSQL does not support leap seconds.");
	}
	else
		return true;
	return false;
}

static void
assign_feed_time_zone(const char *newval, void *extra)
{
	feed_time_zone = pg_tzset(newval);
}

/* Define the configuration parameters. */
void
settings_init(void)
{
	DefineCustomEnumVariable(EXTENSION_NAME ".identity",
							 "Sets what identifies a mail piece.",
							 "\"mail\" is its mail id, or campaign/contact if the feed gives none. "
							 "\"contact\" is campaign/contact if both are known.",
							 &setting_identity, IDENTITY_MAIL, identity_options,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable(EXTENSION_NAME ".keep_payload",
							 "Stores the JSON of each event with it.",
							 NULL,
							 &setting_keep_payload, true,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(EXTENSION_NAME ".feed_time_zone",
							   "Sets the time zone of timestamps in the feed that have none.",
							   NULL,
							   &setting_feed_time_zone, "UTC",
							   PGC_USERSET, 0,
							   check_feed_time_zone, assign_feed_time_zone, NULL);
	DefineCustomIntVariable(EXTENSION_NAME ".earliest",
							"Sets how far in the past the date of an event may be.",
							NULL,
							&setting_earliest, DEFAULT_EARLIEST, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomIntVariable(EXTENSION_NAME ".latest",
							"Sets how far in the future the date of an event may be.",
							NULL,
							&setting_latest, DEFAULT_LATEST, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomIntVariable(EXTENSION_NAME ".history",
							"Sets how long finished deliveries are kept.",
							"Zero keeps none.",
							&setting_history, DEFAULT_HISTORY, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomIntVariable(EXTENSION_NAME ".retention",
							"Sets how long months of events are kept.",
							"Zero keeps them forever.",
							&setting_retention, 0, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomEnumVariable(EXTENSION_NAME ".retention_action",
							 "Sets whether maintain() drops or detaches months beyond retention.",
							 NULL,
							 &setting_retention_action, 0, retention_actions,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(EXTENSION_NAME ".premake_months",
							"Sets how many months of partitions maintain() creates in advance.",
							NULL,
							&setting_premake_months, 2, 0, 120,
							PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(EXTENSION_NAME ".notify_interval",
							"Sets the minimum time between notifications by the background worker.",
							NULL,
							&setting_notify_interval, 50, 0, 60000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable(EXTENSION_NAME ".maintenance_interval",
							"Sets the time between maintenance runs by the background worker.",
							"Zero disables them.",
							&setting_maintenance_interval, SECONDS_PER_DAY, 0, 7 * SECONDS_PER_DAY,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomStringVariable(EXTENSION_NAME ".worker_databases",
							   "Sets the databases that have a background worker.",
							   "A list of names, or * for every database that has the extension.",
							   &setting_worker_databases, "*",
							   PGC_SIGHUP, GUC_LIST_INPUT, NULL, NULL, NULL);
	MarkGUCPrefixReserved(EXTENSION_NAME);
}

/*
 * setting(name text) returns text
 *
 * Returns the value of postalytics_status.name as SHOW does.  Strict.  Error
 * 42704 if there is no such parameter.
 */
Datum
postalytics_setting(PG_FUNCTION_ARGS)
{
	char	   *name = psprintf(EXTENSION_NAME ".%s", text_to_cstring(PG_GETARG_TEXT_PP(0)));

	PG_RETURN_TEXT_P(cstring_to_text(GetConfigOptionByName(name, NULL, false)));
}
