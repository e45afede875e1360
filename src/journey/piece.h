/*
 * piece.h
 *		The table pieces.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_PIECE_H
#define POSTALYTICS_PIECE_H

#include "base/table.h"
#include "executor/tuptable.h"
#include "lifecycle/lifecycle.h"

/* Columns of pieces, in the order of piece.sql: attribute number minus one. */
enum
{
	PIECE_ID, PIECE_ACCOUNT, PIECE_CAMPAIGN_ID, PIECE_DROP_ID, PIECE_CONTACT_ID,
	PIECE_STATUS, PIECE_STATUS_AT, PIECE_RESPONSE,
	FIRST_OF_STATUS,			/* the first of N_STATUSES columns, in enum
								 * order */
	OPENS = FIRST_OF_STATUS + N_STATUSES,
	COMPLETIONS, FIRST_EVENT_AT, LAST_EVENT_AT, EXPECTED_DELIVERY_AT,
	PIECE_COUNTRY, PIECE_FIRST_NAME, PIECE_LAST_NAME, PIECE_COMPANY,
	PIECE_EMAIL, PIECE_CITY, PIECE_STATE, PIECE_ZIP, PIECE_FIELDS, LAST_URL,
	PIECE_MARKS, N_PIECE_COLUMNS
};

extern const TableColumn pieces_columns[N_PIECE_COLUMNS];

/*
 * A section is a group of columns that are taken from the same event, which is the
 * latest event that has a value for any of them.  This event decides the section.
 */
typedef enum Section
{
	SECTION_CAMPAIGN,
	SECTION_DROP,
	SECTION_CONTACT,
	SECTION_COUNTRY,
	SECTION_RECIPIENT,
	SECTION_FIELDS,
	SECTION_URL,
	SECTION_EXPECTED,
	SECTION_ZIP
} Section;

#define N_SECTIONS		(SECTION_ZIP + 1)

/*
 * A mark is the time and status of an event, as one number.  A row has a mark for
 * the last event of each status, and for the event that decided each section.
 * Responses have no status mark, because they do not affect the current status.
 */

#define N_STATUS_MARKS	(RETURNED_TO_SENDER + 1)
#define SECTION_MARK(section) (N_STATUS_MARKS + (section))
#define N_MARKS			(N_STATUS_MARKS + N_SECTIONS)
#define NO_MARK			PG_INT64_MIN

/*
 * The mark of a section that no kept payload decides, if the payloads of other
 * events were not kept.  piece_replace keeps the stored values of the section.
 */
#define UNKNOWN_MARK	(NO_MARK + 1)

/*
 * Return the mark of an event.  If two events have the same time, the event whose
 * status comes later in the enum counts as the later event.
 */
static inline int64
make_mark(TimestampTz time, MailStatus status)
{
	return time * 16 + status;
}

extern Relation open_pieces(LOCKMODE mode);
extern bool piece_has_reached(TupleTableSlot *piece, uint16 statuses);
extern void piece_set_marks(Row row, const int64 *marks);
extern bool piece_merge(Datum *values, bool *nulls, const Datum *stored, const bool *stored_nulls);
extern bool piece_replace(Datum *values, bool *nulls, const Datum *stored, const bool *stored_nulls);

#endif							/* POSTALYTICS_PIECE_H */
