/*
 * person.c
 *		Decides whether a payload is about a person who is to be erased.
 */
#include "postgres.h"

#include <limits.h>

#include "access/htup_details.h"
#include "base/compat.h"
#include "base/text.h"
#include "catalog/pg_type.h"
#include "feed/reader.h"
#include "feed/value.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(postalytics_payload_fields);
PG_FUNCTION_INFO_V1(postalytics_names_recipient);
PG_FUNCTION_INFO_V1(postalytics_is_about);
PG_FUNCTION_INFO_V1(postalytics_rejected_events);

/* ---- stored events ---- */

/* Read the fields of a stored payload; false if it is not an object. */
static bool
read_payload(text *payload, EventSource *source, EventRecord *record)
{
	memset(source, 0, sizeof(*source));
	source->json = VARDATA_ANY(payload);
	source->length = VARSIZE_ANY_EXHDR(payload);
	source->account = "";
	return event_read_fields(record, source);
}

/*
 * payload_fields(payload json) returns (campaign_name text, contact_id text,
 *		email text)
 *
 * Returns fields of the payload of a stored event.  A field is NULL if the
 * payload lacks it.  Strict.
 */
Datum
postalytics_payload_fields(PG_FUNCTION_ARGS)
{
	static const Field fields[] = {CAMPAIGN_NAME, CONTACT_ID, EMAIL};
	EventSource source;
	EventRecord record;
	TupleDesc	tupdesc;
	Datum		values[lengthof(fields)];
	bool		nulls[lengthof(fields)];

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (!read_payload(PG_GETARG_TEXT_PP(0), &source, &record))
		PG_RETURN_NULL();
	for (int i = 0; i < lengthof(fields); i++)
	{
		values[i] = event_field_text(&record, fields[i]);
		nulls[i] = values[i] == (Datum) 0;
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}

/* True if a field of an event is this text, apart from whitespace around it. */
static bool
is_field(const EventRecord *record, Field field, const text *sought, bool ignore_case)
{
	int			length;
	const char *value = event_field(record, field, &length);

	if (value == NULL)
		return false;
	value = trim(value, &length);
	if (length != VARSIZE_ANY_EXHDR(sought))
		return false;
	return ignore_case ? pg_strncasecmp(value, VARDATA_ANY(sought), length) == 0 :
		memcmp(value, VARDATA_ANY(sought), length) == 0;
}

/*
 * names_recipient(payload json, contact_id text, email text) returns boolean
 *
 * True if the payload of a stored event contains this contact id, or this
 * e-mail address, ignoring case, as the recipient's.  If one of them is
 * NULL, only the other is compared.  False if the payload is NULL.
 */
Datum
postalytics_names_recipient(PG_FUNCTION_ARGS)
{
	EventSource source;
	EventRecord record;

	if (PG_ARGISNULL(0) || !read_payload(PG_GETARG_TEXT_PP(0), &source, &record))
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL((!PG_ARGISNULL(1) && is_field(&record, CONTACT_ID, PG_GETARG_TEXT_PP(1), false)) ||
				   (!PG_ARGISNULL(2) && is_field(&record, EMAIL, PG_GETARG_TEXT_PP(2), true)));
}

/* ---- rejects ---- */

/* Texts that are searched for. */
typedef struct Texts
{
	text	  **texts;
	int			count;
} Texts;

/* What identifies a person. */
typedef struct Person
{
	Texts		piece_ids;
	Texts		contact_ids;
	Texts		emails;			/* with an @ in each */
} Person;

/* Read an argument of type text[]; NULL is empty, and NULL elements are skipped. */
static Texts
texts_argument(FunctionCallInfo fcinfo, int argument)
{
	Texts		result = {0};
	Datum	   *elements;
	bool	   *nulls;
	int			count;

	if (PG_ARGISNULL(argument))
		return result;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(argument), TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &count);
	result.texts = palloc(Max(count, 1) * sizeof(text *));
	for (int i = 0; i < count; i++)
		if (!nulls[i])
			result.texts[result.count++] = DatumGetTextPP(elements[i]);
	return result;
}

/* Read the arguments after the payload. */
static Person
person_arguments(FunctionCallInfo fcinfo)
{
	Person		person;

	person.piece_ids = texts_argument(fcinfo, 1);
	person.contact_ids = texts_argument(fcinfo, 2);
	person.emails = texts_argument(fcinfo, 3);
	return person;
}

static bool
includes(const Texts *texts, const char *value, int length)
{
	return includes_bytes(texts->texts, texts->count, value, length);
}

/* True for a character that can be part of an e-mail address. */
static bool
is_address_char(char c)
{
	return IS_HIGHBIT_SET(c) || isalnum((unsigned char) c) || (c != '\0' && strchr("._%+-@", c) != NULL);
}

/*
 * True if the address, whose @ would be at this position, is in a string and is
 * not part of a longer one.  Ignores case.
 */
static bool
is_address_at(const char *string, int length, int at, const text *address)
{
	int			address_length = VARSIZE_ANY_EXHDR(address);
	const char *sign = memchr(VARDATA_ANY(address), '@', address_length);
	int			start = sign == NULL ? -1 : at - (int) (sign - VARDATA_ANY(address));
	int			end = start + address_length;

	return start >= 0 && end <= length &&
		pg_strncasecmp(string + start, VARDATA_ANY(address), address_length) == 0 &&
		(start == 0 || !is_address_char(string[start - 1])) &&
		(end == length || !is_address_char(string[end]));
}

/* True if a string contains one of the addresses. */
static bool
contains_address(const char *string, int length, const Texts *addresses)
{
	const char *sign = string;

	while (addresses->count > 0 && (sign = memchr(sign, '@', string + length - sign)) != NULL)
	{
		for (int i = 0; i < addresses->count; i++)
			if (is_address_at(string, length, sign - string, addresses->texts[i]))
				return true;
		sign++;
	}
	return false;
}

/*
 * True if a string in the JSON, key or value, contains an address of the person,
 * or, if ids is true, a scalar equals one of the person's ids.
 */
static bool
mentions(const char *json, int json_length, const Person *person, bool ids)
{
	JsonLexContext *lex = compat_json_lexer(json, json_length, GetDatabaseEncoding(), false);

	while (json_lex(lex) == JSON_SUCCESS && lex->token_type != JSON_TOKEN_END)
	{
		bool		is_string = lex->token_type == JSON_TOKEN_STRING;
		const char *value = lex->token_start + is_string;
		int			length = lex->token_terminator - lex->token_start - 2 * is_string;

		CHECK_FOR_INTERRUPTS();
		if (is_string && memchr(value, '\\', length) != NULL)
			value = unescape(value, length, &length);
		if (value == NULL)
			continue;
		if (is_string && contains_address(value, length, &person->emails))
			return true;
		if (ids && (includes(&person->piece_ids, value, length) || includes(&person->contact_ids, value, length)))
			return true;
	}
	return false;
}

/*
 * True if something that ingest stores or rejects as an event is about the
 * person.  Its piece is NULL if it is unknown.
 */
static bool
event_is_about(const EventSource *source, Span span, const char *piece, int piece_length, const Person *person)
{
	EventSource part = {.json = source->json + span.offset,.length = span.length,.account = ""};
	EventRecord record;
	const char *contact;
	int			length;

	if (piece != NULL && includes(&person->piece_ids, piece, piece_length))
		return true;
	if (mentions(part.json, part.length, person, false))
		return true;
	if (!event_read_fields(&record, &part))
		return false;
	contact = event_field(&record, CONTACT_ID, &length);
	return contact != NULL && includes(&person->contact_ids, contact, length);
}

/*
 * Maximum number of rejected events that are examined one by one, to limit
 * memory: an empty event has two bytes of JSON.  A larger reject is about the
 * person as a whole or not at all.
 */
#define MAX_EVENTS		100000

/*
 * Go through the events of a reject.  If result is not NULL, it gets a row for
 * each of them, with whether it is about the person; otherwise the search ends
 * with the first that is.  True if one is.
 */
static bool
search_reject(text *payload, const Person *person, ReturnSetInfo *result)
{
	const char *json = VARDATA_ANY(payload);
	uint32		length = VARSIZE_ANY_EXHDR(payload);
	EventAccount none = {"", true};
	EventBatch *batch = event_batch_create(CurrentMemoryContext, call_create(CurrentMemoryContext, false));
	MemoryContext caller;
	EventSource *source;
	int64		count;
	bool		found = false;

	batch->settings.max_rejects = MAX_EVENTS;
	batch->settings.max_campaigns = INT_MAX;
	source = event_batch_read(batch, json, length, &none);
	count = source->rejected > MAX_EVENTS ? 1 : batch->nrecords + batch->nrejects;
	for (int64 i = 0; i < count && (result != NULL || !found); i++)
	{
		Span		span = {0, length};
		bool		is_about;

		caller = MemoryContextSwitchTo(batch->scratch);
		if (source->rejected > MAX_EVENTS)
			is_about = mentions(json, length, person, true);
		else if (i < batch->nrecords)
		{
			const EventRecord *record = event_batch_record(batch, i);

			span = record->payload;
			is_about = event_is_about(source, span, record->key.piece, record->key.piece_length, person);
		}
		else
		{
			const Reject *reject = &batch->rejects[i - batch->nrecords];

			span = reject->payload;
			is_about = event_is_about(source, span, reject->piece, reject->piece == NULL ? 0 : strlen(reject->piece), person);
		}
		if (result != NULL)
		{
			Datum		values[] = {span_json(source, span), BoolGetDatum(is_about)};
			bool		nulls[lengthof(values)] = {false};

			tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		}
		found |= is_about;
		MemoryContextSwitchTo(caller);
		MemoryContextReset(batch->scratch);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextDelete(batch->context);
	return found;
}

/*
 * is_about(payload json, piece_ids text[], contact_ids text[], emails text[])
 * returns boolean
 *
 * True if the payload of a reject, or an event in it, is about a person: it
 * names one of the pieces or contact ids, or contains one of the e-mail
 * addresses anywhere, ignoring case.  NULL arrays are empty; false if
 * the payload is NULL.  Errors: 54001 for JSON that is nested too deeply.
 */
Datum
postalytics_is_about(PG_FUNCTION_ARGS)
{
	Person		person = person_arguments(fcinfo);

	PG_RETURN_BOOL(!PG_ARGISNULL(0) && search_reject(PG_GETARG_TEXT_PP(0), &person, NULL));
}

/*
 * rejected_events(payload json, piece_ids text[], contact_ids text[],
 *		emails text[]) returns setof (event json, is_about boolean)
 *
 * Returns everything in the payload of a reject that ingest stores or rejects
 * as an event, and whether it is about a person, as is_about.  Returns the
 * payload as a whole if it has more than MAX_EVENTS rejected events.  Errors: as
 * is_about.
 */
Datum
postalytics_rejected_events(PG_FUNCTION_ARGS)
{
	Person		person = person_arguments(fcinfo);

	InitMaterializedSRF(fcinfo, 0);
	if (!PG_ARGISNULL(0))
		(void) search_reject(PG_GETARG_TEXT_PP(0), &person, (ReturnSetInfo *) fcinfo->resultinfo);
	return (Datum) 0;
}
