/*
 * query.c
 *		Runs SQL statements through SPI, and keeps their plans.
 *
 * All functions need an SPI connection.  Rows that are found by a key are
 * looked up without a query, in storage/lookup.c.
 */
#include "postgres.h"

#include "base/query.h"
#include "utils/queryenvironment.h"

/* Raise an error unless a statement has ended as expected. */
static void
check_result(int result, int expected)
{
	if (result != expected)
		elog(ERROR, "SPI execution failed: %s", SPI_result_code_string(result));
}

/*
 * Run a statement with a kept plan, which the server revalidates when a table
 * that it reads has changed.  nulls marks the values that are NULL, and is
 * itself NULL if none is.  The result is in SPI_processed and SPI_tuptable.
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

/* Run utility commands. */
void
run_commands(const char *sql)
{
	check_result(SPI_execute(sql, false, 0), SPI_OK_UTILITY);
}

/*
 * Make rows, which have the columns of a table, available under a name to the
 * statements of this SPI connection.  The descriptor is copied without constraints,
 * because rows may have NULLs in NOT NULL columns, and JIT-compiled deforming
 * would rely on NOT NULL.
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
