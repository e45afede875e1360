/*
 * piece.c
 *		The columns of pieces, and how two rows of one piece are merged.
 *
 * A row depends only on the set of the piece's events, not on their order.
 * Marks ensure this by recording which event decided each part of the row.
 * journey.c computes rows from events.  Sections and marks are explained in
 * piece.h.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/compat.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "journey/piece.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(postalytics_merge_piece);

/* ---- the columns ---- */

const TableColumn pieces_columns[N_PIECE_COLUMNS] = {
	[PIECE_ID] = COLUMN_NOT_NULL("piece_id", TEXTOID),
	[PIECE_ACCOUNT] = COLUMN_NOT_NULL("account", TEXTOID),
	[PIECE_CAMPAIGN_ID] = COLUMN("campaign_id", TEXTOID),
	[PIECE_DROP_ID] = COLUMN("drop_id", TEXTOID),
	[PIECE_CONTACT_ID] = COLUMN("contact_id", TEXTOID),
	[PIECE_STATUS] = COLUMN("status", ANYENUMOID),
	[PIECE_STATUS_AT] = COLUMN("status_at", TIMESTAMPTZOID),
	[PIECE_RESPONSE] = COLUMN("response", ANYENUMOID),
	[FIRST_OF_STATUS + MAIL_PIECE_CREATED] = COLUMN("mail_piece_created_at", TIMESTAMPTZOID),
	[FIRST_OF_STATUS + ADDRESSED] = COLUMN("addressed_at", TIMESTAMPTZOID),
	[FIRST_OF_STATUS + PRINTED] = COLUMN("printed_at", TIMESTAMPTZOID),
	[FIRST_OF_STATUS + MAILED] = COLUMN("mailed_at", TIMESTAMPTZOID),
	[FIRST_OF_STATUS + IN_TRANSIT] = COLUMN("in_transit_at", TIMESTAMPTZOID),
	[FIRST_OF_STATUS + IN_LOCAL_AREA] = COLUMN("in_local_area_at", TIMESTAMPTZOID),
	[FIRST_OF_STATUS + PROCESSED_FOR_DELIVERY] = COLUMN("processed_for_delivery_at", TIMESTAMPTZOID),
	[FIRST_OF_STATUS + RE_ROUTED] = COLUMN("re_routed_at", TIMESTAMPTZOID),
	[FIRST_OF_STATUS + RETURNED_TO_SENDER] = COLUMN("returned_to_sender_at", TIMESTAMPTZOID),
	[FIRST_OF_STATUS + PURL_OPENED] = COLUMN("first_opened_at", TIMESTAMPTZOID),
	[FIRST_OF_STATUS + PURL_COMPLETED] = COLUMN("first_completed_at", TIMESTAMPTZOID),
	[OPENS] = COLUMN_NOT_NULL("opens", INT4OID),
	[COMPLETIONS] = COLUMN_NOT_NULL("completions", INT4OID),
	[FIRST_EVENT_AT] = COLUMN_NOT_NULL("first_event_at", TIMESTAMPTZOID),
	[LAST_EVENT_AT] = COLUMN_NOT_NULL("last_event_at", TIMESTAMPTZOID),
	[EXPECTED_DELIVERY_AT] = COLUMN("expected_delivery_at", TIMESTAMPTZOID),
	[PIECE_COUNTRY] = COLUMN("country", TEXTOID),
	[PIECE_FIRST_NAME] = COLUMN("first_name", TEXTOID),
	[PIECE_LAST_NAME] = COLUMN("last_name", TEXTOID),
	[PIECE_COMPANY] = COLUMN("company", TEXTOID),
	[PIECE_EMAIL] = COLUMN("email", TEXTOID),
	[PIECE_CITY] = COLUMN("city", TEXTOID),
	[PIECE_STATE] = COLUMN("state", TEXTOID),
	[PIECE_ZIP] = COLUMN("zip", TEXTOID),
	[PIECE_FIELDS] = COLUMN("fields", JSONBOID),
	[LAST_URL] = COLUMN("last_url", TEXTOID),
	[PIECE_MARKS] = COLUMN_NOT_NULL("marks", BYTEAOID),
};

/* Open table pieces.  Errors are those of open_table. */
Relation
open_pieces(LOCKMODE mode)
{
	return open_table("pieces", pieces_columns, N_PIECE_COLUMNS, 2, mode);
}

/*
 * True if the piece in a slot has had an event of any of these statuses, given
 * as a bit mask.
 */
bool
piece_has_reached(TupleTableSlot *piece, uint16 statuses)
{
	for (int i = 0; i < N_STATUSES; i++)
		if ((statuses & (1 << i)) != 0 && !slot_attisnull(piece, FIRST_OF_STATUS + i + 1))
			return true;
	return false;
}

/* ---- marks, as a row stores them ---- */

static inline TimestampTz
mark_time(int64 mark)
{
	return mark == NO_MARK ? DT_NOBEGIN : mark >> 4;
}

static inline MailStatus
mark_status(int64 mark)
{
	return mark & 15;
}

/*
 * The mark of the first event of a status is not stored, because the time of that
 * event is in a column.  Most rows have no other marks.  They use the short form,
 * which has half a byte for each section: the status whose first event decided the
 * section, or SHORT_NONE.
 *
 * All other rows store a byte for each mark, followed by a list of marks without
 * duplicates.  The byte is FIRST_EVENT + the status for the mark of a first event,
 * the position in the list for any other mark, or NO_POSITION for NO_MARK.
 */
#define SHORT_LENGTH	((N_SECTIONS + 1) / 2)
#define SHORT_NONE		15
#define FIRST_EVENT		128
#define NO_POSITION		255

/* Return the mark of the first event of a status; NO_MARK if there is none. */
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
	row_set(row, PIECE_MARKS, PointerGetDatum(stored));
}

/*
 * Store marks in the short form.  Returns false, and stores nothing, if there are
 * marks other than those of first events.
 */
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

/* Store the marks of a row.  The times of first events must be set in the row. */
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
			bytes[i] = NO_POSITION;
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
			 errmsg("invalid column \"marks\" in row of table \"pieces\"")));
}

/* Read the marks of a row.  Error 22023 if they are invalid. */
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
			good = bytes[i] == NO_POSITION;
	}
	if (!good)
		raise_bad_marks();
}

/* ---- merging ---- */

/* How the values of a column in two rows are merged. */
typedef enum Merge
{
	MERGE_NONE,					/* the key, the marks, and columns derived
								 * from others */
	MERGE_EARLIEST,
	MERGE_LATEST,
	MERGE_SUM,
	MERGE_SECTION				/* plus the Section: from the row with the
								 * later mark of the section */
} Merge;

static const int column_merge[N_PIECE_COLUMNS] = {
	[PIECE_CAMPAIGN_ID] = MERGE_SECTION + SECTION_CAMPAIGN,
	[PIECE_DROP_ID] = MERGE_SECTION + SECTION_DROP,
	[PIECE_CONTACT_ID] = MERGE_SECTION + SECTION_CONTACT,
	[OPENS] = MERGE_SUM,
	[COMPLETIONS] = MERGE_SUM,
	[FIRST_EVENT_AT] = MERGE_EARLIEST,
	[LAST_EVENT_AT] = MERGE_LATEST,
	[EXPECTED_DELIVERY_AT] = MERGE_SECTION + SECTION_EXPECTED,
	[PIECE_COUNTRY] = MERGE_SECTION + SECTION_COUNTRY,
	[PIECE_FIRST_NAME] = MERGE_SECTION + SECTION_RECIPIENT,
	[PIECE_LAST_NAME] = MERGE_SECTION + SECTION_RECIPIENT,
	[PIECE_COMPANY] = MERGE_SECTION + SECTION_RECIPIENT,
	[PIECE_EMAIL] = MERGE_SECTION + SECTION_RECIPIENT,
	[PIECE_CITY] = MERGE_SECTION + SECTION_RECIPIENT,
	[PIECE_STATE] = MERGE_SECTION + SECTION_RECIPIENT,
	[PIECE_ZIP] = MERGE_SECTION + SECTION_ZIP,
	[PIECE_FIELDS] = MERGE_SECTION + SECTION_FIELDS,
	[LAST_URL] = MERGE_SECTION + SECTION_URL,
};

/* Return the Merge of a column, or MERGE_SECTION plus its Section. */
static int
merge_of(int column)
{
	if (column >= FIRST_OF_STATUS && column < FIRST_OF_STATUS + N_STATUSES)
		return MERGE_EARLIEST;
	return column_merge[column];
}

/*
 * Set the columns that are derived from the others: the status, the response and,
 * if only the drop is known, the campaign, which then has the id of the drop.
 */
static void
set_derived(Row row, const int64 *marks)
{
	TimestampTz last[N_STATUSES];
	int			status;

	if (marks[SECTION_MARK(SECTION_CAMPAIGN)] == NO_MARK)
	{
		row.values[PIECE_CAMPAIGN_ID] = row.values[PIECE_DROP_ID];
		row.nulls[PIECE_CAMPAIGN_ID] = row.nulls[PIECE_DROP_ID];
	}
	for (int i = 0; i < N_STATUSES; i++)
		last[i] = i < N_STATUS_MARKS ? mark_time(marks[i]) : DT_NOBEGIN;
	status = status_from_times(last);
	if (status != NO_STATUS)
	{
		row_set(row, PIECE_STATUS, ObjectIdGetDatum(status_oid(status)));
		row_set(row, PIECE_STATUS_AT, TimestampTzGetDatum(last[status]));
	}
	if (DatumGetInt32(row.values[COMPLETIONS]) > 0)
		row_set(row, PIECE_RESPONSE, ObjectIdGetDatum(status_oid(PURL_COMPLETED)));
	else if (DatumGetInt32(row.values[OPENS]) > 0)
		row_set(row, PIECE_RESPONSE, ObjectIdGetDatum(status_oid(PURL_OPENED)));
}

/*
 * Set the marks of a row, and the columns that are derived from others.  The times
 * and counts of the row must be set.
 */
void
piece_set_marks(Row row, const int64 *marks)
{
	store_marks(row, marks);
	set_derived(row, marks);
}

/* True if the stored value of a column takes precedence over the new one. */
static bool
keeps_stored(int merge, Datum value, bool isnull, Datum stored,
			 const int64 *marks, const int64 *stored_marks)
{
	switch (merge)
	{
		case MERGE_EARLIEST:
			return isnull || DatumGetTimestampTz(stored) < DatumGetTimestampTz(value);
		case MERGE_LATEST:
			return isnull || DatumGetTimestampTz(stored) > DatumGetTimestampTz(value);
		default:
			{
				int			mark = SECTION_MARK(merge - MERGE_SECTION);

				return stored_marks[mark] >= marks[mark];
			}
	}
}

/*
 * Merge the stored row of a piece into a row made from new events.  This is a
 * DirectMerge function, which always returns true.  Error 22023 if the marks of a
 * row are invalid.
 */
bool
piece_merge(Datum *values, bool *nulls, const Datum *stored, const bool *stored_nulls)
{
	Row			row = {values, nulls};
	int64		marks[N_MARKS];
	int64		stored_marks[N_MARKS];
	int64		merged[N_MARKS];

	read_marks(values, nulls, marks);
	read_marks(stored, stored_nulls, stored_marks);
	for (int i = 0; i < N_MARKS; i++)
		merged[i] = Max(marks[i], stored_marks[i]);
	for (int i = 0; i < N_PIECE_COLUMNS; i++)
	{
		int			merge = merge_of(i);

		if (merge == MERGE_SUM)
			values[i] = Int32GetDatum(DatumGetInt32(values[i]) + DatumGetInt32(stored[i]));
		else if (merge >= MERGE_SECTION || ((merge == MERGE_EARLIEST || merge == MERGE_LATEST) && !stored_nulls[i]))
		{
			if (!keeps_stored(merge, values[i], nulls[i], stored[i], marks, stored_marks))
				continue;
			values[i] = stored[i];
			nulls[i] = stored_nulls[i];
		}
	}
	piece_set_marks(row, merged);
	return true;
}

/*
 * Replace the stored row of a piece with a row made from all events of the piece.
 * Sections with UNKNOWN_MARK keep their stored values.  This is a DirectMerge
 * function, which always returns true.  Error 22023 if the marks of a row are
 * invalid.
 */
bool
piece_replace(Datum *values, bool *nulls, const Datum *stored, const bool *stored_nulls)
{
	Row			row = {values, nulls};
	int64		marks[N_MARKS];
	int64		stored_marks[N_MARKS];

	read_marks(values, nulls, marks);
	read_marks(stored, stored_nulls, stored_marks);
	for (int i = 0; i < N_PIECE_COLUMNS; i++)
	{
		int			merge = merge_of(i);

		if (merge >= MERGE_SECTION && marks[SECTION_MARK(merge - MERGE_SECTION)] == UNKNOWN_MARK)
		{
			values[i] = stored[i];
			nulls[i] = stored_nulls[i];
		}
	}
	for (int i = 0; i < N_MARKS; i++)
		if (marks[i] == UNKNOWN_MARK)
			marks[i] = stored_marks[i];
	piece_set_marks(row, marks);
	return true;
}

/*
 * merge_piece(stored pieces, new pieces, replace boolean) returns pieces
 *
 * Merges two rows of a piece that were made from different events.  If replace is
 * true, the second row must have been made from all events of the piece, and
 * replaces the first; see piece_replace.  Strict.  Error 22023 if the marks of a
 * row are invalid.
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

	rows[0] = new_row(tupdesc);
	rows[1] = new_row(tupdesc);
	tuple.t_data = stored;
	tuple.t_len = HeapTupleHeaderGetDatumLength(stored);
	heap_deform_tuple(&tuple, tupdesc, rows[0].values, rows[0].nulls);
	tuple.t_data = fresh;
	tuple.t_len = HeapTupleHeaderGetDatumLength(fresh);
	heap_deform_tuple(&tuple, tupdesc, rows[1].values, rows[1].nulls);
	if (PG_GETARG_BOOL(2))
		(void) piece_replace(rows[1].values, rows[1].nulls, rows[0].values, rows[0].nulls);
	else
		(void) piece_merge(rows[1].values, rows[1].nulls, rows[0].values, rows[0].nulls);
	merged = heap_form_tuple(tupdesc, rows[1].values, rows[1].nulls);
	ReleaseTupleDesc(tupdesc);
	PG_RETURN_DATUM(HeapTupleGetDatum(merged));
}
