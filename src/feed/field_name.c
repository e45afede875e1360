/*
 * field_name.c
 *		The one table of the feed's field names, with those that users have
 *		added in table field_names.
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
	[CAMPAIGN_NAME] = {"campaign_name", MAX_NAME},
	[CONTACT_ID] = {"contact_id", MAX_ID},
	[FIRST_NAME] = {"first_name", MAX_NAME},
	[LAST_NAME] = {"last_name", MAX_NAME},
	[COMPANY] = {"company", MAX_NAME},
	[EMAIL] = {"email", MAX_NAME},
	[ZIP] = {"zip", MAX_ID},
	[COUNTRY] = {"country", MAX_ID},
	[URL] = {"url", MAX_URL},
	[FIELDS] = {"fields", MAX_FIELDS},
	[ERROR_CODE] = {"error_code", 0},
	[ERROR_DESCRIPTION] = {"error_description", 0},
	[ADDRESS_UPDATED] = {"address_updated", 0},
	[ADDRESS] = {"address", 0},
	[ADDRESS2] = {"address2", 0},
	[CITY] = {"city", 0},
	[STATE] = {"state", 0},
	[PAYLOAD_ACCOUNT] = {"payload_account", 0},
};

/*
 * THE table of field names: a member's path within its event in lower case,
 * without whitespace, '_', '-' and '.', so that to.firstName and "To First
 * Name" are the same.  A new spelling is a line here, or a row in field_names.
 * ACCOUNT has no entry here: the sender determines the account, and a payload
 * can specify it only by a row of field_names.
 */
static const struct
{
	const char *path;
	int			field;
}			spellings[] = {
	{"data", WRAPPER}, {"events", WRAPPER}, {"items", WRAPPER},
	{"mailid", MAIL_ID}, {"metamailid", MAIL_ID},
	{"eventdate", EVENT_DATE},
	{"eventtype", EVENT_TYPE}, {"event", EVENT_TYPE},
	{"expecteddeliverydate", EXPECTED_DELIVERY_DATE},
	{"account", PAYLOAD_ACCOUNT}, {"accountid", PAYLOAD_ACCOUNT}, {"metaaccountid", PAYLOAD_ACCOUNT},
	{"campaignid", CAMPAIGN_ID}, {"metacampaignid", CAMPAIGN_ID},
	{"campaignname", CAMPAIGN_NAME}, {"metacampaignname", CAMPAIGN_NAME},
	{"contactid", CONTACT_ID}, {"toid", CONTACT_ID},
	{"tocontactid", CONTACT_ID}, {"metacontactid", CONTACT_ID},
	{"firstname", FIRST_NAME}, {"tofirstname", FIRST_NAME},
	{"lastname", LAST_NAME}, {"tolastname", LAST_NAME},
	{"company", COMPANY}, {"tocompany", COMPANY},
	{"email", EMAIL}, {"toemail", EMAIL},
	{"zip", ZIP}, {"tozip", ZIP},
	{"country", COUNTRY}, {"tocountry", COUNTRY},
	{"url", URL}, {"metaurl", URL}, {"metadata", URL},
	{"fields", FIELDS}, {"metafields", FIELDS},
	{"errorcode", ERROR_CODE}, {"toerrorcode", ERROR_CODE}, {"metaerrorcode", ERROR_CODE},
	{"errordescription", ERROR_DESCRIPTION}, {"toerrordescription", ERROR_DESCRIPTION},
	{"metaerrordescription", ERROR_DESCRIPTION},
	{"addressupdated", ADDRESS_UPDATED}, {"toaddressupdated", ADDRESS_UPDATED},
	{"wasupdated", ADDRESS_UPDATED}, {"towasupdated", ADDRESS_UPDATED},
	{"address", ADDRESS}, {"toaddress", ADDRESS},
	{"address2", ADDRESS2}, {"toaddress2", ADDRESS2},
	{"city", CITY}, {"tocity", CITY},
	{"state", STATE}, {"tostate", STATE},
};

typedef struct FieldName
{
	const char *path;
	uint32		hash;
	int			field;			/* a Field, or WRAPPER */
	char		status;			/* for simplehash */
} FieldName;

/* FNV-1a, which lets the hash of a path continue that of its section. */
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

/*
 * Append a member's name to a path in buffer, without the ignored characters.
 */
Path
path_append(Path path, char *buffer, const char *name, int length)
{
	for (int i = 0; i < length; i++)
	{
		unsigned char c = name[i];

		if (is_blank(c) || c == '_' || c == '-' || c == '.')
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

/* Add a spelling of a field, or replace the field that it stands for. */
static void
add_name(names_hash *names, const char *spelling, int length, int field)
{
	char		buffer[MAX_PATH];
	Path		path = path_append(path_begin(), buffer, spelling, length);
	FieldName  *entry;
	bool		found;

	if (path.length == 0 || path.length == MAX_PATH)
		return;					/* a check constraint of the table excludes
								 * these */
	entry = names_insert(names, buffer, &found);
	if (!found)
		entry->path = MemoryContextStrdup(names->ctx, buffer);
	entry->field = field;
}

/* Return the field of this name, or -1. */
static int
field_by_name(const char *name, int length)
{
	for (int i = 0; i < N_ALL_FIELDS; i++)
		if (equal_bytes(field_info[i].name, strlen(field_info[i].name), name, length))
			return i;
	return -1;
}

/* The built-in names and the users' own ones. */
static names_hash *known_names;

static void
begin_field_names(void)
{
	known_names = names_create(CurrentMemoryContext, 2 * lengthof(spellings), NULL);
	for (int i = 0; i < (int) lengthof(spellings); i++)
		add_name(known_names, spellings[i].path, strlen(spellings[i].path),
				 spellings[i].field);
}

/* Add a row of field_names, whose columns are path and field. */
static void
add_field_name(TupleTableSlot *row)
{
	bool		isnull;
	text	   *path = DatumGetTextPP(slot_getattr(row, 1, &isnull));
	text	   *name = DatumGetTextPP(slot_getattr(row, 2, &isnull));
	int			field = field_by_name(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));

	if (field >= 0)
		add_name(known_names, VARDATA_ANY(path), VARSIZE_ANY_EXHDR(path), field);
}

static TableCache field_names_cache = {
	.table = "field_names",
	.begin = begin_field_names,
	.add = add_field_name
};

/* Return all names, which are valid until the next call. */
FieldNames *
field_names(void)
{
	refresh_cache(&field_names_cache);
	return known_names;
}

/* Return the field, or WRAPPER, of a path in buffer; -1 if it is unknown. */
int
field_find(FieldNames *names, const char *buffer, Path path)
{
	FieldName  *known;

	if (path.length == MAX_PATH)
		return -1;
	known = names_lookup_hash(names, buffer, path.hash);
	return known == NULL ? -1 : known->field;
}
