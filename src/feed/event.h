/*
 * event.h
 *		One event of the feed, as it was read from JSON.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_EVENT_H
#define POSTALYTICS_EVENT_H

#include "datatype/timestamp.h"
#include "feed/field_name.h"
#include "lifecycle/lifecycle.h"

/* A part of the text of an EventSource.  Length 0 means that there is no value. */
typedef struct Span
{
	uint32		offset;
	uint32		length;
} Span;

/*
 * A JSON text from which events are read.  The events refer to parts of the text
 * by their offsets.
 */
typedef struct EventSource
{
	const char *json;
	uint32		length;
	const char *account;		/* specified by the caller; '' if none */
	bool		account_is_fixed;	/* accounts in payloads are ignored */
	int64		number;			/* position in the order of arrival */
	int64		accepted;		/* number of accepted events */
	int64		rejected;		/* number of rejected events */
	bool		folded;			/* all rejects are stored as a single one */
	const char *first_reason;	/* reason of the first reject, if folded */
} EventSource;

/*
 * Return a source that contains a single event.  Its account is left empty,
 * because the callers already know the account or do not need it.
 */
static inline EventSource
source_of_event(const char *json, uint32 length)
{
	EventSource source = {.json = json,.length = length,.account = ""};

	return source;
}

/*
 * A scalar that is collected into FIELDS, where it becomes a member with this
 * name.
 */
typedef struct Collected
{
	const char *name;
	Span		value;			/* as JSON */
	struct Collected *next;
} Collected;

/*
 * The key that identifies an event.  The texts are not null-terminated.
 */
typedef struct EventKey
{
	const char *piece;
	const char *account;
	TimestampTz occurred_at;
	uint32		piece_length;
	uint32		account_length;
	uint8		status;			/* a MailStatus, or a value of the enum in
								 * status_name.h */
} EventKey;

/*
 * An event.  A call can have hundreds of thousands of events, so the struct is
 * small.  Fields are stored as offsets in the source, and event_field returns the
 * text of a field when it is needed.
 */
typedef struct EventRecord
{
	EventSource *source;
	EventKey	key;
	TimestampTz expected_at;	/* DT_NOBEGIN if unknown */
	Span		payload;
	Span		field[N_FIELDS];
	uint32		escaped;		/* a bit for each field whose text must be
								 * converted */
	Collected  *collected;		/* in the order in which they were read */
	Collected  *last_collected;
} EventRecord;

/* True for a field that is an id.  Whitespace around ids is ignored. */
static inline bool
is_id(int field)
{
	return field == MAIL_ID || field == CAMPAIGN_ID || field == DROP_ID || field == CONTACT_ID ||
		field == ACCOUNT;
}

/* True if an event has a value for a field. */
static inline bool
event_has(const EventRecord *record, Field field)
{
	return record->field[field].length > 0 || (field == FIELDS && record->collected != NULL);
}

/*
 * True if an event names a campaign itself.  If the event names only a drop,
 * CAMPAIGN_ID has the same span as DROP_ID; see default_campaign_to_drop.
 */
static inline bool
event_names_campaign(const EventRecord *record)
{
	return record->field[CAMPAIGN_ID].length > 0 &&
		record->field[CAMPAIGN_ID].offset != record->field[DROP_ID].offset;
}

extern const char *event_field(const EventRecord *record, Field field, int *length);
extern Datum event_field_text(const EventRecord *record, Field field);
extern Datum span_text(const EventSource *source, Span span);
extern Datum span_json(const EventSource *source, Span span);
extern int	piece_compare(const EventKey *a, const EventKey *b);
extern int	event_compare(const EventKey *a, const EventKey *b);

#endif							/* POSTALYTICS_EVENT_H */
