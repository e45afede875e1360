/*
 * query.h
 *		SQL statements that are run from C, through SPI.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_QUERY_H
#define POSTALYTICS_QUERY_H

#include "executor/spi.h"
#include "utils/tuplestore.h"

#define MAX_PARAMETERS	8

/*
 * A statement whose plan is kept for the session.  Each statement is a static
 * variable.  An enum next to the variable names the parameters: member i stands
 * for $(i + 1).
 */
typedef struct SqlQuery
{
	const char *sql;
	int			result;			/* SPI's result code of a successful execution */
	int			nparameters;
	Oid			types[MAX_PARAMETERS];
	SPIPlanPtr	plan;			/* NULL before the first execution */
} SqlQuery;

extern void query_run(SqlQuery *query, const Datum *values, const bool *nulls);
extern void run_commands(const char *sql);
extern void register_rowset(const char *name, TupleDesc tupdesc, Tuplestorestate *rows, int64 count);

#endif							/* POSTALYTICS_QUERY_H */
