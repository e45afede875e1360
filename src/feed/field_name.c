/*
 * field_name.c
 *		The names of the feed's fields: built-in names, and those that users
 *		have added to table field_names.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/cache.h"
#include "base/text.h"
#include "feed/field_name.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* Maximum lengths of values, in bytes.  Ids must fit in an index row. */
#define MAX_ID		255
#define MAX_NAME	1000
#define MAX_URL		8000
#define MAX_FIELDS	65536

const FieldInfo field_info[N_ALL_FIELDS] = {
	[MAIL_ID] = {"mail_id", MAX_ID},
	[EVENT_DATE] = {"event_date", MAX_ID},
	[EVENT_TYPE] = {"event_type", MAX_ID},
	[EXPECTED_DELIVERY_DATE] = {"expected_delivery_date", MAX_ID},
	[ACCOUNT] = {"account", MAX_ID},
	[CAMPAIGN_ID] = {"campaign_id", MAX_ID},
	[DROP_ID] = {"drop_id", MAX_ID},
	[CAMPAIGN_NAME] = {"campaign_name", MAX_NAME},
	[CONTACT_ID] = {"contact_id", MAX_ID},
	[FIRST_NAME] = {"first_name", MAX_NAME},
	[LAST_NAME] = {"last_name", MAX_NAME},
	[COMPANY] = {"company", MAX_NAME},
	[EMAIL] = {"email", MAX_NAME},
	[CITY] = {"city", MAX_NAME},
	[STATE] = {"state", MAX_NAME},
	[ZIP] = {"zip", MAX_ID},
	[COUNTRY] = {"country", MAX_ID},
	[URL] = {"url", MAX_URL},
	[FIELDS] = {"fields", MAX_FIELDS},
	[ERROR_CODE] = {"error_code", 0},
	[ERROR_DESCRIPTION] = {"error_description", 0},
	[ADDRESS_UPDATED] = {"address_updated", 0},
	[ADDRESS] = {"address", 0},
	[ADDRESS2] = {"address2", 0},
	[PHONE] = {"phone", 0},
	[PAYLOAD_ACCOUNT] = {"payload_account", 0},
};

/*
 * The built-in names: a member's path within its event in lower case, without
 * whitespace, '_', '-' and '.', so that to.firstName and "To First Name" are
 * the same.  To add a spelling, add a line here or a row to field_names.  If
 * an event has a field under several names, the first in this table takes
 * precedence.
 *
 * ACCOUNT has no entry here: the sender determines the account, and a payload
 * can specify it only through a row of field_names.
 */
static const struct
{
	const char *path;
	int			field;
}			spellings[] = {
	{"data", WRAPPER},
	{"events", WRAPPER},
	{"items", WRAPPER},
	{"mailid", MAIL_ID},
	{"metamailid", MAIL_ID},
	{"piecemailid", MAIL_ID},
	{"eventdate", EVENT_DATE},
	{"eventdatetime", EVENT_DATE},
	{"eventtimestamp", EVENT_DATE},
	{"eventtime", EVENT_DATE},
	{"timestamp", EVENT_DATE},
	{"date", EVENT_DATE},
	{"createddate", EVENT_DATE},
	{"creationdate", EVENT_DATE},
	{"datecreated", EVENT_DATE},
	{"eventtype", EVENT_TYPE},
	{"event", EVENT_TYPE},
	{"eventname", EVENT_TYPE},
	{"eventtypename", EVENT_TYPE},
	{"type", EVENT_TYPE},
	{"expecteddeliverydate", EXPECTED_DELIVERY_DATE},
	{"metaexpecteddeliverydate", EXPECTED_DELIVERY_DATE},
	{"account", PAYLOAD_ACCOUNT},
	{"accountid", PAYLOAD_ACCOUNT},
	{"metaaccountid", PAYLOAD_ACCOUNT},
	{"campaignid", CAMPAIGN_ID},
	{"metacampaignid", CAMPAIGN_ID},
	{"dropid", DROP_ID},
	{"metadropid", DROP_ID},
	{"campaigndropid", DROP_ID},
	{"metacampaigndropid", DROP_ID},
	{"campaignname", CAMPAIGN_NAME},
	{"metacampaignname", CAMPAIGN_NAME},
	{"dropname", CAMPAIGN_NAME},
	{"metadropname", CAMPAIGN_NAME},
	{"contactid", CONTACT_ID},
	{"metacontactid", CONTACT_ID},
	{"tocontactid", CONTACT_ID},
	{"toid", CONTACT_ID},
	{"dataid", CONTACT_ID},
	{"metadataid", CONTACT_ID},
	{"todataid", CONTACT_ID},
	{"contactdataid", CONTACT_ID},
	{"metacontactdataid", CONTACT_ID},
	{"firstname", FIRST_NAME},
	{"tofirstname", FIRST_NAME},
	{"lastname", LAST_NAME},
	{"tolastname", LAST_NAME},
	{"company", COMPANY},
	{"tocompany", COMPANY},
	{"email", EMAIL},
	{"emailaddress", EMAIL},
	{"toemail", EMAIL},
	{"toemailaddress", EMAIL},
	{"city", CITY},
	{"addresscity", CITY},
	{"tocity", CITY},
	{"toaddresscity", CITY},
	{"state", STATE},
	{"addressstate", STATE},
	{"tostate", STATE},
	{"toaddressstate", STATE},
	{"zip", ZIP},
	{"zipcode", ZIP},
	{"postalcode", ZIP},
	{"addresszip", ZIP},
	{"tozip", ZIP},
	{"tozipcode", ZIP},
	{"topostalcode", ZIP},
	{"toaddresszip", ZIP},
	{"country", COUNTRY},
	{"addresscountry", COUNTRY},
	{"tocountry", COUNTRY},
	{"toaddresscountry", COUNTRY},
	{"url", URL},
	{"metaurl", URL},
	{"metadata", URL},
	{"fields", FIELDS},
	{"metafields", FIELDS},
	{"errorcode", ERROR_CODE},
	{"toerrorcode", ERROR_CODE},
	{"metaerrorcode", ERROR_CODE},
	{"errordescription", ERROR_DESCRIPTION},
	{"toerrordescription", ERROR_DESCRIPTION},
	{"metaerrordescription", ERROR_DESCRIPTION},
	{"addressupdated", ADDRESS_UPDATED},
	{"toaddressupdated", ADDRESS_UPDATED},
	{"wasupdated", ADDRESS_UPDATED},
	{"towasupdated", ADDRESS_UPDATED},
	{"address", ADDRESS},
	{"addressstreet", ADDRESS},
	{"toaddress", ADDRESS},
	{"toaddressstreet", ADDRESS},
	{"address2", ADDRESS2},
	{"addressstreet2", ADDRESS2},
	{"toaddress2", ADDRESS2},
	{"toaddressstreet2", ADDRESS2},
	{"phone", PHONE},
	{"tophone", PHONE},
};

/* The rank of names in field_names.  They take precedence over built-in names. */
#define USER_RANK	(-1)

/*
 * The hash function is FNV-1a.  With it, the hash of a member's path can be
 * computed from the hash of the path of the object that contains the member.
 */
#define EMPTY_PATH_HASH 2166136261u

static inline uint32
hash_byte(uint32 hash, unsigned char c)
{
	return (hash ^ c) * 16777619u;
}

static inline uint32
hash_path(const char *path)
{
	uint32		hash = EMPTY_PATH_HASH;

	while (*path)
		hash = hash_byte(hash, *path++);
	return hash;
}

#define SH_PREFIX		names
#define SH_ELEMENT_TYPE FieldName
#define SH_KEY_TYPE		const char *
#define SH_KEY			path
#define SH_HASH_KEY(tb, key) hash_path(key)
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* Return an empty path. */
Path
path_begin(void)
{
	Path		path = {EMPTY_PATH_HASH, 0};

	return path;
}

/* True for a character that is ignored in names. */
bool
is_ignored_in_name(char c)
{
	return is_blank(c) || c == '_' || c == '-' || c == '.';
}

/*
 * Append a member's name to a path in buffer, in lower case and without ignored
 * characters.  The result has length MAX_PATH if it would not fit in the buffer.
 */
Path
path_append(Path path, char *buffer, const char *name, int length)
{
	for (int i = 0; i < length; i++)
	{
		unsigned char c = name[i];

		if (is_ignored_in_name(c))
			continue;
		if (path.length >= MAX_PATH - 1)
		{
			path.length = MAX_PATH;
			return path;
		}
		c = (c >= 'A' && c <= 'Z') ? c + ('a' - 'A') : c;
		buffer[path.length++] = c;
		path.hash = hash_byte(path.hash, c);
	}
	buffer[path.length] = '\0';
	return path;
}

/* The built-in names and those in field_names. */
static FieldNames *known_fields;

/*
 * Add a spelling of a field.  If the spelling is known already, replace its
 * field.  If field is COLLECTED, member is the member of FIELDS to set; otherwise
 * member is NULL.
 */
static void
add_name(const char *spelling, int length, int field, int rank, const char *member)
{
	char		buffer[MAX_PATH];
	Path		path = path_append(path_begin(), buffer, spelling, length);
	FieldName  *entry;
	bool		found;

	if (path.length == 0 || path.length == MAX_PATH)
		return;					/* a check constraint of the table excludes
								 * these */
	entry = names_insert(known_fields->names, buffer, &found);
	if (!found)
		entry->path = pstrdup(buffer);
	entry->field = field;
	entry->rank = rank;
	entry->member = member;
}

/* Add a path prefix.  spelling is the text before the '*'. */
static void
add_prefix(const char *spelling, int length)
{
	char		buffer[MAX_PATH];
	Path		path = path_append(path_begin(), buffer, spelling, length);
	Size		size = (known_fields->nprefixes + 1) * sizeof(FieldPrefix);

	if (path.length == MAX_PATH)
		return;
	known_fields->prefixes = known_fields->prefixes == NULL ? palloc(size) : repalloc(known_fields->prefixes, size);
	known_fields->prefixes[known_fields->nprefixes++] = (FieldPrefix)
	{
		pstrdup(buffer), path.length
	};
}

/*
 * Return the Field with this name, or WRAPPER for "events".  Returns -1 for other
 * names.
 */
static int
field_by_name(const char *name)
{
	if (strcmp(name, "events") == 0)
		return WRAPPER;
	for (int i = 0; i < N_ALL_FIELDS; i++)
		if (strcmp(field_info[i].name, name) == 0)
			return i;
	return -1;
}

static void
begin_field_names(void)
{
	known_fields = palloc0(sizeof(FieldNames));
	known_fields->names = names_create(CurrentMemoryContext, 2 * lengthof(spellings), NULL);
	for (int i = 0; i < (int) lengthof(spellings); i++)
		add_name(spellings[i].path, strlen(spellings[i].path), spellings[i].field, i, NULL);
}

/* In column field, the prefix of a member of FIELDS, as in "fields.offer". */
#define MEMBER_OF_FIELDS	"fields."

/* Add a row of field_names, whose columns are path and field. */
static void
add_field_name(TupleTableSlot *row)
{
	bool		isnull;
	text	   *path = DatumGetTextPP(slot_getattr(row, 1, &isnull));
	char	   *name = TextDatumGetCString(slot_getattr(row, 2, &isnull));
	const char *spelling = VARDATA_ANY(path);
	int			length = VARSIZE_ANY_EXHDR(path);
	int			field = field_by_name(name);

	if (field >= 0)
		add_name(spelling, length, field, USER_RANK, NULL);
	else if (strcmp(name, MEMBER_OF_FIELDS "*") == 0 && length > 0 && spelling[length - 1] == '*')
		add_prefix(spelling, length - 1);
	else if (strncmp(name, MEMBER_OF_FIELDS, strlen(MEMBER_OF_FIELDS)) == 0)
		add_name(spelling, length, COLLECTED, USER_RANK, name + strlen(MEMBER_OF_FIELDS));
}

static TableCache field_names_cache = {
	.table = "field_names",
	.begin = begin_field_names,
	.add = add_field_name
};

/* Return all names.  The result is valid until the transaction ends. */
const FieldNames *
field_names(void)
{
	refresh_cache(&field_names_cache);
	return known_fields;
}

/* Return the entry for the path in buffer, or NULL if the path is unknown. */
const FieldName *
field_find(const FieldNames *names, const char *buffer, Path path)
{
	if (path.length == MAX_PATH)
		return NULL;
	return names_lookup_hash(names->names, buffer, path.hash);
}

/*
 * Return the length of the longest known prefix of the path in buffer, or -1 if
 * it has none.
 */
int
field_prefix(const FieldNames *names, const char *buffer, Path path)
{
	int			longest = -1;

	if (path.length == MAX_PATH)
		return -1;
	for (int i = 0; i < names->nprefixes; i++)
	{
		const FieldPrefix *prefix = &names->prefixes[i];

		if (prefix->length > longest && prefix->length < path.length &&
			memcmp(buffer, prefix->path, prefix->length) == 0)
			longest = prefix->length;
	}
	return longest;
}
