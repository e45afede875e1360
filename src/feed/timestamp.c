/*
 * timestamp.c
 *		Parses the timestamps of the feed: ISO 8601 and US notation.
 *
 * The server's own input function would also accept words such as "yesterday",
 * and depends on DateStyle and TimeZone.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "feed/timestamp.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

typedef struct Scanner
{
	const char *at;
	const char *end;
} Scanner;

static inline bool
next_is(const Scanner *s, char c)
{
	return s->at < s->end && *s->at == c;
}

/* Skip a character if it is next.  Returns false if it is not. */
static inline bool
skip(Scanner *s, char c)
{
	if (!next_is(s, c))
		return false;
	s->at++;
	return true;
}

static void
skip_blanks(Scanner *s)
{
	while (skip(s, ' ') || skip(s, '\t'))
		;
}

/* Scan a number that has min to max digits. */
static bool
scan_number(Scanner *s, int min, int max, int *number)
{
	int			n = 0;

	*number = 0;
	while (n < max && s->at < s->end && *s->at >= '0' && *s->at <= '9')
	{
		*number = *number * 10 + (*s->at++ - '0');
		n++;
	}
	return n >= min;
}

static inline bool
digit_is_next(const Scanner *s)
{
	return s->at < s->end && *s->at >= '0' && *s->at <= '9';
}

/* Scan a date in the format Y-m-d, Ymd or m/d/Y. */
static bool
scan_date(Scanner *s, struct pg_tm *tm)
{
	int			first;

	if (!scan_number(s, 1, 4, &first))
		return false;
	if (skip(s, '/'))
	{
		tm->tm_mon = first;
		if (!scan_number(s, 1, 2, &tm->tm_mday) || !skip(s, '/') ||
			!scan_number(s, 4, 4, &tm->tm_year))
			return false;
	}
	else
	{
		bool		basic = digit_is_next(s);

		tm->tm_year = first;
		if ((!basic && !skip(s, '-')) || !scan_number(s, 2, 2, &tm->tm_mon) ||
			(!basic && !skip(s, '-')) || !scan_number(s, 2, 2, &tm->tm_mday))
			return false;
	}
	return tm->tm_year >= 1 && tm->tm_mon >= 1 && tm->tm_mon <= 12 &&
		tm->tm_mday >= 1 &&
		tm->tm_mday <= day_tab[isleap(tm->tm_year)][tm->tm_mon - 1];
}

/* Scan the digits after the decimal point, rounded to microseconds. */
static bool
scan_fraction(Scanner *s, int *microseconds)
{
	int			digits = 0;
	int			value = 0;
	bool		up = false;

	for (; s->at < s->end && *s->at >= '0' && *s->at <= '9'; digits++, s->at++)
	{
		if (digits < 6)
			value = value * 10 + (*s->at - '0');
		else if (digits == 6)
			up = *s->at >= '5';
	}
	for (int i = digits; i < 6; i++)
		value *= 10;
	*microseconds = value + (up ? 1 : 0);
	return digits > 0;
}

/* Scan AM or PM, if present, and adjust the hour. */
static bool
scan_am_pm(Scanner *s, struct pg_tm *tm)
{
	Scanner		ahead = *s;
	bool		pm;

	skip_blanks(&ahead);
	pm = next_is(&ahead, 'P') || next_is(&ahead, 'p');
	if (!pm && !next_is(&ahead, 'A') && !next_is(&ahead, 'a'))
		return true;
	ahead.at++;
	if (!skip(&ahead, 'M') && !skip(&ahead, 'm'))
		return false;
	*s = ahead;
	if (tm->tm_hour < 1 || tm->tm_hour > 12)
		return false;
	tm->tm_hour = tm->tm_hour % 12 + (pm ? 12 : 0);
	return true;
}

/*
 * True if a time of day is valid.  24:00:00 means the start of the next day.
 * Second 60, which is allowed only in minute 59, means the start of the next
 * minute.
 */
static bool
is_time_of_day(const struct pg_tm *tm, int microseconds)
{
	if (tm->tm_hour == 24)
		return tm->tm_min == 0 && tm->tm_sec == 0 && microseconds == 0;
	return tm->tm_hour < 24 && tm->tm_min < 60 && (tm->tm_sec < 60 || (tm->tm_sec == 60 && tm->tm_min == 59));
}

/*
 * Scan H:M, H:M:S or H:M:S.fraction, with or without colons, and with or
 * without AM or PM.
 */
static bool
scan_time(Scanner *s, struct pg_tm *tm, int *microseconds)
{
	bool		basic;

	if (!scan_number(s, 1, 2, &tm->tm_hour))
		return false;
	basic = digit_is_next(s);
	if ((!basic && !skip(s, ':')) || !scan_number(s, 2, 2, &tm->tm_min))
		return false;
	if (basic ? digit_is_next(s) : skip(s, ':'))
	{
		if (!scan_number(s, 2, 2, &tm->tm_sec))
			return false;
		if ((skip(s, '.') || skip(s, ',')) && !scan_fraction(s, microseconds))
			return false;
	}
	return scan_am_pm(s, tm) && is_time_of_day(tm, *microseconds);
}

/* Skip a word, ignoring case, if it is next.  Returns false if it is not. */
static bool
skip_word(Scanner *s, const char *word)
{
	int			length = strlen(word);

	if (s->end - s->at < length || pg_strncasecmp(s->at, word, length) != 0)
		return false;
	s->at += length;
	return true;
}

/*
 * Scan a UTC offset: Z, UTC, GMT, +hh, +hhmm or +hh:mm.  If there is none, sets
 * *given to false.  Returns false if the offset is invalid.
 */
static bool
scan_offset(Scanner *s, int *seconds_east, bool *given)
{
	int			hours;
	int			minutes = 0;
	int			sign;

	*given = false;
	skip_blanks(s);
	if (skip(s, 'Z') || skip(s, 'z') || skip_word(s, "UTC") || skip_word(s, "GMT"))
	{
		*given = true;
		*seconds_east = 0;
		return true;
	}
	if (!next_is(s, '+') && !next_is(s, '-'))
		return true;
	sign = skip(s, '-') ? -1 : (s->at++, 1);
	if (!scan_number(s, 2, 2, &hours))
		return false;
	if ((skip(s, ':') || s->at < s->end) && !scan_number(s, 2, 2, &minutes))
		return false;
	*given = true;
	*seconds_east = sign * (hours * SECS_PER_HOUR + minutes * SECS_PER_MINUTE);
	return hours < 16 && minutes < 60;
}

/*
 * Parse a timestamp of the feed.  string need not be null-terminated.  A
 * timestamp without a UTC offset is interpreted in the given time zone.  Returns
 * false if the timestamp is invalid.
 */
bool
parse_timestamp(const char *string, int length, pg_tz *zone, TimestampTz *time)
{
	Scanner		s = {.at = string,.end = string + length};
	struct pg_tm tm = {0};
	int			microseconds = 0;
	int			seconds_east;
	bool		given;
	Timestamp	local;

	skip_blanks(&s);
	if (!scan_date(&s, &tm))
		return false;
	if (skip(&s, 'T') || skip(&s, 't'))
	{
		if (!scan_time(&s, &tm, &microseconds))
			return false;
	}
	else
	{
		skip_blanks(&s);
		if (digit_is_next(&s) &&
			!scan_time(&s, &tm, &microseconds))
			return false;
	}
	if (!scan_offset(&s, &seconds_east, &given))
		return false;
	skip_blanks(&s);
	if (s.at != s.end)
		return false;

	if (!given)
		seconds_east = -DetermineTimeZoneOffset(&tm, zone);
	local = (date2j(tm.tm_year, tm.tm_mon, tm.tm_mday) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY +
		((tm.tm_hour * MINS_PER_HOUR + tm.tm_min) * INT64CONST(60) + tm.tm_sec) * USECS_PER_SEC +
		microseconds;
	*time = local - seconds_east * USECS_PER_SEC;
	return true;
}
