/*
 * binding.c
 *		Checks what the current user may do, according to table bindings.
 *
 * A binding gives a role a privilege for one account, for all accounts, or for
 * one sync.  Roles that inherit the privileges of a role have its bindings.
 * The extension's owner and superusers need no bindings.  Checks use the
 * current user, and are made before a function calls switch_to_owner.
 * The session user would be wrong in an index expression that autovacuum
 * evaluates, or in a SECURITY DEFINER function.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/cache.h"
#include "base/compat.h"
#include "base/extension.h"
#include "base/text.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "rights/binding.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(postalytics_reads_all);
PG_FUNCTION_INFO_V1(postalytics_readable_accounts);
PG_FUNCTION_INFO_V1(postalytics_is_manager);
PG_FUNCTION_INFO_V1(postalytics_may_see);
PG_FUNCTION_INFO_V1(postalytics_check_unrestricted);

/* ---- the table ---- */

/* Attribute numbers of bindings, in the order of binding.sql. */
enum
{
	ATTR_ROLE = 1, ATTR_PRIVILEGE, ATTR_ACCOUNT, ATTR_SYNC
};

static const char *const privilege_names[] = {
	[PRIVILEGE_INGEST] = "ingest",
	[PRIVILEGE_READ] = "read",
	[PRIVILEGE_SYNC] = "sync",
	[PRIVILEGE_MANAGE] = "manage",
	[PRIVILEGE_MONITOR] = "monitor"
};

typedef struct Binding
{
	Oid			role;			/* may have been dropped */
	Privilege	privilege;
	text	   *account;		/* NULL for all accounts */
	text	   *sync;			/* NULL unless privilege is PRIVILEGE_SYNC */
	struct Binding *next;
} Binding;

/* List of all bindings. */
static Binding *bindings;

static void
begin_bindings(void)
{
	bindings = NULL;
}

/* Return a copy of an attribute, or NULL if the attribute is NULL. */
static text *
copy_attribute(TupleTableSlot *row, int attribute)
{
	bool		isnull;
	Datum		value = slot_getattr(row, attribute, &isnull);

	return isnull ? NULL : DatumGetTextPCopy(value);
}

static void
add_binding(TupleTableSlot *row)
{
	Binding    *binding;
	bool		isnull;
	text	   *name = DatumGetTextPP(slot_getattr(row, ATTR_PRIVILEGE, &isnull));

	for (Privilege i = 0; i < lengthof(privilege_names); i++)
	{
		if (!equal_bytes(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name),
						 privilege_names[i], strlen(privilege_names[i])))
			continue;
		binding = palloc(sizeof(Binding));
		binding->role = DatumGetObjectId(slot_getattr(row, ATTR_ROLE, &isnull));
		binding->privilege = i;
		binding->account = copy_attribute(row, ATTR_ACCOUNT);
		binding->sync = copy_attribute(row, ATTR_SYNC);
		binding->next = bindings;
		bindings = binding;
	}
}

static TableCache bindings_cache = {
	.table = "bindings",
	.begin = begin_bindings,
	.add = add_binding
};

/* ---- checks ---- */

/* True if the current user has all privileges of the extension's owner. */
static bool
has_privs_of_owner(void)
{
	return has_privs_of_role(GetUserId(), extension_owner());
}

/*
 * Search the list, from the given binding on, for a binding that gives the
 * current user a privilege.  Returns NULL if there is none.
 */
static const Binding *
next_binding(const Binding *binding, Privilege privilege)
{
	while (binding != NULL &&
		   (binding->privilege != privilege || !has_privs_of_role(GetUserId(), binding->role)))
		binding = binding->next;
	return binding;
}

/*
 * Return the first binding in the list that gives the current user a privilege,
 * or NULL if there is none.
 */
static const Binding *
first_binding(Privilege privilege)
{
	refresh_cache(&bindings_cache);
	return next_binding(bindings, privilege);
}

/* True if an account is among the allowed ones. */
static bool
includes_account(const AllowedAccounts *bound, const char *account, uint32 length)
{
	return texts_include(bound->accounts, bound->count, account, length);
}

/*
 * Determine the accounts for which the current user has a privilege.
 * Allocates in the current memory context.
 */
void
allowed_accounts(Privilege privilege, AllowedAccounts *bound)
{
	int			size = 0;

	memset(bound, 0, sizeof(*bound));
	bound->all = has_privs_of_owner();
	if (bound->all)
		return;
	for (const Binding *each = first_binding(privilege); each != NULL;
		 each = next_binding(each->next, privilege))
	{
		if (each->account == NULL)
			bound->all = true;
		else if (!includes_account(bound, VARDATA_ANY(each->account), VARSIZE_ANY_EXHDR(each->account)))
		{
			if (bound->count == size)
			{
				size = Max(4, 2 * size);
				bound->accounts = bound->accounts == NULL ? palloc(size * sizeof(text *)) :
					repalloc(bound->accounts, size * sizeof(text *));
			}
			bound->accounts[bound->count++] = DatumGetTextPCopy(PointerGetDatum(each->account));
		}
	}
}

/*
 * Determine the accounts whose events the current user may ingest.  Error 42501
 * if there is no such account.
 */
void
ingest_accounts(AllowedAccounts *bound)
{
	allowed_accounts(PRIVILEGE_INGEST, bound);
	if (!bound->all && bound->count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to ingest events"),
				 errdetail("Role \"%s\" has no binding with privilege \"ingest\".", GetUserNameFromId(GetUserId(), false)),
				 errhint("The owner of the extension can grant access with %s.grant_ingest.", EXTENSION_SCHEMA)));
}

/*
 * Determine the account of a call's events.  account is the account that the
 * call specifies, or NULL.  bound holds the accounts that the current user may
 * ingest.  Error 42501 if account is not one of them, or if there are several
 * and the call specifies none.
 */
EventAccount
account_of_call(const AllowedAccounts *bound, const char *account)
{
	EventAccount event_account = {account == NULL ? "" : account, true};

	if (bound->all)
	{
		event_account.is_fixed = event_account.name[0] != '\0';
		return event_account;
	}
	if (account != NULL && includes_account(bound, account, strlen(account)))
		return event_account;
	if (event_account.name[0] != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for account \"%s\"", account),
				 errhint("The owner of the extension can grant access with %s.grant_ingest.", EXTENSION_SCHEMA)));
	if (bound->count > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("account must be specified"),
				 errdetail("Role \"%s\" is bound to more than one account.", GetUserNameFromId(GetUserId(), false)),
				 errhint("Specify the account in the call, or in column \"account\" of inbox.")));
	event_account.name = text_to_cstring(bound->accounts[0]);
	return event_account;
}

/* Return bound->accounts as text[].  bound->all is ignored. */
Datum
account_array(const AllowedAccounts *bound)
{
	Datum	   *elements = palloc(Max(bound->count, 1) * sizeof(Datum));

	for (int i = 0; i < bound->count; i++)
		elements[i] = PointerGetDatum(bound->accounts[i]);
	return PointerGetDatum(construct_array(elements, bound->count, TEXTOID, -1, false, TYPALIGN_INT));
}

/* True if the current user may manage syncs and settings. */
bool
may_manage(void)
{
	return has_privs_of_owner() || first_binding(PRIVILEGE_MANAGE) != NULL;
}

/* True if the current user may fetch and acknowledge the deliveries of a sync. */
bool
may_use_sync(const char *sync)
{
	if (has_privs_of_owner())
		return true;
	for (const Binding *each = first_binding(PRIVILEGE_SYNC); each != NULL;
		 each = next_binding(each->next, PRIVILEGE_SYNC))
		if (equal_bytes(VARDATA_ANY(each->sync), VARSIZE_ANY_EXHDR(each->sync), sync, strlen(sync)))
			return true;
	return false;
}

/*
 * check_unrestricted() returns void
 *
 * Error 42501 in a security-restricted operation.
 */
Datum
postalytics_check_unrestricted(PG_FUNCTION_ARGS)
{
	if (InSecurityRestrictedOperation())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot change settings, privileges or data within security-restricted operation")));
	PG_RETURN_VOID();
}

/* ---- SQL functions for policies ---- */

/*
 * reads_all() returns boolean
 *
 * True if the current user may read the data of all accounts.
 */
Datum
postalytics_reads_all(PG_FUNCTION_ARGS)
{
	AllowedAccounts bound;

	allowed_accounts(PRIVILEGE_READ, &bound);
	PG_RETURN_BOOL(bound.all);
}

/*
 * readable_accounts() returns text[]
 *
 * Returns the accounts to which the current user is bound as a reader.  The
 * array may be empty.
 */
Datum
postalytics_readable_accounts(PG_FUNCTION_ARGS)
{
	AllowedAccounts bound;

	allowed_accounts(PRIVILEGE_READ, &bound);
	PG_RETURN_DATUM(account_array(&bound));
}

/*
 * may_see(value text, sees_all boolean, visible text[]) returns boolean
 *
 * Returns true if sees_all is true or visible contains the value.  A NULL sees_all counts
 * as false, and a NULL value or array as not visible.  LEAKPROOF: raises no errors.
 */
Datum
postalytics_may_see(PG_FUNCTION_ARGS)
{
	ArrayType  *visible;
	text	   *value;
	Datum	   *elements;
	bool	   *nulls;
	int			count;
	bool		found = false;

	if (!PG_ARGISNULL(1) && PG_GETARG_BOOL(1))
		PG_RETURN_BOOL(true);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(2))
		PG_RETURN_BOOL(false);
	value = PG_GETARG_TEXT_PP(0);
	visible = PG_GETARG_ARRAYTYPE_P(2);
	deconstruct_array(visible, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &count);
	for (int i = 0; i < count && !found; i++)
		found = !nulls[i] && equal_texts(value, DatumGetTextPP(elements[i]));
	PG_RETURN_BOOL(found);
}

/*
 * is_manager() returns boolean
 *
 * True if the current user may manage syncs and settings.
 */
Datum
postalytics_is_manager(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(may_manage());
}
