/* Prints the notifications of a channel: listen CHANNEL.  cc listen.c -lpq */
#include <poll.h>
#include <stdio.h>
#include <unistd.h>
#include <libpq-fe.h>

static void
hear(PGconn *db)
{
	struct pollfd socket = {.fd = PQsocket(db), .events = POLLIN};

	puts("listening");			/* a worker fetches here: earlier ones are not sent again */
	fflush(stdout);
	do							/* some may have come with the result of LISTEN */
		for (PGnotify *notice; (notice = PQnotifies(db)) != NULL; PQfreemem(notice))
		{
			printf("%s %s\n", notice->relname, notice->extra);
			fflush(stdout);
		}
	while (poll(&socket, 1, -1) >= 0 && PQconsumeInput(db));
}

int
main(int argc, char **argv)
{
	for (; argc == 2; sleep(1))
	{
		PGconn	   *db = PQconnectdb("");
		char		command[200];

		if (PQstatus(db) == CONNECTION_OK)
		{
			snprintf(command, sizeof(command), "LISTEN %s", PQescapeIdentifier(db, argv[1], 63));
			PGresult   *result = PQexec(db, command);

			if (PQresultStatus(result) == PGRES_COMMAND_OK)
				hear(db);
			PQclear(result);
		}
		fprintf(stderr, "connection lost: %s", PQerrorMessage(db));
		PQfinish(db);
	}
}
