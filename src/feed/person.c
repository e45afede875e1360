/*
 * person.c
 *		Determines whether a payload is about a person whose data is to be
 *		erased.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include <limits.h>

#include "access/htup_details.h"
#include "base/compat.h"
#include "base/text.h"
#include "catalog/pg_type.h"
#include "feed/reader.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(postalytics_payload_fields);
PG_FUNCTION_INFO_V1(postalytics_names_recipient);
PG_FUNCTION_INFO_V1(postalytics_is_recipient);
PG_FUNCTION_INFO_V1(postalytics_mentions);
PG_FUNCTION_INFO_V1(postalytics_is_about);
PG_FUNCTION_INFO_V1(postalytics_rejected_events);

/* ---- stored events ---- */

/*
 * Read the fields of a stored payload.  Returns false if the payload is not an
 * object.
 */
static bool
read_stored_payload(text *payload, EventSource *source, EventRecord *record)
{
	*source = source_of_event(VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload));
	return event_read_fields(record, source);
}

/*
 * payload_fields(payload json) returns (campaign_name text, contact_id text,
 *		email text)
 *
 * Returns fields of the payload of a stored event.  A field is NULL if the
 * payload lacks it.  The result is NULL if the payload is not an object.  Strict.
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
	if (!read_stored_payload(PG_GETARG_TEXT_PP(0), &source, &record))
		PG_RETURN_NULL();
	for (int i = 0; i < lengthof(fields); i++)
	{
		values[i] = event_field_text(&record, fields[i]);
		nulls[i] = values[i] == (Datum) 0;
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}

/* ---- e-mail addresses anywhere ---- */

/* Texts to search for. */
typedef struct Texts
{
	text	  **texts;
	int			count;
} Texts;

/*
 * Read an argument of type text[].  NULL means an empty array, and NULL elements
 * are skipped.
 */
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

static bool
is_alnum(char c)
{
	return IS_HIGHBIT_SET(c) || isalnum((unsigned char) c);
}

/* True if an address that begins at start could be the end of a longer address. */
static bool
continues_before(const char *string, int start)
{
	return start > 0 && (is_alnum(string[start - 1]) || strchr("._%+-", string[start - 1]) != NULL);
}

/* True if an address that ends at end could be the beginning of a longer address. */
static bool
continues_after(const char *string, int length, int end)
{
	if (end < length && (string[end] == '.' || string[end] == '-'))
		end++;
	return end < length && is_alnum(string[end]);
}

/*
 * True if the @ at position "at" of a string belongs to the address, and the
 * address is not part of a longer address.  Ignores case.
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
		!continues_before(string, start) && !continues_after(string, length, end);
}

/* True if a string contains one of the addresses. */
static bool
contains_address(const char *string, int length, const Texts *addresses)
{
	const char *sign = string;

	while ((sign = memchr(sign, '@', string + length - sign)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < addresses->count; i++)
			if (is_address_at(string, length, sign - string, addresses->texts[i]))
				return true;
		sign++;
	}
	return false;
}

/*
 * The letter that replaces decoded letters outside ASCII.  An address next to a
 * letter is part of a longer address.
 */
#define LETTER	'x'

/* Return the value of hexadecimal digits, or -1 if they are invalid. */
static int
hex_value(const char *digits, int count)
{
	int			value = 0;

	for (int i = 0; i < count; i++)
	{
		char		c = pg_ascii_tolower((unsigned char) digits[i]);

		if (!isxdigit((unsigned char) c))
			return -1;
		value = 16 * value + (c <= '9' ? c - '0' : c - 'a' + 10);
	}
	return value;
}

/*
 * Decode the escapes of a string: \u0040 and \" if sign is '\', and %40 if sign is
 * '%'.  Escaped letters outside ASCII become LETTER.  All other escaped characters
 * outside ASCII, and short escapes such as \n, become blanks.  Unlike unescape,
 * this does not fail for characters that the database cannot store.
 */
static const char *
decode_loosely(const char *string, int length, char sign, int *decoded_length)
{
	char	   *decoded = palloc(length + 1);
	int			digits = sign == '%' ? 2 : 4;
	int			n = 0;

	for (int i = 0; i < length; i++)
	{
		int			start = i + (sign == '%' ? 1 : 2);
		int			value = -1;

		if (string[i] == sign && sign == '\\' && i + 1 < length && string[i + 1] != 'u')
		{
			i++;
			decoded[n++] = strchr("\"\\/", string[i]) != NULL ? string[i] : ' ';
			continue;
		}
		if (string[i] == sign && start + digits <= length && (sign == '%' || string[i + 1] == 'u'))
			value = hex_value(string + start, digits);
		if (value < 0)
		{
			decoded[n++] = string[i];
			continue;
		}
		decoded[n++] = value > 0 && value < 0x80 ? value : value >= 0xC0 && value < 0x2000 ? LETTER : ' ';
		i = start + digits - 1;
	}
	*decoded_length = n;
	return decoded;
}

/* True if the value is this address or contains it; see postalytics_is_recipient. */
static bool
is_recipient(const char *value, int length, text *email)
{
	Texts		addresses = {&email, 1};

	if (contains_address(value, length, &addresses))
		return true;
	value = trim(value, &length);
	return length == VARSIZE_ANY_EXHDR(email) && pg_strncasecmp(value, VARDATA_ANY(email), length) == 0;
}

/*
 * True if a JSON string, given without its quotes, contains one of the
 * addresses.
 */
static bool
string_mentions(const char *string, int length, const Texts *addresses)
{
	if (memchr(string, '\\', length) != NULL)
		string = decode_loosely(string, length, '\\', &length);
	if (contains_address(string, length, addresses))
		return true;
	if (memchr(string, '%', length) == NULL)
		return false;
	string = decode_loosely(string, length, '%', &length);
	return contains_address(string, length, addresses);
}

/*
 * True if a key or a string value in the JSON contains one of the addresses,
 * ignoring case.  The address may be part of a URL, but not of a longer address.
 */
static bool
mentions(const char *json, int length, const Texts *addresses)
{
	JsonLexContext *lex = compat_json_lexer(json, length, GetDatabaseEncoding(), false);

	if (addresses->count == 0)
		return false;
	while (json_lex(lex) == JSON_SUCCESS && lex->token_type != JSON_TOKEN_END)
	{
		CHECK_FOR_INTERRUPTS();
		if (lex->token_type == JSON_TOKEN_STRING &&
			string_mentions(lex->token_start + 1, lex->token_terminator - lex->token_start - 2, addresses))
			return true;
	}
	return false;
}

/*
 * mentions(payload json, emails text[]) returns boolean
 *
 * True if a key or a string value in the payload contains one of the e-mail
 * addresses, ignoring case.  NULL elements are ignored.  False if an argument is
 * NULL.
 */
Datum
postalytics_mentions(PG_FUNCTION_ARGS)
{
	Texts		emails = texts_argument(fcinfo, 1);
	text	   *payload;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	payload = PG_GETARG_TEXT_PP(0);
	PG_RETURN_BOOL(mentions(VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload), &emails));
}

/* ---- the recipient of a stored event ---- */

/*
 * names_recipient(payload json, contact_id text, email text) returns boolean
 *
 * True if the recipient in the payload of a stored event has this contact id, or
 * if is_recipient is true for the recipient's e-mail address.  An argument that is
 * NULL is not compared.  False if the payload is NULL or not an object.
 */
Datum
postalytics_names_recipient(PG_FUNCTION_ARGS)
{
	EventSource source;
	EventRecord record;
	const char *value;
	int			length;

	if (PG_ARGISNULL(0) || !read_stored_payload(PG_GETARG_TEXT_PP(0), &source, &record))
		PG_RETURN_BOOL(false);
	value = event_field(&record, CONTACT_ID, &length);
	if (value != NULL && !PG_ARGISNULL(1))
	{
		text	   *contact_id = PG_GETARG_TEXT_PP(1);

		if (equal_bytes(value, length, VARDATA_ANY(contact_id), VARSIZE_ANY_EXHDR(contact_id)))
			PG_RETURN_BOOL(true);
	}
	value = event_field(&record, EMAIL, &length);
	PG_RETURN_BOOL(value != NULL && !PG_ARGISNULL(2) && is_recipient(value, length, PG_GETARG_TEXT_PP(2)));
}

/*
 * is_recipient(value text, email text) returns boolean
 *
 * True if the value of an e-mail field is this address, ignoring case, or
 * contains it, as in "Ann <ann@example.com>".  Strict.
 */
Datum
postalytics_is_recipient(PG_FUNCTION_ARGS)
{
	text	   *value = PG_GETARG_TEXT_PP(0);

	PG_RETURN_BOOL(is_recipient(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), PG_GETARG_TEXT_PP(1)));
}

/* ---- rejects ---- */

/* What identifies a person, in one account. */
typedef struct Person
{
	const char *account;		/* NULL for any account */
	Texts		piece_ids;
	Texts		contact_ids;
	Texts		emails;
} Person;

/* A part of the payload of a reject that ingest stores or rejects as an event. */
typedef struct RejectedEvent
{
	Span		payload;
	const char *piece;			/* NULL if it is unknown */
	int			piece_length;
	const char *account;
	int			account_length;
} RejectedEvent;

static bool
includes(const Texts *texts, const char *value, int length)
{
	return texts_include(texts->texts, texts->count, value, length);
}

/* True if an event in the payload of a reject is about the person. */
static bool
event_is_about(const EventSource *source, const RejectedEvent *event, const Person *person)
{
	EventSource part = source_of_event(source->json + event->payload.offset, event->payload.length);
	EventRecord record;
	const char *contact;
	int			length;

	if (person->account != NULL &&
		!equal_bytes(person->account, strlen(person->account), event->account, event->account_length))
		return false;
	if (event->piece != NULL && includes(&person->piece_ids, event->piece, event->piece_length))
		return true;
	if (mentions(part.json, part.length, &person->emails))
		return true;
	if (!event_read_fields(&record, &part))
		return false;
	contact = event_field(&record, CONTACT_ID, &length);
	return contact != NULL && includes(&person->contact_ids, contact, length);
}

/* Return the i-th event of a batch.  The rejects are counted after the records. */
static RejectedEvent
rejected_event(EventBatch *batch, int64 i)
{
	if (i < batch->nrecords)
	{
		const EventRecord *record = event_batch_record(batch, i);
		RejectedEvent event = {record->payload, record->key.piece, record->key.piece_length,
		record->key.account, record->key.account_length};

		return event;
	}
	else
	{
		const Reject *reject = &batch->rejects[i - batch->nrecords];
		RejectedEvent event = {reject->payload, reject->piece, reject->piece == NULL ? 0 : strlen(reject->piece),
		reject->account, strlen(reject->account)};

		return event;
	}
}

/* Add a row to the result of rejected_events. */
static void
add_event_row(ReturnSetInfo *result, const EventSource *source, Span payload, const char *account, int account_length, bool is_about)
{
	Datum		values[] = {
		span_json(source, payload),
		PointerGetDatum(cstring_to_text_with_len(account, account_length)),
		BoolGetDatum(is_about)
	};
	bool		nulls[lengthof(values)] = {false};

	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * Maximum number of rejected events in memory at a time.  A payload can contain
 * very many, because an empty event has only two bytes of JSON.  rejected_events
 * does not split a payload that contains more rejected events than this.
 */
#define MAX_EVENTS		100000

/*
 * Search the payload of a reject for events that are about the person.  If there
 * is one, set *found to true.  Return the number of rejected events in the payload.
 * If skip is not 0, leave out the accepted events and the first "skip" rejected
 * events.  If result is not NULL, add a row to it for each event.  Otherwise stop
 * at the first event that is about the person.
 */
static int64
search_events(text *payload, const EventAccount *account, int64 skip, const Person *person,
			  ReturnSetInfo *result, bool *found)
{
	EventBatch *batch = event_batch_create(CurrentMemoryContext, call_create(CurrentMemoryContext, false));
	EventSource *source;
	int64		rejected;

	batch->settings.max_rejects = MAX_EVENTS;
	batch->settings.max_campaigns = INT_MAX;
	batch->skip_rejects = skip;
	source = event_batch_read(batch, VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload), account);
	rejected = source->rejected;
	for (int64 i = skip > 0 ? batch->nrecords : 0; i < batch->nrecords + batch->nrejects && (result != NULL || !*found); i++)
	{
		MemoryContext caller = MemoryContextSwitchTo(batch->scratch);
		RejectedEvent event = rejected_event(batch, i);
		bool		is_about = event_is_about(source, &event, person);

		if (result != NULL)
			add_event_row(result, source, event.payload, event.account, event.account_length, is_about);
		*found |= is_about;
		MemoryContextSwitchTo(caller);
		MemoryContextReset(batch->scratch);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextDelete(batch->context);
	return rejected;
}

/* True if any event of a reject is about the person. */
static bool
search_reject(text *payload, const EventAccount *account, const Person *person)
{
	bool		found = false;
	int64		skip = 0;
	int64		rejected;

	do
	{
		rejected = search_events(payload, account, skip, person, NULL, &found);
		skip += MAX_EVENTS;
	} while (!found && skip < rejected);
	return found;
}

/*
 * Read the arguments after the payload.  *account is set to the account of the
 * reject.
 */
static Person
person_arguments(FunctionCallInfo fcinfo, EventAccount *account)
{
	Person		person;

	account->name = PG_ARGISNULL(1) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(1));
	account->is_fixed = account->name[0] != '\0';
	person.account = PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2));
	person.piece_ids = texts_argument(fcinfo, 3);
	person.contact_ids = texts_argument(fcinfo, 4);
	person.emails = texts_argument(fcinfo, 5);
	return person;
}

/*
 * is_about(payload json, reject_account text, account text, piece_ids text[],
 *		contact_ids text[], emails text[]) returns boolean
 *
 * True if an event in the payload of a reject belongs to the given account, and
 * has one of the piece ids or contact ids, or contains one of the e-mail addresses
 * anywhere.  An event belongs to the account of the reject or, if that is empty,
 * to the account that field_names finds in the event.  If account is NULL, any
 * account matches.  A NULL array means an empty array.  False if the payload is
 * NULL.  Errors: 54001 for JSON that is nested too deeply.
 */
Datum
postalytics_is_about(PG_FUNCTION_ARGS)
{
	EventAccount account;
	Person		person = person_arguments(fcinfo, &account);

	PG_RETURN_BOOL(!PG_ARGISNULL(0) && search_reject(PG_GETARG_TEXT_PP(0), &account, &person));
}

/*
 * rejected_events(payload json, reject_account text, account text,
 *		piece_ids text[], contact_ids text[], emails text[])
 *		returns setof (event json, event_account text,
 *		is_about boolean)
 *
 * Returns the events in the payload of a reject, which are the parts that ingest
 * stores or rejects separately.  For each event, returns its account, and whether
 * is_about is true for the event.  A payload with more than MAX_EVENTS rejected
 * events is returned as a whole, with the account of the reject.  Errors: 54001 for
 * JSON that is nested too deeply.
 */
Datum
postalytics_rejected_events(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	EventAccount account;
	Person		person = person_arguments(fcinfo, &account);
	text	   *payload;
	bool		found = false;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		return (Datum) 0;
	payload = PG_GETARG_TEXT_PP(0);
	if (search_events(payload, &account, 0, &person, result, &found) > MAX_EVENTS)
	{
		EventSource source = source_of_event(VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload));
		Span		whole = {0, source.length};

		tuplestore_clear(result->setResult);
		add_event_row(result, &source, whole, account.name, strlen(account.name),
					  found || search_reject(payload, &account, &person));
	}
	return (Datum) 0;
}
