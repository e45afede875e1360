/*
 * event.c
 *		The fields of an event record, and the order of events.
 *
 * A record points into the text that it was read from.  reader.c makes
 * records, validate.c finds out what they are about.
 */
#include "postgres.h"

#include "base/text.h"
#include "feed/event.h"
#include "feed/value.h"
#include "utils/builtins.h"

static inline const char *
span_text(const EventRecord *record, Field field)
{
	return record->source->json + record->field[field].offset;
}

/*
 * Return a field's value, not null-terminated, and its length.  NULL with
 * length 0 if the event has none, NULL with another length if the database
 * encoding cannot represent it.  Strings with escapes, and ids given as
 * unusual numbers, are built in the current memory context.
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
		const char *value = span_text(record, field);

		if (value[-1] != '"')
			return canonical_number(value, *length, length);
		value = unescape(value, *length, length);
		return value != NULL && is_id(field) ? trim(value, length) : value;
	}
	return span_text(record, field);
}

/*
 * Return a field as a text in the current memory context, or 0 if the event
 * has none.
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
 * Compare an event with a key by piece, status and time.  This is the order of
 * the primary keys of events, in which every call takes its locks.
 */
int
event_compare(const EventRecord *record, const char *piece, uint32 length,
			  MailStatus status, TimestampTz occurred_at)
{
	int			result = compare_bytes(record->piece, record->piece_length, piece, length);

	if (result != 0)
		return result;
	if (record->status != status)
		return record->status < status ? -1 : 1;
	if (record->occurred_at != occurred_at)
		return record->occurred_at < occurred_at ? -1 : 1;
	return 0;
}

/* Return part of a source as a json value in the current memory context. */
Datum
span_json(const EventSource *source, Span span)
{
	return PointerGetDatum(cstring_to_text_with_len(source->json + span.offset, span.length));
}
