/*
 * field_name.h
 *		The fields of an event, and the names under which the feed gives them.
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
	CAMPAIGN_NAME,
	CONTACT_ID,
	FIRST_NAME,
	LAST_NAME,
	COMPANY,
	EMAIL,
	ZIP,
	COUNTRY,
	URL,
	FIELDS,
	/* the following are only read by reports, from stored payloads */
	ERROR_CODE,
	ERROR_DESCRIPTION,
	ADDRESS_UPDATED,
	ADDRESS,
	ADDRESS2,
	CITY,
	STATE,
	PAYLOAD_ACCOUNT				/* named in the payload, which does not
								 * determine the account of the event */
} Field;

#define N_FIELDS	(FIELDS + 1)	/* of an event record */
#define N_ALL_FIELDS (PAYLOAD_ACCOUNT + 1)

/*
 * What field_find returns for a member that holds events rather than a field.
 */
#define WRAPPER		N_ALL_FIELDS

typedef struct FieldInfo
{
	const char *name;			/* as in inbox and field_names */
	uint32		max_length;		/* in bytes; 0 if only reports read the field */
} FieldInfo;

extern const FieldInfo field_info[N_ALL_FIELDS];

#define MAX_PATH	64			/* with its terminator */

/*
 * The path of a member within its event, normalized for comparison.  Its text
 * is in a buffer of MAX_PATH bytes that the caller keeps.
 */
typedef struct Path
{
	uint32		hash;
	int			length;			/* MAX_PATH if it is too long to be known */
} Path;

typedef struct names_hash FieldNames;

extern FieldNames *field_names(void);
extern Path path_begin(void);
extern Path path_append(Path path, char *buffer, const char *name, int length);
extern int	field_find(FieldNames *names, const char *buffer, Path path);

#endif							/* POSTALYTICS_FIELD_NAME_H */
