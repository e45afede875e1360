/*
 * stated_account.sql
 *		The account that a payload names.
 */

CREATE FUNCTION postalytics.stated_account(payload json)
RETURNS text
LANGUAGE c
STABLE STRICT
AS 'MODULE_PATHNAME', 'postalytics_stated_account';
COMMENT ON FUNCTION postalytics.stated_account(json) IS
    'internal: the account that a payload names, which does not decide whose event it is';
