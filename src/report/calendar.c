/*
 * calendar.c
 *		The days on which USPS delivers mail, the window in which a piece is
 *		delivered, and the time zones of ZIP codes.  No function here accesses a
 *		table.
 *
 * USPS delivers mail on Monday to Saturday, except on federal holidays (5
 * U.S.C. 6103) and, when a holiday falls on a Sunday, on the Monday after it.
 * When a holiday falls on a Saturday, federal employees have the Friday before
 * off, but mail is delivered on that Friday, as on 2020-07-03 and 2023-11-10.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "base/compat.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(postalytics_federal_holidays);
PG_FUNCTION_INFO_V1(postalytics_is_delivery_day);
PG_FUNCTION_INFO_V1(postalytics_delivery_window);
PG_FUNCTION_INFO_V1(postalytics_zip_time_zone);

enum
{
	SUNDAY, MONDAY, THURSDAY = 4, SATURDAY = 6
};

#define LAST_WEEK	5

typedef struct Holiday
{
	const char *name;
	int			month;
	int			day;			/* of the month; 0 if week and weekday
								 * determine it */
	int			week;			/* of the month: 1 to 4, or LAST_WEEK */
	int			weekday;
	int			since;			/* first year of the holiday */
} Holiday;

static const Holiday holidays[] = {
	{"New Year's Day", 1, 1, 0, 0, 1870},
	{"Birthday of Martin Luther King, Jr.", 1, 0, 3, MONDAY, 1986},
	{"Washington's Birthday", 2, 0, 3, MONDAY, 1971},
	{"Memorial Day", 5, 0, LAST_WEEK, MONDAY, 1971},
	{"Juneteenth National Independence Day", 6, 19, 0, 0, 2021},
	{"Independence Day", 7, 4, 0, 0, 1870},
	{"Labor Day", 9, 0, 1, MONDAY, 1894},
	{"Columbus Day", 10, 0, 2, MONDAY, 1971},
	{"Veterans Day", 11, 11, 0, 0, 1978},
	{"Thanksgiving Day", 11, 0, 4, THURSDAY, 1942},
	{"Christmas Day", 12, 25, 0, 0, 1870}
};

/* Days are Julian day numbers here, as date2j returns them. */

/* Return the day of a holiday in a year; 0 before the holiday's first year. */
static int
holiday_day(const Holiday *holiday, int year)
{
	int			first = date2j(year, holiday->month, 1);
	int			week = holiday->week - 1;
	int			day;

	if (year < holiday->since)
		return 0;
	if (holiday->day != 0)
		return first + holiday->day - 1;
	day = first + (holiday->weekday - j2day(first) + 7) % 7;
	if (holiday->week == LAST_WEEK && day + 7 * week >= date2j(year, holiday->month + 1, 1))
		week--;
	return day + 7 * week;
}

/*
 * Return the day on which federal employees have leave for a holiday.  This is
 * the Friday before a holiday on a Saturday, the Monday after a holiday on a
 * Sunday, and otherwise the holiday itself.
 */
static int
observed_day(int day)
{
	switch (j2day(day))
	{
		case SATURDAY:
			return day - 1;
		case SUNDAY:
			return day + 1;
		default:
			return day;
	}
}

/* True if USPS delivers mail on the day; see the top of this file. */
static bool
is_delivery_day(int day)
{
	int			year,
				month,
				mday;

	if (j2day(day) == SUNDAY)
		return false;
	j2date(day, &year, &month, &mday);
	for (int i = 0; i < (int) lengthof(holidays); i++)
	{
		int			holiday = holiday_day(&holidays[i], year);

		if (holiday != 0 &&
			(day == holiday || (j2day(holiday) == SUNDAY && day == holiday + 1)))
			return false;
	}
	return true;
}

static int
next_delivery_day(int day)
{
	do
		day++;
	while (!is_delivery_day(day));
	return day;
}

/*
 * federal_holidays(year) returns setof (day, observed, name)
 *
 * Returns the holidays of a year in order of day.  Error 22008 if the year is
 * not between 1 and 9999.
 */
Datum
postalytics_federal_holidays(PG_FUNCTION_ARGS)
{
	int			year = PG_GETARG_INT32(0);
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	if (year < 1 || year > 9999)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_FIELD_OVERFLOW),
				 errmsg("year %d is out of range", year)));
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < (int) lengthof(holidays); i++)
	{
		int			day = holiday_day(&holidays[i], year);
		bool		nulls[3] = {false, false, false};
		Datum		values[3];

		if (day == 0)
			continue;
		values[0] = DateADTGetDatum(day - POSTGRES_EPOCH_JDATE);
		values[1] = DateADTGetDatum(observed_day(day) - POSTGRES_EPOCH_JDATE);
		values[2] = CStringGetTextDatum(holidays[i].name);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* is_delivery_day(day) returns boolean: NULL for an infinite day */
Datum
postalytics_is_delivery_day(PG_FUNCTION_ARGS)
{
	DateADT		date = PG_GETARG_DATEADT(0);

	if (DATE_NOT_FINITE(date))
		PG_RETURN_NULL();
	PG_RETURN_BOOL(is_delivery_day(date + POSTGRES_EPOCH_JDATE));
}

static TimestampTz
start_of_day(int day, pg_tz *zone)
{
	struct pg_tm tm = {0};
	int			offset;
	TimestampTz start;

	j2date(day, &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
	offset = DetermineTimeZoneOffset(&tm, zone);
	if (tm2timestamp(&tm, 0, &offset, &start) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	return start;
}

/*
 * delivery_window(processed_at, time_zone) returns tstzrange
 *
 * Returns the time from the start of the first delivery day after processed_at
 * to the end of the second.  Days begin at midnight in the time zone.  NULL if
 * processed_at is infinite.  Errors: 22023 for an unknown time zone, 22008 if a
 * timestamp is out of range.
 */
Datum
postalytics_delivery_window(PG_FUNCTION_ARGS)
{
	TimestampTz processed_at = PG_GETARG_TIMESTAMPTZ(0);
	char	   *zone_name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	pg_tz	   *zone = pg_tzset(zone_name);
	struct pg_tm tm;
	fsec_t		fsec;
	int			offset;
	int			first;
	RangeBound	lower = {.lower = true,.inclusive = true};
	RangeBound	upper = {.lower = false};

	if (zone == NULL || !pg_tz_acceptable(zone))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" not recognized", zone_name),
				 errhint("Time zone names are listed in view pg_timezone_names.")));
	if (TIMESTAMP_NOT_FINITE(processed_at))
		PG_RETURN_NULL();
	if (timestamp2tm(processed_at, &offset, &tm, &fsec, NULL, zone) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	first = next_delivery_day(date2j(tm.tm_year, tm.tm_mon, tm.tm_mday));
	lower.val = TimestampTzGetDatum(start_of_day(first, zone));
	upper.val = TimestampTzGetDatum(start_of_day(next_delivery_day(first) + 1, zone));
	PG_RETURN_RANGE_P(compat_make_range(range_get_typcache(fcinfo, TSTZRANGEOID), &lower, &upper));
}

/* ---- ZIP codes ---- */

typedef struct ZipZone
{
	int			first;			/* lowest prefix, as a number */
	const char *zone;			/* NULL for military and unassigned prefixes */
} ZipZone;

#define EASTERN		"America/New_York"
#define CENTRAL		"America/Chicago"
#define MOUNTAIN	"America/Denver"
#define PACIFIC		"America/Los_Angeles"

/*
 * Time zones by prefix: the first three digits of the ZIP code, which stand for
 * a postal facility.  An entry holds from its first prefix up to the next entry.
 *
 * A prefix that spans two zones has the zone in which most of its population
 * lives.  The prefixes that span two zones are 324, 368, 373, 374, 377, 378,
 * 401, 426, 427, 465, 469, 475, 476, 479, 498 and 499 (Eastern and Central),
 * 575, 576, 585, 586, 677, 678, 690, 691, 692 and 798 (Central and Mountain),
 * 835 and 979 (Mountain and Pacific), 860 and 865 (Arizona, where the Navajo
 * Nation observes daylight saving time).
 */
static const ZipZone zip_zones[] = {
	{0, NULL}, {5, EASTERN}, {6, "America/Puerto_Rico"}, {10, EASTERN},
	{90, NULL}, {100, EASTERN}, {324, CENTRAL}, {326, EASTERN},
	{340, NULL}, {341, EASTERN}, {350, CENTRAL}, {373, EASTERN},
	{375, CENTRAL}, {376, EASTERN}, {380, CENTRAL}, {398, EASTERN},
	{420, CENTRAL}, {425, EASTERN}, {463, CENTRAL}, {465, EASTERN},
	{476, CENTRAL}, {478, EASTERN}, {500, CENTRAL}, {569, EASTERN},
	{570, CENTRAL}, {576, MOUNTAIN}, {580, CENTRAL}, {586, MOUNTAIN}, {587, CENTRAL}, {590, MOUNTAIN},
	{600, CENTRAL}, {693, MOUNTAIN}, {700, CENTRAL}, {798, MOUNTAIN},
	{835, PACIFIC}, {836, MOUNTAIN}, {838, PACIFIC}, {840, MOUNTAIN},
	{850, "America/Phoenix"}, {865, MOUNTAIN}, {889, PACIFIC}, {962, NULL},
	{967, "Pacific/Honolulu"}, {969, "Pacific/Guam"}, {970, PACIFIC},
	{979, MOUNTAIN}, {980, PACIFIC}, {995, "America/Anchorage"}
};

/*
 * zip_time_zone(zip) returns text
 *
 * Returns the time zone of a US ZIP or ZIP+4 code.  NULL if the text does not
 * begin with five digits, or if the prefix is military or unassigned.
 */
Datum
postalytics_zip_time_zone(PG_FUNCTION_ARGS)
{
	text	   *zip = PG_GETARG_TEXT_PP(0);
	const char *digits = VARDATA_ANY(zip);
	int			len = VARSIZE_ANY_EXHDR(zip);
	int			prefix;
	int			i = 0;

	if (len < 5 || strspn(pnstrdup(digits, len), "0123456789") < 5)
		PG_RETURN_NULL();
	prefix = (digits[0] - '0') * 100 + (digits[1] - '0') * 10 + (digits[2] - '0');
	if (prefix == 967 && strncmp(digits, "96799", 5) == 0)
		PG_RETURN_TEXT_P(cstring_to_text("Pacific/Pago_Pago"));
	while (i + 1 < (int) lengthof(zip_zones) && zip_zones[i + 1].first <= prefix)
		i++;
	if (zip_zones[i].zone == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(zip_zones[i].zone));
}
