/*
 * field_name.h
 *		The fields of an event, and the names under which the feed gives them.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_FIELD_NAME_H
#define POSTALYTICS_FIELD_NAME_H

#include "postgres.h"

typedef enum Field
{
	MAIL_ID,
	EVENT_DATE,
	EVENT_TYPE,
	EXPECTED_DELIVERY_DATE,
	ACCOUNT,
	CAMPAIGN_ID,
	DROP_ID,
	CAMPAIGN_NAME,
	CONTACT_ID,
	FIRST_NAME,
	LAST_NAME,
	COMPANY,
	EMAIL,
	CITY,
	STATE,
	ZIP,
	COUNTRY,
	URL,
	FIELDS,
	/* not in event records; only event_read_details reads these from payloads */
	ERROR_CODE,
	ERROR_DESCRIPTION,
	ADDRESS_UPDATED,
	ADDRESS,
	ADDRESS2,
	PHONE,
	PAYLOAD_ACCOUNT				/* account named in the payload, which does
								 * not determine the account of the event */
} Field;

#define N_FIELDS	(FIELDS + 1)	/* number of fields in an event record */
#define N_ALL_FIELDS (PAYLOAD_ACCOUNT + 1)

/*
 * A name can also stand for a member that contains events (WRAPPER), or for a
 * scalar that is collected into FIELDS (COLLECTED).
 */
#define WRAPPER		N_ALL_FIELDS
#define COLLECTED	(N_ALL_FIELDS + 1)

typedef struct FieldInfo
{
	const char *name;			/* name in inbox and field_names */
	uint32		max_length;		/* in bytes; 0 for fields from N_FIELDS on */
} FieldInfo;

extern const FieldInfo field_info[N_ALL_FIELDS];

#define MAX_PATH	64			/* size in bytes, including the terminator */

/*
 * The path of a member within its event, in the normal form that path_append
 * produces.  The text is in a buffer of MAX_PATH bytes that the caller provides.
 */
typedef struct Path
{
	uint32		hash;
	int			length;			/* MAX_PATH if the path is too long */
} Path;

/* A name of a field. */
typedef struct FieldName
{
	const char *path;
	uint32		hash;
	int			field;			/* a Field, WRAPPER or COLLECTED */
	int			rank;			/* if an event has a field under several
								 * names, the lowest rank takes precedence */
	const char *member;			/* member of FIELDS to set, if COLLECTED */
	char		status;			/* for simplehash */
} FieldName;

/*
 * A path prefix.  A scalar whose path begins with the prefix is collected into
 * FIELDS, under the rest of the path as its name.
 */
typedef struct FieldPrefix
{
	const char *path;
	int			length;
} FieldPrefix;

/* All known names and prefixes. */
typedef struct FieldNames
{
	struct names_hash *names;
	FieldPrefix *prefixes;
	int			nprefixes;
} FieldNames;

extern const FieldNames *field_names(void);
extern Path path_begin(void);
extern Path path_append(Path path, char *buffer, const char *name, int length);
extern const FieldName *field_find(const FieldNames *names, const char *buffer, Path path);
extern int	field_prefix(const FieldNames *names, const char *buffer, Path path);
extern bool is_ignored_in_name(char c);

#endif							/* POSTALYTICS_FIELD_NAME_H */
