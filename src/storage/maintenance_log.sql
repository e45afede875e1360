/*
 * maintenance_log.sql
 *		maintenance_log: actions of maintain().
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE TABLE postalytics.maintenance_log (
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    action text NOT NULL,
    relation text NOT NULL,
    detail text
);
-- A publication FOR ALL TABLES includes this table.  As there is no primary key, UPDATE
-- and DELETE would then fail without another replica identity.
ALTER TABLE postalytics.maintenance_log REPLICA IDENTITY FULL;
CREATE INDEX maintenance_log_at_idx ON postalytics.maintenance_log (at);
COMMENT ON TABLE postalytics.maintenance_log IS
    'actions of maintain(): a row for each set of partitions that it created, each partition that it dropped, detached or had to keep, each batch of pieces or rejects that it retired, and each table that it shrank; also, at most once an hour, that linked contacts could not be written; kept for a year';
COMMENT ON COLUMN postalytics.maintenance_log.at IS 'time of the action';
COMMENT ON COLUMN postalytics.maintenance_log.action IS 'what was done, such as create, drop, detach or failed; "not linked" if the status of pieces could not be written into linked contacts';
COMMENT ON COLUMN postalytics.maintenance_log.relation IS 'table, partition or view';
COMMENT ON COLUMN postalytics.maintenance_log.detail IS 'details, or the error';

SELECT pg_catalog.pg_extension_config_dump('postalytics.maintenance_log', '');

-- An action that removes data is also recorded in the server log, there with the amount.
CREATE FUNCTION postalytics.log_maintenance(action text, relation text, detail text DEFAULT NULL, amount text DEFAULT NULL)
RETURNS postalytics.maintenance_log
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    done postalytics.maintenance_log;
BEGIN
    INSERT INTO postalytics.maintenance_log (action, relation, detail)
    VALUES (action, relation, detail)
    RETURNING *
    INTO done;
    IF action = ANY ('{drop,detach,delete,anonymise}') THEN
        RAISE LOG 'maintain() performed "%" on relation "%"', action, relation
            USING DETAIL = concat_ws(', ', amount, detail);
    END IF;
    RETURN done;
END
$$;
COMMENT ON FUNCTION postalytics.log_maintenance(text, text, text, text) IS
    'internal: record an action of maintain()';
