/*
 * acl.sql
 *		Revokes the privileges that were granted by default privileges.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- object is written as in REVOKE, such as TABLE postalytics.events.  acl and owner are
-- those in the object's catalog row.
CREATE FUNCTION postalytics.revoke_all_privileges(object text, acl aclitem[], owner oid)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('REVOKE ALL ON %s FROM PUBLIC%s', object,
                   (SELECT string_agg(', ' || quote_ident(pg_get_userbyid(g.grantee)), '')
                    FROM (SELECT DISTINCT a.grantee
                          FROM aclexplode(acl) AS a
                          WHERE a.grantee NOT IN (0, owner)) AS g));
END
$$;
COMMENT ON FUNCTION postalytics.revoke_all_privileges(text, aclitem[], oid) IS
    'internal: revoke all privileges on an object from everybody but its owner';
