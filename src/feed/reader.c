/*
 * reader.c
 *		Reads JSON into event records, in one pass, with the server's lexer.
 *
 * The text is a value of type json, so its syntax has been checked.  Here an
 * object becomes an event, or a wrapper around other events, or a reject.
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/text.h"
#include "feed/reader.h"
#include "feed/validate.h"
#include "feed/value.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"

typedef struct Reader
{
	EventBatch *batch;
	EventSource *source;
	FieldNames *names;
	JsonLexContext *lex;		/* positioned at the token to read next */
	int			depth;			/* of the objects and arrays that are being
								 * read */
	char		path[MAX_PATH]; /* text of the current Path */
} Reader;

/* An object that is an event or a wrapper around events. */
typedef struct Candidate
{
	EventRecord record;
	Span	   *details;		/* for the fields from N_FIELDS on, or NULL */
	uint32		misplaced;		/* a bit for each required field that is
								 * neither text nor number */
	bool		wraps;			/* it contains events */
	int64		nrecords;		/* what the batch held before them, as the
								 * following */
	int64		nrejects;
	int64		nrejected;
	int64		accepted;
	int64		rejected;
} Candidate;

/*
 * Maximum nesting depth: deeper sections are ignored, and deeper events are
 * rejected.  check_stack_depth() alone would let rejects be stored that a
 * session with less stack left cannot read again.
 */
#define MAX_DEPTH	100

/* Number of events between two progress reports. */
#define PROGRESS_INTERVAL	1024

static void read_events(Reader *reader);
static void read_members(Reader *reader, Candidate *candidate, Path section);

static inline JsonTokenType
token(const Reader *reader)
{
	return reader->lex->token_type;
}

static inline void
advance(Reader *reader)
{
	if (unlikely(json_lex(reader->lex) != JSON_SUCCESS))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid input syntax for type json")));
}

static inline uint32
token_offset(const Reader *reader)
{
	return reader->lex->token_start - reader->source->json;
}

/* Return where the token before the current one ended. */
static inline uint32
previous_end(const Reader *reader)
{
	return reader->lex->prev_token_terminator - reader->source->json;
}

static inline bool
at_container(const Reader *reader)
{
	return token(reader) == JSON_TOKEN_OBJECT_START ||
		token(reader) == JSON_TOKEN_ARRAY_START;
}

/* True at a string, a number or null, which a field can be. */
static inline bool
at_text(const Reader *reader)
{
	return token(reader) == JSON_TOKEN_STRING ||
		token(reader) == JSON_TOKEN_NUMBER ||
		token(reader) == JSON_TOKEN_NULL;
}

static inline bool
at_boolean(const Reader *reader)
{
	return token(reader) == JSON_TOKEN_TRUE || token(reader) == JSON_TOKEN_FALSE;
}

/* Skip a value, at any depth of nesting. */
static void
skip_value(Reader *reader)
{
	int			depth = 0;

	do
	{
		if (at_container(reader))
			depth++;
		else if (token(reader) == JSON_TOKEN_OBJECT_END ||
				 token(reader) == JSON_TOKEN_ARRAY_END)
			depth--;
		advance(reader);
	} while (depth > 0);
}

/* Skip a value, and return its position. */
static Span
span_value(Reader *reader)
{
	Span		span;

	span.offset = token_offset(reader);
	skip_value(reader);
	span.length = previous_end(reader) - span.offset;
	return span;
}

/* Read a field's text or number.  null and '' are treated as absent. */
static void
read_scalar(Reader *reader, Candidate *candidate, Field field)
{
	EventRecord *record = &candidate->record;
	JsonLexContext *lex = reader->lex;
	Span		span = {token_offset(reader), lex->token_terminator - lex->token_start};
	const char *value = lex->token_start;
	bool		converted = false;	/* event_field must build the value */

	if (token(reader) == JSON_TOKEN_STRING)
	{
		int			length = span.length - 2;

		value++;
		converted = memchr(value, '\\', length) != NULL;
		if (!converted && is_id(field))
			value = trim(value, &length);
		span.offset = value - reader->source->json;
		span.length = length;
	}
	else if (token(reader) == JSON_TOKEN_NULL)
		span.length = 0;
	else if (token(reader) == JSON_TOKEN_NUMBER && is_id(field))
		converted = !is_plain_number(value, span.length);
	advance(reader);
	if (span.length == 0 || field == FIELDS)
		return;
	if (field >= N_FIELDS)
	{
		candidate->details[field - N_FIELDS] = span;
		return;
	}
	record->field[field] = span;
	if (converted)
		record->escaped |= 1 << field;
	else
		record->escaped &= ~(1 << field);
}

/* Read a known member, or a section that may hold some. */
static void
read_member(Reader *reader, Candidate *candidate, Path path, int field)
{
	bool		is_detail = field >= N_FIELDS && field != WRAPPER;
	bool		is_wanted = field >= 0 && (field < N_FIELDS || (is_detail && candidate->details != NULL));

	if (at_text(reader) || (at_boolean(reader) && is_detail))
	{
		if (is_wanted)
			read_scalar(reader, candidate, field);
		else
			advance(reader);
		return;
	}
	if (field == FIELDS && at_container(reader))
	{
		Span		span = span_value(reader);

		/* Treat an empty container as absent. */
		if (!is_empty_container(reader->source->json + span.offset, span.length))
			candidate->record.field[FIELDS] = span;
		return;
	}
	if (field == MAIL_ID || field == EVENT_TYPE || field == EVENT_DATE)
		candidate->misplaced |= 1 << field;
	if (token(reader) == JSON_TOKEN_OBJECT_START && path.length < MAX_PATH && reader->depth < MAX_DEPTH)
		read_members(reader, candidate, path);
	else
		skip_value(reader);
}

/* Read the events under data, events or items. */
static void
read_wrapped(Reader *reader, Candidate *candidate)
{
	if (!candidate->wraps)
	{
		candidate->wraps = true;
		candidate->nrecords = reader->batch->nrecords;
		candidate->nrejects = reader->batch->nrejects;
		candidate->nrejected = reader->batch->nrejected;
		candidate->accepted = reader->source->accepted;
		candidate->rejected = reader->source->rejected;
	}
	read_events(reader);
}

static inline bool
has_field(const Candidate *candidate, Field field)
{
	return candidate->record.field[field].length > 0 ||
		(candidate->misplaced & (1 << field)) != 0;
}

/* True if the object identifies a piece, which only events do. */
static inline bool
is_event(const Candidate *candidate)
{
	return has_field(candidate, MAIL_ID) ||
		(has_field(candidate, CAMPAIGN_ID) && has_field(candidate, CONTACT_ID));
}

/*
 * True if the object is only a wrapper around other events.  A wrapper can
 * have an event date or type of its own.  An object that has both and contains
 * no valid event is itself an event, whose data only looks like a list of
 * events.  An object that has one of them is a wrapper if it contains rejected
 * events.
 */
static inline bool
is_wrapper(const Candidate *candidate, const EventBatch *batch)
{
	int			own = has_field(candidate, EVENT_DATE) + has_field(candidate, EVENT_TYPE);

	if (!candidate->wraps || is_event(candidate))
		return false;
	return batch->nrecords > candidate->nrecords || own == 0 ||
		(own == 1 && batch->nrejected > candidate->nrejected);
}

/* Return the path of the member whose name is the current token. */
static Path
member_path(Reader *reader, Path section)
{
	static const Path too_long = {0, MAX_PATH};
	const char *name = reader->lex->token_start + 1;
	int			length = reader->lex->token_terminator - name - 1;

	if (memchr(name, '\\', length) != NULL)
	{
		name = unescape(name, length, &length);
		if (name == NULL)
			return too_long;
	}
	return path_append(section, reader->path, name, length);
}

/* Read an object's members, of an event itself or of one of its sections. */
static void
read_members(Reader *reader, Candidate *candidate, Path section)
{
	check_stack_depth();
	reader->depth++;
	advance(reader);			/* { */
	while (token(reader) != JSON_TOKEN_OBJECT_END)
	{
		Path		path = member_path(reader, section);
		int			field = field_find(reader->names, reader->path, path);

		advance(reader);		/* the name */
		advance(reader);		/* : */
		if (field == WRAPPER && at_container(reader) && reader->batch != NULL &&
			section.length == 0 && !is_event(candidate))
			read_wrapped(reader, candidate);
		else
			read_member(reader, candidate, path, field);
		if (token(reader) == JSON_TOKEN_COMMA)
			advance(reader);
	}
	advance(reader);			/* } */
	reader->depth--;
}

/*
 * Add the event or reject that an object turned out to be.  A wrapper adds
 * nothing.
 */
static void
add_candidate(Reader *reader, Candidate *candidate)
{
	EventBatch *batch = reader->batch;
	MemoryContext caller;
	const char *wrong;

	if (is_wrapper(candidate, batch))
	{
		/*
		 * A single rejected element may be the data of an event, so keep the
		 * whole object.
		 */
		if (batch->nrecords == candidate->nrecords && batch->nrejected == candidate->nrejected + 1 &&
			batch->nrejects == candidate->nrejects + 1)
			batch->rejects[candidate->nrejects].payload = candidate->record.payload;
		return;
	}
	if (candidate->wraps)
	{
		/* It is an event, and what it contains is part of its payload. */
		batch->nrecords = candidate->nrecords;
		batch->nrejects = candidate->nrejects;
		batch->nrejected = candidate->nrejected;
		reader->source->accepted = candidate->accepted;
		reader->source->rejected = candidate->rejected;
	}

	caller = MemoryContextSwitchTo(batch->scratch);
	wrong = validate_event(&candidate->record, candidate->misplaced, batch);
	if (wrong == NULL && !call_add_campaign(batch->call, &candidate->record, batch->settings.max_campaigns))
		wrong = psprintf("the call names more campaigns than setting \"max_campaigns\" allows (%d)",
						 batch->settings.max_campaigns);
	if (wrong == NULL)
		event_batch_add(batch, &candidate->record);
	else
		event_batch_add_reject(batch, reader->source, candidate->record.payload,
							   readable_piece(&candidate->record, batch),
							   readable_account(&candidate->record), wrong);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(batch->scratch);

	if (batch->progress != NULL && batch->nrecords % PROGRESS_INTERVAL == 0)
		batch->progress(previous_end(reader));
	CHECK_FOR_INTERRUPTS();
}

static void
read_object(Reader *reader)
{
	Candidate	candidate;

	memset(&candidate, 0, sizeof(candidate));
	candidate.record.source = reader->source;
	candidate.record.payload.offset = token_offset(reader);
	read_members(reader, &candidate, path_begin());
	candidate.record.payload.length =
		previous_end(reader) - candidate.record.payload.offset;
	add_candidate(reader, &candidate);
}

/* Read one event.  Anything but an object is rejected. */
static void
read_event(Reader *reader)
{
	const char *wrong = "not an object";

	if (token(reader) == JSON_TOKEN_OBJECT_START && reader->depth < MAX_DEPTH)
	{
		read_object(reader);
		return;
	}
	if (token(reader) == JSON_TOKEN_OBJECT_START)
		wrong = psprintf("nested more than %d levels deep", MAX_DEPTH);
	event_batch_add_reject(reader->batch, reader->source, span_value(reader), NULL, NULL, wrong);
}

/* Read one event, or an array of them. */
static void
read_events(Reader *reader)
{
	check_stack_depth();
	if (token(reader) != JSON_TOKEN_ARRAY_START)
	{
		read_event(reader);
		return;
	}
	advance(reader);			/* [ */
	reader->depth++;
	while (token(reader) != JSON_TOKEN_ARRAY_END)
	{
		read_event(reader);
		if (token(reader) == JSON_TOKEN_COMMA)
			advance(reader);
	}
	advance(reader);			/* ] */
	reader->depth--;
}

/*
 * Read a json value's events into the batch.  json, which is in the server's
 * encoding, and the account must live as long as the batch.  Errors:
 * 54001 for nesting deeper than the stack.
 */
EventSource *
event_batch_read(EventBatch *batch, const char *json, uint32 length,
				 const EventAccount *account)
{
	MemoryContext caller = MemoryContextSwitchTo(batch->context);
	EventSource *source = palloc0(sizeof(EventSource));
	Reader		reader;

	source->json = json;
	source->length = length;
	source->account = account->name;
	source->account_is_fixed = account->is_fixed;
	source->number = batch->nsources++;

	reader.batch = batch;
	reader.source = source;
	reader.names = field_names();
	reader.lex = compat_json_lexer(json, length, GetDatabaseEncoding(), false);
	reader.depth = 0;
	advance(&reader);
	read_events(&reader);

	MemoryContextSwitchTo(caller);
	return source;
}

/*
 * Read the fields of a stored payload; piece, status and time come from the
 * caller.  Invalid fields are left out.  details, if not NULL, is an array of
 * N_ALL_FIELDS - N_FIELDS for the fields that only reports read.  Returns
 * false if the payload is not an object.  Allocates in the current memory
 * context.
 */
bool
event_read_details(EventRecord *record, EventSource *source, Span *details)
{
	Candidate	candidate;
	Reader		reader;

	reader.batch = NULL;
	reader.source = source;
	reader.names = field_names();
	reader.lex = compat_json_lexer(source->json, source->length,
								   GetDatabaseEncoding(), false);
	reader.depth = 0;
	advance(&reader);
	if (token(&reader) != JSON_TOKEN_OBJECT_START)
		return false;

	memset(&candidate, 0, sizeof(candidate));
	candidate.record.source = source;
	candidate.details = details;
	read_members(&reader, &candidate, path_begin());
	*record = candidate.record;
	drop_invalid_fields(record);
	return true;
}

/* Likewise, without the fields that only reports read. */
bool
event_read_fields(EventRecord *record, EventSource *source)
{
	return event_read_details(record, source, NULL);
}
