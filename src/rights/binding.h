/*
 * binding.h
 *		What a role may do with the data, and whose data.
 */
#ifndef POSTALYTICS_BINDING_H
#define POSTALYTICS_BINDING_H

#include "postgres.h"

/* What a binding allows, in the order of privilege_names in binding.c. */
typedef enum Privilege
{
	PRIVILEGE_INGEST,
	PRIVILEGE_READ,
	PRIVILEGE_SYNC,
	PRIVILEGE_MANAGE,
	PRIVILEGE_MONITOR
} Privilege;

/* The accounts for which the current user has a privilege. */
typedef struct BoundAccounts
{
	bool		all;
	int			count;
	text	  **accounts;
} BoundAccounts;

/* Whose events a call brings. */
typedef struct Channel
{
	const char *account;		/* '' where none is given */
	bool		is_fixed;		/* the events may not name another one */
} Channel;

extern void bound_accounts(Privilege privilege, BoundAccounts *bound);
extern void ingest_accounts(BoundAccounts *bound);
extern Channel ingest_channel(const BoundAccounts *bound, const char *account);
extern Datum account_array(const BoundAccounts *bound);
extern bool may_manage(void);
extern bool may_work_on(const char *sync);

#endif							/* POSTALYTICS_BINDING_H */
