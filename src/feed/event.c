/*
 * event.c
 *		The fields of an event record, and the order of events.
 *
 * A record points into the text that it was read from.  reader.c creates
 * records, and validate.c determines their piece, account, status and times.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/text.h"
#include "feed/event.h"
#include "feed/value.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/json.h"

static inline const char *
field_text(const EventRecord *record, Field field)
{
	return record->source->json + record->field[field].offset;
}

/*
 * Return the event's FIELDS and its collected scalars as one JSON object, and set
 * *length.  If two members have the same name, jsonb keeps the last one.
 */
static const char *
merged_fields(const EventRecord *record, int *length)
{
	const Span *own = &record->field[FIELDS];
	const char *text = field_text(record, FIELDS);
	StringInfoData json;

	if (own->length > 0 && text[0] != '{')
	{
		*length = own->length;	/* FIELDS is an array, so nothing can be added */
		return text;
	}
	initStringInfo(&json);
	if (own->length > 0)
		appendBinaryStringInfo(&json, text, own->length - 1);
	else
		appendStringInfoChar(&json, '{');
	for (const Collected *each = record->collected; each != NULL; each = each->next)
	{
		if (own->length > 0 || each != record->collected)
			appendStringInfoChar(&json, ',');
		escape_json(&json, each->name);
		appendStringInfoChar(&json, ':');
		appendBinaryStringInfo(&json, record->source->json + each->value.offset, each->value.length);
	}
	appendStringInfoChar(&json, '}');
	*length = json.len;
	return json.data;
}

/*
 * Return the value of a field, which is not null-terminated, and set *length.
 * Returns NULL with length 0 if the event has no value, and NULL with another
 * length if the database cannot store the value.  Strings with escapes, ids given
 * as unusual numbers, and collected scalars are converted in the current memory
 * context.
 */
const char *
event_field(const EventRecord *record, Field field, int *length)
{
	if (field == FIELDS && record->collected != NULL)
		return merged_fields(record, length);
	*length = record->field[field].length;
	if (*length == 0)
		return NULL;
	if (record->escaped & (1 << field))
	{
		const char *value = field_text(record, field);

		if (value[-1] != '"')
			return canonical_number(value, *length, length);
		value = unescape(value, *length, length);
		return value != NULL && is_id(field) ? trim(value, length) : value;
	}
	return field_text(record, field);
}

/*
 * Return a field as text in the current memory context.  Returns 0 if the event
 * has no value, or if the database cannot store the value.
 */
Datum
event_field_text(const EventRecord *record, Field field)
{
	int			length;
	const char *value = event_field(record, field, &length);

	return value == NULL ? (Datum) 0 :
		PointerGetDatum(cstring_to_text_with_len(value, length));
}

/*
 * Compare the pieces of two events, by piece_id and account.  This is the
 * order of the primary key of pieces.
 */
int
piece_compare(const EventKey *a, const EventKey *b)
{
	int			result = compare_bytes(a->piece, a->piece_length, b->piece, b->piece_length);

	return result != 0 ? result :
		compare_bytes(a->account, a->account_length, b->account, b->account_length);
}

/*
 * Compare two events by piece, account, status and time.  This is the order of
 * the primary keys of events, and every call takes its locks in this order.
 */
int
event_compare(const EventKey *a, const EventKey *b)
{
	int			result = piece_compare(a, b);

	if (result != 0)
		return result;
	if (a->status != b->status)
		return a->status < b->status ? -1 : 1;
	if (a->occurred_at != b->occurred_at)
		return a->occurred_at < b->occurred_at ? -1 : 1;
	return 0;
}

/* Return part of a source as a json value in the current memory context. */
Datum
span_json(const EventSource *source, Span span)
{
	return PointerGetDatum(cstring_to_text_with_len(source->json + span.offset, span.length));
}

/*
 * Return a scalar of a source as text in the current memory context.  Returns 0
 * if the span is empty, or if the database cannot store the text.
 */
Datum
span_text(const EventSource *source, Span span)
{
	const char *value = source->json + span.offset;
	int			length = span.length;

	if (length > 0 && value[-1] == '"' && memchr(value, '\\', length) != NULL)
		value = unescape(value, length, &length);
	if (span.length == 0 || value == NULL)
		return (Datum) 0;
	return PointerGetDatum(cstring_to_text_with_len(value, length));
}
