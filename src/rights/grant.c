/*
 * grant.c
 *		Checks the roles to which grant.sql gives part of the data.
 */
#include "postgres.h"

#include "base/extension.h"
#include "miscadmin.h"
#include "rights/grant.h"
#include "utils/acl.h"

/*
 * True if the session's role has the privileges of the extension's owner or of
 * one of these roles, of which some may have been dropped.  It is the role
 * that the session has set, because the functions that ask run as their owner.
 */
bool
session_may_act_as(char *const *roles, int nroles)
{
	Oid			session = GetOuterUserId();

	if (has_privs_of_role(session, extension_owner()))
		return true;
	for (int i = 0; i < nroles; i++)
	{
		Oid			role = get_role_oid(roles[i], true);

		if (OidIsValid(role) && has_privs_of_role(session, role))
			return true;
	}
	return false;
}
