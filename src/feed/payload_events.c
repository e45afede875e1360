/*
 * payload_events.c
 *		Finds the recipients that a payload is about, to erase them.
 */
#include "postgres.h"

#include <limits.h>

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

PG_FUNCTION_INFO_V1(postalytics_payload_events);
PG_FUNCTION_INFO_V1(postalytics_names_recipient);
PG_FUNCTION_INFO_V1(postalytics_mentions);

/* ---- the events of a payload ---- */

/* Columns of payload_events. */
enum
{
	EVENT_JSON, EVENT_PIECE_ID, EVENT_CAMPAIGN_NAME, EVENT_CONTACT_ID, EVENT_EMAIL,
	N_EVENT_COLUMNS
};

/* Return a row for part of a source, whose piece is NULL if it is unknown. */
static void
put_event(ReturnSetInfo *result, const EventSource *source, Span span, const char *piece, int piece_length)
{
	EventSource part = {.json = source->json + span.offset,.length = span.length,.account = ""};
	EventRecord record;
	Datum		values[N_EVENT_COLUMNS] = {0};
	bool		nulls[N_EVENT_COLUMNS] = {0};

	values[EVENT_JSON] = span_json(source, span);
	if (piece != NULL)
		values[EVENT_PIECE_ID] = PointerGetDatum(cstring_to_text_with_len(piece, piece_length));
	if (event_read_fields(&record, &part))
	{
		values[EVENT_CAMPAIGN_NAME] = event_field_text(&record, CAMPAIGN_NAME);
		values[EVENT_CONTACT_ID] = event_field_text(&record, CONTACT_ID);
		values[EVENT_EMAIL] = event_field_text(&record, EMAIL);
	}
	for (int i = 0; i < N_EVENT_COLUMNS; i++)
		nulls[i] = values[i] == (Datum) 0;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * payload_events(payload json) returns setof (event json, piece_id text,
 *		campaign_name text, contact_id text, email text)
 *
 * Returns everything in a payload that ingest would store or reject as an
 * event, in any order, and what it names.  Strict.  Errors: 54001 for JSON that
 * is nested too deeply.
 */
Datum
postalytics_payload_events(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	text	   *payload = PG_GETARG_TEXT_PP(0);
	EventAccount none = {"", true};
	EventBatch *batch;

	InitMaterializedSRF(fcinfo, 0);
	batch = event_batch_create(CurrentMemoryContext, call_create(CurrentMemoryContext));
	batch->settings.max_rejects = INT_MAX;
	batch->settings.max_campaigns = INT_MAX;
	event_batch_read(batch, VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload), &none);
	for (int64 i = 0; i < batch->nrecords; i++)
	{
		const EventRecord *record = event_batch_record(batch, i);

		put_event(result, record->source, record->payload, record->key.piece, record->key.piece_length);
	}
	for (int64 i = 0; i < batch->nrejects; i++)
	{
		const Reject *reject = &batch->rejects[i];

		put_event(result, reject->source, reject->payload, reject->piece,
				  reject->piece == NULL ? 0 : strlen(reject->piece));
	}
	MemoryContextDelete(batch->context);
	return (Datum) 0;
}

/* ---- the recipient of a stored event ---- */

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
 * True if the payload of a stored event gives this contact id, or this e-mail
 * address in upper or lower case.  NULL is not looked for; a NULL payload gives
 * nothing.
 */
Datum
postalytics_names_recipient(PG_FUNCTION_ARGS)
{
	text	   *payload;
	EventSource source = {.account = ""};
	EventRecord record;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	payload = PG_GETARG_TEXT_PP(0);
	source.json = VARDATA_ANY(payload);
	source.length = VARSIZE_ANY_EXHDR(payload);
	if (!event_read_fields(&record, &source))
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL((!PG_ARGISNULL(1) && is_field(&record, CONTACT_ID, PG_GETARG_TEXT_PP(1), false)) ||
				   (!PG_ARGISNULL(2) && is_field(&record, EMAIL, PG_GETARG_TEXT_PP(2), true)));
}

/* ---- e-mail addresses anywhere in a payload ---- */

/* True for a character that can be part of an e-mail address. */
static bool
is_address_char(char c)
{
	return IS_HIGHBIT_SET(c) || isalnum((unsigned char) c) || (c != '\0' && strchr("._%+-@", c) != NULL);
}

/*
 * True if a string contains an address that is not part of a longer one.
 * Ignores the case of ASCII letters.
 */
static bool
contains_address(const char *string, int length, const char *address, int address_length)
{
	for (int i = 0; i + address_length <= length; i++)
		if (pg_strncasecmp(string + i, address, address_length) == 0 &&
			(i == 0 || !is_address_char(string[i - 1])) &&
			(i + address_length == length || !is_address_char(string[i + address_length])))
			return true;
	return false;
}

/*
 * mentions(payload json, addresses text[]) returns boolean
 *
 * True if a string in the payload, be it a name or a value, contains one of the
 * e-mail addresses.  Strict; NULL and empty addresses are ignored.
 */
Datum
postalytics_mentions(PG_FUNCTION_ARGS)
{
	text	   *payload = PG_GETARG_TEXT_PP(0);
	JsonLexContext *lex = compat_json_lexer(VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload),
											GetDatabaseEncoding(), false);
	Datum	   *addresses;
	bool	   *nulls;
	int			count;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &addresses, &nulls, &count);
	while (json_lex(lex) == JSON_SUCCESS && lex->token_type != JSON_TOKEN_END)
	{
		const char *string = lex->token_start + 1;
		int			length = lex->token_terminator - string - 1;

		CHECK_FOR_INTERRUPTS();
		if (lex->token_type != JSON_TOKEN_STRING)
			continue;
		if (memchr(string, '\\', length) != NULL)
			string = unescape(string, length, &length);
		for (int i = 0; string != NULL && i < count; i++)
		{
			text	   *address = nulls[i] ? NULL : DatumGetTextPP(addresses[i]);

			if (address != NULL && VARSIZE_ANY_EXHDR(address) > 0 &&
				contains_address(string, length, VARDATA_ANY(address), VARSIZE_ANY_EXHDR(address)))
				PG_RETURN_BOOL(true);
		}
	}
	PG_RETURN_BOOL(false);
}
