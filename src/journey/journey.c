/*
 * journey.c
 *		Folds events into pieces, one row for each mail piece.
 *
 * To fold an event into a row means to update the row with the data of the event.
 * Folding is commutative and associative, and each event is inserted once.  So
 * neither the order of arrival nor the grouping into calls matters.  piece.c merges
 * a row made from new events with the stored row.  Sections and marks are
 * explained in piece.h.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/table.h"
#include "base/query.h"
#include "base/text.h"
#include "catalog/pg_type.h"
#include "journey/journey.h"
#include "journey/piece.h"
#include "miscadmin.h"
#include "storage/direct.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

/* The data of one piece, folded from the events that were added so far. */
typedef struct Journey
{
	EventKey	key;			/* key of the last event added; key.piece is
								 * NULL before the first */
	TimestampTz first_of_status[N_STATUSES];
	TimestampTz first_event_at;
	TimestampTz last_event_at;
	int32		events[N_STATUSES]; /* number of events by status */
	int64		marks[N_MARKS];
	text	   *campaign_id;	/* NULL if only the drop is known */
	text	   *drop_id;
	const EventRecord *section[N_SECTIONS]; /* event that decides each
											 * section, or NULL */
	bool		has_unknown_payload;	/* the payload of an event was not
										 * kept */
} Journey;

struct JourneyWriter
{
	MemoryContext context;
	Relation	pieces;
	DirectTable *direct;		/* NULL if only a query can write to pieces */
	Tuplestorestate *rows;		/* rows of pieces that the query writes */
	int64		count;			/* number of rows in rows */
	Row			row;			/* row that is being built */
	bool		replace;		/* replace stored rows instead of merging */
	Journey		journey;
};

/* Maximum number of rows that the query writes at once. */
#define MAX_KEPT_ROWS	10000

static void
begin_journey(Journey *journey)
{
	memset(journey, 0, sizeof(*journey));
	for (int i = 0; i < N_STATUSES; i++)
		journey->first_of_status[i] = DT_NOEND;
	for (int i = 0; i < N_MARKS; i++)
		journey->marks[i] = NO_MARK;
	journey->first_event_at = DT_NOEND;
	journey->last_event_at = DT_NOBEGIN;
}

/*
 * Create a writer that folds events into pieces.  Needs an SPI connection.  If
 * replace is true, the caller must add all events of each piece, and the result
 * replaces the stored row.  If replace is false, the caller must add only events
 * that were not folded before, and the result is merged with the stored row.
 */
JourneyWriter *
journey_writer_create(MemoryContext parent, bool replace)
{
	JourneyWriter *writer = MemoryContextAllocZero(parent, sizeof(JourneyWriter));
	MemoryContext caller;

	writer->context = parent;
	writer->pieces = open_pieces(RowExclusiveLock);
	if (direct_allowed(writer->pieces, pieces_columns, N_PIECE_COLUMNS))
		writer->direct = direct_open(writer->pieces, N_PIECE_COLUMNS);
	caller = MemoryContextSwitchTo(parent);
	writer->row = new_row(RelationGetDescr(writer->pieces));
	MemoryContextSwitchTo(caller);
	writer->replace = replace;
	begin_journey(&writer->journey);
	return writer;
}

/* ---- folding ---- */

/*
 * True if an event that has a value for a section is the latest such event so far.
 * If so, the event decides the section, and its mark is recorded.
 */
static bool
take_section(Journey *journey, Section section, int64 mark)
{
	if (mark <= journey->marks[SECTION_MARK(section)])
		return false;
	journey->marks[SECTION_MARK(section)] = mark;
	return true;
}

/*
 * Let an event decide the sections for which its payload has a value and the event
 * is the latest so far.
 */
static void
add_record(Journey *journey, const EventRecord *record, MailStatus status, int64 mark)
{
	const Span *field = record->field;
	bool		has[N_SECTIONS] = {
		[SECTION_CONTACT] = field[CONTACT_ID].length > 0,
		[SECTION_COUNTRY] = field[COUNTRY].length > 0,
		[SECTION_RECIPIENT] = field[FIRST_NAME].length > 0 ||
		field[LAST_NAME].length > 0 ||
		field[COMPANY].length > 0 || field[EMAIL].length > 0 ||
		field[CITY].length > 0 || field[STATE].length > 0,
		[SECTION_FIELDS] = event_has(record, FIELDS),
		[SECTION_URL] = field[URL].length > 0 &&
		(status == PURL_OPENED || status == PURL_COMPLETED),
		[SECTION_EXPECTED] = record->expected_at != DT_NOBEGIN,
		[SECTION_ZIP] = field[ZIP].length > 0,
	};

	for (int i = SECTION_CONTACT; i < N_SECTIONS; i++)
		if (has[i] && take_section(journey, i, mark))
			journey->section[i] = record;
}

/*
 * True if an event names a campaign itself.  If it names only a drop, campaign_id
 * has the id of the drop.  If the payload is unknown, a campaign_id that is equal
 * to drop_id is assumed to come from the drop.
 */
static bool
names_campaign(const EventRow *row)
{
	if (row->campaign_id == NULL)
		return false;
	return row->drop_id == NULL || !equal_texts(row->campaign_id, row->drop_id) ||
		(row->record != NULL && event_names_campaign(row->record));
}

/*
 * Fold an event into the current piece.  The caller must add the events of a piece
 * one after the other, and call journey_next_piece before the first event of the
 * next piece.  Until then, the data that the rows point to and the current memory
 * context must exist.
 */
void
journey_add(JourneyWriter *writer, const EventRow *row)
{
	Journey    *journey = &writer->journey;
	TimestampTz time = row->key.occurred_at;
	MailStatus	status = row->key.status;
	int64		mark = make_mark(time, status);

	journey->key = row->key;
	journey->first_of_status[status] = Min(journey->first_of_status[status], time);
	journey->first_event_at = Min(journey->first_event_at, time);
	journey->last_event_at = Max(journey->last_event_at, time);
	if (!row->is_repeat)
		journey->events[status]++;
	if (status < N_STATUS_MARKS)
		journey->marks[status] = Max(journey->marks[status], mark);

	if (names_campaign(row) && take_section(journey, SECTION_CAMPAIGN, mark))
		journey->campaign_id = DatumGetTextPCopy(PointerGetDatum(row->campaign_id));
	if (row->drop_id != NULL && take_section(journey, SECTION_DROP, mark))
		journey->drop_id = DatumGetTextPCopy(PointerGetDatum(row->drop_id));
	if (row->record != NULL)
		add_record(journey, row->record, status, mark);
	else
		journey->has_unknown_payload = true;
}

/* ---- writing ---- */

static void
set_text(Row row, int column, const EventRecord *record, Field field)
{
	Datum		value = record == NULL ? (Datum) 0 : event_field_text(record, field);

	if (value != (Datum) 0)
		row_set(row, column, value);
}

static void
set_fields(Row row, const EventRecord *record)
{
	int			length;
	const char *json;

	if (record == NULL)
		return;
	json = event_field(record, FIELDS, &length);
	row_set(row, PIECE_FIELDS,
			DirectFunctionCall1(jsonb_in, CStringGetDatum(pnstrdup(json, length))));
}

static void
set_sections(Row row, const Journey *journey)
{
	const EventRecord *recipient = journey->section[SECTION_RECIPIENT];
	const EventRecord *expected = journey->section[SECTION_EXPECTED];

	if (journey->campaign_id != NULL)
		row_set(row, PIECE_CAMPAIGN_ID, PointerGetDatum(journey->campaign_id));
	if (journey->drop_id != NULL)
		row_set(row, PIECE_DROP_ID, PointerGetDatum(journey->drop_id));
	set_text(row, PIECE_CONTACT_ID, journey->section[SECTION_CONTACT], CONTACT_ID);
	set_text(row, PIECE_COUNTRY, journey->section[SECTION_COUNTRY], COUNTRY);
	set_text(row, PIECE_FIRST_NAME, recipient, FIRST_NAME);
	set_text(row, PIECE_LAST_NAME, recipient, LAST_NAME);
	set_text(row, PIECE_COMPANY, recipient, COMPANY);
	set_text(row, PIECE_EMAIL, recipient, EMAIL);
	set_text(row, PIECE_CITY, recipient, CITY);
	set_text(row, PIECE_STATE, recipient, STATE);
	set_text(row, PIECE_ZIP, journey->section[SECTION_ZIP], ZIP);
	set_fields(row, journey->section[SECTION_FIELDS]);
	set_text(row, LAST_URL, journey->section[SECTION_URL], URL);
	if (expected != NULL)
		row_set(row, EXPECTED_DELIVERY_AT, TimestampTzGetDatum(expected->expected_at));
}

static void
set_columns(Row row, const Journey *journey)
{
	row_set(row, PIECE_ID, PointerGetDatum(cstring_to_text_with_len(journey->key.piece,
																	journey->key.piece_length)));
	row_set(row, PIECE_ACCOUNT, PointerGetDatum(cstring_to_text_with_len(journey->key.account,
																		 journey->key.account_length)));
	set_sections(row, journey);
	for (int i = 0; i < N_STATUSES; i++)
		if (journey->first_of_status[i] != DT_NOEND)
			row_set(row, FIRST_OF_STATUS + i,
					TimestampTzGetDatum(journey->first_of_status[i]));
	row_set(row, OPENS, Int32GetDatum(journey->events[PURL_OPENED]));
	row_set(row, COMPLETIONS, Int32GetDatum(journey->events[PURL_COMPLETED]));
	row_set(row, FIRST_EVENT_AT, TimestampTzGetDatum(journey->first_event_at));
	row_set(row, LAST_EVENT_AT, TimestampTzGetDatum(journey->last_event_at));
	piece_set_marks(row, journey->marks);
}

/* Parameters of write_piece_query. */
enum
{
	WRITE_REPLACE, N_WRITE
};

/*
 * The rows are in the order of piece_compare, so that concurrent calls lock pieces
 * in the same order.
 */
static SqlQuery write_piece_query = {
	.sql = "INSERT INTO postalytics.pieces AS p"
	" (piece_id, account, campaign_id, drop_id, contact_id, status, status_at, response,"
	"  mail_piece_created_at, addressed_at, printed_at, mailed_at, in_transit_at,"
	"  in_local_area_at, processed_for_delivery_at, re_routed_at,"
	"  returned_to_sender_at, first_opened_at, first_completed_at, opens,"
	"  completions, first_event_at, last_event_at, expected_delivery_at, country,"
	"  first_name, last_name, company, email, city, state, zip, fields, last_url, marks)"
	" SELECT j.piece_id, j.account, j.campaign_id, j.drop_id, j.contact_id, j.status, j.status_at,"
	"        j.response, j.mail_piece_created_at, j.addressed_at, j.printed_at,"
	"        j.mailed_at, j.in_transit_at, j.in_local_area_at,"
	"        j.processed_for_delivery_at, j.re_routed_at, j.returned_to_sender_at,"
	"        j.first_opened_at, j.first_completed_at, j.opens, j.completions,"
	"        j.first_event_at, j.last_event_at, j.expected_delivery_at, j.country,"
	"        j.first_name, j.last_name, j.company, j.email, j.city, j.state, j.zip, j.fields, j.last_url,"
	"        j.marks"
	" FROM journeys AS j"
	" ON CONFLICT (piece_id, account) DO UPDATE"
	" SET (piece_id, account, campaign_id, drop_id, contact_id, status, status_at, response,"
	"      mail_piece_created_at, addressed_at, printed_at, mailed_at, in_transit_at,"
	"      in_local_area_at, processed_for_delivery_at, re_routed_at,"
	"      returned_to_sender_at, first_opened_at, first_completed_at, opens,"
	"      completions, first_event_at, last_event_at, expected_delivery_at, country,"
	"      first_name, last_name, company, email, city, state, zip, fields, last_url, marks) ="
	"     (SELECT m.piece_id, m.account, m.campaign_id, m.drop_id, m.contact_id, m.status, m.status_at,"
	"             m.response, m.mail_piece_created_at, m.addressed_at, m.printed_at,"
	"             m.mailed_at, m.in_transit_at, m.in_local_area_at,"
	"             m.processed_for_delivery_at, m.re_routed_at, m.returned_to_sender_at,"
	"             m.first_opened_at, m.first_completed_at, m.opens, m.completions,"
	"             m.first_event_at, m.last_event_at, m.expected_delivery_at, m.country,"
	"             m.first_name, m.last_name, m.company, m.email, m.city, m.state, m.zip, m.fields, m.last_url,"
	"             m.marks"
	"      FROM postalytics.merge_piece(p, excluded, $1) AS m)",
	.result = SPI_OK_INSERT,
	.nparameters = N_WRITE,
	.types = {[WRITE_REPLACE] = BOOLOID}
};

/* Write the rows that were kept for the query. */
static void
write_kept(JourneyWriter *writer)
{
	Datum		values[N_WRITE] = {[WRITE_REPLACE] = BoolGetDatum(writer->replace)};

	if (writer->count == 0)
		return;
	register_rowset("journeys", RelationGetDescr(writer->pieces), writer->rows, writer->count);
	query_run(&write_piece_query, values, NULL);
	SPI_unregister_relation("journeys");
	tuplestore_end(writer->rows);
	writer->rows = NULL;
	writer->count = 0;
}

/* Keep the row that was built, so that the query can write it later. */
static void
keep_row(JourneyWriter *writer)
{
	if (writer->rows == NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(writer->context);

		writer->rows = tuplestore_begin_heap(false, false, work_mem);
		MemoryContextSwitchTo(caller);
	}
	tuplestore_putvalues(writer->rows, RelationGetDescr(writer->pieces),
						 writer->row.values, writer->row.nulls);
	if (++writer->count == MAX_KEPT_ROWS)
		write_kept(writer);
}

/*
 * Give the sections that no payload decides UNKNOWN_MARK, so that piece_replace
 * keeps their stored values.  Campaign and drop are columns of events, and thus
 * always known.
 */
static void
keep_unknown_sections(Journey *journey)
{
	for (int i = SECTION_CONTACT; i < N_SECTIONS; i++)
		if (journey->marks[SECTION_MARK(i)] == NO_MARK)
			journey->marks[SECTION_MARK(i)] = UNKNOWN_MARK;
}

/* Write the row of the current piece, whose events have all been added. */
void
journey_next_piece(JourneyWriter *writer)
{
	memset(writer->row.nulls, true, RelationGetDescr(writer->pieces)->natts * sizeof(bool));
	if (writer->replace && writer->journey.has_unknown_payload)
		keep_unknown_sections(&writer->journey);
	set_columns(writer->row, &writer->journey);
	if (writer->direct != NULL)
		direct_upsert(writer->direct, writer->row.values, writer->row.nulls,
					  writer->replace ? piece_replace : piece_merge);
	else
		keep_row(writer);
	begin_journey(&writer->journey);
}

/* Write the row of the last piece and the rows that were kept, and close pieces. */
void
journey_finish(JourneyWriter *writer)
{
	if (writer->journey.key.piece != NULL)
		journey_next_piece(writer);
	if (writer->direct != NULL)
		direct_close(writer->direct);
	write_kept(writer);
	table_close(writer->pieces, NoLock);
}
