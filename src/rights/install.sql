/*
 * install.sql
 *		The beginning of the script: restricts search_path to pg_catalog, and
 *		refuses a schema that another role has prepared.
 *
 * Otherwise, objects that another role has created in the schema could be mistaken for
 * objects of the extension or the server, and run as the extension's owner.  A schema
 * may exist before the extension, because a restore first creates the schema and sets
 * its owner.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

SET LOCAL search_path = pg_catalog, pg_temp;

DO $$
DECLARE
    home record;
BEGIN
    SELECT n.oid, r.rolname AS owner, r.rolsuper OR r.rolname = CURRENT_USER AS is_trusted,
           EXISTS (SELECT
                   FROM aclexplode(n.nspacl) AS a
                   WHERE a.privilege_type = 'CREATE'
                     AND a.grantee <> n.nspowner) AS is_shared,
           EXISTS (SELECT
                   FROM pg_depend AS d
                   WHERE d.refclassid = 'pg_namespace'::regclass
                     AND d.refobjid = n.oid
                     AND d.classid NOT IN ('pg_extension'::regclass, 'pg_default_acl'::regclass)) AS is_used
    INTO STRICT home
    FROM pg_namespace AS n
    JOIN pg_roles AS r ON r.oid = n.nspowner
    WHERE n.nspname = 'postalytics';
    IF home.is_used THEN
        RAISE EXCEPTION 'schema "postalytics" is not empty'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Drop or move the objects in it, or drop the schema; CREATE EXTENSION will create it.';
    END IF;
    IF NOT home.is_trusted THEN
        RAISE EXCEPTION 'schema "postalytics" is owned by role "%", which is not a superuser', home.owner
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Drop the schema; CREATE EXTENSION will create it.';
    END IF;
    IF home.is_shared THEN
        RAISE EXCEPTION 'other roles may create objects in schema "postalytics"'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Revoke CREATE on the schema, or drop it; CREATE EXTENSION will create it.';
    END IF;
END
$$;
