/*
 * event.h
 *		One event of the feed, as it was read from JSON.
 */
#ifndef POSTALYTICS_EVENT_H
#define POSTALYTICS_EVENT_H

#include "datatype/timestamp.h"
#include "feed/field_name.h"
#include "lifecycle/lifecycle.h"

/* A part of a source's text.  An empty span means that there is no value. */
typedef struct Span
{
	uint32		offset;
	uint32		length;
} Span;

/* A text from which events are read, and into which they point. */
typedef struct EventSource
{
	const char *json;
	uint32		length;
	const char *account;		/* of its events; '' if unknown */
	bool		account_is_fixed;	/* accounts in payloads are ignored */
	int64		number;			/* in order of arrival */
	int64		accepted;		/* number of its accepted events */
	int64		rejected;		/* number of its rejected events */
	bool		folded;			/* its rejects are stored as one */
	const char *first_reason;	/* of its rejects, if folded */
} EventSource;

/* Return the source of a single event, whose account its reader knows. */
static inline EventSource
event_source(const char *json, uint32 length)
{
	EventSource source = {.json = json,.length = length,.account = ""};

	return source;
}

/* A scalar that is collected into FIELDS. */
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
	uint8		status;			/* or another meaning in status_name.h */
} EventKey;

/*
 * An event.  The struct is small, because a call can have hundreds of
 * thousands of them: fields are copied out of the source only when they are
 * needed.
 */
typedef struct EventRecord
{
	EventSource *source;
	EventKey	key;
	TimestampTz expected_at;	/* DT_NOBEGIN if unknown */
	Span		payload;
	Span		field[N_FIELDS];
	uint32		escaped;		/* a bit per field whose text must be
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

/* True if an event names a campaign itself, and not only a drop. */
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
