/*
 * reader.c
 *		Reads JSON into event records, in one pass, with the server's lexer.
 *
 * The text is a value of type json, so its syntax has been checked.  Each object
 * that is read as an event becomes an event, a reject, or a wrapper.  A wrapper is
 * an object that contains events under data, events or items.  A section is an
 * object nested in an event, whose members are read like those of the event.  For
 * example, the object under "to" in {"to": {"city": "Salem"}} is a section.
 *
 * Copyright (c) 2026, the postalytics_status developers
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

/* A path whose spelling has this many bytes or more matches no prefix. */
#define MAX_SPELLED	256

typedef struct Reader
{
	EventBatch *batch;
	EventSource *source;
	const FieldNames *names;
	JsonLexContext *lex;		/* positioned at the token to read next */
	int			depth;			/* nesting depth of the current token */
	char		path[MAX_PATH]; /* text of the current Path */
	char		spelled[MAX_SPELLED];	/* the path as spelled in the payload,
										 * if there are prefixes */
} Reader;

/* A member, which can be a section, or the event itself. */
typedef struct Member
{
	Path		path;
	int			spelled;		/* length of the path in Reader.spelled;
								 * MAX_SPELLED if it is too long */
	bool		is_event;		/* true for the event itself */
} Member;

/* An object that is an event or a wrapper around events. */
typedef struct Candidate
{
	EventRecord record;
	int			rank[N_ALL_FIELDS]; /* rank of the name under which each field
									 * was read */
	Span	   *details;		/* fields from N_FIELDS on; NULL if not needed */
	uint32		misplaced;		/* a bit for each required field whose value
								 * is neither string nor number */
	bool		wraps;			/* the object has a member that can contain
								 * events */
	/* counts in the batch and source before the first such member was read */
	int64		nrecords;
	int64		nerrors;
	int64		nrejects;
	int64		nrejected;
	int64		nignored;
	int64		accepted;
	int64		rejected;
} Candidate;

/*
 * Maximum nesting depth: deeper sections are ignored, and deeper events are
 * rejected.  With check_stack_depth() alone, rejects could be stored that a
 * session with less stack left cannot read again.
 */
#define MAX_DEPTH	100

/* Number of events between two progress reports. */
#define PROGRESS_INTERVAL	1024

static void read_events(Reader *reader);
static void read_members(Reader *reader, Candidate *candidate, Member section);

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

/* Return the offset of the end of the previous token. */
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

/* True if the current token is a string, a number or null. */
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

/* Skip a value, including everything nested in it. */
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

/* Skip a value, and return its span. */
static Span
span_value(Reader *reader)
{
	Span		span;

	span.offset = token_offset(reader);
	skip_value(reader);
	span.length = previous_end(reader) - span.offset;
	return span;
}

/*
 * True if the value under this name takes precedence over the value of the same
 * field that was read before.  If so, records the rank of the name.
 */
static inline bool
takes_precedence(Candidate *candidate, const FieldName *name)
{
	if (name->rank > candidate->rank[name->field])
		return false;
	candidate->rank[name->field] = name->rank;
	return true;
}

/* Read the scalar value of a field.  null and "" are treated as absent. */
static void
read_scalar(Reader *reader, Candidate *candidate, const FieldName *name)
{
	Field		field = name->field;
	EventRecord *record = &candidate->record;
	JsonLexContext *lex = reader->lex;
	Span		span = {token_offset(reader), lex->token_terminator - lex->token_start};
	const char *value = lex->token_start;
	bool		converted = false;	/* must event_field convert the text? */

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
	if (span.length == 0 || field == FIELDS || !takes_precedence(candidate, name))
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

/*
 * If the field is required, record that its value is neither a string nor a
 * number.
 */
static inline void
record_misplaced(Candidate *candidate, int field)
{
	if (field == MAIL_ID || field == EVENT_TYPE || field == EVENT_DATE)
		candidate->misplaced |= 1 << field;
}

/* Collect a scalar into FIELDS.  null and "" are treated as absent. */
static void
collect(Reader *reader, Candidate *candidate, const char *name)
{
	EventRecord *record = &candidate->record;
	JsonLexContext *lex = reader->lex;
	Span		value = {token_offset(reader), lex->token_terminator - lex->token_start};
	bool		absent = token(reader) == JSON_TOKEN_NULL ||
	(token(reader) == JSON_TOKEN_STRING && value.length == 2);
	Collected  *collected;

	advance(reader);
	if (absent)
		return;
	collected = palloc(sizeof(Collected));
	*collected = (Collected)
	{
		name, value, NULL
	};
	if (record->collected == NULL)
		record->collected = collected;
	else
		record->last_collected->next = collected;
	record->last_collected = collected;
}

/*
 * Return the part of a member's path after a prefix, as spelled in the payload.
 * prefix is the length of the prefix without ignored characters.
 */
static const char *
rest_of_name(const Reader *reader, Member member, int prefix)
{
	int			i = 0;

	for (int n = 0; i < member.spelled && (n < prefix || is_ignored_in_name(reader->spelled[i])); i++)
		n += !is_ignored_in_name(reader->spelled[i]);
	return pnstrdup(reader->spelled + i, member.spelled - i);
}

/*
 * Read a scalar if the member is a known field or is to be collected.  Otherwise
 * skip the scalar.
 */
static void
read_value(Reader *reader, Candidate *candidate, Member member, const FieldName *name)
{
	int			field = name == NULL ? -1 : name->field;

	if (field == COLLECTED)
		collect(reader, candidate, name->member);
	else if (field >= 0 && field < N_FIELDS && !at_text(reader))
	{
		record_misplaced(candidate, field);
		advance(reader);
	}
	else if (field == WRAPPER || (field >= N_FIELDS && candidate->details == NULL))
		advance(reader);
	else if (field >= 0)
		read_scalar(reader, candidate, name);
	else
	{
		int			prefix = member.spelled == MAX_SPELLED ? -1 :
		field_prefix(reader->names, reader->path, member.path);

		if (prefix >= 0)
			collect(reader, candidate, rest_of_name(reader, member, prefix));
		else
			advance(reader);
	}
}

/* Read a member.  If it is a section, read the members in it. */
static void
read_member(Reader *reader, Candidate *candidate, Member member, const FieldName *name)
{
	int			field = name == NULL ? -1 : name->field;

	if (at_text(reader) || at_boolean(reader))
	{
		read_value(reader, candidate, member, name);
		return;
	}
	if (field == FIELDS && at_container(reader))
	{
		Span		span = span_value(reader);

		/* Treat an empty container as absent. */
		if (!is_empty_container(reader->source->json + span.offset, span.length) &&
			takes_precedence(candidate, name))
			candidate->record.field[FIELDS] = span;
		return;
	}
	record_misplaced(candidate, field);
	if (token(reader) == JSON_TOKEN_OBJECT_START && member.path.length < MAX_PATH && reader->depth < MAX_DEPTH)
		read_members(reader, candidate, member);
	else
		skip_value(reader);
}

static inline bool
has_field(const Candidate *candidate, Field field)
{
	return candidate->record.field[field].length > 0 ||
		(candidate->misplaced & (1 << field)) != 0;
}

/* True if the object identifies a piece.  Such an object is always an event. */
static inline bool
identifies_piece(const Candidate *candidate)
{
	return has_field(candidate, MAIL_ID) ||
		((has_field(candidate, CAMPAIGN_ID) || has_field(candidate, DROP_ID)) &&
		 has_field(candidate, CONTACT_ID));
}

/*
 * Read the events under data, events or items.  Skip the value if the object is
 * known to be an event, or if a stored event is being read again.  The value is
 * never read as a section, because the result would then depend on the order of
 * the members.
 */
static void
read_wrapped(Reader *reader, Candidate *candidate)
{
	if (reader->batch == NULL || identifies_piece(candidate))
	{
		skip_value(reader);
		return;
	}
	if (!candidate->wraps)
	{
		candidate->wraps = true;
		candidate->nrecords = reader->batch->nrecords;
		candidate->nerrors = reader->batch->nerrors;
		candidate->nrejects = reader->batch->nrejects;
		candidate->nrejected = reader->batch->nrejected;
		candidate->nignored = reader->batch->nignored;
		candidate->accepted = reader->source->accepted;
		candidate->rejected = reader->source->rejected;
	}
	read_events(reader);
}

/*
 * True if the object is only a wrapper around other events.  A wrapper has a member
 * that can contain events, and does not identify a piece.  Such an object is a
 * wrapper if it contains a valid event.  If it contains none, it can be an event
 * whose data only looks like a list of events.  Then the event date and event type
 * of the object itself decide:
 *
 * An object with neither is a wrapper.  An object with one of the two is a wrapper
 * if it contains rejected or ignored events.  An object with both is a wrapper only
 * if it contains ignored events and its own type is unknown.
 */
static inline bool
is_wrapper(Candidate *candidate, const EventBatch *batch)
{
	int			own = has_field(candidate, EVENT_DATE) + has_field(candidate, EVENT_TYPE);
	bool		has_ignored = batch->nignored > candidate->nignored;

	if (!candidate->wraps || identifies_piece(candidate))
		return false;
	return batch->nrecords > candidate->nrecords || own == 0 ||
		(has_ignored && !(own == 2 && has_known_type(&candidate->record, batch))) ||
		(own == 1 && batch->nrejected > candidate->nrejected);
}

/* Return the Member that stands for the event itself. */
static Member
no_section(void)
{
	return (Member)
	{
		path_begin(), 0, true
	};
}

/*
 * Append a name to the spelled path of a section, which has the given length.
 * Returns the length of the result, or MAX_SPELLED if it is too long.
 */
static int
append_spelled(Reader *reader, int section, const char *name, int length)
{
	int			start = section == 0 ? 0 : section + 1;

	if (start + length >= MAX_SPELLED)
		return MAX_SPELLED;
	if (section > 0)
		reader->spelled[section] = '.';
	memcpy(reader->spelled + start, name, length);
	return start + length;
}

/* Return the member whose name is the current token. */
static Member
next_member(Reader *reader, Member section)
{
	static const Member too_long = {{0, MAX_PATH}, MAX_SPELLED, false};
	const char *name = reader->lex->token_start + 1;
	int			length = reader->lex->token_terminator - name - 1;
	Member		member = {.spelled = 0};

	if (memchr(name, '\\', length) != NULL)
	{
		name = unescape(name, length, &length);
		if (name == NULL)
			return too_long;
	}
	member.path = path_append(section.path, reader->path, name, length);
	if (reader->names->nprefixes > 0)
		member.spelled = append_spelled(reader, section.spelled, name, length);
	return member;
}

/* Read the members of an event or of one of its sections. */
static void
read_members(Reader *reader, Candidate *candidate, Member section)
{
	check_stack_depth();
	reader->depth++;
	advance(reader);			/* { */
	while (token(reader) != JSON_TOKEN_OBJECT_END)
	{
		Member		member = next_member(reader, section);
		const FieldName *name = field_find(reader->names, reader->path, member.path);

		advance(reader);		/* the name */
		advance(reader);		/* : */
		if (name != NULL && name->field == WRAPPER && at_container(reader) && section.is_event)
			read_wrapped(reader, candidate);
		else
			read_member(reader, candidate, member, name);
		if (token(reader) == JSON_TOKEN_COMMA)
			advance(reader);
	}
	advance(reader);			/* } */
	reader->depth--;
}

/*
 * Add an object to the batch as an event or a reject.  For a wrapper or an
 * ignored event, add nothing.
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
		 * If the only element was rejected, the element may be the data of an
		 * event.  So keep the whole object as the payload of the reject.
		 */
		if (batch->nrecords == candidate->nrecords && batch->nrejected == candidate->nrejected + 1 &&
			batch->nrejects == candidate->nrejects + 1)
			batch->rejects[candidate->nrejects].payload = candidate->record.payload;
		return;
	}
	if (candidate->wraps)
	{
		/*
		 * The object is an event.  The events that were read from it are part
		 * of its payload, so remove them from the batch.
		 */
		batch->nrecords = candidate->nrecords;
		batch->nerrors = candidate->nerrors;
		batch->nrejects = candidate->nrejects;
		batch->nrejected = candidate->nrejected;
		batch->nignored = candidate->nignored;
		reader->source->accepted = candidate->accepted;
		reader->source->rejected = candidate->rejected;
	}

	caller = MemoryContextSwitchTo(batch->scratch);
	if (is_ignored_event(&candidate->record, batch))
	{
		batch->nignored++;
		MemoryContextSwitchTo(caller);
		MemoryContextReset(batch->scratch);
		return;
	}
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
begin_candidate(Candidate *candidate, EventSource *source, Span *details)
{
	memset(candidate, 0, sizeof(*candidate));
	for (int i = 0; i < N_ALL_FIELDS; i++)
		candidate->rank[i] = PG_INT32_MAX;
	candidate->record.source = source;
	candidate->details = details;
}

static void
read_object(Reader *reader)
{
	Candidate	candidate;

	begin_candidate(&candidate, reader->source, NULL);
	candidate.record.payload.offset = token_offset(reader);
	read_members(reader, &candidate, no_section());
	candidate.record.payload.length =
		previous_end(reader) - candidate.record.payload.offset;
	add_candidate(reader, &candidate);
}

/*
 * Read one event.  Reject a value that is not an object or is nested too deeply.
 */
static void
read_event(Reader *reader)
{
	const char *wrong = "event is not a JSON object";

	if (token(reader) == JSON_TOKEN_OBJECT_START && reader->depth < MAX_DEPTH)
	{
		read_object(reader);
		return;
	}
	if (token(reader) == JSON_TOKEN_OBJECT_START)
		wrong = psprintf("event is nested more than %d levels deep", MAX_DEPTH);
	event_batch_add_reject(reader->batch, reader->source, span_value(reader), NULL, NULL, wrong);
}

/* Read one event or an array of events. */
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
 * Read the events of a json value into the batch, and return their source.  json
 * is in the server encoding.  json and the name of the account must live as long
 * as the batch.  Errors: 54001 if the nesting exceeds the stack limit.
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
 * Read the fields of a stored payload.  The key of the record is not set, because
 * the caller knows the piece, status and time.  Invalid fields are left out.
 * details, if not NULL, is an array of N_ALL_FIELDS - N_FIELDS elements for the
 * fields from N_FIELDS on.  Returns false if the payload is not an object.
 * Allocates in the current memory context.
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

	begin_candidate(&candidate, source, details);
	read_members(&reader, &candidate, no_section());
	*record = candidate.record;
	drop_invalid_fields(record);
	return true;
}

/* As event_read_details, but without the fields from N_FIELDS on. */
bool
event_read_fields(EventRecord *record, EventSource *source)
{
	return event_read_details(record, source, NULL);
}
