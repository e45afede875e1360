/*
 * event.c
 *		Reads JSON into event records, on the server's own lexer, in one pass.
 *		Holds the one table of the feed's field names.  Of tables it knows
 *		field_names alone, the users' part of that table.
 *
 * The text handed in is a json value, so its grammar has been checked; what
 * is looked at here is what it means.
 */
#include "postalytics_status.h"

#include "access/htup_details.h"
#include "base/compat.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(postalytics_payload_details);

/* ---- the fields, and how the feed spells them ---- */

/* The longest value, in bytes: ids must fit an index row with room to spare. */
#define MAX_ID		255
#define MAX_NAME	1000
#define MAX_URL		8000
#define MAX_FIELDS	65536

static const struct
{
	const char *name;			/* as in inbox and field_names */
	uint32		longest;		/* 0 where only stored payloads are read for it */
}			fields[N_ALL_FIELDS] = {
	[MAIL_ID] = {"mail_id", MAX_ID},
	[EVENT_DATE] = {"event_date", MAX_ID},
	[EVENT_TYPE] = {"event_type", MAX_ID},
	[EXPECTED_DELIVERY_DATE] = {"expected_delivery_date", MAX_ID},
	[ACCOUNT] = {"account", MAX_ID},
	[CAMPAIGN_ID] = {"campaign_id", MAX_ID},
	[CAMPAIGN_NAME] = {"campaign_name", MAX_NAME},
	[CONTACT_ID] = {"contact_id", MAX_ID},
	[FIRST_NAME] = {"first_name", MAX_NAME},
	[LAST_NAME] = {"last_name", MAX_NAME},
	[COMPANY] = {"company", MAX_NAME},
	[EMAIL] = {"email", MAX_NAME},
	[ZIP] = {"zip", MAX_ID},
	[COUNTRY] = {"country", MAX_ID},
	[URL] = {"url", MAX_URL},
	[FIELDS] = {"fields", MAX_FIELDS},
	[ERROR_CODE] = {"error_code", 0},
	[ERROR_DESCRIPTION] = {"error_description", 0},
	[ADDRESS_UPDATED] = {"address_updated", 0},
	[ADDRESS] = {"address", 0},
	[ADDRESS2] = {"address2", 0},
	[CITY] = {"city", 0},
	[STATE] = {"state", 0},
};

/* An array or object under one of these holds events, not a field of one. */
#define WRAPPER		N_ALL_FIELDS

/*
 * THE table of field names: a member's path from its event, in lower case,
 * without blanks, '_', '-' and '.'; so to.firstName is "To First Name".
 * A new spelling is a line here, or a row in field_names.
 */
static const struct
{
	const char *path;
	int			field;
}			spellings[] = {
	{"data", WRAPPER}, {"events", WRAPPER}, {"items", WRAPPER},
	{"mailid", MAIL_ID}, {"metamailid", MAIL_ID},
	{"eventdate", EVENT_DATE},
	{"eventtype", EVENT_TYPE}, {"event", EVENT_TYPE},
	{"expecteddeliverydate", EXPECTED_DELIVERY_DATE},
	{"account", ACCOUNT}, {"accountid", ACCOUNT}, {"metaaccountid", ACCOUNT},
	{"campaignid", CAMPAIGN_ID}, {"metacampaignid", CAMPAIGN_ID},
	{"campaignname", CAMPAIGN_NAME}, {"metacampaignname", CAMPAIGN_NAME},
	{"contactid", CONTACT_ID}, {"toid", CONTACT_ID},
	{"tocontactid", CONTACT_ID}, {"metacontactid", CONTACT_ID},
	{"firstname", FIRST_NAME}, {"tofirstname", FIRST_NAME},
	{"lastname", LAST_NAME}, {"tolastname", LAST_NAME},
	{"company", COMPANY}, {"tocompany", COMPANY},
	{"email", EMAIL}, {"toemail", EMAIL},
	{"zip", ZIP}, {"tozip", ZIP},
	{"country", COUNTRY}, {"tocountry", COUNTRY},
	{"url", URL}, {"metaurl", URL}, {"metadata", URL},
	{"fields", FIELDS}, {"metafields", FIELDS},
	{"errorcode", ERROR_CODE}, {"toerrorcode", ERROR_CODE}, {"metaerrorcode", ERROR_CODE},
	{"errordescription", ERROR_DESCRIPTION}, {"toerrordescription", ERROR_DESCRIPTION},
	{"metaerrordescription", ERROR_DESCRIPTION},
	{"addressupdated", ADDRESS_UPDATED}, {"toaddressupdated", ADDRESS_UPDATED},
	{"wasupdated", ADDRESS_UPDATED}, {"towasupdated", ADDRESS_UPDATED},
	{"address", ADDRESS}, {"toaddress", ADDRESS},
	{"address2", ADDRESS2}, {"toaddress2", ADDRESS2},
	{"city", CITY}, {"tocity", CITY},
	{"state", STATE}, {"tostate", STATE},
};

#define MAX_PATH	64			/* with its terminator */

typedef struct FieldName
{
	const char *path;
	uint32		hash;
	int			field;			/* a Field, or WRAPPER */
	char		status;			/* simplehash's */
} FieldName;

/* FNV-1a, so that a path's hash goes on from its section's. */
#define EMPTY_PATH_HASH 2166136261u

static inline uint32
hash_byte(uint32 hash, unsigned char c)
{
	return (hash ^ c) * 16777619u;
}

static inline uint32
hash_path(const char *path)
{
	uint32		hash = EMPTY_PATH_HASH;

	while (*path)
		hash = hash_byte(hash, *path++);
	return hash;
}

#define SH_PREFIX		names
#define SH_ELEMENT_TYPE FieldName
#define SH_KEY_TYPE		const char *
#define SH_KEY			path
#define SH_HASH_KEY(tb, key) hash_path(key)
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* A path while it is being read: its text is in the reader. */
typedef struct Path
{
	uint32		hash;
	int			length;			/* MAX_PATH when it is too long to be known */
} Path;

static const Path empty_path = {EMPTY_PATH_HASH, 0};

/* Lengthen a path by a member's name, in buffer; what is ignored is left out. */
static Path
append_name(Path path, char *buffer, const char *name, int length)
{
	for (int i = 0; i < length; i++)
	{
		unsigned char c = name[i];

		if (c == ' ' || c == '_' || c == '-' || c == '.' ||
			(c >= '\t' && c <= '\r'))
			continue;
		if (path.length >= MAX_PATH - 1)
		{
			path.length = MAX_PATH;
			return path;
		}
		c = (c >= 'A' && c <= 'Z') ? c + ('a' - 'A') : c;
		buffer[path.length++] = c;
		path.hash = hash_byte(path.hash, c);
	}
	buffer[path.length] = '\0';
	return path;
}

static void
add_name(names_hash *names, const char *spelling, int length, int field)
{
	char		buffer[MAX_PATH];
	Path		path = append_name(empty_path, buffer, spelling, length);
	FieldName  *entry;
	bool		found;

	if (path.length == 0 || path.length == MAX_PATH)
		return;					/* the table's constraint keeps these out */
	entry = names_insert(names, buffer, &found);
	if (!found)
		entry->path = MemoryContextStrdup(names->ctx, buffer);
	entry->field = field;
}

static int
field_by_name(const char *name, int length)
{
	for (int i = 0; i < N_ALL_FIELDS; i++)
		if (strlen(fields[i].name) == (size_t) length &&
			memcmp(fields[i].name, name, length) == 0)
			return i;
	return -1;
}

/* ---- the table with the users' own names, as it is now ---- */

static names_hash *field_names;

static void
begin_field_names(void)
{
	field_names = names_create(CurrentMemoryContext, 2 * lengthof(spellings), NULL);
	for (int i = 0; i < (int) lengthof(spellings); i++)
		add_name(field_names, spellings[i].path, strlen(spellings[i].path),
				 spellings[i].field);
}

/* A row of field_names: path, field. */
static void
add_field_name(TupleTableSlot *row)
{
	bool		isnull;
	text	   *path = DatumGetTextPP(slot_getattr(row, 1, &isnull));
	text	   *name = DatumGetTextPP(slot_getattr(row, 2, &isnull));
	int			field = field_by_name(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));

	if (field >= 0)
		add_name(field_names, VARDATA_ANY(path), VARSIZE_ANY_EXHDR(path), field);
}

static TableCache field_names_cache = {
	.table = "field_names",
	.begin = begin_field_names,
	.add = add_field_name
};

static names_hash *
get_field_names(void)
{
	refresh_cache(&field_names_cache);
	return field_names;
}

/* ---- instants ---- */

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

static inline bool
take(Scanner *s, char c)
{
	if (!next_is(s, c))
		return false;
	s->at++;
	return true;
}

static void
take_blanks(Scanner *s)
{
	while (take(s, ' ') || take(s, '\t'))
		;
}

/* A number of least to most digits. */
static bool
take_number(Scanner *s, int least, int most, int *number)
{
	int			n = 0;

	*number = 0;
	while (n < most && s->at < s->end && *s->at >= '0' && *s->at <= '9')
	{
		*number = *number * 10 + (*s->at++ - '0');
		n++;
	}
	return n >= least;
}

/* Either Y-m-d or m/d/Y. */
static bool
take_date(Scanner *s, struct pg_tm *tm)
{
	int			first;

	if (!take_number(s, 1, 4, &first))
		return false;
	if (take(s, '/'))
	{
		tm->tm_mon = first;
		if (!take_number(s, 1, 2, &tm->tm_mday) || !take(s, '/') ||
			!take_number(s, 4, 4, &tm->tm_year))
			return false;
	}
	else
	{
		tm->tm_year = first;
		if (!take(s, '-') || !take_number(s, 2, 2, &tm->tm_mon) ||
			!take(s, '-') || !take_number(s, 2, 2, &tm->tm_mday))
			return false;
	}
	return tm->tm_year >= 1 && tm->tm_mon >= 1 && tm->tm_mon <= 12 &&
		tm->tm_mday >= 1 &&
		tm->tm_mday <= day_tab[isleap(tm->tm_year)][tm->tm_mon - 1];
}

/* Digits after the point, rounded to microseconds. */
static bool
take_fraction(Scanner *s, int *microseconds)
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

static bool
take_am_pm(Scanner *s, struct pg_tm *tm)
{
	Scanner		ahead = *s;
	bool		pm;

	take_blanks(&ahead);
	pm = next_is(&ahead, 'P') || next_is(&ahead, 'p');
	if (!pm && !next_is(&ahead, 'A') && !next_is(&ahead, 'a'))
		return true;
	ahead.at++;
	if (!take(&ahead, 'M') && !take(&ahead, 'm'))
		return false;
	*s = ahead;
	if (tm->tm_hour < 1 || tm->tm_hour > 12)
		return false;
	tm->tm_hour = tm->tm_hour % 12 + (pm ? 12 : 0);
	return true;
}

/* H:M, H:M:S or H:M:S.fraction, with AM or PM or without. */
static bool
take_time(Scanner *s, struct pg_tm *tm, int *microseconds)
{
	if (!take_number(s, 1, 2, &tm->tm_hour) || !take(s, ':') ||
		!take_number(s, 2, 2, &tm->tm_min))
		return false;
	if (take(s, ':'))
	{
		if (!take_number(s, 2, 2, &tm->tm_sec))
			return false;
		if (take(s, '.') && !take_fraction(s, microseconds))
			return false;
	}
	return take_am_pm(s, tm) &&
		tm->tm_hour < 24 && tm->tm_min < 60 && tm->tm_sec < 60;
}

/* Z, +hh, +hhmm or +hh:mm, as seconds east; none leaves *named false. */
static bool
take_offset(Scanner *s, int *seconds_east, bool *named)
{
	int			hours;
	int			minutes = 0;
	int			sign;

	*named = false;
	take_blanks(s);
	if (take(s, 'Z') || take(s, 'z'))
	{
		*named = true;
		*seconds_east = 0;
		return true;
	}
	if (!next_is(s, '+') && !next_is(s, '-'))
		return true;
	sign = take(s, '-') ? -1 : (s->at++, 1);
	if (!take_number(s, 2, 2, &hours))
		return false;
	if ((take(s, ':') || s->at < s->end) && !take_number(s, 2, 2, &minutes))
		return false;
	*named = true;
	*seconds_east = sign * (hours * SECS_PER_HOUR + minutes * SECS_PER_MINUTE);
	return hours < 16 && minutes < 60;
}

/*
 * An instant as the feed writes it; the server's own input function would also
 * take 'yesterday' and depend on DateStyle.  A stamp without an offset is in
 * feed_time_zone.
 */
static bool
parse_instant(const char *stamp, int length, TimestampTz *instant)
{
	Scanner		s = {stamp, stamp + length};
	struct pg_tm tm = {0};
	int			microseconds = 0;
	int			seconds_east;
	bool		named;
	Timestamp	local;

	take_blanks(&s);
	if (!take_date(&s, &tm))
		return false;
	if (take(&s, 'T') || take(&s, 't'))
	{
		if (!take_time(&s, &tm, &microseconds))
			return false;
	}
	else
	{
		take_blanks(&s);
		if (s.at < s.end && *s.at >= '0' && *s.at <= '9' &&
			!take_time(&s, &tm, &microseconds))
			return false;
	}
	if (!take_offset(&s, &seconds_east, &named))
		return false;
	take_blanks(&s);
	if (s.at != s.end)
		return false;

	if (!named)
		seconds_east = -DetermineTimeZoneOffset(&tm, feed_time_zone);
	local = (date2j(tm.tm_year, tm.tm_mon, tm.tm_mday) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY +
		((tm.tm_hour * MINS_PER_HOUR + tm.tm_min) * INT64CONST(60) + tm.tm_sec) * USECS_PER_SEC +
		microseconds;
	*instant = local - seconds_east * USECS_PER_SEC;
	return true;
}

/* ---- texts ---- */

/*
 * A JSON string with its escapes resolved, given what stands between its
 * quotes; NULL if the database cannot hold it (\u0000, half a surrogate pair,
 * a character that the encoding lacks).
 */
static const char *
unescape(const char *text, int length, int *unescaped)
{
	JsonLexContext *lex = compat_json_lexer(text - 1, length + 2,
											GetDatabaseEncoding(), true);

	if (compat_json_lex_string(lex) != JSON_SUCCESS)
		return NULL;
	*unescaped = lex->strval->len;
	return lex->strval->data;
}

/* A JSON number within these limits fits into numeric, and so into jsonb. */
#define MAX_NUMBER_LENGTH	100
#define MAX_EXPONENT		1000

static bool
is_jsonb_number(const char *number, int length)
{
	const char *end = number + length;
	int			exponent = 0;

	if (length > MAX_NUMBER_LENGTH)
		return false;
	while (number < end && *number != 'e' && *number != 'E')
		number++;
	for (; number < end && exponent <= MAX_EXPONENT; number++)
		if (*number >= '0' && *number <= '9')
			exponent = 10 * exponent + (*number - '0');
	return exponent <= MAX_EXPONENT;
}

/*
 * Return a number in plain notation, without exponent or trailing zeros of its
 * fraction; NULL if it is not within the limits above.
 */
static const char *
canonical_number(const char *text, int length, int *canonical_length)
{
	Datum		number;
	const char *canonical;

	if (!is_jsonb_number(text, length))
		return NULL;
	number = DirectFunctionCall3(numeric_in, CStringGetDatum(pnstrdup(text, length)),
								 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	canonical = DatumGetCString(DirectFunctionCall1(numeric_out,
													DirectFunctionCall1(numeric_trim_scale, number)));
	*canonical_length = strlen(canonical);
	return canonical;
}

static inline bool
is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Trim blanks from both ends of a text. */
static const char *
trim(const char *text, int *length)
{
	while (*length > 0 && is_blank(text[*length - 1]))
		(*length)--;
	for (; *length > 0 && is_blank(*text); text++)
		(*length)--;
	return text;
}

/* True for a field that names something: blanks around it do not count. */
static inline bool
is_id(int field)
{
	return field == MAIL_ID || field == CAMPAIGN_ID || field == CONTACT_ID || field == ACCOUNT;
}

static inline const char *
span_text(const EventRecord *record, Field field)
{
	return record->source->text + record->field[field].offset;
}

/*
 * Return a field's value, not null-terminated, and its length.  NULL with
 * length 0 if the event has none, NULL with another length if the database
 * encoding cannot represent it.  Strings with escapes, and ids given as unusual
 * numbers, are built in the current memory context.
 */
const char *
event_field(const EventRecord *record, Field field, int *length)
{
	if (field == ACCOUNT && record->source->account != NULL)
	{
		*length = strlen(record->source->account);
		return record->source->account;
	}
	*length = record->field[field].length;
	if (*length == 0)
		return NULL;
	if (record->escaped & (1 << field))
	{
		const char *text = span_text(record, field);

		if (text[-1] != '"')
			return canonical_number(text, *length, length);
		text = unescape(text, *length, length);
		return text != NULL && is_id(field) ? trim(text, length) : text;
	}
	return span_text(record, field);
}

/* A field's value as text, made in the current memory context; 0 for none. */
Datum
event_field_text(const EventRecord *record, Field field)
{
	int			length;
	const char *value = event_field(record, field, &length);

	return value == NULL ? (Datum) 0 :
		PointerGetDatum(cstring_to_text_with_len(value, length));
}

/* ---- what is wrong with an event ---- */

#define CANNOT_HOLD		"holds a character that the database cannot hold"

/*
 * Could jsonb hold the list's own fields?  It is stricter than json: no
 * \u0000, no number beyond numeric; and deep nesting would meet its stack
 * limit sooner than json's.
 */
#define MAX_FIELDS_DEPTH	64
static bool
is_jsonb(const char *text, int length)
{
	JsonLexContext *lex = compat_json_lexer(text, length, GetDatabaseEncoding(),
											memchr(text, '\\', length) != NULL);
	int			depth = 0;

	do
	{
		if (compat_json_lex_string(lex) != JSON_SUCCESS)
			return false;
		if (lex->token_type == JSON_TOKEN_OBJECT_START ||
			lex->token_type == JSON_TOKEN_ARRAY_START)
			depth++;
		else if (lex->token_type == JSON_TOKEN_OBJECT_END ||
				 lex->token_type == JSON_TOKEN_ARRAY_END)
			depth--;
		else if (lex->token_type == JSON_TOKEN_NUMBER &&
				 !is_jsonb_number(lex->token_start,
								  lex->token_terminator - lex->token_start))
			return false;
	} while (depth > 0 && depth <= MAX_FIELDS_DEPTH);
	return depth == 0;
}

/* The code unit of a \uXXXX that the lexer has checked; 0x10000 for no such escape. */
static unsigned int
escaped_unit(const char *text)
{
	char		digits[5] = {0};

	if (text[0] != '\\' || text[1] != 'u')
		return 0x10000;
	memcpy(digits, text + 2, 4);
	return strtoul(digits, NULL, 16);
}

/*
 * Can the texts of an object be read?  The json type takes \u0000 and half a
 * surrogate pair, and its operators then fail on the row, in whatever query.
 */
static bool
is_readable(const char *text, int length)
{
	const char *end = text + length;

	while ((text = memchr(text, '\\', end - text)) != NULL)
	{
		unsigned int unit = escaped_unit(text);

		if (unit == 0 || (unit >= 0xDC00 && unit <= 0xDFFF))
			return false;
		if (unit >= 0xD800 && unit <= 0xDBFF)
		{
			text += 6;
			unit = escaped_unit(text);
			if (unit < 0xDC00 || unit > 0xDFFF)
				return false;
		}
		text += unit == 0x10000 ? 2 : 6;
	}
	return true;
}

/* What is wrong with a field's text, or NULL. */
static const char *
check_text(const EventRecord *record, Field field)
{
	int			length;
	const char *value = event_field(record, field, &length);

	if (value == NULL)
		return length == 0 ? NULL : CANNOT_HOLD;
	if ((uint32) length > fields[field].longest)
		return psprintf("is longer than %u bytes", fields[field].longest);
	if (field == FIELDS && !is_jsonb(value, length))
		return "holds a character, number or nesting that jsonb cannot hold";
	return NULL;
}

/* For messages: a value, cut where it is long, in quotes. */
static const char *
quoted(const char *value, int length)
{
	int			shown = pg_mbcliplen(value, length, 60);

	return psprintf("\"%.*s%s\"", shown, value, shown < length ? "..." : "");
}

/* .NET's way of saying "no date" */
static inline bool
is_no_date(TimestampTz instant)
{
	return instant < (date2j(2, 1, 1) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY;
}

static const char *
read_expected_date(EventRecord *record)
{
	int			length;
	const char *value = event_field(record, EXPECTED_DELIVERY_DATE, &length);

	record->expected_at = DT_NOBEGIN;
	if (value == NULL)
		return NULL;
	if (!parse_instant(value, length, &record->expected_at))
	{
		record->expected_at = DT_NOBEGIN;
		return psprintf("invalid expected delivery date: %s",
						quoted(value, length));
	}
	if (is_no_date(record->expected_at))
		record->expected_at = DT_NOBEGIN;
	return NULL;
}

static const char *
read_instant(EventRecord *record, const EventBatch *batch)
{
	int			length;
	const char *value = event_field(record, EVENT_DATE, &length);

	if (value == NULL)
		return "missing event date";
	if (!parse_instant(value, length, &record->occurred_at))
		return psprintf("invalid timestamp: %s", quoted(value, length));
	if (record->occurred_at < batch->earliest)
		return psprintf("event date %s is before postalytics_status.earliest",
						quoted(value, length));
	if (record->occurred_at > batch->latest)
		return psprintf("event date %s is after postalytics_status.latest",
						quoted(value, length));
	return NULL;
}

static const char *
read_status(EventRecord *record)
{
	int			length;
	const char *value = event_field(record, EVENT_TYPE, &length);
	int			status;

	if (value == NULL)
		return "missing status";
	status = status_from_text(value, length);
	if (status == NO_STATUS)
		return psprintf("unknown status %s", quoted(value, length));
	record->status = status;
	return NULL;
}

/* The piece: its mail id or campaign/contact, as the identity setting says. */
static const char *
read_piece(EventRecord *record, MemoryContext context)
{
	bool		contact_known = record->field[CAMPAIGN_ID].length > 0 &&
		record->field[CONTACT_ID].length > 0;
	bool		mail_known = record->field[MAIL_ID].length > 0;
	int			length;
	int			contact_length;
	const char *id;
	const char *contact;
	char	   *joined;

	if (mail_known && !(contact_known && setting_identity == IDENTITY_CONTACT))
	{
		MemoryContext scratch = MemoryContextSwitchTo(context);

		record->piece = event_field(record, MAIL_ID, &length);
		record->piece_length = length;
		MemoryContextSwitchTo(scratch);
		return NULL;
	}
	if (!contact_known)
		return "missing piece: neither a mail id nor a campaign and a contact";

	id = event_field(record, CAMPAIGN_ID, &length);
	contact = event_field(record, CONTACT_ID, &contact_length);
	joined = MemoryContextAlloc(context, length + 1 + contact_length);
	memcpy(joined, id, length);
	joined[length] = '/';
	memcpy(joined + length + 1, contact, contact_length);
	record->piece = joined;
	record->piece_length = length + 1 + contact_length;
	return NULL;
}

/* Remove ids that are blank once their escapes are decoded. */
static void
drop_blank_ids(EventRecord *record)
{
	for (int i = 0; i < N_FIELDS; i++)
	{
		int			length;

		if (is_id(i) && record->field[i].length > 0 && (record->escaped & (1 << i)) &&
			event_field(record, i, &length) != NULL && length == 0)
			record->field[i].length = 0;
	}
}

/* Determine piece, status and times.  Returns the reason to reject the event, or NULL. */
static const char *
settle(EventRecord *record, uint32 misplaced, const EventBatch *batch)
{
	const char *wrong;

	drop_blank_ids(record);
	for (int i = 0; i < N_FIELDS; i++)
	{
		if (record->field[i].length == 0)
		{
			if (misplaced & (1 << i))
				return psprintf("%s is neither text nor a number", fields[i].name);
		}
		else if ((wrong = check_text(record, i)) != NULL)
			return psprintf("%s %s", fields[i].name, wrong);
	}
	if (!is_readable(record->source->text + record->payload.offset, record->payload.length))
		return "payload " CANNOT_HOLD;
	if ((wrong = read_piece(record, batch->context)) != NULL ||
		(wrong = read_status(record)) != NULL ||
		(wrong = read_instant(record, batch)) != NULL)
		return wrong;
	return read_expected_date(record);
}

/* ---- the batch ---- */

#define CHUNK	1024			/* records */

/* Months of events begin with the year 1. */
#define FIRST_INSTANT	((date2j(1, 1, 1) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY)

/* A batch, with all that it holds, in a memory context of its own. */
EventBatch *
event_batch_create(MemoryContext parent)
{
	MemoryContext context = AllocSetContextCreate(parent,
												  "postalytics events",
												  ALLOCSET_DEFAULT_SIZES);
	EventBatch *batch = MemoryContextAllocZero(context, sizeof(EventBatch));
	TimestampTz now = GetCurrentStatementStartTimestamp();

	batch->context = context;
	batch->scratch = AllocSetContextCreate(context, "postalytics event",
										   ALLOCSET_SMALL_SIZES);
	batch->earliest = Max(now - setting_earliest * INT64CONST(60) * USECS_PER_SEC,
						  FIRST_INSTANT);
	batch->latest = now + setting_latest * INT64CONST(60) * USECS_PER_SEC;
	return batch;
}

/* The i-th record, counted from 0; it does not move while the batch lives. */
EventRecord *
event_batch_record(EventBatch *batch, int64 i)
{
	return &batch->chunks[i / CHUNK][i % CHUNK];
}

/* Make room for one more element in an array of the batch. */
static void *
enlarge(EventBatch *batch, void *array, int64 used, int64 *size, Size element)
{
	if (used < *size)
		return array;
	*size = *size == 0 ? 64 : *size * 2;
	if (array == NULL)
		return MemoryContextAllocHuge(batch->context, *size * element);
	return repalloc_huge(array, *size * element);
}

static void
add_record(EventBatch *batch, const EventRecord *record)
{
	int64		chunk = batch->nrecords / CHUNK;

	if (chunk == batch->nchunks)
	{
		batch->chunks = enlarge(batch, batch->chunks, chunk,
								&batch->max_chunks, sizeof(EventRecord *));
		batch->chunks[batch->nchunks++] =
			MemoryContextAlloc(batch->context, CHUNK * sizeof(EventRecord));
	}
	*event_batch_record(batch, batch->nrecords++) = *record;
	record->source->accepted++;
}

/*
 * Add a reject of a source; piece is NULL if it could not be read.  After
 * MAX_REJECTS rejects of one source the others are only counted, because
 * fold_rejects will replace them all by one.
 */
static void
add_reject(EventBatch *batch, EventSource *source, Span payload, const char *piece, const char *reason)
{
	Reject	   *reject;

	batch->nrejected++;
	if (source->rejected++ >= MAX_REJECTS)
		return;
	batch->rejects = enlarge(batch, batch->rejects, batch->nrejects,
							 &batch->max_rejects, sizeof(Reject));
	reject = &batch->rejects[batch->nrejects++];
	reject->source = source;
	reject->payload = payload;
	reject->piece = piece == NULL ? NULL : MemoryContextStrdup(batch->context, piece);
	reject->reason = MemoryContextStrdup(batch->context, reason);
}

/*
 * Reject the i-th record after all; the last one takes its place.
 */
void
event_batch_reject(EventBatch *batch, int64 i, const char *reason)
{
	EventRecord *record = event_batch_record(batch, i);

	record->source->accepted--;
	add_reject(batch, record->source, record->payload,
			   pnstrdup(record->piece, record->piece_length), reason);
	*record = *event_batch_record(batch, --batch->nrecords);
}

/*
 * By piece, status and instant: the order of the leaves' keys, in which every
 * call takes its locks.  Pieces compare as bytes, as their collation does.
 */
int
event_compare(const EventRecord *record, const char *piece, uint32 length,
			  MailStatus status, TimestampTz occurred_at)
{
	int			result = memcmp(record->piece, piece,
								Min(record->piece_length, length));

	if (result != 0)
		return result;
	if (record->piece_length != length)
		return record->piece_length < length ? -1 : 1;
	if (record->status != status)
		return record->status < status ? -1 : 1;
	if (record->occurred_at != occurred_at)
		return record->occurred_at < occurred_at ? -1 : 1;
	return 0;
}

/* ---- reading ---- */

typedef struct Reader
{
	EventBatch *batch;
	EventSource *source;
	names_hash *names;
	JsonLexContext *lex;		/* its token is the one to look at next */
	char		path[MAX_PATH];
} Reader;

/* An object that may turn out to be one event or a wrapper of many. */
typedef struct Candidate
{
	EventRecord record;
	Span	   *details;		/* of fields from N_FIELDS on, where they are wanted */
	uint32		misplaced;		/* of the fields an event must have: neither text nor number */
	bool		wraps;			/* are there events in it? */
	int64		nrecords;		/* what the batch held before those */
	int64		nrejects;
	int64		nrejected;
	int64		accepted;
	int64		rejected;
} Candidate;

static void read_events(Reader *reader);

static inline JsonTokenType
token(const Reader *reader)
{
	return reader->lex->token_type;
}

static inline void
advance(Reader *reader)
{
	if (unlikely(json_lex(reader->lex) != JSON_SUCCESS))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid input syntax for type json")));
}

static inline uint32
token_offset(const Reader *reader)
{
	return reader->lex->token_start - reader->source->text;
}

/* Where the token before the current one ended. */
static inline uint32
previous_end(const Reader *reader)
{
	return reader->lex->prev_token_terminator - reader->source->text;
}

static inline bool
at_container(const Reader *reader)
{
	return token(reader) == JSON_TOKEN_OBJECT_START ||
		token(reader) == JSON_TOKEN_ARRAY_START;
}

/* A string or a number, or null: not a boolean, which no field is. */
static inline bool
at_text(const Reader *reader)
{
	return token(reader) == JSON_TOKEN_STRING ||
		token(reader) == JSON_TOKEN_NUMBER ||
		token(reader) == JSON_TOKEN_NULL;
}

static inline bool
at_boolean(const Reader *reader)
{
	return token(reader) == JSON_TOKEN_TRUE || token(reader) == JSON_TOKEN_FALSE;
}

/* Pass over a value, however deep. */
static void
skip_value(Reader *reader)
{
	int			depth = 0;

	do
	{
		if (at_container(reader))
			depth++;
		else if (token(reader) == JSON_TOKEN_OBJECT_END ||
				 token(reader) == JSON_TOKEN_ARRAY_END)
			depth--;
		advance(reader);
	} while (depth > 0);
}

/* Pass over a value and say where it stood. */
static Span
span_value(Reader *reader)
{
	Span		span;

	span.offset = token_offset(reader);
	skip_value(reader);
	span.length = previous_end(reader) - span.offset;
	return span;
}

/* True if a number is written as an id would be: digits, without a leading zero. */
static bool
is_plain_number(const char *text, int length)
{
	if (text[0] == '0')
		return length == 1;
	for (int i = 0; i < length; i++)
		if (text[i] < '0' || text[i] > '9')
			return false;
	return true;
}

/* Take a field's text or number; null and '' are as good as nothing. */
static void
read_scalar(Reader *reader, Candidate *candidate, Field field)
{
	EventRecord *record = &candidate->record;
	JsonLexContext *lex = reader->lex;
	Span		span = {token_offset(reader), lex->token_terminator - lex->token_start};
	const char *text = lex->token_start;
	bool		made = false;	/* by event_field, in memory of its own */

	if (token(reader) == JSON_TOKEN_STRING)
	{
		int			length = span.length - 2;

		text++;
		made = memchr(text, '\\', length) != NULL;
		if (!made && is_id(field))
			text = trim(text, &length);
		span.offset = text - reader->source->text;
		span.length = length;
	}
	else if (token(reader) == JSON_TOKEN_NULL)
		span.length = 0;
	else if (token(reader) == JSON_TOKEN_NUMBER && is_id(field))
		made = !is_plain_number(text, span.length);
	advance(reader);
	if (span.length == 0 || field == FIELDS)
		return;
	if (field >= N_FIELDS)
	{
		candidate->details[field - N_FIELDS] = span;
		return;
	}
	record->field[field] = span;
	if (made)
		record->escaped |= 1 << field;
	else
		record->escaped &= ~(1 << field);
}

/* True if a container holds nothing. */
static bool
is_empty(const char *text, int length)
{
	for (int i = 1; i < length - 1; i++)
		if (!is_blank(text[i]))
			return false;
	return true;
}

static void read_members(Reader *reader, Candidate *candidate, Path path);

/* Read a known member, or a section that may hold some. */
static void
read_member(Reader *reader, Candidate *candidate, Path path, int field)
{
	bool		is_detail = field >= N_FIELDS && field != WRAPPER;
	bool		is_wanted = field >= 0 && (field < N_FIELDS || (is_detail && candidate->details != NULL));

	if (at_text(reader) || (at_boolean(reader) && is_detail))
	{
		if (is_wanted)
			read_scalar(reader, candidate, field);
		else
			advance(reader);
		return;
	}
	if (field == FIELDS && at_container(reader))
	{
		Span		span = span_value(reader);

		/* Treat an empty container as absent. */
		if (!is_empty(reader->source->text + span.offset, span.length))
			candidate->record.field[FIELDS] = span;
		return;
	}
	if (field == MAIL_ID || field == EVENT_TYPE || field == EVENT_DATE)
		candidate->misplaced |= 1 << field;
	if (token(reader) == JSON_TOKEN_OBJECT_START && path.length < MAX_PATH)
		read_members(reader, candidate, path);
	else
		skip_value(reader);
}

/* Read the events under data, events or items. */
static void
read_wrapped(Reader *reader, Candidate *candidate)
{
	if (!candidate->wraps)
	{
		candidate->wraps = true;
		candidate->nrecords = reader->batch->nrecords;
		candidate->nrejects = reader->batch->nrejects;
		candidate->nrejected = reader->batch->nrejected;
		candidate->accepted = reader->source->accepted;
		candidate->rejected = reader->source->rejected;
	}
	read_events(reader);
}

static inline bool
has_field(const Candidate *candidate, Field field)
{
	return candidate->record.field[field].length > 0 ||
		(candidate->misplaced & (1 << field)) != 0;
}

/* True if the object identifies a piece, which only events do. */
static inline bool
is_event(const Candidate *candidate)
{
	return has_field(candidate, MAIL_ID) ||
		(has_field(candidate, CAMPAIGN_ID) && has_field(candidate, CONTACT_ID));
}

/*
 * True if the object is only a wrapper around other events.  A wrapper can have
 * an event date or type of its own.  An object that has both and contains no
 * valid event is itself an event, whose data only looks like a list of events.
 * An object that has one of them is a wrapper if it contains rejected events.
 */
static inline bool
is_wrapper(const Candidate *candidate, const EventBatch *batch)
{
	int			own = has_field(candidate, EVENT_DATE) + has_field(candidate, EVENT_TYPE);

	if (!candidate->wraps || is_event(candidate))
		return false;
	return batch->nrecords > candidate->nrecords || own == 0 ||
		(own == 1 && batch->nrejected > candidate->nrejected);
}

/* The path of the member whose name is the current token. */
static Path
member_path(Reader *reader, Path section)
{
	const char *name = reader->lex->token_start + 1;
	int			length = reader->lex->token_terminator - name - 1;

	if (memchr(name, '\\', length) != NULL)
	{
		name = unescape(name, length, &length);
		if (name == NULL)
			return (Path) {0, MAX_PATH};
	}
	return append_name(section, reader->path, name, length);
}

static int
find_field(Reader *reader, Path path)
{
	FieldName  *known;

	if (path.length == MAX_PATH)
		return -1;
	known = names_lookup_hash(reader->names, reader->path, path.hash);
	return known == NULL ? -1 : known->field;
}

/* Read an object's members, of an event itself or of one of its sections. */
static void
read_members(Reader *reader, Candidate *candidate, Path section)
{
	check_stack_depth();
	advance(reader);			/* { */
	while (token(reader) != JSON_TOKEN_OBJECT_END)
	{
		Path		path = member_path(reader, section);
		int			field = find_field(reader, path);

		advance(reader);		/* the name */
		advance(reader);		/* : */
		if (field == WRAPPER && at_container(reader) && reader->batch != NULL &&
			section.length == 0 && !is_event(candidate))
			read_wrapped(reader, candidate);
		else
			read_member(reader, candidate, path, field);
		if (token(reader) == JSON_TOKEN_COMMA)
			advance(reader);
	}
	advance(reader);			/* } */
}

/* The piece of a rejected event, or NULL if it cannot be read. */
static const char *
readable_piece(EventRecord *record, const EventBatch *batch)
{
	static const Field ids[] = {MAIL_ID, CAMPAIGN_ID, CONTACT_ID};

	for (int i = 0; i < lengthof(ids); i++)
		if (record->field[ids[i]].length > 0 && check_text(record, ids[i]) != NULL)
			record->field[ids[i]].length = 0;
	if (read_piece(record, batch->context) != NULL)
		return NULL;
	return pnstrdup(record->piece, record->piece_length);
}

/* Add what an object turned out to be: an event, good or bad, or a wrapper. */
static void
add_candidate(Reader *reader, Candidate *candidate)
{
	EventBatch *batch = reader->batch;
	MemoryContext caller;
	const char *wrong;

	if (is_wrapper(candidate, batch))
	{
		/* What was alone in it and is no good may be an event's data: keep all. */
		if (batch->nrecords == candidate->nrecords && batch->nrejected == candidate->nrejected + 1 &&
			batch->nrejects == candidate->nrejects + 1)
			batch->rejects[candidate->nrejects].payload = candidate->record.payload;
		return;
	}
	if (candidate->wraps)
	{
		/* It is an event after all: what it wraps is part of its payload. */
		batch->nrecords = candidate->nrecords;
		batch->nrejects = candidate->nrejects;
		batch->nrejected = candidate->nrejected;
		reader->source->accepted = candidate->accepted;
		reader->source->rejected = candidate->rejected;
	}

	caller = MemoryContextSwitchTo(batch->scratch);
	wrong = settle(&candidate->record, candidate->misplaced, batch);
	if (wrong == NULL)
		add_record(batch, &candidate->record);
	else
		add_reject(batch, reader->source, candidate->record.payload,
				   readable_piece(&candidate->record, batch), wrong);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(batch->scratch);

	if (batch->progress != NULL && batch->nrecords % CHUNK == 0)
		batch->progress(previous_end(reader));
	CHECK_FOR_INTERRUPTS();
}

static void
read_object(Reader *reader)
{
	Candidate	candidate;

	memset(&candidate, 0, sizeof(candidate));
	candidate.record.source = reader->source;
	candidate.record.payload.offset = token_offset(reader);
	read_members(reader, &candidate, empty_path);
	candidate.record.payload.length =
		previous_end(reader) - candidate.record.payload.offset;
	add_candidate(reader, &candidate);
}

/* Read one event; what is not an object can only be rejected. */
static void
read_event(Reader *reader)
{
	if (token(reader) == JSON_TOKEN_OBJECT_START)
		read_object(reader);
	else
		add_reject(reader->batch, reader->source, span_value(reader), NULL,
				   "not an object");
}

/* Read one event, or an array of them. */
static void
read_events(Reader *reader)
{
	check_stack_depth();
	if (token(reader) != JSON_TOKEN_ARRAY_START)
	{
		read_event(reader);
		return;
	}
	advance(reader);			/* [ */
	while (token(reader) != JSON_TOKEN_ARRAY_END)
	{
		read_event(reader);
		if (token(reader) == JSON_TOKEN_COMMA)
			advance(reader);
	}
	advance(reader);			/* ] */
}

/*
 * Read a json value's events into the batch.  text, which is in the server's
 * encoding, and account, which may be NULL, must live as long as the batch.
 * Errors: 54001 for nesting deeper than the stack.
 */
EventSource *
event_batch_read(EventBatch *batch, const char *text, uint32 length,
				 const char *account)
{
	MemoryContext caller = MemoryContextSwitchTo(batch->context);
	EventSource *source = palloc0(sizeof(EventSource));
	Reader		reader;

	source->text = text;
	source->length = length;
	source->account = account;
	source->number = batch->nsources++;

	reader.batch = batch;
	reader.source = source;
	reader.names = get_field_names();
	reader.lex = compat_json_lexer(text, length, GetDatabaseEncoding(), false);
	advance(&reader);
	read_events(&reader);

	MemoryContextSwitchTo(caller);
	return source;
}

/* Read a stored payload's fields, and its details if details is not NULL; false if it is not an object. */
static bool
read_stored(EventRecord *record, EventSource *source, Span *details)
{
	Candidate	candidate;
	Reader		reader;

	reader.batch = NULL;
	reader.source = source;
	reader.names = get_field_names();
	reader.lex = compat_json_lexer(source->text, source->length,
								   GetDatabaseEncoding(), false);
	advance(&reader);
	if (token(&reader) != JSON_TOKEN_OBJECT_START)
		return false;

	memset(&candidate, 0, sizeof(candidate));
	candidate.record.source = source;
	candidate.details = details;
	read_members(&reader, &candidate, empty_path);
	*record = candidate.record;
	for (int i = 0; i < N_FIELDS; i++)
	{
		if (record->field[i].length > 0 && check_text(record, i) != NULL)
			record->field[i].length = 0;
	}
	drop_blank_ids(record);
	return true;
}

/*
 * Read the fields of a stored payload; piece, status and time come from the
 * caller.  Invalid fields are left out.  False if the payload is not an object.
 * Allocates in the current memory context.
 */
bool
event_read_fields(EventRecord *record, EventSource *source)
{
	if (!read_stored(record, source, NULL))
		return false;
	(void) read_expected_date(record);
	return true;
}

/* A scalar of a source as text; 0 if there is none, or the database cannot hold it. */
static Datum
span_datum(const EventSource *source, Span span)
{
	const char *text = source->text + span.offset;
	int			length = span.length;

	if (length > 0 && text[-1] == '"' && memchr(text, '\\', length) != NULL)
		text = unescape(text, length, &length);
	if (span.length == 0 || text == NULL)
		return (Datum) 0;
	return PointerGetDatum(cstring_to_text_with_len(text, length));
}

static bool
means_true(const text *value)
{
	static const char *const spellings[] = {"true", "1", "yes"};

	for (int i = 0; i < lengthof(spellings); i++)
		if (VARSIZE_ANY_EXHDR(value) == strlen(spellings[i]) &&
			pg_strncasecmp(VARDATA_ANY(value), spellings[i], strlen(spellings[i])) == 0)
			return true;
	return false;
}

/*
 * payload_details(payload json) returns (error_code, error_description,
 * address_updated, address, address2, city, state, zip)
 *
 * What a payload says of an address and of what was wrong with it, for the
 * reports; NULL for what it does not say or the database cannot hold.  Strict.
 */
Datum
postalytics_payload_details(PG_FUNCTION_ARGS)
{
	text	   *payload = PG_GETARG_TEXT_PP(0);
	EventSource source = {.text = VARDATA_ANY(payload), .length = VARSIZE_ANY_EXHDR(payload)};
	Span		details[N_ALL_FIELDS - N_FIELDS] = {0};
	EventRecord record;
	TupleDesc	tupdesc;
	Datum		values[N_ALL_FIELDS - N_FIELDS + 1];
	bool		nulls[N_ALL_FIELDS - N_FIELDS + 1];

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (!read_stored(&record, &source, details))
		PG_RETURN_NULL();
	for (int i = 0; i < lengthof(details); i++)
	{
		values[i] = span_datum(&source, details[i]);
		nulls[i] = values[i] == (Datum) 0;
	}
	if (!nulls[ADDRESS_UPDATED - N_FIELDS])
		values[ADDRESS_UPDATED - N_FIELDS] =
			BoolGetDatum(means_true(DatumGetTextPP(values[ADDRESS_UPDATED - N_FIELDS])));
	values[lengthof(details)] = event_field_text(&record, ZIP);
	nulls[lengthof(details)] = values[lengthof(details)] == (Datum) 0;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}
