/*
 * repeat.c
 *		Fills in what the stored row of a repeated event lacks.
 *
 * The feed tells some events more than once, at first without the recipient,
 * for example.  A section that the stored event lacks altogether is appended to
 * its payload, under the names of inbox, so that a rebuild finds it there.  What
 * the stored event has stays as it is.
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/query.h"
#include "base/text.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "feed/reader.h"
#include "ingest/repeat.h"
#include "lib/stringinfo.h"
#include "storage/events.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/timestamp.h"

/*
 * Fields that belong together; see the sections of piece.h.  A section ends with
 * N_FIELDS.
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

/* True if an event has a field itself, rather than by default. */
static bool
has_own(const EventRecord *record, Field field)
{
	return event_has(record, field) &&
		!(field == CAMPAIGN_ID && record->field[CAMPAIGN_ID].offset == record->field[DROP_ID].offset);
}

static bool
has_section(const EventRecord *record, const Field *section)
{
	for (; *section != N_FIELDS; section++)
		if (has_own(record, *section))
			return true;
	return false;
}

/* Append the fields of a section to a JSON object. */
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
 * Return a payload with the sections of a record that it lacks; NULL if it lacks
 * none.
 */
static text *
merge_payload(const text *payload, const EventRecord *record)
{
	EventSource source = {.json = VARDATA_ANY(payload),.length = VARSIZE_ANY_EXHDR(payload),.account = ""};
	EventRecord stored;
	StringInfoData json;
	int			length = source.length;

	if (equal_bytes(source.json, length, record->source->json + record->payload.offset, record->payload.length) ||
		!event_read_fields(&stored, &source))
		return NULL;
	initStringInfo(&json);
	for (int i = 0; i < lengthof(sections); i++)
		if (has_section(record, sections[i]) && !has_section(&stored, sections[i]))
			append_section(&json, record, sections[i]);
	if (json.len == 0)
		return NULL;
	while (source.json[length - 1] != '}')
		length--;
	return cstring_to_text(psprintf("%.*s%s}", length - 1, source.json, json.data));
}

/* Read a payload; false if it is not that of an event. */
static bool
read_payload(text *payload, EventSource *source, EventRecord *record)
{
	*source = (EventSource)
	{
		.json = VARDATA_ANY(payload),.length = VARSIZE_ANY_EXHDR(payload),.account = ""
	};
	if (!event_read_fields(record, source))
		return false;
	record->payload.length = source->length;
	return true;
}

/*
 * Add to a row of events what it lacks and the payload of a repeated event has.
 * False if nothing was added.
 */
static bool
fill_in(Datum *values, bool *nulls, text *told)
{
	EventSource sources[2];
	EventRecord records[2];
	text	   *merged;

	if (!read_payload(told, &sources[0], &records[0]))
		return false;
	merged = merge_payload(DatumGetTextPP(values[EVENTS_PAYLOAD]), &records[0]);
	if (merged == NULL || !read_payload(merged, &sources[1], &records[1]))
		return false;
	values[EVENTS_PAYLOAD] = PointerGetDatum(merged);
	values[EVENTS_CAMPAIGN_ID] = event_field_text(&records[1], CAMPAIGN_ID);
	nulls[EVENTS_CAMPAIGN_ID] = values[EVENTS_CAMPAIGN_ID] == (Datum) 0;
	values[EVENTS_DROP_ID] = event_field_text(&records[1], DROP_ID);
	nulls[EVENTS_DROP_ID] = values[EVENTS_DROP_ID] == (Datum) 0;
	return true;
}

/*
 * True if a record has a section that the stored row of its event, which is in
 * a slot, lacks.
 */
bool
repeat_says_more(const EventRecord *record, TupleTableSlot *stored)
{
	bool		isnull;
	Datum		payload = slot_getattr(stored, EVENTS_PAYLOAD + 1, &isnull);

	return !isnull && merge_payload(DatumGetTextPP(payload), record) != NULL;
}

/*
 * Merge a row of events with the stored one, which gets what it lacks: a
 * DirectMerge.
 */
void
repeat_merge(Datum *values, bool *nulls, const Datum *stored, const bool *stored_nulls)
{
	Datum		told = values[EVENTS_PAYLOAD];

	memcpy(values, stored, N_EVENTS_COLUMNS * sizeof(Datum));
	memcpy(nulls, stored_nulls, N_EVENTS_COLUMNS * sizeof(bool));
	if (!nulls[EVENTS_PAYLOAD])
		fill_in(values, nulls, DatumGetTextPP(told));
}

/* ---- where only a query may write ---- */

/* Parameters of the queries; the second has all. */
enum
{
	STORED_PIECE_ID, STORED_ACCOUNT, STORED_STATUS, STORED_OCCURRED_AT, N_STORED,
	STORED_PAYLOAD = N_STORED, STORED_CAMPAIGN_ID, STORED_DROP_ID, N_UPDATE
};

static SqlQuery lock_query = {
	.sql = "SELECT e.payload"
	" FROM postalytics.events AS e"
	" WHERE e.piece_id = $1"
	"   AND e.account = $2"
	"   AND e.status = $3::postalytics.mail_status"
	"   AND e.occurred_at = $4"
	"   AND e.payload IS NOT NULL"
	" FOR UPDATE",
	.result = SPI_OK_SELECT,
	.nparameters = N_STORED,
	.types = {
		[STORED_PIECE_ID] = TEXTOID,
		[STORED_ACCOUNT] = TEXTOID,
		[STORED_STATUS] = TEXTOID,
		[STORED_OCCURRED_AT] = TIMESTAMPTZOID
	}
};

static SqlQuery update_query = {
	.sql = "UPDATE postalytics.events AS e"
	" SET payload = $5,"
	"     campaign_id = $6,"
	"     drop_id = $7"
	" WHERE e.piece_id = $1"
	"   AND e.account = $2"
	"   AND e.status = $3::postalytics.mail_status"
	"   AND e.occurred_at = $4",
	.result = SPI_OK_UPDATE,
	.nparameters = N_UPDATE,
	.types = {
		[STORED_PIECE_ID] = TEXTOID,
		[STORED_ACCOUNT] = TEXTOID,
		[STORED_STATUS] = TEXTOID,
		[STORED_OCCURRED_AT] = TIMESTAMPTZOID,
		[STORED_PAYLOAD] = JSONOID,
		[STORED_CAMPAIGN_ID] = TEXTOID,
		[STORED_DROP_ID] = TEXTOID
	}
};

/*
 * Add what a record has and the stored row of its event lacks to that row, by a
 * query.  False if there is nothing to add.  Needs an SPI connection.  Locks: the
 * row.  Error 40001 if it has changed since the transaction's snapshot.
 */
bool
repeat_update(const EventRecord *record)
{
	const EventKey *key = &record->key;
	Datum		row[N_EVENTS_COLUMNS] = {0};
	bool		row_nulls[N_EVENTS_COLUMNS] = {false};
	Datum		values[N_UPDATE] = {
		[STORED_PIECE_ID] = PointerGetDatum(cstring_to_text_with_len(key->piece, key->piece_length)),
		[STORED_ACCOUNT] = PointerGetDatum(cstring_to_text_with_len(key->account, key->account_length)),
		[STORED_STATUS] = CStringGetTextDatum(status_name(key->status)),
		[STORED_OCCURRED_AT] = TimestampTzGetDatum(key->occurred_at)
	};
	bool		nulls[N_UPDATE] = {false};
	bool		isnull;

	query_run(&lock_query, values, NULL);
	if (SPI_processed == 0)
		return false;
	row[EVENTS_PAYLOAD] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!fill_in(row, row_nulls, DatumGetTextPP(span_json(record->source, record->payload))))
		return false;
	values[STORED_PAYLOAD] = row[EVENTS_PAYLOAD];
	values[STORED_CAMPAIGN_ID] = row[EVENTS_CAMPAIGN_ID];
	values[STORED_DROP_ID] = row[EVENTS_DROP_ID];
	nulls[STORED_CAMPAIGN_ID] = row_nulls[EVENTS_CAMPAIGN_ID];
	nulls[STORED_DROP_ID] = row_nulls[EVENTS_DROP_ID];
	query_run(&update_query, values, nulls);
	return true;
}
