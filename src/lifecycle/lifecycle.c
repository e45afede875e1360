/*
 * lifecycle.c
 *		The eleven statuses, their partial order, labels, and the rule that
 *		gives a piece its current status.  Knows nothing of tables.
 */
#include "postalytics_status.h"

#include "access/stratnum.h"
#include "catalog/namespace.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/supportnodes.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(postalytics_precedes);
PG_FUNCTION_INFO_V1(postalytics_follows);
PG_FUNCTION_INFO_V1(postalytics_precedes_or_equals);
PG_FUNCTION_INFO_V1(postalytics_follows_or_equals);
PG_FUNCTION_INFO_V1(postalytics_comparable);
PG_FUNCTION_INFO_V1(postalytics_order_support);
PG_FUNCTION_INFO_V1(postalytics_label);
PG_FUNCTION_INFO_V1(postalytics_track);
PG_FUNCTION_INFO_V1(postalytics_feed_code);
PG_FUNCTION_INFO_V1(postalytics_is_terminal);
PG_FUNCTION_INFO_V1(postalytics_is_repeatable);
PG_FUNCTION_INFO_V1(postalytics_applies_in);
PG_FUNCTION_INFO_V1(postalytics_to_mail_status);
PG_FUNCTION_INFO_V1(postalytics_current_status_accum);
PG_FUNCTION_INFO_V1(postalytics_current_status_combine);
PG_FUNCTION_INFO_V1(postalytics_current_status_serialize);
PG_FUNCTION_INFO_V1(postalytics_current_status_deserialize);
PG_FUNCTION_INFO_V1(postalytics_current_status_final);

#define BIT(status)		(1 << (status))

/* What comes after Mailed on the way to a visit, furthest last. */
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
	const char *label;			/* as people read it */
	const char *other;			/* a further spelling of the feed, or NULL */
	const char *track;
	int			feed_code;
	bool		canada;			/* all eleven apply in the US */
	uint16		after;			/* the statuses that belong later */
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
 * The enum's OIDs in this database.  CREATE TYPE hands them out close
 * together, so a small table from the lowest on finds nearly all; the rest
 * are looked for one by one.
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

/* The status of an enum value's OID; NO_STATUS if users have added it to the enum. */
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

/* The same; error 0A000 instead of NO_STATUS. */
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

/* The enum value's OID of a status. */
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
is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static inline bool
is_ignored(char c)
{
	return is_blank(c) || c == '-' || c == '_';
}

/* Are the two the same but for case, blanks, '-' and '_'? */
static bool
same_spelling(const char *text, int len, const char *known)
{
	const char *end = text + len;

	for (;;)
	{
		while (text < end && is_ignored(*text))
			text++;
		while (is_ignored(*known))
			known++;
		if (text == end || *known == '\0')
			return text == end && *known == '\0';
		if (pg_tolower((unsigned char) *text++) != pg_tolower((unsigned char) *known++))
			return false;
	}
}

/* The status of a feed code in digits: no sign, no leading zero. */
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

/* The status that text spells, as a name, a label or a feed code; or NO_STATUS. */
int
status_from_text(const char *text, int len)
{
	while (len > 0 && is_blank(*text))
		text++, len--;
	while (len > 0 && is_blank(text[len - 1]))
		len--;

	if (len > 0 && text[0] >= '0' && text[0] <= '9')
		return status_from_code(text, len);

	for (int i = 0; i < N_STATUSES; i++)
	{
		if (same_spelling(text, len, statuses[i].name) ||
			(statuses[i].other != NULL &&
			 same_spelling(text, len, statuses[i].other)))
			return i;
	}
	return NO_STATUS;
}

/*
 * The current status of a piece, given the last instant of each status
 * (DT_NOBEGIN where it has none): the rule of the lifecycle.  Being a function
 * of maxima alone, it cannot depend on the order of arrival.
 */
int
status_from_instants(const TimestampTz *last)
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

/* ---- the order's operators: (mail_status, mail_status), strict ---- */

static inline bool
later(int a, int b)
{
	return (statuses[a].after & BIT(b)) != 0;
}

Datum
postalytics_precedes(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(later(status_from_oid(PG_GETARG_OID(0)),
						 status_from_oid(PG_GETARG_OID(1))));
}

Datum
postalytics_follows(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(later(status_from_oid(PG_GETARG_OID(1)),
						 status_from_oid(PG_GETARG_OID(0))));
}

Datum
postalytics_precedes_or_equals(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(PG_GETARG_OID(0) == PG_GETARG_OID(1) ||
				   later(status_from_oid(PG_GETARG_OID(0)),
						 status_from_oid(PG_GETARG_OID(1))));
}

Datum
postalytics_follows_or_equals(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(PG_GETARG_OID(0) == PG_GETARG_OID(1) ||
				   later(status_from_oid(PG_GETARG_OID(1)),
						 status_from_oid(PG_GETARG_OID(0))));
}

Datum
postalytics_comparable(PG_FUNCTION_ARGS)
{
	int			a = status_from_oid(PG_GETARG_OID(0));
	int			b = status_from_oid(PG_GETARG_OID(1));

	PG_RETURN_BOOL(a == b || later(a, b) || later(b, a));
}

/* Those of the enum for which the function holds with the constant; how many. */
static int
find_values(FuncExpr *call, Const *constant, bool constant_first, Datum *values)
{
	int			nvalues = 0;

	/* The constant is a value of the type, so this loads the type's cache. */
	(void) status_from_oid(DatumGetObjectId(constant->constvalue));
	for (int i = 0; i < N_STATUSES; i++)
	{
		Datum		value = ObjectIdGetDatum(enum_cache.value[i]);
		Datum		holds = constant_first ?
			OidFunctionCall2(call->funcid, constant->constvalue, value) :
			OidFunctionCall2(call->funcid, value, constant->constvalue);

		if (DatumGetBool(holds))
			values[nvalues++] = value;
	}
	return nvalues;
}

/* "expression <= value", or ">=" */
static Node *
make_comparison(Node *expression, Const *constant, Datum value, int16 strategy)
{
	TypeCacheEntry *type = lookup_type_cache(constant->consttype, TYPECACHE_BTREE_OPFAMILY);
	Oid			operator = get_opfamily_member(type->btree_opf, type->btree_opintype,
											   type->btree_opintype, strategy);
	Const	   *bound = copyObjectImpl(constant);	/* 19's copyObject needs C23 */
	Expr	   *comparison;

	bound->constvalue = value;
	comparison = make_opclause(operator, BOOLOID, false, (Expr *) expression,
							   (Expr *) bound, InvalidOid, InvalidOid);
	set_opfuncid((OpExpr *) comparison);
	return (Node *) comparison;
}

/* "expression = ANY (values)" */
static Node *
make_membership(Node *expression, Const *constant, Datum *values, int nvalues)
{
	TypeCacheEntry *type = lookup_type_cache(constant->consttype, TYPECACHE_EQ_OPR);
	ScalarArrayOpExpr *any = makeNode(ScalarArrayOpExpr);
	ArrayType  *array = construct_array(values, nvalues, constant->consttype,
										sizeof(Oid), true, TYPALIGN_INT);

	any->opno = type->eq_opr;
	any->opfuncid = get_opcode(type->eq_opr);
	any->useOr = true;
	any->inputcollid = InvalidOid;
	any->args = list_make2(expression,
						   makeConst(get_array_type(constant->consttype), -1, InvalidOid, -1,
									 PointerGetDatum(array), false, false));
	any->location = -1;
	return (Node *) any;
}

/*
 * What the call comes to by the enum's own operators: a comparison, where the
 * values for which it holds are the first or the last ones of the enum, and
 * else a test for membership.  NULL if there are none, because "= ANY ('{}')"
 * is false where a strict function is NULL.
 */
static Node *
simplify_order(FuncExpr *call, Node *expression, Const *constant, bool constant_first)
{
	Datum		values[N_STATUSES];
	int			nvalues = find_values(call, constant, constant_first, values);
	const Oid  *all = enum_cache.value;

	if (nvalues == 0)
		return NULL;
	if (DatumGetObjectId(values[nvalues - 1]) == all[nvalues - 1])
		return make_comparison(expression, constant, values[nvalues - 1],
							   BTLessEqualStrategyNumber);
	if (DatumGetObjectId(values[0]) == all[N_STATUSES - nvalues])
		return make_comparison(expression, constant, values[0],
							   BTGreaterEqualStrategyNumber);
	return make_membership(expression, constant, values, nvalues);
}

/*
 * Planner support of the order's functions: against a constant, a test in the
 * partial order is one that indexes and statistics know.
 */
Datum
postalytics_order_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);
	Node	   *result = NULL;

	if (IsA(request, SupportRequestSimplify))
	{
		FuncExpr   *call = ((SupportRequestSimplify *) request)->fcall;
		Node	   *left = linitial(call->args);
		Node	   *right = lsecond(call->args);

		/* A NULL is left to strictness, two constants to evaluation. */
		if (IsA(right, Const) && !((Const *) right)->constisnull)
			result = simplify_order(call, left, (Const *) right, false);
		else if (IsA(left, Const) && !((Const *) left)->constisnull)
			result = simplify_order(call, right, (Const *) left, true);
	}
	PG_RETURN_POINTER(result);
}

/* ---- what a status is called, and where it applies: strict ---- */

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

/* NULL for a country that the vendor does not mail to. */
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

/* NULL for what spells no status. */
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

/*
 * ---- current_status(mail_status, timestamptz) ----
 *
 * The state is the last instant of each status, TimestampTz[N_STATUSES].  An
 * event without status or instant is passed over, as aggregates do with NULL.
 */

static TimestampTz *
make_instants(MemoryContext context)
{
	TimestampTz *last = MemoryContextAlloc(context,
										   N_STATUSES * sizeof(TimestampTz));

	for (int i = 0; i < N_STATUSES; i++)
		last[i] = DT_NOBEGIN;
	return last;
}

static MemoryContext
aggregate_context(FunctionCallInfo fcinfo)
{
	MemoryContext context;

	if (!AggCheckCallContext(fcinfo, &context))
		elog(ERROR, "aggregate function called in non-aggregate context");
	return context;
}

Datum
postalytics_current_status_accum(PG_FUNCTION_ARGS)
{
	TimestampTz *last;
	TimestampTz instant;
	int			status;

	last = PG_ARGISNULL(0) ? make_instants(aggregate_context(fcinfo)) :
		(TimestampTz *) PG_GETARG_POINTER(0);
	if (PG_ARGISNULL(1) || PG_ARGISNULL(2))
		PG_RETURN_POINTER(last);

	status = status_from_oid(PG_GETARG_OID(1));
	instant = PG_GETARG_TIMESTAMPTZ(2);
	/* -infinity stands for "none", so the real one moves up by one */
	last[status] = Max(last[status], Max(instant, DT_NOBEGIN + 1));
	PG_RETURN_POINTER(last);
}

Datum
postalytics_current_status_combine(PG_FUNCTION_ARGS)
{
	TimestampTz *a;
	TimestampTz *b;

	if (PG_ARGISNULL(0))
		a = make_instants(aggregate_context(fcinfo));
	else
		a = (TimestampTz *) PG_GETARG_POINTER(0);
	if (PG_ARGISNULL(1))
		PG_RETURN_POINTER(a);
	b = (TimestampTz *) PG_GETARG_POINTER(1);
	for (int i = 0; i < N_STATUSES; i++)
		a[i] = Max(a[i], b[i]);
	PG_RETURN_POINTER(a);
}

Datum
postalytics_current_status_serialize(PG_FUNCTION_ARGS)
{
	TimestampTz *last = (TimestampTz *) PG_GETARG_POINTER(0);
	StringInfoData buf;

	pq_begintypsend(&buf);
	for (int i = 0; i < N_STATUSES; i++)
		pq_sendint64(&buf, last[i]);
	PG_RETURN_BYTEA_P(pq_endtypsend(&buf));
}

Datum
postalytics_current_status_deserialize(PG_FUNCTION_ARGS)
{
	bytea	   *sent = PG_GETARG_BYTEA_PP(0);
	TimestampTz *last = make_instants(CurrentMemoryContext);
	StringInfoData buf;

	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, VARDATA_ANY(sent), VARSIZE_ANY_EXHDR(sent));
	for (int i = 0; i < N_STATUSES; i++)
		last[i] = pq_getmsgint64(&buf);
	pq_getmsgend(&buf);
	PG_RETURN_POINTER(last);
}

Datum
postalytics_current_status_final(PG_FUNCTION_ARGS)
{
	int			status = NO_STATUS;

	if (!PG_ARGISNULL(0))
		status = status_from_instants((TimestampTz *) PG_GETARG_POINTER(0));
	if (status == NO_STATUS)
		PG_RETURN_NULL();
	PG_RETURN_OID(status_oid(status));
}
