/*
 * front_call.c
 *		Functions of the front that only pass a call to the slots.
 *
 * A function NAME, read_NAME or query_NAME calls slots_NAME with the same arguments.
 * slots_NAME is a PL/Proxy function, or an SQL function that combines the results of
 * PL/Proxy functions.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/compat.h"
#include "base/extension.h"
#include "catalog/pg_type.h"
#include "cluster/slots.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "rights/binding.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(postalytics_call_slots);
PG_FUNCTION_INFO_V1(postalytics_read_slots);
PG_FUNCTION_INFO_V1(postalytics_query_slots);
PG_FUNCTION_INFO_V1(postalytics_query_slot);

/* The maximum number of arguments, with the two that read_slots adds. */
#define MAX_CALL_ARGS	12

/* The arguments of a call, in the form that SPI expects. */
typedef struct Arguments
{
	const char *function;		/* NAME */
	StringInfoData arguments;	/* $1, $2 and so on */
	int			count;
	Oid			types[MAX_CALL_ARGS];
	Datum		values[MAX_CALL_ARGS];
	char		nulls[MAX_CALL_ARGS + 1];
} Arguments;

/* Read the arguments of a call of a function whose name begins with prefix. */
static void
read_arguments(FunctionCallInfo fcinfo, const char *prefix, Arguments *call)
{
	Oid		   *types;

	call->function = get_func_name(fcinfo->flinfo->fn_oid) + strlen(prefix);
	(void) get_func_signature(fcinfo->flinfo->fn_oid, &types, &call->count);
	if (call->count + 2 > MAX_CALL_ARGS)
		elog(ERROR, "function \"%s\" has too many arguments", call->function);
	initStringInfo(&call->arguments);
	memset(call->nulls, ' ', MAX_CALL_ARGS);
	for (int i = 0; i < call->count; i++)
	{
		appendStringInfo(&call->arguments, "%s$%d", i == 0 ? "" : ", ", i + 1);
		call->types[i] = types[i];
		call->values[i] = PG_GETARG_DATUM(i);
		call->nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
}

/*
 * Run a query, as the owner, whose rows are the result of the function.  timeout is in
 * milliseconds.
 */
static void
return_rows(FunctionCallInfo fcinfo, Arguments *call, const char *sql, int timeout)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	bool		is_scalar = get_call_result_type(fcinfo, NULL, NULL) == TYPEFUNC_SCALAR;
	SavedUser	caller;

	InitMaterializedSRF(fcinfo, is_scalar ? MAT_SRF_USE_EXPECTED_DESC : 0);
	caller = switch_to_owner();
	SPI_connect();
	slots_execute(sql, call->count, call->types, call->values, call->nulls, timeout);
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
	SPI_finish();
	restore_user(caller);
}

/*
 * Return the aggregate that combines the results of the slots: the sum of numbers, the
 * latest timestamp, and true if any is true.
 */
static const char *
aggregate(Oid type)
{
	switch (type)
	{
		case INT4OID:
			return "COALESCE(sum(r), 0)::integer";
		case INT8OID:
			return "COALESCE(sum(r), 0)::bigint";
		case BOOLOID:
			return "bool_or(r)";
		case TIMESTAMPTZOID:
			return "max(r)";
		case VOIDOID:
			return "NULL::void";
		default:
			elog(ERROR, "unsupported result type %u", type);
	}
	return NULL;				/* not reached */
}

/*
 * The functions for managers, which call the function of the same name on the slots
 *
 * A function that returns a set returns the rows of all slots.  Other results are combined
 * as aggregate() says.  These functions check no binding, so only managers may execute
 * them.  Errors: 0A000 in a transaction block, 55000 if the cluster is not complete, 08006
 * if a slot cannot be reached, and those of the function on the slots.  After an error,
 * some slots may have completed the call.
 */
Datum
postalytics_call_slots(PG_FUNCTION_ARGS)
{
	Arguments	call;
	SavedUser	caller;
	Datum		value;
	bool		isnull;
	Oid			type = get_func_rettype(fcinfo->flinfo->fn_oid);
	bool		byval;
	int16		length;

	read_arguments(fcinfo, "", &call);
	check_no_block(call.function);
	(void) number_of_slots();
	if (fcinfo->flinfo->fn_retset)
	{
		return_rows(fcinfo, &call, psprintf("SELECT * FROM postalytics.slots_%s(%s)", call.function, call.arguments.data),
					setting_command_timeout);
		return (Datum) 0;
	}
	caller = switch_to_owner();
	SPI_connect();
	slots_execute(psprintf("SELECT %s FROM postalytics.slots_%s(%s) AS r", aggregate(type), call.function, call.arguments.data),
				  call.count, call.types, call.values, call.nulls, setting_command_timeout);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	get_typlenbyval(type, &length, &byval);
	if (!isnull)
		value = SPI_datumTransfer(value, byval, length);
	SPI_finish();
	restore_user(caller);
	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(value);
}

/*
 * The functions for readers, which return rows of all slots with a column account
 *
 * Returns only the rows of accounts that the current user may read.  Errors: 55000 if
 * the cluster is not complete, 08006 if a slot cannot be reached, and those of the
 * function on the slots.
 */
Datum
postalytics_read_slots(PG_FUNCTION_ARGS)
{
	AllowedAccounts bound;
	Arguments	call;
	int			all;

	read_arguments(fcinfo, "read_", &call);
	(void) number_of_slots();
	allowed_accounts(PRIVILEGE_READ, &bound);
	all = call.count++;
	call.types[all] = BOOLOID;
	call.values[all] = BoolGetDatum(bound.all);
	call.types[call.count] = TEXTARRAYOID;
	call.values[call.count++] = account_array(&bound);
	return_rows(fcinfo, &call, psprintf("SELECT r.* FROM postalytics.slots_%s(%s) AS r WHERE $%d OR r.account OPERATOR(pg_catalog.=) ANY ($%d)",
										call.function, call.arguments.data, all + 1, all + 2),
				setting_slot_timeout);
	return (Datum) 0;
}

static Datum
query(FunctionCallInfo fcinfo)
{
	Arguments	call;

	read_arguments(fcinfo, "query_", &call);
	return_rows(fcinfo, &call, psprintf("SELECT * FROM postalytics.slots_%s(%s)", call.function, call.arguments.data),
				setting_slot_timeout);
	return (Datum) 0;
}

/*
 * The functions that only the front's own functions call, which return rows of all slots
 *
 * They are allowed in a transaction block.  Errors: 55000 if the cluster is not complete,
 * 08006 if a slot cannot be reached, and those of the function on the slots.
 */
Datum
postalytics_query_slots(PG_FUNCTION_ARGS)
{
	(void) number_of_slots();
	return query(fcinfo);
}

/* As query_slots, for a slot that is given by its connection string. */
Datum
postalytics_query_slot(PG_FUNCTION_ARGS)
{
	return query(fcinfo);
}
