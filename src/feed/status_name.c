/*
 * status_name.c
 *		The meanings of the feed's event types.
 *
 * An event type means a status of the lifecycle, a production error, or an event to
 * ignore.  Spellings that users have added to table status_names take precedence
 * over the built-in spellings.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/cache.h"
#include "base/compat.h"
#include "base/text.h"
#include "common/hashfn.h"
#include "feed/field_name.h"
#include "feed/status_name.h"
#include "utils/builtins.h"

typedef struct StatusName
{
	const char *spelling;		/* in the normal form of path_append */
	int			meaning;
	char		status;			/* for simplehash */
} StatusName;

#define SH_PREFIX		spellings
#define SH_ELEMENT_TYPE StatusName
#define SH_KEY_TYPE		const char *
#define SH_KEY			spelling
#define SH_HASH_KEY(tb, key) hash_bytes((const unsigned char *) (key), strlen(key))
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

static spellings_hash *known_statuses;

static void
begin_status_names(void)
{
	known_statuses = spellings_create(CurrentMemoryContext, 16, NULL);
}

/* The names of the meanings that are not a status. */
static const char *const other_meanings[] = {
	[IGNORED_EVENT - N_STATUSES] = "ignore",
	[PRODUCTION_ERROR - N_STATUSES] = "Error",
	[GENERAL_ERROR - N_STATUSES] = "None",
};

/* Return the name of a meaning, as in column status of status_names. */
const char *
meaning_name(int meaning)
{
	return meaning < N_STATUSES ? status_name(meaning) : other_meanings[meaning - N_STATUSES];
}

/* Return the built-in meaning of a spelling, or NO_STATUS if it has none. */
static int
builtin_meaning(const char *spelling, int length)
{
	spelling = trim(spelling, &length);
	for (int meaning = PRODUCTION_ERROR; meaning < N_MEANINGS; meaning++)
	{
		const char *name = meaning_name(meaning);

		if (length == strlen(name) && pg_strncasecmp(spelling, name, length) == 0)
			return meaning;
	}
	return status_from_text(spelling, length);
}

/* Add a row of status_names, whose columns are spelling and status. */
static void
add_status_name(TupleTableSlot *row)
{
	bool		isnull;
	text	   *spelling = DatumGetTextPP(slot_getattr(row, 1, &isnull));
	const char *name = TextDatumGetCString(slot_getattr(row, 2, &isnull));
	int			meaning = strcmp(name, meaning_name(IGNORED_EVENT)) == 0 ? IGNORED_EVENT :
	builtin_meaning(name, strlen(name));
	char		buffer[MAX_PATH];
	Path		path = path_append(path_begin(), buffer, VARDATA_ANY(spelling), VARSIZE_ANY_EXHDR(spelling));
	StatusName *entry;
	bool		found;

	if (path.length == 0 || path.length == MAX_PATH || meaning == NO_STATUS)
		return;					/* check constraints of the table exclude
								 * these */
	entry = spellings_insert(known_statuses, buffer, &found);
	if (!found)
		entry->spelling = pstrdup(buffer);
	entry->meaning = meaning;
}

static TableCache status_names_cache = {
	.table = "status_names",
	.begin = begin_status_names,
	.add = add_status_name
};

/*
 * Return the spellings in status_names.  The result is valid until the
 * transaction ends.
 */
StatusNames *
status_names(void)
{
	refresh_cache(&status_names_cache);
	return known_statuses;
}

/*
 * Return the meaning of a spelling of the feed, or NO_STATUS if the spelling is
 * unknown.
 */
int
find_meaning(StatusNames *names, const char *spelling, int length)
{
	char		buffer[MAX_PATH];
	StatusName *entry = NULL;

	if (names->members > 0 &&
		path_append(path_begin(), buffer, spelling, length).length < MAX_PATH)
		entry = spellings_lookup(names, buffer);
	return entry == NULL ? builtin_meaning(spelling, length) : entry->meaning;
}
