/*
 * current_status.c
 *		The aggregate current_status(mail_status, timestamptz).
 *
 * The state of the aggregate is TimestampTz[N_STATUSES], the time of the last
 * event of each status.  status_from_times determines the result from it.  An
 * event whose status or time is NULL is ignored, as in other aggregates.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "lifecycle/lifecycle.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(postalytics_current_status_accum);
PG_FUNCTION_INFO_V1(postalytics_current_status_combine);
PG_FUNCTION_INFO_V1(postalytics_current_status_serialize);
PG_FUNCTION_INFO_V1(postalytics_current_status_deserialize);
PG_FUNCTION_INFO_V1(postalytics_current_status_final);

static TimestampTz *
make_times(MemoryContext context)
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
	TimestampTz time;
	int			status;

	last = PG_ARGISNULL(0) ? make_times(aggregate_context(fcinfo)) :
		(TimestampTz *) PG_GETARG_POINTER(0);
	if (PG_ARGISNULL(1) || PG_ARGISNULL(2))
		PG_RETURN_POINTER(last);

	status = status_from_oid(PG_GETARG_OID(1));
	time = PG_GETARG_TIMESTAMPTZ(2);
	/* DT_NOBEGIN stands for "no event", so replace a time of -infinity */
	last[status] = Max(last[status], Max(time, DT_NOBEGIN + 1));
	PG_RETURN_POINTER(last);
}

Datum
postalytics_current_status_combine(PG_FUNCTION_ARGS)
{
	TimestampTz *a;
	TimestampTz *b;

	if (PG_ARGISNULL(0))
		a = make_times(aggregate_context(fcinfo));
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
	TimestampTz *last = make_times(CurrentMemoryContext);
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
		status = status_from_times((TimestampTz *) PG_GETARG_POINTER(0));
	if (status == NO_STATUS)
		PG_RETURN_NULL();
	PG_RETURN_OID(status_oid(status));
}
