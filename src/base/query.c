/*
 * query.c
 *		Runs SQL statements through SPI, and keeps their plans.
 *
 * All functions need an SPI connection.  storage/lookup.c finds rows by key
 * without a query.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/query.h"
#include "utils/queryenvironment.h"

/* Raise an error unless SPI has returned the expected result code. */
static void
check_result(int result, int expected)
{
	if (result != expected)
		elog(ERROR, "SPI execution failed: %s", SPI_result_code_string(result));
}

/*
 * Run a statement with a kept plan, which the server revalidates if one of its
 * tables has changed.  nulls[i] is true if the i-th value is NULL.  nulls may
 * be NULL if no value is NULL.  The result is in SPI_processed and
 * SPI_tuptable.
 */
void
query_run(SqlQuery *query, const Datum *values, const bool *nulls)
{
	char		spi_nulls[MAX_PARAMETERS];

	if (query->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(query->sql, query->nparameters, query->types);

		if (plan == NULL)
			elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
		if (SPI_keepplan(plan) != 0)
			elog(ERROR, "SPI_keepplan failed");
		query->plan = plan;
	}
	for (int i = 0; i < query->nparameters; i++)
		spi_nulls[i] = nulls != NULL && nulls[i] ? 'n' : ' ';
	check_result(SPI_execute_plan(query->plan, unconstify(Datum *, values), spi_nulls, false, 0),
				 query->result);
}

/* Run one or more utility commands, which are separated by semicolons. */
void
run_commands(const char *sql)
{
	check_result(SPI_execute(sql, false, 0), SPI_OK_UTILITY);
}

/*
 * Let the statements of this SPI connection read rows as a table with the given
 * name.  tupdesc, which can be that of a stored table, is copied without its
 * constraints, because the rows may have NULLs in NOT NULL columns, and
 * JIT-compiled deforming would rely on NOT NULL.
 */
void
register_rowset(const char *name, TupleDesc tupdesc, Tuplestorestate *rows, int64 count)
{
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));

	enr->md.name = pstrdup(name);
	enr->md.tupdesc = CreateTupleDescCopy(tupdesc);
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = count;
	enr->reldata = rows;
	check_result(SPI_register_relation(enr), SPI_OK_REL_REGISTER);
}
