/* Passes each delivery of a sync to a shell command: worker SYNC COMMAND.  cc worker.c -I"$(pg_config --includedir)" -lpq */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <libpq-fe.h>

static volatile sig_atomic_t stopping;
static char ids[250], attempts[250];	/* delivered but not acknowledged: arrays without closing braces */
static void stop(int signum) { stopping = signum; }

static PGresult *run(PGconn *db, const char *sql, int n, const char *a, const char *b, const char *c)
{
	return PQexecParams(db, sql, n, NULL, (const char *[]) {a, b, c}, NULL, NULL, 0);
}

static void acknowledge(PGconn *db, const char *sync)
{
	if (ids[0] != '\0')
		PQclear(run(db, "SELECT postalytics.ack($1, ($2::text || '}')::bigint[], ($3::text || '}')::int[])", 3, sync, ids, attempts));
	if (PQstatus(db) == CONNECTION_OK)
		ids[0] = attempts[0] = '\0';
}

static void work(PGconn *db, const char *sync, const char *command)
{
	while (!stopping && PQstatus(db) == CONNECTION_OK)
	{
		acknowledge(db, sync);	/* also what was delivered before the connection was lost */
		PGresult   *rows = run(db, "SELECT delivery_id, attempt, payload FROM postalytics.fetch($1, 10)", 1, sync, NULL, NULL);
		PGresult   *next = run(db, "SELECT (1000 * least(60, greatest(0.1, extract(epoch FROM postalytics.next_due($1) - now()))))::int", 1, sync, NULL, NULL);
		int			wait = 0, n = PQntuples(rows);

		for (int i = 0; i < n; i++)
		{
			FILE	   *child = stopping ? NULL : popen(command, "w");

			if (child != NULL && fputs(PQgetvalue(rows, i, 2), child) >= 0 && pclose(child) == 0)
				sprintf(ids + strlen(ids), "%c%s", ids[0] ? ',' : '{', PQgetvalue(rows, i, 0)),
				sprintf(attempts + strlen(attempts), "%c%s", attempts[0] ? ',' : '{', PQgetvalue(rows, i, 1));
			else				/* failed, or not started and given back at once */
				PQclear(run(db, "SELECT postalytics.nack($1, ARRAY[$2::bigint], 'failed', retry_in => $3)", 3, sync, PQgetvalue(rows, i, 0), child ? NULL : "0"));
		}
		sscanf(n == 0 && PQntuples(next) == 1 ? PQgetvalue(next, 0, 0) : "", "%d", &wait);
		for (PGnotify *notice; (notice = PQnotifies(db)) != NULL; PQfreemem(notice))
			wait = 0;			/* it arrived with a result */
		for (; !stopping && wait > 0 && poll(&(struct pollfd) {.fd = PQsocket(db), .events = POLLIN}, 1, 500) == 0; wait -= 500);
		PQclear(rows), PQclear(next);
	}
	acknowledge(db, sync);
}

int main(int argc, char **argv)
{
	for (signal(SIGTERM, stop), signal(SIGINT, stop); argc == 3 && !stopping; sleep(!stopping))
	{
		PGconn	   *db = PQconnectdb("connect_timeout=10");
		char		listen[200];

		snprintf(listen, sizeof(listen), "LISTEN \"postalytics_%s\"", argv[1]);
		PQclear(PQexec(db, listen));
		work(db, argv[1], argv[2]);
		fprintf(stderr, "%s", PQerrorMessage(db));
		PQfinish(db);
	}
}
