/*
 * users.sql
 *		The roles that may use the pooler, as PgBouncer's auth_file.  A superuser must not be
 *		among them.
 *
 *		psql -d crm -XAtq -f users.sql >users.txt
 */
SELECT pg_catalog.format('"%s" "%s"', a.rolname, a.rolpassword)
FROM pg_catalog.pg_authid AS a
WHERE a.rolname IN ('crm_worker')
  AND NOT a.rolsuper
  AND a.rolpassword LIKE 'SCRAM-SHA-256$%';
