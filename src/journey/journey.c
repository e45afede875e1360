/*
 * journey.c
 *		Folds events into pieces, a row a mail piece, and keeps campaigns.
 *
 * Folding is commutative, associative and, an event being inserted once,
 * counts each once; so order of arrival and batching cannot matter.
 */
#include "postalytics_status.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "base/compat.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(postalytics_merge_piece);

/* ---- marks ---- */

/* Groups of columns, each taken whole from the latest event that has it. */
typedef enum Section
{
	SECTION_ACCOUNT,
	SECTION_CAMPAIGN,
	SECTION_CONTACT,
	SECTION_COUNTRY,
	SECTION_RECIPIENT,
	SECTION_FIELDS,
	SECTION_URL,
	SECTION_EXPECTED,
	SECTION_ZIP
} Section;

#define N_SECTIONS		(SECTION_ZIP + 1)

/* Responses do not bear on the status, so they have no mark. */
#define N_STATUS_MARKS	(RETURNED_TO_SENDER + 1)
#define N_MARKS			(N_STATUS_MARKS + N_SECTIONS)

#define SECTION_MARK(section) (N_STATUS_MARKS + (section))

#define NO_MARK			PG_INT64_MIN

/* Of events at one instant, the further status is the later. */
static inline int64
make_mark(TimestampTz instant, MailStatus status)
{
	return instant * 16 + status;
}

static inline TimestampTz
mark_instant(int64 mark)
{
	return mark == NO_MARK ? DT_NOBEGIN : mark >> 4;
}

static inline MailStatus
mark_status(int64 mark)
{
	return mark & 15;
}

/* ---- the columns of pieces, in journey.sql's order, and how they merge ---- */

typedef enum Merge
{
	KEY,
	DERIVED,					/* from the others */
	EARLIEST,
	LATEST,
	SUM,
	MARKS,
	FROM_SECTION				/* + the Section */
} Merge;

#define IN(section) (FROM_SECTION + SECTION_##section)

static const TableColumn pieces_columns[N_PIECE_COLUMNS] = {
	[PIECE_ID] = {"piece_id", TEXTOID, true, KEY},
	[PIECE_ACCOUNT] = {"account", TEXTOID, false, IN(ACCOUNT)},
	[PIECE_CAMPAIGN_ID] = {"campaign_id", TEXTOID, false, IN(CAMPAIGN)},
	[PIECE_CONTACT_ID] = {"contact_id", TEXTOID, false, IN(CONTACT)},
	[PIECE_STATUS] = {"status", ANYENUMOID, false, DERIVED},
	[PIECE_STATUS_AT] = {"status_at", TIMESTAMPTZOID, false, DERIVED},
	[PIECE_RESPONSE] = {"response", ANYENUMOID, false, DERIVED},
	[FIRST_OF_STATUS + MAIL_PIECE_CREATED] = {"mail_piece_created_at", TIMESTAMPTZOID, false, EARLIEST},
	[FIRST_OF_STATUS + ADDRESSED] = {"addressed_at", TIMESTAMPTZOID, false, EARLIEST},
	[FIRST_OF_STATUS + PRINTED] = {"printed_at", TIMESTAMPTZOID, false, EARLIEST},
	[FIRST_OF_STATUS + MAILED] = {"mailed_at", TIMESTAMPTZOID, false, EARLIEST},
	[FIRST_OF_STATUS + IN_TRANSIT] = {"in_transit_at", TIMESTAMPTZOID, false, EARLIEST},
	[FIRST_OF_STATUS + IN_LOCAL_AREA] = {"in_local_area_at", TIMESTAMPTZOID, false, EARLIEST},
	[FIRST_OF_STATUS + PROCESSED_FOR_DELIVERY] = {"processed_for_delivery_at", TIMESTAMPTZOID, false, EARLIEST},
	[FIRST_OF_STATUS + RE_ROUTED] = {"re_routed_at", TIMESTAMPTZOID, false, EARLIEST},
	[FIRST_OF_STATUS + RETURNED_TO_SENDER] = {"returned_to_sender_at", TIMESTAMPTZOID, false, EARLIEST},
	[FIRST_OF_STATUS + PURL_OPENED] = {"first_opened_at", TIMESTAMPTZOID, false, EARLIEST},
	[FIRST_OF_STATUS + PURL_COMPLETED] = {"first_completed_at", TIMESTAMPTZOID, false, EARLIEST},
	[OPENS] = {"opens", INT4OID, true, SUM},
	[COMPLETIONS] = {"completions", INT4OID, true, SUM},
	[FIRST_EVENT_AT] = {"first_event_at", TIMESTAMPTZOID, true, EARLIEST},
	[LAST_EVENT_AT] = {"last_event_at", TIMESTAMPTZOID, true, LATEST},
	[EXPECTED_DELIVERY_AT] = {"expected_delivery_at", TIMESTAMPTZOID, false, IN(EXPECTED)},
	[PIECE_COUNTRY] = {"country", TEXTOID, false, IN(COUNTRY)},
	[PIECE_FIRST_NAME] = {"first_name", TEXTOID, false, IN(RECIPIENT)},
	[PIECE_LAST_NAME] = {"last_name", TEXTOID, false, IN(RECIPIENT)},
	[PIECE_COMPANY] = {"company", TEXTOID, false, IN(RECIPIENT)},
	[PIECE_EMAIL] = {"email", TEXTOID, false, IN(RECIPIENT)},
	[PIECE_ZIP] = {"zip", TEXTOID, false, IN(ZIP)},
	[PIECE_FIELDS] = {"fields", JSONBOID, false, IN(FIELDS)},
	[LAST_URL] = {"last_url", TEXTOID, false, IN(URL)},
	[PIECE_MARKS] = {"marks", BYTEAOID, true, MARKS},
};

/* Open pieces; error 55000 if users have altered its columns or its key. */
Relation
open_pieces(LOCKMODE mode)
{
	return open_table("pieces", pieces_columns, N_PIECE_COLUMNS, mode);
}

/* True if the piece in a slot has had an event of any of these statuses, a bit each. */
bool
piece_has_reached(TupleTableSlot *piece, uint16 statuses)
{
	for (int i = 0; i < N_STATUSES; i++)
		if ((statuses & (1 << i)) != 0 && !slot_attisnull(piece, FIRST_OF_STATUS + i + 1))
			return true;
	return false;
}

/* A row of pieces or campaigns. */
typedef struct Row
{
	Datum	   *values;
	bool	   *nulls;
} Row;

static void
set_value(Row row, int column, Datum value)
{
	row.values[column] = value;
	row.nulls[column] = false;
}

/* ---- marks, as a row stores them ---- */

/*
 * The mark of a status's first event is not stored, for its instant has a
 * column.  Most rows have no other marks; they store, in half a byte for each
 * section, the status whose first event it is from.
 *
 * All other rows store a byte for each mark: FIRST_EVENT + the status, or the
 * mark's place in the list that follows, without repeats.
 */
#define SHORT_LENGTH	((N_SECTIONS + 1) / 2)
#define SHORT_NONE		15
#define FIRST_EVENT		128
#define NO_PLACE		255

/* The mark of a status's first event; NO_MARK if there is none. */
static int64
first_event_mark(const Datum *values, const bool *nulls, int status)
{
	int			column = FIRST_OF_STATUS + status;

	return nulls[column] ? NO_MARK : make_mark(DatumGetTimestampTz(values[column]), status);
}

static bool
is_first_event(Row row, int64 mark)
{
	return mark == first_event_mark(row.values, row.nulls, mark_status(mark));
}

static void
set_marks(Row row, const void *bytes, int length)
{
	bytea	   *stored = palloc(VARHDRSZ + length);

	SET_VARSIZE(stored, VARHDRSZ + length);
	memcpy(VARDATA(stored), bytes, length);
	set_value(row, PIECE_MARKS, PointerGetDatum(stored));
}

/* False if the marks are others than those of first events. */
static bool
store_short(Row row, const int64 *marks)
{
	uint8		bytes[SHORT_LENGTH] = {0};

	for (int i = 0; i < N_STATUS_MARKS; i++)
		if (marks[i] != first_event_mark(row.values, row.nulls, i))
			return false;
	for (int i = 0; i < N_SECTIONS; i++)
	{
		int64		mark = marks[SECTION_MARK(i)];
		int			status = mark == NO_MARK ? SHORT_NONE : mark_status(mark);

		if (mark != NO_MARK && !is_first_event(row, mark))
			return false;
		bytes[i / 2] |= status << (i % 2 * 4);
	}
	set_marks(row, bytes, SHORT_LENGTH);
	return true;
}

/* The row has its instants already. */
static void
store_marks(Row row, const int64 *marks)
{
	uint8		bytes[N_MARKS + N_MARKS * sizeof(int64)];
	int64		list[N_MARKS];
	int			length = 0;

	if (store_short(row, marks))
		return;
	for (int i = 0; i < N_MARKS; i++)
	{
		if (marks[i] == NO_MARK)
			bytes[i] = NO_PLACE;
		else if (is_first_event(row, marks[i]))
			bytes[i] = FIRST_EVENT + mark_status(marks[i]);
		else
		{
			for (bytes[i] = 0; bytes[i] < length && list[bytes[i]] != marks[i];)
				bytes[i]++;
			if (bytes[i] == length)
				list[length++] = marks[i];
		}
	}
	memcpy(bytes + N_MARKS, list, length * sizeof(int64));
	set_marks(row, bytes, N_MARKS + length * sizeof(int64));
}

static void
read_short(const uint8 *bytes, const Datum *values, const bool *nulls, int64 *marks)
{
	for (int i = 0; i < N_STATUS_MARKS; i++)
		marks[i] = first_event_mark(values, nulls, i);
	for (int i = 0; i < N_SECTIONS; i++)
	{
		int			status = bytes[i / 2] >> (i % 2 * 4) & 15;

		marks[SECTION_MARK(i)] = status < N_STATUSES ? first_event_mark(values, nulls, status) : NO_MARK;
	}
}

static void
raise_bad_marks(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("marks are none of %s's", EXTENSION_NAME)));
}

/* Error 22023 for what did not come from here. */
static void
read_marks(const Datum *values, const bool *nulls, int64 *marks)
{
	const bytea *stored;
	const uint8 *bytes;
	int			length;
	bool		good;

	if (nulls[PIECE_MARKS])
		raise_bad_marks();
	stored = DatumGetByteaPP(values[PIECE_MARKS]);
	bytes = (const uint8 *) VARDATA_ANY(stored);
	length = (int) VARSIZE_ANY_EXHDR(stored) - N_MARKS;
	good = length >= 0;
	if (VARSIZE_ANY_EXHDR(stored) == SHORT_LENGTH)
	{
		read_short(bytes, values, nulls, marks);
		return;
	}
	for (int i = 0; i < N_MARKS && good; i++)
	{
		marks[i] = NO_MARK;
		if (bytes[i] < length / (int) sizeof(int64))
			memcpy(&marks[i], bytes + N_MARKS + bytes[i] * sizeof(int64), sizeof(int64));
		else if (bytes[i] >= FIRST_EVENT && bytes[i] < FIRST_EVENT + N_STATUSES)
			marks[i] = first_event_mark(values, nulls, bytes[i] - FIRST_EVENT);
		else
			good = bytes[i] == NO_PLACE;
	}
	if (!good)
		raise_bad_marks();
}

/* Set the columns that follow from the others. */
static void
set_derived(Row row, const int64 *marks)
{
	TimestampTz last[N_STATUSES];
	int			status;

	for (int i = 0; i < N_STATUSES; i++)
		last[i] = i < N_STATUS_MARKS ? mark_instant(marks[i]) : DT_NOBEGIN;
	status = status_from_instants(last);
	if (status != NO_STATUS)
	{
		set_value(row, PIECE_STATUS, ObjectIdGetDatum(status_oid(status)));
		set_value(row, PIECE_STATUS_AT, TimestampTzGetDatum(last[status]));
	}
	if (DatumGetInt32(row.values[COMPLETIONS]) > 0)
		set_value(row, PIECE_RESPONSE, ObjectIdGetDatum(status_oid(PURL_COMPLETED)));
	else if (DatumGetInt32(row.values[OPENS]) > 0)
		set_value(row, PIECE_RESPONSE, ObjectIdGetDatum(status_oid(PURL_OPENED)));
}

/* Is the stored value of a column the one to keep, over the row's own? */
static bool
keeps_stored(int merge, Datum value, bool isnull, Datum stored,
			 const int64 *marks, const int64 *stored_marks)
{
	switch (merge)
	{
		case EARLIEST:
			return isnull || DatumGetTimestampTz(stored) < DatumGetTimestampTz(value);
		case LATEST:
			return isnull || DatumGetTimestampTz(stored) > DatumGetTimestampTz(value);
		default:
			{
				int			mark = SECTION_MARK(merge - FROM_SECTION);

				return stored_marks[mark] >= marks[mark];
			}
	}
}

/* Merge the stored row of a piece into one of new events: a DirectMerge. */
static void
merge_rows(Datum *values, bool *nulls, const Datum *stored, const bool *stored_nulls)
{
	int64		marks[N_MARKS];
	int64		stored_marks[N_MARKS];
	int64		merged[N_MARKS];

	read_marks(values, nulls, marks);
	read_marks(stored, stored_nulls, stored_marks);
	for (int i = 0; i < N_MARKS; i++)
		merged[i] = Max(marks[i], stored_marks[i]);
	for (int i = 0; i < N_PIECE_COLUMNS; i++)
	{
		int			merge = pieces_columns[i].merge;

		if (merge == SUM)
			values[i] = Int32GetDatum(DatumGetInt32(values[i]) + DatumGetInt32(stored[i]));
		else if (merge >= FROM_SECTION || ((merge == EARLIEST || merge == LATEST) && !stored_nulls[i]))
		{
			if (!keeps_stored(merge, values[i], nulls[i], stored[i], marks, stored_marks))
				continue;
			values[i] = stored[i];
			nulls[i] = stored_nulls[i];
		}
	}
	store_marks((Row) {values, nulls}, merged);
	set_derived((Row) {values, nulls}, merged);
}

/*
 * merge_piece(stored pieces, new pieces) returns pieces
 *
 * The row of a piece, of which one has some events and one has others.  Strict.
 * Error 22023 for marks that were not made here.
 */
Datum
postalytics_merge_piece(PG_FUNCTION_ARGS)
{
	HeapTupleHeader stored = PG_GETARG_HEAPTUPLEHEADER(0);
	HeapTupleHeader fresh = PG_GETARG_HEAPTUPLEHEADER(1);
	TupleDesc	tupdesc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(fresh),
												 HeapTupleHeaderGetTypMod(fresh));
	Row			rows[2];
	HeapTupleData tuple = {0};
	HeapTuple	merged;

	new_row(tupdesc, &rows[0].values, &rows[0].nulls);
	new_row(tupdesc, &rows[1].values, &rows[1].nulls);
	tuple.t_data = stored;
	tuple.t_len = HeapTupleHeaderGetDatumLength(stored);
	heap_deform_tuple(&tuple, tupdesc, rows[0].values, rows[0].nulls);
	tuple.t_data = fresh;
	tuple.t_len = HeapTupleHeaderGetDatumLength(fresh);
	heap_deform_tuple(&tuple, tupdesc, rows[1].values, rows[1].nulls);
	merge_rows(rows[1].values, rows[1].nulls, rows[0].values, rows[0].nulls);
	merged = heap_form_tuple(tupdesc, rows[1].values, rows[1].nulls);
	ReleaseTupleDesc(tupdesc);
	PG_RETURN_DATUM(HeapTupleGetDatum(merged));
}

static char *
pieces_query(void)
{
	StringInfoData names;
	StringInfoData merged;
	StringInfoData query;

	initStringInfo(&names);
	initStringInfo(&merged);
	for (int i = 0; i < N_PIECE_COLUMNS; i++)
	{
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", pieces_columns[i].name);
		appendStringInfo(&merged, "%sm.%s", i > 0 ? ", " : "", pieces_columns[i].name);
	}
	initStringInfo(&query);
	appendStringInfo(&query,
					 "INSERT INTO postalytics.pieces AS p (%s)"
					 " SELECT %s FROM journeys"
					 " ON CONFLICT (piece_id) DO UPDATE SET (%s) ="
					 " (SELECT %s FROM postalytics.merge_piece(p, excluded) AS m)",
					 names.data, names.data, names.data, merged.data);
	return query.data;
}

/* ---- one piece ---- */

typedef struct Journey
{
	const char *piece;			/* NULL while there is none */
	uint32		piece_length;
	TimestampTz first_of_status[N_STATUSES];
	TimestampTz first_event_at;
	TimestampTz last_event_at;
	int32		visits[N_STATUSES]; /* of the two responses */
	int64		marks[N_MARKS];
	text	   *account;
	text	   *campaign_id;
	const EventRecord *section[N_SECTIONS];
} Journey;

/* A campaign that events name. */
typedef struct Campaign
{
	text	   *campaign_id;
	text	   *account;		/* or NULL */
	text	   *name;			/* or NULL */
	DateADT		named_on;		/* the day of the event that names it */
	char		status;			/* simplehash's */
} Campaign;

static inline uint32
hash_text(text *key)
{
	return hash_bytes((unsigned char *) VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
}

#define SH_PREFIX		campaigns
#define SH_ELEMENT_TYPE Campaign
#define SH_KEY_TYPE		text *
#define SH_KEY			campaign_id
#define SH_HASH_KEY(tb, key) hash_text(key)
#define SH_EQUAL(tb, a, b) equal_texts(a, b)
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct JourneyWriter
{
	MemoryContext context;
	Relation	pieces;
	DirectTable *direct;		/* NULL if only a query can write to it */
	Tuplestorestate *rows;		/* of pieces, for the query */
	int64		count;
	Row			row;			/* while it is made */
	Journey		journey;
	campaigns_hash *campaigns;
};

/* So many rows a query writes to pieces at once. */
#define KEEP_ROWS	10000

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

/* Folds events into journeys, and writes them; needs an SPI connection. */
JourneyWriter *
journey_writer_create(MemoryContext parent)
{
	JourneyWriter *writer = MemoryContextAllocZero(parent, sizeof(JourneyWriter));
	MemoryContext caller;

	writer->context = parent;
	writer->pieces = open_pieces(RowExclusiveLock);
	if (direct_allowed(writer->pieces, pieces_columns, N_PIECE_COLUMNS))
		writer->direct = direct_open(writer->pieces, N_PIECE_COLUMNS);
	caller = MemoryContextSwitchTo(parent);
	new_row(RelationGetDescr(writer->pieces), &writer->row.values, &writer->row.nulls);
	MemoryContextSwitchTo(caller);
	writer->campaigns = campaigns_create(parent, 16, NULL);
	begin_journey(&writer->journey);
	return writer;
}

/* Is this the latest event so far to decide the section?  Then it does. */
static bool
decides(Journey *journey, Section section, int64 mark)
{
	if (mark <= journey->marks[SECTION_MARK(section)])
		return false;
	journey->marks[SECTION_MARK(section)] = mark;
	return true;
}

static void
add_record(Journey *journey, const EventRecord *record, MailStatus status, int64 mark)
{
	const Span *field = record->field;
	bool		has[N_SECTIONS] = {
		[SECTION_CONTACT] = field[CONTACT_ID].length > 0,
		[SECTION_COUNTRY] = field[COUNTRY].length > 0,
		[SECTION_RECIPIENT] = field[FIRST_NAME].length > 0 ||
			field[LAST_NAME].length > 0 ||
			field[COMPANY].length > 0 || field[EMAIL].length > 0,
		[SECTION_FIELDS] = field[FIELDS].length > 0,
		[SECTION_URL] = field[URL].length > 0 &&
			(status == PURL_OPENED || status == PURL_COMPLETED),
		[SECTION_EXPECTED] = record->expected_at != DT_NOBEGIN,
		[SECTION_ZIP] = field[ZIP].length > 0,
	};

	for (int i = SECTION_CONTACT; i < N_SECTIONS; i++)
		if (has[i] && decides(journey, i, mark))
			journey->section[i] = record;
}

/* The UTC day of a time. */
static DateADT
day_of(TimestampTz time)
{
	TimestampTz day = time / USECS_PER_DAY;

	return (DateADT) (time % USECS_PER_DAY < 0 ? day - 1 : day);
}

/*
 * True if a name given on a day takes precedence over another.  A campaign has
 * the name given on the latest day, and of several names on that day the last
 * in byte order.  So the name depends only on the set of events, and an event
 * that repeats the current name on the same day does not update the row.
 */
static bool
name_takes_precedence(DateADT day, const char *name, int length, DateADT other_day, const text *other)
{
	int			other_length = VARSIZE_ANY_EXHDR(other);
	int			order;

	if (day != other_day)
		return day > other_day;
	order = memcmp(name, VARDATA_ANY(other), Min(length, other_length));
	return order != 0 ? order > 0 : length > other_length;
}

/* Note the campaign that an event names, and the name that it gives it. */
static void
add_campaign(JourneyWriter *writer, const EventRow *row)
{
	MemoryContext caller;
	Campaign   *campaign;
	const char *name = NULL;
	DateADT		day = day_of(row->occurred_at);
	int			length;
	bool		found;

	if (row->campaign_id == NULL)
		return;
	if (row->record != NULL)
		name = event_field(row->record, CAMPAIGN_NAME, &length);

	campaign = campaigns_insert(writer->campaigns, row->campaign_id, &found);
	caller = MemoryContextSwitchTo(writer->context);
	if (!found)
	{
		campaign->campaign_id = DatumGetTextPCopy(PointerGetDatum(row->campaign_id));
		campaign->account = NULL;
		campaign->name = NULL;
	}
	if (campaign->account == NULL && row->account != NULL)
		campaign->account = DatumGetTextPCopy(PointerGetDatum(row->account));
	if (name != NULL &&
		(campaign->name == NULL ||
		 name_takes_precedence(day, name, length, campaign->named_on, campaign->name)))
	{
		if (campaign->name == NULL || VARSIZE_ANY_EXHDR(campaign->name) != (Size) length ||
			memcmp(VARDATA_ANY(campaign->name), name, length) != 0)
			campaign->name = cstring_to_text_with_len(name, length);
		campaign->named_on = day;
	}
	MemoryContextSwitchTo(caller);
}

/*
 * Fold in one event.  Events of one piece come together; what row points at
 * must last until journey_next_piece.
 */
void
journey_add(JourneyWriter *writer, const EventRow *row)
{
	Journey    *journey = &writer->journey;
	int64		mark = make_mark(row->occurred_at, row->status);

	journey->piece = row->piece;
	journey->piece_length = row->piece_length;
	journey->first_of_status[row->status] =
		Min(journey->first_of_status[row->status], row->occurred_at);
	journey->first_event_at = Min(journey->first_event_at, row->occurred_at);
	journey->last_event_at = Max(journey->last_event_at, row->occurred_at);
	journey->visits[row->status]++;
	if (row->status < N_STATUS_MARKS)
		journey->marks[row->status] = Max(journey->marks[row->status], mark);

	if (row->account != NULL && decides(journey, SECTION_ACCOUNT, mark))
		journey->account = DatumGetTextPCopy(PointerGetDatum(row->account));
	if (row->campaign_id != NULL && decides(journey, SECTION_CAMPAIGN, mark))
		journey->campaign_id = DatumGetTextPCopy(PointerGetDatum(row->campaign_id));
	if (row->record != NULL)
		add_record(journey, row->record, row->status, mark);
	add_campaign(writer, row);
}

/* ---- writing ---- */

static void
set_text(Row row, int column, const EventRecord *record, Field field)
{
	Datum		value = record == NULL ? (Datum) 0 : event_field_text(record, field);

	if (value != (Datum) 0)
		set_value(row, column, value);
}

static void
set_fields(Row row, const EventRecord *record)
{
	int			length;
	const char *json;

	if (record == NULL)
		return;
	json = event_field(record, FIELDS, &length);
	set_value(row, PIECE_FIELDS,
			  DirectFunctionCall1(jsonb_in, CStringGetDatum(pnstrdup(json, length))));
}

static void
set_sections(Row row, const Journey *journey)
{
	const EventRecord *recipient = journey->section[SECTION_RECIPIENT];
	const EventRecord *expected = journey->section[SECTION_EXPECTED];

	if (journey->account != NULL)
		set_value(row, PIECE_ACCOUNT, PointerGetDatum(journey->account));
	if (journey->campaign_id != NULL)
		set_value(row, PIECE_CAMPAIGN_ID, PointerGetDatum(journey->campaign_id));
	set_text(row, PIECE_CONTACT_ID, journey->section[SECTION_CONTACT], CONTACT_ID);
	set_text(row, PIECE_COUNTRY, journey->section[SECTION_COUNTRY], COUNTRY);
	set_text(row, PIECE_FIRST_NAME, recipient, FIRST_NAME);
	set_text(row, PIECE_LAST_NAME, recipient, LAST_NAME);
	set_text(row, PIECE_COMPANY, recipient, COMPANY);
	set_text(row, PIECE_EMAIL, recipient, EMAIL);
	set_text(row, PIECE_ZIP, journey->section[SECTION_ZIP], ZIP);
	set_fields(row, journey->section[SECTION_FIELDS]);
	set_text(row, LAST_URL, journey->section[SECTION_URL], URL);
	if (expected != NULL)
		set_value(row, EXPECTED_DELIVERY_AT, TimestampTzGetDatum(expected->expected_at));
}

/* Write the rows kept for the query; they are in piece order. */
static void
write_kept(JourneyWriter *writer)
{
	static SPIPlanPtr plan = NULL;

	if (writer->count == 0)
		return;
	register_rows("journeys", RelationGetRelid(writer->pieces), writer->rows, writer->count);
	if (SPI_execute_plan(keep_plan(&plan, pieces_query(), 0, NULL),
						 NULL, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write pieces");
	SPI_unregister_relation("journeys");
	tuplestore_end(writer->rows);
	writer->rows = NULL;
	writer->count = 0;
}

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
	if (++writer->count == KEEP_ROWS)
		write_kept(writer);
}

static void
set_row(Row row, const Journey *journey)
{
	set_value(row, PIECE_ID, PointerGetDatum(cstring_to_text_with_len(journey->piece,
																	  journey->piece_length)));
	set_sections(row, journey);
	for (int i = 0; i < N_STATUSES; i++)
		if (journey->first_of_status[i] != DT_NOEND)
			set_value(row, FIRST_OF_STATUS + i,
					  TimestampTzGetDatum(journey->first_of_status[i]));
	set_value(row, OPENS, Int32GetDatum(journey->visits[PURL_OPENED]));
	set_value(row, COMPLETIONS, Int32GetDatum(journey->visits[PURL_COMPLETED]));
	set_value(row, FIRST_EVENT_AT, TimestampTzGetDatum(journey->first_event_at));
	set_value(row, LAST_EVENT_AT, TimestampTzGetDatum(journey->last_event_at));
	store_marks(row, journey->marks);
	set_derived(row, journey->marks);
}

/* The piece has no more events: write its row, and be ready for the next. */
void
journey_next_piece(JourneyWriter *writer)
{
	memset(writer->row.nulls, true, RelationGetDescr(writer->pieces)->natts * sizeof(bool));
	set_row(writer->row, &writer->journey);
	if (writer->direct != NULL)
		direct_upsert(writer->direct, writer->row.values, writer->row.nulls, merge_rows);
	else
		keep_row(writer);
	begin_journey(&writer->journey);
}

/*
 * A campaign's row is made once and changed only when a later day or a
 * different name takes precedence (name_takes_precedence): to count in it, or to note
 * each event's time, would make every writer wait for every other.
 */
static const char campaigns_query[] =
"INSERT INTO postalytics.campaigns AS c (campaign_id, account, name, named_on)"
" SELECT campaign_id, account, name, named_on"
" FROM seen"
" ORDER BY campaign_id"
" ON CONFLICT (campaign_id) DO UPDATE"
" SET (account, name, named_on) ="
"     (SELECT COALESCE(c.account, excluded.account), n.name, n.named_on"
"      FROM (VALUES (c.name, c.named_on), (excluded.name, excluded.named_on))"
"           AS n (name, named_on)"
"      ORDER BY n.named_on DESC NULLS LAST, n.name COLLATE pg_catalog.\"C\" DESC"
"      LIMIT 1)";

static const TableColumn campaigns_columns[N_CAMPAIGNS_COLUMNS] = {
	[CAMPAIGNS_ID] = COLUMN_NOT_NULL("campaign_id", TEXTOID),
	[CAMPAIGNS_ACCOUNT] = COLUMN("account", TEXTOID),
	[CAMPAIGNS_NAME] = COLUMN("name", TEXTOID),
	[CAMPAIGNS_NAMED_ON] = COLUMN("named_on", DATEOID),
};

/* Open campaigns; error 55000 if users have altered its columns or its key. */
Relation
open_campaigns(LOCKMODE mode)
{
	return open_table("campaigns", campaigns_columns, N_CAMPAIGNS_COLUMNS, mode);
}

/* True if the row has all that the events say. */
static bool
campaign_is_current(HeapTuple row, TupleDesc tupdesc, const Campaign *campaign)
{
	Datum		value;
	bool		isnull;
	text	   *name;

	(void) heap_getattr(row, CAMPAIGNS_ACCOUNT + 1, tupdesc, &isnull);
	if (isnull && campaign->account != NULL)
		return false;
	if (campaign->name == NULL)
		return true;
	value = heap_getattr(row, CAMPAIGNS_NAME + 1, tupdesc, &isnull);
	if (isnull)
		return false;
	name = DatumGetTextPP(value);
	value = heap_getattr(row, CAMPAIGNS_NAMED_ON + 1, tupdesc, &isnull);
	return !isnull &&
		!name_takes_precedence(campaign->named_on, VARDATA_ANY(campaign->name), VARSIZE_ANY_EXHDR(campaign->name),
					   DatumGetDateADT(value), name);
}

/* Looks by the key, without a query, for nearly always there is nothing to do. */
static bool
is_known(Relation campaigns, const Campaign *campaign)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	row;
	bool		known;

	ScanKeyInit(&key, CAMPAIGNS_ID + 1, BTEqualStrategyNumber, F_TEXTEQ,
				PointerGetDatum(campaign->campaign_id));
	key.sk_collation = TupleDescAttr(RelationGetDescr(campaigns), 0)->attcollation;
	scan = systable_beginscan(campaigns, compat_primary_key(campaigns),
							  true, GetActiveSnapshot(), 1, &key);
	row = systable_getnext(scan);
	known = HeapTupleIsValid(row) &&
		campaign_is_current(row, RelationGetDescr(campaigns), campaign);
	systable_endscan(scan);
	return known;
}

static void
add_campaign_row(const Campaign *campaign, TupleDesc tupdesc, Tuplestorestate *rows)
{
	Row			row;

	new_row(tupdesc, &row.values, &row.nulls);
	set_value(row, CAMPAIGNS_ID, PointerGetDatum(campaign->campaign_id));
	if (campaign->account != NULL)
		set_value(row, CAMPAIGNS_ACCOUNT, PointerGetDatum(campaign->account));
	if (campaign->name != NULL)
	{
		set_value(row, CAMPAIGNS_NAME, PointerGetDatum(campaign->name));
		set_value(row, CAMPAIGNS_NAMED_ON, DateADTGetDatum(campaign->named_on));
	}
	tuplestore_putvalues(rows, tupdesc, row.values, row.nulls);
}

/* The campaigns of which events said something new, as rows; how many. */
static int64
collect_campaigns(JourneyWriter *writer, Relation relation, Tuplestorestate *rows)
{
	campaigns_iterator iterator;
	Campaign   *campaign;
	int64		count = 0;

	campaigns_start_iterate(writer->campaigns, &iterator);
	while ((campaign = campaigns_iterate(writer->campaigns, &iterator)) != NULL)
	{
		if (is_known(relation, campaign))
			continue;
		add_campaign_row(campaign, RelationGetDescr(relation), rows);
		count++;
	}
	return count;
}

static void
write_campaigns(JourneyWriter *writer)
{
	static SPIPlanPtr plan = NULL;
	Relation	relation;
	Tuplestorestate *rows;
	int64		count;

	if (writer->campaigns->members == 0)
		return;
	relation = open_campaigns(RowExclusiveLock);
	rows = tuplestore_begin_heap(false, false, work_mem);
	count = collect_campaigns(writer, relation, rows);
	if (count > 0)
	{
		register_rows("seen", RelationGetRelid(relation), rows, count);
		if (SPI_execute_plan(keep_plan(&plan, campaigns_query, 0, NULL),
							 NULL, NULL, false, 0) != SPI_OK_INSERT)
			elog(ERROR, "could not write campaigns");
		SPI_unregister_relation("seen");
	}
	tuplestore_end(rows);
	table_close(relation, NoLock);
}

/* No more events: write what is kept. */
void
journey_finish(JourneyWriter *writer)
{
	if (writer->journey.piece != NULL)
		journey_next_piece(writer);
	if (writer->direct != NULL)
		direct_close(writer->direct);
	write_kept(writer);
	write_campaigns(writer);
	table_close(writer->pieces, NoLock);
}
