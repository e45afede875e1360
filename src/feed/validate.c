/*
 * validate.c
 *		Validates an event: determines its piece, account, status and times
 *		from its fields, or the reason to reject the event.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include <limits.h>

#include "feed/status_name.h"
#include "feed/timestamp.h"
#include "feed/validate.h"
#include "feed/value.h"
#include "mb/pg_wchar.h"
#include "utils/datetime.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define CANNOT_HOLD		"contains a character that the database cannot store"

/*
 * Return what is wrong with the text of a field, or NULL if the text is valid.  The
 * caller puts the name of the field before it.  max_fields is the maximum length of
 * FIELDS.
 */
static const char *
check_text(const EventRecord *record, Field field, uint32 max_fields)
{
	uint32		max_length = field == FIELDS ? max_fields : field_info[field].max_length;
	int			length;
	const char *value = event_field(record, field, &length);

	if (value == NULL)
		return length == 0 ? NULL : CANNOT_HOLD;
	if ((uint32) length > max_length)
		return psprintf("is longer than %u bytes", max_length);
	if (field == FIELDS && !is_jsonb(value, length))
		return "contains a character, number or nesting that jsonb cannot store";
	return NULL;
}

/* Remove a field whose text is invalid. */
static void
drop_if_invalid(EventRecord *record, Field field)
{
	if (!event_has(record, field) || check_text(record, field, UINT_MAX) == NULL)
		return;
	record->field[field].length = 0;
	if (field == FIELDS)
		record->collected = NULL;
}

/* Quote a value for a message.  A long value is shortened. */
static const char *
quoted(const char *value, int length)
{
	int			shown = pg_mbcliplen(value, length, 60);

	return psprintf("\"%.*s%s\"", shown, value, shown < length ? "..." : "");
}

/* True for the year 1, which .NET uses for "no date". */
static inline bool
is_no_date(TimestampTz time)
{
	return time < (date2j(2, 1, 1) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY;
}

/*
 * Read the expected delivery date, which is in the given time zone unless it
 * has a UTC offset.  A date that cannot be read is left out.
 */
static void
read_expected_date(EventRecord *record, pg_tz *zone)
{
	int			length;
	const char *value = event_field(record, EXPECTED_DELIVERY_DATE, &length);

	if (value == NULL || !parse_timestamp(value, length, zone, &record->expected_at) ||
		is_no_date(record->expected_at))
		record->expected_at = DT_NOBEGIN;
}

/* Read the time of the event.  Returns the reason to reject it, or NULL. */
static const char *
read_time(EventRecord *record, const EventBatch *batch)
{
	int			length;
	const char *value = event_field(record, EVENT_DATE, &length);
	TimestampTz *time = &record->key.occurred_at;

	if (value == NULL)
		return "missing event date";
	if (!parse_timestamp(value, length, batch->settings.feed_time_zone, time))
		return psprintf("invalid timestamp: %s", quoted(value, length));
	if (batch->settings.whole_seconds)
		*time -= (*time % USECS_PER_SEC + USECS_PER_SEC) % USECS_PER_SEC;
	if (*time < batch->earliest)
		return psprintf("event date %s is further in the past than setting \"earliest\" allows",
						quoted(value, length));
	if (*time > batch->latest)
		return psprintf("event date %s is further in the future than setting \"latest\" allows",
						quoted(value, length));
	return NULL;
}

/*
 * Read the status, or the other meaning of the event type.  Returns the reason
 * to reject the event, or NULL.
 */
static const char *
read_status(EventRecord *record, const EventBatch *batch)
{
	int			length;
	const char *value = event_field(record, EVENT_TYPE, &length);
	int			status;

	if (value == NULL)
		return "missing event type";
	status = find_meaning(batch->status_names, value, length);
	if (status == NO_STATUS)
		return psprintf("unknown status %s", quoted(value, length));
	record->key.status = status;
	return NULL;
}

/*
 * True if the type of an event has a known meaning.  If so, stores the meaning in
 * the key of the record.
 */
bool
has_known_type(EventRecord *record, const EventBatch *batch)
{
	return record->field[EVENT_TYPE].length > 0 && read_status(record, batch) == NULL;
}

/* True if status_names says to ignore events of this type. */
bool
is_ignored_event(EventRecord *record, const EventBatch *batch)
{
	return has_known_type(record, batch) && record->key.status == IGNORED_EVENT;
}

/*
 * Determine the piece, which is the mail id or campaign/contact.  If the event has
 * both, setting identity decides.  Allocates in the batch's memory context.
 * Returns the reason to reject the event, or NULL.
 */
static const char *
read_piece(EventRecord *record, const EventBatch *batch)
{
	const Span *field = record->field;
	EventKey   *key = &record->key;
	bool		contact_known = field[CAMPAIGN_ID].length > 0 && field[CONTACT_ID].length > 0;
	bool		mail_known = field[MAIL_ID].length > 0;
	int			length;
	int			contact_length;
	const char *id;
	const char *contact;
	char	   *joined;

	if (mail_known && !(contact_known && batch->settings.identity == IDENTITY_CONTACT))
	{
		MemoryContext scratch = MemoryContextSwitchTo(batch->context);

		key->piece = event_field(record, MAIL_ID, &length);
		key->piece_length = length;
		MemoryContextSwitchTo(scratch);
		return NULL;
	}
	if (!contact_known)
		return "missing mail id, or campaign and contact id";

	id = event_field(record, CAMPAIGN_ID, &length);
	contact = event_field(record, CONTACT_ID, &contact_length);
	joined = MemoryContextAlloc(batch->context, length + 1 + contact_length);
	memcpy(joined, id, length);
	joined[length] = '/';
	memcpy(joined + length + 1, contact, contact_length);
	key->piece = joined;
	key->piece_length = length + 1 + contact_length;
	return NULL;
}

/*
 * Determine the account.  It is the account that a row of field_names finds in
 * the payload or, if there is none, the account of the source.  Allocates in the
 * batch's memory context.  Returns the reason to reject the event, or NULL.
 */
static const char *
read_account(EventRecord *record, const EventBatch *batch)
{
	MemoryContext scratch = MemoryContextSwitchTo(batch->context);
	EventKey   *key = &record->key;
	int			length;

	key->account = event_field(record, ACCOUNT, &length);
	MemoryContextSwitchTo(scratch);
	if (key->account == NULL)
	{
		key->account = record->source->account;
		length = strlen(key->account);
	}
	if ((uint32) length > field_info[ACCOUNT].max_length)
		return psprintf("account is longer than %u bytes", field_info[ACCOUNT].max_length);
	key->account_length = length;
	return NULL;
}

/*
 * Set the campaign to the drop if the event names only the drop.  See
 * names_campaign in journey.c.
 */
static void
default_campaign_to_drop(EventRecord *record)
{
	if (record->field[CAMPAIGN_ID].length > 0 || record->field[DROP_ID].length == 0)
		return;
	record->field[CAMPAIGN_ID] = record->field[DROP_ID];
	if (record->escaped & (1 << DROP_ID))
		record->escaped |= 1 << CAMPAIGN_ID;
	else
		record->escaped &= ~(1 << CAMPAIGN_ID);
}

/* Remove ids that are blank once their escapes are decoded. */
static void
drop_blank_ids(EventRecord *record)
{
	for (int i = 0; i < N_FIELDS; i++)
	{
		int			length;

		if (is_id(i) && record->field[i].length > 0 && (record->escaped & (1 << i)) &&
			event_field(record, i, &length) != NULL && length == 0)
			record->field[i].length = 0;
	}
}

/* Fields that are left out if they are invalid, without rejecting the event. */
static const Field dispensable[] = {EXPECTED_DELIVERY_DATE, CITY, STATE};

/*
 * Determine the piece, account, status and times of an event.  misplaced has a
 * bit for each required field whose value is neither a string nor a number.
 * Returns the reason to reject the event, or NULL.
 */
const char *
validate_event(EventRecord *record, uint32 misplaced, const EventBatch *batch)
{
	const char *wrong;

	if (record->source->account_is_fixed)
		record->field[ACCOUNT].length = 0;
	drop_blank_ids(record);
	for (int i = 0; i < lengthof(dispensable); i++)
		drop_if_invalid(record, dispensable[i]);
	default_campaign_to_drop(record);
	for (int i = 0; i < N_FIELDS; i++)
	{
		if (!event_has(record, i))
		{
			if (misplaced & (1 << i))
				return psprintf("%s must be a string or a number", field_info[i].name);
		}
		else if ((wrong = check_text(record, i, batch->settings.max_fields_size)) != NULL)
			return psprintf("%s %s", field_info[i].name, wrong);
	}
	if (!is_readable(record->source->json + record->payload.offset, record->payload.length))
		return "payload " CANNOT_HOLD;
	if ((wrong = read_piece(record, batch)) != NULL ||
		(wrong = read_account(record, batch)) != NULL ||
		(wrong = read_status(record, batch)) != NULL ||
		(wrong = read_time(record, batch)) != NULL)
		return wrong;
	read_expected_date(record, batch->settings.feed_time_zone);
	return NULL;
}

/* Return the piece of a rejected event, or NULL if the piece cannot be read. */
const char *
readable_piece(EventRecord *record, const EventBatch *batch)
{
	static const Field ids[] = {MAIL_ID, CAMPAIGN_ID, DROP_ID, CONTACT_ID};

	for (int i = 0; i < lengthof(ids); i++)
		drop_if_invalid(record, ids[i]);
	default_campaign_to_drop(record);
	if (read_piece(record, batch) != NULL)
		return NULL;
	return pnstrdup(record->key.piece, record->key.piece_length);
}

/*
 * Return the account that a rejected event names.  Returns NULL if the event
 * names none, or if the account is ignored or cannot be read.
 */
const char *
readable_account(EventRecord *record)
{
	int			length;
	const char *account;

	drop_if_invalid(record, ACCOUNT);
	account = event_field(record, ACCOUNT, &length);
	return account == NULL ? NULL : pnstrdup(account, length);
}

/*
 * Remove the invalid fields of a stored event, and read its expected delivery
 * date.  Fields can be invalid because the configuration has changed since the
 * event was stored.  FIELDS can have any length, because the length was accepted
 * when the event was stored.
 */
void
drop_invalid_fields(EventRecord *record)
{
	for (int i = 0; i < N_FIELDS; i++)
		drop_if_invalid(record, i);
	drop_blank_ids(record);
	default_campaign_to_drop(record);
	read_expected_date(record, current_settings()->feed_time_zone);
}
