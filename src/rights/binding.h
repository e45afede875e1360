/*
 * binding.h
 *		The privileges of roles, and the accounts for which they hold.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_BINDING_H
#define POSTALYTICS_BINDING_H

#include "postgres.h"

/* The privilege of a binding, in the order of privilege_names in binding.c. */
typedef enum Privilege
{
	PRIVILEGE_INGEST,
	PRIVILEGE_READ,
	PRIVILEGE_SYNC,
	PRIVILEGE_MANAGE,
	PRIVILEGE_MONITOR
} Privilege;

/* The accounts for which the current user has a privilege. */
typedef struct AllowedAccounts
{
	bool		all;
	int			count;
	text	  **accounts;
} AllowedAccounts;

/* The account of a call's events. */
typedef struct EventAccount
{
	const char *name;			/* '' if no account is specified */
	bool		is_fixed;		/* true if accounts in payloads are ignored */
} EventAccount;

extern void allowed_accounts(Privilege privilege, AllowedAccounts *bound);
extern void ingest_accounts(AllowedAccounts *bound);
extern EventAccount account_of_call(const AllowedAccounts *bound, const char *account);
extern Datum account_array(const AllowedAccounts *bound);
extern bool may_manage(void);
extern bool may_use_sync(const char *sync);

#endif							/* POSTALYTICS_BINDING_H */
