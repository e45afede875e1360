/*
 * progress.c
 *		Shows the progress of a long call in pg_stat_progress_copy.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/extension.h"
#include "commands/progress.h"
#include "ingest/progress.h"
#include "pgstat.h"
#include "utils/backend_progress.h"
#include "utils/backend_status.h"

#define LONG_CALL	(1024 * 1024)	/* in bytes */

/*
 * True for a call of at least LONG_CALL bytes, unless a command such as COPY is
 * already reporting its own progress.
 */
bool
progress_is_wanted(int64 bytes)
{
	return bytes >= LONG_CALL && MyBEEntry != NULL &&
		MyBEEntry->st_progress_command == PROGRESS_COMMAND_INVALID;
}

/*
 * Begin to show the progress of a call of this size.  Must be called again
 * after another command has ended the progress report.
 */
void
progress_begin(int64 bytes, int64 bytes_read)
{
	const int	index[] = {
		PROGRESS_COPY_COMMAND, PROGRESS_COPY_TYPE,
		PROGRESS_COPY_BYTES_TOTAL, PROGRESS_COPY_BYTES_PROCESSED
	};
	const int64 value[] = {
		PROGRESS_COPY_COMMAND_FROM, PROGRESS_COPY_TYPE_CALLBACK,
		bytes, bytes_read
	};

	pgstat_progress_start_command(PROGRESS_COMMAND_COPY,
								  extension_relation("events"));
	pgstat_progress_update_multi_param(lengthof(index), index, value);
}

/* Show the number of bytes that have been read. */
void
progress_bytes_read(uint32 bytes)
{
	pgstat_progress_update_param(PROGRESS_COPY_BYTES_PROCESSED, bytes);
}

/* Show the number of events that have been read for insertion. */
void
progress_events(int64 events)
{
	pgstat_progress_update_param(PROGRESS_COPY_TUPLES_PROCESSED, events);
}

void
progress_end(void)
{
	pgstat_progress_end_command();
}
