/*
 * repeat.c
 *		Fills in data that the stored row of a repeated event lacks.
 *
 * The feed sends some events more than once, for example first without the
 * recipient.  A section is a group of fields that are filled in together, such
 * as the fields of the recipient.  A section that is missing entirely from the
 * stored event is appended to the stored payload, under the column names of
 * inbox, so that a rebuild finds the section there.  Data that the stored event
 * has is not changed.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/text.h"
#include "feed/reader.h"
#include "feed/value.h"
#include "ingest/repeat.h"
#include "lib/stringinfo.h"
#include "storage/lookup.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/*
 * The sections, which correspond to those in journey/piece.h.  Each section ends
 * with N_FIELDS.
 */
static const Field sections[][7] = {
	{DROP_ID, N_FIELDS},
	{CAMPAIGN_ID, N_FIELDS},
	{CAMPAIGN_NAME, N_FIELDS},
	{CONTACT_ID, N_FIELDS},
	{COUNTRY, N_FIELDS},
	{FIRST_NAME, LAST_NAME, COMPANY, EMAIL, CITY, STATE, N_FIELDS},
	{ZIP, N_FIELDS},
	{FIELDS, N_FIELDS},
	{URL, N_FIELDS},
	{EXPECTED_DELIVERY_DATE, N_FIELDS},
};

/*
 * True if an event has a valid value of a field.  A campaign that was only taken
 * from the drop does not count.
 */
static bool
has_own(const EventRecord *record, Field field)
{
	if (field == EXPECTED_DELIVERY_DATE)
		return record->expected_at != DT_NOBEGIN;
	if (field == CAMPAIGN_ID)
		return event_names_campaign(record);
	return event_has(record, field);
}

/* True if an event has a value of any field of a section. */
static bool
has_section(const EventRecord *record, const Field *section)
{
	for (; *section != N_FIELDS; section++)
		if (has_own(record, *section))
			return true;
	return false;
}

/* Append the fields of a section as members of a JSON object. */
static void
append_section(StringInfo json, const EventRecord *record, const Field *section)
{
	for (; *section != N_FIELDS; section++)
	{
		int			length;
		const char *value = has_own(record, *section) ? event_field(record, *section, &length) : NULL;

		if (value == NULL)
			continue;
		appendStringInfo(json, ", \"%s\": ", field_info[*section].name);
		if (*section == FIELDS)
			appendBinaryStringInfo(json, value, length);
		else
			escape_json(json, pnstrdup(value, length));
	}
}

/*
 * True if a merged event has all fields that a record has in a section.  A field
 * can be missing because a row of field_names assigns the appended name to
 * another field, or gives precedence to another name whose value is invalid.
 */
static bool
reads_back(const EventRecord *merged, const EventRecord *record, const Field *section)
{
	for (; *section != N_FIELDS; section++)
		if (has_own(record, *section) && !has_own(merged, *section))
			return false;
	return true;
}

/* An event's payload, and the record read from it. */
typedef struct ParsedPayload
{
	EventSource source;
	EventRecord record;
} ParsedPayload;

/* Parse a payload.  Returns false if the payload is not an object. */
static bool
parse_payload(ParsedPayload *parsed, text *payload)
{
	parsed->source = source_of_event(VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload));
	if (!event_read_fields(&parsed->record, &parsed->source))
		return false;
	parsed->record.payload.length = parsed->source.length;
	return true;
}

/*
 * Append to a payload the sections of a record that are missing from the
 * payload.  Returns the new payload, which is also parsed into *merged.  Returns
 * NULL if no section is missing, the payload is not an object, or the appended
 * fields could not be read back.
 */
static text *
merge_payload(text *payload, const EventRecord *record, ParsedPayload *merged)
{
	ParsedPayload stored;
	StringInfoData added;
	const char *json = VARDATA_ANY(payload);
	int			length = VARSIZE_ANY_EXHDR(payload);
	text	   *result;

	if (equal_bytes(json, length, record->source->json + record->payload.offset, record->payload.length) ||
		!parse_payload(&stored, payload))
		return NULL;
	initStringInfo(&added);
	for (int i = 0; i < lengthof(sections); i++)
		if (has_section(record, sections[i]) && !has_section(&stored.record, sections[i]))
			append_section(&added, record, sections[i]);
	if (added.len == 0)
		return NULL;
	while (json[length - 1] != '}')
		length--;
	result = cstring_to_text(psprintf("%.*s%s}", length - 1, json,
									  added.data + (is_empty_container(json, length) ? strlen(", ") : 0)));
	if (!parse_payload(merged, result))
		return NULL;
	for (int i = 0; i < lengthof(sections); i++)
		if (!has_section(&stored.record, sections[i]) && !reads_back(&merged->record, record, sections[i]))
			return NULL;
	return result;
}

/*
 * True if a record has a section that is missing from the stored row of the same
 * event.  The stored row is in a slot.
 */
bool
repeat_adds_data(const EventRecord *record, TupleTableSlot *stored)
{
	ParsedPayload merged;
	bool		isnull;
	Datum		payload = slot_getattr(stored, EVENTS_PAYLOAD + 1, &isnull);

	return !isnull && merge_payload(DatumGetTextPP(payload), record, &merged) != NULL;
}

/*
 * Fill in the campaign and the drop of a row whose payload was merged.  A
 * campaign id that is only the id of the drop is replaced.
 */
static void
fill_in_campaign(Datum *values, bool *nulls, const EventRecord *merged)
{
	bool		is_drop = !nulls[EVENTS_CAMPAIGN_ID] && !nulls[EVENTS_DROP_ID] &&
	equal_texts(DatumGetTextPP(values[EVENTS_CAMPAIGN_ID]), DatumGetTextPP(values[EVENTS_DROP_ID]));

	if (event_has(merged, CAMPAIGN_ID) && (nulls[EVENTS_CAMPAIGN_ID] || is_drop))
	{
		values[EVENTS_CAMPAIGN_ID] = event_field_text(merged, CAMPAIGN_ID);
		nulls[EVENTS_CAMPAIGN_ID] = false;
	}
	if (event_has(merged, DROP_ID) && nulls[EVENTS_DROP_ID])
	{
		values[EVENTS_DROP_ID] = event_field_text(merged, DROP_ID);
		nulls[EVENTS_DROP_ID] = false;
	}
}

/*
 * The DirectMerge function of events: replace the new row with the stored row,
 * after filling in the sections that the stored row lacks.  Returns false if
 * the stored row lacks no section of the new row, or its payload was not kept.
 */
bool
repeat_merge(Datum *values, bool *nulls, const Datum *stored, const bool *stored_nulls)
{
	ParsedPayload parsed;
	ParsedPayload merged;
	text	   *payload;

	if (stored_nulls[EVENTS_PAYLOAD] || !parse_payload(&parsed, DatumGetTextPP(values[EVENTS_PAYLOAD])))
		return false;
	payload = merge_payload(DatumGetTextPP(stored[EVENTS_PAYLOAD]), &parsed.record, &merged);
	if (payload == NULL)
		return false;
	memcpy(values, stored, N_EVENTS_COLUMNS * sizeof(Datum));
	memcpy(nulls, stored_nulls, N_EVENTS_COLUMNS * sizeof(bool));
	values[EVENTS_PAYLOAD] = PointerGetDatum(payload);
	fill_in_campaign(values, nulls, &merged.record);
	return true;
}

/*
 * Return a copy of a text or json column of the row in a slot.  Returns NULL
 * if the column is NULL.
 */
static text *
copy_column(TupleTableSlot *slot, int column)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, column + 1, &isnull);

	return isnull ? NULL : DatumGetTextPCopy(value);
}

/*
 * Read the stored row of an event whose missing data was filled in.  Allocates
 * in the current memory context.  Returns false if the row no longer exists, or
 * has no payload that can be read.
 */
bool
read_stored_event(Relation leaf, const EventKey *key, EventRow *row)
{
	Lookup		lookup;
	text	   *payload = NULL;
	ParsedPayload *parsed = palloc0(sizeof(ParsedPayload));

	PushActiveSnapshot(GetTransactionSnapshot());
	lookup_begin(&lookup, leaf, compat_primary_key(leaf), GetActiveSnapshot(), N_EVENT_KEY);
	lookup_key(&lookup, 0, 1, BTEqualStrategyNumber, PointerGetDatum(cstring_to_text_with_len(key->piece, key->piece_length)));
	lookup_key(&lookup, 1, 2, BTEqualStrategyNumber, PointerGetDatum(cstring_to_text_with_len(key->account, key->account_length)));
	lookup_key(&lookup, 2, 3, BTEqualStrategyNumber, ObjectIdGetDatum(status_oid(key->status)));
	lookup_key(&lookup, 3, 4, BTEqualStrategyNumber, TimestampTzGetDatum(key->occurred_at));
	if (lookup_first(&lookup))
	{
		row->campaign_id = copy_column(lookup.slot, EVENTS_CAMPAIGN_ID);
		row->drop_id = copy_column(lookup.slot, EVENTS_DROP_ID);
		payload = copy_column(lookup.slot, EVENTS_PAYLOAD);
	}
	lookup_end(&lookup);
	PopActiveSnapshot();
	if (payload == NULL || !parse_payload(parsed, payload))
		return false;
	parsed->record.key = *key;
	parsed->record.key.piece = pnstrdup(key->piece, key->piece_length);
	parsed->record.key.account = pnstrdup(key->account, key->account_length);
	row->key = parsed->record.key;
	row->record = &parsed->record;
	return true;
}
