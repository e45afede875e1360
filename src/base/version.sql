/*
 * version.sql
 *		The version of the library, and the number of its interface.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.interface()
RETURNS integer
LANGUAGE c
IMMUTABLE
AS 'MODULE_PATHNAME', 'postalytics_interface_1';
COMMENT ON FUNCTION postalytics.interface() IS
    'internal: number of the interface that the extension requires of the library; equal to the major version';

CREATE FUNCTION postalytics.library_version()
RETURNS text
LANGUAGE c
STABLE
AS 'MODULE_PATHNAME', 'postalytics_library_version';
COMMENT ON FUNCTION postalytics.library_version() IS
    'version of the library that this session has loaded';

CREATE FUNCTION postalytics.require_library(version text)
RETURNS void
LANGUAGE c
STABLE STRICT
AS 'MODULE_PATHNAME', 'postalytics_require_library';
COMMENT ON FUNCTION postalytics.require_library(text) IS
    'internal: raise an error if the loaded library is older than a version';

-- Update scripts begin with the same statement.
SELECT postalytics.require_library(x.extversion)
FROM pg_catalog.pg_extension AS x
WHERE x.extname IN ('postalytics_status', 'postalytics_cluster');
