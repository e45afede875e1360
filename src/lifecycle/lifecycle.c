/*
 * lifecycle.c
 *		The eleven statuses: their spellings, their partial order, and the rule
 *		that gives a piece its current status.
 *
 * Nothing in this file accesses a table.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/compat.h"
#include "base/extension.h"
#include "base/text.h"
#include "catalog/namespace.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lifecycle/lifecycle.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(postalytics_precedes);
PG_FUNCTION_INFO_V1(postalytics_follows);
PG_FUNCTION_INFO_V1(postalytics_precedes_or_equals);
PG_FUNCTION_INFO_V1(postalytics_follows_or_equals);
PG_FUNCTION_INFO_V1(postalytics_comparable);
PG_FUNCTION_INFO_V1(postalytics_label);
PG_FUNCTION_INFO_V1(postalytics_track);
PG_FUNCTION_INFO_V1(postalytics_feed_code);
PG_FUNCTION_INFO_V1(postalytics_is_terminal);
PG_FUNCTION_INFO_V1(postalytics_is_repeatable);
PG_FUNCTION_INFO_V1(postalytics_applies_in);
PG_FUNCTION_INFO_V1(postalytics_to_mail_status);

#define BIT(status)		(1 << (status))

/* For each status, the statuses that come after it. */
#define RESPONSES		(BIT(PURL_OPENED) | BIT(PURL_COMPLETED))
#define AFTER_PROCESSED	(RESPONSES | BIT(RETURNED_TO_SENDER))
#define AFTER_LOCAL		(AFTER_PROCESSED | BIT(PROCESSED_FOR_DELIVERY))
#define AFTER_TRANSIT	(AFTER_LOCAL | BIT(IN_LOCAL_AREA))
#define AFTER_MAILED	(AFTER_TRANSIT | BIT(IN_TRANSIT) | BIT(RE_ROUTED))
#define AFTER_PRINTED	(AFTER_MAILED | BIT(MAILED))
#define AFTER_ADDRESSED (AFTER_PRINTED | BIT(PRINTED))
#define AFTER_CREATED	(AFTER_ADDRESSED | BIT(ADDRESSED))

typedef struct StatusInfo
{
	const char *name;			/* the enum's label */
	const char *label;			/* the display form */
	const char *other;			/* another spelling in the feed, or NULL */
	const char *track;
	int			feed_code;
	bool		canada;			/* true if reported in Canada; all statuses
								 * are reported in the US */
	uint16		after;			/* bit mask of the later statuses */
} StatusInfo;

static const StatusInfo statuses[N_STATUSES] = {
	[MAIL_PIECE_CREATED] = {"MailPieceCreated", "Mail Piece Created", "Created", "production", 0, true, AFTER_CREATED},
	[ADDRESSED] = {"Addressed", "Addressed", NULL, "production", 9, true, AFTER_ADDRESSED},
	[PRINTED] = {"Printed", "Printed", NULL, "production", 10, true, AFTER_PRINTED},
	[MAILED] = {"Mailed", "Mailed", NULL, "production", 11, true, AFTER_MAILED},
	[IN_TRANSIT] = {"InTransit", "In Transit", NULL, "postal", 4, false, AFTER_TRANSIT},
	[IN_LOCAL_AREA] = {"InLocalArea", "In Local Area", NULL, "postal", 5, false, AFTER_LOCAL},
	[PROCESSED_FOR_DELIVERY] = {"ProcessedForDelivery", "Processed for Delivery", NULL, "postal", 6, false, AFTER_PROCESSED},
	[RE_ROUTED] = {"ReRouted", "Re-Routed", NULL, "exception", 2, false, BIT(RETURNED_TO_SENDER)},
	[RETURNED_TO_SENDER] = {"ReturnedToSender", "Returned To Sender", "Return to Sender", "exception", 3, false, 0},
	[PURL_OPENED] = {"pURLOpened", "pURL Opened", NULL, "response", 7, true, BIT(PURL_COMPLETED)},
	[PURL_COMPLETED] = {"pURLCompleted", "pURL Completed", NULL, "response", 8, true, 0},
};

/*
 * The OIDs of the enum's values in this database.  CREATE TYPE assigns them
 * close together, so the array rank, which is indexed by the distance from the
 * lowest OID, contains nearly all of them.  The other OIDs are found by a
 * linear search.
 */
#define RANK_TABLE_SIZE 64

static struct
{
	bool		valid;
	bool		watching;
	Oid			type;
	Oid			value[N_STATUSES];
	Oid			lowest;
	int8		rank[RANK_TABLE_SIZE];
}			enum_cache;

static void
forget_enum(Datum arg, int cacheid, uint32 hashvalue)
{
	enum_cache.valid = false;
}

static void
load_enum(Oid type)
{
	if (!enum_cache.watching)
	{
		CacheRegisterSyscacheCallback(ENUMOID, forget_enum, (Datum) 0);
		CacheRegisterSyscacheCallback(TYPEOID, forget_enum, (Datum) 0);
		enum_cache.watching = true;
	}

	enum_cache.type = type;
	enum_cache.lowest = PG_UINT32_MAX;
	for (int i = 0; i < N_STATUSES; i++)
	{
		HeapTuple	tuple = SearchSysCache2(ENUMTYPOIDNAME,
											ObjectIdGetDatum(type),
											CStringGetDatum(statuses[i].name));

		if (!HeapTupleIsValid(tuple))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("type mail_status has no value \"%s\"",
							statuses[i].name),
					 errhint("Run ALTER EXTENSION %s UPDATE.", EXTENSION_NAME)));
		enum_cache.value[i] = ((Form_pg_enum) GETSTRUCT(tuple))->oid;
		enum_cache.lowest = Min(enum_cache.lowest, enum_cache.value[i]);
		ReleaseSysCache(tuple);
	}

	memset(enum_cache.rank, NO_STATUS, sizeof(enum_cache.rank));
	for (int i = 0; i < N_STATUSES; i++)
	{
		uint32		slot = enum_cache.value[i] - enum_cache.lowest;

		if (slot < RANK_TABLE_SIZE)
			enum_cache.rank[slot] = i;
	}
	enum_cache.valid = true;
}

static void
load_enum_of_value(Oid value)
{
	HeapTuple	tuple = SearchSysCache1(ENUMOID, ObjectIdGetDatum(value));
	Oid			type;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("invalid internal value for mail_status: %u", value)));
	type = ((Form_pg_enum) GETSTRUCT(tuple))->enumtypid;
	ReleaseSysCache(tuple);
	load_enum(type);
}

static int
find_rank(Oid value)
{
	uint32		slot = value - enum_cache.lowest;

	if (slot < RANK_TABLE_SIZE && enum_cache.rank[slot] != NO_STATUS)
		return enum_cache.rank[slot];
	for (int i = 0; i < N_STATUSES; i++)
		if (enum_cache.value[i] == value)
			return i;
	return NO_STATUS;
}

/*
 * Return the status of the enum value with an OID, or NO_STATUS for a value
 * that users have added.  Error 22P03 if no enum value has the OID.
 */
int
find_status(Oid value)
{
	int			rank;

	if (likely(enum_cache.valid))
	{
		rank = find_rank(value);
		if (likely(rank != NO_STATUS))
			return rank;
	}
	load_enum_of_value(value);
	return find_rank(value);
}

/* As find_status, but raise error 0A000 instead of returning NO_STATUS. */
int
status_from_oid(Oid value)
{
	int			status = find_status(value);

	if (status == NO_STATUS)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("status \"%s\" is not supported by extension \"%s\"",
						DatumGetCString(DirectFunctionCall1(enum_out, ObjectIdGetDatum(value))), EXTENSION_NAME),
				 errhint("The supported statuses are listed in %s.statuses.", EXTENSION_SCHEMA)));
	return status;
}

/* Return the OID of a status's enum value. */
Oid
status_oid(MailStatus status)
{
	if (!enum_cache.valid)
	{
		Oid			schema = get_namespace_oid(EXTENSION_SCHEMA, false);
		Oid			type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
										   CStringGetDatum("mail_status"),
										   ObjectIdGetDatum(schema));

		if (!OidIsValid(type))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("type %s.mail_status does not exist",
							EXTENSION_SCHEMA)));
		load_enum(type);
	}
	return enum_cache.value[status];
}

const char *
status_name(MailStatus status)
{
	return statuses[status].name;
}

const char *
status_label(MailStatus status)
{
	return statuses[status].label;
}

static inline bool
is_ignored(char c)
{
	return is_blank(c) || c == '-' || c == '_';
}

/* True if two spellings are equal, ignoring case, whitespace, '-' and '_'. */
static bool
same_spelling(const char *spelling, int len, const char *known)
{
	const char *end = spelling + len;

	for (;;)
	{
		while (spelling < end && is_ignored(*spelling))
			spelling++;
		while (is_ignored(*known))
			known++;
		if (spelling == end || *known == '\0')
			return spelling == end && *known == '\0';
		if (pg_tolower((unsigned char) *spelling++) != pg_tolower((unsigned char) *known++))
			return false;
	}
}

/*
 * Return the status of a feed code, which is given in digits without a leading
 * zero, or NO_STATUS if there is no such code.
 */
static int
status_from_code(const char *digits, int len)
{
	int			code = digits[0] - '0';

	if (len == 2 && code != 0 && digits[1] >= '0' && digits[1] <= '9')
		code = 10 * code + digits[1] - '0';
	else if (len != 1)
		return NO_STATUS;
	for (int i = 0; i < N_STATUSES; i++)
		if (statuses[i].feed_code == code)
			return i;
	return NO_STATUS;
}

/*
 * Return the status with a name, label or feed code, in any spelling of the
 * feed, or NO_STATUS if there is no such status.
 */
int
status_from_text(const char *spelling, int len)
{
	spelling = trim(spelling, &len);
	if (len > 0 && spelling[0] >= '0' && spelling[0] <= '9')
		return status_from_code(spelling, len);

	for (int i = 0; i < N_STATUSES; i++)
	{
		if (same_spelling(spelling, len, statuses[i].name) ||
			(statuses[i].other != NULL &&
			 same_spelling(spelling, len, statuses[i].other)))
			return i;
	}
	return NO_STATUS;
}

/*
 * Return the current status of a piece, given the time of the last event of
 * each status, which is DT_NOBEGIN if there is no such event.  Returns
 * NO_STATUS if there are no events except responses.  As the result depends
 * only on the last times, the order in which events arrive does not matter.
 */
int
status_from_times(const TimestampTz *last)
{
	TimestampTz rerouted = last[RE_ROUTED];

	if (last[RETURNED_TO_SENDER] != DT_NOBEGIN)
		return RETURNED_TO_SENDER;
	for (int i = PROCESSED_FOR_DELIVERY; i >= MAIL_PIECE_CREATED; i--)
	{
		if (last[i] != DT_NOBEGIN && last[i] >= rerouted)
			return i;
	}
	return rerouted != DT_NOBEGIN ? RE_ROUTED : NO_STATUS;
}

/* ---- operators of the partial order: (mail_status, mail_status), strict ---- */

/* True if status b comes after status a in the partial order. */
static inline bool
comes_after(int a, int b)
{
	return (statuses[a].after & BIT(b)) != 0;
}

Datum
postalytics_precedes(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(comes_after(status_from_oid(PG_GETARG_OID(0)),
							   status_from_oid(PG_GETARG_OID(1))));
}

Datum
postalytics_follows(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(comes_after(status_from_oid(PG_GETARG_OID(1)),
							   status_from_oid(PG_GETARG_OID(0))));
}

Datum
postalytics_precedes_or_equals(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(PG_GETARG_OID(0) == PG_GETARG_OID(1) ||
				   comes_after(status_from_oid(PG_GETARG_OID(0)),
							   status_from_oid(PG_GETARG_OID(1))));
}

Datum
postalytics_follows_or_equals(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(PG_GETARG_OID(0) == PG_GETARG_OID(1) ||
				   comes_after(status_from_oid(PG_GETARG_OID(1)),
							   status_from_oid(PG_GETARG_OID(0))));
}

Datum
postalytics_comparable(PG_FUNCTION_ARGS)
{
	int			a = status_from_oid(PG_GETARG_OID(0));
	int			b = status_from_oid(PG_GETARG_OID(1));

	PG_RETURN_BOOL(a == b || comes_after(a, b) || comes_after(b, a));
}

/* ---- properties of a status: (mail_status), strict ---- */

static const StatusInfo *
status_argument(FunctionCallInfo fcinfo)
{
	return &statuses[status_from_oid(PG_GETARG_OID(0))];
}

Datum
postalytics_label(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(status_argument(fcinfo)->label));
}

Datum
postalytics_track(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(status_argument(fcinfo)->track));
}

Datum
postalytics_feed_code(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(status_argument(fcinfo)->feed_code);
}

Datum
postalytics_is_terminal(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(status_argument(fcinfo) == &statuses[RETURNED_TO_SENDER]);
}

Datum
postalytics_is_repeatable(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL((RESPONSES & BIT(status_from_oid(PG_GETARG_OID(0)))) != 0);
}

/*
 * applies_in(mail_status, country text) returns boolean
 *
 * Returns NULL for a country other than the US and Canada, because the vendor
 * does not mail to other countries.  Strict.
 */
Datum
postalytics_applies_in(PG_FUNCTION_ARGS)
{
	static const char *const us[] = {"US", "USA", "United States", "United States of America"};
	static const char *const canada[] = {"CA", "CAN", "Canada"};
	text	   *country = PG_GETARG_TEXT_PP(1);
	const char *name = VARDATA_ANY(country);
	int			len = VARSIZE_ANY_EXHDR(country);

	for (int i = 0; i < (int) lengthof(us); i++)
		if (same_spelling(name, len, us[i]))
			PG_RETURN_BOOL(true);
	for (int i = 0; i < (int) lengthof(canada); i++)
		if (same_spelling(name, len, canada[i]))
			PG_RETURN_BOOL(status_argument(fcinfo)->canada);
	PG_RETURN_NULL();
}

/*
 * to_mail_status(spelling text) returns mail_status
 *
 * Returns NULL if the text is not a spelling of a status.  Strict.
 */
Datum
postalytics_to_mail_status(PG_FUNCTION_ARGS)
{
	text	   *spelling = PG_GETARG_TEXT_PP(0);
	int			status = status_from_text(VARDATA_ANY(spelling),
										  VARSIZE_ANY_EXHDR(spelling));

	if (status == NO_STATUS)
		PG_RETURN_NULL();
	PG_RETURN_OID(status_oid(status));
}
